"""What is PostgreSQL's own: writing side by side, losing the server, its errors."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial

import psycopg
import pytest
import trio
from sqlalchemy import create_engine, inspect, text

from session import (
    SessionKey,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from session.database import DatabaseSessionService, Durability
from session.database.postgres import _label
from session.database.schema import Schema
from session.database.transaction import Transaction
from session.database.url import parse_url
from session.database.work import Append
from tests.support.databases import KEY, Faults, add, make, new_event, read, texts
from tests.support.postgres import Postgres, find_programs, running_postgres

KEYS = [SessionKey("app", "user", f"s{number}") for number in range(5)]


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
async def service(postgres_url: str, faults: Faults) -> AsyncIterator[DatabaseSessionService]:
    async with DatabaseSessionService(postgres_url, fault_points=faults) as service:
        for key in (KEY, *KEYS):
            await make(service, key)
        faults.commits.clear()
        yield service


@pytest.fixture
def own_postgres(postgres: Postgres) -> Iterator[Postgres]:
    """A server that may be stopped: the others share theirs."""
    with running_postgres(postgres.programs) as server:
        yield server


def test_a_server_is_found_where_one_is_installed() -> None:
    programs = find_programs()
    assert programs is None or (programs / "postgres").exists()


async def test_appends_to_different_sessions_commit_side_by_side(postgres_url: str) -> None:
    """Two transactions are open at the same time, or this would never end."""
    together = threading.Barrier(2)

    def meet(place: str, _size: int) -> None:
        if place == "before commit" and armed:
            together.wait(30)

    armed = False
    async with DatabaseSessionService(postgres_url, fault_points=meet) as service:
        for key in KEYS[:2]:
            await make(service, key)
        # One for each thread: two that wait together would be one group.
        armed = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: add(service, new_event("a"), key=KEYS[0]))
            await trio.testing.wait_all_tasks_blocked()
            while service._writer._queue.qsize():
                await trio.lowlevel.checkpoint()
            nursery.start_soon(lambda: add(service, new_event("b"), key=KEYS[1]))
        armed = False


async def test_with_one_connection_waiting_appends_share_a_commit(
    postgres_url: str, faults: Faults
) -> None:
    async with DatabaseSessionService(postgres_url, pool_size=1, fault_points=faults) as service:
        for key in KEYS:
            await make(service, key)
        faults.commits.clear()
        async with trio.open_nursery() as nursery:
            with faults.held():
                nursery.start_soon(lambda: add(service, new_event(), key=KEYS[0]))
                await faults.arrival()
                for key in KEYS[1:]:
                    nursery.start_soon(partial(add, service, new_event(), key=key))
                await trio.testing.wait_all_tasks_blocked()
        assert faults.commits == [1, 4]


async def test_two_services_lock_shared_state_without_deadlocks(postgres_url: str) -> None:
    async def many(service: DatabaseSessionService, user: str) -> None:
        key = SessionKey("app", user, "s")
        await make(service, key)
        for number in range(10):
            delta = {f"app:{letter}": user for letter in ("abc" if number % 2 else "cba")}
            await add(service, new_event(delta=delta), key=key, after=number)

    async with (
        DatabaseSessionService(postgres_url) as one,
        DatabaseSessionService(postgres_url) as other,
        trio.open_nursery() as nursery,
    ):
        for number in range(6):
            nursery.start_soon(many, (one, other)[number % 2], f"u{number}")


@pytest.mark.parametrize(("durability", "level"), [("full", "on"), ("normal", "off")])
async def test_durability_is_what_a_commit_waits_for(
    postgres_url: str, postgres: Postgres, durability: Durability, level: str
) -> None:
    """Whatever the server's own setting; one that waits for more is left alone."""
    name = postgres_url.rpartition("/")[2]
    for setting, wanted in (("off", level), ("remote_apply", "remote_apply")):
        postgres.say(f"ALTER DATABASE {name} SET synchronous_commit = {setting}")
        service = DatabaseSessionService(postgres_url, durability=durability)
        with service._store.reading() as connection:
            found = connection.execute(text("SHOW synchronous_commit")).scalar_one()
        assert found == (wanted if durability == "full" else "off")
        await service.close()


# ------------------------------------------------------------------------------ losing the server


async def test_a_connection_that_was_cut_is_replaced(
    service: DatabaseSessionService, postgres: Postgres, postgres_url: str
) -> None:
    await add(service, new_event("a"))
    name = postgres_url.rpartition("/")[2]
    postgres.say(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "  # noqa: S608  # our own name
        f"WHERE datname = '{name}' AND pid <> pg_backend_pid()"
    )
    await add(service, new_event("b"), after=1)
    assert texts(await read(service)) == ["a", "b"]


async def test_a_commit_whose_answer_was_lost_is_found_to_be_done(
    service: DatabaseSessionService, faults: Faults
) -> None:
    faults.fail("after commit", psycopg.OperationalError("lost"))
    event = new_event("once", v=1)
    await add(service, event)
    session = await read(service)
    assert (texts(session), session.state, event.seq) == (["once"], {"v": 1}, 1)
    assert faults.commits == [1]


