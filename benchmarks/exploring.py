"""How fast schedules are run, and how many there are."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import trio

from benchmarks.measure import Row, Sizes
from parallel_agent import Agent, InvocationContext, ParallelAgent, agent
from parallel_agent.testing import Exploration, explore


def exploring(sizes: Sizes) -> Iterator[Row]:
    """Schedules of a `ParallelAgent`, with the reduction and without it; and how long one takes.

    ``inf`` are more than were tried.

    Three kinds of leaves: that emit (whose order is in the log, so each counts), that keep to a
    state key of their own and emit once, and that read and write one key.
    """
    for branches, kind, make in (
        (2, "1 event", _emits(1)),
        (2, "2 events", _emits(2)),
        (3, "2 events", _emits(2)),
        (2, "3 own writes", _writes("{name}", 3)),
        (3, "1 own write", _writes("{name}", 1)),
        (2, "1 shared write", _writes("shared", 1)),
        (3, "1 shared write", _writes("shared", 1)),
    ):
        case = f"{branches} x {kind}"
        names = "abcdef"[:branches]

        def tree(names: str = names, make: Callable[[str], Agent] = make) -> Agent:
            return ParallelAgent("p", [make(name) for name in names])

        begin = time.process_time()
        reduced = explore(tree, max_schedules=sizes.schedules)
        seconds = time.process_time() - begin
        yield Row("exploring", case, "schedules", _all(reduced), "ratio")
        full = explore(tree, reduce=False, max_schedules=sizes.schedules)
        yield Row("exploring", case, "not reduced", _all(full), "ratio")
        runs = reduced.schedules + reduced.redundant
        yield Row("exploring", case, "per schedule", seconds / runs * 1e3, "ms")


def _all(explored: Exploration) -> float:
    return explored.schedules if explored.exhausted else math.inf


def _emits(events: int) -> Callable[[str], Agent]:
    def make(name: str) -> Agent:
        @agent(name=name)
        async def emits(ctx: InvocationContext) -> None:
            for number in range(events):
                await ctx.emit(str(number))

        return emits

    return make


def _writes(key: str, times: int) -> Callable[[str], Agent]:
    def make(name: str) -> Agent:
        @agent(name=name)
        async def writes(ctx: InvocationContext) -> None:
            mine = key.format(name=name)
            for _ in range(times):
                seen = ctx.state.get(mine, 0)
                await trio.lowlevel.checkpoint()
                ctx.state[mine] = seen + 1
            await ctx.emit("done")

        return writes

    return make
