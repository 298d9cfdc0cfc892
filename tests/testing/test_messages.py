"""What the kit says: of a failure, how to see it again; of a wrong argument, what to write."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any

import pytest

from parallel_agent import Agent, InvocationContext, ParallelAgent, Result, Runner, agent
from parallel_agent.testing import (
    Access,
    EndlessRunError,
    ExplorationError,
    Race,
    Schedule,
    adds,
    emits,
    explore,
    raises,
    replay,
    run_once,
    scripted,
    sleeps,
)
from parallel_agent.testing.exploring import MAX_RACES


def counters(names: str = "ab") -> Agent:
    return ParallelAgent("p", [scripted(name, adds("n"), sleeps(0), emits(name)) for name in names])


def none_is_lost(result: Result) -> None:
    assert result.state["n"] == 2, f"n is {result.state['n']}"


def failure(work: Callable[[], object]) -> ExplorationError:
    with pytest.raises(ExplorationError) as caught:
        work()
    return caught.value


# ------------------------------------------------------------------------------------- to replay


def test_the_line_that_replays_has_the_options_that_the_run_had() -> None:
    error = failure(
        lambda: explore(
            counters,
            none_is_lost,
            allow=(ValueError, KeyError),
            message="hello",
            make_runner=partial(Runner, app_name="tests"),
            max_steps=100,
            seed=3,
        )
    )
    choices = list(error.trial.schedule.choices)
    assert (
        f"to replay: replay(make_tree, check, Schedule({choices}), allow=(ValueError, KeyError), "
        "message='hello', make_runner=make_runner, max_steps=100, seed=3)"
    ) in str(error)


def test_the_line_that_replays_is_short_without_options() -> None:
    error = failure(lambda: explore(counters, none_is_lost))
    choices = list(error.trial.schedule.choices)
    assert f"to replay: replay(make_tree, check, Schedule({choices}))\n" in str(error)


def test_a_replay_does_not_speak_of_other_schedules() -> None:
    explored = failure(lambda: explore(counters, none_is_lost))
    again = failure(lambda: replay(counters, none_is_lost, explored.trial.schedule))
    assert again.explored is None
    assert str(again).startswith("the schedule failed with AssertionError: n is 1")


def test_one_schedule_is_no_several() -> None:
    error = ExplorationError(ValueError("no"), run_once(counters), 1)
    assert str(error).startswith("after 1 schedule that passed, one failed with ValueError: no")


def test_of_an_error_without_a_text_the_place_is_said() -> None:
    # pytest gives an `assert` of the test's own a text.
    code = compile("def check(result):\n    assert result.state['n'] == 2\n", "checks.py", "exec")
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102  # the two lines above
    error = failure(lambda: explore(counters, names["check"]))
    assert "failed with AssertionError at checks.py:2" in str(error).splitlines()[0]


def test_races_are_shown_once_for_two_branches_and_not_all_of_many() -> None:
    accesses = [
        Access("n", writes=writes, branch=f"p.{name}", where=f"a.py:{1 + writes}")
        for name in "abcd"
        for writes in (False, True)
    ]
    races = tuple(Race("n", *pair) for pair in combinations(accesses, 2))
    error = ExplorationError(ValueError("no"), run_once(counters), 0, races)
    shown = [line for line in str(error).splitlines() if line.startswith("race on ")]
    assert len(error.races) > len(shown) == MAX_RACES
    assert str(error).endswith(f"({len(error.races) - MAX_RACES} more in `races` of this error)")


def test_a_run_that_does_not_end_names_who_goes_on() -> None:
    @agent
    async def spins(ctx: InvocationContext) -> Any:
        while True:
            await ctx.emit("again")

    trial = run_once(lambda: ParallelAgent("p", [spins, scripted("b", emits("x"))]), max_steps=50)
    assert isinstance(trial.error, EndlessRunError)
    assert "those that went last: p/spins. If it needs more" in str(trial.error)


def test_a_trial_says_in_a_line_what_came_of_it() -> None:
    assert repr(run_once(counters, ["p/b"])).startswith(
        "<Trial completed: 3 events, Schedule(['p/b'"
    )
    failed = run_once(lambda: scripted("a", emits("x"), raises(ValueError("no"))))
    assert repr(failed).startswith("<Trial failed with ValueError('no'): 1 events, Schedule([")


# ------------------------------------------------------------------------------- wrong arguments


@pytest.mark.parametrize("answer", [True, False])
def test_a_check_that_returns_a_truth_value_has_forgotten_to_assert_it(answer: bool) -> None:  # noqa: FBT001  # a parameter
    with pytest.raises(TypeError, match=f"the check returned {answer}, .* let it assert"):
        explore(counters, lambda _result: answer)


def test_a_check_may_return_anything_else() -> None:
    assert explore(counters, lambda result: len(result.events)).exhausted


def test_a_runner_that_does_not_take_what_it_is_given_is_told_what_that_is() -> None:
    def make_runner(tree: Agent) -> Runner:
        return Runner(tree)

    for work in (run_once, explore):
        with pytest.raises(TypeError, match=r"lambda tree, \*\*options: Runner\(tree, \.\.\., "):
            work(counters, make_runner=make_runner)  # type: ignore[arg-type]  # on purpose


def test_a_tree_in_place_of_the_function_that_makes_it_is_told() -> None:
    with pytest.raises(TypeError, match="make_tree is a function that makes the tree, anew"):
        run_once(counters())  # type: ignore[arg-type]  # on purpose


def test_one_run_takes_a_list_of_names_as_a_schedule() -> None:
    listed = run_once(counters, ["p/b", "p/b", "p/b"])
    named = run_once(counters, Schedule(["p/b", "p/b", "p/b"]))
    assert listed.schedule == named.schedule
    assert named.events[0].author == "b"


def test_a_list_of_steps_is_told_to_be_none() -> None:
    with pytest.raises(TypeError, match=r"arguments of their own: scripted\(name, \*steps\)"):
        scripted("a", [emits("x")])  # type: ignore[arg-type]  # on purpose
