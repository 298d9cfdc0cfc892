"""The wrapper that runs one activation of an agent.

`activate` is the root of every activation's task. It never raises: whatever happens becomes the
activation's one terminal status, and its parent decides what that means. So cancellation and
failure travel from child to parent as values, no exception group is ever made here, and an
``await`` chain is never longer than one agent.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, cast

import trio
from trio.lowlevel import checkpoint_if_cancelled, disable_ki_protection, enable_ki_protection

from parallel_agent.activation import Activation
from parallel_agent.agent import Agent, AgentCallback, check_agent
from parallel_agent.barrier import Outcome
from parallel_agent.branch import Place
from parallel_agent.context import InvocationContext
from parallel_agent.errors import (
    BranchCancelledError,
    EscapedCancellationError,
    PluginError,
    RunEndedError,
    StreamClosedError,
    UncancellableAgentError,
    members,
    note_origin,
    note_plugin,
)
from parallel_agent.lifecycle import Status, Step, advance
from session.content import Content
from session.event import Event

__all__ = ["activate", "raise_unless_left_open", "run_child"]

MAX_REFUSALS: Final = 3
"""How often in a row an agent may yield again after its cancellation was raised at a ``yield``."""

MAX_EXITS: Final = 100
"""How often an agent that is closed may yield again: once for each of its ``finally`` blocks."""


@enable_ki_protection  # an interrupt inside `start_soon` would leave a task that never runs
async def run_child(
    parent: Activation, agent: Agent, *, number: int | None = None, count: bool = False
) -> Activation:
    """Run ``agent`` below ``parent``, on the same branch, and return its completed activation.

    ``number`` tells it from others of the same name below the same parent; with ``count``, it is
    how many there have been.

    Raises:
        BaseException: what it failed with, as itself; or the cancellation that ended it.
    """
    check_agent(agent, "what run_agent() was given")
    if count:
        number = parent.next_number(agent.name)
    await parent.flush()
    place = Place(
        agent.name,
        invocation_id=parent.invocation.id,
        line=parent.lane.branch,
        parent=parent.place,
        number=number,
    )
    child = Activation(agent, place, invocation=parent.invocation, lane=parent.lane, parent=parent)
    parent.adopt(child)
    # A task of its own: the child's await chain starts afresh, so depth costs nothing per event,
    # and it gets a copy of the context variables.
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(activate, child)
    except BaseExceptionGroup as group:
        raise_unless_left_open(group, [child])
    parent.release(child)
    error = await outcome_error(child)
    if error is not None:
        parent.source = child
        raise error
    return child


def raise_unless_left_open(
    group: BaseExceptionGroup[BaseException], ended: Iterable[Activation]
) -> None:
    """Raise what a nursery around `activate` raised, unless an activation has said it better.

    `activate` never raises. But trio makes a task fail that left a nursery open, which is what a
    helper generator does to an agent; `activate` has found that out before.
    """
    _, other = group.split((RuntimeError, trio.Cancelled))
    if other is not None or all(activation.error is None for activation in ended):
        raise group


async def outcome_error(child: Activation) -> BaseException | None:
    """Return what the parent of an ended activation is to raise, if anything.

    Raises:
        trio.Cancelled: the child was cancelled because its parent is.
    """
    if child.error is not None:
        return child.error
    if child.status is not Status.CANCELLED:
        return None
    await checkpoint_if_cancelled()
    if child.invocation.stream.closed:
        return StreamClosedError("the run's stream was closed while a child ran")
    return BranchCancelledError(f"agent {child.agent.name!r} was cancelled")


@enable_ki_protection
async def activate(activation: Activation) -> None:
    """Run one activation, pending until now, to its one terminal status. Never raises."""
    clock = trio.current_time
    began = clock()
    error: BaseException | None = None
    corrupted = False
    parent = activation.parent
    if parent is not None and parent.barren:
        activation.scope.cancel("a sibling branch has failed")
    try:
        with activation.scope:
            try:
                await checkpoint_if_cancelled()
                activation.start()
                await _perform(activation)
                await activation.flush()
                # A cancelled activation cannot win a race by returning normally.
                await checkpoint_if_cancelled()
            except BaseException as exc:  # noqa: BLE001  # sorted out below; nothing is swallowed
                error = exc
                if activation.invocation.plugins.on_agent_error:
                    error = await _ask_plugins(activation, exc)
    except RuntimeError:
        # Everything the agent raises is caught inside: this is the scope itself, which found
        # another one still open inside it.
        corrupted = True
    activation.duration = clock() - began
    step, failure = await _judge(activation, error, corrupted=corrupted)
    if failure is not None:
        source = activation.source
        if source is not None and source.error is failure:
            activation.own = source.own
        else:
            activation.own = await _failed_of_itself(activation, failure)
            note_origin(failure, activation.place.path)
        activation.error = failure
    if activation.invocation.plugins.on_agent_end and activation.status is Status.RUNNING:
        step = _tell_plugins(activation, step)
    activation.end(step)


async def _perform(activation: Activation) -> None:
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
        activation.store_output()
        return
    if agent.run_shape == "generator":
        await _drive(activation, agent.run(ctx))  # type: ignore[arg-type]  # told apart by _kind
    else:
        await _run_coroutine(activation, ctx)
    extra: Content | Event | str | None = None
    if plugins.after_agent:
        extra = await plugins.first(plugins.after_agent, ctx)
    if agent.after_agent_callback and extra is None:
        extra = await _call_back(agent.after_agent_callback, ctx)
    if extra is not None:
        await activation.emit(extra)
    activation.store_output()


async def _ask_plugins(activation: Activation, error: BaseException) -> BaseException | None:
    """Let the plugins turn a failure into an event. Return what is left of it: None, if they do."""
    failure = _split_cancellation(activation, error)
    if not isinstance(failure, Exception) or isinstance(failure, RunEndedError):
        return error
    if activation.scope.cancel_called or await _cancelled_here():
        return error
    plugins = activation.invocation.plugins
    try:
        instead = await plugins.first(
            plugins.on_agent_error, InvocationContext(activation), failure
        )
        if instead is None:
            return error
        await activation.emit(instead)
        activation.store_output()
        await activation.flush()
        await checkpoint_if_cancelled()
    except BaseException as exc:  # noqa: BLE001  # judged as if the agent had raised it
        return exc
    return None


def _tell_plugins(activation: Activation, step: Step) -> Step:
    """Tell the plugins how an activation is about to end; return how it ends."""
    status = advance(activation.status, step)
    outcome = Outcome(
        name=activation.agent.name,
        path=activation.place.path,
        status=status,
        error=activation.error,
        own=activation.own,
        output=activation.output if status is Status.COMPLETED else None,
        duration=activation.duration,
    )
    trouble = activation.invocation.plugins.ended(InvocationContext(activation), outcome)
    if trouble is None:
        return step
    if activation.error is not None and isinstance(trouble, PluginError):
        note_plugin(activation.error, trouble)
        return step
    activation.error = trouble
    activation.own = step is Step.COMPLETE
    activation.source = None
    note_origin(trouble, activation.place.path)
    return Step.FAIL


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
    if result is not None:
        await activation.emit(as_result(result, replaces=activation.has_output))


def as_result(value: Any, *, replaces: bool) -> Event | Content | str:
    """Return the event for what an agent returned: an event, a content, text, or its output.

    Text is the output as it stands, unless it is empty or ``replaces`` an output given earlier.
    """
    if isinstance(value, Event):
        return value
    if isinstance(value, Content):
        return Event(value, output=value.text) if replaces else value
    if isinstance(value, str):
        return Event(value, output=value) if replaces or not value else value
    return Event(output=value)


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
            if ended or await _cancelled_here():
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


async def _cancelled_here() -> bool:
    # `trio.current_effective_deadline` would say so, too, but takes a stack frame per scope.
    try:
        await checkpoint_if_cancelled()
    except trio.Cancelled:
        return True
    return False


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
            error = _split_cancellation(activation, cast("BaseException", group))
            if isinstance(error, (GeneratorExit, trio.Cancelled, RunEndedError)):
                return
            raise error from None
    # "ignored GeneratorExit": it does not give up even now, and has been told of already.
    with suppress(RuntimeError):
        await agen.aclose()


async def _judge(
    activation: Activation, error: BaseException | None, *, corrupted: bool
) -> tuple[Step, BaseException | None]:
    """Say how the activation ended, and with which failure."""
    if error is not None:
        error = _split_cancellation(activation, error)
    if error is None:
        return (Step.FAIL, _escaped(activation, error)) if corrupted else (Step.COMPLETE, None)
    if isinstance(error, BranchCancelledError):
        return Step.CANCEL, None
    if isinstance(error, StreamClosedError) and activation.invocation.stream.closed:
        return Step.CANCEL, None
    if isinstance(error, StopAsyncIteration):
        # Raised on, it would end the reader's loop as if all were well; Python does the same for
        # generators.
        stopped = RuntimeError(f"agent {activation.agent.name!r} raised StopAsyncIteration")
        stopped.__cause__ = error
        return Step.FAIL, stopped
    if not isinstance(error, trio.Cancelled | GeneratorExit):
        return Step.FAIL, error
    if activation.scope.cancel_called:
        return Step.CANCEL, None
    if await _cancelled_here():
        return Step.CANCEL, None
    # Cancelled, but nothing around this activation is: a scope inside it was, and did not catch it.
    return Step.FAIL, _escaped(activation, error)


async def _failed_of_itself(activation: Activation, failure: BaseException) -> bool:
    """Whether no cancellation, by a barrier or from further out, came before the failure."""
    if activation.reached:
        return False
    if not activation.scope.cancel_called and not await _cancelled_here():
        return True
    todo: list[BaseException | None] = [failure]
    seen: set[int] = set()
    while todo:
        error = todo.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        if isinstance(error, trio.Cancelled | BranchCancelledError):
            return False
        todo.append(error.__context__)
        todo.extend(members(error))
    return True


def _split_cancellation(activation: Activation, error: BaseException) -> BaseException:
    """Take cancellations, and an interrupt, out of a group that the agent's own nursery raised."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    fatal = _first_fatal(cast("BaseException", error))
    if fatal is not None:
        return fatal
    # GeneratorExit: a helper was closed while it held a nursery open.
    kinds: tuple[type[BaseException], ...] = (trio.Cancelled, BranchCancelledError, GeneratorExit)
    if activation.invocation.stream.closed:
        kinds = (*kinds, StreamClosedError)
    cancelled, rest = cast("BaseExceptionGroup[BaseException]", error).split(kinds)
    if cancelled is None:
        return cast("BaseException", error)
    return rest if rest is not None else _first_leaf(cancelled)


def _first_fatal(error: BaseException) -> BaseException | None:
    todo = [error]
    while todo:
        found = todo.pop(0)
        inside = members(found)
        if inside:
            todo[:0] = inside
        elif not isinstance(found, Exception | trio.Cancelled | GeneratorExit):
            return found
    return None


def _first_leaf(error: BaseException) -> BaseException:
    inside = members(error)
    while inside:
        error = inside[0]
        inside = members(error)
    return error


def _escaped(activation: Activation, cause: BaseException | None) -> BaseException:
    name = activation.agent.name
    message = (
        f"a cancellation escaped from agent {name!r} ({activation.place.path}), which was not "
        "cancelled itself: a helper async generator holds a cancel scope or nursery open over a "
        "`yield`. Pass the context to the helper and let it `await ctx.emit(...)` inside its scope "
        "instead of yielding, or open the scope in the agent"
    )
    error = EscapedCancellationError(message)
    error.__cause__ = cause
    return error
