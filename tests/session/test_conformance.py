"""The reference service keeps every promise; a service that breaks one is caught by its check."""

# ruff: noqa: ARG002  # ignoring what it is given is how many a service is broken

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio.testing

from session import (
    Codec,
    Event,
    EventActions,
    InMemorySessionService,
    Lease,
    Session,
    SessionInfo,
    SessionKey,
    SessionNotFoundError,
    SessionService,
    UnstorableError,
    freeze,
    thaw,
)
from session.conformance import CHECKS, Check, PromiseBrokenError, check_session_service
from session.errors import SequenceConflictError
from session.event import stamp_delta, stamp_seq, stamp_timestamp
from tests.session import broken_following, broken_owners

every_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)


@every_check
async def test_the_reference_service_keeps_its_promise(check: Check) -> None:
    await check(InMemorySessionService())


# ------------------------------------------------------------------------------- broken services


class Broken(InMemorySessionService):
    """A service to break in one place. It does what the reference does, with fewer guards."""

    async def read(self, key: SessionKey, **window: Any) -> Session:
        session = await super().get(
            app_name=key.app_name, user_id=key.user_id, session_id=key.session_id, **window
        )
        assert session is not None
        return session

    def log(self, key: SessionKey) -> list[Event]:
        if key not in self._sessions:
            raise SessionNotFoundError(key)
        return self._sessions[key].events

    async def append(
        self,
        key: SessionKey,
        events: Sequence[Event],
        *,
        expected_seq: int,
        lease: Lease | None = None,
    ) -> None:
        if lease is None:
            await self.put(key, events, expected_seq=expected_seq)
        else:
            await super().append(key, events, expected_seq=expected_seq, lease=lease)

    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        """Append without a lease: what most of the broken services break."""
        await super().append(key, events, expected_seq=expected_seq)


class ForgetsInitialState(Broken):
    async def create(self, *, state: Mapping[str, Any] | None = None, **names: Any) -> Session:
        return await super().create(**names)


class ReusesIds(Broken):
    async def create(self, *, session_id: str | None = None, **rest: Any) -> Session:
        return await super().create(session_id=session_id or "default", **rest)


class SharesOneIdQuietly(Broken):
    async def create(self, *, session_id: str | None = None, **rest: Any) -> Session:
        if session_id is None:
            self._sessions.clear()
        return await super().create(session_id=session_id or "default", **rest)


class Overwrites(Broken):
    async def create(self, *, session_id: str | None = None, **rest: Any) -> Session:
        if session_id is not None:
            key = SessionKey(rest["app_name"], rest["user_id"], session_id)
            self._sessions.pop(key, None)
        return await super().create(session_id=session_id, **rest)


class StoresAnything(Broken):
    async def create(self, *, state: Mapping[str, Any] | None = None, **names: Any) -> Session:
        try:
            return await super().create(state=state, **names)
        except UnstorableError:
            return await super().create(**names)


class LeavesAHalfMadeSession(Broken):
    async def create(self, *, state: Mapping[str, Any] | None = None, **names: Any) -> Session:
        await super().create(**names)
        freeze(dict(state or {}))
        await self.delete(**names)
        return await super().create(state=state, **names)


class AcceptsEmptyNames(Broken):
    async def create(self, **names: Any) -> Session:
        names = {name: "none" if value == "" else value for name, value in names.items()}
        return await super().create(**names)


class InventsSessions(Broken):
    async def get(self, **rest: Any) -> Session | None:
        key = SessionKey(rest["app_name"], rest["user_id"], rest["session_id"])
        return await super().get(**rest) or Session(key)


class IgnoresUsers(Broken):
    async def get(self, *, user_id: str, **rest: Any) -> Session | None:
        found = [
            key
            for key in self._sessions
            if (key.app_name, key.session_id) == (rest["app_name"], rest["session_id"])
        ]
        return await super().get(user_id=found[0].user_id if found else user_id, **rest)


class IgnoresWindows(Broken):
    async def get(self, *, app_name: str, user_id: str, session_id: str, **_: Any) -> Any:
        return await super().get(app_name=app_name, user_id=user_id, session_id=session_id)


