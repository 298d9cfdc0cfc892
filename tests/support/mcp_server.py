"""Servers of tools, for tests: one that speaks the protocol by hand, and one by the SDK.

``python -S mcp_server.py`` is the first. It needs nothing but the standard library, and is there
in no time; it answers when it likes, keeps what it is told, and breaks off when it is asked to.
``python mcp_server.py sdk`` is the second.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

Message: TypeAlias = dict[str, Any]

PIXEL: Final = "iVBORw0KGgo="  # eight bytes


def _tool(name: str, **more: Any) -> Message:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    return {"name": name, "description": f"Tool {name}.", "inputSchema": schema, **more}


TOOLS: Final = {
    name: _tool(name)
    for name in (
        *("add", "texts", "parts", "fail", "refuse", "nonsense", "meet", "hang", "told", "die"),
        *("pid", "variable", "where", "given", "a.b/c", "a_b_c", "9" + "x" * 80),
    )
}


class Server:
    """Answers line by line; tells nobody what it was told but ``told``."""

    def __init__(self, options: set[str]) -> None:
        self.options = options
        self.told = list[Message]()
        self.waiting = list[Any]()

    def send(self, message: Message) -> None:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()

    def answer(self, number: Any, result: Any) -> None:
        self.send({"id": number, "result": result})

    def serve(self) -> None:
        if "banner" in self.options:
            sys.stdout.write("Welcome to the server!\n")
            sys.stdout.flush()
        for line in sys.stdin:
            self.hear(json.loads(line))

    def hear(self, message: Message) -> None:
        method = message.get("method", "")
        number = message.get("id")
        params = message.get("params") or {}
        if number is None:
            self.told.append(message)
        elif "silent" in self.options:
            return
        elif method == "initialize":
            self.options.discard("strict")
            self.answer(
                number,
                {
                    "protocolVersion": params["protocolVersion"],
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "by hand", "version": "1"},
                },
            )
        elif "strict" in self.options:
            sys.exit(f"expected initialize, not {method}")
        elif method == "tools/list":
            names = list(TOOLS)
            if "clash" not in self.options:
                names.remove("a_b_c")
            start = int(params.get("cursor", "0"))
            page = {"tools": [TOOLS[name] for name in names[start : start + 4]]}
            more = {"nextCursor": str(start + 4)} if start + 4 < len(names) else {}
            self.answer(number, {**page, **more})
        elif method == "tools/call":
            self.call(number, params["name"], params.get("arguments") or {})
        else:
            self.send({"id": number, "error": {"code": -32601, "message": "Method not found"}})

    def call(self, number: Any, name: str, arguments: Message) -> None:
        called: Callable[[Any, Message], Any] | None = getattr(self, f"do_{name}", None)
        if called is None:
            self.answer(number, _text(f"called {name}"))
            return
        result = called(number, arguments)
        if result is not None:
            self.answer(number, result)

    def do_add(self, _number: Any, arguments: Message) -> Message:
        total = arguments["a"] + arguments["b"]
        return {**_text(f"it is {total}"), "structuredContent": {"sum": total}}

    def do_given(self, _number: Any, arguments: Message) -> Message:
        return {**_text(""), "structuredContent": arguments}

    def do_texts(self, _number: Any, _arguments: Message) -> Message:
        return _text("one", "two")

    def do_parts(self, _number: Any, _arguments: Message) -> Message:
        link = {"type": "resource_link", "uri": "file:///a", "name": "a", "mimeType": "text/plain"}
        text = {"uri": "note://1", "mimeType": "text/plain", "text": "a note"}
        blob = {"uri": "blob://1", "blob": PIXEL}
        return {
            "content": [
                *_text("see")["content"],
                {"type": "image", "mimeType": "image/png", "data": PIXEL},
                {"type": "audio", "mimeType": "audio/wav", "data": PIXEL},
                link,
                {"type": "resource", "resource": text},
                {"type": "resource", "resource": blob},
            ]
        }

    def do_fail(self, _number: Any, _arguments: Message) -> Message:
        return {**_text("there is no such file"), "isError": True}

    def do_refuse(self, number: Any, _arguments: Message) -> None:
        self.send({"id": number, "error": {"code": -32602, "message": "a must be positive"}})

    def do_nonsense(self, _number: Any, _arguments: Message) -> Message:
        return {"content": "not a list"}

    def do_meet(self, number: Any, arguments: Message) -> None:
        """Answers when there are two calls, the later one first."""
        self.waiting.append((number, arguments["a"]))
        if len(self.waiting) == 2:
            while self.waiting:
                number, what = self.waiting.pop()
                self.answer(number, _text(f"met {what}"))

    def do_hang(self, number: Any, _arguments: Message) -> None:
        self.told.append({"hangs": number})
        logged = {"level": "warning", "data": f"{os.getpid()} {os.environ.get('TOKEN')}"}
        self.send({"method": "notifications/message", "params": logged})

    def do_told(self, _number: Any, _arguments: Message) -> Message:
        return {**_text(""), "structuredContent": {"told": self.told}}

    def do_die(self, _number: Any, _arguments: Message) -> None:
        sys.stderr.write(f"out of memory; key {os.environ.get('TOKEN')}\n")
        sys.stderr.flush()
        os._exit(3)

    def do_variable(self, _number: Any, arguments: Message) -> Message:
        return _text(os.environ.get(arguments["name"], "not set"))

    def do_pid(self, _number: Any, _arguments: Message) -> Message:
        return _text(str(os.getpid()))

    def do_where(self, _number: Any, _arguments: Message) -> Message:
        return _text(os.getcwd())  # noqa: PTH109  # as the process has it


def _text(*texts: str) -> Message:
    return {"content": [{"type": "text", "text": text} for text in texts]}


def by_the_sdk() -> Any:
    """A server that the SDK makes; for each transport."""
    import anyio
    from mcp.server import MCPServer

    server = MCPServer("by the SDK")
    begun = list[int]()
    stopped = list[int]()

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @server.tool()
    def say(text: str) -> str:
        """Say it again."""
        if text == "fail":
            raise ValueError("told to fail")
        return text

    @server.tool()
    def hangs() -> list[int]:
        """Tell how often `hang` was called, and how often cancelled."""
        return [len(begun), len(stopped)]

    @server.tool()
    async def hang() -> str:
        """Never answer."""
        begun.append(1)
        try:
            await anyio.sleep_forever()
        finally:
            stopped.append(1)
        raise AssertionError

    return server


@contextmanager
def over_http(make: Callable[[], Any]) -> Iterator[str]:
    """Serve what ``make`` makes, in a thread with asyncio; give its address."""
    import uvicorn

    started = threading.Event()

    class Web(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            started.set()

    config = uvicorn.Config(
        make, factory=True, port=0, log_config=None, ws="none", timeout_graceful_shutdown=0
    )
    web = Web(config)
    thread = threading.Thread(target=web.run, daemon=True)
    thread.start()
    if not started.wait(10):
        raise TimeoutError("the server has not started")
    try:
        yield f"http://127.0.0.1:{web.servers[0].sockets[0].getsockname()[1]}"
    finally:
        web.should_exit = web.force_exit = True
        thread.join()


class Web:
    """The one that speaks by hand, as a web application: of old, with a session."""

    def __init__(self, key: str = "") -> None:
        """``key``: who has no such ``Authorization`` is not let in."""
        self.key = key
        self.server = Server(set())
        self.methods = list[str]()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise TypeError("there is no more to it")
        self.methods.append(scope["method"])
        body = (await receive())["body"]
        sent = list[Message]()
        if self.key and dict(scope["headers"]).get(b"authorization") != self.key.encode():
            status = 401
        elif scope["method"] == "POST":
            self.server.send = sent.append  # type: ignore[assignment,method-assign]
            self.server.hear(json.loads(body))
            status = 200 if sent else 202
        else:
            status = 200 if scope["method"] == "DELETE" else 405
        headers = [(b"content-type", b"application/json"), (b"mcp-session-id", b"1")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        answer = json.dumps({"jsonrpc": "2.0", **sent[0]}) if sent else ""
        await send({"type": "http.response.body", "body": answer.encode()})


def main() -> None:
    options = set(sys.argv[1:])
    if "stubborn" in options:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if {"exit", "banner"} <= options:
        sys.stdout.write("Welcome to the server!\n")
        sys.stdout.flush()
    if "exit" in options:
        sys.exit(f"cannot read the configuration; the key is {os.environ.get('TOKEN')}")
    if "sdk" in options:
        by_the_sdk().run()
        return
    for option in options:
        if option.startswith("pid="):
            Path(option.removeprefix("pid=")).write_text(str(os.getpid()), encoding="utf-8")
    server = Server(options)
    server.serve()
    for option in options:
        if option.startswith("told="):
            told = json.dumps(server.told)
            Path(option.removeprefix("told=")).write_text(told, encoding="utf-8")
    if "stubborn" in options:  # told to go, it stays
        time.sleep(60)


if __name__ == "__main__":
    main()
