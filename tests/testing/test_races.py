"""Races on state keys: who has one, where, and that looking for them changes nothing."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from random import Random
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from parallel_agent import (
    Agent,
    Event,
    EventActions,
    FailFast,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Plugin,
    Retry,
    Runner,
    SequentialAgent,
    agent,
)
from parallel_agent.branch import Branch
from parallel_agent.function_agent import AgentFunction
from parallel_agent.testing import (
    Access,
    Race,
    RaceFinder,
    Schedule,
    explore,
    races,
    replay,
    run_once,
    watch_races,
)
from tests.support.drawing import fewer
from tests.testing.drawn_scripts import Leaf, Tree, make_runner, trees

Ctx = InvocationContext


def does(name: str, work: AgentFunction, **options: Any) -> Agent:
    return agent(work, name=name, **options)


def by_explore(make_tree: Callable[[], Agent], **runner: Any) -> tuple[Race, ...]:
    return explore(make_tree, make_runner=functools.partial(Runner, **runner)).races


def by_watch(make_tree: Callable[[], Agent], **runner: Any) -> tuple[Race, ...]:
    async def main() -> None:
        await Runner(make_tree(), **runner).run()

    with watch_races() as finder:
        trio.run(main, clock=MockClock(autojump_threshold=0))
    return finder.races


Finds = Callable[..., tuple[Race, ...]]
both_ways = pytest.mark.parametrize("races_of", [by_explore, by_watch])


async def reads(ctx: Ctx) -> None:
    ctx.state.get("x")


async def writes(ctx: Ctx) -> None:
    ctx.state["x"] = ctx.path


async def writes_and_yields(ctx: Ctx) -> AsyncIterator[str]:
    yield "before"
    ctx.state["x"] = ctx.path
    yield "after"


async def changes(ctx: Ctx) -> AsyncIterator[Event]:
    yield Event(actions=EventActions(state_delta={"x": 1}))


async def emits_a_change(ctx: Ctx) -> None:
    await ctx.emit(Event(actions=EventActions(state_delta={"x": 1})))


async def speaks(ctx: Ctx) -> AsyncIterator[str]:
    yield "words"


async def returns(ctx: Ctx) -> str:
    return "words"


def by_thread(ctx: Ctx) -> None:
    ctx.state["x"] = "from a thread"


def line_of(function: Callable[..., Any], text: str) -> str:
    """Return file and line of the line in a function that holds ``text``."""
    lines, first = inspect.getsourcelines(function)
    (offset,) = [number for number, line in enumerate(lines) if text in line]
    return f"test_races.py:{first + offset}"


def places(found: tuple[Race, ...]) -> set[tuple[bool, str | None, str]]:
    """Return who did what, where, in all races."""
    return {
        (access.writes, access.branch, access.where)
        for race in found
        for access in (race.first, race.second)
    }


# --------------------------------------------------------------------------------- who has a race


@both_ways
def test_siblings_race_when_one_reads_and_one_writes(races_of: Finds) -> None:
    (race,) = races_of(lambda: ParallelAgent("p", [does("a", reads), does("b", writes)]))
    assert race.key == "x"
    assert places((race,)) == {
        (False, "p.a", line_of(reads, "get")),
        (True, "p.b", line_of(writes, "= ctx.path")),
    }


@both_ways
def test_siblings_race_when_both_write(races_of: Finds) -> None:
    (race,) = races_of(lambda: ParallelAgent("p", [does("a", writes), does("b", writes)]))
    assert race.first.writes
    assert race.second.writes
    assert {race.first.branch, race.second.branch} == {"p.a", "p.b"}


@both_ways
def test_siblings_that_only_read_do_not(races_of: Finds) -> None:
    assert not races_of(lambda: ParallelAgent("p", [does("a", reads), does("b", reads)]))


@both_ways
def test_siblings_that_keep_to_keys_of_their_own_do_not(races_of: Finds) -> None:
    async def writes_own(ctx: Ctx) -> None:
        ctx.state[ctx.agent.name] = ctx.state.get(ctx.agent.name, 0)

    assert not races_of(lambda: ParallelAgent("p", [does("a", writes_own), does("b", writes_own)]))


@both_ways
def test_one_after_the_other_does_not(races_of: Finds) -> None:
    fan = [does("a", writes), does("b", reads)]
    assert not races_of(lambda: SequentialAgent("s", fan))


@both_ways
def test_one_branch_with_itself_does_not(races_of: Finds) -> None:
    async def reads_and_writes(ctx: Ctx) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reads, ctx)
            nursery.start_soon(writes, ctx)

    assert not races_of(lambda: ParallelAgent("p", [does("a", reads_and_writes)]))


@both_ways
def test_the_iterations_of_a_loop_do_not(races_of: Finds) -> None:
    one = does("a", writes)
    assert not races_of(lambda: ParallelAgent("p", [LoopAgent("l", [one], max_iterations=3)]))


@both_ways
def test_a_parent_before_the_fork_and_after_the_join_does_not(races_of: Finds) -> None:
    def make_tree() -> Agent:
        fan = ParallelAgent("p", [does("a", writes)])
        return SequentialAgent("s", [does("before", writes), fan, does("after", writes)])

    assert not races_of(make_tree)


@both_ways
def test_branches_of_fan_outs_one_after_the_other_do_not(races_of: Finds) -> None:
    def make_tree() -> Agent:
        first = ParallelAgent("first", [does("a", writes)])
        return SequentialAgent("s", [first, ParallelAgent("second", [does("b", writes)])])

    assert not races_of(make_tree)


@both_ways
def test_cousins_race(races_of: Finds) -> None:
    def make_tree() -> Agent:
        first = ParallelAgent("first", [does("a", writes)])
        second = ParallelAgent("second", [does("b", reads)])
        return ParallelAgent("p", [first, SequentialAgent("s", [second])])

    (race,) = races_of(make_tree)
    assert {race.first.branch, race.second.branch} == {"p.first.first.a", "p.s.second.b"}


@both_ways
def test_a_reducer_makes_it_none(races_of: Finds) -> None:
    async def contributes(ctx: Ctx) -> None:
        ctx.state.contribute("x", 1)

    def make_tree() -> Agent:
        return ParallelAgent("p", [does("a", contributes), does("b", contributes)])

    assert not races_of(make_tree, reducers={"x": "add"})


# A parent that goes on while its branches run.

Part = Callable[[Ctx], Awaitable[None]]


def forks(before: Part, beside: Part, after: Part) -> Agent:
    async def opens(ctx: Ctx) -> None:
        async with ctx.open_fan_out() as group:
            await before(ctx)
            handle = group.start(does("child", writes))
            await beside(ctx)
            await handle
            await after(ctx)

    return does("owner", opens)


async def nothing(ctx: Ctx) -> None:
    pass


@both_ways
def test_a_parent_that_goes_on_after_the_fork_races(races_of: Finds) -> None:
    race, *_ = races_of(lambda: forks(nothing, _waits_and_reads, nothing))
    assert {race.first.branch, race.second.branch} == {None, "owner.child@1"}


async def _waits_and_reads(ctx: Ctx) -> None:
    await trio.lowlevel.checkpoint()  # the branch has begun, and nothing has been recorded yet
    await trio.lowlevel.checkpoint()
    ctx.state.get("x")


@both_ways
def test_a_parent_before_the_fork_and_after_the_end_of_a_branch_does_not(races_of: Finds) -> None:
    assert not races_of(lambda: forks(writes, nothing, writes))


@both_ways
def test_what_a_parent_writes_before_a_branch_begins_does_not(races_of: Finds) -> None:
    # Started, it begins later: what is written meanwhile is recorded first.
    assert not races_of(lambda: forks(nothing, nothing, nothing))

    async def opens(ctx: Ctx) -> None:
        async with ctx.open_fan_out() as group:
            group.start(does("child", writes))
            ctx.state["x"] = "parent"

    assert not races_of(lambda: does("owner", opens))


@both_ways
def test_a_branch_that_is_started_when_another_has_ended_sees_it(races_of: Finds) -> None:
    async def opens(ctx: Ctx) -> None:
        async with ctx.open_fan_out() as group:
            await group.start(does("first", writes))
            group.start(does("second", writes))

    assert not races_of(lambda: does("owner", opens))


@both_ways
def test_branches_of_one_map_race_once_however_many_they_are(races_of: Finds) -> None:
    async def maps(ctx: Ctx) -> None:
        await ctx.map(does("each", writes), range(3))

    (race,) = races_of(lambda: does("owner", maps))
    assert race.first.branch != race.second.branch


# ------------------------------------------------------------------------------ every way to write


@both_ways
@pytest.mark.parametrize(
    ("function", "options", "where"),
    [
        (writes, {}, line_of(writes, "= ctx.path")),
        (writes_and_yields, {}, line_of(writes_and_yields, "= ctx.path")),
        (changes, {}, line_of(changes, "yield")),
        (emits_a_change, {}, line_of(emits_a_change, "await")),
        (speaks, {"output_key": "x"}, line_of(speaks, "yield")),
        (returns, {"output_key": "x"}, ""),
        (by_thread, {}, line_of(by_thread, "= ")),
        (changes, {"retry": Retry(2)}, line_of(changes, "yield")),
    ],
)
def test_however_it_is_written_the_line_is_the_agents(
    races_of: Finds, function: AgentFunction, options: dict[str, Any], where: str
) -> None:
    def make_tree() -> Agent:
        fan = [does("a", reads), does("b", function, **options)]
        return ParallelAgent("p", fan)

    found = places(races_of(make_tree))
    assert (True, "p.b", where) in found
    assert (False, "p.a", line_of(reads, "get")) in found


@both_ways
@pytest.mark.parametrize("look", ["x", "items", "update"])
def test_however_it_is_looked_at_the_line_is_the_agents(races_of: Finds, look: str) -> None:
    async def looks(ctx: Ctx) -> None:
        match look:
            case "x":
                assert ctx.state.setdefault("x", 1)
            case "items":
                dict(ctx.state.items())
            case _:
                ctx.state.update({"x": 2})

    async def writes_first(ctx: Ctx) -> AsyncIterator[str]:
        ctx.state["x"] = 0.5
        yield "there"

    def make_tree() -> Agent:
        before = does("before", writes_first)
        return SequentialAgent("s", [before, ParallelAgent("p", [does("a", looks), *beside()])])

    def beside() -> list[Agent]:
        return [does("b", writes)]

    wheres = {where for _, branch, where in places(races_of(make_tree)) if branch == "p.a"}
    lines, first = inspect.getsourcelines(looks)
    assert wheres <= {f"test_races.py:{first + offset}" for offset in range(len(lines))}
    assert wheres


@both_ways
def test_what_a_plugin_adds_to_an_event_is_a_write(races_of: Finds) -> None:
    class Adds(Plugin):
        async def on_event_callback(self, ctx: Ctx, event: Event) -> Event:
            return Event(event.content, actions=EventActions(state_delta={"x": ctx.agent.name}))

    def make_tree() -> Agent:
        return ParallelAgent("p", [does("a", speaks), does("b", speaks)])

    found = places(races_of(make_tree, plugins=[Adds("adds")]))
    assert (True, "p.a", line_of(speaks, "yield")) in found


@both_ways
def test_a_partial_event_writes_nothing(races_of: Finds) -> None:
    async def hints(ctx: Ctx) -> AsyncIterator[Event]:
        yield Event("...", partial=True, actions=EventActions(state_delta={"x": 1}))

    assert not races_of(lambda: ParallelAgent("p", [does("a", reads), does("b", hints)]))


def test_a_race_reads_as_a_sentence() -> None:
    (race,) = by_watch(lambda: ParallelAgent("p", [does("a", reads), does("b", returns_to_x())]))
    first, second = race.first.describe(), race.second.describe()
    assert str(race) == (
        f"race on state['x']: {first}, {second}, and neither branch sees the other"
    )
    assert {first, second} == {
        f"branch p.a reads it at {line_of(reads, 'get')}",
        "branch p.b writes it at its end",
    }


def returns_to_x() -> AgentFunction:
    async def run(ctx: Ctx) -> None:
        await ctx.run_agent(does("inner", returns, output_key="x"))

    return run


# -------------------------------------------------------------------------------- under exploration


def tells_and_writes() -> Agent:
    async def tells(ctx: Ctx) -> str:
        return f"{ctx.state.get('x')}"

    return ParallelAgent("p", [does("a", tells), does("b", writes)])


def test_a_schedule_is_given_that_changes_the_result() -> None:
    explored = explore(tells_and_writes)
    (race,) = explored.races
    assert race.schedule is not None
    assert f"the result changes under {race.schedule}" in str(race)
    first = run_once(tells_and_writes, Schedule()).result
    other = replay(tells_and_writes, None, race.schedule).result
    assert first is not None
    assert other is not None
    assert first.outputs != other.outputs


def test_a_race_that_changes_nothing_has_no_schedule() -> None:
    (race,) = by_explore(lambda: ParallelAgent("p", [does("a", reads), does("b", writes)]))
    assert race.schedule is None


def test_the_schedule_is_one_in_which_the_key_itself_differs_if_there_is_one() -> None:
    async def writes_y(ctx: Ctx) -> None:
        ctx.state["y"] = ctx.path

    def make_tree() -> Agent:
        fan = ParallelAgent("q", [does("c", writes_y), does("d", writes_y)])
        return SequentialAgent(
            "s", [ParallelAgent("p", [does("a", writes), does("b", writes)]), fan]
        )

    for race in explore(make_tree).races:
        assert race.schedule is not None
        values = [run_once(make_tree, schedule).result for schedule in (Schedule(), race.schedule)]
        assert len({result.state[race.key] for result in values if result is not None}) == 2


def test_no_race_goes_unseen_that_exists_under_some_schedule_only() -> None:
    async def looks_if_set(ctx: Ctx) -> None:
        if "x" in ctx.state:
            ctx.state.get("y")

    async def writes_y(ctx: Ctx) -> None:
        ctx.state["y"] = 1

    def make_tree() -> Agent:
        return ParallelAgent("p", [does("a", looks_if_set), does("b", writes), does("c", writes_y)])

    assert {race.key for race in by_explore(make_tree)} == {"x", "y"}


# -------------------------------------------------------------------------------- in ordinary runs


def logged(tree: Tree, *, watch: bool) -> list[str]:
    """Return what a run emits; trio shuffles in the same way each time."""
    events: list[str] = []
    random = Random(0)  # noqa: S311  # when to try again is no secret

    async def main() -> None:
        runner = make_runner(tree.make(), clock=lambda: 0.0, new_id=lambda: "id", random=random)
        try:
            async with runner.open() as run:
                async for event in run:
                    events.append(f"{event!r} {event.state_delta}")  # noqa: PERF401  # till it fails
        except Exception as exc:  # noqa: BLE001  # a drawn tree may fail
            events.append(repr(exc))

    # Hypothesis seeds trio anew for each example.
    @settings(phases=[Phase.explicit])
    @example(None)
    @given(st.none())
    def once(_nothing: None) -> None:
        with watch_races() if watch else nullcontext():
            trio.run(main, clock=MockClock(autojump_threshold=0))

    once()
    return events


@settings(fewer(2), suppress_health_check=[HealthCheck.nested_given])
@given(trees().filter(lambda tree: not tree.reads))
def test_watching_changes_nothing(tree: Tree) -> None:
    assert logged(tree, watch=True) == logged(tree, watch=False)


@settings(fewer(2), suppress_health_check=[HealthCheck.nested_given])
@given(st.none())
def test_a_watch_that_delays_is_found_out(nothing: None) -> None:
    class Delays(races._Gate):
        async def event(self, activation: Any, event: Event) -> Event | None:
            await trio.lowlevel.checkpoint()
            return await super().event(activation, event)

    tree = Tree((Leaf("a", (("emits",),)), Leaf("b", (("fails",),))), FailFast())
    undisturbed = logged(tree, watch=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(races, "_Gate", Delays)
        assert logged(tree, watch=True) != undisturbed


def test_branches_in_threads_are_watched() -> None:
    together = threading.Barrier(4, timeout=60)

    def counts(ctx: Ctx) -> None:
        together.wait()
        for number in range(200):
            ctx.state["x"] = f"{ctx.agent.name} {number}"
            ctx.state.get(f"y{number}")

    def make_tree() -> Agent:
        return ParallelAgent("p", [does(name, counts) for name in "abcd"])

    (race,) = by_watch(make_tree)
    assert race.first.where == race.second.where == line_of(counts, "= f")


def test_a_barrier_is_kept_beside_what_plain_functions_do_in_their_own_threads() -> None:
    # One branch writes while the other is in the middle of a write: neither may go unnoticed.
    begun, goes_on = threading.Event(), threading.Event()

    class Slow(dict[str, Any]):
        def items(self) -> Any:
            begun.set()
            goes_on.wait(60)
            return super().items()

    def writes_slowly(ctx: Ctx) -> None:
        ctx.state["x"] = Slow()

    def writes_meanwhile(ctx: Ctx) -> None:
        begun.wait(60)
        try:
            ctx.state["x"] = 1
        finally:
            goes_on.set()

    fan = [does("a", writes_slowly), does("b", writes_meanwhile)]
    (race,) = by_watch(lambda: ParallelAgent("p", fan))
    assert {race.first.branch, race.second.branch} == {"p.a", "p.b"}


def test_runs_one_after_the_other_do_not_race() -> None:
    with watch_races() as finder:
        for _ in range(2):
            trio.run(Runner(ParallelAgent("p", [does("a", writes)])).run)
    assert finder.races == ()


async def test_it_works_inside_trio_and_ends_with_its_block() -> None:
    tree = ParallelAgent("p", [does("a", writes), does("b", writes)])
    with watch_races() as finder:
        await Runner(tree).run()
        assert len(finder.races) == 1
        with watch_races() as inner:
            await Runner(ParallelAgent("p", [does("a", reads), does("b", writes)])).run()
    assert len(inner.races) == 1
    assert len(finder.races) == 1
    await Runner(ParallelAgent("q", [does("c", reads), does("d", writes)])).run()
    assert len(finder.races) == 1


def test_an_error_of_a_run_passes() -> None:
    async def fails(ctx: Ctx) -> None:
        raise KeyError(ctx.path)

    with pytest.raises(KeyError), watch_races():
        trio.run(Runner(does("a", fails)).run)


def test_very_many_branches_are_remembered_in_part() -> None:
    finder = RaceFinder()
    root = Branch()
    for number in range(400):
        line = Branch(root, f"p.b{number}", forked=number)
        finder.add(Access("x", writes=True, branch=line.name, where=f"file.py:{number}", line=line))
    assert 0 < len(finder.races) <= 400 * 256
    assert all(race.first.line is not race.second.line for race in finder.races)
