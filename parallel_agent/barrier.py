"""What a fan-out answers, given how its branches ended.

A policy is pure. Asked each time a branch ends, it says what becomes of the others; asked once
all have ended, it says what the fan-out raises, if anything. The engine
(`parallel_agent.crew`) does the cancelling, joining and raising, so whoever is cancelled has
finished, clean-up and all, before anything is answered.

What the policies of this module do is one table, `POLICIES`; the documentation draws it.

Pure: no event loop, no clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import ClassVar, Final

import attrs

from parallel_agent.errors import (
    AgentTimeoutError,
    BranchCancelledError,
    FanOutError,
    QuorumError,
)
from parallel_agent.lifecycle import Status

__all__ = [
    "POLICIES",
    "Barrier",
    "BestEffort",
    "Ending",
    "Escalate",
    "FailFast",
    "FirstSuccess",
    "Outcome",
    "Quorum",
    "Rule",
    "Tally",
    "Verdict",
    "WaitAll",
    "failure_despite",
    "had_failed",
]


@attrs.frozen(eq=False)
class Outcome:
    """How one branch ended.

    Attributes:
        name: the branch's agent, numbered if it was started at run time.
        path: its activation.
        status: a final `Status`.
        error: what it raised, if it failed.
        own: whether it failed of itself, not in cleaning up after it was cancelled.
        output: its output, if it completed.
        attempts: how often it was tried; 0 if it was cancelled before it started.
        duration: seconds from its start to its end, all attempts together.
    """

    name: str
    path: str
    status: Status
    error: BaseException | None = None
    own: bool = False
    output: object = None
    attempts: int = 1
    duration: float = 0.0

    @property
    def timed_out(self) -> bool:
        """Whether it failed because its time, or that of an agent below it, was over."""
        return isinstance(self.error, AgentTimeoutError)


@attrs.frozen
class Tally:
    """How many branches have ended how, the newest counted.

    ``width`` is how many there are in all; None while more may be started.
    """

    width: int | None
    completed: int = 0
    failed: int = 0
    cancelled: int = 0

    def can_still_complete(self) -> int | None:
        """Return how many may complete in the end, at most; None if there is no telling yet."""
        return None if self.width is None else self.width - self.failed - self.cancelled


class Verdict(Enum):
    """What becomes of the branches that still run."""

    GO_ON = "go on"
    CANCEL_REST = "cancel the rest"
    ASK = "ask a person"


class Rule(Enum):
    """When a branch has ended: what happens then."""

    GO_ON = "the others go on"
    CANCEL = "the others are cancelled"
    CANCEL_AT_QUORUM = "the others are cancelled once *n* have completed"
    CANCEL_WHEN_LOST = "the others are cancelled once *n* can no longer complete"
    ASK = "a person is asked: retry, skip, or abort (the others are cancelled)"


class Ending(Enum):
    """When all branches have ended: what the fan-out does."""

    DONE = "done; failures are outcomes"
    RAISE_FIRST = "raises the first own failure, in declaration order, as itself"
    RAISE_ALL = "raises an ExceptionGroup of the own failures, in declaration order"
    RAISE_UNLESS_QUORUM = "done if *n* have completed, else raises QuorumError with every failure"
    RAISE_IF_ABORTED = "done, unless a person chose to abort: raises that failure as itself"


@attrs.frozen
class Policy:
    """One row of the table."""

    completed: Rule
    failed: Rule
    cancelled: Rule
    ending: Ending


class Barrier(ABC):
    """A policy: how a fan-out deals with branches that fail, and when it has enough.

    Subclass it for a policy of your own; both methods must be pure. If one of them raises, the
    others are cancelled, and the fan-out raises that, with the branches' failures as notes.
    """

    def least_width(self) -> int:
        """Return how many branches it needs: a fan-out with fewer is refused at its start."""
        return 0

    def waits_for_all(self, outcomes: Sequence[Outcome]) -> bool:  # noqa: ARG002  # for those that count
        """Return whether a branch that waits for a person keeps the fan-out from being done."""
        return True

    @abstractmethod
    def on_outcome(self, outcome: Outcome, tally: Tally) -> Verdict:
        """Say what becomes of the others now that one branch has ended."""

    @abstractmethod
    def failure(self, outcomes: Sequence[Outcome]) -> BaseException | None:
        """Say, once all have ended, what the fan-out raises; None for nothing.

        ``outcomes`` are in declaration order. The losers of a decision that was taken before
        (an escalating event, a quorum that was reached) are among them. What an escalating event
        or a person has ended is no failure of the fan-out: it is shown as cancelled, and it is
        also asked what would be raised if it had completed; if nothing, nothing is.
        """


class _Listed(Barrier):
    """A policy of the table."""

    policy: ClassVar[Policy]

    def on_outcome(self, outcome: Outcome, tally: Tally) -> Verdict:
        """Look the rule up, and count if it says so."""
        match self._rule(outcome):
            case Rule.GO_ON:
                return Verdict.GO_ON
            case Rule.CANCEL:
                return Verdict.CANCEL_REST
            case Rule.ASK:
                return Verdict.ASK
            case Rule.CANCEL_AT_QUORUM:
                return Verdict.CANCEL_REST if tally.completed >= self._quorum() else Verdict.GO_ON
            case Rule.CANCEL_WHEN_LOST:
                best = tally.can_still_complete()
                lost = best is not None and best < self._quorum()
                return Verdict.CANCEL_REST if lost else Verdict.GO_ON

    def _rule(self, outcome: Outcome) -> Rule:
        match outcome.status:
            case Status.COMPLETED:
                return self.policy.completed
            case Status.FAILED:
                return self.policy.failed
            case Status.CANCELLED:
                return self.policy.cancelled
            case _:  # it waits for a person, and may complete another day
                return Rule.GO_ON

    def _quorum(self) -> int:
        return 1

    def waits_for_all(self, outcomes: Sequence[Outcome]) -> bool:
        """Not if enough have completed without it."""
        return self.policy.ending is not Ending.RAISE_UNLESS_QUORUM or (
            _completed(outcomes) < self._quorum()
        )

    def failure(self, outcomes: Sequence[Outcome]) -> BaseException | None:
        """Raise what the table says."""
        match self.policy.ending:
            case Ending.DONE:
                return None
            case Ending.RAISE_FIRST | Ending.RAISE_IF_ABORTED:
                return next((outcome.error for outcome in _failures(outcomes)), None)
            case Ending.RAISE_ALL:
                errors = [one.error for one in _failures(outcomes) if one.error is not None]
                return BaseExceptionGroup(_counted(outcomes), errors) if errors else None
            case Ending.RAISE_UNLESS_QUORUM:
                return _shortfall(outcomes, self._quorum())


@attrs.frozen
class FailFast(_Listed):
    """The first failure cancels the others; one error is raised, as itself. Go's ``errgroup``.

    Unlike errgroup, which error is raised does not hang on the scheduler: it is the first *in
    declaration order* among the branches that failed of themselves. If none did (the fan-out
    was cancelled from outside, and a branch failed in cleaning up), it is the first of those.
    """

    policy = Policy(Rule.GO_ON, Rule.CANCEL, Rule.GO_ON, Ending.RAISE_FIRST)


@attrs.frozen
class WaitAll(_Listed):
    """All run to their end; then every failure is raised, in an ExceptionGroup."""

    policy = Policy(Rule.GO_ON, Rule.GO_ON, Rule.GO_ON, Ending.RAISE_ALL)


@attrs.frozen
class BestEffort(_Listed):
    """All run to their end; nothing is raised. Failures are outcomes."""

    policy = Policy(Rule.GO_ON, Rule.GO_ON, Rule.GO_ON, Ending.DONE)


@attrs.frozen
class FirstSuccess(_Listed):
    """The first to complete ends it: the others are cancelled. Raises only if none completes."""

    policy = Policy(
        Rule.CANCEL_AT_QUORUM,
        Rule.CANCEL_WHEN_LOST,
        Rule.CANCEL_WHEN_LOST,
        Ending.RAISE_UNLESS_QUORUM,
    )

    def least_width(self) -> int:
        """Return 1: of nothing, nothing can be first."""
        return 1


def _is_quorum(_quorum: object, _attribute: attrs.Attribute[int], value: object) -> None:
    if type(value) is not int or value < 1:
        message = f"a quorum is a whole number from 1 on, not {value!r}"
        raise ValueError(message)


@attrs.frozen
class Quorum(_Listed):
    """``n`` that complete are enough: the others are cancelled.

    Raises `QuorumError`, with every failure, as soon as ``n`` can no longer complete.
    """

    n: int = attrs.field(validator=_is_quorum)

    policy = FirstSuccess.policy

    def least_width(self) -> int:
        """Return as many as are to complete."""
        return self.n

    def _quorum(self) -> int:
        return self.n


def _is_prompt(_escalate: object, _attribute: object, value: object) -> None:
    if not isinstance(value, str):
        message = f"the prompt of Escalate is text, not {value!r:.80}"
        raise ValueError(message)  # noqa: TRY004  # as for a quorum


@attrs.frozen
class Escalate(_Listed):
    """A failure becomes a question to a person: retry the branch, skip it, or abort.

    The other branches go on meanwhile. A skipped failure is an outcome and no more; aborting
    cancels the others and raises the failure as itself.

    Args:
        prompt: what the person is asked; the branch and its error are added.
    """

    prompt: str = attrs.field(default="A branch has failed.", validator=_is_prompt)

    policy = Policy(Rule.GO_ON, Rule.ASK, Rule.GO_ON, Ending.RAISE_IF_ABORTED)


POLICIES: Final[dict[type[_Listed], Policy]] = {
    kind: kind.policy for kind in (FailFast, WaitAll, BestEffort, FirstSuccess, Quorum, Escalate)
}
"""What each policy does, in one table."""


def failure_despite(
    barrier: Barrier, outcomes: Sequence[Outcome], cut_off: AbstractSet[str]
) -> BaseException | None:
    """Return what the fan-out raises, provided that it would have done so in any case.

    ``cut_off`` are the paths of branches that a decision from elsewhere has ended: had they been
    left alone, they might have completed.
    """
    if cut_off:
        at_best = [
            attrs.evolve(outcome, status=Status.COMPLETED, error=None, own=False)
            if outcome.path in cut_off
            else outcome
            for outcome in outcomes
        ]
        if barrier.failure(at_best) is None:
            return None
    return barrier.failure(outcomes)


def had_failed(barrier: Barrier, outcomes: Sequence[Outcome], width: int | None) -> bool:
    """Whether the fan-out had failed of itself, though it was cancelled before all was over.

    So it had if nothing was cut off by that, or if ``barrier`` had decided by then.
    """
    ended = [outcome for outcome in outcomes if outcome.error is None or outcome.own]
    ended = [outcome for outcome in ended if outcome.status is not Status.CANCELLED]
    if len(ended) == len(outcomes):
        return True
    failed = sum(outcome.status is Status.FAILED for outcome in ended)
    tally = Tally(width, _completed(ended), failed)
    return any(barrier.on_outcome(outcome, tally) is Verdict.CANCEL_REST for outcome in ended)


def _failures(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the branches that failed of themselves; if none did, all that failed."""
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    return [outcome for outcome in failed if outcome.own] or failed


def _completed(outcomes: Sequence[Outcome]) -> int:
    return sum(outcome.status is Status.COMPLETED for outcome in outcomes)


def _counted(outcomes: Sequence[Outcome]) -> str:
    failed = sum(outcome.error is not None for outcome in outcomes)
    return f"{failed} of {len(outcomes)} branches failed"


def _shortfall(outcomes: Sequence[Outcome], quorum: int) -> QuorumError | FanOutError | None:
    completed = _completed(outcomes)
    if completed >= quorum or not outcomes:
        return None
    if any(outcome.status is Status.WAITING for outcome in outcomes):
        return None  # not lost yet
    errors = [outcome.error for outcome in outcomes if isinstance(outcome.error, Exception)]
    # A group cannot be empty: if nobody has failed, it says who was cancelled.
    errors = errors or [
        BranchCancelledError(f"branch {outcome.name!r} was cancelled")
        for outcome in outcomes
        if outcome.status is Status.CANCELLED
    ]
    if errors:
        return QuorumError(completed, quorum, len(outcomes), errors)
    if len(outcomes) < quorum:  # an open fan-out, of which nobody knew how many would be started
        return FanOutError(f"{quorum} branches were to complete, and {len(outcomes)} were started")
    return None  # all that failed has been dealt with
