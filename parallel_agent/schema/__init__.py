"""From JSON to typed values and back, strictly.

`Schema` is made of a type once and used many times. It reads what JSON can say without guessing:
``"no"`` is not false, ``1`` is not true, ``3.0`` is not a whole number, a name that nobody knows
is a mistake. What does not fit is refused with the place (``findings[2].line``) and the reason.

Pure: no I/O, no clock, no event loop, and no state that its use changes.
"""

# JSON is `Any`, and pyright calls what `isinstance` makes of it "unknown".
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any, Final, Generic, TypeVar, final, overload

from parallel_agent.schema._clash import kinds_of
from parallel_agent.schema._problems import SchemaError, SchemaTypeError
from parallel_agent.schema._recorded import misfit
from parallel_agent.schema._records import Record
from parallel_agent.schema._shape import Defs, Shape, Walk
from parallel_agent.schema._types import shape_of
from parallel_agent.schema._unions import Ref
from session.state import UnstorableError, freeze

__all__ = ["Schema", "SchemaError", "SchemaTypeError", "misfit"]

T = TypeVar("T")

_WORD: Final = 64
"""Bits of an integer that needs no further look."""


@final
class Schema(Generic[T]):
    """What fits a type, and how to read and write it.

    ==========================================  ====================================================
    type                                        JSON
    ==========================================  ====================================================
    ``bool``, ``int``, ``str``, ``None``        the same, told by exact type
    ``float``                                   a number; a whole number is read as a float
    ``Any``, ``object``                         anything
    ``datetime``, ``date``, ``UUID``            text as their ``isoformat()`` and ``str()`` write it
    ``Literal``, ``Enum``                       one of the values; an enum's members by theirs
    ``list``, ``Sequence``                      a list
    ``tuple[T, ...]``                           a list
    ``tuple[A, B]``, NamedTuple                 a list of that length
    ``set``, ``frozenset``                      a list without duplicates
    ``dict[str, T]``, ``Mapping[str, T]``       an object; keys may be a Literal or Enum of text
    attrs class, dataclass, TypedDict           an object with the fields of the constructor
    pydantic model                              what the model reads in its own strict mode
    union                                       the first member that fits, in the order declared
    ==========================================  ====================================================

    A field with a default may be missing; an unknown one is refused. Converters, validators and
    ``__post_init__`` run (in a union, or to find out which of them failed, more than once), and
    what they raise is told as a problem of their field. In a union an object must fit one class
    only: classes that nothing tells apart are refused when the schema is made. ``Annotated``,
    ``NewType`` and type aliases stand for what they are made of.

    Everything that fits can be recorded: NaN, lone surrogates and nesting deeper than
    `session.state.MAX_DEPTH` are refused for every type.

    Raises:
        SchemaTypeError: values of the type, or of one in it, cannot be checked.
    """

    # Not cattrs: it is lenient on purpose, so that next to nothing of its structuring would be
    # left, and what a schema says of itself needs the same look at every type.

    __slots__ = ("_plain", "_shape")

    @overload
    def __init__(self, type_: type[T]) -> None: ...

    @overload
    def __init__(self: Schema[Any], type_: object) -> None: ...

    def __init__(self, type_: Any) -> None:
        """See the class."""
        self._set(shape_of(type_))

    def _set(self, shape: Shape) -> None:
        self._shape = shape
        # Types of which all values fit that can be recorded.
        self._plain = shape.quick & {NoneType, bool, int, str}

    def structure(self, value: Any, where: str = "") -> T:
        """Return what the JSON ``value`` stands for; it shares no container with ``value``.

        ``where`` is the place of ``value`` itself (``answer``), for the errors.

        Raises:
            SchemaError: it does not fit.
        """
        walk = Walk(where)
        try:
            # First of all: is it JSON, and so of bounded depth? Told at once if it is frozen.
            freeze(value)
            result: T = self._shape.read(value, walk)
        except (UnstorableError, RecursionError) as error:
            problem = _unreadable(error, where)
        else:
            if not walk.count:
                return result
            raise SchemaError(walk.problems, walk.count) from walk.cause
        raise SchemaError([problem])

    def unstructure(self, value: T, where: str = "") -> Any:
        """Return the JSON that `structure` reads ``value`` from.

        Attributes that the constructor does not take are left out; defaults are written.

        Raises:
            SchemaError: it is no such value, or something in it is not what its type says.
        """
        walk = Walk(where)
        try:
            result = self._shape.write(value, walk)
            if not walk.count:
                freeze(result)
        except (UnstorableError, RecursionError) as error:
            problem = _unreadable(error, where)
        else:
            if not walk.count:
                return result
            raise SchemaError(walk.problems, walk.count) from walk.cause
        raise SchemaError([problem])

    def check(self, value: Any, where: str = "") -> None:
        """Raise what `structure` raises. Quick for simple types."""
        kind: type[object] = type(value)
        if kind in self._plain and (
            (kind is str and value.isascii())
            or (kind is int and value.bit_length() <= _WORD)
            or kind is bool
            or value is None
        ):
            return
        self.structure(value, where)

    def fields(self) -> Mapping[str, Schema[Any]]:
        """Return a schema for each field, for values that come one by one, as state does.

        What a class says of its fields together (``__post_init__``, validators) needs an
        instance and is not asked.

        Raises:
            SchemaTypeError: it is no attrs class, dataclass or TypedDict.
        """
        if not isinstance(self._shape, Record):
            message = f"no class with fields, but {self._shape.needed}"
            raise SchemaTypeError(message)
        return {name: _of(field.shape) for name, field in self._shape.fields.items()}

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema (2020-12) of what fits.

        JSON Schema calls 3.0 an integer; nothing else fits it that does not fit here, but for
        formats of text and what validators refuse.
        """
        defs = Defs(self._shape)
        schema = self._shape.schema(defs)
        return {**schema, "$defs": defs.schemas} if defs.schemas else schema

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of JSON value that fit, named as in JSON Schema: ``{"array", "null"}``."""
        return kinds_of(self.json_schema())

    def describe(self) -> str:
        """Say in a few words what fits, for a person who is asked for it: ``true or false``."""
        shape = self._shape
        return (shape.to if isinstance(shape, Ref) else shape).describe()

    def __repr__(self) -> str:
        return f"<Schema of {self.describe():.80}>"


def _of(shape: Shape) -> Schema[Any]:
    schema = Schema[Any].__new__(Schema)
    schema._set(shape)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # this module's own
    return schema


def _unreadable(error: UnstorableError | RecursionError, where: str) -> tuple[str, str]:
    if isinstance(error, RecursionError):  # the stack was nearly used up, or a value holds itself
        return where, "nested too deeply"
    error = error.under(where)
    return error.path, error.why
