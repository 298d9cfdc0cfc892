"""What clients read of the runs of a host: the log of a session, until no run is there any more.

Order: the log's. Cancellation: a step that was cancelled has lost nothing. Blocks: a step waits for
the next event, or for the last run to leave the session. Nobody waits for a subscriber.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager, nullcontext
from typing import Self, TypeAlias, final

import attrs
import trio
from trio.lowlevel import checkpoint

from parallel_agent.lifecycle import Status
from session.errors import SessionNotFoundError
from session.event import Event
from session.service import SessionService
from session.session import SessionKey

__all__ = ["Ending", "HostedEvents", "Places", "RunInfo"]


@attrs.frozen
class RunInfo:
    """How a run of a host stands. ``reason``: why it was cancelled, or what it waits for."""

    run_id: str
    key: SessionKey
    status: Status
    reason: str | None = None

    @property
    def session_id(self) -> str:
        """The session it runs in, or has run in."""
        return self.key.session_id

    @property
    def user_id(self) -> str:
        """Whose session that is."""
        return self.key.user_id


Ending: TypeAlias = tuple[RunInfo, BaseException | None]
"""How a run has ended, and what it has failed with."""


@final
class Places:
    """Where the runs of a host are, and the subscribers that wait there for the next event."""

    def __init__(self) -> None:
        """No run is anywhere."""
        self._runs: dict[SessionKey, set[object]] = {}
        self._waiting: dict[SessionKey, set[trio.CancelScope]] = {}

    def has(self, key: SessionKey) -> bool:
        """Whether a run is at the session."""
        return key in self._runs

    def add(self, key: SessionKey, run: object) -> None:
        """Say that a run has come to a session."""
        self._runs.setdefault(key, set()).add(run)

    def remove(self, key: SessionKey, run: object) -> None:
        """Say that it has left, and has recorded all it had to."""
        there = self._runs[key]
        there.remove(run)
        if not there:
            del self._runs[key]
            for scope in [*self._waiting.get(key, ())]:
                scope.cancel("no run of the host is at the session any more")

    @contextmanager
    def until_left(self, key: SessionKey) -> Generator[None]:
        """Open a block that is cancelled when the last run leaves the session."""
        waiting = self._waiting.setdefault(key, set())
        scope = trio.CancelScope()
        waiting.add(scope)
        try:
            with scope:
                yield
        finally:
            waiting.remove(scope)
            if not waiting:
                del self._waiting[key]


@final
class HostedEvents(AsyncIterator[Event]):
    """What `RunHost.subscribe` returns: the session's events, to the end of the host's runs."""

    def __init__(
        self,
        service: SessionService,
        key: SessionKey,
        after: int,
        places: Places,
        last_at: Callable[[SessionKey], Ending | None],
    ) -> None:
        """Made by `RunHost.subscribe`."""
        self._places = places
        self._last_at = last_at
        self._service = service
        self._key = key
        self._log = service.subscribe(key, after=after)
        self._after = after
        self._claimed: int | None = None
        self._last = 0  # there are events up to here, whoever is at the session
        self._is_over = False

    def go_on_after(self, number: int) -> None:
        """Begin after that number instead, if the log goes so far. Before the first step.

        For numbers that somebody outside has named.
        """
        self._claimed = number

    @property
    def ending(self) -> Ending | None:
        """How the last run at the session has ended, and its failure; None if nobody knows."""
        return self._last_at(self._key)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event; wait for it while there may be one."""
        while True:
            event = await self._next()
            if event is None:
                raise StopAsyncIteration
            if not event.is_record:
                return event

    async def _next(self) -> Event | None:
        if self._claimed is not None:
            await self._move_to(self._claimed)
        while not self._is_over:
            knows_more = self._after < self._last
            if not knows_more and not self._places.has(self._key):
                self._last = await self._last_recorded()
                # A run may have come meanwhile.
                self._is_over = self._after >= self._last and not self._places.has(self._key)
                continue
            with nullcontext() if knows_more else self._places.until_left(self._key):
                event = await anext(self._log)
                self._after = event.seq or 0
                return event
        await checkpoint()
        return None

    async def _move_to(self, number: int) -> None:
        if self._after < number <= await self._last_recorded():
            self._log = self._service.subscribe(self._key, after=number)
            self._after = number
        self._claimed = None

    async def _last_recorded(self) -> int:
        key = self._key
        session = await self._service.get(
            app_name=key.app_name,
            user_id=key.user_id,
            session_id=key.session_id,
            num_recent_events=0,
        )
        if session is None:
            raise SessionNotFoundError(key)
        return session.last_seq

    def __repr__(self) -> str:
        return f"<HostedEvents of {self._key}, after {self._after}>"
