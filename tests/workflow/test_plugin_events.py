"""What plugins see and make of events, and that a plugin which does nothing changes nothing.

Everything else about plugins is in ``test_plugins.py``.
"""

from __future__ import annotations

import copy
import functools
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    DROP_EVENT,
    Agent,
    Content,
    EmitError,
    Event,
    EventActions,
    InvocationContext,
    Outcome,
    ParallelAgent,
    Plugin,
    PluginError,
    Result,
    Runner,
    SchemaError,
    Status,
    UnstorableError,
    agent,
)
from session import Codec
from tests.kernel.scripted import BatchingService, BoomError, Yields, run_virtual, texts
from tests.support import laws, running
from tests.support.drawing import Allowed, cases, fewer, kept_cases, trees
from tests.support.oracle import observed
from tests.support.running import Case, Reader, Report, perform
from tests.support.scripts import Emit, Fan, Leaf, Pause
from tests.workflow.trees import Diary, Ended, leaf, open_and_read, run_tree

Look = Callable[[InvocationContext, Event], Any]


class Looking(Plugin):
    """Has ``look`` look at every event; an exception it returns is raised."""

    def __init__(self, look: Look, name: str = "looking") -> None:
        super().__init__(name)
        self.look = look

    async def on_event_callback(self, ctx: InvocationContext, event: Event) -> Any:
        answer = self.look(ctx, event)
        if isinstance(answer, BaseException):
            raise answer
        return await answer if isinstance(answer, Awaitable) else answer


def run_looking(tree: Agent, *looks: Look, **options: Any) -> Ended:
    """Run to a good end with a plugin for each of ``looks``; what agents assert counts, too."""
    ended = run_to_any_end(tree, *looks, **options)
    if ended.error is not None:
        raise ended.error
    return ended


def run_to_any_end(tree: Agent, *looks: Look, pause: float = 0, **options: Any) -> Ended:
    plugins = [Looking(look, f"p{number}") for number, look in enumerate(looks)]
    return run_tree(Runner(tree, plugins=plugins, **options), pause=pause)


def at(text: str, look: Look) -> Look:
    """Look only at the event with that text."""
    return lambda ctx, event: look(ctx, event) if event.text == text else None


async def dawdle(*_args: object) -> None:
    await trio.sleep(5)


def writing(**values: Any) -> Callable[[InvocationContext], None]:
    """A step of a script: write to state."""
    return lambda ctx: ctx.state.update(values)


def deltas(events: Sequence[Event]) -> list[dict[str, Any]]:
    return [dict(event.state_delta) for event in events if event.state_delta]


# ------------------------------------------------------------------------------------ what it does


def test_a_replaced_event_is_the_one_that_is_recorded_delivered_and_returned() -> None:
    other = Event("other", output=[1])
    returned: list[Event] = []

    async def emit(ctx: InvocationContext) -> None:
        returned.append(await ctx.emit(Event("said", output=[2])))

    ended = run_looking(leaf("a", emit, output_key="k"), at("said", lambda _ctx, _event: other))
    assert returned == ended.delivered == list(ended.result.events) == [other]
    assert ended.result.output == ended.result.state["k"] == [1]


def test_an_event_can_be_changed_in_place() -> None:
    def shout(_ctx: InvocationContext, event: Event) -> None:
        event.content = Content(event.text.upper())
        event.output = 7
        event.actions.escalate = True

    ended = run_looking(leaf("a", "said"), shout)
    assert [(event.text, event.output, event.escalate) for event in ended.delivered] == [
        ("SAID", 7, True)
    ]
    assert ended.result.output == 7


def test_a_dropped_event_is_nowhere_and_its_agent_goes_on() -> None:
    returned: list[Event] = []

    async def emit(ctx: InvocationContext) -> None:
        returned.append(await ctx.emit(Event("noise", output=[2])))

    ended = run_looking(
        leaf("a", emit, "said", output_key="k"), at("noise", lambda _ctx, _event: DROP_EVENT)
    )
    assert texts(ended.delivered) == texts(ended.result.events) == ["said"]
    assert [event.seq for event in returned] == [None]
    assert ended.result.state["k"] == "said"


def test_a_dropped_event_does_not_escalate() -> None:
    tree = ParallelAgent("f", [leaf("a", lambda ctx: ctx.emit(stop())), leaf("b", 1, "said")])

    def stop() -> Event:
        return Event("stop", actions=EventActions(escalate=True))

    ended = run_looking(tree, at("stop", lambda _ctx, _event: DROP_EVENT))
    assert ended.outcomes("f") == {"a": "completed", "b": "completed"}


