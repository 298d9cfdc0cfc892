"""Comments that promise something."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Mapping
from typing import Final

from .findings import Finding, code
from .sources import Source

__all__ = ["promises", "with_ages"]

_TAGS: Final = "TODO|FIXME|XXX|HACK"
_PROMISE: Final = re.compile(rf"\b({_TAGS})\b(.*)")


def promises(source: Source) -> list[Finding]:
    """Return the comments that say TODO, FIXME, XXX or HACK; nobody knows yet how old they are.

    Comments only: the same word in a string, or in a docstring, is data.
    """
    # Tokens are slow to make, and most files have no such word.
    if source.tree is None or not _PROMISE.search(source.text):
        return []
    found = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
            promise = _PROMISE.search(token.string) if token.type == tokenize.COMMENT else None
            if promise:
                found.append(
                    Finding(
                        kind="todo",
                        path=source.path,
                        line=token.start[0],
                        name=promise[1],
                        measure=None,
                        message=code(promise[0]),
                    )
                )
    except (tokenize.TokenError, SyntaxError):
        pass  # the parser has its own tokenizer, and took what this one does not
    return found


def with_ages(found: list[Finding], ages: Mapping[tuple[str, int], int]) -> list[Finding]:
    """Return the promises with their ages in days, by path and line, where one is known."""
    return [
        Finding(
            kind=one["kind"],
            path=one["path"],
            line=one["line"],
            name=one["name"],
            measure=age,
            message=f"{one['message']} ({days(age)})",
        )
        for one in found
        for age in [ages.get((one["path"], one["line"]))]
    ]


def days(age: int | None) -> str:
    """Return an age in words."""
    if age is None:
        return "age unknown"
    return f"{age:,} day{'s' if age != 1 else ''} old"
