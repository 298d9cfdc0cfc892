"""One process of a trial: it begins a run, or goes on with it, until it ends or is killed.

What it leaves behind, if it is not killed: a file with the result, and what the log says.
"""

from __future__ import annotations

import json
import os
import random
import sys
import traceback
from collections import Counter
from collections.abc import Mapping, MutableSequence, Sequence
from pathlib import Path
from typing import Any, Final, cast

import attrs
import trio

from parallel_agent.certify.loading import Program
from parallel_agent.certify.points import DATABASE, NOTES, OUTPUT, RESULT, WORK, Notes, Points
from parallel_agent.certify.watched import WatchAgents, WatchedService, watch_effects
from parallel_agent.errors import EffectUnknownError, NothingToResumeError
from parallel_agent.invocation import RunConfig
from parallel_agent.lifecycle import Status
from parallel_agent.past import Past, bare
from parallel_agent.result import Result
from parallel_agent.run import OpenRun, Run
from parallel_agent.runner import Runner, RunnerOptions
from session.codec import Codec
from session.database import DatabaseSessionService
from session.event import OURS, USER, Event
from session.folder_artifacts import FolderArtifactService
from session.service import SessionService
from session.session import Session
from session.state import thaw

__all__ = ["Setup", "live", "make_template"]

_SESSION: Final = "certify"

_CODEC: Final = Codec()  # made once, before all forks

_SHORT: Final = 0.001
"""Seconds that a lease lives. Not renewed: a session is free as soon as its process is dead."""


@attrs.frozen
class Setup:
    """What all processes of all trials are given.

    Attributes:
        url: the database; None: a file in the folder of the trial.
        template: the database file that a trial begins with.
    """

    message: str | None
    state: Mapping[str, Any]
    responses: Mapping[str, Any]
    seed: int
    url: str | None
    template: str


def make_template(path: Path) -> None:
    """Make an empty database, to be copied."""
    trio.run(_make_template, path)


async def _make_template(path: Path) -> None:
    async with DatabaseSessionService(path):
        pass


def live(program: Program, setup: Setup, folder: Path, kill_at: int | None) -> None:
    """Be the process: run what is to be run, leave the result in ``folder``.

    The working folder is one of the trial's own.
    """
    _redirect_output(folder / OUTPUT)
    os.chdir(folder / WORK)
    notes = Notes(folder / NOTES)
    points = Points(notes, kill_at)
    watch_effects(points)
    random.seed(setup.seed)
    _fix_the_schedule(setup.seed)
    said: dict[str, Any]
    try:
        said = trio.run(_Life(program, setup, folder, points).main)
    except BaseException as exc:  # noqa: BLE001  # it is told, with its traceback
        traceback.print_exc()
        said = {"broken": _failure(exc)}
    sys.stdout.flush()
    sys.stderr.flush()
    unfinished = folder / f"{RESULT}.new"
    unfinished.write_text(json.dumps(said), "ascii")
    unfinished.rename(folder / RESULT)


def _redirect_output(path: Path) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for number in (1, 2):
        os.dup2(file, number)
    os.close(file)


def _fix_the_schedule(seed: int) -> None:
    """Let trio run the tasks that are ready in one order: that in which they were made.

    There is no public way. Without it the certificate is as true, and compares less. What is
    ready at one moment still depends on how long the database takes.
    """
    core = getattr(getattr(trio, "_core", None), "_run", None)
    if core is not None and hasattr(core, "_r"):
        core._r = steady = _Steady(seed)  # noqa: SLF001  # see above
        steady.oldest_first = seed % 2 == 0
        core._ALLOW_DETERMINISTIC_SCHEDULING = True  # noqa: SLF001  # see above


class _Steady(random.Random):
    """Shuffles tasks into one order: with a mere seed, it would matter how often it is asked."""

    oldest_first: bool = True

    def shuffle(self, x: MutableSequence[Any]) -> None:
        if self.oldest_first:
            x.reverse()  # they are taken from its end


