"""What the kernel's tests share: a virtual clock, session services that are slow or fail, quiet.

Everything here is proved on a known-bad case in ``test_scripted.py``.
"""

from __future__ import annotations

import gc
import logging
import sys
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

import trio
from trio.testing import MockClock

from parallel_agent import (
    Agent,
    Content,
    Event,
    InMemorySessionService,
    InvocationContext,
    Result,
    Run,
    Runner,
    agent,
)
from session import Session, SessionKey, fold
from session.lease import Lease

T = TypeVar("T")

Yields: TypeAlias = AsyncGenerator[Event | Content | str, None]
"""What an agent that yields returns."""

Diary: TypeAlias = list[str]
"""What happened, in order."""


def run_virtual(main: Callable[..., Awaitable[T]], *args: Any) -> T:
    """``trio.run`` on a clock that jumps to the next deadline when all tasks wait."""
    return trio.run(main, *args, clock=MockClock(autojump_threshold=0))


def texts(events: Sequence[Event]) -> list[str]:
    """Return the texts of the events that have one: those of leaves, not the fan-outs' records."""
    return [event.text for event in events if event.text]


async def read_all(run: Run) -> list[Event]:
    """Read the run to its end."""
    return [event async for event in run]


async def read_into(got: list[str], run: Run, *, pause: float = 0) -> None:
    """Read the run to its end, keeping the texts seen although it may fail."""
    async for event in run:
        got += texts([event])
        if pause:
            await trio.sleep(pause)


async def stored(runner: Runner, result: Result | Run) -> Session:
    """Return the session as its service holds it."""
    session = await runner.session_service.get(
        app_name=runner.app_name, user_id="user", session_id=result.session_id
    )
    assert session is not None
    return session


def check_log(session: Session) -> None:
    """Assert that the log has no gap and no double, and that the state is what follows from it."""
    assert [event.seq for event in session.events] == list(range(1, len(session.events) + 1))
    assert session.last_seq == len(session.events)
    assert fold({}, session.events) == session.state


async def check_run(runner: Runner, run: Run) -> list[Event]:
    """Assert ``fold(log) == live state`` for a run that has ended; return what it recorded."""
    session = await stored(runner, run)
    check_log(session)
    result = run.result
    assert dict(result.state) == session.state
    recorded = [event for event in session.events if event.invocation_id == run.invocation_id]
    assert [event.seq for event in recorded if event.author != "user"] == [
        event.seq for event in result.events
    ]
    assert run.statistics().last_seq == session.last_seq
    return list(result.events)


def holds_cancellation(error: BaseException) -> bool:
    """Whether a ``Cancelled`` is anywhere in the error: itself, a member, a cause, a context."""
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        found = todo.pop()
        if found is None or id(found) in seen:
            continue
        if isinstance(found, trio.Cancelled):
            return True
        seen.add(id(found))
        todo += [found.__cause__, found.__context__]
        if isinstance(found, BaseExceptionGroup):
            todo += found.exceptions
    return False


class BoomError(Exception):
    """What a failing agent raises."""


def counting(name: str, count: int, *, pause: float = 0) -> Agent:
    """Make an agent that emits ``name0``, ``name1``, ... with a pause before each."""

    @agent(name=name)
    async def run(ctx: InvocationContext) -> Yields:
        for index in range(count):
            if pause:
                await trio.sleep(pause)
            yield f"{name}{index}"

    return run


def failing(name: str, *, after: float = 0, count: int = 0) -> Agent:
    """Make an agent that emits ``count`` events and fails."""

    @agent(name=name)
    async def run(ctx: InvocationContext) -> Yields:
        for index in range(count):
            yield f"{name}{index}"
        await trio.sleep(after)
        raise BoomError(name)

    return run


def endless(name: str, diary: Diary) -> Agent:
    """Make an agent that emits one event, waits for ever, and takes a second to clean up."""

    @agent(name=name)
    async def run(ctx: InvocationContext) -> Yields:
        try:
            yield f"{name}0"
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            diary.append(f"{name} cleaned up")

    return run


class SlowService(InMemorySessionService):
    """Every append of a run's events takes ``delay`` (virtual) seconds; the batches are kept."""

    def __init__(self, delay: float = 0.0, diary: Diary | None = None) -> None:
        super().__init__()
        self.delay = delay
        self.diary: Diary = [] if diary is None else diary
        self.batches_seen: list[list[str]] = []

    async def append(
        self,
        key: SessionKey,
        events: Sequence[Event],
        *,
        expected_seq: int,
        lease: Lease | None = None,
    ) -> None:
        if any(event.author == "user" for event in events):
            await super().append(key, events, expected_seq=expected_seq, lease=lease)
            return
        await trio.sleep(self.delay)
        await super().append(key, events, expected_seq=expected_seq, lease=lease)
        self.batches_seen.append([event.text for event in events])
        self.diary.append("append " + " ".join(event.text or "-" for event in events))


class BatchingService(SlowService):
    """A slow service whose appends cost so much that the branches get a turn before each."""

    batches = True


class StoreError(Exception):
    """The store is broken."""


class FailingService(SlowService):
    """From the ``fail_at``-th append of a run's events on (counted from 1), it fails."""

    def __init__(self, fail_at: int, delay: float = 0.0, diary: Diary | None = None) -> None:
        super().__init__(delay, diary)
        self.fail_at = fail_at
        self.calls = 0

    async def append(
        self,
        key: SessionKey,
        events: Sequence[Event],
        *,
        expected_seq: int,
        lease: Lease | None = None,
    ) -> None:
        if all(event.author != "user" for event in events):
            self.calls += 1
            if self.calls >= self.fail_at:
                await trio.sleep(self.delay)
                message = f"append {self.calls} failed"
                raise StoreError(message)
        await super().append(key, events, expected_seq=expected_seq, lease=lease)


class _Records(logging.Handler):
    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self.heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(f"logged: {record.getMessage()}")


@contextmanager
def quiet(*, generation: int = 2) -> Iterator[None]:
    """Assert that nothing is logged, warned of, or raised where nobody can catch it.

    What is collected at the end goes as far as ``generation``; the oldest takes a while.
    """
    heard: list[str] = []
    handler = _Records(heard)
    root = logging.getLogger()
    level, unraisable = root.level, sys.unraisablehook

    def hook(args: Any) -> None:
        heard.append(f"unraisable: {args.exc_value!r} in {args.object!r}")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        sys.unraisablehook = hook
        try:
            yield
            gc.collect(generation)
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
            sys.unraisablehook = unraisable
    heard += [f"warned: {warning.message}" for warning in caught]
    if heard:
        raise AssertionError("; ".join(heard))
