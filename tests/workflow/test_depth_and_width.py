"""Trees as deep and as wide as anybody could want, with Python's ordinary recursion limit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import pytest
import trio

from parallel_agent import (
    Agent,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Runner,
    SequentialAgent,
    Status,
    agent,
)
from tests.workflow.trees import Ended, Escalate, Yields, leaf, run_tree, run_virtual, texts

Level: TypeAlias = Callable[[str, Sequence[Agent]], Agent]


def sequential(name: str, below: Sequence[Agent]) -> Agent:
    return SequentialAgent(name, below)


def parallel(name: str, below: Sequence[Agent]) -> Agent:
    return ParallelAgent(name, below)


def loop(name: str, below: Sequence[Agent]) -> Agent:
    return LoopAgent(name, below, max_iterations=1)


class Custom(Agent):
    """An agent of the user's own that runs what is below it."""

    async def run(self, ctx: InvocationContext) -> Yields:
        for child in self.sub_agents:
            yield str(await ctx.run_agent(child))


def custom(name: str, below: Sequence[Agent]) -> Agent:
    return Custom(name, below)


def chain(levels: Sequence[Level], bottom: Agent) -> Agent:
    """Nest one agent per level around ``bottom``, the last level outermost."""
    tree = bottom
    for number, level in enumerate(levels):
        tree = level(f"level{number}", [tree])
    return tree


SHAPES: Final[dict[str, list[Level]]] = {
    "1000 sequential": [sequential] * 1_000,
    "1000 parallel": [parallel] * 1_000,
    "1000 loop": [loop] * 1_000,
    "1000 mixed": [sequential, parallel, loop, parallel] * 250,
    "3000 sequential": [sequential] * 3_000,
    "3000 loop": [loop] * 3_000,
    "400 of the user's own": [custom] * 400,
}

every_shape = pytest.mark.parametrize("levels", SHAPES.values(), ids=SHAPES.keys())
# What costs time and shows no more at 3000 levels.
some_shapes = pytest.mark.parametrize(
    "levels",
    [levels for levels in SHAPES.values() if len(levels) <= 1_000],
    ids=[name for name, levels in SHAPES.items() if len(levels) <= 1_000],
)


@pytest.fixture(autouse=True)
def recursion_limit_is_ordinary() -> None:
    assert sys.getrecursionlimit() == 1_000


def statistics(ended: Ended) -> tuple[int, int, int, int]:
    counted = ended.run.statistics()
    return counted.started, counted.completed, counted.failed, counted.cancelled


@every_shape
def test_a_deep_tree_runs_to_its_end(levels: list[Level]) -> None:
    ended = run_tree(chain(levels, leaf("leaf", "hello")))
    assert ended.delivered[0].text == "hello"
    assert ended.result.status is Status.COMPLETED
    assert statistics(ended) == (len(levels) + 1, len(levels) + 1, 0, 0)


@every_shape
def test_a_failure_comes_up_through_a_deep_tree_as_itself(levels: list[Level]) -> None:
    error = ValueError("x")
    ended = run_tree(chain(levels, leaf("leaf", 1, error)))
    assert ended.error is error
    (note,) = ended.notes
    assert note.startswith(f"raised by agent level{len(levels) - 1}/")
    assert statistics(ended) == (len(levels) + 1, 0, len(levels) + 1, 0)


