"""An agent with tools: it looks into a folder of text for you, and asks before it writes there.

    python examples/models/assistant.py "Where are messages to branches explained?"
    PARALLEL_AGENT_MODEL=ollama/qwen2.5:7b python examples/models/assistant.py "..."

The variable names a model at any server that speaks chat completions. Without it no model is asked:
a script looks for the longest words of the question, notes what it finds, and says so.

The tools are plain typed functions; those that read run in threads, side by side. `take_note`
writes into the folder `notes`, so a person is asked first: here, or, on a terminal, by the command
line (`parallel-agent run examples/models/assistant.py`).
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Final

import trio

from parallel_agent import (
    Content,
    FunctionCall,
    FunctionResponse,
    LlmAgent,
    ModelRequest,
    Runner,
    tool,
)
from parallel_agent.testing import ScriptedModel
from parallel_agent.testing.scripted_model import Answer

FOLDER: Final = Path(__file__).resolve().parents[2] / "docs"
NOTES: Final = Path("notes")
MOST: Final = 5  # hits of one search
QUESTION: Final = "Where are messages to branches explained?"

ASKED: Final = os.environ.get("PARALLEL_AGENT_MODEL")


def search(word: str) -> list[str]:
    """Search the documents for a word.

    Args:
        word: what to look for; case does not matter.

    Returns:
        Lines that hold it, with their files and numbers.
    """
    found: list[str] = []
    for path in sorted(FOLDER.rglob("*.md")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if word.lower() in line.lower():
                found.append(f"{path.relative_to(FOLDER).as_posix()}:{number}: {line.strip()}")
            if len(found) == MOST:
                return found
    return found


def outline(file: str) -> list[str]:
    """List the headings of a document.

    Args:
        file: its path in the folder, as `search` names it.
    """
    path = (FOLDER / file).resolve()
    if not path.is_relative_to(FOLDER) or not path.is_file():
        message = f"there is no document {file!r}"
        raise FileNotFoundError(message)
    return re.findall(r"^#+ .*$", path.read_text("utf-8"), re.MULTILINE)


@tool(needs_approval=True)
def take_note(text: str) -> str:
    """Note something for later.

    Args:
        text: what is to be noted, in a line.
    """
    NOTES.mkdir(exist_ok=True)
    with (NOTES / "notes.txt").open("a", encoding="utf-8") as notes:
        notes.write(f"{text}\n")
    return "noted"


def script(request: ModelRequest) -> Answer:
    """Answer, in the place of a model: search, then look closer and note it, then tell."""
    question = next((one.text for one in request.contents if one.role == "user"), "")
    question = question or QUESTION
    turns = request.contents
    answers = [_answers(content) for content in turns if _answers(content)]
    if not answers:
        words = sorted(re.findall(r"\w+", question), key=len)[-2:]
        return [FunctionCall("search", {"word": word}) for word in words]
    hits = [hit for answer in answers[0] for hit in answer.response.get("result", [])]
    if not hits:
        return "I have found nothing."
    first = hits[0].partition(":")[0]
    if len(answers) == 1:
        return [
            FunctionCall("outline", {"file": first}),
            FunctionCall("take_note", {"text": f"{question} See {first}"}),
        ]
    return f"{len(hits)} lines may help; the first is {hits[0]}"


def _answers(content: Content) -> list[FunctionResponse]:
    return [part for part in content.parts if isinstance(part, FunctionResponse)]


assistant = LlmAgent(
    "assistant",
    ASKED or ScriptedModel(script, name="script"),
    "You help people to find things in a folder of documents. Search before you answer, name the "
    "file, and note what you have found.",
    tools=[search, outline, take_note],
)


async def approved(question: str) -> bool:
    """Ask a person, who can be asked only on a terminal; nobody there is a no."""
    if not sys.stdin.isatty():
        print(f"{question} Nobody is there to say yes.")
        return False
    answer = await trio.to_thread.run_sync(input, f"{question} [y/N] ")
    return answer == "y"


async def main(message: str) -> None:
    """Answer a question; show the calls of tools, and ask before something is written."""
    print(f"Asking {ASKED}." if ASKED else "No model is asked: a script answers instead.")
    async with Runner(assistant).open(message or QUESTION) as run:
        async for event in run:
            if event.request is not None:
                yes = await approved(event.request.prompt)
                await run.respond(event.request.id, yes)
            for call in () if event.request else event.function_calls:
                print(f"{call.name}({', '.join(f'{k}={v!r}' for k, v in call.args.items())})")
            for answer in event.function_responses if event.author == "assistant" else ():
                print(f"  {answer.name}: {str(answer.response)[:100]}")
            if event.text and not event.partial:
                print(event.text)


if __name__ == "__main__":
    trio.run(main, " ".join(sys.argv[1:]))
