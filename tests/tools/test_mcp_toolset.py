"""Tools of servers that speak the Model Context Protocol: real processes, and real HTTP."""

from __future__ import annotations

import base64
import importlib
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    FunctionCall,
    FunctionResponse,
    InvocationContext,
    ParallelAgent,
    agent,
)
from parallel_agent.errors import UsageError
from parallel_agent.llm.agent import LlmAgent
from parallel_agent.model_errors import MissingExtraError, ToolDefinitionError, ToolError
from parallel_agent.testing.scripted_model import ScriptedModel
from parallel_agent.tools.context import ToolContext
from parallel_agent.tools.mcp_servers import (
    HttpServer,
    McpError,
    McpServer,
    McpServerError,
    McpToolError,
    StdioServer,
)
from parallel_agent.tools.tool import Tool
from session.state import freeze
from tests.support import mcp_server
from tests.workflow.trees import open_and_read

pytest.importorskip("mcp")

import mcp.client.stdio

from parallel_agent.tools.mcp_toolset import McpToolset, _size

SCRIPT = mcp_server.__file__
NOBODY = cast("ToolContext", None)
"""No tool of a server asks for its context."""

SECRET = "open-sesame"  # noqa: S105  # of nothing


def by_hand(*options: str, **more: Any) -> StdioServer:
    # Without the site's packages it starts in a twentieth of the time.
    return StdioServer(sys.executable, ("-S", "-E", SCRIPT, *options), **more)


@asynccontextmanager
async def opened(
    server: McpServer | None = None, **options: Any
) -> AsyncIterator[Callable[..., Any]]:
    """Open a toolset; give what calls a tool of it, by name."""
    async with McpToolset(server or by_hand(), **options).open() as tools:
        known = {tool.name: tool for tool in tools}

        async def call(tool: str, **arguments: Any) -> Any:
            return await known[tool].call(NOBODY, arguments)

        yield call


async def tools_of(**options: Any) -> list[Tool]:
    async with McpToolset(by_hand(), **options).open() as tools:
        return list(tools)


async def open_in_vain(server: McpServer, **options: Any) -> None:
    async with McpToolset(server, **options).open():
        pytest.fail("it was opened")


