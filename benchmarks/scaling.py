"""What an event costs in a long session, deep down in a tree, and among many branches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from benchmarks.measure import Row, Sizes, Timed, clock, run_rounds, times_base
from benchmarks.trees import deep, per_event, session_of, state, wide
from parallel_agent import InvocationContext, ParallelAgent, Runner, SequentialAgent, agent


def history(sizes: Sizes) -> Iterator[Row]:
    """Cost per event against the number of events that the session held before the run."""
    tree = wide(10, sizes.history_events // 10 + 2, state)

    async def in_session_of(length: int) -> float:
        service, session_id = await session_of(length)
        runner = Runner(tree, app_name="bench", session_service=service)
        return await per_event(runner, sizes.history_events, skip=10, session_id=session_id)

    contestants = {f"{length:,} events": partial(in_session_of, length) for length in sizes.history}
    yield from _compared("history", contestants, sizes.rounds)


def first_event(sizes: Sizes) -> Iterator[Row]:
    """From ``runner.open`` to the first event, in a session that is long already."""

    @agent
    async def says(_ctx: InvocationContext) -> str:
        return "x"

    @agent
    async def looks_back(ctx: InvocationContext) -> str:
        return str(len(ctx.history()))

    async def until_first(leaf: SequentialAgent, length: int) -> float:
        service, session_id = await session_of(length)
        runner = Runner(leaf, app_name="bench", session_service=service)
        began = clock()
        async with runner.open("go", session_id=session_id) as run:
            await anext(run)
            return clock() - began

    plain, looking = SequentialAgent("plain", [says]), SequentialAgent("looking", [looks_back])
    contestants: dict[str, Timed] = {
        "new session": partial(until_first, plain, 0),
        "long session": partial(until_first, plain, sizes.first_event),
        "long session, reads ctx.history()": partial(until_first, looking, sizes.first_event),
    }
    for case, taken in run_rounds(contestants, sizes.rounds).items():
        yield Row("first_event", case, "first event", min(taken) * 1e3, "ms")


def depth(sizes: Sizes) -> Iterator[Row]:
    """Cost per event against the number of workflow agents above the one that emits."""
    kinds: dict[str, tuple[type[SequentialAgent | ParallelAgent], ...]] = {
        "sequential": (SequentialAgent,),
        "parallel": (ParallelAgent,),
        "mixed": (SequentialAgent, ParallelAgent),
    }
    for kind, agents in kinds.items():
        contestants: dict[str, Timed] = {}
        for levels in sizes.depth:
            runner = Runner(deep(levels, sizes.depth_events + 1, *agents))
            contestants[f"{levels:,} {kind}"] = partial(per_event, runner, sizes.depth_events)
        yield from _compared("depth", contestants, sizes.rounds)


def branches(sizes: Sizes) -> Iterator[Row]:
    """Cost per event against the number of branches, starting them aside."""
    contestants: dict[str, Timed] = {}
    for count in sizes.branches:
        each = max(1, sizes.branches_events // count)
        # One event of each branch before, and one after: the clock starts when all have started,
        # and stops before the first has ended.
        runner = Runner(wide(count, each + 2))
        contestants[f"{count:,} branches"] = partial(per_event, runner, each * count, skip=count)
    yield from _compared("branches", contestants, sizes.rounds)


def _compared(benchmark: str, contestants: Mapping[str, Timed], rounds: int) -> Iterator[Row]:
    """Microseconds per event of each, and how many times those of the first."""
    seconds = run_rounds(contestants, rounds)
    first = next(iter(seconds))
    for case, taken in seconds.items():
        yield Row(benchmark, case, "per event", min(taken) * 1e6, "us")
        yield Row(benchmark, case, "times the first", times_base(taken, seconds[first]), "ratio")
