"""How branches have ended, as values and as the event that records it.

Nothing here waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from parallel_agent.activation import Activation
from parallel_agent.barrier import Outcome
from parallel_agent.lifecycle import Status
from parallel_agent.notes import describe
from session.actions import BranchOutcome, EventActions
from session.event import Event

__all__ = ["RECORDED_IN_FULL", "outcome_of", "record_of"]

RECORDED_IN_FULL: Final = 10_000
"""A fan-out with more branches than this records only those that did not complete."""


def outcome_of(child: Activation) -> Outcome:
    """Return how an activation has ended."""
    place = child.place
    return Outcome(
        name=child.agent.name if place.number is None else f"{child.agent.name}@{place.number}",
        path=place.path,
        status=child.status,
        error=child.error,
        own=child.own,
        output=child.output if child.status is Status.COMPLETED else None,
        attempts=place.own_attempt if child.was_started else 0,
        duration=child.duration,
    )


def record_of(outcomes: Sequence[Outcome]) -> Event:
    """Return the event that records how the branches of a fan-out have ended."""
    recorded: list[BranchOutcome] = []
    in_full = len(outcomes) <= RECORDED_IN_FULL
    for outcome in outcomes:
        if not in_full and outcome.status is Status.COMPLETED:
            continue
        kind, message = (None, None) if outcome.error is None else describe(outcome.error)
        recorded.append(
            BranchOutcome(
                outcome.name, str(outcome.status), kind, message, outcome.attempts, outcome.duration
            )
        )
    return Event(actions=EventActions(outcomes=tuple(recorded)))
