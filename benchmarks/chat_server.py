"""A server that speaks chat completions, for benchmarks: what it says was rendered before.

``python -m benchmarks.chat_server`` prints its port. It imports little, to be there at once.
"""

from __future__ import annotations

import asyncio
import json
import resource
from functools import cache

WORD = "token "


def allow_files(count: int) -> None:
    """Raise the limit of open files, as far as that may be done."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        count = min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


@cache
def answer(tokens: int) -> bytes:
    """Return the bytes of a whole answer of so many tokens."""

    def chunk(finish: str | None = None, **delta: str) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        known = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        return f"data: {json.dumps({**known, 'choices': [choice]})}\n\n".encode()

    said = chunk(content=WORD) * tokens
    body = chunk(role="assistant", content="") + said + chunk("stop") + b"data: [DONE]\n\n"
    head = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


class _Connection(asyncio.Protocol):
    """Answers one request after the other: ``POST /{tokens}/v1/chat/completions``."""

    _data = b""
    _transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101  # of TCP, always
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) < length:
            return
        self._data = body[length:]
        self._transport.write(answer(int(head.split(b"/", 2)[1])))


async def _serve() -> None:
    allow_files(65_536)
    loop = asyncio.get_running_loop()
    # A thousand connect at the same time; what has no room here is tried again after a second.
    server = await loop.create_server(_Connection, "127.0.0.1", 0, backlog=4_096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
