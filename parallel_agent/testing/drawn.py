"""How trees are drawn: `parallel_agent.testing.strategies.agent_trees`.

What is drawn first is a shape: a function that makes the tree, given names. So whatever part of a
shape Hypothesis leaves out while it shrinks, the names of what is left are the first ones.
"""

from __future__ import annotations

import functools
import keyword
import string
from collections.abc import Callable
from itertools import chain, count, product
from typing import Any, TypeAlias

import attrs
from hypothesis import strategies as st
from hypothesis.vendor.pretty import for_type_by_name

from parallel_agent.agent import Agent, AgentOptions
from parallel_agent.barrier import Barrier, FailFast
from parallel_agent.lifecycle import Status
from parallel_agent.retry import Retry
from parallel_agent.testing.printing import code_of, print_lines
from parallel_agent.testing.script import ScriptStep
from parallel_agent.testing.scripted import (
    adds,
    as_code,
    asks,
    cleans_up,
    contributes,
    emits,
    escalates,
    outputs,
    raises,
    reads,
    scripted,
    sleeps,
    within,
    writes,
)
from parallel_agent.workflow.loop import LoopAgent
from parallel_agent.workflow.parallel import ParallelAgent
from parallel_agent.workflow.sequential import SequentialAgent

__all__ = ["Allowed", "draw_tree"]

KEYS = ("x", "y")


@attrs.frozen(cache_hash=True)
class Allowed:
    """What a drawn tree may hold. See `agent_trees`."""

    width: int
    steps: int
    policies: tuple[Barrier, ...]
    loops: bool
    retries: bool
    timeouts: bool
    escalations: bool
    failures: bool
    clean_ups: bool
    requests: bool
    state: bool
    contributions: tuple[str, ...]


class _Names:
    """Names for agents, in the order in which they are asked for."""

    def __init__(self) -> None:
        pairs = map("".join, product(string.ascii_lowercase, repeat=2))
        self._leaves = chain(string.ascii_lowercase, (n for n in pairs if not keyword.iskeyword(n)))
        self._others = {kind: count(1) for kind in "psl"}

    def leaf(self) -> str:
        return next(self._leaves)

    def other(self, kind: str) -> str:
        return f"{kind}{next(self._others[kind])}"


