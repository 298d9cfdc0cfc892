"""Imports that nobody uses.

An import counts as used if its name occurs anywhere in the file, whatever the scope: what is
missed so is less of a nuisance than a wrong accusation. And it may be there for others: see
`_is_meant` for what a file says of itself, and `Borrowed` for what other files say.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final, TypeAlias

import attrs

from .findings import Finding, code, is_test
from .mentions import strings, type_comments, walk_code, words
from .sources import Source

__all__ = ["Imported", "imported", "unused_imports"]

Import: TypeAlias = ast.Import | ast.ImportFrom

_NOQA: Final = re.compile(r"#\s*noqa\b(?!\s*:)|#\s*noqa\s*:[^#]*\bF(401)?\b", re.IGNORECASE)
_PYLINT: Final = re.compile(r"#\s*pylint:\s*disable=[^#]*\b(unused-import|W0611)\b")
_WHOLE_FILE: Final = re.compile(
    r"^[ \t\f]*#[ \t]*((ruff|flake8)\s*:\s*noqa\s*(:[^#]*\bF(401)?\b.*)?$"
    r"|pylint:\s*disable=.*\b(unused-import|W0611)\b)",
    re.MULTILINE,
)
# What is called with names in strings, or with annotations.
_QUOTED_IN: Final = frozenset(
    {"cast", "TypeVar", "NewType", "ForwardRef", "TypeAliasType", "NamedTuple", "TypedDict"}
    | {"usefixtures", "getfixturevalue"}
)
# Imported for what happens then.
_SIDE_EFFECTS: Final = frozenset({"readline", "rlcompleter", "antigravity", "this"})


@attrs.frozen(eq=False)
class Imported:
    """What one file imports and does not use itself, and what it takes from other files.

    Attributes:
        source_name: the last part of the module's name, by which others may import it.
        unused: what it imports and does not use.
        borrowed: names it takes from other modules, as (last part of the module's name, name);
            ``*`` is all of them.
        mentions: all the words in it, if it does not parse.
    """

    source_name: str
    unused: tuple[Finding, ...]
    borrowed: frozenset[tuple[str, str]]
    mentions: frozenset[str] = frozenset()


def unused_imports(files: Iterable[Imported]) -> list[Finding]:
    """Return the imports that neither their file nor any other uses."""
    files = [*files]
    borrowed = frozenset[tuple[str, str]]().union(*(file.borrowed for file in files))
    mentions = frozenset[str]().union(*(file.mentions for file in files))
    return [
        finding
        for file in files
        if (file.source_name, "*") not in borrowed
        for finding in file.unused
        if (file.source_name, finding["name"]) not in borrowed
        and not (finding["name"] in mentions and file.source_name in mentions)
    ]


def imported(source: Source) -> list[Imported]:
    """Look at one file."""
    if source.tree is None:
        # It is accused of nothing, and what it may take from others is in use.
        return [Imported(source.name, (), frozenset(), frozenset(words(source.text)))]
    nodes = [*walk_code(source.tree)]
    unused: list[Finding] = []
    if not _WHOLE_FILE.search(source.text):
        used = _used(nodes, in_test=is_test(source.path))
        used.update(type_comments(source.text))
        lines = source.lines
        for node, alias in _candidates(source.tree):
            name = alias.asname or alias.name.partition(".")[0]
            if name in used:
                continue
            if _is_meant(source, node, alias) or _is_excused(lines, node, alias):
                used.add(name)  # and whatever else the name is imported from, on another system
            else:
                unused.append(_finding(source, node, alias, name))
        unused = [finding for finding in unused if finding["name"] not in used]
    return [Imported(source.name, tuple(unused), frozenset(_borrowed(source, nodes)))]


def _is_excused(lines: Sequence[str], node: Import, alias: ast.alias) -> bool:
    places = {alias.lineno, node.lineno, node.end_lineno or node.lineno}
    return any(_NOQA.search(lines[at - 1]) or _PYLINT.search(lines[at - 1]) for at in places)


def _finding(source: Source, node: Import, alias: ast.alias, name: str) -> Finding:
    if isinstance(node, ast.ImportFrom):
        whole = f"from {'.' * node.level}{node.module or ''} import {alias.name}"
    else:
        whole = f"import {alias.name}"
    whole += f" as {alias.asname}" if alias.asname else ""
    return Finding(
        kind="unused_import",
        path=source.path,
        line=alias.lineno,
        name=name,
        measure=None,
        message=f"{code(whole)} is not used",
    )


def _candidates(tree: ast.Module) -> Iterator[tuple[Import, ast.alias]]:
    """Yield the imports that could be unused.

    Those in a ``try`` that catches ImportError ask whether a module is there, those in a ``with``
    are for what happens meanwhile, and those in a class body become attributes.
    """
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        match node:
            case ast.Import() | ast.ImportFrom():
                for alias in node.names:
                    yield node, alias
            case ast.expr():
                pass
            case ast.ClassDef(body=body):
                todo += reversed(
                    [one for one in body if not isinstance(one, ast.Import | ast.ImportFrom)]
                )
            case ast.With() | ast.AsyncWith():
                pass
            case ast.Try(handlers=handlers) if any(map(_catches_import_errors, handlers)):
                todo += reversed([*node.orelse, *node.finalbody])
            case _:
                todo += reversed([*ast.iter_child_nodes(node)])


def _catches_import_errors(handler: ast.ExceptHandler) -> bool:
    match handler.type:
        case None:
            return True
        case ast.Tuple(elts=elements):
            return any(map(_is_import_error, elements))
        case caught:
            return _is_import_error(caught)


def _is_import_error(caught: ast.expr) -> bool:
    match caught:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}
    return False


def _is_meant(source: Source, node: Import, alias: ast.alias) -> bool:
    """Whether an import says of itself that it is for others.

    ``import a as a`` is the sign for it. A package's ``__init__.py``, and pytest's
    ``conftest.py``, hand on what they import from their own project; a module called ``compat``
    exists to hand things on.
    """
    if (
        "compat" in source.name
        or alias.name == "*"
        or alias.asname in {alias.name, "_"}
        or alias.name in _SIDE_EFFECTS
    ):
        return True
    if isinstance(node, ast.ImportFrom):
        module = "." if node.level else node.module or ""
    else:
        module = alias.name
    if module == "__future__":
        return True
    if not source.path.endswith(("__init__.py", "conftest.py")):
        return False
    return module.partition(".")[0] in {"", *source.folders}


def _used(nodes: Iterable[ast.AST], *, in_test: bool) -> set[str]:
    """Return the names that a file uses, in annotations that are strings too."""
    used: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Name):
            if not isinstance(node.ctx, ast.Store):
                used.add(node.id)
        elif isinstance(node, _QUOTING):
            if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
                used.add(node.target.id)
            if isinstance(node, ast.arg) and in_test:
                used.add(node.arg)  # a fixture, perhaps
            for part in _with_quoted_names(node):
                for text in strings(part) if part is not None else ():
                    used.update(words(text))
    return used


_QUOTING: Final = (
    ast.arg,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.Subscript,
    ast.Call,
    ast.AnnAssign,
    ast.Assign,
    ast.AugAssign,
    ast.Expr,
)


def _with_quoted_names(node: ast.AST) -> tuple[ast.AST | None, ...]:
    """Return the parts of a node in which strings are names."""
    match node:
        case ast.arg(annotation=annotation):
            return (annotation,)
        case ast.FunctionDef(returns=returns) | ast.AsyncFunctionDef(returns=returns):
            return (returns,)
        case ast.Subscript(slice=inside):
            return (inside,)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in _QUOTED_IN:
            return (node,)
        case ast.AnnAssign(annotation=ast.Name(id="TypeAlias") | ast.Attribute(attr="TypeAlias")):
            return (node.value,)
        case ast.AnnAssign(target=target, annotation=annotation):
            return (node,) if _is_all(target) else (annotation,)
        case ast.Assign(targets=targets) if any(map(_is_all, targets)):
            return (node,)
        case ast.AugAssign(target=target) if _is_all(target):
            return (node,)
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=target))) if _is_all(target):
            return (node,)
    return ()


def _is_all(target: ast.expr) -> bool:
    return isinstance(target, ast.Name) and target.id == "__all__"


def _borrowed(source: Source, nodes: Sequence[ast.AST]) -> Iterator[tuple[str, str]]:
    """Yield what a file takes from other modules; see `Imported`."""
    names: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update({one.asname: _last(one.name) for one in node.names if one.asname})
        elif isinstance(node, ast.ImportFrom):
            module = _last(node.module) if node.module else _around(source, node.level)
            for alias in node.names:
                yield module, alias.name
                names[alias.asname or alias.name] = alias.name
    for node in nodes:
        if isinstance(node, ast.Attribute):
            base: str = getattr(node.value, "id", "") or getattr(node.value, "attr", "")
            yield base, node.attr
            yield names.get(base, base), node.attr
        elif isinstance(node, ast.Constant):
            # "package.module.name": patched, or loaded later.
            text = node.value
            if isinstance(text, str) and "." in text and len(text) < 200:
                yield from pairwise(words(text))


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _around(source: Source, level: int) -> str:
    """Return the name of the package that a relative import without a module means."""
    return source.folders[-level] if len(source.folders) >= level else ""
