"""Session state: JSON values that cannot be changed in place, scopes, deltas and reducers.

State is a flat mapping from string keys to JSON values. A key's prefix is its scope:

=========  ====================================================================
``app:``   shared by every session of the application
``user:``  shared by every session of one user
``temp:``  lives for one invocation, is never stored
(none)     belongs to the session
=========  ====================================================================

A *delta* is what one event changes: a mapping from keys to their new values. Applying the
deltas of a log in order gives the state; nothing else does. Reducers combine contributions
*before* they are recorded, so a stored delta always holds plain results and can be read by
whoever does not know the reducers.

Pure values: no I/O, no clock, no event loop.
"""

# JSON is `Any`, and pyright calls what `isinstance` makes of it "unknown".
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownLambdaType=false

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, TypeAlias, final

__all__ = [
    "APP_PREFIX",
    "MAX_DEPTH",
    "MAX_INT_BITS",
    "MAX_NAME_BYTES",
    "REDUCERS",
    "TEMP_PREFIX",
    "USER_PREFIX",
    "FrozenDict",
    "FrozenList",
    "FrozenValueError",
    "Reducer",
    "UnstorableError",
    "check_key",
    "check_keys",
    "freeze",
    "frozen_dict",
    "no_json_form",
    "same",
    "thaw",
    "without_temp",
]

APP_PREFIX: Final = "app:"
USER_PREFIX: Final = "user:"
TEMP_PREFIX: Final = "temp:"

MAX_DEPTH: Final = 100
"""How deep a stored value may nest. A cycle, which has no end, is found by the same bound."""


MAX_INT_BITS: Final = 14_000
"""How long a stored integer may be. Python, and pydantic, refuse to read more than 4300 digits."""

MAX_NAME_BYTES: Final = 800
"""How long a state key may be, and each of the three names of a session; see `check_key`."""


_SHOWN_PATH: Final = 200
_SHOWN_START: Final = 40
# No letter takes more than four bytes.
_SURELY_SHORT: Final = MAX_NAME_BYTES // 4


class UnstorableError(ValueError):
    """A value cannot be stored as JSON. ``path`` says where it sits, ``why`` what is wrong."""

    def __init__(self, path: str, why: str) -> None:
        """Keep the parts of the message apart, so that an outer layer can prefix the path."""
        # A key may be anything; the message must be short, and fit to be printed.
        path = path.encode(errors="backslashreplace").decode()
        shown = path if len(path) <= _SHOWN_PATH else f"{path[:_SHOWN_PATH]}..."
        super().__init__(f"{shown}: {why}" if path else why)
        self.path = path
        self.why = why

    def under(self, place: str) -> UnstorableError:
        """Return this error as seen from outside ``place``, which holds the value."""
        dot = "." if place and self.path and not self.path.startswith("[") else ""
        return UnstorableError(f"{place}{dot}{self.path}", self.why)


class FrozenValueError(TypeError):
    """A value read from state, or an event already emitted, was changed in place."""


def _refuse_list(_self: object, *_args: object, **_kwargs: object) -> NoReturn:
    message = (
        "a list read from state cannot be changed in place (nobody would see the change); "
        'write a new one: ctx.state["key"] = [*ctx.state["key"], item]'
    )
    raise FrozenValueError(message)


def _refuse_dict(_self: object, *_args: object, **_kwargs: object) -> NoReturn:
    message = (
        "a dict read from state cannot be changed in place (nobody would see the change); "
        'write a new one: ctx.state["key"] = {**ctx.state["key"], "name": value}'
    )
    raise FrozenValueError(message)


