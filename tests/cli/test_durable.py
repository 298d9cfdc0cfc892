"""``run --db``, ``resume`` and ``respond``: runs that outlive the command that began them."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from threading import Thread
from typing import Final, TypeAlias

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import InvocationContext, RunConfig, Runner, agent
from parallel_agent.cli.running import OutputClosedError, _Execution
from parallel_agent.cli.store import Again, Database
from parallel_agent.cli.unfinished import waiting
from session import Lease, SessionBusyError
from session.database import DatabaseSessionService
from session.lease import Unfinished
from tests.cli.kit import HOSTILE, Call, Called, Write, acts

ASKS: Final = """
    @agent
    async def first(ctx):
        yield "one"

    @agent
    async def ask(ctx):
        yield f"ship: {await ctx.request_input('Ship it?', schema=bool)}"

    @agent
    async def last(ctx):
        yield f"then: {await ctx.request_input('And then?')}"

    tree = SequentialAgent("line", [first, ask, last])
"""

# Ctrl-C comes when `slow` has said something, but for the first time only.
CUT: Final = """
    import pathlib
    begun = pathlib.Path(__file__).with_name("begun")

    @agent
    async def first(ctx):
        yield "one"

    @agent
    async def slow(ctx):
        try:
            yield "two"
            if not begun.exists():
                begun.touch()
                {stop}
                await trio.sleep_forever()
            ctx.state["key"] = "value"
            yield "three"
        finally:
            if not begun.read_text():
                begun.write_text("done")
                with trio.CancelScope(shield=True):
                    await ctx.emit("tidied up")

    tree = SequentialAgent("cut", [first, slow])
