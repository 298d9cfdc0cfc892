"""Strategies: what they draw, how it shrinks, and that it prints as code."""

from __future__ import annotations

import importlib
import math
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.vendor.pretty import pretty

import parallel_agent
import parallel_agent.testing.numbered as numbered_module
import session
from parallel_agent import (
    Agent,
    AgentTimeoutError,
    BestEffort,
    Escalate,
    Event,
    LoopAgent,
    Outcome,
    ParallelAgent,
    Quorum,
    QuorumError,
    Retry,
    Runner,
    SequentialAgent,
    Status,
    WaitAll,
)
from parallel_agent.barrier import POLICIES
from parallel_agent.testing import Trial, run_once
from parallel_agent.testing.acts import (
    Adds,
    Asks,
    Contributes,
    Emits,
    Escalates,
    Outputs,
    Reads,
    Sleeps,
    Writes,
)
from parallel_agent.testing.numbered import NumberedSchedule
from parallel_agent.testing.recorder import Recorder
from parallel_agent.testing.script import CleansUp, Raises, ScriptStep, Within
from parallel_agent.testing.scripted import (
    ScriptedAgent,
    as_code,
    emits,
    escalates,
    raises,
    scripted,
    writes,
)
from parallel_agent.testing.strategies import (
    agent_trees,
    contents,
    events,
    outcomes,
    schedules,
    state_keys,
    state_values,
)
from session import Content
from session.state import freeze

T = TypeVar("T")

# Not `import ... as`: the package may have a function of the same name.
script_calls = importlib.import_module("parallel_agent.testing.scripted")

NAMES = {
    **vars(session),
    **vars(parallel_agent),
    **vars(script_calls),
    **vars(numbered_module),
}
"""What pasted code may name."""


def agents_of(tree: Agent) -> Iterator[Agent]:
    yield tree
    for child in tree.sub_agents:
        yield from agents_of(child)


def steps_of(tree: Agent) -> Iterator[ScriptStep]:
    for one in agents_of(tree):
        if isinstance(one, ScriptedAgent):
            yield from inside(one.steps)


def inside(steps: tuple[ScriptStep, ...]) -> Iterator[ScriptStep]:
    for step in steps:
        yield step
        if isinstance(step, Within | CleansUp):
            yield from inside(step.steps)


def simplest(strategy: st.SearchStrategy[T], wanted: Callable[[T], object], *, seed: int = 0) -> T:
    """Return the simplest of what is wanted, as Hypothesis shrinks it. The same each time."""
    return find(
        strategy,
        lambda value: bool(wanted(value)),
        settings=settings(
            max_examples=2_000,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
        random=random.Random(seed),  # noqa: S311  # no secret
    )


def printed(strategy: st.SearchStrategy[T], wanted: Callable[[T], object]) -> tuple[T, Any]:
    """Return what Hypothesis shows of a failing test, and what the shown code makes."""
    shown: list[T] = []

    @settings(
        phases=[Phase.generate, Phase.shrink],
        max_examples=1_000,
        derandomize=True,
        database=None,
        deadline=None,
    )
    @given(value=strategy)
    def fails(value: T) -> None:
        if wanted(value):
            shown.append(value)
            raise AssertionError

    with pytest.raises(AssertionError) as caught:
        fails()
    (code,) = (note for note in caught.value.__notes__ if "fails(" in note)
    call = code[code.index("fails(") :]
    return shown[-1], eval(call, {**NAMES, "fails": lambda value: value})  # noqa: S307  # our own


# ------------------------------------------------------------------------------- trees


@given(agent_trees(), schedules())
def test_every_tree_comes_to_an_end_under_every_schedule(
    tree: Agent, schedule: NumberedSchedule
) -> None:
    trial = run_once(lambda: tree, schedule)
    expected = (ValueError, AgentTimeoutError, QuorumError, ExceptionGroup)
    assert trial.error is None or isinstance(trial.error, expected)
    assert trial.swallowed == ()


@given(agent_trees())
def test_every_tree_comes_to_an_end_by_itself(tree: Agent) -> None:
    recorder = Recorder(tree)

    async def main() -> None:
        with trio.fail_after(1_000):
            await recorder.run()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert recorder.status in ("completed", "failed")


@given(agent_trees(max_depth=3))
def test_a_tree_prints_as_code_that_makes_it_again(tree: Agent) -> None:
    again = eval(as_code(tree), dict(NAMES))  # noqa: S307  # our own code
    assert as_code(again) == as_code(tree)
    assert list(steps_of(again)) == list(steps_of(tree))
    assert [one.name for one in agents_of(again)] == [one.name for one in agents_of(tree)]


@given(agent_trees(max_depth=1, max_width=2, max_steps=1))
def test_trees_are_no_larger_than_they_may_be(tree: Agent) -> None:
    for one in agents_of(tree):
        assert len(one.sub_agents) <= 2
        assert isinstance(one, ScriptedAgent) or one is tree
        assert not isinstance(one, ScriptedAgent) or len(one.steps) <= 1


@pytest.mark.parametrize(
    "size", [{"max_depth": -1}, {"max_width": 0}, {"max_steps": True}, {"max_steps": 1.5}]
)
def test_sizes_that_are_none_are_refused(size: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(size))} is a whole number"):
        agent_trees(**size)


