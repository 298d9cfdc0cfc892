"""Fan-out at run time that is awaited as a whole: ``ctx.map``, ``map_outcomes``, ``fan_out``."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    Barrier,
    BestEffort,
    Escalate,
    Event,
    FailFast,
    FanOutError,
    FirstSuccess,
    InvocationContext,
    LoopAgent,
    Outcome,
    ParallelAgent,
    Quorum,
    QuorumError,
    Retry,
    RunConfig,
    Runner,
    SequentialAgent,
    Status,
    TreeError,
    UnstorableError,
    WaitAll,
    agent,
)
from tests.support.drawing import fewer
from tests.workflow.trees import Yields, leaf, run_tree, run_virtual

Body: TypeAlias = Callable[[InvocationContext], Awaitable[Any]]


def parent(body: Body, name: str = "parent", **options: Any) -> Agent:
    """An agent that does ``body``; what that returns is its output."""

    @agent(name=name, **options)
    async def run(ctx: InvocationContext) -> Any:
        return await body(ctx)

    return run


def mapping(child: Agent, items: Any, **options: Any) -> Agent:
    """An agent that maps."""
    return parent(lambda ctx: ctx.map(child, items, **options))


@agent
async def double(ctx: InvocationContext, number: int) -> int:
    return 2 * number


@agent
async def sleeper(ctx: InvocationContext, seconds: float) -> float:
    await trio.sleep(seconds)
    return seconds


class RefusedError(Exception):
    """What `picky` raises, with the item in it."""


@agent
async def picky(ctx: InvocationContext, item: int) -> int:
    """Sleeps as many seconds as its item says, and refuses those below zero."""
    await trio.sleep(abs(item))
    if item < 0:
        raise RefusedError(item)
    return item


class Meter:
    """How many work at a time, and in which order they have begun."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self.begun: list[Any] = []

    def child(self, name: str = "worker", **options: Any) -> Agent:
        @agent(name=name, **options)
        async def run(ctx: InvocationContext, item: Any) -> Any:
            self.now += 1
            self.most = max(self.most, self.now)
            self.begun.append(item)
            try:
                await trio.sleep(item if isinstance(item, float) else 1)
            finally:
                self.now -= 1
            return item

        return run


# ------------------------------------------------------------------------------------------- map


@pytest.mark.parametrize("width", [0, 1, 2, 10, 1_000])
def test_a_map_of_any_width_returns_the_outputs_in_order(width: int) -> None:
    ended = run_tree(mapping(double, range(width)))
    assert ended.result.output == [2 * number for number in range(width)]


@given(st.lists(st.integers(0, 5), max_size=20), st.integers(1, 5) | st.none(), st.random_module())
def test_outputs_are_in_order_whoever_is_quicker(
    seconds: list[int], limit: int | None, scheduler: object
) -> None:
    ended = run_tree(mapping(sleeper, seconds, max_concurrency=limit))
    assert ended.result.output == [float(number) for number in seconds]


def test_the_items_may_be_any_iterable() -> None:
    items = (number for number in (1, 2))
    assert run_tree(mapping(double, items)).result.output == [2, 4]


def test_an_agent_without_an_output_gives_none() -> None:
    assert run_tree(mapping(leaf("silent"), [1, 2])).result.output == [None, None]


def test_a_failure_is_raised_as_itself_where_map_is_awaited() -> None:
    caught: list[BaseException] = []

    async def body(ctx: InvocationContext) -> str:
        try:
            await ctx.map(picky, [3, -1, 2])
        except RefusedError as exc:
            caught.append(exc)
        return "went on"

    ended = run_tree(parent(body))
    assert ended.result.text == "went on"
    assert [exc.args for exc in caught] == [(-1,)]


def test_a_failure_leaves_the_run_as_itself_with_a_note_that_names_the_item() -> None:
    ended = run_tree(mapping(picky, [3, -1, 2]))
    assert isinstance(ended.error, RefusedError)
    assert ended.notes == ["raised by agent parent/picky@2"]


def test_the_first_failure_cancels_the_others() -> None:
    ended = run_tree(mapping(picky, [9, -1, 8]))
    assert ended.time == 1
    assert ended.outcomes("parent") == {
        "picky@1": "cancelled",
        "picky@2": "failed",
        "picky@3": "cancelled",
    }


