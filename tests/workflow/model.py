"""What a tree of workflow agents does, said once more, without tasks, channels or a clock.

`Model.play` takes a drawn tree and works out, from the times of its leaves alone, what is
delivered when, how branches end, and what is raised. It knows nothing of how the runtime does it,
so a test may compare the two. Drawn trees never let two leaves act at the same moment: what
happens then is for other tests.

The model is proved in ``test_model.py``: by hand, and by broken copies that the drawn trees tell
from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count
from typing import Final, Literal, TypeAlias

import attrs
import trio
from hypothesis import strategies as st

from parallel_agent import Agent, Event, LoopAgent, ParallelAgent, Runner, SequentialAgent
from tests.workflow.trees import Escalate, Script, leaf, run_virtual

__all__ = ["Line", "Model", "Node", "Seen", "agents", "build", "nodes", "watch"]

# ------------------------------------------------------------------------------------ drawn trees

Kind: TypeAlias = Literal["say", "stop", "fail"]


@attrs.frozen
class Act:
    """One step of a leaf: wait, then emit, emit an escalating event, or fail."""

    pause: float
    kind: Kind
    text: str


@attrs.frozen
class Leaf:
    name: str
    acts: tuple[Act, ...]


@attrs.frozen
class Sequential:
    name: str
    children: tuple[Node, ...]


@attrs.frozen
class Parallel:
    name: str
    children: tuple[Node, ...]


@attrs.frozen
class Loop:
    name: str
    children: tuple[Node, ...]
    rounds: int


Node: TypeAlias = Leaf | Sequential | Parallel | Loop

# What Hypothesis draws, before names and exact times are given: a leaf is a list of steps.
_Raw: TypeAlias = "list[tuple[int, Kind]] | tuple[str, int, list[_Raw]]"


def nodes(
    *kinds: Kind, max_leaves: int = 6, top: Literal["any", "parallel", "loop"] = "any"
) -> st.SearchStrategy[Node]:
    """Return trees whose leaves do things of these kinds. ``top`` is what the root is."""
    acts = st.tuples(st.integers(0, 20), st.sampled_from(kinds))
    raw: st.SearchStrategy[_Raw] = st.recursive(
        st.lists(acts, min_size=1, max_size=3),
        lambda inner: st.tuples(
            st.sampled_from(["sequential", "parallel", "parallel", "loop"]),
            st.integers(1, 3),
            st.lists(inner, min_size=1, max_size=3),
        ),
        max_leaves=max_leaves,
    )
    if top != "any":
        below = st.lists(raw, min_size=1, max_size=3)
        raw = st.tuples(st.just(top), st.integers(1, 3), below)
    return raw.map(lambda drawn: _label(drawn, "n", _offsets()))


def _offsets() -> Iterator[float]:
    """Roots of primes: sums of different ones (however often each) are never equal."""
    for number in count(2):
        if all(number % divisor for divisor in range(2, number)):
            yield math.sqrt(number) / 10


def _label(raw: _Raw, name: str, offsets: Iterator[float]) -> Node:
    """Name every node by its place, so that names are prefixes of each other; tell pauses apart."""
    if isinstance(raw, list):
        return Leaf(
            name,
            tuple(
                Act(pause + next(offsets), kind, f"{name} {kind}s {number}")
                for number, (pause, kind) in enumerate(raw)
            ),
        )
    workflow, rounds, below = raw
    children = tuple(
        _label(child, f"{name}_{number}", offsets) for number, child in enumerate(below)
    )
    match workflow:
        case "sequential":
            return Sequential(name, children)
        case "parallel":
            return Parallel(name, children)
        case _:
            return Loop(name, children, rounds)


def agents(node: Node) -> Iterator[Node]:
    """Every node of a tree."""
    yield node
    if not isinstance(node, Leaf):
        for child in node.children:
            yield from agents(child)


# ------------------------------------------------------------------------------------- the model

Line: TypeAlias = tuple[float, str, str]
"""What is delivered: when, the path it comes from, and its text or the outcomes it records."""

NEVER: Final = math.inf


@attrs.frozen
class Trace:
    """What one activation does, if nothing outside stops it."""

    lines: tuple[Line, ...]
    end: float
    status: str = "completed"
    error: str | None = None
    escalated: tuple[float, ...] = ()
    """When an event that the nearest loop above it acts on is handed out."""
    own: tuple[float, ...] = ()
    """When it emits such an event itself."""

    def cut(self, when: float) -> Trace:
        """Return what is left of it if it is cancelled at that moment."""
        if self.end < when:
            return self
        return Trace(
            tuple(line for line in self.lines if line[0] < when),
            when,
            "cancelled",
            None,
            tuple(moment for moment in self.escalated if moment < when),
            tuple(moment for moment in self.own if moment < when),
        )


class Model:
    """The semantics of the workflow agents. Broken copies override a method."""

    def play(self, node: Node, start: float = 0.0, path: str | None = None) -> Trace:
        """Return what the tree does from ``start`` on."""
        path = node.name if path is None else path
        match node:
            case Leaf():
                return self.leaf(node, start, path)
            case Sequential():
                return self.sequential(node, start, path)
            case Loop():
                return self.loop(node, start, path)
            case Parallel():
                return self.parallel(node, start, path)

    def leaf(self, node: Leaf, start: float, path: str) -> Trace:
        lines: list[Line] = []
        stops: list[float] = []
        now = start
        for act in node.acts:
            now += act.pause
            if act.kind == "fail":
                return Trace(
                    tuple(lines), now, "failed", f"{path}: {act.text}", tuple(stops), tuple(stops)
                )
            lines.append((now, path, act.text))
            if act.kind == "stop":
                stops.append(now)
        return Trace(tuple(lines), now, escalated=tuple(stops), own=tuple(stops))

    def sequential(self, node: Sequential, start: float, path: str) -> Trace:
        done = Trace((), start)
        for child in node.children:
            done = self.then(done, self.play(child, done.end, f"{path}/{child.name}"))
            if done.error is not None:
                break
        return done

    def loop(self, node: Loop, start: float, path: str) -> Trace:
        done = Trace((), start)
        for number in range(1, node.rounds + 1):
            for child in node.children:
                done = self.then(done, self.play(child, done.end, f"{path}/{child.name}@{number}"))
                if done.error is not None or done.escalated:
                    return self.consumed(done)
        return self.consumed(done)

    def then(self, done: Trace, more: Trace) -> Trace:
        """One after the other. What a child emits is not its parent's own."""
        return Trace(
            (*done.lines, *more.lines),
            more.end,
            more.status,
            more.error,
            (*done.escalated, *more.escalated),
        )

    def consumed(self, done: Trace) -> Trace:
        """What a loop above sees of this one: no escalation."""
        return attrs.evolve(done, escalated=())

    def parallel(self, node: Parallel, start: float, path: str) -> Trace:
        traces = [self.play(child, start, f"{path}/{child.name}") for child in node.children]
        # The first that fails or escalates ends the others, and goes on to its own end.
        decisions = [self.decides(trace) for trace in traces]
        when = min(decisions)
        traces = [
            trace if decision == when else trace.cut(when)
            for trace, decision in zip(traces, decisions, strict=True)
        ]
        end = max(trace.end for trace in traces)
        outcomes = ", ".join(
            f"{child.name} {trace.status}"
            for child, trace in zip(node.children, traces, strict=True)
        )
        lines = sorted((line for trace in traces for line in trace.lines), key=lambda line: line[0])
        error = next((trace.error for trace in traces if trace.error is not None), None)
        return Trace(
            (*lines, (end, path, outcomes)),
            end,
            "completed" if error is None else "failed",
            error,
            tuple(sorted(moment for trace in traces for moment in trace.escalated)),
        )

    def decides(self, trace: Trace) -> float:
        """When a branch ends its siblings."""
        return min([*trace.own, trace.end if trace.error is not None else NEVER])


