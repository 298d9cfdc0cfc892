"""What a log says of a run that was cut off; and logs that are damaged."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    Event,
    EventActions,
    LoopAgent,
    ParallelAgent,
    ReplayMismatchError,
    Result,
    Retry,
    Runner,
    SequentialAgent,
    Status,
    TreeChangedError,
)
from parallel_agent.errors import NothingToResumeError
from parallel_agent.past import Past
from parallel_agent.records import checked, is_of_others, next_attempt
from parallel_agent.testing import adds, calls, contributes, emits, raises, scripted
from session.codec import Codec
from session.errors import StoreCorruptError
from session.event import stamp_origin, stamp_seq
from session.origin import Origin
from tests.kernel.scripted import run_virtual
from tests.support.drawing import fewer
from tests.support.resuming import FIRST, REDUCERS, Cut, Told, play, resume


class Log:
    """A log that is made by hand."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add(self, path: str, text: str | None = None, *, author: str = "a", **actions: Any) -> Log:
        event = Event(text, actions=EventActions(**actions))
        event.seal()
        stamp_origin(event, Origin(author=author, invocation_id="run", path=path))
        stamp_seq(event, len(self.events) + 1)
        self.events.append(event)
        return self

    def note(self, path: str, kind: str, **note: Any) -> Log:
        return self.add(path, journal={"kind": kind, **note})

    def end(self, path: str, status: str = "completed", **note: Any) -> Log:
        return self.note(path, "end", status=status, **note)

    @property
    def past(self) -> Past:
        return Past(self.events)


def last_wins(_key: str, _current: Any, added: tuple[Any, ...]) -> Any:
    return added[-1]


def test_what_has_ended_is_kept_and_the_rest_is_void() -> None:
    log = Log().add("s/a", "a").end("s/a").add("s/b", "b").add("s", "s")
    assert log.past.void == {3, 4}


def test_what_ended_below_something_that_has_ended_is_kept() -> None:
    log = Log().add("s/a/b", "deep").add("s/a/c", "deeper").end("s/a/b").end("s/a")
    past = log.past
    assert past.void == set()
    ended = past.ended("s/a")
    assert ended is not None
    assert sorted(event.text for event in ended.events()) == ["deep", "deeper"]


def test_a_checkpoint_keeps_what_came_before_it() -> None:
    log = Log().add("a", "one").note("a", "checkpoint").add("a", "two")
    assert log.past.void == {3}


def test_a_checkpoint_keeps_nothing_of_others() -> None:
    log = Log().add("s/a", "one").note("s", "checkpoint")
    assert log.past.void == {1}


def test_a_later_execution_does_not_bring_back_what_was_void() -> None:
    log = Log().add("a", "one").note("", "resumed").add("a", "two").end("a")
    past = log.past
    assert past.void == {1}
    assert past.executions == 2


def test_a_failed_attempt_is_no_execution_that_was_cut_off() -> None:
    log = Log().add("a", "one").note("a", "attempt").add("a~2", "two")
    past = log.past
    assert past.void == {3}
    assert past.attempt_failed("a")
    assert not past.attempt_failed("a~2")


def test_siblings_that_a_decision_has_ended_have_ended() -> None:
    log = Log().add("p/b", "b").end("p/a", ends=["p/b", "p/c"])
    past = log.past
    assert past.void == set()
    for path in ("p/b", "p/c"):
        ended = past.ended(path)
        assert ended is not None
        assert (ended.status, ended.cut_off, ended.seq) == (Status.CANCELLED, True, 2)


def test_a_later_attempt_that_a_decision_has_ended_keeps_what_it_said() -> None:
    log = Log().note("p/b", "attempt").add("p/b~2", "b").end("p/a", ends=["p/b"])
    past = log.past
    assert past.void == set()
    ended = past.ended("p/b")
    assert ended is not None
    assert (ended.begun, ended.path, ended.attempts) == ("p/b", "p/b~2", 2)


def test_what_a_refused_execution_recorded_is_void() -> None:
    log = Log().add("s/a", "one").end("s/a").note("s", "resumed")
    log.add("s/b", "two").end("s/b").note("s", "refused").note("s", "resumed").add("s/c", "three")
    past = log.past
    assert past.ended("s/a") is not None
    assert past.ended("s/b") is None
    assert {4, 8} <= past.void
    assert 1 not in past.void


def test_effects_of_a_refused_execution_have_happened() -> None:
    log = Log().note("s", "resumed").note("s/a", "intent", key="k").note("s/a", "effect", key="k")
    log.note("s", "refused")
    assert log.past.effects() == {("s/a", "k"): ("done", None)}


def test_an_effect_is_unknown_until_its_end_is_recorded() -> None:
    log = Log().note("s~2/a~3", "intent", key="k")
    assert log.past.effects() == {("s/a", "k"): ("unknown", None)}
    log.note("s~2/a~3", "effect", key="k", failed=True)
    assert log.past.effects() == {}


