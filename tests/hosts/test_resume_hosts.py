"""Detached runs and resuming in asyncio and plain Python: as under trio."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, TypeAlias

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from parallel_agent import (
    Event,
    FunctionAgent,
    HostError,
    InMemorySessionService,
    InvocationContext,
    NothingToResumeError,
    ReadError,
    ResponseRefusedError,
    Result,
    RunConfig,
    RunEndedError,
    Runner,
    SequentialAgent,
    Status,
    agent,
    aio,
    sync,
)
from parallel_agent.aio.host import HostedEvents, RunHost
from session import SessionNotFoundError
from session.lease import UnfinishedRun
from tests.support.drawing import fewer
from tests.support.loops import Diary, InLoop, cleaning_up, counting
from tests.support.plain import ours
from tests.support.serving import Message, by_the_standard, serving

SUSPEND: Final = RunConfig(on_wait="suspend")


@agent(output_key="draft")
async def writes(ctx: InvocationContext) -> Any:
    yield "a draft"


@agent(output_key="sure")
async def asks(ctx: InvocationContext) -> Any:
    return await ctx.request_input("Sure?", schema=bool)


@agent
async def ends(ctx: InvocationContext) -> Any:
    yield f"{ctx.state['draft']}, {ctx.state['sure']}"


def waiting_tree() -> SequentialAgent:
    return SequentialAgent("desk", [writes, asks, ends])


@agent
async def fails(ctx: InvocationContext) -> Any:
    yield "about to fail"
    raise ValueError("a secret")


@agent
async def listens(ctx: InvocationContext) -> Any:
    yield f"heard {(await ctx.receive()).text}"


async def texts_of(events: HostedEvents) -> list[str]:
    return [event.text async for event in events]


# ---------------------------------------------------------------- resuming, in one host and another

Step: TypeAlias = Callable[[InMemorySessionService], Any]


def _suspend_in_trio(service: InMemorySessionService) -> Result:
    runner = Runner(waiting_tree(), session_service=service, resumable=True)
    return trio.run(lambda: runner.run("go", session_id="s", run_config=SUSPEND))


def _suspend_in_asyncio(service: InMemorySessionService) -> Result:
    runner = aio.Runner(waiting_tree(), session_service=service, resumable=True)
    return asyncio.run(runner.run("go", session_id="s", run_config=SUSPEND))


def _suspend_in_a_host(service: InMemorySessionService) -> Result:
    async def main() -> Result:
        async with aio.Runner(
            waiting_tree(), session_service=service, resumable=True
        ).host() as host:
            return await host.wait(await host.start("go", session_id="s", run_config=SUSPEND))

    return asyncio.run(main())


def _suspend_in_plain_python(service: InMemorySessionService) -> Result:
    runner = sync.Runner(waiting_tree(), session_service=service, resumable=True)
    return runner.run("go", session_id="s", run_config=SUSPEND)


SUSPENDING: Final = [
    _suspend_in_trio,
    _suspend_in_asyncio,
    _suspend_in_a_host,
    _suspend_in_plain_python,
]


def _resume_in_trio(service: InMemorySessionService) -> tuple[list[UnfinishedRun], Result]:
    async def main() -> tuple[list[UnfinishedRun], Result]:
        runner = Runner(waiting_tree(), session_service=service, resumable=True)
        return await runner.unfinished(), await runner.resume("s", responses={"asks": True})

    return trio.run(main)


def _resume_in_asyncio(service: InMemorySessionService) -> tuple[list[UnfinishedRun], Result]:
    async def main() -> tuple[list[UnfinishedRun], Result]:
        runner = aio.Runner(waiting_tree(), session_service=service, resumable=True)
        return await runner.unfinished(), await runner.resume("s", responses={"asks": True})

    return asyncio.run(main())


def _reopen_in_asyncio(service: InMemorySessionService) -> tuple[list[UnfinishedRun], Result]:
    async def main() -> tuple[list[UnfinishedRun], Result]:
        runner = aio.Runner(waiting_tree(), session_service=service, resumable=True)
        found = await runner.unfinished(user_id="user")
        async with runner.reopen("s", run_config=RunConfig()) as run:
            event = await run.wait_for(lambda event: event.request is not None)
            assert event.request is not None
            await run.respond(event.request.id, True)
            await run.collect()
        return found, run.result

    return asyncio.run(main())


def _resume_in_a_host(service: InMemorySessionService) -> tuple[list[UnfinishedRun], Result]:
    async def main() -> tuple[list[UnfinishedRun], Result]:
        runner = aio.Runner(waiting_tree(), session_service=service, resumable=True)
        async with runner.host() as host:
            found = await runner.unfinished()
            return found, await host.wait(await host.resume("s", responses={"asks": True}))

    return asyncio.run(main())


def _resume_in_plain_python(service: InMemorySessionService) -> tuple[list[UnfinishedRun], Result]:
    runner = sync.Runner(waiting_tree(), session_service=service, resumable=True)
    return runner.unfinished(), runner.resume("s", responses={"asks": True})


def _reopen_in_plain_python(service: InMemorySessionService) -> tuple[list[UnfinishedRun], Result]:
    runner = sync.Runner(waiting_tree(), session_service=service, resumable=True)
    found = runner.unfinished(user_id="user")
    with runner.reopen("s", run_config=RunConfig()) as run:
        event = run.wait_for(lambda event: event.request is not None)
        assert event.request is not None
        run.respond(event.request.id, True)
        run.collect()
    return found, run.result


RESUMING: Final = [
    _resume_in_trio,
    _resume_in_asyncio,
    _reopen_in_asyncio,
    _resume_in_a_host,
    _resume_in_plain_python,
    _reopen_in_plain_python,
]


@pytest.mark.parametrize("resume", RESUMING)
@pytest.mark.parametrize("suspend", SUSPENDING)
def test_a_run_that_waits_in_one_host_goes_on_in_any_other(suspend: Step, resume: Step) -> None:
    service = InMemorySessionService()
    first = suspend(service)
    assert first.status is Status.WAITING
    found, second = resume(service)
    assert [(one.run_id, one.status) for one in found] == [(first.invocation_id, "waiting")]
    assert second.invocation_id == first.invocation_id
    assert (second.status, second.text) == (Status.COMPLETED, "a draft, True")
    assert ours() == []


def test_each_host_says_that_there_is_nothing_to_resume(in_loop: InLoop) -> None:
    async def main() -> None:
        runner = aio.Runner(counting(), resumable=True)
        with pytest.raises(NothingToResumeError):
            await runner.resume("s")
        with pytest.raises(NothingToResumeError):
            async with runner.reopen("s"):
                pass
        async with runner.host() as host:
            with pytest.raises(NothingToResumeError):
                await host.resume("s")

    in_loop(main())
    with pytest.raises(NothingToResumeError):
        sync.Runner(counting(), resumable=True).resume("s")
    with pytest.raises(NothingToResumeError), sync.Runner(counting(), resumable=True).reopen("s"):
        pass


def test_a_script_resumes_from_within_a_loop_too(in_loop: InLoop) -> None:
    service = InMemorySessionService()
    _suspend_in_trio(service)

    async def main() -> Result:
        runner = sync.Runner(waiting_tree(), session_service=service, resumable=True)
        assert len(runner.unfinished()) == 1
        return runner.resume("s", responses={"asks": False})

    assert in_loop(main()).text == "a draft, False"


async def test_in_trio_the_runner_of_asyncio_is_refused() -> None:
    runner = aio.Runner(counting(), resumable=True)
    with pytest.raises(HostError, match="this is a trio task"):
        await runner.resume("s")
    with pytest.raises(HostError, match="this is a trio task"):
        await runner.unfinished()
    with pytest.raises(HostError, match="this is a trio task"):
        async with runner.host():
            pass


# ------------------------------------------------------------------------------- a host in asyncio


def test_a_host_in_asyncio_runs_what_nobody_waits_for(in_loop: InLoop) -> None:
    async def main() -> None:
        runner = aio.Runner(counting(count=2), app_name="app")
        async with runner.host() as host:
            run_id = await host.start("go", session_id="s")
            result = await host.wait(run_id)
            assert result.text == "counter 1"
            assert {name: one.status for name, one in host.runs.items()} == {
                run_id: Status.COMPLETED
            }
            assert repr(host) == "<aio.RunHost app: 0 runs>"
            with pytest.raises(RunEndedError, match="knows no run"):
                await host.wait("other")

    in_loop(main())


def test_its_block_ends_the_runs_when_they_have_cleaned_up(in_loop: InLoop) -> None:
    diary = Diary()

    async def main() -> None:
        async with aio.Runner(cleaning_up("agent", diary)).host() as host:
            run_id = await host.start("go", session_id="s")
            events = host.subscribe("s")
            assert [(await anext(events)).text for _ in range(2)] == ["go", "started"]
        assert diary == ["agent cleaned up"]
        assert (await host.wait(run_id)).status is Status.CANCELLED
        assert await texts_of(events) == []

    in_loop(main())


def test_what_its_body_raises_leaves_as_itself(in_loop: InLoop) -> None:
    diary, error = Diary(), KeyError("of the body")

    async def main() -> None:
        async with aio.Runner(cleaning_up("agent", diary)).host() as host:
            await host.start("go", session_id="s")
            await anext(host.subscribe("s", after=1))
            raise error

    with pytest.raises(KeyError) as caught:
        in_loop(main())
    assert caught.value is error
    assert diary == ["agent cleaned up"]


@pytest.mark.parametrize("place", ["entering", "body", "leaving"])
def test_a_task_that_is_cancelled_in_or_around_its_host_ends_it(
    place: str, in_loop: InLoop
) -> None:
    diary = Diary()

    async def serve(reached: asyncio.Event) -> None:
        if place == "entering":
            reached.set()
        async with aio.Runner(cleaning_up("agent", diary)).host() as host:
            await host.start("go", session_id="s")
            await anext(host.subscribe("s", after=1))
            reached.set()
            if place == "body":
                await asyncio.Event().wait()
        diary.append("never")

    async def main() -> None:
        reached = asyncio.Event()
        task = asyncio.create_task(serve(reached))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    in_loop(main())
    assert diary == ([] if place == "entering" else ["agent cleaned up"])


def test_the_end_of_the_trio_side_ends_the_runs_of_a_host(in_loop: InLoop) -> None:
    diary = Diary()

    async def main() -> None:
        async with aio.runtime():
            host = await aio.Runner(cleaning_up("agent", diary)).host().__aenter__()
            run_id = await host.start("go", session_id="s")
            events = host.subscribe("s")
            await anext(events)
            await anext(events)
            waiting = asyncio.create_task(host.wait(run_id))
            await asyncio.sleep(0)
        assert diary == ["agent cleaned up"]
        assert host.runs[run_id].status is Status.CANCELLED
        await asyncio.wait([waiting])
        waiting.exception()
        await host.__aexit__(None, None, None)

    in_loop(main())


def test_a_host_is_entered_once_and_by_async_with(in_loop: InLoop) -> None:
    async def main() -> None:
        host = aio.Runner(counting()).host()
        with pytest.raises(ReadError, match="async with"), host:
            pass
        with pytest.raises(ReadError, match=r"async with runner\.host"):
            await host.start("go")
        async with host:
            pass
        with pytest.raises(ReadError, match="entered already"):
            async with host:
                pass

    in_loop(main())


def test_an_interrupt_in_an_agent_ends_the_host_in_asyncio() -> None:
    @agent
    async def interrupted(ctx: InvocationContext) -> Any:
        await trio.lowlevel.checkpoint()
        raise KeyboardInterrupt

    async def main() -> None:
        async with aio.Runner(interrupted).host() as host:
            run_id = await host.start("go", session_id="s")
            try:
                await host.wait(run_id)
            except KeyboardInterrupt:
                return

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())


def test_messages_and_answers_and_cancelling_go_through_the_host(in_loop: InLoop) -> None:
    async def main() -> None:
        async with aio.Runner(listens).host() as host:
            one = await host.start("one", session_id="s", on_busy="inject")
            assert await host.start("two", session_id="s", on_busy="inject") == one
            assert (await host.wait(one)).text == "heard two"
            three, four = await host.start(), await host.start()
            await host.send(three, "three")
            host.cancel(four, "enough")
            assert (await host.wait(three)).text == "heard three"
            assert (await host.wait(four)).reason == "enough"
        async with aio.Runner(waiting_tree()).host() as host:
            run_id = await host.start("go", session_id="s")
            events = host.subscribe("s")
            async for event in events:
                if event.request is not None:
                    break
            (question,) = host.pending(run_id)
            with pytest.raises(ResponseRefusedError):
                await host.respond(run_id, question.id, "yes")
            await host.respond(run_id, question.id, True)
            assert (await texts_of(events))[-1] == "a draft, True"

    in_loop(main())


def stepwise(count: int) -> FunctionAgent:
    """An agent whose every word takes some turns of both loops."""

    async def say(ctx: InvocationContext) -> Any:
        for number in range(count):
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            yield str(number)

    return agent(say, name="stepwise")


@fewer(2)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 12)), min_size=1, max_size=4),
    st.integers(0, 9),
)
def test_cancelled_steps_lose_no_event(cancels: list[tuple[int, int]], after: int) -> None:
    """``cancels``: at which step, and how many turns of the loop after its beginning."""

    async def main() -> list[str]:
        async with aio.Runner(stepwise(8)).host() as host:
            await host.start("go", session_id="s")
            events, got = host.subscribe("s", after=after), list[str]()
            todo = list(cancels)
            while True:
                step = asyncio.ensure_future(anext(events, None))
                if todo and todo[0][0] <= len(got):
                    for _ in range(todo.pop(0)[1]):
                        await asyncio.sleep(0)
                    if not step.done():
                        step.cancel()
                try:
                    event: Event | None = await step
                except asyncio.CancelledError:
                    continue
                if event is None:
                    return got
                got.append(event.text)

    assert asyncio.run(main()) == ["go", *map(str, range(8))][after:]


# ---------------------------------------------------------------------------- server-sent events


async def messages(stream: AsyncGenerator[bytes]) -> list[Message]:
    return by_the_standard(b"".join([frame async for frame in stream]))


def test_a_session_is_streamed_with_its_numbers_and_its_end(in_loop: InLoop) -> None:
    async def main() -> None:
        async with aio.Runner(counting(count=2)).host() as host:
            await host.start("go", session_id="s")
            read = await messages(aio.stream_sse(host.subscribe("s")))
            assert [(one.name, one.last_id) for one in read] == [
                ("message", "1"),
                ("message", "2"),
                ("message", "3"),
                ("end", "3"),
            ]
            assert [one.text for one in read[:-1]] == ["go", "counter 0", "counter 1"]
            assert read[-1].json == {"status": "completed"}

    in_loop(main())


@pytest.mark.parametrize(
    ("last_event_id", "numbers"),
    [
        (None, ["1", "2", "3"]),
        ("0", ["1", "2", "3"]),
        ("1", ["2", "3"]),
        ("3", []),
        ("4", ["1", "2", "3"]),  # beyond the end: of another session, perhaps
        ("99999999999999999999", ["1", "2", "3"]),
        ("-1", ["1", "2", "3"]),
        ("two", ["1", "2", "3"]),
    ],
)
def test_a_client_that_comes_again_goes_on_where_it_was(
    last_event_id: str | None, numbers: list[str], in_loop: InLoop
) -> None:
    async def main() -> None:
        async with aio.Runner(counting(count=2)).host() as host:
            await host.wait(await host.start("go", session_id="s"))
            stream = aio.stream_sse(host.subscribe("s"), last_event_id=last_event_id)
            read = await messages(stream)
        assert [one.last_id for one in read[:-1]] == numbers
        assert read[-1].name == "end"

    in_loop(main())


@pytest.mark.parametrize("way", ["close", "cancel"])
def test_a_client_that_leaves_does_not_end_the_run(way: str, in_loop: InLoop) -> None:
    go_on = asyncio.Event()

    @agent
    async def patient(ctx: InvocationContext) -> Any:
        yield "begun"
        await aio.from_asyncio(go_on.wait)
        yield "done"

    async def main() -> None:
        async with aio.Runner(patient).host() as host:
            run_id = await host.start("go", session_id="s")
            stream = aio.stream_sse(host.subscribe("s"))
            frames = [await anext(stream) for _ in range(2)]
            if way == "close":
                await stream.aclose()
            else:
                step = asyncio.ensure_future(stream.__anext__())
                await asyncio.sleep(0)
                step.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await step
            assert host.runs[run_id].status is Status.RUNNING
            go_on.set()
            assert (await host.wait(run_id)).text == "done"
            last_id = by_the_standard(frames[-1])[0].last_id
            rest = await messages(aio.stream_sse(host.subscribe("s"), last_event_id=last_id))
            assert [one.name for one in rest] == ["message", "end"]
            assert rest[0].text == "done"

    in_loop(main())


def test_a_failure_is_told_by_its_type_and_raised_by_wait_alone(in_loop: InLoop) -> None:
    async def main() -> None:
        async with aio.Runner(fails).host() as host:
            run_id = await host.start("go", session_id="s")
            read = await messages(aio.stream_sse(host.subscribe("s")))
            assert read[-1].json == {"status": "failed", "error": "ValueError"}
            told = await messages(aio.stream_sse(host.subscribe("s"), error_text=True))
            assert told[-1].json["message"] == "a secret"
            with pytest.raises(ValueError, match="a secret"):
                await host.wait(run_id)

    in_loop(main())


def test_the_end_says_why_a_run_was_cancelled(in_loop: InLoop) -> None:
    async def main() -> None:
        async with aio.Runner(listens).host() as host:
            run_id = await host.start("go", session_id="s")
            host.cancel(run_id, "enough")
            read = await messages(aio.stream_sse(host.subscribe("s")))
        assert read[-1].json == {"status": "cancelled", "reason": "enough"}

    in_loop(main())


def test_of_a_session_that_no_run_of_the_host_was_at_the_end_has_no_status(
    in_loop: InLoop,
) -> None:
    async def main() -> None:
        runner = aio.Runner(counting(count=1))
        await runner.run("go", session_id="s")
        read = await messages(aio.stream_sse(runner.host().subscribe("s")))
        assert [one.name for one in read] == ["message", "message", "end"]
        assert read[-1].json == {}

    in_loop(main())


def test_a_session_that_is_not_there_is_a_failure(in_loop: InLoop) -> None:
    async def main() -> None:
        stream = aio.stream_sse(aio.Runner(counting()).host().subscribe("none"))
        first = await anext(stream)
        assert by_the_standard(first)[0].json == {
            "status": "failed",
            "error": "SessionNotFoundError",
        }
        with pytest.raises(SessionNotFoundError):
            await anext(stream)

    in_loop(main())


def test_a_silent_session_is_kept_alive(in_loop: InLoop) -> None:
    async def main() -> None:
        async with aio.Runner(listens).host() as host:
            run_id = await host.start("go", session_id="s")
            stream = aio.stream_sse(host.subscribe("s"), keep_alive=0.001)
            frames = [await anext(stream) for _ in range(3)]
            while frames[-1] != b": keep-alive\n\n":  # on a slow machine it has begun with one
                frames.append(await anext(stream))
            await host.send(run_id, "hello")
            read = by_the_standard(b"".join([*frames, *[frame async for frame in stream]]))
            assert [one.name for one in read] == ["message"] * 3 + ["end"]

    in_loop(main())


def test_what_is_no_stream_is_refused() -> None:
    with pytest.raises(ReadError, match=r"host\.subscribe"):
        aio.stream_sse(3)  # type: ignore[arg-type]  # that is the point


def test_clients_of_a_web_application_come_and_go_and_the_run_stays() -> None:
    hosts = list[RunHost]()
    go_on = asyncio.Event()

    @agent
    async def patient(ctx: InvocationContext) -> Any:
        yield "begun"
        await aio.from_asyncio(go_on.wait)
        yield "done"

    async def stream(request: Request) -> StreamingResponse:
        events = hosts[0].subscribe("s")
        last_event_id = request.headers.get("last-event-id")
        return StreamingResponse(
            aio.stream_sse(events, last_event_id=last_event_id), media_type="text/event-stream"
        )

    async def main() -> list[Message]:
        app = Starlette(routes=[Route("/", stream)])
        async with aio.Runner(patient).host() as host, serving(app) as url:
            hosts.append(host)
            run_id = await host.start("go", session_id="s")
            async with httpx.AsyncClient(trust_env=False) as client:
                async with client.stream("GET", url) as answer:
                    lines = answer.aiter_lines()
                    while not (await anext(lines)).startswith("id: 2"):
                        pass
                assert host.runs[run_id].status is Status.RUNNING
                go_on.set()
                again = await client.get(url, headers={"Last-Event-ID": "2"})
        return by_the_standard(again.content)

    read = asyncio.run(main())
    assert [one.name for one in read] == ["message", "end"]
    assert json.loads(read[0].data)["content"]["parts"] == [{"text": "done"}]
