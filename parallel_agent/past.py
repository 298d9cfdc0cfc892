"""What the log says of a run that is to go on: what has ended, and how; what was noted and asked.

The runtime notes a resumable run in *records*: events of the kind ``start``, ``end``, ``attempt``,
``checkpoint``, ``intent``, ``effect``, ``resumed`` and ``refused``, which say nothing to agents or
readers. What stands in them is written by `parallel_agent.journal`.

An event is *kept* if an activation at or above its own has ended, or a checkpoint of its own came
after it. Everything else is of executions that were cut off, and will be done again: it is *void*.
Questions, answers and messages are kept in any case, but not what was written with a question.

Pure: no event loop, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from parallel_agent.lifecycle import Status
from parallel_agent.records import (
    checked,
    is_of_others,
    next_attempt,
    refused_events,
    stands_anyway,
    state_without,
)
from session.content import FunctionResponse
from session.event import USER, Event
from session.request import REQUEST_INPUT

__all__ = [
    "Asked",
    "Checkpoint",
    "Ended",
    "Failure",
    "Past",
    "bare",
    "parent_path",
]


def bare(path: str) -> str:
    """Return a path without the numbers of attempts: the same for each attempt."""
    return "/".join(segment.partition("~")[0] for segment in path.split("/"))


def parent_path(path: str) -> str:
    """Return the path of the activation that started the one at ``path``."""
    return path.rpartition("/")[0]


@attrs.frozen(eq=False)
class Failure:
    """What is noted of a failure.

    Attributes:
        kind: the class, with its module: ``builtins.ValueError``.
        message: what it said.
    """

    kind: str
    message: str


@attrs.define(eq=False)
class Ended:
    """How an activation has ended, as noted.

    Attributes:
        begun: its path at its start, which may be that of a second attempt.
        path: its path at its end.
        seq: the place of the record in the log; that of the decision, if it is ``cut_off``.
        cut_off: a sibling's decision was to end it; what it did about that is not recorded.
        given_up: it had used up its attempts.
        input: the digest of what it was given, if it was given something of its own.
        escalated: ``"own"`` if an event of its own escalated, ``"below"`` if one passed through it.
    """

    begun: str
    path: str
    seq: int
    status: Status
    output: Any = None
    failure: Failure | None = None
    own: bool = False
    given_up: bool = False
    attempts: int = 1
    duration: float = 0.0
    input: str | None = None
    escalated: str | None = None
    route: Any = None
    cut_off: bool = False
    parts: list[Event | Ended] = attrs.field(factory=list["Event | Ended"])

    def events(self) -> Iterator[Event]:
        """Yield what was recorded at and below it, in no order."""
        line: list[Ended] = [self]
        for ended in line:
            for part in ended.parts:
                if isinstance(part, Ended):
                    line.append(part)
                else:
                    yield part


@attrs.frozen(eq=False)
class Checkpoint:
    """What an activation noted of its own progress.

    Attributes:
        numbers: how often it had started which agent, and asked.
        received: the messages it had received, by their places in the log.
        layer: what its attempt had written; plain values, then contributions.
    """

    seq: int
    value: Any
    numbers: Mapping[str, int]
    layer: Mapping[str, Any]
    added: Mapping[str, Sequence[Any]]


@attrs.define(eq=False)
class Asked:
    """A question that was recorded, and its answer if there is one."""

    event: Event
    path: str
    answer: Event | None = None
    value: Any = None

    @property
    def events(self) -> list[Event]:
        """The question, and the answer if there is one."""
        return [self.event] if self.answer is None else [self.event, self.answer]

    @property
    def names(self) -> tuple[str, ...]:
        """What it is called, beside its id: see `parallel_agent.questions.PendingRequest`."""
        request = self.event.request
        short = "" if request is None else request.id.partition(":")[2]
        names = (short, self.path, self.event.author)
        if self.is_of_its_agent:
            return names
        failed = short.removesuffix("#failed")
        agent = failed.rpartition("/")[2].partition("~")[0].partition("@")[0]
        return (*names, failed, agent)

    @property
    def is_of_its_agent(self) -> bool:
        """Whether its agent itself asks; not so if it is about a branch that has failed."""
        request = self.event.request
        return request is not None and not request.id.endswith("#failed")


@attrs.define(eq=False)
class _Node:
    """What is known of an activation that has not ended, and of those below it."""

    undecided: list[Event] = attrs.field(factory=list[Event])
    kept: list[Event] = attrs.field(factory=list[Event])
    ended: list[Ended] = attrs.field(factory=list[Ended])
    below: dict[str, _Node] = attrs.field(factory=dict[str, "_Node"])

    def all(self) -> Iterator[_Node]:
        line: list[_Node] = [self]
        for node in line:
            line.extend(node.below.values())
            yield node

    def parts(self) -> list[Event | Ended]:
        parts: list[Event | Ended] = []
        for node in self.all():
            parts += [*node.kept, *node.undecided, *node.ended]
        return parts


class Past:
    """What the events of one run say, read in their order.

    Attributes:
        message: the event of what the user said, if the run was started with something.
        start: the record of the start; None if the run was not resumable.
        until: the number of its last event.
        executions: how often it was begun or resumed.
        void: the numbers of the events that are of no account.
        taken_back: the numbers of questions that stand, though what was written with them does not.
        outputs: the newest output of each agent that completed.
        outcomes: by path, what fan-outs recorded of their branches.
        messages: by the path of who owns the branch, what was sent to it.
        received: the numbers of the messages that were received for good.
    """

    def __init__(self, events: Iterable[Event]) -> None:
        """Read the events of one run, oldest first.

        Raises:
            StoreCorruptError: a record is damaged; the message names it.
        """
        self.message: Event | None = None
        self.start: Event | None = None
        self.until = 0
        self.executions = 1
        self.void: set[int] = set()
        self.taken_back: set[int] = set()
        self.outputs: dict[str, Any] = {}
        self.outcomes: dict[str, Event] = {}
        self.messages: dict[str, list[Event]] = {}
        self.received: set[int] = set()
        self.requests: dict[str, Asked] = {}
        self._asked_at: dict[str, dict[str, Asked]] = {}
        self.escalations: dict[str, int] = {}
        self._root = _Node()
        self._ended: dict[str, Ended] = {}
        self._children: dict[str, list[Ended]] = {}
        self._cut_off: dict[str, int] = {}
        self._attempts: set[str] = set()
        self._checkpoints: dict[str, Checkpoint] = {}
        self._effects: dict[tuple[str, str], tuple[str, Any]] = {}
        self._log: list[Event] = []
        self._cut_at = 0  # where the newest execution begins
        events = list(events)
        refused = refused_events(events)
        for event in events:
            self._log.append(event)
            self.until = event.seq or self.until
            if event.seq in refused and not stands_anyway(event):
                self.void.add(event.seq or 0)
            else:
                self._read(event)
        self._cut()

    # Reading.

    def _read(self, event: Event) -> None:
        journal = checked(event)
        kind = journal.get("kind")
        if kind is not None:
            self._read_record(event, journal, kind)
            return
        for path in journal.get("ends", ()):
            self._cut_off.setdefault(path, event.seq or 0)
        if event.author == USER and not event.path and self.message is None:
            self.message = event
        elif "message" in journal:
            owner = journal["message"]
            self.messages.setdefault(owner, []).append(event)
            self._node(owner).kept.append(event)
        elif event.request is not None:
            self._read_question(event, event.request.id)
        elif not self._read_answer(event):
            self._node(event.path).undecided.append(event)
            if event.escalate:
                above, slash, segment = event.path.rpartition("/")
                path = f"{above}{slash}{segment.partition('~')[0]}"
                self.escalations.setdefault(path, event.seq or 0)
            if event.actions.outcomes:
                self.outcomes[event.path] = event

    def _read_question(self, event: Event, request_id: str) -> None:
        node = self._node(event.path)
        before = self.requests.get(request_id)
        if before is not None:
            # Asked again by a later execution, because nobody had answered, or in other words.
            self._void(before.events)
            node.kept = [one for one in node.kept if one not in before.events]
            del self._asked_at[before.path][request_id]
        asked = self.requests[request_id] = Asked(event, event.path)
        self._asked_at.setdefault(event.path, {})[request_id] = asked
        node.undecided.append(event)

    def _read_answer(self, event: Event) -> bool:
        content = event.content
        if event.author != USER or content is None:
            return False
        for part in content.parts:
            if isinstance(part, FunctionResponse) and part.name == REQUEST_INPUT and part.id:
                asked = self.requests.get(part.id)
                if asked is not None:
                    asked.answer = event
                    asked.value = part.response.get("result")
                    self._node(asked.path).kept.append(event)
                    return True
        return False

    def _read_record(self, event: Event, journal: Mapping[str, Any], kind: str) -> None:
        match kind:
            case "start":
                self.start = event
            case "resumed":
                self.executions += 1
                self._cut_at = event.seq or 0
                self._cut()
            case "end":
                self._read_end(event, journal)
            case "attempt":
                self._read_attempt(event)
            case "checkpoint":
                self._read_checkpoint(event, journal)
            case "intent":
                self._effects[bare(event.path), journal["key"]] = ("unknown", None)
            case "effect":
                self._read_effect(event, journal)
            case _:  # of a later release, which has something to add
                pass

    def _read_end(self, event: Event, journal: Mapping[str, Any]) -> None:
        error = journal.get("error")
        ended = Ended(
            begun=journal.get("begun", event.path),
            path=event.path,
            seq=event.seq or 0,
            status=Status(journal["status"]),
            output=event.output,
            failure=None if error is None else Failure(error["kind"], error["message"]),
            own=journal.get("own", False),
            given_up=journal.get("given_up", False),
            attempts=journal.get("attempts", 1),
            duration=journal.get("duration", 0.0),
            input=journal.get("input"),
            escalated=journal.get("escalated"),
            route=event.route,
        )
        self.received.update(journal.get("received", ()))
        for path in journal.get("ends", ()):
            self._cut_off.setdefault(path, ended.seq)
        self._end(ended)
        if ended.status is Status.COMPLETED:
            self.outputs[event.author] = ended.output

    def _end(self, ended: Ended) -> None:
        # At its beginning stand the messages to it, whichever attempt it was at.
        for path in dict.fromkeys((ended.begun, ended.path)):
            node = self._take(path)
            if node is not None:
                for one in node.all():
                    self._forget_questions(one)
                ended.parts += node.parts()
        above = parent_path(ended.path)
        self._node(above).ended.append(ended)
        self._ended[ended.begun] = ended
        self._children.setdefault(above, []).append(ended)

    def _forget_questions(self, node: _Node) -> None:
        """Drop what an earlier execution asked, nobody answered, and no later one has asked."""
        void = [
            event
            for event in node.kept
            if (event.seq or 0) <= self._cut_at
            and event.request is not None
            and (asked := self.requests.get(event.request.id)) is not None
            and asked.event is event
            and asked.answer is None
        ]
        if void:
            self._void(void)
            node.kept = [event for event in node.kept if event not in void]

    def _read_attempt(self, event: Event) -> None:
        self._attempts.add(event.path)
        node = self._take(event.path)
        if node is not None:
            # The rest is in the log for good, but that is all: it has written nothing, and nobody
            # sees it. What others have said to it, the next attempt may see.
            others: list[Event] = []
            for one in node.all():
                self._forget_questions(one)
                others += [said for said in one.kept if is_of_others(said)]
            if others:
                self._node(next_attempt(event.path)).kept += others

    def _read_checkpoint(self, event: Event, journal: Mapping[str, Any]) -> None:
        node = self._node(event.path)
        node.kept, node.undecided = node.kept + node.undecided, []
        self.received.update(journal.get("received", ()))
        self._checkpoints[event.path] = Checkpoint(
            event.seq or 0,
            (event.actions.agent_state or {}).get("checkpoint"),
            journal.get("numbers", {}),
            journal.get("layer", {}),
            journal.get("added", {}),
        )

    def _read_effect(self, event: Event, journal: Mapping[str, Any]) -> None:
        key = bare(event.path), journal["key"]
        if journal.get("failed"):
            self._effects.pop(key, None)
        else:
            self._effects[key] = ("done", event.output)

    def _cut(self) -> None:
        """Decide what was undecided when an execution was cut off."""
        for path, seq in self._cut_off.items():
            if path not in self._ended:
                attempt, number = path, 1
                while attempt in self._attempts:
                    attempt, number = next_attempt(attempt), number + 1
                self._end(
                    Ended(path, attempt, seq, Status.CANCELLED, attempts=number, cut_off=True)
                )
        for node in self._root.all():
            questions = [event for event in node.undecided if event.request is not None]
            self._void(event for event in node.undecided if event not in questions)
            # They stand, so that they can be answered. But whoever asks starts again, and writes
            # again what it had written before.
            self.taken_back.update(event.seq or 0 for event in questions)
            node.kept += questions
            node.undecided = []

    def _void(self, events: Iterable[Event]) -> None:
        self.void.update(event.seq or 0 for event in events)

    def _node(self, path: str) -> _Node:
        node = self._root
        for segment in path.split("/") if path else ():
            found = node.below.get(segment)
            if found is None:
                found = node.below[segment] = _Node()
            node = found
        return node

    def _take(self, path: str) -> _Node | None:
        above = self._node(parent_path(path))
        return above.below.pop(path.rpartition("/")[2], None)

    def answer(self, event: Event) -> None:
        """Take in an answer that has been recorded after all this."""
        self._log.append(event)
        self._read_answer(event)

    # Asking.

    def ended(self, path: str) -> Ended | None:
        """Return how the activation that began at ``path`` has ended, if it has."""
        return self._ended.get(path)

    def children(self, path: str) -> list[Ended]:
        """Return those that have ended directly below ``path``, in the order in which they did."""
        return self._children.get(path, [])

    def attempt_failed(self, path: str) -> bool:
        """Return whether the attempt at ``path`` has failed, and another was to follow."""
        return path in self._attempts

    def checkpoint(self, path: str) -> Checkpoint | None:
        """Return the newest checkpoint of the attempt at ``path``."""
        return self._checkpoints.get(path)

    def effects(self) -> dict[tuple[str, str], tuple[str, Any]]:
        """Return what is known of effects, by bare path and key."""
        return dict(self._effects)

    def asked_by(self, path: str) -> list[Asked]:
        """Return what the attempt at ``path`` has asked, oldest first."""
        return [*self._asked_at.get(path, {}).values()]

    def kept_at(self, path: str) -> Iterator[Event]:
        """Yield what an activation that has not ended has recorded, and that stands.

        With what has ended below it before its last checkpoint, which it will not start again.
        """
        checkpoint = self._checkpoints.get(path)
        node = self._node(path)
        yield from node.kept
        if checkpoint is not None:
            for ended in node.ended:
                if ended.seq < checkpoint.seq:
                    yield from ended.events()

    def state(
        self, now: Mapping[str, Any], reduce: Callable[[str, Any, tuple[Any, ...]], Any]
    ) -> tuple[dict[str, Any], list[str]]:
        """Return what to write so that no void event has written anything, and what to unset.

        ``now`` is the state as it stands. ``app:`` and ``user:`` keys are left alone: other
        sessions have gone on with them.
        """
        return state_without(self._log, self.void | self.taken_back, now, reduce)
