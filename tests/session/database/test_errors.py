"""The outside breaks: a clear typed error each time, and it works again when that is mended."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event as hooks

from session import (
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from session.database import DatabaseSessionService
from tests.support.databases import add, make, new_event, read, texts


@contextmanager
def opened(file: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        yield connection


def run(script: str, *arguments: str) -> str:
    """Run a script in a Python of its own; return what it prints."""
    done = subprocess.run(  # noqa: S603  # this very Python
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert not done.stderr, done.stderr
    return done.stdout


def spoil(file: Path) -> None:
    """Write nonsense over the second half of a file: the first pages hold the small tables."""
    data = bytearray(file.read_bytes())
    half = len(data) // 2
    data[half:] = bytes(range(1, 256)) * (half // 255 + 2)
    file.write_bytes(data)


# -------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "is empty; give sqlite:///file.db"),
        ("sqlite://", "in memory is no durable store.*InMemorySessionService"),
        ("sqlite:///:memory:", "in memory"),
        (":memory:", "in memory"),
        ("sqlite:///file:x?mode=memory&uri=true", "in memory"),
        ("mysql://u:secret@host/db", "no session store for 'mysql'"),
        ("sqlite+aiosqlite:///x.db", "used through pysqlite, not aiosqlite"),
        ("://secret", "no URL of a database"),
        ("sqlite://u:secret@host:port/db", "no URL of a database"),
    ],
)
def test_a_url_that_names_no_database_of_ours_is_refused(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        DatabaseSessionService(url)
    assert "secret" not in str(caught.value)


def test_bytes_are_no_path() -> None:
    with pytest.raises(TypeError, match="not by bytes"):
        DatabaseSessionService(b"sessions.db")  # type: ignore[arg-type]  # what is tested


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"table_prefix": "x; DROP"}, "table_prefix is at most"),
        ({"table_prefix": "9"}, "table_prefix"),
        ({"table_prefix": "a" * 32}, "table_prefix"),
        ({"durability": "off"}, "durability is 'full' or 'normal'"),
        ({"pool_size": 0}, "pool_size is a whole number from 1"),
        ({"busy_timeout": -1}, "busy_timeout is seconds"),
        ({"busy_timeout": float("nan")}, "busy_timeout is seconds"),
    ],
)
def test_an_option_out_of_its_range_is_refused(options: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        DatabaseSessionService("x.db", **options)  # type: ignore[arg-type]  # what is tested


def test_nothing_is_made_before_the_first_use(tmp_path: Path) -> None:
    service = DatabaseSessionService(tmp_path / "later.db")
    assert repr(service) == f"DatabaseSessionService('sqlite:///{tmp_path / 'later.db'}')"
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------- what goes wrong


async def test_a_folder_that_is_missing_is_named_and_may_come_later(tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    service = DatabaseSessionService(folder / "sessions.db")
    for attempt in (make(service), service.list(app_name="app")):
        with pytest.raises(StoreUnavailableError, match=f"the folder {folder} does not exist"):
            await attempt
    folder.mkdir()
    await make(service)
    await service.close()


async def test_a_folder_in_the_files_place_cannot_be_opened(tmp_path: Path) -> None:
    service = DatabaseSessionService(tmp_path)
    with pytest.raises(StoreUnavailableError, match="cannot be opened"):
        await make(service)
    await service.close()


async def test_a_file_that_is_no_database_is_refused_and_not_touched(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("these are my notes\n" * 100)
    service = DatabaseSessionService(file)
    with pytest.raises(StoreCorruptError, match="is no SQLite database") as caught:
        await make(service)
    assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)
    await service.close()
    assert file.read_text() == "these are my notes\n" * 100


async def test_a_damaged_page_is_an_error_of_the_sessions_it_holds(file: Path) -> None:
    async with DatabaseSessionService(file) as service:
        await make(service)
        await add(service, *[new_event("x" * 500) for _ in range(200)])
    spoil(file)
    service = DatabaseSessionService(file)
    with pytest.raises(StoreCorruptError, match="damaged"):
        await read(service)
    await service.close()


async def test_text_that_is_no_text_is_damage(file: Path) -> None:
    async with DatabaseSessionService(file) as service:
        await make(service)
        await add(service, new_event())
        with opened(file) as connection:
            connection.execute("UPDATE pa_event SET body = CAST(x'ff' AS TEXT)")
        with pytest.raises(StoreCorruptError, match="damaged"):
            await read(service)


async def test_an_event_that_somebody_changed_is_named(file: Path) -> None:
    async with DatabaseSessionService(file) as service:
        await make(service)
        await add(service, new_event(), new_event())
        with opened(file) as connection:
            connection.execute("""UPDATE pa_event SET body = '{"id": 1}' WHERE seq = 2""")
        with pytest.raises(
            StoreCorruptError, match=r"session app/user/session: event 2 .*id: text"
        ):
            await read(service)
        # What is not asked for is not looked at.
        assert len((await read(service, num_recent_events=0)).events) == 0


async def test_tables_that_were_dropped_are_an_error(file: Path) -> None:
    async with DatabaseSessionService(file) as service:
        await make(service)
        with opened(file) as connection:
            connection.execute("DROP TABLE pa_event")
        with pytest.raises(StoreCorruptError, match=r"its tables are not what.*pa_event"):
            await add(service, new_event())
        with pytest.raises(StoreCorruptError, match="pa_event"):
            await read(service)


async def test_a_file_opened_for_reading_can_be_read_and_not_written(file: Path) -> None:
    async with DatabaseSessionService(file) as service:
        await make(service)
        await add(service, new_event("kept"))
    async with DatabaseSessionService(f"sqlite:///file:{file}?mode=ro&uri=true") as service:
        assert texts(await read(service)) == ["kept"]
        event = new_event()
        with pytest.raises(StoreReadOnlyError, match="cannot be written to"):
            await add(service, event, after=1)
        assert event.seq is None


async def test_a_full_disk_is_an_error_and_no_longer_one_when_there_is_room(file: Path) -> None:
    room = {"pages": 60}

    def limit_size(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {room['pages']}")

    service = DatabaseSessionService(file, durability="normal")
    hooks.listen(service._store.engine, "connect", limit_size)
    async with service:
        await make(service)
        await add(service, new_event("fits"))
        large = new_event("x" * 400_000, v=1)
        # After an error the writer connects anew, and so sees that there is room.
        room["pages"] = 10_000
        with pytest.raises(StoreFullError, match="no room left"):
            await add(service, large, after=1)
        before = await read(service)
        assert (large.seq, texts(before), before.state) == (None, ["fits"], {})
        await add(service, large, after=1)
        assert (await read(service)).state == {"v": 1}


async def test_a_file_that_may_not_grow_is_an_error_and_what_was_recorded_stays(
    file: Path,
) -> None:
    """Another way to run out of room: the system's limit on the size of files."""
    script = """
import resource, signal, sys, trio
from session import StoreError
from session.database import DatabaseSessionService
from tests.support.databases import add, make, new_event

async def main():
    service = DatabaseSessionService(sys.argv[1])
    await make(service)
    size = 200_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for number in range(1000):
        try:
            await add(service, new_event("x" * 1000), after=number)
        except StoreError as error:
            print(number, type(error).__name__)
            break

trio.run(main)
"""
    number, kind = run(script, str(file)).split()
    assert kind in ("StoreUnavailableError", "StoreFullError")
    async with DatabaseSessionService(file) as service:
        assert (await read(service)).last_seq == int(number) > 0


async def test_a_lock_that_is_never_released_is_an_error_in_the_end(file: Path) -> None:
    async with DatabaseSessionService(file, busy_timeout=0.05) as service:
        await make(service)
        event = new_event()
        with opened(file) as connection:
            connection.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailableError, match=r"locked for more than 0\.05 seconds"):
                await add(service, event)
            assert (await read(service)).last_seq == 0  # readers do not wait for writers
            connection.execute("ROLLBACK")
        await add(service, event)
        assert event.seq == 1


def test_every_error_of_the_store_is_a_session_error_of_its_own() -> None:
    for kind in (StoreUnavailableError, StoreFullError, StoreReadOnlyError, StoreCorruptError):
        assert issubclass(kind, StoreError)


def test_without_sqlalchemy_the_error_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['sqlalchemy'] = None\n"
        "import session\n"
        "try:\n    import session.database\n"
        "except ImportError as error:\n    print(error)\n"
    )
    printed = run(script)
    assert "pip install 'parallel-agent[sql]'" in printed


def test_sessions_need_no_database_library() -> None:
    script = "import sys, parallel_agent; print('sqlalchemy' in sys.modules)"
    printed = run(script)
    assert printed.strip() == "False"
