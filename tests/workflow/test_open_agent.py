"""Reading a child's events before they count: ``async with ctx.open_agent(child) as events``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal, TypeAlias

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    DROP_EVENT,
    Agent,
    AgentTimeoutError,
    ChildEvents,
    DropEvent,
    EmitError,
    Event,
    EventActions,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Plugin,
    Retry,
    RunConfig,
    Runner,
    SequentialAgent,
    StateConflictError,
    Status,
    TransferError,
    TreeError,
    agent,
)
from parallel_agent.errors import ReadError
from session import fold
from tests.support.drawing import Allowed, fewer, kept_cases, trees
from tests.support.recording import Looked, Recorder
from tests.support.running import REDUCERS, START, Case, Reader, _read
from tests.support.scripts import Emit, Pause, build, lanes_of
from tests.support.scripts import Leaf as ScriptedLeaf
from tests.support.timing import Kept, clock_with_horizon
from tests.workflow.trees import (
    Diary,
    Ended,
    Escalate,
    Yields,
    leaf,
    open_and_read,
    run_tree,
    run_virtual,
    texts,
)

Wanted: TypeAlias = Callable[[Event], bool]


def editor(child: Agent, wanted: Wanted = lambda _event: True, name: str = "editor") -> Agent:
    """An agent that passes on what is wanted, and nothing else."""

    @agent(name=name)
    async def run(ctx: InvocationContext) -> Yields:
        async with ctx.open_agent(child) as events:
            async for event in events:
                if wanted(event):
                    yield event

    return run


def doing(body: Callable[[InvocationContext], Awaitable[Any]], name: str = "editor") -> Agent:
    @agent(name=name)
    async def run(ctx: InvocationContext) -> Any:
        return await body(ctx)

    return run


async def read(events: ChildEvents) -> list[str]:
    """Drop everything; return the texts."""
    return [event.text async for event in events]


def write(key: str, value: Any) -> Callable[[InvocationContext], None]:
    def writing(ctx: InvocationContext) -> None:
        ctx.state[key] = value

    return writing


def rows(ended: Ended) -> list[tuple[str, str, dict[str, Any]]]:
    return [(event.path, event.text, dict(event.state_delta)) for event in ended.result.events]


# ------------------------------------------------------------------------- passing on, dropping


def test_what_is_passed_on_is_the_childs_and_not_the_editors() -> None:
    ended = run_tree(editor(leaf("child", write("k", 1), "one", "two")))
    assert rows(ended) == [("editor/child@1", "one", {"k": 1}), ("editor/child@1", "two", {})]
    assert ended.delivered == list(ended.result.events)


def test_what_is_not_passed_on_is_neither_recorded_nor_delivered() -> None:
    child = leaf("child", "one", "two", "three")
    ended = run_tree(editor(child, lambda event: event.text != "two"))
    assert texts(ended.delivered) == ["one", "three"]
    assert texts(ended.result.events) == ["one", "three"]


def test_going_on_to_the_next_drops_and_so_does_asking_for_it() -> None:
    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_agent(leaf("child", "one", "two", "three")) as events:
            first = await events.receive()
            events.drop(first)
            assert (await anext(events)).text == "two"
            assert (await anext(events)).text == "three"
            return await read(events)

    assert rows(run_tree(doing(body))) == [("editor", "", {})]


def test_writes_that_came_with_a_dropped_event_are_forgotten() -> None:
    seen: list[Any] = []

    def look(ctx: InvocationContext) -> None:
        seen.append(ctx.state.get("k"))

    child = leaf("child", write("k", 1), "one", look, write("k", 2), "two", look)
    ended = run_tree(editor(child, lambda event: event.text == "two"))
    assert rows(ended) == [("editor/child@1", "two", {"k": 2})]
    assert seen == [None, 2]

    seen.clear()
    ended = run_tree(editor(child, lambda event: event.text == "one"))
    assert rows(ended) == [("editor/child@1", "one", {"k": 1})]
    assert seen == [1, 1]


def test_writes_given_with_a_dropped_event_are_forgotten_too() -> None:
    event = Event("one", actions=EventActions(state_delta={"k": 1, "temp:t": 2}))

    @agent
    async def child(ctx: InvocationContext) -> Yields:
        yield event
        assert "k" not in ctx.state
        assert "temp:t" not in ctx.state

    assert dict(run_tree(editor(child, lambda _event: False)).result.state) == {}


def test_contributions_that_came_with_a_dropped_event_are_forgotten() -> None:
    def add(ctx: InvocationContext) -> None:
        ctx.state.contribute("sum", 1)

    child = leaf("child", add, "one", add, "two", add, add)
    tree = editor(child, lambda event: event.text != "one")
    ended = run_tree(Runner(tree, reducers={"sum": "add"}))
    assert ended.result.state["sum"] == 3


def test_a_write_by_another_task_since_then_is_not_forgotten() -> None:
    @agent
    async def child(ctx: InvocationContext) -> None:
        async def beside() -> None:
            await trio.sleep(1)
            ctx.state["other"] = 2
            ctx.state.contribute("sum", 10)

        ctx.state["own"] = 1
        ctx.state.contribute("sum", 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beside)
            await ctx.emit("dropped")

    async def first_dropped(ctx: InvocationContext) -> None:
        async with ctx.open_agent(child) as events:
            first = await anext(events)
            await trio.sleep(2)
            async for event in events:
                assert event is not first
                await ctx.emit(event)

    ended = run_tree(Runner(doing(first_dropped), reducers={"sum": "add"}))
    assert dict(ended.result.state) == {"other": 2, "sum": 10}


def test_a_dropped_partial_event_takes_no_writes_with_it() -> None:
    child = leaf("child", write("k", 1), lambda ctx: ctx.emit(Event("pa", partial=True)), "whole")
    ended = run_tree(editor(child, lambda event: not event.partial))
    assert rows(ended) == [("editor/child@1", "whole", {"k": 1})]


def test_partial_events_are_passed_on_and_not_recorded() -> None:
    child = leaf("child", lambda ctx: ctx.emit(Event("pa", partial=True)), "whole")
    ended = run_tree(editor(child))
    assert [event.text for event in ended.delivered] == ["pa", "whole"]
    assert texts(ended.result.events) == ["whole"]


def test_the_last_writes_come_with_an_event_of_their_own_which_may_be_dropped() -> None:
    ended = run_tree(editor(leaf("child", "one", write("k", 1))))
    assert rows(ended) == [("editor/child@1", "one", {}), ("editor/child@1", "", {"k": 1})]
    ended = run_tree(editor(leaf("child", "one", write("k", 1)), lambda event: bool(event.text)))
    assert rows(ended) == [("editor/child@1", "one", {})]
    assert dict(ended.result.state) == {}


def test_the_editor_has_a_say_and_state_of_its_own() -> None:
    @agent
    async def run(ctx: InvocationContext) -> Yields:
        ctx.state["before"] = 1
        async with ctx.open_agent(leaf("child", "one", "two")) as events:
            async for event in events:
                ctx.state["count"] = ctx.state.get("count", 0) + 1
                yield f"about {event.text}"
                yield event
        yield "after"

    assert rows(run_tree(run)) == [
        ("run", "", {"before": 1}),
        ("run", "about one", {"count": 1}),
        ("run/child@1", "one", {}),
        ("run", "about two", {"count": 2}),
        ("run/child@1", "two", {}),
        ("run", "after", {}),
    ]


def test_the_child_goes_on_when_the_reader_has_come_back_for_what_was_passed_on() -> None:
    diary: Diary = []

    def note(what: str) -> Callable[[object], None]:
        def noting(ctx: object) -> None:
            diary.append(f"{what} at {trio.current_time() - began}")

        return noting

    began = run_virtual(_now)
    child = leaf("child", "passed", note("passed"), "dropped", note("dropped"))
    run_tree(editor(child, lambda event: event.text == "passed"), pause=5)
    assert diary == ["passed at 5.0", "dropped at 5.0"]


async def _now() -> float:
    return trio.current_time()


def test_passing_on_returns_when_the_reader_has_come_back() -> None:
    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_agent(leaf("child", "one", 3)) as events:
            event = await anext(events)
            began = trio.current_time()
            assert event.seq is None
            assert await ctx.emit(event) is event
            return [trio.current_time() - began, event.seq]

    assert run_tree(doing(body), pause=5).result.output == [5.0, 2]


# ------------------------------------------------------------------------------------- holding


def test_events_of_several_branches_may_be_passed_on_in_another_order() -> None:
    @agent
    async def run(ctx: InvocationContext) -> Yields:
        child = ParallelAgent("p", [leaf(name, number, name) for number, name in enumerate("abc")])
        async with ctx.open_agent(child) as events:
            held = [await events.receive() for _ in range(3)]
            for event in reversed(held):
                yield event
            async for event in events:
                yield event

    ended = run_tree(run)
    assert texts(ended.delivered) == ["c", "b", "a"]
    assert [event.seq for event in ended.result.events] == [2, 3, 4, 5]


def test_while_one_branch_is_held_the_others_go_on() -> None:
    @agent
    async def run(ctx: InvocationContext) -> Yields:
        child = ParallelAgent("p", [leaf("held", "h1", "h2"), leaf("free", 1, "f1", 1, "f2", 1)])
        async with ctx.open_agent(child) as events:
            first = await events.receive()
            for _ in range(2):
                yield await events.receive()
            yield first
            async for event in events:
                yield event

    assert texts(run_tree(run).delivered) == ["f1", "f2", "h1", "h2"]


def test_branches_are_recorded_on_their_own_branch_whoever_passes_them_on() -> None:
    child = ParallelAgent("p", [leaf("a", "x"), leaf("b", "x")])
    ended = run_tree(editor(child))
    assert {event.branch for event in ended.delivered if event.text} == {"p.a", "p.b"}


def test_what_is_held_when_the_block_ends_is_dropped() -> None:
    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_agent(leaf("child", write("k", 1), "one", "two")) as events:
            await events.receive()

    ended = run_tree(doing(body))
    assert ended.result.events == ()
    assert ended.error is None


def test_after_the_child_has_ended_there_is_nothing_to_receive() -> None:
    async def body(ctx: InvocationContext) -> str:
        async with ctx.open_agent(leaf("child", "one")) as events:
            await ctx.emit(await events.receive())
            with pytest.raises(ReadError, match="agent 'child' has ended"):
                await events.receive()
            assert await read(events) == []
        return "told"

    assert run_tree(doing(body)).result.text == "told"


# ------------------------------------------------------------------------------------- misuse


def test_passing_on_twice_is_an_error() -> None:
    async def body(ctx: InvocationContext) -> str:
        async with ctx.open_agent(leaf("child", "one", "two")) as events:
            async for event in events:
                await ctx.emit(event)
                with pytest.raises(EmitError, match="was emitted already"):
                    await ctx.emit(event)
                with pytest.raises(ReadError, match="was passed on, or dropped"):
                    events.drop(event)
        return "refused"

    ended = run_tree(doing(body))
    assert texts(ended.delivered) == ["one", "two", "refused"]


def test_passing_on_twice_at_once_is_an_error() -> None:
    refused: list[str] = []

    async def body(ctx: InvocationContext) -> None:
        async def pass_on(event: Event) -> None:
            try:
                await ctx.emit(event)
            except EmitError as exc:
                refused.append(str(exc))

        async with ctx.open_agent(leaf("child", "one")) as events:
            async for event in events:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pass_on, event)
                    nursery.start_soon(pass_on, event)

    ended = run_tree(doing(body))
    assert texts(ended.delivered) == ["one"]
    assert len(refused) == 1


def test_passing_on_what_was_dropped_is_an_error() -> None:
    async def body(ctx: InvocationContext) -> str:
        async with ctx.open_agent(leaf("child", "one", "two")) as events:
            first = await anext(events)
            events.drop(first)
            with pytest.raises(EmitError, match="or dropped"):
                await ctx.emit(first)
            second = await anext(events)
            assert await read(events) == []
            with pytest.raises(EmitError, match="or dropped"):
                await ctx.emit(second)
            with pytest.raises(ReadError, match="was passed on, or dropped"):
                events.drop(second)
        with pytest.raises(EmitError, match="or dropped"):
            await ctx.emit(first)
        return "refused"

    assert texts(run_tree(doing(body)).delivered) == ["refused"]


@pytest.mark.parametrize("received", ["by receive", "by iteration"])
def test_what_is_kept_beyond_the_block_is_dropped_and_does_not_become_the_editors(
    received: str,
) -> None:
    """The child waits for the event when the block ends, and is cancelled."""

    @agent
    async def run(ctx: InvocationContext) -> Yields:
        async with ctx.open_agent(leaf("child", write("k", 1), "kept", "never")) as events:
            event = await (events.receive() if received == "by receive" else anext(events))
        with pytest.raises(EmitError, match="was emitted already, or dropped"):
            await ctx.emit(event)
        with pytest.raises(EmitError, match="was emitted already, or dropped"):
            yield event

    ended = run_tree(run)
    assert (ended.error, ended.delivered, dict(ended.result.state)) == (None, [], {})


def test_what_an_editor_keeps_beyond_its_block_does_not_become_the_editors_around_it() -> None:
    kept: list[Event] = []

    async def inner(ctx: InvocationContext) -> None:
        async with ctx.open_agent(leaf("child", "kept")) as events:
            kept.append(await events.receive())

    async def outer(ctx: InvocationContext) -> str:
        async with ctx.open_agent(doing(inner, "inner")) as events:
            await read(events)
            await ctx.emit(kept[0])  # whether it came by here before it was withdrawn, nobody knows
        assert kept[0].seq is None
        with pytest.raises(EmitError, match="was emitted already, or dropped"):
            await ctx.emit(kept[0])
        return "refused"

    assert texts(run_tree(doing(outer)).delivered) == ["refused"]


def test_what_its_agent_has_withdrawn_inside_the_block_is_refused_after_it() -> None:
    @agent
    async def child(ctx: InvocationContext) -> Yields:
        with trio.move_on_after(1):
            yield "given up"

    async def body(ctx: InvocationContext) -> str:
        async with ctx.open_agent(child) as events:
            event = await events.receive()
            await trio.sleep(3)
        with pytest.raises(EmitError, match="was emitted already, or dropped"):
            await ctx.emit(event)
        return "refused"

    assert texts(run_tree(doing(body)).delivered) == ["refused"]


def test_somebody_elses_event_cannot_be_passed_on() -> None:
    async def body(ctx: InvocationContext) -> str:
        with pytest.raises(EmitError, match="was emitted already"):
            await ctx.emit(ctx.history()[0])
        async with ctx.open_agent(leaf("child", "one")) as events:
            with pytest.raises(EmitError, match="was emitted already"):
                await ctx.emit(ctx.history()[0])
            await read(events)
        return "refused"

    assert texts(run_tree(doing(body)).delivered) == ["refused"]


def test_a_block_is_entered_once() -> None:
    async def body(ctx: InvocationContext) -> str:
        block = ctx.open_agent(leaf("child", "one"))
        async with block as events:
            with pytest.raises(ReadError, match="was entered already"):
                await block.__aenter__()
            await read(events)
        with pytest.raises(ReadError, match="was entered already"):
            async with block:
                pass
        return "refused"

    assert run_tree(doing(body)).result.text == "refused"


def _in_a_plain_with(block: Any) -> None:
    with block:
        pass


async def _awaited(block: Any) -> None:
    await block


async def _iterated_over(block: Any) -> None:
    async for _ in block:
        pass


@pytest.mark.parametrize(
    "use",
    [
        lambda block: block.receive(),
        lambda block: block.drop(Event()),
        lambda block: block.output,
        _in_a_plain_with,
        _awaited,
        _iterated_over,
    ],
)
def test_using_it_without_its_block_says_how_to_open_one(
    use: Callable[[Any], Awaitable[None] | None],
) -> None:
    async def misuse(block: Any) -> None:
        result = use(block)
        if result is not None:
            await result

    @agent
    async def forgets(ctx: InvocationContext) -> str:
        with pytest.raises(ReadError) as refused:
            await misuse(ctx.open_agent(leaf("child", "x")))
        with pytest.raises(AttributeError, match="'OpenAgent' object has no attribute 'received'"):
            ctx.open_agent(leaf("child", "x")).received  # type: ignore[attr-defined]  # noqa: B018  # on purpose
        return str(refused.value)

    ended = run_tree(forgets)
    assert "`async with ctx.open_agent(agent, input) as events:`" in ended.result.text


def test_a_block_that_is_never_entered_runs_nothing() -> None:
    diary: Diary = []

    def body(ctx: InvocationContext) -> None:
        ctx.open_agent(leaf("child", "one", diary=diary))

    run_tree(leaf("editor", body))
    assert diary == []


@pytest.mark.parametrize("what", [None, "child", len, Agent])
def test_what_is_no_agent_is_refused(what: Any) -> None:
    async def body(ctx: InvocationContext) -> str:
        with pytest.raises(TreeError, match="open_agent\\(\\) was given is no agent"):
            ctx.open_agent(what)
        return "refused"

    assert run_tree(doing(body)).result.text == "refused"


def test_a_context_whose_agent_has_ended_opens_nothing() -> None:
    kept: list[Any] = []

    def keep(ctx: InvocationContext) -> None:
        kept.extend([ctx, ctx.open_agent(leaf("child", "one"))])

    async def late(ctx: InvocationContext) -> str:
        with pytest.raises(RuntimeError, match="has ended"):
            kept[0].open_agent(leaf("child", "one"))
        with pytest.raises(RuntimeError, match="has ended"):
            await kept[1].__aenter__()
        return "refused"

    tree = SequentialAgent("s", [leaf("first", keep), doing(late)])
    assert run_tree(tree).result.text == "refused"


# ------------------------------------------------------------------------------------- outputs


def test_the_output_is_there_when_the_child_has_ended() -> None:
    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_agent(leaf("child", "one", "two")) as events:
            before = events.output
            async for event in events:
                await ctx.emit(event)
            return [before, events.output]

    assert run_tree(doing(body)).result.output == [None, "two"]


def test_a_dropped_output_is_nobodys_output() -> None:
    child = leaf("child", "one", "two").with_options(output_key="said")

    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_agent(child) as events:
            async for event in events:
                if event.text != "two":
                    await ctx.emit(event)
            return events.output

    ended = run_tree(doing(body))
    assert ended.result.output == "one"
    assert dict(ended.result.state) == {"said": "one"}


def test_a_returned_value_is_an_event_like_any_other() -> None:
    @agent(output_key="said")
    async def child(ctx: InvocationContext) -> int:
        return 42

    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_agent(child) as events:
            (event,) = [event async for event in events]
            return [event.output, events.output]

    ended = run_tree(doing(body))
    assert ended.result.output == [42, None]
    assert dict(ended.result.state) == {}


# --------------------------------------------------------------------------- a tap below a tap


def test_what_one_editor_passes_on_the_editor_above_it_sees() -> None:
    child = leaf("child", "a", "b", "c", "d")
    inner = editor(child, lambda event: event.text in "abc", name="inner")
    ended = run_tree(editor(inner, lambda event: event.text in "bcd", name="outer"))
    assert rows(ended) == [
        ("outer/inner@1/child@1", "b", {}),
        ("outer/inner@1/child@1", "c", {}),
    ]


def test_what_the_outer_editor_drops_is_rolled_back_for_the_child() -> None:
    seen: list[Any] = []

    def look(ctx: InvocationContext) -> None:
        seen.append(ctx.state.get("k"))

    child = leaf("child", write("k", 1), "one", look)
    passed: list[int | None] = []

    async def inner(ctx: InvocationContext) -> None:
        async with ctx.open_agent(child) as events:
            async for event in events:
                await ctx.emit(event)
                passed.append(event.seq)

    ended = run_tree(editor(doing(inner, "inner"), lambda event: event.text != "one", name="outer"))
    assert ended.result.state == {}
    assert seen == [None]
    assert passed == [None]


def test_the_inner_editors_own_events_pass_the_outer_one() -> None:
    @agent
    async def inner(ctx: InvocationContext) -> Yields:
        async with ctx.open_agent(leaf("child", "child's")) as events:
            async for event in events:
                yield "inner's"
                yield event

    ended = run_tree(editor(inner, lambda event: event.author == "child", name="outer"))
    assert texts(ended.delivered) == ["child's"]


def test_two_blocks_of_one_agent_may_be_open_at_once() -> None:
    @agent
    async def run(ctx: InvocationContext) -> Yields:
        one, other = leaf("one", "1", "2"), leaf("other", "3", "4")
        async with ctx.open_agent(one) as first, ctx.open_agent(other) as second:
            for _ in range(2):
                left, right = await anext(first), await anext(second)
                yield right
                yield left
            assert [*await read(first), *await read(second)] == []

    assert texts(run_tree(run).delivered) == ["3", "1", "4", "2"]


# ------------------------------------------------------------------------------ leaving early


def cleaning_up(diary: Diary, *, shield: bool = True, error: Exception | None = None) -> Agent:
    """Emits, and then again in cleaning up, which takes a second."""

    @agent(name="child")
    async def run(ctx: InvocationContext) -> Yields:
        try:
            yield "one"
            await trio.sleep(9)
            yield "never"
        finally:
            with trio.CancelScope(shield=shield):
                await trio.sleep(1)
                yield "clean"
            diary.append(f"{ctx.path} has cleaned up")
            if error is not None:
                raise error

    return run


@pytest.mark.parametrize("way", ["break", "return", "none"])
def test_leaving_the_block_early_cancels_the_child_and_waits_for_it(way: str) -> None:
    diary: Diary = []

    async def body(ctx: InvocationContext) -> str:
        async with ctx.open_agent(cleaning_up(diary)) as events:
            if way != "none":
                async for event in events:
                    await ctx.emit(event)
                    if way == "return":
                        return "left"
                    break
            else:
                await trio.sleep(0.5)
        assert diary
        return "left"

    ended = run_tree(doing(body))
    # Nobody is there to decide on the clean-up's event: it goes straight through.
    assert texts(ended.delivered) == [*(["one"] if way != "none" else []), "clean", "left"]
    assert ended.run.statistics().cancelled == 1


def test_an_exception_of_the_block_leaves_as_itself_when_the_child_has_cleaned_up() -> None:
    diary: Diary = []
    error = KeyError("mine")

    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_agent(cleaning_up(diary)) as events:
            await anext(events)
            raise error

    ended = run_tree(doing(body))
    assert ended.error is error
    assert diary == ["editor/child@1 has cleaned up"]


def test_what_the_child_raises_then_is_a_note_on_it() -> None:
    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_agent(cleaning_up([], error=ValueError("clean-up"))) as events:
            await anext(events)
            raise KeyError("mine")

    ended = run_tree(doing(body))
    assert isinstance(ended.error, KeyError)
    assert ended.notes == [
        "another branch failed too: editor/child@1: ValueError: clean-up",
        "raised by agent editor",
    ]


def test_what_the_child_raises_in_cleaning_up_after_an_early_leave_is_raised() -> None:
    error = ValueError("clean-up")

    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_agent(cleaning_up([], error=error)) as events:
            await anext(events)

    ended = run_tree(doing(body))
    assert ended.error is error
    assert ended.notes == ["raised by agent editor/child@1"]


@pytest.mark.parametrize("way", ["timeout", "run.cancel", "reader leaves"])
def test_a_cancellation_from_outside_reaches_the_child(way: str) -> None:
    diary: Diary = []

    async def body(ctx: InvocationContext) -> str:
        with trio.move_on_after(3 if way == "timeout" else 99):
            async with ctx.open_agent(cleaning_up(diary)) as events:
                async for event in events:
                    await ctx.emit(event)
        return "went on"

    async def main() -> Status:
        async with Runner(doing(body)).open() as run:
            with trio.move_on_after(3 if way == "reader leaves" else 99):
                await run.wait_for(lambda event: event.text == "one")
                if way == "run.cancel":
                    run.cancel("enough")
                await run.collect()
        return run.status

    status = run_virtual(main)
    assert diary == ["editor/child@1 has cleaned up"]
    assert status is (Status.COMPLETED if way == "timeout" else Status.CANCELLED)


# ------------------------------------------------------------------------------------- failures


def test_the_childs_error_is_raised_at_the_iteration_as_itself() -> None:
    error = ValueError("x")
    caught: list[BaseException] = []

    async def body(ctx: InvocationContext) -> str:
        async with ctx.open_agent(leaf("child", "one", error)) as events:
            try:
                async for event in events:
                    await ctx.emit(event)
            except ValueError as exc:
                caught.append(exc)
            assert await read(events) == []  # told once
        return "caught"

    ended = run_tree(doing(body))
    assert texts(ended.delivered) == ["one", "caught"]
    assert caught == [error]
    assert error.__notes__ == ["raised by agent editor/child@1"]


def test_the_childs_error_is_raised_by_receive_as_well() -> None:
    error = ValueError("x")

    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_agent(leaf("child", error)) as events:
            await events.receive()

    assert run_tree(doing(body)).error is error


def test_an_error_nobody_has_read_is_raised_when_the_block_ends() -> None:
    error = ValueError("x")

    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_agent(leaf("child", error)):
            await trio.sleep(5)
            await ctx.emit("not cancelled")

    ended = run_tree(doing(body))
    assert ended.error is error
    assert ended.notes == ["raised by agent editor/child@1"]
    assert texts(ended.delivered) == ["not cancelled"]


def test_retries_around_the_block_and_inside_it_do_not_multiply() -> None:
    tried = 0

    @agent(retry=Retry(3, initial_delay=0))
    async def child(ctx: InvocationContext) -> None:
        nonlocal tried
        tried += 1
        raise ValueError

    run_tree(editor(child).with_options(retry=Retry(3, initial_delay=0)))
    assert tried == 3


def test_the_events_of_each_attempt_come_with_its_number() -> None:
    @agent(retry=Retry(2, initial_delay=0))
    async def child(ctx: InvocationContext) -> Yields:
        ctx.state["k"] = ctx.path
        yield ctx.path
        if "~2" not in ctx.path:
            raise ValueError

    got: list[tuple[str, int]] = []

    def wanted(event: Event) -> bool:
        got.append((event.text, event.attempt))
        return True

    ended = run_tree(editor(child, wanted))
    assert got == [("editor/child@1", 1), ("editor/child@1~2", 2), ("", 2)]
    assert dict(ended.result.state) == {"k": "editor/child@1~2"}


def test_dropping_the_event_that_ends_an_attempt_drops_all_its_writes() -> None:
    @agent(retry=Retry(2))
    async def child(ctx: InvocationContext) -> Yields:
        ctx.state["k"] = 1
        yield "one"

    ended = run_tree(editor(child, lambda event: bool(event.text)))
    assert texts(ended.delivered) == ["one"]
    assert dict(ended.result.state) == {}


def test_a_conflict_is_raised_where_the_child_emits() -> None:
    where: list[str] = []

    @agent
    async def child(ctx: InvocationContext) -> Yields:
        await trio.sleep(1)
        ctx.state["k"] = "child"
        try:
            yield "refused"
        except StateConflictError:
            where.append(ctx.path)
        yield "went on"

    @agent
    async def run(ctx: InvocationContext) -> Yields:
        async with ctx.open_agent(child) as events:
            async for event in events:
                yield event
                assert (event.seq is None) == (event.text == "refused")

    tree = ParallelAgent("p", [leaf("other", write("k", "other"), "first"), run])
    ended = run_tree(Runner(tree, on_conflict="error"))
    assert where == ["p/run/child@1"]
    assert texts(ended.delivered) == ["first", "went on"]
    assert ended.result.state["k"] == "other"


# ------------------------------------------------------- the agent is cancelled while events wait


def test_what_its_agent_has_withdrawn_is_not_recorded_when_it_is_passed_on() -> None:
    """The editor thinks for three seconds; the child waits for one."""

    @agent
    async def child(ctx: InvocationContext) -> Yields:
        ctx.state["k"] = 1
        with trio.move_on_after(1):
            yield "given up"
        yield "kept"

    @agent
    async def run(ctx: InvocationContext) -> Yields:
        async with ctx.open_agent(child) as events:
            async for event in events:
                await trio.sleep(3)
                yield event
                assert (event.seq is None) == (event.text == "given up")

    assert texts(run_tree(editor(child)).delivered) == ["given up", "kept"]
    # Its write was taken back, and is recorded with what comes next.
    assert rows(run_tree(run)) == [("run/child@1", "kept", {"k": 1})]


def test_an_event_that_was_withdrawn_may_be_emitted_again() -> None:
    thinking = [3.0, 0.0]

    @agent
    async def child(ctx: InvocationContext) -> Yields:
        event = Event("again")
        with trio.move_on_after(1):
            yield event
        yield event

    @agent
    async def run(ctx: InvocationContext) -> Yields:
        got = []
        async with ctx.open_agent(child) as events:
            async for event in events:
                got.append(event.text)
                await trio.sleep(thinking.pop(0))
                yield event
        assert got == ["again", "again"]

    assert rows(run_tree(run)) == [("run/child@1", "again", {})]


def test_an_event_that_was_withdrawn_before_it_was_read_does_not_come() -> None:
    @agent
    async def child(ctx: InvocationContext) -> Yields:
        event = Event("twice")
        with trio.move_on_after(1):
            yield event
        yield event

    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_agent(child) as events:
            await trio.sleep(3)
            return await read(events)

    assert run_tree(doing(body)).result.output == ["twice"]


def test_dropping_what_its_agent_has_withdrawn_is_no_error() -> None:
    @agent
    async def child(ctx: InvocationContext) -> Yields:
        with trio.move_on_after(1):
            yield "given up"

    async def body(ctx: InvocationContext) -> str:
        async with ctx.open_agent(child) as events:
            event = await events.receive()
            await trio.sleep(3)
            events.drop(event)
            assert await read(events) == []
        return "fine"

    assert run_tree(doing(body)).result.text == "fine"


@given(st.random_module())
def test_an_event_may_be_passed_on_in_the_very_moment_in_which_its_agent_is_cancelled(
    scheduler: object,
) -> None:
    """Cancelled, the child has not run yet: passing on must not wait for what never arrives."""

    @agent
    async def child(ctx: InvocationContext) -> Yields:
        with trio.move_on_after(1):
            yield "at the last moment"
        yield "kept"

    @agent
    async def run(ctx: InvocationContext) -> Yields:
        async with ctx.open_agent(child) as events:
            async for event in events:
                if event.text != "kept":
                    await trio.sleep(1)
                yield event

    assert texts(run_tree(run).delivered)[-1] == "kept"


def test_an_event_withdrawn_on_its_way_to_the_reader_cannot_become_the_editors() -> None:
    """Passed on, it is queued behind a slow reader; then its agent is cancelled."""

    @agent
    async def child(ctx: InvocationContext) -> Yields:
        with trio.move_on_after(1):
            yield "given up"
        yield "kept"

    @agent
    async def run(ctx: InvocationContext) -> Yields:
        async with ctx.open_agent(child) as events:
            async for event in events:
                yield event
                if event.seq is None:
                    yield event  # as if nothing had happened

    busy = leaf("busy", "b1", "b2")
    ended = run_tree(ParallelAgent("p", [busy, run]), pause=5)
    assert [path for path, text, _ in rows(ended) if text and not text.startswith("b")] == [
        "p/run/child@1"
    ]
    assert "kept" in texts(ended.result.events)


def test_the_editor_may_give_up_passing_on() -> None:
    """The event stays on its way: it is the child's, who still waits for the reader."""

    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_agent(leaf("child", "one", "two")) as events:
            event = await anext(events)
            with trio.move_on_after(1) as scope:
                await ctx.emit(event)
            gave_up = scope.cancelled_caught
            async for other in events:
                await ctx.emit(other)
            return [gave_up, event.text]

    ended = run_tree(ParallelAgent("p", [leaf("busy", "b1"), doing(body)]), pause=5)
    assert ended.result.outputs["editor"] == [True, "one"]
    assert sorted(texts(ended.result.events)) == ["b1", "one", "two"]


