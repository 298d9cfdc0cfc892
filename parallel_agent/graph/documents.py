"""Documents that the nodes of a graph share: who writes, who adds, who reads.

What a document holds for a reader follows from the edges, not from the clock: what was written by
the nodes that had to end before the reader could start, in an order that they alone decide.

Pure: no event loop, no clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs

from parallel_agent.graph.definition import Link, reached
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
        return f"document {self.document.name}: {'; '.join(says)}"


def infer_links(size: int, links: Sequence[Link], boards: Iterable[Board]) -> list[Link]:
    """Return the links that follow from who writes and who reads, beside those there are.

    None between two that are ordered already, and so none that would close a cycle.
    """
    inferred: list[Link] = []
    follow: list[list[int]] = [[] for _ in range(size)]
    precede: list[list[int]] = [[] for _ in range(size)]
    for link in links:
        follow[link.source].append(link.target)
        precede[link.target].append(link.source)
    for board in boards:
        for target, sources in board.waits():
            if not sources:
                continue
            # What is inferred for the target adds nothing to what comes after it: one look.
            after, before = reached(follow, [target]), reached(precede, [target])
            # The last ones first: those before them are then ordered already.
            for source in reversed(sources):
                if source in after or source in before:
                    continue
                before |= reached(precede, [source])
                follow[source].append(target)
                precede[target].append(source)
                number = len(links) + len(inferred)
                inferred.append(Link(number, source, target, feeds=False, inferred=True))
    return inferred


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
            self._written.append(one)

    def text(self, before: int | None = None) -> str:
        """Return what it holds for an activation that comes after those ``before``, in bits.

        Without them: what it holds when all have ended.
        """
        text = self._initial
        for one in sorted(self._written):
            if before is not None and not before >> one.position & 1:
                continue
            if one.replaces or not text.strip():
                text = one.text
            else:
                text = f"{text.rstrip()}\n\n{one.text}"
        return text
