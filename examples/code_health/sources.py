"""The files under review: found, read and parsed, each once.

They belong to somebody else: nothing of theirs is imported or run, and whatever is in them, or
in their names, a file that cannot be looked into is a finding and no crash.
"""

from __future__ import annotations

import ast
import fnmatch
import io
import os
import re
import stat
import threading
import tokenize
import warnings
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

from .findings import Finding, code, shown

__all__ = [
    "MAX_BYTES",
    "ReviewError",
    "Source",
    "Sources",
    "as_folder",
    "is_excluded",
    "packages_of",
    "parse",
    "shared_sources",
    "unparsed",
    "walk",
]

MAX_BYTES: Final = 4_000_000
"""No file is larger unless a program wrote it, and its tree would fill the memory."""

# One at a time: in some releases, CPython's parser counts the depth of the tree it makes in one
# place for all threads, and two that parse at once can end in a SystemError.
_PARSER: Final = threading.Lock()

# The parser warns of what it reads ("invalid escape sequence"): not ours to hear. Warnings are
# filtered by where they come from, and `warnings.catch_warnings` is not for threads.
_ORIGIN: Final = "<under review>"


_OTHERS: Final = frozenset(
    {"__pycache__", "_vendor", "node_modules", "site-packages", "third_party"}
)


class ReviewError(Exception):
    """A review cannot begin: its folder or one of its settings is unusable."""


@attrs.frozen(eq=False)
class Source:
    r"""One file.

    Attributes:
        path: relative to the folder under review, with slashes.
        text: what is in it, with ``\n`` between lines; ``""`` if it cannot be read.
        tree: its syntax tree; None if there is none.
        problem: why there is none.
        line: where the problem is.
        packages: the folder under review and those around it, as far as they are packages.
    """

    path: str
    text: str
    tree: ast.Module | None
    problem: str = ""
    line: int = 1
    packages: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """Its lines, numbered as in ``tree``: `str.splitlines` would split at form feeds too."""
        return self.text.split("\n")

    @property
    def name(self) -> str:
        """The last part of its module's name; a package has its folder's."""
        name = self.path.removesuffix(".py").rpartition("/")[2]
        return self.folders[-1] if name == "__init__" and self.folders else name

    @property
    def folders(self) -> list[str]:
        """The folders it is in, as far as they can be packages."""
        return [*self.packages, *self.path.split("/")[:-1]]


class Sources:
    """The files of one review, read and parsed when first asked for. Safe to share by threads.

    Costs about a kilobyte of memory for each line.
    """

    def __init__(self, base: str | Path) -> None:
        """``base`` is what paths are relative to."""
        self._base = Path(base)
        self._packages = packages_of(self._base)
        self._known: dict[str, Source] = {}

    @property
    def packages(self) -> tuple[str, ...]:
        """See `Source`."""
        return self._packages

    def __getitem__(self, path: str) -> Source:
        source = self._known.get(path)
        if source is None:
            with _PARSER:
                source = self._known.get(path)
                if source is None:
                    source = self._known[path] = attrs.evolve(
                        _load(self._base, path), packages=self._packages
                    )
        return source

    def names_in_settings(self) -> frozenset[str]:
        """Return the words in the project's settings files: entry points are named there."""
        words: set[str] = set()
        for name in ("pyproject.toml", "setup.cfg", "tox.ini", "pytest.ini"):
            try:
                words.update(re.findall(r"[^\W\d]\w*", _read(self._base / name).decode()))
            except (OSError, ValueError):
                continue
        return frozenset(words)


# A run's sources, for as long as one of its analyses holds on to them. Syntax trees are no JSON,
# so state cannot carry them from branch to branch; a resumed run just parses again.
_SHARED: Final[weakref.WeakValueDictionary[tuple[str, str], Sources]] = (
    weakref.WeakValueDictionary()
)


def shared_sources(run: str, base: str) -> Sources:
    """Return the sources that everybody in the run of that id shares."""
    return _SHARED.setdefault((run, base), Sources(base))


# ------------------------------------------------------------------------------------- finding


