"""Sessions are made, found, listed and deleted, whatever their names."""

from __future__ import annotations

from typing import Any

from session.conformance._kit import (
    KEY,
    collector,
    create,
    delete,
    expect,
    expect_error,
    expect_same,
    expect_unchanged,
    find,
    get,
    list_keys,
    make_event,
    numbers_of,
    texts_of,
    with_delta,
)
from session.errors import SessionExistsError, SessionNotFoundError
from session.service import SessionService
from session.session import SessionKey

CHECKS, _check = collector()

# Create.


@_check
async def a_new_session_is_empty_but_for_its_state(service: SessionService) -> None:
    created = await create(service, {"plain": [1, {"a": None}]})
    for session in (created, await get(service)):
        expect("its key", session.key, KEY)
        expect("its log", texts_of(session.events), [])
        expect("its last_seq", session.last_seq, 0)
        expect_same("its state", dict(session.state), {"plain": [1, {"a": None}]})


@_check
async def create_chooses_an_id_that_is_new(service: SessionService) -> None:
    made = [await service.create(app_name="app", user_id="user") for _ in range(3)]
    expect("the number of ids chosen", len({session.id for session in made}), 3)
    for session in made:
        await get(service, session.key)


@_check
async def create_overwrites_nothing(service: SessionService) -> None:
    before = await create(service, {"value": 1})
    await expect_error(SessionExistsError, "create() of a taken id", create(service, {"value": 2}))
    await expect_unchanged(service, before)


@_check
async def create_refuses_what_has_no_json_form(service: SessionService) -> None:
    for value in (object(), float("nan"), {1: 2}, "\ud800", {"user:x": {1, 2}}):
        await expect_error(
            ValueError, f"create() with the value {value!r}", create(service, {"value": value})
        )
        expect("what a failed create() leaves", await find(service), None)


@_check
async def create_refuses_empty_names(service: SessionService) -> None:
    for app_name, user_id, session_id in (("", "u", "s"), ("a", "", "s"), ("a", "u", "")):
        attempt = service.create(app_name=app_name, user_id=user_id, session_id=session_id)
        await expect_error(ValueError, "create() with an empty name", attempt)


# Get.


@_check
async def an_unknown_session_is_none(service: SessionService) -> None:
    await create(service)
    for key in (
        SessionKey("other", "user", "session"),
        SessionKey("app", "other", "session"),
        SessionKey("app", "user", "other"),
    ):
        expect(f"get() of {key}", await find(service, key), None)


@_check
async def windows_choose_events_and_leave_state_whole(service: SessionService) -> None:
    await create(service)
    # Clocks may run backwards; the third was recorded at an earlier time than the second.
    times = [10.0, 20.0, 15.0, 30.0]
    events = [make_event(f"e{n}", timestamp=time, n=n) for n, time in enumerate(times, start=1)]
    await service.append(KEY, events, expected_seq=0)
    windows: list[tuple[dict[str, Any], list[int]]] = [
        ({}, [1, 2, 3, 4]),
        ({"num_recent_events": 2}, [3, 4]),
        ({"num_recent_events": 0}, []),
        ({"num_recent_events": 9}, [1, 2, 3, 4]),
        ({"after_sequence": 1}, [2, 3, 4]),
        ({"after_sequence": 0}, [1, 2, 3, 4]),
        ({"after_sequence": 4}, []),
        ({"after": 15.0}, [2, 3, 4]),
        ({"after": 16.0}, [2, 4]),
        ({"after": 20.5}, [4]),
        ({"after_sequence": 1, "num_recent_events": 2}, [3, 4]),
        ({"after_sequence": 3, "num_recent_events": 2}, [4]),
        ({"after": 15.0, "num_recent_events": 3, "after_sequence": 2}, [3, 4]),
        ({"after": 12.0, "num_recent_events": 9}, [2, 3, 4]),
    ]
    for window, wanted in windows:
        session = await get(service, **window)
        expect(f"the log with {window}", numbers_of(session.events), wanted)
        expect_same(f"the state with {window}", dict(session.state), {"n": 4})
        expect(f"last_seq with {window}", session.last_seq, 4)


# List and delete.


