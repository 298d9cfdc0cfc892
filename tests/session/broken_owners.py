"""Services that break one promise each about whose a session is, and about keys that are unset."""

# ruff: noqa: ARG002  # ignoring what it is given is how many a service is broken

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final

import attrs

from session import (
    Event,
    InMemorySessionService,
    Lease,
    LeaseLostError,
    SequenceConflictError,
    SessionBusyError,
    SessionKey,
    UnfinishedRun,
)
from session.in_memory import _Stored

__all__ = ["KNOWN_BAD"]


class Broken(InMemorySessionService):
    """A service to break in one place."""

    def row(self, key: SessionKey) -> _Stored:
        """What is kept of a session."""
        return self._sessions.setdefault(key, _Stored())

    def look(self, key: SessionKey, lease: Lease | None, expected: int) -> Lease | None:
        """Return the lease to append under; None: under none."""
        return lease

    def append_nowait(
        self,
        key: SessionKey,
        events: Sequence[Event],
        *,
        expected_seq: int,
        lease: Lease | None = None,
    ) -> None:
        """Append, after a look at the lease."""
        lease = self.look(key, lease, expected_seq)
        super().append_nowait(key, events, expected_seq=expected_seq, lease=lease)


class Busy(Broken):
    """Breaks how a session is taken."""

    def may_take(self, key: SessionKey, run_id: str) -> bool:
        """Whether a run gets the session that another holds."""
        return False

    async def acquire(self, key: SessionKey, *, run_id: str, owner: str, **rest: Any) -> Lease:
        """Acquire, perhaps over another's lease."""
        if key in self._sessions and self.may_take(key, run_id):
            self.row(key).lease = None
        return await super().acquire(key, run_id=run_id, owner=owner, **rest)


class IsNeverBusy(Busy):
    def may_take(self, key: SessionKey, run_id: str) -> bool:
        return True


class LetsARunInTwice(Busy):
    def may_take(self, key: SessionKey, run_id: str) -> bool:
        held = self.row(key).lease
        return held is not None and held.run_id == run_id


class IsBusyForGood(Broken):
    async def release(self, lease: Lease, **rest: Any) -> None:
        pass


class NamesWhoAsks(Broken):
    async def acquire(self, key: SessionKey, *, run_id: str, owner: str, **rest: Any) -> Lease:
        try:
            return await super().acquire(key, run_id=run_id, owner=owner, **rest)
        except SessionBusyError:
            raise SessionBusyError(key, owner=owner, run_id=run_id) from None


class HoldsAllOfTheUser(Broken):
    async def acquire(self, key: SessionKey, *, run_id: str, owner: str, **rest: Any) -> Lease:
        for other, stored in self._sessions.items():
            if stored.lease is not None and other.user_id == key.user_id:
                raise SessionBusyError(key, owner=stored.lease.owner, run_id=stored.lease.run_id)
        return await super().acquire(key, run_id=run_id, owner=owner, **rest)


class HasOneToken(Broken):
    def __init__(self) -> None:
        super().__init__()
        self._tokens = itertools.repeat(1)  # type: ignore[assignment]  # the bug


class CountsDown(Broken):
    def __init__(self) -> None:
        super().__init__()
        self._tokens = itertools.count(1_000, -1)


class MakesSessionsOnAcquire(Broken):
    async def acquire(self, key: SessionKey, *, run_id: str, owner: str, **rest: Any) -> Lease:
        self.row(key)
        return await super().acquire(key, run_id=run_id, owner=owner, **rest)


class TakesTheNameless(Broken):
    async def acquire(self, key: SessionKey, *, run_id: str, owner: str, **rest: Any) -> Lease:
        lease = await super().acquire(key, run_id=run_id or "?", owner=owner or "?", **rest)
        self.row(key).lease = lease
        return lease


class AsksNobody(Broken):
    async def ask_to_stop(self, key: SessionKey, reason: str) -> bool:
        return await super().ask_to_stop(key, reason) or True


