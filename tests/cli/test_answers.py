"""Questions of agents, on the command line."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from parallel_agent.cli.answers import described, value_of
from parallel_agent.questions import PendingRequest
from tests.cli.kit import Call, Write

ASKS: Final = """
    import trio
    from parallel_agent import ParallelAgent

    @agent
    async def ask(ctx):
        yield f"ship: {await ctx.request_input('Ship it?', schema=bool)}"

    @agent
    async def other(ctx):
        yield "meanwhile"

    both = ParallelAgent("both", [ask, other])
"""

TWICE: Final = """
    @agent
    async def ask(ctx):
        first = await ctx.request_input("First?")
        second = await ctx.request_input("Second?", schema=int)
        yield f"{first}, {second}"
"""


def test_without_anybody_to_ask_it_ends_as_waiting_and_says_how_to_answer(
    call: Call, write: Write
) -> None:
    ended = call("run", write(ASKS))
    assert ended.status == 3
    assert "both/ask asks: Ship it? (yes or no): --respond 'both/ask#1=...'" in ended.err
    assert "meanwhile" in ended.out
    assert "(asks: Ship it?)" in ended.out


@pytest.mark.parametrize("name", ["ask", "both/ask", "both/ask#1"])
@pytest.mark.parametrize(("text", "said"), [("yes", "True"), ("false", "False")])
def test_an_answer_can_be_given_with_the_command(
    call: Call, write: Write, name: str, text: str, said: str
) -> None:
    ended = call("run", write(ASKS), "--respond", f"{name}={text}")
    assert ended.status == 0
    assert f"ship: {said}" in ended.out
    assert "(answers: " in ended.out


def test_an_answer_that_does_not_fit_is_told_and_not_taken(call: Call, write: Write) -> None:
    ended = call("run", write(ASKS), "--respond", "ask=maybe")
    assert ended.status == 3
    assert "--respond ask: " in ended.err
    assert "true or false is needed" in ended.err


def test_each_answer_is_used_once_in_order(call: Call, write: Write) -> None:
    ended = call("run", write(TWICE), "--respond", "ask=tea", "--respond", "ask=2", "-q")
    assert (ended.status, ended.out) == (0, "tea, 2\n")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--respond", "nobody=1"), 3),
        (("--respond", "nobody=1", "--respond", "ask=yes"), 0),
        (("--respond", "ask=no", "--respond", "nobody=1", "-q"), 0),
        (("--respond", "ask=no", "--respond", "nobody=1", "--json"), 0),
    ],
)
def test_an_answer_that_no_question_has_used_is_told_with_the_questions_there_were(
    call: Call, write: Write, arguments: tuple[str, ...], status: int
) -> None:
    ended = call("run", write(ASKS), *arguments)
    assert ended.status == status
    assert ended.err.endswith(
        "--respond nobody: no question has used it (the questions were 'both/ask#1')\n"
    )
    assert "nobody" not in ended.out


def test_an_answer_too_many_is_told(call: Call, write: Write) -> None:
    responses = [f"--respond=ask={number}" for number in range(4)]
    ended = call("run", write(TWICE), *responses)
    assert ended.status == 0
    said = "--respond ask: no question has used it (the questions were 'ask#1', 'ask#2')\n"
    assert ended.err.endswith(2 * said)


def test_an_answer_in_a_run_that_asks_nothing_is_told(call: Call, write: Write) -> None:
    quiet = """
        @agent
        async def tells(ctx):
            yield "so it is"
    """
    ended = call("run", write(quiet), "--respond", "\x1bask=yes")
    assert "--respond \\x1bask: no question has used it (there was no question)\n" in ended.err


def test_an_answer_that_was_used_is_not_told(call: Call, write: Write) -> None:
    for value in ("yes", "maybe"):
        assert "has used it" not in call("run", write(ASKS), "--respond", f"ask={value}").err


@pytest.mark.parametrize("name", ["broken", "ask/broken", "ask/broken#failed"])
def test_a_branch_that_failed_names_the_question_what_to_do_about_it(
    call: Call, write: Write, name: str
) -> None:
    """The answer to one is not taken for the other, whichever fails first."""
    script = """
        from parallel_agent import Escalate, ParallelAgent

        tries = []

        @agent
        async def broken(ctx):
            tries.append(1)
            if len(tries) == 1:
                raise OSError("no such disk")
            yield "whole"

        @agent
        async def other(ctx):
            raise ValueError

        ask = ParallelAgent("ask", [other, broken], barrier=Escalate())
    """
    ended = call("run", write(script), "--respond", f"{name}=retry", "--respond", "other=skip")
    assert ended.status == 0
    assert "whole" in ended.out


def test_the_question_about_a_failed_branch_is_told_with_the_branch(
    call: Call, write: Write
) -> None:
    script = """
        from parallel_agent import Escalate, ParallelAgent

        @agent
        async def broken(ctx):
            raise OSError("no such disk")

        ask = ParallelAgent("ask", [broken], barrier=Escalate("What now?"))
    """
    ended = call("run", write(script))
    assert ended.status == 3
    assert "(retry or skip or abort): --respond 'ask/broken#failed=...'" in ended.err


@pytest.mark.parametrize("item", ["ask", "=yes", ""])
def test_what_is_no_answer_is_refused(call: Call, write: Write, item: str) -> None:
    ended = call("run", write(ASKS), "--respond", item)
    assert ended.status == 2
    assert "--respond takes ID=VALUE" in ended.err


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("N", False),
        ("true", True),
        ("3", 3),
        ('{"a": [1]}', {"a": [1]}),
        ("tea", "tea"),
        ("", ""),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_an_answer_is_json_or_yes_or_no_or_text(text: str, value: Any) -> None:
    assert value_of(text) == value


@pytest.mark.parametrize(
    ("schema", "hint"),
    [
        (None, ""),
        ({"type": "boolean"}, " (yes or no)"),
        ({"enum": ["retry", "skip"]}, " (retry or skip)"),
        ({"type": ["odd"]}, ""),
    ],
)
def test_a_question_says_what_is_wanted(schema: Any, hint: str) -> None:
    request = PendingRequest("i:p#1", "Why\x1b?", schema, "p", None, "p")
    assert described(request) == f"p asks: Why\\x1b?{hint}"


def test_a_person_at_a_terminal_is_asked_until_the_answer_fits(
    write: Write, tmp_path: Path
) -> None:
    mine, theirs = pty.openpty()
    process = subprocess.Popen(  # noqa: S603  # our own command
        [sys.executable, "-m", "parallel_agent", "run", "--plain", str(write(ASKS))],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    os.close(theirs)
    seen = ""
    for expected, answer in (("Ship it? (yes or no)", b"perhaps\n"), ("not 'perhaps'", b"yes\n")):
        while expected not in seen:
            seen += os.read(mine, 1000).decode()
        os.write(mine, answer)
    printed, _ = process.communicate(timeout=60)
    out = printed.decode()
    assert process.returncode == 0
    os.close(mine)
    assert "ship: True" in out
    assert "meanwhile" in out
