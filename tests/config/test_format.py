"""The classes of a file: written and read again, and what they say of themselves."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from ruamel.yaml import YAML

from parallel_agent.config import graph_schema, load_graph
from parallel_agent.config.format import GraphFile, ModelEntry, read_format
from parallel_agent.config.source import read_source
from parallel_agent.schema import Schema
from tests.config.drawn_files import graph_files
from tests.config.writing import ENV, FILES, OPTIONS


def as_yaml(value: Any) -> str:
    written = io.StringIO()
    YAML(typ="safe", pure=True).dump(value, written)
    return written.getvalue()


def without_nulls(value: Any) -> Any:
    """The same with half of it left out: null is the same as a missing key."""
    if isinstance(value, list):
        return [without_nulls(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {key: without_nulls(one) for key, one in value.items() if one is not None}


@given(graph_files())
def test_a_file_that_is_written_and_read_again_says_the_same(value: dict[str, Any]) -> None:
    file = Schema(GraphFile).structure(value)
    text = as_yaml(without_nulls(Schema(GraphFile).unstructure(file)))
    assert read_format(read_source(text, "a.yaml", {})) == file


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(graph_files())
def test_a_file_makes_the_same_graph_in_yaml_and_in_json(
    tmp_path: Path, value: dict[str, Any]
) -> None:
    paths = tmp_path / "a.yaml", tmp_path / "a.json"
    paths[0].write_text(as_yaml(value), "utf-8")
    paths[1].write_text(json.dumps(value), "utf-8")
    one, other = (load_graph(path, **OPTIONS) for path in paths)
    assert one.shape == other.shape
    assert [agent.name for agent in one.sub_agents] == [agent.name for agent in other.sub_agents]


def test_a_difference_would_be_seen() -> None:
    one, other = (
        Schema(GraphFile).structure({"nodes": [{"id": "a", "timeout": seconds}]})
        for seconds in (1, 2)
    )
    assert one != other


def test_keys_that_are_not_attributes_have_their_own_names_in_files() -> None:
    definitions = graph_schema()["$defs"]
    assert "if" in definitions["EdgeEntry"]["properties"]
    assert "import" in definitions["BoardEntry"]["properties"]


def test_the_schema_says_what_it_is_and_refuses_unknown_keys() -> None:
    schema = graph_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "A graph file of parallel-agent"
    assert schema["required"] == ["nodes"]
    objects = [schema, *schema["$defs"].values()]
    assert all(one["additionalProperties"] is False for one in objects if "properties" in one)


def test_the_schema_names_every_key_that_a_file_may_have() -> None:
    names = [field.name for field in attrs.fields(GraphFile)]
    assert list(graph_schema()["properties"]) == ["$schema", *names]


def test_every_reference_in_the_schema_leads_somewhere() -> None:
    schema = graph_schema()
    references = [part["$ref"] for part in parts(schema) if "$ref" in part]
    assert references
    assert {one.removeprefix("#/$defs/") for one in references} <= schema["$defs"].keys()


def parts(schema: Any) -> list[dict[str, Any]]:
    """All objects in a schema."""
    inside = schema.values() if isinstance(schema, dict) else schema
    nested = [part for one in inside if isinstance(one, dict | list) for part in parts(one)]
    return [schema, *nested] if isinstance(schema, dict) else nested


@pytest.mark.parametrize("path", sorted(FILES.iterdir()), ids=lambda path: path.name)
def test_the_files_of_the_tests_fit(path: Path) -> None:
    source = read_source(path.read_text("utf-8"), path.name, ENV)
    assert isinstance(read_format(source), GraphFile)


def test_the_keys_of_a_model_are_not_shown() -> None:
    model = ModelEntry(llm="openai", model="m", api_key="key-1", aws_secret_key="key-2")  # noqa: S106  # no real one
    assert "key-" not in repr(model)
