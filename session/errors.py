"""What goes wrong with sessions, and with the places where they are kept.

Pure values: no I/O, no clock, no event loop.
"""

from __future__ import annotations

import math

from session.lease import Lease
from session.session import SessionKey

__all__ = [
    "LeaseLostError",
    "SchemaVersionError",
    "SequenceConflictError",
    "SessionBusyError",
    "SessionError",
    "SessionExistsError",
    "SessionNotFoundError",
    "StoreCorruptError",
    "StoreError",
    "StoreFullError",
    "StoreReadOnlyError",
    "StoreUnavailableError",
]


class SessionError(Exception):
    """Something is wrong with a session. Subclasses say what."""


class SessionNotFoundError(SessionError, LookupError):
    """There is no such session (any more)."""

    def __init__(self, key: SessionKey) -> None:
        """Name the session that is missing."""
        super().__init__(f"there is no session {key}")
        self.key = key


class SessionExistsError(SessionError):
    """A session with this id is already there; `SessionService.create` overwrites nothing."""

    def __init__(self, key: SessionKey) -> None:
        """Name the session that is in the way."""
        super().__init__(
            f"the session {key} exists already; get() it, or choose another session_id"
        )
        self.key = key


class SequenceConflictError(SessionError):
    """Somebody else has appended to the session since the writer last looked. Nothing changed."""

    def __init__(self, key: SessionKey, *, expected: int, actual: int) -> None:
        """Say what the writer expected and what the log holds."""
        super().__init__(
            f"the log of session {key} ends at {actual}, not at {expected}: "
            "another run is writing to it. "
            "Run one invocation of a session at a time, or give each its own session_id"
        )
        self.key = key
        self.expected = expected
        self.actual = actual


class SessionBusyError(SessionError):
    """Another run owns the session. Nothing changed."""

    def __init__(
        self, key: SessionKey, *, owner: str, run_id: str, seconds: float = math.inf
    ) -> None:
        """Name the run and who holds the lease, which has ``seconds`` to go unless renewed."""
        dead = (
            ""
            if seconds == math.inf
            else f". If that process is dead, its lease ends by itself within {seconds:.3g} seconds"
        )
        super().__init__(
            f"the session {key} is busy: the run {run_id!r} of {owner} is writing to it. "
            "Wait until that has ended, say with on_busy=... what to do instead, or use another "
            f"session_id{dead}"
        )
        self.key = key
        self.owner = owner
        self.run_id = run_id
        self.seconds = seconds


class LeaseLostError(SessionError):
    """The session is no longer the run's that holds this lease. Nothing changed."""

    def __init__(self, lease: Lease) -> None:
        """Name the session and the run that has lost it."""
        super().__init__(
            f"the run {lease.run_id!r} of {lease.owner} no longer owns the session {lease.key}: "
            "its lease was released, or had expired and another run has taken over. "
            "What it did after its last append is not recorded"
        )
        self.lease = lease


class StoreError(SessionError):
    """The place where sessions are kept has failed: neither the caller nor the run is to blame.

    What raised it has changed nothing, unless the message says that nobody knows. The message
    names the store, without passwords; the error of the library below is the ``__cause__``.
    """


class StoreUnavailableError(StoreError):
    """The store cannot be reached, was lost, or was locked by somebody for too long."""


class StoreFullError(StoreError):
    """There is no room for what should be recorded. When there is, the store goes on."""


class StoreReadOnlyError(StoreError):
    """The store can be read, and not be written to."""


class StoreCorruptError(StoreError):
    """What is in the store is not what a service put there."""


class SchemaVersionError(StoreError):
    """The tables were made by another release, which this one does not know."""
