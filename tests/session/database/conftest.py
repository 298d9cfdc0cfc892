"""An empty database for each test, without making its tables anew each time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from session.database import DatabaseSessionService
from tests.support.databases import quick_folder
from tests.support.postgres import REQUIRED, Postgres, find_programs, running_postgres


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "empty.db"

    async def make_tables() -> None:
        async with DatabaseSessionService(file):
            pass

    trio.run(make_tables)
    return file


@pytest.fixture
def file(_template: Path) -> Iterator[Path]:
    """An SQLite file with empty tables, alone in its folder."""
    folder = Path(quick_folder())
    shutil.copy(_template, folder / "sessions.db")
    yield folder / "sessions.db"
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server. Its database ``empty`` has empty tables."""
    programs = find_programs()
    if programs is None:
        why = "PostgreSQL is not installed (Debian: apt-get install postgresql)"
        assert os.environ.get(REQUIRED) != "1", why
        pytest.skip(why)
    with running_postgres(programs) as server:
        server.say("CREATE DATABASE empty TEMPLATE template0")

        async def make_tables() -> None:
            async with DatabaseSessionService(server.url("empty")):
                pass

        trio.run(make_tables)
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """A database with empty tables."""
    return postgres.new_database("empty")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """A database with empty tables, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{request.getfixturevalue('file')}"
    made: str = request.getfixturevalue("postgres_url")
    return made
