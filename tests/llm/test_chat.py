"""Chat completions: what goes out, and what comes in pieces."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import Content, FunctionCall, FunctionResponse, InlineData, Text
from parallel_agent.llm.chat import Assembly, body_of, messages_of
from parallel_agent.llm.model import GenerationConfig, ModelRequest, ModelResponse, ToolSpec, Usage
from parallel_agent.model_errors import ModelProtocolError, ModelRequestError


def request(*contents: Content, **options: Any) -> ModelRequest:
    return ModelRequest(contents=contents, **options)


def user(*parts: Any) -> Content:
    return Content(parts, role="user")


def test_what_was_said_goes_out_by_roles() -> None:
    said = request(
        user(Text("hi")),
        Content((Text("I look"), FunctionCall("look", {"at": "é"}, "c1"))),
        user(FunctionResponse("look", {"result": 1}, "c1")),
        user(Text("what "), Text("is it?"), InlineData(b"x", "image/png")),
        instruction="Be kind.",
    )
    assert messages_of(said) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": "I look",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"at": "é"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": '{"result": 1}'},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what "},
                {"type": "text", "text": "is it?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}},
            ],
        },
    ]


def test_calls_without_ids_are_given_some_that_fit_their_answers() -> None:
    calls = Content((FunctionCall("a"), FunctionCall("b")))
    answers = user(FunctionResponse("a", {}), FunctionResponse("b", {}))
    asked, *answered = messages_of(request(calls, answers))
    ids = [call["id"] for call in asked["tool_calls"]]
    assert ids == [message["tool_call_id"] for message in answered] == ["call_1", "call_2"]


def test_the_last_word_is_never_the_models_own() -> None:
    """llama.cpp refuses two such messages, and writes on at one."""
    asked = messages_of(request(user(Text("hi")), Content("a"), Content("b")))
    assert [message["role"] for message in asked] == ["user", "assistant", "assistant", "user"]
    assert asked[-1]["content"].startswith("Continue processing previous requests")


def test_there_is_something_to_answer_where_nobody_has_said_anything() -> None:
    begun = messages_of(request(instruction="Be kind."))
    assert [message["role"] for message in begun] == ["system", "user"]


def test_what_no_chat_model_takes_is_refused() -> None:
    with pytest.raises(ModelRequestError, match="'application/pdf' cannot be sent"):
        messages_of(request(user(InlineData(b"x", "application/pdf"))))


def test_tools_schema_and_config_go_out() -> None:
    body = body_of(
        request(
            user(Text("hi")),
            tools=(ToolSpec("look", "Looks.", {"type": "object"}),),
            output_schema={"type": "object"},
            config=GenerationConfig(temperature=0, max_tokens=9, stop="END", seed=1),
        ),
        "m",
        most="max_completion_tokens",
    )
    assert json.loads(json.dumps(body)) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "look",
                    "description": "Looks.",
                    "parameters": {"type": "object"},
                },
            }
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object"}},
        },
        "temperature": 0,
        "max_completion_tokens": 9,
        "stop": ["END"],
        "seed": 1,
    }


# What comes in.


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"model": "m-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def pieces_of(call: int, text: str) -> dict[str, Any]:
    return chunk(tool_calls=[{"index": call, "function": {"arguments": text}}])


def put_together(*chunks: dict[str, Any]) -> tuple[list[str], ModelResponse]:
    assembly = Assembly("m")
    shown = [assembly.add(one) for one in chunks]
    return [one.content.text for one in shown if one is not None], assembly.whole()


def cut(text: str, places: list[int]) -> list[str]:
    at = sorted({min(place, len(text)) for place in places})
    return [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True) if text[a:b]]


@given(st.lists(st.integers(0, 40)), st.lists(st.integers(0, 40)))
def test_however_an_answer_is_cut_it_is_the_same(texts: list[int], calls: list[int]) -> None:
    said, arguments = "it rains in Oslo, I am told", '{"city": "Oslo", "days": [1, 2]}'
    begins = chunk(tool_calls=[{"index": 0, "id": "c1", "function": {"name": "look"}}])
    shown, whole = put_together(
        *(chunk(content=piece) for piece in cut(said, texts)),
        begins,
        *(pieces_of(0, piece) for piece in cut(arguments, calls)),
        chunk("tool_calls"),
    )
    assert "".join(shown) == said
    assert whole.content.parts == (
        Text(said),
        FunctionCall("look", {"city": "Oslo", "days": [1, 2]}, "c1"),
    )
    assert whole.finish_reason == "tool_calls"


def test_several_calls_come_apart_and_in_their_order() -> None:
    _, whole = put_together(
        chunk(tool_calls=[{"index": 1, "id": "b", "function": {"name": "two"}}]),
        chunk(tool_calls=[{"index": 0, "id": "a", "function": {"name": "one"}}]),
        pieces_of(1, '{"x": '),
        pieces_of(0, "{}"),
        pieces_of(1, "1}"),
        chunk("tool_calls"),
    )
    assert whole.calls == [FunctionCall("one", {}, "a"), FunctionCall("two", {"x": 1}, "b")]


def test_calls_without_numbers_are_taken_as_they_come() -> None:
    one = {"id": "a", "function": {"name": "one", "arguments": "{}"}}
    two = {"id": "b", "function": {"name": "two", "arguments": ""}}
    _, whole = put_together(chunk(tool_calls=[one]), chunk(tool_calls=[two]), chunk("stop"))
    assert [call.name for call in whole.calls] == ["one", "two"]


def test_usage_thoughts_and_refusals_are_kept() -> None:
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": None,
    }
    shown, whole = put_together(
        chunk(reasoning_content="hm"),
        chunk(refusal="I will not."),
        chunk("content_filter"),
        {"model": "m-1", "choices": [], "usage": usage},
    )
    assert shown == [""]
    assert whole.content.parts == (Text("hm", thought=True), Text("I will not."))
    assert whole.refusal == "I will not."
    assert whole.usage == Usage(5, 7, 2, 0)
    assert (whole.model, whole.finish_reason) == ("m-1", "content_filter")


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [chunk(content="it bro")],
        [chunk(tool_calls=[{"index": 0, "function": {"name": "a", "arguments": "{"}}])],
        [chunk(tool_calls=[{"index": 0, "function": {"name": "a", "arguments": "[1]"}}])],
        [{"choices": ["no"]}],
        [{"choices": [{"delta": {"tool_calls": [3]}}]}],
        [{"choices": 3}],
    ],
)
def test_what_is_no_answer_is_a_typed_error(chunks: list[dict[str, Any]]) -> None:
    with pytest.raises(ModelProtocolError):
        put_together(*chunks)


def test_a_call_that_there_was_no_room_for_says_so() -> None:
    begun = chunk(tool_calls=[{"index": 0, "function": {"name": "a", "arguments": '{"b'}}])
    with pytest.raises(ModelProtocolError, match="no room for all of its call of 'a'"):
        put_together(begun, chunk("length"))
