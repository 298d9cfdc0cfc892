"""Sessions in this process's memory: the default service, and the reference for all others.

Append is O(1) in the length of the log and the size of the state. Nothing here awaits, so
nothing can be seen half done by another task of the same loop; the service is not meant to be
shared between threads. A lease never expires: whoever holds it is in this process.
"""

from __future__ import annotations

import builtins
import itertools
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final
from uuid import uuid4

import attrs

from session.errors import (
    LeaseLostError,
    SequenceConflictError,
    SessionBusyError,
    SessionExistsError,
    SessionNotFoundError,
)
from session.event import Event, SealedEvent, stamp_delta, stamp_seq
from session.lease import (
    Lease,
    Unfinished,
    UnfinishedRun,
    check_lease,
    check_unfinished,
    check_words,
)
from session.service import SessionInfo, SessionService, check_batch, check_whole
from session.session import Session, SessionKey
from session.state import APP_PREFIX, USER_PREFIX, check_keys, freeze, without_temp
from session.watching import PAGE, Bell, Bells, Subscription

__all__ = ["InMemorySessionService"]


@attrs.define(eq=False)
class _Stored:
    events: list[Event] = attrs.field(factory=list[Event])
    state: dict[str, Any] = attrs.field(factory=dict[str, Any])
    last_update_time: float = 0.0
    lease: Lease | None = None
    # What the holder was asked, why to stop.
    stop: str | None = None
    # The run that has not finished, and how it ended; None: it has not ended.
    unfinished: tuple[str, Unfinished | None] | None = None


def _random_id() -> str:
    return str(uuid4())


