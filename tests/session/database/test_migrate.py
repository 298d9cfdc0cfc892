"""The tables are made and brought up to date, and what is not ours is left alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trio
from alembic import command
from sqlalchemy import create_engine, inspect

from session import SchemaVersionError, StoreCorruptError
from session.database import DatabaseSessionService
from session.database.migrate import head
from session.database.schema import VERSION, Schema
from tests.support.databases import add, make, new_event, read


@contextmanager
def opened(file: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        yield connection


def tables(file: Path) -> set[str]:
    with opened(file) as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {name for (name,) in rows if not name.startswith("sqlite_")}


def described(file: Path) -> dict[str, object]:
    """All that an inspector sees."""
    engine = create_engine(f"sqlite:///{file}")
    seen = inspect(engine)
    found: dict[str, object] = {
        name: (
            [{**column, "type": str(column["type"])} for column in seen.get_columns(name)],
            seen.get_pk_constraint(name)["constrained_columns"],
            seen.get_unique_constraints(name),
            seen.get_foreign_keys(name),
            [
                {**index, "dialect_options": [*map(str, index["dialect_options"].values())]}
                for index in seen.get_indexes(name)
            ],
            seen.get_table_options(name),
        )
        for name in sorted(tables(file))
        if not name.endswith("alembic_version")
    }
    engine.dispose()
    return found


def test_the_newest_migration_is_the_version_of_the_code() -> None:
    assert head() == VERSION


async def test_the_migrations_make_the_tables_that_the_code_uses(
    file: Path, tmp_path: Path
) -> None:
    direct = tmp_path / "direct.db"
    engine = create_engine(f"sqlite:///{direct}")
    Schema.of("pa_").metadata.create_all(engine)
    engine.dispose()
    assert described(file) == described(direct)


async def test_a_hosts_own_tables_and_versions_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "host.db"
    with opened(file) as connection:
        connection.executescript(
            "CREATE TABLE session (mine TEXT); INSERT INTO session VALUES ('kept');"
            "CREATE TABLE alembic_version (version_num TEXT);"
            "INSERT INTO alembic_version VALUES ('host-7');"
        )
    async with DatabaseSessionService(file) as service:
        await make(service)
    with opened(file) as connection:
        assert connection.execute("SELECT * FROM session").fetchall() == [("kept",)]
        assert connection.execute("SELECT * FROM alembic_version").fetchall() == [("host-7",)]
        versions = connection.execute("SELECT * FROM pa_alembic_version").fetchall()
    assert versions == [(VERSION,)]


async def test_two_prefixes_are_two_stores_in_one_file(file: Path) -> None:
    async with (
        DatabaseSessionService(file) as one,
        DatabaseSessionService(file, table_prefix="") as other,
    ):
        await make(one, a=1)
        await make(other, a=2)
        assert ((await read(one)).state, (await read(other)).state) == ({"a": 1}, {"a": 2})
    assert {"pa_session", "session", "alembic_version"} <= tables(file)


async def test_a_schema_newer_than_the_code_is_refused_and_not_touched(file: Path) -> None:
    with opened(file) as connection:
        connection.execute("UPDATE pa_alembic_version SET version_num = '9999'")
    service = DatabaseSessionService(file)
    with pytest.raises(SchemaVersionError, match=r"version 9999.*up to 0001.*Upgrade parallel"):
        await make(service)
    await service.close()
    with opened(file) as connection:
        assert connection.execute("SELECT * FROM pa_alembic_version").fetchall() == [("9999",)]


async def test_tables_of_our_names_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with opened(file) as connection:
        connection.execute("CREATE TABLE pa_event (mine TEXT)")
    with pytest.raises(StoreCorruptError, match=r"named pa_event that are not ours.*table_prefix"):
        async with DatabaseSessionService(file):
            pass
    assert tables(file) == {"pa_event"}


async def test_an_existing_database_is_opened_as_it_is(file: Path) -> None:
    async with DatabaseSessionService(file) as service:
        await make(service)
        await add(service, new_event("kept"))
    async with DatabaseSessionService(file) as service:
        assert (await read(service)).last_seq == 1


async def test_services_that_open_a_new_file_at_once_all_get_their_tables(tmp_path: Path) -> None:
    file = tmp_path / "new.db"
    services = [DatabaseSessionService(file, durability="normal") for _ in range(6)]
    async with trio.open_nursery() as nursery:
        for service in services:
            nursery.start_soon(service.__aenter__)
    for service in services:
        assert await service.list(app_name="app") == []
        await service.close()


async def test_a_migration_that_fails_leaves_nothing_and_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "new.db"
    service = DatabaseSessionService(file)

    def interrupted(_config: object, _to: str) -> None:
        original(_config, _to)  # type: ignore[arg-type]  # passed on
        raise sqlite3.OperationalError("interrupted")

    original = command.upgrade
    with monkeypatch.context() as patched:
        patched.setattr(command, "upgrade", interrupted)
        with pytest.raises(Exception, match="interrupted"):
            await make(service)
    assert tables(file) == set()
    await make(service)
    await service.close()
    assert "pa_event" in tables(file)
