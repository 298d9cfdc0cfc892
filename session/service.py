"""The contract between a run and the place its session is kept.

A service keeps sessions: a log of events each, ordered by an integer sequence number that the
service gives at append, and the state that follows. It knows nothing of agents. Anybody can
write one; ``session.conformance`` checks it.

What every service promises:

* **append is all or nothing.** Either every event of the batch has its number, in order and
  without a gap, or none has and nothing changed.
* **a writer says what it has seen.** An append names the last sequence number its writer knows;
  if the log has grown since, it fails with `SequenceConflictError` and changes nothing.
* **what comes out is the reader's own.** Events are immutable; lists and dicts are copies.
* **clocks decide nothing.** Order is the sequence number's.

A service may block in every method, and may be cancelled in every one but `append`, which its
caller shields. It need not checkpoint: who calls it in a loop checkpoints itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import attrs

from session.event import Event
from session.session import Session, SessionKey

__all__ = [
    "SequenceConflictError",
    "SessionError",
    "SessionExistsError",
    "SessionInfo",
    "SessionNotFoundError",
    "SessionService",
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


@attrs.frozen
class SessionInfo:
    """What a listing says of a session: enough to choose one, without its log."""

    key: SessionKey
    last_seq: int
    last_update_time: float


class SessionService(ABC):
    """Keeps sessions. See the module for what every implementation promises."""

    batches: ClassVar[bool] = False
    """Whether an append costs much more than an event, so that waiting a moment for more pays."""

    blocks: ClassVar[bool] = True
    """Whether `append` may await something. If not, `append_nowait` does the same work."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Take an `append` for one that blocks, unless the class that defines it says otherwise."""
        super().__init_subclass__(**kwargs)
        if "append" in cls.__dict__ and "blocks" not in cls.__dict__:
            cls.blocks = True

    @abstractmethod
    async def create(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> Session:
        """Make a session and return it, empty but for ``state``.

        Without ``session_id`` the service chooses one. Keys of ``state`` go to their scopes;
        ``temp:`` keys are dropped.

        Raises:
            SessionExistsError: the id is taken.
            UnstorableError: a value of ``state`` has no JSON form.
            ValueError: a name is empty or no text.
        """

    @abstractmethod
    async def get(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str,
        num_recent_events: int | None = None,
        after_sequence: int | None = None,
        after: float | None = None,
    ) -> Session | None:
        """Return the session as recorded now, or None if there is none.

        ``num_recent_events`` keeps only the newest; ``after_sequence`` those with a higher
        number; ``after`` those recorded at that time (seconds since the epoch) or later. They
        combine. State and ``last_seq`` are always whole.
        """

    @abstractmethod
    async def list(self, *, app_name: str, user_id: str | None = None) -> list[SessionInfo]:
        """Return the application's sessions (of one user), ordered by user and id."""

    @abstractmethod
    async def delete(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Forget a session. Nothing happens if there is none. ``app:`` and ``user:`` state stay."""

    @abstractmethod
    async def append(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        """Add ``events`` to the log in this order, and what they change to the state.

        Events must be sealed, whole (not partial) and new. On return each has its ``seq``, the
        first ``expected_seq + 1``, and the whole batch is as durable as the service makes it.
        ``temp:`` keys are not stored.

        Raises:
            SequenceConflictError: the log does not end at ``expected_seq``.
            SessionNotFoundError: the session does not exist.
            ValueError: an event is partial, not sealed, or recorded already.
        """

    def append_nowait(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        """Do what `append` does, at once; only for a service whose ``blocks`` is False."""
        raise NotImplementedError


def check_batch(events: Sequence[Event]) -> None:
    """Refuse a batch that no service may take. For implementers: call it before changing anything.

    Raises:
        ValueError: an event is partial, not sealed, or recorded already; its index is named.
    """
    for event in events:
        if event.seq is not None or event.partial or not event.sealed:
            _refuse(events)
    if len(events) > 1 and len(set(map(id, events))) != len(events):
        raise ValueError("the batch holds the same event twice")


def _refuse(events: Sequence[Event]) -> None:
    for index, event in enumerate(events):
        if event.seq is not None:
            message = f"events[{index}] is recorded already, as number {event.seq}"
        elif event.partial:
            message = f"events[{index}] is partial; only whole events are recorded"
        elif not event.sealed:
            message = f"events[{index}] can still change; seal() it first"
        else:
            continue
        raise ValueError(message)
