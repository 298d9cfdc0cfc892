"""A node's input, made of the outputs of the nodes before it.

A node with one source gets its output as it is. A node with several, a *join*, gets what its
annotation asks for: a list in the order of declaration; an object by the sources' names; or, if
it is neither, the one output there is, when routes have left one.

Pure: no event loop, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from parallel_agent.agent import Agent
from parallel_agent.errors import AgentFunctionError, InputError
from parallel_agent.graph.definition import Definition, Link
from parallel_agent.schema import Schema
from parallel_agent.schema._clash import WHOLE, clash

__all__ = ["check_types", "fed"]

Kind = Literal["object", "list", "one"]


def fed(definition: Definition, node: int, links: Sequence[Link], outputs: Sequence[Any]) -> Any:
    """Return what a node gets, given the links that were taken to it, and what they bring.

    Raises:
        InputError: it takes one output, and there are several.
    """
    if len(definition.feeding(node)) < 2:  # noqa: PLR2004  # no join
        return outputs[0]
    agent = definition.nodes[node]
    names = [definition.nodes[link.source].name for link in links]
    match _kind(agent):
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


def _kind(agent: Agent) -> Kind:
    schema = agent.input_schema
    kinds = {"array", "object"} if schema is None else schema.kinds & {"array", "object"}
    return "object" if "object" in kinds else "list" if kinds else "one"


def check_types(definition: Definition) -> Iterator[str]:
    """Yield the outputs that can never fit the inputs they feed, where both are annotated."""
    certain = _certain(definition)
    for node, agent in enumerate(definition.nodes):
        links = definition.feeding(node)
        wanted = _input_of(agent)
        if wanted is None:
            continue
        for loop in definition.loops:
            if loop.link.target == node and len(links) < 2:  # noqa: PLR2004  # no join
                yield from _misfits(definition, [loop.link], agent, wanted)
        if not links:
            continue
        if len(links) == 1:
            yield from _misfits(definition, links, agent, wanted)
            continue
        kind = _kind(agent)
        sure = [link for link in links if not link.label and link.source in certain]
        if kind != "one":
            yield from _misfits(definition, links, agent, wanted, kind=kind, sure=sure)
        elif len(sure) > 1:
            names = " and ".join(repr(definition.nodes[link.source].name) for link in sure)
            yield (
                f"{agent.name!r} is always fed by {names}, and takes one output; annotate its "
                "input as list[...] or dict[str, ...]"
            )
        else:
            for link in links:
                yield from _misfits(definition, [link], agent, wanted)


def _certain(definition: Definition) -> set[int]:
    """Return the nodes that run in any case, unless something fails."""
    certain = {node for node in range(len(definition.nodes)) if not definition.feeding(node)}
    line = sorted(certain)
    for node in line:
        for link in definition.outgoing[node]:
            if link.feeds and not link.label and link.target not in certain:
                certain.add(link.target)
                line.append(link.target)
    return certain


def _misfits(
    definition: Definition,
    links: Sequence[Link],
    agent: Agent,
    wanted: Schema[Any],
    *,
    kind: Kind = "one",
    sure: Sequence[Link] = (),
) -> Iterator[str]:
    sources = [definition.nodes[link.source] for link in links]
    given = [_said(source) for source in sources]
    names = [source.name for source in sources]
    whole: dict[str, Any]
    match kind:
        case "one":
            whole = given[0]
        case "list":
            # Routes may leave some of them out: of the rest, each must fit the items.
            whole = {"type": "array", "items": {"anyOf": given}}
            if len(sure) == len(links):
                whole = {"type": "array", "prefixItems": given}
        case "object":
            whole = {
                "type": "object",
                "properties": dict(zip(names, given, strict=True)),
                "required": [definition.nodes[link.source].name for link in sure],
                "additionalProperties": False,
            }
    why = clash(whole, wanted.json_schema())
    if why is not None:
        of = " and ".join(map(repr, names))
        yield f"the output of {of} never fits the input of {agent.name!r}: {why}"


def _said(agent: Agent) -> dict[str, Any]:
    """Return what an agent says of its output, as a part of another schema."""
    schema = agent.output_schema
    return {} if schema is None else {WHOLE: schema.json_schema()}


def _input_of(agent: Agent) -> Schema[Any] | None:
    try:
        return agent.input_schema
    except AgentFunctionError:
        return None  # it names what is defined further down, and is looked at when it runs
