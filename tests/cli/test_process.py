"""The command line in a process of its own: real signals, pipes and a terminal.

Nothing here waits for a time to pass: each step waits for what the process prints or does.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

import pytest

from tests.cli.kit import Call, Write

ROOT: Final = Path(__file__).resolve().parents[2]
PATIENCE: Final = 60.0

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and terminals of POSIX")

Process: TypeAlias = subprocess.Popen[bytes]
Start: TypeAlias = Callable[..., Process]

ENVIRONMENT: Final = {
    # Of this Python's own settings none: unbuffered output, say, would hide what is to be seen.
    **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NO_"))},
    "PYTHONPATH": str(ROOT),
    "PYTHONDONTWRITEBYTECODE": "1",
    "TERM": "xterm",
    "COLUMNS": "100",
    "LINES": "24",
}

# Cleans up until it is told to stop, and says that it has.
TIDY: Final = """
    import pathlib
    go = pathlib.Path(__file__).with_name("go")

    @agent
    async def tidy(ctx):
        try:
            yield "begun"
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                while not go.exists():
                    await trio.sleep(0.01)
                await ctx.emit("tidied up")

    tree = SequentialAgent("line", [tidy])
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the command line; it does not outlive the test."""
    started = list[Process]()

    def start(*arguments: object, **options: Any) -> Process:
        pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        environment = {**ENVIRONMENT, **options.pop("env", {})}
        process = subprocess.Popen(  # noqa: S603  # our own
            [sys.executable, "-m", "parallel_agent", *map(str, arguments)],
            **{"stdin": subprocess.DEVNULL, "cwd": tmp_path, **pipes, **options},
            env=environment,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def read_until(stream: IO[bytes] | int | None, marker: str) -> str:
    """Read until the marker has come."""
    assert stream is not None
    read, number = b"", stream if isinstance(stream, int) else stream.fileno()
    while marker not in read.decode(errors="replace"):
        ready, _, _ = select.select([number], [], [], PATIENCE)
        chunk = os.read(number, 65_536) if ready else b""
        assert chunk, f"{marker!r} did not come, but {read!r}"
        read += chunk
    return read.decode()


def read_rest(terminal: int) -> str:
    """Read until the other side is closed."""
    read = b""
    while select.select([terminal], [], [], PATIENCE)[0]:
        try:
            chunk = os.read(terminal, 65_536)
        except OSError:  # how Linux says that nobody is there any more
            break
        if not chunk:
            break
        read += chunk
    return read.decode()


def test_ctrl_c_on_a_terminal_shows_who_cleans_up_and_waits_for_it(
    start: Start, write: Write, tmp_path: Path
) -> None:
    file = write(TIDY)
    master, slave = os.openpty()
    try:
        process = start("run", file, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        read_until(master, "begun")
        process.send_signal(signal.SIGINT)
        read_until(master, "still cleaning up: line/tidy")
        (tmp_path / "go").touch()
        shown = read_rest(master)
    finally:
        os.close(master)
    assert process.wait(PATIENCE) == 130
    shown = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", shown)
    _, _, last = shown.rpartition("⊘ line")
    assert re.search(r"└── ⊘ tidy +[0-9.]+s +2  tidied up", last)
    assert "cancelled: Ctrl-C (2 events, " in last


@pytest.mark.parametrize("how", ["hogs the event loop", "waits in a thread"])
def test_a_second_ctrl_c_ends_at_once_whatever_an_agent_does(
    start: Start, write: Write, how: str
) -> None:
    source = """
        import threading
        @agent
        async def hog(ctx):
            yield "begun"
            while True: pass
        @agent
        def hang(ctx):
            print("begun", flush=True)
            threading.Event().wait()
    """
    name = "hog" if how.startswith("hogs") else "hang"
    process = start("run", f"{write(source)}:{name}")
    read_until(process.stdout, "begun")
    # Until it has ended: two that come too quickly are one.
    for _ in range(100):
        process.send_signal(signal.SIGINT)
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
        break
    assert process.returncode == 130
    assert process.stderr is not None
    assert process.stderr.read().endswith(b"\nended at once\n")


# Standard error takes not a byte more, and the last words would go there.
STALLED: Final = """
import os
from parallel_agent.cli import signals
signals._LAST_WORDS = 0.0
os.set_blocking(2, False)
try:
    while True:
        os.write(2, bytes(65_536))
