"""SQLite: one file, in WAL mode, made on first use.

Any number of processes may use the file at once, on one machine: readers never wait, and writers
wait for each other, for at most the busy timeout. Within a process one thread writes.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, create_engine, event, literal_column
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from session.database.schema import Schema
from session.database.store import Durability, Store
from session.errors import (
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
)

__all__ = ["SqliteStore"]

# An UPDATE that returns what it found.
_LEAST: Final = (3, 35)
_WAL_LIMIT: Final = 64 * 2**20
# It counts milliseconds; 2440587.5 is the beginning of 1970.
_NOW: Final[ColumnElement[float]] = literal_column("((julianday('now') - 2440587.5) * 86400.0)")
_MEMORY: Final = (None, "", ":memory:")
_PRIMARY: Final = 0xFF

_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
# What Python's module says of text that is none; that error has no code.
_NO_TEXT: Final = "Could not decode to UTF-8"
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)


class SqliteStore(Store):
    """A file."""

    begin = "BEGIN IMMEDIATE"

    def __init__(
        self, url: URL, schema: Schema, *, durability: Durability, pool: int, busy_timeout: float
    ) -> None:
        """Open nothing yet.

        Raises:
            ValueError: the URL names no file, or this Python's SQLite is too old.
        """
        if url.database in _MEMORY or url.query.get("mode") == "memory":
            message = (
                "a database in memory is no durable store, and every connection would have its "
                "own; use InMemorySessionService(), or name a file: sqlite:///sessions.db"
            )
            raise ValueError(message)
        if sqlite3.sqlite_version_info < _LEAST:
            message = (
                f"SQLite {'.'.join(map(str, _LEAST))} or newer is needed; this Python has "
                f"{sqlite3.sqlite_version}"
            )
            raise ValueError(message)
        self._is_plain = not url.query
        # Now, not at each connection: the process may go to another folder.
        if self._is_plain:
            url = url.set(database=str(Path(url.database or "").absolute()))
        self._path = url.database or ""
        self._durability = durability
        self._busy_timeout = busy_timeout
        engine = create_engine(
            url.set(drivername="sqlite+pysqlite"),
            poolclass=QueuePool,
            pool_size=pool + self.writers,
            max_overflow=0,
            pool_timeout=busy_timeout,
            connect_args={"timeout": busy_timeout, "check_same_thread": False},
            hide_parameters=True,
        )
        event.listen(engine, "connect", self._on_connect)
        event.listen(engine, "begin", _on_begin)
        super().__init__(f"sqlite:///{self._path}", schema, engine, insert, _NOW)

    def _on_connect(self, connection: sqlite3.Connection, _record: object) -> None:
        # The module's own way of beginning transactions comes too late for what must not change
        # between two queries, and leaves DDL outside.
        connection.isolation_level = None
        for pragma in (
            "foreign_keys = ON",
            f"synchronous = {self._durability}",
            # On macOS only this reaches the disk; elsewhere it means nothing.
            f"fullfsync = {'ON' if self._durability == 'full' else 'OFF'}",
            f"journal_size_limit = {_WAL_LIMIT}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @contextmanager
    def migrating(self) -> Generator[Connection]:
        """See `Store.migrating`."""
        with self.engine.connect() as connection:
            connection.execution_options(begin_with=self.begin)
            with connection.begin():
                yield connection

    def is_lost(self, error: Exception) -> bool:
        """See `Store.is_lost`. A file is not lost; what went wrong goes wrong again."""
        del error
        return False

    def _prepare(self) -> None:
        folder = Path(self._path).parent
        if self._is_plain and not folder.is_dir():
            message = f"{self.label}: the folder {folder} does not exist; make it first"
            raise StoreUnavailableError(message)
        connection = self.engine.raw_connection()
        try:
            self._use_wal(connection.cursor())
        finally:
            connection.close()

    def _use_wal(self, cursor: Any) -> None:
        """Turn WAL on, which the file remembers.

        That needs the file alone, and SQLite does not always wait for it: of two processes that
        open a new file, one is told at once that it is locked.
        """
        end = time.monotonic() + self._busy_timeout
        while True:
            try:
                mode = cursor.execute("PRAGMA journal_mode").fetchone()[0]
                if mode != "wal":
                    mode = cursor.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            except sqlite3.OperationalError as error:
                code = error.sqlite_errorcode & _PRIMARY
                if code == sqlite3.SQLITE_READONLY:
                    return  # for reading; the first write will say so
                if code not in _BUSY or time.monotonic() > end:
                    raise
                time.sleep(0.01)
            else:
                if mode != "wal":
                    message = (
                        f"{self.label}: the file cannot be used in WAL mode (it stays in "
                        f"{mode!r}): is it on a network file system? Put it on a local disk"
                    )
                    raise StoreError(message)
                return

    def _classify(self, error: BaseException) -> tuple[type[StoreError], str] | None:
        if isinstance(error, DBAPIError) or not isinstance(error, sqlite3.Error):
            return None
        code: int | None = getattr(error, "sqlite_errorcode", None)
        primary = None if code is None else code & _PRIMARY
        kind: type[StoreError] = StoreError
        why = f"SQLite says: {error}"
        if primary in _BUSY:
            kind = StoreUnavailableError
            why = f"somebody kept it locked for more than {self._busy_timeout:g} seconds ({error})"
        elif primary == sqlite3.SQLITE_FULL:
            kind = StoreFullError
            why = f"there is no room left ({error})"
        elif primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            kind = StoreReadOnlyError
            why = f"it cannot be written to ({error})"
        elif primary in _DAMAGED or (primary is None and _NO_TEXT in str(error)):
            kind = StoreCorruptError
            why = f"the file is damaged, or is no SQLite database ({error})"
        elif primary == sqlite3.SQLITE_CANTOPEN:
            kind = StoreUnavailableError
            why = f"the file cannot be opened ({error})"
        elif primary == sqlite3.SQLITE_IOERR:
            kind = StoreUnavailableError
            why = f"the disk failed ({error}, {getattr(error, 'sqlite_errorname', '?')})"
        elif primary == sqlite3.SQLITE_ERROR and "no such" in str(error):
            kind = StoreCorruptError
            why = f"its tables are not what they should be ({error})"
        return kind, why


def _on_begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin_with", "BEGIN"))
