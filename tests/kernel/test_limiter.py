"""A limiter by itself: who gets a slot, in which order, and that none is ever lost.

What agents make of it is in ``tests/workflow/test_limits.py``.
"""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from parallel_agent.limiter import Limiter, LimiterStatistics, Slots
from tests.kernel.scripted import Diary, run_virtual


def standing(limiter: Limiter) -> tuple[int, int, int]:
    """Slots in use, and how many wait to go on, and to begin."""
    statistics = limiter.statistics()
    return statistics.in_use, statistics.returning, statistics.starting


# ------------------------------------------------------------------------------------ the limiter


@pytest.mark.parametrize("slots", [0, -1, True, 1.0, "1", None])
def test_slots_that_are_no_positive_whole_number_are_refused(slots: Any) -> None:
    with pytest.raises(ValueError, match="whole number of slots from 1 on, not"):
        Limiter(slots)


def test_it_says_what_it_is() -> None:
    limiter = Limiter(2, name="gpu")
    assert (limiter.name, limiter.slots) == ("gpu", 2)
    assert repr(limiter) == "<Limiter gpu: 0 of 2 in use>"
    assert limiter.statistics() == LimiterStatistics(2, 0, 0, 0)


async def test_slots_are_taken_at_once_while_there_are_some(autojump_clock: MockClock) -> None:
    limiter = Limiter(2)
    await limiter.acquire()
    await limiter.acquire(returning=True)
    assert standing(limiter) == (2, 0, 0)


async def _line_up(
    limiter: Limiter, nursery: trio.Nursery, diary: Diary, name: str, *, returning: bool = False
) -> trio.CancelScope:
    scope = trio.CancelScope()

    async def wait() -> None:
        with scope:
            await limiter.acquire(returning=returning)
            diary.append(name)

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    return scope


async def test_those_who_begin_come_in_the_order_in_which_they_asked() -> None:
    limiter, diary = Limiter(1), Diary()
    await limiter.acquire()
    async with trio.open_nursery() as nursery:
        for name in "abc":
            await _line_up(limiter, nursery, diary, name)
        for _ in "abc":
            limiter.release()
            await wait_all_tasks_blocked()
    assert diary == ["a", "b", "c"]


async def test_those_who_come_back_come_before_those_who_begin() -> None:
    limiter, diary = Limiter(1), Diary()
    await limiter.acquire()
    async with trio.open_nursery() as nursery:
        await _line_up(limiter, nursery, diary, "begins")
        await _line_up(limiter, nursery, diary, "back first", returning=True)
        await _line_up(limiter, nursery, diary, "back second", returning=True)
        assert standing(limiter) == (1, 2, 1)
        for _ in range(3):
            limiter.release()
            await wait_all_tasks_blocked()
    assert diary == ["back first", "back second", "begins"]


async def test_nobody_overtakes_in_the_moment_in_which_a_slot_is_handed_over() -> None:
    limiter, diary = Limiter(1), Diary()
    await limiter.acquire()
    async with trio.open_nursery() as nursery:
        await _line_up(limiter, nursery, diary, "waited")
        limiter.release()  # to whoever waits, who has not run yet
        assert standing(limiter) == (1, 0, 0)
        scope = await _line_up(limiter, nursery, diary, "late")
        scope.cancel()
    assert diary == ["waited"]


@pytest.mark.parametrize("returning", [False, True])
async def test_who_is_cancelled_while_waiting_is_passed_over(returning: bool) -> None:  # noqa: FBT001  # drawn
    limiter, diary = Limiter(1), Diary()
    await limiter.acquire()
    async with trio.open_nursery() as nursery:
        first = await _line_up(limiter, nursery, diary, "first", returning=returning)
        await _line_up(limiter, nursery, diary, "second", returning=returning)
        first.cancel()
        await wait_all_tasks_blocked()
        limiter.release()
    assert diary == ["second"]
    assert standing(limiter) == (1, 0, 0)


