"""What `DatabaseSessionService` does beside the contract, which test_conformance.py checks."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from sqlalchemy import event as hooks

from parallel_agent import InvocationContext, ParallelAgent, Runner, agent, aio, sync
from session import InMemorySessionService, SessionInfo, SessionKey, SessionNotFoundError
from session.database import DatabaseSessionService
from session.database.statements import Statement, Statements
from tests.support.databases import KEY, Faults, add, as_values, make, new_event, read, texts


async def test_a_run_is_recorded_and_a_later_service_reads_it(file: Path) -> None:
    @agent(output_key="said")
    async def says(ctx: InvocationContext) -> Any:
        yield "one"
        yield f"two, to {ctx.user_text}"

    async with DatabaseSessionService(file) as service:
        result = await Runner(says, session_service=service).run("you", session_id="s")
    async with DatabaseSessionService(file) as service:
        session = await read(service, SessionKey("says", "user", "s"))
        assert texts(session) == ["you", "one", "two, to you"]
        assert session.state == result.state == {"said": "two, to you"}
        assert [e.id for e in session.events[1:]] == [e.id for e in result.events]
        again = await Runner(says, session_service=service).run("me", session_id="s")
        assert again.events[-1].seq == 6


async def test_branches_that_wait_together_share_a_commit(file: Path) -> None:
    @agent
    async def leaf(_ctx: InvocationContext) -> Any:
        for number in range(5):
            yield str(number)

    faults = Faults()
    tree = ParallelAgent("wide", [leaf.with_options(name=f"b{n}") for n in range(10)])
    async with DatabaseSessionService(file, fault_points=faults) as service:
        result = await Runner(tree, session_service=service).run("go")
    # One more each for the session, the message and what the branches have in common; and two for
    # the lease.
    assert len(result.events) >= 50
    assert len(faults.commits) <= 5 + 4 + 2


def test_every_host_can_record_in_it(file: Path) -> None:
    @agent
    async def says(_ctx: InvocationContext) -> str:
        return "said"

    service = DatabaseSessionService(file)

    async def in_asyncio() -> None:
        await aio.Runner(says, session_service=service).run("go", session_id="a")

    async def check() -> None:
        infos = await service.list(app_name="says")
        assert [(info.key.session_id, info.last_seq) for info in infos] == [("a", 2), ("b", 2)]
        await service.close()

    asyncio.run(in_asyncio())
    sync.run_sync(says, "go", session_service=service, session_id="b")
    trio.run(check)


async def test_a_session_is_dated_by_the_clock_until_its_first_event(file: Path) -> None:
    async with DatabaseSessionService(file, clock=lambda: 3.0) as service:
        assert (await make(service)).last_update_time == 3.0
        await add(service, new_event(timestamp=5.0))
        assert (await read(service)).last_update_time == 5.0


async def test_ids_come_from_the_source_that_was_given(file: Path) -> None:
    async with DatabaseSessionService(file, new_id=iter(["one", "two"]).__next__) as service:
        ids = [(await service.create(app_name="a", user_id="u")).id for _ in range(2)]
    assert ids == ["one", "two"]


async def test_a_service_opens_on_its_first_use_without_a_block(tmp_path: Path) -> None:
    service = DatabaseSessionService(tmp_path / "new.db")
    assert await service.list(app_name="app") == []
    await service.close()


async def test_a_url_and_a_path_name_the_same_file(file: Path) -> None:
    names: list[str | Path] = [f"sqlite:///{file}", f"sqlite+pysqlite:///{file}", str(file), file]
    async with DatabaseSessionService(names[0]) as service:
        await make(service)
    for name in names[1:]:
        async with DatabaseSessionService(name) as service:
            assert len(await service.list(app_name="app")) == 1


async def test_a_relative_path_is_that_of_the_folder_at_the_time(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    service = DatabaseSessionService("sqlite:///sessions.db")
    monkeypatch.chdir("/")
    await make(service)
    await service.close()
    assert repr(service) == f"DatabaseSessionService('sqlite:///{file}')"


@pytest.mark.parametrize(("durability", "level"), [("full", 2), ("normal", 1)])
async def test_durability_is_how_often_the_disk_is_flushed(
    file: Path, durability: Any, level: int
) -> None:
    service = DatabaseSessionService(file, durability=durability)
    with closing(service._store.open_writer()) as connection:
        cursor = connection.cursor()
        found = {
            name: cursor.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("synchronous", "journal_mode", "foreign_keys", "fullfsync")
        }
    assert found == {
        "synchronous": level,
        "journal_mode": "wal",
        "foreign_keys": 1,
        "fullfsync": level - 1,
    }
    await service.close()


async def test_two_services_on_one_file_see_each_other(file: Path) -> None:
    async with DatabaseSessionService(file) as one, DatabaseSessionService(file) as other:
        await make(one)
        await add(one, new_event("a"))
        await add(other, new_event("b"), after=1)
        assert texts(await read(one)) == ["a", "b"]


# --------------------------------------------------------------------------------------- reading


async def test_a_read_that_is_cancelled_returns_at_once_and_gives_its_connection_back(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with DatabaseSessionService(file, pool_size=1, busy_timeout=10) as service:
        await make(service)
        may_go_on = threading.Event()
        page = service._reader.page

        def slow(*args: Any) -> list[SessionInfo]:
            may_go_on.wait(30)
            return page(*args)

        monkeypatch.setattr(service._reader, "page", slow)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: service.list(app_name="app"))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        may_go_on.set()
        assert len(await service.list(app_name="app")) == 1
        assert service._store.engine.pool.checkedout() <= 1  # type: ignore[attr-defined]  # a QueuePool


async def test_a_page_is_found_by_index(file: Path) -> None:
    plans = await plans_of(
        file, lambda s: s.list_page(app_name="app", after=KEY, limit=2)
    ) + await plans_of(file, lambda s: s.list_page(app_name="app", user_id="user", after=KEY))
    assert len(plans) == 2
    for plan in plans:
        assert "SEARCH" in plan
        assert "SCAN" not in plan
        assert "TEMP B-TREE" not in plan


async def test_a_window_is_found_by_index(file: Path) -> None:
    for window in (
        {"num_recent_events": 5},
        {"after_sequence": 3},
        {"after": 2.0, "num_recent_events": 1},
    ):
        plans = await plans_of(file, lambda s, window=window: read(s, **window))
        assert len(plans) == 3
        for plan in plans:
            assert "SCAN pa" not in plan
        assert "TEMP B-TREE" not in plans[-1]


async def test_what_the_writer_says_goes_by_indexes(file: Path) -> None:
    """So an append costs the same however long the log is and however much state there is."""
    service = DatabaseSessionService(file)
    found: dict[str, str] = {}
    with closing(sqlite3.connect(file)) as connection:
        for field in attrs.fields(Statements):
            statement: Statement = getattr(service._store.statements, field.name)
            rows = connection.execute(
                f"EXPLAIN QUERY PLAN {statement.text}", [None] * len(statement.names)
            )
            found[field.name] = "\n".join(row[3] for row in rows)
    assert "advance" in found
    assert [name for name, plan in found.items() if "SCAN" in plan or "TEMP" in plan] == []
    for name in ("advance", "find", "delete", "bodies", "stale", "app_keys", "user_keys"):
        assert "SEARCH" in found[name]


async def plans_of(file: Path, call: Any) -> list[str]:
    """How SQLite goes about each query of a call."""
    asked: list[tuple[str, Any]] = []
    async with DatabaseSessionService(file) as service:
        if not await service.list(app_name="app"):
            await make(service)
        engine = service._store.engine

        def note(_c: Any, _cursor: Any, statement: str, values: Any, *_rest: Any) -> None:
            if statement.startswith("SELECT"):
                asked.append((statement, values))

        hooks.listen(engine, "before_cursor_execute", note)
        await call(service)
    with closing(sqlite3.connect(file)) as connection:
        return [
            "\n".join(
                row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)
            )
            for statement, values in asked
        ]


# ------------------------------------------------------------------------- clearing away, moving


async def test_old_sessions_are_deleted_a_few_at_a_time(file: Path) -> None:
    faults = Faults()
    async with DatabaseSessionService(
        file, durability="normal", clock=lambda: 1.0, fault_points=faults
    ) as service:
        async with trio.open_nursery() as nursery:
            for number in range(230):
                nursery.start_soon(make, service, SessionKey("app", "user", str(number)))
        faults.commits.clear()
        assert await service.delete_before(app_name="app", time=2.0) == 230
        assert len(faults.commits) == 3
        assert await service.list(app_name="app") == []


async def test_a_deleted_session_leaves_no_rows(file: Path) -> None:
    async with DatabaseSessionService(file) as service:
        await make(service, a=1)
        await add(service, new_event(b=1))
        await service.delete(app_name="app", user_id="user", session_id="session")
        with closing(sqlite3.connect(file)) as connection:
            for table in ("session", "event", "session_state"):
                rows = connection.execute(f"SELECT * FROM pa_{table}")  # noqa: S608  # ours
                assert rows.fetchall() == []


async def test_a_session_moves_between_the_memory_and_a_database(file: Path) -> None:
    memory = InMemorySessionService()
    await make(memory, a=1)
    await add(memory, *[new_event(str(n), n=n) for n in range(3)])
    lines = memory.export_session(app_name="app", user_id="user", session_id="session")
    async with DatabaseSessionService(file) as service:
        assert await service.import_session(lines) == KEY  # an async iterable will do
        assert as_values(await read(service)) == as_values(await read(memory))


async def test_an_export_reads_a_stretch_at_a_time(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("session.database.service._EVENTS_AT_ONCE", 10)
    names = {"app_name": "app", "user_id": "user", "session_id": "session"}
    async with DatabaseSessionService(file) as service:
        await make(service)
        await add(service, *[new_event(str(n)) for n in range(25)])
        lines = service.export_session(**names)
        first = [await anext(lines) for _ in range(3)]
        # What is added meanwhile does not belong to it; what is deleted ends it.
        await add(service, new_event("later"), after=25)
        rest = [line async for line in lines]
        assert len(first) + len(rest) == 1 + 25
        lines = service.export_session(**names)
        await anext(lines)
        await service.delete(**names)
        with pytest.raises(SessionNotFoundError):
            await anext(lines)