@some_shapes
def test_a_deep_tree_is_cancelled_and_joined(levels: list[Level]) -> None:
    ends: list[float] = []

    @agent
    async def bottom(ctx: InvocationContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ends.append(trio.current_time())

    async def main() -> Any:
        async with Runner(chain(levels, bottom)).open() as run:
            await trio.sleep(5)
            run.cancel("enough")
            assert [event async for event in run] == []
        return run

    run = run_virtual(main)
    assert (run.result.status, run.result.reason) == (Status.CANCELLED, "enough")
    assert ends == [5]
    assert run.statistics().cancelled == len(levels) + 1


def test_everything_about_a_deep_run_can_be_shown() -> None:
    levels = SHAPES["1000 mixed"]
    ended = run_tree(chain(levels, leaf("leaf", "hello")))
    (event, *_) = ended.delivered
    for shown in (event, ended.run, ended.result, ended.run.statistics()):
        assert len(repr(shown)) < 200 + len(event.path)
    assert event.path.count("/") == len(levels)
    assert (event.branch or "").count(".") == 2 * levels.count(parallel) - 1


def test_the_names_of_a_deep_branch_are_those_of_the_parallels_above_it() -> None:
    ended = run_tree(chain([parallel, sequential] * 300, leaf("leaf", "hello")))
    branch = ended.delivered[0].branch or ""
    assert branch.split(".")[:4] == ["level598", "level597", "level596", "level595"]
    assert branch.split(".")[-2:] == ["level0", "leaf"]


def test_an_escalation_stops_the_loop_right_above_and_not_one_of_the_deep_rest() -> None:
    stop = LoopAgent("inner", [leaf("leaf", Escalate("stop"))])
    ended = run_tree(chain([loop] * 1_000, stop))
    assert texts(ended.delivered) == ["stop"]
    assert ended.result.status is Status.COMPLETED


def test_an_escalation_finds_its_way_up_to_a_loop_far_above() -> None:
    deep = chain([sequential] * 1_000, leaf("leaf", Escalate("stop")))
    ended = run_tree(LoopAgent("far_above", [deep]))
    assert texts(ended.delivered) == ["stop"]


def test_a_failing_sibling_cancels_a_deep_subtree() -> None:
    error = ValueError("x")
    deep = chain([sequential, parallel] * 300, leaf("leaf", 99))
    ended = run_tree(ParallelAgent("p", [deep, leaf("fails", 1, error)]))
    assert ended.error is error
    assert statistics(ended) == (603, 0, 2, 601)


def test_an_escalating_sibling_ends_a_deep_subtree() -> None:
    deep = chain([sequential, parallel] * 300, leaf("leaf", 99, "too late"))
    ended = run_tree(ParallelAgent("p", [deep, leaf("stops", 1, Escalate("stop"))]))
    assert texts(ended.result.events) == ["stop"]
    assert [event.author for event in ended.result.events] == ["stops", "p"]


def test_a_deep_tree_writes_and_reads_state() -> None:
    def count(ctx: InvocationContext) -> None:
        ctx.state["n"] = ctx.state.get("n", 0) + 1

    tree = SequentialAgent(
        "s", [chain([parallel] * 200, leaf("a", count, "x")), leaf("b", count, "y")]
    )
    assert dict(run_tree(tree).result.state) == {"n": 2}


def test_an_output_comes_up_through_a_deep_tree() -> None:
    ended = run_tree(chain([sequential, loop] * 500, leaf("leaf", "hello")))
    assert ended.result.output == "hello"


def test_an_output_of_nested_parallels_is_nested_as_deep() -> None:
    output = run_tree(chain([parallel] * 1_000, leaf("leaf", "hello"))).result.output
    depth = 0
    while isinstance(output, dict):
        ((_, output),) = output.items()
        depth += 1
    assert (depth, output) == (1_000, "hello")


# ------------------------------------------------------------------------------------------- width


def row(width: int, *script: Any) -> Agent:
    return ParallelAgent("row", [leaf(f"leaf{number}", *script) for number in range(width)])


def test_ten_thousand_branches_all_run() -> None:
    ended = run_tree(row(10_000, "x"))
    assert len(texts(ended.delivered)) == 10_000
    assert len({event.author for event in ended.delivered}) == 10_001
    assert [outcome.status for outcome in ended.delivered[-1].actions.outcomes] == (
        ["completed"] * 10_000
    )
    assert repr(ended.result) == "<Result completed: 10001 events, text 'x'>"


def test_one_of_many_branches_fails_and_the_rest_are_cancelled() -> None:
    error = ValueError("x")
    waiting = [leaf(f"leaf{number}", 99) for number in range(1_000)]
    ended = run_tree(ParallelAgent("p", [*waiting, leaf("fails", 1, error)]))
    assert ended.error is error
    assert statistics(ended) == (1_002, 0, 2, 1_000)


def test_many_branches_fail_together_and_one_failure_is_raised() -> None:
    error = ValueError("first")
    later = [leaf(f"leaf{number}", 1, ValueError(number)) for number in range(500)]
    ended = run_tree(ParallelAgent("p", [leaf("first", 1, error), *later]))
    assert ended.error is error
    assert len(ended.notes) == 501


def test_one_of_many_branches_escalates_and_the_rest_are_ended() -> None:
    waiting = [leaf(f"leaf{number}", 99, "late") for number in range(1_000)]
    ended = run_tree(ParallelAgent("p", [*waiting, leaf("stops", 1, Escalate("stop"))]))
    assert texts(ended.delivered) == ["stop"]


def test_a_sequence_of_thousands_runs_in_order() -> None:
    tree = SequentialAgent("s", [leaf(f"leaf{number}", f"{number}") for number in range(2_000)])
    assert texts(run_tree(tree).delivered) == [f"{number}" for number in range(2_000)]


def test_a_loop_of_thousands_of_rounds_runs_to_its_end() -> None:
    ended = run_tree(LoopAgent("l", [leaf("a", "x")], max_iterations=2_000))
    assert len(ended.delivered) == 2_000


def test_a_tree_both_deep_and_wide_runs() -> None:
    tree: Agent = leaf("leaf", "x")
    for level in range(100):
        beside = [leaf(f"beside{level}_{number}", "y") for number in range(5)]
        tree = ParallelAgent(f"level{level}", [*beside, SequentialAgent(f"s{level}", [tree])])
    said = texts(run_tree(tree).delivered)
    assert (said.count("x"), said.count("y")) == (1, 500)


# -------------------------------------------------------------------------------------------- cost


def calls(tree: Agent) -> int:
    """How many calls a run makes. Counted, not timed: a busy machine counts no slower."""
    counted = 0

    def count(_frame: object, event: str, _arg: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        run_tree(tree)
    finally:
        sys.setprofile(before)
    return counted


def growth(make: Callable[[int], Agent]) -> float:
    """How many times the calls of a small tree one ten times as large makes: 10 if it is fair."""
    return calls(make(200)) / calls(make(20))


TREES: Final[dict[str, Callable[[int], Agent]]] = {
    "deep sequential": lambda size: chain([sequential] * size, leaf("leaf", "x")),
    "deep parallel": lambda size: chain([parallel] * size, leaf("leaf", "x")),
    "deep loop": lambda size: chain([loop] * size, leaf("leaf", "x")),
    "deep failing": lambda size: chain([parallel, sequential] * size, leaf("a", ValueError())),
    "wide": lambda size: row(size, "x"),
    "wide failing": lambda size: ParallelAgent(
        "p", [row(size, 99), leaf("fails", 1, ValueError("x"))]
    ),
    "wide escalating": lambda size: ParallelAgent("p", [row(size, 99), leaf("stops", Escalate())]),
    "long": lambda size: SequentialAgent("s", [leaf(f"leaf{n}", "x") for n in range(size)]),
    "many rounds": lambda size: LoopAgent("l", [leaf("a", "x")], max_iterations=size),
    "many events": lambda size: leaf("a", *["x"] * size),
}


@pytest.mark.parametrize("make", TREES.values(), ids=TREES.keys())
def test_a_tree_ten_times_as_large_does_about_ten_times_the_work(
    make: Callable[[int], Agent],
) -> None:
    assert growth(make) < 13


def test_the_measure_of_work_finds_an_agent_that_looks_at_all_history_each_time() -> None:
    def make(size: int) -> Agent:
        def look(ctx: InvocationContext) -> None:
            texts(ctx.history())

        return LoopAgent("l", [leaf("a", look, "x")], max_iterations=size)

    assert growth(make) > 13