async def test_who_is_cancelled_before_asking_gets_nothing() -> None:
    limiter = Limiter(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await limiter.acquire()
    assert scope.cancelled_caught
    assert standing(limiter) == (0, 0, 0)


@attrs.frozen
class Asker:
    """Asks after a while, holds for a while; cancelled at a moment of its own, or never."""

    asks: int
    holds: int
    cancelled: int | None
    returning: bool


ASKERS = st.builds(
    Asker,
    st.integers(0, 4),
    st.integers(0, 3),
    st.none() | st.integers(0, 6),
    st.booleans(),
)


@given(st.integers(1, 3), st.lists(ASKERS, max_size=8), st.random_module())
def test_never_more_than_the_slots_and_none_is_lost(
    slots: int, askers: list[Asker], scheduler: object
) -> None:
    limiter = Limiter(slots)
    holding: set[int] = set()
    served: set[int] = set()

    async def ask(index: int, asker: Asker) -> None:
        with trio.CancelScope() as scope:
            if asker.cancelled is not None:
                scope.deadline = trio.current_time() + asker.cancelled
            await trio.sleep(asker.asks)
            await limiter.acquire(returning=asker.returning)
            try:
                holding.add(index)
                served.add(index)
                assert len(holding) <= slots
                assert limiter.statistics().in_use >= len(holding)
                await trio.sleep(asker.holds)
            finally:
                holding.discard(index)
                limiter.release()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for index, asker in enumerate(askers):
                nursery.start_soon(ask, index, asker)

    run_virtual(main)
    assert standing(limiter) == (0, 0, 0)
    assert served >= {index for index, asker in enumerate(askers) if asker.cancelled is None}


# ---------------------------------------------------------------------- what one agent holds of it


async def test_an_agent_without_limiters_holds_nothing_and_waits_for_nothing() -> None:
    slots = Slots(())
    await slots.take()
    slots.step_aside()
    await slots.step_back()
    slots.give()
    assert not slots.limited


async def test_an_agent_takes_a_slot_of_every_limiter_and_gives_each_back_once() -> None:
    one, other = Limiter(1), Limiter(2)
    slots = Slots((one, other))
    await slots.take()
    assert (standing(one), standing(other)) == ((1, 0, 0), (1, 0, 0))
    slots.give()
    slots.give()
    assert (standing(one), standing(other)) == ((0, 0, 0), (0, 0, 0))


async def test_cancelled_at_the_second_limiter_it_gives_the_first_back() -> None:
    one, other = Limiter(1), Limiter(1)
    await other.acquire()
    slots = Slots((one, other))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.take)
        await wait_all_tasks_blocked()
        assert (standing(one), standing(other)) == ((1, 0, 0), (1, 0, 1))
        nursery.cancel_scope.cancel()
    assert (standing(one), standing(other)) == ((0, 0, 0), (1, 0, 0))
    slots.give()
    assert standing(other) == (1, 0, 0)


async def test_an_agent_that_waits_holds_nothing_and_comes_back_ahead() -> None:
    limiter = Limiter(1)
    slots = Slots((limiter,))
    await slots.take()
    slots.step_aside()
    assert standing(limiter) == (0, 0, 0)
    await limiter.acquire()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(limiter.acquire)
        await wait_all_tasks_blocked()
        nursery.start_soon(slots.step_back)
        await wait_all_tasks_blocked()
        assert standing(limiter) == (1, 1, 1)
        limiter.release()
        await wait_all_tasks_blocked()
        assert standing(limiter) == (1, 0, 1)
        slots.give()


async def test_an_agent_that_waits_twice_at_once_comes_back_after_the_last() -> None:
    limiter = Limiter(1)
    slots = Slots((limiter,))
    await slots.take()
    slots.step_aside()
    slots.step_aside()
    await slots.step_back()
    assert standing(limiter) == (0, 0, 0)
    await slots.step_back()
    assert standing(limiter) == (1, 0, 0)


async def test_a_cancelled_wait_counts_as_ended() -> None:
    limiter = Limiter(1)
    slots = Slots((limiter,))
    await slots.take()
    slots.step_aside()
    slots.step_aside()
    slots.stay_aside()
    await slots.step_back()
    assert standing(limiter) == (1, 0, 0)


