"""One run, one step at a time: whoever is asked decides which branch goes next.

While a run is steered, exactly one task goes. It runs until it waits: for others, for time, or
because it is about to emit. When nothing runs any more, the next is chosen among those that could
go on; only when there is none, time passes, to the next moment at which something happens. So a
run is a list of choices, and the same choices make the same run.

What is steered are the tasks of activations, at each place where they go on after a wait, and
every event before it is queued, whichever task of an agent's emits it. Plain functions run at
once, and not in threads.

Errors: when nothing can ever happen again, that is a `DeadlockError` which says who waits for
what.
"""

from __future__ import annotations

import inspect
import math
import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import Any, Final, Protocol, final

import attrs
import outcome
import trio
from trio.lowlevel import Abort, Task, checkpoint, current_task, reschedule, wait_task_rescheduled
from trio.testing import MockClock, wait_all_tasks_blocked

from parallel_agent.activation import Activation
from parallel_agent.barrier import Policy, Rule
from parallel_agent.crew import Crew
from parallel_agent.lifecycle import Status
from parallel_agent.steering import Gate
from parallel_agent.testing.errors import DeadlockError, EndlessRunError
from parallel_agent.testing.steps import Access, Step
from parallel_agent.testing.waits import describe_wait
from parallel_agent.testing.watched import watch_state
from session.event import Event

__all__ = ["AbandonedError", "Actor", "Chooser", "Controller"]

_EMIT: Final = object()
"""What a steered task yields instead of a trap of trio's when it is about to emit."""


MAX_GRACE: Final = 1_000
"""How many more steps all tasks together may take when their run has been given up."""

_ABANDONED: Final[list[object]] = []


class AbandonedError(BaseException):
    """A task could not be ended."""


@final
@attrs.define(eq=False)
class Actor:
    """A task that is steered.

    Attributes:
        name: the path of its activation; from the second task of an agent on, with a number.
        rank: where it stands among the others: activations in the order of their making.
        activation: whose task it is.
    """

    name: str
    rank: tuple[int, int]
    activation: Activation
    work: Coroutine[Any, Any, None] | None = None
    task: Task | None = None
    event: Event | None = None  # what it is about to emit
    enabled_by: int = -1


class Chooser(Protocol):
    """Decides who goes next."""

    def choose(self, actors: Sequence[Actor]) -> int:
        """Return the position of the one that goes; they are in the order of their rank."""
        ...

    def note(self, step: Step) -> None:
        """Learn what the one that was chosen did. Also of time that passed."""
        ...


class _Gate:
    """What the run's events pass."""

    def __init__(self, controller: Controller, plugins: Gate | None) -> None:
        self._controller = controller
        self._plugins = plugins

    async def event(self, activation: Activation, event: Event) -> Event | None:
        """Wait until it may be emitted."""
        await self._controller.before_emit(activation, event)
        return event if self._plugins is None else await self._plugins.event(activation, event)


