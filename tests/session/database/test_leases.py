"""Leases in a database: they expire, are taken over, and survive answers that are lost."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio
from sqlalchemy import event as hooks
from sqlalchemy import text

from session import (
    Lease,
    LeaseLostError,
    SessionBusyError,
    SessionKey,
    StoreError,
    UnfinishedRun,
)
from session.database import DatabaseSessionService
from session.database.leases import Acquire
from session.database.transaction import Transaction
from session.database.work import find_held
from tests.support.databases import KEY, Faults, add, make, new_event, read, texts

OTHER = SessionKey("app", "user", "other")


@pytest.fixture
async def service(url: str) -> AsyncIterator[DatabaseSessionService]:
    async with opened(url) as service:
        yield service


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[DatabaseSessionService]:
    async with DatabaseSessionService(url, durability="normal", **options) as service:
        await make(service)
        yield service


async def acquire(
    service: DatabaseSessionService, run_id: str = "one", *, resumable: bool = False
) -> Lease:
    return await service.acquire(
        KEY, run_id=run_id, owner=f"holder of {run_id}", resumable=resumable
    )


async def append(
    service: DatabaseSessionService, lease: Lease, said: str = "x", *, after: int = 0
) -> None:
    await service.append(KEY, [new_event(said)], expected_seq=after, lease=lease)


def expire(service: DatabaseSessionService) -> None:
    """Let every lease have expired long ago: nobody waits for a real clock."""
    with service._store.engine.begin() as connection:
        connection.execute(text("UPDATE pa_session SET lease_expires = lease_expires - 3600"))


# ------------------------------------------------------------------------------------------ expiry


async def test_a_lease_that_has_expired_is_taken_over(service: DatabaseSessionService) -> None:
    first = await acquire(service)
    await append(service, first)
    expire(service)
    second = await acquire(service, "two")
    assert second.token > first.token
    with pytest.raises(LeaseLostError, match=r"'one' of holder of one no longer owns.*app/user"):
        await append(service, first, after=1)
    with pytest.raises(LeaseLostError):
        await service.renew(first)
    await service.release(first)
    await append(service, second, after=1)


async def test_a_lease_that_expired_and_that_nobody_took_is_still_its_holders(
    service: DatabaseSessionService,
) -> None:
    lease = await acquire(service)
    expire(service)
    await append(service, lease)
    assert await service.renew(lease) is None
    with pytest.raises(SessionBusyError):
        await acquire(service, "two")


async def test_whoever_is_told_that_a_session_is_busy_is_told_for_how_long(url: str) -> None:
    async with opened(url, lease_seconds=500) as service:
        lease = await acquire(service)
        assert lease.seconds == 500
        said = r"busy: the run 'one' of holder of one .*on_busy.*session_id.*(4\d\d|500) seconds"
        with pytest.raises(SessionBusyError, match=said) as caught:
            await acquire(service, "two")
    assert 400 < caught.value.seconds <= 500


async def test_a_renewal_begins_the_time_anew(url: str) -> None:
    async with opened(url, lease_seconds=500) as service:
        lease = await acquire(service)
        with service._store.engine.begin() as connection:
            connection.execute(text("UPDATE pa_session SET lease_expires = lease_expires - 499"))
        await service.renew(lease)
        with pytest.raises(SessionBusyError) as caught:
            await acquire(service, "two")
    assert 400 < caught.value.seconds <= 500


async def test_the_clock_of_the_process_decides_nothing(url: str) -> None:
    async with opened(url) as service, opened_again(url, clock=lambda: 9e9) as ahead:
        lease = await acquire(service)
        with pytest.raises(SessionBusyError):
            await acquire(ahead, "two")
        await append(service, lease)


@asynccontextmanager
async def opened_again(url: str, **options: Any) -> AsyncIterator[DatabaseSessionService]:
    async with DatabaseSessionService(url, durability="normal", **options) as service:
        yield service


async def test_a_run_whose_lease_has_expired_has_crashed(service: DatabaseSessionService) -> None:
    await acquire(service, resumable=True)
    expire(service)
    (run,) = await service.unfinished(app_name="app")
    assert run == UnfinishedRun(KEY, "one", "crashed", None, run.last_update_time)
    again = await acquire(service, resumable=True)
    (run,) = await service.unfinished(app_name="app")
    assert (run.status, run.owner) == ("running", "holder of one")
    await service.release(again)
    assert await service.unfinished(app_name="app") == []


async def test_a_crashed_run_that_cannot_be_resumed_is_not_remembered(
    service: DatabaseSessionService,
) -> None:
    await acquire(service)
    expire(service)
    assert await service.unfinished(app_name="app") == []


async def test_nobody_is_asked_whose_lease_has_expired(service: DatabaseSessionService) -> None:
    await acquire(service)
    expire(service)
    assert await service.ask_to_stop(KEY, "why") is False


async def test_what_a_dead_holder_was_asked_is_not_for_the_next(
    service: DatabaseSessionService,
) -> None:
    await acquire(service)
    await service.ask_to_stop(KEY, "make room")
    expire(service)
    assert await service.renew(await acquire(service, "two")) is None


@pytest.mark.parametrize(
    "change", ["lease_expires = 0", "lease_owner = NULL, lease_expires = NULL"]
)
async def test_a_session_that_becomes_free_while_one_looks_is_taken(
    service: DatabaseSessionService, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    def as_it_becomes_free(tx: Transaction, key: SessionKey) -> Any:
        tx._cursor.execute(f"UPDATE pa_session SET {change}")  # noqa: S608  # our own words
        return find_held(tx, key)

    first = await acquire(service)
    monkeypatch.setattr("session.database.leases.find_held", as_it_becomes_free)
    assert (await acquire(service, "two")).token > first.token


async def test_of_many_who_want_a_session_at_once_one_gets_it(url: str) -> None:
    got: list[Lease] = []
    refused: list[str] = []

    async def want(run_id: str) -> None:
        async with DatabaseSessionService(url, durability="normal") as service:
            try:
                got.append(await acquire(service, run_id))
            except SessionBusyError as error:
                refused.append(error.run_id)

    async with opened(url), trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(want, f"run {number}")
    assert [lease.run_id for lease in got] * 5 == refused


async def test_a_session_made_again_knows_no_lease_of_the_one_before(
    service: DatabaseSessionService,
) -> None:
    """Not even of the same run, with the same number of leases before."""
    old = await acquire(service)
    session = await read(service)
    await service.delete(app_name="app", user_id="user", session_id="session")
    await service.restore(session)
    new = await acquire(service)
    assert new.token > old.token
    with pytest.raises(LeaseLostError):
        await append(service, old)
    await append(service, new)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "30"])
def test_lease_seconds_are_seconds(file: Path, seconds: Any) -> None:
    with pytest.raises(ValueError, match="lease_seconds is seconds, more than 0"):
        DatabaseSessionService(file, lease_seconds=seconds)


# -------------------------------------------------------------------------------------------- cost


async def test_an_append_under_a_lease_says_no_more_than_one_without(file: Path) -> None:
    said: list[str] = []
    service = DatabaseSessionService(file, durability="normal")

    def listen(connection: sqlite3.Connection, _record: object) -> None:
        connection.set_trace_callback(said.append)

    hooks.listen(service._store.engine, "connect", listen)
    async with service:
        await make(service)
        lease = await acquire(service)
        lengths: list[int] = []
        for after, under in enumerate((None, lease)):
            said.clear()
            await service.append(KEY, [new_event()], expected_seq=after, lease=under)
            lengths.append(len(said))
    # BEGIN, the row of the session, the event, COMMIT.
    assert lengths == [4, 4]


async def test_sessions_without_an_unfinished_run_are_not_looked_at(file: Path) -> None:
    asked: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, statement: str, values: Any, *_rest: object) -> None:
        asked.append((statement, values))

    async with opened(str(file)) as service:
        hooks.listen(service._store.engine, "before_cursor_execute", note)
        for user_id in (None, "user"):
            await service.unfinished(app_name="app", user_id=user_id)
    with closing(sqlite3.connect(file)) as connection:
        plans = [
            [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
            for statement, values in asked
            if "pa_session" in statement
        ]
    assert [len(plan) for plan in plans] == [1, 1]
    assert all("USING INDEX pa_session_unfinished (" in plan[0] for plan in plans)


async def test_postgresql_has_that_index_as_well(postgres_url: str) -> None:
    query = "SELECT indexdef FROM pg_indexes WHERE indexname = 'pa_session_unfinished'"
    async with opened(postgres_url) as service:
        with service._store.reading() as connection:
            found = connection.execute(text(query)).scalar_one()
    assert found.endswith("(app_name, user_id, session_id) WHERE (run_status IS NOT NULL)")


async def test_a_refused_lease_leaves_the_others_of_its_group_alone(file: Path) -> None:
    faults = Faults()
    ended: list[str] = []

    async def one(call: Callable[[], Any]) -> None:
        try:
            await call()
        except (SessionBusyError, LeaseLostError) as error:
            ended.append(type(error).__name__)

    async with opened(str(file), fault_points=faults) as service:
        await make(service, OTHER)
        lease = await acquire(service)
        lost = Lease(KEY, "lost", "nobody", 1, 30.0)
        calls: list[Callable[[], Any]] = [
            partial(add, service, new_event("first"), key=OTHER),
            partial(acquire, service, "two"),
            partial(append, service, lost),
            partial(service.renew, lost),
            partial(append, service, lease, "mine"),
            partial(service.acquire, OTHER, run_id="three", owner="o"),
        ]
        faults.commits.clear()
        async with trio.open_nursery() as nursery:
            with faults.held():
                for place, call in enumerate(calls):
                    nursery.start_soon(one, call)
                    if place == 0:
                        await faults.arrival()
                    await trio.testing.wait_all_tasks_blocked()
        assert faults.commits == [1, 5]
        assert sorted(ended) == ["LeaseLostError", "LeaseLostError", "SessionBusyError"]
        assert texts(await read(service)) == ["mine"]


# ------------------------------------------------------------------------------------ lost answers


def lost(url: str) -> Exception:
    """What the driver raises when the connection is lost."""
    return sqlite3.OperationalError("lost") if "sqlite" in url else psycopg.OperationalError("lost")


async def test_whatever_is_done_to_a_lease_is_found_to_be_done_when_the_answer_is_lost(
    url: str,
) -> None:
    faults = Faults()
    async with opened(url, fault_points=faults) as service:
        faults.fail("after commit", lost(url))
        lease = await acquire(service, resumable=True)
        await append(service, lease)
        faults.fail("after commit", lost(url))
        assert await service.ask_to_stop(KEY, "why") is True
        faults.fail("after commit", lost(url))
        assert await service.renew(lease) == "why"
        faults.fail("after commit", lost(url))
        await append(service, lease, after=1)
        faults.fail("after commit", lost(url))
        await service.release(lease, unfinished="waiting")
        (run,) = await service.unfinished(app_name="app")
        assert (run.run_id, run.status) == ("one", "waiting")
        assert faults.commits == [1] * 7


async def test_a_lease_whose_commit_was_on_its_way_is_found_in_the_end(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the writer looked it was not there yet, and then the session is busy with it."""
    was_done, looked = Acquire.was_done, list[bool]()

    def too_early(work: Acquire, tx: Transaction) -> bool:
        looked.append(was_done(work, tx))
        return looked[-1] and len(looked) > 1

    faults = Faults()
    async with opened(postgres_url, fault_points=faults) as service:
        monkeypatch.setattr(Acquire, "was_done", too_early)
        faults.fail("after commit", psycopg.OperationalError("lost"))
        lease = await acquire(service)
        assert looked == [True, True]
        await append(service, lease)


