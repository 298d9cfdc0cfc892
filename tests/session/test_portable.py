"""A session as lines: all of it comes back, and nothing but all of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session import Codec, Event, Session, SessionFormatError, SessionKey
from session.event import stamp_seq
from session.portable import read_lines, session_lines
from session.state import freeze, same, without_temp
from tests.session.strategies import events, json_objects

CODEC = Codec()


def session_of(log: list[Event], state: dict[str, Any]) -> Session:
    for seq, event in enumerate(log, start=1):
        stamp_seq(event, seq)
    return Session(SessionKey("a", "b", "c"), log, dict(freeze(state)), len(log), 5.0)


whole_events = events.filter(lambda event: not event.partial)
sessions = st.builds(session_of, st.lists(whole_events, max_size=2, unique_by=id), json_objects)


@given(sessions)
def test_a_session_is_read_as_it_was_written(session: Session) -> None:
    read = read_lines(f"{line}\n" for line in session_lines(session))
    assert (read.key, read.last_seq, read.last_update_time) == (session.key, session.last_seq, 5.0)
    assert same(read.state, dict(without_temp(session.state)))
    for was, now in zip(session.events, read.events, strict=True):
        assert same(CODEC.encode(now), CODEC.encode(was))


@given(sessions.filter(lambda session: session.events), st.data())
def test_a_part_of_the_lines_is_refused(session: Session, data: st.DataObject) -> None:
    lines = [*session_lines(session)]
    lost = data.draw(st.integers(0, len(lines) - 1))
    with pytest.raises(SessionFormatError):
        read_lines(line for place, line in enumerate(lines) if place != lost)


def made(*texts: str) -> list[str]:
    log = [Event(text, timestamp=1.0) for text in texts]
    for event in log:
        event.seal()
    return [*session_lines(session_of(log, {"k": 1}))]


def changed(line: str, **fields: Any) -> str:
    return json.dumps({**json.loads(line), **fields})


HEAD, ONE, TWO = made("one", "two")


@pytest.mark.parametrize(
    ("lines", "line", "why"),
    [
        ([], 1, "no header: nothing"),
        (["", " "], 3, "no header: nothing"),
        (["{"], 1, "no JSON"),
        (["[]"], 1, "no format"),
        ([ONE, TWO], 1, "no format"),
        ([changed(HEAD, version=2)], 1, "version 2 of the form; this code reads 1. Upgrade"),
        ([changed(HEAD, userId=1)], 1, "userId is missing or of the wrong kind"),
        ([changed(HEAD, userId="")], 1, "user_id must be text that is not empty"),
        ([changed(HEAD, lastSeq=True)], 1, "lastSeq is missing"),
        ([changed(HEAD, state={"k": float("nan")})], 1, "state.k: nan has no JSON form"),
        ([changed(HEAD, lastUpdateTime=10**400)], 1, "too large"),
        ([HEAD, ONE], 3, "the log ends at 1, and the header says at 2"),
        ([HEAD, ONE, ONE], 3, "event 2 of the log should be here, and this is number 1"),
        ([HEAD, ONE, TWO, TWO], 4, "event 3 of the log"),
        ([HEAD, "", ONE, "oops"], 4, "this is no JSON"),
        ([HEAD, changed(ONE, timestamp="x")], 2, "timestamp: a number is needed"),
        ([HEAD, changed(ONE, partial=True)], 2, "a partial event is never recorded"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(lines: list[str], line: int, why: str) -> None:
    with pytest.raises(SessionFormatError, match=why) as caught:
        read_lines(lines)
    assert caught.value.line == line
    assert str(caught.value).startswith(f"line {line}: ")
