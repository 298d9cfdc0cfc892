"""One activation's talk with a model: turns of calls, until it answers.

What was said is in the log, and is all that a resumed activation needs to go on: a turn is noted
with a checkpoint when the model has spoken, and when the tools have.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from hashlib import sha256
from typing import Any, Final, final

import attrs

from parallel_agent.context import InvocationContext, activation_of
from parallel_agent.llm.calling import Caller
from parallel_agent.llm.contents import contents_of
from parallel_agent.llm.model import (
    GenerationConfig,
    Model,
    ModelRequest,
    ModelResponse,
    ToolSpec,
)
from parallel_agent.llm.output import Output
from parallel_agent.model_errors import CallLimitError, ModelOutputError, ModelProtocolError
from session.actions import EventActions
from session.content import Content, FunctionCall, Part
from session.event import USER, Event

__all__ = ["Conversation", "is_of"]

_REPAIR: Final = (
    "That does not fit what is asked for: {problem}. Answer again, with JSON that fits and nothing "
    "else."
)


@final
@attrs.define(eq=False, kw_only=True)
class Conversation:
    """What an activation asks its model, and how it goes on.

    Attributes:
        ctx: the activation's.
        model: what is asked.
        instruction: what it is to be and do.
        before: what was said before.
        caller: what makes the calls it wants.
        config: how it is to answer.
        output: what its answer must be.
        repairs: how often it is told that it is not.
        max_turns: how often it may want tools.
        answers_at_last: when it has, it is asked once more, and offered none.
        reads_messages: it is told what is said to its branch meanwhile.
    """

    ctx: InvocationContext
    model: Model
    instruction: str
    before: Sequence[Content]
    caller: Caller
    config: GenerationConfig
    output: Output | None
    repairs: int
    max_turns: int
    answers_at_last: bool = False
    reads_messages: bool = True
    # What this activation has said and was answered, as recorded; nothing that a tool has emitted.
    _own: list[Event] = attrs.field(factory=list[Event], init=False)

    async def run(self) -> Any:
        """Talk until the model answers, or hands over; return the output if it is structured."""
        ctx = self.ctx
        if ctx.restored is not None:
            # What else is of this activation, a tool has emitted, or asked a person.
            said = [event for event in ctx.history() if is_of(event, ctx) and not event.request]
            self._own = [one for one in said if one.function_calls or one.function_responses]
        while True:
            waiting = self._unanswered()
            if waiting:
                if await self._answer(waiting):
                    return None
                continue
            await self._listen()
            response, output = await self._ask()
            if response.calls:
                await self._note(self._calling(response))
                continue
            self._own.append(await ctx.emit(as_event(response, output)))
            if not await self._listen():
                return output

    async def _listen(self) -> bool:
        """Take in what was said to the branch meanwhile; return whether something was."""
        inbox = activation_of(self.ctx).lane.inbox if self.reads_messages else None
        heard = False
        while inbox is not None and inbox.has_message():
            self._own.append(await self.ctx.receive())
            heard = True
        return heard

    # The model.

    async def _ask(self) -> tuple[ModelResponse, Any]:
        """Return a response that wants tools, or is an answer that fits, and its output."""
        asides: list[Content] = []
        repairs = 0
        while True:
            response = await self._response(self._request(asides))
            if response.calls:
                turns = self._turns()
                if turns == self.max_turns:
                    message = (
                        f"agent {self.ctx.agent.name!r} has called the tools that "
                        f"{self.model.name} wants {turns} times, and it still wants more; "
                        "max_turns allows more"
                    )
                    raise CallLimitError(message)
                return response, None
            if self.output is None:
                return response, None
            name = self.ctx.agent.name
            if response.refusal is not None:
                message = f"it refuses to answer agent {name!r}: {response.refusal}"
                raise ModelOutputError(message, model=self.model.name)
            problem, value = self.output.read(response.content.text)
            if problem is None:
                return response, value
            if repairs == self.repairs:
                message = f"the answer does not fit what agent {name!r} asks for: {problem}"
                raise ModelOutputError(message, model=self.model.name)
            repairs += 1
            asides += [response.content, Content(_REPAIR.format(problem=problem), role=USER)]

    def _request(self, asides: Sequence[Content]) -> ModelRequest:
        own = contents_of(self._own, self.ctx.agent.name)
        tools = tuple(self.caller.tools.values())
        if self.answers_at_last and self._turns() == self.max_turns:
            tools = ()
        return ModelRequest(
            contents=(*self.before, *own, *asides),
            instruction=self.instruction,
            tools=tuple(ToolSpec(tool.name, tool.description, tool.parameters) for tool in tools),
            output_schema=None if self.output is None else self.output.json_schema,
            config=self.config,
        )

    async def _response(self, request: ModelRequest) -> ModelResponse:
        callbacks = self.caller.callbacks
        asked = await callbacks.ask_before_model(self.ctx, request)
        if isinstance(asked, ModelRequest):
            self._count()
            asked = await self._streamed(asked)
        return await callbacks.ask_after_model(self.ctx, asked)

    def _count(self) -> None:
        invocation = activation_of(self.ctx).invocation
        most = invocation.config.max_llm_calls
        if invocation.llm_calls == most:
            message = (
                f"agent {self.ctx.agent.name!r} was to ask {self.model.name}, and models have been "
                f"asked {most} times in this run; RunConfig(max_llm_calls=...) allows more"
            )
            raise CallLimitError(message)
        invocation.llm_calls += 1

    async def _streamed(self, request: ModelRequest) -> ModelResponse:
        """Return the whole response; emit its pieces as they come."""
        emit = self.ctx.emit
        async with aclosing(self.model.generate(request)) as responses:
            async for response in responses:
                if not response.partial:
                    return response
                await emit(Event(response.content, partial=True))
        message = "it ended without a whole answer"
        raise ModelProtocolError(message, model=self.model.name)

    # Its calls.

    def _calling(self, response: ModelResponse) -> Event:
        """Return the event of a response that wants tools; each call has an id of its own."""
        turn = 1 + self._turns()
        known = {call.id for event in self._own for call in event.function_calls}
        parts: list[Part] = []
        for part in response.content.parts:
            if isinstance(part, FunctionCall):
                if not part.id or part.id in known:
                    where = f"{self.ctx.invocation_id}:{self.ctx.path}:{turn}:{len(parts)}"
                    part = attrs.evolve(part, id=f"call_{sha256(where.encode()).hexdigest()[:24]}")  # noqa: PLW2901  # the same, with a name
                known.add(part.id)
            parts.append(part)
        content = attrs.evolve(response.content, parts=tuple(parts))
        tools = self.caller.tools
        later = [
            part.id
            for part in parts
            if isinstance(part, FunctionCall) and part.id and part.name in tools
            if tools[part.name].is_long_running
        ]
        return as_event(attrs.evolve(response, content=content), later=later)

    def _turns(self) -> int:
        """Return how often the model has wanted tools."""
        return sum(bool(event.function_calls) for event in self._own)

    def _unanswered(self) -> list[tuple[str, FunctionCall]]:
        """Return the calls of the last turn that have no answer, with the keys that name them."""
        answered = {one.id for event in self._own for one in event.function_responses}
        turns = [event.function_calls for event in self._own if event.function_calls]
        return [
            (f"{len(turns)}-{position}", call)
            for position, call in enumerate(turns[-1] if turns else (), 1)
            if call.id not in answered
        ]

    async def _answer(self, calls: Sequence[tuple[str, FunctionCall]]) -> bool:
        """Make the calls; record the answers; return whether that is the end of it."""
        turn = await self.caller.make(calls)
        if turn.answers:
            content = Content(turn.answers, role=USER)
            event = Event(content, output=turn.output, actions=turn.actions)
            await self._note(event, ends=turn.ends)
        if turn.waits:
            activation = activation_of(self.ctx)
            await activation.invocation.engine.suspend(activation)
        return turn.ends or self._has_begun()

    def _has_begun(self) -> bool:
        """Return whether a call of this turn has begun what comes to its end later."""
        *_, calling = (event for event in self._own if event.function_calls)
        return any(
            one.id in calling.long_running_tool_ids and "error" not in one.response
            for event in self._own
            for one in event.function_responses
        )

    async def _note(self, event: Event, *, ends: bool = False) -> None:
        event = await self.ctx.emit(event)
        self._own.append(event)
        if not ends:
            await self.ctx.checkpoint({"turns": len(self._own)})


def is_of(event: Event, ctx: InvocationContext, *, or_below: bool = False) -> bool:
    """Return whether an event was recorded by the activation of ``ctx``, or by one below it."""
    if event.invocation_id != ctx.invocation_id:
        return False
    if event.path == ctx.path:
        return or_below or event.author != USER
    return or_below and event.path.startswith(f"{ctx.path}/")


def as_event(response: ModelResponse, output: Any = None, *, later: Sequence[str] = ()) -> Event:
    """Return the event that records a response, with what it has cost."""
    other: dict[str, Any] = {}
    if response.finish_reason is not None:
        other["finishReason"] = response.finish_reason
    if response.model:
        other["modelVersion"] = response.model
    usage = response.usage
    if usage is not None:
        other["usageMetadata"] = {
            "promptTokenCount": usage.input_tokens,
            "candidatesTokenCount": usage.output_tokens,
            "cachedContentTokenCount": usage.cached_tokens,
            "thoughtsTokenCount": usage.reasoning_tokens,
        }
    return Event(
        response.content,
        output=output,
        other=other,
        long_running_tool_ids=tuple(later),
        actions=EventActions(),
    )
