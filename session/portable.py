"""A session as lines of JSON: to keep it elsewhere, to look at it, to move it to another service.

The first line is the session's header: what the form is called, the session's name, its state and
where its log ends. Every other line is one event, oldest first, in the stored form of
`session.codec`, which Google ADK reads as well.

Reading is strict: a file that was cut off, put together from two, or changed into something that
is no session is refused with the line where that shows, and nothing half made comes out.

Pure values: no I/O, no clock, no event loop.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from session.codec import Codec, CodecError
from session.event import Event
from session.session import Session, SessionKey
from session.state import freeze, without_temp

__all__ = [
    "SessionFormatError",
    "event_line",
    "header_line",
    "is_header",
    "read_lines",
    "session_lines",
]

FORMAT: Final = "parallel-agent-session"
VERSION: Final = 1

_CODEC: Final = Codec()
_TO_TEXT: Final = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False
).encode
_KEY_FIELDS: Final = ("appName", "userId", "sessionId")


class SessionFormatError(ValueError):
    """The lines are no exported session. ``line`` counts from 1."""

    def __init__(self, line: int, why: str) -> None:
        """Say which line, and what is wrong with it."""
        super().__init__(f"line {line}: {why}")
        self.line = line
        self.why = why


def session_lines(session: Session) -> Iterator[str]:
    """Return the lines, each without its line break, of a session that was read whole."""
    yield header_line(session)
    yield from map(event_line, session.events)


def header_line(session: Session) -> str:
    """Return the first line. Only the events are missing."""
    names = (session.app_name, session.user_id, session.id)
    return _TO_TEXT(
        {
            "format": FORMAT,
            "version": VERSION,
            **dict(zip(_KEY_FIELDS, names, strict=True)),
            "lastSeq": session.last_seq,
            "lastUpdateTime": session.last_update_time,
            "state": without_temp(session.state),
        }
    )


def is_header(line: str) -> bool:
    """Whether a line is the first of an export, of whatever version."""
    if f'"{FORMAT}"' not in line:
        return False
    try:
        header: Any = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(header, dict) and header.get("format") == FORMAT  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # JSON


def event_line(event: Event) -> str:
    """Return the line of one recorded event."""
    return _CODEC.dumps(event)


def read_lines(lines: Iterable[str]) -> Session:
    """Return the session that ``lines`` hold. Empty lines, and line breaks, do not matter.

    Raises:
        SessionFormatError: they hold none, or not all of one.
    """
    session: Session | None = None
    number = 0
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text:
            continue
        if session is None:
            session = _read_header(number, text)
        else:
            session.events.append(_read_event(number, text, len(session.events) + 1))
    if session is None:
        raise SessionFormatError(number + 1, "there is no header: nothing was exported")
    if len(session.events) != session.last_seq:
        why = f"the log ends at {len(session.events)}, and the header says at {session.last_seq}"
        raise SessionFormatError(number + 1, why)
    return session


def _read_header(number: int, text: str) -> Session:
    try:
        header: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SessionFormatError(number, f"this is no JSON: {error}") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:  # pyright: ignore[reportUnknownMemberType]  # JSON
        raise SessionFormatError(number, f"this is no header of an export: no format {FORMAT!r}")
    fields: dict[str, Any] = header  # pyright: ignore[reportUnknownVariableType]  # JSON
    if fields.get("version") != VERSION:
        why = (
            f"version {fields.get('version')!r:.40} of the form; this code reads {VERSION}. "
            "Upgrade parallel-agent"
        )
        raise SessionFormatError(number, why)
    kinds: dict[str, tuple[type, ...]] = {
        **dict.fromkeys(_KEY_FIELDS, (str,)),
        "lastSeq": (int,),
        "lastUpdateTime": (int, float),
        "state": (dict,),
    }
    for name, kind in kinds.items():
        if type(fields.get(name)) not in kind:
            raise SessionFormatError(number, f"{name} is missing or of the wrong kind")
    try:
        return Session(
            SessionKey(*(fields[name] for name in _KEY_FIELDS)),
            [],
            dict(without_temp(freeze(fields["state"], "state"))),
            fields["lastSeq"],
            float(fields["lastUpdateTime"]),
        )
    except (ValueError, OverflowError) as error:
        raise SessionFormatError(number, str(error)) from None


def _read_event(number: int, text: str, seq: int) -> Event:
    try:
        event = _CODEC.loads(text)
    except CodecError as error:
        raise SessionFormatError(number, str(error)) from None
    if event.seq != seq:
        why = f"event {seq} of the log should be here, and this is number {event.seq}"
        raise SessionFormatError(number, why)
    if event.partial:
        raise SessionFormatError(number, "a partial event is never recorded")
    return event
