"""What a branch costs: to start, to keep, and a hundred thousand of them."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from functools import partial

import trio
import trio.testing

from benchmarks import raw
from benchmarks.measure import Row, Sizes, Timed, clock, run_once, run_rounds, times_base
from benchmarks.trees import whole_run, wide
from parallel_agent import Agent, Runner


def start(sizes: Sizes) -> Iterator[Row]:
    """One-event branches, from start to end, against raw tasks that send one item each."""
    tree = wide(sizes.wide, 1)
    contestants: dict[str, Timed] = {
        "raw": partial(raw.channel, sizes.wide, 1),
        "branches": partial(whole_run, tree),
    }
    seconds = run_rounds(contestants, sizes.rounds)
    case = f"{sizes.wide:,} one-event branches"
    for name, taken in seconds.items():
        yield Row("start", case, name, min(taken) * 1e3, "ms")
    yield Row("start", case, "times raw", times_base(seconds["branches"], seconds["raw"]), "ratio")


def memory(sizes: Sizes) -> Iterator[Row]:
    """Bytes per branch while all of them wait for the reader, counted by tracemalloc.

    That is what Python objects occupy; the process grows by somewhat more (arenas, the
    allocator's rounding). The definition of the tree is counted apart: it is made once and
    serves every run.
    """
    case = f"{sizes.wide:,} branches"
    tracemalloc.start()
    try:
        before = _traced()
        tree = wide(sizes.wide, 2)
        defined = _traced() - before
        parked = trio.run(_parked_branches, tree)
        floor = trio.run(_parked_tasks, sizes.wide)
    finally:
        tracemalloc.stop()
    for name, size in (("running", parked), ("raw task, channel", floor), ("definition", defined)):
        yield Row("memory", case, name, size / sizes.wide / 1024, "KiB")


async def _parked_branches(tree: Agent) -> int:
    before = _traced()
    async with Runner(tree).open("go") as run:
        await anext(run)
        await trio.testing.wait_all_tasks_blocked()
        return _traced() - before


async def _parked_tasks(count: int) -> int:
    async def branch(send: trio.MemorySendChannel[str]) -> None:
        async with send:
            await send.send("x")

    before = _traced()
    send, receive = trio.open_memory_channel[str](0)
    async with trio.open_nursery() as nursery, receive:
        async with send:
            for _ in range(count):
                nursery.start_soon(branch, send.clone())
        await trio.testing.wait_all_tasks_blocked()
        used = _traced() - before
        nursery.cancel_scope.cancel()
    return used


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def many(sizes: Sizes) -> Iterator[Row]:
    """Very many one-event branches: that they finish, and how long it takes. Run once."""
    began = clock()
    tree = wide(sizes.many, 1)
    defined = clock() - began
    ran = run_once(partial(whole_run, tree))
    case = f"{sizes.many:,} branches"
    yield Row("many", case, "run", ran, "s")
    yield Row("many", case, "per branch", ran / sizes.many * 1e6, "us")
    yield Row("many", case, "definition", defined, "s")