def test_of_failures_in_the_same_tick_the_first_in_order_is_raised() -> None:
    for _ in range(10):
        ended = run_tree(mapping(picky, [5, -1, -1]))
        assert isinstance(ended.error, RefusedError)
        assert ended.notes[0] == "raised by agent parent/picky@2"
        assert ended.notes[1].startswith("another branch failed too: parent/picky@3")


def test_after_a_failure_what_waits_for_its_turn_never_starts() -> None:
    ended = run_tree(mapping(picky, [-1, 5, 1, 1], max_concurrency=2))
    attempts = [outcome.attempts for outcome in ended.run.outcomes("parent")]
    assert attempts == [1, 1, 0, 0]
    assert [str(outcome.status) for outcome in ended.run.outcomes("parent")] == [
        "failed",
        *["cancelled"] * 3,
    ]


def test_only_the_item_that_failed_is_tried_again() -> None:
    tried: list[int] = []

    @agent
    async def flaky(ctx: InvocationContext, item: int) -> int:
        tried.append(item)
        if item == 2 and tried.count(2) < 3:
            raise RefusedError(item)
        return item

    child = flaky.with_options(retry=Retry(3, initial_delay=1))
    ended = run_tree(mapping(child, [1, 2, 3]))
    assert ended.result.output == [1, 2, 3]
    assert sorted(tried) == [1, 2, 2, 2, 3]
    assert [outcome.attempts for outcome in ended.run.outcomes("parent")] == [1, 3, 1]


def test_a_timeout_is_each_items_own() -> None:
    child = sleeper.with_options(timeout=2)
    ended = run_tree(
        parent(lambda ctx: _statuses(ctx.map_outcomes(child, [1, 3, 1.5], max_concurrency=1)))
    )
    assert ended.result.output == ["completed", "failed", "completed"]


async def _statuses(outcomes: Awaitable[list[Outcome]]) -> list[str]:
    return [str(outcome.status) for outcome in await outcomes]


# ------------------------------------------------------------------------------- map_outcomes


def test_outcomes_are_in_order_and_failures_are_among_them() -> None:
    found: list[Outcome] = []

    async def body(ctx: InvocationContext) -> None:
        found.extend(await ctx.map_outcomes(picky, [2, -1, 1]))

    ended = run_tree(parent(body))
    assert ended.error is None
    assert [(o.name, str(o.status), o.output) for o in found] == [
        ("picky@1", "completed", 2),
        ("picky@2", "failed", None),
        ("picky@3", "completed", 1),
    ]
    assert isinstance(found[1].error, RefusedError)
    assert [outcome.duration for outcome in found] == [2, 1, 1]


@given(st.lists(st.integers(-5, 5).filter(bool), max_size=8), st.random_module())
def test_by_default_every_item_runs_to_its_end(items: list[int], scheduler: object) -> None:
    ended = run_tree(parent(lambda ctx: _statuses(ctx.map_outcomes(picky, items))))
    assert ended.result.output == ["failed" if item < 0 else "completed" for item in items]
    assert ended.time == max(map(abs, items), default=0)


def test_a_barrier_may_raise() -> None:
    ended = run_tree(parent(lambda ctx: ctx.map_outcomes(picky, [-1, 2, -3], barrier=WaitAll())))
    assert isinstance(ended.error, ExceptionGroup)
    assert [error.args for error in ended.error.exceptions] == [(-1,), (-3,)]


def test_a_barrier_may_be_done_before_all_are() -> None:
    ended = run_tree(
        parent(
            lambda ctx: _statuses(ctx.map_outcomes(picky, [9, -1, 2, 8], barrier=FirstSuccess()))
        )
    )
    assert ended.result.output == ["cancelled", "failed", "completed", "cancelled"]
    assert ended.time == 2


# ------------------------------------------------------------------------------------ fan_out


def test_agents_and_pairs_of_agent_and_input_may_be_mixed() -> None:
    async def body(ctx: InvocationContext) -> list[Any]:
        outcomes = await ctx.fan_out([leaf("a", "said"), (double, 4), (double, 5), leaf("b")])
        return [[outcome.name, outcome.output] for outcome in outcomes]

    assert run_tree(parent(body)).result.output == [
        ["a@1", "said"],
        ["double@1", 8],
        ["double@2", 10],
        ["b@1", None],
    ]


