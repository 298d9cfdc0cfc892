"""A live view of runs on a terminal: the tree, and for each agent how it stands.

Needs rich: ``pip install 'parallel-agent[cli]'``.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, Final, cast

import attrs

from parallel_agent.context import InvocationContext
from parallel_agent.lifecycle import Status
from parallel_agent.observe.outline import rails
from parallel_agent.observe.progress import Node, Picture, Progress, Row, names
from parallel_agent.observe.tracker import Tracker
from session.event import Event

try:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live
    from rich.text import Text
except ModuleNotFoundError as error:
    message = "the live view needs rich: pip install 'parallel-agent[cli]'"
    raise ModuleNotFoundError(message, name=error.name) from error

if TYPE_CHECKING:
    from parallel_agent.result import Result

__all__ = ["LiveView", "render"]


class _Unfailing:
    """A stream, as long as it can be written to; after that, nothing. A view must not end a run.

    Attributes:
        error: why it cannot be written to any more.
    """

    def __init__(self, stream: IO[str]) -> None:
        self.error: Exception | None = None
        self._stream = stream
        self._encoding: str = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        # Letters that the stream has not: it is not broken because of those.
        text = text.encode(self._encoding, "backslashreplace").decode(self._encoding)
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, call: Callable[[], object]) -> None:
        if self.error is None:
            try:
                call()
            except (OSError, ValueError) as error:  # no reader, a full disk; closed
                self.error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class LiveView(Tracker):
    """Draws every run of its runner as a live tree: status, time, events, last text.

    ::

        Runner(tree, plugins=[LiveView()])

    A view that stands still after the run stays on the screen. What is printed meanwhile comes
    out above it. On anything but a terminal only that last view is printed. A tree that is
    higher than the terminal is cut down to what has failed and what is at work.

    Blocks the event loop while it writes the first and the last view; the others are drawn by a
    thread. Never raises because of what an agent says: control characters are made visible, and
    markup means nothing. Nor because it cannot be written: it stops drawing, and `trouble` says
    why. The console's file is wrapped for that when the view is made.

    Args:
        name: see `Plugin`.
        console: where to draw; by default standard output.
        clock: seconds, from any beginning; called in any thread.
        refresh_per_second: how often to draw.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        refresh_per_second: float = 8,
    ) -> None:
        """See the class."""
        super().__init__(name, clock=clock)
        self._console = Console() if console is None else console
        # All that goes there, not only our own: rich prints what agents print, too, and ends
        # the program when nobody reads that.
        self._out = _Unfailing(self._console.file)
        self._console.file = cast("IO[str]", self._out)
        self._is_live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._refresh_per_second = refresh_per_second
        self._live: Live | None = None
        self._last: tuple[Progress, ...] = ()
        # Held to start and to stop. Never taken by who holds `lock`: to stop is to wait for the
        # thread that draws, which takes that one.
        self._screen = threading.Lock()

    @property
    def trouble(self) -> Exception | None:
        """Why nothing can be drawn any more; None as long as it can."""
        return self._out.error

    async def before_run_callback(self, ctx: InvocationContext) -> None:
        """Begin to draw."""
        with self.lock:
            self.progress_of(ctx).started(ctx.path, ctx.agent, now=self.clock())
        with self._screen:
            if self._live is None and self._is_live:
                self._live = Live(
                    _Frame(self),
                    console=self._console,
                    refresh_per_second=self._refresh_per_second,
                    vertical_overflow="crop",
                )
                self._live.start(refresh=True)

    @contextmanager
    def aside(self) -> Generator[None, None, None]:
        """Draw nothing during this block: somebody is to read, and to type."""
        with self._screen:
            paused, self._live = self._live, None
            if paused is not None:
                _stop(paused)
        try:
            yield
        finally:
            with self._screen:
                if paused is not None and self._live is None and self.runs:
                    self._live = paused
                    paused.start(refresh=True)

    async def on_event_callback(self, ctx: InvocationContext, event: Event) -> None:
        """Note what an agent says."""
        text = event.text or event.error_message or ""
        with self.lock:
            self.progress_of(ctx).said(
                ctx.path, ctx.agent, text, now=self.clock(), partial=event.partial
            )

    async def after_run_callback(self, ctx: InvocationContext, result: Result) -> None:
        """Draw the last view of a run."""
        with self.lock:
            progress = self.progress_of(ctx)
        await super().after_run_callback(ctx, result)
        with self._screen:
            if self.runs or self._live is None:
                # On a terminal it comes out above the runs that go on.
                self._console.print(_Frame(self, (progress,)))
                return
            self._last = (progress,)
            _stop(self._live)
            self._live, self._last = None, ()

    def draw(
        self, runs: Sequence[Progress], *, width: int, height: int, ascii_only: bool
    ) -> list[Text]:
        """Return the view of ``runs``, or of those that go on; internal."""
        with self.lock:
            shown = runs or self.runs or self._last
            return render(
                shown, now=self.clock(), width=width, height=height, ascii_only=ascii_only
            )


def _stop(live: Live) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # there is none, or it is closed
            stream.flush()  # rich keeps half a line back until the other half comes
    live.stop()


