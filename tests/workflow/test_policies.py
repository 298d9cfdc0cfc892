"""What becomes of branches under each policy, one claim at a time.

Whole trees of them are in ``tests/properties/test_policies.py``, against a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

import pytest
import trio

from parallel_agent import (
    Agent,
    AgentTimeoutError,
    Barrier,
    BestEffort,
    BranchCancelledError,
    Escalate,
    Event,
    FailFast,
    FanOutError,
    FirstSuccess,
    InvocationContext,
    LoopAgent,
    Outcome,
    ParallelAgent,
    Quorum,
    QuorumError,
    ResponseRefusedError,
    Retry,
    Run,
    RunConfig,
    Runner,
    SequentialAgent,
    Status,
    Tally,
    TreeError,
    Verdict,
    WaitAll,
    agent,
    outcomes,
)
from tests.workflow.trees import Diary, Ended, leaf, leaves, run_tree, run_virtual, texts
from tests.workflow.trees import Escalate as Stop

EVERY_POLICY = pytest.mark.parametrize(
    "policy",
    [FailFast(), WaitAll(), BestEffort(), FirstSuccess(), Quorum(2), Escalate()],
    ids=lambda policy: type(policy).__name__,
)


def at_once(attempts: int) -> Retry:
    return Retry(attempts, initial_delay=0, jitter=0)


def fan(policy: Barrier, *members: Agent, **options: Any) -> ParallelAgent:
    """A fan-out of these branches."""
    return ParallelAgent("fan", members, barrier=policy, **options)


def loser(name: str, how: str, diary: Diary | None = None, **options: Any) -> Agent:
    """An agent that waits to be cancelled, and then does something about it, for five seconds."""

    @agent(name=name, **options)
    async def run(ctx: InvocationContext) -> str:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            if how == "fails":
                message = f"{name} cleaning up"
                raise KeyError(message) from None
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
            if diary is not None:
                diary.append(f"{name} has cleaned up")
        return f"{name} won"

    return run


def statuses(ended: Ended, name: str = "fan") -> list[str]:
    return [str(outcome.status) for outcome in ended.run.outcomes(name)]


# ------------------------------------------------------------------------------------- wait for all


@pytest.mark.parametrize("policy", [WaitAll(), BestEffort()])
def test_a_failure_leaves_the_others_alone(policy: Barrier) -> None:
    ended = run_tree(fan(policy, leaf("a", 1, ValueError("a")), leaf("b", 2, "late", 2, "later")))
    assert texts(ended.delivered) == ["late", "later"]
    assert statuses(ended) == ["failed", "completed"]
    assert ended.time == 4


def test_wait_all_raises_what_failed_in_declaration_order() -> None:
    errors = [ValueError("a"), KeyError("b"), OSError("c")]
    members = [leaf(name, 9 - at, errors[at]) for at, name in enumerate("abc")]
    ended = run_tree(fan(WaitAll(), *members, leaf("d", "x")))
    assert isinstance(ended.error, ExceptionGroup)
    assert list(ended.error.exceptions) == errors
    assert ended.error.message == "3 of 4 branches failed"


def test_wait_all_raises_one_failure_in_a_group_too() -> None:
    error = ValueError("a")
    ended = run_tree(fan(WaitAll(), leaf("a", error), leaf("b")))
    assert isinstance(ended.error, ExceptionGroup)
    assert ended.error.exceptions == (error,)


def test_a_group_of_one_branchs_own_is_one_member() -> None:
    inner = ExceptionGroup("of its own", [ValueError("x")])
    ended = run_tree(fan(WaitAll(), leaf("a", inner), leaf("b")))
    assert isinstance(ended.error, ExceptionGroup)
    assert ended.error.exceptions == (inner,)


def test_best_effort_gives_the_outputs_of_those_that_completed() -> None:
    members = [leaf("a", "one"), leaf("b", ValueError("x")), leaf("c", 1, "three")]
    ended = run_tree(fan(BestEffort(), *members))
    assert ended.error is None
    assert ended.result.output == {"a": "one", "c": "three"}
    assert str(ended.outcome("fan", "b").error) == "x"


def test_best_effort_completes_although_all_fail() -> None:
    ended = run_tree(fan(BestEffort(), leaf("a", ValueError("x")), leaf("b", KeyError("y"))))
    assert (ended.result.status, ended.result.output) == (Status.COMPLETED, {})


# ------------------------------------------------------------------------------------- be first


def test_the_first_to_complete_ends_the_others() -> None:
    ended = run_tree(
        fan(FirstSuccess(), leaf("a", 9, "slow"), leaf("b", 2, "quick"), leaf("c", ValueError("x")))
    )
    assert ended.result.output == {"b": "quick"}
    assert statuses(ended) == ["cancelled", "completed", "failed"]
    assert ended.time == 2


def test_a_quorum_ends_the_others_when_enough_have_completed() -> None:
    ended = run_tree(fan(Quorum(2), *[leaf(name, at, name) for at, name in enumerate("abcd", 1)]))
    assert ended.result.output == {"a": "a", "b": "b"}
    assert statuses(ended) == ["completed", "completed", "cancelled", "cancelled"]
    assert ended.time == 2


def test_if_none_completes_every_failure_is_raised_in_declaration_order() -> None:
    errors = [ValueError("a"), KeyError("b")]
    ended = run_tree(fan(FirstSuccess(), leaf("a", 2, errors[0]), leaf("b", 1, errors[1])))
    assert isinstance(ended.error, QuorumError)
    assert list(ended.error.exceptions) == errors
    assert (ended.error.completed, ended.error.quorum, ended.error.width) == (0, 1, 2)


def test_a_quorum_that_can_no_longer_be_reached_cancels_the_rest_at_once() -> None:
    error = ValueError("b")
    members = [leaf("a", 1, "x"), leaf("b", 2, error), leaf("c", 99)]
    ended = run_tree(fan(Quorum(3), *members))
    assert isinstance(ended.error, QuorumError)
    assert list(ended.error.exceptions) == [error]
    assert ended.time == 2
    assert statuses(ended) == ["completed", "failed", "cancelled"]


def test_a_quorum_survives_as_many_failures_as_it_can() -> None:
    members = [leaf("a", ValueError("x")), leaf("b", 1, KeyError("y")), leaf("c", 2, "x")]
    assert run_tree(fan(Quorum(1), *members)).result.output == {"c": "x"}


def test_a_branch_that_ends_itself_as_cancelled_is_one_less_for_a_quorum() -> None:
    @agent
    async def gives_up(ctx: InvocationContext) -> None:
        await trio.sleep(1)
        raise BranchCancelledError

    ended = run_tree(fan(Quorum(2), gives_up, leaf("b", 9)))
    assert isinstance(ended.error, QuorumError)
    assert [str(error) for error in ended.error.exceptions] == [
        "branch 'gives_up' was cancelled",
        "branch 'b' was cancelled",
    ]
    assert (ended.result.status, ended.time) == (Status.FAILED, 1)


# ------------------------------------------------------------------------------------- losers

DECIDED = pytest.mark.parametrize(
    ("policy", "decider"),
    [
        (FirstSuccess(), leaf("decider", 1, "x")),
        (Quorum(1), leaf("decider", 1, "x")),
        (FailFast(), leaf("decider", 1, ValueError("x"))),
        (Quorum(2), leaf("decider", 1, ValueError("x"))),
        (FailFast(), leaf("decider", 1, Stop("x"))),
        (WaitAll(), leaf("decider", 1, Stop("x"))),
    ],
    ids=["first", "quorum", "failure", "lost quorum", "event", "event, waiting for all"],
)


@DECIDED
def test_losers_have_cleaned_up_before_the_fan_out_answers(policy: Barrier, decider: Agent) -> None:
    diary: Diary = []

    @agent
    async def main(ctx: InvocationContext) -> None:
        try:
            await ctx.run_agent(fan(policy, loser("slow", "returns", diary), decider))
        finally:
            diary.append("answered")

    ended = run_tree(main)
    assert diary == ["slow has cleaned up", "answered"]
    assert ended.time == 6


@DECIDED
def test_a_loser_that_swallows_its_cancellation_is_never_the_winner(
    policy: Barrier, decider: Agent
) -> None:
    ended = run_tree(fan(policy, loser("a", "returns", output_key="won"), decider))
    assert ended.outcome("fan", "a").status is Status.CANCELLED
    assert ended.outcome("fan", "a").output is None
    assert "a won" not in texts(ended.result.events)
    assert "won" not in ended.result.state


@DECIDED
def test_what_a_loser_raises_in_cleaning_up_is_in_the_outcomes_and_nowhere_else(
    policy: Barrier, decider: Agent
) -> None:
    ended = run_tree(fan(policy, loser("a", "fails"), decider))
    outcome = ended.outcome("fan", "a")
    assert (outcome.status, outcome.own) == (Status.FAILED, False)
    recorded = ended.result.events[-1].actions.outcomes[0]
    assert (recorded.name, recorded.error_type) == ("a", "KeyError")
    assert ended.error is not outcome.error
    if not isinstance(ended.error, QuorumError):
        assert not isinstance(ended.error, ExceptionGroup)


def test_why_a_loser_of_a_lost_quorum_failed_stands_in_the_error_as_well() -> None:
    ended = run_tree(fan(Quorum(2), loser("a", "fails"), leaf("b", 1, ValueError("x"))))
    assert isinstance(ended.error, QuorumError)
    assert [type(error) for error in ended.error.exceptions] == [KeyError, ValueError]


def test_what_a_loser_says_under_a_shield_is_recorded_before_the_outcomes() -> None:
    @agent
    async def polite(ctx: InvocationContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(3)
                await ctx.emit("goodbye")

    ended = run_tree(fan(FirstSuccess(), polite, leaf("b", 1, "x")))
    assert [event.text or event.author for event in ended.delivered] == ["x", "goodbye", "fan"]


@EVERY_POLICY
def test_events_and_outputs_of_those_that_finished_are_kept(policy: Barrier) -> None:
    members = [leaf("a", "one", 1, "two"), leaf("b", 5, ValueError("x")), leaf("c", 3, "three")]
    ended = run_tree(fan(policy, *members), run_config=RunConfig(on_wait="suspend"))
    kept = ["one", "two"] if policy == FirstSuccess() else ["one", "two", "three"]
    assert texts(ended.delivered) == kept
    done = [outcome for outcome in ended.run.outcomes("fan") if outcome.output is not None]
    assert [outcome.output for outcome in done] == [text for text in kept if text != "one"]
    assert all(outcome.status is Status.COMPLETED for outcome in done)


# ------------------------------------------------------------------------------------- outcomes


@EVERY_POLICY
def test_outcomes_are_in_declaration_order_whatever_ends_first(policy: Barrier) -> None:
    members = [leaf(name, 9 - at, name) for at, name in enumerate("abcd")]
    ended = run_tree(fan(policy, *members))
    assert [outcome.name for outcome in ended.run.outcomes("fan")] == list("abcd")
    (recorded,) = (e.actions.outcomes for e in ended.delivered if e.actions.outcomes)
    assert [outcome.name for outcome in recorded] == list("abcd")


@pytest.mark.parametrize("policy", [FailFast(), WaitAll(), FirstSuccess(), Quorum(2)])
def test_outcomes_can_be_read_inside_and_outside_after_a_failure(policy: Barrier) -> None:
    seen: list[str] = []
    tree = fan(policy, leaf("a", ValueError("x")), leaf("b", 1, KeyError("y")))

    @agent
    async def careful(ctx: InvocationContext) -> None:
        with suppress(Exception):
            await ctx.run_agent(tree)
        seen.extend(str(outcome.status) for outcome in ctx.outcomes("fan"))

    ended = run_tree(careful)
    assert seen == statuses(ended)
    assert seen[0] == "failed"
    assert ended.result.status is Status.COMPLETED
    assert statuses(run_tree(tree)) == seen


def test_more_branches_than_are_recorded_in_full_record_those_that_did_not_complete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert outcomes.RECORDED_IN_FULL == 10_000
    monkeypatch.setattr(outcomes, "RECORDED_IN_FULL", 2)
    members = [leaf("a", "x"), leaf("b", ValueError("x")), leaf("c", "x")]
    ended = run_tree(fan(BestEffort(), *members))
    recorded = ended.delivered[-1].actions.outcomes
    assert [(outcome.name, outcome.status) for outcome in recorded] == [("b", "failed")]
    assert statuses(ended) == ["completed", "failed", "completed"]


@EVERY_POLICY
def test_branches_started_at_run_time_meet_the_same_policy(policy: Barrier) -> None:
    members = [leaf("a", 1, ValueError("x")), leaf("b", 2, "two"), leaf("c", 3, KeyError("y"))]

    @agent
    async def fan_out_itself(ctx: InvocationContext) -> None:
        await ctx.fan_out(members, barrier=policy)

    suspend = RunConfig(on_wait="suspend")
    static = run_tree(fan(policy, *members), run_config=suspend)
    dynamic = run_tree(fan_out_itself, run_config=suspend)
    assert repr(dynamic.error) == repr(static.error)
    assert statuses(dynamic, "fan_out_itself") == statuses(static)
    assert dynamic.result.status is static.result.status


# ------------------------------------------------------------------------------------- exits


@EVERY_POLICY
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_leaves_bare_and_at_once_under_every_policy(
    policy: Barrier, error: type[BaseException]
) -> None:
    diary: Diary = []
    raised = error("stop")
    members = [leaf("a", ValueError("x")), loser("b", "returns", diary), leaf("c", 2, raised)]
    inner = ParallelAgent("inner", [*members, leaf("d", 2, error("me too"))], barrier=policy)
    if policy == FailFast():
        inner = ParallelAgent("inner", members[1:], barrier=policy)

    async def main() -> None:
        tree = ParallelAgent("outer", [leaf("e", 99), inner], barrier=BestEffort())
        async with Runner(tree).open(run_config=RunConfig(on_wait="suspend")) as run:
            with pytest.raises(error) as caught:
                async for _ in run:
                    pass
            assert caught.value is raised
            assert trio.current_time() == 7
        assert diary == ["b has cleaned up"]
        assert run.result.status is Status.FAILED
        assert [str(one.status) for one in run.outcomes("outer")] == ["cancelled", "failed"]

    run_virtual(main)


@pytest.mark.parametrize("policy", [FirstSuccess(), Quorum(1), FailFast()])
def test_an_interrupt_in_a_losers_clean_up_leaves_although_the_fan_out_had_decided(
    policy: Barrier,
) -> None:
    stop = SystemExit("cleaning up")

    @agent
    async def late(ctx: InvocationContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise stop

    decider = leaf("b", 1, ValueError("x")) if policy == FailFast() else leaf("b", 1, "x")

    async def main() -> None:
        with pytest.raises(SystemExit) as caught:
            await Runner(fan(policy, late, decider)).run()
        assert caught.value is stop

    run_virtual(main)


def test_an_interrupt_is_not_taken_for_a_timeout() -> None:
    """Raised while an agent cleaned up whose time was over, it was replaced by that timeout."""

    @agent(timeout=3)
    async def late(ctx: InvocationContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise SystemExit(1)

    async def main() -> None:
        with pytest.raises(SystemExit):
            await Runner(fan(BestEffort(), late)).run()

    run_virtual(main)


# ------------------------------------------------------------------------------------- misuse


@pytest.mark.parametrize("barrier", [FailFast, Quorum, None, "fail fast", Quorum.failure, 2])
def test_what_is_no_policy_is_refused(barrier: Any) -> None:
    with pytest.raises(TreeError, match=r"barrier of 'p' is a policy such as FailFast\(\), not"):
        ParallelAgent("p", leaves("a b"), barrier=barrier)


def test_a_class_for_a_policy_is_refused_with_a_hint() -> None:
    wrong: Any = WaitAll
    with pytest.raises(TreeError, match="make an object of it: call it"):
        ParallelAgent("p", leaves("a"), barrier=wrong)


@pytest.mark.parametrize(
    ("policy", "width", "needed"), [(FirstSuccess(), 0, 1), (Quorum(1), 0, 1), (Quorum(3), 2, 3)]
)
def test_too_few_branches_for_a_policy_are_refused_at_construction(
    policy: Barrier, width: int, needed: int
) -> None:
    needs = rf"of 'p' needs {needed} sub-agents or more, and it has {width}"
    with pytest.raises(TreeError, match=needs):
        ParallelAgent("p", [leaf(f"a{number}") for number in range(width)], barrier=policy)
    ParallelAgent("p", [leaf(f"a{number}") for number in range(needed)], barrier=policy)


def test_too_few_branches_at_run_time_are_refused_before_any_starts() -> None:
    started: list[str] = []
    member = leaf("a", lambda _: started.append("a"))

    @agent
    async def main(ctx: InvocationContext) -> None:
        with pytest.raises(
            FanOutError, match=r"Quorum\(n=3\) needs 3 branches or more, and 'main'"
        ):
            await ctx.fan_out([member, member], barrier=Quorum(3))

    assert run_tree(main).error is None
    assert started == []


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "2"])
def test_a_limit_that_is_no_number_of_branches_is_refused(limit: Any) -> None:
    with pytest.raises(TreeError, match=r"max_concurrency of 'p' must be 1 or more, or None"):
        ParallelAgent("p", leaves("a"), max_concurrency=limit)


def test_a_tree_shows_its_policy_and_limit() -> None:
    tree = ParallelAgent("p", leaves("a b"), barrier=Quorum(2), max_concurrency=1)
    assert (tree.barrier, tree.max_concurrency) == (Quorum(2), 1)
    assert (ParallelAgent("p").barrier, ParallelAgent("p").max_concurrency) == (FailFast(), None)


class NoMore(Barrier):
    """A policy of one's own: so many failures are none."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.failures = failures
        self.error = error

    def on_outcome(self, outcome: Outcome, tally: Tally) -> Verdict:
        too_many = outcome.error is not None and tally.failed > self.failures
        return Verdict.CANCEL_REST if too_many else Verdict.GO_ON

    def failure(self, outcomes: Sequence[Outcome]) -> BaseException | None:
        failed = [outcome.error for outcome in outcomes if outcome.error is not None]
        return self.error or failed[-1] if len(failed) > self.failures else None


