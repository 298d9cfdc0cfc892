"""Ctrl-C while trio is at work in an asyncio loop.

The first one cancels the main task of `asyncio.run`. A second one, or one while the loop is ending,
raises KeyboardInterrupt wherever the program is: within trio, too, whose own protection is not in
force then. A tick that is torn leaves trio in pieces, and a loop that waits for it for ever.
"""

from __future__ import annotations

import signal
from functools import partial
from importlib import import_module
from types import FrameType, TracebackType
from typing import Any, Final, final

__all__ = ["Later", "would_tear"]

# `signal` makes enums of the answers, which takes as long as half an event, and the repr of a task.
_signal: Final[Any] = import_module("_signal")


def would_tear() -> bool:
    """Whether a Ctrl-C would raise KeyboardInterrupt here and now. Called in the main thread."""
    handler: Any = _signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        return True
    # `asyncio.Runner` has one that it tells its main task. Others only take notes.
    task = handler.keywords.get("main_task") if isinstance(handler, partial) else None
    return task is not None and (task.done() or task.cancelling() > 0)


@final
class Later:
    """A block in which a Ctrl-C is put off to its end, unless another one follows.

    Only for the main thread.
    """

    def __init__(self) -> None:
        """Nothing changes before the block."""
        self._handler: Any = None
        self._is_due = False

    def __enter__(self) -> None:
        self._handler = _signal.getsignal(signal.SIGINT)
        _signal.signal(signal.SIGINT, self._put_off)

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        _signal.signal(signal.SIGINT, self._handler)
        if self._is_due:
            self._handler(signal.SIGINT, None)

    def _put_off(self, number: int, frame: FrameType | None) -> None:
        if self._is_due:
            self._handler(number, frame)  # an agent may well be in an endless loop
        self._is_due = True
