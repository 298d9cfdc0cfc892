"""What must come of fan-outs, whatever their policy: trees as values, and an interpreter of them.

A `Worker` says, fails, cleans up slowly, swallows its cancellation; a `Team` is a ParallelAgent
with a policy; a `Row` is a SequentialAgent. `expect` works out what must come of such a tree, by a
``tests.support.simulation``: no nursery, no channel, and not a line of ``parallel_agent.barrier``
but the classes that name the policies.

Every pause, timeout and answer takes a time that no sum of others ever takes (`Times`), so things
happen in one order and there is never a choice.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from itertools import count, repeat
from typing import Any, Final, Literal, TypeAlias, TypeVar, assert_never

import attrs

from parallel_agent import Barrier, Escalate, FailFast, FirstSuccess, Quorum, WaitAll
from tests.support.scripts import as_code, printed
from tests.support.simulation import (
    Body,
    CancelledHereError,
    Scope,
    SimulatedError,
    Simulation,
    Task,
)

__all__ = [
    "Case",
    "Choice",
    "End",
    "Ending",
    "Expected",
    "Kind",
    "Line",
    "Node",
    "OnCancel",
    "Row",
    "Team",
    "Times",
    "Worker",
    "expect",
    "is_settled",
    "nodes_of",
    "quorum_of",
]

# Trees.

Kind: TypeAlias = Literal["say", "stop"]
End: TypeAlias = Literal["returns", "fails", "exits"]
OnCancel: TypeAlias = Literal["passes", "returns", "fails", "exits"]
Choice: TypeAlias = Literal["retry", "skip", "abort"]


def _acts(acts: Iterable[tuple[int, Kind]]) -> tuple[tuple[int, Kind], ...]:
    return tuple(acts)


def _ends(ends: Iterable[End]) -> tuple[End, ...]:
    return tuple(ends)


def _members(members: Iterable[Node]) -> tuple[Node, ...]:
    return tuple(members)


def _answers(answers: Iterable[tuple[Choice, int]]) -> tuple[tuple[Choice, int], ...]:
    return tuple(answers)


@attrs.frozen(repr=False)
class Worker:
    """An agent that says something, with pauses before it, and ends.

    Attributes:
        acts: pauses, each with what is emitted after it: a text, or an escalating event.
        last: the pause before its end.
        ends: how it ends the first time it runs, the second... and from then on like the last.
        when_cancelled: what it does about a cancellation; ``"returns"`` swallows it.
        clean_up: how long it cleans up under a shield, however it ends.
        goodbye: whether it says something when it has.
        tries: how many attempts it has.
        timeout: how long an attempt may take.
    """

    name: str
    acts: tuple[tuple[int, Kind], ...] = attrs.field(default=(), converter=_acts)
    last: int = 0
    ends: tuple[End, ...] = attrs.field(default=("returns",), converter=_ends)
    when_cancelled: OnCancel = "passes"
    clean_up: int = 0
    goodbye: bool = False
    tries: int = 1
    timeout: int | None = None
    __repr__ = as_code
    _repr_pretty_ = printed


@attrs.frozen(repr=False)
class Row:
    """A SequentialAgent."""

    name: str
    members: tuple[Node, ...] = attrs.field(converter=_members)
    tries: int = 1
    timeout: int | None = None
    __repr__ = as_code
    _repr_pretty_ = printed


@attrs.frozen(repr=False)
class Team:
    """A ParallelAgent. ``answers`` are a person's, with how long each takes; then it is "skip"."""

    name: str
    members: tuple[Node, ...] = attrs.field(converter=_members)
    policy: Barrier = attrs.field(factory=FailFast)
    limit: int | None = None
    tries: int = 1
    timeout: int | None = None
    answers: tuple[tuple[Choice, int], ...] = attrs.field(default=(), converter=_answers)
    __repr__ = as_code
    _repr_pretty_ = printed

    def answer(self, number: int, times: Times) -> tuple[Choice, float]:
        """Return the answer to a question, counted from 0, and the seconds it takes."""
        number = min(number, len(self.answers))
        choice, beats = (*self.answers, ("skip", 0))[number]
        return choice, times.of(f"{self.name}/answer {number}", beats)


Node: TypeAlias = Worker | Row | Team


