"""What a fan-out answers, from outcomes alone: the policies, against a model of a few lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, cast

import attrs
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import parallel_agent
from parallel_agent import barrier
from parallel_agent.barrier import (
    POLICIES,
    Barrier,
    BestEffort,
    Escalate,
    FailFast,
    FirstSuccess,
    Outcome,
    Quorum,
    Tally,
    Verdict,
    WaitAll,
    failure_despite,
    had_failed,
)
from parallel_agent.errors import (
    AgentTimeoutError,
    BranchCancelledError,
    FanOutError,
    QuorumError,
)
from parallel_agent.lifecycle import Status


def completed(name: str = "a") -> Outcome:
    return Outcome(name, f"fan/{name}", Status.COMPLETED, output=name)


def cancelled(name: str = "a") -> Outcome:
    return Outcome(name, f"fan/{name}", Status.CANCELLED)


def waiting(name: str = "a") -> Outcome:
    return Outcome(name, f"fan/{name}", Status.WAITING)


def failed(name: str = "a", *, own: bool = True) -> Outcome:
    return Outcome(name, f"fan/{name}", Status.FAILED, error=ValueError(name), own=own)


KINDS: Final[list[Callable[[str], Outcome]]] = [
    completed,
    cancelled,
    failed,
    lambda name: failed(name, own=False),
]
POSSIBLE: Final = [*KINDS, waiting]


def several(
    kinds: Sequence[Callable[[str], Outcome]] = KINDS, *, least: int = 0
) -> st.SearchStrategy[list[Outcome]]:
    """Draw how branches ended; each has a name of its own."""
    drawn = st.lists(st.sampled_from(kinds), min_size=least, max_size=8)
    return drawn.map(
        lambda makes: [make(f"b{number}") for number, make in enumerate(makes)],
    )


policies = st.one_of(
    st.sampled_from([FailFast(), WaitAll(), BestEffort(), FirstSuccess(), Escalate()]),
    st.builds(Quorum, st.integers(1, 5)),
)


with_enough = policies.flatmap(
    lambda policy: st.tuples(st.just(policy), several(POSSIBLE, least=policy.least_width()))
)
"""A policy, and how branches ended: as many as it needs, since fewer are refused at the start."""


# The model.


def quorum_of(policy: Barrier) -> int | None:
    return policy.n if isinstance(policy, Quorum) else 1 if policy == FirstSuccess() else None


def count(ended: Sequence[Outcome], *statuses: Status) -> int:
    return sum(outcome.status in statuses for outcome in ended)


def is_settled(policy: Barrier, width: int | None, ended: Sequence[Outcome]) -> bool:
    """Whether the rest is to be cancelled."""
    quorum = quorum_of(policy)
    if quorum is None:
        return policy == FailFast() and count(ended, Status.FAILED) > 0
    lost = count(ended, Status.FAILED, Status.CANCELLED)
    if width is not None and width - lost < quorum:
        return True
    return count(ended, Status.COMPLETED) >= quorum


Answer: TypeAlias = tuple[Any, ...]
"""What is raised: nothing, ``("itself", error)``, ``("group", *errors)``, ``("quorum", ...)``."""


def answer_of(policy: Barrier, ended: Sequence[Outcome]) -> Answer:
    """Say what is to be raised."""
    failures = [outcome.error for outcome in ended if outcome.error is not None]
    own = [outcome.error for outcome in ended if outcome.error is not None and outcome.own]
    chosen = own or failures
    quorum = quorum_of(policy)
    if quorum is not None:
        done, lost = count(ended, Status.COMPLETED), count(ended, Status.CANCELLED, Status.FAILED)
        is_short = ended and done < quorum and done + lost == len(ended)
        cut_off = [outcome.name for outcome in ended if outcome.status is Status.CANCELLED]
        reasons: Sequence[object] = failures or cut_off
        return ("quorum", done, quorum, len(ended), *reasons) if is_short else ()
    match policy:
        case FailFast() | Escalate():
            return ("itself", chosen[0]) if chosen else ()
        case WaitAll():
            return ("group", *chosen) if chosen else ()
        case _:
            return ()


def shown(error: BaseException | None) -> Answer:
    """Say what was raised, in the same terms."""
    match error:
        case None:
            return ()
        case QuorumError(completed=done, quorum=quorum, width=width, exceptions=inside):
            reasons = [
                str(one).split("'")[1] if isinstance(one, BranchCancelledError) else one
                for one in inside
            ]
            return ("quorum", done, quorum, width, *reasons)
        case ExceptionGroup(exceptions=inside):
            return ("group", *inside)
        case _:
            return ("itself", error)


def verdicts(policy: Barrier, width: int | None, ended: Sequence[Outcome]) -> list[Verdict]:
    """What the policy says as one branch after the other ends."""
    found: list[Verdict] = []
    for number, outcome in enumerate(ended, 1):
        so_far = ended[:number]
        tally = Tally(
            width,
            count(so_far, Status.COMPLETED),
            count(so_far, Status.FAILED),
            count(so_far, Status.CANCELLED),
        )
        found.append(policy.on_outcome(outcome, tally))
    return found


# While branches end.


def cancels_when_settled(policy: Barrier, ended: list[Outcome], running: int | None) -> None:
    width = None if running is None else len(ended) + running
    said = verdicts(policy, width, ended)
    settled = [is_settled(policy, width, ended[: number + 1]) for number in range(len(ended))]
    first = said.index(Verdict.CANCEL_REST) if Verdict.CANCEL_REST in said else None
    assert first == (settled.index(True) if True in settled else None)


@given(with_enough, st.none() | st.integers(0, 3))
def test_the_rest_is_cancelled_as_soon_as_the_model_says_it_is_settled(
    drawn: tuple[Barrier, list[Outcome]], running: int | None
) -> None:
    cancels_when_settled(*drawn, running)


@given(policies, several(POSSIBLE))
def test_only_escalate_asks_and_it_asks_about_every_failure(
    policy: Barrier, ended: list[Outcome]
) -> None:
    asked = [
        outcome
        for outcome, verdict in zip(ended, verdicts(policy, None, ended), strict=True)
        if verdict is Verdict.ASK
    ]
    failures = [outcome for outcome in ended if outcome.status is Status.FAILED]
    assert asked == (failures if isinstance(policy, Escalate) else [])


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (completed(), Verdict.GO_ON),
        (cancelled(), Verdict.GO_ON),
        (waiting(), Verdict.GO_ON),
        (failed(), Verdict.CANCEL_REST),
        (failed(own=False), Verdict.CANCEL_REST),
    ],
)
def test_fail_fast_cancels_the_rest_when_a_branch_fails(outcome: Outcome, verdict: Verdict) -> None:
    assert verdicts(FailFast(), 3, [outcome]) == [verdict]


@given(several(), st.integers(1, 9))
def test_a_quorum_of_branches_nobody_has_counted_is_never_given_up(
    ended: list[Outcome], quorum: int
) -> None:
    said = verdicts(Quorum(quorum), None, ended)
    reached = count(ended, Status.COMPLETED) >= quorum
    assert (Verdict.CANCEL_REST in said) == reached


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_what_can_still_complete_is_all_that_has_not_failed_or_been_cancelled(
    done: int, bad: int, gone: int, running: int
) -> None:
    tally = Tally(done + bad + gone + running, done, bad, gone)
    assert tally.can_still_complete() == done + running
    assert attrs.evolve(tally, width=None).can_still_complete() is None


# When all have ended.


def answers_as_the_model(policy: Barrier, ended: list[Outcome]) -> None:
    assert shown(policy.failure(ended)) == answer_of(policy, ended)


@given(with_enough)
def test_what_is_raised_is_what_the_model_says(drawn: tuple[Barrier, list[Outcome]]) -> None:
    answers_as_the_model(*drawn)


@given(with_enough)
def test_asking_twice_gives_the_same_answer(drawn: tuple[Barrier, list[Outcome]]) -> None:
    policy, ended = drawn
    assert shown(policy.failure(ended)) == shown(policy.failure(tuple(ended)))


@given(several(), several())
def test_fail_fast_raises_the_first_in_order_that_failed_of_itself(
    before: list[Outcome], after: list[Outcome]
) -> None:
    """Built so that the answer is known: nothing before ``first`` failed of itself."""
    first = failed("first")
    before = [outcome for outcome in before if not outcome.own]
    assert FailFast().failure([*before, first, *after]) is first.error


@given(several(), st.data())
def test_which_failure_fail_fast_raises_does_not_hang_on_failures_in_cleaning_up(
    drawn: list[Outcome], data: st.DataObject
) -> None:
    answer = FailFast().failure(drawn)
    if any(outcome.own for outcome in drawn):
        at = data.draw(st.integers(0, len(drawn)))
        more = [*drawn[:at], failed("more", own=False), *drawn[at:]]
        assert FailFast().failure(more) is answer


@given(several())
def test_if_none_failed_of_itself_the_first_failure_in_cleaning_up_is_raised(
    drawn: list[Outcome],
) -> None:
    drawn = [outcome for outcome in drawn if not outcome.own]
    clean_up = failed("first", own=False)
    harmless = [outcome for outcome in drawn if outcome.error is None]
    assert FailFast().failure([*harmless, clean_up, *drawn]) is clean_up.error


@given(several())
def test_wait_all_raises_a_group_even_for_one_failure(drawn: list[Outcome]) -> None:
    one = failed("one")
    drawn = [outcome for outcome in drawn if outcome.error is None]
    group = WaitAll().failure([*drawn, one])
    assert isinstance(group, ExceptionGroup)
    assert group.exceptions == (one.error,)
    assert group.message == f"1 of {len(drawn) + 1} branches failed"


@given(several())
def test_best_effort_raises_nothing(drawn: list[Outcome]) -> None:
    assert BestEffort().failure(drawn) is None


def test_a_quorum_error_says_how_many_there_were_and_were_needed() -> None:
    error = Quorum(3).failure([completed("a"), failed("b"), cancelled("c"), failed("d")])
    assert isinstance(error, QuorumError)
    assert str(error).startswith("1 of 4 branches completed; 3 were needed")
    assert [str(one) for one in error.exceptions] == ["b", "d"]


def test_a_quorum_error_of_branches_that_were_all_cancelled_names_them() -> None:
    error = Quorum(1).failure([cancelled("a"), cancelled("b")])
    assert isinstance(error, QuorumError)
    assert [str(one) for one in error.exceptions] == [
        "branch 'a' was cancelled",
        "branch 'b' was cancelled",
    ]


def test_a_quorum_is_not_lost_while_a_branch_waits_for_a_person() -> None:
    assert Quorum(2).failure([completed("a"), waiting("b"), failed("c")]) is None


def test_a_quorum_of_more_than_were_started_is_an_error_that_says_so() -> None:
    """Only of an open fan-out: others are refused before they start."""
    error = Quorum(3).failure([completed("a"), completed("b")])
    assert isinstance(error, FanOutError)
    assert str(error) == "3 branches were to complete, and 2 were started"


def test_a_quorum_that_lacks_only_failures_that_were_dealt_with_is_no_failure() -> None:
    dealt_with = attrs.evolve(failed("b"), error=None)
    assert Quorum(2).failure([completed("a"), dealt_with]) is None


@given(with_enough)
def test_a_waiting_branch_keeps_a_fan_out_waiting_unless_enough_have_completed(
    drawn: tuple[Barrier, list[Outcome]],
) -> None:
    policy, ended = drawn
    quorum = quorum_of(policy)
    done = quorum is not None and count(ended, Status.COMPLETED) >= quorum
    assert policy.waits_for_all(ended) == (not done)


@pytest.mark.parametrize("policy", [FailFast(), WaitAll(), BestEffort(), Escalate()])
def test_a_fan_out_of_nothing_has_no_failure(policy: Barrier) -> None:
    assert policy.least_width() == 0
    assert policy.failure([]) is None


@pytest.mark.parametrize("prompt", [None, 3, b"Well?"])
def test_a_prompt_that_is_no_text_is_refused(prompt: Any) -> None:
    with pytest.raises(ValueError, match="the prompt of Escalate is text, not"):
        Escalate(prompt)


# What was cut off by a decision from elsewhere.

chosen = st.sets(st.integers(0, 7))


def paths(ended: list[Outcome], numbers: set[int]) -> set[str]:
    return {outcome.path for number, outcome in enumerate(ended) if number in numbers}


@given(with_enough)
def test_if_nothing_was_cut_off_the_policy_has_the_word(
    drawn: tuple[Barrier, list[Outcome]],
) -> None:
    policy, ended = drawn
    assert shown(failure_despite(policy, ended, set())) == answer_of(policy, ended)


@given(several(), chosen, st.integers(1, 5))
def test_a_quorum_is_lost_only_if_it_would_be_had_all_that_was_cut_off_completed(
    ended: list[Outcome], numbers: set[int], quorum: int
) -> None:
    cut_off = paths(ended, numbers)
    done = sum(outcome.status is Status.COMPLETED or outcome.path in cut_off for outcome in ended)
    error = failure_despite(Quorum(quorum), ended, cut_off)
    if len(ended) >= quorum:
        assert (error is None) == (done >= quorum)
    if isinstance(error, QuorumError):
        assert error.completed == count(ended, Status.COMPLETED)


@given(several(), chosen, st.sampled_from([FailFast(), WaitAll()]))
def test_a_failure_that_was_not_cut_off_is_raised_all_the_same(
    ended: list[Outcome], numbers: set[int], policy: Barrier
) -> None:
    cut_off = paths(ended, numbers)
    stands = any(outcome.error is not None and outcome.path not in cut_off for outcome in ended)
    assert (failure_despite(policy, ended, cut_off) is not None) == stands


def failed_of_itself_as_the_model(policy: Barrier, ended: list[Outcome]) -> None:
    by_itself = [
        outcome
        for outcome in ended
        if outcome.own or outcome.status in (Status.COMPLETED, Status.WAITING)
    ]
    all_there = len(by_itself) == len(ended)
    expected = all_there or is_settled(policy, len(ended), by_itself)
    assert had_failed(policy, ended, len(ended)) == expected


@given(with_enough)
def test_a_fan_out_that_was_cut_short_has_failed_if_its_policy_had_decided(
    drawn: tuple[Barrier, list[Outcome]],
) -> None:
    failed_of_itself_as_the_model(*drawn)


# Policies are values.


def test_the_table_holds_every_policy_that_is_exported() -> None:
    exported = [getattr(parallel_agent, name) for name in parallel_agent.__all__]
    kinds = [
        one
        for one in exported
        if isinstance(one, type) and issubclass(one, Barrier) and one is not Barrier
    ]
    assert set(POLICIES) == set(kinds)


@given(policies, policies)
def test_policies_are_equal_if_they_are_the_same_kind_with_the_same_numbers(
    one: Barrier, other: Barrier
) -> None:
    same = type(one) is type(other) and quorum_of(one) == quorum_of(other)
    assert (one == other) == same
    assert not same or hash(one) == hash(other)


@pytest.mark.parametrize("n", [0, -1, 1.0, True, "2", None])
def test_a_quorum_is_a_whole_number_from_one_on(n: Any) -> None:
    with pytest.raises(ValueError, match=r"a quorum is a whole number from 1 on, not"):
        Quorum(n)


def test_a_policy_needs_both_its_methods() -> None:
    class Half(Barrier):
        def failure(self, outcomes: Sequence[Outcome]) -> BaseException | None:
            return next((outcome.error for outcome in outcomes), None)

    with pytest.raises(TypeError, match="on_outcome"):
        cast("Any", Half)()


def test_a_policy_of_ones_own_needs_no_more_than_two_methods() -> None:
    class AnyFailure(Barrier):
        def on_outcome(self, outcome: Outcome, tally: Tally) -> Verdict:
            too_many = outcome.error is not None and tally.failed > 1
            return Verdict.CANCEL_REST if too_many else Verdict.GO_ON

        def failure(self, outcomes: Sequence[Outcome]) -> BaseException | None:
            return next((outcome.error for outcome in outcomes), None)

    policy = AnyFailure()
    assert (policy.least_width(), policy.waits_for_all([waiting()])) == (0, True)
    assert verdicts(policy, 2, [failed("a"), failed("b")]) == [Verdict.GO_ON, Verdict.CANCEL_REST]


def test_an_outcome_cannot_be_changed() -> None:
    outcome = cast("Any", completed())
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        outcome.status = Status.FAILED


def test_outcomes_of_two_branches_are_never_the_same_one() -> None:
    assert completed("a") != completed("a")


@pytest.mark.parametrize("kind", ["timeout", "idle_timeout", "request_input"])
def test_an_outcome_knows_that_its_time_was_over(kind: str) -> None:
    error = AgentTimeoutError("fan/a", "fan.a", kind, 3)
    assert Outcome("a", "fan/a", Status.FAILED, error=error).timed_out
    assert not failed().timed_out
    assert not completed().timed_out


# Bugs, planted one at a time.


def _never_cancels(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(barrier._Listed, "on_outcome", lambda *_anything: Verdict.GO_ON)


def _never_gives_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Tally, "can_still_complete", lambda _self: None)


def _forgets_who_failed_of_itself(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        barrier,
        "_failures",
        lambda outcomes: [outcome for outcome in outcomes if outcome.error is not None],
    )


def _takes_the_last(patch: pytest.MonkeyPatch) -> None:
    right = barrier._failures
    patch.setattr(barrier, "_failures", lambda outcomes: right(outcomes)[::-1])


def _counts_the_cancelled_as_completed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        barrier, "_completed", lambda ended: count(ended, Status.COMPLETED, Status.CANCELLED)
    )


Check: TypeAlias = Callable[[Barrier, list[Outcome]], None]


def _cancels(policy: Barrier, ended: list[Outcome]) -> None:
    cancels_when_settled(policy, ended, 0)


@pytest.mark.parametrize(
    ("plant", "check"),
    [
        (_never_cancels, _cancels),
        (_never_gives_up, _cancels),
        (_forgets_who_failed_of_itself, answers_as_the_model),
        (_takes_the_last, answers_as_the_model),
        (_counts_the_cancelled_as_completed, answers_as_the_model),
        (_never_cancels, failed_of_itself_as_the_model),
        (_never_gives_up, failed_of_itself_as_the_model),
    ],
)
def test_a_planted_bug_is_caught(
    plant: Callable[[pytest.MonkeyPatch], None], check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    fixed = settings(derandomize=True, database=None, phases=[Phase.generate], max_examples=1_000)
    with pytest.raises(AssertionError):
        fixed(given(with_enough)(lambda drawn: check(*drawn)))()
