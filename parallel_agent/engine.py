"""What an activation may start, handed to it from the floors above."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs

from parallel_agent.drive import run_child
from parallel_agent.fan_out import Task, fan_out
from parallel_agent.group import OpenFanOut

__all__ = ["ENGINE"]


@attrs.frozen
class _Engine:
    run_child: Callable[..., Any] = run_child
    fan_out: Callable[..., Any] = fan_out
    open_group: Callable[..., Any] = OpenFanOut
    task: Callable[..., Any] = Task


ENGINE: Final = _Engine()
"""The one there is."""
