"""A session: the log of what happened, and the state that follows from it.

`Session` is a fold over events. Nothing but `Session.apply` changes it, and a session built from
the same start and the same log is the same session. It is a value of its owner's: what a
service hands out is not connected to what the service keeps.

Pure values: no I/O, no clock, no event loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from session.event import Event
from session.state import FrozenDict, check_key, freeze, frozen_dict, without_temp

__all__ = ["Session", "SessionKey", "fold"]


def _is_name(_instance: object, attribute: attrs.Attribute[str], value: object) -> None:
    if not isinstance(value, str) or not value:
        message = f"{attribute.name} must be text that is not empty, not {value!r}"
        raise ValueError(message)
    # A database could not look for it.
    freeze(value, attribute.name)
    check_key(value, attribute.name)


@attrs.frozen(cache_hash=True)  # looked up for every append
class SessionKey:
    """What names a session: its application, its user, and an id unique under the two."""

    app_name: str = attrs.field(validator=_is_name)
    user_id: str = attrs.field(validator=_is_name)
    session_id: str = attrs.field(validator=_is_name)

    def __str__(self) -> str:
        return f"{self.app_name}/{self.user_id}/{self.session_id}"


def fold(start: Mapping[str, Any], events: Iterable[Event]) -> dict[str, Any]:
    """Return the state that ``events``, in their order, make of ``start``.

    ``temp:`` keys are left out: they are never stored, so no log holds them.
    """
    state = dict(without_temp(start))
    for event in events:
        if not event.partial:
            state.update(without_temp(event.state_delta))
            for key in event.state_unset:
                state.pop(key, None)
    return state


@attrs.define(eq=False)
class Session:
    """One session as its reader sees it now.

    Attributes:
        key: its name.
        events: the log, oldest first; the last ones only, if it was read with a window.
        state: keys of every scope, with their prefixes; values are immutable.
        last_seq: the sequence number of the newest event in the log; 0 before the first.
        last_update_time: when that was recorded, seconds since the epoch.
    """

    key: SessionKey
    events: list[Event] = attrs.field(factory=list[Event])
    state: dict[str, Any] = attrs.field(factory=dict[str, Any])
    last_seq: int = 0
    last_update_time: float = 0.0

    @property
    def id(self) -> str:
        """The session id."""
        return self.key.session_id

    @property
    def app_name(self) -> str:
        """The application it belongs to."""
        return self.key.app_name

    @property
    def user_id(self) -> str:
        """The user it belongs to."""
        return self.key.user_id

    def apply(self, event: Event) -> None:
        """Add a recorded event and what it changes. Cost does not depend on the log's length."""
        self.events.append(event)
        self.last_seq = event.seq or self.last_seq
        self.last_update_time = event.timestamp
        delta = event.delta
        if delta:
            self.state.update(delta)
            for key in event.state_unset:
                self.state.pop(key, None)

    def snapshot(self) -> FrozenDict:
        """Return the state as it is now, read-only, without the ``temp:`` keys."""
        # The values are frozen: each came in a delta, or from a service.
        return frozen_dict(without_temp(self.state))

    def __repr__(self) -> str:
        return f"<Session {self.key}: {len(self.events)} events, last {self.last_seq}>"
