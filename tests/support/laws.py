"""What holds for every case, whatever its tree, schedule, reader and store.

Each law is a function that takes a report and raises AssertionError. `LAWS` are all of them.
They know a run only from its report: what the leaves noted, what the reader got, what the
service holds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import attrs
import trio

from parallel_agent import BranchCancelledError, Event, Status
from session.session import fold
from tests.support.recording import Called, Delivered, Looked, Recorder, Returned, Settled, Wrote
from tests.support.running import START, LeftError, Report
from tests.support.scripts import Fan, Node, nodes_of

__all__ = ["LAWS", "Law", "hold", "sees"]

Law: TypeAlias = Callable[[Report], None]


def hold(report: Report) -> None:
    """Assert every law."""
    for law in LAWS:
        law(report)


# Ending.


def nothing_outlives_the_block(report: Report) -> None:
    assert report.left_behind == ()


def every_activation_ends_in_one_status(report: Report) -> None:
    counts = report.statistics
    ended = counts.completed + counts.failed + counts.cancelled + counts.waiting
    assert counts.started == ended, counts


def a_failure_is_never_a_success(report: Report) -> None:
    error, status = report.error, report.result.status
    assert not isinstance(error, trio.Cancelled | BranchCancelledError), repr(error)
    if error is None or isinstance(error, LeftError):
        left = report.case.reader.way in ("scope", "raise")
        assert status is not Status.FAILED or left, "failed without an error"
    else:
        assert status is Status.FAILED, f"{error!r}, yet {status}"
    if any(isinstance(entry, Returned) and entry.leaving for entry in report.notebook.entries):
        assert status is not Status.COMPLETED, "left or cancelled early, yet completed"


# The log.


def the_log_is_contiguous(report: Report) -> None:
    assert [event.seq for event in report.events] == list(range(1, len(report.events) + 1))
    assert report.result.events == report.events


def what_the_reader_got_is_a_prefix_of_the_log(report: Report) -> None:
    whole = [event for event in report.delivered if not event.partial]
    assert whole == list(report.events[: len(whole)])
    assert len(set(map(id, report.delivered))) == len(report.delivered), "delivered twice"


def in_memory_only_shielded_cleanup_is_recorded_undelivered(report: Report) -> None:
    if report.case.store is not None:
        return
    delivered = set(map(id, report.delivered))
    for call, settled in _emits(report.notebook):
        if id(call.event) not in delivered and call.event.seq is not None:
            assert settled.error is None, f"{call.label} was recorded, not delivered, and cut off"


def the_fold_of_the_log_is_the_state(report: Report) -> None:
    folded = fold(START, report.events)
    assert dict(report.result.state) == folded
    assert report.stored.state == folded
    live = {key: value for key, value in report.seen_live.items() if not key.startswith("temp:")}
    assert live == folded


def temporary_keys_are_never_stored(report: Report) -> None:
    for event in report.events:
        assert not [key for key in event.state_delta if key.startswith("temp:")], event
    assert not [key for key in report.stored.state if key.startswith("temp:")]
    assert not [key for key in report.result.state if key.startswith("temp:")]


def a_branch_is_recorded_in_call_order(report: Report) -> None:
    last: dict[str | None, int] = {}
    for call in report.notebook.calls:
        seq = call.event.seq
        if seq is not None:
            assert seq > last.get(call.branch, 0), (
                f"{call.label} is recorded before an earlier emit"
            )
            last[call.branch] = seq


def an_outcome_follows_everything_of_its_branches(report: Report) -> None:
    for place, event in enumerate(report.events):
        if event.actions.outcomes:
            below = f"{event.path}/"
            after = [late for late in report.events[place + 1 :] if late.path.startswith(below)]
            assert not after, f"{after} came after the outcomes of {event.path}"


def nothing_of_a_sibling_follows_the_deciding_event(report: Report) -> None:
    fans = {node.name for node in nodes_of(report.case.tree) if isinstance(node, Fan)}
    for events in (report.events, report.delivered):
        ended: list[str] = []
        deciders: dict[str, str] = {}
        for event in events:
            assert not any(event.path.startswith(f"{fan}/") for fan in ended) or any(
                event.path == decider or event.path.startswith(f"{decider}/")
                for decider in deciders.values()
            ), f"{event} follows the decision of a sibling"
            fan, _, _ = event.path.rpartition("/")
            if _decides(event) and _name(fan.rpartition("/")[2]) in fans and fan not in deciders:
                ended.append(fan)
                deciders[fan] = event.path


def _decides(event: Event) -> bool:
    # A partial event is a piece of a message: nothing is done about it.
    return event.actions.escalate and not event.partial


# An event's life.


def an_emit_that_returned_was_recorded(report: Report) -> None:
    recorded = set(map(id, report.events))
    for call, settled in _emits(report.notebook):
        whole = not call.event.partial
        assert (call.event.seq is not None) == (id(call.event) in recorded), call
        assert whole or call.event.seq is None, call
        if settled.error is None and whole:
            assert id(call.event) in recorded, f"{call.label} returned, unrecorded"
        if settled.error is not None and not issubclass(settled.error, trio.Cancelled):
            assert call.event.seq is None, f"{call.label} was refused, yet recorded"


def what_is_recorded_was_emitted(report: Report) -> None:
    known = {id(call.event) for call in report.notebook.calls}
    for event in report.events:
        assert id(event) in known or not event.text, f"nobody emitted {event}"


def an_emit_returns_when_the_reader_has_come_back(report: Report) -> None:
    delivered: set[int] = set()
    come_back: set[int] = set()
    gone = False
    for entry in report.notebook.entries:
        match entry:
            case Delivered(event=event):
                delivered.add(id(event))
            case Returned(leaving=leaving):
                come_back |= delivered
                gone = gone or (leaving and report.case.reader.way != "run.cancel")
            case Settled(call=call, error=None):
                assert gone or id(call.event) in come_back, f"{call.label} went on too early"
            case _:
                pass


# What a branch sees.


def a_branch_sees_what_it_should(report: Report) -> None:
    """``ctx.history()`` shows what has been handed out and is not a running sibling's."""
    handed_out: list[Event] = []
    for entry in _while_reading(report):
        match entry:
            case Delivered(event=event):
                if not event.partial:
                    handed_out.append(event)
            case Looked(path=path, seqs=seqs):
                model = [
                    event.seq for event in handed_out if sees(report.case.tree, path, event.path)
                ]
                assert list(seqs) == model, f"{path} sees {seqs}, should see {model}"
            case _:
                pass


