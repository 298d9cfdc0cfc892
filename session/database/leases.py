"""Whose a session is: what the writer is asked to do about leases.

Time is the database's own: whoever shares the database shares its clock, and nothing else. Texts
are stored as names are.
"""

from __future__ import annotations

from typing import Final

from session.database.rows import name_of, stored_name
from session.database.transaction import Transaction
from session.database.work import Work, find_held, order_of
from session.errors import LeaseLostError, SessionBusyError, SessionNotFoundError
from session.lease import Lease, Unfinished
from session.session import SessionKey

__all__ = ["Acquire", "AskToStop", "Release", "Renew"]


class Acquire(Work):
    """Takes a session for a run.

    Attributes:
        token: the new lease's, once it is done.
    """

    def __init__(
        self, key: SessionKey, *, run_id: str, owner: str, seconds: float, resumable: bool
    ) -> None:
        """See the class."""
        self.key: Final = key
        self.order = order_of(key)
        self.token = 0
        self._expires: float | None = None
        self._run = stored_name(run_id)
        self._owner = stored_name(owner)
        self._seconds = seconds
        self._status = "running" if resumable else None

    def run(self, tx: Transaction) -> None:
        """See `Work.run`."""
        if self._take(tx):
            return
        found = find_held(tx, self.key)
        if found is None:
            raise SessionNotFoundError(self.key)
        # Again: it may have been given back, or have expired, between the two statements.
        if (found.left or 0) > 0 or not self._take(tx):
            raise SessionBusyError(
                self.key,
                owner=name_of(found.owner or "somebody"),
                run_id=name_of(found.run_id or "?"),
                seconds=max(found.left or 0, 0),
            )

    def _take(self, tx: Transaction) -> bool:
        row = tx.ask_for(
            tx.say.acquire,
            self.key,
            owner=self._owner,
            run=self._run,
            status=self._status,
            seconds=self._seconds,
        )
        if row is None:
            return False
        self.token, self._expires = row
        return True

    def was_done(self, tx: Transaction) -> bool:
        """See `Work.was_done`: told from another's by the time at which it would expire.

        Another process may be resuming the same run, under the same words, and have been given
        the token that this one was promised.
        """
        found = find_held(tx, self.key)
        return found is not None and (
            (found.token, found.run_id, found.owner, found.expires)
            == (self.token, self._run, self._owner, self._expires)
        )


class Renew(Work):
    """Lets a lease begin its time anew.

    Attributes:
        stop: why its holder should stop, if it should, once it is done.
    """

    def __init__(self, lease: Lease) -> None:
        """See the class."""
        self.order = order_of(lease.key)
        self.stop: str | None = None
        self._lease = lease
        self._expires: float | None = None

    def run(self, tx: Transaction) -> None:
        """See `Work.run`."""
        lease = self._lease
        row = tx.ask_for(
            tx.say.renew,
            lease.key,
            token=lease.token,
            seconds=lease.seconds,
        )
        if row is None:
            if find_held(tx, lease.key) is None:
                raise SessionNotFoundError(lease.key)
            raise LeaseLostError(lease)
        stop, self._expires = row
        self.stop = None if stop is None else name_of(stop)

    def was_done(self, tx: Transaction) -> bool:
        """See `Work.was_done`."""
        found = find_held(tx, self._lease.key)
        return found is not None and found.is_of(self._lease) and found.expires == self._expires


class Release(Work):
    """Gives a session back; returns nothing. Does nothing if the lease is no longer its."""

    def __init__(self, lease: Lease, unfinished: Unfinished | None) -> None:
        """See the class."""
        self.order = order_of(lease.key)
        self._lease = lease
        self._unfinished = unfinished

    def run(self, tx: Transaction) -> None:
        """See `Work.run`."""
        tx.ask_for(
            tx.say.release,
            self._lease.key,
            token=self._lease.token,
            run=None if self._unfinished is None else stored_name(self._lease.run_id),
            status=self._unfinished,
        )

    def was_done(self, tx: Transaction) -> bool:
        """See `Work.was_done`. If it was not, it can be done again."""
        found = find_held(tx, self._lease.key)
        return found is None or not found.is_of(self._lease)


class AskToStop(Work):
    """Leaves a word for the holder of a session; returns whether there is one."""

    def __init__(self, key: SessionKey, reason: str) -> None:
        """See the class."""
        self.key: Final = key
        self.order = order_of(key)
        self._reason = stored_name(reason)

    def run(self, tx: Transaction) -> bool:
        """See `Work.run`."""
        return tx.ask_for(tx.say.ask_to_stop, self.key, reason=self._reason) is not None

    def was_done(self, tx: Transaction) -> bool:
        """See `Work.was_done`: the word is there, whoever has left it."""
        found = find_held(tx, self.key)
        return found is not None and found.stop == self._reason