# --------------------------------------------------------------------------- time, limits, plugins


def test_while_the_editor_thinks_the_child_is_not_idle() -> None:
    child = leaf("child", "one", "two").with_options(idle_timeout=2)

    @agent
    async def slow(ctx: InvocationContext) -> Yields:
        async with ctx.open_agent(child) as events:
            async for event in events:
                await trio.sleep(5)
                yield event

    ended = run_tree(slow)
    assert ended.error is None
    assert texts(ended.delivered) == ["one", "two"]


def test_while_the_editor_thinks_it_is_idle_itself() -> None:
    @agent(idle_timeout=4)
    async def slow(ctx: InvocationContext) -> Yields:
        async with ctx.open_agent(leaf("child", "one", "two")) as events:
            async for event in events:
                await trio.sleep(5)
                yield event

    ended = run_tree(slow)
    assert isinstance(ended.error, AgentTimeoutError)
    assert (ended.error.path, ended.error.kind) == ("slow", "idle_timeout")


def test_the_childs_events_keep_the_editor_from_being_idle() -> None:
    child = leaf("child", 3, "one", 3, "two", 3)
    ended = run_tree(editor(child).with_options(idle_timeout=4))
    assert ended.error is None


@pytest.mark.parametrize("limit", [1, 2])
def test_under_a_limit_of_the_run_the_two_do_not_wait_for_each_other(limit: int) -> None:
    child = ParallelAgent("p", [leaf("a", "a", 1, "a"), leaf("b", "b", 1, "b")])
    inner = editor(child, name="inner")
    ended = run_tree(editor(inner), run_config=RunConfig(max_concurrency=limit))
    assert sorted(texts(ended.delivered)) == ["a", "a", "b", "b"]