def test_an_agent_that_stands_in_the_tree_may_be_started_as_well() -> None:
    async def body(ctx: InvocationContext) -> list[Any]:
        return [outcome.name for outcome in await ctx.fan_out([said, said])]

    said = leaf("said", "x")
    ended = run_tree(SequentialAgent("s", [said, parent(body)]))
    assert sorted(event.path for event in ended.delivered if event.text == "x") == [
        "s/parent/said@1",
        "s/parent/said@2",
        "s/said",
    ]


def test_whole_trees_may_be_started() -> None:
    tree = SequentialAgent("pair", [leaf("a", "a"), leaf("b", "b")])
    ended = run_tree(parent(lambda ctx: _statuses(ctx.fan_out([tree, tree]))))
    assert sorted(event.path for event in ended.delivered if event.text) == [
        "parent/pair@1/a",
        "parent/pair@1/b",
        "parent/pair@2/a",
        "parent/pair@2/b",
    ]


def test_without_a_barrier_it_fails_fast() -> None:
    ended = run_tree(parent(lambda ctx: ctx.fan_out([(picky, -1), (picky, 5)])))
    assert isinstance(ended.error, RefusedError)
    assert ended.time == 1


def test_a_barrier_that_needs_more_branches_is_refused_and_nothing_starts() -> None:
    ended = run_tree(parent(lambda ctx: ctx.fan_out([(double, 1)], barrier=Quorum(2))))
    assert isinstance(ended.error, FanOutError)
    assert str(ended.error) == "Quorum(n=2) needs 2 branches or more, and 'parent' starts 1"
    assert ended.run.statistics().started == 1


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda ctx: ctx.map([1], double), TreeError, "map() was given is no agent but [1]"),
        (lambda ctx: ctx.map(len, [1]), TreeError, "make it one with @agent"),
        (lambda ctx: ctx.map_outcomes("double", [1]), TreeError, "is no agent but 'double'"),
        (lambda ctx: ctx.fan_out([[double, 1]]), TreeError, "fan_out() was given is no agent"),
        (lambda ctx: ctx.fan_out([(double,)]), FanOutError, "pairs of an agent and its input"),
        (lambda ctx: ctx.fan_out([(double, 1, 2)]), FanOutError, "pairs of an agent"),
        (lambda ctx: ctx.fan_out([(1, double)]), TreeError, "fan_out() was given is no agent"),
        (lambda ctx: ctx.map(double, [1], max_concurrency=0), FanOutError, "from 1 on, or None"),
        (lambda ctx: ctx.map(double, [1], max_concurrency=True), FanOutError, "not True"),
        (lambda ctx: ctx.map(double, [1], max_concurrency=1.0), FanOutError, "not 1.0"),
        (lambda ctx: ctx.fan_out([double], barrier=WaitAll), FanOutError, "barrier is a policy"),
        (lambda ctx: ctx.map_outcomes(double, [], barrier=None), FanOutError, "not None"),
        (lambda ctx: ctx.map(double, 3), FanOutError, "map() takes a list"),
        (lambda ctx: ctx.map(double, "abc"), FanOutError, "not 'abc'"),
        (lambda ctx: ctx.map(double, {1, 2}), FanOutError, "a set has no order"),
        (lambda ctx: ctx.fan_out(None), FanOutError, "fan_out() takes a list"),
        (lambda ctx: ctx.fan_out({double}), FanOutError, "a set has no order"),
        (lambda ctx: ctx.map(double, [1, {2}, {3, "x"}, object()]), UnstorableError, "object"),
    ],
)
def test_what_cannot_be_started_is_refused_before_anything_starts(
    call: Callable[[Any], Any], error: type[Exception], said: str
) -> None:
    ended = run_tree(parent(call))
    assert isinstance(ended.error, error)
    assert said in str(ended.error)
    assert ended.run.statistics().started == 1


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ([1, {"a": [object()]}], "[1].a[0]: a object has no JSON form"),
        (float("nan"), "items[1], the input of agent 'double', has no JSON form: it is nan"),
        ({1: 2}, "the key 1 is no text"),
        (b"x", "items[1], the input of agent 'double', has no JSON form: values of bytes"),
        ("\ud800", "lone surrogate"),
    ],
)
def test_an_item_without_a_json_form_is_refused_with_its_place(item: Any, said: str) -> None:
    ended = run_tree(mapping(double, [1, item]))
    assert isinstance(ended.error, UnstorableError)
    assert said in str(ended.error)
    assert ended.run.statistics().started == 1