def test_a_policy_of_ones_own_decides_what_is_cancelled_and_raised() -> None:
    errors = [ValueError("a"), ValueError("b")]
    members = [leaf("a", 1, errors[0]), leaf("b", 2, errors[1]), leaf("c", 9)]
    assert run_tree(fan(NoMore(2), *members)).time == 9
    ended = run_tree(fan(NoMore(1), *members))
    assert (ended.error, ended.time) == (errors[1], 2)
    assert statuses(ended) == ["failed", "failed", "cancelled"]


def test_a_policy_of_ones_own_may_raise_an_error_of_its_own() -> None:
    error = RuntimeError("too many")
    ended = run_tree(fan(NoMore(0, error), leaf("a", ValueError("x")), leaf("b", 9)))
    assert ended.error is error
    assert "another branch failed too: fan/a: ValueError: x" in ended.notes


def test_a_policy_that_fails_itself_ends_the_fan_out_and_hides_nothing() -> None:
    class Broken(NoMore):
        def on_outcome(self, outcome: Outcome, tally: Tally) -> Verdict:
            raise ZeroDivisionError(outcome, tally)

    diary: Diary = []
    ended = run_tree(fan(Broken(0), leaf("a", 1, "x"), loser("b", "returns", diary)))
    assert isinstance(ended.error, ZeroDivisionError)
    assert statuses(ended) == ["completed", "cancelled"]
    assert diary == ["b has cleaned up"]


