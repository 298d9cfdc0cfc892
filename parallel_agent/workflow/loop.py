"""Again and again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack, final

from parallel_agent.agent import Agent, AgentOptions
from parallel_agent.context import InvocationContext, activation_of
from parallel_agent.drive import run_child
from parallel_agent.errors import TreeError

__all__ = ["LoopAgent"]


@final
class LoopAgent(Agent):
    """Runs its sub-agents in order, over and over, on its own branch.

    Ends after ``max_iterations``, or when an escalating event of anything below it has been
    handed out: then the sub-agent that is running finishes, and no other starts. The loop
    consumes the escalation; a loop around it goes on. Its output is that of the last sub-agent
    that ran.

    Args:
        name: see `Agent`.
        sub_agents: see `Agent`.
        max_iterations: how often at most; None is without limit.
        options: the other arguments of `Agent`.

    Raises:
        TreeError: ``max_iterations`` is no positive whole number.

    Semantics: Google ADK's ``LoopAgent``.
    """

    def __init__(
        self,
        name: str,
        sub_agents: Iterable[Agent] = (),
        *,
        max_iterations: int | None = None,
        **options: Unpack[AgentOptions],
    ) -> None:
        """See the class."""
        if max_iterations is not None and (type(max_iterations) is not int or max_iterations < 1):
            message = (
                f"max_iterations of {name!r} must be 1 or more, or None for no limit, "
                f"not {max_iterations!r}"
            )
            raise TreeError(message)
        super().__init__(name, sub_agents, **options)
        if max_iterations is None and not self.sub_agents:
            message = (
                f"loop {name!r} has no sub-agents and no max_iterations: it would spin for ever"
            )
            raise TreeError(message)
        self._max_iterations = max_iterations

    @property
    def max_iterations(self) -> int | None:
        """How often it runs at most; None is without limit."""
        return self._max_iterations

    @property
    def shape(self) -> str:
        """See `Agent.shape`: how often it runs counts."""
        most = self._max_iterations
        return f"{super().shape}, {'without limit' if most is None else f'at most {most}'}"

    async def run(self, ctx: InvocationContext) -> None:
        """Run the sub-agents over and over."""
        activation = activation_of(ctx)
        activation.catches_escalate = True
        iteration = 0
        while self._max_iterations is None or iteration < self._max_iterations:
            iteration += 1
            for child in self.sub_agents:
                activation.output = (await run_child(activation, child, number=iteration)).output
                if activation.escalated:
                    return
