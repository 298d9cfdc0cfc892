"""Graphs in the outline and in the live view: nodes, rounds, and the items of a map."""

from __future__ import annotations

import io
import re

import trio
from rich.console import Console
from trio.testing import MockClock

from parallel_agent import (
    Agent,
    BestEffort,
    Edge,
    GraphAgent,
    InvocationContext,
    LoopAgent,
    MapAgent,
    Retry,
    Runner,
    agent,
)
from parallel_agent.observe.live import LiveView
from parallel_agent.observe.outline import outline
from parallel_agent.observe.tracker import Tracker
from tests.graph.nodes import node


@agent
async def work(_ctx: InvocationContext, item: int) -> str:
    await trio.sleep(item)
    if item == 2:
        message = "no"
        raise ValueError(message)
    return f"item {item}"


def graph() -> Agent:
    each = MapAgent("each", work, barrier=BestEffort())
    over = MapAgent("over", node("other"), items_key="found")
    judge = node("judge", ("again", "well"), sleeps=1)
    return GraphAgent(
        "g",
        [
            (node("items", [1, 2, 3]), each, judge),
            Edge(judge, each, when="again", max_times=3),
            Edge(judge, over, default=True),
        ],
    )


def test_an_outline_says_what_is_a_graph_and_what_a_map() -> None:
    assert [line.split("  ")[-1].strip() for line in outline(graph()).splitlines()] == [
        "graph",
        "function",
        "map",
        "function",
        "function",
        "map over found",
        "function",
    ]


async def test_the_live_view_counts_rounds_and_items_and_those_that_failed(
    autojump_clock: MockClock,
) -> None:
    @agent
    async def again(ctx: InvocationContext) -> list[int]:
        await trio.lowlevel.checkpoint()
        return [1, 2, 3] if ctx.input == "again" else [3]

    each = MapAgent("each", work, barrier=BestEffort())
    judge = node("judge", ("again", "well"), sleeps=1)
    tree = GraphAgent("g", [(again, each, judge), Edge(judge, again, when="again", max_times=3)])
    file = io.StringIO()
    view = LiveView(
        console=Console(file=file, width=80, height=24, color_system=None),
        clock=autojump_clock.current_time,
    )
    async with Runner(tree, plugins=[view]).open("go") as run:
        async for _ in run:
            pass
    assert [re.split(r" {2,}(?=\d)", line)[0] for line in file.getvalue().splitlines()] == [
        "✓ g",
        "├── ✓ again x2",
        "├── ✓ each x2",
        "│   └── ✓ work x4, 1 failed",
        "└── ✓ judge x2",
        "completed",
    ]


async def test_an_agent_that_is_tried_again_is_not_at_work_for_ever(
    autojump_clock: MockClock,
) -> None:
    working = list[list[str]]()
    tries = 0

    @agent(retry=Retry(3))
    async def flaky(_ctx: InvocationContext) -> str:
        nonlocal tries
        tries += 1
        if tries < 3:
            message = "not yet"
            raise ValueError(message)
        await trio.lowlevel.checkpoint()
        return "done"

    tracker = Tracker(clock=autojump_clock.current_time)
    last = node("last")
    tree = GraphAgent("g", [(LoopAgent("ring", [flaky], max_iterations=1), last)])
    async with Runner(tree, plugins=[tracker]).open("go") as run:
        async for event in run:
            if event.author in ("flaky", "last"):
                working.append(tracker.working())
    assert working == [["g/ring/flaky@1"], ["g/last"]]