"""
WhenBusy: TypeAlias = Callable[..., None]

INTERRUPTED: Final = CUT.format(stop="signal.raise_signal(signal.SIGINT)")


def texts(called: Called) -> list[str]:
    return [line.split(maxsplit=2)[2] for line in called.out.splitlines()]


def command_in(text: str) -> list[str]:
    """The words of the command that is to be typed."""
    (found,) = re.findall(r"parallel-agent (.*)", text)
    return shlex.split(found)


# ------------------------------------------------------------------------- the session is kept


def test_a_later_command_finds_what_an_earlier_one_wrote(durable: Call, write: Write) -> None:
    source = """
        @agent(output_key="visits")
        async def count(ctx):
            return ctx.state.get("visits", 0) + 1
    """
    file = write(source)
    said = [texts(durable("run", file, "--session", "s1")) for _ in range(2)]
    assert said == [["(output 1; state visits)"], ["(output 2; state visits)"]]


def test_a_new_session_is_named_before_anything_runs(durable: Call, write: Write) -> None:
    ended = durable("run", write("@agent\nasync def tell(ctx): raise ValueError"))
    first, second, *_ = ended.err.splitlines()
    assert re.fullmatch(r"session [0-9a-f-]{36}", first)
    assert second == "failed: ValueError"


def test_quiet_names_no_session(durable: Call, write: Write) -> None:
    ended = durable("run", "-q", write("@agent\nasync def tell(ctx): return 'so'"))
    assert (ended.out, ended.err) == ("so\n", "")


# --------------------------------------------------------------------------- cut off, and resumed


def test_ctrl_c_says_how_to_go_on_and_what_clean_up_recorded_is_printed(
    durable: Call, write: Write
) -> None:
    file = write(INTERRUPTED)
    ended = durable("run", file, "--session", "s1")
    assert texts(ended) == ["one", "two", "tidied up"]
    assert ended.err.splitlines() == [
        "cancelling: Ctrl-C (Ctrl-C now ends at once)",
        "cancelled: Ctrl-C (3 events, 0.0 s)",
        f"it is unfinished; to go on with it: parallel-agent resume {file} --session s1",
    ]
    assert ended.status == 130


def test_the_command_that_is_told_goes_on_where_it_was_cut_off(
    durable: Call, write: Write, db: Path
) -> None:
    cut = durable("run", write(INTERRUPTED), "--user", "ann", "--app", "my app")
    ended = durable(*command_in(cut.err))
    assert texts(ended) == ["two", "three"]
    assert (ended.err, ended.status) == ("completed (3 events, 0.0 s)\n", 0)


@pytest.mark.parametrize("mode", ["--quiet", "--live", "--json"])
def test_however_it_is_shown_ctrl_c_leaves_it_to_be_resumed(
    durable: Call, write: Write, mode: str
) -> None:
    file = write(INTERRUPTED)
    cut = durable("run", file, mode)
    assert cut.status == 130
    assert "it is unfinished; to go on with it: parallel-agent resume" in cut.err
    ended = durable("resume", file, "-q")
    assert (ended.out, ended.status) == ("three\n", 0)


def test_a_time_limit_leaves_it_to_be_resumed(durable: Call, write: Write) -> None:
    file = write(CUT.format(stop="trio.lowlevel.current_clock().jump(3600)"))
    cut = durable("run", file, "--timeout", "3600", "-q")
    assert cut.status == 124
    assert durable("resume", file, "-q").out == "three\n"


def test_what_was_resumed_to_its_end_cannot_be_resumed_again(durable: Call, write: Write) -> None:
    file = write(INTERRUPTED)
    durable("run", file)
    assert durable("resume", file).status == 0
    ended = durable("resume", file)
    assert ended.err == (
        "Error: there is nothing to resume: application cut has no unfinished run\n"
    )
    assert (ended.out, ended.status) == ("", 2)


def test_a_run_that_failed_has_nothing_to_resume(durable: Call, write: Write) -> None:
    file = write("@agent\nasync def fails(ctx): raise ValueError('no luck')")
    ended = durable("run", file)
    assert "to go on" not in ended.err
    assert durable("resume", file).status == 2


def test_a_new_run_of_the_session_says_that_it_ends_the_unfinished_one(
    durable: Call, write: Write
) -> None:
    file = write(ASKS)
    durable("run", file, "--session", "s1")
    ended = durable("run", file, "--session", "s1")
    assert "of this session was unfinished; now it is over\n" in ended.err
    # Only one is left, that of the second command.
    assert durable("resume", file).status == 3


def test_output_that_nobody_reads_leaves_it_to_be_resumed(
    durable: Call, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(ASKS)

    def closed(*_args: object) -> None:
        raise OutputClosedError

    with monkeypatch.context() as patch:
        patch.setattr("parallel_agent.cli.show.Lines.event", closed)
        cut = durable("run", file, "--session", "s1")
    first, second = cut.err.splitlines()
    assert first.startswith("cancelled: nobody reads its output any more (")
    assert second.endswith(f"parallel-agent resume {file} --session s1")
    assert cut.status == 141
    assert "asks: Ship it?" in durable("resume", file).err


def test_several_unfinished_runs_are_listed_and_none_is_resumed(
    durable: Call, write: Write
) -> None:
    file = write(ASKS)
    for session, user in (("s1", "ann"), ("s2", "bob"), ("s2", "cas")):
        durable("run", file, "--session", session, "--user", user)
    ended = durable("resume", file)
    listed = [line.split()[:4] for line in ended.err.splitlines()[1:]]
    assert listed == [
        ["--session", "s1", "--user", "ann"],
        ["--session", "s2", "--user", "bob"],
        ["--session", "s2", "--user", "cas"],
    ]
    assert (ended.out, ended.status) == ("", 2)
    assert durable("resume", file, "--session", "s1").status == 3
    assert durable("resume", file, "--session", "s2").status == 2
    assert durable("resume", file, "--session", "s2", "--user", "cas").status == 3


def test_another_tree_does_not_go_on_and_the_difference_is_shown(
    durable: Call, write: Write
) -> None:
    durable("run", write(ASKS))
    ended = durable("resume", write(ASKS.replace("[first, ask, last]", "[last, first, ask]")))
    assert (ended.out, ended.status) == ("", 2)
    assert "is of another tree (- as recorded, + as it is now)" in ended.err
    changed = {line[:1] for line in ended.err.splitlines() if "last" in line}
    assert changed == {"-", "+"}


# -------------------------------------------------------------------------------------- questions


def test_a_run_that_waits_says_which_command_answers_and_that_command_does(
    durable: Call, write: Write
) -> None:
    waits = durable("run", write(ASKS))
    assert waits.status == 3
    assert "line/ask asks: Ship it? (yes or no): parallel-agent respond " in waits.err
    *words, placeholder = command_in(waits.err)
    assert placeholder == "ANSWER"
    next_one = durable(*words, "yes")
    assert texts(next_one) == ["ship: True", "(asks: And then?)"]
    *words, _ = command_in(next_one.err)
    ended = durable(*words, "tea")
    assert (texts(ended), ended.status) == (["then: tea"], 0)


def test_answers_to_several_questions_are_used_in_turn(durable: Call, write: Write) -> None:
    file = write(ASKS)
    durable("run", file)
    ended = durable("resume", file, "-q", "--respond", "ask=no", "--respond", "last=tea")
    assert (ended.out, ended.err, ended.status) == ("then: tea\n", "", 0)


def test_an_answer_that_does_not_fit_is_told_and_the_question_stays_open(
    durable: Call, write: Write
) -> None:
    file = write(ASKS)
    durable("run", file)
    ended = durable("respond", file, "ask", "maybe")
    assert ended.status == 3
    assert "(not true or false is needed, not 'maybe'): parallel-agent respond" in ended.err
    assert "ship: True" in durable("respond", file, "ask", "yes").out


def test_an_answer_to_no_open_question_begins_nothing(durable: Call, write: Write) -> None:
    file = write(ASKS)
    durable("run", file)
    ended = durable("respond", file, "last", "tea")
    assert ended.err == "Error: no open question is called 'last' (open: 'line/ask#1')\n"
    assert (ended.out, ended.status) == ("", 2)


def test_an_answer_that_no_question_has_used_is_told_after_a_resumption(
    durable: Call, write: Write
) -> None:
    file = write(ASKS)
    durable("run", file)
    ended = durable("resume", file, "--respond", "nobody=1")
    assert ended.status == 3
    assert (
        "--respond nobody: no question has used it (the questions were 'line/ask#1')" in ended.err
    )


def test_without_an_answer_it_goes_on_waiting_and_says_so_again(
    durable: Call, write: Write
) -> None:
    file = write(ASKS)
    first = durable("run", file, "--session", "s1")
    again = durable("resume", file, "--session", "s1")
    assert (again.out, again.status) == ("", 3)
    assert command_in(again.err) == command_in(first.err)


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sit at a terminal, and type these lines."""
    lines = list[str]()
    monkeypatch.setattr("parallel_agent.cli.conduct._reader", lambda _mode: lambda: lines.pop(0))
    return lines


