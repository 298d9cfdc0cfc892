"""What the tests of graph files share: writing one, and hearing what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any, Final

from parallel_agent import InvocationContext
from parallel_agent.config import ConfigError, Problem, load_graph
from parallel_agent.workflow.graph import GraphAgent

FILES: Final = Path(__file__).parent / "files"
ENV: Final = {"MODEL_KEY": "a-very-secret-key"}


async def echo(ctx: InvocationContext) -> str:
    """Say its own name."""
    return ctx.agent.name


def is_long(output: Any) -> bool:
    return bool(output)


async def look_up(title: str) -> str:
    return f"{title} is there"


OPTIONS: Final[Mapping[str, Any]] = {
    "agents": dict.fromkeys(["sort", "echo", "allow"], echo),
    "conditions": {"is_long": is_long},
    "tools": {"look_up": look_up},
    "env": ENV,
}
"""What the files in `FILES` are loaded with."""


def write(folder: Path, text: str, name: str = "flow.yaml") -> Path:
    path = folder / name
    path.write_text(dedent(text), "utf-8")
    return path


def load(folder: Path, text: str, name: str = "flow.yaml", **options: Any) -> GraphAgent:
    return load_graph(write(folder, text, name), **{"agents": {"echo": echo}, "env": {}, **options})


def problems(make: Callable[[], object]) -> list[Problem]:
    """Return what is wrong with the file that ``make`` loads; nothing if it loads."""
    try:
        make()
    except ConfigError as error:
        return [*error.problems]
    return []


def refused(folder: Path, text: str, name: str = "flow.yaml", **options: Any) -> list[str]:
    """Return what is wrong with a text, each as ``line:column: path: message``."""
    found = problems(lambda: load(folder, text, name, **options))
    return [str(one).removeprefix(f"{one.file}:") for one in found]


_BREAK: Final = re.compile(r"\r\n|[\n\r]")


def is_inside(problem: Problem, text: str) -> bool:
    """Whether the place of a problem is one in the text; its end is."""
    lines = _BREAK.split(text)
    return 1 <= problem.line <= len(lines) and (
        1 <= problem.column <= len(lines[problem.line - 1]) + 1
    )
