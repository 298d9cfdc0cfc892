"""The calls of a turn: side by side, in order, with a person asked first, and ended all at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from parallel_agent import (
    Content,
    FunctionCall,
    FunctionResponse,
    InMemorySessionService,
    LoopAgent,
    ModelRateLimitError,
    ParallelAgent,
    Retry,
    RunConfig,
    Runner,
    Schema,
    SequentialAgent,
    Status,
)
from parallel_agent.errors import RequestError
from parallel_agent.llm.agent import LlmAgent
from parallel_agent.testing.scripted_model import ScriptedModel
from parallel_agent.tools.context import ToolContext
from parallel_agent.tools.exit_loop import exit_loop
from parallel_agent.tools.function_tool import tool
from tests.workflow.trees import Diary, leaf, run_tree

SUSPEND = RunConfig(on_wait="suspend")


def call(name: str, number: int = 1, **args: Any) -> FunctionCall:
    return FunctionCall(name, args, f"id{number}")


def answers(model: ScriptedModel, number: int = -1) -> dict[str | None, Mapping[str, Any]]:
    """Return what the tools have answered, by call, as the model was told last."""
    return {
        part.id: part.response
        for part in model.requests[number].contents[-1].parts
        if isinstance(part, FunctionResponse)
    }


def slow(diary: Diary) -> Callable[[], Awaitable[None]]:
    """Return a tool that takes long, and notes its end."""

    async def slow() -> None:
        try:
            await trio.sleep(9)
        finally:
            diary.append("slow ends")

    return slow


# ----------------------------------------------------------------------------- order and cancelling


@given(order=st.permutations(range(5)), schedule=st.random_module())
def test_any_order_of_ends_gives_the_same_next_request(order: list[int], schedule: Any) -> None:
    async def work(position: int) -> int:
        await trio.sleep(order[position])
        return position

    calls = [call("work", n, position=n) for n in range(5)]
    model = ScriptedModel([calls, "done"])
    run_tree(LlmAgent("a", model, tools=[work]))
    content = model.requests[1].contents[-1]
    assert content == Content(
        tuple(FunctionResponse("work", {"result": n}, f"id{n}") for n in range(5)), role="user"
    )


def test_a_failure_that_is_raised_cancels_the_other_calls_and_comes_as_itself() -> None:
    diary: Diary = []

    async def broken() -> None:
        await trio.sleep(1)
        raise ValueError("no luck")

    model = ScriptedModel([[call("slow"), call("broken", 2)]])
    ended = run_tree(LlmAgent("a", model, tools=[slow(diary), broken], on_tool_error="raise"))
    assert type(ended.error) is ValueError
    assert diary == ["slow ends"]
    assert ended.time == pytest.approx(1, abs=0.1)


def test_an_interrupt_in_a_tool_is_no_error_for_the_model() -> None:
    async def interrupted() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyboardInterrupt

    model = ScriptedModel([call("interrupted"), "never"])
    with pytest.raises(KeyboardInterrupt):
        run_tree(LlmAgent("a", model, tools=[interrupted]))


def test_a_failing_sibling_cancels_the_tools_of_an_agent() -> None:
    diary: Diary = []

    model = ScriptedModel([call("slow")])
    tree = ParallelAgent(
        "p", [LlmAgent("a", model, tools=[slow(diary)]), leaf("b", 1, OSError("x"))]
    )
    assert isinstance(run_tree(tree).error, OSError)
    assert diary == ["slow ends"]


def test_a_cancelled_turn_leaves_no_call_for_the_next_request() -> None:
    async def slow() -> None:
        await trio.sleep(9)

    async def main() -> None:
        model = ScriptedModel([["let me see", call("slow")], "fine"])
        runner = Runner(LlmAgent("a", model, tools=[slow]))
        async with runner.open("one", session_id="s") as run:
            async for event in run:
                if event.function_calls:
                    break
        await runner.run("two", session_id="s")
        assert [(one.role, one.text) for one in model.requests[1].contents] == [
            ("user", "one"),
            ("model", "let me see"),
            ("user", "two"),
        ]

    trio.run(main, clock=MockClock(autojump_threshold=0))


# ------------------------------------------------------------------------------------ calls and ids


def test_calls_without_an_id_are_given_one_each() -> None:
    async def work(n: int) -> int:
        await trio.lowlevel.checkpoint()
        return n

    same = [FunctionCall("work", {"n": n}) for n in range(2)]
    model = ScriptedModel([same, same, "done"])
    run_tree(LlmAgent("a", model, tools=[work]))
    ids = [
        part.id
        for content in model.requests[-1].contents
        for part in content.parts
        if isinstance(part, FunctionCall)
    ]
    assert len(set(ids)) == 4
    assert None not in ids


def test_an_id_that_comes_again_is_replaced() -> None:
    async def work() -> None:
        await trio.lowlevel.checkpoint()

    model = ScriptedModel([call("work"), call("work"), "done"])
    run_tree(LlmAgent("a", model, tools=[work]))
    ids = [
        part.id
        for content in model.requests[-1].contents
        for part in content.parts
        if isinstance(part, FunctionCall)
    ]
    assert ids[0] == "id1" != ids[1]


async def test_effects_of_two_calls_are_two(autojump_clock: MockClock) -> None:
    done: list[int] = []

    async def refund(ctx: ToolContext, amount: int) -> Any:
        def pay() -> int:
            done.append(amount)
            return amount

        return await ctx.once("refund", pay)

    model = ScriptedModel([[call("refund", 1, amount=1), call("refund", 2, amount=2)], "ok"])
    await Runner(LlmAgent("a", model, tools=[refund])).run("go")
    assert sorted(done) == [1, 2]
    assert answers(model) == {"id1": {"result": 1}, "id2": {"result": 2}}


def test_what_a_tool_emits_is_streamed_and_not_sent_to_the_model() -> None:
    async def work(ctx: ToolContext) -> str:
        await ctx.emit("half way")
        return "done"

    model = ScriptedModel([call("work"), "fine"])
    ended = run_tree(LlmAgent("a", model, tools=[work]))
    assert "half way" in [event.text for event in ended.delivered]
    assert [content.text for content in model.requests[1].contents] == ["hi", "", ""]


# ----------------------------------------------------------------------------- what a tool asks for


def test_a_tool_may_end_the_loop() -> None:
    critic = LlmAgent("critic", ScriptedModel(["more", call("exit_loop")]), tools=[exit_loop])
    tree = LoopAgent("refine", [leaf("writer", "text"), critic], max_iterations=9)
    ended = run_tree(tree)
    assert [event.author for event in ended.delivered] == [
        "writer",
        "critic",
        "writer",
        "critic",
        "critic",
    ]
    assert ended.delivered[-1].escalate


def test_a_tool_may_answer_for_the_model() -> None:
    async def lookup(ctx: ToolContext) -> dict[str, int]:
        ctx.actions.skip_summarization = True
        await trio.lowlevel.checkpoint()
        return {"found": 3}

    model = ScriptedModel([call("lookup")])
    ended = run_tree(LlmAgent("a", model, tools=[lookup], output_key="found"))
    assert ended.result.output == {"found": 3} == ended.result.state["found"]
    assert len(model.requests) == 1


def test_a_long_running_tool_ends_the_turn_and_its_result_comes_later() -> None:
    @tool(is_long_running=True)
    async def order(ctx: ToolContext, what: str) -> str:
        """Order something."""
        await trio.lowlevel.checkpoint()
        return f"ticket {ctx.call.id}"

    async def main() -> None:
        model = ScriptedModel([call("order", what="tea"), "your tea is here"])
        runner = Runner(LlmAgent("a", model, tools=[order]))
        first = await runner.run("tea please", session_id="s")
        assert len(model.requests) == 1
        assert first.events[-2].long_running_tool_ids == ("id1",)
        later = Content(FunctionResponse("order", {"result": "tea"}, "id1"))
        second = await runner.run(later, session_id="s")
        assert second.text == "your tea is here"
        assert model.requests[1].contents[1:] == (
            Content((call("order", what="tea"),)),
            Content((FunctionResponse("order", {"result": "tea"}, "id1"),), role="user"),
        )

    trio.run(main)


# ----------------------------------------------------------------------------------------- approval


def guarded(diary: Diary) -> Any:
    @tool(needs_approval=lambda args: args["amount"] > 10)
    async def pay(amount: int) -> str:
        """Pay."""
        diary.append(f"paid {amount}")
        await trio.lowlevel.checkpoint()
        return "paid"

    return pay


@pytest.mark.parametrize("yes", [True, False])
def test_a_person_is_asked_before_a_tool_runs(yes: bool) -> None:  # noqa: FBT001  # a case
    diary: Diary = []
    model = ScriptedModel([[call("pay", 1, amount=5), call("pay", 2, amount=50)], "ok"])

    async def main() -> None:
        async with Runner(LlmAgent("a", model, tools=[guarded(diary)])).open("go") as run:
            async for event in run:
                if event.request is not None:
                    assert event.request.prompt == 'May a call pay with {"amount": 50}?'
                    assert diary in ([], ["paid 5"])
                    await run.respond(event.request.id, yes)

    trio.run(main)
    assert diary == ["paid 5", "paid 50"][: 1 + yes]
    told = {"result": "paid"} if yes else {"error": "a person has refused this call"}
    assert answers(model) == {"id1": {"result": "paid"}, "id2": told}


def test_without_anybody_to_ask_the_agent_fails_and_the_tool_does_not_run() -> None:
    diary: Diary = []
    model = ScriptedModel([call("pay", amount=50)])
    with pytest.raises(RequestError, match="nobody can answer"):
        trio.run(Runner(LlmAgent("a", model, tools=[guarded(diary)])).run, "go")
    assert diary == []


@pytest.mark.parametrize("yes", [True, False])
async def test_a_person_may_answer_in_another_process(
    autojump_clock: MockClock,
    yes: bool,  # noqa: FBT001  # a case
) -> None:
    """The model is not asked again, and what had run beside it is not run again."""
    diary: Diary = []
    calls = [call("pay", 1, amount=50), call("pay", 2, amount=5), call("pay", 3, amount=60)]
    model = ScriptedModel([calls, "ok"])
    service = InMemorySessionService()
    tree = SequentialAgent("s", [LlmAgent("a", model, tools=[guarded(diary)]), leaf("b", "end")])
    runner = Runner(tree, session_service=service, resumable=True)
    first = await runner.run("go", session_id="s", run_config=SUSPEND)
    assert first.status is Status.WAITING
    asked = [event.request for event in first.events if event.request is not None]
    assert [one.prompt for one in asked] == [
        'May a call pay with {"amount": 50}?',
        'May a call pay with {"amount": 60}?',
    ] or [one.prompt for one in asked] == [
        'May a call pay with {"amount": 60}?',
        'May a call pay with {"amount": 50}?',
    ]
    assert diary == ["paid 5"]
    of = {one.prompt[-4:-2]: one.id for one in asked}
    second = await runner.resume("s", responses={of["60"]: yes}, run_config=SUSPEND)
    assert second.status is Status.WAITING
    assert diary == ["paid 5", "paid 60"][: 1 + yes]
    third = await runner.resume("s", responses={of["50"]: True}, run_config=SUSPEND)
    assert third.status is Status.COMPLETED
    assert diary == ["paid 5", *(["paid 60"] if yes else []), "paid 50"]
    assert len(model.requests) == 2
    ids = [
        part.id
        for content in model.requests[1].contents
        for part in content.parts
        if isinstance(part, FunctionResponse)
    ]
    assert ids == ["id1", "id2", "id3"]
    assert third.text == "end"


async def test_what_ends_the_turn_waits_for_those_who_wait(autojump_clock: MockClock) -> None:
    """What has begun has begun; the loop ends when the turn is over, and not before."""
    diary: Diary = []

    @tool(is_long_running=True)
    async def order() -> str:
        """Order something."""
        diary.append("ordered")
        await trio.lowlevel.checkpoint()
        return "ticket"

    calls = [call("pay", 1, amount=50), call("order", 2), call("exit_loop", 3)]
    model = ScriptedModel([calls])
    talker = LlmAgent("a", model, tools=[guarded(diary), order, exit_loop])
    runner = Runner(LoopAgent("l", [talker], max_iterations=3), resumable=True)
    first = await runner.run("go", session_id="s", run_config=SUSPEND)
    assert first.status is Status.WAITING
    (asked,) = [event.request for event in first.events if event.request is not None]
    second = await runner.resume("s", responses={asked.id: True}, run_config=SUSPEND)
    assert second.status is Status.COMPLETED
    assert diary == ["ordered", "paid 50"]
    assert len(model.requests) == 1
    assert second.events[-1].escalate


def test_a_long_running_tool_that_fails_has_not_begun() -> None:
    @tool(is_long_running=True)
    async def order() -> str:
        """Order something."""
        await trio.lowlevel.checkpoint()
        raise OSError("closed")

    model = ScriptedModel([call("order"), "sorry"])
    assert run_tree(LlmAgent("a", model, tools=[order])).result.text == "sorry"


def test_a_misfit_inside_a_tool_is_not_taken_for_one_of_its_arguments() -> None:
    async def writes() -> None:
        await trio.lowlevel.checkpoint()
        Schema(int).structure("no")

    model = ScriptedModel([call("writes"), "sorry"])
    run_tree(LlmAgent("a", model, tools=[writes]))
    assert answers(model)["id1"]["error"].startswith("SchemaError")


async def test_tried_again_a_call_with_other_arguments_is_another(
    autojump_clock: MockClock,
) -> None:
    done: list[int] = []

    async def refund(ctx: ToolContext, amount: int) -> int:
        def pay() -> int:
            done.append(amount)
            return amount

        return await ctx.once("refund", pay)

    busy = ModelRateLimitError("slow down")
    first = [call("refund", 1, amount=5), call("refund", 2, amount=5)]
    second = [call("refund", 1, amount=700), call("refund", 2, amount=5)]
    model = ScriptedModel([first, busy, second, "done"])
    writer = LlmAgent("a", model, tools=[refund], retry=Retry(2))
    await Runner(writer).run("go")
    assert sorted(done) == [5, 5, 700]
    assert answers(model) == {"id1": {"result": 700}, "id2": {"result": 5}}
