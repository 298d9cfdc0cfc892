"""Every kind of target that is a tree, and every kind that is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from parallel_agent.cli.target import WHAT_A_TARGET_IS, TargetError, load
from tests.cli.kit import Write

ONE = """
    @agent
    async def first(ctx):
        yield "1"

    @agent
    async def second(ctx):
        yield "2"

    tree = SequentialAgent("line", [first, second])
"""

TWO = f"{ONE}\n    other = agent(lambda ctx: 1, name='other')\n"


def refusal(target: object) -> TargetError:
    with pytest.raises(TargetError) as raised:
        load(str(target))
    return raised.value


# ------------------------------------------------------------------------------------- a file


def test_a_file_with_one_tree_needs_no_name(write: Write) -> None:
    assert load(str(write(ONE))).name == "line"


def test_an_agent_below_another_can_be_named(write: Write) -> None:
    assert load(f"{write(ONE)}:second").name == "second"


def test_several_trees_are_listed_with_how_to_choose(write: Write) -> None:
    file = write(TWO)
    assert str(refusal(file)) == (
        f"{file} has several trees. Say which one to take:\n  {file}:tree\n  {file}:other"
    )
    assert load(f"{file}:other").name == "other"


def test_two_names_of_one_tree_are_one_tree(write: Write) -> None:
    assert load(str(write(f"{ONE}\n    root = tree\n"))).name == "line"


def test_a_name_may_be_dotted(write: Write) -> None:
    file = write(f"{ONE}\n    class Trees:\n        main = tree\n")
    assert load(f"{file}:Trees.main").name == "line"


def test_agents_that_compare_as_equal_are_told_apart(write: Write) -> None:
    source = """
        class Odd(Agent):
            __hash__ = None
            def __eq__(self, other): return True
            async def run(self, ctx): return 1
        a, b = Odd("a"), Odd("b")
    """
    assert "several trees" in str(refusal(write(source)))


def test_what_is_under_the_main_guard_is_not_run(write: Write) -> None:
    load(str(write(f"{ONE}\n    if __name__ == '__main__':\n        raise SystemExit(9)\n")))


def test_a_file_may_import_its_neighbours(write: Write) -> None:
    write(
        "from parallel_agent import agent\nleaf = agent(lambda ctx: 1, name='near')", "near_by.py"
    )
    file = write("from near_by import leaf\ntree = SequentialAgent('line', [leaf])")
    assert load(f"{file}:tree").sub_agents[0].name == "near"


def test_a_file_of_a_package_may_import_relatively(write: Write) -> None:
    write("", "a_package/__init__.py")
    write("", "a_package/inner/__init__.py")
    write("leaf = agent(lambda ctx: 1, name='leaf')", "a_package/leaves.py")
    source = "from ..leaves import leaf\ntree = SequentialAgent('line', [leaf])"
    file = write(source, "a_package/inner/trees.py")
    assert load(str(file)).name == "line"
    assert sys.modules["a_package.inner.trees"].__file__ == str(file)


def test_the_init_file_of_a_package_is_a_target(write: Write) -> None:
    write("leaf = agent(lambda ctx: 1, name='leaf')", "b_package/leaves.py")
    file = write("from .leaves import leaf", "b_package/__init__.py")
    assert load(str(file)).name == "leaf"


@pytest.mark.parametrize("name", ["click.py", "json.py", "statistics.py", "my-tree.py", "1.py"])
def test_a_file_may_have_any_name(write: Write, name: str) -> None:
    stem = name.removesuffix(".py")
    before = sys.modules.get(stem)
    assert load(str(write(ONE, name))).name == "line"
    if before is not None:
        assert sys.modules[stem] is before


def test_the_same_name_in_two_folders_is_two_files(write: Write) -> None:
    first = write("tree = agent(lambda ctx: 1, name='one')", "x/same.py")
    second = write("tree = agent(lambda ctx: 1, name='two')", "y/same.py")
    assert [load(str(file)).name for file in (first, second)] == ["one", "two"]


def test_a_tree_of_any_depth_is_found(write: Write) -> None:
    source = """
        tree = agent(lambda ctx: 1, name="leaf")
        for level in range(3_000):
            tree = SequentialAgent(f"s{level}", [tree])
    """
    assert load(str(write(source))).name == "s2999"


# ------------------------------------------------------------------------------------ a module


def test_a_module_of_the_working_folder_is_a_target(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write("", "c_package/__init__.py")
    write(TWO, "c_package/trees.py")
    monkeypatch.chdir(tmp_path)
    assert load("c_package.trees:tree").name == "line"
    assert "several trees" in str(refusal("c_package.trees"))


# ------------------------------------------------------------------------------------ no target


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("missing.py", "missing.py does not exist"),
        ("missing.py:tree", "missing.py does not exist"),
        ("folder.py", "folder.py is a folder"),
        ("my_tree.yaml", "my_tree.yaml does not exist"),
        ("my_tree.yml:main", "my_tree.yml is one graph: leave out :main"),
        ("notes.txt", "there is no module 'notes'"),
        ("a b", "neither a .py file nor a module"),
        ("..up:tree", "neither a .py file nor a module"),
        ("no_such_package.module:tree", "there is no module 'no_such_package'"),
        ("json.no_such:tree", "there is no module 'json.no_such'"),
        (":tree", "nothing on one side"),
        ("module:", "nothing on one side"),
        ("", "neither a .py file nor a module"),
    ],
)
def test_what_is_no_target_is_told_what_one_is(
    target: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "notes.txt").touch()
    monkeypatch.chdir(tmp_path)
    message = str(refusal(target))
    assert words in message
    assert WHAT_A_TARGET_IS in message


def test_a_forgotten_suffix_is_guessed(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("x = 1", "pkg/mine.py")
    monkeypatch.chdir(tmp_path)
    assert str(refusal("pkg/mine")).startswith("'pkg/mine' is neither")
    write(ONE, "d_tree.py")
    assert load("d_tree").name == "line"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "has no 'nothing'. Agents there: first, second, tree"),
        ("tree.nothing", ":tree has no 'nothing'"),
        ("number", "is no agent but 1"),
        ("function", "is no agent but <function"),
        ("function", "if it makes a tree, give what it returns a name"),
        ("runner", "name the tree that it runs"),
        ("Base", "is no agent but <class"),
        ("half", "is no agent yet"),
        ("bad.value", "has a 'value' that cannot be looked at"),
    ],
)
def test_a_name_that_is_no_agent_says_what_it_is(write: Write, name: str, words: str) -> None:
    source = f"""{ONE}
    number = 1
    def function(): return tree
    runner = Runner(tree)
    class Base(Agent): pass
    half = object.__new__(type("Half", (Agent,), {{}}))
    class Bad:
        @property
        def value(self): raise ValueError
    bad = Bad()
