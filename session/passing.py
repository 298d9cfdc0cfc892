"""A session service that passes everything on to another: for those that do one thing otherwise."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from typing import Any

from session.event import Event
from session.lease import Lease, Unfinished, UnfinishedRun
from session.service import SessionInfo, SessionService
from session.session import Session, SessionKey

__all__ = ["PassingOwner", "PassingService"]


class PassingService(SessionService):
    """Does what ``inner`` does, but knows nothing of whose a session is."""

    def __init__(self, inner: SessionService) -> None:
        """Pass on to ``inner``."""
        self.inner = inner

    async def append(
        self,
        key: SessionKey,
        events: Sequence[Event],
        *,
        expected_seq: int,
        lease: Lease | None = None,
    ) -> None:
        """See `SessionService.append`."""
        await self.inner.append(key, events, expected_seq=expected_seq, lease=lease)

    async def create(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> Session:
        """See `SessionService.create`."""
        return await self.inner.create(
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
        """See `SessionService.get`."""
        return await self.inner.get(
            app_name=app_name,
            user_id=user_id,
            session_id=session_id,
            num_recent_events=num_recent_events,
            after_sequence=after_sequence,
            after=after,
        )

    async def list(self, *, app_name: str, user_id: str | None = None) -> list[SessionInfo]:
        """See `SessionService.list`."""
        return await self.inner.list(app_name=app_name, user_id=user_id)

    async def delete(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """See `SessionService.delete`."""
        await self.inner.delete(app_name=app_name, user_id=user_id, session_id=session_id)


class PassingOwner(PassingService):
    """Passes on whose a session is, too: for an ``inner`` that owns sessions."""

    owns = True

    async def acquire(
        self, key: SessionKey, *, run_id: str, owner: str, resumable: bool = False
    ) -> Lease:
        """See `SessionService.acquire`."""
        return await self.inner.acquire(key, run_id=run_id, owner=owner, resumable=resumable)

    async def renew(self, lease: Lease) -> str | None:
        """See `SessionService.renew`."""
        return await self.inner.renew(lease)

    async def release(self, lease: Lease, *, unfinished: Unfinished | None = None) -> None:
        """See `SessionService.release`."""
        await self.inner.release(lease, unfinished=unfinished)

    async def ask_to_stop(self, key: SessionKey, reason: str) -> bool:
        """See `SessionService.ask_to_stop`."""
        return await self.inner.ask_to_stop(key, reason)

    async def unfinished(
        self, *, app_name: str, user_id: str | None = None
    ) -> builtins.list[UnfinishedRun]:
        """See `SessionService.unfinished`."""
        return await self.inner.unfinished(app_name=app_name, user_id=user_id)
