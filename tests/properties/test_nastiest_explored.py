"""Those of the nastiest tests that are about who goes first: on many schedules.

By the numbers they have in the list of the kernel's laws; the others are in
``tests/kernel/test_nastiest.py``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.lowlevel import checkpoint
from trio.testing import MockClock

from parallel_agent import (
    Agent,
    Event,
    InvocationContext,
    ParallelAgent,
    Result,
    RunConfig,
    Runner,
    agent,
)
from parallel_agent.limiter import Limiter
from parallel_agent.testing import DeadlockError, Exploration, ExplorationError, explore
from session.session import fold

# ----------------------------------------------------------------------------------- 12


def test_nasty_12_two_branches_fail_in_one_tick() -> None:
    """Whoever goes first, it is the same error: that of the first that is declared."""
    orders: set[str] = set()

    @settings(max_examples=20, database=None)
    @given(st.random_module())  # trio draws from it who goes first in a tick
    def both_fail(_seed: object) -> None:
        order: list[str] = []
        runner = Runner(ParallelAgent("fan", [_failing("a", order), _failing("b", order)]))
        with pytest.raises(ValueError, match="a") as raised:
            trio.run(runner.run, clock=MockClock(autojump_threshold=0))
        assert raised.value.args == ("a",)
        orders.add("".join(order))

    both_fail()
    assert orders == {"ab", "ba"}


def test_nasty_12_whoever_has_failed_first_the_one_declared_first_is_raised() -> None:
    """On every schedule: whoever was not cancelled before it failed counts."""
    order: list[str] = []
    orders: set[str] = set()

    def make_tree() -> Agent:
        order.clear()
        return ParallelAgent("fan", [_failing("a", order), _failing("b", order)])

    def check(result: Result) -> None:
        (outcomes,) = [event.actions.outcomes for event in result.events]
        failed = [one.name for one in outcomes if one.status == "failed"]
        assert sorted(failed) == sorted(order)
        orders.add("".join(order))

    assert explore(make_tree, check, allow=ValueError).exhausted
    assert orders >= {"a", "b"}


def _failing(name: str, order: list[str]) -> Agent:
    @agent(name=name)
    async def fail(ctx: InvocationContext) -> None:
        await trio.sleep(1)
        order.append(name)
        raise ValueError(name)

    return fail


# ----------------------------------------------------------------------------------- 13


def relayed(  # noqa: C901  # a tree of three agents
    relay: Callable[[list[Event]], list[Event]], *, by_one: bool = False
) -> Exploration:
    """Let an agent read what a parallel child says, pass on what ``relay`` keeps, and check it."""
    acknowledged: list[str] = []

    def make_tree() -> Agent:
        acknowledged.clear()

        def writer(name: str) -> Agent:
            @agent(name=name)
            async def write(ctx: InvocationContext) -> AsyncIterator[Event]:
                for number in range(2):
                    ctx.state[f"{name}{number}"] = number
                    yield Event(f"{name}{number}")
                    acknowledged.append(f"{name}{number}")

            return write

        inner = ParallelAgent("inner", [writer("a"), writer("b")])

        @agent
        async def reader(ctx: InvocationContext) -> AsyncIterator[Event]:
            held: list[Event] = []
            async with ctx.open_agent(inner) as events:
                async for event in events:
                    if by_one:
                        for kept in relay([event]):
                            yield kept
                    else:
                        held.append(event)
            for kept in relay(held):
                yield kept

        return ParallelAgent("outer", [reader])

    def check(result: Result) -> None:
        assert [event.seq for event in result.events] == list(range(1, len(result.events) + 1))
        assert dict(result.state) == fold({}, result.events)
        said = [event.text for event in result.events if event.text]
        assert len(said) == len(set(said)), said
        expected = {f"{text[0]}{text[1]}": int(text[1]) for text in said}
        assert dict(result.state) == expected, "written is what was passed on, and nothing else"
        assert sorted(acknowledged) == ["a0", "a1", "b0", "b1"]
        for name in "ab":
            assert [text for text in acknowledged if text[0] == name] == [f"{name}0", f"{name}1"]

    return explore(make_tree, check, max_schedules=100)


def test_nasty_13_open_agent_drops_some_events_of_a_parallel_child() -> None:
    dropping = relayed(
        lambda events: [one for one in events if not one.text.startswith("a0")], by_one=True
    )
    assert dropping.schedules > 10


def test_nasty_13_open_agent_passes_on_every_event_of_a_parallel_child() -> None:
    assert relayed(lambda events: events, by_one=True).schedules > 10


# ----------------------------------------------------------------------------------- 14


def nested(*, failing: bool) -> tuple[Callable[[], Agent], list[int]]:
    """Make maps in a map in a map, and an open fan-out whose owner says something in between."""
    working: list[int] = []

    def make_tree() -> Agent:
        working[:] = [0, 0]

        @agent
        async def leaf(ctx: InvocationContext) -> str:
            working[0] += 1
            working[1] = max(working)
            try:
                await checkpoint()
                if failing and ctx.input == 1:
                    message = "leaf"
                    raise ValueError(message)
            finally:
                working[0] -= 1
            return "done"

        @agent
        async def middle(ctx: InvocationContext) -> int:
            return len(await ctx.map(leaf, [0, 1]))

        @agent
        async def outer(ctx: InvocationContext) -> int:
            with suppress(ValueError):
                return sum(await ctx.map(middle, [0]))
            return -1

        @agent
        async def opener(ctx: InvocationContext) -> None:
            async with ctx.open_fan_out() as group:
                group.start(leaf, 0)
                await ctx.emit(Event("in between"))
                group.start(leaf, 0)

        return ParallelAgent("all", [outer, opener])

    return make_tree, working


@pytest.mark.parametrize("failing", [False, True])
def test_nasty_14_a_run_wide_limit_of_one_never_deadlocks(failing: bool) -> None:  # noqa: FBT001
    make_tree, working = nested(failing=failing)

    def check(result: Result) -> None:
        assert working == [0, 1], "the limit of one was exceeded, or nobody has worked"
        assert result.outputs["outer"] == (-1 if failing else 2)

    exploration = explore(make_tree, check, make_runner=limited, max_schedules=30)
    assert exploration.schedules > 10


def limited(tree: Agent, **options: Any) -> Runner:
    """Make a runner all of whose runs have one slot."""
    return _Limited(tree, **options)  # type: ignore[return-value]  # it opens runs, and no more


class _Limited:
    def __init__(self, tree: Agent, **options: Any) -> None:
        self._runner = Runner(tree, **options)

    def open(self, message: Any, **_options: Any) -> Any:
        return self._runner.open(message, run_config=RunConfig(max_concurrency=1))


def test_nasty_14_a_slot_that_is_not_given_back_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limiter, "release", lambda _self: None)
    make_tree, _ = nested(failing=False)
    with pytest.raises(ExplorationError) as raised:
        explore(make_tree, make_runner=limited, max_schedules=5)
    assert isinstance(raised.value.error, DeadlockError)
