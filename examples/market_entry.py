"""The field's first example: three experts look at one question, and one agent merges them.

    market_entry                one after another
    ├── experts                 side by side, each with an output_key
    │   ├── researcher
    │   ├── legal
    │   └── finance
    └── advisor                 reads what the three have written

The experts look their answers up in small tables, in the place of a model. Run it with
`python examples/market_entry.py`, or `parallel-agent run examples/market_entry.py "..."`.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import trio

from parallel_agent import (
    Event,
    InvocationContext,
    ParallelAgent,
    Runner,
    SequentialAgent,
    agent,
)

QUESTION = "Should we sell our tea in Norway?"

MARKETS = {"Norway": "drinks more coffee than tea, and tea sales grow by 4 % a year"}
LAWS = {"Norway": "in the customs union of nobody: duty applies, labels are in Norwegian"}
TAXES = {"Norway": 15}


def country(question: str, known: dict[str, object]) -> str | None:
    return next((name for name in known if name in question), None)


@agent(output_key="research")
async def researcher(ctx: InvocationContext) -> AsyncIterator[str]:
    """Find out who would buy it."""
    yield "looking for sales figures ..."
    await trio.sleep(0.2)
    place = country(ctx.user_text, dict(MARKETS))
    yield f"{place} {MARKETS[place]}" if place else "no market that I know"


@agent(output_key="legal")
async def legal(ctx: InvocationContext) -> AsyncIterator[str]:
    """Find out whether it is allowed."""
    yield "reading the customs tariff ..."
    await trio.sleep(0.3)
    place = country(ctx.user_text, dict(LAWS))
    yield f"{place} is {LAWS[place]}" if place else "no law that I know"


@agent(output_key="finance")
async def finance(ctx: InvocationContext) -> AsyncIterator[str | Event]:
    """Find out what is left. An output need not be text."""
    yield "doing the sums ..."
    await trio.sleep(0.1)
    place = country(ctx.user_text, dict(TAXES))
    rate = TAXES.get(place or "", 25)
    yield Event(f"food is taxed at {rate} %", output={"tax": rate, "margin": 40 - rate})


@agent
async def advisor(ctx: InvocationContext) -> str:
    """Merge the three. It starts when all have ended, so everything is there."""
    margin = ctx.state["finance"]["margin"]
    verdict = "Worth a try" if margin > 20 else "Not now"
    return f"{verdict}: {ctx.state['research']}; {ctx.state['legal']}; a margin of {margin} %."


market_entry = SequentialAgent(
    "market_entry",
    [ParallelAgent("experts", [researcher, legal, finance]), advisor],
)


async def main(question: str) -> None:
    async with Runner(market_entry).open(question) as run:
        async for event in run:
            if event.text:
                print(f"{event.author:>10}: {event.text}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if sys.argv[1:] else QUESTION)
