"""One run of a tree, under one schedule.

Each is a run of its own, on a trio of its own, with a clock that stands still until
nothing else can happen, and ids and random numbers that are the same each time: the same schedule
makes the same run, to the byte.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from random import Random
from typing import Final, Protocol

import attrs
import trio
from trio.testing import MockClock

from parallel_agent.agent import Agent
from parallel_agent.invocation import RunConfig
from parallel_agent.notes import members
from parallel_agent.result import Result
from parallel_agent.run import Run
from parallel_agent.runner import Runner
from parallel_agent.steering import STEERING
from parallel_agent.testing.control import AbandonedError, Chooser, Controller
from parallel_agent.testing.errors import DeadlockError, EndlessRunError
from parallel_agent.testing.schedule import Replayed, Schedule
from parallel_agent.testing.steps import Access, Step
from session.content import Content
from session.event import Event

__all__ = ["MakeRunner", "MakeTree", "Trial", "check_maker", "run_once"]

EPOCH = 1_767_225_600.0
"""When runs under exploration begin, by their own clock: the first of January 2026."""

MakeTree = Callable[[], Agent]


_NOT_OF_THE_RUN: Final = (
    KeyboardInterrupt,
    SystemExit,
    GeneratorExit,
    trio.Cancelled,
    AbandonedError,
)
"""What comes out of a run and is for those around it."""


class MakeRunner(Protocol):
    """Makes the runner of one trial: `Runner`, or a function that passes on what it is given."""

    def __call__(
        self,
        tree: Agent,
        /,
        *,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        random: Random,
    ) -> Runner:
        """Return a runner of ``tree`` with these options."""
        ...


@attrs.frozen(eq=False, repr=False)
class Trial:
    """One run under one schedule.

    Attributes:
        result: what it came to; None if it could not be opened.
        error: what it raised, if it did.
        events: what the reader got; with a ``read`` of your own, what was recorded.
        schedule: who went, where there was a choice.
        steps: everything that was done, in order.
        swallowed: the paths of agents that were told of their cancellation, and returned as if
            nothing had been.
    """

    result: Result | None
    error: BaseException | None
    events: tuple[Event, ...]
    schedule: Schedule
    steps: tuple[Step, ...]
    swallowed: tuple[str, ...] = ()

    def __repr__(self) -> str:
        how = "not opened" if self.result is None else str(self.result.status)
        if self.error is not None:
            how = f"{how} with {self.error!r:.80}"
        return f"<Trial {how}: {len(self.events)} events, {self.schedule!r}>"


def check_maker(name: str, given: object) -> None:
    """Refuse what is no function where one is wanted that makes something for each run.

    Raises:
        TypeError: it is none, or a runner's does not take what it is called with.
    """
    what = name.removeprefix("make_")
    if not callable(given):
        message = (
            f"{name} is a function that makes the {what}, anew for each run (`lambda: ...`), "
            f"not {given!r:.80}"
        )
        raise TypeError(message)
    if what != "runner":
        return
    try:
        inspect.signature(given).bind(None, clock=None, new_id=None, random=None)
    except ValueError:
        return  # it has no signature that could be looked at
    except TypeError as exc:
        message = (
            "make_runner is called with the tree and the keywords clock, new_id and random, and "
            f"passes them on: `lambda tree, **options: Runner(tree, ..., **options)` ({exc})"
        )
        raise TypeError(message) from None


def run_once(
    make_tree: MakeTree,
    schedule: Schedule | Sequence[str] | Chooser = Schedule(),  # noqa: B008  # immutable
    *,
    message: str | Content | None = None,
    read: Callable[[Run], Awaitable[object]] | None = None,
    make_runner: MakeRunner = Runner,
    run_config: RunConfig | None = None,
    max_steps: int = 10_000,
    seed: int = 0,
    on_access: Callable[[Access], None] | None = None,
) -> Trial:
    """Run a tree once, under one schedule.

    Args:
        make_tree: makes the tree.
        schedule: who goes next, as a `Schedule` or a list; or whoever decides it, as the strategy
            ``schedules()`` draws it.
        message: what the run is started with.
        read: reads the run, sends messages, answers; by default, reads to the end.
        make_runner: makes the runner, from the tree and keywords for clock, ids and random
            numbers; ``functools.partial(Runner, reducers=...)``, for example.
        run_config: how the run behaves.
        max_steps: how many steps are a run that never ends.
        seed: of the random numbers that retries draw.
        on_access: told of every access to state.

    Returns what happened, also if the run has failed, did not end within ``max_steps``, or came to
    where nothing could happen any more (``trial.error`` says it).

    Raises:
        ScheduleError: the schedule does not fit the tree.
        TypeError: ``make_tree`` or ``make_runner`` makes none.
    """
    check_maker("make_tree", make_tree)
    check_maker("make_runner", make_runner)
    if trio.lowlevel.in_trio_run():
        message_ = "exploration runs trio itself: call it from a plain function, not from inside"
        raise RuntimeError(message_)
    chooser = _as_chooser(schedule)
    clock = MockClock()
    controller = Controller(
        clock,
        chooser,
        max_steps=max_steps,
        on_access=on_access,
        reader_acts=read is not None,
    )
    numbers = count(1)
    runner = make_runner(
        make_tree(),
        clock=lambda: EPOCH + clock.current_time(),
        new_id=lambda: f"id-{next(numbers)}",
        random=controller.random(seed),
    )
    events: list[Event] = []
    opened: list[Run] = []
    errors: list[BaseException] = []

    async def main() -> None:
        STEERING.set(controller)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(controller.drive)
            with controller.scope:
                try:
                    async with runner.open(message, run_config=run_config) as run:
                        opened.append(run)
                        controller.leave = run.cancel
                        if read is None:
                            async for event in run:
                                events.append(event)  # noqa: PERF401  # what came before a failure counts
                        else:
                            await controller.read(_as_coroutine(read, run))
                except BaseException as exc:
                    if _is_about(exc, *_NOT_OF_THE_RUN):
                        raise
                    errors.append(exc)  # what the run failed with
            controller.finish()
            nursery.cancel_scope.cancel()

    _run(main, clock, controller)
    failure = controller.failure
    if failure is not None and not isinstance(failure, DeadlockError | EndlessRunError):
        raise failure
    if isinstance(chooser, Replayed) and not isinstance(failure, EndlessRunError):
        chooser.check_end()
    error = failure or (errors[0] if errors else None)
    result = opened[0].result if opened else None
    return Trial(
        result,
        error,
        tuple(events) if read is None or result is None else result.events,
        getattr(chooser, "schedule", Schedule()),
        tuple(controller.steps),
        tuple(controller.swallowed),
    )


def _as_chooser(schedule: Schedule | Sequence[str] | Chooser) -> Chooser:
    if isinstance(schedule, Schedule):
        return Replayed(schedule)
    if isinstance(schedule, Sequence):
        return Replayed(Schedule(schedule))
    return schedule


def _run(main: Callable[[], Awaitable[None]], clock: MockClock, controller: Controller) -> None:
    try:
        trio.run(main, clock=clock, instruments=[controller])
    except BaseException as exc:
        fatal = _first_fatal(exc)
        if fatal is not None:
            raise fatal  # noqa: B904  # it comes out of a nursery as it went in
        if controller.failure is None or not _is_about(exc, AbandonedError):
            raise


async def _as_coroutine(read: Callable[[Run], Awaitable[object]], run: Run) -> None:
    await read(run)


def _first_fatal(error: BaseException) -> BaseException | None:
    """Return what is to end the process: Ctrl-C, SystemExit."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return error
    return next(filter(None, map(_first_fatal, members(error))), None)


def _is_about(error: BaseException, *kinds: type[BaseException]) -> bool:
    return isinstance(error, kinds) or any(_is_about(part, *kinds) for part in members(error))
