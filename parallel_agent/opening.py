"""How a run comes to its session: a new one, one that is there, or one whose run is to go on.

Blocks: reads and writes the session. Cancelled, or failing, it has given the session back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import attrs
import trio

from parallel_agent.claim import Claim, OnBusy
from parallel_agent.errors import NothingToResumeError, ResponseRefusedError, TreeChangedError
from parallel_agent.inputs import to_json
from parallel_agent.invocation import RunConfig
from parallel_agent.past import Asked, Past
from parallel_agent.post import listed
from parallel_agent.records import ABSENT, ranges
from parallel_agent.result import RunSetup
from parallel_agent.shape import difference
from parallel_agent.shared_state import MISSING, SharedState
from session.actions import EventActions
from session.content import Content
from session.errors import SessionExistsError, SessionNotFoundError, StoreCorruptError
from session.event import USER, Event, Origin, stamp_origin, stamp_timestamp
from session.request import response_content
from session.session import Session, SessionKey

__all__ = [
    "Opened",
    "Resumption",
    "Start",
    "open_session",
    "record",
    "reopen_session",
    "start_events",
]

_PAGE: Final = 1_000
"""How many events are read first of a run that is to go on, with those that its agents see before
it; four times as many each time after that: what was read before is read again."""


@attrs.frozen(eq=False)
class Resumption:
    """Which run is to go on, and the answers it has waited for."""

    invocation_id: str | None = None
    responses: Mapping[str, Any] = attrs.Factory(dict[str, Any])


@attrs.frozen(eq=False)
class Start:
    """What a run is opened with. ``attended``: somebody holds it, and can answer."""

    content: Content | None = None
    user_id: str = USER
    session_id: str | None = None
    state_delta: Mapping[str, Any] | None = None
    config: RunConfig | None = None
    attended: bool = True
    on_busy: OnBusy = "error"
    resumption: Resumption | None = None


@attrs.frozen(eq=False)
class Opened:
    """A session that is a run's: as it is now, and what is known of the run, if it is resumed."""

    session: Session
    invocation_id: str
    claim: Claim
    config: RunConfig
    past: Past | None = None


# A run from its beginning.


async def open_session(setup: RunSetup, start: Start, held: Claim) -> Opened:
    """Take a session for a new run; make it, if it is not there. The caller releases ``held``.

    Raises:
        SessionBusyError: another run holds it; see `Runner.open`.
    """
    config = start.config or RunConfig()
    run_id = setup.new_id()
    if start.session_id is None:
        session = await _create(setup, start)
        await _take(held, setup, start, session.key, run_id)
        return Opened(session, run_id, held, config)
    key = SessionKey(setup.app_name, start.user_id, start.session_id)
    try:
        await _take(held, setup, start, key, run_id)
    except SessionNotFoundError:
        with suppress(SessionExistsError):  # another run has made it meanwhile
            await _create(setup, start)
        await _take(held, setup, start, key, run_id)
    newest = config.num_recent_events
    found = await _get(setup, key, newest)
    if found is None:
        # Of a service that does not know whose a session is, and was not asked before.
        with suppress(SessionExistsError):
            return Opened(await _create(setup, start), run_id, held, config)
        found = await _get(setup, key, newest)
    if found is None:
        raise SessionNotFoundError(key)
    return Opened(found, run_id, held, config)


async def _take(held: Claim, setup: RunSetup, start: Start, key: SessionKey, run_id: str) -> None:
    await held.take(key, run_id, resumable=setup.shape is not None, on_busy=start.on_busy)


async def _create(setup: RunSetup, start: Start) -> Session:
    return await setup.service.create(
        app_name=setup.app_name, user_id=start.user_id, session_id=start.session_id
    )


async def _get(setup: RunSetup, key: SessionKey, newest: int | None) -> Session | None:
    return await setup.service.get(
        app_name=key.app_name,
        user_id=key.user_id,
        session_id=key.session_id,
        num_recent_events=newest,
    )


