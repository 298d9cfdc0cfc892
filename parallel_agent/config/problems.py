"""One thing that is wrong with a graph file, and where."""

from __future__ import annotations

import attrs

__all__ = ["Problem", "Spot"]


@attrs.frozen
class Spot:
    """A place in a text: line and column, from 1."""

    line: int = 1
    column: int = 1


@attrs.frozen
class Problem:
    """Something in a graph file that is wrong, or has no effect.

    Attributes:
        file: the file, as it was named.
        line: from 1.
        column: from 1.
        path: which value it is about: ``nodes[2].model``; empty for the file as a whole.
        message: what is wrong with it, and what to do.
        is_note: nothing is wrong: the value is read, and has no effect.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    is_note: bool = False

    def __str__(self) -> str:
        path = f"{self.path}: " if self.path else ""
        return f"{self.file}:{self.line}:{self.column}: {path}{self.message}"
