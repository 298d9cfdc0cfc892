"""Races: two branches that do not see each other, and one state key.

A race is two accesses to one key by branches neither of which has joined, or been forked after,
the other; at least one of them writes; and the key has no reducer. Which of them comes first is
then up to the scheduler, and with it, perhaps, the result. Whether a race does harm only the
program's purpose can tell.

`explore` reports the races of all runs, with a schedule that changes the result if it has found
one; `watch_races` watches ordinary runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, Final, final

import attrs

from parallel_agent.activation import Activation
from parallel_agent.result import Result
from parallel_agent.steering import STEERING, Gate
from parallel_agent.testing.schedule import Schedule
from parallel_agent.testing.steps import EVERY_KEY, Access
from parallel_agent.testing.trial import Trial
from parallel_agent.testing.watched import watch_state

__all__ = ["Observed", "Race", "RaceFinder", "watch_races"]

MAX_BRANCHES: Final = 256
"""Of how many branches the newest accesses to one key are remembered."""


@attrs.frozen
class Race:
    """Two accesses to one key whose order is up to the scheduler.

    Attributes:
        key: the state key.
        first, second: the accesses, in the order of the run in which the race was found.
        schedule: one under which the run came to another result; None if none was found.
    """

    key: str
    first: Access
    second: Access
    schedule: Schedule | None = None

    def __str__(self) -> str:
        changes = ""
        if self.schedule is not None:
            changes = f"; the result changes under {self.schedule}"
        return (
            f"race on state[{self.key!r}]: {self.first.describe()}, {self.second.describe()}, and "
            f"neither branch sees the other{changes}"
        )


@final
class RaceFinder:
    """Finds races among accesses, told of one after the other."""

    def __init__(self) -> None:
        """Begin without any."""
        self._found: dict[tuple[object, ...], Race] = {}
        # By key and branch: its newest look, and its newest write.
        self._newest: dict[str, dict[int, list[Access | None]]] = {}

    @property
    def races(self) -> tuple[Race, ...]:
        """What was found: each pair of places in the code once, in the order of finding."""
        return tuple(self._found.values())

    def begin(self) -> None:
        """Forget the accesses, for another run; keep the races."""
        self._newest.clear()

    def add(self, access: Access) -> None:
        """Learn of an access."""
        if access.key == EVERY_KEY or access.combined:
            return
        lines = self._newest.setdefault(access.key, {})
        for earlier in lines.values():
            for other in earlier[:1] if access.writes else ():
                self._compare(other, access)
            self._compare(earlier[1], access)
        if id(access.line) not in lines and len(lines) == MAX_BRANCHES:
            del lines[next(iter(lines))]
        lines.setdefault(id(access.line), [None, None])[access.writes] = access

    def _compare(self, earlier: Access | None, access: Access) -> None:
        if earlier is None or earlier.line is access.line:
            return
        if earlier.seq <= access.line.limit_for(earlier.line):
            return  # one sees the other
        # By where it is in the code: ten branches of one agent have one race, not forty-five.
        pair = sorted((one.where or one.branch or "", one.writes) for one in (earlier, access))
        self._found.setdefault((access.key, *pair), Race(access.key, earlier, access))


@final
class Observed:
    """What was observed over the runs of one exploration."""

    def __init__(self) -> None:
        """Begin."""
        self._finder = RaceFinder()
        self._first: Result | None = None
        self._changed: dict[str, Schedule] = {}
        self._other: Schedule | None = None

    def begin(self) -> Callable[[Access], None]:
        """Begin a run; return what is to be told of its accesses."""
        self._finder.begin()
        return self._finder.add

    def end(self, trial: Trial) -> None:
        """Compare what a run came to with the first."""
        result = trial.result
        if result is None:
            return
        if self._first is None:
            self._first = result
            return
        first = self._first
        if (result.status, result.outputs) != (first.status, first.outputs):
            self._other = self._other or trial.schedule
        if result.state != first.state:
            for key in {*result.state, *first.state}:
                if result.state.get(key) != first.state.get(key):
                    self._changed.setdefault(key, trial.schedule)

    def races(self) -> tuple[Race, ...]:
        """Return the races, each with a schedule that changes the result, if one was seen."""
        return tuple(
            attrs.evolve(race, schedule=self._changed.get(race.key, self._other))
            for race in self._finder.races
        )


class _Watch:
    """Steering that does not steer: it looks on."""

    inline = False

    def __init__(self, finder: RaceFinder) -> None:
        self._state_type = watch_state(finder.add)

    def gate(self, plugins: Gate | None) -> Gate | None:
        return plugins

    def adopt(self, activation: Activation) -> None:
        state = activation.state
        activation.state = self._state_type(
            activation.invocation.shared, activation.lane, state.layer
        )

    def run(self, activation: Activation, work: Coroutine[Any, Any, None]) -> Awaitable[None]:  # noqa: ARG002  # as asked
        return work

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        raise NotImplementedError  # `inline` says so

    def note(self, activation: Activation, what: str) -> None:
        pass


@contextmanager
def watch_races() -> Generator[RaceFinder]:
    """Watch the runs that are opened in this block, or below it, for races.

    ::

        with watch_races() as finder:
            trio.run(main)
        for race in finder.races:
            print(race)

    Only what happens is seen: a branch that was cancelled before it looked has no race. It costs
    some microseconds per access.
    """
    finder = RaceFinder()
    token = STEERING.set(_Watch(finder))
    try:
        yield finder
    finally:
        STEERING.reset(token)
