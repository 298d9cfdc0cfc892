"""Small trees to explore: as values, as agents that note what they do, and run under a schedule.

A core is so small that all its schedules can be run. What its agents did is in a `Book`, in one
order with what was appended and what the reader got; `tests.support.core_laws` judges by nothing
else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from itertools import chain, repeat
from typing import Any, Final, Literal, TypeAlias, cast

import attrs
import trio

from parallel_agent import (
    Agent,
    Barrier,
    Event,
    EventActions,
    FailFast,
    InMemorySessionService,
    InvocationContext,
    LoopAgent,
    Outcome,
    ParallelAgent,
    ResponseRefusedError,
    Result,
    Retry,
    Run,
    Runner,
    RunStatistics,
    SequentialAgent,
    agent,
)
from parallel_agent.testing import Trial, run_once
from parallel_agent.testing.control import Chooser
from session.lease import Lease
from session.session import SessionKey
from tests.support.scripts import as_code, printed

__all__ = [
    "USER",
    "Appended",
    "Asked",
    "Began",
    "Book",
    "Called",
    "CleanUpFailedError",
    "Core",
    "Delivered",
    "Ended",
    "Fan",
    "LeafFailedError",
    "LeftError",
    "Look",
    "Node",
    "Replied",
    "Returned",
    "Ring",
    "Row",
    "Settled",
    "Worker",
    "Wrote",
    "explored_by",
    "nodes_of",
    "perform",
    "split",
]

USER: Final = "user"

# Trees.

OnCancel: TypeAlias = Literal["passes", "returns", "fails"]


def _acts(acts: str | Iterable[str]) -> tuple[str, ...]:
    return tuple(acts.split() if isinstance(acts, str) else acts)


def _nodes(nodes: Iterable[Node]) -> tuple[Node, ...]:
    return tuple(nodes)


@attrs.frozen(repr=False)
class Worker:
    """An agent that does one thing after another.

    Attributes:
        acts: what it does: ``say``, ``stop`` (an escalating event), ``write`` (a key of its own),
            ``share`` (a key of all), ``look``, ``nap``, ``wait`` (for ever), ``ask``, ``fail``,
            ``win`` (return a value).
        clean_up: what it does, under a shield, when it is cancelled.
        when_cancelled: what comes after that; ``"returns"`` swallows the cancellation.
        again: what it does in every attempt after the first, if something else.
        tries: how many attempts it has.
    """

    name: str
    acts: tuple[str, ...] = attrs.field(converter=_acts, default="say")
    clean_up: tuple[str, ...] = attrs.field(converter=_acts, default="", kw_only=True)
    when_cancelled: OnCancel = attrs.field(default="passes", kw_only=True)
    again: tuple[str, ...] = attrs.field(converter=_acts, default="", kw_only=True)
    tries: int = attrs.field(default=1, kw_only=True)
    __repr__ = as_code
    _repr_pretty_ = printed


@attrs.frozen(repr=False)
class Fan:
    """Branches side by side.

    ``kind``: a ParallelAgent; ``ctx.map`` of its one member over as many items as ``width`` says;
    or ``ctx.open_fan_out``, in which it says something of its own after each start.
    """

    name: str
    members: tuple[Node, ...] = attrs.field(converter=_nodes)
    policy: Barrier = attrs.field(factory=FailFast)
    limit: int | None = None
    kind: Literal["parallel", "map", "open"] = "parallel"
    width: int = 0
    __repr__ = as_code
    _repr_pretty_ = printed

    def branches(self) -> list[tuple[str, Node]]:
        """Return the name of each branch, as a path has it, and what runs on it."""
        if self.kind == "map":
            (member,) = self.members
            return [(f"{member.name}@{number + 1}", member) for number in range(self.width)]
        number = "@1" if self.kind == "open" else ""
        return [(f"{member.name}{number}", member) for member in self.members]


@attrs.frozen(repr=False)
class Row:
    """One after the other."""

    name: str
    members: tuple[Node, ...] = attrs.field(converter=_nodes)
    __repr__ = as_code
    _repr_pretty_ = printed


@attrs.frozen(repr=False)
class Ring:
    """One after the other, again and again."""

    name: str
    members: tuple[Node, ...] = attrs.field(converter=_nodes)
    times: int = 2
    __repr__ = as_code
    _repr_pretty_ = printed


Node: TypeAlias = Worker | Fan | Row | Ring
Way: TypeAlias = Literal["end", "break", "raise", "scope", "run.cancel"]
Choice: TypeAlias = Literal["retry", "skip", "abort"]


@attrs.frozen(repr=False)
class Core:
    """A tree, how it is read, and what people answer.

    ``way`` and ``at``: how the reader stops, after how many events; ``pause``: seconds that it
    takes for each. ``answers``: to the questions
    that a policy asks, in the order in which they come, three times round; then it is ``skip``.
    """

    tree: Node
    way: Way = "end"
    at: int = 0
    answers: tuple[Choice, ...] = ("skip",)
    pause: float = 0
    __repr__ = as_code
    _repr_pretty_ = printed


def nodes_of(tree: Node) -> Iterator[Node]:
    """All nodes, from the top."""
    todo: list[Node] = [tree]
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, Worker):
            todo.extend(reversed(node.members))


def split(path: str) -> tuple[str, int]:
    """Return a path without the number of its attempt, and that number."""
    above, slash, segment = path.rpartition("/")
    name, _, attempt = segment.partition("~")
    return f"{above}{slash}{name}", int(attempt or 1)


# The notebook.


class LeafFailedError(Exception):
    """What a worker raises of itself."""


class CleanUpFailedError(Exception):
    """What a worker raises after it was cancelled."""


class LeftError(Exception):
    """What a reader raises that leaves by raising."""


@attrs.frozen(eq=False)
class Began:
    """A worker's code begins, for the ``attempt``-th time at this path."""

    path: str
    attempt: int
    node: Worker | None


