"""Exploring schedules of graphs: a planted race is found, and none where an edge orders the two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from parallel_agent import Agent, Edge, GraphAgent, Ordered, Result
from parallel_agent.testing import ExplorationError, adds, emits, explore, scripted

MakeTree = Callable[[], Agent]


def _agents() -> tuple[Agent, Agent, Agent, Agent]:
    # Each reads the number, waits until what it said is acknowledged, and writes it back.
    left, right = (scripted(name, adds("n"), emits(name)) for name in ("left", "right"))
    return scripted("first", emits("first")), left, right, scripted("last", emits("last"))


def _unordered() -> Agent:
    first, left, right, last = _agents()
    return GraphAgent("graph", [(first, [left, right], last)])


def _ordered_by_an_edge() -> Agent:
    first, left, right, last = _agents()
    return GraphAgent("graph", [(first, [left, right], last), Edge(left, right, order_only=True)])


def _ordered_as_listed() -> Agent:
    first, left, right, last = _agents()
    return GraphAgent("graph", [Ordered(first, [left, right]), ([left, right], last)])


def _ordered_by_a_way_around() -> Agent:
    first, left, right, last = _agents()
    between = scripted("between", emits("between"))
    return GraphAgent("graph", [(first, [left, right], last), (left, between, right)])


def _ordered_by_a_loop() -> Agent:
    _, left, _, last = _agents()
    return GraphAgent("graph", [(left, last), Edge(left, left, max_times=1)])


ORDERED: Final[list[MakeTree]] = [
    _ordered_by_an_edge,
    _ordered_as_listed,
    _ordered_by_a_way_around,
    _ordered_by_a_loop,
]


def _counts_both(result: Result) -> None:
    assert result.state["n"] == 2


def test_a_lost_update_of_two_unordered_nodes_is_found() -> None:
    with pytest.raises(ExplorationError) as raised:
        explore(_unordered, _counts_both)
    assert {race.key for race in raised.value.races} == {"n"}


def test_a_race_of_two_unordered_nodes_is_named_with_their_branches() -> None:
    (race, *_) = explore(_unordered).races
    branches = {race.first.branch, race.second.branch}
    assert branches == {"graph.left", "graph.right"}


@pytest.mark.parametrize("make_tree", ORDERED)
def test_nodes_that_an_edge_orders_have_no_race_on_any_schedule(make_tree: MakeTree) -> None:
    exploration = explore(make_tree, _counts_both)
    assert exploration.exhausted
    assert exploration.races == ()


def test_a_join_fires_once_and_last_on_every_schedule() -> None:
    orders: set[tuple[str, ...]] = set()

    def make_tree() -> Agent:
        first, last, *others = (scripted(name, emits(name)) for name in "flabc")
        a, b, c = others
        return GraphAgent("graph", [(first, [a, b], last), (a, c)])

    def check(result: Result) -> None:
        texts = [event.text for event in result.events if event.text]
        assert sorted(texts) == ["a", "b", "c", "f", "l"]
        assert texts.index("l") > max(texts.index("a"), texts.index("b"))
        assert texts.index("c") > texts.index("a")
        orders.add(tuple(texts))

    exploration = explore(make_tree, check)
    assert exploration.exhausted
    assert exploration.races == ()
    assert len(orders) == 5  # abcl, ablc, acbl, bacl, balc


def test_a_node_that_waits_for_less_is_found_on_some_schedule() -> None:
    def make_tree() -> Agent:
        first, last, *others = (scripted(name, emits(name)) for name in "flab")
        return GraphAgent("graph", [(first, others), (others[0], last)])

    def check(result: Result) -> None:
        texts = [event.text for event in result.events if event.text]
        assert texts[-1] == "l"

    with pytest.raises(ExplorationError):
        explore(make_tree, check)
