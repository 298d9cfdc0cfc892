"""From an annotation to its shape."""

# An annotation is `Any`, and pyright calls what is taken from it "unknown".
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import collections.abc
import enum
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, Final, ForwardRef, Literal, NewType, NoReturn, TypeVar, get_args, get_origin

from parallel_agent.schema._classes import (
    Found,
    alias_value,
    culprit,
    fields_of,
    is_named_tuple,
    is_typed_dict,
    said_open,
    substitute,
)
from parallel_agent.schema._containers import Items, Table, Tuple
from parallel_agent.schema._models import Model, is_model, model_of
from parallel_agent.schema._problems import SchemaTypeError, article, shorten
from parallel_agent.schema._records import Field, Record
from parallel_agent.schema._shape import KINDS, Shape
from parallel_agent.schema._unions import OneOf, Ref, flat
from parallel_agent.schema._values import (
    ANYTHING,
    NUMBER,
    PARSED,
    SCALARS,
    TEXT,
    Choice,
    Scalar,
    make_choice,
)

__all__ = ["shape_of"]

_USABLE: Final = (
    "what can be used: bool, int, float, str, None, Any, datetime, date, UUID, Literal, Enum, "
    "unions, list, tuple, set, frozenset, Sequence, dict and Mapping with str keys, attrs "
    "classes, dataclasses, TypedDict, NamedTuple, pydantic models"
)
_LISTS: Final[dict[Any, tuple[type[Any], tuple[type[Any], ...]]]] = {
    list: (list, (list,)),
    set: (set, (set,)),
    frozenset: (frozenset, (frozenset,)),
    collections.abc.Sequence: (list, (list, tuple)),
}
_SIMPLE: Final[dict[Any, Shape]] = {**SCALARS, float: NUMBER, **PARSED}
_TABLES: Final = (dict, collections.abc.Mapping)
_QUALIFIERS: Final = ("Required", "NotRequired", "ReadOnly", "Final")


def shape_of(kind: Any) -> Shape:
    """Return the shape of a type.

    Raises:
        SchemaTypeError: values of it, or of something in it, cannot be checked.
    """
    all_types = _Types()
    try:
        shape = all_types.shape(kind)
        all_types.complete()
    except RecursionError:
        message = f"{_name(kind)} has no end: every type in it asks for another one"
    else:
        return shape
    raise SchemaTypeError(message)


