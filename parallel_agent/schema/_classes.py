"""The fields of a class, with their annotations resolved where each was written."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar, get_args, get_origin, get_type_hints

import attrs

from parallel_agent.schema._problems import SchemaTypeError
from parallel_agent.schema._shape import MISSING

__all__ = ["Found", "culprit", "fields_of", "is_typed_dict", "substitute"]


@attrs.frozen(eq=False)
class Found:
    """A field as it was declared."""

    name: str
    attribute: str
    hint: Any
    required: bool
    default: Any = MISSING


def is_typed_dict(cls: type[Any]) -> bool:
    """Whether a class is a TypedDict, of `typing` or of `typing_extensions`."""
    return issubclass(cls, dict) and hasattr(cls, "__required_keys__")


def fields_of(
    cls: type[Any], arguments: tuple[Any, ...], names: Mapping[str, Any]
) -> list[Found] | None:
    """Return the fields of ``cls[arguments]``; None if it is no class whose fields are known.

    ``names`` are what an annotation may mean besides what its module holds.

    Raises:
        SchemaTypeError: an annotation is missing or cannot be resolved; or the class's own
            constructor does not take its fields.
    """
    if attrs.has(cls):
        found = [
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
    elif dataclasses.is_dataclass(cls):
        found = [
            Found(
                field.name,
                field.name,
                field.type,
                field.default is dataclasses.MISSING
                and field.default_factory is dataclasses.MISSING,
                MISSING if field.default is dataclasses.MISSING else field.default,
            )
            for field in dataclasses.fields(cls)
            if field.init
        ]
    elif is_typed_dict(cls):
        found = [
            Found(name, name, None, name in cls.__required_keys__)  # type: ignore[attr-defined]  # see is_typed_dict
            for name in cls.__annotations__
        ]
    elif issubclass(cls, tuple) and hasattr(cls, "_fields"):
        found = [Found(name, name, None, required=True) for name in cls._fields]
    else:
        return None
    hints = _hints(cls, arguments, names)
    resolved = [attrs.evolve(field, hint=hints.get(field.attribute, field.hint)) for field in found]
    for field in resolved:
        if field.hint is None:
            message = f"{cls.__name__}.{field.attribute} has no annotation"
            raise SchemaTypeError(message)
    _check_constructor(cls, resolved)
    return resolved


def _is_made(default: Any) -> bool:
    return default is attrs.NOTHING or isinstance(default, attrs.Factory)


def _check_constructor(cls: type[Any], fields: list[Found]) -> None:
    if issubclass(cls, (dict, tuple)):
        return
    if inspect.isabstract(cls):
        message = f"{cls.__name__} is abstract: name a class that can be made"
        raise SchemaTypeError(message)
    try:
        inspect.signature(cls).bind(**{field.name: None for field in fields})
    except TypeError as error:
        message = f"{cls.__name__}(...) cannot be called with its fields alone: {error}"
        raise SchemaTypeError(message) from None
    except ValueError:
        pass  # it does not tell


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


def _unresolvable(cls: type[Any], error: Exception) -> SchemaTypeError:
    return SchemaTypeError(
        f"an annotation of {cls.__name__} cannot be resolved in {cls.__module__}: {error}"
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
    except Exception:  # noqa: BLE001  # it is a guess that may fail in as many ways as the class
        pass
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
