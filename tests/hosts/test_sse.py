"""Server-sent events: the format, and that no client's going leaves anything behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import re
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final, TypeAlias

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from parallel_agent import (
    BestEffort,
    Event,
    FunctionAgent,
    InMemorySessionService,
    InvocationContext,
    ParallelAgent,
    ReadError,
    SequentialAgent,
    agent,
    aio,
)
from parallel_agent import Runner as TrioRunner
from parallel_agent.observe.harmless import json_line
from tests.support.drawing import fewer
from tests.support.loops import InLoop, counting
from tests.support.serving import CODEC, Connection, Message, by_python, by_the_standard, serving

KEEP_ALIVE: Final = b": keep-alive\n\n"
SECRET: Final = "the password is tiger"  # noqa: S105  # of nothing


# ------------------------------------------------------------------------------ what a client reads


def test_the_parser_reads_the_example_of_the_standard() -> None:
    stream = (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third\n\n"
    )
    assert by_the_standard(stream) == [
        Message("message", "first event", "1"),
        Message("message", "second event", ""),
        Message("message", " third", ""),
    ]
    assert by_the_standard(b"event: add\r\ndata: a\rdata: b\n\n") == [Message("add", "a\nb", "")]


# ----------------------------------------------------------------------------------------- helpers


async def all_of(stream: AsyncGenerator[bytes]) -> list[bytes]:
    return [frame async for frame in stream]


async def step_of(stream: AsyncGenerator[bytes]) -> bytes:
    return await anext(stream)


async def messages(stream: AsyncGenerator[bytes]) -> list[Message]:
    return by_the_standard(b"".join(await all_of(stream)))


async def until_failure(stream: AsyncGenerator[bytes]) -> tuple[list[bytes], BaseException | None]:
    sent = list[bytes]()
    try:
        async for frame in stream:
            sent.append(frame)
    except Exception as exc:  # noqa: BLE001  # the test looks at it
        return sent, exc
    return sent, None


def saying(*texts: str, partials: Iterable[int] = ()) -> FunctionAgent:
    async def say(ctx: InvocationContext) -> Any:
        for number, text in enumerate(texts):
            yield Event(text, partial=number in partials)

    return agent(say, name="speaker")


class Patient:
    """A tree that says ``begin`` on two branches, waits for ever, and cleans up slowly."""

    def __init__(self) -> None:
        self.cleaned_up = list[str]()
        self.clean = asyncio.Event()

    @property
    def tree(self) -> ParallelAgent:
        return ParallelAgent("both", [self._waiting("left"), self._waiting("right")])

    def _waiting(self, name: str) -> FunctionAgent:
        async def wait(ctx: InvocationContext) -> Any:
            try:
                yield "begin"
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    for _ in range(5):
                        await trio.lowlevel.checkpoint()
                self.cleaned_up.append(name)
                if len(self.cleaned_up) == 2:
                    self.clean.set()

        return agent(wait, name=name)

    @property
    def is_clean(self) -> bool:
        return sorted(self.cleaned_up) == ["left", "right"]


def others() -> set[str]:
    """The names of the loop's tasks, but for the test's own and the guest's."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    return {task.get_name() for task in tasks} - {"parallel_agent.aio"}


async def until_alone() -> None:
    """Wait for the loop to be done with what it closes by itself."""
    while others():
        await turns(1)


async def waiting_client(patient: Patient) -> tuple[asyncio.Task[list[bytes]], list[bytes]]:
    """Read a patient tree until it is silent."""
    sent = list[bytes]()
    both = asyncio.Event()

    async def serve() -> list[bytes]:
        async for frame in aio.stream_sse(aio.Runner(patient.tree).open()):
            sent.append(frame)
            if len(sent) == 2:
                both.set()
        return sent

    task = asyncio.create_task(serve())
    await both.wait()
    for _ in range(20):  # it goes on, and waits for a third
        await asyncio.sleep(0)
    return task, sent


# ------------------------------------------------------------------------------------------ format

HOSTILE = st.lists(
    st.text(max_size=8)
    | st.sampled_from(
        ["\r", "\n", "\r\n", "\n\n", "\u2028", "\x85", "data: x", ":", "é😀", "\x7f"]
    ),
    max_size=4,
).map("".join)