def test_suspend_asks_nobody_even_on_a_terminal(
    durable: Call, write: Write, person: list[str]
) -> None:
    person += ["yes\n", "tea\n"]
    file = write(ASKS)
    assert durable("run", file, "--suspend").status == 3
    assert person == ["yes\n", "tea\n"]
    assert durable("run", file).status == 0
    assert person == []


def test_what_waits_is_asked_on_the_terminal_where_it_is_resumed(
    durable: Call, write: Write, person: list[str]
) -> None:
    file = write(ASKS)
    durable("run", file, "--suspend")
    person += ["no\n", "tea\n"]
    ended = durable("resume", file)
    assert texts(ended)[-1] == "then: tea"
    assert "line/ask asks: Ship it? (yes or no)\n" in ended.err
    assert ended.status == 0


async def test_a_run_goes_on_as_it_was_begun_however_long_its_log_is(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @agent
    async def ask(ctx: InvocationContext) -> AsyncIterator[str]:
        for number in range(9):
            yield str(number)
        await ctx.request_input("Well?")

    config = RunConfig(inbox_size=7, on_wait="suspend")
    monkeypatch.setattr("parallel_agent.cli.unfinished._PAGE", 2)
    async with DatabaseSessionService(db) as service:
        runner = Runner(ask, session_service=service, resumable=True)
        for _ in range(2):
            await runner.run(session_id="s1", run_config=config)
        (run,) = await runner.unfinished()
        found = await waiting(service, run)
    assert found.config == config
    assert found.ids == [f"{run.run_id}:ask#1"]


# ------------------------------------------------------------------------------ what cannot be done


def test_the_extra_that_is_missing_is_named(
    durable: Call, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if f"{name}.".startswith("session.database.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    ended = durable("run", write("@agent\nasync def tell(ctx): print('it ran')"))
    assert "pip install 'parallel-agent[sql]'" in ended.err
    assert (ended.out, ended.status) == ("", 2)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://me:secret@host/db", "there is no session store for 'mysql'"),
        ("postgresql://me:secret@127.0.0.1:1/db", "it cannot be reached"),
        ("{tmp}/no/such/folder/x.db", "x.db"),
        ("{tmp}/damaged.db", "damaged.db"),
        ("", "--db is empty"),
    ],
)
def test_a_database_that_is_none_is_told_without_its_password(
    call: Call, write: Write, tmp_path: Path, url: str, words: str
) -> None:
    (tmp_path / "damaged.db").write_bytes(b"no database, " * 100)
    file = write("@agent\nasync def tell(ctx): print('it ran')")
    ended = call("run", file, "--db", url.replace("{tmp}", str(tmp_path)))
    assert words in ended.err
    assert "secret" not in ended.err
    assert "Traceback" not in ended.err
    assert (ended.out, ended.status) == ("", 2)


@pytest.mark.parametrize("command", ["resume", "respond"])
def test_a_file_that_is_not_there_is_not_made_to_resume_from(
    durable: Call, write: Write, db: Path, command: str
) -> None:
    db.unlink()
    ended = durable(command, write(ASKS), *(["ask", "yes"] if command == "respond" else []))
    assert f"there is no file {db}" in ended.err
    assert (ended.status, db.exists()) == (2, False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resume", "{tree}"], "Missing option '--db'"),
        (["respond", "{tree}", "ask", "yes"], "Missing option '--db'"),
        (["run", "{tree}", "--suspend"], "--suspend needs --db"),
        (["run", "{tree}", "--on-busy", "queue"], "--on-busy needs --db"),
        (["run", "{tree}", "--lease", "1"], "--lease needs --db"),
        (["run", "{tree}", "--db", "{db}", "--lease", "0"], "--lease takes seconds, more than 0"),
        (["run", "{tree}", "--db", "{db}", "--on-busy", "wait"], "'wait' is not one of"),
        (["run", "{tree}", "--db", "{db}", "--app", ""], "--app is empty"),
        (["respond", "{tree}", "", "yes", "--db", "{db}"], "REQUEST is empty"),
    ],
)
def test_what_cannot_be_asked_for_says_why_and_runs_nothing(
    call: Call, write: Write, db: Path, arguments: list[str], words: str
) -> None:
    tree = str(write("@agent\nasync def runs(ctx): print('it ran')"))
    ended = call(*[word.format(tree=tree, db=db) for word in arguments])
    assert words in ended.err
    assert (ended.out, ended.status) == ("", 2)


