"""The same runs under trio, in asyncio and uvloop, from plain Python, and in google-adk."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

import trio
import uvloop

from benchmarks.measure import Row, Sizes, in_turn, times_base
from benchmarks.trees import wide
from parallel_agent import Agent, Runner, aio, sync
from parallel_agent.aio.guest import Guest

Host = Callable[[Agent], float]
"""Runs a tree to its end, and returns the seconds from opening to the end of the block."""

clock = time.perf_counter
"""Seconds on the wall: hosts wait for each other, and processor time would leave that out."""


def in_trio(tree: Agent) -> float:
    """Read it under trio."""

    async def main() -> float:
        began = clock()
        async with Runner(tree).open("go") as run:
            async for _ in run:
                pass
        return clock() - began

    return trio.run(main)


def in_asyncio(run_loop: Callable[[Coroutine[Any, Any, float]], float], tree: Agent) -> float:
    """Read it in an asyncio loop, whose trio side has started."""

    async def main() -> float:
        async with aio.runtime():
            began = clock()
            async with aio.Runner(tree).open("go") as run:
                async for _ in run:
                    pass
            return clock() - began

    return run_loop(main())


def in_plain_python(tree: Agent) -> float:
    """Read it by a plain for loop."""
    began = clock()
    with sync.Runner(tree).open("go") as run:
        for _ in run:
            pass
    return clock() - began


HOSTS: dict[str, Host] = {
    "trio": in_trio,
    "asyncio": partial(in_asyncio, asyncio.run),
    "uvloop": partial(in_asyncio, uvloop.run),
    "sync": in_plain_python,
}


def hosts(sizes: Sizes) -> Iterator[Row]:
    """Branches x events of text: each host's rate, and what part of trio's that is."""
    for branches, events in sizes.hosts:
        case = f"{branches:,} x {events:,}"
        tree = wide(branches, events)
        contestants = {
            name: partial(_collected, partial(host, tree)) for name, host in HOSTS.items()
        }
        seconds = in_turn(contestants, sizes.rounds)
        if importlib.util.find_spec("google") and importlib.util.find_spec("google.adk"):
            from benchmarks.adk import in_adk

            # Once: it is slow, and slower with each event.
            adk = _collected(partial(in_adk, branches, events))
            seconds["google-adk"] = [adk] * sizes.rounds
        for name, taken in seconds.items():
            yield Row("hosts", case, name, branches * events / min(taken) / 1000, "k/s")
            if name != "trio":
                ratio = 1 / times_base(taken, seconds["trio"])
                yield Row("hosts", case, f"{name} / trio", ratio, "ratio")


def starts(sizes: Sizes) -> Iterator[Row]:
    """Milliseconds to start and to end the trio side of a loop, and for a run of one event."""
    tree = wide(1, 1)
    for name, run_loop in (("asyncio", asyncio.run), ("uvloop", uvloop.run)):
        taken = [run_loop(_start_and_end(tree)) for _ in range(sizes.starts)]
        for position, measure in enumerate(("start", "first run", "end")):
            best = min(times[position] for times in taken)
            yield Row("starts", name, measure, best * 1e3, "ms")
    alone = min(_collected(partial(in_plain_python, tree)) for _ in range(sizes.starts))
    yield Row("starts", "sync", "first run", alone * 1e3, "ms")


async def _start_and_end(tree: Agent) -> tuple[float, float, float]:
    began = clock()
    guest = await Guest.here()
    started = clock()
    await aio.Runner(tree).run("go")
    ran = clock()
    await guest.stop()
    return started - began, ran - started, clock() - ran


def _collected(run: Callable[[], float]) -> float:
    gc.collect()
    return run()
