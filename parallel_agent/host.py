"""Detached runs: they go on whether anybody watches or not.

A host is the reader of its runs. It takes each event as soon as it comes and throws it away, so
agents never wait for a client; clients read the session, which has everything, from wherever they
were before.

Order: what a subscriber gets is the session's log. Cancellation: a subscriber's, or a waiter's, is
its own affair; leaving the host's block cancels the runs, and returns when every ``finally`` has
finished. Errors: a failing run raises at `RunHost.wait`, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Final, Literal, NoReturn, Self, Unpack, final

import attrs
import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, enable_ki_protection

from parallel_agent.claim import Claim, OnBusy, live_claim
from parallel_agent.errors import (
    MessageRefusedError,
    ReadError,
    ResponseRefusedError,
    RunEndedError,
)
from parallel_agent.handle import core_of
from parallel_agent.hosted import Ending, HostedEvents, Places, RunInfo
from parallel_agent.invocation import RunConfig
from parallel_agent.lifecycle import Status, checked_reason
from parallel_agent.options import ResumeOptions, as_message
from parallel_agent.post import send
from parallel_agent.questions import PendingRequest
from parallel_agent.result import Result
from parallel_agent.run import OpenRun, Run
from session.content import Content
from session.event import USER, Event
from session.service import SessionService
from session.session import SessionKey

__all__ = ["KEPT_RUNS", "RunHost", "inject"]

KEPT_RUNS: Final = 100
"""How many ended runs a host remembers: those that ended last."""

_GIVEN_UP: Final = "whoever started it was cancelled meanwhile"

_LEFT: Final = "the host of the run was left"


@attrs.define(eq=False)
class _Hosted:
    """One run of a host. Its task writes it, but for ``is_given_up`` and ``why_left``."""

    block: OpenRun | None
    is_new: bool
    # Shielded: a cancellation that met the tree before it met the reader would be taken for one
    # that was decided in the tree, and a resumed run would repeat it. So `leave` ends the run.
    scope: trio.CancelScope = attrs.Factory(lambda: trio.CancelScope(shield=True))
    opened: trio.Event = attrs.Factory(trio.Event)
    ended: trio.Event = attrs.Factory(trio.Event)
    is_given_up: bool = False
    why_left: str | None = None
    # While it runs; what is left of it afterwards stands below, and does not hold the tree.
    run: Run | None = None
    info: RunInfo | None = None
    result: Result | None = None
    pending: tuple[PendingRequest, ...] = ()
    failure: BaseException | None = None
    traceback: TracebackType | None = None

    def begin(self, run: Run) -> SessionKey:
        self.run = run
        key = core_of(run).root.invocation.key
        self.info = RunInfo(run.invocation_id, key, run.status)
        if self.is_given_up:
            self.give_up()
        elif self.why_left is not None:
            self.leave(self.why_left)
        return key

    def give_up(self) -> None:
        """End it: whoever has started it was cancelled, and does not know its id."""
        self.is_given_up = True
        if self.run is not None and self.is_new:
            self.run.cancel(_GIVEN_UP)  # so it is none of those that are to be resumed
        else:
            self.leave(_GIVEN_UP)

    def leave(self, reason: str) -> None:
        """End it, so that it can be resumed if it is of that kind."""
        self.why_left = reason
        if self.run is None:
            self.scope.cancel(reason)
        else:
            core_of(self.run).leave(reason)

    def end(self) -> None:
        run, info = self.run, self.info
        if run is not None and info is not None:
            self.pending = run.pending
            self.result = core_of(run).result
            reason = None if self.result is None else self.result.reason
            self.info = attrs.evolve(info, status=run.status, reason=reason)
        self.run = self.block = None


@final
class RunHost:
    """What `Runner.host` returns: ``async with`` it. Inside the block it starts runs.

    To be used by any number of tasks of its event loop. After the block, what its runs came to can
    still be asked for.
    """

    def __init__(
        self,
        service: SessionService,
        app_name: str,
        open_run: Callable[..., OpenRun],
        reopen_run: Callable[..., OpenRun],
    ) -> None:
        """Made by `Runner.host`."""
        self._service = service
        self._app_name = app_name
        self._open_run = open_run
        self._reopen_run = reopen_run
        self._manager: Any = None
        self._nursery: trio.Nursery | None = None
        self._live: dict[str, _Hosted] = {}
        self._ended: dict[str, _Hosted] = {}
        self._places = Places()
        self._at_work: set[_Hosted] = set()

    # The block.

    async def __aenter__(self) -> Self:
        if self._manager is not None:
            message = "this host was entered already; call runner.host() again for another one"
            raise ReadError(message)
        await checkpoint()
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        return self

    @enable_ki_protection
    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> Literal[False]:
        nursery, self._nursery = self._nursery, None
        if nursery is None:
            return False
        for hosted in self._at_work:
            hosted.leave(_LEFT)
        nursery.cancel_scope.cancel(_LEFT)
        interrupt: BaseException | None = None
        try:
            # Not told of the body's error: it leaves as itself, and not in a group.
            await self._manager.__aexit__(None, None, None)
        except BaseException as exc:  # noqa: BLE001  # what it holds is raised below
            interrupt = _interrupt_in(exc)
        if interrupt is not None and (
            error is None or isinstance(error, (Exception, trio.Cancelled))
        ):
            raise interrupt
        if error is None:
            await checkpoint_if_cancelled()
        return False

    def __enter__(self) -> NoReturn:
        message = "use `async with runner.host() as host:`, not `with`"
        raise ReadError(message)

    def __exit__(self, *_details: object) -> None:
        """Never called; here so that `__enter__` can say what is wrong."""

    # Starting.

    async def start(
        self,
        message: str | Content | None = None,
        *,
        user_id: str = USER,
        session_id: str | None = None,
        state_delta: Mapping[str, Any] | None = None,
        run_config: RunConfig | None = None,
        on_busy: OnBusy = "error",
    ) -> str:
        """Start a run and return its id, when it owns its session and the message is recorded.

        So who subscribes then misses nothing. Takes the arguments of `Runner.open`; but with
        ``on_busy="inject"`` the message is sent into the run of this event loop that has the
        session (see `Run.send`; ``state_delta`` and ``run_config`` do not count then), and that
        run's id is returned. If there is none, or it takes no more messages, a run is started as
        soon as the session is free.

        Cancelled, it has started none: one that had just begun is cancelled, and has ended.

        Raises:
            ReadError: the host's block is not open.
            RunEndedError: it was left before the run had begun.
            BaseException: what `Runner.open`, or entering its block, raises.
        """
        nursery = self._open_nursery()
        if on_busy == "inject":
            content = as_message(message)
            if session_id is not None and content is not None:
                key = SessionKey(self._app_name, user_id, session_id)
                held = await inject(self._service, key, content)
                if held is not None and held.core is not None:
                    return held.core.root.invocation.id
            on_busy = "queue"
        block = self._open_run(
            message,
            user_id=user_id,
            session_id=session_id,
            state_delta=state_delta,
            run_config=run_config,
            on_busy=on_busy,
        )
        return await self._begin(nursery, _Hosted(block, is_new=True))

    async def resume(self, session_id: str, **options: Unpack[ResumeOptions]) -> str:
        """Go on with the unfinished run of a session; return its id. See `Runner.reopen`.

        Cancelled, it leaves the run unfinished, as it was.

        Raises:
            ReadError: the host's block is not open.
            RunEndedError: it was left before the run had begun.
            BaseException: what `Runner.reopen`, or entering its block, raises.
        """
        nursery = self._open_nursery()
        block = self._reopen_run(session_id, **options)
        return await self._begin(nursery, _Hosted(block, is_new=False))

    def _open_nursery(self) -> trio.Nursery:
        if self._nursery is None:
            message = (
                "runs are started inside the host's block: `async with runner.host() as host:`"
            )
            raise ReadError(message)
        return self._nursery

    async def _begin(self, nursery: trio.Nursery, hosted: _Hosted) -> str:
        if self._nursery is None:  # left, while a message was to be sent into a run
            raise RunEndedError(_LEFT)
        self._at_work.add(hosted)
        nursery.start_soon(self._serve, hosted, name="hosted run")
        try:
            await hosted.opened.wait()
        except BaseException:
            hosted.give_up()
            with trio.CancelScope(shield=True):
                await hosted.ended.wait()
            raise
        if hosted.info is not None:
            return hosted.info.run_id
        raise RunEndedError(_LEFT) if hosted.failure is None else hosted.failure

    @enable_ki_protection
    async def _serve(self, hosted: _Hosted) -> None:
        """Open a run and read it to its end. Raises interrupts, and its cancellation."""
        block = hosted.block
        if block is None:
            return
        try:
            with hosted.scope:
                async with block as run:
                    self._note_begin(hosted, run)
                    async for _ in run:
                        pass
        except trio.Cancelled:
            raise
        except BaseException as exc:
            hosted.failure, hosted.traceback = exc, exc.__traceback__
            # Ctrl-C is delivered to whatever runs just then: it is for the program, not for the
            # run.
            if not isinstance(exc, Exception):
                raise
        finally:
            self._note_end(hosted)

    def _note_begin(self, hosted: _Hosted, run: Run) -> None:
        key = hosted.begin(run)
        self._ended.pop(run.invocation_id, None)  # it has been resumed
        self._live[run.invocation_id] = hosted
        self._places.add(key, hosted)
        hosted.opened.set()

    def _note_end(self, hosted: _Hosted) -> None:
        self._at_work.discard(hosted)
        hosted.end()
        info = hosted.info
        if info is not None:
            del self._live[info.run_id]
            self._ended[info.run_id] = hosted
            if len(self._ended) > KEPT_RUNS:
                del self._ended[next(iter(self._ended))]
            self._places.remove(info.key, hosted)
        hosted.ended.set()
        hosted.opened.set()

    # What its runs do.

    @property
    def runs(self) -> Mapping[str, RunInfo]:
        """How its runs stand, by their ids: those that ended last (`KEPT_RUNS`), then the live."""
        known = [*self._ended.items(), *self._live.items()]
        return MappingProxyType({name: one.info for name, one in known if one.info is not None})

    async def wait(self, run_id: str) -> Result:
        """Wait for the end of a run, and return what it came to; any number of times.

        Results are kept for the runs that ended last, `KEPT_RUNS` of them.

        Raises:
            RunEndedError: this host knows no such run (any more).
            BaseException: what the run has failed with, as itself.
        """
        hosted = self._find(run_id)
        await hosted.ended.wait()
        if hosted.failure is not None:
            # As it was: each raising would add to it.
            raise hosted.failure.with_traceback(hosted.traceback)
        if hosted.result is None:
            message = f"run {run_id!r} was torn down before it had a result"
            raise RunEndedError(message)
        return hosted.result

    def cancel(self, run_id: str, reason: str = "cancelled by host.cancel()") -> None:
        """Cancel every agent of a run. Does not wait; does nothing to one that has ended.

        Raises:
            RunEndedError: this host knows no such run (any more).
        """
        run = self._find(run_id).run
        reason = checked_reason(reason)
        if run is not None:
            run.cancel(reason)

    async def send(self, run_id: str, content: str | Content, *, to: str | None = None) -> Event:
        """Send a message to a branch of a run; see `Run.send`.

        Raises:
            MessageRefusedError: the run, or the branch, does not run, or its inbox is full.
            RunEndedError: this host knows no such run (any more).
        """
        run = self._find(run_id).run
        if run is None:
            message = f"run {run_id!r} has ended: nobody is there to read a message"
            raise MessageRefusedError(message)
        return await run.send(content, to=to)

    def pending(self, run_id: str) -> tuple[PendingRequest, ...]:
        """Return the questions of a run that wait for an answer; see `Run.pending`.

        Raises:
            RunEndedError: this host knows no such run (any more).
        """
        hosted = self._find(run_id)
        return hosted.pending if hosted.run is None else hosted.run.pending

    async def respond(self, run_id: str, request_id: str, value: Any) -> Event:
        """Answer a question of a run; see `Run.respond`.

        Raises:
            ResponseRefusedError: no such request is open, or the value does not fit.
            RunEndedError: this host knows no such run (any more).
        """
        hosted = self._find(run_id)
        if hosted.run is None:
            hint = (
                "; host.resume(session_id, responses={...}) goes on with it"
                if hosted.info is not None and hosted.info.status is Status.WAITING
                else ""
            )
            message = f"request {request_id!r} cannot be answered: run {run_id!r} has ended{hint}"
            raise ResponseRefusedError(message)
        return await hosted.run.respond(request_id, value)

    def _find(self, run_id: str) -> _Hosted:
        found = self._live.get(run_id) or self._ended.get(run_id)
        if found is None:
            message = (
                f"this host knows no run {run_id!r}: it has started none of that id, or it ended "
                f"before the last {KEPT_RUNS} that it remembers"
            )
            raise RunEndedError(message)
        return found

    # What its clients read.

    def subscribe(self, session_id: str, *, user_id: str = USER, after: int = 0) -> HostedEvents:
        """Return an iterator of a session's events with a number above ``after``.

        ::

            async for event in host.subscribe(session_id, after=last_seen):
                print(event.seq, event.text)

        What is recorded comes first, then what comes, in the order of ``event.seq``: of every
        run, and the messages of users, too. It ends when no run of this host is at the session
        and everything was given; at once, if none is. Partial events are not recorded, so they do
        not come out here; nor do the runtime's own notes (``event.is_record``), which is why
        numbers may be left out.

        It needs no closing, and each subscriber has a place of its own: one that is slow, or
        leaves, changes nothing for the run or for others. A step that was cancelled has lost
        nothing. One task at a time reads it.

        Raises, at a step:
            SessionNotFoundError: there is no such session.
            StoreError: the store failed; the next step tries again.

        Raises:
            ValueError: ``after`` is no whole number from 0 on.
        """
        key = SessionKey(self._app_name, user_id, session_id)
        return HostedEvents(self._service, key, after, self._places, self._last_at)

    def _last_at(self, key: SessionKey) -> Ending | None:
        for hosted in reversed(self._ended.values()):
            if hosted.info is not None and hosted.info.key == key:
                return hosted.info, hosted.failure
        return None

    def __repr__(self) -> str:
        how = "not open" if self._nursery is None else f"{len(self._live)} runs"
        return f"<RunHost {self._app_name}: {how}>"


async def inject(service: SessionService, key: SessionKey, content: Content) -> Claim | None:
    """Send a message into the run of this event loop that has the session; return its claim.

    None if there is none. One that takes no more messages is waited for: another may follow.
    """
    await checkpoint()
    while True:
        held = live_claim(service, key)
        if held is None or held.core is None:
            return None
        try:
            send(held.core.root, content, None)
        except MessageRefusedError:
            await held.ended.wait()
        else:
            return held


def _interrupt_in(error: BaseException) -> BaseException | None:
    """Return what a nursery's error holds beside cancellations: the first, as itself."""
    if isinstance(error, BaseExceptionGroup):
        group: BaseExceptionGroup[Any] = error  # pyright: ignore[reportUnknownVariableType]  # of whatever
        found = (_interrupt_in(one) for one in group.exceptions)
        return next((one for one in found if one is not None), None)
    return None if isinstance(error, trio.Cancelled) else error