class Shout(Plugin):
    """Makes every event loud, and drops what is silent."""

    def __init__(self) -> None:
        super().__init__("shout")
        self.asked: list[str] = []

    async def on_event_callback(
        self, ctx: InvocationContext, event: Event
    ) -> Event | DropEvent | None:
        self.asked.append(f"{ctx.path}: {event.text}")
        if event.text == "silent":
            return DROP_EVENT
        return Event(event.text.upper(), actions=event.actions)


def test_plugins_see_an_event_once_and_before_the_editor() -> None:
    plugin = Shout()
    got: list[str] = []

    def wanted(event: Event) -> bool:
        got.append(event.text)
        return event.text != "TWO"

    child = leaf("child", write("k", 1), "one", "silent", "two")
    ended = run_tree(Runner(editor(child, wanted), plugins=[plugin]))
    assert got == ["ONE", "TWO"]
    assert plugin.asked == [f"editor/child@1: {text}" for text in ("one", "silent", "two")]
    assert rows(ended) == [("editor/child@1", "ONE", {"k": 1})]


# ------------------------------------------------------------------- escalating, handing over


def test_an_escalation_that_is_passed_on_ends_the_loop() -> None:
    tree = LoopAgent("l", [editor(leaf("child", Escalate())), leaf("after", "not reached")])
    assert texts(run_tree(tree).delivered) == ["stop"]


