"""One run: load the session, drive the tree, record, hand out.

It knows no concrete agent. It starts one activation, the root's, in one task, and reads the
stream; everything else happens below.

Blocks: leaving the block cancels what still runs and returns when every ``finally`` has
finished. Errors reach the reader at the iteration; the block's body is never cancelled because
an agent failed, and an exception of the body leaves as itself.
"""

from __future__ import annotations

from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Literal, final

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, enable_ki_protection

from parallel_agent.activation import Activation
from parallel_agent.branch import Branch, Place
from parallel_agent.claim import Claim
from parallel_agent.context import InvocationContext
from parallel_agent.drive import activate
from parallel_agent.engine import ENGINE
from parallel_agent.errors import PluginError, ReadError
from parallel_agent.handle import RunBlock, RunCore, RunHandle
from parallel_agent.invocation import Invocation, RunConfig
from parallel_agent.journal import Journal
from parallel_agent.lane import Lane
from parallel_agent.limiter import Limiter
from parallel_agent.notes import note_mix_up, note_plugin
from parallel_agent.opening import Opened, Start, open_session, record, reopen_session, start_events
from parallel_agent.past import Past
from parallel_agent.questions import Requests
from parallel_agent.replay import Replay
from parallel_agent.result import RunSetup
from parallel_agent.shared_state import SharedState
from parallel_agent.steering import STEERING
from parallel_agent.stream import Stream
from session.event import Event

__all__ = ["OpenRun", "Run"]


@final
class Run(RunHandle):
    """A run under trio. Reading is cancelled at each event, and loses none."""

    def __anext__(self) -> Coroutine[Any, Any, Event]:
        return self._stream.read()

    async def _checkpoint(self) -> None:
        await checkpoint()


