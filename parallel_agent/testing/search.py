"""Every schedule of a tree, each once: depth first, without those that make no difference.

Dynamic partial-order reduction with source sets and sleep sets (Abdulla, Aronis, Jonsson and
Sagonas, POPL 2014): after each run, two dependent steps that could have come the other way make a
schedule in which they do; what was tried at a choice sleeps below the others until something it
depends on has happened. So of the schedules that differ only in the order of independent steps,
one is run to its end.

Pure: nothing here waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import attrs

from parallel_agent.testing.control import Actor
from parallel_agent.testing.errors import NondeterminismError
from parallel_agent.testing.schedule import Schedule
from parallel_agent.testing.steps import Step, dependent

__all__ = ["RedundantError", "Search"]


class RedundantError(Exception):
    """What is left of this schedule has been run already, in another order."""


@attrs.define(eq=False)
class _Node:
    """One choice on the way that is being gone.

    Attributes:
        options: who could go.
        taken: who goes.
        position: of the step that followed, among all of the run.
        wanted: whom to try here, as far as is known.
        tried: who has been tried, and the step it did.
        asleep: who need not be tried, and the step it would do.
    """

    options: tuple[str, ...]
    taken: str
    position: int
    wanted: set[str]
    tried: dict[str, Step]
    asleep: dict[str, Step]


@final
class Search:
    """A way through all schedules; one call of `begin` and `end` around each run.

    Args:
        reduce: leave out what makes no difference.

    Attributes:
        exhausted: all schedules have been run.
        longest: how many choices there were in a run, at most, among more than one.
    """

    def __init__(self, *, reduce: bool = True) -> None:
        """Begin with the schedule in which the first goes first."""
        self._reduce = reduce
        self._path: list[_Node] = []
        self._depth = 0
        self._steps: list[Step] = []
        self._last: list[Step] = []
        self._known = 0
        self.exhausted = False
        self.longest = 0

    # One run: `parallel_agent.testing.control.Chooser`.

    def begin(self) -> None:
        """Begin a run."""
        self._depth = 0
        self._steps, self._last = [], self._steps

    def choose(self, actors: Sequence[Actor]) -> int:
        """Go where no run has gone.

        Raises:
            RedundantError: there is nothing new below.
            NondeterminismError: the way here was another the last time.
        """
        options = tuple(actor.name for actor in actors)
        if self._depth < len(self._path):
            node = self._path[self._depth]
            if node.options != options:
                position = len(self._steps)
                raise NondeterminismError(
                    f"before step {position}, those who could go were {', '.join(node.options)}",
                    f"they are {', '.join(options)}",
                )
        else:
            # Who does not emit goes first: what it is up to is known the sooner, and fewer
            # schedules turn out to have been run already.
            quiet = next((actor.name for actor in actors if actor.event is None), options[0])
            node = self._new_node(options, quiet)
            self._path.append(node)
        self._depth += 1
        return options.index(node.taken)

    def note(self, step: Step) -> None:
        """Learn what was done.

        Raises:
            NondeterminismError: it did something else the last time.
        """
        position = len(self._steps)
        self._steps.append(step)
        if position < self._known and _outline(step) != _outline(self._last[position]):
            raise NondeterminismError(
                f"step {position} was {_told(self._last[position])}", f"it is {_told(step)}"
            )

    def _new_node(self, options: tuple[str, ...], best: str) -> _Node:
        asleep = self._still_asleep()
        awake = [name for name in options if name not in asleep]
        if not awake:
            raise RedundantError
        taken = best if best in awake else awake[0]
        wanted = {taken} if self._reduce else set(options)
        return _Node(options, taken, len(self._steps), wanted, {}, asleep)

    def _still_asleep(self) -> dict[str, Step]:
        """Return who sleeps after the newest choice: what was done since has not woken them."""
        if not self._reduce or not self._path:
            return {}
        above = self._path[-1]
        since = self._steps[above.position :]
        return {
            name: step
            for name, step in {**above.asleep, **above.tried}.items()
            if not any(step.actor == one.actor or dependent(step, one) for one in since)
        }

    @property
    def schedule(self) -> Schedule:
        """What was chosen, where there was a choice."""
        return Schedule(node.taken for node in self._path[: self._depth] if len(node.options) > 1)

    # Between two runs.

    def end(self) -> bool:
        """Find the next schedule. Return whether there is one."""
        del self._path[self._depth :]
        self.longest = max(self.longest, len(self.schedule))
        if self._reduce:
            self._look_for_races()
        while self._path:
            node = self._path[-1]
            if node.position < len(self._steps):
                node.tried[node.taken] = self._steps[node.position]
            else:
                node.tried.setdefault(node.taken, Step(node.taken, decisive=True))
            left = [
                name
                for name in node.options
                if name in node.wanted and name not in node.tried and name not in node.asleep
            ]
            if left:
                node.taken = left[0]
                self._known = node.position
                return True
            self._path.pop()
        self.exhausted = True
        return False

    @property
    def progress(self) -> float:
        """Which share of the schedules has been run, as far as can be told now: from 0 to 1."""
        done, share = 0.0, 1.0
        for node in self._path:
            left = {*node.wanted, node.taken}.difference(node.tried, node.asleep)
            share /= len(node.tried) + len(left)
            done += share * len(node.tried)
        return 1.0 if self.exhausted else done

    def _look_for_races(self) -> None:
        """Where two dependent steps could have come the other way, want that."""
        nodes = {node.position: node for node in self._path}
        steps = self._steps
        # Bit sets of the steps that come before each, in every order of the same outcome.
        before: list[int] = []
        last: dict[str, int] = {}
        for j, step in enumerate(steps):
            before.append(0)
            for cause in (last.get(step.actor, -1), *step.causes):
                if cause >= 0:
                    before[j] |= before[cause] | (1 << cause)
            for i in range(j - 1, -1, -1):
                if before[j] >> i & 1:
                    continue
                if steps[i].actor != step.actor and dependent(steps[i], step):
                    if j >= self._known and i in nodes:
                        self._want(nodes[i], i, j, before)
                    before[j] |= before[i] | (1 << i)
            last[step.actor] = j

    def _want(self, node: _Node, i: int, j: int, before: list[int]) -> None:
        """Let step ``j`` be tried before step ``i``: by what has to come first then."""
        # What does not come after step i: all of it could be done in its place.
        freed = [k for k in range(i + 1, j) if not before[k] >> i & 1]
        freed.append(j)
        seen = 0
        first: list[str] = []
        for k in freed:
            if not before[k] & seen:
                first.append(self._steps[k].actor)
            seen |= 1 << k
        if any(name in node.wanted or name in node.asleep for name in first):
            return
        node.wanted.update(first[:1] if first[0] in node.options else node.options)


def _outline(step: Step) -> tuple[object, ...]:
    # Not what an event says: that may well differ, as long as everybody does the same.
    keys = [(access.key, access.writes) for access in step.accesses]
    return step.actor, step.emits, keys, step.writes, step.cancels, step.ended


def _told(step: Step) -> str:
    keys = ", ".join(dict.fromkeys(access.key for access in step.accesses))
    ended = f", and {', '.join(sorted(step.ended))} ended" if step.ended else ""
    return f"{step!r}" + (f" with state {keys}" if keys else "") + ended
