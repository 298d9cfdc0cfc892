"""A run, as plain Python reads it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial
from typing import Any, NoReturn, TypeVar, cast, final

from parallel_agent.barrier import Outcome
from parallel_agent.errors import ReadError
from parallel_agent.handle import RunCore, RunHandle, core_of
from parallel_agent.lifecycle import Status
from parallel_agent.questions import PendingRequest
from parallel_agent.result import Result, RunStatistics
from parallel_agent.sync.interrupts import uninterrupted
from parallel_agent.sync.served import Served
from session.content import Content
from session.event import Event

__all__ = ["Run"]

_T = TypeVar("_T")


@final
class Run:
    """A run in plain Python, inside its block: an iterator of events, and a handle on what runs.

    As `parallel_agent.Run`, of which it has all methods, none of them async. It is read in one
    thread; its other methods may be called in any, a "stop" button's for instance.
    """

    def __init__(self, served: Served, handle: RunHandle) -> None:
        """Made by `Runner.open`."""
        self._served = served
        self._core = core_of(handle)
        self._handle = _Handle(self._core, served.next)

    @property
    def invocation_id(self) -> str:
        """The run's id."""
        return self._handle.invocation_id

    @property
    def session_id(self) -> str:
        """The session it runs in."""
        return self._handle.session_id

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
            message = "run.result is there when the `with` block has ended"
            raise ReadError(message)
        return self._core.result

    def statistics(self) -> RunStatistics:
        """Return how many events were delivered, and how many activations stand how."""
        return cast("RunStatistics", self._served.ask(self._handle.statistics))

    def outcomes(self, name: str) -> tuple[Outcome, ...]:
        """Return how the branches of the fan-out ``name`` ended, in declaration order.

        Of its newest activation; also when it failed.

        Raises:
            KeyError: no fan-out of that name has ended.
        """
        ask = partial(self._handle.outcomes, name)
        return cast("tuple[Outcome, ...]", self._served.ask(ask))

    def cancel(self, reason: str = "cancelled by run.cancel()") -> None:
        """Cancel every agent of the run. Does not wait: go on iterating, or leave the block.

        Iteration ends ordinarily, when every agent has cleaned up; what they record while doing
        so is still delivered. ``result.status`` is then ``"cancelled"``, never a success.
        """
        self._served.ask(partial(self._handle.cancel, reason))

    # Into the run.

    def send(self, content: str | Content, *, to: str | None = None) -> Event:
        """Send a message to the branch named ``to``; None is the root branch.

        It is recorded as the user's event on that branch, comes out of the iteration like any
        other, and is there for ``ctx.receive()`` when the reader comes back after it.

        Raises:
            MessageRefusedError: no such branch is running, or its inbox is full. Nothing changed.
        """
        return cast("Event", self._served.ask(lambda: _value(self._handle.send(content, to=to))))

    @property
    def pending(self) -> tuple[PendingRequest, ...]:
        """The questions to people that wait for an answer, oldest first.

        After a run that has ended as waiting, those it waits for.
        """
        ask = partial(getattr, self._handle, "pending")
        return cast("tuple[PendingRequest, ...]", self._served.ask(ask))

    def respond(self, request_id: str, value: Any) -> Event:
        """Answer a question: ``run.respond(event.request.id, True)``.

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

        def respond() -> Event:
            return _value(self._handle.respond(request_id, value))

        return cast("Event", self._served.ask(respond))

    # Out of the run.

    def wait_for(self, predicate: Callable[[Event], bool]) -> Event:
        """Read on until an event is like that, and return it.

        Raises:
            RunEndedError: the run has ended, and none was.
            ReadError: ``predicate`` is no plain function of an event.
        """
        return _value(self._handle.wait_for(predicate))

    def only(
        self, *, author: str | None = None, branch: str | None = None, partial: bool | None = None
    ) -> Iterator[Event]:
        """Read on, passing over events that are not like that.

        Args:
            author: of this author.
            branch: on this branch, or one forked from it.
            partial: False passes over partial events, True over whole ones.
        """
        events = self._handle.only(author=author, branch=branch, partial=partial)
        while True:
            try:
                event = _value(_next(events))
            except StopAsyncIteration:
                return
            yield event

    def collect(self) -> list[Event]:
        """Read to the end, and return what came."""
        return list(self)

    def __iter__(self) -> Run:
        return self

    @uninterrupted
    def __next__(self) -> Event:
        try:
            return self._served.next()
        except StopAsyncIteration:
            raise StopIteration from None

    def __aiter__(self) -> NoReturn:
        message = "use `for event in run:`, not `async for`"
        raise ReadError(message)

    def __repr__(self) -> str:
        return f"<sync.Run {self.invocation_id}: {self.status}>"


@final
class _Handle(RunHandle):
    """The handle that every host has. Its coroutines never suspend: they block instead."""

    def __init__(self, core: RunCore, read: Callable[[], Event]) -> None:
        super().__init__(core)
        self._read = read

    async def __anext__(self) -> Event:
        return self._read()

    async def _checkpoint(self) -> None:
        pass


def _value(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Return what a coroutine returns that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return cast("_T", stop.value)
    message = "it has suspended"
    raise AssertionError(message)


async def _next(events: AsyncIterator[Event]) -> Event:
    return await anext(events)
