"""Controllers: nodes whose model says, turn by turn, which agent is to work on what.

The model is asked for JSON that names an agent and what it is to do. That becomes a call of a tool
that is the agent, so that all there is for tools holds here as well: what was recorded is not done
again when a run is resumed. The model itself is told nothing of tools: it sees its own replies, and
what the agents have said.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, cast, final

import attrs

from parallel_agent.agent import Agent
from parallel_agent.config.sharing import PIPE
from parallel_agent.context import InvocationContext
from parallel_agent.function_agent import FunctionAgent
from parallel_agent.llm.model import Model, ModelRequest, ModelResponse
from parallel_agent.llm.output import Output
from parallel_agent.model_errors import CallLimitError, ModelOutputError, ModelProtocolError
from parallel_agent.tools.agent_tool import AgentTool
from parallel_agent.tools.context import ToolContext
from session.content import Content, FunctionCall, FunctionResponse, Part, Text
from session.event import USER

__all__ = ["MAX_ITERATIONS", "REACT_OUTPUT", "Reacting", "Routed", "collector"]

MAX_ITERATIONS: Final = 10
"""How often a controller may have agents work if it does not say."""

REACT_OUTPUT: Final[Mapping[str, Any]] = {
    "properties": {
        "next_agent": {"type": "string", "description": "the agent that is to work next"},
        "agent_input": {"type": "string", "description": "what it is to do"},
        "done": {"type": "boolean", "description": "whether the task is done"},
        "final_answer": {"type": "string", "description": "the answer, when it is done"},
        "reasoning": {"type": "string"},
    },
    "required": ["done"],
}
"""What a controller answers if its node does not say."""


@attrs.frozen(eq=False)
class Reacting:
    """What makes a node a controller.

    Attributes:
        agents: what it may have work, by their ids.
        most: how often.
    """

    agents: Mapping[str, AgentTool]
    most: int


@final
class Routed(Model):
    """A model whose replies say which agent is to work next; each becomes a call of that agent.

    A reply that does not fit is sent back once. Pieces are not passed on: they are no text.

    Args:
        model: what is asked.
        output: what its replies must be.
        whose: the controller, for errors.
        most: how often agents may work.
    """

    def __init__(self, model: Model, output: Output, whose: str, most: int) -> None:
        """See the class."""
        self._model = model
        self._output = output
        self._whose = whose
        self._most = most

    @property
    def name(self) -> str:
        """See `Model.name`."""
        return self._model.name

    async def generate(self, request: ModelRequest) -> AsyncGenerator[ModelResponse, None]:
        """See `Model.generate`.

        Raises:
            CallLimitError: agents have worked as often as they may, and it is not done.
            ModelOutputError: its replies do not fit.
        """
        contents = [_as_told(content) for content in request.contents]
        told = attrs.evolve(
            request,
            contents=tuple(contents),
            tools=(),
            output_schema=self._output.json_schema,
        )
        response = await self._whole(told)
        problem, reply = self._output.read(response.content.text)
        if problem is not None:
            again = f"That does not fit what is asked for: {problem}. Answer again, with JSON."
            contents += [response.content, Content(again, role=USER)]
            response = await self._whole(attrs.evolve(told, contents=tuple(contents)))
            problem, reply = self._output.read(response.content.text)
        if problem is None and not isinstance(reply, Mapping):
            problem = "an object is needed"
        if problem is not None:
            message = f"the reply does not fit what agent {self._whose!r} asks for: {problem}"
            raise ModelOutputError(message, model=self.name)
        yield self._routed(response, cast("Mapping[str, Any]", reply), is_last=not request.tools)

    async def _whole(self, request: ModelRequest) -> ModelResponse:
        async with aclosing(self._model.generate(request)) as responses:
            async for response in responses:
                if not response.partial:
                    return response
        message = "it ended without a whole answer"
        raise ModelProtocolError(message, model=self.name)

    def _routed(
        self, response: ModelResponse, reply: Mapping[str, Any], *, is_last: bool
    ) -> ModelResponse:
        agent = str(reply.get("next_agent") or "").strip()
        reasoning = reply.get("reasoning") or ""
        if reply.get("done") or not agent:
            answer = _text(reply.get("final_answer") or reasoning)
            content = Content((Text(answer),) if answer else ())
            return attrs.evolve(response, content=content, finish_reason="stop")
        if is_last:
            message = (
                f"the agents of {self._whose!r} have worked {self._most} times, and it is not "
                "done; `react: {max_iterations: ...}` allows more"
            )
            raise CallLimitError(message)
        given = _text(reply.get("agent_input") or reasoning)
        call = FunctionCall(agent, {"request": given, "reply": reply})
        return attrs.evolve(response, content=Content(call), finish_reason="tool_calls")


def _as_told(content: Content) -> Content:
    """Return something that was said as the model is told of it."""
    return attrs.evolve(content, parts=tuple(_part_as_told(part) for part in content.parts))


def _part_as_told(part: Part) -> Part:
    if isinstance(part, FunctionCall):
        return Text(_text(part.args.get("reply")))
    if isinstance(part, FunctionResponse):
        answer = part.response.get("result", part.response)
        return Text(f"[observation from {part.name}]\n{_text(answer)}")
    return part


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def collector(name: str, nodes: Sequence[Agent]) -> Agent:
    """Return the last node of an agent's own graph, after ``nodes``: it says what they came to.

    That is what they have passed on; if nothing, the last output.
    """

    async def collect(ctx: InvocationContext) -> str:
        passed_on = ctx.documents.get(PIPE)
        if passed_on:
            return passed_on
        outputs = [*ctx.input.values()] if len(nodes) > 1 else [ctx.input]
        said = [output for output in outputs if output is not None]
        return _text(said[-1]) if said else ""

    return FunctionAgent(collect, name=name)


def without_reply(ctx: ToolContext) -> FunctionCall | None:
    """Return the call of an agent as that takes it: its record holds the model's reply as well."""
    request = ctx.call.args.get("request")
    return None if request is None else attrs.evolve(ctx.call, args={"request": request})
