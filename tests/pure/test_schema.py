"""Strict structuring: what fits a type, what does not, and how that is said.

The tables say line by line what is promised. The properties at the end draw types and compare
with an oracle that knows nothing of annotations.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from types import GenericAlias
from typing import (
    Annotated,
    Any,
    Final,
    ForwardRef,
    Generic,
    Literal,
    NamedTuple,
    Never,
    NewType,
    NotRequired,
    Optional,
    Required,
    Self,
    TypedDict,
    TypeVar,
    Union,
    assert_type,
)
from uuid import UUID

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from typing_extensions import ReadOnly, TypeAliasType
from typing_extensions import TypedDict as ExtendedTypedDict

from parallel_agent.errors import UsageError
from parallel_agent.schema import Schema, SchemaError, SchemaTypeError
from session import FrozenDict, FrozenList, freeze
from session.state import MAX_DEPTH, same
from tests.session.strategies import json_values, scalars, texts
from tests.support.ids import shown

T = TypeVar("T")


def refusal(kind: Any, value: Any, where: str = "") -> SchemaError:
    """The error that ``value`` is refused with."""
    with pytest.raises(SchemaError) as caught:
        Schema(kind).structure(value, where)
    return caught.value


def problems(kind: Any, value: Any) -> dict[str, str]:
    return dict(refusal(kind, value).problems)


# ------------------------------------------------------------------------------- types for tests


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"
    CRIMSON = "red"  # noqa: PIE796  # an alias, on purpose


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(enum.Enum):
    ONE = 1
    HALF = 0.5
    NONE = None


UserId = NewType("UserId", int)


class Point(NamedTuple):
    x: int
    y: float
    label: str = "p"


class Family(NamedTuple):
    name: str
    children: list[Family]


@attrs.frozen
class Finding:
    line: int
    text: str = ""
    severity: Literal["low", "high"] = "low"


@attrs.define
class Review:
    findings: list[Finding]
    _secret: int | None = None
    when: datetime | None = None
    made_up: int = attrs.field(init=False, default=7)
    tags: list[str] = attrs.field(factory=list, kw_only=True)


@dataclass
class Order:
    item: str
    amount: int = 1
    notes: list[str] = dataclasses.field(default_factory=list)
    total: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.amount < 1:
            message = "amount must be at least 1"
            raise ValueError(message)
        self.total = self.amount * 10


@attrs.define
class Node:
    value: int
    children: list[Node] = attrs.field(factory=list)


@attrs.define
class Box(Generic[T]):
    content: T
    more: list[Box[T]] = attrs.field(factory=list)


@attrs.define
class IntBox(Box[int]):
    label: str = ""


@attrs.define
class Renamed(Box[int], Generic[T]):
    """Its T is not the T of the box."""

    extra: T | None = None


@attrs.define
class Base:
    a: int


@attrs.define
class Derived(Base):
    b: str = "b"


@attrs.define
class Company:
    """Of others like itself."""

    friends: list[Self]


NO_FRIENDS: Final[Any] = Company([])


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Loose(TypedDict, total=False):
    id: Required[int]
    note: str


class Looser(Loose):
    extra: NotRequired[int]
    sure: ReadOnly[str]


class Page(TypedDict, Generic[T]):
    items: list[T]


class IntPage(Page[int]):
    number: int


class Extended(ExtendedTypedDict):
    a: NotRequired[int]
    b: str


@attrs.define
class Cat:
    name: str
    kind: Literal["cat"] = "cat"


@attrs.define
class Dog:
    name: str
    kind: Literal["dog"] = "dog"
    friend: Cat | Dog | None = None


@attrs.define
class Circle:
    radius: float


@attrs.define
class Square:
    side: float


Json = TypeAliasType("Json", "dict[str, Json] | list[Json] | int | None")
Listed = TypeAliasType("Listed", list[T], type_params=(T,))
Tree = TypeAliasType("Tree", "tuple[T, list[Tree[T]]]", type_params=(T,))
Endless = TypeAliasType("Endless", "Endless | int")  # type: ignore[misc]  # nonsense, on purpose

Lost = TypeAliasType("Lost", "list[NeverMade]")  # type: ignore[name-defined]  # noqa: F821  # so

A_UUID: Final = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"
DEEP: Final = MAX_DEPTH - 5


# ------------------------------------------------------------------------------------ what fits

# type, JSON, value; the JSON of the value is the same unless a fourth says otherwise
FITS: list[tuple[Any, ...]] = [
    (bool, True, True),
    (bool, False, False),
    (int, 3, 3),
    (int, -(2**70), -(2**70)),
    (float, 3.5, 3.5),
    (float, 3, 3.0, 3.0),
    (str, "3", "3"),
    (str, "ä \N{GRINNING FACE}", "ä \N{GRINNING FACE}"),
    (None, None, None),
    (type(None), None, None),
    (Optional[int], None, None),  # noqa: UP045  # the old spelling is one as well
    (int | None, 3, 3),
    (Any, {"a": [1, None]}, {"a": [1, None]}),
    (object, [True], [True]),
    # Lists
    (list[int], [1, 2], [1, 2]),
    (list[int], [], []),
    (list[int], FrozenList([1]), [1]),
    (list[float], [1, 2.5], [1.0, 2.5], [1.0, 2.5]),
    (list, [1, "a"], [1, "a"]),
    (Sequence[int], [1], [1]),
    (tuple[int, ...], [1, 2], (1, 2)),
    (tuple[int, str], [1, "a"], (1, "a")),
    (tuple[()], [], ()),
    (tuple, [1, "a"], (1, "a")),
    (set[int], [1, 2], {1, 2}),
    (frozenset[str], ["a"], frozenset("a")),
    (set[tuple[int, str]], [[1, "a"]], {(1, "a")}),
    (set[Any], [1, "a"], {1, "a"}, ["a", 1]),
    (Point, [1, 2.5, "q"], Point(1, 2.5, "q")),
    (Family, ["a", [["b", []]]], Family("a", [Family("b", [])])),
    # Objects
    (dict[str, int], {"a": 1}, {"a": 1}),
    (dict[str, int], FrozenDict({"a": 1}), {"a": 1}),
    (dict[str, float], {"a": 1}, {"a": 1.0}, {"a": 1.0}),
    (dict, {"a": None}, {"a": None}),
    (Mapping[str, list[int]], {"a": [1]}, {"a": [1]}),
    (dict[Colour, int], {"red": 1}, {Colour.RED: 1}),
    (dict[Literal["a", "b"], int], {"a": 1}, {"a": 1}),
    # A few values
    (Literal["a", 1], "a", "a"),
    (Literal["a", 1], 1, 1),
    (Literal["a", None], None, None),  # noqa: PYI061  # one spelling of two
    (Literal[True, 1], True, True),
    (Literal[True, 1], 1, 1),
    (Literal[Colour.RED], "red", Colour.RED),
    (Literal["red", Colour.RED], "red", "red"),
    (Colour, "red", Colour.RED),
    (Level, 2, Level.HIGH),
    (Mixed, 1, Mixed.ONE),
    (Mixed, 0.5, Mixed.HALF),
    (Mixed, None, Mixed.NONE),
    # Text that stands for something
    (datetime, "2024-05-31T12:00:00+00:00", datetime(2024, 5, 31, 12, tzinfo=UTC)),
    (
        datetime,
        "2024-05-31T12:00Z",
        datetime(2024, 5, 31, 12, tzinfo=UTC),
        "2024-05-31T12:00:00+00:00",
    ),
    (datetime, "2024-05-31T12:00:00.000250", datetime(2024, 5, 31, 12, 0, 0, 250)),  # noqa: DTZ001
    (
        datetime,
        "2024-05-31T12:00:00-07:30",
        datetime(2024, 5, 31, 12, tzinfo=timezone(-timedelta(hours=7.5))),
    ),
    (date, "2024-05-31", date(2024, 5, 31)),
    (UUID, A_UUID, UUID(A_UUID)),
    (UUID, A_UUID.upper(), UUID(A_UUID), A_UUID),
    # Names for types
    (Annotated[int, "a number"], 3, 3),
    (list[Annotated[int, []]], [3], [3]),
    (UserId, 3, 3),
    (Listed[int], [3], [3]),
    (Json, {"a": [1, None, {}]}, {"a": [1, None, {}]}),
    (Tree[int], [1, [[2, []]]], (1, [(2, [])])),
    # Classes
    (Finding, {"line": 3}, Finding(3), {"line": 3, "text": "", "severity": "low"}),
    (Node, {"value": 1, "children": [{"value": 2, "children": []}]}, Node(1, [Node(2)])),
    (Box[int], {"content": 1, "more": []}, Box(1)),
    (Box[Annotated[int, []]], {"content": 1, "more": []}, Box(1)),
    (Box[Finding], {"content": {"line": 1, "text": "", "severity": "high"}, "more": []},
     Box(Finding(1, severity="high"))),
    (IntBox, {"content": 1, "more": [], "label": "x"}, IntBox(1, label="x")),
    (Renamed[str], {"content": 1, "more": [], "extra": "x"}, Renamed(1, extra="x")),
    (Derived, {"a": 1, "b": "c"}, Derived(1, "c")),
    (Company, {"friends": [{"friends": []}]}, Company([NO_FRIENDS])),
    (Movie, {"title": "t"}, {"title": "t"}),
    (Movie, {"title": "t", "year": 1}, {"title": "t", "year": 1}),
    (Loose, {"id": 1}, {"id": 1}),
    (Looser, {"id": 1, "sure": "s", "extra": 2}, {"id": 1, "sure": "s", "extra": 2}),
    (Page[int], {"items": [1]}, {"items": [1]}),
    (IntPage, {"items": [1], "number": 1}, {"items": [1], "number": 1}),
    (Extended, {"b": "x"}, {"b": "x"}),
    # Unions
    (int | str, 3, 3),
    (int | str, "3", "3"),
    (int | float, 3, 3),
    (float | int, 3, 3),
    (float | int, 3.5, 3.5),
    (float | None, 3, 3.0, 3.0),
    (date | str, "2024-05-31", date(2024, 5, 31)),
    (date | str, "yesterday", "yesterday"),
    (str | date, "2024-05-31", "2024-05-31"),
    (list[date | str], ["2024-05-31"], [date(2024, 5, 31)]),
    (list[float | str], [1, "a"], [1.0, "a"], [1.0, "a"]),
    (list[int] | list[str], ["a"], ["a"]),
    (list[int] | list[str], [], []),
    (Circle | Square, {"side": 2.0}, Square(2.0)),
    (Cat | Dog, {"name": "a", "kind": "dog", "friend": None}, Dog("a")),
    (
        Cat | Dog | None,
        {"name": "a", "friend": {"name": "b", "kind": "cat"}},
        Dog("a", friend=Cat("b")),
        {"name": "a", "kind": "dog", "friend": {"name": "b", "kind": "cat"}},
    ),
    (Movie | list[Movie], [{"title": "t"}], [{"title": "t"}]),
    (dict[str, int] | Finding, {"line": 3}, {"line": 3}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "expected"), [line[:3] for line in FITS], ids=shown)
def test_what_fits_is_read_as(kind: Any, value: Any, expected: Any) -> None:
    found = Schema(kind).structure(value)
    assert found == expected
    assert type(found) is type(expected)


WRITTEN: Final = [(line[0], line[2], line[3] if line[3:] else line[1]) for line in FITS]


@pytest.mark.parametrize(("kind", "value", "expected"), WRITTEN, ids=shown)
def test_a_value_is_written_as(kind: Any, value: Any, expected: Any) -> None:
    assert same(Schema(kind).unstructure(value), expected)


@pytest.mark.parametrize(("kind", "value"), [line[:2] for line in FITS], ids=shown)
def test_what_fits_passes_the_check(kind: Any, value: Any) -> None:
    Schema(kind).check(value)
    Schema(kind).check(freeze(value))


def test_a_type_checker_knows_what_comes_out() -> None:
    assert_type(Schema(int).structure(1), int)
    assert_type(Schema(list[int]).structure([1]), list[int])
    assert_type(Schema(Finding).structure({"line": 1}), Finding)
    # There is no way yet to say what a union is the type of.
    assert_type(Schema(int | None).structure(1), Any)


# ------------------------------------------------------------------------------ what does not fit

# type, value, path of the first problem, what is said of it
REFUSED: list[tuple[Any, Any, str, str]] = [
    (bool, "no", "", "true or false is needed, not 'no'"),
    (bool, 0, "", "true or false is needed, not 0"),
    (bool, 1, "", "true or false is needed, not 1"),
    (bool, None, "", "true or false is needed, not null"),
    (int, True, "", "a whole number is needed, not true"),
    (int, 3.9, "", "a whole number is needed, not 3.9"),
    (int, 3.0, "", "a whole number is needed, not 3.0"),
    (int, "3", "", "a whole number is needed, not '3'"),
    (int, None, "", "a whole number is needed, not null"),
    (float, True, "", "a number is needed, not true"),
    (float, "1.5", "", "a number is needed, not '1.5'"),
    (float, math.nan, "", "nan has no JSON form"),
    (float, math.inf, "", "inf has no JSON form"),
    (float, 10**400, "", "the number is too large"),
    (Any, math.nan, "", "nan has no JSON form"),
    (Any, object(), "", "object has no JSON form"),
    (str, 3, "", "text is needed, not 3"),
    (str, b"3", "", "a bytes has no JSON form"),
    (str, "\ud800", "", "lone surrogate"),
    (None, 0, "", "null is needed, not 0"),
    (None, False, "", "null is needed, not false"),
    # Lists
    (list[int], (1,), "", "a list is needed, not a tuple"),
    (list[int], "12", "", "a list is needed, not '12'"),
    (list[int], {"0": 1}, "", "a list is needed, not an object"),
    (list[int], [1, "2", True], "[1]", "a whole number is needed, not '2'"),
    (list[list[int]], [[1], [2, None]], "[1][1]", "a whole number is needed, not null"),
    (tuple[int, str], [1], "", "a list of 2 is needed, not of 1"),
    (tuple[int, str], [1, "a", 2], "", "a list of 2 is needed, not of 3"),
    (tuple[int, str], [1, 2], "[1]", "text is needed, not 2"),
    (tuple[int, str], {"a": 1}, "", "a list is needed, not an object"),
    (tuple[()], [1], "", "a list of 0 is needed, not of 1"),
    (tuple[int, ...], [1, "a"], "[1]", "a whole number is needed, not 'a'"),
    (set[int], [1, 2, 1], "[2]", "it is there twice"),
    (set[float], [1, 1.0], "[1]", "it is there twice"),
    (set[int], ["a"], "[0]", "a whole number is needed, not 'a'"),
    (set[Any], [[1]], "", "unhashable"),
    (Point, [1, 2.5], "", "a list of 3 is needed, not of 2"),
    (Point, {"x": 1, "y": 2.5}, "", "a list is needed, not an object"),
    # Objects
    (dict[str, int], [], "", "an object is needed, not a list"),
    (dict[str, int], {"a": 1, "b": "2"}, "b", "a whole number is needed, not '2'"),
    (dict[str, int], {1: 1}, "", "the key 1 is no text"),
    (dict[str, int], {"not a name": "2"}, "['not a name']", "a whole number is needed"),
    (dict[Colour, int], {"blue": 1}, "blue", "one of 'red', 'green' is needed, not 'blue'"),
    # A few values
    (Literal[1, "a"], True, "", "one of 1, 'a' is needed, not true"),
    (Literal[1, "a"], 1.0, "", "one of 1, 'a' is needed, not 1.0"),
    (Literal[True], 1, "", "true is needed, not 1"),
    (Literal["a"], ["a"], "", "'a' is needed, not a list"),
    (Mixed, True, "", "one of 1, 0.5, null is needed, not true"),
    (Colour, "RED", "", "one of 'red', 'green' is needed, not 'RED'"),
    (Level, True, "", "one of 1, 2 is needed, not true"),
    (Level, 1.0, "", "one of 1, 2 is needed, not 1.0"),
    # Text that stands for something
    (datetime, "2024-05-31", "", "a date and time such as '2024-"),
    (datetime, "2024-05-31 12:00", "", "a date and time such as '2024-"),
    (datetime, "2024-W22-5T12:00", "", "a date and time such as '2024-"),
    (datetime, "2024-02-30T12:00", "", "a date and time such as '2024-"),
    (datetime, 1717156800, "", "a date and time such as '2024-"),
    (date, "2024-05-31T00:00:00", "", "a date such as '2024-05-31' is needed, not '2024-"),
    (date, "20240531", "", "a date such as '2024-05-31' is needed, not '20240531'"),
    # Digits, but not those of ASCII.
    (date, "\u0662\u0660\u0662\u0664-\u0660\u0665-\u0663\u0661", "", "a date such as"),
    (UUID, A_UUID.replace("-", ""), "", "a UUID such as"),
    (UUID, f"{{{A_UUID}}}", "", "a UUID such as"),
    # Classes
    (Finding, {}, "line", "it is missing"),
    (Finding, [], "", "an object is needed, not a list"),
    (Finding, None, "", "an object is needed, not null"),
    (Finding, {"line": "3"}, "line", "a whole number is needed, not '3'"),
    (Finding, {"line": 3, "lines": 3}, "lines", "there is no such field; did you mean 'line'?"),
    (Finding, {"line": 3, "q": 3}, "q", "there is no such field (there are: line, text, severity)"),
    (Finding, {"line": 3, "severity": "mid"}, "severity", "one of 'low', 'high' is needed"),
    (Review, {"findings": [{"line": 1}, {"line": "3"}]}, "findings[1].line", "a whole number"),
    (Review, {"findings": [], "_secret": 1}, "_secret", "did you mean 'secret'?"),
    (Review, {"findings": [], "made_up": 1}, "made_up", "there is no such field"),
    (Order, {"item": "x", "total": 1}, "total", "there is no such field"),
    (Node, {"value": 1, "children": [{"value": "x"}]}, "children[0].value", "a whole number"),
    (Box[int], {"content": "x"}, "content", "a whole number is needed, not 'x'"),
    (Box[int], {"content": 1, "more": [{"content": "x"}]}, "more[0].content", "a whole number"),
    (IntBox, {"content": "x"}, "content", "a whole number is needed, not 'x'"),
    (Renamed[str], {"content": "x"}, "content", "a whole number is needed, not 'x'"),
    (Renamed[str], {"content": 1, "extra": 1}, "extra", "text or null is needed, not 1"),
    (Derived, {"b": "c"}, "a", "it is missing"),
    (Movie, {"year": 1}, "title", "it is missing"),
    (Movie, {"title": "t", "director": "d"}, "director", "there is no such field"),
    (Loose, {"note": "n"}, "id", "it is missing"),
    (Looser, {"id": 1}, "sure", "it is missing"),
    (IntPage, {"items": ["x"], "number": 1}, "items[0]", "a whole number is needed, not 'x'"),
    (Extended, {}, "b", "it is missing"),
    (Company, {"friends": [{"friend": []}]}, "friends[0].friend", "did you mean 'friends'?"),
    # Names for types
    (Json, {"a": [1, "x"]}, "a[1]", "an object or a list or a whole number or null is needed"),
    (Tree[int], [1, [["x", []]]], "[1][0][0]", "a whole number is needed, not 'x'"),
    # Unions
    (int | str, None, "", "a whole number or text is needed, not null"),
    (int | str, True, "", "a whole number or text is needed, not true"),
    (int | None, 3.0, "", "a whole number or null is needed, not 3.0"),
    (date | UUID, "x", "", "a date such as '2024-05-31' or a UUID such as"),
    (Finding | None, {"line": "3"}, "line", "a whole number is needed, not '3'"),
    (list[int] | None, [1, "2"], "[1]", "a whole number is needed, not '2'"),
    (Finding | list[Finding], [{"line": "3"}], "[0].line", "a whole number is needed, not '3'"),
    (Cat | Dog, {"name": 3, "kind": "dog"}, "name", "text is needed, not 3"),
    (Cat | Dog, {"name": "a", "kind": "dog", "fried": None}, "fried", "did you mean 'friend'?"),
    (Cat | Dog, {"name": "a", "kind": "cow"}, "", "nothing fits: Cat (kind: 'cat' is needed, not"),
    (Cat | Dog, {"name": "a"}, "", "it fits both Cat and Dog; say which with 'kind'"),
    (list[int] | list[str], [1, "a"], "", "nothing fits: a list, each item a whole number ([1]: a"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "path", "why"), REFUSED, ids=shown)
def test_what_does_not_fit_is_refused_at_its_place(
    kind: Any, value: Any, path: str, why: str
) -> None:
    error = refusal(kind, value)
    assert error.path == path
    assert why in error.why


@pytest.mark.parametrize(("kind", "value"), [line[:2] for line in REFUSED], ids=shown)
def test_the_check_refuses_what_structuring_refuses(kind: Any, value: Any) -> None:
    expected = str(refusal(kind, value))
    with pytest.raises(SchemaError) as caught:
        Schema(kind).check(value)
    assert str(caught.value) == expected


@pytest.mark.parametrize("kind", [int, float, Any, int | str])
def test_a_number_that_is_too_long_to_be_recorded_is_refused(kind: Any) -> None:
    with pytest.raises(SchemaError, match="an integer of more than"):
        Schema[Any](kind).check(2**20_000)


def test_a_result_shares_no_container_with_its_json() -> None:
    inner = [1]
    value: dict[str, Any] = {"a": inner}
    for kind in (Any, dict[str, Any], dict[str, list[int]]):
        found = Schema[Any](kind).structure(value)
        found["a"].append(2)
        found["b"] = 1
    assert value == {"a": [1]}


def test_what_comes_from_frozen_state_can_be_changed() -> None:
    found = Schema(dict[str, Any]).structure(freeze({"a": [1]}))
    found["a"].append(2)
    assert found == {"a": [1, 2]}


# ------------------------------------------------------------------------- types that cannot be


def local_class() -> type[Any]:
    """A class whose annotation only this function could resolve."""

    @attrs.define
    class Other:
        pass

    @attrs.define
    class Lost:
        other: Other

    return Lost


def local_circle() -> type[Any]:
    """A class that holds another which holds the first, by a name nobody else knows."""

    @attrs.define
    class Spoke:
        wheel: Wheel | None = None

    class Wheel:
        pass

    return attrs.make_class("Wheel", {"spoke": attrs.field(type=Spoke)})


def local_recursion() -> type[Any]:
    @attrs.define
    class Link:
        following: Link | None = None

    return Link


@attrs.define
class WithBytes:
    inner: list[HoldsBytes]


@attrs.define
class HoldsBytes:
    data: bytes


@dataclass
class WithInitVar:
    seed: InitVar[int]
    a: int = 0


@attrs.define
class Untyped:
    a = attrs.field()  # type: ignore[var-annotated]  # no annotation, on purpose


@attrs.define
class Garbled:
    a: 1 / 0  # type: ignore[valid-type]  # on purpose


@attrs.define(init=False)
class OwnInit:
    a: int

    def __init__(self, b: int) -> None:
        self.a = b


@attrs.define
class Growing(Generic[T]):
    inner: Growing[list[T]] | None = None


@attrs.define
class LikeCat:
    name: str
    sound: str = "meow"


@attrs.define
class Unhashable:
    a: int


class Abstract(collections.abc.Hashable):
    a: int


class Plain:
    a: int


class Words(str):
    __slots__ = ()


class Bits(enum.Enum):
    PAIR = (1, 2)


class Nothing(enum.Enum):
    pass


abstract_attrs = attrs.make_class("abstract_attrs", {"a": attrs.field(type=int)}, bases=(collections.abc.Sized,))  # fmt: skip  # noqa: E501

UNUSABLE: list[tuple[Any, str]] = [
    (bytes, "values of bytes cannot be checked"),
    (complex, "values of complex cannot be checked"),
    (Decimal, "values of Decimal cannot be checked"),
    (Path, "values of Path cannot be checked"),
    (timedelta, "values of timedelta cannot be checked"),
    (Plain, "values of Plain cannot be checked (what can be used: bool, int"),
    (Words, "values of Words cannot be checked"),
    (type, "values of type cannot be checked"),
    (["yes", "no"], "['yes', 'no'] cannot be checked; did you mean Literal['yes', 'no']?"),
    ((1, True), "(1, True) cannot be checked; did you mean Literal[1, True]?"),
    ([], "values of [] cannot be checked (what can be used: bool, int"),
    ([str], "cannot be checked (what can be used: bool, int"),
    (Never, "Never cannot be checked"),
    (Callable[[], int], "Callable"),
    (collections.OrderedDict, "values of OrderedDict cannot be checked"),
    (collections.abc.Iterator, "values of Iterator cannot be checked"),
    (3, "values of 3 cannot be checked"),
    (dict[int, str], "the names in a JSON object are text, so int cannot be their type"),
    (dict[str | None, str], "the names in a JSON object are text"),
    (dict[Level, str], "the names in a JSON object are text, so Level cannot"),
    (tuple[int, *tuple[str, ...]], "cannot be checked"),
    (T, "a type is open: say what T stands for"),
    (list[T], "a type is open: say what T stands for"),  # type: ignore[valid-type]  # on purpose
    (Box, "Box is open: say what T stands for"),
    (Page, "Page is open: say what T stands for"),
    (Listed, "Listed is open: say what T stands for"),
    ("Finding", "the name 'Finding' is not resolved: give the type itself"),
    (list["Finding"], "the name 'Finding' is not resolved: give the type itself"),
    (Self, "cannot be checked"),
    (local_class(), "an annotation of Lost cannot be resolved in"),
    (WithBytes, "WithBytes.inner > HoldsBytes.data: values of bytes cannot be checked"),
    (WithInitVar, "WithInitVar(...) cannot be called with its fields alone"),
    (OwnInit, "OwnInit(...) cannot be called with its fields alone"),
    (Untyped, "Untyped.a has no annotation"),
    (collections.namedtuple("Bare", "a"), "Bare.a has no annotation"),  # noqa: PYI024  # on purpose
    (abstract_attrs, "abstract_attrs is abstract"),
    (Growing[int], "Growing[int] has no end"),
    (Endless, "Endless stands for itself"),
    (Lost, "an annotation of Lost cannot be resolved in"),
    (Garbled, "an annotation of Garbled cannot be resolved in"),
    (tuple[Callable[..., int], ...], "Callable"),
    (Bits, "(1, 2) in Bits has no JSON form"),
    (Literal[b"a"], "has no JSON form"),
    (Nothing, "Nothing has no members"),
    (set[list[int]], "a list has no hash, so it cannot be in a set"),
    (frozenset[dict[str, int]], "an object has no hash, so it cannot be in a frozenset"),
    (set[Unhashable], "an object has no hash"),
    (set[Movie], "an object has no hash"),
    (Cat | LikeCat, "nothing tells Cat and LikeCat apart in a union"),
    (list[Circle | Square | dict[str, Cat | LikeCat]], "nothing tells Cat and LikeCat apart"),
]


@pytest.mark.parametrize(("kind", "why"), UNUSABLE, ids=shown)
def test_a_type_that_cannot_be_checked_is_refused_by_name(kind: Any, why: str) -> None:
    with pytest.raises(SchemaTypeError) as caught:
        Schema[Any](kind)
    assert why in str(caught.value)


def test_classes_that_differ_in_a_required_field_may_share_a_union() -> None:
    assert Schema[Any](Finding | Cat).structure({"line": 1}) == Finding(1)


def test_a_class_made_inside_a_function_may_hold_itself() -> None:
    cls = local_recursion()
    assert Schema(cls).structure({"following": {}}) == cls(cls())


def test_a_class_made_inside_a_function_may_hold_itself_through_another() -> None:
    cls = local_circle()
    found = Schema(cls).structure({"spoke": {"wheel": {"spoke": {}}}})
    assert type(found.spoke.wheel) is cls


def test_an_alias_of_the_language_is_what_it_stands_for() -> None:
    if sys.version_info < (3, 12):
        pytest.skip("`type X = ...` came with Python 3.12")
    space: dict[str, Any] = {"__name__": __name__}
    exec("type Tree = list[Tree] | int\ntype Pair[X] = tuple[X, X]", space)  # noqa: S102  # no syntax of 3.11
    assert Schema[Any](space["Tree"]).structure([1, [2, []]]) == [1, [2, []]]
    assert refusal(space["Tree"], [[1, "x"]]).path == "[0][1]"
    assert Schema[Any](space["Pair"][int]).structure([1, 2]) == (1, 2)


# ------------------------------------------------------------------------------------ classes


def test_an_attribute_is_named_as_the_constructor_names_it() -> None:
    found = Schema(Review).structure({"findings": [], "secret": 3, "tags": ["a"]})
    assert found == Review([], secret=3, tags=["a"])
    assert found.made_up == 7


def test_what_the_constructor_does_not_take_is_not_written() -> None:
    assert Schema(Order).unstructure(Order("x", 2)) == {"item": "x", "amount": 2, "notes": []}
    written = Schema(Review).unstructure(Review([], secret=3))
    assert written == {"findings": [], "secret": 3, "when": None, "tags": []}


def test_a_default_that_does_not_fit_is_left_out_in_writing() -> None:
    cls: Any = attrs.make_class("cls", {"a": attrs.field(type=int, default=None)})
    schema = Schema[Any](cls)
    assert schema.unstructure(schema.structure({})) == {}
    assert schema.unstructure(cls(1)) == {"a": 1}
    assert "default" not in schema.json_schema()["properties"]["a"]


def test_defaults_are_made_anew_for_each_value() -> None:
    schema = Schema(Order)
    one, other = schema.structure({"item": "a"}), schema.structure({"item": "b"})
    one.notes.append("x")
    assert other.notes == []


def test_post_init_is_run() -> None:
    assert Schema(Order).structure({"item": "x", "amount": 2}).total == 20


def test_what_post_init_raises_is_told_at_the_object() -> None:
    error = refusal(list[Order], [{"item": "x", "amount": 0}])
    assert (error.path, error.why) == ("[0]", "amount must be at least 1")
    assert isinstance(error.__cause__, ValueError)


def is_even(_: Any, attribute: attrs.Attribute[int], value: int) -> None:
    if value % 2:
        message = f"{attribute.name} is odd"
        raise ValueError(message)


def lowered(value: str) -> str:
    return value.lower()


def not_one(value: int | None) -> int | None:
    if value == 1:
        raise KeyError
    return value


@attrs.frozen
class Checked:
    even: int = attrs.field(default=0, validator=is_even)
    _small: int = attrs.field(default=0, validator=attrs.validators.le(10))
    word: str = attrs.field(default="a", validator=attrs.validators.matches_re("[a-z]+"))
    lower: str = attrs.field(default="", converter=lowered)
    broken: int | None = attrs.field(default=None, converter=not_one)

    def __attrs_post_init__(self) -> None:
        if self.even == 8:
            message = "not 8"
            raise ValueError(message)


@pytest.mark.parametrize(
    ("value", "path", "why"),
    [
        ({"even": 3}, "even", "even is odd"),
        ({"small": 11}, "small", "'_small' must be <= 10: 11"),
        ({"word": "A"}, "word", "'word' must match regex '[a-z]+' ('A' doesn't)"),
        ({"broken": 1}, "broken", "KeyError"),
        ({"even": 8}, "", "not 8"),
    ],
)
def test_what_a_validator_or_converter_raises_is_told_at_its_field(
    value: Any, path: str, why: str
) -> None:
    error = refusal(Checked, value)
    assert (error.path, error.why) == (path, why)
    nested_error = refusal(dict[str, list[Checked]], {"a": [value]})
    assert nested_error.path == "a[0]" + (f".{path}" if path else "")


def test_converters_are_run() -> None:
    assert Schema(Checked).structure({"lower": "ABC"}).lower == "abc"


def test_a_value_is_given_to_a_converter_only_if_it_fits_the_annotation() -> None:
    assert refusal(Checked, {"lower": 3}).why == "text is needed, not 3"


def test_a_class_is_not_made_of_fields_that_do_not_fit() -> None:
    assert problems(Checked, {"even": "x", "small": 11}) == {
        "even": "a whole number is needed, not 'x'"
    }


class Ordered(NamedTuple("Ordered", [("low", int), ("high", int)])):
    __slots__ = ()

    def __new__(cls, low: int, high: int) -> Self:
        if low > high:
            message = "low is above high"
            raise ValueError(message)
        return super().__new__(cls, low, high)


def test_what_a_named_tuple_raises_is_told_at_the_list() -> None:
    assert problems(list[Ordered], [[1, 2], [2, 1]]) == {"[1]": "low is above high"}


class OneTime:
    """A validator that refuses its first value only."""

    def __init__(self) -> None:
        self.called = False

    def __call__(self, *_: Any) -> None:
        if not self.called:
            self.called = True
            message = "not now"
            raise ValueError(message)


def test_what_a_fickle_validator_raises_is_told_at_the_object() -> None:
    cls = attrs.make_class("cls", {"a": attrs.field(type=int, validator=OneTime())})
    error = refusal(cls, {"a": 1})
    assert (error.path, error.why) == ("", "not now")


@attrs.define
class Picky:
    """Its `__new__` cannot be called without arguments, so nothing tells which field it was."""

    a: int = attrs.field(validator=is_even)

    def __new__(cls, a: int) -> Self:
        assert isinstance(a, int)
        return super().__new__(cls)


def test_where_the_field_cannot_be_told_the_object_is() -> None:
    error = refusal(list[Picky], [{"a": 1}])
    assert (error.path, error.why) == ("[0]", "a is odd")


@attrs.frozen
class Hostile:
    a: int = attrs.field()

    @a.validator
    def _interrupt(self, _: Any, value: int) -> None:
        raise KeyboardInterrupt(value)


def test_an_interrupt_in_a_validator_is_no_problem_of_the_value() -> None:
    with pytest.raises(KeyboardInterrupt):
        Schema(Hostile).structure({"a": 1})


def test_every_field_has_a_schema_of_its_own() -> None:
    fields = Schema(Review).fields()
    assert list(fields) == ["findings", "secret", "when", "tags"]
    fields["findings"].check([{"line": 1}])
    with pytest.raises(SchemaError, match=r"^state\.findings\[0\]\.line: it is missing$"):
        fields["findings"].check([{}], "state.findings")
    with pytest.raises(SchemaTypeError, match="no class with fields, but a list"):
        Schema(list[int]).fields()


def test_names_of_fields_need_be_no_identifiers() -> None:
    state = TypedDict("state", {"app:total": int})
    assert list(Schema[Any](state).fields()) == ["app:total"]


# ------------------------------------------------------------------------------------- writing


@attrs.define
class Unfinished:
    a: int
    b: str = "b"


class Tick(TypedDict, total=False):
    kind: Literal["tick"]
    n: int


class Tock(TypedDict, total=False):
    kind: Literal["tock"]
    n: int


# type, value, path, why
UNWRITABLE: list[tuple[Any, Any, str, str]] = [
    (int, "3", "", "a whole number is needed, not '3'"),
    (int, True, "", "a whole number is needed, not true"),
    (float, math.nan, "", "nan has no JSON form"),
    (str, "\ud800", "", "lone surrogate"),
    (list[int], (1,), "", "a list is needed, not a tuple"),
    (tuple[int, ...], [1], "", "a tuple is needed, not a list"),
    (tuple[int, str], (1,), "", "a list of 2 is needed, not of 1"),
    (set[int], [1], "", "a set is needed, not a list"),
    (Point, (1, 2.5, "p"), "", "a Point is needed, not a tuple"),
    (dict[str, int], {"a": "1"}, "a", "a whole number is needed, not '1'"),
    (dict[str, int], {1: 1}, "['1']", "text is needed, not 1"),
    (Colour, "red", "", "one of 'red', 'green' is needed, not 'red'"),
    (Literal[1], True, "", "1 is needed, not true"),
    (date, datetime(2024, 5, 31, tzinfo=UTC), "", "a date is needed, not a datetime"),
    (Finding, {"line": 1}, "", "a Finding is needed, not an object"),
    (Finding, Finding("1"), "line", "a whole number is needed, not '1'"),  # type: ignore[arg-type]  # on purpose
    (Base, Derived(1), "", "a Base is needed, not a Derived"),
    (Movie, [], "", "a dict is needed, not a list"),
    (Movie, {}, "title", "it is missing"),
    (int | None, "x", "", "a whole number or null is needed, not 'x'"),
    (Finding | None, Cat("a"), "", "nothing fits: Finding (a Finding is needed, not a Cat); null"),
    (Tick | Tock, {"n": 1}, "", "it fits both Tick and Tock; say which with 'kind'"),
    (Any, {"a": [object()]}, "", "a[0]: a object has no JSON form"),
]


@pytest.mark.parametrize(("kind", "value", "path", "why"), UNWRITABLE, ids=shown)
def test_a_value_of_another_type_is_not_written(kind: Any, value: Any, path: str, why: str) -> None:
    with pytest.raises(SchemaError) as caught:
        Schema[Any](kind).unstructure(value)
    assert caught.value.path == path
    assert why in caught.value.why


def test_a_value_without_an_attribute_it_should_have_is_not_written() -> None:
    unfinished = Unfinished.__new__(Unfinished)
    with pytest.raises(SchemaError, match=r"^answer\.a: it is missing$"):
        Schema(Unfinished).unstructure(unfinished, "answer")


def test_a_value_that_holds_itself_is_not_written() -> None:
    node = Node(1)
    node.children.append(node)
    with pytest.raises(SchemaError, match="nested too deeply"):
        Schema(Node).unstructure(node)


def test_what_is_written_is_plain() -> None:
    written = Schema[Any](Mapping[str, Sequence[Any]]).unstructure(freeze({"a": [{}]}))
    assert (type(written), type(written["a"]), type(written["a"][0])) == (dict, list, dict)


@given(st.frozensets(st.text("abc", max_size=3)))
def test_a_set_is_written_in_the_same_order_every_time(items: frozenset[str]) -> None:
    schema = Schema(frozenset[str])
    assert schema.unstructure(items) == sorted(items, key=lambda item: f'"{item}"')


# -------------------------------------------------------------------------------------- errors


def test_an_error_names_place_need_and_value() -> None:
    error = refusal(Review, {"findings": [{"line": 1}, {"line": 1}, {"line": "3"}]})
    assert str(error) == "findings[2].line: a whole number is needed, not '3'"
    assert (error.path, error.why) == ("findings[2].line", "a whole number is needed, not '3'")


@pytest.mark.parametrize(
    ("kind", "value", "path"),
    [
        (int, "x", "answer"),
        (list[int], ["x"], "answer[0]"),
        (Finding, {"line": "x"}, "answer.line"),
        (dict[str, int], {"a b": "x"}, "answer['a b']"),
        (Any, [math.nan], "answer[0]"),
        (Any, {"a": math.nan}, "answer.a"),
    ],
    ids=shown,
)
def test_a_path_begins_where_the_value_stands(kind: Any, value: Any, path: str) -> None:
    assert refusal(kind, value, "answer").path == path


def test_the_first_three_problems_are_shown_and_the_others_counted() -> None:
    error = refusal(list[int], list("abcde"))
    assert str(error) == (
        "[0]: a whole number is needed, not 'a'; [1]: a whole number is needed, not 'b'; "
        "[2]: a whole number is needed, not 'c'; and 2 more"
    )
    assert [path for path, _ in error.problems] == ["[0]", "[1]", "[2]", "[3]", "[4]"]
    assert error.count == 5


def test_all_kinds_of_problems_are_found_at_once() -> None:
    value = {"findings": [{"line": "1"}, {"text": "a"}, {"line": 1, "txt": "b"}], "secret": "s"}
    assert list(problems(Review, value)) == [
        "findings[0].line",
        "findings[1].line",
        "findings[2].txt",
        "secret",
    ]


def test_items_that_do_not_fit_are_no_duplicates() -> None:
    assert refusal(set[date], ["x", "y"]).count == 2


def test_of_very_many_problems_the_first_fifty_are_kept() -> None:
    error = refusal(list[int], ["a"] * 1000)
    assert (len(error.problems), error.count) == (50, 1000)
    assert str(error).endswith("and 997 more")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("x" * 1000, "'" + "x" * 78 + "…"),
        ("\ud800", None),
        ("a\x1b[31m\n", r"'a\x1b[31m\n'"),
        (10**100, "a number of 333 bits"),
        (2**64, "18446744073709551616"),
        ([[]], "a list"),
        ({"a": 1}, "an object"),
        (None, "null"),
    ],
    ids=shown,
)
def test_a_value_is_shown_short_and_harmless(value: Any, said: str | None) -> None:
    message = str(refusal(bool, value))
    if said is not None:
        assert message == f"true or false is needed, not {said}"
    assert message.isprintable()
    assert len(message) < 130


@given(json_values | st.text())
def test_a_message_can_be_printed_and_stored(value: Any) -> None:
    message = str(refusal(dict[str, Colour], {"key": value}))
    assert message.isprintable()
    assert freeze(message) == message


@given(st.dictionaries(texts | st.text(min_size=100), st.none(), min_size=1, max_size=5))
def test_hostile_names_make_no_hostile_message(value: dict[str, None]) -> None:
    message = str(refusal(dict[str, int], value))
    assert message.isprintable()
    assert len(message) < 1000


def test_a_hostile_name_around_what_is_no_json_is_harmless() -> None:
    error = refusal(Any, {"\x1b[31m": math.nan})
    assert str(error) == r"\x1b[31m: nan has no JSON form"


def test_a_long_path_is_shown_by_its_end() -> None:
    value: Any = {"value": "x"}
    for _ in range(40):
        value = {"value": 1, "children": [value]}
    error = refusal(Node, value)
    assert str(error).startswith("…")
    assert "children[0].value: a whole number" in str(error)
    assert error.path == "children[0]." * 40 + "value"


def test_an_unknown_name_of_any_length_is_not_searched_for_long() -> None:
    assert "there is no such field" in refusal(Finding, {"line" * 10_000: 1}).why


class MuteError(Exception):
    def __str__(self) -> str:
        raise self


def be_mute(_: Any) -> str:
    raise MuteError


def test_a_validator_whose_error_cannot_be_read_is_told_as_such() -> None:
    cls = attrs.make_class("cls", {"a": attrs.field(type=str, converter=be_mute)})
    assert refusal(cls, {"a": "x"}).why == "<its __str__ failed>"


def test_errors_are_usage_errors_and_what_python_would_raise() -> None:
    assert issubclass(SchemaError, UsageError)
    assert issubclass(SchemaError, ValueError)
    assert issubclass(SchemaTypeError, UsageError)
    assert issubclass(SchemaTypeError, TypeError)


# ------------------------------------------------------------------------------ depth and size


def nested(make: Callable[[Any], Any], depth: int, inner: Any) -> Any:
    for _ in range(depth):
        inner = make(inner)
    return inner


@pytest.mark.parametrize("kind", [Any, list, Json, list[Any], dict[str, Any], Node, int, int | str])
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 10_000, 100_000])
def test_hostile_nesting_is_refused(kind: Any, depth: int) -> None:
    assert "nested deeper than" in refusal(kind, nested(lambda value: [value], depth, 1)).why


def test_a_recursive_class_is_read_as_deep_as_values_may_be() -> None:
    half = MAX_DEPTH // 2
    value = nested(lambda inner: {"value": 1, "children": [inner]}, half - 1, {"value": 1})
    schema = Schema(Node)
    found = schema.structure(value)
    assert schema.structure(schema.unstructure(found)) == found
    too_deep = nested(lambda inner: {"value": 1, "children": [inner]}, half, {"value": 1})
    assert "nested deeper than" in refusal(Node, too_deep).why


def test_a_stack_that_is_nearly_used_up_is_no_crash() -> None:
    schema, value = Schema(Json), nested(lambda inner: [inner], DEEP, 1)

    def down() -> None:
        try:
            schema.structure(value)
        except SchemaError as error:
            assert error.why == "nested too deeply"  # noqa: PT017  # it may happen or not
        down()

    with pytest.raises(RecursionError):
        down()


def test_a_hundred_thousand_items_are_read() -> None:
    items = list(range(100_000))
    assert Schema(list[int]).structure(items) == items
    assert refusal(list[int], ["x", *items, "y"]).count == 2


counted = 0


def count(value: int) -> int:
    global counted  # noqa: PLW0603  # the simplest count there is
    counted += 1
    return value


@attrs.define
class Left:
    below: Left | Right | None = None
    n: int = attrs.field(default=0, converter=count)
    left: int = 0


@attrs.define
class Right:
    right: int
    below: Left | Right | None = None
    n: int = attrs.field(default=0, converter=count)


def test_classes_in_a_union_are_not_tried_again_at_every_level() -> None:
    """Without memory, each level would double the work: 2 to the 60th."""
    global counted  # noqa: PLW0603  # as above
    counted = 0
    # Fits neither by the name alone: both must be tried to the bottom.
    depth = 60
    value = nested(lambda inner: {"right": 1, "below": inner}, depth, None)
    assert Schema(Left | Right).structure(value).right == 1
    assert counted <= 2 * depth * depth


def test_what_fits_nothing_is_told_wherever_it_stands() -> None:
    shared = {"left": 1, "right": 1}
    found = problems(list[Left | Right], [shared, shared])
    assert list(found) == ["[0]", "[1]"]
    assert found["[0]"] == found["[1]"]
    assert "nothing fits: Left (right: there is no such field" in found["[0]"]


def test_the_same_object_in_two_places_is_read_twice() -> None:
    shared = {"right": 1}
    first, second = Schema[list[Any]](list[Left | Right]).structure([shared, shared])
    assert first == second
    assert first is not second


# -------------------------------------------------------------------------- words and schemas

DESCRIBED: list[tuple[Any, str]] = [
    (bool, "true or false"),
    (int, "a whole number"),
    (float, "a number"),
    (str, "text"),
    (None, "null"),
    (Any, "a JSON value"),
    (Literal["a", "b"], "one of 'a', 'b'"),
    (Literal["yes"], "'yes'"),
    (Literal[tuple(range(20))], "one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …"),
    (Colour, "one of 'red', 'green'"),
    (int | None, "a whole number or null"),
    (list[int], "a list, each item a whole number"),
    (set[str], "a list without duplicates, each item text"),
    (tuple[int, str], "a list of 2: a whole number, text"),
    (tuple[()], "an empty list"),
    (Point, "a list of 3: x (a whole number), y (a number), label (text)"),
    (dict[str, bool], "an object, each value true or false"),
    (dict[Colour, int], "an object, each name one of 'red', 'green', each value a whole number"),
    (date, "a date such as '2024-05-31'"),
    (
        Finding,
        (
            "an object with fields: line (a whole number), text (text; optional), "
            "severity (one of 'low', 'high'; optional)"
        ),
    ),
    (attrs.make_class("Empty", {}), "an empty object"),
    (Tree[int], "a list of 2: a whole number, a list, each item a Tree"),
]


@pytest.mark.parametrize(("kind", "text"), DESCRIBED, ids=shown)
def test_a_schema_describes_itself_to_a_person(kind: Any, text: str) -> None:
    assert Schema[Any](kind).describe() == text


def test_a_schema_shows_what_it_is_of() -> None:
    assert repr(Schema(list[int])) == "<Schema of a list, each item a whole number>"


JSON_SCHEMAS: list[tuple[Any, Any]] = [
    (bool, {"type": "boolean"}),
    (float, {"type": "number"}),
    (None, {"type": "null"}),
    (Any, {}),
    (date, {"type": "string", "format": "date"}),
    (Literal["a", 1], {"enum": ["a", 1]}),
    (Colour, {"enum": ["red", "green"], "type": "string"}),
    (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
    (set[str], {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
    (
        tuple[int, str],
        {
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "string"}],
            "minItems": 2,
            "maxItems": 2,
        },
    ),
    (tuple[()], {"type": "array", "minItems": 0, "maxItems": 0}),
    (
        dict[Colour, int],
        {
            "type": "object",
            "additionalProperties": {"type": "integer"},
            "propertyNames": {"enum": ["red", "green"], "type": "string"},
        },
    ),
    (
        Movie,
        {
            "title": "Movie",
            "type": "object",
            "properties": {"title": {"type": "string"}, "year": {"type": "integer"}},
            "required": ["title"],
            "additionalProperties": False,
        },
    ),
    (
        Circle | None,
        {
            "anyOf": [{"$ref": "#/$defs/Circle"}, {"type": "null"}],
            "$defs": {
                "Circle": {
                    "title": "Circle",
                    "type": "object",
                    "properties": {"radius": {"type": "number"}},
                    "required": ["radius"],
                    "additionalProperties": False,
                }
            },
        },
    ),
    (
        Tree[int],
        {
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "array", "items": {"$ref": "#"}}],
            "minItems": 2,
            "maxItems": 2,
        },
    ),
]


@pytest.mark.parametrize(("kind", "expected"), JSON_SCHEMAS, ids=shown)
def test_the_json_schema_of_a_type(kind: Any, expected: Any) -> None:
    assert Schema[Any](kind).json_schema() == expected


def test_the_json_schema_of_a_recursive_class_refers_to_itself() -> None:
    schema = Schema(Node).json_schema()
    assert schema["properties"]["children"] == {"type": "array", "items": {"$ref": "#"}}
    assert "$defs" not in schema
    inside = Schema(list[Node]).json_schema()
    assert inside["items"] == {"$ref": "#/$defs/Node"}
    children = inside["$defs"]["Node"]["properties"]["children"]
    assert children == {"type": "array", "items": {"$ref": "#/$defs/Node"}}


def test_two_classes_of_one_name_have_a_definition_each() -> None:
    one = attrs.make_class("Same", {"a": attrs.field(type=int)})
    other = attrs.make_class("Same", {"b": attrs.field(type=Box[int]), "c": attrs.field(type=one)})
    defs = Schema[Any](tuple[one, other, Box[int]]).json_schema()["$defs"]  # type: ignore[valid-type]  # made here
    assert sorted(defs) == ["Box_int", "Same", "Same_1"]


def test_a_json_schema_has_the_defaults() -> None:
    properties = Schema(Finding).json_schema()["properties"]
    assert properties["text"] == {"type": "string", "default": ""}


@pytest.mark.parametrize("kind", [line[0] for line in FITS], ids=shown)
def test_a_json_schema_is_json(kind: Any) -> None:
    schema = Schema[Any](kind).json_schema()
    assert same(freeze(schema), schema)


# -------------------------------------------------------------------------------------- models


class FakeModelError(ValueError):
    def __init__(self, problems: list[dict[str, Any]]) -> None:
        super().__init__("many things")
        self._problems = problems

    def errors(self) -> list[dict[str, Any]]:
        return self._problems


class FakeModel:
    """Has the methods of a pydantic model, and one field: a number or, in Python, text."""

    model_fields: Mapping[str, Any] = {"n": None}
    model_config: Mapping[str, Any] = {}

    def __init__(self, n: int) -> None:
        self.n = n

    @classmethod
    def model_validate(cls, value: Any, *, strict: bool) -> Self:
        assert strict
        assert type(value) is dict
        if type(value["n"]) is not int:
            raise FakeModelError([{"loc": ("n",), "msg": "no number"}])
        return cls(value["n"])

    def model_dump(self, *, mode: str, by_alias: bool, round_trip: bool) -> Any:
        assert (mode, by_alias, round_trip) == ("json", True, True)
        return {"n": self.n}

    @classmethod
    def model_json_schema(cls, *, ref_template: str) -> Any:
        return {"properties": {"n": {"$ref": ref_template.format(model="N")}}}


class OpenModel(FakeModel):
    model_config: Mapping[str, Any] = {"extra": "allow"}


class ClosedModel(FakeModel):
    model_config: Mapping[str, Any] = {"extra": "forbid"}

    @classmethod
    def model_validate(cls, value: Any, *, strict: bool) -> Self:
        assert strict
        raise FakeModelError([{"loc": (name,), "msg": "extra"} for name in value])


class RefusingModel(FakeModel):
    @classmethod
    def model_validate(cls, value: Any, *, strict: bool) -> Self:
        message = f"{strict} {value}"
        raise ValueError(message)

    def model_dump(self, **options: Any) -> Any:
        raise RuntimeError(options["mode"])


@attrs.frozen
class FakeAlias:
    """An alias of pydantic's: one of several choices, each a path into the value."""

    choices: list[Any] = attrs.field(factory=list)


