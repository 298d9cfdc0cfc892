"""Runs that fork, wait, ask, try again and hand over: the places of the fan-out engine.

Few, and each passes many: every place is tried in every run that passes it. See
`tests.faults.workloads`.
"""

# The copies of the packages are `Any` to a type checker, and so is what their decorators make.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from contextlib import suppress
from typing import Any

import trio

from tests.faults.workloads import MendedError, Workload

__all__ = ["FAN_OUT_WORKLOADS"]


def _says(pa: Any, name: str, text: str = "said", *, after: float = 0) -> Any:
    async def says(ctx: Any) -> Any:
        await trio.sleep(after)
        yield text

    return pa.agent(says, name=name)


def _is_marred(error: BaseException) -> bool:
    """Whether more than the mended error has happened: a fault is a note on it then."""
    return any("Fault" in note for note in getattr(error, "__notes__", ()))


async def forks_under_a_limit(pa: Any, session: Any) -> Any:
    """Maps, and an open fan-out whose branches are sent messages, one agent at work at a time."""
    worker = _says(pa, "worker", after=0.5)

    @pa.agent
    async def listens(ctx: Any) -> str:
        ctx.state["listens"] = True  # recorded before it waits
        first = await ctx.receive()
        async for second in ctx.inbox:
            return f"{first.text}, {second.text}"
        raise AssertionError

    @pa.agent
    async def lead(ctx: Any) -> str:
        await ctx.map(worker, [1, 2], max_concurrency=1)
        async with ctx.open_fan_out(max_concurrency=1) as group:
            handle = group.start(listens)
            group.start(worker)
            ctx.state["started"] = 2  # recorded before they start
            await handle.send("one")
            await trio.sleep(1)
            await ctx.send("two", to=handle.branch)
            heard = await handle
            async for finished in group.finished:
                await finished.outcome()
        try:
            async with ctx.open_fan_out():
                raise MendedError  # noqa: TRY301  # to be raised in the block
        except MendedError as error:
            if _is_marred(error):
                raise
        with trio.move_on_after(1):
            await ctx.receive()
        await ctx.emit("waited")  # takes back the slot that it gave up for that
        return str(heard)

    config = pa.RunConfig(max_concurrency=1)
    return await pa.Runner(lead).run("hi", run_config=config)


async def talks(pa: Any, session: Any) -> Any:
    """The reader sends messages, answers questions, and decides about a branch that fails."""
    tried: list[int] = []

    @pa.agent
    async def fails_once(ctx: Any) -> str:
        tried.append(1)
        if len(tried) == 1:
            raise MendedError
        return "mended"

    @pa.agent
    async def asks(ctx: Any) -> str:
        await ctx.request_input("In time?", timeout=1, default="no")
        return str(await ctx.request_input("Sure?", schema=bool, timeout=9))

    @pa.agent
    async def listens(ctx: Any) -> None:
        """In two tasks: one is to wait while the other waits to come back."""

        async def twice(pause: float) -> None:
            await ctx.receive()
            await trio.sleep(pause)
            await ctx.receive()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(twice, 0)
            nursery.start_soon(twice, 1)

    tree = pa.ParallelAgent(
        "fan",
        [fails_once, asks, listens, _says(pa, "busy", "busy", after=3)],
        barrier=pa.Escalate(),
    )
    config = pa.RunConfig(max_concurrency=1)
    async with pa.Runner(tree).open("hi", run_config=config) as run:
        async for event in run.only():
            if event.request is None:
                continue
            if event.author == "fan":
                mended = "MendedError" in event.request.prompt
                await run.respond(event.request.id, "retry" if mended else "abort")
                for number in range(4):
                    await run.send(str(number), to="fan.listens")
                await run.wait_for(lambda event: event.text == "3")
            elif event.request.prompt == "Sure?":
                await run.respond(event.request.id, True)
    return run.result


FAN_OUT_WORKLOADS: tuple[Workload, ...] = (forks_under_a_limit, talks)
