"""One after another."""

from __future__ import annotations

from typing import final

from parallel_agent.agent import Agent
from parallel_agent.context import InvocationContext, activation_of
from parallel_agent.drive import run_child

__all__ = ["SequentialAgent"]


@final
class SequentialAgent(Agent):
    """Runs its sub-agents in order, on its own branch.

    Each starts when the one before has completed and its last event is recorded and
    acknowledged, so it sees everything that came before. An escalating event does not stop the
    sequence. The first failure ends it, raised as itself; later agents never start. Its output
    is the last sub-agent's.

    Takes the arguments of `Agent`. Semantics: Google ADK's ``SequentialAgent``.
    """

    async def run(self, ctx: InvocationContext) -> None:
        """Run the sub-agents in order."""
        activation = activation_of(ctx)
        for child in self.sub_agents:
            activation.output = (await run_child(activation, child)).output
