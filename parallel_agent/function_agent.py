"""`@agent`: a function as a leaf of a tree.

Three shapes, told apart when the agent is defined:

* an async generator function: what it yields is emitted;
* a coroutine function: what it returns is its output, and an event;
* a plain function: likewise, and it runs in a worker thread, so that it delays nobody. When the
  run is cancelled the thread is waited for, unless ``abandon_on_cancel=True``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeAlias, final, overload

import trio

from parallel_agent.agent import Agent, AgentCallback
from parallel_agent.context import InvocationContext, activation_of
from parallel_agent.errors import AgentFunctionError
from session.content import Content
from session.event import Event

__all__ = ["AgentFunction", "FunctionAgent", "agent"]

AgentFunction: TypeAlias = (
    Callable[[InvocationContext], AsyncGenerator["Event | Content | str", None]]
    | Callable[[InvocationContext], Coroutine[Any, Any, Any]]
    | Callable[[InvocationContext], Any]
)
"""What can be an agent: a function of the context, in one of the three shapes."""


@final
class FunctionAgent(Agent):
    """An agent whose work is a function. Made by `agent`."""

    run_shape: str = "coroutine"

    def __init__(
        self,
        function: AgentFunction,
        *,
        name: str | None = None,
        description: str | None = None,
        output_key: str | None = None,
        abandon_on_cancel: bool = False,
        before_agent_callback: AgentCallback | Sequence[AgentCallback] | None = (),
        after_agent_callback: AgentCallback | Sequence[AgentCallback] | None = (),
    ) -> None:
        """See `agent`."""
        kind = _shape(function)
        if abandon_on_cancel and kind != "thread":
            message = f"abandon_on_cancel is for plain functions in threads; {function!r} is async"
            raise AgentFunctionError(message)
        super().__init__(
            _name_of(function) if name is None else name,
            description=_summary(function) if description is None else description,
            output_key=output_key,
            before_agent_callback=before_agent_callback,
            after_agent_callback=after_agent_callback,
        )
        self._function: Callable[[InvocationContext], Any] = function
        self._abandon_on_cancel = abandon_on_cancel
        self.run_shape = "generator" if kind == "generator" else "coroutine"
        self._run = self._run_in_thread if kind == "thread" else function

    @property
    def function(self) -> AgentFunction:
        """The function it runs."""
        return self._function

    def run(self, ctx: InvocationContext) -> Any:
        """Call the function."""
        return self._run(ctx)

    async def _run_in_thread(self, ctx: InvocationContext) -> Any:
        return await trio.to_thread.run_sync(
            self._call,
            ctx,
            abandon_on_cancel=self._abandon_on_cancel,
            limiter=activation_of(ctx).invocation.threads,
        )

    def _call(self, ctx: InvocationContext) -> Any:
        """Call a plain function, in its thread."""
        result = self._function(ctx)
        if inspect.iscoroutine(result):
            result.close()  # or Python complains that nobody awaited it
        elif not (
            inspect.isawaitable(result) or inspect.isasyncgen(result) or inspect.isgenerator(result)
        ):
            return result
        message = (
            f"{_name_of(self._function)!r} is a plain function, but its result is "
            f"{result!r:.80}; make it (or the decorator around it) `async def`"
        )
        raise AgentFunctionError(message)


class _Decorator(Protocol):
    def __call__(self, function: AgentFunction, /) -> FunctionAgent: ...


@overload
def agent(
    function: AgentFunction,
    /,
    *,
    name: str | None = ...,
    description: str | None = ...,
    output_key: str | None = ...,
    abandon_on_cancel: bool = ...,
    before_agent_callback: AgentCallback | Sequence[AgentCallback] | None = ...,
    after_agent_callback: AgentCallback | Sequence[AgentCallback] | None = ...,
) -> FunctionAgent: ...


@overload
def agent(
    *,
    name: str | None = ...,
    description: str | None = ...,
    output_key: str | None = ...,
    abandon_on_cancel: bool = ...,
    before_agent_callback: AgentCallback | Sequence[AgentCallback] | None = ...,
    after_agent_callback: AgentCallback | Sequence[AgentCallback] | None = ...,
) -> _Decorator: ...


def agent(function: AgentFunction | None = None, /, **options: Any) -> FunctionAgent | _Decorator:
    """Make a function an agent: ``@agent``, ``@agent(output_key="k")``, ``agent(f, name="n")``.

    Args:
        function: takes the context; an async generator function, a coroutine function or a
            plain function.
        name: by default the function's own.
        description: by default the first line of its docstring.
        output_key: the state key under which its output is stored.
        abandon_on_cancel: do not wait for a plain function's thread when the run is cancelled.
            Its result is then dropped, but what it does goes on.
        before_agent_callback: see `Agent`.
        after_agent_callback: see `Agent`.
        **options: the above.

    Raises:
        AgentFunctionError: the function has none of the three shapes, or takes other arguments.
        TreeError: the name is no identifier.
    """
    if function is None:
        return lambda decorated: FunctionAgent(decorated, **options)
    return FunctionAgent(function, **options)


def _shape(function: object) -> str:
    if isinstance(function, Agent):
        message = f"{function!r} is an agent already"
        raise AgentFunctionError(message)
    if not callable(function) or isinstance(function, type):
        message = f"@agent takes a function of the context, not {function!r:.80}"
        raise AgentFunctionError(message)
    code = _unwrapped(function)
    if inspect.isgeneratorfunction(code):
        name = _name_of(function)
        message = f"{name!r} is a plain generator function; write `async def` to yield events"
        raise AgentFunctionError(message)
    _check_parameters(function)
    if inspect.isasyncgenfunction(code):
        return "generator"
    return "coroutine" if inspect.iscoroutinefunction(code) else "thread"


def _unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(function, functools.partial):
        function = function.func
    if not (
        inspect.isfunction(function) or inspect.ismethod(function) or inspect.isbuiltin(function)
    ):
        return type(function).__call__  # an object with __call__: its method decides the shape
    return function


def _check_parameters(function: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # a built-in that does not tell: it finds out when it is called
    try:
        signature.bind(None)
    except TypeError as exc:
        message = (
            f"{_name_of(function)!r} cannot be an agent: it is called with one argument, the "
            f"context, but its signature is {signature} ({exc})"
        )
        raise AgentFunctionError(message) from None


def _name_of(function: object) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def _summary(function: object) -> str:
    doc = inspect.getdoc(function) or ""
    return doc.partition("\n")[0]
