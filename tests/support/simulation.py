"""Tasks, scopes and virtual time without an event loop: one task goes at a time, the next in time.

What trio does about cancellation (deadlines, shields, nurseries that join) in a few lines, so
that the oracle need not run on what it is to judge. A task is a generator that yields what it
waits for: a moment, or other tasks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import TypeAlias

__all__ = ["Body", "CancelledHereError", "Scope", "SimulatedError", "Simulation", "Task"]


class SimulatedError(Exception):
    """What may end a task of a simulation. Anything else is a bug of the simulation's own."""


class CancelledHereError(SimulatedError):
    """Stands for trio.Cancelled."""


class Scope:
    """Stands for a cancel scope, or a nursery's. ``at``: when it is cancelled, as things stand."""

    def __init__(self, parent: Scope | None, *, at: float = math.inf, shield: bool = False) -> None:
        """Open inside ``parent``."""
        self.parent = parent
        self.at = at
        self.shield = shield

    def cancel(self, now: float) -> None:
        """Cancel it."""
        self.at = min(self.at, now)

    def cancelled_from(self) -> float:
        """Return when a task in this scope is cancelled, as things stand."""
        at = math.inf
        scope: Scope | None = self
        while scope is not None:
            at = min(at, scope.at)
            scope = None if scope.shield else scope.parent
        return at


Body: TypeAlias = Generator["float | list[Task]", None, None]


class Task:
    """Something that goes on by itself. ``on_end`` is called when it has ended."""

    def __init__(self, scope: Scope) -> None:
        """Make a task inside ``scope``; its ``body`` is to be set."""
        self.scope = scope
        self.body: Body | None = None
        self.begun = False
        self.waits_for: float | list[Task] = 0.0
        self.error: SimulatedError | None = None
        self.on_end: Callable[[Task], None] | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.body is None


class Simulation:
    """A world of tasks, and its time."""

    def __init__(self) -> None:
        """Begin at 0, without a task."""
        self.now = 0.0
        self._tasks: list[Task] = []

    def start(self, task: Task) -> None:
        """Let ``task`` go on from now on."""
        self._tasks.append(task)

    def run(self) -> None:
        """Go on until every task has ended. At one moment, who started first goes first."""
        while self._tasks:
            moments = [(self._next_moment(task), task) for task in self._tasks]
            moment, task = min(moments, key=lambda item: item[0])
            assert not math.isinf(moment), "the script waits for ever"
            self.now = max(self.now, moment)
            self._step(task)

    def is_cancelled(self, scope: Scope) -> bool:
        """Whether a task in ``scope`` is cancelled now."""
        return scope.cancelled_from() <= self.now

    def checkpoint(self, scope: Scope) -> None:
        """Raise `CancelledHereError` if it is."""
        if self.is_cancelled(scope):
            raise CancelledHereError

    def _next_moment(self, task: Task) -> float:
        if isinstance(task.waits_for, list):
            return self.now if all(other.done for other in task.waits_for) else math.inf
        return max(self.now, min(task.waits_for, task.scope.cancelled_from()))

    def _step(self, task: Task) -> None:
        assert task.body is not None
        joins = isinstance(task.waits_for, list)  # which goes on to the end, cancelled or not
        try:
            if task.begun and not joins and self.is_cancelled(task.scope):
                task.waits_for = task.body.throw(CancelledHereError())
            else:
                task.begun = True
                task.waits_for = next(task.body)
        except StopIteration:
            task.body = None
        except SimulatedError as error:
            task.error = error
            task.body = None
        if task.body is None:
            self._tasks.remove(task)
            if task.on_end is not None:
                task.on_end(task)
