"""What comes of trees whose agents have tasks of their own, to the byte."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from random import Random
from typing import Final

import trio

from parallel_agent import (
    Agent,
    FirstSuccess,
    InvocationContext,
    ParallelAgent,
    Result,
    Retry,
    SequentialAgent,
    agent,
)
from parallel_agent.testing import explore, run_once
from parallel_agent.testing.schedule import AtRandom
from session.codec import Codec

__all__ = ["crowded", "digest", "log_of", "log_under"]

Ctx = InvocationContext
CODEC: Final = Codec()


def log_of(result: Result | None) -> bytes:
    """Return the log as it is stored."""
    if result is None:
        return b"none"
    return "\n".join(CODEC.dumps(event) for event in result.events).encode()


def log_under(seed: int) -> bytes:
    """Return the log of one run of `crowded`, under a schedule that is drawn."""
    chooser = AtRandom(Random(seed))  # noqa: S311  # a schedule is no secret
    return log_of(run_once(crowded, chooser).result)


def digest() -> str:
    """Return what all runs of a few explorations have logged, as one short text."""
    logs = hashlib.sha256()

    def check(result: Result) -> None:
        logs.update(log_of(result))

    explore(crowded, check, max_schedules=30, seed=5)
    explore(racing, check, max_schedules=40, allow=ValueError)
    return logs.hexdigest()


def crowded() -> Agent:
    """Return agents each of which has several tasks that emit, wait for each other, and share."""

    def crowd(name: str) -> Agent:
        async def run(ctx: Ctx) -> AsyncIterator[str]:
            send, receive = trio.open_memory_channel[str](0)
            done = trio.Event()
            seen: set[str] = set()

            async def talk(word: str) -> None:
                await ctx.emit(f"{name} {word}")
                await send.send(word)
                await done.wait()
                ctx.state[f"{name}_last"] = word

            async with trio.open_nursery() as nursery:
                for word in ("one", "two", "three"):
                    nursery.start_soon(talk, word)
                while len(seen) < 3:
                    seen.add(await receive.receive())
                    yield f"{name} heard {sorted(seen)}"
                done.set()

        return agent(run, name=name)

    return ParallelAgent("crowds", [crowd("a"), crowd("b")])


def racing() -> Agent:
    """Return agents that are tried again after random delays, in a race, and asked about it."""

    def tried(name: str, times: int) -> Agent:
        left = [times]

        async def run(ctx: Ctx) -> AsyncIterator[str]:
            left[0] -= 1
            yield f"{name} {left[0]}"
            if left[0] >= 0:
                raise ValueError(name)

        return agent(run, name=name, retry=Retry(3))

    async def tells(ctx: Ctx) -> str:
        return f"{sorted(ctx.state)} {[one.status for one in ctx.outcomes('race')]}"

    race = ParallelAgent("race", [tried("a", 2), tried("b", 2)], barrier=FirstSuccess())
    return SequentialAgent("s", [race, agent(tells)])
