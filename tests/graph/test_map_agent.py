"""An agent that runs another one on every item of a list."""

from __future__ import annotations

from typing import Any

import pytest

from parallel_agent import (
    Agent,
    BestEffort,
    FirstSuccess,
    InputError,
    InvocationContext,
    MapAgent,
    Runner,
    SequentialAgent,
    TreeError,
    agent,
)
from tests.graph.nodes import Log, node, run_tree


@agent
async def double(ctx: InvocationContext, number: int) -> int:
    """Double a number."""
    return number * 2


def on(items: Any, mapped: Agent) -> Any:
    """Run ``mapped`` on items, and return how that ended."""

    @agent
    async def outer(ctx: InvocationContext) -> Any:
        return await ctx.run_agent(mapped, items)

    return run_tree(outer)


def test_the_outputs_are_in_the_order_of_the_items() -> None:
    assert on([3, 1, 2], MapAgent("each", double)).result.output == [6, 2, 4]


def test_of_an_empty_list_it_is_an_empty_list() -> None:
    assert on([], MapAgent("each", double)).result.output == []


def test_the_list_may_stand_in_the_state() -> None:
    tree = SequentialAgent(
        "s", [node("find", [1, 2], output_key="found"), MapAgent("each", double, items_key="found")]
    )
    assert run_tree(tree).result.output == [2, 4]


@pytest.mark.parametrize(("held", "why"), [(None, "is not there; write"), (7, "is 7")])
def test_what_is_no_list_in_the_state_is_refused(held: Any, why: str) -> None:
    first = node("first", "x") if held is None else node("first", held, output_key="found")
    ended = run_tree(SequentialAgent("s", [first, MapAgent("each", double, items_key="found")]))
    assert isinstance(ended.error, InputError)
    assert f"agent 'each' runs on the list in state['found'], which {why}" in str(ended.error)


@pytest.mark.parametrize("items", [7, "abc", {"a": 1}, None])
def test_what_is_no_list_is_refused(items: Any) -> None:
    ended = on(items, MapAgent("each", double))
    assert isinstance(ended.error, InputError)


def test_without_an_input_it_says_so() -> None:
    ended = run_tree(MapAgent("each", double))
    assert isinstance(ended.error, InputError)
    assert "takes an input, and was given none" in str(ended.error)


def test_an_item_that_fails_leaves_a_gap_under_a_policy_that_goes_on() -> None:
    @agent
    async def odd(ctx: InvocationContext, number: int) -> int:
        if number % 2 == 0:
            raise ValueError(number)
        return number

    assert on([1, 2, 3], MapAgent("each", odd, barrier=BestEffort())).result.output == [1, None, 3]


def test_no_more_run_at_a_time_than_allowed() -> None:
    log = Log()
    on([1, 2, 3], MapAgent("each", node("work", log=log, sleeps=1), max_concurrency=1))
    assert len(log.names) == 3
    assert log.started["work"] == pytest.approx(2, abs=0.1)


def test_a_policy_may_have_enough() -> None:
    mapped = MapAgent("each", double, barrier=FirstSuccess())
    assert [one for one in on([1, 2], mapped).result.output if one is not None]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"barrier": BestEffort}, "make an object of it"),
        ({"max_concurrency": 0}, "max_concurrency of 'each' must be 1 or more"),
        ({"items_key": ""}, "items_key of 'each' must be text"),
    ],
)
def test_bad_options_are_refused(options: Any, match: str) -> None:
    with pytest.raises(TreeError, match=match):
        MapAgent("each", double, **options)


def test_its_worker_is_an_agent_of_the_tree() -> None:
    tree = MapAgent("each", double)
    assert (tree.worker, tree.find_agent("double")) == (double, double)
    assert (tree.items_key, tree.max_concurrency, tree.barrier.__class__.__name__) == (
        None,
        None,
        "FailFast",
    )
    assert MapAgent("each", double, items_key="a").shape != tree.shape


async def test_its_branches_are_numbered() -> None:
    async with Runner(
        SequentialAgent(
            "s", [node("f", [5, 6], output_key="k"), MapAgent("each", double, items_key="k")]
        )
    ).open("x") as run:
        paths = [event.path async for event in run if event.output is not None]
    assert sorted(paths[1:3]) == ["s/each/double@1", "s/each/double@2"]
