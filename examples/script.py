"""A plain script runs a tree of agents; there is no event loop to be seen.

    headline                one after another
    ├── look                side by side
    │   ├── longest         the longest words of the text, a plain function
    │   └── frequent        those that come most often
    └── choose              asks which of them is to be the headline

By default the first is taken. With --ask you are asked, by `input()` in the loop that reads the
events. With --each-line every line is a text of its own: so many runs, in as many threads.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from parallel_agent import InvocationContext, ParallelAgent, SequentialAgent, agent
from parallel_agent.sync import open_sync, run_sync

TEXT: Final = "The tea was good, and the evening was long.\nIn the morning there was no tea."


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


@agent(output_key="longest")
def longest(ctx: InvocationContext) -> list[str]:
    found = sorted(set(words(ctx.user_text)), key=lambda word: (-len(word), word))
    return found[:2]


@agent(output_key="frequent")
async def frequent(ctx: InvocationContext) -> list[str]:
    return [word for word, _ in Counter(words(ctx.user_text)).most_common(2)]


@agent
async def choose(ctx: InvocationContext) -> str:
    choices: list[str] = list(dict.fromkeys([*ctx.state["longest"], *ctx.state["frequent"]]))
    prompt = f"One of {', '.join(choices)}?"
    # If nobody holds the run, as in `run_sync`, the default is the answer at once.
    chosen = await ctx.request_input(prompt, schema=str, default=choices[0])
    return f"{chosen if chosen in choices else choices[0]}: {len(words(ctx.user_text))} words"


headline = SequentialAgent("headline", [ParallelAgent("look", [longest, frequent]), choose])


def ask(text: str) -> str:
    """Run it event by event, and answer what it asks."""
    with open_sync(headline, text) as run:
        for event in run:
            if event.request is not None:
                run.respond(event.request.id, input(f"{event.request.prompt} "))
            elif said := event.text or event.output:
                print(f"{event.author}: {said}")
    return run.result.text


def take_the_first(text: str) -> str:
    return run_sync(headline, text).text


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", nargs="?", default=TEXT, help="by default: something about tea")
    parser.add_argument("--ask", action="store_true", help="be asked")
    parser.add_argument("--each-line", action="store_true", help="a headline for each line")
    chosen = parser.parse_args(arguments)
    if not words(chosen.text):
        parser.error("the text has no words")
    if chosen.ask:
        ask(chosen.text)
    elif chosen.each_line:
        lines = [line for line in chosen.text.splitlines() if words(line)]
        with ThreadPoolExecutor() as threads:
            for line in threads.map(take_the_first, lines):
                print(line)
    else:
        print(take_the_first(chosen.text))


if __name__ == "__main__":
    main()
