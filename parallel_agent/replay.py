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
from parallel_agent.branch import Branch, Place
from parallel_agent.errors import RecordedFailureError, ReplayMismatchError
from parallel_agent.journal import digest
from parallel_agent.lifecycle import Status, Step
from parallel_agent.past import Asked, Checkpoint, Ended, Failure, Past
from parallel_agent.post import branch_owner, refill
from parallel_agent.records import is_of_others
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
        self._lines: dict[int, tuple[Branch, Place | None]] = {}
        self._newest = 0
        self._refused = False
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
        if invocation.config.on_wait != "suspend":
            return False
        place = activation.place
        while self.past.attempt_failed(place.path):
            place = place.again()
        # Those from before its checkpoint, too: it may have asked in several tasks.
        asked = [one for one in self.past.asked_by(place.path) if one.is_of_its_agent]
        still_open = [one for one in asked if one.answer is None]
        answered = max((one.answer.seq or 0 for one in asked if one.answer is not None), default=0)
        # What it asked after the newest answer, it asked knowing that.
        if not still_open or any((one.event.seq or 0) <= answered for one in still_open):
            return False
        activation.place = place
        self._show_messages(activation)
        self._show(self.past.kept_at(place.path), activation)
        for one in still_open:
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
        self._refuse(activation, ReplayMismatchError(message, [ended.begun]))
        return False

    def _settle(self, activation: Activation, ended: Ended) -> None:
        while activation.place.own_attempt < ended.attempts:
            activation.place = activation.place.again()
        self._show(ended.events(), activation)
        if activation.state.layer is not None:
            self._write_again(activation.state.layer, ended)
        if ended.failure is not None:
            activation.error = recorded_failure(ended.failure)
            activation.own = ended.own
            if ended.given_up:
                activation.given_up = activation.error
        activation.output = ended.output
        activation.route = ended.route
        activation.was_over = True
        _end(activation, ended.status)
        activation.duration = ended.duration
        activation.passed_escalation = ended.escalated
        if ended.escalated == "own":
            activation.escalate()
        elif ended.escalated is not None:
            activation.pass_escalation()

    def _write_again(self, layer: Layer, ended: Ended) -> None:
        """Write to an attempt's layer what something that has ended in it had written there."""
        path = layer.place.path
        for event in sorted(ended.events(), key=lambda event: event.seq or 0):
            note = (event.journal or {}).get("layered")
            if note is None or note["of"] != path or event.seq in self.past.taken_back:
                continue
            _apply(layer, note["layer"], note["added"])

    def _prepare(self, activation: Activation, path: str) -> bool:
        """Give one that starts again what it is to have; it has not ended, so return False."""
        self._show_messages(activation)
        if branch_owner(activation) is activation:
            sent = self.past.messages.get(path, ())
            waiting = [one for one in sent if (one.seq or 0) not in self.past.received]
            if waiting:
                refill(activation, waiting)
        if not activation.agent.has_attempts:
            self.begin_attempt(activation)
        return False

    def in_order(self, above: str, names: Sequence[str]) -> list[int]:
        """Return which of the children ``names`` of ``above`` have ended, as they did.

        And which have escalated without having ended: they have ended the others all the same.
        """
        found: list[tuple[tuple[int, bool], int]] = []
        for position, name in enumerate(names):
            order = self.order_of(f"{above}/{name}")
            if order is not None:
                found.append((order, position))
        return [position for _, position in sorted(found)]

    def order_of(self, path: str) -> tuple[int, bool] | None:
        """Return what sorts an activation among those that have ended, or escalated; or None."""
        ended = self.past.ended(path)
        if ended is not None:
            return self._order(ended)
        return (self.past.escalations[path], False) if self.has_escalated(path) else None

    def _order(self, ended: Ended) -> tuple[int, bool]:
        # What a decision has cut off comes after that, whose place in the log it has; and what has
        # decided by an event of its own, when it did.
        seq = ended.seq
        if ended.escalated == "own":
            seq = min(seq, self.past.escalations.get(ended.begun, seq))
        return seq, ended.cut_off

    def was_cut_off(self, activation: Activation) -> bool:
        """Return whether a sibling's decision was the end of an activation."""
        ended = self.past.ended(activation.begun.path)
        return ended is not None and ended.cut_off

    def ended_at(self, activation: Activation) -> tuple[int, bool] | None:
        """Return what sorts an activation among those whose end is recorded, as they ended."""
        ended = self.past.ended(activation.begun.path)
        return None if ended is None or activation.tap is not None else self._order(ended)

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
            self._refuse(activation, ReplayMismatchError(message, missing))

    def _refuse(self, activation: Activation, error: ReplayMismatchError) -> None:
        """End the run, with a note that what this execution has recorded is of no account."""
        invocation = activation.invocation
        root = activation.root
        root.scope.cancel("a resumed agent has decided otherwise than it had")
        if not self._refused:
            self._refused = True
            invocation.journal.refused(root, lambda: invocation.stream.fail(error))

    # Attempts and progress.

    def failed_attempts(self, activation: Activation) -> int:
        """Return how many attempts of an activation have failed, others having followed."""
        place, failed = activation.place, 0
        while self.past.attempt_failed(place.path):
            place, failed = place.again(), failed + 1
        return failed

    def begin_attempt(self, activation: Activation) -> None:
        """Give an attempt back what it had noted of its progress."""
        self._show(self.past.kept_at(activation.place.path), activation)
        for asked in self.asked_by(activation):
            if asked.answer is None:
                self.hide(asked.event)  # it is asked again, if the agent comes to it again
        checkpoint = self.checkpoint(activation)
        if checkpoint is None:
            return
        activation.numbers = dict(checkpoint.numbers)
        activation.restore_output(self._said_before(checkpoint, activation.place.path))
        if activation.state.layer is not None:
            _apply(activation.state.layer, checkpoint.layer, checkpoint.added)

    def _said_before(self, checkpoint: Checkpoint, path: str) -> list[Event]:
        kept = [event for event in self.past.kept_at(path) if event.path == path]
        return [event for event in kept if (event.seq or 0) < checkpoint.seq]

    def checkpoint(self, activation: Activation) -> Checkpoint | None:
        """Return the checkpoint of the attempt that runs."""
        return self.past.checkpoint(activation.place.path)

    def asked_by(self, activation: Activation) -> list[Asked]:
        """Return what the attempt that runs has asked since its checkpoint, oldest first."""
        return self._asked_at(activation.place.path)

    def _asked_at(self, path: str) -> list[Asked]:
        checkpoint = self.past.checkpoint(path)
        since = 0 if checkpoint is None else checkpoint.seq
        return [one for one in self.past.asked_by(path) if (one.event.seq or 0) > since]

    def asked(self, request_id: str) -> Asked | None:
        """Return the question of that id, if it was recorded."""
        return self.past.requests.get(request_id)

    # What may be seen.

    def _show(self, events: Iterable[Event], activation: Activation) -> None:
        line, place = activation.lane.branch, activation.place
        for event in events:
            seq = event.seq or 0
            # What others have said outlives the attempt to which they said it.
            self._lines[seq] = (line, None if is_of_others(event) else place)
            self._newest = max(self._newest, seq)

    def _show_messages(self, activation: Activation) -> None:
        self._show(self.past.messages.get(activation.begun.path, ()), activation)

    def line_of(self, seq: int) -> tuple[Branch, Place | None] | None:
        """Return where an event of an earlier execution is now; None hides it.

        The place is that of the attempt whose failure hides it; None if none does.
        """
        return self._lines.get(seq)

    def hide(self, event: Event) -> None:
        """Let nobody see an event: what it says is said again."""
        self._lines.pop(event.seq or 0, None)
        self.past.void.add(event.seq or 0)

    def show_again(self, activation: Activation, event: Event) -> None:
        """Let a question stand that is left to the next run, instead of being asked again."""
        self.past.void.discard(event.seq or 0)
        self._show([event], activation)

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
