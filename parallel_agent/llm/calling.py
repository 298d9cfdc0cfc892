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
from parallel_agent.errors import RunEndedError, is_about_effect
from parallel_agent.inputs import to_json
from parallel_agent.llm.callbacks import Callbacks
from parallel_agent.model_errors import ToolArgumentsError
from parallel_agent.notes import describe, note_mix_up, note_other
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
    """

    answers: tuple[FunctionResponse, ...]
    actions: EventActions
    output: Any
    waits: bool


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
        failures: dict[int, BaseException] = {}

        async def answer(position: int, ctx: ToolContext) -> None:
            try:
                with ctx.scope:
                    answers[position] = await self._answer(ctx)
            except trio.Cancelled:
                raise
            except BaseException as exc:  # noqa: BLE001  # raised when all have been joined
                if ctx.waits and isinstance(exc, RunEndedError):
                    return  # a shield has kept its cancellation out
                failures[position] = exc
                nursery.cancel_scope.cancel("another tool has failed")

        async with trio.open_nursery() as nursery:
            for position, ctx in enumerate(contexts):
                nursery.start_soon(answer, position, ctx)
        if failures:
            first = min(failures)
            for position in sorted(failures.keys() - {first}):
                where = f"{self.ctx.path} calling {calls[position].call.name}"
                note_other(failures[first], where, failures[position])
            raise failures[first]
        for position, ctx in enumerate(contexts):
            if answers[position] is None and not ctx.waits:
                # Somebody has cancelled its scope; unanswered, it would be made again and again.
                answers[position] = _response(ctx, {"error": "the call was cancelled"})
        return self._turn(contexts, answers)

    def _turn(
        self, contexts: Sequence[ToolContext], answers: Sequence[FunctionResponse | None]
    ) -> Turn:
        actions, output = EventActions(), None
        for position, (ctx, answer) in enumerate(zip(contexts, answers, strict=True)):
            if answer is None:
                continue
            asked = ctx.actions
            actions.escalate = actions.escalate or asked.escalate
            if asked.skip_summarization and not actions.skip_summarization:
                actions.skip_summarization, output = True, _plain(answer)
            target = actions.transfer_to_agent
            if target is None:
                actions.transfer_to_agent = asked.transfer_to_agent
            elif asked.transfer_to_agent not in (None, target):
                refused = {"error": f"only one agent can go on, and {target} does"}
                answers = [*answers[:position], _response(ctx, refused), *answers[position + 1 :]]
        return Turn(
            answers=tuple(answer for answer in answers if answer is not None),
            actions=actions,
            output=output,
            waits=any(ctx.waits for ctx in contexts),
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
            return self._told(ctx, exc)
        # Not a failure of the tool's if nobody can be asked.
        if wants_approval and not await self._may(tool, ctx, arguments):
            return {"error": _REFUSED}
        try:
            result = to_json(await tool.call(ctx, arguments))
        except RunEndedError:
            raise
        except ToolArgumentsError as exc:
            ctx.fail()
            return {"error": str(exc)}
        except Exception as exc:  # noqa: BLE001  # as above
            return self._told(ctx, exc)
        return result if isinstance(result, dict) else {"result": result}

    async def _may(self, tool: Tool, ctx: ToolContext, arguments: Mapping[str, Any]) -> bool:
        given = json.dumps(to_json(arguments), ensure_ascii=False)
        question = f"May {ctx.agent.name} call {tool.name} with {given}?"
        answer: bool = await ctx.request_input(question, schema=bool)
        return answer

    def _told(self, ctx: ToolContext, error: Exception) -> Mapping[str, Any]:
        """Return what the model is told of an error; called while it is handled."""
        # Whoever knows that nobody knows whether something has happened must not do it again.
        if self.on_error == "raise" or is_about_effect(error):
            raise error
        ctx.fail()
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
