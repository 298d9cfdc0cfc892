"""Run a tree for the command line, and say with a number how that went."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, suppress
from typing import Any, Final, Literal, Protocol

import attrs
import trio

from parallel_agent.agent import Agent
from parallel_agent.claim import OnBusy
from parallel_agent.cli.answers import Answers, ReadLine
from parallel_agent.cli.signals import Interrupts
from parallel_agent.cli.store import Again, Database, NotStartedError, why_not
from parallel_agent.cli.unfinished import Resuming, choose, waiting
from parallel_agent.errors import NothingToResumeError
from parallel_agent.invocation import RunConfig
from parallel_agent.lifecycle import Status
from parallel_agent.observe.harmless import one_line
from parallel_agent.observe.tracker import Tracker
from parallel_agent.plugin import Plugin
from parallel_agent.questions import PendingRequest
from parallel_agent.result import Result
from parallel_agent.run import Run
from parallel_agent.runner import Runner
from session.artifact import ArtifactService
from session.errors import SessionBusyError, SessionError
from session.event import USER, Event
from session.lease import UnfinishedRun
from session.service import SessionService

__all__ = ["Ended", "OutputClosedError", "RunOptions", "Show", "execute", "exit_status"]

PATIENCE: Final = 0.2
"""For how many seconds nobody is told who is still cleaning up."""

NEWS: Final = 1.0
"""How many seconds lie between two lines about that, at least."""

LOOK_AGAIN: Final = 0.5
"""How many seconds lie between two looks at a session that another process is at."""


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
    """What a run is given, beside its tree.

    Attributes:
        database: where its session is kept, so that the run can be resumed; None is in memory.
        resuming: which run to go on with, if none is to begin.
        again: the commands that go on with it, to be told.
    """

    message: str | None = None
    user_id: str = USER
    app_name: str | None = None
    session_id: str | None = None
    state: Mapping[str, Any] = attrs.Factory(dict[str, Any])
    timeout: float | None = None
    artifacts: ArtifactService | None = None
    responses: Sequence[tuple[str, str]] = ()
    read: ReadLine | None = None
    database: Database | None = None
    on_busy: OnBusy = "error"
    resuming: Resuming | None = None
    again: Again | None = None


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
        user_id: whose session it was; ``app_name``: of which application, if that was said.
        is_left: its session remembers it: it can go on.
        again: the commands to go on with it.
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
    user_id: str = USER
    app_name: str | None = None
    is_left: bool = False
    again: Again | None = None

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

    def note(self, text: str) -> None:
        """Say something that is good to know, and no trouble."""
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

    Failures of the run are returned, not raised. With a database, what cancels it (but for another
    run of its session) leaves it unfinished, to be resumed.

    Raises:
        NotStartedError: it could not be begun, because of its session or database.
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
        self._tree = tree
        self._options = options
        self._show = show
        self._interrupts = interrupts
        self._plugins = [show.tracker, *plugins]
        self._scope = trio.CancelScope()
        self._run: Run | None = None
        self._user_id = options.user_id
        self._shown = 0
        self._is_left = False
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
            # Until the run is open; from then on it is the run that is cancelled, or, if it is to
            # be resumed, left: to cancel it would be its end.
            with self._scope:
                try:
                    await self._read()
                except trio.Cancelled:
                    raise
                except BaseException as exc:  # noqa: BLE001  # SystemExit, too: some agent's failure
                    error = exc
            nursery.cancel_scope.cancel("the run has ended")
        if self._run is None and error is not None:
            why = why_not(error)
            if why is not None:
                raise NotStartedError(why) from error
        ended = self._ended(error, trio.current_time() - began)
        if isinstance(error, OutputClosedError):
            if ended.is_left:
                why = error.why or "nobody reads its output any more"
                self._show.ended(attrs.evolve(ended, error=None, reason=why))
            raise error
        self._show_rest()
        return ended

    def _ended(self, error: BaseException | None, duration: float) -> Ended:
        result = None if self._run is None else self._run.result
        unanswered, reason = tuple(self._unanswered.values()), self._reason
        if self._run is not None and result is not None:
            if result.status is Status.WAITING:
                unanswered = self._run.pending
            elif result.status is Status.CANCELLED and reason is None:
                reason = result.reason  # another run of its session has decided that
        return Ended(
            result=result,
            error=error,
            reason=reason,
            signal=self._signal,
            timed_out=self._timed_out,
            duration=duration,
            unanswered=unanswered,
            unused=tuple(self._answers.unused),
            asked=tuple(self._asked),
            user_id=self._user_id,
            app_name=self._options.app_name,
            is_left=self._is_left,
            again=self._options.again,
        )

    async def _read(self) -> None:
        options, database = self._options, self._options.database
        async with AsyncExitStack() as stack:
            service: SessionService | None = None
            if database is not None:
                make = options.resuming is None
                service = await stack.enter_async_context(database.open(make=make))
                stack.push_async_callback(self._look_what_is_left, service)
            runner = Runner(
                self._tree,
                app_name=options.app_name,
                session_service=service,
                artifact_service=options.artifacts,
                resumable=service is not None,
                plugins=self._plugins,
            )
            if options.resuming is not None:
                run = await self._reopen(stack, runner, options.resuming)
            else:
                run = await self._open(stack, runner)
            self._run = run
            self._shown = run.statistics().last_seq
            async for event in run:
                self._shown = event.seq or self._shown
                self._show.event(event)
                if event.request is not None:
                    self._asked.append(event.request.id)
                    await self._answer(run, event.request.id)

    async def _open(self, stack: AsyncExitStack, runner: Runner) -> Run:
        options = self._options
        service = runner.session_service
        forgotten: list[str] = []
        if options.session_id is not None and options.database is not None:
            forgotten = [
                run.run_id
                for run in await service.unfinished(
                    app_name=runner.app_name, user_id=options.user_id
                )
                if run.key.session_id == options.session_id and run.status != "running"
            ]
        on_busy: OnBusy = "error"
        while True:
            opened = runner.open(
                options.message,
                user_id=options.user_id,
                session_id=options.session_id,
                state_delta=options.state,
                run_config=RunConfig(on_wait=self._on_wait),
                on_busy=on_busy,
            )
            try:
                run = await stack.enter_async_context(opened)
            except SessionBusyError as error:
                if on_busy == options.on_busy:
                    raise
                on_busy = options.on_busy
                self._note_busy(error)
            else:
                break
        if options.database is not None and options.session_id is None:
            self._show.note(f"session {one_line(run.session_id)}")
        for run_id in forgotten:
            self._show.note(
                f"run {one_line(run_id)} of this session was unfinished; now it is over"
            )
        return run

    async def _reopen(self, stack: AsyncExitStack, runner: Runner, wanted: Resuming) -> Run:
        service, is_noted = runner.session_service, False
        while True:
            try:
                found = await choose(service, runner.app_name, wanted)
            except NotStartedError:
                if is_noted:
                    message = "nothing is left to resume: the process that was at it has ended it"
                    raise NothingToResumeError(message) from None
                raise
            now = await waiting(service, found)
            if wanted.request is not None:
                now.check(wanted.request)
            self._user_id = found.key.user_id
            given = [*self._answers.given]
            opened = runner.reopen(
                found.key.session_id,
                user_id=found.key.user_id,
                invocation_id=found.run_id,
                responses=now.answered_by(self._answers),
                run_config=attrs.evolve(now.config, on_wait=self._on_wait),
            )
            try:
                run = await stack.enter_async_context(opened)
            except SessionBusyError as error:
                if self._options.on_busy == "error":
                    raise
                if not is_noted:
                    self._note_busy(error)
                is_noted = True
                wanted = attrs.evolve(
                    wanted, session_id=found.key.session_id, user_id=found.key.user_id
                )
                self._answers.given = given
                await trio.sleep(LOOK_AGAIN)
                continue
            self._asked += now.ids
            if wanted.session_id is None:
                self._show.note(f"session {one_line(run.session_id)} ({found.status})")
            return run

    @property
    def _on_wait(self) -> Literal["stay", "suspend"]:
        return "stay" if self._answers.has_person else "suspend"

    def _note_busy(self, error: SessionBusyError) -> None:
        self._show.note(
            f"session {one_line(error.key.session_id)} is busy: waiting for the end of run "
            f"{one_line(error.run_id)} of {one_line(error.owner)}"
        )

    async def _look_what_is_left(self, service: SessionService) -> None:
        """Find out whether the session remembers the run, which has ended, as unfinished."""
        run = self._run
        if run is None:
            return
        app_name, runs = self._options.app_name or self._tree.name, list[UnfinishedRun]()
        # Whether it can be asked or not: the run's own error says more.
        with trio.CancelScope(shield=True), suppress(SessionError):
            runs = await service.unfinished(app_name=app_name, user_id=self._user_id)
        self._is_left = any(
            one.run_id == run.invocation_id and one.status != "running" for one in runs
        )

    def _show_rest(self) -> None:
        """Show what agents have recorded after the run was left."""
        if self._run is not None and self._options.database is not None:
            for event in self._run.result.events:
                if (event.seq or 0) > self._shown:
                    self._show.event(event)

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
        if self._run is None or self._options.database is not None:
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
