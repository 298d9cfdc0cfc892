"""The log: what is in it, in which order, and what it comes to, after every way of ending a run."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import Status
from tests.support import laws
from tests.support.drawing import CALM, WAYS, Allowed, cases, fewer, readers, stores, trees
from tests.support.laws import Law
from tests.support.running import Case, Reader, Report, Way, perform
from tests.support.scripts import Cleanup, Emit, Fan, Leaf, Node, Pause
from tests.support.stores import StoreFailedError


@fewer(10)
@given(trees(), readers(), stores(), st.random_module())
def test_the_log_is_right_after_every_way_and_at_every_index_of_leaving(
    tree: Node, reader: Reader, store: tuple[float, ...] | None, seed: object
) -> None:
    to_the_end = perform(Case(tree, attrs.evolve(reader, way="end"), store))
    for way in WAYS:
        for at in range(len(to_the_end.delivered) + 1):
            report = perform(Case(tree, attrs.evolve(reader, way=way, at=at), store))
            laws.the_fold_of_the_log_is_the_state(report)
            laws.the_log_is_contiguous(report)
            laws.what_the_reader_got_is_a_prefix_of_the_log(report)
            laws.in_memory_only_shielded_cleanup_is_recorded_undelivered(report)


@fewer(2)
@given(cases())
def test_the_fold_of_the_log_is_the_live_state(case: Case) -> None:
    laws.the_fold_of_the_log_is_the_state(perform(case))


@fewer(2)
@given(cases())
def test_sequence_numbers_start_at_one_and_have_no_gaps(case: Case) -> None:
    laws.the_log_is_contiguous(perform(case))


@fewer(2)
@given(cases())
def test_what_the_reader_got_is_a_prefix_of_the_log(case: Case) -> None:
    laws.what_the_reader_got_is_a_prefix_of_the_log(perform(case))


@fewer(2)
@given(cases(trees(Allowed(cleanups=False, background=False))))
def test_in_memory_the_log_is_what_was_delivered(case: Case) -> None:
    report = perform(attrs.evolve(case, store=None))
    assert [event for event in report.delivered if not event.partial] == list(report.events)


@fewer(2)
@given(cases(trees(Allowed(background=True))))
def test_each_branch_is_recorded_in_the_order_of_its_calls(case: Case) -> None:
    laws.a_branch_is_recorded_in_call_order(perform(case))


@fewer(2)
@given(cases(trees(CALM)))
def test_every_event_of_a_run_read_to_its_end_is_recorded_and_delivered_once(case: Case) -> None:
    report = perform(attrs.evolve(case, reader=attrs.evolve(case.reader, way="end")))
    called = [call.event for call in report.notebook.calls]
    assert {id(event) for event in called} <= {id(event) for event in report.delivered}
    assert [event for event in report.delivered if not event.partial] == list(report.events)


@fewer(2)
@given(cases(trees(Allowed(escalations=False))))
def test_an_outcome_event_follows_everything_of_its_branches(case: Case) -> None:
    laws.an_outcome_follows_everything_of_its_branches(perform(case))


@fewer(2)
@given(cases(trees(Allowed(failures=False), kinds=[Fan])))
def test_nothing_of_a_sibling_follows_an_escalation(case: Case) -> None:
    laws.nothing_of_a_sibling_follows_the_deciding_event(perform(case))


# Batches.


@fewer(2)
@given(st.integers(1, 8), st.integers(1, 4), st.random_module())
def test_branches_that_wait_together_share_a_commit(width: int, count: int, seed: object) -> None:
    tree = Fan("p", [Leaf(f"a{index}", [Emit()] * count) for index in range(width)])
    report = perform(Case(tree, store=(1,)))
    assert report.batch_sizes == (width,) * count + (1,)


@fewer(2)
@given(cases(trees(CALM)))
def test_batches_add_up_to_the_log(case: Case) -> None:
    report = perform(attrs.evolve(case, store=case.store or (0.5,)))
    assert sum(report.batch_sizes) == len(report.events)


def test_a_batch_ends_with_an_escalating_event() -> None:
    siblings = [Leaf(name, [Emit(), Emit()]) for name in "abd"]
    tree = Fan("p", [*siblings[:2], Leaf("c", [Emit(escalate=True), Emit()]), siblings[2]])
    report = perform(Case(tree, store=(1,)))
    texts = [event.text for event in report.events]
    assert "c.1" in texts
    assert texts[texts.index("c.1") + 1 :] == ["c.2", ""]
    assert sum(report.batch_sizes[:-2]) == texts.index("c.1") + 1


def test_an_event_cancelled_while_it_waits_for_its_turn_is_not_recorded() -> None:
    """`b` is queued behind a slow reader when its sibling's failure cancels it."""
    tree = Fan(
        "p",
        [
            Leaf("a", [Emit()]),
            Leaf("b", [Pause(1), Emit()]),
            Leaf("c", [Pause(2), Cleanup([Pause(1)], []), Emit()]),
        ],
    )
    report = perform(Case(tree, Reader((5,), way="break", at=1)))
    assert [event.text for event in report.events] == ["a.1"]


