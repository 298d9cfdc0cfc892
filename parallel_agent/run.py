"""One run: load the session, drive the tree, record, hand out.

It knows no concrete agent. It starts one activation, the root's, in one task, and reads the
stream; everything else happens below.

Blocks: leaving the block cancels what still runs and returns when every ``finally`` has
finished. Errors reach the reader at the iteration; the block's body is never cancelled because
an agent failed, and an exception of the body leaves as itself.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, Literal, final

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, enable_ki_protection

from parallel_agent.activation import Activation
from parallel_agent.branch import Branch, Place
from parallel_agent.context import InvocationContext
from parallel_agent.drive import activate
from parallel_agent.engine import ENGINE
from parallel_agent.errors import PluginError, ReadError, note_mix_up, note_plugin
from parallel_agent.handle import RunBlock, RunCore, RunHandle
from parallel_agent.invocation import Invocation, RunConfig
from parallel_agent.lane import Lane
from parallel_agent.limiter import Limiter
from parallel_agent.questions import Requests
from parallel_agent.result import RunSetup
from parallel_agent.shared_state import SharedState
from parallel_agent.steering import STEERING
from parallel_agent.stream import Stream
from session.actions import EventActions
from session.content import Content
from session.event import USER, Event, Origin, stamp_origin, stamp_timestamp
from session.service import SessionExistsError
from session.session import Session

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

    def __init__(
        self,
        setup: RunSetup,
        *,
        content: Content | None,
        user_id: str,
        session_id: str | None,
        state_delta: Mapping[str, Any] | None,
        config: RunConfig,
        attended: bool,
    ) -> None:
        """Made by `Runner.open`; ``attended`` says that somebody holds the run, and can answer."""
        self._setup = setup
        self._content = content
        self._user_id = user_id
        self._session_id = session_id
        self._state_delta = state_delta
        self._config = config
        self._attended = attended
        self._nursery: Any = None
        self._core: RunCore | None = None

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
        invocation_id = self._setup.new_id()
        session = await self._load()
        first = len(session.events)
        root = self._prepare(session, invocation_id)
        invocation = root.invocation
        if invocation.user_content is not None:
            invocation.user_content = await self._setup.plugins.message(
                InvocationContext(root), invocation.user_content
            )
        if invocation.user_content is not None or self._state_delta:
            await self._record_message(session, invocation)
            first += 1
        self._core = RunCore(root, first)
        self._nursery = trio.open_nursery()
        nursery = await self._nursery.__aenter__()
        nursery.start_soon(_run_tree, root, name=f"run {invocation_id}")
        return Run(self._core)

    async def _load(self) -> Session:
        service, app_name = self._setup.service, self._setup.app_name
        if self._session_id is not None:
            session = await service.get(
                app_name=app_name, user_id=self._user_id, session_id=self._session_id
            )
            if session is not None:
                return session
        try:
            return await service.create(
                app_name=app_name, user_id=self._user_id, session_id=self._session_id
            )
        except SessionExistsError:
            # Another run has created it meanwhile.
            session = await service.get(
                app_name=app_name, user_id=self._user_id, session_id=self._session_id or ""
            )
            if session is None:
                raise
            return session

    async def _record_message(self, session: Session, invocation: Invocation) -> None:
        actions = EventActions(state_delta=dict(self._state_delta or {}))
        event = Event(invocation.user_content, actions=actions)
        event.seal()
        stamp_origin(event, Origin(author=USER, invocation_id=invocation.id))
        stamp_timestamp(event, self._setup.clock())
        written = event.delta  # the service drops what is temporary
        with trio.CancelScope(shield=True):
            await self._setup.service.append(session.key, [event], expected_seq=session.last_seq)
        session.apply(event)
        session.state.update(written)

    def _prepare(self, session: Session, invocation_id: str) -> Activation:
        setup = self._setup
        shared = SharedState(session, setup.reducers, setup.on_conflict, setup.schema)
        scope = trio.CancelScope()
        stream = Stream(
            session=session,
            service=setup.service,
            clock=setup.clock,
            stop=scope.cancel,
            on_escalate=_escalate,
            resolve=shared.resolve,
            check_conflicts=shared.check_conflicts,
        )
        steering = STEERING.get()
        plugins = setup.plugins if setup.plugins.on_event else None
        invocation = Invocation(
            id=invocation_id,
            key=session.key,
            user_content=self._content,
            config=self._config,
            stream=stream,
            shared=shared,
            threads=trio.CapacityLimiter(self._config.max_threads),
            engine=ENGINE,
            requests=Requests(session),
            random=setup.random,
            steering=steering,
            gate=plugins if steering is None else steering.gate(plugins),
            limiter=_run_limiter(self._config),
            plugins=setup.plugins,
            artifacts=setup.artifacts,
            memory=setup.memory,
            attended=self._attended,
        )
        line = Branch()
        place = Place(setup.tree.name, invocation_id=invocation_id, line=line)
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
        core = self._core
        if core is None:
            return False
        stream = core.stream
        core.cancel(_why_left(error))
        note_mix_up(error)
        late: BaseException | None = None
        try:
            with trio.CancelScope(shield=True):
                late = await stream.pump()
        finally:
            broken = stream.closed  # by a failure of its own: nobody else closes it before us
            stream.close()
            try:
                await self._nursery.__aexit__(None, None, None)
            except BaseExceptionGroup as group:
                # The tree's task never raises: this can only be an interrupt of the main task.
                late = group.exceptions[0]
            core.conclude(broken=broken)
        if self._setup.plugins.after_run and core.result is not None:
            trouble = await self._setup.plugins.ran(InvocationContext(core.root), core.result)
            # Asked for None, and not for their truth: an exception may have a length of 0.
            first = next((one for one in (error, stream.failure, late) if one is not None), None)
            if isinstance(trouble, PluginError) and first is not None:
                note_plugin(first, trouble)
            elif trouble is not None and (first is None or not isinstance(trouble, trio.Cancelled)):
                late = trouble
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
    if activation.on_escalate is not None:
        activation.on_escalate(activation)
    above = activation.parent
    while above is not None and not above.catches_escalate:
        above = above.parent
    if above is not None:
        above.escalated = True


def _run_limiter(config: RunConfig) -> Limiter | None:
    slots = config.max_concurrency
    return None if slots is None else Limiter(slots, name="the run's max_concurrency")


def _why_left(error: BaseException | None) -> str:
    if error is None:
        return "the reader left the block"
    if isinstance(error, trio.Cancelled):
        return f"cancelled from outside: {error}"
    return f"the block raised {type(error).__name__}"