# ------------------------------------------------------------------------------------- retries


def flaky(name: str, failures: int, retry: Retry | None = None) -> Agent:
    """An agent that takes a second, and fails so often before it completes."""
    left = [failures]

    @agent(name=name, retry=retry)
    async def run(ctx: InvocationContext) -> str:
        await trio.sleep(1)
        left[0] -= 1
        if left[0] >= 0:
            message = f"{name} {failures - left[0]}"
            raise ValueError(message)
        return f"{name} is done"

    return run


@EVERY_POLICY
def test_a_branch_that_is_tried_again_has_not_failed(policy: Barrier) -> None:
    ended = run_tree(fan(policy, flaky("a", 2, at_once(3)), flaky("b", 1, at_once(3))))
    assert ended.error is None
    assert ended.outcome("fan", "b").output == "b is done"
    assert ended.outcome("fan", "b").attempts == 2


def test_a_race_is_won_by_whoever_completes_first_attempts_and_all() -> None:
    tree = fan(FirstSuccess(), flaky("a", 2, at_once(3)), leaf("b", 4, "x"))
    ended = run_tree(tree)
    assert ended.result.output == {"a": "a is done"}
    assert ended.outcome("fan", "a").attempts == 3


def test_a_loser_is_not_tried_again() -> None:
    tree = fan(FirstSuccess(), flaky("a", 9, Retry(9, initial_delay=5)), leaf("b", 3, "quick"))
    ended = run_tree(tree)
    assert (statuses(ended), ended.time) == (["cancelled", "completed"], 3)
    assert ended.outcome("fan", "a").attempts == 1