@attrs.frozen
class FakePath:
    path: list[Any]


@attrs.frozen
class FakeField:
    alias: str | None = None
    validation_alias: Any = None


class JsonModel(FakeModel):
    """Takes JSON text as well, and its fields by other names."""

    model_fields: Mapping[str, Any] = {
        "n": FakeField(),
        "other": FakeField(alias="Other"),
        "third": FakeField(validation_alias=FakeAlias(["T", FakePath(["deep", "er"])])),
    }

    @classmethod
    def model_validate_json(cls, value: str, *, strict: bool) -> Self:
        return cls.model_validate(json.loads(value), strict=strict)


class NamedModel(JsonModel):
    model_config: Mapping[str, Any] = {"populate_by_name": True}


class RootModel(FakeModel):
    __pydantic_root_model__ = True

    @classmethod
    def model_validate(cls, value: Any, *, strict: bool) -> Self:
        assert strict
        return cls(value)


def test_a_model_that_reads_json_text_is_given_that() -> None:
    assert Schema(JsonModel).structure(freeze({"n": 1})).n == 1


def test_a_model_is_given_its_fields_by_the_names_it_reads_only() -> None:
    value = {"n": 1, "Other": 1, "T": 1, "deep": {"er": 1}}
    assert Schema(JsonModel).structure(value).n == 1
    wrong = {**value, "other": 1, "third": 1, "er": 1}
    assert list(problems(JsonModel, wrong)) == ["other", "third", "er"]
    assert Schema(NamedModel).structure({**value, "other": 1, "third": 1}).n == 1


