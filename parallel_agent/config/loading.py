"""A graph file, from its path to its graph."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import attrs

from parallel_agent.agent import Agent
from parallel_agent.config.asking import Asker
from parallel_agent.config.checking import check_plan
from parallel_agent.config.compiling import Condition, Given, compile_graph
from parallel_agent.config.format import GraphFile, Template, read_format, read_template
from parallel_agent.config.materials import inside, named_file, read_materials
from parallel_agent.config.models import file_models
from parallel_agent.config.modules import Modules
from parallel_agent.config.notes import notes_on
from parallel_agent.config.plan import make_plan
from parallel_agent.config.problems import Problem
from parallel_agent.config.source import Source, read_source, read_text
from parallel_agent.errors import ConfigError
from parallel_agent.function_agent import AgentFunction
from parallel_agent.llm.model import Model
from parallel_agent.tools.tool import Tool
from parallel_agent.workflow.graph import GraphAgent

__all__ = ["Models", "check_graph", "load_graph"]

# A mapping of one kind of key is none of both: they are not interchangeable.
Models: TypeAlias = Mapping[int, Model] | Mapping[str, Model] | Mapping[int | str, Model]
"""Models by the place of an entry in the file, or by its name."""


def load_graph(
    path: str | os.PathLike[str],
    *,
    agents: Mapping[str, Agent | AgentFunction] | None = None,
    allow_modules: Collection[str] = (),
    conditions: Mapping[str, Condition] | None = None,
    models: Models | None = None,
    tools: Mapping[str, Tool | Callable[..., Any]] | None = None,
    env: Mapping[str, str] | None = None,
) -> GraphAgent:
    """Read a graph from a YAML or JSON file.

    A file holds data and no more: the Python it can name is what is passed here. Blocks, while it
    reads the file, and those of its prompts, histories, images and documents.

    Nothing is asked, started or connected to: what a model or a server of tools needs (a package,
    a key) is needed when the first node that names it runs.

    Args:
        path: the file; ``.yaml``, ``.yml`` or ``.json``.
        agents: by name, what nodes with ``agent: name`` are: agents, or functions that become
            agents.
        allow_modules: the modules, by their full names, from which nodes may take agents:
            ``agent: package.module:attribute``. They are imported when a node names them.
        conditions: by name, the plain functions of an output that edges with ``if: name`` ask.
        models: by the place in the file's ``models`` or by their names, models that answer
            instead of what the file says: for servers that nothing here speaks to, and for tests.
        tools: by name, the functions and tools that nodes with ``tools: [name]`` have called.
        env: what ``${NAME}`` stands for; by default the environment.

    Raises:
        ConfigError: the file cannot be read, or makes no graph; each problem has its line.
        ModuleNotFoundError: it is YAML, and the extra ``yaml`` is not installed.
    """
    code = _Code(agents or {}, allow_modules, conditions or {}, models or {}, tools or {})
    return _load(path, code, env, needs_code=True)[0]


def check_graph(
    path: str | os.PathLike[str],
    *,
    agents: Mapping[str, Agent | AgentFunction] | None = None,
    allow_modules: Collection[str] = (),
    conditions: Mapping[str, Condition] | None = None,
    models: Models | None = None,
    tools: Mapping[str, Tool | Callable[..., Any]] | None = None,
    env: Mapping[str, str] | None = None,
) -> list[Problem]:
    """Return what is wrong with a graph file; if nothing is, what is worth knowing about it.

    What is only worth knowing (a key without effect, a tool that has no code yet) has ``is_note``.
    Takes what `load_graph` takes.

    Raises:
        ModuleNotFoundError: it is YAML, and the extra ``yaml`` is not installed.
    """
    code = _Code(agents or {}, allow_modules, conditions or {}, models or {}, tools or {})
    try:
        return _load(path, code, env, needs_code=False)[1]
    except ConfigError as exc:
        return [*exc.problems]


@attrs.frozen(eq=False)
class _Code:
    """What `load_graph` was given."""

    agents: Mapping[str, Any]
    modules: Collection[str]
    conditions: Mapping[str, Condition]
    models: Mapping[Any, Any]
    tools: Mapping[str, Any]


def _load(
    path: str | os.PathLike[str], code: _Code, env: Mapping[str, str] | None, *, needs_code: bool
) -> tuple[GraphAgent, list[Problem]]:
    """Return the graph, and the notes on its file."""
    file = os.fspath(path)
    environment = os.environ if env is None else env
    source = read_source(read_text(Path(file), file), file, environment)
    read = read_format(source)
    plan = make_plan(read)
    modules = Modules(code.agents, code.modules)
    problems = check_plan(plan, source, modules, conditions=code.conditions, tools=code.tools)
    models, of_models = file_models(read.models or (), source, code.models)
    templates, of_prompts = _templates(read, source, environment)
    materials, of_materials = read_materials(plan, source)
    problems += [*of_models, *of_prompts, *of_materials]
    if problems:
        raise ConfigError(problems)
    asker = Asker(
        plan,
        source,
        models=models,
        templates=templates,
        materials=materials,
        tools=code.tools,
        needs_code=needs_code,
    )
    graph = compile_graph(plan, source, Given(modules.found, code.conditions, asker))
    notes = [*notes_on(plan, source, templates), *materials.notes, *asker.notes]
    return graph, sorted(notes, key=lambda note: (note.line, note.column))


def _templates(
    file: GraphFile, source: Source, env: Mapping[str, str]
) -> tuple[list[Template], list[Problem]]:
    """Return the prompts of a file, those in files of their own read; and what is wrong."""
    templates: list[Template] = []
    problems: list[Problem] = []
    for index, prompt in enumerate(file.prompts or ()):
        template = prompt.template
        if template is None and prompt.uri is not None:
            try:
                template = _prompt_file(prompt.uri, f"prompts[{index}].uri", source, env)
            except ConfigError as exc:
                problems += exc.problems
        elif template is None:
            why = "a prompt has a template, or the uri of a file with one"
            problems.append(source.problem(f"prompts[{index}]", why))
        templates.append(template or Template())
    return templates, problems


def _prompt_file(uri: str, place: str, source: Source, env: Mapping[str, str]) -> Template:
    path = inside(source, uri)
    if path is None:
        why = "the file of a prompt lies in the folder of the graph file, or below it"
        raise ConfigError([source.problem(place, why)])
    file = named_file(source, uri)
    return read_template(read_source(read_text(path, file), file, env))