@attrs.frozen(eq=False)
class Called:
    """It emits ``event``."""

    path: str
    attempt: int
    event: Event
    shielded: bool


@attrs.frozen(eq=False)
class Settled:
    """That is over; ``error`` is the class of what it raised."""

    call: Called
    error: type[BaseException] | None


@attrs.frozen(eq=False)
class Wrote:
    """It has written."""

    path: str
    attempt: int
    key: str
    value: str


@attrs.frozen(eq=False)
class Asked:
    """It asks a person ``text``."""

    path: str
    attempt: int
    text: str


@attrs.frozen(eq=False)
class Look:
    """It has looked at the history."""

    path: str
    seqs: tuple[int, ...]


@attrs.frozen(eq=False)
class Ended:
    """Its code is over. ``struck``: it was told of a cancellation before that."""

    path: str
    attempt: int
    error: BaseException | None
    struck: bool


@attrs.frozen(eq=False)
class Appended:
    """``event`` is in the service's log."""

    event: Event


@attrs.frozen(eq=False)
class Delivered:
    """The reader has got ``event``. ``state`` is the session's at that moment."""

    event: Event
    state: Mapping[str, Any]


@attrs.frozen(eq=False)
class Replied:
    """The reader has answered a question: ``about`` is its text."""

    about: str
    choice: Any


@attrs.frozen(eq=False)
class Returned:
    """The reader comes back for the next event, or leaves."""

    leaving: bool = False


Entry: TypeAlias = (
    Began
    | Called
    | Settled
    | Wrote
    | Asked
    | Look
    | Ended
    | Appended
    | Delivered
    | Replied
    | Returned
)

_MARK: ContextVar[str] = ContextVar("mark", default="nobody's")