def test_an_escalation_that_is_dropped_ends_nothing() -> None:
    silent = editor(leaf("child", Escalate("stop")), lambda event: not event.actions.escalate)
    tree = LoopAgent("l", [silent, leaf("after", "reached")], max_iterations=2)
    assert texts(run_tree(tree).delivered) == ["reached", "reached"]


@pytest.mark.parametrize("passed", [True, False])
def test_inside_the_child_siblings_end_when_an_escalation_is_passed_on(passed: bool) -> None:  # noqa: FBT001  # a case
    child = ParallelAgent("p", [leaf("a", 1, Escalate()), leaf("b", 2, "b")])
    ended = run_tree(editor(child, lambda event: passed or not event.actions.escalate))
    assert texts(ended.delivered) == (["stop"] if passed else ["b"])


def handing_over(to: str) -> Event:
    return Event("over to you", actions=EventActions(transfer_to_agent=to))


def test_whoever_the_child_hands_over_to_is_read_as_well() -> None:
    @agent
    async def first(ctx: InvocationContext) -> Yields:
        yield handing_over("second")

    got: list[str] = []

    def wanted(event: Event) -> bool:
        got.append(event.path)
        return event.author == "second"

    child = SequentialAgent("s", [SequentialAgent("inner", [first]), leaf("second", "done")])
    tree = LoopAgent("l", [editor(child, wanted)], max_iterations=1)
    ended = run_tree(tree)
    # Dropped, it hands over to nobody.
    assert texts(ended.delivered) == ["done"]
    assert got == ["l/editor@1/s@1/inner/first", "l/editor@1/s@1/second"]

    got.clear()
    ended = run_tree(LoopAgent("l", [editor(child)], max_iterations=1))
    assert texts(ended.delivered) == ["over to you", "done", "done"]


