"""What comes into a running stream: messages to branches, and answers to questions.

Both are events of the user's (or of the agent that sends), on the branch they are for. They are
recorded and delivered like any other, and reach the agent when the reader comes back after that:
so the log shows what an agent knew, and when.

Blocking: nothing here makes a sender wait for the reader. The reader sends from inside its own
loop, where waiting for itself would be the end; so what cannot be taken now is refused now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, final

import attrs
import trio

from parallel_agent.activation import Activation
from parallel_agent.branch import Place
from parallel_agent.errors import (
    AgentTimeoutError,
    MessageRefusedError,
    ResponseRefusedError,
)
from parallel_agent.inputs import to_json
from parallel_agent.invocation import Invocation
from parallel_agent.lane import QUEUED, Lane, Slot
from parallel_agent.lifecycle import Status
from parallel_agent.schema import Schema, SchemaError
from session.content import Content
from session.event import USER, Event, stamp_origin
from session.request import InputRequest, response_content

__all__ = [
    "NO_DEFAULT",
    "Inbox",
    "PendingRequest",
    "Requests",
    "ask",
    "receive",
    "request_input",
    "send",
    "send_to",
]

NO_DEFAULT: Final[Any] = object()
"""The default of a request that has none."""

_LIVE: Final = (Status.PENDING, Status.RUNNING)


@final
class _Posted(Slot):
    """A slot that nobody waits in: its event does something when the reader comes back."""

    __slots__ = ("_arrive",)

    def __init__(self, lane: Lane, arrive: Callable[[Event], None]) -> None:
        super().__init__(lane)
        self._arrive = arrive

    def acknowledge(self) -> None:
        event = self.event
        super().acknowledge()
        if event is not None:
            self._arrive(event)


def _post(
    invocation: Invocation,
    lane: Lane,
    content: Content,
    author: str,
    arrive: Callable[[Event], None],
) -> Event:
    event = Event(content)
    event.seal()
    stamp_origin(event, Place(author, invocation_id=invocation.id, line=lane.branch))
    slot = _Posted(lane, arrive)
    lane.take_in(slot)
    slot.event = event
    slot.state = QUEUED
    stream = invocation.stream
    stream.queue.append(slot)
    stream.announce()
    return event


# Messages.


@final
class Inbox:
    """The messages of one branch: sent, and not received yet."""

    def __init__(self, size: int) -> None:
        """Hold up to ``size`` messages, those counted that are still on their way."""
        self._size = size
        self._on_their_way = 0
        self._waiting: deque[Event] = deque()
        self._readers = trio.lowlevel.ParkingLot()

    @property
    def is_full(self) -> bool:
        """Whether another message would be one too many."""
        return self._on_their_way + len(self._waiting) >= self._size

    def expect(self) -> None:
        """Count a message that has been sent."""
        self._on_their_way += 1

    def put(self, message: Event) -> None:
        """Take in a message that has arrived."""
        self._on_their_way -= 1
        self._waiting.append(message)
        self._readers.unpark_all()

    async def wait(self) -> None:
        """Wait until there is a message."""
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            await self._readers.park()

    def take(self) -> Event | None:
        """Take the oldest message; None if somebody else was quicker."""
        return self._waiting.popleft() if self._waiting else None


def _inbox(lane: Lane, invocation: Invocation) -> Inbox:
    if lane.inbox is None:
        lane.inbox = Inbox(invocation.config.inbox_size)
    inbox: Inbox = lane.inbox
    return inbox


def send(root: Activation, content: str | Content, to: str | None, *, author: str = USER) -> Event:
    """Send a message to the branch named ``to``; None is the root branch. Does not wait.

    Raises:
        MessageRefusedError: no such branch runs, or its inbox is full.
    """
    found: dict[str | None, Activation] = {}
    for activation in _live(root):
        found.setdefault(activation.lane.branch.name, activation)
    if to not in found:
        names = ", ".join(sorted(name for name in found if name is not None)) or "none"
        message = f"no branch {to!r} is running (running, beside the root branch: {names})"
        raise MessageRefusedError(message)
    return send_to(found[to], content, author=author)


def send_to(activation: Activation, content: str | Content, *, author: str = USER) -> Event:
    """Send a message to the branch of ``activation``.

    Raises:
        MessageRefusedError: it has ended, or the branch's inbox is full.
    """
    invocation, lane = activation.invocation, activation.lane
    name = "the root branch" if lane.branch.name is None else f"branch {lane.branch.name!r}"
    if activation.status not in _LIVE or lane.sealed or invocation.stream.closed:
        message = f"{name} has ended: nobody is there to read a message"
        raise MessageRefusedError(message)
    if isinstance(content, str):
        content = Content(content, role=USER)
    elif not isinstance(content, Content):
        message = f"a message is text or a Content, not {type(content).__name__}: {content!r:.80}"
        raise MessageRefusedError(message)
    inbox = _inbox(lane, invocation)
    if inbox.is_full:
        message = (
            f"the inbox of {name} is full: {invocation.config.inbox_size} messages wait for an "
            "agent to receive them (RunConfig(inbox_size=...))"
        )
        raise MessageRefusedError(message)
    event = _post(invocation, lane, content, author, inbox.put)
    inbox.expect()
    return event


def _live(root: Activation) -> list[Activation]:
    line = [root] if root.status in _LIVE else []
    for activation in line:
        line.extend(child for child in activation.children or () if child.status in _LIVE)
    return line


async def receive(activation: Activation) -> Event:
    """Wait for the next message to the branch of ``activation``, and take it."""
    if activation.status is not Status.RUNNING:
        activation.refuse()
    await activation.flush()
    inbox = _inbox(activation.lane, activation.invocation)
    while True:
        await _aside(activation, inbox.wait)
        message = inbox.take()
        if message is not None:
            return message


async def _aside(activation: Activation, wait: Callable[[], Any]) -> None:
    """Wait for somebody outside: without a slot, and without being idle."""
    idle = activation.idle
    activation.slots.step_aside()
    if idle is not None:
        idle.pause()
    try:
        await wait()
    except BaseException:
        activation.slots.stay_aside()
        raise
    finally:
        if idle is not None:
            idle.resume()
    await activation.slots.step_back()


# Requests for input.


@attrs.frozen
class PendingRequest:
    """A question that a person has not answered yet.

    Attributes:
        id: to be given with the answer: ``await run.respond(id, value)``.
        prompt: the question.
        schema: what the answer must be, as JSON Schema; None if anything will do.
        author: the agent that asks.
        branch: the branch it asks on; None for the root branch.
        path: its activation.
    """

    id: str
    prompt: str
    schema: Any
    author: str
    branch: str | None
    path: str


@attrs.define(eq=False)
class _Open:
    shown: PendingRequest
    schema: Schema[Any] | None
    activation: Activation
    answered: bool = False
    arrived: trio.Event = attrs.field(factory=trio.Event)
    answer: Any = None


@final
class Requests:
    """The questions of one run."""

    def __init__(self) -> None:
        """Nothing has been asked yet."""
        self._open: dict[str, _Open] = {}
        self._closed: dict[str, str] = {}

    def pending(self) -> tuple[PendingRequest, ...]:
        """Return what waits for an answer, oldest first."""
        return tuple(one.shown for one in self._open.values() if not one.answered)

    def add(self, one: _Open) -> None:
        """Take in a question."""
        self._open[one.shown.id] = one

    def close(self, one: _Open, why: str) -> None:
        """Let go of a question that can no longer be answered, or has been."""
        self._open.pop(one.shown.id, None)
        self._closed[one.shown.id] = why

    def respond(self, request_id: str, value: Any) -> Event:
        """Answer a question. Does not wait; see `Run.respond`."""
        one = self._find(request_id)
        if one.answered:
            message = f"request {request_id!r} has been answered already"
            raise ResponseRefusedError(message)
        try:
            plain = to_json(value)
            answer = plain if one.schema is None else one.schema.structure(plain)
        except (SchemaError, ValueError) as exc:
            message = f"the answer to request {one.shown.id!r} ({one.shown.prompt!r:.80}): {exc}"
            raise ResponseRefusedError(message) from None
        activation = one.activation
        if activation.lane.sealed or activation.invocation.stream.closed:
            message = f"request {request_id!r} can no longer be answered: its branch has ended"
            raise ResponseRefusedError(message)

        def arrive(_event: Event) -> None:
            one.answer = answer
            one.arrived.set()

        content = response_content(one.shown.id, plain, role=USER)
        event = _post(activation.invocation, activation.lane, content, USER, arrive)
        one.answered = True
        return event

    def _find(self, request_id: str) -> _Open:
        one = self._open.get(request_id)
        if one is not None:
            return one
        if request_id in self._closed:
            message = f"request {request_id!r} {self._closed[request_id]}"
            raise ResponseRefusedError(message)
        # Its path, or its agent, will do if nobody else's is like that.
        short = [
            found
            for full, found in self._open.items()
            if request_id in (full.partition(":")[2], found.shown.path, found.shown.author)
        ]
        if len(short) == 1:
            return short[0]
        known = ", ".join(repr(full) for full in self._open) or "none"
        what = "is ambiguous" if short else "is not known"
        message = f"request {request_id!r} {what} (open: {known})"
        raise ResponseRefusedError(message)


async def ask(
    activation: Activation, prompt: str, schema: Any = None, timeout: float | None = None
) -> tuple[str, Any]:
    """Ask a person, and wait for the answer.

    Returns ``("answered", value)``, ``("expired", None)`` when time was over, or
    ``("suspended", None)`` if nobody has answered and the run is not to wait.
    """
    invocation = activation.invocation
    requests: Requests = invocation.requests
    place = activation.place
    checked = None if schema is None else schema if isinstance(schema, Schema) else Schema(schema)
    number = activation.next_number("#request")
    request = InputRequest(
        f"{invocation.id}:{place.path}#{number}",
        prompt,
        None if checked is None else checked.json_schema(),
    )
    shown = PendingRequest(
        request.id, prompt, request.schema, place.author, place.branch, place.path
    )
    one = _Open(shown, checked, activation)
    requests.add(one)
    why = "was withdrawn: its agent was cancelled"
    try:
        await activation.emit(Event(request.to_content(), long_running_tool_ids=(request.id,)))
        if invocation.config.on_wait == "suspend" and not one.answered:
            why = "is left to the next run: this one is being suspended"
            return "suspended", None

        async def wait() -> None:
            # An answer that has been given counts, if it takes until the reader is back.
            with trio.move_on_after(timeout if timeout is not None else float("inf")):
                await one.arrived.wait()
            if one.answered:
                await one.arrived.wait()

        await _aside(activation, wait)
        if one.arrived.is_set():
            why = "has been answered already"
            return "answered", one.answer
        why = "was not answered in time"
        return "expired", None
    finally:
        requests.close(one, why)


async def request_input(
    activation: Activation, prompt: str, schema: Any, timeout: float | None, default: Any
) -> tuple[bool, Any]:
    """See `InvocationContext.request_input`; the first value says whether to suspend instead."""
    how, answer = await ask(activation, prompt, schema, timeout)
    if how == "expired":
        if default is NO_DEFAULT:
            place = activation.place
            raise AgentTimeoutError(place.path, place.branch, "request_input", timeout or 0.0)
        return False, default
    return how == "suspended", answer
