"""Services that can be followed badly: each breaks one promise of `SessionService.subscribe`."""

# ruff: noqa: ARG002  # ignoring what it is given is how many a service is broken

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, Final

import trio

from session import Event, InMemorySessionService, SessionKey, SessionNotFoundError
from session.watching import PAGE, Subscription

__all__ = ["KNOWN_BAD"]


class Followed(InMemorySessionService):
    """A service to break in one place: it is followed by an iterator that polls."""

    def log(self, key: SessionKey) -> list[Event]:
        if key not in self._sessions:
            raise SessionNotFoundError(key)
        return self._sessions[key].events

    def subscribe(self, key: SessionKey, *, after: int = 0) -> AsyncIterator[Event]:
        return Steps(self, key, after)


class Steps(AsyncIterator[Event]):
    """What is right, without a guard."""

    def __init__(self, service: Followed, key: SessionKey, after: int) -> None:
        self.service = service
        self.key = key
        self.after = after

    async def growth(self, seq: int) -> None:
        while len(self.service.log(self.key)) <= seq:  # noqa: ASYNC110  # what polling is
            await trio.sleep(0.03)

    async def __anext__(self) -> Event:
        await trio.lowlevel.checkpoint()
        place = self.after
        await self.growth(place)
        self.after = place + 1
        return self.service.log(self.key)[place]


class TellsOnlyWhatIsNew(Followed):
    def subscribe(self, key: SessionKey, *, after: int = 0) -> AsyncIterator[Event]:
        return Steps(self, key, len(self.log(key)))


class TellsTheLastOneAgain(Followed):
    def subscribe(self, key: SessionKey, *, after: int = 0) -> AsyncIterator[Event]:
        return Steps(self, key, max(0, after - 1))


class WakesNobody(InMemorySessionService):
    def append_nowait(self, *args: Any, **kwargs: Any) -> None:
        kept, self._hanging = self._hanging, {}
        super().append_nowait(*args, **kwargs)
        self._hanging = kept


class EndsWithWhatIsStored(Followed):
    async def subscribe(self, key: SessionKey, *, after: int = 0) -> AsyncGenerator[Event]:
        for event in self.log(key)[after:]:
            yield event


class TellsOfTheWrongSession(Followed):
    def log(self, key: SessionKey) -> list[Event]:
        return self._sessions[[*self._sessions][-1]].events


class BeginsWhereTheLogEnds(Followed):
    def subscribe(self, key: SessionKey, *, after: int = 0) -> AsyncIterator[Event]:
        return Steps(self, key, min(after, len(self.log(key))))


