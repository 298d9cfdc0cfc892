"""Ctrl-C, SIGTERM and SIGHUP: the first asks the run to end, the second ends the process."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final, NoReturn, Self

import trio

__all__ = ["Interrupts", "leave_at_once"]

HANG_UP: Final[int | None] = getattr(signal, "SIGHUP", None)  # none on Windows
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, *([] if HANG_UP is None else [HANG_UP]))


class Interrupts:
    """Handles the signals while its block runs. ``with`` it, around ``trio.run``.

    Not `trio.open_signal_receiver`, which tells a task: an agent that does not let the event loop
    run would hold up the second Ctrl-C with the first. A handler of our own runs all the same.

    Args:
        leave: ends the process, given the number of the second signal.

    Attributes:
        first: the number of the first signal; None as long as none came.
        is_ending: whether the next signal ends the process even if it is the first. Set by who
            has told people so.
    """

    def __init__(self, leave: Callable[[int], object]) -> None:
        """See the class."""
        self.first: int | None = None
        self.is_ending = False
        self._leave = leave
        self._tell: Callable[[], None] | None = None
        self._before: dict[int, Any] = {}

    async def wait(self) -> int:
        """Wait for the first signal and return its number."""
        came = trio.Event()
        token = trio.lowlevel.current_trio_token()
        self._tell = lambda: token.run_sync_soon(came.set)
        try:
            if self.first is None:
                await came.wait()
        finally:
            self._tell = None
        return self.first or 0

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may handle signals
        for number in SIGNALS:
            # Ignored from the start, as in the background of a script: so it stays.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_details: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.first is not None or self.is_ending:
            # Of a terminal that is closed, the shell tells and the system, too: nobody insists.
            if number != HANG_UP:
                self._leave(number)
            return
        self.first = number
        if self._tell is not None:
            self._tell()


def leave_at_once(number: int) -> NoReturn:
    """End the process, whatever it is doing; its exit status names the signal.

    Nothing is cleaned up. What was printed has been written, and the terminal gets its cursor back.
    """
    # A terminal or a pipe that nobody reads takes nothing, and would hold us up for good. Not a
    # `threading.Thread`: to start one takes a lock that the interrupted code may hold.
    with suppress(RuntimeError):  # too many threads
        _thread.start_new_thread(_end_soon, (number,))
    # Straight to the file: the signal may have come in the middle of a print.
    with suppress(OSError, ValueError):
        # From the terminal itself: standard output may have been redirected in this process.
        if os.isatty(1):
            os.write(1, _SHOW_CURSOR)
    with suppress(OSError):
        os.write(2, b"\nended at once\n")
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(128 + number)


def _end_soon(number: int) -> None:
    time.sleep(_LAST_WORDS)
    os._exit(128 + number)


_LAST_WORDS: Final = 0.5
"""How many seconds there are for them."""

_SHOW_CURSOR: Final = b"\x1b[?25h"
