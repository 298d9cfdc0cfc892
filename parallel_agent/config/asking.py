"""What a model node asks its model with, put together when the file is loaded.

Pure: no I/O; but tools that were given are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, final

import attrs

from parallel_agent.config.file_tools import ServerUse, declared_tool, server_of
from parallel_agent.config.format import NodeEntry, Template
from parallel_agent.config.materials import Materials
from parallel_agent.config.models import FileModel
from parallel_agent.config.plan import Plan, Planned
from parallel_agent.config.problems import Problem
from parallel_agent.config.reacting import REACT_OUTPUT, Reacting
from parallel_agent.config.sharing import imports_of
from parallel_agent.config.source import Source
from parallel_agent.errors import ConfigError, TreeError
from parallel_agent.llm.model import GenerationConfig
from parallel_agent.llm.output import Output, references
from parallel_agent.model_errors import MissingExtraError, ToolDefinitionError
from parallel_agent.schema._problems import shown
from parallel_agent.tools.tool import Tool
from session.content import Content, InlineData

__all__ = ["Asker", "Asking", "schema_of"]

MAX_TURNS: Final = 10
"""How often a model may want tools if the node does not say: KeGAL's number."""


@attrs.frozen(eq=False, kw_only=True)
class Asking:
    """What a model node asks with. Nothing in it is of one run.

    Attributes:
        model: what is asked.
        template: the prompt; without one, nothing is asked.
        config: how it is to answer.
        schema: the JSON Schema of the answer, if it must fit one.
        output: what checks that; None if there is no schema, or nothing to check it with.
        tools: those of the file, by name.
        servers: those of servers.
        history: what was said before.
        media: images and documents.
        boards: the documents that make up its blackboard.
        user_message: what the file says for a run that is started without a message.
        retrieved_chunks: what was found.
        max_turns: how often the model may want tools; it is asked once more, without.
        reacting: the agents that it has work, if it is a controller.
        works: it works for a controller: what it is told begins with what that wants done.
    """

    model: FileModel
    template: Template | None = None
    config: GenerationConfig
    schema: Mapping[str, Any] | None = None
    output: Output | None = None
    tools: Mapping[str, Tool] = attrs.Factory(dict[str, Tool])
    servers: Sequence[ServerUse] = ()
    history: Sequence[Content] = ()
    media: Sequence[InlineData] = ()
    boards: Sequence[str] = ()
    user_message: str | None = None
    retrieved_chunks: str | None = None
    max_turns: int = MAX_TURNS
    reacting: Reacting | None = None
    works: bool = False