def sees(tree: Node, reader: str, writer: str) -> bool:
    """Whether the activation at path ``reader`` may see what the one at ``writer`` has recorded.

    It may, unless the two lines part at a fan-out. Where they part at a sequence or a loop, one
    has ended before the other began.
    """
    fans = {node.name for node in nodes_of(tree) if isinstance(node, Fan)}
    above = ""
    for mine, theirs in zip(reader.split("/"), writer.split("/"), strict=False):
        if mine != theirs:
            return _name(above) not in fans
        above = mine
    return True


def a_branch_sees_state_as_it_should(report: Report) -> None:
    """Pending over in flight over shared, for every key, at every look."""
    for entry, model in _with_state_model(report):
        if isinstance(entry, Looked) and not model.is_lost(entry.branch):
            expected = model.visible(entry.path, entry.branch)
            # Not what the runtime stores by itself: that is the oracle's.
            seen = {key: value for key, value in entry.state.items() if not key.endswith("_out")}
            assert seen == expected, f"{entry.path} sees {seen}, should see {expected}"


def a_write_is_recorded_once_with_the_next_event(report: Report) -> None:
    for entry, model in _with_state_model(report):
        if isinstance(entry, Called) and not model.is_lost(entry.branch):
            event = entry.event
            if event.seq is not None:
                written = model.in_flight[id(event)]
                expected = {key: value for key, value in written.plain.items() if _is_stored(key)}
                delta = {
                    key: value
                    for key, value in event.state_delta.items()
                    if not key.endswith("_out") and key not in _REDUCE
                }
                assert delta == expected, f"{entry.label} records {delta}, should {expected}"
                reduced = {key for key in event.state_delta if key in _REDUCE}
                assert reduced == written.contributed.keys(), entry.label


def _with_state_model(report: Report) -> Iterator[tuple[Any, _StateModel]]:
    """Go through the entries, each with the model in which it has happened."""
    model = _StateModel()
    for entry in _while_reading(report):
        match entry:
            case Wrote():
                model.write(entry)
            case Called():
                model.call(entry)
            case Settled(call=call, error=error):
                if error is not None and call.event.seq is None:
                    model.withdraw(call)
            case Delivered(event=event):
                model.hand_out(event)
            case _:
                pass
        yield entry, model


def _is_stored(key: str) -> bool:
    return not key.startswith("temp:")


@attrs.define(eq=False)
class _Writes:
    """Writes on their way: of one activation, or of one event."""

    path: str
    branch: str | None
    plain: dict[str, Any] = attrs.field(factory=dict)
    contributed: dict[str, list[Any]] = attrs.field(factory=dict)
    taken: _Writes | None = None  # what of it was pending before
    doomed: bool = False  # it will never be recorded

    def over(self, state: dict[str, Any]) -> None:
        state.update(self.plain)
        for key, values in self.contributed.items():
            for value in values:
                state[key] = _REDUCE[key](state.get(key), value)


