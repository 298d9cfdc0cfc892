"""Hypothesis strategies of trees, readers, stores and whole cases.

Everything shrinks towards one leaf that emits one event, read by a prompt reader to the end.
"""

from __future__ import annotations

import functools
import string
from collections.abc import Sequence
from typing import Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st

from parallel_agent.shared_state import OnConflict
from tests.support.running import Case, Reader, Way
from tests.support.scripts import (
    Beside,
    Chain,
    Cleanup,
    Contribute,
    Emit,
    Fail,
    Fan,
    Leaf,
    Look,
    Loop,
    Node,
    Pause,
    Shape,
    Step,
    Within,
    Write,
)

__all__ = [
    "ANYTHING",
    "CALM",
    "WAYS",
    "Allowed",
    "cases",
    "fewer",
    "kept_cases",
    "leaves",
    "readers",
    "stores",
    "trees",
]

KEYS = ("x", "y", "temp:t", "app:z", "user:y")
VALUES = st.one_of(st.integers(0, 2), st.sampled_from(["u", [1], {"k": 1}, None]))
SHAPES: tuple[Shape, ...] = ("generator", "coroutine", "generator class", "coroutine class")
WAYS: tuple[Way, ...] = ("break", "raise", "scope", "run.cancel")


@attrs.frozen(cache_hash=True)
class Allowed:
    """What the leaves of a drawn tree may do, beside emitting, pausing and looking.

    ``kept`` keeps to what has one outcome on kept time: before anything that others notice
    there is a pause in which the task comes to a moment of its own.
    """

    failures: bool = True
    escalations: bool = True
    timeouts: bool = True
    cleanups: bool = True
    background: bool = True
    state: bool = True
    reducers: bool = True
    partial: bool = True
    outputs: bool = True
    temporary: bool = True
    kept: bool = False


_ALPHABET = string.ascii_lowercase

ANYTHING = Allowed()
CALM = Allowed(failures=False, escalations=False, timeouts=False)


@st.composite
def leaves(draw: st.DrawFn, name: str, allowed: Allowed) -> Leaf:
    """Draw a leaf."""
    steps = draw(_steps(allowed, depth=2, fails=6))
    if allowed.kept:
        steps = [Pause(), *steps]
    return Leaf(
        name,
        tuple(steps),
        shape=draw(st.sampled_from(SHAPES)),
        output_key=draw(st.sampled_from([None, f"{name}_out"])) if allowed.outputs else None,
    )


