"""How often models are asked, and what is said to an agent while it works."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from parallel_agent import (
    FunctionCall,
    InvocationContext,
    ParallelAgent,
    RunConfig,
    Runner,
    SequentialAgent,
    agent,
)
from parallel_agent.llm.agent import LlmAgent
from parallel_agent.llm.model import ModelRequest
from parallel_agent.model_errors import CallLimitError, MissingExtraError, ModelAuthError
from parallel_agent.testing.scripted_model import ScriptedModel
from tests.workflow.trees import run_tree


async def look() -> str:
    """Look."""
    await trio.lowlevel.checkpoint()
    return "rain"


LOOK = FunctionCall("look", {})


def test_all_agents_of_a_run_count() -> None:
    model = ScriptedModel([LOOK, LOOK, "a", "b"])
    tree = ParallelAgent("p", [LlmAgent(name, model, tools=[look]) for name in "ab"])
    ended = run_tree(tree, run_config=RunConfig(max_llm_calls=3))
    assert isinstance(ended.error, CallLimitError)
    assert "RunConfig(max_llm_calls=...) allows more" in str(ended.error)
    assert len(model.requests) == 3


def test_the_next_run_counts_anew() -> None:
    agent = LlmAgent("a", ScriptedModel(lambda _: "fine"))
    for _ in range(2):
        assert run_tree(agent, run_config=RunConfig(max_llm_calls=1)).error is None


@pytest.mark.parametrize("bad", [-1, True, 1.5])
def test_a_limit_is_a_whole_number(bad: Any) -> None:
    with pytest.raises(ValueError, match="max_llm_calls is a whole number"):
        RunConfig(max_llm_calls=bad)


def test_a_model_by_name_is_at_the_server_that_the_name_says() -> None:
    agent = LlmAgent("a", "ollama/qwen2.5:7b")
    assert agent.model.name == "ollama/qwen2.5:7b"
    assert "ollama/qwen2.5:7b" in agent.shape


def test_a_missing_key_is_told_at_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ModelAuthError, match="set OPENAI_API_KEY"):
        LlmAgent("a", "openai/gpt-x")


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "parallel_agent.llm.openai_model", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'parallel-agent\[openai\]'"):
        LlmAgent("a", "ollama/x")


# ----------------------------------------------------------------------------------------- messages


def said(request: ModelRequest) -> list[str]:
    return [content.text for content in request.contents]


async def test_a_message_is_told_before_the_next_turn(autojump_clock: MockClock) -> None:
    async def slow() -> str:
        await trio.sleep(2)
        return "rain"

    model = ScriptedModel([FunctionCall("slow", {}), "fine"])
    async with Runner(LlmAgent("a", model, tools=[slow])).open("go") as run:
        async for event in run:
            if event.function_calls:
                await run.send("and hurry")
    assert said(model.requests[1]) == ["go", "", "", "and hurry"]


async def test_a_message_during_the_answer_is_answered_too(autojump_clock: MockClock) -> None:
    model = ScriptedModel([["well ", 1.0, "then"], "thanks"])
    async with Runner(LlmAgent("a", model)).open("go") as run:
        async for event in run:
            if event.text == "well ":
                await run.send("please")
    assert said(model.requests[1]) == ["go", "well then", "please"]
    assert run.result.text == "thanks"


async def test_they_can_be_left_to_another_agent(autojump_clock: MockClock) -> None:
    @agent
    async def listener(ctx: InvocationContext) -> str:
        return f"heard {(await ctx.receive()).text}"

    model = ScriptedModel([["well ", 1.0, "then"]])
    tree = SequentialAgent("s", [LlmAgent("a", model, reads_messages=False), listener])
    async with Runner(tree).open("go") as run:
        async for event in run:
            if event.text == "well ":
                await run.send("please")
    assert run.result.text == "heard please"