async def record(setup: RunSetup, opened: Opened, events: list[Event]) -> None:
    """Record what belongs to the start of a run, before its tree runs. All or nothing."""
    session, lease = opened.session, opened.claim.lease
    now = setup.clock()
    for event in events:
        event.seal()
        stamp_timestamp(event, now)
    written = [event.delta for event in events]  # the service drops what is temporary
    with trio.CancelScope(shield=True):
        append = setup.service.append
        if lease is None:
            await append(session.key, events, expected_seq=session.last_seq)
        else:
            await append(session.key, events, expected_seq=session.last_seq, lease=lease)
    for event, delta in zip(events, written, strict=True):
        session.apply(event)
        session.state.update({key: value for key, value in delta.items() if key not in event.delta})


def start_events(
    setup: RunSetup, opened: Opened, content: Content | None, state_delta: Mapping[str, Any] | None
) -> list[Event]:
    """Return what is recorded at the start: what the user said, and what a resumption must know."""
    events: list[Event] = []
    if content is not None or state_delta:
        message = Event(content, actions=EventActions(state_delta=dict(state_delta or {})))
        stamp_origin(message, Origin(author=USER, invocation_id=opened.invocation_id))
        events.append(message)
    if setup.shape is not None:
        note = {
            "kind": "start",
            "outline": setup.shape,
            "config": attrs.asdict(opened.config),
        }
        events.append(_note(setup, opened.invocation_id, EventActions(journal=note)))
    return events


def _note(setup: RunSetup, invocation_id: str, actions: EventActions) -> Event:
    event = Event(actions=actions)
    name = setup.tree.name
    stamp_origin(event, Origin(author=name, invocation_id=invocation_id, path=name))
    return event


# A run that goes on.


async def reopen_session(
    setup: RunSetup, start: Start, resumption: Resumption, held: Claim
) -> Opened:
    """Take a session for its unfinished run. The caller releases ``held``.

    Raises:
        NothingToResumeError: there is no unfinished run, or none of that id.
        TreeChangedError: it was a run of another tree.
        ResponseRefusedError: an answer is to no question of the run's.
        SessionBusyError: the run has not ended: some process is at it.
    """
    session_id = start.session_id or ""
    key = SessionKey(setup.app_name, start.user_id, session_id)
    runs = await setup.service.unfinished(app_name=setup.app_name, user_id=start.user_id)
    run_id = next((run.run_id for run in runs if run.key == key), None)
    if run_id is None or resumption.invocation_id not in (None, run_id):
        found = "" if run_id is None else f"; there is run {run_id!r}"
        wanted = "" if resumption.invocation_id is None else f" {resumption.invocation_id!r}"
        message = f"session {key} has no unfinished run{wanted}{found}"
        if run_id is None:
            there = await _get(setup, key, 0)
            message = f"{message}: {_why_none(there)}"
        raise NothingToResumeError(message)
    held.unfinished = "interrupted"  # whatever happens before it goes on
    await _take(held, setup, start, key, run_id)
    session, events = await _read_run(setup, key, run_id, start.config)
    if start.on_busy == "queue" and session.events[-1:] != events[-1:]:
        held.unfinished = None
        message = f"run {run_id!r} of session {key} was given up meanwhile: another run was started"
        raise NothingToResumeError(message)
    past = Past(events)
    if past.start is None:
        held.unfinished = None
        message = (
            f"run {run_id!r} of session {key} ended before anything was recorded: there is "
            "nothing to resume. Start it again"
        )
        raise NothingToResumeError(message)
    _check_shape(setup, past.start, run_id)
    recorded: Mapping[str, Any] = (past.start.journal or {}).get("config", {})
    config = start.config or _config(past.start, recorded)
    opened = Opened(session, run_id, held, config, past)
    await _record_resumption(setup, opened, past, resumption)
    return opened


def _why_none(session: Session | None) -> str:
    if session is None:
        return "there is no such session"
    return "its last run has come to its end, or is not resumable (Runner(tree, resumable=True))"


