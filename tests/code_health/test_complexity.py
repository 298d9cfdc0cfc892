"""Complexity and length of functions."""

from __future__ import annotations

import textwrap

import pytest

from examples.code_health.complexity import (
    complex_functions,
    complexity,
    functions,
    length,
    long_functions,
)
from tests.code_health.planting import names, source


def only(body: str) -> int:
    """The complexity of a function with this body."""
    ((_, function),) = functions(source("async def f():\n" + textwrap.indent(body, "    ")).tree)
    return complexity(function)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("pass", 1),
        ("if a: pass", 2),
        ("if a: pass\nelse: pass", 2),
        ("if a: pass\nelif b: pass\nelif c: pass\nelse: pass", 4),
        ("return a if b else c", 2),
        ("for a in b: pass\nelse: pass", 2),
        ("async for a in b: pass", 2),
        ("while a: pass", 2),
        ("try: pass\nexcept A: pass\nexcept B: pass\nelse: pass\nfinally: pass", 3),
        ("try: pass\nexcept* A: pass", 2),
        ("with a, b: pass", 1),
        ("assert a", 1),
        ("return a and b and c", 3),
        ("return a and b or c", 3),
        ("return not a", 1),
        ("return a < b < c", 1),
        ("return [a for a in b]", 2),
        ("return {a for a in b if c if d for e in f}", 5),
        ("match a:\n    case 1: pass\n    case 2 | 3: pass\n    case _: pass", 3),
        ("match a:\n    case b if c: pass\n    case _ if d: pass", 5),
        ("return lambda a: b if a else c", 2),
        ("def g():\n    if a: pass", 1),
        ("class C:\n    if a: pass", 1),
    ],
)
def test_each_construct_counts(body: str, expected: int) -> None:
    if body.startswith(("def", "class")):
        tree = source("async def f():\n" + textwrap.indent(body, "    ")).tree
        assert complexity(next(functions(tree))[1]) == expected
    else:
        assert only(body) == expected


def test_a_function_with_eleven_ways_is_a_finding() -> None:
    found = complex_functions(source("def f(a):\n" + "    if a: pass\n" * 10))
    assert [(one["name"], one["measure"], one["line"]) for one in found] == [("f", 11, 1)]


def test_a_function_with_ten_ways_is_none() -> None:
    assert complex_functions(source("def f(a):\n" + "    if a: pass\n" * 9)) == []


def test_functions_are_named_from_outside_in() -> None:
    tree = source(
        """
        class A:
            def b(self):
                async def c(): pass
            class D:
                def e(self): pass
        if f:
            try:
                def g(): pass
            except H:
                def i(): pass
        match j:
            case k:
                def l(): pass
        """
    ).tree
    assert [name for name, _ in functions(tree)] == ["A.b", "A.b.c", "A.D.e", "g", "i", "l"]


def test_a_function_of_51_lines_is_a_finding() -> None:
    found = long_functions(source("def f():\n" + "    pass\n" * 50))
    assert [(one["name"], one["measure"]) for one in found] == [("f", 51)]


def test_a_function_of_50_lines_is_none() -> None:
    assert long_functions(source("def f():\n" + "    pass\n" * 49)) == []


def test_decorators_and_the_docstring_are_not_counted() -> None:
    ((_, function),) = functions(
        source('@one\n@two\ndef f():\n    """Say.\n\n    More.\n    """\n    return 1\n').tree
    )
    assert length(function) == 2


def test_lines_of_a_function_inside_are_its_own() -> None:
    inner = "    def g():\n" + "        pass\n" * 60
    found = long_functions(source(f"def f():\n{inner}    return g\n"))
    assert names(found) == ["f.g"]
