"""What the runtime notes of a resumable run, in its log, so that another process can go on with it.

A *record* is an event of the runtime's own, with ``actions.journal``: it says nothing to agents or
readers, and is handed out to nobody. Records of one activation, and those of its parent, are in the
log in the order in which things happened; `parallel_agent.past` reads them.

Blocking: a record of an end is posted, and nobody waits for it: what follows from the end is
recorded after it, so no crash can leave the one without the other. `Journal.write` waits until its
record is in the log, and as durable as the service makes it.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, final

import attrs
from trio.lowlevel import current_task, enable_ki_protection, wait_task_rescheduled

from parallel_agent.activation import Activation
from parallel_agent.branch import Place
from parallel_agent.errors import is_about_effect
from parallel_agent.lane import QUEUED, Lane, Slot
from parallel_agent.lifecycle import Status
from parallel_agent.notes import describe
from parallel_agent.shared_state import MISSING, Contributions, Layer, SharedState
from parallel_agent.stream import Stream
from session.actions import EventActions, sealed_actions
from session.event import Event, stamp_actions, stamp_origin
from session.state import without_temp

__all__ = ["Journal", "digest", "failure_note", "layered"]


def digest(value: Any) -> str:
    """Return what tells one JSON value from another."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def failure_note(error: BaseException) -> dict[str, str]:
    """Return what is noted of a failure."""
    kind = type(error)
    _, said = describe(error)
    return {"kind": f"{kind.__module__}.{kind.__qualname__}", "message": said}


@final
class _Record(Slot):
    """A slot whose event is handed out to nobody. Most of them nobody waits in, either."""

    __slots__ = ()
    shown = False


@final
class _Last(Slot):
    """Like a record; when it is in the log, something is done about it."""

    __slots__ = ("_then",)
    shown = False

    def __init__(self, lane: Lane, then: Callable[[], object]) -> None:
        super().__init__(lane)
        self._then = then

    def acknowledge(self) -> None:
        super().acknowledge()
        self._then()


