"""Promises in comments."""

from __future__ import annotations

import pytest

from examples.code_health.todos import promises, with_ages
from tests.code_health.planting import lines, source


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# TODO", "`TODO`"),
        ("x = 1  # TODO: say why", "`TODO: say why`"),
        ("# FIXME(me) later", "`FIXME(me) later`"),
        ("# this is a HACK for now", "`HACK for now`"),
        ("#XXX", "`XXX`"),
        ("# TODO `quote` and \x1b[2J", "`` TODO `quote` and ?[2J ``"),
        ("def f():\n    # TODO", "`TODO`"),
    ],
)
def test_a_promise_is_found(text: str, message: str) -> None:
    (finding,) = promises(source(text + "\n    pass\n" if text.startswith("def") else text))
    assert finding["message"] == message


@pytest.mark.parametrize(
    "text",
    [
        "# todo list of a user",
        "# TODOS",
        "x = '# TODO'",
        'def f():\n    """TODO: in a docstring."""',
        "TODO = 1",
        "f'# {TODO}'",
    ],
)
def test_what_only_looks_like_one_is_not(text: str) -> None:
    assert promises(source(text)) == []


def test_every_comment_has_its_line() -> None:
    assert lines(promises(source("# TODO\nx = 1\n# FIXME # TODO\n"))) == [1, 3]


@pytest.mark.parametrize(
    ("age", "said"),
    [(None, "age unknown"), (0, "0 days old"), (1, "1 day old"), (1200, "1,200 days old")],
)
def test_an_age_is_told_where_one_is_known(age: int | None, said: str) -> None:
    found = promises(source("# TODO"))
    ages = {} if age is None else {("module.py", 1): age}
    (finding,) = with_ages(found, ages)
    assert (finding["measure"], finding["message"]) == (age, f"`TODO` ({said})")
