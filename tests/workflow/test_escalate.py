"""Escalating: who stops, who does not, and what still comes."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    BranchCancelledError,
    Event,
    EventActions,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Runner,
    SequentialAgent,
    Status,
    agent,
)
from tests.kernel.scripted import BatchingService, SlowService
from tests.workflow.model import Model, Node, build, nodes, watch
from tests.workflow.trees import (
    Diary,
    Escalate,
    Script,
    Yields,
    leaf,
    leaves,
    open_and_read,
    run_tree,
    texts,
)


@given(nodes("say", "stop", max_leaves=8), st.random_module())
def test_in_any_nest_of_agents_it_stops_what_the_model_says(node: Node, scheduler: object) -> None:
    watch(build(node)).matches(Model().play(node))


@given(nodes("say", "stop", "fail", max_leaves=8), st.random_module())
def test_escalations_and_failures_together_do_what_the_model_says(
    node: Node, scheduler: object
) -> None:
    watch(build(node)).matches(Model().play(node))


# ------------------------------------------------------------------------------------------ loops


def test_a_loop_ends_when_the_agent_that_escalated_has_ended() -> None:
    diary: Diary = []
    tree = LoopAgent(
        "l",
        [
            leaf("a", "a1", diary=diary),
            leaf("b", Escalate("stop"), 5, "b2", diary=diary),
            leaf("c", diary=diary),
        ],
    )
    assert texts(run_tree(tree).delivered) == ["a1", "stop", "b2"]
    assert diary == ["a starts", "a ends", "b starts", "b ends"]


def test_an_inner_loops_escalation_does_not_stop_the_outer() -> None:
    inner = LoopAgent("inner", [leaf("a", Escalate("stop"))])
    tree = LoopAgent("outer", [inner, leaf("after", "after")], max_iterations=3)
    assert texts(run_tree(tree).delivered) == ["stop", "after"] * 3


def test_an_escalation_under_a_sequence_reaches_the_loop_when_the_sequence_has_ended() -> None:
    inner = SequentialAgent("s", [leaf("a", Escalate("stop")), leaf("b", "b")])
    tree = LoopAgent("l", [inner, leaf("never", "never")])
    assert texts(run_tree(tree).delivered) == ["stop", "b"]


def test_a_loops_own_escalation_is_for_the_loop_around_it() -> None:
    def up(ctx: InvocationContext) -> Event:
        return Escalate("up").event()

    inner = LoopAgent("inner", leaves("a", "a"), max_iterations=2, after_agent_callback=up)
    tree = LoopAgent("outer", [inner, leaf("never", "never")])
    assert texts(run_tree(tree).delivered) == ["a", "a", "up"]


def test_a_callback_can_escalate_instead_of_its_agent() -> None:
    def enough(ctx: InvocationContext) -> Event | None:
        return Escalate("enough").event() if ctx.path.endswith("@3") else None

    tree = LoopAgent("l", [leaf("a", "a", before_agent_callback=enough)])
    assert texts(run_tree(tree).delivered) == ["a", "a", "enough"]


def test_escalating_twice_is_escalating_once() -> None:
    tree = SequentialAgent(
        "s",
        [
            LoopAgent("one", [leaf("a", Escalate("1"), Escalate("2"))]),
            LoopAgent("two", [leaf("b", "b")], max_iterations=2),
        ],
    )
    assert texts(run_tree(tree).delivered) == ["1", "2", "b", "b"]


def test_a_loop_that_runs_again_has_forgotten_the_escalation() -> None:
    def only_first(ctx: InvocationContext) -> Event | None:
        return Escalate("stop").event() if "inner@1" in ctx.path else None

    inner = LoopAgent("inner", [leaf("a", "a", before_agent_callback=only_first)], max_iterations=2)
    tree = LoopAgent("outer", [inner], max_iterations=2)
    assert texts(run_tree(tree).delivered) == ["stop", "a", "a"]


def test_without_a_loop_around_it_nothing_stops() -> None:
    ended = run_tree(SequentialAgent("s", [leaf("a", Escalate()), leaf("b", "b")]))
    assert texts(ended.delivered) == ["stop", "b"]
    assert ended.result.status is Status.COMPLETED


# -------------------------------------------------------------------------------------- parallels


def test_a_direct_child_ends_its_siblings_and_goes_on_to_its_own_end() -> None:
    diary: Diary = []
    tree = ParallelAgent(
        "p",
        [
            leaf("a", "a1", 9, "a2", diary=diary),
            leaf("b", 5, Escalate("stop"), 9, "b2", diary=diary),
            leaf("c", 9, "c1", diary=diary),
        ],
    )
    ended = run_tree(tree)
    assert texts(ended.delivered) == ["a1", "stop", "b2"]
    assert ended.outcomes("p") == {"a": "cancelled", "b": "completed", "c": "cancelled"}
    assert sorted(diary[3:5]) == ["a ends", "c ends"]
    assert diary[5] == "b ends"


def test_the_deciding_event_is_delivered_before_the_siblings_are_cancelled() -> None:
    order: list[str] = []

    @agent
    async def sibling(ctx: InvocationContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            order.append("sibling cancelled")

    async def main() -> None:
        tree = ParallelAgent("p", [sibling, leaf("b", 1, Escalate("stop"))])
        async with Runner(tree).open() as run:
            async for event in run:
                what = event.text or "outcomes"
                order.append(what)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert order == ["stop", "sibling cancelled", "outcomes"]


def test_an_escalation_from_further_below_leaves_the_siblings_alone() -> None:
    tree = ParallelAgent(
        "p", [leaf("a", 9, "a1"), SequentialAgent("s", [leaf("b", 1, Escalate("stop"))])]
    )
    ended = run_tree(tree)
    assert texts(ended.delivered) == ["stop", "a1"]
    assert ended.outcomes("p") == {"a": "completed", "s": "completed"}


def test_a_loop_around_a_parallel_ends_by_an_escalation_from_further_below() -> None:
    parallel = ParallelAgent(
        "p", [leaf("a", 9, "a1"), SequentialAgent("s", [leaf("b", 1, Escalate("stop"))])]
    )
    tree = LoopAgent("l", [parallel, leaf("never", "never")])
    assert texts(run_tree(tree).delivered) == ["stop", "a1"]


def test_a_parallel_does_not_consume_it() -> None:
    parallel = ParallelAgent("p", [leaf("a", 9, "a1"), leaf("b", 1, Escalate("stop"))])
    tree = LoopAgent("l", [parallel, leaf("never", "never")])
    assert texts(run_tree(tree).delivered) == ["stop"]


def test_of_nested_parallels_only_the_one_directly_above_acts() -> None:
    inner = ParallelAgent("q", [leaf("a", 1, Escalate("stop")), leaf("b", 9, "b1")])
    ended = run_tree(ParallelAgent("p", [inner, leaf("c", 9, "c1")]))
    assert texts(ended.delivered) == ["stop", "c1"]
    assert ended.outcomes("q") == {"a": "completed", "b": "cancelled"}
    assert ended.outcomes("p") == {"q": "completed", "c": "completed"}


def test_a_composite_child_that_escalates_itself_is_a_direct_child() -> None:
    def up(ctx: InvocationContext) -> Event:
        return Escalate("up").event()

    tree = ParallelAgent(
        "p",
        [SequentialAgent("s", leaves("a", 1, "a1"), after_agent_callback=up), leaf("b", 9, "b1")],
    )
    ended = run_tree(tree)
    assert texts(ended.delivered) == ["a1", "up"]
    assert ended.outcomes("p") == {"s": "completed", "b": "cancelled"}


def test_whole_subtrees_of_siblings_are_ended() -> None:
    diary: Diary = []
    deep = ParallelAgent("q", [leaf("a", 9, "a1", diary=diary), leaf("b", 9, "b1", diary=diary)])
    tree = ParallelAgent("p", [SequentialAgent("s", [deep]), leaf("c", 5, Escalate("stop"))])
    ended = run_tree(tree)
    assert texts(ended.delivered) == ["stop"]
    assert sorted(diary[2:]) == ["a ends", "b ends"]
    assert [event.author for event in ended.delivered] == ["c", "p"]


def shielding(name: str, diary: Diary) -> Agent:
    """An agent that, when it is cancelled, emits under a shield."""

    @agent(name=name)
    async def run(ctx: InvocationContext) -> Yields:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                try:
                    yield f"{name} cleans up"
                except BranchCancelledError:
                    diary.append(f"{name} is refused")

    return run


def test_nothing_of_a_sibling_follows_even_under_a_shield() -> None:
    diary: Diary = []
    tree = ParallelAgent(
        "p",
        [
            shielding("a", diary),
            SequentialAgent("s", [shielding("b", diary)]),
            leaf("c", 5, Escalate("stop"), 1, "after"),
        ],
    )
    ended = run_tree(tree)
    assert texts(ended.delivered) == ["stop", "after"]
    assert texts(ended.result.events) == ["stop", "after"]
    assert sorted(diary) == ["a is refused", "b is refused"]
    assert ended.outcomes("p") == {"a": "cancelled", "s": "cancelled", "c": "completed"}


@pytest.mark.parametrize("service", [SlowService(2), BatchingService(2)], ids=["slow", "batching"])
@given(position=st.integers(0, 2), scheduler=st.random_module())
def test_of_events_that_wait_together_those_of_siblings_do_not_follow_the_deciding_one(
    service: SlowService, position: int, scheduler: object
) -> None:
    """All three are queued while the store is busy with the first event."""
    steps: list[list[Script]] = [[1, "a1"], [1, "b1"], [1, "c1"]]
    steps[position] = [1, Escalate("stop"), "after"]
    branches = [leaf(name, *script) for name, script in zip("abc", steps, strict=True)]
    tree = ParallelAgent("p", [leaf("first", "first"), *branches])
    ended = run_tree(Runner(tree, session_service=service))
    said = texts(ended.delivered)
    assert said[said.index("stop") :] == ["stop", "after"]
    assert texts(ended.result.events) == said


def test_a_sibling_that_had_ended_before_stays_as_it_was() -> None:
    tree = ParallelAgent("p", [leaf("a", 1, "a1"), leaf("b", 5, Escalate("stop"))])
    assert run_tree(tree).outcomes("p") == {"a": "completed", "b": "completed"}


def test_the_escalating_branch_may_fail_afterwards_and_that_is_raised() -> None:
    error = KeyError("x")
    tree = ParallelAgent("p", [leaf("a", 9), leaf("b", 1, Escalate(), 1, error)])
    ended = run_tree(tree)
    assert ended.error is error
    assert ended.outcomes("p") == {"a": "cancelled", "b": "failed"}


def test_a_siblings_failure_in_cleaning_up_is_an_outcome_and_not_raised() -> None:
    @agent
    async def clumsy(ctx: InvocationContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            message = "in cleaning up"
            raise KeyError(message)

    ended = run_tree(ParallelAgent("p", [clumsy, leaf("b", 1, Escalate("stop"))]))
    assert ended.error is None
    assert ended.result.status is Status.COMPLETED
    assert repr(ended.outcome("p", "clumsy").error) == "KeyError('in cleaning up')"


def test_a_sibling_that_swallows_the_cancellation_and_returns_does_not_win() -> None:
    @agent
    async def stubborn(ctx: InvocationContext) -> str:
        with suppress(trio.Cancelled):
            await trio.sleep_forever()
        return "I have won"

    ended = run_tree(ParallelAgent("p", [stubborn, leaf("b", 1, Escalate("stop"))]))
    assert ended.outcomes("p") == {"stubborn": "cancelled", "b": "completed"}
    assert ended.result.output == {"b": "stop"}
    assert texts(ended.result.events) == ["stop"]


def test_two_siblings_that_escalate_in_one_tick_are_decided_by_the_first_recorded() -> None:
    branches = [leaf(name, 1, Escalate(name), f"{name} after") for name in "abc"]
    ended = run_tree(ParallelAgent("p", branches))
    first, *after = texts(ended.delivered)
    assert after == [f"{first} after"]
    assert sorted(ended.outcomes("p").values()) == ["cancelled", "cancelled", "completed"]


def test_a_partial_event_does_not_escalate() -> None:
    """It is no part of the log, and so decides nothing."""

    @agent
    async def half(ctx: InvocationContext) -> Yields:
        yield Event("sto", partial=True, actions=EventActions(escalate=True))
        yield "whole"

    ended = run_tree(LoopAgent("l", [half], max_iterations=2))
    assert texts(ended.delivered) == ["sto", "whole", "sto", "whole"]


async def test_an_escalation_that_nobody_reads_any_more_stops_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It takes effect at its hand-out; the reader has left before that."""
    diary: Diary = []
    tree = ParallelAgent("p", [leaf("a", 1, Escalate(), diary=diary), leaf("b", 9, diary=diary)])
    async with Runner(tree).open() as run:
        await trio.sleep(5)
        assert sorted(diary) == ["a starts", "b starts"]
    assert run.result.status is Status.CANCELLED


async def test_while_the_reader_takes_its_time_over_the_deciding_event_siblings_are_joined_already(
    autojump_clock: trio.testing.MockClock,
) -> None:
    diary: Diary = []
    tree = ParallelAgent("p", [leaf("a", 9, diary=diary), leaf("b", 1, Escalate("stop"))])
    async with Runner(tree).open() as run:
        event = await run.__anext__()
        assert event.text == "stop"
        await trio.testing.wait_all_tasks_blocked()
        assert diary == ["a starts", "a ends"]


async def test_a_run_after_an_escalation_starts_with_a_clean_slate(
    autojump_clock: trio.testing.MockClock,
) -> None:
    runner = Runner(LoopAgent("l", [leaf("a", Escalate("stop"))], max_iterations=2))
    first = await open_and_read(runner, session_id="s")
    second = await open_and_read(runner, session_id="s")
    assert texts(first.delivered) == texts(second.delivered) == ["stop"]
