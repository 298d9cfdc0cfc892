"""The sync host in threads, loops and notebooks; what it leaves behind (nothing), and Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from parallel_agent import InvocationContext, ParallelAgent, agent, sync
from parallel_agent.aio import from_asyncio
from tests.support.loops import counting
from tests.support.plain import read_all, real_run

ROOT: Final = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("_plain")


@agent
async def failing(ctx: InvocationContext) -> None:
    message = "broken"
    raise ValueError(message)


# ---------------------------------------------------------------------------------- where it runs


def _both_ways() -> None:
    assert sync.run_sync(counting(), "go").text == "counter 2"
    assert len(read_all(counting()).events) == 3
    with pytest.raises(ValueError, match="broken"):
        sync.run_sync(failing)


def test_it_works_in_a_worker_thread() -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(_both_ways).result()


async def test_it_works_in_a_trio_run() -> None:
    _both_ways()


async def test_it_works_in_a_thread_of_a_trio_run() -> None:
    await trio.to_thread.run_sync(_both_ways)


def test_it_works_in_an_asyncio_loop() -> None:
    async def main() -> None:
        _both_ways()

    asyncio.run(main())


def test_it_works_in_a_cell_of_a_notebook() -> None:
    # A kernel's loop runs on one thread, and executes a cell as a plain call in it.
    cell = compile("result = sync.run_sync(tree, 'go')", "cell", "exec")
    names: dict[str, Any] = {"sync": sync, "tree": counting()}

    async def kernel() -> None:
        exec(cell, names)  # noqa: S102  # as a notebook does

    asyncio.run(kernel())
    assert names["result"].status == "completed"


def test_it_works_in_an_agent_of_another_run() -> None:
    @agent
    def outer(ctx: InvocationContext) -> str:
        return sync.run_sync(counting("inner")).text

    @agent
    async def inside(ctx: InvocationContext) -> str:
        return read_all(counting("inner")).text

    assert sync.run_sync(outer).output == "inner 2"
    assert read_all(inside).output == "inner 2"


def test_a_run_in_the_body_of_another() -> None:
    with sync.open_sync(counting("outer")) as run:
        read = [(event.text, sync.run_sync(counting("inner")).text) for event in run]
    assert read == [(f"outer {number}", "inner 2") for number in range(3)]


def test_blocks_may_end_in_any_order() -> None:
    first, second = sync.open_sync(counting("a")), sync.open_sync(counting("b"))
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(first)
        other = stack.enter_context(second)
        assert len(run.collect()) == 3
        first.__exit__(None, None, None)
        assert len(other.collect()) == 3
    assert (run.result.status, other.result.status) == ("completed", "completed")


def test_eight_threads_run_trees_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # In real time: while nothing moves, a clock that jumps keeps its processor busy.
    monkeypatch.setattr(trio, "run", real_run)
    runner = sync.Runner(ParallelAgent("fan", [counting(name) for name in "abc"]))
    together = threading.Barrier(8)

    def work(number: int) -> list[str]:
        seen: list[str] = []
        with runner.open(session_id=f"s{number}") as run:
            together.wait(timeout=60)  # all eight are open
            seen.extend(event.text for event in run if event.text)
        assert runner.run(session_id=f"s{number}").status == "completed"
        return seen

    with ThreadPoolExecutor(8) as pool:
        every = list(pool.map(work, range(8)))
    expected = sorted(f"{name} {number}" for name in "abc" for number in range(3))
    assert [sorted(seen) for seen in every] == [expected] * 8


@pytest.mark.filterwarnings("error")
def test_agents_may_need_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    # Another loop takes part, in real time: a clock that jumps would run ahead of it.
    monkeypatch.setattr(trio, "run", real_run)

    async def needs_asyncio() -> str:
        await asyncio.sleep(0)
        return "from asyncio"

    @agent
    async def asks(ctx: InvocationContext) -> str:
        return await from_asyncio(needs_asyncio)

    assert sync.run_sync(asks).output == "from asyncio"
    assert read_all(asks).output == "from asyncio"


# ------------------------------------------------------------------------------- nothing is left


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counted in Linux's way")
@pytest.mark.parametrize("way", [sync.run_sync, read_all, "in a loop"])
def test_many_calls_leave_no_thread_and_no_descriptor(way: Any) -> None:
    if way == "in a loop":
        _many_in_a_loop()
    else:
        _check_leaves_nothing(lambda: way(counting(count=1)), 340)


def _many_in_a_loop() -> None:
    async def main() -> None:
        _check_leaves_nothing(lambda: sync.run_sync(counting(count=1)), 320)

    asyncio.run(main())


def _check_leaves_nothing(call: Callable[[], object], count: int) -> None:
    call()
    gc.collect()
    before, threads = descriptors(), set(threading.enumerate())
    for _ in range(count):
        call()
    assert descriptors() <= before
    assert set(threading.enumerate()) <= threads


def test_the_count_sees_what_is_left() -> None:
    kept: list[Any] = []
    with pytest.raises(AssertionError):
        _check_leaves_nothing(lambda: kept.append(os.pipe()), 1)
    for one in kept:
        os.close(one[0])
        os.close(one[1])


def test_an_error_is_freed_with_its_run() -> None:
    class Marker(Exception):  # noqa: N818  # no error of anybody's
        pass

    @agent
    async def raising(ctx: InvocationContext) -> None:
        raise Marker

    with contextlib.suppress(Marker):
        read_all(raising)
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, Marker)]


# ----------------------------------------------------------------------------------------- Ctrl-C


def interrupted(*arguments: str) -> list[dict[str, Any]]:
    """Run ``interrupted.py`` in a process of its own; return what it says."""
    done = subprocess.run(  # noqa: S603  # our own file
        [sys.executable, "-m", "tests.hosts.interrupted", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    said = [json.loads(line) for line in done.stdout.splitlines()]
    if "unprotected" not in arguments:
        assert (done.returncode, done.stderr) == (0, "")
    return said


INTERRUPTED: Final = {"said": "KeyboardInterrupt", "left": []}


@pytest.fixture(scope="module")
def cases() -> dict[str, list[dict[str, Any]]]:
    """Return what is said in each of the cases that ``interrupted.py`` has."""
    said: dict[str, list[dict[str, Any]]] = {}
    for line in interrupted("cases"):
        if "case" in line:
            said[line["case"]] = []
        else:
            said[list(said)[-1]].append(line)
    return said


@pytest.mark.parametrize("case", ["whole", "in a loop", "nested"])
def test_ctrl_c_is_raised_when_the_tree_has_cleaned_up_however_often_it_comes(
    case: str, cases: dict[str, list[dict[str, Any]]]
) -> None:
    assert cases[case] == [{"said": "cleaned up"}, INTERRUPTED]


def test_ctrl_c_interrupts_the_wait_for_an_event_and_is_raised_by_the_block(
    cases: dict[str, list[dict[str, Any]]],
) -> None:
    assert cases["opened"] == [
        {"said": "started"},
        {"said": "interrupted", "status": "running"},
        {"said": "cleaned up"},
        INTERRUPTED,
    ]


def test_ctrl_c_interrupts_opening(cases: dict[str, list[dict[str, Any]]]) -> None:
    assert cases["opening"] == [INTERRUPTED]


def test_a_reader_that_catches_ctrl_c_has_lost_nothing(
    cases: dict[str, list[dict[str, Any]]],
) -> None:
    assert [line["said"] for line in cases["caught"]] == ["one", "interrupted", "two"]


def test_a_run_that_nobody_leaves_is_left_at_the_end_of_the_process(
    cases: dict[str, list[dict[str, Any]]],
) -> None:
    assert cases["never left"] == [{"said": "started"}, {"said": "cleaned up"}]


def test_ctrl_c_at_any_call_leaves_nothing_behind() -> None:
    reports = interrupted("calls", str(random.randrange(1_000)), "40")  # noqa: S311  # no secret
    assert [report for report in reports if report["wrong"]] == []
    ended = [report["ended"] for report in reports if report["signal"]]
    assert ended.count("interrupted") >= 30


@pytest.mark.deep
def test_ctrl_c_at_many_calls_leaves_nothing_behind() -> None:
    assert [report for report in interrupted("calls", "2000", "2000") if report["wrong"]] == []


def test_ctrl_c_that_comes_when_the_block_is_left_leaves_nothing_behind() -> None:
    assert interrupted("leaving") == [{"ended": "interrupted", "wrong": ""}]


def test_the_checks_see_what_an_unprotected_reader_leaves_behind() -> None:
    (report,) = interrupted("leaving", "unprotected")
    assert (report["ended"], "assert left() == []" in report["wrong"]) == ("interrupted", True)
