"""Signals, raised in this process; what really ends it is left out."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from parallel_agent.cli.signals import Interrupts


def leave(number: int) -> None:
    """Stand in for the end of the process."""
    raise LookupError(number)


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    with Interrupts(leave) as interrupts:
        yield interrupts


def raised(number: signal.Signals) -> int:
    """The number of the signal that ended the process."""
    with pytest.raises(LookupError) as caught:
        signal.raise_signal(number)
    return int(caught.value.args[0])


def test_the_first_signal_ends_nothing_and_the_second_does(interrupts: Interrupts) -> None:
    signal.raise_signal(signal.SIGTERM)
    assert interrupts.first == signal.SIGTERM
    assert raised(signal.SIGINT) == signal.SIGINT
    assert raised(signal.SIGTERM) == signal.SIGTERM


def test_the_second_ends_the_process_while_no_event_loop_runs(interrupts: Interrupts) -> None:
    async def hog() -> None:
        signal.raise_signal(signal.SIGINT)
        assert raised(signal.SIGINT) == signal.SIGINT

    trio.run(hog)


def test_a_task_that_waits_is_told_of_the_first(interrupts: Interrupts) -> None:
    async def main() -> int:
        number = 0

        async def wait() -> None:
            nonlocal number
            number = await interrupts.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            signal.raise_signal(signal.SIGTERM)
        return number

    assert trio.run(main) == signal.SIGTERM


def test_a_signal_that_came_before_anybody_waited_is_not_lost(interrupts: Interrupts) -> None:
    signal.raise_signal(signal.SIGINT)
    assert trio.run(interrupts.wait) == signal.SIGINT


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_terminal_that_is_closed_asks_the_run_to_end_however_often_it_is_told() -> None:
    before = signal.signal(signal.SIGHUP, lambda *_: None)  # perhaps it is ignored, as by nohup
    try:
        with Interrupts(leave) as interrupts:
            signal.raise_signal(signal.SIGHUP)
            assert interrupts.first == signal.SIGHUP
            signal.raise_signal(signal.SIGHUP)
            assert raised(signal.SIGINT) == signal.SIGINT
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts(leave) as interrupts:
            signal.raise_signal(signal.SIGINT)
        assert interrupts.first is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    handlers = list[object]()

    def enter() -> None:
        with Interrupts(leave):
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert handlers == [before]