def test_each_plugin_sees_what_those_before_it_made_and_none_a_dropped_event() -> None:
    seen: Diary = []

    def add(letter: str) -> Look:
        def look(_ctx: InvocationContext, event: Event) -> Any:
            seen.append(f"{letter} {event.text}")
            if letter == "y" and event.text.startswith("b"):
                return DROP_EVENT
            return Event(event.text + letter)

        return look

    ended = run_looking(leaf("a", "a", "b"), add("x"), add("y"), add("z"))
    assert seen == ["x a", "y ax", "z axy", "x b", "y bx"]
    assert texts(ended.delivered) == ["axyz"]


def test_text_and_content_are_events_when_they_are_looked_at() -> None:
    seen: list[Event] = []
    tree = leaf("a", "text", lambda ctx: ctx.emit(Content("content")))
    ended = run_looking(tree, lambda _ctx, event: seen.append(event))
    assert seen == ended.delivered
    assert [type(event) for event in seen] == [type(ended.delivered[0])] * 2


def test_an_event_that_is_looked_at_says_who_emits_it() -> None:
    seen: list[tuple[str, str | None, str, str, int | None]] = []

    def look(ctx: InvocationContext, event: Event) -> None:
        assert (ctx.branch, ctx.path) == (event.branch, event.path)
        assert ctx.invocation_id == event.invocation_id
        seen.append((event.author, event.branch, event.path, event.text, event.seq))

    run_looking(
        ParallelAgent("f", [leaf("a", "said")]), look, lambda _ctx, _event: Event("x"), look
    )
    assert seen == [
        ("a", "f.a", "f/a", "said", None),
        ("a", "f.a", "f/a", "x", None),
        ("f", None, "f", "", None),
        ("f", None, "f", "x", None),
    ]


def test_a_copy_of_the_event_will_do_as_its_replacement() -> None:
    def redact(_ctx: InvocationContext, event: Event) -> Event:
        twin = copy.copy(event)
        twin.content = Content("***")
        return twin

    ended = run_looking(leaf("a", writing(k=1), "secret"), redact)
    assert [(event.text, dict(event.state_delta)) for event in ended.delivered] == [
        ("***", {"k": 1})
    ]


def test_partial_events_are_looked_at_and_carry_no_writes() -> None:
    seen: list[tuple[str, bool, dict[str, Any]]] = []

    async def emit(ctx: InvocationContext) -> None:
        ctx.state["k"] = 1
        await ctx.emit(Event("pie", partial=True))
        await ctx.emit(Event("piece"))

    ended = run_looking(
        leaf("a", emit),
        lambda _ctx, event: seen.append((event.text, event.partial, dict(event.state_delta))),
    )
    assert seen == [("pie", True, {}), ("piece", False, {"k": 1})]
    assert deltas(ended.delivered) == [{"k": 1}]


def test_a_partial_event_that_is_dropped_keeps_the_writes_for_the_next() -> None:
    async def emit(ctx: InvocationContext) -> None:
        ctx.state["k"] = 1
        await ctx.emit(Event("pie", partial=True))
        await ctx.emit(Event("piece"))

    ended = run_looking(leaf("a", emit), at("pie", lambda _ctx, _event: DROP_EVENT))
    assert deltas(ended.delivered) == [{"k": 1}]


@pytest.mark.parametrize("before", [True, False], ids=["to whole", "to partial"])
def test_an_event_made_partial_or_whole_by_a_plugin_loses_no_writes(before: Any) -> None:
    def turn(_ctx: InvocationContext, event: Event) -> None:
        event.partial = not event.partial

    async def emit(ctx: InvocationContext) -> None:
        ctx.state["k"] = 1
        await ctx.emit(Event("turned", partial=before))

    ended = run_looking(leaf("a", emit, "said"), at("turned", turn))
    assert Counter(map(str, deltas(ended.delivered))) == {"{'k': 1}": 1}
    assert ended.result.state["k"] == 1


def test_what_the_runtime_records_itself_is_looked_at_as_well() -> None:
    seen: list[tuple[str, dict[str, Any], int]] = []

    def look(_ctx: InvocationContext, event: Event) -> None:
        seen.append((event.path, dict(event.state_delta), len(event.actions.outcomes)))

    run_looking(ParallelAgent("f", [leaf("a", writing(k=1))]), look)
    assert seen == [("f/a", {"k": 1}, 0), ("f", {}, 1)]


