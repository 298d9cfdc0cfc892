"""What every kind of type can do, and the walk through a value that finds what is wrong with it."""

# JSON is `Any`, and pyright calls what `isinstance` makes of it "unknown".
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownLambdaType=false

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, Final, TypeAlias

from parallel_agent.notes import describe as describe_error
from parallel_agent.schema._problems import KEPT_PROBLEMS, path_text, shown

__all__ = ["ALL_KINDS", "KINDS", "MISSING", "Defs", "Kinds", "Shape", "Step", "Walk", "kind_of"]

Kinds: TypeAlias = frozenset[str]
"""Kinds of JSON value, named as in JSON Schema. An ``integer`` has no point: 3.0 is none."""

KINDS: Final[Mapping[type[object], str]] = {
    NoneType: "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}
ALL_KINDS: Final = frozenset(KINDS.values())
MISSING: Final[Any] = object()


def kind_of(value: Any) -> str:
    """Return the kind of a JSON value; ``""`` for what is none."""
    found = KINDS.get(type(value))
    if found is None:  # frozen containers are lists and dicts as well
        found = KINDS[list] if isinstance(value, list) else ""
        found = KINDS[dict] if isinstance(value, dict) else found
    return found


class Shape(ABC):
    """A kind of type, with all that is to be known about it. Does not change once it is made.

    What it reads is known to be JSON, and not nested too deeply: `Schema` has looked at it.
    """

    needed: str
    """What to ask for where something else stands: ``a whole number``."""
    kinds: Kinds
    """The kinds of JSON value that can fit."""
    quick: frozenset[type[Any]] = frozenset()
    """Types whose values all fit, and are the same in Python: a list of them is one look."""

    @abstractmethod
    def read(self, value: Any, walk: Walk) -> Any:
        """Return what ``value`` stands for. With a problem noted, the result means nothing."""

    @abstractmethod
    def write(self, value: Any, walk: Walk) -> Any:
        """Return the JSON that `read` would make ``value`` of. Problems as there."""

    def describe(self) -> str:
        """Say what fits, for a person who is asked for it."""
        return self.needed

    @abstractmethod
    def schema(self, defs: Defs, /) -> dict[str, Any]:
        """Return the JSON Schema of what fits."""


Step: TypeAlias = Callable[[Any, "Walk"], Any]
"""A `Shape.read` or `Shape.write`."""


class Walk:
    """One way through one value: where it is, and what it has found wrong so far."""

    __slots__ = ("cause", "choices", "count", "path", "problems", "where")

    def __init__(self, where: str = "") -> None:
        """Begin at the value itself, which stands at ``where``."""
        self.where = where
        self.path: list[str | int] = []
        self.problems: list[tuple[str, str]] = []
        self.count = 0
        self.cause: Exception | None = None
        self.choices: dict[tuple[int, int], tuple[Any, int | str]] = {}  # see `OneOf`

    def problem(self, why: str, *, at: str | int | None = None) -> None:
        """Note what is wrong with the value here, or with its item ``at``."""
        if not self.is_full:
            parts = self.path if at is None else [*self.path, at]
            self.problems.append((path_text(self.where, parts), why))
        self.count += 1

    @property
    def is_full(self) -> bool:
        """Whether further problems are only counted. A list may hold a hundred thousand of them."""
        return self.count >= KEPT_PROBLEMS

    def refuse(self, needed: str, value: Any) -> None:
        """Note that the value here is not what is needed."""
        self.problem("" if self.is_full else f"{needed} is needed, not {shown(value)}")

    def blame(self, error: Exception, *, at: str | None = None) -> None:
        """Note what a user's class says of the value here, or of its item ``at``."""
        self.cause = self.cause or error
        # attrs' own validators raise with the message, the attribute and more, for programs.
        if len(error.args) > 1 and isinstance(error.args[0], str):
            error = ValueError(error.args[0])
        name, message = describe_error(error)
        self.problem(message or name, at=at)

    def attempt(self, step: Step, value: Any) -> tuple[Any, str | None]:
        """Take ``step`` without noting its problems; return its result and the first of them."""
        before = self.where, self.path, self.problems, self.count, self.cause
        self.where, self.path, self.problems, self.count, self.cause = "", [], [], 0, None
        result = step(value, self)
        first = ": ".join(filter(None, self.problems[0])) if self.problems else None
        self.where, self.path, self.problems, self.count, self.cause = before
        return result, first


class Defs:
    """The named parts of one JSON Schema. The root stands at its top, and is ``#`` elsewhere."""

    def __init__(self, root: Shape) -> None:
        """Begin with nothing."""
        self.schemas: dict[str, dict[str, Any]] = {}
        self._root = root
        self._refs: dict[int, str] = {}

    def named(
        self, shape: Shape, name: str, make: Callable[[Defs, str], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return a reference to ``shape``, whose schema ``make`` makes of self and its place."""
        ref = self._refs.get(id(shape))
        if ref is not None:
            return {"$ref": ref}
        if shape is self._root:
            self._refs[id(shape)] = "#"
            return make(self, "#")
        name = plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
        while name in self.schemas:
            name = f"{plain}_{len(self.schemas)}"
        ref = self._refs[id(shape)] = f"#/$defs/{name}"
        self.schemas[name] = {}  # holds the name: the type may stand inside itself
        self.schemas[name] = make(self, ref)
        return {"$ref": ref}
