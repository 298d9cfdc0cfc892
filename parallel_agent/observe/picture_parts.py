"""What a picture of a tree consists of, in no language yet: boxes inside boxes, and arrows.

Pure: no event loop, no clock. Nothing here recurses: a tree may be thousands deep.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, Literal, TypeAlias

import attrs

from parallel_agent.agent import Agent
from parallel_agent.graph.definition import Link
from parallel_agent.observe.harmless import one_line
from parallel_agent.observe.outline import kind_of
from parallel_agent.observe.picture_status import Stand
from parallel_agent.workflow.graph import GraphAgent
from parallel_agent.workflow.loop import LoopAgent
from parallel_agent.workflow.map import MapAgent
from parallel_agent.workflow.parallel import ParallelAgent
from parallel_agent.workflow.sequential import SequentialAgent

__all__ = ["SHORT", "Arrow", "Box", "Drawing", "Shape", "drawing_of", "is_group", "mark", "title"]

SHORT: Final = 40
"""A description that is no longer than that is written below the name."""

Shape: TypeAlias = Literal["agent", "guard", "fork", "join", "open", "close"]
"""What a box is: an agent, a guard, a mark where ways part or meet, or an end of a group."""


@attrs.frozen
class Box:
    """One step in drawing the boxes: a box, or the beginning or the end of one with others in it.

    Attributes:
        key: names it; the name of its agent, or that and a dot and what it is.
        shape: what it is.
        agent: whose it is.
        depth: how many groups are around it.
    """

    key: str
    shape: Shape
    agent: Agent
    depth: int


@attrs.frozen
class Arrow:
    """From one box or group to another, by their keys.

    Attributes:
        source: where it begins.
        target: where it ends.
        label: what is written on it.
        is_thin: it only orders, and brings nothing.
        is_dotted: nobody has written it.
        is_back: it leads back.
    """

    source: str
    target: str
    label: str = ""
    is_thin: bool = False
    is_dotted: bool = False
    is_back: bool = False


@attrs.frozen
class Drawing:
    """A picture.

    Attributes:
        boxes: in the order to draw them in.
        arrows: from and to the boxes.
        ends: of each group, the first and the last box in it.
    """

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    ends: dict[str, tuple[str, str]]


def is_group(agent: Agent) -> bool:
    """Return whether there are boxes in its box."""
    return bool(agent.sub_agents)


def drawing_of(tree: Agent) -> Drawing:
    """Return the boxes of all agents of a tree, each once, and the arrows between them."""
    boxes = tuple(_boxes(tree))
    agents = [box.agent for box in boxes if box.shape in ("agent", "guard", "open")]
    arrows = tuple(arrow for agent in agents for arrow in _arrows(agent))
    ends: dict[str, tuple[str, str]] = {}
    for agent in reversed(agents):  # what stands below comes first
        if isinstance(agent, ParallelAgent) and is_group(agent):
            ends[agent.name] = (_fork(agent), _join(agent))
        elif is_group(agent):
            first, last = agent.sub_agents[0].name, _last(agent).name
            ends[agent.name] = (ends.get(first, (first,))[0], ends.get(last, (last,))[-1])
    return Drawing(boxes, arrows, ends)


def _last(agent: Agent) -> Agent:
    if isinstance(agent, GraphAgent) and agent.definition.sinks:
        return agent.definition.nodes[agent.definition.sinks[-1]]
    return agent.sub_agents[-1]


def _boxes(tree: Agent) -> Iterator[Box]:
    todo = [Box(tree.name, "agent", tree, 0)]
    while todo:
        box = todo.pop()
        agent, inside = box.agent, box.depth + 1
        if box.shape not in ("agent", "guard") or not is_group(agent):
            yield box
            continue
        yield attrs.evolve(box, shape="open")
        guards = agent.guards if isinstance(agent, GraphAgent) else ()
        below = [
            Box(child.name, "guard" if number < len(guards) else "agent", child, inside)
            for number, child in enumerate(agent.sub_agents)
        ]
        if isinstance(agent, ParallelAgent):
            below.insert(0, Box(_fork(agent), "fork", agent, inside))
            below.append(Box(_join(agent), "join", agent, inside))
        todo.append(attrs.evolve(box, shape="close"))
        todo += reversed(below)


# A dot, because no name has one.


def _fork(agent: Agent) -> str:
    return f"{agent.name}.fork"


def _join(agent: Agent) -> str:
    return f"{agent.name}.join"


def _arrows(agent: Agent) -> Iterator[Arrow]:
    """Yield the arrows between what stands directly below an agent."""
    children = agent.sub_agents
    match agent:
        case SequentialAgent() | LoopAgent():
            for before, after in pairwise(children):
                yield Arrow(before.name, after.name)
            if isinstance(agent, LoopAgent) and children:
                label = _times(agent.max_iterations)
                yield Arrow(children[-1].name, children[0].name, label, is_back=True)
        case ParallelAgent():
            for child in children:
                yield Arrow(_fork(agent), child.name)
                yield Arrow(child.name, _join(agent))
        case GraphAgent():
            yield from _graph_arrows(agent)
        case _:
            pass  # nobody knows when an agent of somebody's own starts which


def _graph_arrows(graph: GraphAgent) -> Iterator[Arrow]:
    definition = graph.definition
    names = [node.name for node in definition.nodes]
    for before, after in pairwise(graph.guards):
        yield Arrow(before.name, after.name)
    if graph.guards:
        last = graph.guards[-1].name
        for node, incoming in enumerate(definition.incoming):
            if not incoming:
                yield Arrow(last, names[node])
    for link in definition.links:
        yield _arrow(link, names, link.label)
    for loop in definition.loops:
        label = ", ".join(filter(None, [loop.link.label, _times(loop.max_times)]))
        yield _arrow(loop.link, names, label, is_back=True)


def _arrow(link: Link, names: Sequence[str], label: str, *, is_back: bool = False) -> Arrow:
    return Arrow(
        names[link.source],
        names[link.target],
        one_line(label),
        is_thin=not link.feeds,
        is_dotted=link.inferred,
        is_back=is_back,
    )


def _times(most: int | None) -> str:
    if most is None:
        return "again"
    return "up to 1 time" if most == 1 else f"up to {most} times"


# What is written on a box.


def title(agent: Agent) -> str:
    """Return the name of an agent, and what it is, if there is something in its box."""
    name = one_line(agent.name)
    if not is_group(agent):
        return name
    if isinstance(agent, MapAgent):
        where = "" if agent.items_key is None else f" of {one_line(agent.items_key)!r}"
        return f"{name} (for each item{where})"
    return f"{name} ({kind_of(agent)})"


def mark(stand: Stand) -> tuple[str, str]:
    """Return the class of what an agent came to, and the same in words."""
    kind = "skipped" if stand.skipped else str(stand.status)
    words = f"{_SYMBOLS[kind]} {'not started' if kind == 'pending' else kind}"
    if stand.started > 1:
        words += f" x{stand.started:,}"
    return kind, ", ".join(filter(None, [words, stand.note]))


_SYMBOLS: Final = {
    "pending": "·",
    "running": "●",
    "completed": "✓",
    "failed": "✗",
    "cancelled": "⊘",
    "waiting": "?",
    "skipped": "–",  # noqa: RUF001  # a dash, for what is left out
}
