"""A session service in memory that takes its time, and whose leases expire. In virtual seconds."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

from parallel_agent import Event, InMemorySessionService
from session import SessionBusyError, SessionKey, StoreUnavailableError
from session.lease import Lease, Unfinished

__all__ = ["LeasingService"]


class LeasingService(InMemorySessionService):
    """Keeps sessions in memory; leases end ``seconds`` after they were last renewed.

    Args:
        seconds: how long a lease lives.
        delay: how long acquiring, appending and releasing take, before they have an effect.

    Attributes:
        renewed: when leases were renewed.
        is_cut_off: nothing can be renewed: as if the network were down.
    """

    blocks = True
    batches = True

    def __init__(self, *, seconds: float = 30.0, delay: float = 0.0) -> None:
        """Start empty."""
        super().__init__(clock=lambda: 0.0)
        self._seconds = seconds
        self._delay = delay
        self._ends: dict[SessionKey, float] = {}
        self.renewed: list[float] = []
        self.is_cut_off = False

    def elsewhere(self) -> LeasingService:
        """Return a service of the same sessions, as another process has it."""
        other = LeasingService.__new__(LeasingService)
        other.__dict__.update(self.__dict__)
        other.renewed = []
        return other

    async def _take_time(self) -> None:
        if self._delay:
            await trio.sleep(self._delay)

    async def acquire(
        self, key: SessionKey, *, run_id: str, owner: str, resumable: bool = False
    ) -> Lease:
        """Take over what has expired."""
        await self._take_time()
        stored = self._sessions.get(key)
        if stored is not None and stored.lease is not None:
            left = self._ends[key] - trio.current_time()
            if left > 0:
                held = stored.lease
                raise SessionBusyError(key, owner=held.owner, run_id=held.run_id, seconds=left)
            stored.lease = stored.stop = None
        lease = await super().acquire(key, run_id=run_id, owner=owner, resumable=resumable)
        lease = attrs.evolve(lease, seconds=self._seconds)
        self._sessions[key].lease = lease
        self._ends[key] = trio.current_time() + self._seconds
        return lease

    async def renew(self, lease: Lease) -> str | None:
        """Renew, unless it is cut off."""
        if self.is_cut_off:
            raise StoreUnavailableError("nobody answers")
        reason = await super().renew(lease)
        self.renewed.append(trio.current_time())
        self._ends[lease.key] = trio.current_time() + self._seconds
        return reason

    async def append(
        self,
        key: SessionKey,
        events: Sequence[Event],
        *,
        expected_seq: int,
        lease: Lease | None = None,
    ) -> None:
        """Append, after a while."""
        await self._take_time()
        self.append_nowait(key, events, expected_seq=expected_seq, lease=lease)

    async def release(self, lease: Lease, *, unfinished: Unfinished | None = None) -> None:
        """Release, after a while."""
        await self._take_time()
        await super().release(lease, unfinished=unfinished)
