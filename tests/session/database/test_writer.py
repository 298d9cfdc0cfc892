"""Group commit: who shares one, who fails, and what becomes of the others."""

from __future__ import annotations

import gc
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from sqlalchemy import event as hooks

from session import (
    Event,
    SequenceConflictError,
    SessionExistsError,
    SessionKey,
    SessionNotFoundError,
    StoreError,
    StoreUnavailableError,
)
from session.database import DatabaseSessionService
from session.database.writer import _Hand, _UnsureError
from tests.support.databases import KEY, Faults, add, make, new_event, read, texts

KEYS = [SessionKey("app", "user", f"s{number}") for number in range(5)]


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
async def service(file: Path, faults: Faults) -> AsyncIterator[DatabaseSessionService]:
    async with DatabaseSessionService(file, durability="normal", fault_points=faults) as service:
        for key in (KEY, *KEYS):
            await make(service, key)
        faults.commits.clear()
        yield service


async def together(faults: Faults, *calls: Callable[[], Any]) -> list[BaseException | None]:
    """Have the calls wait together, behind one that has the writer; return how each ended."""
    ended: list[BaseException | None] = [None] * len(calls)

    async def one(place: int) -> None:
        try:
            await calls[place]()
        except BaseException as error:  # noqa: BLE001  # it is what is asked for
            ended[place] = error

    async with trio.open_nursery() as nursery:
        with faults.held():
            for place in range(len(calls)):
                nursery.start_soon(one, place)
                if place == 0:
                    await faults.arrival()
                # One after the other: trio starts tasks in any order.
                await trio.testing.wait_all_tasks_blocked()
    return ended


def appending(
    service: DatabaseSessionService, key: SessionKey, *events: Event, after: int = 0
) -> Callable[[], Any]:
    return lambda: add(service, *events, key=key, after=after)


async def test_appends_that_wait_together_share_a_commit(
    service: DatabaseSessionService, faults: Faults
) -> None:
    calls = [appending(service, key, new_event()) for key in KEYS]
    assert await together(faults, *calls) == [None] * 5
    # The first has the writer, which takes all that has come meanwhile.
    assert faults.commits == [1, 4]


async def test_every_kind_of_change_shares_a_commit(
    service: DatabaseSessionService, faults: Faults
) -> None:
    new = SessionKey("app", "user", "new")
    ended = await together(
        faults,
        appending(service, KEY, new_event()),
        lambda: make(service, new, a=1),
        lambda: service.delete(app_name="app", user_id="user", session_id="s0"),
        appending(service, KEYS[1], new_event()),
    )
    assert (ended, faults.commits) == ([None] * 4, [1, 3])
    assert (await read(service, new)).state == {"a": 1}


async def test_a_refused_append_leaves_the_others_of_its_group_alone(
    service: DatabaseSessionService, faults: Faults
) -> None:
    late = new_event(delta={"app:late": 1})
    ended = await together(
        faults,
        appending(service, KEY, new_event()),
        appending(service, KEYS[0], new_event("good")),
        appending(service, KEYS[1], late, after=7),
        appending(service, SessionKey("app", "user", "nobody"), late),
        lambda: make(service, KEYS[3]),
        appending(service, KEYS[2], new_event("good")),
    )
    assert [type(error) for error in ended] == [
        type(None),
        type(None),
        SequenceConflictError,
        SessionNotFoundError,
        SessionExistsError,
        type(None),
    ]
    assert faults.commits == [1, 5]
    assert late.seq is None
    session = await read(service, KEYS[0])
    assert (texts(session), session.state) == (["good"], {})


async def test_appends_to_one_session_in_one_group_keep_their_order(
    service: DatabaseSessionService, faults: Faults
) -> None:
    ended = await together(
        faults,
        appending(service, KEYS[0], new_event()),
        appending(service, KEY, new_event("a", v=1, w=1), after=0),
        appending(service, KEY, new_event("b", v=2), after=1),
    )
    session = await read(service)
    assert (ended, faults.commits) == ([None] * 3, [1, 2])
    assert (texts(session), session.state) == (["a", "b"], {"v": 2, "w": 1})


async def test_a_session_appended_to_and_deleted_in_one_group_is_gone(
    service: DatabaseSessionService, faults: Faults
) -> None:
    ended = await together(
        faults,
        appending(service, KEYS[0], new_event()),
        appending(service, KEY, new_event(v=1)),
        lambda: service.delete(app_name="app", user_id="user", session_id="session"),
        lambda: make(service, KEY, new=1),
    )
    session = await read(service)
    assert (ended, faults.commits) == ([None] * 4, [1, 3])
    assert (texts(session), session.state, session.last_seq) == ([], {"new": 1}, 0)


