"""A test that runs under every schedule: one decorator."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from parallel_agent.agent import Agent
from parallel_agent.result import Result
from parallel_agent.testing.exploring import ExplorationError, explore, replay
from parallel_agent.testing.schedule import Schedule
from parallel_agent.testing.trial import Trial

__all__ = ["RaceTest", "race_test"]

P = ParamSpec("P")
_T = TypeVar("_T")

Yielding = Callable[P, Generator[Agent, Result, object]]


class RaceTest(Protocol[P]):
    """A function that `race_test` has decorated: the test, and how a failure is run once more."""

    __name__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Run the test under every schedule."""

    def replay(
        self, schedule: Schedule | Sequence[str] | str | Path, *args: P.args, **kwargs: P.kwargs
    ) -> Trial:
        """Run the test under one schedule: as a failure has printed it, or a file's.

        The arguments are the test's own: what a fixture would give it, you give it.
        """
        ...


def race_test(
    *_misplaced: Any, max_schedules: int = 1_000, **options: Any
) -> Callable[[Yielding[P]], RaceTest[P]]:
    """Make a test of a function that yields a tree and looks at what comes of it.

    ::

        @race_test(max_schedules=500)
        def test_no_update_is_lost():
            result = yield ParallelAgent("both", [deposit, withdraw])
            assert result.state["balance"] == 0

    The function is called anew for each schedule, so that every run has a tree of its own. Its
    arguments are the test's, fixtures for example. A failure prints the line that runs it once
    more: ``test_no_update_is_lost.replay(Schedule([...]))``.

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

    def decorate(function: Yielding[P]) -> RaceTest[P]:
        if not inspect.isgeneratorfunction(function):
            message = (
                f"{getattr(function, '__name__', function)} is no race test: it must be a plain "
                "function that yields a tree, `result = yield tree`, and then looks at the result"
            )
            raise TypeError(message)

        name = function.__name__

        @functools.wraps(function)
        def test(*args: P.args, **kwargs: P.kwargs) -> None:
            __tracebackhide__ = True
            run = functools.partial(explore, max_schedules=max_schedules, **options)
            try:
                _run(lambda: function(*args, **kwargs), run)
            except ExplorationError as failed:
                raise failed.replayed_by(f"{name}.replay(") from failed.__cause__

        def again(
            schedule: Schedule | Sequence[str] | str | Path, *args: P.args, **kwargs: P.kwargs
        ) -> Trial:
            __tracebackhide__ = True
            known = inspect.signature(replay).parameters
            chosen = {option: value for option, value in options.items() if option in known}
            return _run(
                lambda: function(*args, **kwargs),
                lambda make_tree, check: replay(make_tree, check, schedule, **chosen),
            )

        decorated = cast("RaceTest[P]", test)
        decorated.replay = again  # type: ignore[method-assign]  # a function may have attributes
        return decorated

    return decorate


class _YieldsTwice(BaseException):
    """No failure of what is tested, which is what a check raises otherwise."""


def _run(
    start: Callable[[], Generator[Agent, Result, object]],
    run: Callable[[Callable[[], Agent], Callable[[Result], None]], _T],
) -> _T:
    __tracebackhide__ = True
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
        return run(make_tree, check)
    except _YieldsTwice:
        message = "a race test yields once, its tree; for several runs, write several tests"
        raise TypeError(message) from None
    finally:
        while under_way:
            under_way.pop().close()
