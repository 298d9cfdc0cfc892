"""The command line as a whole, called in this process; only signals and pipes need another one."""

from __future__ import annotations

import json
import re
import signal
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import pytest

from parallel_agent import Status
from parallel_agent.cli.commands import cli
from parallel_agent.cli.running import Ended, exit_status
from session import Codec
from tests.cli.kit import Call, Write

TREE: Final = """
    @agent(output_key="words")
    async def words(ctx):
        yield str(len(ctx.user_text.split()))

    @agent
    async def report(ctx):
        yield f"{ctx.state['words']} words"

    tree = SequentialAgent("line", [ParallelAgent("fan", [words]), report])
"""

STATE: Final = """
    @agent
    async def tell(ctx):
        yield f"{ctx.session_key.user_id} {ctx.session_key.session_id} {ctx.state.to_dict()}"
"""

FAILS: Final = """
    @agent
    async def fails(ctx):
        yield "before"
        raise ValueError("no \\x1b[31mluck")

    tree = SequentialAgent("line", [fails])
"""

# Says so when it is cancelled, and takes three seconds to clean up.
TIDY: Final = """
    @agent
    async def tidy(ctx):
        try:
            yield "begun"
            {then}
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(3)
                await ctx.emit("tidied up")

    tree = SequentialAgent("line", [tidy])
"""


def rows(out: str) -> list[list[str]]:
    return [line.split(maxsplit=2) for line in out.splitlines()]


# ------------------------------------------------------------------------------ what is printed


def test_in_a_pipe_each_event_is_a_line_with_branch_and_author(call: Call, write: Write) -> None:
    ended = call("run", write(TREE), "to be or not")
    assert rows(ended.out) == [
        ["fan.words", "words", "4"],
        ["-", "fan", "(words completed)"],
        ["-", "report", "4 words"],
    ]
    assert (ended.err, ended.status) == ("completed (3 events, 0.0 s)\n", 0)


def test_quiet_is_the_final_text_and_nothing_else(call: Call, write: Write) -> None:
    ended = call("run", "--quiet", write(TREE), "to be")
    assert (ended.out, ended.err, ended.status) == ("2 words\n", "", 0)


def test_json_is_one_event_a_line_that_the_codec_reads(call: Call, write: Write) -> None:
    ended = call("run", "--json", write(TREE), "to be")
    events = [Codec().loads(line) for line in ended.out.splitlines()]
    assert [(event.branch, event.author, event.text) for event in events] == [
        ("fan.words", "words", "2"),
        (None, "fan", ""),
        (None, "report", "2 words"),
    ]
    assert events[1].actions.outcomes[0].name == "words"
    # And it is the stored form: nothing is lost on the way.
    for line, event in zip(ended.out.splitlines(), events, strict=True):
        assert Codec().encode(event) == json.loads(line)
    assert ended.err == "completed (3 events, 0.0 s)\n"


def test_a_live_tree_is_followed_by_the_final_text(call: Call, write: Write) -> None:
    ended = call("run", "--live", write(TREE), "to be")
    view, _, text = ended.out.rpartition("\x1b[?25h")
    assert "report" in view
    assert text.split() == ["2", "words"]
    assert (ended.err, ended.status) == ("", 0)


@pytest.mark.parametrize("mode", ["--json", "--quiet"])
def test_what_agents_print_does_not_come_between_what_programs_read(
    call: Call, write: Write, mode: str
) -> None:
    source = """
        print("imported")
        @agent
        async def prints(ctx):
            print("printed")
            yield "said"
    """
    ended = call("run", mode, write(source))
    assert ("imported" in ended.err, "printed" in ended.err) == (True, True)
    assert ended.out.strip().count("\n") == 0
    assert "said" in ended.out


@pytest.mark.parametrize("mode", ["--plain", "--json"])
def test_pieces_of_messages_are_printed_when_asked_for(call: Call, write: Write, mode: str) -> None:
    source = """
        @agent
        async def types(ctx):
            yield Event("so ", partial=True)
            yield "so it goes"
    """
    file = write(source)
    assert len(call("run", mode, file).out.splitlines()) == 1
    assert len(call("run", mode, "--partial", file).out.splitlines()) == 2


