"""The floor: what plain trio needs for tasks that send into one zero-buffer channel."""

from __future__ import annotations

import trio

from benchmarks.measure import clock


async def channel(branches: int, events: int) -> float:
    """Start ``branches`` tasks that send ``events`` items each; read all; return the seconds.

    No acknowledgement, no session, no state: the least that merging streams costs in trio.
    """

    async def branch(send: trio.MemorySendChannel[str]) -> None:
        async with send:
            for _ in range(events):
                await send.send("x")

    received = 0
    began = clock()
    send, receive = trio.open_memory_channel[str](0)
    async with trio.open_nursery() as nursery:
        async with send:
            for _ in range(branches):
                nursery.start_soon(branch, send.clone())
        async for _ in receive:
            received += 1
    seconds = clock() - began
    assert received == branches * events  # noqa: S101  # a benchmark that loses events measures nothing
    return seconds
