"""As soon as its own inputs are there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Unpack, cast, final

from parallel_agent.agent import Agent, AgentOptions
from parallel_agent.barrier import Barrier, BestEffort, FailFast
from parallel_agent.context import InvocationContext, activation_of
from parallel_agent.crew import Task
from parallel_agent.errors import TreeError
from parallel_agent.fan_out import check_options, fan_out, policy_shape
from parallel_agent.graph.building import build
from parallel_agent.graph.definition import Definition
from parallel_agent.graph.documents import Document
from parallel_agent.graph.edges import EdgeLike, NodeRef
from parallel_agent.graph.engine import run_graph
from parallel_agent.graph.guards import refusal_of
from session.event import Event

__all__ = ["GraphAgent"]


@final
class GraphAgent(Agent):
    """Runs its nodes along edges: side by side, each as soon as its own inputs are there.

    ::

        GraphAgent("review", [
            (plan, [prices, risks], write),  # fan out, and wait for both
            Edge(write, publish, default=True),
            Edge(write, plan, when="again", max_times=2),
        ])

    Any agent is a node, and a graph is an agent. There are no levels: a node waits for the
    sources of its own edges, and for nothing else. Each node runs on a branch of its own, and
    sees what the nodes said that had to end before it could start.

    *Inputs.* A node gets the output of its source. A node with several sources gets a list or an
    object by their names, as its annotation says (`list[T]`; `dict[str, T]`, or a class with a
    field for each), in the order the edges are written; each source strictly as annotated. A node
    to which nothing leads gets what the graph was given.

    *Routes.* See `Edge`, `Switch` and `Select`. A node is skipped when no edge to it was taken,
    and with it all that only it leads to. A join waits for all its sources, and then starts once
    with what came from those that ran. What failed, under a policy that goes on, counts as
    skipped.

    *Loops.* An edge with ``max_times`` leads back. Edges that leave a loop count when it is over.

    *Guards* run before everything else, one after another. The first that does not say yes
    (True, or an object whose ``validation`` is true), or that fails, ends the graph normally: no
    node starts, and the output is a `Refusal`.

    Its output is that of the one node whose output goes to no other; a dict by names if there are
    several.
    An escalating event of a node ends the others, as in `ParallelAgent`.

    Args:
        name: see `Agent`.
        edges: chains ``(a, [b, c], d)``, or `Edge`, `Switch`, `Select` and `Ordered`.
        nodes: agents to which, or from which, no edge leads; and those that edges name by text.
        guards: agents that run first.
        documents: texts that nodes share; see `Document`.
        barrier: what it does when nodes fail; one that waits for all (`FailFast`, `WaitAll`,
            `BestEffort`, `Escalate`, or your own).
        max_concurrency: how many nodes run at a time; None is without limit.
        options: the other arguments of `Agent`.

    Raises:
        GraphError: the graph cannot run; every problem is named.
        TreeError: an argument is not what it must be.
    """

    def __init__(
        self,
        name: str,
        edges: Iterable[EdgeLike] = (),
        *,
        nodes: Iterable[NodeRef] = (),
        guards: Sequence[Agent] = (),
        documents: Iterable[Document] = (),
        barrier: Barrier = FailFast(),  # noqa: B008  # a value, and frozen
        max_concurrency: int | None = None,
        **options: Unpack[AgentOptions],
    ) -> None:
        """See the class."""
        check_options(name, barrier, max_concurrency)
        if barrier.least_width():
            message = (
                f"{barrier!r} of {name!r} has enough when some branches have completed, and the "
                "nodes of a graph wait for each other; make a ParallelAgent with that policy one "
                "of the nodes"
            )
            raise TreeError(message)
        guards = _listed_guards(name, guards)
        definition = build(name, edges, nodes, guards=guards, documents=documents)
        super().__init__(name, [*guards, *definition.nodes], **options)
        self._definition = definition
        self._guards = guards
        self._barrier = barrier
        self._max_concurrency = max_concurrency

    @property
    def definition(self) -> Definition:
        """Its nodes and links."""
        return self._definition

    @property
    def guards(self) -> tuple[Agent, ...]:
        """The agents that run first."""
        return self._guards

    @property
    def barrier(self) -> Barrier:
        """What it does when nodes fail."""
        return self._barrier

    @property
    def max_concurrency(self) -> int | None:
        """How many nodes run at a time; None is without limit."""
        return self._max_concurrency

    @property
    def shape(self) -> str:
        """See `Agent.shape`: its edges, its guards and its policy count."""
        says = policy_shape(self._barrier)
        guards = ", ".join(guard.name for guard in self._guards)
        guarded = f", guarded by {guards}" if guards else ""
        return f"{super().shape}, {says}{guarded}; {'; '.join(self._definition.describe())}"

    async def run(self, ctx: InvocationContext) -> None:
        """Run the guards, and then the nodes."""
        activation = activation_of(ctx)
        for guard in self._guards:
            [outcome] = await fan_out(activation, [Task(guard)], barrier=BestEffort())
            refusal = refusal_of(guard.name, outcome)
            if refusal is not None:
                await ctx.emit(Event(output=refusal.to_json()))
                return
        activation.output = await run_graph(
            activation,
            self._definition,
            barrier=self._barrier,
            max_concurrency=self._max_concurrency,
        )


def _listed_guards(name: str, guards: object) -> tuple[Agent, ...]:
    if not isinstance(guards, list | tuple):
        message = f"guards of {name!r} is a list of agents, not {guards!r:.80}"
        raise TreeError(message)
    return tuple(cast("Sequence[Agent]", guards))
