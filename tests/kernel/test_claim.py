"""Whose a session is: in line for it, interrupting, and leases that are renewed, or lost."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from parallel_agent import (
    Agent,
    FunctionAgent,
    InMemorySessionService,
    InvocationContext,
    ParallelAgent,
    Result,
    RunConfig,
    Runner,
    SessionService,
    Status,
    agent,
)
from parallel_agent.claim import _HELD, Claim, OnBusy
from session import LeaseLostError, SessionBusyError, SessionKey, SessionNotFoundError
from session.lease import Lease, Unfinished
from tests.support.drawing import fewer
from tests.support.leases import LeasingService
from tests.support.timing import clock_with_horizon

KEY = SessionKey("app", "user", "s")
INTERRUPTED = "interrupted by another run of its session"

Diary = list[str]


async def made(service: SessionService) -> SessionService:
    await service.create(app_name="app", user_id="user", session_id="s")
    return service


async def taken(service: SessionService, run_id: str, on_busy: OnBusy = "error") -> Claim:
    held = Claim(service)
    await held.take(KEY, run_id, resumable=False, on_busy=on_busy)
    return held


def works(diary: Diary, seconds: float = 1.0, clean_up: float = 0.0) -> FunctionAgent:
    """An agent that works for so long, and says in the diary when it began and ended."""

    async def work(ctx: InvocationContext) -> Any:
        diary.append(f"{ctx.user_text} begins")
        try:
            await trio.sleep(seconds)
            yield "done"
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(clean_up)
            diary.append(f"{ctx.user_text} ends")

    return agent(work, name="works")


def runner_of(tree: Agent, service: SessionService, **options: Any) -> Runner:
    return Runner(tree, app_name="app", session_service=service, **options)


# ------------------------------------------------------------------------------------ error, queue


async def test_a_session_that_is_held_is_refused_with_its_holder() -> None:
    service = await made(InMemorySessionService())
    await taken(service, "one")
    with pytest.raises(SessionBusyError) as caught:
        await taken(service, "two")
    assert caught.value.run_id == "one"


@pytest.mark.parametrize("on_busy", ["error", "queue", "interrupt"])
async def test_a_session_that_is_free_is_taken_and_one_that_is_not_there_is_missed(
    on_busy: OnBusy,
) -> None:
    service = await made(InMemorySessionService())
    held = await taken(service, "one", on_busy)
    assert held.lease is not None
    await held.release()
    await (await taken(service, "two", on_busy)).release()
    with pytest.raises(SessionNotFoundError):
        await Claim(service).take(
            SessionKey("app", "user", "t"), "one", resumable=False, on_busy=on_busy
        )


async def test_a_service_that_owns_nothing_lets_everybody_in() -> None:
    class Simple(InMemorySessionService):
        owns = False

    service = await made(Simple())
    claims = [await taken(service, name, "queue") for name in ("one", "two")]
    assert [one.lease for one in claims] == [None, None]


@attrs.frozen
class Comer:
    """A run that comes to the session at a time, and works there."""

    at: float
    works: float
    gives_up_after: float | None = None


COMERS = st.lists(
    st.builds(
        Comer,
        at=st.sampled_from([0.0, 0.5, 1.0, 2.25]),
        works=st.sampled_from([0.0, 0.4, 1.0]),
        gives_up_after=st.none() | st.sampled_from([0.1, 0.75]),
    ),
    min_size=1,
    max_size=5,
)


async def _come(
    service: SessionService, comers: Sequence[Comer], diary: list[tuple[str, int]]
) -> None:
    """Have them come, in the order of the list if at the same time; note who has the session."""

    async def come(number: int, comer: Comer) -> None:
        await trio.sleep(comer.at + number / 1000)
        diary.append(("comes", number))
        with trio.move_on_after(comer.gives_up_after or float("inf")):
            held = await taken(service, f"run {number}", "queue")
            diary.append(("takes", number))
            try:
                await trio.sleep(comer.works)
            finally:
                diary.append(("leaves", number))
                await held.release()

    async with trio.open_nursery() as nursery:
        for number, comer in enumerate(comers):
            nursery.start_soon(come, number, comer)


def unfair(diary: Sequence[tuple[str, int]]) -> list[str]:
    """Say who had the session beside another, or before one that had come earlier."""
    found = list[str]()
    inside: int | None = None
    came = [number for what, number in diary if what == "comes"]
    took = [number for what, number in diary if what == "takes"]
    for what, number in diary:
        if what == "takes":
            if inside is not None:
                found.append(f"{number} beside {inside}")
            inside = number
        elif what == "leaves":
            inside = None
    ranks = [came.index(number) for number in took]
    if ranks != sorted(ranks):
        found.append(f"came {came}, took {took}")
    return found


@fewer(2)
@given(COMERS, st.sampled_from([0.0, 0.1]), st.random_module())
def test_runs_that_queue_have_the_session_in_turn_in_the_order_of_their_coming(
    comers: list[Comer], delay: float, seed: Any
) -> None:
    async def main() -> tuple[list[tuple[str, int]], SessionService]:
        diary = list[tuple[str, int]]()
        service = await made(LeasingService(delay=delay))
        await _come(service, comers, diary)
        await (await taken(service, "last")).release()  # it is free
        return diary, service

    diary, service = trio.run(main, clock=clock_with_horizon())
    assert unfair(diary) == []
    assert len([1 for what, _ in diary if what == "takes"]) >= sum(
        comer.gives_up_after is None for comer in comers
    )
    # Nothing is kept of who has waited.
    assert (_HELD[service].claims, _HELD[service].lines) == ({}, {})


def test_the_checker_sees_two_at_once_and_who_pushes_in() -> None:
    assert unfair([("comes", 0), ("comes", 1), ("takes", 0), ("takes", 1)]) != []
    pushed = [("comes", 0), ("comes", 1), ("takes", 1), ("leaves", 1), ("takes", 0), ("leaves", 0)]
    assert unfair(pushed) != []


async def test_a_run_that_queues_waits_for_one_of_another_process(
    autojump_clock: MockClock,
) -> None:
    here = LeasingService()
    await made(here)
    there = here.elsewhere()
    held = await taken(there, "theirs")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_release_at, held, 7.2)
        mine = await taken(here, "mine", "queue")
    assert 7.2 <= trio.current_time() <= 7.8
    await mine.release()


async def _release_at(held: Claim, time: float) -> None:
    await trio.sleep(time)
    await held.release()


async def test_a_run_that_queues_takes_over_from_a_process_that_died(
    autojump_clock: MockClock,
) -> None:
    here = LeasingService(seconds=30)
    await made(here)
    await taken(here.elsewhere(), "theirs")  # and nobody renews it
    await taken(here, "mine", "queue")
    assert 30 <= trio.current_time() <= 31


async def test_a_session_whose_release_fails_is_free_for_those_who_wait_here() -> None:
    class Torn(InMemorySessionService):
        async def release(self, lease: Lease, *, unfinished: Unfinished | None = None) -> None:
            await super().release(lease, unfinished=unfinished)
            raise OSError("the cable")

    service = await made(Torn())
    held = await taken(service, "one")
    with pytest.raises(OSError, match="cable"):
        await held.release()
    assert held.ended.is_set()
    assert _HELD[service].claims == {}


# ---------------------------------------------------------------------------------------- interrupt


async def test_interrupt_cancels_the_holder_and_waits_until_it_has_cleaned_up(
    autojump_clock: MockClock,
) -> None:
    diary, results = Diary(), list[Result]()
    service = await made(InMemorySessionService())
    runner = runner_of(works(diary, seconds=10, clean_up=2), service)

    async def first() -> None:
        results.append(await runner.run("one", session_id="s"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await trio.sleep(1)
        await runner.run("two", session_id="s", on_busy="interrupt")
    assert diary == ["one begins", "one ends", "two begins", "two ends"]
    assert trio.current_time() == pytest.approx(1 + 2 + 10 + 2)
    assert [(one.status, one.reason) for one in results] == [(Status.CANCELLED, INTERRUPTED)]


async def test_of_several_that_interrupt_the_last_one_to_come_has_the_session_at_the_end(
    autojump_clock: MockClock,
) -> None:
    diary, results = Diary(), list[Result]()
    service = await made(InMemorySessionService())
    runner = runner_of(works(diary, seconds=10), service)

    async def run(message: str) -> None:
        results.append(await runner.run(message, session_id="s", on_busy="interrupt"))

    async with trio.open_nursery() as nursery:
        for message in ("one", "two", "three"):
            nursery.start_soon(run, message)
            await wait_all_tasks_blocked()
    statuses = [one.status for one in results]
    assert statuses == [Status.CANCELLED, Status.CANCELLED, Status.COMPLETED]
    assert diary[-2:] == ["three begins", "three ends"]


async def test_a_run_that_is_interrupted_while_it_is_opened_ends_when_it_begins(
    autojump_clock: MockClock,
) -> None:
    diary, results = Diary(), list[Result]()
    service = await made(LeasingService(delay=1.0))  # so recording the message takes a second
    runner = runner_of(works(diary, seconds=50), service)

    async def first() -> None:
        results.append(await runner.run("one", session_id="s"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await trio.sleep(0.5)
        await runner.run("two", session_id="s", on_busy="interrupt")
    assert [(one.status, one.reason) for one in results] == [(Status.CANCELLED, INTERRUPTED)]
    assert diary == ["two begins", "two ends"]


async def test_interrupt_reaches_a_run_of_another_process_by_its_next_renewal(
    autojump_clock: MockClock,
) -> None:
    diary, results = Diary(), list[Result]()
    here = LeasingService(seconds=30)
    await made(here)
    theirs = runner_of(works(diary, seconds=1_000), here.elsewhere())

    async def first() -> None:
        results.append(await theirs.run("one", session_id="s"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await trio.sleep(1)
        mine = runner_of(works(diary, seconds=1), here)
        await mine.run("two", session_id="s", on_busy="interrupt")
    assert diary == ["one begins", "one ends", "two begins", "two ends"]
    assert trio.current_time() < 13  # a third of 30, half a second, and the work of one
    assert [one.reason for one in results] == [INTERRUPTED]


def test_interrupt_reaches_a_run_of_another_event_loop() -> None:
    service = InMemorySessionService()
    begun = threading.Event()
    results = list[Result]()

    @agent
    async def waits(ctx: InvocationContext) -> Any:
        begun.set()
        await trio.sleep_forever()
        yield "never"

    async def one() -> None:
        results.append(await runner_of(waits, service).run("one", session_id="s"))

    async def two() -> Result:
        runner = runner_of(works(Diary()), service)
        return await runner.run("two", session_id="s", on_busy="interrupt")

    thread = threading.Thread(target=trio.run, args=(one,))
    thread.start()
    assert begun.wait(60)
    # Half a second between two looks is jumped over when this loop has idled for a hundredth.
    result = trio.run(two, clock=MockClock(autojump_threshold=0.01))
    thread.join(60)
    assert not thread.is_alive()
    assert result.text == "done"
    assert [(run.status, run.reason) for run in results] == [(Status.CANCELLED, INTERRUPTED)]


async def test_an_interrupted_run_is_not_to_be_resumed(autojump_clock: MockClock) -> None:
    service = await made(InMemorySessionService())
    runner = runner_of(works(Diary(), seconds=10), service, resumable=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_run, runner, "one")
        await trio.sleep(1)
        async with runner.open("two", session_id="s", on_busy="interrupt") as run:
            assert [one.run_id for one in await runner.unfinished()] == [run.invocation_id]
            run.cancel()
    assert await runner.unfinished() == []


async def _run(runner: Runner, message: str) -> None:
    await runner.run(message, session_id="s")


# ------------------------------------------------------------------------------------------- leases


async def test_a_lease_is_renewed_for_as_long_as_the_run_lives_and_no_longer(
    autojump_clock: MockClock,
) -> None:
    service = LeasingService(seconds=30)
    await runner_of(works(Diary(), seconds=95), service).run("one", session_id="s")
    await trio.sleep(100)
    assert service.renewed == pytest.approx([10, 20, 30, 40, 50, 60, 70, 80, 90])


async def test_a_lease_is_renewed_while_agents_clean_up(autojump_clock: MockClock) -> None:
    service = LeasingService(seconds=3)
    runner = runner_of(works(Diary(), seconds=1, clean_up=10), service)
    async with runner.open("one", session_id="s") as run:
        await trio.sleep(0.5)
        run.cancel()
    assert len(service.renewed) == 10


async def test_a_run_goes_on_when_a_renewal_fails_and_the_next_does_not(
    autojump_clock: MockClock,
) -> None:
    service = LeasingService(seconds=30)

    async def cut_off() -> None:
        await trio.sleep(5)
        service.is_cut_off = True
        await trio.sleep(10)
        service.is_cut_off = False

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cut_off)
        result = await runner_of(works(Diary(), seconds=45), service).run("one", session_id="s")
    assert result.status is Status.COMPLETED
    assert service.renewed == pytest.approx([20, 30, 40])


async def _lose_in_mid_run(
    diary: Diary, *, resumable: bool = False
) -> tuple[LeasingService, BaseException]:
    """Cut a process off, have another take its session over, and connect it again."""
    here = LeasingService(seconds=30)
    await made(here)
    there = here.elsewhere()
    failures = list[BaseException]()

    async def first() -> None:
        runner = runner_of(works(diary, seconds=100), there, resumable=resumable)
        try:
            await runner.run("one", session_id="s")
        except LeaseLostError as exc:
            failures.append(exc)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await trio.sleep(5)
        there.is_cut_off = True
        await trio.sleep(30)
        async with runner_of(works(diary, seconds=50), here).open("two", session_id="s") as run:
            there.is_cut_off = False
            await run.collect()
        assert run.result.status is Status.COMPLETED
    return here, failures[0]


async def test_a_run_whose_lease_is_lost_ends_at_its_next_renewal(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()
    service, failure = await _lose_in_mid_run(diary)
    assert isinstance(failure, LeaseLostError)
    # Not after its 100 seconds.
    assert diary == ["one begins", "two begins", "one ends", "two ends"]
    session = await service.get(app_name="app", user_id="user", session_id="s")
    assert session is not None
    assert [event.text for event in session.events] == ["one", "two", "done"]


async def test_a_run_whose_lease_was_lost_takes_nothing_from_the_next_one(
    autojump_clock: MockClock,
) -> None:
    service, _ = await _lose_in_mid_run(Diary(), resumable=True)
    await (await taken(service, "three")).release()
    assert await service.unfinished(app_name="app") == []


async def test_what_is_recorded_with_a_lost_lease_is_refused(autojump_clock: MockClock) -> None:
    here = LeasingService(seconds=30)
    await made(here)
    there = here.elsewhere()
    async with runner_of(works(Diary(), seconds=9), there).open("one", session_id="s") as run:
        # As if the process had been stopped for longer than the lease lives.
        here._ends[KEY] = 0.0
        await taken(here, "two")
        with pytest.raises(LeaseLostError):
            await run.collect()
    assert run.result.status is Status.FAILED


async def test_a_lease_that_has_expired_and_nobody_took_is_kept(autojump_clock: MockClock) -> None:
    service = LeasingService(seconds=30)

    async def expire() -> None:
        await trio.sleep(5)
        service._ends[KEY] = 0.0

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expire)
        result = await runner_of(works(Diary(), seconds=20), service).run("one", session_id="s")
    assert result.status is Status.COMPLETED


@pytest.mark.parametrize("kind", ["fail", "complete"])
async def test_a_run_whose_store_fails_is_left_to_be_resumed_however_its_tree_has_ended(
    kind: str, autojump_clock: MockClock
) -> None:
    class Fails(LeasingService):
        async def append(self, key: SessionKey, events: Any, **options: Any) -> None:
            if trio.current_time() > 1:
                raise OSError("the disk")
            await super().append(key, events, **options)

    @agent
    async def emits(ctx: InvocationContext) -> Any:
        await trio.sleep(2)
        try:
            yield "not recorded"
        except Exception:
            if kind == "fail":
                raise

    service = Fails()
    runner = runner_of(emits, service, resumable=True)
    with pytest.raises(OSError, match="disk"):
        await runner.run("one", session_id="s")
    assert [one.status for one in await runner.unfinished()] == ["interrupted"]


async def test_a_run_cancelled_from_outside_while_its_reader_records_is_left_to_be_resumed(
    autojump_clock: MockClock,
) -> None:
    """The tree has ended by then: the scope around the block is around its tasks, too."""

    class Slow(LeasingService):
        async def append(self, key: SessionKey, events: Any, **options: Any) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
            await super().append(key, events, **options)

    @agent
    async def ends(ctx: InvocationContext) -> None:
        """Its end is what is recorded."""

    @agent
    async def waits(ctx: InvocationContext) -> None:
        await trio.sleep_forever()

    service = Slow()
    runner = runner_of(ParallelAgent("fan", [ends, waits]), service, resumable=True)
    with trio.move_on_after(3):  # what the start records takes 2
        await runner.run("one", session_id="s")
    assert [one.status for one in await runner.unfinished()] == ["interrupted"]


async def test_a_suspended_run_is_left_as_waiting_and_a_new_one_takes_its_place(
    autojump_clock: MockClock,
) -> None:
    @agent
    async def asks(ctx: InvocationContext) -> Any:
        yield await ctx.request_input("Sure?")

    service = LeasingService()
    runner = runner_of(asks, service, resumable=True)
    suspend = RunConfig(on_wait="suspend")
    for message in ("one", "two"):
        result = await runner.run(message, session_id="s", run_config=suspend)
        assert [(one.run_id, one.status) for one in await runner.unfinished()] == [
            (result.invocation_id, "waiting")
        ]
