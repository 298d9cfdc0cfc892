"""Whose a session is: how a run comes by it, keeps it, and gives it back.

One live run owns a session, by a lease of its session service. Runs of one process find each other
here; those of other processes are known by their lease alone.

Order: runs that queue for a session get it in the order in which they asked, within an event loop.
Cancellation: waiting can be cancelled, and then holds nothing. Blocks: releasing is shielded.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final
from weakref import WeakKeyDictionary

import attrs
import trio

from session.errors import (
    LeaseLostError,
    SessionBusyError,
    SessionError,
)
from session.lease import Lease, Unfinished
from session.service import (
    SessionService,
)
from session.session import SessionKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from parallel_agent.handle import RunCore

__all__ = ["Claim", "OnBusy", "claim", "live_claim"]

OnBusy: TypeAlias = Literal["error", "queue", "interrupt", "inject"]
"""What a run does that finds its session busy; see `Runner.open`."""

_LOOK_AGAIN: Final = 0.5
"""Seconds between two looks at a session that a run of another event loop or process holds."""

_INTERRUPTED: Final = "interrupted by another run of its session"


@attrs.define(eq=False)
class _Sessions:
    """The sessions of one service that runs of this process hold, and those who queue for them."""

    claims: dict[SessionKey, Claim] = attrs.Factory(dict[SessionKey, "Claim"])
    queues: dict[tuple[SessionKey, trio.lowlevel.TrioToken], trio.Lock] = attrs.Factory(
        dict[tuple[SessionKey, trio.lowlevel.TrioToken], trio.Lock]
    )


_HELD: Final[WeakKeyDictionary[SessionService, _Sessions]] = WeakKeyDictionary()


@final
class Claim:
    """What one run holds of its session, from its opening to its end.

    Attributes:
        lease: None if the service keeps no track of whose a session is.
        ended: the run has ended, and the session is free.
        core: the run, once it has begun.
    """

    def __init__(self, service: SessionService, lease: Lease | None) -> None:
        """Made by `claim`."""
        self.lease = lease
        self.ended = trio.Event()
        self.core: RunCore | None = None
        self._service = service
        self._loop = trio.lowlevel.current_trio_token()
        self._stop: str | None = None
        self._keeper = trio.CancelScope()

    @property
    def is_near(self) -> bool:
        """Whether its run is in this event loop."""
        return self._loop is trio.lowlevel.current_trio_token()

    def begin(self, core: RunCore, start_soon: Callable[..., object]) -> None:
        """The run has begun: keep its lease alive."""
        self.core = core
        if self._stop is not None:
            core.cancel(self._stop)
        if self.lease is not None and self.lease.seconds != math.inf:
            start_soon(self._keep, self.lease, core)

    async def _keep(self, lease: Lease, core: RunCore) -> None:
        with self._keeper:
            while True:
                await trio.sleep(lease.seconds / 3)
                try:
                    reason = await self._service.renew(lease)
                except LeaseLostError as exc:
                    core.stream.fail(exc)
                    return
                except SessionError:
                    continue  # the next time, perhaps; what is to be recorded says if not
                if reason is not None:
                    core.cancel(reason)

    def end(self) -> None:
        """The run has ended: keep its lease no longer."""
        self._keeper.cancel("the run has ended")

    async def release(self, unfinished: Unfinished | None = None) -> None:
        """Give the session back. Raises nothing: a lease that cannot be released ends by itself."""
        with trio.CancelScope(shield=True):
            if self.lease is not None:
                with suppress(SessionError):
                    await self._service.release(self.lease, unfinished=unfinished)
                sessions = _HELD.get(self._service)
                if sessions is not None and sessions.claims.get(self.lease.key) is self:
                    del sessions.claims[self.lease.key]
            self.ended.set()

    def interrupt(self, reason: str) -> None:
        """Cancel its run, in whatever event loop that is."""
        with suppress(trio.RunFinishedError):
            self._loop.run_sync_soon(self._interrupt, reason)

    def _interrupt(self, reason: str) -> None:
        self._stop = reason
        if self.core is not None:
            self.core.cancel(reason)


async def claim(
    service: SessionService, key: SessionKey, run_id: str, *, resumable: bool, on_busy: OnBusy
) -> Claim:
    """Take the session for a run.

    Raises:
        SessionBusyError: another run holds it, and ``on_busy`` is ``"error"`` or ``"inject"``.
        SessionNotFoundError: there is no such session.
    """
    if not service.owns:
        return Claim(service, None)
    sessions = _HELD.setdefault(service, _Sessions())
    owner = f"process {os.getpid()} on {socket.gethostname()}"
    reason: str | None = None
    async with _in_line(sessions, key, waits=on_busy in ("queue", "interrupt")):
        while True:
            try:
                lease = await service.acquire(key, run_id=run_id, owner=owner, resumable=resumable)
            except SessionBusyError:
                if on_busy not in ("queue", "interrupt"):
                    raise
                holder = sessions.claims.get(key)
                if on_busy == "interrupt" and reason is None:
                    reason = _INTERRUPTED
                    await _interrupt(service, key, holder)
                await _until_free(holder)
                continue
            made = sessions.claims[key] = Claim(service, lease)
            return made


@asynccontextmanager
async def _in_line(sessions: _Sessions, key: SessionKey, *, waits: bool) -> AsyncIterator[None]:
    """Wait in line; first come, first served."""
    place = (key, trio.lowlevel.current_trio_token())
    lock = sessions.queues.get(place)
    if not waits or (lock is None and key not in sessions.claims):
        yield
        return
    if lock is None:
        lock = sessions.queues[place] = trio.Lock()
    async with lock:
        yield
    if not lock.locked():
        sessions.queues.pop(place, None)


async def _interrupt(service: SessionService, key: SessionKey, holder: Claim | None) -> None:
    if holder is None:
        await service.ask_to_stop(key, _INTERRUPTED)
    else:
        holder.interrupt(_INTERRUPTED)


async def _until_free(holder: Claim | None) -> None:
    if holder is not None and holder.is_near:
        await holder.ended.wait()
    else:
        await trio.sleep(_LOOK_AGAIN)


def live_claim(service: SessionService, key: SessionKey) -> Claim | None:
    """Return the claim of the run of this event loop that holds the session, if there is one."""
    sessions = _HELD.get(service)
    found = None if sessions is None else sessions.claims.get(key)
    return found if found is not None and found.is_near else None
