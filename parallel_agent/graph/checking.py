"""What must hold for a graph to run: no way round without a bound, no join that waits for ever.

Pure: no event loop, no clock. Nothing here recurses: a chain may be ten thousand long. A step per
node and link, and per loop another for each node in its body.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

from parallel_agent.graph.definition import Definition, Link, reached

__all__ = ["check_exits", "check_starts", "find_bodies", "find_cycle"]


def find_cycle(size: int, links: Iterable[Link]) -> list[int]:
    """Return the nodes of one cycle, in order; none if there is no cycle."""
    follow: list[list[int]] = [[] for _ in range(size)]
    waits = [0] * size
    for link in links:
        follow[link.source].append(link.target)
        waits[link.target] += 1
    ready = [node for node in range(size) if not waits[node]]
    for node in ready:
        for target in follow[node]:
            waits[target] -= 1
            if not waits[target]:
                ready.append(target)
    left = {node for node in range(size) if waits[node]}
    if not left:
        return []
    # Against the arrows, each of them has one of them before it: so this comes round.
    before = {target: node for node in left for target in follow[node] if target in left}
    node, seen = min(left), dict[int, None]()
    while node not in seen:
        seen[node] = None
        node = before[node]
    line = list(seen)
    cycle = line[line.index(node) :][::-1]
    first = cycle.index(min(cycle))
    return cycle[first:] + cycle[:first]


def find_bodies(definition: Definition) -> Iterator[str]:
    """Set the bodies, gates and inner loops; yield what is wrong with them.

    Of a definition whose links lead forward without a cycle.
    """
    names = [agent.name for agent in definition.nodes]
    follow = [[link.target for link in links] for links in definition.outgoing]
    precede = [[link.source for link in links] for links in definition.incoming]
    for loop in definition.loops:
        first, last = loop.link.target, loop.link.source
        before = reached(precede, [last])
        body = reached(follow, [first]) & before if first in before else set[int]()
        if not body:
            source, target = names[loop.link.source], names[loop.link.target]
            yield (
                f"the edge from {source!r} to {target!r} has max_times, and closes no cycle: "
                f"nothing leads from {target!r} to {source!r}"
            )
        loop.body = tuple(sorted(body))
    bodies = [frozenset(loop.body) for loop in definition.loops]
    for loop in definition.loops:
        mine = bodies[loop.number]
        loop.inner = tuple(other for other in definition.loops if bodies[other.number] < mine)
    yield from _overlaps(definition, bodies)
    for link in definition.links:
        link.gates = ()
    # The innermost first: what leaves several waits for them in this order.
    for loop in sorted(definition.loops, key=lambda loop: len(loop.body)):
        for node in loop.body:
            for link in definition.outgoing[node]:
                if link.target not in bodies[loop.number]:
                    link.gates = (*link.gates, loop)


def _overlaps(definition: Definition, bodies: Sequence[frozenset[int]]) -> Iterator[str]:
    names = [agent.name for agent in definition.nodes]
    for one, other in combinations(definition.loops, 2):
        mine, its = bodies[one.number], bodies[other.number]
        if mine & its and not (mine <= its or its <= mine):
            yield (
                f"the loops {_arrow(names, one.link)} and {_arrow(names, other.link)} overlap: "
                "one must lie inside the other, or apart from it"
            )


def _arrow(names: Sequence[str], link: Link) -> str:
    return f"{names[link.source]} -> {names[link.target]}"


def check_exits(definition: Definition) -> Iterator[str]:
    """Yield what can never start, because loops wait for each other; and loops without a way on."""
    names = [agent.name for agent in definition.nodes]
    waits = [
        Link(0, loop.link.source, link.target) for link in definition.links for loop in link.gates
    ]
    cycle = find_cycle(len(names), [*definition.links, *waits])
    if cycle:
        held = [
            _arrow(names, loop.link)
            for loop in definition.loops
            if any(link.source in loop.body and link.target in cycle for link in definition.links)
        ]
        yield (
            f"{', '.join(names[node] for node in sorted(cycle))} can never all start: what leaves "
            f"the loops {' and '.join(dict.fromkeys(held))} leads into each other, and waits until "
            "they are over"
        )
    for loop in definition.loops:
        source = loop.link.source
        cases = definition.routes[source].cases
        has_default = any(case.condition is None and case.links[0] >= 0 for case in cases)
        forward = [number for case in cases for number in case.links if number >= 0]
        if forward and not has_default:
            yield (
                f"{_arrow(names, loop.link)} is taken {loop.max_times} times at most, and "
                f"{names[source]!r} may want it once more: give {names[source]!r} an edge with "
                "default=True, which is then taken"
            )


def check_starts(definition: Definition, started: set[int]) -> Iterator[str]:
    """Yield the nodes that nothing leads to, if it is said where the graph starts."""
    if not started:
        return
    for node in sorted(started):
        if definition.feeding(node):
            yield (
                f"{definition.nodes[node].name!r} starts with the graph, and waits for another "
                "node: leave out one of the edges"
            )
    written = [
        [link.target for link in links if not link.inferred] for links in definition.outgoing
    ]
    found = reached(written, sorted(started))
    missing = [agent.name for node, agent in enumerate(definition.nodes) if node not in found]
    if missing:
        yield (
            f"{', '.join(map(repr, missing))} cannot be reached from START; "
            "without START, every node starts at once that no edge leads to"
        )