def test_handing_over_to_nobody_is_refused_before_the_editor_sees_it() -> None:
    @agent
    async def child(ctx: InvocationContext) -> Yields:
        yield handing_over("nobody")

    got: list[Event] = []

    def wanted(event: Event) -> bool:
        got.append(event)
        return True

    ended = run_tree(editor(child, wanted))
    assert isinstance(ended.error, TransferError)
    assert got == []


# ---------------------------------------------- drawn trees: passing all on changes nothing


class Runs(Agent):
    """Runs its child in place."""

    def __init__(self, child: Agent) -> None:
        super().__init__("above")
        self._child = child

    async def run(self, ctx: InvocationContext) -> None:
        await ctx.run_agent(self._child)


class Passes(Runs):
    """Passes everything of it on."""

    async def run(self, ctx: InvocationContext) -> None:
        async with ctx.open_agent(self._child) as events:
            async for event in events:
                await ctx.emit(event)


def seen_of(case: Case, kind: type[Runs]) -> Any:
    """Run a drawn tree on kept time, below an agent of that kind; say what there was to see."""

    async def main() -> Any:
        watch = Recorder()
        child = build(case.tree, watch, Kept(lanes_of(case.tree)))
        runner = Runner(
            kind(child), reducers=REDUCERS, on_conflict=case.on_conflict, clock=lambda: 0.0
        )
        delivered: list[Event] = []
        error: BaseException | None = None
        run: Any = None
        try:
            with trio.CancelScope() as outer:
                async with runner.open(state_delta=START) as run:
                    await _read(case.reader, run, outer, delivered, watch, None)
        except Exception as exc:  # noqa: BLE001  # compared
            error = exc
        return (
            [
                (
                    e.path,
                    e.branch,
                    e.text,
                    dict(e.state_delta),
                    [o.status for o in e.actions.outcomes],
                )
                for e in run.result.events
            ],
            [event.text for event in delivered],
            dict(run.result.state),
            str(run.status),
            type(error),
            [
                (entry.path, entry.seqs, dict(entry.state))
                for entry in watch.entries
                if isinstance(entry, Looked)
            ],
        )

    return trio.run(main, clock=clock_with_horizon())