def test_a_context_whose_agent_has_ended_starts_nothing() -> None:
    kept: list[InvocationContext] = []
    said: list[str] = []

    async def use_it(ctx: InvocationContext) -> None:
        try:
            await kept[0].map(double, [1])
        except RuntimeError as exc:
            said.append(str(exc))

    run_tree(SequentialAgent("s", [leaf("first", kept.append), leaf("second", use_it)]))
    assert len(said) == 1
    assert "has ended" in said[0]


# ---------------------------------------------------------------------------- names and places


def test_the_same_agent_is_numbered_from_one_on() -> None:
    ended = run_tree(mapping(double, [1, 2, 3]))
    # The fan-out's own record comes from the agent that mapped.
    assert sorted(event.path for event in ended.delivered if event.author == "double") == [
        "parent/double@1",
        "parent/double@2",
        "parent/double@3",
    ]
    assert sorted(str(event.branch) for event in ended.delivered if event.author == "double") == [
        "parent.double@1",
        "parent.double@2",
        "parent.double@3",
    ]


def test_numbers_go_on_through_all_that_one_activation_starts() -> None:
    async def body(ctx: InvocationContext) -> None:
        await ctx.map(double, [1, 2])
        await ctx.run_agent(double, 3)
        await ctx.fan_out([(double, 4), leaf("other", "x")])
        async with ctx.open_fan_out() as group:
            group.start(double, 5)

    ended = run_tree(parent(body))
    paths = {event.path for event in ended.delivered if event.author == "double"}
    assert paths == {f"parent/double@{number}" for number in range(1, 6)}


def test_each_activation_counts_for_itself() -> None:
    tree = LoopAgent("loop", [mapping(double, [1])], max_iterations=2)
    ended = run_tree(tree)
    assert [event.path for event in ended.delivered if event.author == "double"] == [
        "loop/parent@1/double@1",
        "loop/parent@2/double@1",
    ]


def test_agents_of_one_name_share_the_numbers() -> None:
    async def body(ctx: InvocationContext) -> list[str]:
        one, other = leaf("same", "one"), leaf("same", "other")
        return [outcome.path for outcome in await ctx.fan_out([one, other])]

    assert run_tree(parent(body)).result.output == ["parent/same@1", "parent/same@2"]


def test_children_of_children_have_the_whole_line_in_their_names() -> None:
    middle = mapping(double, [1]).with_options(name="middle")
    ended = run_tree(ParallelAgent("p", [parent(lambda ctx: ctx.map(middle, [0]))]))
    (event,) = [event for event in ended.delivered if event.author == "double"]
    assert event.path == "p/parent/middle@1/double@1"
    assert event.branch == "p.parent.parent.middle@1.middle.double@1"


def test_branches_are_told_apart_by_segments_and_not_by_prefixes() -> None:
    @agent
    async def worker(ctx: InvocationContext, item: int) -> str:
        await trio.sleep(item)
        return str([event.branch for event in ctx.history() if event.author == "worker"])

    async def main() -> list[str | None]:
        async with Runner(mapping(worker, range(11))).open("hi") as run:
            return [event.branch async for event in run.only(branch="parent.worker@1")]

    assert run_virtual(main) == ["parent.worker@1"]
    ended = run_tree(mapping(worker, range(11)))
    assert ended.result.output == ["[]"] * 11


# --------------------------------------------------------------------------------- the stream


def test_events_of_started_branches_come_while_their_parent_waits() -> None:
    async def main() -> list[tuple[float, str]]:
        child = leaf("child", 1, "early", 5, "late")
        tree = parent(lambda ctx: _statuses(ctx.fan_out([child, child])))
        async with Runner(tree).open() as run:
            seen = [(trio.current_time(), event.text) async for event in run]
        return [(when - seen[0][0], text) for when, text in seen if text]

    assert run_virtual(main) == [(0, "early"), (0, "early"), (5, "late"), (5, "late")]


def test_a_started_branch_goes_on_when_the_reader_has_come_back() -> None:
    diary: list[str] = []

    def note(what: str) -> Callable[[object], None]:
        def noting(ctx: object) -> None:
            diary.append(what)

        return noting

    async def main() -> None:
        child = leaf("child", "one", note("after one"), "two", note("after two"))
        async with Runner(parent(lambda ctx: _statuses(ctx.fan_out([child])))).open() as run:
            for text in ("one", "two"):
                await run.wait_for(lambda event, text=text: event.text == text)  # type: ignore[misc]  # bound now
                await trio.sleep(9)
                diary.append(f"reader has {text}")
            await run.collect()

    run_virtual(main)
    assert diary == ["reader has one", "after one", "reader has two", "after two"]


