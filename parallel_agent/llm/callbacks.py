"""What is called before and after a model is asked, and a tool is called: plugins, then callbacks.

Each is plain or a coroutine function, and runs in the task of the agent, or of the call. What they
raise is a failure of the agent: a plugin's, a `PluginError`; a callback's, as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict, TypeVar, final

import attrs

from parallel_agent.context import InvocationContext, activation_of
from parallel_agent.errors import TreeError
from parallel_agent.llm.model import ModelRequest, ModelResponse
from parallel_agent.model_errors import CallbackError
from parallel_agent.tools.context import ToolContext
from session.content import FunctionCall

__all__ = [
    "AfterModelCallback",
    "AfterToolCallback",
    "BeforeModelCallback",
    "BeforeToolCallback",
    "Callbacks",
    "ModelCallbacks",
]

T = TypeVar("T")
_Maybe: TypeAlias = T | Awaitable[T | None] | None

BeforeModelCallback: TypeAlias = Callable[
    [InvocationContext, ModelRequest], _Maybe[ModelRequest | ModelResponse]
]
"""Called before the model is asked. A request it returns is sent instead; a response is taken as
the answer, and the model is not asked."""

AfterModelCallback: TypeAlias = Callable[[InvocationContext, ModelResponse], _Maybe[ModelResponse]]
"""Called with each whole response of the model. One that it returns counts instead."""

BeforeToolCallback: TypeAlias = Callable[[ToolContext], _Maybe[FunctionCall | Mapping[str, Any]]]
"""Called before a tool, with the context of the call. A call it returns is made instead, of the
same tool; an answer it returns is taken as the tool's, which is not called."""

AfterToolCallback: TypeAlias = Callable[[ToolContext, Mapping[str, Any]], _Maybe[Mapping[str, Any]]]
"""Called with the answer of a tool, an error too. One that it returns counts instead."""


class ModelCallbacks(TypedDict, total=False):
    """The keyword arguments of `LlmAgent` that are callbacks: one each, or a sequence."""

    before_model_callback: BeforeModelCallback | Sequence[BeforeModelCallback] | None
    after_model_callback: AfterModelCallback | Sequence[AfterModelCallback] | None
    before_tool_callback: BeforeToolCallback | Sequence[BeforeToolCallback] | None
    after_tool_callback: AfterToolCallback | Sequence[AfterToolCallback] | None


@attrs.frozen(eq=False)
class _Callback:
    """A callback of an agent, asked as the hook of a plugin is."""

    whose: str
    when: str
    call: Callable[..., Any]

    async def ask(self, *arguments: Any) -> Any:
        """Return what the callback says."""
        answer = self.call(*arguments)
        return await answer if inspect.isawaitable(answer) else answer

    def refused(self, wanted: str, answer: object) -> CallbackError:
        """Return the error that says that its answer is of no use."""
        message = (
            f"{self.when}_callback of {self.whose!r} returned {answer!r:.80}; {wanted} is needed, "
            "or None"
        )
        return CallbackError(message)


@final
@attrs.frozen
class Callbacks:
    """The callbacks of an agent, by when they are called."""

    before_model: tuple[BeforeModelCallback, ...] = ()
    after_model: tuple[AfterModelCallback, ...] = ()
    before_tool: tuple[BeforeToolCallback, ...] = ()
    after_tool: tuple[AfterToolCallback, ...] = ()

    @classmethod
    def of(cls, name: str, given: Mapping[str, Any]) -> Callbacks:
        """Return those of the agent ``name``.

        Raises:
            TreeError: one cannot be called.
        """
        return cls(
            **{
                option.removesuffix("_callback"): _as_tuple(name, option, given.get(option))
                for option in ModelCallbacks.__annotations__
            }
        )

    async def ask_before_model(
        self, ctx: InvocationContext, request: ModelRequest
    ) -> ModelRequest | ModelResponse:
        """Return what is to be sent; or what counts as the answer, and nothing is sent."""
        for asker in _askers(ctx, "before_model", self.before_model):
            answer = await asker.ask(ctx, request)
            if isinstance(answer, ModelRequest):
                request = answer
            elif isinstance(answer, ModelResponse):
                return answer
            elif answer is not None:
                raise asker.refused("a ModelRequest or a ModelResponse", answer)
        return request

    async def ask_after_model(
        self, ctx: InvocationContext, response: ModelResponse
    ) -> ModelResponse:
        """Return what counts as the response."""
        for asker in _askers(ctx, "after_model", self.after_model):
            answer = await asker.ask(ctx, response)
            if isinstance(answer, ModelResponse):
                response = answer
            elif answer is not None:
                raise asker.refused("a ModelResponse", answer)
        return response

    async def ask_before_tool(self, ctx: ToolContext) -> FunctionCall | Mapping[str, Any]:
        """Return the call that is to be made; or what counts as its answer, and none is made."""
        call = ctx.call
        for asker in _askers(ctx, "before_tool", self.before_tool):
            answer = await asker.ask(ctx)
            if isinstance(answer, FunctionCall) and answer.name == call.name:
                call = answer
            elif isinstance(answer, Mapping):
                return answer  # pyright: ignore[reportUnknownVariableType]  # checked when it is recorded
            elif answer is not None:
                raise asker.refused(f"a FunctionCall of {call.name!r} or a mapping", answer)
        return call

    async def ask_after_tool(
        self, ctx: ToolContext, response: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return what counts as the answer."""
        for asker in _askers(ctx, "after_tool", self.after_tool):
            answer = await asker.ask(ctx, response)
            if isinstance(answer, Mapping):
                response = answer  # pyright: ignore[reportUnknownVariableType]  # as above
            elif answer is not None:
                raise asker.refused("a mapping", answer)
        return response  # pyright: ignore[reportUnknownVariableType]  # as above


def _askers(
    ctx: InvocationContext, when: str, callbacks: Iterable[Callable[..., Any]]
) -> Iterator[Any]:
    """Yield who is asked: the hooks of plugins, then the agent's own."""
    yield from activation_of(ctx).invocation.plugins.of_models[when]
    for callback in callbacks:
        yield _Callback(ctx.agent.name, when, callback)


def _as_tuple(name: str, option: str, given: Any) -> tuple[Any, ...]:
    callbacks = (given,) if callable(given) else tuple(given or ())
    for callback in callbacks:
        if not callable(callback):
            message = f"{option} of {name!r} is not callable: {callback!r:.80}"
            raise TreeError(message)
    return callbacks
