"""The rules of state that hold for all branches of one run, and the layers that attempts write to.

Reducers, conflicts, and who wrote last; and, for an agent that may be tried again, a place for
what an attempt writes until it is known whether the attempt succeeds.

Sync throughout: nothing here blocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, final

import attrs

from parallel_agent.branch import NEWEST, Branch, Place
from parallel_agent.errors import StateConflictError
from parallel_agent.lane import Slot
from parallel_agent.notes import note_reducer
from parallel_agent.state_schema import StateSchema
from session.event import Event, stamp_delta
from session.session import Session
from session.state import TEMP_PREFIX, FrozenDict, Reducer, freeze, frozen_dict

__all__ = ["MISSING", "Contributions", "Layer", "OnConflict", "SharedState", "combined"]

OnConflict = Literal["last", "error"]

MISSING: Final[Any] = object()
"""What a key that was never written holds."""


@attrs.define(eq=False)
class Contributions:
    """What one event contributes to a key with a reducer, oldest first."""

    items: tuple[Any, ...]


class SharedState:
    """The rules that hold for all branches of one run: reducers, conflicts, and who wrote last."""

    def __init__(
        self,
        session: Session,
        reducers: Mapping[str, Reducer],
        on_conflict: OnConflict,
        schema: StateSchema | None = None,
    ) -> None:
        """``session`` is the live session; its state is the shared layer."""
        self.session = session
        self.schema = schema
        self.reducers = reducers
        self.check_conflicts = on_conflict == "error"
        self._writers: dict[str, tuple[Branch, Event]] = {}

    def split(
        self, writes: Mapping[str, Any], explicit: Mapping[str, Any]
    ) -> tuple[FrozenDict, dict[str, Any] | None]:
        """Return what an event records of these writes as it stands, and what is settled late.

        Late are contributions (their result depends on what is recorded before them) and
        ``temp:`` keys (never recorded). An event's explicit delta wins over pending writes.
        """
        reducers = self.reducers
        late: dict[str, Any] = {}
        plain: dict[str, Any] = {}
        for key, value in writes.items():
            (late if isinstance(value, Contributions) or key.startswith(TEMP_PREFIX) else plain)[
                key
            ] = value
        for key, value in explicit.items():
            if key in reducers:
                earlier = late.get(key)
                late[key] = Contributions(
                    (*earlier.items, value) if earlier is not None else (value,)
                )
            elif key.startswith(TEMP_PREFIX):
                late[key] = value
            else:
                plain[key] = value
        return frozen_dict(plain), late or None

    def is_late(self, delta: Mapping[str, Any]) -> bool:
        """Whether an explicit delta holds a key that `split` must take out."""
        reducers = self.reducers
        for key in delta:  # noqa: SIM110  # half the time of any()
            if key in reducers or key.startswith(TEMP_PREFIX):
                return True
        return False

    def resolve(self, slot: Slot, before: deque[Slot]) -> BaseException | None:
        """Settle the late writes of a slot about to be recorded, after those of ``before``.

        Returns the error that refuses it, and then changes nothing.
        """
        event = slot.event
        if event is None or event.partial:
            return None
        delta = event.delta
        layer = slot.layer
        writers = self._writers if layer is None else layer.writers
        if self.check_conflicts:
            conflict = _conflict(writers, slot.lane.branch, _assigned(slot, delta))
            if conflict is not None:
                # Refused for good: handing them back would refuse the next event, too.
                slot.writes = None
                return conflict
        if layer is not None:
            slot.temporary = slot.late
        elif slot.late:
            refusal = self._settle(slot, event, before)
            if refusal is not None:
                return refusal
        if self.check_conflicts:
            branch = slot.lane.branch
            for key in _assigned(slot, delta):
                writers[key] = (branch, event)
        return None

    def _settle(self, slot: Slot, event: Event, before: deque[Slot]) -> BaseException | None:
        recorded: dict[str, Any] = {}
        temporary: dict[str, Any] = {}
        for key, value in (slot.late or {}).items():
            settled = value
            if isinstance(value, Contributions):
                try:
                    settled = self.reduce(key, self._recorded(key, before), value.items)
                except BaseException as exc:  # noqa: BLE001  # the user's reducer, or its result
                    slot.writes = None
                    return exc
            (temporary if key.startswith(TEMP_PREFIX) else recorded)[key] = settled
        if recorded:
            stamp_delta(event, frozen_dict({**event.delta, **recorded}))
        slot.temporary = temporary or None
        return None

    def reduce(self, key: str, current: Any, contributions: tuple[Any, ...]) -> Any:
        """Combine ``contributions``, in order, with the key's current value."""
        reducer = self.reducers[key]
        value = None if current is MISSING else current
        for contribution in contributions:
            try:
                value = freeze(reducer(value, contribution), "its result")
            except Exception as exc:
                name = getattr(reducer, "__name__", repr(reducer)).removeprefix("_")
                note_reducer(
                    exc, f"the reducer {name} of state[{key!r}], given {contribution!r:.80}"
                )
                raise
        if self.schema is not None:
            self.schema.check(key, value)
        return value

    def check(self, delta: Mapping[str, Any]) -> None:
        """Refuse an event's explicit delta that does not fit the schema.

        Contributions are checked when they have been combined.
        """
        if self.schema is not None:
            for key, value in delta.items():
                if key not in self.reducers:
                    self.schema.check(key, value)

    def _recorded(self, key: str, before: deque[Slot]) -> Any:
        for slot in reversed(before):
            event = slot.event
            if event is None or event.partial or slot.layer is not None:
                continue  # an attempt's writes are not recorded with it
            for settled in (slot.temporary, event.delta):
                if settled is not None and key in settled:
                    return settled[key]
        return self.session.state.get(key, MISSING)


