"""What the writer is asked to do: append, create, delete, restore.

Several pieces of work share a transaction. One that is refused has changed nothing, so the others
go on; one that fails otherwise takes all of them with it, and the writer tries each by itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final

from session.database.rows import EventRow, Written, sorted_by_scope, stored_name
from session.database.transaction import Transaction
from session.service import (
    SequenceConflictError,
    SessionExistsError,
    SessionNotFoundError,
)
from session.session import SessionKey

__all__ = ["Append", "Create", "Delete", "DeleteBefore", "Restore", "Work"]


class Work(ABC):
    """One piece of work; the writer's thread calls it.

    Attributes:
        order: pieces of work lock their rows in this order.
    """

    order: tuple[str, ...]

    @abstractmethod
    def run(self, tx: Transaction) -> Any:
        """Do it in ``tx``. What it returns is what its caller gets.

        Raises:
            SessionError: it is refused, and has changed nothing.
        """

    @abstractmethod
    def was_done(self, tx: Transaction) -> bool:
        """Whether the database has it, after the answer to a COMMIT was lost."""


class Append(Work):
    """A batch of events and the state they change; returns nothing."""

    def __init__(self, key: SessionKey, written: Written, expected: int) -> None:
        """``expected`` is the number that the log should end at."""
        self.key: Final = key
        self.order = _order(key)
        self._written = written
        self._expected = expected

    def run(self, tx: Transaction) -> None:
        """See `Work.run`."""
        key, written, expected = self.key, self._written, self._expected
        last = expected + len(written.events)
        if last == expected:
            self._refuse(tx.ask_for(tx.say.find, key))
            return
        # Looking, deciding and locking are one statement: no other writer fits in between.
        row = tx.ask_for(tx.say.advance, key, expected=expected, seq=last, time=written.time)
        if row is None:
            self._refuse(tx.ask_for(tx.say.find, key))
            # Only if somebody wrote in between, where that is possible.
            raise SequenceConflictError(key, expected=expected, actual=expected)
        tx.add_events(row[0], written.events)
        tx.set_state(row[0], key, written.state)

    def was_done(self, tx: Transaction) -> bool:
        """See `Work.was_done`: the very events are there, which hold ids that nobody else has."""
        events = self._written.events
        found = tx.ask_for(tx.say.find, self.key)
        if found is None or not events:
            return False
        last = self._expected + len(events)
        stored = tx.ask(tx.say.bodies, id=found[0], after=self._expected, upto=last)
        return [tuple(row) for row in stored] == [(seq, body) for seq, _, body in events]

    def _refuse(self, found: tuple[Any, ...] | None) -> None:
        if found is None:
            raise SessionNotFoundError(self.key)
        if found[1] != self._expected:
            raise SequenceConflictError(self.key, expected=self._expected, actual=found[1])


class Create(Work):
    """A new session; returns the keys that it sees, as they are stored."""

    def __init__(self, key: SessionKey, state: Mapping[str, str], created: float) -> None:
        """``state`` is as it is stored."""
        self.key: Final = key
        self.order = _order(key)
        self._state = state
        self._created = created

    def run(self, tx: Transaction) -> dict[str, str]:
        """See `Work.run`."""
        row = tx.ask_for(tx.say.create, self.key, created=self._created, time=self._created, seq=0)
        if row is None:
            raise SessionExistsError(self.key)
        tx.set_state(row[0], self.key, self._state)
        _, _, own = sorted_by_scope(self._state)
        return tx.shared_state(self.key) | own

    def was_done(self, tx: Transaction) -> bool:
        """See `Work.was_done`: told from another's by the time, of which it has microseconds."""
        found = tx.ask_for(tx.say.find, self.key)
        return found is not None and found[2] == self._created


class Restore(Work):
    """A session with its log; returns nothing."""

    def __init__(
        self,
        key: SessionKey,
        rows: list[EventRow],
        state: Mapping[str, str],
        *,
        created: float,
        updated: float,
    ) -> None:
        """``state`` is as it is stored."""
        self.key: Final = key
        self.order = _order(key)
        self._rows = rows
        self._state = state
        self._created = created
        self._updated = updated

    def run(self, tx: Transaction) -> None:
        """See `Work.run`."""
        row = tx.ask_for(
            tx.say.create,
            self.key,
            created=self._created,
            time=self._updated,
            seq=len(self._rows),
        )
        if row is None:
            raise SessionExistsError(self.key)
        there = tx.shared_state(self.key)
        missing = {name: value for name, value in self._state.items() if name not in there}
        tx.add_events(row[0], self._rows)
        tx.set_state(row[0], self.key, missing)

    def was_done(self, tx: Transaction) -> bool:
        """See `Work.was_done`, and `Create.was_done`."""
        found = tx.ask_for(tx.say.find, self.key)
        return found is not None and found[1:] == (len(self._rows), self._created)


class Delete(Work):
    """Forgets a session, if it is there; returns nothing."""

    def __init__(self, key: SessionKey) -> None:
        """See the class."""
        self.key: Final = key
        self.order = _order(key)

    def run(self, tx: Transaction) -> None:
        """See `Work.run`."""
        if row := tx.ask_for(tx.say.delete, self.key):
            tx.forget(row[0])

    def was_done(self, tx: Transaction) -> bool:
        """See `Work.was_done`. If it was not, it can be done again."""
        return tx.ask_for(tx.say.find, self.key) is None


class DeleteBefore(Work):
    """Forgets old sessions, at most `AT_ONCE`; returns how many."""

    def __init__(self, app_name: str, user_id: str | None, time: float) -> None:
        """See the class."""
        self._app = stored_name(app_name)
        self._user = None if user_id is None else stored_name(user_id)
        self.order = (self._app, self._user or "")
        self._time = time

    def run(self, tx: Transaction) -> int:
        """See `Work.run`."""
        rows = tx.ask(tx.say.stale, app=self._app, user=self._user, time=self._time)
        for (session,) in rows:
            tx.forget(session)
        return len(rows)

    def was_done(self, tx: Transaction) -> bool:
        """See `Work.was_done`. It can be done again; the count is then too low."""
        del tx
        return False


def _order(key: SessionKey) -> tuple[str, ...]:
    return stored_name(key.app_name), stored_name(key.user_id), stored_name(key.session_id)
