"""What is called before and after models and tools: the runner's plugins, then the agent's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import pytest
import trio

from parallel_agent import (
    Content,
    FunctionCall,
    FunctionResponse,
    InvocationContext,
    Plugin,
    PluginError,
    Runner,
    agent,
)
from parallel_agent.errors import TreeError
from parallel_agent.llm.agent import LlmAgent
from parallel_agent.llm.model import ModelRequest, ModelResponse
from parallel_agent.model_errors import CallbackError
from parallel_agent.testing.scripted_model import ScriptedModel
from parallel_agent.tools.context import ToolContext
from tests.workflow.trees import Diary, run_tree


async def look(city: str) -> str:
    """Look up the weather."""
    await trio.lowlevel.checkpoint()
    return f"rain in {city}"


LOOK = FunctionCall("look", {"city": "Oslo"}, "1")


def told(model: ScriptedModel, number: int = 1) -> Mapping[str, Any]:
    """Return what the tool has answered, as the model was told."""
    (answer,) = model.requests[number].contents[-1].parts
    assert isinstance(answer, FunctionResponse)
    return answer.response


def noting(diary: Diary, who: str) -> dict[str, Any]:
    """Return callbacks that note that they were called, plain ones and coroutine functions."""

    def before_model(_: InvocationContext, request: ModelRequest) -> None:
        diary.append(f"{who} before model {len(request.contents)}")

    async def after_model(_: InvocationContext, response: ModelResponse) -> None:
        await trio.lowlevel.checkpoint()
        diary.append(f"{who} after model {response.content.text}")

    def before_tool(ctx: ToolContext) -> None:
        diary.append(f"{who} before {ctx.call.name}")

    async def after_tool(ctx: ToolContext, response: Mapping[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        diary.append(f"{who} after {ctx.call.name}: {response['result']}")

    return {
        "before_model_callback": before_model,
        "after_model_callback": after_model,
        "before_tool_callback": before_tool,
        "after_tool_callback": [after_tool],
    }


class Noting(Plugin):
    """A plugin that notes the same."""

    def __init__(self, diary: Diary) -> None:
        super().__init__("noting")
        self.diary = diary

    async def before_model_callback(self, _: InvocationContext, request: ModelRequest) -> None:
        self.diary.append(f"plugin before model {len(request.contents)}")

    async def after_model_callback(self, _: InvocationContext, response: ModelResponse) -> None:
        self.diary.append(f"plugin after model {response.content.text}")

    async def before_tool_callback(self, ctx: ToolContext) -> None:
        self.diary.append(f"plugin before {ctx.call.name}")

    async def after_tool_callback(self, ctx: ToolContext, response: Mapping[str, Any]) -> None:
        self.diary.append(f"plugin after {ctx.call.name}: {response['result']}")


def test_each_is_called_at_its_time_and_plugins_before() -> None:
    diary: Diary = []
    writer = LlmAgent("a", ScriptedModel([LOOK, "done"]), tools=[look], **noting(diary, "own"))
    trio.run(Runner(writer, plugins=[Noting(diary)]).run, "hi")
    expected = [
        "before model 1",
        "after model ",
        "before look",
        "after look: rain in Oslo",
        "before model 3",
        "after model done",
    ]
    assert diary == [f"{who} {one}" for one in expected for who in ("plugin", "own")]


def test_a_request_that_is_returned_is_sent_instead() -> None:
    model = ScriptedModel(["fine"])
    change = lambda _, request: attrs.evolve(request, instruction="Be brief.")  # noqa: E731  # short
    again = lambda _, request: attrs.evolve(request, instruction=f"{request.instruction} Now.")  # noqa: E731  # short
    run_tree(LlmAgent("a", model, before_model_callback=[change, again]))
    assert model.requests[0].instruction == "Be brief. Now."


def test_a_response_that_is_returned_counts_and_nobody_is_asked() -> None:
    model = ScriptedModel([])
    cached = ModelResponse(content=Content("as before", role="model"))
    never: Diary = []
    ended = run_tree(
        LlmAgent(
            "a",
            model,
            before_model_callback=[lambda *_: cached, lambda *_: never.append("asked")],
        )
    )
    assert ended.result.text == "as before"
    assert (model.requests, never) == ([], [])


def test_another_response_counts_instead_of_the_models() -> None:
    def upper(_: InvocationContext, response: ModelResponse) -> ModelResponse:
        return attrs.evolve(response, content=Content(response.content.text.upper(), role="model"))

    assert (
        run_tree(LlmAgent("a", ScriptedModel(["no"]), after_model_callback=upper)).result.text
        == "NO"
    )


def test_an_answer_that_is_returned_is_the_tools() -> None:
    model = ScriptedModel([LOOK, "done"])
    run_tree(LlmAgent("a", model, tools=[look], before_tool_callback=lambda _: {"result": "sun"}))
    assert told(model) == {"result": "sun"}


def test_a_call_that_is_returned_is_made_instead() -> None:
    model = ScriptedModel([LOOK, "done"])
    other = FunctionCall("look", {"city": "Rome"})
    run_tree(LlmAgent("a", model, tools=[look], before_tool_callback=lambda _: other))
    assert told(model) == {"result": "rain in Rome"}


def test_another_answer_counts_instead_of_the_tools() -> None:
    model = ScriptedModel([LOOK, "done"])
    run_tree(LlmAgent("a", model, tools=[look], after_tool_callback=lambda *_: {"result": "?"}))
    assert told(model) == {"result": "?"}


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("before_model_callback", "a ModelRequest or a ModelResponse"),
        ("after_model_callback", "a ModelResponse"),
        ("before_tool_callback", "a FunctionCall of 'look' or a mapping"),
        ("after_tool_callback", "a mapping"),
    ],
)
def test_what_is_of_no_use_is_refused_with_what_would_be(option: str, wanted: str) -> None:
    callback: dict[str, Any] = {option: lambda *_: 3}
    ended = run_tree(LlmAgent("a", ScriptedModel([LOOK, "done"]), tools=[look], **callback))
    assert isinstance(ended.error, CallbackError)
    assert str(ended.error) == f"{option} of 'a' returned 3; {wanted} is needed, or None"


@pytest.mark.parametrize("option", ["before_model", "after_model", "before_tool", "after_tool"])
def test_what_one_raises_fails_the_agent_as_it_is(option: str) -> None:
    def broken(*_: object) -> None:
        raise LookupError("broken")

    callback: dict[str, Any] = {f"{option}_callback": broken}
    ended = run_tree(LlmAgent("a", ScriptedModel([LOOK, "done"]), tools=[look], **callback))
    assert type(ended.error) is LookupError


def test_what_a_plugin_raises_names_it() -> None:
    class Broken(Plugin):
        async def before_tool_callback(self, _: ToolContext) -> None:
            raise LookupError("broken")

    writer = LlmAgent("a", ScriptedModel([LOOK, "done"]), tools=[look])
    with pytest.raises(PluginError, match="before_tool_callback") as raised:
        trio.run(Runner(writer, plugins=[Broken()]).run, "hi")
    assert "Broken" in str(raised.value)


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(TreeError, match="after_tool_callback of 'a' is not callable: 3"):
        LlmAgent("a", ScriptedModel([]), after_tool_callback=[3])  # type: ignore[list-item]  # what is tried here


def test_other_agents_are_not_asked() -> None:
    diary: Diary = []

    @agent
    async def plain(_: InvocationContext) -> str:
        await trio.lowlevel.checkpoint()
        return "x"

    trio.run(Runner(plain, plugins=[Noting(diary)]).run, "hi")
    assert diary == []
