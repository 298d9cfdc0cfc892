"""What an agent is given to work on: from a Python value to JSON, and to the type it wants.

Inputs are JSON values, whatever the caller holds: they must be recorded, compared when a run is
resumed, and sent elsewhere one day. Pure: nothing here waits.
"""

# Inputs are `Any`, and pyright calls what is asked of their types "unknown".
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from functools import lru_cache
from typing import Any, TypeVar

from parallel_agent.activation import NO_INPUT, Activation
from parallel_agent.errors import FanOutError, InputError
from parallel_agent.schema import Schema, SchemaError, SchemaTypeError
from session.state import UnstorableError, freeze, no_json_form

__all__ = ["checked_input", "checked_items", "given_input", "to_json"]

T = TypeVar("T")


def checked_items(items: Iterable[T], what: str) -> Iterable[T]:
    """Return what a fan-out is to run on; ``what`` names the call.

    Raises:
        FanOutError: it is no collection, has no order, or is a text, whose letters nobody means.
    """
    if isinstance(items, AbstractSet | str | bytes) or not isinstance(items, Iterable):
        hint = "; a set has no order: sorted(...) has" if isinstance(items, AbstractSet) else ""
        message = f"{what}() takes a list, or what else can be iterated, not {items!r:.80}{hint}"
        raise FanOutError(message)
    return items


def to_json(value: Any) -> Any:
    """Return a value as frozen JSON; objects with known fields become JSON objects.

    Raises:
        UnstorableError: something in it has no JSON form; the path is named.
    """
    return freeze(_plain(value, 0))


_DEEP = 200


def _plain(value: Any, depth: int) -> Any:
    if value is None or type(value) in (str, int, float, bool) or depth == _DEEP:
        return value
    kind: Any = type(value)
    if issubclass(kind, list | tuple) and not hasattr(kind, "_fields"):
        return list(_plain_items(enumerate(value), "[{}]", depth + 1).values())
    if issubclass(kind, Mapping):
        return _plain_items(value.items(), "{}", depth + 1)
    if issubclass(kind, Enum) and issubclass(kind, str | int):
        return value.value
    try:
        return _schema_of(kind).unstructure(value)
    except (SchemaTypeError, SchemaError) as exc:
        # To an object with fields the hint to write them as a dict is none: that was tried.
        why, reason = f"a {kind.__name__} has no JSON form", str(exc)
        if hasattr(kind, "__await__"):
            why = no_json_form(value)
        elif reason != why:
            why = f"{why}: {reason}"
        raise UnstorableError("", why) from None


def _plain_items(items: Iterable[tuple[Any, Any]], place: str, depth: int) -> dict[Any, Any]:
    plain: dict[Any, Any] = {}
    for key, item in items:
        try:
            plain[key] = _plain(item, depth)
        except UnstorableError as error:
            raise error.under(place.format(key)) from None
    return plain


@lru_cache(256)
def _schema_of(kind: Any) -> Schema[Any]:
    # To look at a class costs as much as to start a branch, and a map has many items of one.
    return Schema(kind)


def given_input(value: Any, agent: str, items: str = "", position: int = 0) -> Any:
    """Return what the agent of that name is given as JSON; `NO_INPUT` as it is.

    ``items`` and ``position`` say where the value was found.

    Raises:
        UnstorableError: it has no JSON form; agent, item and path are named.
    """
    if value is NO_INPUT:
        return value
    try:
        return to_json(value)
    except UnstorableError as error:
        whose = f"the input of agent {agent!r}"
        found = f"{items}[{position}], {whose}," if items else whose
        why = str(error)
        kind, said, more = error.why.partition(" has no JSON form")
        if said and not error.path:  # it is about to be said
            why = more.removeprefix(": ") or f"it is {kind}"
        message = f"{found} has no JSON form: {why}"
        raise UnstorableError("", message) from None


def checked_input(activation: Activation) -> Any:
    """Return an activation's input as its agent wants it.

    Raises:
        InputError: it is missing, or does not fit; the message names agent, branch and field.
    """
    agent = activation.agent
    schema = agent.input_schema
    if schema is None:
        return activation.input
    place = activation.place
    where = place.path if place.branch is None else f"{place.path} on branch {place.branch}"
    if activation.input is None and not activation.has_input:
        if not agent.needs_input:
            return None
        message = (
            f"agent {agent.name!r} ({where}) takes an input, and was given none: run it with "
            f"ctx.run_agent({agent.name}, input), ctx.map or ctx.fan_out, or let an edge of a "
            "graph lead to it"
        )
        raise InputError(message)
    try:
        return schema.structure(activation.input)
    except SchemaError as exc:
        message = f"the input of agent {agent.name!r} ({where}): {exc}"
        raise InputError(message) from None
