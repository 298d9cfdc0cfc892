"""What a graph file comes to: its nodes by id, and its edge tree as a list of wires.

Nothing is refused here: what cannot be is left out, and `checking` says so. What is made of a file
without problems is complete.

Pure: no I/O.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Final

import attrs

from parallel_agent.config.format import EdgeEntry, GraphFile, NodeEntry

__all__ = [
    "KINDS",
    "MEMBERS",
    "Member",
    "Mention",
    "Plan",
    "Planned",
    "Way",
    "Wire",
    "as_name",
    "make_plan",
]

KINDS: Final = ("model", "agent", "sequential", "parallel", "loop", "map")
"""The keys that say what a node is: it has one of them."""

MEMBERS: Final = ("sequential", "parallel", "loop", "map")
"""The kinds that are made of other nodes."""


@attrs.frozen
class Member:
    """A node that is named as part of another one."""

    id: str
    path: str


@attrs.frozen(eq=False)
class Planned:
    """A node.

    Attributes:
        entry: what the file says of it.
        path: where.
        name: of its agent.
        kind: one of `KINDS`; empty if it has none, or several.
        members: the nodes that it is made of.
        is_guard: it runs before the graph.
    """

    entry: NodeEntry
    path: str
    name: str
    kind: str
    members: tuple[Member, ...]
    is_guard: bool

    @property
    def id(self) -> str:
        """As the file calls it."""
        return self.entry.id


class Way(Enum):
    """The four lists of an edge."""

    CHILDREN = "children"
    FAN_IN = "fan_in"
    ORDERED_CHILDREN = "ordered_children"
    ORDERED_FAN_IN = "ordered_fan_in"

    @property
    def leads_on(self) -> bool:
        """Whether the listed nodes come after the edge's own, and not before it."""
        return self in (Way.CHILDREN, Way.ORDERED_CHILDREN)

    @property
    def is_ordered(self) -> bool:
        """Whether the listed nodes come one after another."""
        return self in (Way.ORDERED_CHILDREN, Way.ORDERED_FAN_IN)


@attrs.frozen(eq=False)
class Mention:
    """A node that an edge names.

    Attributes:
        id: the node.
        path: where it is named.
        entry: the edge that it begins; a node alone if only its name is there.
        way: the list it stands in; None at the top.
    """

    id: str
    path: str
    entry: EdgeEntry
    way: Way | None


@attrs.frozen(eq=False)
class Wire:
    """One list of an edge: how it leads from or to the nodes in it."""

    way: Way
    node: Mention
    others: list[Mention] = attrs.Factory(list[Mention])


@attrs.define(eq=False)
class Plan:
    """A file, sorted.

    Attributes:
        file: the file.
        nodes: by id; of two that share one, the first.
        mentions: the nodes that edges name, in the order of the tree: an edge before what it
            lists.
        wires: the lists of the edges, likewise.
        inside: for each node that is part of another one, which.
        reacting: for each node that has agents work, these, each as a plan of its own.
        is_whole: it has the nodes that no edge names as well.
    """

    file: GraphFile
    nodes: dict[str, Planned] = attrs.Factory(dict[str, Planned])
    mentions: list[Mention] = attrs.Factory(list[Mention])
    wires: list[Wire] = attrs.Factory(list[Wire])
    inside: dict[str, str] = attrs.Factory(dict[str, str])
    reacting: dict[str, list[Plan]] = attrs.Factory(dict[str, "list[Plan]"])
    is_whole: bool = True

    @property
    def guards(self) -> list[Planned]:
        """The guards, in the order of declaration."""
        return [node for node in self.nodes.values() if node.is_guard]

    def in_order(self) -> list[Planned]:
        """Return the graph's own nodes: as the edges name them first, then as they are declared.

        This is the order in which writers and readers follow each other if no edge says.
        """
        others = self.nodes if self.is_whole else ()
        ids = dict.fromkeys([*(one.id for one in self.mentions), *others])
        return [
            self.nodes[one]
            for one in ids
            if one in self.nodes and one not in self.inside and not self.nodes[one].is_guard
        ]


