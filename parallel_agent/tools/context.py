"""What a tool is given: the context of the agent whose model calls it, for this one call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn, TypeVar, overload

import trio
from trio.lowlevel import checkpoint_if_cancelled

from parallel_agent.activation import Activation
from parallel_agent.context import InvocationContext
from parallel_agent.errors import BranchCancelledError
from parallel_agent.questions import NO_DEFAULT, request_input
from parallel_agent.stored_context import OnUnknown
from session.actions import EventActions
from session.content import FunctionCall

__all__ = ["ToolContext"]

T = TypeVar("T")


class ToolContext(InvocationContext):
    """The context of one call of a tool.

    All that the agent's own context can do, for a task beside which others of the same agent run.
    So what tells questions and effects of one activation apart is told by the call as well: two
    calls of a tool that does ``ctx.once("refund", ...)`` refund twice, and an answer to a question
    reaches the call that has asked it, whichever of them comes first when a run is resumed.
    """

    __slots__ = ("_actions", "_asked", "_call", "_effects", "_key", "_scope", "_started", "_waits")

    def __init__(self, activation: Activation, call: FunctionCall, key: str, effects: str) -> None:
        """Made by the runtime. ``effects`` names what it does outside; see `Wanted`."""
        super().__init__(activation)
        self._call: Final = call
        self._key: Final = key
        self._effects: Final = effects
        self._actions = EventActions()
        self._scope: Final = trio.CancelScope()
        self._asked = 0
        self._waits = False
        self._started: Final = Counter[str]()

    @property
    def call(self) -> FunctionCall:
        """The call: its ``id``, the tool's name, the arguments as the model has given them."""
        return self._call

    @property
    def actions(self) -> EventActions:
        """What the event that records the answer is to ask for; set what is wanted.

        ``escalate``, ``transfer_to_agent`` and ``skip_summarization`` end the agent's turn with
        it; with the last, what this tool returns is the agent's output. State is written through
        ``ctx.state``.
        """
        return self._actions

    @property
    def key(self) -> str:
        """Names the call in this activation, the same when the run is resumed: ``2-1``."""
        return self._key

    @property
    def branch_key(self) -> str:
        """Names the branches that the call starts, by what it is: see `once`."""
        _, what, number = self._effects.rsplit(":", 2)
        return f"{what[:6]}-{number}"

    @property
    def scope(self) -> trio.CancelScope:
        """What the call runs in: cancelled, it ends, and the calls beside it go on."""
        return self._scope

    @property
    def waits(self) -> bool:
        """Whether it was ended because it waits for a person, and the run is to be suspended."""
        return self._waits

    @overload
    async def once(
        self, key: str, fn: Callable[[], Awaitable[T]], *, on_unknown: OnUnknown = ...
    ) -> T: ...

    @overload
    async def once(self, key: str, fn: Callable[[], T], *, on_unknown: OnUnknown = ...) -> T: ...

    async def once(
        self, key: str, fn: Callable[[], Any], *, on_unknown: OnUnknown = "raise"
    ) -> Any:
        """See `InvocationContext.once`; ``key`` names the effect within this call.

        A call is known again by its tool, its arguments, and how often the agent has made it. So
        an agent that is tried again, and whose model wants the same again, gets the result.
        """
        named = f"{self._effects}/{key}" if isinstance(key, str) and key else key
        return await super().once(named, fn, on_unknown=on_unknown)

    async def request_input(
        self,
        prompt: str,
        *,
        schema: Any = None,
        timeout: float | None = None,
        default: Any = NO_DEFAULT,
    ) -> Any:
        """See `InvocationContext.request_input`.

        In a run that is to be suspended, this call ends as cancelled, those beside it go on to
        their ends, and then the agent ends as waiting. Resumed, the call is made again.
        """
        activation = self._running()
        self._note("message")
        self._asked += 1
        key = f"call-{self._key}.{self._asked}"
        suspended, answer = await request_input(
            activation, prompt, schema, timeout, default, key=key
        )
        if suspended:
            await self.suspend()
        return answer

    async def suspend(self) -> NoReturn:
        """End this call as waiting for a person, by the way of a cancellation."""
        self._waits = True
        self._scope.cancel("it waits for input, and the run is to be suspended")
        await checkpoint_if_cancelled()
        # A shield keeps the cancellation out; but there is no answer to go on with.
        message = f"tool {self._call.name!r} waits for input, and the run is to be suspended"
        raise BranchCancelledError(message)

    def _number(self, name: str) -> int | str:
        # Of this call: calls beside it start agents as well, in whatever order.
        self._started[name] += 1
        return f"{self.branch_key}-{self._started[name]}"

    def fail(self) -> None:
        """Take back what was set in `actions`: the tool has failed."""
        self._actions = EventActions()

    def __repr__(self) -> str:
        return f"<ToolContext {self.path} {self._call.name} {self._key}>"