@final
class FrozenList(list[Any]):
    """A list that can be read like any list and not be changed. Copies are ordinary lists.

    ``FrozenList(items)`` freezes the items as `freeze` does.
    """

    __slots__ = ()

    def __new__(cls, items: Iterable[Any] = ()) -> Self:
        """Copy and freeze ``items``; raises what `freeze` raises."""
        frozen: Self = freeze(list(items))
        return frozen

    # `__new__` has filled it. list's own `__init__` would empty it and fill it again, at any time;
    # object's takes what `__new__` took and does nothing.
    if not TYPE_CHECKING:  # mypy would no longer know what the class makes
        __init__ = object.__init__
    append = extend = insert = remove = pop = _refuse_list
    clear = sort = reverse = _refuse_list  # pyright: ignore[reportAssignmentType]  # never returns
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse_list

    def __copy__(self) -> list[Any]:
        return list(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        return [thaw(item) for item in self]

    def __reduce__(self) -> tuple[Any, ...]:
        # The inherited way makes an empty list and appends to it.
        return FrozenList, (list(self),)


@final
class FrozenDict(dict[str, Any]):
    """A dict that can be read like any dict and not be changed. Copies are ordinary dicts.

    ``FrozenDict(items)`` freezes the values as `freeze` does.
    """

    __slots__ = ()

    def __new__(cls, items: Mapping[str, Any] | Iterable[tuple[str, Any]] = ()) -> Self:
        """Copy and freeze ``items``; raises what `freeze` raises."""
        frozen: Self = freeze(dict(items))
        return frozen

    # As in `FrozenList`: dict's own is an `update`.
    if not TYPE_CHECKING:  # mypy would no longer know what the class makes
        __init__ = object.__init__
    update = setdefault = pop = _refuse_dict
    popitem = clear = _refuse_dict  # pyright: ignore[reportAssignmentType]  # never returns
    __setitem__ = __delitem__ = __ior__ = _refuse_dict

    def __copy__(self) -> dict[str, Any]:
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return {key: thaw(value) for key, value in self.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


class _Unfrozen(dict[str, Any]):
    """The layout of a `FrozenDict`, and dict's own constructor: freezing it is one assignment."""

    __slots__ = ()


def frozen_dict(items: Mapping[str, Any]) -> FrozenDict:
    """Return a `FrozenDict` of ``items``, whose values *are* frozen: nothing is checked again."""
    frozen: Any = _Unfrozen(items)
    frozen.__class__ = FrozenDict
    return frozen  # type: ignore[no-any-return]  # by the line above


def _frozen_list(items: list[Any]) -> FrozenList:
    frozen: FrozenList = list.__new__(FrozenList)
    list.extend(frozen, items)
    return frozen


def freeze(value: Any, path: str = "") -> Any:
    """Return ``value`` as a JSON value that cannot change: what an event or state may hold.

    None, booleans, integers, finite floats and text are returned as they are; lists and tuples
    become `FrozenList`, mappings with string keys `FrozenDict`. The caller's own containers are
    copied, so changing them later changes nothing here.

    Raises:
        UnstorableError: the value, or something in it, has no JSON form: another type, NaN or an
            infinity, an integer longer than `MAX_INT_BITS`, text with a lone surrogate, a key that
            is no text, nesting deeper than `MAX_DEPTH`. ``path`` (and the place below it) is
            named.
    """
    try:
        return _freeze(value, 0)
    except UnstorableError as error:
        raise error.under(path) from None


def _freeze(value: Any, depth: int) -> Any:
    """``depth`` containers are around ``value``. Each of them adds its part to an error's path."""
    kind = type(value)
    if kind is str:
        # Lone surrogates have no UTF-8 form: a database would refuse them for the whole batch.
        if not value.isascii():
            _check_text(value)
        return value
    if kind is int:
        if value.bit_length() > MAX_INT_BITS:
            raise UnstorableError("", f"an integer of more than {MAX_INT_BITS} bits")
        return value
    if value is None or kind is bool:
        return value
    if kind is float:
        if not math.isfinite(value):
            raise UnstorableError("", f"{value!r} has no JSON form")
        return value
    return _freeze_container(value, depth)


def _freeze_container(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind is FrozenDict or kind is FrozenList:
        # Wrapping what was read, again and again, must meet the bound as well.
        if depth and depth + _depth(value) > MAX_DEPTH:
            raise UnstorableError("", f"nested deeper than {MAX_DEPTH} levels")
        return value
    if kind is dict:  # the usual one, and a thing much quicker to ask than whether it is a Mapping
        return _freeze_mapping(value, depth + 1)
    if isinstance(value, (list, tuple)):
        return _freeze_list(value, depth + 1)
    if isinstance(value, Mapping):
        return _freeze_mapping(value, depth + 1)
    raise UnstorableError("", no_json_form(value))


def no_json_form(value: object) -> str:
    """Say that ``value`` has no JSON form, and what to write instead if its type tells."""
    kind = type(value)
    why = f"a {kind.__name__} has no JSON form"
    if hasattr(kind, "__await__"):
        return f"{why}: is an `await` missing?"
    if hasattr(kind, "__dataclass_fields__"):
        return f"{why}: use dataclasses.asdict(...)"
    return f"{why}: use attrs.asdict(...)" if hasattr(kind, "__attrs_attrs__") else why


def _check_text(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        why = "the text holds a lone surrogate, which has no UTF-8 form"
        raise UnstorableError("", why) from None


def check_key(key: str, path: str) -> None:
    """Refuse a state key, or a name, that is too long. ``path`` says what it is.

    The bound is that of an entry in PostgreSQL's indexes, which holds three names. It is the same
    for every service, so that what runs in memory can be stored.

    Raises:
        UnstorableError: it has more than `MAX_NAME_BYTES` bytes. NUL and U+0001 count twice.
    """
    if len(key) <= _SURELY_SHORT:
        return
    size = len(key.encode(errors="surrogatepass")) + key.count("\x00") + key.count("\x01")
    if size > MAX_NAME_BYTES:
        why = f"{size:,} bytes are too long for a name or state key; at most {MAX_NAME_BYTES}"
        raise UnstorableError(path, f"{why}. It begins with {key[:_SHOWN_START]!r}")


def check_keys(state: Mapping[str, Any], path: str) -> None:
    """Refuse a state, or a delta, with a key that is too long; see `check_key`."""
    for key in state:
        if len(key) > _SURELY_SHORT:
            check_key(key, path)


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise UnstorableError("", f"nested deeper than {MAX_DEPTH} levels (or a cycle)")


def _freeze_list(value: list[Any] | tuple[Any, ...], depth: int) -> FrozenList:
    _check_depth(depth)
    frozen = []
    for index, item in enumerate(value):
        try:
            frozen.append(_freeze(item, depth))
        except UnstorableError as error:
            raise error.under(f"[{index}]") from None
    return _frozen_list(frozen)


def _freeze_mapping(value: Mapping[Any, Any], depth: int) -> FrozenDict:
    _check_depth(depth)
    plain = freeze_plain(value) if type(value) is dict else None
    if plain is not None:
        return plain
    frozen = {}
    for key, item in value.items():
        if type(key) is not str:
            raise UnstorableError("", f"the key {key!r} is no text")
        try:
            if not key.isascii():
                _check_text(key)
            frozen[key] = _freeze(item, depth)
        except UnstorableError as error:
            raise error.under(key) from None
    return frozen_dict(frozen)


def freeze_plain(value: dict[Any, Any]) -> FrozenDict | None:
    """Freeze a dict as harmless as most are, in one look; None if it takes a closer one."""
    for key, item in value.items():
        kind = type(item)
        if (
            type(key) is str
            and key.isascii()
            and (
                (kind is str and item.isascii())
                or (kind is int and item.bit_length() <= 64)  # noqa: PLR2004  # a machine's word
                or kind is bool
                or item is None
            )
        ):
            continue
        return None
    return frozen_dict(value)


def _depth(value: Any) -> int:
    children = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    )
    return 0 if children is None else 1 + max(map(_depth, children), default=0)


def thaw(value: Any) -> Any:
    """Return an ordinary, changeable copy of a frozen value."""
    if isinstance(value, list):
        return [thaw(item) for item in value]
    if isinstance(value, dict):
        return {key: thaw(item) for key, item in value.items()}
    return value


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same *as JSON*: ``1``, ``1.0`` and ``True`` all differ."""
    if one is other:
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            same(item, other[key]) for key, item in one.items()
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    # The two zeros compare equal, and are written differently.
    return type(one) is type(other) and bool(one == other) and (one != 0 or str(one) == str(other))


def without_temp(delta: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what of ``delta`` is stored: all but the keys of the ``temp:`` scope."""
    for name in delta:
        if name.startswith(TEMP_PREFIX):
            break
    else:
        return delta
    return frozen_dict(
        {key: value for key, value in delta.items() if not key.startswith(TEMP_PREFIX)}
    )


Reducer: TypeAlias = Callable[[Any, Any], Any]
"""``reducer(current, contribution) -> new``. ``current`` is None while the key has no value.

It must be a pure function: it runs when the contribution is recorded, and again for every
reader inside the contributing branch that looks before that.
"""


def _append(current: Any, contribution: Any) -> Any:
    return [*(current or ()), contribution]


def _add(current: Any, contribution: Any) -> Any:
    return contribution if current is None else current + contribution


def _merge(current: Any, contribution: Any) -> Any:
    return {**(current or {}), **contribution}


def _max(current: Any, contribution: Any) -> Any:
    return contribution if current is None else max(current, contribution)


REDUCERS: Final[Mapping[str, Reducer]] = MappingProxyType(
    {"append": _append, "add": _add, "merge": _merge, "max": _max}
)
"""Reducers by name: ``append`` to a list, ``add`` numbers or lists, ``merge`` dicts, ``max``."""
