"""One run, one step at a time: whoever is asked decides which branch goes next.

While a run is steered, exactly one task goes. It runs until it waits: for others, for time, or
because it is about to emit. When nothing runs any more, the next is chosen among those that could
go on; only when there is none, time passes, to the next moment at which something happens. So a
run is a list of choices, and the same choices make the same run.

What is steered are the tasks of agents, those of their own nurseries included, at each place where
they go on after a wait, and every event before it is queued. Plain functions run at once, and not
in threads. The reader is not steered; if it has several tasks, they go in the order of their
making.

Errors: when nothing can ever happen again, that is a `DeadlockError` which says who waits for
what.
"""

from __future__ import annotations

import inspect
import math
import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any, Final, cast

import outcome
import trio
from trio.lowlevel import Abort, Task, checkpoint, current_task, reschedule, wait_task_rescheduled
from trio.testing import MockClock, wait_all_tasks_blocked

from parallel_agent.activation import Activation
from parallel_agent.steering import Gate
from parallel_agent.testing.actors import Actor, Chooser
from parallel_agent.testing.effects import Effects, NoticedRandom
from parallel_agent.testing.errors import DeadlockError, EndlessRunError
from parallel_agent.testing.steps import Access, Step
from parallel_agent.testing.waits import (
    describe_wait,
    is_in_thread,
    leaves_nursery,
    runs_an_agent,
    shares_a_wait,
    waits_below,
    waits_inside,
)
from session.event import Event

__all__ = ["AbandonedError", "Actor", "Chooser", "Controller"]

_EMIT: Final = object()
"""What a steered task yields instead of a trap of trio's when it is about to emit."""

_GIVEN_UP: Final = "the exploration of this schedule has ended"

_READ: Final = frozenset({"read"})

MAX_GRACE: Final = 1_000
"""How many more steps all tasks together may take when their run has been given up."""

PATIENCE: Final = 1.0
"""How many real seconds a thread that an agent has started may take, before others go on."""

_ABANDONED: Final[list[object]] = []


class AbandonedError(BaseException):
    """A task could not be ended."""


class _Gate:
    """What the run's events pass."""

    def __init__(self, controller: Controller, plugins: Gate | None) -> None:
        self._controller = controller
        self._plugins = plugins

    async def event(self, activation: Activation, event: Event) -> Event | None:
        """Wait until it may be emitted."""
        await self._controller.before_emit(activation, event)
        passed = event if self._plugins is None else await self._plugins.event(activation, event)
        if passed is not None:
            self._controller.effects.emitting(activation, passed)
        return passed


