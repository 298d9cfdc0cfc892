"""The tool by which a model hands over to another agent.

Which agents it is told of: those below its own, and, if its own was handed over to by the agent
above it, that one and the others below that. What happens then is for `parallel_agent.transfer`.

Semantics: Google ADK's ``transfer_to_agent``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, final

from parallel_agent.activation import Activation
from parallel_agent.agent import Agent
from parallel_agent.model_errors import ToolError
from parallel_agent.tools.context import ToolContext
from parallel_agent.tools.tool import Tool
from session.state import freeze

__all__ = ["TRANSFER_TO_AGENT", "TransferTool", "above_of"]

TRANSFER_TO_AGENT: Final = "transfer_to_agent"


@final
class TransferTool(Tool):
    """Hands over to one of ``agents``."""

    def __init__(self, agents: Sequence[Agent]) -> None:
        """See the class."""
        told = "\n".join(f"- {agent.name}: {agent.description}".rstrip(": ") for agent in agents)
        super().__init__(
            TRANSFER_TO_AGENT,
            "Hand the conversation over to an agent that is better suited to answer. It goes on "
            f"in your place. The agents are:\n{told}",
        )
        self._names = [agent.name for agent in agents]
        name = {"type": "string", "enum": self._names, "description": "who is to go on"}
        self._parameters: Mapping[str, Any] = freeze(
            {
                "type": "object",
                "properties": {"agent_name": name},
                "required": ["agent_name"],
                "additionalProperties": False,
            }
        )

    @property
    def parameters(self) -> Mapping[str, Any]:
        """See `Tool.parameters`."""
        return self._parameters

    async def call(self, ctx: ToolContext, arguments: Mapping[str, Any]) -> Any:
        """Note who is to go on.

        Raises:
            ToolError: it is none of the agents.
        """
        name = arguments.get("agent_name")
        if name not in self._names:
            message = f"there is no agent {name!r:.80} to hand over to; there are {self._names}"
            raise ToolError(message)
        ctx.actions.transfer_to_agent = name
        return f"{name} goes on"


def above_of(activation: Activation, kind: type[Agent]) -> Agent | None:
    """Return the agent of that kind that stands directly above, if it has handed over.

    Not if it waits for this one: it called it as a tool, say.
    """
    agent = activation.agent
    below, above = activation, activation.parent
    while above is not None and above.transfers < below.transfers:
        if isinstance(above.agent, kind) and any(one is agent for one in above.agent.sub_agents):
            return above.agent
        below, above = above, above.parent
    return None