def test_a_root_model_takes_whatever_it_is_of() -> None:
    assert Schema(RootModel).structure(3).n == 3
    assert Schema[Any](RootModel | None).structure("x").n == "x"


def test_what_has_the_methods_of_a_model_reads_itself() -> None:
    found = Schema(list[FakeModel]).structure(freeze([{"n": 1}]))
    assert [type(item) for item in found] == [FakeModel]
    assert Schema(FakeModel).unstructure(found[0]) == {"n": 1}


def test_the_problems_of_a_model_are_told_at_their_places() -> None:
    assert problems(list[FakeModel], [{"n": 1}, {"n": "x"}]) == {"[1].n": "no number"}
    assert refusal(RefusingModel, {"n": 1}).why == "True {'n': 1}"


def test_a_name_that_a_model_does_not_know_is_refused_unless_it_allows_all() -> None:
    assert problems(FakeModel, {"n": 1, "nn": 1}) == {
        "nn": "there is no such field; did you mean 'n'?"
    }
    assert Schema(OpenModel).structure({"n": 1, "nn": 1}).n == 1
    assert refusal(ClosedModel, {"nn": 1}).problems == (("nn", "extra"),)


def test_a_model_is_written_by_itself_alone() -> None:
    with pytest.raises(SchemaError, match="a FakeModel is needed, not an OpenModel"):
        Schema(FakeModel).unstructure(OpenModel(1))
    with pytest.raises(SchemaError, match="json"):
        Schema(RefusingModel).unstructure(RefusingModel(1))