@pytest.mark.parametrize("mode", ["--plain", "--json", "--quiet", "--live"])
def test_hostile_text_reaches_nobodys_terminal(call: Call, write: Write, mode: str) -> None:
    source = """
        @agent(description="\\x1b[2J\\x9b")
        async def evil(ctx):
            yield "\\x1b]0;owned\\x07 \\x9b2J \\u202e \\x7f [red]literal[/red]"
    """
    ended = call("run", mode, write(source))
    printed = ended.out + ended.err
    assert not set("\x07\x7f\x9b\u202e") & set(printed)
    assert "\x1b]" not in printed
    assert "[red]literal[/red]" in printed


def test_no_message_is_no_message(call: Call, write: Write) -> None:
    source = """
        @agent
        async def tell(ctx):
            yield repr(ctx.user_content)
    """
    assert call("run", "-q", write(source)).out == "None\n"


# ----------------------------------------------------------------------------- what goes in


def test_the_message_can_be_a_file_or_standard_input(
    call: Call, write: Write, tmp_path: Path
) -> None:
    message = tmp_path / "message"
    message.write_text("one two three\n")
    file = write(TREE)
    assert call("run", "-q", file, "-f", message).out == "3 words\n"
    assert call("run", "-q", file, "-f", "-", stdin=b"one two").out == "2 words\n"
    assert call("run", "-q", file, "-", stdin=b"one").out == "1 words\n"


def test_state_session_and_user_reach_the_run(call: Call, write: Write) -> None:
    options = ["--state", "a=[1]", "--state", "app:b=x", "--state", "user:c={}"]
    ended = call("run", "-q", write(STATE), *options, "--session", "s1", "--user", "ann")
    assert ended.out == "ann s1 {'a': [1], 'app:b': 'x', 'user:c': {}}\n"


def test_artifacts_are_kept_in_the_folder(call: Call, write: Write, tmp_path: Path) -> None:
    source = """
        @agent
        async def saves(ctx):
            for text in ("draft", "final"):
                await ctx.save_artifact("report.md", text)
    """
    folder = tmp_path / "kept"
    ended = call("run", write(source), "--artifacts", folder)
    said, _, path = ended.err.splitlines()[-1].partition(": ")
    assert said == "saved report.md (version 1)"
    assert Path(path).is_relative_to(folder)
    assert Path(path).read_text() == "final"
    assert {file.read_text() for file in folder.rglob("report.md")} == {"draft", "final"}


def test_a_run_that_saved_nothing_says_so(call: Call, write: Write, tmp_path: Path) -> None:
    ended = call("run", write(STATE), "--artifacts", tmp_path / "kept")
    assert "no artifact was saved" in ended.err


# ------------------------------------------------------------------------------- how it ended


@pytest.mark.parametrize("mode", ["--plain", "--json", "--quiet", "--live"])
def test_a_failure_is_told_in_short_and_by_the_exit_status(
    call: Call, write: Write, mode: str
) -> None:
    ended = call("run", mode, write(FAILS))
    first, place, last = ended.err.splitlines()
    assert first == "failed: ValueError: no \\x1b[31mluck"
    assert place.startswith("    in ")
    assert ".py:" in place
    assert "--traceback" in place
    assert last == "    raised by agent line/fails"
    assert ended.status == 1
    assert mode != "--quiet" or ended.out == ""


def test_the_traceback_is_told_when_asked_for(call: Call, write: Write) -> None:
    ended = call("run", write(FAILS), "--traceback")
    assert 'raise ValueError("no' in ended.err
    assert ended.err.splitlines()[0].startswith("failed: ValueError")
    assert "\x1b" not in ended.err


@pytest.mark.parametrize("error", ["SystemExit(0)", "KeyboardInterrupt"])
def test_an_agent_that_ends_the_program_has_failed(call: Call, write: Write, error: str) -> None:
    ended = call("run", write(f"@agent\nasync def ends(ctx): raise {error}"))
    assert ended.status == 1
    assert f"failed: {error.partition('(')[0]}" in ended.err


