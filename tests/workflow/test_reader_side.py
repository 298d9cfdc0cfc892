"""What a reader does with a run beside iterating: `wait_for`, `only`, `collect`."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from parallel_agent import (
    Agent,
    Event,
    InvocationContext,
    MessageTypeError,
    ParallelAgent,
    ReadError,
    RunEndedError,
    Runner,
    SequentialAgent,
    Status,
    agent,
)
from tests.kernel.scripted import FailingService, StoreError
from tests.support.drawing import fewer
from tests.workflow.trees import Diary, Yields, leaf, run_virtual, texts


def says(text: str) -> Any:
    return lambda event: event.text == text


def counter(name: str, count: int, diary: Diary | None = None) -> Agent:
    """Return an agent that emits so many events; each is noted when its emit has returned."""
    entries: Diary = [] if diary is None else diary

    async def count_up(ctx: InvocationContext) -> None:
        for number in range(count):
            await ctx.emit(f"{name}{number}")
            entries.append(f"{name}{number}")

    return leaf(name, count_up)


# ----------------------------------------------------------------------------------------- wait_for


async def test_wait_for_returns_the_first_event_that_is_like_that(
    autojump_clock: MockClock,
) -> None:
    async with Runner(counter("a", 4)).open() as run:
        event = await run.wait_for(lambda event: event.text in ("a1", "a2"))
        assert event.text == "a1"
        assert texts([event async for event in run]) == ["a2", "a3"]


async def test_wait_for_acknowledges_what_it_passes_over_and_not_what_it_returns(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []
    async with Runner(counter("a", 4, diary)).open() as run:
        await run.wait_for(says("a2"))
        await wait_all_tasks_blocked()
        assert diary == ["a0", "a1"]
        run.cancel()


async def test_wait_for_may_be_called_inside_a_loop(autojump_clock: MockClock) -> None:
    got: list[str] = []
    async with Runner(counter("a", 6)).open() as run:
        async for event in run:
            got.append(event.text)
            if event.text == "a1":
                got.append((await run.wait_for(says("a4"))).text)
    assert got == ["a0", "a1", "a4", "a5"]


async def test_wait_for_something_that_never_comes_says_that_the_run_has_ended(
    autojump_clock: MockClock,
) -> None:
    async with Runner(counter("a", 2)).open() as run:
        with pytest.raises(RunEndedError, match="no event was what wait_for"):
            await run.wait_for(says("never"))
        with pytest.raises(RunEndedError):
            await run.wait_for(says("a0"))
    assert run.result.status is Status.COMPLETED


async def test_wait_for_raises_what_the_run_fails_with(autojump_clock: MockClock) -> None:
    async with Runner(leaf("a", "x", KeyError("a"))).open() as run:
        with pytest.raises(KeyError, match="a"):
            await run.wait_for(says("never"))
        with pytest.raises(RunEndedError):
            await run.wait_for(says("never"))
    assert run.result.status is Status.FAILED


async def test_wait_for_raises_the_stores_error(autojump_clock: MockClock) -> None:
    runner = Runner(counter("a", 3), session_service=FailingService(2))
    async with runner.open() as run:
        with pytest.raises(StoreError):
            await run.wait_for(says("never"))


async def test_a_predicate_that_fails_leaves_the_run_as_it_is(autojump_clock: MockClock) -> None:
    def fussy(event: Event) -> bool:
        raise LookupError(event.text)

    async with Runner(counter("a", 3)).open() as run:
        with pytest.raises(LookupError, match="a0"):
            await run.wait_for(fussy)
        assert texts(await run.collect()) == ["a1", "a2"]


async def async_predicate(event: Event) -> bool:
    return True


@pytest.mark.parametrize("predicate", [None, "text", async_predicate, Event("text")])
async def test_wait_for_takes_a_plain_function(predicate: Any, autojump_clock: MockClock) -> None:
    async with Runner(counter("a", 1)).open() as run:
        with pytest.raises(ReadError, match="a plain function of an event"):
            await run.wait_for(predicate)
        assert texts(await run.collect()) == ["a0"]


async def test_a_cancelled_wait_for_loses_nothing_that_it_was_not_shown(
    autojump_clock: MockClock,
) -> None:
    shown: list[str] = []

    def look(event: Event) -> bool:
        shown.append(event.text)
        return False

    async with Runner(leaf("a", 1, "a1", 1, "a2", 1, "a3")).open() as run:
        for _ in range(8):
            with trio.move_on_after(0.6), pytest.raises(RunEndedError):
                await run.wait_for(look)
    assert shown == ["a1", "a2", "a3"]


async def test_after_cancel_wait_for_ends_with_the_run(autojump_clock: MockClock) -> None:
    async with Runner(leaf("a", 10**9)).open() as run:
        run.cancel("enough")
        with pytest.raises(RunEndedError):
            await run.wait_for(says("never"))
    assert (run.result.status, run.result.reason) == (Status.CANCELLED, "enough")


# --------------------------------------------------------------------------------------------- only


def partial_talker(name: str) -> Agent:
    @agent(name=name)
    async def talk(ctx: InvocationContext) -> Yields:
        yield Event(f"{name} piece", partial=True)
        yield f"{name} whole"

    return talk


FAMILY = SequentialAgent(
    "whole",
    [
        ParallelAgent(
            "fan",
            [
                partial_talker("agent_1"),
                partial_talker("agent_10"),
                SequentialAgent(
                    "agent_2",
                    [ParallelAgent("inner", [partial_talker("deep")]), leaf("end", "end")],
                ),
            ],
        ),
        leaf("after", "after"),
    ],
)


async def only(**wanted: Any) -> list[str]:
    async with Runner(FAMILY).open() as run:
        got = [event async for event in run.only(**wanted)]
    assert run.result.status is Status.COMPLETED
    return sorted(texts(got))


async def test_only_passes_over_other_authors(autojump_clock: MockClock) -> None:
    assert await only(author="agent_1") == ["agent_1 piece", "agent_1 whole"]
    assert await only(author="nobody") == []


async def test_only_compares_branches_by_segments(autojump_clock: MockClock) -> None:
    """Not by the beginnings of names: ``fan.agent_1`` is not above ``fan.agent_10``."""
    assert await only(branch="fan.agent_1") == ["agent_1 piece", "agent_1 whole"]
    assert await only(branch="fan.agent_10") == ["agent_10 piece", "agent_10 whole"]
    assert await only(branch="fan.agent") == []
    assert await only(branch="fan.agent_1.") == []


async def test_only_of_a_branch_takes_what_was_forked_from_it(autojump_clock: MockClock) -> None:
    assert await only(branch="fan.agent_2") == ["deep piece", "deep whole", "end"]
    assert await only(branch="fan.agent_2.inner.deep") == ["deep piece", "deep whole"]


async def test_only_tells_pieces_from_whole_messages(autojump_clock: MockClock) -> None:
    assert await only(partial=True) == ["agent_1 piece", "agent_10 piece", "deep piece"]
    assert await only(partial=False, branch="fan.agent_1") == ["agent_1 whole"]


async def test_only_without_a_wish_passes_over_nothing(autojump_clock: MockClock) -> None:
    assert len(await only()) == 8


async def test_only_takes_all_wishes_together(autojump_clock: MockClock) -> None:
    assert await only(author="deep", branch="fan.agent_2", partial=False) == ["deep whole"]
    assert await only(author="deep", branch="fan.agent_1") == []


@fewer(2)
@given(
    st.sampled_from([None, "agent_1", "deep", "after", "fan", "user"]),
    st.sampled_from([None, "fan", "fan.agent_1", "fan.agent_10", "fan.agent_2", "x"]),
    st.sampled_from([None, True, False]),
    st.random_module(),
)
def test_only_is_the_same_as_looking_at_each_event(
    author: str | None,
    branch: str | None,
    partial: bool | None,  # noqa: FBT001  # drawn
    seed: object,
) -> None:
    def fits(event: Event) -> bool:
        segments, wanted = (event.branch or "").split("."), (branch or "").split(".")
        return (
            (author is None or event.author == author)
            and (branch is None or segments[: len(wanted)] == wanted)
            and (partial is None or event.partial is partial)
        )

    async def main() -> tuple[list[str], list[str]]:
        async with Runner(FAMILY).open() as run:
            got = [event async for event in run.only(author=author, branch=branch, partial=partial)]
        async with Runner(FAMILY).open() as run:
            everything = await run.collect()
        looked_at = [event for event in everything if fits(event)]
        return sorted(event.path for event in got), sorted(event.path for event in looked_at)

    got, looked_at = run_virtual(main)
    assert got == looked_at


async def test_only_acknowledges_what_it_passes_over(autojump_clock: MockClock) -> None:
    diary: Diary = []
    tree = SequentialAgent("s", [counter("a", 3, diary), counter("b", 2, diary)])
    async with Runner(tree).open() as run:
        async for event in run.only(author="b"):
            assert event.text == "b0"
            await wait_all_tasks_blocked()
            assert diary == ["a0", "a1", "a2"]
            break
        run.cancel()


async def test_after_only_the_rest_is_still_there(autojump_clock: MockClock) -> None:
    async with Runner(counter("a", 4)).open() as run:
        async for _ in run.only(author="a"):
            break
        assert texts(await run.collect()) == ["a1", "a2", "a3"]


async def test_only_raises_what_the_run_fails_with(autojump_clock: MockClock) -> None:
    async with Runner(leaf("a", "x", KeyError("a"))).open() as run:
        events = run.only(author="a")
        assert (await anext(events)).text == "x"
        with pytest.raises(KeyError):
            await anext(events)
        assert [event async for event in run.only()] == []


async def test_only_answers_questions_and_sends_messages_like_any_loop(
    autojump_clock: MockClock,
) -> None:
    async def talk(ctx: InvocationContext) -> None:
        answer = await ctx.request_input("well?")
        message = await ctx.receive()
        await ctx.emit(f"{answer} and {message.text}")

    tree = ParallelAgent("fan", [leaf("a", talk), counter("b", 3)])
    async with Runner(tree).open() as run:
        async for event in run.only(branch="fan.a"):
            if event.request is not None:
                await run.respond(event.request.id, "an answer")
            elif event.function_responses:
                await run.send("a message", to="fan.a")
    assert run.result.text == "an answer and a message"


# ------------------------------------------------------------------------------------------ collect


async def test_collect_returns_everything_partial_events_too(autojump_clock: MockClock) -> None:
    async with Runner(partial_talker("a")).open() as run:
        got = await run.collect()
    assert [(event.text, event.partial) for event in got] == [("a piece", True), ("a whole", False)]


async def test_collect_goes_on_where_the_reader_stands(autojump_clock: MockClock) -> None:
    async with Runner(counter("a", 3)).open() as run:
        assert (await anext(run)).text == "a0"
        assert texts(await run.collect()) == ["a1", "a2"]
        assert await run.collect() == []


async def test_collect_raises_what_the_run_fails_with(autojump_clock: MockClock) -> None:
    async with Runner(leaf("a", "x", KeyError("a"))).open() as run:
        with pytest.raises(KeyError):
            await run.collect()
    assert texts(run.result.events) == ["x"]


# --------------------------------------------------------------------------------------- one reader


async def test_a_run_has_one_reader_however_it_reads(autojump_clock: MockClock) -> None:
    async with Runner(leaf("a", 5, "x")).open() as run, trio.open_nursery() as nursery:
        nursery.start_soon(run.collect)
        await wait_all_tasks_blocked()
        for read in (run.collect, run.only().__anext__, lambda: run.wait_for(says("x"))):
            with pytest.raises(ReadError, match="a run has one reader"):
                await read()


@pytest.mark.parametrize("reason", [None, 3, ["enough"]])
async def test_a_run_is_cancelled_for_a_reason_that_is_text_or_not_at_all(
    reason: Any, autojump_clock: MockClock
) -> None:
    async with Runner(leaf("a", 1, "x")).open("hi") as run:
        with pytest.raises(MessageTypeError, match="the reason of a cancellation is text, not"):
            run.cancel(reason)
        await run.collect()
    assert run.result.status == "completed"


@pytest.mark.parametrize("name", ["nobody", None, [1], {}])
async def test_outcomes_of_what_is_no_fan_out_are_a_key_error_that_lists_what_there_is(
    name: Any, autojump_clock: MockClock
) -> None:
    async with Runner(ParallelAgent("fan", [leaf("a")])).open("hi") as run:
        await run.collect()
    with pytest.raises(KeyError, match="ended: fan"):
        run.outcomes(name)
