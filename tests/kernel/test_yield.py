"""``yield event`` in an agent is ``await ctx.emit(event)``, with its exceptions at the ``yield``.

Bare async generators break here (PEP 789): a cancel scope or nursery around a ``yield`` is then
entered in one task and left in another, or never left. Each situation asserts the exact order of
events and ``finally`` blocks.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from contextvars import ContextVar
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from parallel_agent import (
    ActivationEndedError,
    Agent,
    AgentFunctionError,
    BranchCancelledError,
    Content,
    EmitError,
    EscapedCancellationError,
    Event,
    EventActions,
    InvocationContext,
    ParallelAgent,
    Runner,
    SequentialAgent,
    StreamClosedError,
    UncancellableAgentError,
    agent,
)
from tests.kernel.scripted import (
    BatchingService,
    BoomError,
    Diary,
    FailingService,
    StoreError,
    Yields,
    check_run,
    counting,
    endless,
    failing,
    holds_cancellation,
    quiet,
    read_all,
    read_into,
    texts,
)

# ------------------------------------------------ an inner timeout and a slow reader


async def test_an_inner_timeout_expires_while_the_event_is_queued(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []

    @agent
    async def hasty(ctx: InvocationContext) -> Yields:
        yield "first"
        with trio.move_on_after(1) as scope:
            try:
                yield "late"
                diary.append("not reached")
            finally:
                diary.append(f"finally at {trio.current_time()}")
        diary.append(f"after the scope, caught {scope.cancelled_caught}")
        yield "second"
        diary.append("the end")

    runner = Runner(hasty)
    async with runner.open() as run:
        diary.append(f"got {(await anext(run)).text}")
        with trio.move_on_after(0):
            await anext(run)  # acknowledges "first"; "late" is emitted only after that
        await trio.sleep(5)
        async for event in run:
            diary.append(f"got {event.text}")
    assert diary == [
        "got first",
        "finally at 1.0",
        "after the scope, caught True",
        "got second",
        "the end",
    ]
    assert texts(await check_run(runner, run)) == ["first", "second"]


async def test_an_inner_timeout_expires_while_the_event_is_drained(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []

    @agent
    async def hasty(ctx: InvocationContext) -> Yields:
        with trio.move_on_after(1) as scope:
            try:
                yield "drained"
                diary.append("not reached")
            finally:
                diary.append(f"finally at {trio.current_time()}")
        diary.append(f"after the scope, caught {scope.cancelled_caught}")
        yield "second"
        diary.append("the end")

    runner = Runner(hasty, session_service=BatchingService(delay=5))
    async with runner.open() as run:
        async for event in run:
            diary.append(f"got {event.text} at {trio.current_time()}")
    assert diary == [
        "finally at 1.0",
        "after the scope, caught True",
        "got drained at 5.0",
        "got second at 10.0",
        "the end",
    ]
    assert texts(await check_run(runner, run)) == ["drained", "second"]


async def test_an_inner_timeout_expires_while_the_event_is_handed_out(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []

    @agent
    async def hasty(ctx: InvocationContext) -> Yields:
        with trio.move_on_after(1) as scope:
            try:
                yield "slowly read"
                diary.append("not reached")
            finally:
                diary.append(f"finally at {trio.current_time()}")
        diary.append(f"after the scope, caught {scope.cancelled_caught}")
        yield "second"
        diary.append("the end")

    runner = Runner(hasty)
    async with runner.open() as run:
        async for event in run:
            diary.append(f"got {event.text}")
            await trio.sleep(5)
            diary.append(f"done with {event.text}")
    assert diary == [
        "got slowly read",
        "finally at 1.0",
        "after the scope, caught True",
        "done with slowly read",
        "got second",
        "done with second",
        "the end",
    ]
    assert texts(await check_run(runner, run)) == ["slowly read", "second"]


async def test_an_inner_fail_after_is_the_agents_own_failure(autojump_clock: MockClock) -> None:
    @agent
    async def hasty(ctx: InvocationContext) -> Yields:
        with trio.fail_after(1):
            yield "slowly read"

    async with Runner(hasty).open() as run:
        await anext(run)
        await trio.sleep(5)
        with pytest.raises(trio.TooSlowError) as caught:
            await anext(run)
    assert caught.value.__notes__ == ["raised by agent hasty"]


async def test_inner_timeouts_one_after_another_are_no_refusal_to_be_cancelled(
    autojump_clock: MockClock,
) -> None:
    """The agent is not cancelled: its own scopes are, and they catch what is theirs."""
    gave_up: list[int] = []

    @agent
    async def patient(ctx: InvocationContext) -> Yields:
        for attempt in range(10):
            with trio.move_on_after(1):
                yield f"attempt {attempt}"
                return
            gave_up.append(attempt)

    async with Runner(patient).open() as run:
        await trio.sleep(7.5)
        assert texts(await read_all(run)) == ["attempt 7"]
    assert gave_up == list(range(7))


async def test_an_inner_timeout_over_several_yields_stops_at_the_one_it_meets(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []

    @agent
    async def hasty(ctx: InvocationContext) -> Yields:
        with trio.move_on_after(5):
            for index in range(10):
                try:
                    yield f"e{index}"
                finally:
                    diary.append(f"finally {index}")

    async with Runner(hasty).open() as run:
        async for event in run:
            diary.append(f"got {event.text}")
            await trio.sleep(2)
    assert diary == ["got e0", "finally 0", "got e1", "finally 1", "got e2", "finally 2"]


async def test_an_inner_timeout_around_a_child_ends_the_child_and_no_more(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []

    class Impatient(Agent):
        async def run(self, ctx: InvocationContext) -> Yields:
            for child in self.sub_agents:
                with trio.move_on_after(1):
                    await ctx.run_agent(child)
                    diary.append("not reached")
                yield f"gave up {child.name}"

    tree = Impatient(
        "impatient", [endless("a", diary), ParallelAgent("fan", [endless("b", diary)])]
    )
    runner = Runner(tree)
    async with runner.open() as run:
        async for event in run:
            diary += texts([event])
    assert diary == ["a0", "a cleaned up", "gave up a", "b0", "b cleaned up", "gave up fan"]
    await check_run(runner, run)
    assert run.result.status == "completed"
    counts = run.statistics()
    assert (counts.started, counts.completed, counts.cancelled) == (4, 1, 3)


# --------------------------------------- a background task in the agent's nursery


async def test_a_background_task_that_crashes_is_seen_at_the_yield(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []

    async def crash() -> None:
        try:
            await trio.sleep(1)
            raise BoomError
        finally:
            diary.append("task: finally")

    @agent
    async def works(ctx: InvocationContext) -> Yields:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(crash)
                try:
                    for index in range(9):
                        yield f"e{index}"
                        diary.append(f"e{index} acknowledged")
                except trio.Cancelled:
                    diary.append("cancelled at the yield")
                    raise
                finally:
                    diary.append("inner finally")
        finally:
            diary.append("outer finally")

    runner = Runner(works)
    async with runner.open() as run:
        diary.append(f"got {(await anext(run)).text}")
        diary.append(f"got {(await anext(run)).text}")
        await trio.sleep(5)
        diary.append("the reader comes back")
        with pytest.raises(ExceptionGroup) as caught:
            await anext(run)
    assert diary == [
        "got e0",
        "e0 acknowledged",
        "got e1",
        "task: finally",
        "cancelled at the yield",
        "inner finally",
        "outer finally",
        "the reader comes back",
    ]
    assert [type(error) for error in caught.value.exceptions] == [BoomError]
    assert not isinstance(caught.value.exceptions[0], BaseExceptionGroup)
    assert texts(await check_run(runner, run)) == ["e0", "e1"]


async def test_a_crash_in_the_background_can_be_handled_and_the_agent_goes_on(
    autojump_clock: MockClock,
) -> None:
    async def crash() -> None:
        await trio.sleep(1)
        raise BoomError

    @agent
    async def works(ctx: InvocationContext) -> Yields:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(crash)
                yield "slowly read"
        except* BoomError:
            pass
        yield "recovered"

    got: list[str] = []
    async with Runner(works).open() as run:
        await read_into(got, run, pause=5)
    assert got == ["slowly read", "recovered"]


async def test_background_tasks_emit_beside_the_agents_own_yields(
    autojump_clock: MockClock,
) -> None:
    @agent
    async def works(ctx: InvocationContext) -> Yields:
        async def tick() -> None:
            for index in range(3):
                await trio.sleep(1)
                await ctx.emit(f"tick {index}")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            await trio.sleep(1.5)
            yield "mine"
            await trio.sleep(1)
        yield "done"

    async with Runner(works).open() as run:
        assert texts(await read_all(run)) == ["tick 0", "mine", "tick 1", "tick 2", "done"]


# ------------------------------------------------------------ the consumer leaves


async def test_a_consumer_that_leaves_ends_the_agent_at_its_yield() -> None:
    diary: Diary = []

    @agent
    async def works(ctx: InvocationContext) -> Yields:
        try:
            with trio.CancelScope():
                async with trio.open_nursery():
                    try:
                        yield "a"
                        diary.append("not reached")
                    except trio.Cancelled:
                        diary.append("cancelled at the yield")
                        raise
                    finally:
                        diary.append("inner finally")
        finally:
            diary.append("outer finally")

    async with Runner(works).open() as run:
        async for event in run:
            diary.append(f"got {event.text}")
            break
        diary.append("leaving")
    diary.append("left")
    assert diary == [
        "got a",
        "leaving",
        "cancelled at the yield",
        "inner finally",
        "outer finally",
        "left",
    ]


async def test_a_consumer_that_leaves_with_an_error_ends_the_agent_before_the_error_goes_on(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []
    with pytest.raises(BoomError):
        await _raise_at_the_first_event(Runner(endless("a", diary)), diary)
    assert diary == ["got a0", "a cleaned up"]


async def _raise_at_the_first_event(runner: Runner, diary: Diary) -> None:
    async with runner.open() as run:
        async for event in run:
            diary.append(f"got {event.text}")
            raise BoomError


async def test_every_level_of_a_deep_tree_is_left_innermost_first() -> None:
    diary: Diary = []

    class Nested(Agent):
        async def run(self, ctx: InvocationContext) -> Yields:
            try:
                yield self.name
                for child in self.sub_agents:
                    await ctx.run_agent(child)
                await trio.sleep_forever()
            finally:
                diary.append(f"{self.name}: finally")

    tree = Nested("a", [Nested("b", [Nested("c", [Nested("d")])])])
    async with Runner(tree).open() as run:
        async for event in run:
            if event.text == "d":
                break
    assert diary == ["d: finally", "c: finally", "b: finally", "a: finally"]


# ------------------------------------------------------------- a shielded clean-up


async def test_a_shielded_clean_up_yields_and_is_acknowledged_after_the_reader_left(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []

    @agent
    async def tidy(ctx: InvocationContext) -> Yields:
        try:
            yield "a"
        finally:
            diary.append("finally begins")
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
                ctx.state["tidied"] = True
                yield "tidied"
                diary.append("tidied acknowledged")
            diary.append("finally ends")

    runner = Runner(tidy)
    async with runner.open() as run:
        async for event in run:
            diary.append(f"got {event.text}")
            break
    diary.append(f"left at {trio.current_time()}")
    assert diary == [
        "got a",
        "finally begins",
        "tidied acknowledged",
        "finally ends",
        "left at 1.0",
    ]
    assert texts(await check_run(runner, run)) == ["a", "tidied"]
    assert run.result.state == {"tidied": True}


async def test_a_shielded_clean_up_of_a_losing_branch_is_delivered(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []

    @agent
    async def tidy(ctx: InvocationContext) -> Yields:
        try:
            yield "a"
            await trio.sleep_forever()
        finally:
            diary.append("finally begins")
            with trio.CancelScope(shield=True):
                yield "tidied"
            diary.append("finally ends")

    got: list[str] = []
    async with Runner(ParallelAgent("both", [tidy, failing("b", after=1)])).open() as run:
        with pytest.raises(BoomError):
            await read_into(got, run)
        diary.append("the failure")
    assert got == ["a", "tidied"]
    assert diary == ["finally begins", "finally ends", "the failure"]


# --------------------------------------------- a generator that yields while cancelled


async def test_a_generator_that_yields_again_while_cancelled_is_cancelled_again() -> None:
    diary: Diary = []

    @agent
    async def slow_to_go(ctx: InvocationContext) -> Yields:
        try:
            yield "a"
        finally:
            diary.append("outer finally begins")
            try:
                yield "b"
            finally:
                diary.append("inner finally")
                with suppress(trio.Cancelled):
                    yield "c"
                diary.append("inner finally ends")

    runner = Runner(slow_to_go)
    async with runner.open() as run:
        async for event in run:
            diary.append(f"got {event.text}")
            break
    diary.append("left")
    assert diary == [
        "got a",
        "outer finally begins",
        "inner finally",
        "inner finally ends",
        "left",
    ]
    assert texts(await check_run(runner, run)) == ["a"]
    assert run.result.status == "cancelled"


def _refuser(diary: Diary, *, stops_after: int) -> Agent:
    @agent
    async def refuser(ctx: InvocationContext) -> Yields:
        refused = 0
        try:
            while refused < stops_after:
                try:
                    yield "again"
                except BaseException as exc:  # noqa: BLE001  # what a careless agent does
                    diary.append(type(exc).__name__)
                    refused += 1
        finally:
            diary.append("finally")

    return refuser


async def test_three_cancellations_in_a_row_may_be_ignored() -> None:
    diary: Diary = []
    async with Runner(_refuser(diary, stops_after=3)).open() as run:
        await anext(run)
        run.cancel()
        await read_all(run)
    assert diary == ["Cancelled"] * 3 + ["finally"]
    assert run.result.status == "cancelled"


async def test_after_three_cancellations_in_a_row_the_agent_is_closed() -> None:
    diary: Diary = []
    with quiet():
        async with Runner(_refuser(diary, stops_after=4)).open() as run:
            await anext(run)
            run.cancel()
            with pytest.raises(UncancellableAgentError, match="agent 'refuser'") as caught:
                await read_all(run)
    # Thrown in at the fourth yield: what closes a generator.
    assert diary == ["Cancelled"] * 3 + ["GeneratorExit", "finally"]
    assert caught.value.__notes__ == ["raised by agent refuser"]
    assert run.result.status == "failed"


async def test_an_acknowledged_yield_starts_the_count_anew(autojump_clock: MockClock) -> None:
    diary: Diary = []

    @agent
    async def tidy(ctx: InvocationContext) -> Yields:
        for index in range(8):
            try:
                yield f"e{index}"
            except trio.Cancelled:
                diary.append(f"cancelled at {index}")
            with trio.CancelScope(shield=True):
                yield f"shielded {index}"

    async with Runner(tidy).open() as run:
        await anext(run)
        run.cancel()
        assert texts(await read_all(run)) == [f"shielded {index}" for index in range(8)]
    assert diary == [f"cancelled at {index}" for index in range(8)]
    assert run.result.status == "cancelled"


def _greedy(holding: list[str]) -> Agent:
    """Make an agent that swallows everything raised at its yields.

    GeneratorExit as well; and since Python itself complains when it collects a generator that
    ignores that, it gives up in the end, when ``holding`` is empty.
    """

    @agent
    async def greedy(ctx: InvocationContext) -> Yields:
        while True:
            try:
                yield "more"
            except BaseException:
                if not holding:
                    raise

    return greedy


async def test_an_agent_that_swallows_everything_still_ends() -> None:
    holding = ["on"]
    runner = Runner(_greedy(holding))
    block = runner.open()
    with quiet():
        run = await block.__aenter__()
        await anext(run)
        with pytest.raises(UncancellableAgentError, match="agent 'greedy'"):
            await block.__aexit__(None, None, None)
        holding.clear()
    assert texts(await check_run(runner, run)) == ["more"]


async def test_an_agent_that_swallows_everything_ends_when_its_stream_is_closed() -> None:
    holding = ["on"]
    with quiet():
        async with Runner(_greedy(holding), session_service=FailingService(2)).open() as run:
            with pytest.raises(StoreError):
                await read_all(run)
        holding.clear()
    assert run.result.status == "failed"


async def test_an_agent_that_swallows_everything_ends_when_a_scope_around_the_run_is_cancelled(
    autojump_clock: MockClock,
) -> None:
    """Also while the body, under a shield of its own, still reads."""
    holding = ["on"]
    with quiet(), trio.CancelScope() as scope:
        async with Runner(_greedy(holding)).open() as run:
            await anext(run)
            scope.cancel()
            with trio.CancelScope(shield=True), pytest.raises(UncancellableAgentError):
                await read_all(run)
            holding.clear()
    assert run.result.status == "failed"


async def test_closing_an_agent_joins_the_tasks_of_its_own_nursery(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []

    async def background() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            diary.append("task: finally")

    @agent
    async def stubborn(ctx: InvocationContext) -> Yields:
        try:
            with trio.CancelScope():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(background)
                    while True:
                        with suppress(trio.Cancelled):
                            yield "again"
        finally:
            diary.append("agent: finally")

    with quiet():
        async with Runner(stubborn).open() as run:
            await anext(run)
            run.cancel()
            with pytest.raises(UncancellableAgentError):
                await read_all(run)
    assert diary == ["task: finally", "agent: finally"]


async def test_a_sync_generator_function_is_refused_when_it_is_defined() -> None:
    def plain(ctx: InvocationContext) -> Any:
        yield "a"

    with pytest.raises(AgentFunctionError, match="'plain' is a plain generator function"):
        agent(plain)


async def test_an_exception_of_emit_is_raised_at_the_yield() -> None:
    caught: list[BaseException] = []

    @agent
    async def careless(ctx: InvocationContext) -> Yields:
        try:
            yield cast("str", 7)
        except EmitError as exc:
            caught.append(exc)
        yield "after"

    async with Runner(careless).open() as run:
        assert texts(await read_all(run)) == ["after"]
    assert "not int" in str(caught[0])


async def test_an_agent_that_does_not_catch_it_fails_with_the_exception_of_emit() -> None:
    event = Event("once")

    @agent
    async def careless(ctx: InvocationContext) -> Yields:
        yield event
        yield event

    async with Runner(careless).open() as run:
        with pytest.raises(EmitError, match="emitted already"):
            await read_all(run)


async def test_yield_takes_text_content_and_events() -> None:
    @agent
    async def all_three(ctx: InvocationContext) -> Yields:
        yield "text"
        yield Content("content")
        yield Event("event")

    async with Runner(all_three).open() as run:
        assert texts(await read_all(run)) == ["text", "content", "event"]


# ------------------------------------- 20: a helper that holds a scope over the yield


# Whoever drops a generator half way is told so by trio; not what these tests are about.
_dropped = pytest.mark.filterwarnings("ignore:.*was garbage collected before:ResourceWarning")


@_dropped
async def test_a_helper_that_holds_a_timeout_over_the_yield_is_found_out(
    autojump_clock: MockClock,
) -> None:
    async def helper() -> AsyncGenerator[str, None]:
        with trio.move_on_after(1):
            yield "slowly read"
            await trio.sleep_forever()

    @agent
    async def careless(ctx: InvocationContext) -> Yields:
        async for text in helper():
            yield text

    async with Runner(SequentialAgent("line", [careless])).open() as run:
        await anext(run)
        await trio.sleep(5)
        with pytest.raises(EscapedCancellationError) as caught:
            await anext(run)
    message = str(caught.value)
    assert "agent 'careless' (line/careless)" in message
    assert "await ctx.emit(...)" in message
    assert run.result.status == "failed"


async def _crash() -> None:
    await trio.sleep(1)
    raise BoomError


async def _helper_with_a_nursery() -> AsyncGenerator[str, None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_crash)
        yield "slowly read"


@_dropped
@pytest.mark.parametrize("above", ["nothing", "sequential", "parallel"])
async def test_a_helper_that_holds_a_nursery_over_the_yield_is_found_out(
    above: str, autojump_clock: MockClock
) -> None:
    @agent
    async def careless(ctx: InvocationContext) -> Yields:
        async for text in _helper_with_a_nursery():
            yield text

    tree: Agent = careless
    if above == "sequential":
        tree = SequentialAgent("above", [careless])
    elif above == "parallel":
        tree = ParallelAgent("above", [careless, endless("b", [])])
    async with Runner(tree).open() as run:
        await anext(run)
        await trio.sleep(5)  # the body is not cancelled
        with pytest.raises(EscapedCancellationError, match="agent 'careless'"):
            await read_all(run)
    assert run.result.status == "failed"


async def test_a_helpers_nursery_that_is_closed_in_time_fails_with_its_own_error(
    autojump_clock: MockClock,
) -> None:
    @agent
    async def careful(ctx: InvocationContext) -> Yields:
        async with aclosing(_helper_with_a_nursery()) as texts:
            async for text in texts:
                yield text

    with quiet():
        async with Runner(careful).open() as run:
            await anext(run)
            await trio.sleep(5)
            with pytest.raises(ExceptionGroup) as caught:
                await anext(run)
    # The GeneratorExit that went through the nursery is split out like a cancellation.
    assert [type(error) for error in caught.value.exceptions] == [BoomError]


async def test_a_helpers_nursery_that_is_closed_because_the_reader_left_is_no_failure(
    autojump_clock: MockClock,
) -> None:
    @agent
    async def careful(ctx: InvocationContext) -> Yields:
        async with aclosing(_helper_with_a_nursery()) as texts:
            async for text in texts:
                yield text

    with quiet():
        async with Runner(careful).open() as run:
            await anext(run)
    assert run.result.status == "cancelled"


async def test_a_helper_that_is_closed_in_time_is_found_out_too(autojump_clock: MockClock) -> None:
    async def helper() -> AsyncGenerator[str, None]:
        with trio.move_on_after(1):
            yield "slowly read"

    @agent
    async def careless(ctx: InvocationContext) -> Yields:
        async with aclosing(helper()) as texts:
            async for text in texts:
                yield text

    with quiet():
        async with Runner(careless).open() as run:
            await anext(run)
            await trio.sleep(5)
            with pytest.raises(EscapedCancellationError, match="agent 'careless'"):
                await anext(run)


@_dropped
async def test_the_helpers_neighbours_are_cancelled_and_joined(autojump_clock: MockClock) -> None:
    diary: Diary = []

    async def helper() -> AsyncGenerator[str, None]:
        with trio.move_on_after(1):
            yield "slowly read"

    @agent
    async def careless(ctx: InvocationContext) -> Yields:
        async for text in helper():
            yield text
            await trio.sleep_forever()

    tree = ParallelAgent("both", [careless, endless("b", diary)])
    runner = Runner(tree)
    async with runner.open() as run:
        with pytest.raises(EscapedCancellationError):
            await read_all(run)
        assert diary == ["b cleaned up"]
    await check_run(runner, run)


async def test_the_same_helper_that_emits_inside_its_scope_works(
    autojump_clock: MockClock,
) -> None:
    """What the error says to write instead."""

    async def helper(ctx: InvocationContext) -> AsyncGenerator[int, None]:
        with trio.move_on_after(1):
            await ctx.emit("slowly read")
        yield 1

    @agent
    async def careful(ctx: InvocationContext) -> Yields:
        async for number in helper(ctx):
            yield f"number {number}"

    got: list[str] = []
    async with Runner(careful).open() as run:
        await read_into(got, run, pause=5)
    assert got == ["slowly read", "number 1"]


async def test_a_helper_without_a_scope_may_be_passed_through() -> None:
    async def helper() -> AsyncGenerator[str, None]:
        try:
            for name in "abc":
                yield name
        finally:
            diary.append("helper: finally")

    diary: Diary = []

    @agent
    async def plain(ctx: InvocationContext) -> Yields:
        async for text in helper():
            yield text

    async with Runner(plain).open() as run:
        assert texts(await read_all(run)) == ["a", "b", "c"]
    assert diary == ["helper: finally"]


# ------------------------------------------------ 21: a cancelled activation cannot win


async def test_a_branch_that_was_cancelled_is_cancelled_also_if_it_returns_normally(
    autojump_clock: MockClock,
) -> None:
    @agent(output_key="late")
    async def stubborn(ctx: InvocationContext) -> str:
        with suppress(trio.Cancelled):
            await trio.sleep_forever()
        return "I made it"

    tree = ParallelAgent("both", [stubborn, failing("b", after=1)])
    async with Runner(tree).open() as run:
        with pytest.raises(BoomError):
            await read_all(run)
    first, second = run.outcomes("both")
    assert (first.status, first.output, first.error) == ("cancelled", None, None)
    assert second.status == "failed"
    assert run.result.state == {}


async def test_a_branch_that_was_cancelled_and_returns_at_once_is_no_success(
    autojump_clock: MockClock,
) -> None:
    """It has nothing left to await, so nothing tells it."""

    @agent
    async def stubborn(ctx: InvocationContext) -> None:
        with suppress(trio.Cancelled):
            await trio.sleep_forever()

    tree = ParallelAgent("both", [stubborn, failing("b", after=1)])
    async with Runner(tree).open() as run:
        with pytest.raises(BoomError):
            await read_all(run)
    assert run.outcomes("both")[0].status == "cancelled"
    assert run.statistics().completed == 0


# ----------------------------------------------- 22: emitting too late, and from outside


async def test_emitting_after_the_activation_has_ended_is_a_typed_error() -> None:
    kept: list[InvocationContext] = []

    @agent
    async def leaks(ctx: InvocationContext) -> Yields:
        kept.append(ctx)
        yield "a"

    @agent
    async def later(ctx: InvocationContext) -> Yields:
        with pytest.raises(ActivationEndedError, match="agent 'leaks'"):
            await kept[0].emit("too late")
        yield "b"

    async with Runner(SequentialAgent("line", [leaks, later])).open() as run:
        assert texts(await read_all(run)) == ["a", "b"]


async def test_emitting_after_the_run_has_ended_is_a_typed_error() -> None:
    kept: list[InvocationContext] = []

    @agent
    async def leaks(ctx: InvocationContext) -> None:
        kept.append(ctx)

    await Runner(leaks).run()
    with pytest.raises(StreamClosedError):
        await kept[0].emit("too late")


async def test_starting_an_agent_after_the_activation_has_ended_is_a_typed_error() -> None:
    kept: list[InvocationContext] = []

    @agent
    async def leaks(ctx: InvocationContext) -> None:
        kept.append(ctx)

    async with Runner(leaks).open() as run:
        await read_all(run)
        with pytest.raises(ActivationEndedError):
            await kept[0].run_agent(counting("x", 1))


async def test_a_refused_event_can_still_be_emitted_elsewhere() -> None:
    event = Event("wanted")
    kept: list[InvocationContext] = []

    @agent
    async def leaks(ctx: InvocationContext) -> None:
        kept.append(ctx)

    @agent
    async def later(ctx: InvocationContext) -> Yields:
        with pytest.raises(ActivationEndedError):
            await kept[0].emit(event)
        yield event

    async with Runner(SequentialAgent("line", [leaks, later])).open() as run:
        assert texts(await read_all(run)) == ["wanted"]


async def test_a_task_of_a_foreign_nursery_is_woken_when_the_stream_closes(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []

    async def emits(ctx: InvocationContext) -> None:
        try:
            await ctx.emit("from outside")
        except StreamClosedError:
            diary.append("woken")

    async with trio.open_nursery() as foreign:

        @agent
        async def leaks(ctx: InvocationContext) -> Yields:
            foreign.start_soon(emits, ctx)
            yield "a"
            await trio.sleep_forever()

        async with Runner(leaks, session_service=FailingService(1)).open() as run:
            with pytest.raises(StoreError):
                await read_all(run)
            await wait_all_tasks_blocked()
            assert diary == ["woken"]


async def test_a_task_of_a_foreign_nursery_is_served_while_its_agent_runs() -> None:
    async with trio.open_nursery() as foreign:

        @agent
        async def shares(ctx: InvocationContext) -> Yields:
            done = trio.Event()

            async def emits() -> None:
                await ctx.emit("from outside")
                done.set()

            foreign.start_soon(emits)
            await done.wait()
            yield "mine"

        async with Runner(ParallelAgent("fan", [shares])).open() as run:
            events = await read_all(run)
    assert [(event.author, event.text) for event in events[:2]] == [
        ("shares", "from outside"),
        ("shares", "mine"),
    ]


async def test_a_foreign_task_cannot_keep_the_run_open(autojump_clock: MockClock) -> None:
    diary: Diary = []
    event = Event("from outside")

    async def emits(ctx: InvocationContext) -> None:
        try:
            await ctx.emit(event)
            diary.append("acknowledged")
        except (StreamClosedError, ActivationEndedError) as exc:
            diary.append(type(exc).__name__)

    async with trio.open_nursery() as foreign:

        @agent
        async def leaks(ctx: InvocationContext) -> None:
            foreign.start_soon(emits, ctx)
            await trio.lowlevel.checkpoint()

        runner = Runner(leaks)
        async with runner.open() as run:
            await trio.sleep(1)
    # Recorded and acknowledged, or refused: which, the scheduler decides.
    assert diary in (["acknowledged"], ["ActivationEndedError"])
    assert (event.seq is not None) == (diary == ["acknowledged"])
    await check_run(runner, run)


# ------------------------------------------------- 23: groups of the agent's own nursery


async def test_a_group_of_the_agents_own_nursery_is_its_failure_unchanged() -> None:
    raised: list[BaseException] = []

    async def crash(error: Exception) -> None:
        raise error

    @agent
    async def works(ctx: InvocationContext) -> Yields:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(crash, BoomError("1"))
                nursery.start_soon(crash, KeyError("2"))
        except BaseException as exc:
            raised.append(exc)
            raise
        yield "never"

    async with Runner(ParallelAgent("fan", [works])).open() as run:
        with pytest.raises(ExceptionGroup) as caught:
            await read_all(run)
    assert caught.value is raised[0]
    assert {type(error) for error in caught.value.exceptions} == {BoomError, KeyError}


async def test_a_group_of_one_stays_a_group() -> None:
    async def crash() -> None:
        raise BoomError

    @agent
    async def works(ctx: InvocationContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)

    async with Runner(works).open() as run:
        with pytest.raises(ExceptionGroup) as caught:
            await read_all(run)
    assert [type(error) for error in caught.value.exceptions] == [BoomError]


async def test_cancellations_are_split_out_of_the_agents_group(autojump_clock: MockClock) -> None:
    async def clumsy() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise BoomError

    @agent
    async def works(ctx: InvocationContext) -> Yields:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clumsy)
            nursery.start_soon(trio.sleep_forever)
            yield "a"
            await trio.sleep_forever()

    async with Runner(works).open() as run:
        await anext(run)
        run.cancel()
        with pytest.raises(ExceptionGroup) as caught:
            await read_all(run)
    assert [type(error) for error in caught.value.exceptions] == [BoomError]
    assert not isinstance(caught.value.exceptions[0], trio.Cancelled)


async def test_a_group_of_cancellations_alone_is_a_cancellation(autojump_clock: MockClock) -> None:
    @agent
    async def works(ctx: InvocationContext) -> Yields:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(ctx.emit, "side")
            yield "a"
            await trio.sleep_forever()

    async with Runner(works).open() as run:
        await anext(run)
        run.cancel("enough")
        await read_all(run)
    assert (run.result.status, run.result.reason) == ("cancelled", "enough")
    assert run.statistics().failed == 0


async def test_refusals_of_a_sealed_branch_are_split_out_of_the_agents_group() -> None:
    @agent
    async def loses(ctx: InvocationContext) -> Yields:
        async def shielded() -> None:
            with trio.CancelScope(shield=True):
                for index in range(9):
                    await ctx.emit(f"{index}")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(shielded)
            nursery.start_soon(shielded)
            yield "a"

    @agent
    async def decides(ctx: InvocationContext) -> Yields:
        yield "d"
        yield Event("decided", actions=EventActions(escalate=True))

    async with Runner(ParallelAgent("race", [loses, decides])).open() as run:
        await read_all(run)
    first, _ = run.outcomes("race")
    assert (first.status, first.error) == ("cancelled", None)


async def test_a_group_with_a_keyboard_interrupt_leaves_as_a_bare_one() -> None:
    async def interrupted() -> None:
        raise KeyboardInterrupt

    @agent
    async def works(ctx: InvocationContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupted)

    async with Runner(ParallelAgent("outer", [ParallelAgent("inner", [works])])).open() as run:
        with pytest.raises(KeyboardInterrupt):
            await read_all(run)


# --------------------------------------------------------- 24: context variables

_VARIABLE: ContextVar[str] = ContextVar("_VARIABLE", default="unset")


class _Sets(Agent):
    """Sees a context variable, sets it, runs its children, and sees it again."""

    def __init__(self, name: str, seen: Diary, children: list[Agent] | None = None) -> None:
        super().__init__(name, children or [])
        self._seen = seen

    async def run(self, ctx: InvocationContext) -> Yields:
        self._seen.append(f"{self.name} starts with {_VARIABLE.get()}")
        _VARIABLE.set(self.name)
        yield "a"
        for child in self.sub_agents:
            await ctx.run_agent(child)
        self._seen.append(f"{self.name} ends with {_VARIABLE.get()}")


async def test_each_activation_gets_a_copy_of_its_parents_context_variables() -> None:
    seen: Diary = []
    tree = _Sets("a", seen, [_Sets("b", seen), _Sets("c", seen)])
    token = _VARIABLE.set("caller")
    await Runner(tree).run()
    assert _VARIABLE.get() == "caller"
    _VARIABLE.reset(token)
    assert seen == [
        "a starts with caller",
        "b starts with a",
        "b ends with b",
        "c starts with a",
        "c ends with c",
        "a ends with a",
    ]


async def test_branches_do_not_see_each_others_context_variables() -> None:
    seen: Diary = []
    names = "abc"
    tree = ParallelAgent("all", [_Sets(name, seen) for name in names])
    await Runner(tree).run()
    assert _VARIABLE.get() == "unset"
    assert sorted(seen) == sorted(
        [f"{name} starts with unset" for name in names]
        + [f"{name} ends with {name}" for name in names]
    )


async def test_a_plain_function_sees_the_context_variables_too() -> None:
    @agent
    def plain(ctx: InvocationContext) -> str:
        return _VARIABLE.get()

    token = _VARIABLE.set("caller")
    result = await Runner(plain).run()
    _VARIABLE.reset(token)
    assert result.text == "caller"


# ---------------------------------------------------------------------- callbacks


async def test_an_async_callback_may_emit_and_wait(autojump_clock: MockClock) -> None:
    async def before(ctx: InvocationContext) -> None:
        await trio.sleep(1)
        await ctx.emit("before")

    async def after(ctx: InvocationContext) -> str:
        await trio.sleep(1)
        return "after"

    @agent(before_agent_callback=before, after_agent_callback=after)
    async def works(ctx: InvocationContext) -> Yields:
        yield "work"

    async with Runner(works).open() as run:
        assert texts(await read_all(run)) == ["before", "work", "after"]
    assert trio.current_time() == 2


async def test_an_async_callback_that_waits_is_cancelled_with_its_agent(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []

    async def before(ctx: InvocationContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            diary.append("callback: finally")

    @agent(before_agent_callback=before)
    async def works(ctx: InvocationContext) -> Yields:
        diary.append("not reached")
        yield "work"

    async with Runner(works).open() as run:
        await wait_all_tasks_blocked()
        run.cancel()
        await read_all(run)
    assert diary == ["callback: finally"]
    assert run.result.status == "cancelled"


@pytest.mark.parametrize("where", ["before_agent_callback", "after_agent_callback"])
async def test_a_callback_that_fails_is_its_agents_failure(where: str) -> None:
    async def fails(ctx: InvocationContext) -> None:
        await trio.lowlevel.checkpoint()
        raise BoomError

    async def work(ctx: InvocationContext) -> Yields:
        yield "work"

    make = cast("Callable[..., Agent]", agent)
    async with Runner(make(work, **{where: fails})).open() as run:
        with pytest.raises(BoomError) as caught:
            await read_all(run)
    assert caught.value.__notes__ == ["raised by agent work"]


async def test_a_sealed_branchs_callback_is_refused_at_its_emit() -> None:
    diary: Diary = []

    async def after(ctx: InvocationContext) -> None:
        try:
            with trio.CancelScope(shield=True):
                await ctx.emit("after")
        except BranchCancelledError:
            diary.append("refused")
            raise

    @agent(after_agent_callback=after)
    async def loses(ctx: InvocationContext) -> None:
        with suppress(trio.Cancelled):
            await trio.sleep_forever()

    @agent
    async def decides(ctx: InvocationContext) -> Yields:
        yield Event("decided", actions=EventActions(escalate=True))

    async with Runner(ParallelAgent("race", [loses, decides])).open() as run:
        assert texts(await read_all(run)) == ["decided"]
    assert diary == ["refused"]


# ------------------------------------------------------------------ never a Cancelled


@pytest.mark.parametrize("way", ["sibling", "timeout", "leaving"])
async def test_no_cancellation_is_in_what_reaches_the_reader(
    way: str, autojump_clock: MockClock
) -> None:
    @agent
    async def clumsy(ctx: InvocationContext) -> Yields:
        try:
            with trio.move_on_after(1 if way == "timeout" else 100):
                yield "a"
                await trio.sleep_forever()
        finally:
            if way != "sibling":
                raise BoomError("clumsy")

    tree = ParallelAgent("both", [clumsy, failing("b", after=2 if way == "sibling" else 50)])
    errors: list[BaseException] = []
    try:
        async with Runner(tree).open() as run:
            await anext(run)
            if way != "leaving":
                await trio.sleep(5)
                await read_all(run)
    except BoomError as exc:
        errors.append(exc)
    assert [str(error) for error in errors] == ["b" if way == "sibling" else "clumsy"]
    assert not holds_cancellation(errors[0]) or way == "leaving"
