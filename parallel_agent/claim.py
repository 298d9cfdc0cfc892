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
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final
from weakref import WeakKeyDictionary

import attrs
import trio

from session.errors import LeaseLostError, SessionBusyError, SessionError
from session.lease import Lease, Unfinished
from session.service import SessionService
from session.session import SessionKey

if TYPE_CHECKING:
    from parallel_agent.handle import RunCore

__all__ = ["Claim", "OnBusy", "live_claim"]

OnBusy: TypeAlias = Literal["error", "queue", "interrupt", "inject"]
"""What a run does that finds its session busy; see `Runner.open`."""

_LOOK_AGAIN: Final = 0.5
"""Seconds between two looks at a session that a run of another event loop or process holds."""

_HOST: Final = socket.gethostname()

_INTERRUPTED: Final = "interrupted by another run of its session"


@attrs.define(eq=False)
class _Sessions:
    """The sessions of one service that runs of this process hold, and those who queue for them."""

    claims: dict[SessionKey, Claim] = attrs.Factory(dict[SessionKey, "Claim"])
    lines: dict[tuple[SessionKey, trio.lowlevel.TrioToken], trio.Lock] = attrs.Factory(
        dict[tuple[SessionKey, trio.lowlevel.TrioToken], trio.Lock]
    )


_HELD: Final[WeakKeyDictionary[SessionService, _Sessions]] = WeakKeyDictionary()


@final
class Claim:
    """What one run holds of its session, from its opening to its end.

    Attributes:
        lease: None before it is taken, or if the service keeps no track of whose a session is.
        unfinished: how the run leaves its session, if it is to be resumed.
        ended: the run has ended, and the session is free.
        core: the run, once it has begun.
    """

    def __init__(self, service: SessionService) -> None:
        """Hold nothing yet."""
        self.lease: Lease | None = None
        self.unfinished: Unfinished | None = None
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

    async def take(self, key: SessionKey, run_id: str, *, resumable: bool, on_busy: OnBusy) -> None:
        """Take the session for a run. Give it back by `release`, whatever happens.

        Raises:
            SessionBusyError: another run holds it, and ``on_busy`` is ``"error"`` or ``"inject"``.
            SessionNotFoundError: there is no such session.
        """
        service = self._service
        if not service.owns:
            return
        sessions = _HELD.get(service)
        if sessions is None:
            sessions = _HELD[service] = _Sessions()
        owner = f"process {os.getpid()} on {_HOST}"

        async def acquire() -> None:
            self.lease = await service.acquire(key, run_id=run_id, owner=owner, resumable=resumable)
            sessions.claims[key] = self

        if on_busy in ("error", "inject"):
            await acquire()
            return
        # In line: first come, first served.
        place = (key, self._loop)
        line = sessions.lines.setdefault(place, trio.Lock())
        try:
            async with line:
                interrupts = on_busy == "interrupt"
                while self.lease is None:
                    with suppress(SessionBusyError):
                        await acquire()
                        return
                    holder = sessions.claims.get(key)
                    if interrupts:
                        interrupts = False
                        await _interrupt(service, key, holder)
                    await _until_free(holder)
        finally:
            if not line.locked():
                sessions.lines.pop(place, None)

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

    async def release(self) -> None:
        """Give the session back. Idempotent. Raises nothing: a lease that stays ends by itself."""
        lease = self.lease
        try:
            if lease is not None:
                with trio.CancelScope(shield=True), suppress(SessionError):
                    await self._service.release(lease, unfinished=self.unfinished)
        finally:
            sessions = _HELD.get(self._service)
            if lease is not None and sessions and sessions.claims.get(lease.key) is self:
                del sessions.claims[lease.key]
            self.ended.set()

    def interrupt(self, reason: str) -> None:
        """Cancel its run, in whatever event loop that is."""
        with suppress(trio.RunFinishedError):
            self._loop.run_sync_soon(self._interrupt, reason)

    def _interrupt(self, reason: str) -> None:
        self._stop = reason
        if self.core is not None:
            self.core.cancel(reason)


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
