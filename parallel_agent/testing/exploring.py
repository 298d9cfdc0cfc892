"""Running a tree under every schedule, or as many as are wanted.

All of them, each once, if they are few enough; if it does not look so when half of the budget has
gone to the systematic search, the rest is drawn: evenly, and by priorities that change at few
moments. The same seed draws the same schedules.
"""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Final, final

import attrs

from parallel_agent.invocation import RunConfig
from parallel_agent.notes import describe
from parallel_agent.result import Result
from parallel_agent.run import Run
from parallel_agent.runner import Runner
from parallel_agent.testing.control import Chooser
from parallel_agent.testing.diagram import draw
from parallel_agent.testing.errors import ScheduleError
from parallel_agent.testing.printing import code_of
from parallel_agent.testing.races import Observed, Race
from parallel_agent.testing.schedule import AtRandom, ByPriority, Replayed, Schedule
from parallel_agent.testing.search import RedundantError, Search
from parallel_agent.testing.trial import MakeRunner, MakeTree, Trial, check_maker, run_once
from session.content import Content

__all__ = ["Check", "Exploration", "ExplorationError", "explore", "replay"]

Check = Callable[[Result], object]
"""Called with the result of each run; raises if something is wrong."""

_WORTH_IT: Final = 0.5
"""Which share of the schedules half of the budget must be, for the search to go on."""

MAX_SHORTENING: Final = 200
"""How many runs are spent on making a failing schedule shorter."""

MAX_RACES: Final = 4
"""How many races a failure prints."""


@attrs.frozen
class Exploration:
    """How much was explored.

    Attributes:
        schedules: how many were run to their end, each counted once.
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
        explored: how many schedules had passed before; None if it is from `replay`.
        error: what the check, or the run, raised.
        races: what was found by then.
    """

    def __init__(
        self,
        error: BaseException,
        trial: Trial,
        explored: int | None,
        races: tuple[Race, ...] = (),
        *,
        options: str = "",
        call: str = "replay(make_tree, check, ",
    ) -> None:
        """``call`` and ``options``: with what the run is replayed, as code around the schedule."""
        self.trial = trial
        self.explored = explored
        self.error = error
        self.races = races
        self._options = options
        self._call = call
        super().__init__(str(self))

    def replayed_by(self, call: str) -> ExplorationError:
        """Return the same with another line that replays it: ``call``, and then the schedule."""
        return ExplorationError(self.error, self.trial, self.explored, self.races, call=call)

    @property
    def drawing(self) -> str:
        """The run, as a small sequence diagram."""
        return draw(self.trial.steps)

    def __str__(self) -> str:
        choices = list(self.trial.schedule.choices)
        failed = f"failed with {_described(self.error)}"
        if self.explored is None:
            first = f"the schedule {failed}"
        else:
            some = "schedule" if self.explored == 1 else "schedules"
            first = f"after {self.explored} {some} that passed, one {failed}"
        again = f"to replay: {self._call}Schedule({choices}){self._options})"
        parts = (first, f"schedule: {choices}\n{again}", self.drawing, *_shown(self.races))
        return "\n\n".join(parts)


