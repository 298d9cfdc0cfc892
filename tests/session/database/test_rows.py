"""Between values and rows: what is stored is what was meant."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session import Codec, Event, SessionKey, StoreCorruptError, freeze
from session.database.rows import Rows, name_of, sorted_by_scope, stored_name
from session.state import same
from tests.session.strategies import events, json_objects
from tests.support.databases import KEY, new_event

ROWS = Rows("the store")
CODEC = Codec()

# What the stored form escapes must be likely.
names = st.text(
    st.sampled_from("\x00\x01\x02a\u00e9\U0001f642") | st.characters(exclude_categories=["Cs"])
)


@given(names)
def test_a_name_is_stored_without_nul_and_comes_back(name: str) -> None:
    stored = stored_name(name)
    assert "\x00" not in stored
    assert name_of(stored) == name


@given(names, names)
def test_stored_names_are_in_the_order_of_names(one: str, other: str) -> None:
    assert (stored_name(one) < stored_name(other)) == (one < other)


@pytest.mark.parametrize("prefix", ["app:", "user:", "temp:"])
def test_a_scope_is_not_changed_by_storing(prefix: str) -> None:
    assert stored_name(f"{prefix}\x00").startswith(prefix)


@given(events.filter(lambda event: not event.partial), st.integers(1, 10**12))
def test_an_event_is_read_as_it_was_written(event: Event, seq: int) -> None:
    written = ROWS.write([event], seq)
    ((number, time, body),) = written.events
    assert (number, time) == (seq, event.timestamp)
    read = ROWS.event(KEY, seq, body)
    wanted = CODEC.encode(event)
    wanted["id"] = wanted["id"] if event._id or event.seq else f"{event.invocation_id}-{seq}"
    wanted.setdefault("customMetadata", {}).setdefault("parallel_agent", {})["seq"] = seq
    stored = {key: value for key, value in event.delta.items() if not key.startswith("temp:")}
    if stored:
        wanted["actions"]["stateDelta"] = stored
    else:
        wanted["actions"].pop("stateDelta", None)
    assert same(CODEC.encode(read), wanted)


@given(json_objects)
def test_state_is_read_as_it_was_written(state: dict[str, object]) -> None:
    stored = ROWS.state(freeze(state))
    assert same(ROWS.read_state(KEY, [*stored.items()]), state)


def test_the_last_value_of_a_key_is_what_a_batch_writes() -> None:
    batch = [new_event(a=1, b=1), new_event(a=2, delta={"temp:t": 3})]
    assert ROWS.write(batch, 1).state == {"a": "2", "b": "1"}


def test_keys_are_sorted_by_their_scopes() -> None:
    state = {"app:a": "1", "user:a": "2", "a": "3", "user": "4"}
    assert sorted_by_scope(state) == ({"app:a": "1"}, {"user:a": "2"}, {"a": "3", "user": "4"})


def test_writing_does_not_number_the_events() -> None:
    event = new_event()
    ROWS.write([event], 5)
    assert event.seq is None


def test_a_stored_body_is_an_event_that_says_its_id() -> None:
    ((_, _, body),) = ROWS.write([new_event(by="inv")], 5).events
    assert json.loads(body)["id"] == "inv-5"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "cannot be read: this is no JSON"),
        ('{"id":"a","invocationId":"b","author":"c","timestamp":"x"}', "timestamp: a number"),
        ('{"id":"a","invocationId":"b","author":"c","timestamp":1,"odd":2}', "odd: there is no"),
    ],
)
def test_a_body_that_is_no_event_is_refused_with_its_place(body: str, why: str) -> None:
    key = SessionKey("a", "b", "c")
    with pytest.raises(StoreCorruptError, match=f"^the store: session a/b/c: event 3.*{why}"):
        ROWS.event(key, 3, body)


@pytest.mark.parametrize("value", ["", "{", "NaN", '"\\ud800"', "[" * 100_000])
def test_a_value_that_is_no_json_is_refused_with_its_key(value: str) -> None:
    with pytest.raises(StoreCorruptError, match=r"the state key 'k\\x00' cannot be read"):
        ROWS.read_state(KEY, [(stored_name("k\x00"), value)])