@attrs.define(eq=False)
class Book:
    """What happened in one run of a core, in order."""

    core: Core
    entries: list[Entry] = attrs.field(factory=list)
    leaks: list[str] = attrs.field(factory=list)
    run: Run | None = None
    error: BaseException | None = None
    _struck: set[tuple[str, int]] = attrs.field(factory=set)

    def of(self, kind: type[Any]) -> list[Any]:
        """All entries of one kind."""
        return [entry for entry in self.entries if isinstance(entry, kind)]

    @property
    def log(self) -> list[Event]:
        """What the service holds."""
        return [entry.event for entry in self.of(Appended)]

    @property
    def result(self) -> Result:
        assert self.run is not None
        return self.run.result

    @property
    def statistics(self) -> RunStatistics:
        assert self.run is not None
        return self.run.statistics()

    def outcomes(self, name: str) -> tuple[Outcome, ...]:
        """How the branches of a fan-out ended; empty if it has not got that far."""
        assert self.run is not None
        try:
            return self.run.outcomes(name)
        except KeyError:
            return ()

    # Called by the code of workers.

    @contextmanager
    def life(self, ctx: InvocationContext, node: Worker | None = None) -> Iterator[int]:
        path, attempt = split(ctx.path)
        self.entries.append(Began(path, attempt, node))
        error: BaseException | None = None
        try:
            yield attempt
        except BaseException as raised:
            error = raised
            raise
        finally:
            struck = (path, attempt) in self._struck or isinstance(error, trio.Cancelled)
            self.entries.append(Ended(path, attempt, error, struck))

    def strike(self, path: str, attempt: int) -> None:
        self._struck.add((path, attempt))

    async def emit(
        self, ctx: InvocationContext, attempt: int, event: Event, *, shielded: bool = False
    ) -> None:
        call = Called(split(ctx.path)[0], attempt, event, shielded)
        self.entries.append(call)
        try:
            await ctx.emit(event)
        except BaseException as error:
            self.entries.append(Settled(call, type(error)))
            raise
        self.entries.append(Settled(call, None))

    def set_mark(self, path: str) -> None:
        """Set a context variable that nobody else is to see."""
        _MARK.set(path)

    def check_mark(self, path: str) -> None:
        if _MARK.get() != path:
            self.leaks.append(f"{path} sees the context variable of {_MARK.get()}")


class _NotingService(InMemorySessionService):
    """Notes what it appends."""

    def __init__(self, book: Book) -> None:
        super().__init__(clock=lambda: 0.0, new_id=lambda: "s")
        self._book = book

    def append_nowait(
        self,
        key: SessionKey,
        events: Sequence[Event],
        *,
        expected_seq: int,
        lease: Lease | None = None,
    ) -> None:
        super().append_nowait(key, events, expected_seq=expected_seq, lease=lease)
        self._book.entries.extend(map(Appended, events))


# From a tree to agents.


def build(tree: Node, book: Book) -> Agent:
    """Make the agents of a tree."""
    match tree:
        case Worker():
            return _build_worker(tree, book)
        case Row(name=name, members=members):
            return SequentialAgent(name, [build(member, book) for member in members])
        case Ring(name=name, members=members, times=times):
            return LoopAgent(
                name, [build(member, book) for member in members], max_iterations=times
            )
        case Fan(kind="parallel"):
            members = tuple(tree.members)
            return ParallelAgent(
                tree.name,
                [build(member, book) for member in members],
                barrier=tree.policy,
                max_concurrency=tree.limit,
            )
        case Fan():
            return _build_fan(tree, book)


def _build_worker(node: Worker, book: Book) -> Agent:
    async def work(ctx: InvocationContext) -> Any:
        with book.life(ctx, node) as attempt:
            path, _ = split(ctx.path)
            book.set_mark(path)
            acts = node.acts if attempt == 1 or not node.again else node.again
            try:
                await _act(ctx, book, attempt, acts)
            except trio.Cancelled:
                book.strike(path, attempt)
                with trio.CancelScope(shield=True):
                    await _act(ctx, book, attempt, node.clean_up, shielded=True)
                if node.when_cancelled == "fails":
                    message = f"{path} in cleaning up"
                    raise CleanUpFailedError(message) from None
                if node.when_cancelled == "returns":
                    return "stolen"
                raise
            return f"{path} wins" if "win" in acts else None

    retry = Retry(node.tries, initial_delay=0, jitter=0) if node.tries > 1 else None
    return agent(work, name=node.name, retry=retry)


