"""One after another."""

from __future__ import annotations

from contextvars import ContextVar

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    InvocationContext,
    LoopAgent,
    Runner,
    SequentialAgent,
    Status,
    agent,
)
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


def test_agents_run_in_declaration_order_and_never_at_the_same_time() -> None:
    diary: Diary = []
    run_tree(SequentialAgent("s", [leaf(name, 5, "x", 1, diary=diary) for name in "abc"]))
    assert diary == ["a starts", "a ends", "b starts", "b ends", "c starts", "c ends"]


def test_their_events_come_in_that_order() -> None:
    tree = SequentialAgent("s", [leaf("a", "a1", "a2"), leaf("b", "b1"), leaf("c", "c1", "c2")])
    ended = run_tree(tree)
    assert texts(ended.delivered) == ["a1", "a2", "b1", "c1", "c2"]
    assert ended.result.events == tuple(ended.delivered)


@given(st.lists(st.lists(st.floats(0, 9), max_size=3), max_size=4), st.floats(0, 3))
def test_an_agent_starts_when_the_reader_has_come_back_for_the_last_event_before(
    pauses: list[list[float]], reading: float
) -> None:
    """So each starts exactly when the one before has nothing left to do."""
    starts: list[float] = []
    agents = []
    expected = [0.0]
    for number, drawn in enumerate(pauses):
        steps = [step for pause in drawn for step in (pause, f"{pause}")]
        agents.append(leaf(f"a{number}", lambda _: starts.append(trio.current_time()), *steps))
        expected.append(expected[-1] + sum(pause + reading for pause in drawn))
    run_tree(SequentialAgent("s", agents), pause=reading)
    assert starts == pytest.approx(expected[:-1])


def test_it_adds_nothing_to_the_branch() -> None:
    tree = SequentialAgent("s", [SequentialAgent("t", [leaf("a", "x")])])
    (event,) = run_tree(tree).delivered
    assert (event.branch, event.author, event.path) == (None, "a", "s/t/a")


def test_an_agent_sees_the_events_before_it() -> None:
    seen: list[str] = []
    tree = SequentialAgent(
        "s",
        [leaf("a", "a1"), leaf("b", "b1", lambda ctx: seen.extend(texts(ctx.history())), "b2")],
    )
    run_tree(tree, message="hello")
    assert seen == ["hello", "a1", "b1"]


def test_an_agent_sees_the_state_that_those_before_it_have_written() -> None:
    """Also what was written after the last event: it is recorded before the next one starts."""
    seen: list[object] = []

    def write(ctx: InvocationContext) -> None:
        ctx.state["k"] = "written after the last event"

    tree = SequentialAgent(
        "s", [leaf("a", "a1", write), leaf("b", lambda ctx: seen.append(ctx.state["k"]))]
    )
    ended = run_tree(tree)
    assert seen == ["written after the last event"]
    assert [dict(event.state_delta) for event in ended.delivered] == [{}, {"k": seen[0]}]


def test_escalating_does_not_stop_a_sequence() -> None:
    tree = SequentialAgent("s", [leaf("a", Escalate("up"), "still here"), leaf("b", "next")])
    ended = run_tree(tree)
    assert texts(ended.delivered) == ["up", "still here", "next"]
    assert ended.result.status is Status.COMPLETED


def test_a_failure_is_raised_as_itself_and_later_agents_never_start() -> None:
    diary: Diary = []
    error = KeyError("x")
    tree = SequentialAgent(
        "s", [leaf("a", "a1", diary=diary), leaf("b", error, diary=diary), leaf("c", diary=diary)]
    )
    ended = run_tree(tree)
    assert ended.error is error
    assert diary == ["a starts", "a ends", "b starts", "b ends"]
    assert texts(ended.delivered) == ["a1"]


def test_a_failure_names_the_agent_and_counts_for_those_above() -> None:
    tree = SequentialAgent("s", [SequentialAgent("t", [leaf("a"), leaf("b", KeyError("x"))])])
    ended = run_tree(tree)
    assert ended.notes == ["raised by agent s/t/b"]
    assert ended.result.status is Status.FAILED
    statistics = ended.run.statistics()
    assert (statistics.started, statistics.completed, statistics.failed) == (4, 1, 3)


async def test_when_cancelled_it_starts_no_later_agent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    diary: Diary = []
    tree = SequentialAgent("s", [leaf("a", 10, diary=diary), leaf("b", diary=diary)])
    with trio.move_on_after(5):
        await open_and_read(tree)
    assert diary == ["a starts", "a ends"]


def test_its_output_is_the_last_agents() -> None:
    assert (
        run_tree(SequentialAgent("s", [leaf("a", "one"), leaf("b", "two")])).result.output == "two"
    )


def test_a_last_agent_without_output_leaves_it_without_output() -> None:
    assert run_tree(SequentialAgent("s", [leaf("a", "one"), leaf("b")])).result.output is None


def test_without_agents_it_completes_at_once_and_says_nothing() -> None:
    ended = run_tree(SequentialAgent("s"))
    assert (ended.delivered, ended.result.output) == ([], None)
    assert ended.result.status is Status.COMPLETED


def test_the_paths_of_a_sequence_in_a_loop_tell_the_rounds_apart() -> None:
    tree = LoopAgent("l", [SequentialAgent("s", leaves("a b", "x"))], max_iterations=2)
    assert paths(run_tree(tree).delivered) == ["l/s@1/a", "l/s@1/b", "l/s@2/a", "l/s@2/b"]


async def test_the_next_agent_starts_after_a_shielded_clean_up_of_the_one_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    diary: Diary = []

    @agent
    async def tidy(ctx: InvocationContext) -> None:
        try:
            with trio.move_on_after(1):
                await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
                diary.append("tidied up")

    await Runner(SequentialAgent("s", [tidy, leaf("b", diary=diary)])).run()
    assert diary == ["tidied up", "b starts", "b ends"]


place: ContextVar[str] = ContextVar("place", default="outside")


def test_what_an_agent_sets_in_a_context_variable_its_neighbour_does_not_see() -> None:
    seen: list[str] = []
    tree = SequentialAgent(
        "s",
        [leaf("a", lambda _: place.set("a"), 1), leaf("b", lambda _: seen.append(place.get()))],
    )
    run_tree(tree)
    assert seen == ["outside"]