def _described(error: BaseException) -> str:
    """Say what an error is; where it was raised, if it has no text: a bare ``assert``."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # a broken __str__ must not hide its own error
        text = describe(error)[1]
    if text:
        return f"{name}: {text}"
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return name
    last = frames[-1]
    return f"{name} at {Path(last.filename).name}:{last.lineno}" + (
        f", `{last.line}`" if last.line else ""
    )


def _shown(races: Sequence[Race]) -> Iterator[str]:
    """Yield races as text: of two branches and a key the first, and of these not too many."""
    some: dict[tuple[str, frozenset[str | None]], Race] = {}
    for race in races:
        some.setdefault((race.key, frozenset((race.first.branch, race.second.branch))), race)
    shown = list(some.values())[:MAX_RACES]
    yield from map(str, shown)
    if len(races) > len(shown):
        yield f"({len(races) - len(shown)} more in `races` of this error)"


_REPLAYED: Final[Mapping[str, object]] = {
    "allow": (),
    "message": None,
    "read": None,
    "make_runner": Runner,
    "run_config": None,
    "max_steps": 10_000,
    "seed": 0,
}
"""The options that make a run what it is, and what they are by default."""


@final
@attrs.frozen
class _Plan:
    """What all runs of one exploration have in common."""

    make_tree: MakeTree
    check: Check | None
    allow: type[BaseException] | tuple[type[BaseException], ...]
    message: str | Content | None
    read: Callable[[Run], Awaitable[object]] | None
    make_runner: MakeRunner
    run_config: RunConfig | None
    max_steps: int
    seed: int
    observed: Observed = attrs.field(factory=Observed)

    def __attrs_post_init__(self) -> None:
        for kind in self.allow if isinstance(self.allow, tuple) else (self.allow,):
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                message = f"allow is an exception type, or a tuple of some, not {kind!r:.80}"
                raise TypeError(message)
        check_maker("make_tree", self.make_tree)
        check_maker("make_runner", self.make_runner)
        if self.check is not None and not callable(self.check):
            message = f"the check is a function of the result, not {self.check!r:.80}"
            raise TypeError(message)

    @property
    def options(self) -> str:
        """What `replay` is to be given besides, as code: a name for what has none."""
        parts = list[str]()
        for field in attrs.fields(type(self)):
            value = getattr(self, field.name)
            if field.name in _REPLAYED and value != _REPLAYED[field.name]:
                is_plain = isinstance(value, str | int | type) or field.name == "allow"
                parts.append(f", {field.name}={code_of(value) if is_plain else field.name}")
        return "".join(parts)

    def run(self, schedule: Schedule | Chooser) -> Trial:
        return run_once(
            self.make_tree,
            schedule,
            message=self.message,
            read=self.read,
            make_runner=self.make_runner,
            run_config=self.run_config,
            max_steps=self.max_steps,
            seed=self.seed,
            on_access=self.observed.begin(),
        )

    def judge(self, trial: Trial) -> BaseException | None:
        """Return what is wrong with a run, if something is."""
        # A run that could not even be opened has not been checked, whatever is allowed.
        if trial.error is not None and (
            trial.result is None or not isinstance(trial.error, self.allow)
        ):
            if _is_for_pytest(trial.error):
                raise trial.error
            return trial.error
        if self.check is None or trial.result is None:
            return None
        try:
            found = self.check(trial.result)
        except BaseException as exc:  # a check may raise what it likes
            if _is_for_pytest(exc) or not (isinstance(exc, Exception) or _is_pytest_failure(exc)):
                raise
            return exc
        if inspect.isawaitable(found):
            if inspect.iscoroutine(found):
                found.close()  # or Python complains that nobody awaited it
            message = "the check is a plain function of the result: it cannot be async"
            raise TypeError(message)
        if isinstance(found, bool):
            message = f"the check returned {found}, at which nobody looks: let it assert what it is"
            raise TypeError(message)
        return None


def _is_pytest_failure(error: BaseException) -> bool:
    """Whether it is `pytest.fail`, which is no `Exception`."""
    pytest = sys.modules.get("pytest")
    return pytest is not None and type(error) is pytest.fail.Exception


def _is_for_pytest(error: BaseException) -> bool:
    """Whether it tells pytest to skip the test, or to stop: no failure, and none of ours."""
    pytest = sys.modules.get("pytest")
    return pytest is not None and isinstance(error, pytest.skip.Exception | pytest.exit.Exception)


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
    run_config: RunConfig | None = None,
    max_steps: int = 10_000,
    seed: int = 0,
) -> Exploration:
    """Run a tree under many schedules, and check what comes of each.

    Args:
        make_tree: makes the tree, anew for each run.
        check: called with the `Result` of each run; raises, or asserts, if it is wrong. Without
            one, no run may fail or come to a standstill. What it returns is not looked at.
        max_schedules: how many are run, those counted that are given up half way because the rest
            makes no difference. All are run if there are at most half as many; and if, after that
            half, it looks as if the other half is enough for what is left, the search goes on.
        reduce: leave out schedules that differ only in the order of independent steps. Agents
            that share something the runtime does not know of pass a
            ``await ctx.checkpoint_schedule()`` around its use; or give False here.
        allow: errors with which a run may end; the check then sees a failed result.
        message: what each run is started with.
        read: reads a run, sends messages, answers; by default, reads to the end.
        make_runner: makes the runner, from the tree and keywords for clock, ids and random
            numbers; ``functools.partial(Runner, reducers=...)``, for example.
        run_config: how each run behaves.
        max_steps: how many steps are a run that never ends.
        seed: where random schedules, and the random numbers that retries draw, come from.

    Raises:
        ExplorationError: a run or a check has failed; it says under which schedule, draws the
            run, and has the error as its cause.
        NondeterminismError: the same choices led to another run.
        TypeError: an argument is not what it should be; or the check returns a truth value, as one
            does that forgot to assert it.
    """
    __tracebackhide__ = True
    if type(max_schedules) is not int or max_schedules < 1:
        message_ = f"max_schedules is a whole number from 1 on, not {max_schedules!r}"
        raise ValueError(message_)
    plan = _Plan(make_tree, check, allow, message, read, make_runner, run_config, max_steps, seed)
    search = Search(reduce=reduce)
    seen: set[Schedule] = set()
    runs = redundant = 0
    for trial in _systematically(plan, search, max_schedules):
        runs += 1
        if trial is None:
            redundant += 1
            continue
        _demand(plan, trial, len(seen))
        seen.add(trial.schedule)
    longest = search.longest
    for number in range(0 if search.exhausted else max_schedules - runs):
        random = Random(f"{seed} {number}")  # noqa: S311  # a schedule is no secret
        chooser = AtRandom(random) if number % 2 else ByPriority(random, depth=3, steps=longest)
        trial = plan.run(chooser)
        _demand(plan, trial, len(seen))
        seen.add(trial.schedule)
        longest = max(longest, len(trial.schedule))
    return Exploration(
        len(seen),
        exhausted=search.exhausted,
        bound=None if search.exhausted else "max_schedules",
        seed=seed,
        redundant=redundant,
        races=plan.observed.races(),
    )


def _systematically(plan: _Plan, search: Search, budget: int) -> Iterator[Trial | None]:
    """Yield a trial for each schedule, None for each that was given up."""
    for runs in range(1, budget + 1):
        search.begin()
        try:
            trial = plan.run(search)
        except RedundantError:
            yield None
        else:
            yield trial
        if not search.end():
            return
        if runs == budget // 2 and search.progress < _WORTH_IT:
            return


def _demand(plan: _Plan, trial: Trial, passed: int) -> None:
    __tracebackhide__ = True
    plan.observed.end(trial)
    error = plan.judge(trial)
    if error is not None:
        races = plan.observed.races()
        trial, error = _shorten(plan, trial, error)
        raise ExplorationError(error, trial, passed, races, options=plan.options) from error


def _shorten(plan: _Plan, trial: Trial, error: BaseException) -> tuple[Trial, BaseException]:
    """Return a run that fails in the same way, under the shortest schedule that was found."""
    shortest = _Shortest(plan, trial, error)
    length = 0
    while length < len(shortest.trial.schedule):
        # First the shortest beginning that fails, then without one choice after the other.
        choices = shortest.trial.schedule.choices
        for shorter in (choices[:length], choices[:length] + choices[length + 1 :]):
            if shortest.fails(Replayed(Schedule(shorter))):
                break
        else:
            length += 1
    # Then any that is shorter still, the shortest first: those that are left when the beginning of
    # one is not followed.
    todo: list[tuple[str, ...]] = [()]
    for choices in todo:
        chooser = Replayed(Schedule(choices))
        limit = len(shortest.trial.schedule)
        if len(choices) >= limit or shortest.fails(chooser) or not shortest.runs_left:
            break
        names = chooser.schedule.choices
        todo += [
            (*names[:position], name)
            for position in range(len(choices), min(limit - 1, len(names)))
            for name in chooser.options[position][1:]
        ]
        todo.sort(key=len)
    return shortest.trial, shortest.error


class _Shortest:
    """A run that fails, and how many more may be spent on finding one with a shorter schedule."""

    def __init__(self, plan: _Plan, trial: Trial, error: BaseException) -> None:
        self.trial = trial
        self.error: BaseException = error
        self.runs_left = MAX_SHORTENING
        self._plan = plan

    def fails(self, chooser: Replayed) -> bool:
        """Return whether a run fails in the same way, and then take it."""
        if not self.runs_left:
            return False
        self.runs_left -= 1
        try:
            trial = self._plan.run(chooser)
        except ScheduleError:
            return False
        error = self._plan.judge(trial)
        kind: type[object] = type(self.error)
        if error is None or type(error) is not kind:
            return False
        self.trial, self.error = attrs.evolve(trial, schedule=chooser.wanted), error
        return True


def replay(
    make_tree: MakeTree,
    check: Check | None,
    schedule: Schedule | Sequence[str] | str | Path,
    *,
    allow: type[BaseException] | tuple[type[BaseException], ...] = (),
    message: str | Content | None = None,
    read: Callable[[Run], Awaitable[object]] | None = None,
    make_runner: MakeRunner = Runner,
    run_config: RunConfig | None = None,
    max_steps: int = 10_000,
    seed: int = 0,
) -> Trial:
    """Run a tree once more under one schedule, and check what comes of it.

    Takes the arguments of `explore`. ``schedule`` is as the failure printed it, as a `Schedule`
    or as a list; or the file into which it was saved.

    Raises:
        ExplorationError: the check fails, as it did.
        ScheduleError: the schedule does not fit the tree, or the file holds none.
        OSError: the file cannot be read.
    """
    __tracebackhide__ = True
    match schedule:
        case Schedule():
            chosen = schedule
        case str() | Path():
            chosen = Schedule.load(schedule)
        case _:
            chosen = Schedule(schedule)
    plan = _Plan(make_tree, check, allow, message, read, make_runner, run_config, max_steps, seed)
    trial = attrs.evolve(plan.run(chosen), schedule=chosen)
    error = plan.judge(trial)
    if error is not None:
        raise ExplorationError(error, trial, None, options=plan.options) from error
    return trial
