"""An agent that asks a model, calls the tools it wants, and asks again until it is answered."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, ClassVar, Literal, TypeAlias, Unpack, cast, final

from parallel_agent.activation import Activation
from parallel_agent.agent import Agent, AgentOptions
from parallel_agent.context import InvocationContext, activation_of
from parallel_agent.errors import TreeError
from parallel_agent.llm.asking import Asker
from parallel_agent.llm.callbacks import Callbacks, ModelCallbacks
from parallel_agent.llm.calling import Caller, OnToolError
from parallel_agent.llm.contents import contents_of, input_content
from parallel_agent.llm.conversation import Conversation, is_of
from parallel_agent.llm.instruction import fill_in
from parallel_agent.llm.model import GenerationConfig, Model
from parallel_agent.llm.output import Output
from parallel_agent.llm.providers import as_model
from parallel_agent.llm.transferring import TRANSFER_TO_AGENT, TransferTool, above_of
from parallel_agent.model_errors import InstructionError, ToolDefinitionError
from parallel_agent.notes import note_other
from parallel_agent.retry import Retry
from parallel_agent.schema import Schema
from parallel_agent.tools.function_tool import as_tool
from parallel_agent.tools.tool import Tool
from parallel_agent.tools.toolset import Toolset
from session.content import Content
from session.event import USER, Event

__all__ = ["Instruction", "LlmAgent", "LlmAgentOptions"]

Instruction: TypeAlias = str | Callable[[InvocationContext], "str | Awaitable[str]"]
"""What a model is to be and do: a text with places to fill in, or a function that returns one as it
is to be sent."""


class LlmAgentOptions(AgentOptions, ModelCallbacks, total=False):
    """The further keyword arguments of `LlmAgent`."""


@final
class LlmAgent(Agent):
    """Asks a model; calls the tools that it wants to have called; and asks again, until it answers.

    What the model says is streamed in partial events, and recorded whole. The calls of one turn run
    side by side, in a nursery of this agent's, and are answered together, in the order of the
    calls. Cancelling the agent cancels its call to the model, and its tools. Resumed, it goes on
    after the last turn that was recorded: what the model has said, it is not asked again.

    With agents below it, its model may hand over to one of them, which goes on in its place, by the
    tool ``transfer_to_agent``; a model agent that was handed over to may hand on to the others
    below the same agent, and back to that one.

    Args:
        name: see `Agent`.
        model: what it asks: a `Model`, or the name of one, as in ``"ollama/qwen2.5:7b"``; see
            `parallel_agent.openai.OpenAIModel`.
        instruction: what the model is to be and do. A text may have places that are filled in:
            ``{key}`` of the state, ``{key?}`` if it may be missing, ``{artifact.name}``.
        tools: functions, tools and toolsets that the model may have called.
        sub_agents: whom its model may hand over to.
        config: how the model is to answer.
        output_schema: what its answer must fit, strictly: a type, or a JSON Schema. It is then
            the agent's output, as JSON.
        repairs: how often it is told that its answer does not fit, and asked again.
        include_contents: ``"default"`` sends what the agent may see; ``"none"`` only what it was
            given, and what it has said in this activation.
        max_events: of what it may see, only the newest so many events, and what the run was started
            with; None is all.
        max_turns: how often the model may want tools in one activation.
        on_tool_error: ``"tell"`` gives the model the error as the answer, ``"raise"`` fails the
            agent.
        model_retry: how the model is asked again when it fails, in the middle of the activation:
            what was said and done stands. (``retry`` begins the activation anew, tools and all.)
        stream: what the model says is emitted in pieces, as it comes. False emits the whole alone,
            as the callbacks have made it.
        reads_messages: what is said to its branch while it works (`Run.send`), its model is told
            before its next turn; and, if that came while it answered, asked once more. False
            leaves it to another agent of the branch.
        disallow_transfer_to_parent: it never hands back to the agent above.
        disallow_transfer_to_peers: it never hands on to the others below that.
        options: the callbacks ``before_model_callback``, ``after_model_callback``,
            ``before_tool_callback`` and ``after_tool_callback`` (one each, or several, asked in
            order after the runner's plugins; see `parallel_agent.llm.callbacks`), and the other
            arguments of `Agent`.

    Raises:
        TreeError: an argument is not what it must be.
        ToolDefinitionError: a tool is none.
        MissingExtraError: something that is not installed is needed.
        ModelAuthError: the server of a model that is given by its name wants a key.
    """

    more_options: ClassVar[Sequence[str]] = tuple(ModelCallbacks.__annotations__)

    def __init__(
        self,
        name: str,
        model: Model | str,
        instruction: Instruction = "",
        *,
        tools: Sequence[Tool | Toolset | Callable[..., Any]] = (),
        sub_agents: Sequence[Agent] = (),
        config: GenerationConfig = GenerationConfig(),  # noqa: B008  # a value, and frozen
        output_schema: Any = None,
        repairs: int = 1,
        include_contents: Literal["default", "none"] = "default",
        max_events: int | None = None,
        max_turns: int = 20,
        on_tool_error: OnToolError = "tell",
        model_retry: Retry | None = None,
        stream: bool = True,
        reads_messages: bool = True,
        disallow_transfer_to_parent: bool = False,
        disallow_transfer_to_peers: bool = False,
        **options: Unpack[LlmAgentOptions],
    ) -> None:
        """See the class."""
        callbacks = {option: options.pop(option, None) for option in ModelCallbacks.__annotations__}  # type: ignore[misc]  # by their names
        super().__init__(name, sub_agents, **cast("AgentOptions", options))
        if not isinstance(instruction, str) and not callable(instruction):
            message = f"instruction of {name!r} is text, or a function, not {instruction!r:.80}"
            raise TreeError(message)
        for option, value, kind in (
            ("config", config, GenerationConfig),
            ("model_retry", model_retry, Retry | None),
        ):
            if not isinstance(value, kind):
                message = f"{option} of {name!r} is a {kind}, not {value!r:.80}"
                raise TreeError(message)
        _check_count(name, "repairs", repairs, 0)
        _check_count(name, "max_turns", max_turns, 1)
        if max_events is not None:
            _check_count(name, "max_events", max_events, 0)
        _check_one_of(name, "include_contents", include_contents, ("default", "none"))
        _check_one_of(name, "on_tool_error", on_tool_error, ("tell", "raise"))
        self._model = as_model(model, name)
        self._instruction = instruction
        self._toolsets = [one for one in tools if isinstance(one, Toolset)]
        self._tools: dict[str, Tool] = {}
        for given in tools:
            if not isinstance(given, Toolset):
                _add(self._tools, as_tool(given), name)
        self._callbacks = Callbacks.of(name, callbacks)
        self._config = config
        self._output = None if output_schema is None else Output(output_schema, name)
        self._repairs = repairs
        self._include = include_contents
        self._max_events = max_events
        self._max_turns = max_turns
        self._on_tool_error: OnToolError = on_tool_error
        self._model_retry = model_retry
        self._stream = stream
        self._reads_messages = reads_messages
        self._to_parent = not disallow_transfer_to_parent
        self._to_peers = not disallow_transfer_to_peers

    @property
    def model(self) -> Model:
        """What it asks."""
        return self._model

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What its model may have called, toolsets apart."""
        return tuple(self._tools.values())

    @property
    def output_schema(self) -> Schema[Any] | None:
        """See `Agent.output_schema`. None if it is text, or a JSON Schema says what it is."""
        return None if self._output is None else self._output.schema

    @property
    def shape(self) -> str:
        """See `Agent.shape`: the model counts, and what it is asked does not."""
        return f"{super().shape}, {self._model.name}"

    async def run(self, ctx: InvocationContext) -> None:
        """Ask the model until it answers."""
        if not self._toolsets:
            await self._talk(ctx, self._tools)
            return
        failure: Exception | None = None
        try:
            async with AsyncExitStack() as stack:
                try:
                    await self._talk(ctx, await self._opened(ctx, stack))
                except Exception as exc:  # noqa: BLE001  # raised below
                    # Not through the toolsets: their nurseries would put it into groups.
                    failure = exc
        except Exception as exc:
            if failure is None:
                raise
            note_other(failure, "closing its toolsets", exc)
        if failure is not None:
            raise failure

    async def _talk(self, ctx: InvocationContext, tools: dict[str, Tool]) -> None:
        others = self._others(ctx)
        if others:
            tools = dict(tools)
            _add(tools, TransferTool(others), self.name)
        before, seen = self._before(ctx)
        conversation = Conversation(
            ctx=ctx,
            asker=Asker(ctx, self._model, self._callbacks, self._model_retry, self._stream),
            instruction=await self._instructed(ctx),
            before=before,
            seen=seen,
            caller=Caller(ctx, tools, self._callbacks, self._on_tool_error),
            config=self._config,
            output=self._output,
            repairs=self._repairs,
            max_turns=self._max_turns,
            reads_messages=self._reads_messages,
        )
        await conversation.run()

    async def _opened(self, ctx: InvocationContext, stack: AsyncExitStack) -> dict[str, Tool]:
        """Return all tools of this activation."""
        tools = dict(self._tools)
        for toolset in self._toolsets:
            for tool in await stack.enter_async_context(toolset.open(ctx)):
                _add(tools, tool, self.name)
        return tools

    def _others(self, ctx: InvocationContext) -> list[Agent]:
        """Return whom the model may hand over to."""
        others = list(self.sub_agents)
        above = above_of(activation_of(ctx), LlmAgent)
        if above is not None and self._to_peers:
            others += [one for one in above.sub_agents if one is not self]
        if above is not None and self._to_parent:
            others.append(above)
        return others

    async def _instructed(self, ctx: InvocationContext) -> str:
        instruction = self._instruction
        if isinstance(instruction, str):
            return await fill_in(instruction, ctx)
        given = instruction(ctx)
        text: object = await given if inspect.isawaitable(given) else given
        if not isinstance(text, str):
            message = f"the instruction of agent {self.name!r} returned {text!r:.80}, and no text"
            raise InstructionError(message)
        return text

    def _before(self, ctx: InvocationContext) -> tuple[tuple[Content, ...], frozenset[int | None]]:
        """Return what was said before this activation, and what it is to work on.

        And the numbers of the events in which it was said.
        """
        contents: list[Content] = []
        seen: list[Event] = []
        if self._include == "default":
            # Resumed, what this activation has said is in the history, and what its tools have.
            known: set[int | None] = set(ctx.restored["own"] if ctx.restored is not None else ())
            seen = [
                event for event in ctx.history() if not (is_of(event, ctx) or event.seq in known)
            ]
            tool = _tool_above(activation_of(ctx))
            if tool is not None:
                # And what is said to its branch, which has no path.
                seen = [
                    event
                    for event in seen
                    if _is_at_or_below(event.path, tool)
                    or (event.author == USER and event.branch == ctx.branch)
                ]
            if self._max_events is not None:
                first = next((one for one in seen if _starts_the_run(one, ctx)), None)
                seen = seen[max(len(seen) - self._max_events, 0) :]
                if first is not None and first not in seen:
                    seen.insert(0, first)
            contents += contents_of(seen, self.name)
        activation = activation_of(ctx)
        if activation.has_input:
            contents.append(input_content(activation.input))
        elif self._include == "none" and ctx.user_content is not None:
            contents.append(ctx.user_content)
        return tuple(contents), frozenset(event.seq for event in seen)


def _starts_the_run(event: Event, ctx: InvocationContext) -> bool:
    """Return whether an event is the message that the run was started with."""
    return event.author == USER and event.invocation_id == ctx.invocation_id and not event.path


def _is_at_or_below(path: str, top: str) -> bool:
    """Return whether a path is that of an activation, of an attempt of it, or below it."""
    return path == top or path.startswith((f"{top}/", f"{top}~"))


def _tool_above(activation: Activation) -> str | None:
    """Return the path of what a model agent above has started by a tool, and waits for.

    What runs there is told what is said there, and not what its caller has talked about.
    """
    below, above = activation, activation.parent
    while above is not None:
        if isinstance(above.agent, LlmAgent) and above.transfers == below.transfers:
            return below.begun.path
        below, above = above, above.parent
    return None


def _add(tools: dict[str, Tool], tool: Tool, name: str) -> None:
    if tool.name in tools:
        hint = ""
        if tool.name == TRANSFER_TO_AGENT:
            hint = "; it is the one by which a model hands over to the agents below"
        message = f"two tools of {name!r} are called {tool.name!r}{hint}"
        raise ToolDefinitionError(message)
    tools[tool.name] = tool


def _check_count(name: str, option: str, value: object, least: int) -> None:
    if type(value) is not int or value < least:
        message = f"{option} of {name!r} is a whole number from {least} on, not {value!r:.80}"
        raise TreeError(message)


def _check_one_of(name: str, option: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        message = f"{option} of {name!r} is {' or '.join(map(repr, known))}, not {value!r:.80}"
        raise TreeError(message)
