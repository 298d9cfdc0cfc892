"""What comes into a running stream: messages to branches.

A message is an event of the user's (or of the agent that sends) on the branch it is for. It is
recorded and delivered like any other, and reaches the agent when the reader comes back after
that: so the log shows what an agent knew, and when. Answers to questions go the same way; see
`parallel_agent.questions`.

Blocking: nothing here makes a sender wait for the reader. The reader sends from inside its own
loop, where waiting for itself would be the end; so what cannot be taken now is refused now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final, final

import attrs
import trio
from trio.lowlevel import ParkingLot, enable_ki_protection

from parallel_agent.activation import Activation
from parallel_agent.branch import Place
from parallel_agent.errors import BranchCancelledError, MessageRefusedError
from parallel_agent.invocation import Invocation
from parallel_agent.lane import QUEUED, Lane, Slot
from parallel_agent.lifecycle import Status
from session.actions import EventActions
from session.content import Content
from session.event import USER, Event, stamp_origin

__all__ = [
    "Inbox",
    "branch_owner",
    "listed",
    "post",
    "put_back",
    "reads",
    "receive",
    "refill",
    "send",
    "send_to",
    "step_outside",
    "wait_outside",
]

_LIVE: Final = (Status.PENDING, Status.RUNNING)

_FEW: Final = 10
"""How many names an error lists."""


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


@enable_ki_protection  # an interrupt half way would leave a slot that nobody fills
def post(
    invocation: Invocation,
    lane: Lane,
    content: Content,
    author: str,
    arrive: Callable[[Event], None],
    *,
    actions: EventActions | None = None,
) -> Event:
    """Put an event in the stream that nobody waits for; ``arrive`` is called when it was read.

    Raises:
        UnstorableError: ``content`` has no JSON form. Nothing has changed.
    """
    event = Event(content, actions=actions)
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
        self._taken: list[tuple[Activation, Event]] = []
        self.readers = ParkingLot()

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
        self.readers.unpark_all()

    def has_message(self) -> bool:
        """Whether there is a message to take."""
        return bool(self._waiting)

    def take(self, taker: Activation) -> Event | None:
        """Take the oldest message; None if somebody else was quicker."""
        if not self._waiting:
            return None
        message = self._waiting.popleft()
        self._taken.append((taker, message))
        return message

    def deliver(self, message: Event) -> None:
        """Hold a message that was sent to this branch before the run was resumed."""
        self._waiting.append(message)

    def received_by(self, top: Activation) -> list[int]:
        """Return the places in the log of what was taken at or below ``top``."""
        return [
            message.seq
            for taker, message in self._taken
            if message.seq is not None and _is_below(taker, top)
        ]

    def put_back(self, top: Activation) -> None:
        """Put back, in order, what was taken at or below ``top``."""
        back = [message for taker, message in self._taken if _is_below(taker, top)]
        self._taken = [one for one in self._taken if not _is_below(one[0], top)]
        self._waiting.extendleft(reversed(back))
        if back:
            self.readers.unpark_all()


def _is_below(activation: Activation, top: Activation) -> bool:
    above: Activation | None = activation
    while above is not None and above is not top:
        above = above.parent
    return above is top


def put_back(activation: Activation) -> None:
    """Put back the messages that a failed attempt has received: the next one waits for them."""
    inbox: Inbox | None = activation.lane.inbox
    if inbox is not None:
        inbox.put_back(activation)


def _inbox(lane: Lane, invocation: Invocation) -> Inbox:
    if lane.inbox is None:
        lane.inbox = Inbox(invocation.config.inbox_size)
    inbox: Inbox = lane.inbox
    return inbox


def send(root: Activation, content: str | Content, to: str | None, *, author: str = USER) -> Event:
    """Send a message to the branch named ``to``; None is the root branch. Does not wait.

    Costs a step for each agent that runs.

    Raises:
        MessageRefusedError: no such branch runs, or its inbox is full.
    """
    if to is not None and not isinstance(to, str):
        message = f"a message is sent to a branch by its name, or to None, not to {to!r:.80}"
        raise MessageRefusedError(message)
    found = _running_branches(root)
    if not found:
        message = "the run has ended, or is about to: nobody is there to read a message"
        raise MessageRefusedError(message)
    lanes = found.get(to, {})
    if not lanes:
        message = f"no branch {to!r} is running ({_beside_the_root(found)}){_hint(root, found, to)}"
        raise MessageRefusedError(message)
    if len(lanes) > 1:
        message = (
            f"{len(lanes)} branches called {to!r} are running: one agent was started twice at the "
            "same time; start it in ctx.open_fan_out(), and send through its handle"
        )
        raise MessageRefusedError(message)
    (activation,) = lanes.values()
    return send_to(activation, content, author=author)


@enable_ki_protection  # or a message would not be counted
def send_to(activation: Activation, content: str | Content, *, author: str = USER) -> Event:
    """Send a message to the branch of ``activation``.

    Raises:
        MessageRefusedError: it has ended, or the branch's inbox is full.
    """
    invocation, lane = activation.invocation, activation.lane
    name = "the root branch" if lane.branch.name is None else f"branch {lane.branch.name!r}"
    if not reads(activation):
        running = _beside_the_root(_running_branches(activation.root))
        message = f"{name} has ended: nobody is there to read a message ({running})"
        raise MessageRefusedError(message)
    if isinstance(content, str):
        content = Content(content, role=USER)
    elif isinstance(content, Content):
        content = attrs.evolve(content, role=USER)
    else:
        message = f"a message is text or a Content, not {type(content).__name__}: {content!r:.80}"
        raise MessageRefusedError(message)
    inbox = _inbox(lane, invocation)
    if inbox.is_full:
        size = invocation.config.inbox_size
        waiting = "1 message waits" if size == 1 else f"{size} messages wait"
        message = (
            f"the inbox of {name} is full: {waiting} for an agent to receive "
            f"{'it' if size == 1 else 'them'} (RunConfig(inbox_size=...))"
        )
        raise MessageRefusedError(message)
    event = post(invocation, lane, content, author, inbox.put, actions=_noted(activation))
    inbox.expect()
    return event


def _noted(activation: Activation) -> EventActions | None:
    """Return what notes whose message it is, in a run that can be resumed."""
    if activation.invocation.journal is None:
        return None
    return EventActions(journal={"message": branch_owner(activation).begun.path})


def branch_owner(activation: Activation) -> Activation:
    """Return the activation that the branch of ``activation`` was made for."""
    while activation.parent is not None and activation.parent.lane is activation.lane:
        activation = activation.parent
    return activation


def refill(activation: Activation, messages: Iterable[Event]) -> None:
    """Let messages wait for the branch of ``activation`` that were sent before it was resumed."""
    inbox = _inbox(activation.lane, activation.invocation)
    for message in messages:
        inbox.deliver(message)


def reads(activation: Activation) -> bool:
    """Whether something that is sent to the branch of ``activation`` may still be read there."""
    lane, stream = activation.lane, activation.invocation.stream
    return activation.status in _LIVE and not (lane.sealed or stream.closed or stream.unread)


def _live(root: Activation) -> Iterator[Activation]:
    line = [root]
    for activation in line:
        if activation.status in _LIVE:
            line.extend(activation.children or ())
            yield activation


def _running_branches(root: Activation) -> dict[str | None, dict[Lane, Activation]]:
    """Return, by name, the branches that a message may be sent to, and an agent on each."""
    found: dict[str | None, dict[Lane, Activation]] = {}
    for activation in _live(root):
        if reads(activation):
            found.setdefault(activation.lane.branch.name, {}).setdefault(
                activation.lane, activation
            )
    return found


def _hint(root: Activation, found: Iterable[str | None], to: str | None) -> str:
    """Say which branch was meant, if a part of its name, or an agent, was given instead."""
    if any(one.agent.name == to and one.lane.branch.name is None for one in _live(root)):
        return f"; {to!r} runs on the root branch: leave out `to`"
    # A name that is only like another is no hint: that may be another branch, which has ended.
    near = sorted(name for name in found if name and name.endswith((f".{to}", f"@{to}")))
    return f"; did you mean {' or '.join(map(repr, near[:_FEW]))}?" if near else ""


def _beside_the_root(found: Iterable[str | None]) -> str:
    names = listed(sorted(name for name in found if name is not None))
    return f"running, beside the root branch: {names or 'none'}"


def listed(names: list[str]) -> str:
    """Return the names as an error lists them: not all, if they are many."""
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(names[:_FEW]) + more


async def receive(activation: Activation) -> Event:
    """Wait for the next message to the branch of ``activation``, and take it."""
    if activation.status is not Status.RUNNING:
        activation.refuse()
    if activation.state.pending:
        await activation.emit(Event())
    inbox = _inbox(activation.lane, activation.invocation)

    async def wait() -> None:
        await wait_outside(activation, inbox.readers, inbox.has_message)

    while True:
        await step_outside(activation, wait)
        message = inbox.take(activation)
        if message is not None:
            return message


@enable_ki_protection  # an interrupt half way would lose a slot, of a limiter that others share
async def step_outside(activation: Activation, wait: Callable[[], Awaitable[None]]) -> None:
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


async def wait_outside(
    activation: Activation, lot: ParkingLot, is_there: Callable[[], bool]
) -> None:
    """Wait in ``lot`` until ``is_there``.

    Raises:
        BranchCancelledError: nobody is left who could end the wait. Otherwise a shield against
            the cancellation would keep the run from ending.
    """
    await trio.lowlevel.checkpoint()
    stream = activation.invocation.stream
    while not is_there():
        if stream.unread or stream.closed:
            message = f"{activation.place.path} waits for somebody outside; the run has been left"
            raise BranchCancelledError(message)
        stream.lots.add(lot)
        try:
            await lot.park()
        finally:
            if not lot:
                stream.lots.discard(lot)
