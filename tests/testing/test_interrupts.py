"""What strikes from outside while schedules are explored: Ctrl-C, an exit, a test's time limit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Final

import pytest

from parallel_agent import Agent, InvocationContext, ParallelAgent, agent
from parallel_agent.testing import (
    ExplorationError,
    NondeterminismError,
    explore,
    exploring,
    run_once,
)
from parallel_agent.testing.control import Actor
from parallel_agent.testing.steps import Step


class TimeLimitError(BaseException):
    """What a plugin of pytest raises wherever the test is just then."""


def three(moments: count[int], strike: int = 0) -> Agent:
    """Three branches with two events each; the ``strike``-th of all ``moments`` is the limit."""

    async def says(ctx: InvocationContext) -> None:
        for number in range(2):
            if next(moments) == strike:
                raise TimeLimitError
            await ctx.emit(f"{number}")

    return ParallelAgent("p", [agent(says, name=name) for name in "abc"])


class _StruckAt:
    """Is struck at its n-th choice, and takes the first before that."""

    def __init__(self, choice: int, error: BaseException) -> None:
        self._left = choice
        self._error = error

    def choose(self, actors: Sequence[Actor]) -> int:  # noqa: ARG002  # it takes the first
        if not self._left:
            raise self._error
        self._left -= 1
        return 0

    def note(self, step: Step) -> None:
        pass


CHOICES: Final = 19
"""How many choices there are in a run of the three."""


def test_there_are_so_many_choices() -> None:
    def struck(choice: int) -> bool:
        try:
            run_once(lambda: three(count(1)), _StruckAt(choice, TimeLimitError()))
        except TimeLimitError:
            return True
        return False

    assert [struck(choice) for choice in (CHOICES - 1, CHOICES)] == [True, False]


@pytest.mark.timeout(20)  # there it hung, with nobody left to let the others go
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), TimeLimitError()], ids=repr)
@pytest.mark.parametrize("choice", range(CHOICES))
def test_what_strikes_between_two_steps_ends_the_run(choice: int, error: BaseException) -> None:
    with pytest.raises(type(error)) as raised:
        run_once(lambda: three(count(1)), _StruckAt(choice, error))
    assert raised.value is error


@pytest.mark.parametrize("moment", range(1, 31))
def test_what_has_struck_an_agent_is_told_however_it_is_noticed(
    moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exploring, "MAX_SHORTENING", 0)
    moments = count(1)
    with pytest.raises((ExplorationError, NondeterminismError)) as raised:
        explore(lambda: three(moments, moment), reduce=False)
    assert isinstance(raised.value.__cause__, TimeLimitError)


def test_a_run_that_was_struck_differs_and_says_by_what() -> None:
    moments = count(1)
    with pytest.raises(NondeterminismError) as raised:
        explore(lambda: three(moments, 8), reduce=False)
    assert isinstance(raised.value.__cause__, TimeLimitError)