def test_the_json_schema_of_a_model_stands_in_ours() -> None:
    assert Schema(FakeModel).json_schema()["properties"] == {"n": {"$ref": "#/$defs/N"}}
    inside = Schema(list[FakeModel]).json_schema()["$defs"]["FakeModel"]
    assert inside["properties"] == {"n": {"$ref": "#/$defs/FakeModel/$defs/N"}}
    assert inside["additionalProperties"] is False
    assert "additionalProperties" not in Schema(OpenModel).json_schema()


def test_a_model_describes_itself_by_its_fields() -> None:
    assert Schema(FakeModel).describe() == "an object with fields: n"
    assert Schema(OpenModel).describe() == "an OpenModel"


def test_two_models_that_both_take_an_object_are_ambiguous() -> None:
    assert refusal(FakeModel | OpenModel, {"n": 1}).why == "it fits both FakeModel and OpenModel"
    assert Schema[Any](FakeModel | OpenModel | None).structure(None) is None


@pytest.fixture
def pydantic() -> Any:
    return pytest.importorskip("pydantic", reason="pydantic is not installed; fakes stand in")


def test_a_real_model_is_read_strictly_as_json(pydantic: Any) -> None:
    item: Any = pydantic.create_model("Item", n=(int, ...))
    model = pydantic.create_model(
        "Model",
        when=(datetime, ...),
        items=(GenericAlias(list, (item,)), ...),
        my_name=(str, pydantic.Field("x", alias="myName")),
    )
    schema = Schema[Any](model)
    found = schema.structure(
        freeze({"when": "2024-05-31T12:00:00Z", "items": [{"n": 1}], "myName": "q"})
    )
    assert (found.when, found.items[0].n, found.my_name) == (
        datetime(2024, 5, 31, 12, tzinfo=UTC),
        1,
        "q",
    )
    assert schema.structure(schema.unstructure(found)) == found
    wrong = {"when": "x", "items": [{"n": "1"}], "my_name": "q"}
    assert list(problems(model, wrong)) == ["my_name", "when", "items[0].n"]


