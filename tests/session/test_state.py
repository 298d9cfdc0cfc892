from __future__ import annotations

import copy
import json
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from session import (
    REDUCERS,
    FrozenDict,
    FrozenList,
    FrozenValueError,
    UnstorableError,
    freeze,
    thaw,
)
from session.state import MAX_DEPTH, MAX_INT_BITS, same, without_temp
from tests.session.strategies import holding, json_objects, json_values, unstorable


class Pair(NamedTuple):
    a: int
    b: int


def nested(depth: int, *, inner: Any = None) -> Any:
    """``depth`` lists and dicts around ``inner``."""
    value = inner
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    return value


# ------------------------------------------------------------------------------ freeze and thaw


@given(json_values)
def test_thaw_gives_back_what_was_frozen(value: Any) -> None:
    thawed = thaw(freeze(value))
    assert same(thawed, value)
    assert json.dumps(thawed) == json.dumps(value)


@given(json_values)
def test_freezing_twice_is_freezing_once(value: Any) -> None:
    frozen = freeze(value)
    assert freeze(frozen) is frozen


@given(json_values)
def test_a_frozen_value_is_written_as_the_json_of_the_original(value: Any) -> None:
    assert json.dumps(freeze(value)) == json.dumps(value)


@given(json_objects)
def test_no_container_is_left_that_can_be_changed(value: Any) -> None:
    def kinds(item: Any) -> set[type]:
        children = item.values() if isinstance(item, dict) else item
        inner = (kinds(child) for child in children if isinstance(child, dict | list))
        return {type(item)}.union(*inner)

    assert kinds(freeze(value)) <= {FrozenDict, FrozenList}
    assert kinds(thaw(freeze(value))) <= {dict, list}


def test_what_was_frozen_does_not_follow_its_original() -> None:
    original: dict[str, Any] = {"list": [1], "dict": {"a": 1}}
    frozen = freeze(original)
    original["list"].append(2)
    original["dict"]["b"] = 2
    assert frozen == {"list": [1], "dict": {"a": 1}}


def test_a_thawed_copy_is_not_connected_to_the_frozen_value() -> None:
    frozen = freeze({"list": [1]})
    thaw(frozen)["list"].append(2)
    assert frozen == {"list": [1]}


@pytest.mark.parametrize(
    ("value", "frozen"),
    [
        ((1, (2,)), [1, [2]]),
        (Pair(1, 2), [1, 2]),
        (OrderedDict(a=(1,)), {"a": [1]}),
        (MappingProxyType({"a": 1}), {"a": 1}),
    ],
)
def test_sequences_and_mappings_of_other_types_become_lists_and_dicts(
    value: Any, frozen: Any
) -> None:
    assert freeze(value) == frozen


@given(holding(unstorable))
def test_what_has_no_json_form_is_refused(value: Any) -> None:
    with pytest.raises(UnstorableError):
        freeze(value)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [{"b": object()}]}, "root.a[0].b"),
        ([[math.nan]], "root[0][0]"),
        ({"a": {1: 2}}, "root.a"),
        ({"a": "\ud800"}, "root.a"),
        ({"\ud800": 1}, "root.\\ud800"),
        (b"", "root"),
    ],
)
def test_the_place_of_what_is_refused_is_named(value: Any, path: str) -> None:
    with pytest.raises(UnstorableError) as caught:
        freeze(value, "root")
    assert caught.value.path == path
    assert str(caught.value).startswith(f"{path}: ")


@dataclass
class InData:
    a: int


@attrs.frozen
class InAttrs:
    a: int


async def forgotten() -> int:
    return 1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (InData(1), "a InData has no JSON form: use dataclasses.asdict(...)"),
        (InAttrs(1), "a InAttrs has no JSON form: use attrs.asdict(...)"),
        (InAttrs, "a type has no JSON form"),
        (object(), "a object has no JSON form"),
    ],
)
def test_what_to_write_instead_is_said_if_the_type_tells(value: object, said: str) -> None:
    with pytest.raises(UnstorableError) as caught:
        freeze([value])
    assert str(caught.value) == f"[0]: {said}"


def test_of_what_nobody_has_awaited_the_error_asks_for_the_await() -> None:
    coroutine = forgotten()
    with pytest.raises(UnstorableError, match=r"a coroutine has no JSON form: is an `await` "):
        freeze({"a": coroutine})
    coroutine.close()


def test_a_path_starts_at_the_value_itself_when_none_is_given() -> None:
    with pytest.raises(UnstorableError) as caught:
        freeze({"a": [object()]})
    assert caught.value.path == "a[0]"


def test_a_very_long_path_is_cut_in_the_message() -> None:
    with pytest.raises(UnstorableError) as caught:
        freeze({"k" * 10_000: object()})
    assert len(str(caught.value)) < 300


