"""The work on disk, in plain calls that block; for a thread."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

import attrs

from session.artifact import Artifact, DamagedArtifactError
from session.content import InlineData, Text
from session.folder_artifacts._names import (
    ABOUT,
    ARTIFACT,
    CUT,
    UNFINISHED,
    content_file,
    decode,
    leads_to,
    of_session,
    of_user,
    steps_to,
)
from session.session import SessionKey
from session.state import USER_PREFIX

_NUMBER: Final = re.compile(r"0|[1-9][0-9]*")


# ------------------------------------------------------------------- what is said of a version

_text = attrs.validators.instance_of(str)


@attrs.frozen(kw_only=True)
class _About:
    """What ``@artifact.json`` holds."""

    name: str = attrs.field(validator=_text)
    kind: str = attrs.field(validator=attrs.validators.in_(("text", "data")))
    mime_type: str | None = attrs.field(validator=attrs.validators.optional(_text))
    thought: bool = attrs.field(validator=attrs.validators.instance_of(bool))
    sha256: str = attrs.field(validator=_text)

    @classmethod
    def of(cls, name: str, part: Artifact, data: bytes) -> _About:
        sha256 = hashlib.sha256(data).hexdigest()
        match part:
            case Text(thought=thought):
                return cls(name=name, kind="text", mime_type=None, thought=thought, sha256=sha256)
            case InlineData(mime_type=mime):
                return cls(name=name, kind="data", mime_type=mime, thought=False, sha256=sha256)

    def part(self, data: bytes) -> Artifact:
        """Raises ValueError if the two do not belong together."""
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise ValueError("the bytes are not those that were saved")
        if self.kind == "text":
            return Text(data.decode(), self.thought)
        if self.mime_type is None:
            raise ValueError("there are bytes, and no MIME type")
        return InlineData(data, self.mime_type)


def _bytes_of(part: Artifact) -> bytes:
    return part.text.encode() if isinstance(part, Text) else part.data


# ------------------------------------------------------------------------------- files, checked


def _is_folder(path: Path) -> bool:
    """Whether the folder is there; raises if something else is."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        return True
    what = "a symbolic link, which may lead out" if stat.S_ISLNK(mode) else "a file"
    raise DamagedArtifactError(str(path), f"it should be a folder and is {what}; remove it")


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What is in the folder, in order, but for hidden files. Nothing if it has just gone."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".")]
    except FileNotFoundError:
        found = []
    return iter(sorted(found, key=lambda entry: entry.name))


def _folders(folder: Path) -> Iterator[str]:
    """The names of `_entries`, all of which must be folders."""
    for entry in _entries(folder):
        # The first is free, and says no less of what is gone by now.
        if entry.is_dir(follow_symlinks=False) or _is_folder(Path(entry.path)):
            yield entry.name


def _versions(artifact: Path) -> list[int]:
    """The versions in an artifact's folder, lowest first."""
    found = list(_folders(artifact))
    for name in found:
        if not _NUMBER.fullmatch(name):
            path = str(artifact / name)
            raise DamagedArtifactError(path, "it is no version of the artifact; remove it")
    return sorted(map(int, found))


def _identity(folder: Path) -> tuple[int, int, int] | None:
    """What tells a folder from a later one in its place; None if there is none."""
    try:
        info = os.lstat(folder)
    except FileNotFoundError:
        return None
    return info.st_dev, info.st_ino, info.st_ctime_ns  # a new folder may get an old one's number


def _read(path: Path) -> bytes:
    """Read a file of a version. FileNotFoundError says that the whole version has gone."""
    version = _identity(path.parent)
    try:
        # Before opening: opening a pipe would wait for somebody to write to it.
        if stat.S_ISREG(os.lstat(path).st_mode):
            return path.read_bytes()
    except FileNotFoundError as error:
        # In the place of one that was deleted, the next may be by now.
        if version is not None and _identity(path.parent) == version:
            why = "it is missing; delete the artifact"
            raise DamagedArtifactError(str(path), why) from error
        raise
    raise DamagedArtifactError(str(path), "it should be a file, and no link to one; remove it")


def _read_about(version: Path, name: str | None) -> _About:
    """Read what is said of a version: that of the artifact ``name``, if that is known."""
    path = version / ABOUT
    try:
        about = _About(**json.loads(_read(path)))
    except (TypeError, ValueError, RecursionError) as error:
        why = "it does not say what the artifact is; delete the artifact"
        raise DamagedArtifactError(str(path), why) from error
    if name not in {None, about.name}:
        why = f"it belongs to the artifact {about.name!r}, not to {name!r}; remove it"
        raise DamagedArtifactError(str(path), why)
    return about


