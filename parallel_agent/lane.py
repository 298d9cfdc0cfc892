"""A branch's way into the stream: lanes, and the slots in which emitters wait.

An event's life, as a slot goes through it: *queued* (the emitter is parked, the event can still
be withdrawn), *drained* (it is recorded, or about to be), *handed out* (the reader has it),
*acknowledged* (the slot is free again). Whoever changes a slot does it in one synchronous step,
protected from KeyboardInterrupt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol, cast

import outcome
from trio.lowlevel import Abort, Task, enable_ki_protection, reschedule

from parallel_agent.branch import Branch
from parallel_agent.errors import BranchCancelledError
from session.event import Event, stamp_delta, stamp_origin

__all__ = ["FREE", "IN_FLIGHT", "QUEUED", "UNPLACED", "Emitter", "Lane", "Slot", "seal"]

# The states of a slot, in the order of an event's life. Plain integers: they are compared for
# every event.
FREE: Final = 0
QUEUED: Final = 1
DRAINED: Final = 2
HANDED_OUT: Final = 3
WITHDRAWN: Final = 4
IN_FLIGHT: Final = (QUEUED, DRAINED)

UNPLACED: Final = Event().origin
"""The origin of an event that nobody has emitted yet."""


class _Acknowledged(outcome.Outcome[None]):
    """The result of every park that ends well: one object instead of one per event."""

    __slots__ = ()

    def unwrap(self) -> None:
        """Return nothing, as often as asked."""

    def send(self, gen: Any) -> Any:
        """Resume a generator."""
        return gen.send(None)

    def asend(self, agen: Any) -> Any:
        """Resume an async generator."""
        return agen.asend(None)


_ACKNOWLEDGED: Final = cast("outcome.Value[None]", _Acknowledged())


class Emitter(Protocol):
    """What the stream needs to know of the activation that emits."""

    def take_back(self, writes: Mapping[str, Any]) -> None:
        """Take back the state writes of an event that was withdrawn."""
        ...


class Writable(Protocol):
    """What keeps the writes of an attempt."""

    writers: dict[str, Any]

    def apply(self, writes: Mapping[str, Any]) -> None:
        """Take the writes of an event that is being handed out."""
        ...


class Lane:
    """A branch's way into the stream.

    Attributes:
        branch: the place in the tree of forks.
        sealed: the branch was ended by a sibling's decision; nothing of it is recorded any more.
        slot: the waiting slot, used again and again while one task emits at a time.
        flight: None as long as one task emits at a time and is not cancelled meanwhile. After
            that, all slots whose event is queued or drained, oldest first.
        unsettled: a fan-out below ended without an event after all of its branches' own, so
            something of theirs may still be on its way to the reader.
        inbox: the messages to this branch, from the first one on.
    """

    __slots__ = ("branch", "flight", "inbox", "sealed", "slot", "unsettled")

    def __init__(self, branch: Branch) -> None:
        """Make an open lane for ``branch``."""
        self.branch = branch
        self.sealed = False
        self.slot: Slot | None = None
        self.flight: list[Slot] | None = None
        self.unsettled = False
        self.inbox: Any = None

    def another_slot(self) -> Slot:
        """Return a slot to use when ``slot`` cannot be."""
        slot = Slot(self)
        if self.slot is None and self.flight is None:
            self.slot = slot
        else:
            # A second task of the same branch emits while the first one waits.
            self.take_in(slot)
        return slot

    def take_in(self, slot: Slot) -> None:
        """Take in a slot that is about to be filled and is not to be used again."""
        if self.flight is None:
            busy, self.slot = self.slot, None
            self.flight = [busy] if busy is not None and busy.state in IN_FLIGHT else []
        self.flight.append(slot)

    def in_flight(self) -> list[Slot]:
        """Return the slots whose event is emitted and not handed out, newest first."""
        if self.flight is not None:
            return self.flight[::-1]
        slot = self.slot
        return [slot] if slot is not None and slot.state in IN_FLIGHT else []


class Slot:
    """One parked emitter and its event. Also the abort function of its park: no closure to make.

    ``writes`` are the state writes that the runtime added to the event (they go back to the
    emitter if it is withdrawn); ``late`` are those whose value is known only when the event is
    recorded, or that are not recorded at all; ``temporary`` is what of those is applied at hand-out
    without being recorded: to ``layer``, if it is an attempt's event.
    """

    shown = True
    """Whether its event is handed out to the reader."""

    __slots__ = (
        "emitter",
        "event",
        "lane",
        "late",
        "layer",
        "state",
        "task",
        "temporary",
        "writes",
    )

    def __init__(self, lane: Lane) -> None:
        """Make a free slot on ``lane``."""
        self.lane = lane
        self.event: Event | None = None
        self.emitter: Emitter | None = None
        self.task: Task | None = None
        self.state = FREE
        self.writes: Mapping[str, Any] | None = None
        self.late: dict[str, Any] | None = None
        self.temporary: dict[str, Any] | None = None
        self.layer: Writable | None = None

    @enable_ki_protection
    def __call__(self, _raise_cancel: object) -> Abort:
        """Let go of the emitter, which is being cancelled."""
        self.release()
        return Abort.SUCCEEDED

    def release(self) -> None:
        """Let go of the emitter: its event is withdrawn, if that is still possible."""
        self.task = None
        lane = self.lane
        if lane.slot is self:
            # Whatever still refers to this slot (the queue, the reader's batch) keeps it: the
            # lane must not use it again. Found by a test in which it did.
            lane.slot = None
            if self.state == DRAINED:
                lane.flight = [self]
        if self.state == QUEUED:
            self._withdraw()

    def abandon(self) -> None:
        """See to it that nobody is woken here: the emitter no longer waits, however it left."""
        if self.task is not None:
            self.release()

    def acknowledge(self) -> None:
        """Let the emitter go on, if it still waits; the slot is free again."""
        task = self.task
        self.task = None
        self.event = None
        self.emitter = None
        self.writes = None
        if self.late is not None:
            self.late = None
            self.temporary = None
            self.layer = None
        self.state = FREE
        if task is not None:
            reschedule(task, _ACKNOWLEDGED)

    def refuse(self, error: BaseException) -> None:
        """Take a queued or drained event out of the stream and raise ``error`` at its emitter."""
        task, self.task = self.task, None
        if self.lane.slot is self:
            self.lane.slot = None
        self._withdraw()
        if task is not None:
            reschedule(task, outcome.Error(error))

    def _withdraw(self) -> None:
        self.state = WITHDRAWN
        flight = self.lane.flight
        if flight is not None and self in flight:
            flight.remove(self)
            if not flight:
                self.lane.flight = None
        event, self.event = self.event, None
        if event is not None and event.seq is None:
            # As if it had never been emitted: it may be emitted again.
            stamp_origin(event, UNPLACED)
            stamp_delta(event, event.explicit_delta)
        writes = self.writes
        self.writes = self.late = self.temporary = self.layer = None
        if writes and self.emitter is not None:
            self.emitter.take_back(writes)


def seal(lane: Lane) -> None:
    """End a branch: withdraw what it has queued, refuse what it emits from now on.

    Its emitters have been cancelled already; the ones still parked are shielded, and are woken
    with `BranchCancelledError`.
    """
    lane.sealed = True
    for slot in lane.in_flight():
        if slot.state == QUEUED:
            slot.refuse(BranchCancelledError(sealed_message(lane)))


def sealed_message(lane: Lane) -> str:
    """Say why a sealed lane refuses."""
    return f"branch {lane.branch.name} was ended by a sibling: nothing of it is recorded any more"
