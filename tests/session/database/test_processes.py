"""Several processes and one database; processes that are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import trio

from session.database import DatabaseSessionService
from tests.session.database.workers import PLACES, SESSIONS, key_of
from tests.support.databases import add, make, new_event, quick_folder, read, texts
from tests.support.postgres import Postgres

ROOT = Path(__file__).parents[3]


def work(*arguments: object) -> list[int]:
    """Start the workers; return how each ended."""
    command = [sys.executable, "-m", "tests.session.database.workers", *map(str, arguments)]
    done = subprocess.run(  # noqa: S603  # this very Python
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert not done.stderr, done.stderr
    ended: list[int] = json.loads(done.stdout)
    return ended


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database without tables: a file that is not there, or an empty one of a server's."""
    if request.param == "sqlite":
        folder = quick_folder()
        yield f"sqlite:///{folder}/new.db"
        shutil.rmtree(folder)
    else:
        server: Postgres = request.getfixturevalue("postgres")
        yield server.new_database()


def test_eight_processes_open_a_new_database_and_append_to_eight_sessions(new_url: str) -> None:
    """No error, no event lost, none twice, each process's in its order."""
    workers, rounds = 8, 4
    assert work("crowd", new_url, workers, rounds) == [0] * workers

    async def check() -> None:
        async with DatabaseSessionService(new_url) as service:
            assert len(await service.list(app_name="app")) == SESSIONS
            for number in range(SESSIONS):
                session = await read(service, key_of(number))
                said = texts(session)
                assert [event.seq for event in session.events] == [*range(1, 33)]
                for worker in range(workers):
                    mine = [text for text in said if text.startswith(f"{worker}.")]
                    assert mine == [f"{worker}.{turn}" for turn in range(rounds)]
                assert session.state == {f"w{worker}": rounds - 1 for worker in range(workers)}

    trio.run(check)


CASES: Final = [(place, at) for place in PLACES for at in (1, 2, 3)]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def graves(
    request: pytest.FixtureRequest,
) -> Iterator[dict[tuple[str, int], str]]:
    """Databases whose writers were killed, by the place and how many appends had begun."""
    folder = quick_folder()
    if request.param == "sqlite":
        urls = [f"sqlite:///{folder}/{number}.db" for number in range(len(CASES))]
    else:
        server: Postgres = request.getfixturevalue("postgres")
        urls = [server.new_database("empty") for _ in CASES]
    assert work("doomed", *urls) == [signal.SIGKILL] * len(CASES)
    yield dict(zip(CASES, urls, strict=True))
    shutil.rmtree(folder)


@pytest.mark.parametrize(("place", "at"), CASES)
async def test_a_killed_process_loses_nothing_and_leaves_no_half(
    place: str, at: int, graves: dict[tuple[str, int], str]
) -> None:
    """What was committed is there, whole, with its state; what was not is not, nor a part."""
    there = at if place == "after commit" else at - 1
    async with DatabaseSessionService(graves[place, at]) as service:
        session = await read(service)
        assert texts(session) == [f"{n}{half}" for n in range(1, there + 1) for half in "ab"]
        assert session.state == ({"n": there} if there else {})
        assert session.last_seq == 2 * there
        await add(service, new_event("after"), after=2 * there)


def test_a_session_is_taken_over_from_a_process_that_was_killed_or_stopped(url: str) -> None:
    """Once the lease has expired; and the one that wakes up again is refused at its append."""
    killed, stopped, *heirs = work("inherit", url)
    assert (killed, stopped, heirs) == (signal.SIGKILL, 0, [0, 0])

    async def check() -> None:
        async with DatabaseSessionService(url) as service:
            for number in range(2):
                assert texts(await read(service, key_of(number))) == ["before", "after"]
            assert await service.unfinished(app_name="app") == []

    trio.run(check)


async def test_a_service_is_refused_in_a_forked_process(file: Path) -> None:
    async with DatabaseSessionService(file) as service:
        await make(service)
        service._process = os.getpid() + 1  # as it looks from a child
        for attempt in (add(service, new_event()), read(service)):
            with pytest.raises(RuntimeError, match=r"forked off.*service in each process"):
                await attempt
