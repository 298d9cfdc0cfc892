"""The first tables: sessions, events, and state key by key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Written out, and not taken from `schema`, which goes on changing.


def upgrade(prefix: str) -> None:
    """Make the tables."""
    big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        f"{prefix}session",
        sa.Column("id", big, primary_key=True, autoincrement=True),
        sa.Column("app_name", key, nullable=False),
        sa.Column("user_id", key, nullable=False),
        sa.Column("session_id", key, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("last_update_time", sa.Double, nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_token", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("lease_expires", sa.Double),
        sa.Column("lease_stop", sa.Text),
        sa.Column("run_id", sa.Text),
        sa.Column("run_status", sa.Text),
        sa.UniqueConstraint("app_name", "user_id", "session_id", name=f"{prefix}session_name"),
        sqlite_autoincrement=True,
    )
    unfinished = sa.text("run_status IS NOT NULL")
    op.create_index(
        f"{prefix}session_unfinished",
        f"{prefix}session",
        ["app_name", "user_id", "session_id"],
        sqlite_where=unfinished,
        postgresql_where=unfinished,
    )
    op.create_table(
        f"{prefix}event",
        _of_session(prefix, f"{prefix}event_of"),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("timestamp", sa.Double, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        f"{prefix}session_state",
        _of_session(prefix, f"{prefix}state_of"),
        sa.Column("key", key, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        f"{prefix}user_state",
        sa.Column("app_name", key, primary_key=True),
        sa.Column("user_id", key, primary_key=True),
        sa.Column("key", key, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        f"{prefix}app_state",
        sa.Column("app_name", key, primary_key=True),
        sa.Column("key", key, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )


def _of_session(prefix: str, name: str) -> sa.Column[int]:
    return sa.Column(
        "session",
        sa.BigInteger,
        sa.ForeignKey(f"{prefix}session.id", ondelete="CASCADE", name=name),
        primary_key=True,
        autoincrement=False,
    )