def _read_version(version: Path, name: str) -> Artifact:
    about = _read_about(version, name)
    path = version / content_file(name)
    data = _read(path)
    try:
        return about.part(data)
    except ValueError as error:
        if _read_about(version, name) != about:
            return _read_version(version, name)  # deleted and saved anew since the first look
        raise DamagedArtifactError(str(path), f"{error}; delete the artifact") from error


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Make what was created in or moved to the folder outlast a loss of power."""
    if os.name == "nt":  # does so by itself, and opens no folders
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _remove(folder: Path) -> None:
    """Remove a folder, and what those who were about to save in it move there meanwhile."""
    for times_left in reversed(range(20)):
        try:
            shutil.rmtree(folder)
        except OSError as error:
            if not times_left or error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                raise
        else:
            return


# -------------------------------------------------------------------------------- what is done


@attrs.frozen
class Disk:
    """The work itself, in plain calls that block. Every one may run beside any other."""

    root: Path

    def find(self, steps: Sequence[str]) -> Path | None:
        """Return the folder at the end of ``steps``, or None if there is none."""
        path = self.root
        for step in steps:
            path /= step
            if not _is_folder(path):
                return None
        return path

    def make(self, steps: Sequence[str]) -> Path:
        """Return the folder at the end of ``steps``, made where it is missing."""
        if not self.root.is_dir():
            for folder in reversed([self.root, *self.root.parents]):
                if not folder.exists():
                    folder.mkdir(exist_ok=True)
                    _flush_folder(folder.parent)
        path = self.root
        for step in steps:
            path /= step
            while not _is_folder(path):
                with suppress(FileExistsError):  # somebody else has just made it
                    path.mkdir()
                    _flush_folder(path.parent)
        return path

    @contextmanager
    def unfinished(self) -> Generator[Path, None, None]:
        """Give the path of a folder to be, on the same disk. What is there afterwards goes."""
        path = self.make([UNFINISHED]) / uuid4().hex
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def save(self, owner: list[str], name: str, part: Artifact) -> int:
        data = _bytes_of(part)
        about = json.dumps(attrs.asdict(_About.of(name, part, data)), ensure_ascii=False, indent=2)
        with self.unfinished() as draft:
            draft.mkdir()
            _write(draft / content_file(name), data)
            _write(draft / ABOUT, about.encode() + b"\n")
            _flush_folder(draft)
            while True:
                version = self.claim(draft, [*owner, *steps_to(name)])
                if version is not None:
                    return version

    def claim(self, draft: Path, steps: Sequence[str]) -> int | None:
        """Move ``draft`` to where the next version belongs; None if somebody was faster."""
        try:
            artifact = self.make(steps)
            version = max(_versions(artifact), default=-1) + 1
            # Replaces a folder only if that is empty, and no version is.
            draft.rename(artifact / str(version))
        except FileNotFoundError:
            if not draft.exists():
                raise
            return None  # deleted in the meantime
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                raise
            return None
        with suppress(FileNotFoundError):  # deleted since
            _flush_folder(artifact)
        return version

    def load(self, owner: list[str], name: str, version: int | None) -> Artifact | None:
        artifact = self.find([*owner, *steps_to(name)])
        if artifact is None:
            return None
        versions = _versions(artifact)
        if not versions or version not in {None, *versions}:
            return None
        path = artifact / str(versions[-1] if version is None else version)
        try:
            return _read_version(path, name)
        except FileNotFoundError:
            return None  # deleted in the meantime

    def path_of(self, owner: list[str], name: str, version: int) -> Path | None:
        """The file that holds a version's text or bytes."""
        artifact = self.find([*owner, *steps_to(name)])
        if artifact is None:
            return None
        folder = artifact / str(version)
        try:
            held = sorted(path for path in folder.iterdir() if path.name != ABOUT)
        except OSError:
            return None
        return held[0] if held else None

    def versions(self, owner: list[str], name: str) -> list[int]:
        artifact = self.find([*owner, *steps_to(name)])
        return [] if artifact is None else _versions(artifact)

    def all_names(self, key: SessionKey) -> list[str]:
        own, users = self.names(of_session(key), ""), self.names(of_user(key), USER_PREFIX)
        return sorted([*own, *users])

    def names(self, owner: list[str], prefix: str) -> Iterator[str]:
        """The names of one owner's artifacts, in no order, each with ``prefix`` before it."""
        waiting: list[list[str]] = [[]]
        while waiting:
            steps = waiting.pop()
            folder = self.find([*owner, *steps])
            for found in _folders(folder) if folder is not None else ():
                inside = [*steps, found]
                if not found.endswith(ARTIFACT):
                    waiting.append(inside)
                elif name := self.name_of([*owner, *inside], inside, prefix):
                    yield name

    def name_of(self, where: list[str], steps: list[str], prefix: str) -> str | None:
        """Return the name of the artifact in the folder ``where``; None if it has no version."""
        artifact = self.root.joinpath(*where)
        versions = _versions(artifact)
        if not versions:
            return None  # about to be made
        if not any(CUT in step for step in steps):
            name = prefix + "/".join(map(decode, [*steps[:-1], steps[-1].removesuffix(ARTIFACT)]))
        else:
            try:
                name = _read_about(artifact / str(versions[-1]), None).name
            except FileNotFoundError:
                return None  # deleted in the meantime
        if not leads_to(name, steps, prefix):
            raise DamagedArtifactError(str(artifact), "no artifact is kept here; remove it")
        return name

    def delete(self, owner: list[str], name: str) -> None:
        artifact = self.find([*owner, *steps_to(name)])
        if artifact is None:
            return
        # All versions go at once: removing one by one would show the ones before to a reader.
        with self.unfinished() as rubbish:
            try:
                artifact.rename(rubbish)
            except FileNotFoundError:
                return  # somebody else was faster
            _flush_folder(artifact.parent)
            _remove(rubbish)  # what cannot be removed must not go unnoticed
