"""Ending an activation together with everything that runs below it."""

from __future__ import annotations

import trio

from parallel_agent.activation import Activation
from parallel_agent.lane import seal

__all__ = ["cancel_subtree", "seal_subtree", "stop_starting"]


def stop_starting(top: Activation) -> None:
    """Let nothing new start below ``top``, which is about to be cancelled."""
    line = [top]
    for activation in line:
        activation.barren = True
        line.extend(activation.children or ())


def cancel_subtree(top: Activation, reason: str) -> None:
    """Cancel ``top`` and everything below it, noting whom the cancellation reaches.

    A failure counts as an activation's own unless a cancellation was delivered to it first.
    Whether one was delivered shows in the number of runnable tasks: cancelling wakes what is
    parked, and leaves alone what is about to run anyway (two branches failing in one tick), what
    is shielded, and what waits for a thread. Innermost first, so that each scope wakes only tasks
    of its own activation.
    """
    line = [top]
    for activation in line:
        line.extend(activation.children or ())
    for activation in reversed(line):
        runnable = trio.lowlevel.current_statistics().tasks_runnable
        activation.scope.cancel(reason)
        if trio.lowlevel.current_statistics().tasks_runnable > runnable:
            activation.reached = True


def seal_subtree(top: Activation) -> None:
    """Seal every branch in use at or below ``top``, whose tasks have been cancelled."""
    line = [top]
    for activation in line:
        line.extend(activation.children or ())
        if not activation.lane.sealed:
            seal(activation.lane)
