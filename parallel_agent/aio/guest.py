"""One trio run inside one asyncio loop, on the loop's own thread.

In trio's guest mode a *tick* runs everything that can go now, and hands its host a callback for
the next tick. When nothing can go, trio waits in a thread of its own, for time and sockets. Three
things here make that fit for streams of events:

* **Its end.** When its main task ends, `asyncio.run` cancels the other tasks and drops whatever
  else is scheduled. A guest would just stop, with no ``finally`` run. So an *anchor*, an asyncio
  task, holds the guest: the loop cancels it like any other task, it cancels the trio side, and
  waits until that has ended. A loop that is closed without cancelling its tasks leaves a guest
  behind, which is ended in its stead when another one starts in this thread, or at exit.
* **Its speed.** Waking the thread costs more than an event does. So the guest stays awake for a
  few turns of the loop after it was given work (`_Clock`); and a reader that finds nothing to read
  runs the next tick itself (`Guest.turn`), instead of waiting for the loop to do it.
* **Its manners.** After ``MAX_TURNS`` ticks of that kind the loop has its turn, so that no stream,
  however busy, keeps other asyncio tasks waiting. A tick that brings many events counts for more.

Cancellation: cancelling the anchor ends the guest, and so does `Guest.stop`. Errors: an interrupt
(Ctrl-C) that trio has caught ends it, too, and is raised by one of those who wait for something on
the trio side, or else in the loop. Not safe for other threads than the loop's.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, final

import trio
from trio.lowlevel import enable_ki_protection

from parallel_agent.aio.interrupts import Later, would_tear
from parallel_agent.aio.link import LINK, Link, settle, settled
from parallel_agent.errors import HostError

if TYPE_CHECKING:
    from outcome import Outcome

__all__ = ["IN_TRIO", "Guest", "lifespan", "runtime"]

MAX_TURNS: Final = 64
"""Ticks that readers may run themselves before the loop must have had its turn."""

LIGHT: Final = 8
"""Events that a tick may bring, and still count as one."""

WARM: Final = 4
"""Turns of the loop for which an idle guest stays awake after it was given work."""

IN_TRIO: Final = (
    "parallel_agent.aio is for asyncio code, and this is a trio task: use parallel_agent.Runner, "
    "or, in an agent, `await ctx.run_agent(tree)`"
)

_GUESTS: Final[dict[asyncio.AbstractEventLoop, Guest]] = {}
"""The guest of each loop: a loop has no place of its own where it could be kept."""


@final
class _Clock(trio.abc.Clock):
    """The system's clock, with which an idle guest need not sleep at once."""

    def __init__(self) -> None:
        self.warm = 0

    def start_clock(self) -> None:
        """Nothing to start."""

    def current_time(self) -> float:
        return time.perf_counter()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        # Asked only when nothing can go. No time to sleep means: ask the loop for another tick.
        if self.warm > 0:
            self.warm -= 1
            return 0
        return deadline - time.perf_counter()


@final
class _Anchor(asyncio.Task[None]):
    """The asyncio task that holds a guest: to cancel it is to end the guest, which it waits for.

    A coroutine that catches its cancellation would not do: cancelled before its first step, it
    does not run at all.
    """

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._coroutine = guest.hold()
        super().__init__(self._coroutine, loop=guest.loop, name="parallel_agent.aio")

    def cancel(self, msg: Any = None) -> bool:  # noqa: ARG002  # as a task has it
        if self.done():
            return False
        self._guest.cancel("the asyncio loop is ending")
        return True

    def leave_behind(self) -> None:
        """Do without the loop, and let nobody complain that it has not ended this task."""
        self._log_destroy_pending = False
        self._coroutine.close()


