"""Controllers: what their models are told, which agents work, and what comes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
from trio.testing import MockClock

from parallel_agent import InvocationContext
from parallel_agent.config import check_graph, load_graph
from parallel_agent.config.reacting import REACT_OUTPUT
from parallel_agent.llm.model import ModelRequest
from parallel_agent.model_errors import CallLimitError, ModelOutputError
from parallel_agent.testing.scripted_model import Answer, ScriptedModel
from session.content import Content, Text
from tests.config.asking import asked, request, run, said, sent, wanting
from tests.config.writing import FILES, echo, load, refused, write
from tests.support.resuming import FIRST, cut_log, play, resume
from tests.workflow.trees import run_tree

pytest.importorskip("jsonschema")

SCHEMA: Final = {
    "type": "object",
    "properties": {
        "next_agent": {"type": "string"},
        "agent_input": {"type": "string"},
        "done": {"type": "boolean"},
        "final_answer": {"type": "string"},
        "reasoning": {"type": "string"},
    },
    "required": ["done"],
}


def ask(agent: str, what: str = "work") -> str:
    return json.dumps({"next_agent": agent, "agent_input": what, "done": False})


def done(answer: str = "it is done") -> str:
    return json.dumps({"done": True, "final_answer": answer})


async def played(*answers: Answer) -> tuple[list[ModelRequest], Any]:
    """Run the file of the tests; return what its model was asked, and the output."""
    model = ScriptedModel(answers)
    graph = load_graph(FILES / "react.yml", models={0: model})
    result = await run(graph, "3*7?")
    return model.requests, result.output


async def test_the_model_sees_its_replies_and_what_the_agents_have_said() -> None:
    requests, output = await played(ask("sums", "3*7"), "21", done(), "the end")
    fields: dict[str, Any] = {
        "instruction": said("You have others work.", "role"),
        "output_schema": SCHEMA,
        "config": wanting(max_tokens=512),
    }
    task = Content(said("3*7?", "task"), role="user")
    reply = Content(Text(ask("sums", "3*7")), role="model")
    assert requests == [
        request(task.text, **fields),
        request(said("3*7"), config=wanting(max_tokens=64)),
        request("[observation from sums]\n21", task, reply, **fields),
        request(said("it is done"), config=wanting(max_tokens=64)),
    ]
    assert output == "the end"


async def test_an_agent_of_several_nodes_comes_to_what_they_have_passed_on() -> None:
    requests, _ = await played(ask("draft", "write"), "a draft", "polished", done(), "the end")
    assert [sent([one]) for one in requests[1:4]] == [
        said("write"),
        said("write\n\na draft"),
        "[observation from draft]\na draft\n\npolished",
    ]


async def test_an_agent_that_passes_nothing_on_comes_to_its_last_output(tmp_path: Path) -> None:
    edges = "{node: lead, react: [{node: b, children: [a]}]}"
    text = NODES % ("", "", edges)
    requests, _ = await asked(tmp_path, text, ask("b"), done(), agents={"echo": echo})
    assert sent(requests) == "[observation from b]\na"


async def test_only_the_answer_of_a_controller_is_passed_on() -> None:
    requests, _ = await played(ask("sums"), "21", done("twenty-one"), "the end")
    assert sent(requests) == said("twenty-one")


async def test_an_agent_works_as_often_as_it_is_wanted() -> None:
    requests, _ = await played(ask("sums", "a"), "1", ask("sums", "b"), "2", done(), "the end")
    assert [sent([one]) for one in (requests[1], requests[3])] == [said("a"), said("b")]


async def test_an_agent_that_is_not_there_is_told_to_the_model() -> None:
    requests, output = await played(ask("nobody"), done(), "the end")
    assert sent(requests, 1) == (
        '[observation from nobody]\n{"error": "there is no tool \'nobody\'; there are sums, draft"}'
    )
    assert output == "the end"


async def test_a_reply_that_names_nobody_is_the_end() -> None:
    reply = json.dumps({"done": False, "reasoning": "I am lost"})
    requests, _ = await played(reply, "the end")
    assert sent(requests) == said("I am lost")


async def test_a_reply_that_does_not_fit_is_sent_back_once() -> None:
    requests, output = await played("I think", done(), "the end")
    assert sent(requests, 1).startswith("That does not fit what is asked for: it is no JSON")
    assert output == "the end"
    with pytest.raises(ModelOutputError, match="what agent 'lead' asks for"):
        await played("I think", "{}")


async def test_a_reply_that_is_no_object_does_not_fit(tmp_path: Path) -> None:
    text = NODES % (", react_output: {type: array}", "", PLAIN)
    with pytest.raises(ModelOutputError, match="'lead' asks for: an object is needed"):
        await asked(tmp_path, text, "[]", agents={"echo": echo})


def test_pieces_of_replies_are_not_shown() -> None:
    reply = done()
    model = ScriptedModel([[reply[:9], reply[9:]], "the end"])
    ended = run_tree(load_graph(FILES / "react.yml", models={0: model}))
    assert [event.text for event in ended.delivered if event.partial] == []
    assert [event.text for event in ended.delivered if event.text] == ["it is done", "the end"]


async def test_a_controller_that_is_not_done_in_time_fails() -> None:
    working = [ask("sums"), "1", ask("sums"), "2", ask("sums"), "3"]
    _, output = await played(*working, done(), "the end")
    assert output == "the end"
    with pytest.raises(CallLimitError, match="'lead' have worked 3 times, and it is not done"):
        await played(*working, ask("sums"))


async def test_code_can_work_for_a_controller(tmp_path: Path) -> None:
    async def add(ctx: InvocationContext, numbers: str) -> int:
        return sum(map(int, numbers.split("+")))

    text = """
        models: [{llm: ollama, model: m}]
        prompts: [{template: {prompt_template: {q: '{user_message}'}}}]
        nodes:
          - {id: lead, model: 0, prompt: {template: 0, user_message: true}}
          - {id: add, agent: add}
        edges: [{node: lead, react: [add]}]
    """
    requests, result = await asked(
        tmp_path, text, ask("add", "1+2"), done("3"), agents={"add": add}
    )
    assert sent(requests) == "[observation from add]\n3"
    assert result.output == "3"
    assert requests[0].output_schema == {"type": "object", **REACT_OUTPUT}


def answering(model_asked: ModelRequest) -> Answer:
    """Answer by what was said, whoever asks."""
    if model_asked.output_schema is None:
        return f"worked on {model_asked.contents[-1].text.splitlines()[1]}"
    turns = len(model_asked.contents) // 2
    return done() if turns == 2 else ask(["sums", "draft"][turns], f"task {turns}")


async def test_cut_off_anywhere_it_comes_to_the_same_end(autojump_clock: MockClock) -> None:
    def made() -> tuple[Any, ScriptedModel]:
        model = ScriptedModel(answering)
        return load_graph(FILES / "react.yml", models={0: model}), model

    graph, model = made()
    whole = await play(graph)
    assert len(model.requests) == 7
    for at in range(FIRST, len(whole.lines)):
        graph, again = made()
        resumed = await resume(graph, cut_log(whole, at))
        assert resumed.error is None, at
        assert resumed.result.output == whole.result.output, at
        assert all(one in model.requests for one in again.requests), at


NODES: Final = """
models: [{llm: ollama, model: m}]
prompts: [{template: {}}]
nodes:
  - {id: lead, model: 0, prompt: {template: 0}%s}
  - {id: a, agent: echo}
  - {id: b, agent: echo%s}
