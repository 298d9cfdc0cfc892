"""``parallel-agent resume`` and ``respond``: go on with a run that was cut off, or waits."""

from __future__ import annotations

from typing import Any

import click

from parallel_agent.cli.conduct import check_id, go_on
from parallel_agent.cli.inputs import InputError, check_text
from parallel_agent.cli.options import (
    EXIT_STATUS,
    RESUMING,
    TARGET,
    Asked,
    display_options,
    durable_options,
    run_options,
)
from parallel_agent.observe.harmless import one_line

__all__ = ["respond", "resume"]


@click.command(
    short_help="Go on with a run that was cut off, or waits.",
    help=f"""Go on with a run that did not end: it was interrupted, its process died, or it waits
for an answer.

\b
Examples:
  parallel-agent resume my_tree.py --db sessions.db
  parallel-agent resume my_tree.py --db sessions.db --session s1
  parallel-agent resume my_tree.py --db sessions.db --session s1 --respond approve=yes
  parallel-agent resume my_tree.py --db sessions.db --on-busy queue

Without --session it is the only unfinished run there is; if there are several, they are listed, and
nothing is done.

{RESUMING}

A process that died keeps its session busy until its lease has ended (--lease of that command).
--on-busy queue waits for that.

{TARGET}

{EXIT_STATUS}""",
)
@click.argument("target")
@click.option("--session", "session_id", metavar="ID", help="Its session.")
@durable_options(required=True, waits=("error", "queue"))
@run_options()
@display_options()
def resume(**options: Any) -> None:
    """Run the command; click hands over its options by their names."""
    go_on(Asked(**options))


@click.command(
    short_help="Answer what a run waits for, and go on with it.",
    help=f"""Answer a question that a run has ended with, and go on with it.

\b
Examples:
  parallel-agent respond release.py --db sessions.db approve yes
  parallel-agent respond release.py --db sessions.db --session s1 approve yes
  parallel-agent respond release.py --db sessions.db approve '{{"version": 2}}'
  parallel-agent respond release.py --db sessions.db approve -- -1

REQUEST is the question's id, its path, or the name of the agent that asked: the run has said so
when it ended. ANSWER is JSON, yes, no, or text. To answer several questions at once, see `resume`.

{RESUMING}

{TARGET}

{EXIT_STATUS}""",
)
@click.argument("target")
@click.argument("request")
@click.argument("answer")
@click.option("--session", "session_id", metavar="ID", help="Its session; the only one by default.")
@durable_options(required=True, waits=("error", "queue"))
@run_options(answers=False)
@display_options()
def respond(request: str, answer: str, **options: Any) -> None:
    """Run the command; click hands over its options by their names."""
    try:
        given = check_id(request, "REQUEST") or "", check_text(answer, "ANSWER")
    except InputError as error:
        raise click.UsageError(one_line(str(error))) from None
    go_on(Asked(**options), given)
