"""Runs that a real SIGINT interrupts, one after another; a process that ``test_interrupts`` starts.

Usage: ``python -m tests.kernel.interrupted MODE FIRST COUNT [unprotected]``. Everything about a
run (its tree, its service, the moment of the signal) follows from its number. Prints one line of
JSON for each: how it ended, and what was wrong with it, if anything was.

The moment is the n-th call of a function (``call``), the n-th step of a trio task (``step``), the
n-th event delivered (``event``), or whatever runs when another thread has sent the signal
(``thread``). Time is virtual; nothing sleeps.
"""

from __future__ import annotations

import inspect
import json
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType

import attrs
import trio
from trio.testing import MockClock

if __name__ == "__main__" and "unprotected" in sys.argv:
    # The known-bad case: what the laws say went wrong before the kernel was protected.
    trio.lowlevel.enable_ki_protection = lambda function: function

from parallel_agent import Agent, Event, InvocationContext, ParallelAgent, Runner, agent
from session import InMemorySessionService
from tests.kernel.scripted import BatchingService, SlowService, Yields, check_log, check_run, stored

MANY = 20_000

MODES = ("call", "step", "event", "thread")


@attrs.define
class Trial:
    """One run: what was delivered, how it ended, what was wrong."""

    number: int
    mode: str
    ended: str = "completed"
    wrong: str = ""
    delivered: list[int] = attrs.field(factory=list)
    calls: int = 0
    steps: int = 0
    hook: object = None


@trio.lowlevel.enable_ki_protection
def _start(nursery: trio.Nursery, ctx: InvocationContext, text: str) -> None:
    # trio's `start_soon` is not: a signal inside it would leave a task that never runs.
    nursery.start_soon(ctx.emit, text)


def _leaf(name: str, draw: random.Random) -> Agent:  # noqa: C901  # five shapes, side by side
    kind = draw.choice(["plain", "tidy", "background", "function", "timeout"])
    count = draw.randint(1, 5)
    pause = draw.choice([0, 0, 0.5, 1])

    async def plain(ctx: InvocationContext) -> Yields:
        for index in range(count):
            ctx.state[f"{name}_{index}"] = index
            yield f"{name}{index}"
            if pause:
                await trio.sleep(pause)

    async def tidy(ctx: InvocationContext) -> Yields:
        try:
            for index in range(count):
                ctx.state[f"{name}_{index}"] = index
                yield f"{name}{index}"
        finally:
            with trio.CancelScope(shield=True):
                await ctx.emit("tidied")

    async def background(ctx: InvocationContext) -> Yields:
        async with trio.open_nursery() as nursery:
            for index in range(count):
                _start(nursery, ctx, f"beside {index}")
            yield f"{name}0"

    async def function(ctx: InvocationContext) -> dict[str, int]:
        await trio.sleep(pause)
        return {"count": count}

    async def timeout(ctx: InvocationContext) -> Yields:
        for index in range(count):
            with trio.move_on_after(0.25):
                yield f"perhaps {index}"

    shapes: dict[str, Callable[[InvocationContext], object]] = {
        "plain": plain,
        "tidy": tidy,
        "background": background,
        "function": function,
        "timeout": timeout,
    }
    return agent(shapes[kind], name=name)


def _tree(draw: random.Random) -> Agent:
    """Two nested parallels, as the laws ask for."""
    inner = [_leaf(f"i{index}", draw) for index in range(draw.randint(1, 4))]
    outer = [_leaf(f"o{index}", draw) for index in range(draw.randint(0, 3))]
    return ParallelAgent("outer", [ParallelAgent("inner", inner), *outer])


def _service(draw: random.Random) -> InMemorySessionService:
    kinds: list[type[InMemorySessionService]]
    kinds = [InMemorySessionService, SlowService, BatchingService]
    return draw.choice(kinds)()


_SUSPENDABLE = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def _interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


class _Steps(trio.abc.Instrument):
    """Counts steps of tasks; and ends the process if there are none for long: the run hangs."""

    def __init__(self, trial: Trial, moment: int) -> None:
        self.trial = trial
        self.moment = moment
        self.idle = 0

    def before_task_step(self, _task: trio.lowlevel.Task) -> None:
        self.idle = 0
        self.trial.steps += 1
        if self.trial.mode == "step" and self.trial.steps == self.moment:
            _interrupt()

    def before_io_wait(self, _timeout: float) -> None:
        # A clock that jumps never waits: with nothing to do and no deadline it spins.
        self.idle += 1
        if self.idle == MANY:
            self.trial.ended = self.trial.wrong = "hangs"
            report(self.trial, signalled=self.moment > 0)
            sys.stdout.flush()
            os._exit(1)


def _count_calls(trial: Trial, moment: int) -> Callable[[FrameType, str, object], None]:
    def note(frame: FrameType, what: str, _argument: object) -> None:
        # Where Python itself looks for signals: at the start of a function, after a call of a
        # built-in one; but never when an `await` is resumed, which is a "call" here.
        if what == "c_return" or (what == "call" and not frame.f_code.co_flags & _SUSPENDABLE):
            trial.calls += 1
            if trial.calls == moment:
                sys.setprofile(None)
                _interrupt()

    return note


