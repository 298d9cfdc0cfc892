"""A fan-out in a fan-out, and a join over leaves of different depth.

    outline ──> facts ──> check_numbers ──┐
       │          └─────> check_names ────┤
       └──────> opinions ─────────────────┴──> write

`write` waits for `opinions`, which is one step from the start, and for both checks, which are two.
`check_names` starts when `facts` has ended: it does not wait for `opinions`, however slow that is.

    python examples/graphs/nested.py
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio

from parallel_agent import GraphAgent, InvocationContext, Runner, agent


@agent
async def outline(ctx: InvocationContext) -> str:
    """Say what it is about."""
    return ctx.user_text or "the harbour"


@agent
async def facts(ctx: InvocationContext, topic: str) -> str:
    """Find facts: quick."""
    return f"{topic} has 12 piers; Ada built it"


@agent
async def opinions(ctx: InvocationContext, topic: str) -> AsyncIterator[str]:
    """Ask around: slow, and it says what it hears as it goes."""
    for person in ("a pilot", "a fisher"):
        await trio.sleep(0.2)
        yield f"{person} likes {topic}"


@agent
async def check_numbers(ctx: InvocationContext, found: str) -> str:
    """Look at the numbers in the facts."""
    return f"numbers: {[word for word in found.split() if word.isdigit()]}"


@agent
async def check_names(ctx: InvocationContext, found: str) -> str:
    """Look at the names in the facts."""
    return f"names: {[word for word in found.split() if word.istitle()]}"


@agent
async def write(ctx: InvocationContext, leaves: list[str]) -> str:
    """Put the leaves together, in the order the edges name them."""
    return "; ".join(leaves)


graph = GraphAgent(
    "article",
    [
        (outline, [facts, opinions]),
        (facts, [check_numbers, check_names]),
        ([check_numbers, check_names, opinions], write),
    ],
)


async def main() -> None:
    """Run it, and print who says what as it comes."""
    async with Runner(graph).open("the harbour") as run:
        async for event in run:
            if event.text:
                print(f"[{event.branch}] {event.text}")


if __name__ == "__main__":
    trio.run(main)
