"""One run: load the session, drive the tree, record, hand out.

It knows no concrete agent. It starts one activation, the root's, in one task, and reads the
stream; everything else happens below.

Blocks: leaving the block cancels what still runs and returns when every ``finally`` has
finished. Errors reach the reader at the iteration; the block's body is never cancelled because
an agent failed, and an exception of the body leaves as itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from inspect import iscoroutinefunction
from types import TracebackType
from typing import Any, Literal, NoReturn, final

import attrs
import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, enable_ki_protection

from parallel_agent.activation import Activation
from parallel_agent.barrier import Outcome
from parallel_agent.branch import Branch, Place
from parallel_agent.context import InvocationContext, find_outcomes
from parallel_agent.drive import activate
from parallel_agent.engine import ENGINE
from parallel_agent.errors import PluginError, ReadError, RunEndedError, note_plugin
from parallel_agent.invocation import Invocation, RunConfig
from parallel_agent.lane import Lane
from parallel_agent.lifecycle import Status, Step, advance, checked_reason
from parallel_agent.limiter import Limiter
from parallel_agent.post import send
from parallel_agent.questions import PendingRequest, Requests
from parallel_agent.result import Result, RunSetup, RunStatistics, last_text
from parallel_agent.shared_state import SharedState
from parallel_agent.steering import STEERING
from parallel_agent.stream import Stream
from session.actions import EventActions
from session.content import Content
from session.event import USER, Event, Origin, stamp_origin, stamp_timestamp
from session.service import SessionExistsError
from session.session import Session
from session.state import frozen_dict

__all__ = ["OpenRun", "Run"]


class _Core:
    """What a run and its block both hold on to."""

    def __init__(self, root: Activation, first: int) -> None:
        self.root = root
        self.stream = root.invocation.stream
        self.first = first
        self.status = advance(Status.PENDING, Step.START)
        self.reason: str | None = None
        self.result: Result | None = None

    def cancel(self, reason: str) -> None:
        """Cancel the tree; the first reason is the one that counts."""
        if not self.stream.ended and self.reason is None:
            self.reason = reason
        self.root.scope.cancel(reason)

    def conclude(self, *, broken: bool) -> None:
        """Settle status and result, the tree having ended. ``broken``: the stream failed."""
        root = self.root
        invocation = root.invocation
        session = self.stream.session
        if broken:
            step = Step.FAIL
        elif root.status is Status.COMPLETED:
            # Cancelled too late to reach anybody, it is cancelled all the same: never a success.
            step = Step.COMPLETE if self.reason is None else Step.CANCEL
        else:
            ways = {Status.FAILED: Step.FAIL, Status.WAITING: Step.WAIT}
            step = ways.get(root.status, Step.CANCEL)
        self.status = advance(self.status, step)
        whys = {Step.CANCEL: self.reason, Step.WAIT: invocation.requests.why_waiting()}
        events = tuple(session.events[self.first :])
        self.result = Result(
            status=self.status,
            text=last_text(events),
            output=root.output if step is Step.COMPLETE else None,
            outputs=frozen_dict(invocation.outputs),
            state=session.snapshot(),
            events=events,
            reason=whys.get(step),
            session_id=invocation.key.session_id,
            invocation_id=invocation.id,
        )


@final
class Run:
    """One run, inside its block: an async iterator of events, and a handle on what runs.

    Iteration ends when the tree has ended, and raises what it failed with. It delivers an event
    after it is recorded, and its branch goes on when the reader comes back for the next.
    """

    def __init__(self, core: _Core) -> None:
        """Made by `Runner.open`."""
        self._core = core
        self._stream = core.stream
        self._requests: Requests = core.root.invocation.requests

    @property
    def invocation_id(self) -> str:
        """The run's id."""
        return self._core.root.invocation.id

    @property
    def session_id(self) -> str:
        """The session it runs in."""
        return self._core.root.invocation.key.session_id

    @property
    def status(self) -> Status:
        """How it stands; final when the block has ended."""
        return self._core.status

    @property
    def result(self) -> Result:
        """What it came to; there when the block has ended.

        Raises:
            ReadError: the block has not ended.
        """
        if self._core.result is None:
            message = "run.result is there when the `async with` block has ended"
            raise ReadError(message)
        return self._core.result

    def statistics(self) -> RunStatistics:
        """Return how many events were delivered, and how many activations stand how."""
        return RunStatistics(
            status=self._core.status,
            delivered=self._stream.delivered,
            last_seq=self._stream.session.last_seq,
            **attrs.asdict(self._core.root.invocation.counts),
        )

    def outcomes(self, name: str) -> tuple[Outcome, ...]:
        """Return how the branches of the fan-out ``name`` ended, in declaration order.

        Of its newest activation; also when it failed.

        Raises:
            KeyError: no fan-out of that name has ended.
        """
        return find_outcomes(self._core.root.invocation.outcomes, name)

    def cancel(self, reason: str = "cancelled by run.cancel()") -> None:
        """Cancel every agent of the run. Does not wait: go on iterating, or leave the block.

        Iteration ends ordinarily, when every agent has cleaned up; what they record while doing
        so is still delivered. ``result.status`` is then ``"cancelled"``, never a success.
        """
        self._core.cancel(checked_reason(reason))

    # Into the run. Nothing here waits for the reader, so it may be called inside its loop.

    async def send(self, content: str | Content, *, to: str | None = None) -> Event:
        """Send a message to the branch named ``to``; None is the root branch.

        It is recorded as the user's event on that branch, comes out of the iteration like any
        other, and is there for ``ctx.receive()`` when the reader comes back after it.

        Raises:
            MessageRefusedError: no such branch is running, or its inbox is full. Nothing changed.
        """
        await checkpoint()
        return send(self._core.root, content, to)

    @property
    def pending(self) -> tuple[PendingRequest, ...]:
        """The questions to people that wait for an answer, oldest first.

        After a run that has ended as waiting, those it waits for.
        """
        return self._requests.pending()

    async def respond(self, request_id: str, value: Any) -> Event:
        """Answer a question: ``await run.respond(event.request.id, True)``.

        The answer is recorded as the user's event on the branch that asked, comes out of the
        iteration like any other, and reaches its agent when the reader comes back after it.

        Args:
            request_id: the request's id; or, if no other open request is like that, one of its
                other names, `PendingRequest.names`.
            value: the answer: JSON, or an object that has a JSON form. It must fit the request's
                schema, strictly.

        Raises:
            ResponseRefusedError: no such request is open, it has been answered, or the value
                does not fit. Nothing has changed.
        """
        await checkpoint()
        return self._requests.respond(request_id, value)

    # Out of the run.

    async def wait_for(self, predicate: Callable[[Event], bool]) -> Event:
        """Read on until an event is like that, and return it.

        Raises:
            RunEndedError: the run has ended, and none was.
            ReadError: ``predicate`` is no plain function of an event.
        """
        if not callable(predicate) or iscoroutinefunction(predicate):
            message = f"wait_for() takes a plain function of an event, not {predicate!r:.80}"
            raise ReadError(message)
        async for event in self:
            if predicate(event):
                return event
        message = "the run has ended, and no event was what wait_for() waited for"
        raise RunEndedError(message)

    def only(
        self, *, author: str | None = None, branch: str | None = None, partial: bool | None = None
    ) -> AsyncIterator[Event]:
        """Read on, passing over events that are not like that.

        Args:
            author: of this author.
            branch: on this branch, or one forked from it.
            partial: False passes over partial events, True over whole ones.
        """
        return _Only(self, author=author, branch=branch, partial=partial)

    async def collect(self) -> list[Event]:
        """Read to the end, and return what came."""
        return [event async for event in self]

    def __aiter__(self) -> Run:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Event]:
        return self._stream.read()

    def __repr__(self) -> str:
        return f"<Run {self.invocation_id}: {self.status}>"