class TakesTheOldest(Broken):
    async def get(self, *, num_recent_events: int | None = None, **rest: Any) -> Session | None:
        session = await super().get(**rest)
        if session is not None and num_recent_events is not None:
            session.events = session.events[:num_recent_events]
        return session


class TreatsZeroAsNoWindow(Broken):
    async def get(self, *, num_recent_events: int | None = None, **rest: Any) -> Session | None:
        return await super().get(num_recent_events=num_recent_events or None, **rest)


class CutsAtATimeAsIfClocksNeverRanBackwards(Broken):
    async def get(self, *, after: float | None = None, **rest: Any) -> Session | None:
        session = await super().get(**rest)
        if session is not None and after is not None:
            while session.events and session.events[-1].timestamp < after:
                session.events.pop()
            kept = [event.timestamp >= after for event in session.events]
            if False in kept:
                del session.events[: len(kept) - kept[::-1].index(False)]
        return session


class ForgetsStateOutsideTheWindow(Broken):
    async def get(self, **rest: Any) -> Session | None:
        session = await super().get(**rest)
        if session is not None and rest.get("num_recent_events") is not None:
            session.state = {k: v for e in session.events for k, v in e.state_delta.items()}
        return session


class AppendsBackwards(Broken):
    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        await super().put(key, events[::-1], expected_seq=expected_seq)


class SortsByTime(Broken):
    async def get(self, **rest: Any) -> Session | None:
        session = await super().get(**rest)
        if session is not None:
            session.events.sort(key=lambda event: event.timestamp)
        return session


class StampsItsOwnTime(Broken):
    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        await super().put(key, events, expected_seq=expected_seq)
        for event in events:
            stamp_timestamp(event, 9.0)


class BurnsNumbers(Broken):
    """A sequence of the database's own counts refused appends too."""

    skipped = 0

    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        try:
            await super().put(key, events, expected_seq=expected_seq)
        except SequenceConflictError:
            self.skipped += 1
            raise
        for event in events:
            assert event.seq is not None
            stamp_seq(event, event.seq + self.skipped)


class NumbersFromZero(Broken):
    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        await super().put(key, events, expected_seq=expected_seq)
        for event in events:
            assert event.seq is not None
            stamp_seq(event, event.seq - 1)


class DropsNulls(Broken):
    async def get(self, **rest: Any) -> Session | None:
        session = await super().get(**rest)
        if session is not None:
            session.state = {k: v for k, v in session.state.items() if v is not None}
        return session


class MergesDicts(Broken):
    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        for event in events:
            before = self._sessions[key].state
            merged = {
                name: {**before[name], **value}
                if isinstance(value, dict) and isinstance(before.get(name), dict)
                else value
                for name, value in event.state_delta.items()
            }
            await super().put(key, [event], expected_seq=expected_seq)
            before.update({k: freeze(v) for k, v in merged.items() if ":" not in k})
            expected_seq += 1


class ReadsNumbersAsFloats(Broken):
    async def get(self, **rest: Any) -> Session | None:
        def blur(value: Any) -> Any:
            if isinstance(value, list):
                return [blur(item) for item in value]
            return 1 if value == 1.0 else value

        session = await super().get(**rest)
        if session is not None:
            session.state = {key: blur(value) for key, value in session.state.items()}
        return session


class StripsText(Broken):
    async def get(self, **rest: Any) -> Session | None:
        def strip(value: Any) -> Any:
            if isinstance(value, list):
                return [strip(item) for item in value]
            return value.replace("\x00", "") if isinstance(value, str) else value

        session = await super().get(**rest)
        if session is not None:
            session.state = {key: strip(value) for key, value in session.state.items()}
        return session


class KeepsOnlyText(Broken):
    async def get(self, **rest: Any) -> Session | None:
        session = await super().get(**rest)
        if session is not None:
            session.events = [self.poorer(event) for event in session.events]
        return session

    def poorer(self, event: Event) -> Event:
        copied = Event(
            event.text,
            actions=EventActions(state_delta=event.state_delta),
            timestamp=event.timestamp,
            seq=event.seq,
            origin=event.origin,
        )
        copied.seal()
        return copied


