"""What an ADK agent sees of a run: our session, as a session of ADK's, kept up to date."""

from __future__ import annotations

from collections import deque
from typing import Any, Final, final

import attrs

from parallel_agent.adk.events import past_to_adk
from parallel_agent.adk.library import AdkSession
from parallel_agent.context import InvocationContext, activation_of
from session.event import USER, Event
from session.state import same, thaw

__all__ = ["View"]

_MISSING: Final[Any] = object()


@attrs.frozen
class _News:
    """What has changed between two looks at the session."""

    state: dict[str, Any]
    events: list[Event]


@final
class View:
    """Our session as one ADK agent sees it, on its branch.

    Two sides, which may be two threads: `look` belongs to trio's, `session` and `catch_up` to the
    loop's. What the first has seen the second finds in a queue.
    """

    def __init__(self, ctx: InvocationContext, adk_name: str) -> None:
        """Look for the first time."""
        self._ctx = ctx
        self._name = ctx.agent.name
        self._adk_name = adk_name
        self.branch = ctx.branch
        self._known: dict[str, Any] = {}
        self._log = activation_of(ctx).invocation.stream.session.events
        self._looked_at = len(self._log)
        self._news = deque[_News]()
        self._news.append(_News(self._changed(), ctx.history()))
        self.session: Any = None

    # Trio's side.

    def look(self) -> None:
        """See what has changed since the last time.

        State may have been written by anybody. Of the log, only messages to this branch are news:
        what the agent has said itself, it knows, and nobody else writes here while it runs.
        """
        log, start = self._log, self._looked_at
        self._looked_at = len(log)
        messages = [
            event for event in log[start:] if event.author == USER and event.branch == self.branch
        ]
        self._news.append(_News(self._changed(), messages))

    def _changed(self) -> dict[str, Any]:
        state = self._ctx.state
        changed: dict[str, Any] = {}
        for key in state:
            value = state[key]
            # By identity: values are frozen, and one that was not written is the one it was.
            if self._known.get(key, _MISSING) is not value:
                self._known[key] = changed[key] = value
        return changed

    # The loop's side.

    def open(self) -> Any:
        """Return the session, made of what was seen first."""
        key = self._ctx.session_key
        self.session = AdkSession(app_name=key.app_name, user_id=key.user_id, id=key.session_id)
        self.catch_up()
        return self.session

    def catch_up(self) -> None:
        """Let the agent see what was seen since."""
        session = self.session
        while self._news:
            news = self._news.popleft()
            for key, value in news.state.items():
                # Its own writes are there already, in objects that it may hold on to.
                if not same(session.state.get(key, _MISSING), value):
                    session.state[key] = thaw(value)
            session.events.extend(
                past_to_adk(event, name=self._name, adk_name=self._adk_name, branch=self.branch)
                for event in news.events
            )
