"""The runner: a tree, and what its runs share. It knows no concrete agent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any, TypedDict, Unpack
from uuid import uuid4

import attrs

from parallel_agent.agent import Agent, check_agent
from parallel_agent.errors import MessageTypeError
from parallel_agent.invocation import RunConfig
from parallel_agent.plugin import Plugin
from parallel_agent.plugins import Plugins
from parallel_agent.result import Result, RunSetup
from parallel_agent.run import OpenRun
from parallel_agent.schema import SchemaError
from parallel_agent.shared_state import OnConflict
from parallel_agent.state_schema import StateSchema, as_reducer
from session.artifact import ArtifactService, InMemoryArtifactService
from session.content import Content
from session.event import USER
from session.in_memory import InMemorySessionService
from session.memory import InMemoryMemoryService, MemoryService
from session.service import SessionService
from session.state import Reducer

__all__ = ["HostRunner", "OpenOptions", "Runner", "RunnerOptions"]


class RunnerOptions(TypedDict, total=False):
    """The keyword arguments of a `Runner`, of every host's."""

    app_name: str | None
    session_service: SessionService | None
    artifact_service: ArtifactService | None
    memory_service: MemoryService | None
    reducers: Mapping[str, Reducer | str] | None
    state_schema: type[Any] | None
    on_conflict: OnConflict
    plugins: Iterable[Plugin]
    random: Random | None
    clock: Callable[[], float]
    new_id: Callable[[], str]


class OpenOptions(TypedDict, total=False):
    """The keyword arguments of `Runner.open` and `Runner.run`."""

    user_id: str
    session_id: str | None
    state_delta: Mapping[str, Any] | None
    run_config: RunConfig | None


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
            SchemaError: ``state_delta`` does not fit the runner's state schema.
        """
        return self._open(message, user_id, session_id, state_delta, run_config, attended=True)

    def _open(
        self,
        message: str | Content | None,
        user_id: str,
        session_id: str | None,
        state_delta: Mapping[str, Any] | None,
        run_config: RunConfig | None,
        *,
        attended: bool,
    ) -> OpenRun:
        content = _as_message(message)
        if state_delta is not None and not isinstance(state_delta, Mapping):
            wrong = f"state_delta is a mapping of state keys, not {state_delta!r:.80}"
            raise MessageTypeError(wrong)
        if state_delta is not None and self._setup.schema is not None:
            for key, value in state_delta.items():
                self._setup.schema.check(key, value)
        if run_config is not None and not isinstance(run_config, RunConfig):
            wrong = f"run_config must be a RunConfig, not {run_config!r:.80}"
            raise MessageTypeError(wrong)
        return OpenRun(
            self._setup,
            content=content,
            user_id=user_id,
            session_id=session_id,
            state_delta=state_delta,
            config=run_config or RunConfig(),
            attended=attended,
        )

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

        Nobody holds the run, so nobody can answer: a question to a person gets its default at
        once, or raises `RequestError` in its agent; the failure that `Escalate` asks about is
        raised. With ``RunConfig(on_wait="suspend")`` the run ends as waiting.

        Raises:
            BaseException: whatever made the run fail, as itself.
        """
        async with self._open(
            message, user_id, session_id, state_delta, run_config, attended=False
        ) as run:
            async for _ in run:
                pass
        return run.result

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


def _as_message(message: object) -> Content | None:
    if message is None:
        return None
    if isinstance(message, str):
        return Content(message, role=USER)
    if isinstance(message, Content):
        return attrs.evolve(message, role=USER)
    wrong = f"a message is text or a Content, not {type(message).__name__}: {message!r:.80}"
    raise MessageTypeError(wrong)


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