except BlockingIOError:
    os.set_blocking(2, True)
signals.leave_at_once(15)
"""


def test_the_process_ends_at_once_even_if_nobody_takes_its_output() -> None:
    process = subprocess.Popen(  # noqa: S603  # our own
        [sys.executable, "-c", STALLED], env=ENVIRONMENT, stderr=subprocess.PIPE
    )
    try:
        assert process.wait(PATIENCE) == 143
    finally:
        process.kill()
        process.communicate()


def test_a_reader_that_goes_away_ends_the_run_quietly(
    start: Start, write: Write, tmp_path: Path
) -> None:
    source = """
        import pathlib
        @agent
        async def talks(ctx):
            try:
                while True:
                    yield "and on"
            finally:
                pathlib.Path(__file__).with_name("cleaned up").touch()
                print("and nobody hears")
    """
    process = start("run", write(source))
    read_until(process.stdout, "and on")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(PATIENCE) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert (tmp_path / "cleaned up").exists()


def test_a_pipe_is_the_message_and_one_that_stays_silent_is_named(
    start: Start, write: Write
) -> None:
    source = "@agent\nasync def tell(ctx): return ctx.user_text"
    process = start("run", "--quiet", write(source), stdin=subprocess.PIPE)
    read_until(process.stderr, "waiting for the message on standard input")
    out, err = process.communicate("é at last\n".encode(), timeout=PATIENCE)
    assert (out.decode(), err, process.returncode) == ("é at last\n", b"", 0)


def test_a_pipe_that_does_not_block_gets_all_of_the_output(start: Start, write: Write) -> None:
    source = "@agent\nasync def tell(ctx): return 'x' * 1_000_000"
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    with open(reads, "rb") as out:  # noqa: PTH123  # it has no path
        process = start("run", "--quiet", write(source), stdout=writes)
        os.close(writes)
        assert len(out.read()) == 1_000_001
    assert process.wait(PATIENCE) == 0


def test_what_programs_print_that_agents_start_does_not_come_between_the_events(
    start: Start, write: Write
) -> None:
    source = """
        import os, subprocess
        os.system("echo imported")
        @agent
        async def uses_tools(ctx):
            subprocess.run(["echo", "from a program"])
            yield "said"
    """
    process = start("run", "--json", write(source))
    out, err = process.communicate(timeout=PATIENCE)
    assert [json.loads(line)["author"] for line in out.splitlines()] == ["uses_tools"]
    assert err.startswith(b"imported\nfrom a program\ncompleted (")


def test_ctrl_c_while_the_file_is_imported_ends_without_a_traceback(
    start: Start, write: Write
) -> None:
    source = "import threading\nprint('importing', flush=True)\nthreading.Event().wait()"
    process = start("run", write(source))
    read_until(process.stdout, "importing")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert (err, process.returncode) == (b"", 130)


def test_letters_that_the_terminal_has_not_do_not_stop_the_run(start: Start, write: Write) -> None:
    source = "@agent\nasync def tell(ctx): return 'é中'"
    process = start("run", "-q", write(source), env={"PYTHONIOENCODING": "ascii"})
    out, err = process.communicate(timeout=PATIENCE)
    assert (out, err, process.returncode) == (b"\\xe9\\u4e2d\n", b"", 0)


# ------------------------------------------------------------------- two commands, one session

# Says two things, and between them waits until it may go on.
HELD: Final = """
    import pathlib
    go = pathlib.Path(__file__).with_name("go")

    @agent(output_key="first")
    async def first(ctx):
        print("first runs", flush=True)
        yield "one"

    @agent
    async def second(ctx):
        yield "two"
        while not go.exists():
            await trio.sleep(0.01)
        ctx.state["all"] = [ctx.state["first"], "two", "three"]
        yield f"three: {ctx.state['all']}"

    tree = SequentialAgent("line", [first, second])
