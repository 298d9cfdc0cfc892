"""Questions to people: asked by an agent in the middle of its work, answered into the stream.

A question is an event of the agent's, the answer one of the user's on the same branch. Both are
recorded and delivered like any other; the answer reaches the agent when the reader comes back
after it. The form of both is in `session.request`.

Blocking: answering does not wait for the reader, who may do it inside its loop; see
`parallel_agent.post`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias, final

import attrs
import trio
from trio.lowlevel import ParkingLot, checkpoint, enable_ki_protection

from parallel_agent.activation import Activation
from parallel_agent.branch import Place
from parallel_agent.errors import AgentTimeoutError, RequestError, ResponseRefusedError
from parallel_agent.inputs import to_json
from parallel_agent.lifecycle import Status
from parallel_agent.past import Asked
from parallel_agent.post import listed, post, reads, step_outside, wait_outside
from parallel_agent.schema import Schema, SchemaError
from session.event import USER, Event
from session.request import InputRequest, response_content
from session.session import Session

__all__ = ["NO_DEFAULT", "PendingRequest", "Requests", "ask", "request_input"]

NO_DEFAULT: Final[Any] = object()
"""The default of a request that has none."""

Answer: TypeAlias = tuple[Literal["answered", "expired", "dropped", "suspended", "nobody"], Any]
"""What became of a question; the second is None unless it was answered."""


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
        names: what may be given instead of the id, if no other open question is like that: the
            id without the invocation, the path, the agent's name; and, if the question is what to
            do about a branch that has failed, the path and the agent of that branch.
        problem: why the answer that it got before the run was resumed did not fit, if it got one.
    """

    id: str
    prompt: str
    schema: Any
    author: str
    branch: str | None
    path: str
    names: tuple[str, ...] = attrs.field(default=(), eq=False, repr=False)
    problem: str | None = None


@attrs.define(eq=False)
class _Open:
    shown: PendingRequest
    short: str
    schema: Schema[Any] | None
    activation: Activation
    about: str  # the path of the activation that it is about: the one that asks, or has failed
    asked_at: int = -1  # its place in the log
    answered: bool = False
    arrived: bool = False
    answer: Any = None
    waiting: ParkingLot = attrs.field(factory=ParkingLot)

    def is_called(self, name: str) -> bool:
        return name in self.shown.names

    def can_be_answered(self) -> bool:
        return not self.answered and reads(self.activation)

    def has_arrived(self) -> bool:
        return self.arrived

    def is_waited_for(self) -> bool:
        """Whether the run has ended because nobody has answered."""
        above: Activation | None = self.activation
        while above is not None and above.status is Status.WAITING:
            above = above.parent
        return above is None


