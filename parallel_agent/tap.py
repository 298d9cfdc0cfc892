"""Reading a child's events before they are passed on.

``async with ctx.open_agent(child) as events`` puts a tap between a child and the run's stream. An
event of the child, or of anything below it, waits there until the agent that holds the tap emits
it itself (it then goes its ordinary way, with the child's name and place on it) or goes on without
doing so, which drops it.

Order: of one branch of the child, the order in which it emits; the agent may hold several events
and pass them on in any order. Cancellation: leaving the block cancels the child and waits for its
clean-up, whose events go straight to the stream. Errors: the child's is raised at the iteration,
or when the block ends.
"""

# A handle and its block, a tap and its reader, are one thing in two classes.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, final

import attrs
import trio
from trio.lowlevel import ParkingLot, checkpoint, enable_ki_protection

from parallel_agent.activation import Activation
from parallel_agent.agent import Agent
from parallel_agent.drive import (
    activate,
    outcome_error,
    pass_on,
    place_child,
    raise_unless_left_open,
    suspend,
)
from parallel_agent.errors import ReadError, RunEndedError
from parallel_agent.invocation import IdleWatch
from parallel_agent.judge import split_cancellation
from parallel_agent.lane import UNPLACED
from parallel_agent.lifecycle import Status
from parallel_agent.notes import note_clean_up, note_other
from session.event import Event, stamp_origin

__all__ = ["ChildEvents", "OpenAgent", "Tap"]


@attrs.define(eq=False)
class _Held:
    """An event that waits for the agent that holds the tap to decide."""

    event: Event
    decided: trio.Event = attrs.field(factory=trio.Event)
    arrived: trio.Event = attrs.field(factory=trio.Event)
    passed: bool = False


@final
class Tap:
    """What stands between a child's ``emit`` and the stream."""

    def __init__(self, outer: Tap | None, idle: IdleWatch | None) -> None:
        """Stand below ``outer``, the tap that an agent further up holds.

        ``idle`` is what watches the agent that holds this one: it must decide in time.
        """
        self.outer = outer
        self.idle = idle
        # Events that can no longer be passed on, because their agent was cancelled while they
        # waited, here or further on. Whoever holds the tap cannot know.
        self.withdrawn: dict[int, Event] = {}
        self.closed = False
        self.ended = False
        self._held: dict[int, _Held] = {}
        self._news: deque[_Held] = deque()
        self._readers = ParkingLot()

    async def admit(self, emitter: Activation, event: Event, arrivals: list[trio.Event]) -> bool:
        """Show ``event`` here and at every tap further out, and wait until all have decided.

        Returns whether it was passed on; if not, it was dropped, and with it the writes that would
        have been recorded with it. What to set when it is recorded, or cannot be, is added to
        ``arrivals``: there, and not returned, so that an emitter that fails leaves nobody waiting.
        If this raises, call `withdraw`.
        """
        writes = {} if event.partial else dict(emitter.state.pending)
        idle = emitter.idle
        stamp_origin(event, emitter.place)
        tap: Tap | None = self
        while tap is not None:
            # Nobody below the tap is idle while the agent that holds it thinks.
            if idle is not None:
                idle.pause(tap.idle)
            try:
                passed = await tap.offer(event, arrivals)
            finally:
                if idle is not None:
                    idle.resume(tap.idle)
            if not passed:
                emitter.state.forget(writes)
                _set_all(arrivals)
                return False
            tap = tap.outer
        # A task that outlives its agent may have waited here.
        if (
            emitter.status is not Status.RUNNING
            or emitter.lane.sealed
            or emitter.invocation.stream.closed
        ):
            emitter.refuse()
        return True

    def withdraw(self, event: Event, arrivals: list[trio.Event]) -> None:
        """Make it as if ``event`` had never been emitted: here and further out, it is too late."""
        stamp_origin(event, UNPLACED)
        tap: Tap | None = self
        while tap is not None:
            tap.withdrawn[id(event)] = event
            tap = tap.outer
        _set_all(arrivals)

    async def offer(self, event: Event, arrivals: list[trio.Event]) -> bool:
        """Show the event here, and wait. Return whether it was passed on, and not dropped."""
        self.withdrawn.pop(id(event), None)
        if self.closed:
            return True
        held = _Held(event)
        arrivals.append(held.arrived)
        self._held[id(event)] = held
        self._news.append(held)
        self._readers.unpark_all()
        try:
            await held.decided.wait()
        finally:
            del self._held[id(event)]
        return held.passed

    def forget(self, child: Activation) -> None:
        """Let nobody emit what was withdrawn: ``child``, whose it was, has ended."""
        for event in self.withdrawn.values():
            if event.origin is UNPLACED:
                stamp_origin(event, child.place)

    def find(self, event: Event) -> _Held | None:
        """Return what is held under this tap for ``event``, if it is and nothing is decided."""
        held = self._held.get(id(event))
        return None if held is None or held.decided.is_set() else held

    async def pass_on(self, held: _Held) -> None:
        """Let an event go its way; return when it is recorded and acknowledged, or cannot be."""
        held.passed = True
        held.decided.set()
        await held.arrived.wait()

    def drop(self, held: _Held) -> None:
        """Let an event go nowhere."""
        held.decided.set()

    async def next(self) -> _Held | None:
        """Wait for the next event; None if the child has ended."""
        await checkpoint()
        while True:
            while self._news:
                held = self._news.popleft()
                if self._held.get(id(held.event)) is held:  # else its agent was cancelled meanwhile
                    return held
            if self.ended:
                return None
            await self._readers.park()

    def end(self) -> None:
        """Say that the child has ended."""
        self.ended = True
        self._readers.unpark_all()

    def close(self) -> None:
        """Drop what is undecided; what comes from now on goes straight through."""
        self.closed = True
        for held in list(self._held.values()):
            self.drop(held)


