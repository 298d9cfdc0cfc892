from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parallel_agent import Runner, SequentialAgent
from parallel_agent.certify import CertifyError
from parallel_agent.certify.loading import Program, find, load_program, reference
from tests.support import certified

LOADER = "parallel_agent.certify.loading:find"


def test_a_function_at_the_top_of_a_module_is_found_by_its_name() -> None:
    name = reference(certified.make_small, "the target")
    assert name == "tests.support.certified:make_small"
    assert find(name) is certified.make_small


def test_what_other_processes_cannot_find_is_refused() -> None:
    def inside() -> None: ...

    for lost in (inside, lambda: None, certified.small):
        with pytest.raises(CertifyError, match="run in other processes"):
            reference(lost, "the check")


@pytest.mark.parametrize("name", ["tests.support.certified", "certified.py", ":x", "x:"])
def test_a_name_needs_a_place_and_an_attribute(name: str) -> None:
    with pytest.raises(CertifyError, match=r"is not FILE\.py:NAME"):
        find(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("tests.support.nowhere:x", "there is no module"),
        ("nowhere.py:x", "there is no file"),
        ("tests.support.certified:x", "has no 'x'"),
    ],
)
def test_what_is_not_there_is_named(name: str, why: str) -> None:
    with pytest.raises(CertifyError, match=why):
        find(name)


def test_a_file_is_imported_once_for_the_tree_and_its_check(tmp_path: Path) -> None:
    file = tmp_path / "my_own_tree.py"
    file.write_text("made = []\ndef check(result): ...\ndef tree(): ...\nmade.append(1)\n")
    program = load_program(f"{file}:tree", check="check", prepare=None, loader=LOADER)
    check: Any = program.check
    assert check.__globals__ is find(f"{file}:tree").__globals__


def test_a_runner_is_made_with_the_options_that_it_is_given() -> None:
    def make(**options: Any) -> Runner:
        return Runner(certified.small, app_name="mine", **options)

    runner = Program(make, None, None).runner({"resumable": False})
    assert runner.app_name == "mine"


def test_a_runner_without_the_options_is_refused() -> None:
    with pytest.raises(CertifyError, match=r"def make\(\*\*options\)"):
        Program(lambda: Runner(certified.small), None, None).runner({})


def test_a_tree_can_be_made_for_each_run() -> None:
    runner = Program(certified.make_small, None, None).runner({})
    assert isinstance(runner.tree, SequentialAgent)


def test_something_else_is_refused() -> None:
    with pytest.raises(CertifyError, match="what is certified is a tree"):
        Program(lambda: 5, None, None).runner({})
    with pytest.raises(CertifyError, match="what is certified is a tree"):
        load_program("tests.support.certified:CODEC", check=None, prepare=None, loader=LOADER)
