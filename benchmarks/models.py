"""What an agent costs that asks a model, beside the same call by the bare ``openai`` SDK.

The server is on loopback, in a process of its own (`benchmarks.chat_server`), and says what it has
rendered before: what is measured is what happens here. Processor time, except where it says wall:
that has the server in it, too.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from functools import partial

import openai
import trio

from benchmarks.chat_server import WORD, allow_files
from benchmarks.measure import Row, Sizes, Timed, clock, run_rounds, times_base
from parallel_agent import Agent, Content, ParallelAgent, Runner
from parallel_agent.llm.agent import LlmAgent
from parallel_agent.llm.model import ModelRequest
from parallel_agent.llm.openai_model import OpenAIModel
from parallel_agent.testing.scripted_model import ScriptedModel

SDK = "openai SDK"
AT_ONCE_TOKENS = 20


def models(sizes: Sizes) -> Iterator[Row]:
    """A call, a token of a long answer, and one of very many agents that ask at the same time."""
    with chat_server() as at:
        yield from _compared(
            "a call",
            sizes,
            sizes.model_calls,
            {
                SDK: partial(_sdk_calls, at(1), sizes.model_calls),
                "model": partial(_model_calls, at(1), sizes.model_calls),
                "agent": partial(_agent_calls, at(1), sizes.model_calls),
                "scripted": partial(_scripted_calls, sizes.model_calls),
            },
        )
        tokens = sizes.model_tokens
        yield from _compared(
            f"a token of {tokens:,}",
            sizes,
            tokens,
            {
                SDK: partial(_sdk_calls, at(tokens), 1),
                "model": partial(_model_calls, at(tokens), 1),
                "agent": partial(_agent_calls, at(tokens), 1),
                "scripted": partial(_scripted_tokens, tokens),
            },
        )
        count = sizes.model_agents
        # Those of the server are its own.
        allow_files(count + 100)
        walls: dict[str, list[float]] = {SDK: [], "agent": []}
        url = at(AT_ONCE_TOKENS)
        case = f"{count:,} at once, {AT_ONCE_TOKENS} tokens each"
        yield from _compared(
            case,
            sizes,
            count,
            {
                SDK: partial(_on_the_wall, walls[SDK], partial(_sdk_at_once, url, count)),
                "agent": partial(_on_the_wall, walls["agent"], partial(_at_once, url, count)),
                "scripted": partial(_scripted_at_once, count),
            },
        )
        for name, taken in walls.items():
            yield Row("models", case, f"{name}, wall", min(taken), "s")
        ratio = times_base(walls["agent"], walls[SDK])
        yield Row("models", case, f"agent / {SDK}, wall", ratio, "ratio")


def _compared(
    case: str, sizes: Sizes, count: int, contestants: Mapping[str, Timed]
) -> Iterator[Row]:
    seconds = run_rounds(contestants, sizes.rounds)
    for name, taken in seconds.items():
        yield Row("models", case, name, min(taken) / count * 1e6, "us")
        if name in ("model", "agent"):
            ratio = times_base(taken, seconds[SDK])
            yield Row("models", case, f"{name} / {SDK}", ratio, "ratio")


# One after the other. The first call, which opens the connection, is not counted.

Call = Callable[[], Awaitable[int]]
"""Asks once, reads the answer to its end, and returns how many pieces there were."""


async def _calls(call: Call, count: int) -> float:
    assert await call() > 0  # noqa: S101  # what says nothing must not look fast
    began = clock()
    for _ in range(count):
        await call()
    return clock() - began


async def _sdk_calls(url: str, count: int) -> float:
    async with _client(url) as client:
        return await _calls(partial(_ask_sdk, client), count)


async def _model_calls(url: str, count: int) -> float:
    return await _calls(partial(_ask_model, OpenAIModel("ollama/m", base_url=url)), count)


async def _agent_calls(url: str, count: int) -> float:
    tree = LlmAgent("agent", OpenAIModel("ollama/m", base_url=url))
    return await _calls(partial(_run, tree), count)


def _client(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)


async def _ask_sdk(client: openai.AsyncOpenAI) -> int:
    pieces = 0
    stream = await client.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "go"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    async with stream:
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                pieces += 1
    return pieces


async def _ask_model(model: OpenAIModel) -> int:
    request = ModelRequest(contents=(Content("go", role="user"),))
    async with aclosing(model.generate(request)) as responses:
        return sum([response.partial async for response in responses])


async def _run(tree: Agent) -> int:
    pieces = 0
    async with Runner(tree).open("go") as run:
        async for event in run:
            pieces += event.partial
    return pieces


async def _scripted_calls(count: int) -> float:
    tree = LlmAgent("agent", ScriptedModel(["token"] * count))
    began = clock()
    for _ in range(count):
        await _run(tree)
    return clock() - began


async def _scripted_tokens(count: int) -> float:
    tree = LlmAgent("agent", ScriptedModel([[WORD] * count]))
    began = clock()
    await _run(tree)
    return clock() - began


# At once.


async def _on_the_wall(walls: list[float], timed: Timed) -> float:
    began = time.perf_counter()
    taken = await timed()
    walls.append(time.perf_counter() - began)
    return taken


async def _sdk_at_once(url: str, count: int) -> float:
    began = clock()
    async with _client(url) as client, trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(_ask_sdk, client)
    return clock() - began


async def _at_once(url: str, count: int) -> float:
    model = OpenAIModel("ollama/m", base_url=url)
    tree = ParallelAgent("all", [LlmAgent(f"a{number}", model) for number in range(count)])
    return await _timed_run(tree, count)


async def _scripted_at_once(count: int) -> float:
    script = [WORD] * AT_ONCE_TOKENS
    agents = [LlmAgent(f"a{number}", ScriptedModel([script])) for number in range(count)]
    return await _timed_run(ParallelAgent("all", agents), count)


async def _timed_run(tree: Agent, count: int) -> float:
    began = clock()
    pieces = await _run(tree)
    assert pieces == count * AT_ONCE_TOKENS  # noqa: S101  # as above
    return clock() - began


# The server.


@contextmanager
def chat_server() -> Iterator[Callable[[int], str]]:
    """Start the server; yield what returns the URL where answers have so many tokens."""
    command = [sys.executable, "-m", "benchmarks.chat_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  # ourselves
        try:
            assert process.stdout is not None  # noqa: S101  # it is a pipe, see above
            port = int(process.stdout.readline())
            yield lambda tokens: f"http://127.0.0.1:{port}/{tokens}/v1"
        finally:
            process.terminate()
