"""`AdkAgent`: an agent of Google ADK as a leaf of a tree.

It runs in asyncio, by `from_asyncio_iter`, and makes its next event when the reader has come back
for one: as in ADK's own runner, what it said and wrote is recorded by then.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Unpack, final

from parallel_agent.adk.events import content_to_adk, from_adk
from parallel_agent.adk.library import (
    AdkEvent,
    AdkInvocationContext,
    AdkLoopAgent,
    AdkRunConfig,
    BaseAgent,
)
from parallel_agent.adk.services import ArtifactsForAdk, MemoryForAdk, SessionsForAdk
from parallel_agent.adk.view import View
from parallel_agent.agent import Agent, AgentOptions
from parallel_agent.aio.bridge import from_trio
from parallel_agent.aio.items import from_asyncio_iter
from parallel_agent.context import InvocationContext, activation_of
from parallel_agent.errors import TreeError
from session.content import Content, Text
from session.event import USER, Event
from session.state import thaw

__all__ = ["AdkAgent"]


@final
class AdkAgent(Agent):
    """An agent of Google ADK as a leaf of a tree: an ``LlmAgent``, a workflow, one of your own.

    ::

        tree = SequentialAgent("pipeline", [collect, AdkAgent(writer), publish])

    It runs in the application's asyncio loop, on its thread; under plain trio, and in the sync
    host, in a loop in a thread of its own.

    * It sees the session: the state as of its own last event; the events that this branch may see
      (`InvocationContext.history`), and messages sent to the branch; the user's message; artifacts
      and memory. An input (of ``ctx.map``, say) takes the place of the user's message.
    * Its events are emitted one by one, and it goes on when the reader has come back. They are this
      agent's, on its branch; the name and branch that ADK gives agents below it are in
      ``event.custom_metadata["google_adk"]``, if they differ.
    * Its state deltas are those of its events: what it writes to a key with a reducer is its
      contribution, and a conflict is one.
    * An escalation is heeded by the loops around it, unless a loop of ADK's has. Handing over to an
      agent that ADK knows is ADK's doing; to any other, this tree's, and ends the ADK agent.
    * Cancelled, it is cancelled in asyncio, and has cleaned up when this has ended. What it raises
      is raised as itself.

    Args:
        agent: it: anything that is a ``google.adk.agents.BaseAgent``.
        name: by default its own.
        run_config: ADK's ``RunConfig``: whether models stream, how often they may be called.
        **options: those of `Agent`; the description is by default its own.

    Raises:
        TreeError: ``agent`` is no ADK agent, or ``run_config`` none of ADK's.
    """

    def __init__(
        self,
        agent: Any,
        *,
        name: str | None = None,
        run_config: Any = None,
        **options: Unpack[AgentOptions],
    ) -> None:
        """See the class."""
        _check(agent, BaseAgent, "AdkAgent takes an agent of google-adk")
        if run_config is not None:
            _check(run_config, AdkRunConfig, "run_config is a RunConfig of google-adk")
        options.setdefault("description", agent.description)
        super().__init__(agent.name if name is None else name, **options)
        self._adk_agent = agent
        self._run_config = run_config

    @property
    def adk_agent(self) -> Any:
        """The agent of ADK's."""
        return self._adk_agent

    async def run(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
        """Run it, and emit its events."""
        call = _Call(ctx, self._adk_agent, self._run_config or AdkRunConfig())
        async with from_asyncio_iter(call.events) as events:
            async for event in events:
                yield event
                call.view.look()


def _check(value: object, kind: Any, what: str) -> None:
    if not isinstance(value, kind):
        hint = "; make an object of it: call it" if isinstance(value, type) else ""
        if isinstance(value, Agent):
            hint = ", which can stand in a tree as it is"
        message = f"{what}, not {value!r:.80}{hint}"
        raise TreeError(message)


@final
class _Call:
    """One run of an ADK agent. Made on trio's side; `events` is the loop's."""

    def __init__(self, ctx: InvocationContext, adk_agent: Any, run_config: Any) -> None:
        self.view = View(ctx, adk_agent.name)
        self._ctx = ctx
        self._adk_agent = adk_agent
        self._run_config = run_config
        self._input = _input_of(ctx)

    async def events(self) -> AsyncGenerator[Event, None]:
        """Run the agent; yield its events as ours."""
        session = self.view.open()
        sessions = SessionsForAdk(session, self._record)
        context = self._context(session, sessions)
        async with aclosing(self._adk_agent.run_async(context)) as adk_events:
            async for adk_event in adk_events:
                event = self._ours(adk_event)
                yield event
                if adk_event.partial:
                    continue
                await sessions.take(session, adk_event)
                self.view.catch_up()
                if event.transfer_to_agent is not None:
                    return

    def _context(self, session: Any, sessions: Any) -> Any:
        ctx = self._ctx
        invocation = activation_of(ctx).invocation
        message = content_to_adk(self._input or ctx.user_content)
        if self._input is not None:
            # Models are shown the session's events, and not the message itself.
            session.events.append(
                AdkEvent(
                    author=USER,
                    invocation_id=ctx.invocation_id,
                    branch=ctx.branch,
                    content=message,
                )
            )
        return AdkInvocationContext(
            artifact_service=ArtifactsForAdk(invocation.artifacts, ctx.session_key.session_id),
            session_service=sessions,
            memory_service=MemoryForAdk(invocation.memory, invocation.stream.session),
            invocation_id=ctx.invocation_id,
            branch=ctx.branch,
            agent=self._adk_agent,
            user_content=message,
            session=session,
            run_config=self._run_config,
        )

    def _ours(self, adk_event: Any) -> Event:
        target = adk_event.actions.transfer_to_agent
        return from_adk(
            adk_event,
            author=self._ctx.agent.name,
            branch=self.view.branch,
            keeps_transfer=target and self._adk_agent.root_agent.find_agent(target) is None,
            keeps_escalate=not self._is_in_loop(adk_event.author),
        )

    def _is_in_loop(self, author: str) -> bool:
        """Whether a loop of ADK's around that agent, in this one, heeds what it escalates."""
        top = self._adk_agent
        agent = top.find_agent(author)
        while agent is not None and agent is not top:
            agent = agent.parent_agent
            if isinstance(agent, AdkLoopAgent):
                return True
        return False

    async def _record(self, adk_event: Any) -> None:
        """Record what ADK's own code appends to the session."""
        await from_trio(self._emit, self._ours(adk_event))
        self.view.catch_up()

    async def _emit(self, event: Event) -> None:
        await self._ctx.emit(event)
        self.view.look()


def _input_of(ctx: InvocationContext) -> Content | None:
    if not activation_of(ctx).has_input:
        return None
    given = ctx.input
    text = given if isinstance(given, str) else json.dumps(thaw(given), ensure_ascii=False)
    return Content(Text(text), role=USER)
