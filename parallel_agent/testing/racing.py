"""A test that runs under every schedule: one decorator."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from typing import Any, ParamSpec

from parallel_agent.agent import Agent
from parallel_agent.result import Result
from parallel_agent.testing.exploring import Exploration, explore

__all__ = ["race_test"]

P = ParamSpec("P")

RaceTest = Callable[P, Generator[Agent, Result, object]]


def race_test(
    *_misplaced: Any, max_schedules: int = 1_000, **options: Any
) -> Callable[[RaceTest[P]], Callable[P, None]]:
    """Make a test of a function that yields a tree and looks at what comes of it.

    ::

        @race_test(max_schedules=500)
        def test_no_update_is_lost():
            result = yield ParallelAgent("both", [deposit, withdraw])
            assert result.state["balance"] == 0

    The function is called anew for each schedule, so that every run has a tree of its own. Its
    arguments are the test's, fixtures for example.

    Args:
        max_schedules: how many schedules are run, at most.
        options: those of `explore`: ``allow``, ``message``, ``read``, ``make_runner``, ``seed``...

    Raises:
        ExplorationError: from the test, when it fails.
        TypeError: the function is no generator function, or yields once too often or too rarely;
            or there is no such option.
    """
    if _misplaced:
        message = "write `@race_test()`, with parentheses; its options are keywords"
        raise TypeError(message)
    unknown = options.keys() - inspect.signature(explore).parameters.keys()
    unknown |= options.keys() & {"make_tree", "check"}
    if unknown:
        message = f"race_test() takes the options of explore(), not {', '.join(sorted(unknown))}"
        raise TypeError(message)

    def decorate(function: RaceTest[P]) -> Callable[P, None]:
        if not inspect.isgeneratorfunction(function):
            message = (
                f"{function!r} is no race test: it must be a plain function that yields a tree, "
                "`result = yield tree`, and then looks at the result"
            )
            raise TypeError(message)

        @functools.wraps(function)
        def test(*args: P.args, **kwargs: P.kwargs) -> None:
            _explore(lambda: function(*args, **kwargs), max_schedules, options)

        return test

    return decorate


class _YieldsTwice(BaseException):
    """No failure of what is tested, which is what a check raises otherwise."""


def _explore(
    start: Callable[[], Generator[Agent, Result, object]],
    max_schedules: int,
    options: dict[str, Any],
) -> Exploration:
    under_way: list[Generator[Agent, Result, object]] = []

    def make_tree() -> Agent:
        while under_way:
            under_way.pop().close()  # a schedule that was given up
        generator = start()
        under_way.append(generator)
        try:
            return next(generator)
        except StopIteration:
            message = "a race test yields its tree: `result = yield tree`"
            raise TypeError(message) from None

    def check(result: Result) -> None:
        generator = under_way.pop()
        try:
            generator.send(result)
        except StopIteration:
            return
        generator.close()
        raise _YieldsTwice

    try:
        return explore(make_tree, check, max_schedules=max_schedules, **options)
    except _YieldsTwice:
        message = "a race test yields once, its tree; for several runs, write several tests"
        raise TypeError(message) from None
    finally:
        while under_way:
            under_way.pop().close()