# A store that fails.


@fewer(2)
@given(cases(), st.integers(1, 6))
def test_a_failing_store_ends_the_run_with_its_error_once_and_a_whole_log(
    case: Case, fails_at: int
) -> None:
    report = perform(
        attrs.evolve(
            case,
            reader=attrs.evolve(case.reader, way="end"),
            store=case.store or (1,),
            store_fails_at=fails_at,
        )
    )
    failed = report.appends_asked >= fails_at
    assert isinstance(report.error, StoreFailedError) == failed
    if failed:
        assert report.appends_asked == fails_at, "asked again after it had failed"
        assert report.result.status is not Status.COMPLETED
        assert str(report.error) == f"append {fails_at}"
    for law in (
        laws.nothing_outlives_the_block,
        laws.every_activation_ends_in_one_status,
        laws.the_log_is_contiguous,
        laws.what_the_reader_got_is_a_prefix_of_the_log,
        laws.the_fold_of_the_log_is_the_state,
    ):
        law(report)


@fewer(2)
@given(cases(), st.integers(1, 6), st.sampled_from(WAYS))
def test_a_store_that_fails_while_the_reader_leaves_leaves_a_whole_log(
    case: Case, fails_at: int, way: Way
) -> None:
    reader = attrs.evolve(case.reader, way=way)
    report = perform(
        attrs.evolve(case, reader=reader, store=case.store or (1,), store_fails_at=fails_at)
    )
    laws.nothing_outlives_the_block(report)
    laws.every_activation_ends_in_one_status(report)
    laws.the_log_is_contiguous(report)
    laws.the_fold_of_the_log_is_the_state(report)


# The checkers, on logs that are wrong.


def _run() -> Report:
    return perform(Case(Fan("p", [Leaf("a", [Emit({"x": 1}), Emit()]), Leaf("b", [Emit()])])))


@pytest.mark.parametrize(
    ("law", "wrong"),
    [
        (laws.the_fold_of_the_log_is_the_state, {"events": slice(0)}),
        (laws.the_log_is_contiguous, {"events": slice(None, None, 2)}),
        (laws.what_the_reader_got_is_a_prefix_of_the_log, {"delivered": slice(1, None)}),
        (laws.what_the_reader_got_is_a_prefix_of_the_log, {"delivered": slice(None, None, -1)}),
        (laws.an_outcome_follows_everything_of_its_branches, {"events": slice(None, None, -1)}),
        (laws.an_emit_that_returned_was_recorded, {"events": slice(1, None)}),
    ],
)
def test_a_wrong_log_is_noticed(law: Law, wrong: dict[str, slice]) -> None:
    report = _run()
    law(report)
    changed = {name: getattr(report, name)[part] for name, part in wrong.items()}
    with pytest.raises(AssertionError):
        law(attrs.evolve(report, **changed))
