"""Server-sent events as they come in, of which only the data counts.

Pure: no event loop, no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, final

__all__ = ["EventReader"]

_LINE: Final = re.compile(rb"\r\n|\n|\r")


@final
class EventReader:
    """Puts the data of events together, from bytes that are split anywhere.

    Standard: the event stream format of HTML. Names and ids of events are passed over.
    """

    def __init__(self) -> None:
        """Have read nothing yet."""
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, received: bytes) -> Iterator[str]:
        """Yield the data of each event that is whole now.

        Raises:
            UnicodeDecodeError: it is no UTF-8.
        """
        rest = self._rest + received
        # A carriage return at the end may be half of a line's end.
        held = b"\r" if rest.endswith(b"\r") else b""
        *lines, last = _LINE.split(rest.removesuffix(b"\r"))
        self._rest = last + held
        for line in lines:
            yield from self._take(line)

    def end(self) -> Iterator[str]:
        """Yield the data of an event that nothing has ended."""
        yield from self._take(self._rest.removesuffix(b"\r"))
        yield from self._take(b"")
        self._rest = b""

    def _take(self, line: bytes) -> Iterator[str]:
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
        elif not line and self._data:
            data, self._data = b"\n".join(self._data), []
            yield data.decode()