def test_keys_that_void_events_have_written_are_put_back() -> None:
    log = Log()
    log.add("s/a", state_delta={"x": 1, "y": 1}, journal={"undo": {"was": {"x": 0}}}).end("s/a")
    log.add("s/b", state_delta={"x": 2, "z": 2, "user:k": 2})
    now = {"x": 2, "y": 1, "z": 2, "user:k": 2}
    assert log.past.state(now, last_wins) == ({"x": 1}, ["z"])


def test_contributions_are_combined_without_those_of_void_events() -> None:
    log = Log()
    log.add("s/a", state_delta={"t": 3}, journal={"undo": {"was": {"t": 1}, "added": {"t": [2]}}})
    log.add("s/b", state_delta={"t": 8}, journal={"undo": {"added": {"t": [5]}}}).end("s/b")

    def add(_key: str, current: Any, added: tuple[Any, ...]) -> Any:
        return current + sum(added)

    assert log.past.state({"t": 8}, add) == ({"t": 6}, [])


def test_nothing_is_written_if_nothing_is_void() -> None:
    log = Log().add("a", state_delta={"x": 1}).end("a")
    assert log.past.state({"x": 5}, last_wins) == ({}, [])


def test_a_kind_of_a_later_release_is_left_alone() -> None:
    log = Log().add("a", "one").note("a", "weather", sun=[1]).end("a", humidity=3)
    assert log.past.void == set()


@pytest.mark.parametrize(
    ("path", "after"), [("a", "a~2"), ("s/a~2", "s/a~3"), ("s~2/a@3", "s~2/a@3~2")]
)
def test_the_next_attempt_has_the_next_number(path: str, after: str) -> None:
    assert next_attempt(path) == after


def test_messages_are_of_others() -> None:
    log = Log().add("a", "one").add("b", "two", journal={"message": "p/a"})
    assert [is_of_others(event) for event in log.events] == [False, True]


# ------------------------------------------------------------------------------------ damaged logs


@pytest.mark.parametrize(
    ("kind", "note", "field"),
    [
        ("end", {}, "status"),
        ("end", {"status": "waiting"}, "status"),
        ("end", {"status": "completed", "duration": "long"}, "duration"),
        ("end", {"status": "completed", "attempts": 10**9}, "attempts"),
        ("end", {"status": "completed", "begun": "other"}, "begun"),
        ("end", {"status": "failed"}, "error"),
        ("end", {"status": "failed", "error": {"kind": "x"}}, "error"),
        ("end", {"status": "completed", "error": {"kind": "x", "message": "y"}}, "error"),
        ("end", {"status": "completed", "ends": "p/b"}, "ends"),
        ("end", {"status": "completed", "received": ["x"]}, "received"),
        ("end", {"status": "completed", "escalated": "up"}, "escalated"),
        ("attempt", {"error": 7}, "error"),
        ("checkpoint", {"numbers": {"a": "one"}}, "numbers"),
        ("checkpoint", {"added": {"t": 1}}, "added"),
        ("intent", {}, "key"),
        ("effect", {"key": 1}, "key"),
        ("start", {"outline": [1], "config": {}}, "outline"),
        ("resumed", {"void": [[3, 1]]}, "void"),
    ],
)
def test_a_damaged_record_is_named(kind: str, note: dict[str, Any], field: str) -> None:
    log = Log().add("a", "one").note("p/a", kind, **note)
    with pytest.raises(StoreCorruptError, match=f"run 'run', event 2: .*{field} must be"):
        _ = log.past


@pytest.mark.parametrize("path", ["", "/", "a//b", "a~x", "a~", "a~0", "~2"])
def test_a_record_of_no_activation_is_named(path: str) -> None:
    with pytest.raises(StoreCorruptError, match="path must be"):
        checked(Log().end(path).events[0])


JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, -1, 10**9, 0.5, "", "x", "a~9", [], [1], ["a"], {}, {"a": 1}, {"kind": 3}]
)
_CODEC = Codec()

REFUSALS = (StoreCorruptError, TreeChangedError, NothingToResumeError, ReplayMismatchError)


def _damaged() -> SequentialAgent:
    """Return a tree whose log has records of nearly every kind."""

    async def keeps(ctx: Any) -> None:
        await ctx.checkpoint({"at": 1})
        await ctx.once("k", lambda: 1, on_unknown="retry")

    def fails_once(ctx: Any) -> None:
        if "~" not in ctx.path:
            message = "once"
            raise ValueError(message)

    keeper = scripted("a", adds("n"), emits("a1"), calls(keeps), emits("a2"))
    tried = scripted(
        "b", contributes("t", 1), emits("b"), calls(fails_once), retry=Retry(2, initial_delay=0)
    )
    fan = ParallelAgent("p", [keeper, tried], output_key="out")
    return SequentialAgent(
        "s", [LoopAgent("l", [fan], max_iterations=2), scripted("z", emits("z"))]
    )


