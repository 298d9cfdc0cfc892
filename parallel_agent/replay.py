"""Going on with a run: what has ended is not run again, what has not starts anew.

Composite agents run their control flow again, and find their children ended; `Replay.settle` brings
an activation to the end that is noted in the log, without a step of its own. Whoever has not ended
starts again: with its checkpoint, its answers and its messages, if there are any.

A failure that is in the log is raised again as a `RecordedFailureError`, which is also of the class
that was raised, if that is loaded: so ``except`` and `Retry` treat it as they did.

Sync throughout: nothing here waits.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, final

from parallel_agent.activation import Activation
from parallel_agent.barrier import Outcome
from parallel_agent.branch import Branch
from parallel_agent.errors import RecordedFailureError, ReplayMismatchError
from parallel_agent.journal import digest
from parallel_agent.lifecycle import Status, Step
from parallel_agent.past import Asked, Checkpoint, Ended, Failure, Past
from parallel_agent.post import branch_owner, refill
from parallel_agent.shared_state import Contributions, Layer
from session.event import Event

__all__ = ["Replay", "recorded_failure"]

_STEPS: Final = {
    Status.COMPLETED: Step.COMPLETE,
    Status.FAILED: Step.FAIL,
    Status.CANCELLED: Step.CANCEL,
    Status.WAITING: Step.WAIT,
}

_SHOWN: Final = 5


@final
class Replay:
    """What a resumed run knows of itself."""

    def __init__(self, past: Past) -> None:
        """Go on from ``past``."""
        self.past = past
        self.until = past.until
        self._lines: dict[int, Branch] = {}
        self._newest = 0
        self._claimed: dict[str, set[str]] = {}

    # Activations.

    def settle(self, activation: Activation) -> bool:
        """Bring a pending activation to its recorded end, if there is one. Otherwise prepare it."""
        if activation.tap is not None:
            return False
        path = activation.begun.path
        ended = self.past.ended(path)
        if ended is None:
            return self._wait(activation) or self._prepare(activation, path)
        above = "" if activation.parent is None else activation.parent.place.path
        self._claimed.setdefault(above, set()).add(path)
        if not self._is_same(activation, ended):
            return False
        self._settle(activation, ended)
        return True

    def _wait(self, activation: Activation) -> bool:
        """Let a pending activation end as waiting if nobody has answered it, and nobody will."""
        invocation = activation.invocation
        asked = self.past.asked_by(activation.begun.path)
        asked = [one for one in asked if one.is_of_its_agent]
        if (
            not asked
            or invocation.config.on_wait != "suspend"
            or any(one.answer is not None for one in asked)
        ):
            return False
        self._show(self.past.kept_at(activation.begun.path), activation.lane.branch)
        for one in asked:
            invocation.requests.leave_again(activation, one.event)
        activation.suspended = True
        _end(activation, Status.WAITING)
        return True

    def _is_same(self, activation: Activation, ended: Ended) -> bool:
        given = digest(activation.input) if activation.own_input else None
        if ended.input == given or ended.input is None:
            return True
        message = (
            f"{ended.begun} was given something else when this run was recorded: what starts it "
            "has decided otherwise this time. Decide by what was given and what is in "
            "ctx.checkpoint(), or give branches keys"
        )
        activation.invocation.stream.fail(ReplayMismatchError(message, [ended.begun]))
        return False

    def _settle(self, activation: Activation, ended: Ended) -> None:
        for _ in range(1, ended.attempts):
            activation.place = activation.place.again()
        self._show(ended.events(), activation.lane.branch)
        if activation.state.layer is not None:
            _write_again(activation.state.layer, ended)
        if ended.failure is not None:
            activation.error = recorded_failure(ended.failure)
            activation.own = ended.own
            if ended.given_up:
                activation.given_up = activation.error
        activation.output = ended.output
        activation.was_over = True
        _end(activation, ended.status)
        activation.duration = ended.duration
        activation.passed_escalation = ended.escalated
        if ended.escalated == "own":
            activation.escalate()
        elif ended.escalated is not None:
            activation.pass_escalation()

    def _prepare(self, activation: Activation, path: str) -> bool:
        """Give one that starts again what it is to have; it has not ended, so return False."""
        self._show(self.past.kept_at(path), activation.lane.branch)
        if branch_owner(activation) is activation:
            sent = self.past.messages.get(path, ())
            waiting = [one for one in sent if (one.seq or 0) not in self.past.received]
            if waiting:
                refill(activation, waiting)
        if not activation.agent.has_attempts:
            self.begin_attempt(activation)
        return False

    def in_order(self, above: str, names: Sequence[str]) -> list[int]:
        """Return which of the children ``names`` of ``above`` have ended, as they did."""
        found = [
            # After the decision, whose place in the log it has.
            (ended.seq, ended.cut_off, position)
            for position, name in enumerate(names)
            if (ended := self.past.ended(f"{above}/{name}")) is not None
        ]
        return [position for *_, position in sorted(found)]

    def ended_at(self, activation: Activation) -> int | None:
        """Return the place in the log of an activation's end, if that is recorded."""
        ended = self.past.ended(activation.begun.path)
        return None if ended is None or activation.tap is not None else ended.seq

    def has_escalated(self, path: str) -> bool:
        """Return whether an activation had escalated by an event of its own, and not ended."""
        return path in self.past.escalations and self.past.ended(path) is None

    def check_children(self, activation: Activation) -> None:
        """Refuse an activation that has completed and has not started what it had started."""
        path = activation.place.path
        claimed = self._claimed.pop(path, set())
        checkpoint = self.past.checkpoint(path)
        since = 0 if checkpoint is None else checkpoint.seq
        missing = [
            ended.begun
            for ended in self.past.children(path)
            if ended.seq > since and ended.begun not in claimed
        ]
        if missing:
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            message = (
                f"{path} had started {', '.join(missing[:_SHOWN])}{more} when this run was "
                "recorded, and has not this time. What an agent starts must follow from what it "
                "was given and what is in ctx.checkpoint()"
            )
            activation.invocation.stream.fail(ReplayMismatchError(message, missing))

    # Attempts and progress.

    def failed_attempts(self, activation: Activation) -> int:
        """Return how many attempts of an activation have failed, others having followed."""
        place, failed = activation.place, 0
        while self.past.attempt_failed(place.path):
            place, failed = place.again(), failed + 1
        return failed

    def begin_attempt(self, activation: Activation) -> None:
        """Give an attempt back what it had noted of its progress."""
        checkpoint = self.checkpoint(activation)
        if checkpoint is None:
            return
        activation.numbers = dict(checkpoint.numbers)
        if activation.state.layer is not None:
            _apply(activation.state.layer, checkpoint.layer, checkpoint.added)

    def checkpoint(self, activation: Activation) -> Checkpoint | None:
        """Return the checkpoint of the attempt that runs."""
        return self.past.checkpoint(activation.place.path)

    def asked_by(self, activation: Activation) -> list[Asked]:
        """Return what the attempt that runs has asked since its checkpoint, oldest first."""
        checkpoint = self.checkpoint(activation)
        since = 0 if checkpoint is None else checkpoint.seq
        asked = self.past.asked_by(activation.place.path)
        return [one for one in asked if (one.event.seq or 0) > since]

    def asked(self, request_id: str) -> Asked | None:
        """Return the question of that id, if it was recorded."""
        return self.past.requests.get(request_id)

    # What may be seen.

    def _show(self, events: Iterable[Event], line: Branch) -> None:
        for event in events:
            seq = event.seq or 0
            self._lines[seq] = line
            self._newest = max(self._newest, seq)

    def line_of(self, seq: int) -> Branch | None:
        """Return the branch that an event of an earlier execution is now on; None hides it."""
        return self._lines.get(seq)

    def hide(self, event: Event) -> None:
        """Let nobody see an event: what it says is said again."""
        self._lines.pop(event.seq or 0, None)
        self.past.void.add(event.seq or 0)

    def horizon(self, last_seq: int) -> int:
        """Return the newest number that a branch forked now may see."""
        return last_seq if last_seq > self.until else self._newest

    def outcomes(self) -> dict[str, tuple[Outcome, ...]]:
        """Return how the branches of fan-outs that are not run again have ended, by agent."""
        found: dict[str, tuple[Outcome, ...]] = {}
        for path, event in self.past.outcomes.items():
            if (event.seq or 0) in self.past.void:
                continue
            found[event.author] = tuple(
                self._outcome(path, recorded) for recorded in event.actions.outcomes
            )
        return found

    def _outcome(self, path: str, recorded: Any) -> Outcome:
        branch = f"{path}/{recorded.name}"
        ended = self.past.ended(branch)
        error: BaseException | None = None
        if recorded.error_type is not None:
            failure = None if ended is None else ended.failure
            error = recorded_failure(
                failure or Failure(recorded.error_type, recorded.error_message or "")
            )
        return Outcome(
            name=recorded.name,
            path=branch if ended is None else ended.path,
            status=Status(recorded.status),
            error=error,
            own=ended is not None and ended.own,
            output=None if ended is None else ended.output,
            attempts=recorded.attempts,
            duration=recorded.duration,
        )


