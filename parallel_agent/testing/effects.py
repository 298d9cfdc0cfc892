"""What a step of one task has to do with others: found out while it is done, and right after.

Whatever is not noticed here, the search takes for independent. So where there is no telling, a
step is *decisive*: it may depend on any other.

Sync throughout, but for what passes calls on: nothing here waits by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, Final, cast, final

import attrs
from trio.lowlevel import Task, current_task

from parallel_agent.activation import Activation
from parallel_agent.barrier import Outcome, Policy, Rule
from parallel_agent.crew import Crew
from parallel_agent.invocation import Invocation
from parallel_agent.lifecycle import Status
from parallel_agent.limiter import Limiter
from parallel_agent.testing.steps import Access, Step
from parallel_agent.testing.waits import waits_inside
from parallel_agent.testing.watched import StateWatch
from session.event import Event

__all__ = ["Effects", "NoticedRandom"]

_LIVE: Final = (Status.PENDING, Status.RUNNING)

_TALK: Final = frozenset({"receive", "ask", "send"})
"""The functions of ours in which an agent waits for people, or for messages."""

_WAITS: Final = "waits"
"""What agents share that wait at locks, events and channels of trio's: any of them. Which it was
cannot be told from one run to the next."""


@attrs.define(eq=False)
class _Seen:
    """How much of a run's log is accounted for."""

    prefix: str
    events: int


