"""Names and state keys of any length: stored, or refused before anything has changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any, Final

import pytest
import trio

from parallel_agent import InvocationContext, Runner, agent
from session import (
    Event,
    EventActions,
    InMemorySessionService,
    SessionKey,
    SessionService,
    UnstorableError,
)
from session.database import DatabaseSessionService
from session.state import MAX_NAME_BYTES
from tests.support.databases import KEY, add, make, new_event, read

# An index compresses what it keeps: these letters are drawn so that it cannot.
_RANDOM: Final = Random(0)  # noqa: S311  # no secret
ALPHABET: Final = "".join(chr(code) for code in range(0x21, 0x7F))


def drawn(size: int) -> str:
    return "".join(_RANDOM.choices(ALPHABET, k=size))


LONGEST: Final[dict[str, Callable[[], str]]] = {
    "ascii": lambda: drawn(MAX_NAME_BYTES),
    "accents": lambda: "".join(chr(0x100 + _RANDOM.randrange(256)) for _ in range(400)),
    "emoji": lambda: "".join(chr(0x1F300 + _RANDOM.randrange(256)) for _ in range(200)),
    "nul": lambda: drawn(400) + "\x00" * 200,
}
SCOPES: Final = ("", "user:", "app:")


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> str | None:
    """The URL of a database; None is in memory."""
    if request.param == "memory":
        return None
    if request.param == "sqlite":
        return f"sqlite:///{request.getfixturevalue('file')}"
    made: str = request.getfixturevalue("postgres_url")
    return made


@pytest.fixture
async def service(place: str | None) -> AsyncIterator[SessionService]:
    if place is None:
        yield InMemorySessionService()
    else:
        async with DatabaseSessionService(place) as opened:
            yield opened


@pytest.mark.parametrize("kind", LONGEST)
async def test_names_and_keys_of_the_greatest_length_work(
    kind: str, service: SessionService
) -> None:
    """All three names at once: they lie in one entry of an index, and a key with two."""
    name = LONGEST[kind]
    key = SessionKey(name(), name(), name())
    state = {f"{scope}{name()[len(scope) :]}": 1 for scope in SCOPES}
    await make(service, key, **state)
    lease = await service.acquire(key, run_id="r", owner="o", resumable=True)
    await service.append(key, [new_event(delta=dict.fromkeys(state, 2))], expected_seq=0)
    assert (await read(service, key)).state == dict.fromkeys(state, 2)
    assert [run.key for run in await service.unfinished(app_name=key.app_name)] == [key]
    await service.release(lease)


@pytest.mark.parametrize("name", ["app_name", "user_id", "session_id"])
async def test_a_longer_name_is_refused_by_name(name: str, service: SessionService) -> None:
    names: dict[str, Any] = {"app_name": "a", "user_id": "u", "session_id": "s", name: drawn(5_000)}
    for refused in (service.create(**names), service.get(**names)):
        with pytest.raises(UnstorableError, match=rf"{name}: 5,000 bytes.*at most 800"):
            await refused
    assert await service.list(app_name=names["app_name"]) == []


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_session_is_not_made_with_a_longer_key(scope: str, service: SessionService) -> None:
    with pytest.raises(UnstorableError, match=r"state: .* bytes are too long .* at most 800"):
        await make(service, KEY, **{scope + drawn(5_000): 1})
    assert await service.list(app_name="app") == []


@pytest.mark.parametrize("scope", [*SCOPES, "temp:"])
async def test_no_event_writes_a_longer_key(scope: str, service: SessionService) -> None:
    """It is refused where it is made, and not where it would take others' events with it."""
    await make(service)
    with pytest.raises(UnstorableError, match=r"actions\.state_delta: .* at most 800"):
        new_event(delta={scope + drawn(5_000): 1})
    await add(service, new_event(), after=0)


async def test_an_agent_that_writes_a_longer_key_is_told_so_and_goes_on(
    service: SessionService,
) -> None:
    key = drawn(5_000)

    @agent
    async def writes(ctx: InvocationContext) -> AsyncIterator[Event | str]:
        with pytest.raises(UnstorableError, match="at most 800"):
            ctx.state[key] = 1
        with pytest.raises(UnstorableError, match="at most 800"):
            yield Event(actions=EventActions(state_delta={key: 1}))
        ctx.state["short"] = 1
        yield "done"

    with trio.fail_after(30):
        result = await Runner(writes, session_service=service).run(session_id="s")
    assert (result.text, dict(result.state)) == ("done", {"short": 1})


def test_nul_counts_twice_as_it_is_stored_as_two() -> None:
    SessionKey("a", "u", "\x00" * (MAX_NAME_BYTES // 2))
    with pytest.raises(UnstorableError, match="session_id"):
        SessionKey("a", "u", "\x00" * (MAX_NAME_BYTES // 2 + 1))
