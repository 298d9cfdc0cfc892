"""What is wrong with a value, by the JSON Schema that was recorded for it.

An answer is given long before the agent that asks is there again with its Python type: this finds
what cannot fit. It knows the words that `Schema.json_schema` uses; of others it asks nothing, and
the agent has the last word.

Pure: nothing here waits.
"""

# JSON is `Any`, and pyright calls what `isinstance` makes of it "unknown".
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["misfit"]

_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "array": (list, tuple),
    "object": (dict,),
    "null": (type(None),),
}

_DEEPEST: Final = 100


def misfit(schema: Mapping[str, Any], value: Any) -> str | None:
    """Return what is wrong with ``value``, with its place; None if nothing seems to be."""
    return _misfit(schema, value, "the answer", schema.get("$defs", {}), 0)


def _misfit(schema: Any, value: Any, place: str, defs: Any, depth: int) -> str | None:
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return None
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return _misfit(defs.get(reference.rpartition("/")[2]), value, place, defs, depth + 1)
    kind = schema.get("type")
    if isinstance(kind, str) and kind in _KINDS and not _is_kind(kind, value):
        return f"{place} is {value!r:.80}, and should be of the type {kind}"
    if "enum" in schema and not any(_is_same(value, one) for one in schema["enum"]):
        return f"{place} is {value!r:.80}, and should be one of {schema['enum']!r:.200}"
    choices = schema.get("anyOf")
    if isinstance(choices, list | tuple):
        found = [_misfit(choice, value, place, defs, depth + 1) for choice in choices]
        if found and None not in found:
            return found[0] or f"{place} is {value!r:.80}, and fits none of its kinds"
    if isinstance(value, Mapping):
        return _in_object(schema, value, place, defs, depth)
    if isinstance(value, list | tuple):
        return _in_list(schema, value, place, defs, depth)
    return None


def _is_kind(kind: str, value: Any) -> bool:
    # In Python, True is an integer; in JSON it is none.
    return isinstance(value, _KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _is_same(value: Any, other: Any) -> bool:
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _in_object(
    schema: Mapping[str, Any], value: Any, place: str, defs: Any, depth: int
) -> str | None:
    for name in schema.get("required", ()):
        if name not in value:
            return f"{place}.{name} is missing"
    known = schema.get("properties", {})
    more = schema.get("additionalProperties", True)
    for name, item in value.items():
        if name not in known and more is False:
            return f"{place}.{name} is not asked for"
        found = _misfit(known.get(name, more), item, f"{place}.{name}", defs, depth + 1)
        if found is not None:
            return found
    return None


def _in_list(
    schema: Mapping[str, Any], value: Any, place: str, defs: Any, depth: int
) -> str | None:
    least, most = schema.get("minItems", 0), schema.get("maxItems", len(value))
    if not least <= len(value) <= most:
        wanted = least if least > len(value) else most
        return f"{place} has {len(value)} items, and should have {wanted}"
    first = schema.get("prefixItems", ())
    for position, item in enumerate(value):
        item_schema = first[position] if position < len(first) else schema.get("items")
        found = _misfit(item_schema, item, f"{place}[{position}]", defs, depth + 1)
        if found is not None:
            return found
    return None
