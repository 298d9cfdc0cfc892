"""Events are appended: in order, all or nothing, and by one writer at a time."""

from __future__ import annotations

from typing import Any

from session.actions import BranchOutcome, EventActions
from session.conformance._kit import (
    CODEC,
    KEY,
    BrokenError,
    collector,
    create,
    expect,
    expect_error,
    expect_same,
    expect_unchanged,
    get,
    make_event,
    numbers_of,
    sealed,
    texts_of,
    with_delta,
)
from session.content import Content, FunctionCall, InlineData, OtherPart, Text
from session.errors import SequenceConflictError, SessionNotFoundError
from session.event import Event, Origin
from session.service import SessionService
from session.session import fold

CHECKS, _check = collector()

# Append.


@_check
async def the_log_is_in_the_order_of_appends(service: SessionService) -> None:
    await create(service)
    await service.append(KEY, [make_event("a"), make_event("b")], expected_seq=0)
    await service.append(KEY, [make_event("c")], expected_seq=2)
    expect("the log", texts_of((await get(service)).events), ["a", "b", "c"])


@_check
async def clocks_do_not_decide_the_order(service: SessionService) -> None:
    await create(service)
    events = [make_event(f"at {time}", timestamp=time) for time in (3.0, 1.0, 2.0, 2.0)]
    await service.append(KEY, events, expected_seq=0)
    session = await get(service)
    expect("the log", texts_of(session.events), ["at 3.0", "at 1.0", "at 2.0", "at 2.0"])
    expect("the times", [event.timestamp for event in session.events], [3.0, 1.0, 2.0, 2.0])


@_check
async def sequence_numbers_have_no_gaps(service: SessionService) -> None:
    await create(service)
    first, second = (
        [make_event("a"), make_event("b"), make_event("c")],
        [make_event("d"), make_event("e")],
    )
    await service.append(KEY, first, expected_seq=0)
    expect("the numbers on the events appended", numbers_of(first), [1, 2, 3])
    await expect_error(
        SequenceConflictError,
        "append() at an old number",
        service.append(KEY, [make_event("x")], expected_seq=1),
    )
    await service.append(KEY, second, expected_seq=3)
    expect("the numbers on the events appended next", numbers_of(second), [4, 5])
    session = await get(service)
    expect("the numbers in the log", numbers_of(session.events), [1, 2, 3, 4, 5])
    expect("last_seq", session.last_seq, 5)


@_check
async def the_state_is_the_fold_of_the_log(service: SessionService) -> None:
    start = {"kept": 0, "gone": 1, "user:u": "x", "app:a": [1]}
    await create(service, start)
    deltas: list[dict[str, Any]] = [
        {"gone": None, "b": {"deep": [1, 2.5, None, True]}, "c": {"old": 1}},
        {"user:u": "y", "app:a": [2], "b": {}, "c": {"new": 1}},
        {"odd:scope": 1, "b": "last"},
    ]
    await service.append(KEY, [with_delta(delta) for delta in deltas], expected_seq=0)
    session = await get(service)
    expect_same("the state", dict(session.state), fold(start, session.events))


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
    await create(service, {"started": values})
    await service.append(KEY, [with_delta(delta)], expected_seq=0)
    session = await get(service)
    expect_same("the state", dict(session.state), {**delta, "started": values})
    expect_same("the event's delta", dict(session.events[0].state_delta), delta)


@_check
async def an_event_is_read_as_it_was_written(service: SessionService) -> None:
    await create(service)
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
            route=["x", 1],
            other={"transferReason": "x"},
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
    written = [sealed(event), sealed(bare)]
    await service.append(KEY, written, expected_seq=0)
    for wrote, read in zip(written, (await get(service)).events, strict=True):
        expect_same("the event", CODEC.encode(read), CODEC.encode(wrote))


@_check
async def appending_nothing_changes_nothing(service: SessionService) -> None:
    await create(service, {"value": 1})
    await service.append(KEY, [make_event("a", timestamp=5.0)], expected_seq=0)
    before = await get(service)
    await service.append(KEY, [], expected_seq=1)
    await expect_unchanged(service, before)
    after = await get(service)
    expect("last_update_time", after.last_update_time, before.last_update_time)
    await expect_error(
        SequenceConflictError,
        "append() of nothing at a wrong number",
        service.append(KEY, [], expected_seq=0),
    )


@_check
async def a_conflict_changes_nothing(service: SessionService) -> None:
    await create(service, {"value": 1})
    await service.append(KEY, [make_event("a"), make_event("b")], expected_seq=0)
    before = await get(service)
    for wrong in (0, 1, 3):
        late = [make_event("late", value=2, **{"app:x": 1, "user:x": 1}), make_event("later")]
        await expect_error(
            SequenceConflictError,
            f"append() at {wrong} to a log that ends at 2",
            service.append(KEY, late, expected_seq=wrong),
        )
        await expect_unchanged(service, before, late)