@attrs.frozen(repr=False)
class Case:
    """A tree, and when ``run.cancel()`` is called, if ever."""

    tree: Node
    stop: int | None = None
    __repr__ = as_code
    _repr_pretty_ = printed


def nodes_of(tree: Node) -> Iterator[Node]:
    """Go through a tree, parents first."""
    yield tree
    if not isinstance(tree, Worker):
        for member in tree.members:
            yield from nodes_of(member)


class Times:
    """How long things take: so many beats, and a little that is theirs alone.

    Roots of primes: sums of different ones, however often each, are never equal. Rounded, so that
    adding them up is exact.
    """

    def __init__(self, tree: Node, *, apart: bool = True) -> None:
        """Give everything in ``tree`` that takes time an offset of its own; or let things meet."""
        keys = ["stop"]
        for node in nodes_of(tree):
            keys += [f"{node.name}/timeout", f"{node.name}/delay"]
            if isinstance(node, Worker):
                keys += [f"{node.name}/{what}" for what in ("last", "clean_up")]
                keys += [f"{node.name}/{number}" for number in range(len(node.acts))]
            elif isinstance(node, Team):
                keys += [f"{node.name}/answer {number}" for number in range(len(node.answers) + 1)]
        offsets = _roots() if apart else repeat(0.0)
        self._offsets = dict(zip(keys, offsets, strict=False))

    def of(self, key: str, beats: int = 0) -> float:
        """Return the seconds that this takes."""
        return beats + self._offsets[key]


def _roots() -> Iterator[float]:
    for number in count(2):
        if all(number % divisor for divisor in range(2, math.isqrt(number) + 1)):
            yield round(math.sqrt(number) / 100 * _GRAIN) / _GRAIN


_GRAIN: Final = 2.0**36


# Policies, said once more.


def quorum_of(policy: Barrier) -> int | None:
    """Return how many are to complete; None if the policy does not count."""
    match policy:
        case FirstSuccess():
            return 1
        case Quorum(n=n):
            return n
        case _:
            return None


def is_settled(policy: Barrier, width: int, ended: Sequence[str]) -> bool:
    """Whether the rest is to be cancelled, branches having ended like that."""
    quorum = quorum_of(policy)
    if quorum is not None:
        completed = sum(status == "completed" for status in ended)
        at_best = width - (len(ended) - completed)
        return not completed < quorum <= at_best
    return isinstance(policy, FailFast) and "failed" in ended


# What comes out.

Shown: TypeAlias = tuple[Any, ...]
"""An error in plain words: ``("failed", "a 1")``, ``("group", ...)``, ``("timeout", path)``..."""


@attrs.frozen
class Line:
    """One event of the log: when, who, where, and what."""

    time: float
    path: str
    branch: str | None
    what: Any


@attrs.frozen
class Ending:
    """How one branch of a team ended."""

    name: str
    path: str
    status: str
    error: Shown | None = None
    own: bool = False
    output: Any = None
    attempts: int = 0
    duration: float = 0.0

    def recorded(self) -> tuple[Any, ...]:
        """Return what the event of the fan-out says of it."""
        kind = None if self.error is None else self.error[0]
        return self.name, self.status, kind, self.attempts, self.duration


@attrs.frozen
class Expected:
    """What must come of a case.

    Attributes:
        log: everything recorded and delivered.
        endings: how the branches of each team ended, the last time it ran.
        cleaned: when which worker's clean-up had finished.
        error: what is raised.
        status: the run's.
        output: the root's.
        end: when all is over.
    """

    log: tuple[Line, ...]
    endings: Mapping[str, tuple[Ending, ...]]
    cleaned: tuple[tuple[float, str], ...]
    error: Shown | None
    status: str
    output: Any
    end: float


def expect(case: Case) -> Expected:
    """Work out what must come of ``case``."""
    return _Oracle(case).expected()


class _SealedError(SimulatedError):
    """Stands for BranchCancelledError."""


class _FailedError(SimulatedError):
    """A failure. ``own``: no cancellation came before; ``spent``: its attempts are used up."""

    def __init__(self, *shown: Any, own: bool = True) -> None:
        super().__init__(str(shown))
        self.shown = shown
        self.own = own
        self.spent = False

    @property
    def fatal(self) -> bool:
        return bool(self.shown[0] == "exited")


_Cut: Final = (CancelledHereError, _SealedError)

