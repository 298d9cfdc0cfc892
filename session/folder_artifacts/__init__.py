"""Artifacts in a folder on disk, for many tasks and processes at once, and for people to look at.

What is where::

    <folder>/
        <app>/<user>/<session>/     what belongs to a session
            charts/
                !sales.png@/        the artifact "charts/Sales.png"
                    0/              its first version
                        Sales.png   the bytes; words are UTF-8
                        @artifact.json
                    1/
        <app>/<user>/@user/         what belongs to the user
        @unfinished/                what is being written or removed

``@artifact.json`` holds the artifact's name as it was given, what the part was (words or bytes,
MIME type), and the digest of the bytes.

**Names of folders** hold only what every file system keeps apart: small letters, digits, ``_``,
``-``, ``.`` and space. A capital is ``!`` and its small letter, because many file systems take
``A`` for ``a``. Every other character is ``%xx`` for each of its bytes in UTF-8, because they
disagree about accents, too. So nothing collides, nothing is ``..``, and no name is reserved. What
would be too long is cut off, with ``~`` and a SHA-256 digest of the whole at its end.

**Versions are claimed by renaming.** A version is written in ``@unfinished`` and then renamed
to the next number, which the system refuses if somebody else has just taken it; then the number
after is tried. Nobody sees half a version, and no two savers get the same one. If a name is
deleted while somebody saves it, the new versions may begin at a higher number than 0.

**What is on disk is checked.** Below the folder every symbolic link is refused, and every file
that a service did not put there, unless its name begins with a dot. A version that was changed
by hand is refused too: versions never change. Each error names the file; deleting the artifact
is a way out. The checks are for accidents and for links left behind; they are no defence against
somebody who changes the folder at that very moment.

A version that was saved is flushed to disk, against loss of power too. A process that dies leaves
what it was writing in ``@unfinished``, where anything may be removed while nobody saves.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar, TypeVarTuple, Unpack

import trio

from session.artifact import Artifact, ArtifactService, artifact_of, check_version
from session.content import Part
from session.folder_artifacts._disk import Disk
from session.folder_artifacts._names import owner_of
from session.session import SessionKey

__all__ = ["FolderArtifactService"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_THREADS: Final = 8


class FolderArtifactService(ArtifactService):
    """Keeps artifacts in a folder on disk. See the module for how they lie there.

    Any number of services, in any number of processes, may use one folder at once. The work is
    done in threads, a few at a time; the event loop goes on meanwhile. A call that is cancelled
    before it got a thread has done nothing; from then on it is finished first, and returns.

    A save costs the bytes, a few flushes of the disk and a look at the numbers of the versions
    there are; a load, the bytes and the same look; a listing, a look at every artifact listed.

    Every method raises `DamagedArtifactError` when it meets what no service put there, and an
    OSError when the disk is full or refuses. A service belongs to one event loop at a time.

    Args:
        folder: where to keep them; made at the first save. A link to a folder will do, since
            what is refused are links below it.

    Raises:
        NotADirectoryError: ``folder`` is a file.
        ValueError: ``folder`` is empty.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """See the class."""
        given = os.fspath(folder)
        if not given:
            raise ValueError("folder is empty; name one, '.' for the current one")
        # Now, not at each call: the process may go to another folder.
        root = Path(given).absolute()
        if root.exists() and not root.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "artifacts need a folder, not a file", given)
        self._disk = Disk(root)
        # Its own: if agents that are plain functions held all of trio's threads while waiting
        # for an artifact, none would be left to get it.
        self._threads = trio.CapacityLimiter(_THREADS)

    @property
    def folder(self) -> Path:
        """Where the artifacts are, from the root."""
        return self._disk.root

    async def save(self, key: SessionKey, name: str, artifact: Part | str | bytes) -> int:
        """See `ArtifactService.save`."""
        owner, part = owner_of(key, name), artifact_of(artifact)
        return await self._run(self._disk.save, owner, name, part)

    async def load(
        self, key: SessionKey, name: str, *, version: int | None = None
    ) -> Artifact | None:
        """See `ArtifactService.load`."""
        check_version(version)
        return await self._run(self._disk.load, owner_of(key, name), name, version)

    def path_of(self, key: SessionKey, name: str, version: int) -> Path | None:
        """Return the file in which a version lies, for people to look at; None if there is none.

        Looks at the disk, and blocks for as long as that takes.

        Raises:
            ArtifactNameError: the name climbs out of its place, or is none.
        """
        check_version(version)
        return self._disk.path_of(owner_of(key, name), name, version)

    async def list_names(self, key: SessionKey) -> list[str]:
        """See `ArtifactService.list_names`."""
        return await self._run(self._disk.all_names, key)

    async def list_versions(self, key: SessionKey, name: str) -> list[int]:
        """See `ArtifactService.list_versions`."""
        return await self._run(self._disk.versions, owner_of(key, name), name)

    async def delete(self, key: SessionKey, name: str) -> None:
        """See `ArtifactService.delete`. Whatever is in the artifact's folder goes."""
        await self._run(self._disk.delete, owner_of(key, name), name)

    async def _run(self, work: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        return await trio.to_thread.run_sync(work, *args, limiter=self._threads)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r})"
