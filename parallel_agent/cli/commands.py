"""The commands, their options, and what they say when asked for help."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Generator
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Literal, NoReturn, TextIO, TypeAlias

import attrs
import click
import trio
from rich.console import Console

from parallel_agent.agent import Agent
from parallel_agent.cli.answers import ReadLine, unused_answer
from parallel_agent.cli.describe import artifacts_line
from parallel_agent.cli.inputs import (
    InputError,
    check_text,
    find_message,
    parse_responses,
    parse_state,
)
from parallel_agent.cli.running import (
    Ended,
    OutputClosedError,
    RunOptions,
    Show,
    execute,
    exit_status,
)
from parallel_agent.cli.show import Lines, LiveTree, Printer, Quiet, StoredForm
from parallel_agent.cli.signals import Interrupts, leave_at_once
from parallel_agent.cli.streams import above_the_view, to_standard_error
from parallel_agent.cli.target import TargetError, load
from parallel_agent.observe.harmless import one_line
from parallel_agent.observe.outline import outline
from session.event import USER
from session.folder_artifacts import FolderArtifactService
from session.session import SessionKey

__all__ = ["cli"]

Mode: TypeAlias = Literal["plain", "live", "json", "quiet"]

FAILED: Final = 1
COULD_NOT_START: Final = 2
NOBODY_READS: Final = 141  # what shells say of a program that SIGPIPE ended
INTERRUPTED: Final = 130

_SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _version() -> str:
    try:
        return version("parallel-agent")
    except PackageNotFoundError:
        return "(not installed)"


@click.group(context_settings=_SETTINGS)
@click.version_option(_version(), prog_name="parallel-agent")
def cli() -> None:
    """Run trees of agents from a shell.

    \b
    Examples:
      parallel-agent tree my_tree.py                    show the tree
      parallel-agent run my_tree.py "Is this so?"       run it: a live tree, then the answer
      parallel-agent run my_tree.py -f report.txt       the message is a file
      parallel-agent run --json my_tree.py | jq .author one event a line
      parallel-agent run --help                         all about running
    """  # noqa: D301  # \b is click's, and keeps the lines as they are


_TARGET_HELP: Final = """\
\b
TARGET is where the tree is:
  my_tree.py            the only tree in a Python file
  my_tree.py:refine     the agent that this file calls refine
  package.module:tree   an attribute of a module (the working folder is looked at first)
Importing the file runs it, but for what is under `if __name__ == "__main__":`."""


@cli.command(
    short_help="Run a tree and print its events.",
    help=f"""Run a tree and print its events as they come.

\b
Examples:
  parallel-agent run my_tree.py "Is this so?"
  parallel-agent run my_tree.py:refine -f draft.md
  git diff | parallel-agent run --quiet agents.review:tree > review.txt
  parallel-agent run --json my_tree.py "Is this so?" | jq -r .author
  parallel-agent run my_tree.py --state depth=3 --state 'user:tags=["a", "b"]'
  parallel-agent run my_tree.py --respond approve=yes
  parallel-agent run my_tree.py --timeout 60 -- "--this is the message"

{_TARGET_HELP}

MESSAGE is what the user says. Without it and -f, standard input is the message if a pipe or a
file was put there; `-` asks for it whatever it is. A pipe must end before the run can begin. A
newline at its end is left out.

On a terminal a live tree shows each agent's status, time, number of events and last text, and after
the run the final text. In a pipe each event is a line: branch, author, text. Remarks go to standard
error. Control characters in an agent's text are made visible.

Ctrl-C cancels the tree, says who is still cleaning up, and waits for them; what they record is
printed. A second Ctrl-C ends at once.

\b
Exit status:
    0  completed
    1  failed, or the output could not be written
    2  could not start: wrong options, no tree at TARGET
    3  waiting for an answer: nobody was there to give it (see --respond)
  124  cancelled by --timeout
  130  cancelled by Ctrl-C (143: by SIGTERM, 129: by SIGHUP)
  141  nobody reads the output any more, as in `| head`; the run was cancelled
