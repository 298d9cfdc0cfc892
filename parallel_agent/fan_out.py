"""The engine under every fan-out: start branches, watch them, join them all, answer once.

Order: branches start in declaration order; outcomes are in declaration order. Cancellation:
whoever is cancelled is joined before anything is answered. Errors: the barrier's policy chooses;
the error is raised as itself, after every branch has ended, with the other failures as notes.
How the branches ended is recorded in one event of the fan-out's own, after everything of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio
from trio.lowlevel import (
    cancel_shielded_checkpoint,
    checkpoint_if_cancelled,
    enable_ki_protection,
)

from parallel_agent.activation import Activation, cancel_subtree, seal_subtree, stop_starting
from parallel_agent.agent import Agent
from parallel_agent.barrier import Barrier, FailFast, Outcome, Verdict
from parallel_agent.branch import Branch, Place
from parallel_agent.drive import activate, raise_unless_left_open
from parallel_agent.errors import RunEndedError, describe, note_origin, note_other
from parallel_agent.lane import Lane
from parallel_agent.lifecycle import Status
from session.actions import BranchOutcome, EventActions
from session.event import Event

__all__ = ["fan_out"]


@enable_ki_protection  # an interrupt inside `start_soon` would leave a task that never runs
async def fan_out(
    owner: Activation, agents: Sequence[Agent], *, barrier: Barrier | None = None
) -> list[Outcome]:
    """Run ``agents`` side by side below ``owner``, each on a branch of its own.

    Returns their outcomes when all have ended.

    Raises:
        BaseException: the failure that ``barrier`` (by default `FailFast`) chooses.
    """
    await owner.flush()
    await checkpoint_if_cancelled()
    return await _FanOut(owner, FailFast() if barrier is None else barrier).run(agents)


class _FanOut:
    """One fan-out while it runs."""

    def __init__(self, owner: Activation, barrier: Barrier) -> None:
        self._owner = owner
        self._barrier = barrier
        self._branches: list[Activation] = []
        self._cancelled_rest = False
        self._decided = False

    async def run(self, agents: Sequence[Agent]) -> list[Outcome]:
        owner = self._owner
        invocation = owner.invocation
        forked = invocation.tick()
        forked_seq = invocation.stream.session.last_seq
        name = owner.agent.name
        for agent in agents:
            branch = Branch(
                owner.lane.branch,
                f"{name}.{agent.name}",
                forked=forked,
                forked_seq=forked_seq,
            )
            place = Place(agent.name, invocation_id=invocation.id, line=branch, parent=owner.place)
            child = Activation(
                agent,
                place,
                invocation=invocation,
                lane=Lane(branch),
                parent=owner,
                on_escalate=self._end_others,
            )
            self._branches.append(child)
            owner.adopt(child)
        try:
            async with trio.open_nursery() as nursery:
                for child in self._branches:
                    nursery.start_soon(self._run_branch, child)
        except BaseExceptionGroup as group:
            raise_unless_left_open(group, self._branches)
        joined = invocation.tick()
        for child in self._branches:
            child.lane.branch.joined = joined
        outcomes = [_outcome(child) for child in self._branches]
        invocation.outcomes[name] = tuple(outcomes)
        try:
            await self._answer(outcomes)
        finally:
            # What has ended is freed now, not when the garbage collector comes by.
            for child in self._branches:
                child.on_escalate = None
                child.lane.slot = None
        return outcomes

    @enable_ki_protection
    async def _run_branch(self, child: Activation) -> None:
        await activate(child)
        self._owner.release(child)
        if (
            self._barrier.on_outcome(_outcome(child)) is Verdict.CANCEL_REST
            and not self._cancelled_rest
        ):
            self._cancelled_rest = True
            # Whoever was woken in the same tick takes that step first: a branch that is about to
            # fail of itself, its sleep being over, would else be cancelled or not as the scheduler
            # takes them, and with it the error that is raised. But nothing new starts any more.
            for other in self._others(child):
                stop_starting(other)
            await cancel_shielded_checkpoint()
            self._cancel_others(child, "failed")

    def _end_others(self, escalating: Activation) -> None:
        """End the siblings of a branch whose escalating event is being handed out, at once."""
        if self._decided:
            return
        self._decided = True
        for child in self._cancel_others(escalating, "escalated"):
            seal_subtree(child)

    def _others(self, child: Activation) -> list[Activation]:
        return [
            other
            for other in self._branches
            if other is not child and other.status in (Status.PENDING, Status.RUNNING)
        ]

    def _cancel_others(self, child: Activation, why: str) -> list[Activation]:
        others = self._others(child)
        if others:  # the name is a step per level above: not for nobody, at every level
            reason = f"branch {child.place.branch} {why}"
            for other in others:
                cancel_subtree(other, reason)
        return others

    async def _answer(self, outcomes: list[Outcome]) -> None:
        """Record the outcomes; raise the failure, if there is one."""
        owner = self._owner
        interrupt: BaseException | None = None
        try:
            await owner.emit(_record(outcomes))
        except (trio.Cancelled, RunEndedError) as exc:
            interrupt = exc
            owner.lane.unsettled = True
        chosen = self._choose(outcomes)
        if chosen is None:
            if interrupt is not None:
                raise interrupt
            return
        error = chosen.error
        if error is None:
            return
        source = owner.source = self._branches[outcomes.index(chosen)]
        if sum(outcome.error is error for outcome in outcomes) > 1:
            # One object, raised in several branches: it names the one that raised it last.
            while source.source is not None and source.source.error is error:
                source = source.source
            note_origin(error, source.place.path)
        for outcome in outcomes:
            if outcome is not chosen and outcome.error is not None:
                note_other(error, outcome.path, outcome.error)
        raise error

    def _choose(self, outcomes: list[Outcome]) -> Outcome | None:
        for outcome in outcomes:
            # Ctrl-C and SystemExit are nobody's failure to weigh.
            if outcome.error is not None and not isinstance(outcome.error, Exception):
                return outcome
        if self._decided:
            # The losers were ended by a decision: how they cleaned up is in the outcomes alone.
            outcomes = [
                outcome
                for outcome, child in zip(outcomes, self._branches, strict=True)
                if not child.lane.sealed
            ]
        return self._barrier.failure(outcomes)


def _outcome(child: Activation) -> Outcome:
    return Outcome(
        name=child.agent.name,
        path=child.place.path,
        status=child.status,
        error=child.error,
        own=child.own,
        output=child.output if child.status is Status.COMPLETED else None,
        duration=child.duration,
    )


def _record(outcomes: list[Outcome]) -> Event:
    recorded: list[BranchOutcome] = []
    for outcome in outcomes:
        kind, message = (None, None) if outcome.error is None else describe(outcome.error)
        recorded.append(
            BranchOutcome(
                outcome.name, str(outcome.status), kind, message, outcome.attempts, outcome.duration
            )
        )
    return Event(actions=EventActions(outcomes=tuple(recorded)))
