"""Runs that pass, between them, through every place where the runtime waits.

They are written against an instrumented copy of the packages, so everything comes in as ``pa``.
"""

# The copies of the packages are `Any` to a type checker, and so is what their decorators make.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import attrs
import trio

__all__ = ["REAL_TIME", "WORKLOADS", "Workload"]

Workload = Callable[[Any, Any], Awaitable[Any]]
"""Called with the copies of ``parallel_agent`` and ``session``; returns the run's result."""


class StoreError(Exception):
    """What a failing store raises."""


def _slow_store(pa: Any, *, fails_at: int | None = None) -> Any:
    class SlowStore(pa.InMemorySessionService):  # type: ignore[misc]  # a class of the copy
        batches = True
        appends = 0

        async def append(
            self, key: Any, events: Any, *, expected_seq: int, lease: Any = None
        ) -> None:
            self.appends += 1
            await trio.sleep(1)
            if self.appends == fails_at:
                raise StoreError(self.appends)
            await super().append(key, events, expected_seq=expected_seq, lease=lease)

    return SlowStore()


def _leaf(pa: Any, name: str, *, events: int = 2, **options: Any) -> Any:
    async def leaf(ctx: Any) -> Any:
        for number in range(events):
            ctx.state[name] = number
            yield f"{name} {number}"
            await trio.sleep(0.5)

    return pa.agent(leaf, name=name, **options)


def _tree(pa: Any) -> Any:
    @pa.agent
    async def returns(ctx: Any) -> str:
        ctx.state["late"] = True
        return "done"

    @pa.agent
    async def emits(ctx: Any) -> None:
        await ctx.emit("itself")
        ctx.state["at the end"] = 1

    async def instead(ctx: Any) -> str:
        return "instead"

    class Composite(pa.Agent):  # type: ignore[misc]  # a class of the copy
        async def run(self, ctx: Any) -> Any:
            ctx.state["before the child"] = 1
            yield await ctx.run_agent(self.sub_agents[0])

    @pa.agent
    async def done(ctx: Any) -> Any:
        yield pa.Event("enough", actions=pa.EventActions(escalate=True))

    return pa.SequentialAgent(
        "pipeline",
        [
            pa.ParallelAgent(
                "fan",
                [_leaf(pa, "a", output_key="out"), returns, emits],
                after_agent_callback=lambda _: "after",
            ),
            _leaf(pa, "skipped", before_agent_callback=instead),
            pa.LoopAgent(
                "loop", [_leaf(pa, "b"), pa.ParallelAgent("inner", [done, _leaf(pa, "c")])]
            ),
            Composite("composite", [_leaf(pa, "d", events=1)]),
        ],
    )


async def reads_to_the_end(pa: Any, session: Any) -> Any:
    """Everything a tree can be made of, twice in one session."""
    runner = pa.Runner(_tree(pa))
    first = await runner.run("hello", session_id="s")
    again = await runner.run("again", session_id="s", state_delta={"temp:x": 1})
    return attrs.evolve(again, events=first.events + again.events)


async def reads_from_a_slow_store(pa: Any, session: Any) -> Any:
    """Batches; and an inner timeout while its event is being recorded, so that it must settle."""

    @pa.agent
    async def impatient(ctx: Any) -> Any:
        with trio.move_on_after(0.5):
            yield "slowly"

    tree = pa.SequentialAgent(
        "s", [impatient, pa.ParallelAgent("p", [_leaf(pa, "a"), _leaf(pa, "b")])]
    )
    return await pa.Runner(tree, session_service=_slow_store(pa)).run("hello")


async def leaves_early(pa: Any, session: Any) -> Any:
    """The reader leaves while branches clean up under shields."""

    @pa.agent
    async def careful(ctx: Any) -> Any:
        try:
            while True:
                yield "on"
                await trio.sleep(0.2)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
                yield "cleaned up"

    tree = pa.ParallelAgent("p", [careful, pa.SequentialAgent("s", [_leaf(pa, "a", events=9)])])
    async with pa.Runner(tree).open("hello") as run:
        async for event in run:
            if event.text == "a 1":
                break
    return run.result