class TouchesTheSessionForNothing(Broken):
    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        await super().put(key, events, expected_seq=expected_seq)
        if not events:
            self._sessions[key].last_update_time = 99.0


class SkipsEmptyBatches(Broken):
    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        if events:
            await super().put(key, events, expected_seq=expected_seq)


class IgnoresConflicts(Broken):
    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        await super().put(key, events, expected_seq=len(self.log(key)))


class SeesOnlyWritersWhoAreBehind(Broken):
    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        expected_seq = min(expected_seq, len(self.log(key)))
        await super().put(key, events, expected_seq=expected_seq)


class WritesStateBeforeItLooks(Broken):
    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        for event in events:
            self._write(key, self._sessions[key], event.state_delta)
        await super().put(key, events, expected_seq=expected_seq)


class NumbersEventsBeforeItLooks(Broken):
    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        try:
            await super().put(key, events, expected_seq=expected_seq)
        except SequenceConflictError:
            for seq, event in enumerate(events, start=expected_seq + 1):
                stamp_seq(event, seq)
            raise


class AppendsOneByOne(Broken):
    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        for seq, event in enumerate(events, start=expected_seq):
            await super().put(key, [event], expected_seq=seq)


class DropsWhatItCannotTake(Broken):
    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        good = [e for e in dict.fromkeys(events) if e.sealed and not e.partial and e.seq is None]
        await super().put(key, good, expected_seq=expected_seq)


class RecordsAnEventTwice(Broken):
    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        once = list(dict.fromkeys(events))
        await super().put(key, once, expected_seq=expected_seq)


class HasALimit(Broken):
    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        await super().put(key, events[:999], expected_seq=expected_seq)


class MakesSessionsOnAppend(Broken):
    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        if key not in self._sessions:
            await self.create(app_name=key.app_name, user_id=key.user_id, session_id=key.session_id)
        await super().put(key, events, expected_seq=expected_seq)


class RaisesKeyErrors(Broken):
    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        self._sessions[key]  # the bug: what this raises is nothing a caller can know
        await super().put(key, events, expected_seq=expected_seq)


class AppendsAtOnceUnchecked(Broken):
    blocks = False

    def append_nowait(
        self,
        key: SessionKey,
        events: Sequence[Event],
        *,
        expected_seq: int,
        lease: Lease | None = None,
    ) -> None:
        expected_seq = max(expected_seq, len(self.log(key)))
        super().append_nowait(key, events, expected_seq=expected_seq, lease=lease)


class AppendsNothingAtOnce(Broken):
    blocks = False

    def append_nowait(self, *_given: Any, **_more: Any) -> None:
        pass


class DatesByTheLatestTime(Broken):
    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        await super().put(key, events, expected_seq=expected_seq)
        times = [event.timestamp for event in self.log(key)]
        self._sessions[key].last_update_time = max(times, default=0.0)


class ListsStaleNumbers(Broken):
    async def list(self, **rest: Any) -> list[SessionInfo]:
        return [
            SessionInfo(info.key, 0, info.last_update_time) for info in await super().list(**rest)
        ]


class PutsEverythingIntoTheUser(Broken):
    def _write(self, key: SessionKey, stored: Any, delta: Mapping[str, Any]) -> None:
        self._user_state.setdefault((key.app_name, key.user_id), {}).update(delta)

    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        await super().put(key, events, expected_seq=expected_seq)
        for event in events:
            self._write(key, None, event.state_delta)


class PutsEverythingIntoTheSession(Broken):
    def _write(self, key: SessionKey, stored: Any, delta: Mapping[str, Any]) -> None:
        stored.state.update(delta)


class SharesUsersAcrossApplications(Broken):
    def _read(self, key: SessionKey, stored: Any, events: Any) -> Session:
        session = super()._read(key, stored, events)
        for (_, user_id), state in self._user_state.items():
            if user_id == key.user_id:
                session.state.update(state)
        return session


class SharesApplicationStateWithEverybody(Broken):
    def _read(self, key: SessionKey, stored: Any, events: Any) -> Session:
        session = super()._read(key, stored, events)
        for state in self._app_state.values():
            session.state.update(state)
        return session


