"""A session service that takes its time, in virtual seconds."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from parallel_agent import Event, InMemorySessionService
from session.lease import Lease
from session.passing import PassingService
from session.session import SessionKey

__all__ = ["SlowStore", "StoreFailedError"]


class StoreFailedError(Exception):
    """An append that was told to fail."""


class SlowStore(PassingService):
    """Keeps sessions in memory, and sleeps in every append, before it takes effect.

    Args:
        delays: seconds for the first append, the second... and round again.
        fail_at: which append fails, counted from 1, and every one after it.
    """

    batches = True

    def __init__(self, delays: Sequence[float] = (1,), *, fail_at: int | None = None) -> None:
        """Start empty."""
        super().__init__(InMemorySessionService(clock=lambda: 0.0))
        self._delays = tuple(delays)
        self._fail_at = fail_at
        self.batch_sizes: list[int] = []
        self.asked = 0

    async def append(
        self,
        key: SessionKey,
        events: Sequence[Event],
        *,
        expected_seq: int,
        lease: Lease | None = None,
    ) -> None:
        """Append, after a while."""
        self.asked += 1
        await trio.sleep(self._delays[(self.asked - 1) % len(self._delays)])
        if self._fail_at is not None and self.asked >= self._fail_at:
            message = f"append {self.asked}"
            raise StoreFailedError(message)
        await self.inner.append(key, events, expected_seq=expected_seq, lease=lease)
        self.batch_sizes.append(len(events))
