"""Structured output: types of every kind and JSON Schemas, read strictly."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, TypedDict

import attrs
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent.errors import TreeError
from parallel_agent.llm.agent import LlmAgent
from parallel_agent.llm.model import ModelResponse
from parallel_agent.llm.output import Output
from parallel_agent.model_errors import MissingExtraError, ModelOutputError
from parallel_agent.schema import Schema
from parallel_agent.testing.scripted_model import ScriptedModel
from session.content import Content
from tests.workflow.trees import run_tree


@attrs.frozen
class Attrs:
    good: bool
    score: int


@dataclass
class Data:
    good: bool
    score: int


class Typed(TypedDict):
    good: bool
    score: int


class Model(pydantic.BaseModel):
    good: bool
    score: int


JSON: dict[str, Any] = {
    "type": "object",
    "properties": {"good": {"type": "boolean"}, "score": {"type": "integer"}},
    "required": ["good", "score"],
    "additionalProperties": False,
}

KINDS = [Attrs, Data, Typed, Model, JSON, Schema(Attrs)]


@pytest.mark.parametrize("wanted", KINDS)
def test_what_fits_is_read(wanted: Any) -> None:
    output = Output(wanted, "a")
    assert output.read(' {"good": true, "score": 3}\n') == (None, {"good": True, "score": 3})


@pytest.mark.parametrize("wanted", KINDS)
@pytest.mark.parametrize(
    "text",
    [
        '{"good": "yes", "score": 3}',
        '{"good": true, "score": 3.5}',
        '{"good": true}',
        '{"good": true, "score": NaN}',
        "[1]",
        "true",
        "",
        "well",
        '{"good": true, "score": 3} and so on',
    ],
)
def test_what_does_not_fit_is_told(wanted: Any, text: str) -> None:
    problem, value = Output(wanted, "a").read(text)
    assert problem
    assert value is None


@pytest.mark.parametrize("fence", ["```json\n{}\n```", "```\n{}```", "  ```JSON\n{}\n```\n"])
def test_a_fence_of_markdown_is_no_obstacle(fence: str) -> None:
    text = fence.replace("{}", '{"good": true, "score": 3}')
    assert Output(Attrs, "a").read(text)[0] is None


@given(st.text())
def test_no_text_breaks_the_reading(text: str) -> None:
    for wanted in (Attrs, JSON):
        Output(wanted, "a").read(text)


def test_deep_nesting_is_told_and_nothing_breaks() -> None:
    assert Output(JSON, "a").read("[" * 100_000)[0]


def test_a_json_schema_that_is_none_is_refused() -> None:
    with pytest.raises(TreeError, match=r"output_schema of 'a' is no JSON Schema: \$\.type"):
        LlmAgent("a", ScriptedModel([]), output_schema={"type": "thing"})


def test_a_type_that_cannot_be_checked_is_refused() -> None:
    with pytest.raises(TreeError, match="output_schema of 'a'"):
        LlmAgent("a", ScriptedModel([]), output_schema=print)


def test_without_jsonschema_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'parallel-agent\[jsonschema\]'"):
        Output(JSON, "a")


def test_the_schema_is_sent() -> None:
    model = ScriptedModel(['{"good": true, "score": 3}'])
    run_tree(LlmAgent("a", model, output_schema=JSON))
    assert model.requests[0].output_schema == JSON


def test_a_refusal_is_not_sent_back_for_repair() -> None:
    refused = ModelResponse(content=Content("I will not", role="model"), refusal="I will not")
    model = ScriptedModel([refused])
    ended = run_tree(LlmAgent("a", model, output_schema=JSON))
    assert isinstance(ended.error, ModelOutputError)
    assert "it refuses to answer agent 'a': I will not" in str(ended.error)
    assert len(model.requests) == 1


@pytest.mark.parametrize("reference", ["#/$defs/none", "http://127.0.0.1/schema.json", "other"])
def test_a_reference_to_what_is_not_there_is_refused(reference: str) -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": reference}}}
    with pytest.raises(TreeError, match=r"output_schema of 'a' refers to .*, which is not in it"):
        Output(schema, "a")


def test_a_reference_to_what_is_there_is_followed() -> None:
    schema = {"$defs": {"n": {"type": "integer"}}, "type": "array", "items": {"$ref": "#/$defs/n"}}
    output = Output(schema, "a")
    assert output.read("[1, 2]") == (None, [1, 2])
    assert output.read('["x"]')[0] == "$[0]: 'x' is not of type 'integer'"
