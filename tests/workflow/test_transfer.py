"""Handing over: ``Event(actions=EventActions(transfer_to_agent=...))``.

The named agent runs when the one that said so has ended, in its place: on its branch, for its
output.
"""

# ruff: noqa: ARG002  # what a method is called with, it need not use

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    DROP_EVENT,
    Agent,
    AgentTimeoutError,
    DropEvent,
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
    Status,
    TransferError,
    agent,
)
from parallel_agent.transfer import MAX_TRANSFERS
from tests.workflow.trees import Diary, Ended, Escalate, Yields, leaf, paths, run_tree, texts


def to(name: Any, text: str = "over to you", **options: Any) -> Event:
    return Event(text, actions=EventActions(transfer_to_agent=name), **options)


def handing(name: str, *targets: Any, then: str = "", **options: Any) -> Agent:
    """An agent that hands over to the last of ``targets``, and says something after that."""

    @agent(name=name, **options)
    async def run(ctx: InvocationContext) -> Yields:
        for target in targets:
            yield to(target, f"{name} to {target}")
        if then:
            yield then

    return run


def team(*agents: Agent) -> Agent:
    """A tree in which only the first of these runs by itself."""
    return LoopAgent("team", [Head("head", agents)], max_iterations=1)


class Head(Agent):
    """Runs the first of its sub-agents."""

    async def run(self, ctx: InvocationContext) -> Any:
        await ctx.run_agent(self.sub_agents[0])


# ------------------------------------------------------------------------------ in its place


def test_the_named_agent_runs_when_the_one_that_hands_over_has_ended() -> None:
    ended = run_tree(team(handing("a", "b", then="last words"), leaf("b", "b here")))
    assert texts(ended.delivered) == ["a to b", "last words", "b here"]


def test_it_runs_below_the_one_that_handed_over_and_on_its_branch() -> None:
    inside = SequentialAgent("s", [handing("a", "b")])
    tree = ParallelAgent("p", [inside, SequentialAgent("other", [leaf("b", "b")])])
    ended = run_tree(tree)
    found = [event for event in ended.delivered if event.path == "p/s/a/b@1"]
    assert [(event.author, event.branch, event.text) for event in found] == [("b", "p.s", "b")]


def test_what_comes_after_it_comes_after_the_agent_it_handed_over_to() -> None:
    tree = SequentialAgent("s", [handing("a", "c"), leaf("b", "b"), leaf("c", "c")])
    assert paths(run_tree(tree).delivered) == ["s/a", "s/a/c@1", "s/b", "s/c"]


def test_each_iteration_of_a_loop_may_hand_over() -> None:
    tree = LoopAgent("l", [handing("a", "b"), leaf("b", "b")], max_iterations=2)
    assert paths(run_tree(tree).delivered) == [
        *("l/a@1", "l/a@1/b@1", "l/b@1"),
        *("l/a@2", "l/a@2/b@1", "l/b@2"),
    ]


def test_inside_a_parallel_it_stays_in_its_branch() -> None:
    diary: Diary = []
    tree = ParallelAgent(
        "p", [handing("a", "b"), leaf("b", 5, "b", diary=diary), leaf("c", 3, "c", diary=diary)]
    )
    ended = run_tree(tree)
    assert ended.result.output == {"a": "b", "b": "b", "c": "c"}
    assert {(event.path, event.branch) for event in ended.delivered if event.author == "b"} == {
        ("p/b", "p.b"),
        ("p/a/b@1", "p.a"),
    }
    assert diary.count("b starts") == diary.count("b ends") == 2


def test_it_may_run_on_two_branches_at_once() -> None:
    tree = ParallelAgent("p", [handing("a", "c"), handing("b", "c"), leaf("c", 1, "c")])
    ended = run_tree(tree)
    assert ended.time == 1
    assert sorted(paths(ended.delivered)) == ["p/a", "p/a/c@1", "p/b", "p/b/c@1", "p/c"]


def test_a_workflow_may_be_handed_over_to() -> None:
    flow = SequentialAgent("flow", [leaf("x", "x"), ParallelAgent("q", [leaf("y", "y")])])
    ended = run_tree(team(handing("a", "flow"), flow))
    assert paths(ended.delivered)[1:] == [
        "team/head@1/a@1/flow@1/x",
        "team/head@1/a@1/flow@1/q/y",
    ]


