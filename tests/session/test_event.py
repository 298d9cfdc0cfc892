from __future__ import annotations

import copy
from typing import Any

import attrs
import pytest
from hypothesis import given

from session import (
    BranchOutcome,
    Content,
    Event,
    EventActions,
    FrozenDict,
    FrozenValueError,
    FunctionCall,
    FunctionResponse,
    Origin,
    Text,
    UnstorableError,
)
from session.event import NO_ACTIONS, OURS, stamp_delta, stamp_seq
from tests.session.strategies import open_events, sealed

# --------------------------------------------------------------------------------- what it says


def test_text_is_short_for_a_content() -> None:
    assert Event("hi").content == Content("hi") == Event(content=Content("hi")).content


def test_an_event_without_a_content_has_no_text() -> None:
    assert Event().text == ""
    assert Event().content is None


def test_calls_and_responses_are_those_among_the_parts() -> None:
    call, response = FunctionCall("f"), FunctionResponse("f")
    event = Event(Content((call, Text("a"), response)))
    assert event.function_calls == (call,)
    assert event.function_responses == (response,)


def test_an_event_with_text_only_has_no_calls() -> None:
    assert Event("a").function_calls == ()
    assert Event("a").function_responses == ()


@pytest.mark.parametrize(
    ("event", "final"),
    [
        (Event("a"), True),
        (Event(), True),
        (Event("a", partial=True), False),
        (Event(Content(FunctionCall("f"))), False),
        (Event(Content(FunctionResponse("f"))), False),
        (Event(Content(FunctionCall("f")), long_running_tool_ids=["1"]), True),
        (
            Event(Content(FunctionResponse("f")), actions=EventActions(skip_summarization=True)),
            True,
        ),
        (Event(Content(FunctionCall("f")), long_running_tool_ids=["1"], partial=True), False),
    ],
)
def test_an_event_is_final_when_it_is_whole_and_no_step_of_a_tool_call(
    event: Event, *, final: bool
) -> None:
    assert event.is_final is final


# -------------------------------------------------------------------------------------- actions


def test_actions_can_be_filled_in_after_the_event_was_made() -> None:
    event = Event("a")
    event.actions.escalate = True
    event.seal()
    assert event.escalates
    assert event.actions.escalate


def test_an_event_made_without_actions_asks_for_nothing() -> None:
    event = Event("a")
    assert not event.actions.escalate
    assert event.state_delta == {}
    assert event.actions == NO_ACTIONS


def test_each_event_has_actions_of_its_own() -> None:
    one, other = Event("a"), Event("b")
    one.actions.escalate = True
    assert not other.actions.escalate


def test_actions_are_equal_whether_or_not_their_event_was_emitted() -> None:
    event = sealed(Event("a", actions=EventActions(state_delta={"a": [1]}, escalate=True)))
    assert event.actions == EventActions(state_delta={"a": [1]}, escalate=True)
    assert EventActions(state_delta={"a": [1]}, escalate=True) == event.actions
    assert event.actions != EventActions(state_delta={"a": [1]})
    assert event.actions != "actions"


def test_a_changed_copy_of_emitted_actions_can_be_made() -> None:
    event = sealed(Event("a", actions=EventActions(transfer_to_agent="b")))
    changed = attrs.evolve(event.actions, escalate=True)
    changed.end_of_agent = True
    assert changed == EventActions(transfer_to_agent="b", escalate=True, end_of_agent=True)
    assert event.actions == EventActions(transfer_to_agent="b")


def test_a_copy_of_emitted_actions_can_be_changed() -> None:
    event = sealed(Event("a", actions=EventActions(transfer_to_agent="b")))
    copied = copy.copy(event.actions)
    copied.escalate = True
    assert (copied.transfer_to_agent, event.actions.escalate) == ("b", False)


def test_writes_added_by_the_runtime_look_like_the_makers() -> None:
    event = sealed(Event("a", actions=EventActions(state_delta={"a": 1}, escalate=True)))
    stamp_delta(event, FrozenDict({"a": 2, "b": 3}))
    assert event.state_delta == {"a": 2, "b": 3}
    assert event.actions == EventActions(state_delta={"a": 2, "b": 3}, escalate=True)
    assert event.state_delta == {"a": 2, "b": 3}


