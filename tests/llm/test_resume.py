"""A model agent that was cut off goes on where it was: nothing is asked or done twice."""

from __future__ import annotations

from collections import Counter

import trio
from trio.testing import MockClock

from parallel_agent import FunctionCall, FunctionResponse, SequentialAgent, agent
from parallel_agent.llm.agent import LlmAgent
from parallel_agent.llm.model import ModelRequest
from parallel_agent.testing.scripted_model import Answer, ScriptedModel
from parallel_agent.tools.agent_tool import AgentTool
from tests.support.resuming import FIRST, cut_log, play, resume
from tests.workflow.trees import leaf


def turns_of(request: ModelRequest) -> int:
    """Return how many turns the model has been answered."""
    parts = [part for content in request.contents for part in content.parts]
    return len({part.name for part in parts if isinstance(part, FunctionResponse)})


def answered(request: ModelRequest) -> Answer:
    """Want two tools called, then an agent, and then be done."""
    turns = turns_of(request)
    if turns == 2:
        return [FunctionCall("ask", {"request": "this"}), FunctionCall("ask", {"request": "that"})]
    if turns == 3:
        return f"done after {turns}"
    return [FunctionCall("one", {"n": 1}), FunctionCall("two", {"n": 2})]


class World:
    """A tree, and what it has done outside."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.model = ScriptedModel(answered)

        async def one(n: int) -> int:
            self.done["one"] += n
            await trio.lowlevel.checkpoint()
            return n

        async def two(n: int) -> int:
            await trio.sleep(1)
            self.done["two"] += 1
            return n

        helper = leaf("ask", "looking", "found")
        talker = LlmAgent("talker", self.model, tools=[one, two, AgentTool(helper)])

        @agent
        async def last(ctx):  # type: ignore[no-untyped-def]  # short
            said = [event.text for event in ctx.history() if event.author == "talker"]
            yield f"after: {said[-1]}"

        self.tree = SequentialAgent("s", [talker, last])


async def test_cut_off_at_any_event_it_comes_to_the_same_end(autojump_clock: MockClock) -> None:
    world = World()
    whole = await play(world.tree)
    assert whole.result.text == "after: done after 3"
    assert len(world.model.requests) == 3
    for at in range(FIRST, len(whole.lines)):
        again = World()
        resumed = await resume(again.tree, cut_log(whole, at))
        assert resumed.error is None, at
        assert resumed.result.text == whole.result.text, at
        if again.model.requests:
            assert again.model.requests[-1].contents == world.model.requests[-1].contents, at


async def test_what_was_noted_is_not_done_again(autojump_clock: MockClock) -> None:
    whole = await play(World().tree)
    checkpoints = whole.places("checkpoint", "s/talker")
    assert len(checkpoints) == 4
    asked = []
    for at in checkpoints:
        again = World()
        await resume(again.tree, cut_log(whole, at))
        asked.append((len(again.model.requests), again.done["one"]))
    assert asked == [(2, 1), (2, 0), (1, 0), (1, 0)]


async def test_an_agent_as_a_tool_that_has_ended_is_not_run_again(
    autojump_clock: MockClock,
) -> None:
    whole = await play(World().tree)
    (path, _) = [one for one in whole.began if one.startswith("s/talker/ask@")]
    (end,) = whole.places("end", path)
    again = World()
    resumed = await resume(again.tree, cut_log(whole, end))
    assert path not in resumed.began
    assert resumed.result.text == whole.result.text
