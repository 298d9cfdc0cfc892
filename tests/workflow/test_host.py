"""Detached runs: nobody's coming or going changes them, and nobody misses what they say."""

from __future__ import annotations

import gc
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from hypothesis import event, given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from parallel_agent import (
    Agent,
    BestEffort,
    Event,
    FailFast,
    FunctionAgent,
    InMemorySessionService,
    InvocationContext,
    MessageRefusedError,
    MessageTypeError,
    NothingToResumeError,
    ParallelAgent,
    ReadError,
    ResponseRefusedError,
    Result,
    RunConfig,
    RunEndedError,
    Runner,
    SequentialAgent,
    Status,
    WaitAll,
    agent,
)
from parallel_agent.host import KEPT_RUNS, RunHost
from parallel_agent.hosted import HostedEvents
from parallel_agent.testing.strategies import agent_trees
from session import SessionBusyError, SessionKey, SessionNotFoundError
from tests.support.leases import LeasingService
from tests.support.timing import clock_with_horizon

Diary = list[str]


def says(*texts: str, pause: float = 1.0, name: str = "speaker") -> FunctionAgent:
    """An agent that says these, with a pause after each."""

    async def say(ctx: InvocationContext) -> Any:
        for text in texts:
            yield text
            await trio.sleep(pause)

    return agent(say, name=name)


def waits(diary: Diary, name: str = "waiting") -> FunctionAgent:
    """An agent that waits for ever, and cleans up slowly."""

    async def wait(ctx: InvocationContext) -> Any:
        try:
            yield "begun"
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            diary.append(f"{name} cleaned up")

    return agent(wait, name=name)


@agent
async def fails(ctx: InvocationContext) -> Any:
    yield "about to fail"
    raise ValueError("of the agent")


@agent
async def listens(ctx: InvocationContext) -> Any:
    message = await ctx.receive()
    yield f"heard {message.text}"


@agent
async def asks(ctx: InvocationContext) -> Any:
    reply = await ctx.request_input("Sure?", schema=bool)
    yield "yes" if reply else "no"


def new_host(
    tree: Any, service: InMemorySessionService | None = None, **options: Any
) -> tuple[Runner, RunHost]:
    runner = Runner(tree, session_service=service, app_name="app", **options)
    return runner, runner.host()


async def texts_of(events: HostedEvents) -> list[str]:
    return [event.text async for event in events]


async def log_of(runner: Runner, session_id: str = "s") -> list[Event]:
    session = await runner.session_service.get(
        app_name="app", user_id="user", session_id=session_id
    )
    assert session is not None
    return session.events


# --------------------------------------------------------------------------- starting and waiting


async def test_a_run_goes_on_with_nobody_there(autojump_clock: MockClock) -> None:
    _, block = new_host(says("a", "b"))
    async with block as host:
        result = await host.wait(await host.start("go", session_id="s"))
    assert [event.text for event in result.events] == ["a", "b"]
    assert result.status is Status.COMPLETED


async def test_start_returns_when_the_message_is_recorded(autojump_clock: MockClock) -> None:
    runner, block = new_host(says("a"), LeasingService(delay=3.0))
    async with block as host:
        await host.start("go", session_id="s")
        assert [event.text for event in await log_of(runner)] == ["go"]


