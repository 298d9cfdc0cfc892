"""What users of the asyncio host will write, for type checkers only; see ``api.py``."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import assert_type

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from parallel_agent import (
    Agent,
    Content,
    Event,
    FunctionAgent,
    InMemorySessionService,
    InvocationContext,
    Outcome,
    PendingRequest,
    Result,
    RunConfig,
    RunStatistics,
    SequentialAgent,
    SessionService,
    Status,
    agent,
    aio,
)
from parallel_agent import Runner as TrioRunner
from session import Session

# ------------------------------------------------------------------------ agents that need asyncio


async def fetch(url: str, *, seconds: float = 1) -> bytes:
    return url.encode()


async def pieces(url: str, *, size: int = 10) -> AsyncGenerator[bytes, None]:
    yield await fetch(url)


def answer(url: str) -> asyncio.Future[int]:
    return asyncio.get_running_loop().create_future()


@agent(output_key="page")
@aio.asyncio_function
async def returns(ctx: InvocationContext, url: str) -> str:
    assert_type(await aio.from_trio(ctx.request_input, "Go on?", schema=bool), bool)
    assert_type(await aio.from_trio(ctx.emit, "text"), Event)
    await aio.from_trio(ctx.emit)  # type: ignore[call-arg]
    await aio.from_trio(ctx.emit("text"))  # type: ignore[arg-type]
    return (await fetch(url)).decode()


@agent
@aio.asyncio_function
async def yields(ctx: InvocationContext) -> AsyncGenerator[str, None]:
    yield "text"


@agent
@aio.asyncio_function
async def is_an_iterator(ctx: InvocationContext) -> AsyncIterator[str]:
    yield "text"


@agent
async def is_trios(ctx: InvocationContext) -> AsyncGenerator[str, None]:
    assert_type(await aio.from_asyncio(fetch, "url", seconds=2), bytes)
    assert_type(await aio.from_asyncio(answer, "url"), int)
    async with aio.from_asyncio_iter(pieces, "url", size=3) as found:
        assert_type(found, aio.AsyncioItems[bytes])
        async for piece in found:
            yield assert_type(piece, bytes).decode()
    await aio.from_asyncio(fetch, 7)  # type: ignore[arg-type]
    await aio.from_asyncio(fetch, "url", second=2)  # type: ignore[call-arg]
    await aio.from_asyncio(fetch("url"))  # type: ignore[arg-type]
    aio.from_asyncio_iter(pieces)  # type: ignore[call-arg]
    aio.from_asyncio_iter(pieces("url"))  # type: ignore[arg-type]


assert_type(returns, FunctionAgent)
tree = SequentialAgent("tree", [returns, yields, is_an_iterator, is_trios])

# -------------------------------------------------------------------------------------- the runner

service: SessionService = InMemorySessionService()
runner = aio.Runner(tree, app_name="app", session_service=service, reducers={"n": "add"})
assert_type(runner.tree, Agent)
assert_type(runner.app_name, str)
assert_type(runner.session_service, SessionService)
assert_type(runner.open("hello"), aio.OpenRun)
aio.Runner("tree")  # type: ignore[arg-type]
aio.Runner(tree, session_id="s")  # type: ignore[call-arg]
runner.open(7)  # type: ignore[arg-type]
runner.open("hello", sesion_id="s")  # type: ignore[call-arg]
runner.open("hello", session_id=7)  # type: ignore[arg-type]


async def runs() -> str:
    async with asyncio.timeout(1):
        result = await runner.run(Content("hello"), session_id="s", run_config=RunConfig())
    assert_type(result, Result)
    task = asyncio.create_task(runner.run("hello"))
    assert_type(await task, Result)
    return result.text


async def reads() -> list[Event]:
    events: list[Event] = []
    async with runner.open("hello", state_delta={"k": 1}) as run:
        assert_type(run, aio.Run)
        async for event in run:
            assert_type(event, Event)
            events.append(event)
            if event.text == "enough":
                run.cancel("enough")
        assert_type(await anext(run), Event)
        assert_type(await asyncio.wait_for(anext(run), 1), Event)
        assert_type(await run.send("hello", to="branch"), Event)
        assert_type(run.pending, tuple[PendingRequest, ...])
        assert_type(await run.respond("id", True), Event)
        assert_type(await run.wait_for(lambda event: event.is_final), Event)
        assert_type(run.only(author="tree", partial=False), AsyncIterator[Event])
        assert_type(await run.collect(), list[Event])
        await run.send(7)  # type: ignore[arg-type]
    assert_type(run.status, Status)
    assert_type(run.result, Result)
    assert_type(run.outcomes("fan"), tuple[Outcome, ...])
    assert_type(run.statistics(), RunStatistics)
    return events


async def leaves_early() -> Event | None:
    async with runner.open() as run:
        async for event in run:
            return event
    return None


async def on_a_stack(stack: AsyncExitStack) -> aio.Run:
    return await stack.enter_async_context(runner.open("hello"))


async def a_session() -> Session | None:
    get = runner.session_service.get
    return await aio.from_trio(get, app_name="app", user_id="ann", session_id="s")


# ----------------------------------------------------------------------------------- a web service


async def stream(request: Request) -> StreamingResponse:
    frames = aio.stream_sse(
        runner.open(request.query_params["message"]),
        keep_alive=None,
        last_event_id=request.headers.get("last-event-id"),
    )
    assert_type(frames, AsyncGenerator[bytes, None])
    return StreamingResponse(frames, media_type="text/event-stream", headers=aio.SSE_HEADERS)


async def of_an_open_run() -> bytes:
    async with aio.runtime(), runner.open() as run, aclosing(aio.stream_sse(run)) as frames:
        return b"".join([frame async for frame in frames])


app = Starlette(routes=[Route("/stream", stream)], lifespan=aio.lifespan)
aio.stream_sse(TrioRunner(tree).open())  # type: ignore[arg-type]
aio.stream_sse(runner)  # type: ignore[arg-type]
