"""A graph that is cut off anywhere, and gone on with, comes to what it would have come to.

Cut off after each event, also between an end and its record; see ``tests.support.resuming`` for how
that is done, and what is compared: status, error, outputs, state, events; what ran again; and what
each attempt could see when it began.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parallel_agent import BestEffort, FailFast, WaitAll
from parallel_agent.graph import engine
from parallel_agent.past import Past
from parallel_agent.replay import Replay
from tests.graph.drawn_graphs import Allowed, made, nets, rings
from tests.graph.graph_oracle import After, Back, Chain, Cond, Each, End, Leaf, Net, Row, Turn
from tests.kernel.scripted import run_virtual
from tests.support.drawing import fewer
from tests.support.resuming import FIRST, cut_log, differences, play, resume, troubles


def steady(node: Any) -> Any:
    """Return a node in which all items of a map come to the same.

    A run keeps the newest output by the name of the agent, and which of them that is may be a race.
    """
    match node:
        case Each():
            turns = tuple(attrs.evolve(turn, output="item") for turn in node.worker.turns)
            return attrs.evolve(node, worker=attrs.evolve(node.worker, turns=turns))
        case Net():
            return attrs.evolve(node, nodes=tuple(map(steady, node.nodes)))
        case Leaf():
            return node
        case _:
            return attrs.evolve(node, children=tuple(map(steady, node.children)))


FEW: Final = Allowed(escalations=False, breaks=False, nodes=5)

# A failure that cancels others leaves what they had done by then: so either none fails, or all go
# on. What ends others is drawn below, where it ends the same in every order.
PEACEFUL: Final = st.one_of(
    nets(attrs.evolve(FEW, failures=False), depth=1),
    nets(attrs.evolve(FEW, barriers=(WaitAll(), BestEffort())), depth=1),
    rings(breaks=False),
).map(steady)


_LITTLE: Final = attrs.evolve(
    FEW, failures=False, composites=False, nodes=3, barriers=(FailFast(),)
)


@st.composite
def ended(draw: st.DrawFn) -> Net:
    """Draw a graph that one of its nodes ends, when all others have ended but for one that waits.

    So whoever is started anew after a cut, it ends the same.
    """
    net = draw(nets(_LITTLE, depth=0))
    names = tuple(node.name for node in net.nodes)
    last = Leaf("last", (Turn(1, says=1, end=draw(st.sampled_from(_ENDS))),))
    ways = (*net.ways, After(names, ("last",)), Chain((("waits",), ("never",))))
    waits = Leaf("waits", (Turn(1_000, says=1),))
    return attrs.evolve(net, nodes=(*net.nodes, last, waits, Leaf("never")), ways=ways)


_ENDS: Final[list[End]] = ["fails", "escalates"]


def check(net: Net | Row, **options: Any) -> None:
    found = run_virtual(lambda: troubles(lambda: made(net), **options))
    assert found == []


@settings(fewer(5), suppress_health_check=[HealthCheck.too_slow])
@given(PEACEFUL)
def test_a_graph_that_was_cut_off_comes_to_the_same(net: Net) -> None:
    check(net)


@settings(fewer(15), suppress_health_check=[HealthCheck.too_slow])
@given(nets(_LITTLE, depth=0))
def test_a_graph_that_was_cut_off_twice_comes_to_the_same(net: Net) -> None:
    check(net, twice=True)


@settings(fewer(10), suppress_health_check=[HealthCheck.too_slow])
@given(PEACEFUL, st.integers(1, 2))
def test_a_graph_with_a_limit_that_was_cut_off_comes_to_the_same(net: Net, limit: int) -> None:
    check(attrs.evolve(net, limit=limit))


@settings(fewer(10), suppress_health_check=[HealthCheck.too_slow])
@given(ended())
def test_what_has_ended_the_others_ends_them_after_a_cut(net: Net) -> None:
    check(net)


# Plain examples.


def _leaf(name: str, beats: int = 1, **options: Any) -> Leaf:
    return Leaf(name, (Turn(beats, says=1, **options),))


JOIN: Final = Net(
    "graph",
    (_leaf("a"), _leaf("b", 2), _leaf("c", 3), Leaf("join", (Turn(1, says=1),), "list")),
    (Chain((("a", "b", "c"), ("join",))),),
)
LOOP: Final = Net(
    "graph",
    (
        _leaf("plan"),
        _leaf("left"),
        _leaf("right", 2),
        Leaf("review", (Turn(1, "again"), Turn(2, "again"), Turn(1, "good"))),
        _leaf("publish"),
    ),
    (
        Chain((("plan",), ("left", "right"), ("review",))),
        Back("review", "plan", 4, ("again",)),
        Cond("review", ("publish",), None),
        Chain((("left",), ("publish",))),
    ),
)
FAILED: Final = attrs.evolve(
    JOIN, nodes=(JOIN.nodes[0], _leaf("b", 2, end="fails"), *JOIN.nodes[2:]), barrier=BestEffort()
)
MAPPED: Final = Net(
    "graph",
    (
        _leaf("items", output=[1, 2]),
        _leaf("none", output=[]),
        Each("e", Leaf("w", (Turn(1, says=1), Turn(2, says=1)))),
        Each("f", _leaf("v")),
        _leaf("join"),
    ),
    (Chain((("items",), ("e",), ("join",))), Chain((("none",), ("f",), ("join",)))),
)


@pytest.mark.parametrize("net", [JOIN, LOOP, FAILED, MAPPED], ids=["join", "loop", "failed", "map"])
def test_a_plain_graph_that_was_cut_off_comes_to_the_same(net: Net) -> None:
    check(Row("top", (net, _leaf("after"))))


def _joins(net: Net, join: str) -> list[int]:
    """Return how often a join has ended, in the whole log, for each place of a cut."""

    async def main() -> list[int]:
        whole = await play(made(net))
        found: list[int] = []
        for at in range(FIRST, len(whole.lines) + 1):
            again = await resume(made(net), cut_log(whole, at))
            assert differences(again, whole) == []
            texts = Counter(event.text for event in again.result.events)
            found.append(texts[f"{join} ends"])
        return found

    return run_virtual(main)


@pytest.mark.parametrize("net", [JOIN, FAILED], ids=["join", "failed"])
def test_a_join_that_was_half_filled_fires_once(net: Net) -> None:
    assert set(_joins(net, "join")) == {1}


def test_what_follows_a_loop_fires_once_wherever_it_was_cut_off() -> None:
    assert set(_joins(LOOP, "publish")) == {1}


# ----------------------------------------------------------------------- the checker can be trusted


def _none(*_args: object) -> Any:
    return None


def _by_position(patch: pytest.MonkeyPatch) -> None:
    # What had ended starts before what had not, when a run is resumed.
    right = engine._GraphRun._fork

    def fork(self: Any, start: Any) -> Any:
        forked = right(self, start)
        if forked is not None:
            forked[1].lane.branch.position = forked[0]
        return forked

    patch.setattr(engine._GraphRun, "_fork", fork)


def _replaced(owner: type, name: str, by: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(owner, name, by)


SHIFTED: Final = Net(
    "graph", (_leaf("slow", 9), _leaf("a"), _leaf("b")), (Chain((("a",), ("b",))),)
)


@pytest.mark.parametrize(
    ("net", "plant", "says"),
    [
        (FAILED, _replaced(Past, "ended", _none), "run, and should not"),
        (FAILED, _replaced(Replay, "line_of", _none), "saw"),
        (SHIFTED, _by_position, "saw"),
    ],
    ids=["records are lost", "history is lost", "bits are shifted"],
)
def test_the_checker_finds_what_is_broken(
    net: Net,
    plant: Callable[[pytest.MonkeyPatch], None],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check(net)
    plant(monkeypatch)
    found = run_virtual(lambda: troubles(lambda: made(net)))
    assert any(says in one for one in found), found
