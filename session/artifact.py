"""Artifacts: texts and files that are kept by name, in versions, beside a session.

An artifact is one part of a message: words (`Text`) or bytes (`InlineData`). It belongs to its
session or, if its name begins with ``user:``, to the user: all sessions of that user in the
application see it.

What every service promises:

* **a version never changes.** Saving under a name that is taken makes the next version, and
  overwrites nothing. The first is 0, and there are no gaps; a name that was deleted starts again.
* **a save is all or nothing.** When it returns, the version is there, whole. If it fails or is
  cancelled, either the whole version is there or nothing is.
* **names are the same everywhere.** Every service takes and refuses the same names (`check_name`),
  so what works in memory works in a folder. Names that differ at all, in case for instance, name
  different artifacts; ``a`` and ``a/b`` can both be there.

The errors::

    ArtifactError
    ├── ArtifactNameError     a name that no service takes       (also a ValueError)
    ├── ArtifactTypeError     neither words nor bytes            (also a TypeError)
    └── DamagedArtifactError  what is kept is not what was saved

A service may block in every method, and may be cancelled in every one. It need not checkpoint:
who calls it in a loop checkpoints itself.

`InMemoryArtifactService` is for tests and for what need not outlive the process; it is the
reference for all others.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Final, TypeAlias

from session.content import InlineData, Part, Text
from session.session import SessionKey
from session.state import USER_PREFIX

__all__ = [
    "MAX_NAME_BYTES",
    "MAX_SEGMENT_BYTES",
    "Artifact",
    "ArtifactError",
    "ArtifactNameError",
    "ArtifactService",
    "ArtifactTypeError",
    "DamagedArtifactError",
    "InMemoryArtifactService",
    "artifact_of",
    "check_name",
    "check_version",
]

Artifact: TypeAlias = Text | InlineData
"""What can be kept: words or bytes."""

MAX_NAME_BYTES: Final = 500
"""How long a name may be, in UTF-8. Paths have an end, and a folder's own comes before it."""

MAX_SEGMENT_BYTES: Final = 200
"""How long each piece of a name between slashes may be, in UTF-8."""

_SHOWN: Final = 80


class ArtifactError(Exception):
    """Something is wrong with an artifact. Subclasses say what."""


class ArtifactNameError(ArtifactError, ValueError):
    """No service keeps an artifact under this name. ``name`` is it, ``why`` what is wrong."""

    def __init__(self, name: object, why: str) -> None:
        """Show the name, and say what would do."""
        shown = repr(name)
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
        super().__init__(
            f"{shown} cannot name an artifact: {why}. A name is a relative path such as "
            "'report.md' or 'charts/2024.png', with 'user:' before it for all sessions of the user"
        )
        self.name = name
        self.why = why


class ArtifactTypeError(ArtifactError, TypeError):
    """Something that is neither words nor bytes was to be saved."""

    def __init__(self, artifact: object) -> None:
        """Name its type, and what would do."""
        super().__init__(
            f"a {type(artifact).__name__} cannot be an artifact; "
            "give a str or a Text, or bytes or an InlineData"
        )


class DamagedArtifactError(ArtifactError):
    """What is kept is not what was saved. ``path`` names it, ``why`` says what is wrong."""

    def __init__(self, path: str, why: str) -> None:
        """Name the place first: somebody has to go and look."""
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


class ArtifactService(ABC):
    """Keeps artifacts. See the module for what every implementation promises."""

    @abstractmethod
    async def save(self, key: SessionKey, name: str, artifact: Part | str | bytes) -> int:
        """Keep ``artifact`` as the next version of ``name``, and return its number.

        Text is short for a `Text`, bytes for an `InlineData` of no particular type.

        Raises:
            ArtifactNameError: there can be no artifact of that name.
            ArtifactTypeError: it is neither words nor bytes.
            UnstorableError: the text has no UTF-8 form.
        """

    @abstractmethod
    async def load(
        self, key: SessionKey, name: str, *, version: int | None = None
    ) -> Artifact | None:
        """Return the newest version, or the one asked for; None if there is none.

        Raises:
            ArtifactNameError: there can be no artifact of that name.
            DamagedArtifactError: it is there, and is not what was saved.
            ValueError: ``version`` is less than 0.
        """

    @abstractmethod
    async def list_names(self, key: SessionKey) -> list[str]:
        """Return the names of what the session sees, its own and its user's, in order.

        The order is that of `sorted`. The user's names have their ``user:`` before them.
        """

    @abstractmethod
    async def list_versions(self, key: SessionKey, name: str) -> list[int]:
        """Return the numbers of the versions there are, lowest first.

        Raises:
            ArtifactNameError: there can be no artifact of that name.
        """

    @abstractmethod
    async def delete(self, key: SessionKey, name: str) -> None:
        """Forget all versions of an artifact. Nothing happens if there are none.

        Raises:
            ArtifactNameError: there can be no artifact of that name.
        """


# For implementers: call these before changing anything.