def test_outcomes_are_known_although_the_event_that_records_them_is_dropped() -> None:
    def drop(_ctx: InvocationContext, event: Event) -> Any:
        return DROP_EVENT if event.actions.outcomes else None

    ended = run_looking(ParallelAgent("f", [leaf("a", "said")]), drop)
    assert len(ended.delivered) == 1
    assert ended.outcomes("f") == {"a": "completed"}


def test_after_a_dropped_record_of_outcomes_everything_before_it_is_handed_out() -> None:
    """A cancelled branch's last event may be with the reader still; the next agent must see it."""
    seen: list[Any] = []
    fan_out = ParallelAgent("f", [leaf("a", writing(k=1), "late"), leaf("b", 0.5, BoomError("b"))])
    next_one = leaf("c", lambda ctx: seen.append(ctx.state.get("k")))

    async def both(ctx: InvocationContext) -> None:
        with pytest.raises(BoomError):
            await ctx.run_agent(fan_out)
        await ctx.run_agent(next_one)

    def drop(_ctx: InvocationContext, event: Event) -> Any:
        return DROP_EVENT if event.actions.outcomes else None

    ended = run_looking(leaf("both", both), drop, session_service=BatchingService(1))
    assert ended.outcomes("f") == {"a": "cancelled", "b": "failed"}
    assert seen == [1]


# ------------------------------------------------------------------------------------ state writes


def test_an_event_shows_pending_writes_and_its_own() -> None:
    seen: list[dict[str, Any]] = []

    async def emit(ctx: InvocationContext) -> None:
        ctx.state.update({"k": 1, "own": 1, "temp:t": 1})
        await ctx.emit(Event("said", actions=EventActions(state_delta={"own": 2})))

    run_looking(leaf("a", emit), lambda _ctx, event: seen.append(dict(event.state_delta)))
    assert seen == [{"k": 1, "own": 2, "temp:t": 1}]


def test_contributions_are_not_shown_and_not_lost() -> None:
    seen: list[dict[str, Any]] = []

    async def emit(ctx: InvocationContext) -> None:
        ctx.state.contribute("sum", 1)
        ctx.state.contribute("sum", 2)
        await ctx.emit(Event("said", actions=EventActions(state_delta={"sum": 4})))

    ended = run_looking(
        leaf("a", emit),
        lambda _ctx, event: seen.append(dict(event.state_delta)),
        reducers={"sum": "add"},
    )
    assert seen == [{"sum": 4}]
    assert ended.result.state["sum"] == 7


def change(**values: Any) -> Look:
    """Change the delta in place: ``...`` takes a key out."""

    def look(_ctx: InvocationContext, event: Event) -> None:
        delta = dict(event.state_delta)
        for key, value in values.items():
            if value is ...:
                delta.pop(key, None)
            else:
                delta[key] = value
        event.actions.state_delta = delta

    return look


@pytest.mark.parametrize("how", ["pending", "explicit"])
def test_a_write_can_be_changed_taken_out_and_added(how: str) -> None:
    async def emit(ctx: InvocationContext) -> None:
        values = {"changed": 1, "gone": 1, "kept": [1]}
        if how == "pending":
            ctx.state.update(values)
        explicit = values if how == "explicit" else {}
        await ctx.emit(Event("said", actions=EventActions(state_delta=explicit)))

    look = change(changed={"now": [2]}, gone=..., added=3)
    ended = run_looking(leaf("a", emit), look)
    wanted = {"changed": {"now": [2]}, "kept": [1], "added": 3}
    assert deltas(ended.delivered) == [wanted]
    assert dict(ended.result.state) == wanted


def test_the_agent_sees_what_a_plugin_made_of_its_writes() -> None:
    seen: list[dict[str, Any]] = []
    tree = leaf("a", writing(k=1, gone=1), "said", lambda ctx: seen.append(ctx.state.to_dict()))
    run_looking(tree, change(k=2, gone=...))
    assert seen == [{"k": 2}]


def test_a_write_that_another_hides_does_not_come_to_light_when_that_is_taken_out() -> None:
    async def emit(ctx: InvocationContext) -> None:
        ctx.state["k"] = "hidden"
        await ctx.emit(Event("said", actions=EventActions(state_delta={"k": "shown"})))

    ended = run_looking(leaf("a", emit, "more"), at("said", change(k=...)))
    assert dict(ended.result.state) == {}


