"""What comes after its agent has ended, or while something else fails, is not lost and not late."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from parallel_agent import (
    ActivationEndedError,
    Barrier,
    InvocationContext,
    Limiter,
    Runner,
    agent,
)
from parallel_agent.barrier import Outcome, Tally, Verdict


@pytest.mark.parametrize("output_key", [None, "key"])
async def test_an_event_passed_on_after_its_agent_has_ended_is_refused_there_and_nobody_waits(
    output_key: str | None, autojump_clock: trio.testing.MockClock
) -> None:
    refused: list[BaseException] = []
    async with trio.open_nursery() as foreign:

        async def late(ctx: InvocationContext) -> None:
            with pytest.raises(ActivationEndedError) as caught:
                await ctx.emit("late")
            refused.append(caught.value)

        @agent(output_key=output_key)
        async def child(ctx: InvocationContext) -> None:
            foreign.start_soon(late, ctx)
            await trio.sleep(1)

        @agent
        async def parent(ctx: InvocationContext) -> None:
            async with ctx.open_agent(child) as events:
                event = await events.receive()
                await trio.sleep(2)
                await ctx.emit(event)
                assert event.seq is None

        with trio.fail_after(9):
            result = await Runner(parent).run("hi")
    assert [event.text for event in result.events] == []
    assert len(refused) == 1


class _Broken(Barrier):
    def on_outcome(self, _outcome: Outcome, _tally: Tally) -> Verdict:
        raise LookupError

    def failure(self, _outcomes: Any) -> None:
        return None


async def test_what_a_policy_raises_while_the_block_fails_is_a_note_on_that(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @agent
    async def child(ctx: InvocationContext) -> None:
        await trio.sleep(1)

    @agent
    async def parent(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out(barrier=_Broken()) as group:
            group.start(child)
            await trio.lowlevel.checkpoint()
            raise KeyError("own")

    with pytest.raises(KeyError) as caught:
        await Runner(parent).run("hi")
    assert any("LookupError" in note for note in caught.value.__notes__)


async def test_a_slot_that_is_handed_over_is_noted_before_its_taker_runs() -> None:
    limiter = Limiter(1)
    taken: list[Limiter] = []
    await limiter.acquire(taken=taken)
    assert taken == [limiter]
    second: list[Limiter] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: limiter.acquire(taken=second))
        await trio.testing.wait_all_tasks_blocked()
        limiter.release()
        assert second == [limiter]
    limiter.release()
    assert limiter.statistics().in_use == 0