# ---------------------------------------------------------------------------------------- errors


async def test_when_a_transaction_fails_each_of_its_group_is_tried_by_itself(
    service: DatabaseSessionService, faults: Faults
) -> None:
    too_much = sqlite3.OperationalError("too much at once")
    faults.fail("before commit", too_much, too_much, too_much)
    calls = [appending(service, key, new_event()) for key in KEYS[:4]]
    ended = await together(faults, *calls)
    # Of the first, which was alone; of the group of three; and of the first of the three.
    assert [type(error) for error in ended] == [StoreError, StoreError, type(None), type(None)]
    assert faults.commits == [1, 1]


async def test_a_group_waits_once_for_a_store_that_is_locked(file: Path, faults: Faults) -> None:
    """Each by itself would wait as long again."""
    service = DatabaseSessionService(file, busy_timeout=0.02, fault_points=faults)
    async with service:
        for key in KEYS[:3]:
            await make(service, key)
        faults.begins.clear()
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            calls = [appending(service, key, new_event()) for key in KEYS[:3]]
            ended = await together(faults, *calls)
        assert [type(error) for error in ended] == [StoreUnavailableError] * 3
        assert len({id(error) for error in ended}) == 3
        assert faults.begins == [1, 2]


async def test_only_the_append_to_blame_fails(file: Path, faults: Faults) -> None:
    service = DatabaseSessionService(file, durability="normal", fault_points=faults)

    def limit_text(connection: sqlite3.Connection, _record: object) -> None:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)

    hooks.listen(service._store.engine, "connect", limit_text)
    async with service:
        for key in (KEY, *KEYS):
            await make(service, key)
        faults.commits.clear()
        bad = new_event("x" * 20_000)
        ended = await together(
            faults,
            appending(service, KEY, new_event()),
            appending(service, KEYS[0], new_event("good")),
            appending(service, KEYS[1], bad),
            appending(service, KEYS[2], new_event("good")),
        )
        assert [type(error) for error in ended] == [
            type(None),
            type(None),
            StoreError,
            type(None),
        ]
        assert faults.commits == [1, 1, 1]
        assert bad.seq is None
        assert texts(await read(service, KEYS[1])) == []
        assert texts(await read(service, KEYS[2])) == ["good"]


async def test_a_failed_append_changes_nothing_and_can_be_made_again(
    service: DatabaseSessionService, faults: Faults
) -> None:
    faults.fail("before commit", sqlite3.OperationalError("the disk hiccuped"))
    event = new_event("once", v=1, delta={"temp:t": 1})
    with pytest.raises(StoreError, match="the disk hiccuped") as caught:
        await add(service, event)
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    assert (event.seq, dict(event.state_delta)) == (None, {"v": 1, "temp:t": 1})
    assert (await read(service)).last_seq == 0
    await add(service, event)
    session = await read(service)
    assert (texts(session), session.state, event.seq) == (["once"], {"v": 1}, 1)


async def test_a_commit_whose_answer_was_lost_is_found_to_be_done(
    service: DatabaseSessionService, faults: Faults
) -> None:
    new = SessionKey("app", "user", "new")
    events = [new_event(str(number), v=number) for number in range(3)]
    await add(service, new_event("before"))
    lost = sqlite3.OperationalError("lost")
    faults.fail("after commit", lost, lost)
    ended = await together(
        faults,
        appending(service, KEY, events[0], after=1),
        appending(service, KEYS[0], events[1], events[2]),
        lambda: make(service, new, a=1),
        lambda: service.delete(app_name="app", user_id="user", session_id="s4"),
    )
    assert ended == [None] * 4
    assert [event.seq for event in events] == [2, 1, 2]
    assert texts(await read(service)) == ["before", "0"]
    assert texts(await read(service, KEYS[0])) == ["1", "2"]
    assert (await read(service, new)).state == {"a": 1}


async def test_a_session_whose_creation_was_answered_late_is_returned_whole(
    service: DatabaseSessionService, faults: Faults
) -> None:
    await make(service, SessionKey("app", "user", "other"), **{"app:a": 1})
    faults.fail("after commit", sqlite3.OperationalError("lost"))
    session = await make(service, SessionKey("app", "user", "new"), own=2)
    assert (session.state, session.events) == ({"app:a": 1, "own": 2}, [])


