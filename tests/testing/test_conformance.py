"""`check_agent`: agents that keep to what is expected of them, and agents that do not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from parallel_agent import (
    Agent,
    Event,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Run,
    SequentialAgent,
    Status,
    WaitAll,
    agent,
)
from parallel_agent.testing import AgentFaultError, check_agent


def polite() -> Agent:
    @agent(name="polite")
    async def cleans_up(ctx: InvocationContext) -> AsyncIterator[str]:
        try:
            yield "hello"
            with trio.move_on_after(1):
                await trio.sleep(5)
            await trio.sleep(3)
            yield "still here"
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
                yield "bye"

    return cleans_up


def test_an_agent_that_cleans_up_and_lets_its_cancellation_pass_is_fine() -> None:
    report = check_agent(polite)
    assert (report.events, report.status) == (3, Status.COMPLETED)
    assert report.cancelled > 10


def test_workflow_agents_are_fine() -> None:
    def tree() -> Agent:
        fan = ParallelAgent("fan", [polite(), polite().with_options(name="other")])
        return SequentialAgent("s", [LoopAgent("loop", [fan], max_iterations=2)])

    assert check_agent(tree).status is Status.COMPLETED


def test_an_agent_may_fail() -> None:
    async def fails(ctx: InvocationContext) -> None:
        await trio.sleep(1)
        raise KeyError

    assert check_agent(lambda: agent(fails)).status is Status.FAILED


def test_an_agent_that_asks_is_answered_by_the_reader() -> None:
    async def asks(ctx: InvocationContext) -> Any:
        return await ctx.request_input("Go on?", schema=bool)

    async def read(run: Run) -> None:
        async for event in run:
            if event.request is not None:
                await run.respond(event.request.id, value=True)

    assert check_agent(lambda: agent(asks), read=read).status is Status.COMPLETED


async def emits_a_number(ctx: InvocationContext) -> AsyncIterator[Any]:
    yield 3


async def emits_a_number_at_the_end(ctx: InvocationContext) -> AsyncIterator[Any]:
    try:
        yield "one"
    finally:
        yield 3


async def emits_what_has_no_json_form(ctx: InvocationContext) -> AsyncIterator[Event]:
    yield Event(output=object())


@pytest.mark.parametrize(
    "bad", [emits_a_number, emits_a_number_at_the_end, emits_what_has_no_json_form]
)
def test_an_agent_that_emits_what_it_must_not_is_told(bad: Any) -> None:
    for tree in (agent(bad), ParallelAgent("p", [agent(bad)], barrier=WaitAll())):
        with pytest.raises(AgentFaultError, match="the agent emits what it must not: "):
            check_agent(lambda made=tree: made)  # type: ignore[misc]  # a lambda in a loop


def test_an_agent_that_asks_nobody_is_told_how_to_answer() -> None:
    async def asks(ctx: InvocationContext) -> Any:
        return await ctx.request_input("Go on?")

    with pytest.raises(AgentFaultError, match=r"give it one: `read=\.\.\.`"):
        check_agent(lambda: agent(asks))


def test_an_agent_in_place_of_the_function_that_makes_it_is_told() -> None:
    with pytest.raises(TypeError, match="make_agent is a function that makes the agent, anew"):
        check_agent(agent(emits_a_number))  # type: ignore[arg-type]  # on purpose


async def swallows(ctx: InvocationContext) -> str:
    try:  # noqa: SIM105  # as people write it
        await trio.sleep(1)
    except BaseException:  # noqa: BLE001, S110  # what this is about
        pass
    return "fine"


async def swallows_at_an_event(ctx: InvocationContext) -> AsyncIterator[str]:
    try:  # noqa: SIM105  # as people write it
        yield "said"
    except BaseException:  # noqa: BLE001, S110  # what this is about
        pass


async def never_gives_up(ctx: InvocationContext) -> str:
    while True:
        try:  # as people write it
            await trio.sleep(1)
        except BaseException:  # noqa: BLE001, S110  # what this is about
            pass
        else:
            return "done"


async def hangs_in_cleaning_up(ctx: InvocationContext) -> None:
    try:
        await trio.sleep(1)
    except trio.Cancelled:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()


async def yields_again_and_again(ctx: InvocationContext) -> AsyncIterator[str]:
    for number in range(9):
        try:  # noqa: SIM105  # as people write it
            yield str(number)
        except BaseException:  # noqa: BLE001, S110  # what this is about
            pass


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (swallows, "swallows trio.Cancelled"),
        (swallows_at_an_event, "swallows trio.Cancelled"),
        (never_gives_up, "goes on for ever"),
        (hangs_in_cleaning_up, r"waits, behind a shield, for what never comes"),
        (yields_again_and_again, "swallows trio.Cancelled"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_agent_that_does_not_honour_its_cancellation_is_told_where(
    bad: Any, complaint: str
) -> None:
    with pytest.raises(AgentFaultError, match=complaint) as raised:
        check_agent(lambda: agent(bad))
    assert str(raised.value).startswith("cancelled at wait ")


async def waits_for_nobody(ctx: InvocationContext) -> None:
    await ctx.receive()


async def goes_round(ctx: InvocationContext) -> None:
    while True:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("bad", [waits_for_nobody, goes_round])
def test_an_agent_that_does_not_end_by_itself_is_told(bad: Any) -> None:
    with pytest.raises(AgentFaultError, match="left alone, the agent does not come to an end"):
        check_agent(lambda: agent(bad), max_steps=50)
