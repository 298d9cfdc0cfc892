"""What is found wrong with an answer by the JSON Schema that was recorded with its question."""

from __future__ import annotations

import re
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import Schema, SchemaError
from parallel_agent.schema import misfit


@attrs.frozen
class Place:
    """An answer with fields."""

    name: str
    seats: int = 0
    tags: list[str] = attrs.Factory(list)


TYPES: list[Any] = [
    bool,
    int,
    float,
    str,
    Literal["yes", "no"],
    int | None,
    list[int],
    tuple[int, str],
    dict[str, float],
    Place,
    list[Place | bool],
]

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(-1, 1)
    | st.sampled_from(["yes", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "seats", "tags"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.sampled_from(TYPES), JSON)
def test_what_fits_is_never_found_wrong(kind: Any, value: Any) -> None:
    schema: Schema[Any] = Schema(kind)
    try:
        schema.structure(value)
    except SchemaError:
        return
    assert misfit(schema.json_schema(), value) is None


@pytest.mark.parametrize(
    ("kind", "value", "complaint"),
    [
        (bool, "perhaps", "the answer is 'perhaps', and should be of the type boolean"),
        (int, True, "of the type integer"),
        (int, "three", "of the type integer"),
        (Literal["yes", "no"], "maybe", "one of"),
        (int | None, "x", "fits none of its kinds|of the type"),
        (list[int], [1, "x"], r"the answer\[1\] is 'x'"),
        (tuple[int, str], [1], "has 1 items, and should have 2"),
        (Place, {"seats": 3}, "the answer.name is missing"),
        (Place, {"name": "x", "colour": 1}, "the answer.colour is not asked for"),
        (Place, {"name": "x", "tags": [1]}, r"the answer.tags\[0\] is 1"),
    ],
)
def test_what_cannot_fit_is_found_with_its_place(kind: Any, value: Any, complaint: str) -> None:
    found = misfit(Schema(kind).json_schema(), value)
    assert found is not None
    assert re.search(complaint, found)


def test_words_that_it_does_not_know_ask_for_nothing() -> None:
    assert misfit({"type": "colour", "pattern": "x", "items": 3, "anyOf": []}, ["y"]) is None
