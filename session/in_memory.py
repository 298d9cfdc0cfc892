"""Sessions in this process's memory: the default service, and the reference for all others.

Append is O(1) in the length of the log and the size of the state. Nothing here awaits, so
nothing can be seen half done by another task of the same loop; the service is not meant to be
shared between threads.
"""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import attrs

from session.event import Event, SealedEvent, stamp_delta, stamp_seq
from session.service import (
    SequenceConflictError,
    SessionExistsError,
    SessionInfo,
    SessionNotFoundError,
    SessionService,
    check_batch,
    check_whole,
)
from session.session import Session, SessionKey
from session.state import APP_PREFIX, USER_PREFIX, freeze, without_temp

__all__ = ["InMemorySessionService"]


@attrs.define(eq=False)
class _Stored:
    events: list[Event] = attrs.field(factory=list[Event])
    state: dict[str, Any] = attrs.field(factory=dict[str, Any])
    last_update_time: float = 0.0


def _random_id() -> str:
    return str(uuid4())


class InMemorySessionService(SessionService):
    """Keeps sessions for as long as it lives itself.

    Args:
        clock: seconds since the epoch, for the creation time of sessions.
        new_id: makes the ids of sessions that were not given one.
    """

    blocks = False

    def __init__(
        self, *, clock: Callable[[], float] = time.time, new_id: Callable[[], str] = _random_id
    ) -> None:
        """Start empty."""
        self._clock = clock
        self._new_id = new_id
        self._sessions: dict[SessionKey, _Stored] = {}
        self._app_state: dict[str, dict[str, Any]] = {}
        self._user_state: dict[tuple[str, str], dict[str, Any]] = {}

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
        self._sessions.pop(SessionKey(app_name, user_id, session_id), None)

    async def append(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        """See `SessionService.append`."""
        self.append_nowait(key, events, expected_seq=expected_seq)

    def append_nowait(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        """Do the same without being awaited."""
        stored = self._sessions.get(key)
        if stored is None:
            raise SessionNotFoundError(key)
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
            for name in delta:
                if ":" in name:  # perhaps a scope's prefix
                    self._write_scoped(key, stored, event)
                    break
            else:
                state.update(delta)
        log.extend(events)
        if events:
            stored.last_update_time = events[-1].timestamp

    async def restore(self, session: Session) -> None:
        """See `SessionService.restore`."""
        key = session.key
        check_whole(session)
        if key in self._sessions:
            raise SessionExistsError(key)
        state = without_temp(freeze(dict(session.state), "state"))
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