@final
class Effects:
    """Learns what steps do.

    Args:
        on_access: told of every access to state.
        reader_acts: whether the reader does more than read: it may send, or answer, after any
            event.

    Attributes:
        current: the step that is being done.
    """

    def __init__(
        self, on_access: Callable[[Access], None] | None = None, *, reader_acts: bool = False
    ) -> None:
        """Begin with nothing to learn of."""
        self.current: Step | None = None
        self._on_access = on_access
        self._reader_acts = reader_acts
        self._watch = StateWatch(self._note_access)
        self._runs: dict[Invocation, _Seen] = {}
        self._labels: dict[Activation, str] = {}
        self._live: dict[Activation, tuple[bool, bool]] = {}
        self._crews: dict[Activation, Crew] = {}
        self._limits: dict[Limiter, int] = {}
        self._touchy: set[Activation] = set()
        self._talkers: set[Activation] = set()
        self._waiters: set[Activation] = set()
        self._inside: dict[Task, list[str]] = {}
        self._is_emitting = False

    # What there is.

    def adopt(self, activation: Activation) -> None:
        """Learn of an activation that has just been made."""
        invocation = activation.invocation
        if invocation not in self._runs:
            self._enter(invocation)
        # The same for all attempts, unlike its path.
        place, parent = activation.place, activation.parent
        name = place.author if place.number is None else f"{place.author}@{place.number}"
        above = self._runs[invocation].prefix if parent is None else f"{self._labels[parent]}/"
        self._labels[activation] = f"{above}{name}"
        if parent is not None and self.current is not None:
            self.current.starts.add(self._labels[parent])
        crew = _crew_of(activation)
        if crew is not None:
            self._crews[activation] = crew
        self._live[activation] = (False, False)
        for limiter in invocation.limiters(activation.agent.limiter):
            self._limits.setdefault(limiter, len(self._limits))
        self._watch.adopt(activation)

    def _enter(self, invocation: Invocation) -> None:
        prefix = f"{len(self._runs) + 1}:" if self._runs else ""
        self._runs[invocation] = _Seen(prefix, len(invocation.stream.session.events))
        invocation.outcomes = _Outcomes(self, invocation.outcomes)
        invocation.artifacts = cast("Any", _Noticed(self, "artifacts", invocation.artifacts))
        invocation.memory = cast("Any", _Noticed(self, "memory", invocation.memory))

    def name(self, activation: Activation) -> str:
        """Return what the tasks of an activation are called by: its path."""
        return f"{self._runs[activation.invocation].prefix}{activation.place.path}"

    def label(self, activation: Activation) -> str:
        """Return the place of an activation in the tree, the same for all attempts."""
        return self._labels[activation]

    @property
    def invocations(self) -> tuple[Invocation, ...]:
        """The runs that were opened, in order."""
        return tuple(self._runs)

    def struck(self) -> BaseException | None:
        """Return what has struck an agent from outside, if something has: a test's time limit, say.

        It makes another run of the same schedule.
        """
        raised = (activation.error for activation in self._labels)
        return next((error for error in raised if not isinstance(error, Exception | None)), None)

    # While a step is done.

    def begin(self, step: Step, activation: Activation, work: object, task: Task | None) -> None:
        """Begin a step, of which some things are known in advance."""
        self.current = step
        step.label = self._labels[activation]
        entrance, children = activation.entrance, activation.children or ()
        step.decisive = (
            activation in self._touchy
            or len(self._runs) > 1
            or activation.tap is not None
            or any(child.tap is not activation.tap for child in children)
            or (activation in self._talkers and (work is None or waits_inside(work, _TALK)))
            or (self._reader_acts and step.event is not None)
        )
        self._touchy.discard(activation)
        for limiter in activation.invocation.limiters(activation.agent.limiter):
            step.shares.add(f"limiter {self._limits[limiter]}")
        if entrance is not None and activation.parent is not None:
            above = self._labels[activation.parent]
            if entrance.gate is not None:
                step.shares.add(f"entrance {above}")
            if activation.status is Status.PENDING:
                step.starts.add(above)  # what it will see is settled now
        step.shares.update(self._inside.get(task, ()) if task is not None else ())
        if activation in self._waiters:
            step.shares.add(_WAITS)

    def note(self, activation: Activation, what: str) -> None:
        """Learn that an agent has to do with others."""
        step = self.current
        if what == "message":
            self._talkers.add(activation)
        if step is None:
            return
        if what == "history":
            step.sees_events = True
            return
        step.decisive = True
        if what == "schedule":
            self._touchy.add(activation)  # what comes after it, too

    def share(self, name: str) -> None:
        """Learn that the step has to do with what is called that."""
        if self.current is not None:
            self.current.shares.add(name)

    def share_waits(self, activation: Activation) -> None:
        """Learn that an agent waits at what is not the runtime's, or wakes who waits there.

        From now on: what it has acquired it will release, and nobody tells.
        """
        self._waiters.add(activation)
        self.share(_WAITS)

    @contextmanager
    def sharing(self, name: str) -> Generator[None]:
        """Learn that the steps of this task have to do with it until the block ends."""
        inside = self._inside.setdefault(current_task(), [])
        inside.append(name)
        self.share(name)
        try:
            yield
        finally:
            self.share(name)
            inside.remove(name)

    def emitting(self, activation: Activation, event: Event) -> None:
        """Learn that an event is about to be queued, and what it changes for all."""
        if event.partial:
            return
        self._is_emitting = True
        self._watch.event(activation, event)
        self._is_emitting = False
        if self.current is not None:
            writes = self.current.writes
            writes.update(event.explicit_delta, activation.state.pending)
            if activation.agent.output_key is not None:
                writes.add(activation.agent.output_key)

    def _note_access(self, access: Access) -> None:
        # What an event changes is no look: see `emitting`.
        if self.current is not None and not self._is_emitting:
            self.current.accesses.append(access)
        if self._on_access is not None:
            self._on_access(access)

    # Right after.

    def settle(self, activation: Activation) -> Step:
        """Find out what the step did that others may notice, now that everything waits."""
        step, self.current = self.current, None
        if step is None:
            raise AssertionError
        self._look_at_logs(step)
        cancels: list[str] = []
        ended: list[str] = []
        decides: set[str] = set()
        if step.event is not None and step.event.actions.escalate:
            decides |= self._decided(_crew_of(activation), None)
        for one, before in list(self._live.items()):
            if one.status in _LIVE:
                now = (one.scope.cancel_called, one.lane.sealed)
                if now != before:
                    self._live[one] = now
                    cancels.append(self._labels[one])
                continue
            del self._live[one]
            ended.append(self._labels[one])
            if one.status is Status.COMPLETED:
                step.shares.add(f"output {one.agent.name}")
            decides |= self._decided(self._crews.pop(one, None), one.status)
        step.cancels, step.ended = frozenset(cancels), frozenset(ended)
        step.decides = frozenset(decides)
        return step

    def catch_up(self) -> None:
        """Account for what was recorded while no step was being done."""
        for invocation, seen in self._runs.items():
            seen.events = len(invocation.stream.session.events)

    def _look_at_logs(self, step: Step) -> None:
        for invocation, seen in self._runs.items():
            events = invocation.stream.session.events
            if len(events) == seen.events:
                continue
            recorded = tuple(events[seen.events :])
            seen.events = len(events)
            step.recorded += recorded
            step.decisive |= self._reader_acts
            for event in recorded:
                step.writes.update(event.state_delta)
                step.decisive |= event is not step.event and event.escalate

    def _decided(self, crew: Crew | None, status: Status | None) -> set[str]:
        """Return the fan-out that may end its other branches because of how one has ended."""
        if crew is None:
            return set()
        policy: Policy | None = getattr(crew.barrier, "policy", None)
        if policy is not None:
            match status:
                case Status.COMPLETED:
                    rule = policy.completed
                case Status.FAILED:
                    rule = policy.failed
                case Status.CANCELLED:
                    rule = policy.cancelled
                case _:
                    rule = Rule.CANCEL
            if rule is Rule.GO_ON:
                return set()
        return {self._labels[crew.owner]}


