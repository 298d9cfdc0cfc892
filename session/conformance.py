"""Checks that a `SessionService` keeps the promises of its contract. For anyone's own service.

Every check is a claim and an async function of one fresh service; it needs no test framework and
no particular event loop. In a test suite, take them one by one::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
    async def test_my_service(check):
        async with open_my_service() as service:
            await check(service)

or all at once: ``await check_session_service(open_my_service)``.

What no program can see from outside is not checked: that what came back from an append is
durable, and that an append cut off half way leaves nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeAlias

import attrs

from session.actions import BranchOutcome, EventActions
from session.codec import Codec
from session.content import Content, FunctionCall, InlineData, OtherPart, Text
from session.event import Event, Origin
from session.service import (
    SequenceConflictError,
    SessionExistsError,
    SessionNotFoundError,
    SessionService,
)
from session.session import Session, SessionKey, fold
from session.state import same

__all__ = ["CHECKS", "Check", "PromiseBrokenError", "check_session_service"]

ServiceFactory: TypeAlias = Callable[
    [], SessionService | AbstractAsyncContextManager[SessionService]
]


class PromiseBrokenError(AssertionError):
    """A service does not do what every service promises. ``promise`` is the check's name."""

    def __init__(self, promise: str, why: str) -> None:
        """Name the promise, and what was seen instead."""
        super().__init__(f"{promise}: {why}")
        self.promise = promise
        self.why = why


@attrs.frozen
class Check:
    """One promise: ``name`` says it, calling the check with a fresh service puts it to the test."""

    name: str
    run: Callable[[SessionService], Awaitable[None]] = attrs.field(repr=False)

    async def __call__(self, service: SessionService) -> None:
        """Run the check.

        Raises:
            PromiseBrokenError: the service broke the promise, or failed in trying to keep it.
        """
        try:
            await self.run(service)
        except _BrokenError as error:
            raise PromiseBrokenError(self.name, str(error)) from None
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise PromiseBrokenError(self.name, why) from error


class _BrokenError(Exception):
    """What a check saw; `Check` adds which promise it breaks."""


_checks: list[Check] = []


