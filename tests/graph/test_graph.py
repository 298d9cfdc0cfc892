"""Nodes along edges: what starts when, with what, and what it comes to."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from parallel_agent import (
    START,
    Agent,
    BestEffort,
    Edge,
    Escalate,
    GraphAgent,
    InputError,
    InvocationContext,
    LoopAgent,
    MapAgent,
    Ordered,
    ParallelAgent,
    RouteError,
    Runner,
    Select,
    SequentialAgent,
    StateConflictError,
    Status,
    Switch,
    WaitAll,
    agent,
)
from tests.graph.nodes import Log, given, node, run_tree, texts_seen

# ----------------------------------------------------------------------------------------- edges


def test_a_chain_hands_each_output_on() -> None:
    log = Log()
    a, b, c = (node(name, log=log) for name in "abc")
    ended = run_tree(GraphAgent("g", [(a, b, c)]))
    assert log.given == [("a", None), ("b", "a"), ("c", "b")]
    assert ended.result.output == "c"


def test_what_is_listed_runs_side_by_side_and_a_join_waits_for_all() -> None:
    log = Log()
    a, d = node("a", log=log), node("d", log=log)
    b, c = node("b", log=log, sleeps=3), node("c", log=log, sleeps=1)
    run_tree(GraphAgent("g", [(a, [b, c], d)]))
    assert log.started == pytest.approx({"a": 0, "b": 0, "c": 0, "d": 3}, abs=0.1)
    assert log.inputs["d"] == {"b": "b", "c": "c"}


def test_a_grandchild_of_a_fast_branch_does_not_wait_for_a_slow_one() -> None:
    log = Log()
    slow, fast = node("slow", log=log, sleeps=100), node("fast", log=log, sleeps=1)
    child, grandchild = node("child", log=log, sleeps=1), node("grandchild", log=log)
    run_tree(GraphAgent("g", [(fast, child, grandchild)], nodes=[slow]))
    assert log.started["grandchild"] == pytest.approx(2, abs=0.1)


def test_a_join_waits_for_sources_of_any_depth_wherever_they_are_written() -> None:
    log = Log()
    a, b, c, d = (node(name, log=log, sleeps=1) for name in "abcd")
    run_tree(GraphAgent("g", [(a, d), (a, b, c), (c, d)]))
    assert log.names == ["a", "b", "c", "d"]
    assert log.inputs["d"] == {"a": "a", "c": "c"}


def test_an_edge_that_is_written_twice_counts_once() -> None:
    log = Log()
    a, b = node("a", log=log), node("b", log=log)
    run_tree(GraphAgent("g", [(a, b), (a, b)]))
    assert log.given == [("a", None), ("b", "a")]


def test_nodes_may_be_named_by_text() -> None:
    a, b = node("a"), node("b")
    assert run_tree(GraphAgent("g", [("a", "b")], nodes=[b, a])).result.output == "b"


def test_start_is_where_a_graph_starts() -> None:
    log = Log()
    a, b = node("a", log=log), node("b", log=log)
    run_tree(GraphAgent("g", [(START, a, b)]))
    assert log.names == ["a", "b"]


def test_the_first_nodes_are_given_what_the_graph_was_given() -> None:
    log = Log()

    @agent
    async def outer(ctx: InvocationContext) -> Any:
        return await ctx.run_agent(GraphAgent("g", [(given(int, "a", log), node("b"))]), 7)

    run_tree(outer)
    assert log.inputs["a"] == 7


def test_an_order_only_edge_delays_and_brings_nothing() -> None:
    log = Log()
    a, b = node("a", log=log, sleeps=2), node("b", log=log)
    run_tree(GraphAgent("g", [Edge(a, b, order_only=True)]))
    assert log.given == [("a", None), ("b", None)]
    assert log.started["b"] == pytest.approx(2, abs=0.1)


def test_ordered_children_run_one_after_another_and_all_get_the_output() -> None:
    log = Log()
    a, b, c = (node(name, log=log, sleeps=1) for name in "abc")
    run_tree(GraphAgent("g", [Ordered(a, [b, c])]))
    assert log.given == [("a", None), ("b", "a"), ("c", "a")]
    assert log.started["c"] == pytest.approx(2, abs=0.1)


def test_an_ordered_fan_in_runs_its_sources_in_turn_and_joins_them() -> None:
    log = Log()
    b, c, d = (node(name, log=log, sleeps=1) for name in "bcd")
    run_tree(GraphAgent("g", [Ordered([c, b], d)]))
    assert log.names == ["c", "b", "d"]
    assert log.inputs["d"] == {"c": "c", "b": "b"}


def test_no_more_nodes_run_at_a_time_than_allowed() -> None:
    log = Log()
    nodes = [node(f"n{number}", log=log, sleeps=1) for number in range(5)]
    ended = run_tree(GraphAgent("g", nodes=nodes, max_concurrency=2))
    assert [round(start) for start in log.started.values()] == [0, 0, 1, 1, 2]
    assert list(ended.result.output) == [f"n{number}" for number in range(5)]


# ---------------------------------------------------------------------------------------- inputs


@attrs.frozen
class Both:
    """What a join may take."""

    b: str
    c: int = 0


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (list[Any], ["b", 3]),
        (dict[str, Any], {"b": "b", "c": 3}),
        (Both, Both("b", 3)),
        (Any, {"b": "b", "c": 3}),
    ],
)
def test_a_join_gets_what_its_annotation_asks_for(kind: Any, expected: object) -> None:
    log = Log()
    graph = GraphAgent("g", [([node("b"), node("c", 3, sleeps=0)], given(kind, "d", log))])
    run_tree(graph)
    assert log.inputs["d"] == expected


def test_a_list_is_in_the_order_the_edges_are_written() -> None:
    log = Log()
    quick, slow = node("quick"), node("slow", sleeps=5)
    run_tree(GraphAgent("g", [([slow, quick], given(list[str], "d", log))]))
    assert log.inputs["d"] == ["slow", "quick"]


def test_an_output_that_does_not_fit_fails_the_node_that_it_feeds() -> None:
    log = Log()
    ended = run_tree(GraphAgent("g", [(node("a", 3.5), given(int, "b", log))]))
    assert isinstance(ended.error, InputError)
    assert "'b' (g/b on branch g.b)" in str(ended.error)


def test_an_object_that_a_function_returns_is_an_output() -> None:
    log = Log()

    @agent
    async def a(ctx: InvocationContext) -> Both:
        return Both("x", 1)

    run_tree(GraphAgent("g", [(a, given(Both, "b", log))]))
    assert log.inputs["b"] == Both("x", 1)


def test_one_of_several_sources_feeds_a_node_that_takes_one() -> None:
    log = Log()
    a, end = node("a", "right"), given(str, "end", log)
    left, right = node("left"), node("right")
    run_tree(GraphAgent("g", [Switch(a, {"left": left, "right": right}), ([left, right], end)]))
    assert log.inputs["end"] == "right"


def test_two_sources_for_a_node_that_takes_one_are_refused_when_they_come() -> None:
    log = Log()
    a, b, c = node("a", ["b", "c"]), node("b"), node("c")
    graph = GraphAgent("g", [Select(a, [b, c]), ([b, c], given(str, "end", log))])
    ended = run_tree(graph)
    assert isinstance(ended.error, InputError)
    assert "fed by 'b' and 'c'" in str(ended.error)


# ---------------------------------------------------------------------------------------- routes


def routed(said: Any, *edges: Any) -> list[str]:
    """Return which of x, y and z run after ``a`` has said something, sorted."""
    a, x, y, z = node("a", said), node("x"), node("y"), node("z")
    named = {"a": a, "x": x, "y": y, "z": z}
    ended = run_tree(GraphAgent("g", [edge(named) for edge in edges], nodes=[a, x, y, z]))
    return sorted(set(texts_seen(ended)) - {"a"})


def edge(target: str, **options: Any) -> Any:
    return lambda nodes: Edge(nodes["a"], nodes[target], **options)


@pytest.mark.parametrize(
    ("said", "taken"),
    [("x", ["x"]), ("y", ["y"]), (["x", "y"], ["x", "y"]), ("?", ["z"]), (True, ["z"])],
)
def test_the_edges_whose_value_was_said_are_taken_and_else_the_default(
    said: Any, taken: list[str]
) -> None:
    edges = edge("x", when="x"), edge("y", when=["y", 1]), edge("z", default=True)
    assert routed(said, *edges) == taken


def test_a_predicate_is_asked_about_the_output() -> None:
    edges = edge("x", when=lambda said: said > 3), edge("y", when=lambda said: said > 5)
    assert routed(4, *edges) == ["x", "z"]
    assert routed(6, *edges) == ["x", "y", "z"]


def test_a_switch_takes_the_first_case_that_fits() -> None:
    def switch(nodes: dict[str, Agent]) -> Switch:
        cases = [(lambda said: said > 3, nodes["x"]), (lambda said: said > 1, nodes["y"])]
        return Switch(nodes["a"], cases, default=nodes["z"])

    assert [routed(said, switch) for said in (4, 2, 0)] == [["x"], ["y"], ["z"]]


def test_a_subset_is_selected_by_name() -> None:
    def select(nodes: dict[str, Agent]) -> Select:
        return Select(nodes["a"], [nodes["x"], nodes["y"], nodes["z"]], by=lambda said: said[1:])

    assert routed(["?", "z", "x"], select) == ["x", "z"]


def test_a_name_that_is_no_target_ends_the_graph() -> None:
    a, b = node("a", "c"), node("b")
    ended = run_tree(GraphAgent("g", [Select(a, [b])]))
    assert isinstance(ended.error, RouteError)
    assert "'a' selects 'c', which is none of its targets: b" in str(ended.error)


def test_a_route_may_be_given_beside_the_output() -> None:
    log = Log()
    a, b = node("a", "a long draft", route="fix"), node("b", log=log)
    c = node("c", log=log)
    run_tree(GraphAgent("g", [Edge(a, b, when="fix"), Edge(a, c, when="a long draft")]))
    assert log.given == [("b", "a long draft")]


def test_what_a_condition_raises_ends_the_graph_as_itself() -> None:
    a, b = node("a", "text"), node("b")
    running = node("running", sleeps=9)
    graph = GraphAgent("g", [Edge(a, b, when=lambda said: said["key"])], nodes=[running])
    ended = run_tree(graph)
    assert isinstance(ended.error, TypeError)
    assert ended.outcomes("g") == {"a": "completed", "running": "cancelled"}


# ----------------------------------------------------------------------------------------- skips


def test_what_no_edge_leads_to_is_skipped_with_all_that_only_it_leads_to() -> None:
    log = Log()
    a = node("a", "left")
    left, right, after = (node(name, log=log) for name in ("left", "right", "after"))
    edges: list[Any] = [Edge(a, left, when="left"), Edge(a, right, when="right"), (right, after)]
    run_tree(GraphAgent("g", edges))
    assert log.names == ["left"]


def test_a_join_starts_once_with_what_came_when_a_source_is_skipped() -> None:
    log = Log()
    a, b, c = node("a", "b"), node("b", sleeps=2), node("c")
    graph = GraphAgent("g", [Switch(a, {"b": b, "c": c}), ([b, c, node("e")], node("d", log=log))])
    run_tree(graph)
    assert log.given == [("d", {"b": "b", "e": "e"})]


def test_a_node_runs_after_a_skipped_one_that_only_orders_it() -> None:
    log = Log()
    a, b, c = node("a", "no"), node("b", log=log), node("c", log=log)
    run_tree(GraphAgent("g", [Edge(a, b, when="yes"), Edge(b, c, order_only=True)]))
    assert log.names == ["c"]


# ----------------------------------------------------------------------------------------- loops


def review_loop(said: tuple[str, ...], log: Log, times: int = 5) -> GraphAgent:
    write, review = node("write", log=log), node("review", said, log=log)
    publish = node("publish", log=log)
    return GraphAgent(
        "g",
        [
            (write, review),
            Edge(review, write, when="again", max_times=times),
            Edge(review, publish, default=True),
        ],
    )


def test_a_loop_runs_its_body_again_until_it_is_not_chosen() -> None:
    log = Log()
    ended = run_tree(review_loop(("again", "again", "good"), log))
    assert log.names == ["write", "review"] * 3 + ["publish"]
    assert ended.result.output == "publish"
    assert list(ended.outcomes("g")) == [
        "write", "write@2", "write@3", "review", "review@2", "review@3", "publish",
    ]  # fmt: skip


def test_a_loop_that_has_been_taken_often_enough_goes_on_by_the_default() -> None:
    log = Log()
    run_tree(review_loop(("again",) * 9, log, times=2))
    assert log.names == ["write", "review"] * 3 + ["publish"]


def test_the_first_node_of_a_loop_is_given_what_the_last_one_has_said() -> None:
    log = Log()
    run_tree(review_loop(("again", "good"), log))
    assert [said for name, said in log.given if name == "write"] == [None, "again"]


def test_what_leaves_a_loop_counts_when_the_loop_is_over() -> None:
    log = Log()
    write, review = node("write", ("one", "two")), node("review", ("again", "good"))
    extra = node("extra", log=log)
    graph = GraphAgent(
        "g", [(write, review), (write, extra), Edge(review, write, when="again", max_times=3)]
    )
    run_tree(graph)
    assert log.given == [("extra", "two")]


def test_a_loop_in_a_loop_starts_afresh_in_each_round() -> None:
    log = Log()
    a, b, c = node("a", log=log), node("b", ("in",) * 9, log=log), node("c", ("out",) * 9, log=log)
    graph = GraphAgent(
        "g",
        [
            (a, b, c),
            Edge(b, b, when="in", max_times=1),
            Edge(c, a, when="out", max_times=1),
        ],
    )
    run_tree(graph)
    assert log.names == ["a", "b", "b", "c"] * 2


def test_two_ways_back_at_once_are_refused() -> None:
    a, b, c = node("a"), node("b"), node("c", ["x", "y"])
    graph = GraphAgent(
        "g",
        [(a, b, c), Edge(c, a, when="x", max_times=1), Edge(c, b, when="y", max_times=1)],
    )
    ended = run_tree(graph)
    assert isinstance(ended.error, RouteError)
    assert "leads back to 'a' and to 'b' at once" in str(ended.error)


# --------------------------------------------------------------------------------------- failures


def test_a_failure_ends_the_others_and_is_raised_as_itself() -> None:
    wrong = ValueError("no")
    a, b, c = node("a", error=wrong, sleeps=1), node("b", sleeps=9), node("c")
    ended = run_tree(GraphAgent("g", [(a, c)], nodes=[b]))
    assert ended.error is wrong
    assert ended.outcomes("g") == {"b": "cancelled", "a": "failed"}


def test_what_has_failed_counts_as_skipped_for_a_policy_that_goes_on() -> None:
    log = Log()
    a, b = node("a", error=ValueError("no")), node("b", sleeps=1)
    only_a = node("only_a", log=log)
    graph = GraphAgent("g", [(a, only_a), ([a, b], node("d", log=log))], barrier=BestEffort())
    ended = run_tree(graph)
    assert log.given == [("d", {"b": "b"})]
    assert ended.outcomes("g") == {"a": "failed", "b": "completed", "d": "completed"}


def test_all_failures_are_raised_by_a_policy_that_waits_for_all() -> None:
    a, b = node("a", error=ValueError("a")), node("b", error=KeyError("b"), sleeps=1)
    ended = run_tree(GraphAgent("g", nodes=[a, b], barrier=WaitAll()))
    assert isinstance(ended.error, ExceptionGroup)
    assert [type(error) for error in ended.error.exceptions] == [ValueError, KeyError]


async def test_a_person_may_have_a_node_tried_again(autojump_clock: object) -> None:
    tries: list[int] = []

    @agent
    async def flaky(ctx: InvocationContext) -> str:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError
        return "done"

    log = Log()
    graph = GraphAgent("g", [(flaky, node("after", log=log))], barrier=Escalate())
    async with Runner(graph).open("x") as run:
        async for event in run:
            if event.request is not None:
                await run.respond(event.request.id, "retry")
    assert log.given == [("after", "done")]


def test_an_escalating_node_ends_the_others_and_the_nearest_loop() -> None:
    log = Log()
    a, b = node("a", escalates=True, sleeps=1), node("b", sleeps=9)
    graph = GraphAgent("g", [(a, node("c", log=log))], nodes=[b])
    ended = run_tree(LoopAgent("loop", [graph, node("later", log=log)], max_iterations=5))
    assert ended.error is None
    assert log.names == []
    assert ended.outcomes("g") == {"b": "cancelled", "a": "completed"}


# ---------------------------------------------------------------------------------- what is seen


def test_a_node_sees_what_was_said_before_it_could_start_and_nothing_else() -> None:
    seen: list[str] = []

    @agent
    async def d(ctx: InvocationContext) -> str:
        seen.extend(event.author for event in ctx.history() if event.text)
        return "d"

    a, b, other = node("a"), node("b", sleeps=3), node("other")
    run_tree(GraphAgent("g", [(a, b, d)], nodes=[other]))
    assert seen == ["user", "a", "b"]  # `other` had ended as well, by chance


def test_a_graph_in_a_loop_sees_its_earlier_rounds() -> None:
    seen: list[list[str]] = []

    @agent
    async def last(ctx: InvocationContext) -> str:
        seen.append([event.path for event in ctx.history() if event.text][1:])
        return "x"

    graph = GraphAgent("g", [(node("first"), last)])
    run_tree(LoopAgent("loop", [graph], max_iterations=2))
    one = ["loop/g@1/first"]
    assert seen == [one, [*one, "loop/g@1/last", "loop/g@2/first"]]


def test_after_the_graph_all_is_seen() -> None:
    seen: list[str] = []

    @agent
    async def after(ctx: InvocationContext) -> str:
        seen.extend(event.author for event in ctx.history() if event.text)
        return "x"

    graph = GraphAgent("g", [(node("a"), node("b"))], nodes=[node("c", sleeps=1)])
    run_tree(SequentialAgent("s", [graph, after]))
    assert seen[1:] == ["a", "b", "c"]


def test_nodes_that_an_edge_orders_may_write_the_same_key() -> None:
    def writes(name: str) -> Agent:
        return node(name, lambda ctx: ctx.state.__setitem__("k", name))

    ordered = GraphAgent("g", [(writes("a"), writes("b"))])
    unordered = GraphAgent("g", nodes=[writes("a"), writes("b")])
    assert run_tree(Runner(ordered, on_conflict="error")).error is None
    assert isinstance(run_tree(Runner(unordered, on_conflict="error")).error, StateConflictError)


# ---------------------------------------------------------------------------------------- nesting


def test_graphs_and_trees_stand_in_each_other() -> None:
    log = Log()
    inner = GraphAgent("inner", [(node("a", log=log), [node("b", log=log), node("c", log=log)])])
    tree = SequentialAgent("tree", [node("d", log=log), ParallelAgent("p", [node("e", log=log)])])
    ended = run_tree(GraphAgent("outer", [(inner, tree, node("f", log=log))]))
    assert ended.result.output == "f"
    assert log.inputs["d"] == {"b": "b", "c": "c"}
    assert log.inputs["f"] == {"e": "e"}


def test_a_map_runs_once_per_item_and_a_join_after_an_empty_one_still_starts() -> None:
    log = Log()
    double = agent(lambda ctx: ctx.input * 2, name="double")
    a, b = node("a", [1, 2, 3]), node("b", [])
    many, none = MapAgent("many", double), MapAgent("none", double.with_options(name="other"))
    end = node("end", log=log)
    run_tree(GraphAgent("g", [(a, many, end), (b, none, end)]))
    assert log.given == [("end", {"many": [2, 4, 6], "none": []})]


def test_a_fan_in_feeds_a_map() -> None:
    upper = agent(lambda ctx: ctx.input.upper(), name="upper")
    ended = run_tree(GraphAgent("g", [([node("b"), node("c")], MapAgent("many", upper))]))
    assert ended.result.output == ["B", "C"]


# --------------------------------------------------------------------------------------- the end


def test_the_output_is_that_of_the_one_node_that_nothing_follows() -> None:
    a, b = node("a"), node("b", {"x": 1})
    ended = run_tree(GraphAgent("g", [(a, b)], output_key="k"))
    assert ended.result.output == {"x": 1}
    assert ended.result.state["k"] == {"x": 1}


def test_the_output_of_several_ends_is_an_object_of_those_that_ran() -> None:
    a, x, y, z = node("a", ["z", "x"]), node("x", sleeps=2), node("y"), node("z")
    ended = run_tree(GraphAgent("g", [Select(a, [x, y, z])]))
    assert ended.result.output == {"x": "x", "z": "z"}


def test_the_same_graph_runs_twice_at_once() -> None:
    first, last = node("a", lambda ctx: ctx.user_text), node("b", lambda ctx: ctx.input)
    graph = GraphAgent("g", [(first, last)])
    one, two = run_tree(graph, message="one"), run_tree(graph, message="two")
    assert (one.result.output, two.result.output) == ("one", "two")
    assert one.result.status is Status.COMPLETED


# ---------------------------------------------------------------------- what comes back in a loop


@attrs.frozen
class Draft:
    """What a writer is given: the facts, and what a critic has said of the last draft."""

    facts: str
    review: str | None = None


def test_a_class_with_a_field_for_each_source_takes_what_came_and_what_came_back() -> None:
    log = Log()
    facts, review = node("facts", "rain"), node("review", ("longer", "good"))
    graph = GraphAgent(
        "g",
        [
            (facts, given(Draft, "write", log), review),
            Edge(review, "write", when="longer", max_times=3),
        ],
    )
    run_tree(graph)
    assert [said for _, said in log.given] == [Draft("rain"), Draft("rain", "longer")]


def test_to_a_join_is_added_what_came_back() -> None:
    log = Log()
    a, b, review = node("a"), node("b"), node("review", ("again", "good"))
    graph = GraphAgent(
        "g",
        [
            ([a, b], given(list[str], "write", log), review),
            Edge(review, "write", when="again", max_times=3),
        ],
    )
    run_tree(graph)
    assert [said for _, said in log.given] == [["a", "b"], ["a", "b", "again"]]