class InMemorySessionService(SessionService):
    """Keeps sessions for as long as it lives itself.

    Args:
        clock: seconds since the epoch, for the creation time of sessions.
        new_id: makes the ids of sessions that were not given one.
    """

    blocks = False
    owns = True

    def __init__(
        self, *, clock: Callable[[], float] = time.time, new_id: Callable[[], str] = _random_id
    ) -> None:
        """Start empty."""
        self._clock = clock
        self._new_id = new_id
        self._sessions: dict[SessionKey, _Stored] = {}
        self._app_state: dict[str, dict[str, Any]] = {}
        self._user_state: dict[tuple[str, str], dict[str, Any]] = {}
        self._bells = Bells()
        self._hanging = self._bells.hanging
        # One count for all: a session that is made again knows no lease of the one before.
        self._tokens = itertools.count(1)

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
        if key in self._sessions:
            raise SessionExistsError(key)
        start = without_temp(freeze(dict(state or {}), "state"))
        check_keys(start, "state")
        stored = self._sessions[key] = _Stored(last_update_time=self._clock())
        self._write(key, stored, start)
        return self._read(key, stored, list(stored.events))

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
        """See `SessionService.get`."""
        key = SessionKey(app_name, user_id, session_id)
        stored = self._sessions.get(key)
        if stored is None:
            return None
        # Sequence numbers have no gaps and start at 1, so they index the log.
        events = stored.events[max(after_sequence or 0, 0) :]
        if after is not None:
            events = [event for event in events if event.timestamp >= after]
        if num_recent_events is not None:
            events = events[-num_recent_events:] if num_recent_events > 0 else []
        return self._read(key, stored, events)

    async def list(self, *, app_name: str, user_id: str | None = None) -> list[SessionInfo]:
        """See `SessionService.list`."""
        found = [
            SessionInfo(key, len(stored.events), stored.last_update_time)
            for key, stored in self._sessions.items()
            if key.app_name == app_name and user_id in (None, key.user_id)
        ]
        return sorted(found, key=lambda info: (info.key.user_id, info.key.session_id))

    async def delete(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """See `SessionService.delete`."""
        key = SessionKey(app_name, user_id, session_id)
        self._sessions.pop(key, None)
        self._bells.ring([key])

    async def append(
        self,
        key: SessionKey,
        events: Sequence[Event],
        *,
        expected_seq: int,
        lease: Lease | None = None,
    ) -> None:
        """See `SessionService.append`."""
        self.append_nowait(key, events, expected_seq=expected_seq, lease=lease)

    # One function: done for every event of every run, and each call would cost a tenth.
    def append_nowait(  # noqa: C901, PLR0912
        self,
        key: SessionKey,
        events: Sequence[Event],
        *,
        expected_seq: int,
        lease: Lease | None = None,
    ) -> None:
        """Do the same without being awaited."""
        stored = self._sessions.get(key)
        if stored is None:
            raise SessionNotFoundError(key)
        if lease is not None and lease is not stored.lease:
            self._check_lease(key, stored, lease)
        log = stored.events
        seq = len(log)
        if seq != expected_seq:
            raise SequenceConflictError(key, expected=expected_seq, actual=seq)
        for event in events:
            if event.seq is not None or event.partial or type(event) is not SealedEvent:
                check_batch(events)
        if len(events) > 1:
            check_batch(events)
        state = stored.state
        for event in events:
            seq += 1
            stamp_seq(event, seq)
            delta = event.delta
            if not delta:
                continue
            for name in delta:
                if ":" in name:  # perhaps a scope's prefix
                    self._write_scoped(key, stored, event)
                    break
            else:
                state.update(delta)
            # Not `state_unset`: a property costs a tenth of the append.
            actions = event._actions  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            if actions is not None and actions.state_unset:
                for name in actions.state_unset:
                    state.pop(name, None)
        log.extend(events)
        if events:
            stored.last_update_time = events[-1].timestamp
        if self._hanging:
            self._bells.ring([key])

    def subscribe(self, key: SessionKey, *, after: int = 0) -> AsyncIterator[Event]:
        """See `SessionService.subscribe`. An append wakes who waits."""
        return Subscription(key, after, _Log(key, self._sessions, self._bells))

    async def acquire(
        self, key: SessionKey, *, run_id: str, owner: str, resumable: bool = False
    ) -> Lease:
        """See `SessionService.acquire`. The lease never expires."""
        check_words("run_id", run_id)
        check_words("owner", owner)
        stored = self._sessions.get(key)
        if stored is None:
            raise SessionNotFoundError(key)
        held = stored.lease
        if held is not None:
            raise SessionBusyError(key, owner=held.owner, run_id=held.run_id)
        lease = stored.lease = Lease(key, run_id, owner, next(self._tokens), math.inf)
        stored.unfinished = (run_id, None) if resumable else None
        return lease

    async def renew(self, lease: Lease) -> str | None:
        """See `SessionService.renew`."""
        stored = self._sessions.get(lease.key)
        if stored is None:
            raise SessionNotFoundError(lease.key)
        self._check_lease(lease.key, stored, lease)
        return stored.stop

    async def release(self, lease: Lease, *, unfinished: Unfinished | None = None) -> None:
        """See `SessionService.release`."""
        check_unfinished(unfinished)
        stored = self._sessions.get(lease.key)
        if stored is None or stored.lease != lease:
            return
        stored.lease = stored.stop = None
        stored.unfinished = None if unfinished is None else (lease.run_id, unfinished)

    async def ask_to_stop(self, key: SessionKey, reason: str) -> bool:
        """See `SessionService.ask_to_stop`."""
        check_words("reason", reason)
        stored = self._sessions.get(key)
        if stored is None or stored.lease is None:
            return False
        stored.stop = reason
        return True

    async def unfinished(
        self, *, app_name: str, user_id: str | None = None
    ) -> builtins.list[UnfinishedRun]:
        """See `SessionService.unfinished`. It costs the sessions there are."""
        found: builtins.list[UnfinishedRun] = []
        for key, stored in self._sessions.items():
            if stored.unfinished is None or key.app_name != app_name:
                continue
            if user_id not in (None, key.user_id):
                continue
            run_id, ended = stored.unfinished
            owner = stored.lease.owner if stored.lease is not None else None
            time = stored.last_update_time
            found.append(UnfinishedRun(key, run_id, ended or "running", owner, time))
        return sorted(found, key=lambda run: (run.key.user_id, run.key.session_id))

    def _check_lease(self, key: SessionKey, stored: _Stored, lease: Lease) -> None:
        check_lease(key, lease)
        # Not the same object: perhaps its holder keeps a copy.
        if stored.lease != lease:
            raise LeaseLostError(lease)

    async def restore(self, session: Session) -> None:
        """See `SessionService.restore`."""
        key = session.key
        check_whole(session)
        if key in self._sessions:
            raise SessionExistsError(key)
        state = without_temp(freeze(dict(session.state), "state"))
        check_keys(state, "state")
        stored = self._sessions[key] = _Stored(
            list(session.events), last_update_time=session.last_update_time
        )
        there = self._read(key, stored, [])
        self._write(key, stored, {k: v for k, v in state.items() if k not in there.state})

    def _write_scoped(self, key: SessionKey, stored: _Stored, event: Event) -> None:
        kept = without_temp(event.delta)
        stamp_delta(event, kept)
        self._write(key, stored, kept)

    def _write(self, key: SessionKey, stored: _Stored, delta: Mapping[str, Any]) -> None:
        for name, value in delta.items():
            if name.startswith(APP_PREFIX):
                self._app_state.setdefault(key.app_name, {})[name] = value
            elif name.startswith(USER_PREFIX):
                self._user_state.setdefault((key.app_name, key.user_id), {})[name] = value
            else:
                stored.state[name] = value

    def _read(self, key: SessionKey, stored: _Stored, events: builtins.list[Event]) -> Session:
        state = {
            **self._app_state.get(key.app_name, {}),
            **self._user_state.get((key.app_name, key.user_id), {}),
            **stored.state,
        }
        return Session(key, events, state, len(stored.events), stored.last_update_time)


class _Log:
    """A log that says when it grows."""

    def __init__(
        self, key: SessionKey, sessions: Mapping[SessionKey, _Stored], bells: Bells
    ) -> None:
        self._key: Final = key
        self._sessions: Final = sessions
        self._bells: Final = bells
        self._stored: _Stored | None = None

    async def read(self, after: int) -> Sequence[Event]:
        stored = self._sessions.get(self._key)
        if stored is None or self._stored not in (None, stored):
            raise SessionNotFoundError(self._key)
        self._stored = stored
        return stored.events[after : after + PAGE]

    def hung(self) -> AbstractContextManager[Bell]:
        return self._bells.hung(self._key)

    async def wait(self, bell: Bell) -> None:
        await bell.wait()