class Controller(trio.abc.Instrument):
    """Steers the runs that are opened while it is `parallel_agent.steering.STEERING`.

    An instrument of the trio run, too: so it learns of the tasks that agents start.

    Args:
        clock: of the trio run, standing still.
        chooser: who decides.
        max_steps: how many steps are a run that never ends.
        on_access: told of every access to state.
        reader_acts: whether the reader does more than read.

    Attributes:
        steps: what was done, in order.
        swallowed: the paths of agents that were told of their cancellation, and returned.
        failure: what has ended the run before its end.
        scope: what it is to be run in.
        leave: cancels the run; set when it is open.
    """

    inline = True

    def __init__(
        self,
        clock: MockClock,
        chooser: Chooser,
        *,
        max_steps: int,
        on_access: Callable[[Access], None] | None = None,
        reader_acts: bool = False,
    ) -> None:
        """Begin with nothing to steer."""
        self.steps: list[Step] = []
        self.swallowed: list[str] = []
        self.failure: BaseException | None = None
        self.scope = trio.CancelScope()
        self.leave: Callable[[str], object] | None = None
        self.effects = Effects(on_access, reader_acts=reader_acts)
        self._clock = clock
        self._chooser = chooser
        self._max_steps = max_steps
        self._turns = 0
        self._free = False
        self._ranks: dict[Activation, int] = {}
        self._actors: dict[Task, Actor] = {}
        self._strangers: dict[tuple[Task, Activation], Actor] = {}
        self._counts: dict[Activation | None, int] = {}
        self._held: dict[Actor, None] = {}
        self._outside: dict[Actor, None] = {}
        self._ends: dict[trio.Nursery, list[int]] = {}  # the steps in which its tasks have ended
        self._current: Actor | None = None
        self._grace = MAX_GRACE
        self._struck: set[Activation] = set()

    def random(self, seed: int) -> NoticedRandom:
        """Return the random numbers of the run."""
        return NoticedRandom(self.effects, seed)

    # What a run asks: `parallel_agent.steering.Steering`.

    def gate(self, plugins: Gate | None) -> Gate:
        """Return what the run's events pass."""
        return _Gate(self, plugins)

    def adopt(self, activation: Activation) -> None:
        """Learn of an activation, and watch its state."""
        self._ranks[activation] = len(self._ranks)
        self.effects.adopt(activation)

    def run(self, activation: Activation, work: Coroutine[Any, Any, None]) -> Awaitable[None]:
        """Run an activation's work, one step at a time."""
        name = self.effects.name(activation)
        return self._stepped(Actor(name, (self._ranks[activation], 0), activation, work), work)

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a plain function at once."""
        await checkpoint()
        return function(*arguments)

    def note(self, activation: Activation, what: str) -> None:
        """Learn that the step of ``activation`` has to do with others, or that its code is over."""
        if what != "returned":
            self.effects.note(activation, what)
        elif activation in self._struck and _is_cancelled(activation):
            self.swallowed.append(activation.place.path)

    async def before_emit(self, activation: Activation, event: Event) -> None:
        """Wait until it is the turn of this event."""
        if self._free:
            return
        task = current_task()
        actor = self._actors.get(task)
        if actor is not None and actor.activation is not None:
            actor.event, actor.emitter = event, activation
            await _about_to_emit()
            return
        # Nobody's task: one in which a person is asked about a branch that has failed, say.
        stranger = self._strangers.get((task, activation))
        if stranger is None:
            name, rank = self._numbered(activation)
            stranger = self._strangers[task, activation] = Actor(name, rank, activation)
        stranger.event, stranger.emitter = event, activation
        await self._hold(stranger)

    # Tasks that agents start, and whom they wake: `trio.abc.Instrument`.

    def task_scheduled(self, task: Task) -> None:
        """Learn that whoever goes has woken another: at an event, or a lock."""
        actor, current = self._actors.get(task), self._current
        if actor is None or current is None or actor is current or current.activation is None:
            return
        if shares_a_wait(actor.work):
            self.effects.share_waits(current.activation)

    def task_spawned(self, task: Task) -> None:
        """Steer a task that a steered one has started."""
        if self._free or task.parent_nursery is None:
            return
        above = self._actors.get(task.parent_nursery.parent_task)
        if above is None or runs_an_agent(getattr(task.coro, "cr_code", None)):
            return  # it is about to be steered
        name, rank = self._numbered(above.activation)
        work: Any = task.coro
        actor = Actor(name, rank, above.activation, work, task)
        self._actors[task] = actor
        # Before it has begun; it is as if a function that steers had been started instead.
        task.coro = cast("Any", self._stepped(actor, work))

    def _numbered(self, activation: Activation | None) -> tuple[str, tuple[int, int]]:
        number = self._counts[activation] = self._counts.get(activation, 1) + 1
        if activation is None:
            return f"the reader#{number}", (-1, number)
        return f"{self.effects.name(activation)}#{number}", (self._ranks[activation], number)

    def read(self, work: Coroutine[Any, Any, Any]) -> Awaitable[Any]:
        """Run what reads: it is not chosen, but its tasks go one after the other."""
        return self._stepped(Actor("the reader", (-1, 1), None, work), work)

    # Steps.

    @types.coroutine
    def _stepped(self, actor: Actor, work: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        value: Any = None
        error: BaseException | None = None
        task = current_task()
        self._actors[task] = actor
        yield from self._hold(actor).__await__()
        while True:
            try:
                trap = work.send(value) if error is None else work.throw(error)
            except StopIteration as stop:
                return stop.value
            finally:
                if inspect.getcoroutinestate(work) == inspect.CORO_CLOSED:
                    self._end(task)
            value = error = None
            if trap is not _EMIT:
                try:
                    value = yield trap
                    if _is_cancellation(value) and _is_cancelled(actor.activation):
                        self._struck.add(cast("Activation", actor.activation))
                except BaseException as exc:  # noqa: BLE001  # for the work, not for us
                    error = exc
            if self.failure is not None and (
                yield from self._is_beyond_help(task, value).__await__()
            ):
                # Its code is left where it stands, and kept: to let go of it would be to run it
                # again.
                _ABANDONED.append(work)
                self._end(task)
                raise AbandonedError(actor.name)
            if not isinstance(error, GeneratorExit):
                yield from self._hold(actor).__await__()

    async def _is_beyond_help(self, task: Task, value: object) -> bool:
        """Return whether nothing ends a task of a run that has been given up."""
        self._grace -= 1
        while self._grace < 0 and _has_children(task):
            # They go first: none may outlive the nursery that it was started in.
            with suppress(AbandonedError):
                await wait_task_rescheduled(_never)
        return self._grace < 0 or _is_abandoned(value)

    def _end(self, task: Task) -> None:
        self._actors.pop(task, None)
        if task.parent_nursery is not None:
            self._ends.setdefault(task.parent_nursery, []).append(self._position)

    async def _hold(self, actor: Actor) -> None:
        """Wait for this actor's turn. A cancellation waits with it."""
        if self._free:
            return
        task = actor.task = current_task()
        actor.causes = (self._position,) if self._position >= 0 else ()
        nurseries = task.child_nurseries
        if nurseries and nurseries[-1] in self._ends and leaves_nursery(actor.work):
            # It waited for all, and not only for the last.
            actor.causes = tuple({*actor.causes, *self._ends.pop(nurseries[-1])})
        (self._held if actor.activation is not None else self._outside)[actor] = None
        await wait_task_rescheduled(_never)

    @property
    def _position(self) -> int:
        """Of the step that goes on now, which is not among the others yet; or of the last."""
        return len(self.steps) - (self._current is None)

    async def drive(self) -> None:
        """Let one after the other go, until cancelled."""
        try:
            while True:
                await wait_all_tasks_blocked()
                await self._take_turn()
        except trio.Cancelled:
            raise
        except BaseException as exc:  # noqa: BLE001  # raised by who started this
            # Ctrl-C and a test's time limit, too: who is held waits for ever, if nobody lets go.
            self.failure = exc
            exc.__cause__ = exc.__cause__ or self.effects.struck()
            self.stop_steering()
            if self.leave is not None:
                self.leave(_GIVEN_UP)  # the first reason counts
            self.scope.cancel(_GIVEN_UP)
        await self._wind_up()

    async def _take_turn(self) -> None:
        self._turns += 1
        if max(len(self.steps), self._turns // 10) >= self._max_steps:
            raise EndlessRunError(self._max_steps, self.steps[-6:])
        if self._outside:
            self._release(min(self._outside, key=_rank))
            return
        if self._current is not None:
            await self._let_thread_end(self._current)
        self._settle()
        if not self._held:
            await self._let_time_pass()
            return
        actors = sorted(self._held, key=_rank)
        self._let_go(actors[self._chooser.choose(actors)])

    async def _let_thread_end(self, actor: Actor) -> None:
        """Wait for a thread that was started in this step, as if all of it were the step.

        Or whether it ends before others have gone would hang on how fast it is. But it may wait
        for them.
        """
        if not is_in_thread(actor.work):
            return
        until = time.monotonic() + PATIENCE
        while actor not in self._held and is_in_thread(actor.work) and time.monotonic() < until:
            await _wait_for_threads()
        await wait_all_tasks_blocked()  # those whom its end has woken go no further either

    async def _wind_up(self) -> None:
        """Get everybody to end who has been cancelled, until cancelled."""
        while True:
            await wait_all_tasks_blocked()
            seconds = trio.lowlevel.current_statistics().seconds_to_next_deadline
            if seconds < math.inf:
                self._clock.jump(max(seconds, 1e-9))
                continue
            if self._runs_thread():
                await _wait_for_threads()
                continue
            # Behind a shield, waiting for what never comes: it can only be left there. One at a
            # time, and none before those it has started: their ends are told to whom they are
            # told always.
            for actor in sorted(self._actors.values(), key=_rank, reverse=True):
                if actor.task is not None and not _has_children(actor.task):
                    reschedule(actor.task, outcome.Error(AbandonedError(actor.name)))
                    break

    def finish(self) -> None:
        """Account for the last step, the run having ended, and let everybody go."""
        try:
            if self.failure is None:
                self._settle()
        except Exception as exc:  # noqa: BLE001  # raised by who started this
            self.failure = exc
        self.stop_steering()

    def stop_steering(self) -> None:
        """Let everybody go, from now on."""
        self._free = True
        for actor in [*self._held, *self._outside]:
            self._release(actor)

    def _let_go(self, actor: Actor) -> None:
        step = Step(actor.name, actor.event, actor.rank, at=trio.current_time())
        step.causes = actor.causes
        self.effects.begin(step, cast("Activation", actor.activation), actor.work, actor.task)
        self._current = actor
        self._release(actor)

    def _release(self, actor: Actor) -> None:
        self._held.pop(actor, None)
        self._outside.pop(actor, None)
        actor.event = None
        if actor.task is not None:
            reschedule(actor.task)

    def _settle(self) -> None:
        """Find out what the last step did, now that everything waits."""
        actor, self._current = self._current, None
        if actor is None:
            self.effects.catch_up()
            return
        if actor.activation is not None and shares_a_wait(actor.work):
            self.effects.share_waits(actor.activation)
        activation = actor.emitter or actor.activation
        actor.emitter = None
        step = self.effects.settle(cast("Activation", activation))
        self.steps.append(step)
        self._chooser.note(step)

    async def _let_time_pass(self) -> None:
        seconds = trio.lowlevel.current_statistics().seconds_to_next_deadline
        if seconds < math.inf:
            # Everything that happens from now on happens after all that was.
            step = Step("time", at=trio.current_time(), decisive=True)
            step.causes = (len(self.steps) - 1,) if self.steps else ()
            self.steps.append(step)
            self._chooser.note(step)
            if not trio.lowlevel.current_statistics().tasks_runnable:  # it may have cancelled
                self._clock.jump(max(seconds, 1e-9))
            return
        if self._runs_thread():
            await _wait_for_threads()
            return
        raise DeadlockError(self._waits())

    def _runs_thread(self) -> bool:
        """Return whether anybody waits for a thread; there is nothing to do but to wait as well."""
        root = trio.lowlevel.current_root_task()
        tasks = [] if root is None else [root]
        for task in tasks:
            actor = self._actors.get(task)
            if is_in_thread(task.coro) or (actor is not None and is_in_thread(actor.work)):
                return True
            tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        return False

    def _waits(self) -> list[tuple[str, str]]:
        """Return who waits for what, but for those who wait for others among them."""
        waits = [
            (actor.name, describe_wait(actor.work))
            for actor in sorted(self._actors.values(), key=_rank)
            if actor.work is not None and not waits_below(actor.work)
            # The reader waits for those who wait.
            if actor.activation is not None or not waits_inside(actor.work, _READ)
        ]
        for invocation in self.effects.invocations:
            for request in invocation.requests.pending():
                if all(name != request.path for name, _ in waits):
                    waits.append((request.path, f"for a person's answer to {request.prompt!r}"))
        return waits


def _rank(actor: Actor) -> tuple[int, int]:
    return actor.rank


def _has_children(task: Task) -> bool:
    return any(nursery.child_tasks for nursery in task.child_nurseries)


async def _wait_for_threads() -> None:
    time.sleep(0.0005)  # noqa: ASYNC251  # virtual time does not bring them nearer
    await checkpoint()


@types.coroutine
def _about_to_emit() -> Generator[Any, Any, None]:
    yield _EMIT


def _is_abandoned(value: object) -> bool:
    return isinstance(value, outcome.Error) and isinstance(value.error, AbandonedError)


def _is_cancellation(value: object) -> bool:
    # Not by a deadline: `trio.sleep` ends by one of its own.
    error = value.error if isinstance(value, outcome.Error) else None
    return isinstance(error, trio.Cancelled) and error.source == "explicit"


def _is_cancelled(activation: Activation | None) -> bool:
    above = activation
    while above is not None and not above.scope.cancel_called:
        above = above.parent
    return above is not None


def _never(_raise_cancel: object) -> Abort:
    return Abort.FAILED
