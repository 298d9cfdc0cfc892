"""The wrapper that runs one activation of an agent.

`activate` is the root of every activation's task. It never raises: whatever happens becomes the
activation's one terminal status, and its parent decides what that means. So cancellation and
failure travel from child to parent as values, no exception group is ever made here, and an
``await`` chain is never longer than one agent.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, cast

import trio
from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection

from parallel_agent.activation import NO_INPUT, Activation
from parallel_agent.agent import Agent, check_agent
from parallel_agent.attempts import perform_attempts
from parallel_agent.barrier import Outcome
from parallel_agent.branch import Place
from parallel_agent.context import InvocationContext
from parallel_agent.errors import (
    BranchCancelledError,
    PluginError,
    RunEndedError,
    StreamClosedError,
)
from parallel_agent.judge import cancelled_here, failed_of_itself, judge, split_cancellation
from parallel_agent.lifecycle import Status, Step, advance
from parallel_agent.notes import holds, note_mix_up, note_origin, note_plugin
from parallel_agent.perform import perform

__all__ = [
    "activate",
    "can_be_noted",
    "leave_nursery",
    "outcome_error",
    "pass_on",
    "place_child",
    "raise_unless_left_open",
    "run_child",
    "suspend",
]


@enable_ki_protection  # an interrupt inside `start_soon` would leave a task that never runs
async def run_child(
    parent: Activation,
    agent: Agent,
    *,
    number: int | str | None = None,
    count: bool = False,
    input: Any = NO_INPUT,
    in_place: bool = False,
) -> Activation:
    """Run ``agent`` below ``parent``, on the same branch, and return its completed activation.

    ``number`` tells it from others of the same name below the same parent; with ``count``, it is
    how many there have been. ``in_place`` says that ``parent`` has handed over to it.

    Raises:
        BaseException: what it failed with, as itself; or the cancellation that ended it.
    """
    check_agent(agent, "what run_agent() was given")
    if count:
        number = parent.next_number(agent.name)
    await parent.flush()
    child = place_child(parent, agent, number=number, input=input)
    if in_place:
        child.transfers += 1
        child.on_escalate = partial(_escalate_for, parent)
    parent.slots.step_aside()
    # A task of its own: the child's await chain starts afresh, so depth costs nothing per event,
    # and it gets a copy of the context variables.
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(activate, child)
    except BaseException as exc:
        parent.slots.stay_aside()
        if not isinstance(exc, BaseExceptionGroup):
            raise
        raise_unless_left_open(cast("BaseExceptionGroup[BaseException]", exc), [child])
    else:
        try:
            await parent.slots.step_back()
        except trio.Cancelled:
            if child.error is None:  # a failure is never lost
                raise
    finally:
        parent.release(child)
    error = await outcome_error(child)
    if error is not None:
        pass_on(parent, child, error)
        raise error
    return child


def _escalate_for(parent: Activation, _child: Activation) -> None:
    if parent.on_escalate is not None:
        parent.on_escalate(parent)


def pass_on(parent: Activation, child: Activation, error: BaseException) -> None:
    """Note that what ``parent`` is about to raise is the failure of ``child``."""
    parent.source = child
    if holds(error, child.given_up):
        parent.given_up = child.given_up


def place_child(
    parent: Activation, agent: Agent, *, number: int | str | None, input: Any = NO_INPUT
) -> Activation:
    """Make the activation of an agent below ``parent``, on the same branch."""
    place = Place(
        agent.name,
        invocation_id=parent.invocation.id,
        line=parent.lane.branch,
        parent=parent.place,
        number=number,
    )
    child = Activation(
        agent,
        place,
        invocation=parent.invocation,
        lane=parent.lane,
        parent=parent,
        input=input,
    )
    parent.adopt(child)
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


def leave_nursery(owner: Activation, error: BaseException, ended: Iterable[Activation]) -> None:
    """Raise what the nursery of a fan-out has raised, with its owner's slots aside.

    Unless an activation has said it better; see `raise_unless_left_open`.
    """
    try:
        if not isinstance(error, BaseExceptionGroup):
            raise error  # noqa: TRY301  # as it would have gone on
        raise_unless_left_open(cast("BaseExceptionGroup[BaseException]", error), ended)
    except BaseException:
        owner.slots.stay_aside()
        raise


async def outcome_error(child: Activation) -> BaseException | None:
    """Return what the parent of an ended activation is to raise, if anything.

    Raises:
        trio.Cancelled: the child was cancelled because its parent is.
    """
    if child.error is not None:
        return child.error
    if child.status is Status.WAITING:
        await suspend(child.parent or child)
    if child.status is not Status.CANCELLED:
        return None
    await checkpoint_if_cancelled()
    if child.invocation.stream.closed:
        return StreamClosedError("the run's stream was closed while a child ran")
    return BranchCancelledError(f"agent {child.agent.name!r} was cancelled")


async def suspend(activation: Activation) -> None:
    """Let an activation end as waiting: by the way of a cancellation, so that it can clean up."""
    activation.suspended = True
    activation.scope.cancel("it waits for input, and the run is to be suspended")
    await checkpoint_if_cancelled()
    # A shield keeps the cancellation out; but there is no answer to go on with.
    path = activation.place.path
    message = f"{path} waits for input, and the run is to be suspended without the answer"
    raise BranchCancelledError(message)


async def activate(activation: Activation) -> None:
    """Run one activation, pending until now, to its one terminal status. Never raises."""
    steering = activation.invocation.steering
    if steering is None:
        await _activate(activation)
    else:
        await steering.run(activation, _activate(activation))


@enable_ki_protection
async def _activate(activation: Activation) -> None:
    replay = activation.invocation.replay
    if replay is not None and replay.settle(activation):
        return
    try:
        error, corrupted = await _run(activation)
    finally:
        activation.stop()
    step, failure = await judge(activation, error, corrupted=corrupted)
    if failure is not None:
        await _note_failure(activation, failure)
    if activation.invocation.plugins.on_agent_end and activation.status is Status.RUNNING:
        step = _tell_plugins(activation, step)
    activation.end(step)
    # A branch's is noted by its fan-out, together with what that decides.
    if activation.crew is None and await can_be_noted(activation):
        activation.invocation.journal.ended(activation)


async def can_be_noted(activation: Activation) -> bool:
    """Return whether an end is to be noted: the run can be resumed, and the end is for good.

    Not so if a cancellation from further out has brought it about: of the agent around it, whose
    end says all, or of the whole run, whose cause will be another one the next time.
    """
    if activation.invocation.journal is None:
        return False
    is_own = activation.status is Status.FAILED and activation.own
    if is_own or activation.status is Status.COMPLETED:
        return True
    return not await cancelled_here()


async def _run(activation: Activation) -> tuple[BaseException | None, bool]:
    """Run one activation; return what it raised, and whether it left its scope in disorder."""
    error: BaseException | None = None
    corrupted = False
    replay = activation.invocation.replay
    parent = activation.parent
    if parent is not None and parent.barren:
        activation.scope.cancel("a sibling branch has failed")
    try:
        with activation.scope:
            try:
                await checkpoint_if_cancelled()
                if activation.entrance is not None or activation.slots.limited:
                    await _enter(activation)
                activation.start()
                if activation.agent.has_attempts:
                    await perform_attempts(activation)
                else:
                    await perform(activation)
                await activation.flush()
                if replay is not None:
                    replay.check_children(activation)
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
    return error, corrupted


async def _enter(activation: Activation) -> None:
    """Wait until the activation may start: for its turn, and for a slot of every limiter."""
    entrance = activation.entrance
    if entrance is not None:
        if entrance.gate is not None:
            await entrance.gate.take()
        await entrance.flush()
    await activation.slots.take()


async def _note_failure(activation: Activation, failure: BaseException) -> None:
    source = activation.source
    if source is not None and source.error is failure:
        activation.own = source.own
    else:
        activation.own = await failed_of_itself(activation, failure)
        note_origin(failure, activation.place.path)
        note_mix_up(failure)
    activation.error = failure


async def _ask_plugins(activation: Activation, error: BaseException) -> BaseException | None:
    """Let the plugins turn a failure into an event. Return what is left of it: None, if they do."""
    failure = split_cancellation(activation, error)
    if not isinstance(failure, Exception) or isinstance(failure, RunEndedError):
        return error
    if activation.scope.cancel_called or await cancelled_here():
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
        attempts=activation.place.own_attempt,
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
