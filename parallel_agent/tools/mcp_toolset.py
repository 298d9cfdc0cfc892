"""`McpToolset`: the tools of a server that speaks the Model Context Protocol.

Needs the extra ``mcp``: the official SDK, which runs natively on trio.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, final

import trio

from parallel_agent.context import InvocationContext
from parallel_agent.model_errors import MissingExtraError, ToolDefinitionError
from parallel_agent.tools.context import ToolContext
from parallel_agent.tools.mcp_connection import Connection
from parallel_agent.tools.mcp_servers import HttpServer, McpServer, StdioServer
from parallel_agent.tools.tool import Approval, Tool
from parallel_agent.tools.toolset import Toolset

try:
    import mcp_types
except ImportError as error:
    raise MissingExtraError("McpToolset", error.name or "mcp", "mcp") from error

__all__ = ["McpToolset"]


@final
class McpToolset(Toolset):
    """The tools of a server that speaks the Model Context Protocol.

    Opening it starts the server, or connects to it; leaving the block ends the server's process,
    or the session. Calls may run side by side. A call that is cancelled is cancelled at the server.

    What a tool returns is its structured content, if it has one; else its text; else a list of its
    parts. Of images and sounds the kind and the size are told, and not the data: a model is
    answered in text, and what it is answered is recorded. A part may link to a resource.

    Args:
        server: a `StdioServer` or an `HttpServer`.
        names: which of its tools, by the server's names; all by default.
        prefix: put before the name of each, so that two servers may have tools of one name.
        needs_approval: see `Tool`; of each of them.
        timeout: the seconds that opening it may take, until its tools are known.
        call_timeout: the seconds that a call may take; None is for ever.

    Raises:
        ToolDefinitionError: an argument is not what it must be.
    """

    def __init__(
        self,
        server: McpServer,
        *,
        names: Collection[str] | None = None,
        prefix: str = "",
        needs_approval: Approval = False,
        timeout: float = 30.0,
        call_timeout: float | None = 300.0,
    ) -> None:
        """See the class."""
        if not isinstance(server, StdioServer | HttpServer):
            kind = type(server).__name__  # not what it is: it may be an address with a password
            message = f"server is a StdioServer or an HttpServer, not {kind}"
            raise ToolDefinitionError(message)
        if isinstance(names, str):
            message = f"names is a list of names, not {names!r:.80}"
            raise ToolDefinitionError(message)
        if not isinstance(prefix, str):
            message = f"prefix is text, not {prefix!r:.80}"
            raise ToolDefinitionError(message)
        _check_seconds("timeout", timeout)
        if call_timeout is not None:
            _check_seconds("call_timeout", call_timeout)
        self._server = server
        self._names = None if names is None else tuple(names)
        self._prefix = prefix
        self._needs_approval = needs_approval
        self._timeout = timeout
        self._call_timeout = call_timeout

    @property
    def server(self) -> McpServer:
        """Whose tools they are."""
        return self._server

    @asynccontextmanager
    async def open(
        self,
        ctx: InvocationContext | None = None,  # noqa: ARG002  # a server knows no agents
    ) -> AsyncGenerator[Sequence[Tool]]:
        """Return a block in which the tools can be called; see `Toolset.open`.

        What is raised in the block leaves it as it is. When the block has been left, by whatever
        way, the server's process has ended: it is asked to, and killed if it does not.

        Raises:
            McpServerError: the server cannot be started or reached, or speaks no MCP.
            ToolDefinitionError: the server has no tool of one of the names, or two of its tools
                would be called the same.
        """
        connection = Connection(self._server, self._call_timeout)
        failure: BaseException | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run)
            try:
                offered = await connection.opened(self._timeout)
                yield self._tools(connection, offered)
            except BaseException as exc:  # noqa: BLE001  # raised below: a nursery would wrap it
                failure = exc
            finally:
                await connection.close()
        try:
            if failure is not None:
                raise failure
        finally:
            del failure  # it holds this frame

    def _tools(self, connection: Connection, offered: Sequence[mcp_types.Tool]) -> list[Tool]:
        known = {one.name: one for one in offered}
        shown = self._server.shown
        missing = [name for name in self._names or () if name not in known]
        if missing:
            there = ", ".join(known) or "none"
            message = f"MCP server {shown} has no tool {missing[0]!r}; there are {there}"
            raise ToolDefinitionError(message)
        tools = dict[str, _McpTool]()
        for name in known if self._names is None else dict.fromkeys(self._names):
            tool = _McpTool(connection, known[name], self._prefix, self._needs_approval)
            other = tools.setdefault(tool.name, tool)
            if other is not tool:
                message = (
                    f"tools {other.original!r} and {name!r} of MCP server {shown} would both be "
                    f"called {tool.name!r}: choose one by names=[...]"
                )
                raise ToolDefinitionError(message)
        return list(tools.values())

    def __repr__(self) -> str:
        return f"<McpToolset {self._server.shown}>"


def _check_seconds(what: str, given: object) -> None:
    if not isinstance(given, int | float) or not given > 0:
        message = f"{what} is a number of seconds, more than 0, not {given!r:.80}"
        raise ToolDefinitionError(message)


_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_NAME: Final = 64


class _McpTool(Tool):
    """A tool of a server, as long as the connection is open."""

    def __init__(
        self,
        connection: Connection,
        offered: mcp_types.Tool,
        prefix: str,
        needs_approval: Approval,
    ) -> None:
        # Servers may use dots and more, and start with a digit; models' servers take less.
        name = _NO_NAME.sub("_", prefix + offered.name)[:_LONGEST_NAME]
        super().__init__(
            f"_{name}"[:_LONGEST_NAME] if name[:1] in "-0123456789" else name,
            offered.description or offered.title or "",
            needs_approval=needs_approval,
        )
        self._connection = connection
        self._parameters = offered.input_schema
        self.original = offered.name

    @property
    def parameters(self) -> Mapping[str, Any]:
        return self._parameters

    async def call(self, ctx: ToolContext, arguments: Mapping[str, Any]) -> Any:  # noqa: ARG002  # a server knows no agents
        """Have it called at the server.

        Raises:
            McpToolError: the tool has failed, the server refuses the call, or took too long.
            McpServerError: the server has gone, or the block in which it was open has been left.
        """
        result = await self._connection.call(self.original, dict(arguments))
        if result.is_error:
            said = _as_text(result) or "it does not say why"
            raise self._connection.tool_error(self.original, said)
        return _as_json(result)


def _as_json(result: mcp_types.CallToolResult) -> Any:
    if result.structured_content is not None:
        return result.structured_content
    parts = [_part(one) for one in result.content]
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _as_text(result: mcp_types.CallToolResult) -> str:
    said = _as_json(result)
    return said if isinstance(said, str) else str(said)


def _part(part: mcp_types.ContentBlock) -> dict[str, Any]:
    """Return a part as JSON: text and links as they are, of other data how much there is."""
    if isinstance(part, mcp_types.TextContent):
        return {"type": "text", "text": part.text}
    if isinstance(part, mcp_types.ImageContent | mcp_types.AudioContent):
        return {"type": part.type, "mimeType": part.mime_type, "bytes": _size(part.data)}
    if isinstance(part, mcp_types.ResourceLink):
        fields = part.model_dump(mode="json", by_alias=True, exclude_none=True)
        return {key: fields[key] for key in fields if key in _OF_A_LINK}
    resource = part.resource
    told: dict[str, Any] = {"type": "resource", "uri": str(resource.uri)}
    if resource.mime_type is not None:
        told["mimeType"] = resource.mime_type
    if isinstance(resource, mcp_types.TextResourceContents):
        return {**told, "text": resource.text}
    return {**told, "bytes": _size(resource.blob)}


_OF_A_LINK: Final = frozenset({"type", "uri", "name", "title", "description", "mimeType", "size"})


def _size(base64: str) -> int:
    return len(base64) * 3 // 4 - base64[-2:].count("=")
