"""The front doors: what ``__all__`` promises is there, and says what it is.

That ``__all__`` is sorted is ruff's to check (RUF022).
"""

from __future__ import annotations

import abc
import dataclasses
import enum
import functools
import inspect
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Final, Literal

import attrs
import pytest

import parallel_agent
import parallel_agent.aio
import parallel_agent.config
import parallel_agent.mcp
import parallel_agent.openai
import parallel_agent.sync
import session

DOORS: Final = (
    session,
    parallel_agent,
    parallel_agent.aio,
    parallel_agent.config,
    parallel_agent.mcp,
    parallel_agent.openai,
    parallel_agent.sync,
)
EXPORTS: Final = [(door, name) for door in DOORS for name in door.__all__]

every_door = pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
every_export = pytest.mark.parametrize(
    ("door", "name"), EXPORTS, ids=[f"{door.__name__}.{name}" for door, name in EXPORTS]
)


def undocumented(name: str, exported: object) -> list[str]:
    """What has no docstring: a class or function itself, and the public members of a class.

    Constants and type aliases cannot carry a docstring and are passed over.
    """
    if isinstance(exported, type):
        missing = [] if _has_own_docstring(exported) else [name]
        return missing + [f"{name}.{member}" for member in _undocumented_members(exported)]
    # Not `callable`: so is an alias such as `Callable[[int], int]`.
    if inspect.isroutine(exported) and not exported.__doc__:
        return [name]
    return []


def _has_own_docstring(cls: type) -> bool:
    doc: str = vars(cls).get("__doc__") or ""
    # A dataclass without a docstring is given its signature for one.
    return doc != "" and not doc.startswith(f"{cls.__name__}(")


def _undocumented_members(cls: type) -> Iterator[str]:
    """Methods and properties, also those inherited from classes of ours.

    An override without a docstring keeps the contract of what it overrides.
    """
    kinds = (FunctionType, classmethod, staticmethod, property, functools.cached_property)
    ours = [base for base in cls.__mro__ if _is_ours(base)]
    names = {
        name
        for base in ours
        for name, value in vars(base).items()
        if isinstance(value, kinds) and not name.startswith("_")
    }
    for name in sorted(names):
        if not any(vars(base)[name].__doc__ for base in cls.__mro__ if name in vars(base)):
            yield name


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] in {*(door.__name__ for door in DOORS), "tests"}


@every_door
def test_a_front_door_names_nothing_twice(door: ModuleType) -> None:
    assert len(door.__all__) == len(set(door.__all__)) > 0


@every_door
def test_a_front_door_says_what_is_behind_it(door: ModuleType) -> None:
    assert door.__doc__


@every_export
def test_an_exported_name_exists_and_is_public(door: ModuleType, name: str) -> None:
    assert hasattr(door, name)
    assert not name.startswith("_") or name == "__version__"


@every_export
def test_an_exported_name_is_not_hidden_by_the_module_of_that_name(
    door: ModuleType, name: str
) -> None:
    """`agent` is a decorator and a module; importing the module later would set it again."""
    assert not isinstance(getattr(door, name), ModuleType)


@every_export
def test_everything_exported_has_a_docstring(door: ModuleType, name: str) -> None:
    assert undocumented(name, getattr(door, name)) == []


# --------------------------------------------------------------------- the checker finds bad code


def test_the_docstring_checker_finds_classes_functions_and_members() -> None:
    class Bare:
        def method(self) -> None: ...

        @property
        def value(self) -> int:
            return 1

        @classmethod
        def make(cls) -> None: ...

        @functools.cached_property
        def cached(self) -> int:
            return 1

        async def _internal(self) -> None: ...

    def function() -> None: ...

    missing = ["Bare", "Bare.cached", "Bare.make", "Bare.method", "Bare.value"]
    assert undocumented("Bare", Bare) == missing
    assert undocumented("function", function) == ["function"]


def test_a_generated_docstring_does_not_count() -> None:
    @dataclasses.dataclass
    class Point:
        x: int

    @attrs.frozen
    class Place:
        x: int

    class Colour(enum.Enum):
        RED = 1

    class Trouble(Exception):  # noqa: N818  # no error of ours
        pass

    for cls in (Point, Place, Colour, Trouble):
        assert undocumented("It", cls) == ["It"]


def test_constants_and_aliases_are_passed_over() -> None:
    for value in (1, {"a": 1}, int | str, Literal["x"], Callable[[int], int]):
        assert undocumented("it", value) == []


def test_an_override_inherits_the_contract_it_fulfils() -> None:
    class Base(abc.ABC):
        """A contract."""

        @abc.abstractmethod
        def method(self) -> None:
            """What it promises."""

    class Concrete(Base):
        """A way to keep it."""

        def method(self) -> None: ...

    assert undocumented("Concrete", Concrete) == []
