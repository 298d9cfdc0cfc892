"""An agent that asks a model, calls the tools it wants, and asks again until it is answered."""

# What tools return is `Any`, and pyright calls what `isinstance` makes of it "unknown".
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, Literal, TypeAlias, Unpack, final

import trio

from parallel_agent.agent import Agent, AgentOptions
from parallel_agent.context import InvocationContext, activation_of
from parallel_agent.errors import ModelOutputError, ModelProtocolError, TreeError, TurnLimitError
from parallel_agent.inputs import to_json
from parallel_agent.llm.contents import contents_of, input_content
from parallel_agent.llm.instruction import fill_in
from parallel_agent.llm.model import GenerationConfig, Model, ModelRequest, ModelResponse, ToolSpec
from parallel_agent.notes import describe
from parallel_agent.schema import Schema, SchemaError
from parallel_agent.tools.function_tool import as_tool
from parallel_agent.tools.tool import Tool
from session.content import Content, FunctionCall, FunctionResponse
from session.event import USER, Event

__all__ = ["Instruction", "LlmAgent"]

Instruction: TypeAlias = str | Callable[[InvocationContext], "str | Awaitable[str]"]
"""What a model is to be and do: a text with places to fill in, or a function that returns one as it
is to be sent."""

_REPAIR: Final = (
    "That does not fit what is asked for: {problem}. Answer again, with JSON that fits and nothing "
    "else."
)