def test_each_fan_out_is_recorded_in_one_event_after_everything_of_its_branches() -> None:
    async def body(ctx: InvocationContext) -> None:
        await ctx.map(double, [1, 2])
        await ctx.map_outcomes(picky, [-1])

    ended = run_tree(parent(body))
    assert [
        (event.author, [(one.name, one.status) for one in event.actions.outcomes])
        for event in ended.result.events
    ] == [
        *[("double", [])] * 2,
        ("parent", [("double@1", "completed"), ("double@2", "completed")]),
        ("parent", [("picky@1", "failed")]),
    ]


def test_the_outcomes_of_the_newest_fan_out_can_be_read_in_the_run_and_after_it() -> None:
    async def body(ctx: InvocationContext) -> list[str]:
        await ctx.map(double, [1, 2])
        await ctx.map_outcomes(picky, [-1])
        return [outcome.name for outcome in ctx.outcomes("parent")]

    ended = run_tree(parent(body))
    assert ended.result.output == ["picky@1"]
    assert [outcome.name for outcome in ended.run.outcomes("parent")] == ["picky@1"]


# --------------------------------------------------------------------------- state and history


def test_what_was_written_before_a_fork_is_recorded_before_anything_of_a_child() -> None:
    @agent
    async def child(ctx: InvocationContext, item: int) -> Any:
        return ctx.state["k"]

    async def body(ctx: InvocationContext) -> list[Any]:
        ctx.state["k"] = "written"
        return await ctx.map(child, [1, 2])

    ended = run_tree(parent(body))
    assert ended.result.output == ["written", "written"]
    first, *others = ended.result.events
    assert (first.author, dict(first.state_delta)) == ("parent", {"k": "written"})
    assert not any(event.state_delta for event in others)


def test_a_branch_sees_what_its_parent_saw_and_its_own_and_no_sibling() -> None:
    @agent
    async def child(ctx: InvocationContext, item: int) -> Yields:
        yield f"mine {item}"
        await trio.sleep(item)
        yield Event(output=[event.text for event in ctx.history() if event.text])

    async def body(ctx: InvocationContext) -> list[Any]:
        await ctx.emit("before")
        return await ctx.map(child, [1, 2])

    assert run_tree(parent(body)).result.output == [
        ["hi", "before", "mine 1"],
        ["hi", "before", "mine 2"],
    ]


def test_with_a_limit_a_branch_does_not_see_those_that_have_ended_either() -> None:
    @agent
    async def child(ctx: InvocationContext, item: int) -> Yields:
        yield f"mine {item}"
        yield Event(output=[event.text for event in ctx.history() if event.text])

    ended = run_tree(mapping(child, [1, 2], max_concurrency=1))
    assert ended.result.output == [["hi", "mine 1"], ["hi", "mine 2"]]


def test_after_the_join_the_parent_sees_everything() -> None:
    async def body(ctx: InvocationContext) -> list[str]:
        await ctx.fan_out([leaf("a", "from a"), leaf("b", 1, "from b")])
        return [event.text for event in ctx.history() if event.text]

    assert run_tree(parent(body)).result.output == ["hi", "from a", "from b"]


def test_pending_writes_are_a_siblings_own() -> None:
    @agent
    async def child(ctx: InvocationContext, item: int) -> Any:
        ctx.state[f"k{item}"] = item
        await trio.sleep(1)
        return sorted(key for key in ctx.state if key.startswith("k"))

    assert run_tree(mapping(child, [1, 2])).result.output == [["k1"], ["k2"]]


def test_what_branches_have_written_the_parent_sees_after_the_join() -> None:
    @agent
    async def child(ctx: InvocationContext, item: int) -> None:
        ctx.state[f"k{item}"] = item

    async def body(ctx: InvocationContext) -> list[Any]:
        await ctx.map(child, [1, 2])
        return [ctx.state["k1"], ctx.state["k2"]]

    assert run_tree(parent(body)).result.output == [1, 2]


