"""From findings to a report: thresholds, ranking, and the text."""

from __future__ import annotations

import itertools

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.code_health.findings import KINDS, Finding
from examples.code_health.focus import LEVELS, in_order, is_short, select, top
from examples.code_health.report import Figures, render, to_show

FIGURES = Figures(folders=["package"], files=3, lines=1200, documented=(1, 3), imports=1)

findings = st.builds(
    Finding,
    kind=st.sampled_from([*KINDS]),
    path=st.sampled_from(["a.py", "b.py", "tests/test_a.py"]),
    line=st.integers(1, 5),
    name=st.sampled_from(["_private", "public"]),
    measure=st.none() | st.integers(0, 400),
    message=st.sampled_from(["`one`", "`two`"]),
)
some_findings = st.lists(findings, max_size=40)


def finding(kind: str, measure: int | None = None, **changes: object) -> Finding:
    made = Finding(kind=kind, path="a.py", line=1, name="_n", measure=measure, message="`m`")
    made.update(changes)  # type: ignore[typeddict-item]  # tests say what they mean
    return made


# ---------------------------------------------------------------------------------- the thresholds


@given(some_findings)
def test_each_level_selects_a_part_of_what_the_one_before_did(some: list[Finding]) -> None:
    for loose, strict in itertools.pairwise(LEVELS):
        assert all(one in select(some, loose) for one in select(some, strict))


@given(some_findings)
def test_what_no_threshold_is_for_is_always_selected(some: list[Finding]) -> None:
    fixed = [one for one in some if one["kind"] in {"parse", "cycle", "unused_import"}]
    assert all(one in select(some, LEVELS[-1]) for one in fixed)


@pytest.mark.parametrize(
    ("kind", "least"),
    [("complexity", 11), ("length", 51), ("duplicate", 6), ("docstrings", 79), ("todo", 0)],
)
def test_the_loosest_level_selects_all_that_analyses_find(kind: str, least: int) -> None:
    assert select([finding(kind, least)], LEVELS[0]) == [finding(kind, least)]


@pytest.mark.parametrize(
    ("kind", "kept", "dropped"),
    [
        ("complexity", 16, 15),
        ("length", 81, 80),
        ("duplicate", 10, 9),
        ("docstrings", 59, 60),
        ("todo", 90, 89),
        ("todo", 90, None),
    ],
)
def test_a_threshold_is_a_sharp_edge(kind: str, kept: int, dropped: int | None) -> None:
    some = [finding(kind, kept), finding(kind, dropped)]
    assert select(some, LEVELS[1]) == some[:1]


def test_public_names_are_the_first_to_go() -> None:
    some = [finding("dead_name", name="public"), finding("dead_name", name="_private")]
    assert select(some, LEVELS[0]) == some
    assert select(some, LEVELS[1]) == some[1:]


def test_findings_up_to_the_limit_are_few_enough() -> None:
    assert is_short([finding("complexity", 99)] * 10, 10)
    assert not is_short([finding("complexity", 99)] * 11, 10)


def test_what_no_threshold_is_for_leaves_room_for_the_rest() -> None:
    """A hundred unused imports do not drive the thresholds up."""
    fixed = [finding("unused_import")] * 100
    assert is_short(fixed + [finding("complexity", 99)] * 5, 10)
    assert not is_short(fixed + [finding("complexity", 99)] * 6, 10)


# ------------------------------------------------------------------------------------- the ranking


@given(some_findings, st.integers(1, 30))
def test_the_limit_holds(some: list[Finding], limit: int) -> None:
    assert len(top(some, limit)) == min(limit, len(some))


@given(some_findings, st.integers(1, 30), st.randoms())
def test_the_choice_does_not_depend_on_the_order(
    some: list[Finding], limit: int, random: object
) -> None:
    mixed = [*some]
    random.shuffle(mixed)  # type: ignore[attr-defined]  # it is a random.Random
    assert top(mixed, limit) == top(some, limit)