@final
class LlmAgent(Agent):
    """Asks a model; calls the tools that it wants to have called; and asks again, until it answers.

    What the model says is streamed in partial events, and recorded whole. The calls of one turn run
    side by side, in a nursery of this agent's, and are answered together, in the order of the
    calls. Cancelling the agent cancels its call to the model, and its tools.

    Args:
        name: see `Agent`.
        model: what it asks.
        instruction: what the model is to be and do; see `parallel_agent.llm.instruction`.
        tools: functions and tools the model may have called.
        config: how the model is to answer.
        output_schema: a type its answer must fit, strictly; it is then the agent's output, as JSON.
        repairs: how often it is told that its answer does not fit, and asked again.
        include_contents: ``"default"`` sends what the agent may see; ``"none"`` only what it was
            given, and what it has said in this activation.
        max_events: of what it may see, only the newest so many; None is all.
        max_turns: how often the model is asked in one activation, repairs apart.
        on_tool_error: ``"tell"`` gives the model the error as the answer, ``"raise"`` fails the
            agent.
        options: the other arguments of `Agent`.

    Raises:
        TreeError: an argument is not what it must be.
        ToolDefinitionError: a tool is none.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        instruction: Instruction = "",
        *,
        tools: Sequence[Tool | Callable[..., Any]] = (),
        config: GenerationConfig = GenerationConfig(),  # noqa: B008  # a value, and frozen
        output_schema: Any = None,
        repairs: int = 1,
        include_contents: Literal["default", "none"] = "default",
        max_events: int | None = None,
        max_turns: int = 20,
        on_tool_error: Literal["tell", "raise"] = "tell",
        **options: Unpack[AgentOptions],
    ) -> None:
        """See the class."""
        if not isinstance(model, Model):
            message = f"model of {name!r} is a Model, not {model!r:.80}"
            raise TreeError(message)
        if not isinstance(instruction, str) and not callable(instruction):
            message = f"instruction of {name!r} is text, or a function, not {instruction!r:.80}"
            raise TreeError(message)
        super().__init__(name, **options)
        self._model = model
        self._instruction = instruction
        self._tools = {tool.name: tool for tool in map(as_tool, tools)}
        if len(self._tools) < len(tools):
            message = f"two tools of {name!r} have the same name; they are {', '.join(self._tools)}"
            raise TreeError(message)
        self._config = config
        self._output = None if output_schema is None else Schema[Any](output_schema)
        self._repairs = repairs
        self._include = include_contents
        self._max_events = max_events
        self._max_turns = max_turns
        self._on_tool_error = on_tool_error

    @property
    def model(self) -> Model:
        """What it asks."""
        return self._model

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What its model may have called."""
        return tuple(self._tools.values())

    @property
    def output_schema(self) -> Schema[Any] | None:
        """See `Agent.output_schema`; of one without a schema of its own, text."""
        return self._output

    async def run(self, ctx: InvocationContext) -> None:
        """Ask the model until it answers."""
        instruction = await self._instructed(ctx)
        asides: list[Content] = []
        turns = repairs = 0
        while turns < self._max_turns:
            response = await self._ask(ctx, self._request(ctx, instruction, asides))
            if response.calls:
                turns += 1
                await ctx.emit(_as_event(response))
                await self._answer(ctx, response.calls)
                continue
            problem, output = self._read(response)
            if problem is None:
                await ctx.emit(_as_event(response, output))
                return
            if repairs == self._repairs:
                message = f"the answer does not fit what agent {self.name!r} asks for: {problem}"
                raise ModelOutputError(message, model=self._model.name)
            repairs += 1
            asides = [response.content, Content(_REPAIR.format(problem=problem), role=USER)]
        message = (
            f"agent {self.name!r} has asked {self._model.name} {turns} times, and it still wants "
            "tools called; max_turns allows more"
        )
        raise TurnLimitError(message)

    # What it asks.

    async def _instructed(self, ctx: InvocationContext) -> str:
        instruction = self._instruction
        if isinstance(instruction, str):
            return await fill_in(instruction, ctx)
        text = instruction(ctx)
        return await text if inspect.isawaitable(text) else text

    def _request(
        self, ctx: InvocationContext, instruction: str, asides: Sequence[Content]
    ) -> ModelRequest:
        own = ctx.path
        seen = ctx.history()
        before = [event for event in seen if event.path != own]
        if self._include == "none":
            before = []
        elif self._max_events is not None:
            before = before[max(len(before) - self._max_events, 0) :]
        contents = list(contents_of(before, self.name))
        activation = activation_of(ctx)
        if activation.has_input:
            contents.append(input_content(activation.input))
        elif self._include == "none" and ctx.user_content is not None:
            contents.append(ctx.user_content)
        contents += contents_of([event for event in seen if event.path == own], self.name)
        return ModelRequest(
            contents=(*contents, *asides),
            instruction=instruction,
            tools=tuple(
                ToolSpec(tool.name, tool.description, tool.parameters)
                for tool in self._tools.values()
            ),
            output_schema=None if self._output is None else self._output.json_schema(),
            config=self._config,
        )

    async def _ask(self, ctx: InvocationContext, request: ModelRequest) -> ModelResponse:
        """Return the whole response; emit its pieces as they come."""
        async with aclosing(self._model.generate(request)) as responses:
            async for response in responses:
                if not response.partial:
                    return response
                await ctx.emit(Event(response.content, partial=True))
        message = "it ended without a whole answer"
        raise ModelProtocolError(message, model=self._model.name)

    # What is made of the answer.

    def _read(self, response: ModelResponse) -> tuple[str | None, Any]:
        """Return what is wrong with an answer, and the output if nothing is."""
        if self._output is None:
            return None, None
        text = response.content.text.strip()
        try:
            value = json.loads(text)
            self._output.structure(value)
        except json.JSONDecodeError as exc:
            return f"it is no JSON: {exc}", None
        except SchemaError as exc:
            return str(exc), None
        return None, value

    # Tools.

    async def _answer(self, ctx: InvocationContext, calls: Sequence[FunctionCall]) -> None:
        """Call what the model wants called, side by side; record the answers in its order."""
        answers: list[FunctionResponse | None] = [None] * len(calls)
        failures: list[Exception] = []

        async def answer(position: int, call: FunctionCall) -> None:
            try:
                answers[position] = await self._call(ctx, call)
            except Exception as exc:  # noqa: BLE001  # raised when all have been joined
                failures.append(exc)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for position, call in enumerate(calls):
                nursery.start_soon(answer, position, call)
        if failures:
            raise failures[0]
        await ctx.emit(Content(tuple(one for one in answers if one is not None), role=USER))

    async def _call(self, ctx: InvocationContext, call: FunctionCall) -> FunctionResponse:
        tool = self._tools.get(call.name)
        if tool is None:
            known = ", ".join(self._tools) or "none"
            return _response(call, {"error": f"there is no tool {call.name!r}; there are {known}"})
        try:
            result: Any = to_json(await tool.call(ctx, call.args))
        except SchemaError as exc:
            return _response(call, {"error": f"the arguments do not fit: {exc}"})
        except Exception as exc:
            if self._on_tool_error == "raise":
                raise
            kind, said = describe(exc)
            return _response(call, {"error": f"{kind}: {said}"})
        answer: Mapping[str, Any] = result if isinstance(result, dict) else {"result": result}
        return _response(call, answer)


def _response(call: FunctionCall, response: Mapping[str, Any]) -> FunctionResponse:
    return FunctionResponse(call.name, response, call.id)


def _as_event(response: ModelResponse, output: Any = None) -> Event:
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
    return Event(response.content, output=output, other=other)