# ----------------------------------------------------------------------------- whose session it is


async def hold(db: Path, app_name: str = "tell") -> Lease:
    """Let another process hold session s1."""
    async with DatabaseSessionService(db, lease_seconds=600) as service:
        key = (await service.create(app_name=app_name, user_id="user", session_id="s1")).key
        return await service.acquire(key, run_id="r1", owner="worker 7", resumable=True)


@pytest.fixture
def when_busy(db: Path, monkeypatch: pytest.MonkeyPatch) -> WhenBusy:
    """Let the other process give its lease back as soon as a command says that it waits for it."""

    def when_busy(lease: Lease, unfinished: Unfinished | None = None) -> None:
        async def release() -> None:
            async with DatabaseSessionService(db) as service:
                await service.release(lease, unfinished=unfinished)

        def note(self: _Execution, error: SessionBusyError) -> None:
            said(self, error)
            process = Thread(target=trio.run, args=[release])
            process.start()
            process.join()

        said = _Execution._note_busy
        monkeypatch.setattr(_Execution, "_note_busy", note)

    return when_busy


TELL: Final = "@agent\nasync def tell(ctx): return 'so'"


def test_a_session_that_is_busy_is_told_with_its_owner(
    durable: Call, write: Write, db: Path
) -> None:
    trio.run(hold, db)
    ended = durable("run", write(TELL), "--session", "s1")
    assert ended.err.startswith("Error: session s1 is busy: run r1 of worker 7 is writing to it.")
    assert (ended.out, ended.status) == ("", 2)


