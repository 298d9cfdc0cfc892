"""Run a tree for the command line, and say with a number how that went."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

import attrs
import trio

from parallel_agent.agent import Agent
from parallel_agent.cli.answers import Answers, ReadLine
from parallel_agent.cli.signals import Interrupts
from parallel_agent.invocation import RunConfig
from parallel_agent.lifecycle import Status
from parallel_agent.observe.tracker import Tracker
from parallel_agent.plugin import Plugin
from parallel_agent.questions import PendingRequest
from parallel_agent.result import Result
from parallel_agent.run import Run
from parallel_agent.runner import Runner
from session.artifact import ArtifactService
from session.event import USER, Event

__all__ = ["Ended", "OutputClosedError", "RunOptions", "Show", "execute", "exit_status"]

PATIENCE: Final = 0.2
"""For how many seconds nobody is told who is still cleaning up."""

NEWS: Final = 1.0
"""How many seconds lie between two lines about that, at least."""


class OutputClosedError(Exception):
    """Nothing can be printed any more: nobody reads it, as in ``| head``.

    Attributes:
        why: what else it is, such as a full disk; empty if it is only that nobody reads.
    """

    def __init__(self, why: str = "") -> None:
        """See the class."""
        super().__init__(why)
        self.why = why


@attrs.frozen
class RunOptions:
    """What a run is given, beside its tree."""

    message: str | None = None
    user_id: str = USER
    session_id: str | None = None
    state: Mapping[str, Any] = attrs.Factory(dict[str, Any])
    timeout: float | None = None
    artifacts: ArtifactService | None = None
    responses: Sequence[tuple[str, str]] = ()
    read: ReadLine | None = None


@attrs.frozen(eq=False)
class Ended:
    """How a run ended.

    Attributes:
        result: None if it had not begun.
        error: what it failed with, if it did.
        reason: why it was cancelled, if it was.
        signal: which signal asked for that.
        timed_out: ``timeout`` did.
        unanswered: what it waits for, if it does.
        unused: what names the answers that were given and no question has used.
        asked: the ids of the questions there were.
        duration: how many seconds it took.
    """

    result: Result | None
    error: BaseException | None
    reason: str | None
    signal: int | None
    timed_out: bool
    duration: float
    unanswered: tuple[PendingRequest, ...] = ()
    unused: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()

    @property
    def status(self) -> Status:
        """The run's status."""
        if self.result is not None:
            return self.result.status
        return Status.CANCELLED if self.error is None else Status.FAILED


class Show(Protocol):
    """How a run is shown to people or programs."""

    @property
    def tracker(self) -> Tracker:
        """A plugin of the run; it knows who is at work."""
        ...

    @property
    def remark(self) -> Callable[[str], None]:
        """Say something to the person at the terminal."""
        ...

    def aside(self) -> AbstractContextManager[None]:
        """Draw nothing during this block."""
        ...

    def event(self, event: Event) -> None:
        """Show an event."""
        ...

    def cancelling(self, why: str) -> None:
        """Say that the run is being cancelled."""
        ...

    def cleaning_up(self, paths: Sequence[str]) -> None:
        """Say who is still cleaning up."""
        ...

    def ended(self, ended: Ended) -> None:
        """Say how it ended."""
        ...


def exit_status(ended: Ended) -> int:
    """Return the exit status of the process.

    0 completed, 1 failed, 3 waiting for an answer, 124 cancelled by the time limit, and cancelled
    by a signal what shells make of that: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP. (2 is for
    what could not be started, 141 for output that nobody reads: `parallel_agent.cli.commands`.)
    """
    match ended.status:
        case Status.COMPLETED:
            return 0
        case Status.WAITING:
            return 3
        case Status.CANCELLED if ended.timed_out:
            return 124
        case Status.CANCELLED:
            return 128 + (ended.signal or signal.SIGINT)
        case _:
            return 1


