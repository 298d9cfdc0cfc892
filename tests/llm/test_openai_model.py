"""Models at a server that speaks chat completions: a real one, on loopback, that the test plays."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from parallel_agent import Content, InlineData, LoopAgent, Runner, Status, Text
from parallel_agent.llm.agent import LlmAgent
from parallel_agent.llm.model import GenerationConfig
from parallel_agent.model_errors import (
    ModelAuthError,
    ModelContextError,
    ModelDefinitionError,
    ModelError,
    ModelProtocolError,
    ModelRateLimitError,
    ModelRequestError,
    ModelUnavailableError,
)
from tests.support.chat_server import (
    SSE,
    Answer,
    Server,
    breaks_off,
    chunk,
    refuses,
    serving,
    streams,
)

pytest.importorskip("openai")

from parallel_agent.llm.openai_model import OpenAIModel


def model(server: Server, **options: Any) -> OpenAIModel:
    return OpenAIModel("ollama/m", base_url=server.url, **options)


async def look(city: str) -> str:
    """Look up the weather of a city."""
    await trio.lowlevel.checkpoint()
    return f"rain in {city}"


CALL = (
    chunk(tool_calls=[{"index": 0, "id": "c1", "function": {"name": "look", "arguments": ""}}]),
    chunk(tool_calls=[{"index": 0, "function": {"arguments": '{"city": '}}]),
    chunk(tool_calls=[{"index": 0, "function": {"arguments": '"Oslo"}'}}]),
    chunk("tool_calls"),
)
SAYS = chunk(content="it "), chunk(content="rains"), chunk("stop")


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_an_agent_calls_a_tool_and_is_answered_however_the_bytes_come(size: int) -> None:
    async with serving(streams(*CALL, size=size), streams(*SAYS, size=size)) as server:
        tree = LlmAgent("writer", model(server), "Be kind.", tools=[look])
        result = await Runner(tree).run("weather?")
    assert result.text == "it rains"
    assert [message["role"] for message in server.asked[1]["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
    ]
    assert json.loads(server.asked[1]["messages"][3]["content"]) == {"result": "rain in Oslo"}
    assert server.asked[0]["model"] == "m"
    assert server.asked[0]["stream_options"] == {"include_usage": True}


async def test_pieces_come_as_they_are_sent() -> None:
    async with (
        serving(streams(*SAYS)) as server,
        Runner(LlmAgent("writer", model(server))).open("x") as run,
    ):
        said = [(event.text, event.partial) async for event in run]
    assert said == [("it ", True), ("rains", True), ("it rains", False)]


async def test_what_the_provider_takes_beyond_ours_is_passed_on() -> None:
    async with serving(streams(*SAYS)) as server:
        config = GenerationConfig(extra={"keep_alive": "5m"}, max_tokens=3)
        tree = LlmAgent(
            "w", model(server, api_key="secret", headers={"X-Team": "a"}), config=config
        )
        await Runner(tree).run("x")
    assert server.asked[0]["keep_alive"] == "5m"
    assert server.asked[0]["max_tokens"] == 3
    assert "Bearer secret" in server.heads[0]
    assert "x-team: a" in server.heads[0].lower()


TOO_LONG = {"error": {"message": "This model's maximum context length is 9", "code": "x"}}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refuses(401), ModelAuthError),
        (refuses(403), ModelAuthError),
        (refuses(404), ModelRequestError),
        (refuses(400), ModelRequestError),
        (refuses(400, TOO_LONG), ModelContextError),
        (refuses(500), ModelUnavailableError),
        (refuses(503), ModelUnavailableError),
        (breaks_off(SAYS[0]), ModelProtocolError),
        (breaks_off(SAYS[0], b"data: {nope\n\n"), ModelProtocolError),
        (breaks_off(SAYS[0], b'data: {"error": {"message": "busy"}}\n\n'), ModelUnavailableError),
        (breaks_off(b'data: {"choices": 3}\n\n'), ModelProtocolError),
    ],
)
async def test_what_goes_wrong_is_a_typed_error(answer: Answer, kind: type[ModelError]) -> None:
    async with serving(answer) as server:
        with pytest.raises(ModelError) as caught:
            await Runner(LlmAgent("writer", model(server))).run("x")
    assert type(caught.value) is kind
    assert "ollama/m" in str(caught.value)


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    nobody = OpenAIModel("ollama/m", base_url="http://127.0.0.1:1/v1")
    with pytest.raises(ModelUnavailableError, match=r"http://127\.0\.0\.1:1/v1"):
        await Runner(LlmAgent("writer", nobody)).run("x")


async def test_how_long_a_server_wants_to_be_left_alone_is_kept() -> None:
    async with serving(refuses(429, None, "retry-after: 7")) as server:
        with pytest.raises(ModelRateLimitError) as caught:
            await Runner(LlmAgent("writer", model(server))).run("x")
    assert (caught.value.retry_after, caught.value.status) == (7, 429)


async def test_a_cancelled_call_closes_its_connection() -> None:
    async def hangs(_server: Server, stream: trio.SocketStream) -> None:
        await stream.send_all(SSE + SAYS[0])
        while True:
            await stream.send_all(b": still here\n\n")
            await trio.sleep(0.005)

    async with serving(hangs) as server:
        async with Runner(LlmAgent("writer", model(server))).open("x") as run:
            await run.wait_for(lambda event: event.partial)
            run.cancel()
        assert run.result.status is Status.CANCELLED
        with trio.fail_after(5):
            await server.closed.wait()


async def test_one_model_serves_many_calls_and_runs() -> None:
    async with serving(streams(*SAYS)) as server:
        tree = LoopAgent("loop", [LlmAgent("writer", model(server))], max_iterations=3)
        for _ in range(2):
            assert (await Runner(tree).run("x")).text == "it rains"
    assert len(server.asked) == 6


def test_names_say_where_and_keys_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OLLAMA_BASE_URL", raising=False)
    assert OpenAIModel("ollama/qwen2.5:7b").base_url == "http://localhost:11434/v1"
    monkeypatch.setenv("OLLAMA_BASE_URL", "http://elsewhere/v1")
    assert OpenAIModel("ollama/qwen2.5:7b").base_url == "http://elsewhere/v1"
    with pytest.raises(ModelAuthError, match="set OPENAI_API_KEY, or pass api_key"):
        OpenAIModel("gpt-x")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    named = OpenAIModel("openai/gpt-x")
    assert named.name == "openai/gpt-x"
    assert "secret" not in repr(named)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("olama/x", "no kind of server is called 'olama'; .*; did you mean 'ollama'"),
        ("anthropic/x", r"pass OpenAIModel\(name, base_url=...\)"),
        ("You are helpful", "without spaces"),
        ("", "without spaces"),
    ],
)
def test_a_name_of_no_known_server_goes_nowhere(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with pytest.raises(ModelDefinitionError, match=said):
        OpenAIModel(name)


def test_with_an_address_it_is_the_name_that_the_server_has_for_it() -> None:
    assert OpenAIModel("meta-llama/llama-3", base_url="http://127.0.0.1:1/v1").name
    assert OpenAIModel("openai/meta-llama/llama-3", api_key="x").name


@pytest.mark.parametrize("bad", [{"base_url": "localhost:3/v1"}, {"timeout": 0}, {"timeout": "x"}])
def test_an_address_and_a_time_that_are_none_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ModelDefinitionError, match=next(iter(bad)).replace("base_url", "address")):
        OpenAIModel("ollama/x", **bad)


async def test_something_else_at_the_address_is_told_with_it() -> None:
    async with serving(refuses(200, "<html>hello</html>", "content-type: text/html")) as server:
        model = OpenAIModel("ollama/x", base_url=server.url)
        with pytest.raises(ModelProtocolError, match=f"does {server.url} speak chat completions"):
            await Runner(LlmAgent("a", model)).run("x")


async def test_what_no_model_takes_is_refused_when_it_comes_and_not_ever_after() -> None:
    pdf = Content((Text("read this"), InlineData(b"%PDF", "application/pdf")))
    async with serving(streams(chunk(content="fine"), chunk("stop"))) as server:
        runner = Runner(LlmAgent("a", OpenAIModel("ollama/x", base_url=server.url)))
        with pytest.raises(ModelRequestError, match="application/pdf"):
            await runner.run(pdf, session_id="s")
        assert (await runner.run("never mind", session_id="s")).text == "fine"
    told = server.asked[0]["messages"][0]["content"]
    assert told[1]["text"] == "[data of type 'application/pdf', which cannot be shown here]"
