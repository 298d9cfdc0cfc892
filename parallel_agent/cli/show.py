"""The ways to show a run: as lines, as JSON, by its last word, or as a live tree.

Events, or what stands for them, go to standard output; remarks about the run to standard error.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import NoReturn, TextIO

from rich.console import Console

from parallel_agent.cli.answers import how_to_answer
from parallel_agent.cli.describe import error_lines, event_lines, traceback_lines
from parallel_agent.cli.running import Ended, OutputClosedError, Show
from parallel_agent.lifecycle import Status
from parallel_agent.observe.harmless import harmless, json_line, one_line
from parallel_agent.observe.live import LiveView
from parallel_agent.observe.progress import names
from parallel_agent.observe.tracker import Tracker
from session.codec import Codec
from session.event import Event

__all__ = ["Lines", "LiveTree", "Printer", "Quiet", "StoredForm"]


class Printer:
    """Standard output and standard error, as this process was given them.

    Blocks the event loop while a reader is slower than its pipe. Either stream may be missing.
    """

    def __init__(self, out: TextIO | None, err: TextIO | None) -> None:
        """Print on ``out``, and what is not output on ``err``."""
        self.out = out
        self.err = err

    def print(self, text: str) -> None:
        """Print a line, or lines, of output.

        Raises:
            OutputClosedError: nobody reads it, or it cannot be written.
        """
        if self.out is None:
            return
        try:
            self.out.write(f"{text}\n")
            self.out.flush()
        except (OSError, ValueError) as error:  # ValueError: an agent has closed it
            self.give_up(error)

    def remark(self, text: str) -> None:
        """Print a line on standard error; without a word if that cannot be."""
        with suppress(OSError, ValueError):
            if self.err is not None:
                self.err.write(f"{text}\n")
                self.err.flush()

    def give_up(self, error: Exception) -> NoReturn:
        """Print nothing more, because of ``error``.

        Raises:
            OutputClosedError: always.
        """
        # Python flushes what is left when it ends (an agent may have printed, too), and complains.
        with suppress(OSError, ValueError):
            if self.out is not None:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.out.fileno())
                os.close(nowhere)
        # EIO: the terminal has gone.
        nobody_reads = isinstance(error, BrokenPipeError) or (
            isinstance(error, OSError) and error.errno == errno.EIO
        )
        raise OutputClosedError("" if nobody_reads else str(error)) from error


class _Remarks(Show):
    """What all ways have in common: the remarks. Shows no event."""

    def __init__(self, printer: Printer, *, full_traceback: bool = False) -> None:
        """``full_traceback``: of an error, not only what it says."""
        self._printer = printer
        self._full_traceback = full_traceback
        self._tracker = Tracker("parallel-agent")

    @property
    def tracker(self) -> Tracker:
        return self._tracker

    @property
    def remark(self) -> Callable[[str], None]:
        return self._printer.remark

    def note(self, text: str) -> None:
        self._printer.remark(text)

    def aside(self) -> AbstractContextManager[None]:
        return nullcontext()

    def event(self, event: Event) -> None:
        pass

    def cancelling(self, why: str) -> None:
        self._printer.remark(f"cancelling: {one_line(why)} (Ctrl-C now ends at once)")

    def cleaning_up(self, paths: Sequence[str]) -> None:
        self._printer.remark(f"still cleaning up: {names(list(paths))}")

    def ended(self, ended: Ended) -> None:
        if ended.error is None:
            why = f": {one_line(ended.reason)}" if ended.reason else ""
            self._printer.remark(f"{ended.status}{why}{_figures(ended)}")
        else:
            self._printer.remark(f"{ended.status}: {error_lines(ended.error)}")
            if self._full_traceback:
                self._printer.remark(traceback_lines(ended.error))
        for line in _ways_on(ended):
            self._printer.remark(line)


class Lines(_Remarks):
    """A line for each event: branch, author, text."""

    def __init__(self, printer: Printer, *, partial: bool, full_traceback: bool = False) -> None:
        """``partial``: also the pieces of messages that come whole later."""
        super().__init__(printer, full_traceback=full_traceback)
        self._partial = partial

    def event(self, event: Event) -> None:
        """Print it."""
        if self._partial or not event.partial:
            self._printer.print(event_lines(event))


class StoredForm(_Remarks):
    """Each event as an object of JSON on a line of its own: what a session service stores."""

    def __init__(self, printer: Printer, *, partial: bool, full_traceback: bool = False) -> None:
        """``partial``: also the pieces of messages that come whole later."""
        super().__init__(printer, full_traceback=full_traceback)
        self._partial = partial
        self._codec = Codec()
        encoding = getattr(printer.out, "encoding", None) or "ascii"
        self._is_unicode = encoding.lower().replace("-", "").startswith("utf")

    def event(self, event: Event) -> None:
        """Print it."""
        if self._partial or not event.partial:
            text = self._codec.dumps(event)
            self._printer.print(json_line(text, ascii_only=not self._is_unicode))


class Quiet(_Remarks):
    """The final text, and nothing else unless something is wrong."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def ended(self, ended: Ended) -> None:
        """Print the text of a run that has completed."""
        if ended.status is not Status.COMPLETED:
            super().ended(ended)
        elif ended.result is not None and ended.result.text:
            self._printer.print(harmless(ended.result.text))


class LiveTree(_Remarks):
    """The live view; after the run, the final text."""

    def __init__(
        self, printer: Printer, *, force_terminal: bool = False, full_traceback: bool = False
    ) -> None:
        """``force_terminal``: draw, whatever standard output is."""
        super().__init__(printer, full_traceback=full_traceback)
        console = Console(file=printer.out, force_terminal=force_terminal or None)
        self._view = LiveView("parallel-agent", console=console)
        self._tracker = self._view

    def aside(self) -> AbstractContextManager[None]:
        """Stop drawing meanwhile."""
        return self._view.aside()

    def event(self, event: Event) -> None:
        """Print nothing: the tree shows it. End the run if it can be drawn no more."""
        super().event(event)
        self._check()

    def _check(self) -> None:
        if self._view.trouble is not None:
            self._printer.give_up(self._view.trouble)

    def cancelling(self, why: str) -> None:
        """Say it below the tree."""
        self._tracker.cancel(f"{why} (Ctrl-C now ends at once)")

    def cleaning_up(self, paths: Sequence[str]) -> None:
        """Say nothing: the tree shows it."""

    def ended(self, ended: Ended) -> None:
        """Print the text of a run that has completed; else what was wrong."""
        self._check()
        if ended.status is not Status.COMPLETED:
            super().ended(ended)
        elif ended.result is not None and ended.result.text:
            self._printer.print(f"\n{harmless(ended.result.text)}")


def _ways_on(ended: Ended) -> Iterator[str]:
    """Yield how to answer what was asked, or to go on with what was cut off."""
    result, again = ended.result, ended.again
    if result is None or again is None or not ended.is_left:
        if ended.error is None:
            yield from map(how_to_answer, ended.unanswered)
        return
    session_id, user_id = result.session_id, ended.user_id
    if ended.status is not Status.WAITING:
        yield f"it is unfinished; to go on with it: {again.resume(session_id, user_id)}"
    for request in ended.unanswered if ended.error is None else ():
        yield how_to_answer(request, partial(again.respond, session_id, user_id))


def _figures(ended: Ended) -> str:
    if ended.result is None:
        return ""
    count = len(ended.result.events)
    return f" ({count:,} event{'' if count == 1 else 's'}, {ended.duration:.1f} s)"