def test_an_agent_may_hand_over_to_one_below_itself() -> None:
    class Boss(Agent):
        async def run(self, ctx: InvocationContext) -> Yields:
            yield to("worker")

    ended = run_tree(Boss("boss", [leaf("worker", "done")]))
    assert paths(ended.delivered) == ["boss", "boss/worker@1"]
    assert ended.result.output == "done"


@pytest.mark.parametrize("kind", ["coroutine", "returned", "plain", "class"])
def test_every_kind_of_agent_may_hand_over(kind: str) -> None:
    if kind == "class":

        class Handing(Agent):
            async def run(self, ctx: InvocationContext) -> Event:
                return to("b")

        first: Agent = Handing("a")
    elif kind == "plain":

        def plain(ctx: InvocationContext) -> Event:
            return to("b")

        first = agent(plain, name="a")
    else:

        async def coroutine(ctx: InvocationContext) -> Event | None:
            if kind == "returned":
                return to("b")
            await ctx.emit(to("b"))
            return None

        first = agent(coroutine, name="a")
    ended = run_tree(team(first, leaf("b", "b")))
    assert texts(ended.delivered) == ["over to you", "b"]


def test_it_sees_what_was_said_and_written_before() -> None:
    @agent
    async def a(ctx: InvocationContext) -> Yields:
        ctx.state["k"] = 1
        yield to("b")
        ctx.state["k"] = 2

    @agent
    async def b(ctx: InvocationContext) -> Any:
        return [ctx.state["k"], [event.text for event in ctx.history() if event.text]]

    ended = run_tree(ParallelAgent("p", [team(a, b)]))
    assert ended.result.outputs["b"] == [2, ["hi", "over to you"]]


def test_it_works_on_what_the_one_before_worked_on() -> None:
    @agent
    async def b(ctx: InvocationContext, number: int) -> int:
        return number + 1

    @agent
    async def parent(ctx: InvocationContext) -> Any:
        await ctx.map(team(handing("a", "b"), b), [1, 2])

    ended = run_tree(parent)
    assert sorted(event.output for event in ended.delivered if event.author == "b") == [2, 3]


# ------------------------------------------------------------------------------------- output


def test_its_output_is_the_output() -> None:
    ended = run_tree(SequentialAgent("s", [handing("a", "b"), leaf("b", "from b")]))
    assert ended.result.outputs == {"a": "from b", "b": "from b", "s": "from b"}


def test_an_output_given_before_handing_over_is_replaced() -> None:
    @agent
    async def a(ctx: InvocationContext) -> Yields:
        yield to("b", output={"a": 1})

    ended = run_tree(team(a, leaf("b", lambda ctx: ctx.emit(Event(output={"b": 2})))))
    assert ended.result.outputs["a"] == {"b": 2}


def test_an_output_key_gets_the_output_of_the_last_in_the_chain() -> None:
    a, b = handing("a", "b", output_key="said_a"), handing("b", "c", output_key="said_b")
    ended = run_tree(team(a, b, leaf("c", "from c")))
    assert dict(ended.result.state) == {"said_a": "from c", "said_b": "from c"}


def test_a_callback_after_the_agent_comes_after_whoever_it_handed_over_to() -> None:
    a = handing("a", "b", after_agent_callback=lambda ctx: f"{ctx.agent.name} ends")
    ended = run_tree(team(a, leaf("b", "from b")))
    assert texts(ended.delivered) == ["a to b", "from b", "a ends"]


@pytest.mark.parametrize("when", ["before_agent_callback", "after_agent_callback"])
def test_a_callback_may_hand_over(when: str) -> None:
    def hand_over(ctx: object) -> Event:
        return to("b")

    callbacks: Any = {when: hand_over}
    ended = run_tree(team(leaf("a", "a here", **callbacks), leaf("b", "b here")))
    own = ["a here"] if when.startswith("after") else []
    assert texts(ended.delivered) == [*own, "over to you", "b here"]
    assert ended.result.outputs["a"] == "b here"