def test_a_dropped_event_takes_all_it_carries_with_it() -> None:
    async def emit(ctx: InvocationContext) -> None:
        ctx.state.update({"k": 1, "hidden": 1, "temp:t": 1})
        ctx.state.contribute("sum", 1)
        delta = {"hidden": 2, "own": 1, "sum": 1}
        await ctx.emit(Event("noise", actions=EventActions(state_delta=delta)))
        assert ctx.state.to_dict() == {}

    ended = run_looking(
        leaf("a", emit, "said"),
        at("noise", lambda _ctx, _event: DROP_EVENT),
        reducers={"sum": "add"},
    )
    assert (deltas(ended.delivered), dict(ended.result.state)) == ([], {})


def test_a_replacement_writes_what_its_own_delta_says_and_nothing_else() -> None:
    def replace(_ctx: InvocationContext, event: Event) -> Event:
        delta = {key: value for key, value in event.state_delta.items() if key != "secret"}
        return Event("other", actions=EventActions(state_delta=delta))

    ended = run_looking(leaf("a", writing(k=1, secret=1), "said"), at("said", replace))
    assert deltas(ended.delivered) == [{"k": 1}]
    assert dict(ended.result.state) == {"k": 1}


@pytest.mark.parametrize("writes", [True, False], ids=["writing", "not writing"])
def test_the_actions_an_agent_uses_again_are_its_own_still(*, writes: bool) -> None:
    actions = EventActions(state_delta={"k": 1})

    def mark(_ctx: InvocationContext, event: Event) -> None:
        event.actions.state_delta = {**event.actions.state_delta, "marked": event.text}
        event.actions.escalate = True

    async def emit(ctx: InvocationContext) -> None:
        for text in ("one", "two"):
            if writes:
                ctx.state["pending"] = text
            await ctx.emit(Event(text, actions=actions))

    ended = run_looking(leaf("a", emit), mark)
    assert deltas(ended.delivered) == [
        {"k": 1, "marked": text} | ({"pending": text} if writes else {}) for text in ("one", "two")
    ]
    assert (dict(actions.state_delta), actions.escalate) == ({"k": 1}, False)


def test_writes_of_an_event_that_a_plugin_fails_on_go_with_the_next() -> None:
    @agent
    async def stubborn(ctx: InvocationContext) -> Yields:
        ctx.state["k"] = 1
        try:
            yield Event("bad", actions=EventActions(state_delta={"own": 1}))
        except PluginError:
            yield "said"

    ended = run_looking(stubborn, at("bad", lambda _ctx, _event: BoomError("hot")))
    assert [(event.text, dict(event.state_delta)) for event in ended.delivered] == [
        ("said", {"k": 1})
    ]


def test_an_event_that_a_plugin_fails_on_can_be_emitted_again() -> None:
    failures = iter([BoomError("hot"), None])

    async def emit(ctx: InvocationContext) -> None:
        event = Event("said", actions=EventActions(state_delta={"own": 1}))
        ctx.state["k"] = 1
        with pytest.raises(PluginError):
            await ctx.emit(event)
        assert (event.author, event.path, event.seq) == ("", "", None)
        ctx.state["k"] = 2
        assert await ctx.emit(event) is event

    ended = run_looking(leaf("a", emit), lambda _ctx, _event: next(failures))
    assert deltas(ended.delivered) == [{"own": 1, "k": 2}]


def test_what_another_task_writes_meanwhile_is_not_undone() -> None:
    async def look(_ctx: InvocationContext, event: Event) -> None:
        change(k="changed")(_ctx, event)
        await trio.sleep(2)

    async def emit(ctx: InvocationContext) -> None:
        async with trio.open_nursery() as nursery:
            ctx.state["k"] = 1
            nursery.start_soon(ctx.emit, "said")
            await trio.sleep(1)
            ctx.state["k"] = 2

    ended = run_looking(leaf("a", emit, "more"), at("said", look))
    assert ended.result.state["k"] == 2


# ------------------------------------------------------------------------ withdrawn, and in a hurry


def expiring(*, again: bool) -> Agent:
    """Emits under a timeout while the reader is busy: withdrawn, and perhaps emitted again."""

    @agent(name="a")
    async def run(ctx: InvocationContext) -> Yields:
        yield "first"  # the reader is busy with it now
        ctx.state["k"] = 1
        event = Event("withdrawn", actions=EventActions(state_delta={"own": 1}))
        with trio.move_on_after(1):
            yield "beside"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ctx.emit, "keeps the reader busy")
            await trio.sleep(1)
            ctx.state["k"] = 2
            with trio.move_on_after(1) as limit:
                await ctx.emit(event)
            assert limit.cancelled_caught
            assert event.seq is None
            if again:
                assert await ctx.emit(event) is event
                assert event.seq is not None

    return run


