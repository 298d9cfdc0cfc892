"""Workflow agents nest freely: a loop around a parallel stage, inside a sequence.

    essay                       one after another
    ├── outline
    ├── polish                  over and over, until the judge escalates
    │   ├── reviews             side by side
    │   │   ├── too_long
    │   │   └── repeats
    │   ├── edit
    │   └── judge
    └── publish

Run it with `python examples/nested.py`, or `parallel-agent run examples/nested.py "some text"`.
"""

from __future__ import annotations

import sys
from itertools import pairwise

import trio

from parallel_agent import (
    Event,
    EventActions,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Runner,
    SequentialAgent,
    agent,
)

DRAFT = "the tea was was good and the the evening was long enough for us"
WORDS = 9


@agent(output_key="text")
async def outline(ctx: InvocationContext) -> str:
    """Begin with what we were given."""
    return ctx.user_text


@agent(output_key="long")
async def too_long(ctx: InvocationContext) -> Event:
    """Say how many words are too many."""
    over = max(0, len(ctx.state["text"].split()) - WORDS)
    return Event(f"{over} words too many", output=over)


@agent(output_key="double")
async def repeats(ctx: InvocationContext) -> Event:
    """Say which words are repeated. It runs beside `too_long`, and does not see its writes."""
    words = ctx.state["text"].split()
    doubled = [one for one, two in pairwise(words) if one == two]
    return Event(f"repeated: {', '.join(doubled) or 'nothing'}", output=doubled)


@agent(output_key="text")
async def edit(ctx: InvocationContext) -> str:
    """Mend one thing: the first repeated word, else the last word."""
    words = ctx.state["text"].split()
    if ctx.state["double"]:
        at = next(i for i in range(1, len(words)) if words[i] == words[i - 1])
        del words[at]
    elif ctx.state["long"]:
        words.pop()
    return " ".join(words)


@agent
async def judge(ctx: InvocationContext) -> Event:
    """Escalate when nothing is left to mend: that ends the loop, and the loop alone."""
    done = not ctx.state["double"] and not ctx.state["long"]
    return Event("good enough" if done else "again", actions=EventActions(escalate=done))


@agent
async def publish(ctx: InvocationContext) -> str:
    """Run after the loop."""
    text: str = ctx.state["text"]
    return text.capitalize() + "."


essay = SequentialAgent(
    "essay",
    [
        outline,
        LoopAgent(
            "polish",
            [ParallelAgent("reviews", [too_long, repeats]), edit, judge],
            max_iterations=20,
        ),
        publish,
    ],
)


async def main(draft: str) -> None:
    async with Runner(essay).open(draft) as run:
        async for event in run:
            if event.text:
                print(f"{event.path:<28} {event.text}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if sys.argv[1:] else DRAFT)