@fewer(2)
@given(st.lists(st.tuples(HOSTILE, st.booleans()), min_size=1, max_size=4))
def test_what_a_client_reads_is_what_the_command_line_prints(said: list[tuple[str, bool]]) -> None:
    tree = saying(
        *(text for text, _ in said),
        partials=[number for number, (_, is_partial) in enumerate(said) if is_partial],
    )
    runner = partial(aio.Runner, tree, clock=lambda: 1.0, new_id=lambda: "the same")

    async def main() -> tuple[bytes, list[str]]:
        stream = b"".join(await all_of(aio.stream_sse(runner().open("go"))))
        async with runner().open("go") as run:
            printed = [json_line(CODEC.dumps(e), ascii_only=False) async for e in run]
        return stream, printed

    stream, printed = asyncio.run(main())
    read = by_the_standard(stream)
    assert [one.data for one in read[:-1]] == printed
    assert read == by_python(stream)
    names = ["partial" if is_partial else "message" for _, is_partial in said]
    assert [one.name for one in read] == [*names, "end"]


def test_the_id_is_the_sequence_number_and_partial_events_have_none(in_loop: InLoop) -> None:
    async def main() -> None:
        tree = saying("wh", "whole", "more", partials=[0])
        frames = await all_of(aio.stream_sse(aio.Runner(tree).open("go")))
        heads = [frame.partition(b"data:")[0] for frame in frames]
        # Number 1 is the user's message, which is not delivered.
        assert heads == [b"event: partial\n", b"id: 2\n", b"id: 3\n", b"event: end\n"]

    in_loop(main())


def test_a_run_ends_with_its_status(in_loop: InLoop) -> None:
    async def main() -> None:
        read = await messages(aio.stream_sse(aio.Runner(counting()).open("go")))
        assert [one.text for one in read[:-1]] == ["counter 0", "counter 1", "counter 2"]
        assert (read[-1].name, read[-1].json) == ("end", {"status": "completed"})

    in_loop(main())


def test_a_run_that_was_cancelled_says_why(in_loop: InLoop) -> None:
    async def main() -> None:
        patient = Patient()
        async with aio.Runner(patient.tree).open() as run:
            stream = aio.stream_sse(run)
            await anext(stream)
            run.cancel("enough\nof this")
            read = await messages(stream)
        assert read[-1].json == {"status": "cancelled", "reason": "enough\nof this"}
        assert patient.is_clean

    in_loop(main())


def test_the_headers_keep_proxies_from_holding_events_back() -> None:
    assert dict(aio.SSE_HEADERS) == {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


# --------------------------------------------------------------------------------------- bad input


def test_a_run_of_trio_is_refused() -> None:
    with pytest.raises(ReadError, match=r"takes what aio.Runner\(tree\).open"):
        aio.stream_sse(TrioRunner(counting()).open())  # type: ignore[arg-type]  # the point


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan, "15"])
def test_a_keep_alive_that_is_no_time_is_refused(seconds: Any) -> None:
    with pytest.raises(ValueError, match="keep_alive is a number of seconds above 0, or None"):
        aio.stream_sse(aio.Runner(counting()).open(), keep_alive=seconds)


def test_an_id_that_is_no_text_is_refused() -> None:
    with pytest.raises(ReadError, match="last_event_id is the text of a header"):
        aio.stream_sse(aio.Runner(counting()).open(), last_event_id=3)  # type: ignore[arg-type]  # the point


def test_a_stream_that_nobody_reads_opens_nothing(in_loop: InLoop) -> None:
    async def main() -> None:
        started = list[str]()

        @agent
        async def start(ctx: InvocationContext) -> None:
            started.append("started")

        stream = aio.stream_sse(aio.Runner(start).open())
        del stream
        gc.collect()
        await asyncio.sleep(0)
        assert (started, others()) == ([], set())

    in_loop(main())


# -------------------------------------------------------------------------------------- keep-alive


