"""Ctrl-C and SystemExit: they leave the block bare, through any nesting, and the log stays whole.

Real signals need real processes: ``interrupted.py`` runs trees in one, interrupting each at a
moment drawn from its number.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from parallel_agent import (
    Agent,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Runner,
    SequentialAgent,
    Status,
    agent,
)
from tests.kernel.interrupted import MODES
from tests.kernel.scripted import (
    BoomError,
    Diary,
    Yields,
    check_run,
    endless,
    failing,
    holds_cancellation,
    quiet,
    read_all,
    texts,
)

ROOT = Path(__file__).parents[2]


def run_interrupted(mode: str, first: int, count: int, *options: str) -> list[dict[str, Any]]:
    """Run trials in a process of their own; return their reports, quiet runs included."""
    command = [sys.executable, "-m", "tests.kernel.interrupted", mode, str(first), str(count)]
    done = subprocess.run(  # noqa: S603  # our own file
        [*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert reports, done.stderr
    if not options:
        assert "TrioInternalError" not in done.stderr
        assert done.returncode == 0, (reports[-1], done.stderr)
    return reports


def check_trials(reports: list[dict[str, Any]], count: int) -> None:
    """Assert that every trial ended as it should, and that most were interrupted."""
    assert [report for report in reports if report["wrong"]] == []
    assert Counter(report["ended"] for report in reports if not report["signal"]) == {
        "completed": count
    }
    ended = Counter(report["ended"] for report in reports if report["signal"])
    # Now and then a signal comes too late, or where Python cannot raise anything.
    assert set(ended) <= {"interrupted", "completed"}
    assert ended["interrupted"] >= 0.9 * count


# ------------------------------------------------------------- real signals, anywhere


@pytest.mark.parametrize("mode", MODES)
def test_nasty_06_sigint_at_random_moments(mode: str) -> None:
    count = 60 if mode == "call" else 20
    check_trials(run_interrupted(mode, 0, count), count)


@pytest.mark.deep
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("first", [1_000, 2_000, 3_000])
def test_nasty_06_sigint_at_many_random_moments(mode: str, first: int) -> None:
    check_trials(run_interrupted(mode, first, 700), 700)


def test_the_checks_see_what_an_unprotected_kernel_does() -> None:
    reports = run_interrupted("call", 0, 500, "unprotected")
    assert [report for report in reports if report["signal"] and report["wrong"]]


# --------------------------------------------- raised by an agent, without a signal


def _raising(name: str, error: BaseException, *, after: float = 1) -> Agent:
    @agent(name=name)
    async def run(ctx: InvocationContext) -> Yields:
        yield f"{name}0"
        await trio.sleep(after)
        raise error

    return run


def _nested(leaf: Agent, diary: Diary) -> Agent:
    """Put ``leaf`` below two nested parallels, a loop and a sequence."""
    inner = ParallelAgent("inner", [endless("beside", diary), leaf])
    loop = LoopAgent("loop", [SequentialAgent("line", [inner])], max_iterations=2)
    return ParallelAgent("outer", [loop, endless("above", diary)])


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_it_leaves_bare_through_two_nested_parallels(
    kind: type[BaseException], autojump_clock: MockClock
) -> None:
    error, diary = kind(3), Diary()
    with quiet():
        async with Runner(_nested(_raising("a", error), diary)).open() as run:
            with pytest.raises(kind) as caught:
                await read_all(run)
            diary.append("raised")
    assert caught.value is error
    assert not holds_cancellation(error)
    # Everything was joined before it was raised.
    assert sorted(diary[:2]) == ["above cleaned up", "beside cleaned up"]
    assert diary[2:] == ["raised"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_it_is_raised_by_the_block_if_the_reader_had_left(
    kind: type[BaseException], autojump_clock: MockClock
) -> None:
    @agent
    async def clumsy(ctx: InvocationContext) -> Yields:
        try:
            yield "a"
        finally:
            raise kind(3)

    block = Runner(ParallelAgent("both", [clumsy, endless("b", [])])).open()
    run = await block.__aenter__()
    await anext(run)
    with pytest.raises(kind):
        await block.__aexit__(None, None, None)
    assert run.result.status == "failed"


async def test_it_wins_over_failures_that_come_before_it_in_the_tree(
    autojump_clock: MockClock,
) -> None:
    tree = ParallelAgent(
        "both", [failing("a", after=1), _raising("b", SystemExit(3)), failing("c", after=1)]
    )
    async with Runner(tree).open() as run:
        with pytest.raises(SystemExit):
            await read_all(run)
    assert isinstance(run.outcomes("both")[0].error, BoomError)


async def test_a_run_that_was_interrupted_has_failed_and_its_log_is_whole(
    autojump_clock: MockClock,
) -> None:
    runner = Runner(_nested(_raising("a", KeyboardInterrupt()), []))
    async with runner.open("hi") as run:
        with pytest.raises(KeyboardInterrupt):
            await read_all(run)
    recorded = await check_run(runner, run)
    assert sorted(texts(recorded)) == ["a0", "above0", "beside0"]
    assert (run.result.status, run.status) == (Status.FAILED, Status.FAILED)


async def test_the_session_serves_the_next_run(autojump_clock: MockClock) -> None:
    error = KeyboardInterrupt()
    tree = _nested(_raising("a", error), [])
    runner = Runner(tree)
    for _ in range(2):
        async with runner.open("hi", session_id="s") as run:
            with pytest.raises(KeyboardInterrupt):
                await read_all(run)
        await check_run(runner, run)


async def test_a_plain_function_may_raise_it_too() -> None:
    @agent
    def stops(ctx: InvocationContext) -> None:
        raise SystemExit(3)

    async with Runner(ParallelAgent("outer", [ParallelAgent("inner", [stops])])).open() as run:
        with pytest.raises(SystemExit, match="3"):
            await read_all(run)


@pytest.mark.parametrize("where", ["agent's nursery", "callback", "clean-up after a failure"])
async def test_it_leaves_bare_from_anywhere_in_an_agent(
    where: str, autojump_clock: MockClock
) -> None:
    async def stop(_ctx: InvocationContext | None = None) -> None:
        raise SystemExit(3)

    async def in_a_nursery(ctx: InvocationContext) -> Yields:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop)
            nursery.start_soon(trio.sleep_forever)
            yield "a"

    async def in_cleaning_up(ctx: InvocationContext) -> Yields:
        try:
            yield "a"
            await trio.sleep_forever()
        finally:
            await stop()

    leaf = {
        "agent's nursery": agent(in_a_nursery, name="leaf"),
        "callback": agent(in_cleaning_up, name="leaf", before_agent_callback=stop),
        "clean-up after a failure": agent(in_cleaning_up, name="leaf"),
    }[where]
    tree = ParallelAgent("outer", [ParallelAgent("inner", [leaf, failing("b", after=1)])])
    async with Runner(tree).open() as run:
        with pytest.raises(SystemExit):
            await read_all(run)


def test_it_leaves_trio_run_bare() -> None:
    async def main() -> None:
        await Runner(_nested(_raising("a", SystemExit(3)), [])).run()

    with pytest.raises(SystemExit) as caught:
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert caught.value.code == 3


async def test_an_interrupt_of_the_body_leaves_as_itself_and_joins_the_tree(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []
    error = KeyboardInterrupt()
    block = Runner(_nested(endless("a", diary), diary)).open()
    run = await block.__aenter__()
    for _ in range(3):
        await anext(run)
    # False: the block lets it pass.
    assert await block.__aexit__(KeyboardInterrupt, error, None) is False
    assert sorted(diary) == ["a cleaned up", "above cleaned up", "beside cleaned up"]
    assert run.result.status == "cancelled"