def artifact_of(given: object) -> Artifact:
    """Return what `ArtifactService.save` was given as a part.

    Raises:
        ArtifactTypeError: it is neither words nor bytes.
        UnstorableError: the text has no UTF-8 form.
    """
    match given:
        case Text() | InlineData():
            return given
        case str():
            return Text(given)
        case bytes():
            return InlineData(given)
        case _:
            raise ArtifactTypeError(given)


def check_version(version: object) -> None:
    """Refuse what can be no version of any artifact.

    Raises:
        ValueError: ``version`` is neither None nor an integer from 0.
    """
    if version is None or (type(version) is int and version >= 0):
        return
    raise ValueError(f"version must be a number from 0, or None for the newest, not {version!r}")


def check_name(name: str) -> None:
    """Refuse a name that cannot be kept everywhere.

    A name is a relative path of one or more segments with ``/`` between them; ``user:`` may come
    before it. It must be a path on every system: no segment is empty, ``.`` or ``..``, or ends in
    a dot or a space, there are no backslashes and no control characters, it begins with no drive
    (``C:``), it has a UTF-8 form, of `MAX_NAME_BYTES` at most, `MAX_SEGMENT_BYTES` each segment.

    Raises:
        ArtifactNameError: the name breaks one of these rules; the message says which.
    """
    why = _objection(name)
    if why is not None:
        raise ArtifactNameError(name, why)


# C0, DEL and C1: Unicode's control characters, for good.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DRIVE: Final = re.compile(r"[A-Za-z]:")


def _objection(name: object) -> str | None:
    # Callers need not use a type checker. A subclass of str may say anything of itself.
    if type(name) is not str:
        return f"text is needed, not a {type(name).__name__}"
    path = name.removeprefix(USER_PREFIX)
    if not path:
        return "it is empty"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "it holds a lone surrogate, which has no UTF-8 form"
    control = _CONTROL.search(path)
    if control is not None:
        return f"it holds the control character {control[0]!r}"
    if "\\" in path:
        return "it holds a backslash; folders are separated by '/'"
    if path.startswith("/"):
        return "it is an absolute path"
    if _DRIVE.match(path):
        return f"it begins with a drive, {path[:2]!r}"
    if size > MAX_NAME_BYTES:
        return f"it is {size} bytes long, and {MAX_NAME_BYTES} are the most"
    return next(filter(None, map(_segment_objection, path.split("/"))), None)


def _segment_objection(segment: str) -> str | None:
    if not segment:
        return "it has an empty segment: two slashes in a row, or one at its end"
    if segment in {".", ".."}:
        return f"it has a segment {segment!r}, which is a place and no name"
    if segment[-1] in ". ":
        return f"its segment {segment!r} ends in a dot or a space, which Windows leaves out"
    size = len(segment.encode())
    if size > MAX_SEGMENT_BYTES:
        return f"it has a segment {size} bytes long, and {MAX_SEGMENT_BYTES} are the most"
    return None


# ----------------------------------------------------------------------------------- in memory

_Scope: TypeAlias = tuple[str, ...]


def _scope_of(key: SessionKey, name: str) -> _Scope:
    check_name(name)
    return _users_scope(key) if name.startswith(USER_PREFIX) else _sessions_scope(key)


def _users_scope(key: SessionKey) -> _Scope:
    return (key.app_name, key.user_id)


def _sessions_scope(key: SessionKey) -> _Scope:
    return (key.app_name, key.user_id, key.session_id)


class InMemoryArtifactService(ArtifactService):
    """Keeps artifacts for as long as it lives itself: the reference for other services.

    Nothing is copied, since parts cannot change. A save and a load cost the same however much is
    kept; a listing costs the names in it. Nothing here awaits, so nothing can be seen half done
    by another task of the same loop; the service is not meant to be shared between threads.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._kept: dict[_Scope, dict[str, list[Artifact]]] = {}

    async def save(self, key: SessionKey, name: str, artifact: Part | str | bytes) -> int:
        """See `ArtifactService.save`."""
        scope, part = _scope_of(key, name), artifact_of(artifact)
        versions = self._kept.setdefault(scope, {}).setdefault(name, [])
        versions.append(part)
        return len(versions) - 1

    async def load(
        self, key: SessionKey, name: str, *, version: int | None = None
    ) -> Artifact | None:
        """See `ArtifactService.load`."""
        check_version(version)
        versions = self._versions(key, name)
        if version is None:
            return versions[-1] if versions else None
        return versions[version] if version < len(versions) else None

    async def list_names(self, key: SessionKey) -> list[str]:
        """See `ArtifactService.list_names`."""
        own, shared = (self._kept.get(scope(key), {}) for scope in (_sessions_scope, _users_scope))
        return sorted([*own, *shared])

    async def list_versions(self, key: SessionKey, name: str) -> list[int]:
        """See `ArtifactService.list_versions`."""
        return list(range(len(self._versions(key, name))))

    async def delete(self, key: SessionKey, name: str) -> None:
        """See `ArtifactService.delete`."""
        scope = _scope_of(key, name)
        names = self._kept.get(scope, {})
        names.pop(name, None)
        if not names:
            self._kept.pop(scope, None)

    def _versions(self, key: SessionKey, name: str) -> list[Artifact]:
        return self._kept.get(_scope_of(key, name), {}).get(name, [])
