"""A graph file, from its path to its graph."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from parallel_agent.agent import Agent
from parallel_agent.config.checking import check_plan
from parallel_agent.config.compiling import Condition, Given, compile_graph
from parallel_agent.config.format import GraphFile, Template, read_format, read_template
from parallel_agent.config.modules import Modules
from parallel_agent.config.notes import notes_on
from parallel_agent.config.plan import make_plan
from parallel_agent.config.problems import Problem
from parallel_agent.config.source import Source, read_source, read_text
from parallel_agent.errors import ConfigError
from parallel_agent.function_agent import AgentFunction
from parallel_agent.workflow.graph import GraphAgent

__all__ = ["check_graph", "load_graph"]


def load_graph(
    path: str | os.PathLike[str],
    *,
    agents: Mapping[str, Agent | AgentFunction] | None = None,
    allow_modules: Collection[str] = (),
    conditions: Mapping[str, Condition] | None = None,
    env: Mapping[str, str] | None = None,
) -> GraphAgent:
    """Read a graph from a YAML or JSON file.

    A file holds data and no more: the Python it can name is what is passed here. Blocks, while it
    reads the file and those of its prompts.

    Args:
        path: the file; ``.yaml``, ``.yml`` or ``.json``.
        agents: by name, what nodes with ``agent: name`` are: agents, or functions that become
            agents.
        allow_modules: the modules, by their full names, from which nodes may take agents:
            ``agent: package.module:attribute``. They are imported when a node names them.
        conditions: by name, the plain functions of an output that edges with ``if: name`` ask.
        env: what ``${NAME}`` stands for; by default the environment.

    Raises:
        ConfigError: the file cannot be read, or makes no graph; each problem has its line.
        ModuleNotFoundError: it is YAML, and the extra ``yaml`` is not installed.
    """
    return _load(path, agents, allow_modules, conditions, env)[0]


def check_graph(
    path: str | os.PathLike[str],
    *,
    agents: Mapping[str, Agent | AgentFunction] | None = None,
    allow_modules: Collection[str] = (),
    conditions: Mapping[str, Condition] | None = None,
    env: Mapping[str, str] | None = None,
) -> list[Problem]:
    """Return what is wrong with a graph file; if nothing is, what is worth knowing about it.

    What is only worth knowing (a key without effect) has ``is_note``. Takes what `load_graph`
    takes.

    Raises:
        ModuleNotFoundError: it is YAML, and the extra ``yaml`` is not installed.
    """
    try:
        return _load(path, agents, allow_modules, conditions, env)[1]
    except ConfigError as exc:
        return [*exc.problems]


def _load(
    path: str | os.PathLike[str],
    agents: Mapping[str, Agent | AgentFunction] | None,
    allow_modules: Collection[str],
    conditions: Mapping[str, Condition] | None,
    env: Mapping[str, str] | None,
) -> tuple[GraphAgent, list[Problem]]:
    """Return the graph, and the notes on its file."""
    file = os.fspath(path)
    environment = os.environ if env is None else env
    source = read_source(read_text(Path(file), file), file, environment)
    read = read_format(source)
    plan = make_plan(read)
    modules = Modules(agents or {}, allow_modules)
    problems = check_plan(plan, source, modules, conditions or {})
    templates, more = _templates(read, source, environment)
    if problems or more:
        raise ConfigError([*problems, *more])
    graph = compile_graph(plan, source, Given(modules.found, conditions or {}, templates))
    return graph, notes_on(plan, source, templates)


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
    try:
        folder = Path(source.file).parent.resolve()
        path = (folder / uri).resolve()
        is_inside = path.is_relative_to(folder) and "://" not in uri
    except (OSError, ValueError):
        is_inside, path = False, Path()
    if not is_inside:
        why = "the file of a prompt lies in the folder of the graph file, or below it"
        raise ConfigError([source.problem(place, why)])
    file = source.hide(os.path.join(os.path.dirname(source.file), uri))  # noqa: PTH118, PTH120  # as it was named, for messages
    return read_template(read_source(read_text(path, file), file, env))
