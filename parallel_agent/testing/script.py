"""What a scripted agent does: steps, as values that print as the calls that make them.

The calls are in `parallel_agent.testing.scripted`; they say what each step does.
"""

from __future__ import annotations

import copy
import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, cast, final
from weakref import WeakKeyDictionary

import attrs
import trio

from parallel_agent.context import InvocationContext, activation_of
from parallel_agent.invocation import Invocation
from parallel_agent.questions import NO_DEFAULT
from parallel_agent.testing.printing import MANY, code_of, print_code
from session.actions import EventActions
from session.content import Content
from session.event import Event

__all__ = [
    "Adds",
    "Asks",
    "Calls",
    "CleansUp",
    "Contributes",
    "Emits",
    "Escalates",
    "Outputs",
    "Raises",
    "Reads",
    "Receives",
    "ScriptStep",
    "Signals",
    "Sleeps",
    "TransfersTo",
    "WaitsFor",
    "Within",
    "Writes",
    "as_steps",
    "play",
]


class ScriptStep(ABC):
    """One step of a scripted agent. Made by `emits`, `sleeps`, `writes` and so on."""

    made_by: ClassVar[str]
    """The name of the function that makes it."""

    @abstractmethod
    async def do(self, ctx: InvocationContext) -> None:
        """Do it."""

    __repr__ = code_of
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
                case BaseException() | type():
                    hint = f"; to raise it, write raises({step!r:.40})"
                case other if callable(other):
                    hint = "; to call it with the context, write calls(...)"
            message = f"step {position} of a script is none, but {step!r:.80}{hint}"
            raise TypeError(message)
    return checked


def _is_text(step: ScriptStep, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str):
        message = f"{attribute.name} of {step.made_by}() is text, not {value!r:.80}"
        raise TypeError(message)


