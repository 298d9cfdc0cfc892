"""What of a tree must be the same for a run of it to be resumed: its shape.

Names, kinds, order, bounds and policies; not what agents do, nor how often they are tried, which
may be mended between a crash and the resumption.

Pure: no event loop, no clock. Nothing here recurses: a tree may be thousands deep.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from parallel_agent.agent import Agent

__all__ = ["difference", "fingerprint", "shape_of"]

_SHOWN: Final = 10
"""How many lines of a difference are shown."""


def shape_of(tree: Agent) -> list[str]:
    """Return a line for each agent, in the order of declaration: depth, name, what it is."""
    lines: list[str] = []
    todo: list[tuple[int, Agent]] = [(0, tree)]
    while todo:
        depth, agent = todo.pop()
        key = "" if agent.output_key is None else f" -> {agent.output_key}"
        lines.append(f"{depth} {agent.name}: {agent.shape}{key}")
        todo.extend((depth + 1, child) for child in reversed(agent.sub_agents))
    return lines


def fingerprint(shape: Sequence[str]) -> str:
    """Return what tells two shapes apart."""
    return sha256("\n".join(shape).encode(errors="surrogatepass")).hexdigest()


def difference(recorded: Sequence[str], now: Sequence[str]) -> str:
    """Return in a few lines how two shapes differ: ``-`` was there, ``+`` is now."""
    lines = [line for line in difflib.ndiff(recorded, now) if line[:2] in ("- ", "+ ")]
    more = [f"and {len(lines) - _SHOWN} lines more"] if len(lines) > _SHOWN else []
    return "\n".join([*lines[:_SHOWN], *more])