class RefusesLeases(Broken):
    def look(self, key: SessionKey, lease: Lease | None, expected: int) -> Lease | None:
        if lease is not None:
            raise LeaseLostError(lease)
        return None


class TrustsTheHolderWithTheNumber(Broken):
    def append_nowait(
        self, key: SessionKey, events: Sequence[Event], *, expected_seq: int, **rest: Any
    ) -> None:
        if rest.get("lease") is not None:
            expected_seq = len(self.row(key).events)
        super().append_nowait(key, events, expected_seq=expected_seq, **rest)


class IgnoresLeases(Broken):
    def look(self, key: SessionKey, lease: Lease | None, expected: int) -> Lease | None:
        return None


class TakesLeasesOfOthers(Broken):
    def look(self, key: SessionKey, lease: Lease | None, expected: int) -> Lease | None:
        return lease if lease is not None and lease.key == key else None


class IsContentWithAnyHolder(Broken):
    def look(self, key: SessionKey, lease: Lease | None, expected: int) -> Lease | None:
        return lease and (self.row(key).lease or lease)


class ComparesRunsAlone(Broken):
    def look(self, key: SessionKey, lease: Lease | None, expected: int) -> Lease | None:
        held = self.row(key).lease
        return held if lease and held and held.run_id == lease.run_id else lease


