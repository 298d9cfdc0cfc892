"""The tools that nodes of a file name: code that was given, as the file describes it; and servers.

Pure: no I/O. A server is started, or connected to, when a node that names it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import attrs

from parallel_agent.config.format import McpServer, ToolEntry
from parallel_agent.model_errors import MissingExtraError, ToolDefinitionError
from parallel_agent.tools.context import ToolContext
from parallel_agent.tools.function_tool import FunctionTool
from parallel_agent.tools.mcp_servers import HttpServer, StdioServer
from parallel_agent.tools.tool import Tool
from parallel_agent.tools.toolset import Toolset
from session.state import freeze

__all__ = ["DeclaredTool", "ServerUse", "declared_tool", "server_of"]


@final
class DeclaredTool(Tool):
    """A tool by the name that a file gives it, and as the file describes it, if it does.

    Raises:
        ToolDefinitionError: the name is none.
    """

    def __init__(self, name: str, tool: Tool, entry: ToolEntry | None) -> None:
        """``tool`` is what is called."""
        description = None if entry is None else entry.description
        super().__init__(
            name,
            tool.description if description is None else description,
            needs_approval=tool.wants_approval,
            is_long_running=tool.is_long_running,
        )
        self._tool = tool
        self._parameters: Mapping[str, Any] = tool.parameters
        if entry is not None and entry.parameters is not None:
            described = {"type": "object", "properties": entry.parameters}
            self._parameters = freeze({**described, "required": entry.required or []})

    @property
    def parameters(self) -> Mapping[str, Any]:
        """See `Tool.parameters`."""
        return self._parameters

    async def call(self, ctx: ToolContext, arguments: Mapping[str, Any]) -> Any:
        """See `Tool.call`."""
        return await self._tool.call(ctx, arguments)


def declared_tool(name: str, given: object, entry: ToolEntry | None) -> Tool:
    """Return what was given for a tool of a file.

    Raises:
        ToolDefinitionError: it is neither a function nor a tool; or it is a function that does not
            take what the file says that it takes.
    """
    tool = given if isinstance(given, Tool) else _function_tool(name, given)
    if entry is not None and entry.parameters is not None and isinstance(tool, FunctionTool):
        takes = tool.parameters
        unknown = [one for one in entry.parameters if one not in takes["properties"]]
        missing = [one for one in takes.get("required", ()) if one not in entry.parameters]
        if unknown or missing:
            known = ", ".join(takes["properties"]) or "nothing"
            message = (
                f"the file says that it takes {', '.join(entry.parameters) or 'nothing'}, and the "
                f"function that was given takes {known}"
            )
            raise ToolDefinitionError(message)
    return tool if entry is None and tool.name == name else DeclaredTool(name, tool, entry)


def _function_tool(name: str, given: Any) -> Tool:
    return FunctionTool(given, name=name)


@attrs.frozen
class ServerUse:
    """A server of tools, and which of them a node may use; None is all."""

    server: StdioServer | HttpServer
    names: tuple[str, ...] | None

    def toolset(self, whose: str) -> Toolset:
        """Return its tools, to be opened by the node ``whose``.

        Raises:
            MissingExtraError: the SDK is not installed.
        """
        try:
            from parallel_agent.tools.mcp_toolset import McpToolset  # an extra
        except ImportError as error:
            what, package = f"node {whose!r}, which uses an MCP server,", error.name or "mcp"
            raise MissingExtraError(what, package, "mcp") from error
        return McpToolset(self.server, names=self.names)


def server_of(entry: McpServer) -> StdioServer | HttpServer:
    """Return where a server of a file is.

    Raises:
        ToolDefinitionError: the entry does not say.
    """
    if entry.transport == "stdio":
        if entry.command is None:
            message = "a server with transport stdio has a command, which starts it"
            raise ToolDefinitionError(message)
        return StdioServer(entry.command, entry.args or (), entry.env)
    if entry.url is None:
        message = f"a server with transport {entry.transport} has a url"
        raise ToolDefinitionError(message)
    return HttpServer(entry.url, transport=entry.transport)


def add_all(tools: dict[str, Tool], opened: Sequence[Tool], whose: str) -> None:
    """Add the tools of a server; one of the file's own of that name gives way.

    Raises:
        ToolDefinitionError: another server has one of that name.
    """
    for tool in opened:
        other = tools.get(tool.name)
        if other is not None and not isinstance(other, DeclaredTool | FunctionTool):
            message = (
                f"two servers of node {whose!r} have a tool {tool.name!r}; choose with "
                f"`mcp_servers: [{{id: ..., tools: [...]}}]`"
            )
            raise ToolDefinitionError(message)
        tools[tool.name] = tool
