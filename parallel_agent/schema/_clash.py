"""Whether what one type says can ever fit another: told from their JSON Schemas.

Only what never fits is a clash. A union of which one member fits is none, nor is a number that may
be whole. Of a list or dict, the items decide: that an empty one would fit is no excuse.
"""

# JSON is `Any`, and pyright calls what `isinstance` makes of it "unknown".
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from parallel_agent.schema._shape import ALL_KINDS, kind_of

__all__ = ["OPEN", "WHOLE", "clash", "kinds_of"]

_DEEP: Final = 20
"""How far down is looked: types may stand inside themselves."""

WHOLE: Final = "$whole"
"""The key of a schema that stands, with names of its own, inside one that was put together."""

OPEN: Final = "$open"
"""The key of the schema of a list of which items may be missing."""

_NUMBERS: Final = frozenset({"integer", "number"})


def clash(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """Return why nothing that fits the one schema fits the other; None if something may.

    The reason begins with the place, if it is not the value itself.
    """
    found = _clash(_Part(given, given), _Part(wanted, wanted), "", 0)
    return None if found is None else ": ".join(filter(None, found))


def kinds_of(schema: Mapping[str, Any]) -> frozenset[str]:
    """Return the kinds of JSON value that fit a schema."""
    return frozenset[str]().union(*(one.kinds() for one in _Part(schema, schema).alternatives(0)))


class _Part:
    """A part of a schema, and the whole, in which its references are looked up."""

    def __init__(self, schema: Mapping[str, Any], root: Mapping[str, Any]) -> None:
        self.schema = schema
        self.root = root

    def alternatives(self, depth: int) -> Iterator[_Part]:
        schema = self.schema
        if WHOLE in schema:
            yield from _Part(schema[WHOLE], schema[WHOLE]).alternatives(depth)
        elif "$ref" in schema and depth < _DEEP:
            found: Any = self.root
            for step in schema["$ref"].split("/")[1:]:
                found = found[step]
            yield from _Part(found, self.root).alternatives(depth + 1)
        elif "anyOf" in schema and depth < _DEEP:
            for one in schema["anyOf"]:
                yield from _Part(one, self.root).alternatives(depth + 1)
        else:
            yield self

    def kinds(self) -> frozenset[str]:
        values = self.values()
        if values is not None:
            return frozenset(map(kind_of, values))
        kind = self.schema.get("type")
        if kind is None:
            return ALL_KINDS
        return frozenset([kind] if isinstance(kind, str) else kind)

    def values(self) -> list[Any] | None:
        if "const" in self.schema:
            return [self.schema["const"]]
        return self.schema.get("enum")

    def each(self) -> list[_Part]:
        return [_Part(item, self.root) for item in self.schema.get("prefixItems", ())]

    def item(self, position: int) -> _Part | None:
        each = self.each()
        if each:
            return each[position] if position < len(each) else None
        found = self.schema.get("items")
        return _Part(found, self.root) if isinstance(found, Mapping) else None

    @property
    def length(self) -> int | None:
        return None if OPEN in self.schema else len(self.each()) or None

    def fields(self) -> dict[str, _Part]:
        fields = self.schema.get("properties", {})
        return {name: _Part(field, self.root) for name, field in fields.items()}

    @property
    def required(self) -> frozenset[str]:
        return frozenset(self.schema.get("required", ()))

    @property
    def other(self) -> _Part | None:
        found = self.schema.get("additionalProperties")
        return _Part(found, self.root) if isinstance(found, Mapping) else None

    @property
    def is_closed(self) -> bool:
        return self.schema.get("additionalProperties") is False


def _clash(given: _Part, wanted: _Part, path: str, depth: int) -> tuple[str, str] | None:
    first: tuple[str, str] | None = None
    if depth >= _DEEP:
        return None
    for one in given.alternatives(0):
        for other in wanted.alternatives(0):
            found = _pair(one, other, path, depth)
            if found is None:
                return None
            first = first or found
    return first


def _pair(given: _Part, wanted: _Part, path: str, depth: int) -> tuple[str, str] | None:
    mine, theirs = given.kinds(), wanted.kinds()
    if mine & _NUMBERS:
        mine |= _NUMBERS
    if mine.isdisjoint(theirs):
        return path, f"{_named(given)} is given, and {_named(wanted)} is needed"
    values, needed = given.values(), wanted.values()
    if values is not None and needed is not None and not any(one in needed for one in values):
        return path, f"{_listed(values)} is given, and {_listed(needed)} is needed"
    both = set(mine & theirs)
    if both == {"array"}:
        return _items_clash(given, wanted, path, depth)
    if both == {"object"}:
        return _fields_clash(given, wanted, path, depth)
    return None


def _items_clash(given: _Part, wanted: _Part, path: str, depth: int) -> tuple[str, str] | None:
    items, needs = given.each(), wanted.each()
    if OPEN in given.schema and needs:
        return None  # some of the items may be missing: which stands where is not known
    if given.length is not None and wanted.length is not None and given.length != wanted.length:
        return path, f"{given.length} items are given, and {wanted.length} are needed"
    for position in range(max(len(items), len(needs), 1)):
        item, need = given.item(position), wanted.item(position)
        if item is not None and need is not None:
            at = f"{path}[{position if items or needs else ''}]"
            found = _clash(item, need, at, depth + 1)
            if found is not None:
                return found
    return None


def _fields_clash(given: _Part, wanted: _Part, path: str, depth: int) -> tuple[str, str] | None:
    mine, theirs = given.fields(), wanted.fields()
    for name in wanted.required:
        if name not in mine and given.is_closed:
            return path, f"there is no {name!r} in what is given"
    for name in given.required:
        if name not in theirs and wanted.is_closed:
            return path, f"{name!r} is given, and nobody there knows it"
    for name, field in mine.items():
        need = theirs.get(name, wanted.other)
        if need is not None and name in given.required:
            found = _clash(field, need, f"{path}.{name}".removeprefix("."), depth + 1)
            if found is not None:
                return found
    if given.other is not None and wanted.other is not None:
        return _clash(given.other, wanted.other, f"{path}{{}}", depth + 1)
    return None


_NAMES: Final = {
    "null": "nothing",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "array": "a list",
    "object": "an object",
}


def _named(part: _Part) -> str:
    values = part.values()
    if values is not None:
        return _listed(values)
    return " or ".join(text for kind, text in _NAMES.items() if kind in part.kinds())


def _listed(values: list[Any]) -> str:
    return " or ".join(f"{value!r:.40}" for value in values[:5])
