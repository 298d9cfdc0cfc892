"""A log is followed: what is stored, then what is appended, in order, each event once.

These checks wait for events, so they run in trio.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from session.conformance._kit import (
    KEY,
    BrokenError,
    collector,
    create,
    delete,
    expect,
    expect_error,
    make_event,
    numbers_of,
    texts_of,
)
from session.errors import SessionNotFoundError
from session.event import Event
from session.service import SessionService
from session.session import SessionKey
from session.watching import PAGE

CHECKS, _check = collector()

_PATIENCE: Final = 10.0
_MOMENT: Final = 0.01


@asynccontextmanager
async def _side_by_side() -> AsyncGenerator[trio.Nursery, None]:
    """Open a nursery out of which an error comes as itself."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def _next(events: AsyncIterator[Event]) -> Event:
    with trio.move_on_after(_PATIENCE):
        return await anext(events)
    raise BrokenError(f"no event came within {_PATIENCE:g} seconds")


async def _take(events: AsyncIterator[Event], count: int) -> list[Event]:
    return [await _next(events) for _ in range(count)]


async def _append(
    service: SessionService, first: int, last: int, key: SessionKey = KEY
) -> list[Event]:
    """Append the events of these numbers, which their texts say."""
    events = [make_event(str(number)) for number in range(first, last + 1)]
    await service.append(key, events, expected_seq=first - 1)
    return events


async def _expect_nothing(what: str, events: AsyncIterator[Event]) -> None:
    with trio.move_on_after(_MOMENT):
        event = await anext(events)
        raise BrokenError(f"{what} should be told nothing and was told {event.text!r}")


@_check
async def a_subscriber_gets_what_is_stored_and_then_what_comes(service: SessionService) -> None:
    await create(service)
    other = SessionKey("app", "user", "other")
    await create(service, key=other)
    await _append(service, 1, 3)
    await _append(service, 1, 9, other)
    events = service.subscribe(KEY, after=1)
    expect("what is stored after 1", texts_of(await _take(events, 2)), ["2", "3"])
    await _expect_nothing("who has all there is", events)
    got: list[Event] = []

    async def read() -> None:
        got.extend(await _take(events, 3))

    async with _side_by_side() as nursery:
        nursery.start_soon(read)
        await trio.sleep(_MOMENT)
        await _append(service, 4, 4)
        await _append(service, 5, 6)
    expect("what was appended while somebody waited", texts_of(got), ["4", "5", "6"])
    expect("the numbers", numbers_of(got), [4, 5, 6])


@_check
async def a_subscriber_may_be_ahead_of_the_log(service: SessionService) -> None:
    await create(service)
    await _append(service, 1, 1)
    events = service.subscribe(KEY, after=3)
    await _expect_nothing("who asks for what comes after 3", events)
    await _append(service, 2, 5)
    expect("what comes after 3", texts_of(await _take(events, 2)), ["4", "5"])


@_check
async def every_subscriber_gets_every_event_once(service: SessionService) -> None:
    """Whenever it is appended: before, between or during the steps of several readers."""
    length = 12
    for seed in range(3):
        draw = random.Random(seed)  # noqa: S311  # a schedule, and the same one each time
        key = SessionKey("app", "user", f"s{seed}")
        await create(service, key=key)
        starts = [0, draw.randrange(length), draw.randrange(length)]
        async with _side_by_side() as nursery:
            for start in starts:
                nursery.start_soon(_follow, service, key, range(start + 1, length + 1), draw)
            last = 0
            while last < length:
                await _pause(draw)
                upto = min(length, last + draw.randint(1, 3))
                await _append(service, last + 1, upto, key)
                last = upto


async def _follow(
    service: SessionService, key: SessionKey, wanted: range, draw: random.Random
) -> None:
    events = service.subscribe(key, after=wanted.start - 1)
    got: list[int | None] = []
    while len(got) < len(wanted):
        await _pause(draw)
        got.append((await _next(events)).seq)
    expect(f"what a subscriber after {wanted.start - 1} got", got, [*wanted])


async def _pause(draw: random.Random) -> None:
    await trio.sleep(draw.choice([0, 0, 0.001]))


@_check
async def a_subscriber_reads_a_long_log_to_its_end(service: SessionService) -> None:
    await create(service)
    length = 2 * PAGE + 3
    for first in range(1, length + 1, PAGE):
        await _append(service, first, min(first + PAGE - 1, length))
    events = service.subscribe(KEY)
    numbers = numbers_of(await _take(events, length))
    expect("the numbers", numbers, [*range(1, length + 1)])
    await _append(service, length + 1, length + 1)
    expect("the next", (await _next(events)).seq, length + 1)


@_check
async def a_step_that_was_cancelled_has_lost_nothing(service: SessionService) -> None:
    await create(service)
    events = service.subscribe(KEY)
    got: list[int | None] = []

    async def append() -> None:
        for number in range(1, 9):
            await _append(service, number, number)
            await trio.sleep(0.001)

    with trio.move_on_after(_PATIENCE):
        async with _side_by_side() as nursery:
            nursery.start_soon(append)
            patience = 0.0
            while len(got) < 8:  # noqa: PLR2004  # what is appended
                # Nothing, a little, more: cancelled in every place that a step waits in. In the
                # end long enough, however slow the service.
                patience += 0.0005
                with trio.move_on_after(patience):
                    got.append((await anext(events)).seq)
    expect("what came in spite of the cancelling", got, [*range(1, 9)])
    with trio.CancelScope() as scope:
        scope.cancel()
        await anext(events)
    expect("whether a step is cancelled at once", scope.cancelled_caught, wanted=True)


@_check
async def to_follow_no_session_is_an_error(service: SessionService) -> None:
    await create(service)
    events = service.subscribe(SessionKey("app", "user", "none"))
    await expect_error(SessionNotFoundError, "a step in no session", _next(events))
    await create(service, key=SessionKey("app", "user", "none"))
    await _append(service, 1, 1, SessionKey("app", "user", "none"))
    expect("the next step, when there is one", (await _next(events)).seq, 1)
    for wrong in (-1, 1.5, "1", None, True):
        try:
            service.subscribe(KEY, after=wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # what is tested
        except ValueError:
            continue
        raise BrokenError(f"subscribe(after={wrong!r}) should raise ValueError and did not")


@_check
async def a_subscriber_is_told_when_the_session_is_deleted(service: SessionService) -> None:
    await create(service)
    await _append(service, 1, 2)
    waits, looks_later = service.subscribe(KEY, after=2), service.subscribe(KEY)
    await _take(looks_later, 2)

    async def wait() -> None:
        await expect_error(SessionNotFoundError, "waiting in a deleted session", _next(waits))

    async with _side_by_side() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(_MOMENT)
        await delete(service)
    await create(service)
    await _append(service, 1, 1)
    # Another log has taken the place: its numbers mean something else.
    await expect_error(
        SessionNotFoundError, "a step in a session that was made anew", _next(looks_later)
    )


@_check
async def a_subscription_has_one_reader(service: SessionService) -> None:
    await create(service)
    events = service.subscribe(KEY)
    expect("what aiter() of a subscription is", aiter(events) is events, wanted=True)
    async with _side_by_side() as nursery:
        nursery.start_soon(_next, events)
        await trio.sleep(_MOMENT)
        await expect_error(trio.BusyResourceError, "a second reader", _next(events))
        await _append(service, 1, 1)