# ------------------------------------------------------------------------------------ chains


def test_a_chain_goes_on_until_one_hands_over_no_more() -> None:
    ended = run_tree(team(handing("a", "b"), handing("b", "c"), leaf("c", "from c")))
    assert texts(ended.delivered) == ["a to b", "b to c", "from c"]
    assert ended.delivered[-1].path == "team/head@1/a@1/b@1/c@1"


def test_the_last_of_several_counts() -> None:
    ended = run_tree(team(handing("a", "b", "c", "b"), leaf("b", "from b"), leaf("c", "from c")))
    assert texts(ended.delivered) == ["a to b", "a to c", "a to b", "from b"]


@given(st.lists(st.sampled_from("bcd"), min_size=1, max_size=5), st.lists(st.integers(0, 2)))
def test_the_last_of_several_counts_whatever_is_said_between(
    targets: list[str], pauses: list[int]
) -> None:
    @agent
    async def a(ctx: InvocationContext) -> Yields:
        for number, target in enumerate(targets):
            await trio.sleep(pauses[number] if number < len(pauses) else 0)
            yield f"{number}"
            yield to(target)

    ended = run_tree(team(a, *[leaf(name, f"from {name}") for name in "bcd"]))
    assert ended.delivered[-1].text == f"from {targets[-1]}"


def test_two_that_hand_over_to_each_other_come_back() -> None:
    @agent
    async def a(ctx: InvocationContext) -> Yields:
        yield to("b") if ctx.path.count("a@") == 1 else "enough"

    ended = run_tree(team(a, handing("b", "a")))
    assert texts(ended.delivered) == ["over to you", "b to a", "enough"]


def test_two_that_hand_over_to_each_other_for_ever_are_stopped() -> None:
    ended = run_tree(team(handing("a", "b"), handing("b", "a")))
    assert isinstance(ended.error, TransferError)
    assert "25 agents have handed over to each other already" in str(ended.error)
    assert len(ended.delivered) == MAX_TRANSFERS == 25
    assert ended.result.status is Status.FAILED


def test_a_circle_through_an_agent_that_waits_is_refused() -> None:
    """The b runs a c, which hands over to an a again; that cannot hand over to the b."""
    c = handing("c", "a")

    class Runs(Agent):
        async def run(self, ctx: InvocationContext) -> None:
            await ctx.run_agent(c)

    ended = run_tree(team(handing("a", "b"), Runs("b")))
    assert str(ended.error) == "agent 'a' cannot transfer to 'b', which stands above it"
    assert texts(ended.delivered) == ["a to b", "c to a"]


def test_a_circle_that_goes_through_the_agents_of_another_one_is_stopped() -> None:
    """Each b runs an agent of its own making, which hands over to an a again."""

    class Runs(Agent):
        async def run(self, ctx: InvocationContext) -> None:
            await ctx.run_agent(SequentialAgent("w", [handing("c", "a"), Runs("b")]))

    ended = run_tree(team(handing("a", "w"), SequentialAgent("w", [Runs("b")])))
    assert isinstance(ended.error, TransferError)
    assert len(ended.delivered) <= 2 * MAX_TRANSFERS


def test_the_count_is_of_a_chain_and_not_of_a_run() -> None:
    tree = LoopAgent("l", [handing("a", "b"), leaf("b", "b")], max_iterations=30)
    assert run_tree(tree).error is None


# ----------------------------------------------------------------------------------- refusals

OF_THE_TREE: Final = " (only agents of the tree count, not those that are started at run time)"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nobody", f"agent 'a' cannot transfer to 'nobody': no agent has that name{OF_THE_TREE}"),
        ("", f"agent 'a' cannot transfer to '': no agent has that name{OF_THE_TREE}"),
        ("a", "agent 'a' cannot transfer to itself"),
        ("s", "agent 'a' cannot transfer to 's', which stands above it"),
        ("p", "agent 'a' cannot transfer to 'p', which stands above it"),
        ("user", f"agent 'a' cannot transfer to 'user': no agent has that name{OF_THE_TREE}"),
    ],
)
def test_a_bad_target_is_refused_at_the_yield_and_nothing_is_recorded(
    target: str, said: str
) -> None:
    seen: list[str] = []

    @agent
    async def a(ctx: InvocationContext) -> Yields:
        ctx.state["k"] = 1
        try:
            yield to(target)
        except TransferError as exc:
            seen.append(str(exc))
        yield "went on"

    ended = run_tree(ParallelAgent("p", [SequentialAgent("s", [a])]))
    assert seen == [said]
    assert ended.error is None
    assert texts(ended.result.events) == ["went on"]
    assert dict(ended.result.events[0].state_delta) == {"k": 1}


