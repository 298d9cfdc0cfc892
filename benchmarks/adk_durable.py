"""The same work in google-adk, with its sessions in an SQLite file.

It runs in a Python of its own, because google-adk's database needs what this project does not, and
is started as a file, with nothing else of this project beside it. It prints the seconds.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator
from importlib import import_module
from typing import Any

# By name: most often it is not installed where types are checked.
_agents: Any = import_module("google.adk.agents")
_events: Any = import_module("google.adk.events")
_runners: Any = import_module("google.adk.runners")
_sessions: Any = import_module("google.adk.sessions")
_types: Any = import_module("google.genai.types")


class Leaf(_agents.BaseAgent):  # type: ignore[misc]  # Any, whether it is installed or not
    """Emits so many events of text."""

    events: int

    async def _run_async_impl(self, ctx: Any) -> AsyncGenerator[Any, None]:
        for _ in range(self.events):
            yield _events.Event(
                invocation_id=ctx.invocation_id,
                author=self.name,
                branch=ctx.branch,
                content=_types.Content(role="model", parts=[_types.Part(text="x")]),
            )


async def in_adk(branches: int, events: int, url: str) -> float:
    """Read a parallel agent of so many leaves; return the seconds on the wall."""
    leaves: list[Any] = [Leaf(name=f"b{number}", events=events) for number in range(branches)]
    tree = _agents.ParallelAgent(name="wide", sub_agents=leaves)
    service = _sessions.DatabaseSessionService(db_url=url)
    session = await service.create_session(app_name="bench", user_id="user")
    runner = _runners.Runner(agent=tree, app_name="bench", session_service=service)
    message = _types.Content(role="user", parts=[_types.Part(text="go")])
    count = 0
    began = time.perf_counter()
    async for _ in runner.run_async(user_id="user", session_id=session.id, new_message=message):
        count += 1
    taken = time.perf_counter() - began
    assert count >= branches * events, count  # noqa: S101  # what does less must not look fast
    return taken


if __name__ == "__main__":
    print(asyncio.run(in_adk(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
