"""Small trees, drawn: few enough steps that all their schedules can be run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from itertools import count
from typing import Any, TypeAlias

import attrs
import trio
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
    Limiter,
    LoopAgent,
    MessageRefusedError,
    ParallelAgent,
    Quorum,
    Retry,
    Run,
    Runner,
    SequentialAgent,
    WaitAll,
    agent,
)

__all__ = ["Tree", "make_runner", "read", "trees"]

Ctx = InvocationContext
Op: TypeAlias = tuple[Any, ...]

make_runner = partial(Runner, reducers={"all": "append"})


async def read(run: Run) -> None:
    """Answer every question; send a message to one branch when another has spoken."""
    async for event in run:
        if event.request is not None:
            await run.respond(event.request.id, "yes")
        elif event.author == "a":
            try:
                await run.send("from outside", to="root.b")
            except MessageRefusedError:
                run.cancel("nobody reads")


@attrs.frozen
class Leaf:
    name: str
    script: tuple[Op, ...]
    options: tuple[str, ...] = ()


@attrs.frozen
class Tree:
    """A ``ParallelAgent`` of leaves, each of which may stand in something else."""

    leaves: tuple[Leaf, ...]
    barrier: Barrier
    options: tuple[str, ...] = ()
    reads: bool = False

    def make(self) -> Agent:
        shared = _Shared()
        options: dict[str, Any] = {"barrier": self.barrier, **_options(self.options, shared)}
        if "one at a time" in self.options:
            options["max_concurrency"] = 1
        return ParallelAgent("root", [_wrapped(leaf, shared) for leaf in self.leaves], **options)


class _Shared:
    """What the agents of one tree have in common."""

    def __init__(self) -> None:
        self.limiter = Limiter(1)
        self.tries: dict[str, Iterator[int]] = {}


def _options(names: tuple[str, ...], shared: _Shared) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if "again" in names:
        options["retry"] = Retry(2, initial_delay=0)
    if "again later" in names:
        options["retry"] = Retry(2)
    if "timeout" in names:
        options["timeout"] = 1
    if "limited" in names:
        options["limiter"] = shared.limiter
    if "output key" in names:
        options["output_key"] = "x"
    return options


def _wrapped(leaf: Leaf, shared: _Shared) -> Agent:
    made = _make(leaf, shared)
    if "sequence" in leaf.options:
        return SequentialAgent(f"{leaf.name}_s", [made])
    if "loop" in leaf.options:
        return LoopAgent(f"{leaf.name}_l", [made], max_iterations=2)
    if "fan" in leaf.options:
        return ParallelAgent(f"{leaf.name}_p", [made])
    return made


def _make(leaf: Leaf, shared: _Shared) -> Agent:
    async def run(ctx: Ctx) -> str | None:
        return await _play(ctx, leaf.script, shared)

    return agent(run, name=leaf.name, **_options(leaf.options, shared))


async def _play(ctx: Ctx, script: tuple[Op, ...], shared: _Shared) -> str | None:
    """Do one thing after the other; tell what was seen last."""
    seen: object = None
    for name, *arguments in script:
        seen = await OPS[name](ctx, shared, *arguments) or seen
    return None if seen is None else f"{ctx.agent.name} saw {seen}"


OPS: dict[str, Callable[..., Awaitable[object]]] = {}


def op(function: Callable[..., Awaitable[object]]) -> None:
    OPS[function.__name__] = function


@op
async def emits(ctx: Ctx, shared: _Shared) -> None:
    await ctx.emit(f"{ctx.agent.name} speaks")


@op
async def reads(ctx: Ctx, shared: _Shared, key: str) -> object:
    return ctx.state.get(key, "nothing")


@op
async def counts(ctx: Ctx, shared: _Shared) -> object:
    return len(ctx.state)


@op
async def writes(ctx: Ctx, shared: _Shared, key: str) -> None:
    ctx.state[key] = ctx.agent.name


@op
async def contributes(ctx: Ctx, shared: _Shared) -> None:
    ctx.state.contribute("all", ctx.agent.name)


@op
async def changes(ctx: Ctx, shared: _Shared, key: str) -> None:
    await ctx.emit(Event(actions=EventActions(state_delta={key: ctx.agent.name})))


@op
async def waits(ctx: Ctx, shared: _Shared) -> None:
    await trio.lowlevel.checkpoint()


@op
async def sleeps(ctx: Ctx, shared: _Shared, seconds: int) -> None:
    await trio.sleep(seconds)


@op
async def fails(ctx: Ctx, shared: _Shared) -> None:
    raise ValueError(ctx.agent.name)


@op
async def fails_once(ctx: Ctx, shared: _Shared) -> None:
    if next(shared.tries.setdefault(ctx.agent.name, count())) == 0:
        raise ValueError(ctx.agent.name)


@op
async def fails_if(ctx: Ctx, shared: _Shared, key: str) -> None:
    if key in ctx.state:
        raise ValueError(ctx.agent.name)


@op
async def escalates(ctx: Ctx, shared: _Shared) -> None:
    await ctx.emit(Event(actions=EventActions(escalate=True)))


@op
async def remembers(ctx: Ctx, shared: _Shared) -> object:
    return [event.text for event in ctx.history()]


@op
async def cleans_up(ctx: Ctx, shared: _Shared, before: Op, after: Op) -> None:
    try:
        await _play(ctx, (before,), shared)
    finally:
        with trio.CancelScope(shield=True):
            await _play(ctx, (after,), shared)


@op
async def within(ctx: Ctx, shared: _Shared, one: Op) -> None:
    with trio.move_on_after(1):
        await _play(ctx, (one,), shared)


@op
async def beside(ctx: Ctx, shared: _Shared, one: Op, other: Op) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_play, ctx, (one,), shared)
        await _play(ctx, (other,), shared)


@op
async def until(ctx: Ctx, shared: _Shared, one: Op, other: Op) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_play, ctx, (one,), shared)
        await _play(ctx, (other,), shared)
        nursery.cancel_scope.cancel()


@op
async def sends(ctx: Ctx, shared: _Shared) -> object:
    try:
        await ctx.send("from a sibling", to="root.b")
    except MessageRefusedError:
        return "refusal"
    return None


@op
async def receives(ctx: Ctx, shared: _Shared) -> object:
    return (await ctx.receive()).text


@op
async def asks(ctx: Ctx, shared: _Shared) -> object:
    return await ctx.request_input("Well?", timeout=1, default="silence")


@op
async def saves(ctx: Ctx, shared: _Shared) -> object:
    return await ctx.save_artifact("file", ctx.agent.name)


@op
async def looks_up(ctx: Ctx, shared: _Shared) -> object:
    try:
        return [outcome.status for outcome in ctx.outcomes("inner")]
    except KeyError:
        return "nothing"


@op
async def maps(ctx: Ctx, shared: _Shared, one: Op, width: int | None) -> object:
    inner = _make(Leaf(f"{ctx.agent.name}_each", (one,)), shared)
    outcomes = await ctx.map_outcomes(inner, [1, 2], max_concurrency=width)
    return [str(outcome.status) for outcome in outcomes]


@op
async def runs(ctx: Ctx, shared: _Shared, one: Op) -> None:
    inner = _make(Leaf(f"{ctx.agent.name}_in", (one,)), shared)
    await ctx.run_agent(ParallelAgent("inner", [inner], barrier=BestEffort()))


@op
async def opens(ctx: Ctx, shared: _Shared, one: Op, then: str, barrier: Barrier) -> object:
    name = ctx.agent.name
    async with ctx.open_fan_out(barrier=barrier) as group:
        handle = group.start(_make(Leaf(f"{name}_1", (one,)), shared))
        match then:
            case "cancel":
                handle.cancel()
            case "await":
                await handle.outcome()
            case "start":
                group.start(_make(Leaf(f"{name}_2", (("remembers",),)), shared))
            case "fail":
                raise ValueError(name)
            case _:
                await trio.lowlevel.checkpoint()
        return handle.done


@op
async def passes_on(ctx: Ctx, shared: _Shared, one: Op) -> None:
    inner = _make(Leaf(f"{ctx.agent.name}_in", (one, ("emits",))), shared)
    async with ctx.open_agent(inner) as events:
        async for event in events:
            if event.text:
                await ctx.emit(event)


KEYS = st.sampled_from(["x", "temp:t"])
PLAIN = [
    st.just(("emits",)),
    st.tuples(st.just("reads"), KEYS),
    st.tuples(st.just("writes"), KEYS),
    st.just(("waits",)),
    st.just(("fails",)),
    st.tuples(st.just("fails_if"), KEYS),
]
ONE = st.one_of(PLAIN)
THEN = st.sampled_from(["cancel", "await", "start", "fail", "go on"])
BARRIERS: st.SearchStrategy[Barrier] = st.sampled_from(
    [FailFast(), WaitAll(), BestEffort(), FirstSuccess(), Quorum(2)]
)
FAMILIES: dict[str, list[st.SearchStrategy[Op]]] = {
    "state": [
        *PLAIN,
        st.just(("counts",)),
        st.just(("contributes",)),
        st.tuples(st.just("changes"), KEYS),
    ],
    "ends": [
        *PLAIN,
        st.just(("escalates",)),
        st.just(("fails_once",)),
        st.tuples(st.just("sleeps"), st.integers(0, 2)),
        st.tuples(st.just("cleans_up"), ONE, ONE),
        st.tuples(st.just("within"), ONE),
    ],
    "tasks": [
        *PLAIN,
        st.tuples(st.just("beside"), ONE, ONE),
        st.tuples(st.just("until"), ONE, ONE),
    ],
    "talk": [
        *PLAIN,
        st.just(("sends",)),
        st.just(("receives",)),
        st.just(("asks",)),
    ],
    "kept": [
        *PLAIN,
        st.just(("saves",)),
        st.just(("looks_up",)),
        st.just(("remembers",)),
    ],
    "below": [
        *PLAIN,
        st.tuples(st.just("maps"), ONE, st.sampled_from([None, 1])),
        st.tuples(st.just("runs"), ONE),
        st.tuples(st.just("opens"), ONE, THEN, BARRIERS),
        st.tuples(st.just("passes_on"), ONE),
    ],
}
LEAF_OPTIONS = [
    "sequence",
    "loop",
    "fan",
    "again",
    "again later",
    "timeout",
    "limited",
    "output key",
]
TREE_OPTIONS = ["again", "timeout", "one at a time"]


def _some(names: list[str]) -> st.SearchStrategy[tuple[str, ...]]:
    """Draw none, more often than not; or one or two."""
    one = st.sampled_from(names)
    return st.one_of(st.just(()), st.just(()), st.tuples(one), st.tuples(one, one))


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Draw a tree of two leaves, or of three with one step each."""
    family = draw(st.sampled_from(sorted(FAMILIES)))
    steps = st.one_of(FAMILIES[family])
    longest = draw(st.sampled_from([(2, 1), (1, 2), (2, 2), (1, 1, 1)]))
    leaves = [
        Leaf(name, tuple(draw(st.lists(steps, max_size=most))), draw(_some(LEAF_OPTIONS)))
        for name, most in zip("abc", longest, strict=False)
    ]
    return Tree(tuple(leaves), draw(BARRIERS), draw(_some(TREE_OPTIONS)), reads=family == "talk")
