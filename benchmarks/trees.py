"""Trees to measure, and runs of them through the whole public path."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable

from benchmarks.measure import clock
from parallel_agent import (
    Agent,
    Event,
    EventActions,
    InMemorySessionService,
    InvocationContext,
    ParallelAgent,
    Runner,
    SequentialAgent,
    agent,
)
from session import Origin

Leaf = Callable[[str, int], Agent]
"""Makes an agent of the given name that emits that many events."""


def text(name: str, events: int) -> Agent:
    """Text and nothing else."""

    @agent(name=name)
    async def leaf(_ctx: InvocationContext) -> AsyncIterator[str]:
        for _ in range(events):
            yield "x"

    return leaf


def state(name: str, events: int) -> Agent:
    """A write to the state before each event."""

    @agent(name=name)
    async def leaf(ctx: InvocationContext) -> AsyncIterator[str]:
        for number in range(events):
            ctx.state[name] = number
            yield "x"

    return leaf


def delta(name: str, events: int) -> Agent:
    """The same write, put into the event by hand."""

    @agent(name=name)
    async def leaf(_ctx: InvocationContext) -> AsyncIterator[Event]:
        for number in range(events):
            yield Event("x", actions=EventActions(state_delta={name: number}))

    return leaf


LEAVES = {"text": text, "ctx.state": state, "state_delta": delta}


def wide(branches: int, events: int, leaf: Leaf = text) -> Agent:
    """A parallel agent of ``branches`` leaves."""
    return ParallelAgent("wide", [leaf(f"b{number}", events) for number in range(branches)])


def deep(levels: int, events: int, *kinds: type[SequentialAgent | ParallelAgent]) -> Agent:
    """One leaf below ``levels`` workflow agents, of the given kinds in turn."""
    tree = text("leaf", events)
    for level in range(levels):
        tree = kinds[level % len(kinds)](f"level{level}", [tree])
    return tree


async def whole_run(tree: Agent) -> float:
    """Run the tree to its end, from opening to the end of the block; return the seconds."""
    runner = Runner(tree)
    began = clock()
    async with runner.open("go") as run:
        async for _ in run:
            pass
    return clock() - began


async def per_event(
    runner: Runner, events: int, *, skip: int = 1, session_id: str | None = None
) -> float:
    """Return the seconds per event of ``events`` events, after ``skip`` others; run to the end.

    Opening, starting the branches, joining them and ending are outside: costs of their own.
    """
    began = ended = 0.0
    count = 0
    async with runner.open("go", session_id=session_id) as run:
        async for _ in run:
            count += 1
            if count == skip:
                began = clock()
            elif count == skip + events:
                ended = clock()
    assert began < ended  # noqa: S101  # what measures nothing must not look fast
    return (ended - began) / events


async def session_of(length: int) -> tuple[InMemorySessionService, str]:
    """Return a service with a session that holds ``length`` events already."""
    service = InMemorySessionService()
    session = await service.create(app_name="bench", user_id="user", session_id="long")
    origin = Origin(author="before", invocation_id="before", path="before")
    events = [Event("an earlier event", origin=origin) for _ in range(length)]
    for event in events:
        event.seal()
    await service.append(session.key, events, expected_seq=0)
    gc.collect()
    return service, session.id
