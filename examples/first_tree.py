"""A first tree: plain functions look at a folder of Python source files, side by side.

    survey                      one after another
    ├── find_files              a plain function, in a thread
    ├── measure                 side by side
    │   ├── count_lines         a plain function, in a thread
    │   ├── long_functions      an async generator: an event for each finding
    │   ├── docstrings          a plain function, in a thread
    │   └── todos               an async generator
    └── report                  a coroutine: reads what the others found

Each line printed is one event, as it comes: which branch it was emitted on, which agent is its
author, and what it says. Run it twice: the branches run at the same time, so their lines mix in
another order, while each branch keeps its own.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import trio

from parallel_agent import (
    Event,
    InvocationContext,
    ParallelAgent,
    Runner,
    SequentialAgent,
    agent,
)

HERE = Path(__file__).resolve().parent.parent
DEFAULT_FOLDERS = (HERE / "parallel_agent", HERE / "session")

# One at a time: in some releases, CPython's parser counts the depth of the tree it makes in one
# place for all threads, and two that parse at once can end in a SystemError.
PARSER = threading.Lock()
TODO = re.compile(r"#.*?\b(TODO|FIXME|XXX)\b[:\s]*(.*)")


# ------------------------------------------------------------------------------------ the agents


@agent(output_key="files")
def find_files(ctx: InvocationContext) -> Event:
    """List the Python files. With `output_key`, an agent's output becomes shared state."""
    files: list[str] = []
    odd = 0
    for folder in ctx.state["folders"]:
        for path in walk(Path(folder)):
            if path.encode(errors="replace").decode() == path:
                files.append(path)
            else:
                odd += 1  # state is JSON, and such a name is no text
    skipped = f", {odd} skipped: their names are not UTF-8" if odd else ""
    return Event(f"{len(files)} Python files{skipped}", output=files)


@agent(output_key="lines")
def count_lines(ctx: InvocationContext) -> Event:
    """A plain function: it runs in a thread of its own, and what it returns is one event."""
    total = blank = 0
    for path in ctx.state["files"]:
        lines = (read(path) or "").splitlines()
        total += len(lines)
        blank += sum(not line.strip() for line in lines)
    return Event(f"{total:,} lines, {blank:,} of them blank", output=total)


@agent(output_key="functions")
async def long_functions(ctx: InvocationContext) -> AsyncIterator[str | Event]:
    """An async generator: each `yield` is an event. A file that does not parse is a finding."""
    functions = longest = 0
    broken: list[str] = []
    for path in ctx.state["files"]:
        tree, problem = await trio.to_thread.run_sync(parse, path)
        if tree is None:
            broken.append(path)
            yield f"{near(path)} does not parse: {problem}"
            continue
        for name, length in lengths(tree):
            functions += 1
            if length > longest:
                longest = length
                yield f"{name} in {near(path)} is the longest so far: {length} lines"
    text = f"{functions:,} functions, {len(broken)} files do not parse"
    yield Event(text, output={"count": functions, "longest": longest, "broken": broken})


@agent(output_key="docstrings")
def docstrings(ctx: InvocationContext) -> Event:
    """Count what is public and says what it is."""
    public = documented = 0
    for path in ctx.state["files"]:
        tree, _ = parse(path)
        for node in definitions(tree) if tree is not None else ():
            public += 1
            documented += ast.get_docstring(node) is not None
    text = f"{documented:,} of {public:,} public things have a docstring"
    return Event(text, output={"public": public, "documented": documented})


@agent(output_key="todos")
async def todos(ctx: InvocationContext) -> AsyncIterator[str | Event]:
    """Look for comments that promise something."""
    found = 0
    for path in ctx.state["files"]:
        text = await trio.to_thread.run_sync(read, path)
        for number, line in enumerate((text or "").splitlines(), 1):
            match = TODO.search(line)
            if match:
                found += 1
                yield f"{near(path)}:{number}: {match[1]} {shown(match[2])}"
    yield Event(f"{found} comments promise something", output=found)