def _write_again(layer: Layer, ended: Ended) -> None:
    """Write to an attempt's layer what something that has ended in it had written there."""
    path = layer.place.path
    for event in sorted(ended.events(), key=lambda event: event.seq or 0):
        note = (event.journal or {}).get("layered")
        if note is not None and note["of"] == path:
            _apply(layer, note["layer"], note["added"])


def _apply(layer: Layer, plain: Mapping[str, Any], added: Mapping[str, Sequence[Any]]) -> None:
    layer.apply(plain)
    layer.apply({key: Contributions(tuple(items)) for key, items in added.items()})


def _end(activation: Activation, status: Status) -> None:
    activation.start()
    activation.duration = 0.0
    activation.entrance = None
    activation.slots.leave()
    activation.end(_STEPS[status])


def recorded_failure(failure: Failure) -> Exception:
    """Return an exception that says what was recorded, and is of that class, if it is loaded."""
    module, _, name = failure.kind.rpartition(".")
    kind = _loaded(failure.kind)
    # Named like what was raised: outcomes and logs say the same as they would have said.
    names = {"__module__": module, "__qualname__": name}
    try:
        bases = (RecordedFailureError,) if kind is None else (RecordedFailureError, kind)
        made: type[RecordedFailureError] = type(name, bases, names)
        return made(failure.kind, failure.message)
    except TypeError:  # layouts that do not go together
        return RecordedFailureError(failure.kind, failure.message)


def _loaded(name: str) -> type[Exception] | None:
    """Return the class of that name if it is there already: nothing is imported for a log."""
    module, _, rest = name.rpartition(".")
    while module and module not in sys.modules:
        module, _, outer = module.rpartition(".")
        rest = f"{outer}.{rest}"
    found: Any = sys.modules.get(module)
    for part in rest.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type) or not issubclass(found, Exception):
        return None
    is_ours = issubclass(found, ExceptionGroup | RecordedFailureError)
    return None if is_ours else found
