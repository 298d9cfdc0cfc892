"""A tree of agents as text: one line for each, with rails that show what stands below what.

Pure: no event loop, no clock. Nothing here recurses: a tree may be thousands deep.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from parallel_agent.agent import Agent
from parallel_agent.function_agent import FunctionAgent
from parallel_agent.observe.harmless import one_line
from parallel_agent.workflow.graph import GraphAgent
from parallel_agent.workflow.loop import LoopAgent
from parallel_agent.workflow.map import MapAgent
from parallel_agent.workflow.parallel import ParallelAgent
from parallel_agent.workflow.sequential import SequentialAgent

__all__ = ["MAX_RAILS", "kind_of", "outline", "rails"]

MAX_RAILS: Final = 12
"""How many levels are drawn before a name; of those further out, only the number is."""


def outline(tree: Agent, *, ascii_only: bool = False) -> str:
    """Return the agents of ``tree``, a line each: name, kind, output key and description.

    ``ascii_only`` draws the rails with characters that every terminal has. Lines are not cut.
    """
    lines = list(_lines(tree, ascii_only=ascii_only))
    # Names that stand far out would push everything else to the right.
    width = max((len(line.left) for line in lines if len(line.left) <= _WIDE), default=0)
    return "\n".join(f"{line.left:{width}}  {line.right}".rstrip() for line in lines)


def kind_of(agent: Agent) -> str:
    """Return in a word or two what ``agent`` is; for a class of somebody's own, its name."""
    match agent:
        case SequentialAgent():
            return "sequential"
        case ParallelAgent():
            return "parallel"
        case LoopAgent(max_iterations=None):
            return "loop"
        case LoopAgent(max_iterations=most):
            return f"loop, at most {most}"
        case GraphAgent():
            return "graph"
        case MapAgent(items_key=None):
            return "map"
        case MapAgent(items_key=key):
            return f"map over {one_line(str(key))}"
        case FunctionAgent():
            return "function"
        case _:
            return one_line(type(agent).__name__)


def rails(last: Sequence[bool], *, ascii_only: bool = False, outside: int = 0) -> str:
    """Return what stands before a name.

    ``last`` says for each level from the outermost to the name's own whether it is the last one
    there. ``outside`` levels further out are left out already; of the others `MAX_RAILS` are drawn.
    """
    through, gap, tee, end = _ASCII if ascii_only else _UNICODE
    outside += max(0, len(last) - MAX_RAILS)
    drawn = last[-MAX_RAILS:]
    if not drawn:
        return ""
    head = f"({outside} more) " if outside else ""
    above = "".join(gap if is_last else through for is_last in drawn[:-1])
    return f"{head}{above}{end if drawn[-1] else tee}"


_UNICODE: Final = ("│   ", "    ", "├── ", "└── ")
_ASCII: Final = ("|   ", "    ", "|-- ", "`-- ")
_WIDE: Final = 48


@attrs.frozen
class _Line:
    left: str
    right: str


def _lines(tree: Agent, *, ascii_only: bool) -> Iterator[_Line]:
    # Each with the newest levels of its place, and how many there are outside those.
    todo: list[tuple[Agent, tuple[bool, ...], int]] = [(tree, (), 0)]
    while todo:
        agent, last, outside = todo.pop()
        left = rails(last, ascii_only=ascii_only, outside=outside)
        yield _Line(f"{left}{one_line(agent.name)}", _facts(agent))
        if len(last) == MAX_RAILS:
            last, outside = last[1:], outside + 1
        for position, child in enumerate(reversed(agent.sub_agents)):
            todo.append((child, (*last, position == 0), outside))


def _facts(agent: Agent) -> str:
    key = f" -> {one_line(agent.output_key)}" if agent.output_key else ""
    description = f": {one_line(agent.description)}" if agent.description else ""
    return f"{kind_of(agent)}{key}{description}"
