"""Text that a terminal acts on becomes text that it shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent.observe.harmless import harmless, one_line
from tests.cli.kit import HOSTILE, acts


@given(HOSTILE)
def test_nothing_that_a_terminal_acts_on_is_left(text: str) -> None:
    assert [letter for letter in harmless(text) if acts(letter) and letter not in "\n\t"] == []


@given(HOSTILE)
def test_one_line_is_one_line_without_anything_of_that_kind(text: str) -> None:
    assert [letter for letter in one_line(text) if acts(letter)] == []


@given(st.text(st.characters(exclude_categories=["C", "Z"])))
def test_what_can_be_shown_stays_as_it_is(text: str) -> None:
    assert harmless(text) == text


@given(HOSTILE)
def test_what_it_returns_can_be_encoded(text: str) -> None:
    harmless(text).encode()


def test_that_the_oracle_knows_what_acts_is_proved() -> None:
    assert all(acts(letter) for letter in "\x1b\x9b\u202e\u2066\ud800\u2028")
    assert not any(acts(letter) for letter in "aé中 \u200d")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb", "a\\u202eb"),
        ("a\udc80", "a\\udc80"),
        ("a\r\nb\tc", "a\nb\tc"),
        ("a\rb", "a\\x0db"),
    ],
)
def test_it_becomes_a_visible_escape(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_white_space_becomes_one_space_on_one_line() -> None:
    assert one_line("  a\n\n b\tc ") == "a b c"


@given(st.text(), st.integers(1, 20))
def test_one_line_keeps_its_limit(text: str, limit: int) -> None:
    assert len(one_line(text, limit)) <= limit


def test_that_text_was_cut_shows() -> None:
    assert one_line("abcdef", 4) == "abc…"
    assert one_line("abcd", 4) == "abcd"
