"""The values that both directions look at: read strictly, or refused with a reason."""

# JSON is `Any`, and pyright calls what `isinstance` makes of it "unknown".
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from session.state import FrozenDict, UnstorableError, freeze

Hook: TypeAlias = Callable[[Any, Any], Any]
"""What cattrs calls to read a value as a type."""


def camel(name: str) -> str:
    """Return the JSON name of an attribute."""
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


def reads(what: str, *kinds: type) -> Hook:
    """Return what reads a value of one of ``kinds``, and refuses every other."""

    def read(value: Any, _: Any) -> Any:
        # By type and not isinstance: True is no whole number.
        if type(value) not in kinds:
            raise wanted(what, value)
        return freeze(value)

    return read


read_text: Final = reads("text", str)
read_int: Final = reads("a whole number", int)
read_number: Final = reads("a number", int, float)
read_object: Final = reads("an object", dict, FrozenDict)


def read_float(value: Any, kind: Any) -> float:
    """Read a number that has a point, or could have one."""
    try:
        return float(read_number(value, kind))
    except OverflowError:
        raise UnstorableError("", "the number is too large") from None


def wanted(what: str, value: Any) -> UnstorableError:
    """Return the error that says what should have been there."""
    return UnstorableError("", f"{what} is needed, not a {type(value).__name__}")


def checked(read: Hook, value: Any, path: str) -> Any:
    """Read ``value``; an error names ``path``."""
    try:
        return read(value, None)
    except UnstorableError as error:
        raise error.under(path) from None
