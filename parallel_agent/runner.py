"""From a message to a stream of events: load the session, drive the tree, record, hand out.

The runner knows no concrete agent. It starts one activation, the root's, in one task, and reads
the stream; everything else happens below.

Blocks: `Run` is the block's handle. Leaving the block cancels what still runs and returns when
every ``finally`` has finished. Errors reach the reader at the iteration; the block's body is
never cancelled because an agent failed, and an exception of the body leaves as itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Literal, NoReturn, final
from uuid import uuid4

import attrs
import trio
from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection

from parallel_agent.agent import Agent, activate, run_child
from parallel_agent.barrier import Outcome
from parallel_agent.branch import Branch, Place
from parallel_agent.context import Activation, Invocation, RunConfig, find_outcomes
from parallel_agent.errors import MessageTypeError, ReadError, TreeError
from parallel_agent.lifecycle import TERMINAL, Status, Step, advance
from parallel_agent.overlay import OnConflict, SharedState
from parallel_agent.stream import Lane, Stream
from session.content import Content
from session.event import USER, Event, EventActions, Origin, stamp_origin, stamp_timestamp
from session.in_memory import InMemorySessionService
from session.service import SessionService
from session.session import Session
from session.state import REDUCERS, FrozenDict, Reducer

__all__ = ["Result", "Run", "RunStatistics", "Runner"]


@attrs.frozen(eq=False, repr=False)
class Result:
    """What a run came to.

    Attributes:
        status: ``"completed"``, ``"failed"``, ``"cancelled"`` or ``"waiting"``.
        text: the last final text of the run.
        output: the output of the root agent.
        outputs: the newest output of every agent that completed, by name.
        state: the session's state at the end, read-only, without ``temp:`` keys.
        events: what was recorded in this run, without the user's message.
        reason: why it was cancelled, if it was.
        session_id: the session it ran in.
        invocation_id: its own id.
    """

    status: Status
    text: str
    output: Any
    outputs: Mapping[str, Any]
    state: Mapping[str, Any]
    events: tuple[Event, ...]
    reason: str | None
    session_id: str
    invocation_id: str

    def __repr__(self) -> str:
        return f"<Result {self.status}: {len(self.events)} events, text {self.text!r:.60}>"


@attrs.frozen
class RunStatistics:
    """How a run stands. Activations are counted once, in exactly one of the last four."""

    status: Status
    delivered: int
    last_seq: int
    started: int
    completed: int
    failed: int
    cancelled: int
    waiting: int


class Runner:
    """Runs a tree of agents, as often and as often at once as wanted.

    Args:
        tree: the root agent.
        app_name: the application its sessions belong to; by default the root's name.
        session_service: where sessions are kept; by default in memory, for this runner alone.
        reducers: state keys whose writes are combined instead of replaced: a function
            ``(current, contribution) -> new``, or the name of one (``append``, ``add``,
            ``merge``, ``max``).
        on_conflict: what happens when two branches that do not see each other write one key:
            ``"last"`` recorded wins, or ``"error"`` raises `StateConflictError` at the later.
        clock: seconds since the epoch, for the times of events.
        new_id: makes ids of invocations, and of sessions that were not given one.

    Raises:
        TreeError: ``tree`` is no agent.
        ValueError: an unknown reducer or conflict rule.
    """

    def __init__(
        self,
        tree: Agent,
        *,
        app_name: str | None = None,
        session_service: SessionService | None = None,
        reducers: Mapping[str, Reducer | str] | None = None,
        on_conflict: OnConflict = "last",
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        """See the class."""
        if not isinstance(tree, Agent):
            message = f"a Runner runs an agent, not {tree!r:.80}"
            raise TreeError(message)
        if on_conflict not in ("last", "error"):
            message = f"on_conflict is 'last' or 'error', not {on_conflict!r}"
            raise ValueError(message)
        self._tree = tree
        self._app_name = tree.name if app_name is None else app_name
        self._service = InMemorySessionService(clock=clock, new_id=new_id) if session_service is None else session_service
        self._reducers = {key: _as_reducer(key, reducer) for key, reducer in (reducers or {}).items()}
        self._on_conflict: OnConflict = on_conflict
        self._clock = clock
        self._new_id = new_id

    @property
    def tree(self) -> Agent:
        """The root agent."""
        return self._tree

    @property
    def app_name(self) -> str:
        """The application its sessions belong to."""
        return self._app_name

    @property
    def session_service(self) -> SessionService:
        """Where its sessions are kept."""
        return self._service

    def open(
        self,
        message: str | Content | None = None,
        *,
        user_id: str = USER,
        session_id: str | None = None,
        state_delta: Mapping[str, Any] | None = None,
        run_config: RunConfig | None = None,
    ) -> OpenRun:
        """Return a block that runs the tree; inside it, the run is an async iterator of events.

        ::

            async with runner.open("hello") as run:
                async for event in run:
                    print(event.author, event.text)
            print(run.result.text)

        Args:
            message: what the user says; recorded as the user's event, not delivered.
            user_id: whose session it is.
            session_id: which; one that does not exist is created. Without it, a new one.
            state_delta: state written together with the message.
            run_config: how this run behaves.

        Raises:
            MessageTypeError: ``message`` is neither text nor content.
        """
        content = _as_message(message)
        if run_config is not None and not isinstance(run_config, RunConfig):
            wrong = f"run_config must be a RunConfig, not {run_config!r:.80}"
            raise MessageTypeError(wrong)
        return OpenRun(self, content, user_id, session_id, state_delta, run_config or RunConfig())

    async def run(
        self,
        message: str | Content | None = None,
        *,
        user_id: str = USER,
        session_id: str | None = None,
        state_delta: Mapping[str, Any] | None = None,
        run_config: RunConfig | None = None,
    ) -> Result:
        """Run the tree to its end and return the result. Takes the arguments of `open`.

        Raises:
            BaseException: whatever made the run fail, as itself.
        """
        async with self.open(
            message, user_id=user_id, session_id=session_id, state_delta=state_delta, run_config=run_config
        ) as run:
            async for _ in run:
                pass
        return run.result

    def __repr__(self) -> str:
        return f"<Runner {self._app_name}: {self._tree!r}>"


@final
class Run:
    """One run, inside its block: an async iterator of events, and a handle on what runs.

    Iteration ends when the tree has ended, and raises what it failed with. It delivers an event
    after it is recorded, and its branch goes on when the reader comes back for the next.
    """

    def __init__(self, activation: Activation, first: int) -> None:
        """Made by `Runner.open`."""
        self._root = activation
        self._stream = activation.invocation.stream
        self._first = first
        self._status = advance(Status.PENDING, Step.START)
        self._reason: str | None = None
        self._result: Result | None = None

    @property
    def invocation_id(self) -> str:
        """The run's id."""
        return self._root.invocation.id

    @property
    def session_id(self) -> str:
        """The session it runs in."""
        return self._root.invocation.key.session_id

    @property
    def status(self) -> Status:
        """How it stands; final when the block has ended."""
        return self._status

    @property
    def result(self) -> Result:
        """What it came to; there when the block has ended.

        Raises:
            ReadError: the block has not ended.
        """
        if self._result is None:
            message = "run.result is there when the `async with` block has ended"
            raise ReadError(message)
        return self._result

    def statistics(self) -> RunStatistics:
        """Return how many events were delivered, and how many activations stand how."""
        counts = self._root.invocation.counts
        return RunStatistics(
            status=self._status,
            delivered=self._stream.delivered,
            last_seq=self._stream.session.last_seq,
            **attrs.asdict(counts),
        )

    def outcomes(self, name: str) -> tuple[Outcome, ...]:
        """Return how the branches of the fan-out ``name`` ended, in declaration order.

        Of its newest activation; also when it failed.

        Raises:
            KeyError: no fan-out of that name has ended.
        """
        return find_outcomes(self._root.invocation.outcomes, name)

    def cancel(self, reason: str = "cancelled by run.cancel()") -> None:
        """Cancel every agent of the run. Does not wait: go on iterating, or leave the block.

        Iteration ends ordinarily, when every agent has cleaned up; what they record while doing
        so is still delivered. ``result.status`` is then ``"cancelled"``, never a success.
        """
        if not self._stream.ended and self._reason is None:
            self._reason = reason
            self._root.scope.cancel(reason)

    def __aiter__(self) -> Run:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Event]:
        return self._stream.read()

    def __repr__(self) -> str:
        return f"<Run {self.invocation_id}: {self._status}>"


