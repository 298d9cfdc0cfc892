"""State as one branch sees it: what is shared, and its own writes that are still on their way.

Three layers, newest first: *pending* (written, not emitted yet), *in flight* (emitted, not
handed out), *shared* (handed out; what everybody sees). Record order decides between branches,
and a write is visible to its own branch at once.

Sync throughout: nothing here blocks, so a reader always sees all of an event's writes or none.
"""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NoReturn

import attrs

from parallel_agent.branch import NEWEST, Branch
from parallel_agent.errors import ActivationEndedError, StateConflictError, StateError, note_reducer
from parallel_agent.lane import FREE, IN_FLIGHT, Lane, Slot
from parallel_agent.state_schema import StateSchema
from session.event import Event, stamp_delta
from session.session import Session
from session.state import (
    TEMP_PREFIX,
    FrozenDict,
    Reducer,
    UnstorableError,
    freeze,
    frozen_dict,
    same,
)

__all__ = ["OnConflict", "SharedState", "State"]

OnConflict = Literal["last", "error"]

_MISSING: Final[Any] = object()

_SHORT_INT: Final = 64
"""Bits of an integer that needs no further check."""


class _Writes(dict[str, Any]):
    """Pending writes. Same layout as `FrozenDict`, so that emitting them is one assignment."""

    __slots__ = ()


@attrs.define(eq=False)
class _Contributions:
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
            (late if isinstance(value, _Contributions) or key.startswith(TEMP_PREFIX) else plain)[
                key
            ] = value
        for key, value in explicit.items():
            if key in reducers:
                earlier = late.get(key)
                late[key] = _Contributions(
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
        if self.check_conflicts:
            conflict = self._conflict(slot.lane.branch, _assigned(slot, delta))
            if conflict is not None:
                # Refused for good: handing them back would refuse the next event, too.
                slot.writes = None
                return conflict
        if slot.late:
            refusal = self._settle(slot, event, before)
            if refusal is not None:
                return refusal
        if self.check_conflicts:
            branch = slot.lane.branch
            for key in _assigned(slot, delta):
                self._writers[key] = (branch, event)
        return None

    def _settle(self, slot: Slot, event: Event, before: deque[Slot]) -> BaseException | None:
        recorded: dict[str, Any] = {}
        temporary: dict[str, Any] = {}
        for key, value in (slot.late or {}).items():
            settled = value
            if isinstance(value, _Contributions):
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
        value = None if current is _MISSING else current
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
            if event is None or event.partial:
                continue
            for settled in (slot.temporary, event.delta):
                if settled is not None and key in settled:
                    return settled[key]
        return self.session.state.get(key, _MISSING)

    def _conflict(self, branch: Branch, keys: list[str]) -> StateConflictError | None:
        for key in keys:
            if key not in self._writers:
                continue
            writer, event = self._writers[key]
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
    return [*delta, *(key for key, value in late.items() if not isinstance(value, _Contributions))]


def _in_slot(slot: Slot, key: str) -> Any:
    if slot.late is not None and key in slot.late:
        return slot.late[key]
    event = slot.event
    if event is None or event.partial:
        return _MISSING
    return event.delta.get(key, _MISSING)


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

    __slots__ = ("_has_late", "_lane", "_shared", "_state", "ended", "pending")

    def __init__(self, shared: SharedState, lane: Lane) -> None:
        """See through ``lane`` onto ``shared``."""
        self._shared = shared
        self._state = shared.session.state
        self._lane = lane
        self.pending = _Writes()
        # Some pending write must be split off when it is emitted (see `SharedState.split`).
        self._has_late = False
        self.ended = False

    def __getitem__(self, key: str) -> Any:
        value = self._visible(key)
        if value is _MISSING:
            near = difflib.get_close_matches(str(key), self._keys(), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            message = f"{key!r} was never written to state{hint}"
            raise KeyError(message)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of ``key``, or ``default`` if it was never written."""
        value = self._visible(key)
        return default if value is _MISSING else value

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._visible(key) is not _MISSING

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys())

    def __len__(self) -> int:
        return len(self._keys())

    def __setitem__(self, key: str, value: Any) -> None:
        """Write ``value``, recorded with the next event.

        Raises:
            UnstorableError: the value (or the key) has no JSON form.
            SchemaError: the runner has a state schema, and the write does not fit it.
            StateError: the key has a reducer; see `contribute`.
        """
        kind: type[object] = type(value)  # pyright: ignore[reportUnknownVariableType]  # Any
        simple = (kind is int and value.bit_length() <= _SHORT_INT) or (
            kind is str and value.isascii()
        )
        if not simple or type(key) is not str or not key.isascii():
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
            visible = self._state.get(key, _MISSING)  # as `_visible` would find, without the call
        else:
            visible = self._visible(key)
        if simple:
            changed = type(visible) is not kind or visible != value
        else:
            changed = visible is _MISSING or not same(visible, value)
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
        self.pending[key] = _Contributions(
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
        for slot in reversed(self._lane.in_flight()):
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
            return self._state.get(key, _MISSING)
        contributions: list[_Contributions] = []
        found = self.pending.get(key, _MISSING)
        if isinstance(found, _Contributions):
            contributions.append(found)
            found = _MISSING
        if found is _MISSING:
            for slot in lane.in_flight():
                found = _in_slot(slot, key)
                if isinstance(found, _Contributions):
                    contributions.append(found)
                    found = _MISSING
                elif found is not _MISSING:
                    break
        if found is _MISSING:
            found = self._state.get(key, _MISSING)
        for contribution in reversed(contributions):
            found = self._shared.reduce(key, found, contribution.items)
        return found

    # The runtime's side.

    def plain_pending(self) -> dict[str, Any]:
        """Return a copy of the writes that go with the next event, without contributions."""
        return {
            key: value
            for key, value in self.pending.items()
            if not isinstance(value, _Contributions)
        }

    def attach(self, event: Event, slot: Slot) -> None:
        """Let ``event``, about to be queued in ``slot``, take the pending writes along."""
        writes = self.pending
        explicit = event.delta
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
            later = pending.get(key, _MISSING)
            if later is _MISSING:
                pending[key] = value
            elif isinstance(later, _Contributions) and isinstance(value, _Contributions):
                pending[key] = _Contributions((*value.items, *later.items))


def _frozen(key: object, value: Any) -> Any:
    if type(key) is not str:
        message = f"a state key is text, not {key!r}"
        raise StateError(message)
    try:
        freeze(key)
        return freeze(value)
    except UnstorableError as exc:
        # The path is put together here, not on the way in: writes that fit are the rule.
        separator = "" if exc.path.startswith("[") or not exc.path else "."
        raise UnstorableError(f"state[{key!r}]{separator}{exc.path}", exc.why) from None
