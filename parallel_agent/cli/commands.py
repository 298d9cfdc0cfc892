"""The commands, their options, and what they say when asked for help."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, TextIO

import click

from parallel_agent.cli.conduct import conduct, end_unprinted, interrupted_quietly, load_tree
from parallel_agent.cli.inputs import InputError
from parallel_agent.cli.options import (
    EXIT_STATUS,
    TARGET,
    Asked,
    agents_option,
    display_options,
    durable_options,
    run_options,
)
from parallel_agent.cli.running import OutputClosedError
from parallel_agent.cli.show import Printer
from parallel_agent.observe.harmless import one_line
from parallel_agent.observe.outline import outline

__all__ = ["cli"]

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
      parallel-agent run flow.yaml -m "Is this so?"     a graph in YAML
      parallel-agent validate flow.yaml                 what is wrong with it, line by line
      parallel-agent draw flow.yaml -o flow.svg         a picture of a graph or a tree
      parallel-agent run --json my_tree.py | jq .author one event a line
      parallel-agent run my_tree.py --db sessions.db    keep the session, and be able to go on
      parallel-agent resume my_tree.py --db sessions.db go on with what was cut off
      parallel-agent run --help                         all about running
    """  # noqa: D301  # \b is click's, and keeps the lines as they are


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
  parallel-agent run my_tree.py --db sessions.db --session s1 "Is this so?"
  parallel-agent run my_tree.py --timeout 60 -- "--this is the message"

{TARGET}

MESSAGE is what the user says. Without it and -f, standard input is the message if a pipe or a
file was put there; `-` asks for it whatever it is. A pipe must end before the run can begin. A
newline at its end is left out.

On a terminal a live tree shows each agent's status, time, number of events and last text, and after
the run the final text. In a pipe each event is a line: branch, author, text. Remarks go to standard
error. Control characters in an agent's text are made visible.

Ctrl-C cancels the tree, says who is still cleaning up, and waits for them; what they record is
printed. A second Ctrl-C ends at once.

With --db the session is kept in a database, and a run that is cut off there (by Ctrl-C, a time
limit, a crash) or waits for an answer can go on: see `resume`, `respond` and `sessions`.

{EXIT_STATUS}""",
)
@click.argument("target")
@click.argument("message", required=False)
@click.option("-m", "--message", "said", metavar="TEXT", help="The message, as an option.")
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
    help="The session's id; by default a new one. Without --db it is kept in memory, and gone with "
    "the command.",
)
@durable_options(required=False, waits=("error", "queue", "interrupt"))
@run_options()
@display_options()
def run(message: str | None, said: str | None, **options: Any) -> None:
    if message is not None and said is not None:
        problem = "the message is given twice, as MESSAGE and with -m"
        raise click.UsageError(problem)
    conduct(Asked(message=message if said is None else said, **options))


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

{TARGET}
""",
)
@click.argument("target")
@agents_option()
def tree(target: str, agents: tuple[str, ...]) -> None:
    printer = Printer(sys.stdout, sys.stderr)
    with interrupted_quietly():
        try:
            found = load_tree(target, agents)
        except InputError as error:
            raise click.UsageError(one_line(str(error))) from None
    try:
        printer.print(outline(found, ascii_only=not _can_draw(sys.stdout)))
    except OutputClosedError as error:
        end_unprinted(error, printer)


def _can_draw(stream: TextIO | None) -> bool:
    try:
        "├└│─…".encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
