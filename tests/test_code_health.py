"""The main example: a code-health review, over packages from the registry with defects planted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from examples.code_health.findings import KINDS, Finding
from examples.code_health.focus import LEVELS
from examples.code_health.sources import ReviewError
from examples.code_health.tree import ANALYSES, REPORT, each_file, tree
from parallel_agent import InvocationContext, Result, Runner, Text, agent
from session import SessionKey
from session.artifact import InMemoryArtifactService
from tests.code_health.planting import plant

ROOT: Final = Path(__file__).resolve().parent.parent
TODAY: Final = "2025-01-31"
FOREIGN: Final = ("attr", "cattrs", "pluggy")
"""Packages that the development tools bring along: somebody else's code, in all its variety."""


async def review(folder: Path | str, **state: Any) -> Result:
    return await Runner(tree).run(str(folder), state_delta={"today": TODAY, **state})


def found_by(result: Result) -> list[Finding]:
    """Everything the analyses found, before any threshold."""
    return [finding for analysis in ANALYSES for finding in result.outputs[analysis.name]]


def places(found: Iterable[Finding]) -> set[tuple[str, str]]:
    return {(finding["kind"], finding["path"]) for finding in found}


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


# ------------------------------------------------------------------------------- foreign projects


def foreign(name: str, folder: Path) -> Path:
    """A copy of an installed package."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    (place,) = spec.submodule_search_locations
    return Path(shutil.copytree(place, folder / name, ignore=shutil.ignore_patterns("*.pyc")))


@pytest.mark.parametrize("name", FOREIGN)
async def test_defects_planted_in_a_foreign_project_are_found_and_nothing_else_changes(
    name: str, tmp_path: Path
) -> None:
    package = foreign(name, tmp_path)
    before = places(found_by(await review(package)))
    planted = plant(package)
    result = await review(package)
    # A function made to be complex is long as well, and the other way round it is not.
    beside = {("length", "planted_complex.py")}
    assert places(found_by(result)) - before - beside == planted
    assert before <= places(found_by(result))
    assert result.text.startswith(f"# Code health of `{name}`\n")


@pytest.mark.parametrize("name", FOREIGN)
async def test_the_report_on_a_foreign_project_shows_the_worst_that_was_planted(
    name: str, tmp_path: Path
) -> None:
    package = foreign(name, tmp_path)
    plant(package)
    text = (await review(package)).text
    for line in (
        "- `planted_broken.py:1` cannot be looked into: `",
        f"- `planted_one.py:2` 2 modules import one another: `{name}.planted_one` → ",
        "- `planted_import.py:1` `import zipfile` is not used",
        "- `planted_dead.py:1` `_planted_dead` is mentioned nowhere else",
    ):
        assert line in text


async def test_the_same_folder_gives_the_same_report(tmp_path: Path) -> None:
    package = foreign("pluggy", tmp_path)
    plant(package)
    assert (await review(package)).text == (await review(package)).text


async def test_planted_defects_of_every_kind_are_told_in_the_report(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").touch()
    plant(tmp_path)
    text = (await review(tmp_path)).text
    assert [title for title in KINDS.values() if f"## {title}\n" not in text] == []


# ------------------------------------------------------------------------------------- the tree


async def test_without_a_folder_it_reviews_this_project() -> None:
    result = await Runner(tree).run(state_delta={"today": TODAY})
    assert result.text.startswith("# Code health of `parallel_agent` and `session`\n")
    assert {"parallel_agent/run.py", "session/event.py"} <= set(result.state["files"])


async def test_every_analysis_reports_once_on_a_branch_of_its_own(tmp_path: Path) -> None:
    result = await review(write(tmp_path, a="import os\n"))
    for analysis in ANALYSES:
        (event,) = (event for event in result.events if event.author == analysis.name)
        assert event.branch == f"analyses.{analysis.name}"
        assert event.text
        assert event.output is not None


async def test_the_report_is_an_artifact(tmp_path: Path) -> None:
    kept = InMemoryArtifactService()
    runner = Runner(tree, artifact_service=kept)
    result = await runner.run(str(write(tmp_path, a="import os\n")), session_id="s")
    key = SessionKey(app_name=runner.app_name, user_id="user", session_id="s")
    assert await kept.load(key, REPORT) == Text(result.text)


async def test_the_output_is_what_the_report_shows(tmp_path: Path) -> None:
    result = await review(write(tmp_path, a="import os\nimport re\n"), limit=1)
    (finding,) = result.output
    assert f"- `a.py:1` {finding['message']}\n" in result.text


async def test_few_findings_need_one_round(tmp_path: Path) -> None:
    result = await review(write(tmp_path, a="import os\n"))
    assert [e.author for e in result.events if e.author in {"tighten", "judge"}] == [
        "tighten",
        "judge",
    ]


async def test_many_findings_tighten_the_thresholds_until_few_are_left(tmp_path: Path) -> None:
    ways = {f"_f{number}": number for number in range(11, 31)}
    functions = (f"def {name}(a):\n" + "    if a: 0\n" * (n - 1) for name, n in ways.items())
    result = await review(
        write(tmp_path, a="".join(functions) + "".join(f"{name}()\n" for name in ways)), limit=12
    )
    assert [event.author for event in result.events].count("tighten") == 3
    assert [event.actions.escalate for event in result.events if event.author == "judge"] == [
        False,
        False,
        True,
    ]
    assert {finding["measure"] for finding in result.output} == set(range(21, 31))


async def test_when_nothing_helps_the_limit_is_what_is_shown(tmp_path: Path) -> None:
    text = "".join(f"def f{number}(a):\n" + "    if a: 0\n" * 60 for number in range(5))
    result = await review(write(tmp_path, a=text + "f0, f1, f2, f3, f4\n"), limit=2)
    assert [event.author for event in result.events].count("tighten") == len(LEVELS)
    assert len(result.output) == 2
    assert "3 findings beyond the limit of 2." in result.text


async def test_a_second_review_in_one_session_starts_afresh(tmp_path: Path) -> None:
    runner = Runner(tree)
    text = "".join(f"def f{number}(a):\n" + "    if a: 0\n" * 60 for number in range(5))
    folder = write(tmp_path, a=text + "f0, f1, f2, f3, f4\n")
    strict = await runner.run(str(folder), session_id="s", state_delta={"limit": 2})
    again = await runner.run(str(folder), session_id="s", state_delta={"limit": 20})
    assert "more than 40" in strict.text
    assert "more than 10" in again.text


async def test_patterns_exclude_files(tmp_path: Path) -> None:
    write(tmp_path, a="import os\n", a_pb2="import re\n")
    result = await review(tmp_path, exclude=["*_pb2.py"])
    assert list(result.state["files"]) == ["a.py"]


async def test_a_folder_without_python_is_reviewed(tmp_path: Path) -> None:
    assert "There are no Python files here." in (await review(tmp_path)).text


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"limit": 0}, "limit is how many findings are few enough, 1 or more, not 0"),
        ({"limit": "9"}, "not '9'"),
        ({"limit": True}, "not True"),
        ({"exclude": "tests"}, "exclude is a list of patterns"),
        ({"exclude": [1]}, "exclude is a list of patterns"),
        ({"today": "tomorrow"}, "today is a date"),
        ({"today": 1}, "today is a date"),
    ],
)
async def test_a_setting_that_cannot_be_is_refused(
    state: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ReviewError, match=message):
        await review(tmp_path, **state)


async def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReviewError, match=r"^cannot look into '.*gone': No such file"):
        await review(tmp_path / "gone")


async def test_a_run_that_is_cancelled_stops_after_the_file_it_looks_at(tmp_path: Path) -> None:
    write(tmp_path, **{f"a{number}": "x = 1\n" for number in range(100)})
    looked: list[str] = []
    scope = trio.CancelScope()

    @agent
    async def look(ctx: InvocationContext) -> None:
        ctx.state["files"] = [f"a{number}.py" for number in range(100)]
        ctx.state["base"] = str(tmp_path)

        def one(source: Any) -> list[str]:
            looked.append(source.path)
            trio.from_thread.run_sync(scope.cancel)
            return []

        await each_file(ctx, one)

    with scope:
        await Runner(look).run()
    assert len(looked) == 1


# ------------------------------------------------------------------------------------ hostile files


async def test_files_of_every_bad_kind_are_findings_and_the_rest_is_reviewed(
    tmp_path: Path,
) -> None:
    write(tmp_path, good="import os\n", warns="x = '\\d'\n")
    bad = {
        "syntax.py": b"def f(:\n",
        "null.py": b"x = 1\x00\n",
        "bytes.py": b"x = '\xff'\n",
        "deep.py": b"x = " + b"-" * 100_000 + b"1",
        "a\x1b[31m\n`.py": b"# TODO \x1b[2J\ndef f(:\n",
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / os.fsdecode(b"odd\xff.py")).touch()
    (tmp_path / "round").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.py")
    result = await review(tmp_path)
    found = found_by(result)
    assert {f["path"] for f in found if f["kind"] == "parse"} == set(bad)
    assert ("unused_import", "good.py") in places(found)
    assert "Skipped, because their names are not UTF-8: 1 file." in result.text
    assert "\x1b" not in result.text


async def test_files_that_are_gone_when_they_are_read_are_findings(tmp_path: Path) -> None:
    write(tmp_path, a="import os\n")
    runner = Runner(tree)
    async with runner.open(str(tmp_path), state_delta={"today": TODAY}) as run:
        async for event in run:
            if event.author == "find_files":
                (tmp_path / "a.py").unlink()
    assert "No such file" in run.result.text


async def test_what_the_parser_warns_of_disturbs_nobody(tmp_path: Path) -> None:
    write(tmp_path, a="x = '\\d'\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert places(found_by(await review(tmp_path))) == {("dead_name", "a.py")}


# ------------------------------------------------------------------------------ from a command line


def in_a_new_python(code: str, *arguments: str, cwd: Path) -> str:
    ended = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return ended.stdout


LOAD_BY_PATH = """
import sys
from parallel_agent.cli.target import load

print(load(sys.argv[1]).name, "examples" in sys.modules)
"""


def test_the_file_can_be_named_by_its_path_from_anywhere(tmp_path: Path) -> None:
    path = ROOT / "examples" / "code_health" / "tree.py"
    assert in_a_new_python(LOAD_BY_PATH, str(path), cwd=tmp_path) == "code_health False\n"