def has_step(*kinds: type[ScriptStep]) -> Callable[[Agent], bool]:
    return lambda tree: any(isinstance(step, kinds) for step in steps_of(tree))


def has_agent(wanted: Callable[[Any], object]) -> Callable[[Agent], bool]:
    return lambda tree: any(wanted(one) for one in agents_of(tree))


KINDS: dict[str, Callable[[Agent], bool]] = {
    "loops": has_agent(lambda one: isinstance(one, LoopAgent)),
    "retries": has_agent(lambda one: one.retry),
    "timeouts": lambda tree: has_agent(lambda one: one.timeout)(tree) or has_step(Within)(tree),
    "escalations": has_step(Escalates),
    "failures": has_step(Raises),
    "clean_ups": has_step(CleansUp),
    "requests": has_step(Asks),
    "state": lambda tree: (
        has_step(Writes, Reads, Adds)(tree) or has_agent(lambda one: one.output_key)(tree)
    ),
}

ANYTHING: dict[str, Any] = dict.fromkeys(KINDS, True)
NOTHING: dict[str, Any] = dict.fromkeys(KINDS, False)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_out_is_not_drawn(kind: str) -> None:
    @settings(max_examples=30, deadline=None)
    @given(agent_trees(**{**ANYTHING, kind: False}))
    def check(tree: Agent) -> None:
        assert not KINDS[kind](tree)

    check()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_asked_for_is_drawn(kind: str) -> None:
    """And the test before this one can fail."""
    tree = simplest(agent_trees(max_depth=1, **{**NOTHING, kind: True}), KINDS[kind])
    assert len(list(agents_of(tree))) <= 2


@given(agent_trees(policies=[], **NOTHING))
def test_without_anything_they_emit_and_sleep(tree: Agent) -> None:
    assert all(isinstance(step, Emits | Sleeps | Outputs) for step in steps_of(tree))
    for one in agents_of(tree):
        assert not isinstance(one, ParallelAgent) or repr(one.barrier) == "FailFast()"


def test_a_policy_is_for_trees_that_are_wide_enough() -> None:
    policies = [BestEffort(), Quorum(2), Escalate()]
    found: set[str] = set()

    @settings(max_examples=200, deadline=None, database=None)
    @given(agent_trees(max_depth=1, policies=policies, **NOTHING))
    def check(tree: Agent) -> None:
        if isinstance(tree, ParallelAgent):
            found.add(type(tree.barrier).__name__)
            assert tree.barrier.least_width() <= len(tree.sub_agents)

    check()
    assert found == {"BestEffort", "Quorum", "Escalate"}


