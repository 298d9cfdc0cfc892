"""Side by side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack, final

from parallel_agent.agent import Agent, AgentOptions
from parallel_agent.barrier import Barrier, FailFast
from parallel_agent.context import InvocationContext, activation_of
from parallel_agent.crew import Task
from parallel_agent.errors import TreeError
from parallel_agent.fan_out import check_options, fan_out, policy_shape
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

    That is what ``barrier=FailFast()`` does, the default; see the other policies.

    Its output is a dict of its completed sub-agents' outputs, in declaration order.

    Args:
        name: see `Agent`.
        sub_agents: see `Agent`.
        barrier: what it does when sub-agents fail, and when it has enough.
        max_concurrency: how many sub-agents run at a time; the others wait for one to end. None
            is without limit.
        options: the other arguments of `Agent`.

    Raises:
        TreeError: ``barrier`` is no policy, or needs more sub-agents than there are;
            ``max_concurrency`` is no positive whole number.

    Semantics: Google ADK's ``ParallelAgent``; failures as in Go's ``errgroup``.
    """

    def __init__(
        self,
        name: str,
        sub_agents: Iterable[Agent] = (),
        *,
        barrier: Barrier = FailFast(),  # noqa: B008  # a value, and frozen
        max_concurrency: int | None = None,
        **options: Unpack[AgentOptions],
    ) -> None:
        """See the class."""
        check_options(name, barrier, max_concurrency)
        super().__init__(name, sub_agents, **options)
        if len(self.sub_agents) < barrier.least_width():
            message = (
                f"{barrier!r} of {name!r} needs {barrier.least_width()} sub-agents or more, "
                f"and it has {len(self.sub_agents)}"
            )
            raise TreeError(message)
        self._barrier = barrier
        self._max_concurrency = max_concurrency

    @property
    def barrier(self) -> Barrier:
        """What it does when sub-agents fail, and when it has enough."""
        return self._barrier

    @property
    def max_concurrency(self) -> int | None:
        """How many sub-agents run at a time; None is without limit."""
        return self._max_concurrency

    @property
    def shape(self) -> str:
        """See `Agent.shape`: its policy counts."""
        return f"{super().shape}, {policy_shape(self._barrier)}"

    async def run(self, ctx: InvocationContext) -> None:
        """Run the sub-agents side by side."""
        activation = activation_of(ctx)
        outcomes = await fan_out(
            activation,
            [Task(child) for child in self.sub_agents],
            barrier=self._barrier,
            max_concurrency=self._max_concurrency,
        )
        activation.output = {
            outcome.name: outcome.output
            for outcome in outcomes
            if outcome.status is Status.COMPLETED
        }
