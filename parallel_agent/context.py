"""What an agent is given: its context. The public face of an activation, with few things on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trio.lowlevel import checkpoint

from parallel_agent.activation import Activation, RunConfig
from parallel_agent.barrier import Outcome
from parallel_agent.branch import Place
from parallel_agent.lifecycle import Status
from parallel_agent.overlay import State
from session.actions import EventActions
from session.artifact import Artifact
from session.content import Content, Part
from session.event import Event
from session.memory import DEFAULT_LIMIT, MemoryEntry
from session.session import SessionKey

if TYPE_CHECKING:
    # For annotations only: agents take contexts, so they stand above.
    from parallel_agent.agent import Agent

__all__ = ["InvocationContext", "activation_of", "find_outcomes"]


class InvocationContext:
    """What an agent knows and can do during one activation.

    Only for the activation it was made for: it must not be used after the agent has ended.
    """

    __slots__ = ("_activation",)

    def __init__(self, activation: Activation) -> None:
        """Made by the runtime."""
        self._activation = activation

    @property
    def agent(self) -> Agent:
        """The agent that runs."""
        return self._activation.agent

    @property
    def invocation_id(self) -> str:
        """The run's id, the same for all its agents."""
        return self._activation.invocation.id

    @property
    def branch(self) -> str | None:
        """The branch it runs on, dotted; None on the root branch."""
        return self._activation.place.branch

    @property
    def path(self) -> str:
        """This activation's path from the root of the tree, slashed; unique in the run."""
        return self._activation.place.path

    @property
    def session_key(self) -> SessionKey:
        """Application, user and id of the session."""
        return self._activation.invocation.key

    @property
    def run_config(self) -> RunConfig:
        """How this run behaves."""
        return self._activation.invocation.config

    @property
    def user_content(self) -> Content | None:
        """The message the run was started with."""
        return self._activation.invocation.user_content

    @property
    def user_text(self) -> str:
        """The text of that message; ``""`` without one."""
        content = self.user_content
        return "" if content is None else content.text

    @property
    def state(self) -> State:
        """The session's state as this branch sees it. See `State`."""
        return self._activation.state

    def history(self) -> list[Event]:
        """Return the recorded events that this agent may see, oldest first.

        What the session held before the run; what was visible to the parent when this branch was
        forked; what this branch, and branches forked from it and joined, have recorded since.
        Never anything of a sibling that still runs. Partial events are not recorded.

        Costs a step per event of the session.
        """
        activation = self._activation
        branch = activation.lane.branch
        invocation_id = activation.invocation.id
        limits: dict[int, int] = {}
        visible: list[Event] = []
        for event in activation.invocation.stream.session.events:
            origin = event.origin
            if isinstance(origin, Place) and origin.invocation_id == invocation_id:
                writer = origin.line
                limit = limits.get(id(writer))
                if limit is None:
                    limit = limits[id(writer)] = branch.limit_for(writer)
                if (event.seq or 0) > limit:
                    continue
            visible.append(event)
        return visible

    def outcomes(self, name: str) -> tuple[Outcome, ...]:
        """Return how the branches of the fan-out ``name`` ended, in declaration order.

        Of its newest activation; also when it failed.

        Raises:
            KeyError: no fan-out of that name has ended in this run.
        """
        return find_outcomes(self._activation.invocation.outcomes, name)

    async def emit(self, item: Event | Content | str) -> Event:
        """Emit an event; return it when the reader has come back for the next one.

        By then it is recorded, and everybody sees its state writes. ``yield item`` in an agent
        is this call. Text or content is made an event.

        Raises:
            EmitError: ``item`` is no event, or was emitted before.
            UnstorableError: something in it has no JSON form; nothing was recorded.
            StateConflictError: see ``on_conflict`` of the runner.
            BranchCancelledError: a sibling's decision has ended this branch.
            StreamClosedError: the run has ended.
            ActivationEndedError: this agent has ended.
            trio.Cancelled: ``event.seq`` says whether it was recorded all the same.
        """
        return await self._activation.emit(item)

    # What is kept beside the session.

    async def save_artifact(self, name: str, artifact: Part | str | bytes) -> int:
        """Keep ``artifact`` under ``name``, and return its new version: 0, 1, 2, ...

        Text, bytes, or a part that holds one. Names beginning with ``user:`` are seen by all
        sessions of the user. When it is kept, an event of this agent records the version; a
        cancellation in between leaves the artifact and no event.

        Raises:
            ArtifactNameError: the name climbs out of its place, or is none.
            ArtifactTypeError: ``artifact`` is neither text nor bytes.
        """
        activation = self._running()
        await checkpoint()
        version = await activation.invocation.artifacts.save(self.session_key, name, artifact)
        await activation.emit(Event(actions=EventActions(artifact_delta={name: version})))
        return version

    async def load_artifact(self, name: str, *, version: int | None = None) -> Artifact | None:
        """Return what was kept under ``name``, if anything: that version, or the newest.

        Raises:
            ArtifactNameError: the name climbs out of its place, or is none.
        """
        await checkpoint()
        return await self._running().invocation.artifacts.load(
            self.session_key, name, version=version
        )

    async def list_artifacts(self) -> list[str]:
        """Return the names under which something is kept, for the session or the user, sorted."""
        await checkpoint()
        return await self._running().invocation.artifacts.list_names(self.session_key)

    async def search_memory(self, query: str, *, limit: int = DEFAULT_LIMIT) -> list[MemoryEntry]:
        """Return what earlier sessions of the user said about ``query``, the best match first."""
        await checkpoint()
        key = self.session_key
        return await self._running().invocation.memory.search(
            app_name=key.app_name, user_id=key.user_id, query=query, limit=limit
        )

    async def add_session_to_memory(self) -> None:
        """Let later sessions of the user remember this one, as recorded by now."""
        activation = self._running()
        await activation.flush()
        await checkpoint()
        await activation.invocation.memory.add_session(activation.invocation.stream.session)

    def _running(self) -> Activation:
        activation = self._activation
        if activation.status is not Status.RUNNING:
            activation.refuse()
        return activation

    async def run_agent(self, agent: Agent) -> Any:
        """Run another agent in place, on this branch, and return its output.

        Its events go into the same stream. Writes pending here are recorded first.

        Raises:
            BaseException: whatever the agent raised, as itself.
        """
        activation = self._running()
        child: Activation = await activation.invocation.run_child(activation, agent, count=True)
        return child.output

    def __repr__(self) -> str:
        return f"<InvocationContext {self.path}>"


def find_outcomes(outcomes: Mapping[str, Sequence[Outcome]], name: str) -> tuple[Outcome, ...]:
    """Return the outcomes of the fan-out ``name``, or raise a KeyError that lists what there is."""
    try:
        return tuple(outcomes[name])
    except KeyError:
        known = ", ".join(sorted(outcomes)) or "none yet"
        message = f"no fan-out named {name!r} has ended in this run (ended: {known})"
        raise KeyError(message) from None


def activation_of(ctx: InvocationContext) -> Activation:
    """Return the runtime's side of a context. For workflow agents."""
    return ctx._activation  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # this is the door
