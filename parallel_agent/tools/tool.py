"""What a tool is: a name, what it is told to be, what it takes, and a call.

Whoever wants more than a function implements `Tool`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from parallel_agent.model_errors import ToolDefinitionError
from parallel_agent.tools.context import ToolContext

__all__ = ["Approval", "Tool", "check_tool_name"]

Approval: TypeAlias = bool | Callable[[Mapping[str, Any]], bool]
"""Whether a person must approve of a call: yes, no, or what a function of its arguments says."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


class Tool(ABC):
    """Something that a model may have called, by its name.

    A definition, shared by agents and runs: it keeps nothing of a call.

    Args:
        name: letters, digits, ``_`` and ``-``, at most 64: what servers take.
        description: what it does, for the model.
        needs_approval: whether a person is asked before it is called.
        is_long_running: its result comes later than its call: what it returns is that it has
            begun, and the agent ends its turn with it.

    Raises:
        ToolDefinitionError: the name is none.
    """

    def __init__(
        self,
        name: str,
        description: str = "",
        *,
        needs_approval: Approval = False,
        is_long_running: bool = False,
    ) -> None:
        """See the class."""
        check_tool_name(name)
        self._name = name
        self._description = description
        self._needs_approval = needs_approval
        self._is_long_running = is_long_running

    @property
    def name(self) -> str:
        """What the model calls it."""
        return self._name

    @property
    def description(self) -> str:
        """What it does, for the model."""
        return self._description

    @property
    def is_long_running(self) -> bool:
        """Whether its result comes later than its call."""
        return self._is_long_running

    @property
    @abstractmethod
    def parameters(self) -> Mapping[str, Any]:
        """The JSON Schema of its arguments, an object."""

    @abstractmethod
    async def call(self, ctx: ToolContext, arguments: Mapping[str, Any]) -> Any:
        """Do it, and return the result: JSON, or an object that has a JSON form.

        Calls of one turn run side by side, in tasks of the agent's; a cancellation of the agent
        reaches each of them.

        Args:
            ctx: the context of the call.
            arguments: what the model has given, not yet checked.

        Raises:
            ToolArgumentsError: the arguments do not fit; the model is told.
            Exception: it has failed; whether the model is told or the agent fails is the agent's.
        """

    def wants_approval(self, arguments: Mapping[str, Any]) -> bool:
        """Return whether a person must approve of a call with these arguments."""
        needs = self._needs_approval
        return needs if isinstance(needs, bool) else bool(needs(arguments))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}>"


def check_tool_name(name: object) -> None:
    """Refuse what is no name of a tool.

    Raises:
        ToolDefinitionError: with what one is.
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        message = (
            f"tool name {name!r:.80} is none: letters, digits, _ and -, no digit first, "
            "at most 64 of them"
        )
        raise ToolDefinitionError(message)
