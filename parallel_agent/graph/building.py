"""From edges to a definition: all that is wrong is told in one error.

Pure: no event loop, no clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from parallel_agent.agent import Agent, check_agent
from parallel_agent.errors import GraphError, TreeError
from parallel_agent.graph.checking import check_exits, check_starts, find_bodies, find_cycle
from parallel_agent.graph.definition import Definition, define
from parallel_agent.graph.documents import Board, infer_links
from parallel_agent.graph.feeding import check_types
from parallel_agent.graph.reading import Reader

__all__ = ["build"]


def build(
    name: str,
    edges: Iterable[Any],
    nodes: Iterable[Any],
    *,
    guards: Sequence[Any] = (),
    documents: Iterable[Any] = (),
) -> Definition:
    """Return the definition of the graph ``name``.

    Raises:
        GraphError: it cannot run; all that is wrong with it is named.
    """
    reader = Reader()
    for position, node in enumerate(_listed(nodes, "nodes", reader.problems)):
        reader.node(node, f"nodes[{position}]")
    for position, edge in enumerate(_listed(edges, "edges", reader.problems)):
        reader.edge(edge, position)
    boards: list[Board] = []
    for position, document in enumerate(_listed(documents, "documents", reader.problems)):
        board = reader.document(document, position)
        if board is not None:
            boards.append(board)
    agents = reader.agents()
    if not agents and not reader.problems:
        reader.problems.append("it has no nodes: give it edges, or nodes=[...]")
    reader.problems += [*_bad_guards(guards, agents), *_same_twice(boards)]
    routes = reader.routes()
    definition = define(agents, reader.links, reader.loops, routes, boards)
    cycle = find_cycle(len(agents), definition.links)
    if cycle:
        names = [agents[node].name for node in [*cycle, cycle[0]]]
        reader.problems.append(
            f"{' -> '.join(names)} comes round without a bound; write the edge that leads back as "
            "Edge(..., max_times=...)"
        )
    else:
        wrong = list(find_bodies(definition))
        if boards and not wrong:
            inferred = infer_links(len(agents), reader.links, reader.loops, boards)
            definition = define(agents, [*reader.links, *inferred], reader.loops, routes, boards)
            wrong = list(find_bodies(definition))
        reader.problems += wrong or check_exits(definition)
        reader.problems += check_starts(definition, reader.started)
    reader.problems += check_types(definition)
    if reader.problems:
        raise GraphError(name, reader.problems)
    return definition


def _listed(items: Any, what: str, problems: list[str]) -> list[Any]:
    if isinstance(items, str | AbstractSet | Agent) or not isinstance(items, Iterable):
        problems.append(f"{what} is a list, not {items!r:.80}")
        return []
    return [*items]


def _same_twice(boards: Iterable[Board]) -> list[str]:
    counted = Counter(board.document.name for board in boards)
    kept = Counter(board.document.key for board in boards if board.document.key is not None)
    twice = [f"two documents are called {name!r}" for name, times in counted.items() if times > 1]
    return twice + [
        f"two documents are kept under the state key {key!r}" for key, n in kept.items() if n > 1
    ]


def _bad_guards(guards: Sequence[Any], agents: Sequence[Agent]) -> Iterator[str]:
    names = {agent.name for agent in agents}
    for position, guard in enumerate(guards):
        try:
            check_agent(guard, f"guards[{position}]")
        except TreeError as exc:
            yield str(exc)
            continue
        if guard in agents:
            yield (
                f"guard {guard.name!r} runs before all nodes, and so has no edges; "
                "leave them out, or the guard"
            )
        elif guard.name in names:
            yield f"a guard and a node are called {guard.name!r}"
