"""Exploring agents that misbehave: none of them breaks it, and each is told by its own error."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio

from parallel_agent import Agent, InvocationContext, ParallelAgent, Result, Runner, agent
from parallel_agent.branch import Branch
from parallel_agent.function_agent import AgentFunction
from parallel_agent.testing import (
    DeadlockError,
    EndlessRunError,
    ExplorationError,
    control,
    explore,
    run_once,
    watch_races,
)
from parallel_agent.testing.scripted import calls, receives, scripted, waits_for, within, writes

Ctx = InvocationContext


class OddError(BaseException):
    """No `Exception`, and nothing that ends the process."""


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def fan(**functions: AgentFunction) -> Agent:
    return ParallelAgent("p", [agent(work, name=name) for name, work in functions.items()])


async def fails(ctx: Ctx) -> None:
    raise ValueError(ctx.path)


async def says_hello(ctx: Ctx) -> AsyncIterator[str]:
    yield "hello"


def failure_of(make_tree: Callable[[], Agent], **options: Any) -> ExplorationError:
    with pytest.raises(ExplorationError) as caught:
        explore(make_tree, **options)
    return caught.value


# ----------------------------------------------------------------------- those who do not end


async def sleeps_behind_a_shield(ctx: Ctx) -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()


async def cleans_up_for_ever(ctx: Ctx) -> None:
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()


async def starts_one_that_sleeps_behind_a_shield(ctx: Ctx) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleeps_behind_a_shield, ctx)
        await trio.sleep_forever()


@pytest.mark.parametrize(
    "work", [sleeps_behind_a_shield, cleans_up_for_ever, starts_one_that_sleeps_behind_a_shield]
)
def test_a_branch_that_waits_for_ever_behind_a_shield_is_a_deadlock(work: AgentFunction) -> None:
    error = failure_of(lambda: fan(a=work, b=fails), allow=ValueError).error
    assert isinstance(error, DeadlockError)
    assert "p/a" in str(error)


async def goes_round_beside_one_that_sleeps_behind_a_shield(ctx: Ctx) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleeps_behind_a_shield, ctx)
        while True:
            with suppress(trio.Cancelled):
                await trio.lowlevel.checkpoint()


def test_an_agent_that_swallows_its_cancellation_beside_a_task_that_never_ends_is_given_up() -> (
    None
):
    def make_tree() -> Agent:
        return fan(a=goes_round_beside_one_that_sleeps_behind_a_shield, b=fails)

    error = failure_of(make_tree, allow=ValueError, max_steps=100).error
    assert isinstance(error, EndlessRunError)


def asks_a_thread(limiter: trio.CapacityLimiter) -> AgentFunction:
    async def run(ctx: Ctx) -> str:
        await trio.to_thread.run_sync(time.sleep, 0.001, limiter=limiter)
        return "done"

    return run


def test_a_thread_is_waited_for_whatever_limits_how_many_there_are() -> None:
    def make_tree() -> Agent:
        return fan(a=asks_a_thread(trio.CapacityLimiter(1)))

    trial = run_once(make_tree)
    assert trial.result is not None
    assert trial.result.output == {"a": "done"}


def test_how_fast_a_thread_is_makes_no_difference() -> None:
    def make_tree() -> Agent:
        limiter = trio.CapacityLimiter(1)
        return fan(a=asks_a_thread(limiter), b=asks_a_thread(limiter))

    # If it did, a `NondeterminismError` would come of it.
    assert explore(make_tree, max_schedules=30).schedules > 2


def test_a_thread_may_wait_for_what_another_branch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "PATIENCE", 0.01)

    def make_tree() -> Agent:
        goes_on = threading.Event()

        async def waits_in_a_thread(ctx: Ctx) -> None:
            await trio.to_thread.run_sync(goes_on.wait)

        async def lets_it_go_on(ctx: Ctx) -> None:
            await ctx.emit("now")
            goes_on.set()

        return fan(a=waits_in_a_thread, b=lets_it_go_on)

    assert run_once(make_tree).error is None


def test_a_deadlock_beside_a_thread_that_nobody_waits_for_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control, "PATIENCE", 0.01)
    goes_on = threading.Event()

    async def leaves_a_thread(ctx: Ctx) -> None:
        with trio.move_on_after(1):
            await trio.to_thread.run_sync(goes_on.wait, abandon_on_cancel=True)
        await trio.sleep_forever()

    async def lets_time_pass(ctx: Ctx) -> None:
        await trio.sleep(2)

    try:
        trial = run_once(lambda: fan(a=leaves_a_thread, b=lets_time_pass), max_steps=100)
    finally:
        goes_on.set()
    assert isinstance(trial.error, DeadlockError)


# ----------------------------------------------------------- those who wait at what trio has


def two_locks_in_two_orders() -> Agent:
    one, other = trio.Lock(), trio.Lock()

    def takes(first: trio.Lock, second: trio.Lock) -> AgentFunction:
        async def run(ctx: Ctx) -> None:
            async with first, second:
                pass

        return run

    return fan(a=takes(one, other), b=takes(other, one))


def test_two_locks_taken_in_two_orders_are_a_deadlock_that_is_found() -> None:
    error = failure_of(two_locks_in_two_orders).error
    assert isinstance(error, DeadlockError)
    assert [path for path, _ in error.waits] == ["p/a", "p/b"]


# -------------------------------------------------------------------------- those who raise


def raises(error: BaseException) -> AgentFunction:
    async def run(ctx: Ctx) -> None:
        raise error

    return run


def test_what_an_agent_raises_that_is_no_exception_is_told_with_its_schedule() -> None:
    error = OddError("odd")
    assert failure_of(lambda: fan(a=raises(error), b=says_hello)).error is error


def test_it_can_be_allowed() -> None:
    results: list[Result] = []
    explore(lambda: fan(a=raises(OddError())), results.append, allow=OddError)
    assert [str(result.status) for result in results] == ["failed"]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_what_ends_the_process_passes(error: BaseException) -> None:
    with pytest.raises(type(error)):
        explore(lambda: fan(a=raises(error), b=says_hello))


def test_an_agent_that_skips_the_test_skips_it() -> None:
    def skips(ctx: Ctx) -> None:
        pytest.skip("not here")

    with pytest.raises(pytest.skip.Exception, match="not here"):
        explore(lambda: fan(a=skips))


def test_a_check_that_stops_the_session_stops_it() -> None:
    def stops(result: Result) -> None:
        pytest.exit("enough")

    with pytest.raises(pytest.exit.Exception, match="enough"):
        explore(lambda: fan(a=says_hello), stops)


def test_an_error_that_cannot_say_what_it_is_is_told_by_its_type() -> None:
    def check(result: Result) -> None:
        raise UnspeakableError

    assert "UnspeakableError" in str(failure_of(lambda: fan(a=says_hello), check=check))


# ---------------------------------------------------------------------- those who are scripted


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (waits_for("never"), "waits at `waits_for('never')`"),
        (within(float("inf"), waits_for("never")), "waits at `waits_for('never')`"),
        (receives(), "waits for a message at `receives()`"),
    ],
)
def test_a_scripted_agent_that_waits_for_ever_is_told_by_its_step(step: Any, said: str) -> None:
    error = failure_of(lambda: scripted("a", step)).error
    assert f"a {said}" in str(error).splitlines()[1]


def test_a_scripted_agent_that_calls_is_told_by_the_line_in_what_it_calls() -> None:
    async def waits(ctx: Ctx) -> None:
        await trio.sleep_forever()

    error = failure_of(lambda: scripted("a", calls(waits))).error
    assert "test_odd_agents.py" in str(error)
    assert "`await trio.sleep_forever()`" in str(error)


def test_a_race_of_scripted_agents_is_told_by_their_steps() -> None:
    tree = ParallelAgent("p", [scripted("a", writes("x", 1)), scripted("b", writes("x", 2))])
    (race,) = explore(lambda: tree).races
    assert {race.first.where, race.second.where} == {"writes('x', 1)", "writes('x', 2)"}


# --------------------------------------------------------------------------- watching them


def test_what_is_watched_of_a_run_is_forgotten_with_it() -> None:
    async def writes_it(ctx: Ctx) -> None:
        ctx.state["x"] = ctx.path

    def branches() -> int:
        gc.collect()
        return sum(isinstance(one, Branch) for one in gc.get_objects())

    before = branches()
    with watch_races() as finder:
        for number in range(3):
            # Under another name each time, so that no branch is kept by a race that was found.
            work = agent(writes_it, name=f"a{number}")
            trio.run(Runner(ParallelAgent("p", [work])).run)
        assert branches() == before
    assert finder.races == ()
