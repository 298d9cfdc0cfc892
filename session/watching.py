"""Following a log: what is stored, then what comes. What services share; users call `subscribe`.

A `Subscription` reads pages of the log, and waits when there is nothing more. It waits at a
`Bell`, which it hangs up *before* it looks: so what is appended between its looking and its waiting
rings, and nothing is missed. Nobody queues events for it: a bell only says that looking again
may pay, and may ring for nothing.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import AsyncIterator, Callable, Generator, Hashable, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar, Final, Protocol, Self

import trio

from session.event import Event
from session.session import Session, SessionKey

__all__ = ["PAGE", "Bell", "Bells", "Log", "PolledLog", "Subscription"]

PAGE: Final = 500
"""How many events a subscription holds at most."""


class Bell:
    """What one step of a subscription waits at. Made in the event loop that waits."""

    def __init__(self) -> None:
        """It has not rung."""
        self._token: Final = trio.lowlevel.current_trio_token()
        self._event: Final = trio.Event()
        self._rung = False

    def ring(self) -> None:
        """Wake who waits, now or later. From any thread; of no use a second time."""
        if self._rung:
            return
        self._rung = True
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._event.set)

    async def wait(self, seconds: float = math.inf) -> None:
        """Return when it has rung, or after ``seconds``."""
        with trio.move_on_after(seconds):
            await self._event.wait()


class Bells:
    """The bells that hang, by what they ring for. For one service; for any thread.

    Attributes:
        hanging: empty while nobody waits, which is all that a writer looks at then. Only read it.
    """

    def __init__(self) -> None:
        """None hangs."""
        self.hanging: Final[dict[Hashable, dict[Bell, None]]] = {}
        # Reentrant: a collection of garbage may take a bell down while another is hung up.
        self._lock: Final = threading.RLock()

    @contextmanager
    def hung(self, topic: Hashable) -> Generator[Bell]:
        """Open a block in which a bell of one's own hangs for ``topic``."""
        bell = Bell()
        with self._lock:
            self.hanging.setdefault(topic, {})[bell] = None
        try:
            yield bell
        finally:
            with self._lock:
                there = self.hanging[topic]
                del there[bell]
                if not there:
                    del self.hanging[topic]

    def ring(self, topics: Iterable[Hashable]) -> None:
        """Ring for these topics. Do so *after* what is to be seen can be seen."""
        for topic in topics:
            # Without the lock: a copy is made in one step, and a bell that is hung up later looks
            # later, too.
            for bell in [*self.hanging.get(topic, ())]:
                bell.ring()

    def ring_all(self) -> None:
        """Ring every bell."""
        self.ring([*self.hanging])


class Log(Protocol):
    """What a subscription needs of a service: one log, for one reader."""

    async def read(self, after: int) -> Sequence[Event]:
        """Return the events that follow ``after``, in order, or the first `PAGE` of them.

        May be cancelled, and need not checkpoint.

        Raises:
            SessionNotFoundError: there is no such session, or no longer the one read before.
        """
        ...

    def hung(self) -> AbstractContextManager[Bell]:
        """Open a block in which a bell hangs that rings when `read` may have something new."""
        ...

    async def wait(self, bell: Bell) -> None:
        """Return when ``bell`` has rung, or when it is time to look anyhow."""
        ...


class _Gettable(Protocol):
    """What `PolledLog` needs of a service."""

    poll_seconds: ClassVar[float]

    async def get(
        self, *, app_name: str, user_id: str, session_id: str, after_sequence: int | None = None
    ) -> Session | None: ...


class PolledLog:
    """A log that is looked at every now and then. Works with every service.

    A page is all that is new, because `SessionService.get` knows no other.
    """

    def __init__(
        self, service: _Gettable, key: SessionKey, missing: Callable[[SessionKey], Exception]
    ) -> None:
        """``missing`` makes the error that says that there is no such session."""
        self._service: Final = service
        self._key: Final = key
        self._missing: Final = missing
        self._last_seq = 0

    async def read(self, after: int) -> Sequence[Event]:
        """See `Log.read`."""
        key = self._key
        session = await self._service.get(
            app_name=key.app_name,
            user_id=key.user_id,
            session_id=key.session_id,
            after_sequence=after,
        )
        # A log that has become shorter is another's.
        if session is None or session.last_seq < self._last_seq:
            raise self._missing(key)
        self._last_seq = session.last_seq
        return session.events

    @contextmanager
    def hung(self) -> Generator[Bell]:
        """See `Log.hung`."""
        yield Bell()  # which nobody rings

    async def wait(self, bell: Bell) -> None:
        """See `Log.wait`."""
        await bell.wait(self._service.poll_seconds)


class Subscription(AsyncIterator[Event]):
    """The events of a log after a position, for ever. See `SessionService.subscribe`.

    Holds a page of events and nothing else: neither tasks nor connections, so it can be dropped
    at any time.
    """

    def __init__(self, key: SessionKey, after: int, log: Log) -> None:
        """Read nothing yet.

        Raises:
            ValueError: ``after`` is no whole number from 0 on.
        """
        if type(after) is not int or after < 0:
            message = (
                "after is the sequence number of the last event that you have, or 0; "
                f"not {after!r:.80}"
            )
            raise ValueError(message)
        self._key: Final = key
        self._log: Final = log
        self._after = after
        self._page: Sequence[Event] = ()
        self._next = 0
        self._reading = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event; wait for it if there is none yet. Always a checkpoint.

        Cancelled, or failed, it has taken nothing: the next step goes on at the same place.

        Raises:
            trio.BusyResourceError: another task is waiting for the next event.
        """
        if self._reading:
            message = (
                "two tasks are reading one subscription at the same time; a subscription has one "
                "reader: call subscribe() for each"
            )
            raise trio.BusyResourceError(message)
        self._reading = True
        try:
            await trio.lowlevel.checkpoint()
            if self._next == len(self._page):
                # Let go of them first: a page may be large, and the wait long.
                self._page, self._next = (), 0
                self._page = await self._read()
        finally:
            self._reading = False
        event = self._page[self._next]
        self._next += 1
        self._after += 1
        return event

    async def _read(self) -> Sequence[Event]:
        log = self._log
        while True:
            with log.hung() as bell:
                if page := await log.read(self._after):
                    return page
                await log.wait(bell)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._key}, after {self._after}>"