class _StateModel:
    """State in three layers, by brute force: every look adds them all up."""

    def __init__(self) -> None:
        self.shared: dict[str, Any] = dict(START)
        self.pending: dict[str, _Writes] = {}
        self.in_flight: dict[int, _Writes] = {}
        self._lost: set[str | None] = set()

    def write(self, entry: Wrote) -> None:
        self._find_out_if_lost(entry.branch)
        pending = self.pending.setdefault(entry.path, _Writes(entry.path, None))
        if entry.contributed:
            pending.contributed.setdefault(entry.key, []).append(entry.value)
            return
        visible = self.visible(entry.path, entry.branch)
        if entry.key not in visible or _json(visible[entry.key]) != _json(entry.value):
            pending.plain[entry.key] = entry.value

    def call(self, call: Called) -> None:
        self._find_out_if_lost(call.branch)
        if call.event.partial:
            return
        taken = self.pending.pop(call.path, None) or _Writes(call.path, call.branch)
        writes = _Writes(
            call.path, call.branch, dict(taken.plain), _copied(taken.contributed), taken
        )
        writes.doomed = call.event.seq is None
        for key, value in call.delta.items():
            if key in _REDUCE:
                writes.contributed.setdefault(key, []).append(value)
            else:
                writes.plain[key] = value
        self.in_flight[id(call.event)] = writes

    def withdraw(self, call: Called) -> None:
        writes = self.in_flight.pop(id(call.event), None)
        if writes is None or writes.taken is None:
            return
        later = self.pending.get(call.path, _Writes(call.path, call.branch))
        again = _Writes(call.path, call.branch, {**writes.taken.plain, **later.plain})
        again.contributed = _copied(writes.taken.contributed)
        for key, values in later.contributed.items():
            again.contributed.setdefault(key, []).extend(values)
        self.pending[call.path] = again

    def hand_out(self, event: Event) -> None:
        if event.partial:
            return
        writes = self.in_flight.pop(id(event), None)
        if writes is not None:
            self.shared.update(
                {key: value for key, value in writes.plain.items() if key.startswith("temp:")}
            )
        else:
            self._flushed(event)
        self.shared.update(
            {key: value for key, value in event.state_delta.items() if not key.endswith("_out")}
        )

    def _flushed(self, event: Event) -> None:
        # An event of the runtime's own: it took along what was pending.
        pending = self.pending.pop(event.path, None)
        if pending is not None:
            self.shared.update(
                {key: value for key, value in pending.plain.items() if key.startswith("temp:")}
            )

    def is_lost(self, branch: str | None) -> bool:
        """Whether the model does not know what the branch sees now."""
        return branch in self._lost or self._is_between(branch)

    def _is_between(self, branch: str | None) -> bool:
        # Another task of the branch emits in vain, and when it gave up was not noted.
        return any(writes.doomed and writes.branch == branch for writes in self.in_flight.values())

    def _find_out_if_lost(self, branch: str | None) -> None:
        if self._is_between(branch):
            self._lost.add(branch)

    def visible(self, path: str, branch: str | None) -> dict[str, Any]:
        state = dict(self.shared)
        for writes in self.in_flight.values():
            if writes.branch == branch and _same_line(writes.path, path):
                writes.over(state)
        if path in self.pending:
            self.pending[path].over(state)
        return state


def _same_line(one: str, other: str) -> bool:
    # Two activations on one branch at the same time are the same, or one is above the other.
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def _copied(contributed: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    return {key: list(values) for key, values in contributed.items()}


def _emits(notebook: Recorder) -> Iterator[tuple[Called, Settled]]:
    settled = {id(entry.call): entry for entry in notebook.entries if isinstance(entry, Settled)}
    for call in notebook.calls:
        assert id(call) in settled, f"{call.label} has never ended"
        yield call, settled[id(call)]


def _while_reading(report: Report) -> Iterator[Any]:
    """Go through the entries, up to where the reader left: who looks later can see more."""
    for entry in report.notebook.entries:
        if isinstance(entry, Returned) and entry.leaving and report.case.reader.way != "run.cancel":
            return
        yield entry


def _name(segment: str) -> str:
    return segment.partition("@")[0]


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


_REDUCE: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "sum": lambda current, more: more if current is None else current + more,
    "all": lambda current, more: [*(current or []), more],
}

LAWS: Final[tuple[Law, ...]] = (
    nothing_outlives_the_block,
    every_activation_ends_in_one_status,
    a_failure_is_never_a_success,
    the_log_is_contiguous,
    what_the_reader_got_is_a_prefix_of_the_log,
    in_memory_only_shielded_cleanup_is_recorded_undelivered,
    the_fold_of_the_log_is_the_state,
    temporary_keys_are_never_stored,
    a_branch_is_recorded_in_call_order,
    an_outcome_follows_everything_of_its_branches,
    nothing_of_a_sibling_follows_the_deciding_event,
    an_emit_that_returned_was_recorded,
    what_is_recorded_was_emitted,
    an_emit_returns_when_the_reader_has_come_back,
    a_branch_sees_what_it_should,
    a_branch_sees_state_as_it_should,
    a_write_is_recorded_once_with_the_next_event,
)