class Controller:
    """Steers the runs that are opened while it is `parallel_agent.steering.STEERING`.

    Args:
        clock: of the trio run, standing still.
        chooser: who decides.
        max_steps: how many steps are a run that never ends.
        on_access: told of every access to state.
    """

    inline = True

    def __init__(
        self,
        clock: MockClock,
        chooser: Chooser,
        *,
        max_steps: int,
        on_access: Callable[[Access], None] | None = None,
    ) -> None:
        """Begin with nothing to steer."""
        self.steps: list[Step] = []
        self.swallowed: list[str] = []
        self.failure: BaseException | None = None
        self.scope = trio.CancelScope()
        self._clock = clock
        self._chooser = chooser
        self._max_steps = max_steps
        self._free = False
        self._ranks: dict[Activation, int] = {}
        self._live: dict[Activation, tuple[bool, bool]] = {}
        self._crews: dict[Activation, Crew] = {}
        self._mains: dict[Activation, Actor] = {}
        self._others: dict[Task, Actor] = {}
        self._counts: dict[Activation, int] = {}
        self._held: dict[Actor, None] = {}
        self._current: Step | None = None
        self._current_actor: Actor | None = None
        self._grace = MAX_GRACE
        self._struck: set[Activation] = set()
        self._touchy: set[Activation] = set()
        self._on_access = on_access
        self._state_type = watch_state(self.note_access)

    # What a run asks: `parallel_agent.steering.Steering`.

    def gate(self, plugins: Gate | None) -> Gate:
        """Return what the run's events pass."""
        return _Gate(self, plugins)

    def adopt(self, activation: Activation) -> None:
        """Learn of an activation, and watch its state."""
        self._ranks[activation] = len(self._ranks)
        crew = getattr(activation.on_escalate, "__self__", None)
        if isinstance(crew, Crew):
            self._crews[activation] = crew
        self._live[activation] = (False, False)
        state = activation.state
        activation.state = self._state_type(
            activation.invocation.shared, activation.lane, state.layer
        )

    def run(self, activation: Activation, work: Coroutine[Any, Any, None]) -> Awaitable[None]:
        """Run an activation's work, one step at a time."""
        actor = Actor(activation.place.path, (self._ranks[activation], 0), activation, work)
        self._mains[activation] = actor
        return self._stepped(actor, work)

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a plain function at once."""
        await checkpoint()
        return function(*arguments)

    def note(self, activation: Activation, what: str) -> None:
        """Learn that the step of ``activation`` has to do with others, or that its code is over."""
        if what == "returned":
            if activation in self._struck and _is_cancelled(activation):
                self.swallowed.append(activation.place.path)
            return
        step = self._current
        if step is None:
            return
        if what == "history":
            step.sees_events = True
            return
        step.decisive = True
        if what == "schedule":
            self._touchy.add(activation)  # what comes after it, too

    def note_access(self, access: Access) -> None:
        """Learn that a state key was looked at."""
        if self._current is not None:
            self._current.accesses.append(access)
        if self._on_access is not None:
            self._on_access(access)

    async def before_emit(self, activation: Activation, event: Event) -> None:
        """Wait until it is the turn of this event."""
        if self._free:
            return
        task = current_task()
        main = self._mains.get(activation)
        if main is not None and main.task is task:
            main.event = event
            await _about_to_emit()
            return
        other = self._others.get(task)
        if other is None:
            number = self._counts[activation] = self._counts.get(activation, 1) + 1
            name = f"{activation.place.path}#{number}"
            rank = (self._ranks[activation], number)
            other = self._others[task] = Actor(name, rank, activation)
        other.event = event
        await self._hold(other)

    # Steps.

    @types.coroutine
    def _stepped(self, actor: Actor, work: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        value: Any = None
        error: BaseException | None = None
        yield from self._hold(actor).__await__()
        while True:
            try:
                trap = work.send(value) if error is None else work.throw(error)
            except StopIteration:
                return
            finally:
                if inspect.getcoroutinestate(work) == inspect.CORO_CLOSED:
                    self._mains.pop(actor.activation, None)
            value = error = None
            if trap is not _EMIT:
                try:
                    value = yield trap
                    if _is_cancellation(value) and _is_cancelled(actor.activation):
                        self._struck.add(actor.activation)
                except BaseException as exc:  # noqa: BLE001  # for the work, not for us
                    error = exc
            if self.failure is not None:
                self._grace -= 1
                if self._grace < 0 or _is_abandoned(value):
                    # Nothing ends it. Its code is left where it stands, and kept: to let go of it
                    # would be to run it again.
                    _ABANDONED.append(work)
                    del self._mains[actor.activation]
                    raise AbandonedError(actor.name)
            if not isinstance(error, GeneratorExit):
                yield from self._hold(actor).__await__()

    async def _hold(self, actor: Actor) -> None:
        """Wait for this actor's turn. A cancellation waits with it."""
        if self._free:
            return
        actor.task = current_task()
        # The step that goes on right now is not among them yet.
        actor.enabled_by = len(self.steps) - (self._current is None)
        self._held[actor] = None
        await wait_task_rescheduled(_never)

    async def drive(self) -> None:
        """Let one after the other go, until cancelled."""
        while True:
            await wait_all_tasks_blocked()
            self._settle()
            try:
                if not self._held:
                    await self._let_time_pass()
                    continue
                if len(self.steps) >= self._max_steps:
                    raise EndlessRunError(self._max_steps, self.steps[-6:])  # noqa: TRY301
                actors = sorted(self._held, key=lambda actor: actor.rank)
                self._let_go(actors[self._chooser.choose(actors)])
            except Exception as exc:  # noqa: BLE001  # raised by who started this
                self.failure = exc
                self.stop_steering()
                self.scope.cancel("the exploration of this schedule has ended")
                await self._wind_up()

    async def _wind_up(self) -> None:
        """Get everybody to end who has been cancelled, until cancelled."""
        while True:
            await wait_all_tasks_blocked()
            seconds = trio.lowlevel.current_statistics().seconds_to_next_deadline
            if seconds < math.inf:
                self._clock.jump(max(seconds, 1e-9))
                continue
            for actor in list(self._mains.values()):
                # Behind a shield, waiting for what never comes: it can only be left there.
                if actor.task is not None:
                    reschedule(actor.task, outcome.Error(AbandonedError(actor.name)))

    def stop_steering(self) -> None:
        """Let everybody go, from now on."""
        self._free = True
        for actor in list(self._held):
            self._release(actor)

    def _let_go(self, actor: Actor) -> None:
        step = Step(
            actor.name, actor.event, actor.rank, trio.current_time(), enabled_by=actor.enabled_by
        )
        activation = actor.activation
        entrance = activation.entrance
        queues = activation.slots.limited or (entrance is not None and entrance.gate is not None)
        step.decisive = queues or activation in self._touchy
        self._touchy.discard(activation)
        if actor.event is not None:
            step.writes = frozenset(activation.state.pending)
        self._current, self._current_actor = step, actor
        self._release(actor)

    def _release(self, actor: Actor) -> None:
        del self._held[actor]
        actor.event = None
        if actor.task is not None:
            reschedule(actor.task)

    def _settle(self) -> None:
        """Find out what the last step did, now that everything waits."""
        step, self._current = self._current, None
        if step is None:
            return
        actor, self._current_actor = self._current_actor, None
        if step.event is not None:
            step.writes |= frozenset(step.event.state_delta)
        cancels: list[str] = []
        ended: list[str] = []
        decides: list[str] = []
        if step.event is not None and step.event.actions.escalate and actor is not None:
            decides += self._decided(actor.activation, None)
        for activation, before in list(self._live.items()):
            now = (activation.scope.cancel_called, activation.lane.sealed)
            if now != before:
                self._live[activation] = now
                cancels.append(activation.place.path)
            if activation.status not in (Status.PENDING, Status.RUNNING):
                del self._live[activation]
                ended.append(activation.place.path)
                decides += self._decided(activation, activation.status)
        step.cancels, step.ended = frozenset(cancels), frozenset(ended)
        step.decides = frozenset(decides)
        self.steps.append(step)
        self._chooser.note(step)

    def _decided(self, activation: Activation, status: Status | None) -> list[str]:
        """Return the fan-out that may end its other branches because of how this one ended."""
        crew = self._crews.pop(activation, None) if status else self._crews.get(activation)
        if crew is None:
            return []
        policy: Policy | None = getattr(crew.barrier, "policy", None)
        if policy is not None:
            match status:
                case Status.COMPLETED:
                    rule = policy.completed
                case Status.FAILED:
                    rule = policy.failed
                case Status.CANCELLED:
                    rule = policy.cancelled
                case _:
                    rule = Rule.CANCEL
            if rule is Rule.GO_ON:
                return []
        return [crew.owner.place.path]

    async def _let_time_pass(self) -> None:
        seconds = trio.lowlevel.current_statistics().seconds_to_next_deadline
        if seconds < math.inf:
            # Everything that happens from now on happens after all that was.
            step = Step("time", at=trio.current_time(), decisive=True)
            step.enabled_by = len(self.steps) - 1
            self.steps.append(step)
            self._chooser.note(step)
            if not trio.lowlevel.current_statistics().tasks_runnable:  # it may have cancelled
                self._clock.jump(max(seconds, 1e-9))
            return
        if trio.to_thread.current_default_thread_limiter().borrowed_tokens:
            # A thread of the agent's own. There is nothing to do but to wait for it.
            time.sleep(0.0005)  # noqa: ASYNC251  # virtual time does not bring it nearer
            await checkpoint()
            return
        waits = [
            (activation.place.path, describe_wait(actor.work))
            for activation, actor in self._mains.items()
            if actor.work is not None and not activation.children
        ]
        raise DeadlockError(waits)


@types.coroutine
def _about_to_emit() -> Generator[Any, Any, None]:
    yield _EMIT


def _is_abandoned(value: object) -> bool:
    return isinstance(value, outcome.Error) and isinstance(value.error, AbandonedError)


def _is_cancellation(value: object) -> bool:
    # Not by a deadline: `trio.sleep` ends by one of its own.
    error = value.error if isinstance(value, outcome.Error) else None
    return isinstance(error, trio.Cancelled) and error.source == "explicit"


def _is_cancelled(activation: Activation) -> bool:
    above: Activation | None = activation
    while above is not None and not above.scope.cancel_called:
        above = above.parent
    return above is not None


def _never(_raise_cancel: object) -> Abort:
    return Abort.FAILED