def test_a_real_root_model_and_a_real_recursive_one(pydantic: Any) -> None:
    numbers = pydantic.RootModel[list[int]]
    assert Schema[Any](numbers).structure([1]).root == [1]
    assert refusal(numbers, ["1"]).path == "[0]"
    assert Schema[Any](numbers | None).structure(None) is None
    tree = pydantic.create_model(
        "Folder", folders=(GenericAlias(list, (ForwardRef("Folder"),)), [])
    )
    tree.model_rebuild(_types_namespace={"Folder": tree})
    schema = Schema[Any](tree).json_schema()
    assert schema["unevaluatedProperties"] is False


# ---------------------------------------------------------------- drawn types and an oracle

# What is drawn is a plan: tuples of words, from which the type is made, and which the oracle
# reads. It shares nothing with the code under test, not even the annotations.
Plan = tuple[Any, ...]

_PLAIN: Final[dict[str, Any]] = {
    "bool": bool, "int": int, "float": float, "str": str, "none": type(None), "any": Any
}  # fmt: skip

_leaves: st.SearchStrategy[Plan] = st.one_of(
    st.sampled_from([(name,) for name in _PLAIN]),
    st.lists(st.sampled_from(["a", "b", 0, 1, True, None]), min_size=1, max_size=3).map(
        lambda options: ("literal", *options)
    ),
)
_hashable = st.sampled_from([("int",), ("str",), ("tuple", ("int",), ("bool",))])
_fields = st.dictionaries(st.sampled_from("abc"), st.booleans(), max_size=3)


