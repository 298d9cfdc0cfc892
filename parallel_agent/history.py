"""What an agent may see of what was recorded.

Pure: nothing here waits.
"""

from __future__ import annotations

from parallel_agent.activation import Activation
from parallel_agent.branch import Place
from session.event import Event

__all__ = ["visible_events"]


def visible_events(activation: Activation) -> list[Event]:
    """Return the recorded events that an activation may see; see `InvocationContext.history`."""
    branch = activation.lane.branch
    invocation_id = activation.invocation.id
    limits: dict[int, int] = {}
    void: dict[int, bool] = {}
    visible: list[Event] = []
    replay = activation.invocation.replay
    for event in activation.invocation.stream.session.events:
        if event.is_record:
            continue
        origin = event.origin
        if replay is not None and origin.invocation_id == invocation_id:
            seq = event.seq or 0
            if seq <= replay.until:
                # Of an earlier execution: a branch that is there now stands for its own.
                if event is not replay.past.message:
                    line = replay.line_of(seq)
                    if line is None or seq > branch.limit_for(line):
                        continue
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


def _is_void(place: Place, known: dict[int, bool]) -> bool:
    """Whether an event belongs to an attempt that has failed."""
    found = known.get(id(place))
    if found is None:
        above: Place | None = place
        while above is not None and not above.void:
            above = above.parent
        found = known[id(place)] = above is not None
    return found
