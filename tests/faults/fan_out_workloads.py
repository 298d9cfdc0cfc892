"""Runs that fork, wait, ask, try again and hand over: the places of the fan-out engine.

Few, and each passes many: every place is tried in every run that passes it. See
`tests.faults.workloads`.
"""

# The copies of the packages are `Any` to a type checker, and so is what their decorators make.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import count
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


def _once() -> Callable[[], bool]:
    """Return what is true the first time it is asked."""
    numbers = count()
    return lambda: next(numbers) == 0


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
        await ctx.fan_out([worker])
        async with ctx.open_fan_out(max_concurrency=1) as group:
            handle = group.start(listens)
            ctx.state["started"] = True  # recorded before it starts
            await handle.send("one")
            group.start(worker)
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
        return str(heard)

    config = pa.RunConfig(max_concurrency=1)
    return await pa.Runner(lead).run("hi", run_config=config)


def _talkers(pa: Any) -> Any:
    is_first_try = _once()

    @pa.agent
    async def fails_once(ctx: Any) -> str:
        if is_first_try():
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

    @pa.agent
    async def is_busy(ctx: Any) -> None:
        with trio.move_on_after(1):
            await ctx.receive()
        await ctx.emit("busy")  # takes back the slot that it gave up for that
        await trio.sleep(3)

    return pa.ParallelAgent("fan", [fails_once, asks, listens, is_busy], barrier=pa.Escalate())


async def talks(pa: Any, session: Any) -> Any:
    """The reader sends messages, answers questions, and decides about a branch that fails."""

    def is_for_the_reader(event: Any) -> bool:
        return event.request is not None or event.text == "busy"

    async def react(run: Any, event: Any) -> None:
        if event.text == "busy":
            for number in range(4):
                await run.send(str(number), to="fan.listens")
        elif event.author == "fan":
            mended = "MendedError" in event.request.prompt
            await run.respond(event.request.id, "retry" if mended else "abort")
        elif event.request.prompt == "Sure?":
            await run.respond(event.request.id, True)

    config = pa.RunConfig(max_concurrency=1)
    async with pa.Runner(_talkers(pa)).open("hi", run_config=config) as run:
        await react(run, await run.wait_for(is_for_the_reader))
        async for event in run.only(partial=False):
            if is_for_the_reader(event):
                await react(run, event)
    return run.result


async def is_suspended(pa: Any, session: Any) -> Any:
    """A question that nobody answers, below everything that can stand above it."""

    @pa.agent
    async def asks(ctx: Any) -> str:
        return str(await ctx.request_input("Sure?"))

    @pa.agent
    async def runs(ctx: Any) -> None:
        await ctx.run_agent(asks)

    @pa.agent
    async def forks(ctx: Any) -> None:
        async with ctx.open_fan_out() as group:
            await group.start(asks)

    @pa.agent
    async def reads_on(ctx: Any) -> None:
        async with ctx.open_agent(asks) as events:
            async for event in events:
                await ctx.emit(event)

    @pa.agent
    async def reads_once(ctx: Any) -> None:
        async with ctx.open_agent(asks) as events:
            await ctx.emit(await events.receive())
            await trio.sleep(1)

    @pa.agent
    async def is_shielded(ctx: Any) -> None:
        with trio.CancelScope(shield=True):
            await ctx.request_input("Sure?")

    tree = pa.ParallelAgent("fan", [runs, forks, reads_on, reads_once, is_shielded])
    return await pa.Runner(tree).run("hi", run_config=pa.RunConfig(on_wait="suspend"))


async def reads_a_child(pa: Any, session: Any) -> Any:
    """An agent reads what a child of a child emits: passes on, drops, comes too late."""

    @pa.agent
    async def impatient(ctx: Any) -> None:
        with trio.move_on_after(1):
            await ctx.emit("too late")
        await ctx.emit("dropped")
        await ctx.emit("passed on")

    @pa.agent
    async def inner(ctx: Any) -> None:
        async with ctx.open_agent(impatient) as events:
            event = await events.receive()
            await trio.sleep(2)
            await ctx.emit(event)
            async for event in events:
                if event.text != "dropped":
                    await ctx.emit(event)

    @pa.agent
    async def outer(ctx: Any) -> Any:
        async with ctx.open_agent(inner) as events:
            with suppress(pa.ReadError):
                while True:
                    await ctx.emit(await events.receive())

    return await pa.Runner(outer).run("hi")


async def tries_again(pa: Any, session: Any) -> Any:
    """Attempts that fail, or take too long; and an agent that hands over."""
    is_first_try, is_first_wait = _once(), _once()

    @pa.agent(retry=pa.Retry(2, initial_delay=0, on=MendedError))
    async def fails_once(ctx: Any) -> str:
        if is_first_try():
            raise MendedError
        return "mended"

    @pa.agent(timeout=1, retry=pa.Retry(2, on=pa.AgentTimeoutError))
    async def is_late_once(ctx: Any) -> Any:
        if is_first_wait():
            await trio.sleep(2)
        yield "in time"

    @pa.agent(idle_timeout=1)
    async def hands_over(ctx: Any) -> Any:
        yield pa.Event("over", actions=pa.EventActions(transfer_to_agent="goes_on"))

    tree = pa.SequentialAgent("line", [fails_once, is_late_once, hands_over, _says(pa, "goes_on")])
    return await pa.Runner(tree).run("hi")


class _Steers:
    """What steers a run, and lets everything go as it comes."""

    inline = True

    def gate(self, plugins: Any) -> Any:
        return self if plugins is None else plugins

    async def event(self, _activation: Any, event: Any) -> Any:
        return event

    def adopt(self, activation: Any) -> None: ...

    def note(self, activation: Any, what: str) -> None: ...

    def run(self, _activation: Any, work: Any) -> Any:
        return work

    async def call(self, function: Any, *arguments: Any) -> Any:
        return function(*arguments)


async def is_steered(pa: Any, session: Any) -> Any:
    """A test decides who goes next, and lets no threads be."""

    @pa.agent
    def would_have_a_thread(ctx: Any) -> str:
        return "none"

    @pa.agent
    async def shares(ctx: Any) -> None:
        await ctx.checkpoint_schedule()

    steering = pa.steering.STEERING
    token = steering.set(_Steers())
    try:
        return await pa.Runner(pa.ParallelAgent("fan", [would_have_a_thread, shares])).run("hi")
    finally:
        steering.reset(token)


FAN_OUT_WORKLOADS: tuple[Workload, ...] = (
    forks_under_a_limit,
    talks,
    is_suspended,
    reads_a_child,
    tries_again,
    is_steered,
)
