"""Recorded runs, run again by scripted agents: in their order, and in others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from parallel_agent import (
    Agent,
    Event,
    EventActions,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Result,
    Retry,
    Runner,
    SequentialAgent,
    agent,
)
from parallel_agent.testing import Exploration, run_once
from parallel_agent.testing.recorded import (
    LogError,
    OtherState,
    as_test,
    find_other_state,
    read_log,
    recorded_tree,
)
from parallel_agent.testing.scripted import contributes, emits, escalates, outputs, scripted, sleeps
from session import Codec, thaw

CODEC: Final = Codec()


def recorded(tree: Agent) -> Result:
    return trio.run(Runner(tree).run, "hi", clock=MockClock(autojump_threshold=0))


def log_of(result: Result) -> list[str]:
    return [CODEC.dumps(event) for event in result.events]


def state_of(result: Result | None) -> dict[str, Any]:
    assert result is not None
    return {key: thaw(value) for key, value in result.state.items()}


def sets(name: str, after: int = 0, **delta: Any) -> Agent:
    return scripted(name, sleeps(after), emits(f"{name} says", state_delta=delta))


def two_that_write() -> Agent:
    return ParallelAgent("p", [sets("a", 2, k="a"), sets("b", 1, k="b")])


def test_the_order_that_leaves_another_state_is_found() -> None:
    events = read_log(log_of(recorded(two_that_write())))
    found = find_other_state(events)
    assert isinstance(found, OtherState)
    assert (found.recorded, found.other, found.keys) == ({"k": "a"}, {"k": "b"}, ("k",))


def test_branches_that_keep_to_their_keys_have_one_final_state() -> None:
    tree = ParallelAgent("p", [sets("a", 2, x=1), sets("b", 1, y=[2])])
    found = find_other_state(recorded(tree).events)
    assert isinstance(found, Exploration)
    assert found.exhausted


def test_agents_in_a_sequence_do_not_overtake_each_other() -> None:
    tree = SequentialAgent("s", [sets("a", 2, k="a"), sets("b", 1, k="b")])
    assert isinstance(find_other_state(recorded(tree).events), Exploration)


def test_two_fan_outs_of_one_agent_come_one_after_the_other() -> None:
    async def forks_twice(ctx: InvocationContext) -> None:
        await ctx.map(sets("w", 1, k=1), [1, 2])
        await ctx.map(sets("v", 1, k=2), [1, 2])

    assert isinstance(find_other_state(recorded(agent(forks_twice)).events), Exploration)


def test_what_it_writes_down_is_a_test_that_fails() -> None:
    events = recorded(two_that_write()).events
    found = find_other_state(events)
    assert isinstance(found, OtherState)
    namespace: dict[str, Any] = {}
    exec(compile(as_test(events, found), "test_order.py", "exec"), namespace)  # noqa: S102  # pytest would
    with pytest.raises(AssertionError, match="the schedule failed with AssertionError"):
        namespace["test_the_final_state_does_not_depend_on_who_goes_when"]()


texts = st.sampled_from(["one", "two", 'it\'s "so"\n{x}'])
leaves = st.lists(
    st.one_of(
        st.builds(lambda text, n: emits(text, state_delta={"k": n}), texts, st.integers(0, 2)),
        st.builds(sleeps, st.integers(0, 3)),
        st.builds(lambda n: outputs({"n": [n]}), st.integers(0, 2)),
        st.builds(emits, texts),
    ),
    max_size=3,
)


@st.composite
def trees(draw: st.DrawFn) -> Agent:
    numbers = iter(range(99))

    def node(depth: int) -> Agent:
        name = f"n{next(numbers)}"
        kind = draw(st.sampled_from(["leaf", "p", "s", "loop"])) if depth else "leaf"
        if kind == "leaf":
            return scripted(name, *draw(leaves))
        children = [node(depth - 1) for _ in range(draw(st.integers(1, 2)))]
        if kind == "p":
            return ParallelAgent(name, children)
        if kind == "s":
            return SequentialAgent(name, children)
        return LoopAgent(name, children, max_iterations=2)

    return ParallelAgent("root", [node(2), node(1), scripted("last", emits("said"))])


def said(events: Any) -> list[tuple[Any, ...]]:
    """What is the same in a run and in its copy, in whatever order."""
    told = [(event.text, event.output) for event in events]
    return sorted((one for one in told if one != ("", None)), key=repr)


@given(trees())
def test_the_copy_says_what_was_recorded(tree: Agent) -> None:
    result = recorded(tree)
    copy = recorded_tree(read_log(log_of(result)))
    again = run_once(lambda: copy)
    assert again.error is None
    assert said(again.events) == said(result.events)


def test_an_escalation_is_done_again() -> None:
    tree = ParallelAgent("p", [scripted("a", emits("x"), escalates("enough")), sets("b", 5, k=1)])
    again = run_once(lambda: recorded_tree(recorded(tree).events))
    assert [event.actions.escalate for event in again.events].count(True) == 1


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([], "holds no event of an agent"),
        (["", "{"], "my.jsonl:2 holds no event"),
        (['{"author": 3}'], "my.jsonl:1 holds no event: .*author"),
        ([log_of(recorded(sets("a"))), log_of(recorded(sets("a")))], "events of 2 runs"),
    ],
)
def test_a_log_that_is_none_is_refused_by_line(lines: Any, complaint: str) -> None:
    flat = [line for part in lines for line in (part if isinstance(part, list) else [part])]
    with pytest.raises(LogError, match=complaint):
        read_log(flat, "my.jsonl")


def test_events_without_a_path_are_refused() -> None:
    event = Event("x", actions=EventActions())
    with pytest.raises(LogError, match="says not which activation emitted it"):
        recorded_tree([event])


def test_a_root_that_was_tried_again_is_run_again_attempt_after_attempt() -> None:
    tries: list[int] = []

    @agent(name="a", retry=Retry(2, initial_delay=0))
    async def second_time_lucky(ctx: InvocationContext) -> AsyncIterator[str]:
        tries.append(1)
        yield f"try {len(tries)}"
        if len(tries) == 1:
            raise ValueError

    result = recorded(second_time_lucky)
    again = run_once(lambda: recorded_tree(read_log(log_of(result)))).result
    assert again is not None
    assert [event.text for event in again.events if event.text] == ["try 1", "try 2"]


def contributing(name: str) -> Agent:
    return scripted(name, contributes("all", name), emits(f"{name} says", state_delta={name: 1}))


def test_keys_that_are_ignored_do_not_count() -> None:
    tree = ParallelAgent("p", [contributing("a"), contributing("b")])
    run = Runner(tree, reducers={"all": "append"}).run
    events = trio.run(run, "hi", clock=MockClock(autojump_threshold=0)).events
    found = find_other_state(events)
    assert isinstance(found, OtherState)
    assert found.keys == ("all",)  # what each had contributed is not in the log
    assert isinstance(find_other_state(events, ignore=["all"]), Exploration)


def test_keys_that_live_for_a_run_do_not_count() -> None:
    lines = log_of(recorded(two_that_write()))
    events = read_log(line.replace('"k"', '"temp:k"') for line in lines)
    assert isinstance(find_other_state(events), Exploration)


def test_a_log_may_begin_with_a_mark_of_its_encoding() -> None:
    lines = log_of(recorded(two_that_write()))
    assert len(read_log(["\ufeff" + lines[0], *lines[1:]])) == len(lines)


def test_an_agent_may_be_called_what_python_keeps_for_itself() -> None:
    lines = log_of(recorded(scripted("sole", emits("hello"))))
    tree = recorded_tree(
        read_log(line.replace('"path":"sole"', '"path":"lambda"') for line in lines)
    )
    assert tree.name == "lambda_2"


def test_a_tree_that_is_too_deep_is_refused() -> None:
    path = "/".join(["a"] * 1_000)
    lines = log_of(recorded(scripted("sole", emits("hello"))))
    events = read_log(line.replace('"path":"sole"', f'"path":"{path}"') for line in lines)
    with pytest.raises(LogError, match="too deep"):
        recorded_tree(events)