@pytest.mark.parametrize(
    ("target", "meant"),
    [("biling", "billing"), ("head_of_al", "head_of_all"), ("supports", "support")],
)
def test_a_name_that_is_nearly_one_of_the_tree_is_told(target: str, meant: str) -> None:
    """One of the agent's own tree, or of a tree around it, if it was started at run time."""

    @agent
    async def forks(ctx: InvocationContext) -> None:
        await ctx.map(SequentialAgent("desk", [handing("a", target), leaf("support")]), [1])

    ended = run_tree(SequentialAgent("head_of_all", [forks, leaf("billing")]))
    assert str(ended.error) == (
        f"agent 'a' cannot transfer to {target!r}: no agent has that name; did you mean {meant!r}?"
    )


def test_a_refusal_that_nobody_catches_fails_the_agent() -> None:
    ended = run_tree(team(handing("a", "nobody")))
    assert isinstance(ended.error, TransferError)
    assert ended.notes == ["raised by agent team/head@1/a@1"]
    assert ended.delivered == []


def test_after_a_refusal_an_earlier_one_still_stands() -> None:
    @agent
    async def a(ctx: InvocationContext) -> Yields:
        yield to("b")
        with suppress(TransferError):
            yield to("nobody")

    assert texts(run_tree(team(a, leaf("b", "b"))).delivered) == ["over to you", "b"]


def test_an_event_that_was_refused_may_be_emitted_again() -> None:
    @agent
    async def a(ctx: InvocationContext) -> Yields:
        event = to("nobody")
        try:
            yield event
        except TransferError:
            event.actions.transfer_to_agent = "b"
        yield event

    assert texts(run_tree(team(a, leaf("b", "b"))).delivered) == ["over to you", "b"]


def test_a_partial_event_hands_over_to_nobody() -> None:
    @agent
    async def a(ctx: InvocationContext) -> Yields:
        yield to("b", partial=True)

    assert texts(run_tree(team(a, leaf("b", "never"))).delivered) == ["over to you"]


class Drops(Plugin):
    async def on_event_callback(
        self,
        ctx: InvocationContext,
        event: Event,
    ) -> Event | DropEvent | None:
        return DROP_EVENT if event.text == "over to you" else None


class Sends(Plugin):
    async def on_event_callback(
        self,
        ctx: InvocationContext,
        event: Event,
    ) -> Event | DropEvent | None:
        return to("c") if event.text == "a to b" else None


def test_what_a_plugin_drops_hands_over_to_nobody() -> None:
    tree = team(leaf("a", lambda ctx: ctx.emit(to("b")), "stays"), leaf("b", "never"))
    assert texts(run_tree(Runner(tree, plugins=[Drops("drops")])).delivered) == ["stays"]


def test_a_plugin_may_say_who_it_is_to_be() -> None:
    tree = team(handing("a", "b"), leaf("b", "from b"), leaf("c", "from c"))
    ended = run_tree(Runner(tree, plugins=[Sends("sends")]))
    assert texts(ended.delivered) == ["over to you", "from c"]


# ------------------------------------------------------------- failures, retries, time, limits


def test_its_failure_is_raised_as_itself() -> None:
    error = ValueError("x")
    ended = run_tree(team(handing("a", "b"), leaf("b", error)))
    assert ended.error is error
    assert ended.notes == ["raised by agent team/head@1/a@1/b@1"]


def test_an_agent_that_fails_after_all_hands_over_to_nobody() -> None:
    @agent
    async def a(ctx: InvocationContext) -> Yields:
        yield to("b")
        raise ValueError

    ended = run_tree(team(a, leaf("b", "never")))
    assert isinstance(ended.error, ValueError)
    assert texts(ended.delivered) == ["over to you"]


