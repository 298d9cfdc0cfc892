"""Who goes next: where a test may decide what is otherwise left to the scheduler.

Ordinarily nobody steers, and nothing here costs anything. `parallel_agent.testing` sets `STEERING`
while it explores; a run that is opened meanwhile asks it at the few places at which branches can
overtake each other: before an event is queued, and each time an activation's task goes on.

Pure: nothing here waits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    # For annotations only: those who are steered stand above.
    from parallel_agent.activation import Activation
    from session.event import Event

__all__ = ["STEERING", "Gate", "Steering"]


class Gate(Protocol):
    """What an event passes before it is queued."""

    async def event(self, activation: Activation, event: Event) -> Event | None:
        """Return the event that is to be emitted; None if none is."""
        ...


class Steering(Protocol):
    """What a run asks that is steered."""

    @property
    def inline(self) -> bool:
        """Whether plain functions are called by `call`, and not in threads."""
        ...

    def gate(self, plugins: Gate | None) -> Gate | None:
        """Return what the run's events pass; it asks ``plugins``, if there are some."""
        ...

    def adopt(self, activation: Activation) -> None:
        """Learn of an activation that has just been made, in the order of their making."""
        ...

    def run(self, activation: Activation, work: Coroutine[Any, Any, None]) -> Awaitable[None]:
        """Run an activation's work, step by step."""
        ...

    def call(self, function: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        """Call a plain function that would have had a thread of its own."""
        ...

    def note(self, activation: Activation, what: str) -> None:
        """Learn that an agent looked at, or touched, what others can change."""
        ...


STEERING: Final[ContextVar[Steering | None]] = ContextVar("STEERING", default=None)
"""What steers the runs that are opened in this context. A context variable and no argument: the
code under test opens its runs as it always does."""
