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
        line: the branch itself.
        tick: when the newest branch was forked from it by then; 0 if none was.
        combined: the key has a reducer.
    """

    key: str
    writes: bool = attrs.field(kw_only=True)
    branch: str | None
    where: str
    line: Branch = attrs.field(factory=Branch, repr=False, eq=False)
    tick: int = attrs.field(default=0, repr=False)
    combined: bool = attrs.field(default=False, repr=False)

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
        label: the place of its activation in the tree, the same for all attempts.
        at: the moment, in seconds of virtual time.
        accesses: what it did with state.
        writes: the keys that its event has changed for all.
        recorded: what came out of the run in it: its event, and what the reader sent meanwhile.
        sees_events: it looked at which events there are.
        shares: what else it had to do with that others may have to do with, by name: a limit,
            an artifact, the output of an agent.
        cancels: the labels of the activations that it has cancelled, or whose branch it has closed.
        decides: the labels of the fan-outs whose other branches it would have ended, were they not
            over already.
        starts: the labels of those below which it has started something.
        ended: the labels of the activations that came to an end in it.
        decisive: it may depend on any other step: a message was sent, time has passed, something
            was touched of which the runtime does not know.
        causes: the positions of the steps without which it could not have come.
    """

    actor: str
    event: Event | None = None
    rank: tuple[int, int] = (0, 0)
    label: str = ""
    at: float = 0.0
    accesses: list[Access] = attrs.Factory(list[Access])
    writes: set[str] = attrs.Factory(set[str])
    recorded: tuple[Event, ...] = ()
    sees_events: bool = False
    shares: set[str] = attrs.Factory(set[str])
    cancels: frozenset[str] = frozenset()
    decides: frozenset[str] = frozenset()
    starts: set[str] = attrs.Factory(set[str])
    ended: frozenset[str] = frozenset()
    decisive: bool = False
    causes: tuple[int, ...] = ()

    @property
    def emits(self) -> bool:
        """Whether it emits."""
        return self.event is not None or bool(self.recorded)

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
    if _is_at_or_below(one.label, other.label) or _is_at_or_below(other.label, one.label):
        return True  # they share the agent's variables; or one can cancel the other, unseen
    if one.emits and other.emits:
        return True  # the log has an order
    if (one.sees_events and other.emits) or (other.sees_events and one.emits):
        return True
    if not one.shares.isdisjoint(other.shares):
        return True
    return _ends(one, other) or _ends(other, one) or _reads(one, other) or _reads(other, one)


def _is_at_or_below(label: str, above: str) -> bool:
    return label.startswith(above) and label[len(above) : len(above) + 1] in ("", "/")


def _ends(step: Step, other: Step) -> bool:
    """Whether one ends what the other belongs to, or would have; or starts what comes after it."""
    for above in step.cancels:
        if _is_at_or_below(other.label, above) or above in other.cancels:
            return True
    for label in other.ended:
        for above in step.decides:
            if _is_at_or_below(label, above):
                return True
        if label.rpartition("/")[0] in step.starts:
            return True
    return False


def _reads(step: Step, other: Step) -> bool:
    written = other.writes
    if not written or not step.accesses:
        return False
    reads = step.reads
    return EVERY_KEY in reads or not reads.isdisjoint(written)
