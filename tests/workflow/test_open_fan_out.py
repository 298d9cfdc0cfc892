"""Fork and go on: ``async with ctx.open_fan_out() as group``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    Barrier,
    BestEffort,
    BranchCancelledError,
    Event,
    FailFast,
    FanOut,
    FanOutError,
    FirstSuccess,
    Handle,
    InvocationContext,
    LoopAgent,
    MessageRefusedError,
    MessageTypeError,
    ParallelAgent,
    Quorum,
    QuorumError,
    Retry,
    Run,
    RunConfig,
    Runner,
    SequentialAgent,
    Status,
    TreeError,
    UnstorableError,
    WaitAll,
    agent,
)
from parallel_agent import Escalate as AskSomebody
from tests.support.drawing import fewer
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

Body: TypeAlias = Callable[[InvocationContext], Awaitable[Any]]


def owner(body: Body, name: str = "owner", **options: Any) -> Agent:
    """An agent that does ``body``; what that returns is its output."""

    @agent(name=name, **options)
    async def run(ctx: InvocationContext) -> Any:
        return await body(ctx)

    return run


class BadItemError(Exception):
    """What `worker` raises, with its item in it."""


@agent
async def worker(ctx: InvocationContext, item: float) -> float:
    """Works as many seconds as its item says, and fails then if that is below zero."""
    await trio.sleep(abs(item))
    if item < 0:
        raise BadItemError(item)
    return item


def tidy(name: str, diary: Diary, seconds: float = 99, clean_up: float = 0) -> Agent:
    """Works for a while, and takes its time to clean up."""

    @agent(name=name)
    async def run(ctx: InvocationContext) -> None:
        diary.append(f"{name} starts")
        try:
            await trio.sleep(seconds)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(clean_up)
            diary.append(f"{name} ends")

    return run


def without_fan_outs(events: list[Event]) -> list[str]:
    return [f"{event.path}: {event.text}" for event in events if event.text]


# ------------------------------------------------------------------------------ start, and go on


def test_start_does_not_wait_and_awaiting_a_handle_gives_the_output() -> None:
    async def body(ctx: InvocationContext) -> Any:
        began = trio.current_time()
        async with ctx.open_fan_out() as group:
            handles = [group.start(worker, seconds) for seconds in (3, 1)]
            assert trio.current_time() == began
            outputs = [await handle for handle in handles]
            return [outputs, trio.current_time() - began]

    assert run_tree(owner(body)).result.output == [[3.0, 1.0], 3.0]


def test_a_handle_may_be_awaited_again_and_after_the_block() -> None:
    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as group:
            handle = group.start(worker, 2)
            first = await handle
        return [first, await handle, (await handle.outcome()).output]

    assert run_tree(owner(body)).result.output == [2.0, 2.0, 2.0]


def test_the_block_waits_for_its_branches() -> None:
    async def body(ctx: InvocationContext) -> Any:
        began = trio.current_time()
        async with ctx.open_fan_out() as group:
            handle = group.start(worker, 5)
        assert handle.done
        return trio.current_time() - began

    assert run_tree(owner(body)).result.output == 5.0


def test_a_handle_says_what_it_is() -> None:
    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as group:
            handle = group.start(worker, 1)
            said = [handle.name, handle.branch, handle.path, handle.done, repr(handle)]
            assert group.handles == (handle,)
            assert repr(group) == "<FanOut of owner: 1 running>"
            await handle
            return [*said, handle.done, repr(handle)]

    assert run_tree(owner(body)).result.output == [
        "worker@1",
        "owner.worker@1",
        "owner/worker@1",
        False,
        "<Handle worker@1: pending>",
        True,
        "<Handle worker@1: completed>",
    ]


def test_an_outcome_is_as_the_branch_ended() -> None:
    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out(barrier=BestEffort()) as group:
            good, bad = group.start(worker, 2), group.start(worker, -1)
            outcome = await good.outcome()
            assert (outcome.status, outcome.output, outcome.duration) == (Status.COMPLETED, 2, 2)
            outcome = await bad.outcome()
            assert (outcome.status, outcome.output, outcome.attempts) == (Status.FAILED, None, 1)
            assert isinstance(outcome.error, BadItemError)

    assert run_tree(owner(body)).error is None


def test_the_agent_and_its_branches_emit_side_by_side() -> None:
    @agent
    async def talker(ctx: InvocationContext) -> Yields:
        async with ctx.open_fan_out() as group:
            group.start(leaf("child", 1, "1 s", 2, "3 s"))
            yield "0 s"
            await trio.sleep(2)
            yield "2 s"
            await trio.sleep(2)
            yield "4 s"
        yield "after"

    ended = run_tree(talker)
    assert [event.text for event in ended.delivered if event.text] == [
        *("0 s", "1 s", "2 s", "3 s", "4 s"),
        "after",
    ]


def test_an_open_fan_out_of_nothing_is_fine() -> None:
    async def body(ctx: InvocationContext) -> str:
        async with ctx.open_fan_out() as group:
            assert group.handles == ()
            assert [handle async for handle in group.finished] == []
        return "fine"

    assert run_tree(owner(body)).result.text == "fine"


def test_outcomes_are_recorded_in_one_event_in_the_order_of_starting() -> None:
    async def body(ctx: InvocationContext) -> list[str]:
        async with ctx.open_fan_out() as group:
            for seconds in (3, 1, 2):
                group.start(worker, seconds)
        return [outcome.name for outcome in ctx.outcomes("owner")]

    ended = run_tree(owner(body))
    assert ended.result.output == ["worker@1", "worker@2", "worker@3"]
    (record,) = [event for event in ended.delivered if event.actions.outcomes]
    assert [one.name for one in record.actions.outcomes] == ended.result.output
    assert record.path == "owner"
    assert [outcome.duration for outcome in ended.run.outcomes("owner")] == [3, 1, 2]


# -------------------------------------------------------------------------------- state, history


def test_what_was_written_before_a_start_is_recorded_before_anything_of_the_branch() -> None:
    @agent
    async def child(ctx: InvocationContext) -> Any:
        return [ctx.state["k"], [dict(event.state_delta) for event in ctx.history()][1:]]

    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as group:
            ctx.state["k"] = 1
            first = await group.start(child)
            ctx.state["k"] = 2
            handle = group.start(child)
            await trio.sleep(1)
            return [first, await handle]

    ended = run_tree(owner(body))
    first, second = ended.result.output
    assert first == [1, [{"k": 1}]]
    assert second[0] == 2
    assert second[1][0] == {"k": 1}
    assert second[1][-1] == {"k": 2}
    assert [event.author for event in ended.result.events][:2] == ["owner", "child"]


def test_a_branch_may_change_what_was_written_right_before_its_start() -> None:
    """It sees the write, so the two do not conflict."""

    @agent
    async def child(ctx: InvocationContext) -> None:
        ctx.state["k"] = ctx.state["k"] + 1

    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as group:
            ctx.state["k"] = 1
            group.start(child)
        return ctx.state["k"]

    assert run_tree(Runner(owner(body), on_conflict="error")).result.output == 2


def test_branches_that_do_not_see_each_other_conflict() -> None:
    @agent
    async def child(ctx: InvocationContext, item: int) -> None:
        ctx.state["k"] = item

    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out() as group:
            group.start(child, 1)
            group.start(child, 2)

    ended = run_tree(Runner(owner(body), on_conflict="error"))
    assert "was written by branch 'owner.child@" in str(ended.error)


def test_a_branch_sees_the_events_of_those_that_ended_before_it_started() -> None:
    @agent
    async def child(ctx: InvocationContext) -> Yields:
        seen = [event.path for event in ctx.history() if event.author in ("child", "slow")]
        yield "x"
        yield Event(output=seen)

    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as group:
            group.start(leaf("slow", "x", 9))
            first = await group.start(child)
            return [first, await group.start(child)]

    assert run_tree(owner(body)).result.output == [[], ["owner/child@1"] * 2]


def test_the_agent_sees_the_events_of_a_branch_when_that_has_ended() -> None:
    async def body(ctx: InvocationContext) -> Any:
        def seen() -> list[str]:
            return [event.text for event in ctx.history()[1:] if event.text]

        async with ctx.open_fan_out() as group:
            quick = group.start(leaf("quick", "quick"))
            group.start(leaf("slow", "slow", 9))
            await trio.sleep(1)
            await quick
            before = seen()
        return [before, seen()]

    before, after = run_tree(owner(body)).result.output
    assert before == ["quick"]
    assert sorted(after) == ["quick", "slow"]


def test_a_branch_does_not_see_what_its_siblings_have_pending() -> None:
    @agent
    async def child(ctx: InvocationContext, item: int) -> list[str]:
        ctx.state[f"k{item}"] = item
        await trio.sleep(1)
        return sorted(key for key in ctx.state if key.startswith("k"))

    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as group:
            handles = [group.start(child, item) for item in (1, 2)]
            return [await handle for handle in handles]

    assert run_tree(owner(body)).result.output == [["k1"], ["k2"]]


# ------------------------------------------------------------------------------------- keys


def test_a_key_names_the_branch() -> None:
    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as group:
            keys = ("auth", "billing_2", "2-b", "ß")
            handles = [group.start(worker, 1, key=key) for key in keys]
            numbered = group.start(worker, 1)
            return [[handle.name, handle.branch] for handle in (*handles, numbered)]

    assert run_tree(owner(body)).result.output == [
        ["worker@auth", "owner.worker@auth"],
        ["worker@billing_2", "owner.worker@billing_2"],
        ["worker@2-b", "owner.worker@2-b"],
        ["worker@ß", "owner.worker@ß"],
        ["worker@1", "owner.worker@1"],
    ]


@pytest.mark.parametrize("key", ["", "a b", "a.b", "a/b", "a@b", "1", "-", "a~2", "²", 1, b"a"])
def test_a_key_that_would_spoil_a_path_is_refused(key: Any) -> None:
    async def body(ctx: InvocationContext) -> str:
        async with ctx.open_fan_out() as group:
            with pytest.raises(FanOutError, match="a key is letters, digits, - and _"):
                group.start(worker, 1, key=key)
        return "refused"

    assert run_tree(owner(body)).result.text == "refused"


def test_a_key_is_refused_the_second_time_in_another_block_too() -> None:
    said = "unique within one activation of 'owner'; 'a' was used for 'worker' before"

    async def body(ctx: InvocationContext) -> str:
        async with ctx.open_fan_out() as group:
            group.start(worker, 1, key="a")
            with pytest.raises(FanOutError, match=said):
                group.start(worker, 1, key="a")
            group.start(leaf("other"), key="a")
        async with ctx.open_fan_out() as group:
            with pytest.raises(FanOutError, match=said):
                group.start(worker, 1, key="a")
        return "refused"

    assert run_tree(owner(body)).result.text == "refused"


def test_another_activation_of_the_agent_may_use_the_key_again() -> None:
    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out() as group:
            group.start(leaf("child", "x"), key="a")

    ended = run_tree(LoopAgent("loop", [owner(body)], max_iterations=2))
    assert without_fan_outs(ended.delivered) == [
        "loop/owner@1/child@a: x",
        "loop/owner@2/child@a: x",
    ]


def test_a_start_that_is_refused_uses_up_neither_number_nor_key() -> None:
    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as group:
            with pytest.raises(UnstorableError):
                group.start(worker, object())
            with pytest.raises(UnstorableError):
                group.start(worker, object(), key="a")
            return [group.start(worker, 0).name, group.start(worker, 0, key="a").name]

    assert run_tree(owner(body)).result.output == ["worker@1", "worker@a"]


# ----------------------------------------------------------------------------------- misuse


@pytest.mark.parametrize("what", [None, "worker", len, worker.function, type(worker)])
def test_what_is_no_agent_is_refused(what: Any) -> None:
    async def body(ctx: InvocationContext) -> str:
        async with ctx.open_fan_out() as group:
            with pytest.raises(TreeError, match="what start\\(\\) was given is no agent"):
                group.start(what)
        return "refused"

    assert run_tree(owner(body)).result.text == "refused"


def test_after_the_block_nothing_starts() -> None:
    async def body(ctx: InvocationContext) -> str:
        async with ctx.open_fan_out() as group:
            pass
        with pytest.raises(FanOutError, match="has ended; start branches in its block"):
            group.start(worker, 1)
        with suppress(BadItemError):
            async with ctx.open_fan_out() as group:
                raise BadItemError
        with pytest.raises(FanOutError, match="has ended; start branches in its block"):
            group.start(worker, 1)
        return "refused"

    assert run_tree(owner(body)).result.text == "refused"


def test_a_block_is_entered_once() -> None:
    async def body(ctx: InvocationContext) -> str:
        block = ctx.open_fan_out()
        async with block:
            with pytest.raises(FanOutError, match="was opened already"):
                await block.__aenter__()
        with pytest.raises(FanOutError, match="was opened already"):
            async with block:
                pass
        return "refused"

    assert run_tree(owner(body)).result.text == "refused"


def test_a_block_that_is_never_entered_does_nothing() -> None:
    async def body(ctx: InvocationContext) -> str:
        ctx.open_fan_out()
        return "fine"

    ended = run_tree(owner(body))
    assert ended.result.text == "fine"
    assert len(ended.result.events) == 1


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
        lambda block: block.start(worker, 1),
        lambda block: block.finished,
        lambda block: block.handles,
        lambda block: block.cancel(),
        _in_a_plain_with,
        _awaited,
        _iterated_over,
    ],
)
@pytest.mark.parametrize("is_open", [False, True])
def test_using_it_without_its_block_says_how_to_open_one(
    use: Callable[[Any], Awaitable[None] | None], *, is_open: bool
) -> None:
    async def misuse(block: Any) -> None:
        result = use(block)
        if result is not None:
            await result

    async def body(ctx: InvocationContext) -> str:
        block = ctx.open_fan_out()
        async with block if is_open else nullcontext():
            with pytest.raises(FanOutError) as refused:
                await misuse(block)
        return str(refused.value)

    assert "`async with ctx.open_fan_out() as group:`" in run_tree(owner(body)).result.text


@pytest.mark.parametrize("name", ["starts", "_crew_of", "__deepcopy__"])
def test_what_no_fan_out_has_is_no_attribute_of_one_that_is_not_open(name: str) -> None:
    async def body(ctx: InvocationContext) -> str:
        with pytest.raises(AttributeError, match=f"'OpenFanOut' object has no attribute '{name}'"):
            getattr(ctx.open_fan_out(), name)
        return "none"

    assert run_tree(owner(body)).result.text == "none"


@pytest.mark.parametrize(
    "open_it",
    [
        lambda ctx: ctx.open_fan_out(barrier=WaitAll),
        lambda ctx: ctx.open_fan_out(barrier="wait"),
        lambda ctx: ctx.open_fan_out(max_concurrency=0),
        lambda ctx: ctx.open_fan_out(max_concurrency=2.0),
    ],
)
def test_bad_arguments_are_refused_before_the_block(open_it: Callable[[Any], Any]) -> None:
    async def body(ctx: InvocationContext) -> str:
        with pytest.raises(FanOutError):
            open_it(ctx)
        return "refused"

    assert run_tree(owner(body)).result.text == "refused"


def test_a_context_whose_agent_has_ended_opens_nothing() -> None:
    kept: list[Any] = []

    async def late(ctx: InvocationContext) -> str:
        with pytest.raises(RuntimeError, match="has ended"):
            kept[0].open_fan_out()
        with pytest.raises(RuntimeError, match="has ended"):
            await kept[1].__aenter__()
        return "refused"

    def keep(ctx: InvocationContext) -> None:
        kept.extend([ctx, ctx.open_fan_out()])

    ended = run_tree(SequentialAgent("s", [leaf("first", keep), owner(late)]))
    assert ended.result.text == "refused"


# ---------------------------------------------------------------------------- errors, one by one


def test_awaiting_a_handle_raises_the_error_as_itself_each_time() -> None:
    caught: list[BaseException] = []

    async def body(ctx: InvocationContext) -> str:
        async with ctx.open_fan_out(barrier=WaitAll()) as group:
            handle = group.start(worker, -1)
            for _ in range(3):
                try:
                    await handle
                except BadItemError as exc:
                    caught.append(exc)
            outcome = await handle.outcome()
        caught.append(outcome.error or KeyError())
        return "handled"

    ended = run_tree(owner(body))
    assert ended.result.text == "handled"
    assert len(caught) == 4
    assert len(set(map(id, caught))) == 1
    assert caught[0].__notes__ == ["raised by agent owner/worker@1"]


def test_an_error_that_was_awaited_and_not_caught_leaves_as_itself() -> None:
    diary: Diary = []

    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out(barrier=WaitAll()) as group:
            group.start(tidy("other", diary, clean_up=3))
            await group.start(worker, -1)

    ended = run_tree(owner(body))
    assert isinstance(ended.error, BadItemError)
    assert ended.notes == ["raised by agent owner/worker@1"]
    assert diary == ["other starts", "other ends"]
    assert ended.time == 4
    assert ended.outcomes("owner") == {"other@1": "cancelled", "worker@1": "failed"}


@pytest.mark.parametrize(
    ("barrier", "kind"),
    [
        (FailFast(), BadItemError),
        (WaitAll(), ExceptionGroup),
        (BestEffort(), type(None)),
        (FirstSuccess(), QuorumError),
        (Quorum(1), QuorumError),
        (Quorum(2), QuorumError),
    ],
)
def test_an_error_nobody_awaited_is_raised_at_the_end_as_the_policy_says(
    barrier: Barrier, kind: type[BaseException]
) -> None:
    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out(barrier=barrier) as group:
            group.start(worker, -1)

    ended = run_tree(owner(body))
    assert type(ended.error) is kind
    if isinstance(ended.error, BaseExceptionGroup):
        assert [error.args for error in ended.error.exceptions] == [(-1.0,)]


def test_asking_for_the_outcome_is_not_awaiting_the_error() -> None:
    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out(barrier=WaitAll()) as group:
            assert (await group.start(worker, -1).outcome()).status is Status.FAILED

    assert isinstance(run_tree(owner(body)).error, ExceptionGroup)


def test_errors_that_were_awaited_are_not_raised_again() -> None:
    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out(barrier=WaitAll()) as group:
            handles = [group.start(worker, item) for item in (-1, -2, -3)]
            with pytest.raises(BadItemError):
                await handles[1]

    ended = run_tree(owner(body))
    assert isinstance(ended.error, ExceptionGroup)
    assert [error.args for error in ended.error.exceptions] == [(-1.0,), (-3.0,)]


def test_if_all_were_awaited_nothing_is_raised() -> None:
    async def body(ctx: InvocationContext) -> str:
        async with ctx.open_fan_out(barrier=WaitAll()) as group:
            for item in (-1, 2, -3):
                with suppress(BadItemError):
                    await group.start(worker, item)
        return "done"

    ended = run_tree(owner(body))
    assert ended.result.text == "done"
    # Dealt with, they are failures all the same.
    assert list(ended.outcomes("owner").values()) == ["failed", "completed", "failed"]


def test_an_error_that_was_awaited_does_not_come_back_because_a_branch_escalates() -> None:
    async def body(ctx: InvocationContext) -> str:
        async with ctx.open_fan_out(barrier=WaitAll()) as group:
            with suppress(BadItemError):
                await group.start(worker, -1)
            group.start(leaf("stops", Escalate()))
        return "done"

    assert run_tree(owner(body)).result.text == "done"


def test_a_quorum_that_was_missed_is_raised_for_the_errors_nobody_awaited() -> None:
    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out(barrier=Quorum(2)) as group:
            group.start(worker, 1)
            with suppress(BadItemError):
                await group.start(worker, -2)
            group.start(worker, -3)

    ended = run_tree(owner(body))
    assert isinstance(ended.error, QuorumError)
    assert (ended.error.completed, ended.error.width) == (1, 3)
    assert [error.args for error in ended.error.exceptions] == [(-3.0,)]


def test_a_quorum_for_which_too_few_were_started_says_so() -> None:
    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out(barrier=Quorum(3)) as group:
            group.start(worker, 1)
            group.start(worker, 1)

    ended = run_tree(owner(body))
    assert isinstance(ended.error, FanOutError)
    assert str(ended.error) == "3 branches were to complete, and 2 were started"


@pytest.mark.parametrize("barrier", [WaitAll(), BestEffort(), AskSomebody()])
def test_a_failure_leaves_the_block_and_the_others_alone(barrier: Barrier) -> None:
    async def body(ctx: InvocationContext) -> str:
        async with ctx.open_fan_out(barrier=barrier) as group:
            group.start(worker, -1)
            other = group.start(worker, 5)
            await trio.sleep(3)
            assert not other.done
            assert await other == 5
            return "went on"

    async def main() -> Run:
        async with Runner(owner(body)).open() as run:
            with suppress(ExceptionGroup):
                async for event in run:
                    if event.request is not None:
                        await run.respond(event.request.id, "skip")
        return run

    assert [str(one.status) for one in run_virtual(main).outcomes("owner")] == [
        "failed",
        "completed",
    ]


def test_by_default_a_failure_cancels_the_others_and_the_block() -> None:
    diary: Diary = []

    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out() as group:
            group.start(tidy("other", diary, clean_up=2))
            group.start(worker, -1)
            try:
                await trio.sleep_forever()
            finally:
                diary.append(f"block left at {trio.current_time() - began}")

    began = run_virtual(_now)
    ended = run_tree(owner(body))
    assert isinstance(ended.error, BadItemError)
    assert ended.notes == ["raised by agent owner/worker@1"]
    assert ended.time == 3
    assert diary == ["other starts", "block left at 1.0", "other ends"]


async def _now() -> float:
    return trio.current_time()


def test_a_failure_at_a_yield_of_the_block_ends_it_there() -> None:
    where: list[str] = []

    @agent(name="owner")
    async def talker(ctx: InvocationContext) -> Yields:
        async with ctx.open_fan_out() as group:
            group.start(worker, -1.5)
            for number in range(9):
                try:
                    yield f"{number}"
                    await trio.sleep(1)
                except trio.Cancelled:
                    where.append(str(number))
                    raise

    ended = run_tree(talker)
    assert isinstance(ended.error, BadItemError)
    assert where == ["1"]


def test_the_error_that_ended_the_block_has_no_cancellation_in_its_context() -> None:
    inner = KeyError("inner")

    @agent
    async def child(ctx: InvocationContext) -> None:
        try:
            raise inner
        except KeyError:
            raise BadItemError from None

    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out() as group:
            group.start(child)
            await trio.sleep(9)

    ended = run_tree(owner(body))
    assert isinstance(ended.error, BadItemError)
    assert ended.error.__context__ is inner


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int


def test_an_exception_that_cannot_be_changed_is_raised_all_the_same() -> None:
    @agent
    async def child(ctx: InvocationContext) -> None:
        raise FrozenError(3)

    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out() as group:
            group.start(child)
            await trio.sleep(9)

    assert run_tree(owner(body)).error == FrozenError(3)


def test_what_the_block_raises_in_cleaning_up_after_a_failure_is_a_note_on_it() -> None:
    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out() as group:
            group.start(worker, -1)
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("clean-up")

    ended = run_tree(owner(body))
    assert isinstance(ended.error, BadItemError)
    assert ended.notes == [
        "raised by agent owner/worker@1",
        "then, in cleaning up: KeyError: 'clean-up'",
    ]


def test_a_block_that_swallows_its_cancellation_cannot_go_on() -> None:
    reached: list[str] = []

    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out() as group:
            group.start(worker, -1)
            with suppress(trio.Cancelled):
                await trio.sleep(9)
            late = group.start(leaf("late", "never"))
            with suppress(trio.Cancelled):
                await trio.sleep(9)
            reached.append(repr(late))

    ended = run_tree(owner(body))
    assert isinstance(ended.error, BadItemError)
    assert reached == ["<Handle late@1: pending>"]
    assert ended.outcome("owner", "late@1").attempts == 0
    assert texts(ended.delivered) == []


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_branches_that_fail_in_one_tick_the_first_started_is_raised(
    order: tuple[int, int],
) -> None:
    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out() as group:
            for item in order:
                group.start(worker, -1 - item / 1e9)
            await trio.sleep(9)

    for _ in range(5):
        ended = run_tree(owner(body))
        assert isinstance(ended.error, BadItemError)


def test_in_one_tick_declaration_order_decides() -> None:
    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out() as group:
            for _ in range(3):
                group.start(worker, -1)
            await trio.sleep(9)

    for _ in range(10):
        ended = run_tree(owner(body))
        assert ended.notes[0] == "raised by agent owner/worker@1"
        assert [note.partition(": ")[2][:16] for note in ended.notes[1:]] == [
            "owner/worker@2: ",
            "owner/worker@3: ",
        ]


# ----------------------------------------------------------------------- how the block is left


def test_an_exception_of_the_block_leaves_as_itself_when_all_have_cleaned_up() -> None:
    diary: Diary = []
    error = KeyError("mine")

    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out() as group:
            group.start(tidy("child", diary, clean_up=3))
            await trio.sleep(1)
            raise error

    ended = run_tree(owner(body))
    assert ended.error is error
    assert ended.notes == ["raised by agent owner"]
    assert ended.time == 4
    assert diary == ["child starts", "child ends"]


def test_what_fails_while_the_block_is_left_by_an_exception_is_a_note_on_it() -> None:
    @agent
    async def child(ctx: InvocationContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise BadItemError("clean-up")

    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out() as group:
            group.start(child)
            await trio.sleep(1)
            raise KeyError("mine")

    ended = run_tree(owner(body))
    assert isinstance(ended.error, KeyError)
    assert ended.notes == [
        "another branch failed too: owner/child@1: BadItemError: clean-up",
        "raised by agent owner",
    ]


def test_outcomes_are_recorded_when_the_block_is_left_by_an_exception_too() -> None:
    async def body(ctx: InvocationContext) -> str:
        with suppress(KeyError):
            async with ctx.open_fan_out(barrier=WaitAll()) as group:
                group.start(worker, 1)
                group.start(worker, -1)
                group.start(worker, 5)
                await trio.sleep(2)
                raise KeyError("mine")
        return "caught"

    ended = run_tree(owner(body))
    assert ended.result.text == "caught"
    (record,) = [event for event in ended.delivered if event.actions.outcomes]
    assert [(one.name, one.status) for one in record.actions.outcomes] == [
        ("worker@1", "completed"),
        ("worker@2", "failed"),
        ("worker@3", "cancelled"),
    ]


@pytest.mark.parametrize("way", ["return", "break", "continue"])
def test_leaving_the_block_in_an_ordinary_way_waits_for_the_branches(way: str) -> None:
    async def body(ctx: InvocationContext) -> Any:
        for _ in range(1):
            async with ctx.open_fan_out() as group:
                group.start(worker, 4)
                if way == "return":
                    return "returned"
                if way == "break":
                    break
                continue
        return "after"

    ended = run_tree(owner(body))
    assert ended.result.text == ("returned" if way == "return" else "after")
    assert ended.time == 4
    assert ended.outcomes("owner") == {"worker@1": "completed"}


def test_a_timeout_around_the_block_cancels_and_joins_its_branches() -> None:
    diary: Diary = []

    async def body(ctx: InvocationContext) -> Any:
        with trio.move_on_after(2) as scope:
            async with ctx.open_fan_out() as group:
                group.start(tidy("child", diary, clean_up=3))
                group.start(leaf("quick", "quick"))
                await trio.sleep_forever()
        await ctx.emit("went on")
        seen = [event.text for event in ctx.history()[1:] if event.text]
        return [scope.cancelled_caught, seen, await ctx.run_agent(leaf("next", "next"))]

    ended = run_tree(owner(body))
    assert ended.result.output == [True, ["quick", "went on"], "next"]
    assert diary == ["child starts", "child ends"]
    assert ended.time == 5


def test_a_timeout_inside_the_block_leaves_the_branches_alone() -> None:
    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as group:
            handle = group.start(worker, 5)
            with trio.move_on_after(1):
                await handle
            assert not handle.done
            return await handle

    assert run_tree(owner(body)).result.output == 5


class ReaderLeavesError(Exception):
    """What a reader raises."""


WAYS = ("break", "raise", "run.cancel", "sibling fails", "sibling escalates", "timeout")


@attrs.frozen
class Moment:
    """A block with its branches, and when and how it is cancelled from outside.

    Branches work as many seconds as ``items`` say, fail then if that is below zero, and take
    ``clean_up`` seconds more whatever happens.
    """

    way: str
    when: float
    items: tuple[float, ...]
    clean_up: float
    stays: float
    barrier: Barrier
    limit: int | None
    run_limit: int | None

    def tree(self, diary: Diary) -> Agent:
        @agent
        async def child(ctx: InvocationContext, item: float) -> Yields:
            diary.append("starts")
            try:
                await trio.sleep(abs(item) / 2)
                yield "half"
                await trio.sleep(abs(item) / 2)
                if item < 0:
                    raise BadItemError(item)
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(self.clean_up)
                    diary.append("ends")
                    yield "clean"

        async def body(ctx: InvocationContext) -> None:
            options: Any = {"barrier": self.barrier, "max_concurrency": self.limit}
            try:
                async with ctx.open_fan_out(**options) as group:
                    for item in self.items:
                        group.start(child, item)
                    await trio.sleep(self.stays)
                    await ctx.emit("stayed")
            finally:
                assert all(handle.done for handle in group.handles)

        if not self.way.startswith("sibling"):
            return owner(body)
        step = BadItemError("sibling") if self.way == "sibling fails" else Escalate()
        return ParallelAgent("p", [owner(body), leaf("sibling", self.when, step)])

    async def read(self, run: Run) -> None:
        leaves = self.way in ("break", "raise", "run.cancel")
        with trio.move_on_after(self.when if leaves else 99):
            await run.collect()
            return
        if self.way == "raise":
            raise ReaderLeavesError
        if self.way == "run.cancel":
            run.cancel("enough")
            await run.collect()

    async def perform(self, diary: Diary) -> tuple[BaseException | None, int]:
        """Return what left the run, and how many tasks it left behind."""
        living = trio.lowlevel.current_statistics().tasks_living
        error: BaseException | None = None
        config = RunConfig(max_concurrency=self.run_limit)
        with trio.move_on_after(self.when if self.way == "timeout" else 99):
            try:
                async with Runner(self.tree(diary)).open(run_config=config) as run:
                    await self.read(run)
            except trio.Cancelled:
                raise
            except BaseException as exc:  # noqa: BLE001  # judged by the test
                error = exc
        return error, trio.lowlevel.current_statistics().tasks_living - living


halves = st.integers(0, 12).map(lambda half: half / 2)
moments = st.builds(
    Moment,
    way=st.sampled_from(WAYS),
    when=halves,
    items=st.lists(st.integers(-5, 5).map(float), max_size=4).map(tuple),
    clean_up=st.sampled_from([0, 0, 1.5]),
    stays=halves,
    barrier=st.sampled_from([FailFast(), WaitAll(), BestEffort(), FirstSuccess()]),
    limit=st.sampled_from([None, 1, 2]),
    run_limit=st.sampled_from([None, 1]),
)


@given(moments, st.random_module())
def test_whenever_it_is_cancelled_from_outside_everything_is_joined(
    moment: Moment, seed: object
) -> None:
    """And no group of cancellations, nor anything of trio's, ever reaches the reader."""
    diary: Diary = []
    error, left_behind = run_virtual(lambda: moment.perform(diary))
    assert left_behind == 0
    assert diary.count("starts") == diary.count("ends")
    match error:
        case None:
            pass
        case QuorumError():
            assert isinstance(moment.barrier, FirstSuccess)
            inside = {type(one) for one in error.exceptions}
            assert inside <= {BadItemError, BranchCancelledError}
        case ExceptionGroup():
            assert isinstance(moment.barrier, WaitAll)
            assert {type(one) for one in error.exceptions} == {BadItemError}
        case _:
            assert isinstance(error, ReaderLeavesError | BadItemError)


