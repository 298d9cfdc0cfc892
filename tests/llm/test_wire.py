"""What comes over the wire: however it is cut, whenever it is cancelled, whatever is wrong with it.

The server is a real one, on loopback, that the test plays. Where time matters, it is virtual, and
jumps only when nothing has come over a socket for a moment.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any, Final, Literal

import attrs
import pytest
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from parallel_agent import (
    Content,
    Event,
    FunctionCall,
    InlineData,
    InMemorySessionService,
    Retry,
    Run,
    Runner,
    Status,
    Text,
)
from parallel_agent.llm.agent import LlmAgent
from parallel_agent.llm.model import GenerationConfig, Model, ModelRequest, ModelResponse
from parallel_agent.model_errors import (
    ModelAuthError,
    ModelContextError,
    ModelError,
    ModelProtocolError,
    ModelRateLimitError,
    ModelUnavailableError,
)
from session import Codec, SessionKey
from tests.support.chat_server import (
    DONE,
    SSE,
    Answer,
    Server,
    breaks_off,
    chunk,
    event,
    hangs,
    in_pieces,
    refuses,
    resets,
    serving,
    streams,
)

pytest.importorskip("openai")

from parallel_agent.llm.openai_model import OpenAIModel

SAYS: Final = chunk(content="it "), chunk(content="rains"), chunk("stop")


def model(server: Server, **options: Any) -> OpenAIModel:
    return OpenAIModel("ollama/m", base_url=server.url, **options)


# However an answer is cut.


@attrs.frozen
class Said:
    """An answer, and the pieces of the protocol that it is sent in."""

    text: str
    calls: tuple[FunctionCall, ...]
    finish: str
    usage: dict[str, int] | None
    deltas: tuple[dict[str, Any], ...]

    def chunks(self) -> Iterator[dict[str, Any]]:
        for number, delta in enumerate(self.deltas):
            last = number == len(self.deltas) - 1
            choice = {"index": 0, "delta": delta, "finish_reason": self.finish if last else None}
            yield {"id": "x", "model": "m-1", "choices": [choice]}
        if self.usage is not None:
            yield {"id": "x", "model": "m-1", "choices": [], "usage": self.usage}


def halves_of(text: str) -> bytes:
    """Return a text as units of 16 bits, which cut the letters beyond the first 65,536 in two."""
    return text.encode("utf-16-le")


def cut(text: str, places: Sequence[int]) -> list[str]:
    """Cut a text anywhere, inside a letter too."""
    units = halves_of(text)
    at = [0, *sorted(2 * place for place in places if 2 * place < len(units)), len(units)]
    pieces = (units[a:b] for a, b in zip(at, at[1:], strict=False))
    return [piece.decode("utf-16-le", "surrogatepass") for piece in pieces]


TEXTS: Final = st.text(st.sampled_from('ab é"\\\n語😀\u2028'), max_size=20)
PLACES: Final = st.lists(st.integers(0, 40), max_size=6)
CALLS: Final = st.builds(
    FunctionCall,
    st.sampled_from(["look", "ask"]),
    st.dictionaries(TEXTS, TEXTS | st.integers() | st.none() | st.lists(TEXTS), max_size=3),
)
TOKENS: Final = st.fixed_dictionaries(
    {"prompt_tokens": st.integers(0, 9), "completion_tokens": st.integers(0, 9)}
)


@st.composite
def answers(draw: st.DrawFn) -> Said:
    text = draw(TEXTS)
    calls = tuple(
        attrs.evolve(call, id=f"c{number}")
        for number, call in enumerate(draw(st.lists(CALLS, max_size=3)))
    )
    queues: list[list[dict[str, Any]]] = [[{"content": one} for one in cut(text, draw(PLACES))]]
    for number, call in enumerate(calls):
        begins = {"index": number, "id": call.id, "function": {"name": call.name}}
        pieces = cut(json.dumps(call.args, ensure_ascii=draw(st.booleans())), draw(PLACES))
        more = ({"index": number, "function": {"arguments": one}} for one in pieces)
        queues.append([{"tool_calls": [one]} for one in (begins, *more)])
    deltas: list[dict[str, Any]] = [{"role": "assistant"}]
    while queues := [queue for queue in queues if queue]:
        deltas.append(draw(st.sampled_from(queues)).pop(0))
    finish = "tool_calls" if calls else draw(st.sampled_from(["stop", "length", "content_filter"]))
    return Said(text, calls, finish, draw(st.none() | TOKENS), (*deltas, {}))


@st.composite
def wires(draw: st.DrawFn, said: Said) -> tuple[bytes, ...]:
    """Bytes that say it, cut anywhere."""
    end = draw(st.sampled_from(["\n", "\r\n"]))
    noise = st.sampled_from([b"", b": still here\n", b": still here\r\n\r\n", b"retry: 5\n"])
    parts = list[bytes]()
    for one in said.chunks():
        # Half a letter has no UTF-8 form; it can only be sent in ASCII.
        ascii_only = draw(st.booleans()) or "\\ud" in json.dumps(one)
        parts += [draw(noise), event(one, end=end, ascii_only=ascii_only)]
    whole = b"".join([*parts, DONE])
    at = [0, *sorted(draw(st.lists(st.integers(1, len(whole) - 1), max_size=12))), len(whole)]
    return tuple(whole[a:b] for a, b in zip(at, at[1:], strict=False) if a < b)


async def heard(server: Server, asked: Model | None = None) -> list[Event]:
    """Return what an agent emits until its model has answered once, the whole answer last."""
    async with Runner(LlmAgent("writer", asked or model(server))).open("x") as run:
        found = list[Event]()
        async for one in run:
            found.append(one)
            if not one.partial:
                break
        return found


def is_heard(said: Said, found: Sequence[Event]) -> None:
    """Assert that the events say what was said."""
    *partials, whole = found
    assert all(one.partial for one in partials)
    assert "".join(one.text for one in partials) == said.text
    assert whole.content is not None
    assert whole.content.parts == (*([Text(said.text)] if said.text else []), *said.calls)
    assert (whole.other["finishReason"], whole.other["modelVersion"]) == (said.finish, "m-1")
    usage = whole.other.get("usageMetadata")
    if said.usage is None:
        assert usage is None
    else:
        counts = [usage["promptTokenCount"], usage["candidatesTokenCount"]]
        assert counts == [said.usage["prompt_tokens"], said.usage["completion_tokens"]]


@given(said=answers(), data=st.data(), chunked=st.booleans())
async def test_however_an_answer_is_cut_the_same_is_recorded(
    said: Said, data: st.DataObject, chunked: bool
) -> None:
    pieces = data.draw(wires(said))
    async with serving(in_pieces(*pieces, chunked=chunked)) as server:
        is_heard(said, await heard(server))


LETTERS: Final = Said("é😀", (), "stop", None, ({"content": "é\ud83d"}, {"content": "\ude00"}, {}))


async def test_a_piece_that_is_lost_is_found_missing() -> None:
    kept = [event(one) for one in LETTERS.chunks()]
    async with serving(streams(kept[0], *kept[2:])) as server:
        found = await heard(server)
    with pytest.raises(AssertionError):
        is_heard(LETTERS, found)


class Careless(Model):
    """Takes what is read at a time for whole lines."""

    def __init__(self, server: Server) -> None:
        self.port = int(server.url.split(":")[2].split("/")[0])

    @property
    def name(self) -> str:
        return "careless"

    async def generate(self, request: ModelRequest) -> AsyncGenerator[ModelResponse, None]:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        await stream.send_all(b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}")
        async with stream:
            async for data in stream:
                for line in data.decode().splitlines():
                    if line.startswith("data: {"):
                        json.loads(line.removeprefix("data: "))
        yield ModelResponse(content=Content("done"))


@pytest.mark.parametrize("inside", [b"\xc3", b'"choices'])
async def test_pieces_are_read_one_by_one(inside: bytes) -> None:
    """Else the property would hold of a client that cannot put bytes together."""
    said = event({"choices": [], "é": 1}, ascii_only=False)
    at = said.index(inside) + 1
    async with serving(in_pieces(said[:at], said[at:], chunked=False)) as server:
        with pytest.raises(ValueError, match=r"utf-8|Expecting|Unterminated"):
            await heard(server, Careless(server))


# Whenever it is cancelled.


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
    runner = Runner(LlmAgent("writer", asked, tools=[look]), session_service=sessions)
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
    session = await stopped.sessions.get(stopped.run.session_key)
    log = session.events
    assert [one.seq for one in log] == list(range(1, len(log) + 1))
    assert not any(one.partial for one in log)
    codec = Codec()
    assert [codec.loads(codec.dumps(one)) for one in log] == list(log)
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


@settings(max_examples=40)
@given(moments())
async def test_a_run_stopped_at_any_moment_leaves_nothing_but_a_session_to_go_on_with(
    moment: Moment,
) -> None:
    async with serving(*stopping_at(moment)) as server:
        asked = model(server)
        stopped = await stop(moment, server, asked)
        await is_clean(stopped, moment)
        again = Runner(LlmAgent("writer", asked), session_service=stopped.sessions)
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

    async def generate(self, request: ModelRequest) -> AsyncGenerator[ModelResponse, None]:
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
async def test_what_is_left_behind_is_found(leaves_task: bool, error: type[Exception]) -> None:
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


def busy(asked: OpenAIModel) -> list[Any]:
    """Return the connections of a model's pool that no later call could have."""
    connections = asked._client.get()._client._transport._pool.connections  # type: ignore[attr-defined]  # the SDK's own, which it does not show
    return [one for one in connections if not (one.is_idle() or one.is_closed())]
