"""Faults on purpose: a session service, and a stream of events, that fail at a chosen place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar, final

from parallel_agent.context import InvocationContext
from parallel_agent.plugin import Plugin
from parallel_agent.result import Result
from session.event import Event
from session.lease import Lease
from session.passing import PassingOwner
from session.service import SessionInfo, SessionService
from session.session import Session, SessionKey

__all__ = ["FailingSessionService", "FailingStream", "InjectedFaultError"]

T = TypeVar("T")

Method: TypeAlias = Literal["create", "get", "list", "delete", "append"]


class InjectedFaultError(Exception):
    """What a fault raises that was not given an error of its own."""


def _checked(fails_at: object) -> int:
    if type(fails_at) is not int or fails_at < 1:
        message = f"fails_at is a whole number from 1 on, not {fails_at!r:.80}"
        raise ValueError(message)
    return fails_at


@final
class FailingSessionService(PassingOwner):
    """A session service one call of which fails. The others are passed on, those after it too.

    Args:
        inner: where the sessions are kept.
        fails_at: which call fails, counted from 1, over all runs.
        when: ``"before"`` it has had any effect; or ``"after"``, as when an answer is lost on its
            way: it has taken effect, and nobody is told.
        method: what is counted, and fails.
        error: what it raises; by default an `InjectedFaultError` that says which call it was.

    Attributes:
        calls: how many calls of the method there have been.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        inner: SessionService,
        fails_at: int,
        *,
        when: Literal["before", "after"] = "before",
        method: Method = "append",
        error: Exception | None = None,
    ) -> None:
        """See the class."""
        if when not in ("before", "after"):
            message = f"when is 'before' or 'after', not {when!r:.80}"
            raise ValueError(message)
        if method not in ("create", "get", "list", "delete", "append"):
            message = f"method is one of a session service, not {method!r:.80}"
            raise ValueError(message)
        super().__init__(inner)
        # For each object, what it is for the inner one.
        self.owns = inner.owns  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
        self._fails_at = _checked(fails_at)
        self._when = when
        self._method = method
        self._error = error
        self.calls = 0

    async def _pass_on(self, method: Method, work: Callable[[], Awaitable[T]]) -> T:
        self.calls += method == self._method
        fails = method == self._method and self.calls == self._fails_at
        if fails and self._when == "before":
            raise self._fault()
        result = await work()
        if fails:
            raise self._fault()
        return result

    def _fault(self) -> Exception:
        return self._error or InjectedFaultError(f"{self._method} {self.calls} was told to fail")

    async def create(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> Session:
        """Create, or fail."""
        return await self._pass_on(
            "create",
            lambda: self.inner.create(
                app_name=app_name, user_id=user_id, session_id=session_id, state=state
            ),
        )

    async def get(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str,
        num_recent_events: int | None = None,
        after_sequence: int | None = None,
        after: float | None = None,
    ) -> Session | None:
        """Get, or fail."""
        return await self._pass_on(
            "get",
            lambda: self.inner.get(
                app_name=app_name,
                user_id=user_id,
                session_id=session_id,
                num_recent_events=num_recent_events,
                after_sequence=after_sequence,
                after=after,
            ),
        )

    async def list(self, *, app_name: str, user_id: str | None = None) -> list[SessionInfo]:
        """List, or fail."""
        return await self._pass_on(
            "list", lambda: self.inner.list(app_name=app_name, user_id=user_id)
        )

    async def delete(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Delete, or fail."""
        await self._pass_on(
            "delete",
            lambda: self.inner.delete(app_name=app_name, user_id=user_id, session_id=session_id),
        )

    async def append(
        self,
        key: SessionKey,
        events: Sequence[Event],
        *,
        expected_seq: int,
        lease: Lease | None = None,
    ) -> None:
        """Append, or fail."""
        await self._pass_on(
            "append",
            lambda: self.inner.append(key, events, expected_seq=expected_seq, lease=lease),
        )


@final
class FailingStream(Plugin):
    """A plugin that makes one event of each run fail: its agent gets a `PluginError` for it.

    Args:
        fails_at: which event that its agents emit, counted from 1. Those without text count, too.
        error: what it raises; by default an `InjectedFaultError` that says which event it was.

    Raises:
        ValueError: ``fails_at`` is out of its range.
    """

    def __init__(self, fails_at: int, *, error: Exception | None = None) -> None:
        """See the class."""
        super().__init__()
        self._fails_at = _checked(fails_at)
        self._error = error
        self._counts: dict[str, int] = {}

    async def on_event_callback(self, ctx: InvocationContext, event: Event) -> None:
        """Count it, or fail."""
        count = self._counts[ctx.invocation_id] = self._counts.get(ctx.invocation_id, 0) + 1
        if count == self._fails_at:
            message = f"event {count}, {event!r:.80}, was told to fail"
            raise self._error or InjectedFaultError(message)

    async def after_run_callback(self, ctx: InvocationContext, result: Result) -> None:
        """Forget the run."""
        del result
        self._counts.pop(ctx.invocation_id, None)