""",
)
@click.argument("target")
@click.argument("message", required=False)
@click.option("-f", "--file", metavar="FILE", help="Read the message from FILE.")
@click.option(
    "--state",
    "state_items",
    metavar="KEY=VALUE",
    multiple=True,
    help="Write this to the session's state with the message; may be repeated. The value is JSON "
    "if it can be read as such, else text. KEY may begin with app:, user: or temp:.",
)
@click.option(
    "--session",
    "session_id",
    metavar="ID",
    help="The session's id; a new one by default. Sessions are kept in memory, so for now each "
    "command has a new one.",
)
@click.option("--user", "user_id", metavar="ID", help='Whose session it is; by default "user".')
@click.option(
    "--artifacts",
    metavar="FOLDER",
    help="Keep what agents save as artifacts in FOLDER; without it they are gone with the run.",
)
@click.option(
    "--respond",
    "responses",
    metavar="ID=VALUE",
    multiple=True,
    help="Answer a question that an agent asks; may be repeated. ID is the question's id, its "
    "path, or the agent's name; the value is JSON, yes, no, or text. On a terminal you are asked.",
)
@click.option("--timeout", type=float, metavar="SECONDS", help="Cancel the run after so long.")
@click.option("--live", is_flag=True, help="A live tree, even if this is no terminal.")
@click.option("--plain", is_flag=True, help="A line for each event, even on a terminal.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each event, as stored.")
@click.option("-q", "--quiet", is_flag=True, help="Only the final text.")
@click.option(
    "--partial", is_flag=True, help="Also print pieces of messages that come whole later."
)
@click.option("--traceback", "full_traceback", is_flag=True, help="Of an error, all there is.")
def run(**options: Any) -> None:
    asked = _Asked(**options)
    printer = Printer(sys.stdout, sys.stderr)
    mode = _mode(asked, printer)
    with _interrupted_quietly(), _prints_apart(mode, printer):
        _run(asked, mode, printer)


@cli.command(
    short_help="Show a tree without running it.",
    help=f"""Show a tree without running it: of each agent its name, what it is, the state key it
writes its output to, and its description.

\b
Examples:
  parallel-agent tree my_tree.py
  parallel-agent tree my_tree.py:refine
  parallel-agent tree agents.review:tree
  parallel-agent tree my_tree.py | less