def test_the_deepest_value_allowed_is_frozen() -> None:
    freeze(nested(MAX_DEPTH))


def test_a_value_that_nests_too_deep_is_refused() -> None:
    with pytest.raises(UnstorableError, match="deeper"):
        freeze(nested(MAX_DEPTH + 1))


def test_a_value_that_nests_far_too_deep_is_refused_in_the_same_way() -> None:
    with pytest.raises(UnstorableError, match="deeper"):
        freeze(nested(100_000))


def test_wrapping_a_frozen_value_again_and_again_meets_the_same_bound() -> None:
    value = freeze([])
    for _ in range(MAX_DEPTH - 1):
        value = freeze([value])
    with pytest.raises(UnstorableError, match="deeper"):
        freeze([value])


@pytest.mark.parametrize("make", [list, dict])
def test_a_cycle_is_refused(make: Callable[[], Any]) -> None:
    cycle = make()
    if isinstance(cycle, list):
        cycle.append(cycle)
    else:
        cycle["self"] = cycle
    with pytest.raises(UnstorableError, match="cycle"):
        freeze(cycle)


@pytest.mark.parametrize("sign", [1, -1])
def test_an_integer_too_long_to_be_read_again_is_refused(sign: int) -> None:
    with pytest.raises(UnstorableError, match="bits"):
        freeze([sign << MAX_INT_BITS])


@pytest.mark.parametrize("sign", [1, -1])
def test_the_longest_integer_allowed_can_be_written_and_read(sign: int) -> None:
    longest = sign * ((1 << MAX_INT_BITS) - 1)
    assert json.loads(json.dumps(freeze(longest))) == longest


# ------------------------------------------------------------------------- nothing changes them

LIST_CHANGES: dict[str, Callable[[Any], object]] = {
    "append": lambda v: v.append(9),
    "extend": lambda v: v.extend([9]),
    "insert": lambda v: v.insert(0, 9),
    "remove": lambda v: v.remove(1),
    "pop": lambda v: v.pop(),
    "clear": lambda v: v.clear(),
    "sort": lambda v: v.sort(reverse=True),
    "reverse": lambda v: v.reverse(),
    "set item": lambda v: v.__setitem__(0, 9),
    "set slice": lambda v: v.__setitem__(slice(None), []),
    "delete item": lambda v: v.__delitem__(0),
    "+=": lambda v: v.__iadd__([9]),
    "*=": lambda v: v.__imul__(2),
}
DICT_CHANGES: dict[str, Callable[[Any], object]] = {
    "set item": lambda v: v.__setitem__("a", 9),
    "delete item": lambda v: v.__delitem__("a"),
    "update": lambda v: v.update(b=9),
    "setdefault": lambda v: v.setdefault("b", 9),
    "pop": lambda v: v.pop("a"),
    "pop with a default": lambda v: v.pop("b", None),
    "popitem": lambda v: v.popitem(),
    "clear": lambda v: v.clear(),
    "|=": lambda v: v.__ior__({"b": 9}),
}


@pytest.mark.parametrize("change", LIST_CHANGES.values(), ids=LIST_CHANGES)
def test_a_frozen_list_refuses_to_change(change: Callable[[Any], object]) -> None:
    frozen = freeze([1, 2])
    with pytest.raises(FrozenValueError):
        change(frozen)
    assert frozen == [1, 2]


@pytest.mark.parametrize("change", DICT_CHANGES.values(), ids=DICT_CHANGES)
def test_a_frozen_dict_refuses_to_change(change: Callable[[Any], object]) -> None:
    frozen = freeze({"a": 1})
    with pytest.raises(FrozenValueError):
        change(frozen)
    assert frozen == {"a": 1}


def test_initialising_a_frozen_value_again_changes_nothing() -> None:
    """``list.__init__`` replaces the items, ``dict.__init__`` updates them."""
    frozen_list, frozen_dict, empty = freeze([1]), freeze({"a": 1}), freeze([])
    frozen_list.__init__([2])
    frozen_dict.__init__({"b": 2})
    empty.__init__([1])
    assert (frozen_list, frozen_dict, empty) == ([1], {"a": 1}, [])


def test_every_method_of_list_and_dict_that_changes_them_is_covered() -> None:
    """Python may grow a new one: whatever is not known to read is tried, and must be refused."""
    reads = {
        *("__class_getitem__", "__contains__", "__eq__", "__ge__", "__getattribute__", "__gt__"),
        *("__getitem__", "__iter__", "__le__", "__len__", "__lt__", "__ne__", "__new__", "__or__"),
        *("__repr__", "__reversed__", "__ror__", "__sizeof__", "__add__", "__mul__", "__rmul__"),
        *("__init__", "__hash__", "__doc__", "__init_subclass__", "__subclasshook__"),
        *("copy", "count", "index", "fromkeys", "get", "items", "keys", "values"),
    }
    for frozen in (FrozenList, FrozenDict):
        (base,) = frozen.__bases__
        changing = vars(base).keys() - reads
        assert {name for name in changing if name not in vars(frozen)} == set()


