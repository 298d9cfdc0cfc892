"""Runs that own their sessions, wait for each other, are cut off and resumed."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import attrs
import trio

from tests.faults.workloads import Workload

__all__ = ["DURABLE_WORKLOADS"]


class NotReadError(Exception):
    """What a store raises that cannot be read."""


def _tree(pa: Any) -> Any:
    @pa.agent  # type: ignore[untyped-decorator]  # of the copy
    async def notes(ctx: Any) -> Any:
        ctx.state["restored"] = ctx.restored
        await ctx.checkpoint({"step": 1})
        with suppress(ValueError):
            await ctx.once("refused", _refused)
        ctx.state["receipt"] = await ctx.once("paid", _paid)
        yield "noted"

    tried: list[None] = []

    @pa.agent(retry=pa.Retry(2, initial_delay=0.0, on=LookupError))  # type: ignore[untyped-decorator]  # of the copy
    async def asks(ctx: Any) -> Any:
        if not tried:
            tried.append(None)
            raise LookupError
        return await ctx.request_input("which?", schema=int)

    @pa.agent  # type: ignore[untyped-decorator]  # of the copy
    async def quick(ctx: Any) -> str:
        return "quick"

    race = [quick.with_options(name="winner"), _slow(pa)]
    fan = pa.ParallelAgent(
        "fan", [notes, asks, quick, pa.ParallelAgent("race", race, barrier=pa.FirstSuccess())]
    )
    return pa.SequentialAgent("line", [quick.with_options(name="first"), fan])


async def _paid() -> str:
    await trio.lowlevel.checkpoint()
    return "paid"


async def _refused() -> str:
    raise ValueError


async def is_gone_on_with(pa: Any, session: Any) -> Any:
    """Ends as waiting, and is gone on with by somebody who answers what is asked again."""
    runner = pa.Runner(_tree(pa), resumable=True)
    waits = pa.RunConfig(on_wait="suspend")
    await runner.run("hi", session_id="s", run_config=waits)
    (left,) = await runner.unfinished()
    async with runner.reopen(left.key.session_id, run_config=pa.RunConfig()) as run:
        async for event in run:
            if event.request is not None:
                await run.respond(event.request.id, 3)
    return run.result


async def is_resumed_by_its_answers(pa: Any, session: Any) -> Any:
    """Ends as waiting, and is resumed: without an answer, with a wrong one, with the right one."""
    runner = pa.Runner(_tree(pa), resumable=True)
    waits = pa.RunConfig(on_wait="suspend")
    result = await runner.run("hi", session_id="s", run_config=waits)
    assert result.status == "waiting"
    result = await runner.resume("s")
    assert result.status == "waiting"
    with suppress(pa.NothingToResumeError):
        await runner.resume("t")
    with suppress(pa.ResponseRefusedError):
        await runner.resume("s", responses={"nothing": 3})
    result = await runner.resume("s", responses={"asks": 3})
    assert result.state["restored"] is None
    return result


def _slow(pa: Any, seconds: float = 2.0) -> Any:
    @pa.agent  # type: ignore[untyped-decorator]  # of the copy
    async def slow(ctx: Any) -> str:
        await trio.sleep(seconds)
        return "slept"

    return slow


async def _beside(runner: Any, **options: Any) -> Any:
    """Run twice in one session; return the second result."""
    results: list[Any] = []

    async def first() -> None:
        await runner.run("one", session_id="s")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await trio.sleep(1)
        results.append(await runner.run("two", session_id="s", **options))
    return results[0]


async def queues(pa: Any, session: Any) -> Any:
    """Waits for the run that has the session."""
    return await _beside(pa.Runner(_slow(pa)), on_busy="queue")


async def interrupts(pa: Any, session: Any) -> Any:
    """Cancels the run that has the session."""
    return await _beside(pa.Runner(_slow(pa)), on_busy="interrupt")


async def injects(pa: Any, session: Any) -> Any:
    """Sends its message into the run that has the session; or runs itself, when that is full."""

    @pa.agent  # type: ignore[untyped-decorator]  # of the copy
    async def listens(ctx: Any) -> Any:
        await trio.sleep(2)
        return ctx.user_text if ctx.user_text == "two" else (await ctx.receive()).text

    result = await _beside(pa.Runner(listens), on_busy="inject")
    assert result.text == "two"
    runner = pa.Runner(_slow(pa))
    closing = await _beside_the_end(runner)
    assert closing.text == "slept"
    return result


async def _beside_the_end(runner: Any) -> Any:
    """Inject into a run whose reader has left, and that takes no message any more."""
    results: list[Any] = []

    async def second() -> None:
        await trio.sleep(1)
        results.append(await runner.run("two", session_id="t", on_busy="inject"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(second)
        async with runner.open("one", session_id="t") as run:
            with trio.move_on_after(0.5):
                await anext(run)
            run.cancel()
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
    return results[0]


def _expiring(pa: Any) -> Any:
    class Expiring(pa.InMemorySessionService):  # type: ignore[misc]  # a class of the copy
        async def acquire(self, key: Any, **words: Any) -> Any:
            lease = await super().acquire(key, **words)
            return attrs.evolve(lease, seconds=3.0)

        async def renew(self, lease: Any) -> Any:
            return await super().renew(attrs.evolve(lease, seconds=math.inf))

        async def release(self, lease: Any, **words: Any) -> None:
            await super().release(attrs.evolve(lease, seconds=math.inf), **words)

        def append_nowait(self, key: Any, events: Any, *, expected_seq: int, lease: Any) -> None:
            lease = attrs.evolve(lease, seconds=math.inf)
            super().append_nowait(key, events, expected_seq=expected_seq, lease=lease)

    return Expiring()


async def keeps_its_lease(pa: Any, session: Any) -> Any:
    """Runs for longer than a lease lasts, after somebody of another process has let go."""
    service = _expiring(pa)
    key = (await service.create(app_name="slow", user_id="user", session_id="s")).key
    lease = await service.acquire(key, run_id="other", owner="another process")

    async def let_go() -> None:
        await trio.sleep(1)
        await service.release(lease)

    runner = pa.Runner(_slow(pa, 5.0), session_service=service)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(let_go)
            return await runner.run("hi", session_id="s", on_busy="interrupt")
    finally:
        with trio.CancelScope(shield=True):
            await service.release(lease)


async def needs_no_owner(pa: Any, session: Any) -> Any:
    """A service that knows no owners; the session is made by another run meanwhile."""

    class Plain(pa.InMemorySessionService):  # type: ignore[misc]  # a class of the copy
        owns = False
        asked = 0

        async def get(self, **names: Any) -> Any:
            self.asked += 1
            if self.asked == 1:
                names = {one: names[one] for one in ("app_name", "user_id", "session_id")}
                await super().create(**names)
                return None
            return await super().get(**names)

    service = Plain()
    runner = pa.Runner(_slow(pa), session_service=service)
    await runner.run("hi", session_id="s")
    service.asked = 1
    return await runner.run("hi", session_id="t")


async def cannot_be_read(pa: Any, session: Any) -> Any:
    """Taken, a session cannot be read: it is given back, and serves the next run."""

    class Unread(pa.InMemorySessionService):  # type: ignore[misc]  # a class of the copy
        broken = False

        async def get(self, **names: Any) -> Any:
            if self.broken:
                raise NotReadError
            return await super().get(**names)

    service = Unread()
    runner = pa.Runner(_slow(pa), session_service=service)
    await runner.run("hi", session_id="s")
    service.broken = True
    try:
        with suppress(NotReadError):
            await runner.run("hi", session_id="s")
    finally:
        service.broken = False
    return await runner.run("hi", session_id="s")


async def cannot_be_asked(pa: Any, session: Any) -> Any:
    """A plugin refuses the message: the session is given back."""

    class Refuses(pa.Plugin):  # type: ignore[misc]  # a class of the copy
        async def on_user_message_callback(self, ctx: Any, content: Any) -> None:  # noqa: ARG002  # the contract's
            if content.text == "no":
                raise NotReadError

    runner = pa.Runner(_slow(pa), plugins=[Refuses()])
    try:
        await runner.run("no", session_id="s")
    except pa.PluginError as error:
        if not isinstance(error.__cause__, NotReadError):
            raise
    return await runner.run("yes", session_id="s")


async def is_followed(pa: Any, session: Any) -> Any:
    """Somebody follows the session while it is written."""
    runner = pa.Runner(_slow(pa))
    service = runner.session_service
    key = (await service.create(app_name="slow", user_id="user", session_id="s")).key
    followed = service.subscribe(key)
    results: list[Any] = []

    async def run() -> None:
        await trio.sleep(1)
        results.append(await runner.run("hi", session_id="s"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        for _ in range(2):
            await anext(followed)
    return results[0]


async def is_hosted(pa: Any, session: Any) -> Any:
    """Runs that a host reads: sent to, answered, followed from the middle, resumed."""

    @pa.agent  # type: ignore[untyped-decorator]  # of the copy
    async def talks(ctx: Any) -> Any:
        said = "nothing"
        with trio.move_on_after(5):
            said = (await ctx.receive()).text
        return f"{said}, {await ctx.request_input('well?', timeout=5.0, default='none')}"

    runner = pa.Runner(talks, resumable=True)
    waits = pa.RunConfig(on_wait="suspend")
    async with runner.host() as host:
        first = await host.start("one", session_id="s")
        await host.start("two", session_id="s", on_busy="inject")
        followed = host.subscribe("s")
        followed.go_on_after(1)
        async for event in followed:
            if event.request is not None:
                await host.respond(first, event.request.id, "yes")
        second = await host.start("one", session_id="t", run_config=waits)
        await host.send(second, "two")
        await host.wait(second)
        await host.resume("t", responses={"talks": "no"})
        await host.wait(second)
        return await host.wait(first)


async def gives_up(pa: Any, session: Any) -> Any:
    """Does not wait for a session for ever; the run that has it is cancelled."""
    async with pa.Runner(_slow(pa)).host() as host:
        run_id = await host.start("one", session_id="s")
        with trio.move_on_after(1):
            await host.start("two", session_id="s", on_busy="queue")
        host.cancel(run_id)
        return await host.wait(run_id)


async def forks_and_is_resumed(pa: Any, session: Any) -> Any:
    """Branches that were started at run time, and have ended, end again in their order."""

    @pa.agent  # type: ignore[untyped-decorator]  # of the copy
    async def quick(ctx: Any) -> str:
        return "quick"

    @pa.agent  # type: ignore[untyped-decorator]  # of the copy
    async def asks(ctx: Any) -> Any:
        return await ctx.request_input("which?")

    @pa.agent  # type: ignore[untyped-decorator]  # of the copy
    async def forks(ctx: Any) -> Any:
        async with ctx.open_fan_out() as group:
            # Whichever of them is begun first, one that had ended earlier comes after it.
            group.start(slow)
            group.start(quick)
            group.start(_slow(pa, 1.0).with_options(name="slower"))
            last = group.start(asks)
            async for handle in group.finished:
                if handle is not last:
                    await handle
        return await last

    slow = _slow(pa)
    runner = pa.Runner(forks, resumable=True)
    await runner.run("hi", session_id="s", run_config=pa.RunConfig(on_wait="suspend"))
    return await runner.resume("s", responses={"asks": "this"})


async def follows_edges(pa: Any, session: Any) -> Any:
    """A graph is gone on with: its nodes end again, as they did; then another is guarded."""

    @pa.agent  # type: ignore[untyped-decorator]  # of the copy
    async def quick(ctx: Any) -> list[int]:
        return [1, 2]

    @pa.agent  # type: ignore[untyped-decorator]  # of the copy
    async def asks(ctx: Any) -> Any:
        return await ctx.request_input("which?")

    @pa.agent  # type: ignore[untyped-decorator]  # of the copy
    async def no(ctx: Any) -> bool:
        return False

    worker = _slow(pa, 1.0)
    each = pa.MapAgent("each", worker)
    graph = pa.GraphAgent("graph", [(quick, each), ([each, asks], worker.with_options(name="end"))])
    guarded = pa.GraphAgent("guarded", nodes=[worker.with_options(name="never")], guards=[no])
    runner = pa.Runner(pa.SequentialAgent("both", [graph, guarded]), resumable=True)
    await runner.run("hi", session_id="s", run_config=pa.RunConfig(on_wait="suspend"))
    return await runner.resume("s", responses={"asks": "this"})


DURABLE_WORKLOADS: tuple[Workload, ...] = (
    is_gone_on_with,
    is_resumed_by_its_answers,
    queues,
    interrupts,
    injects,
    keeps_its_lease,
    needs_no_owner,
    cannot_be_read,
    cannot_be_asked,
    is_followed,
    is_hosted,
    gives_up,
    forks_and_is_resumed,
    follows_edges,
)
