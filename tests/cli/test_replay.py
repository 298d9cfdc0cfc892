"""``parallel-agent replay``: what a log says, and the orders in which it could have come."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner, Result

from parallel_agent.cli import start
from parallel_agent.cli.replay import replay
from tests.cli.kit import Call, Write

WRITES: Final = """
    def writes(name, key):
        @agent(name=name)
        async def write(ctx):
            ctx.state[key] = name
            yield f"{name} says"
        return write

    one_key = ParallelAgent("p", [writes("a", "k"), writes("b", "k")])
    own_keys = ParallelAgent("p", [writes("a", "x"), writes("b", "y")])
"""


@pytest.fixture
def log(call: Call, write: Write, tmp_path: Path) -> Path:
    path = tmp_path / "run.jsonl"
    path.write_text(call("run", "--json", f"{write(WRITES)}:one_key", "hi").out)
    return path


# Ctrl-C comes when `b` has written, but for the first time only: that time is void.
RESUMED: Final = """
    import pathlib
    begun = pathlib.Path(__file__).with_name("begun")

    @agent
    async def a(ctx):
        ctx.state["k"] = "a"
        yield "a says"

    @agent
    async def b(ctx):
        if not begun.exists():
            begun.touch()
            ctx.state["void"] = ctx.state["k"] = "cut off"
            yield "b was cut off"
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()
        ctx.state["k"] = "b"
        yield "b says"

    tree = ParallelAgent("p", [a, b])
"""


def invoke(*words: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(replay, [str(word) for word in words], input=stdin)


def test_it_prints_what_was_recorded(log: Path) -> None:
    ended = invoke(log)
    assert ended.exit_code == 0
    assert sorted(line.split()[0] for line in ended.stdout.splitlines()) == ["-", "p.a", "p.b"]


def test_it_reads_standard_input(log: Path) -> None:
    assert invoke("-", stdin=log.read_text()).stdout == invoke(log).stdout


def test_it_shows_the_order_that_ends_differently(log: Path) -> None:
    ended = invoke(log, "--explore")
    assert ended.exit_code == 1
    assert "in another order the final state is another" in ended.stdout
    assert "k: " in ended.stdout
    assert "schedule: [" in ended.stdout


def test_it_writes_a_test_of_it(log: Path, tmp_path: Path) -> None:
    path = tmp_path / "test_order.py"
    ended = invoke(log, "--explore", "--write", path)
    assert ended.exit_code == 1
    assert "run it with pytest" in ended.stderr
    compile(path.read_text(), str(path), "exec")


def test_it_says_how_many_orders_end_in_the_same_state(
    call: Call, write: Write, tmp_path: Path
) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(call("run", "--json", f"{write(WRITES)}:own_keys", "hi").out)
    ended = invoke(path, "--explore")
    assert ended.exit_code == 0
    assert ended.stdout == "the same final state in 2 orders (all there are)\n"
    bounded = invoke(path, "--explore", "--schedules", "1")
    assert "(of more than 1)" in bounded.stdout


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("missing.jsonl",), "missing.jsonl: No such file"),
        (("empty.jsonl",), "holds no event of an agent"),
        (("binary.jsonl",), "binary.jsonl is no text"),
        (("broken.jsonl",), "broken.jsonl:1 holds no event"),
        (("empty.jsonl", "--write", "x.py"), "give both"),
        (("empty.jsonl", "--schedules", "0"), "schedules"),
    ],
)
def test_what_it_cannot_use_is_refused(
    words: tuple[str, ...], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").write_text("\n")
    Path("binary.jsonl").write_bytes(b"\xff\xfe\x00")
    Path("broken.jsonl").write_text("{nothing}\n")
    ended = invoke(*words)
    assert ended.exit_code == 2
    assert complaint in ended.stderr


def test_a_file_that_cannot_be_written_is_named(log: Path) -> None:
    ended = invoke(log, "--explore", "--write", log / "x.py")
    assert ended.exit_code == 2
    assert "x.py" in ended.stderr


def test_it_does_not_look_at_keys_that_are_to_be_ignored(log: Path) -> None:
    ended = invoke(log, "--explore", "--ignore", "x", "--ignore", "k")
    assert ended.exit_code == 0
    assert ended.stdout.startswith("the same final state in ")


@pytest.mark.parametrize("printed", [("show", "--json"), ("export",)])
def test_it_reads_a_session_of_a_run_that_was_resumed(
    printed: tuple[str, ...],
    durable: Call,
    write: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither the runtime's notes nor what was cut off disturb it."""
    file = write(RESUMED)
    assert durable("run", file, "hi", "--session", "s1").status == 130
    assert durable("resume", file).status == 0
    path = tmp_path / "run.jsonl"
    what, *options = printed
    path.write_text(durable("sessions", what, "s1", *options).out, "utf-8")
    said = [line.split(maxsplit=2) for line in invoke(path).stdout.splitlines()]
    assert [what for _, who, what in said if who in "ab"] == ["a says", "b says"]
    monkeypatch.undo()  # exploring brings a clock of its own
    ended = invoke(path, "--explore")
    assert ended.exit_code == 1
    assert "k: 'b' was recorded, and now it is 'a'" in ended.stdout


def test_it_is_a_command_of_the_command_line(call: Call) -> None:
    assert start.main is not None  # it is added where the command line starts
    assert "replay" in call("--help").out
