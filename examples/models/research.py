"""Research: three analysts read one document side by side, and a fourth sums up what they found.

    research                    one after another
    ├── read                    the document, into state
    ├── analysts                side by side, each with an output_key
    │   ├── facts
    │   ├── risks
    │   └── questions
    └── synthesiser             is told what the three have found

    python examples/models/research.py docs/explanation/design.md
    PARALLEL_AGENT_MODEL=ollama/qwen2.5:7b python examples/models/research.py FILE

The variable names a model at any server that speaks chat completions (`OLLAMA_BASE_URL` says where
it is, `OPENAI_API_KEY` who asks, ...). Without it no model is asked: a script looks for key words.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Final

import trio

from parallel_agent import (
    InvocationContext,
    LlmAgent,
    ModelRequest,
    ParallelAgent,
    Runner,
    SequentialAgent,
    agent,
)
from parallel_agent.testing import ScriptedModel

DEFAULT: Final = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "design.md"
MOST: Final = 20_000  # characters that are read

ASKED: Final = os.environ.get("PARALLEL_AGENT_MODEL")

SIGNS: Final = {
    "facts": r"\d",
    "risks": r"\b(not|never|fail|fails|lost|cancelled|error|unless)\b",
    "questions": r"\b(may|might|could|should|perhaps)\b|\?",
}
"""What the script goes by, in the place of a model."""


def script(request: ModelRequest) -> str:
    """Answer an analyst with the first sentences that show the signs; sum up by quoting."""
    kind = next((kind for kind in SIGNS if f"looks for {kind}" in request.instruction), None)
    if kind is None:
        found = re.findall(r"^## (\w+)\n- (.*)$", request.instruction, re.MULTILINE)
        return "\n".join(f"The first of the {name}: {text}" for name, text in found)
    _, _, document = request.instruction.partition("The document:")
    prose = re.sub(
        r"^(```.*?^```|\|.*?$|#.*?$|\s*[->*]+ )", " ", document, flags=re.MULTILINE | re.DOTALL
    )
    sentences = re.split(r"(?<=[.?!])\s+", " ".join(prose.split()))
    fitting = [
        one for one in sentences if re.search(SIGNS[kind], one) and len(one) < 200
    ]  # letters
    return "\n".join(f"- {one}" for one in fitting[:3]) or "- nothing"


model = ASKED or ScriptedModel(script, name="script")


@agent
def read(ctx: InvocationContext) -> None:
    """Read the document, in a thread of its own."""
    path = Path(ctx.user_text or DEFAULT)
    ctx.state["document"] = path.read_text("utf-8")[:MOST]


def analyst(kind: str) -> LlmAgent:
    """Return one who looks for one kind of thing."""
    return LlmAgent(
        kind,
        model,
        f"You are an analyst who looks for {kind} in a document, and for nothing else. Say in at "
        "most three lines what you find.\n\nThe document:\n{document}",
        include_contents="none",
        output_key=kind,
    )


synthesiser = LlmAgent(
    "synthesiser",
    model,
    "Three analysts have read a document. Sum up in a short paragraph what a reader must know.\n\n"
    "## facts\n{facts}\n\n## risks\n{risks}\n\n## questions\n{questions}",
    include_contents="none",
    output_key="summary",
)

research = SequentialAgent(
    "research",
    [read, ParallelAgent("analysts", [analyst(kind) for kind in SIGNS]), synthesiser],
)


async def main(message: str) -> None:
    """Research a document; print what is said as it is said, whole or in pieces."""
    asked = f"Asking {ASKED}." if ASKED else "No model is asked: a script answers instead."
    print(asked)
    async with Runner(research).open(message or str(DEFAULT)) as run:
        async for event in run:
            if event.text and not event.partial:
                print(f"\n{event.author}:\n{event.text}")


if __name__ == "__main__":
    trio.run(main, " ".join(sys.argv[1:]))