def is_there(pid: int | str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


class Heard(logging.Handler):
    """Waits for a line of the log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = list[str]()
        self.event = trio.Event()
        self.logger = logging.getLogger("parallel_agent.mcp")

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.event.set()

    @property
    def pid(self) -> int:
        """Whose process it is that hangs."""
        return int(self.lines[0].split(": ")[-1].split()[0])


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler = Heard()
    handler.logger.addHandler(handler)
    yield handler
    handler.logger.removeHandler(handler)
    handler.logger.setLevel(logging.NOTSET)


# Which tools there are.


async def test_its_tools_are_those_of_all_pages() -> None:
    names = [tool.name for tool in await tools_of()]
    assert len(names) == len(mcp_server.TOOLS) - 1
    assert names[:3] == ["add", "texts", "parts"]


async def test_a_tool_says_of_itself_what_the_server_says() -> None:
    tool = (await tools_of())[0]
    offered = mcp_server.TOOLS["add"]
    assert (tool.description, tool.parameters) == (offered["description"], offered["inputSchema"])


async def test_names_say_which_tools_and_in_which_order() -> None:
    assert [tool.name for tool in await tools_of(names=["told", "add"])] == ["told", "add"]


async def test_a_name_that_the_server_does_not_know_is_told_with_those_it_knows() -> None:
    with pytest.raises(ToolDefinitionError, match=r"has no tool 'subtract'; there are add, texts"):
        await tools_of(names=["add", "subtract"])


async def test_a_prefix_stands_before_the_models_name_and_not_before_the_servers() -> None:
    async with opened(names=["add"], prefix="math_") as call:
        assert await call("math_add", a=1, b=2) == {"sum": 3}


async def test_a_name_that_models_do_not_take_is_changed_for_them() -> None:
    async with opened(names=["a.b/c", "9" + "x" * 80]) as call:
        assert await call("a_b_c") == "called a.b/c"
        assert await call("_9" + "x" * 62) == "called 9" + "x" * 80


async def test_two_tools_that_would_be_called_the_same_are_refused() -> None:
    with pytest.raises(ToolDefinitionError, match=r"'a\.b/c' and 'a_b_c' .* called 'a_b_c'"):
        async with McpToolset(by_hand("clash")).open():
            pass


async def test_of_two_that_would_be_called_the_same_one_can_be_chosen() -> None:
    async with opened(by_hand("clash"), names=["a.b/c"]) as call:
        assert await call("a_b_c") == "called a.b/c"


async def test_approval_is_asked_for_by_each_tool() -> None:
    tools = await tools_of(names=["add"], needs_approval=lambda given: given["a"] > 1)
    assert [tools[0].wants_approval({"a": n}) for n in (1, 2)] == [False, True]


# What a call gives.


async def test_what_has_structure_is_given_with_it() -> None:
    async with opened() as call:
        assert await call("add", a=1, b=2) == {"sum": 3}


async def test_texts_are_joined() -> None:
    async with opened() as call:
        assert await call("texts") == "one\ntwo"


async def test_of_other_parts_it_is_told_what_they_are() -> None:
    async with opened() as call:
        assert await call("parts") == [
            {"type": "text", "text": "see"},
            {"type": "image", "mimeType": "image/png", "bytes": 8},
            {"type": "audio", "mimeType": "audio/wav", "bytes": 8},
            {"type": "resource_link", "uri": "file:///a", "name": "a", "mimeType": "text/plain"},
            {"type": "resource", "uri": "note://1", "mimeType": "text/plain", "text": "a note"},
            {"type": "resource", "uri": "blob://1", "bytes": 8},
        ]


@given(st.binary(max_size=50))
def test_the_size_of_data_is_that_of_what_is_encoded(data: bytes) -> None:
    assert _size(base64.b64encode(data).decode()) == len(data)


async def test_arguments_arrive_as_they_are_though_they_were_frozen() -> None:
    arguments: dict[str, Any] = {"a": [1, {"b": None}], "c": {"d": ["é", 1.5, True]}}
    async with opened() as call:
        assert await call("given", **freeze(arguments)) == arguments


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        ("fail", "there is no such file"),
        ("refuse", "a must be positive"),
        ("nonsense", "what it answers cannot be used: content: Input should be a valid list"),
    ],
)
async def test_a_call_that_fails_says_what_the_server_says(tool: str, said: str) -> None:
    async with opened() as call:
        with pytest.raises(McpToolError) as caught:
            await call(tool)
    assert (str(caught.value), caught.value.tool) == (said, tool)


async def test_a_call_that_fails_does_not_harm_the_next() -> None:
    async with opened() as call:
        with pytest.raises(McpToolError):
            await call("fail")
        assert await call("texts") == "one\ntwo"


async def test_calls_run_side_by_side_and_each_gets_its_own_answer() -> None:
    answers = dict[int, str]()
    async with opened() as call:

        async def meet(number: int) -> None:
            answers[number] = await call("meet", a=number)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(meet, 1)
            nursery.start_soon(meet, 2)
    assert answers == {1: "met 1", 2: "met 2"}


async def test_a_cancelled_call_is_cancelled_at_the_server(heard: Heard) -> None:
    async with opened() as call:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, "hang")
            await heard.event.wait()
            nursery.cancel_scope.cancel()
        told = (await call("told"))["told"]
    assert told[-1]["method"] == "notifications/cancelled"
    assert told[-1]["params"]["requestId"] == told[-2]["hangs"]


async def test_a_call_that_takes_too_long_fails() -> None:
    async with opened(call_timeout=0.05) as call:
        with pytest.raises(McpToolError, match=r"no answer within 0\.05 s; .* call_timeout="):
            await call("hang")


# What goes wrong.


async def test_a_server_that_dies_fails_every_call_and_nothing_else(heard: Heard) -> None:
    failures = list[Exception]()
    async with opened() as call:

        async def fail(name: str) -> None:
            try:
                await call(name)
            except McpServerError as exc:
                failures.append(exc)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, "hang")
            await heard.event.wait()
            nursery.start_soon(fail, "die")
        await fail("add")
    assert len(failures) == 3


async def test_a_server_that_has_died_is_quoted_but_for_its_secrets() -> None:
    async with opened(by_hand(env={"TOKEN": SECRET})) as call:
        with pytest.raises(McpServerError, match=r"has gone.*out of memory; key \*\*\*"):
            await call("die")


async def test_a_call_after_the_block_says_so() -> None:
    async with opened() as call:
        pass
    with pytest.raises(McpServerError, match="its connection is closed"):
        await call("add", a=1, b=2)


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (StdioServer("no-such-command"), "'no-such-command' is not there: install it"),
        (StdioServer(SCRIPT), "cannot be run: Permission denied"),
        (StdioServer(sys.executable, cwd="/no/such"), "its directory '/no/such' cannot be used"),
        (by_hand("exit"), r"ended before .* env=\{...\}.* It says: cannot read the configuration"),
        (StdioServer("cat"), "does not answer as an MCP server does: Method not found"),
        (HttpServer("http://127.0.0.1:1/mcp"), "cannot be reached: ConnectError"),
    ],
    ids=["command", "permission", "directory", "exit", "echo", "nobody"],
)
async def test_a_server_that_cannot_be_opened_says_what_to_do(server: McpServer, said: str) -> None:
    with pytest.raises(McpServerError, match=said):
        await open_in_vain(server)


async def test_a_server_that_does_not_answer_in_time_may_be_given_more() -> None:
    with pytest.raises(McpServerError, match=r"did not answer within 0\.05 s.*timeout="):
        await open_in_vain(by_hand("silent"), timeout=0.05)


async def test_a_server_that_writes_what_is_no_message_is_quoted() -> None:
    with pytest.raises(McpServerError, match="no message of MCP's: 'Welcome to the server!'"):
        await open_in_vain(by_hand("banner", "exit"))


async def test_a_line_that_is_no_message_does_no_harm() -> None:
    async with opened(by_hand("banner")) as call:
        assert await call("texts") == "one\ntwo"


async def test_a_server_that_ends_at_what_is_new_to_it_is_spoken_to_as_of_old() -> None:
    async with opened(by_hand("strict")) as call:
        assert await call("texts") == "one\ntwo"


def test_the_errors_are_ones_of_tools() -> None:
    assert issubclass(McpToolError, McpError | ToolError)
    assert not issubclass(McpServerError, ToolError | UsageError)


# The block.


async def test_what_is_raised_in_the_block_leaves_it_as_it_is() -> None:
    mine = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with opened():
            raise mine
    assert caught.value is mine


async def test_the_process_has_ended_when_the_block_has_been_left() -> None:
    async with opened() as call:
        pid = await call("pid")
        assert is_there(pid)
    assert not is_there(pid)


async def test_the_process_has_ended_when_the_block_was_cancelled() -> None:
    with trio.CancelScope() as scope:
        async with opened() as call:
            pid = await call("pid")
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert not is_there(pid)


async def test_calls_are_cancelled_at_the_server_before_it_ends(
    heard: Heard, tmp_path: Path
) -> None:
    told = trio.Path(tmp_path / "told")
    async with trio.open_nursery() as nursery:

        async def hang() -> None:
            async with opened(by_hand(f"told={told}")) as call:
                await call("hang")

        nursery.start_soon(hang)
        await heard.event.wait()
        nursery.cancel_scope.cancel()
    assert json.loads(await told.read_text())[-1]["method"] == "notifications/cancelled"


async def test_an_opening_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    said = trio.Path(tmp_path / "pid")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_in_vain, by_hand("silent", f"pid={said}"))
            with trio.fail_after(10):
                while not (await said.exists() and await said.read_text()):  # noqa: ASYNC110  # a process says so
                    await trio.sleep(0.01)
            scope.cancel()
    assert not is_there(await said.read_text())


async def test_a_process_that_does_not_want_to_end_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mcp.client.stdio, "PROCESS_TERMINATION_TIMEOUT", 0.05)
    monkeypatch.setattr(mcp.client.stdio, "FORCE_KILL_TIMEOUT", 0.05)
    async with opened(by_hand("stubborn")) as call:
        pid = await call("pid")
    assert not is_there(pid)


async def test_a_toolset_can_be_opened_twice_at_once() -> None:
    toolset = McpToolset(by_hand(), names=["pid"])
    async with toolset.open() as (one,), toolset.open() as (other,):
        assert await one.call(NOBODY, {}) != await other.call(NOBODY, {})


# What a server gets to know, and what nobody does.


async def test_a_server_gets_the_variables_that_are_given_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OF_THIS_PROCESS", "1")
    async with opened(by_hand(env={"TOKEN": SECRET})) as call:
        found = [await call("variable", name=name) for name in ("TOKEN", "OF_THIS_PROCESS")]
    assert found == [SECRET, "not set"]


async def test_a_server_runs_in_its_directory(tmp_path: Path) -> None:
    async with opened(by_hand(cwd=tmp_path)) as call:
        assert await call("where") == str(await trio.Path(tmp_path).resolve())


async def test_what_a_server_logs_is_logged_but_for_its_secrets(heard: Heard) -> None:
    async with opened(by_hand(env={"TOKEN": SECRET})) as call, trio.open_nursery() as nursery:
        nursery.start_soon(call, "hang")
        await heard.event.wait()
        nursery.cancel_scope.cancel()
    assert heard.lines[0].endswith(" ***")


async def test_what_a_server_writes_is_logged_but_for_its_secrets(heard: Heard) -> None:
    heard.logger.setLevel(logging.INFO)
    async with opened(by_hand(env={"TOKEN": SECRET})) as call:
        with pytest.raises(McpServerError):
            await call("die")
    assert heard.lines[0].endswith("out of memory; key ***")


async def test_a_command_that_holds_a_secret_is_not_told_either() -> None:
    server = StdioServer(f"/no/{SECRET}", env={"TOKEN": SECRET})
    with pytest.raises(McpServerError, match=r"'/no/\*\*\*' is not there") as caught:
        await open_in_vain(server)
    assert SECRET not in str(caught.value)


async def test_an_error_in_starting_does_not_tell_a_secret() -> None:
    with pytest.raises(McpServerError, match=r"the key is \*\*\*"):
        async with opened(by_hand("exit", env={"TOKEN": SECRET})):
            pass


@pytest.mark.parametrize(
    "server",
    [
        StdioServer("run", env={"TOKEN": SECRET}),
        HttpServer("https://host/mcp", headers={"Authorization": f"Bearer {SECRET}"}),
        HttpServer(f"https://me:{SECRET}@host/mcp"),
        HttpServer(f"https://host/mcp?key={SECRET}"),
        HttpServer(f"https://host/mcp?{SECRET}"),
    ],
    ids=["env", "header", "password", "query", "key"],
)
def test_a_server_does_not_show_its_secrets(server: McpServer) -> None:
    told = f"{server!r} {server.shown} {McpToolset(server)!r} {server.hide(f'key {SECRET}!')}"
    assert SECRET not in told


def test_a_server_shows_which_variables_and_headers_it_has() -> None:
    assert "TOKEN" in repr(StdioServer("run", env={"TOKEN": SECRET}))


SECRETS = st.text(st.characters(exclude_characters="*", exclude_categories=["Cs"]), min_size=4)


@given(SECRETS, SECRETS, st.lists(st.sampled_from(["one", "two", " ", "x", "\n"])))
def test_no_secret_is_left_in_what_is_told(one: str, two: str, said: list[str]) -> None:
    secrets = {"one": one.replace("\0", " "), "two": two.replace("\0", " ")}
    hidden = StdioServer("run", env=secrets).hide("".join(secrets.get(part, part) for part in said))
    assert not any(secret in hidden for secret in secrets.values())


def test_a_secret_that_begins_like_another_is_hidden_to_its_end() -> None:
    server = StdioServer("run", env={"ONE": SECRET, "TWO": f"{SECRET}-and-more"})
    assert server.hide(f"{SECRET}-and-more") == "***"


def test_a_secret_of_several_lines_is_hidden_line_by_line() -> None:
    server = StdioServer("run", env={"KEY": f"BEGIN\n{SECRET}\nEND\n"})
    assert server.hide(f"key: {SECRET}") == "key: ***"


# What is refused before anything is started.


def test_servers_are_made_of_plain_texts() -> None:
    server = StdioServer("npx", ["-y", "a"], {"TOKEN": "b"}, "/tmp")  # noqa: S108  # not used
    assert (server.command, server.args, server.cwd) == ("npx", ("-y", "a"), "/tmp")  # noqa: S108


def test_servers_with_the_same_fields_are_the_same() -> None:
    assert StdioServer("a", env={"b": "c"}) == StdioServer("a", env={"b": "c"})


# Of any types, as callers without a checker have them.
process: Any = StdioServer
web: Any = HttpServer


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: process(""), "command is empty"),
        (lambda: process(3), "command is text, not int"),
        (lambda: process("a", "-m b"), "args is a list of texts"),
        (lambda: process("a", [1]), "each of args is text, not int"),
        (lambda: process("a", ["\0"]), "each of args is not to hold NUL"),
        (lambda: process("a", env=["b"]), "env is a mapping of names to texts, not list"),
        (lambda: process("a", env={"b": 1}), r"env\['b'\] is text, not int"),
        (lambda: process("a", env={"b=": "c"}), r"env\['b='\] cannot be a variable"),
        (lambda: process("a", env={"b": "\0"}), r"env\['b'\] cannot be a variable"),
        (lambda: process("a", cwd=b"c"), "cwd is text, not bytes"),
        (lambda: web("example.org"), "url is the address of a server"),
        (lambda: web("http://["), "url is the address of a server"),
        (lambda: web("http://a", {"b": None}), r"headers\['b'\] is text, not NoneType"),
        (lambda: web("http://a", {"b": "c\n"}), r"headers\['b'\] holds what no header can"),
        (lambda: web("http://a", transport="stdio"), "transport is one of http, sse"),
        (lambda: McpToolset(cast("Any", "http://a:secret@b")), "an HttpServer, not str"),
        (lambda: McpToolset(by_hand(), names="add"), "names is a list of names, not 'add'"),
        (lambda: McpToolset(by_hand(), prefix=cast("Any", None)), "prefix is text, not None"),
        (lambda: McpToolset(by_hand(), timeout=cast("Any", None)), "timeout is a number"),
        (lambda: McpToolset(by_hand(), timeout=0), "timeout is a number of seconds"),
        (lambda: McpToolset(by_hand(), call_timeout=-1), "call_timeout is a number of seconds"),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ToolDefinitionError, match=said):
        make()


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mcp_toolset", "mcp_connection"):
        monkeypatch.delitem(sys.modules, f"parallel_agent.tools.{name}")
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(MissingExtraError, match=r"McpToolset needs mcp, .*\[mcp\]"):
        importlib.import_module("parallel_agent.tools.mcp_toolset")


# Among the tools of an agent.


def answers_of(model: ScriptedModel) -> list[dict[str, Any]]:
    """What the model was answered, in the last request."""
    parts = model.requests[-1].contents[-1].parts
    return [dict(part.response) for part in parts if isinstance(part, FunctionResponse)]


async def test_an_agent_has_tools_of_a_server_called() -> None:
    calls = [FunctionCall("add", {"a": 1, "b": 2}, "1"), FunctionCall("fail", {}, "2")]
    model = ScriptedModel([calls, "done"])
    await open_and_read(LlmAgent("a", model, tools=[McpToolset(by_hand())]))
    assert answers_of(model) == [{"sum": 3}, {"error": "McpToolError: there is no such file"}]


async def test_an_agent_whose_server_cannot_be_started_fails_with_that() -> None:
    toolset = McpToolset(StdioServer("no-such-command"))
    ended = await open_and_read(LlmAgent("a", ScriptedModel([]), tools=[toolset]))
    assert isinstance(ended.error, McpServerError)


async def test_a_model_is_told_that_its_server_has_died() -> None:
    model = ScriptedModel([FunctionCall("die", {}, "1"), "well"])
    await open_and_read(LlmAgent("a", model, tools=[McpToolset(by_hand(), names=["die"])]))
    assert "has gone" in answers_of(model)[0]["error"]


async def test_a_failing_sibling_cancels_the_call_and_ends_the_server(heard: Heard) -> None:
    mine = ValueError("the sibling's")

    @agent
    async def sibling(ctx: InvocationContext) -> None:
        await heard.event.wait()
        raise mine

    model = ScriptedModel([FunctionCall("hang", {}, "1")])
    asker = LlmAgent("asker", model, tools=[McpToolset(by_hand())])
    ended = await open_and_read(ParallelAgent("both", [asker, sibling]))
    assert ended.error is mine
    assert not is_there(heard.pid)


# Servers that the SDK makes.


async def test_a_server_of_the_sdks_is_spoken_to_through_its_streams() -> None:
    async with opened(StdioServer(sys.executable, [SCRIPT, "sdk"])) as call:
        assert await call("add", a=1, b=2) == {"result": 3}


@pytest.fixture(scope="module")
def http() -> Iterator[HttpServer]:
    with mcp_server.over_http(lambda: mcp_server.by_the_sdk().streamable_http_app()) as url:
        yield HttpServer(f"{url}/mcp")


@pytest.fixture(scope="module")
def sse() -> Iterator[HttpServer]:
    with mcp_server.over_http(lambda: mcp_server.by_the_sdk().sse_app()) as url:
        yield HttpServer(f"{url}/sse", transport="sse")


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_a_server_is_spoken_to_over_http(
    transport: str, request: pytest.FixtureRequest
) -> None:
    async with opened(request.getfixturevalue(transport)) as call:
        assert await call("add", a=1, b=2) == {"result": 3}


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_a_call_is_cancelled_over_http(
    transport: str, request: pytest.FixtureRequest
) -> None:
    async with opened(request.getfixturevalue(transport)) as call:

        async def until(position: int, count: int) -> None:
            with trio.fail_after(10):
                while (await call("hangs"))["result"][position] < count:  # noqa: ASYNC110  # there is none
                    await trio.sleep(0.01)

        begun, stopped = (await call("hangs"))["result"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, "hang")
            await until(0, begun + 1)
            nursery.cancel_scope.cancel()
        await until(1, stopped + 1)


async def test_calls_over_http_run_side_by_side(http: HttpServer) -> None:
    async with opened(http) as call, trio.open_nursery() as nursery:
        nursery.start_soon(call, "hang")
        assert await call("say", text="meanwhile") == {"result": "meanwhile"}
        nursery.cancel_scope.cancel()


async def test_a_tool_that_fails_over_http_fails_the_call(http: HttpServer) -> None:
    async with opened(http) as call:
        with pytest.raises(McpToolError, match="say"):
            await call("say", text="fail")


async def test_what_is_raised_in_a_block_over_http_leaves_it_as_it_is(http: HttpServer) -> None:
    with pytest.raises(ValueError, match="mine"):
        async with opened(http):
            raise ValueError("mine")


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_who_is_not_let_in_is_told_what_to_do(transport: Any) -> None:
    app = mcp_server.Web(key="Bearer of it")
    with (
        mcp_server.over_http(lambda: app) as url,
        pytest.raises(McpServerError, match=r"it answers 401: .* headers="),
    ):
        await open_in_vain(HttpServer(url, {"Authorization": "Bearer"}, transport))


async def test_headers_are_sent() -> None:
    app = mcp_server.Web(key="Bearer of it")
    with mcp_server.over_http(lambda: app) as url:
        async with opened(HttpServer(url, {"Authorization": "Bearer of it"})) as call:
            assert await call("texts") == "one\ntwo"


async def test_leaving_the_block_ends_the_session() -> None:
    app = mcp_server.Web()
    with mcp_server.over_http(lambda: app) as url:
        async with opened(HttpServer(url)):
            assert "DELETE" not in app.methods
        assert app.methods[-1] == "DELETE"


async def test_an_address_where_there_is_no_server_is_told(http: HttpServer) -> None:
    with pytest.raises(McpServerError, match="it answers 404: is it at that address"):
        await open_in_vain(HttpServer(f"{http.url}/other"))


async def test_a_server_that_goes_away_fails_the_call_and_not_the_block() -> None:
    with mcp_server.over_http(lambda: mcp_server.by_the_sdk().streamable_http_app()) as url:
        context = opened(HttpServer(f"{url}/mcp"))
        call = await context.__aenter__()
    with pytest.raises(McpServerError, match=r"it has gone \(ConnectError"):
        await call("add", a=1, b=2)
    await context.__aexit__(None, None, None)
