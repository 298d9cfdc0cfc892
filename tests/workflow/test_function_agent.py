"""Functions as agents; above all plain ones, which run in threads.

Nothing here waits for real time: a thread that blocks is let go by the test itself.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextvars import ContextVar
from typing import Any, cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    AgentFunctionError,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    RunConfig,
    Runner,
    SequentialAgent,
    Status,
    agent,
)
from tests.workflow.trees import Diary, Yields, leaf, open_and_read, run_tree, texts


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a thread waits for. Opened at the end whatever happens: no thread is left behind."""
    event = threading.Event()
    yield event
    event.set()


# ---------------------------------------------------------------------------------------- threads


def test_a_plain_function_runs_in_a_thread_of_its_own() -> None:
    threads: list[threading.Thread] = []
    run_tree(agent(lambda _: threads.append(threading.current_thread()), name="a"))
    assert threads != [threading.current_thread()]


def test_async_functions_run_in_the_thread_of_the_run() -> None:
    threads: list[threading.Thread] = []

    @agent
    async def coroutine(ctx: InvocationContext) -> None:
        threads.append(threading.current_thread())

    @agent
    async def generator(ctx: InvocationContext) -> Yields:
        threads.append(threading.current_thread())
        yield "x"

    run_tree(SequentialAgent("s", [coroutine, generator]))
    assert threads == [threading.current_thread()] * 2


def test_a_function_that_blocks_does_not_delay_its_siblings(gate: threading.Event) -> None:
    """It blocks until a sibling, that runs later, lets it go: if it held up the loop, for ever."""
    blocked = agent(lambda _: gate.wait() and "let go", name="blocked")
    tree = ParallelAgent("p", [blocked, leaf("b", "b1", 5, "b2", lambda _: gate.set())])
    assert texts(run_tree(tree).delivered) == ["b1", "b2", "let go"]


def test_functions_that_block_overlap_each_other() -> None:
    """Each waits for all the others."""
    barrier = threading.Barrier(8)

    def meet(ctx: InvocationContext) -> None:
        barrier.wait()

    ended = run_tree(ParallelAgent("p", [agent(meet, name=f"a{number}") for number in range(8)]))
    assert ended.result.status is Status.COMPLETED


def test_a_function_reads_and_writes_state() -> None:
    def count(ctx: InvocationContext) -> str:
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        return f"n is {ctx.state['n']}"

    ended = run_tree(LoopAgent("l", [agent(count)], max_iterations=2))
    assert texts(ended.delivered) == ["n is 1", "n is 2"]
    assert dict(ended.result.state) == {"n": 2}


def test_a_function_reads_the_history_its_branch_and_the_message() -> None:
    def look(ctx: InvocationContext) -> Any:
        return [ctx.branch, ctx.path, ctx.user_text, texts(ctx.history())]

    tree = SequentialAgent("s", [leaf("a", "a1"), ParallelAgent("p", [agent(look)])])
    expected = ["p.look", "s/p/look", "hello", ["hello", "a1"]]
    assert run_tree(tree, message="hello").result.output == {"look": expected}


def test_a_function_can_emit_through_trio() -> None:
    def speak(ctx: InvocationContext) -> str:
        trio.from_thread.run(ctx.emit, "one")
        trio.from_thread.run(ctx.emit, "two")
        return "three"

    assert texts(run_tree(agent(speak)).delivered) == ["one", "two", "three"]


def test_a_function_waits_for_the_acknowledgement_of_what_it_emits() -> None:
    times: list[float] = []

    def speak(ctx: InvocationContext) -> None:
        trio.from_thread.run(ctx.emit, "one")
        times.append(trio.from_thread.run_sync(trio.current_time))

    run_tree(agent(speak), pause=10)
    assert times == [10]


place: ContextVar[str] = ContextVar("place", default="nowhere")


def test_a_function_sees_the_context_variables_of_where_it_was_started() -> None:
    seen: list[str] = []

    def look(ctx: InvocationContext) -> None:
        seen.append(place.get())

    async def sets(ctx: InvocationContext) -> None:
        place.set("here")
        await ctx.run_agent(agent(look))

    run_tree(agent(sets))
    assert seen == ["here"]


