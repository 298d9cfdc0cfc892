"""What a script is: steps, as values that print as the calls that make them, and doing them.

Here are the steps around steps, and those that raise and call; the others are in
`parallel_agent.testing.acts`. The calls are in `parallel_agent.testing.scripted`, and say what each
step does.
"""

# ruff: noqa: D102  # what `do` does is what the call says
from __future__ import annotations

import copy
import inspect
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, cast, final

import attrs
import trio

from parallel_agent.context import InvocationContext
from parallel_agent.testing.printing import MANY, code_of, print_code
from session.content import Content

__all__ = [
    "Calls",
    "CleansUp",
    "Raises",
    "ScriptStep",
    "Within",
    "are_texts",
    "as_steps",
    "is_seconds",
    "is_text",
    "many",
    "play",
]


class ScriptStep(ABC):
    """One step of a scripted agent. Made by `emits`, `sleeps`, `writes` and so on."""

    made_by: ClassVar[str]
    """The name of the function that makes it."""

    @abstractmethod
    async def do(self, ctx: InvocationContext) -> None:
        """Do it."""

    def __repr__(self) -> str:
        return code_of(self)

    _repr_pretty_ = print_code


async def play(steps: Sequence[ScriptStep], ctx: InvocationContext) -> None:
    """Do ``steps``, in order."""
    for position, step in enumerate(steps):
        if isinstance(step, CleansUp):
            try:
                await play(steps[position + 1 :], ctx)
            finally:
                await step.do(ctx)
            return
        await step.do(ctx)


# Checks: what is wrong with a script is said where it is written.


def as_steps(steps: Iterable[ScriptStep]) -> tuple[ScriptStep, ...]:
    """Return ``steps``, checked.

    Raises:
        TypeError: one is none; the message says what to write.
    """
    checked = tuple(steps)
    for position, step in enumerate(checked):
        if not isinstance(step, ScriptStep):  # pyright: ignore[reportUnnecessaryIsInstance]
            hint = ""
            match cast("object", step):
                case str() | Content():
                    hint = f"; to emit it, write emits({step!r:.40})"
                case int() | float():
                    hint = f"; to sleep, write sleeps({step!r})"
                case list() | tuple():
                    hint = "; steps are arguments of their own: scripted(name, *steps)"
                case BaseException() | type():
                    hint = f"; to raise it, write raises({step!r:.40})"
                case other:
                    if callable(other):
                        hint = "; to call it with the context, write calls(...)"
            message = f"step {position} of a script is none, but {step!r:.80}{hint}"
            raise TypeError(message)
    return checked


def is_text(step: ScriptStep, attribute: attrs.Attribute[Any], value: object) -> None:
    """Refuse what is no text: a validator of attrs."""
    if not isinstance(value, str):
        message = f"{attribute.name} of {step.made_by}() is text, not {value!r:.80}"
        raise TypeError(message)


def are_texts(step: ScriptStep, attribute: attrs.Attribute[Any], values: Iterable[object]) -> None:
    """Refuse what is no text among several."""
    for value in values:
        is_text(step, attribute, value)


def is_seconds(step: ScriptStep, attribute: attrs.Attribute[Any], value: object) -> None:
    """Refuse what is no time to wait; infinity is one."""
    longest = sys.float_info.max  # a whole number can be too large for a float
    seconds: Any = value if type(value) in (int, float) else -1
    if not (0 <= seconds <= longest or seconds == math.inf):
        message = f"{attribute.name} of {step.made_by}() is seconds, 0 or more, not {value!r:.80}"
        raise ValueError(message)


def many(**options: Any) -> Any:
    """Return a field whose items are positional arguments of the call, each its own."""
    return attrs.field(metadata={MANY: True}, **options)


# Steps around steps.


@final
@attrs.frozen(repr=False)
class Within(ScriptStep):
    """Made by `within`."""

    made_by = "within"
    seconds: float = attrs.field(validator=is_seconds)
    steps: tuple[ScriptStep, ...] = many(converter=as_steps)

    async def do(self, ctx: InvocationContext) -> None:
        with trio.move_on_after(self.seconds):
            await play(self.steps, ctx)


@final
@attrs.frozen(repr=False)
class CleansUp(ScriptStep):
    """Made by `cleans_up`."""

    made_by = "cleans_up"
    steps: tuple[ScriptStep, ...] = many(converter=as_steps)
    shielded: bool = False

    async def do(self, ctx: InvocationContext) -> None:
        with trio.CancelScope(shield=self.shielded):
            await play(self.steps, ctx)


# The rest.


def _is_error(_step: object, _attribute: object, value: Any) -> None:
    kind = value if isinstance(value, type) else type(value)
    if not issubclass(kind, BaseException):
        message = f"raises() takes an exception, not {value!r:.80}"
        raise TypeError(message)


@final
@attrs.frozen(repr=False)
class Raises(ScriptStep):
    """Made by `raises`."""

    made_by = "raises"
    # Two exceptions are never equal; two that print alike are meant alike.
    error: BaseException | type[BaseException] = attrs.field(validator=_is_error, eq=repr)

    async def do(self, ctx: InvocationContext) -> None:  # noqa: ARG002  # every step gets one
        raise self.error if isinstance(self.error, type) else _fresh(self.error)


def _fresh(error: BaseException) -> BaseException:
    """Return a copy: an exception collects notes and a traceback wherever it passes."""
    again: BaseException
    try:
        match error:
            case BaseExceptionGroup(exceptions=members):
                inside = [_fresh(one) for one in cast("tuple[BaseException, ...]", members)]
                again = cast("Any", error).derive(inside)
            case _:
                again = copy.copy(error)
    except Exception:  # noqa: BLE001  # a class of its own that cannot be copied
        return error
    if hasattr(error, "__notes__"):
        again.__notes__ = [*error.__notes__]
    return again


def _is_function(_step: object, _attribute: object, value: Any) -> None:
    if not callable(value):
        message = f"calls() takes a function of the context, not {value!r:.80}"
        raise TypeError(message)


@final
@attrs.frozen(repr=False)
class Calls(ScriptStep):
    """Made by `calls`."""

    made_by = "calls"
    function: Callable[[InvocationContext], object] = attrs.field(validator=_is_function)

    async def do(self, ctx: InvocationContext) -> None:
        result = self.function(ctx)
        if inspect.isawaitable(result):
            await result