@fewer(2)
@given(kept_cases(trees(Allowed(kept=True))))
def test_passing_everything_on_is_as_running_the_child_in_place(case: Case) -> None:
    """To a reader who stays: an editor who is cancelled decides on nothing any more."""
    case = attrs.evolve(case, reader=Reader())
    assert seen_of(case, Passes) == seen_of(case, Runs)


def test_the_comparison_finds_an_editor_that_drops_something() -> None:
    class Drops(Runs):
        async def run(self, ctx: InvocationContext) -> None:
            async with ctx.open_agent(self._child) as events:
                await read(events)

    case = Case(ScriptedLeaf("a", [Pause(), Emit()]), kept=True)
    assert seen_of(case, Passes) == seen_of(case, Runs)
    assert seen_of(case, Drops) != seen_of(case, Runs)


# --------------------------------------- drawn scripts and decisions, against a model

What: TypeAlias = Literal["write", "add", "emit", "delta", "partial", "output", "pause", "look"]
Decision: TypeAlias = Literal["pass", "drop", "hold"]


@attrs.frozen
class Branch:
    """One branch of the child: what it does, step by step."""

    name: str
    steps: tuple[What, ...]


@attrs.frozen
class Script:
    """A child of several branches, and what its editor decides on each event as it comes.

    Of what is held, some is passed on each time nothing new comes for a second. ``leave`` is
    after how many events the editor leaves, if it does.
    """

    branches: tuple[Branch, ...]
    decisions: tuple[Decision, ...]
    release: tuple[int, ...]
    leave: int | None = None


