"""Following a log, beside what `session.conformance` checks of every service."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import InvocationContext, ParallelAgent, Runner, agent
from parallel_agent.testing import FailingSessionService, InjectedFaultError
from session import Event, InMemorySessionService, SessionKey, SessionNotFoundError, SessionService
from session.conformance import Check, PromiseBrokenError
from session.conformance._watching import CHECKS
from session.watching import PAGE, Bell, Bells, Subscription
from tests.session import broken_following
from tests.support.databases import KEY, add, make, new_event
from tests.support.stores import SlowStore


def in_virtual_time(main: Callable[[], Awaitable[None]]) -> None:
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def take(events: AsyncIterator[Event], count: int) -> list[int | None]:
    return [(await anext(events)).seq for _ in range(count)]


async def fill(service: SessionService, length: int) -> None:
    await make(service)
    await add(service, *(new_event(str(number)) for number in range(1, length + 1)))


SERVICES: list[Callable[[], SessionService]] = [
    InMemorySessionService,
    lambda: SlowStore((0, 0.3, 1)),  # which is polled, as any service is that does no better
]
every_service = pytest.mark.parametrize("new_service", SERVICES, ids=["in memory", "polled"])


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
async def test_a_service_that_is_polled_keeps_its_promise(
    check: Check, autojump_clock: trio.testing.MockClock
) -> None:
    await check(SlowStore((0,)))


async def test_a_broken_promise_says_what_was_seen_and_in_no_group(
    autojump_clock: trio.testing.MockClock,
) -> None:
    name = "every_subscriber_gets_every_event_once"
    (check,) = [check for check in CHECKS if check.name == name]
    for broken in broken_following.KNOWN_BAD[name]:
        with pytest.raises(PromiseBrokenError, match=r"should be \[|no event came within"):
            await check(broken())


# ------------------------------------------------------------------------- drawn interleavings


@st.composite
def readers(draw: st.DrawFn) -> tuple[int, list[float]]:
    """Where one begins, and how long it pauses before, or waits in, each step at most."""
    pauses = st.sampled_from([0.0, 0.0, 0.1, 0.5, 2.0])
    return draw(st.integers(0, 12)), draw(st.lists(pauses, max_size=12))


@every_service
@given(
    batches=st.lists(st.tuples(st.integers(1, 4), st.sampled_from([0.0, 0.2, 1.0])), max_size=5),
    several=st.lists(readers(), min_size=1, max_size=3),
    scheduler=st.random_module(),
)
def test_readers_get_the_log_from_where_they_begin(
    new_service: Callable[[], SessionService],
    batches: list[tuple[int, float]],
    several: list[tuple[int, list[float]]],
    scheduler: object,
) -> None:
    """Whatever is appended when, however often their steps are cancelled, or late."""
    del scheduler  # it has set the seed
    last = sum(size for size, _ in batches)

    async def main() -> None:
        service = new_service()
        await make(service)

        async def read(after: int, pauses: list[float]) -> None:
            events = service.subscribe(KEY, after=after)
            got: list[int | None] = []
            turns = itertools.chain(pauses, itertools.repeat(5.0))
            while len(got) < last - after:
                pause = next(turns)
                await trio.sleep(pause)
                with trio.move_on_after(pause):
                    got.append((await anext(events)).seq)
            assert got == [*range(after + 1, last + 1)]

        async with trio.open_nursery() as nursery:
            for after, pauses in several:
                nursery.start_soon(read, after, pauses)
            seq = 0
            for size, pause in batches:
                await add(service, *(new_event() for _ in range(size)), after=seq)
                seq += size
                await trio.sleep(pause)

    in_virtual_time(main)


# ---------------------------------------------------------------------------------- its manners


async def test_an_append_in_memory_wakes_who_waits_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    service = InMemorySessionService()
    await make(service)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, service.subscribe(KEY), 2)
        for seq in range(2):
            await trio.testing.wait_all_tasks_blocked()
            await add(service, new_event(), after=seq)
    assert trio.current_time() == began


async def test_a_service_that_cannot_wake_is_looked_at_every_half_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    service = SlowStore((0.7,))
    await make(service)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, service.subscribe(KEY), 1)
        await add(service, new_event())
    assert trio.current_time() - began == 1.0


async def test_a_step_that_failed_is_tried_again_by_the_next() -> None:
    inner = InMemorySessionService()
    await fill(inner, 2)
    service = FailingSessionService(inner, 2, method="get")
    events = service.subscribe(KEY)
    assert await take(events, 2) == [1, 2]
    await add(inner, new_event(), after=2)
    with pytest.raises(InjectedFaultError):
        await anext(events)
    assert await take(events, 1) == [3]


async def test_a_reader_holds_a_page_however_far_it_is_behind() -> None:
    service = InMemorySessionService()
    await fill(service, 3 * PAGE)
    events = service.subscribe(KEY)
    assert isinstance(events, Subscription)
    for number in range(3 * PAGE):
        assert (await anext(events)).seq == number + 1
        assert len(events._page) <= PAGE


async def test_a_subscription_that_was_left_leaves_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    service = InMemorySessionService()
    await fill(service, 2)
    events = service.subscribe(KEY)
    async for event in events:
        if event.seq == 2:
            break
    with trio.move_on_after(1) as waiting:
        await anext(events)
    assert waiting.cancelled_caught
    assert not service._bells.hanging
    gone = weakref.ref(events)
    del events, event
    await trio.lowlevel.checkpoint()  # until then trio holds the traceback of the cancelling
    gc.collect()
    assert gone() is None


async def test_a_run_can_be_followed_while_it_goes_on() -> None:
    @agent
    async def says(ctx: InvocationContext) -> AsyncIterator[str]:
        for number in range(3):
            yield f"{ctx.branch} {number}"

    tree = ParallelAgent("both", [says, says.with_options(name="other")])
    service = InMemorySessionService()
    key = SessionKey("app", "user", "s")
    await make(service, key)
    seen: list[str] = []

    async def follow() -> None:
        async for event in service.subscribe(key):
            seen.append(event.id)  # noqa: PERF401  # it never ends

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        runner = Runner(tree, app_name="app", session_service=service)
        await runner.run("go", user_id="user", session_id="s")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    session = await service.get(app_name="app", user_id="user", session_id="s")
    assert session is not None
    assert seen == [event.id for event in session.events]
    assert len(seen) > 6


async def test_what_is_stored_is_handed_out_before_the_end_is_told() -> None:
    service = InMemorySessionService()
    await fill(service, 3)
    events = service.subscribe(KEY)
    assert await take(events, 1) == [1]
    await service.delete(app_name="app", user_id="user", session_id="session")
    assert await take(events, 2) == [2, 3]
    for _ in range(2):
        with pytest.raises(SessionNotFoundError):
            await anext(events)


def test_a_subscription_says_where_it_is() -> None:
    assert repr(InMemorySessionService().subscribe(KEY, after=7)) == (
        "<Subscription of app/user/session, after 7>"
    )


@pytest.mark.parametrize("after", [-1, True, 2.0, "2", None])
def test_a_wrong_position_is_refused_at_once(after: int) -> None:
    with pytest.raises(ValueError, match=r"after is the sequence number.*; not "):
        InMemorySessionService().subscribe(KEY, after=after)


# ---------------------------------------------------------------------------------------- bells


async def test_a_bell_wakes_from_another_thread() -> None:
    bell = Bell()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bell.wait)
        thread = threading.Thread(target=bell.ring)
        thread.start()
    thread.join()


async def test_a_bell_that_rang_before_the_waiting_is_heard() -> None:
    bells = Bells()
    with bells.hung("here") as bell:
        bells.ring(["there", "here"])
        await bell.wait()


async def test_a_bell_that_nobody_rings_is_left_after_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bells = Bells()
    began = trio.current_time()
    with bells.hung("here") as bell, bells.hung("here"):
        bells.ring(["there"])
        await bell.wait(3)
    assert trio.current_time() - began == 3
    assert not bells.hanging


def test_a_bell_of_an_event_loop_that_has_ended_is_silent() -> None:
    async def make_bell() -> Bell:
        return Bell()

    trio.run(make_bell).ring()