async def cannot_be_cancelled(pa: Any, session: Any) -> Any:
    """An agent that does not give up is closed."""

    @pa.agent
    async def stubborn(ctx: Any) -> Any:
        for _ in range(20):
            with suppress(trio.Cancelled):
                yield "on"

    return await _cancelled(pa, stubborn)


async def cannot_be_closed(pa: Any, session: Any) -> Any:
    """Nor does this one give up when it is closed, for long."""

    @pa.agent
    async def immortal(ctx: Any) -> Any:
        lives = 100
        while lives >= 0:
            try:
                yield "on"
            except trio.Cancelled:
                pass
            except GeneratorExit:
                lives -= 1

    return await _cancelled(pa, immortal)


async def _cancelled(pa: Any, tree: Any) -> Any:
    async with pa.Runner(tree).open("hello") as run:
        await anext(run)
        run.cancel("enough")
        try:
            async for _ in run:
                pass
        except pa.UncancellableAgentError:
            pass
    return run.result


async def cleans_up_with_a_child(pa: Any, session: Any) -> Any:
    """A branch that a sibling has ended starts a child while it cleans up."""

    class Careful(pa.Agent):  # type: ignore[misc]  # a class of the copy
        async def run(self, ctx: Any) -> Any:
            try:
                yield "careful"
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await ctx.run_agent(self.sub_agents[0])

    @pa.agent
    async def decides(ctx: Any) -> Any:
        await trio.sleep(1)
        yield pa.Event("enough", actions=pa.EventActions(escalate=True))

    tree = pa.ParallelAgent("p", [Careful("careful", [_leaf(pa, "a")]), decides])
    async with pa.Runner(tree).open("hello") as run:
        async for event in run:
            if event.author == "p":
                run.cancel("seen")
    return run.result


async def fails(pa: Any, session: Any) -> Any:
    """A branch fails; the others are cancelled, at every depth."""

    @pa.agent
    async def broken(ctx: Any) -> Any:
        yield "about to"
        await trio.sleep(0.7)
        raise StoreError("agent")

    nested = pa.SequentialAgent("nested", [pa.ParallelAgent("deep", [_leaf(pa, "a", events=9)])])
    async with pa.Runner(pa.ParallelAgent("p", [nested, broken])).open("hello") as run:
        try:
            async for _ in run:
                pass
        except StoreError:
            pass
    return run.result


async def store_fails(pa: Any, session: Any) -> Any:
    """The store fails in the middle."""
    tree = pa.ParallelAgent("p", [_leaf(pa, "a", events=9), _leaf(pa, "b", events=9)])
    runner = pa.Runner(tree, session_service=_slow_store(pa, fails_at=3))
    async with runner.open("hello") as run:
        try:
            async for _ in run:
                pass
        except StoreError:
            pass
    return run.result


async def runs_in_a_thread(pa: Any, session: Any) -> Any:
    """A plain function. Nothing here sleeps: a clock that jumps would not wait for the thread."""

    @pa.agent
    def in_a_thread(ctx: Any) -> str:
        return "from a thread"

    @pa.tool
    def looks() -> str:
        """Look, in a thread as well."""
        return "rain"

    class Calling(pa.Model):  # type: ignore[misc]  # a class of the copy
        name = "calling"

        async def generate(self, request: Any) -> Any:
            said = pa.Text("done") if len(request.contents) > 1 else pa.FunctionCall("looks", {})
            await trio.lowlevel.checkpoint()
            yield pa.ModelResponse(content=pa.Content((said,), role="model"))

    asks = pa.LlmAgent(
        "asks", Calling(), tools=[looks], include_contents="none", on_tool_error="raise"
    )
    tree = pa.SequentialAgent("s", [in_a_thread, asks])
    return await pa.Runner(tree).run("hello")


async def store_fails_after_the_reader_left(pa: Any, session: Any) -> Any:
    """A clean-up is recorded, and cannot be, while the block waits for it."""

    @pa.agent
    async def careful(ctx: Any) -> Any:
        try:
            yield "on"
        finally:
            with trio.CancelScope(shield=True):
                with suppress(pa.StreamClosedError):
                    yield "cleaned up"
                await trio.sleep(1)

    runner = pa.Runner(careful, session_service=_slow_store(pa, fails_at=3))
    opened: list[Any] = []
    with suppress(StoreError):
        async with runner.open("hi") as run:
            opened.append(run)
            await anext(run)
    return opened[0].result


