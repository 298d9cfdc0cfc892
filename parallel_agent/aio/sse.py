"""Server-sent events of a run, for any server that sends what an asynchronous generator yields.

The format is that of the HTML standard, which browsers read by ``EventSource``. An event of the
run is ``data:``, one line: the JSON in which a session service stores it, and which
``parallel-agent run --json`` prints. Its ``id:`` is its sequence number. Partial events, which are
never recorded, have none, and are named ``event: partial``. What comes last is ``event: end``.

A failure is an ``end``, too, and no ``error``: that is what browsers call a broken connection.
"""

from __future__ import annotations

import asyncio
import json
import math
from bisect import bisect_right
from collections.abc import AsyncGenerator, Mapping
from functools import cache
from types import MappingProxyType, TracebackType
from typing import Any, Final, cast

from parallel_agent.aio.host import HostedEvents
from parallel_agent.aio.runner import OpenRun, Run
from parallel_agent.errors import ReadError
from parallel_agent.handle import core_of
from parallel_agent.lifecycle import Status
from parallel_agent.notes import describe
from parallel_agent.observe.harmless import json_line
from session.codec import Codec
from session.event import Event

__all__ = ["SSE_HEADERS", "stream_sse"]

SSE_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Cache-Control": "no-cache",
        "X-Accel-Buffering": "no",  # or nginx keeps events until it has some kilobytes of them
    }
)
"""What a server should send with a stream of events, beside ``Content-Type: text/event-stream``."""

KEEP_ALIVE: Final = b": keep-alive\n\n"

GONE: Final = "the client of its event stream has left"

MAX_DIGITS: Final = 18
"""Longer ids are none of ours, whatever they are."""


def stream_sse(
    run: OpenRun | Run | HostedEvents,
    *,
    keep_alive: float | None = 15.0,
    last_event_id: str | None = None,
    error_text: bool = False,
) -> AsyncGenerator[bytes]:
    """Return a generator of the run's events, as the bytes of a ``text/event-stream``.

    ::

        return StreamingResponse(
            aio.stream_sse(runner.open(message)),
            media_type="text/event-stream",
            headers=aio.SSE_HEADERS,
        )

    It opens the run at its first step, and leaves it at its end: after the last event, or when the
    client has gone. The server may tell by cancelling its task, by dropping the generator, or by
    ``aclose()``; the tree is then cancelled, and cleans up before the generator has ended. A run
    that is open already is only read: ending it is for the block that has opened it.

    A branch goes on when the server comes back for more, which it does when it has sent the event
    before: a slow client slows the tree down, and nothing piles up.

    The last is an event named ``end`` with ``{"status": ...}``, and why (``"reason"``) if the run
    was cancelled or waits. A browser connects again after that, unless the page closes its
    ``EventSource``. If the run has failed, it is ``{"status": "failed", "error": "ValueError"}``,
    and the exception is raised then. The client is told its type but not its text, which may name
    what is none of its business; nor are the texts of errors in outcomes sent. What agents say,
    their state, and what `Escalate` asks, are sent as they are recorded.

    Of a detached run, ``stream_sse(host.subscribe(session_id), last_event_id=...)`` sends what the
    session holds, and what comes, until no run of the host is there any more. A client that goes,
    or is slow, changes nothing then, and one that connects again goes on where it was. The ``end``
    is that of the last run of the host at the session, without a status if the host knows of none;
    what that has failed with is raised by `RunHost.wait`, and not here. No events are partial.

    Args:
        run: ``aio.Runner(tree).open(...)``, or what ``async with`` makes of that; or
            ``host.subscribe(session_id)`` of ``aio.Runner(tree).host()``.
        keep_alive: after how many seconds without an event a comment is sent, so that no proxy
            takes the connection for dead, and a client that has gone is noticed; None for never.
            Nothing is sent while the session is loaded.
        last_event_id: what the client says in the header ``Last-Event-ID``, when it connects
            again. What the session's log holds after that event comes first, then what is new:
            what an earlier run recorded while it ended, and the message of this one. It is a number
            in one session, so pass it on together with that ``session_id``. What is no such
            number, or beyond the end of the log, is ignored: the client may say anything.
        error_text: whether the texts of errors are sent, too: ``"message"`` beside ``"error"``.

    Raises:
        ReadError: ``run`` or ``last_event_id`` is something else; at once, not at the first step.
        ValueError: ``keep_alive`` is no time; likewise.
        BaseException: whatever made the run fail, as itself, after the ``end``.
    """
    if not isinstance(run, OpenRun | Run | HostedEvents):
        message = (
            "stream_sse() takes what aio.Runner(tree).open(...) returns, or host.subscribe(...), "
            f"not {run!r:.80}"
        )
        raise ReadError(message)
    if last_event_id is not None and not isinstance(last_event_id, str):
        message = f"last_event_id is the text of a header, or None, not {last_event_id!r:.80}"
        raise ReadError(message)
    if keep_alive is not None and not (
        isinstance(keep_alive, int | float) and 0 < keep_alive < math.inf
    ):
        message = f"keep_alive is a number of seconds above 0, or None, not {keep_alive!r:.80}"
        raise ValueError(message)
    writer, after = _Writer(error_text=error_text), _as_number(last_event_id)
    if isinstance(run, HostedEvents):
        if after is not None:
            run.go_on_after(after)
        return _frames_of_session(run, writer, keep_alive)
    return _frames(run, writer, keep_alive, after)