def test_contributions_are_to_the_keys_that_have_a_reducer() -> None:
    trees = agent_trees(max_depth=0, contributions=["sum"], **NOTHING)
    tree = simplest(trees, has_step(Contributes))
    assert as_code(tree) == "scripted('a', contributes('sum', 0))"
    recorder = Recorder(Runner(tree, reducers={"sum": "add"}))
    trio.run(recorder.run)
    assert recorder.error is None


# Shrinking.


def leaves(tree: Agent) -> list[ScriptedAgent]:
    return [one for one in agents_of(tree) if isinstance(one, ScriptedAgent)]


def count(leaf: ScriptedAgent, kind: type[ScriptStep]) -> int:
    return sum(isinstance(step, kind) for step in inside(leaf.steps))


def twice_beside_a_failure(tree: Agent) -> bool:
    """A planted bug: some leaf emits twice and another raises."""
    return any(
        count(one, Emits) >= 2 and count(other, Raises) and one is not other
        for one in leaves(tree)
        for other in leaves(tree)
    )


def test_a_tree_shrinks_to_the_leaves_and_events_that_matter() -> None:
    tree = simplest(agent_trees(), twice_beside_a_failure)
    assert {tuple(sorted(map(repr, leaf.steps))) for leaf in leaves(tree)} in (
        {("emits('a1')", "emits('a2')"), ("raises(ValueError('b'))",)},
        {("emits('b1')", "emits('b2')"), ("raises(ValueError('a'))",)},
    )
    assert [len(one.sub_agents) for one in agents_of(tree)] == [2, 0, 0]
    assert not any(one.retry or one.timeout or one.output_key for one in agents_of(tree))


def test_a_tree_shrinks_to_the_levels_that_matter() -> None:
    def wanted(tree: Agent) -> bool:
        """A planted bug: something below a loop below a parallel agent escalates."""
        return any(
            has_step(Escalates)(below)
            for fan in agents_of(tree)
            if isinstance(fan, ParallelAgent)
            for below in agents_of(fan)
            if isinstance(below, LoopAgent)
        )

    tree = simplest(agent_trees(), wanted)
    loop = LoopAgent("l1", [scripted("a", escalates("a1"))], max_iterations=1)
    assert as_code(tree) == as_code(ParallelAgent("p1", [loop]))


def test_a_tree_shrinks_to_the_options_that_matter() -> None:
    def wanted(tree: Agent) -> bool:
        """A planted bug, seen in runs: an event of a second attempt."""
        return any(event.attempt == 2 and event.text for event in run_once(lambda: tree).events)

    trees = agent_trees(max_depth=1, **{**NOTHING, "retries": True, "failures": True})
    tree = simplest(trees, wanted)
    leaf = scripted("a", emits("a1"), raises(ValueError("a")), retry=Retry(2, jitter=0))
    assert as_code(tree) == as_code(leaf)


# ------------------------------------------------------------------------------- schedules


def three() -> Agent:
    return ParallelAgent("p", [scripted(name, emits(name)) for name in "abc"])


def order(trial: Trial) -> list[str]:
    """Who went, each time that more than one could."""
    return list(trial.schedule.choices)


def test_without_numbers_it_is_the_default_schedule() -> None:
    drawn, default = run_once(three, NumberedSchedule()), run_once(three)
    assert order(drawn) == order(default)
    assert list(map(repr, drawn.steps)) == list(map(repr, default.steps))


@pytest.mark.parametrize(("number", "first"), [(0, "p/a"), (1, "p/b"), (2, "p/c"), (4, "p/b")])
def test_a_number_chooses_who_goes(number: int, first: str) -> None:
    assert order(run_once(three, NumberedSchedule([number])))[0] == first


def test_a_schedule_can_be_used_again() -> None:
    schedule = NumberedSchedule([1, 2])
    one, two = run_once(three, schedule), run_once(three, schedule)
    assert order(one) == order(two)
    assert order(one)[:2] == ["p/b", "p/c"]
    assert schedule.schedule == one.schedule
    assert order(run_once(three, schedule.schedule)) == order(one)