def _containers(inner: st.SearchStrategy[Plan]) -> st.SearchStrategy[Plan]:
    return st.one_of(
        st.tuples(st.sampled_from(["list", "tuple of", "dict"]), inner),
        st.tuples(st.just("set"), _hashable),
        st.lists(inner, max_size=3).map(lambda items: ("tuple", *items)),
        st.lists(inner, min_size=1, max_size=3).filter(_at_most_one_class).map(
            lambda members: ("union", *members)
        ),
        st.tuples(
            st.sampled_from(["attrs", "dataclass", "typed dict"]),
            st.dictionaries(st.sampled_from("abc"), st.tuples(inner, st.booleans()), max_size=3),
        ),
    )  # fmt: skip


_CLASSES: Final = ("attrs", "dataclass", "typed dict")


def _at_most_one_class(members: list[Plan]) -> bool:
    """Two might be too alike; that is looked at elsewhere."""

    def count_classes(plan: Plan) -> int:
        if plan[0] == "union":
            return sum(map(count_classes, plan[1:]))
        return plan[0] in _CLASSES

    return sum(map(count_classes, members)) <= 1


plans: st.SearchStrategy[Plan] = st.recursive(_leaves, _containers, max_leaves=6)


def type_of(plan: Plan) -> Any:
    """The annotation that a plan stands for."""
    match plan:
        case ("literal", *options):
            return Literal[tuple(options)]
        case ("list", item):
            return list[type_of(item)]  # type: ignore[misc]  # a type is made here
        case ("tuple of", item):
            return tuple[type_of(item), ...]  # type: ignore[misc]  # as above
        case ("set", item):
            return set[type_of(item)]  # type: ignore[misc]  # as above
        case ("dict", item):
            return dict[str, type_of(item)]  # type: ignore[misc]  # as above
        case ("tuple", *items):
            return tuple[tuple(map(type_of, items))]  # type: ignore[misc]  # as above
        case ("union", *members):
            return Union[tuple(map(type_of, members))]  # noqa: UP007  # there is no `|` of a tuple
        case (flavour, dict() as fields):
            return _class_of(flavour, fields)
        case (name,):
            return _PLAIN[name]
    raise AssertionError(plan)