def _set_all(events: list[trio.Event]) -> None:
    for event in events:
        event.set()


@final
class ChildEvents:
    """The events of a child, before they are recorded: an async iterator.

    ``yield event`` (or ``await ctx.emit(event)``) passes one on. Going on to the next drops it if
    that has not happened: its state writes are then forgotten, and its agent goes on. If the agent
    is cancelled while its event waits, passing that on does nothing: ``event.seq`` stays None.
    """

    def __init__(self, tap: Tap, child: Activation, parent: Activation) -> None:
        """Made by the block."""
        self._tap = tap
        self._child = child
        self._parent = parent
        self._current: _Held | None = None
        self._told = False

    def __aiter__(self) -> ChildEvents:
        return self

    async def __anext__(self) -> Event:
        if self._current is not None:
            self._tap.drop(self._current)
            self._current = None
        held = await self._tap.next()
        if held is None:
            await self._end()
            raise StopAsyncIteration
        self._current = held
        return held.event

    async def receive(self) -> Event:
        """Return the next event, and let it wait until it is passed on or dropped, how long ever.

        So several can be held, and passed on in another order. Only different branches of the
        child have events waiting at the same time.

        Raises:
            ReadError: the child has ended.
        """
        held = await self._tap.next()
        if held is None:
            await self._end()
            message = f"agent {self._child.agent.name!r} has ended: there are no more events of it"
            raise ReadError(message)
        return held.event

    def drop(self, event: Event) -> None:
        """Drop an event: it is not recorded, and its state writes are forgotten.

        Raises:
            ReadError: it does not wait here.
        """
        held = self._tap.find(event)
        if held is not None:
            self._tap.drop(held)
        elif id(event) not in self._tap.withdrawn:
            message = f"{event!r} does not wait here: it was passed on, or dropped"
            raise ReadError(message)

    @property
    def output(self) -> Any:
        """The child's output; None until it has completed."""
        return self._child.output if self._child.status is Status.COMPLETED else None

    async def _end(self) -> None:
        if self._told:
            return
        self._told = True
        error = await outcome_error(self._child)
        if error is not None:
            pass_on(self._parent, self._child, error)
            raise error

    def __repr__(self) -> str:
        return f"<ChildEvents of {self._child.place.path}: {self._child.status}>"