async def test_two_tasks_that_come_back_at_once_take_one_slot_between_them() -> None:
    """Taken twice and given back once, it would be lost; and with one slot they would hang."""
    limiter = Limiter(1)
    slots = Slots((limiter,))
    await slots.take()
    slots.step_aside()
    await limiter.acquire()  # by somebody else, meanwhile
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.step_back)
        await wait_all_tasks_blocked()
        slots.step_aside()
        nursery.start_soon(slots.step_back)
        await wait_all_tasks_blocked()
        limiter.release()
        with trio.fail_after(1):
            await wait_all_tasks_blocked()
    assert standing(limiter) == (1, 0, 0)
    slots.give()
    assert standing(limiter) == (0, 0, 0)


async def test_a_task_that_comes_back_while_another_waits_holds_nothing() -> None:
    """Else what the other waits for might wait for its slot."""
    limiter = Limiter(1)
    slots = Slots((limiter,))
    await slots.take()
    slots.step_aside()
    await limiter.acquire()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.step_back)
        await wait_all_tasks_blocked()
        slots.step_aside()
        limiter.release()
    assert standing(limiter) == (0, 0, 0)
    await slots.step_back()
    assert standing(limiter) == (1, 0, 0)


async def test_cancelled_in_coming_back_it_leaves_that_to_the_other_task() -> None:
    limiter = Limiter(1)
    slots = Slots((limiter,))
    await slots.take()
    slots.step_aside()
    await limiter.acquire()
    scope = trio.CancelScope()

    async def cancelled() -> None:
        with scope:
            await slots.step_back()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancelled)
        await wait_all_tasks_blocked()
        slots.step_aside()
        nursery.start_soon(slots.step_back)
        await wait_all_tasks_blocked()
        scope.cancel()
        await wait_all_tasks_blocked()
        assert standing(limiter) == (1, 1, 0)
        limiter.release()
    assert standing(limiter) == (1, 0, 0)


@attrs.frozen
class Wait:
    """One wait of one task of an agent: when, for how long, cancelled after how long, if ever."""

    begins: int
    lasts: int
    patience: int | None


WAITS = st.lists(
    st.builds(Wait, st.integers(0, 2), st.integers(0, 3), st.none() | st.integers(0, 4)),
    min_size=1,
    max_size=3,
)


async def _play(slots: Slots, waits: list[Wait]) -> None:
    for wait in waits:
        await trio.sleep(wait.begins)
        with trio.CancelScope() as scope:
            if wait.patience is not None:
                scope.deadline = trio.current_time() + wait.patience
            slots.step_aside()
            try:
                await trio.sleep(wait.lasts)
            except BaseException:
                slots.stay_aside()
                raise
            await slots.step_back()


@given(
    st.lists(st.lists(WAITS, min_size=1, max_size=3), min_size=1, max_size=4),
    st.integers(1, 2),
    st.integers(1, 2),
    st.random_module(),
)
def test_agents_of_several_tasks_that_wait_as_they_like_all_end_and_leave_nothing(
    agents: list[list[list[Wait]]], first: int, second: int, scheduler: object
) -> None:
    limiters = Limiter(first), Limiter(second)
    ended: list[int] = []

    async def work(index: int, tasks: list[list[Wait]]) -> None:
        slots = Slots(limiters if index % 2 else limiters[1:])
        await slots.take()
        try:
            async with trio.open_nursery() as nursery:
                for waits in tasks:
                    nursery.start_soon(_play, slots, waits)
        finally:
            slots.give()
        ended.append(index)

    async def main() -> None:
        with trio.fail_after(1_000):
            async with trio.open_nursery() as nursery:
                for index, tasks in enumerate(agents):
                    nursery.start_soon(work, index, tasks)

    run_virtual(main)
    assert sorted(ended) == list(range(len(agents)))
    assert [standing(limiter) for limiter in limiters] == [(0, 0, 0), (0, 0, 0)]