@pytest.mark.parametrize("again", [True, False], ids=["again", "not again"])
def test_writes_of_a_withdrawn_event_come_back_exactly_once(again: bool) -> None:  # noqa: FBT001  # as pytest passes it
    without = run_looking(expiring(again=again), pause=5)
    seen: Diary = []
    ended = run_looking(
        expiring(again=again),
        lambda _ctx, event: seen.append(f"{event.author}: {event.text}"),
        pause=5,
    )
    assert [(one.text, dict(one.state_delta)) for one in ended.delivered] == [
        (one.text, dict(one.state_delta)) for one in without.delivered
    ]
    assert sum(delta.get("k") == 2 for delta in deltas(ended.delivered)) == 1
    assert seen.count("a: withdrawn") == (2 if again else 1)


def retold(_ctx: InvocationContext, event: Event) -> None:
    event.content = Content(f"{event.text}!")


def worth(_ctx: InvocationContext, event: Event) -> None:
    event.output = 7


def urge(_ctx: InvocationContext, event: Event) -> None:
    event.actions.escalate = True


def halve(_ctx: InvocationContext, event: Event) -> None:
    event.partial = True


@pytest.mark.parametrize(
    ("look", "said", "output", "delta", "partial", "escalates"),
    [
        (retold, "said!", None, {"own": 1, "k": 1}, False, False),
        (worth, "said", 7, {"own": 1, "k": 1}, False, False),
        (urge, "said", None, {"own": 1, "k": 1}, False, True),
        (halve, "said", None, {"own": 1}, True, False),
        (change(own=True), "said", None, {"own": True, "k": 1}, False, False),
        (change(k=2), "said", None, {"own": 1, "k": 2}, False, False),
    ],
    ids=["content", "output", "escalate", "partial", "own delta", "pending write"],
)
def test_an_event_that_was_withdrawn_can_be_changed_like_any_other(
    look: Look, said: str, output: Any, delta: dict[str, Any], *, partial: bool, escalates: bool
) -> None:
    again = False

    async def emit(ctx: InvocationContext) -> None:
        nonlocal again
        event = Event("said", actions=EventActions(state_delta={"own": 1}))
        await ctx.emit("first")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ctx.emit, "keeps the reader busy")
            await trio.sleep(1)
            with trio.move_on_after(1):
                await ctx.emit(event)
            ctx.state["k"] = 1
            again = True
            await ctx.emit(event)

    ended = run_looking(
        leaf("a", emit), lambda ctx, event: look(ctx, event) if again else None, pause=5
    )
    (found,) = (event for event in ended.delivered if event.text == said)
    assert (found.output, found.partial, found.escalate) == (output, partial, escalates)
    assert repr(sorted(found.state_delta.items())) == repr(sorted(delta.items()))  # 1 is not True


def test_a_loop_whose_every_event_is_dropped_lets_others_run_and_can_be_cancelled() -> None:
    @agent
    async def noisy(ctx: InvocationContext) -> Yields:
        while True:
            yield "noise"

    tree = ParallelAgent("f", [noisy, leaf("b", "said")])
    runner = Runner(tree, plugins=[Looking(at("noise", lambda _ctx, _event: DROP_EVENT))])

    async def main() -> tuple[Diary, Status]:
        got: Diary = []
        async with runner.open("hi") as run:
            async for event in run:
                got.append(event.text)
                break
        return got, run.result.status

    assert trio.run(main) == (["said"], Status.CANCELLED)


def test_tasks_of_one_agent_are_recorded_in_the_order_of_their_calls() -> None:
    async def slow(_ctx: InvocationContext, event: Event) -> None:
        await trio.sleep(5 - int(event.text))  # the first is the slowest

    async def emit(ctx: InvocationContext) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(ctx.emit, str(number))
                await trio.sleep(0.1)

    ended = run_looking(leaf("a", emit), slow)
    assert texts(ended.delivered) == ["0", "1", "2", "3", "4"]


def test_another_branch_does_not_wait_for_a_plugin_that_looks_at_an_event() -> None:
    tree = ParallelAgent("f", [leaf("a", "slow"), leaf("b", 1, "one", "two")])
    ended = run_looking(tree, at("slow", dawdle))
    assert texts(ended.delivered) == ["one", "two", "slow"]


