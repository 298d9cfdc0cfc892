"""Values as the code that makes them, so that what a test prints can be pasted into another.

Pure: nothing here waits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, cast

import attrs

__all__ = ["MANY", "call", "code_of", "print_code", "print_lines"]

MANY: Final = "parallel_agent.testing.many"
"""Marks a field, in its metadata, whose items are positional arguments of their own."""

_LINE: Final = 88


def code_of(value: object) -> str:
    """Return the code that makes ``value``: a JSON value, an attrs object, an exception.

    Types and functions are shown by their names, and what has no code by its ``repr``.
    """
    match value:
        case float() if not math.isfinite(value):
            return f"float({str(value)!r})"
        case Enum():
            return f"{type(value).__name__}.{value.name}"
        case type():
            return cast("type[Any]", value).__name__
        case BaseException():
            return repr(value)
        case list():
            return listed(map(code_of, cast("list[object]", value)))
        case tuple():
            items = [code_of(item) for item in cast("tuple[object, ...]", value)]
            return f"({', '.join(items)}{',' * (len(items) == 1)})"
        case Mapping():
            pairs = cast("Mapping[object, object]", value).items()
            return f"{{{', '.join(f'{code_of(key)}: {code_of(item)}' for key, item in pairs)}}}"
        case _ if attrs.has(type(value)):
            return _call_of(value)
        case _ if callable(value) and hasattr(value, "__qualname__"):
            return str(value.__qualname__).rpartition("<locals>.")[2]
        case _:
            return repr(value)


def _call_of(value: object) -> str:
    """Show an attrs object as a call, without what is as it would be anyway."""
    kind = type(value)
    arguments: list[str] = []
    skipped = False
    for field in attrs.fields(cast("type[attrs.AttrsInstance]", kind)):
        if not field.init:
            continue
        item: Any = getattr(value, field.name)
        if MANY in field.metadata:
            arguments.extend(map(code_of, item))
            skipped = True  # what follows is known by its name
        elif _is_default(field, item):
            skipped = True
        elif skipped or field.kw_only:
            arguments.append(f"{field.alias}={code_of(item)}")
        else:
            arguments.append(code_of(item))
    return call(getattr(kind, "made_by", kind.__name__), arguments)


def _is_default(field: attrs.Attribute[Any], item: Any) -> bool:
    default: Any = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class, whatever its stub says
        return not item
    return default is not attrs.NOTHING and type(item) is type(default) and bool(item == default)


def call(name: str, arguments: Sequence[str]) -> str:
    """Return the code of a call: on one line if it is short."""
    return _between(f"{name}(", arguments, ")")


def listed(items: Iterable[str]) -> str:
    """Return the code of a list, likewise."""
    return _between("[", list(items), "]")


def _between(first: str, items: Sequence[str], last: str) -> str:
    line = f"{first}{', '.join(items)}{last}"
    if not items or ("\n" not in line and len(line) <= _LINE):
        return line
    indented = "".join(f"\n    {item.replace(chr(10), chr(10) + '    ')}," for item in items)
    return f"{first}{indented}\n{last}"


def print_code(value: object, printer: Any, cycle: bool) -> None:  # noqa: FBT001  # Hypothesis calls it
    """Tell Hypothesis to print what ``repr`` says: as ``_repr_pretty_`` of a class."""
    del cycle
    print_lines(repr(value), printer)


def print_lines(text: str, printer: Any) -> None:
    """Tell Hypothesis to print ``text``, line by line."""
    for number, line in enumerate(text.split("\n")):
        if number:
            printer.break_()
        printer.text(line)
