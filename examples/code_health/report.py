"""The report, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs

from .findings import KINDS, Finding, code
from .focus import Thresholds, in_order, select, top

__all__ = ["Figures", "place", "render", "to_show"]


@attrs.frozen
class Figures:
    """What a report says before its findings.

    Attributes:
        folders: the names of the folders that were looked into.
        files: how many Python files they hold.
        lines: how many lines those have.
        skipped: how many were skipped for their names.
        documented: how many public things have a docstring, and how many there are.
        imports: how many imports between the files were found.
    """

    folders: Sequence[str]
    files: int
    lines: int
    skipped: int = 0
    documented: tuple[int, int] = (0, 0)
    imports: int = 0


def to_show(findings: Sequence[Finding], thresholds: Thresholds, limit: int) -> list[Finding]:
    """Return the findings that a report shows."""
    return top(select(findings, thresholds), limit)


def render(
    figures: Figures, findings: Sequence[Finding], thresholds: Thresholds, limit: int
) -> str:
    """Return the report. The same arguments give the same text."""
    selected = select(findings, thresholds)
    chosen = top(selected, limit)
    parts = [
        [f"# Code health of {' and '.join(map(code, figures.folders))}"],
        [_overview(figures)],
    ]
    if figures.files:
        parts.append([*_summary(findings, chosen, thresholds)])
        parts.append([_conclusion(len(findings), len(selected), len(chosen))])
    for kind, group in in_order(chosen).items():
        if group:
            parts.append([f"## {KINDS[kind]}"])
            parts.append([f"- {place(one)} {one['message']}" for one in group])
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def place(finding: Finding) -> str:
    """Return where a finding is, in a form that editors open."""
    return code(f"{finding['path']}:{finding['line']}", limit=500)


def _overview(figures: Figures) -> str:
    if not figures.files:
        text = "There are no Python files here."
    else:
        documented, public = figures.documented
        text = (
            f"{_counted(figures.files, 'Python file')}, {_counted(figures.lines, 'line')}, "
            f"{_counted(figures.imports, 'import')} among them."
        )
        if public:
            text += (
                f" {100 * documented // public} % of what is public has a docstring"
                f" ({documented:,} of {public:,})."
            )
    if figures.skipped:
        text += f" Skipped, because their names are not UTF-8: {_counted(figures.skipped, 'file')}."
    return text


def _summary(
    findings: Iterable[Finding], chosen: Iterable[Finding], thresholds: Thresholds
) -> Iterator[str]:
    shown = in_order(chosen)
    words = thresholds.describe()
    yield "| what | found | shown | threshold |"
    yield "|---|---:|---:|---|"
    for kind, group in in_order(findings).items():
        counts = f"{len(group):,} | {len(shown[kind]):,}"
        yield f"| {KINDS[kind]} | {counts} | {words.get(kind, 'all')} |"


def _conclusion(found: int, selected: int, chosen: int) -> str:
    if not found:
        return "Nothing was found that is worth a word."
    if not selected:
        return f"Not shown: {_counted(found, 'finding')} within the thresholds."
    below, beyond = found - selected, selected - chosen
    hidden = [
        *([f"{_counted(below, 'finding')} within the thresholds"] if below else []),
        *([f"{_counted(beyond, 'finding')} beyond the limit of {chosen:,}"] if beyond else []),
    ]
    return f"Not shown: {', '.join(hidden)}." if hidden else "Every finding is shown."


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number != 1 else ''}"