@pytest.mark.parametrize("policy", [WaitAll(), FirstSuccess(), Quorum(1)])
def test_a_fan_out_that_failed_can_be_tried_again_as_a_whole(policy: Barrier) -> None:
    members = [flaky("a", 1), flaky("b", 1)]
    ended = run_tree(fan(policy, *members, retry=at_once(2)))
    assert ended.error is None
    assert [event.path for event in ended.delivered if event.actions.outcomes] == ["fan", "fan~2"]
    assert ended.outcome("fan", "a").path == "fan~2/a"


@pytest.mark.parametrize("policy", [FailFast(), WaitAll(), FirstSuccess(), Quorum(2)])
def test_retries_around_and_inside_do_not_multiply(policy: Barrier) -> None:
    members = [flaky("a", 99, at_once(3)), flaky("b", 99, at_once(3))]
    ended = run_tree(fan(policy, *members, retry=at_once(3)))
    assert ended.error is not None
    assert [outcome.attempts for outcome in ended.run.outcomes("fan")] == [3, 3]
    assert ended.time == 3


# ------------------------------------------------------------------------------------- timeouts


@EVERY_POLICY
def test_a_branch_whose_time_is_over_is_a_branch_that_failed(policy: Barrier) -> None:
    members = [leaf("a", 99, timeout=2), leaf("b", 1, ValueError("x"), retry=at_once(2))]
    tree = fan(policy, *members, leaf("c", 9, "x"), leaf("d", 9, "x"))
    ended = run_tree(tree, run_config=RunConfig(on_wait="suspend"))
    outcome = ended.outcome("fan", "a")
    if isinstance(policy, Escalate):
        assert outcome.status is Status.WAITING
    else:
        assert outcome.timed_out
        assert str(outcome.error) == "fan/a was not done within 2 s (timeout, on branch fan.a)"


