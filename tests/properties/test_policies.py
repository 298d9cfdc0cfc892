"""Fan-outs of every policy, whole runs of them, against a pure model of what must come out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, Final, TypeAlias, cast

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
    Verdict,
    WaitAll,
    agent,
    barrier,
    crew,
    drive,
    fan_out,
)
from parallel_agent.activation import Activation
from parallel_agent.branch import Place
from parallel_agent.crew import Crew, Task
from parallel_agent.lifecycle import Step
from parallel_agent.workflow import parallel
from tests.support.drawing import fewer
from tests.support.policies import (
    Case,
    Choice,
    End,
    Ending,
    Expected,
    Kind,
    Line,
    Node,
    OnCancel,
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
    """What the workers of one run note down.

    Attributes:
        runs: how often each has run.
        cleaned: when their clean-up was over.
        last_seqs: the path of each, and the last event of the log when its clean-up was over.
        peaks: how many members of a team were at work at once.
    """

    def __init__(self, tree: Node, times: Times) -> None:
        self.times = times
        self.runs: Counter[str] = Counter()
        self.cleaned: list[tuple[float, str]] = []
        self.last_seqs: list[tuple[str, int]] = []
        self.peaks: Counter[str] = Counter()
        self._at_work: Counter[str] = Counter()
        self._teams = {
            member.name: team.name
            for team in nodes_of(tree)
            if isinstance(team, Team)
            for member in team.members
        }

    def begins(self, name: str) -> int:
        self.runs[name] += 1
        team = self._teams.get(name, "")
        self._at_work[team] += 1
        self.peaks[team] = max(self.peaks[team], self._at_work[team])
        return self.runs[name]

    def has_cleaned_up(self, ctx: InvocationContext) -> None:
        name = ctx.agent.name
        self._at_work[self._teams.get(name, "")] -= 1
        self.cleaned.append((trio.current_time(), name))
        self.last_seqs.append((ctx.path, ctx._activation.invocation.stream.session.last_seq))


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

    async def act(ctx: InvocationContext) -> None:
        for position, (beats, kind) in enumerate(node.acts):
            await trio.sleep(times.of(f"{name}/{position}", beats))
            actions = EventActions(escalate=True) if kind == "stop" else None
            await ctx.emit(Event(f"{name} {kind}s {position}", actions=actions))
        await trio.sleep(times.of(f"{name}/last", node.last))

    async def clean_up(ctx: InvocationContext) -> None:
        with trio.CancelScope(shield=True):
            if node.clean_up:
                await trio.sleep(times.of(f"{name}/clean_up", node.clean_up))
            book.has_cleaned_up(ctx)
            if node.clean_up and node.goodbye:
                await ctx.emit(f"{name} says goodbye")

    @agent(name=name)
    async def play(ctx: InvocationContext) -> str:
        number = book.begins(name)
        text = f"{name} {number}"
        try:
            await act(ctx)
            _end(node.ends[min(number, len(node.ends)) - 1], text)
        except trio.Cancelled:
            if node.when_cancelled == "passes":
                raise
            _end(node.when_cancelled, f"{text} cleaning up")
            return "stolen"
        finally:
            await clean_up(ctx)
        return text

    return play


def _end(how: str, text: str) -> None:
    if how == "fails":
        raise ScriptedError(text) from None
    if how == "exits":
        raise SystemExit(text) from None


@attrs.frozen
class Report:
    """What came of a case: in the terms of what must, and what was seen beside that."""

    case: Case
    came: Expected
    events: list[Event]
    book: _Book
    run: Run


def perform(case: Case, *, apart: bool = True) -> Report:
    """Run a case. Things meet at the same moment if they are not kept ``apart``."""
    return trio.run(_perform, case, apart, clock=clock_with_horizon())


async def _perform(case: Case, apart: bool) -> Report:  # noqa: FBT001  # for trio.run
    times = Times(case.tree, apart=apart)
    book = _Book(case.tree, times)
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
        with suppress(ResponseRefusedError):  # withdrawn meanwhile
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
    came = Expected(
        log=tuple(_line(event) for event in delivered),
        endings=endings,
        cleaned=tuple(sorted(book.cleaned)),
        error=_shown(error),
        status=str(run.result.status),
        output=run.result.output,
        end=end,
    )
    return Report(case, came, delivered, book, run)


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

BEATS = st.integers(0, 3)
SAYS: list[Kind] = ["say"] * 6
STOPS: list[Kind] = ["stop"]
ENDS: list[End] = ["returns", "fails"] * 4
EXITS: list[End] = ["exits"]
CHOICES: list[Choice] = ["retry", "retry", "skip", "abort"]


@attrs.frozen
class Allowed:
    """What a drawn tree may hold, beside workers that say something, and fail or do not."""

    policies: tuple[type[Barrier], ...] = POLICIES
    attempts: bool = True
    stops: bool = True
    exits: bool = True
    cleanups: bool = True
    limits: bool = True
    depth: int = 2

    def acts(self) -> st.SearchStrategy[tuple[int, Kind]]:
        return st.tuples(BEATS, st.sampled_from(SAYS + STOPS * self.stops))

    def ends(self) -> st.SearchStrategy[End]:
        return st.sampled_from(ENDS + EXITS * self.exits)

    def on_cancel(self) -> st.SearchStrategy[OnCancel]:
        if not self.cleanups:
            return st.just("passes")
        ways: list[OnCancel] = ["passes", "passes", "fails", "returns", "fails", "returns"]
        return st.sampled_from(ways + ["exits"] * self.exits)


ANYTHING = Allowed()


@st.composite
def trees(draw: st.DrawFn, allowed: Allowed = ANYTHING) -> Node:
    """Draw a tree whose root is a team."""
    names = (f"{letter}{number or ''}" for number in count() for letter in "abcdefghijklmnopq")
    rarely = st.sampled_from([False] * 5 + [True])

    def options() -> dict[str, Any]:
        if not allowed.attempts:
            return {}
        return {
            "tries": draw(st.integers(2, 3)) if draw(rarely) else 1,
            "timeout": draw(st.integers(0, 6)) if draw(rarely) else None,
        }

    def node(below: int) -> Node:
        kind = draw(st.sampled_from([*[Worker] * 4, Team, Row])) if below else Worker
        name = next(names)
        if kind is Worker:
            return Worker(
                name,
                draw(st.lists(allowed.acts(), max_size=2)),
                draw(BEATS),
                draw(st.lists(allowed.ends(), min_size=1, max_size=3)),
                draw(allowed.on_cancel()),
                draw(st.sampled_from([0, 0, 1, 3])) if allowed.cleanups else 0,
                draw(st.booleans()),
                **options(),
            )
        if kind is Team:
            return team(name, below - 1)
        return Row(name, [node(below - 1) for _ in range(draw(st.integers(1, 2)))], **options())

    def team(name: str, below: int) -> Team:
        members = [node(below) for _ in range(draw(st.integers(1, 4)))]
        kind = draw(st.sampled_from(allowed.policies))
        return Team(
            name,
            members,
            Quorum(draw(st.integers(1, len(members)))) if kind is Quorum else kind(),
            draw(st.none() | st.integers(1, 3)) if allowed.limits else None,
            answers=draw(st.lists(st.tuples(st.sampled_from(CHOICES), BEATS), max_size=3)),
            **options(),
        )

    return team(next(names), allowed.depth)


def cases(allowed: Allowed = ANYTHING) -> st.SearchStrategy[Case]:
    """Draw a case, and the schedule with it."""
    stop = st.none() | st.none() | st.integers(0, 8)
    drawn = st.tuples(trees(allowed), stop, st.random_module())
    return drawn.map(lambda three: Case(three[0], three[1]))


# Against the model.


def agrees(case: Case) -> None:
    """Assert that what comes of a case is what must."""
    expected, came = expect(case), perform(case).came
    for field in attrs.fields(Expected):
        mine, theirs = getattr(expected, field.name), getattr(came, field.name)
        assert theirs == mine, f"{field.name}: expected\n{_listed(mine)}\nsaw\n{_listed(theirs)}"


def _listed(value: object) -> str:
    return "\n".join(map(repr, value)) if isinstance(value, tuple) else repr(value)


@given(cases())
def test_what_comes_of_any_tree_of_fan_outs_is_what_the_model_says(case: Case) -> None:
    agrees(case)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
def test_what_comes_of_one_policy_is_what_the_model_says(policy: type[Barrier]) -> None:
    drawn = cases(Allowed((policy,), attempts=False, exits=False, depth=1))
    fewer(5)(given(drawn)(agrees))()


# Whatever meets whatever at the same moment.


def hold(case: Case) -> None:
    """Assert what holds of every run, on whatever schedule."""
    report = perform(case, apart=False)
    for law in LAWS:
        law(report)


def _nothing_of_a_branch_follows_the_outcomes(report: Report) -> None:
    for place, event in enumerate(report.events):
        if event.actions.outcomes:
            below = f"{event.path}/"
            after = [late for late in report.events[place:] if late.path.startswith(below)]
            assert not after, f"{after} came after the outcomes of {event.path}"


def _every_loser_has_cleaned_up_before_the_fan_out_answers(report: Report) -> None:
    for event in report.events:
        if event.actions.outcomes:
            for path, last_seq in report.book.last_seqs:
                if path.startswith(f"{event.path}/"):
                    assert last_seq < (event.seq or 0), f"{path} cleaned up too late"


def _outcomes_are_in_declaration_order(report: Report) -> None:
    for team in nodes_of(report.case.tree):
        if isinstance(team, Team) and team.name in report.came.endings:
            names = [ending.name for ending in report.came.endings[team.name]]
            assert names == [member.name for member in team.members]


def _a_cancelled_branch_never_wins(report: Report) -> None:
    assert "stolen" not in [event.text for event in report.events]
    for endings in report.came.endings.values():
        for ending in endings:
            assert (ending.output is not None) == (ending.status == "completed"), ending
            assert ending.output != "stolen"


def _a_branch_that_failed_has_an_error(report: Report) -> None:
    for endings in report.came.endings.values():
        for ending in endings:
            assert (ending.error is not None) == (ending.status == "failed"), ending
    assert (report.came.error is not None) == (report.came.status == "failed")


def _what_a_completed_branch_said_is_in_the_log(report: Report) -> None:
    said = {event.text for event in report.events}
    for endings in report.came.endings.values():
        for ending in endings:
            assert not isinstance(ending.output, str) or ending.output in said


def _no_limit_is_exceeded(report: Report) -> None:
    for team in nodes_of(report.case.tree):
        if isinstance(team, Team) and team.limit is not None:
            assert report.book.peaks[team.name] <= team.limit


def _every_activation_is_counted_once(report: Report) -> None:
    counts = report.run.statistics()
    assert counts.started == counts.completed + counts.failed + counts.cancelled


LAWS: Final = (
    _nothing_of_a_branch_follows_the_outcomes,
    _every_loser_has_cleaned_up_before_the_fan_out_answers,
    _outcomes_are_in_declaration_order,
    _a_cancelled_branch_never_wins,
    _a_branch_that_failed_has_an_error,
    _what_a_completed_branch_said_is_in_the_log,
    _no_limit_is_exceeded,
    _every_activation_is_counted_once,
)


@fewer(2)
@given(cases())
def test_every_law_holds_whatever_the_tree_and_the_schedule(case: Case) -> None:
    hold(case)


@st.composite
def simultaneous(draw: st.DrawFn) -> Case:
    """Draw a case in which every branch fails, or fails to, at one of two moments."""
    draw(st.random_module())
    names = iter("abcdefghijklmnopqrstuvwxyz")

    def node(below: int) -> Node:
        name = next(names)
        kind = draw(st.sampled_from([Worker, Worker, Team, Row])) if below else Worker
        if kind is Worker:
            return Worker(name, last=draw(st.integers(1, 2)), ends=["fails"])
        if kind is Row:
            return Row(name, [node(below - 1)])
        return team(name, below - 1)

    def team(name: str, below: int) -> Team:
        members = [node(below) for _ in range(draw(st.integers(1, 3)))]
        policies = [FailFast(), WaitAll(), Quorum(draw(st.integers(1, len(members))))]
        return Team(name, members, draw(st.sampled_from(policies)))

    return Case(team(next(names), 2))


def same_error(case: Case) -> None:
    """Assert that a case raises the same thing, however often and on whatever schedule it is run.

    Trio's scheduler draws from a source that Hypothesis seeds, so each run takes another order.
    """
    assert len({perform(case, apart=False).came.error for _ in range(4)}) == 1


@fewer(2)
@given(simultaneous())
def test_of_failures_in_the_same_tick_the_same_is_raised_on_every_schedule(case: Case) -> None:
    same_error(case)


# Bugs, planted one at a time: a checker that does not notice them proves nothing.

Plant: TypeAlias = Callable[[pytest.MonkeyPatch], None]
Check: TypeAlias = Callable[[Case], None]


def _losers_are_not_cancelled(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(crew, "cancel_subtree", lambda _top, _reason: None)


def _losers_of_an_event_are_not_sealed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(crew, "seal_subtree", lambda _top: None)


def _a_loser_wins(patch: pytest.MonkeyPatch) -> None:
    right = Activation.end

    def end(self: Activation, step: Step) -> None:
        if step is Step.CANCEL and self.was_started:
            self.output, step = "stolen", Step.COMPLETE
        right(self, step)

    patch.setattr(Activation, "end", end)


def _outcomes_are_recorded_before_the_losers_have_ended(patch: pytest.MonkeyPatch) -> None:
    right = Crew._cancel_rest

    async def cancel_rest(self: Crew, child: Activation, outcome: Outcome) -> None:
        await right(self, child, outcome)
        await self.record([outcome])

    patch.setattr(Crew, "_cancel_rest", cancel_rest)


def _outcomes_are_in_the_order_of_ending(patch: pytest.MonkeyPatch) -> None:
    right = Crew.join

    def join(self: Crew, tasks: Iterable[tuple[int, Task]]) -> list[Outcome]:
        right(self, tasks)
        outcomes = list(self.outcomes.values())
        self.owner.invocation.outcomes[self.owner.agent.name] = tuple(outcomes)
        return outcomes

    patch.setattr(Crew, "join", join)


def _failing_in_cleaning_up_counts_as_failing(patch: pytest.MonkeyPatch) -> None:
    async def failed_of_itself(_activation: Activation, _failure: BaseException) -> bool:
        await trio.lowlevel.checkpoint_if_cancelled()
        return True

    patch.setattr(drive, "failed_of_itself", failed_of_itself)


def _limits_are_ignored(patch: pytest.MonkeyPatch) -> None:
    async def unlimited(*args: Any, **options: Any) -> list[Outcome]:
        return await fan_out.fan_out(*args, **{**options, "max_concurrency": None})

    patch.setattr(parallel, "fan_out", unlimited)


def _the_queue_goes_on_after_the_decision(patch: pytest.MonkeyPatch) -> None:
    async def work(crew: Crew, todo: Iterator[tuple[int, Task]]) -> None:
        for position, task in todo:
            crew.closed, closed = False, crew.closed
            child = crew.fork(task)
            crew.closed = closed
            await crew.watch(position, child)

    patch.setattr(fan_out, "_work", work)


def _exits_wait_for_the_policy(patch: pytest.MonkeyPatch) -> None:
    def verdict(self: Crew, _child: Activation, outcome: Outcome) -> Verdict:
        return self.barrier.on_outcome(outcome, self._counted(outcome))

    patch.setattr(Crew, "_verdict", verdict)


def _exits_are_raised_in_groups(patch: pytest.MonkeyPatch) -> None:
    def failure(self: Crew, outcomes: list[Outcome], *_handled: Any, **_options: Any) -> Any:
        return self.barrier.failure(outcomes)

    patch.setattr(Crew, "_failure", failure)


def _losers_are_asked_about(patch: pytest.MonkeyPatch) -> None:
    right = Crew._verdict

    def verdict(self: Crew, child: Activation, outcome: Outcome) -> Verdict:
        closed, self.closed = self.closed, False
        try:
            return right(self, child, outcome)
        finally:
            self.closed = closed

    patch.setattr(Crew, "_verdict", verdict)


def _skipped_is_aborted(patch: pytest.MonkeyPatch) -> None:
    right = Crew._ask

    async def ask(self: Crew, child: Activation, outcome: Outcome) -> Any:
        again, verdict, outcome = await right(self, child, outcome)
        self._excused.clear()
        return again, verdict, outcome

    patch.setattr(Crew, "_ask", ask)


def _the_next_try_has_the_old_number(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Place, "again", lambda self: self)


def _a_fan_out_that_was_cut_short_has_failed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        crew, "failure_despite", lambda barrier, outcomes, _cut_off: barrier.failure(outcomes)
    )


def _being_cut_short_is_a_failure_of_ones_own(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(crew, "had_failed", lambda *_anything: True)


def _the_last_failure_is_raised(patch: pytest.MonkeyPatch) -> None:
    right = barrier._Listed.failure

    def failure(self: Any, outcomes: Sequence[Outcome]) -> BaseException | None:
        return right(self, outcomes[::-1])

    patch.setattr(barrier._Listed, "failure", failure)


def _only_one_failure_is_raised(patch: pytest.MonkeyPatch) -> None:
    right = barrier._failures
    patch.setattr(barrier, "_failures", lambda outcomes: right(outcomes)[:1])


def _a_lost_quorum_goes_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(barrier.Tally, "can_still_complete", lambda _self: None)


def _one_more_than_the_quorum_completes(patch: pytest.MonkeyPatch) -> None:
    right = barrier.Quorum.on_outcome

    def on_outcome(self: Any, outcome: Outcome, tally: barrier.Tally) -> Verdict:
        fewer = attrs.evolve(tally, completed=tally.completed - 1)
        return right(self, outcome, fewer)

    patch.setattr(barrier.Quorum, "on_outcome", on_outcome)


def _best_effort_fails_fast(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(barrier.BestEffort, "policy", barrier.FailFast.policy)


def _no_turn_for_who_fails_in_the_same_tick(patch: pytest.MonkeyPatch) -> None:
    async def at_once() -> None:
        pass

    patch.setattr(crew, "cancel_shielded_checkpoint", at_once)


SIMPLE: Final = Allowed(attempts=False, exits=False, stops=False, limits=False, depth=1)


def _only(policy: type[Barrier], **options: Any) -> st.SearchStrategy[Case]:
    return cases(attrs.evolve(SIMPLE, policies=(policy,), **options))


_LOSERS: Final = st.builds(
    lambda first, second, policy: Case(
        Team(
            "p",
            [
                Worker("a", [(first, "stop")], 3),
                Worker("b", [(0, "say")], 9, ["returns"], "fails", second, True),
                Worker("c", last=first, ends=["fails"]),
            ],
            policy,
            answers=[("abort", 0), ("skip", 3)],
        )
    ),
    BEATS,
    BEATS,
    st.sampled_from([FailFast(), Escalate()]),
)
"""One branch escalates, one may fail before that, and one cleans up."""

_IN_TIME: Final = st.builds(
    lambda last, timeout, policy: Case(
        Team("p", [Worker("a", ends=["fails"]), Worker("b", last=last)], policy, timeout=timeout)
    ),
    BEATS,
    BEATS,
    st.sampled_from([WaitAll(), Quorum(2)]),
)
"""One branch fails, and the other is perhaps done in time."""

KNOWN_TO_THE_MODEL: list[tuple[Plant, st.SearchStrategy[Case]]] = [
    (_losers_are_not_cancelled, _only(FirstSuccess)),
    (_losers_of_an_event_are_not_sealed, _LOSERS),
    (_a_loser_wins, _only(FirstSuccess)),
    (_outcomes_are_recorded_before_the_losers_have_ended, _only(FailFast)),
    (_outcomes_are_in_the_order_of_ending, _only(BestEffort)),
    (_failing_in_cleaning_up_counts_as_failing, _only(FailFast)),
    (_limits_are_ignored, _only(WaitAll, limits=True)),
    (_the_queue_goes_on_after_the_decision, _only(FailFast, limits=True)),
    (_exits_wait_for_the_policy, _only(WaitAll, exits=True)),
    (_exits_are_raised_in_groups, _only(BestEffort, exits=True)),
    (_losers_are_asked_about, _LOSERS),
    (_skipped_is_aborted, _only(Escalate)),
    (_the_next_try_has_the_old_number, _only(Escalate)),
    (_a_fan_out_that_was_cut_short_has_failed, _only(Quorum)),
    (_being_cut_short_is_a_failure_of_ones_own, _IN_TIME),
    (_the_last_failure_is_raised, _only(WaitAll)),
    (_only_one_failure_is_raised, _only(WaitAll)),
    (_a_lost_quorum_goes_on, _only(Quorum)),
    (_one_more_than_the_quorum_completes, _only(Quorum)),
    (_best_effort_fails_fast, _only(BestEffort)),
]
KNOWN_TO_THE_LAWS: list[tuple[Plant, st.SearchStrategy[Case]]] = [
    (_a_loser_wins, _only(FirstSuccess)),
    (_outcomes_are_recorded_before_the_losers_have_ended, _only(FailFast)),
    (_outcomes_are_in_the_order_of_ending, _only(BestEffort)),
    (_limits_are_ignored, _only(WaitAll, limits=True)),
]
CAUGHT: Final = [
    *[(plant, agrees, drawn) for plant, drawn in KNOWN_TO_THE_MODEL],
    *[(plant, hold, drawn) for plant, drawn in KNOWN_TO_THE_LAWS],
    (_no_turn_for_who_fails_in_the_same_tick, same_error, simultaneous()),
]


@fewer(5)
@given(_LOSERS | _IN_TIME)
def test_the_cases_that_are_made_for_bugs_are_as_the_model_says_without_them(
    case: Case,
) -> None:
    agrees(case)


# A broken engine leaves coroutines behind; that is not what is tested.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("plant", "check", "drawn"),
    [pytest.param(*row, id=f"{row[1].__name__}-{row[0].__name__.strip('_')}") for row in CAUGHT],
)
def test_a_planted_bug_is_caught(
    plant: Plant, check: Check, drawn: st.SearchStrategy[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    fixed = settings(
        max_examples=1_000,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    # An assertion; or the run hangs; or it leaves so much behind that examples disturb each other.
    with pytest.raises((AssertionError, trio.TrioInternalError, FlakyFailure)):
        fixed(given(drawn)(check))()
