"""What the commands that run a tree are asked, and how click hears it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias, TypeVar

import attrs
import click
from click.core import ParameterSource

from parallel_agent.claim import OnBusy
from parallel_agent.cli.store import DB_VARIABLE, LEASE_SECONDS, Database

__all__ = [
    "EXIT_STATUS",
    "RESUMING",
    "TARGET",
    "Asked",
    "agents_option",
    "database_option",
    "display_options",
    "durable_options",
    "run_options",
]

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator: TypeAlias = Callable[[Command], Command]


@attrs.frozen
class Asked:
    """What the options say, of `run` and of the commands that go on with a run."""

    target: str
    user_id: str | None
    session_id: str | None
    app_name: str | None
    artifacts: str | None
    timeout: float | None
    live: bool
    plain: bool
    as_json: bool
    quiet: bool
    partial: bool
    full_traceback: bool
    lease: float | None
    on_busy: OnBusy | None
    suspend: bool
    database: Database | None
    message: str | None = None
    file: str | None = None
    state_items: tuple[str, ...] = ()
    responses: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()


TARGET: Final = """\
\b
TARGET is where the tree is:
  my_tree.py            the only tree in a Python file
  my_tree.py:refine     the agent that this file calls refine
  package.module:tree   an attribute of a module (the working folder is looked at first)
  flow.yaml             a graph in YAML or JSON; --agents says what its nodes may name
Importing the file runs it, but for what is under `if __name__ == "__main__":`."""

RESUMING: Final = """\
A run belongs to an application, which is named like the root of its tree unless --app says
otherwise, and goes on with the tree that it was begun with. Agents that had ended are not run
again; an agent that had not begins anew, or at its last checkpoint."""

_SEVERAL: Final = "may be repeated"

EXIT_STATUS: Final = """\
\b
Exit status:
    0  completed
    1  failed, or the output could not be written
    2  could not start: wrong options, no tree at TARGET, a session that is busy, no database
    3  waiting for an answer: nobody was there to give it (see --respond)
  124  cancelled by --timeout
  130  cancelled by Ctrl-C, or another run of its session (143: by SIGTERM, 129: by SIGHUP)
  141  nobody reads the output any more, as in `| head`; the run was cancelled
"""


def agents_option() -> Decorator[Any]:
    """Add ``--agents``."""
    return click.option(
        "--agents",
        metavar="MODULE",
        multiple=True,
        help="FILE.py or package.module, whose agents and functions the nodes of a graph file may "
        f"name; {_SEVERAL}. A graph file can name no other code.",
    )


def database_option(*, required: bool) -> Decorator[Any]:
    """Add ``--db``; the command gets a `Database` for it."""

    def heard(ctx: click.Context, option: click.Parameter, url: str | None) -> Database | None:
        if url is None:
            return None
        source = ctx.get_parameter_source(option.name or "")
        return Database(url, is_from_environment=source is ParameterSource.ENVIRONMENT)

    return click.option(
        "--db",
        "database",
        metavar="URL",
        required=required,
        envvar=DB_VARIABLE,
        show_envvar=True,
        callback=heard,
        help="Where sessions are kept: the path of a file, sqlite:///file.db or "
        "postgresql://user@host/database. Needs the extra sql.",
    )


def durable_options(*, required: bool, waits: tuple[str, ...]) -> Decorator[Any]:
    """Add what says whose session is meant, and where it is kept; ``waits`` are for --on-busy."""
    return _all(
        database_option(required=required),
        click.option("--user", "user_id", metavar="ID", help=_user(is_new=not required)),
        click.option(
            "--app",
            "app_name",
            metavar="NAME",
            help="The application the session belongs to; by default the name of the tree's root.",
        ),
        click.option(
            "--on-busy",
            type=click.Choice(waits),
            help="What to do if another process is at the session: error (say so; the default), "
            "queue (wait for its end)"
            + (", or interrupt (cancel it)." if "interrupt" in waits else "."),
        ),
        click.option(
            "--suspend",
            is_flag=True,
            help="Ask nobody, on a terminal neither: end as waiting, and say which command "
            "answers.",
        ),
        click.option(
            "--lease",
            type=float,
            metavar="SECONDS",
            help="For how long the session stays busy if this process dies; "
            f"{LEASE_SECONDS:g} by default.",
        ),
    )


def _user(*, is_new: bool) -> str:
    default = '"user"' if is_new else "anybody"
    return f"Whose session it is; by default {default}."


def run_options(*, answers: bool = True) -> Decorator[Any]:
    """Add what any run may be given; ``answers``: with --respond."""
    respond = click.option(
        "--respond",
        "responses",
        metavar="ID=VALUE",
        multiple=True,
        help=f"Answer a question that an agent asks; {_SEVERAL}. ID is the question's id, its "
        "path, or the agent's name; the value is JSON, yes, no, or text. On a terminal you are "
        "asked.",
    )
    return _all(
        agents_option(),
        click.option(
            "--artifacts",
            metavar="FOLDER",
            help="Keep what agents save as artifacts in FOLDER; without it they are gone with the "
            "run.",
        ),
        *([respond] if answers else []),
        click.option("--timeout", type=float, metavar="SECONDS", help="Cancel it after so long."),
    )


def display_options() -> Decorator[Any]:
    """Add how a run is shown."""
    return _all(
        click.option("--live", is_flag=True, help="A live tree, even if this is no terminal."),
        click.option("--plain", is_flag=True, help="A line for each event, even on a terminal."),
        click.option(
            "--json", "as_json", is_flag=True, help="A line of JSON for each event, as stored."
        ),
        click.option("-q", "--quiet", is_flag=True, help="Only the final text."),
        click.option(
            "--partial", is_flag=True, help="Also print pieces of messages that come whole later."
        ),
        click.option(
            "--traceback", "full_traceback", is_flag=True, help="Of an error, all there is."
        ),
    )


def _all(*options: Decorator[Any]) -> Decorator[Any]:
    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