@EVERY_POLICY
def test_a_fan_out_whose_time_is_over_is_cancelled_joined_and_says_so(policy: Barrier) -> None:
    diary: Diary = []
    ended = run_tree(fan(policy, loser("a", "fails", diary), leaf("b", 99), timeout=2))
    assert isinstance(ended.error, AgentTimeoutError)
    assert (ended.error.path, ended.error.kind, ended.time) == ("fan", "timeout", 7)
    assert diary == ["a has cleaned up"]
    assert statuses(ended) == ["failed", "cancelled"]


@pytest.mark.parametrize("policy", [WaitAll(), FirstSuccess(), BestEffort(), Quorum(1)])
def test_a_failure_before_its_time_was_over_is_not_taken_for_the_end(policy: Barrier) -> None:
    """It could still have completed: a timeout is a timeout."""
    ended = run_tree(fan(policy, leaf("a", 1, ValueError("x")), leaf("b", 99), timeout=2))
    assert isinstance(ended.error, AgentTimeoutError)
    assert statuses(ended) == ["failed", "cancelled"]


@pytest.mark.parametrize("policy", [FailFast(), Quorum(2)])
def test_a_decision_before_its_time_was_over_stands(policy: Barrier) -> None:
    error = ValueError("x")
    members = [leaf("a", 1, error), loser("b", "returns")]
    ended = run_tree(fan(policy, *members, timeout=2))
    assert ended.error is error or error in getattr(ended.error, "exceptions", ())


# ------------------------------------------------------------------------------------- cut short


@pytest.mark.parametrize("policy", [FirstSuccess(), Quorum(1)])
def test_a_quorum_that_is_cancelled_while_it_can_be_reached_has_not_failed(policy: Barrier) -> None:
    undecided = fan(policy, leaf("a", 1, ValueError("a")), leaf("b", 99))
    error = KeyError("c")
    ended = run_tree(ParallelAgent("outer", [undecided, leaf("c", 2, error)]))
    assert ended.error is error
    assert statuses(ended, "outer") == ["cancelled", "failed"]
    assert statuses(ended) == ["failed", "cancelled"]


def test_a_cancelled_run_is_cancelled_whatever_had_failed_in_a_race() -> None:
    async def main() -> None:
        tree = fan(FirstSuccess(), leaf("a", 1, "x", ValueError("a")), leaf("b", 99))
        async with Runner(tree).open() as run:
            async for _ in run:
                await trio.sleep(1)
                run.cancel("enough")
        assert (run.result.status, run.result.reason) == (Status.CANCELLED, "enough")

    run_virtual(main)


def test_a_group_that_was_cut_short_gives_way_to_what_has_cut_it_short() -> None:
    waits = fan(WaitAll(), leaf("a", 1, ValueError("a")), leaf("b", 99))
    error = KeyError("c")
    ended = run_tree(ParallelAgent("outer", [waits, leaf("c", 2, error)]))
    assert ended.error is error
    assert [outcome.own for outcome in ended.run.outcomes("outer")] == [False, True]


@pytest.mark.parametrize("policy", [FailFast(), Quorum(2)])
def test_a_decision_before_it_was_cancelled_is_a_failure_of_its_own(policy: Barrier) -> None:
    decided = fan(policy, leaf("a", 1, ValueError("a")), loser("b", "returns"))
    ended = run_tree(ParallelAgent("outer", [decided, leaf("c", 2, KeyError("c"))]))
    assert ended.error is ended.outcome("outer", "fan").error
    assert [outcome.own for outcome in ended.run.outcomes("outer")] == [True, True]


# ------------------------------------------------------------------------------------- escalating


def test_an_escalating_event_and_a_failure_at_the_same_moment_the_failure_is_raised() -> None:
    error = ValueError("x")
    for _ in range(9):  # trio reverses what is ready, now and then
        for members in ([leaf("a", 1, Stop()), leaf("b", 1, error)], leaves("a b", 1, error)):
            assert run_tree(fan(FailFast(), *members)).error is error


@pytest.mark.parametrize("policy", [FirstSuccess(), Quorum(1), Quorum(2), Quorum(3)])
def test_an_escalating_event_settles_a_quorum(policy: Barrier) -> None:
    members = [leaf("a", 1, Stop(), 1, "done"), leaf("b", 9), loser("c", "fails")]
    ended = run_tree(LoopAgent("loop", [fan(policy, *members)], max_iterations=5))
    assert ended.error is None
    assert [event.path for event in ended.delivered if event.author == "fan"] == ["loop/fan@1"]
    assert statuses(ended) == ["completed", "cancelled", "failed"]


def test_branches_that_never_started_because_of_an_escalating_event_are_not_missed() -> None:
    tree = fan(Quorum(3), leaf("a", 1, Stop()), *leaves("b c"), max_concurrency=1)
    ended = run_tree(tree)
    assert ended.error is None
    assert [outcome.attempts for outcome in ended.run.outcomes("fan")] == [1, 0, 0]


