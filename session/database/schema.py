"""The tables, for a prefix: so that they can live in a database that holds others as well.

``session``: one row each, with the end of its log, whose it is just now (the lease), and the run
that has not finished.
``event``: the log; a row is never changed, and lies with the others of its session, in order.
``session_state``, ``user_state``, ``app_state``: one row for each key, so that a write costs what
changed and not what is there.

The migrations make these tables; a test holds the two together.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import attrs
from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = ["VERSION", "Schema", "check_prefix", "text_key"]

VERSION: Final = "0001"
"""The newest migration. A database that says so needs none."""

text_key: Final = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that is compared by code points: on PostgreSQL the database may have another order."""

# What fits: an autoincremented key must be spelled INTEGER in SQLite, where that has 64 bits.
_big: Final = BigInteger().with_variant(Integer(), "sqlite")

_PREFIX: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,30}|")


def check_prefix(prefix: str) -> str:
    """Return ``prefix``, if names of tables may begin so.

    Raises:
        ValueError: it is no plain word of at most 31 ASCII letters, digits and underscores.
    """
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        message = (
            "table_prefix is at most 31 ASCII letters, digits and underscores, and begins with "
            f"no digit; not {prefix!r:.80}"
        )
        raise ValueError(message)
    return prefix


@attrs.frozen
class Schema:
    """The tables of one prefix."""

    prefix: str
    metadata: MetaData
    session: Table
    event: Table
    session_state: Table
    user_state: Table
    app_state: Table

    @property
    def version_table(self) -> str:
        """Where Alembic notes how far the migrations have got; the host has one of its own."""
        return f"{self.prefix}alembic_version"

    @classmethod
    @lru_cache(maxsize=16)
    def of(cls, prefix: str) -> Schema:
        """Return the tables of ``prefix``, as Python objects: the same ones each time."""
        metadata = MetaData()
        session = Table(
            f"{prefix}session",
            metadata,
            Column("id", _big, primary_key=True, autoincrement=True),
            Column("app_name", text_key, nullable=False),
            Column("user_id", text_key, nullable=False),
            Column("session_id", text_key, nullable=False),
            Column("created_at", Double, nullable=False),
            Column("last_update_time", Double, nullable=False),
            Column("last_seq", BigInteger, nullable=False),
            # Whose it is; null: nobody's. The token outlives the lease; 0: there was none yet.
            Column("lease_owner", Text),
            Column("lease_token", BigInteger, nullable=False, server_default="0"),
            Column("lease_expires", Double),
            Column("lease_stop", Text),
            # The run that holds the lease, or one that is remembered. Only of one that is to be
            # remembered there is a status.
            Column("run_id", Text),
            Column("run_status", Text),
            UniqueConstraint("app_name", "user_id", "session_id", name=f"{prefix}session_name"),
            # No index on last_update_time: every append would have to move an entry in it, and
            # only `delete_before` would look there.
            # An id is never used again, so a row left behind could never pass for another's.
            sqlite_autoincrement=True,
        )
        # Most sessions are not in it.
        unfinished = session.c.run_status.is_not(None)
        Index(
            f"{prefix}session_unfinished",
            session.c.app_name,
            session.c.user_id,
            session.c.session_id,
            sqlite_where=unfinished,
            postgresql_where=unfinished,
        )
        event = Table(
            f"{prefix}event",
            metadata,
            Column(
                "session",
                BigInteger,
                ForeignKey(f"{prefix}session.id", ondelete="CASCADE", name=f"{prefix}event_of"),
                primary_key=True,
                autoincrement=False,
            ),
            Column("seq", BigInteger, primary_key=True, autoincrement=False),
            Column("timestamp", Double, nullable=False),
            Column("body", Text, nullable=False),
            sqlite_with_rowid=False,
        )
        session_state = Table(
            f"{prefix}session_state",
            metadata,
            Column(
                "session",
                BigInteger,
                ForeignKey(f"{prefix}session.id", ondelete="CASCADE", name=f"{prefix}state_of"),
                primary_key=True,
                autoincrement=False,
            ),
            Column("key", text_key, primary_key=True),
            Column("value", Text, nullable=False),
            sqlite_with_rowid=False,
        )
        user_state = Table(
            f"{prefix}user_state",
            metadata,
            Column("app_name", text_key, primary_key=True),
            Column("user_id", text_key, primary_key=True),
            Column("key", text_key, primary_key=True),
            Column("value", Text, nullable=False),
            sqlite_with_rowid=False,
        )
        app_state = Table(
            f"{prefix}app_state",
            metadata,
            Column("app_name", text_key, primary_key=True),
            Column("key", text_key, primary_key=True),
            Column("value", Text, nullable=False),
            sqlite_with_rowid=False,
        )
        return cls(prefix, metadata, session, event, session_state, user_state, app_state)
