"""What users write: edges between nodes, and who is taken when.

Values and no more. What they mean together is for `parallel_agent.graph.definition` to find out.

Pure: no event loop, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs

from parallel_agent.agent import Agent

__all__ = ["ALWAYS", "START", "Edge", "EdgeLike", "NodeRef", "Ordered", "Select", "Switch", "When"]

START: Final = "START"
"""Stands for the start of the graph: ``(START, plan)``. Without it, every node starts at once that
no edge leads to."""

NodeRef: TypeAlias = Agent | str
"""A node: its agent, or the name of an agent that stands elsewhere among the edges or nodes."""

Nodes: TypeAlias = NodeRef | Sequence[NodeRef]

When: TypeAlias = Any
"""A value, a list of values, or a plain function of the output that says yes or no."""

EdgeLike: TypeAlias = "Edge | Switch | Select | Ordered | Sequence[Nodes]"
"""What stands in ``edges=[...]``: one of these classes, or a chain ``(a, [b, c], d)``."""

ALWAYS: Final[Any] = attrs.make_class("Always", [], frozen=True, slots=True)()
"""What ``when`` is of an edge that is taken in any case."""


@attrs.frozen(eq=False)
class Edge:
    """From one node to another, or from each of several to each of several.

    The target gets the source's output, and starts when all edges that lead to it are decided.

    Args:
        source: a node, or a list of them.
        target: a node, or a list of them.
        when: taken only if the source's output is this value, or one of a list of values, or if
            this plain function of the output returns True. An output that is itself a list takes
            the edges of all values in it. Values are compared strictly: True is not 1. A node
            that is to choose its way without giving that as its output says so beside it:
            ``Event(output=draft, actions=EventActions(route="fix"))``; then values are compared
            with that.
        default: taken if no other edge of the source with a ``when`` is.
        max_times: this edge leads back, and closes a cycle. Taken, it lets all nodes from its
            target to its source run again; so often, and then no more.
        order_only: the target starts after the source, but is not given its output, and runs
            also if the source was skipped or has failed.
    """

    source: Nodes
    target: Nodes
    when: When = attrs.field(default=ALWAYS, kw_only=True)
    default: bool = attrs.field(default=False, kw_only=True)
    max_times: int | None = attrs.field(default=None, kw_only=True)
    order_only: bool = attrs.field(default=False, kw_only=True)


@attrs.frozen(eq=False)
class Switch:
    """From one node to the first case that fits its output, and to no other.

    Args:
        source: the node whose output decides.
        cases: targets by value, or pairs of what `Edge` takes as ``when`` and the targets; asked
            in this order.
        default: where to go if no case fits; None is nowhere.
    """

    source: NodeRef
    cases: Mapping[Any, Nodes] | Sequence[tuple[When, Nodes]]
    default: Nodes | None = attrs.field(default=None, kw_only=True)


@attrs.frozen(eq=False)
class Select:
    """From one node to those of the targets that its output names.

    Args:
        source: the node whose output decides.
        targets: the nodes to choose among.
        by: a plain function of the output that returns the name of a target, or a list of names;
            None if the output is that itself.
    """

    source: NodeRef
    targets: Sequence[NodeRef]
    by: Callable[[Any], str | Iterable[str]] | None = attrs.field(default=None, kw_only=True)


@attrs.frozen(eq=False)
class Ordered:
    """An edge whose several nodes run one after another, in the order they are listed.

    They are given, and give, what they would side by side: ``Ordered(a, [b, c])`` gives both
    ``b`` and ``c`` the output of ``a``, ``Ordered([b, c], d)`` gives ``d`` the outputs of both.

    Args:
        source: a node, or a list of them.
        target: a node, or a list of them.
    """

    source: Nodes
    target: Nodes
