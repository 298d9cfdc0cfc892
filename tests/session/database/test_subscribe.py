"""Following a log in a database: who wakes whom, in a process and between several."""

from __future__ import annotations

import gc
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio
import trio.testing

from session import Event, SessionNotFoundError, StoreCorruptError
from session.database import DatabaseSessionService
from session.database.watch import Announcer
from session.watching import Bells
from tests.support.databases import KEY, Faults, add, make, new_event
from tests.support.postgres import Postgres

ROOT = Path(__file__).parents[3]
NEVER = 1000.0


def listening() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("changes of")]


def without_looking(url: str, **options: Any) -> DatabaseSessionService:
    """A service whose subscribers never look by themselves: they are woken, or wait for ever."""
    service = DatabaseSessionService(url, durability="normal", **options)
    service._store.poll_seconds = NEVER
    return service


@pytest.fixture
async def service(url: str) -> AsyncIterator[DatabaseSessionService]:
    async with without_looking(url) as service:
        await make(service)
        yield service


async def take(events: AsyncIterator[Event], count: int = 1) -> list[int | None]:
    with trio.fail_after(20):
        return [(await anext(events)).seq for _ in range(count)]


async def until(happened: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    with trio.fail_after(20):
        while not happened():  # noqa: ASYNC110  # it sets no event
            await trio.sleep(0.001)


async def until_waiting(service: DatabaseSessionService, count: int = 1) -> None:
    """Until so many wait for news of a session: all have looked, and found nothing."""
    hanging = service._watch.bells.hanging
    # None: it is not known yet where to wait.
    await until(lambda: sum(len(hanging[topic]) for topic in {*hanging} - {None}) >= count)
    await trio.testing.wait_all_tasks_blocked()
    # Reading is done in threads, which do not count as something that goes on.
    await until(lambda: not service._threads.get().borrowed_tokens)
    await trio.testing.wait_all_tasks_blocked()


async def until_heard(service: DatabaseSessionService, url: str) -> None:
    """Until the service listens, and somebody waits."""
    asked = "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND query LIKE 'LISTEN%%'"
    with psycopg.connect(url, autocommit=True) as connection:
        await until(lambda: connection.execute(asked, (url.rpartition("/")[2],)).fetchone())
    await until_waiting(service)


# ------------------------------------------------------------------------------- in one process


async def test_an_append_wakes_who_waits_in_the_same_service(
    service: DatabaseSessionService,
) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(take, service.subscribe(KEY), 2)
        for seq in range(2):
            await until_waiting(service, 3)
            await add(service, new_event(), after=seq)
    assert not service._watch.bells.hanging


async def test_an_append_wakes_who_waits_in_another_event_loop(
    service: DatabaseSessionService,
) -> None:
    got: list[list[int | None]] = []

    def elsewhere() -> None:
        got.append(trio.run(take, service.subscribe(KEY), 2))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    for seq in range(2):
        await until(lambda: service._watch.bells.hanging)
        await add(service, new_event(), after=seq)
    await trio.to_thread.run_sync(thread.join)
    assert got == [[1, 2]]


async def test_clearing_old_sessions_away_wakes_who_waits(service: DatabaseSessionService) -> None:
    async def wait() -> None:
        with pytest.raises(SessionNotFoundError):
            await take(service.subscribe(KEY))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await until_waiting(service)
        assert await service.delete_before(app_name="app", time=4e9) == 1


async def test_an_append_whose_answer_was_lost_wakes_who_waits(url: str) -> None:
    faults = Faults()
    async with without_looking(url, fault_points=faults) as service:
        await make(service)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, service.subscribe(KEY))
            await until_waiting(service)
            faults.fail("after commit", OSError("lost"))
            await add(service, new_event())


async def test_closing_a_service_ends_the_waiting(service: DatabaseSessionService) -> None:
    events = service.subscribe(KEY)

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError, match="has been closed"):
            await take(events)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await until_waiting(service)
        await service.close()
    await wait()
    assert not listening()


async def test_a_step_that_the_store_failed_is_tried_again_by_the_next(file: Path) -> None:
    async with DatabaseSessionService(file) as service:
        await make(service)
        await add(service, *(new_event() for _ in range(3)))
        events = service.subscribe(KEY, after=1)
        with closing(sqlite3.connect(file)) as other:
            other.execute("ALTER TABLE pa_event RENAME TO away")
            with pytest.raises(StoreCorruptError):
                await take(events)
            other.execute("ALTER TABLE away RENAME TO pa_event")
        assert await take(events, 2) == [2, 3]


def test_a_forgotten_service_with_subscribers_leaves_no_thread(url: str) -> None:
    before = set(threading.enumerate())

    async def follow_and_forget() -> None:
        service = DatabaseSessionService(url)
        await make(service)
        events = service.subscribe(KEY)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, events)
            await until_waiting(service)
            nursery.cancel_scope.cancel()

    trio.run(follow_and_forget)
    # Trio keeps its own for a while.
    ours = [t for t in set(threading.enumerate()) - before if " of " in t.name]
    end = time.monotonic() + 20
    while any(thread.is_alive() for thread in ours):
        assert time.monotonic() < end, ours
        gc.collect()  # again: a read that was abandoned holds the service until it is done
        ours[0].join(0.01)
        ours = [thread for thread in ours if thread.is_alive()]


# -------------------------------------------------------------------- announced, by PostgreSQL


