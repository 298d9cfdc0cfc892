"""The contract between a run and the place its session is kept.

A service keeps sessions: a log of events each, ordered by an integer sequence number that the
service gives at append, and the state that follows. It knows nothing of agents. Anybody can
write one; ``session.conformance`` checks it.

What every service promises:

* **append is all or nothing.** Either every event of the batch has its number, in order and
  without a gap, or none has and nothing changed.
* **a writer says what it has seen.** An append names the last sequence number its writer knows;
  if the log has grown since, it fails with `SequenceConflictError` and changes nothing.
* **a session is one run's, if the service owns sessions.** A run acquires a lease, renews it and
  releases it; once another has taken over, an append under the old lease fails and changes nothing.
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

from session.errors import SessionNotFoundError
from session.event import Event
from session.lease import Lease, Unfinished, UnfinishedRun
from session.portable import read_lines, session_lines
from session.session import Session, SessionKey
from session.watching import PolledLog, Subscription

__all__ = [
    "SessionInfo",
    "SessionService",
]


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

    owns: ClassVar[bool] = False
    """Whether it keeps track of whose a session is: `acquire`, and what goes with it, work."""

    poll_seconds: ClassVar[float] = 0.5
    """How often a subscriber that waits looks, where nothing can wake it."""

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
            UnstorableError: a value of ``state`` has no JSON form; or a name or key is longer
                than `session.state.MAX_NAME_BYTES`.
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
    async def append(
        self,
        key: SessionKey,
        events: Sequence[Event],
        *,
        expected_seq: int,
        lease: Lease | None = None,
    ) -> None:
        """Add ``events`` to the log in this order, and what they change to the state.

        Events must be sealed, whole (not partial) and new. On return each has its ``seq``, the
        first ``expected_seq + 1``, and the whole batch is as durable as the service makes it.
        ``temp:`` keys are not stored; keys in an event's ``actions.state_unset`` are removed.

        With a ``lease``, only while the session is its holder's: it was not released, and nobody
        else has acquired the session since. That it has expired does not matter by itself. Give
        one only to a service that ``owns`` sessions. Without one nobody asks whose the session is.

        Raises:
            LeaseLostError: the lease is no longer the session's.
            SequenceConflictError: the log does not end at ``expected_seq``.
            SessionNotFoundError: the session does not exist.
            ValueError: an event is partial, not sealed, or recorded already; or the lease is of
                another session.
        """

    def append_nowait(
        self,
        key: SessionKey,
        events: Sequence[Event],
        *,
        expected_seq: int,
        lease: Lease | None = None,
    ) -> None:
        """Do what `append` does, at once; only for a service whose ``blocks`` is False."""
        raise NotImplementedError

    # Whose a session is. For a service whose ``owns`` is True; the others raise
    # NotImplementedError. May be cancelled, but for `release`, which its caller shields.

    async def acquire(
        self, key: SessionKey, *, run_id: str, owner: str, resumable: bool = False
    ) -> Lease:
        """Take the session for a run, unless another holds it. Does not wait for it.

        ``owner`` is words for people. A lease that has expired is simply taken over. The token is
        higher than that of any lease of the session before.

        ``resumable``: the session remembers the run, as one that has not finished, until
        `release`. Without it, a run that it still remembered is forgotten. One at most is.

        Raises:
            SessionBusyError: a live lease is another's, or this run's own of before.
            SessionNotFoundError: the session does not exist.
            ValueError: ``run_id`` or ``owner`` is empty or no text.
        """
        raise NotImplementedError(self._owns_nothing())

    async def renew(self, lease: Lease) -> str | None:
        """Let the lease begin its time anew. Return why the holder should stop, if it should.

        The reason is that of the last `ask_to_stop` of this lease; it is returned each time. A
        lease that has expired, and that nobody took, is extended.

        Raises:
            LeaseLostError: it is no longer the session's.
            SessionNotFoundError: the session was deleted.
        """
        raise NotImplementedError(self._owns_nothing())

    async def release(self, lease: Lease, *, unfinished: Unfinished | None = None) -> None:
        """Give the session back. With ``unfinished`` it remembers the run, and that it ended so.

        Without, the run is forgotten. Idempotent: nothing happens if the lease is no longer the
        session's, or the session is gone.
        """
        raise NotImplementedError(self._owns_nothing())

    async def ask_to_stop(self, key: SessionKey, reason: str) -> bool:
        """Leave a word for whoever holds the session, whose next `renew` returns it.

        False if there is nobody: no lease is live, or there is no such session.

        Raises:
            ValueError: ``reason`` is empty or no text.
        """
        raise NotImplementedError(self._owns_nothing())

    async def unfinished(
        self, *, app_name: str, user_id: str | None = None
    ) -> builtins.list[UnfinishedRun]:
        """Return the application's runs (of one user) that did not end, by user and session id."""
        raise NotImplementedError(self._owns_nothing())

    def _owns_nothing(self) -> str:
        return (
            f"{type(self).__name__} does not keep track of whose a session is (its `owns` is "
            "False): any number of runs may write to one, and a conflict is found at the append"
        )

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

    def subscribe(self, key: SessionKey, *, after: int = 0) -> AsyncIterator[Event]:
        """Return an iterator of the events with a number above ``after``: stored ones, then new.

        In the order of their numbers, each once, none left out, whoever appends them: this
        service or another, in this process or elsewhere. It never ends by itself.

        It needs no closing: leave the loop and forget it. Each step is a checkpoint. A step that
        was cancelled, or failed, has lost nothing, and the next goes on at the same place. One
        task at a time reads it. A slow reader costs nothing: events wait in the log, not here.

        Raises, at a step:
            SessionNotFoundError: there is no such session, or it was deleted meanwhile (also if
                there is a new one of this name since).
            StoreError: the store failed; the next step tries again.
            trio.BusyResourceError: another task is waiting for the next event.

        Raises:
            ValueError: ``after`` is no whole number from 0 on.
        """
        # A service that can wake who waits, or read a part of what is stored, does better.
        return Subscription(key, after, PolledLog(self, key, SessionNotFoundError))

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
