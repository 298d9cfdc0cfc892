"""A session service that takes its time, in virtual seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import trio

from parallel_agent import Event, InMemorySessionService, SessionService
from session.lease import Lease
from session.service import SessionInfo
from session.session import Session, SessionKey

__all__ = ["SlowStore", "StoreFailedError"]


class StoreFailedError(Exception):
    """An append that was told to fail."""


class SlowStore(SessionService):
    """Keeps sessions in memory, and sleeps in every append, before it takes effect.

    Args:
        delays: seconds for the first append, the second... and round again.
        fail_at: which append fails, counted from 1, and every one after it.
    """

    batches = True

    def __init__(self, delays: Sequence[float] = (1,), *, fail_at: int | None = None) -> None:
        """Start empty."""
        self._inner = InMemorySessionService(clock=lambda: 0.0)
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
        await self._inner.append(key, events, expected_seq=expected_seq, lease=lease)
        self.batch_sizes.append(len(events))

    async def create(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> Session:
        """Create at once."""
        return await self._inner.create(
            app_name=app_name, user_id=user_id, session_id=session_id, state=state
        )

    async def get(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str,
        num_recent_events: int | None = None,
        after_sequence: int | None = None,
        after: float | None = None,
    ) -> Session | None:
        """Get at once."""
        return await self._inner.get(
            app_name=app_name,
            user_id=user_id,
            session_id=session_id,
            num_recent_events=num_recent_events,
            after_sequence=after_sequence,
            after=after,
        )

    async def list(self, *, app_name: str, user_id: str | None = None) -> list[SessionInfo]:
        """List at once."""
        return await self._inner.list(app_name=app_name, user_id=user_id)

    async def delete(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Delete at once."""
        await self._inner.delete(app_name=app_name, user_id=user_id, session_id=session_id)
