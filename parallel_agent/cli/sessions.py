"""``parallel-agent sessions``: what a database of sessions holds, and how it gets there or goes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TextIO, TypeAlias

import attrs
import click
import trio

from parallel_agent.cli.conduct import check_id, end_unprinted, interrupted_quietly, not_started
from parallel_agent.cli.describe import time_text
from parallel_agent.cli.inputs import InputError, check_text
from parallel_agent.cli.options import database_option
from parallel_agent.cli.running import OutputClosedError
from parallel_agent.cli.show import Lines, Printer, StoredForm
from parallel_agent.cli.store import Database, NotStartedError, why_not
from parallel_agent.observe.harmless import json_line, one_line
from parallel_agent.records import void_events
from session.codec import Codec
from session.errors import SessionExistsError, SessionNotFoundError
from session.lease import UnfinishedRun
from session.portable import SessionFormatError
from session.service import SessionInfo
from session.session import SessionKey

if TYPE_CHECKING:
    from session.database.service import DatabaseSessionService

__all__ = ["sessions"]

Work: TypeAlias = "Callable[[DatabaseSessionService, Printer], Awaitable[None]]"

_PAGE: Final = 500
_HEAD: Final = ("app", "user", "id", "events", "updated", "unfinished")
_SEVERAL: Final = 20

_EXIT_STATUS: Final = """\
\b
Exit status:
    0  done
    1  the output could not be written; or it was not to be deleted
    2  no such session or database, several such sessions, or a damaged file
"""


@attrs.frozen
class _Wanted:
    """Which sessions are meant; None is any."""

    app_name: str | None
    user_id: str | None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> _Wanted:
        try:
            return cls(
                check_id(options["app_name"], "--app"), check_id(options["user_id"], "--user")
            )
        except InputError as error:
            raise click.UsageError(one_line(str(error))) from None


def _named(command: Any) -> Any:
    for option in (
        click.option("--user", "user_id", metavar="ID", help="Only this user's; by default any."),
        click.option("--app", "app_name", metavar="NAME", help="Only this application's."),
        database_option(required=True),
    ):
        command = option(command)
    return command


@click.group(
    short_help="List, show, export, import or delete sessions.",
    help="""List, show, export, import or delete the sessions of a database.

\b
Examples:
  parallel-agent sessions list --db sessions.db
  parallel-agent sessions show s1 --db sessions.db
  parallel-agent sessions export s1 --db sessions.db > s1.jsonl
  parallel-agent sessions import s1.jsonl --db other.db
  parallel-agent sessions delete s1 --db sessions.db

A session is named by its id. If several applications or users have one of that id, --app and --user
say which. The environment variable PARALLEL_AGENT_DB may stand for --db.
""",
)
def sessions() -> None:
    """Hold the commands."""


# ------------------------------------------------------------------------------------------- list


@sessions.command(
    "list",
    short_help="A line for each session.",
    help=f"""Print a line for each session: application, user, id, number of events, last update,
and, if its run has not finished, how that stands: running, waiting (for an answer), interrupted,
or crashed.

\b
Examples:
  parallel-agent sessions list --db sessions.db
  parallel-agent sessions list --db sessions.db --app shop --user ann
  parallel-agent sessions list --db sessions.db --unfinished
  parallel-agent sessions list --db sessions.db --json | jq -r .sessionId

The events are all that is recorded, with what the runtime notes to be able to resume.

