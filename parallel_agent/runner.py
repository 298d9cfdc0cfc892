"""The runner: a tree, and what its runs share. It knows no concrete agent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from random import Random
from typing import Any, TypedDict, Unpack, get_args
from uuid import uuid4

from parallel_agent.agent import Agent, check_agent
from parallel_agent.claim import OnBusy
from parallel_agent.errors import MessageTypeError, NothingToResumeError
from parallel_agent.host import RunHost, inject
from parallel_agent.invocation import RunConfig
from parallel_agent.opening import Resumption, Start
from parallel_agent.options import (
    OpenOptions,
    ResumeOptions,
    as_message,
    check_config,
    check_resume,
)
from parallel_agent.plugin import Plugin
from parallel_agent.plugins import Plugins
from parallel_agent.result import Result, RunSetup
from parallel_agent.run import OpenRun
from parallel_agent.schema import SchemaError
from parallel_agent.shape import shape_of
from parallel_agent.shared_state import OnConflict
from parallel_agent.state_schema import StateSchema, as_reducer
from session.artifact import ArtifactService, InMemoryArtifactService
from session.content import Content
from session.event import USER
from session.in_memory import InMemorySessionService
from session.lease import UnfinishedRun
from session.memory import InMemoryMemoryService, MemoryService
from session.service import SessionService
from session.session import SessionKey
from session.state import Reducer

__all__ = ["HostRunner", "Runner", "RunnerOptions"]


class RunnerOptions(TypedDict, total=False):
    """The keyword arguments of a `Runner`, of every host's."""

    app_name: str | None
    session_service: SessionService | None
    artifact_service: ArtifactService | None
    memory_service: MemoryService | None
    reducers: Mapping[str, Reducer | str] | None
    state_schema: type[Any] | None
    on_conflict: OnConflict
    resumable: bool
    plugins: Iterable[Plugin]
    random: Random | None
    clock: Callable[[], float]
    new_id: Callable[[], str]