@final
class OpenRun:
    """What `Runner.open` returns: ``async with`` it."""

    def __init__(
        self,
        runner: Runner,
        content: Content | None,
        user_id: str,
        session_id: str | None,
        state_delta: Mapping[str, Any] | None,
        config: RunConfig,
    ) -> None:
        """Made by `Runner.open`."""
        self._runner = runner
        self._content = content
        self._user_id = user_id
        self._session_id = session_id
        self._state_delta = state_delta
        self._config = config
        self._nursery: Any = None
        self._run: Run | None = None

    def __aiter__(self) -> NoReturn:
        message = "a run needs its block: `async with runner.open(...) as run:` and, inside it, `async for event in run:`"
        raise ReadError(message)

    def __enter__(self) -> NoReturn:
        message = "use `async with runner.open(...) as run:`, not `with`"
        raise ReadError(message)

    def __exit__(self, *_details: object) -> None:
        """Never called; here so that `__enter__` can say what is wrong."""

    @enable_ki_protection
    async def __aenter__(self) -> Run:
        if self._run is not None:
            message = "this run was opened already; call runner.open(...) again for another one"
            raise ReadError(message)
        runner = self._runner
        invocation_id = runner._new_id()  # noqa: SLF001  # the other half of Runner
        session = await self._load()
        first = len(session.events)
        if self._content is not None or self._state_delta:
            await self._record_message(session, invocation_id)
            first += 1
        root = self._prepare(session, invocation_id)
        run = Run(root, first)
        self._run = run
        self._nursery = trio.open_nursery()
        nursery = await self._nursery.__aenter__()
        nursery.start_soon(_run_tree, root, name=f"run {invocation_id}")
        return run

    async def _load(self) -> Session:
        runner = self._runner
        service = runner.session_service
        app_name = runner.app_name
        if self._session_id is not None:
            session = await service.get(app_name=app_name, user_id=self._user_id, session_id=self._session_id)
            if session is not None:
                return session
        return await service.create(app_name=app_name, user_id=self._user_id, session_id=self._session_id)

    async def _record_message(self, session: Session, invocation_id: str) -> None:
        event = Event(self._content, actions=EventActions(state_delta=dict(self._state_delta or {})))
        event.seal()
        stamp_origin(event, Origin(author=USER, invocation_id=invocation_id))
        stamp_timestamp(event, self._runner._clock())  # noqa: SLF001  # the other half of Runner
        temporary = {key: value for key, value in event.state_delta.items() if key.startswith("temp:")}
        with trio.CancelScope(shield=True):
            await self._runner.session_service.append(session.key, [event], expected_seq=session.last_seq)
        session.apply(event)
        session.state.update(temporary)

    def _prepare(self, session: Session, invocation_id: str) -> Activation:
        runner = self._runner
        shared = SharedState(session, runner._reducers, runner._on_conflict)  # noqa: SLF001  # the other half of Runner
        line = Branch()
        stream = Stream(
            session=session,
            service=runner.session_service,
            clock=runner._clock,  # noqa: SLF001  # as above
            stop=lambda reason: root.scope.cancel(reason),
            on_escalate=_escalate,
            resolve=shared.resolve,
            check_conflicts=shared.check_conflicts,
        )
        invocation = Invocation(
            id=invocation_id,
            key=session.key,
            user_content=self._content,
            config=self._config,
            stream=stream,
            shared=shared,
            threads=trio.CapacityLimiter(self._config.max_threads),
            run_child=run_child,
        )
        place = Place(runner.tree.name, invocation_id=invocation_id, line=line)
        root = Activation(runner.tree, place, invocation=invocation, lane=Lane(line))
        return root

    @enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> Literal[False]:
        run = self._run
        if run is None:
            return False
        root = run._root  # noqa: SLF001  # the other half of Run
        stream = root.invocation.stream
        if not stream.ended and run._reason is None:  # noqa: SLF001
            run._reason = _why_left(error)  # noqa: SLF001
        root.scope.cancel(run._reason or "the run has ended")  # noqa: SLF001
        late: BaseException | None = None
        try:
            with trio.CancelScope(shield=True):
                late = await stream.pump()
        finally:
            stream.close()
            try:
                await self._nursery.__aexit__(None, None, None)
            except BaseExceptionGroup as group:
                # The tree's task never raises: this can only be an interrupt of the main task.
                late = group.exceptions[0]
            _conclude(run)
        if error is None:
            failure, stream.failure = stream.failure, None
            if failure is None:
                failure = late
            if failure is not None:
                raise failure
            await checkpoint_if_cancelled()
        elif late is not None and isinstance(error, Exception | trio.Cancelled):
            raise late
        return False


