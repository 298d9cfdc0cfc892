"""How an asyncio loop and its trio side end: at any time, out of order, or not at all."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
import uvloop

from parallel_agent import HostError, InvocationContext, agent, aio
from parallel_agent.aio import guest
from parallel_agent.aio.interrupts import Later, would_tear
from tests.support.loops import Diary, InLoop, cleaning_up, counting

ROOT = Path(__file__).parents[2]

NEW_LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=NEW_LOOPS)
def new_loop(request: pytest.FixtureRequest) -> Iterator[Callable[[], asyncio.AbstractEventLoop]]:
    """Make loops; in the end, those still open are closed, in good order."""
    made: list[asyncio.AbstractEventLoop] = []

    def make() -> asyncio.AbstractEventLoop:
        made.append(NEW_LOOPS[request.param]())
        return made[-1]

    yield make
    for loop in made:
        if not loop.is_closed():
            with asyncio.Runner(loop_factory=partial(_as_it_is, loop)) as runner:
                runner.get_loop()
    assert guest.open_guests() == 0


def _as_it_is(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    return loop


async def leave_open(diary: Diary) -> aio.Run:
    run = await aio.Runner(cleaning_up("worker", diary)).open().__aenter__()
    await anext(run)
    return run


def test_a_loop_may_end_at_any_step_of_the_first_use(in_loop: InLoop) -> None:
    began = 0
    for steps in range(20):
        diary: Diary = []
        runs: list[aio.Run] = []

        async def main(
            steps: int = steps, diary: Diary = diary, runs: list[aio.Run] = runs
        ) -> None:
            async def read() -> None:
                async with aio.Runner(cleaning_up("worker", diary)).open() as run:
                    runs.append(run)
                    await run.collect()

            task = asyncio.create_task(read())
            for _ in range(steps):
                await asyncio.sleep(0)
            assert not task.done()

        in_loop(main())
        assert guest.open_guests() == 0
        if runs and runs[0].statistics().delivered:
            began += 1
            assert diary == ["worker cleaned up"]
    assert 0 < began < 20


def test_a_loop_that_was_closed_with_open_runs_does_not_stop_the_next(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    diary: Diary = []
    for _ in range(3):
        loop = new_loop()
        loop.run_until_complete(leave_open(diary))
        loop.close()
    assert asyncio.run(aio.Runner(counting()).run()).text == "counter 2"
    assert diary == ["worker cleaned up"] * 3


def test_an_agent_that_awaits_asyncio_in_a_closed_loop_is_told(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    diary: Diary = []
    asleep = False

    @agent
    async def waiting(ctx: InvocationContext) -> None:
        nonlocal asleep
        try:
            asleep = True
            await aio.from_asyncio(asyncio.Event().wait)
        finally:
            with trio.CancelScope(shield=True):
                try:
                    await aio.from_asyncio(asyncio.sleep, 0)
                except HostError as error:
                    diary.append(str(error))

    async def main() -> None:
        await aio.Runner(waiting).open().__aenter__()
        while not asleep:  # noqa: ASYNC110  # there is nothing to wait for but time
            await asyncio.sleep(0)
        (waits,) = (task for task in asyncio.all_tasks() if "_InAsyncio" in repr(task))
        waits._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio would say so

    loop = new_loop()
    loop.run_until_complete(main())
    loop.close()
    assert asyncio.run(aio.Runner(counting()).run()).text == "counter 2"
    assert diary == [
        "the asyncio loop of this run was closed: nothing can be awaited in it any more"
    ]


def test_loops_of_one_thread_take_turns(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    loops = [new_loop(), new_loop()]
    for loop in loops * 3:
        assert loop.run_until_complete(aio.Runner(counting()).run()).text == "counter 2"


def test_a_loop_that_was_stopped_keeps_its_open_runs(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    diary: Diary = []
    first, second = new_loop(), new_loop()
    run = first.run_until_complete(leave_open(diary))
    with pytest.raises(HostError, match="another asyncio loop of this thread"):
        second.run_until_complete(aio.Runner(counting()).run())
    assert diary == []
    run.cancel()
    assert first.run_until_complete(run.collect()) == []
    assert diary == ["worker cleaned up"]


def test_async_generators_of_agents_are_closed_in_trio_when_the_loop_runs_again(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    diary: Diary = []

    async def numbers() -> object:
        try:
            yield 1
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            diary.append("closed")

    @agent
    async def forgetful(ctx: InvocationContext) -> None:
        iterator = numbers()
        await anext(iterator)  # type: ignore[call-overload]  # it is a generator
        del iterator
        for _ in range(5):
            await trio.lowlevel.checkpoint()

    loop = new_loop()
    for _ in range(3):
        with pytest.warns(ResourceWarning, match="numbers"):
            loop.run_until_complete(aio.Runner(forgetful).run())
    assert diary == ["closed"] * 3


def test_a_runtime_may_begin_while_another_ends(in_loop: InLoop) -> None:
    async def use(steps: int) -> None:
        for _ in range(steps):
            await asyncio.sleep(0)
        async with aio.runtime():
            pass

    async def main() -> None:
        for steps in range(20):
            await asyncio.gather(use(0), use(steps), use(steps // 2))
        assert len(asyncio.all_tasks()) == 1

    in_loop(main())


def test_a_run_that_begins_while_a_runtime_ends_is_refused(in_loop: InLoop) -> None:
    async def main() -> None:
        diary: Diary = []
        async with aio.runtime():
            await leave_open(diary)
            host = await guest.Guest.here()
            stopping = asyncio.create_task(host.stop())
            await asyncio.sleep(0)
            with pytest.raises(HostError, match="just being shut down"):
                await aio.Runner(counting()).run()
            await stopping
        assert diary == ["worker cleaned up"]

    in_loop(main())


# At the end of the program.

_PROGRAM = """
import asyncio, os, signal, sys
import trio
from parallel_agent import agent, aio

