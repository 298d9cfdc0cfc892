"""`as_adk_agent`: a tree as an agent of Google ADK, in ADK's own runner."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from random import Random
from typing import Any, Final, TypedDict, Unpack

from parallel_agent.adk.borrowed import ArtifactsOfAdk, MemoryOfAdk, SessionCopy
from parallel_agent.adk.events import content_from_adk, past_from_adk, state_from_adk, to_adk
from parallel_agent.adk.library import BaseAgent
from parallel_agent.agent import Agent
from parallel_agent.aio.runner import Runner
from parallel_agent.errors import TreeError
from parallel_agent.handle import core_of
from parallel_agent.invocation import RunConfig
from parallel_agent.plugin import Plugin
from parallel_agent.runner import RunnerOptions
from parallel_agent.shared_state import OnConflict
from parallel_agent.workflow.loop import LoopAgent
from session.artifact import ArtifactService
from session.event import USER, Event
from session.memory import MemoryService
from session.session import SessionKey
from session.state import TEMP_PREFIX, Reducer, thaw

__all__ = ["TreeOptions", "as_adk_agent"]


class TreeOptions(TypedDict, total=False):
    """The keyword arguments of `as_adk_agent` that are a runner's."""

    artifact_service: ArtifactService | None
    memory_service: MemoryService | None
    reducers: Mapping[str, Reducer | str] | None
    state_schema: type[Any] | None
    on_conflict: OnConflict
    plugins: Iterable[Plugin]
    random: Random | None
    clock: Callable[[], float]


def as_adk_agent(
    tree: Agent,
    *,
    name: str | None = None,
    run_config: RunConfig | None = None,
    **options: Unpack[TreeOptions],
) -> Any:
    """Return a tree as an agent of Google ADK, a ``google.adk.agents.BaseAgent``.

    ::

        runner = google.adk.runners.Runner(app_name="app", agent=as_adk_agent(tree), ...)

    In ADK's runner, or anywhere in a tree of ADK's agents. Each time it is run, the tree is:

    * It sees ADK's session as it is then: the state with its ``temp:`` keys, the events on its
      branch and above, the user's message; ADK's artifacts and memory, if there are any.
    * Its events are yielded one by one, with author, branch (below ADK's own), content and actions;
      a branch of the tree goes on when ADK has come back, and so has recorded what it said.
    * Its state deltas are those of its events, with what reducers have made of them.
    * An escalation is ADK's to heed, unless a loop of the tree has.
    * Whatever made it fail is raised as itself. Closing the generator early, or cancelling whoever
      reads it, cancels the tree, and waits until that has cleaned up.
    * Nobody can answer questions while it runs: one that has no default is yielded, and ends the
      run as waiting (``on_wait="suspend"``).

    Args:
        tree: the root agent.
        name: the agent's name in ADK; by default the root's. Then the root's events have it, too.
        run_config: how its runs behave.
        **options: as for `Runner`, but for what ADK has already said. Without an artifact or memory
            service, ADK's are used.

    Raises: as `Runner`.
    """
    if isinstance(tree, BaseAgent):
        message = f"as_adk_agent takes a tree of ours, and {tree.name!r} is ADK's already"
        raise TreeError(message)
    if "plugins" in options:
        options["plugins"] = tuple(options["plugins"])  # they are for every run
    Runner(tree, **options)  # refuses now what it would refuse in every run
    return _TreeAgent.of(
        tree,
        name=tree.name if name is None else name,
        config=run_config or RunConfig(on_wait="suspend"),
        options=options,
    )


_NODE_OUTPUT: ContextVar[list[Any] | None] = ContextVar("_NODE_OUTPUT", default=None)
"""Where the tree's output goes, if ADK runs it as a node of a workflow."""