async def test_the_block_cancels_what_runs_and_waits_until_it_has_cleaned_up(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()
    _, block = new_host(waits(diary))
    async with block as host:
        ids = [await host.start() for _ in range(2)]
        await trio.sleep(1)
    assert diary == ["waiting cleaned up"] * 2
    results = [await host.wait(one) for one in ids]
    assert [one.status for one in results] == [Status.CANCELLED] * 2
    assert "the host of the run was left" in str(results[0].reason)


async def test_what_the_body_raises_leaves_as_itself_when_the_runs_have_ended(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()
    _, block = new_host(waits(diary))
    error = KeyError("of the body")

    async def use() -> None:
        async with block as host:
            await host.start()
            await trio.sleep(1)
            raise error

    with pytest.raises(KeyError) as caught:
        await use()
    assert caught.value is error
    assert diary == ["waiting cleaned up"]


async def test_a_host_that_is_cancelled_from_outside_ends_its_runs(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()
    _, block = new_host(waits(diary))
    with trio.move_on_after(5) as scope:
        async with block as host:
            await host.start()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert diary == ["waiting cleaned up"]


async def test_a_cancellation_that_comes_while_the_host_is_left_is_not_lost(
    autojump_clock: MockClock,
) -> None:
    _, block = new_host(waits(Diary()))
    with trio.CancelScope() as scope:
        async with block as host:
            await host.start()
            await trio.sleep(1)
            scope.cancel()
        pytest.fail("the block's end is a checkpoint")
    assert scope.cancelled_caught


async def test_a_failing_run_harms_neither_the_host_nor_other_runs(
    autojump_clock: MockClock,
) -> None:
    @agent
    async def either(ctx: InvocationContext) -> Any:
        if ctx.user_text == "fail":
            raise ValueError("of the agent")
        yield "a"
        await trio.sleep(2)
        yield "b"

    _, block = new_host(either)
    async with block as host:
        good = await host.start("work")
        bad = await host.start("fail")
        with pytest.raises(ValueError, match="of the agent"):
            await host.wait(bad)
        assert (await host.wait(good)).text == "b"
        assert host.runs[bad].status is Status.FAILED


async def test_each_waiter_gets_the_failure_itself_and_none_adds_to_it(
    autojump_clock: MockClock,
) -> None:
    _, block = new_host(fails)
    depths = list[int]()
    async with block as host:
        run_id = await host.start()
        errors = set[int]()
        for _ in range(3):
            try:
                await host.wait(run_id)
            except ValueError as exc:
                errors.add(id(exc))
                depths.append(_depth(exc))
    assert len(errors) == 1
    assert len(set(depths)) == 1


def _depth(error: BaseException) -> int:
    trace, depth = error.__traceback__, 0
    while trace is not None:
        trace, depth = trace.tb_next, depth + 1
    return depth


async def test_an_interrupt_in_an_agent_ends_the_host_as_itself(autojump_clock: MockClock) -> None:
    diary = Diary()

    @agent
    async def interrupted(ctx: InvocationContext) -> Any:
        await trio.sleep(1)
        raise KeyboardInterrupt

    tree = ParallelAgent("both", [interrupted, waits(diary)])
    _, block = new_host(tree)

    async def use() -> None:
        async with block as host:
            await host.start()
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        await use()
    assert diary == ["waiting cleaned up"]


async def test_results_are_kept_for_the_runs_that_ended_last(autojump_clock: MockClock) -> None:
    _, block = new_host(says("a", pause=0))
    async with block as host:
        ids = list[str]()
        for _ in range(KEPT_RUNS + 2):
            ids.append(await host.start())
            await host.wait(ids[-1])
        assert [*host.runs] == ids[2:]
        with pytest.raises(RunEndedError, match=f"knows no run '{ids[1]}'"):
            await host.wait(ids[1])


async def test_whoever_waits_gets_the_result_of_a_run_that_is_forgotten_meanwhile(
    autojump_clock: MockClock,
) -> None:
    _, block = new_host(says("a", pause=0))
    results = list[Result]()
    async with block as host, trio.open_nursery() as nursery:
        first = await host.start()

        async def wait() -> None:
            results.append(await host.wait(first))

        nursery.start_soon(wait)
        for _ in range(KEPT_RUNS + 1):
            await host.wait(await host.start())
    assert [one.text for one in results] == ["a"]


def activations() -> list[object]:
    gc.collect()
    return [one for one in gc.get_objects() if type(one).__name__ == "Activation"]


async def test_an_ended_run_no_longer_holds_its_tree(autojump_clock: MockClock) -> None:
    _, block = new_host(says("a", pause=0))
    async with block as host:
        before = {id(one) for one in activations()}  # other tests leave some behind
        await host.wait(await host.start())
        assert not [one for one in activations() if id(one) not in before]


async def test_runs_tells_how_each_run_stands(autojump_clock: MockClock) -> None:
    _, block = new_host(says("a", pause=5))
    async with block as host:
        one = await host.start(session_id="one", user_id="ann")
        await host.wait(one)
        two = await host.start(session_id="two")
        await trio.sleep(1)
        host.cancel(two, "enough")
        three = await host.start(session_id="three")
        await trio.sleep(0.5)
        assert [(i.run_id, i.user_id, i.session_id, str(i.status)) for i in host.runs.values()] == [
            (one, "ann", "one", "completed"),
            (two, "user", "two", "cancelled"),
            (three, "user", "three", "running"),
        ]
        assert host.runs[two].reason == "enough"


async def test_cancel_ends_one_run_and_no_other(autojump_clock: MockClock) -> None:
    _, block = new_host(says("a", "b", "c"))
    async with block as host:
        one, two = await host.start(), await host.start()
        await trio.sleep(0.5)
        host.cancel(one, "enough")
        assert (await host.wait(one)).reason == "enough"
        assert (await host.wait(two)).text == "c"
        host.cancel(two)  # too late, and no harm
        assert host.runs[two].status is Status.COMPLETED


# ------------------------------------------------------------------------------ misuse, and races


async def test_a_host_wants_its_block() -> None:
    _, host = new_host(says("a"))
    with pytest.raises(ReadError, match=r"async with runner\.host"):
        await host.start()
    with pytest.raises(ReadError, match=r"async with runner\.host"):
        await host.resume("s")
    with pytest.raises(ReadError, match="async with"), host:
        pass
    async with host:
        pass
    with pytest.raises(ReadError, match=r"async with runner\.host"):
        await host.start()
    with pytest.raises(ReadError, match="entered already"):
        async with host:
            pass


async def test_bad_arguments_are_refused_at_once() -> None:
    _, block = new_host(says("a"))
    async with block as host:
        with pytest.raises(MessageTypeError, match="a message is text"):
            await host.start(3)  # type: ignore[arg-type]  # that is the point
        with pytest.raises(MessageTypeError, match="a message is text"):
            await host.start(3, on_busy="inject")  # type: ignore[arg-type]  # likewise
        with pytest.raises(ValueError, match="on_busy is one of"):
            await host.start("go", on_busy="never")  # type: ignore[arg-type]  # likewise
        with pytest.raises(NothingToResumeError, match="resumable=True"):
            await host.resume("s")
        with pytest.raises(ValueError, match="after is the sequence number"):
            host.subscribe("s", after=-1)
        for ask in (host.cancel, host.pending):
            with pytest.raises(RunEndedError, match="knows no run 'other'"):
                ask("other")
        assert dict(host.runs) == {}


async def test_a_start_that_fails_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    _, block = new_host(says("a"))
    async with block as host:
        one = await host.start("go", session_id="s")
        with pytest.raises(SessionBusyError) as caught:
            await host.start("again", session_id="s")
        assert caught.value.run_id == one
        assert [*host.runs] == [one]
        assert (await host.wait(one)).text == "a"


async def test_a_cancelled_start_leaves_no_run_and_a_free_session(
    autojump_clock: MockClock,
) -> None:
    for after in (0.0, 0.5, 1.5, 2.5, 3.5, 4.5):
        runner, block = new_host(waits(Diary()), LeasingService(delay=1.0), resumable=True)
        async with block as host:
            with trio.move_on_after(after) as scope:
                await host.start("go", session_id="s")
            if scope.cancelled_caught:
                assert {one.status for one in host.runs.values()} <= {Status.CANCELLED}
                assert await runner.unfinished() == []
                await host.start("next", session_id="s")


async def test_a_start_that_is_cancelled_just_when_it_has_succeeded_has_a_cancelled_run(
    autojump_clock: MockClock,
) -> None:
    runner, block = new_host(waits(Diary()), resumable=True)
    async with block as host:
        with trio.CancelScope() as scope:
            # The run has begun, and its starter has not been woken yet.
            async def cancel() -> None:
                while not host.runs:
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel)
                await host.start("go", session_id="s")
        assert [one.status for one in host.runs.values()] in ([Status.RUNNING], [Status.CANCELLED])
        if [one.status for one in host.runs.values()] == [Status.CANCELLED]:
            assert await runner.unfinished() == []


async def test_a_start_that_waits_ends_with_the_host(autojump_clock: MockClock) -> None:
    runner = Runner(waits(Diary()), app_name="app")
    raised = list[Exception]()

    async def start(host: RunHost) -> None:
        try:
            await host.start("two", session_id="s", on_busy="queue")
        except RunEndedError as exc:
            raised.append(exc)

    async with trio.open_nursery() as nursery:
        async with runner.open("one", session_id="s"):
            async with runner.host() as host:
                nursery.start_soon(start, host)
                await trio.sleep(1)
            await wait_all_tasks_blocked()
            assert [str(one) for one in raised] == ["the host of the run was left"]
            # And the session knows nothing of it.
        assert [event.text for event in await log_of(runner) if event.author == "user"] == ["one"]


# ------------------------------------------------------------------------------- into a hosted run


async def test_a_message_reaches_the_run_it_is_sent_to(autojump_clock: MockClock) -> None:
    _, block = new_host(listens)
    async with block as host:
        one, two = await host.start(), await host.start()
        await host.send(two, "two")
        await host.send(one, "one")
        assert [(await host.wait(run)).text for run in (one, two)] == ["heard one", "heard two"]
        with pytest.raises(MessageRefusedError, match="has ended: nobody is there"):
            await host.send(one, "late")


async def test_a_question_of_a_hosted_run_is_answered_through_the_host(
    autojump_clock: MockClock,
) -> None:
    _, block = new_host(asks)
    async with block as host:
        run_id = await host.start()
        await trio.sleep(1)
        (question,) = host.pending(run_id)
        with pytest.raises(ResponseRefusedError, match="no"):
            await host.respond(run_id, question.id, "no")
        await host.respond(run_id, question.id, True)
        assert (await host.wait(run_id)).text == "yes"
        with pytest.raises(ResponseRefusedError, match=r"has ended$"):
            await host.respond(run_id, question.id, True)


async def test_a_run_that_was_suspended_says_what_it_waits_for_and_goes_on_with_the_answer(
    autojump_clock: MockClock,
) -> None:
    _, block = new_host(asks, resumable=True)
    async with block as host:
        run_id = await host.start(session_id="s", run_config=RunConfig(on_wait="suspend"))
        assert (await host.wait(run_id)).status is Status.WAITING
        (question,) = host.pending(run_id)
        with pytest.raises(ResponseRefusedError, match=r"host\.resume"):
            await host.respond(run_id, question.id, True)
        assert await host.resume("s", responses={question.id: True}) == run_id
        assert (await host.wait(run_id)).text == "yes"
        assert [*host.runs] == [run_id]
        assert host.pending(run_id) == ()


# ---------------------------------------------------------------------------------- a busy session


async def test_inject_sends_into_the_run_that_has_the_session(autojump_clock: MockClock) -> None:
    _, block = new_host(listens)
    async with block as host:
        one = await host.start("one", session_id="s", on_busy="inject")
        assert await host.start("two", session_id="s", on_busy="inject") == one
        assert (await host.wait(one)).text == "heard two"


async def test_inject_reaches_a_run_that_somebody_else_reads(autojump_clock: MockClock) -> None:
    runner, block = new_host(listens)
    async with block as host, runner.open("one", session_id="s") as run:
        assert await host.start("two", session_id="s", on_busy="inject") == run.invocation_id
        assert "heard two" in [event.text async for event in run]


async def test_inject_waits_for_a_run_that_takes_no_more_and_starts_the_next(
    autojump_clock: MockClock,
) -> None:
    _, block = new_host(says("a", "b"))
    async with block as host:
        full = RunConfig(inbox_size=1)
        one = await host.start("one", session_id="s", run_config=full)
        assert await host.start("two", session_id="s", on_busy="inject") == one
        three = await host.start("three", session_id="s", on_busy="inject")
        assert three != one
        assert host.runs[one].status is Status.COMPLETED
        assert (await host.wait(three)).text == "b"


async def test_queued_starts_run_one_after_another_in_the_order_of_their_coming(
    autojump_clock: MockClock,
) -> None:
    runner, block = new_host(says("a", "b"))
    async with block as host, trio.open_nursery() as nursery:
        for number in range(4):
            await wait_all_tasks_blocked()
            nursery.start_soon(_start, host, f"{number}")
    log = [event.text for event in await log_of(runner)]
    assert log[:9] == ["0", "a", "b", "1", "a", "b", "2", "a", "b"]


async def _start(host: RunHost, message: str) -> None:
    await host.start(message, session_id="s", on_busy="queue")


async def test_interrupt_ends_the_run_of_another_host_before_it_begins(
    autojump_clock: MockClock,
) -> None:
    service = InMemorySessionService()
    (_, one), (_, two) = new_host(waits(Diary()), service), new_host(says("a"), service)
    async with one as first, two as second:
        old = await first.start("old", session_id="s")
        await trio.sleep(1)
        new = await second.start("new", session_id="s", on_busy="interrupt")
        assert first.runs[old].status is Status.CANCELLED
        assert (await second.wait(new)).text == "a"
        assert first.runs[old].reason == "interrupted by another run of its session"


async def test_of_two_hosts_one_has_the_session_and_the_other_says_who(
    autojump_clock: MockClock,
) -> None:
    service = InMemorySessionService()
    (_, one), (_, two) = new_host(says("a"), service), new_host(says("b"), service)
    async with one as first, two as second:
        run_id = await first.start("old", session_id="s")
        with pytest.raises(SessionBusyError, match=run_id):
            await second.start("new", session_id="s")


# -------------------------------------------------------------------------------------- subscribers


async def test_a_subscriber_gets_what_is_recorded_and_what_comes_and_then_the_end(
    autojump_clock: MockClock,
) -> None:
    _, block = new_host(says("a", "b"))
    async with block as host:
        await host.start("go", session_id="s")
        assert await texts_of(host.subscribe("s")) == ["go", "a", "b"]
        assert trio.current_time() >= 2


async def test_a_subscriber_that_comes_when_all_is_over_gets_all_of_it_at_once(
    autojump_clock: MockClock,
) -> None:
    runner, block = new_host(says("a", "b"), resumable=True)
    async with block as host:
        await host.wait(await host.start("go", session_id="s"))
        before = trio.current_time()
        assert await texts_of(host.subscribe("s")) == ["go", "a", "b"]
        assert await texts_of(host.subscribe("s", after=2)) == ["a", "b"]
        assert trio.current_time() == before
    assert await texts_of(host.subscribe("s")) == ["go", "a", "b"]  # after the block, too
    assert len(await log_of(runner)) > 3  # the runtime's own notes are left out


async def test_a_subscriber_of_no_session_is_told_so() -> None:
    _, block = new_host(says("a"))
    async with block as host:
        with pytest.raises(SessionNotFoundError):
            await anext(host.subscribe("none"))


async def test_partial_events_are_not_for_subscribers(autojump_clock: MockClock) -> None:
    @agent
    async def types(ctx: InvocationContext) -> Any:
        yield Event("he", partial=True)
        yield "hello"

    _, block = new_host(types)
    async with block as host:
        await host.start("go", session_id="s")
        assert await texts_of(host.subscribe("s")) == ["go", "hello"]


async def test_a_subscriber_follows_the_next_run_if_that_begins_before_it_has_ended(
    autojump_clock: MockClock,
) -> None:
    _, block = new_host(says("a"))
    async with block as host, trio.open_nursery() as nursery:
        await host.start("one", session_id="s")
        nursery.start_soon(_start, host, "two")
        await wait_all_tasks_blocked()
        events = host.subscribe("s")
        assert [(await anext(events)).text for _ in range(2)] == ["one", "a"]
        await trio.sleep(1.5)  # the first has ended, and the second begun
        assert await texts_of(events) == ["two", "a"]


async def test_a_subscriber_follows_a_run_that_begins_while_it_looks_for_the_end_of_the_log(
    autojump_clock: MockClock,
) -> None:
    class SlowLook(InMemorySessionService):
        async def get(self, *, num_recent_events: int | None = None, **options: Any) -> Any:
            session = await super().get(num_recent_events=num_recent_events, **options)
            if num_recent_events == 0:
                await trio.sleep(1)
            return session

    seen = list[str]()

    async def read(events: HostedEvents) -> None:
        seen.extend(await texts_of(events))

    _, block = new_host(says("a", "b"), SlowLook())
    async with block as host:
        await host.wait(await host.start("one", session_id="s"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, host.subscribe("s", after=3))
            await trio.sleep(0.5)
            await host.start("two", session_id="s")
    assert seen == ["two", "a", "b"]


async def test_a_subscription_that_has_ended_stays_so(autojump_clock: MockClock) -> None:
    _, block = new_host(says("a"))
    async with block as host:
        await host.wait(await host.start("one", session_id="s"))
        events = host.subscribe("s")
        assert await texts_of(events) == ["one", "a"]
        await host.start("two", session_id="s")
        assert await texts_of(events) == []


async def test_a_subscriber_sees_the_end_of_a_run_whose_host_is_left(
    autojump_clock: MockClock,
) -> None:
    _, block = new_host(waits(Diary()))
    seen = list[list[str]]()

    async def read(events: HostedEvents) -> None:
        seen.append(await texts_of(events))

    async with trio.open_nursery() as nursery, block as host:
        await host.start("go", session_id="s")
        nursery.start_soon(read, host.subscribe("s"))
        await trio.sleep(1)
    assert seen == [["go", "begun"]]


async def test_a_host_does_not_wait_for_the_runs_of_another_at_the_session(
    autojump_clock: MockClock,
) -> None:
    service = InMemorySessionService()
    (_, one), (_, two) = new_host(waits(Diary()), service), new_host(says("b"), service)
    async with one as first, two as second:
        await first.start("go", session_id="s")
        await trio.sleep(1)
        assert await texts_of(second.subscribe("s")) == ["go", "begun"]


async def test_a_subscription_moves_to_a_number_only_if_the_log_goes_so_far(
    autojump_clock: MockClock,
) -> None:
    _, block = new_host(says("a", "b"))
    async with block as host:
        await host.wait(await host.start("go", session_id="s"))
        for number, expected in [(2, ["b"]), (3, []), (4, ["go", "a", "b"]), (0, ["go", "a", "b"])]:
            events = host.subscribe("s")
            events.go_on_after(number)
            assert await texts_of(events) == expected


# ----------------------------------------------------------------- clients, drawn with their pauses


@attrs.frozen
class Client:
    """One that comes, reads so many events with a pause after each, and leaves or stays."""

    comes: float
    after: int
    pause: float
    leaves_after: int | None
    impatience: float | None  # cancels each step that takes so long, and tries again


PAUSES = st.sampled_from([0.0, 0.5, 1.0, 1.25, 3.0])

CLIENTS = st.builds(
    Client,
    comes=PAUSES,
    after=st.integers(0, 6),
    pause=PAUSES,
    leaves_after=st.none() | st.integers(0, 6),
    impatience=st.none() | st.sampled_from([0.25, 0.7]),
)


@attrs.define
class Seen:
    numbers: list[int] = attrs.Factory(list[int])
    is_whole: bool = False


async def _read(host: RunHost, client: Client, seen: Seen) -> None:
    await trio.sleep(client.comes)
    events = host.subscribe("s", after=client.after)
    while client.leaves_after is None or len(seen.numbers) < client.leaves_after:
        with trio.move_on_after(client.impatience or float("inf")):
            event = await anext(events, None)
            if event is None:
                seen.is_whole = True
                return
            seen.numbers.append(event.seq or 0)
            await trio.lowlevel.checkpoint()
        await trio.sleep(client.pause)


def complaints(log: list[Event], clients: list[Client], seen: list[Seen]) -> list[str]:
    """Say which client has seen something else than its part of the log."""
    found = list[str]()
    for client, got in zip(clients, seen, strict=True):
        expected = [e.seq for e in log if not e.is_record and (e.seq or 0) > client.after]
        wrong = got.numbers != expected[: len(got.numbers)]
        early = got.is_whole and got.numbers != expected
        if wrong or early or (client.leaves_after is None and not got.is_whole):
            found.append(f"{client}: {got}, of {expected}")
    return found


async def _with_clients(
    clients: list[Client], store: float | None, *, resumable: bool
) -> tuple[float, list[Event], list[Seen]]:
    service = InMemorySessionService() if store is None else LeasingService(delay=store)
    tree = SequentialAgent(
        "both",
        [
            ParallelAgent("fan", [says("a", "b", name="x"), says("c", pause=1.5, name="y")]),
            says("d", "e", pause=0.5, name="z"),
        ],
    )
    runner, block = new_host(tree, service, resumable=resumable)
    seen = [Seen() for _ in clients]
    async with block as host, trio.open_nursery() as nursery:
        run_id = await host.start("go", session_id="s")
        begun = trio.current_time()
        for client, got in zip(clients, seen, strict=True):
            nursery.start_soon(_read, host, client, got)
        await host.wait(run_id)
        took = trio.current_time() - begun
    return took, await log_of(runner), seen


RESUMABLE = st.sampled_from(["plain", "resumable"])

STORES = st.none() | st.sampled_from([0.0, 0.3])


@given(st.lists(CLIENTS, max_size=4), STORES, RESUMABLE, st.random_module())
def test_clients_that_come_and_go_see_the_log_and_cost_the_run_no_time(
    clients: list[Client], store: float | None, resumable: str, seed: Any
) -> None:
    can_be_resumed = resumable == "resumable"
    took, log, seen = trio.run(
        lambda: _with_clients(clients, store, resumable=can_be_resumed), clock=clock_with_horizon()
    )
    assert complaints(log, clients, seen) == []
    if store is None:
        assert took == pytest.approx(3.0)


def test_the_checker_sees_a_client_that_has_missed_something() -> None:
    async def main() -> tuple[list[Event], Client]:
        client = Client(comes=0, after=0, pause=0, leaves_after=None, impatience=None)
        _, log, (seen,) = await _with_clients([client], None, resumable=False)
        assert complaints(log, [client], [seen]) == []
        return log, client

    log, client = trio.run(main, clock=clock_with_horizon())
    numbers = [event.seq or 0 for event in log]
    assert complaints(log, [client], [Seen(numbers[1:], is_whole=True)]) != []
    assert complaints(log, [client], [Seen(numbers[:-1], is_whole=True)]) != []
    assert complaints(log, [client], [Seen([*numbers, 9], is_whole=True)]) != []
    assert complaints(log, [client], [Seen(numbers, is_whole=False)]) != []


async def test_a_client_that_never_reads_does_not_hold_the_run_up(
    autojump_clock: MockClock,
) -> None:
    _, block = new_host(says(*map(str, range(1_000)), pause=0))
    async with block as host:
        run_id = await host.start("go", session_id="s")
        idle = host.subscribe("s")
        await anext(idle)
        assert len((await host.wait(run_id)).events) == 1_000
        assert len(await texts_of(idle)) == 1_000


# -------------------------------------------------------------------------- left, and resumed


@pytest.mark.parametrize("after", [0.0, 0.5, 1.0, 1.5, 2.5, 3.5])
async def test_runs_of_a_host_that_was_left_are_resumed_by_the_next_with_the_same_result(
    after: float, autojump_clock: MockClock
) -> None:
    @agent(output_key="sum")
    async def adds(ctx: InvocationContext) -> Any:
        return ctx.state["x"] + ctx.state["y"]

    def tree() -> SequentialAgent:
        leaves = [
            agent(_counts(2), name="first", output_key="x"),
            agent(_counts(3), name="second", output_key="y"),
        ]
        return SequentialAgent("both", [*leaves, adds])

    service = InMemorySessionService()
    runner, block = new_host(tree(), service, resumable=True)
    async with block as host:
        run_id = await host.start("go", session_id="s")
        await trio.sleep(after)
    assert host.runs[run_id].status is Status.CANCELLED
    assert [(one.run_id, one.status) for one in await runner.unfinished()] == [
        (run_id, "interrupted")
    ]
    _, block = new_host(tree(), service, resumable=True)
    async with block as host:
        assert await host.resume("s") == run_id
        result = await host.wait(run_id)
    assert (result.status, result.output, dict(result.state)) == (
        Status.COMPLETED,
        5,
        {"x": 2, "y": 3, "sum": 5},
    )
    assert await runner.unfinished() == []


def _counts(to: int) -> Callable[[InvocationContext], Any]:
    async def count(ctx: InvocationContext) -> Any:
        for number in range(1, to + 1):
            yield Event(f"{ctx.agent.name} {number}", output=number)
            await trio.sleep(0.75)

    return count


TREES = agent_trees(
    state=False,
    contributions=("t", "u"),
    timeouts=False,
    requests=False,
    escalations=False,
    failures=False,
    policies=(FailFast(), WaitAll(), BestEffort()),
)


def _summary(result: Result) -> tuple[Any, ...]:
    return result.status, result.output, dict(result.outputs), dict(result.state)


async def _uninterrupted(tree: Agent) -> Result:
    return await Runner(tree, reducers={"t": "add", "u": "add"}).run("go")


async def _left_at(tree: Agent, times: list[float]) -> tuple[int, Result]:
    """Leave one host after the other in the middle; return how many resumed, and the end."""
    service = InMemorySessionService()
    reducers = {"t": "add", "u": "add"}
    runner = Runner(tree, session_service=service, resumable=True, reducers=reducers)
    async with runner.host() as host:
        run_id = await host.start("go", session_id="s")
        await trio.sleep(times[0])
    resumed = 0
    for after in [*times[1:], math.inf]:
        if not await runner.unfinished():
            break
        resumed += 1
        async with runner.host() as host:
            assert await host.resume("s") == run_id
            with trio.move_on_after(after):
                await host.wait(run_id)
    return resumed, await host.wait(run_id)


@given(TREES, st.lists(st.sampled_from([0.0, 0.3, 1.0, 2.5]), min_size=1, max_size=3), st.data())
def test_hosts_that_are_left_in_the_middle_come_to_the_result_of_one_that_was_not(
    tree: Agent, times: list[float], data: st.DataObject
) -> None:
    data.draw(st.random_module())
    whole = trio.run(_uninterrupted, tree, clock=clock_with_horizon())
    resumed, result = trio.run(_left_at, tree, times, clock=clock_with_horizon())
    event(f"resumed {resumed} times")
    assert _summary(result) == _summary(whole)


async def test_a_run_that_was_cancelled_through_its_host_is_not_to_be_resumed(
    autojump_clock: MockClock,
) -> None:
    runner, block = new_host(waits(Diary()), resumable=True)
    async with block as host:
        run_id = await host.start("go", session_id="s")
        await trio.sleep(1)
        host.cancel(run_id)
    assert await runner.unfinished() == []


async def test_a_resume_that_is_cancelled_while_it_is_opened_leaves_the_run_to_be_resumed(
    autojump_clock: MockClock,
) -> None:
    service = InMemorySessionService()
    runner, block = new_host(waits(Diary()), service, resumable=True)
    async with block as host:
        run_id = await host.start("go", session_id="s")
        await trio.sleep(1)
    async with runner.host() as host:
        with trio.CancelScope() as scope:
            scope.cancel()
            await host.resume("s")
        assert scope.cancelled_caught
        assert [one.run_id for one in await runner.unfinished()] == [run_id]
        assert await host.resume("s") == run_id


@asynccontextmanager
async def _unread(service: InMemorySessionService) -> AsyncIterator[None]:
    """Have something else than the host append to the session meanwhile."""
    key = SessionKey("app", "user", "s")
    event = Event("of somebody else")
    event.seal()
    await service.append(key, [event], expected_seq=1)
    yield


async def test_a_run_whose_store_fails_raises_at_wait(autojump_clock: MockClock) -> None:
    service = InMemorySessionService()
    _, block = new_host(says("a", "b"), service)
    async with block as host:
        run_id = await host.start("go", session_id="s")
        async with _unread(service):
            with pytest.raises(Exception, match="ends at 2, not at 1"):
                await host.wait(run_id)
        assert host.runs[run_id].status is Status.FAILED
