"""What the writer says to the database, compiled once for each prefix and kind of database.

SQLAlchemy writes the SQL; the writer gives it to the driver itself, because an append is made of a
few statements and is done ten thousand times a second.
"""

from __future__ import annotations

from typing import Any, Final

import attrs
from sqlalchemy import (
    ColumnElement,
    Engine,
    Text,
    bindparam,
    case,
    delete,
    literal_column,
    null,
    select,
    update,
)
from sqlalchemy.sql import ClauseElement

from session.database.schema import Schema

__all__ = ["AT_ONCE", "Statement", "Statements"]

AT_ONCE: Final = 100
"""How many old sessions are deleted in one transaction: appends wait meanwhile."""

# How many leases a session may have had before the tokens of the next row begin.
_TOKENS: Final = str(2**24)


@attrs.frozen
class Statement:
    """SQL for the driver itself, compiled once: ``names`` are its parameters, in order."""

    text: str
    names: tuple[str, ...]

    def values(self, **values: Any) -> tuple[Any, ...]:
        """Return the parameters in the order the driver wants them in."""
        return tuple(values[name] for name in self.names)


@attrs.frozen
class Statements:
    """What the writer says, in the words of one database.

    Rows to insert are tuples in the order of their table's columns.
    """

    advance: Statement
    advance_held: Statement
    find: Statement
    find_lease: Statement
    acquire: Statement
    renew: Statement
    release: Statement
    ask_to_stop: Statement
    create: Statement
    delete: Statement
    bodies: Statement
    stale: Statement
    app_keys: Statement
    user_keys: Statement
    add_event: Statement
    set_session_state: Statement
    unset_session_state: Statement
    set_user_state: Statement
    set_app_state: Statement

    @classmethod
    def of(
        cls, schema: Schema, engine: Engine, insert: Any, now: ColumnElement[float]
    ) -> Statements:
        """Return them for an engine. Compiled once for each prefix and dialect.

        ``insert`` is that of its dialect, with ON CONFLICT. ``now`` is the database's own clock,
        in seconds: the one clock that all who write to it share.
        """
        key = schema.prefix, engine.dialect.name
        found = _KEPT.get(key)
        if found is None:
            if len(_KEPT) >= _MOST_KEPT:
                _KEPT.clear()
            found = _KEPT[key] = cls._compile(schema, engine, insert, now)
        return found

    @classmethod
    def _compile(
        cls, schema: Schema, engine: Engine, insert: Any, now: ColumnElement[float]
    ) -> Statements:
        session, event = schema.session, schema.event
        name = (
            (session.c.app_name == bindparam("app"))
            & (session.c.user_id == bindparam("user"))
            & (session.c.session_id == bindparam("session"))
        )

        def compiled(clause: ClauseElement) -> Statement:
            done: Any = clause.compile(dialect=engine.dialect)
            return Statement(str(done), tuple(done.positiontup or ()))

        def upsert(table: Any) -> Statement:
            made = insert(table)
            return compiled(
                made.on_conflict_do_update(
                    index_elements=list(table.primary_key.columns),
                    set_={"value": made.excluded.value},
                )
            )

        held = (session.c.lease_token == bindparam("token")) & session.c.lease_owner.is_not(None)
        # The first is made of the row's id, which never comes again: a session that was made anew
        # must not take a lease of the one before for its own.
        token = case(
            (session.c.lease_token == literal_column("0"), session.c.id * literal_column(_TOKENS)),
            else_=session.c.lease_token,
        ) + literal_column("1")
        expires = now + bindparam("seconds")
        advance = (
            update(session)
            .where(name, session.c.last_seq == bindparam("expected"))
            .values(last_seq=bindparam("seq"), last_update_time=bindparam("time"))
            .returning(session.c.id)
        )
        new = insert(session).values(
            app_name=bindparam("app"),
            user_id=bindparam("user"),
            session_id=bindparam("session"),
            created_at=bindparam("created"),
            last_update_time=bindparam("time"),
            last_seq=bindparam("seq"),
        )
        user = bindparam("user", type_=Text())
        stale = select(session.c.id).where(
            session.c.app_name == bindparam("app"),
            session.c.last_update_time < bindparam("time"),
            user.is_(None) | (session.c.user_id == user),
        )
        # Written out: SQLAlchemy would make parameters of them, under names of its own.
        few = stale.limit(literal_column(str(AT_ONCE))).offset(literal_column("0"))
        return cls(
            advance=compiled(advance),
            advance_held=compiled(advance.where(held)),
            find=compiled(
                select(session.c.id, session.c.last_seq, session.c.created_at).where(name)
            ),
            find_lease=compiled(
                select(
                    session.c.last_seq,
                    session.c.lease_token,
                    session.c.run_id,
                    session.c.lease_owner,
                    session.c.lease_expires,
                    session.c.lease_expires - now,
                    session.c.lease_stop,
                ).where(name)
            ),
            acquire=compiled(
                update(session)
                .where(name, session.c.lease_owner.is_(None) | (session.c.lease_expires <= now))
                .values(
                    lease_owner=bindparam("owner"),
                    lease_token=token,
                    lease_expires=expires,
                    lease_stop=null(),
                    run_id=bindparam("run"),
                    run_status=bindparam("status"),
                )
                .returning(session.c.lease_token, session.c.lease_expires)
            ),
            renew=compiled(
                update(session)
                .where(name, held)
                .values(lease_expires=expires)
                .returning(session.c.lease_stop, session.c.lease_expires)
            ),
            release=compiled(
                update(session)
                .where(name, held)
                .values(
                    lease_owner=null(),
                    lease_expires=null(),
                    lease_stop=null(),
                    run_id=bindparam("run"),
                    run_status=bindparam("status"),
                )
                .returning(session.c.id)
            ),
            ask_to_stop=compiled(
                update(session)
                .where(name, session.c.lease_owner.is_not(None), session.c.lease_expires > now)
                .values(lease_stop=bindparam("reason"))
                .returning(session.c.id)
            ),
            create=compiled(new.on_conflict_do_nothing().returning(session.c.id)),
            delete=compiled(delete(session).where(name).returning(session.c.id)),
            bodies=compiled(
                select(event.c.seq, event.c.body)
                .where(
                    event.c.session == bindparam("id"),
                    event.c.seq > bindparam("after"),
                    event.c.seq <= bindparam("upto"),
                )
                .order_by(event.c.seq)
            ),
            stale=compiled(
                delete(session)
                # Both: what was updated meanwhile, PostgreSQL looks at again, out here only.
                .where(session.c.id.in_(few), session.c.last_update_time < bindparam("time"))
                .returning(session.c.id)
            ),
            app_keys=compiled(
                select(schema.app_state.c.key, schema.app_state.c.value).where(
                    schema.app_state.c.app_name == bindparam("app")
                )
            ),
            user_keys=compiled(
                select(schema.user_state.c.key, schema.user_state.c.value).where(
                    schema.user_state.c.app_name == bindparam("app"),
                    schema.user_state.c.user_id == bindparam("user"),
                )
            ),
            add_event=compiled(insert(event)),
            set_session_state=upsert(schema.session_state),
            unset_session_state=compiled(
                delete(schema.session_state).where(
                    schema.session_state.c.session == bindparam("id"),
                    schema.session_state.c.key == bindparam("key"),
                )
            ),
            set_user_state=upsert(schema.user_state),
            set_app_state=upsert(schema.app_state),
        )


# Compiling takes longer than opening a file. Values only: two threads that both find nothing here
# make the same.
_KEPT: Final[dict[tuple[str, str], Statements]] = {}
_MOST_KEPT: Final = 16
