"""What a picture says of a run: against what a plugin was told of the same run, agent by agent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import attrs
import pytest
import trio
from hypothesis import assume, given, settings
from trio.testing import MockClock

from parallel_agent import (
    Agent,
    BestEffort,
    Edge,
    FailFast,
    GraphAgent,
    InvocationContext,
    LoopAgent,
    MapAgent,
    ParallelAgent,
    ReadError,
    Result,
    Run,
    Runner,
    SequentialAgent,
    Status,
    WaitAll,
    agent,
    aio,
    sync,
)
from parallel_agent.observe.picture import to_dot, to_mermaid
from parallel_agent.observe.picture_status import Stand, standing
from parallel_agent.observe.progress import Progress
from parallel_agent.observe.tracker import Tracker
from parallel_agent.testing.strategies import agent_trees
from session import Codec
from tests.graph.drawn_graphs import CALM, made, nets
from tests.graph.nodes import node
from tests.graph.picture_readers import read_dot, read_mermaid

DONE: Final = Stand(Status.COMPLETED, 1)


class Spy(Tracker):
    """A tracker whose last run can be looked at."""

    seen: Progress

    async def after_run_callback(self, ctx: InvocationContext, result: Result) -> None:
        self.seen = self.progress_of(ctx)
        await super().after_run_callback(ctx, result)


async def told(tree: Agent, clock: MockClock) -> tuple[Run, Progress]:
    spy = Spy(clock=clock.current_time)
    return await ended(tree, Runner(tree, plugins=[spy])), spy.seen


async def ended(tree: Agent, runner: Runner | None = None) -> Run:
    """Return a run of a tree that has ended, however it has."""
    run = None
    with suppress(Exception):
        async with (runner or Runner(tree)).open("go") as run:
            async for _ in run:
                pass
    assert run is not None
    return run


def statuses(progress: Progress) -> dict[str, Status]:
    return {node.key: node.status for node in progress.root.below() if node.is_static}


async def stands(tree: Agent) -> Mapping[str, Stand]:
    """Return how a tree stands after a run, whether that fails or not: its result says the same."""
    run = await ended(tree)
    found = standing(tree, run)
    assert standing(tree, run.result) == standing(tree, stored(run.result)) == found
    return found


def stored(result: Result) -> Result:
    """Return a result as another process has it, where nothing but text says what was where."""
    codec = Codec()
    events = [codec.decode(codec.encode(event)) for event in result.events]
    return attrs.evolve(result, events=tuple(events))


@settings(max_examples=20)
@given(net=nets(CALM))
def test_a_graph_stands_as_a_plugin_was_told(net: Any) -> None:
    tree, clock = made(net), MockClock(autojump_threshold=0)
    run, progress = trio.run(told, tree, clock, clock=clock)
    assume(run.status is Status.COMPLETED)  # and has chosen no way that is not there
    counts = {one.key: one.started for one in progress.root.below() if one.is_static}
    counts[tree.name] = 1
    for source in (run, run.result, stored(run.result)):
        found = standing(tree, source)
        assert {name: stand.status for name, stand in found.items()} == {
            **statuses(progress),
            tree.name: Status.COMPLETED,
        }
        assert {name: stand.started for name, stand in found.items()} == counts


@settings(max_examples=20)
@given(
    tree=agent_trees(
        retries=False,
        failures=False,
        escalations=False,
        timeouts=False,
        requests=False,
        policies=[FailFast(), WaitAll()],
    )
)
def test_a_tree_stands_as_a_plugin_was_told(tree: Agent) -> None:
    clock = MockClock(autojump_threshold=0)
    run, progress = trio.run(told, tree, clock, clock=clock)
    wanted = {**statuses(progress), tree.name: Status.COMPLETED}
    for source in (run, run.result, stored(run.result)):
        assert {name: stand.status for name, stand in standing(tree, source).items()} == wanted


@settings(max_examples=20)
@given(net=nets(CALM))
def test_what_is_at_work_is_running_as_long_as_it_is(net: Any) -> None:
    tree, clock = made(net), MockClock(autojump_threshold=0)
    spy = Spy(clock=clock.current_time)

    wrong = list[str]()

    async def main() -> None:
        with suppress(Exception):
            async with Runner(tree, plugins=[spy]).open("go") as run:
                async for _ in run:
                    found = standing(tree, run)
                    wrong.extend(
                        name
                        for name, status in statuses(spy.runs[0]).items()
                        if (found[name].status is Status.RUNNING) is not (status is Status.RUNNING)
                    )

    trio.run(main, clock=clock)
    assert not wrong


# ----------------------------------------------------------------------------------- what it says


def boom(name: str) -> Agent:
    return node(name, error=ValueError(name))


async def test_what_a_failure_keeps_from_starting_is_not_started() -> None:
    line = SequentialAgent("line", [node("a"), boom("b"), node("c")])
    tree = ParallelAgent("side", [line, node("d")], barrier=BestEffort())
    failed = Stand(Status.FAILED, 1)
    found = await stands(tree)
    assert found == {
        "side": DONE, "line": failed, "a": DONE, "b": failed, "c": Stand(), "d": DONE
    }  # fmt: skip


async def test_a_run_that_failed_says_with_whom() -> None:
    found = await stands(SequentialAgent("line", [LoopAgent("ring", [node("a"), boom("b")])]))
    assert [found[name].status for name in ("line", "ring", "a", "b")] == [
        Status.FAILED,
        Status.FAILED,
        Status.COMPLETED,
        Status.FAILED,
    ]


async def test_a_node_whose_edge_was_not_taken_is_skipped() -> None:
    a, b, c, d = node("a", "left"), node("b"), node("c"), node("d")
    graph = GraphAgent("g", [Edge(a, b, when="left"), Edge(a, c, default=True), (c, d)])
    found = await stands(graph)
    assert [found[name].skipped for name in "abcd"] == [False, False, True, True]
    assert found["b"] == DONE


async def test_rounds_are_counted() -> None:
    write, judge = node("write"), node("judge", ("again", "again", "well"))
    graph = GraphAgent("g", [(write, judge), Edge(judge, write, when="again", max_times=5)])
    run = await ended(graph)
    found = standing(graph, run)
    assert found["write"] == found["judge"] == Stand(Status.COMPLETED, 3)
    assert '"judge<br>✓ completed x3"' in to_mermaid(graph, run=run)


async def test_items_are_counted_and_the_worst_of_them_shows() -> None:
    @agent
    async def work(_ctx: InvocationContext, item: int) -> int:
        await trio.lowlevel.checkpoint()
        if item == 2:
            message = "no"
            raise ValueError(message)
        return item

    each = MapAgent("each", work, barrier=BestEffort())
    found = await stands(GraphAgent("g", [(node("items", [1, 2, 3]), each)]))
    assert found["each"] == Stand(Status.COMPLETED, 1, note="2 of 3 items")
    assert found["work"] == Stand(Status.FAILED, 3, note="1 failed")


async def test_while_a_map_is_at_work_it_says_how_many_items_there_are(
    autojump_clock: MockClock,
) -> None:
    @agent
    async def work(_ctx: InvocationContext, item: int) -> int:
        await trio.sleep(item)
        return item

    graph = GraphAgent("g", [(node("items", [1, 2, 5]), MapAgent("each", work))])
    notes = list[str]()
    async with Runner(graph).open("go") as run:
        async for event in run:
            if event.author == "work":
                notes.append(standing(graph, run)["each"].note)
    assert notes == ["0 of 3 items", "1 of 3 items", "2 of 3 items"]
    assert autojump_clock.current_time() > 0


async def test_who_has_asked_a_person_is_waiting() -> None:
    @agent
    async def asks(ctx: InvocationContext) -> str:
        return str(await ctx.request_input("well?"))

    tree = SequentialAgent("line", [asks, node("b")])
    async with Runner(tree).open("go") as run:
        async for event in run:
            if event.request is not None:
                found = standing(tree, run)
                assert found["asks"].status is Status.WAITING
                assert found["line"].status is Status.RUNNING
                assert found["b"] == Stand()
                await run.respond(event.request.id, "yes")


async def test_a_run_shows_in_a_picture_of_a_part_of_its_tree() -> None:
    part = SequentialAgent("part", [node("a"), node("b")])
    tree = ParallelAgent("all", [part, node("c")])
    run = await ended(tree)
    assert standing(part, run) == standing(part, run.result) == {"part": DONE, "a": DONE, "b": DONE}


def three() -> Agent:
    return SequentialAgent("line", [node("a"), boom("b"), node("c")])


def test_a_run_of_every_host_shows() -> None:
    tree = three()
    pictures = set[str]()

    async def in_asyncio() -> None:
        with suppress(ValueError):
            async with aio.Runner(tree).open("go") as run:
                async for _ in run:
                    pass
        pictures.add(to_mermaid(tree, run=run))

    with suppress(ValueError), sync.Runner(tree).open("go") as run:
        for _ in run:
            pictures.add(to_mermaid(tree, run=run))
    [running] = pictures
    pictures.add(to_mermaid(tree, run=run))
    asyncio.run(in_asyncio())
    assert "running" in running
    [ended] = pictures - {running}
    assert {line.strip() for line in ended.splitlines() if "class " in line} == {
        "class line,b failed",
        "class a completed",
        "class c pending",
    }


async def test_both_languages_say_it_in_words_and_by_class() -> None:
    tree = three()
    run = await ended(tree)
    mermaid, dot = read_mermaid(to_mermaid(tree, run=run)), read_dot(to_dot(tree, run=run))
    assert mermaid.kinds == {"line": "failed", "b": "failed", "a": "completed", "c": "pending"}
    assert {key.removeprefix("cluster_"): kind for key, kind in dot.kinds.items()} == mermaid.kinds
    words = [["a", "✓ completed"], ["b", "✗ failed"], ["c", "· not started"]]
    assert [mermaid.lines[name] for name in "abc"] == words
    assert [dot.lines[name] for name in "abc"] == words


@pytest.mark.parametrize("write", [to_mermaid, to_dot])
def test_what_is_no_run_is_refused(write: Any) -> None:
    with pytest.raises(ReadError, match="shows a run or a Result, not 'last one'"):
        write(node("a"), run="last one")


def test_a_deep_run_shows() -> None:
    tree: Agent = node("a")
    for level in range(500):
        tree = (SequentialAgent if level % 2 else ParallelAgent)(f"l{level}", [tree])

    found = standing(tree, trio.run(ended, tree))
    assert set(found.values()) == {DONE}
    assert len(found) == 501
