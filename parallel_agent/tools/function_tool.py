"""`@tool`: a typed function with a docstring as a tool.

What it takes is told to the model by the annotations of its parameters, and what they mean by its
docstring: its first paragraph, and the lines below ``Args:``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import (
    Any,
    Final,
    NotRequired,
    Protocol,
    TypedDict,
    Unpack,
    final,
    get_type_hints,
    overload,
)

from parallel_agent.agent import Agent
from parallel_agent.context import InvocationContext, activation_of
from parallel_agent.inputs import to_json
from parallel_agent.model_errors import ToolArgumentsError, ToolDefinitionError
from parallel_agent.schema import Schema, SchemaError, SchemaTypeError
from parallel_agent.tools.context import ToolContext
from parallel_agent.tools.tool import Approval, Tool

__all__ = ["FunctionTool", "as_tool", "tool"]

_CONTEXT_NAMES: Final = ("ctx", "tool_context")
"""Parameters of these names are the context, annotated or not."""


class ToolOptions(TypedDict, total=False):
    """The keyword arguments of `tool`."""

    name: str | None
    description: str | None
    needs_approval: Approval
    is_long_running: bool


@final
class FunctionTool(Tool):
    """A function as a tool. Made by `tool`, and of plain functions among an agent's tools."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        needs_approval: Approval = False,
        is_long_running: bool = False,
    ) -> None:
        """See `tool`."""
        if not callable(function) or isinstance(function, type):
            message = f"a tool is a function or a Tool, not {function!r:.80}"
            raise ToolDefinitionError(message)
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            message = f"{function!r:.80} yields; a tool returns its result, and emits by ctx.emit()"
            raise ToolDefinitionError(message)
        name = str(getattr(function, "__name__", "")) if name is None else name
        if name in ("", "<lambda>"):
            message = f"{function!r:.80} has no name that a model could use: tool(f, name='...')"
            raise ToolDefinitionError(message)
        code = _code(function)
        summary, about = _documented(code)
        super().__init__(
            name,
            summary if description is None else description,
            needs_approval=needs_approval,
            is_long_running=is_long_running,
        )
        self._function = function
        self._is_async = inspect.iscoroutinefunction(code)
        hints = _hints(code, name)
        self._context, self._schema = _signature(function, hints, name)
        about |= _annotated(hints, name)
        self._parameters = _described(self._schema.json_schema(), about, _defaults(function))

    @property
    def function(self) -> Callable[..., Any]:
        """The function it calls."""
        return self._function

    @property
    def parameters(self) -> Mapping[str, Any]:
        """See `Tool.parameters`."""
        return self._parameters

    async def call(self, ctx: ToolContext, arguments: Mapping[str, Any]) -> Any:
        """Call the function: a coroutine function as it is, a plain one in a thread of its own."""
        try:
            given = dict(self._schema.structure(dict(arguments)))
        except SchemaError as exc:
            message = f"the arguments do not fit: {exc}"
            raise ToolArgumentsError(message) from None
        if self._context is not None:
            given[self._context] = ctx
        if self._is_async:
            return await self._function(**given)
        return await activation_of(ctx).invocation.call_in_thread(partial(self._function, **given))


class _Decorator(Protocol):
    def __call__(self, function: Callable[..., Any], /) -> FunctionTool: ...


@overload
def tool(function: Callable[..., Any], /, **options: Unpack[ToolOptions]) -> FunctionTool: ...


@overload
def tool(**options: Unpack[ToolOptions]) -> _Decorator: ...


def tool(
    function: Callable[..., Any] | None = None, /, **options: Unpack[ToolOptions]
) -> FunctionTool | _Decorator:
    """Make a function a tool: ``@tool``, ``@tool(needs_approval=True)``, ``tool(f, name="n")``.

    Args:
        function: with annotated parameters. One that is annotated as `ToolContext` or
            `InvocationContext`, or is called ``ctx``, is given the call's context. A coroutine
            function runs in the agent's nursery, a plain one in a thread.
        name: by default the function's own.
        description: by default the first paragraph of its docstring.
        needs_approval: True if a person must approve of each call; or a function of the
            arguments that says of which.
        is_long_running: see `Tool`.
        **options: the above.

    Raises:
        ToolDefinitionError: it is no function, or its parameters cannot be told to a model.
    """
    if function is None:
        return lambda decorated: FunctionTool(decorated, **options)
    return FunctionTool(function, **options)


def as_tool(given: object) -> Tool:
    """Return a tool as it is, and a function as a tool.

    Raises:
        ToolDefinitionError: it is neither.
    """
    if isinstance(given, Tool):
        return given
    if isinstance(given, Agent):
        message = f"{given!r} is an agent; as a tool, it is AgentTool(agent)"
        raise ToolDefinitionError(message)
    if not callable(given):
        message = f"a tool is a function or a Tool, not {given!r:.80}"
        raise ToolDefinitionError(message)
    return FunctionTool(given)