def test_contributions_of_all_branches_are_combined() -> None:
    @agent
    async def child(ctx: InvocationContext, item: int) -> None:
        ctx.state.contribute("sum", item)

    ended = run_tree(Runner(mapping(child, range(20)), reducers={"sum": "add"}))
    assert ended.result.state["sum"] == sum(range(20))


# -------------------------------------------------------------------------------------- limits


@fewer(2)
@given(
    st.lists(st.integers(0, 4).map(float), min_size=1, max_size=12),
    st.integers(1, 4),
    st.random_module(),
)
def test_no_more_than_the_limit_run_and_as_many_as_it_allows(
    seconds: list[float], limit: int, scheduler: object
) -> None:
    meter = Meter()
    run_tree(mapping(meter.child(), seconds, max_concurrency=limit))
    assert meter.most == min(limit, len(seconds))


def test_those_that_wait_start_in_order() -> None:
    meter = Meter()
    run_tree(mapping(meter.child(), range(10), max_concurrency=1))
    assert meter.begun == list(range(10))


def test_a_limit_is_for_one_fan_out_and_not_for_those_below() -> None:
    meter = Meter()
    middle = mapping(meter.child(), [1, 2, 3]).with_options(name="middle")
    run_tree(parent(lambda ctx: ctx.map(middle, [0, 0, 0, 0], max_concurrency=2)))
    assert meter.most == 6


@pytest.mark.parametrize("limit", [1, 2, None])
def test_maps_in_maps_in_maps_end_under_any_limit_of_the_run(limit: int | None) -> None:
    meter = Meter()
    low = mapping(meter.child(), [1, 2]).with_options(name="low")
    middle = parent(lambda ctx: ctx.map(low, [0, 0]), name="middle")
    tree = parent(lambda ctx: ctx.map(middle, [0, 0]))
    ended = run_tree(tree, run_config=RunConfig(max_concurrency=limit))
    assert ended.result.output == [[[1, 2], [1, 2]], [[1, 2], [1, 2]]]
    assert meter.most == (limit or 8)


def test_a_thousand_items_under_a_limit_of_ten_need_ten_tasks() -> None:
    most, output, _ = many(1_000)
    assert output == 1_000
    assert most <= 10 + OTHER_TASKS


@pytest.mark.deep
def test_a_hundred_thousand_items_under_a_limit_of_ten_need_ten_tasks() -> None:
    most, output, _ = many(100_000)
    assert output == 100_000
    assert most <= 10 + OTHER_TASKS


@pytest.mark.deep
def test_what_an_item_leaves_behind_is_its_outcome_and_its_events() -> None:
    """Bytes per item do not grow with their number, and no activation outlives its item."""
    _, _, small = many(2_000, traced=True)
    _, _, large = many(20_000, traced=True)
    assert large / 20_000 < 1.2 * small / 2_000 + 100
    assert large / 20_000 < 3_000


OTHER_TASKS: Final = 8
"""The reader, the run, the parent, and trio's own."""


def many(width: int, *, traced: bool = False) -> tuple[int, int, int]:
    """Map so many items, ten at a time.

    Returns the most tasks there were, the number of outputs, and the bytes in use at the end.
    """
    most = 0

    @agent
    async def child(ctx: InvocationContext, item: int) -> int:
        nonlocal most
        most = max(most, trio.lowlevel.current_statistics().tasks_living)
        return item

    async def body(ctx: InvocationContext) -> int:
        outputs = await ctx.map(child, range(width), max_concurrency=10)
        assert outputs == list(range(width))
        return len(outputs)

    async def main() -> tuple[int, int]:
        if traced:
            gc.collect()
            tracemalloc.start()
        async with Runner(parent(body)).open("hi") as run:
            async for _ in run:
                pass
            gc.collect()
            used = tracemalloc.get_traced_memory()[0] if traced else 0
            tracemalloc.stop()
        return run.result.output, used

    output, used = run_virtual(main)
    return most, output, used


# ----------------------------------------------------------------------------------- the end


@pytest.mark.parametrize(
    "barrier", [FailFast(), WaitAll(), BestEffort(), FirstSuccess(), Quorum(1), Escalate()]
)
@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_one_branch_ends_the_others_at_once_whatever_the_policy(
    barrier: Barrier, fatal: type[BaseException]
) -> None:
    def interrupt(ctx: object) -> None:
        raise fatal

    async def main() -> float:
        tasks = [leaf("long", 1_000), leaf("interrupted", 1, interrupt)]
        tree = parent(lambda ctx: ctx.fan_out(tasks, barrier=barrier))
        async with Runner(tree).open() as run:
            with pytest.raises(fatal):
                await run.collect()
        return trio.current_time()

    began = run_virtual(_now)
    assert run_virtual(main) - began == 1


