"""What a tree does does not hang on when it was made: drawn trees, started at run time.

Each drawn tree is run with agents in place of its ParallelAgents that start the same children
from their code, in two ways. What comes of it is what the oracle says of the static tree, but for
the numbers in the names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import attrs
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    Event,
    InMemorySessionService,
    InvocationContext,
    LoopAgent,
    Runner,
    SequentialAgent,
    Status,
)
from parallel_agent.context import activation_of
from tests.support.drawing import ANYTHING, Allowed, cases, fewer, kept_cases, trees
from tests.support.laws import hold
from tests.support.oracle import Expected, Line, Seen, expect, observed
from tests.support.recording import Recorder
from tests.support.running import REDUCERS, START, Case, Report, _read, _tasks, perform
from tests.support.scripts import (
    Chain,
    Emit,
    Fail,
    Fan,
    Leaf,
    Loop,
    Node,
    Pause,
    Write,
    build,
    lanes_of,
    nodes_of,
)
from tests.support.stores import SlowStore
from tests.support.timing import Free, Kept, Timing, clock_with_horizon

Way: TypeAlias = Literal["fan_out", "open_fan_out"]
WAYS = st.sampled_from(["fan_out", "open_fan_out"])


class Started(Agent):
    """What a ParallelAgent is, said in an agent's own code."""

    def __init__(self, name: str, below: list[Agent], way: Way) -> None:
        super().__init__(name)
        self._below = below
        self._way = way

    async def run(self, ctx: InvocationContext) -> None:
        if self._way == "fan_out":
            outcomes = await ctx.fan_out(self._below)
        else:
            async with ctx.open_fan_out() as group:
                handles = [group.start(child) for child in self._below]
            outcomes = [await handle.outcome() for handle in handles]
        activation_of(ctx).output = {
            outcome.name.removesuffix("@1"): outcome.output
            for outcome in outcomes
            if outcome.status is Status.COMPLETED
        }


def build_started(tree: Node, watch: Recorder, timing: Timing, way: Way) -> Agent:
    """As `build`, with `Started` for every fan-out."""
    if isinstance(tree, Leaf):
        return build(tree, watch, timing)
    children = [build_started(child, watch, timing, way) for child in tree.children]
    match tree:
        case Chain(name=name):
            return SequentialAgent(name, children)
        case Fan(name=name):
            return Started(name, children, way)
        case Loop(name=name, iterations=iterations):
            return LoopAgent(name, children, max_iterations=iterations)


def perform_started(case: Case, way: Way) -> Report:
    """As `perform`, with `build_started`."""
    return trio.run(_perform_started, case, way, clock=clock_with_horizon())


async def _perform_started(case: Case, way: Way) -> Report:
    watch = Recorder()
    timing: Timing = Kept(lanes_of(case.tree)) if case.kept else Free()
    slow = None if case.store is None else SlowStore(case.store, fail_at=case.store_fails_at)
    store = slow or InMemorySessionService(clock=lambda: 0.0)
    await store.create(app_name="app", user_id="user", session_id="s", state=START)
    runner = Runner(
        build_started(case.tree, watch, timing, way),
        app_name="app",
        session_service=store,
        reducers=REDUCERS,
        on_conflict=case.on_conflict,
        clock=lambda: 0.0,
    )
    error: BaseException | None = None
    delivered: list[Event] = []
    before = _tasks()
    outer = trio.CancelScope()
    run: Any = None
    try:
        with outer:
            async with runner.open(session_id="s") as run:
                await _read(case.reader, run, outer, delivered, watch, None)
    except BaseException as caught:  # noqa: BLE001  # the report tells
        error = caught
    left_behind = tuple(sorted(task.name for task in _tasks() - before))
    stored = await store.get(app_name="app", user_id="user", session_id="s")
    assert stored is not None
    return Report(
        case=case,
        events=tuple(stored.events),
        delivered=tuple(delivered),
        stored=stored,
        seen_live=dict(run._stream.session.state),
        result=run.result,
        statistics=run.statistics(),
        error=error,
        notebook=watch,
        left_behind=left_behind,
        batch_sizes=() if slow is None else tuple(slow.batch_sizes),
        appends_asked=0 if slow is None else slow.asked,
        run=run,
    )


