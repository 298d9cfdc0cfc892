"""What a graph is: nodes and links by number, loops, and the ways out of each node.

`Definition` is what has been found in order. What is wrong with what was written is collected by
`parallel_agent.graph.reading` and `parallel_agent.graph.checking`, and told in one error.

Numbers are given in the order of declaration, and so decide wherever an order is needed.

Pure: no event loop, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs

from parallel_agent.agent import Agent
from parallel_agent.graph.routes import Route

__all__ = ["Definition", "Link", "Loop", "define", "reached"]


@attrs.define(eq=False)
class Link:
    """From one node to another.

    Attributes:
        number: its own.
        source: the node it leaves.
        target: the node it leads to.
        feeds: the target is given the source's output.
        label: when it is taken, in a few words; empty if always.
        inferred: nobody has written it; it follows from who writes and who reads a document.
        gates: the loops that must be over before it counts, because it leaves their bodies.
    """

    number: int
    source: int
    target: int
    feeds: bool = True
    label: str = ""
    inferred: bool = False
    gates: tuple[Loop, ...] = ()


@attrs.define(eq=False)
class Loop:
    """A link that leads back, and the nodes that run again when it is taken.

    Attributes:
        number: its own.
        link: the link, which is not among those that lead forward.
        max_times: how often it can be taken.
        body: the nodes on the ways from its target to its source, both included, in order.
        inner: the loops whose bodies lie inside this one's.
    """

    number: int
    link: Link
    max_times: int
    body: tuple[int, ...] = ()
    inner: tuple[Loop, ...] = ()


@attrs.frozen(eq=False)
class Definition:
    """A graph that has been checked.

    Attributes:
        nodes: the agents, in the order of declaration.
        links: those that lead forward, by number.
        loops: those that lead back.
        outgoing: for each node, the links that leave it.
        incoming: for each node, the links that lead to it.
        routes: for each node, which of its ways out an output takes.
        back: for each node, the loops whose link leaves it.
        returning: for each node, the loops whose link leads to it.
        boards: the documents the nodes share.
    """

    nodes: tuple[Agent, ...]
    links: tuple[Link, ...]
    loops: tuple[Loop, ...]
    outgoing: tuple[tuple[Link, ...], ...]
    incoming: tuple[tuple[Link, ...], ...]
    routes: tuple[Route, ...]
    back: tuple[tuple[Loop, ...], ...]
    returning: tuple[tuple[Loop, ...], ...]
    boards: tuple[Any, ...] = ()
    _takes: dict[int, str] = attrs.field(factory=dict[int, str], repr=False)

    def feeding(self, node: int) -> list[Link]:
        """Return the links that lead forward to a node and bring an output."""
        return [link for link in self.incoming[node] if link.feeds]

    def takes(self, node: int, find_out: Callable[[], str]) -> Any:
        """Return how a node takes what feeds it; found out once, when it is first asked."""
        if node not in self._takes:
            self._takes[node] = find_out()
        return self._takes[node]

    @property
    def sinks(self) -> list[int]:
        """The nodes whose output goes to no other node: it is the graph's own."""
        read = self._read_by_others() if self.boards else ()
        return [
            node
            for node, links in enumerate(self.outgoing)
            if node not in read and not any(link.feeds for link in links)
        ]

    def _read_by_others(self) -> set[int]:
        """Return the nodes that write a document which a node after them reads."""
        precede = [[link.source for link in links] for links in self.incoming]
        read = set[int]()
        for board in self.boards:
            readers: frozenset[int] = board.readers
            before = {source for reader in readers for source in precede[reader]}
            read |= board.contributors & reached(precede, before)
        return read

    def describe(self) -> list[str]:
        """Return a line for each link, in words: what must not change while a run is resumed."""
        links = [self._line(link) for link in self.links]
        loops = [self._line(loop.link, f"up to {loop.max_times} times") for loop in self.loops]
        names = [agent.name for agent in self.nodes]
        return [*links, *loops, *(board.describe(names) for board in self.boards)]

    def _line(self, link: Link, more: str = "") -> str:
        kind = "->" if link.feeds else "before"
        names = f"{self.nodes[link.source].name} {kind} {self.nodes[link.target].name}"
        return " ".join(filter(None, [names, link.label, more]))


def define(
    nodes: Iterable[Agent],
    links: Iterable[Link],
    loops: Iterable[Loop],
    routes: Iterable[Route],
    boards: Iterable[Any] = (),
) -> Definition:
    """Put a definition together; where the links belong follows from them."""
    nodes, links, loops = tuple(nodes), tuple(links), tuple(loops)
    outgoing: list[list[Link]] = [[] for _ in nodes]
    incoming: list[list[Link]] = [[] for _ in nodes]
    back: list[list[Loop]] = [[] for _ in nodes]
    for link in links:
        outgoing[link.source].append(link)
        incoming[link.target].append(link)
    returning: list[list[Loop]] = [[] for _ in nodes]
    for loop in loops:
        back[loop.link.source].append(loop)
        returning[loop.link.target].append(loop)
    return Definition(
        nodes,
        links,
        loops,
        _frozen(outgoing),
        _frozen(incoming),
        tuple(routes),
        _frozen(back),
        _frozen(returning),
        tuple(boards),
    )


def reached(follow: Sequence[Sequence[int]], start: Iterable[int]) -> set[int]:
    """Return the nodes that can be reached from ``start``, those included."""
    line = list(start)
    seen = set(line)
    for node in line:
        for other in follow[node]:
            if other not in seen:
                seen.add(other)
                line.append(other)
    return seen


def _frozen(lists: list[list[Any]]) -> tuple[tuple[Any, ...], ...]:
    return tuple(map(tuple, lists))
