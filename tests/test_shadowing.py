"""A user's own ``session`` in front of ours: found before it is executed, and named.

Each test is a script of a user's own, run by a Python of its own: what is imported by this process
was decided long ago.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import attrs
import pytest

ROOT: Final = Path(__file__).resolve().parent.parent

# What a user's own module does when it is executed.
EXECUTED: Final = "print('the module of the user was executed')\n"


@attrs.frozen
class Ended:
    """What became of the script."""

    status: int
    printed: str
    error: str

    @property
    def last_line(self) -> str:
        """The line of the traceback that says what was raised."""
        return self.error.strip().splitlines()[-1]


Script: TypeAlias = Callable[..., Ended]


@pytest.fixture
def run(tmp_path: Path) -> Script:
    """Run a script that lies in ``tmp_path``, with our packages further down the import path."""

    def run(source: str, *, arguments: list[str] | None = None) -> Ended:
        script = tmp_path / "script.py"
        script.write_text(source)
        ended = subprocess.run(  # noqa: S603  # our own script
            [sys.executable, *(arguments or [str(script)])],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return run


def check_refused(ended: Ended, culprit: Path) -> None:
    """Assert that it ended with an ImportError that names the culprit and says what to do."""
    assert ended.status == 1
    assert ended.last_line.startswith(f"ImportError: {culprit} hides the `session` package")
    assert "rename" in ended.last_line


USE: Final = "import parallel_agent\nprint(parallel_agent.Event.__module__)\n"


def test_a_file_beside_the_script_is_named(run: Script, tmp_path: Path) -> None:
    (tmp_path / "session.py").write_text(EXECUTED)
    check_refused(run(USE), tmp_path / "session.py")


def test_a_package_beside_the_script_is_named(run: Script, tmp_path: Path) -> None:
    (tmp_path / "session").mkdir()
    (tmp_path / "session" / "__init__.py").write_text(EXECUTED)
    check_refused(run(USE), tmp_path / "session" / "__init__.py")


@pytest.mark.parametrize("name", ["session.py", "session/__init__.py"])
def test_it_has_not_been_executed(run: Script, tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(EXECUTED)
    assert run(USE).printed == ""


def test_it_need_not_even_parse(run: Script, tmp_path: Path) -> None:
    (tmp_path / "session.py").write_text("def broken(:\n")
    check_refused(run(USE), tmp_path / "session.py")


def test_that_an_execution_would_show_is_proved(run: Script, tmp_path: Path) -> None:
    (tmp_path / "session.py").write_text(EXECUTED)
    assert run("import session").printed == "the module of the user was executed\n"


@pytest.mark.parametrize("name", ["session.py", "session/__init__.py"])
def test_it_is_named_too_when_it_was_imported_before(
    run: Script, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(EXECUTED)
    ended = run(f"import session\n{USE}")
    check_refused(ended, tmp_path / name)
    assert ended.printed.count("executed") == 1


@pytest.mark.parametrize(
    "statement",
    [
        "import parallel_agent.errors",
        "from parallel_agent import Runner",
        "from parallel_agent.workflow.parallel import ParallelAgent",
    ],
)
def test_whichever_door_is_taken(run: Script, tmp_path: Path, statement: str) -> None:
    (tmp_path / "session.py").write_text(EXECUTED)
    check_refused(run(statement), tmp_path / "session.py")


def test_in_the_working_folder_of_an_interactive_session_it_is_found_as_well(
    run: Script, tmp_path: Path
) -> None:
    (tmp_path / "session.py").write_text(EXECUTED)
    check_refused(run("", arguments=["-c", "import parallel_agent"]), tmp_path / "session.py")


def test_a_script_that_is_itself_called_session_is_told_when_it_imports_us(
    run: Script, tmp_path: Path
) -> None:
    """It runs as ``__main__``, and would be executed a second time as ``session``."""
    (tmp_path / "session.py").write_text(f"{EXECUTED}{USE}")
    ended = run("", arguments=[str(tmp_path / "session.py")])
    check_refused(ended, tmp_path / "session.py")
    assert ended.printed.count("executed") == 1


def test_the_error_can_be_caught_and_says_which_name_and_file(run: Script, tmp_path: Path) -> None:
    (tmp_path / "session.py").write_text(EXECUTED)
    source = """
        try:
            import parallel_agent
        except ImportError as error:
            print(error.name, error.path)
    """
    ended = run("\n".join(line[8:] for line in source.splitlines()))
    assert ended.printed.split() == ["session", str(tmp_path / "session.py")]


@pytest.mark.parametrize(
    "before",
    [
        "sys.modules['session'] = types.ModuleType('session')",
        "sys.modules['session'] = None",
        "sys.modules['session'] = types.SimpleNamespace(__spec__=None)",
    ],
    ids=["without a file", "forbidden", "no module"],
)
def test_what_has_no_file_is_an_import_error_too(run: Script, before: str) -> None:
    ended = run(f"import sys, types\n{before}\n{USE}")
    assert (ended.status, ended.last_line.split(":")[0]) == (1, "ImportError")


# ------------------------------------------------------------------------------- what hides nothing


def test_what_only_looks_alike_hides_nothing(run: Script, tmp_path: Path) -> None:
    """A folder without ``__init__.py`` among it: a real package comes before it, wherever it is."""
    alike = ["sessions.py", "my_session.py", "session.txt", "below/session.py", "session/data.txt"]
    for name in alike:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(EXECUTED)
    ended = run(USE)
    assert (ended.error, ended.printed) == ("", "session.event\n")


def test_once_it_is_renamed_everything_works(run: Script, tmp_path: Path) -> None:
    (tmp_path / "session.py").write_text("ANSWER = 42\n")
    check_refused(run(USE), tmp_path / "session.py")
    (tmp_path / "session.py").rename(tmp_path / "my_session.py")
    ended = run(f"import my_session\n{USE}print(my_session.ANSWER)")
    assert (ended.error, ended.printed) == ("", "session.event\n42\n")


def test_our_own_session_may_be_imported_first(run: Script) -> None:
    ended = run(f"import session.state\n{USE}")
    assert (ended.error, ended.printed) == ("", "session.event\n")


def test_importing_twice_is_importing_once(run: Script) -> None:
    ended = run(f"{USE}import importlib\nimportlib.reload(parallel_agent)\n")
    assert (ended.error, ended.printed) == ("", "session.event\n")
