"""A limit on how many agents work at the same time.

A slot is held by an agent that works, and given up while it waits inside the runtime: for agents
below it, for a person, for a message. Taken back after such a wait, it comes before those who
have not begun. So whoever holds a slot makes progress, and nesting cannot deadlock.

Cancellation: both kinds of waiting can be cancelled, and then hold nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, final

import attrs
import trio
from trio.lowlevel import ParkingLot, enable_ki_protection

__all__ = ["Entrance", "Limiter", "LimiterStatistics", "Slots"]


@attrs.frozen
class LimiterStatistics:
    """How a limiter stands: slots in use, agents that wait to go on, agents that wait to begin."""

    slots: int
    in_use: int
    returning: int
    starting: int


class Clock(Protocol):
    """What can stand for a while: `parallel_agent.invocation.IdleWatch`."""

    def pause(self) -> None:
        """Let it stand."""
        ...

    def resume(self) -> None:
        """Let it go on."""
        ...


@final
class Limiter:
    """At most ``slots`` agents at work at once, wherever they stand.

    Give one object to all agents that share something scarce::

        gpu = Limiter(2, name="gpu")
        drafts = ParallelAgent("drafts", [w.with_options(limiter=gpu) for w in writers])

    Agents queue for a slot, first come, first served; the time in the queue before an agent
    starts counts towards none of its timeouts. An agent holds no slot while it waits for agents
    below it, for input, for a message, or to be tried again, and none while it cleans up after a
    cancellation that came during such a wait. (If it goes on instead, its own scope having
    expired, it takes a slot again with its next event.)

    Args:
        slots: how many, from 1 on.
        name: for people.

    Raises:
        ValueError: ``slots`` is no positive whole number, or ``name`` no text.
    """

    def __init__(self, slots: int, *, name: str = "limiter") -> None:
        """See the class."""
        if type(slots) is not int or slots < 1:
            message = f"a limiter has a whole number of slots from 1 on, not {slots!r}"
            raise ValueError(message)
        if not isinstance(name, str):
            message = f"the name of a limiter is text, not {name!r:.80}"
            raise ValueError(message)  # noqa: TRY004  # as for its slots
        self._slots = slots
        self._name = name
        self._free = slots
        self._starting = ParkingLot()
        self._returning = ParkingLot()
        self._takers: dict[trio.lowlevel.Task, list[Limiter]] = {}

    @property
    def name(self) -> str:
        """For people."""
        return self._name

    @property
    def slots(self) -> int:
        """How many there are."""
        return self._slots

    def statistics(self) -> LimiterStatistics:
        """Return how it stands."""
        return LimiterStatistics(
            slots=self._slots,
            in_use=self._slots - self._free,
            returning=len(self._returning),
            starting=len(self._starting),
        )

    # The runtime's side.

    @enable_ki_protection
    async def acquire(
        self,
        *,
        returning: bool = False,
        idle: Clock | None = None,
        taken: list[Limiter] | None = None,
    ) -> None:
        """Wait for a slot; ``returning`` takes it ahead of those who start.

        ``idle`` stands while it waits: to queue is nobody's idleness. This limiter is added to
        ``taken`` in the step in which it hands over a slot, so that none is lost if the taker
        fails in the next.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        taken = [] if taken is None else taken
        if self._free and not self._returning and (returning or not self._starting):
            self._free -= 1
            taken.append(self)
            return
        task = trio.lowlevel.current_task()
        self._takers[task] = taken
        if idle is not None:
            idle.pause()
        try:
            # Whoever gives up a slot hands it over (see `release`): woken is having it.
            await (self._returning if returning else self._starting).park()
        finally:
            del self._takers[task]
            if idle is not None:
                idle.resume()

    def release(self) -> None:
        """Hand the slot to who waits longest, or put it back."""
        for lot in (self._returning, self._starting):
            for task in lot.unpark():
                self._takers[task].append(self)
                return
        self._free += 1

    def __repr__(self) -> str:
        return f"<Limiter {self._name}: {self._slots - self._free} of {self._slots} in use>"


@final
class Slots:
    """What one agent holds of the limiters that count it. Internal.

    Held while it works, given up while it waits inside the runtime.

    Attributes:
        idle: the nearest watch over the time between events, which stands while it queues.
        owed: it holds nothing, though it may be working: a wait was cancelled. If the agent goes
            on instead of cleaning up, it has to come back.
    """

    __slots__ = ("_coming_back", "_held", "_limiters", "_over", "_waits", "idle", "owed")

    def __init__(self, limiters: tuple[Limiter, ...]) -> None:
        """Hold nothing yet of ``limiters``, which are taken in this order."""
        self._limiters = limiters
        self._held = False
        self._over = False
        self._waits = 0
        self._coming_back: trio.Event | None = None
        self.idle: Clock | None = None
        self.owed = False

    @property
    def limited(self) -> bool:
        """Whether a limiter counts the agent."""
        return bool(self._limiters)

    async def take(self, *, returning: bool = False) -> None:
        """Wait for a slot in each limiter. Cancelled, it holds none."""
        taken: list[Limiter] = []
        try:
            # In one order everywhere, the run's own last: no two can wait for each other.
            for limiter in self._limiters:
                await limiter.acquire(returning=returning, idle=self.idle, taken=taken)
        except BaseException:
            for limiter in taken:
                limiter.release()
            raise
        self._held = True
        self.owed = False
        if self._over:
            self.give()

    def give(self) -> None:
        """Give up what it holds."""
        if self._held:
            self._held = False
            for limiter in self._limiters:
                limiter.release()

    def leave(self) -> None:
        """Give up what it holds, for good: the agent has ended."""
        # For good: a task of a foreign nursery may be coming back in the name of this agent.
        self._over = True
        self.owed = False
        self.give()

    def step_aside(self) -> None:
        """Hold nothing for a while: the agent waits, or runs beside those it waits for."""
        self._waits += 1
        self.owed = False
        self.give()

    async def step_back(self) -> None:
        """Take the slots back: after the last of such waits, if several tasks of one agent wait.

        Not called after a wait that was cancelled (see `stay_aside`): what is left to do then is
        to clean up, as a rule, and that must not wait for others.
        """
        self._waits -= 1
        while self._limiters and not (self._waits or self._held or self._over):
            if self._coming_back is not None:
                # Another task of this agent is taking them already: twice would be once too many.
                await self._coming_back.wait()
                continue
            self._coming_back = trio.Event()
            try:
                await self.take(returning=True)
            except BaseException:
                self.owed = not self._over
                raise
            finally:
                self._coming_back.set()
                self._coming_back = None
            if self._waits:  # another task waits by now, perhaps for somebody who needs a slot
                self.give()

    def stay_aside(self) -> None:
        """End a wait that was cancelled, and hold nothing."""
        self._waits -= 1
        self.owed = bool(self._limiters) and not (self._waits or self._held or self._over)

    async def come_back(self) -> None:
        """Take back what is owed."""
        self.step_aside()
        await self.step_back()


@attrs.frozen(eq=False)
class Entrance:
    """What a branch of an open fan-out passes before it starts.

    ``gate`` is the fan-out's own limit, held for the branch's life; ``flush`` records what the
    agent that forks has written by then.
    """

    gate: Slots | None
    flush: Callable[[], Awaitable[None]]
