"""``parallel-agent sessions``: what is in a database, without any tree."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent.cli.describe import time_text
from parallel_agent.cli.sessions import _HEAD, _as_json, _table
from session import Codec, SessionInfo, SessionKey, UnfinishedRun
from session.database import DatabaseSessionService
from tests.cli.kit import HOSTILE, Call, Write, acts

TREE: Final = """
    @agent
    async def first(ctx):
        yield "one"

    @agent
    async def ask(ctx):
        yield f"ship: {await ctx.request_input('Ship it?', schema=bool)}"

    tree = SequentialAgent("line", [first, ask])
"""


def rows(out: str) -> list[list[str]]:
    return [re.split(r"  +", line) for line in out.splitlines()]


def fill(db: Path, *keys: tuple[str, str, str]) -> None:
    """Make sessions without events."""

    async def make() -> None:
        async with DatabaseSessionService(db) as service, trio.open_nursery() as nursery:
            for key in keys:
                app, user, session = key
                create = partial(service.create, app_name=app, user_id=user, session_id=session)
                nursery.start_soon(create)

    trio.run(make)


# ------------------------------------------------------------------------------------------- list


def test_the_sessions_of_all_applications_are_listed_in_order(durable: Call, db: Path) -> None:
    keys = [("b", "ann", "s1"), ("a", "bob", "s2"), ("a", "ann", "s3"), ("a", "ann", "s1")]
    fill(db, *keys)
    head, *found = rows(durable("sessions", "list").out)
    assert head == [*_HEAD]
    assert [tuple(row[:3]) for row in found] == sorted(keys)
    assert {row[3] for row in found} == {"0"}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--app", "a"], ["s1", "s2"]),
        (["--user", "ann"], ["s1", "s3"]),
        (["--app", "a", "--user", "bob"], ["s2"]),
        (["--app", "nobody"], []),
    ],
)
def test_a_list_can_be_of_one_application_or_user(
    durable: Call, db: Path, options: list[str], found: list[str]
) -> None:
    fill(db, ("a", "ann", "s1"), ("a", "bob", "s2"), ("b", "ann", "s3"))
    assert [row[2] for row in rows(durable("sessions", "list", *options).out)[1:]] == found


def test_a_list_says_how_a_run_that_did_not_end_stands(durable: Call, write: Write) -> None:
    file = write(TREE)
    durable("run", file, "--session", "waits")
    durable("run", file, "--session", "done", "--respond", "ask=yes")
    whole = {row[2]: row[5:] for row in rows(durable("sessions", "list").out)[1:]}
    assert whole == {"waits": ["waiting"], "done": []}
    assert [row[2] for row in rows(durable("sessions", "list", "--unfinished").out)[1:]] == [
        "waits"
    ]


def test_every_page_of_a_long_list_is_printed(
    durable: Call, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parallel_agent.cli.sessions._PAGE", 3)
    for count in (6, 7):
        fill(db, *(("a", f"user{count}", f"s{number}") for number in range(count)))
    lines = durable("sessions", "list", "--json").out.splitlines()
    assert len({line["userId"] + line["sessionId"] for line in map(json.loads, lines)}) == 13
    assert len(lines) == 13


def test_a_list_in_json_is_an_object_a_line(durable: Call, db: Path) -> None:
    fill(db, ("a\x00\x01", "ann", "\x1b[2J"))
    ended = durable("sessions", "list", "--json")
    assert "\x1b" not in ended.out
    line = json.loads(ended.out)
    assert line["lastUpdateTime"] > 0
    del line["lastUpdateTime"]
    assert line == {
        "appName": "a\x00\x01",
        "userId": "ann",
        "sessionId": "\x1b[2J",
        "lastSeq": 0,
        "unfinished": None,
    }


# No lone surrogates: no name holds one.
NAMES: Final = HOSTILE.map(lambda text: "n" + re.sub("[\ud800-\udfff]", "", text))


@given(names=st.lists(st.tuples(NAMES, NAMES, NAMES), min_size=1, max_size=3), time=st.floats())
def test_a_name_or_time_from_elsewhere_does_not_act_on_the_terminal(
    names: list[tuple[str, str, str]], time: float
) -> None:
    listed = [
        (
            SessionInfo(SessionKey(*name), 1, time),
            UnfinishedRun(SessionKey(*name), "r", "waiting", None, time),
        )
        for name in names
    ]
    lines = [*_table([_HEAD], listed), *(_as_json(*one) for one in listed)]
    assert not any(acts(letter) for line in lines for letter in line)
    assert len(lines) == 1 + 2 * len(names)


@given(time=st.floats())
def test_any_time_can_be_told(time: float) -> None:
    assert time_text(time)


# ------------------------------------------------------------------------------------------- show


def test_show_prints_what_the_run_printed_and_what_the_user_said(
    durable: Call, write: Write
) -> None:
    ran = durable("run", write(TREE), "hello", "--session", "s1")
    shown = durable("sessions", "show", "s1")
    first, *others = shown.out.splitlines()
    assert first.split() == ["-", "user", "hello"]
    assert others == ran.out.splitlines()
    assert re.fullmatch(
        r"line/user/s1: \d+ events recorded, .*, run [0-9a-f-]+ is waiting\n", shown.err
    )


def test_show_in_json_is_what_the_codec_reads(durable: Call, write: Write) -> None:
    durable("run", write(TREE), "hello", "--session", "s1")
    lines = durable("sessions", "show", "s1", "--json").out.splitlines()
    assert [Codec().loads(line).text for line in lines] == ["hello", "one", ""]


def test_only_the_last_events_are_shown_when_asked_for(durable: Call, write: Write) -> None:
    file = write("@agent\nasync def tell(ctx):\n    for n in range(5): yield str(n)")
    durable("run", file, "--session", "s1")
    whole = durable("sessions", "show", "s1").out.splitlines()
    # The records count, and are not shown: what comes last is the end of `tell`.
    assert durable("sessions", "show", "s1", "--last", "3").out.splitlines() == whole[-2:]
    assert durable("sessions", "show", "s1", "--last", "100").out.splitlines() == whole


@pytest.mark.parametrize("command", ["show", "export", "delete"])
def test_a_session_that_is_not_there_or_not_the_only_one_is_told(
    durable: Call, db: Path, command: str
) -> None:
    fill(db, ("a", "ann", "s1"), ("a", "bob", "s1"), ("b", "ann", "s1"))
    missing = durable("sessions", command, "s2", "--app", "a")
    assert missing.err == "Error: there is no session s2 of application a\n"
    several = durable("sessions", command, "s1")
    assert several.err.splitlines() == [
        "Error: there are several sessions s1. Say which one:",
        "  --app a --user ann",
        "  --app a --user bob",
        "  --app b --user ann",
    ]
    assert (missing.out, missing.status, several.out, several.status) == ("", 2, "", 2)


# ------------------------------------------------------------------------- export, import, delete

STRANGE: Final = """
    @agent
    async def tell(ctx):
        ctx.state["key"] = [1, {"a": None}]
        yield "one\\x1b two\\u2028three\\x85four\\r\\n\\U0001f600 five"
