"""An asyncio loop in a thread of its own, for a trio run that has none around it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final, final

import trio

from parallel_agent.aio.link import LINK, Link
from parallel_agent.errors import HostError

__all__ = ["LOOP_THREADS", "LoopThread"]

LOOP_THREADS: Final[dict[asyncio.AbstractEventLoop, Link]] = {}
"""The links of the loops that run in threads of ours."""


_ENDED: Final = "the trio run that has started this asyncio loop has ended"


@final
class LoopThread(Link):
    """A loop in a thread, which lives as long as the trio run that has started it.

    When the run ends, what is left in the loop is cancelled and waited for, as by `asyncio.run`.
    """

    def __init__(self) -> None:
        """Start it, for the trio run this is called in."""
        super().__init__(asyncio.new_event_loop())
        self._token = trio.lowlevel.current_trio_token()
        self._end = asyncio.Event()
        LOOP_THREADS[self.loop] = self
        LINK.set(self)
        # A system task is cancelled when the main one has ended, and nobody can use the loop.
        trio.lowlevel.spawn_system_task(self._keep, name="parallel_agent.aio loop")

    def to_asyncio(self, function: Callable[..., object], *args: object) -> None:
        """Call a function in the loop's thread. See `Link`."""
        self.loop.call_soon_threadsafe(function, *args)

    def to_trio(self, function: Callable[..., object], *args: object) -> None:
        """Call a function in trio's thread; not at all if the run has ended. See `Link`."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function, *args)

    def start(
        self,
        function: Callable[..., Awaitable[object]],
        *args: object,
        name: str,
    ) -> None:
        """Start a trio task. See `Link`."""
        context = contextvars.copy_context()
        spawn = partial(
            trio.lowlevel.spawn_system_task, function, *args, name=name, context=context
        )
        try:
            self._token.run_sync_soon(spawn)
        except trio.RunFinishedError:
            raise HostError(_ENDED) from None

    def why_ended(self) -> BaseException:
        """Return what to raise where something has been cut short. See `Link`."""
        return HostError(_ENDED)

    async def _keep(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.to_thread.run_sync, limiter=_one()), self._run)
            try:
                await trio.sleep_forever()
            finally:
                self.loop.call_soon_threadsafe(self._end.set)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
                runner.run(self._wait())
        finally:
            del LOOP_THREADS[self.loop]

    async def _wait(self) -> None:
        await self._end.wait()


def _one() -> trio.CapacityLimiter:
    # Its own, not one of the threads that agents share: they may all be taken, by agents that
    # wait for this one.
    return trio.CapacityLimiter(1)
