"""What goes wrong in exploring, as errors that say what to do."""

from __future__ import annotations

from collections.abc import Sequence

from parallel_agent.testing.steps import Step

__all__ = ["DeadlockError", "EndlessRunError", "NondeterminismError", "ScheduleError"]


class DeadlockError(AssertionError):
    """Nothing can ever happen again, and the run has not ended.

    Attributes:
        waits: who waits for what: paths of activations, with a description.
    """

    def __init__(self, waits: Sequence[tuple[str, str]]) -> None:
        """``waits``: paths of activations, and what each waits for."""
        self.waits = tuple(waits)
        lines = "\n".join(f"  {path} waits {what}" for path, what in self.waits)
        super().__init__(f"deadlock: nothing can happen any more\n{lines or '  nobody runs'}")


class EndlessRunError(AssertionError):
    """The run did not end within so many steps."""

    def __init__(self, limit: int, last: Sequence[Step]) -> None:
        """``last``: the newest steps."""
        actors = dict.fromkeys(step.actor for step in last if step.actor != "time")
        super().__init__(
            f"the run has not ended after {limit} steps; those that went last: "
            f"{', '.join(actors) or 'nobody, time only passed'}. If it needs more, raise max_steps"
        )


class NondeterminismError(AssertionError):
    """The same choices did not lead to the same run."""

    def __init__(self, expected: str, found: str) -> None:
        """Tell what happened the last time, and what happened now instead."""
        super().__init__(
            f"the same schedule ran differently: the last time, {expected}; now, {found}. "
            "Agents under exploration must do the same when they are run again: make new ones "
            "for each run, and take random numbers, ids and time from what the test gives them"
        )


class ScheduleError(ValueError):
    """A schedule does not fit the tree that it is to be replayed on."""