async def test_anothers_events_do_not_pass_for_what_was_lost(
    service: DatabaseSessionService, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was committed, and somebody else has taken the number since."""
    mine, theirs = new_event("mine", by="inv-1"), new_event("theirs", by="inv-2")
    transact = _Hand._transact

    def lose(hand: _Hand, group: Sequence[Any]) -> None:
        if faults.commits:
            return transact(hand, group)
        faults.commits.append(0)
        other = DatabaseSessionService(service._store.engine.url.database or "")
        trio.run(add, other, theirs)
        raise _UnsureError from sqlite3.OperationalError("lost")

    with monkeypatch.context() as patched:
        patched.setattr(_Hand, "_transact", lose)
        # The other one's writer goes through the same code: by then there is a commit.
        with pytest.raises(StoreError, match="lost"):
            await add(service, mine)
    assert (mine.seq, texts(await read(service))) == (None, ["theirs"])


async def test_an_answer_that_was_lost_for_good_says_that_nobody_knows(
    service: DatabaseSessionService, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable() -> Any:
        raise sqlite3.OperationalError

    await add(service, new_event())
    faults.fail("after commit", sqlite3.OperationalError("lost"))
    with monkeypatch.context() as patched:
        patched.setattr(service._store, "open_writer", unreachable)
        with pytest.raises(StoreUnavailableError, match="nobody knows whether"):
            await add(service, new_event(), after=1)
    assert (await read(service)).last_seq == 2


async def test_a_bug_below_reaches_the_caller_and_the_writer_goes_on(
    service: DatabaseSessionService, faults: Faults
) -> None:
    faults.fail("before begin", ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await add(service, new_event())
    faults.fail("before commit", SystemExit())
    with pytest.raises(SystemExit):
        await add(service, new_event())
    await add(service, new_event())
    assert (await read(service)).last_seq == 1


# ------------------------------------------------------------------- cancelling, closing, threads


async def test_a_cancelled_append_is_done_nevertheless(
    service: DatabaseSessionService, faults: Faults
) -> None:
    event = new_event()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            with faults.held():
                nursery.start_soon(appending(service, KEY, event))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
    assert scope.cancel_called
    assert event.seq == 1
    assert (await read(service)).last_seq == 1


async def test_a_change_that_is_cancelled_before_it_begins_is_not_made(
    service: DatabaseSessionService,
) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await make(service, SessionKey("app", "user", "new"))
    assert scope.cancelled_caught
    assert len(await service.list(app_name="app")) == 1 + len(KEYS)


async def test_what_waits_is_done_before_a_service_closes(
    service: DatabaseSessionService, faults: Faults, file: Path
) -> None:
    events = [new_event() for _ in KEYS]
    async with trio.open_nursery() as nursery:
        with faults.held():
            for key, event in zip(KEYS, events, strict=True):
                nursery.start_soon(appending(service, key, event))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(service.close)
            await trio.testing.wait_all_tasks_blocked()
    assert [event.seq for event in events] == [1] * 5
    # The last connection has folded the log of writes into the file.
    assert [path.name for path in file.parent.iterdir()] == [file.name]


async def test_a_closed_service_refuses_everything(service: DatabaseSessionService) -> None:
    await service.close()
    await service.close()
    for call in (
        lambda: add(service, new_event()),
        lambda: make(service, KEY),
        lambda: read(service),
        lambda: service.list(app_name="app"),
        lambda: service.delete(app_name="app", user_id="user", session_id="session"),
    ):
        with pytest.raises(trio.ClosedResourceError, match="has been closed"):
            await call()


async def test_a_forgotten_service_ends_its_thread(file: Path) -> None:
    service = DatabaseSessionService(file, durability="normal")
    await make(service)
    (thread,) = [t for t in threading.enumerate() if t.name.endswith(str(file))]
    del service
    gc.collect()
    await trio.to_thread.run_sync(thread.join, 30)
    assert not thread.is_alive()


async def test_one_service_serves_several_event_loops_at_once(
    service: DatabaseSessionService,
) -> None:
    async def ten_events(key: SessionKey) -> None:
        for number in range(10):
            await add(service, new_event(str(number)), key=key, after=number)
            assert (await read(service, key)).last_seq == number + 1

    async with trio.open_nursery() as nursery:
        for key in KEYS[:3]:
            nursery.start_soon(trio.to_thread.run_sync, trio.run, ten_events, key)
        nursery.start_soon(ten_events, KEYS[3])
    for key in KEYS[:4]:
        assert texts(await read(service, key)) == [str(number) for number in range(10)]