# ------------------------------------------------------------------------- results as they come


@given(st.lists(st.integers(0, 4), max_size=8), st.integers(1, 3) | st.none(), st.random_module())
def test_handles_come_as_branches_end_each_once(
    seconds: list[int], limit: int | None, scheduler: object
) -> None:
    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out(max_concurrency=limit) as group:
            handles = [group.start(worker, number) for number in seconds]
            came = []
            async for handle in group.finished:
                assert handle.done
                came.append((trio.current_time(), handle))
            assert sorted(handles, key=id) == sorted((handle for _, handle in came), key=id)
            return [await handle for _, handle in came]

    output = run_tree(owner(body)).result.output
    assert sorted(output) == sorted(map(float, seconds))
    if limit is None:
        assert output == sorted(output)


def test_failed_and_cancelled_branches_come_as_well() -> None:
    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out(barrier=BestEffort()) as group:
            group.start(worker, -1)
            group.start(worker, 9).cancel()
            group.start(worker, 2)
            return [repr(handle) async for handle in group.finished]

    assert run_tree(owner(body)).result.output == [
        "<Handle worker@2: cancelled>",
        "<Handle worker@1: failed>",
        "<Handle worker@3: completed>",
    ]


def test_branches_may_be_started_while_others_come() -> None:
    async def body(ctx: InvocationContext) -> Any:
        sums = []
        async with ctx.open_fan_out() as group:
            group.start(worker, 3)
            async for handle in group.finished:
                number = await handle
                sums.append(number)
                if number:
                    group.start(worker, number - 1)
        return sums

    assert run_tree(owner(body)).result.output == [3, 2, 1, 0]


