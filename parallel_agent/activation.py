"""One run of one agent, and what all activations of one run of a tree share.

`Activation` is the runtime's side of an agent at work: status, output, cancel scope, its place
in the tree of live activations. `Invocation` is what they share. Agents see both through
`parallel_agent.context.InvocationContext`.

`Activation.emit` is the kernel's one way in for events. Order: an activation's events are
recorded in the order of its calls. Blocking: it returns when the reader has come back for the
next event. Errors: see `InvocationContext.emit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import attrs
import trio
from trio.lowlevel import current_task, enable_ki_protection, wait_task_rescheduled

from parallel_agent.barrier import Outcome
from parallel_agent.branch import Place
from parallel_agent.errors import (
    ActivationEndedError,
    BranchCancelledError,
    EmitError,
    StreamClosedError,
)
from parallel_agent.lane import FREE, IN_FLIGHT, QUEUED, UNPLACED, Lane, seal, sealed_message
from parallel_agent.lifecycle import Status, Step, advance
from parallel_agent.overlay import SharedState, State
from parallel_agent.schema import SchemaError
from parallel_agent.stream import Stream
from session.artifact import ArtifactService
from session.content import Content
from session.event import Event, stamp_origin
from session.memory import MemoryService
from session.session import SessionKey

if TYPE_CHECKING:
    # For annotations only: an activation asks its agent for a name and an output key, and hands
    # its events to the plugins; both take contexts, which are made of activations.
    from parallel_agent.agent import Agent
    from parallel_agent.plugin import Plugins

__all__ = [
    "Activation",
    "Invocation",
    "RunConfig",
    "cancel_subtree",
    "seal_subtree",
    "stop_starting",
]


@attrs.frozen
class RunConfig:
    """How one run behaves.

    Attributes:
        max_threads: how many plain functions may run at a time, each in a thread of its own;
            the others wait for one to end.
    """

    max_threads: int = attrs.field(
        default=64, validator=[attrs.validators.instance_of(int), attrs.validators.ge(1)]
    )


_RUNNING = Status.RUNNING  # an enum's members are slow to look up, and this one is, for every event


@attrs.define(eq=False)
class Counts:
    """How many activations have started and ended, by status. Written by `Activation` alone."""

    started: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    waiting: int = 0


@attrs.define(eq=False)
class Invocation:
    """What the activations of one run share."""

    id: str
    key: SessionKey
    user_content: Content | None
    config: RunConfig
    stream: Stream
    shared: SharedState
    threads: trio.CapacityLimiter
    run_child: Callable[..., Any]
    plugins: Plugins
    artifacts: ArtifactService
    memory: MemoryService
    counts: Counts = attrs.field(factory=Counts)
    outcomes: dict[str, tuple[Outcome, ...]] = attrs.Factory(dict[str, tuple[Outcome, ...]])
    outputs: dict[str, Any] = attrs.Factory(dict[str, Any])
    _tick: int = 0

    def tick(self) -> int:
        """Return the next tick of the counter that orders forks and joins."""
        self._tick += 1
        return self._tick


class Activation:
    """One run of one agent. Made by its parent's fan-out or sequence, moved by its own task.

    Attributes:
        agent: the definition; never changed.
        place: who and where; the origin of all its events.
        parent: the activation that started it.
        lane: its branch's way into the stream.
        scope: cancels this activation and everything below it.
        status: moved by `start` and `end` only.
        error: what it failed with.
        own: whether it failed of itself (see `reached`).
        reached: a barrier's cancellation was delivered to code of this very activation.
        source: the child whose failure it passes on.
        output: its output so far.
        children: the activations below it that have not ended.
        barren: a sibling's failure is about to cancel it: nothing new starts below it.
        catches_escalate: it is a loop.
        escalated: an escalating event below it has been handed out.
        on_escalate: ends its siblings; set by a fan-out that acts on its direct children.
    """

    __slots__ = (
        "_has_output",
        "_output_key",
        "_written_output",
        "agent",
        "barren",
        "catches_escalate",
        "children",
        "duration",
        "error",
        "escalated",
        "invocation",
        "lane",
        "numbers",
        "on_escalate",
        "output",
        "own",
        "parent",
        "place",
        "reached",
        "scope",
        "source",
        "state",
        "status",
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
    ) -> None:
        """Make a pending activation; it does nothing until it is driven."""
        self.agent = agent
        self.place = place
        self.invocation = invocation
        self.lane = lane
        self.parent = parent
        self.on_escalate = on_escalate
        self.scope = trio.CancelScope()
        self.state = State(invocation.shared, lane)
        self.status = Status.PENDING
        self.error: BaseException | None = None
        self.own = False
        self.reached = False
        self.source: Activation | None = None
        self.output: Any = None
        self._written_output: Any = None
        self.children: set[Activation] | None = None
        self.numbers: dict[str, int] | None = None
        self.barren = False
        self.catches_escalate = False
        self.escalated = False
        self.duration = 0.0
        self._has_output = False
        self._output_key = agent.output_key

    # Its life.

    def start(self) -> None:
        """Begin to run."""
        self.status = advance(self.status, Step.START)
        self.invocation.counts.started += 1

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

    # Its events.

    @enable_ki_protection
    async def emit(self, item: Event | Content | str) -> Event:  # noqa: C901, PLR0912, PLR0915  # inlined for speed
        """See `InvocationContext.emit`."""
        # By exact type, the quickest question: nearly everything is one of the two.
        text = type(item) is str
        if text:  # noqa: SIM108  # three kinds in one line is two too many
            event = Event(item)  # type: ignore[arg-type]  # a text, see above
        else:
            event = item if type(item) is Event else _as_event(item)
        invocation = self.invocation
        stream = invocation.stream
        lane = self.lane
        if self.status is not _RUNNING or lane.sealed or stream.closed:
            self.refuse()
        if event.origin is not UNPLACED or event.seq is not None:
            message = f"{event!r} was emitted already; make a new event"
            raise EmitError(message)
        if invocation.plugins.on_event:
            replaced = await invocation.plugins.event(self, event)
            if replaced is None:
                return event
            event, text = replaced, False
            if self.status is not _RUNNING or lane.sealed or stream.closed:
                self.refuse()
        event.seal()
        if not event.partial:
            # What may be refused comes before a slot is taken.
            if invocation.shared.schema is not None:
                self._check_fits(event)
            if self._output_key is not None:
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
        try:
            await wait_task_rescheduled(slot)
        except BaseException:
            slot.abandon()
            if event.origin is self.place:
                self._note_output(event)  # not withdrawn: it is, or will be, recorded
            else:
                self._written_output = None
            raise
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

    async def flush(self) -> None:
        """Record pending writes, and wait until all this branch has emitted is handed out.

        Called before anything that must see them: a child's start, the activation's end.
        """
        if self.state.pending:
            await self.emit(Event())
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
        try:
            await wait_task_rescheduled(slot)
        finally:
            slot.abandon()

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

    # Its output.

    @property
    def has_output(self) -> bool:
        """Whether an event has given an output of its own, which a text does not replace."""
        return self._has_output

    def _output_after(self, event: Event) -> Any:
        """Return what the output is once ``event`` is recorded."""
        if event.output is not None:
            return event.output
        if not self._has_output and event.is_final and event.text:
            return event.text
        return self.output

    def _check_fits(self, event: Event) -> None:
        """Refuse an event that brings what the state schema does not allow."""
        shared = self.invocation.shared
        shared.check(event.delta)
        if event.output is not None and self._output_key is not None:
            self._check_output(event.output)

    def _check_output(self, output: Any) -> None:
        key = cast("str", self._output_key)
        try:
            self.invocation.shared.check({key: output})
        except SchemaError as error:
            problems = [
                (path, f"{why} (the output of agent {self.agent.name!r}, whose output_key it is)")
                for path, why in error.problems
            ]
            raise SchemaError(problems, error.count) from None

    def _note_output(self, event: Event) -> None:
        if event.partial:
            return
        if event.output is not None:
            self.output = event.output
            self._has_output = True
        elif not self._has_output:
            self.output = event.final_text or self.output

    def _write_output(self, output: Any) -> None:
        if self._output_key in self.invocation.shared.reducers:
            return  # contributed once, at the end
        if output is not None and output is not self._written_output:
            try:
                self.state[cast("str", self._output_key)] = output
            except SchemaError:
                # Text on the way to an output that fits, perhaps; `store_output` has the last word.
                return
            self._written_output = output

    def store_output(self) -> None:
        """Write the final output under the agent's ``output_key``, if that has not happened yet.

        A leaf's output was written with the event it came from. A key with a reducer gets one
        contribution per activation, here.
        """
        key = self._output_key
        if key is None or self.output is None:
            return
        if key in self.invocation.shared.reducers:
            self.state.contribute(key, self.output)
        else:
            self._check_output(self.output)
            self._write_output(self.output)

    def __repr__(self) -> str:
        return f"<Activation {self.place.path}: {self.status}>"


def stop_starting(top: Activation) -> None:
    """Let nothing new start below ``top``, which is about to be cancelled."""
    line = [top]
    for activation in line:
        activation.barren = True
        line.extend(activation.children or ())


def cancel_subtree(top: Activation, reason: str) -> None:
    """Cancel ``top`` and everything below it, noting whom the cancellation reaches.

    A failure counts as an activation's own unless a cancellation was delivered to it first.
    Whether one was delivered shows in the number of runnable tasks: cancelling wakes what is
    parked, and leaves alone what is about to run anyway (two branches failing in one tick), what
    is shielded, and what waits for a thread. Innermost first, so that each scope wakes only tasks
    of its own activation.
    """
    line = [top]
    for activation in line:
        line.extend(activation.children or ())
    for activation in reversed(line):
        runnable = trio.lowlevel.current_statistics().tasks_runnable
        activation.scope.cancel(reason)
        if trio.lowlevel.current_statistics().tasks_runnable > runnable:
            activation.reached = True


def seal_subtree(top: Activation) -> None:
    """Seal every branch in use at or below ``top``, whose tasks have been cancelled."""
    line = [top]
    for activation in line:
        line.extend(activation.children or ())
        if not activation.lane.sealed:
            seal(activation.lane)


def _as_event(item: object) -> Event:
    if isinstance(item, Event):
        return item
    if isinstance(item, str):
        return Event(str.__str__(item))  # a StrEnum's member, say
    if isinstance(item, Content):
        return Event(item)
    message = (
        f"an agent emits events, contents or text, not {type(item).__name__}: {item!r:.80}; "
        "for a value, Event(output=...)"
    )
    raise EmitError(message)