@pytest.mark.parametrize("policy", [FirstSuccess(), Quorum(2)])
def test_a_branch_that_escalates_and_fails_has_settled_nothing(policy: Barrier) -> None:
    error = ValueError("a")
    ended = run_tree(fan(policy, leaf("a", 1, Stop(), error), leaf("b", 9), leaf("c", 9)))
    assert isinstance(ended.error, QuorumError)
    assert list(ended.error.exceptions) == [error]
    assert ended.error.width == 3


# ------------------------------------------------------------------------------------- limits


@EVERY_POLICY
def test_a_limit_is_never_exceeded_and_all_run(policy: Barrier) -> None:
    running, peak, ran = [0], [0], list[str]()

    def enter(ctx: InvocationContext) -> None:
        running[0] += 1
        peak[0] = max(peak[0], running[0])

    def leave(ctx: InvocationContext) -> None:
        running[0] -= 1
        ran.append(ctx.agent.name)

    width = 2 if isinstance(policy, FirstSuccess | Quorum) else 6
    members = [leaf(f"a{number}", enter, number + 1, leave) for number in range(width)]
    if policy == FirstSuccess():
        members = [leaf("first", enter, 1, leave, ValueError("x")), members[1]]
    run_tree(fan(policy, *members, max_concurrency=2))
    assert peak == [2]
    assert len(ran) == len(members)


def test_what_still_waits_for_its_turn_does_not_start_after_the_decision() -> None:
    started: list[str] = []
    members = [leaf(name, lambda ctx: started.append(ctx.agent.name), 1, "x") for name in "abc"]
    ended = run_tree(fan(FirstSuccess(), *members, max_concurrency=1))
    assert started == ["a"]
    assert statuses(ended) == ["completed", "cancelled", "cancelled"]
    assert [outcome.attempts for outcome in ended.run.outcomes("fan")] == [1, 0, 0]


# ------------------------------------------------------------------------------------- ask a person

Choice = Literal["retry", "skip", "abort"]


def with_person(
    tree: Agent,
    *answers: tuple[Choice, float],
    at_each_event: Callable[[Run, Event], object] = lambda _run, _event: None,
    config: RunConfig | None = None,
) -> Ended:
    """Run a tree; the first question gets the first answer, after so many seconds, and so on."""

    async def main() -> Ended:
        delivered: list[Event] = []
        error: BaseException | None = None
        unused = list(answers)

        async def answer(run: Run, request_id: str) -> None:
            choice, seconds = unused.pop(0)
            await trio.sleep(seconds)
            with suppress(ResponseRefusedError):
                await run.respond(request_id, choice)

        async with trio.open_nursery() as people:
            async with Runner(tree).open("hi", run_config=config) as run:
                try:
                    async for event in run:
                        delivered.append(event)
                        at_each_event(run, event)
                        if event.request is not None and unused:
                            people.start_soon(answer, run, event.request.id)
                except Exception as exc:  # noqa: BLE001  # handed to the test
                    error = exc
            assert (run.pending != ()) is (run.status is Status.WAITING)
            ended = Ended(run, delivered, error, trio.current_time())
            people.cancel_scope.cancel()
        return ended

    return run_virtual(main)


def prompts(ended: Ended) -> list[str]:
    return [event.request.prompt for event in ended.delivered if event.request is not None]


def test_a_person_is_asked_about_a_failure_with_its_place_and_words() -> None:
    ended = with_person(fan(Escalate("What now?"), leaf("a", ValueError("no luck"))), ("skip", 1))
    assert prompts(ended) == ["What now? fan/a failed: ValueError: no luck"]
    (asked,) = (event for event in ended.delivered if event.request is not None)
    assert (asked.author, asked.path, asked.branch) == ("fan", "fan", None)


def test_a_person_may_have_a_branch_tried_again() -> None:
    ended = with_person(fan(Escalate(), flaky("a", 1), leaf("b", 1, "x")), ("retry", 5))
    assert ended.result.output == {"a": "a is done", "b": "x"}
    outcome = ended.outcome("fan", "a")
    assert (outcome.path, outcome.attempts, outcome.duration) == ("fan/a~2", 2, 7)
    assert [event.path for event in ended.delivered if event.author == "a"] == ["fan/a~2"]
    assert [event.attempt for event in ended.delivered if event.author == "a"] == [2]


def test_a_branch_that_fails_again_is_asked_about_again() -> None:
    ended = with_person(fan(Escalate(), flaky("a", 9)), ("retry", 1), ("retry", 1), ("skip", 1))
    assert [prompt.split()[4] for prompt in prompts(ended)] == ["fan/a", "fan/a~2", "fan/a~3"]
    assert (ended.outcome("fan", "a").attempts, ended.error) == (3, None)


def test_a_person_is_asked_when_all_attempts_are_used_up_and_their_numbers_go_on() -> None:
    ended = with_person(fan(Escalate(), flaky("a", 2, at_once(2))), ("retry", 1))
    assert [event.request is not None for event in ended.delivered].count(True) == 1
    assert ended.outcome("fan", "a").attempts == 3


def test_what_a_failed_try_said_stays_in_the_log_and_is_nobodys_history() -> None:
    seen: list[list[str]] = []

    @agent
    async def speaks(ctx: InvocationContext) -> None:
        seen.append(texts(ctx.history()))
        if len(seen) == 1:
            await ctx.emit("first try")
            raise ValueError

    ended = with_person(fan(Escalate(), speaks), ("retry", 1))
    assert seen == [["hi"], ["hi"]]
    assert texts(ended.result.events) == ["first try"]


