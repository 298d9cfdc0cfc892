"""State has its scopes, and what is read is the reader's own."""

from __future__ import annotations

from typing import Any

from session.actions import EventActions
from session.conformance._kit import (
    KEY,
    collector,
    create,
    expect,
    expect_same,
    get,
    make_event,
    sealed,
    texts_of,
    with_delta,
)
from session.event import Event
from session.service import SessionService
from session.session import SessionKey

CHECKS, _check = collector()

# Scopes.


async def _four_corners(service: SessionService) -> dict[str, SessionKey]:
    keys = {
        "same user": SessionKey("app", "user", "second"),
        "other user": SessionKey("app", "other", "session"),
        "other app": SessionKey("other", "user", "session"),
    }
    for key in (KEY, *keys.values()):
        await create(service, key=key)
    return keys


async def _expect_seen(
    service: SessionService, keys: dict[str, SessionKey], name: str, wanted: set[str]
) -> None:
    expect(f"{name} in its own session", (await get(service)).state.get(name), 1)
    for place, key in keys.items():
        seen = (await get(service, key)).state.get(name)
        expect(f"{name} seen from: {place}", seen, 1 if place in wanted else None)


@_check
async def plain_state_belongs_to_its_session(service: SessionService) -> None:
    keys = await _four_corners(service)
    await service.append(KEY, [make_event(plain=1)], expected_seq=0)
    await _expect_seen(service, keys, "plain", set())


@_check
async def user_state_is_shared_by_the_sessions_of_a_user(service: SessionService) -> None:
    keys = await _four_corners(service)
    await service.append(KEY, [with_delta({"user:k": 1})], expected_seq=0)
    await _expect_seen(service, keys, "user:k", {"same user"})


@_check
async def app_state_is_shared_by_the_sessions_of_an_application(service: SessionService) -> None:
    keys = await _four_corners(service)
    await service.append(KEY, [with_delta({"app:k": 1})], expected_seq=0)
    await _expect_seen(service, keys, "app:k", {"same user", "other user"})


@_check
async def a_new_sessions_state_goes_to_its_scopes(service: SessionService) -> None:
    second = SessionKey("app", "user", "second")
    await create(service, {"app:k": 1, "user:k": 2, "plain": 3})
    session = await create(service, {"user:k": 4}, key=second)
    expect_same("the second session's state", dict(session.state), {"app:k": 1, "user:k": 4})
    first = (await get(service)).state
    expect_same("the first session's", dict(first), {"app:k": 1, "user:k": 4, "plain": 3})


@_check
async def a_key_that_is_unset_is_gone(service: SessionService) -> None:
    second = SessionKey("app", "user", "second")
    await create(service, {"a": 1, "b": 1, "user:u": 1})
    await create(service, {"a": 2}, key=second)
    batch = [_unset("a", **{"user:u": 2}), _unset("b", "never"), make_event(b=3, c=None)]
    await service.append(KEY, batch, expected_seq=0)
    state = dict((await get(service)).state)
    expect_same("the state", state, {"b": 3, "c": None, "user:u": 2})
    await service.append(KEY, [make_event(a=4, d=4), _unset("d", "b")], expected_seq=3)
    session = await get(service)
    expect_same("the state", dict(session.state), {"a": 4, "c": None, "user:u": 2})
    unset = [list(event.state_unset) for event in session.events]
    expect("what the log unsets", unset, [["a"], ["b", "never"], [], [], ["d", "b"]])
    other = dict((await get(service, second)).state)
    expect_same("the other session's", other, {"a": 2, "user:u": 2})


def _unset(*names: str, **more: Any) -> Event:
    delta = {**dict.fromkeys(names), **more}
    return sealed(Event(actions=EventActions(state_delta=delta, state_unset=names), timestamp=1.0))


@_check
async def temporary_state_is_never_stored(service: SessionService) -> None:
    created = await create(service, {"temp:start": 1, "kept": 1})
    expect_same("the state create() returns", dict(created.state), {"kept": 1})
    batch = [with_delta({"temp:a": 1, "b": 2}), with_delta({"temp:only": 1})]
    await service.append(KEY, batch, expected_seq=0)
    session = await get(service)
    expect_same("the state", dict(session.state), {"kept": 1, "b": 2})
    deltas = [dict(event.state_delta) for event in session.events]
    expect_same("the deltas in the log", deltas, [{"b": 2}, {}])


# What comes out is the reader's own.


@_check
async def what_is_read_is_not_what_is_kept(service: SessionService) -> None:
    created = await create(service, {"value": [1, {"a": [2]}]})
    await service.append(KEY, [make_event("kept", other={"b": [3]})], expected_seq=0)
    for session in (created, await get(service)):
        session.events.clear()
        for value in session.state.values():
            _try_to_change(value)
        session.state["value"] = "changed"
        session.state["user:new"] = "changed"
    after = await get(service)
    expect("the log", texts_of(after.events), ["kept"])
    expect_same("the state", dict(after.state), {"value": [1, {"a": [2]}], "other": {"b": [3]}})


def _try_to_change(value: Any) -> None:
    # Both can be iterated; of a dict, the values matter.
    for child in getattr(value, "values", value.__iter__)():
        if isinstance(child, dict | list):
            _try_to_change(child)
    try:
        value.clear()
    except TypeError:
        return  # it cannot be changed, which is even better


@_check
async def events_that_were_read_cannot_change(service: SessionService) -> None:
    await create(service)
    await service.append(KEY, [make_event("kept")], expected_seq=0)
    (event,) = (await get(service)).events
    expect("whether the event that was read is sealed", event.sealed, wanted=True)


@_check
async def what_was_given_may_change_afterwards(service: SessionService) -> None:
    state: dict[str, Any] = {"value": [1]}
    await service.create(app_name="app", user_id="user", session_id="session", state=state)
    batch = [make_event("a")]
    await service.append(KEY, batch, expected_seq=0)
    state["value"].append("changed")
    state["new"] = "changed"
    batch.clear()
    session = await get(service)
    expect_same("the state", dict(session.state), {"value": [1]})
    expect("the log", texts_of(session.events), ["a"])


@_check
async def a_session_that_was_read_stays_as_it_was(service: SessionService) -> None:
    created = await create(service)
    await service.append(KEY, [make_event("a", n=1)], expected_seq=0)
    first = await get(service)
    await service.append(KEY, [make_event("b", n=2)], expected_seq=1)
    for session, texts, state in ((created, [], {}), (first, ["a"], {"n": 1})):
        expect("the log read earlier", texts_of(session.events), texts)
        expect_same("the state read earlier", dict(session.state), state)
        expect("last_seq read earlier", session.last_seq, len(texts))