T = TypeVar("T")
_Asking: TypeAlias = Generator["float | list[Task]", None, T]
"""A part of a `Body` that comes to something."""


@attrs.define(eq=False)
class _Live:
    """An activation."""

    node: Node
    above: _Live | None
    branch: str | None
    scope: Scope
    crew: _Crew | None = None
    attempt: int = 1
    status: str = "pending"
    failure: _FailedError | None = None
    output: Any = None
    sealed: bool = False
    began: float = 0.0

    @property
    def path(self) -> str:
        segment = self.node.name if self.attempt == 1 else f"{self.node.name}~{self.attempt}"
        return segment if self.above is None else f"{self.above.path}/{segment}"

    @property
    def is_sealed(self) -> bool:
        return self.sealed or (self.above is not None and self.above.is_sealed)


@attrs.define(eq=False)
class _Crew:
    """A team at work."""

    team: Team
    owner: _Live
    live: list[_Live] = attrs.field(factory=list)
    endings: dict[int, Ending] = attrs.field(factory=dict)
    failures: dict[int, _FailedError] = attrs.field(factory=dict)
    excused: set[int] = attrs.field(factory=set)
    questions: list[Scope] = attrs.field(factory=list)
    closed: bool = False
    escalated: _Live | None = None

    def cancel(self, now: float, *, but: _Live | None = None) -> None:
        for other in self.live:
            if other is not but:
                other.scope.cancel(now)
        for question in self.questions:
            question.cancel(now)


