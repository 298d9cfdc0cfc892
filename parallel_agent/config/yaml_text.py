"""YAML text to items. By events: no value is made, no tag obeyed, nothing is called.

Needs the extra ``yaml``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final

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

__all__ = ["parse_yaml"]

_CORE: Final = "tag:yaml.org,2002:"
_SCALAR_TAGS: Final = frozenset(f"{_CORE}{kind}" for kind in ("null", "bool", "int", "float"))
_KNOWN_TAGS: Final = _SCALAR_TAGS | {f"{_CORE}{kind}" for kind in ("str", "seq", "map")} | {"!"}


def parse_yaml(text: str) -> Item | None:
    """Return what a YAML text consists of; None if there is nothing in it.

    Aliases stand for the very item that they name, so an item may hold itself.

    Raises:
        UnreadableError: it is no YAML, or has tags, several documents, or too much in it.
        ModuleNotFoundError: ruamel.yaml is not installed; the message names the extra.
    """
    lines = Lines(text)
    text, back = _without_braces(text)
    composer = _Composer(lines, back)
    try:
        for event in _events(text, lines):
            composer.take(event)
    except UnreadableError as exc:
        raise UnreadableError(exc.spot, exc.why.translate(back)) from None
    return composer.root


_VARIABLE: Final = re.compile(r"\$\{[^{}\n\r]*\}")
_PRIVATE: Final = [chr(code) for code in range(0xE000, 0xF8FF)]


def _without_braces(text: str) -> tuple[str, dict[int, str]]:
    """Return the text with other characters for the braces of ``${NAME}``; and the way back.

    In ``{model: ${NAME}}`` YAML takes them for its own. The length stays, so places do as well.
    """
    there = set(text)
    unused = (one for one in _PRIVATE if one not in there)
    opening, closing = next(unused, "{"), next(unused, "}")
    forth = {ord("{"): opening, ord("}"): closing}
    back = {ord(opening): "{", ord(closing): "}"}
    return _VARIABLE.sub(lambda found: found[0].translate(forth), text), back


def _events(text: str, lines: Lines) -> Iterator[Any]:
    ruamel = _ruamel()
    read = 0
    try:
        for event in ruamel.YAML(typ="safe", pure=True).parse(text):
            read = event.end_mark.index
            yield event
    except Exception as error:  # noqa: BLE001  # of garbage the parser raises much more than its own errors
        raise _unreadable(error, lines, read) from None


def _ruamel() -> Any:
    try:
        return import_module("ruamel.yaml")
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] != "ruamel":
            raise
        message = "graph files in YAML need ruamel.yaml: pip install 'parallel-agent[yaml]'"
        raise ModuleNotFoundError(message, name=exc.name) from exc


def _unreadable(error: Exception, lines: Lines, read: int) -> UnreadableError:
    mark: Any = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is not None:
        parts = [getattr(error, name, None) for name in ("problem", "context")]
        why = " ".join(str(part) for part in parts if part)
        return UnreadableError(lines.spot(mark.index), f"this is no YAML: {_printable(why)}")
    position: Any = getattr(error, "position", None)
    if isinstance(position, int):
        spot = lines.spot(position)
        return UnreadableError(spot, "this is no YAML: a character that no text file has")
    return UnreadableError(lines.spot(read), "this is no YAML: what follows cannot be read")


def _printable(text: str) -> str:
    line = " ".join(text.split())
    return line if line.isprintable() else repr(line)[1:-1]


class _Composer:
    """Puts items together, event by event. Does not recurse."""

    def __init__(self, lines: Lines, back: dict[int, str]) -> None:
        self.root: Item | None = None
        self._documents = 0
        self._count = 0
        self._lines = lines
        self._back = back
        self._anchors: dict[str, Item] = {}
        # What is open, and for a table the key whose value comes next.
        self._open: list[tuple[Listing | Table, list[Item]]] = []

    def take(self, event: Any) -> None:
        kind = type(event).__name__
        # Not the mark's own line and column: they count lines as YAML does.
        spot = self._lines.spot(event.start_mark.index)
        match kind:
            case "DocumentStartEvent":
                self._documents += 1
                if self._documents > 1:
                    raise UnreadableError(spot, "a second document; a graph file has one")
            case "ScalarEvent":
                self._add(self._scalar(event, spot), event.anchor)
            case "SequenceStartEvent" | "MappingStartEvent":
                _check_tag(event, spot)
                item = Listing(spot) if kind == "SequenceStartEvent" else Table(spot)
                self._add(item, event.anchor)
                self._open.append((item, []))
                if len(self._open) > MAX_DEPTH:
                    raise UnreadableError(spot, f"nested more than {MAX_DEPTH} deep")
            case "SequenceEndEvent" | "MappingEndEvent":
                self._open.pop()
            case "AliasEvent":
                there = self._anchors.get(event.anchor)
                if there is None:
                    raise UnreadableError(spot, f"there is no anchor &{event.anchor}")
                self._add(there, None)
            case _:
                pass  # where stream and document begin and end

    def _scalar(self, event: Any, spot: Spot) -> Scalar:
        _check_tag(event, spot)
        tag = event.tag
        plain = event.implicit[0] if tag is None else tag in _SCALAR_TAGS
        return Scalar(spot, event.value.translate(self._back), plain)

    def _add(self, item: Item, anchor: str | None) -> None:
        self._count += 1
        if self._count > MAX_VALUES:
            raise UnreadableError(item.spot, f"more than {MAX_VALUES} values")
        if anchor is not None:
            self._anchors[anchor] = item
        if not self._open:
            self.root = item
            return
        inside, key = self._open[-1]
        if isinstance(inside, Listing):
            inside.items.append(item)
        elif key:
            inside.pairs.append((key.pop(), item))
        else:
            key.append(item)


def _check_tag(event: Any, spot: Spot) -> None:
    tag: str | None = event.tag
    if tag is not None and tag not in _KNOWN_TAGS:
        shown = _printable(tag.replace(_CORE, "!!"))
        raise UnreadableError(spot, f"the tag {shown:.80} is not known here: a file is plain data")
