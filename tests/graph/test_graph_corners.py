"""Corners of graphs: each was found by somebody who tried to break them."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from parallel_agent import (
    Agent,
    Document,
    Edge,
    Escalate,
    Event,
    GraphAgent,
    GraphError,
    InvocationContext,
    RouteError,
    Runner,
    Select,
    Switch,
    TreeError,
    agent,
)
from tests.graph.nodes import Log, given, node, run_tree


def test_a_function_that_returns_nothing_may_feed_what_it_emits() -> None:
    log = Log()

    @agent
    async def emits(ctx: InvocationContext) -> None:
        await ctx.emit(Event(output="hello"))

    run_tree(GraphAgent("g", [(emits, given(str, "b", log))]))
    assert log.inputs["b"] == "hello"


def looped(first: str, last: str, log: Log) -> tuple[list[Any], list[Agent]]:
    a, b = node(first, log=log), node(last, ("again", "good"), log=log)
    return [(a, b), Edge(b, a, when="again", max_times=3)], [a, b]


def test_a_document_does_not_draw_a_node_into_a_loop() -> None:
    log = Log()
    edges, (a, b) = looped("a", "b", log)
    x = node("x", log=log)
    graph = GraphAgent("g", [*edges, (a, x)], documents=[Document("d", writers=[x], readers=[b])])
    run_tree(graph)
    assert log.names == ["a", "b", "a", "b", "x"]


def test_two_loops_may_share_a_document() -> None:
    log = Log()
    one, (a, b) = looped("a", "b", log)
    two, (c, d) = looped("c", "d", log)
    document = Document("d", appenders=[a, c], readers=[b, d])
    ended = run_tree(GraphAgent("g", [*one, *two], documents=[document]))
    assert ended.error is None
    assert sorted(log.names) == sorted(["a", "b", "c", "d"] * 2)


@pytest.mark.parametrize(("said", "ran"), [("x", "b"), ("?", "c")])
def test_a_default_looks_at_a_switch_as_well(said: str, ran: str) -> None:
    log = Log()
    a, b, c = node("a", said), node("b", log=log), node("c", log=log)
    run_tree(GraphAgent("g", [Switch(a, {"x": b}), Edge(a, c, default=True)]))
    assert log.names == [ran]


def test_a_selection_is_not_asked_when_an_edge_leads_back() -> None:
    log = Log()
    a, b = node("a", ("again", "b"), log=log), node("b", log=log)
    run_tree(GraphAgent("g", [Select(a, [b]), Edge(a, a, when="again", max_times=3)]))
    assert log.names == ["a", "a", "b"]


def test_a_condition_that_turns_out_to_be_async_ends_the_graph() -> None:
    async def check(_output: object, _more: int) -> bool:
        return False

    ended = run_tree(
        GraphAgent("g", [Edge(node("a"), node("b"), when=lambda said: check(said, 1))])
    )
    assert isinstance(ended.error, RouteError)
    assert "a condition is a plain function, not async" in str(ended.error)


def test_a_condition_that_ends_the_process_leaves_how_the_nodes_ended() -> None:
    def leave(_output: object) -> bool:
        raise SystemExit(3)

    graph = GraphAgent("g", [Edge(node("a"), node("b"), when=leave)])

    @agent
    async def outer(ctx: InvocationContext) -> list[str]:
        try:
            await ctx.run_agent(graph)
        except SystemExit:
            return [outcome.name for outcome in ctx.outcomes("g")]
        return []

    assert run_tree(outer).result.output == ["a"]


def test_routes_that_exclude_each_other_may_feed_a_tuple() -> None:
    log = Log()
    s, a, b = node("s", "a"), node("a"), node("b")
    graph = GraphAgent("g", [Switch(s, {"a": a, "b": b}), ([a, b], given(tuple[str], "j", log))])
    run_tree(graph)
    assert log.inputs["j"] == ("a",)


@pytest.mark.parametrize("target", [[], {"b"}, len])
def test_a_bad_target_of_a_default_is_told(target: Any) -> None:
    with pytest.raises(GraphError):
        GraphAgent("g", [Edge(node("a"), target, default=True)])


def test_what_is_no_list_is_told_and_not_iterated() -> None:
    a, b = node("a"), node("b")
    bad: Any = b
    with pytest.raises(GraphError, match="is a Switch without cases"):
        GraphAgent("g", [Switch(a, bad)])
    with pytest.raises(TreeError, match="guards of 'g' is a list of agents"):
        GraphAgent("g", [(a, b)], guards=bad)


def test_a_document_is_told_in_the_shape_with_all_that_counts() -> None:
    def shape(**options: Any) -> str:
        a, b = node("a"), node("b")
        return GraphAgent("g", [(a, b)], documents=[Document("d", writers=[a], **options)]).shape

    shapes = {shape(), shape(key="k"), shape(initial="x"), shape(chain=False)}
    assert len(shapes) == 4


def test_a_long_document_is_put_together_at_once() -> None:
    rounds = 300
    texts = tuple(f"{number} {'x' * 2000}" for number in range(rounds))
    a = node("a", texts)
    graph = GraphAgent(
        "g",
        [Edge(a, a, max_times=rounds - 1)],
        documents=[Document("d", appenders=[a], readers=[a], key="d")],
    )
    kept = run_tree(graph).result.state["d"]
    assert kept.split("\n\n") == list(texts)


async def test_a_limit_holds_when_more_had_begun_than_it_allows_now(
    autojump_clock: object,
) -> None:
    at_work: list[str] = []
    most: list[int] = []

    def worker(name: str) -> Agent:
        @agent(name=name)
        async def work(ctx: InvocationContext) -> str:
            at_work.append(name)
            most.append(len(at_work))
            try:
                await trio.sleep(1)
            finally:
                at_work.remove(name)
            return name

        return work

    def graph(limit: int) -> GraphAgent:
        failing = [node(f"bad{number}", error=ValueError("no")) for number in range(3)]
        workers = [worker(f"work{number}") for number in range(6)]
        return GraphAgent(
            "g", nodes=[*failing, *workers], barrier=Escalate(), max_concurrency=limit
        )

    first = Runner(graph(9), resumable=True)
    async with first.open("x") as run:
        asked = 0
        async for event in run:
            asked += event.request is not None
            if asked == 3:
                break  # three have failed and been asked about; the others are cut off
    most.clear()
    again = Runner(graph(2), resumable=True, session_service=first.session_service)
    async with again.reopen(run.session_id) as run:
        async for event in run:
            if event.request is not None:
                await run.respond(event.request.id, "skip")
    assert max(most) <= 2
    assert len(most) == 6
