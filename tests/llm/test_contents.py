"""What a model is sent of what was said: whose it is, and calls and answers in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import Content, Event, FunctionCall, FunctionResponse, InlineData, Text
from parallel_agent.llm.contents import contents_of, input_content
from session import Origin


def said(author: str, *parts: Any, partial: bool = False) -> Event:
    content = Content(tuple(Text(part) if isinstance(part, str) else part for part in parts))
    return Event(content, partial=partial, origin=Origin(author=author, invocation_id="i"))


def call(name: str, number: int | None = None, **args: Any) -> FunctionCall:
    return FunctionCall(name, args, None if number is None else f"c{number}")


def answer(name: str, number: int | None = None, result: Any = "done") -> FunctionResponse:
    return FunctionResponse(name, {"result": result}, None if number is None else f"c{number}")


def sent(*events: Event) -> list[tuple[str | None, list[Any]]]:
    """Return what the model of ``me`` is sent, texts as texts."""
    return [
        (content.role, [part.text if isinstance(part, Text) else part for part in content.parts])
        for content in contents_of(events, "me")
    ]


def test_its_own_words_are_the_models_and_all_others_the_users() -> None:
    assert sent(said("user", "hi"), said("me", "hello"), said("other", "well")) == [
        ("user", ["hi"]),
        ("model", ["hello"]),
        ("user", ["[other] said: well"]),
    ]


def test_what_others_have_called_is_told_as_text() -> None:
    events = said("other", call("look", 1, at="x")), said("other", answer("look", 1, 3))
    assert sent(*events) == [
        ("user", ['[other] called look with {"at": "x"}']),
        ("user", ['[other] was answered by look: {"result": 3}']),
    ]


def test_partial_events_thoughts_and_empty_texts_are_not_sent() -> None:
    events = (
        said("me", "ha", partial=True),
        said("me", Text("hm", thought=True), ""),
        said("me", "b"),
    )
    assert sent(*events) == [("model", ["b"])]


def test_images_are_sent_as_they_are() -> None:
    image = InlineData(b"x", "image/png")
    assert sent(said("user", "look", image), said("other", image)) == [
        ("user", ["look", image]),
        ("user", [image]),
    ]


def test_each_answer_stands_behind_its_call_in_the_order_of_the_calls() -> None:
    events = [
        said("me", "let me see", call("a", 1), call("b", 2)),
        said("user", "by the way"),
        said("me", answer("b", 2)),
        said("me", answer("a", 1)),
    ]
    assert sent(*events) == [
        ("model", ["let me see", call("a", 1), call("b", 2)]),
        ("user", [answer("a", 1), answer("b", 2)]),
        ("user", ["by the way"]),
    ]


def test_a_call_without_an_answer_is_left_out() -> None:
    assert sent(said("me", "I look", call("a", 1), call("b", 2)), said("me", answer("b", 2))) == [
        ("model", ["I look", call("b", 2)]),
        ("user", [answer("b", 2)]),
    ]
    assert sent(said("me", call("a", 1)), said("user", "go on")) == [("user", ["go on"])]


def test_an_answer_without_a_call_is_left_out() -> None:
    assert sent(said("me", answer("a", 1)), said("user", "go on")) == [("user", ["go on"])]


def test_what_takes_long_is_answered_by_the_last_answer() -> None:
    events = (
        said("me", call("a", 1)),
        said("me", answer("a", 1, "begun")),
        said("user", answer("a", 1, "over")),
    )
    assert sent(*events) == [("model", [call("a", 1)]), ("user", [answer("a", 1, "over")])]


def test_without_ids_answers_are_matched_by_name_in_order() -> None:
    events = (
        said("me", call("a", n=1), call("a", n=2)),
        said("me", answer("a", None, 1), answer("a", None, 2)),
    )
    assert sent(*events)[1] == ("user", [answer("a", None, 1), answer("a", None, 2)])


@pytest.mark.parametrize(
    ("value", "text"), [("x", "x"), ({"a": "é"}, '{"a": "é"}'), (None, "null")]
)
def test_an_input_is_what_the_user_says(value: object, text: str) -> None:
    content = input_content(value)
    assert (content.role, content.text) == ("user", text)


# What servers refuse: calls and answers that are not in pairs, whatever happened before.

parts = st.one_of(
    st.builds(lambda number: call("t", number), st.integers(0, 4)),
    st.builds(lambda number: answer("t", number), st.integers(0, 4)),
    st.sampled_from(["a", "b"]).map(Text),
)
logs = st.lists(
    st.builds(
        lambda author, some: said(author, *some),
        st.sampled_from(["me", "user", "other"]),
        st.lists(parts, min_size=1, max_size=4),
    ),
    max_size=8,
)


def unpaired(contents: Sequence[Content]) -> list[str]:
    """Return what a server would refuse."""
    wrong: list[str] = []
    for position, content in enumerate(contents):
        calls = [part.id for part in content.parts if isinstance(part, FunctionCall)]
        answers = [part.id for part in content.parts if isinstance(part, FunctionResponse)]
        before = contents[position - 1].parts if position else ()
        asked = [part.id for part in before if isinstance(part, FunctionCall)]
        if answers and answers != asked:
            wrong.append(f"answers {answers} to {asked}")
        after = contents[position + 1].parts if position + 1 < len(contents) else ()
        given = [part.id for part in after if isinstance(part, FunctionResponse)]
        if calls and calls != given:
            wrong.append(f"calls {calls} answered by {given}")
    return wrong


@given(logs)
def test_whatever_was_recorded_calls_and_answers_are_in_pairs(log: list[Event]) -> None:
    assert unpaired(contents_of(log, "me")) == []


def test_the_checker_finds_what_is_not_in_pairs() -> None:
    lone = Content((call("a", 1),)), Content((answer("b", 2),), role="user")
    assert len(unpaired(lone)) == 2


@given(logs, st.integers(0, 8))
def test_so_are_those_of_any_window(log: list[Event], last: int) -> None:
    assert unpaired(contents_of(log[-last:], "me")) == []