def make_plan(file: GraphFile) -> Plan:
    """Sort what a file says."""
    plan = Plan(file)
    for index, entry in enumerate(file.nodes):
        planned = _planned(entry, f"nodes[{index}]")
        if plan.nodes.setdefault(entry.id, planned) is planned:
            for member in planned.members:
                plan.inside.setdefault(member.id, entry.id)
    for index, edge in enumerate(file.edges or ()):
        _walk(plan, edge, f"edges[{index}]", None)
    for controller, agents in plan.reacting.items():
        for mention in (mention for agent in agents for mention in agent.mentions):
            plan.inside.setdefault(mention.id, controller)
    _free_the_last(plan)
    return plan


def _free_the_last(plan: Plan) -> None:
    """Make the last guard a node like others, if there are only guards: it guards nothing."""
    own = [node for node in plan.nodes.values() if node.id not in plan.inside]
    if own and all(node.is_guard for node in own) and own[-1].entry.guard is None:
        plan.nodes[own[-1].id] = attrs.evolve(own[-1], is_guard=False)


def _planned(entry: NodeEntry, path: str) -> Planned:
    kinds = [kind for kind in KINDS if getattr(entry, kind) is not None]
    kind = kinds[0] if len(kinds) == 1 else ""
    members = tuple(_members(entry, path, kind)) if kind in MEMBERS else ()
    return Planned(entry, path, as_name(entry.id), kind, members, _is_guard(entry))


def _members(entry: NodeEntry, path: str, kind: str) -> Iterator[Member]:
    named: str | list[str] = getattr(entry, kind)
    if isinstance(named, str):
        yield Member(named, f"{path}.{kind}")
    else:
        yield from (Member(one, f"{path}.{kind}[{index}]") for index, one in enumerate(named))


def as_name(id: str) -> str:
    """Return the name of the agent that a node is: its id, if that is an identifier."""
    name = re.sub(r"\W", "_", id)
    if not name.isidentifier():
        name = f"_{name}"
    return f"{name}_" if keyword.iskeyword(name) else name


def _is_guard(entry: NodeEntry) -> bool:
    if entry.guard is not None or entry.structured_output is None:
        return bool(entry.guard)
    output = entry.structured_output
    fields: Any = output.get("parameters") or output.get("properties")
    if not isinstance(fields, Mapping) or "validation" not in fields:
        return False
    field: Any = fields["validation"]  # pyright: ignore[reportUnknownVariableType]  # JSON
    kind: Any = field.get("type") if isinstance(field, Mapping) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]  # JSON
    return kind in (None, "boolean")


def _walk(plan: Plan, edge: EdgeEntry | str, path: str, way: Way | None) -> Mention:
    entry: EdgeEntry = EdgeEntry(node=edge) if isinstance(edge, str) else edge
    mention = Mention(entry["node"], path, entry, way)
    plan.mentions.append(mention)
    for one in Way:
        listed: Sequence[EdgeEntry | str] | None = entry.get(one.value)  # type: ignore[assignment]  # mypy sees no key in it
        if listed is not None:
            wire = Wire(one, mention)
            plan.wires.append(wire)
            for index, other in enumerate(listed):
                wire.others.append(_walk(plan, other, f"{path}.{one.value}[{index}]", one))
    for index, other in enumerate(entry.get("react") or ()):
        agent = Plan(plan.file, plan.nodes, is_whole=False)
        _walk(agent, other, f"{path}.react[{index}]", None)
        plan.reacting.setdefault(mention.id, []).append(agent)
    for name in ("batch_children", "batch_fan_in"):
        batched: Sequence[EdgeEntry | str] | None = entry.get(name)  # type: ignore[assignment]  # as above
        for index, other in enumerate(batched or ()):
            _walk(plan, other, f"{path}.{name}[{index}]", None)
    return mention