@final
class _Only:
    """What `Run.only` returns."""

    def __init__(
        self, run: Run, *, author: str | None, branch: str | None, partial: bool | None
    ) -> None:
        self._run = run
        self._author = author
        self._branch = branch
        self._partial = partial

    def __aiter__(self) -> _Only:
        return self

    async def __anext__(self) -> Event:
        async for event in self._run:
            if (
                self._author in (None, event.author)
                and self._partial in (None, event.partial)
                and self._is_on_branch(event.branch)
            ):
                return event
        raise StopAsyncIteration

    def _is_on_branch(self, name: str | None) -> bool:
        if self._branch is None:
            return True
        # By segments: `fan.agent_1` is not above `fan.agent_10`.
        return name is not None and f"{name}.".startswith(f"{self._branch}.")


@final
class OpenRun:
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
        self._core: _Core | None = None

    def __aiter__(self) -> NoReturn:
        message = (
            "a run needs its block: `async with runner.open(...) as run:` and, inside it, "
            "`async for event in run:`"
        )
        raise ReadError(message)

    def __enter__(self) -> NoReturn:
        message = "use `async with runner.open(...) as run:`, not `with`"
        raise ReadError(message)

    def __exit__(self, *_details: object) -> None:
        """Never called; here so that `__enter__` can say what is wrong."""

    @enable_ki_protection
    async def __aenter__(self) -> Run:
        if self._core is not None:
            message = "this run was opened already; call runner.open(...) again for another one"
            raise ReadError(message)
        if not trio.lowlevel.in_trio_run():
            message = "a run needs trio: trio.run(main), where main() awaits it"
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
        self._core = _Core(root, first)
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
