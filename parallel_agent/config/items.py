"""What a text consists of, before anything is read into it: scalars, lists and tables with places.

Pure: no I/O.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Any, Final, TypeAlias

import attrs

from parallel_agent.config.problems import Spot

__all__ = [
    "MAX_DEPTH",
    "MAX_VALUES",
    "Item",
    "Lines",
    "Listing",
    "Scalar",
    "Table",
    "UnreadableError",
    "resolve",
]

MAX_DEPTH: Final = 50
"""How deep lists and tables may nest."""

MAX_VALUES: Final = 200_000
"""How many values a file may have, those that aliases repeat counted each time."""

_MAX_DIGITS: Final = 1000


class UnreadableError(Exception):
    """A text that cannot be read. Kept inside this package: it becomes a `Problem`."""

    def __init__(self, spot: Spot, why: str) -> None:
        """Name the place and the reason."""
        super().__init__(why)
        self.spot = spot
        self.why = why


@attrs.frozen(eq=False)
class Scalar:
    """A single value.

    Attributes:
        spot: where it stands.
        text: as it was written, without quotes.
        plain: it had no quotes, and so may stand for a number, true, false or null.
    """

    spot: Spot
    text: str
    plain: bool = False


@attrs.frozen(eq=False)
class Listing:
    """A list."""

    spot: Spot
    items: list[Item] = attrs.Factory(list)  # pyright: ignore[reportUnknownVariableType]  # of items


@attrs.frozen(eq=False)
class Table:
    """Keys and values, in order; a key may be there twice, and need not be text."""

    spot: Spot
    pairs: list[tuple[Item, Item]] = attrs.Factory(list)  # pyright: ignore[reportUnknownVariableType]  # of pairs


Item: TypeAlias = Scalar | Listing | Table

# YAML 1.2's core schema. Not that of 1.1: there `no` is false, and `1:30` is ninety.
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_WORDS: Final = {
    word: value
    for value, name in ((True, "true"), (False, "false"))
    for word in (name, name.title(), name.upper())
}
_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_BASED: Final = re.compile(r"0o([0-7]+)|0x([0-9a-fA-F]+)")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def resolve(text: str, spot: Spot) -> Any:
    """Return what unquoted text stands for, by YAML 1.2's core schema.

    Raises:
        UnreadableError: a number that is too long.
    """
    if text in _NULL:
        return None
    if text in _WORDS:
        return _WORDS[text]
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", ""))
    based = _BASED.fullmatch(text)
    is_whole = _INTEGER.fullmatch(text) is not None
    if based is None and not is_whole and not _FLOAT.fullmatch(text):
        return text
    if len(text) > _MAX_DIGITS:
        raise UnreadableError(spot, f"a number of {len(text)} digits is too long")
    if based is not None:
        return int(based[1], 8) if based[1] else int(based[2], 16)
    return int(text) if is_whole else float(text)


# What editors count as lines. For YAML 1.1 there are more.
_BREAK: Final = re.compile(r"\r\n|[\n\r]")


class Lines:
    """The lines of a text, to find places in it."""

    def __init__(self, text: str) -> None:
        """Count them."""
        self._text = text
        self._starts = [0, *(found.end() for found in _BREAK.finditer(text))]

    def spot(self, position: int) -> Spot:
        """Return where the character at ``position`` stands, or the end of the text."""
        position = max(min(position, len(self._text)), 0)
        if self._text[max(position - 1, 0) : position + 1] == "\r\n":
            position -= 1  # both end the line, and the line has one end
        line = bisect_right(self._starts, position)
        return Spot(line, position - self._starts[line - 1] + 1)
