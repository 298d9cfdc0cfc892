"""The small examples: each runs, as a script and as a tree of its own."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trio.testing

from examples import market_entry, nested, own_agent
from parallel_agent import Runner

ROOT: Final = Path(__file__).resolve().parent.parent


def printed(
    main: Callable[[str], Coroutine[Any, Any, None]],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> list[str]:
    trio.run(main, message, clock=trio.testing.MockClock(autojump_threshold=0))
    return capsys.readouterr().out.splitlines()


def test_the_advisor_merges_what_the_experts_found(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(market_entry.main, market_entry.QUESTION, capsys)
    assert lines[-1].strip().startswith("advisor: Worth a try: Norway drinks")
    assert "a margin of 25 %" in lines[-1]


def test_the_experts_work_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(market_entry.main, market_entry.QUESTION, capsys)
    authors = [line.split(":")[0].strip() for line in lines]
    assert set(authors[:3]) == {"researcher", "legal", "finance"}
    assert authors[3:] == ["finance", "researcher", "legal", "advisor"]


async def test_each_expert_has_its_own_key() -> None:
    result = await Runner(market_entry.market_entry).run("What of Atlantis?")
    assert result.state["finance"] == {"tax": 25, "margin": 15}
    assert result.state["research"] == "no market that I know"
    assert result.text.startswith("Not now")


def test_the_loop_ends_when_nothing_is_left_to_mend(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(nested.main, nested.DRAFT, capsys)
    assert lines[-1].split(maxsplit=1) == [
        "essay/publish",
        "The tea was good and the evening was long.",
    ]
    assert sum("good enough" in line for line in lines) == 1


async def test_a_text_that_is_fine_goes_through_the_loop_once() -> None:
    result = await Runner(nested.essay).run("tea is good")
    assert result.text == "Tea is good."
    assert {event.path for event in result.events if "judge" in event.path} == {
        "essay/polish/judge@1"
    }


@pytest.mark.parametrize(
    ("message", "chosen"), [("How old is tea?", "answer"), ("Tea.", "ask_back")]
)
async def test_an_agent_of_ones_own_chooses(message: str, chosen: str) -> None:
    result = await Runner(own_agent.desk).run(message)
    assert result.events[0].text == f"{chosen} is to answer"
    assert result.outputs["is_question"] == result.outputs[chosen] == result.state["said"]
    assert result.text == f"I said: {result.outputs[chosen]}"


@pytest.mark.parametrize("name", ["market_entry", "nested", "own_agent"])
def test_each_is_a_script(name: str) -> None:
    path = ROOT / "examples" / f"{name}.py"
    ended = subprocess.run(  # noqa: S603  # our own script
        [sys.executable, path], check=True, capture_output=True, text=True, timeout=60
    )
    assert ended.stderr == ""
    assert len(ended.stdout.splitlines()) > 3


@pytest.mark.parametrize("name", ["market_entry", "nested", "own_agent"])
def test_importing_one_runs_nothing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"))
    assert capsys.readouterr().out == ""