async def test_who_only_reads_what_is_stored_does_not_listen(postgres_url: str) -> None:
    async with DatabaseSessionService(postgres_url) as service:
        await make(service)
        await add(service, new_event(), new_event())
        assert await take(service.subscribe(KEY), 2) == [1, 2]
        assert not listening()


async def test_an_append_of_another_service_is_announced(postgres_url: str) -> None:
    async with without_looking(postgres_url) as ours, without_looking(postgres_url) as other:
        await make(ours)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, ours.subscribe(KEY), 3)
            await until_heard(ours, postgres_url)
            for seq in range(3):
                await add(other, new_event(), after=seq)
    assert not listening()


async def test_a_deletion_by_another_service_is_announced(postgres_url: str) -> None:
    async with without_looking(postgres_url) as ours, without_looking(postgres_url) as other:
        await make(ours)

        async def wait() -> None:
            with pytest.raises(SessionNotFoundError):
                await take(ours.subscribe(KEY))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await until_heard(ours, postgres_url)
            await other.delete(app_name="app", user_id="user", session_id="session")


async def test_a_service_announces_what_is_left_before_it_is_closed(postgres_url: str) -> None:
    async with without_looking(postgres_url) as ours:
        await make(ours)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, ours.subscribe(KEY), 2)
            await until_heard(ours, postgres_url)
            async with DatabaseSessionService(postgres_url) as other:
                for seq in range(2):  # the second right after the first, which is announced
                    await add(other, new_event(), after=seq)


async def test_a_listener_that_was_cut_off_listens_again_and_misses_nothing(
    postgres: Postgres, postgres_url: str
) -> None:
    async with without_looking(postgres_url) as ours, without_looking(postgres_url) as other:
        await make(ours)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, ours.subscribe(KEY), 2)
            await until_heard(ours, postgres_url)
            name = postgres_url.rpartition("/")[2]
            listeners = f"datname = '{name}' AND query LIKE 'LISTEN%'"
            postgres.say(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {listeners}"  # noqa: S608  # our own
            )
            for seq in range(2):
                await add(other, new_event(), after=seq)


async def test_what_was_not_announced_is_found_by_looking(postgres_url: str) -> None:
    async with without_looking(postgres_url) as ours, without_looking(postgres_url) as other:
        other._store.announces = False
        ours._store.poll_seconds = 0.01
        await make(ours)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, ours.subscribe(KEY))
            await until_heard(ours, postgres_url)
            await add(other, new_event())


async def test_what_others_say_on_the_channel_means_nothing(
    postgres: Postgres, postgres_url: str
) -> None:
    async with without_looking(postgres_url) as ours:
        await make(ours)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, ours.subscribe(KEY))
            await until_heard(ours, postgres_url)
            with closing(ours._store.open_writer()) as connection:
                for said in ("", "x", "-1", "1" * 30, "\u00b2"):
                    said_on = ("pa_parallel_agent", said)
                    connection.cursor().execute("SELECT pg_notify(%s, %s)", said_on)
            await add(ours, new_event())


class Deaf:
    """A store that notes what it should announce."""

    announces = True

    def __init__(self) -> None:
        self.announced: list[Sequence[int]] = []

    def announce(self, _cursor: object, sessions: Sequence[int]) -> None:
        self.announced.append(sessions)

    def cursor(self) -> None:
        """It is its own connection."""


def test_changes_that_come_close_together_are_announced_together() -> None:
    store: Any = Deaf()
    announcer = Announcer(store, Bells())
    assert announcer.seconds() is None
    announcer.committed([3])
    assert announcer.seconds() == 0  # the first at once
    announcer.announce(store)
    assert announcer.seconds() is None
    announcer.committed([2, 1])
    announcer.committed([2])
    seconds = announcer.seconds()
    assert seconds is not None
    assert 0 < seconds < 0.1
    announcer.announce(store)
    announcer.announce(store)
    assert store.announced == [[3], [1, 2]]


def test_a_store_that_announces_nothing_has_nothing_to_announce() -> None:
    store: Any = Deaf()
    store.announces = False
    announcer = Announcer(store, Bells())
    announcer.committed([3])
    assert announcer.seconds() is None


# ----------------------------------------------------------------------------- other processes


@pytest.fixture(scope="module")
def appender() -> Iterator[Callable[[str], None]]:
    """Another process, which appends an event to the session of a database."""
    command = [sys.executable, "-m", "tests.session.database.appender"]
    with subprocess.Popen(  # noqa: S603  # this very Python
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        lines, answers = process.stdin, process.stdout
        assert lines is not None
        assert answers is not None

        def append(url: str) -> None:
            lines.write(f"{url}\n")
            lines.flush()
            assert answers.readline() == "done\n"

        yield append
        lines.close()
        assert process.wait(20) == 0


async def test_what_another_process_appends_is_seen(
    url: str, appender: Callable[[str], None]
) -> None:
    """PostgreSQL tells, and is never asked here; a file is looked at."""
    announced = url.startswith("postgresql")
    service = without_looking(url) if announced else DatabaseSessionService(url)
    async with service:
        await make(service)
        await add(service, new_event())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, service.subscribe(KEY), 2)
            if announced:
                await until_heard(service, url)
            await until_waiting(service)
            await trio.to_thread.run_sync(appender, url)
            began = time.monotonic()
        assert time.monotonic() - began < 5  # half of one, where nothing else is done