class _Oracle:
    def __init__(self, case: Case) -> None:
        self._case = case
        self._times = Times(case.tree)
        self._world = Simulation()
        self._log: list[Line] = []
        self._endings: dict[str, tuple[Ending, ...]] = {}
        self._cleaned: list[tuple[float, str]] = []
        self._runs: Counter[str] = Counter()

    def expected(self) -> Expected:
        stop = self._case.stop
        root_scope = Scope(None, at=math.inf if stop is None else self._times.of("stop", stop))
        root = _Live(self._case.tree, None, None, root_scope)
        task = Task(root_scope)
        task.body = self._activate(task, root)
        self._world.start(task)
        self._world.run()
        return Expected(
            log=tuple(self._log),
            endings=self._endings,
            cleaned=tuple(sorted(self._cleaned)),
            error=None if root.failure is None else root.failure.shown,
            status=root.status,
            output=root.output if root.status == "completed" else None,
            end=self._world.now,
        )

    # Activations.

    def _activate(self, task: Task, me: _Live) -> Body:
        task.scope = me.scope
        try:
            self._world.checkpoint(me.scope)
            me.status, me.began = "running", self._world.now
            yield from self._attempts(task, me)
            self._world.checkpoint(me.scope)
            me.status = "completed"
        except _FailedError as failure:
            me.status, me.failure = "failed", failure
        except _Cut:
            me.status = "pending" if me.status == "pending" else "cancelled"

    def _attempts(self, task: Task, me: _Live) -> Body:
        for number in range(1, me.node.tries + 1):
            try:
                yield from self._in_time(task, me)
            except _FailedError as failure:
                given_up = failure.fatal or failure.spent or self._world.is_cancelled(me.scope)
                if number == me.node.tries or given_up:
                    failure.spent = failure.spent or number > 1
                    raise
            else:
                return
            yield self._after(f"{me.node.name}/delay")
            me.attempt += 1
            me.output = None

    def _in_time(self, task: Task, me: _Live) -> Body:
        node = me.node
        if node.timeout is None:
            yield from self._work(task, me)
            return
        limit = Scope(me.scope, at=self._after(f"{node.name}/timeout", node.timeout))
        error: SimulatedError | None = None
        task.scope = limit
        try:
            yield from self._work(task, me)
            self._world.checkpoint(limit)
        except (_FailedError, *_Cut) as caught:
            error = caught
        task.scope = me.scope
        if limit.at > self._world.now or self._world.is_cancelled(me.scope):
            if error is not None:
                raise error
        elif isinstance(error, _FailedError) and (error.own or error.fatal):
            raise error
        else:
            raise _FailedError("timeout", me.path)

    def _work(self, task: Task, me: _Live) -> Body:
        match me.node:
            case Worker():
                yield from self._play(task, me, me.node)
            case Row(members=members):
                for member in members:
                    below = _Live(member, me, me.branch, Scope(task.scope))
                    runner = Task(below.scope)
                    runner.body = self._activate(runner, below)
                    self._world.start(runner)
                    yield [runner]
                    if below.failure is not None:
                        raise below.failure
                    if below.status != "completed":
                        raise CancelledHereError
                    me.output = below.output
            case Team():
                yield from self._fan_out(task, me, me.node)
            case _:
                assert_never(me.node)

    def _play(self, task: Task, me: _Live, node: Worker) -> Body:
        name = node.name
        self._runs[name] += 1
        number = self._runs[name]
        end = node.ends[min(number, len(node.ends)) - 1]
        text = f"{name} {number}"
        try:
            for position, (beats, kind) in enumerate(node.acts):
                yield self._after(f"{name}/{position}", beats)
                self._emit(task, me, f"{name} {kind}s {position}")
                if kind == "stop":
                    self._end_others(me)
            yield self._after(f"{name}/last", node.last)
            if end != "returns":
                raise _FailedError("failed" if end == "fails" else "exited", text)
        except CancelledHereError:
            match node.when_cancelled:
                case "passes":
                    raise
                case "returns":
                    text = "stolen"
                case how:
                    word = "failed" if how == "fails" else "exited"
                    raise _FailedError(word, f"{text} cleaning up", own=False) from None
        finally:
            yield from self._clean_up(task, me, node)
        self._emit(task, me, text)
        me.output = text

    def _clean_up(self, task: Task, me: _Live, node: Worker) -> Body:
        around = task.scope
        if node.clean_up:
            task.scope = Scope(around, shield=True)
            yield self._after(f"{node.name}/clean_up", node.clean_up)
        self._cleaned.append((self._world.now, node.name))
        try:
            if node.clean_up and node.goodbye:
                self._emit(task, me, f"{node.name} says goodbye")
        finally:
            task.scope = around

    # Teams.

    def _fan_out(self, task: Task, me: _Live, team: Team) -> Body:
        self._world.checkpoint(task.scope)
        crew = _Crew(team, me)
        todo = enumerate(team.members)
        runners: list[Task] = []
        for _ in team.members[: team.limit]:
            runner = Task(Scope(task.scope))
            runner.body = self._take_turns(runner, crew, todo)
            runners.append(runner)
        for runner in runners:
            self._world.start(runner)
        yield runners
        endings = tuple(
            crew.endings.get(position, Ending(node.name, f"{me.path}/{node.name}", "cancelled"))
            for position, node in enumerate(team.members)
        )
        if crew.escalated is not None:
            crew.excused |= set(range(len(endings))) - set(crew.endings)
        self._endings[team.name] = endings
        interrupt: SimulatedError | None = None
        try:
            self._emit(task, me, tuple(ending.recorded() for ending in endings))
        except _Cut as error:
            interrupt = error
        failure = self._answer(crew, endings, interrupted=interrupt is not None)
        if failure is not None:
            raise failure
        if interrupt is not None:
            raise interrupt
        me.output = {
            ending.name: ending.output for ending in endings if ending.status == "completed"
        }

    def _take_turns(self, task: Task, crew: _Crew, todo: Iterator[tuple[int, Node]]) -> Body:
        around = task.scope
        for position, node in todo:
            if crew.closed:
                return
            segment = f"{crew.team.name}.{node.name}"
            branch = crew.owner.branch
            branch = segment if branch is None else f"{branch}.{segment}"
            child = _Live(node, crew.owner, branch, Scope(around), crew)
            began: float | None = None
            while True:
                crew.live.append(child)
                yield from self._activate(task, child)
                task.scope = around
                crew.live.remove(child)
                began = child.began if began is None else began
                crew.endings[position] = self._ending(child, began)
                if child.failure is not None:
                    crew.failures[position] = child.failure
                choice = yield from self._consequence(task, crew, position, child)
                if choice != "retry":
                    break
                del crew.endings[position], crew.failures[position]
                scope = Scope(around)
                child = _Live(node, crew.owner, branch, scope, crew, child.attempt + 1)

    def _ending(self, child: _Live, began: float) -> Ending:
        started, failure = child.status != "pending", child.failure
        return Ending(
            child.node.name,
            child.path,
            child.status if started else "cancelled",
            None if failure is None else failure.shown,
            failure is not None and failure.own and not failure.fatal,
            child.output if child.status == "completed" else None,
            child.attempt if started else 0,
            self._world.now - began if started else 0.0,
        )

    def _consequence(
        self, task: Task, crew: _Crew, position: int, child: _Live
    ) -> _Asking[Choice | None]:
        failure, team = child.failure, crew.team
        statuses = [ending.status for ending in crew.endings.values()]
        if failure is not None and failure.fatal:
            ends = True
        elif failure is not None and isinstance(team.policy, Escalate):
            choice: Choice = "abort" if crew.escalated is child and failure.own else "skip"
            if not crew.closed:
                choice = yield from self._ask(task, crew, child)
            if choice == "retry":
                return choice
            ends = choice == "abort"
            if not ends:
                crew.excused.add(position)
        else:
            ends = is_settled(team.policy, len(team.members), statuses)
        if crew.escalated is not None and child.is_sealed:
            crew.excused.add(position)
        if ends and not crew.closed:
            crew.closed = True
            crew.cancel(self._world.now)
        return None

    def _ask(self, task: Task, crew: _Crew, child: _Live) -> _Asking[Choice]:
        team, around = crew.team, task.scope
        question = task.scope = Scope(around)
        crew.questions.append(question)
        try:
            self._emit(task, crew.owner, f"asks about {child.path}")
            choice, seconds = team.answer(self._runs[team.name], self._times)
            self._runs[team.name] += 1
            yield self._world.now + seconds
            line = Line(self._world.now, "user", crew.owner.branch, f"answers {choice}")
            self._log.append(line)
        except _Cut:
            return "skip"
        finally:
            crew.questions.remove(question)
            task.scope = around
        return choice

    def _answer(
        self, crew: _Crew, endings: Sequence[Ending], *, interrupted: bool
    ) -> _FailedError | None:
        policy = crew.team.policy
        for _, failure in sorted(crew.failures.items()):
            if failure.fatal:
                return failure
        counted = [at for at in range(len(endings)) if at not in crew.excused]
        failed = [crew.failures[at] for at in counted if at in crew.failures]
        own = [failure for failure in failed if failure.own]
        if isinstance(policy, FailFast | Escalate):
            return next(iter(own or failed), None)
        combined: _FailedError | None = None
        if quorum_of(policy) is not None:
            combined = self._shortfall(crew, endings, interrupted=interrupted)
        elif isinstance(policy, WaitAll) and failed:
            combined = _FailedError("group", *(failure.shown for failure in own or failed))
        if combined is not None:
            combined.spent = any(failure.spent for failure in own or failed)
            ended = [
                endings[at].status
                for at in counted
                if endings[at].own or endings[at].status == "completed"
            ]
            if interrupted and len(ended) < len(counted):
                combined.own = is_settled(policy, len(endings), ended)
        return combined

    def _shortfall(
        self, crew: _Crew, endings: Sequence[Ending], *, interrupted: bool
    ) -> _FailedError | None:
        quorum, excused = quorum_of(crew.team.policy) or 0, crew.excused
        completed = sum(ending.status == "completed" for ending in endings)
        cut_off = [
            at for at, ending in enumerate(endings) if ending.status == "cancelled" or at in excused
        ]
        # What was cut off by somebody else's decision might have completed.
        decided = crew.escalated is not None and crew.escalated.failure is None
        might_have = cut_off if interrupted else excused if decided else ()
        if completed + len(might_have) >= quorum:
            return None
        reasons = [
            failure.shown for at, failure in sorted(crew.failures.items()) if at not in excused
        ] or [("cut off", endings[at].name) for at in cut_off]
        return _FailedError("quorum", completed, quorum, len(endings), *reasons)

    def _end_others(self, me: _Live) -> None:
        crew = me.crew
        if crew is None or crew.escalated is not None:
            return
        crew.escalated, crew.closed = me, True
        crew.cancel(self._world.now, but=me)
        for other in crew.live:
            other.sealed = other is not me

    # Events.

    def _emit(self, task: Task, me: _Live, what: Any) -> None:
        if me.is_sealed:
            raise _SealedError
        self._world.checkpoint(task.scope)
        self._log.append(Line(self._world.now, me.path, me.branch, what))

    def _after(self, key: str, beats: int = 0) -> float:
        return self._world.now + self._times.of(key, beats)
