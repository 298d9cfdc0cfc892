"""An event as a line, an error as a few."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    Content,
    Event,
    EventActions,
    FunctionCall,
    FunctionResponse,
    InlineData,
    InvocationContext,
    Runner,
    Text,
    agent,
)
from parallel_agent.cli.describe import error_lines, event_lines, traceback_lines
from session import BranchOutcome, Origin, OtherPart
from tests.cli.kit import HOSTILE, acts

HERE = Origin(author="me", branch="fan.me", path="fan/me", invocation_id="i")
COLUMNS = f"{'fan.me':24}  {'me':14}  "


def line(content: str | Content | None = None, **fields: Any) -> str:
    """What follows branch and author."""
    event = Event(content, origin=HERE, **fields)
    event.seal()
    shown = event_lines(event)
    assert shown.startswith(COLUMNS.rstrip())
    return shown[len(COLUMNS) :]


def test_an_event_is_branch_author_and_text() -> None:
    assert event_lines(Event("hello", origin=HERE)) == f"{COLUMNS}hello"


def test_the_root_branch_is_a_dash() -> None:
    origin = Origin(author="me", path="me", invocation_id="i")
    assert event_lines(Event("hello", origin=origin)).split() == ["-", "me", "hello"]


def test_further_lines_of_a_text_are_indented() -> None:
    assert line("one\n\n  two\n").split("\n") == ["one", "", "      two", ""]


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({}, "(nothing)"),
        ({"output": {"count": 3}}, '(output {"count": 3})'),
        ({"output": "x" * 500}, f'(output "{"x" * 118}…)'),
        ({"actions": EventActions(state_delta={"a": 1, "user:b": 2})}, "(state a, user:b)"),
        ({"actions": EventActions(escalate=True)}, "(escalates)"),
        ({"actions": EventActions(transfer_to_agent="boss")}, "(transfers to boss)"),
        (
            {"actions": EventActions(artifact_delta={"a.md": 0, "b.md": 3})},
            "(saved a.md, version 0; saved b.md, version 3)",
        ),
        ({"error_code": "E1", "error_message": "no\nluck"}, "(error: E1: no luck)"),
        (
            {
                "actions": EventActions(
                    outcomes=(
                        BranchOutcome("count", "completed"),
                        BranchOutcome("other", "failed", "ValueError", "no luck"),
                        BranchOutcome("third", "failed", "KeyError", ""),
                    )
                )
            },
            "(count completed, other failed: ValueError: no luck, third failed: KeyError)",
        ),
    ],
)
def test_an_event_without_text_says_what_it_is(fields: dict[str, Any], shown: str) -> None:
    assert line(**fields) == shown


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        (Text("hm", thought=True), "(thinks: hm)"),
        (FunctionCall("look", {"where": "up"}), '(calls look {"where": "up"})'),
        (FunctionCall("look"), "(calls look ())"),
        (FunctionResponse("look", {"seen": 1}), '(look answers {"seen": 1})'),
        (InlineData(b"12345", "image/png"), "(image/png, 5 bytes)"),
        (OtherPart({"executableCode": {}}), "(executableCode)"),
    ],
)
def test_a_part_that_is_no_text_says_what_it_is(part: Any, shown: str) -> None:
    assert line(Content(part)) == shown


def test_beside_a_text_stands_only_what_the_text_does_not_say() -> None:
    actions = EventActions(state_delta={"a": 1}, escalate=True)
    assert line("done", actions=actions, output=1) == "done (escalates)"
    assert line("so\nit goes", actions=actions).splitlines() == [
        "so",
        "    it goes",
        "    (escalates)",
    ]


def test_a_piece_of_a_message_is_marked() -> None:
    assert line("so", partial=True) == "… so"


@given(HOSTILE.filter(lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text)))
def test_nothing_in_an_event_acts_on_the_terminal(text: str) -> None:
    origin = Origin(author=text, branch=text, path=text, invocation_id=text)
    outcome = BranchOutcome(text, text, text, text)
    event = Event(
        Content((Text(text), FunctionCall(text, {text: text}), OtherPart({text: 1}))),
        actions=EventActions(state_delta={text: text}, outcomes=(outcome,), transfer_to_agent=text),
        error_message=text,
        origin=origin,
    )
    shown = event_lines(event)
    assert [letter for letter in shown if acts(letter) and letter not in "\n\t"] == []
    # A line of somebody's own cannot be mistaken for an event's.
    assert all(part.startswith("    ") for part in shown.split("\n")[1:] if part)


# --------------------------------------------------------------------------------------- an error


def failed(error: BaseException) -> BaseException:
    with pytest.raises(type(error)) as raised:
        raise error
    return raised.value


def test_an_error_names_the_innermost_place_in_the_users_code() -> None:
    _, place = error_lines(failed(ValueError("no"))).split("\n")
    assert place.strip().startswith(f"in {__file__}:")


async def test_an_agents_error_names_the_place_in_the_agent() -> None:
    @agent
    async def fails(ctx: InvocationContext) -> None:
        raise ValueError("here")

    with pytest.raises(ValueError, match="here") as raised:
        await Runner(fails).run("go")
    line = fails.function.__code__.co_firstlineno + 2
    assert f"in {__file__}:{line} " in error_lines(raised.value)


def test_an_error_is_its_type_its_message_and_its_notes() -> None:
    error = ValueError("no\nluck")
    error.add_note("raised by agent line/me")
    assert error_lines(error).split("\n") == [
        "ValueError: no",
        "    luck",
        "    raised by agent line/me",
    ]


def test_an_error_without_words_is_its_type() -> None:
    assert error_lines(KeyboardInterrupt()) == "KeyboardInterrupt"


@given(st.text())
def test_an_error_cannot_act_on_the_terminal(text: str) -> None:
    error = failed(ValueError(text))
    error.add_note(text)
    shown = error_lines(error) + traceback_lines(error)
    assert [letter for letter in shown if acts(letter) and letter not in "\n\t"] == []


def test_an_error_with_odd_notes_is_shown_all_the_same() -> None:
    error = ValueError("no")
    error.__notes__ = [1, "two"]  # type: ignore[list-item]  # somebody does
    assert error_lines(error).split("\n") == ["ValueError: no", "    1", "    two"]
    error.__notes__ = None  # type: ignore[assignment]  # or that
    assert error_lines(error) == "ValueError: no"
