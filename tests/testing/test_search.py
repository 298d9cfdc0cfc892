"""The search through all schedules: it runs each once, and the reduction loses no outcome."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import accumulate
from typing import Any

import attrs
import pytest
import trio
from hypothesis import assume, given, reject

from parallel_agent import (
    Agent,
    BestEffort,
    Event,
    EventActions,
    FirstSuccess,
    InvocationContext,
    Limiter,
    MessageRefusedError,
    ParallelAgent,
    Quorum,
    Retry,
    Run,
    RunConfig,
    Runner,
    SequentialAgent,
    WaitAll,
    agent,
)
from parallel_agent.function_agent import AgentFunction
from parallel_agent.testing import Schedule, Step, run_once
from parallel_agent.testing.schedule import Indexed
from parallel_agent.testing.search import Search
from tests.support.drawing import fewer
from tests.testing.drawn_scripts import Tree, make_runner, read, trees
from tests.testing.searching import Found, TooManyError, find, outcome_of

Ctx = InvocationContext


def emits(name: str, *texts: str, **options: Any) -> Agent:
    async def run(ctx: Ctx) -> AsyncIterator[str]:
        for text in texts:
            yield text

    return agent(run, name=name, **options)


def does(name: str, work: AgentFunction, **options: Any) -> Agent:
    return agent(work, name=name, **options)


async def nothing(ctx: Ctx) -> None:
    pass


def three_by_two() -> Agent:
    return ParallelAgent("p", [emits(name, f"{name}1", f"{name}2") for name in "abc"])


# ------------------------------------------------------------------------------------ all, once


def test_three_branches_of_two_events_have_ninety_schedules() -> None:
    found = find(three_by_two)
    assert len(found.outcomes) == math.factorial(6) // 2**3 == 90


def test_each_of_them_is_run_once() -> None:
    found = find(three_by_two)
    assert len(found.schedules) == len(set(found.schedules)) == 90
    assert found.redundant == 0


def every_schedule(make_tree: Callable[[], Agent]) -> tuple[set[Schedule], set[object]]:
    """Count through all lists of choices like an odometer: another way to find them all."""
    schedules: set[Schedule] = set()
    outcomes: set[object] = set()
    todo: list[tuple[int, ...]] = [()]
    while todo:
        numbers = todo.pop()
        chooser = Indexed(numbers)
        trial = run_once(make_tree, chooser)
        schedules.add(trial.schedule)
        outcomes.add(outcome_of(trial))
        for position in range(len(numbers), len(chooser.options)):
            zeros = (0,) * (position - len(numbers))
            todo += [(*numbers, *zeros, i) for i in range(1, len(chooser.options[position]))]
    return schedules, outcomes


def counter(name: str) -> Agent:
    async def run(ctx: Ctx) -> None:
        seen = ctx.state.get("n", 0)
        await trio.lowlevel.checkpoint()
        ctx.state["n"] = seen + 1

    return does(name, run)


def two_counters() -> Agent:
    return ParallelAgent("p", [counter("a"), counter("b")])


def test_the_unreduced_search_runs_every_schedule_once() -> None:
    schedules, outcomes = every_schedule(two_counters)
    found = find(two_counters, reduce=False)
    assert set(found.schedules) == schedules
    assert len(found.schedules) == len(schedules)
    assert set(found.outcomes) == outcomes


def test_the_reduction_leaves_out_most() -> None:
    reduced, full = find(two_counters), find(two_counters, reduce=False)
    assert set(reduced.outcomes) == set(full.outcomes)
    assert len(reduced.schedules) < len(full.schedules) / 5


def test_branches_that_share_nothing_and_are_silent_have_one_schedule() -> None:
    def busy(name: str) -> Agent:
        async def run(ctx: Ctx) -> None:
            for _ in range(3):
                ctx.state.get(name)
                await trio.lowlevel.checkpoint()

        return does(name, run)

    found = find(lambda: ParallelAgent("p", [busy("a"), busy("b"), busy("c")]))
    assert (len(found.schedules), found.redundant) == (1, 0)


def test_progress_grows_to_one_and_is_about_right_on_the_way() -> None:
    search, progress, goes_on = Search(reduce=False), list[float](), True
    while goes_on:
        search.begin()
        run_once(three_by_two_silent, search)
        goes_on = search.end()
        progress.append(search.progress)
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    # Every choice has about as many schedules below it as the others.
    assert progress[len(progress) // 2] == pytest.approx(0.5, abs=0.1)


def three_by_two_silent() -> Agent:
    return ParallelAgent("p", [does(name, checkpoints) for name in "abc"])


# ------------------------------------------------------------------ what makes steps dependent
#
# For each way in which one step can influence another there is a tree whose outcomes hang on it,
# and a reduction that does not know of it. The right one finds all outcomes, the other does not.


@attrs.frozen
class Case:
    make_tree: Callable[[], Agent]
    forget: Callable[[Step], None] | None
    options: dict[str, Any] = attrs.Factory(dict[str, Any])

    def find(self, **more: Any) -> Found:
        return find(self.make_tree, **self.options, **more)


def forgets(field: str, value: Any) -> Callable[[Step], None]:
    def forget(step: Step) -> None:
        setattr(step, field, value() if callable(value) else value)

    return forget


def both(*ways: Callable[[Step], None]) -> Callable[[Step], None]:
    def forget(step: Step) -> None:
        for way in ways:
            way(step)

    return forget


def forgets_shared(word: str) -> Callable[[Step], None]:
    def forget(step: Step) -> None:
        step.shares = {name for name in step.shares if not name.startswith(word)}

    return forget


READS = forgets("accesses", list)
WRITES = forgets("writes", set)
CANCELS = forgets("cancels", frozenset)
DECIDES = forgets("decides", frozenset)
STARTS = forgets("starts", set)
DECISIVE = forgets("decisive", value=False)


def KINSHIP(step: Step) -> None:  # noqa: N802  # one of them
    step.label = f"{step.actor} {step.label}"


CASES: dict[str, Case] = {}


def case(
    forget: Callable[[Step], None] | None, **options: Any
) -> Callable[[Callable[[], Agent]], Callable[[], Agent]]:
    def add(make_tree: Callable[[], Agent]) -> Callable[[], Agent]:
        name = make_tree.__name__.replace("_", " ")
        CASES[name] = Case(make_tree, forget, options)
        return make_tree

    return add


async def tells(ctx: Ctx, key: str = "x") -> AsyncIterator[str]:
    seen = ctx.state.get(key)
    yield f"{seen}"


def writes(name: str, key: str = "x") -> Agent:
    async def run(ctx: Ctx) -> None:
        ctx.state[key] = name

    return does(name, run)


@case(READS)
def one_reads_what_another_writes() -> Agent:
    return ParallelAgent("p", [does("a", tells), writes("b")])


@case(WRITES)
def one_writes_what_another_reads() -> Agent:
    return ParallelAgent("p", [does("a", tells), writes("b")])


@case(READS)
def one_looks_at_which_keys_there_are() -> Agent:
    async def counts(ctx: Ctx) -> str:
        return str(len(ctx.state))

    return ParallelAgent("p", [does("a", counts), writes("b")])


@case(READS)
def one_writes_what_is_there_already() -> Agent:
    def run(ctx: Ctx) -> None:
        ctx.state["x"] = 1  # an unchanged value is no write

    async def second(ctx: Ctx) -> AsyncIterator[Event]:
        ctx.state["x"] = 1
        await trio.lowlevel.checkpoint()
        yield Event("wrote")

    return ParallelAgent("p", [does("a", run), does("b", second)])


@case(WRITES)
def one_writes_by_its_output_key() -> Agent:
    return ParallelAgent("p", [does("a", tells), emits("b", "out", output_key="x")])


async def changes(ctx: Ctx) -> AsyncIterator[Event]:
    yield Event(actions=EventActions(state_delta={"x": 1}))


@case(WRITES)
def one_writes_by_an_explicit_delta_in_an_attempt() -> Agent:
    # Of which the recorded event shows nothing.
    return ParallelAgent(
        "p", [does("a", tells), does("b", changes)], retry=Retry(2, initial_delay=0)
    )


@case(WRITES)
def one_writes_by_its_output_key_in_an_attempt() -> Agent:
    fan = [does("a", tells), emits("b", "out", output_key="x")]
    return ParallelAgent("p", fan, retry=Retry(2, initial_delay=0))


@case(WRITES)
def one_writes_a_temporary_key() -> Agent:
    fan = [does("a", functools.partial(tells, key="temp:x")), writes("b", key="temp:x")]
    return ParallelAgent("p", fan)


async def fails(ctx: Ctx) -> None:
    raise KeyError


async def checkpoints(ctx: Ctx) -> None:
    await trio.lowlevel.checkpoint()


@case(both(CANCELS, DECIDES))
def one_fails_and_cancels_the_other() -> Agent:
    return ParallelAgent("p", [does("a", fails), emits("b", "here")])


@case(CANCELS)
def a_failure_of_a_later_attempt_cancels_the_other() -> Agent:
    # By then its path is another than its task was made with.
    again = Retry(2, initial_delay=0)
    return ParallelAgent(
        "p", [does("a", fails, retry=again), emits("b", "here", "there", retry=again)]
    )


@case(DECIDES)
def one_would_have_cancelled_the_other_had_it_not_ended() -> Agent:
    return ParallelAgent("p", [does("a", nothing), does("b", fails)])


@case(both(CANCELS, DECIDES))
def the_first_to_complete_wins() -> Agent:
    return ParallelAgent("p", [does("a", nothing), does("b", nothing)], barrier=FirstSuccess())


@case(DECIDES)
def enough_have_completed() -> Agent:
    fan = [does(name, nothing) for name in "abc"]
    return ParallelAgent("p", fan, barrier=Quorum(2))


async def escalates(ctx: Ctx) -> AsyncIterator[Event]:
    yield Event(actions=EventActions(escalate=True))


@case(DECIDES)
def one_escalates() -> Agent:
    return ParallelAgent("p", [does("a", escalates), does("b", nothing)])


@case(DECIDES)
def the_one_to_whom_one_has_handed_over_escalates() -> Agent:
    async def hands_over(ctx: Ctx) -> AsyncIterator[Event]:
        yield Event(actions=EventActions(transfer_to_agent="successor"))

    successor = does("successor", escalates)
    fan = ParallelAgent("p", [does("a", hands_over, sub_agents=[successor]), does("b", nothing)])
    return SequentialAgent("s", [fan])


def fails_if(key: str) -> Callable[[Ctx], Awaitable[None]]:
    async def run(ctx: Ctx) -> None:
        if key in ctx.state:
            raise ValueError(key)

    return run


@case(STARTS)
def there_is_room_for_another_when_one_ends() -> Agent:
    fan = [does("a", fails_if("x")), emits("b", "b"), writes("c")]
    return ParallelAgent("p", fan, max_concurrency=2, barrier=WaitAll())


async def fails_if_it_sees_something(ctx: Ctx) -> None:
    if ctx.history():
        raise ValueError


@case(STARTS)
def one_that_starts_sees_what_has_been_joined() -> Agent:
    async def says(ctx: Ctx) -> AsyncIterator[str]:
        yield "hello"
        await trio.sleep(1)

    async def opens(ctx: Ctx) -> None:
        async with ctx.open_fan_out(barrier=BestEffort()) as group:
            group.start(does("first", says))
            await trio.sleep(1)
            group.start(does("second", fails_if_it_sees_something))

    return does("owner", opens)


@case(forgets_shared("entrance"))
def one_waits_for_another_to_leave_a_fan_out() -> Agent:
    async def opens(ctx: Ctx) -> None:
        async with ctx.open_fan_out(max_concurrency=1) as group:
            group.start(emits("first", "1"))
            group.start(emits("second", "2"))

    return does("owner", opens)


@case(forgets_shared("limiter"))
def two_share_a_limiter() -> Agent:
    limiter = Limiter(1)
    return ParallelAgent("p", [emits(name, name, limiter=limiter) for name in "ab"])


@case(forgets_shared("limiter"), run_config=RunConfig(max_concurrency=1))
def all_share_the_limit_of_the_run() -> Agent:
    return ParallelAgent("p", [emits(name, name) for name in "ab"])


@case(forgets_shared("output"))
def two_agents_of_one_name_complete() -> Agent:
    async def maps(ctx: Ctx) -> None:
        async def run(ctx: Ctx, item: int) -> int:
            return item

        await ctx.map(does("each", run), [1, 2])

    return does("owner", maps)


@case(forgets_shared("outcomes"))
def one_asks_how_another_fan_out_has_ended() -> Agent:
    async def fails_if_none(ctx: Ctx) -> None:
        if not ctx.outcomes("inner"):
            raise ValueError

    async def once_more(ctx: Ctx) -> None:
        await ctx.run_agent(ParallelAgent("inner", []))

    fan = ParallelAgent("p", [does("b", once_more), does("a", fails_if_none)], barrier=WaitAll())
    return SequentialAgent("s", [ParallelAgent("inner", [does("x", nothing)]), fan])


@case(DECISIVE)
def one_asks_for_outcomes_that_may_not_be_there() -> Agent:
    async def asks(ctx: Ctx) -> None:
        ctx.outcomes("none")  # the error lists what there is

    fan = [does("a", asks), ParallelAgent("inner", [])]
    return ParallelAgent("p", fan, barrier=WaitAll())


@case(forgets_shared("random"))
def two_draw_when_to_try_again() -> Agent:
    return ParallelAgent(
        "p", [does(name, fails, retry=Retry(2)) for name in "ab"], barrier=WaitAll()
    )


@case(forgets_shared("artifacts"))
def one_loads_what_another_saves() -> Agent:
    async def saves(ctx: Ctx) -> None:
        await ctx.save_artifact("file", "text")

    async def fails_if_saved(ctx: Ctx) -> None:
        if await ctx.load_artifact("file") is not None:
            raise ValueError

    fan = [does("a", saves), does("b", fails_if_saved)]
    return ParallelAgent("p", fan, barrier=WaitAll())


@case(DECISIVE)
def one_passes_on_what_another_writes() -> Agent:
    async def passes_on(ctx: Ctx) -> AsyncIterator[Event]:
        async with ctx.open_agent(writes("child", key="temp:x")) as events:
            async for event in events:
                yield event

    fan = [does("a", passes_on), does("b", fails_if("temp:x"))]
    return ParallelAgent("p", fan, barrier=WaitAll())


@case(None)
def one_runs_another_tree() -> Agent:
    async def runs(ctx: Ctx) -> str:
        fan = ParallelAgent("inner", [writes("a", key="temp:x"), does("b", fails_if("temp:x"))])
        try:
            await Runner(fan, clock=lambda: 0.0).run()
        except ValueError:
            return "failed"
        return "passed"

    return does("outer", runs)


@case(DECISIVE)
def one_sends_to_another_that_may_have_ended() -> Agent:
    async def sends(ctx: Ctx) -> str:
        try:
            await ctx.send("hello", to="p.b")
        except MessageRefusedError:
            return "refused"
        return "sent"

    return ParallelAgent("p", [does("a", sends), does("b", checkpoints)])


async def answers(run: Run) -> None:
    async for event in run:
        if event.author == "a":
            try:
                await run.send("hello", to="p.b")
            except MessageRefusedError:
                run.cancel("b has ended")


@case(DECISIVE, read=answers)
def the_reader_sends_to_one_that_may_have_ended() -> Agent:
    return ParallelAgent("p", [emits("a", "go"), does("b", nothing)])


@case(DECISIVE)
def two_share_an_object_and_say_so() -> Agent:
    shared: list[str] = []

    def run(name: str) -> Agent:
        async def appends(ctx: Ctx) -> None:
            await ctx.checkpoint_schedule()
            shared.append(name)

        return does(name, appends)

    async def tells_it(ctx: Ctx) -> str:
        return " ".join(shared)

    return SequentialAgent("s", [ParallelAgent("p", [run("a"), run("b")]), does("c", tells_it)])


@case(forgets_shared("waits"))
def two_take_two_locks_in_two_orders() -> Agent:
    one, other = trio.Lock(), trio.Lock()

    async def takes_both(ctx: Ctx, first: trio.Lock, second: trio.Lock) -> None:
        async with first, second:
            pass

    fan = [
        does("a", functools.partial(takes_both, first=one, second=other)),
        does("b", functools.partial(takes_both, first=other, second=one)),
    ]
    return ParallelAgent("p", fan)


@case(forgets_shared("waits"))
def one_wakes_another_that_waits_at_a_channel() -> Agent:
    send, receive = trio.open_memory_channel[str](0)

    async def receives(ctx: Ctx) -> str:
        return await receive.receive()

    async def sends(ctx: Ctx) -> None:
        send.send_nowait("hello")  # which fails if nobody waits

    return ParallelAgent("p", [does("a", receives), does("b", sends)])


@case(KINSHIP)
def two_tasks_of_one_agent_share_a_variable() -> Agent:
    async def starts_two(ctx: Ctx) -> str:
        order: list[str] = []

        async def appends(name: str) -> None:
            await trio.lowlevel.checkpoint()
            order.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(appends, "a")
            nursery.start_soon(appends, "b")
        return " ".join(order)

    return does("owner", starts_two)


@case(KINSHIP)
def an_agent_cancels_one_that_it_runs() -> Agent:
    async def runs_and_cancels(ctx: Ctx) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ctx.run_agent, emits("child", "here"))
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    return does("owner", runs_and_cancels)


@case(KINSHIP)
def an_agent_asks_whether_its_branch_has_ended() -> Agent:
    async def opens(ctx: Ctx) -> str:
        async with ctx.open_fan_out() as group:
            handle = group.start(does("child", nothing))
            await trio.lowlevel.checkpoint()
            done = handle.done
        return f"{done}"

    return does("owner", opens)


@case(None)
def two_that_run_in_place_see_each_others_events() -> Agent:
    async def runs_two(ctx: Ctx) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ctx.run_agent, does("a", fails_if_it_sees_something))
            await ctx.run_agent(emits("b", "hello"))

    return does("owner", runs_two)


@case(None)
def one_fails_by_what_another_writes_before_a_third_ends() -> Agent:
    return ParallelAgent("p", [does("a", fails_if("x")), does("b", nothing), writes("c")])


@functools.cache
def all_outcomes(name: str) -> frozenset[object]:
    return frozenset(CASES[name].find(reduce=False).outcomes)


@pytest.mark.parametrize("name", CASES)
def test_the_reduction_loses_no_outcome_where(name: str) -> None:
    assert len(all_outcomes(name)) > 1, "nothing hangs on the order, so this shows nothing"
    assert set(CASES[name].find().outcomes) == all_outcomes(name)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].forget is not None])
def test_a_reduction_is_found_out_that_does_not_know_that(name: str) -> None:
    case = CASES[name]
    assert set(case.find(alter=case.forget).outcomes) < all_outcomes(name)


def test_a_search_is_found_out_that_asks_for_the_later_of_two_steps_and_for_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def want(self: Search, node: Any, _i: int, j: int, _before: list[int]) -> None:
        node.wanted.add(self._steps[j].actor)

    # It may be asleep there, and something else has to come first to wake it.
    name = "one fails by what another writes before a third ends"
    monkeypatch.setattr(Search, "_want", want)
    assert set(CASES[name].find().outcomes) < all_outcomes(name)


# ---------------------------------------------------------------------------------- drawn trees


def interleavings(make_tree: Callable[[], Agent], **options: Any) -> float:
    """Return about how many schedules there are: the ways to merge the steps of all tasks."""
    steps = Counter(step.actor for step in run_once(make_tree, **options).steps)
    del steps["root"], steps["time"]
    ways = 1
    for number, already in zip(steps.values(), accumulate(steps.values()), strict=True):
        ways *= math.comb(already, number)
    return ways


@fewer(3)
@given(trees())
def test_the_reduction_loses_no_outcome(tree: Tree) -> None:
    options: dict[str, Any] = {"make_runner": make_runner, "read": read if tree.reads else None}
    assume(interleavings(tree.make, **options) < 100)
    try:
        full = find(tree.make, reduce=False, limit=150, **options)
    except TooManyError:
        reject()
    reduced = find(tree.make, **options)
    assert set(reduced.outcomes) == set(full.outcomes)
    assert len(set(reduced.schedules)) == len(reduced.schedules)
    assert len(reduced.schedules) + reduced.redundant <= len(full.schedules)
