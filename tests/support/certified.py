"""Trees to be certified, and session services that break what they promise."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Unpack

import trio

from parallel_agent import (
    BestEffort,
    Event,
    EventActions,
    FirstSuccess,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Result,
    Retry,
    Runner,
    SequentialAgent,
    agent,
)
from parallel_agent.runner import RunnerOptions
from session import Codec, Lease, SessionKey, SessionService, thaw
from session.event import OURS, stamp_seq
from session.lease import Unfinished
from session.passing import PassingOwner

CODEC: Final = Codec()

# A tree with everything in it.


@agent(output_key="left")
async def left(ctx: InvocationContext) -> AsyncIterator[str]:
    yield "l1"
    yield "l2"


@agent(output_key="right")
async def right(ctx: InvocationContext) -> AsyncIterator[str]:
    ctx.state["seen"] = ctx.user_text
    yield "r1"


@agent
async def writer(ctx: InvocationContext) -> AsyncIterator[str]:
    ctx.state["drafts"] = ctx.state.get("drafts", 0) + 1
    yield f"draft {ctx.state['drafts']}"


@agent
async def critic(ctx: InvocationContext) -> AsyncIterator[Event]:
    good = ctx.state["drafts"] == 2
    yield Event("good" if good else "again", actions=EventActions(escalate=good))


@agent
async def square(ctx: InvocationContext) -> int:
    return int(ctx.input) ** 2


@agent(output_key="squares")
async def mapper(ctx: InvocationContext) -> list[int]:
    ctx.state["total"] = 3
    found: list[int] = await ctx.map(square, [1, 2, 3])
    return found


@agent(output_key="steps")
async def stepper(ctx: InvocationContext) -> AsyncIterator[str]:
    """It goes on at its checkpoint; what it does outside is a line in a file, by `ctx.once`."""
    for step in range(ctx.restored or 0, 3):
        line = f"step {step}"
        await ctx.once(line, partial(note, line), on_unknown=partial(ensure, line))
        yield line
        await ctx.checkpoint(step + 1)


@agent
async def asker(ctx: InvocationContext) -> AsyncIterator[str]:
    yield f"so be it: {await ctx.request_input('Shall it be?', schema=bool)}"


def note(line: str) -> None:
    with Path("lines.txt").open("a", encoding="utf-8") as lines:
        lines.write(f"{line}\n")


def noted() -> list[str]:
    lines = Path("lines.txt")
    return lines.read_text("utf-8").splitlines() if lines.exists() else []


def ensure(line: str) -> None:
    if line not in noted():
        note(line)


def three_lines(result: Result) -> None:
    """Each step has been done once."""
    assert noted() == ["step 0", "step 1", "step 2"], noted()


everything = SequentialAgent(
    "everything",
    [
        ParallelAgent("both", [left, right]),
        LoopAgent("refine", [writer, critic], max_iterations=3),
        mapper,
        stepper,
        asker,
    ],
)

small = SequentialAgent("small", [left.with_options(name="first"), right.with_options(name="last")])


def make_small() -> SequentialAgent:
    """Make it anew."""
    return SequentialAgent("small", [left.with_options(name="first"), right])


@agent
async def raises(ctx: InvocationContext) -> AsyncIterator[str]:
    await ctx.once("effect", lambda: note("done"))
    yield "done"


def unknown_tree() -> SequentialAgent:
    """Make a tree whose effect nobody can look at."""
    return SequentialAgent("unknown", [raises])


def never(result: Result) -> None:
    """A check that nothing passes."""
    raise AssertionError("no run is good enough")


# Services that break what they promise.


class Hurried(PassingOwner):
    """Says of events that they are recorded, and records them with the next."""

    def __init__(self, inner: SessionService) -> None:
        super().__init__(inner)
        self._late: tuple[SessionKey, list[Event], int, Lease | None] | None = None

    async def append(
        self,
        key: SessionKey,
        events: Sequence[Event],
        *,
        expected_seq: int,
        lease: Lease | None = None,
    ) -> None:
        await self._catch_up()
        self._late = (key, [_copy(event) for event in events], expected_seq, lease)
        _number(events, expected_seq)

    async def _catch_up(self) -> None:
        if self._late is not None:
            (key, events, expected_seq, lease), self._late = self._late, None
            await super().append(key, events, expected_seq=expected_seq, lease=lease)

    async def release(self, lease: Lease, *, unfinished: Unfinished | None = None) -> None:
        await self._catch_up()
        await super().release(lease, unfinished=unfinished)


class Forgetful(PassingOwner):
    """Records of the end of an agent that it was something else."""

    async def append(
        self,
        key: SessionKey,
        events: Sequence[Event],
        *,
        expected_seq: int,
        lease: Lease | None = None,
    ) -> None:
        changed = [_copy(event, end="something else") for event in events]
        await super().append(key, changed, expected_seq=expected_seq, lease=lease)
        _number(events, expected_seq)


def _copy(event: Event, end: str = "end") -> Event:
    stored = CODEC.encode(event)
    ours = stored.get("customMetadata", {}).get(OURS, {})
    if (ours.get("journal") or {}).get("kind") == "end":
        ours["journal"] = {**ours["journal"], "kind": end}
    stored["id"] = ""  # derived from its number
    return CODEC.decode(json.loads(json.dumps(stored, default=thaw)))


def _number(events: Sequence[Event], after: int) -> None:
    for seq, event in enumerate(events, start=after + 1):
        stamp_seq(event, seq)


def make_hurried(**options: Unpack[RunnerOptions]) -> Runner:
    """Make a runner whose service is in a hurry."""
    return _with(Hurried, options)


def make_forgetful(**options: Unpack[RunnerOptions]) -> Runner:
    """Make a runner whose service forgets the ends of agents."""
    return _with(Forgetful, options)


def _with(kind: type[PassingOwner], options: RunnerOptions) -> Runner:
    inner = options["session_service"]
    assert inner is not None
    others: dict[str, Any] = {**options, "session_service": kind(inner)}
    return Runner(small, **others)


# A tree in which things fail, are tried again, and are cut off.


@agent
async def fails(ctx: InvocationContext) -> AsyncIterator[str]:
    yield "about to fail"
    raise ValueError("as it must")


@agent
async def slow(ctx: InvocationContext) -> AsyncIterator[str]:
    """Ends only by being cut off, and says goodbye."""
    try:
        yield "waiting"
        await trio.sleep_forever()
    finally:
        ctx.state["slow"] = "left"


@agent
async def quick(ctx: InvocationContext) -> AsyncIterator[str]:
    yield "first"


@agent
async def stops_all(ctx: InvocationContext) -> AsyncIterator[Event]:
    yield Event("enough", actions=EventActions(escalate=True))


@agent(retry=Retry(max_attempts=3, initial_delay=0))
async def flaky(ctx: InvocationContext) -> AsyncIterator[str]:
    """The third attempt succeeds."""
    ctx.state["flaky"] = await ctx.once("count", lambda: 1, on_unknown="retry")
    yield "trying"
    if not ctx.path.endswith("~3"):
        raise OSError("not yet")


@agent
async def reads(ctx: InvocationContext) -> AsyncIterator[str]:
    """It reads what another says before that counts."""
    async with ctx.open_agent(inner) as events:
        async for event in events:
            await ctx.emit(event)
    yield "read"


@agent
async def inner(ctx: InvocationContext) -> AsyncIterator[str]:
    yield "inside"


troubled = SequentialAgent(
    "troubled",
    [
        ParallelAgent("tolerant", [fails, quick], barrier=BestEffort()),
        ParallelAgent("race", [slow, quick.with_options(name="winner")], barrier=FirstSuccess()),
        flaky,
        LoopAgent(
            "until",
            [ParallelAgent("some", [slow.with_options(name="patient"), stops_all])],
            max_iterations=2,
        ),
        reads,
        fails.with_options(name="last"),
    ],
)

HARMLESS: Final = (
    *("fails", "slow", "quick", "winner", "stops_all"),
    *("reads", "inner", "last", "patient"),
)
"""Its agents that do nothing outside."""


# A tree that needs something in its folder.


@agent
async def finder(ctx: InvocationContext) -> AsyncIterator[str]:
    yield await trio.Path("input.txt").read_text("utf-8")


def make_finder() -> SequentialAgent:
    """Make a tree that reads a file."""
    return SequentialAgent("found", [finder])


def put_input() -> None:
    """Put it there."""
    Path("input.txt").write_text("42", "utf-8")


def put_nothing() -> None:
    """Fail to."""
    raise OSError("no room")
