"""``parallel-agent replay``: a recorded run again, in its order or in every other."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from parallel_agent.cli.describe import event_lines
from parallel_agent.observe.harmless import one_line
from parallel_agent.testing.recorded import (
    LogError,
    OtherState,
    as_test,
    find_other_state,
    read_log,
)
from session.event import Event

__all__ = ["replay"]

FOUND: Final = 1


@click.command(
    short_help="Look at a recorded run in other orders.",
    help="""Print what a run has recorded; or look for an order in which it ends differently.

LOG is what `parallel-agent run --json` has printed, a line of JSON for each event; or what
`sessions show --json` or `sessions export` prints of a session with one run. `-` is standard input.

\b
Examples:
  parallel-agent run --json my_tree.py "Is this so?" > run.jsonl
  parallel-agent replay run.jsonl
  parallel-agent replay run.jsonl --explore
  parallel-agent replay run.jsonl --explore --write tests/test_order.py

With --explore, agents that do what the log says run again, in every order there is (or in so many
as --schedules says), until the final state is another: then that run is drawn, and --write makes a
test of it that pytest runs. What an agent read, and would have done had it seen something else, no
log tells. Nor does it tell which keys have a reducer: --ignore those, or their contributions look
as if they overwrote each other.

\b
Exit status:
  0  printed; or no order was found in which the state is another
  1  one was found
  2  the log cannot be read, or the file not be written
""",
)
@click.argument("log")
@click.option("--explore", is_flag=True, help="Look for an order with another final state.")
@click.option(
    "--schedules",
    type=click.IntRange(min=1),
    default=1_000,
    show_default=True,
    help="How many orders are tried, at most.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Where random orders come from."
)
@click.option(
    "--ignore", metavar="KEY", multiple=True, help="Do not look at this state key. Any number."
)
@click.option("--write", metavar="FILE", help="Write a test of what was found to FILE.")
def replay(**options: Any) -> None:
    """Run the command; click hands over its options by their names."""
    _replay(**options)


def _replay(
    *,
    log: str,
    explore: bool,
    schedules: int,
    seed: int,
    ignore: tuple[str, ...],
    write: str | None,
) -> None:
    if write is not None and not explore:
        message = "--write writes down what --explore has found; give both"
        raise click.UsageError(message)
    try:
        events = _read(log)
        if not explore:
            for event in events:
                click.echo(event_lines(event))
            return
        found = find_other_state(events, max_schedules=schedules, seed=seed, ignore=ignore)
        if not isinstance(found, OtherState):
            of = "all there are" if found.exhausted else f"of more than {schedules}"
            click.echo(f"the same final state in {found.schedules} orders ({of})")
            return
        _show(found)
        if write is not None:
            Path(write).write_text(as_test(events, found), encoding="utf-8")
            click.echo(f"\nwritten to {one_line(write)}; run it with pytest", err=True)
    except LogError as error:
        raise click.UsageError(one_line(str(error))) from None
    except OSError as error:
        raise click.UsageError(one_line(f"{error.filename}: {error.strerror}")) from None
    sys.exit(FOUND)


def _read(log: str) -> Sequence[Event]:
    if log == "-":
        return read_log(sys.stdin, "standard input")
    try:
        with Path(log).open(encoding="utf-8") as lines:
            return read_log(lines, log)
    except UnicodeDecodeError as error:
        message = f"{log} is no text: {error}"
        raise LogError(message) from None


def _show(found: OtherState) -> None:
    click.echo("in another order the final state is another:\n")
    for key in found.keys:
        recorded, other = _value(found.recorded, key), _value(found.other, key)
        click.echo(f"  {one_line(key)}: {recorded} was recorded, and now it is {other}")
    click.echo(f"\n{found.report}")
    click.echo(f"\nschedule: {list(found.schedule.choices)}")


def _value(state: Any, key: str) -> str:
    return one_line(repr(state[key]))[:60] if key in state else "nothing"
