"""What `InMemoryMemoryService` remembers, finds, and in which order."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session.content import Content, FunctionCall, InlineData, Part, Text
from session.event import Event, Origin
from session.memory import DEFAULT_LIMIT, InMemoryMemoryService, MemoryEntry, MemoryService
from session.session import Session, SessionKey


def said(
    content: str | Content | None, *, time: float = 0.0, author: str = "writer", seq: int = 1
) -> Event:
    origin = Origin(author=author, invocation_id="run")
    event = Event(content, origin=origin, timestamp=time, seq=seq)
    event.seal()
    return event


def session_of(
    *texts: str | Content | Event | None, id: str = "s", user: str = "user", app: str = "app"
) -> Session:
    """A session in which the ``texts`` were said, all at one time."""
    events = [
        text if isinstance(text, Event) else said(text, seq=seq)
        for seq, text in enumerate(texts, start=1)
    ]
    return Session(SessionKey(app, user, id), events)


async def found(service: MemoryService, query: str, **rest: Any) -> list[str]:
    entries = await service.search(**{"app_name": "app", "user_id": "user", **rest}, query=query)
    return [entry.content.text for entry in entries]


async def remembering(*sessions: Session) -> InMemoryMemoryService:
    service = InMemoryMemoryService()
    for session in sessions:
        await service.add_session(session)
    return service


# ------------------------------------------------------------------------------- what is found


async def test_an_entry_says_what_was_said_and_where() -> None:
    content = Content((Text("a cat"), InlineData(b"picture")), role="user")
    event = said(content, time=5.0, author="user", seq=7)
    service = await remembering(session_of(event, id="s1"))
    (entry,) = await service.search(app_name="app", user_id="user", query="cat")
    assert entry == MemoryEntry(
        content=content, author="user", timestamp=5.0, session_id="s1", event_id="run-7"
    )


async def test_one_word_of_the_query_is_enough() -> None:
    service = await remembering(session_of("the cat sleeps", "the dog barks"))
    assert await found(service, "my cat, please!") == ["the cat sleeps"]


async def test_whole_words_are_found_and_parts_of_words_are_not() -> None:
    service = await remembering(session_of("concatenate", "cats", "cat"))
    assert await found(service, "cat") == ["cat"]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("CAT", "cat"),
        ("cat", "Cat"),
        ("STRASSE", "straße"),
        ("ΟΔΟΣ", "οδος"),
        ("café", "CAFE\u0301"),
        ("cafe\u0301", "CAFÉ"),
        ("\u03b1\u0345", "\u1fb3"),
        ("\N{SQUARE KB}", "kb"),
        ("\N{FULLWIDTH LATIN CAPITAL LETTER A}bc", "abc"),
        ("snake_case", "SNAKE_CASE"),
        ("version 2", "2"),
        ("漢字 かな", "漢字"),
    ],
)
async def test_a_word_is_found_in_any_spelling_of_it(text: str, query: str) -> None:
    service = await remembering(session_of(text, "something else"))
    assert await found(service, query) == [text]


@pytest.mark.parametrize("query", ["", " ", "?!", "\n", "🙂"])
async def test_a_query_without_words_finds_nothing(query: str) -> None:
    service = await remembering(session_of("a cat", "?!", "🙂", ""))
    assert await found(service, query) == []


async def test_only_what_has_words_is_remembered() -> None:
    parts: list[Part] = [FunctionCall("cat"), Text("cat", thought=True), InlineData(b"cat")]
    service = await remembering(session_of(None, "", "?!", *map(Content, parts)))
    assert await found(service, "cat") == []
    assert service._indexes == {}


async def test_nothing_is_found_where_nothing_was_added() -> None:
    assert await found(InMemoryMemoryService(), "cat") == []


async def test_nobody_finds_what_another_user_or_application_said() -> None:
    service = await remembering(
        session_of("my cat"),
        session_of("her cat", user="other"),
        session_of("its cat", app="other"),
    )
    assert await found(service, "cat") == ["my cat"]
    assert await found(service, "cat", user_id="other") == ["her cat"]
    assert await found(service, "cat", app_name="other") == ["its cat"]
    assert await found(service, "cat", app_name="other", user_id="other") == []


# ---------------------------------------------------------------------------------- the order


async def test_more_different_words_of_the_query_come_first() -> None:
    service = await remembering(
        session_of("black cat", "cat with black fur", "cat cat cat cat", "dog")
    )
    assert await found(service, "black cat fur cat cat") == [
        "cat with black fur",
        "black cat",
        "cat cat cat cat",
    ]


async def test_of_equals_the_newer_comes_first() -> None:
    old, new, newest = (said(f"cat {time}", time=float(time)) for time in (1, 2, 3))
    service = await remembering(
        session_of(new, id="a"), session_of(newest, id="b"), session_of(old, id="c")
    )
    assert await found(service, "cat") == ["cat 3", "cat 2", "cat 1"]


async def test_of_one_time_the_later_in_the_log_comes_first_session_by_session() -> None:
    sessions = [session_of("cat 1", "cat 2", id="a"), session_of("cat 3", "cat 4", id="b")]
    for order in itertools.permutations(sessions):
        service = await remembering(*order)
        assert await found(service, "cat") == ["cat 2", "cat 1", "cat 4", "cat 3"]


async def test_a_limit_keeps_the_best() -> None:
    texts = [f"cat {number}" for number in range(DEFAULT_LIMIT + 5)]
    service = await remembering(session_of(*texts))
    assert await found(service, "cat", limit=3) == texts[:-4:-1]
    assert await found(service, "cat") == texts[: -DEFAULT_LIMIT - 1 : -1]
    assert await found(service, "cat", limit=100) == texts[::-1]


# ------------------------------------------------------------------------------- adding again


async def test_adding_a_session_again_changes_nothing() -> None:
    session = session_of("a cat", "a dog")
    service = await remembering(session, session, session)
    assert await found(service, "a") == ["a dog", "a cat"]


async def test_adding_a_session_that_has_grown_adds_what_is_new() -> None:
    session = session_of("a cat")
    service = await remembering(session)
    session.apply(said("a second cat", seq=2))
    assert await found(service, "cat") == ["a cat"]
    await service.add_session(session)
    assert await found(service, "cat") == ["a second cat", "a cat"]


async def test_what_a_session_no_longer_holds_is_forgotten() -> None:
    service = await remembering(session_of("a cat", "a dog"), session_of("a dog"))
    assert await found(service, "cat") == []
    assert await found(service, "dog") == ["a dog"]


async def test_a_session_without_events_is_forgotten_and_leaves_nothing_behind() -> None:
    service = await remembering(session_of("a cat"), session_of())
    assert await found(service, "cat") == []
    assert service._indexes == {}


async def test_adding_a_session_again_touches_no_other() -> None:
    service = await remembering(session_of("a cat", id="a"), session_of("a dog", id="b"))
    index = service._indexes["app", "user"]
    (before,) = index.sessions["b"]
    await service.add_session(session_of("a bird", id="a"))
    assert index.sessions["b"] == [before]
    assert index.by_word == {"a": {before, *index.sessions["a"]}, "dog": {before},
                             "bird": {*index.sessions["a"]}}  # fmt: skip


async def test_a_search_looks_at_nothing_that_holds_no_word_of_the_query() -> None:
    """So its cost follows what it may find, not what is remembered."""
    service = await remembering(session_of("a cat"), session_of(*["a dog"] * 100, id="dogs"))
    index = service._indexes["app", "user"]
    looked_at: list[str] = []

    class Watched(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            looked_at.append(key)
            return super().get(key, default)

    index.by_word = Watched(index.by_word)
    index.sessions = {}
    assert await found(service, "cat bird") == ["a cat"]
    assert sorted(looked_at) == ["bird", "cat"]


async def test_what_was_found_stays_as_it_was() -> None:
    session = session_of("a cat")
    service = await remembering(session)
    entries = await service.search(app_name="app", user_id="user", query="cat")
    await service.add_session(session_of())
    assert [entry.content.text for entry in entries] == ["a cat"]


# ----------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_limit_of_nothing_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match=f"^limit must be at least 1, not {limit}$"):
        await found(InMemoryMemoryService(), "cat", limit=limit)


async def test_a_query_must_be_text() -> None:
    query: Any = b"cat"
    with pytest.raises(TypeError, match=r"^query must be text, not a bytes$"):
        await found(InMemoryMemoryService(), query)


# --------------------------------------------------------------------------------- the oracle

words = st.sampled_from(["cat", "Cat", "dog", "bird", "?"])
texts = st.lists(words, max_size=4).map(" ".join)
drawn_events = st.lists(st.tuples(texts, st.integers(0, 2)), max_size=6)
users = st.sampled_from(["user", "user", "user", "other"])
additions = st.lists(st.tuples(st.sampled_from("abc"), users, drawn_events), max_size=5)


def by_looking_at_everything(
    added: list[tuple[str, str, list[tuple[str, int]]]], query: str
) -> list[str]:
    """The same answer, made the slow way: no index, the order by sorting three times."""
    latest = {(user, session_id): events for session_id, user, events in added}
    wanted = set(re.findall("[a-z]+", query.lower()))
    hits = [
        (len(wanted & set(re.findall("[a-z]+", text.lower()))), time, session_id, place)
        for (user, session_id), events in latest.items()
        for place, (text, time) in enumerate(events)
        if user == "user"
    ]
    hits.sort(key=lambda hit: hit[3], reverse=True)
    hits.sort(key=lambda hit: hit[2])
    hits.sort(key=lambda hit: hit[:2], reverse=True)
    return [f"{session_id}{place}" for matches, _, session_id, place in hits if matches]


@given(additions, texts)
async def test_the_index_finds_what_looking_at_everything_finds(
    added: list[tuple[str, str, list[tuple[str, int]]]], query: str
) -> None:
    service = InMemoryMemoryService()
    for session_id, user, events in added:
        made = [
            said(text, time=float(time), author=f"{session_id}{place}")
            for place, (text, time) in enumerate(events)
        ]
        await service.add_session(session_of(*made, id=session_id, user=user))
    entries = await service.search(app_name="app", user_id="user", query=query, limit=100)
    assert [entry.author for entry in entries] == by_looking_at_everything(added, query)
