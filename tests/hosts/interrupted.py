"""Runs of the sync host that a real SIGINT interrupts; a process that ``test_sync`` starts.

Usage: ``python -m tests.hosts.interrupted cases``; or ``... calls FIRST COUNT``: the signal of each
trial comes at the n-th call of a function by the host in the main thread, n drawn from the trial's
number; or ``... leaving [unprotected]``: it comes at the very beginning of leaving a block. Prints
lines of JSON: what has happened; for a trial how it ended, and what was wrong with it, if anything
was.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

import attrs
import trio

from parallel_agent import Agent, InvocationContext, ParallelAgent, agent, sync
from parallel_agent.sync.interrupts import Interrupts
from session import InMemorySessionService, fold

LEAVING = -1


def _hold_nothing(_interrupts: Interrupts) -> None:
    """Be the known-bad case: leave Ctrl-C to Python."""


if __name__ == "__main__" and "unprotected" in sys.argv:
    Interrupts.hold = _hold_nothing  # type: ignore[assignment, method-assign]  # on purpose


@attrs.define
class Trial:
    """One run: what was delivered, how it ended, what was wrong."""

    number: int
    ended: str = "completed"
    wrong: str = ""
    delivered: list[int | None] = attrs.field(factory=list)
    calls: int = 0
    hook: object = None


def interrupt() -> None:
    """Press Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def press() -> None:
    """Press Ctrl-C, from nobody's thread: not while an agent is about to do something."""
    threading.Timer(0.01, interrupt).start()


def left() -> list[str]:
    """The threads that are ours and still there."""
    return [one.name for one in threading.enumerate() if one.name.startswith("parallel_agent")]


def tree(draw: random.Random) -> Agent:
    """Two to four branches, some of which say something in cleaning up."""

    def leaf(name: str) -> Agent:
        tidies, count = draw.random() < 0.5, draw.randint(1, 3)

        async def run(ctx: InvocationContext) -> Any:
            try:
                for index in range(count):
                    yield f"{index}"
                    await trio.lowlevel.checkpoint()
            finally:
                if tidies:
                    with trio.CancelScope(shield=True):
                        await ctx.emit("tidied")

        return agent(run, name=name)

    return ParallelAgent("fan", [leaf(name) for name in "abcd"[: draw.randint(2, 4)]])


def is_ours(frame: FrameType | None) -> bool:
    """Whether it is in the sync host, or in what that calls."""
    while frame is not None:
        if f"{os.sep}sync{os.sep}" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def is_leaving(frame: FrameType, what: str) -> bool:
    """Whether it is what the end of a block calls, and has done nothing yet."""
    return (
        what == "call"
        and frame.f_code.co_name == "__exit__"
        and "self" in frame.f_locals
        and (isinstance(frame.f_locals["self"], sync.OpenRun))
    )


def _counted(trial: Trial, moment: int) -> Callable[[FrameType, str, object], None]:
    def note(frame: FrameType, what: str, _argument: object) -> None:
        if what in {"call", "c_return"} and is_ours(frame):
            trial.calls += 1
            if trial.calls == moment or (moment == LEAVING and is_leaving(frame, what)):
                sys.setprofile(None)
                interrupt()

    return note


def perform(trial: Trial, moment: int) -> None:
    """Run the trial's tree, with a signal at ``moment`` (0: none); note what is wrong."""
    runner = sync.Runner(tree(random.Random(trial.number)))  # noqa: S311  # no secret
    try:
        # Python forgets to hold on to a hook that takes itself out, and crashes.
        trial.hook = hook = _counted(trial, moment)
        sys.setprofile(hook)
        try:
            with runner.open("hi", session_id="s") as run:
                for event in run:
                    trial.delivered.append(event.seq)
        finally:
            sys.setprofile(None)
    except KeyboardInterrupt:
        trial.ended = "interrupted"
    try:
        check(runner, trial)
    except BaseException as exc:  # noqa: BLE001  # whatever comes out is wrong
        trial.wrong = "".join(traceback.format_exception(exc))


