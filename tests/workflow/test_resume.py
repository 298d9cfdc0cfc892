"""Going on with a run that was cut off: ``Runner(resumable=True)``, ``Runner.resume``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from parallel_agent import (
    Agent,
    BestEffort,
    Event,
    FailFast,
    FirstSuccess,
    InvocationContext,
    LoopAgent,
    NothingToResumeError,
    ParallelAgent,
    Quorum,
    RecordedFailureError,
    ReplayMismatchError,
    Retry,
    Run,
    Runner,
    SequentialAgent,
    Status,
    TreeChangedError,
    WaitAll,
    agent,
)
from parallel_agent.testing import (
    adds,
    contributes,
    emits,
    escalates,
    outputs,
    raises,
    scripted,
    sleeps,
    writes,
)
from tests.support.resuming import (
    FIRST,
    cut_log,
    differences,
    kinds_at,
    play,
    resume,
    told_apart,
    troubles,
)
from tests.workflow.trees import Diary, Yields

AT_ONCE = Retry(3, initial_delay=0, jitter=0)


def noting(name: str, diary: Diary, *, after: str | None = None, **options: Any) -> Agent:
    """Return an agent that notes that it runs, says its name, and fails if told to."""

    @agent(name=name, **options)
    async def note(ctx: InvocationContext) -> Yields:
        diary.append(ctx.path)
        yield name
        if after is not None:
            raise ValueError(after)

    return note


def all_of(log: list[Event], text: str) -> int:
    """How often something was said."""
    return sum(event.text == text for event in log)


# -------------------------------------------------------------------- what has ended stays ended


async def test_what_has_ended_is_not_run_again(autojump_clock: MockClock) -> None:
    diary: Diary = []
    tree = SequentialAgent("s", [noting(name, diary) for name in "abc"])
    whole = await play(tree)
    diary.clear()
    again = await resume(tree, cut_log(whole, whole.ended_at("s/b")))
    assert diary == ["s/c"]
    assert differences(again, whole) == []


async def test_what_has_no_record_of_its_end_is_run_again(autojump_clock: MockClock) -> None:
    diary: Diary = []
    tree = SequentialAgent("s", [noting(name, diary) for name in "abc"])
    whole = await play(tree)
    diary.clear()
    await resume(tree, cut_log(whole, whole.ended_at("s/b") - 1))
    assert diary == ["s/b", "s/c"]


async def test_a_run_that_was_cut_off_after_its_end_runs_nothing(autojump_clock: MockClock) -> None:
    diary: Diary = []
    tree = SequentialAgent("s", [noting(name, diary, output_key=name) for name in "ab"])
    whole = await play(tree)
    diary.clear()
    again = await resume(tree, cut_log(whole, len(whole.lines)))
    assert diary == []
    assert again.delivered == ()
    assert differences(again, whole) == []


async def test_finished_branches_stay_finished(autojump_clock: MockClock) -> None:
    diary: Diary = []
    tree = ParallelAgent("p", [noting(name, diary, output_key=name) for name in "abc"])
    whole = await play(tree)
    diary.clear()
    again = await resume(tree, cut_log(whole, whole.ended_at("p/a")))
    assert "p/a" not in diary
    assert again.result.output == {"a": "a", "b": "b", "c": "c"}


async def test_finished_items_of_a_map_stay_finished(autojump_clock: MockClock) -> None:
    diary: list[int] = []

    @agent
    async def double(ctx: InvocationContext) -> int:
        diary.append(ctx.input)
        await trio.sleep(ctx.input)
        return int(ctx.input) * 2

    @agent
    async def over(ctx: InvocationContext) -> Yields:
        yield Event(output=await ctx.map(double, [1, 2, 3]))

    whole = await play(over)
    diary.clear()
    again = await resume(over, cut_log(whole, whole.ended_at("over/double@2")))
    assert diary == [3]
    assert again.result.output == [2, 4, 6] == whole.result.output


async def test_a_loop_goes_on_in_its_iteration(autojump_clock: MockClock) -> None:
    diary: Diary = []
    tree = LoopAgent("loop", [noting("a", diary), noting("b", diary)], max_iterations=3)
    whole = await play(tree)
    diary.clear()
    await resume(tree, cut_log(whole, whole.ended_at("loop/a@2")))
    assert diary == ["loop/b@2", "loop/a@3", "loop/b@3"]


async def test_a_loop_that_something_has_escalated_to_does_not_go_on(
    autojump_clock: MockClock,
) -> None:
    tree = LoopAgent(
        "loop", [scripted("a", escalates("enough")), scripted("b", emits("b"))], max_iterations=3
    )
    whole = await play(tree)
    again = await resume(tree, cut_log(whole, whole.ended_at("loop/a@1")))
    assert again.delivered == ()
    assert again.began == ("loop",)


async def test_a_join_fires_once(autojump_clock: MockClock) -> None:
    tree = SequentialAgent("s", [ParallelAgent("p", [scripted("a"), scripted("b")]), scripted("z")])
    whole = await play(tree)
    for at in range(FIRST, len(whole.lines) + 1):
        again = await resume(tree, cut_log(whole, at))
        joins = [event for event in again.result.events if event.actions.outcomes]
        assert [(event.path, len(event.actions.outcomes)) for event in joins] == [("s/p", 2)]


async def test_outcomes_are_there_of_a_fan_out_that_is_not_run_again(
    autojump_clock: MockClock,
) -> None:
    bad = scripted("bad", raises(ValueError("no")), retry=Retry(2, initial_delay=0))

    @agent
    async def look(ctx: InvocationContext) -> Yields:
        for one in ctx.outcomes("p"):
            yield f"{one.name} {one.status} {one.attempts} {type(one.error).__name__} {one.path}"

    fan = ParallelAgent("p", [scripted("good"), bad], barrier=BestEffort())
    tree = SequentialAgent("s", [fan, look])
    whole = await play(tree)
    again = await resume(tree, cut_log(whole, whole.ended_at("s/p")))
    assert [event.text for event in again.delivered if event.text] == [
        "good completed 1 NoneType s/p/good",
        "bad failed 2 ValueError s/p/bad~2",
    ]


# ------------------------------------------------------------------------------- failed attempts


async def test_attempts_that_failed_are_counted(autojump_clock: MockClock) -> None:
    diary: Diary = []
    tree = noting("a", diary, after="no", retry=AT_ONCE)
    whole = await play(tree)
    assert diary == ["a", "a~2", "a~3"]
    diary.clear()
    again = await resume(tree, cut_log(whole, whole.places("attempt", "a")[0]))
    assert diary == ["a~2", "a~3"]
    assert differences(again, whole) == []


async def test_attempts_below_a_later_attempt_are_counted_anew(autojump_clock: MockClock) -> None:
    diary: Diary = []
    inner = noting("a", diary, after="no", retry=Retry(2, initial_delay=0))
    fan = ParallelAgent("p", [inner], barrier=WaitAll())
    tree = SequentialAgent("s", [fan], retry=Retry(2, initial_delay=0))
    assert await troubles(tree, twice=True) == []


# ----------------------------------------------------------------------------- recorded failures


class OddError(Exception):
    """What takes more than words to make."""

    def __init__(self, one: int, *, two: int) -> None:
        super().__init__(f"{one} and {two}")


async def test_a_recorded_failure_is_raised_again(autojump_clock: MockClock) -> None:
    tree = SequentialAgent("s", [scripted("a", raises(ValueError("no")))])
    whole = await play(tree)
    again = await resume(tree, cut_log(whole, whole.ended_at("s/a")))
    assert isinstance(again.error, RecordedFailureError)
    assert isinstance(again.error, ValueError)
    assert (again.error.kind, str(again.error)) == ("builtins.ValueError", "no")
    assert again.result.status is Status.FAILED
    assert again.unfinished == ()


async def test_a_recorded_failure_of_a_class_with_arguments_is_of_it(
    autojump_clock: MockClock,
) -> None:
    tree = SequentialAgent("s", [noting("a", [], after="x")])
    odd = SequentialAgent("s", [scripted("a", raises(OddError(1, two=2)))])
    whole = await play(odd)
    assert await troubles(tree) == []
    again = await resume(odd, cut_log(whole, whole.ended_at("s/a")))
    assert isinstance(again.error, OddError)
    assert str(again.error) == "1 and 2"


async def test_a_recorded_failure_of_a_class_that_is_not_there_says_its_name(
    autojump_clock: MockClock,
) -> None:
    class LocalError(Exception):
        pass

    tree = SequentialAgent("s", [scripted("a", raises(LocalError("gone")))])
    whole = await play(tree)
    again = await resume(tree, cut_log(whole, whole.ended_at("s/a")))
    assert isinstance(again.error, RecordedFailureError)
    assert again.error.kind.endswith("LocalError")
    assert not isinstance(again.error, LocalError)


def catcher(what: type[Exception]) -> Agent:
    """Return an agent that runs one that fails, and catches that."""
    bad = scripted("bad", raises(ValueError("no")))

    @agent
    async def careful(ctx: InvocationContext) -> Yields:
        try:
            await ctx.run_agent(bad)
        except what as exc:
            yield f"caught {type(exc).__name__}: {exc}"

    return careful


async def test_an_agent_catches_a_recorded_failure_as_it_did(autojump_clock: MockClock) -> None:
    assert await troubles(catcher(ValueError), twice=True) == []


async def test_an_agent_that_would_not_catch_a_failure_does_not_catch_the_recorded_one(
    autojump_clock: MockClock,
) -> None:
    whole = await play(catcher(KeyError))
    assert isinstance(whole.error, ValueError)
    assert await troubles(catcher(KeyError)) == []


async def test_a_recorded_failure_is_worth_another_attempt_if_it_was(
    autojump_clock: MockClock,
) -> None:
    for on in (ValueError, KeyError):
        retry = Retry(2, initial_delay=0, on=on)
        tree = SequentialAgent("s", [scripted("a", raises(ValueError("no")))], retry=retry)
        whole = await play(tree)
        again = await resume(tree, cut_log(whole, whole.ended_at("s/a")))
        assert again.began == (("s", "s~2", "s~2/a") if on is ValueError else ("s",))
        assert differences(again, whole) == []


async def test_what_had_all_its_attempts_is_not_given_more_from_above(
    autojump_clock: MockClock,
) -> None:
    inner = scripted("a", raises(ValueError("no")), retry=Retry(2, initial_delay=0))
    tree = SequentialAgent("s", [inner], retry=Retry(2, initial_delay=0))
    assert await troubles(tree, twice=True) == []


async def test_a_group_of_failures_is_put_together_again(autojump_clock: MockClock) -> None:
    bad = [scripted(name, raises(ValueError(name))) for name in "ab"]
    tree = SequentialAgent("s", [ParallelAgent("p", bad, barrier=WaitAll())])
    whole = await play(tree)
    assert isinstance(whole.error, ExceptionGroup)
    assert await troubles(tree, twice=True) == []


# ----------------------------------------------------------------------------------------- state


async def test_what_was_written_before_the_cut_is_gone_when_the_agent_starts_again(
    autojump_clock: MockClock,
) -> None:
    @agent
    async def writer(ctx: InvocationContext) -> Yields:
        yield f"there: {sorted(ctx.state.items())}"
        ctx.state["new"] = 1
        ctx.state["old"] = ctx.state["old"] + 1
        yield "written"
        yield "more"

    tree = SequentialAgent("s", [scripted("a", writes("old", 5)), writer])
    assert await troubles(tree, twice=True) == []
    whole = await play(tree)
    again = await resume(tree, cut_log(whole, whole.after("more")))
    assert again.delivered[0].text == "there: [('old', 5)]"
    (record,) = [event for event in again.log if event.state_unset]
    assert record.state_unset == ("new",)
    assert record.state_delta == {"old": 5, "new": None}


async def test_what_was_written_with_a_question_is_written_once(autojump_clock: MockClock) -> None:
    @agent
    async def counts(ctx: InvocationContext) -> Yields:
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        ctx.state.contribute("t", 10)
        answer = await ctx.request_input("go on?")
        yield f"{answer} {ctx.state['n']} {ctx.state['t']}"

    async def answer(run: Run, event: Event) -> None:
        if event.request is not None:
            await run.respond(event.request.id, "yes")

    assert await troubles(counts, twice=True, saw=False, on_event=answer) == []


async def test_contributions_are_taken_back_and_made_again(autojump_clock: MockClock) -> None:
    adders = [
        scripted(name, contributes("t", n), emits(name), contributes("t", n), sleeps(n))
        for n, name in enumerate("abc", 1)
    ]
    tree = SequentialAgent("s", [scripted("z", contributes("t", 100)), ParallelAgent("p", adders)])
    assert (await play(tree)).result.state["t"] == 112
    assert await troubles(tree, twice=True) == []


async def test_lists_that_branches_append_to_are_put_together_again(
    autojump_clock: MockClock,
) -> None:
    reducers = {"all": "append"}
    steps = [
        scripted(name, sleeps(n), contributes("all", name), emits(name), sleeps(5))
        for n, name in enumerate("abc", 1)
    ]
    tree = ParallelAgent("p", steps)
    whole = await play(tree, reducers=reducers)
    for at in range(FIRST, len(whole.lines) + 1):
        again = await resume(tree, cut_log(whole, at), reducers=reducers)
        assert sorted(again.result.state["all"]) == ["a", "b", "c"]


async def test_keys_that_other_sessions_share_are_left_alone(autojump_clock: MockClock) -> None:
    @agent
    async def shares(ctx: InvocationContext) -> Yields:
        yield f"{ctx.state.get('user:k')} {ctx.state.get('app:k')}"
        ctx.state["user:k"] = ctx.state["app:k"] = 1
        yield "written"

    whole = await play(shares)
    again = await resume(shares, cut_log(whole, whole.after("written")))
    assert again.delivered[0].text == "1 1"


async def test_what_an_attempt_has_written_is_there_when_it_goes_on(
    autojump_clock: MockClock,
) -> None:
    def make() -> Agent:
        @agent
        async def last(ctx: InvocationContext) -> Yields:
            yield f"{ctx.state.get('x')} {ctx.state.get('t')} {ctx.state.get('a')}"
            if "~" not in ctx.path:
                message = "once"
                raise ValueError(message)

        first = scripted("a", adds("x"), contributes("t", 2), emits("a"), output_key="a")
        inside = ParallelAgent("p", [first, scripted("b", contributes("t", 3), emits("b"))])
        return SequentialAgent("s", [inside, last], retry=AT_ONCE)

    whole = await play(make())
    assert whole.result.state["x"] == 1
    assert whole.result.state["t"] == 5
    assert await troubles(make, twice=True) == []


async def test_temporary_keys_are_not_there_after_a_cut(autojump_clock: MockClock) -> None:
    @agent
    async def look(ctx: InvocationContext) -> Yields:
        yield f"{ctx.state.get('temp:k')}"

    tree = SequentialAgent("s", [scripted("a", writes("temp:k", 1), emits("a")), look])
    whole = await play(tree)
    again = await resume(tree, cut_log(whole, whole.ended_at("s/a")))
    assert [event.text for event in again.delivered if event.text] == ["None"]


# --------------------------------------------------------------------------------------- barriers


def contest(barrier: Any, *, bad: str = "", diary: Diary) -> Agent:
    """Return a fan-out of three, done after 1, 2 and 3 seconds; those in ``bad`` fail."""
    runners = []
    for seconds, name in enumerate("abc", 1):

        @agent(name=name)
        async def run(ctx: InvocationContext, name: str = name, seconds: int = seconds) -> Yields:
            diary.append(ctx.path)
            yield f"{name} starts"
            await trio.sleep(seconds)
            if name in bad:
                raise ValueError(name)
            yield f"{name} ends"

        runners.append(run)
    return ParallelAgent("p", runners, barrier=barrier, output_key="out")


BARRIERS: list[tuple[Any, str]] = [
    (FailFast(), ""),
    (FailFast(), "b"),
    (WaitAll(), "ac"),
    (BestEffort(), "ab"),
    (FirstSuccess(), ""),
    (FirstSuccess(), "ab"),
    (FirstSuccess(), "abc"),
    (Quorum(2), ""),
    (Quorum(2), "a"),
    (Quorum(2), "ab"),
]


@pytest.mark.parametrize(("barrier", "bad"), BARRIERS, ids=str)
async def test_a_policy_decides_as_it_would_have(
    barrier: Any, bad: str, autojump_clock: MockClock
) -> None:
    def make() -> Agent:
        after = scripted("z", emits("z"))
        return SequentialAgent("s", [contest(barrier, bad=bad, diary=[]), after])

    assert await troubles(make) == []


@pytest.mark.parametrize("barrier", [FirstSuccess(), Quorum(2)], ids=str)
async def test_losers_are_not_run_again_once_it_is_decided(
    barrier: Any, autojump_clock: MockClock
) -> None:
    diary: Diary = []
    tree = contest(barrier, diary=diary)
    whole = await play(tree)
    decider = "p/a" if barrier == FirstSuccess() else "p/b"
    diary.clear()
    again = await resume(tree, cut_log(whole, whole.ended_at(decider)))
    assert diary == []
    assert differences(again, whole) == []


async def test_siblings_that_an_escalation_has_ended_stay_ended(autojump_clock: MockClock) -> None:
    ender = scripted("a", sleeps(1), escalates("enough"), sleeps(1), emits("a ends"))
    tree = ParallelAgent("p", [ender, scripted("b", emits("b"), sleeps(9), emits("never"))])
    whole = await play(tree)
    for at in range(whole.after("enough"), len(whole.lines) + 1):
        again = await resume(tree, cut_log(whole, at))
        assert "p/b" not in again.began, at
        assert again.result.status is Status.COMPLETED
        assert [one.status for one in again.run.outcomes("p")] == ["completed", "cancelled"]


@pytest.mark.parametrize("barrier", [FailFast(), Quorum(2), WaitAll()], ids=str)
async def test_branches_of_a_block_that_an_escalation_has_ended_stay_ended(
    barrier: Any, autojump_clock: MockClock
) -> None:
    ender = scripted("a", sleeps(1), escalates("enough"), sleeps(1), emits("a ends"))
    other = scripted("b", emits("b"), sleeps(9), emits("never"))

    @agent
    async def forks(ctx: InvocationContext) -> Yields:
        async with ctx.open_fan_out(barrier=barrier) as group:
            for one in (other, ender, other):
                group.start(one)
        yield f"{[str(one.status) for one in ctx.outcomes('forks')]}"

    whole = await play(forks)
    assert whole.result.text == "['cancelled', 'completed', 'cancelled']"
    for at in range(whole.after("enough"), len(whole.lines) + 1):
        again = await resume(forks, cut_log(whole, at))
        assert not [path for path in again.began if "/b@" in path], at
        assert differences(again, whole) == []


async def test_fan_outs_in_loops_in_retries_go_on(autojump_clock: MockClock) -> None:
    def make() -> Agent:
        inner = ParallelAgent(
            "q", [scripted("c", contributes("t", 1), emits("c")), scripted("d", adds("d"))]
        )
        fan = ParallelAgent("p", [SequentialAgent("s", [inner, scripted("e", adds("e"))])])
        loop = LoopAgent("l", [fan], max_iterations=2)

        @agent
        async def fails_once(ctx: InvocationContext) -> Yields:
            yield f"{ctx.state['t']} {ctx.state['d']} {ctx.state['e']}"
            if "~" not in ctx.path:
                message = "once"
                raise ValueError(message)

        return SequentialAgent("r", [loop, fails_once], retry=AT_ONCE)

    whole = await play(make())
    assert {key: whole.result.state[key] for key in "tde"} == {"t": 2, "d": 2, "e": 2}
    assert await troubles(make) == []


# ------------------------------------------------------------------------------------ checkpoints


def stepwise(diary: Diary, **options: Any) -> Agent:
    """Return an agent of three parts, with a checkpoint after each, and a child in each."""
    child = noting("child", diary)

    @agent(name="parts", **options)
    async def parts(ctx: InvocationContext) -> Yields:
        done = ctx.restored or 0
        diary.append(f"{ctx.path} from {done}")
        for part in range(done + 1, 4):
            await ctx.run_agent(child)
            ctx.state["sum"] = ctx.state.get("sum", 0) + part
            yield f"part {part}"
            await ctx.checkpoint(part)
        if options.get("retry") is not None and "~" not in ctx.path:
            message = "once"
            raise ValueError(message)

    return parts


async def test_an_agent_starts_again_from_its_checkpoint(autojump_clock: MockClock) -> None:
    diary: Diary = []
    tree = stepwise(diary)
    whole = await play(tree)
    diary.clear()
    again = await resume(tree, cut_log(whole, whole.places("checkpoint")[1]))
    assert diary == ["parts from 2", "parts/child@3"]
    assert again.result.state["sum"] == 6
    assert differences(again, whole) == []


@pytest.mark.parametrize("retry", [None, AT_ONCE], ids=["once", "retried"])
async def test_checkpoints_make_no_difference(
    retry: Retry | None, autojump_clock: MockClock
) -> None:
    assert await troubles(lambda: stepwise([], retry=retry), twice=True, saw=False) == []


async def test_a_later_attempt_begins_without_the_checkpoints_of_the_one_before(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []
    tree = stepwise(diary, retry=AT_ONCE)
    whole = await play(tree)
    starts = ["parts from 0", "parts~2 from 0"]
    assert [line for line in diary if "from" in line] == starts
    diary.clear()
    await resume(tree, cut_log(whole, whole.places("attempt", "parts")[0]))
    assert diary[0] == "parts~2 from 0"


async def test_what_was_said_before_the_checkpoint_of_a_later_attempt_is_in_its_history(
    autojump_clock: MockClock,
) -> None:
    seen: list[list[str]] = []

    @agent(retry=AT_ONCE)
    async def speaks(ctx: InvocationContext) -> Yields:
        if "~" not in ctx.path:
            yield "first attempt"
            message = "once"
            raise ValueError(message)
        if ctx.restored is None:
            yield "before"
            await ctx.checkpoint(1)
        yield "after"
        seen.append([event.text for event in ctx.history()])

    whole = await play(speaks)
    await resume(speaks, cut_log(whole, whole.places("checkpoint")[0]))
    assert seen[0] == seen[1] == ["hi", "before", "after"]


# ---------------------------------------------------------------------------- branches at run time


def forker(diary: Diary, *, inputs: Callable[[], list[int]], keys: bool = False) -> Agent:
    """Return an agent that starts a branch for each input, and tells as they end."""

    @agent
    async def waits(ctx: InvocationContext) -> Yields:
        diary.append(ctx.path)
        await trio.sleep(ctx.input)
        yield Event(output=ctx.input)

    @agent
    async def forks(ctx: InvocationContext) -> Yields:
        async with ctx.open_fan_out() as group:
            for one in inputs():
                group.start(waits, one, key=f"k{one}" if keys else None)
            async for handle in group.finished:
                yield f"{handle.name} {await handle}"

    return forks


@pytest.mark.parametrize("keys", [False, True], ids=["numbers", "keys"])
async def test_branches_are_finished_in_the_order_in_which_they_had_ended(
    *, keys: bool, autojump_clock: MockClock
) -> None:
    def make() -> Agent:
        return forker([], inputs=lambda: [3, 1, 2], keys=keys)

    whole = await play(make())
    for at in range(FIRST, len(whole.lines) + 1):
        again = await resume(make(), cut_log(whole, at))
        said = [event.text for event in again.result.events if event.text]
        assert said == [event.text for event in whole.result.events if event.text], at
        assert told_apart(again, whole, at) == []


async def test_branches_with_keys_may_be_started_in_another_order(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []
    whole = await play(forker(diary, inputs=lambda: [3, 1, 2], keys=True))
    diary.clear()
    other = forker(diary, inputs=lambda: [2, 3, 1], keys=True)
    again = await resume(other, cut_log(whole, whole.ended_at("forks/waits@k2")))
    assert again.error is None
    assert diary == ["forks/waits@k3"]


def planner(*inputs: int) -> Agent:
    return forker([], inputs=lambda: list(inputs))


MISMATCHES: list[tuple[str, Agent, str]] = [
    ("other input", planner(7, 2, 3), "forks/waits@1"),
    ("fewer", planner(1), "forks/waits@2"),
    ("none", planner(), "forks/waits@1"),
]


@pytest.mark.parametrize(
    ("other", "path"),
    [(other, path) for _, other, path in MISMATCHES],
    ids=[name for name, *_ in MISMATCHES],
)
async def test_a_planner_that_decides_otherwise_is_refused_and_can_be_mended(
    other: Agent, path: str, autojump_clock: MockClock
) -> None:
    whole = await play(planner(1, 2, 3))
    refused = await resume(other, cut_log(whole, whole.ended_at("forks/waits@2")))
    assert isinstance(refused.error, ReplayMismatchError)
    assert path in refused.error.paths
    assert path in str(refused.error)
    assert refused.unfinished == ("interrupted",)
    mended = await resume(planner(1, 2, 3), cut_log(refused, len(refused.lines)))
    assert differences(mended, whole) == []


async def test_a_planner_that_starts_another_agent_is_refused(autojump_clock: MockClock) -> None:
    def plans(name: str) -> Agent:
        @agent
        async def plan(ctx: InvocationContext) -> Yields:
            await ctx.run_agent(scripted(name, emits("done")))
            yield "planned"

        return plan

    whole = await play(plans("a"))
    refused = await resume(plans("b"), cut_log(whole, whole.ended_at("plan/a@1")))
    assert isinstance(refused.error, ReplayMismatchError)
    assert refused.error.paths == ("plan/a@1",)
    assert refused.unfinished == ("interrupted",)
    mended = await resume(plans("a"), cut_log(refused, len(refused.lines)))
    assert differences(mended, whole) == []


# ---------------------------------------------------------------------------------- changed trees


def a_tree(
    *,
    names: str = "ab",
    kind: Any = ParallelAgent,
    most: int = 2,
    barrier: Any = None,
    key: str | None = "k",
) -> Agent:
    inside = [
        scripted(name, emits(name), output_key=key if name == "a" else None) for name in names
    ]
    options = {} if barrier is None else {"barrier": barrier}
    return LoopAgent("l", [kind("x", inside, **options)], max_iterations=most)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (a_tree(names="ac"), "+ 2 c: ScriptedAgent"),
        (a_tree(names="ba"), "2 b: ScriptedAgent"),
        (a_tree(names="abc"), "+ 2 c: ScriptedAgent"),
        (a_tree(kind=SequentialAgent), "+ 1 x: SequentialAgent"),
        (a_tree(most=3), "at most 3"),
        (a_tree(barrier=BestEffort()), "BestEffort()"),
        (a_tree(key=None), "- 2 a: ScriptedAgent -> k"),
        (a_tree(key="j"), "+ 2 a: ScriptedAgent -> j"),
    ],
    ids=["name", "order", "more", "kind", "iterations", "barrier", "no key", "key"],
)
async def test_another_tree_is_refused_and_nothing_has_changed(
    other: Agent, says: str, autojump_clock: MockClock
) -> None:
    whole = await play(a_tree())
    cut = cut_log(whole, whole.ended_at("l/x@1/a"))
    service = await cut.service()
    runner = Runner(other, app_name="app", session_service=service, resumable=True)
    with pytest.raises(TreeChangedError) as refused:
        await runner.resume("s")
    assert says in str(refused.value)
    session = await service.get(app_name="app", user_id="user", session_id="s")
    assert session is not None
    assert len(session.events) == len(cut.lines)
    assert [one.status for one in await runner.unfinished()] == ["interrupted"]
    right = Runner(a_tree(), app_name="app", session_service=service, resumable=True)
    assert (await right.resume("s")).output == whole.result.output


async def test_what_agents_do_may_be_mended(autojump_clock: MockClock) -> None:
    broken = SequentialAgent("s", [scripted("a", outputs(1)), scripted("b", raises(ValueError()))])
    mended = SequentialAgent("s", [scripted("a", outputs(1)), scripted("b", outputs(2))])
    whole = await play(broken)
    again = await resume(mended, cut_log(whole, whole.ended_at("s/a")))
    assert again.result.outputs == {"a": 1, "b": 2, "s": 2}


async def test_a_run_of_which_nothing_was_recorded_cannot_be_resumed(
    autojump_clock: MockClock,
) -> None:
    tree = scripted("a", emits("x"))
    whole = await play(tree)
    with pytest.raises(NothingToResumeError, match="ended before anything was recorded"):
        await resume(tree, cut_log(whole, 1))


# ---------------------------------------------------------------------------------------- history


async def test_a_leaf_that_starts_again_sees_nothing_of_its_earlier_execution(
    autojump_clock: MockClock,
) -> None:
    seen: list[list[str]] = []

    @agent
    async def looks(ctx: InvocationContext) -> Yields:
        seen.append([event.text for event in ctx.history()])
        yield "said before"
        yield "said too"

    fan = ParallelAgent("p", [looks, scripted("b", emits("b said"), sleeps(1))])
    tree = SequentialAgent("s", [scripted("a", emits("a said")), fan])
    whole = await play(tree)
    await resume(tree, cut_log(whole, whole.after("said too")))
    assert seen == [["hi", "a said"]] * 2


async def test_records_are_in_nobody_s_view(autojump_clock: MockClock) -> None:
    seen: list[Event] = []

    @agent
    async def looks(ctx: InvocationContext) -> Yields:
        seen.extend(ctx.history())
        await ctx.checkpoint(1)
        yield "looked"

    tree = SequentialAgent("r", [scripted("b", emits("b")), looks])
    whole = await play(tree)
    assert set(kinds_at(whole.log)) >= {"start", "end", "checkpoint"}
    for at in range(FIRST, len(whole.lines) + 1):
        again = await resume(tree, cut_log(whole, at))
        for event in (*seen, *again.delivered, *again.result.events):
            assert not event.is_record


async def test_an_ordinary_run_notes_nothing(autojump_clock: MockClock) -> None:
    @agent
    async def keeps(ctx: InvocationContext) -> Yields:
        await ctx.checkpoint(1)
        yield str(await ctx.once("k", lambda: 1))

    inside = [keeps, scripted("b", adds("n"), contributes("t", 1), emits("b"))]
    tree = ParallelAgent("p", inside, output_key="out")
    told = await play(tree, resumable=False)
    assert [event.journal for event in told.log] == [None] * len(told.log)
    assert not any("journal" in line for line in told.lines)
    assert told.unfinished == ()