def test_nothing_is_kept_of_agents_that_have_ended() -> None:
    runner = Runner(leaf("a", "one", "two"), plugins=[Looking(dawdle)])
    assert run_tree(runner).error is None
    assert runner._setup.plugins._turns == {}


def test_an_event_that_waits_for_its_turn_can_be_cancelled() -> None:
    times: list[float] = []

    async def emit(ctx: InvocationContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ctx.emit, "first")
            await trio.sleep(1)
            with trio.move_on_after(1):
                await ctx.emit("second")
            times.append(trio.current_time())
            await ctx.emit("third")

    ended = run_looking(leaf("a", emit), dawdle)
    assert times == [2]
    assert texts(ended.delivered) == ["first", "third"]
    assert ended.time == 10


# ------------------------------------------------------------------------------ what is not allowed


@pytest.mark.parametrize("busy", ["with another", "with it"])
def test_one_event_that_two_tasks_emit_is_the_agents_mistake_not_the_plugins(busy: str) -> None:
    caught: list[BaseException] = []

    async def emit(ctx: InvocationContext) -> None:
        event = Event("said")
        async with trio.open_nursery() as nursery:
            if busy == "with another":
                nursery.start_soon(ctx.emit, "something else")
                await trio.sleep(1)
            nursery.start_soon(ctx.emit, event)
            await trio.sleep(1)
            with pytest.raises(EmitError, match=r"was emitted already.*make a new event") as raised:
                await ctx.emit(event)
            caught.append(raised.value)

    ended = run_looking(leaf("a", emit), dawdle)
    assert texts(ended.delivered).count("said") == 1
    assert len(caught) == 1


def test_a_plugin_that_seals_the_event_is_refused() -> None:
    ended = run_to_any_end(leaf("a", "said"), lambda _ctx, event: event.seal())
    assert isinstance(ended.error, PluginError)
    assert (ended.error.plugin, ended.error.hook) == ("p0", "on_event_callback")


@pytest.mark.parametrize("what", [7, "text", Content("x"), False, EventActions()], ids=repr)
def test_an_answer_that_is_no_event_names_plugin_and_hook(what: Any) -> None:
    ended = run_to_any_end(leaf("a", "said"), lambda _ctx, _event: what)
    assert isinstance(ended.error, PluginError)
    assert (ended.error.plugin, ended.error.hook) == ("p0", "on_event_callback")
    assert f"it returned {what!r:.80}; an event or DROP_EVENT is needed" in str(ended.error)
    assert ended.delivered == []


def test_an_event_that_was_emitted_before_is_refused() -> None:
    same = Event("same")
    ended = run_to_any_end(leaf("a", "one", "two"), lambda _ctx, _event: same)
    assert texts(ended.delivered) == ["same"]
    assert isinstance(ended.error, PluginError)
    assert "an event that was not emitted before is needed" in str(ended.error)


def test_a_replacement_that_cannot_be_stored_names_the_plugin_that_made_it() -> None:
    ended = run_to_any_end(
        leaf("a", "said"),
        lambda _ctx, _event: Event(output=object()),
        lambda _ctx, _event: None,
    )
    assert isinstance(ended.error, PluginError)
    assert ended.error.plugin == "p0"


@pytest.mark.parametrize("field", ["content", "state"])
def test_what_cannot_be_stored_after_plugins_have_looked_says_so_in_a_note(field: str) -> None:
    def spoil(_ctx: InvocationContext, event: Event) -> None:
        if field == "content":
            event.content = 7  # type: ignore[assignment]  # what it must not do
        else:
            event.actions.state_delta = {"k": object()}

    ended = run_to_any_end(leaf("a", writing(k=1), "said"), spoil, lambda _ctx, _event: None)
    assert isinstance(ended.error, UnstorableError)
    assert "the event had passed the plugins p0, p1" in ended.notes


def test_a_changed_write_that_does_not_fit_the_schema_says_so_in_a_note_and_changes_nothing() -> (
    None
):
    @attrs.frozen
    class Board:
        k: int
        gone: int

    async def emit(ctx: InvocationContext) -> None:
        ctx.state.update({"gone": 1, "k": 1})
        with pytest.raises(SchemaError) as raised:
            await ctx.emit("bad")
        assert raised.value.__notes__ == ["the event had passed the plugins p0"]

    look = at("bad", change(k="no number", gone=...))
    ended = run_looking(leaf("a", emit, "said"), look, state_schema=Board)
    assert deltas(ended.delivered) == [{"k": 1, "gone": 1}]


