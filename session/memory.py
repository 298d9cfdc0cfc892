"""Memory: what was said in earlier sessions, to be found again by what it is about.

A memory service is given whole sessions and is asked with words. It belongs to one application
and user at a time: nobody finds what another user said.

A service may block in every method, and may be cancelled in every one. It need not checkpoint:
who calls it in a loop checkpoints itself.
"""

from __future__ import annotations

import heapq
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from typing import Final

import attrs

from session.content import Content
from session.event import Event
from session.session import Session

__all__ = ["DEFAULT_LIMIT", "InMemoryMemoryService", "MemoryEntry", "MemoryService"]

DEFAULT_LIMIT: Final = 10
"""How many entries a search returns unless told otherwise. They are meant for a prompt."""


@attrs.frozen
class MemoryEntry:
    """One thing that was said, and where to find it.

    Attributes:
        content: the message.
        author: who said it: an agent's name, or ``"user"``.
        timestamp: when it was recorded, seconds since the epoch.
        session_id: the session it was said in.
        event_id: the event of that session.
    """

    content: Content
    author: str
    timestamp: float
    session_id: str
    event_id: str


class MemoryService(ABC):
    """Remembers sessions, and finds what was said in them."""

    @abstractmethod
    async def add_session(self, session: Session) -> None:
        """Remember what ``session`` holds now, instead of what was remembered of it before.

        So it may be added again when it has grown, and adding it twice changes nothing. One
        that was read with a window is remembered by that window, and one without events is
        forgotten.
        """

    @abstractmethod
    async def search(
        self, *, app_name: str, user_id: str, query: str, limit: int = DEFAULT_LIMIT
    ) -> list[MemoryEntry]:
        """Return what fits ``query`` best, best first, ``limit`` entries at most.

        Only sessions of that application and user are searched. What fits is the service's own
        to say; a query without words fits nothing.

        Raises:
            TypeError: ``query`` is no text.
            ValueError: ``limit`` is less than 1.
        """


# ----------------------------------------------------------------------------------- in memory

_WORD: Final = re.compile(r"\w+")


def _words_of(text: str) -> frozenset[str]:
    """Return the words of ``text``, in one spelling of each."""
    if text.isascii():
        return frozenset(_WORD.findall(text.lower()))
    # Composed, or an accent typed as a character of its own would end its word. Composing makes
    # new capitals (of a "kB" that is one character), and folding takes some characters apart.
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text.casefold()).casefold())
    return frozenset(_WORD.findall(text))


@attrs.frozen(eq=False)
class _Kept:
    """An entry as the index holds it: by identity."""

    entry: MemoryEntry
    words: frozenset[str]
    place: int  # in its session's log


def _kept(session: Session) -> list[_Kept]:
    return [
        _Kept(_entry_of(event, event.content, session.id), words, place)
        for place, event in enumerate(session.events)
        if event.content is not None and (words := _words_of(event.text))
    ]


def _entry_of(event: Event, content: Content, session_id: str) -> MemoryEntry:
    return MemoryEntry(content, event.author, event.timestamp, session_id, event.id)


@attrs.define(eq=False)
class _Index:
    """What is remembered of one user: by session, and by word."""

    sessions: dict[str, list[_Kept]] = attrs.field(factory=dict[str, list[_Kept]])
    by_word: dict[str, set[_Kept]] = attrs.field(factory=dict[str, set[_Kept]])

    def replace(self, session_id: str, entries: list[_Kept]) -> None:
        for kept in self.sessions.pop(session_id, ()):
            for word in kept.words:
                holders = self.by_word[word]
                holders.discard(kept)
                if not holders:
                    del self.by_word[word]
        for kept in entries:
            for word in kept.words:
                self.by_word.setdefault(word, set()).add(kept)
        if entries:
            self.sessions[session_id] = entries

    def search(self, words: frozenset[str], limit: int) -> list[MemoryEntry]:
        matches = Counter[_Kept]()
        for word in words:
            matches.update(self.by_word.get(word, ()))

        def rank(kept: _Kept) -> tuple[int, float, str, int]:
            entry = kept.entry
            return (-matches[kept], -entry.timestamp, entry.session_id, -kept.place)

        return [kept.entry for kept in heapq.nsmallest(limit, matches, key=rank)]


class InMemoryMemoryService(MemoryService):
    r"""Remembers sessions for as long as it lives itself, and finds them by the words in them.

    An entry fits if it shares a word with the query. The more different words of the query it
    has, the better; then the newer, then the session with the lower id, then the later in its
    log: the same memory always gives the same answer in the same order. A word is what ``\w+``
    finds, whatever its case; text in a script that puts no spaces between words is found by
    whole runs of it only. Events without words of their own (a model's thoughts are none) are
    not remembered.

    Adding a session costs the words in it, however much else is remembered. A search costs the
    entries that hold a word of the query, and looks at no others. Nothing here awaits; the
    service is not meant to be shared between threads.
    """

    def __init__(self) -> None:
        """Start with nothing remembered."""
        self._indexes: dict[tuple[str, str], _Index] = {}

    async def add_session(self, session: Session) -> None:
        """See `MemoryService.add_session`."""
        whose = (session.app_name, session.user_id)
        index = self._indexes.setdefault(whose, _Index())
        index.replace(session.id, _kept(session))
        if not index.sessions:
            del self._indexes[whose]

    async def search(
        self, *, app_name: str, user_id: str, query: str, limit: int = DEFAULT_LIMIT
    ) -> list[MemoryEntry]:
        """See `MemoryService.search`, and the class for what fits."""
        # Callers need not use a type checker.
        if not isinstance(query, str):
            message = f"query must be text, not a {type(query).__name__}"
            raise TypeError(message)
        if limit < 1:
            message = f"limit must be at least 1, not {limit}"
            raise ValueError(message)
        index = self._indexes.get((app_name, user_id))
        return [] if index is None else index.search(_words_of(query), limit)
