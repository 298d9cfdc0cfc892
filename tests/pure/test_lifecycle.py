"""The table that every status is moved by."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent.lifecycle import TERMINAL, TRANSITIONS, Status, Step, advance

steps = st.sampled_from(Step)


def reachable(start: Status) -> set[Status]:
    """Every status that some steps lead to from ``start``, itself included."""
    found, todo = {start}, [start]
    while todo:
        here = todo.pop()
        new = {after for (before, _), after in TRANSITIONS.items() if before is here} - found
        found |= new
        todo.extend(new)
    return found


def lived(drawn: list[Step]) -> list[Status]:
    """Every status on the way from pending; steps that the table does not have are refused."""
    line = [Status.PENDING]
    for step in drawn:
        try:
            line.append(advance(line[-1], step))
        except RuntimeError:
            assert (line[-1], step) not in TRANSITIONS
    return line


@given(st.lists(steps, max_size=20))
def test_whatever_happens_at_most_one_terminal_status_is_reached(drawn: list[Step]) -> None:
    assert sum(status in TERMINAL for status in lived(drawn)) <= 1


@given(st.lists(steps, max_size=20))
def test_a_terminal_status_is_the_last(drawn: list[Step]) -> None:
    assert not any(status in TERMINAL for status in lived(drawn)[:-1])


def test_every_status_can_be_reached() -> None:
    assert reachable(Status.PENDING) == set(Status)


@pytest.mark.parametrize("status", sorted(set(Status) - TERMINAL))
def test_a_status_that_is_not_terminal_leads_to_one(status: Status) -> None:
    assert reachable(status) & TERMINAL


@pytest.mark.parametrize("status", sorted(TERMINAL))
@pytest.mark.parametrize("step", Step)
def test_no_step_leaves_a_terminal_status(status: Status, step: Step) -> None:
    with pytest.raises(RuntimeError, match=rf"nothing that is {status} can {step.value}"):
        advance(status, step)


def test_what_never_ran_does_not_complete_and_does_not_wait() -> None:
    assert not {(Status.PENDING, Step.COMPLETE), (Status.PENDING, Step.WAIT)} & set(TRANSITIONS)


def test_nothing_starts_twice() -> None:
    assert [before for before, step in TRANSITIONS if step is Step.START] == [Status.PENDING]


@given(st.sampled_from(Status), steps)
def test_advance_is_the_table(status: Status, step: Step) -> None:
    if (status, step) in TRANSITIONS:
        assert advance(status, step) is TRANSITIONS[status, step]
    else:
        with pytest.raises(RuntimeError):
            advance(status, step)


def test_the_table_cannot_be_changed() -> None:
    table = cast("dict[Any, Any]", TRANSITIONS)
    with pytest.raises(TypeError):
        table[Status.COMPLETED, Step.FAIL] = Status.FAILED


@pytest.mark.parametrize("status", Status)
def test_a_status_is_its_word(status: Status) -> None:
    assert str(status) == f"{status}" == status.value == status
