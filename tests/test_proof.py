"""What ``docs/explanation/proof.md`` says of the suite is in the suite, and nothing else is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import attrs

from tests.properties import test_explored, test_oracle, test_policies
from tests.pure import test_barrier

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "explanation" / "proof.md"

LAWS: Final = 38
NASTIEST: Final = 15

ROW: Final = re.compile(
    r"^\| (?P<bug>[a-z][^|`]+) \| (?P<law>[^|`]+) \| `(?P<test>tests/[^`|]+)` \|$", re.MULTILINE
)
NUMBERED: Final = re.compile(
    r"^\| (?P<number>\d+) \| [^|]+ \| (?P<tests>`tests/[^|]+) \|$", re.MULTILINE
)

PROPERTIES: Final = {
    "agrees": "what comes of any tree of fan-outs is what the model says",
    "hold": "every law holds whatever the tree and the schedule",
    "same_error": "of failures in the same tick the same is raised",
    "_cancels": "a policy cancels the rest when it has been decided",
    "answers_as_the_model": "a policy answers as the model",
    "failed_of_itself_as_the_model": "what had failed before it was cut short",
}


@attrs.frozen(order=True)
class Planted:
    """A bug, the property that catches it, and the test in which it does."""

    bug: str
    law: str
    test: str


def said(function: Callable[..., Any]) -> str:
    """Return the name of a function as one would say it."""
    return function.__name__.strip("_").replace("_", " ")


def planted() -> list[Planted]:
    """All bugs that the suite plants into the runtime."""
    explored = "tests/properties/test_explored.py::test_exploring_catches"
    oracle = "tests/properties/test_oracle.py::test_the_oracle_catches"
    laws = "tests/properties/test_oracle.py::test_the_laws_catch"
    policies = "tests/properties/test_policies.py::test_a_planted_bug_is_caught"
    barrier = "tests/pure/test_barrier.py::test_a_planted_bug_is_caught"
    (mark,) = [
        mark
        for mark in vars(test_barrier.test_a_planted_bug_is_caught)["pytestmark"]
        if mark.name == "parametrize"
    ]
    return [
        *(Planted(said(bug), said(law), explored) for bug, law, _ in test_explored.CAUGHT),
        *(
            Planted(said(bug), "a run is what the oracle says, event by event", oracle)
            for bug, _ in test_oracle.KNOWN_TO_THE_ORACLE
        ),
        *(
            Planted(said(bug), "every law holds, whatever the tree, reader and store", laws)
            for bug, _ in test_oracle.KNOWN_TO_THE_LAWS
        ),
        *(
            Planted(said(bug), PROPERTIES[check.__name__], policies)
            for bug, check, _ in test_policies.CAUGHT
        ),
        *(Planted(said(bug), PROPERTIES[check.__name__], barrier) for bug, check in mark.args[1]),
    ]


def written(page: str) -> list[Planted]:
    """All bugs in the page's table."""
    return [Planted(row["bug"], row["law"], row["test"]) for row in ROW.finditer(page)]


def rows(bugs: Iterable[Planted]) -> str:
    """Return the table's rows as they should be."""
    return "\n".join(f"| {one.bug} | {one.law} | `{one.test}` |" for one in bugs)


def numbers(page: str) -> list[list[int]]:
    """Return the numbers of each numbered table."""
    found: list[list[int]] = []
    for row in NUMBERED.finditer(page):
        number = int(row["number"])
        if number == 1:
            found.append([])
        found[-1].append(number)
    return found


def test_the_page_lists_the_planted_bugs_and_no_others() -> None:
    page = PAGE.read_text("utf-8")
    assert sorted(written(page)) == sorted(planted()), f"should be\n{rows(planted())}"


def test_at_least_fifteen_different_bugs_are_planted() -> None:
    assert len({one.bug for one in planted()}) >= 15


def test_the_page_names_tests_for_every_law_and_every_nastiest_test() -> None:
    page = PAGE.read_text("utf-8")
    assert numbers(page) == [list(range(1, LAWS + 1)), list(range(1, NASTIEST + 1))]


def test_a_bug_that_is_missing_or_was_never_planted_is_noticed() -> None:
    bugs = planted()
    assert sorted(written(rows(bugs))) == sorted(bugs)
    assert sorted(written(rows(bugs[1:]))) != sorted(bugs)
    assert sorted(written(rows([*bugs, attrs.evolve(bugs[0], bug="another")]))) != sorted(bugs)


def test_a_law_without_a_test_is_noticed() -> None:
    good, bad = "| 1 | a law | `tests/test_proof.py` |", "| 2 | a law | none |"
    assert numbers(f"{good}\n{bad}") == [[1]]
