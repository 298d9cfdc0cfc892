"""What must come of a tree on kept time: an interpreter that does one thing after another.

Written from the design and the kernel's laws, not from the kernel: no queue, no channel, no
batches. An emit appends to a list; state is a dict; a branch that sees something has it in a
list of its own. Time decides who goes next, and since every task wakes at moments of its own
(see ``tests.support.timing``) there is never a choice.

The reader it assumes takes no time. It may stop at any event, in any way.

Its tasks and scopes are those of ``tests.support.simulation``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, assert_never

import attrs

from parallel_agent import StateConflictError
from session.event import BranchOutcome
from tests.support.recording import Looked
from tests.support.running import START, Case, Report
from tests.support.scripts import (
    Beside,
    Chain,
    Cleanup,
    Contribute,
    Emit,
    Fail,
    Fan,
    Leaf,
    Look,
    Loop,
    Node,
    Pause,
    Step,
    Within,
    Write,
    lanes_of,
)
from tests.support.simulation import (
    Body,
    CancelledHereError,
    Scope,
    SimulatedError,
    Simulation,
    Task,
)
from tests.support.timing import Kept

__all__ = ["Expected", "Line", "Seen", "agrees", "expect", "observed"]


@attrs.frozen
class Line:
    """One event of the log: who, what, and what it changes."""

    path: str
    branch: str | None
    text: str
    delta: Mapping[str, Any]
    outcomes: tuple[tuple[str, str, str | None], ...] = ()


@attrs.frozen
class Seen:
    """What one look showed: the events by their place in the log, and the state."""

    path: str
    seqs: tuple[int, ...]
    state: Mapping[str, Any]


@attrs.frozen
class Expected:
    """What must come of a case.

    Attributes:
        log: everything recorded.
        delivered: the texts of what the reader gets, partial events included.
        state: the session's in the end, without ``temp:`` keys.
        looks: what each look showed.
        statuses: how often each final status was reached.
        status: the run's.
        failure: the labels of the failed steps that the error consists of; None without one.
        output: the root's.
    """

    log: tuple[Line, ...]
    delivered: tuple[str, ...]
    state: Mapping[str, Any]
    looks: tuple[Seen, ...]
    statuses: Mapping[str, int]
    status: str
    failure: tuple[str, ...] | None
    output: Any


def agrees(report: Report) -> None:
    """Assert that what came of a case is what must come of it."""
    expected = expect(report.case)
    seen = observed(report)
    for field in attrs.fields(Expected):
        mine, theirs = getattr(expected, field.name), getattr(seen, field.name)
        assert theirs == mine, (
            f"{field.name}: expected\n{_listed(mine)}\nbut saw\n{_listed(theirs)}"
        )


def _listed(value: object) -> str:
    return (
        "\n".join(f"  {item!r}" for item in value) if isinstance(value, tuple) else f"  {value!r}"
    )


def observed(report: Report) -> Expected:
    """Return what came of a case in the terms of what must."""
    statistics = report.statistics
    delivered = tuple(event.text for event in report.delivered)
    log = tuple(
        Line(
            event.path,
            event.branch,
            event.text,
            dict(event.state_delta),
            tuple((one.name, one.status, _message(one)) for one in event.actions.outcomes),
        )
        for event in report.events
    )
    return Expected(
        log=log,
        delivered=delivered,
        state=dict(report.result.state),
        looks=tuple(_looks_in(report)),
        statuses={
            "completed": statistics.completed,
            "failed": statistics.failed,
            "cancelled": statistics.cancelled,
        },
        status=str(report.result.status),
        failure=None if report.error is None else tuple(_leaves_of_error(report.error)),
        output=report.result.output,
    )


def _message(outcome: BranchOutcome) -> str | None:
    # How a group is put into words is not the oracle's business.
    return _GROUP if outcome.error_type == "ExceptionGroup" else outcome.error_message


_GROUP = "a group of failures"


def _looks_in(report: Report) -> Iterable[Seen]:
    for entry in report.notebook.entries:
        if isinstance(entry, Looked):
            yield Seen(entry.path, entry.seqs, entry.state)


def _leaves_of_error(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return sorted(leaf for inner in error.exceptions for leaf in _leaves_of_error(inner))
    if isinstance(error, StateConflictError):
        return [" ".join((error.key, *error.branches))]
    return [str(error)]


def expect(case: Case) -> Expected:
    """Work out what must come of ``case``, which is on kept time and has a prompt reader."""
    assert case.kept
    assert case.store is None
    assert not case.reader.pauses
    return _Oracle(case).expected()


class _SealedError(SimulatedError):
    """Stands for BranchCancelledError."""


class _FailedError(SimulatedError):
    """A failure, with the labels of the steps that failed."""

    def __init__(self, labels: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.labels = labels
        self.message = message


# The interpreter.


@attrs.define(eq=False)
class _Branch:
    """A branch: what it sees, and what it will show to its parent when it has joined."""

    name: str | None
    view: list[int]
    parent: _Branch | None = None
    own: list[int] = attrs.field(factory=list)
    sealed: bool = False

    def is_below(self, other: _Branch) -> bool:
        branch: _Branch | None = self
        while branch is not None and branch is not other:
            branch = branch.parent
        return branch is other

    def add(self, seqs: Iterable[int]) -> None:
        self.view.extend(seqs)
        self.own.extend(seqs)


@attrs.define(eq=False)
class _Activation:
    node: Node
    path: str
    branch: _Branch
    parent: _Activation | None
    scope: Scope
    status: str = "running"
    failure: _FailedError | None = None
    own_failure: bool = False
    reached: bool = False
    output: Any = None
    explicit_output: bool = False
    escalated: bool = False
    fan: _FanOut | None = None  # the fan-out this is a direct child of
    pending: dict[str, Any] = attrs.field(factory=dict)
    contributed: dict[str, list[Any]] = attrs.field(factory=dict)


@attrs.define(eq=False)
class _FanOut:
    children: list[_Activation]
    decided: bool = False


class _Oracle:
    def __init__(self, case: Case) -> None:
        self._case = case
        self._timing = Kept(lanes_of(case.tree))
        self._world = Simulation()
        self._log: list[Line] = []
        self._delivered: list[str] = []
        self._state: dict[str, Any] = dict(START)
        self._writers: dict[str, tuple[_Activation, int]] = {}
        self._looks: list[Seen] = []
        self._statuses = {"completed": 0, "failed": 0, "cancelled": 0}
        self._root_scope = Scope(None)
        self._branches: list[_Branch] = []
        self._reading = True
        self._stopped = False

    def expected(self) -> Expected:
        task = Task(self._root_scope)
        root = _Activation(
            self._case.tree, self._case.tree.name, _Branch(None, []), None, self._root_scope
        )
        self._stop_if_due()
        task.body = self._activate(task, root)
        self._world.start(task)
        self._world.run()
        failure = None if root.failure is None else root.failure.labels
        way = self._case.reader.way
        status = root.status
        if self._stopped and status == "completed":
            status = "cancelled"
        if self._stopped and way == "scope":
            failure = None  # the block was left with a cancellation, which the scope caught
        if self._stopped and way == "raise":
            failure = (f"after {self._case.reader.at}",)
        return Expected(
            log=tuple(self._log),
            delivered=tuple(self._delivered),
            state={key: value for key, value in self._state.items() if not key.startswith("temp:")},
            looks=tuple(self._looks),
            statuses=self._statuses,
            status=status,
            failure=failure,
            output=root.output if status == "completed" else None,
        )

    # The reader.

    def _stop_if_due(self) -> None:
        reader = self._case.reader
        if reader.way == "end" or self._stopped or len(self._delivered) < reader.at:
            return
        self._stopped = True
        self._reading = reader.way == "run.cancel"
        self._root_scope.cancel(self._world.now)

    # Activations.

    def _activate(self, task: Task, me: _Activation, *, started: bool = False) -> Body:
        """Run one activation to its one final status. Raises nothing."""
        error: SimulatedError | None = None
        task.scope = me.scope
        try:
            if not started:
                self._world.checkpoint(me.scope)
            yield from self._run(task, me)
            if me.pending or me.contributed:
                self._emit(task, me, "", {})
            self._world.checkpoint(task.scope)
        except (CancelledHereError, _SealedError, _FailedError) as caught:
            error = caught
        match error:
            case None:
                me.status = "completed"
            case _FailedError():
                me.status, me.failure = "failed", error
                if isinstance(me.node, Leaf):
                    me.own_failure = not me.reached
            case _:
                me.status = "cancelled"
        self._statuses[me.status] += 1

    def _run(self, task: Task, me: _Activation) -> Body:
        match me.node:
            case Leaf(steps=steps):
                yield from self._steps(task, me, steps)
            case Chain(children=children):
                for child in children:
                    yield from self._run_child(task, me, child, "")
            case Loop(children=children, iterations=iterations):
                for iteration in range(iterations):
                    for child in children:
                        yield from self._run_child(task, me, child, f"@{iteration + 1}")
                        if me.escalated:
                            break
                    if me.escalated:
                        break
            case Fan(children=children):
                yield from self._fan_out(task, me, children)
            case _:
                assert_never(me.node)

    def _run_child(self, task: Task, me: _Activation, node: Node, number: str) -> Body:
        child = _Activation(
            node, f"{me.path}/{node.name}{number}", me.branch, me, Scope(task.scope)
        )
        runner = Task(child.scope)
        runner.body = self._activate(runner, child)
        self._world.start(runner)
        yield [runner]
        if child.failure is not None:
            me.own_failure = child.own_failure
            raise child.failure
        if child.status == "cancelled":
            raise _SealedError if me.branch.sealed else CancelledHereError
        me.output = child.output

    def _fan_out(self, task: Task, me: _Activation, nodes: Iterable[Node]) -> Body:
        fan = _FanOut([])
        runners: list[Task] = []
        for node in nodes:
            segment = f"{me.node.name}.{node.name}"
            branch = _Branch(
                segment if me.branch.name is None else f"{me.branch.name}.{segment}",
                list(me.branch.view),
                me.branch,
            )
            self._branches.append(branch)
            child = _Activation(
                node, f"{me.path}/{node.name}", branch, me, Scope(task.scope), fan=fan
            )
            fan.children.append(child)
            runner = Task(child.scope)
            runner.body = self._activate(runner, child, started=True)
            runner.on_end = lambda _task, child=child: self._fail_fast(fan, child)
            runners.append(runner)
        for runner in runners:
            self._world.start(runner)
        yield runners
        me.branch.add(sorted(seq for child in fan.children for seq in child.branch.own))
        me.output = {
            child.node.name: child.output for child in fan.children if child.status == "completed"
        }
        interrupt: SimulatedError | None = None
        try:
            self._emit(task, me, "", {}, outcomes=tuple(map(_outcome, fan.children)))
        except (CancelledHereError, _SealedError) as error:
            interrupt = error
        failed = [
            child
            for child in fan.children
            if child.failure is not None and not (fan.decided and child.branch.sealed)
        ]
        own = [child for child in failed if child.own_failure]
        for chosen in own or failed:
            assert chosen.failure is not None
            me.own_failure = chosen.own_failure
            raise chosen.failure
        if interrupt is not None:
            raise interrupt

    def _fail_fast(self, fan: _FanOut, child: _Activation) -> None:
        # A loser of an escalation changes nothing by how it cleans up: the winner runs to its end.
        if child.status == "failed" and not (fan.decided and child.branch.sealed):
            for other in fan.children:
                if other is not child:
                    other.scope.cancel(self._world.now)

    def _note_reach(self, task: Task, me: _Activation) -> None:
        """Note it if what is raised in ``task`` is the cancellation of the whole activation."""
        scope: Scope | None = task.scope
        while scope is not None and scope is not me.scope and not scope.shield:
            scope = scope.parent
        if scope is me.scope and self._world.is_cancelled(me.scope):
            me.reached = True

    # What a leaf does.

    def _steps(  # noqa: C901, PLR0912  # one case per kind of step
        self, task: Task, me: _Activation, steps: Iterable[Step]
    ) -> Body:
        for step in steps:
            match step:
                case Emit():
                    self._emit(
                        task,
                        me,
                        step.label,
                        step.delta,
                        escalate=step.escalate,
                        partial=step.partial,
                        output=step.output,
                    )
                case Write(key=key, value=value):
                    if not _same(self._visible(me).get(key, _Nothing), value):
                        me.pending[key] = value
                case Contribute(key=key, value=value):
                    me.contributed.setdefault(key, []).append(value)
                case Pause(beats=beats, lane=lane):
                    try:
                        yield self._timing.next(lane, self._world.now, beats)
                    except CancelledHereError:
                        self._note_reach(task, me)
                        raise
                case Fail(label=label):
                    raise _FailedError((label,), label)
                case Look():
                    self._looks.append(Seen(me.path, tuple(me.branch.view), self._visible(me)))
                case Within(beats=beats, steps=inner, lane=lane):
                    deadline = self._timing.next(lane, self._world.now, beats)
                    yield from self._within(task, me, Scope(task.scope, at=deadline), inner)
                case Cleanup(steps=inner, after=after, shielded=shielded):
                    try:
                        yield from self._steps(task, me, inner)
                    finally:
                        scope = Scope(task.scope, shield=shielded)
                        yield from self._within(task, me, scope, after)
                case Beside(background=background, steps=inner):
                    yield from self._beside(task, me, background, inner)
                case _:
                    assert_never(step)

    def _within(self, task: Task, me: _Activation, scope: Scope, steps: Iterable[Step]) -> Body:
        task.scope = scope
        try:
            yield from self._steps(task, me, steps)
        except CancelledHereError:
            assert scope.parent is not None
            # A scope catches what is its own, unless one around it is cancelled as well.
            if scope.at > self._world.now or (
                self._world.is_cancelled(scope.parent) and not scope.shield
            ):
                raise
        finally:
            assert scope.parent is not None
            task.scope = scope.parent

    def _beside(
        self,
        task: Task,
        me: _Activation,
        background: Iterable[Step],
        steps: Iterable[Step],
    ) -> Body:
        nursery = Scope(task.scope)
        beside = Task(nursery)
        beside.body = self._steps(beside, me, background)
        beside.on_end = lambda ended: nursery.cancel(self._world.now) if ended.error else None
        self._world.start(beside)
        errors: list[SimulatedError] = []
        task.scope = nursery
        try:
            yield from self._steps(task, me, steps)
        except (CancelledHereError, _SealedError, _FailedError) as error:
            errors.append(error)
            nursery.cancel(self._world.now)
        yield [beside]
        assert nursery.parent is not None
        task.scope = nursery.parent
        if beside.error is not None:
            errors.append(beside.error)
        failures = [error for error in errors if isinstance(error, _FailedError)]
        if failures:
            labels = tuple(sorted(label for error in failures for label in error.labels))
            raise _FailedError(labels, _GROUP)
        if any(isinstance(error, _SealedError) for error in errors):
            raise _SealedError
        if errors and self._world.is_cancelled(nursery.parent):
            raise CancelledHereError

    # Events and state.

    def _emit(
        self,
        task: Task,
        me: _Activation,
        text: str,
        delta: Mapping[str, Any],
        *,
        escalate: bool = False,
        partial: bool = False,
        output: Any = None,
        outcomes: tuple[tuple[str, str, str | None], ...] = (),
    ) -> None:
        if me.branch.sealed:
            raise _SealedError
        if self._world.is_cancelled(task.scope):
            self._note_reach(task, me)
            raise CancelledHereError
        if not partial:
            before = me.output, me.explicit_output
            self._write_output(me, text, output)
            writes = self._settle(me, delta)
            try:
                for key in writes:
                    self._check_conflict(me, key)
            except _FailedError:
                # What is refused was never emitted: it gives no output either.
                me.output, me.explicit_output = before
                raise
            self._record(me, text, writes, outcomes)
            self._note_output(me, text, output)
            if escalate:
                self._escalate(me)
        if self._reading:
            self._delivered.append(text)
            self._stop_if_due()
        # The reader has cancelled the run while it held the event: recorded, not acknowledged.
        if self._world.is_cancelled(task.scope):
            self._note_reach(task, me)
            raise CancelledHereError

    def _settle(self, me: _Activation, delta: Mapping[str, Any]) -> dict[str, Any]:
        writes = dict(me.pending)
        contributed = {key: list(values) for key, values in me.contributed.items()}
        me.pending.clear()
        me.contributed.clear()
        for key, value in delta.items():
            if key in _REDUCE:
                contributed.setdefault(key, []).append(value)
            else:
                writes[key] = value
        for key, values in contributed.items():
            writes[key] = _reduced(key, self._state.get(key), values)
        return writes

    def _check_conflict(self, me: _Activation, key: str) -> None:
        if self._case.on_conflict != "error" or key in _REDUCE or key not in self._writers:
            return
        writer, seq = self._writers[key]
        if writer is not me and seq not in me.branch.view:
            first, second = (one.branch.name or "(root)" for one in (writer, me))
            message = str(StateConflictError(key, first, second))
            raise _FailedError((f"{key} {first} {second}",), message)

    def _record(
        self,
        me: _Activation,
        text: str,
        writes: dict[str, Any],
        outcomes: tuple[tuple[str, str, str | None], ...],
    ) -> None:
        self._state.update(writes)
        stored = {key: value for key, value in writes.items() if not key.startswith("temp:")}
        self._log.append(Line(me.path, me.branch.name, text, stored, outcomes))
        me.branch.add([len(self._log)])
        for key in stored:
            self._writers[key] = (me, len(self._log))

    def _write_output(self, me: _Activation, text: str, output: Any) -> None:
        key = me.node.output_key if isinstance(me.node, Leaf) else None
        if key is None:
            return
        before = me.output
        self._note_output(me, text, output)
        if me.output != before and not _same(self._visible(me).get(key, _Nothing), me.output):
            me.pending[key] = me.output

    def _note_output(self, me: _Activation, text: str, output: Any) -> None:
        if output is not None:
            me.output, me.explicit_output = output, True
        elif text and not me.explicit_output:
            me.output = text

    def _escalate(self, me: _Activation) -> None:
        if me.fan is not None and not me.fan.decided:
            me.fan.decided = True
            for other in me.fan.children:
                if other is not me and other.status == "running":
                    other.scope.cancel(self._world.now)
                    self._seal(other.branch)
        above = me.parent
        while above is not None and not isinstance(above.node, Loop):
            above = above.parent
        if above is not None:
            above.escalated = True

    def _seal(self, branch: _Branch) -> None:
        for other in self._branches:
            other.sealed = other.sealed or other.is_below(branch)

    def _visible(self, me: _Activation) -> dict[str, Any]:
        visible = {**self._state, **me.pending}
        for key, values in me.contributed.items():
            visible[key] = _reduced(key, visible.get(key), values)
        return visible


class _Nothing:
    """Stands for the value of a key that was never written."""


def _outcome(child: _Activation) -> tuple[str, str, str | None]:
    message = None if child.failure is None else child.failure.message
    return child.node.name, child.status, message


def _same(one: Any, other: Any) -> bool:
    # Two values that differ only in their type are two values: 1 and True, say.
    return type(one) is type(other) and bool(one == other)


def _reduced(key: str, current: Any, contributions: Iterable[Any]) -> Any:
    for contribution in contributions:
        current = _REDUCE[key](current, contribution)
    return current


_REDUCE: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "sum": lambda current, more: more if current is None else current + more,
    "all": lambda current, more: [*(current or []), more],
}
