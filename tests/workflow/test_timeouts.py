"""Time: how long an agent may take, and how long it may be silent.

``timeout`` counts from the real start of an attempt, ``idle_timeout`` from its last event. Both end
in an `AgentTimeoutError` that names the agent, once everything below it has cleaned up.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    AgentTimeoutError,
    BestEffort,
    EscapedCancellationError,
    Event,
    FirstSuccess,
    InvocationContext,
    Limiter,
    LoopAgent,
    ParallelAgent,
    Plugin,
    Retry,
    RunConfig,
    Runner,
    SequentialAgent,
    Status,
    UncancellableAgentError,
    agent,
)
from tests.support.stores import SlowStore
from tests.support.timing import clock_with_horizon
from tests.workflow.trees import (
    Diary,
    Ended,
    Escalate,
    Script,
    Yields,
    leaf,
    open_and_read,
    paths,
    run_tree,
    run_virtual,
    texts,
)

KINDS = ["timeout", "idle_timeout"]

TALKS: list[Script] = [1.5, "x"] * 6
"""Says something every second and a half."""


class BoomError(Exception):
    pass


def timed_out(ended: Ended, path: str, kind: str = "timeout") -> AgentTimeoutError:
    """Return the run's error, having checked whose time it was."""
    error = ended.error
    assert isinstance(error, AgentTimeoutError), repr(error)
    assert (error.path, error.kind) == (path, kind)
    return error


def limited(made: Agent, kind: str, seconds: float | None) -> Agent:
    """Return the agent with a limit of one kind or the other."""
    if kind == "timeout":
        return made.with_options(timeout=seconds)
    return made.with_options(idle_timeout=seconds)


def cleaning_up(name: str, *steps: Any, diary: Diary | None = None, **options: Any) -> Agent:
    """An agent that waits for its cancellation, and then does this under a shield."""

    @agent(name=name, **options)
    async def run(ctx: InvocationContext) -> Yields:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                for step in steps:
                    if isinstance(step, BaseException):
                        raise step
                    if isinstance(step, str):
                        yield step
                    else:
                        await trio.sleep(step)
            if diary is not None:
                diary.append(f"{name} cleaned up at {trio.current_time():g}")

    return run


# --------------------------------------------------------------------------------- what is raised


@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_whose_time_is_over_fails_with_a_typed_error(kind: str) -> None:
    slow = limited(leaf("slow", 9, "never"), kind, 2.5)
    tree = SequentialAgent("s", [ParallelAgent("p", [slow])])
    ended = run_tree(tree)
    error = timed_out(ended, "s/p/slow", kind)
    assert (error.branch, error.seconds) == ("p.slow", 2.5)
    assert isinstance(error, TimeoutError)
    assert ended.time == 2.5
    assert ended.result.status is Status.FAILED
    assert texts(ended.delivered) == []


def test_the_error_says_who_what_and_how_long() -> None:
    ended = run_tree(ParallelAgent("p", [leaf("slow", 9, timeout=2.5)]))
    assert str(ended.error) == "p/slow was not done within 2.5 s (timeout, on branch p.slow)"
    ended = run_tree(leaf("slow", 9, idle_timeout=2))
    assert str(ended.error) == "slow emitted nothing for 2 s (idle_timeout)"
    assert isinstance(ended.error, AgentTimeoutError)
    assert ended.error.branch is None


@pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])  # noqa: S301  # made here
def test_the_error_can_be_copied(copied: Callable[[Any], Any]) -> None:
    error = AgentTimeoutError("p/slow", "p.slow", "timeout", 2)
    again = copied(error)
    assert type(again) is AgentTimeoutError
    assert (str(again), vars(again)) == (str(error), vars(error))


@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_that_is_done_in_time_is_left_alone(kind: str) -> None:
    made = leaf("a", 1, "x", 1, "y")
    ended = run_tree(limited(made, kind, 2.5 if kind == "timeout" else 1.5))
    assert ended.error is None
    assert texts(ended.delivered) == ["x", "y"]


