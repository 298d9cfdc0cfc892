"""What `test_chaos` starts: ``python -m tests.session.database.chaos URL FOLDER SEED STRIKES``.

Workers, which start runs and resume those of others, and a supervisor, which kills and stops them
at drawn moments and replaces the killed. What they saw goes into files in FOLDER, one for each
process and kind, a line of JSON each: a process that is killed has written the others whole.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import trio

from parallel_agent import (
    Agent,
    EffectUnknownError,
    InvocationContext,
    NothingToResumeError,
    ParallelAgent,
    Runner,
    agent,
)
from session import Codec, Event, Lease, LeaseLostError, SessionBusyError, SessionKey
from session.database import DatabaseSessionService
from tests.session.database.workers import fork

APP: Final = "chaos"
USER: Final = "user"
SESSIONS: Final = ("s0", "s1", "s2")
ROOT_AGENT: Final = "both"
LEAVES: Final = ("a", "b")
EVENTS: Final = 4
WORKERS: Final = 3

LEASE: Final = 0.3
PAUSE: Final = 0.01
PATIENCE: Final = 60
STOP: Final = "stop"

CODEC: Final = Codec()


class Notes:
    """What this process writes down, beside the database."""

    def __init__(self, folder: Path) -> None:
        """Make files when there is something to write."""
        self.folder: Final = folder
        self._files: dict[str, int] = {}

    def add(self, kind: str, *lines: object) -> None:
        """Write them in one go."""
        if kind not in self._files:
            path = self.folder / f"{kind}.{os.getpid()}"
            self._files[kind] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(self._files[kind], "".join(f"{json.dumps(line)}\n" for line in lines).encode())


def noted(folder: Path, kind: str) -> list[Any]:
    """Return what all processes have written of a kind. A line that was cut off is left out."""
    return [
        json.loads(line)
        for file in sorted(folder.glob(f"{kind}.*"))
        for line in file.read_text().splitlines(keepends=True)
        if line.endswith("\n")
    ]


class Noting(DatabaseSessionService):
    """A service that notes each append that it has acknowledged."""

    def __init__(self, url: str, notes: Notes) -> None:
        """See the class."""
        super().__init__(url, durability="normal", lease_seconds=LEASE)
        self._notes = notes

    async def append(
        self,
        key: SessionKey,
        events: Sequence[Event],
        *,
        expected_seq: int,
        lease: Lease | None = None,
    ) -> None:
        """Append, and note: session, token, number, content."""
        await super().append(key, events, expected_seq=expected_seq, lease=lease)
        token = None if lease is None else lease.token
        self._notes.add(
            "append",
            *([key.session_id, token, event.seq, CODEC.dumps(event)] for event in events),
        )


def tree(notes: Notes) -> ParallelAgent:
    """Two leaves that say where they are, count together, and do something outside, once each."""

    def leaf(name: str) -> Agent:
        @agent(name=name)
        async def work(ctx: InvocationContext) -> AsyncIterator[str]:
            run = ctx.invocation_id
            for number in range(ctx.restored or 0, EVENTS):
                await trio.sleep(PAUSE)
                ctx.state[name] = [run, number]
                ctx.state.contribute("count", 1)
                yield f"{name}{number}"
                if number == EVENTS // 2:
                    await ctx.checkpoint(number + 1)

            async def effect() -> None:
                notes.add("effect", [run, name])
                await trio.sleep(PAUSE)  # for the killer

            try:
                await ctx.once("effect", effect)
            except EffectUnknownError:
                notes.add("unknown", [run, name])
                await ctx.once("effect", effect, on_unknown="retry")

        return work

    return ParallelAgent(ROOT_AGENT, [leaf(name) for name in LEAVES])


def make_runner(service: Noting, notes: Notes) -> Runner:
    """Return the runner that every worker has."""
    return Runner(
        tree(notes),
        app_name=APP,
        session_service=service,
        resumable=True,
        reducers={"count": "add"},
    )


async def work(url: str, folder: Path) -> None:
    """Resume what is unfinished, else start a run; in the end, go when all have ended."""
    notes, random = Notes(folder), Random(os.getpid())  # noqa: S311  # no secret
    async with Noting(url, notes) as service:
        runner = make_runner(service, notes)
        supervisor = os.getppid()
        while os.getppid() == supervisor:  # without it, nobody would ever end this
            runs = await runner.unfinished()
            idle = [run for run in runs if run.status != "running"]
            with suppress(SessionBusyError, NothingToResumeError, LeaseLostError):
                if idle:
                    run = random.choice(idle)
                    await runner.resume(run.key.session_id, invocation_id=run.run_id)
                elif not (folder / STOP).exists():
                    await start(runner, random.choice(SESSIONS), folder)
                elif not runs:
                    return
            await trio.sleep(PAUSE)


async def start(runner: Runner, session_id: str, folder: Path) -> None:
    """Start a run, if the session has none.

    A new run ends an unfinished one for good. So nobody else may start one between the look and
    the beginning, however long that takes a process that is stopped in between.
    """
    async with AsyncExitStack() as stack:
        with alone(folder / f"{session_id}.lock") as is_mine:
            if not is_mine or session_id in [
                run.key.session_id for run in await runner.unfinished()
            ]:
                return
            run = await stack.enter_async_context(runner.open("go", session_id=session_id))
        await run.collect()


@contextmanager
def alone(file: Path) -> Iterator[bool]:
    """Be the only process in this block; or find that another is. The lock dies with its owner."""
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


class Supervisor:
    """Keeps some workers at it, whatever it does to them."""

    def __init__(self, url: str, folder: Path, random: Random) -> None:
        """Start nothing yet."""
        self._task = partial(trio.run, work, url, folder)
        self._random = random
        self._workers: list[int] = []
        self._asleep: dict[int, float] = {}
        self.killed = self.stopped = 0
        self.failed: list[int] = []

    def disturb(self, strikes: int) -> None:
        """Kill and stop workers so often; no more than one lies still at a time."""
        random = self._random
        self._workers = [fork(self._task) for _ in range(WORKERS)]
        for _ in range(strikes):
            time.sleep(random.uniform(0.01, 0.15))
            self._wake(time.monotonic())
            self._replace()
            victim = random.choice(self._workers)
            if self._asleep or random.random() < 0.6:
                os.kill(victim, signal.SIGKILL)
                self._asleep.pop(victim, None)
                os.waitpid(victim, 0)
                self._workers[self._workers.index(victim)] = fork(self._task)
                self.killed += 1
            else:
                os.kill(victim, signal.SIGSTOP)
                self._asleep[victim] = time.monotonic() + random.uniform(0.5, 3) * LEASE
                self.stopped += 1

    def _replace(self) -> None:
        """Note who has ended by himself, which nobody should."""
        for place, worker in enumerate(self._workers):
            ended, status = os.waitpid(worker, os.WNOHANG)
            if ended:
                self.failed.append(status)
                self._workers[place] = fork(self._task)

    def _wake(self, now: float) -> None:
        for worker, end in [*self._asleep.items()]:
            if end <= now:
                os.kill(worker, signal.SIGCONT)
                del self._asleep[worker]

    def finish(self, folder: Path) -> None:
        """Wait until the workers have brought everything to its end, but not for ever."""
        self._wake(float("inf"))
        end = time.monotonic() + PATIENCE
        # Something must have happened, however slow the machine is.
        while not noted(folder, "effect") and time.monotonic() < end:
            time.sleep(PAUSE)
        (folder / STOP).touch()
        while self._workers and time.monotonic() < end:
            worker = self._workers[-1]
            ended, status = os.waitpid(worker, os.WNOHANG)
            if ended:
                self._workers.pop()
                if status:
                    self.failed.append(status)
            else:
                time.sleep(PAUSE)

    def end(self) -> None:
        """Leave nobody behind."""
        for worker in self._workers:
            os.kill(worker, signal.SIGKILL)
            self.failed.append(os.waitpid(worker, 0)[1])


def main(url: str, folder: str, seed: str, strikes: str) -> None:
    """Do as the module says; print how often it struck, and how workers ended of themselves."""
    supervisor = Supervisor(url, Path(folder), Random(int(seed)))  # noqa: S311  # no secret
    try:
        supervisor.disturb(int(strikes))
        supervisor.finish(Path(folder))
    finally:
        supervisor.end()
    told = {name: getattr(supervisor, name) for name in ("killed", "stopped", "failed")}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
