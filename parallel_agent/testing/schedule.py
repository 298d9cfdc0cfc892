"""Who decides who goes next: in order, at random, by priorities, or as it was the last time.

Pure: nothing here waits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any, final

import attrs

from parallel_agent.testing.control import Actor
from parallel_agent.testing.errors import ScheduleError
from parallel_agent.testing.steps import Step

__all__ = ["AtRandom", "ByPriority", "Replayed", "Schedule"]


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
        text = json.dumps({"parallel_agent_schedule": 1, "choices": self.choices}, indent=1)
        Path(path).write_text(f"{text}\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Schedule:
        """Read one that `save` has written.

        Raises:
            ScheduleError: the file holds none.
            OSError: it cannot be read.
        """
        try:
            data: Any = json.loads(Path(path).read_text(encoding="utf-8"))
            if data["parallel_agent_schedule"] == 1:
                return cls(data["choices"])
        except (ValueError, KeyError, TypeError) as exc:
            message = f"{path} holds no schedule: {exc}"
            raise ScheduleError(message) from None
        message = f"{path} holds a schedule of another format than 1"
        raise ScheduleError(message)

    def __len__(self) -> int:
        return len(self.choices)

    def __repr__(self) -> str:
        return f"Schedule({list(self.choices)})"


class _Recorded:
    """Keeps what was chosen."""

    def __init__(self) -> None:
        self._choices: list[str] = []

    @property
    def schedule(self) -> Schedule:
        """What was chosen so far."""
        return Schedule(self._choices)

    def choose(self, actors: Sequence[Actor]) -> int:
        """Choose, where there is a choice."""
        if len(actors) == 1:
            return 0
        position = self._pick(actors)
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
        self._wanted = schedule.choices

    def _pick(self, actors: Sequence[Actor]) -> int:
        position = len(self._choices)
        if position >= len(self._wanted):
            return 0
        for index, actor in enumerate(actors):
            if actor.name == self._wanted[position]:
                return index
        message = (
            f"choice {position} of the schedule is {self._wanted[position]!r}, and those who can "
            f"go are {', '.join(actor.name for actor in actors)}: it was recorded with another tree"
        )
        raise ScheduleError(message)


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
    steps, the one that would go falls to the lowest. With *n* tasks and *k* steps, a bug that
    needs *d* ordering constraints is found with a chance of at least ``1 / (n * k**(d - 1))`` by
    each schedule of depth *d*. (Burckhardt, Kothari, Musuvathi, Nagarakatte: A Randomized
    Scheduler with Probabilistic Guarantees of Finding Bugs, ASPLOS 2010.)
    """

    def __init__(self, random: Random, *, depth: int, steps: int) -> None:
        """``steps`` is about how many choices a run has."""
        super().__init__()
        self._random = random
        self._priorities: dict[str, float] = {}
        self._changes = {random.randrange(max(steps, 1)) for _ in range(depth - 1)}
        self._lowest = 0.0

    def _pick(self, actors: Sequence[Actor]) -> int:
        for actor in actors:
            if actor.name not in self._priorities:
                self._priorities[actor.name] = 1.0 + self._random.random()
        best = max(actors, key=self._priority)
        if len(self._choices) in self._changes:
            self._lowest -= 1.0
            self._priorities[best.name] = self._lowest
            best = max(actors, key=self._priority)
        return actors.index(best)

    def _priority(self, actor: Actor) -> float:
        return self._priorities[actor.name]