def test_the_agent_it_hands_over_to_is_tried_again_by_its_own_options() -> None:
    @agent(retry=Retry(3, initial_delay=1))
    async def b(ctx: InvocationContext) -> Yields:
        yield ctx.path
        if not ctx.path.endswith("~3"):
            raise ValueError

    ended = run_tree(team(handing("a", "b"), b))
    place = "team/head@1/a@1/b@1"
    assert texts(ended.delivered) == ["a to b", place, f"{place}~2", f"{place}~3"]


def test_an_agent_that_is_tried_again_hands_over_again() -> None:
    failed: list[str] = []

    def fail_once(ctx: InvocationContext) -> None:
        failed.append(ctx.path)
        if len(failed) == 1:
            raise ValueError

    a = handing("a", "b", retry=Retry(2, initial_delay=1))
    ended = run_tree(team(a, leaf("b", fail_once, "from b")))
    assert failed == ["team/head@1/a@1/b@1", "team/head@1/a@1~2/b@1"]
    assert texts(ended.delivered) == ["a to b", "a to b", "from b"]


def test_a_failed_attempt_hands_over_to_nobody() -> None:
    @agent(retry=Retry(2, initial_delay=1))
    async def a(ctx: InvocationContext) -> Yields:
        if not ctx.path.endswith("~2"):
            yield to("b")
            raise ValueError
        yield "alone"

    assert texts(run_tree(team(a, leaf("b", "never"))).delivered) == ["over to you", "alone"]


def test_the_time_of_the_one_that_handed_over_goes_on() -> None:
    ended = run_tree(team(handing("a", "b", timeout=3), leaf("b", 5)))
    assert isinstance(ended.error, AgentTimeoutError)
    assert (ended.error.path, ended.time) == ("team/head@1/a@1", 3)


def test_the_agent_it_hands_over_to_has_a_time_of_its_own() -> None:
    ended = run_tree(team(handing("a", "b"), leaf("b", 5).with_options(timeout=2)))
    assert isinstance(ended.error, AgentTimeoutError)
    assert (ended.error.path, ended.time) == ("team/head@1/a@1/b@1", 2)


def test_under_a_limit_of_the_run_it_needs_no_second_place() -> None:
    tree = ParallelAgent("p", [handing("a", "c"), handing("b", "c"), leaf("c", 1, "c")])
    ended = run_tree(tree, run_config=RunConfig(max_concurrency=1))
    assert ended.error is None
    assert ended.time == 3


def test_a_failing_sibling_cancels_it() -> None:
    diary: Diary = []
    tree = ParallelAgent(
        "p", [team(handing("a", "b"), leaf("b", 9, diary=diary)), leaf("fails", 1, ValueError("x"))]
    )
    ended = run_tree(tree)
    assert isinstance(ended.error, ValueError)
    assert diary == ["b starts", "b ends"]
    assert ended.time == 1


# ------------------------------------------------------------------------------------ escalating


def test_when_it_escalates_the_loop_ends() -> None:
    tree = LoopAgent("l", [handing("a", "b"), leaf("b", Escalate())])
    assert texts(run_tree(tree).delivered) == ["a to b", "stop"]


def test_when_it_escalates_the_siblings_of_the_one_that_handed_over_end() -> None:
    """It runs in the place of a direct child of the parallel."""
    tree = ParallelAgent("p", [handing("a", "b"), leaf("c", 5, "never")])
    around = SequentialAgent("s", [tree, leaf("b", 1, Escalate(), "last words")])
    ended = run_tree(LoopAgent("l", [around], max_iterations=1))
    assert texts(ended.delivered)[:3] == ["a to b", "stop", "last words"]
    assert ended.outcomes("p") == {"a": "completed", "c": "cancelled"}


def test_so_it_is_at_the_end_of_a_chain() -> None:
    tree = ParallelAgent("p", [handing("a", "b"), leaf("c", 5, "never")])
    more = [handing("b", "d"), leaf("d", 1, Escalate())]
    ended = run_tree(SequentialAgent("s", [tree, *more]))
    assert ended.outcomes("p") == {"a": "completed", "c": "cancelled"}