@final
class Requests:
    """The questions of one run.

    A question is there for people once its event has been handed out: not while it is on its
    way, and never if somebody dropped it.
    """

    def __init__(self, session: Session) -> None:
        """Nothing has been asked yet; what is asked will be in the log of ``session``."""
        self._session = session
        self._looked_at = len(session.events)
        self._on_their_way: dict[str, _Open] = {}
        self._open: dict[str, _Open] = {}
        self._closed: dict[str, str] = {}
        self._left: dict[str, _Open] = {}  # unanswered, by agents that have ended as waiting

    def pending(self) -> tuple[PendingRequest, ...]:
        """Return what waits for an answer, oldest first; of an ended run, what it waits for."""
        self._catch_up()
        waiting = [one for one in self._open.values() if one.can_be_answered()]
        return tuple(one.shown for one in waiting or self._waited_for())

    def why_waiting(self) -> str | None:
        """Return in short what the run waits for, if it has ended as waiting."""
        names = [one.short for one in self._waited_for()]
        return f"unanswered: {listed(names)}" if names else None

    def _waited_for(self) -> list[_Open]:
        left = [one for one in self._left.values() if one.is_waited_for()]
        return sorted(left, key=lambda one: one.asked_at)

    def leave(self, one: _Open) -> None:
        """Keep a question, now closed, that the next run is to be asked."""
        self._left[one.shown.id] = one

    def let_go(self, paths: Sequence[str]) -> None:
        """Forget what was left by the branches of those paths: nobody waits for them any more."""
        roots = tuple(f"{path}/" for path in paths)
        for one in [one for one in self._left.values() if f"{one.about}/".startswith(roots)]:
            del self._left[one.shown.id]

    def leave_again(self, activation: Activation, event: Event) -> None:
        """Keep a question that was asked before the run was resumed, and is unanswered."""
        request = event.request
        if request is not None:
            short = request.id.partition(":")[2]
            shown = _shown(activation.place, request, (short,))
            one = _Open(shown, short, None, activation, activation.place.path)
            one.asked_at = event.seq or 0
            self._left[request.id] = one

    def add(self, one: _Open) -> None:
        """Take in a question that is about to be asked."""
        if not self._on_their_way:
            self._looked_at = len(self._session.events)
        self._on_their_way[one.shown.id] = one

    def is_open(self, one: _Open) -> bool:
        """Whether people can see the question."""
        self._catch_up()
        return one.shown.id in self._open

    def close(self, one: _Open, why: str) -> None:
        """Let go of a question that can no longer be answered, or has been."""
        self._on_their_way.pop(one.shown.id, None)
        self._open.pop(one.shown.id, None)
        self._closed[one.shown.id] = self._closed[one.short] = why

    def respond(self, request_id: str, value: Any) -> Event:
        """Answer a question. Does not wait; see `Run.respond`."""
        one = self._find(request_id)
        try:
            plain = to_json(value)
            answer = plain if one.schema is None else one.schema.structure(plain)
        except (SchemaError, ValueError) as exc:
            message = f"the answer to request {one.shown.id!r} ({one.shown.prompt!r:.80}): {exc}"
            raise ResponseRefusedError(message) from None
        if not reads(one.activation):
            message = f"request {request_id!r} can no longer be answered: its branch has ended"
            raise ResponseRefusedError(message)
        return self._accept(one, plain, answer)

    @enable_ki_protection  # an interrupt half way would let it be answered again
    def _accept(self, one: _Open, plain: Any, answer: Any) -> Event:
        def arrive(_event: Event) -> None:
            one.arrived = True
            one.waiting.unpark_all()

        one.answer = answer
        activation = one.activation
        content = response_content(one.shown.id, plain, role=USER)
        event = post(activation.invocation, activation.lane, content, USER, arrive)
        one.answered = True
        return event

    def _find(self, request_id: object) -> _Open:
        self._catch_up()
        if not isinstance(request_id, str):
            message = f"an answer names its request by its id, event.request.id, not {request_id!r}"
            raise ResponseRefusedError(message)
        one = self._open.get(request_id)
        # Its path, or its agent, will do if nobody else's is like that.
        short = [] if one is not None else self._called(request_id, answered=False)
        if len(short) == 1:
            return short[0]
        if one is not None and not one.answered:
            return one
        if short:
            what = "is ambiguous"
        elif one is not None or self._called(request_id, answered=True):
            what = "has been answered already"
        elif any(request_id in (one.shown.id, *one.shown.names) for one in self._waited_for()):
            what = "is left to the next run: this one has ended"
        else:
            what = self._closed.get(request_id, "is not known")
        open_ones = [repr(full) for full, other in self._open.items() if not other.answered]
        message = f"request {request_id!r} {what} (open: {listed(open_ones) or 'none'})"
        raise ResponseRefusedError(message)

    def _called(self, name: str, *, answered: bool) -> list[_Open]:
        return [
            one for one in self._open.values() if one.answered is answered and one.is_called(name)
        ]

    def _catch_up(self) -> None:
        """Find out which questions have been handed out meanwhile."""
        if not self._on_their_way:
            return
        events = self._session.events
        for position in range(self._looked_at, len(events)):
            request = events[position].request
            one = None if request is None else self._on_their_way.pop(request.id, None)
            if request is not None and one is not None:
                # As it was recorded: a plugin may have put it in other words.
                one.shown = attrs.evolve(one.shown, prompt=request.prompt)
                one.asked_at = position
                self._open[request.id] = one
        self._looked_at = len(events)