def test_actions_that_are_none_are_refused() -> None:
    def spoil(_ctx: InvocationContext, event: Event) -> None:
        event.actions = "nothing"  # type: ignore[assignment]  # what it must not do

    ended = run_to_any_end(leaf("a", "said"), spoil)
    assert isinstance(ended.error, PluginError)
    assert "EventActions with a mapping as state_delta is needed" in str(ended.error)


def test_actions_of_the_agents_that_are_none_are_its_own_mistake() -> None:
    async def emit(ctx: InvocationContext) -> None:
        await ctx.emit(Event("said", actions="nothing"))  # type: ignore[arg-type]  # likewise

    ended = run_to_any_end(leaf("a", emit), lambda _ctx, _event: None)
    assert isinstance(ended.error, UnstorableError)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"error_code": 5}, "error_code: text is needed, not a int"),
        ({"actions": EventActions(state_delta={5: 1})}, "actions.state_delta"),  # type: ignore[dict-item]  # wrong
        ({"actions": EventActions(artifact_delta=None)}, "actions.artifact_delta"),  # type: ignore[arg-type]  # wrong
    ],
    ids=["code", "key", "artifacts"],
)
def test_a_plugin_that_stumbles_over_an_agents_mistake_is_not_blamed(
    wrong: dict[str, Any], message: str
) -> None:
    def look(_ctx: InvocationContext, event: Event) -> None:
        len(event.error_code or "")
        [len(name) for name in event.actions.state_delta]
        len(event.actions.artifact_delta)

    async def emit(ctx: InvocationContext) -> None:
        await ctx.emit(Event("said", **wrong))

    ended = run_to_any_end(leaf("a", emit), look)
    assert isinstance(ended.error, UnstorableError)
    assert str(ended.error).startswith(message)


@pytest.mark.parametrize("through", ["itself", "a task", "an agent"])
def test_to_emit_while_looking_is_refused_and_does_not_hang(through: str) -> None:
    async def chat(ctx: InvocationContext, _event: Event) -> None:
        if through == "itself":
            await ctx.emit("more")
        elif through == "an agent":
            await ctx.run_agent(leaf("b", "more"))
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ctx.emit, "more")

    ended = run_to_any_end(leaf("a", "said"), chat)
    assert isinstance(ended.error, PluginError)
    assert "on_event_callback must not emit" in str(ended.error)
    assert ended.delivered == []


def test_what_a_plugin_has_started_may_emit_when_it_has_done_looking() -> None:
    """A task of the application's, say, that tells of what was seen."""

    async def main() -> Ended:
        async with trio.open_nursery() as nursery:

            async def later(ctx: InvocationContext) -> None:
                await trio.sleep(1)
                await ctx.emit("by the way")

            def look(ctx: InvocationContext, _event: Event) -> None:
                nursery.start_soon(later, ctx)

            runner = Runner(leaf("a", "said", 2), plugins=[Looking(at("said", look))])
            return await open_and_read(runner)

    assert texts(run_virtual(main).delivered) == ["said", "by the way"]


def test_a_plugin_may_run_another_runner_while_it_looks() -> None:
    other = Runner(leaf("b", "summary"), plugins=[Looking(lambda _ctx, _event: None)])

    async def sum_up(_ctx: InvocationContext, event: Event) -> Event:
        return Event((await other.run(event.text)).text)

    ended = run_looking(leaf("a", "said"), sum_up)
    assert texts(ended.delivered) == ["summary"]


# --------------------------------------------------------------- a plugin that does nothing


class Idle(Plugin):
    """Overrides everything and does nothing."""

    async def on_user_message_callback(self, ctx: InvocationContext, content: Content) -> None: ...
    async def before_run_callback(self, ctx: InvocationContext) -> None: ...
    async def after_run_callback(self, ctx: InvocationContext, result: Result) -> None: ...
    async def on_event_callback(self, ctx: InvocationContext, event: Event) -> None: ...
    async def before_agent_callback(self, ctx: InvocationContext) -> None: ...
    async def after_agent_callback(self, ctx: InvocationContext) -> None: ...
    async def on_agent_error_callback(self, ctx: InvocationContext, error: Exception) -> None: ...
    def on_agent_end(self, ctx: InvocationContext, outcome: Outcome) -> None: ...