def _code(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return where annotations and docstring stand: in a partial's function, an object's call."""
    while isinstance(function, partial):
        function = function.func
    is_object = not inspect.isroutine(function)
    return function.__call__ if is_object else function  # type: ignore[operator]  # it was called


def _hints(code: Callable[..., Any], name: str) -> dict[str, Any]:
    """Return the annotations of the parameters."""
    try:
        return get_type_hints(inspect.unwrap(code), include_extras=True)
    except (NameError, TypeError, ValueError) as exc:
        message = f"the parameters of tool {name!r} cannot be found out: {exc}"
        raise ToolDefinitionError(message) from None


def _signature(
    function: Callable[..., Any], hints: Mapping[str, Any], name: str
) -> tuple[str | None, Schema[Any]]:
    """Return which parameter is the context, if one is, and the schema of the others."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as exc:
        message = f"the parameters of tool {name!r} cannot be found out: {exc}"
        raise ToolDefinitionError(message) from None
    context: str | None = None
    fields: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            message = f"tool {name!r} takes *{parameter.name}: a model needs names and types"
            raise ToolDefinitionError(message)
        if parameter.kind is parameter.POSITIONAL_ONLY:
            message = f"parameter {parameter.name!r} of tool {name!r} has no name to give it by"
            raise ToolDefinitionError(message)
        kind = hints.get(parameter.name, Any)
        if kind in (InvocationContext, ToolContext) or parameter.name in _CONTEXT_NAMES:
            context = parameter.name
            continue
        is_needed = parameter.default is parameter.empty
        fields[parameter.name] = kind if is_needed else NotRequired[kind]
    try:
        return context, Schema(TypedDict("Arguments", fields))  # type: ignore[operator]  # made at run time
    except SchemaTypeError as exc:
        message = f"the parameters of tool {name!r} cannot be told to a model: {exc}"
        raise ToolDefinitionError(message) from None


_ARGS: Final = re.compile(r"^(args|arguments|parameters)\s*:\s*$", re.IGNORECASE)
_SECTION: Final = re.compile(r"^[A-Z][A-Za-z ]*:\s*$")
_ITEM: Final = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")


def _documented(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Return the first paragraph of a docstring, and what it says of each parameter."""
    lines = (inspect.getdoc(function) or "").splitlines()
    summary: list[str] = []
    for line in lines:
        if not line.strip() or _ARGS.match(line):
            break
        summary.append(line.strip())
    return " ".join(summary), dict(_about(lines))


def _about(lines: list[str]) -> Iterator[tuple[str, str]]:
    inside, indent, name, said = False, 0, "", list[str]()
    for line in lines:
        if _ARGS.match(line):
            inside = True
        elif inside and (_SECTION.match(line) or (line.strip() and not line[0].isspace())):
            break
        elif inside and line.strip():
            depth = len(line) - len(line.lstrip())
            indent = indent or depth
            found = _ITEM.match(line.strip()) if depth <= indent else None
            if found is None:
                said.append(line.strip())
                continue
            if name:
                yield name, " ".join(said)
            name, said = found[1], [found[2]]
    if name:
        yield name, " ".join(said)


def _annotated(hints: Mapping[str, Any], name: str) -> dict[str, str]:
    """Return what annotations say of the parameters: ``Annotated[int, "how many"]``.

    Raises:
        ToolDefinitionError: they say what is not checked.
    """
    found: dict[str, str] = {}
    for parameter, hint in hints.items():
        for said in getattr(hint, "__metadata__", ()):
            limits = getattr(said, "metadata", None) or (
                type(said).__module__.startswith("annotated_types") and said
            )
            if limits:
                message = (
                    f"parameter {parameter!r} of tool {name!r}: {limits} would not be checked; "
                    "take a pydantic model that has such a field, or check it in the function"
                )
                raise ToolDefinitionError(message)
            text = said if isinstance(said, str) else getattr(said, "description", None)
            if isinstance(text, str):
                found[parameter] = text
    return found


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the defaults of the parameters that have some in JSON."""
    found: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is not parameter.empty:
            with suppress(ValueError, TypeError):
                found[parameter.name] = to_json(parameter.default)
    return found


def _described(
    schema: dict[str, Any], about: Mapping[str, str], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a schema with what is said of its fields, and what they are if nothing is given."""
    fields = {
        name: {
            **field,
            **({"description": about[name]} if about.get(name) else {}),
            **({"default": defaults[name]} if name in defaults else {}),
        }
        for name, field in schema.get("properties", {}).items()
    }
    rest = {key: value for key, value in schema.items() if key not in ("title", "properties")}
    return {**rest, "properties": fields}
