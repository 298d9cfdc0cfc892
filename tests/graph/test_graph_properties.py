"""Drawn graphs against an independent oracle, and against themselves under other conditions.

The oracle knows each start to the moment: so that a node starts when its own sources have ended,
and waits for nobody else, is one comparison among others. What the oracle itself says of graphs
whose outcome is plain, and that these properties find bugs, is in ``test_graph_oracle.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any, Final

import attrs
import pytest
import trio
from hypothesis import assume, given
from hypothesis import strategies as st

from parallel_agent import BestEffort, InMemorySessionService, Runner, WaitAll
from parallel_agent.testing import emits, scripted
from tests.graph.drawn_graphs import CALM, Allowed, Seen, forks, made, nets, perform, rings
from tests.graph.graph_oracle import (
    Began,
    Beside,
    Chain,
    Each,
    Leaf,
    Life,
    Net,
    Node,
    Ring,
    Row,
    TieError,
    Turn,
    expect,
)
from tests.kernel.scripted import check_run
from tests.support.drawing import fewer
from tests.support.timing import clock_with_horizon

PATIENT: Final = Allowed(escalations=False, breaks=False, barriers=(WaitAll(), BestEffort()))
"""Where nobody ends others, what comes of a graph does not depend on how long anything takes."""


def expected(node: Node) -> Life:
    """Return what the oracle says, if it knows."""
    try:
        return expect(node)
    except TieError:
        assume(False)  # its only argument
        raise


def agrees(net: Net) -> None:
    """Assert that a run is what the oracle says."""
    life, seen = expected(net), perform(net)
    assert not seen.twice
    assert seen.began == life.began
    assert sorted(seen.said) == sorted(life.said)
    assert (seen.status, seen.output, seen.failure) == (life.status, life.output, life.failure)
    assert seen.end == life.end
    assert seen.ends == life.ends


def agrees_but_for_time(net: Net, seen: Seen) -> None:
    """Assert that a run is what the oracle says, whenever it happened."""
    life = expected(net)
    assert not seen.twice
    assert _timeless(seen.began) == _timeless(life.began)
    assert (seen.status, seen.output, seen.failure) == (life.status, life.output, life.failure)
    assert seen.ends == life.ends
    assert seen.state == _counted(net, life)


def _timeless(began: Mapping[str, Began]) -> dict[str, Began]:
    return {path: attrs.evolve(one, at=0.0) for path, one in began.items()}


def _counted(net: Net, life: Life) -> dict[str, int]:
    """Return what the leaves have counted: how often each has ended well."""
    ended = Counter(text for _, (_, text) in life.said)
    found = {name: ended[f"{name} ends"] for name in _counting(net)}
    return {name: count for name, count in found.items() if count}


def _counting(node: Node) -> Iterator[str]:
    if isinstance(node, Leaf):
        yield node.name
    elif not isinstance(node, Each):  # whose workers would overwrite each other's
        for child in node.nodes if isinstance(node, Net) else node.children:
            yield from _counting(child)


def limited(net: Net, limit: int) -> None:
    """Assert that a limit is kept, and makes no other difference than when something happens."""
    seen = perform(attrs.evolve(net, limit=limit))
    agrees_but_for_time(net, seen)
    changes: list[tuple[float, int]] = []
    for path, duration in seen.durations.items():
        start = seen.began[path].at
        changes += [(start, 1), (start + duration, -1)]
    assert max(accumulate(change for _, change in sorted(changes)), default=0) <= limit


# Whole runs.


@given(nets())
def test_a_graph_runs_as_the_oracle_says_to_the_moment(net: Net) -> None:
    agrees(net)


@given(nets(Allowed(failures=False, escalations=False, breaks=False, composites=False)))
def test_a_graph_of_leaves_that_complete_runs_as_the_oracle_says(net: Net) -> None:
    agrees(net)


@given(forks())
def test_a_fork_leads_where_the_oracle_says(net: Net) -> None:
    agrees(net)


@given(rings())
def test_loops_run_as_often_as_the_oracle_says(net: Net) -> None:
    agrees(net)


@fewer(2)
@given(nets(PATIENT), st.lists(st.sampled_from([0.0, 0.5, 3.0]), min_size=1, max_size=4))
def test_what_comes_of_a_graph_does_not_depend_on_its_reader(net: Net, pauses: list[float]) -> None:
    life, seen = expected(net), perform(net, pauses=pauses)
    assert not seen.twice
    assert _timeless(seen.began) == _timeless(life.began)
    assert (seen.status, seen.output, seen.failure) == (life.status, life.output, life.failure)
    assert seen.ends == life.ends


@fewer(2)
@given(nets(PATIENT), st.integers(1, 3))
def test_a_limit_delays_nodes_and_changes_nothing_else(net: Net, limit: int) -> None:
    limited(net, limit)


# What stands around it makes no difference.

_WRAPS: Final[dict[str, Callable[[Net], Node]]] = {
    "sequence": lambda net: Row("w", (net,)),
    "parallel": lambda net: Beside("w", (net,)),
    "loop": lambda net: Ring("w", (net,), times=1),
    "graph": lambda net: Net("w", (net,)),
}


@fewer(2)
@given(nets(attrs.evolve(Allowed(), nodes=6), depth=1), st.sampled_from(sorted(_WRAPS)))
def test_a_nested_graph_gives_what_it_gives_alone(net: Net, how: str) -> None:
    expected(net)
    alone, nested = perform(net), perform(_WRAPS[how](net))
    assert _unwrapped(nested.began) == alone.began
    assert _without_wrap(nested.failure) == alone.failure
    if alone.failure is None:
        is_kept = how in ("sequence", "loop")
        assert nested.output == (alone.output if is_kept else {"graph": alone.output}) or (
            how == "graph" and nested.output == alone.output
        )


def _without_wrap(value: Any) -> Any:
    if isinstance(value, tuple | list | frozenset):
        return type(value)(map(_without_wrap, value))
    is_path = isinstance(value, str) and value.startswith("w/")
    return value.removeprefix("w/").replace("graph@1", "graph", 1) if is_path else value


def _unwrapped(began: Mapping[str, Began]) -> dict[str, Began]:
    return {
        _without_wrap(path): attrs.evolve(one, saw=_without_wrap(one.saw))
        for path, one in began.items()
        if path != "w"
    }


# Cancelled.


async def _cancelled(net: Net, at: float) -> None:
    service = InMemorySessionService()
    runner = Runner(made(net), session_service=service)
    before = trio.lowlevel.current_statistics().tasks_living
    with trio.move_on_after(at) as scope:
        async with runner.open(session_id="s") as run:
            async for _ in run:
                pass
    assert scope.cancelled_caught
    assert trio.lowlevel.current_statistics().tasks_living == before
    await check_run(runner, run)
    after = Runner(scripted("after", emits("done")), session_service=service)
    assert (await after.run(session_id="s")).text == "done"
    assert trio.current_time() == at


@fewer(2)
@given(nets(), st.integers(0, 40))
def test_a_cancelled_graph_leaves_no_task_and_a_valid_session(net: Net, ticks: int) -> None:
    at = ticks / 4 + 1 / 4096  # a moment at which nothing happens
    assume(at < expected(net).end)
    trio.run(_cancelled, net, at, clock=clock_with_horizon())


# Plain examples.


def _leaf(name: str, beats: int = 1, **options: Any) -> Leaf:
    return Leaf(name, (Turn(beats, **options),))


def test_a_grandchild_of_a_fast_branch_does_not_wait_for_a_slow_one() -> None:
    nodes = (_leaf("root"), _leaf("fast"), _leaf("slow", 50), _leaf("grandchild"), _leaf("join"))
    ways = (
        Chain((("root",), ("fast", "slow"), ("join",))),
        Chain((("fast",), ("grandchild",))),
    )
    seen = perform(Net("graph", nodes, ways))
    starts = {path: began.at for path, began in seen.began.items()}
    assert starts["graph/grandchild"] == 2
    assert starts["graph/join"] == 51


@pytest.mark.parametrize("length", [1, 2, 7])
def test_a_join_behind_ways_of_unequal_length_fires_once(length: int) -> None:
    long = [f"n{number}" for number in range(length)]
    nodes = [_leaf(name) for name in ["root", *long, "join"]]
    ways = (Chain((("root",), ("join",))), Chain(tuple((one,) for one in ["root", *long, "join"])))
    seen = perform(Net("graph", tuple(nodes), ways))
    assert not seen.twice
    join = seen.began["graph/join"]
    assert (join.at, join.input) == (
        length + 1,
        {"root": "root:1", long[-1]: f"{long[-1]}:1"},
    )


def test_a_join_behind_an_empty_map_fires_with_an_empty_list() -> None:
    nodes = (_leaf("items", output=[]), Each("each", _leaf("worker")), _leaf("join"))
    ways = (Chain((("items",), ("each",), ("join",))), Chain((("items",), ("join",))))
    seen = perform(Net("graph", nodes, ways))
    assert seen.began["graph/join"].input == {"each": [], "items": []}
    assert sorted(seen.began) == ["graph", "graph/each", "graph/items", "graph/join"]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_graph_under_a_map_runs_once_for_each_item(count: int) -> None:
    inner = Net("inner", (_leaf("a"), _leaf("b")), (Chain((("a",), ("b",))),))
    maker = _leaf("items", output=list(range(count)))
    each = Each("each", _leaf("worker"))
    tree = Row(
        "top", (Net("graph", (maker, each, inner), (Chain((("items",), ("each", "inner"))),)),)
    )
    seen = perform(tree)
    workers = [path for path in seen.began if path.startswith("top/graph/each/")]
    assert len(workers) == count
    assert seen.began["top/graph/inner/a"].input == list(range(count))


@pytest.mark.deep
@given(nets() | nets(CALM) | nets(PATIENT, depth=3))
def test_many_graphs_run_as_the_oracle_says(net: Net) -> None:
    agrees(net)