# ---------------------------------------------------------------------- started at run time


def started(child: Agent, *, name: str = "parent", below: tuple[Agent, ...] = ()) -> Agent:
    """An agent that starts ``child`` at run time, and has agents of its own."""

    class Parent(Agent):
        async def run(self, ctx: InvocationContext) -> Any:
            return [outcome.output for outcome in await ctx.fan_out([child, child])]

    return Parent(name, below)


def check(ended: Ended, *expected: str) -> None:
    assert sorted(paths(ended.delivered)) == sorted(expected)


def test_a_branch_started_at_run_time_hands_over_within_its_own_tree() -> None:
    tree = SequentialAgent("t", [handing("a", "b"), leaf("b", "b")])
    ended = run_tree(started(tree))
    check(
        ended,
        *(f"parent/t@{n}/{rest}" for n in (1, 2) for rest in ("a", "a/b@1", "b")),
    )


def test_a_branch_started_at_run_time_hands_over_to_an_agent_of_the_tree_around_it() -> None:
    parent = started(handing("a", "helper"))
    ended = run_tree(SequentialAgent("s", [parent, leaf("helper", "h")]))
    check(
        ended,
        *(f"s/parent/a@{n}{rest}" for n in (1, 2) for rest in ("", "/helper@1")),
        "s/helper",
    )
    assert ended.result.outputs["parent"] == ["h", "h"]


def test_the_nearest_tree_counts() -> None:
    tree = SequentialAgent("t", [handing("a", "same"), leaf("same", "near")])
    parent = started(tree)
    ended = run_tree(SequentialAgent("s", [parent, leaf("same", "far")]))
    assert ended.result.outputs["a"] == "near"


def test_a_branch_started_at_run_time_cannot_hand_over_to_whom_it_runs_below() -> None:
    parent = started(handing("a", "parent"))
    ended = run_tree(SequentialAgent("s", [parent]))
    assert isinstance(ended.error, TransferError)
    assert "stands above it" in str(ended.error)


@pytest.mark.parametrize("start", ["run_agent", "open_agent", "open_fan_out"])
def test_however_it_was_started_it_may_hand_over(start: str) -> None:
    a = handing("a", "helper")

    async def run(ctx: InvocationContext) -> None:
        match start:
            case "run_agent":
                assert await ctx.run_agent(a) == "h"
            case "open_agent":
                async with ctx.open_agent(a) as events:
                    async for event in events:
                        await ctx.emit(event)
                assert events.output == "h"
            case _:
                async with ctx.open_fan_out() as group:
                    assert await group.start(a) == "h"

    ended = run_tree(SequentialAgent("s", [agent(run), leaf("helper", "h")]))
    assert ended.error is None
    assert texts(ended.delivered) == ["a to helper", "h", "h"]


def test_an_agent_elsewhere_may_have_the_name_of_the_one_that_hands_over() -> None:
    """The tree around it has an `a` of its own, below the target."""
    around = SequentialAgent("around", [leaf("a", "another a")])
    ended = run_tree(SequentialAgent("s", [started(handing("a", "around")), around]))
    check(
        ended,
        *(f"s/parent/a@{n}{rest}" for n in (1, 2) for rest in ("", "/around@1/a")),
        "s/around/a",
    )


def test_the_targets_of_both_ways_do_not_mix_up_their_numbers() -> None:
    @agent
    async def a(ctx: InvocationContext) -> Yields:
        await ctx.run_agent(helper)
        yield to("helper")

    helper = leaf("helper", "h")
    ended = run_tree(SequentialAgent("s", [a, helper]))
    assert paths(ended.delivered) == ["s/a/helper@1", "s/a", "s/a/helper@2", "s/helper"]


def test_the_checker_of_paths_tells_a_transfer_from_none() -> None:
    quiet: Callable[..., Agent] = leaf
    ended = run_tree(SequentialAgent("s", [quiet("a", "a"), quiet("b", "b")]))
    assert paths(ended.delivered) == ["s/a", "s/b"]
