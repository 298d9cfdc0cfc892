"""Ctrl-C in a main thread that waits for a thread of ours.

Python raises `KeyboardInterrupt` wherever the main thread happens to be: also between starting a
thread and remembering it, and while it waits for the clean-up that an earlier one has asked for.
So while runs are open there, and as long as nobody else looks after the signal, a handler of ours
does, as trio's does in ``trio.run``: in the functions that are `uninterrupted` the interrupt is
put off, and they raise it where nothing is lost; everywhere else it is raised at once, as always.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import CodeType, FrameType
from typing import Any, Final, TypeVar, final

import trio

__all__ = ["INTERRUPTS", "Interrupts", "uninterrupted"]

_F = TypeVar("_F", bound=Callable[..., Any])

_UNINTERRUPTED: Final[set[CodeType]] = set()


def uninterrupted(function: _F) -> _F:
    """Put off interrupts while this function, or whatever it calls, is running."""
    # By its code, as the handler sees it from its first instruction on: a flag would be set later.
    _UNINTERRUPTED.add(function.__code__)
    return function


@final
class Interrupts:
    """The handler, and the interrupt that was put off. There is one: the main thread's."""

    def __init__(self) -> None:
        """Nothing is handled yet."""
        self._holders = 0
        self._is_pending = False
        self._bell: SimpleQueue[Any] | None = None

    def hold(self) -> None:
        """Begin to handle Ctrl-C, if this is the main thread and nobody else does."""
        if _is_main():
            # In this order: from here on nothing can come between.
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, self._put_off)
            self._holders += 1

    def let_go(self) -> bool:
        """Leave Ctrl-C to Python again, when the last who called `hold` in this thread does.

        Returns whether an interrupt was put off; the caller raises it, unless it does already.
        """
        if not _is_main() or not self._holders:
            return False
        self._holders -= 1
        if not self._holders and signal.getsignal(signal.SIGINT) == self._put_off:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        was_put_off, self._is_pending = self._is_pending, False
        return was_put_off

    @property
    def is_held(self) -> bool:
        """Whether Ctrl-C in this thread is handled here, so that ``trio.run`` leaves it to us."""
        return _is_main() and signal.getsignal(signal.SIGINT) == self._put_off

    def wait(self, queue: SimpleQueue[Any]) -> Any:
        """Get something from a queue.

        Raises:
            KeyboardInterrupt: that was put off. What is in the queue stays there.
        """
        if not _is_main():
            return queue.get()
        self._bell = queue
        try:
            while True:
                item = queue.get() if not self._is_pending else _RUNG
                if self._is_pending:
                    self._is_pending = False
                    if item is not _RUNG:
                        queue.put(item)
                    raise KeyboardInterrupt
                if item is not _RUNG:
                    return item
        finally:
            self._bell = None

    def _put_off(self, _number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code in _UNINTERRUPTED:
                self._is_pending = True
                if self._bell is not None:
                    self._bell.put(_RUNG)
                return
            frame = frame.f_back
        # A body may run trio itself, which leaves Ctrl-C to us; raised in the middle of trio, it
        # would break it.
        if trio.lowlevel.in_trio_run() and trio.lowlevel.currently_ki_protected():
            self._is_pending = True
        else:
            raise KeyboardInterrupt


def _is_main() -> bool:
    return threading.get_ident() == threading.main_thread().ident


_RUNG: Final = object()

INTERRUPTS: Final = Interrupts()
"""Signals belong to the process, so there is one."""