@_check
async def an_event_refused_in_a_conflict_can_be_appended_again(service: SessionService) -> None:
    await create(service)
    await service.append(KEY, [make_event("first")], expected_seq=0)
    late = make_event("late", value=2)
    await expect_error(
        SequenceConflictError,
        "append() at an old number",
        service.append(KEY, [late], expected_seq=0),
    )
    await service.append(KEY, [late], expected_seq=1)
    expect("its number", late.seq, 2)
    expect("the log", texts_of((await get(service)).events), ["first", "late"])


@_check
async def of_two_writers_who_saw_the_same_only_one_gets_through(service: SessionService) -> None:
    await create(service)
    wrote: list[str] = []
    seen = {"one": 0, "other": 0}
    # Both begin each round with the number they know; the loser looks again and tries once more.
    for turn in range(6):
        for writer in ("one", "other") if turn % 2 else ("other", "one"):
            text = f"{writer} {turn}"
            try:
                await service.append(KEY, [make_event(text)], expected_seq=seen[writer])
            except SequenceConflictError:
                seen[writer] = (await get(service)).last_seq
                await service.append(KEY, [make_event(text)], expected_seq=seen[writer])
            else:
                expect(f"what {writer} knew when it got through", seen[writer], len(wrote))
            wrote.append(text)
            seen[writer] += 1
    session = await get(service)
    expect("the log", texts_of(session.events), wrote)
    expect("the numbers", numbers_of(session.events), [*range(1, 13)])


@_check
async def an_append_is_all_or_nothing(service: SessionService) -> None:
    await create(service, {"value": 0})
    recorded = make_event("recorded")
    await service.append(KEY, [recorded], expected_seq=0)
    before = await get(service)
    twice = make_event("twice")
    for what, bad in (
        ("partial", [sealed(Event("partial", partial=True))]),
        ("not sealed", [Event("open")]),
        ("recorded already", [recorded]),
        ("in the batch twice", [twice, twice]),
    ):
        good = [make_event("good", value=1, **{"app:x": 1, "user:x": 1}), make_event("better")]
        await expect_error(
            ValueError,
            f"append() of an event that is {what}",
            service.append(KEY, [*good, *bad], expected_seq=1),
        )
        await expect_unchanged(service, before, good)


@_check
async def a_large_batch_is_appended_whole(service: SessionService) -> None:
    await create(service)
    texts = [f"event {n}" for n in range(2_000)]
    batch = [make_event(text, last=text) for text in texts]
    await service.append(KEY, batch, expected_seq=0)
    session = await get(service)
    expect("the log", texts_of(session.events) == texts, wanted=True)
    expect("the numbers", numbers_of(session.events) == [*range(1, 2_001)], wanted=True)
    expect_same("the state", dict(session.state), {"last": texts[-1]})


@_check
async def appending_to_an_unknown_session_is_an_error(service: SessionService) -> None:
    event = make_event("lost", **{"app:x": 1})
    await expect_error(
        SessionNotFoundError,
        "append() to a session that is not there",
        service.append(KEY, [event], expected_seq=0),
    )
    expect("its number", event.seq, None)
    expect_same("the state of a session made later", dict((await create(service)).state), {})


@_check
async def the_newest_event_dates_the_session(service: SessionService) -> None:
    await create(service)
    batch = [make_event("a", timestamp=50.0), make_event("b", timestamp=40.0)]
    await service.append(KEY, batch, expected_seq=0)
    (info,) = await service.list(app_name="app")
    expect("last_update_time", (await get(service)).last_update_time, 40.0)
    expect("last_update_time in the listing", info.last_update_time, 40.0)
    expect("last_seq in the listing", info.last_seq, 2)


@_check
async def appending_at_once_is_appending(service: SessionService) -> None:
    if service.blocks:
        return  # it promises nothing about append_nowait()
    await create(service, {"value": 0})
    first, second = make_event("a", **{"value": 1, "temp:x": 1}), make_event("b")
    service.append_nowait(KEY, [first], expected_seq=0)
    await service.append(KEY, [second], expected_seq=1)
    third = make_event("c", value=2)
    service.append_nowait(KEY, [third], expected_seq=2)
    expect("the numbers", numbers_of([first, second, third]), [1, 2, 3])
    before = await get(service)
    expect("the log", texts_of(before.events), ["a", "b", "c"])
    expect_same("the state", dict(before.state), {"value": 2})
    late = make_event("late", value=3)
    for what, kind, batch in (
        ("at an old number", SequenceConflictError, [late]),
        ("of an event recorded already", ValueError, [late, first]),
        ("of an event twice", ValueError, [late, late]),
    ):
        try:
            service.append_nowait(KEY, batch, expected_seq=2 if len(batch) == 1 else 3)
        except kind:
            await expect_unchanged(service, before, [late])
        else:
            raise BrokenError(f"append_nowait() {what} should raise {kind.__name__} and did not")
