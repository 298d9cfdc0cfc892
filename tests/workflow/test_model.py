"""The model that other tests compare the runtime with: proved by hand, and by broken copies."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
from hypothesis import Phase, find, settings
from hypothesis import strategies as st

from tests.workflow.model import (
    Act,
    Leaf,
    Loop,
    Model,
    Node,
    Parallel,
    Seen,
    Sequential,
    Trace,
    agents,
    build,
    nodes,
    watch,
)


def says(name: str, *times: float, last: str = "say") -> Leaf:
    """A leaf that speaks at these times after its start; the last one may stop or fail."""
    acts = []
    before = 0.0
    for number, time in enumerate(times, 1):
        kind = last if number == len(times) else "say"
        acts.append(Act(time - before, kind, f"{name}{number}"))  # type: ignore[arg-type]  # a Kind
        before = time
    return Leaf(name, tuple(acts))


def played(node: Node) -> tuple[list[str], float, str]:
    trace = Model().play(node)
    return [f"{time:g} {path}: {what}" for time, path, what in trace.lines], trace.end, trace.status


def test_a_sequence_by_hand() -> None:
    tree = Sequential("s", (says("a", 1, 2), says("b", 3)))
    assert played(tree) == (["1 s/a: a1", "2 s/a: a2", "5 s/b: b1"], 5, "completed")


def test_a_loop_by_hand() -> None:
    tree = Loop("l", (says("a", 1), says("b", 2, last="stop"), says("c", 4)), 3)
    assert played(tree) == (["1 l/a@1: a1", "3 l/b@1: b1"], 3, "completed")


def test_a_parallel_by_hand() -> None:
    tree = Parallel("p", (says("a", 1, 5), says("b", 2)))
    lines = ["1 p/a: a1", "2 p/b: b1", "5 p/a: a2", "5 p: a completed, b completed"]
    assert played(tree) == (lines, 5, "completed")


def test_a_failing_branch_by_hand() -> None:
    tree = Parallel("p", (says("a", 1, 5), says("b", 2, 3, last="fail"), says("c", 1.5)))
    lines = [
        "1 p/a: a1",
        "1.5 p/c: c1",
        "2 p/b: b1",
        "3 p: a cancelled, b failed, c completed",
    ]
    assert played(tree) == (lines, 3, "failed")


def test_an_escalating_branch_by_hand() -> None:
    stopper = Leaf("b", (Act(3, "stop", "b1"), Act(4, "say", "b2")))
    tree = Parallel("p", (says("a", 1, 5), stopper))
    lines = ["1 p/a: a1", "3 p/b: b1", "7 p/b: b2", "7 p: a cancelled, b completed"]
    assert played(tree) == (lines, 7, "completed")


# ----------------------------------------------------------------------- what the drawn trees find


# A found example proves the point; a small one would not prove it better.
SEARCH = settings(max_examples=3_000, database=None, phases=[Phase.generate])


class OuterLoopStopsToo(Model):
    def consumed(self, done: Trace) -> Trace:
        return done


class LoopIgnoresEscalation(Model):
    def then(self, done: Trace, more: Trace) -> Trace:
        return attrs.evolve(super().then(done, more), escalated=())


class AnyoneBelowStopsSiblings(Model):
    def then(self, done: Trace, more: Trace) -> Trace:
        return attrs.evolve(super().then(done, more), own=(*done.own, *more.own))


class EscalatingDoesNotStopSiblings(Model):
    def decides(self, trace: Trace) -> float:
        return super().decides(attrs.evolve(trace, own=()))


class ParallelConsumesEscalation(Model):
    def parallel(self, node: Parallel, start: float, path: str) -> Trace:
        return attrs.evolve(super().parallel(node, start, path), escalated=())


class SequenceStopsAtEscalation(Model):
    def sequential(self, node: Sequential, start: float, path: str) -> Trace:
        done = Trace((), start)
        for child in node.children:
            done = self.then(done, self.play(child, done.end, f"{path}/{child.name}"))
            if done.error is not None or done.escalated:
                break
        return done


class EscalatingBranchStopsItself(Model):
    def parallel(self, node: Parallel, start: float, path: str) -> Trace:
        full = super().parallel(node, start, path)
        if not any(isinstance(child, Leaf) for child in node.children) or not full.escalated:
            return full
        return attrs.evolve(full, lines=full.lines[:1])


class FailureDoesNotStopSiblings(Model):
    def decides(self, trace: Trace) -> float:
        return super().decides(attrs.evolve(trace, error=None))


class FailureIsForgotten(Model):
    def parallel(self, node: Parallel, start: float, path: str) -> Trace:
        full = super().parallel(node, start, path)
        return attrs.evolve(full, error=None, status="completed")


@pytest.mark.parametrize(
    ("broken", "trees"),
    [
        (OuterLoopStopsToo(), nodes("say", "stop")),
        (LoopIgnoresEscalation(), nodes("say", "stop")),
        (AnyoneBelowStopsSiblings(), nodes("say", "stop")),
        (EscalatingDoesNotStopSiblings(), nodes("say", "stop")),
        (ParallelConsumesEscalation(), nodes("say", "stop")),
        (SequenceStopsAtEscalation(), nodes("say", "stop")),
        (EscalatingBranchStopsItself(), nodes("say", "stop")),
        (FailureDoesNotStopSiblings(), nodes("say", "fail")),
        (FailureIsForgotten(), nodes("say", "fail")),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Model) else "",
)
def test_the_drawn_trees_tell_a_broken_model_from_the_true_one(
    broken: Model, trees: st.SearchStrategy[Node]
) -> None:
    find(trees, lambda tree: broken.play(tree) != Model().play(tree), settings=SEARCH)


@pytest.mark.parametrize(
    "wanted",
    [
        lambda tree: any(isinstance(node, Loop) for node in agents(tree)),
        lambda tree: (
            isinstance(tree, Parallel)
            and any(isinstance(node, Parallel) for child in tree.children for node in agents(child))
        ),
    ],
    ids=["loops", "parallels in parallels"],
)
def test_the_drawn_trees_hold(wanted: Callable[[Node], bool]) -> None:
    find(nodes("say"), wanted, settings=SEARCH)


# --------------------------------------------------------------------------------- the comparison


def test_a_run_is_written_down_as_it_happens() -> None:
    tree = Parallel("p", (says("a", 1), says("b", 2, last="fail")))
    seen = watch(build(tree))
    assert seen == Seen(
        ((1.0, "p/a", "a1"), (2.0, "p", "a completed, b failed")), 2.0, "failed", "p/b: b1"
    )
    seen.matches(Model().play(tree))


@pytest.mark.parametrize(
    "change",
    [
        lambda seen: attrs.evolve(seen, lines=seen.lines[:-1]),
        lambda seen: attrs.evolve(seen, lines=seen.lines[::-1]),
        lambda seen: attrs.evolve(seen, end=3.0),
        lambda seen: attrs.evolve(seen, status="completed"),
        lambda seen: attrs.evolve(seen, error=None),
        lambda seen: attrs.evolve(seen, lines=((1.5, *seen.lines[0][1:]), seen.lines[1])),
    ],
    ids=["missing", "order", "end", "status", "error", "time"],
)
def test_a_run_that_differs_from_the_model_does_not_match(change: Callable[[Seen], Seen]) -> None:
    tree = Parallel("p", (says("a", 1), says("b", 2, last="fail")))
    changed = change(watch(build(tree)))
    with pytest.raises(AssertionError):
        changed.matches(Model().play(tree))
