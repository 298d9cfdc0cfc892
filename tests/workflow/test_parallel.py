"""Side by side."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    Event,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Runner,
    SequentialAgent,
    Status,
    agent,
)
from tests.workflow.model import Model, Node, Parallel, build, nodes, watch
from tests.workflow.trees import (
    Diary,
    Yields,
    leaf,
    leaves,
    open_and_read,
    paths,
    run_tree,
    run_virtual,
    texts,
)

# --------------------------------------------------------------------------------------- branches


def test_a_child_runs_on_a_branch_of_its_own() -> None:
    ended = run_tree(ParallelAgent("fan", leaves("a b", "x")))
    assert {event.author: event.branch for event in ended.delivered} == {
        "a": "fan.a",
        "b": "fan.b",
        "fan": None,
    }


def test_the_branch_of_a_parallel_in_a_parallel_goes_on_from_its_own() -> None:
    tree = ParallelAgent("p", [SequentialAgent("s", [ParallelAgent("q", leaves("a", "x"))])])
    (event, inner, outer) = run_tree(tree).delivered
    assert (event.branch, event.path) == ("p.s.q.a", "p/s/q/a")
    assert (inner.author, inner.branch) == ("q", "p.s")
    assert (outer.author, outer.branch) == ("p", None)


def test_one_child_is_a_branch_too() -> None:
    (event, _) = run_tree(ParallelAgent("p", leaves("only", "x"))).delivered
    assert event.branch == "p.only"


def test_branches_are_told_apart_by_segments_not_by_prefixes() -> None:
    """``a_1`` writes and ends; ``a_10``, which runs longer, must not see it."""
    seen: list[str] = []
    tree = ParallelAgent(
        "a", [leaf("a_1", "x"), leaf("a_10", 5, lambda ctx: seen.extend(texts(ctx.history())))]
    )
    run_tree(tree, message="hello")
    assert seen == ["hello"]


def test_children_start_in_the_order_thescheduler_takes_all_before_time_passes() -> None:
    starts: list[float] = []
    run_tree(ParallelAgent("p", leaves("a b c", lambda _: starts.append(trio.current_time()), 5)))
    assert starts == [0, 0, 0]


def test_without_children_it_completes() -> None:
    ended = run_tree(ParallelAgent("p"))
    assert (ended.result.status, ended.result.output) == (Status.COMPLETED, {})
    assert ended.outcomes("p") == {}


# ------------------------------------------------------------------------------------- what it sees


def remember(into: list[str]) -> Agent:
    return leaf("reader", lambda ctx: into.extend(texts(ctx.history())))


def test_a_branch_sees_what_came_before_the_fork_and_its_own() -> None:
    seen: list[str] = []
    tree = SequentialAgent(
        "s",
        [
            leaf("before", "b1"),
            ParallelAgent(
                "p",
                [leaf("other", "o1"), SequentialAgent("t", [leaf("own", 3, "w1"), remember(seen)])],
            ),
        ],
    )
    run_tree(tree, message="hello")
    assert seen == ["hello", "b1", "w1"]


def test_after_the_join_everything_is_seen_in_the_order_of_the_log() -> None:
    seen: list[str] = []
    tree = SequentialAgent(
        "s", [ParallelAgent("p", [leaf("a", 2, "a1"), leaf("b", 1, "b1")]), remember(seen)]
    )
    run_tree(tree, message="hello")
    assert seen == ["hello", "b1", "a1"]


def test_a_later_fork_sees_what_an_earlier_one_has_joined() -> None:
    seen: list[str] = []
    first, second = ParallelAgent("p", leaves("a b", "x")), ParallelAgent("q", [remember(seen)])
    run_tree(SequentialAgent("s", [first, second]), message="hello")
    assert seen == ["hello", "x", "x"]


def test_a_branch_does_not_see_what_a_sibling_has_joined() -> None:
    seen: list[str] = []
    inner = ParallelAgent("q", leaves("a", "x"))
    run_tree(ParallelAgent("p", [inner, SequentialAgent("s", [leaf("w", 5), remember(seen)])]))
    assert seen == ["hi"]


def test_what_the_parent_wrote_is_recorded_before_the_fork() -> None:
    seen: list[object] = []
    read = leaf("reader", lambda ctx: seen.append(ctx.state.get("k")))

    class Writer(Agent):
        async def run(self, ctx: InvocationContext) -> None:
            ctx.state["k"] = 1
            await ctx.run_agent(self.sub_agents[0])

    ended = run_tree(Writer("w", [ParallelAgent("p", [read])]))
    assert seen == [1]
    assert dict(ended.delivered[0].state_delta) == {"k": 1}


place: ContextVar[str] = ContextVar("place", default="outside")


def test_what_a_branch_sets_in_a_context_variable_stays_its_own() -> None:
    seen: list[str] = []
    tree = ParallelAgent(
        "p",
        [
            leaf("a", lambda _: place.set("a"), 5, lambda _: seen.append(place.get())),
            leaf("b", 1, lambda _: seen.append(place.get())),
        ],
    )
    run_tree(tree)
    assert seen == ["outside", "a"]


# ------------------------------------------------------------------------------------------ order


@given(nodes("say"), st.random_module())
def test_everything_is_delivered_when_the_model_says(node: Node, scheduler: object) -> None:
    watch(build(node)).matches(Model().play(node))


def below(branch: str, path: str, events: Sequence[Event]) -> list[tuple[str, str]]:
    """The projection of a log on a branch: what it holds of it and of branches below it."""
    wanted = branch.split(".")
    return [
        (event.path.removeprefix(path), event.text)
        for event in events
        if (event.branch or "").split(".")[: len(wanted)] == wanted
    ]


@given(nodes("say", max_leaves=4, top="parallel"))
def test_the_projection_of_the_log_on_a_branch_is_what_that_branch_alone_would_log(
    node: Node,
) -> None:
    assert isinstance(node, Parallel)
    whole = run_tree(build(node)).result.events
    for child in node.children:
        alone = run_tree(ParallelAgent(node.name, [build(child)])).result.events
        branch, path = f"{node.name}.{child.name}", f"{node.name}/{child.name}"
        assert below(branch, path, whole) == below(branch, path, alone) != []


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.integers(0, 5), st.random_module())
def test_a_branch_never_runs_ahead_of_the_reader(
    pauses: list[int], reading: int, scheduler: object
) -> None:
    """Between two events of a branch, the reader has come back for the next one."""
    names = [f"a_{number}" for number in range(len(pauses))]
    log: dict[str, list[str]] = {name: [] for name in names}

    def counter(name: str, pause: int) -> Agent:
        @agent(name=name)
        async def count(ctx: InvocationContext) -> Yields:
            for number in range(3):
                await trio.sleep(pause)
                yield f"{number}"
                log[name].append(f"goes on after {number}")

        return count

    async def main() -> None:
        async with Runner(ParallelAgent("p", list(map(counter, names, pauses)))).open() as run:
            async for event in run:
                await trio.sleep(reading)
                if event.author in log:
                    log[event.author].append(f"was read: {event.text}")

    run_virtual(main)
    expected = [line for n in range(3) for line in (f"was read: {n}", f"goes on after {n}")]
    assert log == dict.fromkeys(names, expected)


# -------------------------------------------------------------------------------------- its end


def test_the_outcomes_are_one_event_of_its_own_after_everything_of_its_branches() -> None:
    ended = run_tree(ParallelAgent("p", [leaf("slow", 9, "s1"), leaf("quick", "q1")]))
    *_, last = ended.delivered
    assert (last.author, last.branch, last.text) == ("p", None, "")
    assert [outcome.name for outcome in last.actions.outcomes] == ["slow", "quick"]
    assert [outcome.status for outcome in last.actions.outcomes] == ["completed"] * 2
    assert [outcome.duration for outcome in last.actions.outcomes] == [9, 0]


def test_its_outcomes_can_be_asked_for_afterwards_inside_and_outside() -> None:
    inside: list[str] = []
    tree = SequentialAgent(
        "s",
        [
            ParallelAgent("p", leaves("a b", "x")),
            leaf("asks", lambda ctx: inside.extend(o.name for o in ctx.outcomes("p"))),
        ],
    )
    ended = run_tree(tree)
    assert inside == [outcome.name for outcome in ended.run.outcomes("p")] == ["a", "b"]
    assert [outcome.output for outcome in ended.run.outcomes("p")] == ["x", "x"]
    assert [outcome.path for outcome in ended.run.outcomes("p")] == ["s/p/a", "s/p/b"]


def test_outcomes_of_a_fan_out_that_never_ran_are_an_error_that_names_those_that_did() -> None:
    ended = run_tree(ParallelAgent("p", leaves("a")))
    with pytest.raises(KeyError, match=r"'q'.*ended: p"):
        ended.run.outcomes("q")


def test_in_a_loop_the_newest_outcomes_are_kept() -> None:
    rounds = iter(["first", "second"])
    speaker = agent(lambda _: next(rounds), name="a")
    ended = run_tree(LoopAgent("l", [ParallelAgent("p", [speaker])], max_iterations=2))
    assert ended.outcome("p", "a").output == "second"


def test_in_a_loop_the_paths_of_its_children_tell_the_rounds_apart() -> None:
    tree = LoopAgent("l", [ParallelAgent("p", leaves("a", "x"))], max_iterations=2)
    events = run_tree(tree).delivered
    assert paths(events) == ["l/p@1/a", "l/p@2/a"]
    assert {event.branch for event in events if event.text} == {"p.a"}


async def test_it_ends_when_the_last_clean_up_of_a_branch_has_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    diary: Diary = []

    @agent
    async def tidy(ctx: InvocationContext) -> Yields:
        try:
            yield "x"
        finally:
            await trio.sleep(5)
            diary.append("tidied up")

    tree = SequentialAgent(
        "s", [ParallelAgent("p", [tidy, leaf("quick", "y")]), leaf("next", diary=diary)]
    )
    await open_and_read(tree)
    assert diary == ["tidied up", "next starts", "next ends"]


async def test_when_cancelled_it_cancels_and_joins_every_branch(
    autojump_clock: trio.testing.MockClock,
) -> None:
    diary: Diary = []
    tree = ParallelAgent(
        "p",
        [
            leaf("a", 10, diary=diary),
            ParallelAgent("q", [leaf("b", 10, diary=diary), leaf("c", 10, diary=diary)]),
        ],
    )
    with trio.move_on_after(5):
        await open_and_read(tree)
    assert sorted(diary[:3]) == ["a starts", "b starts", "c starts"]
    assert sorted(diary[3:]) == ["a ends", "b ends", "c ends"]
