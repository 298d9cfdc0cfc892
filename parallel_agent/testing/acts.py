"""The steps of a script that do one thing: emit something, touch the state, wait.

The calls that make them are in `parallel_agent.testing.scripted`, and say what each does.
"""

# ruff: noqa: D102  # what `do` does is what the call says
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, final
from weakref import WeakKeyDictionary

import attrs
import trio
from attrs.validators import optional

from parallel_agent.context import InvocationContext, activation_of
from parallel_agent.invocation import Invocation
from parallel_agent.questions import NO_DEFAULT
from parallel_agent.testing.script import ScriptStep, are_texts, is_seconds, is_text, many
from session.actions import EventActions
from session.content import Content
from session.event import Event

__all__ = [
    "Adds",
    "Asks",
    "Contributes",
    "Emits",
    "Escalates",
    "Outputs",
    "Reads",
    "Receives",
    "Signals",
    "Sleeps",
    "TransfersTo",
    "WaitsFor",
    "Writes",
]

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
    items: tuple[str | Content, ...] = many(validator=_are_items)
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
    text: str = attrs.field(default="", validator=is_text)

    async def do(self, ctx: InvocationContext) -> None:
        await ctx.emit(Event(self.text or None, actions=EventActions(escalate=True)))


@final
@attrs.frozen(repr=False)
class TransfersTo(ScriptStep):
    """Made by `transfers_to`."""

    made_by = "transfers_to"
    name: str = attrs.field(validator=is_text)

    async def do(self, ctx: InvocationContext) -> None:
        await ctx.emit(Event(actions=EventActions(transfer_to_agent=self.name)))


# State.


@final
@attrs.frozen(repr=False)
class Writes(ScriptStep):
    """Made by `writes`."""

    made_by = "writes"
    key: str = attrs.field(validator=is_text)
    value: Any

    async def do(self, ctx: InvocationContext) -> None:
        ctx.state[self.key] = self.value


@final
@attrs.frozen(repr=False)
class Adds(ScriptStep):
    """Made by `adds`."""

    made_by = "adds"
    key: str = attrs.field(validator=is_text)
    number: int | float = 1

    async def do(self, ctx: InvocationContext) -> None:
        ctx.state[self.key] = ctx.state.get(self.key, 0) + self.number


@final
@attrs.frozen(repr=False)
class Contributes(ScriptStep):
    """Made by `contributes`."""

    made_by = "contributes"
    key: str = attrs.field(validator=is_text)
    value: Any

    async def do(self, ctx: InvocationContext) -> None:
        ctx.state.contribute(self.key, self.value)


@final
@attrs.frozen(repr=False)
class Reads(ScriptStep):
    """Made by `reads`."""

    made_by = "reads"
    keys: tuple[str, ...] = many(validator=are_texts)

    async def do(self, ctx: InvocationContext) -> None:
        for key in self.keys:
            ctx.state.get(key)


# Waiting.


@final
@attrs.frozen(repr=False)
class Sleeps(ScriptStep):
    """Made by `sleeps`."""

    made_by = "sleeps"
    seconds: float = attrs.field(validator=is_seconds)

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
    name: str = attrs.field(validator=is_text)

    async def do(self, ctx: InvocationContext) -> None:
        _signal(ctx, self.name).set()


@final
@attrs.frozen(repr=False)
class WaitsFor(ScriptStep):
    """Made by `waits_for`."""

    made_by = "waits_for"
    name: str = attrs.field(validator=is_text)

    async def do(self, ctx: InvocationContext) -> None:
        await _signal(ctx, self.name).wait()


@final
@attrs.frozen(repr=False)
class Asks(ScriptStep):
    """Made by `asks`."""

    made_by = "asks"
    prompt: str = attrs.field(validator=is_text)
    schema: Any = attrs.field(default=None, kw_only=True)
    default: Any = attrs.field(default=NO_DEFAULT, kw_only=True)
    timeout: float | None = attrs.field(default=None, kw_only=True, validator=optional(is_seconds))
    key: str | None = attrs.field(default=None, kw_only=True, validator=optional(is_text))

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
    key: str | None = attrs.field(default=None, validator=optional(is_text))

    async def do(self, ctx: InvocationContext) -> None:
        message = await ctx.receive()
        if self.key is not None:
            ctx.state[self.key] = message.text
