"""A review of the health of Python code: real analyses side by side, and a loop that focuses.

    code_health                     one after another
    ├── find_files
    ├── analyses                    side by side, each on a branch of its own
    │   ├── syntax                  files that do not parse
    │   ├── complexity              functions with many ways through them
    │   ├── length                  long functions
    │   ├── docstrings              how much of what is public has one
    │   ├── todos                   promises in comments, with their age from git
    │   ├── duplicates              code that stands in several places
    │   ├── imports                 the import graph, and the cycles in it
    │   ├── unused_imports
    │   └── dead_names              what nobody mentions
    ├── focus                       again and again, until judge escalates
    │   ├── tighten                 a stricter threshold each time
    │   └── judge                   are the findings few enough to act on?
    └── write_report                an artifact, and the last text of the run

The message is the folder to look into; without one, this project looks at itself. State may say
more: ``limit``, how many findings are few enough (25); ``exclude``, patterns of paths to leave out
(``["tests", "*_pb2.py"]``); ``today``, from which ages are counted (``"2025-01-31"``).

The folder's files are read, never imported or run. The same folder gives the same report.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

import trio

from parallel_agent import (
    Event,
    EventActions,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    SequentialAgent,
    agent,
)

from . import imports as import_graph
from .complexity import complex_functions, long_functions
from .dead_names import dead_names as find_dead_names
from .dead_names import defined
from .docstrings import coverage, little_documented
from .duplicates import duplicates as find_duplicates
from .duplicates import rows
from .findings import Finding, shown
from .focus import LEVELS, is_short, select
from .git_ages import ages_of
from .modules import Modules
from .report import Figures, render, to_show
from .sources import ReviewError, Source, Sources, as_folder, shared_sources, unparsed, walk
from .todos import promises, with_ages
from .unused_imports import imported
from .unused_imports import unused_imports as find_unused_imports

__all__ = ["ANALYSES", "REPORT", "tree"]

T = TypeVar("T")

OURS: Final = Path(__file__).resolve().parent.parent.parent
REPORT: Final = "code-health.md"
LIMIT: Final = 25

# A thread cannot be cancelled. So many files take one at a time, some tenths of a second: short
# enough to wait for, and long enough that changing threads costs nothing.
FILES_AT_A_TIME: Final = 25


@agent(output_key="files")
async def find_files(ctx: InvocationContext) -> Event:
    """List the Python files, as paths relative to ``state["base"]``."""
    exclude, _, today = settings(ctx)
    text = ctx.user_text.strip()
    if text:
        base = await trio.to_thread.run_sync(as_folder, text)
        folders = [""]
    else:
        base, folders = OURS, ["parallel_agent", "session"]
    paths = walk(base, folders, exclude)
    files: list[str] = []
    odd = 0
    while some := await trio.to_thread.run_sync(lambda: [*islice(paths, 1000)]):
        for path in some:
            if path.encode(errors="replace").decode() == path:
                files.append(path)
            else:
                odd += 1  # state is JSON, and such a name is no text
    ctx.state["base"] = str(base)
    ctx.state["folders"] = [base.name or str(base)] if text else folders
    ctx.state["skipped"] = odd
    ctx.state["date"] = today.isoformat()
    ctx.state["level"] = 0  # the session may have seen a review before
    return Event(f"Python files: {len(files):,}", output=files)


# ---------------------------------------------------------------------------------- the analyses


@agent(output_key="parse")
async def syntax(ctx: InvocationContext) -> Event:
    """Look for files that do not parse."""

    def look(source: Source) -> list[tuple[int, list[Finding]]]:
        return [(source.text.count("\n"), unparsed(source))]

    looked = await each_file(ctx, look)
    ctx.state["lines"] = sum(lines for lines, _ in looked)
    found = [finding for _, findings in looked for finding in findings]
    return Event(f"files that do not parse: {len(found):,}", output=found)


@agent(output_key="complexity")
async def complexity(ctx: InvocationContext) -> Event:
    """Look for functions that are hard to follow."""
    found = await each_file(ctx, complex_functions)
    return Event(f"complex functions: {len(found):,}", output=found)


@agent(output_key="length")
async def length(ctx: InvocationContext) -> Event:
    """Look for functions that do not fit on a screen."""
    found = await each_file(ctx, long_functions)
    return Event(f"long functions: {len(found):,}", output=found)


@agent(output_key="docstrings")
async def docstrings(ctx: InvocationContext) -> Event:
    """Count what is public and says what it is."""

    def look(source: Source) -> list[tuple[tuple[int, int], list[Finding]]]:
        return [(coverage(source), little_documented(source))]

    looked = await each_file(ctx, look)
    documented, public = (sum(counts[which] for counts, _ in looked) for which in (0, 1))
    ctx.state["documented"] = [documented, public]
    found = [finding for _, findings in looked for finding in findings]
    return Event(f"public things with a docstring: {documented:,} of {public:,}", output=found)


@agent(output_key="todo")
async def todos(ctx: InvocationContext) -> Event:
    """Look for promises, and ask git since when they are given."""

    def look(source: Source) -> list[tuple[Finding, str]]:
        lines = source.lines
        return [(finding, lines[finding["line"] - 1]) for finding in promises(source)]

    looked = await each_file(ctx, look)
    ages = await ages_of(
        [(finding["path"], finding["line"], line) for finding, line in looked],
        base=Path(ctx.state["base"]),
        today=dt.date.fromisoformat(ctx.state["date"]),
    )
    found = with_ages([finding for finding, _ in looked], ages)
    return Event(f"comments that promise something: {len(found):,}", output=found)


@agent(output_key="duplicate")
async def duplicates(ctx: InvocationContext) -> Event:
    """Look for code that stands in several places."""
    looked = await each_file(ctx, rows)
    found = await trio.to_thread.run_sync(find_duplicates, looked)
    return Event(f"pieces of code in several places: {len(found):,}", output=found)


@agent(output_key="cycle")
async def imports(ctx: InvocationContext) -> Event:
    """Draw the import graph, and look for cycles in it."""
    looked = await each_file(ctx, import_graph.imports_of)
    modules = Modules(ctx.state["files"], sources_of(ctx).packages)
    graph = import_graph.edges(looked, modules)
    ctx.state["imports"] = sum(map(len, graph.values()))
    found = await trio.to_thread.run_sync(import_graph.cycles, graph, modules)
    return Event(f"import cycles: {len(found):,}", output=found)


@agent(output_key="unused_import")
async def unused_imports(ctx: InvocationContext) -> Event:
    """Look for imports that nobody uses."""
    found = find_unused_imports(await each_file(ctx, imported))
    return Event(f"unused imports: {len(found):,}", output=found)


@agent(output_key="dead_name")
async def dead_names(ctx: InvocationContext) -> Event:
    """Look for functions, classes and variables that nobody mentions."""
    looked = await each_file(ctx, defined)
    entry_points = await trio.to_thread.run_sync(sources_of(ctx).names_in_settings)
    found = find_dead_names(looked, entry_points)
    return Event(f"dead names: {len(found):,}", output=found)


# --------------------------------------------------------------------------- what comes after them


@agent
def tighten(ctx: InvocationContext) -> Event:
    """Take the next thresholds, and count what is beyond them."""
    level = ctx.state["level"]
    ctx.state["level"] = level + 1
    selected = select(all_findings(ctx), LEVELS[level])
    return Event(f"findings: {len(selected):,}, at level {level + 1} of {len(LEVELS)}")


@agent
def judge(ctx: InvocationContext) -> Event:
    """Escalate, which ends the loop, when the list is short enough to act on."""
    _, limit, _ = settings(ctx)
    selected = select(all_findings(ctx), LEVELS[ctx.state["level"] - 1])
    if not is_short(selected, limit):
        return Event(f"too many to act on: the limit is {limit:,}")
    return Event("few enough to act on", actions=EventActions(escalate=True))


@agent
async def write_report(ctx: InvocationContext) -> Event:
    """Write the report, keep it as an artifact, and say it; its output is what it shows."""
    state = ctx.state
    _, limit, _ = settings(ctx)
    figures = Figures(
        folders=state["folders"],
        files=len(state["files"]),
        lines=state["lines"],
        skipped=state["skipped"],
        documented=tuple(state["documented"]),
        imports=state["imports"],
    )
    found = all_findings(ctx)
    thresholds = LEVELS[state["level"] - 1]
    text = render(figures, found, thresholds, limit)
    await ctx.save_artifact(REPORT, text)
    return Event(text, output=to_show(found, thresholds, limit))


ANALYSES: Final = (
    syntax,
    complexity,
    length,
    docstrings,
    todos,
    duplicates,
    imports,
    unused_imports,
    dead_names,
)

tree: Final = SequentialAgent(
    "code_health",
    [
        find_files,
        ParallelAgent("analyses", ANALYSES),
        LoopAgent("focus", [tighten, judge], max_iterations=len(LEVELS)),
        write_report,
    ],
)


# ------------------------------------------------------------------- ordinary functions they use


async def each_file(ctx: InvocationContext, look: Callable[[Source], Iterable[T]]) -> list[T]:
    """Call ``look`` for each file, in a thread; return all it found.

    The files are parsed once for all analyses. Cancelled, it ends after the file it looks at.
    """
    sources = sources_of(ctx)
    paths = iter(ctx.state["files"])
    found: list[T] = []

    def look_at(some: list[str]) -> list[T]:
        seen: list[T] = []
        for path in some:
            trio.from_thread.check_cancelled()  # a large file takes seconds
            seen += look(sources[path])
        return seen

    while some := [*islice(paths, FILES_AT_A_TIME)]:
        found += await trio.to_thread.run_sync(look_at, some)
    return found


def sources_of(ctx: InvocationContext) -> Sources:
    """Return the files under review, parsed as far as somebody has asked for them."""
    return shared_sources(ctx.invocation_id, ctx.state["base"])


def all_findings(ctx: InvocationContext) -> list[Finding]:
    """Return what all the analyses have found."""
    return [finding for one in ANALYSES for finding in ctx.state[one.output_key or ""]]


def settings(ctx: InvocationContext) -> tuple[list[str], int, dt.date]:
    """Return ``exclude``, ``limit`` and ``today``, from state or as they are without.

    Raises:
        ReviewError: one of them is not what it should be.
    """
    exclude: Any = ctx.state.get("exclude", [])
    limit: Any = ctx.state.get("limit", LIMIT)
    today: Any = ctx.state.get("today", dt.datetime.now(dt.UTC).date().isoformat())
    if not isinstance(exclude, list) or not all(isinstance(one, str) for one in exclude):
        wrong = f"exclude is a list of patterns, such as ['tests', '*_pb2.py'], not {exclude!r}"
    elif type(limit) is not int or limit < 1:
        wrong = f"limit is how many findings are few enough, 1 or more, not {limit!r}"
    else:
        try:
            return exclude, limit, dt.date.fromisoformat(today)
        except (TypeError, ValueError):
            wrong = f"today is a date, such as '2025-01-31', not {today!r}"
    message = f"state: {shown(wrong)}"
    raise ReviewError(message)
