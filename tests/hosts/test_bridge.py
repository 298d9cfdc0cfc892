"""Awaiting asyncio from trio and trio from asyncio: in a guest, and with a loop in a thread."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio

from parallel_agent import (
    AgentFunctionError,
    Event,
    EventActions,
    HostError,
    InvocationContext,
    ParallelAgent,
    ReadError,
    Runner,
    agent,
    aio,
)
from parallel_agent.aio.thread import LOOP_THREADS
from tests.support.loops import LOOPS, Diary

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


def in_trio(function: Callable[[], Any]) -> None:
    """Run a trio function under plain trio: asyncio is in a thread."""
    trio.run(function)


def in_guest(name: str) -> Callable[[Callable[[], Any]], None]:
    """Return how to run a trio function in an asyncio application: asyncio is around it."""

    async def main(function: Callable[[], Any]) -> None:
        await aio.from_trio(function)

    return lambda function: LOOPS[name](main(function))


PLACES = {
    "trio": in_trio,
    "asyncio": in_guest("asyncio"),
    "uvloop": in_guest("uvloop"),
}


@pytest.fixture(params=PLACES)
def somewhere(request: pytest.FixtureRequest) -> Callable[[Callable[[], Any]], None]:
    """Run a trio function in each place."""
    return PLACES[request.param]


async def add(one: int, *, two: int) -> int:
    await asyncio.sleep(0)
    assert asyncio.current_task() is not None
    return one + two


# From trio to asyncio.


def test_a_value_comes_back(somewhere: Callable[[Callable[[], Any]], None]) -> None:
    async def main() -> None:
        assert await aio.from_asyncio(add, 1, two=2) == 3

    somewhere(main)


def test_an_exception_comes_as_it_is(somewhere: Callable[[Callable[[], Any]], None]) -> None:
    error = ValueError("broken")

    async def fail() -> None:
        raise error

    async def main() -> None:
        with pytest.raises(ValueError, match="broken") as caught:
            await aio.from_asyncio(fail)
        assert caught.value is error

    somewhere(main)


def test_what_the_call_itself_raises_comes_as_it_is(
    somewhere: Callable[[Callable[[], Any]], None],
) -> None:
    async def main() -> None:
        call: Any = add
        with pytest.raises(TypeError, match="missing 1 required"):
            await aio.from_asyncio(call, 1)

    somewhere(main)


def test_cancelling_waits_for_the_clean_up_on_the_other_side(
    somewhere: Callable[[Callable[[], Any]], None],
) -> None:
    diary: Diary = []

    async def main() -> None:
        started = trio.Event()
        token = trio.lowlevel.current_trio_token()

        async def wait() -> None:
            token.run_sync_soon(started.set)
            try:
                await asyncio.Event().wait()
            finally:
                for _ in range(5):
                    await asyncio.sleep(0)
                diary.append("cleaned up")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(aio.from_asyncio, wait)
            await started.wait()
            nursery.cancel_scope.cancel()
        diary.append("left")

    somewhere(main)
    assert diary == ["cleaned up", "left"]


def test_what_is_cancelled_and_returns_has_returned(
    somewhere: Callable[[Callable[[], Any]], None],
) -> None:
    async def main() -> None:
        token = trio.lowlevel.current_trio_token()

        async def stubborn() -> str:
            token.run_sync_soon(scope.cancel)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return "anyway"
            return "never"

        with trio.CancelScope() as scope:
            assert await aio.from_asyncio(stubborn) == "anyway"
        assert not scope.cancelled_caught

    somewhere(main)


def test_a_task_that_somebody_else_cancels_is_an_error_of_the_host(
    somewhere: Callable[[Callable[[], Any]], None],
) -> None:
    async def cancel_myself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async def main() -> None:
        with pytest.raises(HostError, match="not by the agent"):
            await aio.from_asyncio(cancel_myself)

    somewhere(main)


def test_context_variables_flow_into_asyncio(
    somewhere: Callable[[Callable[[], Any]], None],
) -> None:
    async def look() -> str:
        seen = VARIABLE.get()
        VARIABLE.set("asyncio's")
        return seen

    async def main() -> None:
        VARIABLE.set("trio's")
        assert await aio.from_asyncio(look) == "trio's"
        assert VARIABLE.get() == "trio's"

    somewhere(main)


def test_calls_share_one_loop(somewhere: Callable[[Callable[[], Any]], None]) -> None:
    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def main() -> None:
        loops = {await aio.from_asyncio(loop) for _ in range(3)}
        assert len(loops) == 1

    somewhere(main)


def test_many_calls_go_on_at_once(somewhere: Callable[[Callable[[], Any]], None]) -> None:
    async def main() -> None:
        answers: list[int] = []

        async def call(number: int) -> None:
            answers.append(await aio.from_asyncio(add, number, two=0))

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(call, number)
        assert sorted(answers) == list(range(100))

    somewhere(main)


def test_in_an_application_it_is_the_applications_loop_and_thread() -> None:
    async def where() -> tuple[asyncio.AbstractEventLoop, str]:
        return asyncio.get_running_loop(), threading.current_thread().name

    async def main() -> None:
        assert await aio.from_trio(aio.from_asyncio, where) == await where()

    asyncio.run(main())


def test_the_loop_of_a_trio_run_ends_with_it() -> None:
    diary: Diary = []

    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            diary.append("cancelled by the loop")

    async def leave() -> None:
        leave.task = asyncio.create_task(linger())  # type: ignore[attr-defined]  # keeps it alive
        await asyncio.sleep(0)

    for _ in range(3):
        trio.run(aio.from_asyncio, leave)
    assert diary == ["cancelled by the loop"] * 3
    assert not LOOP_THREADS


# From asyncio to trio.


def test_asyncio_code_that_works_for_an_agent_calls_its_context(
    somewhere: Callable[[Callable[[], Any]], None],
) -> None:
    @agent
    @aio.asyncio_function
    async def emitting(ctx: InvocationContext) -> str:
        event = await aio.from_trio(ctx.emit, Event("from asyncio"))
        return f"{event.seq} {ctx.user_text}"

    async def main() -> None:
        result = await Runner(emitting).run("hello")
        assert [event.text for event in result.events] == ["from asyncio", "2 hello"]

    somewhere(main)


def test_from_trio_brings_values_and_exceptions() -> None:
    error = ValueError("broken")

    async def fail() -> None:
        raise error

    async def double(number: int) -> int:
        await trio.lowlevel.checkpoint()
        return number * 2

    async def main() -> None:
        assert await aio.from_trio(double, 4) == 8
        with pytest.raises(ValueError, match="broken") as caught:
            await aio.from_trio(fail)
        assert caught.value is error

    asyncio.run(main())


def test_cancelling_from_trio_waits_and_raises_the_cancellation() -> None:
    diary: Diary = []

    async def main() -> None:
        started = asyncio.Event()

        async def wait() -> str:
            started.set()
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                diary.append("cleaned up")
            return "a value that nobody gets"

        task = asyncio.create_task(aio.from_trio(wait))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert diary == ["cleaned up"]


def test_from_trio_raises_when_the_trio_side_is_shut_down() -> None:
    async def main() -> None:
        async with aio.runtime():
            task = asyncio.create_task(aio.from_trio(trio.sleep_forever))
            await asyncio.sleep(0)
        with pytest.raises(HostError, match="shut down"):
            await task

    asyncio.run(main())


# What is refused, and how.


def test_a_coroutine_in_place_of_a_function_is_refused() -> None:
    async def main() -> None:
        wrong: Any = add(1, two=2)
        with pytest.raises(HostError, match=r"from_asyncio\(function, argument\)"):
            await aio.from_asyncio(wrong)
        with pytest.raises(HostError, match="not 3"):
            await aio.from_asyncio(wrong := 3)  # type: ignore[arg-type]  # that is the point
        wrong = numbers(1, [])
        with pytest.raises(HostError, match=r"from_asyncio_iter\(function, argument\)"):
            aio.from_asyncio_iter(wrong)

    trio.run(main)


def test_a_function_of_the_wrong_kind_is_refused_and_says_which_is_right() -> None:
    wrong: Any

    async def main() -> None:
        nonlocal wrong
        wrong = numbers
        with pytest.raises(HostError, match="async with from_asyncio_iter"):
            await aio.from_asyncio(wrong, 1, [])
        wrong = len
        with pytest.raises(HostError, match=r"that is 0; .* is called as it is"):
            await aio.from_asyncio(wrong, "")
        wrong = add
        with pytest.raises(HostError, match="give it an async generator function"):
            async with aio.from_asyncio_iter(wrong, 1, two=2) as items:
                await anext(items)

    trio.run(main)


def test_each_direction_says_where_it_belongs() -> None:
    async def main() -> None:
        with pytest.raises(HostError, match="await the function as it is"):
            await aio.from_asyncio(add, 1, two=2)

    asyncio.run(main())

    async def trio_main() -> None:
        with pytest.raises(HostError, match="await the function as it is"):
            await aio.from_trio(trio.sleep, 0)

    trio.run(trio_main)


# Iterating.


async def numbers(count: int, diary: Diary) -> AsyncIterator[int]:
    try:
        for number in range(count):
            await asyncio.sleep(0)
            diary.append(f"made {number}")
            yield number
    finally:
        await asyncio.sleep(0)
        diary.append("closed")


def test_items_are_made_when_they_are_asked_for(
    somewhere: Callable[[Callable[[], Any]], None],
) -> None:
    diary: Diary = []

    async def main() -> None:
        async with aio.from_asyncio_iter(numbers, 2, diary) as items:
            async for item in items:
                await trio.testing.wait_all_tasks_blocked()
                diary.append(f"read {item}")
        diary.append("left")

    somewhere(main)
    assert diary == ["made 0", "read 0", "made 1", "read 1", "closed", "left"]


def test_leaving_the_block_closes_the_iterator(
    somewhere: Callable[[Callable[[], Any]], None],
) -> None:
    diary: Diary = []

    async def main() -> None:
        async with aio.from_asyncio_iter(numbers, 9, diary) as items:
            async for _ in items:
                break
        diary.append("left")

    somewhere(main)
    assert diary == ["made 0", "closed", "left"]


def test_a_block_in_which_nothing_is_read_makes_nothing(
    somewhere: Callable[[Callable[[], Any]], None],
) -> None:
    diary: Diary = []

    async def main() -> None:
        async with aio.from_asyncio_iter(numbers, 9, diary):
            pass

    somewhere(main)
    assert diary == []


def test_cancelling_a_step_loses_no_item(
    somewhere: Callable[[Callable[[], Any]], None],
) -> None:
    async def main() -> None:
        read: list[int] = []
        cancelled = 0
        async with aio.from_asyncio_iter(numbers, 5, []) as items:
            while True:
                with trio.CancelScope() as scope:
                    if cancelled < 20:
                        scope.cancel()
                    try:
                        read.append(await anext(items))
                    except StopAsyncIteration:
                        break
                cancelled += scope.cancelled_caught
        assert read == [0, 1, 2, 3, 4]
        assert cancelled == 20

    somewhere(main)


def test_the_iteration_holds_its_own_scopes_over_its_items(
    somewhere: Callable[[Callable[[], Any]], None],
) -> None:
    async def scoped() -> AsyncIterator[str]:
        async with asyncio.timeout(60):
            yield "one"
            yield "two"

    async def main() -> None:
        async with aio.from_asyncio_iter(scoped) as items:
            assert [item async for item in items] == ["one", "two"]
        async with aio.from_asyncio_iter(scoped) as items:
            assert await anext(items) == "one"

    somewhere(main)


def test_an_exception_of_the_iteration_is_raised_at_its_step_and_once(
    somewhere: Callable[[Callable[[], Any]], None],
) -> None:
    async def failing() -> AsyncIterator[int]:
        yield 1
        message = "broken"
        raise ValueError(message)

    async def main() -> None:
        async with aio.from_asyncio_iter(failing) as items:
            assert await anext(items) == 1
            with pytest.raises(ValueError, match="broken"):
                await anext(items)
            with pytest.raises(StopAsyncIteration):
                await anext(items)

    somewhere(main)


def test_an_exception_in_closing_is_raised_by_the_block(
    somewhere: Callable[[Callable[[], Any]], None],
) -> None:
    async def failing() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            message = "in closing"
            raise ValueError(message)

    async def read() -> None:
        async with aio.from_asyncio_iter(failing) as items:
            await anext(items)

    async def main() -> None:
        with pytest.raises(ValueError, match="in closing"):
            await read()

    somewhere(main)


def test_items_are_read_inside_the_block() -> None:
    async def main() -> None:
        items = aio.from_asyncio_iter(numbers, 1, [])
        with pytest.raises(ReadError, match="async with from_asyncio_iter"):
            await anext(items)
        async with items:
            pass
        with pytest.raises(ReadError, match="async with from_asyncio_iter"):
            await anext(items)

    trio.run(main)


# Functions of agents.


def test_an_asyncio_function_is_an_agent_with_input_name_and_description(
    somewhere: Callable[[Callable[[], Any]], None],
) -> None:
    @agent(output_key="sum")
    @aio.asyncio_function
    async def sum_up(ctx: InvocationContext, numbers: list[int]) -> int:
        """Sum numbers."""
        await asyncio.sleep(0)
        return sum(numbers)

    @agent
    async def planner(ctx: InvocationContext) -> Any:
        return await ctx.map(sum_up, [[1, 2], [3, 4]])

    async def main() -> None:
        assert (sum_up.name, sum_up.description) == ("sum_up", "Sum numbers.")
        assert (await Runner(planner).run()).output == [3, 7]

    somewhere(main)


def test_an_asyncio_generator_is_an_agent_whose_items_are_events(
    somewhere: Callable[[Callable[[], Any]], None],
) -> None:
    diary: Diary = []

    def streaming(name: str) -> Any:
        async def stream(ctx: InvocationContext) -> AsyncIterator[str]:
            async for number in numbers(3, diary):
                yield f"{name} {number}"

        return agent(aio.asyncio_function(stream), name=name)

    async def main() -> None:
        async with Runner(ParallelAgent("fan", [streaming("a"), streaming("b")])).open() as run:
            read = [event.text async for event in run.only(author="a")]
        assert read == ["a 0", "a 1", "a 2"]

    somewhere(main)
    assert diary.count("closed") == 2


def test_a_branch_that_is_ended_cancels_its_asyncio_code(
    somewhere: Callable[[Callable[[], Any]], None],
) -> None:
    diary: Diary = []

    @agent
    @aio.asyncio_function
    async def waiting(ctx: InvocationContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            diary.append("cleaned up")

    @agent
    async def stopping(ctx: InvocationContext) -> Any:
        await aio.from_asyncio(asyncio.sleep, 0)
        yield Event("stop", actions=EventActions(escalate=True))

    async def main() -> None:
        result = await Runner(ParallelAgent("fan", [waiting, stopping])).run()
        assert result.status == "completed"

    somewhere(main)
    assert diary == ["cleaned up"]


def test_only_async_functions_can_be_marked() -> None:
    with pytest.raises(AgentFunctionError, match=r"async def.*runs in a thread"):
        aio.asyncio_function(print)
    wrong: Any = agent(lambda _ctx: "text", name="leaf")
    with pytest.raises(AgentFunctionError, match="below @agent"):
        aio.asyncio_function(wrong)
