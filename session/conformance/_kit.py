"""What the checks are made of: making, reading and comparing, in a line each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

import attrs

from session.actions import EventActions
from session.codec import Codec
from session.event import Event
from session.service import SessionService
from session.session import Session, SessionKey
from session.state import same


class PromiseBrokenError(AssertionError):
    """A service does not do what every service promises. ``promise`` is the check's name."""

    def __init__(self, promise: str, why: str) -> None:
        """Name the promise, and what was seen instead."""
        super().__init__(f"{promise}: {why}")
        self.promise = promise
        self.why = why


@attrs.frozen
class Check:
    """One promise: ``name`` says it, calling the check with a fresh service puts it to the test."""

    name: str
    run: Callable[[SessionService], Awaitable[None]] = attrs.field(repr=False)

    async def __call__(self, service: SessionService) -> None:
        """Run the check.

        Raises:
            PromiseBrokenError: the service broke the promise, or failed in trying to keep it.
        """
        try:
            await self.run(service)
        except BrokenError as error:
            raise PromiseBrokenError(self.name, str(error)) from None
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise PromiseBrokenError(self.name, why) from error


class BrokenError(Exception):
    """What a check saw; `Check` adds which promise it breaks."""


Run = Callable[[SessionService], Awaitable[None]]


def collector() -> tuple[list[Check], Callable[[Run], Run]]:
    """Return an empty list of checks, and a decorator that adds to it."""
    checks: list[Check] = []

    def check(run: Run) -> Run:
        checks.append(Check(run.__name__, run))
        return run

    return checks, check


KEY: Final = SessionKey("app", "user", "session")
CODEC: Final = Codec()


def expect(what: str, seen: object, wanted: object) -> None:
    if seen != wanted:
        raise BrokenError(f"{what} should be {wanted!r} and is {seen!r}")


def expect_same(what: str, seen: object, wanted: object) -> None:
    if not same(seen, wanted):
        raise BrokenError(f"{what} should be {wanted!r} and is {seen!r}")


async def expect_error(kind: type[Exception], what: str, attempt: Awaitable[object]) -> None:
    try:
        await attempt
    except kind:
        return
    raise BrokenError(f"{what} should raise {kind.__name__} and did not")


def make_event(text: str = "", *, timestamp: float = 1.0, **delta: Any) -> Event:
    return sealed(Event(text, actions=EventActions(state_delta=delta), timestamp=timestamp))


def with_delta(delta: dict[str, Any]) -> Event:
    return sealed(Event(actions=EventActions(state_delta=delta), timestamp=1.0))


def sealed(event: Event) -> Event:
    event.seal()
    return event


async def create(
    service: SessionService, state: dict[str, Any] | None = None, *, key: SessionKey = KEY
) -> Session:
    return await service.create(
        app_name=key.app_name, user_id=key.user_id, session_id=key.session_id, state=state
    )


async def find(service: SessionService, key: SessionKey = KEY, **window: Any) -> Session | None:
    return await service.get(
        app_name=key.app_name, user_id=key.user_id, session_id=key.session_id, **window
    )


async def get(service: SessionService, key: SessionKey = KEY, **window: Any) -> Session:
    session = await find(service, key, **window)
    if session is None:
        raise BrokenError(f"the session {key} is there and was not found")
    return session


async def delete(service: SessionService, key: SessionKey = KEY) -> None:
    await service.delete(app_name=key.app_name, user_id=key.user_id, session_id=key.session_id)


async def list_keys(
    service: SessionService, app_name: str, user_id: str | None = None
) -> list[str]:
    infos = await service.list(app_name=app_name, user_id=user_id)
    return [f"{info.key.user_id}/{info.key.session_id}" for info in infos]


def texts_of(events: Iterable[Event]) -> list[str]:
    return [event.text for event in events]


def numbers_of(events: Iterable[Event]) -> list[int | None]:
    return [event.seq for event in events]


async def expect_unchanged(
    service: SessionService, before: Session, refused: Sequence[Event] = ()
) -> None:
    after = await get(service, before.key)
    expect("the log after a refused append", texts_of(after.events), texts_of(before.events))
    expect_same("the state after a refused append", dict(after.state), dict(before.state))
    expect("last_seq after a refused append", after.last_seq, before.last_seq)
    for event in refused:
        expect(f"the number of the refused event {event.text!r}", event.seq, None)