things: st.SearchStrategy[What] = st.sampled_from(
    ["write", "add", "emit", "delta", "partial", "output", "pause", "look"]
)


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    names = "abc"[: draw(st.integers(1, 3))]
    return Script(
        tuple(Branch(name, tuple(draw(st.lists(things, max_size=7)))) for name in names),
        tuple(draw(st.lists(st.sampled_from(["pass", "drop", "hold"]), min_size=1, max_size=8))),
        tuple(draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))),
        draw(st.none() | st.none() | st.integers(0, 6)),
    )


Look: TypeAlias = tuple[str, int, dict[str, Any]]


@attrs.define
class Played:
    """A script at work: what its editor decides, and what its branches see."""

    script: Script
    passed: list[Event] = attrs.field(factory=list)
    dropped: list[Event] = attrs.field(factory=list)
    held: list[Event] = attrs.field(factory=list)
    looks: list[Look] = attrs.field(factory=list)
    releases: int = 0
    ended: Ended = attrs.field(init=False)

    def child(self) -> Agent:
        return ParallelAgent("child", [self.branch(branch) for branch in self.script.branches])

    def branch(self, branch: Branch) -> Agent:
        @agent(name=branch.name)
        async def run(ctx: InvocationContext) -> Yields:
            for number, what in enumerate(branch.steps):
                if what == "pause":
                    await trio.sleep(0.75)
                event = self.act(ctx, branch.name, number, what)
                if event is not None:
                    yield event

        return run

    def act(self, ctx: InvocationContext, name: str, number: int, what: What) -> Event | None:
        label = f"{name}{number}"
        match what:
            case "write":
                ctx.state[f"{name}.k"] = number
            case "add":
                ctx.state.contribute(f"{name}.sum", number)
            case "look":
                seen = {key: value for key, value in ctx.state.items() if key.startswith(name)}
                self.looks.append((name, number, seen))
            case "emit":
                return Event(label)
            case "delta":
                return Event(label, actions=EventActions(state_delta={f"{name}.d": number}))
            case "partial":
                return Event(label, partial=True)
            case "output":
                return Event(label, output=number)
            case "pause":
                pass
        return None

    async def edit(self, ctx: InvocationContext) -> None:
        count = 0
        async with ctx.open_agent(self.child()) as events:
            while self.script.leave is None or count < self.script.leave:
                event: Event | None = None
                try:
                    with trio.move_on_after(1):
                        event = await events.receive()
                except ReadError:
                    assert not self.held
                    return
                if event is None:
                    await self.release(ctx)
                    continue
                decision = self.script.decisions[count % len(self.script.decisions)]
                count += 1
                if decision == "pass":
                    self.passed.append(event)
                    await ctx.emit(event)
                elif decision == "drop":
                    self.dropped.append(event)
                    events.drop(event)
                else:
                    self.held.append(event)

    async def release(self, ctx: InvocationContext) -> None:
        if self.held:
            at = self.script.release[self.releases % len(self.script.release)]
            self.releases += 1
            self.passed.append(self.held.pop(at % len(self.held)))
            await ctx.emit(self.passed[-1])


