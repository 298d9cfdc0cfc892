"""``ctx.once``: what must not be done twice outside, across attempts and cuts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from parallel_agent import (
    Agent,
    EffectUnknownError,
    InMemorySessionService,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    RequestError,
    Retry,
    Run,
    Runner,
    SequentialAgent,
    UnstorableError,
    UsageError,
    agent,
)
from tests.support.resuming import Told, cut_log, play, resume, troubles
from tests.workflow.trees import Yields

AT_ONCE = Retry(3, initial_delay=0, jitter=0)


@attrs.define(eq=False)
class World:
    """What is outside: how often something was done to it."""

    done: list[str] = attrs.Factory(list[str])

    def pay(self, what: str = "paid") -> str:
        self.done.append(what)
        return f"{what} {len(self.done)}"


def payer(world: World, *, on_unknown: Any = "raise", **options: Any) -> Agent:
    """Return an agent that pays once, and says so."""

    @agent(name="payer", **options)
    async def pays(ctx: InvocationContext) -> Yields:
        yield await ctx.once("pay", world.pay, on_unknown=on_unknown)
        yield "after"

    return pays


async def once(ctx: InvocationContext, fn: Callable[[], Any], **options: Any) -> Any:
    """Do it, and return what came of it: the result, or the class of the error."""
    try:
        return await ctx.once("key", fn, **options)
    except Exception as exc:  # noqa: BLE001  # what is looked at
        return type(exc)


async def results(*calls: Callable[[], Any], resumable: bool = True, **options: Any) -> list[Any]:
    """Return what came of calls with one key, one after the other, in one agent."""
    found: list[Any] = []

    @agent
    async def calls_them(ctx: InvocationContext) -> Yields:
        found.extend([await once(ctx, fn, **options) for fn in calls])
        yield "done"

    await play(calls_them, resumable=resumable)
    return found


# ---------------------------------------------------------------------------------- within one run


@pytest.mark.parametrize("resumable", [True, False], ids=["resumable", "ordinary"])
async def test_it_is_done_once(*, resumable: bool, autojump_clock: MockClock) -> None:
    world = World()
    assert await results(world.pay, world.pay, resumable=resumable) == ["paid 1", "paid 1"]
    assert world.done == ["paid"]


async def test_a_coroutine_function_is_awaited(autojump_clock: MockClock) -> None:
    async def slow() -> int:
        await trio.sleep(1)
        return 7

    assert await results(slow, slow) == [7, 7]


@pytest.mark.parametrize("resumable", [True, False], ids=["resumable", "ordinary"])
async def test_another_attempt_gets_the_result_of_the_first(
    *, resumable: bool, autojump_clock: MockClock
) -> None:
    world = World()

    @agent(retry=AT_ONCE)
    async def fails(ctx: InvocationContext) -> Yields:
        yield await ctx.once("pay", world.pay)
        if "~" not in ctx.path:
            message = "once"
            raise ValueError(message)

    told = await play(fails, resumable=resumable)
    assert world.done == ["paid"]
    assert told.result.text == "paid 1"


async def test_an_attempt_of_what_is_above_gets_the_result_too(autojump_clock: MockClock) -> None:
    world = World()

    @agent
    async def fails(ctx: InvocationContext) -> Yields:
        yield await ctx.once("pay", world.pay)
        if "~" not in ctx.path:
            message = "once"
            raise ValueError(message)

    await play(SequentialAgent("s", [fails], retry=AT_ONCE))
    assert world.done == ["paid"]


async def test_each_iteration_and_each_branch_has_its_own(autojump_clock: MockClock) -> None:
    world = World()

    def paying(name: str) -> Agent:
        @agent(name=name)
        async def pays(ctx: InvocationContext) -> Yields:
            yield await ctx.once("pay", lambda: world.pay(ctx.path))

        return pays

    fan = ParallelAgent("p", [paying("a"), paying("b")])
    await play(LoopAgent("l", [fan], max_iterations=2))
    assert sorted(world.done) == ["l/p@1/a", "l/p@1/b", "l/p@2/a", "l/p@2/b"]


async def test_an_exception_says_that_nothing_has_happened(autojump_clock: MockClock) -> None:
    world = World()

    def refuses() -> None:
        message = "no money"
        raise ValueError(message)

    assert await results(refuses, refuses, world.pay) == [ValueError, ValueError, "paid 1"]


@pytest.mark.parametrize("error", [TimeoutError, trio.TooSlowError])
async def test_after_a_timeout_nobody_knows(
    error: type[Exception], autojump_clock: MockClock
) -> None:
    def late() -> None:
        raise error

    world = World()
    assert await results(late, world.pay) == [error, EffectUnknownError]
    assert await results(late, world.pay, on_unknown="retry") == [error, "paid 1"]
    assert await results(late, world.pay, on_unknown=lambda: "looked") == [error, "looked"]


async def test_after_a_cancellation_in_the_middle_nobody_knows(autojump_clock: MockClock) -> None:
    found: list[Any] = []

    async def sleeps() -> None:
        await trio.sleep(5)

    @agent
    async def gives_up(ctx: InvocationContext) -> Yields:
        with trio.move_on_after(1):
            await ctx.once("key", sleeps)
        found.append(await once(ctx, lambda: 1))
        yield "done"

    await play(gives_up)
    assert found == [EffectUnknownError]


async def test_a_cancellation_before_it_is_called_does_no_harm(autojump_clock: MockClock) -> None:
    found: list[Any] = []

    @agent
    async def cancelled(ctx: InvocationContext) -> Yields:
        with trio.CancelScope() as scope:
            scope.cancel()
            await ctx.once("key", lambda: 1)
        found.append(await once(ctx, lambda: 2))
        yield "done"

    await play(cancelled)
    assert found == [2]


async def test_two_tasks_cannot_do_it_at_the_same_time(autojump_clock: MockClock) -> None:
    found: list[Any] = []

    async def slow() -> int:
        await trio.sleep(1)
        return 1

    @agent
    async def twice(ctx: InvocationContext) -> Yields:
        async def one() -> None:
            found.append(await once(ctx, slow))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(one)
        yield "done"

    await play(twice)
    assert found == [UsageError, 1]


async def test_a_result_without_a_json_form_has_happened_all_the_same(
    autojump_clock: MockClock,
) -> None:
    assert await results(object, lambda: 1) == [UnstorableError, UnstorableError]


async def test_a_result_is_a_value_that_cannot_change(autojump_clock: MockClock) -> None:
    made = {"a": [1]}
    first, second = await results(lambda: made, dict)
    made["a"].append(2)
    assert first == second == {"a": [1]}


@pytest.mark.parametrize("key", ["", 7, None])
async def test_a_key_is_text(key: Any, autojump_clock: MockClock) -> None:
    @agent
    async def wrong(ctx: InvocationContext) -> Yields:
        with pytest.raises(RequestError, match="the key of once"):
            await ctx.once(key, lambda: 1)
        yield "done"

    assert (await play(wrong)).error is None


# ------------------------------------------------------------------------------------- across cuts


async def cut_after(told: Told, kind: str, tree: Agent, number: int = 0, **options: Any) -> Told:
    return await resume(tree, cut_log(told, told.places(kind)[number]), **options)


async def test_a_recorded_result_is_given_back(autojump_clock: MockClock) -> None:
    world = World()
    tree = payer(world)
    again = await cut_after(await play(tree), "effect", tree)
    assert world.done == ["paid"]
    assert [event.text for event in again.delivered] == ["paid 1", "after"]


async def test_a_recorded_result_is_given_back_at_every_later_cut(
    autojump_clock: MockClock,
) -> None:
    world = World()
    tree = SequentialAgent("s", [payer(world)])
    whole = await play(tree)
    (paid,) = whole.places("effect")
    cuts = range(paid, len(whole.lines) + 1)
    assert await troubles(tree, cuts=cuts, twice=True) == []
    assert set(world.done) == {"paid"}
    assert len(world.done) == 2  # in the whole run here, and in that of `troubles`


async def test_an_effect_without_a_recorded_end_is_unknown(autojump_clock: MockClock) -> None:
    world = World()
    whole = await play(payer(world))
    again = await cut_after(whole, "intent", payer(world))
    assert isinstance(again.error, EffectUnknownError)
    assert (again.error.key, again.error.path) == ("pay", "payer")
    assert world.done == ["paid"]


async def test_an_unknown_effect_may_be_done_again(autojump_clock: MockClock) -> None:
    world = World()
    tree = payer(world, on_unknown="retry")
    again = await cut_after(await play(tree), "intent", tree)
    assert world.done == ["paid", "paid"]
    assert again.delivered[0].text == "paid 2"


async def test_a_function_may_look_what_has_become_of_it(autojump_clock: MockClock) -> None:
    world = World()

    async def look() -> str:
        await trio.sleep(1)
        return f"found {world.done}"

    tree = payer(world, on_unknown=look)
    again = await cut_after(await play(tree), "intent", tree)
    assert world.done == ["paid"]
    assert again.delivered[0].text == "found ['paid']"


async def test_what_the_function_has_found_is_recorded(autojump_clock: MockClock) -> None:
    world, looked = World(), []

    def look() -> str:
        looked.append(1)
        return "found"

    tree = payer(world, on_unknown=look)
    again = await cut_after(await play(tree), "intent", tree)
    last = await resume(tree, cut_log(again, again.after("found")))
    assert last.delivered[0].text == "found"
    assert len(looked) == 1


async def test_an_effect_that_has_failed_is_not_unknown(autojump_clock: MockClock) -> None:
    world = World()
    tried: list[int] = []

    def fails_first() -> str:
        tried.append(1)
        if len(tried) == 1:
            message = "no money"
            raise ValueError(message)
        return world.pay()

    @agent(retry=AT_ONCE)
    async def pays(ctx: InvocationContext) -> Yields:
        yield await ctx.once("pay", fails_first)

    whole = await play(pays)
    again = await cut_after(whole, "effect", pays)
    assert again.error is None
    assert world.done == ["paid", "paid"]  # by the whole run, and by this one


async def test_an_effect_of_a_failed_attempt_is_known_after_a_cut(
    autojump_clock: MockClock,
) -> None:
    world = World()

    @agent(retry=AT_ONCE)
    async def pays(ctx: InvocationContext) -> Yields:
        yield await ctx.once("pay", world.pay)
        if "~" not in ctx.path:
            message = "once"
            raise ValueError(message)

    whole = await play(pays)
    again = await cut_after(whole, "attempt", pays)
    assert world.done == ["paid"]
    assert again.result.text == "paid 1"


async def test_an_effect_in_a_loop_is_known_for_its_iteration(autojump_clock: MockClock) -> None:
    world = World()
    tree = LoopAgent("l", [payer(world)], max_iterations=3)
    whole = await play(tree)
    again = await cut_after(whole, "effect", tree, number=1)
    assert len(world.done) == 4
    assert again.error is None


async def test_a_result_is_recorded_although_the_run_is_being_cancelled(
    autojump_clock: MockClock,
) -> None:
    world = World()
    runs: list[Run] = []

    @agent
    async def pays(ctx: InvocationContext) -> Yields:
        yield "ready"

        def pay() -> str:
            runs[0].cancel("enough")
            return world.pay()

        yield await ctx.once("pay", pay)

    async def keep(run: Run, _event: Any) -> None:
        runs.append(run)

    told = await play(pays, on_event=keep)
    assert len(told.places("effect")) == 1


async def test_an_effect_of_a_run_that_was_refused_has_happened(autojump_clock: MockClock) -> None:
    world = World()

    def plans(*names: str) -> Agent:
        @agent
        async def plan(ctx: InvocationContext) -> Yields:
            for name in names:
                await ctx.run_agent(payer(world) if name == "payer" else inner(name))
            yield "planned"

        return plan

    def inner(name: str) -> Agent:
        @agent(name=name)
        async def runs(_ctx: InvocationContext) -> Yields:
            yield name

        return runs

    whole = await play(plans("a", "payer"))
    assert world.done == ["paid"]
    cut = cut_log(whole, whole.ended_at("plan/a@1"))
    refused = await resume(plans("payer"), cut)
    assert world.done == ["paid", "paid"]
    assert refused.unfinished == ("interrupted",)
    mended = await resume(plans("a", "payer"), cut_log(refused, len(refused.lines)))
    assert mended.error is None
    assert world.done == ["paid", "paid"]


async def test_an_ordinary_run_records_nothing_of_it(autojump_clock: MockClock) -> None:
    told = await play(payer(World()), resumable=False)
    assert [event.text for event in told.log] == ["hi", "paid 1", "after"]


# -------------------------------------------------------------------------- an end that is unknown


def unsure(world: World, on_unknown: Any) -> Agent:
    """Something fails while it is done, so that nobody knows; a sibling has ended, one has not."""

    @agent
    async def pays(ctx: InvocationContext) -> Yields:
        if on_unknown == "raise":
            with trio.move_on_after(1):
                await ctx.once("pay", trio.sleep_forever)
        yield await ctx.once("pay", world.pay, on_unknown=on_unknown)

    @agent
    async def quick(ctx: InvocationContext) -> str:
        return "quick"

    @agent
    async def slow(ctx: InvocationContext) -> str:
        await trio.sleep(5)
        return "slow"

    return ParallelAgent("fan", [pays, quick, slow])


async def test_a_run_that_ends_because_an_effect_is_unknown_is_left_to_be_resumed(
    autojump_clock: MockClock,
) -> None:
    world = World()
    service = InMemorySessionService()
    first = Runner(unsure(world, "raise"), session_service=service, resumable=True)
    with pytest.raises(EffectUnknownError, match="left to be resumed"):
        await first.run("hi", session_id="s")
    with pytest.raises(EffectUnknownError):
        await first.resume("s")
    (left,) = await first.unfinished()
    assert left.status == "interrupted"
    mended = Runner(unsure(world, lambda: "looked"), session_service=service, resumable=True)
    result = await mended.resume("s")
    assert result.output == {"pays": "looked", "quick": "quick", "slow": "slow"}
    assert await mended.unfinished() == []


async def test_a_result_that_cannot_be_recorded_is_not_made_again(
    autojump_clock: MockClock,
) -> None:
    made: list[object] = []

    def odd() -> object:
        made.append(object())
        return made[-1]

    @agent(retry=Retry(3, initial_delay=0.0))
    async def pays(ctx: InvocationContext) -> Yields:
        await ctx.once("pay", odd, on_unknown="retry")
        yield "paid"

    with pytest.raises(UnstorableError, match=r"ctx.once\('pay'\) in pays, which has happened"):
        await Runner(pays, resumable=True).run("hi")
    assert len(made) == 1


async def test_what_to_do_about_an_unknown_end_is_checked_at_once(
    autojump_clock: MockClock,
) -> None:
    @agent
    async def pays(ctx: InvocationContext) -> Yields:
        wrong: Any = "redo"
        await ctx.once("pay", lambda: 1, on_unknown=wrong)
        yield "paid"

    with pytest.raises(RequestError, match="on_unknown is"):
        await Runner(pays).run("hi")