def test_a_person_may_skip_a_failure() -> None:
    error = ValueError("x")
    ended = with_person(fan(Escalate(), leaf("a", error), leaf("b", 9, "x")), ("skip", 1))
    assert (ended.error, ended.result.output) == (None, {"b": "x"})
    assert ended.outcome("fan", "a").error is error
    assert ended.time == 9


def test_a_person_may_abort_and_the_failure_is_raised_as_itself() -> None:
    error, diary = ValueError("x"), list[str]()
    members = [loser("b", "returns", diary), leaf("a", error), leaf("c", 99)]
    ended = with_person(fan(Escalate(), *members), ("abort", 3))
    assert ended.error is error
    assert (diary, ended.time) == (["b has cleaned up"], 8)
    assert statuses(ended) == ["cancelled", "failed", "cancelled"]
    assert ended.notes == ["raised by agent fan/a"]


def test_siblings_go_on_while_a_person_thinks() -> None:
    members = [leaf("a", ValueError("x")), leaf("b", 1, "one", 1, "two")]
    ended = with_person(fan(Escalate(), *members), ("skip", 5))
    assert texts(ended.delivered) == ["one", "two"]
    assert ended.time == 5


def test_several_questions_are_open_at_once_and_answered_in_any_order() -> None:
    open_questions: list[int] = []
    members = [leaf("a", ValueError("a")), flaky("b", 1), leaf("c", 2, KeyError("c"))]
    ended = with_person(
        fan(Escalate(), *members),
        ("skip", 9),
        ("retry", 4),
        ("skip", 1),
        at_each_event=lambda run, _event: open_questions.append(len(run.pending)),
    )
    assert max(open_questions) == 3
    assert statuses(ended) == ["failed", "completed", "failed"]
    assert (ended.error, ended.time) == (None, 9)


def test_only_the_failure_that_a_person_aborted_for_is_raised() -> None:
    errors = [ValueError("a"), KeyError("b"), OSError("c")]
    members = [leaf(name, at, errors[at]) for at, name in enumerate("abc")]
    ended = with_person(fan(Escalate(), *members), ("skip", 20), ("abort", 5), ("skip", 9))
    assert ended.error is errors[1]
    assert statuses(ended) == ["failed"] * 3
    assert ended.time == 6


def test_nobody_is_asked_about_those_that_were_cancelled_by_an_abort() -> None:
    """Once they were: the fan-out hung until somebody said what to do about a loser."""
    ended = with_person(
        fan(Escalate(), leaf("a", ValueError("x")), loser("b", "fails")), ("abort", 1)
    )
    assert len(prompts(ended)) == 1
    assert statuses(ended) == ["failed", "failed"]


def test_nobody_is_asked_about_the_losers_of_an_escalating_event() -> None:
    ended = with_person(fan(Escalate(), leaf("a", 1, Stop()), loser("b", "fails")))
    assert (prompts(ended), ended.error, ended.time) == ([], None, 6)


def test_a_branch_that_escalates_and_fails_is_raised_without_a_question() -> None:
    error = ValueError("a")
    ended = with_person(fan(Escalate(), leaf("a", 1, Stop(), error), leaf("b", 9)))
    assert (prompts(ended), ended.error) == ([], error)


@pytest.mark.parametrize("steps", [[], [Stop()]], ids=["silent", "escalates"])
def test_a_branch_that_is_cancelled_from_further_out_and_fails_in_cleaning_up_is_not_raised(
    steps: list[Any],
) -> None:
    """Once it was, if it had escalated before: as if somebody had chosen to abort."""

    async def fail_in_cleaning_up(_ctx: InvocationContext) -> None:
        with suppress(trio.Cancelled):
            await trio.sleep_forever()
        message = "cleaning up"
        raise KeyError(message)

    members = [leaf("a", 1, ValueError("a")), leaf("b", 2, *steps, fail_in_cleaning_up)]
    error = OSError("c")
    ended = with_person(ParallelAgent("outer", [fan(Escalate(), *members), leaf("c", 3, error)]))
    assert ended.error is error
    assert statuses(ended) == ["failed", "failed"]
    assert statuses(ended, "outer") == ["cancelled", "failed"]


def test_an_answer_that_is_no_choice_is_refused_and_the_question_stays_open() -> None:
    async def main() -> None:
        async with Runner(fan(Escalate(), leaf("a", ValueError("x")))).open() as run:
            asked = await run.wait_for(lambda event: event.request is not None)
            assert asked.request is not None
            for wrong in ("Retry", "", True, None, ["retry"]):
                with pytest.raises(ResponseRefusedError):
                    await run.respond(asked.request.id, wrong)
            assert [request.id for request in run.pending] == [asked.request.id]
            await run.respond(asked.request.id, "skip")
            await run.collect()
        assert run.result.status is Status.COMPLETED

    run_virtual(main)


def _fails_elsewhere(asking: Agent) -> Agent:
    return ParallelAgent("outer", [asking, leaf("other", 3, KeyError("other"))])


def _escalates(asking: Agent) -> Agent:
    return asking  # its own sibling does


def _expires(asking: Agent) -> Agent:
    return asking.with_options(timeout=3)


@pytest.mark.parametrize("how", [_fails_elsewhere, _escalates, _expires])
def test_a_question_is_withdrawn_when_its_fan_out_ends_by_something_else(
    how: Callable[[Agent], Agent],
) -> None:
    escalates = how is _escalates
    members = [leaf("a", 1, ValueError("a")), leaf("b", 3, Stop()) if escalates else leaf("b", 99)]
    ended = with_person(how(fan(Escalate(), *members)), ("retry", 50))
    assert ended.time == 3
    assert ended.outcome("fan", "a").status is Status.FAILED
    raised = {"_fails_elsewhere": KeyError, "_expires": AgentTimeoutError}
    assert isinstance(ended.error, raised.get(how.__name__, type(None)))


