"""What asyncio code around a run may count on: its turns, its cancellations, its tasks."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

import anyio
import pytest
import sniffio
import trio

from parallel_agent import InvocationContext, ParallelAgent, agent, aio
from parallel_agent.aio.guest import LIGHT, MAX_TURNS
from tests.support.loops import Diary, InLoop, cleaning_up, counting
from tests.support.stores import SlowStore


@pytest.mark.parametrize("width", [1, 10, 200])
def test_a_reader_leaves_the_loop_its_turn_however_wide_the_tree(
    in_loop: InLoop, width: int
) -> None:
    async def main() -> None:
        events = most = 0

        async def other() -> None:
            nonlocal events, most
            while True:
                most, events = max(most, events), 0
                await asyncio.sleep(0)

        busy = asyncio.create_task(other())
        tree = ParallelAgent("fan", [counting(f"c{n}", 4000 // width) for n in range(width)])
        async with aio.Runner(tree).open() as run:
            async for _ in run:
                events += 1
        busy.cancel()
        # What the last tick brings is read, too.
        assert 0 < most < MAX_TURNS * 2 * LIGHT + 2 * width

    in_loop(main())


@pytest.mark.parametrize("store", [None, SlowStore((0,))], ids=["in memory", "blocking"])
def test_nothing_is_recorded_for_a_reader_that_has_gone_away(
    in_loop: InLoop, store: SlowStore | None
) -> None:
    """It has been at a step when it was cancelled, and does not come back for the event."""

    async def main() -> None:
        gate = trio.Event()

        @agent
        async def late(ctx: InvocationContext) -> Any:
            yield "one"
            await gate.wait()
            yield "two"

        async with aio.Runner(late, session_service=store).open() as run:
            await anext(run)
            step = asyncio.ensure_future(anext(run))
            for _ in range(20):
                await asyncio.sleep(0)
            step.cancel()
            await asyncio.wait([step])
            gate.set()
            for _ in range(20):
                await asyncio.sleep(0)
        assert [event.text for event in run.result.events] == ["one"]

    in_loop(main())


# Scopes of anyio's, as Starlette has them around its handlers.


class Counted(asyncio.Task[Any]):
    """A task that counts how often it is cancelled."""

    count = 0

    def cancel(self, msg: Any = None) -> bool:
        type(self).count += 1
        return super().cancel(msg)


def test_a_cancelled_scope_of_anyio_waits_for_the_clean_up_and_does_not_spin(
    in_loop: InLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    diary: Diary = []
    monkeypatch.setattr(Counted, "count", 0)

    @agent
    async def slow(ctx: InvocationContext) -> Any:
        try:
            yield "started"
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                for _ in range(100):  # that many turns of the loop, and more
                    await aio.from_asyncio(asyncio.sleep, 0)
            diary.append("cleaned up")

    async def read(scope: anyio.CancelScope) -> None:
        async with aio.Runner(slow).open() as run:
            async for _ in run:
                scope.cancel()

    async def main() -> None:
        def counted(
            loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
        ) -> Counted:
            return Counted(coroutine, loop=loop, **options)

        asyncio.get_running_loop().set_task_factory(counted)  # type: ignore[arg-type]  # it is one
        async with anyio.create_task_group() as group:
            group.start_soon(read, group.cancel_scope)
        with anyio.CancelScope() as scope:
            await read(scope)

    in_loop(main())
    assert diary == ["cleaned up"] * 2
    assert Counted.count < 20


def test_a_cancellation_by_asyncio_gets_through_a_scope_of_anyio(in_loop: InLoop) -> None:
    async def main() -> None:
        diary: Diary = []
        scope = anyio.CancelScope()

        async def read() -> None:
            with scope:
                async with aio.Runner(cleaning_up("worker", diary)).open() as run:
                    async for _ in run:
                        scope.cancel()
            pytest.fail("the cancellation was lost")

        task = asyncio.create_task(read())
        while not scope.cancel_called:  # noqa: ASYNC110  # there is nothing to wait for but time
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert diary == ["worker cleaned up"]

    in_loop(main())


# Loops that start tasks at once.


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there are no eager tasks yet")
def test_what_agents_await_in_asyncio_never_runs_within_trio(in_loop: InLoop) -> None:
    @agent
    @aio.asyncio_function
    async def one(ctx: InvocationContext) -> str:
        library = sniffio.current_async_library()
        return f"{library} {(await aio.Runner(counting()).run()).text}"

    @agent
    @aio.asyncio_function
    async def many(ctx: InvocationContext) -> Any:
        yield sniffio.current_async_library()

    async def main() -> None:
        if sys.version_info >= (3, 12):
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        assert (await aio.Runner(one).run()).text == "asyncio counter 2"
        assert (await aio.Runner(many).run()).text == "asyncio"

    in_loop(main())
