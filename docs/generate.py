"""Draw what the docs show of the pure tables, so that the two cannot differ.

``python -m docs.generate`` writes the parts between the markers in ``docs/reference.md`` anew;
``tests/test_docs.py`` fails when that would change something.
"""

# ruff: noqa: INP001  # a script beside the pages, no package

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Final, cast

import attrs

from parallel_agent import errors, model_errors
from parallel_agent.barrier import POLICIES, Barrier, Escalate, Outcome, Quorum
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


def _called(kind: type[Barrier]) -> str:
    arguments = ", ".join(field.name for field in attrs.fields(cast("type[Any]", kind)))
    return f"`{kind.__name__}({arguments})`"


def policies() -> str:
    """Return what every policy does while branches end, and when all have, as a table."""
    rows = [
        "| | a branch completes | a branch fails | a branch is cancelled | all have ended |",
        "|---|---|---|---|---|",
    ]
    for kind, policy in POLICIES.items():
        rules = (policy.completed, policy.failed, policy.cancelled, policy.ending)
        rows.append(f"| {_called(kind)} | {' | '.join(rule.value for rule in rules)} |")
    return "\n".join(rows)


def _ended(status: Status, *, own: bool = False) -> Callable[[], Outcome]:
    return lambda: Outcome(
        "branch", "fan/branch", status, Exception() if status is Status.FAILED else None, own
    )


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
    ("failed", "failed"),
    ("failed cleaning up", "failed"),
    ("cancelled", "failed"),
    ("cancelled", "cancelled"),
)


def answers() -> str:
    """Return, as a table, what each policy raises for two branches, from the policy itself."""
    heads: list[str] = []
    columns: list[list[str]] = []
    for kind in POLICIES:
        policy: Barrier = kind(2) if kind is Quorum else kind()
        called = _called(kind).replace("(n)", "(2)")
        heads.append(f"{called}, aborted" if kind is Escalate else called)
        columns.append([_said(policy, [ENDINGS[word]() for word in case]) for case in CASES])
    rows = [f"| two branches | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for case, *raised in zip(CASES, *columns, strict=True):
        rows.append(f"| {', '.join(case)} | {' | '.join(raised)} |")
    return "\n".join(rows)


def _said(policy: Barrier, outcomes: list[Outcome]) -> str:
    error = policy.failure(outcomes)
    if error is None:
        return "-"
    if not isinstance(error, BaseExceptionGroup):
        return next(
            f"the {place}'s"
            for place, outcome in zip(("first", "second"), outcomes, strict=True)
            if outcome.error is error
        )
    inside = [
        place
        for place, outcome in zip(("first", "second"), outcomes, strict=True)
        if outcome.error in error.exceptions
    ]
    return f"`{type(error).__name__}`" + (f" of the {' and '.join(inside)}" if inside else "")


def error_tree() -> str:
    """Return the tree of errors, as the docstring of `parallel_agent.errors` draws it."""
    return _drawing(errors)


def model_error_tree() -> str:
    """Return that of `parallel_agent.model_errors`."""
    return _drawing(model_errors)


def _drawing(module: ModuleType) -> str:
    _, _, rest = (module.__doc__ or "").partition("::\n\n")
    tree, _, _ = rest.partition("\n\n")
    return f"```text\n{textwrap.dedent(tree).rstrip()}\n```"


PARTS: Final[Mapping[str, Callable[[], str]]] = MappingProxyType(
    {
        "lifecycle": lifecycle,
        "policies": policies,
        "answers": answers,
        "errors": error_tree,
        "model errors": model_error_tree,
    }
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
