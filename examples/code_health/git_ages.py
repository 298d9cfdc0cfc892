"""How old lines are, as far as git knows."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import trio

__all__ = ["MAX_FILES", "ages_of"]

MAX_FILES: Final = 200
"""Of so many files, the first in order, lines have an age: each is a process."""

SIDE_BY_SIDE: Final = 2
TIMEOUT: Final = 30.0

# The repository came with the folder, so its settings are not trusted: git can be told to run
# programs (a monitor of files, filters, helpers of remotes), and must not be by a stranger.
_SETTINGS: Final = (
    *("-c", "core.fsmonitor=false"),
    *("-c", "safe.bareRepository=explicit"),
    *("-c", "mailmap.file="),  # a pipe, or /dev/zero, would be read to its end
)
_ENVIRONMENT: Final = {
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}


async def ages_of(
    lines: Iterable[tuple[str, int, str]], *, base: Path, today: dt.date
) -> dict[tuple[str, int], int]:
    """Return the ages in days of lines given as (path, number, text), by path and number.

    Without git, outside of a repository, and for lines in files that git does not know, there is
    none; nor when git takes longer than `TIMEOUT` for a file, or fails. Never raises on its
    account. A line that is not committed yet is 0 days old.
    """
    wanted: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for path, number, text in lines:
        wanted[path].append((number, text))
    git = shutil.which("git")
    if not wanted or git is None or not await _is_whole(git, base):
        return {}
    ages: dict[tuple[str, int], int] = {}
    limit = trio.CapacityLimiter(SIDE_BY_SIDE)

    async def look_at(path: str) -> None:
        async with limit:
            # Lines as they are in the last commit, not as they are in the folder: to compare
            # with those, git would run the filters that the repository's settings name.
            output = await _run(
                git,
                base,
                "blame",
                "--no-textconv",
                "--no-ignore-revs-file",
                "--porcelain",
                "HEAD",
                "--",
                path,
            )
        if output is not None:
            ages.update(_ages_in(path, wanted[path], _dates(output), today))

    async with trio.open_nursery() as nursery:
        for path in sorted(wanted)[:MAX_FILES]:
            nursery.start_soon(look_at, path)
    return ages


async def _is_whole(git: str, base: Path) -> bool:
    """Whether the folder is in a repository with all its history: a clone may have its end only."""
    output = await _run(git, base, "rev-parse", "--is-inside-work-tree", "--is-shallow-repository")
    return output is not None and output.split() == [b"true", b"false"]


async def _run(git: str, base: Path, *arguments: str) -> bytes | None:
    """Run git in a folder; return what it says, or None if that came to nothing."""
    # What is set here may be about another repository, as it is in a hook of git's.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    with trio.move_on_after(TIMEOUT):
        try:
            done = await trio.run_process(
                [git, *_SETTINGS, "-C", str(base), *arguments],
                capture_stdout=True,
                stderr=subprocess.DEVNULL,
                check=False,
                env=environment | _ENVIRONMENT,
            )
        except OSError:
            return None
        if done.returncode == 0:
            return bytes(done.stdout)
    return None


def _dates(output: bytes) -> list[tuple[str, int]]:
    """Return each line's text, and when it was written, in seconds since the epoch."""
    written: dict[bytes, int] = {}
    lines: list[tuple[str, int]] = []
    commit = b""
    for row in output.split(b"\n"):
        if row.startswith(b"\t"):
            lines.append((row[1:].decode(errors="replace").strip(), written.get(commit, 0)))
            commit = b""
            continue
        key, _, value = row.partition(b" ")
        if not commit:
            commit = key
        elif key == b"author-time":
            written[commit] = int(value)
    return lines


def _ages_in(
    path: str,
    wanted: Iterable[tuple[int, str]],
    lines: list[tuple[str, int]],
    today: dt.date,
) -> Mapping[tuple[str, int], int]:
    """Find the wanted lines among those of the last commit: the nearest with the same text."""
    places: dict[str, list[int]] = defaultdict(list)
    for index, (text, _) in enumerate(lines):
        places[text].append(index)
    ages = {}
    for number, text in wanted:
        same = places.get(text.strip(), [])
        nearest = min(same, key=lambda index: abs(index + 1 - number), default=None)
        ages[path, number] = 0 if nearest is None else _days_since(lines[nearest][1], today)
    return ages


def _days_since(seconds: int, today: dt.date) -> int:
    try:
        written = dt.datetime.fromtimestamp(seconds, dt.UTC).date()
    except (OverflowError, OSError, ValueError):
        return 0  # a commit may claim any time
    return max((today - written).days, 0)
