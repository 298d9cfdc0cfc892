"""Which run to go on with, and what it waits for: read before anything is changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs

from parallel_agent.cli.answers import Answers, value_of
from parallel_agent.cli.describe import time_text
from parallel_agent.cli.store import NotStartedError
from parallel_agent.invocation import RunConfig
from parallel_agent.observe.harmless import one_line
from parallel_agent.past import Asked, Past
from parallel_agent.post import listed
from session.event import Event
from session.lease import UnfinishedRun
from session.service import SessionService

__all__ = ["Resuming", "Waiting", "choose", "waiting"]

_PAGE: Final = 1_000
_LISTED: Final = 20


@attrs.frozen
class Resuming:
    """What a command says of the run that it wants to go on with.

    Attributes:
        session_id: its session; None is the only one there is.
        user_id: whose; None is anybody's.
        request: a question that must be open, by any of its names.
    """

    session_id: str | None = None
    user_id: str | None = None
    request: str | None = None


@attrs.frozen
class Waiting:
    """A run that can go on: how it was begun, what it has asked, and nobody has answered."""

    config: RunConfig
    asked: tuple[Asked, ...]

    @property
    def ids(self) -> list[str]:
        """The ids of the questions."""
        return [request.id for one in self.asked if (request := one.event.request) is not None]

    def check(self, name: str) -> None:
        """Refuse a name that no question has.

        Raises:
            NotStartedError: it has none.
        """
        if not any(name in _names(one) for one in self.asked):
            ids = [repr(one_line(full.partition(":")[2])) for full in self.ids]
            message = (
                f"no open question is called {one_line(name)!r} (open: {listed(ids) or 'none'})"
            )
            raise NotStartedError(message)

    def answered_by(self, answers: Answers) -> dict[str, Any]:
        """Take the answers that were given for its questions; return them by the questions' ids."""
        responses = dict[str, Any]()
        for one in self.asked:
            request = one.event.request
            found = None if request is None else answers.take(_names(one))
            if request is not None and found is not None:
                responses[request.id] = value_of(found[1])
        return responses


def _names(one: Asked) -> tuple[str, ...]:
    """What `Runner.reopen` knows a question by."""
    request = one.event.request
    full = "" if request is None else request.id
    return full, full.partition(":")[2], one.path, one.event.author


async def choose(service: SessionService, app_name: str, wanted: Resuming) -> UnfinishedRun:
    """Return the run that is wanted: the only one like that, of those that no process is at.

    If processes are at all of them, the only one there is; opening it says who.

    Raises:
        NotStartedError: there is none, or there are several; the message lists them.
        StoreError: the database failed.
    """
    runs = await service.unfinished(app_name=app_name, user_id=wanted.user_id)
    fitting = [run for run in runs if wanted.session_id in (None, run.key.session_id)]
    idle = [run for run in fitting if run.status != "running"] or fitting
    match idle:
        case [run]:
            return run
        case []:
            where = (
                "" if wanted.session_id is None else f" in session {one_line(wanted.session_id)}"
            )
            who = "" if wanted.user_id is None else f" of user {one_line(wanted.user_id)}"
            message = (
                f"there is nothing to resume: application {one_line(app_name)} has no unfinished "
                f"run{who}{where}"
            )
            raise NotStartedError(message + (f". There are:{_list(runs)}" if runs else ""))
        case _:
            message = f"there are several unfinished runs. Say which one to resume:{_list(idle)}"
            raise NotStartedError(message)


def _list(runs: Sequence[UnfinishedRun]) -> str:
    lines = [
        f"\n  --session {one_line(run.key.session_id)} --user {one_line(run.key.user_id)}"
        f"   {run.status}, {time_text(run.last_update_time)}"
        for run in runs[:_LISTED]
    ]
    if len(runs) > _LISTED:
        lines.append(f"\n  and {len(runs) - _LISTED:,} more: parallel-agent sessions list")
    return "".join(lines)


async def waiting(service: SessionService, run: UnfinishedRun) -> Waiting:
    """Read what a run has recorded; return what is to be known before it goes on.

    Raises:
        StoreError: the database failed.
    """
    past = Past(await _events(service, run))
    asked = tuple(one for one in past.requests.values() if one.answer is None)
    recorded: dict[str, Any] = {}
    if past.start is not None:
        recorded = dict((past.start.journal or {}).get("config", {}))
    return Waiting(RunConfig(**recorded), asked)


async def _events(service: SessionService, run: UnfinishedRun) -> list[Event]:
    """Read the log backwards, until the run's beginning is there."""
    key, newest = run.key, _PAGE
    while True:
        session = await service.get(
            app_name=key.app_name,
            user_id=key.user_id,
            session_id=key.session_id,
            num_recent_events=newest,
        )
        events = [] if session is None else session.events
        if len(events) < newest or events[0].invocation_id != run.run_id:
            return [event for event in events if event.invocation_id == run.run_id]
        newest *= 2
