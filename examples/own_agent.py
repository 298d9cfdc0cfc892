"""An agent class of one's own: choose, at run time, which of two agents answers.

`IfElse` is a composite like those that are shipped: it stands in trees, its children are part of
the tree, and it runs them with `ctx.run_agent`. Its name, callbacks, `output_key` and errors work
as everywhere.

Run it with `python examples/own_agent.py`, or
`parallel-agent run examples/own_agent.py "How old is tea?"`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import trio

from parallel_agent import Agent, InvocationContext, Runner, SequentialAgent, agent


class IfElse(Agent):
    """Runs one agent or the other."""

    def __init__(
        self,
        name: str,
        condition: Callable[[InvocationContext], bool],
        then: Agent,
        otherwise: Agent,
        **options: Any,
    ) -> None:
        """Both agents become part of the tree: their names are checked, and can be looked up."""
        super().__init__(name, [then, otherwise], **options)
        self.condition = condition

    async def run(self, ctx: InvocationContext) -> Any:
        """Run the one that the condition chooses; its output is this agent's."""
        then, otherwise = self.sub_agents
        chosen = then if self.condition(ctx) else otherwise
        await ctx.emit(f"{chosen.name} is to answer")
        return await ctx.run_agent(chosen)


@agent
async def answer(ctx: InvocationContext) -> str:
    return f"{len(ctx.user_text)} letters is a good question."


@agent
async def ask_back(ctx: InvocationContext) -> str:
    return f"What do you want to know about {ctx.user_text.rstrip('.!')!r}?"


@agent
async def say_goodbye(ctx: InvocationContext) -> str:
    return f"I said: {ctx.state['said']}"


desk = SequentialAgent(
    "desk",
    [
        IfElse(
            "is_question",
            lambda ctx: ctx.user_text.endswith("?"),
            then=answer,
            otherwise=ask_back,
            output_key="said",
        ),
        say_goodbye,
    ],
)


async def main(message: str) -> None:
    async with Runner(desk).open(message) as run:
        async for event in run:
            if event.text:
                print(f"{event.path:<24} {event.text}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if sys.argv[1:] else "How old is tea?")
