"""What a node of a graph costs: chains, wide fans and drawn graphs, of three sizes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Final

from benchmarks import raw
from benchmarks.measure import Row, Sizes, Timed, clock, run_rounds, times_base
from benchmarks.trees import whole_run
from parallel_agent import Agent, Edge, GraphAgent, InvocationContext, agent

Sources = Sequence[Sequence[int]]
"""For each node, those that lead to it: numbers below its own; the first one has none."""

PEERS: Final = ("agent-framework", "langgraph", "google-adk")
PATIENCE: Final = 120
"""Seconds on the wall that a peer has for one case, the start of its Python included."""

NOT_INSTALLED: Final = 3
"""The exit status of `benchmarks/graph_peers.py` that says so."""

NEAR: Final = 50
"""How far back a node of a drawn graph looks for its sources."""


def chain(nodes: int) -> Sources:
    """One after another."""
    return [[], *([number] for number in range(nodes - 1))]


def fan(nodes: int) -> Sources:
    """From one node to all others but the last, and from those to that."""
    return [[], *([0] for _ in range(nodes - 2)), list(range(1, nodes - 1))]


def drawn(nodes: int) -> Sources:
    """From up to three nodes not far before; the last one waits for all that nothing follows."""
    random = Random(nodes)  # the same graph each time
    sources: list[list[int]] = [[]]
    for number in range(1, nodes - 1):
        near = range(max(0, number - NEAR), number)
        sources.append(sorted({random.choice(near) for _ in range(3)}))
    followed = {source for before in sources for source in before}
    sources.append([number for number in range(nodes - 1) if number not in followed])
    return sources


SHAPES: Final[dict[str, Callable[[int], Sources]]] = {"chain": chain, "fan": fan, "drawn": drawn}


def graph(sources: Sources) -> Agent:
    """A graph of nodes that say one text each."""

    async def work(_ctx: InvocationContext) -> str:
        return "x"

    nodes = [agent(work, name=f"n{number}") for number in range(len(sources))]
    edges = [
        Edge([nodes[source] for source in before], node)
        for node, before in zip(nodes, sources, strict=True)
        if before
    ]
    return GraphAgent("graph", edges)


def graphs(sizes: Sizes) -> Iterator[Row]:
    """A node of a graph, against a raw task that sends one item; and in other frameworks."""
    for name, shape in SHAPES.items():
        for nodes in sizes.graphs:
            yield from _graphs(f"{name} of {nodes:,}", shape(nodes), sizes)
        yield from _growth(name, sizes)


def _graphs(case: str, sources: Sources, sizes: Sizes) -> Iterator[Row]:
    nodes = len(sources)
    began = clock()
    tree = graph(sources)
    defined = clock() - began
    contestants: dict[str, Timed] = {
        "raw": partial(raw.channel, nodes, 1),
        "graph": partial(whole_run, tree),
    }
    seconds = run_rounds(contestants, sizes.rounds)
    yield Row("graphs", case, "definition per node", defined / nodes * 1e6, "us")
    for name, taken in seconds.items():
        yield Row("graphs", case, f"{name} per node", min(taken) / nodes * 1e6, "us")
    yield Row("graphs", case, "times raw", times_base(seconds["graph"], seconds["raw"]), "ratio")
    for peer in PEERS if sizes.peers is not None else ():
        peers = _in_peer(sizes.peers or "", peer, sources)
        if peers is not None:
            yield Row("graphs", case, f"{peer} per node", peers / nodes * 1e6, "us")
            yield Row("graphs", case, f"{peer} / ours", peers / min(seconds["graph"]), "ratio")


def _growth(name: str, sizes: Sizes) -> Iterator[Row]:
    """How many times as long a node takes in a graph that is larger; measured in turn."""
    for small, large in pairwise(sizes.graphs):
        contestants: dict[str, Timed] = {
            str(nodes): partial(whole_run, graph(SHAPES[name](nodes))) for nodes in (small, large)
        }
        seconds = run_rounds(contestants, sizes.rounds)
        ratio = times_base(seconds[str(large)], seconds[str(small)]) * small / large
        yield Row("graphs", f"{name} of {large:,}", f"times {small:,}", ratio, "ratio")


def _in_peer(python: str, peer: str, sources: Sources) -> float | None:
    """Return the best of its seconds; infinity if it takes too long, None if it has none."""
    script = Path(__file__).with_name("graph_peers.py")
    # The first run pays for what is made when first needed.
    asked = json.dumps({"framework": peer, "sources": sources, "rounds": 3})
    try:
        done = subprocess.run(  # noqa: S603  # the Python that the command line names
            [python, str(script)],
            input=asked,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return math.inf
    if done.returncode == NOT_INSTALLED:
        return None
    if done.returncode:
        why = done.stderr.strip().rpartition("\n")[2]
        print(f"{peer} cannot run {len(sources):,} nodes: {why}", file=sys.stderr)
        return None
    seconds: list[float] = json.loads(done.stdout)
    return min(seconds)
