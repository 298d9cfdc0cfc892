"""One transaction of the writer: what several pieces of work have in common.

Rows are collected and written together at the end, each kind in one go; of a key that was written
several times only the last value, or that it is gone. Rows are locked in the order of their names,
so that two transactions never wait for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from session.database.rows import EventRow, sorted_by_scope, stored_name
from session.database.statements import Statement
from session.database.store import Store
from session.session import SessionKey

__all__ = ["Transaction"]


class Transaction:
    """What is being written, on the driver's own cursor. The writer begins and commits it."""

    def __init__(self, store: Store, cursor: Any) -> None:
        """Start with nothing to write."""
        self.say = store.statements
        self.rows = store.rows
        self._cursor = cursor
        self.changed: set[int] = set()
        """The sessions whose log grows, or that are deleted. Only read it."""
        self._events: dict[int, list[EventRow]] = {}
        # By their whole primary key.
        self._own: dict[tuple[int, str], str | None] = {}
        self._user: dict[tuple[str, str, str], str] = {}
        self._app: dict[tuple[str, str], str] = {}

    def ask(self, statement: Statement, **values: Any) -> list[tuple[Any, ...]]:
        """Run a statement; return its rows."""
        self._cursor.execute(statement.text, statement.values(**values))
        rows: list[tuple[Any, ...]] = self._cursor.fetchall()
        return rows

    def ask_for(
        self, statement: Statement, key: SessionKey, **values: Any
    ) -> tuple[Any, ...] | None:
        """Run a statement about one session; return its first row, if there is one."""
        rows = self.ask(
            statement,
            app=stored_name(key.app_name),
            user=stored_name(key.user_id),
            session=stored_name(key.session_id),
            **values,
        )
        return rows[0] if rows else None

    def add_events(self, session: int, rows: Sequence[EventRow]) -> None:
        """Write rows to a session's log."""
        self._events.setdefault(session, []).extend(rows)
        self.changed.add(session)

    def set_state(self, session: int, key: SessionKey, state: Mapping[str, str]) -> None:
        """Write keys, each to its scope. Both are as they are stored."""
        if not state:
            return
        app, user, own = sorted_by_scope(state)
        for name, value in own.items():
            self._own[session, name] = value
        if user or app:
            app_name, user_id = stored_name(key.app_name), stored_name(key.user_id)
            for name, value in user.items():
                self._user[app_name, user_id, name] = value
            for name, value in app.items():
                self._app[app_name, name] = value

    def unset_state(self, session: int, names: Iterable[str]) -> None:
        """Take keys of the session's own away. They are as they are stored."""
        for name in names:
            self._own[session, name] = None

    def shared_state(self, key: SessionKey) -> dict[str, str]:
        """Return the application's and the user's keys as they will be, as they are stored."""
        app, user = stored_name(key.app_name), stored_name(key.user_id)
        state = dict(self.ask(self.say.app_keys, app=app))
        state |= {name: value for (a, name), value in self._app.items() if a == app}
        state |= dict(self.ask(self.say.user_keys, app=app, user=user))
        state |= {
            name: value for (a, u, name), value in self._user.items() if (a, u) == (app, user)
        }
        return state

    def forget(self, session: int) -> None:
        """Write nothing of a session that has just been deleted."""
        self._events.pop(session, None)
        self.changed.add(session)
        self._own = {name: value for name, value in self._own.items() if name[0] != session}

    def flush(self) -> None:
        """Write what was collected."""
        self._many(
            self.say.add_event,
            [(session, *row) for session, rows in sorted(self._events.items()) for row in rows],
        )
        gone = [k for k, v in self._own.items() if v is None]
        kept = [(*k, v) for k, v in self._own.items() if v is not None]
        self._many(self.say.unset_session_state, sorted(gone))
        self._many(self.say.set_session_state, sorted(kept))
        self._many(self.say.set_user_state, sorted((*k, v) for k, v in self._user.items()))
        self._many(self.say.set_app_state, sorted((*k, v) for k, v in self._app.items()))

    def _many(self, statement: Statement, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            self._cursor.executemany(statement.text, rows)