def test_what_a_function_raises_is_its_agents_failure_and_cancels_its_siblings() -> None:
    error = KeyError("x")

    def fail(ctx: InvocationContext) -> None:
        raise error

    async def wait(ctx: InvocationContext) -> None:
        await trio.sleep_forever()

    ended = run_tree(ParallelAgent("p", [leaf("a", wait), agent(fail)]))
    assert ended.error is error
    assert ended.notes == ["raised by agent p/fail"]


# ----------------------------------------------------------------------------------- cancellation


async def test_on_cancellation_the_thread_is_waited_for(gate: threading.Event) -> None:
    diary: Diary = []
    started = trio.Event()
    token = trio.lowlevel.current_trio_token()

    @agent
    def block(ctx: InvocationContext) -> None:
        token.run_sync_soon(started.set)
        gate.wait()
        diary.append("thread ends")

    async def leave() -> None:
        async with Runner(block).open():
            await started.wait()
        diary.append("block ends")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        await started.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert diary == []
        gate.set()
    assert diary == ["thread ends", "block ends"]


async def test_an_abandoned_thread_is_not_waited_for(gate: threading.Event) -> None:
    started, ended = trio.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()

    @agent(abandon_on_cancel=True)
    def block(ctx: InvocationContext) -> str:
        token.run_sync_soon(started.set)
        gate.wait()
        token.run_sync_soon(ended.set)
        return "too late"

    async with Runner(block).open() as run:
        await started.wait()
    assert not gate.is_set()
    assert run.result.status is Status.CANCELLED
    gate.set()
    await ended.wait()
    assert run.result.events == ()


async def test_a_failing_sibling_waits_for_the_thread_before_it_is_raised(
    gate: threading.Event,
) -> None:
    diary: Diary = []
    started = trio.Event()
    token = trio.lowlevel.current_trio_token()

    @agent
    def block(ctx: InvocationContext) -> None:
        token.run_sync_soon(started.set)
        gate.wait()
        diary.append("thread ends")

    async def fail(ctx: InvocationContext) -> None:
        await started.wait()
        message = "x"
        raise KeyError(message)

    async def read() -> None:
        ended = await open_and_read(ParallelAgent("p", [block, agent(fail)]))
        diary.append(repr(ended.error))
        assert ended.outcomes("p") == {"block": "cancelled", "fail": "failed"}

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await started.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert diary == []
        gate.set()
    assert diary == ["thread ends", "KeyError('x')"]


async def test_a_cancelled_function_can_find_out_and_stop() -> None:
    started = trio.Event()
    token = trio.lowlevel.current_trio_token()

    @agent
    def block(ctx: InvocationContext) -> None:
        token.run_sync_soon(started.set)
        while True:
            trio.from_thread.check_cancelled()

    async with Runner(block).open() as run:
        await started.wait()
    assert run.result.status is Status.CANCELLED


async def test_what_a_cancelled_function_returns_is_not_said(gate: threading.Event) -> None:
    started = trio.Event()
    token = trio.lowlevel.current_trio_token()

    @agent
    def block(ctx: InvocationContext) -> str:
        token.run_sync_soon(started.set)
        gate.wait()
        return "too late"

    async with Runner(block).open() as run:
        await started.wait()
        gate.set()
        run.cancel()
        assert [event async for event in run] == []
    assert (run.result.status, run.result.output) == (Status.CANCELLED, None)


# ------------------------------------------------------------------------------------------ limits