@final
class Guest(Link):
    """The trio run of one asyncio loop. `here` returns the running loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start it. It can be given tasks when `ready` is done."""
        super().__init__(loop)
        self.ready: asyncio.Future[None] = loop.create_future()
        self.users = 0
        self._clock = _Clock()
        self._place = (os.getpid(), threading.current_thread())
        self._is_interruptible = threading.current_thread() is threading.main_thread()
        self._tick: Callable[[], object] | None = None
        # What trio's thread has delivered: the next tick, when trio has slept.
        self._delivered: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._is_due = False
        self._turns = 0
        self._nursery: trio.Nursery | None = None
        self.is_ending = False
        self._stops = False
        self._interrupt: KeyboardInterrupt | None = None
        self._is_awaited = False
        self.ended: asyncio.Future[None] = loop.create_future()
        self._hooks_of_loop = sys.get_asyncgen_hooks()
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._deliver,
            run_sync_soon_not_threadsafe=self._hold_tick,
            done_callback=self._done,
            # Signals wake asyncio and uvloop up by other means; nobody may have two such files.
            host_uses_signal_set_wakeup_fd=True,
            clock=self._clock,
        )
        self._hooks = sys.get_asyncgen_hooks()
        self._anchor = _Anchor(self)

    @classmethod
    async def here(cls, *, again: bool = False) -> Guest:
        """Return the running loop's guest, started if need be.

        Args:
            again: start one also if the loop has ended an earlier one, which it does at its own
                end. Whoever says so has to call `stop`.

        Raises:
            HostError: this is trio, or no asyncio loop runs here, or it is ending.
        """
        if trio.lowlevel.in_trio_task():
            raise HostError(IN_TRIO)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            message = "parallel_agent.aio needs a running asyncio loop, and none runs here"
            raise HostError(message) from None
        guest = _GUESTS.get(loop)
        while again and guest is not None and guest.is_ending and not guest.ended.done():
            # The loop has cancelled it, or another block of `runtime` is at its end.
            await asyncio.shield(guest.ended)
            guest = _GUESTS.get(loop)
        if guest is not None and guest.is_stopping:
            message = (
                "the trio side of this asyncio loop is just being shut down, by the end of a block "
                "of aio.runtime(), so no run can be opened; open runs inside of such a block"
            )
            raise HostError(message)
        if guest is not None and guest.is_ending and not (again and guest.ended.done()):
            message = (
                "the asyncio loop has cancelled its tasks, the one that holds its trio side among "
                "them, so no run can be opened any more; inside `async with aio.runtime():` it can"
            )
            raise HostError(message)
        if guest is None or guest.ended.done():
            _end_guests_left_behind()
            if trio.lowlevel.in_trio_run():
                message = (
                    "another asyncio loop of this thread, which is not running now, has runs that "
                    "are open, and a thread has one trio side at a time: end them first"
                )
                raise HostError(message)
            guest = _GUESTS[loop] = cls(loop)
        await asyncio.shield(guest.ready)
        return guest

    def start(
        self,
        function: Callable[..., Awaitable[object]],
        *args: object,
        name: str,
    ) -> None:
        """Start a trio task. See `Link`."""
        if self._nursery is None or self.is_ending:
            message = "the trio side of this asyncio loop has ended"
            raise HostError(message)
        self._nursery.start_soon(function, *args, name=name)
        self.stay_awake()

    def to_asyncio(self, function: Callable[..., object], *args: object) -> None:
        """Call a function, here and now: both sides share a thread."""
        function(*args)
        self.stay_awake()

    def to_trio(self, function: Callable[..., object], *args: object) -> None:
        """Call a function, here and now: both sides share a thread."""
        function(*args)
        self.stay_awake()

    def stay_awake(self) -> None:
        """Do not fall asleep at once when there is nothing to do: there will be in a moment."""
        self._clock.warm = WARM

    def turn(self, events: int = 1) -> bool:
        """Run one tick, here and now, if one is due. Say whether it was.

        Not, too, after `MAX_TURNS` of them without a turn of the loop.

        Args:
            events: how many have been read since the reader's last turn. A tick of a wide tree
                brings one of each branch, and to read them takes the loop's time as well.
        """
        if self._tick is None or self._turns >= MAX_TURNS:
            return False
        self._turns += max(events // LIGHT, 1)
        self._run_tick()
        return True

    async def stop(self) -> None:
        """End it: cancel its tasks and wait for them, also when that wait is cancelled."""
        self._stops = True
        self.cancel("the trio side of the asyncio loop is shut down")
        interrupted = await settled(self.ended)
        interrupted = await settled(self._anchor) or interrupted
        self._forget()
        if interrupted is not None:
            raise interrupted

    @property
    def is_stopping(self) -> bool:
        """Whether it is on its way to the end by `stop`."""
        return self._stops and not self.ended.done()

    def _forget(self) -> None:
        if _GUESTS.get(self.loop) is self:
            del _GUESTS[self.loop]

    def cancel(self, reason: str) -> None:
        """Cancel its tasks. When they have ended, so has it, and `ended` is done."""
        self.is_ending = True
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel(reason)
            self.stay_awake()
        if not self.loop.is_closed():
            # A KeyboardInterrupt may have hit the loop right before it called what is due.
            self.loop.call_soon(self._turn_of_the_loop)
            self.loop.call_soon(self._turn_of_the_loop_after_sleep)

    def why_ended(self) -> BaseException:
        """Return what to raise where something has been cut short by the end of the trio side."""
        interrupt, self._interrupt = self._interrupt, None
        if interrupt is not None:
            return interrupt
        return HostError("the trio side of this asyncio loop was shut down meanwhile")

    # For the guests of loops that end without ending them.

    @property
    def is_of_this_thread(self) -> bool:
        """Whether it is this thread's, and of no process that this one was forked from."""
        return self._place == (os.getpid(), threading.current_thread())

    @property
    def is_left_behind(self) -> bool:
        """Whether it is of no use any more. Its loop is not running; another one of its thread is.

        A loop that is only stopped may go on with the runs it has.
        """
        if self.ended.done() or not self.is_of_this_thread:
            return False
        return self.loop.is_closed() or self._nursery is None or not self._nursery.child_tasks

    def end_instead_of_loop(self) -> None:
        """Cancel its tasks and run them to their end, here and now. Its loop is not running."""
        self.cancel("its asyncio loop was left without cancelling its tasks")
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(*self._hooks)
        try:
            while not self.ended.done():
                if self._tick is None:
                    self._tick = self._delivered.get()
                self._run_tick()
        finally:
            sys.set_asyncgen_hooks(*hooks)
            self._forget()
            if self.loop.is_closed():
                self._anchor.leave_behind()

    # What trio calls.

    @enable_ki_protection
    async def _main(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            LINK.set(self)
            settle(self.ready)
            if self.is_ending:  # it was, before it has begun
                nursery.cancel_scope.cancel("the asyncio loop is ending")
            try:
                await trio.sleep_forever()
            except KeyboardInterrupt as interrupt:
                # Where asyncio does not handle Ctrl-C, trio does, and it comes here. Whoever waits
                # on the asyncio side raises it, when the trio side has cleaned up.
                self._interrupt = interrupt
                self._is_awaited = bool(nursery.child_tasks)
                self.cancel("interrupted")

    def _hold_tick(self, tick: Callable[[], object]) -> None:
        self._tick = tick
        if not self._is_due and not self.loop.is_closed():
            self._is_due = True
            self.loop.call_soon(self._turn_of_the_loop)

    def _deliver(self, tick: Callable[[], object]) -> None:
        self._delivered.put(tick)
        with suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self._turn_of_the_loop_after_sleep)

    def _turn_of_the_loop(self) -> None:
        self._is_due = False
        self._turns = 0
        self._run_tick()

    def _turn_of_the_loop_after_sleep(self) -> None:
        if not self._delivered.empty():
            self._tick = self._delivered.get_nowait()
            self._turns = 0
            self._run_tick()

    def _run_tick(self) -> None:
        tick = self._tick
        if tick is None:
            return
        # A loop that is run again installs its own hooks, and forgets trio's.
        hooks = sys.get_asyncgen_hooks()
        if hooks.firstiter is not self._hooks.firstiter and hooks == self._hooks_of_loop:
            sys.set_asyncgen_hooks(*self._hooks)
        if self._is_interruptible and would_tear():
            with Later():
                self._tick = None
                tick()
        else:
            self._tick = None
            tick()

    def _done(self, result: Outcome[None]) -> None:
        self._nursery = None
        self.is_ending = True
        if self._stops:
            self._forget()
        settle(self.ready)
        settle(self.ended)
        result.unwrap()
        if self._interrupt is not None and not self._is_awaited:
            raise self._interrupt

    async def hold(self) -> None:
        """Be what the anchor does."""
        await self.ended

    def __repr__(self) -> str:
        return f"<Guest of {self.loop!r}>"


def _end_guests_left_behind() -> None:
    """End the guests of this thread that nobody will: trio runs once in a thread at a time."""
    for loop, guest in list(_GUESTS.items()):
        if guest.is_left_behind:
            guest.end_instead_of_loop()
        elif guest.ended.done() and loop.is_closed():
            _GUESTS.pop(loop, None)


@atexit.register
def _end_guests_at_exit() -> None:
    """End those whose loops have just been left: what is open in them shall clean up."""
    for loop, guest in list(_GUESTS.items()):
        if guest.ended.done() or not guest.is_of_this_thread or loop.is_running():
            continue
        if loop.is_closed():
            guest.end_instead_of_loop()
        else:
            loop.run_until_complete(guest.stop())


def open_guests() -> int:
    """Return how many loops have a guest that has not ended. For tests."""
    return sum(not guest.ended.done() for guest in _GUESTS.values())


@asynccontextmanager
async def runtime() -> AsyncGenerator[None]:
    """Keep the trio side of the running asyncio loop for this block, and end it afterwards.

    Nobody needs this: the first run starts it, and the loop ends it. It is for those who want the
    start at a time of their own, or an end before the loop's. Blocks nest, and the outermost ends
    it; runs that are still open then are cancelled, and have cleaned up when the block has ended.

    Raises:
        HostError: no asyncio loop runs here.
    """
    guest = await Guest.here(again=True)
    guest.users += 1
    try:
        yield
    finally:
        guest.users -= 1
        if not guest.users:
            await guest.stop()


@asynccontextmanager
async def lifespan(_app: object) -> AsyncGenerator[None]:
    """Be the ``lifespan`` of a Starlette or FastAPI application: `runtime` around its life."""
    async with runtime():
        yield
