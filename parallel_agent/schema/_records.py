"""Objects with fields: attrs classes, dataclasses, TypedDicts."""

# JSON is `Any`, and pyright calls what `isinstance` makes of it "unknown".
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownLambdaType=false

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import attrs

from parallel_agent.schema._problems import article, shown
from parallel_agent.schema._shape import MISSING, Defs, Shape, Walk
from parallel_agent.schema._values import Choice

__all__ = ["Field", "Record", "no_such_field"]

_SHOWN_NAMES: Final = 10


@attrs.frozen(eq=False)
class Field:
    """A field of a `Record`."""

    name: str
    """In JSON, and as an argument of the class."""
    attribute: str
    shape: Shape
    required: bool
    default: Any = MISSING

    def as_json(self) -> Any:
        """Return the default as JSON; MISSING without one.

        It need not fit (``x: int = None``): then it is neither said nor written, only used.
        """
        if self.default is MISSING:
            return MISSING
        written, problem = Walk().attempt(self.shape.write, self.default)
        return MISSING if problem else written


@attrs.define(eq=False)
class Record(Shape):
    """An object with fields, made into an instance of a class, or for a TypedDict into a dict."""

    name: str
    cls: type[Any]
    culprit: Callable[[type[Any], dict[str, Any]], str | None] | None
    """Tells which field the class refuses, if it can be told. None for a TypedDict."""
    # Set once, by `_types`: a field's type may be this record itself.
    fields: dict[str, Field] = attrs.Factory(dict[str, Field])
    required: frozenset[str] = frozenset()
    tags: tuple[tuple[str, Choice], ...] = ()
    """The fields that are a choice: they tell the members of a union apart."""
    kinds = frozenset({"object"})
    needed = "an object"

    def complete(self, fields: Iterable[Field]) -> None:
        """Set the fields."""
        self.fields = {field.name: field for field in fields}
        self.required = frozenset(name for name, field in self.fields.items() if field.required)
        self.tags = tuple(
            (name, field.shape)
            for name, field in self.fields.items()
            if isinstance(field.shape, Choice)
        )

    def read(self, value: Any, walk: Walk) -> Any:
        if not isinstance(value, dict):
            walk.refuse(self.needed, value)
            return None
        before = walk.count
        made = self._each(value, walk, writing=False)
        if self.culprit is None or walk.count > before:
            return made
        try:
            return self.cls(**made)
        except Exception as error:  # noqa: BLE001  # validators are the user's: any error is theirs
            walk.blame(error, at=self.culprit(self.cls, made))

    def write(self, value: Any, walk: Walk) -> Any:
        # Not an instance of a subclass: what that has on top would be lost without a word.
        if not (isinstance(value, dict) if self.culprit is None else type(value) is self.cls):
            walk.refuse("a dict" if self.culprit is None else article(self.cls.__name__), value)
            return None
        if self.culprit is not None:
            value = {
                name: item
                for name, field in self.fields.items()
                if (item := getattr(value, field.attribute, MISSING)) is not MISSING
                and not (item is field.default and field.as_json() is MISSING)
            }
        return self._each(value, walk, writing=True)

    def _each(self, value: Mapping[Any, Any], walk: Walk, *, writing: bool) -> dict[str, Any]:
        fields, path = self.fields, walk.path
        made: dict[str, Any] = {}
        for name, item in value.items():
            field = fields.get(name)
            path.append(name if type(name) is str else shown(name))
            if field is None:
                walk.problem("" if walk.is_full else no_such_field(name, fields))
            else:
                made[name] = (field.shape.write if writing else field.shape.read)(item, walk)
            path.pop()
        if not self.required <= made.keys():
            for name in fields:
                if name in self.required and name not in made:
                    walk.problem("it is missing", at=name)
        return made

    def describe(self) -> str:
        said = [
            f"{field.name} ({field.shape.needed}{'' if field.required else '; optional'})"
            for field in self.fields.values()
        ]
        return f"an object with fields: {', '.join(said)}" if said else "an empty object"

    def schema(self, defs: Defs, /) -> dict[str, Any]:
        return defs.named(self, self.name, self._schema)

    def _schema(self, defs: Defs, _: str) -> dict[str, Any]:
        schema: dict[str, Any] = {
            "type": "object",
            "title": self.name,
            "properties": {name: _property(field, defs) for name, field in self.fields.items()},
            "required": [name for name in self.fields if name in self.required],
            "additionalProperties": False,
        }
        return schema


def _property(field: Field, defs: Defs) -> dict[str, Any]:
    schema, default = field.shape.schema(defs), field.as_json()
    return schema if default is MISSING else {**schema, "default": default}


def no_such_field(name: Any, names: Iterable[str]) -> str:
    """Say that there is no field ``name``, and which could be meant."""
    near = difflib.get_close_matches(name, names, 1) if isinstance(name, str) else []
    if near:
        return f"there is no such field; did you mean {near[0]!r}?"
    listed = list(names)
    more = ["…"] if len(listed) > _SHOWN_NAMES else []
    return f"there is no such field (there are: {', '.join(listed[:_SHOWN_NAMES] + more)})"
