"""A dispatcher, three analysts, and a synthesiser: who is asked depends on the text.

    read ──> dispatch ──> structure ──┐
                 ├──────> wording ────┼──> synthesise
                 └──────> code ───────┘

The dispatcher looks at the text and selects the analysts that have something to say about it; the
others are skipped. The synthesiser waits for those that were selected, and is given what they found
by name. Run it on a file of text or Markdown:

    python examples/graphs/analysts.py README.md
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import attrs
import trio

from parallel_agent import Event, GraphAgent, InvocationContext, Runner, Select, agent

DEFAULT = Path(__file__).resolve().parents[2] / "README.md"
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHORT = 4  # letters; shorter words say little about what a text is about


@attrs.frozen
class Findings:
    """What the synthesiser is given: a field for each analyst, None for those not asked."""

    structure: str | None = None
    wording: str | None = None
    code: str | None = None


@agent(output_key="text")
def read(ctx: InvocationContext) -> Event:
    """Read the file that is named."""
    text = Path(ctx.user_text or DEFAULT).read_text("utf-8")
    return Event(f"{len(text):,} letters", output=text)


@agent
async def dispatch(ctx: InvocationContext, text: str) -> list[str]:
    """Decide who is asked: names of analysts."""
    wanted = ["wording"]
    wanted += ["structure"] if re.search(r"^#+ ", text, re.MULTILINE) else []
    wanted += ["code"] if "```" in text else []
    return wanted


@agent
def structure(ctx: InvocationContext) -> str:
    """Count headings, and how deep they go."""
    headings = re.findall(r"^(#+) (.+)$", FENCE.sub("", ctx.state["text"]), re.MULTILINE)
    deepest = max(len(marks) for marks, _ in headings)
    return f"{len(headings)} headings, {deepest} levels deep, from {headings[0][1]!r}"


@agent
def wording(ctx: InvocationContext) -> str:
    """Find the words that are used most."""
    words = re.findall(r"[a-z]+", FENCE.sub("", ctx.state["text"]).lower())
    common = Counter(word for word in words if len(word) > SHORT).most_common(3)
    return f"{len(words):,} words, most of all {', '.join(word for word, _ in common)}"


@agent
def code(ctx: InvocationContext) -> str:
    """Count the blocks of code by their language."""
    languages = Counter(language or "plain" for language, _ in FENCE.findall(ctx.state["text"]))
    return ", ".join(f"{times} x {language}" for language, times in languages.most_common())


@agent
async def synthesise(ctx: InvocationContext, found: Findings) -> str:
    """Put together what was found."""
    said = attrs.asdict(found)
    return "\n".join(f"{name}: {what or 'not asked'}" for name, what in said.items())


analysts = [structure, wording, code]
graph = GraphAgent("review", [(read, dispatch), Select(dispatch, analysts), (analysts, synthesise)])


async def main(path: str) -> None:
    """Run it, and print who says what as it comes."""
    async with Runner(graph).open(path) as run:
        async for event in run:
            if event.text:
                print(f"[{event.author}] {event.text}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else str(DEFAULT))
