"""Statuses: every activation reaches exactly one, and it is the right one."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import BranchCancelledError, Run, Status, UncancellableAgentError
from tests.support import laws
from tests.support.drawing import WAYS, Allowed, cases, fewer, kept_cases, trees
from tests.support.oracle import expect, observed
from tests.support.recording import Began, Ended, Recorder
from tests.support.running import Case, Reader, Report, Way, perform
from tests.support.scripts import Cleanup, Emit, Fail, Fan, Leaf, Node, Pause, Step


@fewer(2)
@given(cases())
def test_every_activation_that_started_ends_in_exactly_one_status(case: Case) -> None:
    laws.every_activation_ends_in_one_status(perform(case))


@fewer(2)
@given(kept_cases())
def test_as_many_activations_end_in_each_status_as_the_oracle_says(case: Case) -> None:
    report = perform(case)
    assert observed(report).statuses == expect(case).statuses


@fewer(2)
@given(kept_cases(trees(Allowed(kept=True), kinds=[Fan])))
def test_the_recorded_outcome_of_every_branch_is_the_one_the_oracle_says(case: Case) -> None:
    seen = [line.outcomes for line in observed(perform(case)).log if line.outcomes]
    assert seen == [line.outcomes for line in expect(case).log if line.outcomes]


@fewer(2)
@given(cases())
def test_the_status_of_a_leaf_is_how_its_code_ended(case: Case) -> None:
    """Unless it was cancelled and returned all the same: then it is cancelled."""
    report = perform(case)
    for path, ended in _ends(report).items():
        status = _recorded_status(report, path)
        if status is None:
            continue
        if ended is None:
            assert status in ("completed", "cancelled", "failed"), path  # its last flush may fail
        elif issubclass(ended, trio.Cancelled | BranchCancelledError):
            assert status == "cancelled", path
        elif not issubclass(ended, BaseExceptionGroup):  # which may hold nothing but cancellations
            assert status == "failed", path


def _ends(report: Report) -> dict[str, type[BaseException] | None]:
    return {
        entry.path: entry.error for entry in report.notebook.entries if isinstance(entry, Ended)
    }


def _recorded_status(report: Report, path: str) -> str | None:
    """Return what the outcome event of the fan-out right above ``path`` says of it."""
    above, _, name = path.rpartition("/")
    for event in report.events:
        if event.path == above:
            for outcome in event.actions.outcomes:
                if outcome.name == name:
                    return outcome.status
    return None


@fewer(2)
@given(cases())
def test_a_leaf_that_began_has_ended_when_the_block_has(case: Case) -> None:
    entries = perform(case).notebook.entries
    began = [entry.path for entry in entries if isinstance(entry, Began)]
    ended = [entry.path for entry in entries if isinstance(entry, Ended)]
    assert sorted(began) == sorted(ended)


@fewer(2)
@given(cases())
def test_nothing_ends_as_if_all_were_well(case: Case) -> None:
    laws.a_failure_is_never_a_success(perform(case))


@fewer(2)
@given(trees(Allowed(failures=False, escalations=False)), st.sampled_from(WAYS), st.integers(0, 3))
def test_a_run_left_early_is_cancelled_and_says_why(tree: Node, way: Way, at: int) -> None:
    report = perform(Case(tree, Reader(way=way, at=at)))
    left = len(report.delivered) >= at
    assert report.result.status is (Status.CANCELLED if left else Status.COMPLETED)
    assert (report.result.reason is not None) == left


@fewer(2)
@given(cases())
def test_at_every_event_the_counts_tell_who_runs(case: Case) -> None:
    def check(run: Run, watch: Recorder) -> None:
        counts = run.statistics()
        running = counts.started - counts.completed - counts.failed - counts.cancelled
        began = sum(isinstance(entry, Began) for entry in watch.entries)
        ended = sum(isinstance(entry, Ended) for entry in watch.entries)
        assert running >= began - ended
        assert running >= 1, "the root runs as long as the run does"
        assert run.status is Status.RUNNING

    perform(case, check)


def test_a_branch_that_never_got_to_run_is_cancelled() -> None:
    report = perform(
        Case(Fan("p", [Leaf("a", [Emit()]), Leaf("b", [Emit()])]), Reader((), "break"))
    )
    assert report.statistics.cancelled == report.statistics.started
    assert report.events == ()


def test_a_branch_cancelled_in_its_last_moment_does_not_complete() -> None:
    """`a` has nothing more to do when it is cancelled, and returns."""
    tree = Fan("p", [Leaf("a", [Emit()]), Leaf("b", [Fail()])])
    report = perform(Case(tree))
    (record,) = [event for event in report.events if event.actions.outcomes]
    assert [outcome.status for outcome in record.actions.outcomes] == ["cancelled", "failed"]


# The checker, on counts that are wrong.


@pytest.mark.parametrize(("status", "count"), [("completed", 2), ("completed", 0), ("failed", 1)])
def test_a_wrong_count_is_noticed(status: str, count: int) -> None:
    report = perform(Case(Leaf("a", [Pause(1), Emit()])))
    laws.every_activation_ends_in_one_status(report)
    changes: dict[str, Any] = {status: count}
    wrong = attrs.evolve(report, statistics=attrs.evolve(report.statistics, **changes))
    with pytest.raises(AssertionError):
        laws.every_activation_ends_in_one_status(wrong)


def test_a_failure_without_an_error_is_noticed() -> None:
    report = perform(Case(Leaf("a", [Fail()])))
    laws.a_failure_is_never_a_success(report)
    with pytest.raises(AssertionError):
        laws.a_failure_is_never_a_success(attrs.evolve(report, error=None))


def test_an_error_of_a_run_that_completed_is_noticed() -> None:
    report = perform(Case(Leaf("a", [Emit()])))
    laws.a_failure_is_never_a_success(report)
    with pytest.raises(AssertionError):
        laws.a_failure_is_never_a_success(attrs.evolve(report, error=ValueError()))


def test_an_agent_closed_by_force_runs_every_finally_before_the_block_ends() -> None:
    """It yields in one `finally` after the other although it is cancelled."""
    steps: list[Step] = [Emit(), Pause(9)]
    for _ in range(6):
        steps = [Cleanup(steps, [Emit()])]
    report = perform(Case(Leaf("a", steps), Reader(way="break", at=1)))
    assert isinstance(report.error, UncancellableAgentError)
    assert [entry.path for entry in report.notebook.entries if isinstance(entry, Ended)] == ["a"]