WHOLE: Told = run_virtual(lambda: play(_damaged(), new_id=lambda: "run"))


async def _try(lines: list[str]) -> Result | BaseException:
    """Resume a run of a damaged log; return what came of it."""
    try:
        told = await resume(_damaged(), Cut(lines, WHOLE.run_id))
    except Exception as exc:  # noqa: BLE001  # what is looked at
        return exc
    return told.error or told.result


def _is_clear(found: Result | BaseException) -> bool:
    if isinstance(found, Result):
        return found.status is Status.COMPLETED
    return isinstance(found, REFUSALS)


def _journal(event: dict[str, Any]) -> dict[str, Any]:
    """Return the note in the stored form of an event; an empty one, if there is none."""
    journal: dict[str, Any] = (
        event.get("customMetadata", {}).get("parallel_agent", {}).get("journal", {})
    )
    return journal


@st.composite
def damaged_logs(draw: st.DrawFn) -> list[str]:
    """Draw the log of a run that was cut off, with damage to one of its records."""
    at = draw(st.integers(FIRST, len(WHOLE.lines)))
    lines = list(WHOLE.lines[:at])
    places = [n for n, line in enumerate(lines) if _journal(json.loads(line))]
    place = draw(st.sampled_from(places))
    event = json.loads(lines[place])
    journal = _journal(event)
    field = draw(st.sampled_from([*journal, "begun", "attempts", "ends", "error", "received"]))
    if draw(st.booleans()):
        journal.pop(field, None)
    else:
        journal[field] = draw(JUNK)
    lines[place] = json.dumps(event)
    return lines


@fewer(1)
@given(damaged_logs())
def test_a_damaged_log_is_refused_by_name_or_resumed(lines: list[str]) -> None:
    found = run_virtual(_try, lines)
    assert _is_clear(found), repr(found)


@fewer(2)
@given(st.integers(FIRST, len(WHOLE.lines)), st.data())
def test_a_log_with_an_event_missing_is_refused_by_name_or_resumed(
    at: int, data: st.DataObject
) -> None:
    events = [_CODEC.loads(line) for line in WHOLE.lines[:at]]
    del events[data.draw(st.integers(0, at - 1))]
    lines = []
    for seq, event in enumerate(events, 1):
        stamp_seq(event, seq)
        lines.append(_CODEC.dumps(event))
    found = run_virtual(_try, lines)
    assert _is_clear(found), repr(found)


def test_a_log_without_damage_is_resumed() -> None:
    """The checkers above would not notice if nothing could be resumed."""
    found = run_virtual(_try, list(WHOLE.lines[:-3]))
    assert isinstance(found, Result)
    assert found.state["t"] == 2


def test_what_is_no_clear_error_is_told_from_one() -> None:
    assert not _is_clear(KeyError("status"))
    assert _is_clear(StoreCorruptError("event 3"))


def test_events_of_another_run_are_not_of_this_one() -> None:
    async def main() -> None:
        service = await Cut(WHOLE.lines[:-4], WHOLE.run_id).service()
        key = (await service.list(app_name="app"))[0].key
        session = await service.get(app_name="app", user_id="user", session_id=key.session_id)
        assert session is not None
        other = Event("of another", actions=EventActions(journal={"kind": "end"}))
        other.seal()
        stamp_origin(other, Origin(author="s", invocation_id="another", path="s"))
        await service.append(key, [other], expected_seq=session.last_seq)
        runner = Runner(
            _damaged(),
            app_name="app",
            session_service=service,
            reducers=REDUCERS,
            resumable=True,
        )
        assert (await runner.resume(key.session_id)).status is Status.COMPLETED

    run_virtual(main)


def test_a_config_that_cannot_be_read_is_named() -> None:
    lines = list(WHOLE.lines[:-3])
    event = json.loads(lines[1])
    _journal(event)["config"] = {"max_threads": -1}
    lines[1] = json.dumps(event)
    found = run_virtual(_try, lines)
    assert isinstance(found, StoreCorruptError)
    assert "how the run was to behave" in str(found)


def test_a_failing_leaf_is_a_failure_of_the_tree_in_the_damage() -> None:
    tree = SequentialAgent("s", [scripted("a", raises(ValueError("no")))])
    told = run_virtual(lambda: play(tree))
    lines = list(told.lines)
    event = json.loads(lines[2])
    del _journal(event)["error"]["message"]
    lines[2] = json.dumps(event)
    with pytest.raises(StoreCorruptError, match="error must be an object in which message is"):
        run_virtual(lambda: resume(tree, Cut(lines, told.run_id)))
