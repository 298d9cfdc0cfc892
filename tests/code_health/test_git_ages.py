"""How old lines are, in repositories of every kind."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import pytest
import trio

from examples.code_health import git_ages
from examples.code_health.git_ages import ages_of

TODAY: Final = dt.date(2025, 1, 31)
GIT: Final = shutil.which("git")

pytestmark = pytest.mark.skipif(GIT is None, reason="there is no git here")

Git: TypeAlias = Callable[..., None]


@pytest.fixture
def git(tmp_path: Path) -> Git:
    """Run git in a new repository; every commit is of the day it is told."""

    def run(*arguments: str, day: str = "2025-01-01", folder: Path = tmp_path) -> None:
        subprocess.run(  # noqa: S603  # git, with what this file says
            [GIT or "git", "-c", "user.name=A", "-c", "user.email=a@b.c", *arguments],
            cwd=folder,
            env={
                **os.environ,
                "GIT_CONFIG_GLOBAL": os.devnull,
                "GIT_AUTHOR_DATE": f"{day}T12:00:00Z",
                "GIT_COMMITTER_DATE": "2025-01-30T12:00:00Z",
            },
            check=True,
            capture_output=True,
        )

    run("init", "--quiet")
    return run


def commit(git: Git, path: Path, text: str, day: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    git("add", "--", str(path))
    git("commit", "--quiet", "-m", "change", day=day)


async def ages(base: Path, *lines: tuple[str, int, str]) -> dict[tuple[str, int], int]:
    return await ages_of(lines, base=base, today=TODAY)


async def test_a_line_is_as_old_as_the_commit_that_wrote_it(git: Git, tmp_path: Path) -> None:
    commit(git, tmp_path / "a.py", "# TODO old\n", "2024-01-31")
    commit(git, tmp_path / "a.py", "# TODO new\n# TODO old\n", "2025-01-21")
    assert await ages(tmp_path, ("a.py", 1, "# TODO new"), ("a.py", 2, "# TODO old")) == {
        ("a.py", 1): 10,
        ("a.py", 2): 366,
    }


async def test_a_line_that_has_moved_since_keeps_its_age(git: Git, tmp_path: Path) -> None:
    commit(git, tmp_path / "a.py", "# TODO\n", "2025-01-21")
    (tmp_path / "a.py").write_text("x = 1\n\n    # TODO\n")
    assert await ages(tmp_path, ("a.py", 3, "    # TODO")) == {("a.py", 3): 10}


async def test_of_equal_lines_the_nearest_is_meant(git: Git, tmp_path: Path) -> None:
    commit(git, tmp_path / "a.py", "# TODO\n" + "x = 1\n" * 8, "2025-01-11")
    commit(git, tmp_path / "a.py", "# TODO\n" + "x = 1\n" * 8 + "# TODO\n", "2025-01-21")
    assert await ages(tmp_path, ("a.py", 9, "# TODO"), ("a.py", 2, "# TODO")) == {
        ("a.py", 9): 10,
        ("a.py", 2): 20,
    }


async def test_a_line_that_is_not_committed_is_new(git: Git, tmp_path: Path) -> None:
    commit(git, tmp_path / "a.py", "x = 1\n", "2024-01-31")
    (tmp_path / "a.py").write_text("x = 1\n# TODO\n")
    assert await ages(tmp_path, ("a.py", 2, "# TODO")) == {("a.py", 2): 0}


async def test_a_date_to_come_is_today(git: Git, tmp_path: Path) -> None:
    commit(git, tmp_path / "a.py", "# TODO\n", "2030-01-01")
    assert await ages(tmp_path, ("a.py", 1, "# TODO")) == {("a.py", 1): 0}


async def test_the_folder_may_lie_inside_of_the_repository(git: Git, tmp_path: Path) -> None:
    commit(git, tmp_path / "below" / "a.py", "# TODO\n", "2025-01-21")
    assert await ages(tmp_path / "below", ("a.py", 1, "# TODO")) == {("a.py", 1): 10}


@pytest.mark.parametrize("name", ["--contents=x.py", ":(glob)*.py", "*.py", "a b\nc.py", "é.py"])
async def test_a_hostile_name_is_a_name(name: str, git: Git, tmp_path: Path) -> None:
    commit(git, tmp_path / name, "# TODO\n", "2025-01-21")
    assert await ages(tmp_path, (name, 1, "# TODO")) == {(name, 1): 10}


async def test_files_that_git_does_not_know_have_no_age(git: Git, tmp_path: Path) -> None:
    commit(git, tmp_path / "a.py", "# TODO\n", "2025-01-21")
    (tmp_path / "b.py").write_text("# TODO\n")
    assert await ages(tmp_path, ("a.py", 1, "# TODO"), ("b.py", 1, "# TODO")) == {("a.py", 1): 10}


async def test_without_a_commit_there_is_no_age(git: Git, tmp_path: Path) -> None:
    assert await ages(tmp_path, ("a.py", 1, "# TODO")) == {}


async def test_outside_of_a_repository_there_is_no_age(tmp_path: Path) -> None:
    assert await ages(tmp_path, ("a.py", 1, "# TODO")) == {}


async def test_without_git_there_is_no_age(
    git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(git, tmp_path / "a.py", "# TODO\n", "2025-01-21")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await ages(tmp_path, ("a.py", 1, "# TODO")) == {}


async def test_a_git_that_cannot_be_run_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "git").write_bytes(b"\x7fnothing that runs")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await ages(tmp_path, ("a.py", 1, "# TODO")) == {}


async def test_a_git_that_takes_too_long_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "git").write_text("#!/bin/sh\nexec /bin/sleep 100\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(git_ages, "TIMEOUT", 0.05)
    with trio.fail_after(30):
        assert await ages(tmp_path, ("a.py", 1, "# TODO")) == {}


async def test_a_clone_without_its_history_knows_no_age(git: Git, tmp_path: Path) -> None:
    """Its oldest commit seems to have written everything."""
    commit(git, tmp_path / "a.py", "# TODO\n", "2024-01-31")
    commit(git, tmp_path / "a.py", "# TODO\nx = 1\n", "2025-01-21")
    git("clone", "--quiet", "--depth=1", f"file://{tmp_path}", "shallow")
    assert await ages(tmp_path / "shallow", ("a.py", 1, "# TODO")) == {}


async def test_another_repository_in_the_environment_is_not_meant(
    git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(git, tmp_path / "a.py", "# TODO\n", "2025-01-21")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert await ages(tmp_path, ("a.py", 1, "# TODO")) == {("a.py", 1): 10}


async def test_the_settings_of_a_repository_run_nothing(git: Git, tmp_path: Path) -> None:
    commit(git, tmp_path / "a.py", "# TODO\n", "2025-01-21")
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch '{tmp_path}/sprung'\ncat\n")
    trap.chmod(0o755)
    (tmp_path / ".gitattributes").write_text("*.py filter=trap diff=trap\n")
    for key in ("filter.trap.clean", "diff.trap.textconv", "core.fsmonitor", "core.pager"):
        git("config", key, str(trap))
    (tmp_path / "a.py").write_text("# TODO\nx = 1\n")
    assert await ages(tmp_path, ("a.py", 1, "# TODO")) == {("a.py", 1): 10}
    assert not (tmp_path / "sprung").exists()


def test_that_trap_springs_for_who_is_not_careful(git: Git, tmp_path: Path) -> None:
    """Otherwise the test above would prove nothing."""
    commit(git, tmp_path / "a.py", "# TODO\n", "2025-01-21")
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch '{tmp_path}/sprung'\ncat\n")
    trap.chmod(0o755)
    (tmp_path / ".gitattributes").write_text("*.py filter=trap\n")
    git("config", "filter.trap.clean", str(trap))
    (tmp_path / "a.py").write_text("# TODO\nx = 1\n")
    git("blame", "--porcelain", "--", "a.py")
    assert (tmp_path / "sprung").exists()


async def test_of_very_many_files_the_first_have_ages(
    git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.py", "b.py", "c.py"):
        commit(git, tmp_path / name, "# TODO\n", "2025-01-21")
    monkeypatch.setattr(git_ages, "MAX_FILES", 2)
    found = await ages(tmp_path, *((f"{name}.py", 1, "# TODO") for name in "cab"))
    assert sorted(found) == [("a.py", 1), ("b.py", 1)]


async def test_commits_that_the_repository_would_have_ignored_are_not(
    git: Git, tmp_path: Path
) -> None:
    """The file may be a device without an end, or not there at all, which makes git fail."""
    commit(git, tmp_path / "a.py", "# TODO\n", "2025-01-21")
    git("config", "blame.ignoreRevsFile", "not there")
    assert await ages(tmp_path, ("a.py", 1, "# TODO")) == {("a.py", 1): 10}
