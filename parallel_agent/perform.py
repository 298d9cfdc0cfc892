"""Running an agent's own code: its callbacks, its coroutine, its generator.

`perform` raises what the agent raises. What ``emit`` raises is raised at the agent's ``yield``.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any, Final, cast

import trio
from trio.lowlevel import disable_ki_protection, enable_ki_protection

from parallel_agent.activation import Activation
from parallel_agent.agent import AgentCallback
from parallel_agent.context import InvocationContext
from parallel_agent.errors import RunEndedError, UncancellableAgentError
from parallel_agent.inputs import to_json
from parallel_agent.judge import cancelled_here, split_cancellation
from session.content import Content
from session.event import Event
from session.state import UnstorableError

__all__ = ["as_result", "perform"]

MAX_REFUSALS: Final = 3
"""How often in a row an agent may yield again after its cancellation was raised at a ``yield``."""

MAX_EXITS: Final = 100
"""How often an agent that is closed may yield again: once for each of its ``finally`` blocks."""


async def perform(activation: Activation) -> None:
    """Run the agent once, with the plugins and callbacks around it, and store its output."""
    agent = activation.agent
    ctx = InvocationContext(activation)
    plugins = activation.invocation.plugins
    instead: Content | Event | str | None = None
    if plugins.before_run and activation.parent is None:
        instead = await plugins.first(plugins.before_run, ctx)
    if plugins.before_agent and instead is None:
        instead = await plugins.first(plugins.before_agent, ctx)
    if agent.before_agent_callback and instead is None:
        instead = await _call_back(agent.before_agent_callback, ctx)
    if instead is not None:
        await activation.emit(instead)
        await _hand_over(activation)
        activation.store_output()
        return
    if agent.run_shape == "generator":
        await _drive(activation, agent.run(ctx))  # type: ignore[arg-type]  # told apart by _kind
        _note_return(activation)
    else:
        await _run_coroutine(activation, ctx)
    await _hand_over(activation)
    extra: Content | Event | str | None = None
    if plugins.after_agent:
        extra = await plugins.first(plugins.after_agent, ctx)
    if agent.after_agent_callback and extra is None:
        extra = await _call_back(agent.after_agent_callback, ctx)
    if extra is not None:
        await activation.emit(extra)
        await _hand_over(activation)
    activation.store_output()


async def _hand_over(activation: Activation) -> None:
    """Run the agent that is to go on in place of this one, if an event of this one says so."""
    successor = activation.take_transfer()
    if successor is not None:
        child: Activation = await activation.invocation.engine.run_child(
            activation, successor, count=True, in_place=True
        )
        activation.output = child.output


@disable_ki_protection
async def _call_back(
    callbacks: Sequence[AgentCallback], ctx: InvocationContext
) -> Content | Event | str | None:
    for callback in callbacks:
        result = callback(ctx)
        if inspect.isawaitable(result):
            result = await result
        if result is not None:
            return result
    return None


@disable_ki_protection
async def _run_coroutine(activation: Activation, ctx: InvocationContext) -> None:
    result = await activation.agent.run(ctx)  # type: ignore[misc]  # told apart by _kind
    _note_return(activation)
    if result is not None:
        await activation.emit(as_result(result, replaces=activation.has_output))


def _note_return(activation: Activation) -> None:
    if activation.invocation.steering is not None:
        activation.invocation.steering.note(activation, "returned")


def as_result(value: Any, *, replaces: bool) -> Event | Content | str:
    """Return the event for what an agent returned: an event, a content, text, or its output.

    Text is the output as it stands, unless it is empty or ``replaces`` an output given earlier.
    Objects with fields become JSON objects.

    Raises:
        UnstorableError: something in it has no JSON form.
    """
    if isinstance(value, Event):
        return value
    if isinstance(value, Content):
        return Event(value, output=value.text) if replaces else value
    if isinstance(value, str):
        return Event(value, output=value) if replaces or not value else value
    if isinstance(value, AbstractSet):
        return Event(output=value)  # refused: it would be recorded in the order of the day
    try:
        return Event(output=to_json(value))
    except UnstorableError as error:
        raise error.under("output") from None


@enable_ki_protection
async def _drive(activation: Activation, agen: AsyncGenerator[Any, None]) -> None:
    """Emit what ``agen`` yields; what ``emit`` raises is raised at the ``yield``."""
    try:
        await _step_through(activation, agen)
    finally:
        if inspect.isasyncgen(agen) and agen.ag_frame is not None:
            # Only an interrupt between two steps, or an agent that does not give up, gets here.
            await _close(activation, agen)


@disable_ki_protection
async def _step_through(activation: Activation, agen: AsyncGenerator[Any, None]) -> None:
    emit = activation.emit
    advance = agen.__anext__
    refusals = 0
    try:
        item = await advance()
        while True:
            error: BaseException | None = None
            try:
                await emit(item)
            except BaseException as exc:  # noqa: BLE001  # raised again, at the agent's yield
                error = exc
            if error is None:
                refusals = 0
                item = await advance()
                continue
            ended = isinstance(error, RunEndedError)
            if ended or isinstance(error, trio.Cancelled):
                activation.reached = activation.reached or activation.scope.cancel_called
            item = await agen.athrow(error)
            # It yields again. Not a refusal if its own scope has expired and caught what was its
            # own, or if it cleans up under a shield: then no cancellation is in force here.
            if ended or await cancelled_here():
                refusals += 1
                if refusals == MAX_REFUSALS:
                    break
            else:
                refusals = 0
    except StopAsyncIteration:
        return
    message = (
        f"agent {activation.agent.name!r} ({activation.place.path}) was cancelled, and "
        f"yielded again {MAX_REFUSALS} times; let trio.Cancelled pass: catch `Exception`, "
        "not `BaseException`"
    )
    raise UncancellableAgentError(message)


async def _close(activation: Activation, agen: AsyncGenerator[Any, Any]) -> None:
    # Not a scope around this: the agent is about to leave scopes that it entered before.
    activation.scope.cancel("the agent is being closed")
    # Not `aclose` at once: that reaches one `finally`, and if that one yields, the generator
    # cannot be driven any further. The others would run when it is garbage collected.
    for _ in range(MAX_EXITS):
        try:
            await agen.athrow(GeneratorExit())
        except (GeneratorExit, StopAsyncIteration, trio.Cancelled):
            return
        except BaseExceptionGroup as group:
            # Perhaps nothing but GeneratorExit, which went through a nursery of the agent's.
            error = split_cancellation(activation, cast("BaseException", group))
            if isinstance(error, (GeneratorExit, trio.Cancelled, RunEndedError)):
                return
            raise error from None
    # "ignored GeneratorExit": it does not give up even now, and has been told of already.
    with suppress(RuntimeError):
        await agen.aclose()
