"""Once for every item."""

from __future__ import annotations

from typing import Any, Unpack, final

from parallel_agent.agent import Agent, AgentOptions
from parallel_agent.barrier import Barrier, FailFast
from parallel_agent.context import InvocationContext
from parallel_agent.errors import InputError, TreeError
from parallel_agent.fan_out import check_options, policy_shape
from parallel_agent.schema import Schema

__all__ = ["MapAgent"]


@final
class MapAgent(Agent):
    """Runs one agent on every item of a list that is known only when it runs, side by side.

    The list is its input, or what stands in the state under ``items_key``. Each item gets a branch
    of its own, ``worker@1``, ``worker@2``, ...; its output is the list of theirs, in the order of
    the items, with None for those that did not complete. Of an empty list that is an empty list.

    It is ``ctx.map`` as an agent, to stand in a tree or a graph.

    Args:
        name: see `Agent`.
        worker: the agent that is run on each item.
        items_key: the state key of the list; None is its input.
        barrier: what it does when items fail, and when it has enough.
        max_concurrency: how many run at a time; None is without limit.
        options: the other arguments of `Agent`.

    Raises:
        TreeError: an argument is not what it must be.
    """

    def __init__(
        self,
        name: str,
        worker: Agent,
        *,
        items_key: str | None = None,
        barrier: Barrier = FailFast(),  # noqa: B008  # a value, and frozen
        max_concurrency: int | None = None,
        **options: Unpack[AgentOptions],
    ) -> None:
        """See the class."""
        check_options(name, barrier, max_concurrency)
        if items_key is not None and (not isinstance(items_key, str) or not items_key):
            message = f"items_key of {name!r} must be text that is not empty, not {items_key!r}"
            raise TreeError(message)
        super().__init__(name, [worker], **options)
        self._items_key = items_key
        self._barrier = barrier
        self._max_concurrency = max_concurrency

    @property
    def worker(self) -> Agent:
        """The agent that is run on each item."""
        return self.sub_agents[0]

    @property
    def items_key(self) -> str | None:
        """The state key of the list; None is its input."""
        return self._items_key

    @property
    def barrier(self) -> Barrier:
        """What it does when items fail, and when it has enough."""
        return self._barrier

    @property
    def max_concurrency(self) -> int | None:
        """How many items are worked on at a time; None is without limit."""
        return self._max_concurrency

    @property
    def input_schema(self) -> Schema[Any] | None:
        """A list of what the worker takes; None if the list stands in the state."""
        return None if self._items_key is not None else Schema(list[Any])

    @property
    def shape(self) -> str:
        """See `Agent.shape`: its policy and its key count."""
        where = "" if self._items_key is None else f" over {self._items_key!r}"
        return f"{super().shape}{where}, {policy_shape(self._barrier)}"

    async def run(self, ctx: InvocationContext) -> list[Any]:
        """Run the worker on every item."""
        outcomes = await ctx.map_outcomes(
            self.worker,
            self._items(ctx),
            barrier=self._barrier,
            max_concurrency=self._max_concurrency,
        )
        return [outcome.output for outcome in outcomes]

    def _items(self, ctx: InvocationContext) -> list[Any]:
        if self._items_key is None:
            given: list[Any] = ctx.input
            return given
        items: list[Any] | None = ctx.state.get(self._items_key)
        if not isinstance(items, list):
            found = "is not there" if items is None else f"is {items!r:.80}"
            hint = "; write the list with output_key, or to ctx.state, before" if not items else ""
            message = (
                f"agent {self.name!r} runs on the list in state[{self._items_key!r}], which "
                f"{found}{hint}"
            )
            raise InputError(message)
        return items