def play(script: Script) -> Played:
    """Run a script to its end."""
    played = Played(script)
    reducers = {f"{branch.name}.sum": "add" for branch in script.branches}

    async def main() -> Ended:
        return await open_and_read(Runner(doing(played.edit), reducers=reducers))

    played.ended = run_virtual(main)
    return played


@attrs.define
class Model:
    """What a branch records, sees and comes to, given what was decided on each of its events.

    ``verdicts`` are by text; the last writes of a branch come with an event that has none.
    """

    branch: Branch
    verdicts: dict[str, bool]
    recorded: list[tuple[str, dict[str, Any]]] = attrs.field(factory=list)
    looks: list[Look] = attrs.field(factory=list)
    output: Any = None
    shared: dict[str, Any] = attrs.field(factory=dict)
    pending: dict[str, Any] = attrs.field(factory=dict)

    @classmethod
    def of(cls, branch: Branch, passed: Iterable[Event], dropped: Iterable[Event]) -> Model:
        verdicts = {event.text: True for event in passed if event.author == branch.name}
        verdicts |= {event.text: False for event in dropped if event.author == branch.name}
        model = cls(branch, verdicts)
        for number, what in enumerate(branch.steps):
            model.act(number, what)
        if model.pending:
            model.emit("")
        return model

    def act(self, number: int, what: What) -> None:
        name, label = self.branch.name, f"{self.branch.name}{number}"
        match what:
            case "write":
                self.pending[f"{name}.k"] = number
            case "add":
                key = f"{name}.sum"
                before = self.pending.get(key, self.shared.get(key, 0))
                self.pending[key] = before + number
            case "look":
                self.looks.append((name, number, {**self.shared, **self.pending}))
            case "emit" | "delta":
                written = {f"{name}.d": number} if what == "delta" else {}
                if self.emit(label, written) and not isinstance(self.output, int):
                    self.output = label
            case "output":
                if self.emit(label):
                    self.output = number
            case "partial" | "pause":
                pass

    def emit(self, label: str, written: dict[str, Any] | None = None) -> bool:
        delta, self.pending = {**self.pending, **(written or {})}, {}
        if self.verdicts[label]:
            self.shared.update(delta)
            self.recorded.append((label, delta))
        return self.verdicts[label]


@given(scripts(), st.random_module())
def test_whatever_is_passed_dropped_and_reordered_log_state_and_outputs_are_right(
    script: Script, seed: object
) -> None:
    script = attrs.evolve(script, leave=None)
    played = play(script)
    result = played.ended.result
    assert played.ended.error is None
    # What was passed on is the log, in the order in which it was; partial events aside.
    whole = [event for event in played.passed if not event.partial]
    assert [event for event in result.events if event.author != "editor"] == whole
    assert [event for event in played.ended.delivered if event.author != "editor"] == played.passed
    assert fold({}, result.events) == dict(result.state)
    assert [event.seq for event in result.events] == list(range(2, len(result.events) + 2))
    for branch in script.branches:
        model = Model.of(branch, played.passed, played.dropped)
        own = [event for event in result.events if event.author == branch.name]
        assert [(event.text, dict(event.state_delta)) for event in own] == model.recorded
        assert [look for look in played.looks if look[0] == branch.name] == model.looks
        assert result.outputs[branch.name] == model.output


@given(scripts(), st.random_module())
def test_whenever_the_editor_leaves_log_and_state_agree(script: Script, seed: object) -> None:
    played = play(script)
    result = played.ended.result
    assert fold({}, result.events) == dict(result.state)
    recorded = [event for event in result.events if event.author not in ("editor", "child")]
    assert recorded == [event for event in played.passed if event.seq and event.author != "child"]
    statistics = played.ended.run.statistics()
    assert statistics.started == statistics.completed + statistics.cancelled


def test_the_model_finds_writes_that_are_not_rolled_back() -> None:
    script = Script((Branch("a", ("write", "emit", "emit")),), ("drop", "pass"), (0,))
    played = play(script)
    model = Model.of(script.branches[0], played.passed, played.dropped)
    assert model.recorded == [("a2", {})]
    kept = Model.of(script.branches[0], [*played.passed, *played.dropped], [])
    assert kept.recorded == [("a1", {"a.k": 0}), ("a2", {})]
