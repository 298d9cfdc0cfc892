from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session import Event, EventActions, FrozenValueError, Session, SessionKey, fold, freeze
from session.state import same
from tests.session.strategies import events, json_objects, sealed

KEY = SessionKey("app", "user", "id")


def event(seq: int | None = None, *, partial: bool = False, **delta: Any) -> Event:
    actions = EventActions(state_delta=delta)
    return sealed(Event("x", actions=actions, seq=seq, timestamp=5.0, partial=partial))


# ----------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("name", ["", None, 5, b"a", "\ud800"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_name_is_text_that_is_not_empty_and_can_be_written(name: Any, place: int) -> None:
    names = ["app", "user", "id"]
    names[place] = name
    with pytest.raises(ValueError, match=r"app_name|user_id|session_id"):
        SessionKey(*names)


def test_a_key_is_equal_to_another_of_the_same_names() -> None:
    assert {KEY: 1}[SessionKey("app", "user", "id")] == 1
    assert SessionKey("a/b", "c", "d") != SessionKey("a", "b/c", "d")


def test_a_session_answers_with_the_parts_of_its_key() -> None:
    session = Session(KEY)
    assert (session.app_name, session.user_id, session.id) == ("app", "user", "id")


# ----------------------------------------------------------------------------------------- fold


@given(json_objects, st.lists(events, max_size=5))
def test_a_session_that_applies_a_log_has_the_state_that_the_log_folds_to(
    start: dict[str, Any], log: list[Event]
) -> None:
    whole = [event for event in log if not event.partial]
    session = Session(KEY, state=dict(freeze(start)))
    for event in whole:
        session.apply(event)
    assert same(dict(session.snapshot()), fold(freeze(start), whole))


@given(json_objects, st.lists(events, max_size=5), st.integers(0, 5))
def test_a_fold_can_stop_anywhere_and_go_on(
    start: dict[str, Any], log: list[Event], cut: int
) -> None:
    assert same(fold(fold(start, log[:cut]), log[cut:]), fold(start, log))


def test_the_last_write_of_a_key_stays() -> None:
    assert fold({"a": 0, "b": 0}, [event(a=1), event(a=2)]) == {"a": 2, "b": 0}


def test_a_key_set_to_none_is_there() -> None:
    assert fold({}, [event(a=None)]) == {"a": None}


def test_partial_events_do_not_touch_the_state() -> None:
    assert fold({"a": 0}, [event(a=1, partial=True)]) == {"a": 0}


def test_temporary_keys_are_in_no_fold() -> None:
    log = [sealed(Event(actions=EventActions(state_delta={"temp:b": 2, "c": 3})))]
    assert fold({"temp:a": 1}, log) == {"c": 3}


def test_folding_leaves_the_start_as_it_was() -> None:
    start = {"a": 0}
    fold(start, [event(a=1)])
    assert start == {"a": 0}


# ---------------------------------------------------------------------------------------- apply


def test_applying_an_event_moves_the_number_and_the_time() -> None:
    session = Session(KEY, last_seq=3)
    session.apply(event(4))
    assert (session.last_seq, session.last_update_time, len(session.events)) == (4, 5.0, 1)


def test_an_event_without_a_number_leaves_the_number() -> None:
    session = Session(KEY, last_seq=3)
    session.apply(event())
    assert session.last_seq == 3


def test_a_snapshot_does_not_follow_the_session() -> None:
    session = Session(KEY, state={"a": 1, "temp:b": 2})
    snapshot = session.snapshot()
    session.apply(event(1, a=2))
    assert snapshot == {"a": 1}


def test_a_snapshot_cannot_be_changed() -> None:
    with pytest.raises(FrozenValueError):
        Session(KEY, state={"a": 1}).snapshot()["a"] = 2


def test_a_repr_names_the_session() -> None:
    assert repr(Session(KEY, last_seq=3)) == "<Session app/user/id: 0 events, last 3>"
