"""asyncio's code in trio and trio's in asyncio: what is raised says what to do instead."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
import trio

from parallel_agent import (
    Event,
    InvocationContext,
    Runner,
    SequentialAgent,
    TreeError,
    agent,
    aio,
    sync,
)
from tests.support.loops import InLoop, counting

USE_TRIO: Final = "agents run on trio, not on asyncio: use trio.sleep, "
USE_BRIDGE: Final = "from_asyncio(function, argument)"
USE_ASYNCIO: Final = "this is trio's, and trio does not run what has called it: "


def notes_of(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


async def nothing() -> None:
    """Do what asyncio has no trouble with."""


async def in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(nothing())


async def in_time() -> None:
    async with asyncio.timeout(1):
        await nothing()


def under_trio(tree: Any) -> None:
    trio.run(Runner(tree).run)


def under_asyncio(tree: Any) -> None:
    asyncio.run(aio.Runner(tree).run())


HOSTS: Final = [under_trio, under_asyncio, sync.run_sync]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(
    "wait",
    [
        lambda: asyncio.sleep(1),
        lambda: asyncio.sleep(0),
        lambda: asyncio.to_thread(len, ""),
        lambda: asyncio.Queue[int]().get(),
        in_a_group,
        in_time,
    ],
    ids=["sleep", "sleep(0)", "to_thread", "Queue", "TaskGroup", "timeout"],
)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_what_an_agent_awaits_of_asyncio_says_what_to_use(
    host: Callable[[Any], None], wait: Callable[[], Awaitable[Any]]
) -> None:
    @agent
    async def mixed(ctx: InvocationContext) -> None:
        await wait()

    with pytest.raises((RuntimeError, TypeError, AttributeError)) as caught:
        host(SequentialAgent("s", [mixed]))
    origin, note = notes_of(caught.value)
    assert origin == "raised by agent s/mixed"
    assert note.startswith(USE_TRIO)
    assert USE_BRIDGE in note


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(
    "wait",
    [
        lambda _ctx: trio.Event().wait(),
        lambda ctx: ctx.emit("text"),
        lambda ctx: ctx.receive(),
        lambda ctx: ctx.request_input("?", default=1),
        lambda ctx: ctx.map(counting(), [1]),
    ],
    ids=["Event", "emit", "receive", "request_input", "map"],
)
def test_what_an_asyncio_function_awaits_of_trio_says_what_to_use(
    host: Callable[[Any], None], wait: Callable[[InvocationContext], Awaitable[Any]]
) -> None:
    @agent
    @aio.asyncio_function
    async def mixed(ctx: InvocationContext) -> None:
        await wait(ctx)

    with pytest.raises(RuntimeError) as caught:
        host(mixed)
    origin, note = notes_of(caught.value)
    assert origin == "raised by agent mixed"
    assert note.startswith(USE_ASYNCIO)
    assert "from_trio(ctx.emit, event)" in note


def test_what_a_plain_function_calls_of_trio_says_what_to_use() -> None:
    @agent
    def mixed(ctx: InvocationContext) -> float:
        return trio.current_time()

    with pytest.raises(RuntimeError) as caught:
        under_trio(mixed)
    assert "trio.from_thread.run(ctx.emit, event)" in notes_of(caught.value)[1]


def test_a_reader_in_asyncio_who_awaits_trio_is_told(in_loop: InLoop) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError) as caught:
            async with aio.Runner(counting()).open():
                await trio.sleep(1)
        [note] = notes_of(caught.value)
        assert note.startswith(USE_ASYNCIO)

    in_loop(main())


async def test_a_reader_in_trio_who_awaits_asyncio_is_told() -> None:
    with pytest.raises(RuntimeError) as caught:
        async with Runner(counting()).open():
            await asyncio.sleep(1)
    [note] = notes_of(caught.value)
    assert note.startswith(USE_TRIO)


@pytest.mark.parametrize(
    "error",
    [
        TypeError("unsupported operand"),
        TypeError("a word, and trio.run received unrecognized yield message 1"),
        RuntimeError("Task got bad yield: 5"),
        RuntimeError("not: must be called from async context"),
        ValueError("must be called from async context"),
    ],
    ids=repr,
)
def test_what_only_looks_like_that_has_no_such_note(error: Exception) -> None:
    @agent
    async def failing(ctx: InvocationContext) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        under_trio(failing)
    assert notes_of(caught.value) == ["raised by agent failing"]


def test_an_agent_of_adk_in_a_tree_says_how_to_make_it_a_leaf() -> None:
    kind: Any = type("LlmAgent", (), {"__module__": "google.adk.agents.llm_agent"})
    with pytest.raises(TreeError, match=r"parallel_agent\.adk\.AdkAgent"):
        SequentialAgent("s", [type("Own", (kind,), {})()])
    with pytest.raises(TreeError) as caught:
        SequentialAgent("s", [Event()])  # type: ignore[list-item]  # that is what is refused
    assert "Adk" not in str(caught.value)