async def _now() -> float:
    return trio.current_time()


@pytest.mark.parametrize("limit", [None, 1, 3])
@pytest.mark.parametrize("way", ["cancel", "leave"])
def test_a_fan_out_that_is_cancelled_from_outside_joins_its_branches(
    way: str, limit: int | None
) -> None:
    diary: list[str] = []
    child = leaf("child", "x", 99, diary=diary)

    async def main() -> None:
        tree = parent(lambda ctx: ctx.fan_out([child] * 3))
        config = RunConfig(max_concurrency=limit)
        async with Runner(tree).open(run_config=config) as run:
            await anext(run)
            if way == "cancel":
                run.cancel("enough")
                await run.collect()
        assert run.result.status is Status.CANCELLED
        # Under a limit too, which the fan-out could not come back through.
        assert [str(one.status) for one in run.outcomes("parent")] == ["cancelled"] * 3

    run_virtual(main)
    assert diary.count("child starts") == diary.count("child ends") > 0


@pytest.mark.parametrize("limit", [None, 2])
def test_a_failure_in_cleaning_up_after_a_cancellation_from_outside_is_raised(
    limit: int | None,
) -> None:
    error = KeyError("clean-up")

    @agent
    async def child(ctx: InvocationContext, item: int) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise error

    async def main() -> None:
        config = RunConfig(max_concurrency=limit)
        async with Runner(mapping(child, [1])).open(run_config=config) as run:
            await trio.sleep(1)
            run.cancel("enough")
            with pytest.raises(KeyError) as caught:
                await run.collect()
        assert caught.value is error

    run_virtual(main)


def test_retries_around_and_inside_a_map_do_not_multiply() -> None:
    tried = 0

    @agent(retry=Retry(3, initial_delay=0))
    async def child(ctx: InvocationContext, item: int) -> None:
        nonlocal tried
        tried += 1
        raise RefusedError(item)

    run_tree(mapping(child, [1]).with_options(retry=Retry(3, initial_delay=0)))
    assert tried == 3


def test_an_agent_that_is_tried_again_maps_anew() -> None:
    async def body(ctx: InvocationContext) -> list[Any]:
        outputs = await ctx.map(double, [1, 2])
        if ctx.path.endswith("parent"):
            raise RefusedError
        return [ctx.path, outputs]

    ended = run_tree(parent(body, retry=Retry(2, initial_delay=0)))
    assert ended.result.output == ["parent~2", [2, 4]]
    assert {event.path for event in ended.delivered if event.author == "double"} == {
        "parent/double@1",
        "parent/double@2",
        "parent~2/double@1",
        "parent~2/double@2",
    }


def test_a_quorum_that_is_lost_says_what_became_of_every_branch() -> None:
    ended = run_tree(parent(lambda ctx: ctx.map_outcomes(picky, [-1, 5, -2], barrier=Quorum(2))))
    assert isinstance(ended.error, QuorumError)
    assert (ended.error.completed, ended.error.quorum, ended.error.width) == (0, 2, 3)
    assert ended.time == 2


@fewer(2)
@given(st.lists(st.integers(-4, 4).filter(bool), min_size=1, max_size=6), st.data())
def test_the_run_ends_and_nothing_is_left_whenever_the_reader_leaves(
    items: list[int], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(items)))

    async def main() -> int:
        living = trio.lowlevel.current_statistics().tasks_living
        with suppress(RefusedError):
            async with Runner(mapping(picky, items)).open() as run:
                with suppress(StopAsyncIteration):
                    for _ in range(at):
                        await anext(run)
        assert run.result.status in (Status.CANCELLED, Status.FAILED, Status.COMPLETED)
        return trio.lowlevel.current_statistics().tasks_living - living

    assert run_virtual(main) == 0


def test_the_checker_of_living_tasks_sees_an_unlimited_map() -> None:
    most = 0

    @agent
    async def child(ctx: InvocationContext, item: int) -> None:
        nonlocal most
        most = max(most, trio.lowlevel.current_statistics().tasks_living)

    run_tree(mapping(child, range(100)))
    assert most > 100
