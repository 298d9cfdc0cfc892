"""Where sessions are kept between commands: the database that ``--db`` names.

Needs the extra ``sql``, and looks for it only when a command asks for a database.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from parallel_agent.errors import NothingToResumeError, ResponseRefusedError, TreeChangedError
from parallel_agent.observe.harmless import harmless, one_line
from session.errors import SessionBusyError, SessionError
from session.event import USER

if TYPE_CHECKING:
    from session.database.service import DatabaseSessionService

__all__ = ["DB_VARIABLE", "LEASE_SECONDS", "Again", "Database", "NotStartedError", "why_not"]

DB_VARIABLE: Final = "PARALLEL_AGENT_DB"
"""The environment variable that names the database if ``--db`` does not."""

LEASE_SECONDS: Final = 30.0
"""For how long a session stays busy after the process of its run has died."""


class NotStartedError(Exception):
    """What the command line asks for cannot be begun. Nothing has changed; the message says why."""


@attrs.frozen
class Database:
    """A database that was named.

    Attributes:
        url: its URL, or the path of a file.
        is_from_environment: it was not given with the command.
        lease_seconds: see `LEASE_SECONDS`.
    """

    url: str
    is_from_environment: bool = False
    lease_seconds: float = LEASE_SECONDS

    @asynccontextmanager
    async def open(self, *, make: bool) -> AsyncGenerator[DatabaseSessionService]:
        """Open a block in which it is open.

        ``make``: a file that is not there is made. Otherwise its name is taken for a mistake.

        Raises:
            NotStartedError: the extra is missing, there is no such database, or that is no name
                of one.
            StoreError: it cannot be opened.
        """
        try:
            from session.database import DatabaseSessionService  # an optional extra
            from session.database.url import parse_url
        except ImportError as error:
            raise NotStartedError(str(error)) from None
        try:
            url = parse_url(self.url)
            service = DatabaseSessionService(self.url, lease_seconds=self.lease_seconds)
        except ValueError as error:
            message = f"--db: {error}"
            raise NotStartedError(message) from None
        file = url.database if url.get_backend_name() == "sqlite" else None
        if not make and file is not None and _is_missing(file):
            message = f"--db: there is no file {file}, so there are no sessions in it"
            raise NotStartedError(message)
        async with service:
            yield service

    @property
    def shown(self) -> str:
        """What to call it where people read; holds no password."""
        return re.sub(r"(://[^:/@]*):[^/]*@", r"\1:***@", self.url)


@attrs.frozen
class Again:
    """The commands that go on with a run. To be typed, so they have what this command was given."""

    target: str
    database: Database
    app_name: str | None = None
    artifacts: str | None = None
    agents: tuple[str, ...] = ()

    def resume(self, session_id: str, user_id: str) -> str:
        """Return the command that goes on with the run of a session."""
        return self._command("resume", session_id, user_id)

    def respond(self, session_id: str, user_id: str, request: str) -> str:
        """Return the command that answers a question, but for the answer."""
        return f"{self._command('respond', session_id, user_id)} {_quoted(request)} ANSWER"

    def _command(self, name: str, session_id: str, user_id: str) -> str:
        options = {
            "--db": None if self.database.is_from_environment else self.database.shown,
            "--session": session_id,
            "--user": None if user_id == USER else user_id,
            "--app": self.app_name,
            "--artifacts": self.artifacts,
        }
        words = ["parallel-agent", name, _quoted(self.target)]
        for agents in self.agents:
            words += ["--agents", _quoted(agents)]
        for option, value in options.items():
            if value is not None:
                words += [option, _quoted(value)]
        return " ".join(words)


def why_not(error: BaseException) -> str | None:
    """Return why nothing could be begun, if the session or the database is to blame."""
    match error:
        case NotStartedError():
            return str(error)
        case SessionBusyError():
            return _busy(error)
        case SessionError() | NothingToResumeError() | TreeChangedError() | ResponseRefusedError():
            return harmless(str(error))
        case _:
            return None


def _busy(error: SessionBusyError) -> str:
    # In the words of a shell: the error's own are those of Python.
    return (
        f"session {one_line(error.key.session_id)} is busy: run {one_line(error.run_id)} of "
        f"{one_line(error.owner)} is writing to it. Wait for its end with --on-busy queue, or take "
        f"another session. If that process is dead, the session is free in {error.seconds:.3g} s"
    )


def _is_missing(file: str) -> bool:
    try:
        return not file.startswith("file:") and not Path(file).exists()
    except (OSError, ValueError):
        return False  # whatever it is: opening it says what is wrong


def _quoted(text: str) -> str:
    return harmless(shlex.quote(text))