{_EXIT_STATUS}""",
)
@_named
@click.option("--unfinished", is_flag=True, help="Only those whose run has not finished.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each session.")
def list_(*, database: Database, unfinished: bool, as_json: bool, **options: Any) -> None:
    """Run the command; click hands over its options by their names."""
    wanted = _Wanted.of(options)

    async def work(service: DatabaseSessionService, printer: Printer) -> None:
        head = [] if as_json else [_HEAD]
        async with aclosing(_pages(service, wanted)) as pages:
            async for page, runs in pages:
                rows = [
                    (info, runs.get(info.key))
                    for info in page
                    if not unfinished or info.key in runs
                ]
                if rows:
                    lines = [_as_json(*row) for row in rows] if as_json else _table(head, rows)
                    printer.print("\n".join(lines))
                    head = []

    _do(database, work)


async def _pages(
    service: DatabaseSessionService, wanted: _Wanted
) -> AsyncGenerator[tuple[list[SessionInfo], Mapping[SessionKey, UnfinishedRun]]]:
    """Yield the sessions by application, user and id; never all of them are held at once."""
    names = await service.app_names() if wanted.app_name is None else [wanted.app_name]
    for name in names:
        found = await service.unfinished(app_name=name, user_id=wanted.user_id)
        runs = {run.key: run for run in found}
        after: SessionKey | None = None
        while True:
            page = await service.list_page(
                app_name=name, user_id=wanted.user_id, after=after, limit=_PAGE
            )
            yield page, runs
            if len(page) < _PAGE:
                break
            after = page[-1].key


def _table(
    head: Sequence[tuple[str, ...]], rows: Sequence[tuple[SessionInfo, UnfinishedRun | None]]
) -> list[str]:
    """Return the lines of a page, its columns as wide as they must be."""
    cells: list[tuple[str, ...]] = [
        *head,
        *(
            (
                one_line(info.key.app_name),
                one_line(info.key.user_id),
                one_line(info.key.session_id),
                f"{info.last_seq:,}",
                time_text(info.last_update_time),
                "" if run is None else run.status,
            )
            for info, run in rows
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            f"{cell:>{width}}" if column == _HEAD.index("events") else f"{cell:{width or 1}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def _as_json(info: SessionInfo, run: UnfinishedRun | None) -> str:
    fields = {
        "appName": info.key.app_name,
        "userId": info.key.user_id,
        "sessionId": info.key.session_id,
        "lastSeq": info.last_seq,
        "lastUpdateTime": info.last_update_time,
        "unfinished": None if run is None else run.status,
    }
    return json_line(json.dumps(fields), ascii_only=True)


# ------------------------------------------------------------------------------------------- show


@sessions.command(
    short_help="The events of a session.",
    help=f"""Print the events of a session, as `run` prints them: a line for each, with branch,
author and text. What the runtime notes for itself is left out, and what agents had said that were
cut off before the run was resumed, and began again.

\b
Examples:
  parallel-agent sessions show s1 --db sessions.db
  parallel-agent sessions show s1 --db sessions.db --last 20
  parallel-agent sessions show s1 --db sessions.db --app shop --user ann
  parallel-agent sessions show s1 --db sessions.db --json | jq -r .author