async def _main(runner: Runner, trial: Trial, moment: int, *, pause: float) -> None:
    if trial.mode == "call":
        # Python forgets to hold on to a hook that takes itself out, and crashes.
        trial.hook = hook = _count_calls(trial, moment)
        sys.setprofile(hook)
    async with runner.open("hi", session_id="s") as run:
        async for event in run:
            if event.seq is not None:
                trial.delivered.append(event.seq)
            if trial.mode == "event" and len(trial.delivered) == moment:
                _interrupt()
            if pause:
                await trio.sleep(pause)
    sys.setprofile(None)


def _run(trial: Trial, moment: int) -> None:
    """Run the trial's tree, with a signal at ``moment`` (0: none); note what is wrong."""
    draw = random.Random(trial.number)  # noqa: S311  # no secret
    # trio's scheduler draws from a generator of its own.
    trio._core._run._r.seed(trial.number)
    service, tree, pause = _service(draw), _tree(draw), draw.choice([0, 0, 0.3])
    runner = Runner(tree, session_service=service)
    # Not while nothing runs that could be interrupted: the thread waits for this.
    spin = threading.Event()
    thread = threading.Thread(target=_from_a_thread, args=(spin, moment), daemon=True)

    async def main() -> None:
        spin.set()
        await _main(runner, trial, moment, pause=pause)

    try:
        if trial.mode == "thread" and moment:
            thread.start()
        try:
            clock = MockClock(autojump_threshold=0)
            trio.run(main, clock=clock, instruments=[_Steps(trial, moment)])
        finally:
            sys.setprofile(None)
            if thread.ident is not None:
                thread.join()
    except KeyboardInterrupt:
        trial.ended = "interrupted"
    except BaseException as exc:  # noqa: BLE001  # whatever else comes out is wrong
        trial.ended = type(exc).__name__
        trial.wrong = "".join(traceback.format_exception(exc))
        return
    try:
        trio.run(_check, runner, trial)
    except Exception as exc:  # noqa: BLE001  # as above
        trial.wrong = "".join(traceback.format_exception(exc))


def _from_a_thread(spin: threading.Event, moment: int) -> None:
    spin.wait()
    for _ in range(moment):
        pass
    _interrupt()


@agent
async def next_run(ctx: InvocationContext) -> str:
    """Say that the session serves another run."""
    return "served"


async def _check(runner: Runner, trial: Trial) -> None:
    """Check the log of an interrupted run, and that its session serves the next one."""
    service = runner.session_service
    session = await service.get(app_name=runner.app_name, user_id="user", session_id="s")
    if session is None:  # interrupted before it was created
        return
    check_log(session)
    # The user's message is number 1; what was delivered follows, without a gap.
    if trial.delivered != list(range(2, 2 + len(trial.delivered))):
        message = f"delivered {trial.delivered}"
        raise AssertionError(message)
    _check_branches(session.events)
    after = Runner(next_run, app_name=runner.app_name, session_service=service)
    async with after.open(session_id="s") as run:
        async for _ in run:
            pass
    await check_run(after, run)
    last = (await stored(after, run)).events[-1]
    if (last.text, last.seq) != ("served", session.last_seq + 1):
        message = f"the next run recorded {last!r} after {session.last_seq}"
        raise AssertionError(message)


def _check_branches(events: list[Event]) -> None:
    """Check that a leaf's numbered events are the first of those it would emit, in order."""
    for author in {event.author for event in events} - {"user", "inner", "outer"}:
        steps = [
            event.text
            for event in events
            if event.author == author and event.text.startswith(author)
        ]
        if steps != [f"{author}{index}" for index in range(len(steps))]:
            message = f"{author} recorded {steps}"
            raise AssertionError(message)


def main() -> None:
    """Run the trials that the command line asks for."""
    mode, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    for number in range(first, first + count):
        quiet = Trial(number, mode)
        _run(quiet, 0)
        draw = random.Random(f"{mode} {number}")  # noqa: S311  # no secret
        most = {
            "call": quiet.calls,
            "step": quiet.steps,
            "event": len(quiet.delivered),
            "thread": 60_000,
        }[mode]
        trial = Trial(number, mode)
        _run(trial, draw.randint(1, max(1, most)))
        report(quiet, signalled=False)
        report(trial, signalled=True)
        if trial.wrong and "unprotected" in sys.argv:
            return  # one is enough to show that the checks see it


def report(trial: Trial, *, signalled: bool) -> None:
    """Print how a trial ended."""
    line = {"number": trial.number, "ended": trial.ended, "wrong": trial.wrong}
    sys.stdout.write(json.dumps({**line, "signal": signalled}) + "\n")


if __name__ == "__main__":
    main()
