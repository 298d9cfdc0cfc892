"""One answer, as different servers of chat completions say it: the same is understood."""

from __future__ import annotations

from typing import Any

import pytest

from parallel_agent import FunctionCall, Text
from parallel_agent.llm.chat import Assembly
from parallel_agent.llm.model import ModelResponse, Usage


def piece(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **more}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [choice],
    }


def usage(counts: dict[str, Any]) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "model": "m", "choices": [], "usage": counts}


def call(arguments: str, name: str | None = None, **fields: Any) -> dict[str, Any]:
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    return {"tool_calls": [{"type": "function", "function": function, **fields}]}


COUNTS = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}

OLLAMA = [
    piece({"role": "assistant", "content": "let me "}),
    piece({"role": "assistant", "content": "look"}),
    piece({"role": "assistant", "content": "", **call('{"city":"Oslo"}', "look", id="a", index=0)}),
    piece({"role": "assistant", "content": "", **call('{"city":"Rome"}', "look", id="b", index=1)}),
    piece({"role": "assistant", "content": ""}, "tool_calls"),
    usage(COUNTS),
]

OLD_OLLAMA = [
    piece({"role": "assistant", "content": "let me look"}),
    piece({"role": "assistant", "content": "", **call('{"city":"Oslo"}', "look", id="a", index=0)}),
    piece({"role": "assistant", "content": "", **call('{"city":"Rome"}', "look", id="b", index=0)}),
    piece({"role": "assistant", "content": ""}, "stop"),
    usage(COUNTS),
]

OPENAI = [
    piece({"role": "assistant", "content": "", "refusal": None}, logprobs=None),
    piece({"content": "let me look"}),
    piece(call("", "look", id="a", index=0)),
    piece(call('{"ci', index=0)),
    piece(call('ty":"Oslo"}', index=0)),
    piece(call("", "look", id="b", index=1)),
    piece(call('{"city":"Rome"}', index=1)),
    piece({}, "tool_calls"),
    usage(
        {
            **COUNTS,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }
    ),
]

VLLM = [
    piece({"role": "assistant", "content": ""}),
    piece({"content": "let me look"}),
    piece(call("", "look", id="a", index=0)),
    piece(call('{"city":', index=0, id=None)),
    piece(call(' "Oslo"}', index=0, id=None)),
    piece(call("", "look", id="b", index=1)),
    piece(call('{"city": "Rome"}', index=1)),
    piece({"content": ""}, "tool_calls", stop_reason=None),
    usage({**COUNTS, "prompt_tokens_details": None}),
]

LLAMA_CPP = [
    piece({"role": "assistant", "content": None}),
    piece({"content": "let me look"}),
    piece(call("{", "look", id="a", index=0)),
    piece(call('"city":"Oslo"}', index=0)),
    piece(call('{"city":"Rome"}', "look", id="b", index=1)),
    piece({}, "tool_calls"),
    {**usage(COUNTS), "timings": {"predicted_n": 4}},
]

WITHOUT_NUMBERS = [
    piece({"content": "let me look"}),
    piece(
        {
            "tool_calls": [
                {"id": "a", "function": {"name": "look", "arguments": '{"city":"Oslo"}'}},
                {"id": "b", "function": {"name": "look", "arguments": '{"city":"Rome"}'}},
            ]
        }
    ),
    {**piece({}, "tool_calls"), "usage": COUNTS},
]

DIALECTS = {
    "Ollama": OLLAMA,
    "an older Ollama, which numbers all calls alike": OLD_OLLAMA,
    "OpenAI": OPENAI,
    "vLLM": VLLM,
    "llama.cpp": LLAMA_CPP,
    "a server that numbers no calls": WITHOUT_NUMBERS,
}


def understood(pieces: list[dict[str, Any]]) -> tuple[str, ModelResponse]:
    assembly = Assembly("m")
    shown = [assembly.add(one) for one in pieces]
    return "".join(one.content.text for one in shown if one is not None), assembly.whole()


@pytest.mark.parametrize("pieces", DIALECTS.values(), ids=DIALECTS)
def test_the_same_is_understood(pieces: list[dict[str, Any]]) -> None:
    shown, whole = understood(pieces)
    assert shown == "let me look"
    assert whole.content.parts == (
        Text("let me look"),
        FunctionCall("look", {"city": "Oslo"}, "a"),
        FunctionCall("look", {"city": "Rome"}, "b"),
    )
    assert whole.finish_reason == "tool_calls"
    assert whole.usage == Usage(9, 4)


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_thoughts_are_told_apart_from_the_answer(field: str) -> None:
    _, whole = understood(
        [
            piece({field: "well, "}),
            piece({field: "rain"}),
            piece({"content": "It rains."}, "stop"),
        ]
    )
    assert whole.content.parts == (Text("well, rain", thought=True), Text("It rains."))
    assert whole.content.text == "It rains."