async def _read_run(
    setup: RunSetup, key: SessionKey, run_id: str, config: RunConfig | None
) -> tuple[Session, list[Event]]:
    """Read the log backwards until the run's beginning is there, and what came before it."""
    wanted = RunConfig().num_recent_events if config is None else config.num_recent_events
    newest = None if wanted is None else wanted + _PAGE
    while True:
        session = await _get(setup, key, newest)
        if session is None:
            raise SessionNotFoundError(key)
        events = session.events
        first = next((at for at, one in enumerate(events) if one.invocation_id == run_id), 0)
        is_whole = newest is None or len(events) < newest
        if is_whole or (first and first >= (wanted or 0)):
            return session, [one for one in events if one.invocation_id == run_id]
        newest = 4 * (newest or 0)


def _config(start: Event, recorded: Mapping[str, Any]) -> RunConfig:
    try:
        return RunConfig(**recorded)
    except (TypeError, ValueError) as exc:
        message = (
            f"run {start.invocation_id!r}, event {start.seq}: how the run was to behave cannot be "
            f"read: {exc}. Resume it with a run_config"
        )
        raise StoreCorruptError(message) from None


def _check_shape(setup: RunSetup, recorded: Event, run_id: str) -> None:
    outline: list[str] = list((recorded.journal or {}).get("outline", ()))
    now = setup.shape or []
    if outline != now:
        message = (
            f"run {run_id!r} is of another tree (- as recorded, + as it is now); resume it with "
            f"the code that it was started with:\n{difference(outline, now)}"
        )
        raise TreeChangedError(message)


async def _record_resumption(
    setup: RunSetup, opened: Opened, past: Past, resumption: Resumption
) -> None:
    """Take back what void events have written, and record the answers."""
    session = opened.session
    shared = SharedState(session, setup.reducers, setup.on_conflict, setup.schema)

    def reduce(key: str, current: Any, added: tuple[Any, ...]) -> Any:
        return shared.reduce(key, MISSING if current is ABSENT else current, added)

    answers = [
        _answer(opened, asked, value) for asked, value in _matched(past, resumption.responses)
    ]
    delta, unset = past.state(session.state, reduce)
    actions = EventActions(
        state_delta={**delta, **dict.fromkeys(unset)},
        state_unset=tuple(unset),
        journal={"kind": "resumed", "void": ranges(past.void)},
    )
    note = _note(setup, opened.invocation_id, actions)
    await record(setup, opened, [note, *answers])
    for event in answers:
        past.answer(event)
    past.until = session.last_seq


def _answer(opened: Opened, asked: Asked, value: Any) -> Event:
    request = asked.event.request
    event = Event(response_content("" if request is None else request.id, value, role=USER))
    origin = Origin(
        author=USER, invocation_id=opened.invocation_id, branch=asked.event.branch, path=USER
    )
    stamp_origin(event, origin)
    return event


def _matched(past: Past, responses: Mapping[str, Any]) -> list[tuple[Asked, Any]]:
    still_open = {full: asked for full, asked in past.requests.items() if asked.answer is None}
    called = _by_name(still_open.values()) if responses else {}
    matched: dict[Asked, Any] = {}
    for name, value in responses.items():
        found = [still_open[name]] if name in still_open else called.get(name, [])
        if len(found) != 1 or found[0] in matched:
            what = "is ambiguous" if found else "is not known, or has been answered"
            message = (
                f"request {name!r} {what} "
                f"(open: {listed([repr(one) for one in still_open]) or 'none'})"
            )
            raise ResponseRefusedError(message)
        try:
            matched[found[0]] = to_json(value)
        except ValueError as exc:
            message = f"the answer to request {name!r}: {exc}"
            raise ResponseRefusedError(message) from None
    return [*matched.items()]


def _by_name(questions: Iterable[Asked]) -> dict[str, list[Asked]]:
    """Return questions by what they are called; see `PendingRequest.names`."""
    called: dict[str, list[Asked]] = {}
    for asked in questions:
        for name in dict.fromkeys(asked.names):
            called.setdefault(name, []).append(asked)
    return called
