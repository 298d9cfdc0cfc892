"""Certifying: processes are started, killed and resumed; what they leave behind is judged."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any, Final, TypeAlias

import attrs
import trio

from parallel_agent.agent import Agent
from parallel_agent.certify.certificate import Boundary, Certificate, Trial
from parallel_agent.certify.errors import CertifyError
from parallel_agent.certify.judging import Baseline, Evidence, judge
from parallel_agent.certify.loading import reference
from parallel_agent.certify.points import NOTES, OUTPUT, read_notes
from parallel_agent.runner import Runner

__all__ = ["Progress", "certify"]

Progress: TypeAlias = Callable[[int, int, Trial], object]
"""Called after each trial: how many are done, how many there are as far as is known, and it."""

_MEMORY: Final = "/dev/shm"  # noqa: S108  # files with names of their own are made there

_NEEDED: Final = ("sqlalchemy", "alembic", "psycopg")

_LOADER: Final = "parallel_agent.certify.loading:find"

_SERVER: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); "
    "from parallel_agent.certify.server import main; main()"
)
"""Not ``-m``: this package may be on the import path of this process alone."""


async def certify(
    target: str | Callable[..., Agent | Runner],
    *,
    message: str | None = None,
    state: Mapping[str, Any] | None = None,
    responses: Mapping[str, Any] | None = None,
    check: str | Callable[[Any], object] | None = None,
    prepare: str | Callable[[], object] | None = None,
    harmless: Collection[str] = (),
    db: str = "sqlite",
    at: Sequence[int] | None = None,
    every: int = 1,
    max_boundaries: int | None = None,
    second_every: int = 5,
    workers: int = 2,
    timeout: float = 60.0,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    loader: str = _LOADER,
) -> Certificate:
    """Kill a run at each of its boundaries, resume it, and compare it with one nobody killed.

    ::

        certificate = await certify("refunds.py:tree", message="order 7", check=paid_once)
        print(certificate.text())

    A boundary is before, during and after each append to the session's log, and before and after
    what `ctx.once` does. Each run has processes of its own, which are killed by SIGKILL, a
    database of its own, and an empty working folder of its own, for what agents write to files.

    Args:
        target: ``FILE.py:NAME`` or ``package.module:NAME``, or a function at the top of a module.
            It is a tree; or makes one; or, with the parameters ``(**options)``, makes a
            `Runner` with these options and its own (reducers, a schema).
        message: what the user says.
        state: written together with it.
        responses: answers to questions, by their ids or other names.
        check: looks at the end of each run, in its folder: called with the `Result`, it raises
            what is wrong with what is outside. A function, or its name; beside the tree if it
            has no colon.
        prepare: called in the folder before each run begins, to put there what agents need.
        harmless: names of agents that do nothing outside, and may run again.
        db: ``"sqlite"``, for a temporary file; or a URL, of a database made for this.
        at: only this trial: a boundary, and others for the processes that resume.
        every: only each so many-th boundary.
        max_boundaries: so many at most, evenly spread.
        second_every: of so many resumed runs one is killed again; 0: none.
        workers: how many runs go on side by side.
        timeout: seconds that a process may take before it counts as hung.
        seed: draws second kills, and the order in which trio runs tasks.
        folder: keep databases, notes and output there; by default they are deleted.
        progress: told of each trial.
        loader: names the function that finds ``target`` in the other process.

    Cancelled, it kills its processes. Blocks; the trio run must be one with a real clock only if
    the agents' is: they run in other processes.

    Raises:
        CertifyError: there is nothing to certify: the tree cannot be found, the uninterrupted run
            hangs or fails its check, or this system cannot fork (Windows).
        ValueError: a number is out of its range.
    """
    _check_numbers(every, max_boundaries, second_every, workers, timeout)
    if not hasattr(os, "fork"):
        message = "certifying forks and kills processes, which this system cannot do: use Linux"
        raise CertifyError(message)
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        message = (
            f"only a session in a database survives its process, and {missing[0]} is not "
            "installed: pip install 'parallel-agent[sql]'"
        )
        raise CertifyError(message)
    named = target if isinstance(target, str) else reference(target, "the target")
    with _kept(folder) as place:
        plan = _Plan(
            order={
                "target": named,
                "check": _name(check, "check"),
                "prepare": _name(prepare, "prepare"),
                "loader": _LOADER if callable(target) else loader,
                "sys_path": [path or str(Path.cwd()) for path in sys.path],
                "timeout": timeout,
            },
            setup={
                "message": message,
                "state": dict(state or {}),
                "responses": dict(responses or {}),
                "seed": seed,
                "url": None if db == "sqlite" else db,
                "template": str(place / "template.db"),
            },
            folder=place,
            is_kept=folder is not None,
            harmless=frozenset(harmless),
            workers=workers,
            progress=progress,
        )
        began = trio.current_time()
        await plan.certify(at, every, max_boundaries, second_every, Random(seed))  # noqa: S311  # no secret
        return Certificate(
            target=named,
            message=message,
            status=plan.status,
            boundaries=tuple(plan.boundaries),
            trials=tuple(sorted(plan.trials, key=lambda trial: trial.kills)),
            unstable=tuple(sorted(plan.unstable)),
            checked=check is not None,
            command=_command(
                named,
                message=message,
                order=plan.order,
                db=db,
                harmless=harmless,
                state=state,
                responses=responses,
                seed=seed,
            ),
            seconds=trio.current_time() - began,
        )


def _check_numbers(
    every: int, max_boundaries: int | None, second_every: int, workers: int, timeout: float
) -> None:
    for name, value, least in (
        ("every", every, 1),
        ("max_boundaries", max_boundaries, 1),
        ("second_every", second_every, 0),
        ("workers", workers, 1),
    ):
        if value is not None and (type(value) is not int or value < least):
            message = f"{name} is a whole number from {least} on, not {value!r:.80}"
            raise ValueError(message)
    if not isinstance(timeout, int | float) or not timeout > 0:
        message = f"timeout is seconds, more than 0, not {timeout!r:.80}"
        raise ValueError(message)


def _name(function: str | Callable[..., object] | None, what: str) -> str | None:
    if function is None or isinstance(function, str):
        return function
    return reference(function, what)


@contextmanager
def _kept(folder: str | os.PathLike[str] | None) -> Generator[Path]:
    if folder is None:
        quick = _MEMORY if os.access(_MEMORY, os.W_OK) else None  # a kill loses no file there
        with tempfile.TemporaryDirectory(prefix="certify-", dir=quick) as made:
            yield Path(made).resolve()
    else:
        path = Path(folder).resolve()
        path.mkdir(parents=True, exist_ok=True)
        yield Path(tempfile.mkdtemp(prefix="certify-", dir=path))


def _command(
    target: str,
    *,
    message: str | None,
    order: Mapping[str, Any],
    db: str,
    harmless: Collection[str],
    state: Mapping[str, Any] | None,
    responses: Mapping[str, Any] | None,
    seed: int,
) -> tuple[str, ...]:
    words = ["parallel-agent", "certify", target]
    for option in ("check", "prepare"):
        if order[option] is not None:
            words += [f"--{option}", order[option]]
    for name in sorted(harmless):
        words += ["--harmless", name]
    for option, values in (("--state", state), ("--respond", responses)):
        for key, value in (values or {}).items():
            words += [option, f"{key}={json.dumps(value)}"]
    if db != "sqlite":
        words += ["--db", db]
    if seed:
        words += ["--seed", str(seed)]
    if message is not None:
        words += ["--", message] if message.startswith("-") else [message]
    return tuple(words)


@attrs.define(eq=False)
class _Plan:
    """Which trials there are, and what they have shown."""

    order: dict[str, Any]
    setup: dict[str, Any]
    folder: Path
    is_kept: bool
    harmless: frozenset[str]
    workers: int
    progress: Progress | None
    boundaries: list[Boundary] = attrs.field(factory=list[Boundary])
    trials: list[Trial] = attrs.field(factory=list[Trial])
    unstable: frozenset[str] = frozenset()
    status: str = ""
    _baseline: Baseline | None = None
    _first: Evidence | None = None
    _count: int = 0
    _waiting: deque[tuple[int, ...]] = attrs.field(factory=deque[tuple[int, ...]])
    _total: int = 0

    async def certify(
        self,
        at: Sequence[int] | None,
        every: int,
        most: int | None,
        second_every: int,
        draw: Random,
    ) -> None:
        servers = [_Server() for _ in range(self.workers)]
        try:
            async with _open_workers() as workers:
                for number, server in enumerate(servers):
                    workers.start_soon(self._start, server, number)
            await self._find_boundaries(servers)
            if at is not None:
                self._waiting = deque([tuple(at)])
            else:
                numbers = [one.at for one in self.boundaries][every - 1 :: every]
                self._waiting = deque((number,) for number in _spread(numbers, most))
            self._judge_the_run_nobody_killed()
            self._total = len(self._waiting) + len(self.trials)
            async with _open_workers() as workers:
                for server in servers:
                    workers.start_soon(self._work, server, second_every if at is None else 0, draw)
        finally:
            with trio.CancelScope(shield=True):
                for server in servers:
                    await server.kill()

    async def _start(self, server: _Server, number: int) -> None:
        # One for all: whoever is first makes it, and none goes on before all have started.
        order = {**self.order, "setup": self.setup, "makes_template": number == 0}
        await server.start(order, self.folder / f"server-{number}.txt")

    async def _find_boundaries(self, servers: Sequence[_Server]) -> None:
        """Let two runs go on to their end, on one server or on two."""
        runs: list[Evidence] = []

        async def run(server: _Server) -> None:
            runs.append(await self._try(server, ()))

        async with _open_workers() as workers:
            for server in servers[:2]:
                workers.start_soon(run, server)
        if len(servers) == 1:
            await run(servers[0])
        first, second = runs
        for one in runs:
            self._refuse_broken(one)
        if first.result is None or second.result is None:
            raise AssertionError
        self._baseline = Baseline.of(first.result, second.result)
        self.unstable = self._baseline.unstable
        self.status = first.result["status"]
        if first.result["error"] is not None:
            self.status += " ({kind}: {message})".format(**first.result["error"])
        self.boundaries = [point for points in first.processes() for point in points]
        self._first = first

    def _refuse_broken(self, run: Evidence) -> None:
        result, why = run.result, ""
        if run.ends[-1] != "ended" or result is None:
            why = f"the process {run.ends[-1]}"
        elif "broken" in result:
            why = f"{result['broken']['kind']}: {result['broken']['message']}"
        elif result["error"] is not None and self.order["check"] is not None:
            error = result["error"]
            why = f"it fails, and cannot be checked ({error['kind']}: {error['message']})"
        elif result["checked"] is not None:
            why = f"it fails the check: {result['checked']}"
        if why:
            message = f"the run that nobody kills does not end as it should: {why}"
            raise CertifyError(message, details=_output(Path(run.folder)))

    def _judge_the_run_nobody_killed(self) -> None:
        """Judge it, too: its log may be incomplete already."""
        if self._first is not None:
            trial = judge(
                self._first, None, harmless=self.harmless, checked=self.order["check"] is not None
            )
            if trial.verdict != "survives":
                self.trials.append(trial)

    async def _work(
        self,
        server: _Server,
        second_every: int,
        draw: Random,
    ) -> None:
        while self._waiting:
            kills = self._waiting.popleft()
            evidence = await self._try(server, kills)
            trial = judge(
                evidence,
                self._baseline,
                harmless=self.harmless,
                checked=self.order["check"] is not None,
            )
            self.trials.append(trial)
            if not self.is_kept:
                shutil.rmtree(evidence.folder, ignore_errors=True)
            is_chosen = second_every and len(kills) == 1 and kills[0] % second_every == 0
            if is_chosen and trial.verdict != "not reached" and trial.passed:
                self._waiting.append((*kills, draw.randint(1, trial.passed)))
                self._total += 1
            if self.progress is not None:
                self.progress(len(self.trials), self._total, trial)

    async def _try(self, server: _Server, kills: tuple[int, ...]) -> Evidence:
        self._count += 1
        folder = self.folder / f"{self._count:05}"
        answer = await server.ask({"folder": str(folder), "kills": kills})
        return Evidence(
            kills=kills,
            ends=tuple(answer["ends"]),
            result=answer["result"],
            notes=read_notes(folder / NOTES),
            folder=str(folder),
        )


def _spread(numbers: Sequence[int], most: int | None) -> list[int]:
    if most is None or len(numbers) <= most:
        return [*numbers]
    if most == 1:
        return [numbers[0]]
    step = (len(numbers) - 1) / (most - 1)
    return sorted({numbers[round(index * step)] for index in range(most)})


def _output(folder: Path) -> str:
    path = folder / OUTPUT
    return path.read_text("utf-8", errors="replace") if path.exists() else ""


class _Server:
    """A process that forks the others; see `parallel_agent.certify.server`."""

    def __init__(self) -> None:
        self._process: trio.Process | None = None
        self._rest = b""
        self._log: Path | None = None

    async def start(self, order: Mapping[str, Any], log: Path) -> None:
        """Start it, and have it import the tree.

        Raises:
            CertifyError: that failed.
        """
        self._log = log
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        with log.open("wb") as output:
            self._process = await trio.lowlevel.open_process(
                [sys.executable, "-c", _SERVER, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=environment,
                # All that descends from it can be killed at once; and Ctrl-C is for us.
                start_new_session=True,
            )
        said = await self.ask(order)
        if "error" in said:
            raise CertifyError(said["error"], details=said["details"])

    async def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Ask it something, and return the answer."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise AssertionError
        with suppress(trio.BrokenResourceError):  # it has died; what it said is read below
            await process.stdin.send_all(json.dumps(question).encode() + b"\n")
        while b"\n" not in self._rest:
            more = await process.stdout.receive_some()
            if not more:
                said = "" if self._log is None else self._log.read_text("utf-8", "replace")
                message = "the process that runs the tree has died"
                raise CertifyError(message, details=said)
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def kill(self) -> None:
        """End it, and all that descends from it."""
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                await stream.aclose()


@asynccontextmanager
async def _open_workers() -> AsyncGenerator[trio.Nursery, None]:
    """Open a nursery whose tasks raise nothing but `CertifyError`; the first of those is raised."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        ours = group.subgroup(CertifyError)
        if ours is None:
            raise
        first: BaseException = ours
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
