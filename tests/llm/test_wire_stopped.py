"""A run that is stopped while its model answers: what it leaves behind, and who goes on with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final, Literal

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import Content, Event, InMemorySessionService, Run, Runner, Status
from parallel_agent.llm.agent import LlmAgent
from parallel_agent.llm.model import Model, ModelRequest, ModelResponse
from session import Codec
from tests.support.chat_server import SAYS, Answer, Server, busy, chunk, hangs, serving, streams

pytest.importorskip("openai")

from parallel_agent.llm.openai_model import OpenAIModel

pytestmark = pytest.mark.usefixtures("no_certificates")


@attrs.frozen
class Moment:
    """When a run is stopped, and how.

    Attributes:
        turn: in the first call to the model; in its tool; in the second call.
        sent: how many pieces of that answer were sent; with None, not even its head.
        half: half of another piece was sent, too.
        read: how many of those were read; what is left is not read any more.
        way: ``run.cancel``, leaving the block, or a cancel scope around it.
    """

    turn: Literal["first", "tool", "second"] = "first"
    sent: int | None = 1
    half: bool = False
    read: int = 1
    way: Literal["cancel", "leave", "scope"] = "cancel"


@st.composite
def moments(draw: st.DrawFn) -> Moment:
    sent = draw(st.none() | st.integers(0, 4))
    return Moment(
        draw(st.sampled_from(["first", "tool", "second"])),
        sent,
        draw(st.booleans()),
        draw(st.integers(0, sent or 0)),
        draw(st.sampled_from(["cancel", "leave", "scope"])),
    )


CALL: Final = (
    chunk(content="let me see"),
    chunk(tool_calls=[{"index": 0, "id": "c1", "function": {"name": "look", "arguments": "{}"}}]),
    chunk("tool_calls"),
)


@attrs.define
class Stopped:
    """A run that was stopped, and what it has left."""

    run: Run
    server: Server
    sessions: InMemorySessionService
    read: list[Event]
    left: list[str]


def tasks() -> list[str]:
    """Return the names of all tasks but the server's, one for each."""
    root = trio.lowlevel.current_root_task()
    found, todo = list[str](), [root]
    while todo:
        task = todo.pop()
        if task is not None:
            found.append(task.name)
            todo += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    of_the_server = ("trio.serve_tcp", "_serve_one_listener", "_run_handler")
    return [name for name in found if not any(mark in name for mark in of_the_server)]


async def stop(moment: Moment, server: Server, asked: Model) -> Stopped:
    """Run an agent to a moment, and stop it there."""
    sessions = InMemorySessionService()

    async def look() -> str:
        if moment.turn == "tool":
            server.reached.set()
            await trio.sleep_forever()
        return "rain"

    before = tasks()
    runner = Runner(
        LlmAgent("writer", asked, tools=[look]), app_name="app", session_service=sessions
    )
    read = list[Event]()
    # Of the turns before: a partial event, the call, and the answer to it.
    enough = {"first": 0, "tool": 2, "second": 3}[moment.turn]
    enough += 0 if moment.turn == "tool" else moment.read
    # What comes after an event starts when the next one is wanted.
    wants_more = moment.turn == "tool" or (moment.turn == "second" and not moment.read)
    has_read = trio.Event()

    async def stops() -> None:
        await has_read.wait()
        await server.reached.wait()
        if moment.way == "cancel":
            run.cancel()
        (around if moment.way == "scope" else reading).cancel()

    with trio.CancelScope() as around:
        async with runner.open("go", session_id="s") as run:
            with trio.CancelScope() as reading:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stops)
                    while len(read) < enough:
                        read.append(await anext(run))
                    has_read.set()
                    if wants_more:
                        read.append(await anext(run))
            if moment.way == "cancel":
                read += [one async for one in run]
    # The SDK leaves generators to the collector, and trio closes each in a task of its own.
    await trio.testing.wait_all_tasks_blocked()
    left = tasks()
    for name in before:
        left.remove(name)
    return Stopped(run, server, sessions, read, left)