def test_two_events_may_share_their_actions() -> None:
    actions = EventActions(state_delta={"a": 1})
    one, other = sealed(Event("a", actions=actions)), sealed(Event("b", actions=actions))
    assert one.actions == other.actions == EventActions(state_delta={"a": 1})


# -------------------------------------------------------------------------------------- sealing


@given(open_events)
def test_sealing_changes_nothing_that_can_be_read(event: Event) -> None:
    def fields() -> list[object]:
        names = ["content", "text", "actions", "output", "partial", "state_delta"]
        names += ["id", "author", "branch", "path", "invocation_id", "timestamp", "seq", "is_final"]
        names += ["error_code", "error_message", "custom_metadata", "attempt", "other"]
        return [copy.deepcopy(getattr(event, name)) for name in names]

    before = fields()
    event.seal()
    assert fields() == before


@given(open_events)
def test_sealing_twice_is_sealing_once(event: Event) -> None:
    event.seal()
    actions = event.actions
    event.seal()
    assert event.actions is actions


SETTABLE = ["content", "actions", "output", "partial", "seq", "timestamp", "_origin", "unknown"]


@pytest.mark.parametrize("name", SETTABLE)
def test_nothing_of_a_sealed_event_can_be_set(name: str) -> None:
    with pytest.raises(FrozenValueError, match=name):
        setattr(sealed(Event("a")), name, None)


@pytest.mark.parametrize("name", SETTABLE)
def test_nothing_of_a_sealed_event_can_be_deleted(name: str) -> None:
    with pytest.raises(FrozenValueError, match=name):
        delattr(sealed(Event("a")), name)


@pytest.mark.parametrize("field", attrs.fields(EventActions), ids=lambda field: field.name)
@pytest.mark.parametrize("actions", [None, EventActions(escalate=True)], ids=["none", "some"])
def test_no_action_of_a_sealed_event_can_be_set(
    field: attrs.Attribute[Any], actions: EventActions | None
) -> None:
    event = sealed(Event("a", actions=actions))
    with pytest.raises(FrozenValueError, match=field.name):
        setattr(event.actions, field.name, None)


@pytest.mark.parametrize(
    "name", ["output", "custom_metadata", "state_delta", "artifact_delta", "agent_state"]
)
def test_no_value_in_a_sealed_event_can_change(name: str) -> None:
    event = sealed(
        Event(
            output={"a": 1},
            custom_metadata={"a": 1},
            actions=EventActions(
                state_delta={"a": 1}, artifact_delta={"a": 1}, agent_state={"a": 1}
            ),
        )
    )
    value = getattr(event, name) if hasattr(event, name) else getattr(event.actions, name)
    with pytest.raises(FrozenValueError):
        value["b"] = 2


def test_a_sealed_event_does_not_follow_what_it_was_made_of() -> None:
    delta = {"a": [1]}
    event = sealed(Event(actions=EventActions(state_delta=delta)))
    delta["a"].append(2)
    assert event.state_delta == {"a": [1]}


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_a_copy_of_a_sealed_event_is_the_event(copied: Any) -> None:
    event = sealed(Event("a"))
    assert copied(event) is event


