"""A model agent in an asyncio application: its server is asked natively, by the guest trio."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from parallel_agent import LlmAgent, ParallelAgent, aio
from tests.support.chat_server import DONE, SSE, chunk

pytest.importorskip("openai")

from parallel_agent.openai import OpenAIModel


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer in pieces, with pauses in which another branch goes on."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(SSE)
    for piece in ("it ", "rains"):
        writer.write(chunk(content=piece))
        await writer.drain()
        await asyncio.sleep(0)
    writer.write(chunk("stop") + DONE)
    await writer.drain()
    writer.close()


def test_branches_are_answered_by_a_server_in_the_same_loop() -> None:
    async def main() -> Counter[tuple[str, str]]:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            model = OpenAIModel("ollama/m", base_url=f"http://127.0.0.1:{port}/v1")
            tree = ParallelAgent("p", [LlmAgent("a", model), LlmAgent("b", model)])
            said: Counter[tuple[str, str]] = Counter()
            for _ in range(2):
                async with aio.Runner(tree).open("well?") as run:
                    async for event in run:
                        said[event.author, event.text] += 1
            return said

    said = asyncio.run(main())
    assert said == {
        ("a", "it "): 2,
        ("a", "rains"): 2,
        ("a", "it rains"): 2,
        ("b", "it "): 2,
        ("b", "rains"): 2,
        ("b", "it rains"): 2,
        ("p", ""): 2,
    }
