"""`asyncio_function`: an asyncio function as the function of an agent."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable
from functools import wraps
from typing import Any, TypeVar, cast

from parallel_agent.agent import Agent
from parallel_agent.aio.bridge import from_asyncio
from parallel_agent.aio.items import from_asyncio_iter
from parallel_agent.errors import AgentFunctionError

__all__ = ["asyncio_function"]

_F = TypeVar("_F", bound=Callable[..., Any])


def asyncio_function(function: _F) -> _F:
    """Mark a function as asyncio's, so that it can serve an agent, which is trio's.

    ::

        @agent(output_key="page")
        @asyncio_function
        async def fetch(ctx: InvocationContext, url: str) -> str:
            async with aiohttp.ClientSession() as web, web.get(url) as answer:
                return await answer.text()

    What it awaits is asyncio's; it runs where `from_asyncio` says. What it yields is emitted. Plain
    parts of the context are as usual (``ctx.state``, ``ctx.input``); what must be awaited is
    trio's: ``await from_trio(ctx.request_input, "Go on?")``.

    Args:
        function: a coroutine function or an async generator function.

    Raises:
        AgentFunctionError: it is neither.
    """
    if inspect.isasyncgenfunction(function):

        @wraps(function)
        async def generate(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
            async with from_asyncio_iter(function, *args, **kwargs) as items:
                async for item in items:
                    yield item

        return cast("_F", generate)
    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await from_asyncio(function, *args, **kwargs)

        return cast("_F", call)
    if isinstance(function, Agent):
        hint = "put @asyncio_function below @agent"
    else:
        hint = "a plain function can be an agent as it is, and runs in a thread"
    message = f"asyncio_function marks an `async def` function, not {function!r:.80}; {hint}"
    raise AgentFunctionError(message)
