"""The entry point. Says what to install if the extra is missing; that needs nothing but Python."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

__all__ = ["main"]


def _trouble_with(package: str) -> str | None:
    """Say what is wrong with a package that the extra brings; None if nothing is."""
    try:
        files = distribution(package)
    except PackageNotFoundError:
        return (
            "the command line needs click and rich: pip install 'parallel-agent[cli]' "
            f"({package} is missing)"
        )
    # Of a module in the working folder, say, with `python -m`. It has not been executed by this.
    found = find_spec(package)
    theirs = Path(str(files.locate_file(package)), "__init__.py")
    if found is None or found.origin is None or not theirs.exists():
        return None
    if Path(found.origin).resolve() != theirs.resolve():
        return (
            f"{found.origin} hides the `{package}` package that the command line needs: "
            "rename that file (or folder), or take its folder off the import path"
        )
    return None


_trouble = _trouble_with("click") or _trouble_with("rich")
_command: click.Command | None = None
if _trouble is None:
    from parallel_agent.cli.certify import certify
    from parallel_agent.cli.commands import cli
    from parallel_agent.cli.drawing import draw, schema, validate
    from parallel_agent.cli.replay import replay
    from parallel_agent.cli.resuming import respond, resume
    from parallel_agent.cli.sessions import sessions

    for command in (certify, draw, replay, resume, respond, schema, sessions, validate):
        cli.add_command(command)
    _command = cli


def main() -> None:
    """Run the command that the arguments of this process ask for. Ends the process."""
    if _command is None:
        sys.stderr.write(f"{_trouble}\n")
        sys.exit(2)
    for stream in (sys.stdout, sys.stderr):
        # An agent may use letters that this terminal has not.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            if sys.platform != "win32":
                # Python drops what a pipe does not take that somebody has made non-blocking.
                with suppress(OSError):  # no file of the system's
                    os.set_blocking(stream.fileno(), True)
    _command(prog_name="parallel-agent")