{_EXIT_STATUS}""",
)
@click.argument("session_id", metavar="ID")
@_named
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the last N recorded.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each event, as stored.")
def show(
    *, database: Database, session_id: str, last: int | None, as_json: bool, **options: Any
) -> None:
    """Run the command; click hands over its options by their names."""
    wanted = _Wanted.of(options)

    async def work(service: DatabaseSessionService, printer: Printer) -> None:
        info, run = await _find(service, wanted, session_id)
        shown = (StoredForm if as_json else Lines)(printer, partial=False)
        printer.remark(_about(info, run))
        skipped = 0 if last is None else max(0, info.last_seq - last)
        void = await _void(service, info.key)
        async with aclosing(_exported(service, info.key)) as lines:
            codec = Codec()
            await anext(lines)
            async for line in lines:
                skipped -= 1
                if skipped >= 0:
                    continue
                event = codec.loads(line)
                if not event.is_record and event.seq not in void:
                    shown.event(event)

    _do(database, work)


async def _void(service: DatabaseSessionService, key: SessionKey) -> set[int]:
    """Return the numbers of the events that no longer count.

    What says so comes after them; so the log is read twice, rather than held.
    """
    codec = Codec()
    async with aclosing(_exported(service, key)) as lines:
        await anext(lines)
        # Most lines need no closer look.
        return void_events([codec.loads(line) async for line in lines if '"void"' in line])


def _about(info: SessionInfo, run: UnfinishedRun | None) -> str:
    count = f"{info.last_seq:,} event{'' if info.last_seq == 1 else 's'} recorded"
    said = f"{one_line(str(info.key))}: {count}, {time_text(info.last_update_time)}"
    if run is None:
        return said
    owner = "" if run.owner is None else f" by {one_line(run.owner)}"
    return f"{said}, run {one_line(run.run_id)} is {run.status}{owner}"


def _exported(service: DatabaseSessionService, key: SessionKey) -> AsyncGenerator[str]:
    lines: Any = service.export_session(
        app_name=key.app_name, user_id=key.user_id, session_id=key.session_id
    )
    return lines  # type: ignore[no-any-return]  # the contract says that it can be closed


async def _find(
    service: DatabaseSessionService, wanted: _Wanted, session_id: str
) -> tuple[SessionInfo, UnfinishedRun | None]:
    """Return the one session of this id.

    Raises:
        NotStartedError: there is none, or there are several.
    """
    found = list[tuple[SessionInfo, UnfinishedRun | None]]()
    async with aclosing(_pages(service, wanted)) as pages:
        async for page, runs in pages:
            found += [
                (info, runs.get(info.key)) for info in page if info.key.session_id == session_id
            ]
    if len(found) == 1:
        return found[0]
    if not found:
        message = f"there is no session {one_line(session_id)}"
        if wanted.app_name is not None:
            message += f" of application {one_line(wanted.app_name)}"
        if wanted.user_id is not None:
            message += f" of user {one_line(wanted.user_id)}"
        raise NotStartedError(message)
    lines = [
        f"\n  --app {one_line(info.key.app_name)} --user {one_line(info.key.user_id)}"
        for info, _ in found[:_SEVERAL]
    ]
    more = f"\n  and {len(found) - _SEVERAL:,} more" if len(found) > _SEVERAL else ""
    message = f"there are several sessions {one_line(session_id)}. Say which one:"
    raise NotStartedError(message + "".join(lines) + more)


# ------------------------------------------------------------------------- export, import, delete


@sessions.command(
    short_help="A session as lines of JSON.",
    help=f"""Print a session as lines of JSON: a header, then each event, all that is recorded.
`import` makes it a session again, here or in another database.

\b
Examples:
  parallel-agent sessions export s1 --db sessions.db > s1.jsonl
  parallel-agent sessions export s1 --db sessions.db -o s1.jsonl
  parallel-agent sessions export s1 --db sessions.db --app shop --user ann
  parallel-agent sessions export s1 --db sessions.db | gzip > s1.jsonl.gz

A run that has not finished is exported as what it has recorded; it cannot be resumed elsewhere.

{_EXIT_STATUS}""",
)
@click.argument("session_id", metavar="ID")
@_named
@click.option("-o", "--output", metavar="FILE", help="Write to FILE; when all is there, at once.")
def export(*, database: Database, session_id: str, output: str | None, **options: Any) -> None:
    """Run the command; click hands over its options by their names."""
    wanted = _Wanted.of(options)

    async def work(service: DatabaseSessionService, printer: Printer) -> None:
        info, _ = await _find(service, wanted, session_id)
        async with aclosing(_exported(service, info.key)) as lines:
            if output is None:
                is_unicode = _is_unicode(printer.out)
                async for line in lines:
                    printer.print(json_line(line, ascii_only=not is_unicode))
            else:
                await _write(lines, output)
                printer.remark(f"{one_line(str(info.key))}: written to {one_line(output)}")

    _do(database, work)


async def _write(lines: AsyncIterator[str], output: str) -> None:
    # Beside it, and then in its place: a file that is there is a whole one.
    half = Path(f"{output}.{os.getpid()}.part")
    try:
        with half.open("w", encoding="utf-8", newline="\n") as stream:  # noqa: ASYNC230  # alone here
            async for line in lines:
                stream.write(f"{line}\n")
        half.replace(output)  # noqa: ASYNC240  # as above
    except OSError as error:
        message = f"{output} cannot be written: {error.strerror or error}"
        raise NotStartedError(message) from None
    finally:
        half.unlink(missing_ok=True)  # noqa: ASYNC240  # as above


def _is_unicode(stream: TextIO | None) -> bool:
    encoding = getattr(stream, "encoding", None) or "ascii"
    return encoding.lower().replace("-", "").startswith("utf")


@sessions.command(
    "import",
    short_help="Keep a session that was exported.",
    help=f"""Keep a session that `export` has printed, with its name, numbers and times.

