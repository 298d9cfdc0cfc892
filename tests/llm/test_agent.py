"""An agent that asks a model, calls tools, and asks again until it is answered."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from parallel_agent import (
    Content,
    FunctionCall,
    FunctionResponse,
    GraphAgent,
    InMemorySessionService,
    InvocationContext,
    ParallelAgent,
    Retry,
    Runner,
    SequentialAgent,
    Status,
    agent,
)
from parallel_agent.errors import TreeError
from parallel_agent.llm.agent import LlmAgent
from parallel_agent.llm.model import FinishReason, GenerationConfig, ModelResponse, Usage
from parallel_agent.model_errors import (
    CallLimitError,
    InstructionError,
    ModelArgumentsError,
    ModelOutputError,
    ModelProtocolError,
    ModelRateLimitError,
    ToolDefinitionError,
)
from parallel_agent.testing.scripted_model import ScriptedModel
from tests.workflow.trees import run_tree


async def look(city: str) -> str:
    """Look up the weather of a city."""
    await trio.lowlevel.checkpoint()
    return f"rain in {city}"


def call(number: int, name: str = "look", **args: Any) -> FunctionCall:
    return FunctionCall(name, args or {"city": f"c{number}"}, f"id{number}")


def sent(model: ScriptedModel, number: int = -1) -> list[tuple[str | None, str]]:
    """Return what the model was sent in one request, as roles and texts."""
    return [(content.role, content.text) for content in model.requests[number].contents]


def test_it_says_what_the_model_says() -> None:
    model = ScriptedModel(["hello"])
    ended = run_tree(LlmAgent("writer", model, "Be {mood?} kind."), message="hi")
    assert ended.result.text == ended.result.output == "hello"
    assert model.requests[0].instruction == "Be  kind."
    assert sent(model) == [("user", "hi")]


def test_pieces_are_streamed_and_only_the_whole_is_recorded() -> None:
    ended = run_tree(LlmAgent("writer", ScriptedModel([["good ", "day"]])))
    assert [(event.text, event.partial) for event in ended.delivered] == [
        ("good ", True),
        ("day", True),
        ("good day", False),
    ]
    assert [event.text for event in ended.result.events] == ["good day"]


def test_tools_are_called_and_the_model_is_told() -> None:
    model = ScriptedModel([["let me see", call(1)], "it rains"])
    ended = run_tree(LlmAgent("writer", model, tools=[look]), message="well?")
    assert ended.result.text == "it rains"
    answer = FunctionResponse("look", {"result": "rain in c1"}, "id1")
    assert model.requests[1].contents[1:] == (
        Content((model.requests[1].contents[1].parts[0], call(1))),
        Content((answer,), role="user"),
    )
    assert [tool.name for tool in model.requests[0].tools] == ["look"]


def test_calls_of_one_turn_run_side_by_side_and_are_answered_in_their_order() -> None:
    async def slow(seconds: float) -> float:
        await trio.sleep(seconds)
        return seconds

    calls = [call(n, "slow", seconds=float(s)) for n, s in enumerate([3, 1, 2])]
    model = ScriptedModel([calls, "done"])
    ended = run_tree(LlmAgent("writer", model, tools=[slow]))
    answers = model.requests[1].contents[-1].parts
    assert [part.response["result"] for part in answers if isinstance(part, FunctionResponse)] == [
        3.0,
        1.0,
        2.0,
    ]
    assert ended.time == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (call(1, "nope"), "there is no tool 'nope'; there are look"),
        (call(1, city=3), "the arguments do not fit: city: text is needed, not 3"),
    ],
)
def test_a_call_that_cannot_be_made_is_told_to_the_model(wanted: FunctionCall, said: str) -> None:
    model = ScriptedModel([wanted, "sorry"])
    ended = run_tree(LlmAgent("writer", model, tools=[look]))
    (answer,) = model.requests[1].contents[-1].parts
    assert isinstance(answer, FunctionResponse)
    assert answer.response == {"error": said}
    assert ended.result.text == "sorry"


def test_a_tool_that_fails_is_told_or_fails_the_agent() -> None:
    def broken() -> None:
        raise ValueError("no luck")

    model = ScriptedModel([FunctionCall("broken", {}, "1"), "sorry"])
    assert run_tree(LlmAgent("writer", model, tools=[broken])).result.text == "sorry"
    (answer,) = model.requests[1].contents[-1].parts
    assert isinstance(answer, FunctionResponse)
    assert answer.response == {"error": "ValueError: no luck"}
    model = ScriptedModel([FunctionCall("broken", {}, "1")])
    ended = run_tree(LlmAgent("writer", model, tools=[broken], on_tool_error="raise"))
    assert isinstance(ended.error, ValueError)


@attrs.frozen
class Verdict:
    """What a critic says."""

    good: bool
    score: int


def test_a_structured_answer_is_the_output() -> None:
    model = ScriptedModel(['{"good": true, "score": 3}'])
    ended = run_tree(LlmAgent("critic", model, output_schema=Verdict, output_key="verdict"))
    assert ended.result.output == {"good": True, "score": 3}
    assert ended.result.state["verdict"] == {"good": True, "score": 3}
    assert model.requests[0].output_schema is not None


def test_an_answer_that_does_not_fit_is_sent_back_and_not_recorded() -> None:
    model = ScriptedModel(["well", '{"good": true, "score": 3}'])
    ended = run_tree(LlmAgent("critic", model, output_schema=Verdict))
    assert ended.result.output == {"good": True, "score": 3}
    assert sent(model)[-2] == ("model", "well")
    assert "it is no JSON" in sent(model)[-1][1]
    assert [event.text for event in ended.delivered] == ['{"good": true, "score": 3}']


def test_an_answer_that_never_fits_fails_the_agent() -> None:
    ended = run_tree(LlmAgent("critic", ScriptedModel(["a", '{"good": 1}']), output_schema=Verdict))
    assert isinstance(ended.error, ModelOutputError)
    assert "good: true or false is needed, not 1" in str(ended.error)


def test_a_model_that_never_stops_calling_is_stopped() -> None:
    model = ScriptedModel([call(n) for n in range(9)])
    ended = run_tree(LlmAgent("writer", model, tools=[look], max_turns=3))
    assert isinstance(ended.error, CallLimitError)
    assert len(model.requests) == 4


def test_a_stream_without_an_end_is_refused() -> None:
    pieces = ModelResponse(content=Content("a"), partial=True)
    ended = run_tree(LlmAgent("writer", ScriptedModel([pieces])))
    assert isinstance(ended.error, ModelProtocolError)


def test_usage_and_finish_are_recorded_under_the_names_of_adk() -> None:
    response = ModelResponse(
        content=Content("a"), finish_reason="stop", usage=Usage(3, 2), model="m-1"
    )
    (event,) = run_tree(LlmAgent("writer", ScriptedModel([response]))).delivered
    assert event.other["finishReason"] == "stop"
    assert event.other["usageMetadata"]["promptTokenCount"] == 3
    assert event.other["modelVersion"] == "m-1"


def test_it_does_not_see_what_its_sibling_says_at_the_same_time() -> None:
    one, two = ScriptedModel(["one"]), ScriptedModel([["t", 1.0, "wo"]])
    after = ScriptedModel(["after"])
    tree = SequentialAgent(
        "s", [ParallelAgent("p", [LlmAgent("a", one), LlmAgent("b", two)]), LlmAgent("c", after)]
    )
    run_tree(tree, message="hi")
    assert sent(one) == sent(two) == [("user", "hi")]
    assert sent(after) == [("user", "hi"), ("user", "[a] said: one"), ("user", "[b] said: two")]


def test_a_node_of_a_graph_is_told_what_it_is_fed() -> None:
    @agent
    async def first(ctx: InvocationContext) -> dict[str, int]:
        return {"n": 3}

    model = ScriptedModel(["ok"])
    run_tree(GraphAgent("g", [(first, LlmAgent("second", model))]), message="hi")
    assert sent(model)[-1] == ("user", '{"n": 3}')


def test_what_was_said_before_may_be_left_out() -> None:
    model = ScriptedModel(["a"])
    first = agent(lambda _ctx: "before", name="first")
    run_tree(
        SequentialAgent("s", [first, LlmAgent("b", model, include_contents="none")]), message="hi"
    )
    assert sent(model) == [("user", "hi")]
    model = ScriptedModel(["a"])
    run_tree(SequentialAgent("s", [first, LlmAgent("b", model, max_events=1)]), message="hi")
    assert sent(model) == [("user", "hi"), ("user", "[first] said: before")]


async def test_a_cancelled_turn_leaves_a_session_that_can_go_on(autojump_clock: object) -> None:
    async def never() -> None:
        await trio.sleep_forever()

    sessions = InMemorySessionService()
    model = ScriptedModel([FunctionCall("never", {}, "1")])
    with trio.move_on_after(1):
        tree = LlmAgent("writer", model, tools=[never])
        await Runner(tree, session_service=sessions).run("wait", session_id="s")
    fresh = ScriptedModel(["here again"])
    again = Runner(LlmAgent("writer", fresh), session_service=sessions)
    result = await again.run("go on", session_id="s")
    assert result.status is Status.COMPLETED
    assert sent(fresh) == [("user", "wait"), ("user", "go on")]


def test_an_instruction_may_be_a_function() -> None:
    async def later(ctx: InvocationContext) -> str:
        return f"for {ctx.user_text}, {{as it is}}"

    for instruction in (later, lambda ctx: f"for {ctx.user_text}, {{as it is}}"):
        model = ScriptedModel(["a"])
        run_tree(LlmAgent("a", model, instruction), message="me")
        assert model.requests[0].instruction == "for me, {as it is}"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"model": 3}, "model of 'a' is a Model or the name of one, not 3"),
        ({"model": ScriptedModel([]), "instruction": 3}, "instruction of 'a' is text"),
        (
            {"model": ScriptedModel([]), "tools": [look, look]},
            "two tools of 'a' are called 'look'",
        ),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises((TreeError, ToolDefinitionError), match=match):
        LlmAgent("a", **options)


@pytest.mark.parametrize("options", [{"temperature": 3}, {"max_tokens": 0}, {"top_p": "1"}])
def test_bad_configs_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        GenerationConfig(**options)


# ---------------------------------------------------------------------------------- asked once more


def broken(text: str = "{") -> ModelArgumentsError:
    return ModelArgumentsError("look", text, "it ends too early")


def test_arguments_that_cannot_be_read_are_sent_back_and_not_recorded() -> None:
    model = ScriptedModel([broken(), call(1), "it rains"])
    ended = run_tree(LlmAgent("writer", model, tools=[look]))
    assert ended.result.text == "it rains"
    assert sent(model, 1)[-2:] == [
        ("model", "look({)"),
        (
            "user",
            (
                "The arguments of your call of look cannot be read: it ends too early. Call it "
                "again, with a JSON object."
            ),
        ),
    ]
    assert len(ended.result.events) == 3


def test_arguments_that_can_never_be_read_fail_the_agent() -> None:
    ended = run_tree(LlmAgent("writer", ScriptedModel([broken(), broken("[")]), tools=[look]))
    assert isinstance(ended.error, ModelArgumentsError)
    assert ended.error.arguments == "["


BUSY = ModelRateLimitError("slow down", retry_after=20)


def test_a_model_is_asked_again_and_no_tool_is_called_again() -> None:
    looked: list[str] = []

    async def find(city: str) -> str:
        looked.append(city)
        await trio.lowlevel.checkpoint()
        return "rain"

    model = ScriptedModel([call(1, "find"), BUSY, "it rains"])
    ended = run_tree(LlmAgent("writer", model, tools=[find], model_retry=Retry(2)))
    assert ended.result.text == "it rains"
    assert looked == ["c1"]
    assert model.requests[1] == model.requests[2]
    assert ended.time == pytest.approx(20, abs=0.1)


def test_retries_of_the_model_and_of_the_agent_do_not_multiply() -> None:
    model = ScriptedModel(lambda _: BUSY)
    writer = LlmAgent("writer", model, model_retry=Retry(2), retry=Retry(3))
    assert isinstance(run_tree(writer).error, ModelRateLimitError)
    assert len(model.requests) == 2


def test_what_is_not_worth_another_try_is_raised_at_once() -> None:
    model = ScriptedModel(lambda _: BUSY)
    run_tree(LlmAgent("writer", model, model_retry=Retry(on=ModelProtocolError)))
    assert len(model.requests) == 1


# ---------------------------------------------------------------------------- odd ends of an answer


def said(text: str, finish: FinishReason) -> ModelResponse:
    return ModelResponse(content=text, finish_reason=finish)


def test_without_streaming_only_what_the_callbacks_made_is_shown() -> None:
    def hide(_: InvocationContext, response: ModelResponse) -> ModelResponse:
        return attrs.evolve(response, content=response.content.text.replace("secret", "***"))

    model = ScriptedModel([["the ", "secret"]])
    ended = run_tree(LlmAgent("a", model, stream=False, after_model_callback=hide))
    assert [(event.text, event.partial) for event in ended.delivered] == [("the ***", False)]


def test_an_answer_that_was_cut_off_is_not_asked_for_again_under_the_same_limit() -> None:
    model = ScriptedModel([said('{"good": tr', "length")])
    ended = run_tree(LlmAgent("a", model, output_schema=Verdict))
    assert isinstance(ended.error, ModelOutputError)
    assert "max_tokens, or the context of the model, is too small" in str(ended.error)


def test_an_answer_that_was_kept_back_is_no_success() -> None:
    ended = run_tree(LlmAgent("a", ScriptedModel([said("", "content_filter")])))
    assert isinstance(ended.error, ModelOutputError)
    assert "a content filter" in str(ended.error)


def test_null_is_no_output() -> None:
    model = ScriptedModel(["null"])
    ended = run_tree(LlmAgent("a", model, output_schema=Verdict | None, output_key="v"))
    assert ended.error is None
    assert ended.result.output is None
    assert "v" not in ended.result.state


def test_the_answer_that_does_not_fit_is_in_the_error() -> None:
    ended = run_tree(LlmAgent("a", ScriptedModel(["well"]), output_schema=Verdict, repairs=0))
    assert str(ended.error).endswith("it is 'well'")


def test_an_instruction_that_is_no_text_is_refused() -> None:
    ended = run_tree(LlmAgent("a", ScriptedModel([]), lambda _: None))  # type: ignore[arg-type,return-value]  # what is tried here
    assert isinstance(ended.error, InstructionError)


def test_an_option_that_is_not_there_is_answered_with_one_that_is() -> None:
    with pytest.raises(TypeError, match=r"no option 'instructions' \(did you mean 'instruction'"):
        LlmAgent("a", ScriptedModel([]), instructions="x")  # type: ignore[call-arg]  # what is tried here
    with pytest.raises(TypeError, match="did you mean 'after_model_callback'"):
        LlmAgent("a", ScriptedModel([]), after_model_callbacks=print)  # type: ignore[call-arg]  # as above


def test_an_error_that_the_model_is_told_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def failing() -> None:
        raise LookupError("nothing there")

    run_tree(LlmAgent("a", ScriptedModel([FunctionCall("failing", {}), "oh"]), tools=[failing]))
    (record,) = [one for one in caplog.records if one.name == "parallel_agent.llm"]
    assert "tool of agent a has failed" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)
