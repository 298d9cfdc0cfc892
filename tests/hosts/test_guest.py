"""The trio side of an asyncio loop: its start, its end, and what it leaves behind."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import trio

from parallel_agent import HostError, InvocationContext, agent, aio
from parallel_agent.aio import guest
from parallel_agent.aio.guest import MAX_TURNS, Guest
from parallel_agent.handle import core_of
from tests.support.loops import LOOPS, Diary, InLoop, cleaning_up, counting

ROOT = Path(__file__).parents[2]


def test_a_loop_has_one_guest(in_loop: InLoop) -> None:
    async def main() -> None:
        first, second = await asyncio.gather(Guest.here(), Guest.here())
        assert first is second
        assert await Guest.here() is first

    in_loop(main())


def test_agents_run_on_the_threads_of_the_loop(in_loop: InLoop) -> None:
    @agent
    async def looking(ctx: InvocationContext) -> str:
        return threading.current_thread().name

    async def main() -> None:
        assert (await aio.Runner(looking).run()).text == threading.current_thread().name

    in_loop(main())


def test_a_run_that_is_open_when_the_loop_ends_cleans_up(in_loop: InLoop) -> None:
    diary: Diary = []

    is_open = asyncio.Event()

    async def read() -> None:
        async with aio.Runner(cleaning_up("worker", diary)).open() as run:
            async for _ in run:
                is_open.set()

    async def main() -> None:
        task = asyncio.create_task(read())
        await is_open.wait()
        await asyncio.sleep(0)
        assert not task.done()
        diary.append("left open")

    in_loop(main())
    assert diary == ["left open", "worker cleaned up"]


def test_a_run_whose_reader_is_gone_when_the_loop_ends_cleans_up(in_loop: InLoop) -> None:
    diary: Diary = []

    async def main() -> None:
        opened = aio.Runner(cleaning_up("worker", diary)).open()
        run = await opened.__aenter__()  # and nobody leaves it
        await anext(run)

    in_loop(main())
    assert diary == ["worker cleaned up"]


def test_nothing_is_left_behind() -> None:
    def descriptors() -> int:
        folder = Path("/proc/self/fd")
        return len(list(folder.iterdir())) if folder.exists() else 0

    for run in LOOPS.values():
        run(aio.Runner(counting()).run())
        before = descriptors()
        for _ in range(20):
            run(aio.Runner(counting()).run())
        assert descriptors() <= before
    assert guest.open_guests() == 0


def test_loops_in_several_threads_have_guests_of_their_own() -> None:
    results: list[str] = []

    def work() -> None:
        results.append(asyncio.run(aio.Runner(counting()).run()).text)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["counter 2"] * 8


def test_a_second_run_of_one_loop_works_as_the_first() -> None:
    with asyncio.Runner() as runner:
        for _ in range(3):
            assert runner.run(aio.Runner(counting()).run()).text == "counter 2"


# `runtime` and `lifespan`.


def test_runtime_ends_the_guest_with_its_block(in_loop: InLoop) -> None:
    async def main() -> None:
        tasks = len(asyncio.all_tasks())
        async with aio.runtime():
            await aio.Runner(counting()).run()
            assert len(asyncio.all_tasks()) == tasks + 1
        assert len(asyncio.all_tasks()) == tasks

    in_loop(main())


def test_the_outermost_runtime_counts(in_loop: InLoop) -> None:
    async def main() -> None:
        async with aio.runtime():
            async with aio.runtime():
                pass
            assert (await aio.Runner(counting()).run()).text == "counter 2"

    in_loop(main())


def test_after_a_runtime_there_may_be_another(in_loop: InLoop) -> None:
    async def main() -> None:
        for _ in range(3):
            async with aio.runtime():
                await aio.Runner(counting()).run()
        assert (await aio.Runner(counting()).run()).text == "counter 2"

    in_loop(main())


def test_a_run_that_is_open_when_the_runtime_ends_is_cancelled_and_joined(
    in_loop: InLoop,
) -> None:
    async def main() -> None:
        diary: Diary = []
        opened = aio.Runner(cleaning_up("worker", diary)).open()
        async with aio.runtime():
            run = await opened.__aenter__()
            await anext(run)
        assert diary == ["worker cleaned up"]
        with pytest.raises(StopAsyncIteration):
            await anext(run)
        await opened.__aexit__(None, None, None)
        assert run.result.status == "cancelled"

    in_loop(main())


def test_the_end_may_be_taken_by_the_reader_while_the_trio_side_waits_for_it(
    in_loop: InLoop,
) -> None:
    """The reader runs the ticks itself: it sees the end before the task that leaves the run."""

    async def main() -> None:
        diary: Diary = []
        async with aio.Runner(cleaning_up("worker", diary)).open() as run:
            assert (await anext(run)).text == "started"
            guest = await Guest.here()
            guest.cancel("shut down")
            for _ in range(40):
                guest.turn()
                if core_of(run).stream.is_readable:
                    break
                await asyncio.sleep(0)
            with pytest.raises(StopAsyncIteration):
                await anext(run)
        assert diary == ["worker cleaned up"]

    in_loop(main())


def test_a_read_that_waits_when_the_runtime_ends_is_over(in_loop: InLoop) -> None:
    async def main() -> None:
        diary: Diary = []
        ready = asyncio.Event()

        async def read() -> list[str]:
            async with aio.Runner(cleaning_up("worker", diary)).open() as run:
                await anext(run)
                ready.set()
                return [event.text async for event in run]

        async with aio.runtime():
            task = asyncio.create_task(read())
            await ready.wait()
            await asyncio.sleep(0)
        assert await task == []

    in_loop(main())


def test_lifespan_is_a_runtime(in_loop: InLoop) -> None:
    async def main() -> None:
        async with aio.lifespan(object()):
            assert (await aio.Runner(counting()).run()).text == "counter 2"
        assert len(asyncio.all_tasks()) == 1

    in_loop(main())


def test_nothing_starts_in_a_loop_that_has_cancelled_its_tasks(in_loop: InLoop) -> None:
    seen: list[str] = []

    async def late() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(20):
                await asyncio.sleep(0)
            try:
                await aio.Runner(counting()).run()
            except HostError as error:
                seen.append(str(error))
            async with aio.runtime():
                seen.append((await aio.Runner(counting()).run()).text)

    async def main() -> None:
        await aio.Runner(counting()).run()
        task = asyncio.create_task(late())
        await asyncio.sleep(0)
        assert not task.done()

    in_loop(main())
    assert "has cancelled its tasks" in seen[0]
    assert seen[1] == "counter 2"


# Its speed and its manners.


def test_a_reader_runs_a_bounded_number_of_ticks_between_two_turns_of_the_loop(
    in_loop: InLoop,
) -> None:
    async def main() -> None:
        host = await Guest.here()
        is_spinning = asyncio.Event()

        async def spin() -> None:
            is_spinning.set()
            while True:
                await trio.lowlevel.checkpoint()

        host.start(spin, name="spinning")
        await is_spinning.wait()  # asleep, it wakes up in its thread
        assert sum(host.turn() for _ in range(MAX_TURNS * 2)) <= MAX_TURNS
        await asyncio.sleep(0)
        assert host.turn()

    in_loop(main())


def test_an_idle_guest_leaves_the_loop_alone(in_loop: InLoop) -> None:
    async def main() -> None:
        host = await Guest.here()
        for _ in range(100):
            await asyncio.sleep(0)
        assert not host.turn(), "it is still awake"
        assert (await aio.Runner(counting()).run()).text == "counter 2"

    in_loop(main())


# Interrupts.

_PROGRAM = """
import asyncio, sys
import trio
from parallel_agent import agent, aio

