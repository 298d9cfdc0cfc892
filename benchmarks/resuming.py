"""How long it takes to go on with a run that was cut off, and what it costs that it could be.

Time is the clock on the wall where a disk or a server is waited for, and processor time in memory.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final
from uuid import uuid4

import attrs
import trio

from benchmarks.durable import batch_of, postgres_server
from benchmarks.measure import Row, Sizes, Timed, clock, run_rounds, times_base
from benchmarks.trees import LEAVES, text, wide
from parallel_agent import (
    Agent,
    InvocationContext,
    ParallelAgent,
    RunConfig,
    Runner,
    SequentialAgent,
    agent,
)
from session.database import DatabaseSessionService

_APP: Final = "bench"
_USER: Final = "user"
_STRETCH: Final = 1_000
_ROUNDS: Final = 3
_SMALL: Final = 100


@attrs.define(eq=False)
class _Gate:
    """Whether the last agent of a tree waits for ever, so that its run is cut off there."""

    shut: bool = True


@attrs.frozen(eq=False)
class _Case:
    """A tree that is cut off when so much of it has ended, or that asks; and the answers."""

    tree: Agent
    gate: _Gate
    answers: dict[str, int]


def resume(sizes: Sizes) -> Iterator[Row]:
    """Milliseconds from `Runner.resume` to its end, by the log before the run and by its own."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        yield from _resume_in("SQLite", f"sqlite:///{folder}/sessions.db", sizes)
    with postgres_server() if sizes.durable_postgres else nullcontext() as found:
        if found is not None:
            yield from _resume_in("PostgreSQL", found.new_database(), sizes)


def _resume_in(store: str, url: str, sizes: Sizes) -> Iterator[Row]:
    small = min(_SMALL, *sizes.resume_part)
    contestants: dict[str, Timed] = {}
    for length in sizes.resume_history:
        session_id = trio.run(_session_of, url, length)
        make = partial(_in_turn, small)
        contestants[f"{length:,} events before"] = partial(_resumed, url, session_id, make)
    seconds = run_rounds(contestants, min(_ROUNDS, sizes.rounds))
    first = next(iter(seconds))
    for case, taken in seconds.items():
        name = f"{store}, {case}"
        yield Row("resume", name, "resume", min(taken) * 1e3, "ms")
        yield Row("resume", name, "times the first", times_base(taken, seconds[first]), "ratio")
    for words, shape in _SHAPES.items():
        for count in sizes.resume_part:
            name = f"{store}, {count:,} {words}"
            timed = partial(_resumed, url, None, partial(shape, count))
            taken = run_rounds({name: timed}, min(_ROUNDS, sizes.rounds))[name]
            yield Row("resume", name, "resume", min(taken) * 1e3, "ms")
            yield Row("resume", name, "each", min(taken) / count * 1e6, "us")


async def _session_of(url: str, length: int) -> str:
    """Make a session that holds so many events of another run."""
    async with DatabaseSessionService(url) as service:
        session = await service.create(app_name=_APP, user_id=_USER)
        seq = 0
        while seq < length:
            stretch = batch_of(min(_STRETCH, length - seq))
            await service.append(session.key, stretch, expected_seq=seq)
            seq += len(stretch)
    return session.id


async def _resumed(url: str, session_id: str | None, make: Callable[[], _Case]) -> float:
    """Cut a run off, or let it wait; return the seconds that it takes to go on to its end."""
    case = make()
    where = session_id or uuid4().hex
    # Only to have it there: it need not outlive a loss of power.
    async with DatabaseSessionService(url, durability="normal") as service:
        runner = Runner(case.tree, app_name=_APP, session_service=service, resumable=True)
        config = RunConfig(on_wait="suspend")
        with trio.CancelScope() as scope:
            async with runner.open("go", user_id=_USER, session_id=where, run_config=config) as run:
                async for event in run:
                    if event.author == "last":
                        scope.cancel()
        assert len(await runner.unfinished()) == 1  # noqa: S101  # what does less must not look fast
    case.gate.shut = False
    async with DatabaseSessionService(url) as service:
        runner = Runner(case.tree, app_name=_APP, session_service=service, resumable=True)
        began = time.perf_counter()
        result = await runner.resume(where, user_id=_USER, responses=case.answers)
        taken = time.perf_counter() - began
    assert result.status == "completed", result  # noqa: S101  # the same
    return taken


def _in_turn(count: int) -> _Case:
    gate = _Gate()
    leaves = [text(f"b{number}", 1) for number in range(count)]
    return _Case(SequentialAgent("work", [*leaves, _last(gate)]), gate, {})


def _side_by_side(count: int) -> _Case:
    gate = _Gate()
    return _Case(SequentialAgent("work", [wide(count, 1), _last(gate)]), gate, {})


def _asking(count: int) -> _Case:
    leaves = [_asks(f"b{number}") for number in range(count)]
    answers = {f"b{number}": number for number in range(count)}
    return _Case(ParallelAgent("wide", leaves), _Gate(), answers)


_SHAPES: Final[Mapping[str, Callable[[int], _Case]]] = MappingProxyType(
    {
        "ended in turn": _in_turn,
        "ended side by side": _side_by_side,
        "answered questions": _asking,
    }
)


def _last(gate: _Gate) -> Agent:
    @agent(name="last")
    async def last(_ctx: InvocationContext) -> AsyncIterator[str]:
        yield "x"
        if gate.shut:
            await trio.sleep_forever()

    return last


def _asks(name: str) -> Agent:
    @agent(name=name)
    async def asks(ctx: InvocationContext) -> AsyncIterator[str]:
        yield str(await ctx.request_input("which?"))

    return asks


def resumable(sizes: Sizes) -> Iterator[Row]:
    """Branches x events with and without ``resumable=True``, in memory and in a file."""
    for branches, events in sizes.resumable:
        case = f"{branches:,} x {events:,}"
        total = branches * events
        for leaf in ("text", "ctx.state"):
            tree = wide(branches, events, LEAVES[leaf])
            for where, run in (("memory", _in_memory), ("SQLite", _in_a_file)):
                plain, noted = f"{where}, plain", f"{where}, resumable"
                seconds = run_rounds(
                    {
                        plain: partial(run, tree, resumable=False),
                        noted: partial(run, tree, resumable=True),
                    },
                    sizes.rounds,
                )
                for name, taken in seconds.items():
                    yield Row("resumable", f"{case}, {leaf}", name, total / min(taken) / 1e3, "k/s")
                ratio = times_base(seconds[noted], seconds[plain])
                yield Row("resumable", f"{case}, {leaf}", f"{where}, times plain", ratio, "ratio")


async def _in_memory(tree: Agent, *, resumable: bool) -> float:
    runner = Runner(tree, resumable=resumable)
    began = clock()
    async with runner.open("go") as run:
        async for _ in run:
            pass
    return clock() - began


async def _in_a_file(tree: Agent, *, resumable: bool) -> float:
    with tempfile.TemporaryDirectory(dir=".") as folder:
        async with DatabaseSessionService(Path(folder) / "sessions.db") as service:
            runner = Runner(tree, session_service=service, resumable=resumable)
            began = time.perf_counter()
            async with runner.open("go") as run:
                async for _ in run:
                    pass
            return time.perf_counter() - began
