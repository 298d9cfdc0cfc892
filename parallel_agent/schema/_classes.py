"""The fields of a class, with their annotations resolved where each was written."""

# A class is `Any`, and pyright calls what is taken from it "unknown".
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, Generic, Protocol, TypeVar, get_args, get_origin, get_type_hints

import attrs

from parallel_agent.schema._problems import SchemaTypeError
from parallel_agent.schema._shape import MISSING

__all__ = [
    "Found",
    "alias_value",
    "culprit",
    "fields_of",
    "is_named_tuple",
    "is_typed_dict",
    "said_open",
    "substitute",
]


@attrs.frozen(eq=False)
class Found:
    """A field as it was declared."""

    name: str
    attribute: str
    hint: Any
    required: bool
    default: Any = MISSING


def is_typed_dict(cls: Any) -> bool:
    """Whether a class is a TypedDict, of `typing` or of `typing_extensions`."""
    return issubclass(cls, dict) and hasattr(cls, "__required_keys__")


def is_named_tuple(cls: Any) -> bool:
    """Whether a class is a NamedTuple, or a subclass of one."""
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


def fields_of(
    cls: type[Any], arguments: tuple[Any, ...], names: Mapping[str, Any]
) -> list[Found] | None:
    """Return the fields of ``cls[arguments]``; None if it is no class whose fields are known.

    ``names`` are what an annotation may mean besides what its module holds.

    Raises:
        SchemaTypeError: an annotation is missing or cannot be resolved; or the class's own
            constructor does not take its fields.
    """
    found = _declared(cls)
    if found is None:
        return None
    parameters = getattr(cls, "__parameters__", ())
    if len(parameters) != len(arguments):
        raise SchemaTypeError(said_open(cls.__name__, parameters))
    hints = _hints(cls, arguments, names)
    fields = [attrs.evolve(field, hint=hints.get(field.attribute, field.hint)) for field in found]
    for field in fields:
        if field.hint is None:
            message = f"{cls.__name__}.{field.attribute} has no annotation"
            raise SchemaTypeError(message)
    _check_constructor(cls, fields)
    return fields


def said_open(name: str, parameters: tuple[Any, ...]) -> str:
    """Say that the type variables of a type must be given a meaning."""
    variables = ", ".join(parameter.__name__ for parameter in parameters)
    return f"{name} is open: say what {variables or 'nothing'} stands for"


def _declared(cls: Any) -> list[Found] | None:
    if attrs.has(cls):
        return [
            Found(
                attribute.alias or attribute.name,
                attribute.name,
                attribute.type,
                attribute.default is attrs.NOTHING,
                MISSING if _is_made(attribute.default) else attribute.default,
            )
            for attribute in attrs.fields(cls)
            if attribute.init
        ]
    if dataclasses.is_dataclass(cls):
        none = dataclasses.MISSING
        return [
            Found(
                field.name,
                field.name,
                field.type,
                field.default is none and field.default_factory is none,
                MISSING if field.default is none else field.default,
            )
            for field in dataclasses.fields(cls)
            if field.init
        ]
    if is_typed_dict(cls):
        return [
            Found(name, name, None, name in cls.__required_keys__) for name in cls.__annotations__
        ]
    if is_named_tuple(cls):
        return [Found(name, name, None, required=True) for name in cls._fields]
    return None


def _is_made(default: Any) -> bool:
    # `attrs.Factory` is a function for type checkers.
    return default is attrs.NOTHING or type(default).__name__ == "Factory"


def _check_constructor(cls: type[Any], fields: list[Found]) -> None:
    if issubclass(cls, (dict, tuple)):
        return
    if inspect.isabstract(cls):
        message = f"{cls.__name__} is abstract: name a class that can be made"
        raise SchemaTypeError(message)
    try:
        inspect.signature(cls).bind(**{field.name: None for field in fields})
    except (TypeError, ValueError) as error:
        message = f"{cls.__name__}(...) cannot be called with its fields alone: {error}"
        raise SchemaTypeError(message) from None


# ------------------------------------------------------------------------------- annotations