def schema_of(structured: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema that a ``structured_output`` stands for.

    ``parameters`` is another word for ``properties``; what has some is an object; null is nothing.
    """
    said = {key: value for key, value in structured.items() if value is not None}
    fields = said.pop("parameters", None) or said.get("properties")
    if fields is not None:
        said = {"type": "object", **said, "properties": fields}
    return said


@final
class Asker:
    """Puts together what each model node of a file asks with.

    Args:
        plan: of the file.
        source: the file.
        models: its models, in order.
        templates: its prompts.
        materials: what was read for it.
        tools: the code of its tools, by name.
        needs_code: a tool without code is a problem, and not only worth knowing.

    Attributes:
        notes: what is worth knowing of the nodes that were looked at.
    """

    def __init__(
        self,
        plan: Plan,
        source: Source,
        *,
        models: Sequence[FileModel],
        templates: Sequence[Template],
        materials: Materials,
        tools: Mapping[str, Any],
        needs_code: bool,
    ) -> None:
        """See the class."""
        self.notes: list[Problem] = []
        self._plan = plan
        self._file = plan.file
        self._source = source
        self._models = models
        self._named = {one.entry.name: one for one in models if one.entry.name is not None}
        self._templates = templates
        self._materials = materials
        self._tools = tools
        self._needs_code = needs_code
        self._declared = {tool.name: tool for tool in plan.file.tools or ()}
        board = plan.file.blackboard
        self._boards = {} if board is None else {entry["id"]: entry for entry in board.boards}

    def asking(self, node: Planned) -> Asking:
        """Return what a node asks with.

        Raises:
            ConfigError: the file says what cannot be; all that does.
        """
        entry, problems = node.entry, list[Problem]()
        number = entry.model
        model = self._models[number] if isinstance(number, int) else self._named[number or ""]
        config = self._config(node, problems)
        if entry.prompt is None:
            if problems:
                raise ConfigError(problems)
            return Asking(model=model, config=config)
        if model.refusal is not None and model.given is None:
            self._note(model.refusal)
        structured: Mapping[str, Any] | None = entry.structured_output
        if node.id in self._plan.reacting:
            structured = REACT_OUTPUT if entry.react_output is None else entry.react_output
        schema = None if structured is None else schema_of(structured)
        asking = Asking(
            model=model,
            template=self._templates[entry.prompt.template],
            config=config,
            schema=schema,
            output=self._output(node, schema, problems),
            tools=dict(self._tools_of(node, problems)),
            servers=list(self._servers_of(node, problems)),
            history=self._materials.histories.get(entry.prompt.chat_history or "", ()),
            media=[
                *(self._materials.images[number] for number in entry.images or ()),
                *(self._materials.documents[number] for number in entry.documents or ()),
            ],
            boards=self._read_by(entry),
            user_message=self._file.user_message,
            retrieved_chunks=self._file.retrieved_chunks,
            max_turns=MAX_TURNS if entry.max_tool_calls is None else entry.max_tool_calls,
            works=self._plan.inside.get(node.id) in self._plan.reacting,
        )
        if asking.max_turns < 0:
            why = f"a whole number from 0 on is needed, not {asking.max_turns}"
            problems.append(self._source.problem(f"{node.path}.max_tool_calls", why))
        if problems:
            raise ConfigError(problems)
        return asking

    def _note(self, problem: Problem) -> None:
        note = attrs.evolve(problem, is_note=True)
        if note not in self.notes:
            self.notes.append(note)

    def _config(self, node: Planned, problems: list[Problem]) -> GenerationConfig:
        said: dict[str, Any] = {}
        for key in ("temperature", "max_tokens"):
            value = getattr(node.entry, key)
            try:
                GenerationConfig(**{key: value})
            except ValueError as exc:
                problems.append(self._source.problem(f"{node.path}.{key}", str(exc)))
            else:
                said[key] = value
        return GenerationConfig(**said)

    def _output(
        self, node: Planned, schema: Mapping[str, Any] | None, problems: list[Problem]
    ) -> Output | None:
        if schema is None:
            return None
        is_controller = node.id in self._plan.reacting
        path = f"{node.path}.{'react_output' if is_controller else 'structured_output'}"
        named = references(schema, ("$ref", "$dynamicRef"))
        far = next((one for one in named if not one.startswith("#")), None)
        if far is not None:
            why = f"a $ref leads to a place in the schema itself (#/...), not to {shown(far)}"
            problems.append(self._source.problem(path, f"{why}: nothing is fetched"))
            return None
        try:
            return Output(schema, node.name)
        except MissingExtraError:
            return None  # told when the node runs: to check and to draw it, it is not needed
        except TreeError as exc:
            why = str(exc).removeprefix(f"output_schema of {node.name!r} ")
            problems.append(self._source.problem(path, f"this {why}"))
            return None

    def _tools_of(self, node: Planned, problems: list[Problem]) -> Iterator[tuple[str, Tool]]:
        for index, name in enumerate(node.entry.tools or ()):
            path = f"{node.path}.tools[{index}]"
            if name not in self._tools:
                why = f"no code was given for the tool {shown(name)}; pass it with tools={{...}}"
                problem = self._source.problem(path, why)
                if self._needs_code:
                    problems.append(problem)
                else:
                    self._note(problem)
                continue
            try:
                yield name, declared_tool(name, self._tools[name], self._declared.get(name))
            except ToolDefinitionError as exc:
                problems.append(self._source.problem(path, str(exc)))

    def _servers_of(self, node: Planned, problems: list[Problem]) -> Iterator[ServerUse]:
        entries = list(self._file.mcp_servers or ())
        places = {entry.id: index for index, entry in enumerate(entries)}
        for index, use in enumerate(node.entry.mcp_servers or ()):
            name, names = (use, None) if isinstance(use, str) else (use.id, use.tools)
            if names is not None and not names:
                path = f"{node.path}.mcp_servers[{index}].tools"
                problems.append(
                    self._source.problem(path, "name a tool at least, or leave `tools` out")
                )
                continue
            try:
                server = server_of(entries[places[name]])
            except ToolDefinitionError as exc:
                problem = self._source.problem(f"mcp_servers[{places[name]}]", str(exc))
                problems.append(problem)
            else:
                yield ServerUse(server, None if names is None else tuple(names))

    def _read_by(self, entry: NodeEntry) -> list[str]:
        """Return the boards that a node reads, in the order in which it reads them."""
        use = entry.blackboard
        return [] if use is None or not use.read else [*imports_of(self._boards[use.id]), use.id]
