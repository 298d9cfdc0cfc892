"""Runs in asyncio: what a reader there may rely on, in either kind of loop."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest
import trio

from parallel_agent import (
    Event,
    HostError,
    InvocationContext,
    ParallelAgent,
    ReadError,
    SequentialAgent,
    agent,
    aio,
)
from parallel_agent import Runner as TrioRunner
from tests.support.loops import Diary, InLoop, cleaning_up, counting
from tests.support.stores import SlowStore, StoreFailedError


@agent
async def failing(ctx: InvocationContext) -> Any:
    yield "before"
    message = "broken"
    raise ValueError(message)


@agent
async def asking(ctx: InvocationContext) -> str:
    return f"answered {await ctx.request_input('Go on?', schema=bool)}"


@agent
async def listening(ctx: InvocationContext) -> Any:
    yield "listening"
    message = await ctx.receive()
    yield f"heard {message.text}"


def texts(events: list[Event]) -> list[str]:
    return [event.text for event in events if event.text]


# Reading.


def test_a_run_is_read_and_has_a_result(in_loop: InLoop) -> None:
    async def main() -> None:
        async with aio.Runner(counting()).open("go") as run:
            read = [event.text async for event in run]
        assert read == ["counter 0", "counter 1", "counter 2"]
        assert (run.result.status, run.result.text) == ("completed", "counter 2")

    in_loop(main())


def test_run_returns_the_result(in_loop: InLoop) -> None:
    async def main() -> None:
        result = await aio.Runner(counting()).run("go")
        assert texts(list(result.events)) == ["counter 0", "counter 1", "counter 2"]

    in_loop(main())


def test_a_branch_goes_on_when_the_reader_comes_back(in_loop: InLoop) -> None:
    diary: Diary = []

    @agent
    async def careful(ctx: InvocationContext) -> Any:
        for number in range(3):
            yield str(number)
            diary.append(f"{number} acknowledged")

    async def main() -> None:
        async with aio.Runner(careful).open() as run:
            async for event in run:
                for _ in range(20):
                    await asyncio.sleep(0)
                diary.append(f"{event.text} read")

    in_loop(main())
    assert diary == [
        *("0 read", "0 acknowledged", "1 read", "1 acknowledged", "2 read", "2 acknowledged")
    ]


def test_a_service_that_blocks_records_batches(in_loop: InLoop) -> None:
    store = SlowStore((0,))

    async def main() -> None:
        tree = ParallelAgent("fan", [counting(name) for name in "abc"])
        async with aio.Runner(tree, session_service=store).open() as run:
            assert len(await run.collect()) == 10

    in_loop(main())
    assert max(store.batch_sizes) == 3


def test_the_error_of_a_store_is_raised_once_at_the_iteration(in_loop: InLoop) -> None:
    async def main() -> None:
        store = SlowStore((0,), fail_at=2)
        async with aio.Runner(counting(), session_service=store).open() as run:
            assert (await anext(run)).text == "counter 0"
            with pytest.raises(StoreFailedError):
                await anext(run)
            with pytest.raises(StopAsyncIteration):
                await anext(run)
        assert run.result.status == "failed"

    in_loop(main())


def test_many_runs_go_on_at_once_in_one_loop(in_loop: InLoop) -> None:
    async def main() -> None:
        runner = aio.Runner(ParallelAgent("fan", [counting("a"), counting("b")]))

        async def read() -> int:
            async with runner.open() as run:
                return len(await run.collect())

        assert await asyncio.gather(*(read() for _ in range(50))) == [7] * 50

    in_loop(main())


def test_a_stream_that_is_always_ready_lets_other_tasks_go(in_loop: InLoop) -> None:
    async def main() -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        busy = asyncio.create_task(other())
        async with aio.Runner(counting(count=1_000)).open() as run:
            await run.collect()
        busy.cancel()
        assert turns > 10

    in_loop(main())


def test_a_busy_loop_lets_agents_go(in_loop: InLoop) -> None:
    async def main() -> None:
        async def spin() -> None:
            while True:  # noqa: ASYNC110  # keeping the loop busy is what it is for
                await asyncio.sleep(0)

        busy = asyncio.create_task(spin())
        assert (await aio.Runner(counting()).run()).text == "counter 2"
        busy.cancel()

    in_loop(main())


def test_times_of_agents_are_over_while_the_reader_is_away(in_loop: InLoop) -> None:
    async def main() -> None:
        over = asyncio.Event()

        @agent
        async def timed(ctx: InvocationContext) -> str:
            with trio.move_on_after(0.001) as scope:
                await trio.sleep_forever()
            over.set()
            return f"over: {scope.cancelled_caught}"

        async with aio.Runner(timed).open() as run:
            await over.wait()
            assert [event.text async for event in run] == ["over: True"]

    in_loop(main())


def test_wait_for_and_only_read_on(in_loop: InLoop) -> None:
    async def main() -> None:
        tree = SequentialAgent("all", [counting("a"), counting("b")])
        async with aio.Runner(tree).open() as run:
            found = await run.wait_for(lambda event: event.text == "a 1")
            assert found.author == "a"
            assert [event.text async for event in run.only(author="b")] == ["b 0", "b 1", "b 2"]

    in_loop(main())


# Into the run.


def test_a_message_reaches_its_branch(in_loop: InLoop) -> None:
    async def main() -> None:
        async with aio.Runner(listening).open() as run:
            async for event in run:
                if event.text == "listening":
                    await run.send("hello")
        assert run.result.text == "heard hello"

    in_loop(main())


def test_a_question_is_answered(in_loop: InLoop) -> None:
    async def main() -> None:
        async with aio.Runner(asking).open() as run:
            async for event in run:
                if event.request is not None:
                    assert [one.id for one in run.pending] == [event.request.id]
                    await run.respond(event.request.id, True)
        assert run.result.text == "answered True"

    in_loop(main())


def test_run_answers_nobody(in_loop: InLoop) -> None:
    async def main() -> None:
        with pytest.raises(Exception, match="nobody"):
            await aio.Runner(asking).run()

    in_loop(main())


def test_run_cancel_ends_iteration_ordinarily(in_loop: InLoop) -> None:
    async def main() -> None:
        diary: Diary = []
        async with aio.Runner(cleaning_up("worker", diary, says=True)).open() as run:
            assert (await anext(run)).text == "started"
            run.cancel("enough")
            assert [event.text async for event in run] == ["cleaned up"]
        assert (run.result.status, run.result.reason) == ("cancelled", "enough")

    in_loop(main())


# Failing.


def test_a_failure_reaches_the_reader_as_itself(in_loop: InLoop) -> None:
    async def main() -> None:
        async with aio.Runner(failing).open() as run:
            assert (await anext(run)).text == "before"
            with pytest.raises(ValueError, match="broken") as caught:
                await anext(run)
            assert caught.value.__notes__ == ["raised by agent failing"]
            with pytest.raises(StopAsyncIteration):
                await anext(run)
        assert run.result.status == "failed"

    in_loop(main())


def test_a_failure_nobody_has_read_is_raised_by_the_block(in_loop: InLoop) -> None:
    async def main() -> None:
        fails = asyncio.Event()

        @agent
        async def failing(ctx: InvocationContext) -> float:
            fails.set()
            return 1 / 0

        async def look_away() -> None:
            async with aio.Runner(failing).open() as run:
                await fails.wait()
                assert run.statistics().failed == 1

        with pytest.raises(ZeroDivisionError):
            await look_away()

    in_loop(main())


def test_run_raises_what_the_run_failed_with(in_loop: InLoop) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="broken"):
            await aio.Runner(failing).run()

    in_loop(main())


def test_an_exception_of_the_body_leaves_as_itself_after_the_clean_up(in_loop: InLoop) -> None:
    async def main() -> None:
        diary: Diary = []
        mine = KeyError("mine")
        try:
            async with aio.Runner(cleaning_up("worker", diary)).open() as run:
                await anext(run)
                raise mine
        except KeyError as error:
            assert error is mine  # noqa: PT017  # `raises` cannot have two things in its block
        assert diary == ["worker cleaned up"]
        assert run.result.reason == "the block raised KeyError"

    in_loop(main())


def test_what_opening_raises_is_raised_as_itself(in_loop: InLoop) -> None:
    class Broken(SlowStore):
        async def create(self, **_key: Any) -> Any:
            raise StoreFailedError

    async def main() -> None:
        with pytest.raises(StoreFailedError):
            async with aio.Runner(counting(), session_service=Broken()).open():
                pytest.fail("it was opened")

    in_loop(main())


# Cancelling.


def test_leaving_early_waits_for_the_clean_up(in_loop: InLoop) -> None:
    async def main() -> None:
        diary: Diary = []
        async with aio.Runner(cleaning_up("worker", diary, says=True)).open() as run:
            async for _ in run:
                break
        assert diary == ["worker cleaned up"]
        assert texts(list(run.result.events)) == ["started", "cleaned up"]
        assert run.result.reason == "the reader left the block"

    in_loop(main())


def test_a_timeout_around_the_run_ends_it_in_good_order(in_loop: InLoop) -> None:
    async def main() -> None:
        diary: Diary = []
        try:
            async with asyncio.timeout(None) as timeout:
                async with aio.Runner(cleaning_up("worker", diary)).open() as run:
                    async for _ in run:
                        timeout.reschedule(asyncio.get_running_loop().time())
        except TimeoutError:
            diary.append("timeout")
        assert diary == ["worker cleaned up", "timeout"]
        assert run.result.status == "cancelled"
        assert run.result.reason == "cancelled from outside, by asyncio"

    in_loop(main())


def test_cancelling_run_cancels_the_tree_and_waits(in_loop: InLoop) -> None:
    async def main() -> None:
        diary: Diary = []
        started = asyncio.Event()
        tree = cleaning_up("worker", diary).with_options(
            before_agent_callback=lambda _: started.set()
        )
        task = asyncio.create_task(aio.Runner(tree).run())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert diary == ["worker cleaned up"]

    in_loop(main())


def test_a_cancellation_in_the_clean_up_waits_for_its_end_and_is_raised_then(
    in_loop: InLoop,
) -> None:
    async def main() -> None:
        diary: Diary = []

        async def read() -> None:
            async with aio.Runner(cleaning_up("worker", diary)).open() as run:
                await anext(run)
            pytest.fail("the cancellation was lost")

        task = asyncio.create_task(read())
        while not task.done():
            task.cancel()  # in opening, or in leaving, and while that waits
            await asyncio.sleep(0)
        assert task.cancelled()

    in_loop(main())


def test_cancelling_at_any_step_of_the_loop_leaves_nothing_undone(in_loop: InLoop) -> None:
    """At each step: while the run is opened, read, left. Whoever has started has cleaned up."""
    started = 0

    async def main() -> None:
        nonlocal started
        for steps in range(40):
            diary: Diary = []
            runs: list[aio.Run] = []

            async def read(diary: Diary = diary, runs: list[aio.Run] = runs) -> None:
                async with aio.Runner(cleaning_up("worker", diary)).open() as run:
                    runs.append(run)
                    await run.collect()

            task = asyncio.create_task(read())
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            if runs and runs[0].statistics().delivered:
                started += 1
                assert diary == ["worker cleaned up"]
            if runs:
                assert runs[0].result.status == "cancelled"

    in_loop(main())
    assert started > 10


def test_a_keep_alive_around_each_step_loses_nothing(in_loop: InLoop) -> None:
    async def main() -> None:
        gate = trio.Event()

        @agent
        async def slow(ctx: InvocationContext) -> Any:
            yield "one"
            await gate.wait()
            yield "two"
            yield "three"

        read: list[str] = []
        timeouts = 0
        async with aio.Runner(slow).open() as run:
            while len(read) < 3:
                # What `asyncio.wait_for` does, after 0, 1, 2... steps of the loop.
                step = asyncio.ensure_future(anext(run))
                for _ in range(timeouts % 7):
                    await asyncio.sleep(0)
                step.cancel()
                try:
                    read.append((await step).text)
                except asyncio.CancelledError:
                    timeouts += 1
                if timeouts == 20:
                    gate.set()
        assert timeouts >= 20
        assert read == ["one", "two", "three"]

    in_loop(main())


# Context variables.

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


def test_context_variables_flow_in_and_not_out(in_loop: InLoop) -> None:
    @agent
    async def looking(ctx: InvocationContext) -> str:
        seen = VARIABLE.get()
        VARIABLE.set("the agent's")
        return seen

    async def main() -> None:
        VARIABLE.set("mine")
        runner = aio.Runner(looking)
        assert (await runner.run()).text == "mine"
        async with runner.open() as run:
            assert (await anext(run)).text == "mine"
        assert VARIABLE.get() == "mine"

    in_loop(main())


# What is refused, and how.


def test_reading_without_the_block_shows_the_right_form(in_loop: InLoop) -> None:
    async def main() -> None:
        opened: Any = aio.Runner(counting()).open()
        with pytest.raises(ReadError, match=r"async with runner\.open"):
            aiter(opened)
        with pytest.raises(ReadError, match="not `with`"), opened:
            pytest.fail("it was entered")

    in_loop(main())


def test_a_block_is_entered_once(in_loop: InLoop) -> None:
    async def main() -> None:
        opened = aio.Runner(counting()).open()
        async with opened as run:
            await run.collect()
        with pytest.raises(ReadError, match="opened already"):
            async with opened:
                pytest.fail("it was entered again")

    in_loop(main())


def test_two_readers_at_once_are_refused(in_loop: InLoop) -> None:
    async def main() -> None:
        diary: Diary = []
        async with aio.Runner(cleaning_up("worker", diary)).open() as run:
            await anext(run)
            first = asyncio.ensure_future(anext(run))
            await asyncio.sleep(0)
            with pytest.raises(ReadError, match="two tasks"):
                await anext(run)
            first.cancel()

    in_loop(main())


def test_a_result_is_there_after_the_block(in_loop: InLoop) -> None:
    async def main() -> None:
        async with aio.Runner(counting()).open() as run:
            with pytest.raises(ReadError, match="block has ended"):
                _ = run.result

    in_loop(main())


def test_without_a_loop_it_says_so() -> None:
    opening = aio.Runner(counting()).open().__aenter__()
    with pytest.raises(HostError, match="needs a running asyncio loop"):
        opening.send(None)


async def test_in_trio_it_says_so() -> None:
    with pytest.raises(HostError, match=r"use parallel_agent\.Runner"):
        async with aio.Runner(counting()).open():
            pytest.fail("it was opened")
    with pytest.raises(HostError, match=r"use parallel_agent\.Runner"):
        await aio.Runner(counting()).run()


def test_the_runner_of_trio_says_what_to_use_in_asyncio(in_loop: InLoop) -> None:
    async def main() -> None:
        with pytest.raises(ReadError, match=r"parallel_agent\.aio\.Runner"):
            await TrioRunner(counting()).run()
        # A guest that is there already does not make it work.
        await aio.Runner(counting("other")).run()
        with pytest.raises(ReadError, match=r"parallel_agent\.aio\.Runner"):
            await TrioRunner(counting()).run()

    in_loop(main())
