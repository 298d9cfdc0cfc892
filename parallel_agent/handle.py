"""What every host's run is: a handle on what runs, and ways to read it.

It knows neither trio nor asyncio: it reads itself by ``async for``, whatever awaits that. A host
adds how the next event is waited for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from inspect import iscoroutinefunction
from typing import Any, NoReturn, Self, final

import attrs

from parallel_agent.activation import Activation
from parallel_agent.barrier import Outcome
from parallel_agent.context import find_outcomes
from parallel_agent.errors import ReadError, RunEndedError, is_about_effect
from parallel_agent.lifecycle import Status, Step, advance, checked_reason
from parallel_agent.post import send
from parallel_agent.questions import PendingRequest, Requests
from parallel_agent.result import Result, RunStatistics, last_text
from session.content import Content
from session.event import Event
from session.lease import Unfinished
from session.state import frozen_dict

__all__ = ["RunBlock", "RunCore", "RunHandle", "core_of"]


class RunCore:
    """What a run and its block both hold on to."""

    def __init__(self, root: Activation, first: int) -> None:
        """Hold on to the ``root``, whose run's first event is the session's ``first``."""
        self.root = root
        self.stream = root.invocation.stream
        self.first = first
        self.status = advance(Status.PENDING, Step.START)
        self.reason: str | None = None
        self.result: Result | None = None
        self._left = False
        self._broken = False

    def cancel(self, reason: str) -> None:
        """Cancel the tree; the first reason is the one that counts."""
        if not self.stream.ended and self.reason is None:
            self.reason = reason
        self.root.scope.cancel(reason)

    def leave(self, reason: str) -> None:
        """Cancel the tree, if it has not ended: its reader leaves, and nobody has decided that."""
        self._left = self._left or (self.reason is None and not self.stream.ended)
        self.cancel(reason)

    @property
    def unfinished(self) -> Unfinished | None:
        """How the run leaves its session: None if it has come to its end, or can have none.

        Of a run that is concluded.
        """
        if self.root.invocation.journal is None:
            return None
        if self._broken:
            return "interrupted"  # however the tree has ended: nobody knows, for it is not recorded
        if self.status is Status.CANCELLED and (self._left or self.reason is None):
            # Also if the tree has just completed: its reader was not told, and resuming does that.
            # Without a reason: a cancellation from outside has reached the tree, and not yet its
            # reader, who was recording something.
            return "interrupted"
        if is_about_effect(self.root.error):
            return "interrupted"  # until somebody has said what has become of the effect
        return "waiting" if self.root.status is Status.WAITING else None

    def ending(self, *, broken: bool) -> tuple[Status, str | None]:
        """Return how it has ended, and why; the tree has. ``broken``: the stream failed."""
        root = self.root
        if broken:
            step = Step.FAIL
        elif root.status is Status.COMPLETED:
            # Cancelled too late to reach anybody, it is cancelled all the same: never a success.
            step = Step.COMPLETE if self.reason is None else Step.CANCEL
        else:
            ways = {Status.FAILED: Step.FAIL, Status.WAITING: Step.WAIT}
            step = ways.get(root.status, Step.CANCEL)
        whys = {Step.CANCEL: self.reason, Step.WAIT: root.invocation.requests.why_waiting()}
        return advance(self.status, step), whys.get(step)

    def _events(self) -> tuple[Event, ...]:
        events = self.stream.session.events[self.first :]
        invocation = self.root.invocation
        if invocation.journal is not None:
            events = [event for event in events if not event.is_record]
        if invocation.replay is not None:
            void = invocation.replay.past.void
            events = [event for event in events if event.seq not in void]
        return tuple(events)

    def conclude(self, *, broken: bool) -> None:
        """Settle status and result, the tree having ended. ``broken``: the stream failed."""
        root = self.root
        invocation = root.invocation
        session = self.stream.session
        self._broken = broken
        self.status, reason = self.ending(broken=broken)
        events = self._events()
        self.result = Result(
            status=self.status,
            text=last_text(events),
            output=root.output if self.status is Status.COMPLETED else None,
            outputs=frozen_dict(invocation.outputs),
            state=session.snapshot(),
            events=events,
            reason=reason,
            session_id=invocation.key.session_id,
            invocation_id=invocation.id,
        )


class RunHandle(ABC):
    """One run, inside its block: an async iterator of events, and a handle on what runs.

    Iteration ends when the tree has ended, and raises what it failed with. It delivers an event
    after it is recorded, and its branch goes on when the reader comes back for the next.
    """

    def __init__(self, core: RunCore) -> None:
        """Made by the block that opens the run."""
        self._core = core
        self._stream = core.stream
        self._requests: Requests = core.root.invocation.requests

    @property
    def invocation_id(self) -> str:
        """The run's id."""
        return self._core.root.invocation.id

    @property
    def session_id(self) -> str:
        """The session it runs in."""
        return self._core.root.invocation.key.session_id

    @property
    def status(self) -> Status:
        """How it stands; final when the block has ended."""
        return self._core.status

    @property
    def result(self) -> Result:
        """What it came to; there when the block has ended.

        Raises:
            ReadError: the block has not ended.
        """
        if self._core.result is None:
            message = "run.result is there when the `async with` block has ended"
            raise ReadError(message)
        return self._core.result

    def statistics(self) -> RunStatistics:
        """Return how many events were delivered, and how many activations stand how."""
        return RunStatistics(
            status=self._core.status,
            delivered=self._stream.delivered,
            last_seq=self._stream.session.last_seq,
            **attrs.asdict(self._core.root.invocation.counts),
        )

    def outcomes(self, name: str) -> tuple[Outcome, ...]:
        """Return how the branches of the fan-out ``name`` ended, in declaration order.

        Of its newest activation; also when it failed.

        Raises:
            KeyError: no fan-out of that name has ended.
        """
        return find_outcomes(self._core.root.invocation.outcomes, name)

    def cancel(self, reason: str = "cancelled by run.cancel()") -> None:
        """Cancel every agent of the run. Does not wait: go on iterating, or leave the block.

        Iteration ends ordinarily, when every agent has cleaned up; what they record while doing
        so is still delivered. ``result.status`` is then ``"cancelled"``, never a success.
        """
        self._core.cancel(checked_reason(reason))

    # Into the run. Nothing here waits for the reader, so it may be called inside its loop.

    async def send(self, content: str | Content, *, to: str | None = None) -> Event:
        """Send a message to the branch named ``to``; None is the root branch.

        It is recorded as the user's event on that branch, comes out of the iteration like any
        other, and is there for ``ctx.receive()`` when the reader comes back after it.

        Raises:
            MessageRefusedError: no such branch is running, or its inbox is full. Nothing changed.
        """
        await self._checkpoint()
        return send(self._core.root, content, to)

    @property
    def pending(self) -> tuple[PendingRequest, ...]:
        """The questions to people that wait for an answer, oldest first.

        After a run that has ended as waiting, those it waits for.
        """
        return self._requests.pending()

    async def respond(self, request_id: str, value: Any) -> Event:
        """Answer a question: ``await run.respond(event.request.id, True)``.

        The answer is recorded as the user's event on the branch that asked, comes out of the
        iteration like any other, and reaches its agent when the reader comes back after it.

        Args:
            request_id: the request's id; or, if no other open request is like that, one of its
                other names, `PendingRequest.names`.
            value: the answer: JSON, or an object that has a JSON form. It must fit the request's
                schema, strictly.

        Raises:
            ResponseRefusedError: no such request is open, it has been answered, or the value
                does not fit. Nothing has changed.
        """
        await self._checkpoint()
        return self._requests.respond(request_id, value)

    # Out of the run.

    async def wait_for(self, predicate: Callable[[Event], bool]) -> Event:
        """Read on until an event is like that, and return it.

        Raises:
            RunEndedError: the run has ended, and none was.
            ReadError: ``predicate`` is no plain function of an event.
        """
        if not callable(predicate) or iscoroutinefunction(predicate):
            message = f"wait_for() takes a plain function of an event, not {predicate!r:.80}"
            raise ReadError(message)
        async for event in self:
            if predicate(event):
                return event
        message = "the run has ended, and no event was what wait_for() waited for"
        raise RunEndedError(message)

    def only(
        self, *, author: str | None = None, branch: str | None = None, partial: bool | None = None
    ) -> AsyncIterator[Event]:
        """Read on, passing over events that are not like that.

        Args:
            author: of this author.
            branch: on this branch, or one forked from it.
            partial: False passes over partial events, True over whole ones.
        """
        return _Only(self, author=author, branch=branch, partial=partial)

    async def collect(self) -> list[Event]:
        """Read to the end, and return what came."""
        return [event async for event in self]

    def __aiter__(self) -> Self:
        return self

    @abstractmethod
    def __anext__(self) -> Coroutine[Any, Any, Event]: ...

    @abstractmethod
    async def _checkpoint(self) -> None:
        """Let others go, as every async function does; and be cancelled, if that is due."""

    def __repr__(self) -> str:
        return f"<Run {self.invocation_id}: {self.status}>"


