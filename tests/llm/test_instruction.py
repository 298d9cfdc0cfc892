"""Places in instructions are filled in from documents, the state and artifacts."""

from __future__ import annotations

from typing import Any

import pytest

from parallel_agent import Document, GraphAgent, InvocationContext, Runner, agent
from parallel_agent.llm.instruction import fill_in
from parallel_agent.model_errors import InstructionError


async def filled(template: str, state: dict[str, Any] | None = None, **artifacts: Any) -> str:
    got: list[str] = []

    @agent
    async def writer(ctx: InvocationContext) -> None:
        for name, artifact in artifacts.items():
            await ctx.save_artifact(f"{name}.md", artifact)
        got.append(await fill_in(template, ctx))

    await Runner(writer).run("x", state_delta=state or {})
    return got[0]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("Hello {name}!", "Hello Ada!"),
        ("{ name }", "Ada"),
        ("{user:mood} {app:kind}", "glad web"),
        ("{n} {list} {nothing}", '3 ["é", 1] '),
        ("[{gone?}]", "[]"),
        ('{"a": 1} {a b} {} {{name}} {1x}', '{"a": 1} {a b} {} {name} {1x}'),
    ],
)
async def test_places_are_filled_from_the_state(template: str, expected: str) -> None:
    state = {"name": "Ada", "user:mood": "glad", "app:kind": "web", "n": 3, "list": ["é", 1]}
    assert await filled(template, {**state, "nothing": None}) == expected


async def test_what_is_not_there_is_named_with_what_may_have_been_meant() -> None:
    with pytest.raises(InstructionError, match=r"'writer' has \{naem\}, .*did you mean \{name\}\?"):
        await filled("{naem}", {"name": "Ada"})
    with pytest.raises(InstructionError, match=r"write \{zzz\?\} if it may be missing"):
        await filled("{zzz}")


async def test_artifacts_are_filled_in_as_text() -> None:
    assert await filled("{artifact.report.md}", report="all is well") == "all is well"
    assert await filled("[{artifact.none.md?}]") == "[]"
    with pytest.raises(InstructionError, match=r"\{artifact.none.md\}, which is not there"):
        await filled("{artifact.none.md}")
    with pytest.raises(InstructionError, match="that artifact is no text"):
        await filled("{artifact.report.md}", report=b"\xff")


async def test_the_documents_of_a_graph_come_before_the_state() -> None:
    got: list[str] = []

    @agent
    async def reader(ctx: InvocationContext) -> None:
        got.append(await fill_in("{plan}", ctx))

    document = Document("plan", readers=[reader], initial="of the graph")
    await Runner(GraphAgent("g", nodes=[reader], documents=[document])).run(
        "x", state_delta={"plan": "of the state"}
    )
    assert got == ["of the graph"]
