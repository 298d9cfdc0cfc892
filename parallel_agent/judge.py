"""How an activation ended: what an exception that left an agent means.

Cancellations are sorted from failures here, and nowhere else. Order, blocking: nothing here waits;
what is async asks trio whether a cancellation is in force.
"""

from __future__ import annotations

from typing import cast

import trio
from trio.lowlevel import checkpoint_if_cancelled

from parallel_agent.activation import Activation
from parallel_agent.errors import (
    BranchCancelledError,
    EscapedCancellationError,
    QuorumError,
    StreamClosedError,
)
from parallel_agent.lifecycle import Step
from parallel_agent.notes import members

__all__ = [
    "after_cancellation",
    "cancelled_here",
    "escaped",
    "failed_of_itself",
    "judge",
    "split_cancellation",
]


async def cancelled_here() -> bool:
    """Return whether a cancellation is in force in this task, at this place."""
    # `trio.current_effective_deadline` would say so, too, but takes a stack frame per scope.
    try:
        await checkpoint_if_cancelled()
    except trio.Cancelled:
        return True
    return False


async def judge(
    activation: Activation, error: BaseException | None, *, corrupted: bool
) -> tuple[Step, BaseException | None]:
    """Say how the activation ended, and with which failure."""
    if error is not None:
        error = split_cancellation(activation, error)
    if error is None:
        return (Step.FAIL, escaped(activation, error)) if corrupted else (Step.COMPLETE, None)
    if isinstance(error, BranchCancelledError):
        waits = activation.suspended and not activation.lane.sealed
        return (Step.WAIT if waits else Step.CANCEL), None
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
    if activation.suspended:
        return Step.WAIT, None
    if activation.scope.cancel_called:
        return Step.CANCEL, None
    if await cancelled_here():
        return Step.CANCEL, None
    # Cancelled, but nothing around this activation is: a scope inside it was, and did not catch it.
    return Step.FAIL, escaped(activation, error)


async def failed_of_itself(activation: Activation, failure: BaseException) -> bool:
    """Whether no cancellation, by a barrier or from further out, came before the failure."""
    combined = activation.combined
    if combined is not None and combined[0] is failure:
        return combined[1]
    if activation.reached:
        return False
    if not activation.scope.cancel_called and not await cancelled_here():
        return True
    return not after_cancellation(activation, failure)


def after_cancellation(activation: Activation, failure: BaseException) -> bool:
    """Return whether a failure was raised while a cancellation was being dealt with."""
    combined = activation.combined
    if combined is not None and combined[0] is failure:
        return not combined[1]
    todo: list[BaseException | None] = [failure]
    seen: set[int] = set()
    while todo:
        error = todo.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        if isinstance(error, trio.Cancelled | BranchCancelledError):
            return True
        todo.append(error.__context__)
        todo.extend(members(error))
    return False


def split_cancellation(activation: Activation, error: BaseException) -> BaseException:
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
    if rest is None and isinstance(error, QuorumError):
        return error  # a failure, though it consists of nothing else
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


def escaped(activation: Activation, cause: BaseException | None) -> BaseException:
    """Return the error that says that a cancellation left an agent that was not cancelled."""
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
