"""Trees whose events come in one order, on any host: their leaves take turns.

A *stage* is a tree under a root that lets one leaf go at a time: when nothing moves any more, it
draws the next among those who wait for their turn. What depends on the scheduler, the clock or the
host's own loop cannot show then; what remains must be the same everywhere.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Final, Literal, TypeAlias

import attrs
import trio
import trio.testing
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    Barrier,
    BestEffort,
    Event,
    EventActions,
    FailFast,
    FirstSuccess,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    SequentialAgent,
    WaitAll,
    agent,
)
from parallel_agent.context import activation_of
from parallel_agent.stream import Stream

__all__ = ["Leaf", "LeafFailedError", "Node", "stage", "trees"]

Step: TypeAlias = Literal["say", "whisper", "write", "read", "stop", "fail"]
Kind: TypeAlias = Literal["sequential", "parallel", "loop"]

POLICIES: Final[tuple[Barrier, ...]] = (FailFast(), WaitAll(), BestEffort(), FirstSuccess())


class LeafFailedError(Exception):
    """What a leaf raises."""


@attrs.frozen
class Leaf:
    """Steps that are taken in turn, and whether it says something when it is cancelled."""

    name: str
    steps: tuple[Step, ...]
    cleans_up: bool


@attrs.frozen
class Node:
    """A workflow agent."""

    name: str
    kind: Kind
    children: tuple[Leaf | Node, ...]
    policy: Barrier


class _Turns:
    """Who waits for a turn, and who has it."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311  # no secret
        self._waiting: dict[str, trio.Event] = {}
        self._is_free = True
        self._giving = trio.CancelScope(shield=True)

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncGenerator[None]:
        mine = self._waiting[name] = trio.Event()
        try:
            await mine.wait()
            yield
        finally:
            self._waiting.pop(name, None)
            if mine.is_set():
                self._is_free = True

    async def give(self, ctx: InvocationContext) -> None:
        """Give turns until `end`, also to leaves that clean up after the tree was cancelled."""
        with self._giving:
            await self._give(activation_of(ctx).invocation.stream)

    def end(self) -> None:
        self._giving.cancel()

    async def _give(self, stream: Stream) -> None:
        while True:
            await trio.testing.wait_all_tasks_blocked()
            if self._is_free and self._waiting and not _is_busy(stream):
                name = self._random.choice(sorted(self._waiting))
                self._is_free = False
                self._waiting.pop(name).set()
            else:
                # The reader may be no task of trio's: then nobody else tells when it came back.
                await trio.sleep(0.0002)


def _is_busy(stream: Stream) -> bool:
    """Whether an event is on its way, or at the reader, who has not come back yet."""
    return bool(stream.queue or stream._batch or stream._drained or stream._held)


def stage(tree: Leaf | Node, seed: int) -> Agent:
    """Return the tree as an agent in which one leaf goes at a time, by the seed's choices."""
    turns = _Turns(seed)
    built = _build(tree, turns)

    async def direct(ctx: InvocationContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(turns.give, ctx)
            try:
                await ctx.run_agent(built)
            finally:
                turns.end()

    return agent(direct, name="stage")


def _build(tree: Leaf | Node, turns: _Turns) -> Agent:
    if isinstance(tree, Leaf):
        return _leaf(tree, turns)
    children = [_build(child, turns) for child in tree.children]
    match tree.kind:
        case "sequential":
            return SequentialAgent(tree.name, children)
        case "parallel":
            return ParallelAgent(tree.name, children, barrier=tree.policy)
        case "loop":
            return LoopAgent(tree.name, children, max_iterations=2)


def _leaf(leaf: Leaf, turns: _Turns) -> Agent:
    async def play(ctx: InvocationContext) -> None:
        try:
            for step in leaf.steps:
                async with turns.turn(leaf.name):
                    await _take(step, leaf.name, ctx)
            async with turns.turn(leaf.name):
                # By hand: what is returned would be emitted in nobody's turn.
                await ctx.emit(Event(output=f"{leaf.name} is done"))
        except trio.Cancelled:
            if leaf.cleans_up:
                with trio.CancelScope(shield=True):
                    async with turns.turn(leaf.name):
                        await ctx.emit(Event(f"{leaf.name} cleans up"))
            raise

    return agent(play, name=leaf.name, output_key=f"out_{leaf.name}")


async def _take(step: Step, name: str, ctx: InvocationContext) -> None:
    match step:
        case "say":
            await ctx.emit(Event(f"{name} says"))
        case "whisper":
            await ctx.emit(Event(f"{name} whispers", partial=True))
        case "write":
            ctx.state["key"] = f"{name}, after {ctx.state.get('key')}"
        case "read":
            await ctx.emit(Event(f"{name} reads {ctx.state.get('key')}"))
        case "stop":
            await ctx.emit(Event(f"{name} stops", actions=EventActions(escalate=True)))
        case "fail":
            raise LeafFailedError(name)


STEPS: Final[Sequence[Step]] = ("say", "whisper", "write", "read", "stop", "fail")


KINDS: Final[Sequence[Kind]] = ("parallel", "parallel", "sequential", "loop")


@st.composite
def trees(draw: st.DrawFn) -> Leaf | Node:
    """Draw trees of up to nine leaves."""
    names = iter(f"n{number}" for number in range(1_000))

    def node(depth: int) -> Leaf | Node:
        name = next(names)
        if depth == 0 or draw(st.integers(0, 2)) == 0:
            steps = tuple(draw(st.lists(st.sampled_from(STEPS), max_size=3)))
            return Leaf(name, steps, draw(st.booleans()))
        kind = draw(st.sampled_from(KINDS))
        children = tuple(node(depth - 1) for _ in range(draw(st.integers(1, 3))))
        return Node(name, kind, children, draw(st.sampled_from(POLICIES)))

    return node(2)