def test_every_kind_has_its_worst_in_the_choice() -> None:
    some = [finding(kind, measure) for kind in KINDS for measure in (1, 2)]
    assert [one["kind"] for one in top(some, len(KINDS))] == [*KINDS]
    worst = {kind: 1 if kind == "docstrings" else 2 for kind in KINDS}
    assert {one["kind"]: one["measure"] for one in top(some, len(KINDS))} == worst


def test_the_worst_come_first_and_tests_last() -> None:
    some = [
        finding("complexity", 20, path="tests/test_a.py"),
        finding("complexity", 12, path="b.py"),
        finding("complexity", 12, path="a.py", line=7),
        finding("complexity", 12, path="a.py", line=5),
        finding("complexity", 15, path="z.py"),
    ]
    ordered = in_order(some)["complexity"]
    assert [(one["path"], one["line"]) for one in ordered] == [
        ("z.py", 1),
        ("a.py", 5),
        ("a.py", 7),
        ("b.py", 1),
        ("tests/test_a.py", 1),
    ]


# -------------------------------------------------------------------------------------- the report


def test_a_report_says_what_was_found_where() -> None:
    some = [
        finding("complexity", 12, path="b.py", line=3, message="`f` has a complexity of 12"),
        finding("unused_import", path="a.py", line=1, message="`import os` is not used"),
        finding("todo", 5, message="`TODO` (5 days old)"),
    ]
    assert (
        render(FIGURES, some, attrs.evolve(LEVELS[0], todo=90), 25)
        == """\
# Code health of `package`

3 Python files, 1,200 lines, 1 import among them. 33 % of what is public has a docstring (1 of 3).

| what | found | shown | threshold |
|---|---:|---:|---|
| Files that cannot be looked into | 0 | 0 | all |
| Import cycles | 0 | 0 | all |
| Unused imports | 1 | 1 | all |
| Dead names | 0 | 0 | all |
| Duplicate code | 0 | 0 | 6 lines or more |
| Complex functions | 1 | 1 | more than 10 |
| Long functions | 0 | 0 | more than 50 lines |
| Missing docstrings | 0 | 0 | less than 80 % |
| Promises in comments | 1 | 0 | 90 days or older |

Not shown: 1 finding within the thresholds.

## Unused imports

- `a.py:1` `import os` is not used

## Complex functions

- `b.py:3` `f` has a complexity of 12
"""
    )


@pytest.mark.parametrize(
    ("number", "limit", "sentence"),
    [
        (0, 5, "Nothing was found that is worth a word."),
        (3, 5, "Every finding is shown."),
        (7, 5, "Not shown: 2 findings beyond the limit of 5."),
    ],
)
def test_what_is_not_shown_is_counted(number: int, limit: int, sentence: str) -> None:
    some = [finding("unused_import", line=line) for line in range(number)]
    assert f"\n\n{sentence}\n" in render(FIGURES, some, LEVELS[0], limit)


def test_both_reasons_for_not_showing_are_given() -> None:
    some = [finding("unused_import")] * 2 + [finding("complexity", 12)]
    text = render(FIGURES, some, LEVELS[-1], 1)
    assert "Not shown: 1 finding within the thresholds, 1 finding beyond the limit of 1." in text


@given(some_findings, st.integers(1, 30))
def test_a_report_shows_what_it_says_it_shows(some: list[Finding], limit: int) -> None:
    text = render(FIGURES, some, LEVELS[0], limit)
    assert text.count("\n- `") == len(to_show(some, LEVELS[0], limit))


def test_a_folder_without_python_is_said_to_have_none() -> None:
    text = render(Figures(folders=["p"], files=0, lines=0, skipped=2), [], LEVELS[0], 5)
    assert text == (
        "# Code health of `p`\n\nThere are no Python files here. "
        "Skipped, because their names are not UTF-8: 2 files.\n"
    )


def test_several_folders_are_named() -> None:
    figures = attrs.evolve(FIGURES, folders=["a", "b"])
    assert render(figures, [], LEVELS[0], 5).startswith("# Code health of `a` and `b`\n")


def test_a_hostile_path_stays_in_its_code_span() -> None:
    some = [finding("parse", path="a`\n# B\x1b[2J.py")]
    assert "- `` a`?# B?[2J.py:1 `` `m`\n" in render(FIGURES, some, LEVELS[0], 5)
