"""A run that is cut off anywhere, and gone on with, comes to what it would have come to.

For drawn trees in which no order makes a difference; cut off after each event, also between an end
and its record, and a second time while it goes on. What is compared: status, error, outputs, state,
events; what ran again; and what each attempt could see when it began.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    BestEffort,
    Event,
    FailFast,
    FirstSuccess,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Quorum,
    Retry,
    SequentialAgent,
    WaitAll,
    agent,
)
from parallel_agent.past import Past
from parallel_agent.replay import Replay
from parallel_agent.testing import adds, contributes, emits, escalates, raises, scripted, sleeps
from parallel_agent.testing.script import ScriptStep
from parallel_agent.testing.strategies import agent_trees
from tests.kernel.scripted import run_virtual
from tests.support.drawing import fewer
from tests.support.resuming import troubles, without_races
from tests.workflow.trees import Yields

AGAIN = Retry(2, initial_delay=0, jitter=0)

# A failure that cancels others leaves what they had done by then: so either none fails, or all go
# on. Time limits depend on how long something takes, which is another time after a cut.
PEACEFUL = st.one_of(
    agent_trees(contributions=("t", "u"), timeouts=False, policies=(WaitAll(), BestEffort())),
    agent_trees(
        contributions=("t", "u"),
        timeouts=False,
        failures=False,
        policies=(FailFast(), WaitAll(), BestEffort()),
    ),
).map(without_races)


@st.composite
def contests(draw: st.DrawFn) -> Agent:
    """Draw a fan-out whose branches end at moments of their own, in a loop, a retry, or neither.

    So its policy decides the same, whenever those that have not ended are started anew.
    """
    width = draw(st.integers(1, 4))
    moments = draw(st.permutations(range(1, width + 1)))
    branches: list[Agent] = []
    for name, moment in zip("abcd", moments, strict=False):
        first: tuple[ScriptStep, ...] = draw(
            st.sampled_from([(emits(f"{name}1"), contributes("t", 1)), (adds(f"{name}_n"),), ()])
        )
        last: tuple[ScriptStep, ...] = draw(
            st.sampled_from(
                [
                    (emits(f"{name}2", state_delta={f"{name}_x": 1}),),
                    (raises(ValueError(name)),),
                    (escalates(f"{name}2"), sleeps(0.25), emits(f"{name}3")),
                ]
            )
        )
        branches.append(scripted(name, *first, sleeps(moment), *last))
    policies = [FailFast(), WaitAll(), BestEffort(), FirstSuccess(), Quorum(2)]
    barrier = draw(st.sampled_from([one for one in policies if one.least_width() <= width]))
    fan = ParallelAgent("p", branches, barrier=barrier, output_key="out")
    retry = draw(st.sampled_from([None, AGAIN]))
    around: Agent = SequentialAgent("s", [fan, scripted("m", adds("m_n"), emits("m"))], retry=retry)
    if draw(st.booleans()):
        around = LoopAgent("l", [around], max_iterations=2)
    return SequentialAgent("root", [around, scripted("z", emits("z"))])


@st.composite
def in_any_order(draw: st.DrawFn, trees: st.SearchStrategy[Agent]) -> Agent:
    """Draw a tree, and how trio shuffles what is ready at the same moment."""
    draw(st.random_module())
    return draw(trees)


def check(tree: Agent, **options: Any) -> None:
    found = run_virtual(lambda: troubles(tree, **options))
    assert found == []


QUICK = settings(fewer(3), suppress_health_check=[HealthCheck.too_slow])


@QUICK
@given(in_any_order(PEACEFUL))
def test_a_run_that_was_cut_off_comes_to_the_same(tree: Agent) -> None:
    check(tree)


@settings(fewer(12), suppress_health_check=[HealthCheck.too_slow])
@given(in_any_order(PEACEFUL))
def test_a_run_that_was_cut_off_twice_comes_to_the_same(tree: Agent) -> None:
    check(tree, twice=True)


@settings(fewer(6), suppress_health_check=[HealthCheck.too_slow])
@given(in_any_order(contests()))
def test_a_policy_decides_the_same_after_a_cut(tree: Agent) -> None:
    check(tree)


Plan = list[tuple[str, int]]
"""What an agent does at run time, in order: how, and with how many others."""


def planner(plan: Plan, *, fails: bool) -> Agent:  # noqa: C901  # one case for each way
    """Return an agent that starts others as planned; in its first attempt, it may fail at last."""

    @agent
    async def worker(ctx: InvocationContext) -> Yields:
        yield f"{ctx.input} starts"
        ctx.state.contribute("t", ctx.input)
        await trio.sleep(7 * ctx.input % 5)  # each ends at another moment
        yield Event(f"{ctx.input} ends", output=2 * ctx.input)

    @agent(retry=AGAIN if fails else None)
    async def plans(ctx: InvocationContext) -> Yields:
        for at, (how, many) in list(enumerate(plan))[ctx.restored or 0 :]:
            numbers = range(1, many + 1)
            match how:
                case "map":
                    yield f"{await ctx.map(worker, numbers)}"
                case "fan out":
                    outcomes = await ctx.fan_out([(worker, n) for n in numbers])
                    yield f"{[one.output for one in outcomes]}"
                case "group":
                    async with ctx.open_fan_out() as group:
                        for n in numbers:
                            group.start(worker, n, key=f"k{at}-{n}")
                        async for handle in group.finished:
                            yield f"{handle.name} {await handle}"
                case "run":
                    yield f"{await ctx.run_agent(worker, many)}"
                case "write":
                    ctx.state["n"] = ctx.state.get("n", 0) + many
                case _:
                    await ctx.checkpoint(at + 1)
        if fails and "~" not in ctx.path:
            message = "once"
            raise ValueError(message)
        yield f"n is {ctx.state.get('n')}"

    return SequentialAgent("s", [scripted("a", emits("a")), plans, scripted("z", emits("z"))])


PLANS: st.SearchStrategy[Plan] = st.lists(
    st.tuples(
        st.sampled_from(["map", "fan out", "group", "run", "write", "checkpoint"]),
        st.integers(1, 4),
    ),
    max_size=4,
)


@settings(fewer(4), suppress_health_check=[HealthCheck.too_slow])
@given(PLANS, st.booleans(), st.random_module())
def test_what_was_started_at_run_time_goes_on_after_a_cut(
    plan: Plan,
    fails: bool,  # noqa: FBT001  # drawn
    random: object,
) -> None:
    assert random is not None
    # What was said before a checkpoint is seen at once by whoever starts again from there.
    saw = all(how != "checkpoint" for how, _ in plan)
    check(planner(plan, fails=fails), saw=saw)


@pytest.mark.deep
@settings(settings.get_profile("deep"), max_examples=1_000, suppress_health_check=list(HealthCheck))
@given(in_any_order(PEACEFUL | contests()))
def test_many_runs_that_were_cut_off_come_to_the_same(tree: Agent) -> None:
    check(tree, twice=True)


# ----------------------------------------------------------------------- the checker can be trusted

WRITER = SequentialAgent(
    "s", [scripted("a", contributes("t", 1), adds("n"), emits("a1"), emits("a2")), scripted("b")]
)
FAN = ParallelAgent(
    "p", [scripted(name, sleeps(n), emits(name)) for n, name in enumerate("abc", 1)]
)
RACE = ParallelAgent(
    "p",
    [scripted(name, emits(name), sleeps(n)) for n, name in enumerate("abc", 1)],
    barrier=FirstSuccess(),
)
RETRIED = scripted("a", emits("a"), raises(ValueError("a")), retry=AGAIN)
LAYERED = SequentialAgent(
    "s", [scripted("a", contributes("t", 1), emits("a")), scripted("b", emits("b"))], retry=AGAIN
)


def _nothing(*_args: object, **_options: object) -> Any:
    return {}, []


def _kept(past: Past, path: str) -> Any:
    del past, path
    return None


def _not_failed(past: Past, path: str) -> bool:
    del past, path
    return False


def _no_decision(past: Past, *_args: object) -> None:
    past._cut_off.clear()
    for node in past._root.all():
        past._void(node.undecided)
        node.undecided = []


def _shows_all(replay: Replay, seq: int) -> Any:
    del replay, seq
    return None


def _never(*_args: object) -> bool:
    return False


@pytest.mark.parametrize(
    ("tree", "broken", "says"),
    [
        (WRITER, (Past, "state", _nothing), "state"),
        (WRITER, (Replay, "settle", _never), "run, and should not"),
        (FAN, (Past, "ended", _kept), "run, and should not"),
        (RACE, (Past, "_cut", _no_decision), "events missing"),
        (RETRIED, (Past, "attempt_failed", _not_failed), "run, and should not"),
        (LAYERED, (Replay, "_write_again", _never), "state"),
        (WRITER, (Replay, "line_of", _shows_all), "saw"),
        (WRITER, (Past, "_void", _never), "events too many"),
    ],
    ids=[
        "state is not taken back",
        "nothing is settled",
        "records are lost",
        "decisions are lost",
        "attempts are forgotten",
        "layers are lost",
        "history is lost",
        "nothing is void",
    ],
)
def test_the_checker_finds_what_is_broken(
    tree: Agent, broken: tuple[type, str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_virtual(lambda: troubles(tree)) == []
    monkeypatch.setattr(*broken)
    found = run_virtual(lambda: troubles(tree))
    assert any(says in one for one in found), found
