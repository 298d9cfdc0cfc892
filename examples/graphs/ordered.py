"""Ordered forms: the same edges, one after another.

`Ordered(plan, [first, second, third])` gives each of the three the plan, as a list in a chain
would, but runs them in turn; `Ordered([...], total)` does so with the sources of a join. What has
to go through one door, a device, say, or an account with a limit, goes through it in order.

    python examples/graphs/ordered.py
"""

from __future__ import annotations

import trio

from parallel_agent import FunctionAgent, GraphAgent, InvocationContext, Ordered, Runner, agent


@agent
async def plan(ctx: InvocationContext) -> int:
    """Say how much each is to carry."""
    return 3


def carrier(name: str) -> FunctionAgent:
    """Return an agent that carries as much as it is given."""

    async def carry(ctx: InvocationContext, amount: int) -> int:
        await trio.sleep(0.05)
        print(f"{name} carries {amount}")
        return amount

    return agent(carry, name=name)


@agent
async def total(ctx: InvocationContext, carried: list[int]) -> str:
    """Add up."""
    return f"{sum(carried)} in all"


carriers = [carrier(name) for name in ("first", "second", "third")]
graph = GraphAgent("move", [Ordered(plan, carriers), (carriers, total)])


async def main() -> None:
    """Run it."""
    print((await Runner(graph).run()).text)


if __name__ == "__main__":
    trio.run(main)
