"""One run of one agent: the runtime's side of an agent at work.

Status, output, cancel scope, attempts, slots, its place in the tree of live activations. Agents
see it through `parallel_agent.context.InvocationContext`.

`Activation.emit` is the kernel's one way in for events. Order: an activation's events are
recorded in the order of its calls. Blocking: it returns when the reader has come back for the
next event. Errors: see `InvocationContext.emit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import trio
from trio.lowlevel import checkpoint, current_task, enable_ki_protection, wait_task_rescheduled

from parallel_agent.branch import Place
from parallel_agent.errors import (
    ActivationEndedError,
    BranchCancelledError,
    EmitError,
    StreamClosedError,
)
from parallel_agent.invocation import IdleWatch, Invocation
from parallel_agent.items import as_event
from parallel_agent.lane import FREE, IN_FLIGHT, QUEUED, UNPLACED, Lane, sealed_message
from parallel_agent.lifecycle import Status, Step, advance
from parallel_agent.limiter import Entrance, Slots
from parallel_agent.outputs import KeepsOutput
from parallel_agent.overlay import State
from parallel_agent.transfer import find_target
from session.content import Content
from session.event import Event, stamp_origin

if TYPE_CHECKING:
    # For annotations only: an activation asks its agent for a name and a few options.
    from parallel_agent.agent import Agent
    from parallel_agent.crew import Crew
    from parallel_agent.tap import Tap

__all__ = ["NO_INPUT", "Activation"]

NO_INPUT: Final[Any] = object()
"""What an activation is given that works on what its parent works on."""

_RUNNING = Status.RUNNING  # an enum's members are slow to look up, and this one is, for every event


class Activation(KeepsOutput):
    """One run of one agent. Made by its parent's fan-out or sequence, moved by its own task.

    Attributes:
        agent: the definition; never changed.
        place: who and where; the origin of all its events.
        begun: its place at its start: that of its first attempt.
        parent: the activation that started it.
        lane: its branch's way into the stream.
        scope: cancels this activation and everything below it.
        status: moved by `start` and `end` only.
        error: what it failed with.
        own: whether it failed of itself (see `reached`).
        reached: a barrier's cancellation was delivered to code of this very activation.
        slots: what it holds of the limiters that count it.
        source: the child whose failure it passes on.
        combined: what a barrier has made of several failures below it, and whether that is a
            failure of its own.
        output: its output so far.
        children: the activations below it that have not ended.
        barren: a sibling's failure is about to cancel it: nothing new starts below it.
        catches_escalate: it is a loop.
        escalated: an escalating event below it has been handed out.
        on_escalate: ends its siblings; set by a fan-out that acts on its direct children.
        passed_escalation: ``"own"`` if an event of its own has escalated, ``"below"`` if one
            has passed through it; None if none has.
        crew: the fan-out whose branch it is; None if it runs in place.
        documents: what it reads of the documents that the nodes of a graph share.
        input: what it was given to work on, a JSON value; None if nothing was (`has_input`);
            its own, and not what its parent works on, if ``own_input``.
        entrance: what it has to pass before it starts, if there is something.
        tap: what its events pass on their way to the stream, if somebody reads them before.
        transfers: how many handed over to each other on the line from the root to here.
        given_up: the newest failure for which an agent at or below it has used up its attempts.
        idle: the nearest watch, here or above, over the time between events.
        suspended: it waits for a person, and the run is to end without the answer.
        was_started: it got as far as to run.
        was_over: it had ended before the run was resumed, and is not run again.
    """

    __slots__ = (
        "_taps",
        "agent",
        "barren",
        "begun",
        "catches_escalate",
        "children",
        "combined",
        "crew",
        "documents",
        "duration",
        "entrance",
        "error",
        "escalated",
        "given_up",
        "has_input",
        "idle",
        "input",
        "invocation",
        "lane",
        "numbers",
        "on_escalate",
        "own",
        "own_input",
        "parent",
        "passed_escalation",
        "place",
        "reached",
        "scope",
        "slots",
        "source",
        "state",
        "status",
        "suspended",
        "tap",
        "transfers",
        "was_over",
        "was_started",
    )

    def __init__(
        self,
        agent: Agent,
        place: Place,
        *,
        invocation: Invocation,
        lane: Lane,
        parent: Activation | None = None,
        on_escalate: Callable[[Activation], None] | None = None,
        input: Any = NO_INPUT,
    ) -> None:
        """Make a pending activation; it does nothing until it is driven."""
        super().__init__(agent)
        self.agent = agent
        self.place = self.begun = place
        self.invocation = invocation
        self.lane = lane
        self.parent = parent
        self.on_escalate = on_escalate
        self.scope = trio.CancelScope()
        if parent is None:
            self.state = State(invocation.shared, lane)
            self.idle: IdleWatch | None = None
            self.input: Any = None if input is NO_INPUT else input
            self.documents: Mapping[str, str] = {}
        else:
            self.documents = parent.documents
            self.state = State(invocation.shared, lane, parent.state.layer)
            self.idle = parent.idle
            # A workflow's input is for the agents in it.
            self.input = parent.input if input is NO_INPUT else input
        self.own_input: bool = input is not NO_INPUT
        self.has_input: bool = input is not NO_INPUT or (parent is not None and parent.has_input)
        self.entrance: Entrance | None = None
        self.transfers: int = 0 if parent is None else parent.transfers
        self.tap: Tap | None = None if parent is None else parent.tap
        self._taps: tuple[Tap, ...] = ()
        self.status = Status.PENDING
        self.error: BaseException | None = None
        self.own = self.reached = False
        self.source: Activation | None = None
        self.combined: tuple[BaseException, bool] | None = None
        self.children: set[Activation] | None = None
        self.numbers: dict[str, int] | None = None
        self.barren = False
        self.catches_escalate = False
        self.escalated = False
        self.passed_escalation: str | None = None
        self.crew: Crew | None = None
        self.given_up: BaseException | None = None
        self.suspended = False
        self.was_started = False
        self.was_over = False
        self.duration = 0.0
        self.slots = Slots(invocation.limiters(agent.limiter))
        self.slots.idle = self.idle
        if invocation.steering is not None:
            invocation.steering.adopt(self)

    # Its life.

    def start(self) -> None:
        """Begin to run."""
        self.status = advance(self.status, Step.START)
        self.was_started = True
        self.duration = -trio.current_time()
        self.invocation.counts.started += 1

    def stop(self) -> None:
        """Stop its clock, and give up what it holds: its own code has ended."""
        if self.was_started:
            self.duration += trio.current_time()
        self.slots.leave()
        if self.entrance is not None and self.entrance.gate is not None:
            self.entrance.gate.give()

    def end(self, step: Step) -> None:
        """Reach the one terminal status."""
        if self.status is Status.PENDING:
            self.invocation.counts.started += 1
        self.status = advance(self.status, step)
        self.state.ended = True
        counts = self.invocation.counts
        if step is Step.COMPLETE:
            counts.completed += 1
            self.invocation.outputs[self.agent.name] = self.output
        elif step is Step.FAIL:
            counts.failed += 1
        elif step is Step.WAIT:
            counts.waiting += 1
        else:
            counts.cancelled += 1

    def adopt(self, child: Activation) -> None:
        """Add a child about to start."""
        if self.children is None:
            self.children = set()
        self.children.add(child)

    def release(self, child: Activation) -> None:
        """Take out a child that has ended."""
        if self.children is not None:
            self.children.discard(child)

    def next_number(self, name: str) -> int:
        """Return how often this activation has started an agent called ``name``, with this time."""
        if self.numbers is None:
            self.numbers = {}
        number = self.numbers[name] = self.numbers.get(name, 0) + 1
        return number

    def escalate(self) -> None:
        """Act on an escalating event of its own: end its siblings, tell the nearest loop."""
        if self.on_escalate is not None:
            self.on_escalate(self)
        self.passed_escalation = "own"
        self.pass_escalation()

    def pass_escalation(self) -> None:
        """Tell the nearest loop above that something has escalated."""
        above = self.parent
        while above is not None and not above.catches_escalate:
            above.passed_escalation = above.passed_escalation or "below"
            above = above.parent
        if above is not None:
            above.escalated = True

    @property
    def root(self) -> Activation:
        """The activation of the tree's root: this one, or the outermost above it."""
        top = self
        while top.parent is not None:
            top = top.parent
        return top

    def whom_it_ends(self) -> list[Activation]:
        """Return the siblings that an escalating event of its own ends."""
        return [] if self.crew is None else self.crew.others(self)

    def watch(self, idle: IdleWatch | None) -> None:
        """Let ``idle`` be the nearest watch."""
        self.idle = self.slots.idle = idle

    # Its events.

    @enable_ki_protection
    async def emit(self, item: Event | Content | str) -> Event:  # noqa: C901, PLR0912, PLR0915  # inlined for speed
        """See `InvocationContext.emit`."""
        # By exact type, the quickest question: nearly everything is one of the two.
        text = type(item) is str
        if text:  # noqa: SIM108  # three kinds in one line is two too many
            event = Event(item)  # type: ignore[arg-type]  # a text, see above
        else:
            event = item if type(item) is Event else as_event(item)
        invocation = self.invocation
        stream = invocation.stream
        lane = self.lane
        if self.slots.owed and not self._cleans_up():
            await self.slots.come_back()
        if self.status is not _RUNNING or lane.sealed or stream.closed:
            self.refuse()
        if (
            event.origin is not UNPLACED
            or event.seq is not None
            or (self._taps and self._was_withdrawn(event))
        ):
            return await self._pass_on(event)
        if invocation.gate is not None:
            replaced = await invocation.gate.event(self, event)
            if replaced is None:
                return event
            event, text = replaced, False
            if self.status is not _RUNNING or lane.sealed or stream.closed:
                self.refuse()
        if not text and event.transfer_to_agent is not None:
            find_target(self, event.transfer_to_agent)
        event.seal()
        # What may be refused comes before a slot is taken, or a tap is asked.
        if invocation.shared.schema is not None and not event.partial:
            self._check_fits(event)
        arrivals: list[trio.Event] = []
        if self.tap is not None:
            try:
                if not await self.tap.admit(self, event, arrivals):
                    return event
            except BaseException:
                self.tap.withdraw(event, arrivals)
                raise
        if not event.partial and self._output_key is not None:
            self._write_output(self._output_after(event))
        slot = lane.slot
        if slot is None or slot.state != FREE:
            slot = lane.another_slot()
        if not event.partial and (self.state.pending or event.delta):
            self.state.attach(event, slot)
        stamp_origin(event, self.place)
        slot.event = event
        slot.emitter = self
        slot.task = current_task()
        slot.state = QUEUED
        stream.queue.append(slot)
        if not stream.announced:
            stream.announce()
        idle = self.idle
        if idle is not None:
            idle.pause()
        try:
            await wait_task_rescheduled(slot)
        except BaseException:
            slot.abandon()
            if idle is not None:
                idle.resume()
            if event.origin is self.place:
                self._note_output(event)  # not withdrawn: it is, or will be, recorded
            else:
                self._written_output = None
                if self.tap is not None:
                    self.tap.withdraw(event, arrivals)
            for arrived in arrivals:
                arrived.set()
            raise
        if idle is not None:
            idle.resume()
        for arrived in arrivals:
            arrived.set()
        if text:
            if item and not self._has_output:
                self.output = item
        else:
            self._note_output(event)
        return event

    def take_back(self, writes: Mapping[str, Any]) -> None:
        """Take back the writes of a withdrawn event, but for the output it would have made."""
        key = self._output_key
        if key is not None and writes.get(key) is self._written_output is not None:
            self._written_output = None
            writes = {name: value for name, value in writes.items() if name != key}
        self.state.take_back(writes)

    def _cleans_up(self) -> bool:
        above: Activation | None = self
        while above is not None and not above.scope.cancel_called:
            above = above.parent
        return above is not None

    def _was_withdrawn(self, event: Event) -> bool:
        return any(id(event) in tap.withdrawn for tap in self._taps)

    async def _pass_on(self, event: Event) -> Event:
        """Emit what a child of this agent has emitted, and this agent holds a tap for."""
        for tap in self._taps:
            held = tap.find(event)
            if held is not None:
                await tap.pass_on(held)
                return event
            if id(event) in tap.withdrawn:
                await checkpoint()
                return event
        message = f"{event!r} was emitted already, or dropped; make a new event"
        raise EmitError(message)

    def hold_tap(self, tap: Tap) -> None:
        """Let this agent pass on what waits at ``tap``."""
        self._taps = (*self._taps, tap)

    def let_tap_go(self, tap: Tap) -> None:
        """End that."""
        self._taps = tuple(other for other in self._taps if other is not tap)

    async def flush(self) -> None:
        """Record pending writes, and wait until all this branch has emitted is handed out.

        Called before anything that must see them: a child's start, the activation's end.
        """
        if self.state.pending:
            await self.emit(Event())
        await self.fence()

    async def fence(self) -> None:
        """Wait until all this branch has emitted is handed out."""
        lane = self.lane
        slot = lane.slot
        if lane.unsettled or lane.flight or (slot is not None and slot.state in IN_FLIGHT):
            lane.unsettled = False
            await self._settle()

    @enable_ki_protection
    async def _settle(self) -> None:
        # An emit that was cancelled after its event was drained left that event in the reader's
        # batch. A slot without an event comes after it.
        stream = self.invocation.stream
        if stream.closed:
            self.refuse()
        slot = self.lane.another_slot()
        slot.emitter = self
        slot.task = current_task()
        slot.state = QUEUED
        stream.queue.append(slot)
        if not stream.announced:
            stream.announce()
        if self.idle is not None:
            self.idle.pause()
        try:
            await wait_task_rescheduled(slot)
        finally:
            slot.abandon()
            if self.idle is not None:
                self.idle.resume()

    def refuse(self) -> None:
        """Raise what says why nothing can be emitted, or started, any more."""
        if self.invocation.stream.closed:
            message = "the run's stream is closed: nothing can be emitted any more"
            raise StreamClosedError(message)
        if self.lane.sealed:
            raise BranchCancelledError(sealed_message(self.lane))
        if self.status is Status.PENDING:
            message = f"agent {self.agent.name!r} has not started; its context cannot emit yet"
            raise ActivationEndedError(message)
        message = (
            f"agent {self.agent.name!r} ({self.place.path}) has ended ({self.status}); "
            "its context cannot emit any more. Let tasks that emit end before their agent does: "
            "give them a nursery inside it"
        )
        raise ActivationEndedError(message)

    def take_transfer(self) -> Agent | None:
        """Return, once, the agent that is to go on in place of this one."""
        target, self._transfer_to = self._transfer_to, None
        return target

    def _check_fits(self, event: Event) -> None:
        """Refuse an event that brings what the state schema does not allow."""
        shared = self.invocation.shared
        shared.check(event.delta)
        if event.output is not None and self._output_key is not None:
            self._check_output(event.output)

    def __repr__(self) -> str:
        return f"<Activation {self.place.path}: {self.status}>"