def test_two_consumers_share_them() -> None:
    async def body(ctx: InvocationContext) -> Any:
        got: dict[str, list[float]] = {"a": [], "b": []}

        async def consume(name: str) -> None:
            async for handle in group.finished:
                got[name].append(await handle)

        async with ctx.open_fan_out() as group:
            for seconds in range(6):
                group.start(worker, seconds)
            async with trio.open_nursery() as nursery:
                for name in got:
                    nursery.start_soon(consume, name)
        return sorted(got["a"] + got["b"])

    assert run_tree(owner(body)).result.output == [0, 1, 2, 3, 4, 5]


def test_iterating_again_gives_only_what_has_ended_since() -> None:
    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as group:
            group.start(worker, 1)
            first = [handle.name async for handle in group.finished]
            group.start(worker, 1)
            second = [handle.name async for handle in group.finished]
            third = [handle.name async for handle in group.finished]
            return [first, second, third]

    assert run_tree(owner(body)).result.output == [["worker@1"], ["worker@2"], []]


def test_what_nobody_has_taken_in_the_block_is_there_after_it() -> None:
    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as group:
            group.start(worker, 2)
            group.start(worker, 1)
        return [handle.name async for handle in group.finished]

    assert run_tree(owner(body)).result.output == ["worker@2", "worker@1"]


