"""What a turn of calls has come to, however it ends, waits, fails or is cut off."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from parallel_agent import (
    EffectUnknownError,
    Event,
    FunctionCall,
    FunctionResponse,
    InvocationContext,
    LoopAgent,
    ModelRequest,
    Run,
    RunConfig,
    Runner,
    Status,
    ToolContext,
    agent,
    tool,
)
from parallel_agent.llm.agent import LlmAgent
from parallel_agent.testing.scripted_model import ScriptedModel
from parallel_agent.tools.agent_tool import AgentTool
from tests.support.resuming import FIRST, cut_log, play, resume
from tests.workflow.trees import Diary, leaf, run_tree

SUSPEND = RunConfig(on_wait="suspend")


def call(name: str, number: int = 1, **args: Any) -> FunctionCall:
    return FunctionCall(name, args, f"id{number}")


def said(request: ModelRequest) -> list[str]:
    return [content.text for content in request.contents]


def told(model: ScriptedModel) -> list[Any]:
    return [
        part.response
        for part in model.requests[-1].contents[-1].parts
        if isinstance(part, FunctionResponse)
    ]


def test_an_effect_whose_end_nobody_knows_fails_the_agent() -> None:
    async def pay(ctx: ToolContext) -> str:
        def late() -> str:
            raise TimeoutError

        return await ctx.once("pay", late)

    async def again(ctx: ToolContext) -> str:
        try:
            return await pay(ctx)
        except TimeoutError:
            return await pay(ctx)

    ended = run_tree(LlmAgent("a", ScriptedModel([call("again"), "no"]), tools=[again]))
    assert isinstance(ended.error, EffectUnknownError)


def test_a_call_whose_scope_is_cancelled_is_answered_and_the_others_go_on() -> None:
    def hurry(ctx: ToolContext) -> None:
        if ctx.call.name == "slow":
            ctx.scope.deadline = trio.current_time() + 1

    async def slow() -> None:
        await trio.sleep(9)

    async def other() -> str:
        await trio.sleep(2)
        return "fine"

    model = ScriptedModel([[call("slow"), call("other", 2)], "done"])
    run_tree(LlmAgent("a", model, tools=[slow, other], before_tool_callback=hurry))
    assert told(model) == [{"error": "the call was cancelled"}, {"result": "fine"}]


def test_of_two_failures_the_first_call_s_is_raised_and_the_other_noted() -> None:
    async def one() -> None:
        raise OSError("one")

    async def other() -> None:
        raise LookupError("other")

    for calls in ([call("one"), call("other", 2)], [call("other"), call("one", 2)]):
        tools: list[Any] = [one, other]
        ended = run_tree(LlmAgent("a", ScriptedModel([calls]), tools=tools, on_tool_error="raise"))
        assert type(ended.error) is (OSError if calls[0].name == "one" else LookupError)
        assert any(f"calling {calls[1].name}" in note for note in ended.error.__notes__)


def test_a_tool_that_fails_asks_for_nothing() -> None:
    async def stops(ctx: ToolContext) -> None:
        ctx.actions.escalate = ctx.actions.skip_summarization = True
        raise OSError("x")

    model = ScriptedModel([call("stops"), "sorry"])
    assert run_tree(LlmAgent("a", model, tools=[stops])).result.text == "sorry"


def test_what_a_tool_has_emitted_is_not_taken_for_the_words_of_the_model_later() -> None:
    async def work(ctx: ToolContext) -> str:
        await ctx.emit("half way")
        return "done"

    model = ScriptedModel([call("work"), "first", "second"])
    run_tree(LoopAgent("l", [LlmAgent("a", model, tools=[work])], max_iterations=2))
    assert [text for text in said(model.requests[2]) if text] == ["hi", "first"]


def test_an_agent_as_a_tool_is_given_what_it_takes_and_nothing_else() -> None:
    helper = AgentTool(leaf("helper", "found"))
    for wrong in ({"asked": "x"}, {"request": 5}, {"request": "x", "more": 1}):
        model = ScriptedModel([FunctionCall("helper", wrong, "1"), "sorry"])
        ended = run_tree(LlmAgent("a", model, tools=[helper]))
        assert told(model)[0]["error"].startswith("the arguments do not fit")
        assert "helper" not in [event.author for event in ended.delivered]


# ------------------------------------------------------------------------------------- waiting


async def test_an_agent_that_waits_as_a_tool_lets_the_calls_beside_it_end(
    autojump_clock: MockClock,
) -> None:
    done: Counter[str] = Counter()

    @agent
    async def asks(ctx: InvocationContext) -> str:
        return f"they said {await ctx.request_input('well?', schema=str)}"

    async def quick() -> None:
        await trio.lowlevel.checkpoint()
        done["quick"] += 1

    async def slow() -> None:
        await trio.sleep(5)
        done["slow"] += 1

    calls = [call("asks", 1, request="x"), call("quick", 2), call("slow", 3)]
    model = ScriptedModel([calls, "ok"])
    tools: list[Any] = [AgentTool(asks), quick, slow]
    runner = Runner(LlmAgent("a", model, tools=tools), resumable=True)
    first = await runner.run("go", session_id="s", run_config=SUSPEND)
    assert (first.status, done) == (Status.WAITING, {"quick": 1, "slow": 1})
    (asked,) = [event.request for event in first.events if event.request]
    second = await runner.resume("s", responses={asked.id: "yes"}, run_config=SUSPEND)
    assert (second.text, done) == ("ok", {"quick": 1, "slow": 1})
    contents = model.requests[1].contents
    answers = [part.response for one in contents for part in one.parts if hasattr(part, "response")]
    assert answers[0] == {"result": "they said yes"}


async def test_a_question_inside_a_shield_lets_the_run_wait(autojump_clock: MockClock) -> None:
    async def asks(ctx: ToolContext) -> bool:
        with trio.CancelScope(shield=True):
            sure: bool = await ctx.request_input("sure?", schema=bool)
        return sure

    runner = Runner(
        LlmAgent("a", ScriptedModel([call("asks"), "ok"]), tools=[asks]), resumable=True
    )
    first = await runner.run("go", session_id="s", run_config=SUSPEND)
    assert first.status is Status.WAITING


# ------------------------------------------------------------------------------------- cut off


async def test_a_turn_that_hands_over_is_not_repeated_after_a_cut(
    autojump_clock: MockClock,
) -> None:
    done: Diary = []

    def tree() -> LlmAgent:
        async def pay() -> None:
            await trio.lowlevel.checkpoint()
            done.append("paid")

        over = FunctionCall("transfer_to_agent", {"agent_name": "next"}, "2")
        model = ScriptedModel([[call("pay"), over]])
        return LlmAgent("a", model, tools=[pay], sub_agents=[leaf("next", "one", 1.0, "two")])

    whole = await play(tree())
    done.clear()
    for at in range(whole.places("checkpoint", "a")[-1], len(whole.lines)):
        resumed = await resume(tree(), cut_log(whole, at))
        assert (resumed.error, resumed.result.text) == (None, "two"), at
    assert done == []


async def test_a_turn_that_has_begun_something_is_over_after_a_cut(
    autojump_clock: MockClock,
) -> None:
    def tree() -> LlmAgent:
        @tool(is_long_running=True)
        async def order() -> str:
            """Order."""
            await trio.lowlevel.checkpoint()
            return "ticket"

        return LlmAgent("a", ScriptedModel([call("order")]), tools=[order])

    whole = await play(tree())
    for at in range(whole.places("checkpoint")[-1], len(whole.lines)):
        assert (await resume(tree(), cut_log(whole, at))).error is None, at


async def test_calls_that_start_agents_side_by_side_can_be_resumed(
    autojump_clock: MockClock,
) -> None:
    @agent
    async def worker(_: InvocationContext, item: str) -> str:
        await trio.lowlevel.checkpoint()
        return f"{item}!"

    def tree() -> LlmAgent:
        async def late(ctx: ToolContext) -> Any:
            await trio.sleep(1)
            return await ctx.map(worker, ["a", "b"])

        async def early(ctx: ToolContext) -> Any:
            return [await ctx.run_agent(worker, "c"), *await ctx.map(worker, ["d"])]

        calls = [call("late"), call("early", 2)]
        return LlmAgent(
            "a", ScriptedModel(lambda r: "ok" if told_any(r) else calls), tools=[late, early]
        )

    def told_any(request: ModelRequest) -> bool:
        parts = [part for one in request.contents for part in one.parts]
        return any(isinstance(part, FunctionResponse) for part in parts)

    whole = await play(tree())
    for at in range(FIRST, len(whole.lines)):
        assert (await resume(tree(), cut_log(whole, at))).error is None, at


async def test_messages_keep_their_places_after_a_cut(autojump_clock: MockClock) -> None:
    models: list[ScriptedModel] = []

    def answer(request: ModelRequest) -> Any:
        if "more" not in said(request):
            return ["first ", 2.0, "answer"]
        parts = [part for one in request.contents for part in one.parts]
        done = any(isinstance(part, FunctionResponse) for part in parts)
        return "last" if done else FunctionCall("look", {})

    def tree() -> LlmAgent:
        async def look() -> int:
            await trio.lowlevel.checkpoint()
            return 1

        models.append(ScriptedModel(answer))
        return LlmAgent("a", models[-1], tools=[look])

    sent: list[str] = []

    async def react(run: Run, event: Event) -> None:
        if event.partial and not sent:
            sent.append("more")
            await run.send("more")

    whole = await play(tree(), on_event=react)
    last = models[0].requests[-1].contents
    for at in range(whole.places("checkpoint")[0], len(whole.lines)):
        await resume(tree(), cut_log(whole, at))
        if models[-1].requests:
            assert models[-1].requests[-1].contents == last, at


def test_a_message_that_came_before_the_first_turn_is_told_once() -> None:
    model = ScriptedModel(["ok"])

    async def main() -> None:
        async with Runner(LlmAgent("a", model)).open("go") as run:
            await run.send("and hurry")
            async for _ in run:
                pass

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert said(model.requests[-1]).count("and hurry") == 1


@pytest.mark.parametrize("digits", [5_000, 10])
def test_a_number_of_too_many_digits_is_no_answer(digits: int) -> None:
    model = ScriptedModel([f'{{"n": {"1" * digits}}}', '{"n": 1}'])
    ended = run_tree(LlmAgent("a", model, output_schema=dict[str, int]))
    assert ended.error is None
