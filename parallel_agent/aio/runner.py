"""Runs in asyncio applications: the same trees, the same runner, the same events.

Order, acknowledgement and errors are those of `parallel_agent.Runner`: the run itself goes on
trio, on the loop's own thread (see `guest`), and only its reader is asyncio's.

Blocks: leaving cancels what still runs and returns when every ``finally`` has finished, also when
asyncio cancels that wait; the cancellation is raised after it. So an ``asyncio.timeout`` around a
run ends it in good order. Cancelling a read loses no event: a keep-alive ``asyncio.wait_for``
around one step of the iteration may time out as often as it likes.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Literal, Unpack, cast, final

import trio

from parallel_agent.aio.bridge import from_trio
from parallel_agent.aio.guest import IN_TRIO, Guest
from parallel_agent.aio.host import RunHost
from parallel_agent.aio.link import settled
from parallel_agent.aio.served import Served
from parallel_agent.errors import HostError, ReadError
from parallel_agent.handle import RunBlock, RunHandle, core_of
from parallel_agent.options import OpenOptions, ResumeOptions
from parallel_agent.result import Result
from parallel_agent.run import OpenRun as TrioOpenRun
from parallel_agent.run import Run as TrioRun
from parallel_agent.runner import HostRunner
from session.content import Content
from session.event import Event
from session.lease import UnfinishedRun

__all__ = ["OpenRun", "Run", "Runner"]


@final
class Run(RunHandle):
    """A run in asyncio, inside its block: an async iterator of events, and a handle.

    As `parallel_agent.Run`, of which it has all methods. To be used in the loop that opened it.
    """

    def __init__(self, run: TrioRun, served: Served) -> None:
        """Made by `Runner.open`."""
        super().__init__(core_of(run))
        self._served = served

    async def __anext__(self) -> Event:
        stream = self._stream
        stream.begin_reading()
        try:
            while True:
                event = stream.next_nowait()
                if event is not None:
                    return event
                await self._served.wait_readable(stream)
        finally:
            stream.reading = False

    async def _checkpoint(self) -> None:
        await asyncio.sleep(0)


@final
class OpenRun(RunBlock):
    """What `Runner.open` returns: ``async with`` it."""

    def __init__(self, block: TrioOpenRun) -> None:
        """Made by `Runner.open`."""
        self._block = block
        self._served: Served | None = None

    async def __aenter__(self) -> Run:
        if self._served is not None:
            message = "this run was opened already; call runner.open(...) again for another one"
            raise ReadError(message)
        guest = await Guest.here()
        served = self._served = Served(guest, self._block)
        guest.start(served.serve, name="parallel_agent.aio run")
        try:
            await asyncio.shield(served.opened)
        except asyncio.CancelledError:
            served.give_up()
            await settled(served.ended)
            raise
        if served.run is None:
            if isinstance(served.failure, trio.Cancelled):
                raise served.guest.why_ended()
            raise cast("BaseException", served.failure)
        return Run(served.run, served)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> Literal[False]:
        served = self._served
        if served is None or served.run is None:
            return False
        if isinstance(error, asyncio.CancelledError):
            served.run.cancel("cancelled from outside, by asyncio")
        served.leave(error)
        cancelled = await settled(served.ended)
        failure = served.failure
        if isinstance(failure, trio.Cancelled):
            # The trio side has ended: the run was cancelled, and its result says so.
            ended = served.guest.why_ended()
            failure = ended if isinstance(ended, KeyboardInterrupt) else None
        if cancelled is not None and not isinstance(error, asyncio.CancelledError):
            raise cancelled from failure
        if failure is not None:
            raise failure
        return False


@final
class Runner(HostRunner):
    """Runs a tree of agents in asyncio, as often and as often at once as wanted.

    Takes the arguments of `parallel_agent.Runner`, and behaves as it does. What agents and
    services do is trio all the same; see `from_asyncio` for those that need asyncio, and
    `from_trio` to call a service.

    Raises: as `parallel_agent.Runner`.
    """

    def open(self, message: str | Content | None = None, **options: Unpack[OpenOptions]) -> OpenRun:
        """Return a block that runs the tree; inside it, the run is an async iterator of events.

        ::

            async with aio.Runner(tree).open("hello") as run:
                async for event in run:
                    print(event.author, event.text)
            print(run.result.text)

        Takes the arguments of `parallel_agent.Runner.open`, and raises what it raises. Entering
        the block raises `HostError` where no asyncio loop runs.
        """
        return OpenRun(self._runner.open(message, **options))

    async def run(
        self, message: str | Content | None = None, **options: Unpack[OpenOptions]
    ) -> Result:
        """Run the tree to its end and return the result, as `parallel_agent.Runner.run` does.

        Cancelled, it cancels the tree, and waits until that has cleaned up.

        Raises:
            HostError: no asyncio loop runs here, or this is trio.
            BaseException: whatever made the run fail, as itself.
        """
        if trio.lowlevel.in_trio_task():
            raise HostError(IN_TRIO)
        return await from_trio(self._runner.run, message, **options)

    def reopen(self, session_id: str, **options: Unpack[ResumeOptions]) -> OpenRun:
        """Return a block that goes on with the unfinished run of a session, as `open` does.

        Takes the arguments of `parallel_agent.Runner.reopen`, and raises what it raises.
        """
        return OpenRun(self._runner.reopen(session_id, **options))

    async def resume(self, session_id: str, **options: Unpack[ResumeOptions]) -> Result:
        """Go on with the unfinished run of a session, to its end. Takes the arguments of `reopen`.

        Cancelled, it leaves the run unfinished, when the tree has cleaned up.

        Raises:
            HostError: no asyncio loop runs here, or this is trio.
            BaseException: what `reopen` raises, or whatever made the run fail, as itself.
        """
        if trio.lowlevel.in_trio_task():
            raise HostError(IN_TRIO)
        return await from_trio(self._runner.resume, session_id, **options)

    async def unfinished(self, *, user_id: str | None = None) -> list[UnfinishedRun]:
        """Return the runs that can be resumed, as `parallel_agent.Runner.unfinished` does.

        Raises:
            HostError: no asyncio loop runs here, or this is trio.
        """
        if trio.lowlevel.in_trio_task():
            raise HostError(IN_TRIO)
        return await from_trio(self._runner.unfinished, user_id=user_id)

    def host(self) -> RunHost:
        """Return a block that reads runs on behalf of clients that come and go.

        ::

            async with aio.Runner(tree).host() as host:
                run_id = await host.start("hello", session_id="s1")
                async for event in host.subscribe("s1"):
                    print(event.author, event.text)

        It is `parallel_agent.Runner.host`, awaited by asyncio. Entering it raises `HostError`
        where no asyncio loop runs.
        """
        return RunHost(self._runner.host())

    def __repr__(self) -> str:
        return f"<aio.Runner {self.app_name}: {self.tree!r}>"
