"""The calls of one turn: made side by side, answered in their order.

Each call runs in a task of its own, in a nursery of the agent's task: cancelled with it, at any
depth. A failure that the model is not told of cancels the other calls; all are joined, and then
it is raised, as itself.
"""

# What tools return is `Any`, and pyright calls what `isinstance` makes of it "unknown".
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, final

import attrs
import trio

from parallel_agent.context import InvocationContext, activation_of
from parallel_agent.errors import RunEndedError
from parallel_agent.inputs import to_json
from parallel_agent.llm.callbacks import Callbacks
from parallel_agent.model_errors import ToolArgumentsError
from parallel_agent.notes import describe, note_mix_up
from parallel_agent.tools.context import ToolContext
from parallel_agent.tools.tool import Tool
from session.actions import EventActions
from session.content import FunctionCall, FunctionResponse

__all__ = ["Caller", "OnToolError", "Turn", "Wanted"]

OnToolError: TypeAlias = Literal["tell", "raise"]
"""What becomes of a tool's error: the model is told, or the agent fails with it."""

_LOG: Final = logging.getLogger("parallel_agent.llm")

_REFUSED: Final = "a person has refused this call"


@attrs.frozen
class Wanted:
    """A call that is to be made.

    Attributes:
        call: the call.
        key: names it in the activation, by its place; the same when a run is resumed.
        effects: names what it does outside: by what is called, with which arguments, and how
            often that was called before. The same, too, when the agent is tried again, and its
            model wants the same.
    """

    call: FunctionCall
    key: str
    effects: str


@attrs.frozen
class Turn:
    """What the calls of one turn have come to.

    Attributes:
        answers: in the order of the calls; of those that wait for a person, none.
        actions: what the tools ask for.
        output: what the agent's output is, if a tool says that it is its own answer.
        waits: calls wait for a person, and the run is to be suspended.
        ends: the agent is not to ask its model again.
    """

    answers: tuple[FunctionResponse, ...]
    actions: EventActions
    output: Any
    waits: bool
    ends: bool


@final
@attrs.frozen(eq=False)
class Caller:
    """Makes the calls that the model of one activation wants."""

    ctx: InvocationContext
    tools: Mapping[str, Tool]
    callbacks: Callbacks
    on_error: OnToolError

    async def make(self, calls: Sequence[Wanted]) -> Turn:
        """Make ``calls``."""
        activation = activation_of(self.ctx)
        contexts = [ToolContext(activation, one.call, one.key, one.effects) for one in calls]
        answers: list[FunctionResponse | None] = [None] * len(calls)
        failures: list[BaseException] = []

        async def answer(position: int, ctx: ToolContext) -> None:
            try:
                with ctx.scope:
                    answers[position] = await self._answer(ctx)
            except trio.Cancelled:
                raise
            except BaseException as exc:  # noqa: BLE001  # raised when all have been joined
                failures.append(exc)
                nursery.cancel_scope.cancel("another tool has failed")

        async with trio.open_nursery() as nursery:
            for position, ctx in enumerate(contexts):
                nursery.start_soon(answer, position, ctx)
        if failures:
            raise failures[0]
        return self._turn(contexts, answers)

    def _turn(
        self, contexts: Sequence[ToolContext], answers: Sequence[FunctionResponse | None]
    ) -> Turn:
        merged, output = EventActions(), None
        waits = any(ctx.waits for ctx in contexts)
        for position, (ctx, answer) in enumerate(zip(contexts, answers, strict=True)):
            actions = ctx.actions
            asks_for = actions.escalate or actions.skip_summarization or actions.transfer_to_agent
            if waits and asks_for:
                # For the end of the turn, which is not yet: it is called again then.
                answers = [*answers[:position], None, *answers[position + 1 :]]
            if waits or answer is None:
                continue
            merged.escalate = merged.escalate or actions.escalate
            if actions.skip_summarization and not merged.skip_summarization:
                merged.skip_summarization, output = True, _plain(answer)
            target = merged.transfer_to_agent
            if target is None:
                merged.transfer_to_agent = actions.transfer_to_agent
            elif actions.transfer_to_agent not in (None, target):
                refused = {"error": f"only one agent can go on, and {target} does"}
                answers = [*answers[:position], _response(ctx, refused), *answers[position + 1 :]]
        asked_to = merged.escalate or merged.skip_summarization
        return Turn(
            answers=tuple(answer for answer in answers if answer is not None),
            actions=merged,
            output=output,
            waits=waits,
            ends=asked_to or merged.transfer_to_agent is not None,
        )

    async def _answer(self, ctx: ToolContext) -> FunctionResponse:
        tool = self.tools.get(ctx.call.name)
        if tool is None:
            known = ", ".join(self.tools) or "none"
            missing = f"there is no tool {ctx.call.name!r}; there are {known}"
            return _response(ctx, {"error": missing})
        made = await self.callbacks.ask_before_tool(ctx)
        if isinstance(made, FunctionCall):
            made = await self._call(tool, ctx, made.args)
        answer = await self.callbacks.ask_after_tool(ctx, made)
        return _response(ctx, answer)

    async def _call(
        self, tool: Tool, ctx: ToolContext, arguments: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        try:
            wants_approval = tool.wants_approval(arguments)
        except Exception as exc:  # noqa: BLE001  # told, or raised
            return self._told(exc)
        # Not a failure of the tool's if nobody can be asked.
        if wants_approval and not await self._may(tool, ctx, arguments):
            return {"error": _REFUSED}
        try:
            result = to_json(await tool.call(ctx, arguments))
        except RunEndedError:
            raise
        except ToolArgumentsError as exc:
            return {"error": str(exc)}
        except Exception as exc:  # noqa: BLE001  # as above
            return self._told(exc)
        return result if isinstance(result, dict) else {"result": result}

    async def _may(self, tool: Tool, ctx: ToolContext, arguments: Mapping[str, Any]) -> bool:
        given = json.dumps(to_json(arguments), ensure_ascii=False)
        question = f"May {ctx.agent.name} call {tool.name} with {given}?"
        answer: bool = await ctx.request_input(question, schema=bool)
        return answer

    def _told(self, error: Exception) -> Mapping[str, Any]:
        """Return what the model is told of an error; called while it is handled."""
        if self.on_error == "raise":
            raise error
        note_mix_up(error)  # of trio and asyncio: a tool's author sees the log, and no failure
        _LOG.warning(
            "tool of agent %s has failed; its model is told", self.ctx.agent.name, exc_info=error
        )
        kind, said = describe(error)
        return {"error": f"{kind}: {said}"}


def _response(ctx: ToolContext, answer: Mapping[str, Any]) -> FunctionResponse:
    return FunctionResponse(ctx.call.name, answer, ctx.call.id)


def _plain(answer: FunctionResponse) -> Any:
    response = answer.response
    return response["result"] if list(response) == ["result"] else response
