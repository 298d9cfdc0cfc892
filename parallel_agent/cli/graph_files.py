"""Graphs in YAML and JSON files, as targets of the command line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Final

import attrs

from parallel_agent.agent import Agent, check_agent
from parallel_agent.config.loading import check_graph, load_graph
from parallel_agent.config.problems import Problem
from parallel_agent.errors import ConfigError, TreeError
from parallel_agent.llm.model import Model
from parallel_agent.observe.harmless import one_line
from parallel_agent.tools.tool import Tool

__all__ = [
    "GRAPH_FILES",
    "NAME_CODE",
    "Code",
    "code_in",
    "is_finished",
    "missing_code",
    "problems_in",
    "read_graph",
    "told",
]

GRAPH_FILES: Final = (".yaml", ".yml", ".json")
"""How the names of graph files end."""

NAME_CODE: Final = "Name the code of its nodes with --agents FILE.py or --agents package.module"


@attrs.frozen
class Code:
    """What the nodes of a graph file may name: agents, conditions, tools, and whole modules.

    ``models`` are those that answer instead of the file's.
    """

    agents: Mapping[str, Any] = attrs.Factory(dict[str, Any])
    conditions: Mapping[str, Callable[[Any], Any]] = attrs.Factory(dict[str, Any])
    tools: Mapping[str, Any] = attrs.Factory(dict[str, Any])
    models: Mapping[Any, Any] = attrs.Factory(dict[Any, Any])
    modules: tuple[str, ...] = ()


def code_in(modules: Sequence[tuple[str, ModuleType]]) -> Code:
    """Return what graph files may name of modules; of one name in several, the last counts.

    Agents and tools, by the names they have in the module and by their own; and the public
    functions that are written there, each as an agent, a condition or a tool, as the file wants
    it. Models are what a module holds as ``models``: a mapping, as `load_graph` takes it.
    """
    agents: dict[str, Any] = {}
    functions: dict[str, Any] = {}
    tools: dict[str, Any] = {}
    models: dict[Any, Any] = {}
    for _, module in modules:
        for name, value in vars(module).items():
            if isinstance(value, Agent):
                if is_finished(value):
                    agents[value.name] = agents[name] = value
            elif isinstance(value, Tool):
                tools[value.name] = tools[name] = value
            elif name == "models" and _are_models(value):
                models.update(value)  # pyright: ignore[reportUnknownArgumentType]  # checked when the file is loaded
            elif not name.startswith("_") and _is_of(value, module):
                functions[name] = value
    return Code(
        agents={**functions, **agents},
        conditions=functions,
        tools={**functions, **tools},
        models=models,
        modules=tuple(name for name, _ in modules if name),
    )


def _are_models(value: Any) -> bool:
    """Whether it is a mapping of models; not one of something else that is called so."""
    return isinstance(value, Mapping) and any(isinstance(one, Model) for one in value.values())  # pyright: ignore[reportUnknownVariableType]  # of whatever


def _is_of(value: Any, module: ModuleType) -> bool:
    return inspect.isfunction(value) and value.__module__ == module.__name__


def is_finished(agent: Agent) -> bool:
    """Return whether an agent's constructor has ended."""
    try:
        check_agent(agent, "")
    except TreeError:
        return False
    return True


def read_graph(path: str, code: Code) -> Agent:
    """Return the graph in a file.

    Raises:
        ConfigError: there is none that can run.
        ModuleNotFoundError: it is YAML, and the extra is missing.
    """
    return load_graph(path, **_options(code))


def problems_in(path: str, code: Code) -> list[Problem]:
    """Return what is wrong with a graph file, and what is worth knowing of one that is right.

    Raises:
        ModuleNotFoundError: it is YAML, and the extra is missing.
    """
    return check_graph(path, **_options(code))


def _options(code: Code) -> dict[str, Any]:
    return {
        "agents": code.agents,
        "conditions": code.conditions,
        "models": code.models,
        "tools": code.tools,
        "allow_modules": code.modules,
    }


def told(error: ConfigError, code: Code) -> tuple[str, str]:
    """Return what is wrong in one sentence, and line by line."""
    problems = error.problems
    how_many = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
    where = one_line(problems[0].file) if problems else "the file"
    hint = "" if code.agents or not missing_code(problems) else f". {NAME_CODE}"
    return f"{where} has {how_many}{hint}", "\n".join(one_line(str(one)) for one in problems)


def missing_code(problems: Sequence[Problem]) -> bool:
    """Return whether a problem is that a node names code that was not given."""
    return any(_NAMES_CODE.search(problem.path) for problem in problems)


_NAMES_CODE: Final = re.compile(r"\.agent$|^nodes\[\d+\]\.tools\[\d+\]$")
