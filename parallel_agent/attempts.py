"""One agent, tried as often as its options allow, each attempt within its time.

An attempt's events are delivered and recorded as they come, marked with its number. Its state
writes are seen by itself and by what runs below it, and by nobody else until it has succeeded:
one event then records them all. A failed attempt leaves none.

Order: an attempt begins when everything of the one before has ended. Cancellation: passes; a
cancelled agent is not tried again. Errors: the last attempt's, as it was raised; time that is
over is an `AgentTimeoutError`.
"""

from __future__ import annotations

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from parallel_agent.activation import Activation
from parallel_agent.errors import AgentTimeoutError, RunEndedError
from parallel_agent.invocation import IdleWatch
from parallel_agent.judge import after_cancellation, cancelled_here, escaped, split_cancellation
from parallel_agent.notes import holds, note_clean_up
from parallel_agent.overlay import State
from parallel_agent.perform import perform
from parallel_agent.post import put_back
from parallel_agent.retry import Retry
from parallel_agent.shared_state import Layer

__all__ = ["pause", "perform_attempts"]


async def perform_attempts(activation: Activation) -> None:
    """Run the agent, again and again if its options say so."""
    retry = activation.agent.retry
    if retry is None:
        if activation.invocation.replay is not None:
            activation.invocation.replay.begin_attempt(activation)
        failure = await _attempt(activation)
        if failure is not None:
            raise failure
        return
    for number in range(1 + _failed_before(activation), retry.max_attempts + 1):
        below = _begin(activation)
        succeeded = False
        try:
            failure = await _attempt(activation)
            succeeded = failure is None
        finally:
            _end(activation, below, succeeded=succeeded)
        if failure is None:
            return
        if number == retry.max_attempts or not await _is_worth_it(activation, retry, failure):
            if number > 1:
                activation.given_up = failure
            raise failure
        put_back(activation)
        activation.place.void = True
        if activation.invocation.journal is not None:
            activation.invocation.journal.attempt_failed(activation, failure)
        await pause(activation, retry.delay(number, activation.invocation.random, failure))
        activation.place = activation.place.again()
        activation.source = activation.error = activation.numbers = None
        activation.escalated = False


def _failed_before(activation: Activation) -> int:
    """Return how many attempts failed before the run was resumed; go on with the next."""
    replay = activation.invocation.replay
    failed: int = 0 if replay is None else replay.failed_attempts(activation)
    for _ in range(failed):
        activation.place = activation.place.again()
    return failed


def _begin(activation: Activation) -> State:
    """Give what an attempt writes a layer of its own; return the state below it."""
    below = activation.state
    activation.state = below.under(
        Layer(activation.invocation.shared, below.layer, activation.place)
    )
    if activation.invocation.replay is not None:
        activation.invocation.replay.begin_attempt(activation)
    return below


def _end(activation: Activation, below: State, *, succeeded: bool) -> None:
    """Keep what the attempt has written, or forget it."""
    attempt, activation.state = activation.state, below
    attempt.ended = True
    if succeeded:
        if attempt.layer is not None:
            below.absorb(attempt.layer.writes)
            for slot in reversed(activation.lane.in_flight()):
                # A task of a foreign nursery goes on emitting, and has taken writes along that
                # would arrive in a layer that nobody asks any more.
                if slot.layer is attempt.layer and slot.late:
                    late, slot.late, slot.writes, slot.temporary = slot.late, {}, None, None
                    below.absorb(late)
        below.absorb(attempt.pending)
    else:
        activation.forget_output()


async def pause(activation: Activation, seconds: float) -> None:
    """Wait until it is time to try again, without a slot."""
    slots = activation.slots
    slots.step_aside()
    try:
        await trio.sleep(seconds)
        if not seconds:
            # A sibling that failed in the same tick cancels this one in the next (see
            # `parallel_agent.crew.Crew.watch`). Begun in that tick, an attempt could fail
            # before or after, as the scheduler takes them, and with it the error that is raised.
            await cancel_shielded_checkpoint()
            await checkpoint_if_cancelled()
    except BaseException:
        slots.stay_aside()
        raise
    await slots.step_back()


async def _is_worth_it(activation: Activation, retry: Retry, failure: BaseException) -> bool:
    if not isinstance(failure, Exception) or isinstance(failure, RunEndedError):
        return False
    if holds(failure, activation.given_up):
        return False
    if activation.scope.cancel_called or await cancelled_here():
        return False
    try:
        return retry.wants(failure)
    except Exception as exc:
        # Of the user's condition. What it was asked about must not be lost.
        raise exc from failure


async def _attempt(activation: Activation) -> BaseException | None:
    """Run the agent once, within its time. Return what it failed with, or was cancelled by."""
    agent = activation.agent
    above = activation.idle
    error: BaseException | None = None
    corrupted = False
    total, idle = trio.CancelScope(), trio.CancelScope()
    if agent.timeout is not None:
        total.deadline = trio.current_time() + agent.timeout
    if agent.idle_timeout is not None:
        activation.watch(IdleWatch(idle, agent.idle_timeout, above))
    try:
        with total, idle:
            try:
                await perform(activation)
                # What is still on its way must have arrived before it is counted.
                await activation.fence()
                # Too late is too late, also if the agent did not notice.
                await checkpoint_if_cancelled()
            except BaseException as exc:  # noqa: BLE001  # judged below; nothing is swallowed
                error = exc
    except RuntimeError:
        corrupted = True  # see `parallel_agent.drive.activate`
    finally:
        activation.watch(above)
    if error is not None:
        error = split_cancellation(activation, error)
    if corrupted:
        return escaped(activation, error)
    if not (total.cancel_called or idle.cancel_called):
        return error
    return await _overdue(activation, error, is_idle=not total.cancel_called)


async def _overdue(
    activation: Activation, error: BaseException | None, *, is_idle: bool
) -> BaseException | None:
    """Return what an attempt whose time is over has failed with, or was cancelled by."""
    agent = activation.agent
    if activation.scope.cancel_called or await cancelled_here():
        return error
    if error is not None and not isinstance(error, Exception | trio.Cancelled | GeneratorExit):
        return error  # Ctrl-C, SystemExit
    is_failure = isinstance(error, Exception) and not isinstance(error, RunEndedError)
    if error is not None and is_failure and not after_cancellation(activation, error):
        return error  # it failed of itself, in the very moment
    kind, seconds = ("idle_timeout", agent.idle_timeout) if is_idle else ("timeout", agent.timeout)
    place = activation.place
    over = AgentTimeoutError(place.path, place.branch, kind, seconds or 0.0)
    if error is not None and is_failure:
        note_clean_up(over, error)
    return over
