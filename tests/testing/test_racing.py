"""`race_test`: a test that runs under every schedule."""

from __future__ import annotations

import inspect
from collections.abc import Generator
from typing import Any

import pytest
import trio

from parallel_agent import (
    Agent,
    InvocationContext,
    ParallelAgent,
    Result,
    Status,
    TreeError,
    agent,
)
from parallel_agent.testing import ExplorationError, Schedule, race_test

Ctx = InvocationContext
Test = Generator[Agent, Result, None]


def counter(name: str) -> Agent:
    async def run(ctx: Ctx) -> None:
        seen = ctx.state.get("n", 0)
        await trio.lowlevel.checkpoint()
        ctx.state["n"] = seen + 1

    return agent(run, name=name)


def counters() -> Agent:
    return ParallelAgent("p", [counter("a"), counter("b")])


@race_test()
def test_something_is_counted() -> Test:
    result = yield counters()
    assert result.state["n"] in (1, 2)


@race_test(max_schedules=50, seed=3)
@pytest.mark.parametrize("name", ["a", "b"])
def test_fixtures_and_parameters_pass(name: str, tmp_path: Any) -> Test:
    assert tmp_path.is_dir()
    result = yield counter(name)
    assert result.state["n"] == 1


class TestMethods:
    @race_test()
    def test_methods_are_fine(self) -> Test:
        result = yield counters()
        assert isinstance(self, TestMethods)
        assert result.status == Status.COMPLETED


def test_it_fails_under_the_schedule_that_fails() -> None:
    @race_test()
    def test() -> Test:
        result = yield counters()
        assert result.state["n"] == 2

    with pytest.raises(ExplorationError) as caught:
        test()
    assert caught.value.trial.schedule.choices == ("p/b",)
    assert isinstance(caught.value.__cause__, AssertionError)


def test_the_line_it_prints_replays_the_failure() -> None:
    seen: list[str] = []

    @race_test(message="hello")
    def test_both(name: str) -> Test:
        result = yield counters()
        seen.append(name)
        assert result.state["n"] == 2

    with pytest.raises(ExplorationError, match=r"test_both\.replay\(Schedule\(\['p/b'\]\)\)"):
        test_both("x")
    seen.clear()
    with pytest.raises(ExplorationError, match="the schedule failed"):
        test_both.replay(Schedule(["p/b"]), "x")
    assert seen == ["x"]
    test_both.replay([], "x")


def test_the_function_is_called_anew_for_each_schedule_and_left_in_order() -> None:
    begun: list[int] = []
    ended: list[int] = []

    @race_test()
    def test() -> Test:
        number = len(begun)
        begun.append(number)
        try:
            yield counters()
        finally:
            ended.append(number)

    test()
    assert len(begun) > 3
    assert ended == begun


def test_what_it_was_doing_is_closed_if_the_run_fails() -> None:
    closed: list[str] = []

    async def fails(ctx: Ctx) -> None:
        raise KeyError

    @race_test()
    def test() -> Test:
        try:
            yield agent(fails)
        except GeneratorExit:
            closed.append("closed")
            raise

    with pytest.raises(ExplorationError, match="KeyError"):
        test()
    assert closed


def test_errors_that_are_allowed_reach_it_as_a_failed_result() -> None:
    async def fails(ctx: Ctx) -> None:
        raise KeyError

    seen: list[Status] = []

    @race_test(allow=KeyError)
    def test() -> Test:
        result = yield agent(fails)
        seen.append(result.status)

    test()
    assert seen == [Status.FAILED]


def test_its_name_docstring_and_arguments_are_the_functions() -> None:
    def test_this(tmp_path: Any) -> Test:
        """Say what."""
        yield counters()

    decorated = race_test()(test_this)
    assert decorated.__name__ == "test_this"
    assert decorated.__doc__ == "Say what."
    assert list(inspect.signature(decorated).parameters) == ["tmp_path"]
    assert not inspect.isgeneratorfunction(decorated)


def not_a_generator() -> None:
    pass


async def coroutine() -> None:
    pass


async def async_generator() -> Any:
    yield counters()


@pytest.mark.parametrize("function", [not_a_generator, coroutine, async_generator, 7])
def test_a_function_that_yields_no_tree_is_refused_when_it_is_decorated(function: Any) -> None:
    with pytest.raises(TypeError, match=r"must be a plain function .*`result = yield tree`"):
        race_test()(function)


def test_the_parentheses_are_asked_for() -> None:
    def test() -> Test:
        yield counters()

    bare: Any = race_test
    with pytest.raises(TypeError, match=r"write `@race_test\(\)`, with parentheses"):
        bare(test)


def test_options_that_there_are_not_are_refused_when_it_is_decorated() -> None:
    with pytest.raises(TypeError, match=r"options of explore\(\), not check, max_runs"):
        race_test(max_runs=3, check=print)


def test_a_tree_that_never_comes_is_told() -> None:
    @race_test()
    def test() -> Test:
        yield from ()

    with pytest.raises(TypeError, match="a race test yields its tree"):
        test()


def test_a_second_tree_is_told() -> None:
    @race_test()
    def test() -> Test:
        yield counters()
        yield counters()

    with pytest.raises(TypeError, match="a race test yields once, its tree"):
        test()


def test_what_is_no_tree_is_told() -> None:
    @race_test()
    def test() -> Any:
        yield "tree"

    with pytest.raises(TreeError, match="'tree'"):
        test()