class Runner:
    """Runs a tree of agents, as often and as often at once as wanted.

    Args:
        tree: the root agent.
        app_name: the application its sessions belong to; by default the root's name.
        session_service: where sessions are kept; by default in memory, for this runner alone.
        artifact_service: where artifacts are kept; by default in memory, likewise.
        memory_service: where agents look up earlier sessions; by default in memory, likewise.
        reducers: state keys whose writes are combined instead of replaced: a function
            ``(current, contribution) -> new``, or the name of one (``append``, ``add``,
            ``merge``, ``max``).
        state_schema: an attrs class, dataclass or TypedDict whose fields are the keys of the
            state, with their types and (see `StateKey`) reducers. A write that does not fit is
            refused with `SchemaError`; keys that are not declared are, too, but for ``temp:``
            keys. Defaults are not written: a key that was never written is not there.
        on_conflict: what happens when two branches that do not see each other write one key:
            ``"last"`` recorded wins, or ``"error"`` raises `StateConflictError` at the later.
        resumable: runs note in their session what is needed to go on with them, in another
            process if need be, when they were cut off or wait for a person; see `resume`. Costs
            a record for each agent that ends.
        plugins: hooks into all its runs, asked in this order; see `Plugin`.
        random: where the jitter of retries comes from.
        clock: seconds since the epoch, for the times of events.
        new_id: makes ids of invocations, and of sessions that were not given one.

    Raises:
        TreeError: ``tree`` is no agent.
        TypeError: something is not of the kind it must be.
        SchemaError: an agent's ``output_key`` is not in ``state_schema``.
        SchemaTypeError: ``state_schema`` has no fields, or one whose type cannot be checked.
        ValueError: an unknown reducer or conflict rule; two plugins of one name; a key with two
            reducers.
    """

    def __init__(
        self,
        tree: Agent,
        *,
        app_name: str | None = None,
        session_service: SessionService | None = None,
        artifact_service: ArtifactService | None = None,
        memory_service: MemoryService | None = None,
        reducers: Mapping[str, Reducer | str] | None = None,
        state_schema: type[Any] | None = None,
        on_conflict: OnConflict = "last",
        resumable: bool = False,
        plugins: Iterable[Plugin] = (),
        random: Random | None = None,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        """See the class."""
        check_agent(tree, "what a Runner was given")
        _check_service("session_service", session_service, SessionService)
        _check_service("artifact_service", artifact_service, ArtifactService)
        _check_service("memory_service", memory_service, MemoryService)
        if app_name is not None and (not isinstance(app_name, str) or not app_name):
            message = f"app_name is text that is not empty, not {app_name!r}"
            raise ValueError(message)
        if on_conflict not in ("last", "error"):
            message = f"on_conflict is 'last' or 'error', not {on_conflict!r}"
            raise ValueError(message)
        schema = None if state_schema is None else StateSchema(state_schema)
        if schema is not None:
            _check_output_keys(tree, schema)
        if session_service is None:
            session_service = InMemorySessionService(clock=clock, new_id=new_id)
        if resumable and not session_service.owns:
            message = (
                f"resumable=True needs a session service that keeps track of unfinished runs, and "
                f"{session_service!r:.80} does not (its `owns` is False)"
            )
            raise TypeError(message)
        self._setup = RunSetup(
            tree=tree,
            app_name=tree.name if app_name is None else app_name,
            service=session_service,
            reducers=_as_reducers(reducers, schema),
            schema=schema,
            on_conflict=on_conflict,
            plugins=Plugins(plugins),
            random=Random() if random is None else random,  # noqa: S311  # jitter, no secret
            artifacts=InMemoryArtifactService() if artifact_service is None else artifact_service,
            memory=InMemoryMemoryService() if memory_service is None else memory_service,
            shape=shape_of(tree) if resumable else None,
            clock=clock,
            new_id=new_id,
        )

    @property
    def tree(self) -> Agent:
        """The root agent."""
        return self._setup.tree

    @property
    def app_name(self) -> str:
        """The application its sessions belong to."""
        return self._setup.app_name

    @property
    def session_service(self) -> SessionService:
        """Where its sessions are kept."""
        return self._setup.service

    def open(
        self,
        message: str | Content | None = None,
        *,
        user_id: str = USER,
        session_id: str | None = None,
        state_delta: Mapping[str, Any] | None = None,
        run_config: RunConfig | None = None,
        on_busy: OnBusy = "error",
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
            on_busy: what to do if another run has the session: ``"error"`` raises
                `SessionBusyError`, which names it; ``"queue"`` waits for its end;
                ``"interrupt"`` cancels it, and waits for its end; ``"inject"`` is for `run`.

        Entered, the block raises:
            SessionBusyError: another run has the session.
            SessionError: the session cannot be read or written.

        Raises:
            MessageTypeError: ``message`` is neither text nor content.
            SchemaError: ``state_delta`` does not fit the runner's state schema.
            ValueError: ``on_busy`` is none of those.
        """
        if on_busy == "inject":
            message = "on_busy='inject' is for run(): here, there would be no run to hold"
            raise ValueError(message)
        return self._start(
            message,
            attended=True,
            user_id=user_id,
            session_id=session_id,
            state_delta=state_delta,
            run_config=run_config,
            on_busy=on_busy,
        )

    def _start(
        self, message: str | Content | None, *, attended: bool, **options: Unpack[OpenOptions]
    ) -> OpenRun:
        state_delta, on_busy = options.get("state_delta"), options.get("on_busy", "error")
        run_config = options.get("run_config")
        content = as_message(message)
        if state_delta is not None and not isinstance(state_delta, Mapping):
            wrong = f"state_delta is a mapping of state keys, not {state_delta!r:.80}"
            raise MessageTypeError(wrong)
        if state_delta is not None and self._setup.schema is not None:
            for key, value in state_delta.items():
                self._setup.schema.check(key, value)
        check_config(run_config)
        if on_busy not in get_args(OnBusy):
            wrong = f"on_busy is one of {', '.join(get_args(OnBusy))}, not {on_busy!r:.80}"
            raise ValueError(wrong)
        start = Start(
            content=content,
            user_id=options.get("user_id", USER),
            session_id=options.get("session_id"),
            state_delta=state_delta,
            config=run_config,
            attended=attended,
            on_busy=on_busy,
        )
        return OpenRun(self._setup, start)

    async def run(
        self,
        message: str | Content | None = None,
        *,
        user_id: str = USER,
        session_id: str | None = None,
        state_delta: Mapping[str, Any] | None = None,
        run_config: RunConfig | None = None,
        on_busy: OnBusy = "error",
    ) -> Result:
        """Run the tree to its end and return the result. Takes the arguments of `open`.

        Nobody holds the run, so nobody can answer: a question to a person gets its default at
        once, or raises `RequestError` in its agent; the failure that `Escalate` asks about is
        raised. With ``RunConfig(on_wait="suspend")`` the run ends as waiting.

        With ``on_busy="inject"``, if a run of this event loop has the session, the message is
        sent to its root branch (see `Run.send`), and its result returned when it has ended.

        Raises:
            BaseException: whatever made the run fail, as itself.
        """
        if on_busy == "inject":
            result = await self._inject(message, user_id, session_id)
            if result is not None:
                return result
        opened = self._start(
            message,
            attended=False,
            user_id=user_id,
            session_id=session_id,
            state_delta=state_delta,
            run_config=run_config,
            on_busy=on_busy,
        )
        return await _read(opened)

    async def _inject(
        self, message: str | Content | None, user_id: str, session_id: str | None
    ) -> Result | None:
        """Send a message into the run that has the session; return its result, if it took it."""
        content = as_message(message)
        if session_id is None or content is None:
            return None
        key = SessionKey(self.app_name, user_id, session_id)
        held = await inject(self.session_service, key, content)
        if held is None or held.core is None:
            return None
        await held.ended.wait()
        return held.core.result

    # Runs that were cut off, or wait for a person.

    def reopen(self, session_id: str, **options: Unpack[ResumeOptions]) -> OpenRun:
        """Return a block that goes on with the unfinished run of a session; see `open`.

        Agents that had ended are not run again: their outputs, or failures, come from the log.
        An agent that had not ended starts again, from its last `InvocationContext.checkpoint` if
        it made any; what it had written since is taken back, and what it had said is no longer
        in its history. Questions that were answered are not asked again. Events come out of the
        iteration as they are recorded now; those recorded before are in the result.

        Args:
            session_id: the session.
            options: ``user_id``: whose. ``invocation_id``: which run; by default the one there is.
                ``responses``: answers to the questions that it waits for, by their ids, or by
                other names of theirs (`PendingRequest.names`); those without an answer go on
                waiting. ``run_config``: how it behaves from now on; by default, as it did.
                ``on_busy``: ``"error"``, or ``"queue"``, which waits until nobody is at it, or the
                lease of a process that has died is over.

        Entered, the block raises:
            NothingToResumeError: there is no unfinished run, or none of that id.
            TreeChangedError: it was a run of another tree; the message shows the difference.
            ResponseRefusedError: an answer is to no open question. Nothing has changed.
            SessionBusyError: some process is at it.

        In the run, an agent that does not start what it had started raises
        `ReplayMismatchError`; the run stays as it was, to be resumed when that is mended.

        Raises:
            MessageTypeError: an argument is not of the kind it must be.
        """
        return self._reopen(session_id, attended=True, **options)

    async def resume(self, session_id: str, **options: Unpack[ResumeOptions]) -> Result:
        """Go on with the unfinished run of a session, to its end. Takes the arguments of `reopen`.

        As with `run`, nobody holds the run who could answer more questions.

        Raises:
            BaseException: what `reopen` raises, or whatever made the run fail, as itself.
        """
        return await _read(self._reopen(session_id, attended=False, **options))

    def _reopen(
        self, session_id: str, *, attended: bool, **options: Unpack[ResumeOptions]
    ) -> OpenRun:
        if self._setup.shape is None:
            message = "this runner's runs cannot be resumed: Runner(tree, resumable=True)"
            raise NothingToResumeError(message)
        check_resume(options)
        responses = options.get("responses")
        start = Start(
            user_id=options.get("user_id", USER),
            session_id=session_id,
            config=options.get("run_config"),
            attended=attended,
            on_busy=options.get("on_busy", "error"),
            resumption=Resumption(options.get("invocation_id"), dict(responses or {})),
        )
        return OpenRun(self._setup, start)

    def host(self) -> RunHost:
        """Return a block that reads runs on behalf of clients that come and go.

        ::

            async with runner.host() as host:
                run_id = await host.start("hello", session_id="s1")
                async for event in host.subscribe("s1"):
                    print(event.author, event.text)

        Leaving the block cancels the runs that have not ended, and waits until they have cleaned
        up. Of a runner with ``resumable=True`` they can be resumed, by this host's successor, say.
        What the block raises leaves as itself.
        """
        start, reopen = partial(self._start, attended=True), partial(self._reopen, attended=True)
        return RunHost(self.session_service, self.app_name, start, reopen)

    async def unfinished(self, *, user_id: str | None = None) -> list[UnfinishedRun]:
        """Return the runs of this application (of one user) that can be resumed, or still run.

        Ordered by user and session. What waits for a person, or was cut off, is there until it
        has been resumed to its end, or another run was started in its session.
        """
        if not self.session_service.owns:
            return []
        return await self.session_service.unfinished(app_name=self.app_name, user_id=user_id)

    def __repr__(self) -> str:
        return f"<Runner {self.app_name}: {self.tree!r}>"


class HostRunner:
    """What the runners of other hosts are: a `Runner`, whose runs they open in their own way."""

    def __init__(self, tree: Agent, **options: Unpack[RunnerOptions]) -> None:
        """Take the arguments of `Runner`."""
        self._runner = Runner(tree, **options)

    @property
    def tree(self) -> Agent:
        """The root agent."""
        return self._runner.tree

    @property
    def app_name(self) -> str:
        """The application its sessions belong to."""
        return self._runner.app_name

    @property
    def session_service(self) -> SessionService:
        """Where its sessions are kept. Its methods are trio's: ``trio.run``, or `aio.from_trio`."""
        return self._runner.session_service


def _check_output_keys(tree: Agent, schema: StateSchema) -> None:
    line = [tree]
    for agent in line:
        line.extend(agent.sub_agents)
        if agent.output_key is not None:
            try:
                schema.check_key(agent.output_key)
            except SchemaError as error:
                where = f"output_key of {agent.name!r}"
                raise SchemaError([(where, error.why)]) from None


def _check_service(name: str, service: object, kind: type[object]) -> None:
    if service is not None and not isinstance(service, kind):
        hint = "; make an object of it: call it" if isinstance(service, type) else ""
        message = f"{name} is an object of a {kind.__name__}, not {service!r:.80}{hint}"
        raise TypeError(message)


async def _read(opened: OpenRun) -> Result:
    async with opened as run:
        async for _ in run:
            pass
    return run.result


def _as_reducers(
    reducers: Mapping[str, Reducer | str] | None, schema: StateSchema | None
) -> dict[str, Reducer]:
    declared = {} if schema is None else schema.reducers
    if reducers is None:
        return declared
    if not isinstance(reducers, Mapping) or not all(isinstance(key, str) for key in reducers):
        message = f"reducers is a mapping from state keys to reducers, not {reducers!r:.80}"
        raise TypeError(message)
    twice = [key for key in reducers if key in declared]
    if twice:
        message = f"{twice[0]!r} has a reducer in state_schema already; leave it out of reducers"
        raise ValueError(message)
    return {
        **declared,
        **{key: as_reducer(key, reducer) for key, reducer in reducers.items()},
    }