def core_of(run: RunHandle) -> RunCore:
    """Return what a run stands on. For hosts; nobody else has a use for it."""
    return run._core  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # this is the door


class RunBlock:
    """What `open` returns, and what to say when it is not entered by ``async with``."""

    def __aiter__(self) -> NoReturn:
        message = (
            "a run needs its block: `async with runner.open(...) as run:` and, inside it, "
            "`async for event in run:`"
        )
        raise ReadError(message)

    def __enter__(self) -> NoReturn:
        message = "use `async with runner.open(...) as run:`, not `with`"
        raise ReadError(message)

    def __exit__(self, *_details: object) -> None:
        """Never called; here so that `__enter__` can say what is wrong."""


@final
class _Only:
    """What `Run.only` returns."""

    def __init__(
        self, run: RunHandle, *, author: str | None, branch: str | None, partial: bool | None
    ) -> None:
        self._run = run
        self._author = author
        self._branch = branch
        self._partial = partial

    def __aiter__(self) -> _Only:
        return self

    async def __anext__(self) -> Event:
        async for event in self._run:
            if (
                self._author in (None, event.author)
                and self._partial in (None, event.partial)
                and self._is_on_branch(event.branch)
            ):
                return event
        raise StopAsyncIteration

    def _is_on_branch(self, name: str | None) -> bool:
        if self._branch is None:
            return True
        # By segments: `fan.agent_1` is not above `fan.agent_10`.
        return name is not None and f"{name}.".startswith(f"{self._branch}.")
