"""Unions, and types that stand inside themselves by a name."""

# JSON is `Any`, and pyright calls what `isinstance` makes of it "unknown".
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownLambdaType=false

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from types import NoneType
from typing import Any, Final

import attrs

from parallel_agent.schema._models import Model
from parallel_agent.schema._problems import SchemaTypeError, shorten
from parallel_agent.schema._records import Record
from parallel_agent.schema._shape import ALL_KINDS, Defs, Kinds, Shape, Walk, kind_of
from parallel_agent.schema._values import NUMBER, Scalar

__all__ = ["OneOf", "Ref"]

_SHOWN_ALTERNATIVES: Final = 3
_SHOWN_WHY: Final = 300
_SCALARS: Final = frozenset({NoneType, bool, int, float, str})


@attrs.define(eq=False)
class Ref(Shape):
    """A type alias met inside itself: ``type Tree = list[Tree] | int``."""

    name: str
    needed: str
    to: Shape = attrs.field(init=False)
    """What it stands for; set by `_types` when that is known."""
    kinds = ALL_KINDS

    def read(self, value: Any, walk: Walk) -> Any:
        return self.to.read(value, walk)

    def write(self, value: Any, walk: Walk) -> Any:
        return self.to.write(value, walk)

    def schema(self, defs: Defs, /) -> dict[str, Any]:
        return defs.named(self, self.name, lambda defs, _: self.to.schema(defs))


@attrs.define(eq=False)
class OneOf(Shape):
    """A union: the first member that fits, in the order of declaration, is taken.

    But an object must fit no more than one of the classes: there the order would decide silently
    what a value is. And a float comes after all others, because it takes whole numbers as well.
    """

    members: Sequence[Shape]
    # Set by `complete`, like the final members.
    needed: str = ""
    kinds: Kinds = frozenset()
    quick: frozenset[type[Any]] = frozenset()

    def complete(self) -> None:
        """Sort the members out; all types are known by now.

        Raises:
            SchemaTypeError: nothing tells two of the classes apart, or a type is only itself.
        """
        leaves = list(dict.fromkeys(flat(self, ())))
        self.members = sorted(leaves, key=lambda leaf: leaf is NUMBER)
        self.needed = " or ".join(dict.fromkeys(leaf.needed for leaf in leaves))
        self.kinds = frozenset[str]().union(*(leaf.kinds for leaf in leaves))
        if all(isinstance(leaf, Scalar) or leaf is NUMBER for leaf in leaves):
            self.quick = frozenset[type[Any]]().union(*(leaf.quick for leaf in leaves))
        records = [leaf for leaf in leaves if isinstance(leaf, Record)]
        for one, other in itertools.combinations(records, 2):
            if not _differ(one, other):
                message = (
                    f"nothing tells {one.name} and {other.name} apart in a union: give each a "
                    f'Literal of its own, such as `kind: Literal["{one.name.lower()}"]`'
                )
                raise SchemaTypeError(message)

    def read(self, value: Any, walk: Walk) -> Any:
        kind = kind_of(value)
        members = [member for member in self.members if kind in member.kinds]
        if kind == "object" and len(members) > 1:
            # One wrong tag must not make all that is known about the others useless.
            members = [
                member for member in members if not _tagged_otherwise(member, value)
            ] or members
        if not members:
            walk.refuse(self.needed, value)
            return None
        if len(members) == 1:
            return members[0].read(value, walk)
        return self._choose(value, walk, members, writing=False)

    def write(self, value: Any, walk: Walk) -> Any:
        return self._choose(value, walk, self.members, writing=True)

    def _choose(self, value: Any, walk: Walk, members: Sequence[Shape], *, writing: bool) -> Any:
        # What was found out is remembered (together with the value, so that its id stays its
        # own): a class is tried by reading all it holds, unions below it as well, and without
        # memory each level would double the work.
        key = id(value), id(self)
        _, choice = walk.choices.get(key, (None, None))
        if isinstance(choice, int):
            chosen = members[choice]
            return (chosen.write if writing else chosen.read)(value, walk)
        result = None
        if choice is None:
            result, choice = _try(value, walk, members, writing=writing)
            if type(value) not in _SCALARS:
                walk.choices[key] = value, choice
            elif isinstance(choice, str):
                walk.refuse(self.needed, value)
                return None
        if isinstance(choice, str):
            walk.problem(choice)
        return result

    def describe(self) -> str:
        return " or ".join(dict.fromkeys(member.describe() for member in self.members))

    def schema(self, defs: Defs, /) -> dict[str, Any]:
        return {"anyOf": [member.schema(defs) for member in self.members]}


def _try(
    value: Any, walk: Walk, members: Sequence[Shape], *, writing: bool
) -> tuple[Any, int | str]:
    """Return the result of the member that fits, and its index; or None, and why none does."""
    result: Any = None
    choice: int | None = None
    failed: list[str] = []
    for index, member in enumerate(members):
        is_class = isinstance(member, (Record, Model))
        if choice is not None and not (is_class and isinstance(members[choice], (Record, Model))):
            continue
        made, why = walk.attempt(member.write if writing else member.read, value)
        if why is not None:
            failed.append(f"{_title(member)} ({why})")
        elif choice is None:
            result, choice = made, index
        else:
            return None, _both(members[choice], member)
    if choice is not None:
        return result, choice
    return None, shorten("nothing fits: " + "; ".join(failed[:_SHOWN_ALTERNATIVES]), _SHOWN_WHY)


def _title(shape: Shape) -> str:
    if isinstance(shape, Record):
        return shape.name
    return shape.cls.__name__ if isinstance(shape, Model) else shorten(shape.describe())


def _both(one: Shape, other: Shape) -> str:
    why = f"it fits both {_title(one)} and {_title(other)}"
    if isinstance(one, Record) and isinstance(other, Record):
        tags = [name for name, _ in one.tags if name in dict(other.tags)]
        why += f"; say which with {' or '.join(map(repr, tags))}" if tags else ""
    return why


def flat(shape: Shape, seen: tuple[Shape, ...]) -> Iterator[Shape]:
    """Yield what a shape stands for, unions and references resolved.

    Raises:
        SchemaTypeError: it stands for itself.
    """
    if isinstance(shape, OneOf):
        for member in shape.members:
            yield from flat(member, seen)
    elif isinstance(shape, Ref):
        if shape in seen:
            message = f"{shape.name} stands for itself, and so for nothing"
            raise SchemaTypeError(message)
        yield from flat(shape.to, (*seen, shape))
    else:
        yield shape


def _tagged_otherwise(member: Shape, value: dict[str, Any]) -> bool:
    return isinstance(member, Record) and any(
        name in value and not choice.holds(value[name]) for name, choice in member.tags
    )


def _differ(one: Record, other: Record) -> bool:
    """Whether no value fits both; or if one does, a tag can be added so that it does not."""
    tags = dict(other.tags)
    if any(
        name in tags and choice.options.keys().isdisjoint(tags[name].options)
        for name, choice in one.tags
    ):
        return True
    needed = one.required | other.required
    if not (needed <= one.fields.keys() and needed <= other.fields.keys()):
        return True
    return any(
        _kinds(one.fields[name].shape).isdisjoint(_kinds(other.fields[name].shape))
        for name in needed
    )


def _kinds(shape: Shape) -> Kinds:
    return frozenset[str]().union(*(leaf.kinds for leaf in flat(shape, ())))
