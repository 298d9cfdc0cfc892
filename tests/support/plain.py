"""The sync host in tests: virtual time, and a look at what is left of it."""

from __future__ import annotations

import threading
from typing import Any, Final

import trio
from trio.testing import MockClock

from parallel_agent import Agent, Result, sync

__all__ = ["ours", "read_all", "real_run", "run_in_virtual_time"]

real_run: Final = trio.run


def run_in_virtual_time(*args: Any, **kwargs: Any) -> Any:
    """Be ``trio.run``, on a clock that jumps."""
    kwargs.setdefault("clock", MockClock(autojump_threshold=0))
    return real_run(*args, **kwargs)


def ours() -> list[str]:
    """Return the names of the threads that are the host's."""
    return [one.name for one in threading.enumerate() if one.name.startswith("parallel_agent.sync")]


def read_all(tree: Agent) -> Result:
    """Open a run, read it to its end, return its result."""
    with sync.open_sync(tree) as run:
        run.collect()
    return run.result