def check(runner: sync.Runner, trial: Trial) -> None:
    """Assert that nothing is left, that the log is whole, and that another run works."""
    assert left() == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    async def stored() -> Any:
        return await runner.session_service.get(app_name="fan", user_id="user", session_id="s")

    session = trio.run(stored)
    if session is None:  # interrupted before it was created
        return
    assert [event.seq for event in session.events] == list(range(1, len(session.events) + 1))
    assert fold({}, session.events) == session.state
    # The user's message is number 1; what was delivered follows, without a gap.
    assert trial.delivered == list(range(2, 2 + len(trial.delivered)))
    assert runner.run("again", session_id="s").status == "completed"


def run_trials(first: int, count: int) -> None:
    """Run the trials; report each."""
    for number in range(first, first + count):
        quiet = Trial(number)
        perform(quiet, 0)
        trial = Trial(number)
        perform(trial, random.Random(number).randint(1, quiet.calls))  # noqa: S311  # no secret
        for one, signalled in ((quiet, False), (trial, True)):
            say(number=number, ended=one.ended, wrong=one.wrong, signal=signalled)


def say(**what: object) -> None:
    """Print a line."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


# ---------------------------------------------------------------------------------- single cases


@agent
async def stubborn(ctx: InvocationContext) -> Any:
    """Wait for ever; take Ctrl-C, twice more, while it cleans up."""
    try:
        yield "started"
        press()
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            for _ in range(2):
                press()
                await trio.sleep(0.02)
        say(said="cleaned up")


def _opened() -> None:
    with sync.open_sync(stubborn) as run:
        try:
            for event in run:
                say(said=event.text)
        except KeyboardInterrupt:
            say(said="interrupted", status=run.status)
            raise


def _whole() -> None:
    sync.run_sync(stubborn)


def _in_a_loop() -> None:
    async def main() -> None:
        sync.run_sync(stubborn)

    # As in a notebook, and not under `asyncio.run`, which handles Ctrl-C itself.
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def _nested() -> None:
    with sync.open_sync(tree(random.Random(1))) as run:  # noqa: S311  # no secret
        next(run)
        sync.run_sync(stubborn)


def _caught() -> None:
    @agent
    async def slow(ctx: InvocationContext) -> Any:
        yield "one"
        interrupt()
        await trio.sleep(0.05)
        yield "two"

    with sync.open_sync(slow) as run:
        say(said=next(run).text)
        try:
            next(run)
        except KeyboardInterrupt:
            say(said="interrupted")
        say(said=next(run).text)


def _opening() -> None:
    class Slow(InMemorySessionService):
        async def create(self, **_options: Any) -> Any:
            interrupt()
            await trio.sleep_forever()

    with sync.open_sync(stubborn, session_service=Slow()):
        say(said="opened")


def _never_left() -> None:
    @agent
    async def endless(ctx: InvocationContext) -> Any:
        try:
            yield "started"
            await trio.sleep_forever()
        finally:
            say(said="cleaned up")

    def events() -> Any:
        with sync.open_sync(endless) as run:
            yield from run

    global kept  # noqa: PLW0603  # so that the interpreter ends before it is closed
    kept = events()
    say(said=next(kept).text)


kept: Any = None

CASES = {
    "opened": _opened,
    "whole": _whole,
    "in a loop": _in_a_loop,
    "nested": _nested,
    "caught": _caught,
    "opening": _opening,
    "never left": _never_left,  # the last: what it says comes at the end of the process
}


def main() -> None:
    """Do what the command line asks for."""
    if sys.argv[1] == "calls":
        run_trials(int(sys.argv[2]), int(sys.argv[3]))
        return
    if sys.argv[1] == "leaving":
        trial = Trial(0)
        perform(trial, LEAVING)
        say(ended=trial.ended, wrong=trial.wrong)
        return
    for name, case in CASES.items():
        say(case=name)
        try:
            case()
        except KeyboardInterrupt:
            say(said="KeyboardInterrupt", left=left())


if __name__ == "__main__":
    main()