class _Types:
    """The shapes of one type and of all types in it; each class is made once."""

    def __init__(self) -> None:
        # No dict: an alias with Annotated[int, []] in it has no hash.
        self._known: list[tuple[Any, Shape]] = []
        self._refs: list[Ref] = []
        self._checks: list[Callable[[], None]] = []
        # From the outside to where we are: places for errors, classes for `Self`.
        self._place: list[str] = []
        self._within: list[Any] = []

    def complete(self) -> None:
        """Check what can be checked only when all is known."""
        for ref in self._refs:
            for _ in flat(ref, ()):  # raises if it is only itself
                pass
        for check in self._checks:
            check()

    def shape(self, kind: Any) -> Shape:
        """Return the shape of ``kind``, which stands at the current place."""
        if kind is Any or kind is object:
            return ANYTHING
        self._refuse_names(kind)
        if isinstance(kind, NewType):
            return self.shape(kind.__supertype__)
        if kind is typing.Self and self._within:
            return self.shape(self._within[-1])
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is typing.Annotated or getattr(origin, "_name", None) in _QUALIFIERS:
            return self.shape(arguments[0])
        if origin is typing.Union or origin is types.UnionType:
            return self._union(arguments)
        if origin is Literal:
            return self._choice(kind, ((_plain(value), value) for value in arguments))
        plain = kind if origin is None else origin
        if type(plain).__name__ == "TypeAliasType":
            return self._alias(kind, plain, arguments)
        return self._class(kind, type(None) if plain is None else plain, arguments)

    def _union(self, arguments: tuple[Any, ...]) -> Shape:
        union = OneOf([self.shape(argument) for argument in arguments])
        self._later(union.complete)
        return union

    def _choice(self, kind: Any, pairs: Iterable[tuple[Any, Any]]) -> Shape:
        found = list(pairs)
        for value, _ in found:
            if type(value) not in KINDS or isinstance(value, (list, dict)):
                self._refuse(f"{value!r:.80} in {_name(kind)} has no JSON form that names it")
        if not found:
            self._refuse(f"{_name(kind)} has no members")
        return make_choice(found)

    def _alias(self, kind: Any, alias: Any, arguments: tuple[Any, ...]) -> Shape:
        parameters = alias.__type_params__
        if len(parameters) != len(arguments):
            self._refuse(said_open(alias.__name__, parameters))
        values = dict(zip(parameters, arguments, strict=True))
        return self._once(kind, lambda: self.shape(substitute(self._aliased(alias), values)))

    def _aliased(self, alias: Any) -> Any:
        try:
            return alias_value(alias)
        except SchemaTypeError as error:
            message = _said(self._place, str(error))
        raise SchemaTypeError(message)

    def _once(self, kind: Any, make: Callable[[], Shape]) -> Shape:
        """Make the shape of ``kind`` if it is not known; inside itself it is a `Ref`."""
        known = self._find(kind)
        if known is not None:
            return known
        index, ref = len(self._known), Ref(_name(kind), article(_name(kind)))
        self._known.append((kind, ref))
        ref.to = make()
        if ref in self._refs:
            return ref
        self._known[index] = kind, ref.to
        return ref.to

    def _find(self, kind: Any) -> Shape | None:
        for known, shape in self._known:
            if known == kind:
                if isinstance(shape, Ref):
                    self._refs.append(shape)
                return shape
        return None

    def _class(self, kind: Any, cls: Any, arguments: tuple[Any, ...]) -> Shape:
        if not isinstance(cls, type):
            self._cannot_check(kind)
        if cls in _SIMPLE:
            return _SIMPLE[cls]
        if issubclass(cls, enum.Enum):
            return self._choice(cls, ((member.value, member) for member in _members(cls)))
        if cls in _LISTS:
            return self._items(*_LISTS[cls], *(arguments or (Any,)))
        if cls is tuple:
            return self._tuple(kind, arguments)
        if cls in _TABLES:
            return self._table(*(arguments or (str, Any)))
        if is_model(cls):
            return self._once(kind, lambda: model_of(cls))
        if is_named_tuple(cls):
            return self._once(kind, lambda: self._named_tuple(kind, cls, arguments))
        return self._find(kind) or self._record(kind, cls, arguments)

    def _items(self, make: type[Any], accepts: tuple[type[Any], ...], item: Any) -> Shape:
        items = Items(self.shape(item), make, accepts)
        if items.is_set:
            self._later(lambda: _check_hashes(items))
        return items

    def _tuple(self, kind: Any, arguments: tuple[Any, ...]) -> Shape:
        if not arguments and (kind is tuple or kind is typing.Tuple):  # noqa: UP006  # the bare old name
            arguments = (Any, ...)
        if len(arguments) == 2 and arguments[1] is ...:  # noqa: PLR2004  # as in tuple[int, ...]
            return self._items(tuple, (tuple,), arguments[0])
        return Tuple(tuple(self.shape(argument) for argument in arguments))

    def _table(self, key: Any, value: Any) -> Shape:
        keys = self.shape(key)
        if not (isinstance(keys, (Scalar, Choice)) and keys.kinds == TEXT.kinds):
            self._refuse(
                f"the names in a JSON object are text, so {_name(key)} cannot be their type"
            )
        return Table(keys, self.shape(value))

    def _named_tuple(self, kind: Any, cls: type[Any], arguments: tuple[Any, ...]) -> Shape:
        found = self._fields(cls, arguments) or []
        return Tuple(tuple(self._field(kind, field).shape for field in found), cls)

    def _record(self, kind: Any, cls: type[Any], arguments: tuple[Any, ...]) -> Shape:
        found = self._fields(cls, arguments)
        if found is None:
            self._cannot_check(kind)
        record = Record(_name(kind), cls, None if is_typed_dict(cls) else culprit)
        self._known.append((kind, record))
        record.complete([self._field(kind, field) for field in found])
        return record

    def _fields(self, cls: type[Any], arguments: tuple[Any, ...]) -> list[Found] | None:
        outer = {within.__name__: within for within in map(_origin, self._within)}
        try:
            return fields_of(cls, arguments, outer)
        except SchemaTypeError as error:
            message = _said(self._place, str(error))
        raise SchemaTypeError(message)

    def _field(self, kind: Any, field: Found) -> Field:
        self._place.append(f"{_name(kind)}.{field.name}")
        self._within.append(kind)
        required, hint = field.required, field.hint
        # `__required_keys__` does not know what a quoted annotation says.
        while (name := getattr(get_origin(hint), "_name", None)) in _QUALIFIERS:
            required = {"Required": True, "NotRequired": False}.get(name, required)
            (hint,) = get_args(hint)
        shape = self.shape(hint)
        self._within.pop()
        self._place.pop()
        return Field(field.name, field.attribute, shape, required, field.default)

    # Refusing.

    def _refuse_names(self, kind: Any) -> None:
        if isinstance(kind, (str, ForwardRef)):
            name = kind if isinstance(kind, str) else kind.__forward_arg__
            self._refuse(f"the name {name!r} is not resolved: give the type itself")
        if isinstance(kind, TypeVar):
            self._refuse(said_open("a type", (kind,)))
        if getattr(kind, "__unpacked__", False):
            self._cannot_check(kind)  # `*tuple[int, ...]`, which looks like a tuple otherwise

    def _later(self, check: Callable[[], None]) -> None:
        place = list(self._place)

        def check_in_place() -> None:
            try:
                check()
            except SchemaTypeError as error:
                message = _said(place, str(error))
            else:
                return
            raise SchemaTypeError(message)

        self._checks.append(check_in_place)

    def _cannot_check(self, kind: Any) -> NoReturn:
        why = f"values of {_name(kind)} cannot be checked"
        if isinstance(kind, (list, tuple)) and all(type(one) in (str, int, bool) for one in kind):
            choices = ", ".join(repr(one) for one in kind)
            if choices:
                self._refuse(f"{why}; did you mean Literal[{shorten(choices)}]?")
        self._refuse(f"{why} ({_USABLE})")

    def _refuse(self, why: str) -> NoReturn:
        raise SchemaTypeError(_said(self._place, why))


def _said(place: list[str], why: str) -> str:
    return f"{' > '.join(place)}: {why}" if place else why


def _origin(kind: Any) -> Any:
    return get_origin(kind) or kind


def _name(kind: Any) -> str:
    if isinstance(kind, type):
        return kind.__name__
    arguments = get_args(kind)
    if get_origin(kind) is typing.Annotated:
        return _name(arguments[0])
    if arguments and isinstance(get_origin(kind), type):
        return shorten(f"{_name(get_origin(kind))}[{', '.join(map(_name, arguments))}]")
    return "..." if kind is ... else shorten(str(getattr(kind, "__name__", kind)))


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _members(cls: type[enum.Enum]) -> Iterable[enum.Enum]:
    return cls.__members__.values()  # flags too, with a name each


def _check_hashes(items: Items) -> None:
    for leaf in flat(items.item, ()):
        if isinstance(leaf, (Record, Model)):
            bad = leaf.cls.__hash__ is None
        else:
            bad = isinstance(leaf, Table) or (isinstance(leaf, Items) and leaf.make in (list, set))
        if bad:
            message = f"{leaf.needed} has no hash, so it cannot be in a {items.make.__name__}"
            raise SchemaTypeError(message)
