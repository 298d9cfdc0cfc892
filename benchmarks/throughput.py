"""Merged events per second, and the ratio to the raw trio channel in the same round."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks import raw
from benchmarks.measure import Row, Sizes, Timed, run_rounds, times_base
from benchmarks.trees import LEAVES, whole_run, wide


def throughput(sizes: Sizes) -> Iterator[Row]:
    """Branches x events: the raw channel, and the whole public path with three kinds of event."""
    for branches, events in sizes.throughput:
        case = f"{branches:,} x {events:,}"
        contestants: dict[str, Timed] = {"raw channel": partial(raw.channel, branches, events)}
        for name, leaf in LEAVES.items():
            contestants[name] = partial(whole_run, wide(branches, events, leaf))
        seconds = run_rounds(contestants, sizes.rounds)
        for name, taken in seconds.items():
            rate = branches * events / min(taken) / 1000
            yield Row("throughput", case, name, rate, "k/s")
            if name != "raw channel":
                ratio = 1 / times_base(taken, seconds["raw channel"])
                yield Row("throughput", case, f"{name} / raw", ratio, "ratio")