def _class_of(flavour: str, fields: dict[str, tuple[Plan, bool]]) -> Any:
    types = {name: type_of(plan) for name, (plan, _) in fields.items()}
    if flavour == "typed dict":
        needed = {
            name: Required[kind] if fields[name][1] else NotRequired[kind]
            for name, kind in types.items()
        }
        return TypedDict("Drawn", needed)  # type: ignore[operator]  # a type is made here
    if flavour == "attrs":
        attributes = {
            name: attrs.field(type=kind, kw_only=True)
            if fields[name][1]
            else attrs.field(type=kind, kw_only=True, default=None)
            for name, kind in types.items()
        }
        return attrs.make_class("Drawn", attributes)
    declared = [
        (name, kind) if fields[name][1] else (name, kind, dataclasses.field(default=None))
        for name, kind in types.items()
    ]
    return dataclasses.make_dataclass("Drawn", declared, kw_only=True)


_FITS: Final[dict[str, Callable[[Any], bool]]] = {
    "any": lambda _: True,
    "bool": lambda value: value is True or value is False,
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "none": lambda value: value is None,
}


def fits(plan: Plan, value: Any) -> bool:
    """The oracle: whether a JSON value fits a plan."""
    match plan:
        case (name,) if name in _FITS:
            return _FITS[name](value)
        case ("literal", *options):
            return any(same(option, value) for option in options)
        case ("list" | "tuple of", item):
            return isinstance(value, list) and all(fits(item, part) for part in value)
        case ("set", item):
            return fits(("list", item), value) and not any(
                part in value[:index] for index, part in enumerate(value)
            )
        case ("dict", item):
            return isinstance(value, dict) and all(fits(item, part) for part in value.values())
        case ("tuple", *items):
            return (
                isinstance(value, list)
                and len(value) == len(items)
                and all(map(fits, items, value))
            )
        case ("union", *members):
            return any(fits(member, value) for member in members)
        case (_, dict() as fields):
            return (
                isinstance(value, dict)
                and value.keys() <= fields.keys()
                and all(name in value for name, (_, required) in fields.items() if required)
                and all(fits(fields[name][0], part) for name, part in value.items())
            )
    raise AssertionError(plan)