async def _run_tree(root: Activation) -> None:
    """Drive the root. Never raises: the reader learns at the end of the stream."""
    failure: BaseException | None = None
    try:
        await activate(root)
        failure = root.error
    except BaseException as exc:  # noqa: BLE001  # a bug of ours must not hang the reader
        failure = exc
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


def _why_left(error: BaseException | None) -> str:
    if error is None:
        return "the reader left the block"
    if isinstance(error, trio.Cancelled):
        return f"cancelled from outside: {error}"
    return f"the block raised {type(error).__name__}"


def _conclude(run: Run) -> None:
    root = run._root  # noqa: SLF001  # the other half of Run
    invocation = root.invocation
    session = invocation.stream.session
    status = root.status if root.status in TERMINAL else Status.FAILED
    if status is Status.COMPLETED and run._reason is not None:  # noqa: SLF001
        status = Status.CANCELLED
    step = {Status.COMPLETED: Step.COMPLETE, Status.FAILED: Step.FAIL, Status.WAITING: Step.WAIT}.get(
        status, Step.CANCEL
    )
    run._status = advance(run._status, step)  # noqa: SLF001
    events = tuple(session.events[run._first :])  # noqa: SLF001
    text = ""
    for event in reversed(events):
        if event.text and event.is_final:
            text = event.text
            break
    run._result = Result(  # noqa: SLF001
        status=run._status,  # noqa: SLF001
        text=text,
        output=root.output if status is Status.COMPLETED else None,
        outputs=FrozenDict(invocation.outputs),
        state=session.snapshot(),
        events=events,
        reason=run._reason if status is Status.CANCELLED else None,  # noqa: SLF001
        session_id=invocation.key.session_id,
        invocation_id=invocation.id,
    )


def _as_message(message: object) -> Content | None:
    if message is None:
        return None
    if isinstance(message, str):
        return Content(message, role=USER)
    if isinstance(message, Content):
        return attrs.evolve(message, role=USER)
    wrong = f"a message is text or a Content, not {type(message).__name__}: {message!r:.80}"
    raise MessageTypeError(wrong)


def _as_reducer(key: str, reducer: Reducer | str) -> Reducer:
    if callable(reducer):
        return reducer
    if reducer in REDUCERS:
        return REDUCERS[reducer]
    message = f"reducers[{key!r}] is a function or one of {', '.join(REDUCERS)}, not {reducer!r}"
    raise ValueError(message)