def _hints(cls: type[Any], arguments: tuple[Any, ...], names: Mapping[str, Any]) -> dict[str, Any]:
    """Return the annotation of each field, with type variables replaced by what they stand for.

    Class by class: a base may use the type variable of its subclass for something else.
    """
    lines = dict(_bases(cls, arguments))
    # A TypedDict has no bases when it is made, and repeats their annotations: there the base
    # knows better.
    order = list(lines) if is_typed_dict(cls) else reversed(cls.__mro__)
    hints: dict[str, Any] = {}
    for base in order:
        own = inspect.get_annotations(base)
        if own:
            found = _resolved(base, {**names, cls.__name__: cls})
            values = lines.get(base, {})
            hints.update({name: substitute(found[name], values) for name in own if name in found})
    return hints


def _bases(
    cls: type[Any], arguments: tuple[Any, ...]
) -> Iterator[tuple[type[Any], dict[Any, Any]]]:
    """Yield a class and all its bases, each with what its type variables stand for."""
    values = dict(zip(getattr(cls, "__parameters__", ()), arguments, strict=False))
    yield cls, values
    for base in vars(cls).get("__orig_bases__", cls.__bases__):
        origin = get_origin(base) or base
        if isinstance(origin, type) and origin not in (Generic, Protocol, object):
            yield from _bases(origin, tuple(substitute(part, values) for part in get_args(base)))


def _resolved(cls: type[Any], names: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return get_type_hints(cls, include_extras=True)
    except NameError:
        pass  # it was made inside a function, perhaps; its module does not know its name then
    except Exception as error:  # noqa: BLE001  # an annotation is code, and may do anything
        raise _unresolvable(cls, error) from None
    variables = {variable.__name__: variable for variable in getattr(cls, "__parameters__", ())}
    try:
        return get_type_hints(cls, localns={**vars(cls), **variables, **names}, include_extras=True)
    except Exception as error:  # noqa: BLE001  # as above
        raise _unresolvable(cls, error) from None


def alias_value(alias: Any) -> Any:
    """Return what a ``type`` alias stands for, names in quotes resolved in its module."""
    names = {variable.__name__: variable for variable in alias.__type_params__}
    module = sys.modules.get(alias.__module__)
    try:
        holder = SimpleNamespace(__annotations__={"value": alias.__value__})
        return get_type_hints(
            holder,
            globalns=vars(module) if module else {},
            localns={alias.__name__: alias, **names},
            include_extras=True,
        )["value"]
    except Exception as error:  # noqa: BLE001  # as in a class
        raise _unresolvable(alias, error) from None


def _unresolvable(named: Any, error: Exception) -> SchemaTypeError:
    return SchemaTypeError(
        f"an annotation of {named.__name__} cannot be resolved in {named.__module__}: {error}"
    )


def substitute(hint: Any, values: Mapping[Any, Any]) -> Any:
    """Return ``hint`` with the type variables in it replaced."""
    if isinstance(hint, TypeVar):
        return values.get(hint, hint)
    # A class has parameters as well: of its own, which nobody has set there.
    if isinstance(hint, type) or get_origin(hint) is None:
        return hint
    parameters: tuple[Any, ...] = getattr(hint, "__parameters__", ())
    if values.keys().isdisjoint(parameters):
        return hint
    return hint[tuple(values.get(parameter, parameter) for parameter in parameters)]


# ------------------------------------------------------------------------------- validators


def culprit(cls: type[Any], arguments: dict[str, Any]) -> str | None:
    """Return the field whose converter or validator refuses ``arguments``; None if none does.

    Only attrs has such. They are called again, one by one: what they raise does not tell.
    """
    if not attrs.has(cls):
        return None
    try:
        instance = cls.__new__(cls)
        try:
            instance.__init__(**arguments)  # type: ignore[misc]  # it was refused: this one is not used
        except Exception:  # noqa: BLE001  # as the first time
            return _first_refused(instance, attrs.fields(cls), arguments)
    except Exception:  # noqa: BLE001  # a guess, which may fail in as many ways as the class
        return None
    return None


def _first_refused(
    instance: Any, attributes: tuple[Any, ...], arguments: dict[str, Any]
) -> str | None:
    # attrs sets all attributes in order, through their converters, and validates them then.
    for attribute in attributes:
        if not hasattr(instance, attribute.name):
            return attribute.alias if attribute.alias in arguments else None
    for attribute in attributes:
        if attribute.validator is not None:
            try:
                attribute.validator(instance, attribute, getattr(instance, attribute.name))
            except Exception:  # noqa: BLE001  # this is the one
                return attribute.alias if attribute.init else None
    return None
