"""A schedule as a list of numbers: one that fits every tree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, final
from weakref import ref

import attrs
import trio

from parallel_agent.testing.control import Actor
from parallel_agent.testing.printing import print_code
from parallel_agent.testing.schedule import Indexed, Schedule
from parallel_agent.testing.steps import Step

__all__ = ["NumberedSchedule"]


def _as_numbers(numbers: Iterable[int]) -> tuple[int, ...]:
    kept = list(numbers)
    for position, number in enumerate(kept):
        if type(number) is not int or number < 0:
            message = f"choice {position} is a whole number from 0 on, not {number!r:.80}"
            raise ValueError(message)
    while kept and not kept[-1]:
        kept.pop()  # as after the end
    return tuple(kept)


@final
@attrs.define(repr=False, eq=False)
class NumberedSchedule:
    """Who goes next, at each place at which more than one could: by number.

    ``run_once(make_tree, NumberedSchedule([0, 2]))``: at the first such place the first of those
    who can go, in the order in which activations were made; at the second the third; after the
    end the first. A number is taken modulo how many there are, so every list fits every tree.
    Zeros at the end are left out.

    It can be used any number of times, by one run at a time.

    Raises:
        ValueError: something is no whole number from 0 on.
    """

    numbers: tuple[int, ...] = attrs.field(converter=_as_numbers, default=())
    _under_way: Indexed | None = attrs.field(default=None, init=False)
    _run: Any = attrs.field(default=None, init=False)

    @property
    def schedule(self) -> Schedule:
        """What was chosen, in the run under way or the last one: the same schedule, by names."""
        return Schedule() if self._under_way is None else self._under_way.schedule

    def choose(self, actors: Sequence[Actor]) -> int:
        """Choose, where there is a choice. From the start, for every run of trio."""
        run = trio.lowlevel.current_root_task()
        if self._under_way is None or self._run is None or self._run() is not run:
            self._under_way = Indexed(self.numbers)
            self._run = None if run is None else ref(run)
        return self._under_way.choose(actors)

    def note(self, step: Step) -> None:
        """Nothing to learn."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NumberedSchedule) and self.numbers == other.numbers

    def __hash__(self) -> int:
        return hash(self.numbers)

    def __repr__(self) -> str:
        return f"NumberedSchedule({list(self.numbers)})"

    _repr_pretty_ = print_code
