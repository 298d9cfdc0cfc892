"""What `InMemorySessionService` does beside the contract, which test_conformance.py checks."""

from __future__ import annotations

from typing import Any

import pytest

from session import (
    Event,
    EventActions,
    FrozenValueError,
    InMemorySessionService,
    Session,
    SessionExistsError,
    SessionKey,
    SessionNotFoundError,
    SessionService,
    UnstorableError,
)
from tests.session.strategies import sealed

KEY = SessionKey("app", "user", "id")


async def make(service: SessionService, **state: Any) -> Session:
    return await service.create(app_name="app", user_id="user", session_id="id", state=state)


async def read(service: SessionService, **window: Any) -> Session:
    session = await service.get(app_name="app", user_id="user", session_id="id", **window)
    assert session is not None
    return session


def event(**delta: Any) -> Event:
    return sealed(Event("x", actions=EventActions(state_delta=delta), timestamp=5.0))


async def test_a_session_is_dated_by_the_clock_until_its_first_event() -> None:
    service = InMemorySessionService(clock=lambda: 3.0)
    assert (await make(service)).last_update_time == 3.0
    await service.append(KEY, [event()], expected_seq=0)
    assert (await read(service)).last_update_time == 5.0


async def test_ids_come_from_the_source_that_was_given() -> None:
    service = InMemorySessionService(new_id=iter(["one", "two"]).__next__)
    ids = [(await service.create(app_name="a", user_id="u")).id for _ in range(2)]
    assert ids == ["one", "two"]


async def test_an_id_source_that_repeats_itself_overwrites_nothing() -> None:
    service = InMemorySessionService(new_id=lambda: "same")
    await service.create(app_name="a", user_id="u")
    with pytest.raises(SessionExistsError):
        await service.create(app_name="a", user_id="u")


async def test_values_of_the_state_cannot_be_changed_in_place() -> None:
    service = InMemorySessionService()
    session = await make(service, items=[1])
    with pytest.raises(FrozenValueError):
        session.state["items"].append(2)


async def test_events_are_kept_and_not_copied() -> None:
    """They are immutable; a copy each would make reading cost what it need not."""
    service = InMemorySessionService()
    await make(service)
    first = event(a=1)
    await service.append(KEY, [first], expected_seq=0)
    assert (await read(service)).events[0] is first


async def test_an_event_appended_has_lost_its_temporary_writes() -> None:
    service = InMemorySessionService()
    await make(service)
    first = event(**{"temp:a": 1, "b": 2})
    await service.append(KEY, [first], expected_seq=0)
    assert first.state_delta == first.actions.state_delta == {"b": 2}


async def test_a_session_that_could_not_be_made_is_not_there() -> None:
    service = InMemorySessionService()
    with pytest.raises(UnstorableError, match=r"state\.a"):
        await make(service, a=object())
    with pytest.raises(SessionNotFoundError):
        await service.append(KEY, [], expected_seq=0)


async def test_two_services_share_nothing() -> None:
    one, other = InMemorySessionService(), InMemorySessionService()
    await make(one, **{"app:a": 1, "user:b": 1})
    assert (await make(other)).state == {}


@pytest.mark.parametrize("window", [{"num_recent_events": -1}, {"after_sequence": 99}])
async def test_a_window_that_holds_nothing_is_empty(window: dict[str, int]) -> None:
    service = InMemorySessionService()
    await make(service)
    await service.append(KEY, [event(), event()], expected_seq=0)
    assert (await read(service, **window)).events == []


async def test_a_window_from_before_the_first_number_is_the_whole_log() -> None:
    service = InMemorySessionService()
    await make(service)
    await service.append(KEY, [event(), event()], expected_seq=0)
    assert len((await read(service, after_sequence=-5)).events) == 2
