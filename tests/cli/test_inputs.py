"""The message and the state, as a command line gives them."""

from __future__ import annotations

import io
import json
import os
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent.cli.inputs import InputError, check_text, find_message, parse_state


def never(text: str) -> None:
    """Nobody waits here."""
    raise AssertionError(text)


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """A pipe: where to write, and the standard input that it is."""
    reads, writes = os.pipe()
    with open(reads, encoding="utf-8") as stdin:  # noqa: PTH123  # it has no path
        yield writes, stdin


def put(pipe: tuple[int, TextIO], data: bytes) -> TextIO:
    os.write(pipe[0], data)
    os.close(pipe[0])
    return pipe[1]


# ------------------------------------------------------------------------------------ the message


def test_the_argument_is_the_message_as_it_stands() -> None:
    assert find_message(" one\n", None, None, never) == " one\n"


def test_an_empty_argument_is_a_message() -> None:
    assert find_message("", None, None, never) == ""


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"one\ntwo\n", "one\ntwo"),
        (b"one\r\n", "one"),
        (b"one\n\n", "one\n"),
        (b"one\r", "one\r"),
        (b"", ""),
        ("\ufeffé".encode(), "é"),
    ],
)
def test_a_file_is_the_message_without_its_last_newline(
    data: bytes, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "message"
    file.write_bytes(data)
    assert find_message(None, str(file), None, never) == message


def test_a_pipe_is_the_message(pipe: tuple[int, TextIO]) -> None:
    assert find_message(None, None, put(pipe, b"from a pipe\n"), never) == "from a pipe"


def test_a_file_on_standard_input_is_the_message(tmp_path: Path) -> None:
    file = tmp_path / "message"
    file.write_text("from a file\n")
    with file.open() as stdin:
        assert find_message(None, None, stdin, never) == "from a file"


def test_an_empty_pipe_is_no_message(pipe: tuple[int, TextIO]) -> None:
    assert find_message(None, None, put(pipe, b""), never) is None


@pytest.mark.parametrize(("given_", "file"), [("-", None), (None, "-")])
def test_a_dash_asks_for_standard_input_even_if_it_is_empty(
    given_: str | None, file: str | None, pipe: tuple[int, TextIO]
) -> None:
    assert find_message(given_, file, put(pipe, b""), never) == ""


def test_a_pipe_is_not_read_when_there_is_a_message(pipe: tuple[int, TextIO]) -> None:
    # Nobody writes to it, and nobody closes it.
    assert find_message("given", None, pipe[1], never) == "given"
    os.close(pipe[0])


def test_what_is_neither_a_pipe_nor_a_file_is_not_read() -> None:
    with open(os.devnull) as stdin:  # noqa: PTH123  # it is no path
        assert find_message(None, None, stdin, never) is None
    assert find_message(None, None, None, never) is None
    assert find_message(None, None, io.TextIOWrapper(io.BytesIO(b"hidden")), never) is None


def test_somebody_is_told_that_a_silent_pipe_is_waited_for(
    pipe: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parallel_agent.cli.inputs._PATIENCE", 0.0)
    told = list[str]()

    def notice(text: str) -> None:
        told.append(text)
        put(pipe, b"at last")

    assert find_message(None, None, pipe[1], notice) == "at last"
    assert "waiting for the message" in told[0]
    assert "</dev/null" in told[0]


def test_a_pipe_that_does_not_block_is_read_to_its_end(
    pipe: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = select.select

    def go_on(reads: Any, *others: Any) -> Any:
        if reads == [pipe[1].fileno()]:  # not the look whether anything comes at all
            monkeypatch.setattr(select, "select", wait)
            put(pipe, b", and the rest")
        return wait(reads, *others)

    monkeypatch.setattr(select, "select", go_on)
    os.set_blocking(pipe[1].fileno(), False)
    os.write(pipe[0], b"the beginning")
    assert find_message(None, None, pipe[1], never) == "the beginning, and the rest"


def test_a_standard_input_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    number = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    with open(number, encoding="utf-8") as stdin, pytest.raises(InputError, match="cannot be read"):  # noqa: PTH123  # as `0>file` leaves it
        find_message(None, None, stdin, never)


@pytest.mark.parametrize(
    ("given_", "file", "words"),
    [
        ("a", "b", "not both"),
        (None, "missing", "-f missing: No such file"),
        (None, ".", "-f .: Is a directory"),
        (None, "a\0b", "-f a\0b: "),
        (None, "-", "there is no standard input"),
        ("a\udc80", None, "the message is no text in UTF-8"),
    ],
)
def test_a_message_that_cannot_be_had_says_why(
    given_: str | None,
    file: str | None,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as raised:
        find_message(given_, file, None, never)
    assert words in str(raised.value)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    file = tmp_path / "message"
    file.write_bytes(b"abc\xff")
    with pytest.raises(InputError, match="no text in UTF-8: byte 0xff at position 3"):
        find_message(None, str(file), None, never)


# -------------------------------------------------------------------------------------- the state


@pytest.mark.parametrize(
    ("item", "key", "value"),
    [
        ("a=1", "a", 1),
        ("a=1.5", "a", 1.5),
        ("a=true", "a", True),
        ("a=null", "a", None),
        ('a="1"', "a", "1"),
        ('user:tags=["x", {"y": 2}]', "user:tags", ["x", {"y": 2}]),
        ("a=some text", "a", "some text"),
        ("a=", "a", ""),
        ("a=b=c", "a", "b=c"),
        ("a={broken", "a", "{broken"),
        ("a=NaN", "a", "NaN"),
        ("a=-Infinity", "a", "-Infinity"),
        ("a=1e999", "a", "1e999"),
        ("app:é=中", "app:é", "中"),
    ],
)
def test_a_value_is_json_if_it_is_and_else_text(item: str, key: str, value: Any) -> None:
    assert parse_state([item]) == {key: value}


KEYS: Final = st.text("abc:_", min_size=1, max_size=5)
LEAVES: Final = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(st.characters(exclude_categories=["Cs"]))
)
VALUES: Final = LEAVES | st.lists(LEAVES, max_size=3) | st.dictionaries(KEYS, LEAVES, max_size=3)


@given(st.dictionaries(KEYS, VALUES, max_size=3))
def test_any_json_comes_through(state: dict[str, Any]) -> None:
    assert parse_state(f"{key}={json.dumps(value)}" for key, value in state.items()) == state


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (["a"], "--state takes key=value, not 'a'"),
        (["=1"], "--state takes key=value"),
        (["a=1", "a=2"], "--state gives 'a' twice"),
        (["a=\udc80"], "no text in UTF-8"),
        (['a="\\ud800"'], "--state a: "),
        (["a=" + "[" * 100_000], "--state a: it is nested too deeply"),
    ],
)
def test_a_state_that_cannot_be_says_why(items: list[str], words: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_state(items)
    assert words in str(raised.value)


def test_text_that_is_text_passes() -> None:
    assert check_text("é中", "it") == "é中"
