"""The tree of errors, and the notes on what agents raise."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import NoReturn

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import parallel_agent
from parallel_agent import errors, model_errors
from parallel_agent.errors import AgentError, StateConflictError
from parallel_agent.notes import describe, note_origin, note_other
from session import BranchOutcome

# ---------------------------------------------------------------------------------- the tree


def drawn_tree(module: ModuleType = errors) -> dict[str, str]:
    """Read the drawing in a module's docstring: each error and its parent."""
    parents: dict[str, str] = {}
    line: list[tuple[int, str]] = []
    for text in (module.__doc__ or "").splitlines():
        found = re.match(r"[ │├└─]*(\w+Error)\b", text)
        if found is None or not text.startswith("    "):
            continue
        name, depth = found.group(1), found.start(1)
        while line and line[-1][0] >= depth:
            line.pop()
        parents[name] = line[-1][1] if line else "Exception"
        line.append((depth, name))
    return parents


def test_the_drawing_is_the_tree_of_classes() -> None:
    classes = {
        name: found.__mro__[1].__name__
        for name, found in inspect.getmembers(errors, inspect.isclass)
        if issubclass(found, AgentError)
    }
    assert drawn_tree() == classes


def test_that_of_models_and_tools_is_one_too() -> None:
    classes = {
        name: found.__mro__[1].__name__
        for name, found in inspect.getmembers(model_errors, inspect.isclass)
        if issubclass(found, AgentError)
    }
    drawn = drawn_tree(model_errors)
    assert drawn == classes | {"AgentError": "Exception", "UsageError": "AgentError"}
    assert set(drawn) - {"AgentError", "UsageError"} == set(model_errors.__all__)
    assert set(model_errors.__all__) <= set(parallel_agent.__all__)


def test_every_error_is_exported_by_its_module_and_by_the_front_door() -> None:
    assert set(drawn_tree()) == set(errors.__all__)
    assert set(errors.__all__) <= set(parallel_agent.__all__)


def test_a_conflict_names_the_key_and_both_branches() -> None:
    error = StateConflictError("total", "fan.a", "fan.b")
    assert (error.key, error.branches) == ("total", ("fan.a", "fan.b"))
    for name in ("'total'", "'fan.a'", "'fan.b'"):
        assert name in str(error)


# ------------------------------------------------------------------------------------- notes


def notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", ()))


@given(st.lists(st.text(max_size=5), max_size=3), st.integers(1, 4))
def test_noting_the_origin_again_changes_nothing(own: list[str], times: int) -> None:
    error = ValueError("boo")
    for note in own:
        error.add_note(note)
    for _ in range(times):
        note_origin(error, "fan/a")
    assert notes(error) == [*own, "raised by agent fan/a"]


def test_an_exception_raised_again_elsewhere_has_only_its_newest_origin() -> None:
    error = ValueError("boo")
    note_origin(error, "fan/a")
    note_other(error, "fan/b", KeyError("b"))
    note_origin(error, "fan/c")
    assert notes(error) == ["raised by agent fan/c"]


def test_notes_of_the_users_own_stay() -> None:
    error = ValueError("boo")
    error.add_note("look into the cellar")
    note_origin(error, "fan/a")
    error.add_note("and the attic")
    note_origin(error, "fan/b")
    assert notes(error) == ["look into the cellar", "and the attic", "raised by agent fan/b"]


def test_another_failure_is_noted_with_its_place_type_and_message() -> None:
    error = ValueError("boo")
    note_other(error, "fan/b", KeyError("missing"))
    assert notes(error) == ["another branch failed too: fan/b: KeyError: 'missing'"]


def test_the_same_other_failure_is_noted_once() -> None:
    error = ValueError("boo")
    for _ in range(3):
        note_other(error, "fan/b", KeyError("missing"))
    assert len(notes(error)) == 1


def test_other_failures_are_noted_in_the_order_given() -> None:
    error = ValueError("boo")
    for name in "bcd":
        note_other(error, f"fan/{name}", KeyError(name))
    assert [note.split("/")[1][0] for note in notes(error)] == ["b", "c", "d"]


@dataclass(frozen=True)
class FrozenDataclassError(Exception):
    code: int = 1


@attrs.frozen
class FrozenAttrsError(Exception):
    code: int = 1


class ReadOnlyNotesError(Exception):
    @property
    def __notes__(self) -> tuple[str, ...]:  # type: ignore[override]  # it is hostile on purpose
        return ()


class HostileNotesError(Exception):
    @property
    def __notes__(self) -> NoReturn:  # type: ignore[override]  # it is hostile on purpose
        message = "do not look"
        raise RuntimeError(message)


class HostileAttributesError(Exception):
    def __getattr__(self, name: str) -> NoReturn:
        message = f"no {name} here"
        raise RuntimeError(message)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        message = f"{name} cannot be set"
        raise RuntimeError(message)


HOSTILE: list[Callable[[], Exception]] = [
    FrozenDataclassError,
    FrozenAttrsError,
    ReadOnlyNotesError,
    HostileNotesError,
    HostileAttributesError,
]


@pytest.mark.parametrize("make", HOSTILE)
def test_an_exception_that_takes_no_notes_stays_without(make: Callable[[], Exception]) -> None:
    error = make()
    note_origin(error, "fan/a")
    note_other(error, "fan/b", error)


@pytest.mark.parametrize("odd", ["text", 7, None, [1, b"2"]])
def test_notes_that_are_no_list_of_text_do_no_harm(odd: object) -> None:
    error = ValueError("boo")
    error.__notes__ = odd  # type: ignore[assignment]  # nobody stops a user from doing so
    note_origin(error, "fan/a")
    assert notes(error) == ["raised by agent fan/a"]


def test_notes_kept_as_a_tuple_are_kept() -> None:
    error = ValueError("boo")
    error.__notes__ = ("mine",)  # type: ignore[assignment]  # tracebacks print any sequence
    note_origin(error, "fan/a")
    assert notes(error) == ["mine", "raised by agent fan/a"]


# ---------------------------------------------------------------------------------- descriptions


class SilentError(Exception):
    def __str__(self) -> str:
        message = "not even this"
        raise ValueError(message)


class WrongError(Exception):
    def __str__(self) -> str:
        return 3  # type: ignore[return-value]  # noqa: PLE0307  # it is hostile on purpose


@pytest.mark.parametrize("make", [SilentError, WrongError])
def test_an_error_without_a_readable_message_is_described(make: Callable[[], Exception]) -> None:
    assert describe(make()) == (make.__name__, "<its __str__ failed>")


@given(st.text(st.characters()))
def test_a_description_can_always_be_stored(message: str) -> None:
    BranchOutcome("a", "failed", *describe(ValueError(message)))


def test_a_lone_surrogate_is_described_as_a_question_mark() -> None:
    assert describe(ValueError("odd \ud800 name")) == ("ValueError", "odd ? name")


def test_a_very_long_message_is_cut() -> None:
    _, described = describe(ValueError("x" * 10_000))
    assert described == "x" * 500 + "…"


def test_a_short_message_is_whole() -> None:
    assert describe(KeyError("a")) == ("KeyError", "'a'")
