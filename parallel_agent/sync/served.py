"""The trio side of a run that is read from another thread.

A run's block must be entered, read and left in one trio task. `Served` has that task, in a
`TrioThread`, and what its reader tells it to do from outside.

What makes a hand-over cheap: to wake a trio that waits for time and sockets costs four times as
much as to wake a thread that waits for a lock. A reader that comes back within `PATIENCE` finds
trio waiting for just that. One that does not makes the rest of the tree wait once for so long, and
after that not again, until it has been quick once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, final

import trio
from trio.lowlevel import ParkingLot, enable_ki_protection

from parallel_agent.errors import ReadError
from parallel_agent.run import OpenRun, Run
from parallel_agent.sync.interrupts import INTERRUPTS, uninterrupted
from parallel_agent.sync.thread import TrioThread
from session.event import Event

__all__ = ["Served"]

PATIENCE: Final = 0.0002
"""Seconds for which trio waits for a reader who has just got an event."""

_OVER: Final = StopAsyncIteration()
"""The answer after which there are no more."""


@final
class Served:
    """One run, in a thread of its own.

    Args:
        block: the run, not opened yet.

    Attributes:
        run: the run, when `open` has returned.
    """

    def __init__(self, block: OpenRun) -> None:
        """Nothing runs before `open`."""
        self.run: Run | None = None
        self._block = block
        self._thread = TrioThread(self._serve, name="parallel_agent.sync run")
        # What the reader waits for: first the run, then, for each that it wants, an event or what
        # is raised instead of one.
        self._answers: SimpleQueue[Run | Event | BaseException] = SimpleQueue()
        # The reader writes these two.
        self._has_asked = False
        self._asked_at = 0.0
        self._one_reader = threading.Lock()
        # Trio's thread writes the rest.
        self._opening = trio.CancelScope()
        self._reading = trio.CancelScope()
        self._idle = ParkingLot()
        self._is_open = False
        self._is_wanted = False
        self._left_with: BaseException | None = None
        self._is_patient = True
        self._answered_at = 0.0

    # The reader's side.

    def open(self) -> Run:
        """Start the thread, open the run. If that fails, the thread has ended."""
        self._thread.start()
        try:
            answer = INTERRUPTS.wait(self._answers)
        except BaseException as exc:
            self.leave(exc)
            raise
        if isinstance(answer, Run):
            self.run = answer
            return answer
        self.leave(None)
        raise answer

    @uninterrupted
    def next(self) -> Event:
        """Acknowledge the event got last, and wait for the next.

        Interrupted, it loses nothing.

        Raises: as ``anext`` of a run; StopAsyncIteration, too.
        """
        if self._thread.is_here:
            message = "an agent cannot read the run that it belongs to"
            raise ReadError(message)
        if not self._one_reader.acquire(blocking=False):
            message = "two threads are reading one run at the same time; a run has one reader"
            raise ReadError(message)
        try:
            if self._thread.is_over:
                raise StopAsyncIteration
            if not self._has_asked:
                self._asked_at = time.perf_counter()
                self._thread.tell(self._want)
                self._has_asked = True
            answer = INTERRUPTS.wait(self._answers)
            self._has_asked = False
        finally:
            self._one_reader.release()
        if isinstance(answer, Event):
            return answer
        if answer is _OVER:
            self._answers.put(answer)  # also for the next who asks
            raise StopAsyncIteration
        try:
            raise answer
        finally:
            del answer  # no cycle of an error and its own traceback

    def ask(self, function: Callable[[], Any]) -> Any:
        """Call a function in trio's thread, if that still runs, and return what it returns."""
        return self._thread.ask(function)

    def leave(self, error: BaseException | None) -> BaseException | None:
        """Leave the run's block, with what the reader's own was left with; end the thread.

        Returns what that has raised, or an interrupt that came meanwhile.
        """

        def leave() -> None:
            self._left_with = error
            self._reading.cancel()
            if not self._is_open:
                self._opening.cancel("left while it was opened")

        return self._thread.end(leave) or self._thread.failure

    # Trio's side.

    @enable_ki_protection
    async def _serve(self) -> None:
        # Around the whole block, whose nursery must not outlive it; cancelled only until then.
        with self._opening:
            try:
                run = await self._block.__aenter__()
            except BaseException as exc:
                self._answers.put(exc)
                raise
            self._is_open = True
            self._answers.put(run)
            error: BaseException | None = None
            try:
                with self._reading:
                    await self._answer(run)
                error, self._left_with = self._left_with, None
            except BaseException as exc:  # it was left while it was opened
                error = exc
                raise
            finally:
                try:
                    kind = None if error is None else type(error)
                    await self._block.__aexit__(kind, error, None)
                finally:
                    self._answers.put(_OVER)  # should another thread be reading

    async def _answer(self, run: Run) -> None:
        while True:
            if self._is_patient:
                self._is_patient = self._thread.linger(PATIENCE)
            while not self._is_wanted:
                await self._idle.park()
            self._is_wanted = False
            answer: Event | BaseException
            try:
                answer = await anext(run)
            except trio.Cancelled:
                raise
            except BaseException as exc:  # noqa: BLE001  # raised in the reader's thread
                answer = exc
            self._answered_at = time.perf_counter()
            self._answers.put(answer)
            del answer

    def _want(self) -> None:
        self._is_wanted = True
        if not self._is_patient:
            # By when it asked: to be told of that takes long, now that trio waits for other things.
            self._is_patient = self._asked_at - self._answered_at < PATIENCE
        self._idle.unpark_all()
