"""Questions and answers as events hold them: Google ADK's form, read back as they were written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session import (
    Codec,
    Content,
    Event,
    FunctionCall,
    FunctionResponse,
    InputRequest,
    Text,
    UnstorableError,
)
from session.request import REQUEST_INPUT, request_in, response_content
from session.state import same
from tests.session.strategies import json_objects, json_values, texts

codec = Codec()

requests = st.builds(
    InputRequest, texts.filter(bool), texts, st.none() | json_objects.map(lambda one: {**one})
)


def sealed(event: Event) -> Event:
    event.seal()
    return event


def asking(request: InputRequest) -> Event:
    return sealed(Event(request.to_content(), long_running_tool_ids=(request.id,)))


def answering(request_id: str, value: Any) -> Event:
    return sealed(Event(response_content(request_id, value, role="user")))


# ------------------------------------------------------------------------------------- the question


def test_a_question_is_a_call_of_adks_function() -> None:
    content = InputRequest("run:a#1", "May I?", {"type": "boolean"}).to_content()
    assert content == Content(
        FunctionCall(
            "adk_request_input",
            {
                "interruptId": "run:a#1",
                "message": "May I?",
                "payload": None,
                "response_schema": {"type": "boolean"},
            },
            id="run:a#1",
        )
    )


@given(requests)
def test_a_question_is_read_back_as_it_was_asked(request: InputRequest) -> None:
    found = asking(request).request
    assert found is not None
    assert (found.id, found.prompt) == (request.id, request.prompt)
    assert same(found.schema, request.schema)


@given(requests)
def test_a_question_survives_being_stored(request: InputRequest) -> None:
    event = codec.loads(codec.dumps(asking(request)))
    found = event.request
    assert found is not None
    assert (found.id, found.prompt) == (request.id, request.prompt)
    assert same(found.schema, request.schema)
    assert event.long_running_tool_ids == (request.id,)


def test_the_stored_form_has_adks_names() -> None:
    stored = json.loads(codec.dumps(asking(InputRequest("i", "p", {"type": "integer"}))))
    assert stored["longRunningToolIds"] == ["i"]
    (part,) = stored["content"]["parts"]
    assert part["functionCall"] == {
        "id": "i",
        "name": "adk_request_input",
        "args": {
            "interruptId": "i",
            "message": "p",
            "payload": None,
            "response_schema": {"type": "integer"},
        },
    }


def test_a_question_stands_for_itself_in_front_of_people() -> None:
    """It is something to show, though it is a step of a tool call."""
    event = asking(InputRequest("i", "p"))
    assert (event.is_final, event.text) == (True, "")


@pytest.mark.parametrize(
    "content",
    [
        Content("May I?"),
        Content(FunctionCall("other", {"message": "p"}, id="i")),
        Content(FunctionCall(REQUEST_INPUT, {"message": "p"})),
        Content(FunctionCall(REQUEST_INPUT, {"message": "p"}, id="")),
        Content(FunctionResponse(REQUEST_INPUT, {"result": 1}, id="i")),
        Content(()),
    ],
    ids=["text", "another function", "no id", "empty id", "an answer", "nothing"],
)
def test_anything_else_is_no_question(content: Content) -> None:
    assert request_in(content) is None
    assert Event(content, long_running_tool_ids=("i",)).request is None


def test_a_call_that_nobody_waits_for_is_no_question() -> None:
    assert Event(InputRequest("i", "p").to_content()).request is None


@pytest.mark.parametrize(
    "args",
    [{}, {"message": None}, {"message": 5}, {"message": "", "response_schema": "integer"}],
    ids=["nothing", "null", "a number", "a schema that is text"],
)
def test_a_question_of_another_system_may_lack_something(args: Mapping[str, Any]) -> None:
    content = Content(FunctionCall(REQUEST_INPUT, args, id="i"))
    assert request_in(content) == InputRequest("i", "", None)


def test_a_question_is_found_among_other_parts() -> None:
    (call,) = InputRequest("i", "p").to_content().parts
    assert request_in(Content((Text("Before I go on:"), call))) == InputRequest("i", "p")


def test_a_schema_that_cannot_be_stored_is_refused() -> None:
    with pytest.raises(UnstorableError):
        InputRequest("i", "p", {"default": object()}).to_content()


# --------------------------------------------------------------------------------------- the answer


def test_an_answer_is_a_response_with_the_questions_id() -> None:
    assert response_content("i", True, role="user") == Content(
        FunctionResponse("adk_request_input", {"result": True}, id="i"), role="user"
    )


@given(json_values)
def test_an_answer_survives_being_stored(value: Any) -> None:
    event = codec.loads(codec.dumps(answering("i", value)))
    (response,) = event.function_responses
    assert (response.name, response.id) == (REQUEST_INPUT, "i")
    assert same(response.response, {"result": value})
    assert event.request is None


def test_an_answer_is_no_final_text() -> None:
    event = answering("i", "yes")
    assert (event.is_final, event.final_text) == (False, "")


# --------------------------------------------------------------------------------- the real ADK's


@pytest.mark.deep
@given(requests)
def test_adk_asks_in_the_same_form(request: InputRequest) -> None:
    hitl = pytest.importorskip("google.adk.workflow.utils._workflow_hitl_utils")
    adk = pytest.importorskip("google.adk.events.request_input")
    schema = None if request.schema is None else dict(request.schema)
    theirs = hitl.create_request_input_event(
        adk.RequestInput(interrupt_id=request.id, message=request.prompt, response_schema=schema)
    )
    ours = codec.loads(theirs.model_dump_json(by_alias=True, exclude_none=True)).request
    assert ours is not None
    assert (ours.id, ours.prompt) == (request.id, request.prompt)
    assert same(ours.schema, request.schema)


@pytest.mark.deep
@given(requests, json_values)
def test_adk_sees_which_question_is_open(request: InputRequest, value: Any) -> None:
    events = pytest.importorskip("google.adk.events")
    interrupts = pytest.importorskip("google.adk.events._interrupts")

    def as_adk(event: Event, author: str) -> Any:
        adk = events.Event.model_validate_json(codec.dumps(event))
        return adk.model_copy(update={"author": author})

    asked = as_adk(asking(request), "a")
    answered = as_adk(answering(request.id, value), "user")
    assert list(interrupts.index_open_interrupts([asked])) == [request.id]
    assert interrupts.index_open_interrupts([asked, answered]) == {}