@final
class Journal:
    """Notes down one run."""

    stream: Stream
    """Where it notes; set before anything happens."""

    def __init__(self, shared: SharedState) -> None:
        """Note, among other things, what is overwritten in ``shared``."""
        self._shared = shared
        self._written: set[str] = set()

    # Records.

    def ended(self, activation: Activation, *, ends: Iterable[Activation] = ()) -> None:
        """Note how an activation has ended; ``ends`` are the siblings that its end will end.

        Not of one that a cancellation of the whole run has ended, that waits for a person, or
        whose events somebody else reads before they count: it will be done again.
        """
        if activation.parent is None and is_about_effect(activation.error):
            # Left to be resumed: whatever failed, or was cancelled, on the way here has not ended.
            event = Event(actions=EventActions(journal={"kind": "unknown"}))
            self._post(activation.lane, activation.place, event)
            return
        if activation.was_over or activation.tap is not None or not self._is_final(activation):
            return
        note: dict[str, Any] = {"kind": "end", "status": str(activation.status)}
        if activation.begun is not activation.place:
            note["begun"] = activation.begun.path
        error = activation.error
        if error is not None:
            note["error"] = failure_note(error)
            note["own"] = activation.own
            note["given_up"] = activation.given_up is not None
        if activation.place.own_attempt != 1:
            note["attempts"] = activation.place.own_attempt
        if activation.own_input:
            note["input"] = digest(activation.input)
        if activation.passed_escalation is not None:
            note["escalated"] = activation.passed_escalation
        received = received_below(activation)
        if received:
            note["received"] = received
        paths = [one.begun.path for one in ends if one is not activation]
        if paths:
            note["ends"] = paths
        note["duration"] = round(activation.duration, 6)
        completed = activation.status is Status.COMPLETED
        actions = EventActions(end_of_agent=True, route=activation.route, journal=note)
        event = Event(output=activation.output if completed else None, actions=actions)
        self._post(activation.lane, activation.place, event)

    def _is_final(self, activation: Activation) -> bool:
        if self.stream.closed:
            return False
        match activation.status:
            case Status.COMPLETED:
                return True
            case Status.FAILED:
                # A group is put together again from the failures below; Ctrl-C is no end.
                error = activation.error
                return isinstance(error, Exception) and not isinstance(error, ExceptionGroup)
            case Status.CANCELLED:
                return not (activation.lane.sealed or activation.root.scope.cancel_called)
            case _:
                return False

    def attempt_failed(self, activation: Activation, error: BaseException) -> None:
        """Note that an attempt has failed, and that another will follow."""
        if activation.tap is None:
            note = {"kind": "attempt", "error": failure_note(error)}
            event = Event(actions=EventActions(journal=note))
            self._post(activation.lane, activation.place, event)

    def refused(self, root: Activation, then: Callable[[], object]) -> None:
        """Note that this execution is of no account; call ``then`` when that is recorded."""
        event = Event(actions=EventActions(journal={"kind": "refused"}))
        self._post(root.lane, root.place, event, _Last(root.lane, then))

    @enable_ki_protection  # an interrupt half way would leave a slot that nobody fills
    def _post(self, lane: Lane, place: Place, event: Event, slot: Slot | None = None) -> None:
        event.seal()
        stamp_origin(event, place)
        slot = _Record(lane) if slot is None else slot
        slot.event = event
        slot.state = QUEUED
        self.stream.queue.append(slot)
        self.stream.announce()

    @enable_ki_protection
    async def write(
        self,
        activation: Activation,
        note: Mapping[str, Any],
        *,
        output: Any = None,
        agent_state: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a record of ``activation`` and wait until it is in the log.

        Cancelled, it may be there or not.

        Raises:
            UnstorableError: ``output`` or ``agent_state`` has no JSON form. Nothing was written.
        """
        if activation.status is not Status.RUNNING or self.stream.closed:
            activation.refuse()
        event = Event(output=output, actions=EventActions(journal=note, agent_state=agent_state))
        slot = _Record(activation.lane)
        slot.emitter = activation
        slot.task = current_task()
        self._post(activation.lane, activation.place, event, slot)
        idle = activation.idle
        if idle is not None:
            idle.pause()
        try:
            await wait_task_rescheduled(slot)
        finally:
            slot.abandon()
            if idle is not None:
                idle.resume()

    # What events overwrite.

    def resolve(self, slot: Slot, before: deque[Slot]) -> BaseException | None:
        """Settle a slot as `SharedState.resolve` does, and note on its event what it overwrites."""
        late = slot.late
        if self._shared.check_conflicts or late is not None:
            refusal = self._shared.resolve(slot, before)
            if refusal is not None:
                return refusal
        event = slot.event
        if event is not None and not event.partial:
            self._note(slot, event, late)
        return None

    def _note(self, slot: Slot, event: Event, late: Mapping[str, Any] | None) -> None:
        undo: dict[str, dict[str, Any]] = {}
        for key in event.delta:
            if ":" in key:
                continue
            if key not in self._written:
                self._written.add(key)
                value = self._shared.session.state.get(key, MISSING)
                if value is not MISSING:
                    undo.setdefault("was", {})[key] = value
            contributed = None if late is None or slot.layer is not None else late.get(key)
            if isinstance(contributed, Contributions):
                undo.setdefault("added", {})[key] = contributed.items
        note: dict[str, Any] = {"undo": undo} if undo else {}
        if isinstance(slot.layer, Layer) and late:
            note["layered"] = {"of": slot.layer.place.path, **layered(late)}
        if event.escalates and isinstance(slot.emitter, Activation):
            ends = [one.begun.path for one in slot.emitter.whom_it_ends()]
            if ends:
                note["ends"] = ends
        if note:
            _add(event, note)


def layered(writes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an attempt has written, as it is noted: plain values, and contributions."""
    added = {key: list(v.items) for key, v in writes.items() if isinstance(v, Contributions)}
    plain = {key: value for key, value in writes.items() if key not in added}
    return {"layer": without_temp(plain), "added": added}


def _add(event: Event, note: Mapping[str, Any]) -> None:
    """Add a note to an event that can no longer change."""
    actions = event.actions
    noted = attrs.evolve(
        actions,
        state_delta=event.explicit_delta,
        journal={**(actions.journal or {}), **note},
    )
    stamp_actions(event, sealed_actions(noted))


def received_below(activation: Activation) -> Sequence[int]:
    """Return the places in the log of the messages that were received at or below it."""
    inbox = activation.lane.inbox
    return () if inbox is None else inbox.received_by(activation)
