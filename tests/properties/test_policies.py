"""Fan-outs of every policy, whole runs of them, against a pure model of what must come out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any, TypeAlias, cast

import attrs
import pytest
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyFailure

from parallel_agent import (
    Agent,
    AgentTimeoutError,
    Barrier,
    BestEffort,
    BranchCancelledError,
    Escalate,
    Event,
    EventActions,
    FailFast,
    FirstSuccess,
    FunctionResponse,
    InvocationContext,
    Outcome,
    ParallelAgent,
    Quorum,
    QuorumError,
    ResponseRefusedError,
    Retry,
    Run,
    Runner,
    SequentialAgent,
    WaitAll,
    agent,
)
from tests.support.policies import (
    Case,
    Ending,
    Expected,
    Line,
    Node,
    Row,
    Team,
    Times,
    Worker,
    expect,
    nodes_of,
)
from tests.support.timing import clock_with_horizon

# A tree, run for real.


class ScriptedError(Exception):
    """What a worker raises that fails."""


class _Book:
    """What the workers of one run note down."""

    def __init__(self, times: Times) -> None:
        self.times = times
        self.runs: Counter[str] = Counter()
        self.cleaned: list[tuple[float, str]] = []


def _options(node: Node, times: Times) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if node.timeout is not None:
        options["timeout"] = times.of(f"{node.name}/timeout", node.timeout)
    if node.tries > 1:
        delay = times.of(f"{node.name}/delay")
        options["retry"] = Retry(node.tries, initial_delay=delay, backoff_factor=1, jitter=0)
    return options


def _build(node: Node, book: _Book) -> Agent:
    options = _options(node, book.times)
    match node:
        case Worker():
            return _worker(node, book).with_options(**options)
        case Row(name=name, members=members):
            return SequentialAgent(name, [_build(member, book) for member in members], **options)
        case Team(name=name, members=members):
            return ParallelAgent(
                name,
                [_build(member, book) for member in members],
                barrier=node.policy,
                max_concurrency=node.limit,
                **options,
            )


def _worker(node: Worker, book: _Book) -> Agent:
    name, times = node.name, book.times

    async def clean_up(ctx: InvocationContext) -> None:
        with trio.CancelScope(shield=True):
            if node.clean_up:
                await trio.sleep(times.of(f"{name}/clean_up", node.clean_up))
            book.cleaned.append((trio.current_time(), name))
            if node.clean_up and node.goodbye:
                await ctx.emit(f"{name} says goodbye")

    @agent(name=name)
    async def play(ctx: InvocationContext) -> str:
        book.runs[name] += 1
        number = book.runs[name]
        text = f"{name} {number}"
        try:
            for position, (beats, kind) in enumerate(node.acts):
                await trio.sleep(times.of(f"{name}/{position}", beats))
                actions = EventActions(escalate=True) if kind == "stop" else None
                await ctx.emit(Event(f"{name} {kind}s {position}", actions=actions))
            await trio.sleep(times.of(f"{name}/last", node.last))
            match node.ends[min(number, len(node.ends)) - 1]:
                case "fails":
                    raise ScriptedError(text)
                case "exits":
                    raise SystemExit(text)
                case "returns":
                    pass
        except trio.Cancelled:
            match node.when_cancelled:
                case "passes":
                    raise
                case "fails":
                    raise ScriptedError(f"{text} cleaning up") from None
                case "exits":
                    raise SystemExit(f"{text} cleaning up") from None
                case "returns":
                    text = "stolen"
        finally:
            await clean_up(ctx)
        return text

    return play


def perform(case: Case) -> Expected:
    """Run a case, and say what came of it in the terms of what must."""
    return trio.run(_perform, case, clock=clock_with_horizon())


async def _perform(case: Case) -> Expected:
    times = Times(case.tree)
    book = _Book(times)
    delivered: list[Event] = []
    error: BaseException | None = None
    asked: Counter[str] = Counter()
    teams = {node.name: node for node in nodes_of(case.tree) if isinstance(node, Team)}

    async def answer(run: Run, event: Event) -> None:
        team = teams[event.author]
        choice, seconds = team.answer(asked[team.name], times)
        asked[team.name] += 1
        await trio.sleep(seconds)
        assert event.request is not None
        if event.request.id in {request.id for request in run.pending}:
            await run.respond(event.request.id, choice)
        else:
            with pytest.raises(ResponseRefusedError):
                await run.respond(event.request.id, choice)

    async def stop(run: Run, beats: int) -> None:
        await trio.sleep(times.of("stop", beats))
        run.cancel("enough")

    # The clock of the log is the virtual one.
    runner = Runner(_build(case.tree, book), clock=trio.current_time)
    async with trio.open_nursery() as people:
        async with runner.open() as run:
            if case.stop is not None:
                people.start_soon(stop, run, case.stop)
            try:
                async for event in run:
                    delivered.append(event)
                    if event.request is not None:
                        people.start_soon(answer, run, event)
            except (Exception, SystemExit) as caught:  # noqa: BLE001  # it is what is looked at
                error = caught
        end = trio.current_time()
        people.cancel_scope.cancel()
    assert delivered == list(run.result.events)
    endings = {
        name: tuple(_ending(outcome) for outcome in run.outcomes(name))
        for name in run._core.root.invocation.outcomes
    }
    return Expected(
        log=tuple(_line(event) for event in delivered),
        endings=endings,
        cleaned=tuple(sorted(book.cleaned)),
        error=_shown(error),
        status=str(run.result.status),
        output=run.result.output,
        end=end,
    )


def _line(event: Event) -> Line:
    what: Any = event.text
    if event.request is not None:
        found = re.search(r" (\S+) failed: ", event.request.prompt)
        assert found is not None
        what = f"asks about {found[1]}"
    elif event.actions.outcomes:
        what = tuple(
            (one.name, one.status, _KINDS[one.error_type], one.attempts, one.duration)
            for one in event.actions.outcomes
        )
    elif event.author == "user":
        assert event.content is not None
        (part,) = event.content.parts
        what = f"answers {cast('FunctionResponse', part).response['result']}"
    return Line(event.timestamp, event.path, event.branch, what)


_KINDS = {
    None: None,
    "ScriptedError": "failed",
    "SystemExit": "exited",
    "AgentTimeoutError": "timeout",
    "QuorumError": "quorum",
    "ExceptionGroup": "group",
}


def _ending(outcome: Outcome) -> Ending:
    return Ending(
        name=outcome.name,
        path=outcome.path,
        status=str(outcome.status),
        error=_shown(outcome.error),
        own=outcome.own and isinstance(outcome.error, Exception),
        output=outcome.output,
        attempts=outcome.attempts,
        duration=outcome.duration,
    )


def _shown(error: BaseException | None) -> tuple[Any, ...] | None:
    match error:
        case None:
            return None
        case QuorumError(completed=completed, quorum=quorum, width=width, exceptions=inside):
            return "quorum", completed, quorum, width, *map(_shown, inside)
        case ExceptionGroup(exceptions=inside):
            return "group", *map(_shown, inside)
        case ScriptedError():
            return "failed", str(error)
        case SystemExit():
            return "exited", str(error)
        case AgentTimeoutError(path=path):
            return "timeout", path
        case BranchCancelledError():
            return "cut off", str(error).split("'")[1]
        case _:
            return "unexpected", repr(error)


# Drawing one.

POLICIES: tuple[type[Barrier], ...] = (
    FailFast,
    WaitAll,
    BestEffort,
    FirstSuccess,
    Quorum,
    Escalate,
)


@st.composite
def nodes(
    draw: st.DrawFn,
    *,
    kinds: tuple[type[Barrier], ...] = POLICIES,
    depth: int = 2,
    attempts: bool = True,
    stops: bool = True,
) -> Node:
    """Draw a tree whose root is a team."""
    names = (f"{letter}{number or ''}" for number in count() for letter in "abcdefghijklmnopq")
    beats = st.integers(0, 3)
    rarely = st.sampled_from([False] * 5 + [True])
    says = st.sampled_from(["say"] * 5 + ["stop"] * stops)
    ends = st.sampled_from(["returns"] * 4 + ["fails"] * 4 + ["exits"] * stops)
    on_cancel = st.sampled_from(["passes", "passes", "fails", "returns"] * 2 + ["exits"] * stops)

    def options() -> dict[str, Any]:
        if not attempts:
            return {}
        return {
            "tries": draw(st.integers(2, 3)) if draw(rarely) else 1,
            "timeout": draw(st.integers(0, 6)) if draw(rarely) else None,
        }

    def worker() -> Worker:
        return Worker(
            next(names),
            draw(st.lists(st.tuples(beats, says), max_size=2)),
            draw(beats),
            draw(st.lists(ends, min_size=1, max_size=3)),
            draw(on_cancel),
            draw(st.sampled_from([0, 0, 1, 3])),
            draw(st.booleans()),
            **options(),
        )

    def node(below: int) -> Node:
        what = draw(st.sampled_from("wwwwtr")) if below else "w"
        if what == "w":
            return worker()
        return team(below - 1) if what == "t" else row(below - 1)

    def row(below: int) -> Row:
        name = next(names)
        return Row(name, [node(below) for _ in range(draw(st.integers(1, 2)))], **options())

    def team(below: int) -> Team:
        name = next(names)
        members = [node(below) for _ in range(draw(st.integers(1, 4)))]
        kind = draw(st.sampled_from(kinds))
        policy = Quorum(draw(st.integers(1, len(members)))) if kind is Quorum else kind()
        choices = st.sampled_from(["retry", "retry", "skip", "abort"])
        return Team(
            name,
            members,
            policy,
            draw(st.none() | st.integers(1, 3)),
            answers=draw(st.lists(st.tuples(choices, beats), max_size=3)),
            **options(),
        )

    return team(depth)


def cases(tree: st.SearchStrategy[Node] | None = None) -> st.SearchStrategy[Case]:
    """Draw a case. The schedule is drawn, too, though on kept time it makes no difference."""
    stop = st.none() | st.none() | st.integers(0, 8)
    seeded = st.tuples(nodes() if tree is None else tree, stop, st.random_module())
    return seeded.map(lambda drawn: Case(drawn[0], drawn[1]))


def agrees(case: Case) -> None:
    """Assert that what comes of a case is what must."""
    expected, seen = expect(case), perform(case)
    for field in attrs.fields(Expected):
        mine, theirs = getattr(expected, field.name), getattr(seen, field.name)
        assert theirs == mine, f"{field.name}: expected\n{_listed(mine)}\nsaw\n{_listed(theirs)}"


def _listed(value: object) -> str:
    return "\n".join(map(repr, value)) if isinstance(value, tuple) else repr(value)


@given(cases())
def test_what_comes_of_any_tree_of_fan_outs_is_what_the_model_says(case: Case) -> None:
    agrees(case)
