"""asyncio loops for tests of the asyncio host, and how to write agents that wait for a test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeAlias

import trio
import uvloop

from parallel_agent import FunctionAgent, InvocationContext, agent

__all__ = ["LOOPS", "Diary", "InLoop", "cleaning_up", "counting", "watched"]

LOOPS: Final[dict[str, Callable[[Coroutine[Any, Any, Any]], Any]]] = {
    "asyncio": asyncio.run,
    "uvloop": uvloop.run,
}
"""How to run a coroutine in each kind of loop."""

InLoop: TypeAlias = Callable[[Coroutine[Any, Any, Any]], Any]

Diary: TypeAlias = list[str]


def watched(run: InLoop, complaints: list[dict[str, Any]]) -> InLoop:
    """Return a function that runs a coroutine, and notes what the loop complains of."""

    async def main(coroutine: Coroutine[Any, Any, Any]) -> Any:
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: complaints.append(context)
        )
        return await coroutine

    return lambda coroutine: run(main(coroutine))


def counting(name: str = "counter", count: int = 3) -> FunctionAgent:
    """Return an agent that says how often it has been acknowledged."""

    async def count_up(ctx: InvocationContext) -> Any:
        for number in range(count):
            yield f"{name} {number}"

    return agent(count_up, name=name)


def cleaning_up(name: str, diary: Diary, *, says: bool = False) -> FunctionAgent:
    """Return an agent that starts, waits for ever, and cleans up slowly."""

    async def wait(ctx: InvocationContext) -> Any:
        try:
            yield "started"
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                for _ in range(5):
                    await trio.lowlevel.checkpoint()
                if says:
                    yield "cleaned up"
            diary.append(f"{name} cleaned up")

    return agent(wait, name=name)
