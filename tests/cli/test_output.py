"""Standard output that breaks, and what else is printed there: what people and programs get."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Callable
from typing import TypeAlias

import pytest

from parallel_agent.cli.commands import cli
from tests.cli.kit import Called, Write

CallInto: TypeAlias = Callable[..., Called]

TALKS = """
    import pathlib
    @agent
    async def talks(ctx):
        for _ in range(100):
            yield "and on"
            await trio.sleep(1)
        pathlib.Path(__file__).with_name("the end").touch()
"""


class Breaks(io.StringIO):
    """Standard output that takes some lines, then fails as a file of the system's may."""

    def __init__(self, number: int, *, takes: int = 0) -> None:
        super().__init__()
        self._error = OSError(number, os.strerror(number))
        self._takes = takes

    def flush(self) -> None:
        self._takes -= 1
        if self._takes < 0:
            raise self._error


@pytest.fixture
def call_into(virtual_time: None, monkeypatch: pytest.MonkeyPatch) -> CallInto:
    """Call the command line with a given standard output."""

    def call_into(out: io.StringIO, *arguments: object, err: io.StringIO | None = None) -> Called:
        err = io.StringIO() if err is None else err
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", None)
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            with pytest.raises(SystemExit) as ended:
                cli([str(argument) for argument in arguments], prog_name="parallel-agent")
        printed = "" if out.closed else out.getvalue()
        return Called(int(ended.value.code or 0), printed, err.getvalue())

    return call_into


# --------------------------------------------------------------------------- output that breaks


@pytest.mark.parametrize("command", [["run"], ["run", "--json"], ["tree"]])
def test_a_full_disk_is_named_and_is_a_failure(
    call_into: CallInto, write: Write, command: list[str]
) -> None:
    ended = call_into(Breaks(errno.ENOSPC), *command, write(TALKS))
    line = f"the output cannot be written: [Errno {errno.ENOSPC}] No space left on device\n"
    assert (ended.err, ended.status) == (line, 1)


def test_a_full_disk_is_named_when_only_the_end_is_printed(
    call_into: CallInto, write: Write
) -> None:
    file = write("@agent\nasync def tell(ctx): return 'the end'")
    ended = call_into(Breaks(errno.ENOSPC), "run", "--quiet", file)
    assert (ended.err.count("\n"), ended.status) == (1, 1)


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO])
def test_a_reader_or_a_terminal_that_has_gone_ends_the_run_quietly(
    call_into: CallInto, write: Write, number: int
) -> None:
    ended = call_into(Breaks(number, takes=2), "run", write(TALKS))
    assert (ended.out.count("and on"), ended.err, ended.status) == (3, "", 141)


def test_an_agent_that_closes_standard_output_has_not_pressed_ctrl_c(
    call_into: CallInto, write: Write
) -> None:
    file = write("@agent\nasync def closes(ctx):\n  sys.stdout.close()\n  yield 'x'")
    ended = call_into(io.StringIO(), "run", file)
    assert (ended.err.partition(":")[0], ended.status) == ("the output cannot be written", 1)


def test_a_live_tree_that_nobody_sees_ends_the_run_quietly(
    call_into: CallInto, write: Write
) -> None:
    file = write(TALKS)
    ended = call_into(Breaks(errno.EPIPE), "run", "--live", file)
    assert (ended.err, ended.status) == ("", 141)
    assert not file.with_name("the end").exists()


def test_a_live_tree_on_a_full_disk_is_no_failure_of_the_tree(
    call_into: CallInto, write: Write
) -> None:
    file = write("@agent\nasync def silent(ctx): pass")
    ended = call_into(Breaks(errno.ENOSPC), "run", "--live", file)
    assert (ended.err.partition(":")[0], ended.status) == ("the output cannot be written", 1)


# -------------------------------------------------------------------- what else is printed there


LOGS = """
    import logging
    handler = logging.StreamHandler()
    logging.getLogger("mine").addHandler(handler)

    @agent
    async def logs(ctx):
        logging.getLogger("mine").warning("logged")
        logging.getLogger("mine").removeHandler(handler)
"""


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_what_handlers_log_comes_out_above_the_live_tree(call_into: CallInto, write: Write) -> None:
    ended = call_into(io.StringIO(), "run", "--live", write(LOGS), err=Terminal())
    view, _, rest = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", ended.out).partition("logged")
    assert ("● logs" in view, "✓ logs" in rest) == (True, True)
    assert ended.err == ""


def test_what_handlers_log_stays_in_the_file_that_standard_error_leads_to(
    call_into: CallInto, write: Write
) -> None:
    ended = call_into(io.StringIO(), "run", "--live", write(LOGS))
    assert ("logged" in ended.out, ended.err) == (False, "logged\n")


def test_a_stream_wrapped_in_one_of_the_targets_own_is_written_to_once(
    call_into: CallInto, write: Write
) -> None:
    source = """
        import io
        class Tee(io.TextIOBase):
            def __init__(self, stream): self.stream = stream
            def write(self, text): return self.stream.write(text.upper())
        sys.stdout = Tee(sys.stdout)
        print("imported")
        @agent
        async def silent(ctx): pass
    """
    ended = call_into(io.StringIO(), "run", "--live", write(source))
    assert (ended.out.count("IMPORTED"), ended.status) == (1, 0)
