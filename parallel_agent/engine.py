"""What an activation may start, handed to it from the floors above."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs

from parallel_agent.crew import Task
from parallel_agent.drive import run_child, suspend
from parallel_agent.fan_out import fan_out
from parallel_agent.group import OpenFanOut
from parallel_agent.tap import OpenAgent

__all__ = ["ENGINE"]


@attrs.frozen
class _Engine:
    run_child: Callable[..., Any] = run_child
    fan_out: Callable[..., Any] = fan_out
    open_group: Callable[..., Any] = OpenFanOut
    open_agent: Callable[..., Any] = OpenAgent
    task: Callable[..., Any] = Task
    suspend: Callable[..., Any] = suspend


ENGINE: Final = _Engine()
"""The one there is."""