class ForgetsNoLease(Broken):
    """Compares the token, which stays what it was when a lease is released."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[SessionKey, Lease] = {}

    async def acquire(self, key: SessionKey, *, run_id: str, owner: str, **rest: Any) -> Lease:
        self.last[key] = await super().acquire(key, run_id=run_id, owner=owner, **rest)
        return self.last[key]

    def look(self, key: SessionKey, lease: Lease | None, expected: int) -> Lease | None:
        return None if lease == self.last.get(key) else lease


class LooksAtTheNumberFirst(Broken):
    def look(self, key: SessionKey, lease: Lease | None, expected: int) -> Lease | None:
        last = len(self.row(key).events)
        if last != expected:
            raise SequenceConflictError(key, expected=expected, actual=last)
        return lease


class ChecksLeasesOfAwaitedAppendsOnly(Broken):
    async def append(
        self,
        key: SessionKey,
        events: Sequence[Event],
        *,
        expected_seq: int,
        lease: Lease | None = None,
    ) -> None:
        if lease is not None:
            await super().renew(lease)
        super().append_nowait(key, events, expected_seq=expected_seq)

    blocks = False

    def look(self, key: SessionKey, lease: Lease | None, expected: int) -> Lease | None:
        return None


class RenewsWhatIsLost(Broken):
    async def renew(self, lease: Lease) -> str | None:
        return self.row(lease.key).stop


class DemandsALease(Broken):
    def look(self, key: SessionKey, lease: Lease | None, expected: int) -> Lease | None:
        held = self.row(key).lease
        if lease is None and held is not None:
            raise LeaseLostError(held)
        return lease


class LeavesTheLeaseBehind(Broken):
    async def delete(self, **names: str) -> None:
        old = self._sessions.get(SessionKey(**names))
        await super().delete(**names)
        if old is not None and old.lease is not None:
            self.left = old.lease

    async def create(self, **rest: Any) -> Any:
        session = await super().create(**rest)
        self.row(session.key).lease = getattr(self, "left", None)
        return session


class ComparesTokensAlone(Broken):
    """Of a session that is made again, the first lease has the number of the one before."""

    async def acquire(self, key: SessionKey, *, run_id: str, owner: str, **rest: Any) -> Lease:
        self._tokens = itertools.count(1)
        return await super().acquire(key, run_id=run_id, owner=owner, **rest)

    def look(self, key: SessionKey, lease: Lease | None, expected: int) -> Lease | None:
        held = self._sessions[key].lease if key in self._sessions else None
        return held if lease and held and held.token == lease.token else lease


class RemembersTheDeleted(Broken):
    def __init__(self) -> None:
        super().__init__()
        self.ghosts: list[UnfinishedRun] = []

    async def release(self, lease: Lease, **rest: Any) -> None:
        if rest and lease.key not in self._sessions:
            self.ghosts.append(UnfinishedRun(lease.key, lease.run_id, "waiting", None, 0.0))
        await super().release(lease, **rest)

    async def unfinished(self, **names: Any) -> list[UnfinishedRun]:
        return self.ghosts + await super().unfinished(**names)


class ReleasesForAnybody(Broken):
    async def release(self, lease: Lease, **rest: Any) -> None:
        held = self.row(lease.key).lease
        await super().release(held or lease, **rest)


class RemembersWhatWasReleased(Broken):
    async def release(self, lease: Lease, **rest: Any) -> None:
        await super().release(lease, **rest)
        if rest:
            self.row(lease.key).unfinished = (lease.run_id, rest["unfinished"])


class TellsNobodyWhy(Broken):
    async def renew(self, lease: Lease) -> str | None:
        await super().renew(lease)
        return None


class TellsOnce(Broken):
    async def renew(self, lease: Lease) -> str | None:
        why = await super().renew(lease)
        self.row(lease.key).stop = None
        return why


class TellsTheNext(Broken):
    async def release(self, lease: Lease, **rest: Any) -> None:
        why = self.row(lease.key).stop
        await super().release(lease, **rest)
        self.row(lease.key).stop = why


class TellsItInItsOwnWords(Broken):
    async def ask_to_stop(self, key: SessionKey, reason: str) -> bool:
        return await super().ask_to_stop(key, reason.strip("\x00é") or reason)


class TakesTheSessionAway(Broken):
    async def ask_to_stop(self, key: SessionKey, reason: str) -> bool:
        asked = await super().ask_to_stop(key, reason)
        self.row(key).lease = None
        return asked


class RemembersNothing(Broken):
    async def unfinished(self, **names: Any) -> list[UnfinishedRun]:
        return []


class RemembersForGood(Broken):
    async def release(self, lease: Lease, **rest: Any) -> None:
        await super().release(lease, unfinished=rest.get("unfinished") or "waiting")


class CallsAllInterrupted(Broken):
    async def release(self, lease: Lease, **rest: Any) -> None:
        await super().release(lease, unfinished="interrupted" if rest else None)


class KeepsTheOwner(Broken):
    async def unfinished(self, **names: Any) -> list[UnfinishedRun]:
        runs = await super().unfinished(**names)
        return [attrs.evolve(run, owner=f"holder of {run.run_id}") for run in runs]


class AcceptsAnyEnd(Broken):
    async def release(self, lease: Lease, **rest: Any) -> None:
        if rest.get("unfinished") == "lost":
            rest.clear()
        await super().release(lease, **rest)


class RemembersThePreviousRun(Broken):
    async def acquire(self, key: SessionKey, *, run_id: str, owner: str, **rest: Any) -> Lease:
        before = self._sessions[key].unfinished
        lease = await super().acquire(key, run_id=run_id, owner=owner, **rest)
        if before is not None:
            self._sessions[key].unfinished = before
        return lease


class RemembersEveryRun(Broken):
    async def acquire(self, key: SessionKey, *, run_id: str, owner: str, **_: Any) -> Lease:
        return await super().acquire(key, run_id=run_id, owner=owner, resumable=True)


class FindsThemAsTheyCame(Broken):
    async def unfinished(self, **names: Any) -> list[UnfinishedRun]:
        places = [*self._sessions]
        return sorted(await super().unfinished(**names), key=lambda run: places.index(run.key))


class FindsThoseOfEveryApplication(Broken):
    async def unfinished(self, *, app_name: str, user_id: str | None = None) -> list[UnfinishedRun]:
        names = sorted({key.app_name for key in self._sessions})
        found = [await super(Broken, self).unfinished(app_name=n, user_id=user_id) for n in names]
        return [run for runs in found for run in runs]


class FindsThoseOfEveryUser(Broken):
    async def unfinished(self, *, app_name: str, user_id: str | None = None) -> list[UnfinishedRun]:
        return await super().unfinished(app_name=app_name)


class UnsetsNothing(Broken):
    def append_nowait(
        self, key: SessionKey, events: Sequence[Event], *, expected_seq: int, **rest: Any
    ) -> None:
        super().append_nowait(key, events, expected_seq=expected_seq, **rest)
        self.row(key).state.update({name: None for event in events for name in event.state_unset})


class UnsetsAtTheEndOfABatch(Broken):
    def append_nowait(
        self, key: SessionKey, events: Sequence[Event], *, expected_seq: int, **rest: Any
    ) -> None:
        super().append_nowait(key, events, expected_seq=expected_seq, **rest)
        for event in events:
            for name in event.state_unset:
                self.row(key).state.pop(name, None)


class UnsetsInEverySession(Broken):
    def append_nowait(
        self, key: SessionKey, events: Sequence[Event], *, expected_seq: int, **rest: Any
    ) -> None:
        super().append_nowait(key, events, expected_seq=expected_seq, **rest)
        for event in events:
            for name in event.state_unset:
                for other in self._sessions:
                    if other != key:
                        self.row(other).state.pop(name, None)


class UnsetsWhatIsNull(Broken):
    def append_nowait(
        self, key: SessionKey, events: Sequence[Event], *, expected_seq: int, **rest: Any
    ) -> None:
        super().append_nowait(key, events, expected_seq=expected_seq, **rest)
        state = self.row(key).state
        for name in [name for name, value in state.items() if value is None]:
            del state[name]


KNOWN_BAD: Final[dict[str, Sequence[type[InMemorySessionService]]]] = {
    "a_key_that_is_unset_is_gone": [
        UnsetsNothing,
        UnsetsAtTheEndOfABatch,
        UnsetsInEverySession,
        UnsetsWhatIsNull,
    ],
    "a_session_that_is_held_is_busy": [
        IsNeverBusy,
        LetsARunInTwice,
        IsBusyForGood,
        NamesWhoAsks,
        HoldsAllOfTheUser,
    ],
    "each_lease_has_a_higher_token": [HasOneToken, CountsDown],
    "only_a_session_that_is_there_can_be_held": [
        MakesSessionsOnAcquire,
        TakesTheNameless,
        AsksNobody,
    ],
    "an_append_under_a_lease_is_an_append": [
        RefusesLeases,
        TrustsTheHolderWithTheNumber,
        IgnoresLeases,
        TakesLeasesOfOthers,
    ],
    "nothing_is_appended_under_a_lease_that_is_over": [
        IgnoresLeases,
        IsContentWithAnyHolder,
        ComparesRunsAlone,
        ForgetsNoLease,
        LooksAtTheNumberFirst,
        ChecksLeasesOfAwaitedAppendsOnly,
        RenewsWhatIsLost,
    ],
    "a_run_without_a_lease_is_held_up_by_none": [DemandsALease],
    "deleting_a_session_ends_its_lease": [
        LeavesTheLeaseBehind,
        ComparesTokensAlone,
        RemembersTheDeleted,
    ],
    "releasing_twice_takes_nothing_from_the_next": [ReleasesForAnybody, RemembersWhatWasReleased],
    "a_holder_that_is_asked_to_stop_learns_why": [
        AsksNobody,
        TellsNobodyWhy,
        TellsOnce,
        TellsTheNext,
        TellsItInItsOwnWords,
        TakesTheSessionAway,
    ],
    "an_unfinished_run_is_remembered": [
        RemembersNothing,
        RemembersForGood,
        CallsAllInterrupted,
        KeepsTheOwner,
        AcceptsAnyEnd,
    ],
    "a_new_run_supersedes_an_unfinished_one": [RemembersThePreviousRun, RemembersEveryRun],
    "unfinished_runs_are_in_order_and_of_one_application": [
        FindsThemAsTheyCame,
        FindsThoseOfEveryApplication,
        FindsThoseOfEveryUser,
        RemembersEveryRun,
    ],
}
