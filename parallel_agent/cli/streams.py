"""What agents and the programs they start print, kept out of what the command prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, Final, TextIO, cast

from rich.file_proxy import FileProxy

from parallel_agent.cli.show import Printer

__all__ = ["above_the_view", "to_standard_error"]

STDOUT: Final = 1
STDERR: Final = 2


@contextmanager
def to_standard_error(printer: Printer) -> Generator[None]:
    """Send what is printed during this block to standard error, but for what ``printer`` prints."""
    with _descriptor_apart(printer), redirect_stdout(printer.err):
        yield


@contextmanager
def _descriptor_apart(printer: Printer) -> Generator[None]:
    """Do so for programs that agents start: those know no more of us than the descriptors."""
    out = printer.out
    if out is None or not (_is(out, STDOUT) and _is(printer.err, STDERR)):
        yield
        return
    own = os.dup(STDOUT)
    with open(own, "w", encoding=out.encoding, errors=out.errors) as stream:  # noqa: PTH123  # it has no path
        printer.out = stream
        os.dup2(STDERR, STDOUT)
        try:
            yield
        finally:
            os.dup2(own, STDOUT)
            printer.out = out


def _is(stream: TextIO | None, number: int) -> bool:
    try:
        return stream is not None and stream.fileno() == number
    except (OSError, ValueError):
        return False


@contextmanager
def above_the_view() -> Generator[None]:
    """Let handlers of `logging` that are made during this block print above a live view.

    They keep the stream they find; the view puts another in its place, but only when it begins.
    """
    out, err = sys.stdout, sys.stderr
    # A file that standard error leads to is not disturbed, and disturbs nobody.
    is_seen = err is not None and err.isatty()
    with (
        redirect_stdout(_AboveTheView.of("stdout", out)),
        redirect_stderr(_AboveTheView.of("stderr", err) if is_seen else err),
    ):
        yield


class _AboveTheView:
    """A standard stream; while a live view is drawn, what the view has put in its place."""

    def __init__(self, name: str, own: TextIO) -> None:
        self._name = name
        self._own = own

    @classmethod
    def of(cls, name: str, own: TextIO | None) -> TextIO | None:
        """Return one for ``sys.<name>``, if there is such a stream."""
        return None if own is None else cast("TextIO", cls(name, own))

    def write(self, text: str) -> int:
        return self._now().write(text)

    def flush(self) -> None:
        self._now().flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def _now(self) -> TextIO:
        now = getattr(sys, self._name)
        # Not what anybody else has put there: that may write to this one.
        return cast("TextIO", now) if isinstance(now, FileProxy) else self._own
