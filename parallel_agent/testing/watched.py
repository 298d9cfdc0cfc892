"""State that tells who looks at it, and who writes.

Sync throughout: nothing here blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, final

from parallel_agent.activation import Activation
from parallel_agent.branch import Branch
from parallel_agent.lane import Lane
from parallel_agent.overlay import State
from parallel_agent.shared_state import Layer, SharedState
from parallel_agent.testing.steps import EVERY_KEY, Access
from parallel_agent.testing.waits import caller
from session.event import Event

__all__ = ["StateWatch"]


@final
class StateWatch:
    """Watches the state of activations.

    Args:
        tell: told of each access; in worker threads, too, if agents are plain functions.
    """

    def __init__(self, tell: Callable[[Access], None]) -> None:
        """Watch nobody yet."""
        self._tell = tell
        self._forked: dict[Branch, list[Branch]] = {}
        # A class of its own: state has no room for who watches it.
        self._state_type = type("State", (_Watched,), {"__slots__": (), "watch": self})

    def adopt(self, activation: Activation) -> None:
        """Watch the state of an activation that has just been made."""
        branch, parent = activation.lane.branch, activation.parent
        if parent is not None and parent.lane.branch is not branch:
            self._forked.setdefault(parent.lane.branch, []).append(branch)
        activation.state = self._state_type(
            activation.invocation.shared, activation.lane, activation.state.layer
        )

    def event(self, activation: Activation, event: Event) -> None:
        """Tell of what an event writes that is about to be emitted, beside the agent's state."""
        if not event.partial:
            for key in event.explicit_delta:
                self.access(activation.lane, activation.invocation.shared, key, writes=True)

    def access(self, lane: Lane, shared: SharedState, key: str, *, writes: bool) -> None:
        """Tell of an access by the code that runs now."""
        line = lane.branch
        # `forked` moves on when a branch begins later than it was made.
        forks = self._forked.get(line, ())
        self._tell(
            Access(
                key,
                writes=writes,
                branch=line.name,
                where=caller(),
                line=line,
                tick=max([branch.forked for branch in forks], default=0),
                combined=key in shared.reducers,
            )
        )


class _Watched(State):
    __slots__ = ("_busy",)
    watch: ClassVar[StateWatch]

    def __init__(self, shared: SharedState, lane: Lane, layer: Layer | None = None) -> None:
        super().__init__(shared, lane, layer)
        self._busy = False

    def _visible(self, key: str) -> Any:
        self._note(key, writes=False)
        return super()._visible(key)

    def _keys(self) -> dict[str, None]:
        self._note(EVERY_KEY, writes=False)
        return super()._keys()

    def __setitem__(self, key: str, value: Any) -> None:
        # A look as well, since an unchanged value is no write. But one access, and not two.
        self._note(key, writes=True)
        self._write(super().__setitem__, key, value)

    def contribute(self, key: str, value: Any) -> None:
        self._note(key, writes=True)
        self._write(super().contribute, key, value)

    def _write(self, write: Callable[[str, Any], None], key: str, value: Any) -> None:
        self._busy = True
        try:
            write(key, value)
        finally:
            self._busy = False

    def _note(self, key: str, *, writes: bool) -> None:
        if not self._busy:
            self.watch.access(self._lane, self._shared, key, writes=writes)