# --------------------------------------------------------------------------- cancelling, sending


def test_cancelling_one_branch_leaves_the_others_alone() -> None:
    diary: Diary = []

    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as group:
            doomed = group.start(tidy("doomed", diary, clean_up=2))
            other = group.start(worker, 5)
            await trio.sleep(1)
            doomed.cancel("not needed")
            assert not doomed.done
            outcome = await doomed.outcome()
            return [str(outcome.status), outcome.duration, await other]

    assert run_tree(owner(body)).result.output == ["cancelled", 3.0, 5.0]
    assert diary == ["doomed starts", "doomed ends"]


def test_awaiting_a_cancelled_branch_says_that_there_is_no_output() -> None:
    async def body(ctx: InvocationContext) -> str:
        async with ctx.open_fan_out() as group:
            handle = group.start(worker, 5)
            handle.cancel()
            with pytest.raises(BranchCancelledError, match="'worker@1' was cancelled, and has no"):
                await handle
        return "told"

    assert run_tree(owner(body)).result.text == "told"


def test_a_branch_cancelled_before_it_starts_never_does() -> None:
    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out(max_concurrency=1) as group:
            first = group.start(worker, 2)
            queued = group.start(leaf("queued", "never"))
            last = group.start(worker, 1)
            queued.cancel()
            outcome = await queued.outcome()
            assert not first.done
            return [str(outcome.status), outcome.attempts, await last]

    ended = run_tree(owner(body))
    assert ended.result.output == ["cancelled", 0, 1.0]
    assert ended.time == 3