@attrs.frozen
class _Frame:
    """The view at the moment it is printed."""

    view: LiveView
    runs: tuple[Progress, ...] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it as high as the terminal is, but for the line the cursor is on."""
        yield from self.view.draw(
            self.runs,
            width=options.max_width,
            height=max(1, console.height - 1),
            ascii_only=options.ascii_only,
        )


# ----------------------------------------------------------------------------------- how it looks


@attrs.frozen
class _Look:
    symbol: str
    plain: str
    style: str


_LOOKS: Final[Mapping[Status, _Look]] = MappingProxyType(
    {
        Status.PENDING: _Look("·", ".", "dim"),
        Status.RUNNING: _Look("●", "*", "cyan"),
        Status.COMPLETED: _Look("✓", "+", "green"),
        Status.FAILED: _Look("✗", "x", "bold red"),
        Status.CANCELLED: _Look("⊘", "-", "yellow"),
        Status.WAITING: _Look("?", "?", "magenta"),
    }
)
_CLEANING_UP: Final = _Look("◌", "~", "yellow")


def render(
    runs: Sequence[Progress], *, now: float, width: int, height: int, ascii_only: bool = False
) -> list[Text]:
    """Return the view of ``runs``: at most ``height`` lines of at most ``width`` cells.

    ``ascii_only`` draws with characters that every terminal has.
    """
    room, lines = max(1, height), list[Text]()
    for position, progress in enumerate(runs):
        share = (room - len(lines)) // (len(runs) - position)
        lines += _of_run(progress, now=now, width=width, height=share, ascii_only=ascii_only)
    return lines[:room]


def _of_run(
    progress: Progress, *, now: float, width: int, height: int, ascii_only: bool
) -> list[Text]:
    below = [_sum(progress, now)]
    if progress.cancelling and progress.status is Status.RUNNING:
        at_work = names(progress.working()) or "nobody"
        note = f"{progress.cancelling}; still cleaning up: {at_work}"
        below.append(Text(note, _CLEANING_UP.style))
    picture = progress.fit(height - len(below))
    lines = _table(picture, progress, now=now, width=width, ascii_only=ascii_only)
    if picture.hidden and height > len(below):
        dots = "..." if ascii_only else "…"
        lines.append(Text(f"{dots} not shown: {_counts(picture.hidden)}", "dim"))
    lines += below[: max(1, height)]
    for line in lines:
        _cut(line, width, ascii_only=ascii_only)
        line.no_wrap, line.overflow = True, "crop"
    return lines


def _table(
    picture: Picture, progress: Progress, *, now: float, width: int, ascii_only: bool
) -> list[Text]:
    names_ = [_name(row, progress, ascii_only=ascii_only) for row in picture.rows]
    widest = min(max((name.cell_len for name in names_), default=0), max(16, width // 2))
    lines = list[Text]()
    for row, name in zip(picture.rows, names_, strict=True):
        node = row.node
        _cut(name, widest, ascii_only=ascii_only)
        name.pad_right(widest - name.cell_len)
        has_run = node.started > 0
        name.append(f" {_seconds(node.elapsed(now)) if has_run else '':>7}", "dim")
        name.append(f" {node.events or '':>5}  ", "dim")
        name.append(node.text, "red" if node.status is Status.FAILED else "")
        name.rstrip()
        lines.append(name)
    return lines


def _name(row: Row, progress: Progress, *, ascii_only: bool) -> Text:
    node = row.node
    look = _look_of(node, progress)
    text = Text().append(rails(row.last, ascii_only=ascii_only), "dim")
    text.append(f"{look.plain if ascii_only else look.symbol} ", look.style)
    if row.is_apart:
        text.append(".../" if ascii_only else "…/", "dim")
    text.append(node.name, "dim" if node.status is Status.PENDING else "bold")
    if node.started > 1:
        text.append(f" x{node.started}", "dim")
        if node.failed:  # of the items of a map, say, of which the last one shows
            text.append(f", {node.failed} failed", _LOOKS[Status.FAILED].style)
    return text


def _look_of(node: Node, progress: Progress) -> _Look:
    if node.status is Status.RUNNING and progress.cancelling:
        return _CLEANING_UP
    return _LOOKS[node.status]


def _sum(progress: Progress, now: float) -> Text:
    status = progress.status
    text = Text()
    if status is Status.RUNNING and progress.cancelling:
        text.append("cancelling", _CLEANING_UP.style)
    else:
        text.append(str(status), _LOOKS[status].style)
    events = "1 event" if progress.events == 1 else f"{progress.events:,} events"
    text.append(f"  {_seconds(progress.elapsed(now))}  {events}  {_counts(progress.counts)}", "dim")
    return text


def _counts(counts: Mapping[Status, int]) -> str:
    return ", ".join(f"{counts[status]:,} {status}" for status in Status if counts.get(status))


def _cut(line: Text, width: int, *, ascii_only: bool) -> None:
    # The ellipsis of rich itself is no ASCII.
    line.truncate(max(0, width), overflow="crop" if ascii_only else "ellipsis")


def _seconds(seconds: float) -> str:
    """Return how long that is, in at most seven characters."""
    if seconds < 60:  # noqa: PLR2004  # seconds in a minute
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:  # noqa: PLR2004  # minutes in an hour
        return f"{minutes}m{rest:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m"
