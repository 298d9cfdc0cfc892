"""What the writer is asked to do: append, create, delete, restore; `leases` has the rest.

Several pieces of work share a transaction. One that is refused has changed nothing, so the others
go on; one that fails otherwise takes all of them with it, and the writer tries each by itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final

import attrs

from session.database.rows import EventRow, Written, sorted_by_scope, stored_name
from session.database.transaction import Transaction
from session.errors import (
    LeaseLostError,
    SequenceConflictError,
    SessionExistsError,
    SessionNotFoundError,
)
from session.lease import Lease
from session.session import SessionKey

__all__ = [
    "Append",
    "Create",
    "Delete",
    "DeleteBefore",
    "Held",
    "Restore",
    "Work",
    "find_held",
    "order_of",
]


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


@attrs.frozen
class Held:
    """What a session's row says of its lease and of the end of its log."""

    last_seq: int
    token: int
    run_id: str | None
    owner: str | None
    expires: float | None
    left: float | None
    stop: str | None

    def is_of(self, lease: Lease) -> bool:
        """Whether the session is the holder's of ``lease``, if only nobody took it since."""
        return self.owner is not None and self.token == lease.token


def find_held(tx: Transaction, key: SessionKey) -> Held | None:
    """Look whose a session is; None if there is none. Texts are as they are stored."""
    row = tx.ask_for(tx.say.find_lease, key)
    return None if row is None else Held(*row)


class Append(Work):
    """A batch of events and the state they change; returns nothing."""

    def __init__(
        self, key: SessionKey, written: Written, expected: int, lease: Lease | None
    ) -> None:
        """``expected`` is the number that the log should end at."""
        self.key: Final = key
        self.order = order_of(key)
        self._written = written
        self._expected = expected
        self._lease = lease

    def run(self, tx: Transaction) -> None:
        """See `Work.run`."""
        key, written, expected = self.key, self._written, self._expected
        last = expected + len(written.events)
        if last == expected:
            self._refuse(tx)
            return
        # Looking, deciding and locking are one statement: no other writer fits in between.
        row = self._advance(tx, last)
        if row is None:
            self._refuse(tx)
            # Only if somebody wrote in between, where that is possible.
            raise SequenceConflictError(key, expected=expected, actual=expected)
        tx.add_events(row[0], written.events)
        tx.set_state(row[0], key, written.state)
        tx.unset_state(row[0], written.unset)

    def was_done(self, tx: Transaction) -> bool:
        """See `Work.was_done`: the very events are there, which hold ids that nobody else has."""
        events = self._written.events
        found = tx.ask_for(tx.say.find, self.key)
        if found is None or not events:
            return False
        last = self._expected + len(events)
        stored = tx.ask(tx.say.bodies, id=found[0], after=self._expected, upto=last)
        return [tuple(row) for row in stored] == [(seq, body) for seq, _, body in events]

    def _advance(self, tx: Transaction, last: int) -> tuple[Any, ...] | None:
        lease, time = self._lease, self._written.time
        if lease is None:
            return tx.ask_for(
                tx.say.advance, self.key, expected=self._expected, seq=last, time=time
            )
        return tx.ask_for(
            tx.say.advance_held,
            self.key,
            expected=self._expected,
            seq=last,
            time=time,
            token=lease.token,
        )

    def _refuse(self, tx: Transaction) -> None:
        found = find_held(tx, self.key)
        if found is None:
            raise SessionNotFoundError(self.key)
        # First: who took the session over has most likely written to it as well.
        if self._lease is not None and not found.is_of(self._lease):
            raise LeaseLostError(self._lease)
        if found.last_seq != self._expected:
            raise SequenceConflictError(self.key, expected=self._expected, actual=found.last_seq)


class Create(Work):
    """A new session; returns the keys that it sees, as they are stored."""

    def __init__(self, key: SessionKey, state: Mapping[str, str], created: float) -> None:
        """``state`` is as it is stored."""
        self.key: Final = key
        self.order = order_of(key)
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
        self.order = order_of(key)
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
        self.order = order_of(key)

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


def order_of(key: SessionKey) -> tuple[str, ...]:
    """Return where a session comes in the order of locking."""
    return stored_name(key.app_name), stored_name(key.user_id), stored_name(key.session_id)
