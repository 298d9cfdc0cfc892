"""From a plan without problems to a graph.

What only agents themselves can refuse is told here, at the place that the file says it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, TypeAlias

import attrs

from parallel_agent.agent import Agent, AgentOptions
from parallel_agent.barrier import (
    Barrier,
    BestEffort,
    Escalate,
    FailFast,
    FirstSuccess,
    Quorum,
    WaitAll,
)
from parallel_agent.config.asking import Asker
from parallel_agent.config.format import GraphFile, NodeEntry, PolicyEntry, RetryEntry
from parallel_agent.config.model_node import ModelNode
from parallel_agent.config.plan import Mention, Plan, Planned, Way, Wire, as_name
from parallel_agent.config.problems import Problem
from parallel_agent.config.reacting import MAX_ITERATIONS, Reacting, collector
from parallel_agent.config.sharing import chains_of, documents_of, passed_on_in
from parallel_agent.config.source import Source
from parallel_agent.errors import ConfigError, GraphError, UsageError
from parallel_agent.function_agent import FunctionAgent
from parallel_agent.graph.edges import ALWAYS, Edge, EdgeLike, Ordered
from parallel_agent.retry import Retry
from parallel_agent.tools.agent_tool import AgentTool
from parallel_agent.workflow.graph import GraphAgent
from parallel_agent.workflow.loop import LoopAgent
from parallel_agent.workflow.map import MapAgent
from parallel_agent.workflow.parallel import ParallelAgent
from parallel_agent.workflow.sequential import SequentialAgent

__all__ = ["Condition", "Given", "compile_graph"]

Condition: TypeAlias = Callable[[Any], Any]
"""A plain function of an output that says yes or no."""


@attrs.frozen(eq=False)
class Given:
    """What a file names and does not hold.

    Attributes:
        agents: by what nodes call them: agents, or functions that become agents.
        conditions: by name.
        asker: knows what model nodes ask with.
    """

    agents: Mapping[str, Any]
    conditions: Mapping[str, Condition]
    asker: Asker


def compile_graph(plan: Plan, source: Source, given: Given) -> GraphAgent:
    """Return the graph.

    Raises:
        ConfigError: an agent or the graph refuses what the file says; all that do.
    """
    return _Compiler(plan, source, given).graph()


class _Compiler:
    """Makes agents of nodes, and edges of wires."""

    def __init__(self, plan: Plan, source: Source, given: Given) -> None:
        self._plan = plan
        self._source = source
        self._given = given
        self._problems: list[Problem] = []
        self._agents: dict[str, Agent] = {}
        self._guards = {guard.id for guard in plan.guards}

    def graph(self) -> GraphAgent:
        file, plan = self._plan.file, self._plan
        for node in _parts_first(plan):
            self._add(node)
        barrier = self._barrier("policy", file.policy)
        options = self._options("", file)
        if self._problems:
            raise ConfigError(list(dict.fromkeys(self._problems)))
        try:
            return GraphAgent(
                graph_name(plan, self._source.file),
                [*self._wired(plan), *self._chained()],
                nodes=[self._agents[node.id] for node in plan.in_order()],
                guards=[self._agents[node.id] for node in plan.guards],
                documents=documents_of(plan, self._agents),
                barrier=barrier,
                max_concurrency=file.max_concurrency,
                **options,
            )
        except GraphError as exc:
            problems = [self._of_graph(why) for why in exc.problems]
        except UsageError as exc:
            problems = [self._of_graph(str(exc))]
        raise ConfigError(problems)

    # Nodes.

    def _add(self, node: Planned) -> None:
        members = [self._agents.get(member.id) for member in node.members]
        working = [one.id for one in _working_for(self._plan, node)]
        if any(one not in self._agents for one in working):
            return  # likewise
        if None in members:
            return  # one of them is refused already
        before = len(self._problems)
        options = self._options(f"{node.path}.", node.entry)
        barrier = self._barrier(f"{node.path}.policy", node.entry.policy)
        if len(self._problems) > before:
            return
        try:
            agents = [member for member in members if member is not None]
            self._agents[node.id] = self._make(node, agents, barrier, options)
        except ConfigError as exc:
            self._problems += exc.problems
        except UsageError as exc:
            path = _place_of(self._source, node.path, str(exc))
            self._problems.append(self._source.problem(path, str(exc)))

    def _make(
        self, node: Planned, members: Sequence[Agent], barrier: Barrier, options: AgentOptions
    ) -> Agent:
        entry, name = node.entry, node.name
        match node.kind:
            case "sequential":
                return SequentialAgent(name, members, **options)
            case "parallel":
                return ParallelAgent(
                    name,
                    members,
                    barrier=barrier,
                    max_concurrency=entry.max_concurrency,
                    **options,
                )
            case "loop":
                return LoopAgent(name, members, max_iterations=entry.max_iterations, **options)
            case "map":
                return MapAgent(
                    name,
                    members[0],
                    items_key=entry.items_key,
                    barrier=barrier,
                    max_concurrency=entry.max_concurrency,
                    **options,
                )
            case "agent":
                return self._agent(node, options)
            case _:
                return self._model(node, options)

    def _agent(self, node: Planned, options: AgentOptions) -> Agent:
        given = self._given.agents[node.entry.agent or ""]
        if not isinstance(given, Agent):
            return FunctionAgent(given, name=node.name, **options)
        if given.name != node.name or options:
            return given.with_options(name=node.name, **options)
        return given

    def _model(self, node: Planned, options: AgentOptions) -> ModelNode:
        asking = self._given.asker.asking(node)
        agents = self._plan.reacting.get(node.id)
        if agents is not None and asking.template is not None:
            tools = {agent.mentions[0].id: AgentTool(self._working(agent)) for agent in agents}
            most = (node.entry.react or {}).get("max_iterations") or MAX_ITERATIONS
            asking = attrs.evolve(asking, reacting=Reacting(tools, most))
        return ModelNode(node.name, entry=node.entry, asking=asking, **options)

    def _working(self, plan: Plan) -> GraphAgent:
        """Return the graph of an agent that a controller has work."""
        nodes = [self._agents[node.id] for node in plan.in_order()]
        name = f"{nodes[0].name}_agent"
        taken = {node.name for node in self._plan.nodes.values()}
        while {name, f"{name}_says"} & taken:
            name += "_"
        last = collector(f"{name}_says", nodes)
        edges: list[EdgeLike] = [*self._wired(plan), (nodes, last)]
        documents = passed_on_in(plan, self._agents, last)
        return GraphAgent(name, edges, nodes=[*nodes, last], documents=documents)

    def _options(self, prefix: str, entry: NodeEntry | GraphFile) -> AgentOptions:
        options = AgentOptions()
        if entry.description is not None:
            options["description"] = entry.description
        if entry.output_key is not None:
            options["output_key"] = entry.output_key
        if entry.timeout is not None:
            options["timeout"] = entry.timeout
        if isinstance(entry, NodeEntry) and entry.idle_timeout is not None:
            options["idle_timeout"] = entry.idle_timeout
        if entry.retry is not None:
            retry = self._retry(f"{prefix}retry", entry.retry)
            if retry is not None:
                options["retry"] = retry
        return options

    def _retry(self, path: str, entry: int | RetryEntry) -> Retry | None:
        if isinstance(entry, int):
            said: dict[str, Any] = {"max_attempts": entry}
        else:
            said = attrs.asdict(entry, filter=lambda _, value: value is not None)
        try:
            return Retry(**said)
        except ValueError as exc:
            place = _place_of(self._source, path, str(exc))
            self._problems.append(self._source.problem(place, str(exc)))
            return None

    def _barrier(self, path: str, policy: str | PolicyEntry | None) -> Barrier:
        if policy is None:
            return FailFast()
        if isinstance(policy, str):
            return _POLICIES[policy]()
        if policy.quorum is None:
            return Escalate(policy.escalate or "")
        try:
            return Quorum(policy.quorum)
        except ValueError as exc:
            self._problems.append(self._source.problem(f"{path}.quorum", str(exc)))
            return FailFast()

    # Edges.

    def _wired(self, plan: Plan) -> Iterator[EdgeLike]:
        for wire in plan.wires:
            yield from self._edges(wire)

    def _chained(self) -> Iterator[EdgeLike]:
        for ids in chains_of(self._plan):
            yield from _one_by_one([self._agents[one] for one in ids])

    def _edges(self, wire: Wire) -> list[EdgeLike]:
        guards = self._guards
        others = [other for other in wire.others if other.id not in guards]
        agents = [self._agents[one] for one in dict.fromkeys(other.id for other in others)]
        if not agents:
            return []
        # All nodes wait for the guards anyway.
        node = None if wire.node.id in guards else self._agents[wire.node.id]
        match wire.way:
            case Way.CHILDREN:
                return [] if node is None else self._children(node, others)
            case Way.FAN_IN:
                return [] if node is None else [(agents, node)]
            case Way.ORDERED_CHILDREN:
                return _one_by_one(agents) if node is None else [Ordered(node, agents)]
            case Way.ORDERED_FAN_IN:
                return [] if node is None else [Ordered(agents, node)]

    def _children(self, node: Agent, others: Sequence[Mention]) -> list[EdgeLike]:
        # All that are taken by default are one edge: several would contradict each other.
        defaults = [
            other
            for other in others
            if other.entry.get("default") and other.entry.get("max_times") is None
            if "when" not in other.entry and other.entry.get("if") is None
        ]
        edges = [self._child(node, other) for other in others if other not in defaults]
        if defaults:
            agents = [self._agents[other.id] for other in defaults]
            edges.append(Edge(node, agents, default=True))
        return edges

    def _child(self, node: Agent, other: Mention) -> EdgeLike:
        entry = other.entry
        when: Any = ALWAYS
        if "when" in entry:
            when = entry["when"]
        elif (condition := entry.get("if")) is not None:
            when = self._given.conditions[condition]
        return Edge(
            node,
            self._agents[other.id],
            when=when,
            default=bool(entry.get("default")),
            max_times=entry.get("max_times"),
        )

    def _of_graph(self, why: str) -> Problem:
        """Place what the graph says: at the first node it names, or at what it is about."""
        word = re.match(r"\w*", why)
        option = _OPTIONS.get(word[0] if word else "", word[0] if word else "")
        if option in self._source.keys:
            return self._source.problem(option, why, at_key=True)
        names = {node.name: node for node in self._plan.nodes.values()}
        for pattern in _NAMING:
            for found in re.finditer(pattern, why):
                node = names.get(found[1])
                if node is not None:
                    return self._source.problem(node.path, why)
        return self._source.problem("edges", why, at_key=True)


def _one_by_one(agents: Sequence[Agent]) -> list[EdgeLike]:
    return [Edge(before, after, order_only=True) for before, after in pairwise(agents)]


_POLICIES: Final[Mapping[str, type[Barrier]]] = {
    "fail_fast": FailFast,
    "wait_all": WaitAll,
    "best_effort": BestEffort,
    "first_success": FirstSuccess,
    "escalate": Escalate,
}

# How a graph names its nodes. Not every word is one: a node may be called "edge".
_NAMING: Final = (r"'(\w+)'", r"(\w+) ->", r"^(\w+)")

_OPTIONS: Final = {"barrier": "policy", "Quorum": "policy", "FirstSuccess": "policy"}


def _place_of(source: Source, path: str, why: str) -> str:
    """Return the path of the option that a message begins with, if the file says it."""
    word = re.match(r"\w*", why)
    option = word[0] if word else ""
    place = f"{path}.{_OPTIONS.get(option, option)}"
    return place if place in source.values else path


def _parts_first(plan: Plan) -> list[Planned]:
    """Return all nodes, each after those it is made of."""
    line: list[Planned] = []
    seen: set[str] = set()
    todo = [(node, False) for node in reversed(plan.nodes.values())]
    while todo:
        node, has_parts = todo.pop()
        if has_parts:
            line.append(node)
        elif node.id not in seen:
            seen.add(node.id)
            todo.append((node, True))
            todo += [(plan.nodes[member.id], False) for member in reversed(node.members)]
            todo += [(one, False) for one in _working_for(plan, node)]
    return line


def _working_for(plan: Plan, node: Planned) -> list[Planned]:
    return [one for agent in plan.reacting.get(node.id, ()) for one in agent.in_order()]


def graph_name(plan: Plan, file: str) -> str:
    """Return the name of the graph: what the file says, or what it is called itself."""
    if plan.file.name is not None:
        return plan.file.name
    stem = re.split(r"[/\\]", file)[-1].rpartition(".")[0]
    name = as_name(stem or "graph")
    taken = {node.name for node in plan.nodes.values()} | {"user"}
    while name in taken:
        name += "_graph"
    return name