class Crowd:
    """Counts how many are inside at the same time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = self.most = 0

    def pass_through(self, _ctx: InvocationContext) -> None:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        # A trip to the loop and back, in which others may come in.
        trio.from_thread.run(trio.testing.wait_all_tasks_blocked)
        with self.lock:
            self.inside -= 1


@given(st.integers(1, 4), st.integers(1, 8))
def test_no_more_functions_run_at_a_time_than_max_threads(limit: int, functions: int) -> None:
    crowd = Crowd()
    tree = ParallelAgent(
        "p", [agent(crowd.pass_through, name=f"a{number}") for number in range(functions)]
    )
    ended = run_tree(tree, run_config=RunConfig(max_threads=limit))
    assert ended.result.status is Status.COMPLETED
    assert crowd.most <= limit


def test_the_count_of_a_crowd_finds_two_at_a_time() -> None:
    crowd = Crowd()
    both = threading.Barrier(2)

    def pass_through(ctx: InvocationContext) -> None:
        with crowd.lock:
            crowd.inside += 1
            crowd.most = max(crowd.most, crowd.inside)
        both.wait()

    run_tree(ParallelAgent("p", [agent(pass_through, name=name) for name in "ab"]))
    assert crowd.most == 2


async def test_a_function_that_waits_for_a_thread_does_not_start_when_cancelled(
    gate: threading.Event,
) -> None:
    started = trio.Event()
    token = trio.lowlevel.current_trio_token()
    calls: list[str] = []

    def block(ctx: InvocationContext) -> None:
        calls.append(ctx.agent.name)
        token.run_sync_soon(started.set)
        gate.wait()

    tree = ParallelAgent("p", [agent(block, name=name) for name in "ab"])
    async with Runner(tree).open(run_config=RunConfig(max_threads=1)) as run:
        await started.wait()
        await trio.testing.wait_all_tasks_blocked()
        run.cancel()
        gate.set()
    assert len(calls) == 1


@pytest.mark.parametrize("limit", [0, -1])
def test_at_least_one_thread_is_needed(limit: int) -> None:
    with pytest.raises(ValueError, match="max_threads"):
        RunConfig(max_threads=limit)


def test_two_runs_have_their_own_threads() -> None:
    """With one thread for both, each would wait for the other for ever."""
    barrier = threading.Barrier(2)

    def meet(ctx: InvocationContext) -> None:
        barrier.wait()

    async def main() -> None:
        runner = Runner(agent(meet))
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(
                    functools.partial(runner.run, run_config=RunConfig(max_threads=1))
                )

    trio.run(main)


# --------------------------------------------------------------------------- functions in disguise


async def _coroutine(ctx: InvocationContext) -> str:
    return "x"


async def _async_generator(ctx: InvocationContext) -> AsyncGenerator[str, None]:
    yield "x"


def _generator(ctx: InvocationContext) -> Iterator[str]:
    yield "x"


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a careless decorator makes of an async function: a plain one."""

    @functools.wraps(function)
    def wrapper(ctx: InvocationContext) -> Any:
        return function(ctx)

    return wrapper


@pytest.mark.parametrize("function", [_coroutine, _async_generator, _generator])
def test_a_plain_function_that_returns_unfinished_work_is_an_error_that_names_it(
    function: Callable[..., Any],
) -> None:
    """Not a result without JSON form; and Python does not complain of a coroutine never awaited."""
    ended = run_tree(agent(wrapped(function)))
    assert isinstance(ended.error, AgentFunctionError)
    assert repr(function.__name__) in str(ended.error)
    assert "`async def`" in str(ended.error)


def test_a_built_in_can_be_an_agent() -> None:
    assert run_tree(agent(repr)).result.text == "<InvocationContext repr>"


def test_a_built_in_that_does_not_tell_what_it_takes_finds_out_when_it_is_called() -> None:
    ended = run_tree(agent(cast("Any", max)))
    assert isinstance(ended.error, TypeError)
    assert ended.notes == ["raised by agent max"]


def test_one_function_can_be_many_agents() -> None:
    async def name(ctx: InvocationContext) -> str:
        return ctx.agent.name

    tree = ParallelAgent("p", [agent(name, name=f"a{number}") for number in range(3)])
    assert run_tree(tree).result.output == {"a0": "a0", "a1": "a1", "a2": "a2"}


def test_what_is_decorated_is_an_agent_and_no_function_any_more() -> None:
    with pytest.raises(TypeError, match="not callable"):
        agent(_coroutine)(None)  # type: ignore[operator]  # that is the point
