"""A plugin that keeps the `Progress` of every run of its runner."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from parallel_agent.barrier import Outcome
from parallel_agent.context import InvocationContext, activation_of
from parallel_agent.notes import describe
from parallel_agent.observe.progress import Progress
from parallel_agent.plugin import Plugin

if TYPE_CHECKING:
    from parallel_agent.result import Result

__all__ = ["Tracker"]


class Tracker(Plugin):
    """Notes which agents have started and ended.

    Args:
        name: see `Plugin`.
        clock: seconds, from any beginning.

    What it keeps may be read in any thread that holds ``lock``.
    """

    def __init__(
        self, name: str | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """See the class."""
        super().__init__(name)
        self.lock = threading.RLock()
        self.clock = clock
        self._runs: dict[str, Progress] = {}

    @property
    def runs(self) -> tuple[Progress, ...]:
        """The runs that have not ended, in the order they began."""
        return tuple(self._runs.values())

    def working(self) -> list[str]:
        """Return the paths of the agents at work, the innermost of each line."""
        with self.lock:
            return [path for progress in self._runs.values() for path in progress.working()]

    def cancel(self, why: str) -> None:
        """Note that the runs are being cancelled. Cancels nothing itself."""
        with self.lock:
            for progress in self._runs.values():
                progress.cancel(why)

    def progress_of(self, ctx: InvocationContext) -> Progress:
        """Return the progress of the run that ``ctx`` is of."""
        # Made when first asked for: a hook of a plugin before this one may have answered for all.
        progress = self._runs.get(ctx.invocation_id)
        if progress is None:
            progress = Progress(activation_of(ctx).root.agent, now=self.clock())
            self._runs[ctx.invocation_id] = progress
        return progress

    async def before_agent_callback(self, ctx: InvocationContext) -> None:
        """Note that an agent has started."""
        with self.lock:
            self.progress_of(ctx).started(ctx.path, ctx.agent, now=self.clock())

    def on_agent_end(self, ctx: InvocationContext, outcome: Outcome) -> None:
        """Note how it ended."""
        why = "" if outcome.error is None else ": ".join(describe(outcome.error))
        with self.lock:
            self.progress_of(ctx).ended(
                ctx.path, ctx.agent, outcome.status, now=self.clock(), why=why
            )

    async def after_run_callback(self, ctx: InvocationContext, result: Result) -> None:
        """Forget the run."""
        with self.lock:
            self.progress_of(ctx).finish(result.status, now=self.clock())
            del self._runs[ctx.invocation_id]
