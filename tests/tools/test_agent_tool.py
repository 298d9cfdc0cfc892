"""An agent as a tool: a branch of its own, live events, and its output as the answer."""

from __future__ import annotations

from typing import Any

import attrs
import trio

from parallel_agent import (
    FunctionCall,
    FunctionResponse,
    InvocationContext,
    ParallelAgent,
    RunConfig,
    Runner,
    SequentialAgent,
    Status,
    agent,
)
from parallel_agent.llm.agent import LlmAgent
from parallel_agent.testing.scripted_model import ScriptedModel
from parallel_agent.tools.agent_tool import AgentTool
from tests.workflow.trees import Diary, leaf, run_tree


@attrs.frozen
class Order:
    """What is wanted."""

    what: str
    number: int = 1


@agent(description="orders things")
async def order(_: InvocationContext, wanted: Order) -> dict[str, Any]:
    await trio.lowlevel.checkpoint()
    return {"ordered": wanted.what, "number": wanted.number}


def told(model: ScriptedModel) -> list[Any]:
    return [
        part.response
        for part in model.requests[-1].contents[-1].parts
        if isinstance(part, FunctionResponse)
    ]


def test_what_the_agent_takes_is_what_the_model_is_asked_for() -> None:
    tool = AgentTool(order)
    assert (tool.name, tool.description) == ("order", "orders things")
    assert tool.parameters["required"] == ["what"]
    assert set(tool.parameters["properties"]) == {"what", "number"}


def test_its_output_is_the_answer() -> None:
    model = ScriptedModel([FunctionCall("order", {"what": "tea"}, "1"), "done"])
    run_tree(LlmAgent("a", model, tools=[AgentTool(order)]))
    assert told(model) == [{"ordered": "tea", "number": 1}]


def test_an_agent_that_takes_anything_is_given_a_text() -> None:
    @agent
    async def echo(ctx: InvocationContext) -> str:
        await trio.lowlevel.checkpoint()
        return f"got {ctx.input}"

    model = ScriptedModel([FunctionCall("echo", {"request": "this"}, "1"), "done"])
    run_tree(LlmAgent("a", model, tools=[AgentTool(echo)]))
    assert told(model) == [{"result": "got this"}]


def test_an_agent_that_takes_a_value_is_given_one() -> None:
    @agent
    async def double(_: InvocationContext, number: int) -> int:
        await trio.lowlevel.checkpoint()
        return 2 * number

    model = ScriptedModel([FunctionCall("double", {"request": 4}, "1"), "done"])
    run_tree(LlmAgent("a", model, tools=[AgentTool(double)]))
    assert told(model) == [{"result": 8}]


def test_an_input_that_does_not_fit_is_told_to_the_model() -> None:
    model = ScriptedModel([FunctionCall("order", {"what": 3}, "1"), "sorry"])
    assert run_tree(LlmAgent("a", model, tools=[AgentTool(order)])).result.text == "sorry"
    assert "text is needed, not 3" in told(model)[0]["error"]


def test_calls_of_one_turn_run_side_by_side_on_branches_of_their_own() -> None:
    seen: dict[str, list[str]] = {}

    @agent
    async def worker(ctx: InvocationContext) -> Any:
        yield f"{ctx.input} begins"
        await trio.sleep(1)
        seen[ctx.branch or ""] = [event.text for event in ctx.history() if event.text]
        yield f"{ctx.input} ends"

    calls = [FunctionCall("worker", {"request": name}, name) for name in "xy"]
    model = ScriptedModel([calls, "done"])
    ended = run_tree(LlmAgent("a", model, tools=[AgentTool(worker)]), message="go")
    assert sorted(seen.values()) == [["go", "x begins"], ["go", "y begins"]]
    assert all(branch.startswith("a.worker@") for branch in seen)
    assert told(model) == [{"result": "x ends"}, {"result": "y ends"}]
    texts = [event.text for event in ended.delivered if event.author == "worker"]
    assert set(texts[:2]) == {"x begins", "y begins"}


def test_its_events_are_live_and_its_model_is_not_told_of_them() -> None:
    model = ScriptedModel([FunctionCall("helper", {"request": "look"}, "1"), "done"])
    helper = leaf("helper", "step one", "step two")
    ended = run_tree(LlmAgent("a", model, tools=[AgentTool(helper)]), message="go")
    assert [event.text for event in ended.delivered if event.text] == [
        "step one",
        "step two",
        "done",
    ]
    assert [content.text for content in model.requests[1].contents] == ["go", "", ""]


def test_its_failure_is_told_or_raised_as_itself() -> None:
    def failing() -> AgentTool:
        return AgentTool(leaf("helper", OSError("no disk")))

    call = FunctionCall("helper", {"request": "x"}, "1")
    model = ScriptedModel([call, "sorry"])
    assert run_tree(LlmAgent("a", model, tools=[failing()])).result.text == "sorry"
    assert told(model) == [{"error": "OSError: no disk"}]
    raising = LlmAgent("a", ScriptedModel([call]), tools=[failing()], on_tool_error="raise")
    assert type(run_tree(raising).error) is OSError


def test_it_is_cancelled_with_its_agent_at_any_depth() -> None:
    diary: Diary = []

    @agent
    async def deep(_: InvocationContext) -> None:
        try:
            await trio.sleep(9)
        finally:
            diary.append("cancelled")

    inner = LlmAgent(
        "inner",
        ScriptedModel([FunctionCall("deep", {"request": "x"}, "1")]),
        tools=[AgentTool(deep)],
    )
    outer = LlmAgent(
        "outer",
        ScriptedModel([FunctionCall("inner", {"request": "x"}, "1")]),
        tools=[AgentTool(inner)],
    )
    ended = run_tree(ParallelAgent("p", [outer, leaf("b", 1, OSError("x"))]))
    assert isinstance(ended.error, OSError)
    assert diary == ["cancelled"]


def test_an_agent_that_waits_for_a_person_lets_the_run_wait_and_go_on() -> None:
    @agent
    async def asker(ctx: InvocationContext) -> str:
        answer: str = await ctx.request_input("well?", schema=str)
        return f"they said {answer}"

    async def main() -> None:
        model = ScriptedModel([FunctionCall("asker", {"request": "x"}, "1"), "done"])
        runner = Runner(LlmAgent("a", model, tools=[AgentTool(asker)]), resumable=True)
        config = RunConfig(on_wait="suspend")
        first = await runner.run("go", session_id="s", run_config=config)
        assert first.status is Status.WAITING
        (asked,) = [event.request for event in first.events if event.request]
        second = await runner.resume("s", responses={asked.id: "yes"})
        assert (second.status, second.text) == (Status.COMPLETED, "done")
        assert told(model) == [{"result": "they said yes"}]
        assert len(model.requests) == 2

    trio.run(main)


def test_an_agent_that_asks_a_model_is_told_the_request_and_what_is_said_there() -> None:
    inner = ScriptedModel(["bonjour"])
    helper = SequentialAgent("helper", [leaf("first", "ready"), LlmAgent("translator", inner)])
    model = ScriptedModel([FunctionCall("helper", {"request": "hello"}, "1"), "done"])
    run_tree(LlmAgent("a", model, tools=[AgentTool(helper)]), message="this is private")
    assert [content.text for content in inner.requests[0].contents] == [
        "[first] said: ready",
        "hello",
    ]