class _Labels:
    """Texts for one agent's events, in the order of its script: ``a1``, ``a2``..."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._numbers = count(1)

    def next(self) -> str:
        return f"{self.name}{next(self._numbers)}"


_MakeStep: TypeAlias = Callable[[_Labels], ScriptStep]
_MakeAgent: TypeAlias = Callable[[_Names], Agent]

# Everything simplest first: that is where Hypothesis shrinks to.

_NUMBERS = st.integers(0, 3)
_SLEEPS = st.integers(0, 3)
_LIMITS = st.sampled_from([0.5, 1.5, 2.5])  # never at the moment at which a sleep is over


# Steps. Strategies are cached: to make one takes longer than to draw from it.


@functools.cache
def _scripts(allowed: Allowed, *, nested: bool) -> st.SearchStrategy[list[_MakeStep]]:
    ways = _plain_steps(allowed)
    if not nested:
        inner = _scripts(allowed, nested=True)
        if allowed.timeouts:
            ways.append(st.builds(_within, _LIMITS, inner))
        if allowed.clean_ups:
            ways.append(st.builds(_cleans_up, inner, st.booleans()))
    emit: st.SearchStrategy[_MakeStep] = st.just(lambda labels: emits(labels.next()))
    # Not `st.one_of`: it takes each strategy once, whatever its share is meant to be.
    step = st.sampled_from([emit] * (len(ways) // 2) + ways).flatmap(lambda way: way)
    return st.lists(step, max_size=allowed.steps)


def _within(seconds: float, steps: list[_MakeStep]) -> _MakeStep:
    return lambda labels: within(seconds, *(make(labels) for make in steps))


def _cleans_up(steps: list[_MakeStep], shielded: bool) -> _MakeStep:  # noqa: FBT001  # drawn
    return lambda labels: cleans_up(*(make(labels) for make in steps), shielded=shielded)


def _plain_steps(allowed: Allowed) -> list[st.SearchStrategy[_MakeStep]]:
    ways: list[st.SearchStrategy[_MakeStep]] = []

    def add(step: st.SearchStrategy[ScriptStep]) -> None:
        ways.append(step.map(lambda made: lambda _labels: made))

    add(st.builds(sleeps, _SLEEPS))
    if allowed.state:
        key = st.sampled_from(KEYS)
        add(st.builds(adds, st.just("n")))
        add(st.builds(adds, st.just("n")))  # the classic deserves its share
        add(st.builds(writes, key, _NUMBERS))
        add(st.builds(reads, key))
    if allowed.contributions:
        add(st.builds(contributes, st.sampled_from(allowed.contributions), _NUMBERS))
    add(st.builds(outputs, _NUMBERS))
    if allowed.escalations:
        ways.append(st.just(lambda labels: escalates(labels.next())))
    if allowed.requests:
        ways.append(
            st.just(lambda labels: asks(f"{labels.next()}?", default=True, timeout=_ASKING))
        )
    if allowed.failures:
        ways.append(st.just(lambda labels: raises(ValueError(labels.name))))
    return ways


_ASKING = 3.5  # seconds after which a question that nobody answers has its default


# Trees.


@st.composite
def draw_tree(draw: st.DrawFn, allowed: Allowed, depth: int) -> Agent:
    """Draw a tree of that many levels below the root, at most."""
    return draw(_shapes(allowed, depth, below_root=False))(_Names())


# What a number stands for: one meaning for all levels, as far as possible, so that Hypothesis can
# put what is below in the place of what is above.
_AT_ROOT = "apslppsp"
_BELOW = "apslaaaa"


@st.composite
def _shapes(draw: st.DrawFn, allowed: Allowed, depth: int, *, below_root: bool) -> _MakeAgent:
    kind = (_BELOW if below_root else _AT_ROOT)[draw(_EIGHT)]
    options = _options(draw, allowed)
    if kind == "a" or not depth:
        return _leaf(draw(_scripts(allowed, nested=False)), options)
    children = draw(_children(allowed, depth - 1))
    if kind == "l" and allowed.loops:
        return _loop(children, draw(_ITERATIONS), options)
    if kind == "p":
        barrier = draw(_barriers(allowed, len(children)))
        return _parallel(children, barrier, draw(_CONCURRENCY), options)
    return _sequential(children, options)


@functools.cache
def _children(allowed: Allowed, depth: int) -> st.SearchStrategy[list[_MakeAgent]]:
    inside = _shapes(allowed, depth, below_root=True)
    return st.lists(inside, min_size=1, max_size=allowed.width)


@functools.cache
def _barriers(allowed: Allowed, width: int) -> st.SearchStrategy[Barrier]:
    fitting = [policy for policy in allowed.policies if policy.least_width() <= width]
    return st.sampled_from(fitting or [FailFast()])


_EIGHT = st.integers(0, 7)
_ITERATIONS = st.integers(1, 3)
_CONCURRENCY = st.sampled_from([None, None, None, 2, 1])
_RETRIES = st.sampled_from([Retry(2, jitter=0), Retry(2, initial_delay=0)])


def _options(draw: st.DrawFn, allowed: Allowed) -> AgentOptions:
    # One number for those that have none, as most. Hypothesis takes at most five in a row out of
    # what it shrinks, and the simplest leaf is to be taken out as a whole: it is kind, options,
    # and the ends of two lists.
    options: AgentOptions = {}
    chosen = draw(_EIGHT)
    if chosen in (1, 4) and allowed.retries:
        options["retry"] = draw(_RETRIES)
    if chosen in (2, 4) and allowed.timeouts:
        options["timeout"] = draw(_LIMITS)
    if chosen == 3 and allowed.state:  # noqa: PLR2004  # of eight
        options["output_key"] = "output"
    return options


def _leaf(steps: list[_MakeStep], options: AgentOptions) -> _MakeAgent:
    def make(names: _Names) -> Agent:
        labels = _Labels(names.leaf())
        return scripted(labels.name, *(step(labels) for step in steps), **options)

    return make


def _sequential(children: list[_MakeAgent], options: AgentOptions) -> _MakeAgent:
    def make(names: _Names) -> Agent:
        name = names.other("s")
        return SequentialAgent(name, [child(names) for child in children], **options)

    return make


def _loop(children: list[_MakeAgent], iterations: int, options: AgentOptions) -> _MakeAgent:
    def make(names: _Names) -> Agent:
        name = names.other("l")
        inside = [child(names) for child in children]
        return LoopAgent(name, inside, max_iterations=iterations, **options)

    return make


def _parallel(
    children: list[_MakeAgent], barrier: Barrier, limit: int | None, options: AgentOptions
) -> _MakeAgent:
    def make(names: _Names) -> Agent:
        name = names.other("p")
        inside = [child(names) for child in children]
        return ParallelAgent(name, inside, barrier=barrier, max_concurrency=limit, **options)

    return make


# What Hypothesis prints: code one can paste, for classes that know nothing of it.


def _print_tree(tree: Agent, printer: Any, cycle: bool) -> None:  # noqa: FBT001  # Hypothesis calls it
    del cycle
    print_lines(as_code(tree), printer)


def _print_value(value: object, printer: Any, cycle: bool) -> None:  # noqa: FBT001  # as above
    del cycle
    print_lines(code_of(value), printer)


for _kind in (SequentialAgent, ParallelAgent, LoopAgent):
    for_type_by_name(_kind.__module__, _kind.__name__, _print_tree)
for_type_by_name(Status.__module__, Status.__name__, _print_value)
