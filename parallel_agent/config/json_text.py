"""JSON text to items, with their places: the standard library's reader keeps none.

Pure: no I/O.
"""

from __future__ import annotations

import re
from json import JSONDecodeError
from json.decoder import scanstring  # type: ignore[attr-defined]  # there, and in no stub
from typing import Any, Final, cast

from parallel_agent.config.items import (
    MAX_DEPTH,
    MAX_VALUES,
    Item,
    Lines,
    Listing,
    Scalar,
    Table,
    UnreadableError,
)
from parallel_agent.config.problems import Spot

__all__ = ["parse_json"]

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_WORD: Final = re.compile(r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_TAKE_STRING: Final = cast("Any", scanstring)


def parse_json(text: str) -> Item | None:
    """Return what a JSON text consists of; None if there is nothing in it.

    Raises:
        UnreadableError: it is no JSON, or has too much in it.
    """
    reader = _Reader(text)
    if reader.at_end():
        return None
    item = reader.value(0)
    if not reader.at_end():
        raise reader.error("the text goes on after its end")
    return item


class _Reader:
    """Goes through a text from its start to its end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._lines = Lines(text)
        self._count = 0

    def at_end(self) -> bool:
        found = _SPACE.match(self._text, self._position)
        self._position = found.end() if found else self._position
        return self._position >= len(self._text)

    def error(self, why: str) -> UnreadableError:
        return UnreadableError(self._spot(), f"this is no JSON: {why}")

    def _spot(self) -> Spot:
        return self._lines.spot(self._position)

    def _next(self, expected: str) -> str:
        """Return the character that comes next; it must be one of ``expected``."""
        if self.at_end():
            raise self.error(f"it ends where {' or '.join(expected)} is expected")
        found = self._text[self._position]
        if found not in expected:
            raise self.error(f"{found!r} where {' or '.join(expected)} is expected")
        self._position += 1
        return found

    def value(self, depth: int) -> Item:
        if self.at_end():
            raise self.error("it ends where a value is expected")
        spot = self._spot()
        self._count += 1
        if self._count > MAX_VALUES:
            raise UnreadableError(spot, f"more than {MAX_VALUES} values")
        first = self._text[self._position]
        if first == '"':
            return self._string(spot)
        if first in "[{":
            if depth >= MAX_DEPTH:
                raise UnreadableError(spot, f"nested more than {MAX_DEPTH} deep")
            self._position += 1
            return self._listing(spot, depth) if first == "[" else self._table(spot, depth)
        found = _WORD.match(self._text, self._position)
        if found is None:
            raise self.error(f"{first!r} where a value is expected")
        self._position = found.end()
        return Scalar(spot, found[0], plain=True)

    def _string(self, spot: Spot) -> Scalar:
        try:
            text, self._position = _TAKE_STRING(self._text, self._position + 1, True)  # noqa: FBT003  # strict
        except JSONDecodeError as exc:
            self._position = exc.pos
            why = exc.msg.removesuffix(" at").removesuffix(" starting")
            raise self.error(why[:1].lower() + why[1:]) from None
        return Scalar(spot, text)

    def _listing(self, spot: Spot, depth: int) -> Listing:
        listing = Listing(spot)
        if self._closes("]"):
            return listing
        listing.items.append(self.value(depth + 1))
        while self._next(",]") == ",":
            listing.items.append(self.value(depth + 1))
        return listing

    def _table(self, spot: Spot, depth: int) -> Table:
        table = Table(spot)
        if self._closes("}"):
            return table
        table.pairs.append(self._pair(depth))
        while self._next(",}") == ",":
            table.pairs.append(self._pair(depth))
        return table

    def _pair(self, depth: int) -> tuple[Item, Item]:
        if self.at_end() or self._text[self._position] != '"':
            raise self.error("a key is expected, in double quotes")
        key = self._string(self._spot())
        self._next(":")
        return key, self.value(depth + 1)

    def _closes(self, end: str) -> bool:
        if self.at_end() or self._text[self._position] != end:
            return False
        self._position += 1
        return True