@attrs.define(eq=False)
class _Life:
    program: Program
    setup: Setup
    folder: Path
    points: Points
    error: BaseException | None = None

    async def main(self) -> dict[str, Any]:
        url: str | Path = self.folder / DATABASE if self.setup.url is None else self.setup.url
        store = DatabaseSessionService(
            url,
            durability="normal",  # the machine lives on
            lease_seconds=_SHORT,
            fault_points=self.points.in_writer,
        )
        async with store:
            count = iter(range(1, 1_000_000_000))
            options: RunnerOptions = {
                "session_service": WatchedService(store, self.points),
                "artifact_service": FolderArtifactService(self.folder / "artifacts"),
                "resumable": True,
                "plugins": [WatchAgents(self.points.notes)],
                "random": random.Random(self.setup.seed),  # noqa: S311  # jitter, no secret
                "new_id": lambda: f"certify-{next(count)}",
            }
            if self.setup.url is not None:
                # The state of an application, or a user, is not to be shared with other trials.
                options["app_name"] = f"certify-{self.folder.parent.name}-{self.folder.name}"
            runner = self.program.runner(options)
            result = await self._run(runner)
            self.points.committed()
            said = await _read_back(runner, store, result)
            if self.setup.url is not None:
                await store.delete(app_name=runner.app_name, user_id=USER, session_id=_SESSION)
        error = self.error
        said["error"] = None if error is None else _failure(error)
        said["unknown"] = error is not None and _is_unknown(error)
        said["checked"] = self._check(result) if error is None else None
        return said

    def _check(self, result: Result) -> str | None:
        """Ask the user's check; return what it says against the result."""
        if self.program.check is None:
            return None
        try:
            self.program.check(result)
        except Exception as exc:  # noqa: BLE001  # whatever it raises is what it has to say
            traceback.print_exc()
            return str(exc) or type(exc).__name__
        return None

    # Running.

    async def _run(self, runner: Runner) -> Result:
        notes = self.points.notes
        if any(run.key.session_id == _SESSION for run in await runner.unfinished()):
            notes.write("process", what="resume")
            try:
                return await self._drive(runner, runner.reopen(_SESSION))
            except NothingToResumeError:
                pass  # it died before anything was recorded
        notes.write("process", what="run")
        opened = runner.open(
            self.setup.message,
            session_id=_SESSION,
            state_delta=self.setup.state or None,
            run_config=RunConfig(on_wait="suspend"),
        )
        return await self._drive(runner, opened)

    async def _drive(self, runner: Runner, opened: OpenRun) -> Result:
        run: Run | None = None
        try:
            async with opened as run:
                await self._answer(run)
                async for event in run:
                    if event.seq is not None:
                        self.points.notes.write("handed", seq=event.seq, **_identity(event))
                    await self._answer(run)
        except Exception as exc:
            if run is None:
                raise
            self.error = exc
        answers = self._answers(run)
        if run.result.status is Status.WAITING and answers:
            # What it had asked before it was killed is not asked again.
            return await self._drive(runner, runner.reopen(_SESSION, responses=answers))
        return run.result

    async def _answer(self, run: Run) -> None:
        for request_id, value in self._answers(run).items():
            await run.respond(request_id, value)

    def _answers(self, run: Run) -> dict[str, Any]:
        responses = self.setup.responses
        return {
            request.id: responses[name]
            for request in (run.pending if responses else ())
            for name in [request.id, *request.names]
            if name in responses
        }


def _is_unknown(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return any(_is_unknown(one) for one in group.exceptions)
    return isinstance(error, EffectUnknownError)


def _failure(error: BaseException) -> dict[str, str]:
    return {"kind": type(error).__name__, "message": str(error)}


# What the log says.


def _identity(event: Event) -> dict[str, str]:
    return {"path": event.path, "id": event.id, "text": event.text}


async def _read_back(runner: Runner, store: SessionService, result: Result) -> dict[str, Any]:
    session = await store.get(app_name=runner.app_name, user_id=USER, session_id=_SESSION)
    unfinished = await store.unfinished(app_name=runner.app_name)
    events = [] if session is None else session.events
    own = [event for event in events if event.invocation_id == result.invocation_id]
    void = Past(own).void
    return {
        "status": str(result.status),
        "text": result.text,
        "output": thaw(result.output),
        "outputs": _outputs(result, own),
        "state": _state(session),
        "unfinished": bool(unfinished) and result.status is not Status.WAITING,
        "events": [_shown(event) for event in own if not event.is_record and event.seq not in void],
        "log": [_identity(event) | {"seq": event.seq} for event in events],
        "records": [_record(event) for event in own if event.is_record],
    }


def _outputs(result: Result, events: Sequence[Event]) -> dict[str, Any]:
    """Return the outputs of agents; of one that ran several times, that of each.

    Which of those is the newest depends on who is faster.
    """
    ends = [event for event in events if (event.journal or {}).get("status") == "completed"]
    counts = Counter(event.author for event in ends)
    by_agent = {name: thaw(value) for name, value in result.outputs.items() if counts[name] == 1}
    return by_agent | {
        bare(event.path): thaw(event.output) for event in ends if counts[event.author] > 1
    }


def _state(session: Session | None) -> dict[str, Any]:
    return {} if session is None else {key: thaw(value) for key, value in session.state.items()}


def _record(event: Event) -> dict[str, Any]:
    journal = event.journal or {}
    return {
        "seq": event.seq,
        "path": event.path,
        "kind": journal.get("kind"),
        "status": journal.get("status"),
    }


def _shown(event: Event) -> dict[str, Any]:
    """Return what an event says, without what differs from one time to the next."""
    stored = _CODEC.encode(event)
    for name in ("id", "timestamp", "invocationId", "nodeInfo"):
        stored.pop(name, None)
    metadata: dict[str, Any] = stored.get("customMetadata", {})
    ours: dict[str, Any] = {**metadata.get(OURS, {})}
    for name in ("seq", "journal", "attempt"):
        ours.pop(name, None)
    if "outcomes" in ours:
        ours["outcomes"] = [
            {key: value for key, value in one.items() if key != "duration"}
            for one in ours["outcomes"]
        ]
    stored["customMetadata"] = {**metadata, OURS: ours}
    actions: dict[str, Any] = {**stored["actions"]}
    if "artifactDelta" in actions:  # a version more each time it is done
        actions["artifactDelta"] = sorted(actions["artifactDelta"])
    stored["actions"] = actions
    plain: dict[str, Any] = json.loads(json.dumps(stored, default=thaw))
    return {"path": bare(event.path), "event": plain}
