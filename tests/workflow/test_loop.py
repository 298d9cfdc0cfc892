"""Again and again."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    InvocationContext,
    LoopAgent,
    Runner,
    SequentialAgent,
    Status,
    agent,
)
from tests.workflow.model import Model, Node, build, nodes, watch
from tests.workflow.trees import (
    Diary,
    Escalate,
    leaf,
    leaves,
    open_and_read,
    paths,
    run_tree,
    texts,
)


@pytest.mark.parametrize("rounds", [1, 2, 7])
def test_it_runs_its_agents_in_order_as_often_as_it_is_told(rounds: int) -> None:
    tree = LoopAgent("l", [leaf("a", "a"), leaf("b", "b")], max_iterations=rounds)
    assert texts(run_tree(tree).delivered) == ["a", "b"] * rounds


def test_the_paths_number_the_rounds_from_one() -> None:
    tree = LoopAgent("l", leaves("a b", "x"), max_iterations=2)
    assert paths(run_tree(tree).delivered) == ["l/a@1", "l/b@1", "l/a@2", "l/b@2"]


def test_a_loop_in_a_loop_numbers_its_rounds_afresh() -> None:
    inner = LoopAgent("inner", leaves("a", "x"), max_iterations=2)
    ended = run_tree(LoopAgent("outer", [inner], max_iterations=2))
    assert paths(ended.delivered) == [
        "outer/inner@1/a@1",
        "outer/inner@1/a@2",
        "outer/inner@2/a@1",
        "outer/inner@2/a@2",
    ]


def test_it_adds_nothing_to_the_branch() -> None:
    events = run_tree(LoopAgent("l", leaves("a", "x"), max_iterations=2)).delivered
    assert {event.branch for event in events} == {None}


@given(nodes("say", max_leaves=4, top="loop"))
def test_rounds_follow_each_other_as_the_model_says(node: Node) -> None:
    watch(build(node)).matches(Model().play(node))


def test_without_a_limit_it_goes_on_until_somebody_escalates() -> None:
    @agent
    async def count(ctx: InvocationContext) -> None:
        ctx.state["n"] = ctx.state.get("n", 0) + 1

    @agent(before_agent_callback=lambda ctx: None if ctx.state["n"] >= 40 else "not yet")
    async def judge(ctx: InvocationContext) -> object:
        return Escalate(f"after {ctx.state['n']}").event()

    ended = run_tree(LoopAgent("l", [count, judge]))
    assert ended.result.text == "after 40"
    assert ended.result.status is Status.COMPLETED


def test_a_round_sees_what_the_rounds_before_have_written_and_said() -> None:
    seen: list[tuple[object, list[str]]] = []

    def look(ctx: InvocationContext) -> None:
        seen.append((ctx.state.get("n", 0), texts(ctx.history())))
        ctx.state["n"] = ctx.state.get("n", 0) + 1

    run_tree(LoopAgent("l", [leaf("a", look, "x")], max_iterations=3))
    assert seen == [(0, ["hi"]), (1, ["hi", "x"]), (2, ["hi", "x", "x"])]


def test_its_output_is_that_of_the_last_agent_that_ran() -> None:
    tree = LoopAgent("l", [leaf("a", Escalate("enough")), leaf("b", "more")])
    assert run_tree(tree).result.output == "enough"
    tree = LoopAgent("l", [leaf("a", "first"), leaf("b", "last")], max_iterations=2)
    assert run_tree(tree).result.output == "last"


def test_a_failure_ends_it_at_once_and_is_raised_as_itself() -> None:
    diary: Diary = []
    error = KeyError("x")

    def second_round(ctx: InvocationContext) -> None:
        if ctx.path.endswith("@2"):
            raise error

    tree = LoopAgent(
        "l", [leaf("a", second_round, diary=diary), leaf("b", diary=diary)], max_iterations=5
    )
    ended = run_tree(tree)
    assert ended.error is error
    assert ended.notes == ["raised by agent l/a@2"]
    assert diary == ["a starts", "a ends", "b starts", "b ends", "a starts", "a ends"]


def test_without_agents_it_completes() -> None:
    ended = run_tree(LoopAgent("l", max_iterations=3))
    assert (ended.result.status, ended.delivered) == (Status.COMPLETED, [])


async def test_when_cancelled_it_starts_no_further_round(
    autojump_clock: trio.testing.MockClock,
) -> None:
    diary: Diary = []
    with trio.move_on_after(25):
        await open_and_read(LoopAgent("l", [leaf("a", 10, diary=diary)]))
    assert diary == ["a starts", "a ends"] * 3


async def test_an_endless_loop_over_agents_that_never_wait_lets_others_run() -> None:
    @agent
    async def busy(ctx: InvocationContext) -> None:
        """Neither emit nor wait."""

    async with Runner(LoopAgent("l", [busy])).open() as run:
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        run.cancel("enough")
        assert [event async for event in run] == []
    assert run.result.status is Status.CANCELLED


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_nested_limits_multiply(depth: int) -> None:
    tree: Agent = leaf("a", "x")
    for level in range(depth):
        tree = LoopAgent(f"l{level}", [tree], max_iterations=2)
    assert len(run_tree(tree).delivered) == 2**depth


@given(st.integers(1, 5), st.integers(1, 5))
def test_as_many_rounds_start_as_the_limit_and_the_escalation_allow(
    limit: int, stop_at: int
) -> None:
    rounds = 0

    @agent
    async def maybe(ctx: InvocationContext) -> object:
        nonlocal rounds
        rounds += 1
        return Escalate().event() if rounds == stop_at else None

    run_tree(SequentialAgent("s", [LoopAgent("l", [maybe], max_iterations=limit)]))
    assert rounds == min(limit, stop_at)
