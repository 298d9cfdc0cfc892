"""The examples that ask models: without one, scripts stand in, and the examples say so."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from examples.models import assistant, refine, research
from parallel_agent import Runner
from tests.support.chat_server import chunk, serving, streams

ROOT: Final = Path(__file__).resolve().parent.parent
NOTICE: Final = "No model is asked: a script answers instead."


def printed(
    main: Callable[[str], Coroutine[Any, Any, None]],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> list[str]:
    trio.run(main, message)
    return capsys.readouterr().out.splitlines()


def test_three_analysts_are_summed_up(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    document = tmp_path / "d.txt"
    document.write_text("It has 3 parts. It never fails. It may grow. Nothing else is said.")
    lines = printed(research.main, str(document), capsys)
    assert lines[0] == NOTICE
    assert lines[-3:] == [
        "The first of the facts: It has 3 parts.",
        "The first of the risks: It never fails.",
        "The first of the questions: It may grow.",
    ]


def test_a_headline_is_refined_until_the_critic_ends_the_loop(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = printed(refine.main, refine.TOPIC, capsys)
    assert lines[0] == NOTICE
    said = [line.split(":")[0] for line in lines[1:-2]]
    assert said == ["writer", "critic", "writer", "critic", "writer"]
    headline = lines[-1].removeprefix("The headline: ")
    assert len(headline) <= refine.LONGEST
    assert refine.TOPIC.startswith(headline)


def test_the_assistant_searches_and_asks_before_it_writes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    lines = printed(assistant.main, assistant.QUESTION, capsys)
    assert lines[0] == NOTICE
    assert sum(line.startswith("search(") for line in lines) == 2
    assert any("Nobody is there to say yes" in line for line in lines)
    assert "lines may help" in lines[-1]
    assert not (tmp_path / "notes").exists()


async def test_once_approved_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with Runner(assistant.assistant).open(assistant.QUESTION) as run:
        async for event in run:
            if event.request is not None:
                await run.respond(event.request.id, True)
    assert "messages to branches" in (tmp_path / "notes" / "notes.txt").read_text()


def test_a_document_outside_the_folder_is_no_document() -> None:
    with pytest.raises(FileNotFoundError, match="there is no document"):
        assistant.outline("../pyproject.toml")


@pytest.mark.parametrize("name", ["research", "assistant"])
def test_each_runs_as_a_script(name: str, tmp_path: Path) -> None:
    script = ROOT / "examples" / "models" / f"{name}.py"
    ended = subprocess.run(  # noqa: S603  # our own
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PARALLEL_AGENT_MODEL": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(NOTICE)


async def test_the_variable_names_the_model_that_is_asked(tmp_path: Path) -> None:
    exits = {"index": 0, "id": "1", "function": {"name": "exit_loop", "arguments": "{}"}}
    answers = [
        streams(chunk(content="Side by side"), chunk("stop")),
        streams(chunk(tool_calls=[exits]), chunk("tool_calls")),
    ]
    async with serving(*answers) as server:
        ended = await trio.run_process(
            [sys.executable, str(ROOT / "examples" / "models" / "refine.py"), "Agents"],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "PARALLEL_AGENT_MODEL": "ollama/some",
                "OLLAMA_BASE_URL": server.url,
            },
            capture_stdout=True,
        )
    lines = ended.stdout.decode().splitlines()
    assert lines[0] == "Asking ollama/some."
    assert lines[-1] == "The headline: Side by side"
    assert [asked["model"] for asked in server.asked] == ["some", "some"]
