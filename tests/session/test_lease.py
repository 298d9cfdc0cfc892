"""Leases as values, what a service without them says, and what the memory adds to the contract."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from session import (
    InMemorySessionService,
    Lease,
    LeaseLostError,
    SessionBusyError,
    SessionError,
    SessionKey,
)
from session.conformance import CHECKS, Check
from session.conformance._owners import CHECKS as OWNERS
from tests.support.databases import KEY, make, new_event, read
from tests.support.stores import SlowStore

LEASE = Lease(KEY, "run", "ann's laptop", 3, 30.0)


def test_a_busy_session_names_who_holds_it_and_what_can_be_done() -> None:
    error = SessionBusyError(KEY, owner="ann's laptop", run_id="r1", seconds=12.3456)
    assert isinstance(error, SessionError)
    assert str(error) == (
        "the session app/user/session is busy: the run 'r1' of ann's laptop is writing to it. "
        "Wait until that has ended, say with on_busy=... what to do instead, or use another "
        "session_id. If that process is dead, its lease ends by itself within 12.3 seconds"
    )


def test_a_lease_that_never_expires_is_not_waited_for() -> None:
    assert "dead" not in str(SessionBusyError(KEY, owner="o", run_id="r"))


def test_a_lost_lease_names_the_run_and_the_session() -> None:
    error = LeaseLostError(LEASE)
    assert error.lease is LEASE
    assert str(error).startswith(
        "the run 'run' of ann's laptop no longer owns the session app/user/session: "
    )
    assert "another run has taken over" in str(error)


METHODS: list[Callable[[SlowStore], Any]] = [
    lambda service: service.acquire(KEY, run_id="r", owner="o"),
    lambda service: service.renew(LEASE),
    lambda service: service.release(LEASE),
    lambda service: service.ask_to_stop(KEY, "why"),
    lambda service: service.unfinished(app_name="app"),
]


@pytest.mark.parametrize("call", METHODS)
async def test_a_service_that_owns_nothing_says_so(call: Callable[[SlowStore], Any]) -> None:
    service = SlowStore()
    assert not service.owns
    with pytest.raises(NotImplementedError, match="SlowStore does not keep track of whose"):
        await call(service)


@pytest.mark.parametrize("check", OWNERS, ids=lambda check: check.name)
async def test_a_service_that_owns_nothing_promises_nothing_about_it(check: Check) -> None:
    await check(SlowStore())


def test_the_checks_of_owners_are_among_the_checks() -> None:
    assert set(OWNERS) < set(CHECKS)


async def test_a_lease_in_memory_never_expires() -> None:
    service = InMemorySessionService(clock=lambda: math.inf)
    await make(service)
    assert (await service.acquire(KEY, run_id="r", owner="o")).seconds == math.inf


async def test_a_copy_of_a_lease_is_as_good() -> None:
    """It may have been sent somewhere and back."""
    service = InMemorySessionService()
    await make(service)
    lease = await service.acquire(KEY, run_id="r", owner="o")
    service.append_nowait(KEY, [new_event()], expected_seq=0, lease=attrs.evolve(lease))
    with pytest.raises(LeaseLostError):
        service.append_nowait(
            KEY, [new_event()], expected_seq=1, lease=attrs.evolve(lease, token=lease.token - 1)
        )
    assert (await read(service)).last_seq == 1


async def test_a_lease_of_another_session_is_named_in_the_error() -> None:
    service = InMemorySessionService()
    other = SessionKey("app", "user", "other")
    await make(service)
    await make(service, other)
    lease = await service.acquire(other, run_id="r", owner="o")
    with pytest.raises(ValueError, match="of session app/user/other, and the append is to app/"):
        await service.append(KEY, [new_event()], expected_seq=0, lease=lease)


@pytest.mark.parametrize("bad", ["", None, 3])
async def test_who_holds_a_session_is_said_in_words(bad: Any) -> None:
    service = InMemorySessionService()
    await make(service)
    with pytest.raises(ValueError, match="run_id must be text that is not empty"):
        await service.acquire(KEY, run_id=bad, owner="o")
    with pytest.raises(ValueError, match="owner must be text that is not empty"):
        await service.acquire(KEY, run_id="r", owner=bad)
    with pytest.raises(ValueError, match="reason must be text that is not empty"):
        await service.ask_to_stop(KEY, bad)