@agent
async def worker(ctx):
    try:
        yield "started"
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(0)
        print("cleaned up", flush=True)

async def main():
    async with aio.Runner(worker).open() as run:
        async for event in run:
            print(event.text, flush=True)

{start}
"""


@pytest.mark.parametrize(
    "start",
    [
        "asyncio.run(main())",
        "import uvloop; uvloop.run(main())",
        # Before Python 3.11 programs were started like this; nothing handles Ctrl-C then but trio.
        "asyncio.new_event_loop().run_until_complete(main())",
    ],
    ids=["asyncio.run", "uvloop.run", "run_until_complete"],
)
def test_ctrl_c_lets_agents_clean_up(start: str) -> None:
    program = textwrap.dedent(_PROGRAM).format(start=start)
    process = subprocess.Popen(  # noqa: S603  # a program of ours
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "cleaned up\n"
        assert process.stderr.read().rstrip().endswith("KeyboardInterrupt")


OPTIONS = ("-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function")


def test_it_works_under_pytest_asyncio(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent(
            """
            import pytest
            from parallel_agent import agent, aio

            @agent
            async def hello(ctx):
                yield "hello"

            @pytest.mark.asyncio
            @pytest.mark.parametrize("time", [1, 2])
            async def test_a_tree(time):
                assert (await aio.Runner(hello).run()).text == "hello"
                async with aio.Runner(hello).open() as run:
                    assert [event.text async for event in run] == ["hello"]
            """
        )
    )
    done = subprocess.run(  # noqa: S603  # a program of ours
        [sys.executable, "-m", "pytest", "-q", "-W", "error", *OPTIONS, tmp_path],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