class StandingLoop(asyncio.SelectorEventLoop):
    """Its time stands still, but for `advance`."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


Say: TypeAlias = Callable[[str], None]


def with_standing_time(
    test: Callable[[StandingLoop, AsyncGenerator[bytes], Say], Awaitable[None]],
    keep_alive: float | None = 15,
) -> None:
    """Test a stream whose tree says what it is told to say, and else is silent."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, StandingLoop)
        send: trio.MemorySendChannel[str]
        send, receive = trio.open_memory_channel(10)

        @agent
        async def dictated(ctx: InvocationContext) -> Any:
            yield "begin"
            async for text in receive:
                yield text

        async with contextlib.aclosing(
            aio.stream_sse(aio.Runner(dictated).open(), keep_alive=keep_alive)
        ) as stream:
            assert b"begin" in await anext(stream)
            await test(loop, stream, send.send_nowait)

    with asyncio.Runner(loop_factory=StandingLoop) as runner:
        runner.run(main())


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_silence_is_filled_with_comments() -> None:
    async def test(loop: StandingLoop, stream: AsyncGenerator[bytes], say: Say) -> None:
        for _ in range(3):
            step = asyncio.create_task(step_of(stream))
            await turns()
            loop.advance(14.9)
            await turns()
            assert not step.done()
            loop.advance(0.2)
            assert await step == KEEP_ALIVE

    with_standing_time(test)


def test_an_event_after_comments_is_whole_and_in_order() -> None:
    async def test(loop: StandingLoop, stream: AsyncGenerator[bytes], say: Say) -> None:
        read = b""
        for number in range(4):
            step = asyncio.create_task(step_of(stream))
            await turns()
            loop.advance(16)
            assert await step == KEEP_ALIVE
            say(f"number {number}")
            read += await anext(stream)
        assert [one.text for one in by_the_standard(read)] == [f"number {n}" for n in range(4)]

    with_standing_time(test)


def test_an_event_in_the_moment_of_the_comment_is_not_lost() -> None:
    async def test(loop: StandingLoop, stream: AsyncGenerator[bytes], say: Say) -> None:
        step = asyncio.create_task(step_of(stream))
        await turns()
        loop.advance(16)
        say("now")
        frames = [await step]
        while frames[-1] == KEEP_ALIVE:
            frames.append(await anext(stream))
        assert [one.text for one in by_the_standard(b"".join(frames))] == ["now"]

    with_standing_time(test)


def test_without_a_keep_alive_there_are_no_comments() -> None:
    async def test(loop: StandingLoop, stream: AsyncGenerator[bytes], say: Say) -> None:
        step = asyncio.create_task(step_of(stream))
        await turns()
        loop.advance(1e6)
        await turns()
        assert not step.done()
        say("at last")
        assert b"at last" in await step

    with_standing_time(test, keep_alive=None)


# -------------------------------------------------------------------------------- a run that fails


@agent
async def failing(ctx: InvocationContext) -> Any:
    yield "before"
    raise ValueError(SECRET)


@agent
async def late(ctx: InvocationContext) -> Any:
    raise TimeoutError(SECRET)


@pytest.mark.parametrize(("bad", "kind"), [(failing, ValueError), (late, TimeoutError)])
@pytest.mark.parametrize("above", ["nothing", "a fan-out"])
def test_a_failure_is_told_by_its_type_and_raised_as_itself(
    bad: FunctionAgent, kind: type[Exception], above: str, in_loop: InLoop
) -> None:
    async def main() -> None:
        tree = bad if above == "nothing" else ParallelAgent("fan", [bad, counting(count=1)])
        sent, failure = await until_failure(aio.stream_sse(aio.Runner(tree).open("go")))
        end = by_the_standard(sent[-1])[0]
        assert (end.name, end.json) == ("end", {"status": "failed", "error": kind.__name__})
        assert type(failure) is kind
        assert str(failure) == SECRET
        assert SECRET.encode() not in b"".join(sent)

    in_loop(main())


def test_the_object_that_an_agent_raised_is_what_the_server_gets(in_loop: InLoop) -> None:
    error = ValueError(SECRET)

    @agent
    async def raising(ctx: InvocationContext) -> None:
        raise error

    async def main() -> None:
        _, failure = await until_failure(aio.stream_sse(aio.Runner(raising).open()))
        assert failure is error

    in_loop(main())


def test_texts_of_errors_are_sent_on_request(in_loop: InLoop) -> None:
    async def main() -> None:
        tree = ParallelAgent("fan", [failing], barrier=BestEffort())
        runner = aio.Runner(SequentialAgent("all", [tree, late]))
        sent, _ = await until_failure(aio.stream_sse(runner.open(), error_text=True))
        read = by_the_standard(b"".join(sent))
        assert read[-1].json == {"status": "failed", "error": "TimeoutError", "message": SECRET}
        (outcomes,) = (one for one in read if "outcomes" in one.data)
        assert CODEC.loads(outcomes.data).actions.outcomes[0].error_message == SECRET

    in_loop(main())