"""


@pytest.mark.parametrize("way", ["a pipe", "a file"])
def test_what_was_exported_and_imported_is_the_same_session(
    durable: Call, write: Write, tmp_path: Path, way: str
) -> None:
    durable("run", write(STRANGE), "hello", "--session", "s1")
    file, other = tmp_path / "s1.jsonl", tmp_path / "other.db"
    if way == "a file":
        durable("sessions", "export", "s1", "-o", file)
        ended = durable("sessions", "import", file, "--db", other)
    else:
        lines = durable("sessions", "export", "s1").out.encode()
        ended = durable("sessions", "import", "--db", other, stdin=lines)
    assert (ended.out, ended.err, ended.status) == ("tell/user/s1\n", "", 0)
    exported = [
        durable("sessions", "export", "s1", "--db", db).out
        for db in (other, tmp_path / "sessions.db")
    ]
    assert exported[0] == exported[1]
    assert "four" in durable("sessions", "show", "s1", "--db", other).out


def test_nothing_is_left_beside_an_export_that_is_a_file(
    durable: Call, db: Path, tmp_path: Path
) -> None:
    fill(db, ("a", "ann", "s1"))
    folder = tmp_path / "exports"
    folder.mkdir()
    (folder / "s1.jsonl").write_text("of yesterday")
    ended = durable("sessions", "export", "s1", "-o", folder / "s1.jsonl")
    assert (ended.out, ended.status) == ("", 0)
    assert [file.name for file in folder.iterdir()] == ["s1.jsonl"]
    assert json.loads((folder / "s1.jsonl").read_text())["sessionId"] == "s1"


def test_a_file_that_cannot_be_written_is_named(durable: Call, db: Path, tmp_path: Path) -> None:
    fill(db, ("a", "ann", "s1"))
    ended = durable("sessions", "export", "s1", "-o", tmp_path / "no" / "s1.jsonl")
    assert "s1.jsonl cannot be written: No such file or directory" in ended.err
    assert ended.status == 2


def test_a_damaged_export_is_refused_by_its_line_and_keeps_nothing(
    durable: Call, write: Write, db: Path, tmp_path: Path
) -> None:
    durable("run", write(STRANGE), "hello", "--session", "s1")
    head, first, *others = durable("sessions", "export", "s1").out.splitlines(keepends=True)
    durable("sessions", "delete", "s1", "--yes")
    damaged = {
        "line 1: this is no JSON": "no JSON\n",
        "line 1: this is no header of an export": first,
        "line 1: there is no header": "",
        "line 3: ": head + first + "{}\n",
        f"line {2 + len(others)}: the log ends at": head + first + "".join(others[:-1]),
    }
    for words, text in damaged.items():
        file = tmp_path / "damaged\x1b.jsonl"
        file.write_text(text, "utf-8")
        ended = durable("sessions", "import", file)
        assert "damaged\\x1b.jsonl is no whole export of a session: " + words in ended.err
        assert ended.status == 2
    assert durable("sessions", "list").out == ""


@pytest.mark.parametrize(
    ("file", "words"), [("missing", "missing cannot be read: No such file"), ("binary", "utf-8")]
)
def test_a_file_that_cannot_be_read_is_named(
    durable: Call, tmp_path: Path, file: str, words: str
) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    ended = durable("sessions", "import", tmp_path / file)
    assert words in ended.err
    assert (ended.out, ended.status) == ("", 2)


def test_an_import_overwrites_nothing(durable: Call, db: Path) -> None:
    fill(db, ("a", "ann", "s1"))
    ended = durable("sessions", "import", stdin=durable("sessions", "export", "s1").out.encode())
    assert ended.err == "Error: there is a session a/ann/s1 already: delete it first\n"
    assert ended.status == 2


@pytest.mark.parametrize(
    ("options", "typed", "status", "is_left"),
    [
        ([], b"y\n", 0, False),
        ([], b"n\n", 1, True),
        ([], b"\n", 1, True),
        ([], b"", 2, True),
        (["--yes"], b"", 0, False),
    ],
)
def test_a_session_is_deleted_when_somebody_has_said_yes(
    durable: Call, db: Path, *, options: list[str], typed: bytes, status: int, is_left: bool
) -> None:
    fill(db, ("a", "ann", "s1"))
    ended = durable("sessions", "delete", "s1", *options, stdin=typed)
    assert (ended.out, ended.status) == ("", status)
    assert ("a/ann/s1: 0 events recorded" in ended.err) is (not options)
    assert (durable("sessions", "list").out != "") is is_left


def test_only_an_import_makes_a_database(durable: Call, db: Path, tmp_path: Path) -> None:
    fill(db, ("a", "ann", "s1"))
    lines = durable("sessions", "export", "s1").out.encode()
    new = tmp_path / "new.db"
    for command in (["list"], ["show", "s1"], ["export", "s1"], ["delete", "s1", "-y"]):
        ended = durable("sessions", *command, "--db", new)
        assert f"there is no file {new}" in ended.err
        assert (ended.status, new.exists()) == (2, False)
    assert durable("sessions", "import", "--db", new, stdin=lines).status == 0
    assert new.exists()


@pytest.mark.parametrize("command", ["list", "show", "export", "delete"])
def test_an_empty_name_is_no_name(durable: Call, command: str) -> None:
    words = ["sessions", command, *([] if command == "list" else ["s1"])]
    for option in ("--app", "--user"):
        ended = durable(*words, option, "")
        assert f"{option} is empty" in ended.err
        assert ended.status == 2
