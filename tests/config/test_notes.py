"""What a check of a file tells beside what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parallel_agent.config import Problem, check_graph
from tests.config.writing import FILES, OPTIONS, echo, write


def checked(folder: Path, text: str, **options: Any) -> list[str]:
    """What a check says, each as ``line:column: path: message``; all of them are notes."""
    found = check_graph(write(folder, text), **{"agents": {"echo": echo}, "env": {}, **options})
    assert all(one.is_note for one in found), found
    return [str(one).removeprefix(f"{one.file}:") for one in found]


def test_keys_without_effect_are_told_in_order(tmp_path: Path) -> None:
    text = """\
        batch_user_messages: [a]
        models: [{llm: ollama, model: m, batch_role_arn: x, context_window: 3}]
        prompts: [{template: {prompt_template: {batch_role_arn: x}}}]
        react_compact_prompts: []
        blackboard: {path: boards, boards: [{id: x, file: x.md}]}
        nodes:
          - {id: a, model: 0, batch_message_passing: {output: true}}
          - {id: b, model: 0, prompt: {template: 0, batch_use_messages: [0]}}
        edges:
          - node: a
            batch_children: [b]
    """
    assert checked(tmp_path, text) == [
        "1:1: batch_user_messages: this has no effect",
        "2:34: models[0].batch_role_arn: this has no effect",
        "2:53: models[0].context_window: this has no effect",
        "4:1: react_compact_prompts: this has no effect",
        "5:14: blackboard.path: this has no effect: boards are kept in the state, not in files",
        (
            "5:45: blackboard.boards[0].file: this has no effect: boards are kept in the state, "
            "not in files"
        ),
        "7:23: nodes[0].batch_message_passing: this has no effect",
        "8:45: nodes[1].prompt.batch_use_messages: this has no effect",
        "11:5: edges[0].batch_children: this has no effect",
    ]


def test_a_placeholder_that_will_not_be_filled_is_told(tmp_path: Path) -> None:
    text = """\
        models: [{llm: ollama, model: m}]
        prompts: [{template: {system_template: {a: '{x} {user_message}'}}}]
        nodes:
          - {id: a, model: 0, prompt: {template: 0, prompt_placeholders: {x: y}}}
          - {id: b, model: 0, prompt: {template: 0, user_message: true}}
    """
    assert checked(tmp_path, text) == [
        (
            "4:42: nodes[0].prompt.template: its texts have {user_message}, which the node does "
            "not fill: it will fail"
        ),
        (
            "5:42: nodes[1].prompt.template: its texts have {x}, which the node does not fill: it "
            "will fail"
        ),
    ]


def test_a_history_that_is_not_there_is_told(tmp_path: Path) -> None:
    text = """\
        models: [{llm: ollama, model: m}]
        prompts: [{template: {}}]
        nodes: [{id: a, model: 0, prompt: {template: 0, chat_history: talk}}]
    """
    assert checked(tmp_path, text) == [
        "3:63: nodes[0].prompt.chat_history: there is no history 'talk': the node runs without one"
    ]


def test_what_a_guard_shares_is_told_to_be_without_effect(tmp_path: Path) -> None:
    text = """\
        nodes:
        - {id: a, agent: echo}
        - {id: g, agent: echo, guard: true, message_passing: {output: true}}
        - {id: h, agent: echo, guard: true, message_passing: {output: false}}
    """
    assert checked(tmp_path, text) == [
        (
            "3:37: nodes[1].message_passing: this has no effect: a guard runs before the nodes "
            "that share texts"
        )
    ]


@pytest.mark.parametrize("name", ["review.yml", "ordered.yml", "agents.yaml"])
def test_there_is_nothing_to_tell_of_a_file_that_is_as_it_should_be(name: str) -> None:
    assert check_graph(FILES / name, **OPTIONS) == []


def test_what_is_wrong_is_told_and_no_note(tmp_path: Path) -> None:
    path = write(tmp_path, "verbose: true\nnodes: 3\n")
    assert check_graph(path) == [
        Problem(str(path), 2, 8, "nodes", "a list is needed, not 3", is_note=False)
    ]
