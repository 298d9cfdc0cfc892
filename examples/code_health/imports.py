"""The import graph, and the cycles in it."""

from __future__ import annotations

import ast
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import attrs

from .findings import Finding, code
from .modules import Modules
from .sources import Source

__all__ = ["FileImports", "cycles", "edges", "groups", "imports_of", "way_round"]

Import: TypeAlias = ast.Import | ast.ImportFrom
Graph: TypeAlias = Mapping[str, Iterable[str]]

_MANY: Final = 200
"""Where more modules import one another, not every way round is tried for the shortest."""


@attrs.frozen(eq=False)
class FileImports:
    """The imports that run when a file is imported."""

    path: str
    nodes: Sequence[Import]


def imports_of(source: Source) -> list[FileImports]:
    """Return the imports that run when the file is imported; nothing if it does not parse.

    Not those in functions and for type checkers only, which are how cycles are avoided, and not
    those of the file run as a script.
    """
    if source.tree is None:
        return []
    return [FileImports(source.path, [*_run_at_import(source.tree)])]


def _run_at_import(tree: ast.Module) -> Iterator[Import]:
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        match node:
            case ast.Import() | ast.ImportFrom():
                yield node
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.expr():
                pass
            case ast.If(test=test, orelse=orelse) if _is_elsewhere(test):
                todo += reversed(orelse)
            case ast.If(test=ast.UnaryOp(op=ast.Not(), operand=test), body=body) if _is_elsewhere(
                test
            ):
                todo += reversed(body)
            case _:
                todo += reversed([*ast.iter_child_nodes(node)])


def _is_elsewhere(test: ast.expr) -> bool:
    match test:
        case ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"):
            return True
        case ast.Compare(left=ast.Name(id="__name__")):
            return True
    return False


def edges(files: Iterable[FileImports], modules: Modules) -> dict[str, dict[str, int]]:
    """Return the import graph: for each file those it imports, with the line of the first time."""
    graph: dict[str, dict[str, int]] = {}
    for file in sorted(files, key=lambda file: file.path):
        found = graph.setdefault(file.path, {})
        for node in file.nodes:
            for path, _ in modules.targets(node, file.path):
                if path != file.path:
                    found.setdefault(path, node.lineno)
    return graph


def cycles(graph: Mapping[str, Mapping[str, int]], modules: Modules) -> list[Finding]:
    """Return a finding for each group of files that import one another."""
    found = []
    for group in groups(graph):
        way = way_round(graph, group)
        names = " → ".join(code(modules.name(path)) for path in [*way, way[0]])
        detail = names if len(way) == len(group) else f"the shortest way round is {names}"
        found.append(
            Finding(
                kind="cycle",
                path=way[0],
                line=graph[way[0]][way[1]],
                name=modules.name(way[0]),
                measure=len(group),
                message=f"{len(group)} modules import one another: {detail}",
            )
        )
    return found


def groups(graph: Graph) -> list[list[str]]:
    """Return the strongly connected components of two nodes or more, all in order.

    Kosaraju's algorithm: what reaches a node backwards, of those that it reaches forwards.
    """
    backwards: dict[str, list[str]] = defaultdict(list)
    for node, others in graph.items():
        for other in others:
            backwards[other].append(node)
    taken: set[str] = set()
    found: list[list[str]] = []
    for root in reversed(_depth_first(graph)):
        if root in taken:
            continue
        taken.add(root)
        group = [root]
        for node in group:
            for other in backwards[node]:
                if other not in taken:
                    taken.add(other)
                    group.append(other)
        if len(group) > 1:
            found.append(sorted(group))
    return sorted(found)


def _depth_first(graph: Graph) -> list[str]:
    """Return the nodes in the order in which a depth-first search leaves them."""
    seen: set[str] = set()
    left: list[str] = []
    todo = [(node, False) for node in sorted(graph, reverse=True)]
    while todo:
        node, leaving = todo.pop()
        if leaving:
            left.append(node)
        elif node not in seen:
            seen.add(node)
            todo.append((node, True))
            todo += [(other, False) for other in graph.get(node, ())]
    return left


def way_round(graph: Graph, group: Sequence[str]) -> list[str]:
    """Return a shortest cycle within a group, from its first node in order on."""
    best: list[str] = []
    for start in group[:_MANY]:
        way = _back_to(graph, start, frozenset(group))
        if not best or len(way) < len(best):
            best = way
        if len(best) == 2:
            break
    return best


def _back_to(graph: Graph, start: str, within: frozenset[str]) -> list[str]:
    before: dict[str, str] = {}
    queue = deque([start])
    while True:
        node = queue.popleft()
        for other in sorted(within.intersection(graph.get(node, ()))):
            if other == start:
                way = [node]
                while way[-1] != start:
                    way.append(before[way[-1]])
                return way[::-1]
            if other not in before:
                before[other] = node
                queue.append(other)
