"""What a fan-out answers, from outcomes alone."""

from __future__ import annotations

from typing import Any, cast

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent.barrier import Barrier, FailFast, Outcome, Verdict
from parallel_agent.lifecycle import Status


def completed(name: str = "a") -> Outcome:
    return Outcome(name, f"fan/{name}", Status.COMPLETED, output=name)


def cancelled(name: str = "a") -> Outcome:
    return Outcome(name, f"fan/{name}", Status.CANCELLED)


def failed(name: str = "a", *, own: bool = True) -> Outcome:
    return Outcome(name, f"fan/{name}", Status.FAILED, error=ValueError(name), own=own)


names = st.sampled_from("abcd")
outcomes = st.one_of(
    st.builds(completed, names),
    st.builds(cancelled, names),
    st.builds(failed, names, own=st.booleans()),
)


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (completed(), Verdict.GO_ON),
        (cancelled(), Verdict.GO_ON),
        (failed(), Verdict.CANCEL_REST),
        (failed(own=False), Verdict.CANCEL_REST),
        (Outcome("a", "fan/a", Status.FAILED, error=KeyboardInterrupt()), Verdict.CANCEL_REST),
    ],
)
def test_fail_fast_cancels_the_rest_when_a_branch_fails(outcome: Outcome, verdict: Verdict) -> None:
    assert FailFast().on_outcome(outcome) is verdict


@given(st.lists(outcomes, max_size=8))
def test_fail_fast_raises_nothing_if_nothing_failed(drawn: list[Outcome]) -> None:
    harmless = [outcome for outcome in drawn if outcome.status is not Status.FAILED]
    assert FailFast().failure(harmless) is None


@given(st.lists(outcomes, max_size=4), st.lists(outcomes, max_size=4))
def test_fail_fast_raises_the_first_in_order_that_failed_of_itself(
    before: list[Outcome], after: list[Outcome]
) -> None:
    """Built so that the answer is known: nothing before ``first`` failed of itself."""
    first = failed("first")
    before = [outcome for outcome in before if not outcome.own]
    assert FailFast().failure([*before, first, *after]) is first


@given(st.lists(outcomes, max_size=8), st.data())
def test_which_failure_fail_fast_raises_does_not_hang_on_failures_in_cleaning_up(
    drawn: list[Outcome], data: st.DataObject
) -> None:
    answer = FailFast().failure(drawn)
    if answer is not None and answer.own:
        at = data.draw(st.integers(0, len(drawn)))
        assert FailFast().failure([*drawn[:at], failed(own=False), *drawn[at:]]) is answer


@given(st.lists(outcomes, max_size=8))
def test_if_none_failed_of_itself_the_first_failure_in_cleaning_up_is_raised(
    drawn: list[Outcome],
) -> None:
    drawn = [outcome for outcome in drawn if not outcome.own]
    clean_up = failed("first", own=False)
    harmless = [outcome for outcome in drawn if outcome.error is None]
    assert FailFast().failure([*harmless, clean_up, *drawn]) is clean_up


@given(st.lists(outcomes, max_size=8))
def test_fail_fast_raises_exactly_when_something_failed(drawn: list[Outcome]) -> None:
    answer = FailFast().failure(drawn)
    assert (answer is not None) == any(outcome.status is Status.FAILED for outcome in drawn)


@given(st.lists(outcomes, max_size=8))
def test_asking_fail_fast_twice_gives_the_same_answer(drawn: list[Outcome]) -> None:
    policy: Barrier = FailFast()
    assert policy.failure(drawn) is policy.failure(tuple(drawn))


def test_a_fan_out_of_nothing_has_no_failure() -> None:
    assert FailFast().failure([]) is None


def test_an_outcome_cannot_be_changed() -> None:
    outcome = cast("Any", completed())
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        outcome.status = Status.FAILED


def test_outcomes_of_two_branches_are_never_the_same_one() -> None:
    assert completed("a") != completed("a")
