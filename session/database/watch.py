"""Who waits for the log of a session to grow, and how they hear of it.

**In this process** the writer rings, after its commit. **From other processes** a store that
announces tells: PostgreSQL, by NOTIFY. Otherwise, and where an announcement was lost, who waits
looks every now and then.

An announcement says which sessions have changed and nothing else, so it may be lost, late, or
be made twice. That is why it is made *after* the commit, by itself, and for all that was committed
in a while: PostgreSQL lets those who announce commit one at a time, each until its commit is
on disk, and sessions would no longer be written side by side.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from typing import Any, Final

from session.database.store import Ear, Store
from session.watching import Bell, Bells

__all__ = ["Announcer", "Watch"]

_PAUSE: Final = 0.05
"""Seconds between two announcements of a service: one takes a writer a sixth of a millisecond."""

_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 5.0
_PATIENCE: Final = 5.0


class Announcer:
    """Tells what the threads of a writer have changed. Each of them may tell it for all."""

    def __init__(self, store: Store, bells: Bells) -> None:
        """Nothing has changed."""
        self._store: Final = store
        self._bells: Final = bells
        self._lock: Final = threading.Lock()
        self._changed: set[int] = set()
        self._next = 0.0

    def committed(self, sessions: Collection[int]) -> None:
        """Wake who waits here for these sessions; note them for the others."""
        if self._bells.hanging:
            self._bells.ring(sessions)
        if self._store.announces:
            with self._lock:
                self._changed.update(sessions)

    def unsure(self) -> None:
        """Say that nobody knows what has changed: whoever waits here looks."""
        self._bells.ring_all()

    def seconds(self) -> float | None:
        """Return in how many seconds there is something to announce; None if there is nothing."""
        return max(0.0, self._next - time.monotonic()) if self._changed else None

    def announce(self, connection: Any) -> None:
        """Tell the others, on a thread's connection, outside a transaction.

        Raises what the driver does. Then they are not told, and find out when they look.
        """
        with self._lock:
            sessions, self._changed = self._changed, set()
            self._next = time.monotonic() + _PAUSE
        if sessions:
            self._store.announce(connection.cursor(), sorted(sessions))


class Watch:
    """Who waits for which session of a store. For any thread.

    Listens to other processes, where that is possible, from when somebody first waits until
    `end`: in a thread with a connection of its own.
    """

    def __init__(self, store: Store) -> None:
        """Listen to nobody yet."""
        self._store: Final = store
        self.bells: Final = Bells()
        self._lock: Final = threading.Lock()
        self._listener: _Listener | None = None
        self._ended = False

    @contextmanager
    def hung(self, session: int | None) -> Generator[Bell]:
        """Open a block in which a bell hangs for a session.

        It rings at once if it is not known yet for which.
        """
        with self.bells.hung(session) as bell:
            if session is None:
                bell.ring()
            yield bell

    async def wait(self, bell: Bell) -> None:
        """Return when ``bell`` has rung, or when it is time to look anyhow."""
        if self._store.announces and self._listener is None:
            self._listen()
        await bell.wait(self._store.poll_seconds)

    def end(self) -> Callable[[], None]:
        """Wake everybody, for the last time, and listen no more.

        Returns a function that blocks until nobody listens.
        """
        with self._lock:
            self._ended = True
            listener = self._listener
        self.bells.ring_all()
        if listener is None:
            return _nothing
        listener.end()
        return listener.join

    def _listen(self) -> None:
        with self._lock:
            if self._listener is None and not self._ended:
                self._listener = _Listener(self._store, self.bells)


class _Listener:
    """A thread that hears what is announced, and rings. Knows no service, so one can be forgotten.

    When the connection is lost it makes another, and rings for all: what was announced meanwhile
    was not heard.
    """

    def __init__(self, store: Store, bells: Bells) -> None:
        self._store = store
        self._bells = bells
        self._stop = threading.Event()
        # To wake the thread, which waits at a socket.
        self._ours, self._its = socket.socketpair()
        self._thread = threading.Thread(
            target=self._run, name=f"changes of {store.label}", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        """Ask it to end. Idempotent."""
        self._stop.set()
        with contextlib.suppress(OSError):  # it has ended
            self._ours.send(b"x")

    def join(self) -> None:
        """Wait until it has, unless a server that does not answer keeps it too long."""
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        delay = _FIRST_DELAY
        with self._ours, self._its:
            while not self._stop.is_set():
                # Whatever it was, those who wait look by themselves, and will be told.
                with contextlib.suppress(Exception), self._store.open_ear() as ear:
                    delay = _FIRST_DELAY
                    self._bells.ring_all()
                    self._hear(ear)
                self._stop.wait(delay)
                delay = min(2 * delay, _LONGEST_DELAY)

    def _hear(self, ear: Ear) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(ear.fileno(), selectors.EVENT_READ)
            selector.register(self._its, selectors.EVENT_READ)
            while not self._stop.is_set():
                selector.select()
                self._bells.ring(ear.hear())


def _nothing() -> None:
    """Nobody listens."""
