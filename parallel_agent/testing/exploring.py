"""Running a tree under every schedule, or as many as are wanted.

All of them, each once, if they are few enough; else half of the budget goes to the systematic
search, and the rest is drawn: evenly, and by priorities that change at few moments. The same seed
draws the same schedules.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Final, final

import attrs

from parallel_agent.result import Result
from parallel_agent.run import Run
from parallel_agent.runner import Runner
from parallel_agent.testing.diagram import draw
from parallel_agent.testing.errors import ScheduleError
from parallel_agent.testing.races import Observed, Race
from parallel_agent.testing.schedule import AtRandom, ByPriority, Schedule
from parallel_agent.testing.search import RedundantError, Search
from parallel_agent.testing.trial import MakeRunner, MakeTree, Trial, run_once
from session.content import Content

__all__ = ["Check", "Exploration", "ExplorationError", "explore", "replay"]

Check = Callable[[Result], object]
"""Called with the result of each run; raises if something is wrong."""

MAX_SHORTENING: Final = 200
"""How many runs are spent on making a failing schedule shorter."""


@attrs.frozen
class Exploration:
    """How much was explored.

    Attributes:
        schedules: how many different ones were run to their end.
        exhausted: whether these were all.
        bound: what has stopped it, if something did: ``"max_schedules"``.
        seed: where the random ones came from.
        redundant: how many were given up, because what was left made no difference.
        races: what was found; see `parallel_agent.testing.races`.
    """

    schedules: int
    exhausted: bool
    bound: str | None
    seed: int
    redundant: int = 0
    races: tuple[Race, ...] = ()


class ExplorationError(AssertionError):
    """A check has failed under some schedule. The check's own error is the cause.

    Attributes:
        trial: the run in which it did, under the shortest schedule that was found.
        explored: how many schedules had passed before.
        races: what was found by then.
    """

    def __init__(
        self, error: BaseException, trial: Trial, explored: int, races: tuple[Race, ...] = ()
    ) -> None:
        """``error`` is what the check, or the run, raised."""
        self.trial = trial
        self.explored = explored
        self.error = error
        self.races = races
        super().__init__(str(self))

    @property
    def drawing(self) -> str:
        """The run, as a small sequence diagram."""
        return draw(self.trial.steps)

    def __str__(self) -> str:
        choices = list(self.trial.schedule.choices)
        return (
            f"after {self.explored} schedules that passed, one failed with "
            f"{type(self.error).__name__}: {self.error}\n\n"
            f"schedule: {choices}\n"
            f"to replay: replay(make_tree, check, Schedule({choices}))\n\n"
            f"{self.drawing}"
        ) + "".join(f"\n\n{race}" for race in self.races)


@final
@attrs.frozen
class _Plan:
    """What all runs of one exploration have in common."""

    make_tree: MakeTree
    check: Check | None
    allow: tuple[type[BaseException], ...]
    message: str | Content | None
    read: Callable[[Run], Awaitable[object]] | None
    make_runner: MakeRunner
    max_steps: int
    seed: int
    observed: Observed = attrs.field(factory=Observed)

    def run(self, schedule: Schedule | AtRandom | ByPriority | Search) -> Trial:
        return run_once(
            self.make_tree,
            schedule,
            message=self.message,
            read=self.read,
            make_runner=self.make_runner,
            max_steps=self.max_steps,
            seed=self.seed,
            on_access=self.observed.begin(),
        )

    def judge(self, trial: Trial) -> BaseException | None:
        """Return what is wrong with a run, if something is."""
        if trial.error is not None and not isinstance(trial.error, self.allow):
            return trial.error
        if self.check is None or trial.result is None:
            return None
        try:
            self.check(trial.result)
        except Exception as exc:  # noqa: BLE001  # a check may raise what it likes
            return exc
        return None


def explore(
    make_tree: MakeTree,
    check: Check | None = None,
    *,
    max_schedules: int = 1_000,
    reduce: bool = True,
    allow: type[BaseException] | tuple[type[BaseException], ...] = (),
    message: str | Content | None = None,
    read: Callable[[Run], Awaitable[object]] | None = None,
    make_runner: MakeRunner = Runner,
    max_steps: int = 10_000,
    seed: int = 0,
) -> Exploration:
    """Run a tree under many schedules, and check what comes of each.

    Args:
        make_tree: makes the tree, anew for each run.
        check: called with the `Result` of each run; raises, or asserts, if it is wrong. Without
            one, no run may fail or come to a standstill.
        max_schedules: how many are run. If there are not more, all of them are.
        reduce: leave out schedules that differ only in the order of independent steps. Agents
            that share something the runtime does not know of pass a
            ``await ctx.checkpoint_schedule()`` around its use; or give False here.
        allow: errors with which a run may end; the check then sees a failed result.
        message: what each run is started with.
        read: reads a run, sends messages, answers; by default, reads to the end.
        make_runner: makes the runner, from the tree and keywords for clock, ids and random
            numbers; ``functools.partial(Runner, reducers=...)``, for example.
        max_steps: how many steps are a run that never ends.
        seed: where random schedules, and the random numbers that retries draw, come from.

    Raises:
        ExplorationError: a run or a check has failed; it says under which schedule, draws the
            run, and has the error as its cause.
        NondeterminismError: the same choices led to another run.
    """
    if type(max_schedules) is not int or max_schedules < 1:
        message_ = f"max_schedules is a whole number from 1 on, not {max_schedules!r}"
        raise ValueError(message_)
    allowed = allow if isinstance(allow, tuple) else (allow,)
    plan = _Plan(make_tree, check, allowed, message, read, make_runner, max_steps, seed)
    search = Search(reduce=reduce)
    passed = redundant = 0
    for trial in _systematically(plan, search, max_schedules):
        if trial is None:
            redundant += 1
            continue
        _demand(plan, trial, passed)
        passed += 1
    if search.exhausted:
        return Exploration(
            passed,
            exhausted=True,
            bound=None,
            seed=seed,
            redundant=redundant,
            races=plan.observed.races(),
        )
    seen: set[Schedule] = set()
    for number in range(max_schedules - passed):
        random = Random(f"{seed} {number}")  # noqa: S311  # a schedule is no secret
        steps = 2 * search.longest
        chooser = AtRandom(random) if number % 2 else ByPriority(random, depth=3, steps=steps)
        trial = plan.run(chooser)
        _demand(plan, trial, passed + len(seen))
        seen.add(trial.schedule)
    return Exploration(
        passed + len(seen),
        exhausted=False,
        bound="max_schedules",
        seed=seed,
        redundant=redundant,
        races=plan.observed.races(),
    )


def _systematically(plan: _Plan, search: Search, budget: int) -> Iterator[Trial | None]:
    """Yield a trial for each schedule, None for each that was given up."""
    half = max(budget // 2, 1)
    complete = runs = 0
    while complete < (half if runs > half else budget):
        search.begin()
        runs += 1
        try:
            trial = plan.run(search)
        except RedundantError:
            yield None
        else:
            complete += 1
            yield trial
        if not search.end():
            return


def _demand(plan: _Plan, trial: Trial, passed: int) -> None:
    plan.observed.end(trial)
    error = plan.judge(trial)
    if error is not None:
        races = plan.observed.races()
        trial, error = _shorten(plan, trial, error)
        raise ExplorationError(error, trial, passed, races) from error


def _shorten(plan: _Plan, trial: Trial, error: BaseException) -> tuple[Trial, BaseException]:
    """Return a run that fails in the same way, under the shortest schedule that was found."""
    runs = 0
    length = 0
    while length < len(trial.schedule) and runs < MAX_SHORTENING:
        # First the shortest beginning that fails, then without one choice after the other.
        for choices in (trial.schedule.choices[:length], _without(trial.schedule, length)):
            runs += 1
            try:
                other = plan.run(Schedule(choices))
            except ScheduleError:
                continue
            found = plan.judge(other)
            if type(found) is type(error) and found is not None:
                trial, error = attrs.evolve(other, schedule=Schedule(choices)), found
                break
        else:
            length += 1
    return trial, error


def _without(schedule: Schedule, position: int) -> tuple[str, ...]:
    return schedule.choices[:position] + schedule.choices[position + 1 :]


def replay(
    make_tree: MakeTree,
    check: Check | None,
    schedule: Schedule | str | Path,
    *,
    allow: type[BaseException] | tuple[type[BaseException], ...] = (),
    message: str | Content | None = None,
    read: Callable[[Run], Awaitable[object]] | None = None,
    make_runner: MakeRunner = Runner,
    max_steps: int = 10_000,
    seed: int = 0,
) -> Trial:
    """Run a tree once more under one schedule, and check what comes of it.

    Takes the arguments of `explore`. ``schedule`` is as the failure printed it; or the file into
    which it was saved.

    Raises:
        ExplorationError: the check fails, as it did.
        ScheduleError: the schedule does not fit the tree.
    """
    chosen = schedule if isinstance(schedule, Schedule) else Schedule.load(schedule)
    allowed = allow if isinstance(allow, tuple) else (allow,)
    plan = _Plan(make_tree, check, allowed, message, read, make_runner, max_steps, seed)
    trial = attrs.evolve(plan.run(chosen), schedule=chosen)
    error = plan.judge(trial)
    if error is not None:
        raise ExplorationError(error, trial, 0) from error
    return trial