@final
class OpenRun(RunBlock):
    """What `Runner.open` returns: ``async with`` it."""

    def __init__(self, setup: RunSetup, start: Start) -> None:
        """Made by `Runner.open` and `Runner.reopen`."""
        self._setup = setup
        self._start = start
        self._nursery: Any = None
        self._core: RunCore | None = None
        self._claim: Claim | None = None

    @enable_ki_protection
    async def __aenter__(self) -> Run:
        if self._core is not None:
            message = "this run was opened already; call runner.open(...) again for another one"
            raise ReadError(message)
        if not trio.lowlevel.in_trio_task():
            message = (
                "a run needs trio: trio.run(main), where main() awaits it; in an asyncio "
                "application, use parallel_agent.aio.Runner, and in plain Python that of "
                "parallel_agent.sync"
            )
            raise ReadError(message)
        held = self._claim = Claim(self._setup.service)
        try:
            opened = await self._open(held)
            root = self._prepare(opened)
            core = RunCore(root, await self._record_start(opened, root))
            self._nursery = trio.open_nursery()
            nursery = await self._nursery.__aenter__()
        except BaseException:
            await held.release()
            raise
        self._core = core
        held.begin(core, nursery.start_soon)
        nursery.start_soon(_run_tree, root, name=f"run {opened.invocation_id}")
        return Run(core)

    async def _open(self, held: Claim) -> Opened:
        resumption = self._start.resumption
        if resumption is None:
            return await open_session(self._setup, self._start, held)
        return await reopen_session(self._setup, self._start, resumption, held)

    async def _record_start(self, opened: Opened, root: Activation) -> int:
        """Record the message; return where in the session the run's own events begin."""
        invocation, session = root.invocation, opened.session
        past = opened.past
        if past is not None:
            before = 0 if past.message is None else past.message.seq or 0
            return next(
                (
                    at
                    for at, event in enumerate(session.events)
                    if event.invocation_id == opened.invocation_id and (event.seq or 0) > before
                ),
                len(session.events),
            )
        if invocation.user_content is not None:
            invocation.user_content = await self._setup.plugins.message(
                InvocationContext(root), invocation.user_content
            )
        events = start_events(self._setup, opened, invocation.user_content, self._start.state_delta)
        if events:
            await record(self._setup, opened, events)
        return len(session.events)

    def _prepare(self, opened: Opened) -> Activation:
        setup, session, past = self._setup, opened.session, opened.past
        shared = SharedState(session, setup.reducers, setup.on_conflict, setup.schema)
        journal = None if setup.shape is None else Journal(shared)
        scope = trio.CancelScope()
        stream = Stream(
            session=session,
            service=setup.service,
            clock=setup.clock,
            stop=scope.cancel,
            on_escalate=_escalate,
            resolve=shared.resolve if journal is None else journal.resolve,
            check_conflicts=shared.check_conflicts or journal is not None,
            lease=opened.claim.lease,
        )
        steering = STEERING.get()
        plugins = setup.plugins if setup.plugins.on_event else None
        invocation = Invocation(
            id=opened.invocation_id,
            key=session.key,
            user_content=self._start.content,
            config=opened.config,
            stream=stream,
            shared=shared,
            threads=trio.CapacityLimiter(opened.config.max_threads),
            engine=ENGINE,
            requests=Requests(session),
            random=setup.random,
            steering=steering,
            gate=plugins if steering is None else steering.gate(plugins),
            limiter=_run_limiter(opened.config),
            plugins=setup.plugins,
            artifacts=setup.artifacts,
            memory=setup.memory,
            attended=self._start.attended,
        )
        if journal is not None:
            journal.stream = stream
            invocation.journal = journal
        if past is not None:
            _go_on(invocation, past)
        line = Branch()
        place = Place(setup.tree.name, invocation_id=opened.invocation_id, line=line)
        root = Activation(setup.tree, place, invocation=invocation, lane=Lane(line))
        root.scope = scope
        return root

    @enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> Literal[False]:
        core, held = self._core, self._claim
        if core is None or held is None:
            return False
        stream = core.stream
        core.leave(_why_left(error))
        note_mix_up(error)
        late: BaseException | None = None
        try:
            with trio.CancelScope(shield=True):
                late = await stream.pump()
        finally:
            held.end()
            broken = stream.closed  # by a failure of its own: nobody else closes it before us
            stream.close()
            try:
                await self._nursery.__aexit__(None, None, None)
            except BaseExceptionGroup as group:
                # The tree's task never raises: this can only be an interrupt of the main task.
                late = group.exceptions[0]
            finally:
                core.conclude(broken=broken)
                held.unfinished = core.unfinished
                await held.release()
        late = await self._tell_plugins(core, error, late)
        if error is None:
            failure, stream.failure = stream.failure, None
            if failure is None:
                failure = late
            if failure is not None:
                raise failure
            await checkpoint_if_cancelled()
        elif late is not None and isinstance(error, (Exception, trio.Cancelled)):
            raise late
        return False

    async def _tell_plugins(
        self, core: RunCore, error: BaseException | None, late: BaseException | None
    ) -> BaseException | None:
        """Tell the plugins of the end; return what is to be raised after the body's own error."""
        if not self._setup.plugins.after_run or core.result is None:
            return late
        trouble = await self._setup.plugins.ran(InvocationContext(core.root), core.result)
        # Asked for None, and not for their truth: an exception may have a length of 0.
        errors = (error, core.stream.failure, late)
        first = next((one for one in errors if one is not None), None)
        if isinstance(trouble, PluginError) and first is not None:
            note_plugin(first, trouble)
        elif trouble is not None and (first is None or not isinstance(trouble, trio.Cancelled)):
            return trouble
        return late


@enable_ki_protection
async def _run_tree(root: Activation) -> None:
    """Drive the root. Never raises: the reader learns at the end of the stream."""
    failure: BaseException | None = None
    try:
        # In a task of its own: should the tree leave that in disorder, the body is spared.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(activate, root)
    except BaseException as exc:  # noqa: BLE001  # a bug of ours must not hang the reader
        failure = exc
    failure = failure if root.error is None else root.error
    root.invocation.stream.finish(failure)


def _escalate(emitter: Any) -> None:
    """Act on an escalating event at its hand-out: end its siblings, tell the nearest loop."""
    activation: Activation = emitter
    activation.escalate()


def _go_on(invocation: Invocation, past: Past) -> None:
    """Let a run know what it had done."""
    replay = invocation.replay = Replay(past)
    invocation.outputs.update(past.outputs)
    invocation.outcomes.update(replay.outcomes())
    invocation.effects.update(past.effects())
    if past.message is not None:
        invocation.user_content = past.message.content


def _run_limiter(config: RunConfig) -> Limiter | None:
    slots = config.max_concurrency
    return None if slots is None else Limiter(slots, name="the run's max_concurrency")


def _why_left(error: BaseException | None) -> str:
    if error is None:
        return "the reader left the block"
    if isinstance(error, trio.Cancelled):
        return f"cancelled from outside: {error}"
    return f"the block raised {type(error).__name__}"
