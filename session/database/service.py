"""`DatabaseSessionService`: sessions that outlive the process."""

from __future__ import annotations

import builtins
import os
import time
import weakref
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager
from typing import Any, Final, Self, TypeVar, TypeVarTuple, Unpack, get_args
from uuid import uuid4

import trio

from session.database.leases import Acquire, AskToStop, Release, Renew
from session.database.postgres import PostgresStore
from session.database.reader import Reader, Window
from session.database.schema import Schema, check_prefix
from session.database.sqlite import SqliteStore
from session.database.statements import AT_ONCE
from session.database.store import Durability, Store
from session.database.url import parse_url
from session.database.watch import Watch
from session.database.work import Append, Create, Delete, DeleteBefore, Restore, Work
from session.database.writer import FaultPoints, Writer
from session.errors import SessionNotFoundError
from session.event import Event, stamp_delta, stamp_seq
from session.lease import (
    Lease,
    Unfinished,
    UnfinishedRun,
    check_lease,
    check_unfinished,
    check_words,
)
from session.portable import event_line, header_line, read_lines
from session.service import (
    SessionInfo,
    SessionService,
    check_batch,
    check_page,
    check_whole,
    gather_lines,
)
from session.session import Session, SessionKey
from session.state import check_keys, freeze, without_temp
from session.watching import PAGE, Bell, Subscription