def test_the_error_says_how_to_write_instead() -> None:
    with pytest.raises(FrozenValueError, match=r"ctx\.state\[\"key\"\] = \["):
        freeze([1]).append(2)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_copies_are_ordinary_and_can_be_changed(copied: Callable[[Any], Any]) -> None:
    value = copied(freeze({"a": [1]}))
    value["b"] = 2
    other = copied(freeze([1]))
    other.append(2)
    assert (value, other) == ({"a": [1], "b": 2}, [1, 2])


def test_a_deep_copy_is_ordinary_all_the_way_down() -> None:
    value = copy.deepcopy(freeze({"a": [1]}))
    value["a"].append(2)
    assert value == {"a": [1, 2]}


def test_joining_frozen_values_makes_ordinary_ones() -> None:
    assert type(freeze([1]) + freeze([2])) is list
    assert type(freeze([1]) * 2) is list
    assert type(freeze({"a": 1}) | {"b": 2}) is dict
    assert type(freeze({"a": 1}).copy()) is dict


def test_a_frozen_value_can_be_pickled_and_stays_frozen() -> None:
    """A branch that runs in another process gets its input this way."""
    value = freeze({"a": [1, {}]})
    again = pickle.loads(pickle.dumps(value))  # noqa: S301  # made on the line itself
    assert again == value
    assert type(again["a"]) is FrozenList


def test_the_constructors_freeze_what_they_are_given() -> None:
    assert type(FrozenDict({"a": [1]})["a"]) is FrozenList
    assert type(FrozenList([{"a": 1}])[0]) is FrozenDict


def test_the_constructors_refuse_what_has_no_json_form() -> None:
    """`freeze` trusts the type: a frozen container must not hold what freeze would refuse."""
    with pytest.raises(UnstorableError):
        FrozenDict({"a": object()})
    with pytest.raises(UnstorableError):
        FrozenList([math.nan])


# ----------------------------------------------------------------------------------------- same


@given(json_values, json_values)
@example(1, True)
@example(1, 1.0)
@example(0.0, -0.0)
@example({"a": 1, "b": 2}, {"b": 2, "a": 1})
@example([], {})
def test_two_values_are_the_same_when_their_json_is(one: Any, other: Any) -> None:
    written = [json.dumps(value, sort_keys=True) for value in (one, other)]
    assert same(one, other) == (written[0] == written[1])


@given(json_values)
def test_a_value_is_the_same_as_a_copy_of_itself(value: Any) -> None:
    assert same(value, copy.deepcopy(value))
    assert same(freeze(value), value)


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, True), (0, False), (1, 1.0), (0.0, -0.0), ([1], [True]), ({"a": 1}, {"a": 1.0})],
)
def test_numbers_that_compare_equal_and_are_written_differently_are_not_the_same(
    one: Any, other: Any
) -> None:
    assert not same(one, other)
    assert not same(other, one)


# ------------------------------------------------------------------------------ scopes, reducers


def test_a_delta_without_temporary_keys_is_itself() -> None:
    delta = freeze({"a": 1, "tempo": 2, "user:temp:x": 3})
    assert without_temp(delta) is delta


def test_temporary_keys_are_left_out() -> None:
    assert without_temp({"a": 1, "temp:": 2, "temp:b": 3}) == {"a": 1}


@pytest.mark.parametrize(
    ("name", "current", "contribution", "result"),
    [
        ("append", None, 1, [1]),
        ("append", [1], [2], [1, [2]]),
        ("add", None, 1, 1),
        ("add", 1, 2, 3),
        ("add", [1], [2], [1, 2]),
        ("merge", None, {"a": 1}, {"a": 1}),
        ("merge", {"a": 1, "b": 1}, {"a": 2}, {"a": 2, "b": 1}),
        ("max", None, -1, -1),
        ("max", 2, 1, 2),
    ],
)
def test_a_reducer_combines_what_is_there_with_a_contribution(
    name: str, current: Any, contribution: Any, result: Any
) -> None:
    assert REDUCERS[name](freeze(current), freeze(contribution)) == result


@given(st.lists(st.integers(), min_size=1))
def test_reducers_leave_the_current_value_as_it_was(items: list[int]) -> None:
    current = freeze(items)
    REDUCERS["append"](current, 1)
    REDUCERS["add"](current, freeze([1]))
    assert current == items
