"""The place of an activation in a run: branch and path, and who sees what.

A *branch* is a line of execution of its own: the root, and every child of a fan-out. Branches
fork and join; `Branch.limit_for` decides, from the order of forks and joins alone, which
recorded events a reader on one branch may see. Branches are compared as objects, never by their
names, so ``agent_1`` and ``agent_10`` cannot be mixed up.

An *activation* is one run of one agent; `Place` names it. Names are put together when somebody
asks: in a tree a thousand deep, most are never read.

Pure: no event loop, no clock.
"""

from __future__ import annotations

from typing import Final

from session.event import Origin

__all__ = ["EVERYTHING", "NEWEST", "NOTHING", "Branch", "Place"]

EVERYTHING: Final = 1 << 62
"""A limit above every sequence number."""

NEWEST: Final = EVERYTHING - 1
"""Stands for the number of an event that has none yet, but will get one next."""

NOTHING: Final = -1
"""A limit below every sequence number."""


class Branch:
    """One line of execution: a node in the tree of forks.

    ``forked`` and ``joined`` are ticks of a counter that the run advances at every fork and
    join; ``forked_seq`` is the last sequence number handed out when this branch was forked.
    Written by the fan-out that owns the branch, and by nobody else.

    Of the branches of one graph, who sees whom does not follow from when they happened to end.
    Such branches have the same ``peers``, each a ``position``, and ``after``, with a bit for each
    that had to end before it could start.
    """

    __slots__ = (
        "_name",
        "after",
        "depth",
        "forked",
        "forked_seq",
        "joined",
        "parent",
        "peers",
        "position",
        "segment",
    )

    def __init__(
        self,
        parent: Branch | None = None,
        segment: str = "",
        *,
        forked: int = 0,
        forked_seq: int = 0,
    ) -> None:
        """Fork from ``parent``; without one, the root branch. ``segment`` is ``fan_out.child``."""
        self.parent = parent
        self.segment = segment
        self.forked = forked
        self.forked_seq = forked_seq
        self.joined: int | None = None
        self.peers: object = None
        self.position = self.after = 0
        self.depth: int = 0 if parent is None else parent.depth + 1
        self._name: str | None = None

    @property
    def name(self) -> str | None:
        """The dotted name; None for the root branch."""
        if self._name is None and self.parent is not None:
            self._name = ".".join(branch.segment for branch in reversed(self._to_root()[:-1]))
        return self._name

    def _to_root(self) -> list[Branch]:
        line: list[Branch] = []
        branch: Branch | None = self
        while branch is not None:
            line.append(branch)
            branch = branch.parent
        return line

    def limit_for(self, writer: Branch) -> int:
        """Return the highest sequence number of ``writer``'s events that this branch may see.

        Its own branch: everything. An ancestor: what was handed out when the line to this
        branch was forked. Any other: everything (up to such a fork) once it has joined a branch
        on this line, if it joined before the fork, or, of a graph, if this one comes after it;
        `NOTHING` otherwise, in particular while it runs beside this one.
        """
        mine, theirs = self, writer
        forked_at: Branch | None = None  # the fork through which this line left the common ancestor
        joined_by: Branch | None = None  # the join through which the writer's line came back to it
        while mine is not theirs:
            if mine.depth >= theirs.depth:
                mine, forked_at = mine.parent or mine, mine
            else:
                theirs, joined_by = theirs.parent or theirs, theirs
            if mine.parent is None and theirs.parent is None and mine is not theirs:
                return NOTHING  # two runs: nothing in common
        if (
            forked_at is not None
            and forked_at.peers is not None
            and joined_by is not None
            and joined_by.peers is forked_at.peers
        ):
            return forked_at.forked_seq if forked_at.after >> joined_by.position & 1 else NOTHING
        if joined_by is not None and joined_by.joined is None:
            return NOTHING
        if forked_at is None:
            return EVERYTHING
        if joined_by is not None and (joined_by.joined or 0) > forked_at.forked:
            return NOTHING
        return forked_at.forked_seq

    def __repr__(self) -> str:
        return f"<Branch {self.name or '(root)'}>"


class Place(Origin):
    """Where one activation is: the origin its events carry.

    ``number`` tells activations of the same agent under the same parent apart (the iterations of
    a loop, children started at run time; those may be named instead); it is None where there can
    be only one. An agent that is tried again has a place for each attempt. ``void`` says that the
    attempt has failed: what it emitted is in the log, and nobody's history.
    """

    __slots__ = ("line", "number", "own_attempt", "parent", "void")

    def __init__(
        self,
        author: str,
        *,
        invocation_id: str,
        line: Branch,
        parent: Place | None = None,
        number: int | str | None = None,
        attempt: int = 1,
    ) -> None:
        """Place the agent ``author`` on branch ``line``, below the activation ``parent``."""
        # What runs below a second attempt belongs to that attempt.
        self.attempt = parent.attempt if attempt == 1 and parent is not None else attempt
        self.own_attempt = attempt
        self.void = False
        self.author = author
        self.invocation_id = invocation_id
        self.line = line
        self.parent = parent
        self.number = number
        self._path = ""

    def again(self) -> Place:
        """Return the place of the next attempt."""
        return Place(
            self.author,
            invocation_id=self.invocation_id,
            line=self.line,
            parent=self.parent,
            number=self.number,
            attempt=self.own_attempt + 1,
        )

    @property
    def branch(self) -> str | None:
        """The dotted branch name; None for the root branch."""
        return self.line.name

    @property
    def path(self) -> str:
        """The slashed path from the root, unique in the invocation: ``refine/critic@2``.

        A second attempt is ``critic~2``.
        """
        if not self._path:
            segments: list[str] = []
            place: Place | None = self
            while place is not None:
                segments.append(place.segment)
                place = place.parent
            self._path = "/".join(reversed(segments))
        return self._path

    @property
    def segment(self) -> str:
        """The last part of the path."""
        name = self.author if self.number is None else f"{self.author}@{self.number}"
        return name if self.own_attempt == 1 else f"{name}~{self.own_attempt}"
