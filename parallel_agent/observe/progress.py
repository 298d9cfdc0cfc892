"""How a run stands, agent by agent, and which of its agents fit on so many lines.

A `Progress` is told what happens and answers with `Row` objects; what they look like is
`parallel_agent.observe.live`'s to say. There is a `Node` for every agent of the tree, whether it
has started or not, and one for every agent started at run time. What a loop runs again and again
is one node that counts.

Pure: no event loop, no clock; whoever tells says when. Not for two threads at once.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Final

import attrs

from parallel_agent.agent import Agent
from parallel_agent.lifecycle import Status
from parallel_agent.observe.harmless import one_line
from parallel_agent.observe.outline import kind_of

__all__ = ["Node", "Picture", "Progress", "Row", "names"]

KEPT: Final[Mapping[Status, int]] = {
    Status.COMPLETED: 8,
    Status.CANCELLED: 8,
    Status.FAILED: 32,
    Status.WAITING: 32,
}
"""How many children started at run time a node keeps, of each ending. The others are numbers."""

MAX_TEXT: Final = 300


@attrs.define(eq=False)
class Node:
    """One agent, over all its activations. Written by its `Progress` alone.

    Attributes:
        key: its name, numbered if it was started at run time.
        kind: what it is, in a word or two.
        parent: the node above; None for the root.
        ordinal: tells it from its siblings, in order.
        is_static: it stands in the tree; else it was started at run time.
        status: that of its newest activation.
        started: how many activations there have been.
        failed: how many of them have failed.
        events: how many events it has emitted, partial ones not counted.
        text: the last thing it said, on one line; or its error.
        spent: seconds of the activations that have ended.
        since: when each that runs has started, by path.
        children: the nodes below.
    """

    key: str
    kind: str
    parent: Node | None
    ordinal: int
    is_static: bool
    status: Status = Status.PENDING
    started: int = 0
    failed: int = 0
    events: int = 0
    text: str = ""
    spent: float = 0.0
    since: dict[str, float] = attrs.Factory(dict[str, float])
    children: dict[str, Node] = attrs.Factory(dict[str, "Node"])
    _streamed: str = ""
    _next_ordinal: int = 0
    _ended: dict[Status, deque[str]] = attrs.Factory(dict[Status, "deque[str]"])

    @property
    def name(self) -> str:
        """Its key, fit to print."""
        return one_line(self.key)

    def elapsed(self, now: float) -> float:
        """Return for how many seconds it has run, all its activations together."""
        return self.spent + sum(max(0.0, now - since) for since in self.since.values())

    def add(self, key: str, agent: Agent, *, is_static: bool) -> Node:
        """Add a node for ``agent`` below this one; not yet for what stands below ``agent``."""
        node = Node(key, kind_of(agent), self, self._next_ordinal, is_static)
        self._next_ordinal += 1
        self.children[key] = node
        return node

    def add_below(self, agent: Agent) -> None:
        """Add nodes for everything that stands below ``agent``, whose node this is."""
        todo: list[tuple[Node, Agent]] = [(self, agent)]
        for above, parent in todo:
            todo += [
                (above.add(child.name, child, is_static=True), child) for child in parent.sub_agents
            ]

    def say(self, text: str, *, partial: bool) -> None:
        """Note an event."""
        if not partial:
            self.events += 1
            self._streamed = ""
            self.text = one_line(text, MAX_TEXT) or self.text
        elif text:
            # The line that is being written: its beginning has scrolled away.
            self._streamed = (self._streamed + text)[-MAX_TEXT:]
            self.text = one_line(self._streamed.rstrip().rpartition("\n")[2]) or self.text

    def forget_child(self, child: Node) -> Node | None:
        """Note that a child started at run time has ended; take out one that need not be kept."""
        ended = self._ended.setdefault(child.status, deque())
        ended.append(child.key)
        if len(ended) <= KEPT.get(child.status, 0):
            return None
        oldest = self.children.get(ended.popleft())
        if oldest is None or oldest.since or oldest.status is not child.status:
            return None  # started again since then, below another activation of this node
        return self.children.pop(oldest.key)

    def below(self) -> Iterator[Node]:
        """Yield this node and every one below, in the order of an outline."""
        todo: list[Node] = [self]
        while todo:
            node = todo.pop()
            yield node
            todo += reversed(node.children.values())


@attrs.frozen(eq=False)
class Row:
    """A node to show, and where.

    Attributes:
        node: what to show.
        last: for each level from the outermost shown to its own, whether it is the last one there.
        is_apart: agents between it and the row it hangs on are not shown.
    """

    node: Node
    last: tuple[bool, ...]
    is_apart: bool


@attrs.frozen(eq=False)
class Picture:
    """The rows that fit, and how many nodes of each status are not among them."""

    rows: tuple[Row, ...]
    hidden: Mapping[Status, int]


class Progress:
    """How one run stands.

    Args:
        tree: the root agent; everything below it is pending.
        now: when the run began.

    Attributes:
        root: the root agent's node.
        counts: how many nodes there are, or have been, of each status.
        events: how many events have been emitted.
        status: the run's own.
        cancelling: why it is being cancelled, as soon as it is.
    """

    def __init__(self, tree: Agent, *, now: float) -> None:
        """See the class."""
        self.root = Node(tree.name, kind_of(tree), None, 0, is_static=True)
        self.root.add_below(tree)
        self.counts: Counter[Status] = Counter({Status.PENDING: sum(1 for _ in self.root.below())})
        self.events = 0
        self.status = Status.RUNNING
        self.cancelling = ""
        self._began = now
        self._ended: float | None = None
        self._size = self.counts.total()
        # Both in order: of starting, of failing. Paths only of what runs, so nothing piles up.
        self._running: dict[str, Node] = {}
        self._failed: dict[Node, None] = {}

    # What happens.

    def started(self, path: str, agent: Agent, *, now: float) -> None:
        """Note that the activation at ``path`` has started; another attempt of it is no other."""
        path = _without_attempts(path)
        if path in self._running:
            return
        node = self._find(path, agent)
        self._running[path] = node
        node.since[path] = now
        node.started += 1
        self._move(node, Status.RUNNING)

    def said(
        self, path: str, agent: Agent, text: str, *, now: float, partial: bool = False
    ) -> None:
        """Note that the activation at ``path`` emits an event; that it runs, if that is news."""
        path = _without_attempts(path)
        self.started(path, agent, now=now)
        self._running[path].say(text, partial=partial)
        self.events += not partial

    def ended(self, path: str, agent: Agent, status: Status, *, now: float, why: str = "") -> None:
        """Note that the activation at ``path`` has ended; ``why`` says how it failed."""
        path = _without_attempts(path)
        self.started(path, agent, now=now)
        node = self._running.pop(path)
        node.spent += max(0.0, now - node.since.pop(path))
        node.text = one_line(why, MAX_TEXT) or node.text
        node.failed += status is Status.FAILED
        if not node.since:
            self._move(node, status)
            above = node.parent
            if above is not None and not node.is_static:
                old = above.forget_child(node)
                if old is not None:
                    self._forget(old)

    def cancel(self, why: str) -> None:
        """Note that the run is being cancelled; the first reason counts."""
        self.cancelling = self.cancelling or one_line(why)

    def finish(self, status: Status, *, now: float) -> None:
        """Note that the run has ended."""
        self.status = status
        self._ended = now

    def _move(self, node: Node, status: Status) -> None:
        self.counts[node.status] -= 1
        self.counts[status] += 1
        node.status = status
        if status is Status.FAILED:
            self._failed[node] = None
        else:
            self._failed.pop(node, None)

    def _forget(self, top: Node) -> None:
        for node in top.below():
            self._size -= 1
            self._failed.pop(node, None)

    def _find(self, path: str, agent: Agent) -> Node:
        above, _, segment = path.rpartition("/")
        if not above:
            return self.root
        parent = self._running.get(above) or self._reach(above)
        return self._child(parent, segment, agent)

    def _reach(self, path: str) -> Node:
        """Return the node of an activation that nobody has told of."""
        node = self.root
        for segment in path.split("/")[1:]:
            name = segment.partition("@")[0]
            below = node.children.get(name) or node.children.get(segment)
            if below is None:
                break  # as near as we know
            node = below
        return node

    def _child(self, parent: Node, segment: str, agent: Agent) -> Node:
        # `writer@2` is the second time of the `writer` that stands there, or else the second agent
        # of that name that was started at run time. A plain name has no "@".
        known = parent.children.get(segment.partition("@")[0]) or parent.children.get(segment)
        if known is not None:
            return known
        child = parent.add(segment, agent, is_static=False)
        child.add_below(agent)
        added = sum(1 for _ in child.below())
        self.counts[Status.PENDING] += added
        self._size += added
        return child

    # How it stands.

    def elapsed(self, now: float) -> float:
        """Return for how many seconds the run has gone on."""
        return max(0.0, (now if self._ended is None else self._ended) - self._began)

    def working(self) -> list[str]:
        """Return the paths of the agents at work that wait for no agent below them, sorted."""
        waiting = self._waiting_below()
        return sorted(path for path, node in self._running.items() if node not in waiting)

    def _waiting_below(self) -> set[Node]:
        """Return the nodes with an agent at work somewhere below them."""
        found = set[Node]()
        for node in self._running.values():
            above = node.parent
            while above is not None and above not in found:
                found.add(above)
                above = above.parent
        return found

    def fit(self, lines: int) -> Picture:
        """Choose what to show on at most ``lines`` lines, one of them for what is hidden.

        Everything, if it fits. Else what has failed and what is at work, then what stands above
        that, then the rest from the top, each as far as there is room.
        """
        forgotten = self.counts.total() - self._size
        if self._size + (forgotten > 0) <= lines:
            shown = dict.fromkeys(self.root.below())
        else:
            shown = self._choose(lines - 1)
        hidden = self.counts.copy()
        hidden.subtract(node.status for node in shown)
        return Picture(tuple(_arrange(self.root, shown)), +hidden)

    def _choose(self, room: int) -> dict[Node, None]:
        shown: dict[Node, None] = {}
        _show(self.root, shown, room)
        waiting = self._waiting_below()
        vital = dict.fromkeys(self._failed)
        vital.update((node, None) for node in self._running.values() if node not in waiting)
        first = list(vital)
        if len(vital) < room:
            shown.update(vital)
            first = [node.parent for node in vital if node.parent is not None]
        # Else too many: those that are shown are better understood with what stands above them.
        for node in chain(first, self.root.below()):
            if len(shown) >= room:
                break
            _show(node, shown, room)
        return shown


def _without_attempts(path: str) -> str:
    # Only the last attempt ends, and the one before it is not to be at work for ever.
    return _ATTEMPT.sub("", path) if "~" in path else path


_ATTEMPT: Final = re.compile(r"~\d+(?=/|\Z)")


def names(paths: list[str], limit: int = 5) -> str:
    """Return the first few paths, and how many there are besides."""
    shown = ", ".join(one_line(path) for path in paths[:limit])
    return f"{shown} and {len(paths) - limit} more" if len(paths) > limit else shown


def _show(node: Node, shown: dict[Node, None], room: int) -> None:
    """Add ``node`` and what stands above it; if there is no room for all that, ``node`` alone."""
    line = list[Node]()
    at: Node | None = node
    while at is not None and at not in shown:
        line.append(at)
        if len(shown) + len(line) > room:
            line = [node]
            break
        at = at.parent
    if len(shown) + len(line) <= room:
        shown.update(dict.fromkeys(reversed(line)))


def _arrange(root: Node, shown: Mapping[Node, None]) -> list[Row]:
    """Put the nodes to show in order, each below the nearest shown one above it."""
    if root not in shown:
        return []
    # From each node on the way to one that is shown, the next nodes of that way.
    ways: dict[Node, dict[Node, None]] = {}
    for at in shown:
        node = at
        while node.parent is not None:
            is_known = node.parent in ways
            ways.setdefault(node.parent, {})[node] = None
            if is_known:
                break
            node = node.parent
    found: list[tuple[Node, Node | None, bool]] = []
    last_below: dict[Node | None, Node] = {}
    todo: list[tuple[Node, Node | None, bool]] = [(root, None, False)]
    while todo:
        node, above, is_apart = todo.pop()
        is_shown = node in shown
        if is_shown:
            found.append((node, above, is_apart))
            last_below[above] = node
        below = sorted(ways.get(node, ()), key=lambda child: child.ordinal, reverse=True)
        todo += [(child, node if is_shown else above, not is_shown) for child in below]
    places: dict[Node, tuple[bool, ...]] = {root: ()}
    rows = [Row(root, (), is_apart=False)]
    for node, above, is_apart in found[1:]:
        assert above is not None  # noqa: S101  # for type checkers: the root is shown, and first
        places[node] = (*places[above], last_below[above] is node)
        rows.append(Row(node, places[node], is_apart))
    return rows