@_check
async def a_listing_is_in_order_and_of_one_application(service: SessionService) -> None:
    for user, session in (("b", "2"), ("a", "9"), ("b", "10"), ("B", "1"), ("a", "1"), ("b", "1")):
        await create(service, key=SessionKey("app", user, session))
    await create(service, key=SessionKey("other", "a", "1"))
    wanted = ["B/1", "a/1", "a/9", "b/1", "b/10", "b/2"]
    expect("list()", await list_keys(service, "app"), wanted)
    expect("list() of one user", await list_keys(service, "app", "b"), ["b/1", "b/10", "b/2"])
    expect("list() of an unknown user", await list_keys(service, "app", "nobody"), [])
    expect("list() of an unknown application", await list_keys(service, "nothing"), [])


@_check
async def a_deleted_session_is_gone(service: SessionService) -> None:
    second = SessionKey("app", "user", "second")
    await create(service, {"value": 1})
    await create(service, {"value": 2}, key=second)
    await service.append(KEY, [make_event("a")], expected_seq=0)
    await delete(service)
    expect("get() of it", await find(service), None)
    expect("list()", await list_keys(service, "app"), ["user/second"])
    await expect_error(
        SessionNotFoundError,
        "append() to it",
        service.append(KEY, [make_event("b")], expected_seq=1),
    )
    expect_same("the other's state", dict((await get(service, second)).state), {"value": 2})


@_check
async def deleting_an_unknown_session_does_nothing(service: SessionService) -> None:
    await delete(service)
    await create(service)
    await delete(service, SessionKey("app", "user", "other"))
    await get(service)


@_check
async def a_session_made_again_starts_anew(service: SessionService) -> None:
    await create(service, {"old": 1})
    await service.append(KEY, [make_event("old", older=1)], expected_seq=0)
    await delete(service)
    again = await create(service, {"new": 1})
    expect_same("its state", dict(again.state), {"new": 1})
    event = make_event("new")
    await service.append(KEY, [event], expected_seq=0)
    expect("its first event's number", event.seq, 1)
    expect("its log", texts_of((await get(service)).events), ["new"])


@_check
async def shared_state_outlives_a_deleted_session(service: SessionService) -> None:
    await create(service, {"app:k": 1, "user:k": 2, "plain": 3})
    await delete(service)
    again = await create(service)
    expect_same("the state made again", dict(again.state), {"app:k": 1, "user:k": 2})


# Names.


@_check
async def odd_names_name_different_sessions(service: SessionService) -> None:
    names = [
        "a",
        "A",
        "a ",
        "á",
        "a\u0301",
        "a/b",
        "a%",
        "a_",
        "a'b",
        'a"b',
        "a\\b",
        "a:b",
        "..",
        "🙂",
    ]
    names += [
        "app:a",
        "user:a",
        "null",
        "0",
        "00",
        "a\nb",
        "a" * 300,
        "a" * 299 + "b",
        "*",
        "a.b",
        "a;b",
        "--",
        "$1",
        "a\x00",
        "a\x00b",
        "a\x01",
        "a\x01\x01",
        "a\x01\x02",
    ]
    keys = [
        key
        for name in names
        for key in (
            SessionKey("x", "y", name),
            SessionKey("x", name, "y"),
            SessionKey(name, "x", "y"),
        )
    ]
    # Glued together with a separator, these would be the same.
    keys += [SessionKey("g/h", "i", "j"), SessionKey("g", "h/i", "j"), SessionKey("g", "h", "i/j")]
    for key in keys:
        await create(service, {"who": str(key), f"user:{key.session_id}": str(key)}, key=key)
        await service.append(key, [make_event(str(key))], expected_seq=0)
    for key in keys:
        session = await get(service, key)
        expect("the key", session.key, key)
        expect(f"the log of {key!r}", texts_of(session.events), [str(key)])
        expect(f"the state of {key!r}", session.state["who"], str(key))
    for name in names:
        expect(f"list({name!r})", await list_keys(service, name), ["x/y"])
        expect(f"list('x', {name!r})", await list_keys(service, "x", name), [f"{name}/y"])


@_check
async def odd_state_keys_are_different_keys(service: SessionService) -> None:
    names = [
        "",
        "a",
        "A",
        "a ",
        "á",
        "a\u0301",
        "a.b",
        "a/b",
        "a'b",
        "a%",
        ":",
        "b:c",
        "App:x",
        "tempo",
    ]
    names += [
        "app:",
        "user:",
        "app:user:x",
        "user:app:x",
        "user:temp:x",
        "🙂",
        "n" * 300,
        "__class__",
        "\x00",
        "\x01",
        "\x01\x01",
        "user:\x00",
    ]
    state = {name: name for name in names}
    await create(service)
    await service.append(KEY, [with_delta(state)], expected_seq=0)
    expect_same("the state", dict((await get(service)).state), state)