async def _act(  # noqa: C901  # one case per act
    ctx: InvocationContext,
    book: Book,
    attempt: int,
    acts: Iterable[str],
    *,
    shielded: bool = False,
) -> None:
    path, _ = split(ctx.path)
    for number, act in enumerate(acts):
        text = f"{path} {attempt} {'bye ' if shielded else ''}{number}"
        match act:
            case "say":
                await book.emit(ctx, attempt, Event(text), shielded=shielded)
            case "stop":
                event = Event(text, actions=EventActions(escalate=True))
                await book.emit(ctx, attempt, event, shielded=shielded)
            case "write" | "share":
                key = "shared" if act == "share" else path.rpartition("/")[2].replace("@", "_")
                ctx.state[key] = text
                book.entries.append(Wrote(path, attempt, key, text))
            case "look":
                seqs = tuple(event.seq or 0 for event in ctx.history())
                book.entries.append(Look(path, seqs))
            case "nap":
                await trio.lowlevel.checkpoint()
            case "wait":
                await trio.sleep_forever()
            case "ask":
                book.entries.append(Asked(path, attempt, text))
                assert await ctx.request_input(text, schema=bool) is True
            case "win":
                return
            case "fail":
                message = f"{path} {attempt}"
                raise LeafFailedError(message)
            case _:
                raise AssertionError(act)
        book.check_mark(path)


def _build_fan(fan: Fan, book: Book) -> Agent:
    agents = [build(member, book) for member in fan.members]

    async def work(ctx: InvocationContext) -> None:
        with book.life(ctx) as attempt:
            path = ctx.path
            book.set_mark(path)
            if fan.kind == "map":
                outcomes = await ctx.map_outcomes(
                    agents[0],
                    list(range(fan.width)),
                    barrier=fan.policy,
                    max_concurrency=fan.limit,
                )
                book.check_mark(path)
                assert [outcome.name for outcome in outcomes] == [
                    name for name, _node in fan.branches()
                ]
                return
            async with ctx.open_fan_out(barrier=fan.policy, max_concurrency=fan.limit) as group:
                for member in agents:
                    group.start(member)
                    await book.emit(ctx, attempt, Event(f"{path} goes on"))
            book.check_mark(path)

    return agent(work, name=fan.name)


# Runs.


class _Noted:
    """A runner whose runs are noted, with what leaves their block."""

    def __init__(self, runner: Runner, book: Book) -> None:
        self._runner = runner
        self._book = book

    @asynccontextmanager
    async def open(self, message: str | None = None, **options: Any) -> AsyncGenerator[Run, None]:
        try:
            async with self._runner.open(message, session_id="s", **options) as run:
                self._book.run = run
                yield run
        except BaseException as error:
            self._book.error = error
            raise


async def _read(book: Book, run: Run) -> None:
    core = book.core
    # Not round for ever: one who always aborts below, and has it tried again above, never ends.
    answers = chain(core.answers * 3, repeat("skip"))
    seen = 0
    cancelled = False
    while True:
        leaving = core.way != "end" and seen >= core.at and not cancelled
        book.entries.append(Returned(leaving=leaving))
        if leaving:
            cancelled = True
            match core.way:
                case "break":
                    return
                case "raise":
                    raise LeftError
                case "scope":
                    with trio.CancelScope() as scope:
                        scope.cancel()
                        await anext(run)
                    return
                case _:
                    run.cancel("enough")
        try:
            event = await anext(run)
        except StopAsyncIteration:
            return
        seen += 1
        book.entries.append(Delivered(event, dict(run._stream.session.state)))
        if event.request is not None:
            choice: Any = next(answers) if " failed: " in event.request.prompt else True
            try:
                await run.respond(event.request.id, choice)
            except ResponseRefusedError:
                continue  # whoever asked has been cancelled meanwhile
            book.entries.append(Replied(event.request.prompt, choice))
        if core.pause:
            await trio.sleep(core.pause)


@attrs.define(eq=False)
class explored_by:  # noqa: N801  # it is used like a function
    """What `explore` and `run_once` need to run a core: ``explore(**explored_by(core).options)``.

    ``book`` is that of the newest run.
    """

    core: Core
    book: Book = attrs.field(init=False)

    def make_tree(self) -> Agent:
        self.book = Book(self.core)
        return build(self.core.tree, self.book)

    def make_runner(self, tree: Agent, **options: Any) -> Runner:
        runner = Runner(tree, session_service=_NotingService(self.book), **options)
        return cast("Runner", _Noted(runner, self.book))

    async def read(self, run: Run) -> None:
        await _read(self.book, run)


def perform(core: Core, chooser: Chooser) -> tuple[Book, Trial]:
    """Run a core once; ``chooser`` decides who goes."""
    runs = explored_by(core)
    trial = run_once(runs.make_tree, chooser, read=runs.read, make_runner=runs.make_runner)
    return runs.book, trial
