"""What went wrong once when things that are each right came together."""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator, Callable, Sequence
from enum import StrEnum
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from parallel_agent import (
    ActivationEndedError,
    Agent,
    EmitError,
    Event,
    EventActions,
    InMemorySessionService,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    ReadError,
    Runner,
    SequentialAgent,
    StateConflictError,
    agent,
)
from parallel_agent.activation import Activation
from session import SessionKey, fold
from session.lease import Lease

Yields = AsyncGenerator[Event | str, None]


class SlowService(InMemorySessionService):
    """Takes a while for each batch."""

    batches = True

    async def append(
        self,
        key: SessionKey,
        events: Sequence[Event],
        *,
        expected_seq: int,
        lease: Lease | None = None,
    ) -> None:
        await trio.sleep(0.15)
        await super().append(key, events, expected_seq=expected_seq, lease=lease)


async def test_an_agent_that_raises_stop_async_iteration_does_not_look_finished() -> None:
    @agent
    async def stops(ctx: InvocationContext) -> None:
        raise StopAsyncIteration

    with pytest.raises(RuntimeError, match="agent 'stops' raised StopAsyncIteration"):
        await Runner(SequentialAgent("s", [stops])).run("hi")


async def test_a_store_that_raises_stop_async_iteration_does_not_look_finished() -> None:
    class Stopping(InMemorySessionService):
        async def append(
            self,
            key: SessionKey,
            events: Sequence[Event],
            *,
            expected_seq: int,
            lease: Lease | None = None,
        ) -> None:
            if expected_seq:
                raise StopAsyncIteration
            await super().append(key, events, expected_seq=expected_seq, lease=lease)

    @agent
    async def speaks(ctx: InvocationContext) -> Yields:
        yield "x"

    with pytest.raises(RuntimeError, match="StopAsyncIteration"):
        await Runner(speaks, session_service=Stopping()).run("hi")


async def test_an_event_with_a_number_of_its_own_fails_its_own_branch_only() -> None:
    @agent
    async def forges(ctx: InvocationContext) -> Yields:
        with pytest.raises(EmitError):
            await ctx.emit(Event("x", seq=7))
        yield "mended"

    @agent
    async def healthy(ctx: InvocationContext) -> str:
        return "well"

    result = await Runner(ParallelAgent("p", [forges, healthy])).run("hi")
    assert result.outputs["p"] == {"forges": "mended", "healthy": "well"}


@pytest.mark.parametrize("service", [InMemorySessionService, SlowService])
async def test_a_clock_that_raises_ends_the_run(
    service: Callable[[], InMemorySessionService], autojump_clock: MockClock
) -> None:
    readings = iter([0.0, 1.0])

    def clock() -> float:
        return next(readings, None) or _broken_clock()

    @agent
    async def speaks(ctx: InvocationContext) -> Yields:
        for number in range(5):
            yield str(number)

    kept = service()
    runner = Runner(speaks, session_service=kept, clock=clock)
    async with runner.open(session_id="s") as run:
        with pytest.raises(ArithmeticError):
            [event async for event in run]
        assert [event async for event in run] == []
    stored = await kept.get(app_name="speaks", user_id="user", session_id="s")
    assert stored is not None
    assert list(run.result.events) == stored.events
    assert run.result.status == "failed"


def _broken_clock() -> float:
    raise ArithmeticError


async def test_agents_made_on_the_fly_have_paths_of_their_own() -> None:
    async def speak(ctx: InvocationContext) -> str:
        return ctx.path

    class Root(Agent):
        async def run(self, ctx: InvocationContext) -> Yields:
            for _ in range(3):
                await ctx.run_agent(agent(speak, name="x"))
            yield "done"

    result = await Runner(Root("root")).run("hi")
    assert [event.text for event in result.events] == ["root/x@1", "root/x@2", "root/x@3", "done"]


