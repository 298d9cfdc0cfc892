"""Databases to test with: events, reading, and a writer that can be stopped and made to fail."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import trio

from session import Codec, Event, EventActions, Origin, Session, SessionKey, SessionService

__all__ = [
    "KEY",
    "Faults",
    "add",
    "as_values",
    "make",
    "new_event",
    "quick_folder",
    "read",
    "texts",
]

KEY: Final = SessionKey("app", "user", "session")
CODEC: Final = Codec()

_PATIENCE: Final = 60

_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # files with names of their own are made there


def quick_folder() -> str:
    """Make a folder, in memory where there is such a place: the disk is not what is tested."""
    usable = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK)
    return tempfile.mkdtemp(prefix="parallel-agent-", dir=_MEMORY if usable else None)


class Faults:
    """What a writer meets at its fault points: it is counted, held up, made to fail.

    ``begins`` and ``commits`` hold the sizes of the groups that were begun and committed.
    """

    def __init__(self) -> None:
        """Let everything pass."""
        self.begins: list[int] = []
        self.commits: list[int] = []
        self._errors: dict[str, list[BaseException]] = {}
        self._open = threading.Event()
        self._open.set()
        self._arrived = threading.Event()

    def __call__(self, place: str, size: int) -> None:
        """Called by the writer."""
        if place == "before begin":
            self.begins.append(size)
            self._arrived.set()
            if not self._open.wait(_PATIENCE):
                message = "nobody let the writer go on"
                raise TimeoutError(message)
        if place == "after commit":
            self.commits.append(size)
        if errors := self._errors.get(place):
            raise errors.pop(0)

    def fail(self, place: str, *errors: BaseException) -> None:
        """Raise these there, one each time."""
        self._errors.setdefault(place, []).extend(errors)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the writer begin nothing while the block lasts."""
        self._arrived.clear()
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    async def arrival(self) -> None:
        """Wait until the writer is held up with a group."""
        arrived = await trio.to_thread.run_sync(self._arrived.wait, _PATIENCE)
        assert arrived, "the writer never came"


def new_event(
    text: str = "x",
    *,
    timestamp: float = 1.0,
    by: str = "",
    delta: Mapping[str, Any] = MappingProxyType({}),
    **more: Any,
) -> Event:
    """A sealed event; ``more`` is state that it writes, as ``delta`` is."""
    event = Event(
        text,
        actions=EventActions(state_delta={**delta, **more}),
        timestamp=timestamp,
        origin=Origin(author="a", invocation_id=by or "inv"),
    )
    event.seal()
    return event


async def make(service: SessionService, key: SessionKey = KEY, **state: Any) -> Session:
    """Create a session."""
    return await service.create(
        app_name=key.app_name, user_id=key.user_id, session_id=key.session_id, state=state
    )


async def read(service: SessionService, key: SessionKey = KEY, **window: Any) -> Session:
    """Get a session that is there."""
    session = await service.get(
        app_name=key.app_name, user_id=key.user_id, session_id=key.session_id, **window
    )
    assert session is not None
    return session


async def add(
    service: SessionService, *events: Event, key: SessionKey = KEY, after: int = 0
) -> None:
    """Append to a log that ends at ``after``."""
    await service.append(key, events, expected_seq=after)


def texts(session: Session) -> list[str]:
    """What the events say."""
    return [event.text for event in session.events]


def as_values(session: Session | None) -> Any:
    """All of a session, as plain values that can be compared."""
    if session is None:
        return None
    # As text: 1 and True and 1.0 are different values.
    return (
        session.key,
        [json.dumps(CODEC.encode(event), sort_keys=True) for event in session.events],
        json.dumps(session.state, sort_keys=True),
        session.last_seq,
        session.last_update_time,
    )
