"""What `make run` runs: the first tree, over folders of every kind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from examples.first_tree import DEFAULT_FOLDERS, main

ROOT: Final = Path(__file__).resolve().parent.parent

Show: TypeAlias = Callable[[Sequence[object]], str]


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    """Run the example; return what it prints."""

    def run(arguments: Sequence[object]) -> str:
        main([str(argument) for argument in arguments])
        return capsys.readouterr().out

    return run


def figures(printed: str) -> dict[str, str]:
    """The summary at the end, as a dict."""
    _, _, summary = printed.rpartition("\n\n")
    pairs = (line.strip().split("  ", 1) for line in summary.splitlines())
    return {name: value.strip() for name, value in pairs}


def authors(printed: str) -> list[str]:
    events, _, _ = printed.rpartition("\n\n")
    return [line.split()[1] for line in events.splitlines()]


def test_without_a_folder_it_looks_at_this_project(show: Show) -> None:
    files = sum(len(list(folder.rglob("*.py"))) for folder in DEFAULT_FOLDERS)
    assert figures(show([]))["Python files"] == str(files)


def test_every_agent_of_the_tree_is_heard(show: Show) -> None:
    printed = authors(show([ROOT / "session"]))
    assert printed[0] == "find_files"
    assert set(printed[1:-2]) == {"count_lines", "long_functions", "docstrings", "todos"}
    assert printed[-2:] == ["measure", "report"]


def test_a_line_names_the_branch(show: Show, tmp_path: Path) -> None:
    lines = show([tmp_path]).splitlines()
    assert any(line.split()[:2] == ["measure.todos", "todos"] for line in lines)


def test_the_summary_counts_what_is_there(show: Show, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "one.py").write_text('"""One."""\n\ndef f():\n    return 1  # TODO: two\n')
    (tmp_path / "below" / "two.py").write_text("async def g():\n    pass\n\nclass _C: pass\n")
    (tmp_path / "notes.txt").write_text("# FIXME\n")
    assert figures(show([tmp_path])) == {
        "Python files": "2",
        "lines": "8",
        "functions": "2",
        "longest function": "2 lines",
        "docstrings": "1 of 4 public things",
        "TODO, FIXME, XXX": "1",
        "files that do not parse": "0",
    }


def test_findings_come_as_events_of_their_own(show: Show, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("x = 1\n# TODO: say why\n# FIXME\n")
    lines = [line for line in show([tmp_path]).splitlines() if line.startswith("measure.todos")]
    assert [line.split("one.py")[-1].strip() for line in lines[:2]] == [
        ":2: TODO say why",
        ":3: FIXME",
    ]


def test_an_empty_folder_has_nothing_and_says_so(show: Show, tmp_path: Path) -> None:
    printed = show([tmp_path])
    assert "there are no Python files here" in printed
    assert figures(printed)["Python files"] == "0"


@pytest.mark.parametrize(
    "source",
    [
        b"def f(:\n",
        b"x = 1\x00\n",
        b"x = '\xff'\n",
        b"# -*- coding: nonsense -*-\n",
        b"x = " + b"(" * 5000,
        b"x = " + b"-" * 200_000 + b"1",
    ],
    ids=["syntax", "null byte", "not UTF-8", "unknown encoding", "too deep", "far too deep"],
)
def test_a_file_that_does_not_parse_is_a_finding(source: bytes, show: Show, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_bytes(source)
    (tmp_path / "whole.py").write_text("def f(): pass\n")
    printed = show([tmp_path])
    assert "broken.py does not parse: " in printed
    assert figures(printed)["files that do not parse"] == "1"
    assert figures(printed)["functions"] == "1"


def test_what_is_no_file_is_left_alone(show: Show, tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.py")
    assert figures(show([tmp_path]))["Python files"] == "0"


def test_hidden_folders_and_virtual_environments_are_left_alone(show: Show, tmp_path: Path) -> None:
    for name in (".hidden", "environment", "__pycache__"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "module.py").touch()
    (tmp_path / "environment" / "pyvenv.cfg").touch()
    assert figures(show([tmp_path]))["Python files"] == "0"


def test_a_name_that_is_no_text_is_skipped_and_counted(show: Show, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"odd\xff.py")).touch()
    (tmp_path / "even.py").touch()
    assert "1 Python files, 1 skipped" in show([tmp_path])


def test_control_characters_never_reach_the_terminal(show: Show, tmp_path: Path) -> None:
    (tmp_path / "a\x1b[31m\n.py").write_text("# TODO \x1b[2J\n")
    printed = show([tmp_path])
    assert "\x1b" not in printed
    assert "?[31m?.py:1: TODO ?[2J" in printed


@pytest.mark.parametrize("name", ["missing", "file"])
def test_an_unusable_folder_is_named_and_the_exit_status_is_2(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / name)])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert f"cannot look into '{tmp_path / name}': " in printed.err
    assert printed.out == ""


def test_help_draws_the_tree(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "├── measure                 side by side" in capsys.readouterr().out


@pytest.mark.parametrize(("folder", "status"), [("session", 0), ("nowhere", 2)])
def test_as_a_script_it_ends_with_the_right_status(folder: str, status: int) -> None:
    """The way `make run` calls it, which nothing in this process can stand in for."""
    ended = subprocess.run(  # noqa: S603  # our own script
        [sys.executable, "examples/first_tree.py", folder],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (ended.returncode, "Traceback" in ended.stderr) == (status, False)