async def test_a_commit_that_was_on_its_way_is_found_in_the_end(
    service: DatabaseSessionService, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the writer looked it was not there yet, and then it is in its own way."""
    was_done, looked = Append.was_done, list[bool]()

    def too_early(work: Append, tx: Transaction) -> bool:
        looked.append(was_done(work, tx))
        return looked[-1] and len(looked) > 1

    monkeypatch.setattr(Append, "was_done", too_early)
    faults.fail("after commit", psycopg.OperationalError("lost"))
    event = new_event("once")
    await add(service, event)
    assert (texts(await read(service)), event.seq, looked) == (["once"], 1, [True, True])


async def test_a_commit_that_never_arrived_is_made_again(
    service: DatabaseSessionService, faults: Faults
) -> None:
    faults.fail("before commit", psycopg.OperationalError("lost"))
    await add(service, new_event("once"))
    assert texts(await read(service)) == ["once"]


async def test_a_server_that_is_restarted_is_found_again(own_postgres: Postgres) -> None:
    url = own_postgres.new_database()
    async with DatabaseSessionService(url) as service:
        await make(service)
        await add(service, new_event("before"))
        own_postgres.stop()
        event = new_event("after")
        for attempt in (add(service, event, after=1), read(service)):
            with pytest.raises(StoreUnavailableError):
                await attempt
        assert event.seq is None
        own_postgres.start()
        assert texts(await read(service)) == ["before"]
        await add(service, event, after=1)
        own_postgres.stop("immediate")
        own_postgres.start()
        await add(service, new_event("later"), after=2)
        assert texts(await read(service)) == ["before", "after", "later"]


async def test_a_server_that_is_not_there_is_an_error_without_the_password(
    postgres: Postgres,
) -> None:
    url = f"postgresql://u:secret@127.0.0.1:{postgres.port}/nowhere?password=secret"
    service = DatabaseSessionService(url)
    with pytest.raises(StoreUnavailableError, match="nowhere") as caught:
        await make(service)
    await service.close()
    assert "secret" not in f"{caught.value} {service!r}"
    assert _label(parse_url(url)) == f"postgresql://u@127.0.0.1:{postgres.port}/nowhere"


# ---------------------------------------------------------------------------------------- errors


async def test_a_database_that_is_for_reading_refuses_appends(
    service: DatabaseSessionService, postgres: Postgres, postgres_url: str
) -> None:
    await add(service, new_event("kept"))
    name = postgres_url.rpartition("/")[2]
    postgres.say(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    async with DatabaseSessionService(postgres_url) as reading:
        assert texts(await read(reading)) == ["kept"]
        with pytest.raises(StoreReadOnlyError):
            await add(reading, new_event(), after=1)


async def test_a_database_that_cannot_hold_every_text_is_refused(postgres: Postgres) -> None:
    postgres.say(
        "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' "
        "LOCALE_PROVIDER libc TEMPLATE template0"
    )
    service = DatabaseSessionService(postgres.url("latin"))
    with pytest.raises(StoreError, match="encoding is LATIN1"):
        await make(service)
    await service.close()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg.errors.DiskFull(), StoreFullError),
        (psycopg.errors.TooManyConnections(), StoreUnavailableError),
        (psycopg.errors.AdminShutdown(), StoreUnavailableError),
        (psycopg.errors.LockNotAvailable(), StoreUnavailableError),
        (psycopg.errors.ConnectionFailure(), StoreUnavailableError),
        (psycopg.errors.DataCorrupted(), StoreCorruptError),
        (psycopg.errors.UndefinedTable(), StoreCorruptError),
        (psycopg.errors.InsufficientPrivilege(), StoreReadOnlyError),
        (psycopg.OperationalError("no route"), StoreUnavailableError),
        (psycopg.errors.StringDataRightTruncation(), StoreError),
    ],
)
def test_an_error_of_the_servers_has_its_class(error: Exception, kind: type[StoreError]) -> None:
    found = DatabaseSessionService("postgresql://host/db")._store.explain(error)
    assert type(found) is kind
    assert str(found).startswith("postgresql://host/db: ")


async def test_the_migrations_make_the_tables_that_the_code_uses(
    postgres_url: str, postgres: Postgres
) -> None:
    direct = postgres.new_database()
    found = []
    for url in (postgres_url, direct):
        engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        if url == direct:
            Schema.of("pa_").metadata.create_all(engine)
        seen = inspect(engine)
        found.append(
            {
                name: (
                    [{**column, "type": repr(column["type"])} for column in seen.get_columns(name)],
                    seen.get_pk_constraint(name)["constrained_columns"],
                    seen.get_unique_constraints(name),
                    seen.get_foreign_keys(name),
                    seen.get_indexes(name),
                )
                for name in sorted(seen.get_table_names())
                if not name.endswith("alembic_version")
            }
        )
        engine.dispose()
    assert found[0] == found[1]