_JSON: Final[dict[str, st.SearchStrategy[Any]]] = {
    "any": json_values,
    "bool": st.booleans(),
    "int": st.integers(),
    "float": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-99, 99),
    "str": texts,
    "none": st.none(),
}


def json_of(plan: Plan) -> st.SearchStrategy[Any]:
    """JSON that fits a plan."""
    match plan:
        case (name,) if name in _JSON:
            return _JSON[name]
        case ("literal", *options):
            return st.sampled_from(options)
        case ("list" | "tuple of", item):
            return st.lists(json_of(item), max_size=3)
        case ("set", item):
            return st.lists(json_of(item), max_size=3, unique_by=repr)
        case ("dict", item):
            return st.dictionaries(texts, json_of(item), max_size=3)
        case ("tuple", *items):
            return st.tuples(*map(json_of, items)).map(list)
        case ("union", *members):
            return st.one_of(list(map(json_of, members)))
        case (_, dict() as fields):
            parts = {name: json_of(inner) for name, (inner, _) in fields.items()}
            needed = {name: part for name, part in parts.items() if fields[name][1]}
            optional = {name: part for name, part in parts.items() if name not in needed}
            return st.fixed_dictionaries(needed, optional=optional)
    raise AssertionError(plan)


def _spoil(value: Any, draw: st.DrawFn) -> Any:
    """``value``, with something in it replaced, removed or added."""
    if isinstance(value, list) and value and draw(st.booleans()):
        index = draw(st.integers(0, len(value) - 1))
        return [*value[:index], _spoil(value[index], draw), *value[index + 1 :]]
    if isinstance(value, dict) and value and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(value)))
        if draw(st.booleans()):
            return {key: item for key, item in value.items() if key != name}
        return {**value, name: _spoil(value[name], draw)}
    if isinstance(value, dict):
        return {**value, draw(st.sampled_from("abcd")): draw(scalars)}
    return draw(scalars | st.sampled_from([0, 1, 1.0, True, "a", [], {}]))


@st.composite
def plans_with_json(draw: st.DrawFn) -> tuple[Plan, Any]:
    """A plan, and JSON that fits, nearly fits, or has nothing to do with it."""
    plan = draw(plans)
    value = draw(json_of(plan) | json_values)
    return plan, _spoil(value, draw) if draw(st.booleans()) else value


def accepts(schema: Schema[Any], value: Any) -> bool:
    try:
        schema.check(value)
    except SchemaError:
        return False
    return True


@given(plans_with_json())
@example((("union", ("float",), ("int",)), 1))
@example((("literal", 1, True), 1.0))
@example((("set", ("int",)), [1, 1]))
def test_what_fits_is_what_the_oracle_says(drawn: tuple[Plan, Any]) -> None:
    plan, value = drawn
    schema = Schema[Any](type_of(plan))
    assert accepts(schema, value) == fits(plan, value)
    assert accepts(schema, freeze(value)) == fits(plan, value)


@given(plans_with_json())
def test_the_check_and_the_reading_agree(drawn: tuple[Plan, Any]) -> None:
    plan, value = drawn
    schema = Schema[Any](type_of(plan))
    try:
        schema.structure(value)
    except SchemaError:
        assert not accepts(schema, value)
    else:
        assert accepts(schema, value)


@given(plans.flatmap(lambda plan: st.tuples(st.just(plan), json_of(plan))))
def test_what_was_read_is_written_and_read_again_the_same(drawn: tuple[Plan, Any]) -> None:
    plan, value = drawn
    schema = Schema[Any](type_of(plan))
    found = schema.structure(value)
    written = schema.unstructure(found)
    again = schema.structure(written)
    assert again == found
    assert same(schema.unstructure(again), written)
    assert fits(plan, written)


@pytest.mark.parametrize(
    ("plan", "value", "expected"),
    [
        (("int",), True, False),
        (("int",), 1, True),
        (("float",), 1, True),
        (("literal", 1), True, False),
        (("set", ("int",)), [1, 1], False),
        (("tuple", ("int",)), [1, 1], False),
        (("attrs", {"a": (("int",), True)}), {}, False),
        (("attrs", {"a": (("int",), False)}), {}, True),
        (("attrs", {"a": (("int",), False)}), {"a": 1, "b": 1}, False),
    ],
)
def test_the_oracle_says(plan: Plan, value: Any, *, expected: bool) -> None:
    assert fits(plan, value) is expected


@given(plans, st.data())
def test_a_looser_type_is_told_from_the_plan(plan: Plan, data: st.DataObject) -> None:
    """The oracle finds a schema that takes too much: one value of each drawn plan at least."""
    value = data.draw(json_of(plan))
    wrong = ("list", plan)
    if not fits(wrong, value):
        assert not accepts(Schema[Any](type_of(wrong)), value)


@given(plans_with_json())
def test_a_validator_of_json_schema_agrees(drawn: tuple[Plan, Any]) -> None:
    jsonschema: Any = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    plan, value = drawn
    if _has_whole_float(value):
        return  # for JSON Schema, 1.0 is an integer
    schema = Schema[Any](type_of(plan))
    validator = jsonschema.Draft202012Validator(schema.json_schema())
    assert validator.is_valid(value) == fits(plan, value)


def _has_whole_float(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_has_whole_float, value))
    if isinstance(value, dict):
        return any(map(_has_whole_float, value.values()))
    return isinstance(value, float) and value.is_integer()
