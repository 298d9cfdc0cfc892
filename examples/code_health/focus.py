"""From everything that was found to what a person can act on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import attrs

from .complexity import LEAST_COMPLEXITY, LEAST_LENGTH
from .dead_names import is_private
from .docstrings import LEAST_COVERAGE
from .duplicates import LEAST_ROWS
from .findings import KINDS, Finding, is_test

__all__ = ["LEVELS", "Thresholds", "in_order", "is_short", "select", "top"]

_FIXED: Final = frozenset({"parse", "cycle", "unused_import"})


@attrs.frozen
class Thresholds:
    """What is worth a person's time. None: nothing of that kind is.

    What `_FIXED` names, and private names that are dead, always is.

    Attributes:
        complexity: of functions, that and less is fine.
        length: likewise, in lines.
        duplicate: code that stands in several places counts from so many lines on.
        docstrings: in percent of a file's public things, that and more is fine.
        todo: comments count from so many days on. One of unknown age is 0 days old.
        public_names: whether public names that nobody mentions count.
    """

    complexity: int
    length: int
    duplicate: int
    docstrings: int | None
    todo: int | None
    public_names: bool

    def describe(self) -> dict[str, str]:
        """Return what is shown of each kind, in words."""
        return {
            "dead_name": "all" if self.public_names else "private ones",
            "duplicate": f"{self.duplicate} lines or more",
            "complexity": f"more than {self.complexity}",
            "length": f"more than {self.length} lines",
            "docstrings": "none" if self.docstrings is None else f"less than {self.docstrings} %",
            "todo": "none"
            if self.todo is None
            else f"{self.todo} days or older"
            if self.todo
            else "all",
        }


LEVELS: Final = (
    Thresholds(LEAST_COMPLEXITY, LEAST_LENGTH, LEAST_ROWS, LEAST_COVERAGE, 0, public_names=True),
    Thresholds(15, 80, 10, 60, 90, public_names=False),
    Thresholds(20, 120, 15, 40, 365, public_names=False),
    Thresholds(25, 160, 20, 20, 730, public_names=False),
    Thresholds(30, 200, 30, None, None, public_names=False),
    Thresholds(40, 300, 50, None, None, public_names=False),
)
"""From the loosest, with which the analyses look, to the strictest."""


def select(findings: Iterable[Finding], thresholds: Thresholds) -> list[Finding]:
    """Return the findings that count."""
    return [finding for finding in findings if _counts(finding, thresholds)]


def _counts(finding: Finding, thresholds: Thresholds) -> bool:
    measure = finding["measure"] or 0
    match finding["kind"]:
        case "complexity":
            return measure > thresholds.complexity
        case "length":
            return measure > thresholds.length
        case "duplicate":
            return measure >= thresholds.duplicate
        case "docstrings":
            return thresholds.docstrings is not None and measure < thresholds.docstrings
        case "todo":
            return thresholds.todo is not None and measure >= thresholds.todo
        case "dead_name":
            return thresholds.public_names or is_private(finding["name"])
    return True


def is_short(selected: Sequence[Finding], limit: int) -> bool:
    """Whether a list of findings is short enough to act on.

    What no threshold shortens fills half of it at most: a hundred unused imports must not drive
    the thresholds up until nothing else is left. `top` chooses among them.
    """
    fixed = sum(_is_fixed(finding) for finding in selected)
    return min(fixed, limit // 2) + len(selected) - fixed <= limit


def _is_fixed(finding: Finding) -> bool:
    kind = finding["kind"]
    return kind in _FIXED or (kind == "dead_name" and is_private(finding["name"]))


def in_order(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Return the findings of each kind, the worst first; those in tests come last."""
    groups: dict[str, list[Finding]] = {kind: [] for kind in KINDS}
    for finding in findings:
        groups[finding["kind"]].append(finding)
    return {kind: sorted(group, key=_badness) for kind, group in groups.items()}


def _badness(finding: Finding) -> tuple[Any, ...]:
    measure = finding["measure"]
    # The fewer docstrings the worse; of everything else, the more.
    worst = (measure or 0) * (1 if finding["kind"] == "docstrings" else -1)
    place = (finding["path"], finding["line"])
    # To the last detail: no order must depend on who was found first.
    rest = (finding["message"], finding["name"], measure is None)
    return is_test(finding["path"]), worst, *place, *rest


def top(findings: Iterable[Finding], limit: int) -> list[Finding]:
    """Return ``limit`` findings at most: the worst of each kind in turn, then the next worst."""
    ranked = [
        (rank, kind, finding)
        for kind, group in enumerate(in_order(findings).values())
        for rank, finding in enumerate(group)
    ]
    ranked.sort(key=lambda one: one[:2])
    return [finding for _, _, finding in ranked[:limit]]
