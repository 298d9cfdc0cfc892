"""The engine under every fan-out: start branches, watch them, join them all, answer once.

Under `ParallelAgent`, ``ctx.map``, ``ctx.fan_out`` and ``ctx.open_fan_out`` alike.

Order: branches start in declaration order; outcomes are in declaration order. Cancellation:
whoever is cancelled is joined before anything is answered. Errors: the barrier's policy chooses;
an error is raised as itself, after every branch has ended, with the other failures as notes.
How the branches ended is recorded in one event of the fan-out's own, after everything of theirs.

Memory: with a limit, a branch is made when its turn comes and forgotten when it has ended, but
for its outcome; without one, all are made at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import trio
from trio.lowlevel import (
    checkpoint_if_cancelled,
    enable_ki_protection,
)

from parallel_agent.activation import Activation
from parallel_agent.barrier import Barrier, Outcome
from parallel_agent.crew import Crew, Task
from parallel_agent.drive import leave_nursery
from parallel_agent.errors import TreeError

__all__ = ["check_options", "fan_out", "policy_shape"]


def check_options(name: str, barrier: object, max_concurrency: object) -> None:
    """Refuse what the fan-out of the agent ``name`` cannot go by.

    Raises:
        TreeError: ``barrier`` is no policy, or ``max_concurrency`` no positive whole number.
    """
    if not isinstance(barrier, Barrier):
        hint = "; make an object of it: call it" if isinstance(barrier, type) else ""
        message = f"barrier of {name!r} is a policy such as FailFast(), not {barrier!r}{hint}"
        raise TreeError(message)
    if max_concurrency is not None and (type(max_concurrency) is not int or max_concurrency < 1):
        message = (
            f"max_concurrency of {name!r} must be 1 or more, or None for no limit, "
            f"not {max_concurrency!r}"
        )
        raise TreeError(message)


def policy_shape(barrier: Barrier) -> str:
    """Return what a policy is, in words, for the shape of a tree."""
    # Of a class that says nothing of itself, its name: its address is another one each time.
    return repr(barrier) if attrs.has(type(barrier)) else type(barrier).__name__


@enable_ki_protection  # an interrupt inside `start_soon` would leave a task that never runs
async def fan_out(
    owner: Activation,
    tasks: Sequence[Task],
    *,
    barrier: Barrier,
    max_concurrency: int | None = None,
    waits_alone: bool = False,
) -> list[Outcome]:
    """Run ``tasks`` side by side below ``owner``, each on a branch of its own.

    Returns their outcomes when all have ended. With ``waits_alone``, also if one of them waits for
    a person in a run that is to be suspended; what that means is for the caller to say.

    Raises:
        FanOutError: ``barrier`` needs more branches than there are.
        BaseException: the failure that ``barrier`` chooses.
    """
    crew = Crew(owner, barrier, width=len(tasks))
    crew.waits_alone = waits_alone
    await owner.flush()
    await checkpoint_if_cancelled()
    waiting = list(enumerate(tasks))
    owner.slots.step_aside()
    try:
        async with trio.open_nursery() as nursery:
            if owner.invocation.replay is not None:
                waiting = await _replay(crew, waiting, nursery)
            width = len(waiting)
            workers = width if max_concurrency is None else min(width, max_concurrency)
            if workers == width:
                # All forked at once: no branch sees more than another.
                for position, child in [(place, crew.fork(task)) for place, task in waiting]:
                    nursery.start_soon(crew.watch, position, child)
            else:
                todo = iter(waiting)
                for _ in range(workers):
                    nursery.start_soon(_work, crew, todo)
    except BaseException as exc:  # noqa: BLE001  # raised again, but for what a branch has told
        leave_nursery(owner, exc, crew.failed.values())
    outcomes = crew.join(enumerate(tasks))
    await crew.answer(outcomes)
    return outcomes


@enable_ki_protection
async def _replay(
    crew: Crew, waiting: list[tuple[int, Task]], nursery: trio.Nursery
) -> list[tuple[int, Task]]:
    """Let the branches end that had ended, in that order, before others start; return the others.

    So the policy is asked what it was asked, and decides what it decided.
    """
    replay = crew.owner.invocation.replay
    over: list[int] = replay.in_order(crew.owner.place.path, [task.name for _, task in waiting])
    for place in over:
        position, task = waiting[place]
        child = crew.fork(task)
        if not crew.closed and replay.has_escalated(child.begun.path):
            # It had ended the others, and not itself.
            child.escalate()
            nursery.start_soon(crew.watch, position, child)
            continue
        if replay.was_cut_off(child):
            crew.seal(child)
        nursery.start_soon(crew.watch, position, child)
        await crew.weighed(child)
    left = [waiting[place] for place in sorted(set(range(len(waiting))).difference(over))]
    return [] if crew.closed else left


@enable_ki_protection
async def _work(crew: Crew, todo: Iterator[tuple[int, Task]]) -> None:
    """Run one branch after the other, until none is left or nothing more is to start."""
    for position, task in todo:
        if crew.closed:
            return
        await crew.watch(position, crew.fork(task))
