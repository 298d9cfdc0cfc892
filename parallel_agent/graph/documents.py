"""Documents that the nodes of a graph share: who writes, who adds, who reads.

What a document holds for a reader follows from the edges, not from the clock: what was written by
the nodes that had to end before the reader could start, in an order that they alone decide.

Pure: no event loop, no clock.
"""

from __future__ import annotations

import json
from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs

from parallel_agent.graph.definition import Link, Loop, reached
from parallel_agent.graph.edges import NodeRef

__all__ = ["Board", "Document", "SharedText", "infer_links"]


@attrs.frozen(eq=False)
class Document:
    """A text that nodes of a graph share: a blackboard.

    What a node puts out is what it writes: text as it is, anything else as JSON, nothing if it
    has no output. Nodes that write come first, then those that add, then those that read, unless
    edges say otherwise.

    Args:
        name: readers find it as ``ctx.documents[name]``.
        writers: nodes whose output replaces the text.
        appenders: nodes whose output is added at the end, after a blank line.
        readers: nodes that read it. A node may read and write, or read and add; such nodes come
            after those that do not read.
        key: the state key under which it is kept when the graph has completed, and from which it
            is taken up; None is not at all.
        initial: what it holds at first; None is what the state holds.
        chain: nodes that read and write come one after another, in the order of declaration.
            Otherwise they run side by side, and do not see what the others of them write.
    """

    name: str
    writers: Sequence[NodeRef] = attrs.field(default=(), kw_only=True)
    appenders: Sequence[NodeRef] = attrs.field(default=(), kw_only=True)
    readers: Sequence[NodeRef] = attrs.field(default=(), kw_only=True)
    key: str | None = attrs.field(default=None, kw_only=True)
    initial: str | None = attrs.field(default=None, kw_only=True)
    chain: bool = attrs.field(default=True, kw_only=True)


@attrs.frozen(eq=False)
class Board:
    """A document whose nodes are known by number."""

    document: Document
    writers: frozenset[int]
    appenders: frozenset[int]
    readers: frozenset[int]

    @property
    def contributors(self) -> frozenset[int]:
        """All who write or add."""
        return self.writers | self.appenders

    def waits(self) -> Iterator[tuple[int, list[int]]]:
        """Yield who waits, and for whom: in the order write, add, read and write, read."""
        both = self.readers & self.contributors
        ranks = [self.writers - both, self.appenders - both, both, self.readers - both]
        before: list[int] = []
        for rank in map(sorted, ranks):
            for node in rank:
                yield node, list(before)
                if rank == sorted(both) and self.document.chain:
                    before.append(node)
            before += [node for node in rank if node not in before]

    def describe(self, names: Sequence[str]) -> str:
        """Return it in words, for the shape of a tree."""
        roles = {"write": self.writers, "add": self.appenders, "read": self.readers}
        says = [
            f"{', '.join(names[node] for node in sorted(nodes))} {role}"
            for role, nodes in roles.items()
            if nodes
        ]
        document = self.document
        kept = "" if document.key is None else f", kept in {document.key!r}"
        begins = "" if document.initial is None else f", at first {document.initial!r}"
        chained = "" if document.chain else ", side by side"
        return f"document {document.name}: {'; '.join(says)}{kept}{begins}{chained}"


def infer_links(
    size: int, links: Sequence[Link], loops: Sequence[Loop], boards: Iterable[Board]
) -> list[Link]:
    """Return the links that follow from who writes and who reads, beside those there are.

    None between two that are ordered already; none that would close a cycle, where the body of a
    loop counts as one: what leaves it waits until the loop is over.
    """
    inferred: list[Link] = []
    group = _groups(size, loops)
    follow: list[list[int]] = [[] for _ in range(size)]
    precede: list[list[int]] = [[] for _ in range(size)]
    around: list[list[int]] = [[] for _ in range(size + len(loops))]  # between groups
    for link in links:
        _connect(link.source, link.target, follow, precede, around, group)
    for board in boards:
        for target, sources in board.waits():
            if not sources:
                continue
            # What is inferred for the target adds nothing to what comes after it: one look.
            after, before = reached(follow, [target]), reached(precede, [target])
            later = reached(around, [group[target]])
            # The last ones first: those before them are then ordered already.
            for source in reversed(sources):
                is_apart = group[source] != group[target]
                if source in after or source in before or (is_apart and group[source] in later):
                    continue
                before |= reached(precede, [source])
                _connect(source, target, follow, precede, around, group)
                number = len(links) + len(inferred)
                inferred.append(Link(number, source, target, feeds=False, inferred=True))
    return inferred


def _groups(size: int, loops: Iterable[Loop]) -> list[int]:
    """Return for each node the outermost loop around it, as a number of its own, or itself."""
    group = list(range(size))
    for loop in sorted(loops, key=lambda loop: len(loop.body)):
        for node in loop.body:
            group[node] = size + loop.number
    return group


def _connect(  # noqa: PLR0917  # two nodes, and all that knows them
    source: int,
    target: int,
    follow: list[list[int]],
    precede: list[list[int]],
    around: list[list[int]],
    group: Sequence[int],
) -> None:
    follow[source].append(target)
    precede[target].append(source)
    if group[source] != group[target]:
        around[group[source]].append(group[target])


@attrs.frozen(order=True)
class _Contribution:
    """What one activation of a node has written.

    In the order in which they count: by how many activations each comes after, then by
    declaration. Both follow from the edges; and what comes after another counts after it.
    """

    after: int
    node: int
    position: int = attrs.field(order=False)
    replaces: bool = attrs.field(order=False)
    text: str = attrs.field(order=False)


class SharedText:
    """A document while its graph runs."""

    def __init__(self, board: Board, initial: str) -> None:
        """Begin with ``initial``."""
        self.board = board
        self._initial = initial
        self._written: list[_Contribution] = []

    def write(self, node: int, position: int, after: int, output: Any) -> None:
        """Take what ``node`` has put out, if it is to write that; see `Start` for the others."""
        if node not in self.board.contributors:
            return
        text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
        if output is not None and text:
            replaces = node in self.board.writers
            one = _Contribution(after.bit_count(), node, position, replaces, text)
            insort(self._written, one)

    def text(self, before: int | None = None) -> str:
        """Return what it holds for an activation that comes after those ``before``, in bits.

        Without them: what it holds when all have ended.
        """
        seen = [one for one in self._written if before is None or before >> one.position & 1]
        last = max((place for place, one in enumerate(seen) if one.replaces), default=None)
        texts = [self._initial] if last is None else []
        texts += [one.text for one in seen[last or 0 :]]
        kept = [text for text in texts if text.strip()]
        return "\n\n".join([*(text.rstrip() for text in kept[:-1]), *kept[-1:]])