async def execute(
    tree: Agent,
    options: RunOptions,
    show: Show,
    interrupts: Interrupts,
    *,
    plugins: Sequence[Plugin] = (),
) -> Ended:
    """Run ``tree``, show what happens, and return how it ended when everything of it has ended.

    Failures of the run are returned, not raised.

    Raises:
        OutputClosedError: ``show`` cannot print any more; the run was cancelled and joined.
    """
    return await _Execution(tree, options, show, interrupts, plugins).run()


class _Execution:
    def __init__(
        self,
        tree: Agent,
        options: RunOptions,
        show: Show,
        interrupts: Interrupts,
        plugins: Sequence[Plugin],
    ) -> None:
        self._options = options
        self._show = show
        self._interrupts = interrupts
        self._runner = Runner(
            tree, artifact_service=options.artifacts, plugins=[show.tracker, *plugins]
        )
        self._scope = trio.CancelScope()
        self._run: Run | None = None
        self._cancelling = trio.Event()
        self._reason: str | None = None
        self._signal: int | None = None
        self._timed_out = False
        self._answers = Answers(options.responses, options.read, show.remark, show.aside)
        self._unanswered: dict[str, PendingRequest] = {}
        self._asked = list[str]()
        self._nursery: trio.Nursery | None = None

    async def run(self) -> Ended:
        began = trio.current_time()
        error: BaseException | None = None
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._watch_signals)
            nursery.start_soon(self._watch_time)
            nursery.start_soon(self._watch_clean_up)
            # Only until the run is open: from then on it is the run that is cancelled.
            with self._scope:
                try:
                    await self._read()
                except trio.Cancelled:
                    raise
                except BaseException as exc:  # noqa: BLE001  # SystemExit, too: some agent's failure
                    error = exc
            nursery.cancel_scope.cancel("the run has ended")
        if isinstance(error, OutputClosedError):
            raise error
        return Ended(
            result=None if self._run is None else self._run.result,
            error=error,
            reason=self._reason,
            signal=self._signal,
            timed_out=self._timed_out,
            duration=trio.current_time() - began,
            unanswered=tuple(self._unanswered.values()),
            unused=tuple(self._answers.unused),
            asked=tuple(self._asked),
        )

    async def _read(self) -> None:
        options = self._options
        async with self._runner.open(
            options.message,
            user_id=options.user_id,
            session_id=options.session_id,
            state_delta=options.state,
            run_config=RunConfig(on_wait="stay" if self._answers.has_person else "suspend"),
        ) as self._run:
            async for event in self._run:
                self._show.event(event)
                if event.request is not None:
                    self._asked.append(event.request.id)
                    await self._answer(self._run, event.request.id)

    async def _answer(self, run: Run, request_id: str) -> None:
        for request in run.pending:
            if request.id == request_id and not await self._answers.from_command(run, request):
                if self._answers.has_person and self._nursery is not None:
                    # Beside the loop: the other agents go on meanwhile.
                    self._nursery.start_soon(self._answers.from_person, run, request)
                else:
                    self._unanswered[request.id] = request

    def _cancel(self, reason: str) -> None:
        if self._reason is not None:
            return
        self._reason = reason
        self._interrupts.is_ending = True  # as is said next, whatever the reason is
        self._show.cancelling(reason)
        if self._run is None:
            self._scope.cancel(reason)
        else:
            self._run.cancel(reason)
        self._cancelling.set()

    async def _watch_signals(self) -> None:
        number = await self._interrupts.wait()
        self._signal = number
        self._cancel("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)

    async def _watch_time(self) -> None:
        if self._options.timeout is not None:
            await trio.sleep(self._options.timeout)
            self._timed_out = self._reason is None
            self._cancel(f"the time limit of {self._options.timeout:g} s")

    async def _watch_clean_up(self) -> None:
        """Say who is still cleaning up, and again when that changes; not every millisecond."""
        await self._cancelling.wait()
        await trio.sleep(PATIENCE)
        told = list[str]()
        while True:
            at_work = self._show.tracker.working()
            if at_work and at_work != told:
                told = at_work
                self._show.cleaning_up(at_work)
            await trio.sleep(NEWS)
