"""A node's input, made of the outputs of the nodes before it.

A node with one source gets its output as it is. A node with several, a *join*, gets what its
annotation asks for: a list in the order of declaration; an object by the sources' names; or, if
it is neither, the one output there is, when routes have left one.

What an edge that leads back brings stands for what a node with one source was given before; or it
is added to that, if the node's annotation is a class with a field for each of its sources. To a
join it is added.

Pure: no event loop, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from parallel_agent.agent import Agent
from parallel_agent.errors import AgentFunctionError, InputError
from parallel_agent.graph.definition import Definition, Link, reached
from parallel_agent.schema import Schema, SchemaTypeError
from parallel_agent.schema._clash import OPEN, WHOLE, clash

__all__ = ["check_types", "fed"]

Kind = Literal["object", "list", "one"]


def fed(definition: Definition, node: int, links: Sequence[Link], outputs: Sequence[Any]) -> Any:
    """Return what a node gets, given the links that were taken to it, and what they bring.

    Raises:
        InputError: it takes one output, and there are several.
    """
    agent = definition.nodes[node]
    kind: Kind = definition.takes(node, lambda: _takes(definition, node))
    if kind == "one" and links[-1].number < 0:
        return outputs[-1]  # what has led back stands for what was there before
    names = [definition.nodes[link.source].name for link in links]
    match kind:
        case "list":
            return list(outputs)
        case "object":
            return dict(zip(names, outputs, strict=True))
        case "one":
            if len(outputs) == 1:
                return outputs[0]
            message = (
                f"node {agent.name!r} is fed by {' and '.join(map(repr, names))}, and takes one "
                "output; annotate its input as list[...] or dict[str, ...] to take them all"
            )
            raise InputError(message)


def _takes(definition: Definition, node: int) -> Kind:
    """Return how a node takes what feeds it."""
    links = definition.feeding(node)
    if len(links) > 1:
        return _kind(definition.nodes[node])
    backs = [loop.link for loop in definition.returning[node]] if links else []
    if not backs:
        return "one"
    names = {definition.nodes[link.source].name for link in (*links, *backs)}
    return "object" if names <= _fields(definition.nodes[node]) else "one"


def _fields(agent: Agent) -> set[str]:
    """Return the names of the fields of the class that an agent takes; of no class, none."""
    schema = agent.input_schema
    try:
        return set() if schema is None else set(schema.fields())
    except SchemaTypeError:
        return set()


def _kind(agent: Agent) -> Kind:
    schema = agent.input_schema
    kinds = {"array", "object"} if schema is None else schema.kinds & {"array", "object"}
    return "object" if "object" in kinds else "list" if kinds else "one"


def check_types(definition: Definition) -> Iterator[str]:
    """Yield the outputs that can never fit the inputs they feed, where both are annotated."""
    certain = _certain(definition)
    for node, agent in enumerate(definition.nodes):
        wanted = _input_of(agent)
        if wanted is None:
            continue
        forward = definition.feeding(node)
        links = [*forward, *(loop.link for loop in definition.returning[node])]
        kind = _takes(definition, node)
        sure = [link for link in forward if not link.label and link.source in certain]
        if kind != "one":
            all_come = len(sure) == len(links)
            yield from _misfits(definition, links, agent, wanted, kind=kind, all_come=all_come)
        elif len(sure) > 1:
            names = " and ".join(repr(definition.nodes[link.source].name) for link in sure)
            yield (
                f"{agent.name!r} is always fed by {names}, and takes one output; annotate its "
                "input as list[...] or dict[str, ...]"
            )
        else:
            for link in links:
                yield from _misfits(definition, [link], agent, wanted)
        if kind == "object":
            yield from _too_early(definition, links, agent, wanted)


def _too_early(
    definition: Definition, links: Sequence[Link], agent: Agent, wanted: Schema[Any]
) -> Iterator[str]:
    """Yield the fields without a default for what has not come in the first round."""
    needed = wanted.json_schema().get("required", ())
    for link in links:
        name = definition.nodes[link.source].name
        if link.number < 0 and name in needed:
            yield (
                f"{name!r} leads back to {agent.name!r}, and has said nothing in the first round: "
                f"give the field {name!r} of its input a default"
            )


def _certain(definition: Definition) -> set[int]:
    """Return the nodes that run in any case, unless something fails."""
    first = [node for node in range(len(definition.nodes)) if not definition.feeding(node)]
    follow = [
        [link.target for link in links if link.feeds and not link.label]
        for links in definition.outgoing
    ]
    return reached(follow, first)


def _misfits(
    definition: Definition,
    links: Sequence[Link],
    agent: Agent,
    wanted: Schema[Any],
    *,
    kind: Kind = "one",
    all_come: bool = True,
) -> Iterator[str]:
    sources = [definition.nodes[link.source] for link in links]
    given = [_said(source) for source in sources]
    names = [source.name for source in sources]
    whole: dict[str, Any]
    match kind:
        case "one":
            whole = given[0]
        case "list":
            whole = {"type": "array", "prefixItems": given, **({} if all_come else {OPEN: True})}
        case "object":
            # Routes may leave some out: what comes must fit all the same.
            whole = {
                "type": "object",
                "properties": dict(zip(names, given, strict=True)),
                "required": names,
                "additionalProperties": False,
            }
    why = clash(whole, wanted.json_schema())
    if why is not None:
        of = " and ".join(map(repr, names))
        back = ", where it leads back" if len(links) == 1 and links[0].number < 0 else ""
        yield f"the output of {of} never fits the input of {agent.name!r}{back}: {why}"


def _said(agent: Agent) -> dict[str, Any]:
    """Return what an agent says of its output, as a part of another schema."""
    schema = agent.output_schema
    return {} if schema is None else {WHOLE: schema.json_schema()}


def _input_of(agent: Agent) -> Schema[Any] | None:
    try:
        return agent.input_schema
    except AgentFunctionError:
        return None  # it names what is defined further down, and is looked at when it runs
