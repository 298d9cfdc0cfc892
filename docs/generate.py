"""Draw what the docs show of the pure tables, so that the two cannot differ.

``python -m docs.generate`` writes the parts between the markers in ``docs/reference.md`` anew;
``tests/test_docs.py`` fails when that would change something.
"""

# ruff: noqa: INP001  # a script beside the pages, no package

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from parallel_agent import errors
from parallel_agent.barrier import Barrier, FailFast, Outcome, Verdict
from parallel_agent.lifecycle import TERMINAL, TRANSITIONS, Status

PAGE: Final = Path(__file__).parent / "reference.md"


def lifecycle() -> str:
    """Return the life of an activation as a Mermaid state diagram."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {Status.PENDING}"]
    lines += [
        f"    {before} --> {after}: {step.value}" for (before, step), after in TRANSITIONS.items()
    ]
    lines += [f"    {status} --> [*]" for status in Status if status in TERMINAL]
    return "\n".join([*lines, "```"])


def _ended(status: Status, *, own: bool = False) -> Callable[[], Outcome]:
    error = Exception() if status is Status.FAILED else None
    return lambda: Outcome("branch", "fan/branch", status, error, own)


ENDINGS: Final[Mapping[str, Callable[[], Outcome]]] = MappingProxyType(
    {
        "completed": _ended(Status.COMPLETED),
        "cancelled": _ended(Status.CANCELLED),
        "failed": _ended(Status.FAILED, own=True),
        "failed cleaning up": _ended(Status.FAILED),
    }
)

CASES: Final = (
    ("completed", "completed"),
    ("completed", "failed"),
    ("cancelled", "failed"),
    ("failed", "failed"),
    ("failed cleaning up", "failed"),
    ("failed cleaning up", "cancelled"),
    ("cancelled", "cancelled"),
)


def barrier(policy: Barrier) -> str:
    """Return, as a table, what ``policy`` answers for two branches."""
    rows = ["| first branch | second branch | the fan-out |", "|---|---|---|"]
    for case in CASES:
        first, second = (ENDINGS[word]() for word in case)
        chosen = policy.failure([first, second])
        raised = "first" if chosen is first else "second" if chosen is second else None
        answer = "raises nothing" if raised is None else f"raises the {raised} branch's error"
        rows.append(f"| {case[0]} | {case[1]} | {answer} |")
    cancelling = [
        word for word, ended in ENDINGS.items() if policy.on_outcome(ended()) is Verdict.CANCEL_REST
    ]
    rows += ["", f"The rest are cancelled as soon as one branch has {' or '.join(cancelling)}."]
    return "\n".join(rows)


def error_tree() -> str:
    """Return the tree of errors, as the docstring of `parallel_agent.errors` draws it."""
    _, _, rest = (errors.__doc__ or "").partition("::\n\n")
    tree, _, _ = rest.partition("\n\n")
    return f"```text\n{textwrap.dedent(tree)}\n```"


PARTS: Final[Mapping[str, Callable[[], str]]] = MappingProxyType(
    {"lifecycle": lifecycle, "fail-fast": lambda: barrier(FailFast()), "errors": error_tree}
)


def filled_in(page: str, names: Iterable[str] = PARTS) -> str:
    """Return ``page`` with every generated part as it must be.

    Raises:
        ValueError: the page lacks a part's markers.
    """
    for name in names:
        begin, end = f"<!-- {name}: generated -->\n", f"<!-- {name}: end -->"
        before, found_begin, rest = page.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found_begin and found_end):
            message = f"the page has no markers for {name!r}"
            raise ValueError(message)
        page = f"{before}{begin}{PARTS[name]()}\n{end}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(filled_in(PAGE.read_text("utf-8")), "utf-8")
