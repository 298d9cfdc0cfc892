"""What an agent may emit, and what its hooks may answer: events, contents, text.

Pure: nothing here waits.
"""

from __future__ import annotations

from parallel_agent.errors import EmitError
from session.content import Content
from session.event import Event

__all__ = ["as_event"]


def as_event(item: object) -> Event:
    """Return an item as the event it stands for.

    Raises:
        EmitError: it stands for none.
    """
    if isinstance(item, Event):
        return item
    if isinstance(item, str):
        return Event(str.__str__(item))  # a StrEnum's member, say
    if isinstance(item, Content):
        return Event(item)
    message = (
        f"an agent emits events, contents or text, not {type(item).__name__}: {item!r:.80}; "
        "for a value, Event(output=...)"
    )
    raise EmitError(message)
