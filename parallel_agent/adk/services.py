"""The services of a run of ours, as an ADK agent knows such services.

Its tools and callbacks find artifacts and memories where the rest of the tree does. All methods are
asyncio's, and ask the run's services by `from_trio`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, NoReturn, final

from parallel_agent.adk.events import content_to_adk
from parallel_agent.adk.library import (
    AdkMemoryEntry,
    ArtifactVersion,
    BaseArtifactService,
    BaseMemoryService,
    BaseSessionService,
    ListSessionsResponse,
    SearchMemoryResponse,
    ensure_part,
)
from parallel_agent.aio.bridge import from_trio
from session.artifact import Artifact, ArtifactService, ArtifactTypeError
from session.content import Content, InlineData, Text
from session.memory import MemoryService
from session.session import Session, SessionKey
from session.state import USER_PREFIX

__all__ = ["ArtifactsForAdk", "MemoryForAdk", "SessionsForAdk"]


@final
class SessionsForAdk(BaseSessionService):  # type: ignore[misc]  # Any, see library
    """One session, while an ADK agent works in it. There are no others.

    Args:
        session: of ADK's, as the agent sees it.
        record: records what ADK's own code appends, as an event of the leaf's.
    """

    def __init__(self, session: Any, record: Callable[[Any], Awaitable[None]]) -> None:
        """See the class."""
        self._session = session
        self._record = record

    async def create_session(self, **_options: Any) -> NoReturn:
        """Refuse: the session is there."""
        self._refuse("create")

    async def delete_session(self, **_options: Any) -> NoReturn:
        """Refuse: somebody works in it."""
        self._refuse("delete")

    def _refuse(self, what: str) -> NoReturn:
        message = (
            f"an ADK agent in a tree cannot {what} sessions: it works in the run's, "
            f"{self._session.id!r}; use the session service that the Runner was given"
        )
        raise NotImplementedError(message)

    async def get_session(
        self, *, app_name: str, user_id: str, session_id: str, **_config: Any
    ) -> Any:
        """Return the session, whole, if it is the one; else None."""
        session = self._session
        asked = (app_name, user_id, session_id)
        return session if asked == (session.app_name, session.user_id, session.id) else None

    async def list_sessions(self, *, app_name: str, user_id: str | None = None) -> Any:
        """List the session, without its events, if it is of that application and user."""
        session = self._session
        is_it = app_name == session.app_name and user_id in (None, session.user_id)
        listed = [session.model_copy(update={"events": []})] if is_it else []
        return ListSessionsResponse(sessions=listed)

    async def append_event(self, session: Any, event: Any) -> Any:
        """Record an event that does not come out of the agent itself."""
        if not event.partial:
            await self._record(event)
            await self.take(session, event)
        return event

    async def take(self, session: Any, event: Any) -> None:
        """Let the session hold an event that has been recorded."""
        base: Any = super()
        await base.append_event(session, event)


@final
class ArtifactsForAdk(BaseArtifactService):  # type: ignore[misc]  # Any, see library
    """A service of artifacts of ours. Words and bytes are kept, and no references to files."""

    def __init__(self, service: ArtifactService, session_id: str) -> None:
        """Keep in ``service``; ``session_id`` is the run's."""
        self._service = service
        self._session_id = session_id

    def _named(
        self, app_name: str, user_id: str, filename: str, session_id: str | None
    ) -> tuple[SessionKey, str]:
        if session_id is None and not filename.startswith(USER_PREFIX):
            filename = f"{USER_PREFIX}{filename}"
        return SessionKey(app_name, user_id, session_id or self._session_id), filename

    async def save_artifact(  # noqa: D102  # ADK's contract, here and below
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        artifact: Any,
        session_id: str | None = None,
        custom_metadata: dict[str, Any] | None = None,  # noqa: ARG002  # ours keep none
    ) -> int:
        key, name = self._named(app_name, user_id, filename, session_id)
        part = ensure_part(artifact)
        if part.inline_data is not None:
            data = part.inline_data
            kept: Artifact = InlineData(data.data, data.mime_type or "application/octet-stream")
        elif part.text is not None:
            kept = Text(part.text)
        else:
            raise ArtifactTypeError(part)
        return await from_trio(self._service.save, key, name, kept)

    async def load_artifact(  # noqa: D102
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        session_id: str | None = None,
        version: int | None = None,
    ) -> Any:
        key, name = self._named(app_name, user_id, filename, session_id)
        kept = await from_trio(self._service.load, key, name, version=version)
        return None if kept is None else content_to_adk(Content(kept)).parts[0]

    async def list_artifact_keys(  # noqa: D102
        self, *, app_name: str, user_id: str, session_id: str | None = None
    ) -> list[str]:
        key = SessionKey(app_name, user_id, session_id or self._session_id)
        names = await from_trio(self._service.list_names, key)
        if session_id is None:
            return [name for name in names if name.startswith(USER_PREFIX)]
        return names

    async def delete_artifact(  # noqa: D102
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> None:
        key, name = self._named(app_name, user_id, filename, session_id)
        await from_trio(self._service.delete, key, name)

    async def list_versions(  # noqa: D102
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> list[int]:
        key, name = self._named(app_name, user_id, filename, session_id)
        return await from_trio(self._service.list_versions, key, name)

    async def list_artifact_versions(self, *, filename: str, **names: Any) -> list[Any]:  # noqa: D102
        return [
            _version(filename, number)
            for number in await self.list_versions(filename=filename, **names)
        ]

    async def get_artifact_version(  # noqa: D102
        self, *, filename: str, version: int | None = None, **names: Any
    ) -> Any:
        numbers = await self.list_versions(filename=filename, **names)
        wanted = numbers[-1:] if version is None else [version]
        return next((_version(filename, one) for one in wanted if one in numbers), None)


def _version(filename: str, number: int) -> Any:
    # Nothing can be opened there: our services keep artifacts where only they know.
    return ArtifactVersion(
        version=number, canonical_uri=f"artifact:{filename}#{number}", create_time=0.0
    )


@final
class MemoryForAdk(BaseMemoryService):  # type: ignore[misc]  # Any, see library
    """A memory of ours."""

    def __init__(self, service: MemoryService, session: Session) -> None:
        """Search ``service``; ``session`` is the run's."""
        self._service = service
        self._session = session

    async def add_session_to_memory(self, session: Any) -> None:
        """Remember the run's session as recorded by now, of which ``session`` is the agent's view.

        Raises:
            NotImplementedError: it is another one.
        """
        if session.id != self._session.id:
            message = f"only the run's own session can be added to memory, not {session.id!r}"
            raise NotImplementedError(message)
        await from_trio(self._service.add_session, self._session)

    async def search_memory(self, *, app_name: str, user_id: str, query: str) -> Any:
        """Search for what earlier sessions said."""
        found = await from_trio(
            self._service.search, app_name=app_name, user_id=user_id, query=query
        )
        entries = [
            AdkMemoryEntry(
                id=entry.event_id,
                content=content_to_adk(entry.content),
                author=entry.author,
                timestamp=datetime.fromtimestamp(entry.timestamp, UTC).isoformat(),
            )
            for entry in found
        ]
        return SearchMemoryResponse(memories=entries)