@agent
async def worker(ctx):
    try:
        yield "started"
        {then}
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
            {finally_}
            await trio.lowlevel.checkpoint()
        print("cleaned up")

async def main():
    run = await aio.Runner(worker).open().__aenter__()
    await anext(run)
    {wait}

{start}
"""


def _run_program(
    start: str, *, then: str = "", finally_: str = "", wait: str = ""
) -> tuple[str, str]:
    done = subprocess.run(  # noqa: S603  # a program of ours
        [
            *(sys.executable, "-W", "always", "-c"),
            textwrap.dedent(_PROGRAM).format(start=start, then=then, finally_=finally_, wait=wait),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=60,
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize("close", ["loop.close()", "pass"])
def test_what_is_open_in_a_loop_that_nobody_has_ended_cleans_up_at_exit(close: str) -> None:
    start = f"loop = asyncio.new_event_loop()\nloop.run_until_complete(main())\n{close}"
    out, err = _run_program(start)
    assert out == "cleaned up\n"
    assert "abandoned" not in err
    assert "destroyed" not in err


@pytest.mark.parametrize("start", ["asyncio.run(main())", "import uvloop; uvloop.run(main())"])
def test_a_second_ctrl_c_does_not_tear_the_clean_up(start: str) -> None:
    """The first one comes while an agent works, the second one while it cleans up."""
    interrupt = "os.kill(os.getpid(), signal.SIGINT)"
    out, err = _run_program(start, then=interrupt, finally_=interrupt, wait="await run.collect()")
    assert out == "cleaned up\n"
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert "TrioInternalError" not in err


# Interrupts that are put off.


def _interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_is_put_off_to_the_end_of_the_block() -> None:
    diary: Diary = []
    later = Later()
    with pytest.raises(KeyboardInterrupt), later:  # noqa: PT012  # the block is what raises
        _interrupt()
        diary.append("went on")
    assert diary == ["went on"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_interrupt_of_a_block_is_not_put_off() -> None:
    diary: Diary = []
    with pytest.raises(KeyboardInterrupt), Later():  # noqa: PT012  # the block is what raises
        _interrupt()
        diary.append("went on")
        _interrupt()
        diary.append("went on")
    assert diary == ["went on"]


def test_an_interrupt_that_only_cancels_the_main_task_needs_no_putting_off() -> None:
    seen: list[bool] = []

    async def main() -> None:
        seen.append(would_tear())
        _interrupt()
        seen.append(would_tear())

    assert would_tear()
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert seen == [False, True]
