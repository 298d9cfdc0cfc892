"""What comes over the wire: however it is cut, and whatever is wrong with it.

The server is a real one, on loopback, that the test plays. Where time matters, it is virtual, and
jumps only when nothing has come over a socket for a moment.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import attrs
import pytest
import trio
import trio.testing
from hypothesis import assume, given
from hypothesis import strategies as st

from parallel_agent import (
    Content,
    Event,
    FunctionCall,
    InlineData,
    ParallelAgent,
    Retry,
    Runner,
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
    ModelRequestError,
    ModelUnavailableError,
)
from tests.support.chat_server import (
    DONE,
    SAYS,
    SSE,
    Answer,
    Server,
    breaks_off,
    busy,
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

pytestmark = pytest.mark.usefixtures("no_certificates")


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


def cut(text: str, places: Sequence[int]) -> list[str]:
    """Cut a text anywhere, inside a letter too."""
    units = text.encode("utf-16-le")  # in which the letters beyond the first 65,536 take two
    at = [0, *sorted(2 * place for place in places if 2 * place < len(units)), len(units)]
    pieces = (units[a:b] for a, b in pairwise(at))
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
    return tuple(whole[a:b] for a, b in pairwise(at) if a < b)


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
    names = {"prompt_tokens": "promptTokenCount", "completion_tokens": "candidatesTokenCount"}
    assert (usage and {ours: usage[theirs] for ours, theirs in names.items()}) == said.usage


@given(said=answers(), data=st.data(), chunked=st.booleans())
async def test_however_an_answer_is_cut_the_same_is_recorded(
    *, said: Said, data: st.DataObject, chunked: bool
) -> None:
    assume(said.text or said.calls or said.finish != "content_filter")  # that fails the agent
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

    async def generate(self, _request: ModelRequest) -> AsyncGenerator[ModelResponse, None]:
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


# Whatever is wrong with it.


@pytest.fixture
def clock(mock_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    """Time that jumps when all wait, and nothing has come over a socket for a moment."""
    mock_clock.autojump_threshold = 0.02
    return mock_clock


GOES_ON: Final = SSE.replace(b"connection: close\r\n", b"content-length: 99999\r\n")


def piece(**fields: Any) -> bytes:
    return event({"id": "x", "model": "m-1", **fields})


def choice(delta: object, **fields: Any) -> bytes:
    return piece(choices=[{"index": 0, "delta": delta, **fields}])


def calling(**function: Any) -> bytes:
    return choice({"tool_calls": [{"index": 0, "id": "c1", "function": function}]})


ODD_PIECES: Final = {
    "no object": event(3),
    "a list": event([]),
    "nothing": event(None),
    "cut JSON": b'data: {"choices": \n\n',
    "no UTF-8": b'data: {"choices": "\xff"}\n\n',
    "deep": b"data: " + b"[" * 100_000 + b"\n\n",
    "a delta of text": choice("it rains"),
    "a delta that is a list": choice([1]),
    "content that is a number": choice({"content": 3}),
    "content that is a list": choice({"content": [{"type": "text", "text": "a"}]}),
    "half a letter": choice({"content": "a\ud800b"}),
    "the other half alone": choice({"content": "\ude00"}),
    "a reason that is none": choice({}, finish_reason=["stop"]),
    "choices that are none": piece(choices={"a": 1}),
    "an index of text": choice({"tool_calls": [{"index": "a", "function": {"name": "a"}}]}),
    "arguments that are an object": calling(name="look", arguments={"city": "Oslo"}),
    "arguments that are no object": calling(name="look", arguments="[1]"),
    "arguments that cannot be kept": calling(name="look", arguments='{"a": NaN}'),
    "usage that is none": piece(choices=[], usage={"prompt_tokens": "many"}),
    "a model that is none": piece(choices=[], model=3),
}


@pytest.mark.parametrize("odd", ODD_PIECES.values(), ids=ODD_PIECES)
async def test_a_piece_that_is_none_is_a_protocol_error(odd: bytes) -> None:
    async with serving(streams(SAYS[0], odd, chunk("stop")), streams(*SAYS)) as server:
        await fails(server, ModelProtocolError)


BROKEN_OFF: Final = {
    "before it began": breaks_off(),
    "without a line": breaks_off(b"data: "),
    "between two pieces": breaks_off(*SAYS[:2]),
    "in a piece": breaks_off(SAYS[0], SAYS[1][:-9]),
    "before its end was said": breaks_off(*SAYS[:2], SAYS[2][:-9]),
    "after the name of a call": breaks_off(calling(name="look", arguments="")),
    "in the arguments of a call": breaks_off(calling(name="look", arguments="{")),
    "by saying that it is done": streams(),
    "a page": refuses(200, "<html>hello</html>", "content-type: text/html"),
    "a whole answer": refuses(200, {"choices": [{"message": {"content": "it rains"}}]}),
}


@pytest.mark.parametrize("answer", BROKEN_OFF.values(), ids=BROKEN_OFF)
async def test_an_answer_without_its_end_is_a_protocol_error(answer: Answer) -> None:
    async with serving(answer, streams(*SAYS)) as server:
        await fails(server, ModelProtocolError)


OUT_OF_ORDER: Final = {
    "reset before the head": resets(),
    "reset in the head": resets(SSE[:20]),
    "reset in the answer": resets(SSE, SAYS[0]),
    "closed too early": resets(GOES_ON, SAYS[0]),
    "a page of a proxy": refuses(502, "<html>Bad Gateway</html>", "content-type: text/html"),
    "an error in the stream": breaks_off(SAYS[0], event({"error": {"message": "busy"}})),
    "an error that is text": breaks_off(SAYS[0], event({"error": "busy"})),
    "an error at once": breaks_off(event({"error": {"message": "busy", "code": 500}})),
}


@pytest.mark.parametrize("answer", OUT_OF_ORDER.values(), ids=OUT_OF_ORDER)
async def test_a_server_that_is_out_of_order_is_unavailable(answer: Answer) -> None:
    async with serving(answer, streams(*SAYS)) as server:
        await fails(server, ModelUnavailableError)


@pytest.mark.parametrize(
    "answer", [hangs(head=b""), hangs(head=SSE[:30]), hangs(), hangs(*SAYS[:2])]
)
async def test_a_server_that_says_nothing_for_too_long_is_unavailable(
    answer: Answer, clock: trio.testing.MockClock
) -> None:
    async with serving(answer, streams(*SAYS)) as server:
        began = trio.current_time()
        await fails(server, ModelUnavailableError, timeout=30.0)
        assert 30 <= trio.current_time() - began < 31
        await server.closed.wait()


async def fails(server: Server, kind: type[ModelError], **options: Any) -> ModelError:
    """Assert that a call fails like that, and that the next one is answered."""
    asked = model(server, **options)
    runner = Runner(LlmAgent("writer", asked, repairs=0))
    with pytest.raises(ModelError) as caught:
        await runner.run("x")
    assert isinstance(caught.value, kind)
    assert str(caught.value).startswith("ollama/m")
    assert busy(asked) == []
    assert (await runner.run("x")).text == "it rains"
    assert busy(asked) == []
    return caught.value


async def slow(_server: Server, stream: trio.SocketStream) -> None:
    await stream.send_all(SSE)
    for sent in (SAYS[0], b": still here\n\n", SAYS[1], SAYS[2][:20], SAYS[2][20:], DONE):
        await trio.sleep(20)
        await stream.send_all(sent)


async def test_a_slow_server_has_time_as_long_as_something_comes(
    clock: trio.testing.MockClock,
) -> None:
    async with serving(slow) as server:
        said = await Runner(LlmAgent("writer", model(server, timeout=30.0))).run("x")
        assert said.text == "it rains"
        assert trio.current_time() - server.times[0] >= 120


async def test_an_agent_that_waits_for_a_connection_has_time(
    clock: trio.testing.MockClock,
) -> None:
    async with serving(slow) as server:
        asked = model(server, timeout=30.0)
        pool = asked._open()._client._transport._pool  # type: ignore[attr-defined]  # not shown
        pool._max_connections = 1
        tree = ParallelAgent("both", [LlmAgent("one", asked), LlmAgent("two", asked)])
        result = await Runner(tree).run("x")
    assert result.output == {"one": "it rains", "two": "it rains"}
    assert server.times[1] - server.times[0] >= 120


async def test_a_connection_that_stays_open_after_the_end_keeps_nobody_waiting(
    clock: trio.testing.MockClock,
) -> None:
    async with serving(hangs(*SAYS, DONE)) as server:
        asked = model(server)
        assert (await Runner(LlmAgent("writer", asked)).run("x")).text == "it rains"
        assert trio.current_time() - server.times[0] < 1
        assert busy(asked) == []


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (["retry-after: 7"], 7),
        (["retry-after-ms: 2500", "retry-after: 7"], 2.5),
        (["retry-after: 0.25"], 1),
        (["retry-after: 900"], 60),
        (["retry-after: Wed, 21 Oct 2026 07:28:00 GMT"], 1),
        (["retry-after: nan"], 1),
        (["retry-after: -3"], 1),
        (["retry-after-ms: soon", "retry-after: 7"], 7),
        ([], 1),
    ],
)
async def test_a_server_is_left_alone_for_as_long_as_it_wants(
    headers: list[str], seconds: float, clock: trio.testing.MockClock
) -> None:
    retry = Retry(2, initial_delay=1, jitter=0, max_delay=60)
    async with serving(refuses(429, None, *headers), streams(*SAYS)) as server:
        tree = LlmAgent("writer", model(server), retry=retry)
        assert (await Runner(tree).run("x")).text == "it rains"
    first, second = server.times
    assert second - first == pytest.approx(seconds, abs=0.1)


@pytest.mark.parametrize("header", ["nan", "inf", "-3", "soon"])
async def test_a_delay_that_is_none_is_not_told(header: str) -> None:
    async with serving(refuses(429, None, f"retry-after: {header}"), streams(*SAYS)) as server:
        error = await fails(server, ModelRateLimitError)
    assert isinstance(error, ModelRateLimitError)
    assert error.retry_after is None


async def test_a_long_page_of_a_proxy_is_not_told_in_full() -> None:
    page = "<html>" + "Bad Gateway " * 10_000
    async with serving(refuses(502, page), streams(*SAYS)) as server:
        error = await fails(server, ModelUnavailableError)
    assert error.status == 502
    assert len(str(error)) < 1_000


async def test_an_error_in_the_stream_is_told_in_the_words_of_the_server() -> None:
    for said in ("no room", {"message": "no room"}):
        async with serving(breaks_off(event({"error": said})), streams(*SAYS)) as server:
            assert "no room" in str(await fails(server, ModelUnavailableError))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 429}, ModelRateLimitError),
        ({"code": "rate_limit_exceeded"}, ModelRateLimitError),
        ({"code": 400}, ModelRequestError),
        ({"type": "invalid_request_error"}, ModelRequestError),
        ({"code": 401}, ModelAuthError),
        ({"code": "context_length_exceeded"}, ModelContextError),
        ({"type": "server_error"}, ModelUnavailableError),
    ],
)
async def test_a_code_says_what_kind_of_error_it_is(
    error: dict[str, Any], kind: type[ModelError]
) -> None:
    told = event({"error": {"message": "no", **error}})
    async with serving(breaks_off(SAYS[0], told), streams(*SAYS)) as server:
        await fails(server, kind)


ANSWERED: Final = {
    "nobody says that it is done": breaks_off(*SAYS),
    "its last line is not ended": breaks_off(*SAYS, b"data: [DONE]"),
    "its last piece is not ended": breaks_off(*SAYS[:-1], SAYS[-1].rstrip()),
    "there is a second answer": breaks_off(
        SAYS[0],
        piece(choices=[{"index": 1, "delta": {"content": "no, "}}]),
        piece(
            choices=[
                {"index": 1, "delta": {"content": "it does not"}},
                {"index": 0, "delta": {"content": "rains"}},
            ]
        ),
        SAYS[2],
        piece(choices=[{"index": 1, "delta": {}, "finish_reason": "length"}]),
    ),
    "there are fields that nobody knows": breaks_off(
        piece(choices=[], x_groq={"id": "1"}, prompt_filter_results=[]),
        choice({"content": "it rains", "annotations": [], "x": {"y": 1}}, logprobs=None, z=1),
        piece(choices=None),
        choice(None, finish_reason="stop"),
        piece(choices=[], usage=None),
    ),
    "events have names": breaks_off(b"event: message\nid: 1\nretry: 9\n", *SAYS),
}


@pytest.mark.parametrize("answer", ANSWERED.values(), ids=ANSWERED)
async def test_an_answer_is_read_although(answer: Answer) -> None:
    async with serving(answer) as server:
        asked = model(server)
        result = await Runner(LlmAgent("writer", asked)).run("x")
        assert result.text == "it rains"
        assert result.events[-1].other["finishReason"] == "stop"
        assert busy(asked) == []


async def test_a_piece_may_be_large() -> None:
    text = "é" * 500_000
    async with serving(streams(chunk(content=text), chunk("stop"), size=65_536)) as server:
        *_, whole = await heard(server)
    assert whole.text == text


# What else goes out and comes in.


async def test_an_image_goes_out_as_a_data_url() -> None:
    image = InlineData(b"\x89PNG", "image/png")
    async with serving(streams(*SAYS)) as server:
        message = Content((Text("what is it?"), image), role="user")
        await Runner(LlmAgent("writer", model(server))).run(message)
    (said,) = server.asked[0]["messages"]
    assert said["content"] == [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
    ]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("function_call", "tool_calls"),
        ("who knows", "other"),
    ],
)
async def test_why_a_model_has_stopped_is_recorded(sent: str, kept: str) -> None:
    async with serving(streams(SAYS[0], chunk(sent))) as server:
        *_, whole = await heard(server)
    assert whole.other["finishReason"] == kept


async def test_what_a_call_has_cost_is_recorded() -> None:
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    async with serving(streams(*SAYS, piece(choices=[], usage=usage))) as server:
        *_, whole = await heard(server)
    assert whole.other["usageMetadata"] == {
        "totalTokenCount": 16,
        "promptTokenCount": 9,
        "candidatesTokenCount": 7,
        "cachedContentTokenCount": 4,
        "thoughtsTokenCount": 3,
    }


async def test_a_refusal_is_recorded_as_what_the_model_says() -> None:
    async with serving(
        streams(chunk(refusal="I will "), chunk(refusal="not."), chunk("content_filter"))
    ) as server:
        (whole,) = await heard(server)
    assert (whole.text, whole.other["finishReason"]) == ("I will not.", "content_filter")


async def test_fields_of_a_provider_win_over_ours() -> None:
    extra = {"stream_options": {"include_usage": False}, "top_k": 3}
    async with serving(streams(*SAYS)) as server:
        config = GenerationConfig(extra=extra)
        await Runner(LlmAgent("writer", model(server), config=config)).run("x")
    assert {name: server.asked[0][name] for name in extra} == extra
    assert server.asked[0]["stream"] is True
