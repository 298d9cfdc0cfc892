"""Hypothesis strategies of cores: larger trees, of which only some schedules can be run.

Everything shrinks towards one worker that says one thing, read to the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from hypothesis import strategies as st

from parallel_agent import (
    Barrier,
    BestEffort,
    Escalate,
    FailFast,
    FirstSuccess,
    Quorum,
    WaitAll,
)
from tests.support.cores import Choice, Core, Fan, Node, OnCancel, Ring, Row, Way, Worker

__all__ = ["cores"]

ACTS = ["say", "write", "nap", "share", "look", "say", "stop", "ask"]
ENDS = ["", "", "win", "fail", "stop"]
CLEAN_UPS = ["", "say", "nap say", "write say say"]
ANSWERS: list[tuple[Choice, ...]] = [("skip",), ("abort",), ("retry", "skip"), ("retry", "abort")]


@st.composite
def _workers(draw: st.DrawFn, name: str) -> Worker:
    acts = [*draw(st.lists(st.sampled_from(ACTS[:6]), max_size=3)), draw(st.sampled_from(ENDS))]
    again = ""
    tries = 1
    if "fail" in acts and draw(st.booleans()):
        again = draw(st.sampled_from(["say", "write win", "nap fail"]))
        tries = draw(st.integers(1, 2))
    return Worker(
        name,
        " ".join(acts),
        clean_up=draw(st.sampled_from(CLEAN_UPS)),
        when_cancelled=cast("OnCancel", draw(st.sampled_from(["passes", "returns", "fails"]))),
        again=again,
        tries=tries,
    )


@st.composite
def _policies(draw: st.DrawFn, width: int) -> Barrier:
    simple = [FailFast(), WaitAll(), BestEffort(), FirstSuccess(), Escalate()]
    return draw(st.sampled_from([*simple, Quorum(draw(st.integers(1, width)))]))


@st.composite
def cores(draw: st.DrawFn) -> Core:
    """Draw a core of up to three levels and a dozen workers."""
    names = (f"{letter}{number}" for number in ("", "2", "3") for letter in "abcdefghijklm")
    tree = draw(_fans(names, 2))
    way: Way = draw(st.sampled_from(["end", "end", "break", "raise", "scope", "run.cancel"]))
    at = 0 if way == "end" else draw(st.integers(0, 6))
    return Core(tree, way, at, draw(st.sampled_from(ANSWERS)))


def _fans(names: Iterator[str], below: int) -> st.SearchStrategy[Fan]:
    return _fan(names, below)


@st.composite
def _fan(draw: st.DrawFn, names: Iterator[str], below: int) -> Fan:
    kind = draw(st.sampled_from(["parallel", "parallel", "parallel", "map", "open"]))
    name = next(names)
    if kind == "map":
        width = draw(st.integers(1, 3))
        limit = draw(st.sampled_from([None, 1, 2]))
        member = draw(_nodes(names, 0))
        return Fan(name, [member], draw(_policies(width)), limit, "map", width)
    members = [draw(_nodes(names, below - 1)) for _ in range(draw(st.integers(1, 3)))]
    policy = draw(_policies(len(members)))
    if kind == "open":
        return Fan(name, members, FailFast(), None, "open")
    return Fan(name, members, policy, draw(st.sampled_from([None, None, 1, 2])))


@st.composite
def _nodes(draw: st.DrawFn, names: Iterator[str], below: int) -> Node:
    kind = draw(st.sampled_from([Worker, Worker, Fan, Row, Ring])) if below > 0 else Worker
    if kind is Worker:
        return draw(_workers(next(names)))
    if kind is Fan:
        return draw(_fan(names, below))
    name = next(names)
    members = [draw(_nodes(names, below - 1)) for _ in range(draw(st.integers(1, 2)))]
    if kind is Row:
        return Row(name, members)
    return Ring(name, members, draw(st.integers(1, 2)))
