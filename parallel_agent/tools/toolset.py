"""Toolsets: tools that are there while something is open, such as a connection to a server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from parallel_agent.context import InvocationContext
from parallel_agent.tools.tool import Tool

__all__ = ["Toolset"]


class Toolset(ABC):
    """Tools that are opened, used, and closed again.

    Among an agent's tools, a toolset is opened at the beginning of each activation of the agent
    and closed at its end, both in the agent's own task: what it opens may hold nurseries and
    cancel scopes. To keep it open for longer, open it yourself, and give the agent the tools::

        async with toolset.open() as tools:
            agent = LlmAgent("helper", model, tools=tools)

    A definition, shared by agents and runs: each opening is another.
    """

    @abstractmethod
    def open(
        self, ctx: InvocationContext | None = None
    ) -> AbstractAsyncContextManager[Sequence[Tool]]:
        """Return a block in which the tools can be called.

        Args:
            ctx: the context of the agent that opens it; None if somebody else does.

        Raises:
            Exception: what is to be opened cannot be; the agent fails with it, as it is.
        """