def test_a_run_that_a_process_is_at_is_passed_over_until_it_is_the_only_one(
    durable: Call, write: Write, db: Path
) -> None:
    trio.run(hold, db, "line")
    file = write(ASKS)
    durable("run", file, "--session", "s2")
    assert durable("resume", file).err.startswith("session s2 (waiting)\n")
    assert durable("resume", file, "--respond", "ask=no", "--respond", "last=tea").status == 0
    ended = durable("resume", file)
    assert ended.err.startswith("Error: session s1 is busy: run r1 of worker 7 is writing to it.")
    assert ended.status == 2


@pytest.mark.parametrize("way", ["queue", "interrupt"])
def test_who_waits_for_a_session_says_for_whom_and_has_it_at_last(
    call: Call, write: Write, db: Path, when_busy: WhenBusy, way: str
) -> None:
    when_busy(trio.run(hold, db))
    ended = call("run", write(TELL), "--db", db, "--session", "s1", "--on-busy", way)
    first, last = ended.err.splitlines()
    assert first == "session s1 is busy: waiting for the end of run r1 of worker 7"
    assert last.startswith("completed")
    assert ended.status == 0


def test_answers_are_kept_while_a_process_is_at_the_run(
    call: Call, write: Write, db: Path, when_busy: WhenBusy
) -> None:
    async def take() -> Lease:
        async with DatabaseSessionService(db, lease_seconds=600) as service:
            (run,) = await service.unfinished(app_name="line")
            return await service.acquire(
                run.key, run_id=run.run_id, owner="worker 7", resumable=True
            )

    file = write(ASKS)
    call("run", file, "--db", db)
    when_busy(trio.run(take), "interrupted")
    answers = ("--respond", "ask=yes", "--respond", "last=tea")
    ended = call("resume", file, "--db", db, "--on-busy", "queue", *answers)
    assert " is busy: waiting for the end of run " in ended.err
    assert (texts(ended)[-1], ended.status) == ("then: tea", 0)


def test_who_waits_to_resume_is_told_if_the_run_has_come_to_its_end(
    call: Call, write: Write, db: Path, when_busy: WhenBusy
) -> None:
    when_busy(trio.run(hold, db, "line"))
    ended = call("resume", write(ASKS), "--db", db, "--on-busy", "queue")
    assert ended.err.splitlines() == [
        "session s1 is busy: waiting for the end of run r1 of worker 7",
        "Error: nothing is left to resume: the process that was at it has ended it",
    ]
    assert ended.status == 2


# ----------------------------------------------------------------------------- commands to be typed

WORDS: Final = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1)


@given(target=WORDS, url=WORDS, session=WORDS, user=WORDS, app=WORDS, request=WORDS)
def test_a_shell_reads_the_words_that_are_meant(
    *, target: str, url: str, session: str, user: str, app: str, request: str
) -> None:
    again = Again(target, Database(f"{url}.db"), app)
    words = shlex.split(again.respond(session, user, request))
    assert words[:3] == ["parallel-agent", "respond", target]
    options = dict(zip(words[3:-2:2], words[4:-2:2], strict=True))
    whose = {} if user == "user" else {"--user": user}
    assert options == {"--db": f"{url}.db", "--session": session, **whose, "--app": app}
    assert words[-2:] == [request, "ANSWER"]


@given(text=HOSTILE)
def test_a_command_to_be_typed_does_not_act_on_the_terminal(text: str) -> None:
    again = Again(text, Database(text), text, text)
    assert not any(acts(letter) and letter not in "\n\t" for letter in again.resume(text, text))


def test_a_password_is_in_no_command() -> None:
    shown = Again("t.py", Database("postgresql://me:se@cr:et@host:5/db")).resume("s", "user")
    assert "--db 'postgresql://me:***@host:5/db'" in shown