{_TARGET_HELP}
""",
)
@click.argument("target")
def tree(target: str) -> None:
    printer = Printer(sys.stdout, sys.stderr)
    with _interrupted_quietly():
        found = _load(target)
    try:
        printer.print(outline(found, ascii_only=not _can_draw(sys.stdout)))
    except OutputClosedError as error:
        _end_unprinted(error, printer)


@attrs.frozen
class _Asked:
    """What the options of `run` say."""

    target: str
    message: str | None
    file: str | None
    state_items: tuple[str, ...]
    session_id: str | None
    user_id: str | None
    artifacts: str | None
    responses: tuple[str, ...]
    timeout: float | None
    live: bool
    plain: bool
    as_json: bool
    quiet: bool
    partial: bool
    full_traceback: bool


def _run(asked: _Asked, mode: Mode, printer: Printer) -> NoReturn:
    try:
        state = parse_state(asked.state_items)
        timeout = _check_timeout(asked.timeout)
        session_id = _check_id(asked.session_id, "--session")
        user_id = _check_id(asked.user_id, "--user")
        artifacts = _artifacts_in(asked.artifacts)
        responses = parse_responses(asked.responses)
        tree = _load(asked.target)
        message = find_message(asked.message, asked.file, sys.stdin, printer.remark)
    except InputError as error:
        raise click.UsageError(one_line(str(error))) from None
    options = RunOptions(
        message=message,
        user_id=user_id or USER,
        session_id=session_id,
        state=state,
        timeout=timeout,
        artifacts=artifacts,
        responses=responses,
        read=_reader(mode),
    )
    ended = _execute(tree, options, _show(asked, mode, printer), printer)
    if artifacts is not None and mode != "quiet":
        printer.remark(_saved(artifacts, tree, options, ended))
    sys.exit(exit_status(ended))


def _saved(artifacts: FolderArtifactService, tree: Agent, options: RunOptions, ended: Ended) -> str:
    result = ended.result
    if result is None:
        return artifacts_line((), str(artifacts.folder), lambda _name, _version: None)
    key = SessionKey(tree.name, options.user_id, result.session_id)
    return artifacts_line(
        result.events,
        str(artifacts.folder),
        lambda name, version: artifacts.path_of(key, name, version),
    )


def _execute(tree: Agent, options: RunOptions, show: Show, printer: Printer) -> Ended:
    with Interrupts(leave_at_once) as interrupts:
        try:
            ended = trio.run(execute, tree, options, show, interrupts)
            show.ended(ended)
            for name in ended.unused:
                show.remark(unused_answer(name, ended.asked))
        except OutputClosedError as error:
            _end_unprinted(error, printer)
    return ended


def _end_unprinted(error: OutputClosedError, printer: Printer) -> NoReturn:
    if not error.why:
        sys.exit(NOBODY_READS)
    printer.remark(f"the output cannot be written: {one_line(error.why)}")
    sys.exit(FAILED)


# ------------------------------------------------------------------------------- what was asked for


def _mode(asked: _Asked, printer: Printer) -> Mode:
    flags: dict[Mode, bool] = {
        "live": asked.live,
        "plain": asked.plain,
        "json": asked.as_json,
        "quiet": asked.quiet,
    }
    modes: list[Mode] = [mode for mode, is_asked in flags.items() if is_asked]
    if len(modes) > 1:
        message = f"--{modes[0]} and --{modes[1]} exclude each other"
        raise click.UsageError(message)
    if modes:
        return modes[0]
    return "live" if _is_terminal(printer) else "plain"


def _show(asked: _Asked, mode: Mode, printer: Printer) -> Show:
    full = asked.full_traceback
    match mode:
        case "plain":
            return Lines(printer, partial=asked.partial, full_traceback=full)
        case "json":
            return StoredForm(printer, partial=asked.partial, full_traceback=full)
        case "quiet":
            return Quiet(printer, full_traceback=full)
        case "live":
            return LiveTree(printer, force_terminal=asked.live, full_traceback=full)


def _reader(mode: Mode) -> ReadLine | None:
    """Return what reads from the person at the terminal; None if there is none."""
    stdin, stderr = sys.stdin, sys.stderr
    if mode in ("json", "quiet") or stdin is None or stderr is None:
        return None
    return stdin.readline if stdin.isatty() and stderr.isatty() else None


def _is_terminal(printer: Printer) -> bool:
    console = Console(file=printer.out)
    return console.is_terminal and not console.is_dumb_terminal


def _check_timeout(seconds: float | None) -> float | None:
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        message = f"--timeout takes seconds, more than 0, not {seconds:g}"
        raise InputError(message)
    return seconds


def _check_id(name: str | None, option: str) -> str | None:
    if name == "":
        message = f"{option} is empty"
        raise InputError(message)
    return None if name is None else check_text(name, option)


def _artifacts_in(folder: str | None) -> FolderArtifactService | None:
    if folder is None:
        return None
    try:
        return FolderArtifactService(check_text(folder, "--artifacts"))
    except (OSError, ValueError) as error:
        message = f"--artifacts: {error}"
        raise InputError(message) from None


def _load(target: str) -> Agent:
    try:
        return load(check_text(target, "TARGET"))
    except TargetError as error:
        if error.details:
            click.echo(error.details, err=True)
        click.echo(f"Error: {error}", err=True)
        sys.exit(COULD_NOT_START)


# --------------------------------------------------------------------------------- the surroundings


@contextlib.contextmanager
def _interrupted_quietly() -> Generator[None]:
    """End without a traceback if Ctrl-C comes before the run has begun, or after it has ended."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _prints_apart(mode: Mode, printer: Printer) -> contextlib.AbstractContextManager[None]:
    """Keep what agents print themselves out of what this mode prints."""
    match mode:
        case "json" | "quiet":
            return to_standard_error(printer)
        case "live":
            return above_the_view()
        case "plain":
            return contextlib.nullcontext()


def _can_draw(stream: TextIO | None) -> bool:
    try:
        "├└│─…".encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
