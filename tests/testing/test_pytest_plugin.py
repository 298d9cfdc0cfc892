"""The fixture `explore`, its marker and options, and what a failure shows."""

from __future__ import annotations

import sys

import pytest

# For this module only: pytest's own way to run pytest in a test.
pytest_plugins = ["pytester"]

TREE = """

import pytest
import trio
from parallel_agent import ParallelAgent, agent
from parallel_agent.testing import race_test

def counter(name):
    async def run(ctx):
        seen = ctx.state.get("n", 0)
        await trio.lowlevel.checkpoint()
        ctx.state["n"] = seen + 1
        yield name

    return agent(run, name=name)

def make_tree():
    return ParallelAgent("p", [counter("a"), counter("b"), counter("c")])

def none_is_lost(result):
    assert result.state["n"] == 3
"""


def run(pytester: pytest.Pytester, tests: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(TREE + tests)
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:trio", *arguments)


def test_the_fixture_explores(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
def test_all(explore):
    explored = explore(make_tree)
    assert explored.exhausted
    assert explored.schedules == 90
""",
    )
    result.assert_outcomes(passed=1)


def test_a_failure_shows_the_schedule_and_the_diagram_and_nothing_of_the_kit_s_own(
    pytester: pytest.Pytester,
) -> None:
    result = run(
        pytester,
        """
def test_none_is_lost(explore):
    explore(make_tree, none_is_lost)
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines(
        [
            "> +explore\\(make_tree, none_is_lost\\)",
            r".*after \d+ schedules that passed, one failed with AssertionError",
            r"E +schedule: \['p/b'\]",
            r"E +to replay: replay\(make_tree, check, Schedule\(\['p/b'\]\)\)",
            "E +p +p/a +p/b +p/c",
            "E +reads n",
            r"E +race on state\['n'\]:",
        ]
    )
    shown = result.stdout.str()
    assert shown.count("E       schedule: ['p/b']") == 1
    assert "def _demand" not in shown
    assert "explore_schedules(" not in shown


def test_a_race_test_shows_them_too(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@race_test()
def test_none_is_lost():
    none_is_lost((yield make_tree()))
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines(
        [
            r" +schedule: \['p/b'\]",
            r" +to replay: test_none_is_lost\.replay\(Schedule\(\['p/b'\]\)\)",
            " +p +p/a +p/b +p/c",
        ]
    )


def test_a_marker_on_a_test_without_the_fixture_is_told(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@pytest.mark.explore(max_schedules=5)
def test_plain():
    pass

@pytest.mark.explore(max_schedules=5)
@race_test()
def test_race():
    yield make_tree()
""",
    )
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["test_plain is marked with pytest.mark.explore*take `explore`*"])


def test_a_marker_on_a_class_is_for_those_of_its_tests_that_explore(
    pytester: pytest.Pytester,
) -> None:
    result = run(
        pytester,
        """
@pytest.mark.explore(max_schedules=5)
class TestAll:
    def test_plain(self):
        pass
""",
    )
    result.assert_outcomes(passed=1)


OPTIONS = """
@pytest.mark.explore(max_schedules=8)
class TestOptions:
    @pytest.mark.explore(seed=4, max_schedules=6)
    def test_nearest(self, explore):
        explored = explore(make_tree)
        print(f"nearest {explored.seed} {explored.bound} {explored.schedules <= 6}")

    def test_outer(self, explore):
        explored = explore(make_tree)
        print(f"outer {explored.seed} {6 < explored.schedules <= 8}")

    def test_argument(self, explore):
        explored = explore(make_tree, max_schedules=4)
        print(f"argument {explored.schedules <= 4}")
"""


def test_options_come_from_the_nearest_marker_and_arguments_before_both(
    pytester: pytest.Pytester,
) -> None:
    result = run(pytester, OPTIONS, "-rP", "--strict-markers")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["nearest 4 max_schedules True", "outer 0 True", "argument True"])


def test_the_command_line_comes_first(pytester: pytest.Pytester) -> None:
    result = run(
        pytester, OPTIONS, "-rP", "--explore-schedules=2", "--explore-seed=9", "-k", "nearest"
    )
    result.stdout.fnmatch_lines(["nearest 9 max_schedules True"])


def test_a_marker_with_a_bare_number_is_told(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@pytest.mark.explore(100)
def test_all(explore):
    explore(make_tree)
""",
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*pytest.mark.explore takes keywords*max_schedules=100*"])


def test_a_marker_with_an_option_that_there_is_not_is_told(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@pytest.mark.explore(max_runs=100)
def test_all(explore):
    explore(make_tree)
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*TypeError*max_runs*"])


def test_what_there_is_is_shown_by_help(pytester: pytest.Pytester) -> None:
    helped = pytester.runpytest_inprocess("--help", "-p", "no:cacheprovider")
    helped.stdout.fnmatch_lines(["*--explore-schedules=N*", "*--explore-seed=N*"])
    marked = pytester.runpytest_inprocess("--markers", "-p", "no:cacheprovider")
    marked.stdout.fnmatch_lines(["@pytest.mark.explore(*"])


def test_a_project_that_does_not_use_it_does_not_import_it(pytester: pytest.Pytester) -> None:
    """So a `session.py` beside the tests, which the package refuses, does no harm."""
    pytester.makepyfile(
        session="",
        test_it="""
            import sys

            def test_it():
                assert not {"session", "parallel_agent"} & sys.modules.keys()
        """,
    )
    options = ["-p", "no:trio", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    done = pytester.run(sys.executable, "-m", "pytest", *options, "-q")
    done.assert_outcomes(passed=1)
