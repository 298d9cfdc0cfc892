"""Branches overlap: what takes time side by side takes it once. All on the virtual clock."""

from __future__ import annotations

from typing import TypeAlias

import attrs
import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Runner,
    SequentialAgent,
)
from tests.workflow.trees import leaf, run_tree, run_virtual, texts


@pytest.mark.parametrize("branches", [1, 2, 10, 1_000])
def test_branches_that_sleep_equally_long_finish_in_that_time(branches: int) -> None:
    tree = ParallelAgent("p", [leaf(f"a{number}", 7) for number in range(branches)])
    assert run_tree(tree).time == 7


@given(st.lists(st.integers(0, 100), min_size=1, max_size=8))
def test_a_parallel_takes_as_long_as_its_slowest_branch(pauses: list[int]) -> None:
    tree = ParallelAgent("p", [leaf(f"a{number}", pause) for number, pause in enumerate(pauses)])
    assert run_tree(tree).time == max(pauses)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=8))
def test_a_sequence_takes_as_long_as_all_its_agents_together(pauses: list[int]) -> None:
    tree = SequentialAgent("s", [leaf(f"a{number}", pause) for number, pause in enumerate(pauses)])
    assert run_tree(tree).time == sum(pauses)


@attrs.frozen
class Side:
    below: tuple[Nest, ...]


@attrs.frozen
class Row:
    below: tuple[Nest, ...]
    rounds: int = 1


Nest: TypeAlias = int | Side | Row

nests: st.SearchStrategy[Nest] = st.recursive(
    st.integers(0, 50),
    lambda inner: st.one_of(
        st.builds(Side, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Row, st.lists(inner, max_size=3).map(tuple), st.integers(1, 3)),
    ),
    max_leaves=8,
)


def length(nest: Nest) -> int:
    """How long it takes: side by side the longest, in a row the sum."""
    match nest:
        case int():
            return nest
        case Side(below=below):
            return max(map(length, below), default=0)
        case Row(below=below, rounds=rounds):
            return rounds * sum(map(length, below))


def made(nest: Nest, name: str = "n") -> Agent:
    if isinstance(nest, int):
        return leaf(name, nest)
    below = [made(inner, f"{name}_{number}") for number, inner in enumerate(nest.below)]
    match nest:
        case Side():
            return ParallelAgent(name, below)
        case Row(rounds=1):
            return SequentialAgent(name, below)
        case Row(rounds=rounds):
            return LoopAgent(name, below, max_iterations=rounds)


@example(Side((Row((3, 4)), Row((5,), 2), Side((9, 1)))))
@given(nests)
def test_any_nest_of_agents_takes_as_long_as_its_longest_way(nest: Nest) -> None:
    assert run_tree(made(nest)).time == length(nest)


def test_the_sum_of_all_sleeps_is_not_what_a_nest_takes() -> None:
    """Known bad: had branches waited for each other, the test above would see it."""
    nest = Side((3, 4))
    assert run_tree(SequentialAgent("s", [made(nest), leaf("more", 3)])).time != length(nest)


def test_branches_go_on_while_another_waits_for_the_reader_to_come_back() -> None:
    """The reader takes ten seconds over the first event; a sibling's work goes on meanwhile."""
    done: list[float] = []

    async def work(ctx: InvocationContext) -> None:
        await trio.sleep(3)
        done.append(trio.current_time())

    run_tree(ParallelAgent("p", [leaf("a", "a"), leaf("b", work, work)]), pause=10)
    assert done == [3, 6]


def test_a_slow_branch_does_not_hold_up_the_events_of_a_quick_one() -> None:
    times: dict[str, float] = {}

    async def main() -> None:
        quick = [step for number in range(3) for step in (1, f"quick {number}")]
        tree = ParallelAgent("p", [leaf("slow", 100, "slow"), leaf("quick", *quick)])
        async with Runner(tree).open() as run:
            async for event in run:
                times[event.text] = trio.current_time()

    run_virtual(main)
    assert times == {"quick 0": 1, "quick 1": 2, "quick 2": 3, "slow": 100, "": 100}


def test_a_slow_reader_delays_each_branch_by_its_own_events_and_those_before_it_only() -> None:
    """Ten branches speak at once, each event takes a second: the last goes on after ten."""
    gone_on: list[float] = []
    script = ("x", lambda _: gone_on.append(trio.current_time()))
    run_tree(ParallelAgent("p", [leaf(f"a{number}", *script) for number in range(10)]), pause=1)
    assert gone_on == [float(second) for second in range(1, 11)]


def test_the_second_agent_of_one_branch_starts_while_the_first_of_another_still_runs() -> None:
    tree = ParallelAgent(
        "p",
        [
            SequentialAgent("s", [leaf("a", 1, "a"), leaf("b", 1, "b")]),
            SequentialAgent("t", [leaf("c", 5, "c"), leaf("d", 1, "d")]),
        ],
    )
    ended = run_tree(tree)
    assert (texts(ended.delivered), ended.time) == (["a", "b", "c", "d"], 6)
