"""From what a command was asked to the end of the process: run a tree, and show it."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Generator, Sequence
from typing import Final, Literal, NoReturn, TypeAlias

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
from parallel_agent.cli.options import Asked
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
from parallel_agent.cli.store import Again, Database, NotStartedError
from parallel_agent.cli.streams import above_the_view, to_standard_error
from parallel_agent.cli.target import TargetError, load
from parallel_agent.cli.unfinished import Resuming
from parallel_agent.graph.guards import Refusal
from parallel_agent.observe.harmless import harmless, one_line
from session.event import USER
from session.folder_artifacts import FolderArtifactService
from session.session import SessionKey

__all__ = [
    "check_id",
    "conduct",
    "end_unprinted",
    "go_on",
    "interrupted_quietly",
    "load_tree",
    "not_started",
]

Mode: TypeAlias = Literal["plain", "live", "json", "quiet"]

FAILED: Final = 1
COULD_NOT_START: Final = 2
NOBODY_READS: Final = 141  # what shells say of a program that SIGPIPE ended
INTERRUPTED: Final = 130


def conduct(asked: Asked) -> NoReturn:
    """Run a tree. Ends the process.

    Raises:
        click.UsageError: what was asked for cannot be.
    """
    _conduct(asked, None, None)


def go_on(asked: Asked, answer: tuple[str, str] | None = None) -> NoReturn:
    """Go on with an unfinished run. Ends the process.

    ``answer`` is a question that must be open, by its id or name, and the answer to it.

    Raises:
        click.UsageError: what was asked for cannot be.
    """
    request = None if answer is None else answer[0]
    _conduct(asked, Resuming(asked.session_id, asked.user_id, request), answer)


def _conduct(asked: Asked, resuming: Resuming | None, answer: tuple[str, str] | None) -> NoReturn:
    printer = Printer(sys.stdout, sys.stderr)
    mode = _mode(asked, printer)
    with interrupted_quietly(), _prints_apart(mode, printer):
        _run(asked, resuming, answer, mode, printer)


def _run(
    asked: Asked,
    resuming: Resuming | None,
    answer: tuple[str, str] | None,
    mode: Mode,
    printer: Printer,
) -> NoReturn:
    try:
        state = parse_state(asked.state_items)
        timeout = _check_seconds(asked.timeout, "--timeout")
        session_id = check_id(asked.session_id, "--session")
        user_id = check_id(asked.user_id, "--user")
        app_name = check_id(asked.app_name, "--app")
        database = _database(asked)
        artifacts = _artifacts_in(asked.artifacts)
        responses = parse_responses(asked.responses)
        tree = load_tree(asked.target, asked.agents)
        message: str | None = None
        if resuming is None:
            message = find_message(asked.message, asked.file, sys.stdin, printer.remark)
    except InputError as error:
        raise click.UsageError(one_line(str(error))) from None
    again = None
    if database is not None:
        again = Again(asked.target, database, app_name, asked.artifacts, asked.agents)
    options = RunOptions(
        message=message,
        user_id=user_id or USER,
        app_name=app_name,
        session_id=session_id,
        state=state,
        timeout=timeout,
        artifacts=artifacts,
        responses=responses if answer is None else [answer],
        read=None if asked.suspend else _reader(mode),
        database=database,
        on_busy=asked.on_busy or "error",
        resuming=resuming,
        again=again,
    )
    ended = _execute(tree, options, _show(asked, mode, printer), printer)
    if artifacts is not None and mode != "quiet":
        printer.remark(_saved(artifacts, tree, ended))
    sys.exit(exit_status(ended))


def _saved(artifacts: FolderArtifactService, tree: Agent, ended: Ended) -> str:
    result = ended.result
    if result is None:
        return artifacts_line((), str(artifacts.folder), lambda _name, _version: None)
    key = SessionKey(ended.app_name or tree.name, ended.user_id, result.session_id)
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
            refusal = None if ended.result is None else Refusal.of(ended.result.output)
            if refusal is not None:
                show.remark(_refused(refusal))
            for name in ended.unused:
                show.remark(unused_answer(name, ended.asked))
        except NotStartedError as error:
            not_started(error)
        except OutputClosedError as error:
            end_unprinted(error, printer)
    return ended


def _refused(refusal: Refusal) -> str:
    kind = f" ({refusal.error_type})" if refusal.error_type else ""
    why = f": {refusal.reason}" if refusal.reason else ""
    return one_line(f"refused by {refusal.guard}{kind}{why}")


def not_started(error: Exception) -> NoReturn:
    """Say why nothing was begun, and end the process."""
    click.echo(f"Error: {harmless(str(error))}", err=True)
    sys.exit(COULD_NOT_START)


def end_unprinted(error: OutputClosedError, printer: Printer) -> NoReturn:
    """End the process: it can print no more."""
    if not error.why:
        sys.exit(NOBODY_READS)
    printer.remark(f"the output cannot be written: {one_line(error.why)}")
    sys.exit(FAILED)


# ------------------------------------------------------------------------------- what was asked for


def _mode(asked: Asked, printer: Printer) -> Mode:
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


def _show(asked: Asked, mode: Mode, printer: Printer) -> Show:
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


def _check_seconds(seconds: float | None, option: str) -> float | None:
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        message = f"{option} takes seconds, more than 0, not {seconds:g}"
        raise InputError(message)
    return seconds


def check_id(name: str | None, option: str) -> str | None:
    """Return a name that was given, if it can be one.

    Raises:
        InputError: it is empty, or no text.
    """
    if name == "":
        message = f"{option} is empty"
        raise InputError(message)
    return None if name is None else check_text(name, option)


def _database(asked: Asked) -> Database | None:
    lease = _check_seconds(asked.lease, "--lease")
    if asked.database is None:
        needing = {
            "--on-busy": asked.on_busy is not None,
            "--suspend": asked.suspend,
            "--lease": lease is not None,
        }
        for option in (option for option, is_given in needing.items() if is_given):
            message = f"{option} needs --db: without a database, the session ends with the command"
            raise InputError(message)
        return None
    check_id(asked.database.url, "--db")
    if lease is None:
        return asked.database
    return attrs.evolve(asked.database, lease_seconds=lease)


def _artifacts_in(folder: str | None) -> FolderArtifactService | None:
    if folder is None:
        return None
    try:
        return FolderArtifactService(check_text(folder, "--artifacts"))
    except (OSError, ValueError) as error:
        message = f"--artifacts: {error}"
        raise InputError(message) from None


def load_tree(target: str, agents: Sequence[str] = ()) -> Agent:
    """Return the tree at ``target``; without one, say why, and end the process.

    Raises:
        InputError: the target is no text.
    """
    try:
        return load(check_text(target, "TARGET"), agents)
    except TargetError as error:
        if error.details:
            click.echo(error.details, err=True)
        click.echo(f"Error: {error}", err=True)
        sys.exit(COULD_NOT_START)


# --------------------------------------------------------------------------------- the surroundings


@contextlib.contextmanager
def interrupted_quietly() -> Generator[None]:
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
