"""The types of state keys, as a class says them.

``Runner(state_schema=Board)`` takes an attrs class (or a dataclass, or a TypedDict) whose fields
are the keys of the state. What does not fit is refused where it is written: at the assignment, or
at the ``emit`` of an event that brings it, with the key and the place inside the value.

Pure: no event loop, no clock.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, final, get_type_hints

import attrs

from parallel_agent.schema import Schema, SchemaError, SchemaTypeError
from session.state import REDUCERS, TEMP_PREFIX, Reducer

__all__ = ["StateKey", "StateSchema", "as_reducer"]


@attrs.frozen
class StateKey:
    """What an annotation says of a state key beside its type.

    ::

        @attrs.frozen
        class Board:
            topic: str
            findings: Annotated[list[str], StateKey(reducer="append")]
            language: Annotated[str, StateKey("user:language")]

    Args:
        name: the key; by default the name of the field.
        reducer: how writes are combined: a function ``(current, contribution) -> new``, or the
            name of one (``append``, ``add``, ``merge``, ``max``).
    """

    name: str | None = None
    reducer: Reducer | str | None = None


@final
class StateSchema:
    """The keys that a class declares, with their types and reducers."""

    def __init__(self, cls: type[Any]) -> None:
        """Read ``cls``.

        Raises:
            SchemaTypeError: it is no class with fields, or the type of one cannot be checked.
            ValueError: a reducer is not known, or two fields are one key.
        """
        if not isinstance(cls, type):
            message = f"state_schema is a class whose fields are state keys, not {cls!r:.80}"
            raise SchemaTypeError(message)
        self._name = cls.__name__
        self._types: dict[str, Schema[Any]] = {}
        self.reducers: dict[str, Reducer] = {}
        fields = Schema(cls).fields()
        said = {name.lstrip("_"): hint for name, hint in _hints(cls).items()}
        for field, schema in fields.items():
            declared = [
                part
                for part in getattr(said.get(field.lstrip("_")), "__metadata__", ())
                if isinstance(part, StateKey)
            ]
            wanted = declared[0] if declared else StateKey()
            key = field if wanted.name is None else wanted.name
            if key in self._types:
                message = f"two fields of {self._name} are the state key {key!r}"
                raise ValueError(message)
            self._types[key] = schema
            if wanted.reducer is not None:
                self.reducers[key] = as_reducer(key, wanted.reducer)

    @property
    def keys(self) -> Mapping[str, Schema[Any]]:
        """The declared keys and their types."""
        return self._types

    def check(self, key: str, value: Any) -> None:
        """Refuse a write that does not fit. ``temp:`` keys that are not declared may hold anything.

        Raises:
            SchemaError: the key is not declared, or the value does not fit its type.
        """
        schema = self._types.get(key)
        if schema is not None:
            schema.check(value, f"state[{key!r}]")
        else:
            self.check_key(key)

    def check_key(self, key: str) -> None:
        """Refuse a key that is not declared, but for ``temp:`` keys.

        Raises:
            SchemaError: it is not declared.
        """
        if key in self._types or key.startswith(TEMP_PREFIX):
            return
        near = difflib.get_close_matches(key, self._types, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(self._types)}"
        raise SchemaError([(f"state[{key!r}]", f"{self._name} has no such key; {hint}")])

    def __repr__(self) -> str:
        return f"<StateSchema {self._name}: {', '.join(self._types)}>"


def _hints(cls: type[Any]) -> dict[str, Any]:
    try:
        return get_type_hints(cls, include_extras=True)
    except NameError:
        # Made inside a function, perhaps: `Schema` has found the types in its own way, and what
        # was annotated as it stands is there to be read.
        return {
            name: hint
            for base in reversed(cls.__mro__)
            for name, hint in vars(base).get("__annotations__", {}).items()
            if not isinstance(hint, str)
        }


def as_reducer(key: str, reducer: Reducer | str) -> Reducer:
    """Return the reducer that is meant for ``key``.

    Raises:
        ValueError: no reducer has that name.
    """
    if callable(reducer):
        return reducer
    if reducer in REDUCERS:
        return REDUCERS[reducer]
    message = f"reducers[{key!r}] is a function or one of {', '.join(REDUCERS)}, not {reducer!r}"
    raise ValueError(message)