class HasOnePlaceForAll(Followed):
    """Its subscribers take the events from each other."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[SessionKey, Steps] = {}

    def subscribe(self, key: SessionKey, *, after: int = 0) -> AsyncIterator[Event]:
        return self.places.setdefault(key, Steps(self, key, after))


class TellsOnlyWhoWaits(Followed):
    """What is appended between two steps is lost."""

    def subscribe(self, key: SessionKey, *, after: int = 0) -> AsyncIterator[Event]:
        service = self

        class Live(Steps):
            async def __anext__(self) -> Event:
                self.after = max(self.after, len(service.log(key)) - 1)
                return await super().__anext__()

        return Live(self, key, after)


class ReadsOnePage(Followed):
    def subscribe(self, key: SessionKey, *, after: int = 0) -> AsyncIterator[Event]:
        service = self

        class OnePage(Steps):
            async def __anext__(self) -> Event:
                if self.after == PAGE:
                    self.after = len(service.log(key))
                return await super().__anext__()

        return OnePage(self, key, after)


class LeavesTheLastOfAPageOut(Followed):
    def subscribe(self, key: SessionKey, *, after: int = 0) -> AsyncIterator[Event]:
        class Gap(Steps):
            async def __anext__(self) -> Event:
                self.after += self.after % PAGE == PAGE - 1
                return await super().__anext__()

        return Gap(self, key, after)


class IsAGenerator(Followed):
    """Cancelled once, a generator is at its end."""

    async def subscribe(self, key: SessionKey, *, after: int = 0) -> AsyncGenerator[Event]:
        steps = Steps(self, key, after)
        while True:
            yield await anext(steps)


class TakesBeforeItWaits(Followed):
    def subscribe(self, key: SessionKey, *, after: int = 0) -> AsyncIterator[Event]:
        service = self

        class Hasty(Steps):
            async def __anext__(self) -> Event:
                self.after += 1
                await self.growth(self.after - 1)
                return service.log(key)[self.after - 1]

        return Hasty(self, key, after)


class CannotBeCancelled(Followed):
    def subscribe(self, key: SessionKey, *, after: int = 0) -> AsyncIterator[Event]:
        class Deaf(Steps):
            async def __anext__(self) -> Event:
                with trio.CancelScope(shield=True), trio.move_on_after(1):
                    return await super().__anext__()
                raise StopAsyncIteration

        return Deaf(self, key, after)


class WaitsForASession(Followed):
    def log(self, key: SessionKey) -> list[Event]:
        return self._sessions[key].events if key in self._sessions else []


class TakesAnyPosition(InMemorySessionService):
    def subscribe(self, key: SessionKey, *, after: Any = 0) -> AsyncIterator[Event]:
        return super().subscribe(key, after=after if type(after) is int and after > 0 else 0)


class GivesUpForGood(InMemorySessionService):
    """What has failed once fails for ever."""

    def subscribe(self, key: SessionKey, *, after: int = 0) -> AsyncIterator[Event]:
        steps = super().subscribe(key, after=after)
        failed = False

        class Once(Steps):
            async def __anext__(self) -> Event:
                nonlocal failed
                if failed:
                    raise SessionNotFoundError(key)
                try:
                    return await anext(steps)
                except SessionNotFoundError:
                    failed = True
                    raise

        return Once(Followed(), key, 0)


class ForgetsToTellOfTheEnd(InMemorySessionService):
    async def delete(self, **names: Any) -> None:
        del self._sessions[SessionKey(**names)]


class TakesAnotherSessionForTheSame(Followed):
    """It knows sessions by their names alone."""


class LetsTwoTasksRead(InMemorySessionService):
    def subscribe(self, key: SessionKey, *, after: int = 0) -> AsyncIterator[Event]:
        class Shared(Subscription):
            async def __anext__(self) -> Event:
                self._reading = False
                return await super().__anext__()

        kept = super().subscribe(key, after=after)
        assert isinstance(kept, Subscription)
        return Shared(key, after, kept._log)


class StartsAnewWithEachLoop(Followed):
    def subscribe(self, key: SessionKey, *, after: int = 0) -> AsyncIterator[Event]:
        class Anew(Steps):
            def __aiter__(self) -> Steps:
                return Anew(self.service, key, after)

        return Anew(self, key, after)


KNOWN_BAD: Final[dict[str, Sequence[type[InMemorySessionService]]]] = {
    "a_subscriber_gets_what_is_stored_and_then_what_comes": [
        TellsOnlyWhatIsNew,
        TellsTheLastOneAgain,
        WakesNobody,
        EndsWithWhatIsStored,
        TellsOfTheWrongSession,
    ],
    "a_subscriber_may_be_ahead_of_the_log": [BeginsWhereTheLogEnds],
    "every_subscriber_gets_every_event_once": [
        HasOnePlaceForAll,
        TellsOnlyWhoWaits,
        TellsTheLastOneAgain,
    ],
    "a_subscriber_reads_a_long_log_to_its_end": [ReadsOnePage, LeavesTheLastOfAPageOut],
    "a_step_that_was_cancelled_has_lost_nothing": [
        IsAGenerator,
        TakesBeforeItWaits,
        CannotBeCancelled,
    ],
    "to_follow_no_session_is_an_error": [WaitsForASession, TakesAnyPosition, GivesUpForGood],
    "a_subscriber_is_told_when_the_session_is_deleted": [
        ForgetsToTellOfTheEnd,
        TakesAnotherSessionForTheSame,
    ],
    "a_subscription_has_one_reader": [LetsTwoTasksRead, StartsAnewWithEachLoop],
}
