"""What the tests of model nodes share: short files, and what their models were sent."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent
from typing import Any

from parallel_agent import Result, Runner
from parallel_agent.llm.model import GenerationConfig, ModelRequest, ToolSpec
from parallel_agent.testing.scripted_model import Answer, ScriptedModel
from parallel_agent.workflow.graph import GraphAgent
from session.content import Content, InlineData, Part, Text
from tests.config.writing import load

__all__ = ["a_file", "asked", "request", "run", "said", "sent", "wanting"]


def a_file(node: str = "", *, more: str = "", prompt: str = "{q: 'Well?'}", role: str = "") -> str:
    """Return a file with one node ``a`` that a model answers; ``node`` are its further keys."""
    system = f"system_template: {{role: {role}}}, " if role else ""
    return (
        "models: [{llm: ollama, model: m, name: small}]\n"
        f"prompts: [{{template: {{{system}prompt_template: {prompt}}}}}]\n"
        f"{dedent(more)}\n"
        "nodes:\n  - id: a\n    model: 0\n"
        f"{indent(dedent(node), '    ') or '    prompt: {template: 0}'}\n"
    )


async def run(graph: GraphAgent, message: str | None = "hello") -> Result:
    return await Runner(graph).run(message)


async def asked(
    folder: Path, text: str, *answers: Answer, message: str | None = "hello", **options: Any
) -> tuple[list[ModelRequest], Result]:
    """Run a file; return what its first model was asked, and what came of it."""
    model = ScriptedModel(list(answers) or ["fine"])
    result = await run(load(folder, text, models={0: model}, **options), message)
    return model.requests, result


def said(text: str, label: str = "q") -> str:
    """Return one side of a prompt with one text in it."""
    return f"<{label}>\n{text}\n</{label}>\n\n"


def request(
    text: str | None, *before: Content, media: tuple[InlineData, ...] = (), **fields: Any
) -> ModelRequest:
    """Return what a model is asked with one prompt, after what was said before."""
    parts: tuple[Part, ...] = (*([] if text is None else [Text(text)]), *media)
    return ModelRequest(contents=(*before, Content(parts, role="user")), **fields)


def sent(requests: list[ModelRequest], number: int = -1) -> str:
    """Return the text that a request ends with."""
    return requests[number].contents[-1].text


def wanting(temperature: float | None = None, max_tokens: int | None = None) -> GenerationConfig:
    return GenerationConfig(temperature=temperature, max_tokens=max_tokens)


def spec(name: str, description: str = "", **properties: Any) -> ToolSpec:
    return ToolSpec(name, description, {"type": "object", "properties": properties})
