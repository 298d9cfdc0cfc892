"""The same work in google-adk, where it is installed (``make deep`` installs it)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

from parallel_agent.adk.library import BaseAgent, load, types

__all__ = ["in_adk"]

ParallelAgent: Any = load("google.adk.agents").ParallelAgent
Event: Any = load("google.adk.events").Event
Runner: Any = load("google.adk.runners").Runner
InMemorySessionService: Any = load("google.adk.sessions").InMemorySessionService


class Leaf(BaseAgent):  # type: ignore[misc]  # Any, whether it is installed or not
    """Emits so many events of text."""

    events: int

    async def _run_async_impl(self, ctx: Any) -> AsyncGenerator[Any, None]:
        for _ in range(self.events):
            content = types.Content(role="model", parts=[types.Part(text="x")])
            yield Event(
                invocation_id=ctx.invocation_id,
                author=self.name,
                branch=ctx.branch,
                content=content,
            )


def in_adk(branches: int, events: int) -> float:
    """Read a parallel agent of so many leaves; return the seconds."""
    return asyncio.run(_run(branches, events))


async def _run(branches: int, events: int) -> float:
    leaves: list[Any] = [Leaf(name=f"b{number}", events=events) for number in range(branches)]
    tree = ParallelAgent(name="wide", sub_agents=leaves)
    service = InMemorySessionService()
    session = await service.create_session(app_name="bench", user_id="user")
    runner = Runner(agent=tree, app_name="bench", session_service=service)
    message = types.Content(role="user", parts=[types.Part(text="go")])
    count = 0
    began = time.perf_counter()
    async for _ in runner.run_async(user_id="user", session_id=session.id, new_message=message):
        count += 1
    taken = time.perf_counter() - began
    assert count >= branches * events, count  # noqa: S101  # what does less must not look fast
    return taken
