"""Functions that take a long time to understand: many ways through them, or many lines."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final, TypeAlias

from .findings import Finding, code
from .mentions import is_docstring
from .sources import Source

__all__ = [
    "LEAST_COMPLEXITY",
    "LEAST_LENGTH",
    "complex_functions",
    "complexity",
    "functions",
    "length",
    "long_functions",
]

LEAST_COMPLEXITY: Final = 10
LEAST_LENGTH: Final = 50

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
_STATEMENTS: Final = (ast.stmt, ast.excepthandler, ast.match_case)
_SCOPES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def complex_functions(source: Source) -> list[Finding]:
    """Return the functions with a complexity above `LEAST_COMPLEXITY`."""
    return [
        Finding(
            kind="complexity",
            path=source.path,
            line=function.lineno,
            name=name,
            measure=found,
            message=f"{code(name)} has a complexity of {found}",
        )
        for name, function in functions(source.tree)
        if (found := complexity(function)) > LEAST_COMPLEXITY
    ]


def long_functions(source: Source) -> list[Finding]:
    """Return the functions with more than `LEAST_LENGTH` lines."""
    return [
        Finding(
            kind="length",
            path=source.path,
            line=function.lineno,
            name=name,
            measure=found,
            message=f"{code(name)} is {found} lines long",
        )
        for name, function in functions(source.tree)
        if (found := length(function)) > LEAST_LENGTH
    ]


def functions(tree: ast.Module | None) -> Iterator[tuple[str, Function]]:
    """Yield every function with its dotted name, in the order of the file."""
    # A stack of our own, here and elsewhere: a tree may be deeper than Python lets calls nest.
    # And statements only, which are far fewer: no expression holds a function with a name.
    todo: list[tuple[ast.AST, str]] = [] if tree is None else [(tree, "")]
    while todo:
        node, prefix = todo.pop()
        if isinstance(node, _SCOPES):
            name = prefix + node.name
            if not isinstance(node, ast.ClassDef):
                yield name, node
            prefix = f"{name}."
        todo += [
            (child, prefix)
            for child in reversed([*ast.iter_child_nodes(node)])
            if isinstance(child, _STATEMENTS)
        ]


def complexity(function: Function) -> int:
    """Return McCabe's cyclomatic complexity: the number of independent ways through a function.

    One, and one more for each ``if``, ``elif`` and conditional expression; each ``for`` and
    ``while``; each ``except``; each ``and`` and ``or``; each ``for`` and ``if`` of a
    comprehension; each ``case`` and each guard, but for the plain ``case _`` (it is the ``else``).
    Functions and classes inside are counted on their own, lambdas where they stand.
    """
    ways = 1
    todo: list[ast.AST] = [*function.body]
    while todo:
        node = todo.pop()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                continue
            case ast.If() | ast.IfExp() | ast.For() | ast.AsyncFor() | ast.While():
                ways += 1
            case ast.ExceptHandler():
                ways += 1
            case ast.BoolOp(values=values):
                ways += len(values) - 1
            case ast.comprehension(ifs=conditions):
                ways += 1 + len(conditions)
            case ast.match_case(pattern=ast.MatchAs(pattern=None, name=None), guard=None):
                pass
            case ast.match_case(guard=guard):
                ways += 1 + (guard is not None)
        todo += ast.iter_child_nodes(node)
    return ways


def length(function: Function) -> int:
    """Return how many lines a function has, from ``def`` on.

    Its docstring is not counted, nor are functions and classes inside: they are counted on their
    own.
    """
    lines = _lines(function)
    if is_docstring(function.body[0]):
        lines -= _lines(function.body[0])
    todo: list[ast.AST] = [*function.body]
    while todo:
        node = todo.pop()
        if isinstance(node, _SCOPES):
            lines -= _lines(node)
        elif isinstance(node, _STATEMENTS):
            todo += ast.iter_child_nodes(node)
    return lines


def _lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1