def test_a_schedule_that_was_not_used_has_chosen_nothing() -> None:
    assert len(NumberedSchedule([1]).schedule) == 0


def test_schedules_are_equal_if_they_choose_the_same() -> None:
    assert NumberedSchedule([0, 1, 0, 0]) == NumberedSchedule((0, 1))
    assert len({NumberedSchedule([0, 1, 0, 0]), NumberedSchedule((0, 1))}) == 1
    assert NumberedSchedule([1]) != NumberedSchedule([0, 1])
    assert repr(NumberedSchedule([0, 1, 0])) == "NumberedSchedule([0, 1])"


@pytest.mark.parametrize("numbers", [[-1], [1.0], [True], ["a"]])
def test_what_is_no_number_is_refused(numbers: list[Any]) -> None:
    with pytest.raises(ValueError, match="choice 0 is a whole number"):
        NumberedSchedule(numbers)


@given(schedules(max_choices=3))
def test_schedules_are_no_longer_than_they_may_be(schedule: NumberedSchedule) -> None:
    assert len(schedule.numbers) <= 3


@given(schedules(among=2))
def test_schedules_choose_among_as_many_as_they_may(schedule: NumberedSchedule) -> None:
    assert set(schedule.numbers) <= {0, 1}


def test_schedules_go_to_their_full_length() -> None:
    found = simplest(schedules(max_choices=30), lambda one: len(one.numbers) == 30)
    assert found == NumberedSchedule([0] * 29 + [1])


def test_a_schedule_shrinks_to_the_default() -> None:
    assert simplest(schedules(), lambda _: True) == NumberedSchedule()


def test_a_schedule_shrinks_to_the_one_choice_that_matters() -> None:
    def wanted(schedule: NumberedSchedule) -> bool:
        return order(run_once(three, schedule))[1] == "p/c"

    assert simplest(schedules(), wanted) == NumberedSchedule([0, 2])


def test_a_tree_and_a_schedule_shrink_together() -> None:
    def wanted(case: tuple[Agent, NumberedSchedule]) -> bool:
        """The final state hangs on the schedule."""
        one, other = run_once(lambda: case[0], case[1]).result, run_once(lambda: case[0]).result
        return one is not None and other is not None and one.state != other.state

    trees = agent_trees(max_depth=1, max_width=2, max_steps=2, policies=[], **OF_STATE)
    tree, schedule = simplest(st.tuples(trees, schedules()), wanted, seed=2)
    assert [len(one.sub_agents) for one in agents_of(tree)] == [2, 0, 0]
    assert sum(len(leaf.steps) for leaf in leaves(tree)) <= 4
    assert len(schedule.numbers) <= 3


OF_STATE: dict[str, Any] = {**NOTHING, "state": True}


# ------------------------------------------------------------------------------- values


@given(state_keys(), state_values())
def test_what_is_drawn_can_be_written(key: str, value: object) -> None:
    trial = run_once(lambda: scripted("a", writes(key, value), emits("x")))
    assert trial.error is None
    assert trial.result is not None
    if not key.startswith("temp:"):
        assert key in trial.result.state or value is None


@given(state_keys(scopes=["app:"]))
def test_keys_are_of_the_scopes_that_are_asked_for(key: str) -> None:
    assert key.startswith("app:")
    assert len(key) > len("app:")


@given(state_values())
def test_values_have_a_json_form(value: object) -> None:
    assert freeze(value) == value


@given(contents())
def test_contents_can_be_said(content: Content) -> None:
    event = Event(content)
    event.seal()
    assert event.text == content.text


@given(events(partial=False, escalations=False))
def test_events_can_be_emitted(event: Event) -> None:
    async def emit(ctx: parallel_agent.InvocationContext) -> None:
        await ctx.emit(event)

    trial = run_once(lambda: parallel_agent.agent(emit, name="a"))
    assert trial.error is None
    assert event.sealed
    assert not event.escalate
    assert event in trial.events


