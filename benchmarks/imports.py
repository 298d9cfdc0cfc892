"""What ``import parallel_agent`` costs in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Row, Sizes

ROOT = Path(__file__).resolve().parent.parent


def imports(sizes: Sizes) -> Iterator[Row]:
    """Best time of a fresh interpreter that imports, minus that of one that does not.

    The first start, which compiles, is not counted.
    """
    statements = {
        "nothing": "pass",
        "trio": "import trio",
        "parallel_agent": "import parallel_agent",
    }
    taken: dict[str, list[float]] = {name: [] for name in statements}
    for _ in range(sizes.imports + 1):
        for name, statement in statements.items():
            taken[name].append(_seconds(statement))
    bare = min(taken["nothing"][1:])
    for name in ("trio", "parallel_agent"):
        yield Row("import", name, "import", (min(taken[name][1:]) - bare) * 1e3, "ms")
    yield Row("import", "bare interpreter", "import", bare * 1e3, "ms")


def _seconds(statement: str) -> float:
    """Return the processor time of a fresh interpreter, its own start included."""
    code = f"{statement}\nimport time\nprint(time.process_time())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return float(subprocess.check_output([sys.executable, "-c", code], env=environment))  # noqa: S603  # our own words
