"""A trio run in a thread of its own, and plain calls into it."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar, final

import trio

__all__ = ["TrioThread"]

_T = TypeVar("_T")


@final
class TrioThread(Generic[_T]):
    """Runs one async function by ``trio.run``, in a thread that ends with it.

    Context variables are those of whoever makes this. Its methods may be called in any thread,
    but for `linger`.

    Attributes:
        value: what the function has returned.
        failure: what it has raised instead.
        is_over: whether the trio run has ended.
    """

    def __init__(self, main: Callable[[], Awaitable[_T]], *, name: str) -> None:
        """Nothing runs before `start`."""
        self.value: _T | None = None
        self.failure: BaseException | None = None
        self._main = main
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._ended = threading.Event()
        # The thread writes these three.
        self._token: trio.lowlevel.TrioToken | None = None
        self._is_lingering = False
        self.is_over = False
        context = contextvars.copy_context()
        # A daemon: the interpreter must be able to end although somebody never left a block.
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name=name, daemon=True
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def tell(self, call: Callable[[], object]) -> None:
        """Have something called in the thread, soon and in order. It must not raise.

        When the trio run has ended, it is called here.
        """
        # First the call, then a look at where the thread is. The thread says where it goes, and
        # then looks for calls. So one of the two sees the other.
        self._calls.put(call)
        if self.is_over:
            self._perform()
        elif not self._is_lingering and self._token is not None:
            with suppress(trio.RunFinishedError):  # it is about to look for calls a last time
                self._token.run_sync_soon(self._perform, idempotent=True)

    def ask(self, function: Callable[[], Any]) -> Any:
        """Have a function called in the thread, as by `tell`, and return what it returns.

        Raises:
            BaseException: whatever the function raises.
        """
        if self.is_here:
            return function()
        replies: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

        def call() -> None:
            try:
                replies.put((function(), None))
            except BaseException as exc:  # noqa: BLE001  # raised where it was asked for
                replies.put((None, exc))

        self.tell(call)
        value, failure = replies.get()
        if failure is not None:
            raise failure
        return value

    def end(self, call: Callable[[], object]) -> KeyboardInterrupt | None:
        """Have something called that ends the trio run, and wait until the thread has ended.

        Whatever interrupts that, it goes on waiting; the interrupt is returned.
        """
        interrupt: KeyboardInterrupt | None = None
        while True:
            try:
                self.tell(call)
                # `Thread.join`, interrupted, takes a thread that still runs for one that has ended.
                # In a forked process it is not there, and will not end.
                while self._thread.is_alive() and not self._ended.is_set():
                    self._ended.wait()
                self._thread.join()
            except KeyboardInterrupt as exc:
                interrupt = exc
            else:
                return interrupt

    # In the thread.

    @property
    def is_here(self) -> bool:
        """Whether this is the thread: an agent that is at work in it must not wait for it."""
        return threading.get_ident() == self._thread.ident

    def linger(self, seconds: float) -> bool:
        """Wait for a call, trio standing still; perform it. Say whether one came in time."""
        self._is_lingering = True
        try:
            call = self._calls.get(timeout=seconds)
        except Empty:
            return False
        else:
            call()
            return True
        finally:
            self._is_lingering = False
            self._perform()

    def _perform(self) -> None:
        calls = self._calls
        while not calls.empty():
            with suppress(Empty):  # when the trio run has ended, two threads may be here
                calls.get_nowait()()

    def _run(self) -> None:
        try:
            self.value = trio.run(self._enter)
        except BaseException as exc:  # noqa: BLE001  # for whoever waits for the thread
            self.failure = exc
        finally:
            self.is_over = True
            self._perform()
            self._ended.set()

    async def _enter(self) -> _T:
        self._token = trio.lowlevel.current_trio_token()
        self._perform()
        return await self._main()
