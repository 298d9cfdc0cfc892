"""The script without an event loop: alone, asking, and a run for each line."""

from __future__ import annotations

import builtins
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from examples.script import main

ROOT: Final = Path(__file__).resolve().parent.parent


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    main(arguments)
    return capsys.readouterr().out.splitlines()


def test_it_prints_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(["green tea and black tea"], capsys) == ["black: 5 words"]


def test_each_line_is_a_run_of_its_own_and_they_keep_their_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = "\n".join(f"line{number} a b" for number in range(20)) + "\n\n!\n"
    assert printed(["--each-line", text], capsys) == [f"line{n}: 3 words" for n in range(20)]


@pytest.mark.parametrize(("answer", "headline"), [("tea", "tea"), ("coffee", "black")])
def test_it_asks_in_the_loop_that_reads_the_events(
    answer: str,
    headline: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = list[str]()

    def answer_it(prompt: str) -> str:
        asked.append(prompt)
        return answer

    monkeypatch.setattr(builtins, "input", answer_it)
    lines = printed(["--ask", "green tea and black tea"], capsys)
    assert asked == ["One of black, green, tea? "]
    assert sorted(lines[:2]) == ["frequent: ['tea', 'green']", "longest: ['black', 'green']"]
    assert lines[2:] == [f"choose: {headline}: 5 words"]


def test_a_text_without_words_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["?!"])
    assert ended.value.code == 2
    assert "the text has no words" in capsys.readouterr().err


def test_as_a_script_it_runs() -> None:
    ended = subprocess.run(
        [sys.executable, "examples/script.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "evening: 16 words\n", "")


def test_importing_it_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / "script.py"))
    assert capsys.readouterr().out == ""
