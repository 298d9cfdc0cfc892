"""Bringing the tables up to date, in place, from every version that was released.

All steps are one transaction, behind a lock that processes share: of eight that open a new file
at once, one makes the tables and seven find them there. A host's own tables, and its own Alembic
version table, are left alone.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Protocol

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, column, inspect, select, table

from session.database.schema import VERSION, Schema
from session.errors import SchemaVersionError, StoreCorruptError

__all__ = ["migrate"]

_FOLDER: Final = Path(__file__).parent / "migrations"

# While it runs, Alembic keeps where it is in global variables.
_ALEMBIC: Final = threading.Lock()


class Migratable(Protocol):
    """What of a store is needed here."""

    @property
    def label(self) -> str:
        """Its name in messages."""
        ...

    @property
    def schema(self) -> Schema:
        """Its tables."""
        ...

    @property
    def engine(self) -> Engine:
        """How to look."""
        ...

    def migrating(self) -> AbstractContextManager[Connection]:
        """One transaction, one at a time."""
        ...


def migrate(store: Migratable) -> None:
    """Run the migrations that the database has not seen.

    Raises:
        SchemaVersionError: it has seen one that this code does not know.
        StoreCorruptError: tables of our names are there that no migration has made.
    """
    with store.engine.connect() as connection:
        if _version(connection, store.schema) == VERSION:
            return
    with _ALEMBIC, store.migrating() as connection:
        # Somebody else may have been faster.
        version = _version(connection, store.schema)
        if version == VERSION:
            return
        _check(store, connection, version)
        config = _config()
        config.attributes.update(
            connection=connection,
            prefix=store.schema.prefix,
            version_table=store.schema.version_table,
        )
        command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    # A percent sign in the path would be taken for an interpolation.
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    return config


def _version(connection: Connection, schema: Schema) -> str | None:
    if not inspect(connection).has_table(schema.version_table):
        return None
    versions = table(schema.version_table, column("version_num"))
    found = connection.execute(select(versions.c.version_num)).scalars().all()
    return ", ".join(map(str, found)) or None


def _check(store: Migratable, connection: Connection, version: str | None) -> None:
    if version is not None:
        known = [script.revision for script in _scripts().walk_revisions()]
        if version not in known:
            message = (
                f"{store.label}: its tables are of version {version}, and this parallel-agent "
                f"knows versions up to {VERSION}: a newer one has made them. "
                "Upgrade parallel-agent, or use another database or table_prefix"
            )
            raise SchemaVersionError(message)
        return
    there = set(inspect(connection).get_table_names()) & set(store.schema.metadata.tables)
    if there:
        message = (
            f"{store.label}: it holds tables named {', '.join(sorted(there))} that are not "
            f"ours: there is no {store.schema.version_table}. Use another table_prefix"
        )
        raise StoreCorruptError(message)


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def head() -> Any:
    """Return the newest migration in the folder, for a test."""
    return _scripts().get_current_head()
