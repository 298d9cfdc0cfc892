"""Sessions in a database: ``from session.database import DatabaseSessionService``.

Needs the extra ``sql``. Without this package, `session` needs no database library.

From the ground up: ``schema`` (the tables) and ``migrations``, which make them · ``rows`` (between
values and rows) · ``statements``, ``migrate`` · ``store`` (one database), ``sqlite`` and
``postgres`` · ``transaction``, ``work`` and ``leases`` (what is written), ``writer`` (group
commit), ``reader`` · ``service``.

``docs/how-to/durable-sessions.md`` shows how it is used.
"""

from __future__ import annotations

try:
    import alembic as _alembic
    import psycopg as _psycopg
    import sqlalchemy as _sqlalchemy
except ImportError as error:
    _message = (
        f"sessions in a database need {error.name}, which is not installed: "
        "pip install 'parallel-agent[sql]'"
    )
    raise ImportError(_message, name=error.name) from error

from session.database.service import DatabaseSessionService
from session.database.store import Durability
from session.database.writer import FaultPoints

__all__ = ["DatabaseSessionService", "Durability", "FaultPoints"]

del _alembic, _psycopg, _sqlalchemy
