"""Plugins: what an application adds to every run of a runner, without touching the tree.

A plugin is an object with hooks. The runner's plugins are asked in the order they were given, and
before the callbacks of the agent itself. Hooks named after Google ADK's do what ADK's do.

Order: a hook runs in the task of the agent it is about, so a slow one delays that branch and no
other; those about the message and the end of a run run in the task that opens and leaves its
block. Cancellation: what cancels that task cancels the hook. Errors: an exception of a hook
becomes a `PluginError` that names plugin and hook, and is then a failure of the agent (or, for the
message and the end of the run, of the block) like any other. KeyboardInterrupt and SystemExit stay
what they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from parallel_agent.barrier import Outcome
from parallel_agent.context import InvocationContext
from session.content import Content
from session.event import Event

if TYPE_CHECKING:
    # For annotations only: runs, and agents that ask models, ask their plugins: they stand above.
    from parallel_agent.llm.model import ModelRequest, ModelResponse
    from parallel_agent.result import Result
    from parallel_agent.tools.context import ToolContext
    from session.content import FunctionCall

__all__ = ["DROP_EVENT", "DropEvent", "Plugin"]


class _Drop(Enum):
    DROP_EVENT = "drop the event"

    def __repr__(self) -> str:
        return self.name


DROP_EVENT: Final = _Drop.DROP_EVENT
"""What `Plugin.on_event_callback` returns for an event that is not to be recorded."""

DropEvent: TypeAlias = Literal[_Drop.DROP_EVENT]
"""The type of `DROP_EVENT`, for annotations."""


class Plugin:
    """Hooks into the runs of a runner. Subclass it, override what is needed.

    ::

        class Clock(Plugin):
            async def after_run_callback(self, ctx, result):
                print(ctx.invocation_id, result.status)

        Runner(tree, plugins=[Clock()])

    One object serves all runs of its runner, also those at the same time: ``ctx.invocation_id``
    and ``ctx.path`` tell them and their agents apart. Hooks are ``async def``, but for
    `on_agent_end`; one that is not overridden costs nothing.

    Args:
        name: names it in errors; by default the name of its class.
    """

    def __init__(self, name: str | None = None) -> None:
        """See the class."""
        self._name = name

    @property
    def name(self) -> str:
        """Names it in errors; unique in its runner."""
        # By class if a subclass has not called __init__: nothing else here needs it.
        return getattr(self, "_name", None) or type(self).__name__

    async def on_user_message_callback(
        self, ctx: InvocationContext, content: Content
    ) -> Content | str | None:
        """Look at the user's message before it is recorded; return another to replace it.

        Each plugin sees what those before it made of the message. ``ctx`` is the root agent's,
        which has not started: it can read, not emit. Not called for a run without a message.
        """

    async def before_run_callback(self, ctx: InvocationContext) -> Content | Event | str | None:
        """Look at a run that begins; return something to emit it *instead of* running the tree.

        The first that returns something decides. ``ctx`` is the root agent's.
        """

    async def after_run_callback(self, ctx: InvocationContext, result: Result) -> None:
        """Look at a run that has ended, however it did.

        Called when the block is left and everything of the run has ended; for every plugin, even
        if one of them raises. If the block itself is being cancelled, so is this, at its first
        ``await``, as in a ``finally``. Not called if the block could not be entered.
        """

    async def on_event_callback(
        self, ctx: InvocationContext, event: Event
    ) -> Event | DropEvent | None:
        """Look at an event before it is recorded and delivered; partial ones, too.

        The event may be changed in place, or replaced by returning another; `DROP_EVENT` drops
        it, with the state writes it carries. Each plugin sees what those before it made of it.

        The event says already who emits it, and shows the writes made through ``ctx.state`` in
        its ``state_delta`` (but not contributions to keys with a reducer). What is taken out of
        there is not written; a replacement writes what its own ``state_delta`` says.

        An agent's events are looked at one after the other, in the order of its calls. Must not
        emit. An event without text is not for nothing: it may record state, outcomes of
        branches, or an output. What comes into the run, messages and answers, does not pass
        here. If a question (``event.request``) is dropped, its agent gets its default or a
        `RequestError`: nobody could answer.
        """

    async def before_agent_callback(self, ctx: InvocationContext) -> Content | Event | str | None:
        """Look at an agent that starts; return something to emit it *instead of* running it.

        The first that returns something decides; its own callbacks are then not called.
        """

    async def after_agent_callback(self, ctx: InvocationContext) -> Content | Event | str | None:
        """Look at an agent that has done its work; return something to emit it as well.

        The first that returns something decides; its own callbacks are then not called.
        """

    async def on_agent_error_callback(
        self, ctx: InvocationContext, error: Exception
    ) -> Content | Event | str | None:
        """Look at an agent that fails; return something to emit it *instead of* failing.

        The first that returns something decides, and the agent has completed. If none does, the
        error goes on to the agent above, for which this is called again. Not called for
        cancellations.
        """

    async def before_model_callback(
        self, ctx: InvocationContext, request: ModelRequest
    ) -> ModelRequest | ModelResponse | None:
        """Look at what a model is about to be asked.

        A request that is returned is sent instead, and the next plugin sees that one; a response
        is taken as the answer: the model is not asked, and nobody else is.
        """

    async def after_model_callback(
        self, ctx: InvocationContext, response: ModelResponse
    ) -> ModelResponse | None:
        """Look at a whole response of a model, before it is recorded; return another instead.

        Partial ones have been shown by then.
        """

    async def before_tool_callback(
        self, ctx: ToolContext
    ) -> FunctionCall | Mapping[str, Any] | None:
        """Look at a call that a model wants to have made: ``ctx.call``, by ``ctx.agent``.

        A call of the same tool that is returned is made instead; a mapping is taken as its
        answer: the tool is not called, and nobody else is asked.
        """

    async def after_tool_callback(
        self, ctx: ToolContext, response: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """Look at the answer of a tool, an error too; return another instead."""

    def on_agent_end(self, ctx: InvocationContext, outcome: Outcome) -> None:
        """Look at how an agent ended, waiting for input too; once for each that started.

        A plain function: it must not block. Called for every plugin, even if one of them raises,
        which makes the agent fail.
        """

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"
