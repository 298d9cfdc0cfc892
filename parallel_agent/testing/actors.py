"""Who goes, and who decides it.

Pure: nothing here waits.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, Protocol, final

import attrs
from trio.lowlevel import Task

from parallel_agent.activation import Activation
from parallel_agent.testing.steps import Step
from session.event import Event

__all__ = ["Actor", "Chooser"]


@final
@attrs.define(eq=False)
class Actor:
    """A task that is steered.

    Attributes:
        name: the path of its activation; from the second task of an agent on, with a number.
        rank: where it stands among the others: activations in the order of their making.
        activation: whose task it is; None is the reader.
        work: what it runs.
        task: runs it.
        event: what it is about to emit.
        emitter: whose event that is: a branch that starts records what its fan-out has written.
        causes: the positions of the steps without which it could not go.
    """

    name: str
    rank: tuple[int, int]
    activation: Activation | None
    work: Coroutine[Any, Any, Any] | None = None
    task: Task | None = None
    event: Event | None = None
    emitter: Activation | None = None
    causes: tuple[int, ...] = ()


class Chooser(Protocol):
    """Decides who goes next."""

    def choose(self, actors: Sequence[Actor]) -> int:
        """Return the position of the one that goes; they are in the order of their rank."""
        ...

    def note(self, step: Step) -> None:
        """Learn what the one that was chosen did. Also of time that passed."""
        ...