def test_what_was_said_in_time_is_kept() -> None:
    ended = run_tree(leaf("slow", "x", 1, "y", 9, "never", timeout=2))
    timed_out(ended, "slow")
    assert texts(ended.result.events) == ["x", "y"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_time_at_all_is_over_at_the_first_wait(kind: str) -> None:
    ended = run_tree(limited(leaf("a", "never"), kind, 0))
    assert timed_out(ended, "a", kind).seconds == 0
    assert texts(ended.delivered) == []
    assert ended.time == 0


def test_callbacks_count() -> None:
    async def slow(ctx: InvocationContext) -> None:
        await trio.sleep(2)

    timed_out(run_tree(leaf("a", "x", before_agent_callback=slow, timeout=1)), "a")
    timed_out(run_tree(leaf("a", "x", after_agent_callback=slow, timeout=1)), "a")


def test_both_limits_may_hold_one_agent() -> None:
    steps: list[Script] = ["x", 1.5, "y", 1.5, "z", 1.5, "never"]
    timed_out(run_tree(leaf("a", *steps, timeout=4, idle_timeout=2)), "a")
    timed_out(run_tree(leaf("a", *steps, timeout=4, idle_timeout=1)), "a", "idle_timeout")


def test_the_same_agent_has_its_time_anew_whenever_it_runs() -> None:
    ended = run_tree(LoopAgent("loop", [leaf("a", 2, "x", timeout=3)], max_iterations=5))
    assert ended.error is None
    assert ended.time == 10


# ------------------------------------------------------------------------------ as one of a fan-out


def test_a_branch_whose_time_is_over_has_failed_not_been_cancelled() -> None:
    tree = ParallelAgent(
        "p", [leaf("slow", 9, timeout=1), leaf("other", 2, "x")], barrier=BestEffort()
    )
    ended = run_tree(tree)
    slow = ended.outcome("p", "slow")
    assert (slow.status, slow.own, slow.timed_out, slow.duration) == (Status.FAILED, True, True, 1)
    assert not ended.outcome("p", "other").timed_out
    (recorded,) = [event.actions.outcomes for event in ended.result.events if event.author == "p"]
    assert (recorded[0].status, recorded[0].error_type) == ("failed", "AgentTimeoutError")


def test_a_branch_whose_time_is_over_cancels_the_others_as_any_failure_does() -> None:
    ended = run_tree(ParallelAgent("p", [leaf("other", 5, "never"), leaf("slow", 9, timeout=1)]))
    timed_out(ended, "p/slow")
    assert ended.outcomes("p") == {"other": "cancelled", "slow": "failed"}


def test_an_outcome_is_timed_out_by_what_is_below_it_too() -> None:
    inner = SequentialAgent("inner", [leaf("slow", 9, timeout=1)])
    ended = run_tree(ParallelAgent("p", [inner], barrier=BestEffort()))
    assert ended.outcome("p", "inner").timed_out


def test_the_time_of_one_is_not_the_time_of_the_others() -> None:
    workers = [leaf(f"w{number}", 9, timeout=number) for number in (1, 2, 3)]
    ended = run_tree(ParallelAgent("p", workers, barrier=BestEffort()))
    assert [outcome.duration for outcome in ended.run.outcomes("p")] == [1, 2, 3]


def test_a_failure_may_be_caught_by_the_agent_that_ran_it() -> None:
    @agent
    async def parent(ctx: InvocationContext) -> str:
        with suppress(AgentTimeoutError):
            await ctx.run_agent(leaf("slow", 9, timeout=1))
        return f"went on at {trio.current_time():g}"

    assert run_tree(parent).result.output == "went on at 1"


def test_plugins_are_asked_about_it_like_about_any_failure() -> None:
    class Excuses(Plugin):
        async def on_agent_error_callback(self, ctx: InvocationContext, error: Exception) -> str:
            return f"{ctx.path}: {error}"

    ended = run_tree(Runner(leaf("slow", 9, timeout=1), plugins=[Excuses()]))
    assert ended.result.output == "slow: slow was not done within 1 s (timeout)"


# ------------------------------------------------------------------------------------- from when on


def test_queueing_for_the_run_does_not_count() -> None:
    workers = [leaf(f"w{number}", 2, "x", timeout=3, idle_timeout=2.5) for number in range(4)]
    ended = run_tree(ParallelAgent("p", workers), run_config=RunConfig(max_concurrency=1))
    assert ended.error is None
    assert ended.time == 8


def test_queueing_for_a_limiter_does_not_count() -> None:
    shared = Limiter(1)
    workers = [
        leaf(f"w{number}", 2, "x", timeout=3, idle_timeout=2.5, limiter=shared)
        for number in range(4)
    ]
    assert run_tree(ParallelAgent("p", workers)).error is None


@pytest.mark.parametrize("how", ["parallel", "map", "open"])
def test_queueing_in_a_fan_out_of_limited_width_does_not_count(how: str) -> None:
    item = leaf("item", 2, "x", timeout=3, idle_timeout=2.5)

    @agent
    async def parent(ctx: InvocationContext) -> None:
        if how == "map":
            await ctx.map(item, range(4), max_concurrency=1)
        else:
            async with ctx.open_fan_out(max_concurrency=1) as group:
                for _ in range(4):
                    group.start(item)

    tree: Agent = parent
    if how == "parallel":
        workers = [item.with_options(name=f"w{number}") for number in range(4)]
        tree = ParallelAgent("p", workers, max_concurrency=1)
    ended = run_tree(tree)
    assert ended.error is None
    assert ended.time == 8


def test_queueing_to_go_on_after_a_wait_is_no_idleness() -> None:
    """Nor is it when those below queue to begin."""
    shared = Limiter(1)
    child = leaf("child", 1, "x")

    @agent(limiter=shared, idle_timeout=2)
    async def parent(ctx: InvocationContext) -> str:
        await ctx.run_agent(child)  # it holds no slot meanwhile, and another takes it
        return "done"

    hog = leaf("hog", 9, limiter=shared)
    ended = run_tree(ParallelAgent("p", [parent, hog]))
    assert ended.error is None
    assert ended.result.output["parent"] == "done"

    queues = SequentialAgent("queues", [leaf("late", 1, limiter=shared)], idle_timeout=2)
    assert run_tree(ParallelAgent("p", [leaf("hog", 9, limiter=shared), queues])).error is None


def test_a_parent_whose_children_are_idle_in_its_own_queue_is_idle() -> None:
    """What they queue for is held by a sibling of theirs, below the same agent."""

    @agent(idle_timeout=2)
    async def parent(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out(max_concurrency=1) as group:
            group.start(leaf("hangs", 99))
            group.start(leaf("waits", "x"))

    timed_out(run_tree(parent), "parent", "idle_timeout")


def test_time_goes_on_while_the_reader_is_slow_but_that_is_no_idleness() -> None:
    assert run_tree(leaf("a", "x", "y", "z", idle_timeout=1), pause=5).error is None
    timed_out(run_tree(leaf("a", "x", "y", "z", timeout=8), pause=5), "a")


# ---------------------------------------------------------------------------------- what is idle


def test_every_event_of_an_agent_starts_its_idle_time_anew() -> None:
    steps: list[Script] = TALKS
    assert run_tree(leaf("a", *steps, idle_timeout=2)).error is None
    ended = run_tree(leaf("a", *steps, 2.5, "never", idle_timeout=2))
    timed_out(ended, "a", "idle_timeout")
    assert ended.time == 11


def test_partial_events_are_signs_of_life() -> None:
    @agent(idle_timeout=2)
    async def streams(ctx: InvocationContext) -> Yields:
        for piece in "abcd":
            await trio.sleep(1.5)
            yield Event(piece, partial=True)

    assert run_tree(streams).error is None


@pytest.mark.parametrize("how", ["run_agent", "map", "open_fan_out", "open_agent", "nested"])
def test_events_of_those_below_are_signs_of_life(how: str) -> None:
    child = leaf("child", 1.5, "x", 1.5, "y")

    @agent(idle_timeout=2)
    async def parent(ctx: InvocationContext) -> None:
        match how:
            case "run_agent":
                await ctx.run_agent(child)
            case "map":
                await ctx.map(child, [1, 2])
            case "open_fan_out":
                async with ctx.open_fan_out() as group:
                    group.start(child)
            case "open_agent":
                async with ctx.open_agent(child) as events:
                    async for event in events:
                        await ctx.emit(event)
            case _:
                await ctx.run_agent(ParallelAgent("p", [SequentialAgent("s", [child])]))
        await trio.sleep(1.5)

    assert run_tree(parent).error is None


def test_any_one_below_keeps_an_agent_alive_and_none_of_the_others() -> None:
    talks = leaf("talks", *TALKS)
    silent = leaf("silent", 8)
    assert run_tree(ParallelAgent("p", [talks, silent], idle_timeout=2)).error is None
    ended = run_tree(
        ParallelAgent("p", [talks, silent.with_options(idle_timeout=2)], idle_timeout=2)
    )
    timed_out(ended, "p/silent", "idle_timeout")


def test_a_sibling_says_nothing_for_an_agent() -> None:
    ended = run_tree(SequentialAgent("s", [leaf("a", 1.5, "x"), leaf("b", 2.5, idle_timeout=2)]))
    timed_out(ended, "s/b", "idle_timeout")
    assert ended.time == 3.5


def test_an_event_that_waits_its_turn_behind_others_is_no_idleness() -> None:
    workers = [leaf(name, "x", "y", idle_timeout=1) for name in ("a", "b", "c")]
    assert run_tree(ParallelAgent("p", workers), pause=4).error is None


def test_an_event_that_is_being_recorded_is_no_idleness() -> None:
    runner = Runner(leaf("a", "x", "y", idle_timeout=1), session_service=SlowStore((5,)))
    assert run_tree(runner).error is None


def test_idle_time_goes_on_once_the_reader_is_back() -> None:
    ended = run_tree(leaf("a", "x", 9, idle_timeout=2), pause=5)
    timed_out(ended, "a", "idle_timeout")
    assert ended.time == 7


@pytest.mark.parametrize("below", [False, True])
def test_to_wait_for_a_person_is_no_idleness(below: bool) -> None:  # noqa: FBT001  # drawn
    @agent(idle_timeout=None if below else 2)
    async def asks(ctx: InvocationContext) -> Any:
        return await ctx.request_input("well?")

    other = leaf("other", 30, "x")
    tree = SequentialAgent("s", [asks], idle_timeout=2) if below else asks

    async def main() -> Any:
        async with Runner(ParallelAgent("p", [tree, other])).open() as run:
            async for event in run:
                if event.text == "x":
                    await run.respond(run.pending[0].id, "yes")
        return run.result.output

    assert list(run_virtual(main).values()) == ["yes", "x"]


def test_to_wait_for_a_message_is_no_idleness() -> None:
    @agent(idle_timeout=2)
    async def listens(ctx: InvocationContext) -> str:
        return (await ctx.receive()).text

    @agent
    async def sends(ctx: InvocationContext) -> None:
        await trio.sleep(30)
        await ctx.send("hello", to="p.listens")

    ended = run_tree(ParallelAgent("p", [listens, sends]))
    assert ended.result.output["listens"] == "hello"


def test_to_wait_for_a_person_takes_time_all_the_same() -> None:
    @agent(timeout=5)
    async def asks(ctx: InvocationContext) -> Any:
        return await ctx.request_input("well?")

    timed_out(run_tree(asks), "asks")


def test_after_an_answer_idle_time_begins_anew() -> None:
    @agent(idle_timeout=2)
    async def listens(ctx: InvocationContext) -> None:
        await ctx.receive()
        await trio.sleep(9)

    @agent
    async def sends(ctx: InvocationContext) -> None:
        await trio.sleep(30)
        await ctx.send("hello", to="p.listens")

    ended = run_tree(ParallelAgent("p", [listens, sends]))
    timed_out(ended, "p/listens", "idle_timeout")
    assert ended.time == 32


def test_a_wait_that_the_agent_gave_up_itself_is_over() -> None:
    @agent(idle_timeout=2)
    async def listens(ctx: InvocationContext) -> None:
        with trio.move_on_after(10):
            await ctx.receive()
        await trio.sleep(9)

    ended = run_tree(listens)
    timed_out(ended, "listens", "idle_timeout")
    assert ended.time == 12


def test_a_child_whose_event_its_parent_looks_at_is_not_idle_but_the_parent_is() -> None:
    def thinking(**options: Any) -> Agent:
        @agent(name="parent", **options)
        async def parent(ctx: InvocationContext) -> None:
            async with ctx.open_agent(leaf("child", "x", "y", idle_timeout=2)) as events:
                async for event in events:
                    await trio.sleep(9)
                    await ctx.emit(event)

        return parent

    assert run_tree(thinking()).error is None
    timed_out(run_tree(thinking(idle_timeout=3)), "parent", "idle_timeout")


# -------------------------------------------------------------------------------------- nesting


@given(
    st.lists(
        st.tuples(st.sampled_from(KINDS), st.none() | st.integers(1, 9)), min_size=1, max_size=5
    ),
    st.sampled_from(["sequential", "parallel", "dynamic"]),
    st.integers(1, 9),
    st.random_module(),
)
def test_of_limits_around_each_other_the_soonest_counts_and_of_equals_the_outermost(
    limits: list[tuple[str, int | None]], how: str, takes: int, scheduler: object
) -> None:
    """An inner one can only be sooner. ``limits`` go from the outermost to the leaf itself."""
    tree: Agent = leaf("level0", takes + 0.5, "done")
    for number, (kind, seconds) in enumerate(reversed(limits)):
        if number:
            tree = _around(f"level{number}", tree, how)
        tree = limited(tree, kind, seconds)
    ended = run_tree(tree)
    hit = [
        (seconds, index)
        for index, (_, seconds) in enumerate(limits)
        if seconds is not None and seconds <= takes
    ]
    if not hit:
        assert ended.error is None
        assert texts(ended.delivered) == ["done"]
        return
    seconds, index = min(hit)
    error = timed_out(ended, _path(index, len(limits), how), limits[index][0])
    assert (error.seconds, ended.time) == (seconds, seconds)


def _around(name: str, child: Agent, how: str) -> Agent:
    if how == "sequential":
        return SequentialAgent(name, [child])
    if how == "parallel":
        return ParallelAgent(name, [child])

    @agent(name=name)
    async def parent(ctx: InvocationContext) -> None:
        await ctx.run_agent(child)

    return parent


def _path(index: int, depth: int, how: str) -> str:
    names = [f"level{depth - 1 - level}" for level in range(index + 1)]
    return "/".join(
        f"{name}@1" if how == "dynamic" and level else name for level, name in enumerate(names)
    )


def test_an_outer_limit_cancels_everything_below() -> None:
    diary = Diary()
    workers = [cleaning_up(name, 1, diary=diary, timeout=50) for name in ("a", "b")]
    inner = LoopAgent("loop", [ParallelAgent("inner", workers)], max_iterations=3)
    ended = run_tree(ParallelAgent("outer", [inner, cleaning_up("c", 2, diary=diary)], timeout=5))
    timed_out(ended, "outer")
    assert sorted(diary) == ["a cleaned up at 6", "b cleaned up at 6", "c cleaned up at 7"]
    assert ended.outcomes("outer") == {"loop": "cancelled", "c": "cancelled"}
    statistics = ended.run.statistics()
    assert (statistics.failed, statistics.cancelled) == (1, 5)


def test_an_outer_limit_cancels_dynamic_children() -> None:
    diary = Diary()

    @agent(timeout=5)
    async def parent(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out() as group:
            group.start(cleaning_up("a", 1, diary=diary))
            await ctx.map(cleaning_up("b", 1, diary=diary), [1, 2])

    timed_out(run_tree(parent), "parent")
    assert sorted(diary) == ["a cleaned up at 6", "b cleaned up at 6", "b cleaned up at 6"]


def test_what_a_sibling_decided_first_is_not_a_timeout() -> None:
    """It is cancelled at 3 and cleans up until after its time."""
    slow = cleaning_up("slow", 5, timeout=4)
    ended = run_tree(ParallelAgent("p", [slow, leaf("stops", 3, Escalate())]))
    assert ended.error is None
    assert ended.outcomes("p")["slow"] == "cancelled"


@given(st.random_module())
def test_cancelled_in_the_very_moment_it_is_not_a_timeout(scheduler: object) -> None:
    ended = run_tree(ParallelAgent("p", [leaf("slow", 9, timeout=3), leaf("stops", 3, Escalate())]))
    # Whichever comes first: one of the two, and no mixture.
    if ended.error is None:
        assert ended.outcomes("p") == {"slow": "cancelled", "stops": "completed"}
    else:
        timed_out(ended, "p/slow")


# ------------------------------------------------------------------------------------- cleaning up


@pytest.mark.parametrize("kind", KINDS)
def test_clean_up_runs_and_what_it_says_under_a_shield_is_recorded(kind: str) -> None:
    diary = Diary()
    ended = run_tree(limited(cleaning_up("slow", 3, "cleaned", 3, diary=diary), kind, 2))
    timed_out(ended, "slow", kind)
    assert texts(ended.delivered) == ["cleaned"]
    assert diary == ["slow cleaned up at 8"]
    assert ended.time == 8


def test_a_failure_in_cleaning_up_is_a_note() -> None:
    ended = run_tree(ParallelAgent("p", [cleaning_up("slow", 1, BoomError("boom"), timeout=2)]))
    error = timed_out(ended, "p/slow")
    assert error.__notes__ == [
        "then, in cleaning up: BoomError: boom",
        "raised by agent p/slow",
    ]


def test_a_failure_of_something_below_in_cleaning_up_is_a_note() -> None:
    inner = ParallelAgent("inner", [cleaning_up("slow", BoomError("boom"))])
    error = timed_out(run_tree(SequentialAgent("s", [inner], timeout=2)), "s")
    assert any("BoomError: boom" in note for note in error.__notes__)


def test_what_ends_the_program_is_not_hidden_by_a_timeout() -> None:
    with pytest.raises(SystemExit):
        run_tree(cleaning_up("slow", SystemExit(3), timeout=2))


@pytest.mark.parametrize("shape", ["coroutine", "generator"])
def test_an_agent_that_swallows_the_cancellation_and_returns_is_timed_out_all_the_same(
    shape: str,
) -> None:
    @agent(timeout=2, output_key="k")
    async def coroutine(ctx: InvocationContext) -> str:
        with suppress(trio.Cancelled):
            await trio.sleep(9)
        return "as if nothing had been"

    @agent(timeout=2, output_key="k")
    async def generator(ctx: InvocationContext) -> Yields:
        yield "x"
        with suppress(trio.Cancelled):
            await trio.sleep(9)

    ended = run_tree(coroutine if shape == "coroutine" else generator)
    timed_out(ended, shape)
    assert ended.result.output is None
    assert ended.result.state == ({} if shape == "coroutine" else {"k": "x"})


def test_an_agent_that_says_something_else_instead_is_timed_out_and_has_a_note() -> None:
    @agent(timeout=2)
    async def slow(ctx: InvocationContext) -> None:
        try:
            await trio.sleep(9)
        except trio.Cancelled:
            raise BoomError("instead") from None

    error = timed_out(run_tree(slow), "slow")
    assert error.__notes__[0] == "then, in cleaning up: BoomError: instead"


def test_an_agent_that_goes_on_yielding_fails_as_one_that_cannot_be_cancelled() -> None:
    @agent(timeout=2)
    async def stubborn(ctx: InvocationContext) -> Yields:
        while True:
            with suppress(trio.Cancelled):
                yield "on"
                await trio.sleep(1)

    ended = run_tree(stubborn)
    assert isinstance(ended.error, UncancellableAgentError)
    assert ended.time == 2


@given(st.booleans(), st.random_module())
def test_a_failure_in_the_very_moment_is_the_agents_own(first: bool, scheduler: object) -> None:  # noqa: FBT001  # drawn
    """It was about to fail anyway, not cleaning up: what it says about it is worth more."""

    async def main() -> Ended:
        over = trio.Event()

        @agent(timeout=2)
        async def fails(ctx: InvocationContext) -> None:
            with trio.CancelScope(shield=True):
                await over.wait()
            raise BoomError

        async def at_the_moment() -> None:
            await trio.sleep(2)
            over.set()

        async with trio.open_nursery() as nursery:
            if first:
                nursery.start_soon(at_the_moment)
            ended = await open_and_read(fails) if first else None
            if ended is None:
                nursery.start_soon(at_the_moment)
                ended = await open_and_read(fails)
        return ended

    assert isinstance(run_virtual(main).error, BoomError)


def test_an_agent_that_is_done_in_the_very_moment_is_too_late() -> None:
    """Whatever the order in which the two deadlines are looked at."""

    @agent(timeout=2)
    async def late(ctx: InvocationContext) -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        return "done"

    timed_out(run_tree(late), "late")


# ------------------------------------------------------------------------------ scopes of its own


def test_a_scope_of_its_own_that_is_sooner_is_its_own_business() -> None:
    @agent(timeout=5)
    async def patient(ctx: InvocationContext) -> Yields:
        with trio.move_on_after(2) as scope:
            yield "x"
            await trio.sleep(9)
        assert scope.cancelled_caught
        yield "y"

    ended = run_tree(patient)
    assert ended.error is None
    assert texts(ended.delivered) == ["x", "y"]


def test_a_scope_of_its_own_that_is_later_does_not_hide_the_timeout() -> None:
    @agent(timeout=2)
    async def slow(ctx: InvocationContext) -> Yields:
        with trio.move_on_after(5) as scope:
            await trio.sleep(9)
        yield f"never {scope.cancelled_caught}"

    ended = run_tree(slow)
    timed_out(ended, "slow")
    assert texts(ended.delivered) == []


def test_a_scope_of_its_own_that_is_over_in_the_very_moment_does_not_either() -> None:
    @agent(timeout=2)
    async def slow(ctx: InvocationContext) -> Yields:
        with trio.move_on_after(2):
            await trio.sleep(9)
        yield "never"

    timed_out(run_tree(slow), "slow")


def test_too_slow_by_its_own_measure_is_a_failure_of_its_own() -> None:
    @agent(timeout=5)
    async def slow(ctx: InvocationContext) -> None:
        with trio.fail_after(2):
            await trio.sleep(9)

    ended = run_tree(slow)
    assert isinstance(ended.error, trio.TooSlowError)


def test_a_scope_of_the_runs_around_it_is_no_timeout_of_an_agent() -> None:
    async def main() -> float:
        with trio.move_on_after(2) as scope:
            await open_and_read(leaf("slow", 9, timeout=5))
        assert scope.cancelled_caught
        return trio.current_time()

    assert run_virtual(main) == 2


# Whoever drops a generator half way is told so by trio; not what these tests are about.
_dropped = pytest.mark.filterwarnings("ignore:.*was garbage collected before:ResourceWarning")


@_dropped
@pytest.mark.parametrize("timeout", [1, 3, 50])
@pytest.mark.parametrize("kind", KINDS)
def test_a_helper_that_holds_a_scope_over_a_yield_is_told_so(kind: str, timeout: float) -> None:
    """Law 20, with a scope of the runtime's own around it that must not be corrupted."""

    async def helper() -> AsyncGenerator[str, None]:
        with trio.move_on_after(2):
            while True:
                yield "from inside"
                await trio.sleep(0.5)

    async def drain(ctx: InvocationContext) -> Yields:
        async for text in helper():
            yield text
            await trio.sleep(9)  # the helper's scope expires while it is not even running

    made = limited(agent(drain, name="drains"), kind, timeout)
    diary = Diary()
    after = leaf("after", 1, "still sound", diary=diary)

    @agent
    async def parent(ctx: InvocationContext) -> str:
        try:
            await ctx.run_agent(made)
        except (EscapedCancellationError, AgentTimeoutError) as error:
            await ctx.run_agent(after)
            return type(error).__name__
        return "nothing"

    ended = run_tree(parent)
    assert ended.error is None
    assert ended.result.output == "EscapedCancellationError"
    assert "still sound" in texts(ended.delivered)


@_dropped
def test_a_helper_of_that_kind_is_told_so_at_every_attempt_but_not_tried_again() -> None:
    begun = Diary()

    async def helper() -> AsyncGenerator[str, None]:
        with trio.move_on_after(2):
            while True:
                yield "from inside"

    @agent(timeout=50, retry=Retry(3))
    async def drains(ctx: InvocationContext) -> Yields:
        begun.append(ctx.path)
        async for text in helper():
            yield text
            await trio.sleep(9)

    assert isinstance(run_tree(drains).error, EscapedCancellationError)
    assert begun == ["drains"]


# ---------------------------------------------------------------------------------- with attempts


@pytest.mark.parametrize("kind", KINDS)
def test_every_attempt_has_its_own_time(kind: str) -> None:
    begun: list[tuple[str, float]] = []

    @agent(retry=Retry(3, initial_delay=1, backoff_factor=1, jitter=0))
    async def slow(ctx: InvocationContext) -> str:
        begun.append((ctx.path, trio.current_time()))
        await trio.sleep(9 if len(begun) < 3 else 1.5)
        return "done"

    ended = run_tree(limited(slow, kind, 2))
    assert ended.result.output == "done"
    assert begun == [("slow", 0), ("slow~2", 3), ("slow~3", 6)]


def test_the_error_of_the_last_attempt_names_it() -> None:
    ended = run_tree(leaf("slow", 9, timeout=2, retry=Retry(3, initial_delay=0)))
    timed_out(ended, "slow~3")
    assert ended.time == 6


def test_a_timeout_may_be_the_one_thing_that_is_tried_again() -> None:
    retry = Retry(3, initial_delay=0, on=AgentTimeoutError)
    assert run_tree(leaf("slow", 9, timeout=2, retry=retry)).time == 6
    assert run_tree(leaf("slow", 1, BoomError(), timeout=2, retry=retry)).time == 1


def test_clean_up_ends_before_the_next_attempt_begins() -> None:
    diary = Diary()
    made = cleaning_up("slow", 3, diary=diary, timeout=2, retry=Retry(2, initial_delay=0))
    ended = run_tree(made)
    assert diary == ["slow cleaned up at 5", "slow cleaned up at 10"]
    timed_out(ended, "slow~2")


def test_a_limit_around_an_agent_holds_for_all_its_attempts_together() -> None:
    inner = leaf("slow", 9, timeout=2, retry=Retry(9, initial_delay=0))
    ended = run_tree(SequentialAgent("s", [inner], timeout=5))
    timed_out(ended, "s")
    assert ended.time == 5


def test_a_limit_around_an_agent_cancels_it_between_two_attempts() -> None:
    inner = leaf("fails", BoomError(), retry=Retry(9, initial_delay=9, jitter=0))
    ended = run_tree(SequentialAgent("s", [inner], timeout=5))
    timed_out(ended, "s")
    assert ended.time == 5


def test_a_timed_out_attempt_leaves_no_writes_and_is_nobodys_history() -> None:
    seen: list[Any] = []

    def look(ctx: InvocationContext) -> None:
        seen.append((texts(ctx.history()), ctx.state.to_dict()))
        ctx.state["k"] = 1

    run_tree(leaf("slow", look, "x", 9, timeout=2, retry=Retry(2, initial_delay=0)))
    assert seen == [(["hi"], {}), (["hi"], {})]


def test_a_branch_that_is_timed_out_once_may_still_be_first() -> None:
    turns = iter([9.0])

    @agent(timeout=2, retry=Retry(2, initial_delay=0))
    async def flaky(ctx: InvocationContext) -> str:
        await trio.sleep(next(turns, 1))
        return ctx.path

    ended = run_tree(ParallelAgent("p", [flaky, leaf("slow", 9)], barrier=FirstSuccess()))
    assert ended.result.output == {"flaky": "p/flaky~2"}


# ----------------------------------------------------------------------------- an event on its way


def test_an_event_that_waits_when_time_is_over_is_withdrawn() -> None:
    tree = ParallelAgent(
        "p", [leaf("busy", "x"), leaf("slow", 1, "late", timeout=2)], barrier=BestEffort()
    )
    ended = run_tree(tree, pause=5)
    assert texts(ended.result.events) == ["x"]
    assert ended.outcome("p", "slow").timed_out


def test_an_event_that_is_being_recorded_when_time_is_over_is_recorded() -> None:
    runner = Runner(leaf("slow", 1, "x", timeout=1.5), session_service=SlowStore((3,)))
    ended = run_tree(runner)
    timed_out(ended, "slow")
    assert texts(ended.result.events) == ["x"]


def test_nothing_is_left_behind_by_any_of_this() -> None:
    """A run whose every agent has limits, on a clock that raises where it would hang."""
    workers = [
        leaf(
            f"w{number}",
            *TALKS[: 2 * number],
            timeout=1.5 * number + 0.5,
            idle_timeout=5,
            retry=Retry(2),
        )
        for number in range(1, 5)
    ]
    tree = SequentialAgent("s", [ParallelAgent("p", workers, timeout=30)], idle_timeout=10)

    async def main() -> Ended:
        before = trio.lowlevel.current_statistics().tasks_living
        ended = await open_and_read(tree)
        assert trio.lowlevel.current_statistics().tasks_living == before
        return ended

    ended = trio.run(main, clock=clock_with_horizon())
    assert ended.error is None
    assert sorted(set(paths(ended.delivered))) == [f"s/p/w{number}" for number in range(1, 5)]
