"""What a fan-out answers, given how its branches ended.

A policy is pure: it sees outcomes in declaration order and says whether the other branches go
on, and in the end which error to raise, if any. The engine (`parallel_agent.fan_out`) does the
cancelling, joining and raising.

Pure: no event loop, no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

import attrs

from parallel_agent.lifecycle import Status

__all__ = ["Barrier", "FailFast", "Outcome", "Verdict"]


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
        attempts: how often it was tried.
        duration: seconds from its start to its end.
    """

    name: str
    path: str
    status: Status
    error: BaseException | None = None
    own: bool = False
    output: object = None
    attempts: int = 1
    duration: float = 0.0


class Verdict(Enum):
    """What becomes of the branches that still run."""

    GO_ON = "go on"
    CANCEL_REST = "cancel the rest"


class Barrier(Protocol):
    """A policy: how a fan-out deals with branches that fail."""

    def on_outcome(self, outcome: Outcome) -> Verdict:
        """Say what becomes of the others now that one branch has ended."""
        ...

    def failure(self, outcomes: Sequence[Outcome]) -> Outcome | None:
        """Say, once all have ended, whose error the fan-out raises; None if it raises none.

        ``outcomes`` are in declaration order.
        """
        ...


@attrs.frozen
class FailFast(Barrier):
    """The first failure cancels the others; one error is raised, as itself. Go's ``errgroup``.

    Unlike errgroup, which error is raised does not hang on the scheduler: it is the first *in
    declaration order* among the branches that failed of themselves. If none did (the fan-out
    was cancelled from outside, and a branch failed in cleaning up), it is the first of those.
    """

    def on_outcome(self, outcome: Outcome) -> Verdict:
        """Cancel the rest as soon as one has failed."""
        return Verdict.CANCEL_REST if outcome.error is not None else Verdict.GO_ON

    def failure(self, outcomes: Sequence[Outcome]) -> Outcome | None:
        """Return the first that failed of itself, else the first that failed at all."""
        failed = [outcome for outcome in outcomes if outcome.error is not None]
        own = [outcome for outcome in failed if outcome.own]
        return next(iter(own or failed), None)
