"""The life of an activation, and of a run: one table, and nothing else may move a status.

Pure: no event loop, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from parallel_agent.errors import MessageTypeError

__all__ = ["TERMINAL", "TRANSITIONS", "Status", "Step", "advance", "checked_reason"]


class Status(StrEnum):
    """Where an activation or a run stands. The last four are final, and exactly one is reached."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    WAITING = "waiting"


class Step(StrEnum):
    """What can happen to it."""

    START = "start"
    COMPLETE = "complete"
    FAIL = "fail"
    CANCEL = "cancel"
    WAIT = "wait"


TRANSITIONS: Final[Mapping[tuple[Status, Step], Status]] = MappingProxyType(
    {
        (Status.PENDING, Step.START): Status.RUNNING,
        # Cancelled before its first step: it never ran at all.
        (Status.PENDING, Step.CANCEL): Status.CANCELLED,
        # A run whose session cannot be read fails before its tree starts.
        (Status.PENDING, Step.FAIL): Status.FAILED,
        (Status.RUNNING, Step.COMPLETE): Status.COMPLETED,
        (Status.RUNNING, Step.FAIL): Status.FAILED,
        (Status.RUNNING, Step.CANCEL): Status.CANCELLED,
        (Status.RUNNING, Step.WAIT): Status.WAITING,
    }
)

TERMINAL: Final = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.WAITING})


def advance(status: Status, step: Step) -> Status:
    """Return the status after ``step``.

    Raises:
        RuntimeError: the table has no such transition; a bug in this package, never in an agent.
    """
    try:
        return TRANSITIONS[status, step]
    except KeyError:
        message = f"nothing that is {status} can {step}; this is a bug in parallel-agent"
        raise RuntimeError(message) from None


def checked_reason(reason: object) -> str:
    """Return why something is to be cancelled.

    Raises:
        MessageTypeError: it is no text.
    """
    if not isinstance(reason, str):
        message = f"the reason of a cancellation is text, not {reason!r:.80}"
        raise MessageTypeError(message)
    return reason