def test_cancelling_what_has_ended_changes_nothing() -> None:
    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as group:
            handle = group.start(worker, 1)
            await handle
            handle.cancel()
            group.cancel()
            return [await handle, repr(handle)]

    assert run_tree(owner(body)).result.output == [1.0, "<Handle worker@1: completed>"]


def test_an_error_that_was_awaited_does_not_hide_the_same_one_of_another_branch() -> None:
    error = BadItemError("one object")

    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out(barrier=WaitAll()) as group:
            first = group.start(leaf("first", 1, error))
            group.start(leaf("second", 2, error))
            with pytest.raises(BadItemError):
                await first

    ended = run_tree(owner(body))
    assert isinstance(ended.error, ExceptionGroup)
    assert ended.error.exceptions == (error,)


def test_a_branch_that_fails_with_what_it_awaited_of_another_has_failed() -> None:
    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out(barrier=WaitAll()) as group:
            first = group.start(worker, -1)

            async def wait_for_it(_ctx: InvocationContext) -> Any:
                return await first

            group.start(owner(wait_for_it, "second"))

    ended = run_tree(owner(body))
    assert isinstance(ended.error, ExceptionGroup)
    assert [type(error) for error in ended.error.exceptions] == [BadItemError]


@pytest.mark.parametrize("what", ["handle", "group"])
@pytest.mark.parametrize("reason", [None, 3, ["enough"]])
def test_a_reason_that_is_no_text_is_refused_and_nothing_is_cancelled(
    what: str, reason: Any
) -> None:
    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as group:
            handle = group.start(worker, 1)
            with pytest.raises(MessageTypeError, match="the reason of a cancellation is text, not"):
                (handle if what == "handle" else group).cancel(reason)
            return await handle

    assert run_tree(owner(body)).result.output == 1.0


