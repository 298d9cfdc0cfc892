"""Who decides who goes next: in order, at random, by priorities, or as it was the last time.

Pure: nothing here waits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final, cast, final

import attrs

from parallel_agent.testing.control import Actor
from parallel_agent.testing.errors import ScheduleError
from parallel_agent.testing.steps import Step

__all__ = ["AtRandom", "ByPriority", "Replayed", "Schedule"]


_FORMAT: Final = "parallel_agent_schedule"


def _no_schedule(path: str | Path, why: str) -> ScheduleError:
    how = "`error.trial.schedule.save(path)` saves that of an ExplorationError"
    return ScheduleError(f"{path} holds no schedule: {why}. {how}")


def _is_names(_schedule: object, _attribute: object, value: tuple[object, ...]) -> None:
    for position, name in enumerate(value):
        if not isinstance(name, str):
            message = f"choice {position} of a schedule is the name of a task, not {name!r:.80}"
            raise ScheduleError(message)


def _as_tuple(choices: Iterable[str]) -> tuple[str, ...]:
    if isinstance(choices, str):
        message = f"a schedule is a list of names, not the text {choices!r:.80}"
        raise ScheduleError(message)
    return tuple(choices)


@final
@attrs.frozen(repr=False)
class Schedule:
    """Who goes next, at each place at which more than one could.

    After its end, the first that can goes: in the order in which activations were made.

    Attributes:
        choices: names of tasks: the path of an activation; ``path#2`` is a second task of it.
    """

    choices: tuple[str, ...] = attrs.field(converter=_as_tuple, validator=_is_names, default=())

    def save(self, path: str | Path) -> None:
        """Write it to a file, as JSON."""
        text = json.dumps({_FORMAT: 1, "choices": self.choices}, indent=1)
        Path(path).write_text(f"{text}\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Schedule:
        """Read one that `save` has written.

        Raises:
            ScheduleError: the file holds none.
            OSError: it cannot be read.
        """
        text = Path(path).read_bytes()
        try:
            data: Any = json.loads(text.decode())
        except (ValueError, RecursionError) as exc:
            raise _no_schedule(path, str(exc)) from None
        if not isinstance(data, dict) or _FORMAT not in data:
            raise _no_schedule(path, f"it has no {_FORMAT!r}")
        fields = cast("dict[str, Any]", data)
        if fields[_FORMAT] != 1:
            why = f"it has format {fields[_FORMAT]!r:.80}, and this version reads format 1"
            raise _no_schedule(path, why)
        choices = fields.get("choices")
        if not isinstance(choices, list):
            raise _no_schedule(path, f"its choices are {choices!r:.80}, and no list")
        try:
            return cls(cast("list[str]", choices))
        except ScheduleError as exc:
            raise _no_schedule(path, str(exc)) from None

    def __len__(self) -> int:
        return len(self.choices)

    def __repr__(self) -> str:
        return f"Schedule({list(self.choices)})"


class _Recorded:
    """Keeps what was chosen."""

    def __init__(self) -> None:
        self._choices: list[str] = []
        self.options: list[tuple[str, ...]] = []  # who could go, at each choice

    @property
    def schedule(self) -> Schedule:
        """What was chosen so far."""
        return Schedule(self._choices)

    def choose(self, actors: Sequence[Actor]) -> int:
        """Choose, where there is a choice."""
        if len(actors) == 1:
            return 0
        position = self._pick(actors)
        self.options.append(tuple(actor.name for actor in actors))
        self._choices.append(actors[position].name)
        return position

    def note(self, step: Step) -> None:
        """Nothing to learn."""

    def _pick(self, actors: Sequence[Actor]) -> int:
        raise NotImplementedError


class Replayed(_Recorded):
    """As a schedule says; after its end, the first."""

    def __init__(self, schedule: Schedule) -> None:
        """Follow ``schedule``."""
        super().__init__()
        self.wanted = schedule

    def _pick(self, actors: Sequence[Actor]) -> int:
        position = len(self._choices)
        if position >= len(self.wanted):
            return 0
        for index, actor in enumerate(actors):
            if actor.name == self.wanted.choices[position]:
                return index
        wanted, names = self.wanted.choices[position], [actor.name for actor in actors]
        message = (
            f"choice {position} of the schedule is {wanted!r}, and those who can go are "
            f"{', '.join(names)}: {_ANOTHER}"
        )
        raise ScheduleError(message)

    def check_end(self) -> None:
        """Check that the run took all of the schedule's choices.

        Raises:
            ScheduleError: it goes on.
        """
        taken, left = len(self._choices), self.wanted.choices[len(self._choices) :]
        if left:
            message = (
                f"the run has ended after {taken} choices, and the schedule goes on with "
                f"{left[0]!r}: {_ANOTHER}"
            )
            raise ScheduleError(message)


_ANOTHER: Final = (
    "it was recorded with another tree, other inputs or another reader. Replay it with what it was "
    "recorded with, or explore again and take the schedule that is printed then"
)


class Indexed(_Recorded):
    """As a list of numbers says, each taken modulo how many there are; after its end, the first.

    What Hypothesis draws: every list fits every tree, and a shorter one is a simpler one.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        """Follow ``numbers``."""
        super().__init__()
        self._numbers = numbers

    def _pick(self, actors: Sequence[Actor]) -> int:
        position = len(self._choices)
        return self._numbers[position] % len(actors) if position < len(self._numbers) else 0


class AtRandom(_Recorded):
    """Each of those who can go, with the same chance."""

    def __init__(self, random: Random) -> None:
        """Draw from ``random``."""
        super().__init__()
        self._random = random

    def _pick(self, actors: Sequence[Actor]) -> int:
        return self._random.randrange(len(actors))


class ByPriority(_Recorded):
    """The one with the highest priority, which changes at few, random moments.

    Probabilistic concurrency testing: every task gets a random priority; at ``depth - 1`` random
    choices, the one that would go falls below all of them, the *i*-th to the *i*-th place from
    there, whichever comes first. With *n* tasks and at most *k* choices, a bug that needs *d*
    ordering constraints is found with a chance of at least ``1 / (n * k**(d - 1))`` by each
    schedule of depth *d*. (Burckhardt, Kothari, Musuvathi, Nagarakatte: A Randomized Scheduler
    with Probabilistic Guarantees of Finding Bugs, ASPLOS 2010.)
    """

    def __init__(self, random: Random, *, depth: int, steps: int) -> None:
        """``steps`` is how many choices a run has, at most."""
        super().__init__()
        self._random = random
        self._priorities: dict[str, float] = {}
        self._changes = {random.randrange(max(steps, 1)): -place for place in range(1, depth)}

    def _pick(self, actors: Sequence[Actor]) -> int:
        for actor in actors:
            if actor.name not in self._priorities:
                self._priorities[actor.name] = 1.0 + self._random.random()
        best = max(actors, key=self._priority)
        place = self._changes.get(len(self._choices))
        if place is not None:
            self._priorities[best.name] = place
            best = max(actors, key=self._priority)
        return actors.index(best)

    def _priority(self, actor: Actor) -> float:
        return self._priorities[actor.name]
