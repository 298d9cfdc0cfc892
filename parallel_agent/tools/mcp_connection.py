"""A connection to a server that speaks the Model Context Protocol, through the official SDK.

Needs the extra ``mcp``.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from threading import Thread
from typing import Any, Final, final

import trio

from parallel_agent.model_errors import MissingExtraError
from parallel_agent.notes import members
from parallel_agent.tools.mcp_servers import (
    HttpServer,
    McpServer,
    McpServerError,
    McpToolError,
    StdioServer,
)

try:
    import httpx2
    import mcp_types
    from mcp import MCPError, StdioServerParameters, stdio_client
    from mcp.client import Client, IncomingMessage, Transport
    from mcp.client.sse import sse_client
    from mcp.client.streamable_http import streamable_http_client
    from pydantic import ValidationError
except ImportError as error:
    raise MissingExtraError("McpToolset", error.name or "mcp", "mcp") from error

__all__ = ["Connection"]

_LOG: Final = logging.getLogger("parallel_agent.mcp")


@final
class Connection:
    """A session with a server.

    It lives in a task of its own, behind a shield: no scope of the SDK's is around what the opener
    does, so that the SDK cannot cancel that, nor wrap what it raises; and nobody but `close` ends
    it, so that it is closed in order when the opener is cancelled.
    """

    def __init__(self, server: McpServer, call_timeout: float | None) -> None:
        """``call_timeout`` is the seconds that a call may take."""
        self._server = server
        self._call_timeout = float("inf") if call_timeout is None else call_timeout
        self._scope = trio.CancelScope(shield=True)
        self._settled = trio.Event()
        self._closing = trio.Event()
        self._ended = trio.Event()
        self._client: Client | None = None
        self._offered: Sequence[mcp_types.Tool] = ()
        self._failure: Exception | None = None
        self._stderr: _Stderr | None = None
        self._noise = ""
        self._status: int | None = None

    # The task.

    async def run(self) -> None:
        """Connect, and stay so until it is closed or breaks. Raises nothing."""
        try:
            with self._scope:
                await self._connect("auto")
                # To servers of before 2026 the first thing that "auto" says is unknown, and there
                # are some that end at once when they hear what they do not know.
                if self._client is None and isinstance(self._server, StdioServer) and self._is_cut:
                    await self._connect("legacy")
        except Exception as exc:  # noqa: BLE001  # it was closed, and that has failed
            self._failure = _first(exc)
        finally:
            self._ended.set()
            self._settled.set()

    async def _connect(self, mode: str) -> None:
        self._failure = None
        try:
            async with Client(
                self._transport(),
                mode=mode,
                cache=None,
                client_info=_US,
                logging_callback=self._log,
                message_handler=self._hear,
            ) as client:
                self._offered = await _offered_by(client)
                self._client = client
                self._settled.set()
                await self._closing.wait()
        except Exception as exc:  # noqa: BLE001  # told to whoever opens it, or calls
            self._failure = _first(exc)
        finally:
            with trio.CancelScope(shield=True):
                if self._stderr is not None:
                    await self._stderr.close()

    @property
    def _is_cut(self) -> bool:
        """Whether the other end was gone when an answer was waited for."""
        failure = self._failure
        return isinstance(failure, MCPError) and failure.code == mcp_types.CONNECTION_CLOSED

    def _transport(self) -> Transport:
        server = self._server
        if isinstance(server, StdioServer):
            return self._process(server)
        if server.transport == "http":
            return self._streamable(server)
        return sse_client(
            server.url, headers=dict(server.headers), httpx_client_factory=self._http_client
        )

    def _process(self, server: StdioServer) -> Transport:
        parameters = StdioServerParameters(
            command=server.command, args=list(server.args), env=dict(server.env), cwd=server.cwd
        )
        self._stderr = _Stderr(server)
        return stdio_client(parameters, self._stderr.writer)

    @asynccontextmanager
    async def _streamable(self, server: HttpServer) -> AsyncGenerator[Any]:
        async with (
            self._http_client(dict(server.headers)) as client,
            streamable_http_client(server.url, http_client=client) as streams,
        ):
            yield streams

    def _http_client(
        self,
        headers: dict[str, str] | None = None,
        timeout: httpx2.Timeout | None = None,  # noqa: ARG002  # the SDK's: it ends what only waits
        auth: httpx2.Auth | None = None,
    ) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            headers=headers,
            auth=auth,
            timeout=httpx2.Timeout(30.0, read=None),  # how long a call may take we say ourselves
            event_hooks={"response": [self._note_status]},
        )

    async def _note_status(self, response: httpx2.Response) -> None:
        self._status = response.status_code

    async def _hear(self, message: IncomingMessage) -> None:
        if isinstance(message, ValidationError) and not self._noise:
            noise = str(message.errors(include_url=False)[0]["input"]).strip()
            self._noise = self._server.hide(noise)[:_SHORT]

    async def _log(self, params: mcp_types.LoggingMessageNotificationParams) -> None:
        level = _LEVELS.get(params.level, logging.INFO)
        _LOG.log(level, "%s: %s", self._server.shown, self._server.hide(str(params.data)))

    # What is asked of it.

    async def opened(self, timeout: float) -> Sequence[mcp_types.Tool]:
        """Return the tools of the server, as soon as it has told them.

        Raises:
            McpServerError: it has not; the message says what to do.
        """
        with trio.move_on_after(timeout):
            await self._settled.wait()
        if self._client is not None:
            return self._offered
        failure = self._failure
        if failure is None:
            raise self._error(
                f"it did not answer within {timeout:g} s. It may be no MCP server, or need longer "
                "to start: McpToolset(..., timeout=...)"
            )
        cause = failure if self._server.hide(str(failure)) == str(failure) else None
        raise self._error(self._why_not(failure)) from cause

    async def call(self, tool: str, arguments: dict[str, Any]) -> mcp_types.CallToolResult:
        """Have a tool called.

        Raises:
            McpToolError: it was not, or not in time.
            McpServerError: there is nobody any more who could.
        """
        failure: Exception | None = None
        with trio.CancelScope(deadline=trio.current_time() + self._call_timeout) as scope:
            if self._client is not None and not self._ended.is_set():
                try:
                    return await self._client.call_tool(tool, arguments)
                except Exception as exc:  # noqa: BLE001  # told below
                    failure = exc
        if isinstance(failure, MCPError) and failure.code != mcp_types.CONNECTION_CLOSED:
            raise self.tool_error(tool, failure.message) from None
        if failure is not None and not isinstance(failure, MCPError):
            raise self.tool_error(tool, f"what it answers cannot be used: {self._said(failure)}")
        if scope.cancelled_caught:
            message = (
                f"no answer within {self._call_timeout:g} s; it was told to stop. More time: "
                "McpToolset(..., call_timeout=...)"
            )
            raise self.tool_error(tool, message)
        if self._closing.is_set():
            raise self._error(
                f"its connection is closed: tool {tool!r} can be called inside of `async with "
                "toolset.open()`"
            )
        await self._last_words()
        cause = self._failure or failure
        why = "" if cause is None else f" ({self._said(cause)})"
        raise self._error(f"it has gone{why}, and the call of {tool!r} is not answered")

    def tool_error(self, tool: str, said: str) -> McpToolError:
        """Return what a call fails with."""
        return McpToolError(self._server.hide(said), server=self._server.shown, tool=tool)

    async def close(self) -> None:
        """End the session, and wait until nothing of it is left.

        In order: calls that were cancelled are told of first. When the caller is cancelled, that
        may take a moment and no longer; for a process it is waited all the same.
        """
        self._closing.set()
        if self._client is not None:
            is_cancelled = trio.current_effective_deadline() == -float("inf")
            with trio.move_on_after(_MOMENT if is_cancelled else _GRACE, shield=True):
                await self._ended.wait()
        self._scope.cancel()
        with trio.CancelScope(shield=True):
            await self._ended.wait()

    # What is told when it cannot.

    def _error(self, what: str) -> McpServerError:
        said = [what]
        if self._noise:
            said.append(f"It writes what is no message of MCP's: {self._noise!r}")
        if self._stderr is not None and (lines := self._stderr.lines):
            said.append(f"It says: {lines}")
        return McpServerError(self._server.hide(". ".join(said)), server=self._server.shown)

    def _why_not(self, failure: Exception) -> str:
        """Return why a server could not be opened, and what to do."""
        server = self._server
        if isinstance(server, StdioServer):
            if isinstance(failure, OSError):
                return _not_started(server, failure)
            if self._is_cut:
                return (
                    "it ended before it had answered. It may want other arguments, or variables "
                    "of its environment: it gets those of env={...}, PATH, HOME and few others"
                )
        else:
            status = self._status
            if status in (401, 403):
                return f"it answers {status}: say who asks, by headers={{...}}"
            if status is not None and status >= 300:  # noqa: PLR2004  # neither 1xx nor 2xx
                spoken = _SPOKEN[server.transport]
                return f"it answers {status}: is it at that address, and does it speak {spoken}?"
            if isinstance(failure, httpx2.TransportError):
                return f"it cannot be reached: {self._said(failure)}"
        return f"it does not answer as an MCP server does: {self._said(failure)}"

    def _said(self, error: Exception) -> str:
        if isinstance(error, ValidationError):
            told = error.errors(include_url=False, include_input=False)[:3]
            said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in told)
        else:
            kind = "" if isinstance(error, MCPError) else f"{type(error).__name__}: "
            said = f"{kind}{error}"
        return self._server.hide(said)[:_LONG]

    async def _last_words(self) -> None:
        """Wait a moment for what may be on its way: why it has gone."""
        with trio.move_on_after(_MOMENT):
            if self._stderr is not None:
                await self._stderr.close()
            else:
                await self._ended.wait()


_GRACE: Final = 3.0
_MOMENT: Final = 0.2
_SHORT: Final = 200
_LONG: Final = 500

_US: Final = mcp_types.Implementation(name="parallel-agent", version="0")

_SPOKEN: Final = {"http": "streamable HTTP (or 'sse')", "sse": "SSE (or 'http')"}

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "alert": logging.CRITICAL,
    "emergency": logging.CRITICAL,
}


async def _offered_by(client: Client) -> list[mcp_types.Tool]:
    """Return the tools of a server, of all pages."""
    found = list[mcp_types.Tool]()
    page = await client.list_tools()
    while True:
        found += page.tools
        if page.next_cursor is None:
            return found
        page = await client.list_tools(cursor=page.next_cursor)


def _first(error: Exception) -> Exception:
    """Return what went wrong first, out of the groups that task groups make."""
    for one in members(error):
        if isinstance(one, Exception):
            return _first(one)
    return error


def _not_started(server: StdioServer, failure: OSError) -> str:
    if server.cwd is not None and failure.filename == server.cwd:
        return f"its directory {server.cwd!r} cannot be used: {failure.strerror}"
    if isinstance(failure, FileNotFoundError):
        return f"command {server.command!r} is not there: install it, or give its whole path"
    return f"command {server.command!r} cannot be run: {failure.strerror or failure}"


_LONGEST_LINE: Final = 1 << 16


class _Stderr:
    """What a server writes to its standard error: logged, and the last of it kept.

    Read by a thread: so it works for every platform's pipes, and ends with the last that holds it.
    """

    def __init__(self, server: StdioServer) -> None:
        reader, writer = os.pipe()
        self.writer = os.fdopen(writer, "w", encoding="utf-8")
        self._server = server
        self._lines = deque[str](maxlen=5)
        self._thread = Thread(target=self._read, args=(reader,), name="mcp-stderr", daemon=True)
        self._thread.start()

    def _read(self, reader: int) -> None:
        with os.fdopen(reader, encoding="utf-8", errors="replace") as stream:
            while line := stream.readline(_LONGEST_LINE):
                if line.strip():
                    text = self._server.hide(line.rstrip())[:_LONG]
                    self._lines.append(text)
                    _LOG.info("%s: %s", self._server.shown, text)

    @property
    def lines(self) -> str:
        """The last lines."""
        return "\n".join(self._lines)

    async def close(self) -> None:
        """Wait a moment until all has been read; a child of the server's may hold it for long."""
        self.writer.close()
        await trio.to_thread.run_sync(self._thread.join, _MOMENT)