@agent
async def report(ctx: InvocationContext) -> Event:
    """Runs after `measure`, so it sees what every branch wrote."""
    files, lines, functions, documented = (
        ctx.state[key] for key in ("files", "lines", "functions", "docstrings")
    )
    figures = {
        "Python files": len(files),
        "lines": lines,
        "functions": functions["count"],
        "longest function": f"{functions['longest']} lines",
        "docstrings": f"{documented['documented']:,} of {documented['public']:,} public things",
        "TODO, FIXME, XXX": ctx.state["todos"],
        "files that do not parse": len(functions["broken"]),
    }
    text = f"surveyed {len(files)} files" if files else "there are no Python files here"
    return Event(text, output=figures)


survey = SequentialAgent(
    "survey",
    [
        find_files,
        ParallelAgent("measure", [count_lines, long_functions, docstrings, todos]),
        report,
    ],
)


# ------------------------------------------------------------------- ordinary functions they use


def walk(folder: Path) -> Iterator[str]:
    """Yield the Python files below a folder, but for hidden folders and virtual environments."""
    for place, folders, names in os.walk(folder):
        if "pyvenv.cfg" in names:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if name[0] != "." and name != "__pycache__")
        for name in sorted(names):
            path = str(Path(place, name))
            if name.endswith(".py") and os.path.isfile(path):  # noqa: PTH113  # Path's may raise
                yield path


def read(path: str) -> str | None:
    """Return a file's text; None if it cannot be read. What is no UTF-8 is replaced."""
    try:
        return Path(path).read_text("utf-8", errors="replace")
    except OSError:
        return None


def parse(path: str) -> tuple[ast.Module | None, str]:
    """Return a file's syntax tree, or None and why there is none."""
    try:
        source = Path(path).read_bytes()
        with PARSER:
            return ast.parse(source, path), ""
    except SyntaxError as exc:
        return None, f"line {exc.lineno or 1}: {shown(exc.msg)}"
    except OSError as exc:
        return None, exc.strerror or type(exc).__name__
    except (ValueError, RecursionError, MemoryError) as exc:
        return None, shown(str(exc)) or type(exc).__name__


def lengths(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield each function's name and how many lines it has."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def definitions(
    tree: ast.Module,
) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the module, and the public classes, functions and methods in it."""
    yield tree
    inside: list[ast.stmt] = [*tree.body]
    for node in inside:
        kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, kinds) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                inside += node.body


def near(path: str) -> str:
    """Return a path as seen from here, fit to print."""
    here = Path.cwd()
    return shown(str(Path(path).relative_to(here) if Path(path).is_relative_to(here) else path))


def shown(text: str) -> str:
    """Return text fit to print: one line, and nothing that a terminal would act on."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


# ---------------------------------------------------------------------------------- the program


async def look_at(folders: Sequence[Path]) -> dict[str, Any]:
    """Run the tree, print its events as they come, and return the report's output."""
    given = {"folders": [str(folder) for folder in folders]}
    async with Runner(survey).open("What is in these folders?", state_delta=given) as run:
        async for event in run:
            endings = ", ".join(f"{one.name} {one.status}" for one in event.actions.outcomes)
            print(f"{event.branch or '-':24}  {event.author:14}  {event.text or endings}")
    return dict(run.result.output)


def folder(argument: str) -> Path:
    """Check an argument of the command line."""
    try:
        path = Path(argument).resolve(strict=True)
        with os.scandir(path):
            str(path).encode()
    except NotADirectoryError:
        problem = "that is a file; give the folder it is in"
    except OSError as exc:
        problem = exc.strerror or type(exc).__name__
    except RuntimeError:
        problem = "its symbolic links go round in a circle"
    except UnicodeEncodeError:
        problem = "its name is not UTF-8"
    else:
        return path
    raise argparse.ArgumentTypeError(f"cannot look into {shown(argument)!r}: {problem}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, run the tree, print the summary."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Without DIR it looks at this project's own source.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="DIR", nargs="?", type=folder, help="where to look")
    chosen = parser.parse_args(arguments).folder
    # Files may hold letters that this terminal has not, and code that the parser warns of.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    warnings.simplefilter("ignore")
    try:
        figures = trio.run(look_at, [chosen] if chosen else DEFAULT_FOLDERS)
        print()
        for name, value in figures.items():
            print(f"{name:>24}  {value:,}" if isinstance(value, int) else f"{name:>24}  {value}")
        sys.stdout.flush()
    except BrokenPipeError:
        # `| head` has seen enough, and nobody is left to flush for.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
