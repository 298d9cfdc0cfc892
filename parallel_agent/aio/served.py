"""The trio side of a run that is read from asyncio.

A run's block must be entered and left in one trio task. `Served.serve` is that task: it opens the
run, waits for events when the reader on the asyncio side finds none, and leaves the block when the
reader has left its own. Everything else (handing out, acknowledging, sending, cancelling) is plain,
and the asyncio side does it itself: both sides share a thread.
"""

from __future__ import annotations

import asyncio
from typing import final

import trio
from trio.lowlevel import ParkingLot, enable_ki_protection

from parallel_agent.aio.guest import Guest
from parallel_agent.aio.link import settle
from parallel_agent.handle import core_of
from parallel_agent.run import OpenRun, Run
from parallel_agent.stream import Stream

__all__ = ["Served"]


@final
class Served:
    """One run's task on the trio side.

    Args:
        guest: where it runs.
        block: the run, not opened yet.
    """

    def __init__(self, guest: Guest, block: OpenRun) -> None:
        """Nothing runs yet: give `serve` to the guest."""
        self.guest = guest
        self.opened: asyncio.Future[None] = guest.loop.create_future()
        self.ended: asyncio.Future[None] = guest.loop.create_future()
        # None before it was opened, and if it could not be: `failure` then says why.
        self.run: Run | None = None
        self.failure: BaseException | None = None
        self._block = block
        self._scope = trio.CancelScope()
        self._left_with: BaseException | None = None
        self._is_left = False
        # What the reader waits for; it is woken when the stream may have something for it.
        self._readable: asyncio.Future[None] | None = None
        self._is_wanted = False
        self._waiting: trio.CancelScope | None = None
        self._idle = ParkingLot()
        self._delivered = 0  # when the reader was here last

    # The asyncio side.

    async def wait_readable(self, stream: Stream) -> None:
        """Wait until `Stream.next_nowait` may have something. Cancelled, it loses nothing."""
        guest = self.guest
        guest.stay_awake()
        if stream.blocks:
            self._want()
        # Rather than wait for the loop to wake trio, and for trio to wake this task.
        while not stream.is_readable:
            events, self._delivered = stream.delivered - self._delivered, stream.delivered
            if not guest.turn(events):
                break
        else:
            return
        self._want()
        if not self.ended.done():
            readable = self._readable = guest.loop.create_future()
            try:
                await readable
            except asyncio.CancelledError:
                self._do_not_wait()
                raise

    def _want(self) -> None:
        if not self._is_wanted:
            self._is_wanted = True
            self._idle.unpark_all()

    def _do_not_wait(self) -> None:
        self._is_wanted = False
        if self._waiting is not None:
            self._waiting.cancel()

    def give_up(self) -> None:
        """Stop opening the run: whoever wanted it was cancelled."""
        self._scope.cancel("cancelled from asyncio")

    def leave(self, error: BaseException | None) -> None:
        """Leave the run's block, with what the reader's own was left with. `ended` follows."""
        self._left_with = error
        self._is_left = True
        self._do_not_wait()
        self._idle.unpark_all()
        self.guest.stay_awake()

    # The trio side.

    @enable_ki_protection
    async def serve(self) -> None:
        """Open the run, serve its reader, and leave it. Raises nothing but its cancellation."""
        try:
            with self._scope:
                self.run = await self._block.__aenter__()
                settle(self.opened)
                try:
                    await self._wait_until_left(self.run)
                except BaseException as exc:
                    # The guest ends, or we have a bug.
                    await self._block.__aexit__(type(exc), exc, exc.__traceback__)
                    raise
                error = self._left_with
                kind = None if error is None else type(error)
                await self._block.__aexit__(kind, error, None)
        except trio.Cancelled as exc:
            self.failure = exc
            raise
        except BaseException as exc:  # noqa: BLE001  # raised on the asyncio side
            self.failure = exc
        finally:
            settle(self.opened)
            settle(self._readable)
            settle(self.ended)

    async def _wait_until_left(self, run: Run) -> None:
        stream = core_of(run).stream
        while not self._is_left:
            if self._is_wanted:
                with trio.CancelScope() as self._waiting:
                    await stream.wait()
                self._is_wanted = False
                settle(self._readable)
            else:
                await self._idle.park()