def _conflict(
    writers: Mapping[str, tuple[Branch, Event]], branch: Branch, keys: list[str]
) -> StateConflictError | None:
    for key in keys:
        if key not in writers:
            continue
        writer, event = writers[key]
        # Without a number yet, it is in the batch being drained: newer than any fork.
        seq = NEWEST if event.seq is None else event.seq
        if seq > branch.limit_for(writer):
            return StateConflictError(key, _name(writer), _name(branch))
    return None


def _name(branch: Branch) -> str:
    return branch.name or "(root)"


def _assigned(slot: Slot, delta: Mapping[str, Any]) -> list[str]:
    """The keys an event assigns: what it records, and what is temporary; no contributions."""
    late = slot.late or {}
    return [*delta, *(key for key, value in late.items() if not isinstance(value, Contributions))]


def combined(earlier: Any, later: Any) -> Any:
    """Return what a key holds after two writes on their way, contributions or values."""
    if isinstance(later, Contributions) and isinstance(earlier, Contributions):
        return Contributions((*earlier.items, *later.items))
    return later


@final
class Layer(Mapping[str, Any]):
    """What the events of one attempt write, until the attempt has succeeded.

    Read like the shared state, on top of which it lies (or on top of the layer of an attempt
    around this one). Written at hand-out, by the stream.
    """

    __slots__ = ("_below", "_shared", "place", "writers", "writes")

    def __init__(self, shared: SharedState, below: Layer | None, place: Place) -> None:
        """Lie on top of ``below``; without it, on the shared state. ``place`` is the attempt's."""
        self._shared = shared
        self.place = place
        self._below: Mapping[str, Any] = shared.session.state if below is None else below
        self.writes: dict[str, Any] = {}
        self.writers: dict[str, tuple[Branch, Event]] = {}

    def lies_on(self, other: object) -> bool:
        """Return whether ``other`` is this layer, or one below it."""
        layer: object = self
        while isinstance(layer, Layer) and layer is not other:
            layer = layer._below  # noqa: SLF001  # another of the same kind
        return layer is other

    def apply(self, writes: Mapping[str, Any]) -> None:
        """Take the writes of an event that is being handed out."""
        for key, value in writes.items():
            self.writes[key] = combined(self.writes.get(key), value)

    def get(self, key: str, default: Any = None) -> Any:
        """Return what the key holds after the writes so far."""
        found = self.writes.get(key, MISSING)
        if found is MISSING:
            return self._below.get(key, default)
        if isinstance(found, Contributions):
            return self._shared.reduce(key, self._below.get(key, MISSING), found.items)
        return found

    def __getitem__(self, key: str) -> Any:
        value = self.get(key, MISSING)
        if value is MISSING:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter({**dict.fromkeys(self._below), **dict.fromkeys(self.writes)})

    def __len__(self) -> int:
        return len({**dict.fromkeys(self._below), **dict.fromkeys(self.writes)})
