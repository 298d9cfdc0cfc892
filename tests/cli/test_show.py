"""Where a run is shown: streams that may be gone, and JSON that stays one line."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given

from parallel_agent import Event, EventActions
from parallel_agent.cli.running import OutputClosedError
from parallel_agent.cli.show import Printer
from parallel_agent.observe.harmless import json_line
from session import Codec, Origin
from tests.cli.kit import HOSTILE


class Broken(io.StringIO):
    """A pipe that nobody reads."""

    def flush(self) -> None:
        raise BrokenPipeError


def test_output_that_nobody_reads_is_an_error() -> None:
    with pytest.raises(OutputClosedError):
        Printer(Broken(), None).print("x")


def test_a_remark_that_nobody_reads_is_none() -> None:
    closed = io.StringIO()
    closed.close()
    for err in (Broken(), closed, None):
        Printer(None, err).remark("x")


def test_without_standard_output_nothing_is_printed() -> None:
    Printer(None, None).print("x")


@given(HOSTILE.filter(lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text)))
def test_a_line_of_json_is_one_line_and_the_same_event(text: str) -> None:
    event = Event(
        text,
        origin=Origin(author="me", invocation_id="i"),
        actions=EventActions(state_delta={"k": text}),
    )
    event.seal()
    stored = Codec().dumps(event)
    for ascii_only in (True, False):
        shown = json_line(stored, ascii_only=ascii_only)
        assert shown.isprintable()
        assert shown.splitlines() == [shown]
        assert shown.isascii() or not ascii_only
        assert json.loads(shown) == json.loads(stored)


def test_letters_stay_readable_in_json() -> None:
    assert json_line('"é中😀"', ascii_only=False) == '"é中😀"'
    assert json_line('"é😀"', ascii_only=True) == '"\\u00e9\\ud83d\\ude00"'