async def ask(
    activation: Activation,
    prompt: str,
    schema: Any = None,
    timeout: float | None = None,
    *,
    failed: Place | None = None,
    key: str | None = None,
) -> Answer:
    """Ask a person, and wait for the answer; ``failed`` is where the branch is that it is about.

    ``key`` names the question in its activation; without one, it is counted.

    ``expired`` is said when time was over, ``suspended`` if nobody has answered and the run is
    not to wait, ``dropped`` if a plugin, or an agent that reads the events of this one, has let
    nobody see the question, ``nobody`` if nobody holds the run who could answer.

    Raises:
        RequestError: the prompt is no text, or the time is none.
        SchemaTypeError: there is no telling what fits the schema.
    """
    _check_question(prompt, timeout)
    invocation = activation.invocation
    requests: Requests = invocation.requests
    place = activation.place
    checked = _schema_of(schema)
    if failed is None:
        about, short = place.path, f"{place.path}#{key or activation.next_number('#request')}"
    else:
        # No number: which of several branches fails first is not the same in every run.
        about, short = failed.path, f"{failed.path}#failed"
    request = InputRequest(
        f"{invocation.id}:{short}", prompt, None if checked is None else checked.json_schema()
    )
    names = (short,) if failed is None else (short, failed.path, failed.author)
    one = _Open(_shown(place, request, names), short, checked, activation, about)
    if invocation.replay is not None:
        known = await _known(one, request)
        if known is not None:
            return known
    requests.add(one)
    why = "was withdrawn: its agent was cancelled"
    try:
        await activation.emit(Event(request.to_content(), long_running_tool_ids=(request.id,)))
        if not requests.is_open(one):
            why = "was dropped: nobody has seen it"
            return "dropped", None
        if invocation.config.on_wait == "suspend" and not one.answered:
            why = "is left to the next run: this one is being suspended"
            requests.leave(one)
            return "suspended", None
        if not invocation.attended:
            why = "cannot be answered: nobody holds the run"
            return "nobody", None

        async def wait() -> None:
            with trio.move_on_after(math.inf if timeout is None else timeout):
                await wait_outside(activation, one.waiting, one.has_arrived)
            if one.answered:
                # An answer that has been given counts, if it takes until the reader is back.
                await wait_outside(activation, one.waiting, one.has_arrived)

        await step_outside(activation, wait)
        if one.arrived:
            why = "has been answered already"
            return "answered", one.answer
        why = "was not answered in time"
        return "expired", None
    finally:
        requests.close(one, why)


def _shown(place: Place, request: InputRequest, names: tuple[str, ...]) -> PendingRequest:
    names = (names[0], place.path, place.author, *names[1:])
    return PendingRequest(
        request.id, request.prompt, request.schema, place.author, place.branch, place.path, names
    )


async def _known(one: _Open, request: InputRequest) -> Answer | None:
    """Return what became of a question that was asked before the run was resumed.

    None if it is to be asked (again): it is another question, nobody has answered and somebody
    may, or the answer does not fit.
    """
    invocation = one.activation.invocation
    asked: Asked | None = invocation.replay.asked(request.id)
    if asked is None:
        return None
    await checkpoint()
    is_other = asked.event.request != request
    if asked.answer is not None and not is_other:
        try:
            answer = asked.value
            return "answered", answer if one.schema is None else one.schema.structure(answer)
        except SchemaError as exc:
            one.shown = attrs.evolve(one.shown, problem=str(exc))
    # Asked again, one whose answer did not fit is open again: nobody could answer it otherwise.
    if invocation.config.on_wait == "suspend" and asked.answer is None and not is_other:
        one.asked_at = asked.event.seq or 0
        invocation.requests.leave(one)
        invocation.replay.show_again(one.activation, asked.event)
        return "suspended", None
    for event in asked.events:
        invocation.replay.hide(event)
    return None


def _schema_of(schema: Any) -> Schema[Any] | None:
    if isinstance(schema, Schema):
        known: Schema[Any] = schema  # pyright: ignore[reportUnknownVariableType]  # of whatever
        return known
    return None if schema is None else Schema(schema)


def _check_question(prompt: object, timeout: object) -> None:
    if not isinstance(prompt, str):
        message = f"the prompt of request_input() is text, not {prompt!r:.80}"
        raise RequestError(message)
    if timeout is None:
        return
    longest = sys.float_info.max  # a whole number can be too large for a float
    if not isinstance(timeout, int | float) or type(timeout) is bool or not 0 <= timeout <= longest:
        message = f"the timeout of request_input() is seconds, 0 or more, or None, not {timeout!r}"
        raise RequestError(message)


async def request_input(
    activation: Activation,
    prompt: str,
    schema: Any,
    timeout: float | None,
    default: Any,
    *,
    key: str | None = None,
) -> tuple[bool, Any]:
    """See `InvocationContext.request_input`; the first value says whether to suspend instead."""
    how, answer = await ask(activation, prompt, schema, timeout, key=key)
    if how in ("expired", "dropped", "nobody") and default is not NO_DEFAULT:
        return False, default
    place = activation.place
    if how == "expired":
        raise AgentTimeoutError(place.path, place.branch, "request_input", timeout or 0.0)
    if how == "dropped":
        message = (
            f"the question of {place.path} ({prompt!r:.80}) was dropped by a plugin, or by an "
            "agent that reads its events: nobody can answer it; let events with event.request "
            "pass, or give request_input() a default"
        )
        raise RequestError(message)
    if how == "nobody":
        message = (
            f"nobody can answer the question of {place.path} ({prompt!r:.80}): Runner.run() hands "
            "out no run to respond to; use Runner.open(), give request_input() a default, or run "
            'with RunConfig(on_wait="suspend")'
        )
        raise RequestError(message)
    return how == "suspended", answer