edges: [%s]
"""
PLAIN: Final = "{node: lead, react: [a, b]}"


@pytest.mark.parametrize(
    ("lead", "b", "edges", "why"),
    [
        (
            "",
            "",
            "{node: a, react: [b]}",
            "6:5: nodes[1]: a node with react is answered by a model",
        ),
        (", tools: []", "", PLAIN, "5:49: nodes[0].tools: a node with react has agents, and none"),
        ("", "", f"{PLAIN}, a", "8:38: edges[1]: 'a' is part of 'lead', and has no edges"),
        ("", "", "{node: lead, react: [c]}", "8:30: edges[0].react[0]: there is no node 'c'"),
        ("", "", "{node: lead, react: [a, a]}", "edges[0].react[1]: 'a' is there twice"),
        ("", ", guard: true", PLAIN, "8:33: edges[0].react[1]: 'b' is a guard, and runs before"),
        (
            ", react: {max_iterations: 0}",
            "",
            PLAIN,
            "nodes[0].react.max_iterations: a whole number from 1 on is needed, not 0",
        ),
        (
            "",
            "",
            "{node: lead, react: [lead]}",
            "5:5: nodes[0]: 'lead', which is part of 'lead': a node cannot be part of itself",
        ),
        (
            "",
            ", model: 0",
            "{node: lead, react: [{node: a, react: [b]}]}",
            "edges[0].react[0].react: 'a' works for 'lead', and has no agents of its own",
        ),
        (
            "",
            "",
            "{node: lead, react: [{node: a, children: [{node: b, if: x}]}]}",
            "if: no condition 'x' was given",
        ),
        ("", "", "{node: nobody, react: [a]}", "there is no node 'nobody'"),
        ("", ", timeout: -1", PLAIN, "nodes[2].timeout: "),
        (
            "",
            "",
            f"{PLAIN}, {{node: other, react: [b]}}",
            "edges[1].react[0]: 'b' is part of 'lead', and has no edges",
        ),
        (", react_output: {parameters: [x]}", "", PLAIN, "nodes[0].react_output: this is no JSON"),
    ],
)
def test_a_controller_that_cannot_be_is_told(
    tmp_path: Path, lead: str, b: str, edges: str, why: str
) -> None:
    told = refused(tmp_path, NODES % (lead, b, edges))
    assert [one for one in told if why in one], told


def test_a_board_is_not_for_those_who_work_for_a_controller(tmp_path: Path) -> None:
    board = "blackboard: {boards: [{id: x}]}"
    text = NODES % ("", ", blackboard: {id: x, read: true}", PLAIN) + board
    (told,) = refused(tmp_path, text)
    assert "nodes[2].blackboard: 'b' is part of another node" in told


def test_what_a_controller_needs_not_is_without_effect(tmp_path: Path) -> None:
    lead = ", react: {compact: true, resume: false}, react_output: {}"
    notes = check_graph(write(tmp_path, NODES % (lead, "", PLAIN)), agents={"echo": echo})
    assert [note.path for note in notes] == ["nodes[0].react.compact", "nodes[0].react.resume"]
    notes = check_graph(write(tmp_path, NODES % (lead, "", "")), agents={"echo": echo})
    assert {"nodes[0].react", "nodes[0].react_output"} < {note.path for note in notes}


def test_those_who_work_are_found_below_their_controller() -> None:
    graph = load_graph(FILES / "react.yml")
    lead = graph.find_agent("lead")
    assert lead is not None
    assert [one.name for one in lead.sub_agents] == ["sums_agent", "draft_agent"]
    assert graph.find_agent("polish") is not None
    assert [node.name for node in graph.definition.nodes] == ["lead", "end"]


def test_an_agent_is_called_like_nothing_else(tmp_path: Path) -> None:
    text = NODES.replace("id: b", "id: a_agent") % ("", "", "{node: lead, react: [a]}")
    lead = load(tmp_path, text).find_agent("lead")
    assert lead is not None
    assert [one.name for one in lead.sub_agents] == ["a_agent_"]
