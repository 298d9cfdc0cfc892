"""What of a graph starts when: the decisions, without anybody who carries them out.

A node is *settled* when it has run or is known not to run. Each of its links is then *decided*:
taken or not. When all links to a node are decided, it is *ready*, if one that feeds it was taken
or if none is to feed it; otherwise it is *skipped*, which settles it. So every node is settled
exactly once, however long the ways to it are, and a join starts exactly once, with what came.

A loop that is taken unsettles its body: those nodes run again, the first of them with what the
last one has put out. Links that leave the body count when the loop is over, with what its last
round has put out: nothing outside runs more than once for it. (Otherwise a join behind it would
have to guess how many rounds there will be.)

Pure: no event loop, no clock. A step per link, and per round one for each node in the body.
"""

from __future__ import annotations

from typing import Any

import attrs

from parallel_agent.errors import RouteError
from parallel_agent.graph.definition import Definition, Link, Loop
from parallel_agent.graph.routes import Said

__all__ = ["Progress", "Start"]


@attrs.frozen
class Start:
    """A node that is to start.

    Attributes:
        node: its number.
        round: how often it has started, with this time.
        links: the links that feed it, in the order of declaration; one that has led back is the
            last.
        outputs: what they bring.
        after: the activations that had to end before it could start, a bit for the position of
            each.
        position: its own, in the order in which nodes became ready.
    """

    node: int
    round: int
    links: tuple[Link, ...]
    outputs: tuple[Any, ...]
    after: int
    position: int


class Progress:
    """How far one run of a graph has got.

    Attributes:
        outputs: the output of each node that has completed, in its newest round.
        skipped: the nodes that were not run, because no link to them was taken.
    """

    def __init__(self, definition: Definition) -> None:
        """Begin: the nodes that wait for nothing are ready."""
        self.definition = definition
        self.outputs: dict[int, Any] = {}
        self.skipped: set[int] = set()
        size = len(definition.nodes)
        self._undecided = [len(links) for links in definition.incoming]
        self._fed: list[list[Link]] = [[] for _ in range(size)]
        self._fed_back: dict[int, Link] = {}  # by a loop, and before that by what leads forward
        self._is_fed = [any(link.feeds for link in links) for links in definition.incoming]
        self._after = [0] * size  # what a node comes after: itself not included
        self._rounds = [0] * size
        self._positions = [-1] * size  # of the newest activation of each node
        self._started = 0
        self._times: dict[int, int] = {}  # by loop
        self._open = {loop.number for loop in definition.loops}
        self._held: dict[int, list[tuple[Link, bool]]] = {}  # by loop
        self._ready = [node for node in range(size) if not self._undecided[node]]

    def ready(self) -> list[Start]:
        """Return, once, the nodes that have become ready, in the order of declaration."""
        nodes, self._ready = sorted(self._ready), []
        return [self._start(node) for node in nodes]

    def _start(self, node: int) -> Start:
        self._rounds[node] += 1
        self._positions[node] = self._started
        self._started += 1
        links = sorted(self._fed[node], key=lambda link: link.number)
        if node in self._fed_back:
            links.append(self._fed_back[node])
        outputs = tuple(self.outputs[link.source] for link in links)
        after, position = self._after[node], self._positions[node]
        return Start(node, self._rounds[node], tuple(links), outputs, after, position)

    def completed(self, node: int, said: Said) -> None:
        """Take what a node has said, and the ways out that it chooses.

        Raises:
            RouteError: it chooses what is not there, or two ways back at once. Nothing is
                decided.
            Exception: what a condition raises, as itself.
        """
        definition = self.definition
        loops = definition.back[node]
        spent = {
            loop.link.number for loop in loops if self._times.get(loop.number, 0) >= loop.max_times
        }
        taken = definition.routes[node].taken(said, spent)
        chosen = [loop for loop in loops if loop.link.number in taken]
        if len(chosen) > 1:
            names = [definition.nodes[loop.link.target].name for loop in chosen]
            message = (
                f"the output of node {definition.nodes[node].name!r} leads back to "
                f"{' and to '.join(map(repr, names))} at once; only one of them can run again"
            )
            raise RouteError(message)
        self.outputs[node] = said.output
        if chosen:
            self._go_back(chosen[0])
        else:
            self._settle([(node, taken)])

    def ended(self, node: int) -> None:
        """Settle a node that has not completed: no link of it that feeds is taken."""
        self.outputs.pop(node, None)
        self._settle([(node, set())])

    def _settle(self, settled: list[tuple[int, set[int]]]) -> None:
        # A list that grows, and no recursion: a chain of skipped nodes may be long.
        for node, taken in settled:
            for loop in self.definition.back[node]:
                self._close(loop, settled)
            for link in self.definition.outgoing[node]:
                self._decide(link, link.number in taken, settled)

    def _close(self, loop: Loop, settled: list[tuple[int, set[int]]]) -> None:
        self._open.discard(loop.number)
        for link, taken in self._held.pop(loop.number, ()):
            self._decide(link, taken, settled)

    def _decide(self, link: Link, taken: bool, settled: list[tuple[int, set[int]]]) -> None:  # noqa: FBT001  # one of two
        for loop in link.gates:
            if loop.number in self._open:
                self._held.setdefault(loop.number, []).append((link, taken))
                return
        target = link.target
        if taken:
            self._fed[target].append(link)
        self._after[target] |= self._upto(link.source)
        for loop in link.gates:
            last = loop.link.source
            self._after[target] |= self._upto(last)
        self._undecided[target] -= 1
        if self._undecided[target]:
            return
        if self._fed[target] or not self._is_fed[target]:
            self._ready.append(target)
        else:
            self.skipped.add(target)
            self.outputs.pop(target, None)
            settled.append((target, set()))

    def _upto(self, node: int) -> int:
        """Return what a node comes after, and the node itself."""
        position = self._positions[node]
        return self._after[node] | (1 << position if position >= 0 else 0)

    def _go_back(self, loop: Loop) -> None:
        """Let a loop's body run again."""
        self._times[loop.number] = self._times.get(loop.number, 0) + 1
        first, last = loop.link.target, loop.link.source
        after = self._upto(last)
        body = set(loop.body)
        for inner in loop.inner:
            self._open.add(inner.number)
            self._times.pop(inner.number, None)
            self._held.pop(inner.number, None)
        self._held.pop(loop.number, None)
        for node in loop.body:
            self.skipped.discard(node)
            self._positions[node] = -1
            self._after[node] |= after
            within = [link for link in self.definition.incoming[node] if link.source in body]
            self._undecided[node] = len(within)
            self._fed[node] = [link for link in self._fed[node] if link.source not in body]
            self._fed_back.pop(node, None)
        self._fed_back[first] = loop.link
        self._ready.append(first)
