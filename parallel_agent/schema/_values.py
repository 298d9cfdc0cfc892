"""Values that hold no others."""

# JSON is `Any`, and pyright calls what `isinstance` makes of it "unknown".
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownLambdaType=false

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from types import NoneType
from typing import Any, Final
from uuid import UUID

import attrs

from parallel_agent.schema._problems import shown
from parallel_agent.schema._shape import ALL_KINDS, KINDS, Defs, Kinds, Shape, Walk
from session.state import UnstorableError, freeze, thaw

__all__ = ["ANYTHING", "NUMBER", "PARSED", "SCALARS", "TEXT", "Choice", "Scalar", "make_choice"]

_SHOWN_OPTIONS: Final = 10


@attrs.frozen(eq=False)
class Scalar(Shape):
    """A value that is the same in Python, told by its exact type: True is no whole number."""

    kind: type[Any]
    needed: str
    kinds: Kinds
    quick: frozenset[type[Any]]

    def read(self, value: Any, walk: Walk) -> Any:
        if type(value) is not self.kind:
            walk.refuse(self.needed, value)
        return value

    write = read

    def schema(self, _: Defs, /) -> dict[str, Any]:
        return {"type": KINDS[self.kind]}


def _scalar(kind: type[Any], needed: str) -> Scalar:
    return Scalar(kind, needed, frozenset({KINDS[kind]}), frozenset({kind}))


TEXT: Final = _scalar(str, "text")
SCALARS: Final[Mapping[Any, Scalar]] = {
    NoneType: _scalar(NoneType, "null"),
    bool: _scalar(bool, "true or false"),
    int: _scalar(int, "a whole number"),
    str: TEXT,
}


@attrs.frozen(eq=False)
class _Number(Shape):
    """A float. Many languages write 3.0 as 3, so a whole number is one as well."""

    needed = "a number"
    kinds = frozenset({"integer", "number"})
    quick = frozenset({float})

    def read(self, value: Any, walk: Walk) -> Any:
        if type(value) is int:
            try:
                return float(value)
            except OverflowError:
                walk.problem("the number is too large")
        elif type(value) is not float:
            walk.refuse(self.needed, value)
        return value

    write = read

    def schema(self, _: Defs, /) -> dict[str, Any]:
        return {"type": "number"}


NUMBER: Final = _Number()


@attrs.frozen(eq=False)
class _Anything(Shape):
    """Any JSON value, as an ordinary copy."""

    needed = "a JSON value"
    kinds = ALL_KINDS
    quick = frozenset({NoneType, bool, int, float, str})

    def read(self, value: Any, walk: Walk) -> Any:
        try:
            return thaw(freeze(value))
        except UnstorableError as error:
            walk.problem(str(error))  # in writing only: what is read has been looked at

    write = read

    def schema(self, _: Defs, /) -> dict[str, Any]:
        return {}


ANYTHING: Final = _Anything()


@attrs.frozen(eq=False)
class Parsed(Shape):
    """A value whose JSON is text in one fixed form."""

    name: str
    needed: str
    format: str
    parse: Callable[[str], Any]
    """Raises ValueError."""
    is_one: Callable[[Any], bool]
    text: Callable[[Any], str]
    kinds = frozenset({"string"})

    def read(self, value: Any, walk: Walk) -> Any:
        if type(value) is str:
            try:
                return self.parse(value)
            except ValueError:
                pass
        walk.refuse(self.needed, value)
        return None

    def write(self, value: Any, walk: Walk) -> Any:
        if self.is_one(value):
            return self.text(value)
        walk.refuse(self.name, value)
        return None

    def schema(self, _: Defs, /) -> dict[str, Any]:
        return {"type": "string", "format": self.format}


# `fromisoformat` also takes week dates, dates without a time, and digits without separators.
_DATE: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK: Final = r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
_DATETIME: Final = re.compile(rf"{_DATE}T{_CLOCK}(Z|[+-]{_CLOCK})?")


def _read_datetime(text: str) -> datetime:
    if not _DATETIME.fullmatch(text):
        raise ValueError(text)
    return datetime.fromisoformat(text)


def _read_date(text: str) -> date:
    if not re.fullmatch(_DATE, text):
        raise ValueError(text)
    return date.fromisoformat(text)


def _read_uuid(text: str) -> UUID:
    found = UUID(text)
    if str(found) != text.lower():  # UUID also takes braces, and digits without dashes
        raise ValueError(text)
    return found


def _is_date(value: Any) -> bool:
    return isinstance(value, date) and not isinstance(value, datetime)


PARSED: Final[Mapping[Any, Parsed]] = {
    datetime: Parsed(
        "a date and time",
        "a date and time such as '2024-05-31T12:00:00+02:00'",
        "date-time",
        _read_datetime,
        lambda value: isinstance(value, datetime),
        lambda value: value.isoformat(),
    ),
    date: Parsed(
        "a date",
        "a date such as '2024-05-31'",
        "date",
        _read_date,
        _is_date,
        lambda value: value.isoformat(),
    ),
    UUID: Parsed(
        "a UUID",
        "a UUID such as 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6'",
        "uuid",
        _read_uuid,
        lambda value: isinstance(value, UUID),
        str,
    ),
}


@attrs.frozen(eq=False)
class Choice(Shape):
    """A few values: a Literal, or the members of an Enum, which are told by their values."""

    options: Mapping[tuple[type[Any], Any], Any]
    """By type and JSON value (True is not 1), what they are in Python."""
    kinds: Kinds
    needed: str

    def holds(self, value: Any) -> bool:
        """Whether a JSON value is one of them."""
        kind: type[object] = type(value)
        return kind in KINDS and kind not in (list, dict) and (kind, value) in self.options

    def read(self, value: Any, walk: Walk) -> Any:
        if self.holds(value):
            return self.options[type(value), value]
        walk.refuse(self.needed, value)
        return None

    def write(self, value: Any, walk: Walk) -> Any:
        for (_, option), result in self.options.items():
            if result is value or (type(result) is type(value) and result == value):
                return option
        walk.refuse(self.needed, value)
        return None

    def schema(self, _: Defs, /) -> dict[str, Any]:
        schema: dict[str, Any] = {"enum": [value for _, value in self.options]}
        if len(self.kinds) == 1:
            (schema["type"],) = self.kinds
        return schema


def make_choice(pairs: Iterable[tuple[Any, Any]]) -> Choice:
    """Return the choice of these pairs of a JSON value and what it is in Python."""
    options: dict[tuple[type[Any], Any], Any] = {}
    for value, result in pairs:
        options.setdefault((type(value), value), result)
    words = [shown(value) for _, value in options]
    if len(words) == 1:
        needed = words[0]
    else:
        more = ["…"] if len(words) > _SHOWN_OPTIONS else []
        needed = "one of " + ", ".join(words[:_SHOWN_OPTIONS] + more)
    return Choice(options, frozenset(KINDS[kind] for kind, _ in options), needed)
