"""The reader: what a cancelled read loses (nothing), how a run ends, what leaves the block."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from parallel_agent import (
    Agent,
    Event,
    InvocationContext,
    ParallelAgent,
    ReadError,
    Runner,
    RunStatistics,
    SequentialAgent,
    Status,
    StreamClosedError,
    agent,
)
from session import Lease, SessionKey
from tests.kernel.scripted import (
    BatchingService,
    BoomError,
    Diary,
    FailingService,
    SlowService,
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
    run_virtual,
    stored,
    texts,
)


class BodyError(Exception):
    """What the block's body raises."""


# ------------------------------------------------------ 12: a cancelled read loses nothing


async def test_a_cancelled_read_can_be_repeated(autojump_clock: MockClock) -> None:
    runner = Runner(counting("a", 3, pause=1))
    got: list[str] = []
    given_up = 0
    async with runner.open() as run:
        while len(got) < 3:
            with trio.move_on_after(0.3) as patience:
                got.append((await anext(run)).text)
            given_up += patience.cancelled_caught
        assert await read_all(run) == []
    assert (got, given_up) == (["a0", "a1", "a2"], 9)
    assert texts(await check_run(runner, run)) == got


async def test_an_append_is_finished_although_its_reader_is_cancelled(
    autojump_clock: MockClock,
) -> None:
    runner = Runner(counting("a", 1), session_service=SlowService(1))
    async with runner.open() as run:
        with trio.move_on_after(0.3):
            await anext(run)
        assert trio.current_time() == 1
        assert texts((await stored(runner, run)).events) == ["a0"]
        run.cancel()


async def test_a_read_with_a_scope_cancelled_before_takes_nothing(
    autojump_clock: MockClock,
) -> None:
    runner = Runner(counting("a", 2))
    async with runner.open() as run:
        await wait_all_tasks_blocked()  # a0 is queued
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(run)
        assert scope.cancelled_caught
        assert texts(await read_all(run)) == ["a0", "a1"]


@given(
    random=st.random_module(),
    patience=st.lists(st.sampled_from([0.0, 0.1, 0.3, 1.0, 2.5]), max_size=12),
    pauses=st.lists(st.sampled_from([0.0, 0.2, 1.0]), min_size=3, max_size=3),
    append=st.sampled_from([0.0, 0.25, 1.0]),
    batches=st.booleans(),
)
def test_keep_alive_timeouts_lose_and_double_nothing(
    random: object,
    patience: list[float],
    pauses: list[float],
    append: float,
    batches: bool,  # noqa: FBT001  # drawn, passed by keyword
) -> None:
    tree = ParallelAgent(
        "all", [counting(name, 3, pause=pause) for name, pause in zip("abc", pauses, strict=True)]
    )
    service = BatchingService(append) if batches else SlowService(append)
    runner = Runner(tree, session_service=service)

    async def main() -> None:
        got: list[int | None] = []
        async with runner.open() as run:
            for seconds in patience:
                with trio.move_on_after(seconds):
                    try:
                        got.append((await anext(run)).seq)
                    except StopAsyncIteration:
                        break
            got += [event.seq for event in await read_all(run)]
        assert got == list(range(1, 11))  # nine events, and the fan-out's record
        await check_run(runner, run)

    run_virtual(main)


# ------------------------------------------------------------------- 13: the store fails


def _emitting_on(diary: Diary) -> Agent:
    """Make three branches that emit, and emit under a shield when they are ended."""

    def branch(name: str) -> Agent:
        @agent(name=name)
        async def run(ctx: InvocationContext) -> Yields:
            try:
                for index in range(10):
                    yield f"{name}{index}"
            except StreamClosedError:
                diary.append(f"{name}: closed")
                raise
            except trio.Cancelled:
                diary.append(f"{name}: cancelled")
                raise
            finally:
                with trio.CancelScope(shield=True), pytest.raises(StreamClosedError):
                    await ctx.emit("clean-up")

        return run

    return ParallelAgent("all", [branch(name) for name in "abc"])


