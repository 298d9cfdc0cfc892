"""One tree, many runs at the same time: none sees another."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    Event,
    InMemorySessionService,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Runner,
    SequentialAgent,
    Status,
    agent,
)
from tests.workflow.model import DrawnError, Node, build, nodes
from tests.workflow.trees import Escalate, Yields, leaf, open_and_read, run_virtual, texts


def counting(name: str) -> Agent:
    """Counts its own activations in state, slowly."""

    @agent(name=name, output_key=f"{name}_last")
    async def count(ctx: InvocationContext) -> Yields:
        key = f"{name}_count"
        before = ctx.state.get(key, 0)
        await trio.sleep(1)
        ctx.state[key] = before + 1
        yield f"{ctx.user_text} {name} {ctx.state[key]}"

    return count


TREE = LoopAgent(
    "l",
    [ParallelAgent("p", [counting("a"), counting("b")]), SequentialAgent("s", [counting("c")])],
    max_iterations=2,
)


def said_by(user: str) -> list[str]:
    """What one run of `TREE` says, in an order that does not hang on the scheduler."""
    return sorted(f"{user} {name} {number}" for name in "abc" for number in (1, 2))


@given(st.lists(st.integers(0, 3), min_size=2, max_size=5), st.random_module())
def test_runs_at_the_same_time_say_what_each_would_say_alone(
    delays: list[int], scheduler: object
) -> None:
    """The same tree, the same runner, the same service; only the sessions differ."""
    runner = Runner(TREE)
    said: dict[str, list[str]] = {}

    async def one(number: int, delay: int) -> None:
        await trio.sleep(delay)
        ended = await open_and_read(runner, message=f"user{number}")
        assert ended.result.state["a_count"] == 2
        said[f"user{number}"] = sorted(texts(ended.delivered))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number, delay in enumerate(delays):
                nursery.start_soon(one, number, delay)

    run_virtual(main)
    assert said == {f"user{number}": said_by(f"user{number}") for number in range(len(delays))}


Line = tuple[float, str, str]


async def timeline(runner: Runner, delay: float, pause: float) -> list[Line]:
    """When, relative to its own start, a run delivers what."""
    await trio.sleep(delay)
    began = trio.current_time()
    lines: list[Line] = []

    def write(event: Event | None, text: str) -> None:
        path = "" if event is None else event.path
        lines.append((round(trio.current_time() - began, 6), path, text))

    try:
        async with runner.open() as run:
            async for event in run:
                write(event, event.text)
                await trio.sleep(pause)
    except DrawnError as error:
        write(None, str(error))
    return lines


@given(
    nodes("say", "stop", "fail"),
    st.lists(st.tuples(st.floats(0, 20), st.floats(0, 3)), min_size=2, max_size=4),
)
def test_every_drawn_tree_runs_beside_itself_as_it_runs_alone(
    node: Node, readers: list[tuple[float, float]]
) -> None:
    """Each run has a start and a reader of its own; each must come out as it does alone."""
    tree = build(node)

    async def beside() -> list[list[Line]]:
        results: dict[int, list[Line]] = {}

        async def one(number: int, delay: float, pause: float) -> None:
            results[number] = await timeline(Runner(tree), delay, pause)

        async with trio.open_nursery() as nursery:
            for number, (delay, pause) in enumerate(readers):
                nursery.start_soon(one, number, delay, pause)
        return [results[number] for number in range(len(readers))]

    alone = [run_virtual(timeline, Runner(tree), 0.0, pause) for _, pause in readers]
    together = run_virtual(beside)
    for mine, expected in zip(together, alone, strict=True):
        assert [line[1:] for line in mine] == [line[1:] for line in expected]
        assert [line[0] for line in mine] == pytest.approx([line[0] for line in expected], abs=1e-5)


async def test_a_run_that_is_cancelled_leaves_the_other_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    runner = Runner(TREE)
    async with trio.open_nursery() as nursery:

        async def cancelled() -> None:
            async with runner.open("cancelled") as run:
                await trio.sleep(1.5)
                run.cancel()
            assert run.result.status is Status.CANCELLED

        nursery.start_soon(cancelled)
        ended = await open_and_read(runner, message="user")
    assert sorted(texts(ended.delivered)) == said_by("user")


async def test_a_run_that_fails_leaves_the_other_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @agent
    async def fails_for_some(ctx: InvocationContext) -> Yields:
        yield "so far"
        await trio.sleep(1)
        if ctx.user_text == "bad":
            raise ValueError(ctx.user_text)
        yield "to the end"

    tree = ParallelAgent("p", [fails_for_some, leaf("b", 5, "b")])
    said: dict[str, list[str]] = {}

    async def one(message: str) -> None:
        ended = await open_and_read(tree, message=message)
        said[message] = sorted(texts(ended.delivered))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, "bad")
        nursery.start_soon(one, "good")
    assert said == {"bad": ["so far"], "good": ["b", "so far", "to the end"]}


async def test_an_escalation_in_one_run_stops_nothing_in_the_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @agent
    async def stops_for_some(ctx: InvocationContext) -> Yields:
        await trio.sleep(1)
        yield Escalate("stop").event() if ctx.user_text == "stop" else "go on"

    tree = LoopAgent(
        "l", [ParallelAgent("p", [stops_for_some, leaf("b", 2, "b")])], max_iterations=2
    )
    said: dict[str, list[str]] = {}

    async def one(message: str) -> None:
        said[message] = texts((await open_and_read(tree, message=message)).delivered)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, "stop")
        nursery.start_soon(one, "go")
    assert said == {"stop": ["stop"], "go": ["go on", "b"] * 2}


async def test_a_run_inside_an_agent_of_another_run_of_the_same_tree_is_a_run_of_its_own(
    autojump_clock: trio.testing.MockClock,
) -> None:
    inner: list[str] = []

    @agent
    async def recursive(ctx: InvocationContext) -> Yields:
        yield f"depth {ctx.user_text}"
        if ctx.user_text != "0":
            result = await Runner(tree).run(str(int(ctx.user_text) - 1))
            inner.append(result.text)

    tree = SequentialAgent("s", [recursive])
    ended = await open_and_read(tree, message="2")
    assert texts(ended.delivered) == ["depth 2"]
    assert inner == ["depth 0", "depth 1"]


async def test_runs_one_after_another_in_one_session_see_what_was_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    seen: list[list[str]] = []
    tree = leaf("a", lambda ctx: seen.append(texts(ctx.history())), "x")
    service = InMemorySessionService()
    for message in ("one", "two"):
        runner = Runner(tree, app_name="app", session_service=service)
        await open_and_read(runner, message=message, session_id="s")
    assert seen == [["one"], ["one", "x", "two"]]


async def test_agents_of_one_tree_may_run_in_another_tree_at_the_same_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    shared = counting("a")
    trees = [ParallelAgent("p", [shared]), SequentialAgent("s", [shared])]
    results: list[str] = []

    async def one(tree: Agent) -> None:
        ended = await open_and_read(tree, message=tree.name)
        results.extend(f"{event.path}: {event.text}" for event in ended.delivered if event.text)

    async with trio.open_nursery() as nursery:
        for tree in trees:
            nursery.start_soon(one, tree)
    assert sorted(results) == ["p/a: p a 1", "s/a: s a 1"]


async def test_after_all_its_runs_a_tree_is_as_it_was(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def attributes(found: Agent) -> dict[str, object]:
        return dict(vars(found))

    before = [attributes(found) for found in (TREE, *TREE.sub_agents)]
    await open_and_read(TREE)
    assert [attributes(found) for found in (TREE, *TREE.sub_agents)] == before
