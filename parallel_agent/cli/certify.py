"""``parallel-agent certify``: whether a tree survives being killed, at every boundary."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Self

import click
import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from parallel_agent.certify.certificate import Certificate, Trial
from parallel_agent.certify.engine import certify as make_certificate
from parallel_agent.certify.errors import CertifyError
from parallel_agent.certify.loading import find
from parallel_agent.cli.inputs import InputError, find_message, parse_responses, parse_state
from parallel_agent.cli.target import TargetError, load
from parallel_agent.observe.harmless import harmless, one_line

__all__ = ["certify", "find_target"]

FOUND: Final = 1
COULD_NOT_START: Final = 2
INTERRUPTED: Final = 130


@click.command(
    short_help="Kill a run at every boundary, and see whether it survives.",
    help="""Run a tree, kill its process at every boundary, resume it each time, and compare with
the run that nobody killed.

A boundary is before, during and after each time that something is recorded, and before and after
what an agent does by `ctx.once`. Each run has processes, a database and an empty working folder of
its own. At a sample of the boundaries the resumed run is killed again.

\b
Examples:
  parallel-agent certify my_tree.py "Is this so?"
  parallel-agent certify refunds.py:tree "order 7" --check paid_once
  parallel-agent certify refunds.py:tree "order 7" --check paid_once --at 14 --keep trials
  parallel-agent certify my_tree.py --max-boundaries 50 --json > certificate.json

\b
TARGET is where the tree is, as for `parallel-agent run`. With a name it may also be a function
that makes the tree; or one with the parameters `**options`, which makes a Runner with these
options and its own.

What agents do outside, no log tells: an agent that runs again from its start does it again, unless
it is guarded by ctx.once or ctx.checkpoint. Such agents are named. --harmless says of one that it
does nothing outside; --check names a function that looks, at the end of each run.

\b
Exit status:
    0  the tree survives
    1  it does not; the certificate says why
    2  there is no certificate: wrong options, no tree at TARGET, no run to compare with
  130  Ctrl-C
""",
)
@click.argument("target")
@click.argument("message", required=False)
@click.option("-f", "--file", metavar="FILE", help="Read the message from FILE.")
@click.option(
    "--check",
    metavar="NAME",
    help="A function of the result, in the same file (or FILE.py:NAME, package.module:NAME). It is "
    "called in the working folder of each run, and raises what is wrong there.",
)
@click.option(
    "--prepare",
    metavar="NAME",
    help="A function without parameters that puts what agents need into the working folder.",
)
@click.option(
    "--harmless",
    metavar="AGENT",
    multiple=True,
    help="This agent does nothing outside, and may run again; may be repeated.",
)
@click.option("--state", "state_items", metavar="KEY=VALUE", multiple=True, help="As for `run`.")
@click.option(
    "--respond",
    "responses",
    metavar="ID=VALUE",
    multiple=True,
    help="Answer a question; ID is its id, its path or the agent's name, VALUE is JSON or text.",
)
@click.option(
    "--db",
    metavar="URL",
    default="sqlite",
    help="The URL of a database that was made for this; by default temporary SQLite files.",
)
@click.option(
    "--at",
    metavar="N[,M...]",
    help="Only kill it at boundary N, then the process that resumes at its boundary M, ...",
)
@click.option(
    "--every", type=click.IntRange(min=1), default=1, help="Only every so many-th boundary."
)
@click.option("--max-boundaries", type=click.IntRange(min=1), help="So many at most, spread.")
@click.option(
    "--second-every",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="Kill one of so many resumed runs again; 0: none.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Side by side."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="A process that takes longer hangs.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Draws what is drawn.")
@click.option(
    "--keep", metavar="FOLDER", help="Keep databases, notes and output of all runs there."
)
@click.option("--json", "as_json", is_flag=True, help="Print the certificate as JSON.")
def certify(**options: Any) -> None:
    """Run the command; click hands over its options by their names."""
    try:
        _certify(**options)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def find_target(target: str) -> Any:
    """Find the tree as `run` does; or, if it has a name, what makes one.

    Raises:
        CertifyError: there is nothing of the kind.
    """
    try:
        return load(target)
    except TargetError as error:
        if ":" in target and not error.details:
            try:
                found = find(target)
            except CertifyError:
                found = None  # what `load` has said is clearer
            if callable(found):
                return found
        raise CertifyError(str(error), details=error.details) from None


def _certify(
    *,
    target: str,
    message: str | None,
    file: str | None,
    state_items: tuple[str, ...],
    responses: tuple[str, ...],
    at: str | None,
    keep: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    shown = _shown()
    try:
        with shown as progress:
            certificate = trio.run(
                _make,
                target,
                {
                    **options,
                    "message": find_message(message, file, sys.stdin, _remark),
                    "state": parse_state(state_items),
                    "responses": {name: _value(text) for name, text in parse_responses(responses)},
                    "at": None if at is None else _numbers(at),
                    "folder": keep,
                    "progress": progress,
                    "loader": f"{__name__}:{find_target.__name__}",
                },
            )
    except InputError as error:
        raise click.UsageError(one_line(str(error))) from None
    except CertifyError as error:
        if error.details:
            _remark(harmless(error.details).rstrip("\n"))
        _remark(f"Error: {one_line(str(error))}")
        sys.exit(COULD_NOT_START)
    click.echo(certificate.to_json() if as_json else harmless(certificate.text()))
    if keep is not None:
        for trial in certificate.trials:
            if trial.verdict not in ("survives", "not reached"):
                _remark(f"kept: {one_line(trial.folder)} ({trial.at}: {trial.verdict})")
    sys.exit(0 if certificate.survives else FOUND)


async def _make(target: str, options: dict[str, Any]) -> Certificate:
    return await make_certificate(target, **options)


def _remark(text: str) -> None:
    click.echo(text, err=True)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(one) for one in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        message = f"--at takes numbers of boundaries, from 1 on, as in 14 or 14,3, not {text!r}"
        raise InputError(message)
    return numbers


def _shown() -> AbstractContextManager[Callable[[int, int, Trial], object] | None]:
    """Return a block that shows how far it is, on a terminal."""
    console = Console(stderr=True)
    return _Bar(console) if console.is_terminal and not console.is_dumb_terminal else nullcontext()


class _Bar(AbstractContextManager["_Bar"]):
    """A bar on the terminal that is gone at the end."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("killing and resuming", total=None)
        self._found = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._progress.stop()

    def __call__(self, done: int, total: int, trial: Trial) -> None:
        self._found += trial.verdict not in ("survives", "not reached")
        what = f"killing and resuming ({self._found} found)" if self._found else None
        self._progress.update(self._task, completed=done, total=total, description=what)
