"""One database: connecting to it, what its SQL says, and what its errors mean.

What SQLite and PostgreSQL have in common is here. Everything in this package below the service
runs in threads and blocks; nothing here knows trio.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, Literal, Protocol, TypeAlias

from sqlalchemy import ColumnElement, Connection, Engine, PoolProxiedConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from session.database.migrate import migrate
from session.database.rows import Rows
from session.database.schema import Schema
from session.database.statements import Statements
from session.errors import StoreError, StoreUnavailableError

__all__ = ["Durability", "Ear", "Store"]

Durability: TypeAlias = Literal["full", "normal"]


class Ear(Protocol):
    """A connection that hears what is announced."""

    def fileno(self) -> int:
        """Return the socket that can be read when there is something to hear."""
        ...

    def hear(self) -> Iterable[int]:
        """Return the sessions that were announced, without waiting."""
        ...


class Store(ABC):
    """A database with our tables. Usable from any thread.

    Attributes:
        label: what messages call it; holds no password.
        writers: how many threads may write to it side by side.
        begin: how a transaction that will write begins.
        now: its own clock, in SQL: seconds since the epoch.
        rows: between its rows and values.
        announces: whether `announce` and `open_ear` work.
        poll_seconds: how often who waits for something new should look.
    """

    writers: int = 1
    begin: str = "BEGIN"
    announces: bool = False
    poll_seconds: float = 0.5

    def __init__(
        self, label: str, schema: Schema, engine: Engine, insert: Any, now: ColumnElement[float]
    ) -> None:
        """Opens nothing yet. ``insert`` and ``now``: see `Statements.of`."""
        self.label: Final = label
        self.schema: Final = schema
        self.engine: Final = engine
        self.now: Final = now
        self.statements: Final = Statements.of(schema, engine, insert, now)
        self.rows: Final = Rows(label)
        self._lock = threading.Lock()
        self._ready = False
        self._closed = False

    def prepare(self) -> None:
        """Make the database, bring its tables up to date; once, whoever comes first.

        Raises:
            StoreError: that cannot be done. The next call tries again.
        """
        if self._ready:
            return
        with self._lock:
            if self._ready:
                return
            with self.explained():
                self._prepare()
                migrate(self)
            self._ready = True

    def close(self) -> None:
        """Close the connections, those that are being read from when that is done.

        The store can be used again; it keeps no connection open then.
        """
        self._ready = False
        self._closed = True
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """Open a block that sees one state of the database throughout. Raises `StoreError`."""
        try:
            self.prepare()
            with self.explained(), self.engine.connect() as connection:
                yield connection
                if self._closed:
                    # An abandoned read, perhaps: its pool takes nothing back any more.
                    connection.invalidate()
        finally:
            if self._closed:
                self.engine.dispose()

    @abstractmethod
    def migrating(self) -> AbstractContextManager[Connection]:
        """Open a block, a context manager of a connection, that only one at a time is in.

        Leaving it commits; an error undoes everything that was done in it.
        """

    def open_writer(self) -> PoolProxiedConnection:
        """Return a connection of the driver's own, on which the writer begins and commits."""
        self.prepare()
        return self.engine.raw_connection()

    def announce(self, cursor: Any, sessions: Sequence[int]) -> None:
        """Tell every process that listens that these sessions have changed.

        On a writer's connection, outside a transaction.
        """
        raise NotImplementedError

    def open_ear(self) -> AbstractContextManager[Ear]:
        """Open a block that hears what is announced from now on. A connection of its own."""
        raise NotImplementedError

    @contextmanager
    def explained(self) -> Generator[None]:
        """Turn what the database raises in this block into a `StoreError`."""
        try:
            yield
        except Exception as error:
            explained = self.explain(error)
            if explained is None or explained is error:
                raise
            raise explained from _own(error)

    def explain(self, error: Exception) -> StoreError | None:
        """Return what the user should hear of an error; None if the database did not raise it."""
        if isinstance(error, StoreError):
            return error
        if isinstance(error, PoolTimeoutError):
            return StoreUnavailableError(f"{self.label}: no connection became free in time")
        found = self._classify(_own(error))
        if found is None:
            return None
        kind, why = found
        return kind(f"{self.label}: {why}")

    @abstractmethod
    def is_lost(self, error: Exception) -> bool:
        """Whether a new connection may do what failed with ``error``."""

    @abstractmethod
    def _prepare(self) -> None:
        """Do what comes before the migrations."""

    @abstractmethod
    def _classify(self, error: BaseException) -> tuple[type[StoreError], str] | None:
        """Return the class of a driver's error, and what to say; None if it is no such error."""


def _own(error: Exception) -> BaseException:
    """The driver's own error, which SQLAlchemy wraps."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig
    return error
