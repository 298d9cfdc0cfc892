"""Message passing and boards: what nodes write and read together, as documents of the graph.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from parallel_agent.agent import Agent
from parallel_agent.config.format import BoardEntry
from parallel_agent.config.plan import Plan, Planned
from parallel_agent.graph.documents import Document

__all__ = ["PIPE", "chains_of", "documents_of", "imports_of", "passed_on_in"]

PIPE: Final = "message_passing"
"""The document that holds what nodes pass on."""


def passed_on_in(plan: Plan, agents: Mapping[str, Agent], last: Agent) -> list[Document]:
    """Return what the nodes of a controller's agent pass on; ``last`` reads it as well."""
    return [attrs.evolve(pipe, readers=[*pipe.readers, last]) for pipe in _pipe(plan, agents)]


def documents_of(plan: Plan, agents: Mapping[str, Agent]) -> list[Document]:
    """Return the documents of a graph; ``agents`` are its nodes by id."""
    return [*_pipe(plan, agents), *_boards(plan, agents)]


def _pipe(plan: Plan, agents: Mapping[str, Agent]) -> Iterator[Document]:
    uses = [(node, node.entry.message_passing) for node in plan.in_order()]
    writing = [agents[node.id] for node, use in uses if use is not None and use.output]
    reading = [agents[node.id] for node, use in uses if use is not None and use.input]
    if writing or reading:
        yield Document(PIPE, appenders=writing, readers=reading, initial="")


def _boards(plan: Plan, agents: Mapping[str, Agent]) -> Iterator[Document]:
    board = plan.file.blackboard
    boards = {} if board is None else {entry["id"]: entry for entry in board.boards}
    users = [node for node in plan.in_order() if node.entry.blackboard is not None]
    for name, entry in boards.items():
        own = [node for node in users if _is_on(node, name)]
        shown_on = [
            one for one, other in boards.items() if one == name or name in imports_of(other)
        ]
        readers = [
            node for node in users if _reads(node) and any(_is_on(node, one) for one in shown_on)
        ]
        enrichers = [node for node in own if _reads(node) and _writes(node)]
        yield Document(
            name,
            appenders=[agents[node.id] for node in own if _writes(node)],
            readers=[agents[node.id] for node in readers],
            key=name,
            initial=None if entry.get("cleanup") is False else "",
            chain=all(map(_is_chained, enrichers)),
        )


def chains_of(plan: Plan) -> list[list[str]]:
    """Return the nodes that come one after another on a board where others do not."""
    boards: dict[str, list[Planned]] = {}
    for node in plan.in_order():
        use = node.entry.blackboard
        if use is not None and _reads(node) and _writes(node):
            boards.setdefault(use.id, []).append(node)
    return [
        [node.id for node in enrichers if _is_chained(node)]
        for enrichers in boards.values()
        if not all(map(_is_chained, enrichers))
    ]


def imports_of(entry: BoardEntry) -> list[str]:
    """Return the boards whose texts those who read this one read as well."""
    return [*(entry.get("import") or ()), *(entry.get("imports") or ())]


def _is_on(node: Planned, board: str) -> bool:
    return node.entry.blackboard is not None and node.entry.blackboard.id == board


def _reads(node: Planned) -> bool:
    return node.entry.blackboard is not None and bool(node.entry.blackboard.read)


def _is_chained(node: Planned) -> bool:
    return node.entry.blackboard is not None and bool(node.entry.blackboard.chain)


def _writes(node: Planned) -> bool:
    return node.entry.blackboard is not None and bool(node.entry.blackboard.write)
