"""Tools that nodes of a file name: how a model is told of them, and what is called."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parallel_agent.config import check_graph
from parallel_agent.config.file_tools import declared_tool, server_of
from parallel_agent.config.format import McpServer, ToolEntry
from parallel_agent.llm.model import ToolSpec
from parallel_agent.model_errors import CallLimitError, MissingExtraError, ToolDefinitionError
from parallel_agent.testing.scripted_model import ScriptedModel
from parallel_agent.tools.function_tool import tool
from parallel_agent.tools.mcp_servers import HttpServer
from session.content import Content, FunctionCall, FunctionResponse
from tests.config.asking import a_file, asked, request, run, said
from tests.config.writing import load, refused, write
from tests.support import mcp_server

USED = "prompt: {template: 0}\ntools: [look_up]"
DECLARED = """\
    tools:
      - name: look_up
        description: Looks a book up.
        parameters: {title: {type: string, description: its title}}
        required: [title]
"""
FILE = a_file(USED, more=DECLARED)


async def look_up(title: str) -> str:
    """Look up whatever it is."""
    return f"{title} is there"


@tool(name="search", needs_approval=True, is_long_running=True)
def search(title: str) -> str:
    """Search."""
    return title


def call(**args: Any) -> FunctionCall:
    return FunctionCall("look_up", args, "1")


def told(answer: Any) -> Content:
    return Content(FunctionResponse("look_up", answer, "1"), role="user")


async def test_a_tool_is_told_of_as_the_file_describes_it(tmp_path: Path) -> None:
    requests, _ = await asked(tmp_path, FILE, tools={"look_up": look_up})
    title = {"type": "string", "description": "its title"}
    parameters = {"type": "object", "properties": {"title": title}, "required": ["title"]}
    spec = ToolSpec("look_up", "Looks a book up.", parameters)
    assert requests == [request(said("Well?"), tools=(spec,))]


@pytest.mark.parametrize("more", ["tools: [{name: look_up}]", "tools: []"])
async def test_what_the_file_does_not_say_of_a_tool_its_function_does(
    tmp_path: Path, more: str
) -> None:
    requests, _ = await asked(tmp_path, a_file(USED, more=more), tools={"look_up": look_up})
    own = tool(look_up)
    spec = ToolSpec("look_up", "Look up whatever it is.", own.parameters)
    assert requests == [request(said("Well?"), tools=(spec,))]


@pytest.mark.parametrize("given", [look_up, tool(look_up), lambda title: f"{title} is there"])
async def test_what_a_model_wants_called_is_called(
    tmp_path: Path, given: Callable[..., Any]
) -> None:
    wanted = call(title="this")
    requests, result = await asked(tmp_path, FILE, wanted, "it is there", tools={"look_up": given})
    assert requests[1].contents == (
        *requests[0].contents,
        Content(wanted),
        told({"result": "this is there"}),
    )
    assert result.output == "it is there"


def test_a_tool_keeps_what_it_is_beside_its_name(tmp_path: Path) -> None:
    made = declared_tool("look_up", search, ToolEntry(name="look_up"))
    assert (made.name, made.description, made.is_long_running) == ("look_up", "Search.", True)
    assert made.wants_approval({})


async def test_a_tool_that_fails_is_told_to_the_model(tmp_path: Path) -> None:
    def broken(title: str) -> None:
        raise ValueError(title)

    requests, _ = await asked(tmp_path, FILE, call(title="x"), "sorry", tools={"look_up": broken})
    assert requests[1].contents[-1] == told({"error": "ValueError: x"})


def test_a_tool_without_code_is_told_where_a_node_names_it(tmp_path: Path) -> None:
    assert refused(tmp_path, FILE) == [
        (
            "13:13: nodes[0].tools[0]: no code was given for the tool 'look_up'; pass it with "
            "tools={...}"
        )
    ]


def test_a_check_needs_no_code_of_tools(tmp_path: Path) -> None:
    (note,) = check_graph(write(tmp_path, FILE))
    assert (note.line, note.path, note.is_note) == (13, "nodes[0].tools[0]", True)


def test_a_tool_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    text = a_file("prompt: {template: 0}\ntools: [lookup]", more=DECLARED)
    for given in ({}, {"look_up": look_up}):
        assert refused(tmp_path, text, tools=given) == [
            "13:13: nodes[0].tools[0]: there is no tool 'lookup'; did you mean 'look_up'?"
        ]


def takes_another(book: str) -> str:
    return book


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (3, "a tool is a function or a Tool, not 3"),
        (
            takes_another,
            "the file says that it takes title, and the function that was given takes book",
        ),
        (lambda *titles: titles, "tool 'look_up' takes *titles: a model needs names and types"),
    ],
)
def test_code_that_does_not_fit_a_tool_is_told(tmp_path: Path, given: Any, why: str) -> None:
    assert refused(tmp_path, FILE, tools={"look_up": given}) == [f"13:13: nodes[0].tools[0]: {why}"]


def test_what_a_tool_takes_is_described_by_schemas(tmp_path: Path) -> None:
    text = a_file(more="tools: [{name: t, parameters: {type: object, x: {}}}]")
    assert refused(tmp_path, text) == [
        "3:38: tools[0].parameters.type: a JSON Schema of the parameter is needed, not 'object'"
    ]


@pytest.mark.parametrize("most", [0, 1, 2])
async def test_a_model_that_has_wanted_tools_often_enough_is_asked_without(
    tmp_path: Path, most: int
) -> None:
    text = a_file(f"{USED}\nmax_tool_calls: {most}", more=DECLARED)
    answers = [call(title="x")] * most
    requests, result = await asked(tmp_path, text, *answers, "done", tools={"look_up": look_up})
    assert [len(one.tools) for one in requests] == [1] * most + [0]
    assert result.output == "done"


async def test_a_model_that_wants_a_tool_it_was_not_offered_fails_its_node(
    tmp_path: Path,
) -> None:
    text = a_file(f"{USED}\nmax_tool_calls: 1", more=DECLARED)
    wanted = call(title="x")
    with pytest.raises(CallLimitError, match="wants 1 times"):
        await asked(tmp_path, text, wanted, wanted, tools={"look_up": look_up})


async def test_a_node_that_does_not_say_may_want_tools_ten_times(tmp_path: Path) -> None:
    answers = [call(title="x")] * 10
    requests, _ = await asked(tmp_path, FILE, *answers, "done", tools={"look_up": look_up})
    assert [len(one.tools) for one in requests] == [1] * 10 + [0]


# ---------------------------------------------------------------------------------- servers


def served(use: str = "s", server: str | None = None, *, more: str = "") -> str:
    """Return a file whose node uses a server of tools."""
    args = f"['-S', '-E', {mcp_server.__file__!r}]"
    server = server or f"{{transport: stdio, command: {sys.executable!r}, args: {args}}}"
    declared = f"mcp_servers: [{{id: s, {server[1:]}]\n{more}"
    return a_file(f"prompt: {{template: 0}}\nmcp_servers: [{use}]", more=declared)


async def test_the_tools_of_a_server_are_offered_and_called(tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    wanted = FunctionCall("add", {"a": 1, "b": 2}, "1")
    text = served("{id: s, tools: [add]}")
    requests, result = await asked(tmp_path, text, wanted, "three")
    assert [one.name for one in requests[0].tools] == ["add"]
    (answer,) = requests[1].contents[-1].parts
    assert isinstance(answer, FunctionResponse)
    assert answer.name == "add"
    assert "error" not in answer.response
    assert result.output == "three"


async def test_a_tool_of_a_server_goes_before_one_of_the_file(tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    text = served("{id: s, tools: [add]}").replace("    mcp_s", "    tools: [add]\n    mcp_s")
    requests, _ = await asked(tmp_path, text, tools={"add": look_up})
    assert [one.description for one in requests[0].tools] == ["Tool add."]


async def test_two_servers_with_a_tool_of_one_name_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    use = "{id: s, tools: [add]}"
    with pytest.raises(ToolDefinitionError, match="two servers of node 'a' have a tool 'add'"):
        await asked(tmp_path, served(f"{use}, {use}"))


@pytest.mark.parametrize(
    ("server", "why"),
    [
        ("{transport: stdio}", "a server with transport stdio has a command, which starts it"),
        ("{transport: http}", "a server with transport http has a url"),
        (
            "{transport: sse, url: nowhere}",
            "url is the address of a server, http://... or https://...",
        ),
    ],
)
def test_a_server_that_cannot_be_is_told(tmp_path: Path, server: str, why: str) -> None:
    assert refused(tmp_path, served(server=server)) == [f"3:15: mcp_servers[0]: {why}"]


def test_no_tools_of_a_server_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, served("{id: s, tools: []}")) == [
        "9:34: nodes[0].mcp_servers[0].tools: name a tool at least, or leave `tools` out"
    ]


async def test_a_server_that_nothing_can_speak_to_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "parallel_agent.tools.mcp_toolset", None)
    graph = load(tmp_path, served(), models={0: ScriptedModel([])})
    with pytest.raises(MissingExtraError, match=r"'a', .*pip install 'parallel-agent\[mcp\]'"):
        await run(graph)


def test_a_server_at_an_address_is_spoken_to_as_the_file_says() -> None:
    for transport in ("http", "sse"):
        entry = McpServer(id="s", transport=transport, url="http://x/")
        assert server_of(entry) == HttpServer("http://x/", transport=transport)