# --------------------------------------------------------------------------------- the real thing


class DrawnError(Exception):
    """What a drawn leaf raises."""


def build(node: Node) -> Agent:
    """Return the tree of agents that ``node`` describes."""
    if isinstance(node, Leaf):
        return leaf(node.name, *(step for act in node.acts for step in (act.pause, _step(act))))
    children = [build(child) for child in node.children]
    match node:
        case Sequential():
            return SequentialAgent(node.name, children)
        case Parallel():
            return ParallelAgent(node.name, children)
        case Loop():
            return LoopAgent(node.name, children, max_iterations=node.rounds)


def _step(act: Act) -> Script:
    match act.kind:
        case "say":
            return act.text
        case "stop":
            return Escalate(act.text)
        case "fail":
            return _raiser(act.text)


def _raiser(text: str) -> Script:
    def fail(ctx: object) -> None:
        message = f"{getattr(ctx, 'path', '?')}: {text}"
        raise DrawnError(message)

    return fail


@attrs.frozen
class Seen:
    """What a run was seen to do; compare it with a `Trace` by `matches`."""

    lines: tuple[Line, ...]
    end: float
    status: str
    error: str | None

    def matches(self, trace: Trace) -> None:
        """Assert that it is what the model says."""
        assert [line[1:] for line in self.lines] == [line[1:] for line in trace.lines]
        for (seen, *_), (said, *_) in zip(self.lines, trace.lines, strict=True):
            assert math.isclose(seen, said, abs_tol=1e-6)
        assert (self.status, self.error) == (trace.status, trace.error)
        assert math.isclose(self.end, trace.end, abs_tol=1e-6)


def watch(tree: Agent) -> Seen:
    """Run a tree on virtual time and write down what is delivered when."""
    lines: list[Line] = []

    async def main() -> Seen:
        error: str | None = None
        async with Runner(tree).open() as run:
            try:
                async for event in run:
                    line = trio.current_time(), event.path, _what(event)
                    lines.append(line)
            except DrawnError as exc:
                error = str(exc)
        return Seen(tuple(lines), trio.current_time(), str(run.result.status), error)

    return run_virtual(main)


def _what(event: Event) -> str:
    outcomes = [f"{outcome.name} {outcome.status}" for outcome in event.actions.outcomes]
    return ", ".join(outcomes) or event.text
