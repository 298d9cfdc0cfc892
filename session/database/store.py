"""One database: connecting to it, what its SQL says, and what its errors mean.

What SQLite and PostgreSQL have in common is here. Everything in this package below the service
runs in threads and blocks; nothing here knows trio.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Literal, TypeAlias

from sqlalchemy import Connection, Engine, PoolProxiedConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from session.database.migrate import migrate
from session.database.rows import Rows
from session.database.schema import Schema
from session.database.statements import Statements
from session.service import StoreError, StoreUnavailableError

__all__ = ["Durability", "Store"]

Durability: TypeAlias = Literal["full", "normal"]


class Store(ABC):
    """A database with our tables. Usable from any thread.

    Attributes:
        label: what messages call it; holds no password.
        writers: how many threads may write to it side by side.
        begin: how a transaction that will write begins.
        rows: between its rows and values.
    """

    writers: int = 1
    begin: str = "BEGIN"

    def __init__(self, label: str, schema: Schema, engine: Engine, statements: Statements) -> None:
        """Opens nothing yet."""
        self.label: Final = label
        self.schema: Final = schema
        self.engine: Final = engine
        self.statements: Final = statements
        self.rows: Final = Rows(label)
        self._lock = threading.Lock()
        self._ready = False

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
        """Close the connections that nobody uses just now. The store can be used again."""
        self._ready = False
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """Open a block that sees one state of the database throughout. Raises `StoreError`."""
        self.prepare()
        with self.explained(), self.engine.connect() as connection:
            yield connection

    @abstractmethod
    def migrating(self) -> AbstractContextManager[Connection]:
        """Open a block, a context manager of a connection, that only one at a time is in.

        Leaving it commits; an error undoes everything that was done in it.
        """

    def open_writer(self) -> PoolProxiedConnection:
        """Return a connection of the driver's own, on which the writer begins and commits."""
        self.prepare()
        return self.engine.raw_connection()

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
