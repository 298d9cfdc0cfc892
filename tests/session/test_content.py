from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given

from session import (
    Content,
    FrozenDict,
    FrozenValueError,
    FunctionCall,
    FunctionResponse,
    InlineData,
    OtherPart,
    Part,
    Text,
    UnstorableError,
)
from tests.session.strategies import contents, json_objects


def test_text_is_short_for_a_content_of_one_text_part() -> None:
    assert Content("hello") == Content((Text("hello"),)) == Content([Text("hello")])


@pytest.mark.parametrize("part", [Text("a"), FunctionCall("f"), OtherPart({"x": 1})])
def test_one_part_is_short_for_a_content_of_that_part(part: Part) -> None:
    assert Content(part).parts == (part,)


def test_the_text_is_all_text_parts_joined() -> None:
    assert Content((Text("a"), FunctionCall("f"), Text("b"))).text == "ab"


def test_thoughts_are_not_part_of_the_text() -> None:
    assert Content((Text("hm ", thought=True), Text("yes"))).text == "yes"


def test_a_content_without_parts_has_no_text() -> None:
    assert Content(()).text == ""


def test_the_model_speaks_unless_said_otherwise() -> None:
    assert Content("a").role == "model"


@pytest.mark.parametrize("parts", [[Text("a"), "b"], [1], [None], b"ab", {"text": "a"}])
def test_what_is_no_part_is_refused_with_its_index(parts: Any) -> None:
    with pytest.raises(TypeError, match=r"parts\[\d\] is a"):
        Content(parts)


@given(json_objects)
def test_arguments_and_responses_are_frozen_copies(value: dict[str, Any]) -> None:
    for made in (FunctionCall("f", value).args, FunctionResponse("f", value).response):
        assert type(made) is FrozenDict
        assert made == value
        assert made is not value


def test_arguments_cannot_be_changed() -> None:
    with pytest.raises(FrozenValueError):
        FunctionCall("f", {"a": [1]}).args["a"].append(2)


@pytest.mark.parametrize("args", [None, [], "text", 1])
def test_arguments_that_are_no_mapping_are_refused(args: Any) -> None:
    with pytest.raises(UnstorableError, match="a mapping is needed"):
        FunctionCall("f", args)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Text(None),  # type: ignore[arg-type]  # what the test is about
        lambda: Text("\ud800"),
        lambda: FunctionCall(None),  # type: ignore[arg-type]  # as above
        lambda: FunctionCall("\ud800"),
        lambda: FunctionCall("f", {}, 5),  # type: ignore[arg-type]  # as above
        lambda: FunctionCall("f", {"a": object()}),
        lambda: FunctionResponse("f", {1: 2}),  # type: ignore[dict-item]  # as above
        lambda: InlineData(b"", "\ud800"),
        lambda: Content("a", role="\ud800"),
        lambda: Content("a", role=b"user"),  # type: ignore[arg-type]  # as above
        lambda: OtherPart({"a": {1}}),
    ],
)
def test_what_has_no_json_form_is_refused_where_the_part_is_made(make: Any) -> None:
    with pytest.raises(UnstorableError):
        make()


@pytest.mark.parametrize("data", ["text", bytearray(b"x"), None])
def test_inline_data_is_bytes(data: Any) -> None:
    with pytest.raises(TypeError):
        InlineData(data)


def test_a_thought_is_true_or_false() -> None:
    with pytest.raises(TypeError):
        Text("a", thought=None)  # type: ignore[arg-type]  # what the test is about


def test_bytes_do_not_flood_a_repr() -> None:
    assert "<10000 bytes>" in repr(InlineData(b"x" * 10_000))


@given(contents)
def test_a_content_and_its_parts_cannot_be_changed(content: Content) -> None:
    for thing in (content, *content.parts):
        for field in attrs.fields(type(thing)):
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                setattr(thing, field.name, None)
