"""One run for the command line, without the command line."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

import pytest
import trio
from trio.testing import MockClock

from parallel_agent import Event, InvocationContext, Plugin, Status, agent
from parallel_agent.cli.running import (
    Ended,
    OutputClosedError,
    RunOptions,
    Show,
    execute,
    exit_status,
)
from parallel_agent.cli.signals import Interrupts
from parallel_agent.observe.tracker import Tracker


class Record(Show):
    """Writes down what it is shown."""

    def __init__(self, *, closes_after: int = 1_000) -> None:
        self.said = list[str]()
        self._tracker = Tracker()
        self._left = closes_after

    @property
    def tracker(self) -> Tracker:
        return self._tracker

    def event(self, event: Event) -> None:
        self.said.append(event.text)
        self._left -= 1
        if not self._left:
            raise OutputClosedError

    def cancelling(self, why: str) -> None:
        self.said.append(f"cancelling: {why}")

    def cleaning_up(self, paths: Sequence[str]) -> None:
        self.said.append(f"cleaning up: {paths}")

    def ended(self, ended: Ended) -> None:
        """Not called by `execute`."""

    def remark(self, text: str) -> None:
        self.said.append(text)

    def note(self, text: str) -> None:
        self.said.append(text)

    @contextmanager
    def aside(self) -> Iterator[None]:
        yield


@agent
async def counts(ctx: InvocationContext) -> AsyncIterator[str]:
    for number in range(3):
        yield str(number)


def nobody() -> Interrupts:
    return Interrupts(lambda _number: None)


async def test_a_signal_that_came_before_the_run_cancels_it(autojump_clock: MockClock) -> None:
    show = Record()
    with nobody() as interrupts:
        signal.raise_signal(signal.SIGINT)
        ended = await execute(counts, RunOptions(), show, interrupts)
    assert show.said[0] == "cancelling: Ctrl-C"
    assert (ended.status, ended.error, exit_status(ended)) == (Status.CANCELLED, None, 130)


async def test_after_the_time_limit_the_first_signal_ends_the_process(
    autojump_clock: MockClock,
) -> None:
    async def tidy(ctx: InvocationContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            signal.raise_signal(signal.SIGINT)

    left = list[int]()
    with Interrupts(left.append) as interrupts:
        await execute(agent(tidy, name="tidy"), RunOptions(timeout=1), Record(), interrupts)
    assert left == [signal.SIGINT]


async def test_a_run_that_does_not_open_can_be_cancelled(autojump_clock: MockClock) -> None:
    class Hangs(Plugin):
        async def on_user_message_callback(self, *_args: object) -> None:
            await trio.sleep_forever()

    options = RunOptions("hi", timeout=5)
    ended = await execute(counts, options, Record(), nobody(), plugins=[Hangs()])
    assert (ended.result, ended.status, exit_status(ended)) == (None, Status.CANCELLED, 124)
    assert ended.duration == 5


async def test_output_that_nobody_reads_ends_the_run(autojump_clock: MockClock) -> None:
    show = Record(closes_after=2)
    with pytest.raises(OutputClosedError):
        await execute(counts, RunOptions(), show, nobody())
    assert show.said == ["0", "1"]


async def test_a_run_that_cannot_be_opened_has_failed(autojump_clock: MockClock) -> None:
    class Refuses(Plugin):
        async def on_user_message_callback(self, *_args: object) -> None:
            raise ValueError

    ended = await execute(counts, RunOptions("hi"), Record(), nobody(), plugins=[Refuses()])
    assert (ended.result, ended.status, exit_status(ended)) == (None, Status.FAILED, 1)
    assert "Refuses" in str(ended.error)


async def test_what_a_run_is_given_arrives(autojump_clock: MockClock) -> None:
    @agent
    async def tells(ctx: InvocationContext) -> str:
        return f"{ctx.session_key.user_id} {ctx.session_key.session_id} {ctx.state.to_dict()}"

    options = RunOptions("hi", user_id="ann", session_id="s", state={"a": 1})
    show = Record()
    ended = await execute(tells, options, show, nobody())
    assert show.said == ["ann s {'a': 1}"]
    assert exit_status(ended) == 0