def test_an_answer_that_comes_too_late_is_refused() -> None:
    async def main() -> None:
        tree = fan(Escalate(), leaf("a", ValueError("a")), leaf("b", 3, Stop(), 5))
        async with Runner(tree).open() as run:
            asked = await run.wait_for(lambda event: event.request is not None)
            await run.wait_for(lambda event: event.actions.escalate)
            assert asked.request is not None
            with trio.move_on_after(1):
                await run.wait_for(lambda _event: False)
            with pytest.raises(ResponseRefusedError, match="was withdrawn"):
                await run.respond(asked.request.id, "retry")
            await run.collect()

    run_virtual(main)


def test_a_cancelled_run_withdraws_its_questions() -> None:
    def cancel(run: Run, event: Event) -> None:
        if event.request is not None:
            run.cancel("enough")

    members = [leaf("a", ValueError("a")), leaf("b", 99)]
    ended = with_person(fan(Escalate(), *members), at_each_event=cancel)
    assert (ended.result.status, ended.error, ended.time) == (Status.CANCELLED, None, 0)
    assert statuses(ended) == ["failed", "cancelled"]


def test_under_suspend_the_others_end_and_the_run_waits_for_another_day() -> None:
    members = [leaf("a", ValueError("a")), leaf("b", 3, "x"), leaf("c", 4, KeyError("c"))]
    after = leaf("after", "never")
    tree = SequentialAgent("all", [fan(Escalate(), *members), after])
    ended = with_person(tree, config=RunConfig(on_wait="suspend"))
    assert (ended.result.status, ended.error, ended.time) == (Status.WAITING, None, 4)
    assert statuses(ended) == ["waiting", "completed", "waiting"]
    assert ended.outcome("fan", "b").output == "x"
    assert len(prompts(ended)) == 2
    assert "never" not in texts(ended.delivered)


def test_a_waiting_branch_is_no_failure_for_the_fan_out_around_it() -> None:
    inner = fan(Escalate(), leaf("a", ValueError("a")))
    outer = ParallelAgent("outer", [inner, leaf("b", 3, "x")], barrier=WaitAll())
    ended = with_person(outer, config=RunConfig(on_wait="suspend"))
    assert (ended.result.status, statuses(ended, "outer")) == (
        Status.WAITING,
        ["waiting", "completed"],
    )


def test_a_race_is_over_although_a_branch_waits_for_a_person() -> None:
    inner = fan(Escalate(), leaf("a", ValueError("a")))
    outer = ParallelAgent("outer", [inner, leaf("b", 3, "x")], barrier=FirstSuccess())
    ended = with_person(outer, config=RunConfig(on_wait="suspend"))
    assert (ended.result.status, ended.result.output) == (Status.COMPLETED, {"b": "x"})


# ----------------------------------------------------------------------- a policy that is broken


class Broken(Barrier):
    """Answers what it is told to, or raises it."""

    def __init__(self, *, on_outcome: Any = Verdict.GO_ON, failure: Any = None) -> None:
        self._answers = {"on_outcome": on_outcome, "failure": failure}

    def _answer(self, method: str) -> Any:
        answer = self._answers[method]
        if isinstance(answer, KeyError):
            raise answer
        return answer

    def on_outcome(self, outcome: Outcome, tally: Tally) -> Verdict:  # noqa: ARG002  # the same to all
        return self._answer("on_outcome")  # type: ignore[no-any-return]  # whatever it is

    def failure(self, outcomes: Sequence[Outcome]) -> BaseException | None:  # noqa: ARG002  # as above
        return self._answer("failure")  # type: ignore[no-any-return]  # as above

    def __repr__(self) -> str:
        return "Broken()"


def in_a_block(policy: Barrier, members: Sequence[Agent]) -> Agent:
    @agent(name="fan")
    async def run(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out(barrier=policy) as group:
            for member in members:
                group.start(member)
            await trio.sleep(99)

    return run


@pytest.mark.parametrize("make", [lambda policy, members: fan(policy, *members), in_a_block])
def test_a_policy_that_raises_ends_the_others_and_loses_no_failure(
    make: Callable[[Barrier, Sequence[Agent]], Agent],
) -> None:
    wrong = KeyError("in the policy")
    members = [leaf("a", 1, ValueError("a")), leaf("b", 9)]
    ended = run_tree(make(Broken(on_outcome=wrong), members))
    assert (ended.error, ended.time) == (wrong, 1)
    assert statuses(ended) == ["failed", "cancelled"]
    assert any("ValueError: a" in note for note in wrong.__notes__)


def test_a_policy_that_raises_when_all_have_ended_loses_no_failure() -> None:
    wrong = KeyError("in the policy")
    ended = run_tree(fan(Broken(failure=wrong), leaf("a", 1, ValueError("a")), leaf("b", 9)))
    assert (ended.error, ended.time) == (wrong, 9)
    assert statuses(ended) == ["failed", "completed"]
    assert any("ValueError: a" in note for note in wrong.__notes__)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"on_outcome": None}, "on_outcome() returned None; a Verdict is needed"),
        ({"on_outcome": "go on"}, "on_outcome() returned 'go on'; a Verdict is needed"),
        ({"failure": "lost"}, "failure() returned 'lost'; an exception or None is needed"),
        ({"failure": ValueError}, "failure() returned <class 'ValueError'>; an exception or None"),
    ],
)
def test_what_a_policy_must_not_answer_is_refused_and_the_policy_named(
    options: dict[str, Any], said: str
) -> None:
    ended = run_tree(fan(Broken(**options), leaf("a", "x")))
    assert isinstance(ended.error, FanOutError)
    assert f"Broken().{said}" in str(ended.error)
