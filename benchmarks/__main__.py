"""``python -m benchmarks``: measure, and print. ``benchmarks/README.md`` says what it means."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import attrs

from benchmarks.durable import appends, durable
from benchmarks.dynamic import dynamic, mapped
from benchmarks.exploring import exploring
from benchmarks.graphs import graphs
from benchmarks.hosts import hosts, starts
from benchmarks.imports import imports
from benchmarks.measure import FULL, QUICK, Row, Sizes, machine
from benchmarks.models import models
from benchmarks.resuming import resumable, resume
from benchmarks.scaling import branches, depth, first_event, history
from benchmarks.throughput import throughput
from benchmarks.width import many, memory, start

BENCHMARKS: Final[Mapping[str, Callable[[Sizes], Iterator[Row]]]] = MappingProxyType(
    {
        "throughput": throughput,
        "history": history,
        "first_event": first_event,
        "depth": depth,
        "branches": branches,
        "start": start,
        "memory": memory,
        "many": many,
        "dynamic": dynamic,
        "mapped": mapped,
        "graphs": graphs,
        "exploring": exploring,
        "durable": durable,
        "appends": appends,
        "resume": resume,
        "resumable": resumable,
        "hosts": hosts,
        "starts": starts,
        "models": models,
        "import": imports,
    }
)


def main(arguments: Sequence[str] | None = None, *, sizes: Sizes | None = None) -> None:
    """Read the command line, run what it asks for, print it. ``sizes`` goes before ``--quick``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and cases")
    parser.add_argument("--json", action="store_true", help="print JSON and no tables")
    parser.add_argument(
        "--compare", metavar="FILE", type=Path, help="an earlier --json to show beside"
    )
    parser.add_argument(
        "--adk-python",
        metavar="FILE",
        help="a Python that has google-adk[db], for 'durable' to run the same work in",
    )
    parser.add_argument(
        "--peers",
        metavar="PYTHON",
        help="a Python that has agent-framework-core, langgraph or google-adk, for 'graphs' to run "
        "the same work in",
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    try:
        earlier = _read(options.compare) if options.compare else {}
    except (OSError, ValueError, KeyError, TypeError) as exc:
        parser.error(f"cannot compare with {options.compare}: {exc}")
    chosen = sizes or (QUICK if options.quick else FULL)
    if options.adk_python:
        chosen = attrs.evolve(chosen, adk_python=options.adk_python)
    if options.peers:
        chosen = attrs.evolve(chosen, peers=options.peers)
    where = machine()
    if not options.json:
        print(", ".join(f"{key} {value}" for key, value in where.items()))
    found: list[Row] = []
    for name in options.names or BENCHMARKS:
        rows = list(BENCHMARKS[name](chosen))
        found += rows
        if not options.json:
            print(f"\n{table(rows, earlier)}", flush=True)
    if options.json:
        json.dump(
            {"machine": where, "rows": [attrs.asdict(row) for row in found]}, sys.stdout, indent=1
        )
        print()


def _read(path: Path) -> dict[tuple[str, str, str], Row]:
    rows = [Row(**row) for row in json.loads(path.read_text("utf-8"))["rows"]]
    return {(row.benchmark, row.case, row.measure): row for row in rows}


def table(
    rows: Sequence[Row], earlier: Mapping[tuple[str, str, str], Row] = MappingProxyType({})
) -> str:
    """Return one benchmark's figures as a Markdown table: a line per case, a column per measure."""
    measures = list(dict.fromkeys((row.measure, row.unit) for row in rows))
    figures = {(row.case, row.measure): row for row in rows}
    heads = [f"{measure}, {unit}" if unit != "ratio" else measure for measure, unit in measures]
    lines = [[rows[0].benchmark, *heads]]
    for case in dict.fromkeys(row.case for row in rows):
        line = [case]
        for measure, _ in measures:
            row = figures.get((case, measure))
            before = earlier.get((rows[0].benchmark, case, measure))
            shown = "" if row is None else number(row.value)
            line.append(shown if before is None else f"{shown} (was {number(before.value)})")
        lines.append(line)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(
        "| "
        + " | ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        + " |"
        for line in [lines[0], rule, *lines[1:]]
    )


def number(value: float) -> str:
    """Return three significant figures, as people write them."""
    if math.isinf(value):
        return "more"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


if __name__ == "__main__":
    main()
