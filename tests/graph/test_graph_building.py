"""What is wrong with a graph is said when it is made, all at once, with the names of the nodes."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from parallel_agent import (
    START,
    Agent,
    BestEffort,
    Document,
    Edge,
    FirstSuccess,
    GraphAgent,
    GraphError,
    InvocationContext,
    Ordered,
    ParallelAgent,
    Quorum,
    Select,
    SequentialAgent,
    Switch,
    TreeError,
    agent,
)
from tests.graph.nodes import node


def problems(*edges: Any, **options: Any) -> list[str]:
    """Return what is wrong with a graph of these edges."""
    with pytest.raises(GraphError) as caught:
        GraphAgent("g", edges, **options)
    assert str(caught.value).startswith("graph 'g' cannot run: ")
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    return list(caught.value.problems)


def letters(names: str) -> list[Agent]:
    return [node(name) for name in names]


def test_everything_is_said_at_once() -> None:
    a, b = letters("ab")
    assert problems((a, "lost"), (a,), 7, Edge(a, b, when=[]), (a, [b, b], a)) == [
        "edges[1] has one part, (<FunctionAgent a>,); an edge has two or more",
        (
            "edges[2] is 7: an edge is a chain such as (a, [b, c], d), or an Edge, Switch, Select "
            "or Ordered"
        ),
        "`when` of edges[3] lists no values, so it is never taken",
        "edges[4] lists 'b' more than once",
        "there is no node 'lost'",
        "'a' leads to 'b' both in any case and under a condition; leave one of the edges out",
        (
            "a -> b -> a comes round without a bound; write the edge that leads back as "
            "Edge(..., max_times=...)"
        ),
    ]


def test_it_is_a_tree_error_as_well() -> None:
    with pytest.raises(TreeError):
        GraphAgent("g", [("a", "b")])


def test_a_missing_node_is_told_with_what_it_may_have_meant() -> None:
    a, review = node("a"), node("review")
    assert problems((a, review, "reviev")) == ["there is no node 'reviev'; did you mean 'review'?"]


def test_two_nodes_of_one_name_are_told() -> None:
    (found,) = problems((node("a"), node("b")), nodes=[node("a")])
    assert found.startswith("two nodes are called 'a'; with_options(name=...)")


def test_two_agents_of_one_name_anywhere_below_are_a_tree_error() -> None:
    with pytest.raises(TreeError, match="two agents in the tree are called 'a'"):
        GraphAgent("g", [(node("a"), SequentialAgent("s", [node("a")]))])


def test_what_is_no_agent_is_told() -> None:
    def plain(_ctx: InvocationContext) -> None: ...

    a = node("a")
    assert problems((a, [plain, None]), (a, START)) == [
        f"edges[0] names {plain!r:.80}, which is no agent; make it one with @agent",
        "edges[0] names None, which is no agent",
        "edges[1] leads to START, where nothing leads to",
    ]


@pytest.mark.parametrize("edges", ["ab", {1, 2}, 7])
def test_edges_are_a_list(edges: Any) -> None:
    with pytest.raises(GraphError, match="edges is a list, not"):
        GraphAgent("g", edges)


def test_an_empty_graph_is_refused() -> None:
    assert problems() == ["it has no nodes: give it edges, or nodes=[...]"]


# ---------------------------------------------------------------------------------------- cycles


def test_a_way_round_without_a_bound_is_told_node_by_node() -> None:
    a, b, c, d = letters("abcd")
    assert problems((a, b, c, b), (c, d)) == [
        (
            "b -> c -> b comes round without a bound; write the edge that leads back as "
            "Edge(..., max_times=...)"
        )
    ]


def test_a_condition_is_no_bound() -> None:
    a, b = letters("ab")
    (found,) = problems((a, b), Edge(b, a, when="again"))
    assert found.startswith("a -> b -> a comes round without a bound")


def test_a_node_that_leads_to_itself_is_a_way_round() -> None:
    (a,) = letters("a")
    assert problems((a, a))[0].startswith("a -> a comes round")


def test_a_bound_on_an_edge_that_closes_no_cycle_is_told() -> None:
    a, b = letters("ab")
    assert problems(Edge(a, b, max_times=2)) == [
        "the edge from 'a' to 'b' has max_times, and closes no cycle: nothing leads from 'b' to 'a'"
    ]


@pytest.mark.parametrize("most", [0, -1, 1.0, True, "3"])
def test_a_bound_is_a_whole_number(most: Any) -> None:
    a, b = letters("ab")
    found = problems((a, b), Edge(b, a, max_times=most))
    assert f"max_times of edges[1] is a whole number from 1 on, not {most!r}" in found


def test_loops_that_overlap_are_told() -> None:
    a, b, c, d = letters("abcd")
    assert problems((a, b, c, d), Edge(c, a, max_times=1), Edge(d, b, max_times=1)) == [
        "the loops c -> a and d -> b overlap: one must lie inside the other, or apart from it"
    ]


def test_two_edges_back_between_the_same_nodes_are_told() -> None:
    a, b = letters("ab")
    again = Edge(b, a, when="x", max_times=1), Edge(b, a, when="y", max_times=2)
    assert problems((a, b), *again) == [
        "two edges lead back from 'b' to 'a'; write one, with when=[...]"
    ]


def test_loops_that_wait_for_each_other_are_told() -> None:
    a, x, b, c, y, d = letters("axbcyd")
    found = problems(
        (a, x, b), Edge(b, a, max_times=1), (c, y, d), Edge(d, c, max_times=1), (a, y), (c, x)
    )
    assert found[0].startswith("x, b, y, d can never all start: what leaves the loops")


def test_a_loop_that_may_want_to_go_on_needs_another_way() -> None:
    a, b, c = letters("abc")
    (found,) = problems((a, b), Edge(b, a, when="x", max_times=2), Edge(b, c, when="y"))
    assert found == (
        "b -> a is taken 2 times at most, and 'b' may want it once more: "
        "give 'b' an edge with default=True, which is then taken"
    )


# ---------------------------------------------------------------------------------- contradictions


def test_an_edge_is_taken_always_or_under_a_condition() -> None:
    a, b = letters("ab")
    (found,) = problems((a, b), Edge(a, b, when="x"))
    assert found.startswith("'a' leads to 'b' both in any case and under a condition")


def test_several_defaults_are_told() -> None:
    a, b, c = letters("abc")
    (found,) = problems(Edge(a, b, default=True), Edge(a, c, default=True))
    assert found.startswith("'a' has several defaults")


def test_a_default_has_no_condition_and_what_only_orders_no_options() -> None:
    a, b = letters("ab")
    found = problems(Edge(a, b, when="x", default=True), Edge(a, b, when="x", order_only=True))
    assert found == [
        "edges[0] has `when` and `default`; write two edges",
        "edges[1] is order_only, and so takes no other options",
    ]


@pytest.mark.parametrize("when", [object, letters("a")[0], float("nan")])
def test_a_condition_is_a_value_or_a_plain_function(when: Any) -> None:
    a, b = node("x"), node("y")
    if when is object:

        async def when(_output: object) -> bool:
            return True

    assert "`when` of edges[0]" in problems(Edge(a, b, when=when))[0]


def test_a_switch_has_cases_and_a_selection_targets() -> None:
    a, b = letters("ab")
    assert problems(Switch(a, {}), Select(a, []), Switch(a, [b]), nodes=[b]) == [  # type: ignore[list-item]  # refused
        "edges[0] is a Switch without cases",
        "edges[1] has an empty list of nodes",
        "case 0 of edges[2] is no pair of `when` and target",
    ]


def test_what_start_does_not_lead_to_is_unreachable() -> None:
    a, b, c, d = letters("abcd")
    assert problems((START, a, b), (c, d)) == [
        (
            "'c', 'd' cannot be reached from START; "
            "without START, every node starts at once that no edge leads to"
        )
    ]


def test_what_starts_with_the_graph_waits_for_nobody() -> None:
    a, b = letters("ab")
    (found,) = problems((START, [a, b]), (a, b))
    assert found.startswith("'b' starts with the graph, and waits for another node")


def test_an_order_that_goes_round_is_told() -> None:
    a, b, c = letters("abc")
    (found,) = problems(Ordered(a, [b, c]), Ordered([c, b], node("d")))
    assert "comes round without a bound" in found


# ----------------------------------------------------------------------------------------- types


@attrs.frozen
class Report:
    """What a join may take."""

    b: str
    c: int


def typed(name: str, takes: Any, gives: Any) -> Agent:
    async def work(ctx: InvocationContext, value: Any) -> Any: ...

    work.__annotations__ = {"value": takes, "return": gives}
    return agent(work, name=name)


def test_an_output_that_never_fits_the_input_it_feeds_is_told() -> None:
    a, b = typed("a", int, str), typed("b", int, int)
    assert problems((a, b)) == [
        "the output of 'a' never fits the input of 'b': text is given, and a whole number is needed"
    ]


def test_what_is_not_annotated_fits() -> None:
    a, b, c = typed("a", int, Any), typed("b", int, str | int), typed("c", int, int)
    GraphAgent("g", [(a, b, c)])


def test_each_source_of_a_list_must_fit_its_items() -> None:
    b, c, d = typed("b", int, str), typed("c", int, int), typed("d", list[int], int)
    (found,) = problems(([b, c], d))
    assert found == (
        "the output of 'b' and 'c' never fits the input of 'd': [0]: "
        "text is given, and a whole number is needed"
    )


def test_a_class_has_a_field_for_each_source() -> None:
    b, c, e = typed("b", int, str), typed("c", int, str), typed("e", int, str)
    d = typed("d", Report, int)
    assert problems(([b, c], d))[0].endswith("c: text is given, and a whole number is needed")
    assert problems(([b, e], d))[0].endswith("there is no 'c' in what is given")


def test_two_certain_sources_for_a_node_that_takes_one_are_told() -> None:
    b, c, d = typed("b", int, str), typed("c", int, str), typed("d", str, str)
    assert problems(([b, c], d)) == [
        (
            "'d' is always fed by 'b' and 'c', and takes one output; "
            "annotate its input as list[...] or dict[str, ...]"
        )
    ]


def test_what_a_loop_brings_must_fit_as_well() -> None:
    a, b = typed("a", int, int), typed("b", int, str)
    assert problems((a, b), Edge(b, a, max_times=1))[0].startswith(
        "the output of 'b' never fits the input of 'a'"
    )


# --------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("barrier", [FirstSuccess(), Quorum(2)])
def test_a_policy_that_has_enough_of_some_is_for_a_parallel_agent(barrier: Any) -> None:
    with pytest.raises(TreeError, match="make a ParallelAgent with that policy one of the nodes"):
        GraphAgent("g", nodes=letters("ab"), barrier=barrier)


@pytest.mark.parametrize("most", [0, True, 1.5])
def test_a_limit_is_a_whole_number(most: Any) -> None:
    with pytest.raises(TreeError, match="max_concurrency of 'g' must be 1 or more"):
        GraphAgent("g", nodes=letters("ab"), max_concurrency=most)


def test_a_guard_has_no_edges() -> None:
    a, b = letters("ab")
    assert problems((a, b), guards=[a, node("b"), 7]) == [
        "guard 'a' runs before all nodes, and so has no edges; leave them out, or the guard",
        "a guard and a node are called 'b'",
        "guards[2] is no agent but 7",
    ]


def test_documents_are_checked() -> None:
    a, b = letters("ab")
    documents: list[Any] = [
        Document("plan", writers=[a], appenders=[a]),
        Document("plan", readers=["c"], key="k"),
        Document("", key="k"),
        "plan",
    ]
    assert problems((a, b), documents=documents) == [
        "'a' cannot both write documents[0] anew and add to it",
        "name of documents[2] is text, not ''",
        "documents[3] is 'plan', which is no Document",
        "there is no node 'c'",
        "two documents are called 'plan'",
        "two documents are kept under the state key 'k'",
    ]


def test_the_shape_of_a_graph_changes_with_its_edges() -> None:
    a, b = letters("ab")
    graphs = [
        GraphAgent("g", [(a, b)]),
        GraphAgent("g", [(b, a)], nodes=[a, b]),
        GraphAgent("g", [Edge(a, b, when="x")]),
        GraphAgent("g", [Edge(a, b, order_only=True)]),
        GraphAgent("g", [(a, b), Edge(b, a, max_times=1)]),
        GraphAgent("g", [(a, b), Edge(b, a, max_times=2)]),
        GraphAgent("g", [(a, b)], guards=[node("c")]),
        GraphAgent("g", [(a, b)], documents=[Document("d", writers=[a])]),
        GraphAgent("g", [(a, b)], barrier=BestEffort()),
    ]
    assert len({graph.shape for graph in graphs}) == len(graphs)


class Unmade(Agent):
    """An agent whose constructor has not ended."""

    def __init__(self) -> None: ...

    async def run(self, ctx: InvocationContext) -> None: ...


def test_an_agent_that_is_not_made_yet_is_told() -> None:
    (found,) = problems((node("a"), Unmade()))
    assert found.startswith("edges[0], a Unmade, is no agent yet")


def test_a_graph_stands_in_a_tree_like_any_agent() -> None:
    a, b = letters("ab")
    graph = GraphAgent("g", [(a, b)], guards=[node("c")])
    assert [one.name for one in graph.sub_agents] == ["c", "a", "b"]
    assert ParallelAgent("p", [graph]).find_agent("b") is b


@attrs.frozen
class NeedsReview:
    """What a writer would need before anybody has reviewed anything."""

    facts: str
    review: str


def test_what_comes_back_has_not_come_in_the_first_round() -> None:
    facts, write = typed("facts", int, str), typed("write", NeedsReview, str)
    review = typed("review", str, str)
    (found,) = problems((facts, write, review), Edge(review, write, max_times=1))
    assert found == (
        "'review' leads back to 'write', and has said nothing in the first round: "
        "give the field 'review' of its input a default"
    )


def test_what_a_route_may_leave_out_must_fit_when_it_comes() -> None:
    a, b, c = typed("a", int, str), typed("b", str, int), typed("c", str, int)
    d = typed("d", Report, int)
    (found,) = problems(Select(a, [b, c]), ([b, c], d))
    assert found.endswith("b: a whole number is given, and text is needed")
