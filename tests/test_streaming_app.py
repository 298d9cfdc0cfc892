"""The web application: its events, its result, and clients that leave in the middle."""

from __future__ import annotations

import asyncio
import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from starlette.requests import Request

from examples.streaming_app import app, asked, main
from tests.support.serving import CODEC, Message, by_python, serving

ROOT: Final = Path(__file__).resolve().parent.parent
AT_ONCE: Final = {"message": "Oslo", "pace": "0"}
NEVER: Final = {"message": "Oslo", "pace": "60"}
ADVICE: Final = "Oslo: one at 7:15, rain, a room in the Park Hotel"


def ask(
    path: str, params: Mapping[str, str], headers: Mapping[str, str] | None = None
) -> httpx.Response:
    """Ask the application, served as it is in life."""

    async def get() -> httpx.Response:
        async with serving(app) as url, httpx.AsyncClient(trust_env=False) as client:
            return await client.get(f"{url}{path}", params=dict(params), headers=headers)

    return asyncio.run(get())


async def read(lines: AsyncIterator[str], count: int) -> None:
    """Read so many events, and no further."""
    while count:
        if (await anext(lines)).startswith("data:"):
            count -= 1


async def at_work(client: httpx.AsyncClient, url: str, expected: list[str]) -> None:
    """Ask until just these agents work."""
    while (await client.get(f"{url}/at_work")).json() != expected:
        pass


def test_the_events_of_the_branches_come_in_one_stream() -> None:
    answer = ask("/stream", AT_ONCE)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    *events, end = by_python(answer.content)
    assert end == Message("end", '{"status":"completed"}', events[-1].last_id)
    assert {CODEC.loads(event.data).branch for event in events} == {
        "look.weather",
        "look.trains",
        "look.hotels",
        None,
    }
    assert events[-1].text == ADVICE


def test_the_result_comes_as_json() -> None:
    answer: dict[str, Any] = ask("/trip", AT_ONCE).json()
    assert answer == {"status": "completed", "text": ADVICE, "found": ADVICE}


@pytest.mark.parametrize(
    ("pace", "seconds"), [("fast", 0.5), ("-1", 0), ("nan", 0.5), ("1e9", 60), ("2", 2)]
)
def test_what_is_no_pace_becomes_one(pace: str, seconds: float) -> None:
    request = Request({"type": "http", "query_string": f"pace={pace}".encode(), "headers": []})
    assert asked(request) == ("Oslo", seconds)


def test_a_browser_that_comes_again_starts_nothing() -> None:
    answer = ask("/stream", AT_ONCE, {"Last-Event-ID": "3"})
    assert (answer.status_code, answer.content) == (204, b"")


def test_a_client_that_leaves_in_the_middle_ends_its_agents_and_no_others() -> None:
    async def come_and_go() -> None:
        async with serving(app) as url, httpx.AsyncClient(trust_env=False) as client:
            async with client.stream("GET", f"{url}/stream", params=NEVER) as one:
                lines = one.aiter_lines()  # dropped, it would close the connection
                await read(lines, 3)
                async with client.stream("GET", f"{url}/stream", params=NEVER) as other:
                    more = other.aiter_lines()
                    await read(more, 3)
                    await at_work(client, url, sorted(2 * ["hotels", "trains", "weather"]))
                await at_work(client, url, ["hotels", "trains", "weather"])
            await at_work(client, url, [])
            # And the application still serves.
            answer = await client.get(f"{url}/trip", params=AT_ONCE)
            assert answer.json()["text"] == ADVICE

    asyncio.run(come_and_go())


def test_as_a_script_it_says_how_to_try_it_and_ends_at_ctrl_c_while_it_streams() -> None:
    server = subprocess.Popen(
        [sys.executable, "examples/streaming_app.py", "--port", "0"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    with server:
        try:
            assert server.stdout is not None
            assert server.stderr is not None
            assert server.stdout.readline() == "Try it, in another terminal:\n"
            address = None
            for line in server.stderr:
                if address := re.search(r"http://127\.0\.0\.1:\d+", line):
                    break
            assert address is not None
            url = f"{address[0]}/stream"
            with (
                httpx.Client(trust_env=False) as client,
                client.stream("GET", url, params=NEVER) as answer,
            ):
                assert next(answer.iter_lines()).startswith("id: ")
                server.send_signal(signal.SIGINT)
                _, log = server.communicate(timeout=60)
        finally:
            server.kill()
    assert server.returncode == 0
    assert "Application shutdown complete." in log
    assert "Traceback" not in log


def test_importing_it_serves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / "streaming_app.py"))
    assert capsys.readouterr().out == ""


def test_its_help_draws_the_tree(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "├── look                    side by side" in capsys.readouterr().out
