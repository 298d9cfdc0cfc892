"""What Alembic runs for every migration: it gets the connection and the prefix from its caller."""

from __future__ import annotations

from typing import Any

from alembic import context

attributes: dict[str, Any] = context.config.attributes
prefix: str = attributes["prefix"]

context.configure(
    connection=attributes["connection"],
    version_table=attributes["version_table"],
    # All of it or nothing, on SQLite too: the caller has begun the transaction, and ends it.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations(prefix=prefix)
