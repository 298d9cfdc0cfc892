"""What is wrong with the edges of a file. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import iscoroutinefunction
from typing import Any

from parallel_agent.agent import Agent
from parallel_agent.config.modules import near
from parallel_agent.config.plan import Mention, Plan, Way, Wire
from parallel_agent.config.problems import Problem
from parallel_agent.config.source import Source
from parallel_agent.schema._problems import shown

__all__ = ["edge_problems"]


def edge_problems(plan: Plan, source: Source, conditions: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with the edges."""
    for mention in plan.mentions:
        yield from _mention(plan, source, mention)
        yield from _options(source, mention, conditions)
    guards = {guard.id: index for index, guard in enumerate(plan.guards)}
    for wire in plan.wires:
        yield from _wire(guards, source, wire)
    yield from _two_ways(plan, source)
    for controller, agents in plan.reacting.items():
        yield from _controller(plan, source, controller)
        for agent in agents:
            yield from edge_problems(agent, source, conditions)
            yield from _agent(plan, source, controller, agent)


def _controller(plan: Plan, source: Source, controller: str) -> Iterator[Problem]:
    """Yield what is wrong with a node that has agents work."""
    node = plan.nodes.get(controller)
    if node is None:
        return
    if node.entry.model is None or node.entry.prompt is None:
        why = "a node with react is answered by a model, and has a prompt"
        yield source.problem(node.path, why)
    for key in ("tools", "mcp_servers", "blackboard", "structured_output"):
        if getattr(node.entry, key) is not None:
            why = "a node with react has agents, and none of this"
            yield source.problem(f"{node.path}.{key}", why, at_key=True)
    most = (node.entry.react or {}).get("max_iterations")
    if most is not None and (type(most) is not int or most < 1):
        why = f"a whole number from 1 on is needed, not {shown(most)}"
        yield source.problem(f"{node.path}.react.max_iterations", why)


def _agent(plan: Plan, source: Source, controller: str, agent: Plan) -> Iterator[Problem]:
    """Yield what is wrong with an agent of a controller."""
    for nested in agent.reacting:
        why = f"{shown(nested)} works for {shown(controller)}, and has no agents of its own"
        place = next(one.path for one in agent.mentions if one.id == nested)
        yield source.problem(f"{place}.react", why, at_key=True)
    for mention in agent.mentions:
        owner = plan.inside.get(mention.id, controller)
        node = plan.nodes.get(mention.id)
        if owner != controller:
            why = f"{shown(mention.id)} is part of {shown(owner)}, and has no edges"
            yield source.problem(mention.path, why)
        elif node is not None and node.is_guard:
            why = f"{shown(mention.id)} is a guard, and runs before the graph"
            yield source.problem(mention.path, f"{why}: it cannot work for a node")
    names = [other.mentions[0].id for other in plan.reacting[controller]]
    first = agent.mentions[0]
    if names.count(first.id) > 1 and plan.reacting[controller][-1] is agent:
        yield source.problem(first.path, f"{shown(first.id)} is there twice")


def _mention(plan: Plan, source: Source, mention: Mention) -> Iterator[Problem]:
    node = plan.nodes.get(mention.id)
    place = f"{mention.path}.node"
    place = place if place in source.values else mention.path
    if node is None:
        hint = near(mention.id, plan.nodes)
        yield source.problem(place, f"there is no node {shown(mention.id)}{hint}")
    elif mention.id in plan.inside:
        why = f"{shown(mention.id)} is part of {shown(plan.inside[mention.id])}, and has no edges"
        yield source.problem(place, why)


def _options(source: Source, mention: Mention, conditions: Mapping[str, Any]) -> Iterator[Problem]:
    entry, path = mention.entry, mention.path
    said = _said(mention)
    if said and mention.way is not Way.CHILDREN:
        for key in said:
            why = f"only what stands below `children` has {key!r}"
            yield source.problem(f"{path}.{key}", why, at_key=True)
        return
    if "when" in entry and entry.get("if") is not None:
        yield source.problem(f"{path}.if", "write one of `when` and `if`", at_key=True)
    if entry.get("default") and ("when" in entry or entry.get("if") is not None):
        why = "what is taken by default has no condition; write two edges"
        yield source.problem(f"{path}.default", why, at_key=True)
    condition = entry.get("if")
    if condition is not None and condition not in conditions:
        hint = near(condition, conditions) or "; pass it with conditions={...}"
        yield source.problem(f"{path}.if", f"no condition {shown(condition)} was given{hint}")
    elif condition is not None and not _is_plain(conditions[condition]):
        why = f"the condition {shown(condition)} is no plain function of an output"
        yield source.problem(f"{path}.if", why)
    most = entry.get("max_times")
    if most is not None and most < 1:
        why = f"a whole number from 1 on is needed, not {shown(most)}"
        yield source.problem(f"{path}.max_times", why)
    if entry.get("when") == []:
        why = "an empty list is no condition: it is never true"
        yield source.problem(f"{path}.when", why)


def _is_plain(condition: object) -> bool:
    is_class = isinstance(condition, type | Agent)
    return callable(condition) and not is_class and not iscoroutinefunction(condition)


def _said(mention: Mention) -> list[str]:
    """Return the options that an edge has; of ``when``, null is a value."""
    entry = mention.entry
    options = {key: entry.get(key) for key in ("if", "default", "max_times")}
    said = [key for key, value in options.items() if value is not None]
    return ["when", *said] if "when" in entry else said


def _wire(guards: Mapping[str, int], source: Source, wire: Wire) -> Iterator[Problem]:
    for other in wire.others:
        before, after = (wire.node, other) if wire.way.leads_on else (other, wire.node)
        if before.id in guards and _said(other):
            why = f"{shown(before.id)} is a guard: what it keeps from running is the whole graph"
            yield source.problem(f"{other.path}.{_said(other)[0]}", why, at_key=True)
        if after.id not in guards or guards.get(before.id, len(guards)) < guards[after.id]:
            continue
        why = f"{shown(after.id)} is a guard: it runs before the graph, and nothing before it"
        if before.id in guards:
            why = f"guards run in the order of declaration: {shown(after.id)} is before the other"
        yield source.problem(other.path, why)
    if wire.way.is_ordered:
        seen: set[str] = set()
        for other in wire.others:
            if other.id in seen:
                why = f"{shown(other.id)} is there twice, and has one place in the order"
                yield source.problem(other.path, why)
            seen.add(other.id)


_OPPOSITE = {
    Way.CHILDREN: Way.ORDERED_CHILDREN,
    Way.ORDERED_CHILDREN: Way.CHILDREN,
    Way.FAN_IN: Way.ORDERED_FAN_IN,
    Way.ORDERED_FAN_IN: Way.FAN_IN,
}


def _two_ways(plan: Plan, source: Source) -> Iterator[Problem]:
    """Yield the nodes that stand both side by side with others and in a row, under one node."""
    seen: dict[tuple[str, str, Way], Mention] = {}
    for wire in plan.wires:
        for other in wire.others:
            first = seen.get((wire.node.id, other.id, _OPPOSITE[wire.way]))
            if first is not None:
                line = source.values[first.path].line
                why = (
                    f"{shown(other.id)} stands in {wire.way.value} of {shown(wire.node.id)} here, "
                    f"and in {_OPPOSITE[wire.way].value} in line {line}: it has one place"
                )
                yield source.problem(other.path, why)
            seen.setdefault((wire.node.id, other.id, wire.way), other)
