"""The graphs in the examples do what they say, over real text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from examples.graphs import analysts, guarded, map_reduce, nested, ordered
from parallel_agent import Agent, Refusal, Result, Runner

ROOT = Path(__file__).resolve().parent.parent


async def run(graph: Agent, message: str | None = None) -> Result:
    return await Runner(graph).run(message)


def ran(result: Result) -> set[str]:
    return {event.author for event in result.events if event.output is not None or event.text}


async def test_the_dispatcher_asks_who_has_something_to_say() -> None:
    result = await run(analysts.graph, str(ROOT / "README.md"))
    structure, wording, code = result.text.splitlines()
    # It goes with the README, which changes: that they were asked is enough.
    assert re.search(r"^structure: \d+ headings, \d levels deep, from 'parallel-agent'$", structure)
    assert "agents" in wording
    assert re.search(r"^code: .*\d+ x python", code)


async def test_an_analyst_who_has_nothing_to_say_is_not_asked(tmp_path: Path) -> None:
    plain = tmp_path / "plain.txt"
    plain.write_text("plain words and nothing else", "utf-8")
    result = await run(analysts.graph, str(plain))
    assert result.text.startswith("structure: not asked\nwording: 5 words")
    assert "code" not in ran(result)


async def test_a_leaf_of_the_quick_branch_does_not_wait_for_the_slow_one(
    autojump_clock: object,
) -> None:
    result = await run(nested.graph, "the harbour")
    said = [event.author for event in result.events if event.text]
    assert said.index("check_names") < said.index("opinions")
    assert result.text == "numbers: ['12']; names: ['Ada']; a fisher likes the harbour"


@pytest.mark.parametrize(
    ("text", "guard"), [("good morning", None), ("you fool", "manners"), ("a" * 61, "size")]
)
async def test_a_guard_lets_through_what_is_short_and_polite(text: str, guard: str | None) -> None:
    result = await run(guarded.graph, text)
    refusal = Refusal.of(result.output)
    assert (refusal and refusal.guard) == guard
    assert ("french" in ran(result)) is (guard is None)


async def test_the_carriers_go_in_turn(
    autojump_clock: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (await run(ordered.graph)).text == "9 in all"
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "first",
        "second",
        "third",
    ]


async def test_the_words_of_a_folder_are_counted_and_a_broken_file_is_left_out(
    tmp_path: Path,
) -> None:
    (tmp_path / "one.md").write_text("harbour harbour pilots", "utf-8")
    (tmp_path / "two.txt").write_text("pilots harbour", "utf-8")
    (tmp_path / "broken.md").write_bytes(b"\xff\xfe\xff")
    result = await run(map_reduce.graph, str(tmp_path))
    assert result.text == "harbour (3), pilots (2)"


async def test_a_folder_without_text_has_no_words(tmp_path: Path) -> None:
    assert (await run(map_reduce.graph, str(tmp_path))).text == "no words"
