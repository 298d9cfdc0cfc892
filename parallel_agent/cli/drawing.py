"""``parallel-agent validate``, ``draw`` and ``schema``: graphs and trees, without running them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import click

from parallel_agent.cli.conduct import end_unprinted, interrupted_quietly, load_tree
from parallel_agent.cli.graph_files import GRAPH_FILES, NAME_CODE, Code, missing_code, problems_in
from parallel_agent.cli.inputs import InputError, check_text
from parallel_agent.cli.options import TARGET, agents_option
from parallel_agent.cli.running import OutputClosedError
from parallel_agent.cli.show import Printer
from parallel_agent.cli.target import TargetError, load_code
from parallel_agent.config.format import graph_schema
from parallel_agent.observe.harmless import one_line
from parallel_agent.observe.picture import to_dot, to_mermaid

__all__ = ["draw", "schema", "validate"]

FAILED: Final = 1
COULD_NOT: Final = 2

_KINDS: Final = {
    "": "mermaid",
    ".mmd": "mermaid",
    ".mermaid": "mermaid",
    ".md": "mermaid",
    ".dot": "dot",
    ".gv": "dot",
    ".svg": "svg",
}
"""What the end of a file's name says of what is in it."""


@click.command(
    short_help="Say what is wrong with graph files and trees.",
    help=f"""Load graph files or trees without running them, and say all that is wrong: a line for
each problem, FILE:LINE:COLUMN: what, as editors read it.

\b
Examples:
  parallel-agent validate flow.yaml
  parallel-agent validate flow.yaml --agents my_agents.py
  parallel-agent validate graphs/*.yaml

{TARGET}

\b
Exit status:
  0  nothing is wrong
  1  something is
  2  it could not be found out
""",
)
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@agents_option()
def validate(targets: tuple[str, ...], agents: tuple[str, ...]) -> None:
    """Run the command; click hands over its options by their names."""
    printer = Printer(sys.stdout, sys.stderr)
    wrong = False
    code = cache(lambda: load_code(agents))  # imported once, for however many files
    with interrupted_quietly():
        for target in targets:
            try:
                lines, is_wrong = _looked_at(target, agents, code)
            except InputError as error:
                raise click.UsageError(one_line(str(error))) from None
            wrong = wrong or is_wrong
            try:
                printer.print("\n".join(lines))
            except OutputClosedError as error:
                end_unprinted(error, printer)
    sys.exit(FAILED if wrong else 0)


def _looked_at(
    target: str, agents: tuple[str, ...], code: Callable[[], Code]
) -> tuple[list[str], bool]:
    if not check_text(target, "TARGET").endswith(GRAPH_FILES):
        tree = load_tree(target, agents)
        return [f"{one_line(target)}: {one_line(tree.name)} is a tree that can run"], False
    try:
        problems = problems_in(target, code())
    except (TargetError, ModuleNotFoundError) as error:
        if isinstance(error, TargetError) and error.details:
            click.echo(error.details, err=True)
        click.echo(f"Error: {error}", err=True)
        sys.exit(COULD_NOT)
    lines = [
        f"{one_line(str(problem))}{' (a note)' if problem.is_note else ''}" for problem in problems
    ]
    is_wrong = any(not problem.is_note for problem in problems)
    if not agents and missing_code(problems):
        click.echo(NAME_CODE, err=True)
    return lines if is_wrong else [*lines, f"{one_line(target)}: a graph that can run"], is_wrong


@click.command(
    short_help="Draw a graph or a tree.",
    help=f"""Draw a graph or a tree: as text for Mermaid (which GitHub and many editors show) or for
Graphviz, or as an SVG, for which Graphviz's `dot` must be installed.

\b
Examples:
  parallel-agent draw flow.yaml                     Mermaid
  parallel-agent draw my_tree.py --format dot
  parallel-agent draw flow.yaml -o flow.svg         the format follows from the name
  parallel-agent draw my_tree.py -o tree.md         Mermaid, in a page of Markdown

Thick arrows bring an output, thin ones only order; dotted ones were inferred from who writes and
who reads.

{TARGET}
""",
)
@click.argument("target")
@agents_option()
@click.option(
    "--format",
    "kind",
    type=click.Choice(("mermaid", "dot", "svg")),
    help="By default what FILE's name says, else mermaid.",
)
@click.option("-o", "--output", metavar="FILE", help="Write it to FILE.")
def draw(target: str, agents: tuple[str, ...], kind: str | None, output: str | None) -> None:
    """Run the command; click hands over its options by their names."""
    printer = Printer(sys.stdout, sys.stderr)
    with interrupted_quietly():
        try:
            tree = load_tree(target, agents)
        except InputError as error:
            raise click.UsageError(one_line(str(error))) from None
        suffix = Path(output or "").suffix
        if kind is None:
            kind = _KINDS.get(suffix)
        if kind is None:
            known = ", ".join(filter(None, _KINDS))
            problem = f"no format goes with {suffix!r}: say --format, or end in {known}"
            raise click.UsageError(one_line(problem))
        text = to_mermaid(tree) if kind == "mermaid" else to_dot(tree)
        if kind == "svg":
            text = _as_svg(text)
        elif suffix == ".md":
            text = f"```{kind}\n{text}```\n"
    _give(text, output, printer)


def _as_svg(dot: str) -> str:
    program = shutil.which("dot")
    if program is None:
        click.echo(
            "Error: an SVG is drawn by Graphviz, and there is no `dot`: install graphviz, or take "
            "--format mermaid or dot",
            err=True,
        )
        sys.exit(COULD_NOT)
    done = subprocess.run(  # noqa: S603  # its text is its standard input, and nothing else is ours
        [program, "-Tsvg"], input=dot.encode(), capture_output=True, check=False
    )
    if done.returncode:
        click.echo(f"Error: dot: {one_line(done.stderr.decode(errors='replace'))}", err=True)
        sys.exit(COULD_NOT)
    return done.stdout.decode()


@click.command(
    short_help="Print the JSON Schema of graph files.",
    help="""Print the JSON Schema of graph files, for editors that complete and check YAML.

\b
Examples:
  parallel-agent schema -o graph.schema.json
and, as the first line of a graph file, for the YAML language server:
  # yaml-language-server: $schema=graph.schema.json
""",
)
@click.option("-o", "--output", metavar="FILE", help="Write it to FILE.")
def schema(output: str | None) -> None:
    """Run the command; click hands over its options by their names."""
    text = json.dumps(graph_schema(), indent=2, ensure_ascii=False) + "\n"
    _give(text, output, Printer(sys.stdout, sys.stderr))


def _give(text: str, output: str | None, printer: Printer) -> None:
    if output is not None:
        try:
            Path(output).write_text(text, "utf-8")
        except (OSError, ValueError) as error:
            click.echo(f"Error: {one_line(output)} cannot be written: {error}", err=True)
            sys.exit(COULD_NOT)
        return
    try:
        printer.print(text.removesuffix("\n"))
    except OutputClosedError as error:
        end_unprinted(error, printer)