def fewer(divisor: int) -> settings:
    """Return settings for a property whose examples cost much, or that overlaps with others."""
    return settings(max_examples=max(settings().max_examples // divisor, 5))


# Cached: to make a strategy takes longer than to draw from it.


@functools.cache
def _steps(allowed: Allowed, depth: int, *, fails: int = 0) -> st.SearchStrategy[list[Step]]:
    """Draw some steps, of which one in ``fails`` ends in a failure."""
    several = st.lists(_step(allowed, depth), min_size=1, max_size=4)
    if not (fails and allowed.failures):
        return several
    end = st.sampled_from([()] * (fails - 1) + [(Fail(),)])
    return st.tuples(several, end).map(lambda two: [*two[0], *two[1]])


@functools.cache
def _step(allowed: Allowed, depth: int) -> st.SearchStrategy[Step]:
    ways: list[st.SearchStrategy[Step]] = [
        _emits(allowed),
        _pauses(),
        _emits(allowed),
        st.just(Look()),
    ]
    if allowed.state:
        keys = (
            KEYS if allowed.temporary else tuple(key for key in KEYS if not key.startswith("temp:"))
        )
        ways.append(st.builds(Write, st.sampled_from(keys), VALUES))
    if allowed.reducers:
        ways.append(st.builds(Contribute, st.just("sum"), st.integers(1, 3)))
        ways.append(st.builds(Contribute, st.just("all"), st.integers(0, 1)))
    if depth == 0:
        return st.one_of(ways)
    if allowed.timeouts:
        inner = _steps(allowed, depth - 1)
        ways.append(st.builds(Within, st.integers(0, 3), inner))
    if allowed.cleanups:
        ways.append(_cleanups(allowed, depth))
    if allowed.background:
        background = _steps(allowed, depth - 1, fails=8)
        if allowed.kept:
            background = background.map(lambda steps: [Pause(), *steps])
        ways.append(st.builds(Beside, background, _steps(allowed, depth - 1)))
    return st.one_of(ways)


def _cleanups(allowed: Allowed, depth: int) -> st.SearchStrategy[Step]:
    # A clean-up that asks for something is nothing one would write. And an agent that yields, in
    # a clean-up within a clean-up, again and again although it is cancelled, is ended by force.
    inside = attrs.evolve(allowed, escalations=False, cleanups=False)
    after = _steps(inside, depth - 1, fails=3)
    if allowed.kept:
        after = after.map(lambda steps: [Pause(), *steps])
    return st.builds(Cleanup, _steps(allowed, depth - 1, fails=8), after, st.booleans())


def _pauses() -> st.SearchStrategy[Step]:
    return st.builds(Pause, st.integers(0, 3))


@st.composite
def _emits(draw: st.DrawFn, allowed: Allowed) -> Step:
    delta: dict[str, Any] = {}
    if allowed.state and draw(st.booleans()):
        delta["x"] = draw(st.integers(0, 2))
    if allowed.reducers and draw(st.integers(0, 3)) == 3:
        delta["sum"] = draw(st.integers(1, 3))
    chance = st.integers(0, 7)
    return Emit(
        delta,
        escalate=allowed.escalations and draw(chance) == 7,
        partial=allowed.partial and draw(chance) == 7,
        output=draw(st.integers(0, 3)) if allowed.outputs and draw(chance) == 7 else None,
    )


@st.composite
def trees(
    draw: st.DrawFn,
    allowed: Allowed = ANYTHING,
    *,
    names: Sequence[str] = (),
    depth: int = 2,
    kinds: Sequence[type[Node]] = (Fan, Chain, Loop, Fan, Fan),
) -> Node:
    """Draw a tree. ``names`` are used up first, what is below before what is above."""
    unused = iter(names)
    numbered = (f"{letter}{number or ''}" for number in range(10) for letter in _ALPHABET)
    spare = (name for name in numbered if name not in names)

    def next_name() -> str:
        return next(unused, None) or next(spare)

    def node(below: int) -> Node:
        # The root is rarely a leaf, what is below it more often than not.
        choice = [Leaf, *kinds] if below == depth else [Leaf] * len(kinds) + [*kinds]
        kind = draw(st.sampled_from(choice)) if below else Leaf
        if kind is Leaf:
            return draw(leaves(next_name(), allowed))
        children = tuple(node(below - 1) for _ in range(draw(st.integers(1, 3))))
        if kind is Loop:
            return Loop(next_name(), children, iterations=draw(st.integers(1, 3)))
        return Fan(next_name(), children) if kind is Fan else Chain(next_name(), children)

    return node(depth)


@st.composite
def readers(draw: st.DrawFn, *, prompt: bool = False) -> Reader:
    """Draw a reader: prompt or slow, staying or leaving in any way at any event."""
    way: Way = draw(st.sampled_from(["end", *WAYS]))
    return Reader(
        pauses=() if prompt else tuple(draw(st.lists(st.integers(0, 3), max_size=3))),
        way=way,
        at=0 if way == "end" else draw(st.integers(0, 8)),
        keep_alive=None if prompt else draw(st.sampled_from([None, 1, 2.5])),
    )


def stores() -> st.SearchStrategy[tuple[float, ...] | None]:
    """Draw a store: in memory, or the delays of a slow one."""
    return st.none() | st.lists(st.sampled_from([0.5, 1, 2, 0]), min_size=1, max_size=3).map(tuple)


@st.composite
def cases(draw: st.DrawFn, tree: st.SearchStrategy[Node] | None = None) -> Case:
    """Draw a case on free time: everything may meet everything."""
    draw(st.random_module())  # trio shuffles what is ready at the same moment
    return Case(draw(_ANY_TREE if tree is None else tree), draw(readers()), draw(stores()))


@st.composite
def kept_cases(
    draw: st.DrawFn,
    tree: st.SearchStrategy[Node] | None = None,
    *,
    on_conflict: OnConflict = "last",
) -> Case:
    """Draw a case on kept time, with a prompt reader: the oracle knows all about it.

    ``tree`` must be allowed nothing but what is ``kept``.
    """
    draw(st.random_module())
    return Case(
        draw(_KEPT_TREE if tree is None else tree),
        draw(readers(prompt=True)),
        kept=True,
        on_conflict=on_conflict,
    )


_ANY_TREE = trees()
_KEPT_TREE = trees(Allowed(kept=True))
