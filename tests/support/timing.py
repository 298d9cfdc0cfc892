"""How the leaves of a drawn tree keep time, and a virtual clock that knows when all is lost.

On *free* time a pause of two beats is a sleep of two seconds, so leaves meet at the same moment
all the time: good for looking for trouble. On *kept* time each task, and each timeout, wakes at
moments that no other ever wakes at. Then everything happens in one order that can be worked out
beforehand, which is what the oracle does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

import trio
from trio.testing import MockClock

__all__ = ["HORIZON", "Free", "Kept", "NothingMovesError", "Timing", "clock_with_horizon"]

HORIZON = 2_000.0
"""Virtual seconds after which a run counts as hanging."""

_GRAIN = 1024  # moments in a beat; a power of two, so that virtual time stays exact


class Timing(Protocol):
    """How long a pause is."""

    async def pause(self, lane: str, beats: int) -> None:
        """Let time pass."""
        ...

    def within(self, lane: str, beats: int) -> trio.CancelScope:
        """Return a scope that expires."""
        ...


class Free:
    """A beat is a second, for everyone."""

    async def pause(self, lane: str, beats: int) -> None:  # noqa: ARG002  # of the protocol
        """Sleep for ``beats`` seconds."""
        await trio.sleep(beats)

    def within(self, lane: str, beats: int) -> trio.CancelScope:  # noqa: ARG002  # as above
        """Return a scope that expires in ``beats`` seconds."""
        return trio.move_on_after(beats)


class Kept:
    """Each lane has moments of its own, one in every beat."""

    def __init__(self, lanes: Iterable[str]) -> None:
        """Share the moments of a beat out among ``lanes``."""
        self._moments = {lane: (index + 1) / _GRAIN for index, lane in enumerate(lanes)}

    def next(self, lane: str, now: float, beats: int) -> float:
        """Return the lane's first moment after ``now``, or ``beats`` later than that."""
        moment = self._moments[lane]
        return math.floor(now - moment) + 1 + moment + beats

    async def pause(self, lane: str, beats: int) -> None:
        """Sleep until such a moment."""
        await trio.sleep_until(self.next(lane, trio.current_time(), beats))

    def within(self, lane: str, beats: int) -> trio.CancelScope:
        """Return a scope that expires at such a moment."""
        return trio.CancelScope(deadline=self.next(lane, trio.current_time(), beats))


class NothingMovesError(Exception):
    """Every task waits, and no timeout will ever wake one; or virtual time has run away."""


def clock_with_horizon() -> MockClock:
    """Return a virtual clock that jumps, and that raises where it would hang for real.

    The error leaves `trio.run` at once, through shields and all.
    """
    clock = MockClock(autojump_threshold=0)
    jump = clock._autojump

    def guarded_jump() -> None:
        waiting = trio.lowlevel.current_statistics().seconds_to_next_deadline
        if math.isinf(waiting) or clock.current_time() > HORIZON:
            message = f"at {clock.current_time()} virtual seconds nothing moves any more"
            raise NothingMovesError(message)
        jump()

    clock._autojump = guarded_jump  # type: ignore[method-assign]  # the class is final
    return clock
