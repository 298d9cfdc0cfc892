"""One tree, one sequence of events, whatever the host: read to its end, or left at any event."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parallel_agent import Agent, FailFast
from tests.support.hosts import HOSTS, Host, Reading, Seen, on_trio
from tests.support.turns import Leaf, Node, stage, trees

WIDE = Node(
    "wide",
    "parallel",
    (
        Node(
            "line",
            "sequential",
            (Leaf("a", ("say", "write", "say"), True), Leaf("b", ("read", "whisper"), False)),
            FailFast(),
        ),
        Node(
            "again",
            "loop",
            (Leaf("c", ("write", "say"), False), Leaf("d", ("say", "stop"), True)),
            FailFast(),
        ),
        Leaf("e", ("say", "say", "fail"), False),
        Leaf("f", ("whisper", "say", "say", "say"), True),
    ),
    FailFast(),
)
"""A tree in which much can happen."""


@pytest.mark.parametrize("host", HOSTS.values(), ids=list(HOSTS))
@given(trees(), st.integers(0, 1_000))
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40)
def test_a_drawn_tree_gives_the_same_events_as_under_trio(
    host: Host, tree: Leaf | Node, seed: int
) -> None:
    reading = Reading("end", 0)
    assert host(stage(tree, seed), reading) == on_trio(stage(tree, seed), reading)


@cache
def wide_on_trio(seed: int, reading: Reading) -> Seen:
    """What is seen of `WIDE` under trio: the same for all hosts to be compared with."""
    return on_trio(stage(WIDE, seed), reading)


@pytest.mark.parametrize("host", HOSTS.values(), ids=list(HOSTS))
@pytest.mark.parametrize("way", ["break", "raise", "cancel", "scope"])
@pytest.mark.parametrize("seed", range(3))
def test_a_run_left_at_any_event_is_left_as_under_trio(host: Host, way: str, seed: int) -> None:
    whole = wide_on_trio(seed, Reading("end", 0))
    for at in range(1, len(whole.delivered) + 1):
        reading = Reading(way, at)  # type: ignore[arg-type]  # the parameters above
        assert host(stage(WIDE, seed), reading) == wide_on_trio(seed, reading)


def test_the_order_depends_on_the_seed_and_on_nothing_else() -> None:
    def order(seed: int) -> tuple[str, ...]:
        return on_trio(stage(WIDE, seed), Reading("end", 0)).delivered

    assert [order(seed) for seed in range(5)] == [order(seed) for seed in range(5)]
    assert len({order(seed) for seed in range(20)}) > 10


@pytest.mark.parametrize(
    "break_it",
    [
        lambda seen: attrs.evolve(seen, delivered=seen.delivered[:-1]),
        lambda seen: attrs.evolve(seen, delivered=(*seen.delivered[1::-1], *seen.delivered[2:])),
        lambda seen: attrs.evolve(seen, recorded=(*seen.recorded, seen.recorded[-1])),
        lambda seen: attrs.evolve(seen, error="None"),
        lambda seen: attrs.evolve(seen, state={**seen.state, "key": "another"}),
    ],
    ids=["one lost", "two swapped", "one twice", "swallowed error", "another state"],
)
def test_the_comparison_notices(break_it: Callable[[Seen], Seen]) -> None:
    def broken(tree: Agent, reading: Reading) -> Seen:
        return break_it(on_trio(tree, reading))

    reading = Reading("end", 0)
    assert broken(stage(WIDE, 1), reading) != on_trio(stage(WIDE, 1), reading)
