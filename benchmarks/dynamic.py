"""What a branch costs that is started at run time; and very many of them, a few at a time."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import trio

from benchmarks.measure import Row, Sizes, Timed, run_once, run_rounds, times_base
from benchmarks.trees import text, whole_run, wide
from parallel_agent import Agent, InvocationContext, Runner, agent

LIMIT = 10


def dynamic(sizes: Sizes) -> Iterator[Row]:
    """One-event branches started in three ways, against those of a `ParallelAgent`."""
    count = sizes.wide
    leaf = text("leaf", 1)

    async def fan_out(ctx: InvocationContext) -> None:
        await ctx.fan_out([leaf] * count)

    async def mapped(ctx: InvocationContext) -> None:
        await ctx.map(leaf, range(count))

    async def opened(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out() as group:
            for _ in range(count):
                group.start(leaf)

    contestants: dict[str, Timed] = {
        "ParallelAgent": partial(whole_run, wide(count, 1)),
        "ctx.fan_out": partial(whole_run, _doing(fan_out)),
        "ctx.map": partial(whole_run, _doing(mapped)),
        "group.start": partial(whole_run, _doing(opened)),
    }
    seconds = run_rounds(contestants, sizes.rounds)
    for name, taken in seconds.items():
        case = f"{count:,} x {name}"
        yield Row("dynamic", case, "per branch", min(taken) / count * 1e6, "us")
        ratio = times_base(taken, seconds["ParallelAgent"])
        yield Row("dynamic", case, "times static", ratio, "ratio")


def mapped(sizes: Sizes) -> Iterator[Row]:
    """Very many items, ten at a time: how long they take, once; what they need and leave behind.

    What an item leaves behind is its event, which the session keeps, and its outcome. On top of
    that, while they run, there is the list of what is to be done; no branch outlives its item. So
    both are the same per item, however many there are. Measured with fewer, because counting
    makes it slow.
    """
    case = f"{sizes.many:,} items, {LIMIT} at a time"
    ran = run_once(partial(whole_run, _mapping(sizes.many)))
    yield Row("mapped", case, "run", ran, "s")
    yield Row("mapped", case, "per item", ran / sizes.many * 1e6, "us")
    for count in (max(sizes.wide // 10, 1), sizes.wide):
        case = f"{count:,} items, {LIMIT} at a time"
        left, peak = trio.run(_traced_run, _mapping(count))
        yield Row("mapped", case, "left per item", left / count / 1024, "KiB")
        yield Row("mapped", case, "on top per item", (peak - left) / count / 1024, "KiB")


def _mapping(count: int) -> Agent:
    leaf = text("leaf", 1)

    async def maps(ctx: InvocationContext) -> None:
        await ctx.map(leaf, range(count), max_concurrency=LIMIT)

    return _doing(maps)


def _doing(body: Callable[[InvocationContext], Awaitable[Any]]) -> Agent:
    @agent(name="starter")
    async def starter(ctx: InvocationContext) -> None:
        await body(ctx)

    return starter


async def _traced_run(tree: Agent) -> tuple[int, int]:
    """Return the bytes in use when the run has ended, and the most that were before."""
    gc.collect()
    tracemalloc.start()
    try:
        async with Runner(tree).open("go") as run:
            async for _ in run:
                pass
            peak = tracemalloc.get_traced_memory()[1]
            gc.collect()
            return tracemalloc.get_traced_memory()[0], peak
    finally:
        tracemalloc.stop()
