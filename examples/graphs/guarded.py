"""A guard before a fan-out: what it does not let through costs nothing more.

    size ──> manners ──> (all nodes)      french ──┐
                                           german ──┴──> both

Guards run before everything else, one after another. The first that says no ends the graph,
normally, with a `Refusal` as its output.

    python examples/graphs/guarded.py "good morning"
    python examples/graphs/guarded.py "you fool"
"""

from __future__ import annotations

import sys
from typing import Any

import trio

from parallel_agent import GraphAgent, InvocationContext, Refusal, Runner, agent

LONGEST = 60
RUDE = {"fool", "idiot"}
WORDS = {"good": ("bon", "guten"), "morning": ("matin", "Morgen"), "friend": ("ami", "Freund")}


@agent
async def size(ctx: InvocationContext) -> bool:
    """A yes or a no is enough."""
    return len(ctx.user_text) <= LONGEST


@agent
async def manners(ctx: InvocationContext) -> dict[str, Any]:
    """It may also say why."""
    rude = sorted(RUDE.intersection(ctx.user_text.split()))
    return {"validation": not rude, "reason": f"rude: {', '.join(rude)}"}


@agent
async def french(ctx: InvocationContext) -> str:
    return " ".join(WORDS.get(word, (word, word))[0] for word in ctx.user_text.split())


@agent
async def german(ctx: InvocationContext) -> str:
    return " ".join(WORDS.get(word, (word, word))[1] for word in ctx.user_text.split())


@agent
async def both(ctx: InvocationContext, said: dict[str, str]) -> str:
    return ", ".join(f"in {language} {text!r}" for language, text in said.items())


graph = GraphAgent("translate", [([french, german], both)], guards=[size, manners])


async def main(text: str) -> None:
    """Run it, and tell a refusal from an answer."""
    result = await Runner(graph).run(text)
    refusal = Refusal.of(result.output)
    print(result.output if refusal is None else f"{refusal.guard} said no ({refusal.reason})")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "good morning friend")
