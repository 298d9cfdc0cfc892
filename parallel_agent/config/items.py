"""What a text consists of, before anything is read into it: scalars, lists and tables with places.

Pure: no I/O.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

import attrs

from parallel_agent.config.problems import Spot

__all__ = [
    "MAX_DEPTH",
    "MAX_VALUES",
    "Item",
    "Listing",
    "Scalar",
    "Table",
    "UnreadableError",
    "resolve",
    "spot_of",
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


_BREAK: Final = re.compile(r"\r\n|[\n\r\x85\u2028\u2029]")


def spot_of(text: str, position: int) -> Spot:
    """Return where the character at ``position`` stands."""
    line, start = 1, 0
    for found in _BREAK.finditer(text, 0, max(position, 0)):
        line, start = line + 1, found.end()
    return Spot(line, max(position - start, 0) + 1)
