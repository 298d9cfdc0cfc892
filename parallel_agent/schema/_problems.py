"""What is said when a value does not fit a type, or a type cannot be checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from parallel_agent.errors import UsageError

__all__ = ["SchemaError", "SchemaTypeError", "article", "path_text", "shorten", "shown"]

KEPT_PROBLEMS: Final = 50
"""How many problems an error keeps: enough for a form, bounded for a hostile list."""

_SHOWN_PROBLEMS: Final = 3
_SHOWN_PATH: Final = 200
_SHOWN_VALUE: Final = 80
_SHOWN_BITS: Final = 256


class SchemaError(UsageError, ValueError):
    """A value does not fit the type that is asked for.

    The message has the first three problems, and says how many more there are.

    Attributes:
        path: where the first problem is (``findings[2].line``); empty for the value itself.
        why: what is wrong there.
        problems: pairs of a path and a reason, in the order found; at most the first fifty.
        count: how many problems there are in all.
    """

    def __init__(self, problems: Sequence[tuple[str, str]], count: int | None = None) -> None:
        """Make the message; ``count`` is given when ``problems`` are not all."""
        self.problems = tuple(problems)
        self.count = len(self.problems) if count is None else count
        self.path, self.why = self.problems[0]
        said = [
            f"{_shown_path(path)}: {why}" if path else why
            for path, why in self.problems[:_SHOWN_PROBLEMS]
        ]
        if self.count > _SHOWN_PROBLEMS:
            said.append(f"and {self.count - _SHOWN_PROBLEMS} more")
        super().__init__("; ".join(said))


class SchemaTypeError(UsageError, TypeError):
    """A type cannot be checked. The message names it, the way to it, and what can be used."""


def path_text(where: str, parts: Sequence[str | int]) -> str:
    """Return the place ``parts`` below ``where`` as text: ``answer.findings[2]['odd key']``."""
    text = where
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier():
            text += f".{part}" if text else part
        else:
            text += f"[{shown(part)}]"
    return text


def _shown_path(path: str) -> str:
    # Its end says most.
    path = path if len(path) <= _SHOWN_PATH else f"…{path[-_SHOWN_PATH:]}"
    return path if path.isprintable() else repr(path)[1:-1]


def shown(value: Any) -> str:
    """Return a short text for any value at all, in the words of JSON; fit to be printed.

    Of what is no JSON only the type is named: its ``repr`` may be long, deep or broken.
    """
    kind: type[object] = type(value)  # pyright: ignore[reportUnknownVariableType]  # Any
    if kind is str:
        # `repr` also escapes lone surrogates and control characters.
        return shorten(repr(value[: _SHOWN_VALUE + 1]))
    if kind in _WORDS:
        return _WORDS[kind]
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        bits = value.bit_length()
        return repr(value) if bits <= _SHOWN_BITS else f"a number of {bits} bits"
    if kind is float:
        return repr(value)
    if isinstance(value, list):
        return "a list"
    return "an object" if isinstance(value, dict) else article(kind.__name__)


_WORDS: Final[dict[type[object], str]] = {type(None): "null"}


def article(name: str) -> str:
    """Return ``name`` with the article it takes."""
    return f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name}"


def shorten(text: str, length: int = _SHOWN_VALUE) -> str:
    """Return ``text`` cut to about ``length`` characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