\b
Examples:
  parallel-agent sessions import s1.jsonl --db sessions.db
  parallel-agent sessions import - --db sessions.db < s1.jsonl
  PARALLEL_AGENT_DB=sessions.db parallel-agent sessions import s1.jsonl

FILE is standard input if it is `-` or left out. Nothing is overwritten: a session that is there
must be deleted first. A file that was cut off or changed is refused, with the line where that
shows, and nothing is kept of it. app: and user: state is set only where it has no value yet.

{_EXIT_STATUS}""",
)
@click.argument("file", default="-")
@database_option(required=True)
def import_(*, database: Database, file: str) -> None:
    """Run the command; click hands over its options by their names."""

    async def work(service: DatabaseSessionService, printer: Printer) -> None:
        try:
            text = _read(file)
            # Not `splitlines`: a text in an event may hold what that takes for the end of a line.
            key = await service.import_session(text.removesuffix("\n").split("\n") if text else ())
        except SessionFormatError as error:
            message = f"{_called(file)} is no whole export of a session: {error}"
            raise NotStartedError(message) from None
        except SessionExistsError as error:
            message = f"there is a session {error.key} already: delete it first"
            raise NotStartedError(message) from None
        printer.print(one_line(str(key)))

    _do(database, work, make=True)


def _read(file: str) -> str:
    try:
        if file == "-":
            return sys.stdin.buffer.read().decode() if sys.stdin is not None else ""
        return Path(check_text(file, "FILE")).read_bytes().decode()
    except (OSError, ValueError) as error:  # of UTF-8, too
        why = getattr(error, "strerror", None) or error
        message = f"{_called(file)} cannot be read: {why}"
        raise NotStartedError(message) from None


def _called(file: str) -> str:
    return "standard input" if file == "-" else one_line(file)


@sessions.command(
    short_help="Forget a session.",
    help=f"""Forget a session, with all its events. Asks before, unless --yes is given.

\b
Examples:
  parallel-agent sessions delete s1 --db sessions.db
  parallel-agent sessions delete s1 --db sessions.db --yes
  parallel-agent sessions delete s1 --db sessions.db --app shop --user ann
  PARALLEL_AGENT_DB=sessions.db parallel-agent sessions delete s1

app: and user: state stays: other sessions use it.

{_EXIT_STATUS}""",
)
@click.argument("session_id", metavar="ID")
@_named
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(*, database: Database, session_id: str, yes: bool, **options: Any) -> None:
    """Run the command; click hands over its options by their names."""
    wanted = _Wanted.of(options)

    async def work(service: DatabaseSessionService, printer: Printer) -> None:
        info, run = await _find(service, wanted, session_id)
        if not yes and not await trio.to_thread.run_sync(
            _is_sure, _about(info, run), abandon_on_cancel=True
        ):
            printer.remark("it stays")
            sys.exit(1)
        key = info.key
        await service.delete(app_name=key.app_name, user_id=key.user_id, session_id=key.session_id)
        printer.remark(f"deleted {one_line(str(key))}")

    _do(database, work)


def _is_sure(about: str) -> bool:
    try:
        return click.confirm(f"{about}. Delete it?", err=True)
    except click.Abort:
        click.echo(err=True)
        message = "nobody has said yes: give --yes to delete without being asked"
        raise NotStartedError(message) from None


# ----------------------------------------------------------------------------------- what is shared


def _do(database: Database, work: Work, *, make: bool = False) -> None:
    """Open the database and do the work; say what is wrong if that cannot be."""
    printer = Printer(sys.stdout, sys.stderr)

    async def main() -> None:
        async with database.open(make=make) as service:
            await work(service, printer)

    with interrupted_quietly():
        try:
            check_id(database.url, "--db")
            trio.run(main)
        except InputError as error:
            raise click.UsageError(one_line(str(error))) from None
        except OutputClosedError as error:
            end_unprinted(error, printer)
        except SessionNotFoundError as error:
            _refuse(f"{error}: it was deleted just now")
        except Exception as error:
            why = why_not(error)
            if why is None:
                raise
            _refuse(why)


def _refuse(why: str) -> NoReturn:
    not_started(NotStartedError(why))