@pytest.mark.parametrize("partial", [True, False])
def test_partial_events_are_drawn_as_asked(partial: bool) -> None:  # noqa: FBT001  # a parameter
    found = simplest(events(partial=partial), lambda event: event.text)
    assert found.partial is partial
    assert simplest(events(), lambda event: event.partial is partial).partial is partial


@given(outcomes())
def test_outcomes_agree_with_themselves(outcome: Outcome) -> None:
    failed = outcome.status is Status.FAILED
    assert isinstance(outcome.error, Exception) == failed
    assert outcome.output is None or outcome.status is Status.COMPLETED
    assert not outcome.own or failed
    assert math.isfinite(outcome.duration)
    assert outcome.path.endswith(outcome.name)


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "waiting"])
def test_outcomes_of_every_kind_are_drawn(status: str) -> None:
    assert simplest(outcomes(), lambda outcome: outcome.status == status).name == "a"


@given(st.lists(outcomes(), min_size=2, unique_by=lambda outcome: outcome.name))
def test_outcomes_are_what_a_policy_is_asked_about(drawn: list[Outcome]) -> None:
    for kind in POLICIES:
        policy = kind(2) if issubclass(kind, Quorum) else kind()
        failure = policy.failure(drawn)
        assert failure is None or isinstance(failure, BaseException)


# ------------------------------------------------------------------------------- printing


def test_a_tree_that_fails_is_printed_as_code() -> None:
    def wanted(tree: Agent) -> bool:
        return isinstance(tree, ParallelAgent) and isinstance(tree.barrier, WaitAll)

    tree, again = printed(agent_trees(max_depth=1), wanted)
    assert as_code(again) == as_code(tree)
    assert as_code(again) == "ParallelAgent('p1', [scripted('a')], barrier=WaitAll())"


@pytest.mark.parametrize("kind", [SequentialAgent, LoopAgent, ParallelAgent])
def test_every_kind_of_tree_is_printed_as_code(kind: Any) -> None:
    tree = kind("t", [scripted("a", emits("x" * 50), emits("y" * 50))])
    assert pretty(tree) == as_code(tree)
    assert "\n" in pretty(tree)


def test_values_that_fail_are_printed_as_code() -> None:
    content, said = printed(contents(), lambda one: len(one.parts) > 1 and one.text)
    assert said == content
    event, emitted = printed(events(), lambda one: one.text and one.state_delta)
    assert isinstance(emitted, Event)
    assert (emitted.text, emitted.output) == (event.text, event.output)
    assert emitted.state_delta == event.state_delta
    outcome, ended = printed(outcomes(), lambda one: one.error)
    assert isinstance(ended, Outcome)
    assert (ended.status, repr(ended.error)) == (outcome.status, repr(outcome.error))
    schedule, chosen = printed(schedules(), lambda one: sum(one.numbers) > 3)
    assert chosen == schedule
    key, named = printed(state_keys(), lambda one: one.startswith("app:"))
    assert named == key


# ------------------------------------------------------------------------------- the extra


WITHOUT = """
import importlib, sys

sys.modules[sys.argv[1]] = None
for name in ("acts", "faults", "numbered", "printing", "recorder", "script", "scripted"):
    importlib.import_module(f"parallel_agent.testing.{name}")
try:
    import parallel_agent.testing.strategies
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("missing", "install"), [("hypothesis", True), ("hypothesis._settings", False)]
)
def test_only_the_strategies_need_hypothesis_and_they_say_so(
    missing: str,
    install: bool,  # noqa: FBT001  # a parameter of the test
) -> None:
    ended = subprocess.run(  # noqa: S603  # our own
        [sys.executable, "-c", WITHOUT, missing],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("pip install 'parallel-agent[testing]'" in ended.stdout) is install
    assert "hypothesis" in ended.stdout.lower()