def _crew_of(activation: Activation) -> Crew | None:
    """Return the fan-out whose branch an activation is; or the one that has handed over to it."""
    one: Activation | None = activation
    while one is not None and one.on_escalate is not None:
        crew = getattr(one.on_escalate, "__self__", None)
        if isinstance(crew, Crew):
            return crew
        one = one.parent
    return None


class _Outcomes(dict[str, tuple[Outcome, ...]]):
    """How fan-outs have ended: tells who asks."""

    def __init__(self, effects: Effects, outcomes: dict[str, tuple[Outcome, ...]]) -> None:
        super().__init__(outcomes)
        self._effects = effects

    def __getitem__(self, name: str) -> tuple[Outcome, ...]:
        self._effects.share(f"outcomes {name}")
        return super().__getitem__(name)

    def __setitem__(self, name: str, outcomes: tuple[Outcome, ...]) -> None:
        self._effects.share(f"outcomes {name}")
        super().__setitem__(name, outcomes)

    def __iter__(self) -> Iterator[str]:
        if self._effects.current is not None:
            self._effects.current.decisive = True  # it looks at which there are
        return super().__iter__()


class _Noticed:
    """A service beside the session: tells who uses it."""

    def __init__(self, effects: Effects, name: str, service: object) -> None:
        self._effects = effects
        self._name = name
        self._service = service

    def __getattr__(self, name: str) -> Any:
        attribute: Any = getattr(self._service, name)
        if not callable(attribute):
            return attribute
        method = cast("Callable[..., Any]", attribute)

        async def call(*args: Any, **kwargs: Any) -> Any:
            with self._effects.sharing(self._name):
                if self._effects.current is not None:
                    self._effects.current.sees_events = True  # it may be given the session
                return await method(*args, **kwargs)

        return call


@final
class NoticedRandom(Random):
    """Random numbers whose order matters to those who draw them."""

    def __init__(self, effects: Effects, seed: int) -> None:
        """Draw what ``Random(seed)`` would."""
        super().__init__(seed)
        self._effects = effects

    def random(self) -> float:
        """Draw one."""
        self._effects.share("random")
        return super().random()
