"""Side by side."""

from __future__ import annotations

from typing import final

from parallel_agent.agent import Agent
from parallel_agent.context import InvocationContext, activation_of
from parallel_agent.fan_out import fan_out
from parallel_agent.lifecycle import Status

__all__ = ["ParallelAgent"]


@final
class ParallelAgent(Agent):
    """Runs its sub-agents side by side, each on a branch of its own.

    A branch sees what its parent saw when it was forked, and its own events; never a running
    sibling's. Their events come out of the one stream, each branch's in its own order. When one
    fails, the others are cancelled, all are joined, and one failure is raised as itself: the
    first in declaration order of those that failed of themselves. The other failures are notes
    on it, and in the outcomes: ``ctx.outcomes(name)``, ``run.outcomes(name)``, and one event
    after all the branches' own.

    An escalating event of a *direct* sub-agent ends its siblings: nothing of theirs follows it,
    in the stream or in the log. The escalating agent itself runs to its end.

    Its output is a dict of its completed sub-agents' outputs, in declaration order.

    Takes the arguments of `Agent`. Semantics: Google ADK's ``ParallelAgent``; failures as in
    Go's ``errgroup``.
    """

    async def run(self, ctx: InvocationContext) -> None:
        """Run the sub-agents side by side."""
        activation = activation_of(ctx)
        outcomes = await fan_out(activation, self.sub_agents)
        activation.output = {
            outcome.name: outcome.output
            for outcome in outcomes
            if outcome.status is Status.COMPLETED
        }