def as_folder(text: str) -> Path:
    """Return the folder that ``text`` names, absolute and without links.

    Raises:
        ReviewError: there is none, or it cannot be listed.
    """
    try:
        # Not every shell makes a home folder of the tilde in `make run DIR=~/project`.
        home = os.path.expanduser(text)  # noqa: PTH111  # this one leaves it where there is none
        path = Path(home).resolve(strict=True)
        with os.scandir(path):
            str(path).encode()
    except NotADirectoryError:
        problem = "that is a file; give the folder it is in"
    except OSError as exc:
        problem = exc.strerror or type(exc).__name__
    except UnicodeEncodeError:
        problem = "its name is not UTF-8"
    except (RuntimeError, ValueError) as exc:
        # Python 3.11 raises the first for links in a circle; the second is for null characters.
        problem = "its links go round in a circle" if isinstance(exc, RuntimeError) else str(exc)
    else:
        return path
    message = f"cannot look into {shown(text)!r:.300}: {problem}"
    raise ReviewError(message)


def walk(base: Path, below: Iterable[str] = ("",), exclude: Sequence[str] = ()) -> Iterator[str]:
    """Yield the Python files below a folder, as paths relative to it, in a fixed order.

    Links are not followed. Hidden folders, virtual environments and folders of other people's
    packages are left out. A name that is not UTF-8 comes with lone surrogates in it.
    """
    for start in below:
        for place, folders, names in os.walk(base / start):
            here = Path(place).relative_to(base)
            if "pyvenv.cfg" in names:
                folders.clear()
                continue
            folders[:] = sorted(
                name
                for name in folders
                if name[0] != "."
                and name not in _OTHERS
                and not is_excluded((here / name).as_posix(), exclude)
            )
            for name in sorted(names):
                path = (here / name).as_posix()
                if name.endswith(".py") and not is_excluded(path, exclude) and _is_file(base, path):
                    yield path


def packages_of(folder: Path) -> tuple[str, ...]:
    """Return the names of a folder and of those around it, as far as they are packages."""
    names: list[str] = []
    for one in (folder, *folder.parents):
        if not (one / "__init__.py").is_file():
            break
        names.insert(0, one.name)
    return tuple(names)


def is_excluded(path: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern matches the path; one without a slash may match its last part alone."""
    name = path.rpartition("/")[2]
    return any(
        fnmatch.fnmatchcase(path if "/" in pattern else name, pattern.strip("/"))
        for pattern in patterns
    )


def _is_file(base: Path, path: str) -> bool:
    try:
        return stat.S_ISREG((base / path).lstat().st_mode)
    except OSError:
        return False


# ------------------------------------------------------------------------------------- parsing


def _load(base: Path, path: str) -> Source:
    try:
        data = _read(base / path)
    except OSError as exc:
        return Source(path, "", None, exc.strerror or type(exc).__name__)
    except ValueError as exc:
        return Source(path, "", None, shown(str(exc)))
    return parse(path, data)


def _read(path: Path) -> bytes:
    # Non-blocking: what was a file when it was found may be a pipe by now.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            message = "not a file"
            raise ValueError(message)
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        message = f"larger than {MAX_BYTES:,} bytes"
        raise ValueError(message)
    return data


def parse(path: str, data: bytes) -> Source:
    """Parse what is in a file. Call it in one thread at a time; `Sources` sees to that."""
    text = _decode(data)
    # Again and again, at its cheap price: whoever restores the filters takes ours away.
    warnings.filterwarnings("ignore", module=re.escape(_ORIGIN))
    try:
        return Source(path, text, ast.parse(data, _ORIGIN))
    except SyntaxError as exc:
        return Source(path, text, None, shown(exc.msg), exc.lineno or 1)
    except (ValueError, RecursionError, MemoryError) as exc:
        return Source(path, text, None, shown(str(exc)) or type(exc).__name__)


def _decode(data: bytes) -> str:
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding, errors="replace")
    except (SyntaxError, LookupError, ValueError):
        text = data.decode(errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def unparsed(source: Source) -> list[Finding]:
    """Return the finding that a file has no syntax tree, if it has none."""
    if source.tree is not None:
        return []
    return [
        Finding(
            kind="parse",
            path=source.path,
            line=source.line,
            name="",
            measure=None,
            message=f"cannot be looked into: {code(source.problem)}",
        )
    ]
