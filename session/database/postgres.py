"""PostgreSQL, through psycopg: for many processes, on many machines.

Changes of different sessions go side by side, in a few threads of each service. They lock rows in
the order of their names, so no two ever wait for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, Final
from zlib import crc32

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Identifier
from sqlalchemy import (
    ColumnElement,
    Connection,
    PoolProxiedConnection,
    create_engine,
    event,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import URL

from session.database.schema import Schema
from session.database.store import Durability, Store
from session.errors import (
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
)

__all__ = ["PostgresStore"]

_WRITERS: Final = 4

# Not now(), which stands still while a transaction waits for a row.
_NOW: Final[ColumnElement[float]] = literal_column(
    "CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)"
)

# "off" is all that a loss of power can undo; a server may ask for more than "on".
_FULL: Final = (
    "SELECT set_config('synchronous_commit', 'on', false) "
    "WHERE current_setting('synchronous_commit') = 'off'"
)
_NORMAL: Final = "SELECT set_config('synchronous_commit', 'off', false)"

# It writes nothing that a loss of power could undo, so it need not wait for the disk.
_ANNOUNCE: Final = (
    "SELECT set_config('synchronous_commit', 'off', true), count(pg_notify(%s, number::text)) "
    "FROM unnest(%s::bigint[]) AS number"
)
_CHANNEL: Final = "parallel_agent"
# To a server that does not answer, the next attempt is made soon enough.
_EAR: Final[dict[str, Any]] = {"connect_timeout": 4, "autocommit": True}

# The first two letters of an SQLSTATE are its class.
_KINDS: Final[dict[str, tuple[type[StoreError], str]]] = {
    "08": (StoreUnavailableError, "the connection was lost"),
    "28": (StoreUnavailableError, "it does not let us in"),
    "3D": (StoreUnavailableError, "there is no such database"),
    "40": (StoreUnavailableError, "others were in the way, again and again"),
    "53": (StoreUnavailableError, "the server has run out of something"),
    "53100": (StoreFullError, "there is no room left on the server's disk"),
    "55": (StoreUnavailableError, "somebody keeps it locked"),
    "57": (StoreUnavailableError, "the server is going down or coming up, or ended our query"),
    "58": (StoreUnavailableError, "the server's disk failed"),
    "25006": (StoreReadOnlyError, "it cannot be written to"),
    "42501": (StoreReadOnlyError, "this user may not do that"),
    "42P01": (StoreCorruptError, "its tables are not what they should be"),
    "42703": (StoreCorruptError, "its tables are not what they should be"),
    "XX": (StoreCorruptError, "the server has found damage"),
}


class PostgresStore(Store):
    """A database of a server's."""

    announces = True
    poll_seconds = 5.0  # for what was announced while nobody heard it

    def __init__(
        self, url: URL, schema: Schema, *, durability: Durability, pool: int, busy_timeout: float
    ) -> None:
        """Open nothing yet."""
        self.writers = min(_WRITERS, pool)
        given = url.query.get("options", "")
        milliseconds = int(busy_timeout * 1000)
        url = url.set(drivername="postgresql+psycopg")
        how = {
            "options": f"-c lock_timeout={milliseconds} {given}",
            "connect_timeout": max(2, int(busy_timeout)),
            # A server whose machine is gone does not answer at all.
            "tcp_user_timeout": milliseconds,
        }
        engine = create_engine(
            url,
            paramstyle="format",
            pool_size=pool + self.writers,
            max_overflow=0,
            pool_timeout=busy_timeout,
            # A server that was restarted has closed what lies in the pool.
            pool_pre_ping=True,
            connect_args=how,
            hide_parameters=True,
        )
        self._commit = _FULL if durability == "full" else _NORMAL
        event.listen(engine, "connect", self._on_connect)
        # As the engine does it: the pool's connections are for short use.
        self._address, given_too = engine.dialect.create_connect_args(url)
        self._how: dict[str, Any] = {**given_too, **how, **_EAR}
        self._channel = f"{schema.prefix}{_CHANNEL}"
        super().__init__(_label(url), schema, engine, insert, _NOW)

    def _on_connect(self, connection: Any, _record: object) -> None:
        connection.execute(self._commit)
        connection.commit()

    @contextmanager
    def migrating(self) -> Generator[Connection]:
        """See `Store.migrating`."""
        with self.engine.connect() as connection, connection.begin():
            number = crc32(f"parallel-agent {self.schema.prefix}".encode())
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})
            yield connection

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """See `Store.reading`."""
        with super().reading() as connection:
            # Otherwise each query would see what was committed before it.
            yield connection.execution_options(isolation_level="REPEATABLE READ")

    def open_writer(self) -> PoolProxiedConnection:
        """See `Store.open_writer`."""
        connection = super().open_writer()
        driver: Any = connection.driver_connection
        driver.autocommit = True  # the writer says BEGIN and COMMIT itself
        return connection

    def announce(self, cursor: Any, sessions: Sequence[int]) -> None:
        """See `Store.announce`."""
        cursor.execute(_ANNOUNCE, (self._channel, [*sessions]))

    @contextmanager
    def open_ear(self) -> Generator[_Ear]:
        """See `Store.open_ear`."""
        with psycopg.connect(*self._address, **self._how) as connection:
            connection.execute(SQL("LISTEN {}").format(Identifier(self._channel)))
            yield _Ear(connection)

    def is_lost(self, error: Exception) -> bool:
        """See `Store.is_lost`."""
        if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return False
        state = error.sqlstate
        # Without a state it is the driver that speaks: there is no server to say anything.
        return state is None or state[:2] in ("08", "40") or isinstance(error, _GOING_DOWN)

    def _prepare(self) -> None:
        with self.engine.connect() as connection:
            encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
            if encoding != "UTF8":
                message = (
                    f"{self.label}: the database's encoding is {encoding}, which cannot hold every "
                    "text; make one with ENCODING 'UTF8'"
                )
                raise StoreError(message)

    def _classify(self, error: BaseException) -> tuple[type[StoreError], str] | None:
        if not isinstance(error, psycopg.Error):
            return None
        said = " ".join(str(error).split())
        state = error.sqlstate
        if state is None:
            return StoreUnavailableError, f"it cannot be reached ({said})"
        kind, why = _KINDS.get(state) or _KINDS.get(state[:2]) or (StoreError, "it refuses")
        return kind, f"{why} ({said}, {state})"


class _Ear:
    """See `Ear`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def fileno(self) -> int:
        return self._connection.fileno()

    def hear(self) -> Iterable[int]:
        # Whatever else may be said on the channel is not ours.
        said = [notice.payload for notice in self._connection.notifies(timeout=0)]
        return {int(number) for number in said if number.isdecimal()}


_GOING_DOWN: Final = (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow)


def _label(url: URL) -> str:
    # Without the query, too: there may be a password in it.
    user = f"{url.username}@" if url.username else ""
    port = f":{url.port}" if url.port else ""
    return f"postgresql://{user}{url.host or ''}{port}/{url.database or ''}"