async def opens_a_session_that_another_run_creates(pa: Any, session: Any) -> Any:
    """The session is not there when asked for, and there when it is to be created."""

    class Racing(pa.InMemorySessionService):  # type: ignore[misc]  # a class of the copy
        asked = 0

        async def acquire(self, key: Any, **words: Any) -> Any:
            self.asked += 1
            try:
                return await super().acquire(key, **words)
            except LookupError:
                await super().create(
                    app_name=key.app_name, user_id=key.user_id, session_id=key.session_id
                )
                raise

    return await pa.Runner(_leaf(pa, "a"), session_service=Racing()).run("hi", session_id="s")


class MendedError(Exception):
    """What the plugin of `asks_plugins` turns into an event. A fault it lets pass."""


async def asks_plugins(pa: Any, session: Any) -> Any:
    """Every hook is asked; one failure is mended, and two tasks of one agent emit at once."""

    class Everything(pa.Plugin):  # type: ignore[misc]  # a class of the copy
        async def on_user_message_callback(self, ctx: Any, content: Any) -> str:
            return f"{content.text}, {ctx.agent.name}"

        async def before_run_callback(self, ctx: Any) -> None: ...

        async def after_run_callback(self, ctx: Any, result: Any) -> None:
            await trio.sleep(len(result.events) / 10 + len(ctx.path) / 100)

        async def on_event_callback(self, ctx: Any, event: Any) -> None:
            await trio.sleep(len(event.text) / 10 + len(ctx.path) / 100)

        async def before_agent_callback(self, ctx: Any) -> str | None:
            return "instead" if ctx.agent.name == "skipped" else None

        async def after_agent_callback(self, ctx: Any) -> str:
            return f"and more of {ctx.agent.name}"

        async def on_agent_error_callback(self, ctx: Any, error: Exception) -> str | None:
            ctx.state["mended"] = ctx.agent.name
            return "mended" if isinstance(error, MendedError) else None

    @pa.agent
    async def broken(ctx: Any) -> None:
        raise MendedError

    @pa.agent
    async def emits_twice(ctx: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ctx.emit, "one")
            nursery.start_soon(ctx.emit, "two")

    tree = pa.SequentialAgent("line", [_leaf(pa, "skipped"), broken, emits_twice, _leaf(pa, "a")])
    return await pa.Runner(tree, plugins=[Everything()]).run("hi")


def _keeper(pa: Any) -> Any:
    @pa.agent
    async def keeper(ctx: Any) -> str:
        await ctx.save_artifact("a/b.txt", "text")
        await ctx.load_artifact("a/b.txt")
        ctx.state["kept"] = await ctx.list_artifacts()
        await ctx.add_session_to_memory()
        found = await ctx.search_memory("hi")
        return f"{len(found)} found"

    return keeper


async def keeps_artifacts(pa: Any, session: Any) -> Any:
    """Artifacts and memories, in memory."""
    return await pa.Runner(_keeper(pa)).run("hi")


async def keeps_artifacts_in_a_folder(pa: Any, session: Any) -> Any:
    """Artifacts in files, by way of threads."""
    with tempfile.TemporaryDirectory() as folder:
        service = pa.FolderArtifactService(folder)
        result = await pa.Runner(_keeper(pa), artifact_service=service).run("hi")
        key = session.SessionKey("keeper", "user", result.session_id)
        await service.list_versions(key, "a/b.txt")
        await service.delete(key, "a/b.txt")
        await trio.lowlevel.checkpoint()
        return result


REAL_TIME = (runs_in_a_thread, keeps_artifacts_in_a_folder)

WORKLOADS: tuple[Workload, ...] = (
    reads_to_the_end,
    reads_from_a_slow_store,
    leaves_early,
    cannot_be_cancelled,
    cannot_be_closed,
    cleans_up_with_a_child,
    fails,
    store_fails,
    store_fails_after_the_reader_left,
    opens_a_session_that_another_run_creates,
    asks_plugins,
    keeps_artifacts,
    keeps_artifacts_in_a_folder,
    runs_in_a_thread,
)