async def test_the_reader_gets_the_stores_error_once_and_then_the_end() -> None:
    runner = Runner(_emitting_on([]), session_service=FailingService(2))
    async with runner.open() as run:
        with pytest.raises(StoreError, match="append 2 failed"):
            await read_all(run)
        for _ in range(3):
            with pytest.raises(StopAsyncIteration):
                await anext(run)
    assert run.result.status == "failed"


async def test_nothing_is_appended_after_the_store_has_failed() -> None:
    service = FailingService(2)
    runner = Runner(_emitting_on([]), session_service=service)
    async with runner.open() as run:
        with pytest.raises(StoreError):
            await read_all(run)
    assert service.calls == 2
    assert await check_run(runner, run)


async def test_emitters_get_stream_closed_when_the_store_fails() -> None:
    diary: Diary = []
    async with Runner(_emitting_on(diary), session_service=FailingService(2)).open() as run:
        with pytest.raises(StoreError):
            await read_all(run)
    # Each either waited for its acknowledgement, or was cancelled before its next emit.
    assert sorted(line.split(":")[0] for line in diary) == ["a", "b", "c"]
    assert [line for line in diary if line.endswith("closed")]


async def test_the_tree_is_joined_before_the_stores_error_is_raised(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []
    tree = ParallelAgent("all", [endless("a", diary), counting("b", 3, pause=1)])
    async with Runner(tree, session_service=FailingService(3)).open() as run:
        with pytest.raises(StoreError):
            await read_all(run)
        assert diary == ["a cleaned up"]


async def test_the_body_goes_on_after_the_store_has_failed(autojump_clock: MockClock) -> None:
    async with Runner(counting("a", 3), session_service=FailingService(1)).open() as run:
        with pytest.raises(StoreError):
            await anext(run)
        await trio.sleep(5)
    assert trio.current_time() == 5


async def test_a_failing_store_is_no_branchs_failure() -> None:
    async with Runner(_emitting_on([]), session_service=FailingService(2)).open() as run:
        with pytest.raises(StoreError):
            await read_all(run)
    assert run.statistics().failed == 0
    assert [outcome.status for outcome in run.outcomes("all")] == [Status.CANCELLED] * 3
    assert [outcome.error for outcome in run.outcomes("all")] == [None] * 3


async def test_the_stores_error_has_no_cancellation_in_it() -> None:
    async with Runner(_emitting_on([]), session_service=FailingService(1)).open() as run:
        with pytest.raises(StoreError) as caught:
            await read_all(run)
    assert not holds_cancellation(caught.value)
    assert caught.value.__cause__ is None


async def test_a_store_that_fails_after_the_reader_left_is_raised_by_the_block(
    autojump_clock: MockClock,
) -> None:
    @agent
    async def shielded(ctx: InvocationContext) -> Yields:
        try:
            yield "a"
        finally:
            with trio.CancelScope(shield=True):
                yield "clean-up"

    service = FailingService(2)
    with pytest.raises(StoreError):
        async with Runner(shielded, session_service=service).open() as run:
            await anext(run)
    assert service.calls == 2
    assert run.result.status == "failed"


async def test_an_event_the_store_refused_has_no_number(autojump_clock: MockClock) -> None:
    event = Event("a")

    @agent
    async def one(ctx: InvocationContext) -> Yields:
        yield event

    runner = Runner(one, session_service=FailingService(1))
    async with runner.open("hi") as run:
        with pytest.raises(StoreError):
            await anext(run)
    assert event.seq is None
    assert [event.author for event in (await stored(runner, run)).events] == ["user"]


async def test_a_session_written_by_somebody_else_meanwhile_is_a_store_failure() -> None:
    runner = Runner(counting("a", 2))
    async with runner.open(session_id="shared") as run:
        first = await anext(run)
        written = Event("a0")
        written.seal()
        key = SessionKey(runner.app_name, "user", "shared")
        await runner.session_service.append(key, [written], expected_seq=first.seq or 0)
        with pytest.raises(Exception, match="another run is writing") as caught:
            await anext(run)
    assert type(caught.value).__name__ == "SequenceConflictError"
    session = await stored(runner, run)
    assert texts(session.events) == ["a0", "a0"]


# ------------------------------------------ 14: one reader; cancellation; one park a batch


async def test_a_second_reader_at_the_same_time_is_an_error(autojump_clock: MockClock) -> None:
    runner = Runner(counting("a", 2, pause=1))
    async with runner.open() as run, trio.open_nursery() as nursery:
        got: list[str] = []

        async def read() -> None:
            got.extend(texts(await read_all(run)))

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        with pytest.raises(ReadError, match="one reader"):
            await anext(run)
    assert got == ["a0", "a1"]  # the first one is not disturbed


async def test_two_tasks_may_read_one_after_the_other() -> None:
    async with Runner(counting("a", 4)).open() as run:
        got: list[str] = []

        async def read() -> None:
            got.append((await anext(run)).text)

        for _ in range(4):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
    assert got == ["a0", "a1", "a2", "a3"]


async def test_a_reader_is_cancelled_at_each_event_of_a_batch() -> None:
    tree = ParallelAgent("all", [counting(name, 1) for name in "abcdef"])
    runner = Runner(tree, session_service=BatchingService())
    got: list[Event] = []
    async with runner.open() as run:
        with trio.CancelScope() as scope:
            async for event in run:
                got.append(event)
                if len(got) == 3:
                    scope.cancel()
        assert len(got) == 3
        got += await read_all(run)
    assert len(texts(got)) == 6


class _Steps(trio.abc.Instrument):
    """Counts how often a task runs."""

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self.task = task
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task is self.task


async def test_the_reader_parks_once_per_batch() -> None:
    tree = ParallelAgent("all", [counting(f"b{index}", 1) for index in range(50)])
    steps = _Steps(trio.lowlevel.current_task())
    async with Runner(tree).open() as run:
        await wait_all_tasks_blocked()
        trio.lowlevel.add_instrument(steps)
        for _ in range(50):
            await anext(run)
        trio.lowlevel.remove_instrument(steps)
    assert steps.count <= 2


async def test_after_the_end_iteration_stays_ended() -> None:
    async with Runner(counting("a", 1)).open() as run:
        await read_all(run)
        assert await read_all(run) == []


async def test_after_a_failure_iteration_is_over() -> None:
    async with Runner(failing("a")).open() as run:
        with pytest.raises(BoomError):
            await anext(run)
        for _ in range(3):
            with pytest.raises(StopAsyncIteration):
                await anext(run)


async def test_after_the_block_iteration_is_over() -> None:
    async with Runner(counting("a", 3)).open() as run:
        await anext(run)
    assert await read_all(run) == []


# ----------------------------------------------- 15: what leaves the block, and when


async def test_recorded_events_come_before_the_failure_that_follows_them() -> None:
    tree = ParallelAgent("all", [counting("a", 1), failing("b", count=1)])
    got: list[str] = []
    async with Runner(tree).open() as run:
        await wait_all_tasks_blocked()
        with pytest.raises(BoomError):
            await read_into(got, run)
    assert sorted(got) == ["a0", "b0"]


async def test_a_failure_comes_after_events_that_a_slow_reader_has_not_read_yet(
    autojump_clock: MockClock,
) -> None:
    @agent
    async def last_words(ctx: InvocationContext) -> Yields:
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(ctx.emit, name)
        yield "d"
        raise BoomError

    got: list[str] = []
    async with Runner(last_words).open() as run:
        with pytest.raises(BoomError):
            await read_into(got, run, pause=5)
    assert sorted(got[:3]) == ["a", "b", "c"]
    assert got[3:] == ["d"]


async def test_a_failure_that_the_reader_did_not_see_is_raised_by_the_block(
    autojump_clock: MockClock,
) -> None:
    with pytest.raises(BoomError, match="a"):
        async with Runner(failing("a", after=1, count=0)).open():
            await trio.sleep(5)


async def test_a_failure_that_the_reader_saw_is_not_raised_again() -> None:
    async with Runner(failing("a")).open() as run:
        with pytest.raises(BoomError):
            await read_all(run)
    assert run.result.status == "failed"


async def test_a_clean_up_that_fails_after_the_reader_left_is_raised_by_the_block() -> None:
    @agent
    async def clumsy(ctx: InvocationContext) -> Yields:
        try:
            yield "a"
        finally:
            raise BoomError

    block = Runner(clumsy).open()
    run = await block.__aenter__()
    await anext(run)
    with pytest.raises(BoomError):
        await block.__aexit__(None, None, None)
    assert run.result.status == "failed"


async def _body_that_raises(tree: Agent, error: Exception) -> None:
    async with Runner(tree).open():
        await trio.sleep(5)
        raise error


@pytest.mark.parametrize("tree", [failing("a", after=1), endless("a", []), counting("a", 9)])
async def test_an_exception_of_the_body_leaves_as_itself(
    tree: Agent, autojump_clock: MockClock
) -> None:
    error = BodyError()
    with pytest.raises(BodyError) as caught:
        await _body_that_raises(tree, error)
    assert caught.value is error
    assert error.__cause__ is error.__context__ is None
    assert not hasattr(error, "__notes__")


async def test_a_group_that_the_body_raises_leaves_unchanged(autojump_clock: MockClock) -> None:
    group = ExceptionGroup("mine", [BodyError(), BoomError()])
    with pytest.raises(ExceptionGroup) as caught:
        await _body_that_raises(failing("a"), group)
    assert caught.value is group


async def test_a_cancellation_around_the_block_is_never_turned_into_a_failure(
    autojump_clock: MockClock,
) -> None:
    @agent
    async def clumsy(ctx: InvocationContext) -> Yields:
        try:
            yield "a"
        finally:
            raise BoomError

    with trio.move_on_after(1) as scope:
        async with Runner(clumsy).open() as run:
            await anext(run)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert run.result.status == "failed"


# --------------------------------------------------------- 16: the body is never cancelled


async def test_the_body_is_not_cancelled_by_a_failing_branch(autojump_clock: MockClock) -> None:
    with pytest.raises(BoomError):
        async with Runner(failing("a", after=1)).open():
            await trio.sleep(10)
    assert trio.current_time() == 10


async def test_the_body_is_not_cancelled_by_run_cancel(autojump_clock: MockClock) -> None:
    async with Runner(endless("a", [])).open() as run:
        run.cancel()
        await trio.sleep(10)
    assert trio.current_time() == 10


async def test_tasks_of_the_body_outlive_a_failed_tree(autojump_clock: MockClock) -> None:
    diary: Diary = []

    async def works() -> None:
        await trio.sleep(10)
        diary.append("done")

    async with Runner(failing("a")).open() as run, trio.open_nursery() as nursery:
        nursery.start_soon(works)
        with pytest.raises(BoomError):
            await read_all(run)
    assert diary == ["done"]


# ------------------------------------------------- 17: run.cancel, and the result


async def test_run_cancel_ends_iteration_ordinarily(autojump_clock: MockClock) -> None:
    diary: Diary = []
    async with Runner(endless("a", diary)).open() as run:
        async for event in run:
            diary.append(event.text)
            run.cancel("enough")
        diary.append("iteration has ended")
    assert diary == ["a0", "a cleaned up", "iteration has ended"]


async def test_status_and_reason_of_a_cancelled_run_are_in_its_result() -> None:
    async with Runner(counting("a", 5)).open() as run:
        await anext(run)
        run.cancel("enough")
        await read_all(run)
    assert (run.result.status, run.result.reason) == (Status.CANCELLED, "enough")
    assert run.status == "cancelled"


async def test_a_cancelled_run_is_no_success_also_when_its_agent_returns() -> None:
    @agent
    async def stubborn(ctx: InvocationContext) -> str:
        try:
            await ctx.emit("a")
            await trio.sleep_forever()
        except trio.Cancelled:
            pass
        return "done all the same"

    async with Runner(stubborn).open() as run:
        await anext(run)
        run.cancel("enough")
        await read_all(run)
    assert (run.result.status, run.result.reason) == (Status.CANCELLED, "enough")
    assert (run.result.output, dict(run.result.outputs)) == (None, {})


async def test_the_first_reason_stays(autojump_clock: MockClock) -> None:
    async with Runner(endless("a", [])).open() as run:
        run.cancel("first")
        run.cancel("second")
    assert run.result.reason == "first"


async def test_cancelling_a_run_that_has_ended_changes_nothing() -> None:
    async with Runner(counting("a", 1)).open() as run:
        await read_all(run)
        run.cancel("too late")
    run.cancel("far too late")
    assert (run.result.status, run.result.reason) == (Status.COMPLETED, None)


async def test_what_is_recorded_while_a_cancelled_run_cleans_up_is_delivered() -> None:
    @agent
    async def tidy(ctx: InvocationContext) -> Yields:
        try:
            yield "a"
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                yield "tidied"

    runner = Runner(tidy)
    async with runner.open() as run:
        await anext(run)
        run.cancel()
        assert texts(await read_all(run)) == ["tidied"]
    assert texts(await check_run(runner, run)) == ["a", "tidied"]


async def test_a_failure_in_cleaning_up_after_run_cancel_is_raised() -> None:
    @agent
    async def clumsy(ctx: InvocationContext) -> Yields:
        try:
            yield "a"
        finally:
            raise BoomError

    async with Runner(clumsy).open() as run:
        await anext(run)
        run.cancel("enough")
        with pytest.raises(BoomError):
            await read_all(run)
    assert run.result.status == "failed"


async def test_run_cancel_stops_agents_that_have_not_started() -> None:
    started: list[str] = []

    def noting(name: str) -> Agent:
        @agent(name=name)
        async def run(ctx: InvocationContext) -> Yields:
            started.append(name)
            yield name

        return run

    async with Runner(SequentialAgent("line", [noting("a"), noting("b")])).open() as run:
        await anext(run)
        run.cancel()
        assert await read_all(run) == []
    assert started == ["a"]


async def test_a_run_cancelled_before_its_first_step_starts_no_agent() -> None:
    started: list[str] = []

    @agent
    async def noting(ctx: InvocationContext) -> None:
        started.append("a")

    async with Runner(noting).open() as run:
        run.cancel("at once")
        assert await read_all(run) == []
    assert started == []
    assert (run.result.status, run.result.reason) == (Status.CANCELLED, "at once")


@pytest.mark.parametrize(
    ("leave", "reason"),
    [("break", "the reader left the block"), ("raise", "the block raised BodyError")],
)
async def test_why_a_run_was_left_is_its_reason(
    leave: str, reason: str, autojump_clock: MockClock
) -> None:
    block = Runner(endless("a", [])).open()
    run = await block.__aenter__()
    await anext(run)
    error = BodyError() if leave == "raise" else None
    assert await block.__aexit__(type(error) if error else None, error, None) is False
    assert (run.result.status, run.result.reason) == (Status.CANCELLED, reason)


async def test_the_reason_of_a_scope_around_the_block_is_the_runs_reason(
    autojump_clock: MockClock,
) -> None:
    with trio.CancelScope() as scope:
        async with Runner(endless("a", [])).open() as run:
            await anext(run)
            scope.cancel("the user hung up")
            await anext(run)
    assert run.result.status == "cancelled"
    assert "the user hung up" in str(run.result.reason)


async def test_a_completed_run_has_no_reason() -> None:
    async with Runner(counting("a", 1)).open() as run:
        await read_all(run)
    assert (run.result.status, run.result.reason) == (Status.COMPLETED, None)


async def test_there_is_no_result_before_the_end_of_the_block() -> None:
    async with Runner(counting("a", 1)).open() as run:
        await read_all(run)
        with pytest.raises(ReadError, match="block has ended"):
            _ = run.result
        assert run.status == "running"
    assert run.result.status == "completed"


async def test_the_result_holds_text_output_outputs_state_and_events() -> None:
    @agent(output_key="k")
    async def first(ctx: InvocationContext) -> Yields:
        yield "one"
        yield "two"

    @agent
    async def second(ctx: InvocationContext) -> dict[str, int]:
        return {"n": 2}

    result = await Runner(SequentialAgent("line", [first, second])).run("hi")
    assert result.text == "two"
    assert result.output == {"n": 2}
    assert dict(result.outputs) == {"first": "two", "second": {"n": 2}, "line": {"n": 2}}
    assert dict(result.state) == {"k": "two"}
    assert [event.author for event in result.events] == ["first", "first", "second"]


async def test_statistics_count_every_activation_once(autojump_clock: MockClock) -> None:
    tree = SequentialAgent(
        "line",
        [
            counting("a", 2),
            ParallelAgent("all", [failing("b"), endless("c", []), counting("d", 0)]),
            counting("e", 1),
        ],
    )
    async with Runner(tree).open("hi") as run:
        first = await anext(run)
        assert run.statistics() == RunStatistics(
            status=Status.RUNNING,
            delivered=1,
            last_seq=first.seq or 0,
            started=2,
            completed=0,
            failed=0,
            cancelled=0,
            waiting=0,
        )
        with pytest.raises(BoomError):
            await read_all(run)
    # line, a, all, b, c, d: e never starts.
    counts = run.statistics()
    assert (counts.started, counts.completed, counts.failed, counts.cancelled) == (6, 2, 3, 1)
    assert counts.status == "failed"


async def test_runner_run_raises_what_the_run_failed_with() -> None:
    with pytest.raises(BoomError):
        await Runner(failing("a")).run("hi")


# ------------------------------------------------------------- the wrong way to read


async def _without_a_block(runner: Runner) -> None:
    async for _ in cast("Any", runner.open()):
        pass


async def _with_a_plain_with(runner: Runner) -> None:
    with cast("Any", runner.open()):
        pass


@pytest.mark.parametrize("wrong", [_without_a_block, _with_a_plain_with])
async def test_reading_without_the_block_shows_the_right_form(
    wrong: Callable[[Runner], Awaitable[None]],
) -> None:
    with (
        quiet(),
        pytest.raises(TypeError, match=r"async with runner\.open\(\.\.\.\) as run:") as got,
    ):
        await wrong(Runner(counting("a", 1)))
    assert isinstance(got.value, ReadError)


async def test_a_run_that_is_not_opened_starts_nothing() -> None:
    runner = Runner(counting("a", 1))
    with quiet():
        runner.open("hi")
    assert await runner.session_service.list(app_name=runner.app_name) == []


async def test_a_run_cannot_be_opened_twice() -> None:
    block = Runner(counting("a", 2)).open()
    async with block as run:
        assert (await anext(run)).text == "a0"
        with pytest.raises(ReadError, match="opened already"):
            await block.__aenter__()
        assert texts(await read_all(run)) == ["a1"]
    with pytest.raises(ReadError, match="opened already"):
        await block.__aenter__()


# -------------------------------------------------------------- opening that fails


class _Broken(SlowService):
    """Fails when the user's message is recorded."""

    async def append(
        self,
        key: SessionKey,  # noqa: ARG002  # the contract's
        events: Sequence[Event],  # noqa: ARG002  # the contract's
        *,
        expected_seq: int,  # noqa: ARG002  # the contract's
        lease: Lease | None = None,  # noqa: ARG002  # the contract's
    ) -> None:
        raise StoreError


async def test_a_run_whose_message_cannot_be_recorded_starts_no_agent() -> None:
    started: list[str] = []

    @agent
    async def noting(ctx: InvocationContext) -> None:
        started.append("a")

    tasks = trio.lowlevel.current_statistics().tasks_living
    with pytest.raises(StoreError):
        async with Runner(noting, session_service=_Broken()).open("hi"):
            pytest.fail("the body must not run")
    assert started == []
    assert trio.lowlevel.current_statistics().tasks_living == tasks
