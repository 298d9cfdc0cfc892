"""What a review finds: plain data, so that it can live in state and in a session's log."""

from __future__ import annotations

import re
from typing import Final, TypedDict

__all__ = ["KINDS", "Finding", "code", "is_test", "shown"]

# In the order of a report: what is broken, what is superfluous, what is hard to work with.
KINDS: Final = {
    "parse": "Files that cannot be looked into",
    "cycle": "Import cycles",
    "unused_import": "Unused imports",
    "dead_name": "Dead names",
    "duplicate": "Duplicate code",
    "complexity": "Complex functions",
    "length": "Long functions",
    "docstrings": "Missing docstrings",
    "todo": "Promises in comments",
}


# Of folders; not `contests`.
_TESTS: Final = re.compile(r"(.*[-_]|unit)?tests?")


class Finding(TypedDict):
    """One thing to act on.

    ``path`` is relative to the folder under review, ``name`` what it is about (or empty),
    ``measure`` how bad it is in the unit of its kind (None: that kind has none). ``message`` is
    Markdown; whatever comes from the files under review stands in code spans there.
    """

    kind: str
    path: str
    line: int
    name: str
    measure: int | None
    message: str


def shown(text: str) -> str:
    """Return text fit to print: one line, and nothing that a terminal would act on."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def code(text: str, *, limit: int = 160) -> str:
    """Return text as a Markdown code span, whatever is in it; cut at ``limit``."""
    text = shown(text.strip())
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    # A code span ends at a run of backticks as long as the one it began with.
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    padding = " " if "`" in text or not text else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def is_test(path: str) -> bool:
    """Whether a file's place or name says that a test runner reads it."""
    *folders, name = path.split("/")
    return (
        name.startswith("test_")
        or name.endswith("_test.py")
        or name in {"conftest.py", "test.py", "tests.py"}
        or any(_TESTS.fullmatch(folder) for folder in folders)
    )