async def _frames_of_session(
    events: HostedEvents, writer: _Writer, keep_alive: float | None
) -> AsyncGenerator[bytes]:
    failure: Exception | None = None
    last = b""
    try:
        while (event := await _next(events, keep_alive)) is not None:
            yield KEEP_ALIVE if event is _SILENCE else writer.event(event)
        last = writer.session_end(events)
    except Exception as exc:  # noqa: BLE001  # raised below, when the client knows
        failure = exc
        last = writer.failure(exc)
    yield last
    if failure is not None:
        try:
            raise failure
        finally:
            failure = None  # as below


async def _frames(
    opening: OpenRun | Run, writer: _Writer, keep_alive: float | None, after: int | None
) -> AsyncGenerator[bytes]:
    # A run's block may be held across a `yield`, and left in another task than it was entered in:
    # its scopes are trio's, in a task of their own. A scope of asyncio's may not.
    block = _Block(opening)
    failure: BaseException | None = None
    try:
        async with block as run:
            try:
                for recorded in _recorded(run, after):
                    yield writer.event(recorded)
                while (event := await _next(run, keep_alive)) is not None:
                    yield KEEP_ALIVE if event is _SILENCE else writer.event(event)
            except (GeneratorExit, asyncio.CancelledError) as exc:
                block.client_has_gone()
                if isinstance(exc, asyncio.CancelledError):
                    raise
                # Else leave as by `break`: so what goes wrong in the clean-up is raised.
        if block.is_gone:
            return
        last = writer.end(*block.ending())
    except BaseException as exc:
        if block.is_gone or isinstance(exc, asyncio.CancelledError):
            raise
        failure = exc
        last = writer.failure(exc)
    yield last
    if failure is not None:
        try:
            raise failure
        finally:
            failure = None  # or it would hold this frame, and this frame it


class _Block:
    """A run's block; of a run that is open already, one that leaves it open."""

    def __init__(self, opening: OpenRun | Run) -> None:
        self.is_gone = False
        self._block = opening if isinstance(opening, OpenRun) else None
        self._run = opening if isinstance(opening, Run) else None

    async def __aenter__(self) -> Run:
        if self._block is not None:
            self._run = await self._block.__aenter__()
        return cast("Run", self._run)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._block is not None:
            await self._block.__aexit__(kind, error, trace)

    def client_has_gone(self) -> None:
        self.is_gone = True
        if self._block is not None and self._run is not None:
            self._run.cancel(GONE)

    def ending(self) -> tuple[Status, str | None]:
        """Say how the run has ended, and why; it has, and the block as well."""
        run = cast("Run", self._run)
        if self._block is None:
            # Its own block concludes it, later.
            return core_of(run).ending(broken=False)
        return run.result.status, run.result.reason


_SILENCE: Final = Event()


async def _next(run: Run | HostedEvents, keep_alive: float | None) -> Event | None:
    """Return the next event, None at its end, or `_SILENCE` if there was none in time."""
    failure: Exception | None = None
    try:
        async with asyncio.timeout(keep_alive):
            try:
                return await anext(run)
            except StopAsyncIteration:
                return None
            except Exception as exc:  # noqa: BLE001  # it may be a TimeoutError, and not this one
                failure = exc
    except TimeoutError:
        return _SILENCE
    raise failure


def _recorded(run: Run, after: int | None) -> list[Event]:
    """Return what the session's log holds after that number; nothing if there is none."""
    if after is None:
        return []
    # What this run records is added when it is handed out, so nothing comes twice.
    events = core_of(run).stream.session.events
    return events[bisect_right(events, after, key=lambda event: event.seq or 0) :]


def _as_number(last_event_id: str | None) -> int | None:
    text = (last_event_id or "").strip()
    if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS:
        return int(text)
    return None


@cache
def _codec() -> Codec:
    # Making one takes twenty milliseconds, for a reader that is not used here.
    return Codec()


class _Writer:
    """Makes the bytes."""

    def __init__(self, *, error_text: bool) -> None:
        self._error_text = error_text
        self._codec = _codec()

    def event(self, event: Event) -> bytes:
        if event.actions.outcomes and not self._error_text:
            obj = self._codec.encode(event)
            for outcome in obj["customMetadata"]["parallel_agent"]["outcomes"]:
                outcome.pop("errorMessage", None)
            text = _as_json(obj)
        else:
            text = self._codec.dumps(event)
        return _frame(text, name="partial" if event.partial else None, number=event.seq)

    def end(self, status: Status, reason: str | None) -> bytes:
        why = {} if reason is None else {"reason": reason}
        return _frame(_as_json({"status": status, **why}), name="end")

    def session_end(self, events: HostedEvents) -> bytes:
        ending = events.ending
        if ending is None:
            return _frame("{}", name="end")
        info, failure = ending
        return self.end(info.status, info.reason) if failure is None else self.failure(failure)

    def failure(self, error: BaseException) -> bytes:
        kind, text = describe(error)
        said = {"message": text} if self._error_text else {}
        return _frame(_as_json({"status": Status.FAILED, "error": kind, **said}), name="end")


def _as_json(obj: dict[str, Any]) -> str:
    return json.dumps(obj, ensure_ascii=False, separators=(",", ":"))


def _frame(text: str, *, name: str | None, number: int | None = None) -> bytes:
    head = "" if number is None else f"id: {number}\n"
    if name is not None:
        head += f"event: {name}\n"
    # On one line, also for clients that take more for the end of a line than the standard does.
    data = json_line(text, ascii_only=False)
    return f"{head}data: {data}\n\n".encode()
