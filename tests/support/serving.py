"""Web servers for tests, and what a client makes of the server-sent events that it reads."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import attrs
import uvicorn
from starlette.applications import Starlette

from session import Codec

__all__ = ["CODEC", "Connection", "Message", "by_python", "by_the_standard", "serving"]

CODEC: Final = Codec()


@attrs.frozen
class Message:
    """What a browser dispatches."""

    name: str
    data: str
    last_id: str

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def text(self) -> str:
        return CODEC.loads(self.data).text


def parsed(stream: bytes, split: Callable[[str], list[str]]) -> list[Message]:
    """Read a stream of events as the HTML standard says."""
    found = list[Message]()
    data, name, last_id = list[str](), "", ""
    for line in split(stream.decode("utf-8", "strict")):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if data:
                found.append(Message(name or "message", "\n".join(data), last_id))
            data, name = [], ""
        elif field == "data":
            data.append(value)
        elif field == "event":
            name = value
        elif field == "id" and "\0" not in value:
            last_id = value
    return found


by_the_standard: Final = partial(parsed, split=lambda text: re.split(r"\r\n|\r|\n", text))
by_python: Final = partial(parsed, split=str.splitlines)  # as httpx does


class Connection:
    """One request, as a server makes it of a connection."""

    def __init__(self, path: str, *, breaks: bool = False) -> None:
        """``breaks``: like a server of ASGI 2.4, raise when something is sent to who has gone."""
        self.breaks = breaks
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4" if breaks else "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"message=go",
            "headers": [],
        }
        self.sent = list[dict[str, Any]]()
        self.news = asyncio.Event()
        self.gone = asyncio.Event()

    async def through(self, app: Starlette) -> None:
        await app(self.scope, self.receive, self.send)

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if self.breaks and message.get("body"):
            await asyncio.sleep(0)
            raise OSError("the connection is closed")
        self.news.set()

    async def has_sent(self, count: int) -> None:
        while len([one for one in self.sent if one.get("body")]) < count:
            self.news.clear()
            await self.news.wait()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


class _Server(uvicorn.Server):
    """Says when it can be reached."""

    def __init__(self, app: Any) -> None:
        config = uvicorn.Config(
            app, port=0, log_config=None, lifespan="on", ws="none", timeout_graceful_shutdown=1
        )
        super().__init__(config)
        self.is_up = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    @property
    def url(self) -> str:
        port = self.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"


@asynccontextmanager
async def serving(app: Starlette) -> AsyncGenerator[str]:
    """Serve an application by uvicorn, on a port of this machine; give its address."""
    server = _Server(app)
    task = asyncio.create_task(server.serve())
    await server.is_up.wait()
    try:
        yield server.url
    finally:
        server.should_exit = True
        await task
