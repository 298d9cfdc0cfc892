"""Toolsets: opened in the task of the agent that uses them, and closed there, however it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from parallel_agent import FunctionCall, FunctionResponse, InvocationContext, ParallelAgent, Runner
from parallel_agent.llm.agent import LlmAgent
from parallel_agent.model_errors import ToolDefinitionError
from parallel_agent.testing.scripted_model import ScriptedModel
from parallel_agent.tools.function_tool import tool
from parallel_agent.tools.tool import Tool
from parallel_agent.tools.toolset import Toolset
from tests.workflow.trees import Diary, leaf, run_tree, run_virtual

CALL = FunctionCall("dig", {"depth": 2}, "1")


class Shed(Toolset):
    """Holds a nursery open over its block, with a task that feeds its tool."""

    def __init__(self, diary: Diary, *, fails: bool = False) -> None:
        self.diary = diary
        self.fails = fails

    @asynccontextmanager
    async def open(self, _ctx: InvocationContext | None = None) -> AsyncIterator[Sequence[Tool]]:
        task = trio.lowlevel.current_task()
        send, receive = trio.open_memory_channel[int](0)

        @tool
        async def dig(depth: int) -> int:
            """Dig."""
            return depth + await receive.receive()

        async def feed() -> None:
            async with send:
                while True:
                    await send.send(10)

        self.diary.append("opens")
        if self.fails:
            raise OSError("the shed is locked")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(feed)
                yield [dig]
                nursery.cancel_scope.cancel()
        finally:
            same = trio.lowlevel.current_task() is task
            self.diary.append("closes" if same else "closes in another task")


def test_it_is_opened_and_closed_around_each_activation() -> None:
    diary: Diary = []
    model = ScriptedModel([CALL, "done", CALL, "done"])
    agent = LlmAgent("a", model, tools=[Shed(diary)])
    for _ in range(2):
        assert run_tree(agent).result.text == "done"
    assert diary == ["opens", "closes"] * 2
    (answer,) = model.requests[1].contents[-1].parts
    assert isinstance(answer, FunctionResponse)
    assert answer.response == {"result": 12}


def test_it_is_closed_when_the_agent_is_cancelled() -> None:
    diary: Diary = []
    agent = LlmAgent("a", ScriptedModel([[3.0, "late"]]), tools=[Shed(diary)])
    ended = run_tree(ParallelAgent("p", [agent, leaf("b", 1, OSError("x"))]))
    assert type(ended.error) is OSError
    assert diary == ["opens", "closes"]


def test_it_is_closed_when_the_agent_fails_which_fails_with_its_own_error() -> None:
    diary: Diary = []
    agent = LlmAgent("a", ScriptedModel([LookupError("x")]), tools=[Shed(diary)])
    ended = run_tree(agent)
    assert diary == ["opens", "closes"]
    assert type(ended.error) is LookupError


def test_one_that_cannot_be_opened_fails_the_agent_with_what_it_raised() -> None:
    diary: Diary = []
    other: Diary = []
    agent = LlmAgent("a", ScriptedModel([]), tools=[Shed(other), Shed(diary, fails=True)])
    ended = run_tree(agent)
    assert type(ended.error) is OSError
    assert other == ["opens", "closes"]


def test_two_tools_of_one_name_are_refused_when_it_opens() -> None:
    @tool
    async def dig() -> None:
        """Dig otherwise."""

    ended = run_tree(LlmAgent("a", ScriptedModel([]), tools=[dig, Shed([])]))
    assert isinstance(ended.error, ToolDefinitionError)
    assert str(ended.error) == "two tools of 'a' are called 'dig'"


def test_opened_by_hand_it_serves_many_activations() -> None:
    diary: Diary = []

    async def main() -> None:
        async with Shed(diary).open() as tools:
            model = ScriptedModel([CALL, "done", CALL, "done"])
            agent = LlmAgent("a", model, tools=tools)
            for _ in range(2):
                result = await Runner(agent).run("go")
                assert result.text == "done"

    run_virtual(main)
    assert diary == ["opens", "closes"]


def test_trouble_at_closing_does_not_hide_the_failure_of_the_agent() -> None:
    class Stuck(Toolset):
        @asynccontextmanager
        async def open(
            self, _ctx: InvocationContext | None = None
        ) -> AsyncIterator[Sequence[Tool]]:
            await trio.lowlevel.checkpoint()
            yield []
            raise OSError("stuck")

    ended = run_tree(LlmAgent("a", ScriptedModel([LookupError("x")]), tools=[Stuck()]))
    assert type(ended.error) is LookupError
    assert any("stuck" in note for note in ended.error.__notes__)