def test_cancelling_all_lets_more_start() -> None:
    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as group:
            group.start(worker, 50)
            group.start(worker, 60)
            await trio.sleep(1)
            group.cancel("enough")
            return await group.start(worker, 1)

    ended = run_tree(owner(body))
    assert ended.result.output == 1.0
    assert list(ended.outcomes("owner").values()) == ["cancelled", "cancelled", "completed"]
    assert ended.time == 2


def test_a_message_reaches_the_branch_and_is_recorded_there() -> None:
    @agent
    async def listener(ctx: InvocationContext) -> str:
        return f"heard {(await ctx.receive()).text}"

    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as group:
            one, other = group.start(listener), group.start(listener)
            await other.send("b")
            await one.send("a")
            outputs = [await one, await other]
            with pytest.raises(MessageRefusedError, match=r"'owner\.listener@1' has ended"):
                await one.send("c")
            return outputs

    ended = run_tree(owner(body))
    assert ended.result.output == ["heard a", "heard b"]
    messages = [(event.author, event.branch) for event in ended.delivered if event.text in "ab"]
    assert ("owner", "owner.listener@1") in messages


def test_one_branch_may_ask_a_person_while_the_others_go_on() -> None:
    @agent
    async def asker(ctx: InvocationContext) -> str:
        return await ctx.request_input("name?", schema=str)

    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as group:
            asked = group.start(asker)
            quick = [await group.start(worker, 1) for _ in range(3)]
            return [quick, await asked]

    async def main() -> Any:
        async with Runner(owner(body)).open() as run:
            question = await run.wait_for(lambda event: event.request is not None)
            await run.wait_for(lambda event: event.path == "owner/worker@3")
            assert question.request is not None
            await run.respond(question.request.id, "Ann")
            await run.collect()
        return run.result.output

    assert run_virtual(main) == [[1.0, 1.0, 1.0], "Ann"]


