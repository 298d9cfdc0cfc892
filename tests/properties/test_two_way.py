"""Messages and answers into drawn trees, at drawn events: nothing is lost, and nothing hangs.

Time is virtual: when nothing moves any more, it jumps to a deadline far ahead. So a sender that
waits for a branch that waits for the sender ends a run with an error. That it does is proved on
such a sender at the end of this file.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Literal, TypeAlias, assert_never

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    Event,
    InMemorySessionService,
    InvocationContext,
    MessageRefusedError,
    ParallelAgent,
    ResponseRefusedError,
    Run,
    RunConfig,
    Runner,
    RunStatistics,
    SequentialAgent,
    Status,
    agent,
)
from session import Session, fold
from tests.support.drawing import fewer, stores
from tests.support.stores import SlowStore
from tests.support.timing import HORIZON, clock_with_horizon

# ------------------------------------------------------------------------------------------- a case


@attrs.frozen
class Say:
    """Emit an event, with something written."""


@attrs.frozen
class Rest:
    beats: int


@attrs.frozen
class Hear:
    """Receive a message; give up after ``patience`` seconds."""

    patience: int | None = None


@attrs.frozen
class Ask:
    """Ask for a number; go on without after ``timeout`` seconds, or give up from outside."""

    timeout: int | None = None
    patience: int | None = None


@attrs.frozen
class Tell:
    """Send a message to the branch with this number, and go on if that is refused."""

    to: int


@attrs.frozen
class Beside:
    """Do two things at a time."""

    one: tuple[Step, ...]
    other: tuple[Step, ...]


Step: TypeAlias = Say | Rest | Hear | Ask | Tell | Beside


@attrs.frozen
class Leaf:
    name: str
    steps: tuple[Step, ...]


@attrs.frozen
class Group:
    """Agents in a row, or side by side."""

    name: str
    children: tuple[Node, ...]
    fan: bool


Node: TypeAlias = Leaf | Group


@attrs.frozen
class Send:
    to: int


@attrs.frozen
class Respond:
    """Answer the ``which``-th open question; some answers do not fit."""

    which: int
    fits: bool = True


Deed: TypeAlias = Send | Respond
Way: TypeAlias = Literal["end", "break", "scope", "raise", "run.cancel"]


@attrs.frozen
class Case:
    """A tree and who is around it.

    ``deeds`` are what the reader does at the first event, the second, ... ; ``person`` does
    something after so many seconds, whatever the reader does. A reader that gets nothing for a
    long time answers everything and writes to everybody.
    """

    tree: Node
    deeds: tuple[tuple[Deed, ...], ...] = ()
    person: tuple[tuple[int, Deed], ...] = ()
    pauses: tuple[int, ...] = ()
    way: Way = "end"
    at: int = 0
    store: tuple[float, ...] | None = None
    inbox: int = 64
    suspend: bool = False


def branches_of(node: Node, above: str | None = None) -> Iterator[str | None]:
    """Every branch of a tree; the root branch first."""
    if above is None:
        yield None
    if isinstance(node, Group):
        for child in node.children:
            below = above
            if node.fan:
                below = (
                    f"{above}.{node.name}.{child.name}" if above else f"{node.name}.{child.name}"
                )
                yield below
                yield from (name for name in branches_of(child, below) if name != below)
            else:
                yield from (name for name in branches_of(child, above) if name is not None)


SILENCE = 8
"""Seconds without an event after which the reader helps everybody on."""

DEADLINE = HORIZON - 100
"""Seconds after which a run counts as hanging."""


@attrs.define(eq=False)
class Heard:
    """An agent has received a message."""

    branch: str | None
    event: Event
    history: list[Event]


@attrs.define(eq=False)
class Told:
    """An agent was answered."""

    path: str
    value: int


@attrs.define(eq=False)
class Delivered:
    event: Event
    pending: list[str]


@attrs.define(eq=False)
class Back:
    """The reader comes back; or leaves."""

    leaving: bool = False


@attrs.define(eq=False)
class Answered:
    """An answer was accepted."""

    request_id: str
    value: int


@attrs.define(eq=False)
class Report:
    """What came of a case. ``sent`` are the messages that were accepted, in order."""

    case: Case
    notes: list[Any] = attrs.field(factory=list)
    sent: list[Event] = attrs.field(factory=list)
    stored: Session = attrs.field(default=None)
    statistics: RunStatistics = attrs.field(default=None)
    status: Status = Status.PENDING
    live: dict[str, Any] = attrs.field(factory=dict)
    error: BaseException | None = None

    def of(self, kind: type[Any]) -> list[Any]:
        return [note for note in self.notes if isinstance(note, kind)]

    @property
    def delivered(self) -> list[Event]:
        return [note.event for note in self.of(Delivered)]


class LeftError(Exception):
    """What a reader raises that leaves by raising."""


SendTo: TypeAlias = Callable[[Run, str, str | None], Awaitable[Event]]


async def send(run: Run, text: str, to: str | None) -> Event:
    return await run.send(text, to=to)


class Stage:
    """Runs a case."""

    def __init__(self, case: Case, send: SendTo) -> None:
        self.case = case
        self.report = Report(case)
        self.branches = list(branches_of(case.tree))
        self.numbers = itertools.count()
        self.send_to = send

    # The agents.

    def build(self, node: Node) -> Agent:
        if isinstance(node, Group):
            kind = ParallelAgent if node.fan else SequentialAgent
            return kind(node.name, [self.build(child) for child in node.children])

        @agent(name=node.name)
        async def play(ctx: InvocationContext) -> None:
            await self.play(ctx, node.steps)

        return play

    async def play(self, ctx: InvocationContext, steps: Sequence[Step]) -> None:
        notes = self.report.notes
        for step in steps:
            match step:
                case Say():
                    ctx.state[f"by {ctx.path}"] = next(self.numbers)
                    await ctx.emit("said")
                case Rest(beats=beats):
                    await trio.sleep(beats)
                case Hear(patience=patience):
                    with trio.move_on_after(_seconds(patience)):
                        event = await ctx.receive()
                        notes.append(Heard(ctx.branch, event, ctx.history()))
                case Ask(timeout=timeout, patience=patience):
                    with trio.move_on_after(_seconds(patience)):
                        answer = await ctx.request_input(
                            "a number?", schema=int, timeout=timeout, default=-1
                        )
                        notes.append(Told(ctx.path, answer))
                case Tell(to=to):
                    await self.try_to_send(to, lambda text, name: ctx.send(text, to=name))
                case Beside(one=one, other=other):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self.play, ctx, one)
                        nursery.start_soon(self.play, ctx, other)
                case _:
                    assert_never(step)

    # The people.

    async def try_to_send(
        self, to: int, send: Callable[[str, str | None], Awaitable[Event]]
    ) -> None:
        name = self.branches[to % len(self.branches)]
        try:
            event = await send(f"message {next(self.numbers)}", name)
        except MessageRefusedError:
            return
        assert event.branch == name
        self.report.sent.append(event)

    async def do(self, run: Run, deed: Deed) -> None:
        match deed:
            case Send(to=to):
                await self.try_to_send(to, lambda text, name: self.send_to(run, text, name))
            case Respond(which=which, fits=fits):
                pending = run.pending
                if not pending:
                    return
                request = pending[which % len(pending)]
                number = next(self.numbers)
                if not fits:
                    with pytest.raises(ResponseRefusedError):
                        await run.respond(request.id, "no number")
                    return
                try:
                    await run.respond(request.id, number)
                except ResponseRefusedError as error:
                    # Time was over in the same step, or the run has ended without the answer.
                    is_left = "this one has ended" in str(error)
                    assert is_left is (request.id in [one.id for one in run.pending])
                    return
                self.report.notes.append(Answered(request.id, number))
            case _:
                assert_never(deed)

    async def person(self, run: Run) -> None:
        for seconds, deed in self.case.person:
            await trio.sleep(seconds)
            await self.do(run, deed)

    # The reader.

    async def read(self, run: Run, outer: trio.CancelScope) -> None:
        case, notes = self.case, self.report.notes
        count = 0
        while True:
            leaving = case.way != "end" and count == case.at
            notes.append(Back(leaving=leaving and case.way != "run.cancel"))
            if leaving:
                count += 1  # once
                if case.way == "break":
                    return
                if case.way == "raise":
                    raise LeftError
                if case.way == "scope":
                    outer.cancel()
                else:
                    run.cancel()
            with trio.move_on_after(SILENCE) as silence:
                event = await anext(run, None)
            if silence.cancelled_caught:
                await self.help_on(run)
                continue
            if event is None:
                return
            count += 1
            notes.append(Delivered(event, [request.id for request in run.pending]))
            for deed in case.deeds[count - 1] if count <= len(case.deeds) else ():
                await self.do(run, deed)
            if case.pauses:
                await trio.sleep(case.pauses[count % len(case.pauses)])

    async def help_on(self, run: Run) -> None:
        for _ in run.pending:
            await self.do(run, Respond(0))
        for number in range(len(self.branches)):
            await self.do(run, Send(number))

    async def run(self) -> Report:
        case, report = self.case, self.report
        inner = InMemorySessionService(clock=lambda: 0.0)
        service = inner if case.store is None else SlowStore(case.store)
        runner = Runner(self.build(case.tree), app_name="app", session_service=service)
        config = RunConfig(inbox_size=case.inbox, on_wait="suspend" if case.suspend else "stay")
        run: Run | None = None
        outer = trio.CancelScope()
        try:
            async with trio.open_nursery() as nursery:
                with outer:
                    async with runner.open(session_id="s", run_config=config) as run:
                        nursery.start_soon(self.person, run)
                        await self.read(run, outer)
                nursery.cancel_scope.cancel()
        except* LeftError as group:
            report.error = group
        assert run is not None
        stored = await service.get(app_name="app", user_id="user", session_id="s")
        assert stored is not None
        report.stored = stored
        report.statistics = run.statistics()
        report.status = run.result.status
        report.live = dict(run._stream.session.state)
        assert report.stored.events == list(run.result.events)
        assert (run.pending != ()) is (report.status is Status.WAITING)
        return report


def perform(case: Case, send_to: SendTo = send) -> Report:
    """Run a case.

    Raises:
        trio.TooSlowError: it hangs.
    """

    async def in_time() -> Report:
        with trio.fail_after(DEADLINE):
            return await Stage(case, send_to).run()

    return trio.run(in_time, clock=clock_with_horizon())


def _seconds(patience: int | None) -> float:
    return float("inf") if patience is None else patience


# -------------------------------------------------------------------------------------- drawing one


def _steps(depth: int = 1) -> st.SearchStrategy[tuple[Step, ...]]:
    few = st.none() | st.integers(0, 3)
    ways: list[st.SearchStrategy[Step]] = [
        st.just(Say()),
        st.builds(Hear, few),
        st.builds(Ask, few, few),
        st.builds(Rest, st.integers(0, 3)),
        st.builds(Tell, st.integers(0, 5)),
    ]
    if depth:
        ways.append(st.builds(Beside, _steps(depth - 1), _steps(depth - 1)))
    return st.lists(st.one_of(ways), min_size=1, max_size=4).map(tuple)


STEPS = _steps()


@st.composite
def trees(draw: st.DrawFn) -> Node:
    """Draw a tree; its names are letters."""
    names = iter("abcdefghijklmnopqrstuvwxyz")

    def node(depth: int) -> Node:
        if not depth or draw(st.integers(0, 2)) == 0:
            return Leaf(next(names), draw(STEPS))
        children = tuple(node(depth - 1) for _ in range(draw(st.integers(1, 3))))
        return Group(next(names), children, fan=draw(st.integers(0, 3)) > 0)

    return node(2)


DEEDS = st.builds(Send, st.integers(0, 5)) | st.builds(Respond, st.integers(0, 2), st.booleans())


@st.composite
def cases(draw: st.DrawFn, *, leaving: bool = False) -> Case:
    """Draw a case; ``leaving`` says that the reader may leave early."""
    draw(st.random_module())  # trio shuffles what is ready at the same moment
    way: Way = draw(
        st.sampled_from(["break", "scope", "raise", "run.cancel"] if leaving else ["end"])
    )
    return Case(
        draw(trees()),
        tuple(draw(st.lists(st.lists(DEEDS, max_size=2).map(tuple), max_size=8))),
        tuple(draw(st.lists(st.tuples(st.integers(0, 4), DEEDS), max_size=4))),
        tuple(draw(st.lists(st.integers(0, 2), max_size=2))),
        way,
        draw(st.integers(0, 8)) if leaving else 0,
        draw(stores()),
        draw(st.sampled_from([64, 1, 2])),
        draw(st.integers(0, 3)) == 3,
    )


# --------------------------------------------------------------------------------------------- laws


def messages_by_branch(events: Sequence[Event]) -> dict[str | None, list[Event]]:
    found: dict[str | None, list[Event]] = defaultdict(list)
    for event in events:
        if event.text.startswith("message"):
            found[event.branch].append(event)
    return found


def the_log_is_right(report: Report) -> None:
    events = report.stored.events
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert fold({}, events) == report.stored.state == report.live
    assert report.delivered == list(events[: len(report.delivered)])


def every_activation_ends_once(report: Report) -> None:
    counts = report.statistics
    assert counts.started == (counts.completed + counts.failed + counts.cancelled + counts.waiting)
    assert counts.failed == 0


def what_was_accepted_is_in_the_log_in_order(report: Report) -> None:
    sent, logged = messages_by_branch(report.sent), messages_by_branch(report.stored.events)
    assert sent == logged


def what_was_received_is_a_prefix_of_what_was_sent(report: Report) -> None:
    logged = messages_by_branch(report.stored.events)
    received: dict[str | None, list[Event]] = defaultdict(list)
    for note in report.of(Heard):
        received[note.event.branch].append(note.event)
        assert note.branch == note.event.branch
    for branch, events in received.items():
        assert events == logged[branch][: len(events)]


def nothing_arrives_before_the_reader_comes_back(report: Report) -> None:
    on_their_way: set[int] = set()
    there: set[int] = set()
    for note in report.notes:
        match note:
            case Delivered(event=event):
                on_their_way.add(id(event))
            case Back(leaving=leaving):
                there |= on_their_way
                if leaving:
                    return
            case Heard(event=event):
                assert id(event) in there, f"{event} was received too early"
            case _:
                pass


def a_message_is_in_the_history_of_its_branch_and_of_no_sibling(report: Report) -> None:
    for note in report.of(Heard):
        assert note.event in note.history
        for event in note.history:
            assert not _are_siblings(event.branch, note.branch), event


def _are_siblings(one: str | None, other: str | None) -> bool:
    """Whether two branches part at one fan-out: there, one child is not the other."""
    if one is None or other is None:
        return False
    for (fan, child), (other_fan, other_child) in zip(
        _steps_of(one), _steps_of(other), strict=False
    ):
        if (fan, child) != (other_fan, other_child):
            return fan == other_fan  # of two fan-outs, one has ended before
    return False


def _steps_of(branch: str) -> list[tuple[str, str]]:
    names = branch.split(".")
    return list(zip(names[::2], names[1::2], strict=True))


def an_answer_is_what_was_responded_to_that_question(report: Report) -> None:
    given_answers = {note.request_id: note.value for note in report.of(Answered)}
    assert len(given_answers) == len(report.of(Answered)), "a question was answered twice"
    events = report.stored.events
    asked = {event.request.id: event for event in events if event.request is not None}
    assert len(asked) == sum(event.request is not None for event in events), "an id came twice"
    for event in events:
        for response in event.function_responses:
            question = asked[response.id or ""]
            assert (question.branch, event.author) == (event.branch, "user")
            assert (question.seq or 0) < (event.seq or 0)
            assert response.response == {"result": given_answers.pop(response.id or "")}
    assert not given_answers, "an answer is not in the log"
    values = {note.value for note in report.of(Answered)}
    for note in report.of(Told):
        assert note.value == -1 or note.value in values


def whoever_was_answered_in_time_got_the_answer(report: Report) -> None:
    """Nobody gets the default, or nothing, whose question was answered; but if given up."""
    paths = {
        event.request.id: event.path for event in report.stored.events if event.request is not None
    }
    told = [(note.path, note.value) for note in report.of(Told)]
    patient = _patient(report.case.tree)
    for note in report.of(Answered):
        path = paths[note.request_id]
        if path.rpartition("/")[2] in patient:
            assert (path, note.value) in told


def _patient(node: Node) -> set[str]:
    """The leaves that give up no question from outside."""
    if isinstance(node, Group):
        return set().union(*(_patient(child) for child in node.children))

    def steps(line: Sequence[Step]) -> Iterator[Step]:
        for step in line:
            yield step
            if isinstance(step, Beside):
                yield from steps(step.one)
                yield from steps(step.other)

    hasty = any(isinstance(one, Ask) and one.patience is not None for one in steps(node.steps))
    # When one of two tasks waits for a person, a run that is suspended ends the other, too.
    both = any(isinstance(one, Beside) for one in steps(node.steps))
    return set() if hasty or both else {node.name}


def what_is_pending_has_been_asked_and_not_answered(report: Report) -> None:
    asked: list[str] = []
    answered: set[str] = set()
    for note in report.notes:
        match note:
            case Delivered(event=event, pending=pending):
                if event.request is not None:
                    asked.append(event.request.id)
                assert pending == [one for one in asked if one in pending], "in another order"
                assert not answered & set(pending)
            case Answered(request_id=request_id):
                answered.add(request_id)
            case _:
                pass


LAWS = [
    the_log_is_right,
    every_activation_ends_once,
    what_was_accepted_is_in_the_log_in_order,
    what_was_received_is_a_prefix_of_what_was_sent,
    nothing_arrives_before_the_reader_comes_back,
    a_message_is_in_the_history_of_its_branch_and_of_no_sibling,
    an_answer_is_what_was_responded_to_that_question,
    what_is_pending_has_been_asked_and_not_answered,
]


# --------------------------------------------------------------------------------------- properties


@fewer(2)
@given(cases())
def test_a_reader_that_sends_and_responds_at_any_event_never_waits_for_itself(
    case: Case,
) -> None:
    """It gets to the end, and everything that is to hold holds."""
    report = perform(case)
    for law in LAWS:
        law(report)
    whoever_was_answered_in_time_got_the_answer(report)
    assert report.status is (Status.WAITING if report.statistics.waiting else Status.COMPLETED)
    assert report.delivered == report.stored.events


@fewer(2)
@given(cases(leaving=True))
def test_whenever_and_however_a_reader_leaves_what_was_accepted_is_recorded(case: Case) -> None:
    report = perform(case)
    for law in LAWS:
        law(report)
    if report.of(Back)[-1].leaving:
        assert report.status in (Status.CANCELLED, Status.WAITING, Status.COMPLETED)


@fewer(5)
@given(cases())
def test_nobody_who_stays_waits_for_a_person(case: Case) -> None:
    report = perform(attrs.evolve(case, suspend=False))
    assert report.statistics.waiting == 0


# ------------------------------------------------------------------ the checkers find what is wrong

TALK = Case(
    Group("fan", (Leaf("a", (Hear(), Say(), Hear())), Leaf("b", (Ask(), Say()))), fan=True),
    deeds=((Respond(0), Send(1)), (Send(1),)),
)


def test_a_sender_that_waits_for_its_reader_is_found_out() -> None:
    """The reader waits for a branch that waits for the reader."""

    async def waiting_send(run: Run, text: str, to: str | None) -> Event:
        event = await run.send(text, to=to)
        while event.seq is None:  # until it is recorded, which is for the reader to do
            await trio.lowlevel.ParkingLot().park()
        return event

    with pytest.raises(trio.TooSlowError):
        perform(TALK, waiting_send)


def test_the_talk_itself_is_fine() -> None:
    report = perform(TALK)
    for law in LAWS:
        law(report)
    assert len(report.of(Heard)) == 2
    assert len(report.of(Told)) == 1
    assert [len(note.pending) for note in report.of(Delivered)][:2] == [1, 0]


def _swapped(items: list[Any]) -> list[Any]:
    return [items[1], items[0], *items[2:]]


def _forged(report: Report, kind: type[Any], **changes: Any) -> Report:
    first = report.of(kind)[0]
    notes = [attrs.evolve(note, **changes) if note is first else note for note in report.notes]
    return attrs.evolve(report, notes=notes)


def _with_notes(report: Report, notes: list[Any]) -> Report:
    return attrs.evolve(report, notes=notes)


def _early(report: Report) -> list[Any]:
    first = report.of(Heard)[0]
    return [first, *(note for note in report.notes if note is not first)]


@pytest.mark.parametrize(
    ("law", "spoil"),
    [
        (the_log_is_right, lambda one: attrs.evolve(one, live={**one.live, "more": 1})),
        (
            the_log_is_right,
            lambda one: _with_notes(
                one, [note for note in one.notes if note is not one.of(Delivered)[1]]
            ),
        ),
        (
            every_activation_ends_once,
            lambda one: attrs.evolve(one, statistics=attrs.evolve(one.statistics, started=9)),
        ),
        (
            what_was_accepted_is_in_the_log_in_order,
            lambda one: attrs.evolve(one, sent=_swapped(one.sent)),
        ),
        (
            what_was_accepted_is_in_the_log_in_order,
            lambda one: attrs.evolve(one, sent=[*one.sent, one.sent[0]]),
        ),
        (
            what_was_received_is_a_prefix_of_what_was_sent,
            lambda one: _with_notes(
                one, [note for note in one.notes if note is not one.of(Heard)[0]]
            ),
        ),
        (
            what_was_received_is_a_prefix_of_what_was_sent,
            lambda one: _forged(one, Heard, branch="fan.b"),
        ),
        (
            nothing_arrives_before_the_reader_comes_back,
            lambda one: _with_notes(one, _early(one)),
        ),
        (
            a_message_is_in_the_history_of_its_branch_and_of_no_sibling,
            lambda one: _forged(one, Heard, history=list(one.stored.events)),
        ),
        (
            a_message_is_in_the_history_of_its_branch_and_of_no_sibling,
            lambda one: _forged(one, Heard, history=[]),
        ),
        (
            an_answer_is_what_was_responded_to_that_question,
            lambda one: _forged(one, Answered, value=1000),
        ),
        (
            an_answer_is_what_was_responded_to_that_question,
            lambda one: _forged(one, Told, value=1000),
        ),
        (
            an_answer_is_what_was_responded_to_that_question,
            lambda one: _with_notes(one, [*one.notes, one.of(Answered)[0]]),
        ),
        (
            whoever_was_answered_in_time_got_the_answer,
            lambda one: _with_notes(
                one, [note for note in one.notes if not isinstance(note, Told)]
            ),
        ),
        (
            what_is_pending_has_been_asked_and_not_answered,
            lambda one: _with_notes(
                one, [*one.notes, Delivered(Event("x"), [one.of(Answered)[0].request_id])]
            ),
        ),
        (
            what_is_pending_has_been_asked_and_not_answered,
            lambda one: _with_notes(one, [Delivered(Event("x"), ["never asked"]), *one.notes]),
        ),
    ],
)
def test_each_law_finds_a_report_that_breaks_it(
    law: Callable[[Report], None], spoil: Callable[[Report], Report]
) -> None:
    report = perform(TALK)
    law(report)
    with pytest.raises((AssertionError, KeyError)):
        law(spoil(report))
