"""What branches did, one step at a time, and which steps could as well have come the other way.

A *step* is what one task does between two places at which others may go: it goes on and runs until
it waits again, or it emits one event. Two steps are *independent* if their order cannot be noticed
by anybody: neither emits what the other reads, and not both emit.

Pure: nothing here waits.
"""

from __future__ import annotations

from typing import final

import attrs

from parallel_agent.branch import Branch
from session.event import Event

__all__ = ["Access", "Step", "dependent"]

EVERY_KEY = "*"
"""Stands for all keys: somebody looked at which there are."""


@attrs.frozen
class Access:
    """One look at a state key, or one write to it.

    Attributes:
        key: which.
        writes: whether it was written.
        branch: the branch that did it; None is the root's.
        where: file and line of the agent's code, as ``file.py:12``; "" if it was the runtime's.
        seq: the newest event by then.
        combined: the key has a reducer.
    """

    key: str
    writes: bool = attrs.field(kw_only=True)
    branch: str | None
    where: str
    seq: int = attrs.field(default=0, repr=False)
    combined: bool = attrs.field(default=False, repr=False)
    line: Branch = attrs.field(factory=Branch, repr=False, eq=False)

    def describe(self) -> str:
        """Say what was done, where."""
        who = "the root branch" if self.branch is None else f"branch {self.branch}"
        return f"{who} {'writes' if self.writes else 'reads'} it at {self.where or 'its end'}"


@final
@attrs.define(eq=False)
class Step:
    """One step of one task.

    Attributes:
        actor: whose: the path of its activation; ``path#2`` is a second task of the same agent.
        event: what was emitted in it; None if the task just went on.
        rank: where it stands among the others: activations in the order of their making.
        at: the moment, in seconds of virtual time.
        accesses: what it did with state.
        writes: the keys that its event has changed for all.
        sees_events: it looked at which events there are.
        cancels: the paths of the activations that it has cancelled, or whose branch it has closed.
        decides: the paths of the fan-outs whose other branches it would have ended, were they not
            over already.
        ended: the paths of the activations that came to an end in it.
        decisive: it may depend on any other step: a message was sent, time has passed, something
            was touched of which the runtime does not know.
        enabled_by: the position of the step that made it possible; -1 is the beginning.
    """

    actor: str
    event: Event | None = None
    rank: tuple[int, int] = (0, 0)
    at: float = 0.0
    accesses: list[Access] = attrs.Factory(list[Access])
    writes: frozenset[str] = frozenset()
    sees_events: bool = False
    cancels: frozenset[str] = frozenset()
    decides: frozenset[str] = frozenset()
    ended: frozenset[str] = frozenset()
    decisive: bool = False
    enabled_by: int = -1

    @property
    def emits(self) -> bool:
        """Whether it emits."""
        return self.event is not None

    @property
    def reads(self) -> frozenset[str]:
        """The keys it looked at."""
        return frozenset(access.key for access in self.accesses)

    def __repr__(self) -> str:
        what = "goes on" if self.event is None else f"emits {self.event.text!r:.40}"
        return f"<Step {self.actor} {what}>"


def dependent(one: Step, other: Step) -> bool:
    """Whether the order of two steps of different tasks can be noticed."""
    if one.decisive or other.decisive:
        return True
    if one.emits and other.emits:
        return True  # the log has an order
    if (one.sees_events and other.emits) or (other.sees_events and one.emits):
        return True
    if one.cancels or other.cancels:
        if _ends(one, other.actor) or _ends(other, one.actor):
            return True
        if not one.cancels.isdisjoint(other.cancels):
            return True
    if _decides(one, other) or _decides(other, one):
        return True
    return _reads(one, other.writes) or _reads(other, one.writes)


def _decides(one: Step, other: Step) -> bool:
    return any(path.startswith(f"{above}/") for above in one.decides for path in other.ended)


def _ends(step: Step, actor: str) -> bool:
    path = f"{actor.partition('#')[0]}/"
    return any(path.startswith(f"{above}/") for above in step.cancels)


def _reads(step: Step, written: frozenset[str]) -> bool:
    if not written or not step.accesses:
        return False
    reads = step.reads
    return EVERY_KEY in reads or not reads.isdisjoint(written)