def test_ctrl_c_cancels_and_what_clean_up_records_is_printed(call: Call, write: Write) -> None:
    ended = call("run", write(TIDY.format(then="signal.raise_signal(signal.SIGINT)")))
    assert rows(ended.out) == [["-", "tidy", "begun"], ["-", "tidy", "tidied up"]]
    assert ended.err.splitlines() == [
        "cancelling: Ctrl-C (Ctrl-C now ends at once)",
        "still cleaning up: line/tidy",
        "cancelled: Ctrl-C (2 events, 3.0 s)",
    ]
    assert ended.status == 130


def test_sigterm_is_a_first_ctrl_c_with_a_status_of_its_own(call: Call, write: Write) -> None:
    ended = call("run", write(TIDY.format(then="signal.raise_signal(signal.SIGTERM)")))
    assert ended.out.endswith("tidied up\n")
    assert ended.err.splitlines()[-1] == "cancelled: SIGTERM (2 events, 3.0 s)"
    assert ended.status == 143


def test_a_time_limit_that_passes_after_ctrl_c_changes_nothing(call: Call, write: Write) -> None:
    file = write(TIDY.format(then="signal.raise_signal(signal.SIGINT)"))
    ended = call("run", file, "--timeout", "1")
    assert ended.err.splitlines()[-1] == "cancelled: Ctrl-C (2 events, 3.0 s)"
    assert ended.status == 130


def test_signals_are_handled_as_before_afterwards(call: Call, write: Write) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    call("run", write(TREE))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_live_tree_shows_who_cleans_up(call: Call, write: Write) -> None:
    ended = call("run", "--live", write(TIDY.format(then="signal.raise_signal(signal.SIGINT)")))
    assert "⊘ tidy" in re.sub(r"\x1b\[[0-9;]*m", "", ended.out)
    assert ended.out.rstrip("\n").endswith("\x1b[?25h")
    assert (ended.err, ended.status) == ("cancelled: Ctrl-C (2 events, 3.0 s)\n", 130)


def test_who_still_cleans_up_is_told_again_when_that_changes(call: Call, write: Write) -> None:
    source = """
        def slow(seconds):
            @agent(name=f"slow{seconds}")
            async def run(ctx):
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.CancelScope(shield=True):
                        await trio.sleep(seconds)
            return run
        tree = ParallelAgent("fan", [slow(seconds) for seconds in (2, 20, 21)])
    """
    ended = call("run", write(source), "--timeout", "5")
    assert ended.err.splitlines() == [
        "cancelling: the time limit of 5 s (Ctrl-C now ends at once)",
        "still cleaning up: fan/slow2, fan/slow20, fan/slow21",
        "still cleaning up: fan/slow20, fan/slow21",
        "still cleaning up: fan/slow21",
        "cancelled: the time limit of 5 s (0 events, 26.0 s)",
    ]
    assert ended.status == 124


def test_a_run_that_ends_in_time_is_not_cancelled(call: Call, write: Write) -> None:
    assert call("run", write(TREE), "--timeout", "5").status == 0


def test_a_failure_in_clean_up_is_a_failure(call: Call, write: Write) -> None:
    source = """
        @agent
        async def clumsy(ctx):
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("in cleaning up")
    """
    ended = call("run", write(source), "--timeout", "1")
    assert ended.status == 1
    assert "failed: ValueError: in cleaning up" in ended.err


def test_a_run_that_waits_for_an_answer_has_a_status_of_its_own() -> None:
    class Waiting(Ended):
        @property
        def status(self) -> Status:
            return Status.WAITING

    waiting = Waiting(
        result=None, error=None, reason=None, signal=None, timed_out=False, duration=0.0
    )
    assert exit_status(waiting) == 3