class _TreeAgent(BaseAgent):  # type: ignore[misc]  # Any, see library
    """What `as_adk_agent` returns."""

    # Private attributes of pydantic's.
    _tree: Any = None
    _config: Any = None
    _options: Any = None

    @classmethod
    def of(cls, tree: Agent, *, name: str, config: RunConfig, options: TreeOptions) -> _TreeAgent:
        made = cls(name=name, description=tree.description)
        made._tree, made._config, made._options = tree, config, options
        return made

    async def _run_async_impl(self, ctx: Any) -> AsyncGenerator[Any, None]:
        tree: Agent = self._tree
        copy = _copied(ctx, tree, self.name)
        await copy.fill()
        options: RunnerOptions = dict(self._options)  # type: ignore[assignment]  # TreeOptions, which are some of them
        options.setdefault("artifact_service", _or_none(ArtifactsOfAdk, ctx.artifact_service))
        options.setdefault("memory_service", _or_none(MemoryOfAdk, ctx.memory_service, ctx.session))
        options["app_name"] = ctx.app_name
        options["session_service"] = copy
        options["new_id"] = lambda: ctx.invocation_id
        opened = Runner(tree, **options).open(
            content_from_adk(ctx.user_content),
            user_id=ctx.user_id,
            session_id=ctx.session.id,
            run_config=self._config,
        )
        async with opened as run:
            temporary = _Temporary(core_of(run).stream.session.state)
            async for event in run:
                yield to_adk(
                    event,
                    author=self.name if event.author == tree.name else event.author,
                    invocation_id=ctx.invocation_id,
                    above=ctx.branch,
                    keeps_escalate=event.escalate and not _is_in_loop(tree, event),
                    temporary={} if event.partial else temporary.changed(),
                )
        output = _NODE_OUTPUT.get()
        if output is not None:
            output[:] = [run.result.output]

    async def _run_impl(self, *, ctx: Any, node_input: Any) -> AsyncGenerator[Any, None]:
        """Run it as a node of a workflow of ADK's, which may have one output, and knows one branch.

        So the events have none, and the tree's own comes last. An event without a branch would be
        given the last one's; the empty branch is what ADK takes for none.
        """
        output: list[Any] = []
        base: Any = super()
        _NODE_OUTPUT.set(output)
        try:
            nodes = base._run_impl(ctx=ctx, node_input=node_input)  # noqa: SLF001  # its own base
            async with aclosing(nodes) as events:
                async for event in events:
                    event.output = None
                    if event.branch is None:
                        event.branch = ""
                    yield event
        finally:
            _NODE_OUTPUT.set(None)  # no reset: closing may be another task's
        for value in output:
            if value is not None:
                ctx.output = thaw(value)


def _or_none(make: Callable[..., Any], service: Any, *more: Any) -> Any:
    return None if service is None else make(service, *more)


def _copied(ctx: Any, tree: Agent, name: str) -> SessionCopy:
    """Return a copy of ADK's session, as far as its agent may see it."""
    visible = [event for event in ctx.session.events if _is_visible(event, ctx.branch)]
    message_at = len(visible)
    if ctx.user_content is not None:
        for position in reversed(range(len(visible))):
            event = visible[position]
            if (
                event.author == USER
                and event.invocation_id == ctx.invocation_id
                and event.content == ctx.user_content
            ):
                message_at = position
                del visible[position]  # the run records it
                break
    return SessionCopy(
        SessionKey(ctx.app_name, ctx.user_id, ctx.session.id),
        [past_from_adk(event, author=tree.name, name=name) for event in visible],
        state_from_adk(ctx.session.state),
        message_at,
    )


def _is_visible(event: Any, branch: str | None) -> bool:
    """Whether ADK shows an event to agents on that branch."""
    if event.partial:
        return False
    return not branch or not event.branch or f"{branch}.".startswith(f"{event.branch}.")


class _Temporary:
    """The ``temp:`` keys of a run, which its events do not say."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._state = state
        self._known = self._now()

    def _now(self) -> dict[str, Any]:
        return {key: self._state[key] for key in self._state if key.startswith(TEMP_PREFIX)}

    def changed(self) -> dict[str, Any]:
        known, self._known = self._known, self._now()
        missing: Final = object()
        return {
            key: value for key, value in self._known.items() if known.get(key, missing) is not value
        }


def _is_in_loop(tree: Agent, event: Event) -> bool:
    """Whether a loop of the tree, around the agent that has emitted the event, heeds it."""
    above = event.path.split("/")[:-1]
    names = (segment.partition("~")[0].partition("@")[0] for segment in above)
    return any(isinstance(tree.find_agent(name), LoopAgent) for name in names)
