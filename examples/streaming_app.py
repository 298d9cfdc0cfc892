"""A tree of agents in a web application: its events are streamed to whoever asks, as they come.

    trip                        one after another
    ├── look                    side by side, each in its own time
    │   ├── weather
    │   ├── trains              an asyncio function, as libraries for asyncio need it
    │   └── hotels
    └── advise                  works with what the three have found

    GET /stream?message=Oslo    server-sent events, an event as it comes
    GET /trip?message=Oslo      the result, as JSON, when all is done
    GET /at_work                which agents work now, for all clients

Leave /stream in the middle, by Ctrl-C in curl or by closing the page: the agents of that run are
cancelled and have cleaned up a moment later, as /at_work says. Others go on.

It is a Starlette application. In FastAPI all is the same: ``FastAPI(lifespan=aio.lifespan)``, and
above the functions ``@app.get("/stream")``.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import contextmanager
from typing import Final

import trio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from parallel_agent import InvocationContext, ParallelAgent, SequentialAgent, agent, aio

AT_WORK: Final[list[str]] = []

TRY: Final = """\
Try it, in another terminal:
  curl -N 'http://127.0.0.1:{port}/stream?message=Oslo'
  curl -N 'http://127.0.0.1:{port}/stream?message=Oslo&pace=5'    and Ctrl-C in the middle
  curl 'http://127.0.0.1:{port}/at_work'
  curl 'http://127.0.0.1:{port}/trip?message=Rome'
"""


@contextmanager
def at_work(ctx: InvocationContext) -> Generator[None]:
    AT_WORK.append(ctx.agent.name)
    try:
        yield
    finally:
        AT_WORK.remove(ctx.agent.name)


# ----------------------------------------------------------------------------------------- the tree


@agent(output_key="weather")
async def weather(ctx: InvocationContext) -> AsyncIterator[str]:
    with at_work(ctx):
        yield f"looking out of a window in {ctx.user_text}"
        await trio.sleep(2 * ctx.state["pace"])
        yield "rain" if len(ctx.user_text) % 2 == 0 else "sun"


@agent(output_key="trains")
@aio.asyncio_function
async def trains(ctx: InvocationContext) -> AsyncIterator[str]:
    with at_work(ctx):
        yield "asking at the station"
        await asyncio.sleep(ctx.state["pace"])
        yield "one at 7:15"


@agent(output_key="hotels")
async def hotels(ctx: InvocationContext) -> AsyncIterator[str]:
    with at_work(ctx):
        for name in ("Grand", "Station", "Park"):
            yield f"calling the {name} Hotel"
            await trio.sleep(ctx.state["pace"])
        yield "a room in the Park Hotel"


@agent
async def advise(ctx: InvocationContext) -> str:
    found = ctx.state
    return f"{ctx.user_text}: {found['trains']}, {found['weather']}, {found['hotels']}"


trip = SequentialAgent("trip", [ParallelAgent("look", [weather, trains, hotels]), advise])


# ---------------------------------------------------------------------------------- the application

runner = aio.Runner(trip)


async def stream(request: Request) -> Response:
    if "last-event-id" in request.headers:
        # A browser that has lost its connection comes again by itself. The run has ended with the
        # connection, and another one is not what anybody has asked for: this says stay away.
        return Response(status_code=204)
    message, pace = asked(request)
    return StreamingResponse(
        aio.stream_sse(runner.open(message, state_delta={"pace": pace})),
        media_type="text/event-stream",
        headers=aio.SSE_HEADERS,
    )


async def whole(request: Request) -> JSONResponse:
    message, pace = asked(request)
    result = await runner.run(message, state_delta={"pace": pace})
    return JSONResponse({"status": result.status, "text": result.text, "found": result.output})


async def who_works(request: Request) -> JSONResponse:
    return JSONResponse(sorted(AT_WORK))


def asked(request: Request) -> tuple[str, float]:
    """What to look for, and how many seconds a step takes."""
    try:
        pace = float(request.query_params.get("pace", ""))
    except ValueError:
        pace = math.nan
    usual = 0.5 if math.isnan(pace) else min(max(pace, 0), 60)
    return request.query_params.get("message", "Oslo"), usual


app = Starlette(
    routes=[Route("/stream", stream), Route("/trip", whole), Route("/at_work", who_works)],
    lifespan=aio.lifespan,
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=8000, help="by default: 8000")
    chosen = parser.parse_args(arguments)
    print(TRY.format(port=chosen.port), flush=True)
    # At Ctrl-C, a stream that is read just then is given a second to end, and then it is ended.
    uvicorn.run(app, port=chosen.port, timeout_graceful_shutdown=1, ws="none")


if __name__ == "__main__":
    main()
