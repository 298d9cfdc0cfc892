"""Which things are public, and how many of them have a docstring."""

from __future__ import annotations

import pytest

from examples.code_health.docstrings import coverage, little_documented
from tests.code_health.planting import source

FIVE = "def a(): pass\ndef b(): pass\ndef c(): pass\ndef d(): pass\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, 0)),
        ('"""Module."""', (1, 1)),
        ("def f(): pass", (0, 2)),
        ('async def f():\n    "Say."', (1, 2)),
        ('class C:\n    "Say."\n    def m(self): pass', (1, 3)),
        ("def _f(): pass\nclass _C:\n    def m(self): pass", (0, 1)),
        ("class C:\n    def __init__(self): pass\n    def _m(self): pass", (0, 2)),
        ("def f():\n    def g(): pass", (0, 2)),
        ("if a:\n    def f(): pass\nelse:\n    def f(): pass", (0, 3)),
        ("@overload\ndef f(): pass\n@typing.overload\ndef f(): pass", (0, 1)),
        (
            "class C:\n    @property\n    def p(self): 0\n    @p.setter\n    def p(self, v): 0",
            (0, 3),
        ),
        ("class C:\n    @override\n    def m(self): pass", (0, 2)),
    ],
)
def test_public_things_are_counted(text: str, expected: tuple[int, int]) -> None:
    assert coverage(source(text)) == expected


def test_tests_need_no_docstrings() -> None:
    assert coverage(source(FIVE, "tests/test_a.py")) == (0, 0)


def test_a_file_that_says_little_is_a_finding() -> None:
    (finding,) = little_documented(source('"""Module."""\n' + FIVE))
    assert (finding["measure"], finding["line"]) == (20, 1)


def test_a_file_that_says_enough_is_none() -> None:
    text = '"""Module."""\n' + FIVE.replace("pass", '"Say."', 3)
    assert coverage(source(text)) == (4, 5)
    assert little_documented(source(text)) == []


def test_a_file_with_little_to_say_is_none() -> None:
    assert little_documented(source("def a(): pass\ndef b(): pass\ndef c(): pass\n")) == []
