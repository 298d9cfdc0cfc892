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

import builtins
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import attrs

from session.event import Event
from session.portable import read_lines, session_lines
from session.session import Session, SessionKey

__all__ = [
    "SchemaVersionError",
    "SequenceConflictError",
    "SessionError",
    "SessionExistsError",
    "SessionInfo",
    "SessionNotFoundError",
    "SessionService",
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

    # What follows from the methods above. A service overrides what it can do better.

    async def list_page(
        self,
        *,
        app_name: str,
        user_id: str | None = None,
        after: SessionKey | None = None,
        limit: int = 100,
    ) -> builtins.list[SessionInfo]:
        """Return the next ``limit`` of what `list` returns: those that come after ``after``.

        ``after`` is the key of the last one of the page before; it need not exist any more. A
        page shorter than ``limit`` is the last. Sessions made meanwhile are seen or not.

        Raises:
            ValueError: ``after`` is of another application, or ``limit`` is below 1.
        """
        check_page(app_name, after, limit)
        infos = await self.list(app_name=app_name, user_id=user_id)
        if after is not None:
            place = (after.user_id, after.session_id)
            infos = [info for info in infos if (info.key.user_id, info.key.session_id) > place]
        return infos[:limit]

    async def delete_before(self, *, app_name: str, time: float, user_id: str | None = None) -> int:
        """Forget the application's sessions (of one user) that were last updated before ``time``.

        Returns how many. ``app:`` and ``user:`` state stay. Cancelled half way, it has deleted
        some of them. Whether a session that is updated at this very moment goes is left open.
        """
        old = [
            info.key
            for info in await self.list(app_name=app_name, user_id=user_id)
            if info.last_update_time < time
        ]
        for key in old:
            await self.delete(app_name=key.app_name, user_id=key.user_id, session_id=key.session_id)
        return len(old)

    async def export_session(
        self, *, app_name: str, user_id: str, session_id: str
    ) -> AsyncIterator[str]:
        """Yield the session, as it is now, as lines of JSON; see `session.portable`.

        An async generator: close it if you leave it early.

        Raises:
            SessionNotFoundError: there is no such session.
        """
        session = await self.get(app_name=app_name, user_id=user_id, session_id=session_id)
        if session is None:
            raise SessionNotFoundError(SessionKey(app_name, user_id, session_id))
        for line in session_lines(session):
            yield line

    async def import_session(self, lines: Iterable[str] | AsyncIterable[str]) -> SessionKey:
        """Keep the session that was exported as ``lines``; return its name. See `restore`.

        All or nothing: lines that hold no whole session change nothing.

        Raises:
            SessionFormatError: the lines are no exported session.
            SessionExistsError: there is a session of this name.
        """
        session = read_lines(await gather_lines(lines))
        await self.restore(session)
        return session.key

    async def restore(self, session: Session) -> None:
        """Keep ``session``, which some service has read whole, with its numbers and times.

        Its own state becomes what it was. Of the ``app:`` and ``user:`` state only keys that
        have no value here are set: other sessions use them, and have gone on.

        Raises:
            SessionExistsError: there is a session of this name.
            ValueError: the log is not whole.
            NotImplementedError: this service cannot.
        """
        raise NotImplementedError


async def gather_lines(lines: Iterable[str] | AsyncIterable[str]) -> list[str]:
    """Return what can be iterated in either way as a list."""
    if isinstance(lines, AsyncIterable):
        return [line async for line in lines]
    return list(lines)


def check_page(app_name: str, after: SessionKey | None, limit: int) -> None:
    """Refuse what no page can follow. For implementers."""
    if after is not None and after.app_name != app_name:
        message = f"after is {after}, a session of another application than {app_name!r}"
        raise ValueError(message)
    if type(limit) is not int or limit < 1:
        message = f"limit is a whole number from 1 on, not {limit!r}"
        raise ValueError(message)


def check_whole(session: Session) -> None:
    """Refuse a session that was read with a window. For implementers of `SessionService.restore`.

    Raises:
        ValueError: the log does not run from 1 to its last number.
    """
    numbers = [event.seq for event in session.events]
    if numbers != [*range(1, session.last_seq + 1)]:
        message = (
            f"the log of session {session.key} is not whole: it ends at {session.last_seq} and "
            f"{len(numbers)} events are here. Read it without a window"
        )
        raise ValueError(message)


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
