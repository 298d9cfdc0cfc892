"""A node that a model answers. It holds what the file says of it; what asks models is not here."""

from __future__ import annotations

from typing import Unpack, final

from parallel_agent.agent import Agent, AgentOptions
from parallel_agent.config.format import ModelEntry, NodeEntry, Template
from parallel_agent.context import InvocationContext
from parallel_agent.model_errors import MissingExtraError

__all__ = ["ModelNode"]


@final
class ModelNode(Agent):
    """Asks a model, with a prompt of the file. Without a prompt it does nothing.

    Args:
        name: see `Agent`.
        entry: what the file says of the node.
        model: the model that it names.
        template: the prompt that it names; None if it names none.
        options: the other arguments of `Agent`.
    """

    def __init__(
        self,
        name: str,
        *,
        entry: NodeEntry,
        model: ModelEntry,
        template: Template | None,
        **options: Unpack[AgentOptions],
    ) -> None:
        """See the class."""
        super().__init__(name, **options)
        self._entry = entry
        self._model = model
        self._template = template

    @property
    def entry(self) -> NodeEntry:
        """What the file says of the node."""
        return self._entry

    @property
    def model(self) -> ModelEntry:
        """The model that answers."""
        return self._model

    @property
    def template(self) -> Template | None:
        """The texts of its prompt, with placeholders."""
        return self._template

    @property
    def shape(self) -> str:
        """See `Agent.shape`: the model counts, and what it is asked does not."""
        return f"{super().shape}, {self._model.llm} {self._model.model}"

    async def run(self, ctx: InvocationContext) -> None:  # noqa: ARG002  # it asks nobody
        """Refuse to run, if there is something to ask.

        Raises:
            MissingExtraError: models cannot be asked; the message names the node.
        """
        if self._template is None:
            return
        raise MissingExtraError(f"node {self.name!r}, which asks a model,", "openai", "openai")
