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
from threading import Lock
from typing import Any, Final, TypeAlias, final
from weakref import WeakKeyDictionary

import attrs

from parallel_agent.activation import Activation
from parallel_agent.branch import Branch
from parallel_agent.invocation import Invocation
from parallel_agent.result import Result
from parallel_agent.steering import STEERING, Gate
from parallel_agent.testing.schedule import Schedule
from parallel_agent.testing.steps import EVERY_KEY, Access
from parallel_agent.testing.trial import Trial
from parallel_agent.testing.watched import StateWatch
from session.event import Event

__all__ = ["Observed", "Race", "RaceFinder", "watch_races"]

MAX_BRANCHES: Final = 256
"""Of how many branches the newest accesses to one key are remembered."""

_Newest: TypeAlias = dict[str, dict[int, list[Access | None]]]
"""By key and branch: its newest look, and its newest write."""


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
    """Finds races among accesses, told of one after the other; also from several threads."""

    def __init__(self) -> None:
        """Begin without any."""
        self._found: dict[tuple[object, ...], Race] = {}
        self._newest: _Newest = {}
        self._lock = Lock()

    @property
    def races(self) -> tuple[Race, ...]:
        """What was found: each pair of places in the code once, in the order of finding."""
        with self._lock:
            return tuple(self._found.values())

    def begin(self) -> None:
        """Forget the accesses, for another run; keep the races."""
        with self._lock:
            self._newest = {}

    def add(self, access: Access) -> None:
        """Learn of an access."""
        self._add(access, self._newest)

    def of_one_run(self) -> Callable[[Access], None]:
        """Return what is to be told of the accesses of one run, which may go on beside others."""
        newest: _Newest = {}
        return lambda access: self._add(access, newest)

    def _add(self, access: Access, newest: _Newest) -> None:
        if access.key == EVERY_KEY or access.combined:
            return
        with self._lock:
            lines = newest.setdefault(access.key, {})
            for look, write in lines.values():
                if access.writes:
                    self._compare(look, access)
                self._compare(write, access)
            if id(access.line) not in lines and len(lines) == MAX_BRANCHES:
                del lines[next(iter(lines))]
            lines.setdefault(id(access.line), [None, None])[access.writes] = access

    def _compare(self, earlier: Access | None, access: Access) -> None:
        if earlier is None or _is_ordered(earlier, access):
            return
        # By where it is in the code: ten branches of one agent have one race, not forty-five.
        pair = sorted((one.where or one.branch or "", one.writes) for one in (earlier, access))
        self._found.setdefault((access.key, *pair), Race(access.key, earlier, access))


def _is_ordered(earlier: Access, access: Access) -> bool:
    """Whether forks and joins put two accesses in order, or they are of different runs.

    What `parallel_agent.branch.Branch.limit_for` decides for events.
    """
    mine, theirs = access.line, earlier.line
    forked_at: Branch | None = None  # the fork through which this line left the common ancestor
    joined_by: Branch | None = None  # the join through which the other came back to it
    while mine is not theirs:
        if mine.depth >= theirs.depth:
            if mine.parent is None:
                return True
            mine, forked_at = mine.parent, mine
        else:
            theirs, joined_by = theirs.parent or theirs, theirs
    if (
        forked_at is not None
        and forked_at.peers is not None
        and joined_by is not None
        and joined_by.peers is forked_at.peers
    ):
        return bool(forked_at.after >> joined_by.position & 1)  # nodes of one graph
    if joined_by is not None:
        joined = joined_by.joined
        return joined is not None and (forked_at is None or joined < forked_at.forked)
    # By the same branch, or by one above, before the fork.
    return forked_at is None or earlier.tick < forked_at.forked


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


class _Gate:
    """What the events of a watched run pass."""

    def __init__(self, watch: _Watch, plugins: Gate | None) -> None:
        self._watch = watch
        self._plugins = plugins

    async def event(self, activation: Activation, event: Event) -> Event | None:
        passed = event if self._plugins is None else await self._plugins.event(activation, event)
        if passed is not None:
            self._watch.state_of(activation).event(activation, passed)
        return passed


class _Watch:
    """Steering that does not steer: it looks on."""

    inline = False

    def __init__(self, finder: RaceFinder) -> None:
        self._finder = finder
        # Each run its own, and no longer than that: what another did is before or after all of it.
        self._states: WeakKeyDictionary[Invocation, StateWatch] = WeakKeyDictionary()

    def state_of(self, activation: Activation) -> StateWatch:
        states = self._states.get(activation.invocation)
        if states is None:
            states = self._states[activation.invocation] = StateWatch(self._finder.of_one_run())
        return states

    def gate(self, plugins: Gate | None) -> Gate:
        return _Gate(self, plugins)

    def adopt(self, activation: Activation) -> None:
        self.state_of(activation).adopt(activation)

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

    Of blocks inside each other, the innermost watches. Runs may go on side by side, in threads
    too. Only what happens is seen: a branch that was cancelled before it looked has no race. It
    costs some microseconds per access.
    """
    finder = RaceFinder()
    token = STEERING.set(_Watch(finder))
    try:
        yield finder
    finally:
        STEERING.reset(token)