async def test_the_output_of_an_event_emitted_again_after_a_refusal_is_stored() -> None:
    @agent
    async def first(ctx: InvocationContext) -> Yields:
        ctx.state["k"] = 1
        yield "first"

    @agent(output_key="out")
    async def second(ctx: InvocationContext) -> None:
        await trio.lowlevel.checkpoint()
        ctx.state["k"] = 2
        event = Event(output={"v": 1})
        try:
            await ctx.emit(event)
        except StateConflictError:
            await ctx.emit(event)

    tree = ParallelAgent("p", [first, second])
    result = await Runner(tree, on_conflict="error").run("hi")
    assert result.state["out"] == {"v": 1} or result.status == "completed"
    assert result.state["out"] == result.outputs["second"]


async def test_temporary_keys_conflict_as_well() -> None:
    def writes(name: str) -> Agent:
        @agent(name=name)
        async def leaf(ctx: InvocationContext) -> Yields:
            ctx.state["temp:k"] = name
            yield name

        return leaf

    tree = ParallelAgent("p", [writes("a"), writes("b")])
    with pytest.raises(StateConflictError, match="temp:k"):
        await Runner(tree, on_conflict="error").run("hi")


async def test_a_loop_sees_the_escalation_of_a_fan_out_that_was_given_up(
    autojump_clock: MockClock,
) -> None:
    @agent
    async def stops(ctx: InvocationContext) -> Yields:
        ctx.state["stop"] = True
        yield Event("stop", actions=EventActions(escalate=True))

    class Impatient(Agent):
        async def run(self, ctx: InvocationContext) -> None:
            with trio.move_on_after(0.08):
                await ctx.run_agent(self.sub_agents[0])

    @agent
    async def after(ctx: InvocationContext) -> Yields:
        yield "must not run"

    impatient = Impatient("impatient", [ParallelAgent("inner", [stops])])
    tree = LoopAgent("loop", [impatient, after], max_iterations=3)
    result = await Runner(tree, session_service=SlowService()).run("hi")
    assert [event.text for event in result.events if event.text] == ["stop"]
    assert dict(result.state) == fold({}, result.events)


async def test_two_runs_that_open_a_new_session_at_once_run_one_after_the_other(
    autojump_clock: MockClock,
) -> None:
    class Pausing(InMemorySessionService):
        async def get(self, **names: Any) -> Any:
            found = await super().get(**names)
            await trio.sleep(1)
            return found

    @agent
    async def quiet(ctx: InvocationContext) -> None:
        return None

    runner = Runner(quiet, session_service=Pausing())
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(lambda: runner.run(None, session_id="s", on_busy="queue"))


async def test_text_of_a_class_of_its_own_is_text() -> None:
    class Colour(StrEnum):
        RED = "red"

    @agent
    async def speaks(ctx: InvocationContext) -> Yields:
        yield Colour.RED

    assert (await Runner(speaks).run("hi")).text == "red"


async def test_state_is_not_written_through_the_context_of_an_ended_agent() -> None:
    kept: list[InvocationContext] = []

    @agent
    async def leaks(ctx: InvocationContext) -> None:
        kept.append(ctx)

    @agent
    async def uses(ctx: InvocationContext) -> None:
        with pytest.raises(ActivationEndedError):
            kept[0].state["k"] = 1

    result = await Runner(SequentialAgent("s", [leaks, uses])).run("hi")
    assert "k" not in result.state


def test_a_run_under_asyncio_says_what_it_needs() -> None:
    @agent
    async def quiet(ctx: InvocationContext) -> None:
        return None

    with pytest.raises(ReadError, match="needs trio"):
        Runner(quiet).run("hi").send(None)


async def test_a_run_is_freed_when_it_has_ended() -> None:
    @agent
    async def speaks(ctx: InvocationContext) -> Yields:
        yield "x"

    def alive() -> int:
        gc.collect()
        return sum(type(thing) is Activation for thing in gc.get_objects())

    before = alive()
    service = InMemorySessionService()
    runner = Runner(ParallelAgent("p", [speaks]), session_service=service)
    result = await runner.run("hi", session_id="s")
    assert alive() == before
    assert result.events
