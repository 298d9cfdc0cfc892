"""A server that speaks chat completions, on loopback, played by the test that asks it."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, TypeAlias

import attrs
import trio
import trio.testing

__all__ = [
    "DONE",
    "SAYS",
    "SSE",
    "Answer",
    "Server",
    "breaks_off",
    "busy",
    "chunk",
    "event",
    "hangs",
    "in_pieces",
    "refuses",
    "resets",
    "serving",
    "streams",
]

Answer: TypeAlias = Callable[["Server", trio.SocketStream], Awaitable[bool | None]]
"""Answers one request; true if another may come on the same connection."""


@attrs.define
class Server:
    """A server, and what it was asked: bodies, the heads of each, and when (in trio's time).

    Attributes:
        open: how many connections there are.
        closed: a client has closed its connection before it was answered.
        reached: an answer has come to where it is to stop.
    """

    url: str = ""
    asked: list[dict[str, Any]] = attrs.field(factory=list[dict[str, Any]])
    heads: list[str] = attrs.field(factory=list[str])
    times: list[float] = attrs.field(factory=list[float])
    open: int = 0
    closed: trio.Event = attrs.field(factory=trio.Event)
    reached: trio.Event = attrs.field(factory=trio.Event)

    async def serve(self, answers: Sequence[Answer], stream: trio.SocketStream) -> None:
        """Answer what is asked on one connection."""
        self.open += 1
        try:
            while await self._read(stream):
                answer = answers[min(len(self.asked), len(answers)) - 1]
                if not await answer(self, stream):
                    await stream.aclose()
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.closed.set()
        finally:
            self.open -= 1

    async def _read(self, stream: trio.SocketStream) -> bool:
        """Read a request; false if there is none any more."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = await stream.receive_some()
            if not more:
                return False
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        length = int(next(one for one in lines if one.startswith("content-length")).split(":")[1])
        while len(body) < length:
            body += await stream.receive_some()
        self.times.append(trio.current_time())
        self.heads.append(head.decode())
        self.asked.append(json.loads(body))
        return True

    async def until_closed(self, stream: trio.SocketStream) -> None:
        """Say that the answer has come to its stop, and wait until the client has gone."""
        self.reached.set()
        if not await stream.receive_some():
            self.closed.set()


@asynccontextmanager
async def serving(*answers: Answer) -> AsyncGenerator[Server, None]:
    """Play a server on loopback; the last answer is given again and again."""
    server = Server()
    async with trio.open_nursery() as nursery:
        handler = partial(server.serve, answers)
        (listener, *_) = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
        server.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/v1"
        yield server
        nursery.cancel_scope.cancel()


def busy(model: Any) -> list[Any]:
    """Return the connections of a model's pool that no later call could have."""
    # The SDK shows nobody its pool.
    connections = model._client.get()._client._transport._pool.connections
    return [one for one in connections if not (one.is_idle() or one.is_closed())]


# What is said.

SSE: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
_CHUNKED: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
DONE: Final = b"data: [DONE]\n\n"


def event(data: object, *, end: str = "\n", ascii_only: bool = True) -> bytes:
    """Return one server-sent event that holds JSON."""
    text = json.dumps(data, ensure_ascii=ascii_only)
    return f"data: {text}{end}{end}".encode()


def chunk(finish: str | None = None, **delta: Any) -> bytes:
    """Return a piece of an answer as it is sent."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    whole = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m-1"}
    return event({**whole, "choices": [choice]})


# How it is said.


SAYS: Final = chunk(content="it "), chunk(content="rains"), chunk("stop")
"""A short answer, in pieces."""


def streams(*chunks: bytes, size: int = 10_000) -> Answer:
    """Answer with these, split anywhere: after each ``size`` bytes."""

    async def answer(_server: Server, stream: trio.SocketStream) -> None:
        await stream.send_all(SSE)
        text = b"".join([*chunks, DONE])
        for start in range(0, len(text), size):
            await stream.send_all(text[start : start + size])
            await trio.lowlevel.checkpoint()

    return answer


def in_pieces(*pieces: bytes, chunked: bool) -> Answer:
    """Answer with these bytes, and see to it that each piece is read by itself.

    If ``chunked``, each is also one of HTTP, and the connection is kept for another request.
    """

    async def answer(_server: Server, stream: trio.SocketStream) -> bool:
        await stream.send_all(_CHUNKED if chunked else SSE)
        for piece in pieces:
            await stream.send_all(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            # Bytes that are on their way wake their reader: when all wait, they were read.
            await trio.testing.wait_all_tasks_blocked()
        if chunked:
            await stream.send_all(b"0\r\n\r\n")
        return chunked

    return answer


def hangs(*chunks: bytes, head: bytes = SSE) -> Answer:
    """Answer with these, and then nothing more comes."""

    async def answer(server: Server, stream: trio.SocketStream) -> None:
        if head:
            await stream.send_all(head + b"".join(chunks))
        await server.until_closed(stream)

    return answer


def refuses(status: int, body: dict[str, Any] | str | None = None, *headers: str) -> Answer:
    """Answer with a status that is none of success."""

    async def answer(_server: Server, stream: trio.SocketStream) -> None:
        text = body if isinstance(body, str) else json.dumps(body or {"error": {"message": "no"}})
        lines = [f"HTTP/1.1 {status} No", f"content-length: {len(text)}", *headers]
        await stream.send_all(("\r\n".join(lines) + "\r\n\r\n" + text).encode())

    return answer


def breaks_off(*sent: bytes) -> Answer:
    """Answer with these, and close the connection."""

    async def answer(_server: Server, stream: trio.SocketStream) -> None:
        await stream.send_all(SSE + b"".join(sent))

    return answer


def resets(*sent: bytes) -> Answer:
    """Answer with these, and let the connection die: not closed, but reset."""

    async def answer(_server: Server, stream: trio.SocketStream) -> None:
        if sent:
            await stream.send_all(b"".join(sent))
            await trio.testing.wait_all_tasks_blocked()
        # To linger for no time at all means to reset.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()

    return answer
