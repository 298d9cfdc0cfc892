"""Everything that can come of a tree, found with the reduction, without it, and with a bad one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from parallel_agent import Agent, Result, Run, RunConfig, Runner
from parallel_agent.testing import Schedule, Step, Trial, run_once
from parallel_agent.testing.control import Actor
from parallel_agent.testing.search import RedundantError, Search
from parallel_agent.testing.trial import MakeRunner

MakeTree = Callable[[], Agent]
Read = Callable[[Run], Awaitable[object]]


class TooManyError(Exception):
    """There are more schedules than are to be run."""


class Found:
    """What a search came upon: an example of each outcome, and how many runs it took."""

    def __init__(self) -> None:
        self.outcomes: dict[object, Schedule] = {}
        self.schedules: list[Schedule] = []
        self.redundant = 0


class Altered:
    """A search that is told something else than what was done."""

    def __init__(self, search: Search, alter: Callable[[Step], None]) -> None:
        self._search = search
        self._alter = alter

    def choose(self, actors: Sequence[Actor]) -> int:
        return self._search.choose(actors)

    def note(self, step: Step) -> None:
        self._alter(step)
        self._search.note(step)

    @property
    def schedule(self) -> Schedule:
        return self._search.schedule


def find(
    make_tree: MakeTree,
    *,
    reduce: bool = True,
    limit: int = 2_000,
    alter: Callable[[Step], None] | None = None,
    read: Read | None = None,
    make_runner: MakeRunner = Runner,
    run_config: RunConfig | None = None,
) -> Found:
    """Search through all schedules."""
    search = Search(reduce=reduce)
    found = Found()
    while True:
        search.begin()
        try:
            trial = run_once(
                make_tree,
                search if alter is None else Altered(search, alter),
                read=read,
                make_runner=make_runner,
                run_config=run_config,
            )
        except RedundantError:
            found.redundant += 1
        else:
            found.schedules.append(trial.schedule)
            found.outcomes.setdefault(outcome_of(trial), trial.schedule)
        if not search.end():
            return found
        if len(found.schedules) + found.redundant >= limit:
            raise TooManyError


def outcome_of(trial: Trial) -> object:
    """Return all that anybody could tell runs apart by: log, state, outputs, error."""
    error = trial.error
    return (
        tuple(
            (
                (event.branch, event.author, event.text, event.partial, event.timestamp),
                _changes(event.state_delta),
                event.actions.escalate,
                event.actions.outcomes,
            )
            for event in trial.events
        ),
        _result(trial.result),
        repr(error),
        tuple(getattr(error, "__notes__", ())),
    )


def _result(result: Result | None) -> object:
    if result is None:
        return None
    return (
        result.status,
        result.reason,
        _changes(result.state),
        _changes(result.outputs),
        len(result.events),
    )


def _changes(changes: Any) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, repr(value)) for key, value in changes.items()))
