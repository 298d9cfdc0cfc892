"""Guards run before everything else; what does not say yes ends the graph, normally."""

from __future__ import annotations

from typing import Any

import pytest

from parallel_agent import (
    GraphAgent,
    InvocationContext,
    Refusal,
    Retry,
    SequentialAgent,
    Status,
    agent,
)
from tests.graph.nodes import Log, node, run_tree


def guarded(*guards: Any, log: Log) -> GraphAgent:
    return GraphAgent("g", [(node("a", log=log), node("b", log=log))], guards=guards)


@pytest.mark.parametrize("yes", [True, {"validation": True, "reason": "fine"}])
def test_a_yes_lets_the_nodes_run(yes: Any) -> None:
    log = Log()
    ended = run_tree(guarded(node("guard", yes, log=log), log=log))
    assert log.given == [("guard", None), ("a", None), ("b", "a")]
    assert Refusal.of(ended.result.output) is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (False, ""),
        ({"validation": False, "reason": "rude"}, "rude"),
        ({"validation": False, "reason": ["a"]}, "['a']"),
        ("yes", "it answered neither yes nor no: 'yes'"),
        ({"valid": True}, "it answered neither yes nor no: {'valid': True}"),
        (1, "it answered neither yes nor no: 1"),
    ],
)
def test_anything_else_ends_the_graph_normally_and_nothing_starts(answer: Any, reason: str) -> None:
    log = Log()
    ended = run_tree(guarded(node("guard", answer), log=log))
    assert ended.result.status is Status.COMPLETED
    assert Refusal.of(ended.result.output) == Refusal("guard", reason)
    assert log.given == []


def test_a_guard_that_fails_is_a_no_that_says_why() -> None:
    log = Log()
    ended = run_tree(guarded(node("guard", error=ValueError("broken")), log=log))
    assert ended.error is None
    assert Refusal.of(ended.result.output) == Refusal("guard", "broken", "ValueError")
    assert ended.outcomes("g") == {"guard": "failed"}
    assert log.given == []


def test_guards_run_one_after_another_and_the_first_no_counts() -> None:
    log = Log()
    guards = (
        node("one", True, log=log, sleeps=5),
        node("two", False, log=log),
        node("three", True, log=log),
    )
    ended = run_tree(guarded(*guards, log=log))
    assert log.names == ["one", "two"]
    assert Refusal.of(ended.result.output) == Refusal("two")


def test_a_guard_may_be_tried_again() -> None:
    log, tries = Log(), list[int]()

    @agent(retry=Retry(max_attempts=2, initial_delay=0))
    async def guard(ctx: InvocationContext) -> bool:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError
        return True

    run_tree(guarded(guard, log=log))
    assert log.names == ["a", "b"]


def test_a_guard_of_an_inner_graph_guards_that_graph_alone() -> None:
    log = Log()
    inner = guarded(node("guard", False), log=log)
    ended = run_tree(SequentialAgent("s", [inner, node("after", log=log)]))
    assert log.names == ["after"]
    assert ended.result.output == "after"


def test_the_nodes_see_what_the_guards_have_said() -> None:
    seen: list[str] = []

    @agent
    async def look(ctx: InvocationContext) -> None:
        seen.extend(event.author for event in ctx.history() if event.output is not None)

    run_tree(GraphAgent("g", nodes=[look], guards=[node("guard", True)]))
    assert seen == ["guard"]


@pytest.mark.parametrize("output", [None, "text", {"refused_by": 7}, {}, ["refused_by"]])
def test_no_other_output_is_a_refusal(output: Any) -> None:
    assert Refusal.of(output) is None