def test_outcomes_without_the_texts_of_errors_are_events_all_the_same(in_loop: InLoop) -> None:
    async def main() -> None:
        tree = ParallelAgent("fan", [failing], barrier=BestEffort())
        read = await messages(aio.stream_sse(aio.Runner(tree).open()))
        (outcome,) = CODEC.loads(read[-2].data).actions.outcomes
        assert (outcome.error_type, outcome.error_message) == ("ValueError", None)

    in_loop(main())


def test_a_session_that_cannot_be_read_is_told_as_well(in_loop: InLoop) -> None:
    class Broken(InMemorySessionService):
        async def get(self, **_: Any) -> Any:
            raise OSError(SECRET)

    async def main() -> None:
        runner = aio.Runner(counting(), session_service=Broken())
        sent, failure = await until_failure(aio.stream_sse(runner.open(session_id="one")))
        assert [one.json for one in by_the_standard(b"".join(sent))] == [
            {"status": "failed", "error": "OSError"}
        ]
        assert isinstance(failure, OSError)

    in_loop(main())


def test_a_run_that_is_streamed_twice_is_refused_the_second_time(in_loop: InLoop) -> None:
    async def main() -> None:
        block = aio.Runner(counting()).open()
        await all_of(aio.stream_sse(block))
        _, failure = await until_failure(aio.stream_sse(block))
        assert isinstance(failure, ReadError)

    in_loop(main())


# ------------------------------------------------------------------------------ a client that goes


def test_cancelling_the_server_while_it_waits_ends_the_tree(in_loop: InLoop) -> None:
    async def main() -> None:
        patient = Patient()
        task, _ = await waiting_client(patient)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert patient.is_clean
        assert others() == set()

    in_loop(main())


def test_cancelling_the_server_while_it_sends_ends_the_tree(in_loop: InLoop) -> None:
    async def main() -> None:
        patient = Patient()
        sending = asyncio.Event()

        async def serve() -> None:
            async for _ in aio.stream_sse(aio.Runner(patient.tree).open()):
                sending.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(serve())
        await sending.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
        await patient.clean.wait()
        await until_alone()

    in_loop(main())


def test_closing_the_generator_ends_the_tree(in_loop: InLoop) -> None:
    async def main() -> None:
        patient = Patient()
        stream = aio.stream_sse(aio.Runner(patient.tree).open())
        await anext(stream)
        await stream.aclose()
        assert patient.is_clean
        assert others() == set()

    in_loop(main())


