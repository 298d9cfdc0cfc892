"""The scripted leaves and the readers of these tests do what they say."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel_agent import Agent, InvocationContext, ParallelAgent, SequentialAgent
from tests.workflow.trees import (
    Diary,
    Escalate,
    leaf,
    leaves,
    open_and_read,
    paths,
    run_tree,
    run_virtual,
    texts,
    walk,
)


def test_a_leaf_emits_sleeps_calls_and_raises_in_the_order_of_its_script() -> None:
    seen: Diary = []

    def note(ctx: InvocationContext) -> None:
        seen.append(f"{ctx.path} at {trio.current_time()}")

    async def wait(ctx: InvocationContext) -> None:
        await trio.sleep(2)

    ended = run_tree(leaf("a", "one", 3, note, wait, note, Escalate("two"), KeyError("x")))
    assert texts(ended.delivered) == ["one", "two"]
    assert seen == ["a at 3.0", "a at 5.0"]
    assert [event.escalate for event in ended.delivered] == [False, True]
    assert repr(ended.error) == "KeyError('x')"


def test_a_leaf_keeps_a_diary() -> None:
    diary: Diary = []
    run_tree(SequentialAgent("s", leaves("a b", "x", diary=diary)))
    assert diary == ["a starts", "a ends", "b starts", "b ends"]


def test_a_run_is_read_to_its_end_and_timed() -> None:
    ended = run_tree(leaf("a", 1, "x", 2, "y"), pause=10)
    assert (ended.time, len(ended.delivered), ended.error) == (23, 2, None)


def test_paths_are_those_of_the_events_with_a_text() -> None:
    ended = run_tree(ParallelAgent("p", [leaf("a", "x"), leaf("b")]))
    assert paths(ended.delivered) == ["p/a"]


def test_an_error_of_the_harness_itself_is_raised() -> None:
    with pytest.raises(TypeError, match="a message is text"):
        run_tree(leaf("a"), message=7)


async def test_a_cancelled_reader_is_no_failure_of_the_tree(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with trio.move_on_after(5) as scope:
        await open_and_read(leaf("a", 10))
    assert scope.cancelled_caught


def test_walking_a_tree_meets_every_agent_once_parents_first() -> None:
    tree = SequentialAgent("s", [ParallelAgent("p", leaves("a b")), leaf("c")])
    assert [agent.name for agent in walk(tree)] == ["s", "p", "a", "b", "c"]


def first_to_start(tree: Agent, diary: Diary) -> str:
    diary.clear()
    run_tree(tree)
    return diary[0]


def test_drawing_the_scheduler_meets_both_orders_of_a_tick() -> None:
    """Else the tests that draw it would see one order, and call it both."""
    diary: Diary = []
    tree = ParallelAgent("p", leaves("a b", diary=diary))
    orders = set()

    @settings(max_examples=30, database=None, derandomize=True)
    @given(st.random_module())
    def explore(_scheduler: object) -> None:
        orders.add(first_to_start(tree, diary))

    explore()
    assert orders == {"a starts", "b starts"}


def test_virtual_time_passes_without_waiting() -> None:
    async def main() -> float:
        await trio.sleep(10_000)
        return trio.current_time()

    assert run_virtual(main) == 10_000
