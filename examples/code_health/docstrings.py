"""How much of what is public says what it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final, TypeAlias

from .findings import Finding, is_test
from .sources import Source

__all__ = ["LEAST_COVERAGE", "coverage", "little_documented", "public_things"]

LEAST_COVERAGE: Final = 80
"""In percent. A file below it is a finding, if it has `MANY` public things."""

MANY: Final = 5

Documentable: TypeAlias = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def coverage(source: Source) -> tuple[int, int]:
    """Return how many public things of a file have a docstring, and how many there are."""
    public = [*public_things(source)]
    return sum(ast.get_docstring(node, clean=False) is not None for node in public), len(public)


def little_documented(source: Source) -> list[Finding]:
    """Return the finding that few of a file's public things have a docstring, if that is so."""
    documented, public = coverage(source)
    percent = 100 * documented // max(public, 1)
    if public < MANY or percent >= LEAST_COVERAGE:
        return []
    return [
        Finding(
            kind="docstrings",
            path=source.path,
            line=1,
            name="",
            measure=percent,
            message=f"{documented} of {public} public things have a docstring ({percent} %)",
        )
    ]


def public_things(source: Source) -> Iterator[Documentable]:
    """Yield the module, and the public classes, functions and methods in it.

    Not in tests, whose names say it all, nor where the docstring is another's: overloads, the
    setters of properties, and overrides.
    """
    tree = source.tree
    if tree is None or not tree.body or is_test(source.path):
        return
    yield tree
    inside: list[ast.stmt] = [*tree.body]
    for node in inside:
        match node:
            case ast.ClassDef(name=name, body=body) if not name.startswith("_"):
                yield node
                inside += body
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if not name.startswith("_") and not any(map(_borrows, node.decorator_list)):
                    yield node
            case ast.If(body=body, orelse=orelse):
                inside += [*body, *orelse]


def _borrows(decorator: ast.expr) -> bool:
    match decorator:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in {"overload", "override", "setter", "deleter"}
    return False
