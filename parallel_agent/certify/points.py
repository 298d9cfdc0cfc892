"""Boundaries: the places at which a run can be killed, counted, and the one at which it is.

And the notes that a run takes of itself outside its session, which a killed process leaves behind.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import attrs

__all__ = ["DATABASE", "NOTES", "OUTPUT", "RESULT", "WORK", "Notes", "Points", "read_notes"]

# What there is in the folder of a trial; agents work in the last of these.
DATABASE: Final = "sessions.db"
NOTES: Final = "notes.jsonl"
OUTPUT: Final = "output.txt"
RESULT: Final = "result.json"
WORK: Final = "work"


class Notes:
    """A file of JSON lines that is only ever appended to. What was noted survives a kill.

    Not a loss of power: nothing is flushed to the disk.
    """

    def __init__(self, path: Path) -> None:
        """Open it; it is made if need be."""
        self._file: Final = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, kind: str, /, **note: Any) -> None:
        """Note something, at once."""
        line = json.dumps({"kind": kind, **note}, ensure_ascii=True)
        os.write(self._file, line.encode() + b"\n")


def read_notes(path: Path) -> list[Mapping[str, Any]]:
    """Return what was noted, in order."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


@attrs.define(eq=False)
class Points:
    """Counts the boundaries that this process comes to, and kills it at one of them.

    Attributes:
        notes: where each is noted before anything else happens.
        kill_at: the number of the one to die at, from 1; None: none.
    """

    notes: Notes
    kill_at: int | None
    _count: int = 0
    _committing: int | None = None

    def reach(self, when: str, what: str, path: str = "") -> None:
        """The process has come to a boundary."""
        self._note(when, what, path)
        if self._count == self.kill_at:
            kill_this_process()

    def announce_commit(self, what: str, path: str = "") -> None:
        """The next commit of the service's writer is a boundary. Not told again if it is none."""
        self._note("before the commit of", what, path)
        self._committing = self._count

    def committed(self) -> None:
        """That commit is over."""
        self._committing = None

    def in_writer(self, place: str, _size: int) -> None:
        """Called by the service's writer, in its own thread; see `session.database.FaultPoints`."""
        if place == "before commit" and self._committing == self.kill_at is not None:
            kill_this_process()

    def _note(self, when: str, what: str, path: str) -> None:
        self._count += 1
        self.notes.write("point", at=self._count, when=when, what=what, path=path)


def kill_this_process() -> NoReturn:
    """Die as from a loss of power: no ``finally``, no ``atexit``, nothing is flushed."""
    os.kill(os.getpid(), signal.SIGKILL)
    while True:  # until it has arrived
        signal.pause()


def listed(words: Iterable[str], most: int = 3) -> str:
    """Return the first few of them, and how many more there are."""
    words = [*words]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more
