"""State that tells who looks at it, and who writes.

Sync throughout: nothing here blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from parallel_agent.overlay import State
from parallel_agent.testing.steps import EVERY_KEY, Access
from parallel_agent.testing.waits import caller

__all__ = ["watch_state"]


class _Watched(State):
    __slots__ = ()
    tell: ClassVar[Callable[[Access], None]]
    busy: ClassVar[bool] = False

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
        kind = type(self)
        kind.busy = True
        try:
            write(key, value)
        finally:
            kind.busy = False

    def _note(self, key: str, *, writes: bool) -> None:
        if self.busy:
            return
        line = self._lane.branch
        shared = self._shared
        type(self).tell(
            Access(
                key,
                writes=writes,
                branch=line.name,
                where=caller(),
                seq=shared.session.last_seq,
                combined=key in shared.reducers,
                line=line,
            )
        )


def watch_state(tell: Callable[[Access], None]) -> type[State]:
    """Return a class of state that tells of every access."""
    return type("State", (_Watched,), {"__slots__": (), "tell": staticmethod(tell)})
