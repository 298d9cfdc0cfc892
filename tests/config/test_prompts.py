"""Prompts: labels as tags, placeholders, and what fills them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent.config.format import (
    BoardUse,
    MessagePassing,
    NodeEntry,
    PromptUse,
    Template,
)
from parallel_agent.config.prompts import (
    PlaceholderError,
    active_names,
    active_values,
    fill,
    placeholders,
    render,
    render_prompt,
)

VALUES = {"name": "Ada", "braces": "{name} {{x}} }", "empty": ""}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("hello {name}", "hello Ada"),
        ("{name}{name}", "AdaAda"),
        ("{empty}", ""),
        ("{{name}}", "{name}"),
        ("{{{name}}}", "{Ada}"),
        ('{"a": 1} { } {} {1}', '{"a": 1} { } {} {1}'),
        ("a } b { c", "a } b { c"),
        ("{braces}", "{name} {{x}} }"),
        ("$name ${name}", "$name $Ada"),
    ],
)
def test_placeholders_are_filled_and_other_braces_stay(text: str, filled: str) -> None:
    assert fill(text, VALUES) == filled


@given(st.text())
def test_a_value_is_put_in_as_it_is(value: str) -> None:
    assert fill("a {x} b", {"x": value}) == f"a {value} b"


@given(st.text())
def test_what_is_doubled_comes_out_single(text: str) -> None:
    doubled = text.replace("{", "{{").replace("}", "}}")
    assert fill(doubled, {}) == text


def test_a_placeholder_without_a_value_is_named() -> None:
    with pytest.raises(PlaceholderError, match=r"\{nobody\} has no value here; there are name,"):
        fill("{nobody}", VALUES)
    with pytest.raises(PlaceholderError, match="there are none"):
        fill("{nobody}", {})


@pytest.mark.parametrize("more", [".upper", "[0]", "!r", ":>5", ".__class__.__mro__"])
def test_a_placeholder_is_a_name_and_no_more(more: str) -> None:
    with pytest.raises(PlaceholderError, match=r"write \{name\}, or \{\{ for a brace"):
        fill(f"{{name{more}}}", VALUES)


def test_placeholders_are_found_in_order() -> None:
    assert list(placeholders("{b} {{c}} {a} {b}")) == ["b", "a", "b"]


def test_texts_stand_in_tags_named_by_their_labels() -> None:
    texts = {"role": "You are {name}.\n", "task": "Write."}
    assert render(texts, VALUES) == ("<role>\nYou are Ada.\n</role>\n\n<task>\nWrite.\n</task>\n\n")


@pytest.mark.parametrize("texts", [None, {}])
def test_a_side_without_texts_is_empty(texts: dict[str, str] | None) -> None:
    assert render(texts, VALUES) == ""


@pytest.mark.parametrize(
    ("label", "tag"),
    [
        ("plain", "plain"),
        ("my label", "my_label"),
        ("9x", "_9x"),
        ("-a", "_-a"),
        ("a-b_c9", "a-b_c9"),
        ("<b>", "_b_"),
        ("", "_"),
        ("größe", "größe"),
    ],
)
def test_a_label_becomes_a_name_that_a_tag_may_have(label: str, tag: str) -> None:
    assert render({label: "x"}, {}) == f"<{tag}>\nx\n</{tag}>\n\n"


def test_a_text_that_cannot_be_filled_is_named() -> None:
    with pytest.raises(PlaceholderError, match=r"prompt text 'task': the placeholder \{x\}"):
        render({"task": "{x}"}, {})


def test_both_sides_are_filled_with_the_same() -> None:
    template = Template(system_template={"a": "{name}"}, prompt_template={"b": "{name}!"})
    assert render_prompt(template, VALUES) == ("<a>\nAda\n</a>\n\n", "<b>\nAda!\n</b>\n\n")


# ---------------------------------------------------------------------------------- what is active


RUN = {
    "user_message": " hello \n",
    "message_passing": "\nsaid",
    "retrieved_chunks": None,
    "blackboard": " written\n",
}


def entry(*, is_on: bool, **own: str | float | bool | None) -> NodeEntry:
    return NodeEntry(
        id="a",
        prompt=PromptUse(
            template=0, user_message=is_on, retrieved_chunks=is_on, prompt_placeholders=own
        ),
        message_passing=MessagePassing(input=is_on, output=True),
        blackboard=BoardUse(id="x", read=is_on, write=True),
    )


def test_a_node_fills_what_it_has_switched_on_and_what_there_is() -> None:
    assert active_values(entry(is_on=True), RUN) == {
        "user_message": "hello",
        "message_passing": "said",
        "blackboard": " written\n",
    }
    assert active_values(entry(is_on=False), RUN) == {}


def test_placeholders_of_its_own_are_texts() -> None:
    assert active_values(entry(is_on=False, a="x", b=3, c=1.5, d=True), RUN) == {
        "a": "x",
        "b": "3",
        "c": "1.5",
        "d": "True",
    }


def test_what_is_switched_on_goes_before_a_placeholder_of_that_name() -> None:
    assert active_values(entry(is_on=True, user_message="own"), RUN)["user_message"] == "hello"
    assert active_values(entry(is_on=False, user_message="own"), RUN) == {"user_message": "own"}
    assert (
        active_values(entry(is_on=True, retrieved_chunks="own"), RUN)["retrieved_chunks"] == "own"
    )


def test_a_node_without_a_prompt_fills_nothing_of_its_own() -> None:
    assert active_values(NodeEntry(id="a"), RUN) == {}
    assert active_names(NodeEntry(id="a")) == ["input"]


def test_the_names_are_those_that_may_be_filled() -> None:
    assert active_names(entry(is_on=True, x="y")) == [
        "x",
        "user_message",
        "message_passing",
        "retrieved_chunks",
        "blackboard",
        "input",
    ]