__all__ = ["DatabaseSessionService"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# How much is done between two looks at whether somebody else wants something.
_EVENTS_AT_ONCE: Final = 1_000

_LONGEST: Final = 1e6


def _random_id() -> str:
    return str(uuid4())


class DatabaseSessionService(SessionService):
    """Keeps sessions in a database: an SQLite file, or PostgreSQL.

    ::

        async with DatabaseSessionService("sqlite:///sessions.db") as service:
            result = await Runner(tree, session_service=service).run("hello")

    A file is made on first use, in a folder that exists; a database of a server's must be there,
    with the encoding UTF8. Tables are made, and brought up to date, on first use.

    Any number of services, in any number of processes, may use a database at once; a file, those
    of one machine.

    **Order and cancellation.** An append is done or refused as a whole, in one transaction with
    whatever else waits, and cannot be cancelled half way; nor can a change of any other kind.
    Reading can be cancelled at any time; the thread that reads then ends on its own.

    **Blocking.** The event loop never waits for the database: changes are made by a thread of
    the service's own (on PostgreSQL by a few), reading is done in trio's threads. One service may
    be used from several threads and event loops at once, but not after a fork: make one in each
    process.

    **Closing.** ``async with`` opens at its beginning, so that a bad database is found there, and
    closes at its end. Without it, the first use opens, and `close`, or the service's being
    forgotten, closes.

    Every method raises a `StoreError` when the database fails, and works again when that does.

    Args:
        url: ``sqlite:///file.db``, ``sqlite:////from/the/root.db``, the path of a file, or
            ``postgresql://user:password@host/database``.
        table_prefix: what the names of its tables begin with.
        durability: ``"full"``: what an append has recorded survives a loss of power. ``"normal"``:
            it survives the death of the process; a loss of power may undo the last few appends,
            which is no damage: what is left is what was there a moment before. Faster where the
            disk is slow.
        pool_size: how many reads may go on side by side; on PostgreSQL, writes as well (up to 4).
        busy_timeout: seconds to wait while another process writes, connections are all taken, or
            a server does not answer.
        lease_seconds: how long a session stays busy after the process of its run has died. More
            than its holder needs from one renewal to the next: that is the time between them, and
            what a commit takes when the store is busy (a renewal waits for the group before it),
            or hangs. Too short, and a run that is alive loses its session to another.
        clock: seconds since the epoch, for the creation time of sessions. Leases go by the
            database's own.
        new_id: makes the ids of sessions that were not given one.
        fault_points: for tests of what happens when things go wrong; see `FaultPoints`.

    Raises:
        ValueError: the URL is not of a database that there is a store for, names no file, or
            another argument is out of its range.
    """

    batches = True
    owns = True

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        table_prefix: str = "pa_",
        durability: Durability = "full",
        pool_size: int = 5,
        busy_timeout: float = 30.0,
        lease_seconds: float = 30.0,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = _random_id,
        fault_points: FaultPoints | None = None,
    ) -> None:
        """Open nothing yet."""
        if durability not in get_args(Durability):
            message = f"durability is 'full' or 'normal', not {durability!r:.80}"
            raise ValueError(message)
        if type(pool_size) is not int or pool_size < 1:
            message = f"pool_size is a whole number from 1 on, not {pool_size!r:.80}"
            raise ValueError(message)
        if not isinstance(busy_timeout, int | float) or not 0 <= busy_timeout < _LONGEST:
            message = f"busy_timeout is seconds, from 0 on, not {busy_timeout!r:.80}"
            raise ValueError(message)
        if not isinstance(lease_seconds, int | float) or not 0 < lease_seconds < _LONGEST:
            message = f"lease_seconds is seconds, more than 0, not {lease_seconds!r:.80}"
            raise ValueError(message)
        schema = Schema.of(check_prefix(table_prefix))
        parsed = parse_url(url)
        kind = SqliteStore if parsed.get_backend_name() == "sqlite" else PostgresStore
        self._store: Store = kind(
            parsed,
            schema,
            durability=durability,
            pool=pool_size,
            busy_timeout=busy_timeout,
        )
        self._reader = Reader(self._store)
        self._watch = Watch(self._store)
        self._writer = Writer(self._store, self._watch, fault_points)
        self._pool_size = pool_size
        # One in each event loop: a limiter belongs to one. The pool of connections limits all.
        self._threads = trio.lowlevel.RunVar[trio.CapacityLimiter]("session readers")
        self._lease_seconds = float(lease_seconds)
        self._clock = clock
        self._new_id = new_id
        self._process = os.getpid()
        self._forgotten = weakref.finalize(self, self._writer.forget)

    # Opening and closing.

    async def __aenter__(self) -> Self:
        await self._read(self._store.prepare)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Do what still waits, and close the connections. Idempotent; not cancelled half way.

        Afterwards every method raises `trio.ClosedResourceError`.
        """
        self._forgotten.detach()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._writer.close)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store.label!r})"

    # The contract.

    async def create(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> Session:
        """See `SessionService.create`."""
        key = SessionKey(app_name, user_id, self._new_id() if session_id is None else session_id)
        start = without_temp(freeze(dict(state or {}), "state"))
        check_keys(start, "state")
        created = float(self._clock())
        rows = self._store.rows
        seen: dict[str, str] | None = await self._change(Create(key, rows.state(start), created))
        if seen is None:
            # It is there, and how it looks was lost with the connection.
            session = await self._get(key, Window(num_recent_events=0))
            if session is None:
                raise SessionNotFoundError(key)
            return session
        return Session(key, [], rows.read_state(key, [*seen.items()]), 0, created)

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
        """See `SessionService.get`. It costs the state and the events it returns."""
        key = SessionKey(app_name, user_id, session_id)
        return await self._get(key, Window(num_recent_events, after_sequence, after))

    async def list(self, *, app_name: str, user_id: str | None = None) -> list[SessionInfo]:
        """See `SessionService.list`."""
        return await self._read(self._reader.page, app_name, user_id, None, None)

    async def list_page(
        self,
        *,
        app_name: str,
        user_id: str | None = None,
        after: SessionKey | None = None,
        limit: int = 100,
    ) -> builtins.list[SessionInfo]:
        """See `SessionService.list_page`. It costs what it returns."""
        check_page(app_name, after, limit)
        return await self._read(self._reader.page, app_name, user_id, after, limit)

    async def app_names(self) -> builtins.list[str]:
        """Return the names of the applications that have sessions here, in order."""
        return await self._read(self._reader.app_names)

    async def delete(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """See `SessionService.delete`."""
        await self._change(Delete(SessionKey(app_name, user_id, session_id)))

    async def delete_before(self, *, app_name: str, time: float, user_id: str | None = None) -> int:
        """See `SessionService.delete_before`. A session that is updated meanwhile stays."""
        deleted = 0
        while True:
            count = await self._change(DeleteBefore(app_name, user_id, time))
            deleted += count or 0
            if count is not None and count < AT_ONCE:
                return deleted

    # An interrupt between the commit and the numbers would leave recorded events without.
    @trio.lowlevel.enable_ki_protection
    async def append(
        self,
        key: SessionKey,
        events: Sequence[Event],
        *,
        expected_seq: int,
        lease: Lease | None = None,
    ) -> None:
        """See `SessionService.append`. It costs the events and the keys that they change."""
        check_batch(events)
        if lease is not None:
            check_lease(key, lease)
        self._check_process()
        events = [*events]
        # Here and not in the writer's thread, which is busy while others could be encoded.
        written = self._store.rows.write(events, expected_seq + 1)
        await self._writer.do(Append(key, written, expected_seq, lease))
        for (seq, _, _), event, delta in zip(written.events, events, written.deltas, strict=True):
            stamp_seq(event, seq)
            stamp_delta(event, delta)

    async def acquire(
        self, key: SessionKey, *, run_id: str, owner: str, resumable: bool = False
    ) -> Lease:
        """See `SessionService.acquire`."""
        work = Acquire(
            key,
            run_id=check_words("run_id", run_id),
            owner=check_words("owner", owner),
            seconds=self._lease_seconds,
            resumable=resumable,
        )
        await self._change(work)
        return Lease(key, run_id, owner, work.token, self._lease_seconds)

    async def renew(self, lease: Lease) -> str | None:
        """See `SessionService.renew`."""
        work = Renew(lease)
        await self._change(work)
        return work.stop

    async def release(self, lease: Lease, *, unfinished: Unfinished | None = None) -> None:
        """See `SessionService.release`."""
        check_unfinished(unfinished)
        await self._change(Release(lease, unfinished))

    async def ask_to_stop(self, key: SessionKey, reason: str) -> bool:
        """See `SessionService.ask_to_stop`."""
        asked: bool | None = await self._change(AskToStop(key, check_words("reason", reason)))
        # None: it is there, and the answer was lost with the connection.
        return asked is not False

    async def unfinished(
        self, *, app_name: str, user_id: str | None = None
    ) -> builtins.list[UnfinishedRun]:
        """See `SessionService.unfinished`. It costs what it returns."""
        return await self._read(self._reader.unfinished, app_name, user_id)

    def subscribe(self, key: SessionKey, *, after: int = 0) -> AsyncIterator[Event]:
        """See `SessionService.subscribe`.

        An append of this service wakes who waits. What other processes append is seen within half
        a second in SQLite, where a subscriber that waits costs a short query as often; in
        PostgreSQL, which tells, at once or, if that was lost, within five seconds.

        Raises, at a step:
            trio.ClosedResourceError: the service has been closed.
        """
        return Subscription(key, after, _Log(key, self._watch, self._next_events))

    async def export_session(
        self, *, app_name: str, user_id: str, session_id: str
    ) -> AsyncIterator[str]:
        """See `SessionService.export_session`. Reads a stretch of the log at a time.

        Raises:
            SessionNotFoundError: there is no such session, or it was deleted meanwhile.
        """
        key = SessionKey(app_name, user_id, session_id)
        session = await self._get(key, Window(num_recent_events=0))
        if session is None:
            raise SessionNotFoundError(key)
        yield header_line(session)
        # What lies before the number that the header names does not change any more.
        seq, end = 0, session.last_seq + 1
        while seq < session.last_seq:
            window = Window(after_sequence=seq, before=end, oldest=_EVENTS_AT_ONCE)
            events = await self._read(self._reader.events, key, window)
            if not events:
                raise SessionNotFoundError(key)
            for event in events:
                yield event_line(event)
            seq += len(events)

    async def import_session(self, lines: Iterable[str] | AsyncIterable[str]) -> SessionKey:
        """See `SessionService.import_session`. All of it is held in memory for a while."""
        session = await self._read(read_lines, await gather_lines(lines))
        await self.restore(session)
        return session.key

    async def restore(self, session: Session) -> None:
        """See `SessionService.restore`."""
        check_whole(session)
        rows = self._store.rows
        state = without_temp(freeze(dict(session.state), "state"))
        check_keys(state, "state")
        written = await self._read(rows.write, [*session.events], 1)
        await self._change(
            Restore(
                session.key,
                [*written.events],
                rows.state(state),
                created=float(self._clock()),
                updated=session.last_update_time,
            )
        )

    # How it is done.

    async def _get(self, key: SessionKey, window: Window) -> Session | None:
        return await self._read(self._reader.session, key, window)

    async def _next_events(self, key: SessionKey, after: int) -> tuple[int, Sequence[Event]] | None:
        return await self._read(self._reader.next_events, key, after, PAGE)

    async def _change(self, work: Work) -> Any:
        self._check_process()
        await trio.lowlevel.checkpoint_if_cancelled()
        return await self._writer.do(work)

    async def _read(self, work: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        self._check_process()
        self._writer.check_open()
        try:
            limiter = self._threads.get()
        except LookupError:
            limiter = trio.CapacityLimiter(self._pool_size)
            self._threads.set(limiter)
        return await trio.to_thread.run_sync(work, *args, limiter=limiter, abandon_on_cancel=True)

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            message = (
                f"{self!r} was made before this process was forked off, and connections cannot "
                "be shared. Make a service in each process"
            )
            raise RuntimeError(message)


class _Log:
    """The log of one session. Its own number tells it from another of the same name."""

    def __init__(
        self,
        key: SessionKey,
        watch: Watch,
        read: Callable[[SessionKey, int], Awaitable[tuple[int, Sequence[Event]] | None]],
    ) -> None:
        self._key: Final = key
        self._watch: Final = watch
        self._next_events: Final = read
        self._session: int | None = None
        self.wait: Final = watch.wait

    async def read(self, after: int) -> Sequence[Event]:
        found = await self._next_events(self._key, after)
        if found is None or self._session not in (None, found[0]):
            raise SessionNotFoundError(self._key)
        self._session, events = found
        return events

    def hung(self) -> AbstractContextManager[Bell]:
        return self._watch.hung(self._session)
