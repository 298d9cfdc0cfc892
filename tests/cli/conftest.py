"""To call the command line in this process: in virtual time, and without a trace afterwards."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner
from trio.testing import MockClock

from parallel_agent.cli.commands import cli
from session.database import DatabaseSessionService
from tests.cli.kit import Call, Called, Write


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what targets put on the import path, and which modules they were."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("PARALLEL_AGENT_DB", raising=False)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `trio.run` never wait."""
    run = trio.run

    def run_in_virtual_time(*args: Any, **options: Any) -> Any:
        return run(*args, **{"clock": MockClock(autojump_threshold=0), **options})

    monkeypatch.setattr(trio, "run", run_in_virtual_time)


@pytest.fixture
def call(virtual_time: None) -> Call:
    """Call the command line."""

    def call(*arguments: object, stdin: bytes | None = None) -> Called:
        words = [str(argument) for argument in arguments]
        ended = CliRunner().invoke(cli, words, input=stdin, prog_name="parallel-agent")
        if ended.exception is not None and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        return Called(ended.exit_code, ended.stdout, ended.stderr)

    return call


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a database without sessions is as a file: to make one takes a while."""
    file = tmp_path_factory.mktemp("databases") / "empty.db"

    async def make() -> None:
        async with DatabaseSessionService(file):
            pass

    trio.run(make)
    return file.read_bytes()


@pytest.fixture
def db(tmp_path: Path, empty_database: bytes) -> Path:
    """A database of one's own."""
    file = tmp_path / "sessions.db"
    file.write_bytes(empty_database)
    return file


@pytest.fixture
def durable(call: Call, db: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call the command line with a database in the environment, while time stands still.

    Time that jumps whenever nothing is to be done would do so while the database is at work.
    """
    run = trio.run
    monkeypatch.setenv("PARALLEL_AGENT_DB", str(db))
    monkeypatch.setattr(
        trio, "run", lambda *args, **options: run(*args, clock=MockClock(), **options)
    )
    return call


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a Python file that has imported all of `parallel_agent`, `trio` and `signal`."""
    # A file that is written again at once, and is as long as before, is not seen to have changed.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(source: str, name: str = "my_tree.py") -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        head = "import signal, sys\nimport trio\nfrom parallel_agent import *\n"
        file.write_text(head + textwrap.dedent(source), "utf-8")
        return file

    return write
