"""What the tests of the command line share: how it is called, and text that means harm."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Final, Protocol

import attrs
from hypothesis import strategies as st

__all__ = ["HOSTILE", "Call", "Called", "Write", "acts"]


@attrs.frozen
class Called:
    """What a call of the command line came to."""

    status: int
    out: str
    err: str


class Call(Protocol):
    """Calls the command line; each is a command of its own."""

    def __call__(self, *arguments: object, stdin: bytes | None = None) -> Called: ...


class Write(Protocol):
    """Writes a Python file and returns where it is."""

    def __call__(self, source: str, name: str = "my_tree.py") -> Path: ...


# From the character database, which the code does not ask.
DIRECTIONS: Final = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}

HOSTILE: Final = st.text(
    st.one_of(
        st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"]),
        st.sampled_from("a é中\u202e\u2066\x1b\x9b\r\n\t[red]"),
    )
)


def acts(letter: str) -> bool:
    """Whether a terminal may do something else with it than show it."""
    return (
        unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"}
        or unicodedata.bidirectional(letter) in DIRECTIONS
    )
