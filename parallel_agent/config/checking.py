"""What the classes of the format cannot say: ids, kinds, members.

Edges are for `checking_edges`, and what models work with for `checking_models`.

Pure but for the modules that nodes name, which are imported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Final

from parallel_agent.config.checking_edges import edge_problems
from parallel_agent.config.checking_models import model_problems
from parallel_agent.config.format import PolicyEntry
from parallel_agent.config.modules import Modules, near
from parallel_agent.config.plan import KINDS, MEMBERS, Plan, Planned, as_name
from parallel_agent.config.problems import Problem
from parallel_agent.config.source import Source
from parallel_agent.schema._problems import shown

__all__ = ["check_plan"]

_FOR_KINDS: Final[Mapping[str, Collection[str]]] = {
    "policy": ("parallel", "map"),
    "max_concurrency": ("parallel", "map"),
    "max_iterations": ("loop",),
    "items_key": ("map",),
    **dict.fromkeys(
        (
            "temperature",
            "max_tokens",
            "prompt",
            "structured_output",
            "tools",
            "mcp_servers",
            "max_tool_calls",
            "images",
            "documents",
            "react",
            "react_output",
            "batch_message_passing",
        ),
        ("model",),
    ),
}
"""Keys that only some kinds of node have."""

_SHOWN: Final = 5


def check_plan(
    plan: Plan,
    source: Source,
    modules: Modules,
    *,
    conditions: Mapping[str, Any],
    tools: Collection[str],
) -> list[Problem]:
    """Return what is wrong with a file, in no order. ``tools`` are the names of those given."""
    checker = _Checker(plan, source)
    checker.ids()
    checker.kinds(modules)
    checker.members()
    checker.policies()
    return [
        *checker.problems,
        *edge_problems(plan, source, conditions),
        *model_problems(plan, source, tools),
    ]


class _Checker:
    """Looks at nodes one by one, and notes what is wrong."""

    def __init__(self, plan: Plan, source: Source) -> None:
        self.problems: list[Problem] = []
        self._plan = plan
        self._source = source

    def _refuse(self, path: str, why: str, *, at_key: bool = False) -> None:
        self.problems.append(self._source.problem(path, why, at_key=at_key))

    def ids(self) -> None:
        """Ids are unique, and so are the names that are made of them."""
        file = self._plan.file
        if not file.nodes:
            self._refuse("nodes", "a graph has a node at least")
        names: dict[str, str] = {}
        for index, entry in enumerate(file.nodes):
            path = f"nodes[{index}].id"
            first = self._plan.nodes[entry.id]
            name = as_name(entry.id)
            if not entry.id:
                self._refuse(path, "an id is text that is not empty")
            elif first.entry is not entry:
                line = self._source.values[f"{first.path}.id"].line
                self._refuse(
                    path, f"two nodes are called {shown(entry.id)}; the first in line {line}"
                )
            elif name == "user":
                why = "no node may be called 'user': it is the author of what people say"
                self._refuse(path, why)
            elif name in names:
                why = (
                    f"{shown(entry.id)} and {shown(names[name])} would both be called {name!r:.80}"
                )
                self._refuse(path, f"{why}: agents are named by letters, digits and underscores")
            names.setdefault(name, entry.id)
        self._graph_name(names)

    def _graph_name(self, names: Mapping[str, str]) -> None:
        name = self._plan.file.name
        if name is None:
            return
        if as_name(name) != name or name == "user":
            why = f"{shown(name)} is no name of an agent: letters, digits, underscores"
            self._refuse("name", f"{why}, no digit first, and not 'user'")
        elif name in names:
            self._refuse("name", f"the graph and a node are called {shown(name)}")

    def kinds(self, modules: Modules) -> None:
        """Every node is one of the kinds, has the keys of that kind, and its agent is there."""
        for index, entry in enumerate(self._plan.file.nodes):
            path = f"nodes[{index}]"
            kinds = [kind for kind in KINDS if getattr(entry, kind) is not None]
            if len(kinds) != 1:
                says = f"; this one has {' and '.join(kinds)}" if kinds else ""
                self._refuse(path, f"a node has one of {', '.join(KINDS)}{says}")
                continue
            for key, owners in _FOR_KINDS.items():
                if getattr(entry, key) is not None and kinds[0] not in owners:
                    why = f"only a node with {' or '.join(owners)} has this key"
                    self._refuse(f"{path}.{key}", why, at_key=True)
            missing = None if entry.agent is None else modules.find(entry.agent)
            if missing is not None:
                self._refuse(f"{path}.agent", missing)

    def members(self) -> None:
        """What nodes are made of is there, stands in one place, and is not made of them."""
        owners: dict[str, Planned] = {}
        for node in self._plan.nodes.values():
            if node.kind in MEMBERS and not node.members:
                self._refuse(f"{node.path}.{node.kind}", "name a node at least")
            times = Counter(member.id for member in node.members)
            for member in node.members:
                other = self._plan.nodes.get(member.id)
                owner = owners.setdefault(member.id, node)
                if other is None:
                    hint = near(member.id, self._plan.nodes)
                    self._refuse(member.path, f"there is no node {shown(member.id)}{hint}")
                elif other.is_guard:
                    why = f"{shown(member.id)} is a guard, and runs before the graph"
                    self._refuse(member.path, f"{why}: it cannot be part of a node")
                elif owner is not node or times[member.id] > 1:
                    why = f"{shown(member.id)} is part of a node twice; write a second node"
                    self._refuse(member.path, why)
        self._rounds()

    def _rounds(self) -> None:
        inside = self._plan.inside
        seen: dict[str, str] = {}  # from where each was come to first
        for start in self._plan.nodes:
            way: list[str] = []
            node = start
            while node in inside and node not in seen:
                seen[node] = start
                way.append(node)
                node = inside[node]
            if node in inside and seen[node] == start:
                circle = [*way[way.index(node) :], node]
                names = ", which is part of ".join(map(shown, circle[: _SHOWN + 1]))
                why = f"{names}: a node cannot be part of itself"
                self._refuse(self._plan.nodes[node].path, why)

    def policies(self) -> None:
        """A policy that is told something is told one thing; a graph waits for all."""
        file: Any = self._plan.file
        entries = [("", file), *((f"nodes[{i}].", one) for i, one in enumerate(file.nodes))]
        for prefix, entry in entries:
            policy = entry.policy
            if isinstance(policy, PolicyEntry) and (policy.quorum is None) == (
                policy.escalate is None
            ):
                why = "a policy is a name, or {quorum: NUMBER}, or {escalate: TEXT}"
                self._refuse(f"{prefix}policy", why)
        policy = file.policy
        if policy == "first_success" or (isinstance(policy, PolicyEntry) and policy.quorum):
            why = "the nodes of a graph wait for each other, so it cannot stop when some are done"
            self._refuse("policy", f"{why}; give this policy to a node with `parallel`")
