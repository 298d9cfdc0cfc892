r"""Text from anywhere, made fit for a terminal.

An agent may say whatever a model or a file made it say. A terminal acts on some of that: it moves
the cursor, sets the title, hides text, or shows a line backwards. Here such characters become
visible escapes like ``\x1b``, and everything else stays as it is.

Pure: no event loop, no clock.
"""

from __future__ import annotations

import json
from typing import Final

__all__ = ["harmless", "json_line", "one_line"]


def harmless(text: str) -> str:
    r"""Return ``text`` with every character that a terminal acts on made visible.

    These are the control characters (C0, DEL, C1), the marks that turn the direction of writing,
    separators of lines and paragraphs, and lone surrogates, which have no encoding. Tabs and
    newlines stay; ``\r\n`` counts as a newline.
    """
    if text.isprintable():  # the usual case, and quick to ask
        return text
    return text.replace("\r\n", "\n").translate(_VISIBLE)


def one_line(text: str, limit: int = 500) -> str:
    """Return ``text`` as above, on one line and cut to ``limit`` characters.

    Runs of white space become one space.
    """
    if len(text) > 4 * limit:  # the rest would be cut off anyway
        text = text[: 4 * limit]
    line = " ".join(harmless(text).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def json_line(text: str, *, ascii_only: bool) -> str:
    """Return JSON with every character escaped that a terminal, or a splitter of lines, acts on.

    It is the same JSON. ``ascii_only`` escapes everything that is not ASCII.
    """
    if text.isascii() if ascii_only else text.isprintable():
        # JSON itself has escaped the control characters of ASCII, but for one: DEL.
        return text.replace("\x7f", "\\u007f")
    return "".join(
        letter if letter.isprintable() and (letter.isascii() or not ascii_only) else _escape(letter)
        for letter in text
    )


def _escape(letter: str) -> str:
    return "\\u007f" if letter == "\x7f" else json.dumps(letter)[1:-1]


def _visible() -> dict[int, str]:
    codes = {
        *range(0x20),
        *range(0x7F, 0xA0),
        0x061C,
        *range(0x200E, 0x2010),
        *range(0x2028, 0x202F),
        *range(0x2066, 0x206A),
        *range(0xD800, 0xE000),
        *range(0xFFF9, 0xFFFC),
    } - {ord("\n"), ord("\t")}
    return {code: f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" for code in codes}  # noqa: PLR2004  # one byte


_VISIBLE: Final = _visible()
