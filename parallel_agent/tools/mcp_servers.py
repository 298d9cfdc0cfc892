"""Servers that speak the Model Context Protocol: where they are, and what goes wrong with them.

Needs no extra: who only says which servers there are, as a file does, needs no SDK.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, get_args
from urllib.parse import urlsplit, urlunsplit

import attrs

from parallel_agent.errors import AgentError
from parallel_agent.model_errors import ToolDefinitionError, ToolError

__all__ = [
    "HttpServer",
    "McpError",
    "McpServer",
    "McpServerError",
    "McpToolError",
    "StdioServer",
]


class McpError(AgentError):
    """A server of tools did not do what it was asked for. Subclasses say how.

    Attributes:
        server: which; never with what its environment, its headers or its address keep secret.
    """

    def __init__(self, message: str, *, server: str = "") -> None:
        """Say what has happened; ``server`` comes first, if it is known."""
        super().__init__(f"MCP server {server}: {message}" if server else message)
        self.server = server


class McpServerError(McpError):
    """The server cannot be started or reached, speaks no MCP, or has gone."""


class McpToolError(McpError, ToolError):
    """A call has failed: the tool says so, the server refuses it, or there was no answer in time.

    Attributes:
        tool: its name, as the server has it.
    """

    def __init__(self, message: str, *, server: str = "", tool: str = "") -> None:
        """See `McpError`. The message is what the server has said, and comes first."""
        super().__init__(message)
        self.server = server
        self.tool = tool


Transport: TypeAlias = Literal["http", "sse"]


def _text(value: str | PathLike[str], what: str) -> str:
    """Return a text, or a path as one; refuse anything else without showing it."""
    if not isinstance(value, str | PathLike) or not isinstance(text := fspath(value), str):
        message = f"{what} is text, not {type(value).__name__}"
        raise ToolDefinitionError(message)
    if not text or "\0" in text:
        message = f"{what} is {'not to hold NUL' if text else 'empty'}"
        raise ToolDefinitionError(message)
    return text


def _texts(values: Iterable[str | PathLike[str]]) -> tuple[str, ...]:
    given: object = values
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        message = f"args is a list of texts, one for each argument, not {type(values).__name__}"
        raise ToolDefinitionError(message)
    # An argument may be empty.
    return tuple("" if value == "" else _text(value, "each of args") for value in values)


def _secret(values: Mapping[str, str] | None, what: str) -> Mapping[str, str]:
    """Return a copy that cannot change. Of what does not fit, the name is told, and no more."""
    if values is None:
        return MappingProxyType({})
    if not isinstance(values, Mapping):
        message = f"{what} is a mapping of names to texts, not {type(values).__name__}"
        raise ToolDefinitionError(message)
    for name, value in values.items():
        _text(name, f"each name of {what}")
        if not isinstance(value, str):
            message = f"{what}[{name!r}] is text, not {type(value).__name__}"
            raise ToolDefinitionError(message)
    return MappingProxyType(dict(values))


def _command(given: str | PathLike[str]) -> str:
    return _text(given, "command")


def _directory(given: str | PathLike[str] | None) -> str | None:
    return None if given is None else _text(given, "cwd")


def _environment(values: Mapping[str, str] | None) -> Mapping[str, str]:
    environment = _secret(values, "env")
    for name, value in environment.items():
        if "=" in name or "\0" in value:
            message = f"env[{name!r}] cannot be a variable: its name holds '=', or its value NUL"
            raise ToolDefinitionError(message)
    return environment


def _headers(values: Mapping[str, str] | None) -> Mapping[str, str]:
    headers = _secret(values, "headers")
    for name, value in headers.items():
        # Where it is sent, it would be shown.
        if not (value.isascii() and value.isprintable() and value == value.strip()):
            message = f"headers[{name!r}] holds what no header can: is there a newline at its end?"
            raise ToolDefinitionError(message)
    return headers


def _names(values: Mapping[str, str]) -> str:
    return f"<{', '.join(values)}>" if values else "None"


_HIDDEN: Final = "***"
_SHORTEST: Final = 4
"""Shorter ones are no secrets, and would be found everywhere."""


def _hide(text: str, secrets: Iterable[str]) -> str:
    # What spans lines, as keys do, is told line by line.
    pieces = {piece for secret in secrets for piece in (secret, *secret.splitlines())}
    for secret in sorted(pieces, key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, _HIDDEN)
    return text


@attrs.frozen(hash=False)
class StdioServer:
    """A server that is started as a process, and spoken to through its standard streams.

    Attributes:
        command: what is started; found by ``PATH``.
        args: what it is given. They are shown in errors: a secret belongs in ``env``.
        env: variables of its environment, on top of ``PATH``, ``HOME`` and the few others that
            every server gets. Their values are never shown.
        cwd: the directory it runs in; by default this process's.

    Raises:
        ToolDefinitionError: an argument is not what it must be.
    """

    command: str = attrs.field(converter=_command)
    args: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    env: Mapping[str, str] = attrs.field(default=None, converter=_environment, repr=_names)
    cwd: str | None = attrs.field(default=None, converter=_directory)

    @property
    def shown(self) -> str:
        """What it is called in an error."""
        line = self.hide(shlex.join((self.command, *self.args)))
        return line if len(line) <= _LONG else f"{line[:_LONG]}…"

    def hide(self, text: str) -> str:
        """Return a text without what the variables hold."""
        return _hide(text, self.env.values())


_LONG: Final = 120


def _address(given: str) -> str:
    url = _text(given, "url")
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_one = False
    if not is_one:  # and it is not shown: it may hold a secret where nobody looks for one
        message = "url is the address of a server, http://... or https://..."
        raise ToolDefinitionError(message)
    return url


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _shown(url: str) -> str:
    return repr(_without_secrets(url))


def _transport(given: Transport) -> Transport:
    if given not in get_args(Transport):
        message = f"transport is one of {', '.join(get_args(Transport))}, not {given!r:.80}"
        raise ToolDefinitionError(message)
    return given


@attrs.frozen(hash=False)
class HttpServer:
    """A server that runs somewhere, and is spoken to over HTTP.

    Attributes:
        url: its address. User, password and query are never shown here; but the library that the
            SDK sends its requests by logs the address, at level INFO. A secret belongs in a header.
        headers: what is sent with each request, such as ``Authorization``. Their values are never
            shown.
        transport: ``"http"`` is the protocol's own, streamable HTTP; ``"sse"`` what it had before.

    Raises:
        ToolDefinitionError: an argument is not what it must be.
    """

    url: str = attrs.field(converter=_address, repr=_shown)
    headers: Mapping[str, str] = attrs.field(default=None, converter=_headers, repr=_names)
    transport: Transport = attrs.field(default="http", converter=_transport)

    @property
    def shown(self) -> str:
        """What it is called in an error."""
        return _without_secrets(self.url)

    def hide(self, text: str) -> str:
        """Return a text without what the headers hold, nor what the address does not show."""
        parts = urlsplit(self.url)
        secrets = [parts.netloc.rpartition("@")[0], parts.password or "", parts.query]
        secrets += [value.partition("=")[2] for value in parts.query.split("&")]
        for value in self.headers.values():
            secrets += [value, *value.split()[1:]]  # Bearer and its token
        return _hide(text, secrets)


McpServer: TypeAlias = StdioServer | HttpServer
