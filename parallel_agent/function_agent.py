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
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol, TypeAlias, Unpack, final, get_args, get_type_hints, overload

from parallel_agent.agent import Agent, AgentOptions
from parallel_agent.context import InvocationContext, activation_of
from parallel_agent.errors import AgentFunctionError
from parallel_agent.schema import Schema, SchemaTypeError
from session.content import Content
from session.event import Event

__all__ = ["AgentFunction", "FunctionAgent", "agent"]

AgentFunction: TypeAlias = (
    Callable[[InvocationContext], AsyncGenerator["Event | Content | str", None]]
    | Callable[[InvocationContext], Coroutine[Any, Any, Any]]
    | Callable[[InvocationContext], Any]
    | Callable[[InvocationContext, Any], Any]
)
"""What can be an agent: a function of the context (and an input), in one of the three shapes."""


class FunctionOptions(AgentOptions, total=False):
    """The keyword arguments of `agent`."""

    name: str | None
    abandon_on_cancel: bool


class _Input:
    """The argument of a function that takes the agent's input."""

    def __init__(self, function: Callable[..., Any], parameter: inspect.Parameter) -> None:
        self._function = function
        self._parameter = parameter
        self.is_needed: bool = parameter.default is parameter.empty
        self._schema: Schema[Any] | None = None
        # Now, if that is possible: a wrong annotation is best refused where it is written. A name
        # that is defined further down in the module is not there yet, though.
        try:
            with suppress(NameError):
                self.schema()
        except SchemaTypeError as exc:
            if self.is_needed:
                raise
            hint = f"if {parameter.name!r} is no input, make it keyword-only: put `*,` before it"
            message = f"{exc}; {hint}"
            raise SchemaTypeError(message) from None

    def schema(self) -> Schema[Any]:
        """Return what the input must be. Resolved once."""
        if self._schema is None:
            target = inspect.unwrap(_unwrapped(self._function))
            hints = get_type_hints(target, include_extras=True)
            self._schema = Schema(hints.get(self._parameter.name, Any))
        return self._schema


@final
class FunctionAgent(Agent):
    """An agent whose work is a function. Made by `agent`."""

    run_shape: str = "coroutine"

    def __init__(
        self,
        function: AgentFunction,
        *,
        name: str | None = None,
        abandon_on_cancel: bool = False,
        **options: Unpack[AgentOptions],
    ) -> None:
        """See `agent`."""
        self._input = _input_of(function)
        kind = _shape(function)
        if abandon_on_cancel and kind != "thread":
            message = f"abandon_on_cancel is for plain functions in threads; {function!r} is async"
            raise AgentFunctionError(message)
        options.setdefault("description", _summary(function))
        super().__init__(_name_of(function) if name is None else name, **options)
        self._function: Callable[..., Any] = function
        self._abandon_on_cancel = abandon_on_cancel
        self._in_thread = kind == "thread"
        self.run_shape = "generator" if kind == "generator" else "coroutine"

    @property
    def function(self) -> AgentFunction:
        """The function it runs."""
        return self._function

    @property
    def input_schema(self) -> Schema[Any] | None:
        """What the function's second argument must be; None if that is no input."""
        try:
            return None if self._input is None else self._input.schema()
        except NameError as exc:
            message = (
                f"the annotation of the input of agent {self.name!r} cannot be resolved: {exc}; "
                "what it names must be defined in the module, and not inside a function"
            )
            raise AgentFunctionError(message) from None

    @property
    def output_schema(self) -> Schema[Any] | None:
        """What the function says it returns; None if it yields, or says nothing that is JSON."""
        if self.run_shape == "generator":
            return None
        try:
            hints = get_type_hints(inspect.unwrap(_unwrapped(self._function)), include_extras=True)
            returned = hints.get("return", Any)
            schema = None if _is_event(returned) else Schema[Any](returned)
        except (NameError, SchemaTypeError):
            return None
        # Of a function that returns nothing, the output is what it has emitted.
        return None if schema is None or "null" in schema.kinds else schema

    @property
    def needs_input(self) -> bool:
        """Whether the function has no default to work on."""
        return self._input is not None and self._input.is_needed

    def run(self, ctx: InvocationContext) -> Any:
        """Call the function."""
        takes = self._input
        is_given = takes is not None and (takes.is_needed or activation_of(ctx).has_input)
        arguments = (ctx, ctx.input) if is_given else (ctx,)
        return self._run_in_thread(arguments) if self._in_thread else self._function(*arguments)

    async def _run_in_thread(self, arguments: tuple[Any, ...]) -> Any:
        ctx: InvocationContext = arguments[0]
        return await activation_of(ctx).invocation.call_in_thread(
            self._call, *arguments, abandon_on_cancel=self._abandon_on_cancel
        )

    def _call(self, *arguments: Any) -> Any:
        """Call a plain function, in its thread."""
        result = self._function(*arguments)
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
def agent(function: AgentFunction, /, **options: Unpack[FunctionOptions]) -> FunctionAgent: ...


@overload
def agent(**options: Unpack[FunctionOptions]) -> _Decorator: ...


def agent(
    function: AgentFunction | None = None, /, **options: Unpack[FunctionOptions]
) -> FunctionAgent | _Decorator:
    """Make a function an agent: ``@agent``, ``@agent(output_key="k")``, ``agent(f, name="n")``.

    Args:
        function: takes the context; an async generator function, a coroutine function or a
            plain function. Its second positional parameter is the agent's input, structured
            strictly to the annotation; see `InvocationContext.input`. With a default, it is an
            input only if it is annotated, and the default stands if none was given:
            ``lambda ctx, i=i: ...`` takes none. Keyword-only parameters never are the input.
        name: by default the function's own.
        description: by default the first line of its docstring.
        abandon_on_cancel: do not wait for a plain function's thread when the run is cancelled.
            Its result is then dropped, but what it does goes on.
        **options: the above, and those of `Agent`.

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
    _check_parameters(function, with_input=_input_of(function) is not None)
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


def _input_of(function: object) -> _Input | None:
    """Return what a function takes beside the context; None if that is nothing."""
    if not callable(function) or isinstance(function, type):
        return None
    try:
        signature = inspect.signature(function)
        signature.bind(None, None)
    except (TypeError, ValueError):
        return None
    positional = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(positional) < 2:  # noqa: PLR2004  # the context, and an input
        return None
    second = positional[1]
    # `lambda ctx, i=i: ...` keeps a loop's variable, and takes no input.
    is_input = second.default is second.empty or second.annotation is not second.empty
    return _Input(function, second) if is_input else None


def _check_parameters(function: Callable[..., Any], *, with_input: bool) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # a built-in that does not tell: it finds out when it is called
    try:
        signature.bind(*(None, None)[: 1 + with_input])
    except TypeError as exc:
        message = (
            f"{_name_of(function)!r} cannot be an agent: it is called with the context, and with "
            f"its input if it needs a second argument, but its signature is {signature} ({exc})"
        )
        raise AgentFunctionError(message) from None


def _name_of(function: object) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def _is_event(returned: Any) -> bool:
    """Return whether an annotation allows an event or content, whose output nobody knows."""
    return returned in (Event, Content) or any(map(_is_event, get_args(returned)))


def _summary(function: object) -> str:
    doc = inspect.getdoc(function) or ""
    return doc.partition("\n")[0]
