"""``RunConfig(on_wait="suspend")``: nobody answers, and the run ends as ``waiting``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from parallel_agent import (
    Agent,
    Barrier,
    BestEffort,
    Escalate,
    Event,
    FailFast,
    FirstSuccess,
    InvocationContext,
    LoopAgent,
    MessageRefusedError,
    Outcome,
    ParallelAgent,
    Plugin,
    Quorum,
    ReadError,
    ResponseRefusedError,
    Retry,
    Run,
    RunConfig,
    Runner,
    SequentialAgent,
    Status,
    WaitAll,
    agent,
)
from tests.kernel.scripted import BatchingService, SlowService, check_run, quiet
from tests.workflow.trees import Diary, Ended, Yields, leaf, open_and_read, run_tree, texts

SUSPEND = RunConfig(on_wait="suspend")


def asker(name: str, diary: Diary | None = None, **asking: Any) -> Agent:
    """Return an agent that asks once; what it does after the answer is noted."""
    entries: Diary = [] if diary is None else diary

    @agent(name=name)
    async def ask(ctx: InvocationContext) -> Yields:
        answer = await ctx.request_input(f"{name}?", **asking)
        entries.append(f"{name} goes on")
        yield f"{name} got {answer}"

    return ask


async def suspended(tree: Agent | Runner, **options: Any) -> Ended:
    """Run a tree to its end and answer nothing."""
    return await open_and_read(tree, run_config=SUSPEND, **options)


def statuses(ended: Ended) -> dict[str, int]:
    """How many activations ended how."""
    counts = ended.run.statistics()
    assert counts.started == counts.completed + counts.failed + counts.cancelled + counts.waiting
    names = ("completed", "failed", "cancelled", "waiting")
    return {name: getattr(counts, name) for name in names if getattr(counts, name)}


# --------------------------------------------------------------------------------- how the run ends


async def test_a_run_that_nobody_answers_ends_as_waiting(autojump_clock: MockClock) -> None:
    diary: Diary = []
    ended = await suspended(asker("a", diary))
    assert ended.error is None
    assert ended.run.status is ended.result.status is Status.WAITING
    assert (ended.result.output, ended.result.reason, diary) == (None, "unanswered: a#1", [])
    assert statuses(ended) == {"waiting": 1}
    assert ended.time == 0


async def test_the_question_is_delivered_and_recorded(autojump_clock: MockClock) -> None:
    ended = await suspended(asker("a", schema=bool))
    (event,) = ended.delivered
    assert event.request is not None
    assert event.request.prompt == "a?"
    assert ended.result.events == (event,)


async def test_siblings_finish_first(autojump_clock: MockClock) -> None:
    tree = ParallelAgent("fan", [asker("a"), leaf("b", 5, "b is done"), asker("c")])
    ended = await suspended(tree)
    assert texts(ended.delivered) == ["b is done"]
    assert ended.outcomes("fan") == {"a": "waiting", "b": "completed", "c": "waiting"}
    assert statuses(ended) == {"completed": 1, "waiting": 3}
    assert ended.time == 5


async def test_outcomes_of_waiting_branches_are_recorded(autojump_clock: MockClock) -> None:
    ended = await suspended(ParallelAgent("fan", [asker("a"), leaf("b")]))
    (record,) = [event for event in ended.result.events if event.actions.outcomes]
    assert [(one.name, one.status) for one in record.actions.outcomes] == [
        ("a", "waiting"),
        ("b", "completed"),
    ]


async def test_later_agents_of_a_sequence_do_not_start(autojump_clock: MockClock) -> None:
    diary: Diary = []
    tree = SequentialAgent("s", [leaf("before"), asker("a"), leaf("after", diary=diary)])
    ended = await suspended(tree)
    assert (ended.result.status, diary) == (Status.WAITING, [])
    assert statuses(ended) == {"completed": 1, "waiting": 2}


async def test_a_loop_ends_with_its_sub_agent(autojump_clock: MockClock) -> None:
    diary: Diary = []
    tree = LoopAgent("l", [leaf("x", diary=diary), asker("a")], max_iterations=3)
    ended = await suspended(tree)
    assert (ended.result.status, diary) == (Status.WAITING, ["x starts", "x ends"])


async def test_everything_above_waits_at_any_depth(autojump_clock: MockClock) -> None:
    tree: Agent = asker("a")
    for level in range(20):
        tree = (
            SequentialAgent(f"s{level}", [tree])
            if level % 2
            else ParallelAgent(f"p{level}", [tree, leaf(f"sibling{level}")])
        )
    ended = await suspended(tree)
    assert ended.result.status is Status.WAITING
    assert statuses(ended) == {"completed": 10, "waiting": 21}


async def test_clean_up_runs(autojump_clock: MockClock) -> None:
    diary: Diary = []

    async def tidy(ctx: InvocationContext) -> None:
        try:
            await ctx.request_input("well?")
        finally:
            diary.append("cleans up")
            with trio.CancelScope(shield=True):
                await ctx.emit("cleaned up")

    ended = await suspended(leaf("a", tidy))
    assert (ended.result.status, diary) == (Status.WAITING, ["cleans up"])
    assert texts(ended.delivered) == ["cleaned up"]


async def test_other_tasks_of_the_agent_are_cancelled(autojump_clock: MockClock) -> None:
    diary: Diary = []

    async def both(ctx: InvocationContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(ctx.request_input, "one")
            nursery.start_soon(ctx.request_input, "two")
        diary.append("not reached")

    ended = await suspended(leaf("a", both))
    assert (ended.result.status, diary) == (Status.WAITING, [])


async def test_an_agent_that_catches_it_and_returns_still_waits(
    autojump_clock: MockClock,
) -> None:
    async def stubborn(ctx: InvocationContext) -> None:
        with suppress(BaseException):  # bad manners
            await ctx.request_input("well?")

    assert (await suspended(leaf("a", stubborn))).result.status is Status.WAITING


async def test_behind_a_shield_there_is_no_answer_to_go_on_with(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []

    async def shielded(ctx: InvocationContext) -> None:
        with trio.CancelScope(shield=True):
            diary.append(await ctx.request_input("well?"))

    ended = await suspended(leaf("a", shielded))
    assert (ended.result.status, ended.error, diary) == (Status.WAITING, None, [])


async def test_behind_a_shield_a_child_that_waits_has_no_output(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []
    child = asker("child")

    async def shielded(ctx: InvocationContext) -> None:
        with trio.CancelScope(shield=True):
            diary.append(await ctx.run_agent(child))

    ended = await suspended(leaf("a", shielded))
    assert (ended.result.status, ended.error, diary) == (Status.WAITING, None, [])


async def test_a_clean_up_that_fails_is_a_failure(autojump_clock: MockClock) -> None:
    async def clumsy(ctx: InvocationContext) -> None:
        try:
            await ctx.request_input("well?")
        finally:
            raise KeyError

    ended = await suspended(ParallelAgent("fan", [leaf("a", clumsy), asker("b")]))
    assert isinstance(ended.error, KeyError)
    assert ended.outcomes("fan") == {"a": "failed", "b": "waiting"}
    assert ended.result.status is Status.FAILED


async def test_a_default_is_for_those_who_wait(autojump_clock: MockClock) -> None:
    """There is nothing to wait for: the answer may come tomorrow."""
    ended = await suspended(asker("a", timeout=5, default=0))
    assert (ended.result.status, ended.time) == (Status.WAITING, 0)


@pytest.mark.parametrize(
    "service", [lambda: SlowService(1), lambda: BatchingService(1)], ids=["slow", "batching"]
)
async def test_with_a_service_that_takes_its_time_it_is_the_same(
    service: Callable[[], SlowService], autojump_clock: MockClock
) -> None:
    runner = Runner(ParallelAgent("fan", [asker("a"), leaf("b", "x")]), session_service=service())
    ended = await suspended(runner)
    assert ended.outcomes("fan") == {"a": "waiting", "b": "completed"}
    await check_run(runner, ended.run)


async def test_the_session_serves_the_next_run(autojump_clock: MockClock) -> None:
    seen: list[int] = []

    def look(ctx: InvocationContext) -> None:
        seen.append(sum(event.request is not None for event in ctx.history()))

    runner = Runner(SequentialAgent("s", [leaf("looks", look), asker("a")]))
    with quiet(generation=0):
        first = await suspended(runner, session_id="one")
        second = await suspended(runner, session_id="one")
    assert first.result.status is second.result.status is Status.WAITING
    assert seen == [0, 1]
    await check_run(runner, second.run)
    assert second.run.statistics().last_seq == 4  # a message and a question, twice


async def test_a_question_left_to_the_next_run_is_refused(autojump_clock: MockClock) -> None:
    tree = ParallelAgent("fan", [asker("a"), leaf("b", 5, "b is done")])
    async with Runner(tree).open(run_config=SUSPEND) as run:
        async for event in run:
            if event.text == "b is done":
                assert run.pending == ()
                with pytest.raises(ResponseRefusedError, match="left to the next run"):
                    await run.respond("fan/a#1", 1)
    for name in ("fan/a#1", f"{run.invocation_id}:fan/a#1", "fan/a", "a"):
        with pytest.raises(
            ResponseRefusedError, match=f"request '{name}' is left to the next run: this one has"
        ):
            await run.respond(name, 1)


# ------------------------------------------------------------------------------ what it waits for


def waits_for(run: Run) -> list[str]:
    return sorted(one.id.removeprefix(f"{run.invocation_id}:") for one in run.pending)


async def test_a_run_that_has_ended_as_waiting_lists_its_questions(
    autojump_clock: MockClock,
) -> None:
    late = leaf("c", 2, lambda ctx: ctx.request_input("c?"))
    tree = ParallelAgent("fan", [asker("a", schema=bool), leaf("b", 5, "x"), late])
    async with Runner(tree).open(run_config=SUSPEND) as run:
        await run.collect()
        assert waits_for(run) == ["fan/a#1", "fan/c#1"]
    assert waits_for(run) == ["fan/a#1", "fan/c#1"]
    assert [(one.prompt, one.schema, one.author) for one in run.pending] == [
        ("a?", {"type": "boolean"}, "a"),
        ("c?", None, "c"),
    ]
    assert run.result.reason == "unanswered: fan/a#1, fan/c#1"
    assert repr(run.result).startswith("<Result waiting (unanswered: fan/a#1, fan/c#1): ")


async def test_of_many_questions_the_reason_names_a_few(autojump_clock: MockClock) -> None:
    tree = ParallelAgent("fan", [asker(f"a{number}") for number in range(50)])
    ended = await suspended(tree)
    assert len(ended.run.pending) == 50
    assert str(ended.result.reason).startswith("unanswered: fan/a")
    assert str(ended.result.reason).endswith(" more")
    assert len(str(ended.result.reason)) < 200


@given(st.random_module())
def test_what_a_run_waits_for_is_listed_in_the_order_of_the_questions(scheduler: object) -> None:
    tree = ParallelAgent("fan", [asker(f"a{number}") for number in range(5)])
    ended = run_tree(tree, run_config=SUSPEND)
    asked = [event.request.id for event in ended.delivered if event.request is not None]
    assert [one.id for one in ended.run.pending] == asked


async def test_the_question_what_to_do_about_a_failure_is_listed(
    autojump_clock: MockClock,
) -> None:
    tree = ParallelAgent("fan", [leaf("a", KeyError()), leaf("b", 5, "x")], barrier=Escalate())
    ended = await suspended(tree)
    assert waits_for(ended.run) == ["fan/a#failed"]
    assert ended.result.reason == "unanswered: fan/a#failed"


async def test_a_run_that_does_not_wait_lists_nothing(autojump_clock: MockClock) -> None:
    tree = ParallelAgent("race", [asker("a"), leaf("b", 5, "x")], barrier=FirstSuccess())
    ended = await suspended(tree)
    assert (ended.result.status, ended.result.reason) == (Status.COMPLETED, None)
    assert ended.run.pending == ()


async def test_a_run_that_fails_beside_a_question_lists_nothing(autojump_clock: MockClock) -> None:
    ended = await suspended(ParallelAgent("fan", [asker("a"), leaf("b", 5, KeyError())]))
    assert (ended.result.status, ended.result.reason) == (Status.FAILED, None)
    assert ended.run.pending == ()


async def over_before(ctx: InvocationContext, way: str) -> None:
    """Fork a branch that waits for a person, and be done without it."""
    match way:
        case "a race is won":
            await ctx.fan_out([asker("a"), leaf("b", 1)], barrier=FirstSuccess())
        case "a branch fails":
            with suppress(KeyError):
                await ctx.fan_out([asker("a"), leaf("b", 1, KeyError())])
        case "time is over":
            with trio.move_on_after(1):
                await ctx.fan_out([asker("a"), leaf("b", 5)])
        case _:
            with suppress(KeyError):
                async with ctx.open_fan_out() as group:
                    group.start(asker("a"))
                    await trio.sleep(1)
                    raise KeyError


@pytest.mark.parametrize(
    "way", ["a race is won", "a branch fails", "time is over", "the block fails"]
)
async def test_a_question_that_the_fan_out_has_done_without_is_not_listed(
    way: str, autojump_clock: MockClock
) -> None:
    @agent
    async def boss(ctx: InvocationContext) -> None:
        await over_before(ctx, way)
        await ctx.request_input("and now?")

    ended = await suspended(boss)
    assert ended.result.status is Status.WAITING
    assert [event.request is not None for event in ended.delivered].count(True) == 2
    assert waits_for(ended.run) == ["boss#1"]


async def test_questions_of_an_open_block_and_of_its_branch_are_both_listed(
    autojump_clock: MockClock,
) -> None:
    @agent
    async def boss(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out() as group:
            group.start(asker("a"))
            await trio.sleep(1)
            await ctx.request_input("and now?")

    assert waits_for((await suspended(boss)).run) == ["boss#1", "boss/a@1#1"]


async def test_a_run_that_is_left_while_it_is_being_suspended_is_cancelled(
    autojump_clock: MockClock,
) -> None:
    tree = ParallelAgent("fan", [asker("a"), leaf("b", 5, "b is done")])
    async with Runner(tree).open(run_config=SUSPEND) as run:
        await anext(run)
        with trio.move_on_after(1):
            await anext(run)
    assert run.result.status is Status.CANCELLED
    assert [str(outcome.status) for outcome in run.outcomes("fan")] == ["waiting", "cancelled"]


# -------------------------------------------------------------------------- an answer given in time


async def read_answering(run: Run, value: Any = "yes") -> list[Event]:
    got: list[Event] = []
    async for event in run:
        got.append(event)
        if event.request is not None:
            await run.respond(event.request.id, value)
    return got


async def test_an_answer_given_before_the_reader_comes_back_counts(
    autojump_clock: MockClock,
) -> None:
    tree = SequentialAgent("s", [asker("a"), asker("b")])
    async with Runner(tree).open(run_config=SUSPEND) as run:
        got = await read_answering(run)
    assert texts(got) == ["a got yes", "b got yes"]
    assert (run.result.status, run.result.output) == (Status.COMPLETED, "b got yes")


async def test_only_what_was_not_answered_waits(autojump_clock: MockClock) -> None:
    tree = ParallelAgent("fan", [asker("a"), asker("b"), asker("c")])
    async with Runner(tree).open(run_config=SUSPEND) as run:
        async for event in run:
            if event.request is not None and event.author != "b":
                await run.respond(event.author, "yes")
    assert {one.name: str(one.status) for one in run.outcomes("fan")} == {
        "a": "completed",
        "b": "waiting",
        "c": "completed",
    }
    assert run.result.status is Status.WAITING


async def test_a_refused_answer_does_not_count(autojump_clock: MockClock) -> None:
    async with Runner(asker("a", schema=bool)).open(run_config=SUSPEND) as run:
        async for event in run:
            if event.request is not None:
                with pytest.raises(ResponseRefusedError):
                    await run.respond(event.request.id, "no")
    assert run.result.status is Status.WAITING


# ----------------------------------------------------------------------------------------- barriers


async def test_a_winner_is_not_held_up(autojump_clock: MockClock) -> None:
    tree = SequentialAgent(
        "s",
        [
            ParallelAgent("race", [asker("a"), leaf("b", 5, "b wins")], barrier=FirstSuccess()),
            leaf("after", "and on"),
        ],
    )
    ended = await suspended(tree)
    assert ended.result.status is Status.COMPLETED
    assert ended.outcomes("race") == {"a": "waiting", "b": "completed"}
    assert texts(ended.delivered) == ["b wins", "and on"]


@pytest.mark.parametrize(
    ("barrier", "status"),
    [
        (FailFast(), Status.WAITING),
        (WaitAll(), Status.WAITING),
        (BestEffort(), Status.WAITING),
        (Quorum(1), Status.COMPLETED),
        (Quorum(2), Status.WAITING),
        (FirstSuccess(), Status.COMPLETED),
        (Escalate(), Status.WAITING),
    ],
)
async def test_a_fan_out_waits_if_it_cannot_be_done_without(
    barrier: Barrier, status: Status, autojump_clock: MockClock
) -> None:
    tree = ParallelAgent("fan", [asker("a"), leaf("b", 1, "x")], barrier=barrier)
    assert (await suspended(tree)).result.status is status


@pytest.mark.parametrize(
    ("barrier", "status", "error"),
    [
        (FailFast(), Status.FAILED, KeyError),
        (WaitAll(), Status.FAILED, ExceptionGroup),
        (BestEffort(), Status.WAITING, None),
        # Not lost yet: the one that waits may complete another day.
        (FirstSuccess(), Status.WAITING, None),
        (Quorum(1), Status.WAITING, None),
    ],
)
async def test_a_failure_beside_a_waiting_branch_is_raised_as_the_barrier_says(
    barrier: Barrier, status: Status, error: type[Exception] | None, autojump_clock: MockClock
) -> None:
    tree = ParallelAgent("fan", [asker("a"), leaf("b", 1, KeyError())], barrier=barrier)
    ended = await suspended(tree)
    assert ended.result.status is status
    assert error is None or isinstance(ended.error, error)
    assert (ended.error is None) is (error is None)
    assert ended.outcomes("fan") == {"a": "waiting", "b": "failed"}


async def test_a_question_about_a_failure_waits_too(autojump_clock: MockClock) -> None:
    tree = ParallelAgent("fan", [leaf("a", KeyError()), leaf("b", 5, "x")], barrier=Escalate())
    ended = await suspended(tree)
    assert (ended.result.status, ended.error) == (Status.WAITING, None)
    assert ended.outcomes("fan") == {"a": "waiting", "b": "completed"}


# ------------------------------------------------------------------------- at run time, and retries


async def test_a_map_waits_with_its_items(autojump_clock: MockClock) -> None:
    diary: Diary = []

    @agent
    async def each(ctx: InvocationContext, item: int) -> int:
        if item == 2:
            await ctx.request_input("well?")
        return item

    @agent
    async def whole(ctx: InvocationContext) -> None:
        await ctx.map(each, [1, 2, 3])
        diary.append("not reached")

    ended = await suspended(whole)
    assert (ended.result.status, diary) == (Status.WAITING, [])
    assert ended.outcomes("whole") == {
        "each@1": "completed",
        "each@2": "waiting",
        "each@3": "completed",
    }


async def test_awaiting_a_handle_that_waits_ends_the_block_as_waiting(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []
    one = asker("one")

    @agent
    async def boss(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out() as group:
            await group.start(one)
            diary.append("not reached")

    ended = await suspended(boss)
    assert (ended.result.status, ended.error, diary) == (Status.WAITING, None, [])


async def test_the_outcome_of_a_handle_that_waits_says_so(autojump_clock: MockClock) -> None:
    found: list[Outcome] = []
    one = asker("one")

    @agent
    async def boss(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out() as group:
            found.append(await group.start(one).outcome())

    ended = await suspended(boss)
    assert [outcome.status for outcome in found] == [Status.WAITING]
    assert ended.result.status is Status.WAITING


async def test_a_tapped_child_that_waits_ends_its_reader_as_waiting(
    autojump_clock: MockClock,
) -> None:
    child = asker("child")

    @agent
    async def reader(ctx: InvocationContext) -> Yields:
        async with ctx.open_agent(child) as events:
            async for event in events:
                yield event
        yield "not reached"

    ended = await suspended(reader)
    assert (ended.result.status, texts(ended.delivered)) == (Status.WAITING, [])


async def test_waiting_is_no_failure_to_try_again(autojump_clock: MockClock) -> None:
    tries: list[int] = []

    @agent(retry=Retry(max_attempts=5))
    async def once(ctx: InvocationContext) -> None:
        tries.append(1)
        await ctx.request_input("well?")

    ended = await suspended(once)
    assert (ended.result.status, tries) == (Status.WAITING, [1])


async def test_a_timeout_does_not_expire_while_it_is_suspended(
    autojump_clock: MockClock,
) -> None:
    tree = ParallelAgent(
        "fan", [asker("a"), leaf("b", 5, "x")], timeout=7, idle_timeout=6
    ).with_options(timeout=7)
    ended = await suspended(tree)
    assert (ended.result.status, ended.error) == (Status.WAITING, None)


async def test_plugins_are_told_once(autojump_clock: MockClock) -> None:
    told: Diary = []

    class Teller(Plugin):
        def on_agent_end(self, ctx: InvocationContext, outcome: Outcome) -> None:
            told.append(f"{ctx.path} {outcome.status}")

        async def on_agent_error_callback(self, ctx: InvocationContext, error: Exception) -> None:
            told.append(f"{ctx.path}: {error!r}")

    await suspended(Runner(ParallelAgent("fan", [asker("a"), leaf("b")]), plugins=[Teller()]))
    assert sorted(told) == ["fan waiting", "fan/a waiting", "fan/b completed"]


# ----------------------------------------------------------------------- messages are another thing


async def test_waiting_for_a_message_is_not_waiting_for_a_person(
    autojump_clock: MockClock,
) -> None:
    """Whoever reads may still send it: the run goes on until it comes."""
    tree = ParallelAgent("fan", [asker("a"), leaf("b", lambda ctx: ctx.receive(), "b heard")])
    async with Runner(tree).open(run_config=SUSPEND) as run:
        await anext(run)
        with trio.move_on_after(1000) as patience:
            await anext(run)
        assert patience.cancelled_caught
        await run.send("go on", to="fan.b")
        assert texts([event async for event in run]) == ["go on", "b heard"]
    assert run.result.status is Status.WAITING


async def test_a_branch_that_waits_for_a_person_takes_no_messages(
    autojump_clock: MockClock,
) -> None:
    tree = ParallelAgent("fan", [asker("a"), leaf("b", 5)])
    async with Runner(tree).open(run_config=SUSPEND) as run:
        await anext(run)
        with trio.move_on_after(1):
            await anext(run)
        with pytest.raises(MessageRefusedError, match=r"'fan\.a' is running .*: fan\.b"):
            await run.send("hello", to="fan.a")
        assert [event.author async for event in run] == ["fan"]


# ------------------------------------------------------------------------------------------ and not


async def test_by_default_a_run_waits_on(autojump_clock: MockClock) -> None:
    async with Runner(asker("a")).open() as run:
        await anext(run)
        with trio.move_on_after(10**6) as patience:
            await anext(run)
        assert patience.cancelled_caught
        with pytest.raises(ReadError):
            run.result  # noqa: B018  # it has not ended
        await run.respond("a", 1)
        assert [event.author async for event in run] == ["user", "a"]


@pytest.mark.parametrize("on_wait", ["suspended", "", None, True])
def test_there_are_two_ways_to_wait(on_wait: Any) -> None:
    with pytest.raises(ValueError, match="on_wait") as refused:
        RunConfig(on_wait=on_wait)
    assert str(refused.value) == f"on_wait is 'stay' or 'suspend', not {on_wait!r}"
