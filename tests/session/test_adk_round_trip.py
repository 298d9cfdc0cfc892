"""The real ADK reads what we write and writes what we read. For ``make deep``."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session import Codec, Event
from session.state import same
from tests.session.strategies import events, json_objects, json_values, names, texts

adk_events = pytest.importorskip(
    "google.adk.events", reason="compares with the real google-adk, which the deep extra installs"
)
types = pytest.importorskip("google.genai.types", reason="comes with google-adk")

pytestmark = pytest.mark.deep

codec = Codec()


def without_unset(actions: dict[str, Any]) -> dict[str, Any]:
    """ADK writes these two empty when they are not set."""
    unset = ("requestedAuthConfigs", "requestedToolConfirmations", "stateDelta", "artifactDelta")
    return {key: item for key, item in actions.items() if key not in unset or item}


@given(events)
def test_adk_reads_what_we_write_and_loses_nothing(event: Event) -> None:
    ours = codec.encode(event)
    adk = adk_events.Event.model_validate_json(codec.dumps(event))
    again = codec.encode(codec.loads(adk.model_dump_json(by_alias=True, exclude_none=True)))
    again["actions"] = without_unset(again["actions"])
    if not ours["id"]:  # it has none until it is recorded; ADK makes one up
        ours["id"] = again["id"]
    assert same(again, ours)


@given(events)
def test_adk_sees_in_our_event_what_we_see(event: Event) -> None:
    adk = adk_events.Event.model_validate_json(codec.dumps(event))
    assert adk.author == event.author
    assert adk.branch == event.branch
    assert adk.node_info.path == event.path
    assert bool(adk.actions.escalate) is event.actions.escalate
    assert same(adk.actions.state_delta, event.actions.state_delta)
    calls = [call.name for call in adk.get_function_calls()]
    assert calls[: len(event.function_calls)] or not event.function_calls
    assert {call.name for call in event.function_calls} <= set(calls)


adk_parts = st.one_of(
    st.builds(
        lambda text, thought, signature: types.Part(
            text=text, thought=thought, thought_signature=signature
        ),
        texts,
        st.none() | st.booleans(),
        st.none() | st.binary(max_size=4),
    ),
    st.builds(
        lambda name, args, call_id: types.Part(
            function_call=types.FunctionCall(name=name, args=args, id=call_id)
        ),
        names,
        st.none() | json_objects,
        st.none() | names,
    ),
    st.builds(
        lambda name, response: types.Part(
            function_response=types.FunctionResponse(name=name, response=response)
        ),
        st.none() | names,
        st.none() | json_objects,
    ),
    st.builds(
        lambda data, mime_type, name: types.Part(
            inline_data=types.Blob(data=data, mime_type=mime_type, display_name=name)
        ),
        st.binary(max_size=8),
        st.none() | texts,
        st.none() | texts,
    ),
    st.just(types.Part(executable_code=types.ExecutableCode(code="1", language="PYTHON"))),
    st.just(types.Part()),
)
adk_actions = st.builds(
    adk_events.EventActions,
    state_delta=json_objects,
    artifact_delta=st.dictionaries(texts, st.integers(0, 9), max_size=2),
    escalate=st.none() | st.booleans(),
    skip_summarization=st.none() | st.booleans(),
    end_of_agent=st.none() | st.booleans(),
    transfer_to_agent=st.none() | names,
    agent_state=st.none() | json_objects,
    route=st.none() | names | st.integers(0, 9) | st.booleans(),
    set_model_response=st.none() | json_values,
)
drawn_adk_events = st.builds(
    adk_events.Event,
    id=names,
    author=names,
    invocation_id=names,
    timestamp=st.floats(0, 4e9),
    branch=st.none() | names,
    content=st.none()
    | st.builds(
        types.Content,
        parts=st.none() | st.lists(adk_parts, max_size=3),
        role=st.none() | st.just("user"),
    ),
    actions=adk_actions,
    output=json_values,
    partial=st.none() | st.booleans(),
    turn_complete=st.none() | st.booleans(),
    error_code=st.none() | names,
    custom_metadata=st.none() | json_objects,
    long_running_tool_ids=st.none() | st.sets(names, max_size=2),
    node_path=st.none() | names,
)


def as_we_tell_it(adk: Any) -> Any:
    """An ADK event as JSON, without the differences that mean nothing here.

    A flag is false or true; a call without arguments has empty ones; an empty list of parts,
    ids or metadata says what none says.
    """
    obj = json.loads(adk.model_dump_json(by_alias=True, exclude_none=True))
    for name in ("partial", "longRunningToolIds", "customMetadata"):
        if not obj.get(name):
            obj.pop(name, None)
    for name in ("escalate", "skipSummarization", "endOfAgent"):
        if not obj["actions"].get(name):
            obj["actions"].pop(name, None)
    if "content" in obj:
        for part in obj["content"].setdefault("parts", []):
            if part.get("thought") is False and "thoughtSignature" not in part:
                del part["thought"]
            if part.keys() == {"functionCall"}:
                part["functionCall"].setdefault("args", {})
            if part.keys() == {"functionResponse"} and "name" in part["functionResponse"]:
                part["functionResponse"].setdefault("response", {})
    return obj


@given(
    drawn_adk_events,
    st.fixed_dictionaries({"by_alias": st.booleans(), "exclude_none": st.booleans()}),
)
def test_we_read_what_adk_writes_and_lose_nothing(adk: Any, form: dict[str, bool]) -> None:
    # As ADK's own database service does it.
    text = json.dumps(adk.model_dump(mode="json", **form))
    again = adk_events.Event.model_validate_json(codec.dumps(codec.loads(text)))
    assert same(as_we_tell_it(again), as_we_tell_it(adk))