def _check(run: Callable[[SessionService], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    _checks.append(Check(run.__name__, run))
    return run


async def check_session_service(make: ServiceFactory) -> None:
    """Run every check, each on a service of its own from ``make``. Stops at the first that fails.

    ``make`` returns a service, or an async context manager that opens one and closes it.

    Raises:
        PromiseBrokenError: a check failed.
    """
    for check in CHECKS:
        made = make()
        if isinstance(made, SessionService):
            await check(made)
        else:
            async with made as service:
                await check(service)


# What the checks are made of.

_KEY: Final = SessionKey("app", "user", "session")
_CODEC: Final = Codec()


def _expect(what: str, seen: object, wanted: object) -> None:
    if seen != wanted:
        raise _BrokenError(f"{what} should be {wanted!r} and is {seen!r}")


def _expect_same(what: str, seen: object, wanted: object) -> None:
    if not same(seen, wanted):
        raise _BrokenError(f"{what} should be {wanted!r} and is {seen!r}")


async def _expect_error(kind: type[Exception], what: str, attempt: Awaitable[object]) -> None:
    try:
        await attempt
    except kind:
        return
    raise _BrokenError(f"{what} should raise {kind.__name__} and did not")


def _event(text: str = "", *, timestamp: float = 1.0, **delta: Any) -> Event:
    return _sealed(Event(text, actions=EventActions(state_delta=delta), timestamp=timestamp))


def _with_delta(delta: dict[str, Any]) -> Event:
    return _sealed(Event(actions=EventActions(state_delta=delta), timestamp=1.0))


def _sealed(event: Event) -> Event:
    event.seal()
    return event


async def _create(
    service: SessionService, state: dict[str, Any] | None = None, *, key: SessionKey = _KEY
) -> Session:
    return await service.create(
        app_name=key.app_name, user_id=key.user_id, session_id=key.session_id, state=state
    )


async def _find(service: SessionService, key: SessionKey = _KEY, **window: Any) -> Session | None:
    return await service.get(
        app_name=key.app_name, user_id=key.user_id, session_id=key.session_id, **window
    )


async def _get(service: SessionService, key: SessionKey = _KEY, **window: Any) -> Session:
    session = await _find(service, key, **window)
    if session is None:
        raise _BrokenError(f"the session {key} is there and was not found")
    return session


async def _delete(service: SessionService, key: SessionKey = _KEY) -> None:
    await service.delete(app_name=key.app_name, user_id=key.user_id, session_id=key.session_id)


async def _keys(service: SessionService, app_name: str, user_id: str | None = None) -> list[str]:
    infos = await service.list(app_name=app_name, user_id=user_id)
    return [f"{info.key.user_id}/{info.key.session_id}" for info in infos]


def _texts(events: Iterable[Event]) -> list[str]:
    return [event.text for event in events]


def _numbers(events: Iterable[Event]) -> list[int | None]:
    return [event.seq for event in events]


async def _expect_unchanged(
    service: SessionService, before: Session, refused: Sequence[Event] = ()
) -> None:
    after = await _get(service, before.key)
    _expect("the log after a refused append", _texts(after.events), _texts(before.events))
    _expect_same("the state after a refused append", dict(after.state), dict(before.state))
    _expect("last_seq after a refused append", after.last_seq, before.last_seq)
    for event in refused:
        _expect(f"the number of the refused event {event.text!r}", event.seq, None)


# Create.


@_check
async def a_new_session_is_empty_but_for_its_state(service: SessionService) -> None:
    created = await _create(service, {"plain": [1, {"a": None}]})
    for session in (created, await _get(service)):
        _expect("its key", session.key, _KEY)
        _expect("its log", _texts(session.events), [])
        _expect("its last_seq", session.last_seq, 0)
        _expect_same("its state", dict(session.state), {"plain": [1, {"a": None}]})


@_check
async def create_chooses_an_id_that_is_new(service: SessionService) -> None:
    made = [await service.create(app_name="app", user_id="user") for _ in range(3)]
    _expect("the number of ids chosen", len({session.id for session in made}), 3)
    for session in made:
        await _get(service, session.key)


@_check
async def create_overwrites_nothing(service: SessionService) -> None:
    before = await _create(service, {"value": 1})
    await _expect_error(
        SessionExistsError, "create() of a taken id", _create(service, {"value": 2})
    )
    await _expect_unchanged(service, before)


@_check
async def create_refuses_what_has_no_json_form(service: SessionService) -> None:
    for value in (object(), float("nan"), {1: 2}, "\ud800", {"user:x": {1, 2}}):
        await _expect_error(
            ValueError, f"create() with the value {value!r}", _create(service, {"value": value})
        )
        _expect("what a failed create() leaves", await _find(service), None)


@_check
async def create_refuses_empty_names(service: SessionService) -> None:
    for app_name, user_id, session_id in (("", "u", "s"), ("a", "", "s"), ("a", "u", "")):
        attempt = service.create(app_name=app_name, user_id=user_id, session_id=session_id)
        await _expect_error(ValueError, "create() with an empty name", attempt)


# Get.


@_check
async def an_unknown_session_is_none(service: SessionService) -> None:
    await _create(service)
    for key in (
        SessionKey("other", "user", "session"),
        SessionKey("app", "other", "session"),
        SessionKey("app", "user", "other"),
    ):
        _expect(f"get() of {key}", await _find(service, key), None)


@_check
async def windows_choose_events_and_leave_state_whole(service: SessionService) -> None:
    await _create(service)
    # Clocks may run backwards; the third was recorded at an earlier time than the second.
    times = [10.0, 20.0, 15.0, 30.0]
    events = [_event(f"e{n}", timestamp=time, n=n) for n, time in enumerate(times, start=1)]
    await service.append(_KEY, events, expected_seq=0)
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
        session = await _get(service, **window)
        _expect(f"the log with {window}", _numbers(session.events), wanted)
        _expect_same(f"the state with {window}", dict(session.state), {"n": 4})
        _expect(f"last_seq with {window}", session.last_seq, 4)


# Append.


@_check
async def the_log_is_in_the_order_of_appends(service: SessionService) -> None:
    await _create(service)
    await service.append(_KEY, [_event("a"), _event("b")], expected_seq=0)
    await service.append(_KEY, [_event("c")], expected_seq=2)
    _expect("the log", _texts((await _get(service)).events), ["a", "b", "c"])


@_check
async def clocks_do_not_decide_the_order(service: SessionService) -> None:
    await _create(service)
    events = [_event(f"at {time}", timestamp=time) for time in (3.0, 1.0, 2.0, 2.0)]
    await service.append(_KEY, events, expected_seq=0)
    session = await _get(service)
    _expect("the log", _texts(session.events), ["at 3.0", "at 1.0", "at 2.0", "at 2.0"])
    _expect("the times", [event.timestamp for event in session.events], [3.0, 1.0, 2.0, 2.0])


@_check
async def sequence_numbers_have_no_gaps(service: SessionService) -> None:
    await _create(service)
    first, second = [_event("a"), _event("b"), _event("c")], [_event("d"), _event("e")]
    await service.append(_KEY, first, expected_seq=0)
    _expect("the numbers on the events appended", _numbers(first), [1, 2, 3])
    await _expect_error(
        SequenceConflictError,
        "append() at an old number",
        service.append(_KEY, [_event("x")], expected_seq=1),
    )
    await service.append(_KEY, second, expected_seq=3)
    _expect("the numbers on the events appended next", _numbers(second), [4, 5])
    session = await _get(service)
    _expect("the numbers in the log", _numbers(session.events), [1, 2, 3, 4, 5])
    _expect("last_seq", session.last_seq, 5)


@_check
async def the_state_is_the_fold_of_the_log(service: SessionService) -> None:
    start = {"kept": 0, "gone": 1, "user:u": "x", "app:a": [1]}
    await _create(service, start)
    deltas: list[dict[str, Any]] = [
        {"gone": None, "b": {"deep": [1, 2.5, None, True]}, "c": {"old": 1}},
        {"user:u": "y", "app:a": [2], "b": {}, "c": {"new": 1}},
        {"odd:scope": 1, "b": "last"},
    ]
    await service.append(_KEY, [_with_delta(delta) for delta in deltas], expected_seq=0)
    session = await _get(service)
    _expect_same("the state", dict(session.state), fold(start, session.events))


@_check
async def values_come_back_as_they_went_in(service: SessionService) -> None:
    values: list[Any] = [
        0,
        0.0,
        -0.0,
        False,
        None,
        "",
        [],
        {},
        1,
        1.0,
        True,
        2**80,
        -(2**63),
        1e300,
        5e-324,
    ]
    texts = ["\x00", "\u2028", "🙂", "é", "e\u0301", " a ", '"\\', "a\r\nb", "1", "null"]
    delta = {"values": values, "texts": texts, "keys": {text: text for text in texts}}
    await _create(service, {"started": values})
    await service.append(_KEY, [_with_delta(delta)], expected_seq=0)
    session = await _get(service)
    _expect_same("the state", dict(session.state), {**delta, "started": values})
    _expect_same("the event's delta", dict(session.events[0].state_delta), delta)


@_check
async def an_event_is_read_as_it_was_written(service: SessionService) -> None:
    await _create(service)
    parts = (
        Text("words"),
        Text("thought", thought=True),
        FunctionCall("call", {"deep": [{"x": None}]}, "id-1"),
        InlineData(bytes(range(256)), "image/png"),
        OtherPart({"fileData": {"fileUri": "gs://b/o"}}),
    )
    event = Event(
        Content(parts, role="user"),
        actions=EventActions(
            artifact_delta={"a.png": 0},
            escalate=True,
            transfer_to_agent="b",
            skip_summarization=True,
            end_of_agent=True,
            agent_state={},
            outcomes=(BranchOutcome("a", "failed", "ValueError", "no", 2, 0.5),),
            other={"route": ["x", 1]},
        ),
        output={"result": [0]},
        error_code="E",
        error_message="no",
        long_running_tool_ids=("id-1",),
        custom_metadata={"mine": 1},
        attempt=2,
        other={"finishReason": "STOP"},
        origin=Origin(author="a", invocation_id="inv", branch="p.a", path="p@1/a@1"),
        timestamp=1_700_000_000.123456,
    )
    bare = Event(origin=Origin(author="user", invocation_id="inv"), id="own-id", timestamp=1.0)
    written = [_sealed(event), _sealed(bare)]
    await service.append(_KEY, written, expected_seq=0)
    for wrote, read in zip(written, (await _get(service)).events, strict=True):
        _expect_same("the event", _CODEC.encode(read), _CODEC.encode(wrote))


@_check
async def appending_nothing_changes_nothing(service: SessionService) -> None:
    await _create(service, {"value": 1})
    await service.append(_KEY, [_event("a", timestamp=5.0)], expected_seq=0)
    before = await _get(service)
    await service.append(_KEY, [], expected_seq=1)
    await _expect_unchanged(service, before)
    after = await _get(service)
    _expect("last_update_time", after.last_update_time, before.last_update_time)
    await _expect_error(
        SequenceConflictError,
        "append() of nothing at a wrong number",
        service.append(_KEY, [], expected_seq=0),
    )


@_check
async def a_conflict_changes_nothing(service: SessionService) -> None:
    await _create(service, {"value": 1})
    await service.append(_KEY, [_event("a"), _event("b")], expected_seq=0)
    before = await _get(service)
    for wrong in (0, 1, 3):
        late = [_event("late", value=2, **{"app:x": 1, "user:x": 1}), _event("later")]
        await _expect_error(
            SequenceConflictError,
            f"append() at {wrong} to a log that ends at 2",
            service.append(_KEY, late, expected_seq=wrong),
        )
        await _expect_unchanged(service, before, late)


@_check
async def an_event_refused_in_a_conflict_can_be_appended_again(service: SessionService) -> None:
    await _create(service)
    await service.append(_KEY, [_event("first")], expected_seq=0)
    late = _event("late", value=2)
    await _expect_error(
        SequenceConflictError,
        "append() at an old number",
        service.append(_KEY, [late], expected_seq=0),
    )
    await service.append(_KEY, [late], expected_seq=1)
    _expect("its number", late.seq, 2)
    _expect("the log", _texts((await _get(service)).events), ["first", "late"])


@_check
async def of_two_writers_who_saw_the_same_only_one_gets_through(service: SessionService) -> None:
    await _create(service)
    wrote: list[str] = []
    seen = {"one": 0, "other": 0}
    # Both begin each round with the number they know; the loser looks again and tries once more.
    for turn in range(6):
        for writer in ("one", "other") if turn % 2 else ("other", "one"):
            text = f"{writer} {turn}"
            try:
                await service.append(_KEY, [_event(text)], expected_seq=seen[writer])
            except SequenceConflictError:
                seen[writer] = (await _get(service)).last_seq
                await service.append(_KEY, [_event(text)], expected_seq=seen[writer])
            else:
                _expect(f"what {writer} knew when it got through", seen[writer], len(wrote))
            wrote.append(text)
            seen[writer] += 1
    session = await _get(service)
    _expect("the log", _texts(session.events), wrote)
    _expect("the numbers", _numbers(session.events), [*range(1, 13)])


@_check
async def an_append_is_all_or_nothing(service: SessionService) -> None:
    await _create(service, {"value": 0})
    recorded = _event("recorded")
    await service.append(_KEY, [recorded], expected_seq=0)
    before = await _get(service)
    twice = _event("twice")
    for what, bad in (
        ("partial", [_sealed(Event("partial", partial=True))]),
        ("not sealed", [Event("open")]),
        ("recorded already", [recorded]),
        ("in the batch twice", [twice, twice]),
    ):
        good = [_event("good", value=1, **{"app:x": 1, "user:x": 1}), _event("better")]
        await _expect_error(
            ValueError,
            f"append() of an event that is {what}",
            service.append(_KEY, [*good, *bad], expected_seq=1),
        )
        await _expect_unchanged(service, before, good)


@_check
async def a_large_batch_is_appended_whole(service: SessionService) -> None:
    await _create(service)
    texts = [f"event {n}" for n in range(2_000)]
    batch = [_event(text, last=text) for text in texts]
    await service.append(_KEY, batch, expected_seq=0)
    session = await _get(service)
    _expect("the log", _texts(session.events) == texts, wanted=True)
    _expect("the numbers", _numbers(session.events) == [*range(1, 2_001)], wanted=True)
    _expect_same("the state", dict(session.state), {"last": texts[-1]})


@_check
async def appending_to_an_unknown_session_is_an_error(service: SessionService) -> None:
    event = _event("lost", **{"app:x": 1})
    await _expect_error(
        SessionNotFoundError,
        "append() to a session that is not there",
        service.append(_KEY, [event], expected_seq=0),
    )
    _expect("its number", event.seq, None)
    _expect_same("the state of a session made later", dict((await _create(service)).state), {})


@_check
async def the_newest_event_dates_the_session(service: SessionService) -> None:
    await _create(service)
    batch = [_event("a", timestamp=50.0), _event("b", timestamp=40.0)]
    await service.append(_KEY, batch, expected_seq=0)
    (info,) = await service.list(app_name="app")
    _expect("last_update_time", (await _get(service)).last_update_time, 40.0)
    _expect("last_update_time in the listing", info.last_update_time, 40.0)
    _expect("last_seq in the listing", info.last_seq, 2)


# Scopes.


async def _four_corners(service: SessionService) -> dict[str, SessionKey]:
    keys = {
        "same user": SessionKey("app", "user", "second"),
        "other user": SessionKey("app", "other", "session"),
        "other app": SessionKey("other", "user", "session"),
    }
    for key in (_KEY, *keys.values()):
        await _create(service, key=key)
    return keys


async def _expect_seen(
    service: SessionService, keys: dict[str, SessionKey], name: str, wanted: set[str]
) -> None:
    _expect(f"{name} in its own session", (await _get(service)).state.get(name), 1)
    for place, key in keys.items():
        seen = (await _get(service, key)).state.get(name)
        _expect(f"{name} seen from: {place}", seen, 1 if place in wanted else None)


@_check
async def plain_state_belongs_to_its_session(service: SessionService) -> None:
    keys = await _four_corners(service)
    await service.append(_KEY, [_event(plain=1)], expected_seq=0)
    await _expect_seen(service, keys, "plain", set())


@_check
async def user_state_is_shared_by_the_sessions_of_a_user(service: SessionService) -> None:
    keys = await _four_corners(service)
    await service.append(_KEY, [_with_delta({"user:k": 1})], expected_seq=0)
    await _expect_seen(service, keys, "user:k", {"same user"})


@_check
async def app_state_is_shared_by_the_sessions_of_an_application(service: SessionService) -> None:
    keys = await _four_corners(service)
    await service.append(_KEY, [_with_delta({"app:k": 1})], expected_seq=0)
    await _expect_seen(service, keys, "app:k", {"same user", "other user"})


@_check
async def a_new_sessions_state_goes_to_its_scopes(service: SessionService) -> None:
    second = SessionKey("app", "user", "second")
    await _create(service, {"app:k": 1, "user:k": 2, "plain": 3})
    session = await _create(service, {"user:k": 4}, key=second)
    _expect_same("the second session's state", dict(session.state), {"app:k": 1, "user:k": 4})
    first = (await _get(service)).state
    _expect_same("the first session's", dict(first), {"app:k": 1, "user:k": 4, "plain": 3})


@_check
async def temporary_state_is_never_stored(service: SessionService) -> None:
    created = await _create(service, {"temp:start": 1, "kept": 1})
    _expect_same("the state create() returns", dict(created.state), {"kept": 1})
    batch = [_with_delta({"temp:a": 1, "b": 2}), _with_delta({"temp:only": 1})]
    await service.append(_KEY, batch, expected_seq=0)
    session = await _get(service)
    _expect_same("the state", dict(session.state), {"kept": 1, "b": 2})
    deltas = [dict(event.state_delta) for event in session.events]
    _expect_same("the deltas in the log", deltas, [{"b": 2}, {}])


# What comes out is the reader's own.


@_check
async def what_is_read_is_not_what_is_kept(service: SessionService) -> None:
    created = await _create(service, {"value": [1, {"a": [2]}]})
    await service.append(_KEY, [_event("kept", other={"b": [3]})], expected_seq=0)
    for session in (created, await _get(service)):
        session.events.clear()
        for value in session.state.values():
            _try_to_change(value)
        session.state["value"] = "changed"
        session.state["user:new"] = "changed"
    after = await _get(service)
    _expect("the log", _texts(after.events), ["kept"])
    _expect_same("the state", dict(after.state), {"value": [1, {"a": [2]}], "other": {"b": [3]}})


def _try_to_change(value: Any) -> None:
    children: Iterable[Any] = value.values() if isinstance(value, dict) else value
    for child in children:
        if isinstance(child, dict | list):
            _try_to_change(child)
    try:
        value.clear()
    except TypeError:
        return  # it cannot be changed, which is even better


@_check
async def events_that_were_read_cannot_change(service: SessionService) -> None:
    await _create(service)
    await service.append(_KEY, [_event("kept")], expected_seq=0)
    (event,) = (await _get(service)).events
    _expect("whether the event that was read is sealed", event.sealed, wanted=True)


@_check
async def what_was_given_may_change_afterwards(service: SessionService) -> None:
    state: dict[str, Any] = {"value": [1]}
    await service.create(app_name="app", user_id="user", session_id="session", state=state)
    batch = [_event("a")]
    await service.append(_KEY, batch, expected_seq=0)
    state["value"].append("changed")
    state["new"] = "changed"
    batch.clear()
    session = await _get(service)
    _expect_same("the state", dict(session.state), {"value": [1]})
    _expect("the log", _texts(session.events), ["a"])


@_check
async def a_session_that_was_read_stays_as_it_was(service: SessionService) -> None:
    created = await _create(service)
    await service.append(_KEY, [_event("a", n=1)], expected_seq=0)
    first = await _get(service)
    await service.append(_KEY, [_event("b", n=2)], expected_seq=1)
    for session, texts, state in ((created, [], {}), (first, ["a"], {"n": 1})):
        _expect("the log read earlier", _texts(session.events), texts)
        _expect_same("the state read earlier", dict(session.state), state)
        _expect("last_seq read earlier", session.last_seq, len(texts))


# List and delete.


@_check
async def a_listing_is_in_order_and_of_one_application(service: SessionService) -> None:
    for user, session in (("b", "2"), ("a", "9"), ("b", "10"), ("B", "1"), ("a", "1"), ("b", "1")):
        await _create(service, key=SessionKey("app", user, session))
    await _create(service, key=SessionKey("other", "a", "1"))
    wanted = ["B/1", "a/1", "a/9", "b/1", "b/10", "b/2"]
    _expect("list()", await _keys(service, "app"), wanted)
    _expect("list() of one user", await _keys(service, "app", "b"), ["b/1", "b/10", "b/2"])
    _expect("list() of an unknown user", await _keys(service, "app", "nobody"), [])
    _expect("list() of an unknown application", await _keys(service, "nothing"), [])


@_check
async def a_deleted_session_is_gone(service: SessionService) -> None:
    second = SessionKey("app", "user", "second")
    await _create(service, {"value": 1})
    await _create(service, {"value": 2}, key=second)
    await service.append(_KEY, [_event("a")], expected_seq=0)
    await _delete(service)
    _expect("get() of it", await _find(service), None)
    _expect("list()", await _keys(service, "app"), ["user/second"])
    await _expect_error(
        SessionNotFoundError,
        "append() to it",
        service.append(_KEY, [_event("b")], expected_seq=1),
    )
    _expect_same("the other's state", dict((await _get(service, second)).state), {"value": 2})


@_check
async def deleting_an_unknown_session_does_nothing(service: SessionService) -> None:
    await _delete(service)
    await _create(service)
    await _delete(service, SessionKey("app", "user", "other"))
    await _get(service)


@_check
async def a_session_made_again_starts_anew(service: SessionService) -> None:
    await _create(service, {"old": 1})
    await service.append(_KEY, [_event("old", older=1)], expected_seq=0)
    await _delete(service)
    again = await _create(service, {"new": 1})
    _expect_same("its state", dict(again.state), {"new": 1})
    event = _event("new")
    await service.append(_KEY, [event], expected_seq=0)
    _expect("its first event's number", event.seq, 1)
    _expect("its log", _texts((await _get(service)).events), ["new"])


@_check
async def shared_state_outlives_a_deleted_session(service: SessionService) -> None:
    await _create(service, {"app:k": 1, "user:k": 2, "plain": 3})
    await _delete(service)
    again = await _create(service)
    _expect_same("the state made again", dict(again.state), {"app:k": 1, "user:k": 2})


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
        await _create(service, {"who": str(key), f"user:{key.session_id}": str(key)}, key=key)
        await service.append(key, [_event(str(key))], expected_seq=0)
    for key in keys:
        session = await _get(service, key)
        _expect("the key", session.key, key)
        _expect(f"the log of {key!r}", _texts(session.events), [str(key)])
        _expect(f"the state of {key!r}", session.state["who"], str(key))
    for name in names:
        _expect(f"list({name!r})", await _keys(service, name), ["x/y"])
        _expect(f"list('x', {name!r})", await _keys(service, "x", name), [f"{name}/y"])


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
    ]
    state = {name: name for name in names}
    await _create(service)
    await service.append(_KEY, [_with_delta(state)], expected_seq=0)
    _expect_same("the state", dict((await _get(service)).state), state)


CHECKS: Final[tuple[Check, ...]] = tuple(_checks)
"""Every check, in the order of the contract."""
