"""What every benchmark needs: sizes, rows of figures, and rounds that are fair to both sides."""

from __future__ import annotations

import gc
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from statistics import median

import attrs
import trio

clock = time.process_time
"""Seconds of processor time. What is measured here keeps one core busy and waits for nothing, so on
an idle machine it is the time on the wall; on a busy one it leaves out what others took."""

Timed = Callable[[], Awaitable[float]]
"""Prepares, measures and cleans up one run; returns seconds."""


@attrs.frozen
class Row:
    """One figure: of which benchmark and case, what was measured, and in which unit."""

    benchmark: str
    case: str
    measure: str
    value: float
    unit: str


@attrs.frozen
class Sizes:
    """How much is measured. The defaults are the sizes of the project's budgets."""

    rounds: int = 9
    throughput: tuple[tuple[int, int], ...] = (
        (1, 10_000),
        (10, 1_000),
        (100, 100),
        (1_000, 10),
        (10_000, 1),
    )
    history: tuple[int, ...] = (0, 1_000, 10_000, 100_000)
    history_events: int = 2_000
    first_event: int = 10_000
    depth: tuple[int, ...] = (1, 10, 100, 500)
    depth_events: int = 2_000
    branches: tuple[int, ...] = (10, 1, 100, 1_000, 10_000)
    branches_events: int = 10_000
    wide: int = 10_000
    many: int = 100_000
    imports: int = 15
    schedules: int = 5_000
    hosts: tuple[tuple[int, int], ...] = ((1, 10_000), (10, 1_000), (100, 100))
    starts: int = 50
    durable: tuple[tuple[int, int], ...] = ((1, 1_000), (10, 1_000), (100, 100))
    durable_postgres: bool = True
    raw_commits: int = 2_000
    durable_history: tuple[int, ...] = (0, 10_000, 100_000)
    durable_state: tuple[int, ...] = (10_000,)
    durable_appends: int = 200
    adk_python: str | None = None
    resume_history: tuple[int, ...] = (1_000, 10_000, 100_000)
    resume_part: tuple[int, ...] = (100, 1_000, 10_000)
    resumable: tuple[tuple[int, int], ...] = ((10, 1_000), (1_000, 10))
    graphs: tuple[int, ...] = (100, 1_000, 10_000)
    peers: str | None = None
    model_calls: int = 200
    model_tokens: int = 2_000
    model_agents: int = 1_000


FULL = Sizes()

QUICK = Sizes(
    rounds=3,
    history=(0, 10_000),
    depth=(1, 100),
    branches=(10, 1, 1_000),
    imports=5,
    schedules=300,
    hosts=((10, 1_000),),
    starts=10,
    durable=((10, 1_000),),
    raw_commits=500,
    durable_history=(0, 10_000),
    durable_appends=100,
    resume_history=(1_000, 10_000),
    resume_part=(100, 1_000),
    resumable=((10, 1_000),),
    graphs=(100, 1_000),
    model_calls=50,
    model_agents=200,
)
"""The same questions in less time: fewer rounds, fewer cases."""


def run_once(timed: Timed) -> float:
    """Measure one run in an event loop of its own."""
    # What the run before left behind is not this one's to clear away. The collector stays on: it
    # is part of what an event costs.
    gc.collect()

    async def main() -> float:
        return await timed()

    return trio.run(main)


def run_rounds(contestants: Mapping[str, Timed], rounds: int) -> dict[str, list[float]]:
    """Run all contestants in turn, ``rounds`` times; return each one's seconds, round by round."""
    return in_turn({name: partial(run_once, timed) for name, timed in contestants.items()}, rounds)


def in_turn(contestants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Do the same with functions that run by themselves.

    A machine that slows down slows all of a round. Every other round goes backwards, so that none
    always runs in another's wake.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            seconds[name].append(contestants[name]())
    return seconds


def times_base(seconds: Sequence[float], base: Sequence[float]) -> float:
    """Return the median, over the rounds, of one's seconds divided by the other's in that round."""
    return median(mine / theirs for mine, theirs in zip(seconds, base, strict=True))


def machine() -> dict[str, str]:
    """Say where the figures come from."""
    load = (
        ", ".join(f"{value:.1f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "?"
    )
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "trio": trio.__version__,
        "platform": f"{sys.platform} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "load": load,
    }
