"""A PostgreSQL server of the tests' own: started when first asked for, stopped at the end.

It listens on the loopback interface only, keeps its data in a temporary folder, and runs as a user
without rights: PostgreSQL refuses to be run by root. Where it is not installed, the tests that need
it are skipped; with ``PARALLEL_AGENT_REQUIRE_POSTGRES=1`` that is an error.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import psycopg

from tests.support.databases import quick_folder

__all__ = ["Postgres", "find_programs", "running_postgres"]

REQUIRED: Final = "PARALLEL_AGENT_REQUIRE_POSTGRES"
_ICU: Final = ("--locale-provider=icu", "--icu-locale=en")
_USERS: Final = ("postgres", "nobody")


def find_programs() -> Path | None:
    """The folder of initdb and pg_ctl, of the newest version there is."""
    debian = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name)
    )
    on_path = shutil.which("initdb")
    for folder in [*reversed(debian), *([Path(on_path).parent] if on_path else [])]:
        if (folder / "initdb").exists() and (folder / "pg_ctl").exists():
            return folder
    return None


@attrs.define
class Postgres:
    """A server that runs."""

    programs: Path
    folder: Path
    port: int
    made: int = 0

    def url(self, database: str = "postgres") -> str:
        """The URL of a database."""
        return f"postgresql://tester@127.0.0.1:{self.port}/{database}"

    def new_database(self, template: str = "template0") -> str:
        """Make a database; return its URL."""
        self.made += 1
        name = f"d{self.made}"
        self.say(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def say(self, statement: str) -> None:
        """Run a statement as the superuser."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement.encode())

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._control("start", "-l", str(self.folder / "log"))

    def stop(self, how: str = "fast") -> None:
        """Stop it: ``immediate`` is like a crash."""
        self._control("stop", "-m", how)

    def _control(self, *what: str) -> None:
        run([str(self.programs / "pg_ctl"), "-w", "-s", "-D", str(self.folder / "data"), *what])


@contextmanager
def running_postgres(programs: Path, *, durable: bool = False) -> Iterator[Postgres]:
    """Make a server, start it, and stop it at the end. ``durable``: it flushes the disk."""
    folder = Path(tempfile.mkdtemp(prefix="parallel-agent-") if durable else quick_folder())
    try:
        if os.getuid() == 0:
            shutil.chown(folder, _unprivileged())
        run(
            [
                str(programs / "initdb"),
                "--no-sync",
                "--auth=trust",
                "--username=tester",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                # Texts are not in the order of code points: what needs that must say so itself.
                *_ICU,
                f"--pgdata={folder / 'data'}",
            ]
        )
        port = _free_port()
        with (folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write(
                f"listen_addresses = '127.0.0.1'\nport = {port}\n"
                f"unix_socket_directories = ''\nmax_connections = 200\n"
                f"fsync = {'on' if durable else 'off'}\n"
            )
        server = Postgres(programs, folder, port)
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(command: Sequence[str]) -> None:
    """Run a program of PostgreSQL's, as a user who may."""
    if os.getuid() == 0:
        command = ["runuser", "-u", _unprivileged(), "--", *command]
    done = subprocess.run(  # noqa: S603  # what is installed here
        command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"


def _unprivileged() -> str:
    there = {entry.pw_name for entry in pwd.getpwall()}
    return next(user for user in _USERS if user in there)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