def test_cancelling_the_closing_waits_for_the_clean_up_all_the_same(in_loop: InLoop) -> None:
    async def main() -> None:
        patient = Patient()
        stream = aio.stream_sse(aio.Runner(patient.tree).open())
        await anext(stream)
        closing = asyncio.create_task(stream.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert patient.is_clean

    in_loop(main())


def test_a_loop_that_ends_ends_the_trees_of_streams_left_open(in_loop: InLoop) -> None:
    patients = list[Patient]()
    streams = list[AsyncGenerator[bytes]]()

    async def main() -> None:
        for _ in range(3):
            patients.append(Patient())
            streams.append(aio.stream_sse(aio.Runner(patients[-1].tree).open()))
            await anext(streams[-1])

    in_loop(main())
    assert all(patient.is_clean for patient in patients)


def test_agents_are_told_that_the_client_has_left(in_loop: InLoop) -> None:
    """And so are plugins, and who looks at the result."""

    async def main() -> None:
        reasons = list[str]()

        @agent
        async def listening(ctx: InvocationContext) -> Any:
            try:
                yield "begin"
                await trio.sleep_forever()
            except trio.Cancelled as cancelled:
                reasons.append(str(cancelled))
                raise

        stream = aio.stream_sse(aio.Runner(listening).open())
        await anext(stream)
        step = asyncio.create_task(step_of(stream))
        await turns()
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
        assert "the client of its event stream has left" in reasons[0]

    in_loop(main())


def test_what_goes_wrong_in_the_clean_up_reaches_the_server(in_loop: InLoop) -> None:
    error = ValueError("broken while cleaning up")

    @agent
    async def untidy(ctx: InvocationContext) -> Any:
        try:
            yield "begin"
        finally:
            raise error

    async def main() -> None:
        stream = aio.stream_sse(aio.Runner(untidy).open())
        await anext(stream)
        with pytest.raises(ValueError, match="cleaning up") as raised:
            await stream.aclose()
        assert raised.value is error

    in_loop(main())


def test_a_run_that_is_open_already_goes_on_when_the_client_has_left(in_loop: InLoop) -> None:
    async def main() -> None:
        async with aio.Runner(counting(count=4)).open() as run:
            stream = aio.stream_sse(run)
            await anext(stream)
            await stream.aclose()
            rest = [event.text async for event in run]
        assert rest == ["counter 1", "counter 2", "counter 3"]
        assert run.result.status == "completed"

    in_loop(main())


def test_a_run_that_is_open_already_is_streamed_to_its_end(in_loop: InLoop) -> None:
    async def main() -> None:
        async with aio.Runner(counting()).open() as run:
            first = await anext(run)
            read = await messages(aio.stream_sse(run))
        assert [first.text, *(one.text for one in read[:-1])] == [f"counter {n}" for n in range(3)]
        assert read[-1].json == {"status": "completed"}

    in_loop(main())


def test_many_clients_at_once_get_each_their_own(in_loop: InLoop) -> None:
    async def main() -> None:
        patients = [Patient() for _ in range(5)]
        gone = [await waiting_client(patient) for patient in patients]
        streams = [
            aio.stream_sse(aio.Runner(counting(f"c{number}", count=10)).open())
            for number in range(40)
        ]
        for task, _ in gone:
            task.cancel()
        read = await asyncio.gather(*map(messages, streams))
        for number, one in enumerate(read):
            assert [message.text for message in one[:-1]] == [f"c{number} {n}" for n in range(10)]
        await asyncio.gather(*(task for task, _ in gone), return_exceptions=True)
        assert all(patient.is_clean for patient in patients)
        assert others() == set()

    in_loop(main())


def test_a_hundred_clients_leave_no_thread_behind(in_loop: InLoop) -> None:
    async def main() -> None:
        runner = aio.Runner(counting())

        async def come_and_go() -> None:
            stream = aio.stream_sse(runner.open())
            await anext(stream)
            await stream.aclose()

        await come_and_go()
        before = threading.active_count()
        for _ in range(100):
            await come_and_go()
        # The thread in which trio waits is one of a pool, and may not be the same one again.
        assert threading.active_count() <= before + 1
        assert others() == set()

    in_loop(main())


# ------------------------------------------------------------------------ a client that comes back


@fewer(3)
@given(seen=st.integers(1, 4), before=st.integers(0, 2))
def test_a_client_that_comes_back_misses_nothing_of_the_log(seen: int, before: int) -> None:
    async def main() -> None:
        @agent
        async def untiring(ctx: InvocationContext) -> Any:
            try:
                for number in range(5):
                    yield f"{ctx.user_text} {number}"
            finally:
                with trio.CancelScope(shield=True):
                    await ctx.emit("last words")

        service = InMemorySessionService()
        runner = aio.Runner(untiring, app_name="app", session_service=service)
        for number in range(before):
            await runner.run(f"earlier {number}", session_id="one")
        stream = aio.stream_sse(runner.open("first", session_id="one"))
        read = by_the_standard(b"".join([await anext(stream) for _ in range(seen)]))
        await stream.aclose()
        again = aio.stream_sse(
            runner.open("second", session_id="one"), last_event_id=read[-1].last_id
        )
        read += (await messages(again))[:-1]
        session = await aio.from_trio(service.get, app_name="app", user_id="user", session_id="one")
        assert session is not None
        first = int(read[0].last_id)
        assert [one.last_id for one in read] == [
            str(number) for number in range(first, session.last_seq + 1)
        ]
        assert [CODEC.loads(one.data).text for one in read] == [
            event.text for event in session.events[first - 1 :]
        ]
        assert "last words" in [one.text for one in read]
        assert "second" in [one.text for one in read]

    asyncio.run(main())


@pytest.mark.parametrize("number", ["99", "100000"])
def test_a_number_beyond_the_log_is_another_sessions_and_ignored(
    number: str, in_loop: InLoop
) -> None:
    async def main() -> None:
        stream = aio.stream_sse(aio.Runner(counting()).open("go"), last_event_id=number)
        assert [one.last_id for one in (await messages(stream))[:-1]] == ["2", "3", "4"]

    in_loop(main())


@fewer(2)
@given(
    st.text(max_size=6).filter(lambda text: not re.fullmatch(r"\s*[0-9]+\s*", text))
    | st.sampled_from(["-1", "+1", "1_0", "1.0", "٣", "²", "1e3", "", "9" * 5000])
)
def test_an_id_that_is_none_is_ignored(text: str) -> None:
    async def main() -> None:
        stream = aio.stream_sse(aio.Runner(counting(count=1)).open("go"), last_event_id=text)
        assert [one.last_id for one in (await messages(stream))[:-1]] == ["2"]

    asyncio.run(main())


def test_events_of_the_log_come_once_from_a_run_that_is_open_already(in_loop: InLoop) -> None:
    async def main() -> None:
        async with aio.Runner(counting(count=5)).open("go") as run:
            await anext(run)
            await anext(run)
            read = await messages(aio.stream_sse(run, last_event_id="2"))
        assert [one.last_id for one in read[:-1]] == ["3", "4", "5", "6"]

    in_loop(main())


# ------------------------------------------------------------------------------- real applications


def application(runner: aio.Runner) -> Starlette:
    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(
            aio.stream_sse(runner.open(request.query_params.get("message"))),
            media_type="text/event-stream",
            headers=aio.SSE_HEADERS,
        )

    return Starlette(routes=[Route("/stream", stream)], lifespan=aio.lifespan)


def test_starlette_sends_the_events_and_the_headers(in_loop: InLoop) -> None:
    async def main() -> None:
        connection = Connection("/stream")
        app = application(aio.Runner(counting()))
        await connection.through(app)
        start = connection.sent[0]
        headers = dict(start["headers"])
        assert start["status"] == 200
        assert headers[b"content-type"].startswith(b"text/event-stream")
        assert headers[b"cache-control"] == b"no-cache"
        assert headers[b"x-accel-buffering"] == b"no"
        assert [one.name for one in by_the_standard(connection.body)] == ["message"] * 3 + ["end"]

    in_loop(main())


def test_starlette_is_told_of_a_failure(in_loop: InLoop) -> None:
    async def main() -> None:
        connection = Connection("/stream")
        app = application(aio.Runner(failing))
        with pytest.raises(ValueError, match=SECRET):
            await connection.through(app)
        assert by_the_standard(connection.body)[-1].json == {
            "status": "failed",
            "error": "ValueError",
        }

    in_loop(main())


def test_a_client_of_starlette_that_disconnects_ends_its_tree(in_loop: InLoop) -> None:
    async def main() -> None:
        patient, connection = Patient(), Connection("/stream")
        app = application(aio.Runner(patient.tree))
        serving = asyncio.create_task(connection.through(app))
        await connection.has_sent(2)
        connection.gone.set()
        await serving
        await patient.clean.wait()
        await until_alone()

    in_loop(main())


def test_a_connection_that_breaks_while_starlette_sends_ends_the_tree(in_loop: InLoop) -> None:
    """Servers of a newer ASGI say so by an error of ``send``; nobody cancels anything."""

    async def main() -> None:
        patient, connection = Patient(), Connection("/stream", breaks=True)
        with pytest.raises(ClientDisconnect):
            await connection.through(application(aio.Runner(patient.tree)))
        await patient.clean.wait()
        await until_alone()

    in_loop(main())


def test_a_client_of_uvicorn_that_disconnects_in_the_middle_ends_its_tree(in_loop: InLoop) -> None:
    async def main() -> None:
        patient = Patient()
        async with serving(application(aio.Runner(patient.tree))) as url:
            async with (
                httpx.AsyncClient(trust_env=False) as client,
                client.stream("GET", f"{url}/stream") as answer,
            ):
                async for line in answer.aiter_lines():
                    if line.startswith("data:"):
                        assert CODEC.loads(line.removeprefix("data:")).text == "begin"
                        break
            await patient.clean.wait()
        assert others() == set()

    in_loop(main())


def test_clients_of_uvicorn_read_to_the_end_side_by_side(in_loop: InLoop) -> None:
    async def main() -> None:
        async with (
            serving(application(aio.Runner(counting(count=20)))) as url,
            httpx.AsyncClient(trust_env=False) as client,
        ):
            answers = await asyncio.gather(*(client.get(f"{url}/stream") for _ in range(5)))
        for answer in answers:
            assert [one.text for one in by_python(answer.content)[:-1]] == [
                f"counter {number}" for number in range(20)
            ]

    in_loop(main())