def perform_with(case: Case, *plugins: Plugin) -> Report:
    """`perform`, with plugins."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "Runner", functools.partial(Runner, plugins=plugins))
        return perform(case)


def account(report: Report) -> list[Any]:
    """All that a case comes to, as far as it can be compared with another run of it."""
    codec = Codec()
    error = report.error
    invocation = report.run.invocation_id

    def stored(event: Event) -> str:
        return codec.dumps(event).replace(invocation, "")

    return [
        [stored(event) for event in report.events],
        [stored(event) for event in report.delivered],
        report.stored.state,
        dict(report.seen_live),
        (report.result.status, report.result.text, report.result.output),
        re.sub("0x[0-9a-f]+", "", report.result.reason or ""),
        dict(report.result.outputs),
        attrs.evolve(report.statistics),
        (type(error), str(error), getattr(error, "__notes__", None)),
        Counter(type(entry).__name__ for entry in report.notebook.entries),
        observed(report).looks,
        report.left_behind,
    ]


@fewer(2)
@given(kept_cases())
def test_a_plugin_that_does_nothing_changes_nothing(case: Case) -> None:
    assert account(perform_with(case, Idle())) == account(perform(case))


@fewer(2)
@given(cases(trees(Allowed(background=False))))
def test_with_a_plugin_that_does_nothing_every_law_holds(case: Case) -> None:
    """At any schedule, where no two runs can be compared."""
    laws.hold(perform_with(case, Idle()))


def test_a_plugin_that_changes_a_little_is_found_out() -> None:
    case = Case(Fan("f", [Leaf("a", [Pause(), Emit({"x": 1})])]), kept=True)

    def nudge(_ctx: InvocationContext, event: Event) -> None:
        if event.text:
            event.actions.state_delta = {**event.actions.state_delta, "x": True}

    assert account(perform_with(case, Looking(nudge))) != account(perform(case))


class Counting(Idle):
    """Counts, by path, what began and what ended."""

    def __init__(self) -> None:
        super().__init__()
        self.began: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.runs: list[Status] = []

    async def before_agent_callback(self, ctx: InvocationContext) -> None:
        self.began[ctx.path] += 1

    def on_agent_end(self, ctx: InvocationContext, outcome: Outcome) -> None:
        assert (ctx.path, ctx.agent.name) == (outcome.path, outcome.name)
        assert not self.runs
        self.ended[ctx.path] += 1
        self.statuses[str(outcome.status)] += 1

    async def after_run_callback(self, ctx: InvocationContext, result: Result) -> None:
        assert ctx.invocation_id == result.invocation_id
        self.runs.append(result.status)


@fewer(2)
@given(cases())
def test_whatever_happens_everyone_that_began_is_told_of_once_and_the_run_last(case: Case) -> None:
    counting = Counting()
    report = perform_with(case, counting)
    assert counting.ended == counting.began
    assert set(counting.ended.values()) <= {1}
    assert counting.runs == [report.result.status]
    statistics = report.statistics
    assert counting.statuses["completed"] == statistics.completed
    assert counting.statuses["failed"] == statistics.failed
    assert counting.statuses["cancelled"] <= statistics.cancelled  # those that never began
    assert sum(counting.statuses.values()) <= statistics.started


SPEECH = Allowed(kept=True, state=False, reducers=False, outputs=False, escalations=False)


@fewer(2)
@given(kept_cases(trees(SPEECH)), st.data())
def test_what_is_dropped_is_missing_and_all_else_is_as_it_was(
    case: Case, data: st.DataObject
) -> None:
    case = attrs.evolve(case, reader=Reader())
    plain = perform(case)
    said = sorted({event.text for event in plain.delivered if event.text})
    noise = data.draw(st.sets(st.sampled_from(said))) if said else set[str]()
    silenced = perform_with(
        case, Looking(lambda _ctx, event: DROP_EVENT if event.text in noise else None)
    )
    left = [event.text for event in plain.delivered if event.text not in noise]
    assert [event.text for event in silenced.delivered] == left
    assert silenced.statistics.completed == plain.statistics.completed
    assert silenced.statistics.failed == plain.statistics.failed
    assert str(silenced.error) == str(plain.error)


REDACTED = ("x", "user:y")


@fewer(2)
@given(cases(trees(Allowed(background=False))))
def test_no_write_gets_past_a_plugin_that_takes_it_out(case: Case) -> None:
    redact = Looking(change(**dict.fromkeys(REDACTED, ...)))
    report = perform_with(case, redact)
    assert not [event for event in report.events if event.state_delta.keys() & set(REDACTED)]
    assert {key: report.stored.state[key] for key in REDACTED} == {"x": 0, "user:y": "u"}