"""
    assert words in str(refusal(f"{write(source)}:{name}"))


def test_a_file_without_an_agent_says_so(write: Write) -> None:
    assert "no agent was found in" in str(refusal(write("x = 1")))


# ------------------------------------------------------------------- errors of the user's own code


def test_an_error_shows_the_users_traceback_and_no_frame_of_ours(write: Write) -> None:
    error = refusal(write("def broken():\n        return 1 / 0\nbroken()"))
    lines = error.details.splitlines()
    assert lines[0].startswith("Traceback")
    assert [line for line in lines if line.lstrip().startswith("File ")] == [
        f'  File "{Path(lines[1].split(chr(34))[1])}", line 6, in <module>',
        f'  File "{Path(lines[1].split(chr(34))[1])}", line 5, in broken',
    ]
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert str(error).endswith("my_tree.py cannot be imported")


def test_a_syntax_error_shows_the_line(write: Write) -> None:
    error = refusal(write("def broken(:\n    pass"))
    assert "def broken(:" in error.details
    assert "target.py" not in error.details
    assert "importlib" not in error.details


def test_a_module_that_the_file_lacks_is_not_taken_for_the_target(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("import no_such_thing", "e_tree.py")
    monkeypatch.chdir(tmp_path)
    for target in ("e_tree.py", "e_tree:tree"):
        error = refusal(target)
        assert "cannot be imported" in str(error)
        assert "No module named 'no_such_thing'" in error.details
        assert "target.py" not in error.details


def test_a_cause_is_shown_without_frames_of_ours(write: Write) -> None:
    source = """
        try:
            1 / 0
        except ZeroDivisionError as error:
            raise ValueError("no") from error
    """
    details = refusal(write(source)).details
    assert "ZeroDivisionError" in details
    assert details.endswith("ValueError: no")


def test_a_file_that_ends_the_program_is_told_about_the_main_guard(write: Write) -> None:
    assert '__name__ == "__main__"' in str(refusal(write("sys.exit(3)")))


def test_ctrl_c_while_importing_is_passed_on(write: Write) -> None:
    with pytest.raises(KeyboardInterrupt):
        load(str(write("raise KeyboardInterrupt")))


def test_a_traceback_cannot_act_on_the_terminal(write: Write) -> None:
    error = refusal(write("raise ValueError('\\x1b[2J')  # \x9b"))
    assert error.details.endswith("ValueError: \\x1b[2J")
    assert "\x9b" not in error.details


def test_a_file_that_failed_can_be_mended_and_loaded_again(write: Write) -> None:
    refusal(write("1 / 0"))
    assert load(str(write(ONE))).name == "line"


# --------------------------------------------------------------------------- names that are taken


@pytest.mark.parametrize("name", ["session.py", "session/__init__.py"])
def test_a_session_beside_the_file_is_refused_as_python_would(write: Write, name: str) -> None:
    """`python FILE.py` would take it for ours, and end."""
    other = write("raise SystemExit(9)", name)
    message = str(refusal(write(ONE)))
    assert message.startswith(f"{other} hides the `session` package")


def test_our_own_session_beside_the_file_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert load("examples.first_tree:survey").name == "survey"


def test_a_neighbour_whose_name_is_taken_is_named_when_the_import_fails(write: Write) -> None:
    write("MINE = 1", "click.py")
    message = str(refusal(write("from click import MINE")))
    assert "click.py were loaded already, from elsewhere" in message


def test_other_errors_do_not_blame_the_neighbours(write: Write) -> None:
    write("MINE = 1", "click.py")
    assert str(refusal(write("1 / 0"))).endswith("my_tree.py cannot be imported")


def test_an_error_that_says_what_to_do_is_told_in_a_line(write: Write) -> None:
    error = refusal(write('from parallel_agent import agent\nagent(3, name="x")'))
    assert error.details == ""
    assert "my_tree.py cannot be imported: AgentFunctionError: " in str(error)
    assert str(error).endswith("my_tree.py:5)")  # behind what `write` puts first
