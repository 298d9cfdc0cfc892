"""Durable events per second, and what an append costs in a long session and beside much state.

Time is the clock on the wall: what is measured here waits for the disk. The files lie in the
folder that the benchmark is started in, because the folder for temporary files is often memory.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.measure import Row, Sizes, Timed, run_rounds, times_base
from benchmarks.trees import LEAVES, wide
from parallel_agent import Runner
from session import Event, EventActions, Origin, SessionKey
from session.database import DatabaseSessionService
from tests.support.postgres import Postgres, find_programs, running_postgres

_BATCH = 10
_STRETCH = 1_000


def durable(sizes: Sizes) -> Iterator[Row]:
    """Branches x events, through the whole public path, beside raw one-row commits."""
    for branches, events in sizes.durable:
        case = f"{branches:,} x {events:,}"
        total = branches * events
        raw = min(total, sizes.raw_commits)
        commits: list[int] = []
        contestants: dict[str, Timed] = {"raw sqlite3 commits": partial(_raw_commits, raw)}
        for name in ("text", "state_delta"):
            contestants[name] = partial(_in_a_file, branches, events, name, commits)
        with postgres_server() if sizes.durable_postgres else nullcontext() as server:
            if server is not None:
                contestants["PostgreSQL, text"] = partial(_in_postgres, branches, events, server)
            seconds = run_rounds(contestants, sizes.rounds)
        if sizes.adk_python is not None:
            # Once: it is slow, and slower with each event.
            adk = _in_adk(sizes.adk_python, branches, events)
            yield Row("durable", case, "google-adk", total / adk / 1000, "k/s")
            yield Row("durable", case, "text / google-adk", adk / median(seconds["text"]), "ratio")
        per_raw = [taken / raw for taken in seconds["raw sqlite3 commits"]]
        for name, taken in seconds.items():
            count = raw if name == "raw sqlite3 commits" else total
            yield Row("durable", case, name, count / min(taken) / 1000, "k/s")
            if name in LEAVES:
                ratio = 1 / times_base([each / total for each in taken], per_raw)
                yield Row("durable", case, f"{name} / raw", ratio, "ratio")
        yield Row("durable", case, "events per commit", total / median(commits), "ratio")


def appends(sizes: Sizes) -> Iterator[Row]:
    """Cost of an append of ten events against the length of the log and the size of the state."""
    cases = [(f"{length:,} events", length, 0) for length in sizes.durable_history]
    cases += [(f"{keys:,} keys of state", 0, keys) for keys in sizes.durable_state]
    contestants = {
        case: partial(_appends, length, keys, sizes.durable_appends) for case, length, keys in cases
    }
    seconds = run_rounds(contestants, sizes.rounds)
    first = next(iter(seconds))
    for case, taken in seconds.items():
        yield Row("appends", case, "per append", min(taken) * 1e6, "us")
        yield Row("appends", case, "times the first", times_base(taken, seconds[first]), "ratio")


@contextmanager
def postgres_server() -> Iterator[Postgres | None]:
    """A PostgreSQL server that flushes the disk, where it is installed."""
    programs = find_programs()
    if programs is None:
        yield None
        return
    with running_postgres(programs, durable=True) as server:
        yield server


async def _in_postgres(branches: int, events: int, server: Postgres) -> float:
    return await _whole_run(server.new_database(), branches, events, "text", [])


async def _in_a_file(branches: int, events: int, leaf: str, commits: list[int]) -> float:
    with tempfile.TemporaryDirectory(dir=".") as folder:
        url = f"sqlite:///{folder}/sessions.db"
        return await _whole_run(url, branches, events, leaf, commits)


async def _whole_run(url: str, branches: int, events: int, leaf: str, commits: list[int]) -> float:
    groups: list[int] = []

    def count(place: str, size: int) -> None:
        if place == "after commit":
            groups.append(size)

    tree = wide(branches, events, LEAVES[leaf])
    async with DatabaseSessionService(url, fault_points=count) as service:
        runner = Runner(tree, app_name="bench", session_service=service)
        began = time.perf_counter()
        async with runner.open("go") as run:
            async for _ in run:
                pass
        seconds = time.perf_counter() - began
    commits.append(len(groups))
    return seconds


def _in_adk(python: str, branches: int, events: int) -> float:
    script = Path(__file__).with_name("adk_durable.py")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        # Absolute, because the address of a relative file differs between drivers.
        url = f"sqlite+aiosqlite:///{Path(folder).absolute()}/adk.db"
        command = [python, "-W", "ignore", str(script), str(branches), str(events), url]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603  # what the command line names
    if ran.returncode:
        sys.exit(f"{python} cannot run {script.name}: see above; it needs google-adk[db]")
    return float(ran.stdout)


async def _raw_commits(count: int) -> float:
    """The floor: one row for each commit, on the same disk, in the same way made durable."""
    body = "x" * 300
    with tempfile.TemporaryDirectory(dir=".") as folder:
        file = Path(folder) / "raw.db"
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("CREATE TABLE event (seq INTEGER PRIMARY KEY, body TEXT)")
            began = time.perf_counter()
            for _ in range(count):
                connection.execute("INSERT INTO event (body) VALUES (?)", (body,))
            return time.perf_counter() - began


async def _appends(length: int, keys: int, count: int) -> float:
    """Seconds per append to a session that is so long, and has so much state, already."""
    key = SessionKey("bench", "user", "long")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        async with DatabaseSessionService(Path(folder) / "sessions.db") as service:
            state = {f"key{number}": number for number in range(keys)}
            await service.create(
                app_name=key.app_name, user_id=key.user_id, session_id=key.session_id, state=state
            )
            seq = 0
            while seq < length:
                stretch = batch_of(min(_STRETCH, length - seq))
                await service.append(key, stretch, expected_seq=seq)
                seq += len(stretch)
            batches = [batch_of(_BATCH) for _ in range(count)]
            began = time.perf_counter()
            for batch in batches:
                await service.append(key, batch, expected_seq=seq)
                seq += len(batch)
            return (time.perf_counter() - began) / count


def batch_of(size: int) -> list[Event]:
    """Make so many events, ready to append."""
    origin = Origin(author="agent", invocation_id="invocation", path="agent")
    batch = [
        Event("an event", actions=EventActions(state_delta={"n": n}), origin=origin, timestamp=1.0)
        for n in range(size)
    ]
    for event in batch:
        event.seal()
    return batch