"""


def test_a_run_that_is_killed_between_two_events_is_resumed_to_the_same_result(
    start: Start, write: Write, call: Call, db: Path, tmp_path: Path
) -> None:
    file = write(HELD)
    process = start("run", file, "hi", "--db", db, "--session", "s1", "--lease", "0.2")
    read_until(process.stdout, "two")
    process.kill()
    process.wait(PATIENCE)
    (tmp_path / "go").touch()
    resumed = call("resume", file, "--db", db, "--session", "s1", "--on-busy", "queue")
    whole = call("run", file, "hi", "--db", db, "--session", "s2")
    lines = whole.out.splitlines()
    assert lines[0] == "first runs"
    # What had ended is not run again; what had not begins anew.
    assert resumed.out.splitlines() == lines[2:]
    assert (resumed.status, whole.status) == (0, 0)


def test_a_second_run_of_a_session_says_which_process_has_it(
    start: Start, write: Write, call: Call, db: Path
) -> None:
    file = write(HELD)
    process = start("run", file, "--db", db, "--session", "s1")
    read_until(process.stdout, "two")
    for command in ("run", "resume"):
        ended = call(command, file, "--db", db, "--session", "s1")
        assert "Error: session s1 is busy: run " in ended.err
        assert f" of process {process.pid} on " in ended.err
        assert (ended.out, ended.status) == ("", 2)


# Its lease is long, and it renews it often: so it soon hears that it should stop.
KEEN: Final = """
    import attrs
    from session.database import DatabaseSessionService as Service

    acquire, renew = Service.acquire, Service.renew

    async def acquire_for_long(self, *args, **options):
        return attrs.evolve(await acquire(self, *args, **options), seconds=0.1)

    async def renew_for_long(self, lease):
        return await renew(self, attrs.evolve(lease, seconds=600.0))

    Service.acquire, Service.renew = acquire_for_long, renew_for_long
"""


def test_a_run_that_is_interrupted_by_another_says_so_and_ends(
    start: Start, write: Write, call: Call, db: Path
) -> None:
    file = write(KEEN + HELD)
    process = start("run", file, "--db", db, "--session", "s1", "--lease", "600")
    read_until(process.stdout, "two")
    other = write("@agent\nasync def tell(ctx): return 'mine now'", "other.py")
    options = ("--db", db, "--session", "s1", "--app", "line", "--on-busy", "interrupt")
    assert "mine now" in call("run", other, *options).out
    _, err = process.communicate(timeout=PATIENCE)
    assert b"cancelled: interrupted by another run of its session" in err
    assert b"to go on with it" not in err
    assert process.returncode == 130


# --------------------------------------------------------------------- without what it needs

# As in an environment with the core alone: not there, and not to be imported.
CORE_ONLY: Final = """
import importlib.metadata, runpy, sys
there = importlib.metadata.distribution
def distribution(name):
    if name in ("click", "rich"):
        raise importlib.metadata.PackageNotFoundError(name)
    return there(name)
importlib.metadata.distribution = distribution
sys.modules["click"] = sys.modules["rich"] = None
sys.argv = ["parallel-agent", "run", "x.py"]
runpy.run_module("parallel_agent", run_name="__main__")
"""


def test_without_the_extra_one_line_says_what_to_install(tmp_path: Path) -> None:
    ended = subprocess.run(  # noqa: S603  # our own
        [sys.executable, "-c", CORE_ONLY],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        check=False,
    )
    assert (ended.stdout, ended.returncode) == (b"", 2)
    (line,) = ended.stderr.decode().splitlines()
    assert "pip install 'parallel-agent[cli]'" in line


def test_a_click_in_the_working_folder_is_named_and_not_executed(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "click.py").write_text("raise SystemExit(9)")
    process = start("--version")
    out, err = process.communicate(timeout=PATIENCE)
    assert (out, process.returncode) == (b"", 2)
    assert err.decode().startswith(f"{tmp_path / 'click.py'} hides the `click` package")
