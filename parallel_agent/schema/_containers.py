"""Lists and objects whose items are data: lists, sets, tuples, dicts."""

# JSON is `Any`, and pyright calls what `isinstance` makes of it "unknown".
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownLambdaType=false

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs

from parallel_agent.schema._problems import article, shown
from parallel_agent.schema._shape import Defs, Shape, Step, Walk
from parallel_agent.schema._values import TEXT, Choice, Scalar

__all__ = ["Items", "Table", "Tuple"]


@attrs.frozen(eq=False)
class Items(Shape):
    """A list whose items are all of one type; in Python a list, a tuple or a set."""

    item: Shape
    make: type[Any]
    accepts: tuple[type[Any], ...]
    """What can be written as such a list."""
    kinds = frozenset({"array"})
    needed = "a list"

    @property
    def is_set(self) -> bool:
        """Whether no item may be there twice."""
        return issubclass(self.make, (set, frozenset))

    def read(self, value: Any, walk: Walk) -> Any:
        if not isinstance(value, list):
            walk.refuse(self.needed, value)
            return None
        before = walk.count
        items = self._each(value, walk, self.item.read)
        if walk.count > before:
            return None
        return self._as_set(items, walk) if self.is_set else self.make(items)

    def write(self, value: Any, walk: Walk) -> Any:
        if not isinstance(value, self.accepts):
            walk.refuse(article(self.make.__name__), value)
            return None
        items = self._each(value, walk, self.item.write)
        # A set has no order that two processes agree about.
        return sorted(items, key=_sort_key) if self.is_set else items

    def _each(self, value: Any, walk: Walk, step: Step) -> list[Any]:
        if self.item.quick.issuperset(map(type, value)):
            return list(value)
        items: list[Any] = []
        path = walk.path
        for index, item in enumerate(value):
            path.append(index)
            items.append(step(item, walk))
            path.pop()
        return items

    def _as_set(self, items: list[Any], walk: Walk) -> Any:
        seen: set[Any] = set()
        for index, item in enumerate(items):
            before = len(seen)
            try:
                seen.add(item)
            except Exception as error:  # noqa: BLE001  # no hash, or a user's own that fails
                walk.blame(error)
                return None
            if len(seen) == before:
                walk.problem("it is there twice", at=index)
        return self.make(seen)

    def describe(self) -> str:
        alone = " without duplicates" if self.is_set else ""
        return f"{self.needed}{alone}, each item {self.item.describe()}"

    def schema(self, defs: Defs, /) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "array", "items": self.item.schema(defs)}
        return {**schema, "uniqueItems": True} if self.is_set else schema


def _sort_key(item: Any) -> str:
    return json.dumps(item, sort_keys=True, default=str)


@attrs.frozen(eq=False)
class Tuple(Shape):
    """A list of a fixed length, each item of a type of its own; a NamedTuple is one."""

    items: tuple[Shape, ...]
    named: type[Any] | None = None
    needed = "a list"
    kinds = frozenset({"array"})

    def read(self, value: Any, walk: Walk) -> Any:
        if not isinstance(value, list):
            walk.refuse(self.needed, value)
            return None
        before = walk.count
        items = self._each(value, walk, [shape.read for shape in self.items])
        if walk.count > before:
            return None
        try:
            return tuple(items) if self.named is None else self.named(*items)
        except Exception as error:  # noqa: BLE001  # the user's subclass may look at its items
            walk.blame(error)

    def write(self, value: Any, walk: Walk) -> Any:
        cls = tuple if self.named is None else self.named
        if not isinstance(value, cls):
            walk.refuse(article(cls.__name__), value)
            return None
        return self._each(value, walk, [shape.write for shape in self.items])

    def _each(self, value: Any, walk: Walk, steps: list[Step]) -> list[Any]:
        if len(value) != len(steps):
            walk.problem(f"a list of {len(steps)} is needed, not of {len(value)}")
            return []
        items: list[Any] = []
        for index, (item, step) in enumerate(zip(value, steps, strict=True)):
            walk.path.append(index)
            items.append(step(item, walk))
            walk.path.pop()
        return items

    def describe(self) -> str:
        names: tuple[str, ...] = getattr(self.named, "_fields", ())
        said = [shape.describe() for shape in self.items]
        if names:
            said = [f"{name} ({what})" for name, what in zip(names, said, strict=True)]
        return f"a list of {len(said)}: {', '.join(said)}" if said else "an empty list"

    def schema(self, defs: Defs, /) -> dict[str, Any]:
        length = len(self.items)
        schema: dict[str, Any] = {"type": "array", "minItems": length, "maxItems": length}
        if self.items:  # an empty `prefixItems` is not allowed
            schema["prefixItems"] = [shape.schema(defs) for shape in self.items]
        return schema


@attrs.frozen(eq=False)
class Table(Shape):
    """An object whose names are data, and whose values are all of one type."""

    key: Scalar | Choice
    value: Shape
    kinds = frozenset({"object"})
    needed = "an object"

    def read(self, value: Any, walk: Walk) -> Any:
        if not isinstance(value, dict):
            walk.refuse(self.needed, value)
            return None
        return self._each(value, walk, self.key.read, self.value.read)

    def write(self, value: Any, walk: Walk) -> Any:
        if not isinstance(value, Mapping):
            walk.refuse("a dict", value)
            return None
        return self._each(value, walk, self.key.write, self.value.write)

    def _each(
        self, value: Mapping[Any, Any], walk: Walk, of_key: Step, of_value: Step
    ) -> dict[Any, Any]:
        if self.key.quick.issuperset(map(type, value)) and self.value.quick.issuperset(
            map(type, value.values())
        ):
            return dict(value)
        items: dict[Any, Any] = {}
        path = walk.path
        for key, item in value.items():
            path.append(key if type(key) is str else shown(key))
            items[of_key(key, walk)] = of_value(item, walk)
            path.pop()
        return items

    def describe(self) -> str:
        names = "" if self.key is TEXT else f"each name {self.key.describe()}, "
        return f"{self.needed}, {names}each value {self.value.describe()}"

    def schema(self, defs: Defs, /) -> dict[str, Any]:
        schema: dict[str, Any] = {
            "type": "object",
            "additionalProperties": self.value.schema(defs),
        }
        return schema if self.key is TEXT else {**schema, "propertyNames": self.key.schema(defs)}
