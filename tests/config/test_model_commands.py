"""What the command line takes from code for the models and tools of a graph file."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from parallel_agent import Runner
from parallel_agent.cli.graph_files import Code, code_in, missing_code, problems_in, read_graph
from parallel_agent.testing.scripted_model import ScriptedModel
from parallel_agent.tools.function_tool import tool
from session.content import FunctionCall
from tests.config.asking import a_file
from tests.config.writing import write


def module(**names: Any) -> ModuleType:
    made = ModuleType("code")
    vars(made).update(names)
    return made


def look_up(title: str) -> str:
    return f"{title} is there"


look_up.__module__ = "code"
FILE = a_file("prompt: {template: 0}\ntools: [look_up]", more="tools: [{name: look_up}]")


def test_tools_are_functions_and_tools_of_a_module() -> None:
    search = tool(look_up, name="search")
    code = code_in([("", module(look_up=look_up, find=search))])
    assert dict(code.tools) == {"look_up": look_up, "find": search, "search": search}


async def test_a_file_is_run_with_the_models_and_tools_of_a_module(tmp_path: Path) -> None:
    model = ScriptedModel([FunctionCall("look_up", {"title": "x"}), "it is there"])
    code = code_in([("", module(look_up=look_up, models={0: model}))])
    graph = read_graph(str(write(tmp_path, FILE)), code)
    assert (await Runner(graph).run("hello")).output == "it is there"
    assert len(model.requests) == 2


def test_what_is_called_models_and_holds_none_is_not_meant() -> None:
    for models in ({"user": dict}, {}, ["x"]):
        assert dict(code_in([("", module(models=models))]).models) == {}


def test_a_check_without_code_asks_for_it_and_finds_nothing_wrong(tmp_path: Path) -> None:
    problems = problems_in(str(write(tmp_path, FILE)), Code())
    assert missing_code(problems)
    assert all(one.is_note for one in problems)
