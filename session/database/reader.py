"""Reading: sessions, pages of them, stretches of their logs.

Each function sees the database at one moment, and blocks; the service calls it in a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs
from sqlalchemy import Column, Connection, case, func, literal, select, tuple_, union_all

from session.database.rows import name_of, stored_name
from session.database.store import Store
from session.event import Event
from session.lease import RunStatus, UnfinishedRun
from session.service import SessionInfo
from session.session import Session, SessionKey

__all__ = ["Reader", "Window"]


@attrs.frozen
class Window:
    """Which events of a log are wanted; see `SessionService.get`. ``before`` is a number."""

    num_recent_events: int | None = None
    after_sequence: int | None = None
    after: float | None = None
    before: int | None = None
    oldest: int | None = None


class Reader:
    """Reads from a store. Has no state of its own."""

    def __init__(self, store: Store) -> None:
        """Opens nothing."""
        self._store: Final = store
        self._schema: Final = store.schema

    def session(self, key: SessionKey, window: Window) -> Session | None:
        """Return the session with the events of ``window``; None if there is none.

        Raises:
            StoreError: the store failed, or holds what cannot be read.
        """
        table = self._schema.session
        with self._store.reading() as connection:
            row = connection.execute(
                select(table.c.id, table.c.last_seq, table.c.last_update_time).where(*self._is(key))
            ).one_or_none()
            if row is None:
                return None
            state = self._state(connection, key, row.id)
            bodies = self._bodies(connection, row.id, window)
        # Outside: whoever decodes needs no connection.
        rows = self._store.rows
        return Session(
            key,
            [rows.event(key, seq, body) for seq, body in bodies],
            rows.read_state(key, state),
            row.last_seq,
            row.last_update_time,
        )

    def events(self, key: SessionKey, window: Window) -> list[Event]:
        """Return the events of ``window`` alone; none if there is no such session."""
        with self._store.reading() as connection:
            found = connection.execute(
                select(self._schema.session.c.id).where(*self._is(key))
            ).scalar_one_or_none()
            bodies = [] if found is None else self._bodies(connection, found, window)
        return [self._store.rows.event(key, seq, body) for seq, body in bodies]

    def next_events(
        self, key: SessionKey, after: int, limit: int
    ) -> tuple[int, list[Event]] | None:
        """Return the session's own number, and the first events after a position.

        None if there is no such session. Costs one short query if there are no events.
        """
        table = self._schema.session
        with self._store.reading() as connection:
            row = connection.execute(
                select(table.c.id, table.c.last_seq).where(*self._is(key))
            ).one_or_none()
            if row is None:
                return None
            window = Window(after_sequence=after, oldest=limit)
            bodies = self._bodies(connection, row.id, window) if row.last_seq > after else []
        return row.id, [self._store.rows.event(key, seq, body) for seq, body in bodies]

    def page(
        self, app_name: str, user_id: str | None, after: SessionKey | None, limit: int | None
    ) -> list[SessionInfo]:
        """Return what a listing says, by user and id, after a key, at most so many."""
        table = self._schema.session
        query = select(
            table.c.user_id, table.c.session_id, table.c.last_seq, table.c.last_update_time
        ).where(table.c.app_name == stored_name(app_name))
        order: tuple[Column[Any], ...] = (table.c.user_id, table.c.session_id)
        if user_id is not None:
            query = query.where(table.c.user_id == stored_name(user_id))
            order = (table.c.session_id,)
            if after is not None and after.user_id != user_id:
                # Every session of the user comes after it, or none.
                if after.user_id > user_id:
                    return []
                after = None
        if after is not None:
            place = (stored_name(after.user_id), stored_name(after.session_id))
            query = query.where(tuple_(*order) > place[-len(order) :])
        query = query.order_by(*order).limit(limit)
        with self._store.reading() as connection:
            rows = connection.execute(query).all()
        return [
            SessionInfo(SessionKey(app_name, name_of(user), name_of(session)), seq, time)
            for user, session, seq, time in rows
        ]

    def app_names(self) -> list[str]:
        """Return the applications that have sessions. A short query for each."""
        column = self._schema.session.c.app_name
        query, names = select(func.min(column)), list[str]()
        with self._store.reading() as connection:
            last = connection.execute(query).scalar_one_or_none()
            while last is not None:
                names.append(name_of(last))
                last = connection.execute(query.where(column > last)).scalar_one_or_none()
        return names

    def unfinished(self, app_name: str, user_id: str | None) -> list[UnfinishedRun]:
        """Return the runs that did not end, by user and session."""
        table = self._schema.session
        query = select(
            table.c.user_id,
            table.c.session_id,
            table.c.run_id,
            table.c.run_status,
            case((table.c.lease_expires > self._store.now, table.c.lease_owner)),
            table.c.last_update_time,
        ).where(table.c.app_name == stored_name(app_name), table.c.run_status.is_not(None))
        if user_id is not None:
            query = query.where(table.c.user_id == stored_name(user_id))
        query = query.order_by(table.c.user_id, table.c.session_id)
        with self._store.reading() as connection:
            rows = connection.execute(query).all()
        return [
            UnfinishedRun(
                SessionKey(app_name, name_of(user), name_of(session)),
                name_of(run),
                _status(status, owner),
                None if owner is None else name_of(owner),
                time,
            )
            for user, session, run, status, owner, time in rows
        ]

    def _is(self, key: SessionKey) -> tuple[Any, ...]:
        table = self._schema.session
        return (
            table.c.app_name == stored_name(key.app_name),
            table.c.user_id == stored_name(key.user_id),
            table.c.session_id == stored_name(key.session_id),
        )

    def _state(self, connection: Connection, key: SessionKey, session: int) -> Sequence[Any]:
        app, user, own = self._schema.app_state, self._schema.user_state, self._schema.session_state
        app_name = stored_name(key.app_name)
        # By scope, as the contract's reference does it; within one the order means nothing.
        query = union_all(
            select(literal(0).label("scope"), app.c.key, app.c.value).where(
                app.c.app_name == app_name
            ),
            select(literal(1), user.c.key, user.c.value).where(
                user.c.app_name == app_name, user.c.user_id == stored_name(key.user_id)
            ),
            select(literal(2), own.c.key, own.c.value).where(own.c.session == session),
        ).order_by("scope")
        return [(name, value) for _, name, value in connection.execute(query)]

    def _bodies(
        self, connection: Connection, session: int, window: Window
    ) -> list[tuple[int, str]]:
        recent = window.num_recent_events
        if recent is not None and recent <= 0:
            return []
        table = self._schema.event
        query = select(table.c.seq, table.c.body).where(table.c.session == session)
        if window.after_sequence is not None:
            query = query.where(table.c.seq > window.after_sequence)
        if window.before is not None:
            query = query.where(table.c.seq < window.before)
        if window.after is not None:
            query = query.where(table.c.timestamp >= window.after)
        if recent is None:
            query = query.order_by(table.c.seq).limit(window.oldest)
            return [(seq, body) for seq, body in connection.execute(query)]
        # From the end: it costs what it returns, however long the log is.
        query = query.order_by(table.c.seq.desc()).limit(recent)
        return [(seq, body) for seq, body in reversed(connection.execute(query).all())]


def _status(stored: RunStatus, owner: str | None) -> RunStatus:
    """A run that has not released its lease is running while that is live, and not after."""
    return "crashed" if stored == "running" and owner is None else stored