async def test_a_lease_that_was_not_recorded_is_taken_at_the_second_try(postgres_url: str) -> None:
    faults = Faults()
    async with opened(postgres_url, fault_points=faults) as service:
        faults.fail("before commit", psycopg.OperationalError("lost"))
        await append(service, await acquire(service))


async def test_anothers_lease_does_not_pass_for_one_that_was_lost(url: str) -> None:
    """Both resume the same run, in the same words; the first was promised the same token."""
    async with opened(url) as service:
        works = [
            Acquire(KEY, run_id="r", owner="o", seconds=seconds, resumable=True)
            for seconds in (30.0, 30.5)
        ]
        for work, ends in zip(works, ("ROLLBACK", "COMMIT"), strict=True):
            connection: Any = service._store.open_writer()
            cursor = connection.cursor()
            cursor.execute(service._store.begin)
            tx = Transaction(service._store, cursor)
            work.run(tx)
            cursor.execute(ends)
            done = [each.was_done(tx) for each in works]
            connection.close()
        assert works[0].token == works[1].token
        assert done == [False, True]


async def test_a_lease_that_nobody_knows_of_says_so(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable() -> Any:
        raise sqlite3.OperationalError

    faults = Faults()
    async with opened(str(file), fault_points=faults) as service:
        faults.fail("after commit", sqlite3.OperationalError("lost"))
        with monkeypatch.context() as patched:
            patched.setattr(service._store, "open_writer", unreachable)
            with pytest.raises(StoreError, match="nobody knows whether"):
                await acquire(service)
