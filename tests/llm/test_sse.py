"""Server-sent events, split anywhere."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent.llm.sse import EventReader


def read(*received: bytes) -> list[str]:
    reader = EventReader()
    found = [data for piece in received for data in reader.feed(piece)]
    return [*found, *reader.end()]


DATA = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=8)


@given(
    st.lists(st.lists(DATA, min_size=1, max_size=3), max_size=4),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["", ": alive", "event: x", "id: 3", "retry", "data"]),
    st.lists(st.integers(0, 60), max_size=6),
)
def test_wherever_it_is_split_the_same_is_read(
    events: list[list[str]], end: str, other: str, cuts: list[int]
) -> None:
    blocks = [end.join(f"data: {line}" for line in lines) + end * 2 for lines in events]
    whole = (f"{other}{end}" if other else "").join(["", *blocks]).encode()
    edges = [0, *sorted(cuts), len(whole)]
    pieces = [whole[a:b] for a, b in pairwise(edges)]
    assert read(*pieces) == ["\n".join(lines) for lines in events]


def test_a_space_after_the_colon_is_not_needed() -> None:
    assert read(b"data:a\n\ndata:  b\n\n") == ["a", " b"]


def test_what_nothing_has_ended_is_read_at_the_end() -> None:
    assert read(b"data: a") == ["a"]
    assert read(b"data: a\r") == ["a"]
    assert read(b"") == []


def test_separators_of_other_kinds_end_no_line() -> None:
    """Other than `str.splitlines` has it: JSON may hold them as they are."""
    assert read('data: "a\u2028b\x85c"\n\n'.encode()) == ['"a\u2028b\x85c"']


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(UnicodeDecodeError):
        read(b"data: \xff\n\n")