# ----------------------------------------------------------------------------- others with others


@fewer(2)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.integers(1, 3), st.random_module())
def test_no_more_run_than_the_limit_says(seconds: list[int], limit: int, scheduler: object) -> None:
    now, most = 0, 0

    @agent
    async def counted(ctx: InvocationContext, item: int) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await trio.sleep(item + 1)
        now -= 1

    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out(max_concurrency=limit) as group:
            for number in seconds:
                group.start(counted, number)

    run_tree(owner(body))
    assert most == min(limit, len(seconds))


def test_a_handle_may_be_awaited_by_another_agent() -> None:
    handles: dict[str, Handle] = {}

    @agent
    async def waiter(ctx: InvocationContext) -> float:
        return 10 * float(await handles["first"])

    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as group:
            handles["first"] = group.start(worker, 2)
            return await group.start(waiter)

    assert run_tree(owner(body)).result.output == 20


def test_a_branch_may_start_more_branches_beside_itself() -> None:
    groups: list[FanOut] = []

    @agent
    async def spreads(ctx: InvocationContext, depth: int) -> Yields:
        if depth:
            groups[0].start(spreads, depth - 1)
        yield f"{depth}"

    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out() as group:
            groups.append(group)
            group.start(spreads, 3)

    ended = run_tree(owner(body))
    assert sorted(without_fan_outs(ended.delivered)) == [
        "owner/spreads@1: 3",
        "owner/spreads@2: 2",
        "owner/spreads@3: 1",
        "owner/spreads@4: 0",
    ]


def test_blocks_nest_and_number_on() -> None:
    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as outer:
            slow = outer.start(worker, 5)
            async with ctx.open_fan_out(barrier=BestEffort()) as inner:
                failed, done = inner.start(worker, -1), inner.start(worker, 2)
            assert not slow.done
            return [failed.name, done.name, await done, await slow]

    assert run_tree(owner(body)).result.output == ["worker@2", "worker@3", 2.0, 5.0]


def test_a_failure_of_the_outer_block_ends_the_inner_one() -> None:
    diary: Diary = []

    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out() as outer:
            outer.start(worker, -1)
            async with ctx.open_fan_out() as inner:
                inner.start(tidy("inner", diary, clean_up=1))

    ended = run_tree(owner(body))
    assert isinstance(ended.error, BadItemError)
    assert diary == ["inner starts", "inner ends"]
    assert ended.time == 2


def test_other_agents_may_be_run_inside_the_block() -> None:
    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as group:
            handle = group.start(worker, 2)
            mapped = await ctx.map(worker, [1, 0])
            return [mapped, await ctx.run_agent(worker, 1), await handle]

    ended = run_tree(owner(body), run_config=RunConfig(max_concurrency=1))
    assert ended.result.output == [[1.0, 0.0], 1.0, 2.0]


