"""The checkers of these tests, each on a case that it must refuse."""

from __future__ import annotations

import logging
import warnings
from collections.abc import AsyncGenerator

import pytest
import trio
from trio.testing import MockClock

from parallel_agent import Event, EventActions, InvocationContext, Runner, agent
from session import Session, SessionKey
from session.event import Origin, stamp_delta, stamp_origin, stamp_seq
from session.state import frozen_dict
from tests.kernel.scripted import (
    FailingService,
    SlowService,
    StoreError,
    check_log,
    check_run,
    holds_cancellation,
    quiet,
    read_all,
    run_virtual,
)

KEY = SessionKey("app", "user", "s")


def _logged(seq: int, **delta: int) -> Event:
    event = Event(str(seq), actions=EventActions(state_delta=delta))
    event.seal()
    stamp_origin(event, Origin(author="a", invocation_id="i"))
    stamp_seq(event, seq)
    return event


def test_check_log_refuses_a_gap() -> None:
    with pytest.raises(AssertionError):
        check_log(Session(KEY, [_logged(1), _logged(3)], {}, 2))


def test_check_log_refuses_a_double() -> None:
    with pytest.raises(AssertionError):
        check_log(Session(KEY, [_logged(1), _logged(1)], {}, 2))


def test_check_log_refuses_a_state_that_does_not_follow() -> None:
    with pytest.raises(AssertionError):
        check_log(Session(KEY, [_logged(1, k=1)], {"k": 2}, 1))


def test_check_log_takes_a_log_that_is_right() -> None:
    check_log(Session(KEY, [_logged(1, k=1), _logged(2, k=2)], {"k": 2}, 2))


async def test_check_run_refuses_a_live_state_that_differs_from_the_log() -> None:
    @agent
    async def writer(ctx: InvocationContext) -> AsyncGenerator[str, None]:
        ctx.state["k"] = 1
        yield "a"

    runner = Runner(writer)
    async with runner.open() as run:
        (event,) = await read_all(run)
    await check_run(runner, run)
    # As if the store had recorded another value than the one everybody saw. (The in-memory
    # service holds the same event object.)
    stamp_delta(event, frozen_dict({"k": 2}))
    with pytest.raises(AssertionError):
        await check_run(runner, run)


async def test_a_cancellation_is_found_wherever_it_hides(autojump_clock: MockClock) -> None:
    kept: list[trio.Cancelled] = []
    with trio.move_on_after(1):
        try:
            await trio.sleep_forever()
        except trio.Cancelled as exc:
            kept.append(exc)
            raise
    (cancelled,) = kept
    after_it = KeyError()
    after_it.__context__ = cancelled
    assert holds_cancellation(cancelled)
    assert holds_cancellation(after_it)
    assert holds_cancellation(BaseExceptionGroup("", [ValueError(), cancelled]))
    assert not holds_cancellation(ExceptionGroup("", [ValueError()]))


async def test_a_slow_service_is_slow(autojump_clock: MockClock) -> None:
    @agent
    async def one(ctx: InvocationContext) -> str:
        return "a"

    runner = Runner(one, session_service=SlowService(5))
    await runner.run("hi")
    assert trio.current_time() == 5


async def test_a_failing_service_fails() -> None:
    @agent
    async def one(ctx: InvocationContext) -> str:
        return "a"

    with pytest.raises(StoreError):
        await Runner(one, session_service=FailingService(1)).run("hi")


def test_quiet_hears_a_log_record() -> None:
    with pytest.raises(AssertionError, match="logged: boo"), quiet():
        logging.getLogger("trio.x").warning("boo")


def test_quiet_hears_a_warning() -> None:
    with pytest.raises(AssertionError, match="warned: boo"), quiet():
        warnings.warn("boo", ResourceWarning, stacklevel=1)


def test_quiet_hears_an_abandoned_generator() -> None:
    async def helper() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        generator = helper()
        await generator.__anext__()
        del generator
        await trio.lowlevel.checkpoint()

    with pytest.raises(AssertionError, match=r"warned: .*garbage collected|unraisable"), quiet():
        run_virtual(main)


def test_quiet_lets_an_error_pass() -> None:
    with pytest.raises(KeyError), quiet():
        raise KeyError