def as_static(report: Report) -> Expected:
    """Return what came of a case, the numbers taken out of the names of started branches."""
    fans = {node.name for node in nodes_of(report.case.tree) if isinstance(node, Fan)}
    plain = _unnumbered(fans)
    found = observed(report)
    log = tuple(
        Line(
            plain(line.path),
            line.branch and line.branch.replace("@1", ""),
            line.text,
            line.delta,
            tuple((name.removesuffix("@1"), *rest) for name, *rest in line.outcomes),  # type: ignore[misc]  # two more, see `Line`
        )
        for line in found.log
    )
    looks = tuple(Seen(plain(look.path), look.seqs, look.state) for look in found.looks)
    return attrs.evolve(found, log=log, looks=looks)


def _unnumbered(fans: set[str]) -> Callable[[str], str]:
    def plain(path: str) -> str:
        segments = path.split("/")
        for place in range(1, len(segments)):
            if segments[place - 1].partition("@")[0] in fans:
                segments[place] = segments[place].removesuffix("@1")
        return "/".join(segments)

    return plain


def _without_numbers_in_messages(found: Expected) -> Expected:
    """A conflict names two branches."""

    def plain(message: str | None) -> str | None:
        return message and message.replace("@1", "")

    return attrs.evolve(
        found,
        log=tuple(
            attrs.evolve(
                line, outcomes=tuple((name, how, plain(why)) for name, how, why in line.outcomes)
            )
            for line in found.log
        ),
        failure=found.failure and tuple(plain(label) or "" for label in found.failure),
    )


@fewer(2)
@given(kept_cases(), WAYS)
def test_a_tree_started_at_run_time_is_what_the_oracle_says_of_the_static_one(
    case: Case, way: Way
) -> None:
    assert as_static(perform_started(case, way)) == expect(case)


@fewer(2)
@given(kept_cases(), WAYS)
def test_a_tree_started_at_run_time_gives_the_log_of_the_static_one(case: Case, way: Way) -> None:
    assert as_static(perform_started(case, way)).log == observed(perform(case)).log


@fewer(2)
@given(
    kept_cases(trees(Allowed(kept=True, reducers=False, temporary=False)), on_conflict="error"),
    WAYS,
)
def test_branches_started_at_run_time_conflict_where_static_ones_do(case: Case, way: Way) -> None:
    found, expected = as_static(perform_started(case, way)), observed(perform(case))
    assert _without_numbers_in_messages(found) == _without_numbers_in_messages(expected)


@fewer(2)
@given(cases(trees(ANYTHING)), WAYS)
def test_the_laws_hold_for_trees_started_at_run_time(case: Case, way: Way) -> None:
    hold(perform_started(case, way))


def test_the_comparison_finds_a_branch_that_is_called_otherwise() -> None:
    case = Case(Fan("p", [Leaf("a", [Pause(), Emit()])]), kept=True)
    found = as_static(perform_started(case, "fan_out"))
    assert found == expect(case)
    (line, *others) = found.log
    assert attrs.evolve(found, log=(attrs.evolve(line, branch="p.b"), *others)) != expect(case)


def test_the_comparison_finds_a_fan_out_that_goes_on_after_a_failure() -> None:
    class GoesOn(Started):
        async def run(self, ctx: InvocationContext) -> None:
            await ctx.map_outcomes(self._below[0], [None])

    def run_it(kind: type[Started]) -> Status:
        tree = Leaf("a", [Pause(), Write("x", 1), Fail()])
        timing = Kept(lanes_of(tree))
        child = build(tree, Recorder(), timing)

        async def main() -> Status:
            async with Runner(kind("p", [child], "fan_out")).open() as run:
                with trio.CancelScope():
                    try:
                        await run.collect()
                    except Exception:  # noqa: BLE001  # the status tells
                        return Status.FAILED
            return run.status

        return trio.run(main, clock=clock_with_horizon())

    assert run_it(Started) is Status.FAILED
    assert run_it(GoesOn) is Status.COMPLETED
