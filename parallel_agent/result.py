"""What a run is made from, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import attrs

from parallel_agent.agent import Agent
from parallel_agent.lifecycle import Status
from parallel_agent.plugins import Plugins
from parallel_agent.shared_state import OnConflict
from parallel_agent.state_schema import StateSchema
from session.artifact import ArtifactService
from session.event import USER, Event
from session.memory import MemoryService
from session.service import SessionService
from session.state import Reducer

__all__ = ["Result", "RunSetup", "RunStatistics", "last_text"]


@attrs.frozen(eq=False, repr=False)
class Result:
    """What a run came to.

    Attributes:
        status: ``"completed"``, ``"failed"``, ``"cancelled"`` or ``"waiting"``.
        text: the last final text of the run.
        output: the output of the root agent.
        outputs: the newest output of every agent that completed, by name.
        state: the session's state at the end, read-only, without ``temp:`` keys.
        events: what was recorded in this run, without the user's message.
        reason: why it was cancelled, or what it waits for; else None.
        session_id: the session it ran in.
        invocation_id: its own id.
    """

    status: Status
    text: str
    output: Any
    outputs: Mapping[str, Any]
    state: Mapping[str, Any]
    events: tuple[Event, ...]
    reason: str | None
    session_id: str
    invocation_id: str

    def __repr__(self) -> str:
        why = "" if self.reason is None else f" ({self.reason})"
        return f"<Result {self.status}{why}: {len(self.events)} events, text {self.text!r:.60}>"


def last_text(events: Sequence[Event]) -> str:
    """Return the last final text that a run has said."""
    for event in reversed(events):
        # What was sent into the run is not what the run says.
        if event.final_text and not (event.content is not None and event.content.role == USER):
            return event.final_text
    return ""


@attrs.frozen
class RunStatistics:
    """How a run stands. Activations are counted once, in exactly one of the last four."""

    status: Status
    delivered: int
    last_seq: int
    started: int
    completed: int
    failed: int
    cancelled: int
    waiting: int


@attrs.frozen(eq=False)
class RunSetup:
    """What all runs of one runner share."""

    tree: Agent
    app_name: str
    service: SessionService
    reducers: Mapping[str, Reducer]
    on_conflict: OnConflict
    schema: StateSchema | None
    plugins: Plugins
    random: Random
    artifacts: ArtifactService
    memory: MemoryService
    shape: list[str] | None  # of the tree, if its runs can be resumed
    clock: Callable[[], float]
    new_id: Callable[[], str]
