"""The session and the services of an ADK invocation, as a tree of ours knows them.

ADK's runner records what the tree emits. So the tree's own session service keeps a copy only, for
one run; artifacts and memory are ADK's own. Those methods are trio's, and ask by `from_asyncio`.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, final

import attrs

from parallel_agent.adk.events import content_from_adk, content_to_adk
from parallel_agent.adk.library import types
from parallel_agent.aio.bridge import from_asyncio
from session.artifact import Artifact, ArtifactService, artifact_of, check_name, check_version
from session.content import Content, InlineData, Part, Text
from session.event import USER, Event
from session.in_memory import InMemorySessionService
from session.memory import DEFAULT_LIMIT, MemoryEntry, MemoryService
from session.session import Session, SessionKey
from session.state import freeze

__all__ = ["ArtifactsOfAdk", "MemoryOfAdk", "SessionCopy"]


@attrs.define(eq=False)
class _Copy(Session):
    """A session in which the user's message stands where it stood in ADK's."""

    message_at: int | None = None

    def apply(self, event: Event) -> None:
        """Add a recorded event: the message, which is the first, at its place."""
        Session.apply(self, event)
        if self.message_at is not None and event.author == USER:
            self.events.insert(self.message_at, self.events.pop())
        self.message_at = None


@final
class SessionCopy(InMemorySessionService):
    """A copy of a session of ADK's, for one run.

    Args:
        key: its name.
        events: what the tree may see of its log.
        state: its state, with ``temp:`` keys.
        message_at: where in ``events`` the message belongs that the run is to record.
    """

    def __init__(
        self,
        key: SessionKey,
        events: Iterable[Event],
        state: Mapping[str, Any],
        message_at: int,
    ) -> None:
        """See the class. `fill` comes next."""
        super().__init__()
        self._key = key
        self._past = list(events)
        self._state: dict[str, Any] = dict(freeze(dict(state), "state"))
        self._message_at = message_at

    async def fill(self) -> None:
        """Take the copy in. Waits for nothing."""
        key = self._key
        await self.create(app_name=key.app_name, user_id=key.user_id, session_id=key.session_id)
        await self.append(key, self._past, expected_seq=0)

    async def get(self, **options: Any) -> Session | None:
        """Return it with ADK's state: the log's deltas are not the whole of it."""
        found = await super().get(**options)
        if found is None:
            return None
        return _Copy(
            key=found.key,
            events=found.events,
            state=dict(self._state),
            last_seq=found.last_seq,
            last_update_time=found.last_update_time,
            message_at=self._message_at,
        )


@final
class ArtifactsOfAdk(ArtifactService):
    """A service of artifacts of ADK's, as one of ours."""

    def __init__(self, service: Any) -> None:
        """Keep in ``service``."""
        self._service = service

    async def save(self, key: SessionKey, name: str, artifact: Part | str | bytes) -> int:
        """See `ArtifactService.save`."""
        check_name(name)
        kept = content_to_adk(Content(artifact_of(artifact))).parts[0]
        version: int = await from_asyncio(
            self._service.save_artifact, **_names(key), filename=name, artifact=kept
        )
        return version

    async def load(
        self, key: SessionKey, name: str, *, version: int | None = None
    ) -> Artifact | None:
        """See `ArtifactService.load`."""
        check_name(name)
        check_version(version)
        part = await from_asyncio(
            self._service.load_artifact, **_names(key), filename=name, version=version
        )
        content = content_from_adk(part and types.Content(parts=[part]))
        if content is None:
            return None
        kept = content.parts[0]
        if isinstance(kept, Text | InlineData):
            return kept
        # What has a display name, say. Its data are what was saved.
        data = part.inline_data
        return None if data is None else InlineData(data.data, data.mime_type or "")

    async def list_names(self, key: SessionKey) -> builtins.list[str]:
        """See `ArtifactService.list_names`."""
        return sorted(await from_asyncio(self._service.list_artifact_keys, **_names(key)))

    async def list_versions(self, key: SessionKey, name: str) -> builtins.list[int]:
        """See `ArtifactService.list_versions`."""
        check_name(name)
        return sorted(await from_asyncio(self._service.list_versions, **_names(key), filename=name))

    async def delete(self, key: SessionKey, name: str) -> None:
        """See `ArtifactService.delete`."""
        check_name(name)
        await from_asyncio(self._service.delete_artifact, **_names(key), filename=name)


def _names(key: SessionKey) -> dict[str, str]:
    return {"app_name": key.app_name, "user_id": key.user_id, "session_id": key.session_id}


@final
class MemoryOfAdk(MemoryService):
    """A memory of ADK's, as one of ours."""

    def __init__(self, service: Any, session: Any) -> None:
        """Search ``service``; ``session`` is ADK's, in which the tree works."""
        self._service = service
        self._session = session

    async def add_session(self, session: Session) -> None:  # noqa: ARG002  # a copy, see the module
        """Remember ADK's session, of which the tree's is a copy."""
        await from_asyncio(self._service.add_session_to_memory, self._session)

    async def search(
        self, *, app_name: str, user_id: str, query: str, limit: int = DEFAULT_LIMIT
    ) -> builtins.list[MemoryEntry]:
        """See `MemoryService.search`; ADK does not say in which session it was."""
        found = await from_asyncio(
            self._service.search_memory, app_name=app_name, user_id=user_id, query=query
        )
        return [
            MemoryEntry(
                content=content_from_adk(entry.content) or Content(()),
                author=entry.author or "",
                timestamp=_seconds(entry.timestamp),
                session_id="",
                event_id=entry.id or "",
            )
            for entry in found.memories[:limit]
        ]


def _seconds(timestamp: str | None) -> float:
    try:
        return datetime.fromisoformat(timestamp or "").timestamp()
    except ValueError:
        return 0.0  # any text will do for ADK
