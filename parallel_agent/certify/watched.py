"""What a run is watched with in its process: its session service, its agents, its effects."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar, cast, final

import attrs

from parallel_agent.barrier import Outcome
from parallel_agent.certify.points import Notes, Points, listed
from parallel_agent.context import InvocationContext
from parallel_agent.past import bare
from parallel_agent.plugin import Plugin
from parallel_agent.stored_context import OnUnknown, StoredContext
from session.event import Event
from session.lease import Lease, Unfinished
from session.passing import PassingOwner
from session.service import SessionService
from session.session import SessionKey

__all__ = ["WatchAgents", "WatchedService", "watch_effects"]

T = TypeVar("T")

_OURS: Final = "parallel_agent.workflow."

_RECORDS: Final = {
    "start": "the start",
    "resumed": "the resumption",
    "attempt": "a failed attempt",
    "checkpoint": "a checkpoint",
}


def describe(event: Event) -> str:
    """Say in a few words what an event is."""
    journal = event.journal or {}
    match journal.get("kind"):
        case None:
            pass
        case "end":
            return f"end of {event.path} ({journal.get('status')})"
        case "intent":
            return f"intent {journal.get('key')!r}"
        case "effect":
            return f"result of {journal.get('key')!r}"
        case str(kind):
            return _RECORDS.get(kind, kind)
        case other:
            return repr(other)
    if event.request is not None:
        return f"{event.author} asks"
    if event.text:
        text = event.text if len(event.text) <= 24 else event.text[:23] + "…"  # noqa: PLR2004  # fits a column
        return f"{event.author} {text!r}"
    if event.actions.outcomes:
        return f"outcomes of {event.author}"
    if event.state_delta:
        return f"{event.author} writes {listed(event.state_delta)}"
    return f"an event of {event.author}"


@final
class WatchedService(PassingOwner):
    """A session service each append of which is a boundary, before, during and after."""

    batches = False  # what waits for others depends on the time things take

    def __init__(self, inner: SessionService, points: Points) -> None:
        """Watch ``inner``, which owns sessions."""
        super().__init__(inner)
        self._points = points

    async def append(
        self,
        key: SessionKey,
        events: Sequence[Event],
        *,
        expected_seq: int,
        lease: Lease | None = None,
    ) -> None:
        """Three boundaries: before it is begun, before the commit, and before it is answered."""
        what = listed([describe(event) for event in events])
        path = events[0].path if events else ""
        self._points.reach("before", what, path)
        self._points.announce_commit(what, path)
        try:
            await self.inner.append(key, events, expected_seq=expected_seq, lease=lease)
        finally:
            self._points.committed()
        self._points.reach("after", what, path)

    async def acquire(
        self, key: SessionKey, *, run_id: str, owner: str, resumable: bool = False
    ) -> Lease:
        """A boundary when the session is the run's. The lease needs no renewal: see `child`."""
        lease = await self.inner.acquire(key, run_id=run_id, owner=owner, resumable=resumable)
        self._points.reach("after", "taking the session")
        return attrs.evolve(lease, seconds=float("inf"))

    async def release(self, lease: Lease, *, unfinished: Unfinished | None = None) -> None:
        """A boundary before it."""
        self._points.reach("before", "giving the session back")
        await self.inner.release(lease, unfinished=unfinished)


@final
class WatchAgents(Plugin):
    """Notes which agents begin, before their code does, and which have ended."""

    def __init__(self, notes: Notes) -> None:
        """Note there."""
        super().__init__("certify")
        self._notes = notes

    async def before_agent_callback(self, ctx: InvocationContext) -> None:
        """Note a start. Workflow agents of this package do nothing outside by themselves."""
        self._notes.write(
            "start",
            path=ctx.path,
            agent=ctx.agent.name,
            own=not type(ctx.agent).__module__.startswith(_OURS),
        )

    def on_agent_end(self, ctx: InvocationContext, outcome: Outcome) -> None:
        """Note an end."""
        self._notes.write("end", path=ctx.path, status=str(outcome.status))


def watch_effects(points: Points) -> None:
    """Make what `InvocationContext.once` calls a boundary, before and after, for this process.

    There is no hook for it, and needs to be none: this process exists to be killed.
    """
    notes, once, checkpoint = points.notes, StoredContext.once, StoredContext.checkpoint
    open_agent = InvocationContext.open_agent

    async def noted_once(
        self: InvocationContext,
        key: str,
        fn: Callable[[], Awaitable[T] | T],
        *,
        on_unknown: OnUnknown = "raise",
    ) -> T:
        path = self.path
        notes.write("guard", path=path)

        async def call() -> T:
            points.reach("before", f"doing {key!r}", path)
            may_repeat = on_unknown == "retry"
            notes.write("call", path=bare(path), key=str(key), may_repeat=may_repeat)
            try:
                value: Any = fn()
                if inspect.isawaitable(value):
                    value = await value
            except Exception:
                notes.write("failed", path=bare(path), key=str(key))
                raise
            notes.write("done", path=bare(path), key=str(key))
            points.reach("after", f"doing {key!r}", path)
            return cast("T", value)

        return await once(self, key, call, on_unknown=on_unknown)

    async def noted_checkpoint(self: InvocationContext, value: Any) -> None:
        notes.write("guard", path=self.path)
        await checkpoint(self, value)

    def noted_open(self: InvocationContext, *args: Any, **kwargs: Any) -> Any:
        # What is read before it counts is not recorded as ended, and runs again rightly.
        notes.write("tap", path=self.path)
        return open_agent(self, *args, **kwargs)

    for owner, name, replacement in (
        (StoredContext, "once", noted_once),
        (StoredContext, "checkpoint", noted_checkpoint),
        (InvocationContext, "open_agent", noted_open),
    ):
        setattr(owner, name, replacement)