def _is_text_or_none(step: ScriptStep, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None:
        _is_text(step, attribute, value)


def _are_texts(step: ScriptStep, attribute: attrs.Attribute[Any], values: Iterable[object]) -> None:
    for value in values:
        _is_text(step, attribute, value)


def _is_seconds(step: ScriptStep, attribute: attrs.Attribute[Any], value: object) -> None:
    longest = sys.float_info.max  # a whole number can be too large for a float
    if type(value) not in (int, float) or not 0 <= cast("float", value) <= longest:
        message = f"{attribute.name} of {step.made_by}() is seconds, 0 or more, not {value!r:.80}"
        raise ValueError(message)


def _is_seconds_or_none(step: ScriptStep, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None:
        _is_seconds(step, attribute, value)


def _many(**options: Any) -> Any:
    return attrs.field(metadata={MANY: True}, **options)


# Emitting.


def _are_items(_step: object, _attribute: object, items: Iterable[object]) -> None:
    for item in items:
        if not isinstance(item, str | Content):
            message = f"emits() takes texts and contents, not {item!r:.80}"
            raise TypeError(message)


@final
@attrs.frozen(repr=False)
class Emits(ScriptStep):
    """Made by `emits`."""

    made_by = "emits"
    items: tuple[str | Content, ...] = _many(validator=_are_items)
    state_delta: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    partial: bool = False

    async def do(self, ctx: InvocationContext) -> None:
        for item in self.items:
            actions = EventActions(state_delta=dict(self.state_delta)) if self.state_delta else None
            await ctx.emit(Event(item, actions=actions, partial=self.partial))


@final
@attrs.frozen(repr=False)
class Outputs(ScriptStep):
    """Made by `outputs`."""

    made_by = "outputs"
    value: Any

    async def do(self, ctx: InvocationContext) -> None:
        await ctx.emit(Event(output=self.value))


@final
@attrs.frozen(repr=False)
class Escalates(ScriptStep):
    """Made by `escalates`."""

    made_by = "escalates"
    text: str = attrs.field(default="", validator=_is_text)

    async def do(self, ctx: InvocationContext) -> None:
        await ctx.emit(Event(self.text or None, actions=EventActions(escalate=True)))


@final
@attrs.frozen(repr=False)
class TransfersTo(ScriptStep):
    """Made by `transfers_to`."""

    made_by = "transfers_to"
    name: str = attrs.field(validator=_is_text)

    async def do(self, ctx: InvocationContext) -> None:
        await ctx.emit(Event(actions=EventActions(transfer_to_agent=self.name)))


# State.


@final
@attrs.frozen(repr=False)
class Writes(ScriptStep):
    """Made by `writes`."""

    made_by = "writes"
    key: str = attrs.field(validator=_is_text)
    value: Any

    async def do(self, ctx: InvocationContext) -> None:
        ctx.state[self.key] = self.value


@final
@attrs.frozen(repr=False)
class Adds(ScriptStep):
    """Made by `adds`."""

    made_by = "adds"
    key: str = attrs.field(validator=_is_text)
    number: int | float = 1

    async def do(self, ctx: InvocationContext) -> None:
        ctx.state[self.key] = ctx.state.get(self.key, 0) + self.number


@final
@attrs.frozen(repr=False)
class Contributes(ScriptStep):
    """Made by `contributes`."""

    made_by = "contributes"
    key: str = attrs.field(validator=_is_text)
    value: Any

    async def do(self, ctx: InvocationContext) -> None:
        ctx.state.contribute(self.key, self.value)


@final
@attrs.frozen(repr=False)
class Reads(ScriptStep):
    """Made by `reads`."""

    made_by = "reads"
    keys: tuple[str, ...] = _many(validator=_are_texts)

    async def do(self, ctx: InvocationContext) -> None:
        for key in self.keys:
            ctx.state.get(key)


# Waiting.


@final
@attrs.frozen(repr=False)
class Sleeps(ScriptStep):
    """Made by `sleeps`."""

    made_by = "sleeps"
    seconds: float = attrs.field(validator=_is_seconds)

    async def do(self, ctx: InvocationContext) -> None:  # noqa: ARG002  # every step gets one
        await trio.sleep(self.seconds)


# By run, so that one tree can run twice at once; a run that is forgotten takes its signals along.
_signals: Final[WeakKeyDictionary[Invocation, dict[str, trio.Event]]] = WeakKeyDictionary()


def _signal(ctx: InvocationContext, name: str) -> trio.Event:
    given = _signals.setdefault(activation_of(ctx).invocation, {})
    return given.setdefault(name, trio.Event())


@final
@attrs.frozen(repr=False)
class Signals(ScriptStep):
    """Made by `signals`."""

    made_by = "signals"
    name: str = attrs.field(validator=_is_text)

    async def do(self, ctx: InvocationContext) -> None:
        _signal(ctx, self.name).set()


@final
@attrs.frozen(repr=False)
class WaitsFor(ScriptStep):
    """Made by `waits_for`."""

    made_by = "waits_for"
    name: str = attrs.field(validator=_is_text)

    async def do(self, ctx: InvocationContext) -> None:
        await _signal(ctx, self.name).wait()


@final
@attrs.frozen(repr=False)
class Asks(ScriptStep):
    """Made by `asks`."""

    made_by = "asks"
    prompt: str = attrs.field(validator=_is_text)
    schema: Any = attrs.field(default=None, kw_only=True)
    default: Any = attrs.field(default=NO_DEFAULT, kw_only=True)
    timeout: float | None = attrs.field(default=None, kw_only=True, validator=_is_seconds_or_none)
    key: str | None = attrs.field(default=None, kw_only=True, validator=_is_text_or_none)

    async def do(self, ctx: InvocationContext) -> None:
        answer = await ctx.request_input(
            self.prompt, schema=self.schema, timeout=self.timeout, default=self.default
        )
        if self.key is not None:
            ctx.state[self.key] = answer


@final
@attrs.frozen(repr=False)
class Receives(ScriptStep):
    """Made by `receives`."""

    made_by = "receives"
    key: str | None = attrs.field(default=None, validator=_is_text_or_none)

    async def do(self, ctx: InvocationContext) -> None:
        message = await ctx.receive()
        if self.key is not None:
            ctx.state[self.key] = message.text


# Steps around steps.


@final
@attrs.frozen(repr=False)
class Within(ScriptStep):
    """Made by `within`."""

    made_by = "within"
    seconds: float = attrs.field(validator=_is_seconds)
    steps: tuple[ScriptStep, ...] = _many(converter=as_steps)

    async def do(self, ctx: InvocationContext) -> None:
        with trio.move_on_after(self.seconds):
            await play(self.steps, ctx)


@final
@attrs.frozen(repr=False)
class CleansUp(ScriptStep):
    """Made by `cleans_up`."""

    made_by = "cleans_up"
    steps: tuple[ScriptStep, ...] = _many(converter=as_steps)
    shielded: bool = False

    async def do(self, ctx: InvocationContext) -> None:
        with trio.CancelScope(shield=self.shielded):
            await play(self.steps, ctx)


# The rest.


def _is_error(_step: object, _attribute: object, value: object) -> None:
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
    try:
        if isinstance(error, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", error)
            return group.derive([_fresh(one) for one in group.exceptions])
        again = copy.copy(error)
    except Exception:  # noqa: BLE001  # a class of its own that cannot be copied
        return error
    if hasattr(error, "__notes__"):
        again.__notes__ = [*error.__notes__]
    return again


def _is_function(_step: object, _attribute: object, value: object) -> None:
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