# ------------------------------------------------------------------------- what cannot be started


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing argument 'TARGET'"),
        (["missing.py"], "missing.py does not exist"),
        (["{tree}", "message", "-f", "file"], "not both"),
        (["{tree}", "-f", "no\x1bfile"], "-f no\\x1bfile: No such file"),
        (["{tree}", "--state", "a"], "--state takes key=value"),
        (["{tree}", "--json", "--quiet"], "--json and --quiet exclude each other"),
        (["{tree}", "--live", "--plain"], "--live and --plain exclude each other"),
        (["{tree}", "--timeout", "0"], "--timeout takes seconds, more than 0"),
        (["{tree}", "--timeout", "nan"], "--timeout takes seconds, more than 0"),
        (["{tree}", "--timeout", "soon"], "'soon' is not a valid float"),
        (["{tree}", "--session", ""], "--session is empty"),
        (["{tree}", "--user", "\udc80"], "--user is no text in UTF-8"),
        (["{tree}", "--artifacts", "{tree}"], "--artifacts: "),
        (["{tree}", "--no-such-option"], "No such option"),
    ],
)
def test_what_cannot_be_started_says_why_and_runs_nothing(
    call: Call, write: Write, arguments: list[str], words: str
) -> None:
    tree = str(write("@agent\nasync def runs(ctx): print('it ran')"))
    ended = call("run", *[word.replace("{tree}", tree) for word in arguments])
    assert words in ended.err
    assert (ended.out, ended.status) == ("", 2)
    assert "Traceback" not in ended.err


def test_an_error_of_the_users_own_comes_with_its_traceback(call: Call, write: Write) -> None:
    for command in ("run", "tree"):
        ended = call(command, write("1 / 0"))
        assert ended.status == 2
        assert "ZeroDivisionError" in ended.err
        assert "parallel_agent" not in ended.err.replace("from parallel_agent", "")
        assert ended.err.splitlines()[-1].endswith("cannot be imported")


def test_ctrl_c_before_the_run_ends_quietly(call: Call, write: Write) -> None:
    ended = call("run", write("raise KeyboardInterrupt"))
    assert (ended.out, ended.err, ended.status) == ("", "", 130)


@pytest.mark.parametrize("moment", ["Codec", "StoredForm.ended"])
def test_ctrl_c_between_import_and_run_or_after_it_ends_quietly(
    call: Call, write: Write, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"parallel_agent.cli.show.{moment}", interrupted)
    ended = call("run", "--json", write("@agent\nasync def silent(ctx): pass"))
    assert (ended.out, ended.err, ended.status) == ("", "", 130)


# ----------------------------------------------------------------------------- the other commands


def test_tree_shows_the_tree_and_runs_nothing(call: Call, write: Write) -> None:
    ended = call("tree", write(TREE))
    assert ended.out.splitlines() == [
        "line           sequential",
        "├── fan        parallel",
        "│   └── words  function -> words",
        "└── report     function",
    ]
    assert (ended.err, ended.status) == ("", 0)


SESSIONS: Final = [["sessions", *word.split()] for word in ("", "list", "show", "export", "delete")]


@pytest.mark.parametrize("command", [[], ["run"], ["tree"], ["resume"], ["respond"], *SESSIONS])
def test_help_teaches_by_example(call: Call, command: list[str]) -> None:
    for option in ("-h", "--help"):
        ended = call(*command, option)
        examples = [
            line
            for line in ended.out.splitlines()
            if line.startswith("    ") and "parallel-agent" in line
        ]
        assert (len(examples) >= 4, ended.status) == (True, 0)
        # click folds what is not told to stay as it is.
        assert all(len(line.split("parallel-agent")) == 2 for line in examples)


def test_the_version_is_that_of_the_package(call: Call) -> None:
    words = call("--version").out.split()
    assert words[:2] == ["parallel-agent,", "version"]


@pytest.mark.parametrize("name", ["run", "resume", "respond"])
def test_every_option_has_help(name: str) -> None:
    command = cli.commands[name]
    assert [option.name for option in command.params if option.param_type_name == "option"
            and not getattr(option, "help", None)] == []  # fmt: skip


def test_the_script_is_installed() -> None:
    (script,) = entry_points(group="console_scripts", name="parallel-agent")
    assert script.value == "parallel_agent.cli:main"