class KeepsInitialStateInTheSession(Broken):
    async def create(self, *, state: Mapping[str, Any] | None = None, **names: Any) -> Session:
        session = await super().create(**names)
        stored = self._sessions[session.key]
        stored.state.update(freeze(dict(state or {})))
        return self._read(session.key, stored, [])


class StoresTemporaryState(Broken):
    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        deltas = [event.state_delta for event in events]
        await super().put(key, events, expected_seq=expected_seq)
        for delta in deltas:
            self._sessions[key].state.update(delta)


class LogsTemporaryState(Broken):
    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        deltas = [event.state_delta for event in events]
        await super().put(key, events, expected_seq=expected_seq)
        for event, delta in zip(events, deltas, strict=True):
            stamp_delta(event, delta)


class HandsOutItsOwnLists(Broken):
    def _read(self, key: SessionKey, stored: Any, events: Any) -> Session:
        return Session(key, stored.events, stored.state, len(stored.events))


class HandsOutChangeableValues(Broken):
    def _read(self, key: SessionKey, stored: Any, events: Any) -> Session:
        for name, value in stored.state.items():
            if type(value) not in (list, dict):
                stored.state[name] = thaw(value)
        return super()._read(key, stored, events)


class HandsOutOpenEvents(Broken):
    async def get(self, **rest: Any) -> Session | None:
        session = await super().get(**rest)
        if session is not None:
            session.events = [
                Event(e.content, timestamp=e.timestamp, seq=e.seq) for e in session.events
            ]
        return session


class KeepsTheCallersObjects(Broken):
    async def create(self, *, state: Mapping[str, Any] | None = None, **names: Any) -> Session:
        session = await super().create(state=state, **names)
        self._sessions[session.key].state = state  # type: ignore[assignment]  # the bug
        return session


class KeepsTheCallersBatch(Broken):
    async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
        await super().put(key, events, expected_seq=expected_seq)
        if expected_seq == 0:
            self._sessions[key].events = events  # type: ignore[assignment]  # the bug


class UpdatesSessionsAlreadyRead(Broken):
    async def get(self, **rest: Any) -> Session | None:
        session = await super().get(**rest)
        if session is not None:
            session.events = self.log(session.key)
        return session


class ListsInTheOrderOfCreation(Broken):
    async def list(self, *, app_name: str, user_id: str | None = None) -> list[SessionInfo]:
        return [
            SessionInfo(key, len(stored.events), stored.last_update_time)
            for key, stored in self._sessions.items()
            if key.app_name == app_name and user_id in (None, key.user_id)
        ]


class ListsWithoutCase(Broken):
    async def list(self, **rest: Any) -> list[SessionInfo]:
        def folded(info: SessionInfo) -> tuple[str, str]:
            return info.key.user_id.casefold(), info.key.session_id

        return sorted(await super().list(**rest), key=folded)


class ListsEveryApplication(Broken):
    async def list(self, *, app_name: str, user_id: str | None = None) -> list[SessionInfo]:
        infos = []
        for name in sorted({key.app_name for key in self._sessions}):
            infos += await super().list(app_name=name, user_id=user_id)
        return infos


class DeletesNothing(Broken):
    async def delete(self, **names: Any) -> None:
        pass


class DeletesAllOfTheUser(Broken):
    async def delete(self, **names: str) -> None:
        for key in list(self._sessions):
            if (key.app_name, key.user_id) == (names["app_name"], names["user_id"]):
                del self._sessions[key]


class FailsToDeleteTheUnknown(Broken):
    async def delete(self, *, app_name: str, user_id: str, session_id: str) -> None:
        del self._sessions[SessionKey(app_name, user_id, session_id)]


class LeavesTheLogBehind(Broken):
    """Deletes the session's row and not the rows of its events."""

    def __init__(self) -> None:
        super().__init__()
        self.orphans: dict[SessionKey, list[Event]] = {}

    async def delete(self, **names: str) -> None:
        key = SessionKey(**names)
        if key in self._sessions:
            self.orphans[key] = self._sessions[key].events
        await super().delete(**names)

    async def create(self, **rest: Any) -> Session:
        session = await super().create(**rest)
        self._sessions[session.key].events += self.orphans.get(session.key, [])
        return session


