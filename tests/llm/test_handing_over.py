"""A model that hands over: to agents below its own, beside it, and back to the one above."""

from __future__ import annotations

from typing import Any

import pytest

from parallel_agent import FunctionCall, FunctionResponse, LoopAgent, ParallelAgent
from parallel_agent.llm.agent import LlmAgent
from parallel_agent.model_errors import ToolDefinitionError
from parallel_agent.testing.scripted_model import ScriptedModel
from parallel_agent.tools.agent_tool import AgentTool
from tests.workflow.trees import leaf, run_tree


def to(name: str, number: int = 1) -> FunctionCall:
    return FunctionCall("transfer_to_agent", {"agent_name": name}, f"t{number}")


def desk(*answers: Any, name: str, sub_agents: Any = (), **options: Any) -> LlmAgent:
    model = ScriptedModel(answers, name=name)
    return LlmAgent(name, model, sub_agents=sub_agents, description=f"does {name}", **options)


def offered(agent: LlmAgent, number: int = 0) -> list[str]:
    """Return whom the model of ``agent`` was told it may hand over to."""
    model = agent.model
    assert isinstance(model, ScriptedModel)
    (tool,) = [one for one in model.requests[number].tools if one.name == "transfer_to_agent"]
    names: list[str] = tool.parameters["properties"]["agent_name"]["enum"]
    assert all(f"- {name}: " in tool.description for name in names)
    return names


def test_an_agent_below_goes_on_in_its_place() -> None:
    billing, sales = desk("paid", name="billing"), desk(name="sales")
    front = desk(to("billing"), name="front", sub_agents=[billing, sales], output_key="said")
    ended = run_tree(front, message="my bill?")
    assert ended.error is None
    assert ended.result.text == ended.result.state["said"] == "paid"
    assert [event.author for event in ended.delivered[:3]] == ["front", "front", "billing"]
    assert ended.delivered[1].transfer_to_agent == "billing"
    assert offered(front) == ["billing", "sales"]


def test_it_is_told_what_was_said_to_the_one_before() -> None:
    billing = desk("paid", name="billing")
    run_tree(desk(to("billing"), name="front", sub_agents=[billing]), message="my bill?")
    assert isinstance(billing.model, ScriptedModel)
    contents = billing.model.requests[0].contents
    assert contents[0].text == "my bill?"
    assert "[front] called transfer_to_agent" in contents[1].text


def test_it_may_hand_on_to_those_beside_it_and_back() -> None:
    sales = desk(to("front", 3), name="sales")
    billing = desk(to("sales", 2), name="billing")
    front = desk(to("billing"), "bye", name="front", sub_agents=[billing, sales])
    ended = run_tree(front)
    assert ended.error is None
    assert ended.result.text == "bye"
    said = [event.author for event in ended.delivered if event.function_calls or event.text]
    assert said == ["front", "billing", "sales", "front"]
    assert offered(billing) == ["sales", "front"]
    assert offered(sales) == ["billing", "front"]


@pytest.mark.parametrize(
    ("option", "left"),
    [("disallow_transfer_to_parent", ["sales"]), ("disallow_transfer_to_peers", ["front"])],
)
def test_that_can_be_forbidden(option: str, left: list[str]) -> None:
    billing = desk("paid", name="billing", **{option: True})
    run_tree(desk(to("billing"), name="front", sub_agents=[billing, desk(name="sales")]))
    assert offered(billing) == left


def test_without_anybody_to_hand_over_to_there_is_no_tool_for_it() -> None:
    agent = desk("hello", name="a")
    run_tree(ParallelAgent("p", [agent, desk("there", name="b")]))
    assert isinstance(agent.model, ScriptedModel)
    assert agent.model.requests[0].tools == ()


def test_an_agent_that_runs_as_a_tool_is_not_told_of_the_one_that_waits_for_it() -> None:
    helper = desk("found", name="helper")
    asking = FunctionCall("helper", {"request": "look"}, "1")
    front = desk(asking, "done", name="front", tools=[AgentTool(helper)])
    assert run_tree(front).result.text == "done"
    assert isinstance(helper.model, ScriptedModel)
    assert helper.model.requests[0].tools == ()


def test_a_name_that_was_not_offered_is_told_to_the_model() -> None:
    front = desk(to("nobody"), "sorry", name="front", sub_agents=[desk(name="billing")])
    assert run_tree(front).result.text == "sorry"
    assert isinstance(front.model, ScriptedModel)
    (answer,) = front.model.requests[1].contents[-1].parts
    assert isinstance(answer, FunctionResponse)
    assert "there is no agent 'nobody' to hand over to" in answer.response["error"]


def test_the_first_of_two_goes_on() -> None:
    tree = desk(
        [to("billing"), to("sales", 2)],
        name="front",
        sub_agents=[desk("paid", name="billing"), desk(name="sales")],
    )
    ended = run_tree(tree)
    assert ended.result.text == "paid"
    answers = ended.delivered[1].function_responses
    assert answers[1].response == {"error": "only one agent can go on, and billing does"}


def test_a_workflow_may_go_on_too() -> None:
    work = LoopAgent("work", [leaf("x", "one")], max_iterations=2)
    ended = run_tree(desk(to("work"), name="front", sub_agents=[work]))
    assert [event.text for event in ended.delivered if event.author == "x"] == ["one", "one"]


def test_those_that_never_stop_handing_over_are_stopped() -> None:
    names = ["a", "b"]
    below = [
        LlmAgent(name, ScriptedModel(lambda _, other=other: to(other)))  # type: ignore[misc]  # a default binds it
        for name, other in zip(names, reversed(names), strict=True)
    ]
    front = desk(to("a"), name="front", sub_agents=below)
    ended = run_tree(front)
    assert "handed over to each other already" in str(ended.error)


def test_no_tool_may_have_the_name() -> None:
    def transfer_to_agent() -> None:
        """No."""

    front = desk(name="front", sub_agents=[desk(name="b")], tools=[transfer_to_agent])
    ended = run_tree(front)
    assert isinstance(ended.error, ToolDefinitionError)
