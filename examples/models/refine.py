"""A writer and a critic: the one writes a headline, the other sends it back, or ends the loop.

    refine                      again and again, until the critic is satisfied
    ├── writer                  is told what the critic has said
    └── critic                  says what is wrong, or calls the tool exit_loop

    python examples/models/refine.py "A runtime for agents that run side by side on trio ..."
    PARALLEL_AGENT_MODEL=ollama/qwen2.5:7b python examples/models/refine.py "..."

The variable names a model at any server that speaks chat completions. Without it no model is asked:
a script drops a word at a time.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Final

import trio

from parallel_agent import FunctionCall, LlmAgent, LoopAgent, ModelRequest, Runner, exit_loop
from parallel_agent.testing import ScriptedModel

TOPIC: Final = (
    "Agents that run side by side on trio, merged into one stream of events, "
    "with no task left behind when the reader leaves"
)
LONGEST: Final = 60  # characters of a headline
ROUNDS: Final = 8

ASKED: Final = os.environ.get("PARALLEL_AGENT_MODEL")


def write(request: ModelRequest) -> str:
    """Write, in the place of a model: what was there, without its last part."""
    found = re.search(r"Your last headline: (.*)", request.instruction)
    before = found[1].strip() if found else ""
    if not before:
        return request.contents[0].text if request.contents else TOPIC
    shorter = before.rpartition(",")[0] or before.rpartition(" ")[0]
    return shorter.removesuffix(",")


def criticise(request: ModelRequest) -> str | FunctionCall:
    """Criticise, in the place of a model: count the letters."""
    found = re.search(r"The headline: (.*)", request.instruction)
    length = len(found[1]) if found else 0
    if length <= LONGEST:
        return FunctionCall("exit_loop", {})
    return f"It has {length} letters, and {LONGEST} are enough. Leave something out."


writer = LlmAgent(
    "writer",
    ASKED or ScriptedModel(write, name="script"),
    "You write a headline for what the user tells you. Answer with the headline alone.\n"
    "Your last headline: {headline?}\nWhat the critic says of it: {critique?}",
    include_contents="none",
    output_key="headline",
)

critic = LlmAgent(
    "critic",
    ASKED or ScriptedModel(criticise, name="script"),
    f"You are a critic of headlines. One must be true to its subject, and have at most {LONGEST} "
    "letters. If this one is good, call exit_loop, and say nothing. If not, say in one sentence "
    "what is to be changed.\nThe headline: {headline}",
    tools=[exit_loop],
    include_contents="none",
    output_key="critique",
)

refine = LoopAgent("refine", [writer, critic], max_iterations=ROUNDS)


async def main(message: str) -> None:
    """Refine; print each headline, and what was said of it."""
    print(f"Asking {ASKED}." if ASKED else "No model is asked: a script answers instead.")
    async with Runner(refine).open(message or TOPIC) as run:
        async for event in run:
            if event.text and not event.partial:
                print(f"{event.author}: {event.text}")
    print(f"\nThe headline: {run.result.state['headline']}")


if __name__ == "__main__":
    trio.run(main, " ".join(sys.argv[1:]))