class LeavesTheStateBehind(Broken):
    def __init__(self) -> None:
        super().__init__()
        self.orphans: dict[SessionKey, dict[str, Any]] = {}

    async def delete(self, **names: str) -> None:
        key = SessionKey(**names)
        if key in self._sessions:
            self.orphans[key] = self._sessions[key].state
        await super().delete(**names)

    async def create(self, **rest: Any) -> Session:
        session = await super().create(**rest)
        self._sessions[session.key].state.update(self.orphans.get(session.key, {}))
        return await self.read(session.key)


class DeletesSharedState(Broken):
    async def delete(self, *, app_name: str, user_id: str, session_id: str) -> None:
        await super().delete(app_name=app_name, user_id=user_id, session_id=session_id)
        self._user_state.pop((app_name, user_id), None)


def renamed(change: Callable[[str], str]) -> type[Broken]:
    """A service that changes names before it looks for them."""

    class Renames(Broken):
        async def create(self, *, session_id: str | None = None, **rest: Any) -> Session:
            return await super().create(session_id=session_id and change(session_id), **rest)

        async def get(self, *, session_id: str, **rest: Any) -> Session | None:
            session = await super().get(session_id=change(session_id), **rest)
            if session is not None:
                session.key = SessionKey(session.app_name, session.user_id, session_id)
            return session

        async def put(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None:
            key = SessionKey(key.app_name, key.user_id, change(key.session_id))
            await super().put(key, events, expected_seq=expected_seq)

    return Renames


class GluesNames(Broken):
    async def create(self, *, session_id: str | None = None, **rest: Any) -> Session:
        glued = "/".join([rest["app_name"], rest["user_id"], session_id or ""])
        if glued in map(str, self._sessions):
            raise KeyError(glued)
        return await super().create(session_id=session_id, **rest)


class ListsByPattern(Broken):
    async def list(self, *, app_name: str, user_id: str | None = None) -> list[SessionInfo]:
        infos = []
        for name in sorted({key.app_name for key in self._sessions}):
            if app_name in (name, "a%"):
                infos += await super().list(app_name=name, user_id=user_id)
        return infos


class TakesEveryColonForAScope(Broken):
    def _write(self, key: SessionKey, stored: Any, delta: Mapping[str, Any]) -> None:
        plain = {
            name.rpartition(":")[2] if name[0] == "b" else name: delta[name]
            for name in delta
            if name
        }
        super()._write(key, stored, plain)


class IgnoresTheCaseOfKeys(Broken):
    def _read(self, key: SessionKey, stored: Any, events: Any) -> Session:
        session = super()._read(key, stored, events)
        session.state = {name.lower(): value for name, value in session.state.items()}
        return session


class PagesByOffset(Broken):
    """Takes the number of sessions up to the key for the place to go on at."""

    async def list_page(self, *, after: SessionKey | None = None, **rest: Any) -> list[SessionInfo]:
        if after is not None and after not in self._sessions:
            after = None
        return await super().list_page(after=after, **rest)


class PagesAreAlwaysTheFirst(Broken):
    async def list_page(self, *, after: SessionKey | None = None, **rest: Any) -> list[SessionInfo]:
        return await super().list_page(**rest)


class PagesIgnoreTheUser(Broken):
    async def list_page(self, *, user_id: str | None = None, **rest: Any) -> list[SessionInfo]:
        return await super().list_page(**rest)


class DeletesAtTheEdge(Broken):
    async def delete_before(self, *, time: float, **rest: Any) -> int:
        return await super().delete_before(time=time + 1e-6, **rest)


class DeletesOldSessionsOfAnybody(Broken):
    async def delete_before(self, *, app_name: str, time: float, user_id: str | None = None) -> int:
        return await super().delete_before(app_name=app_name, time=time)


class RestoresTheEventsAlone(Broken):
    async def restore(self, session: Session) -> None:
        await super().restore(
            Session(session.key, session.events, {}, session.last_seq, session.last_update_time)
        )


class RestoresOver(Broken):
    async def restore(self, session: Session) -> None:
        self._sessions.pop(session.key, None)
        await super().restore(session)


class RestoresSharedState(Broken):
    async def restore(self, session: Session) -> None:
        await super().restore(session)
        self._write(session.key, self._sessions[session.key], session.state)


class RestoresParts(Broken):
    async def restore(self, session: Session) -> None:
        last = len(session.events)
        await super().restore(Session(session.key, session.events, session.state, last))


KNOWN_BAD: dict[str, Sequence[type[InMemorySessionService]]] = {
    "pages_are_the_listing_in_pieces": [PagesByOffset, PagesAreAlwaysTheFirst, PagesIgnoreTheUser],
    "old_sessions_are_deleted_and_no_others": [DeletesAtTheEdge, DeletesOldSessionsOfAnybody],
    "an_exported_session_can_be_restored": [RestoresTheEventsAlone, RestoresOver],
    "restoring_leaves_shared_state_alone": [RestoresOver, RestoresSharedState, RestoresParts],
    "a_new_session_is_empty_but_for_its_state": [ForgetsInitialState],
    "create_chooses_an_id_that_is_new": [ReusesIds, SharesOneIdQuietly],
    "create_overwrites_nothing": [Overwrites],
    "create_refuses_what_has_no_json_form": [StoresAnything, LeavesAHalfMadeSession],
    "create_refuses_empty_names": [AcceptsEmptyNames],
    "an_unknown_session_is_none": [InventsSessions, IgnoresUsers],
    "windows_choose_events_and_leave_state_whole": [
        IgnoresWindows,
        TakesTheOldest,
        TreatsZeroAsNoWindow,
        CutsAtATimeAsIfClocksNeverRanBackwards,
        ForgetsStateOutsideTheWindow,
    ],
    "the_log_is_in_the_order_of_appends": [AppendsBackwards],
    "clocks_do_not_decide_the_order": [SortsByTime, StampsItsOwnTime],
    "sequence_numbers_have_no_gaps": [BurnsNumbers, NumbersFromZero],
    "the_state_is_the_fold_of_the_log": [DropsNulls, MergesDicts],
    "values_come_back_as_they_went_in": [ReadsNumbersAsFloats, StripsText],
    "an_event_is_read_as_it_was_written": [KeepsOnlyText],
    "appending_nothing_changes_nothing": [TouchesTheSessionForNothing, SkipsEmptyBatches],
    "a_conflict_changes_nothing": [
        IgnoresConflicts,
        SeesOnlyWritersWhoAreBehind,
        WritesStateBeforeItLooks,
        NumbersEventsBeforeItLooks,
    ],
    "an_event_refused_in_a_conflict_can_be_appended_again": [NumbersEventsBeforeItLooks],
    "of_two_writers_who_saw_the_same_only_one_gets_through": [IgnoresConflicts],
    "an_append_is_all_or_nothing": [AppendsOneByOne, DropsWhatItCannotTake, RecordsAnEventTwice],
    "a_large_batch_is_appended_whole": [HasALimit],
    "appending_to_an_unknown_session_is_an_error": [MakesSessionsOnAppend, RaisesKeyErrors],
    "the_newest_event_dates_the_session": [DatesByTheLatestTime, ListsStaleNumbers],
    "appending_at_once_is_appending": [AppendsAtOnceUnchecked, AppendsNothingAtOnce],
    "plain_state_belongs_to_its_session": [PutsEverythingIntoTheUser],
    "user_state_is_shared_by_the_sessions_of_a_user": [
        PutsEverythingIntoTheSession,
        SharesUsersAcrossApplications,
    ],
    "app_state_is_shared_by_the_sessions_of_an_application": [
        PutsEverythingIntoTheUser,
        PutsEverythingIntoTheSession,
        SharesApplicationStateWithEverybody,
    ],
    "a_new_sessions_state_goes_to_its_scopes": [KeepsInitialStateInTheSession],
    "temporary_state_is_never_stored": [StoresTemporaryState, LogsTemporaryState],
    "what_is_read_is_not_what_is_kept": [HandsOutItsOwnLists, HandsOutChangeableValues],
    "events_that_were_read_cannot_change": [HandsOutOpenEvents],
    "what_was_given_may_change_afterwards": [KeepsTheCallersObjects, KeepsTheCallersBatch],
    "a_session_that_was_read_stays_as_it_was": [HandsOutItsOwnLists, UpdatesSessionsAlreadyRead],
    "a_listing_is_in_order_and_of_one_application": [
        ListsInTheOrderOfCreation,
        ListsWithoutCase,
        ListsEveryApplication,
    ],
    "a_deleted_session_is_gone": [DeletesNothing, DeletesAllOfTheUser],
    "deleting_an_unknown_session_does_nothing": [FailsToDeleteTheUnknown, DeletesAllOfTheUser],
    "a_session_made_again_starts_anew": [LeavesTheLogBehind, LeavesTheStateBehind],
    "shared_state_outlives_a_deleted_session": [DeletesSharedState],
    "odd_names_name_different_sessions": [
        renamed(str.lower),
        renamed(str.strip),
        renamed(lambda name: name[:255]),
        GluesNames,
        ListsByPattern,
    ],
    "odd_state_keys_are_different_keys": [TakesEveryColonForAScope, IgnoresTheCaseOfKeys],
    **broken_following.KNOWN_BAD,
    **broken_owners.KNOWN_BAD,
}


def test_every_check_is_proved_on_a_broken_service() -> None:
    assert sorted(check.name for check in CHECKS) == sorted(KNOWN_BAD)


@pytest.mark.parametrize(
    ("check", "broken"),
    [(check, broken) for check in CHECKS for broken in KNOWN_BAD[check.name]],
    ids=lambda value: value.name if isinstance(value, Check) else value.__name__,
)
async def test_a_broken_promise_is_caught(
    check: Check,
    broken: type[InMemorySessionService],
    autojump_clock: trio.testing.MockClock,  # a subscriber that nobody wakes waits for long
) -> None:
    with pytest.raises(PromiseBrokenError) as caught:
        await check(broken())
    assert caught.value.promise == check.name


async def test_a_service_that_copies_events_keeps_its_promises() -> None:
    """What a database does: the objects read are not those appended."""
    codec = Codec()

    class Copies(InMemorySessionService):
        async def get(self, **rest: Any) -> Session | None:
            session = await super().get(**rest)
            if session is not None:
                session.events = [codec.loads(codec.dumps(event)) for event in session.events]
                session.state = copy.deepcopy(session.state)
            return session

    await check_session_service(Copies)


# ------------------------------------------------------------------------------------ the suite


async def test_all_checks_can_be_run_at_once() -> None:
    made: list[SessionService] = []

    def make() -> SessionService:
        made.append(InMemorySessionService())
        return made[-1]

    await check_session_service(make)
    assert len(made) == len(CHECKS)


async def test_a_service_may_need_to_be_opened_and_closed() -> None:
    opened: list[str] = []

    @asynccontextmanager
    async def open_service() -> AsyncGenerator[SessionService, None]:
        opened.append("open")
        yield InMemorySessionService()
        opened.append("close")

    await check_session_service(open_service)
    assert opened == ["open", "close"] * len(CHECKS)


async def test_the_broken_promise_is_named_in_the_error() -> None:
    with pytest.raises(PromiseBrokenError, match=r"^a_deleted_session_is_gone: get\(\) of it"):
        await check_session_service(DeletesNothing)


async def test_an_error_of_the_services_own_is_a_broken_promise_and_its_cause() -> None:
    with pytest.raises(PromiseBrokenError, match="KeyError") as caught:
        await check_session_service(RaisesKeyErrors)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_broken_promise_is_a_failed_assertion() -> None:
    """So that every test framework shows it as a failure and not as an error."""
    assert issubclass(PromiseBrokenError, AssertionError)


@every_check
def test_a_checks_name_is_a_claim(check: Check) -> None:
    assert len(check.name.split("_")) >= 3
    assert repr(check) == f"Check(name={check.name!r})"
