"""Map and reduce over a folder: a node for each file, found at run time, four at a time.

    find ──> each: count ──> merge ──> report

Run it with the live view, on a terminal, on any folder of text:

    parallel-agent run examples/graphs/map_reduce.py docs
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import trio

from parallel_agent import BestEffort, GraphAgent, InvocationContext, MapAgent, Runner, agent

DEFAULT = Path(__file__).resolve().parents[2] / "docs"
KINDS = {".md", ".txt", ".rst"}
SHORT = 5  # letters


@agent
def find(ctx: InvocationContext) -> list[str]:
    """Find the files, in a thread of its own."""
    folder = Path(ctx.user_text or DEFAULT)
    return sorted(str(path) for path in folder.rglob("*") if path.suffix in KINDS)


@agent
def count(ctx: InvocationContext, path: str) -> dict[str, int]:
    """Count the longer words of one file. One that cannot be read fails, and no other."""
    words = re.findall(r"[a-z]+", Path(path).read_text("utf-8").lower())
    return dict(Counter(word for word in words if len(word) > SHORT))


@agent
async def merge(ctx: InvocationContext, counts: list[dict[str, int] | None]) -> dict[str, int]:
    """Add up what the files have; None is one that could not be read."""
    total = Counter[str]()
    for found in counts:
        total.update(found or {})
    return dict(total.most_common(5))


@agent
async def report(ctx: InvocationContext, most: dict[str, int]) -> str:
    """Say what is found most."""
    return ", ".join(f"{word} ({times})" for word, times in most.items()) or "no words"


graph = GraphAgent(
    "words",
    [(find, MapAgent("each", count, barrier=BestEffort(), max_concurrency=4), merge, report)],
)


if __name__ == "__main__":
    print(trio.run(Runner(graph).run, str(DEFAULT)).text)
