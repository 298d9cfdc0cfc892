"""What is wrong with what models work with: prompts, boards, tools, media, history. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from parallel_agent.config.format import NodeEntry
from parallel_agent.config.modules import near
from parallel_agent.config.plan import Plan
from parallel_agent.config.problems import Problem
from parallel_agent.config.sharing import PIPE
from parallel_agent.config.source import Source
from parallel_agent.schema._problems import path_text, shown

__all__ = ["model_problems"]


def model_problems(plan: Plan, source: Source, tools: Collection[str]) -> Iterator[Problem]:
    """Yield what is wrong with models, prompts and all that nodes name beside them.

    ``tools`` are the names of those that were given: a node may name one of them as well.
    """
    checker = _Checker(plan, source, tools)
    yield from checker.uniqueness()
    yield from checker.tools()
    yield from checker.boards()
    yield from checker.histories()
    for index, entry in enumerate(plan.file.nodes):
        yield from checker.node(entry, f"nodes[{index}]")
    for node in plan.nodes.values():
        if node.id in plan.inside:
            works = plan.inside[node.id] in plan.reacting
            for key in ("blackboard",) if works else ("message_passing", "blackboard"):
                if getattr(node.entry, key) is not None:
                    why = f"{shown(node.id)} is part of another node; only the graph's own share"
                    yield source.problem(f"{node.path}.{key}", f"{why} texts", at_key=True)


class _Checker:
    """Knows what the file declares, and looks at what names it."""

    def __init__(self, plan: Plan, source: Source, tools: Collection[str]) -> None:
        self._file = plan.file
        self._source = source
        self._model_names = [model.name for model in plan.file.models or () if model.name]
        self._tools = [tool.name for tool in plan.file.tools or ()]
        self._code = tools
        self._servers = [server.id for server in plan.file.mcp_servers or ()]
        board = plan.file.blackboard
        self._boards = [] if board is None else [entry["id"] for entry in board.boards]

    def uniqueness(self) -> Iterator[Problem]:
        """What is named by a name has one of its own."""
        names = [model.name for model in self._file.models or ()]
        yield from self._twice(names, "models[{}].name", "models")
        yield from self._twice(self._tools, "tools[{}].name", "tools")
        yield from self._twice(self._servers, "mcp_servers[{}].id", "servers")
        yield from self._twice(self._boards, "blackboard.boards[{}].id", "boards")

    def _twice(self, names: Sequence[str | None], path: str, what: str) -> Iterator[Problem]:
        seen = set[str | None]()
        for index, name in enumerate(names):
            if name is not None and name in seen:
                why = f"two {what} are called {shown(name)}"
                yield self._source.problem(path.format(index), why)
            seen.add(name)

    def tools(self) -> Iterator[Problem]:
        """What a tool takes is described by a schema each."""
        for index, tool in enumerate(self._file.tools or ()):
            for name, schema in (tool.parameters or {}).items():
                if not isinstance(schema, dict):
                    path = path_text(f"tools[{index}].parameters", [name])
                    why = f"a JSON Schema of the parameter is needed, not {shown(schema)}"
                    yield self._source.problem(path, why)

    def boards(self) -> Iterator[Problem]:
        """Boards have a name that can be kept, and import others that are there."""
        board = self._file.blackboard
        for index, entry in enumerate(() if board is None else board.boards):
            place = f"blackboard.boards[{index}]"
            if not entry["id"] or entry["id"] == PIPE:
                why = f"no board may be called {shown(entry['id'])}"
                yield self._source.problem(f"{place}.id", why)
            imports = {"import": entry.get("import"), "imports": entry.get("imports")}
            for key, listed in imports.items():
                for position, other in enumerate(listed or ()):
                    yield from self._named(
                        f"{place}.{key}[{position}]", other, self._boards, "board"
                    )

    def histories(self) -> Iterator[Problem]:
        """One history belongs to one node."""
        uses = [None if one.prompt is None else one.prompt.chat_history for one in self._file.nodes]
        seen = set[str | None]()
        for index, scope in enumerate(uses):
            if scope is not None and scope in seen:
                why = f"another node has the history {shown(scope)}: one is for one node"
                yield self._source.problem(f"nodes[{index}].prompt.chat_history", why)
            seen.add(scope)

    def node(self, entry: NodeEntry, path: str) -> Iterator[Problem]:
        """What a node names is there."""
        if isinstance(entry.model, int):
            count = len(self._file.models or ())
            yield from self._index(f"{path}.model", entry.model, count, "models")
        elif entry.model is not None:
            yield from self._named(f"{path}.model", entry.model, self._model_names, "model")
        if entry.prompt is not None:
            count = len(self._file.prompts or ())
            yield from self._index(
                f"{path}.prompt.template", entry.prompt.template, count, "prompts"
            )
        for index, number in enumerate(entry.images or ()):
            count = len(self._file.images or ())
            yield from self._index(f"{path}.images[{index}]", number, count, "images")
        for index, number in enumerate(entry.documents or ()):
            count = len(self._file.documents or ())
            yield from self._index(f"{path}.documents[{index}]", number, count, "documents")
        for index, tool in enumerate(entry.tools or ()):
            known = [*self._tools, *self._code]
            yield from self._named(f"{path}.tools[{index}]", tool, known, "tool")
        for index, use in enumerate(entry.mcp_servers or ()):
            place = f"{path}.mcp_servers[{index}]"
            if isinstance(use, str):
                yield from self._named(place, use, self._servers, "server")
            else:
                yield from self._named(f"{place}.id", use.id, self._servers, "server")
        if entry.blackboard is not None:
            place = f"{path}.blackboard.id"
            yield from self._named(place, entry.blackboard.id, self._boards, "board")

    def _index(self, path: str, number: int, count: int, what: str) -> Iterator[Problem]:
        if not 0 <= number < count:
            there = f"0 to {count - 1}" if count else "none"
            why = f"there are {count} {what} ({there}), not {number}"
            yield self._source.problem(path, why)

    def _named(self, path: str, name: str, names: Iterable[str], what: str) -> Iterator[Problem]:
        if name not in names:
            yield self._source.problem(path, f"there is no {what} {shown(name)}{near(name, names)}")
