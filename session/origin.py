"""Where an event comes from.

Pure values: no I/O, no clock, no event loop.
"""

from __future__ import annotations

__all__ = ["Origin"]


class Origin:
    """Where an event comes from: one object per activation, shared by all its events.

    ``branch`` is None on the root branch. ``path`` is unique to the activation. Subclasses may
    work the two out when asked; the runtime's does, because at depth a thousand most are never
    read.
    """

    __slots__ = ("_branch", "_path", "attempt", "author", "invocation_id")

    def __init__(
        self,
        *,
        author: str = "",
        invocation_id: str = "",
        branch: str | None = None,
        path: str = "",
        attempt: int = 1,
    ) -> None:
        """Plain text, and a number; ``branch`` is dotted, ``path`` is slashed."""
        self.author = author
        self.attempt = attempt
        self.invocation_id = invocation_id
        self._branch = branch
        self._path = path

    @property
    def branch(self) -> str | None:
        """The dotted branch, or None for the root branch."""
        return self._branch

    @property
    def path(self) -> str:
        """The slashed path of the activation from the root of its tree."""
        return self._path

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.author} at {self.path or '?'}>"
