"""State as one branch sees it: what is shared, and its own writes that are still on their way.

Three layers, newest first: *pending* (written, not emitted yet), *in flight* (emitted, not
handed out), *shared* (handed out; what everybody sees). Record order decides between branches,
and a write is visible to its own branch at once.

Sync throughout: nothing here blocks, so a reader always sees all of an event's writes or none.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

from parallel_agent.errors import ActivationEndedError, StateError
from parallel_agent.lane import FREE, IN_FLIGHT, Lane, Slot
from parallel_agent.shared_state import MISSING, Contributions, Layer, SharedState, combined
from session.actions import EMPTY
from session.event import Event, stamp_delta
from session.state import TEMP_PREFIX, FrozenDict, UnstorableError, check_key, freeze, same

__all__ = ["State"]

_SHORT_INT: Final = 64
"""Bits of an integer that needs no further check."""

_SHORT_KEY: Final = 100
"""Letters of a key of whose length nothing more need be asked."""


class _Writes(dict[str, Any]):
    """Pending writes. Same layout as `FrozenDict`, so that emitting them is one assignment."""

    __slots__ = ()


class State(Mapping[str, Any]):
    """The session's state, as the agent holding this context sees it.

    Reads like a dict of JSON values that cannot be changed in place. ``state["k"] = value``
    records the write with the next event the agent emits (or with one of its own, when the agent
    ends, starts a child or asks for something before that). The agent's own branch sees it at
    once, everybody else when that event is handed out. Writing what is already there is no
    write.

    Keys with a prefix: ``app:`` and ``user:`` are shared beyond the session, ``temp:`` lives for
    the run and is never stored. A key cannot be deleted, as in ADK: write None.
    """

    __slots__ = ("_has_late", "_lane", "_shared", "_state", "ended", "layer", "pending")

    def __init__(self, shared: SharedState, lane: Lane, layer: Layer | None = None) -> None:
        """See through ``lane`` onto ``shared``, or onto the ``layer`` of an attempt."""
        self._shared = shared
        self._state: Mapping[str, Any] = shared.session.state if layer is None else layer
        self.layer = layer
        self._lane = lane
        self.pending = _Writes()
        # Some pending write must be split off when it is emitted (see `SharedState.split`).
        self._has_late = False
        self.ended = False

    def __getitem__(self, key: str) -> Any:
        value = self._visible(key)
        if value is MISSING:
            near = difflib.get_close_matches(str(key), self._keys(), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            message = f"{key!r} was never written to state{hint}"
            raise KeyError(message)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of ``key``, or ``default`` if it was never written."""
        value = self._visible(key)
        return default if value is MISSING else value

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._visible(key) is not MISSING

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys())

    def __len__(self) -> int:
        return len(self._keys())

    def __setitem__(self, key: str, value: Any) -> None:
        """Write ``value``, recorded with the next event.

        Raises:
            UnstorableError: the value (or the key) has no JSON form, or the key is too long.
            SchemaError: the runner has a state schema, and the write does not fit it.
            StateError: the key has a reducer; see `contribute`.
        """
        kind: type[object] = type(value)  # pyright: ignore[reportUnknownVariableType]  # Any
        simple = (kind is int and value.bit_length() <= _SHORT_INT) or (
            kind is str and value.isascii()
        )
        if not simple or type(key) is not str or len(key) > _SHORT_KEY or not key.isascii():
            value = _frozen(key, value)
        if key in self._shared.reducers:
            message = (
                f"state[{key!r}] has a reducer, so it is contributed to, not assigned: "
                f"ctx.state.contribute({key!r}, value)"
            )
            raise StateError(message)
        if self._shared.schema is not None:
            self._shared.schema.check(key, value)
        lane = self._lane
        if not self.pending and lane.slot is not None and lane.slot.state == FREE:
            visible = self._state.get(key, MISSING)  # as `_visible` would find, without the call
        else:
            visible = self._visible(key)
        if simple:
            changed = type(visible) is not kind or visible != value
        else:
            changed = visible is MISSING or not same(visible, value)
        if changed:
            if self.ended:
                self._refuse_write(key)
            self.pending[key] = value
            if key.startswith(TEMP_PREFIX):
                self._has_late = True

    def contribute(self, key: str, value: Any) -> None:
        """Add ``value`` to a key that has a reducer; recorded with the next event.

        Contributions are combined in the order in which their events are recorded, so none is
        lost, whichever branches of this run contribute at the same time. (Another run's to an
        ``app:`` or ``user:`` key are seen as of this run's start.) Combining costs what the
        reducer costs: ``append`` copies the list, so it is not for lists of thousands. With a
        state schema, the result must fit; if not, the event is refused.

        Raises:
            UnstorableError: the value has no JSON form.
            StateError: the key has no reducer.
        """
        if key not in self._shared.reducers:
            message = (
                f"state[{key!r}] has no reducer; declare one: "
                f"Runner(tree, reducers={{{key!r}: 'append'}})"
            )
            raise StateError(message)
        if self.ended:
            self._refuse_write(key)
        frozen = _frozen(key, value)
        earlier = self.pending.get(key)
        self._has_late = True
        self.pending[key] = Contributions(
            (*earlier.items, frozen) if earlier is not None else (frozen,)
        )

    def update(self, values: Mapping[str, Any]) -> None:
        """Write several keys; all of them, or none if one cannot be stored."""
        before = _Writes(self.pending)
        try:
            for key, value in values.items():
                self[key] = value
        except BaseException:
            self.pending = before
            raise

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of ``key``; write ``default`` first if it was never written."""
        if key not in self:
            self[key] = default
        return self[key]

    def to_dict(self) -> dict[str, Any]:
        """Return everything this agent sees, as an ordinary dict."""
        return {key: self[key] for key in self._keys()}

    def _refuse_write(self, key: str) -> NoReturn:
        message = (
            f"state[{key!r}] cannot be written any more: the agent this context was made for has "
            "ended, and no event would record it"
        )
        raise ActivationEndedError(message)

    def __delitem__(self, key: str) -> None:
        message = f"a state key cannot be deleted; write None: ctx.state[{key!r}] = None"
        raise StateError(message)

    def __repr__(self) -> str:
        return f"<State {', '.join(sorted(self._keys()))}>"

    def _keys(self) -> dict[str, None]:
        keys = dict.fromkeys(self._state)
        for slot in reversed(self._in_flight()):
            keys.update(dict.fromkeys(slot.late or ()))
            if slot.event is not None and not slot.event.partial:
                keys.update(dict.fromkeys(slot.event.delta))
        keys.update(dict.fromkeys(self.pending))
        return keys

    def _visible(self, key: str) -> Any:
        lane = self._lane
        slot = lane.slot
        if (
            not self.pending
            and lane.flight is None
            and (slot is None or slot.state not in IN_FLIGHT)
        ):
            return self._state.get(key, MISSING)
        contributions: list[Contributions] = []
        found = self.pending.get(key, MISSING)
        if isinstance(found, Contributions):
            contributions.append(found)
            found = MISSING
        if found is MISSING:
            for slot in self._in_flight():
                found = _in_slot(slot, key)
                if isinstance(found, Contributions):
                    contributions.append(found)
                    found = MISSING
                elif found is not MISSING:
                    break
        if found is MISSING:
            found = self._state.get(key, MISSING)
        for contribution in reversed(contributions):
            found = self._shared.reduce(key, found, contribution.items)
        return found

    def _in_flight(self) -> list[Slot]:
        """Return what is on its way and to be seen, newest first.

        Not so what an attempt that has failed has left on its way.
        """
        layer = self.layer
        return [
            slot
            for slot in self._lane.in_flight()
            if slot.layer is None or (layer is not None and layer.lies_on(slot.layer))
        ]

    # The runtime's side.

    def under(self, layer: Layer) -> State:
        """Return what sees as this one does, but onto ``layer``."""
        return type(self)(self._shared, self._lane, layer)

    def plain_pending(self) -> dict[str, Any]:
        """Return a copy of the writes that go with the next event, without contributions."""
        return {
            key: value
            for key, value in self.pending.items()
            if not isinstance(value, Contributions)
        }

    def forget(self, writes: Mapping[str, Any]) -> None:
        """Forget the writes that came with an event that is dropped; not what was written since."""
        pending = self.pending
        for key, value in writes.items():
            now = pending.get(key, MISSING)
            if now is value:
                del pending[key]
            elif isinstance(now, Contributions) and isinstance(value, Contributions):
                pending[key] = Contributions(now.items[len(value.items) :])

    def attach(self, event: Event, slot: Slot) -> None:
        """Let ``event``, about to be queued in ``slot``, take the pending writes along."""
        writes = self.pending
        explicit = event.delta
        if self.layer is not None:
            # Not recorded with this event, but with the one that ends an attempt that succeeds.
            self.pending = _Writes()
            plain, late_writes = self._shared.split(writes, explicit)
            slot.writes = writes
            slot.late = {**plain, **(late_writes or {})}
            slot.layer = self.layer
            stamp_delta(event, EMPTY)
            return
        if writes:
            self.pending = _Writes()
            late, self._has_late = self._has_late, False
            if not late and not explicit:
                writes.__class__ = FrozenDict  # type: ignore[assignment]  # same layout; a flip, not a copy: nobody else holds it
                slot.writes = writes
                stamp_delta(event, writes)
                return
            slot.writes = writes
        elif not self._shared.is_late(explicit):
            return
        delta, slot.late = self._shared.split(writes, explicit)
        stamp_delta(event, delta)

    def take_back(self, writes: Mapping[str, Any]) -> None:
        """Make the writes of a withdrawn event pending again, below what was written since."""
        self._has_late = True
        pending = self.pending
        for key, value in writes.items():
            later = pending.get(key, MISSING)
            if later is MISSING:
                pending[key] = value
            else:
                pending[key] = combined(value, later)

    def absorb(self, writes: Mapping[str, Any]) -> None:
        """Make the writes of an attempt that has succeeded pending here."""
        self._has_late = True
        for key, value in writes.items():
            if isinstance(value, Contributions) or not same(self._visible(key), value):
                self.pending[key] = combined(self.pending.get(key), value)


def _frozen(key: object, value: Any) -> Any:
    if type(key) is not str:
        message = f"a state key is text, not {key!r}"
        raise StateError(message)
    try:
        freeze(key)
        check_key(key, "")
        return freeze(value)
    except UnstorableError as exc:
        # The path is put together here, not on the way in: writes that fit are the rule.
        separator = "" if exc.path.startswith("[") or not exc.path else "."
        raise UnstorableError(f"state[{key!r}]{separator}{exc.path}", exc.why) from None


def _in_slot(slot: Slot, key: str) -> Any:
    if slot.late is not None and key in slot.late:
        return slot.late[key]
    event = slot.event
    if event is None or event.partial:
        return MISSING
    return event.delta.get(key, MISSING)
