"""A node that a model answers: its prompt is filled, and the model asked until it answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Unpack, final

from parallel_agent.agent import Agent, AgentOptions
from parallel_agent.config.asking import Asking
from parallel_agent.config.file_tools import add_all
from parallel_agent.config.format import ModelEntry, NodeEntry, Template
from parallel_agent.config.prompts import PlaceholderError, active_values, render_prompt
from parallel_agent.config.reacting import Routed, without_reply
from parallel_agent.config.sharing import PIPE
from parallel_agent.context import InvocationContext, activation_of
from parallel_agent.llm.asking import Asker
from parallel_agent.llm.callbacks import Callbacks
from parallel_agent.llm.calling import Caller
from parallel_agent.llm.contents import input_content
from parallel_agent.llm.conversation import Conversation
from parallel_agent.llm.output import Output
from parallel_agent.tools.tool import Tool
from session.content import Content, Part, Text
from session.event import USER

__all__ = ["ModelNode"]


@final
class ModelNode(Agent):
    """Asks a model, with a prompt of the file. Without a prompt it does nothing.

    The system side of the prompt is the instruction, the other side what the user says. The model
    is sent nothing else but the history and the media that the node names: what other nodes have
    said only where a placeholder stands for it. If the prompt has no second side, the node's input
    stands in its place.

    As with `LlmAgent`, calls of tools run side by side; a resumed node asks nothing twice.

    Args:
        name: see `Agent`.
        entry: what the file says of the node.
        asking: what it asks with.
        options: the other arguments of `Agent`.
    """

    def __init__(
        self, name: str, *, entry: NodeEntry, asking: Asking, **options: Unpack[AgentOptions]
    ) -> None:
        """See the class."""
        agents = () if asking.reacting is None else asking.reacting.agents.values()
        super().__init__(name, [tool.agent for tool in agents], **options)
        self._entry = entry
        self._asking = asking

    @property
    def entry(self) -> NodeEntry:
        """What the file says of the node."""
        return self._entry

    @property
    def model(self) -> ModelEntry:
        """What the file says of the model that answers."""
        return self._asking.model.entry

    @property
    def template(self) -> Template | None:
        """The texts of its prompt, with placeholders."""
        return self._asking.template

    @property
    def shape(self) -> str:
        """See `Agent.shape`: the model counts, and what it is asked does not."""
        return f"{super().shape}, {self._asking.model.name}"

    async def run(self, ctx: InvocationContext) -> None:
        """Ask the model until it answers.

        Raises:
            PlaceholderError: the prompt has a placeholder that the node does not fill.
            ConfigError: nothing here speaks to the server of the model.
            MissingExtraError: something that is not installed is needed.
            ModelError: the model does not answer as it ought to.
        """
        asking, template = self._asking, self._asking.template
        if template is None:
            return
        values = active_values(self._entry, self._there(ctx))
        try:
            instruction, prompt = render_prompt(template, values)
        except PlaceholderError as exc:
            message = f"node {self.name!r}: {exc}"
            raise PlaceholderError(message) from None
        model, output = asking.model.ready(self.name), asking.output
        if output is None and asking.schema is not None:
            output = Output(asking.schema, self.name)
        max_turns, callbacks = asking.max_turns, Callbacks()
        if asking.reacting is not None and output is not None:
            max_turns = asking.reacting.most
            callbacks = Callbacks(before_tool=(without_reply,))
            model, output = Routed(model, output, self.name, max_turns), None
        async with AsyncExitStack() as stack:
            tools: dict[str, Tool] = dict(
                asking.tools if asking.reacting is None else asking.reacting.agents
            )
            for use in asking.servers:
                opened = await stack.enter_async_context(use.toolset(self.name).open(ctx))
                add_all(tools, opened, self.name)
            said = (*self._said(ctx, prompt), *asking.media)
            conversation = Conversation(
                ctx=ctx,
                asker=Asker(ctx, model, Callbacks()),
                instruction=instruction,
                before=(*asking.history, *([Content(said, role=USER)] if said else ())),
                seen=frozenset(),
                caller=Caller(ctx, tools, callbacks, "tell"),
                config=asking.config,
                output=output,
                repairs=1,
                max_turns=max_turns,
                answers_at_last=True,
            )
            await conversation.run()

    def _there(self, ctx: InvocationContext) -> dict[str, str | None]:
        """Return what placeholders may stand for; None is not there."""
        asking, documents = self._asking, ctx.documents
        read = [documents[board] for board in asking.boards if board in documents]
        message = _message(ctx, asking)
        passed_on = documents.get(PIPE)
        if asking.works and passed_on is not None:
            # Its graph was given what the controller wants done.
            graph = activation_of(ctx).parent
            wanted = "" if graph is None else input_content(graph.input).text
            passed_on = "\n\n".join(filter(None, [wanted, passed_on]))
        return {
            "user_message": message,
            "message_passing": passed_on,
            "retrieved_chunks": asking.retrieved_chunks,
            "blackboard": "\n\n".join(filter(None, read)) if read else None,
            "input": _input(ctx, message),
        }

    def _said(self, ctx: InvocationContext, prompt: str) -> Iterator[Part]:
        """Yield what the user says: the prompt, or what the node was given if there is none."""
        if prompt:
            yield Text(prompt)
            return
        given, asking = ctx.user_content, self._asking
        is_given = given is not None and bool(ctx.user_text or asking.user_message is None)
        if given is not None and is_given and not activation_of(ctx).has_input:
            yield from given.parts
        elif text := _input(ctx, _message(ctx, asking)):
            yield Text(text)


def _message(ctx: InvocationContext, asking: Asking) -> str | None:
    """Return what the run was started with; if with nothing, what the file says."""
    if ctx.user_text or asking.user_message is None:
        return None if ctx.user_content is None else ctx.user_text
    return asking.user_message


def _input(ctx: InvocationContext, message: str | None) -> str | None:
    activation = activation_of(ctx)
    return input_content(activation.input).text if activation.has_input else message
