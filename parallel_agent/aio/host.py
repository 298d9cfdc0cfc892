"""Detached runs in asyncio applications: a host of trio's, and asyncio code that talks to it.

The host's block is entered and left in one trio task, `_Served.serve`. What waits goes there by
`from_trio`; the rest is plain, and done at once: both sides share a thread.

Blocks: leaving cancels the runs and returns when every ``finally`` has finished, also when asyncio
cancels that wait; the cancellation is raised after it. Cancelling a subscriber's step loses no
event.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Literal, NoReturn, Self, Unpack, final

import trio
from trio.lowlevel import enable_ki_protection

from parallel_agent.aio.bridge import from_trio
from parallel_agent.aio.guest import Guest
from parallel_agent.aio.link import settle, settled
from parallel_agent.errors import ReadError
from parallel_agent.host import RunHost as TrioRunHost
from parallel_agent.hosted import Ending, RunInfo
from parallel_agent.hosted import HostedEvents as TrioHostedEvents
from parallel_agent.options import OpenOptions, ResumeOptions
from parallel_agent.questions import PendingRequest
from parallel_agent.result import Result
from session.content import Content
from session.event import USER, Event

__all__ = ["HostedEvents", "RunHost"]


@final
class RunHost:
    """What `Runner.host` returns: ``async with`` it. Inside the block it starts runs.

    As `parallel_agent.RunHost`, of which it has all methods. To be used in the loop that entered
    it.
    """

    def __init__(self, host: TrioRunHost) -> None:
        """Made by `Runner.host`."""
        self._host = host
        self._served: _Served | None = None

    async def __aenter__(self) -> Self:
        if self._served is not None:
            message = "this host was entered already; call runner.host() again for another one"
            raise ReadError(message)
        guest = await Guest.here()
        served = self._served = _Served(guest, self._host)
        guest.start(served.serve, name="parallel_agent.aio host")
        try:
            await asyncio.shield(served.entered)
        except asyncio.CancelledError:
            served.leave()
            await settled(served.ended)
            raise
        if served.ended.done():
            raise served.failure or guest.why_ended()
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> Literal[False]:
        served = self._served
        if served is None:
            return False
        served.leave()
        cancelled = await settled(served.ended)
        failure = served.failure
        if failure is None and served.is_cut_short:
            # The trio side has ended: the runs were cancelled, and their results say so.
            ended = served.guest.why_ended()
            failure = ended if isinstance(ended, KeyboardInterrupt) else None
        if cancelled is not None and not isinstance(error, asyncio.CancelledError):
            raise cancelled from failure
        if failure is not None:
            raise failure
        return False

    def __enter__(self) -> NoReturn:
        message = "use `async with runner.host() as host:`, not `with`"
        raise ReadError(message)

    def __exit__(self, *_details: object) -> None:
        """Never called; here so that `__enter__` can say what is wrong."""

    async def start(
        self, message: str | Content | None = None, **options: Unpack[OpenOptions]
    ) -> str:
        """Start a run and return its id, when it owns its session and the message is recorded.

        Takes the arguments of `parallel_agent.RunHost.start`, and raises what it raises.
        """
        return await from_trio(self._host.start, message, **options)

    async def resume(self, session_id: str, **options: Unpack[ResumeOptions]) -> str:
        """Go on with the unfinished run of a session; return its id.

        Takes the arguments of `parallel_agent.RunHost.resume`, and raises what it raises.
        """
        return await from_trio(self._host.resume, session_id, **options)

    @property
    def runs(self) -> Mapping[str, RunInfo]:
        """How its runs stand, by their ids; see `parallel_agent.RunHost.runs`."""
        return self._host.runs

    async def wait(self, run_id: str) -> Result:
        """Wait for the end of a run, and return what it came to; any number of times.

        Raises:
            RunEndedError: this host knows no such run (any more).
            BaseException: what the run has failed with, as itself.
        """
        return await from_trio(self._host.wait, run_id)

    def cancel(self, run_id: str, reason: str = "cancelled by host.cancel()") -> None:
        """Cancel every agent of a run. Does not wait; does nothing to one that has ended.

        Raises:
            RunEndedError: this host knows no such run (any more).
        """
        self._host.cancel(run_id, reason)

    async def send(self, run_id: str, content: str | Content, *, to: str | None = None) -> Event:
        """Send a message to a branch of a run; see `parallel_agent.RunHost.send`."""
        return await from_trio(self._host.send, run_id, content, to=to)

    def pending(self, run_id: str) -> tuple[PendingRequest, ...]:
        """Return the questions of a run that wait for an answer.

        Raises:
            RunEndedError: this host knows no such run (any more).
        """
        return self._host.pending(run_id)

    async def respond(self, run_id: str, request_id: str, value: Any) -> Event:
        """Answer a question of a run; see `parallel_agent.RunHost.respond`."""
        return await from_trio(self._host.respond, run_id, request_id, value)

    def subscribe(self, session_id: str, *, user_id: str = USER, after: int = 0) -> HostedEvents:
        """Return an iterator of a session's events with a number above ``after``.

        See `parallel_agent.RunHost.subscribe`; `stream_sse` sends them to a browser.
        """
        return HostedEvents(self._host.subscribe(session_id, user_id=user_id, after=after))

    def __repr__(self) -> str:
        return repr(self._host).replace("<RunHost", "<aio.RunHost", 1)


@final
class HostedEvents(AsyncIterator[Event]):
    """What `RunHost.subscribe` returns: the session's events, to the end of the host's runs."""

    def __init__(self, events: TrioHostedEvents) -> None:
        """Made by `RunHost.subscribe`."""
        self._events = events
        # What trio's side has read and nobody has taken: its step was cancelled too late.
        self._read: Event | None = None

    def go_on_after(self, number: int) -> None:
        """Begin after that number instead, if the log goes so far. Before the first step.

        For numbers that somebody outside has named.
        """
        self._events.go_on_after(number)

    @property
    def ending(self) -> Ending | None:
        """How the last run at the session has ended, and its failure; None if nobody knows."""
        return self._events.ending

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event; wait for it while there may be one. Cancelled, it loses none."""
        if self._read is None:
            await from_trio(self._step)
        else:
            await asyncio.sleep(0)
        event, self._read = self._read, None
        if event is None:
            raise StopAsyncIteration
        return event

    async def _step(self) -> None:
        self._read = await anext(self._events, None)

    def __repr__(self) -> str:
        return repr(self._events).replace("<", "<aio.", 1)


@final
class _Served:
    """A host's task on the trio side."""

    def __init__(self, guest: Guest, host: TrioRunHost) -> None:
        self.guest = guest
        self.entered: asyncio.Future[None] = guest.loop.create_future()
        self.ended: asyncio.Future[None] = guest.loop.create_future()
        self.failure: BaseException | None = None
        self.is_cut_short = False
        self._host = host
        self._left = trio.Event()

    def leave(self) -> None:
        """Leave the block. `ended` follows."""
        self._left.set()
        self.guest.stay_awake()

    @enable_ki_protection
    async def serve(self) -> None:
        """Enter the block, wait until it is left, and leave it. Raises only its cancellation."""
        try:
            async with self._host:
                settle(self.entered)
                await self._left.wait()
        except trio.Cancelled:
            self.is_cut_short = True
            raise
        except BaseException as exc:  # noqa: BLE001  # raised on the asyncio side
            self.failure = exc
        finally:
            settle(self.ended)
            settle(self.entered)
