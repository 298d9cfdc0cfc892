"""Functions, classes and variables of modules that nobody mentions.

A mention is anything that may be one (see `mentions`), anywhere in the folder. Private names
(``_name``) that have none are dead; public ones may be there for users elsewhere.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import attrs

from .findings import Finding, code, is_test
from .mentions import type_comments, walk_code, words
from .sources import Source

__all__ = ["Defined", "dead_names", "defined", "is_private"]

# Whose public names are read by a program: of settings, or of tasks to run.
_SETTINGS: Final = frozenset(
    {"setup.py", "conf.py", "settings.py", "noxfile.py", "fabfile.py", "tasks.py", "dodo.py"}
)
_BY_CONVENTION: Final = frozenset({"main", "setup_module", "teardown_module", "load_tests"})


@attrs.frozen
class Definition:
    """A name defined at the top of a module; ``own``: its own statement mentions it."""

    name: str
    line: int
    own: bool


@attrs.frozen(eq=False)
class Defined:
    """One file.

    Attributes:
        path: where it is.
        definitions: what may be dead in it.
        mentions: how many statements at the top of the module mention a name.
    """

    path: str
    definitions: Sequence[Definition]
    mentions: Counter[str]


def is_private(name: str) -> bool:
    """Whether a name says that it is for its own project only."""
    return name.startswith("_")


def dead_names(files: Iterable[Defined], elsewhere: Iterable[str] = ()) -> list[Finding]:
    """Return the definitions that no other statement mentions, nor ``elsewhere``."""
    files = [*files]
    mentions = Counter(elsewhere)
    for file in files:
        mentions.update(file.mentions)
    return [
        Finding(
            kind="dead_name",
            path=file.path,
            line=one.line,
            name=one.name,
            measure=None,
            message=f"{code(one.name)} is mentioned nowhere else"
            + ("" if is_private(one.name) else ": dead, or there for users elsewhere"),
        )
        for file in files
        for one in file.definitions
        if mentions[one.name] == int(one.own)
    ]


def defined(source: Source) -> list[Defined]:
    """Look at one file."""
    if source.tree is None:
        # Nothing in it is accused, and what it may mention is in use.
        return [Defined(source.path, (), Counter(set(words(source.text))))]
    definitions: dict[str, Definition] = {}
    mentions = Counter(set(type_comments(source.text)))
    for statement in source.tree.body:
        mentioned = _mentioned(statement)
        mentions.update(mentioned)
        for node in _unconditional(statement):
            for name, line in _names(node):
                if _may_be_dead(source.path, name):
                    own = statement is node and name in mentioned
                    definitions.setdefault(name, Definition(name, line, own))
    if not mentions.keys().isdisjoint({"globals", "vars"}):
        definitions = {}  # whoever looks names up there need not mention them
    return [Defined(source.path, tuple(definitions.values()), mentions)]


def _unconditional(statement: ast.stmt) -> Iterator[ast.stmt]:
    """Yield the statement itself, or those that it holds as a branch, a ``try`` or a ``with``."""
    todo = [statement]
    for node in todo:
        match node:
            case ast.If():
                todo += [*node.body, *node.orelse]
            case ast.Try():
                todo += [*node.body, *node.orelse, *node.finalbody]
                for handler in node.handlers:
                    todo += handler.body
            case ast.With():
                todo += node.body
            case _:
                yield node


def _names(node: ast.stmt) -> Iterator[tuple[str, int]]:
    """Yield what a statement defines. What is decorated is somebody's already."""
    match node:
        case (
            ast.FunctionDef(name=name, decorator_list=[])
            | ast.AsyncFunctionDef(name=name, decorator_list=[])
            | ast.ClassDef(name=name, decorator_list=[], keywords=[])
        ):
            yield name, node.lineno
        case ast.Assign(targets=targets):
            for target in targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.lineno
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
            yield name, node.lineno


def _may_be_dead(path: str, name: str) -> bool:
    if not name.strip("_") or (name.startswith("__") and name.endswith("__")):
        return False
    if is_private(name):
        return True
    return not (
        path.endswith("__init__.py")  # the front door: for users elsewhere
        or name in _BY_CONVENTION
        or name.startswith("pytest_")
        or is_test(path)
        or path.rpartition("/")[2] in _SETTINGS
    )


def _mentioned(statement: ast.stmt) -> set[str]:
    found: set[str] = set()
    for node in walk_code(statement):
        match node:
            case ast.Name(id=name, ctx=ast.Load() | ast.Del()) | ast.Attribute(attr=name):
                found.add(name)
            case ast.AugAssign(target=ast.Name(id=name)) | ast.keyword(arg=str(name)):
                found.add(name)
            case ast.Global(names=names) | ast.MatchClass(kwd_attrs=names):
                found.update(names)
            case ast.alias(name=name):
                found.update(name.split("."))
            case ast.Constant(value=str(said)):
                found.update(words(said))
    match statement:
        case ast.Assign(
            targets=[ast.Name(id=target)], value=ast.Call(args=[ast.Constant(value=text), *_])
        ) if text == target:
            # `T = TypeVar("T")`: the call must be told the name, which is no mention.
            found.discard(target)
    return found