UNSTORABLE: dict[str, Event] = {
    "content.text": Event("\ud800"),
    "content": Event(5),  # type: ignore[arg-type]  # what the test is about
    "output.a": Event(output={"a": object()}),
    "actions": Event(actions={"escalate": True}),  # type: ignore[arg-type]  # as above
    "actions.state_delta.a": Event(actions=EventActions(state_delta={"a": {1}})),
    "actions.state_delta": Event(actions=EventActions(state_delta=[])),  # type: ignore[arg-type]  # as above
    "actions.escalate": Event(actions=EventActions(escalate=1)),  # type: ignore[arg-type]  # as above
    "actions.transfer_to_agent": Event(actions=EventActions(transfer_to_agent="\ud800")),
    "actions.artifact_delta": Event(actions=EventActions(artifact_delta=None)),  # type: ignore[arg-type]  # as above
    "actions.artifact_delta.a": Event(actions=EventActions(artifact_delta={"a": "1"})),  # type: ignore[dict-item]  # as above
    "actions.agent_state": Event(actions=EventActions(agent_state=[])),  # type: ignore[arg-type]  # as above
    "actions.outcomes": Event(actions=EventActions(outcomes="a")),  # type: ignore[arg-type]  # as above
    "actions.outcomes[0]": Event(actions=EventActions(outcomes=({},))),  # type: ignore[arg-type]  # as above
    "actions.other.bogus": Event(actions=EventActions(other={"bogus": 1})),
    "partial": Event(partial=None),  # type: ignore[arg-type]  # as above
    "error_code": Event(error_code=5),  # type: ignore[arg-type]  # as above
    "error_message": Event(error_message="\ud800"),
    "custom_metadata.a": Event(custom_metadata={"a": float("nan")}),
    "attempt": Event(attempt=0),
    "long_running_tool_ids[1]": Event(long_running_tool_ids=("a", 1)),  # type: ignore[arg-type]  # as above
    "other.bogus": Event(other={"bogus": 1}),
    "other.nodeInfo": Event(other={"nodeInfo": []}),
    "other.nodeInfo.path": Event(other={"nodeInfo": {"path": "mine"}}),
    f"custom_metadata.{OURS}": Event(custom_metadata={OURS: {}}),
}


@pytest.mark.parametrize(("path", "event"), UNSTORABLE.items(), ids=UNSTORABLE)
def test_what_cannot_be_stored_is_refused_with_its_place(path: str, event: Event) -> None:
    with pytest.raises(UnstorableError) as caught:
        event.seal()
    assert caught.value.path == path


@pytest.mark.parametrize(("path", "event"), UNSTORABLE.items(), ids=UNSTORABLE)
def test_an_event_that_was_refused_is_not_sealed(path: str, event: Event) -> None:
    with pytest.raises(UnstorableError):
        event.seal()
    assert not event.sealed


def test_an_event_that_was_refused_can_be_mended() -> None:
    event = Event(partial=5, actions=EventActions(escalate=True))  # type: ignore[arg-type]  # what the test is about
    with pytest.raises(UnstorableError):
        event.seal()
    event.partial = False
    event.actions.escalate = False
    event.seal()
    assert event.sealed


def test_adks_none_for_a_flag_means_false() -> None:
    actions = EventActions(escalate=None, skip_summarization=None, end_of_agent=None)  # type: ignore[arg-type]  # what the test is about
    assert sealed(Event(actions=actions)).actions == EventActions()


# ------------------------------------------------------------------------------ where it is from


def test_an_event_has_no_id_until_it_is_recorded() -> None:
    event = sealed(Event("a", origin=Origin(author="b", invocation_id="inv")))
    assert event.id == ""
    stamp_seq(event, 3)
    assert event.id == "inv-3"


def test_an_id_that_was_given_is_kept() -> None:
    assert Event("a", id="own", seq=3).id == "own"


def test_the_origin_says_who_and_where() -> None:
    origin = Origin(author="a", invocation_id="inv", branch="p.a", path="p@1/a@1")
    event = Event("x", origin=origin)
    assert (event.author, event.invocation_id, event.branch, event.path) == (
        *("a", "inv", "p.a", "p@1/a@1"),
    )


def test_an_outcome_can_speak_of_an_error_that_cannot_be_written() -> None:
    """File names with undecodable bytes end up in messages of OSError as lone surrogates."""
    assert BranchOutcome("a", "failed", "OSError", "no \udcff").error_message == "no ?"


@pytest.mark.parametrize(
    "fields",
    [
        {"name": None},
        {"status": 1},
        {"attempts": -1},
        {"attempts": 1.0},
        {"duration": float("nan")},
    ],
)
def test_an_outcome_that_cannot_be_stored_is_refused_where_it_is_made(
    fields: dict[str, Any],
) -> None:
    with pytest.raises(UnstorableError, match=next(iter(fields))):
        BranchOutcome(**{"name": "a", "status": "failed", **fields})


def test_a_repr_shows_place_number_and_text() -> None:
    event = Event("hi", origin=Origin(author="a", path="p/a"), seq=2)
    assert repr(event) == "<Event 2 p/a: 'hi'>"
    assert repr(Event()) == "<Event - not emitted: no text>"