async def is_clean(stopped: Stopped, moment: Moment, *, within: float = 5) -> None:
    """Assert that nothing is left of a run that was stopped, but what it has recorded."""
    assert stopped.run.result.status is Status.CANCELLED
    # One of the system's, which will close the client at the end of all.
    assert [name for name in stopped.left if "_close_at_the_end" not in name] == []
    if moment.turn != "tool":
        with trio.fail_after(within):
            await stopped.server.closed.wait()
    session = await stopped.sessions.get(app_name="app", user_id="user", session_id="s")
    assert session is not None
    log = session.events
    assert [one.seq for one in log] == list(range(1, len(log) + 1))
    assert not any(one.partial for one in log)
    codec = Codec()
    stored = [codec.dumps(one) for one in log]
    assert [codec.dumps(codec.loads(one)) for one in stored] == stored
    whole = [one.id for one in stopped.read if not one.partial]
    assert [one.id for one in log if one.author != "user"][: len(whole)] == whole


def is_answered(messages: Sequence[dict[str, Any]]) -> None:
    """Assert that each call is followed by its answer, and each answer follows its call."""
    wanted = list[str]()
    for message in messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] in wanted
            wanted.remove(message["tool_call_id"])
        else:
            assert not wanted
            wanted = [call["id"] for call in message.get("tool_calls", ())]
    assert not wanted


def stopping_at(moment: Moment) -> list[Answer]:
    """Return what a server answers whose client will stop at this moment."""
    hanging = hangs(head=b"")
    if moment.sent is not None:
        half = chunk(content="half")[:-9] if moment.half else b""
        hanging = hangs(*(chunk(content=f"{n} ") for n in range(moment.sent)), half)
    return {
        "first": [hanging, streams(*SAYS)],
        "tool": [streams(*CALL), streams(*SAYS)],
        "second": [streams(*CALL), hanging, streams(*SAYS)],
    }[moment.turn]


@given(moments())
async def test_a_run_stopped_at_any_moment_leaves_nothing_but_a_session_to_go_on_with(
    moment: Moment,
) -> None:
    async with serving(*stopping_at(moment)) as server:
        asked = OpenAIModel("ollama/m", base_url=server.url)
        stopped = await stop(moment, server, asked)
        await is_clean(stopped, moment)
        again = Runner(LlmAgent("writer", asked), app_name="app", session_service=stopped.sessions)
        assert (await again.run("go on", session_id="s")).text == "it rains"
        messages = server.asked[-1]["messages"]
        is_answered(messages)
        said = [message["content"] for message in messages if message["role"] == "user"]
        assert said == ["go", "go on"]
        assert busy(asked) == []


class Leaky(Model):
    """Leaves behind the connection, or a task."""

    def __init__(self, server: Server, *, leaves_task: bool) -> None:
        self.port = int(server.url.split(":")[2].split("/")[0])
        self.leaves_task = leaves_task
        self.kept: trio.SocketStream | None = None

    @property
    def name(self) -> str:
        return "leaky"

    async def generate(self, _request: ModelRequest) -> AsyncGenerator[ModelResponse, None]:
        self.kept = await trio.open_tcp_stream("127.0.0.1", self.port)
        await self.kept.send_all(b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}")
        if self.leaves_task:
            trio.lowlevel.spawn_system_task(trio.sleep_forever)
            await self.kept.aclose()
        yield ModelResponse(content=Content("a"), partial=True)
        await trio.sleep_forever()


@pytest.mark.parametrize(
    ("leaves_task", "error"), [(True, AssertionError), (False, trio.TooSlowError)]
)
async def test_what_is_left_behind_is_found(*, leaves_task: bool, error: type[Exception]) -> None:
    async with serving(hangs()) as server:
        leaky = Leaky(server, leaves_task=leaves_task)
        stopped = await stop(Moment(), server, leaky)
        with pytest.raises(error):
            await is_clean(stopped, Moment(), within=0.05)
        if leaky.kept is not None:
            await leaky.kept.aclose()


CALLS_ONE: Final = {"role": "assistant", "tool_calls": [{"id": "c1"}]}


@pytest.mark.parametrize(
    "messages",
    [
        [CALLS_ONE],
        [CALLS_ONE, {"role": "user"}, {"role": "tool", "tool_call_id": "c1"}],
        [{"role": "tool", "tool_call_id": "c1"}],
    ],
)
def test_a_call_without_its_answer_is_found(messages: list[dict[str, Any]]) -> None:
    is_answered([CALLS_ONE, {"role": "tool", "tool_call_id": "c1"}])
    with pytest.raises(AssertionError):
        is_answered(messages)
