"""What an agent may see of what was recorded.

Pure: nothing here waits.
"""

from __future__ import annotations

from typing import Any

from parallel_agent.activation import Activation
from parallel_agent.branch import Branch, Place
from parallel_agent.records import void_events
from session.event import Event

__all__ = ["visible_events"]


def visible_events(activation: Activation) -> list[Event]:
    """Return the recorded events that an activation may see; see `InvocationContext.history`."""
    branch = activation.lane.branch
    invocation_id = activation.invocation.id
    limits: dict[int, int] = {}
    void: dict[int, bool] = {}
    visible: list[Event] = []
    invocation = activation.invocation
    replay = invocation.replay
    if invocation.void is None:
        invocation.void = void_events(invocation.stream.session.events)
    for event in invocation.stream.session.events:
        if event.is_record or event.seq in invocation.void:
            continue
        origin = event.origin
        if (
            replay is not None
            and origin.invocation_id == invocation_id
            and (event.seq or 0) <= replay.until
        ):
            if event is replay.past.message or _stands(event, replay, branch, void):
                visible.append(event)
            continue
        if isinstance(origin, Place) and origin.invocation_id == invocation_id:
            writer = origin.line
            limit = limits.get(id(writer))
            if limit is None:
                limit = limits[id(writer)] = branch.limit_for(writer)
            if (event.seq or 0) > limit or _is_void(origin, void):
                continue
        visible.append(event)
    return visible


def _stands(event: Event, replay: Any, branch: Branch, void: dict[int, bool]) -> bool:
    """Whether an event of an earlier execution may be seen: a branch of now stands for its own."""
    seq = event.seq or 0
    found = replay.line_of(seq)
    if found is None or seq > branch.limit_for(found[0]):
        return False
    return found[1] is None or not _is_void(found[1], void)


def _is_void(place: Place, known: dict[int, bool]) -> bool:
    """Whether an event belongs to an attempt that has failed."""
    found = known.get(id(place))
    if found is None:
        above: Place | None = place
        while above is not None and not above.void:
            above = above.parent
        found = known[id(place)] = above is not None
    return found
