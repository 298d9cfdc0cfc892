"""A session is one run's at a time, for a service that says that it keeps track of that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from session.conformance._kit import (
    KEY,
    BrokenError,
    Run,
    collector,
    create,
    delete,
    expect,
    expect_error,
    expect_same,
    expect_unchanged,
    get,
    make_event,
    numbers_of,
    texts_of,
)
from session.errors import (
    LeaseLostError,
    SequenceConflictError,
    SessionBusyError,
    SessionNotFoundError,
)
from session.event import Event
from session.lease import Lease, UnfinishedRun
from session.service import SessionService
from session.session import SessionKey

CHECKS, _add = collector()

OTHER: Final = SessionKey("app", "user", "other")


def _check(run: Callable[[SessionService], Awaitable[None]]) -> Run:
    async def if_it_owns(service: SessionService) -> None:
        if service.owns:  # otherwise it promises nothing
            await run(service)

    if_it_owns.__name__ = run.__name__
    return _add(if_it_owns)


async def _acquire(
    service: SessionService, run_id: str = "one", *, key: SessionKey = KEY, resumable: bool = False
) -> Lease:
    return await service.acquire(
        key, run_id=run_id, owner=f"holder of {run_id}", resumable=resumable
    )


async def _append(
    service: SessionService, lease: Lease, *events: Event, after: int, key: SessionKey = KEY
) -> None:
    """Append under a lease, in every way there is."""
    if events and not service.blocks:
        service.append_nowait(key, events, expected_seq=after, lease=lease)
    else:
        await service.append(key, events, expected_seq=after, lease=lease)


async def _expect_lost(service: SessionService, lease: Lease, what: str) -> None:
    """Nothing can be done under a lease, and trying changes nothing."""
    before = await get(service)
    end = before.last_seq
    late = make_event("late", value=2, **{"app:x": 1, "user:x": 1})
    # At the end of the log, too: the number alone would let it pass.
    for place in (end, end + 1):
        await expect_error(
            LeaseLostError,
            f"append() at {place} of {end} under a lease that {what}",
            service.append(KEY, [late], expected_seq=place, lease=lease),
        )
    await expect_error(
        LeaseLostError,
        f"append() of nothing under a lease that {what}",
        service.append(KEY, [], expected_seq=end, lease=lease),
    )
    if not service.blocks:
        try:
            service.append_nowait(KEY, [late], expected_seq=end, lease=lease)
        except LeaseLostError:
            pass
        else:
            raise BrokenError(f"append_nowait() under a lease that {what} should fail and did not")
    await expect_error(LeaseLostError, f"renew() of a lease that {what}", service.renew(lease))
    await expect_unchanged(service, before, [late])


def _shown(runs: list[UnfinishedRun]) -> list[str]:
    return [
        f"{run.key.user_id}/{run.key.session_id} {run.run_id} {run.status} {run.owner}"
        for run in runs
    ]


async def _unfinished(service: SessionService, user_id: str | None = None) -> list[str]:
    return _shown(await service.unfinished(app_name="app", user_id=user_id))


# One at a time.


@_check
async def a_session_that_is_held_is_busy(service: SessionService) -> None:
    await create(service)
    await create(service, key=OTHER)
    lease = await _acquire(service)
    expect("the lease", (lease.key, lease.run_id, lease.owner), (KEY, "one", "holder of one"))
    # Its own run is no exception: it may have been started twice.
    for run_id in ("two", "one"):
        try:
            await _acquire(service, run_id)
        except SessionBusyError as error:
            seen = (error.key, error.owner, error.run_id)
            expect("what the error names", seen, (KEY, "holder of one", "one"))
        else:
            raise BrokenError("acquire() of a session that is held should fail and did not")
    await _acquire(service, "two", key=OTHER)
    await _append(service, lease, make_event("still mine"), after=0)
    await service.release(lease)
    await _acquire(service, "two")


@_check
async def each_lease_has_a_higher_token(service: SessionService) -> None:
    await create(service)
    tokens: list[int] = []
    for run_id in ("one", "two", "one", "one"):
        lease = await _acquire(service, run_id)
        tokens.append(lease.token)
        await service.renew(lease)
        await service.release(lease)
    expect("the tokens", tokens, sorted(set(tokens)))


@_check
async def only_a_session_that_is_there_can_be_held(service: SessionService) -> None:
    await expect_error(SessionNotFoundError, "acquire() of no session", _acquire(service))
    expect("ask_to_stop() of no session", await service.ask_to_stop(KEY, "why"), wanted=False)
    await create(service)
    for run_id, owner in (("", "owner"), ("run", ""), ("\ud800", "owner"), ("run", "\ud800")):
        await expect_error(
            ValueError,
            f"acquire() with run_id={run_id!r} and owner={owner!r}",
            service.acquire(KEY, run_id=run_id, owner=owner),
        )
    await _acquire(service)


# Appending.


@_check
async def an_append_under_a_lease_is_an_append(service: SessionService) -> None:
    await create(service)
    await create(service, key=OTHER)
    lease = await _acquire(service)
    first, second = make_event("a", value=1), make_event("b")
    await _append(service, lease, first, after=0)
    await _append(service, lease, after=1)
    await service.append(KEY, [second], expected_seq=1)
    await _append(service, lease, make_event("c", value=2), after=2)
    expect("the numbers", numbers_of([first, second]), [1, 2])
    session = await get(service)
    expect("the log", texts_of(session.events), ["a", "b", "c"])
    expect_same("the state", dict(session.state), {"value": 2})
    late = make_event("late", value=3)
    for what, kind, key, place in (
        ("at an old number", SequenceConflictError, KEY, 2),
        ("to another session than the lease's", ValueError, OTHER, 0),
    ):
        attempt = service.append(key, [late], expected_seq=place, lease=lease)
        await expect_error(kind, f"append() {what}", attempt)
        await expect_unchanged(service, session, [late])


@_check
async def nothing_is_appended_under_a_lease_that_is_over(service: SessionService) -> None:
    await create(service, {"value": 1})
    first = await _acquire(service)
    await _append(service, first, make_event("a"), after=0)
    await service.release(first)
    await _expect_lost(service, first, "was released")
    # The run may be the same: it was resumed.
    for run_id in ("two", "one"):
        lease = await _acquire(service, run_id)
        await _expect_lost(service, first, "another has taken over from")
        await service.release(lease)


@_check
async def a_run_without_a_lease_is_held_up_by_none(service: SessionService) -> None:
    await create(service)
    await _acquire(service)
    event = make_event("imported")
    await service.append(KEY, [event], expected_seq=0)
    expect("its number", event.seq, 1)


@_check
async def deleting_a_session_ends_its_lease(service: SessionService) -> None:
    await create(service)
    lease = await _acquire(service, resumable=True)
    await delete(service)
    late = make_event("late")
    await expect_error(
        SessionNotFoundError,
        "append() to a deleted session",
        service.append(KEY, [late], expected_seq=0, lease=lease),
    )
    await expect_error(SessionNotFoundError, "renew() of it", service.renew(lease))
    await service.release(lease, unfinished="waiting")
    expect("unfinished()", await _unfinished(service), [])
    await create(service)
    await _expect_lost(service, lease, "was of the session before")
    again = await _acquire(service, "two")
    await _expect_lost(service, lease, "was of the session before")
    await _append(service, again, make_event("new"), after=0)


# Renewing and releasing.


@_check
async def releasing_twice_takes_nothing_from_the_next(service: SessionService) -> None:
    await create(service)
    first = await _acquire(service)
    await service.release(first)
    await service.release(first, unfinished="waiting")
    expect("unfinished() after a second release", await _unfinished(service), [])
    second = await _acquire(service, "two", resumable=True)
    await service.release(first)
    await expect_error(SessionBusyError, "acquire() of it", _acquire(service, "three"))
    await _append(service, second, make_event("a"), after=0)
    seen = await _unfinished(service)
    expect("unfinished()", seen, ["user/session two running holder of two"])


@_check
async def a_holder_that_is_asked_to_stop_learns_why(service: SessionService) -> None:
    await create(service)
    asked = await service.ask_to_stop(KEY, "nobody is there")
    expect("ask_to_stop() of nobody", asked, wanted=False)
    first = await _acquire(service)
    expect("renew() unasked", await service.renew(first), None)
    asked = await service.ask_to_stop(KEY, "make room\x00é")
    expect("ask_to_stop() of a holder", asked, wanted=True)
    for _ in range(2):  # an answer may be lost
        expect("renew() once asked", await service.renew(first), "make room\x00é")
    await _append(service, first, make_event("last words"), after=0)
    await service.release(first)
    asked = await service.ask_to_stop(KEY, "too late")
    expect("ask_to_stop() after the release", asked, wanted=False)
    second = await _acquire(service, "two")
    expect("renew() of the next holder", await service.renew(second), None)
    await expect_error(ValueError, "an empty reason", service.ask_to_stop(KEY, ""))


# What did not finish.


@_check
async def an_unfinished_run_is_remembered(service: SessionService) -> None:
    await create(service)
    expect("unfinished() at first", await _unfinished(service), [])
    lease = await _acquire(service, resumable=True)
    await service.append(KEY, [make_event(timestamp=7.0)], expected_seq=0, lease=lease)
    (run,) = await service.unfinished(app_name="app")
    wanted = UnfinishedRun(KEY, "one", "running", "holder of one", 7.0)
    expect("unfinished() while it runs", run, wanted)
    await service.release(lease, unfinished="waiting")
    seen = await _unfinished(service)
    expect("unfinished() while it waits", seen, ["user/session one waiting None"])
    again = await _acquire(service, resumable=True)
    await service.release(again, unfinished="interrupted")
    seen = await _unfinished(service)
    expect("unfinished() of one interrupted", seen, ["user/session one interrupted None"])
    last = await _acquire(service, resumable=True)
    await service.release(last)
    expect("unfinished() after its end", await _unfinished(service), [])
    attempt = service.release(last, unfinished="lost")  # type: ignore[arg-type]  # the mistake
    await expect_error(ValueError, "release() with a word there is not", attempt)


@_check
async def a_new_run_supersedes_an_unfinished_one(service: SessionService) -> None:
    await create(service)
    for resumable, wanted in ((True, ["user/session two running holder of two"]), (False, [])):
        await service.release(await _acquire(service, resumable=True), unfinished="waiting")
        second = await _acquire(service, "two", resumable=resumable)
        expect(f"unfinished(), resumable={resumable}", await _unfinished(service), wanted)
        await service.release(second)
        expect("unfinished() after its end", await _unfinished(service), [])


@_check
async def unfinished_runs_are_in_order_and_of_one_application(service: SessionService) -> None:
    for user, session in (("b", "2"), ("a", "9"), ("b", "10"), ("B\x00", "1"), ("a", "1")):
        key = SessionKey("app", user, session)
        await create(service, key=key)
        await _acquire(service, f"run\x00 {session}", key=key, resumable=True)
    elsewhere = SessionKey("other", "a", "1")
    await create(service, key=elsewhere)
    await _acquire(service, key=elsewhere, resumable=True)
    plain = SessionKey("app", "a", "plain")
    await create(service, key=plain)
    await _acquire(service, key=plain)
    wanted = ["B\x00/1", "a/1", "a/9", "b/10", "b/2"]
    runs = await service.unfinished(app_name="app")
    seen = [f"{run.key.user_id}/{run.key.session_id}" for run in runs]
    expect("unfinished()", seen, wanted)
    expect("a run's id", runs[-1].run_id, "run\x00 2")
    expect("its holder", runs[-1].owner, "holder of run\x00 2")
    of_one = [run.key.session_id for run in await service.unfinished(app_name="app", user_id="b")]
    expect("unfinished() of one user", of_one, ["10", "2"])
    expect("unfinished() of nobody", await _unfinished(service, "nobody"), [])