_NEEDS_BLOCK: Final = (
    "a child's events need a block: `async with ctx.open_agent(agent, input) as events:` and, "
    "inside it, `async for event in events:`"
)


@final
class OpenAgent:
    """What ``ctx.open_agent()`` returns: ``async with`` it."""

    def __init__(self, parent: Activation, agent: Agent, input: Any) -> None:
        """Made by `InvocationContext.open_agent`."""
        self._parent = parent
        self._agent = agent
        self._input = input
        self._nursery: Any = None
        self._events: ChildEvents | None = None
        self._tap = Tap(parent.tap, parent.idle)
        self._child: Activation | None = None

    # Without its block. A type checker is not told of these, and so finds the mistake itself.
    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            raise ReadError(_NEEDS_BLOCK)

        def __exit__(self, *_details: object) -> None:
            """Never called; here so that `__enter__` can say what is wrong."""

        def __await__(self) -> NoReturn:
            raise ReadError(_NEEDS_BLOCK)

        def __aiter__(self) -> NoReturn:
            raise ReadError(_NEEDS_BLOCK)

        def __getattr__(self, name: str) -> NoReturn:
            if not name.startswith("_") and hasattr(ChildEvents, name):
                raise ReadError(_NEEDS_BLOCK)
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(message)

    @enable_ki_protection
    async def __aenter__(self) -> ChildEvents:
        parent = self._parent
        if self._events is not None:
            message = "this block was entered already; call ctx.open_agent() again"
            raise ReadError(message)
        if parent.status is not Status.RUNNING:
            parent.refuse()
        await parent.flush()
        child = place_child(
            parent, self._agent, number=parent.next_number(self._agent.name), input=self._input
        )
        child.tap = self._tap
        self._child = child
        parent.hold_tap(self._tap)
        parent.slots.step_aside()
        self._nursery = trio.open_nursery()
        nursery = await self._nursery.__aenter__()
        nursery.start_soon(self._run, child)
        self._events = ChildEvents(self._tap, child, parent)
        return self._events

    @enable_ki_protection
    async def _run(self, child: Activation) -> None:
        await activate(child)
        self._tap.end()

    @enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Literal[False]:
        parent, child, events = self._parent, self._child, self._events
        if child is None or events is None:
            return False
        left = child.status in (Status.PENDING, Status.RUNNING)
        if left:
            child.scope.cancel("the block that reads its events was left")
        self._tap.close()
        raised = error
        trouble = await self._join(child)
        if error is None:
            error = trouble
        elif trouble is not None and not _is_end(parent, trouble):
            if _is_end(parent, error):
                error = trouble
            else:
                note_clean_up(error, trouble)
        parent.release(child)
        parent.let_tap_go(self._tap)
        self._tap.forget(child)
        is_end = error is not None and _is_end(parent, error)
        if error is None or (is_end and child.error is not None and not events._told):  # noqa: SLF001  # one thing in two parts
            await self._answer(child, events)
            return False
        parent.slots.stay_aside()
        if child.error is not None and child.error is not error:
            note_other(error, child.place.path, child.error)
        if error is raised:
            return False
        raise error

    async def _join(self, child: Activation) -> BaseException | None:
        """Wait until the child has ended; return what the nursery raised."""
        try:
            await self._nursery.__aexit__(None, None, None)
        except BaseExceptionGroup as left:
            try:
                raise_unless_left_open(left, [child])
            except BaseException as exc:  # noqa: BLE001  # the caller raises it
                return exc
        except BaseException as exc:  # noqa: BLE001  # as above
            return exc
        return None

    async def _answer(self, child: Activation, events: ChildEvents) -> None:
        parent = self._parent
        try:
            await parent.slots.step_back()
        except trio.Cancelled:
            if child.error is None:  # a failure is never lost
                raise
        if child.status is Status.WAITING:
            await suspend(parent)
        if child.error is not None and not events._told:  # noqa: SLF001  # as above
            pass_on(parent, child, child.error)
            raise child.error


def _is_end(activation: Activation, error: BaseException) -> bool:
    """Whether it says that the agent, or the run, is over: no failure."""
    return isinstance(split_cancellation(activation, error), trio.Cancelled | RunEndedError)
