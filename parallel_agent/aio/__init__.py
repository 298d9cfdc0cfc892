"""The asyncio host: the same trees and the same events in asyncio applications.

``await aio.Runner(tree).run("hello")``, or `Runner.open` for the stream of events. `stream_sse`
makes server-sent events of a run; `from_asyncio` and `asyncio_function` let agents use libraries
that need asyncio.
"""

from __future__ import annotations

from parallel_agent.aio.bridge import from_asyncio, from_trio
from parallel_agent.aio.guest import lifespan, runtime
from parallel_agent.aio.host import HostedEvents, RunHost
from parallel_agent.aio.items import AsyncioItems, from_asyncio_iter
from parallel_agent.aio.mark import asyncio_function
from parallel_agent.aio.runner import OpenRun, Run, Runner
from parallel_agent.aio.sse import SSE_HEADERS, stream_sse

__all__ = [
    "SSE_HEADERS",
    "AsyncioItems",
    "HostedEvents",
    "OpenRun",
    "Run",
    "RunHost",
    "Runner",
    "asyncio_function",
    "from_asyncio",
    "from_asyncio_iter",
    "from_trio",
    "lifespan",
    "runtime",
    "stream_sse",
]