def test_retries_around_and_inside_the_block_do_not_multiply() -> None:
    tried = 0

    @agent(retry=Retry(3, initial_delay=0))
    async def child(ctx: InvocationContext) -> None:
        nonlocal tried
        tried += 1
        raise BadItemError

    async def awaits(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out(barrier=WaitAll()) as group:
            await group.start(child)

    async def leaves_it(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out() as group:
            group.start(child)

    for body in (awaits, leaves_it):
        tried = 0
        ended = run_tree(owner(body, retry=Retry(3, initial_delay=0)))
        assert isinstance(ended.error, BadItemError)
        assert ended.notes == ["raised by agent owner/child@1~3"]
        assert tried == 3


def test_an_agent_that_is_tried_again_opens_its_block_anew() -> None:
    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as group:
            named, numbered = group.start(worker, 0, key="a"), group.start(worker, 1)
            if not ctx.path.endswith("~2"):
                raise BadItemError
            return [named.path, await numbered]

    ended = run_tree(owner(body, retry=Retry(2, initial_delay=0)))
    assert ended.result.output == ["owner~2/worker@a", 1.0]


def test_an_agent_that_is_tried_again_leaves_no_writes_of_the_branches_of_its_first_attempt() -> (
    None
):
    @agent
    async def child(ctx: InvocationContext, key: str) -> None:
        ctx.state[key] = ctx.path

    async def body(ctx: InvocationContext) -> None:
        first = not ctx.path.endswith("~2")
        async with ctx.open_fan_out() as group:
            await group.start(child, "first" if first else "second")
            if first:
                raise BadItemError

    ended = run_tree(owner(body, retry=Retry(2, initial_delay=0)))
    assert dict(ended.result.state) == {"second": "owner~2/child@1"}


def test_outcomes_can_be_read_after_a_run_that_failed() -> None:
    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out() as group:
            group.start(worker, -1)
            group.start(worker, 3)

    ended = run_tree(owner(body))
    assert ended.result.status is Status.FAILED
    assert ended.outcomes("owner") == {"worker@1": "failed", "worker@2": "cancelled"}


def test_a_branch_that_escalates_ends_the_others_and_the_block_goes_on() -> None:
    diary: Diary = []

    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as group:
            stops = group.start(leaf("stops", 2, Escalate(), "last words"))
            other = group.start(leaf("other", 1, "early", 3, "never", diary=diary))
            await trio.sleep(5)
            late = group.start(leaf("late", "never either"))
            outcomes = [await handle.outcome() for handle in (stops, other, late)]
            await ctx.emit("block")
            return [str(outcome.status) for outcome in outcomes]

    ended = run_tree(LoopAgent("loop", [owner(body), leaf("after", "not reached")]))
    assert ended.result.outputs["owner"] == ["completed", "cancelled", "cancelled"]
    assert texts(ended.delivered) == ["early", "stop", "last words", "block"]
    assert diary == ["other starts", "other ends"]


def test_a_winner_ends_the_others_and_the_block_goes_on() -> None:
    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out(barrier=FirstSuccess()) as group:
            handles = [group.start(worker, seconds) for seconds in (9, -1, 2)]
            await trio.sleep(3)
            late = group.start(worker, 0)
            return [str((await one.outcome()).status) for one in (*handles, late)]

    ended = run_tree(owner(body))
    assert ended.result.output == ["cancelled", "failed", "completed", "cancelled"]
    assert ended.time == 3


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("barrier", [FailFast(), WaitAll(), BestEffort(), FirstSuccess()])
def test_an_interrupt_in_a_branch_ends_all_and_leaves_bare(
    barrier: Barrier, fatal: type[BaseException]
) -> None:
    diary: Diary = []

    def interrupt(ctx: object) -> None:
        raise fatal

    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out(barrier=barrier) as group:
            group.start(tidy("other", diary))
            group.start(leaf("interrupted", 1, interrupt))
            await trio.sleep_forever()

    async def main() -> float:
        began = trio.current_time()
        async with Runner(owner(body)).open() as run:
            with pytest.raises(fatal):
                await run.collect()
        return trio.current_time() - began

    assert run_virtual(main) == 1
    assert diary == ["other starts", "other ends"]


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_the_block_ends_all_and_leaves_bare(fatal: type[BaseException]) -> None:
    diary: Diary = []

    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out() as group:
            group.start(tidy("other", diary))
            await trio.sleep(1)
            raise fatal

    async def main() -> None:
        async with Runner(owner(body)).open() as run:
            with pytest.raises(fatal):
                await run.collect()

    run_virtual(main)
    assert diary == ["other starts", "other ends"]


# -------------------------------------------------------------------- a person chooses to try again


def ask_and_answer(tree: Agent, *answers: str) -> Ended:
    """Run a tree; answer its questions in turn, each a second after it was asked."""

    async def main() -> Ended:
        error: BaseException | None = None
        delivered = []
        left = list(answers)
        began = trio.current_time()
        async with Runner(tree).open("hi") as run:
            try:
                async for event in run:
                    delivered.append(event)
                    if event.request is not None:
                        await trio.sleep(1)
                        await run.respond(event.request.id, left.pop(0))
            except Exception as exc:  # noqa: BLE001  # handed to the test
                error = exc
        return Ended(run, delivered, error, trio.current_time() - began)

    return run_virtual(main)


def flaky(failures: int) -> Agent:
    """Fails so often, and then says what message it got."""
    tried = 0

    @agent
    async def run(ctx: InvocationContext) -> str:
        nonlocal tried
        tried += 1
        if tried <= failures:
            raise BadItemError(tried)
        return (await ctx.receive()).text

    return run.with_options(name="flaky")


def test_a_handle_follows_its_branch_to_another_try() -> None:
    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out(barrier=AskSomebody()) as group:
            handle = group.start(flaky(1))
            await trio.sleep(5)
            path = handle.path
            await handle.send("hello")
            return [path, await handle, (await handle.outcome()).attempts]

    ended = ask_and_answer(owner(body), "retry")
    assert ended.result.output == ["owner/flaky@1~2", "hello", 2]


def test_cancelling_a_handle_withdraws_the_question_about_it() -> None:
    async def body(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out(barrier=AskSomebody()) as group:
            handle = group.start(flaky(1))
            await trio.sleep(1)
            handle.cancel()
            return str((await handle.outcome()).status)

    async def main() -> Any:
        async with Runner(owner(body)).open() as run:
            await run.wait_for(lambda event: event.request is not None)
            assert len(run.pending) == 1
            await run.collect()
            assert not run.pending
        return run.result.output

    assert run_virtual(main) == "failed"


def test_another_try_counts_for_the_limit_as_well() -> None:
    now, most = 0, 0
    failed = False

    @agent
    async def counted(ctx: InvocationContext, item: int) -> None:
        nonlocal now, most, failed
        now += 1
        most = max(most, now)
        try:
            await trio.sleep(3)
            if item == 0 and not failed:
                failed = True
                raise BadItemError(item)
        finally:
            now -= 1

    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out(barrier=AskSomebody(), max_concurrency=1) as group:
            for item in range(3):
                group.start(counted, item)

    ended = ask_and_answer(owner(body), "retry")
    assert ended.error is None
    assert most == 1


def test_aborting_ends_the_block() -> None:
    async def body(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out(barrier=AskSomebody()) as group:
            group.start(flaky(1))
            await trio.sleep_forever()

    ended = ask_and_answer(owner(body), "abort")
    assert isinstance(ended.error, BadItemError)
    assert ended.time == 1


# -------------------------------------------------------------------------------- the checkers


def test_the_check_that_all_are_joined_finds_a_branch_that_is_not() -> None:
    diary: Diary = []

    async def main() -> None:
        with trio.move_on_after(1):
            await open_and_read(leaf("child", 5, diary=diary))
        assert diary == ["child starts", "child ends"]
        diary.append("child starts")

    run_virtual(main)
    assert len([line for line in diary if line.endswith("starts")]) != diary.count("child ends")
