"""Group commit: all who wait to write share a transaction.

A writer is a thread with a connection and a queue. It takes all that waits, does it in one
transaction, commits, and only then wakes whoever waited: what came back is durable. While it
commits, the next group gathers. So the more there is to do, the less a commit costs each.

**Errors.** A piece of work that is refused (`SessionError`) has changed nothing, and the others of
its group go on. When the transaction itself fails, it is undone and each of its group is tried by
itself, so that only the one to blame fails; but not when the store cannot be reached, or is locked:
then all of them fail. When the answer to COMMIT is lost, the writer looks,
on a new connection, whether the work is there: if so, it was done; if not, it is done again, once.

**Waiting.** `Writer.do` is called in trio, of any run in any thread, and cannot be cancelled: what
it was given will be done or not, and the caller is told which.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import attrs
import trio

from session.database.store import Store
from session.database.transaction import Transaction
from session.database.watch import Announcer, Watch
from session.database.work import Work
from session.errors import SessionError, StoreError, StoreUnavailableError

__all__ = ["FaultPoints", "Writer"]

FaultPoints: TypeAlias = Callable[[str, int], object]
"""Called in the writer's thread with the name of a place and the size of the group there.

The places: ``before begin``, ``before commit``, ``after commit``. What it raises happens there.
"""


@attrs.define(eq=False)
class _Waiting:
    """A piece of work, who waits for it, and how it went."""

    work: Work
    task: trio.lowlevel.Task
    token: trio.lowlevel.TrioToken
    done: bool = False
    value: Any = None
    error: BaseException | None = None

    def succeed(self, value: Any) -> None:
        self.value = value
        self.done = True

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.done = True


class _UnsureError(Exception):
    """COMMIT was sent, and how it went is not known. The cause is what came instead."""


class Writer:
    """Threads that write to a store, one transaction for all who wait. See the module."""

    def __init__(self, store: Store, watch: Watch, fault_points: FaultPoints | None = None) -> None:
        """Start nothing yet."""
        self._store = store
        self._watch = watch
        self._announcer = Announcer(store, watch.bells)
        self._at: FaultPoints = fault_points or _nowhere
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False
        self._process = os.getpid()

    async def do(self, work: Work) -> Any:
        """Have it done; return what it returns, when that is durable. Cannot be cancelled.

        Raises:
            SessionError: it was refused, or the store failed; nothing has changed.
            trio.ClosedResourceError: the writer has been closed.
        """
        waiting = _Waiting(work, trio.lowlevel.current_task(), trio.lowlevel.current_trio_token())
        # The lock keeps `close` from putting its mark before something that nobody would do.
        with self._lock:
            self.check_open()
            if len(self._threads) < self._store.writers:
                self._start()
            self._queue.put(waiting)
        await trio.lowlevel.wait_task_rescheduled(_stay)
        error, waiting.error = waiting.error, None
        if error is not None:
            raise error
        return waiting.value

    def check_open(self) -> None:
        """Raise `trio.ClosedResourceError` if the writer has been closed."""
        if self._closed:
            message = "the session service has been closed"
            raise trio.ClosedResourceError(message)

    def close(self) -> None:
        """Take nothing more, do what waits, close the store. Blocks meanwhile. Idempotent."""
        join_threads = self._end()
        join_threads()
        self._store.close()

    def forget(self) -> None:
        """Do the same without waiting: what is done when nobody closed.

        Does nothing after a fork: what it would close is the parent's.
        """
        if os.getpid() != self._process:
            return
        self._end()
        self._store.close()

    def _end(self) -> Callable[[], None]:
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._queue.put(None)
            threads, self._threads = self._threads, []
        # Now: who waits for new events looks again, and finds that the writer is closed.
        join_listener = self._watch.end()

        def join_threads() -> None:
            for thread in threads:
                thread.join()
            join_listener()

        return join_threads

    def _start(self) -> None:
        # The thread knows the queue and the store, and not the service: so a service that was
        # forgotten without being closed can be collected, and closes this writer.
        thread = threading.Thread(
            target=_Hand(self._store, self._queue, self._at, self._announcer).run,
            name=f"sessions of {self._store.label}",
            daemon=True,
        )
        thread.start()
        self._threads.append(thread)


class _Hand:
    """What one thread does."""

    def __init__(
        self,
        store: Store,
        waiting: queue.SimpleQueue[_Waiting | None],
        at: FaultPoints,
        announcer: Announcer,
    ) -> None:
        self._store = store
        self._queue = waiting
        self._at = at
        self._announcer = announcer
        self._connection: Any = None

    def run(self) -> None:
        """Write until the mark for the end comes."""
        last = False
        while not last:
            group: list[_Waiting] = []
            # What waits now, and one at least. Another thread may want the rest.
            item = self._wait()
            while True:
                if item is None:
                    last = True
                    break
                group.append(item)
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            if group:
                self._write(sorted(group, key=_order))
                _wake(group)
        self._announce()
        self._drop()

    def _wait(self) -> _Waiting | None:
        """Return what comes next in the queue; tell others meanwhile what was committed."""
        # Not a thread that has no connection yet: another has, and tells it for both.
        while self._connection is not None and (seconds := self._announcer.seconds()) is not None:
            if seconds:
                with contextlib.suppress(queue.Empty):
                    return self._queue.get(timeout=seconds)
            self._announce()
        return self._queue.get()

    def _announce(self) -> None:
        if self._connection is None:
            return
        try:
            self._announcer.announce(self._connection)
        except Exception:  # noqa: BLE001  # the work was done; the others find out when they look
            self._drop()

    def _write(self, group: Sequence[_Waiting]) -> None:
        """Do all of a group, and say of each how it went. Never raises."""
        try:
            todo = self._try(group)
            if len(todo) > 1:
                # One of them, or their sum, is too much: by itself, the others will pass.
                for waiting in todo:
                    self._try([waiting])
        except BaseException as error:  # noqa: BLE001  # a bug of ours must not leave anybody waiting
            for waiting in group:
                if not waiting.done:
                    waiting.fail(error)
            self._drop()

    def _try(self, group: Sequence[_Waiting], *, again: bool = True) -> Sequence[_Waiting]:
        """Do a group in one transaction; return those for whom another try makes sense."""
        try:
            self._transact(group)
        except Exception as error:  # each of them is told
            cause = error.__cause__ if isinstance(error, _UnsureError) else error
            if not isinstance(cause, Exception):
                raise
            if isinstance(error, _UnsureError):
                self._look(group, cause)
            todo = [waiting for waiting in group if not waiting.done]
            if todo and again and self._store.is_lost(cause):
                left = self._try(todo, again=False)
                if isinstance(error, _UnsureError):
                    self._look_again(todo)
                return left
            if len(todo) > 1 and not isinstance(self._store.explain(cause), StoreUnavailableError):
                return todo
            # Alone, or in front of a store that nobody gets into: each would wait as long again.
            self._fail(todo, cause)
        return ()

    def _transact(self, group: Sequence[_Waiting]) -> None:
        """Begin, do, commit.

        Raises:
            _UnsureError: nobody knows whether it was committed.
            Exception: it was not.
        """
        refused: list[SessionError | None] = []
        values: list[Any] = []
        try:
            if self._connection is None:
                self._connection = self._store.open_writer()
            cursor = self._connection.cursor()
            self._at("before begin", len(group))
            cursor.execute(self._store.begin)
            tx = Transaction(self._store, cursor)
            for waiting in group:
                try:
                    values.append(waiting.work.run(tx))
                    refused.append(None)
                except SessionError as error:
                    values.append(None)
                    refused.append(error)
            tx.flush()
            self._at("before commit", len(group))
        except BaseException:
            self._drop()
            raise
        try:
            cursor.execute("COMMIT")
            self._at("after commit", len(group))
        except Exception as error:
            self._drop()
            self._announcer.unsure()
            raise _UnsureError from error
        self._announcer.committed(tx.changed)
        for waiting, value, refusal in zip(group, values, refused, strict=True):
            if refusal is None:
                waiting.succeed(value)
            else:
                waiting.fail(refusal)

    def _look(self, group: Sequence[_Waiting], cause: Exception) -> None:
        """Find out which of a group were done, after all."""
        try:
            connection = self._store.open_writer()
            try:
                tx = Transaction(self._store, connection.cursor())
                for waiting in group:
                    if waiting.work.was_done(tx):
                        waiting.succeed(None)
            finally:
                # Not for others to use: it is set up as a writer's.
                connection.invalidate()
                connection.close()
        except Exception:  # noqa: BLE001  # what it was is said by the first error
            explained = self._store.explain(cause)
            message = (
                f"{self._store.label}: the connection was lost while it committed, and nobody "
                f"knows whether what was to be recorded is there ({explained or cause})"
            )
            for waiting in group:
                error = StoreUnavailableError(message)
                error.__cause__ = cause
                waiting.fail(error)

    def _look_again(self, group: Sequence[_Waiting]) -> None:
        """Believe no refusal of what was tried twice, before having looked.

        The first COMMIT may have been on its way when `_look` looked: then what is in the way of
        the second try is the first.
        """
        refused = [w for w in group if isinstance(w.error, SessionError)]
        refused = [w for w in refused if not isinstance(w.error, StoreError)]
        if not refused:
            return
        with contextlib.suppress(Exception):
            cursor = self._connection.cursor()
            for waiting in refused:
                if waiting.work.was_done(Transaction(self._store, cursor)):
                    waiting.error = None

    def _fail(self, group: Sequence[_Waiting], cause: Exception) -> None:
        for waiting in group:
            # Each its own: an error that is raised in several tasks collects their tracebacks.
            error: BaseException = self._store.explain(cause) or cause
            if error is not cause:
                error.__cause__ = cause
            waiting.fail(error)

    def _drop(self) -> None:
        """Undo what was begun, and let go of the connection: the next group gets a new one."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        # Closing alone would not undo: whoever holds the error holds the cursor, and SQLite keeps
        # a connection, and its locks, for as long as there are cursors.
        for step in (connection.rollback, connection.invalidate, connection.close):
            # It may be lost already, and so is then what was begun.
            with contextlib.suppress(Exception):
                step()


def _order(waiting: _Waiting) -> tuple[str, ...]:
    return waiting.work.order


def _nowhere(_place: str, _size: int) -> None:
    """No faults."""


def _stay(_raise_cancel: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


def _wake(group: Sequence[_Waiting]) -> None:
    """Tell each how it went, in the trio run that it waits in."""
    runs: dict[trio.lowlevel.TrioToken, list[_Waiting]] = {}
    for waiting in group:
        runs.setdefault(waiting.token, []).append(waiting)
    for token, these in runs.items():
        try:
            token.run_sync_soon(_wake_here, these)
        except trio.RunFinishedError:
            continue  # nobody waits any more


def _wake_here(group: Sequence[_Waiting]) -> None:
    for waiting in group:
        trio.lowlevel.reschedule(waiting.task)
