"""An agent that fails is tried again: how often, when, and what of a failed attempt is left.

What an attempt writes in state is in ``test_attempt_state.py``, time in ``test_timeouts.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from random import Random
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    Barrier,
    BestEffort,
    Event,
    EventActions,
    FailFast,
    FirstSuccess,
    InvocationContext,
    LoopAgent,
    Outcome,
    ParallelAgent,
    Plugin,
    Quorum,
    QuorumError,
    Retry,
    Runner,
    SequentialAgent,
    Status,
    WaitAll,
    agent,
)
from session.codec import Codec
from tests.kernel.scripted import FailingService, StoreError
from tests.support.ids import shown
from tests.workflow.trees import (
    Diary,
    Ended,
    Escalate,
    Script,
    Yields,
    leaf,
    open_and_read,
    paths,
    run_tree,
    run_virtual,
    texts,
)

AT_ONCE = Retry(3, initial_delay=0)
"""Three attempts, one after the other."""


class BoomError(Exception):
    pass


def tries(
    name: str, *scripts: Iterable[Script], diary: Diary | None = None, **options: Any
) -> Agent:
    """Return an agent that plays one script at each attempt, and the last from then on.

    ``diary`` gets its path and the time when an attempt begins. Without a ``retry`` it is tried
    as often as there are scripts, without delay.
    """
    options.setdefault("retry", Retry(len(scripts), initial_delay=0))
    turns = iter(scripts)
    turn: Sequence[Script] = ()

    @agent(name=name, **options)
    async def play(ctx: InvocationContext) -> Yields:
        nonlocal turn
        turn = tuple(next(turns, turn))
        if diary is not None:
            diary.append(f"{ctx.path} at {trio.current_time():g}")
        for step in turn:
            match step:
                case str():
                    yield step
                case Escalate():
                    yield step.event()
                case int() | float():
                    await trio.sleep(step)
                case BaseException():
                    raise step
                case _:
                    result = step(ctx)
                    if isinstance(result, Event):
                        yield result
                    elif result is not None:
                        await result

    return play


def failing(name: str, diary: Diary, **options: Any) -> Agent:
    """Return an agent that fails whenever it is called; without a ``retry``, tried once."""
    return tries(name, [BoomError(name)], diary=diary, **{"retry": None, **options})


def starts(diary: Diary) -> list[float]:
    return [float(line.rpartition(" ")[2]) for line in diary]


def began(diary: Diary) -> list[str]:
    """The paths of all attempts that began, in order."""
    return [line.partition(" ")[0] for line in diary]


def calls(diary: Diary, name: str) -> int:
    """How often an agent has been called, at whatever path."""
    last = [path.rpartition("/")[2].partition("~")[0].partition("@")[0] for path in began(diary)]
    return last.count(name)


# --------------------------------------------------------------------------------------- how often


@given(st.integers(1, 6), st.integers(0, 7))
def test_attempts_include_the_first_and_stop_at_the_first_success(most: int, fails: int) -> None:
    diary = Diary()
    scripts: list[list[Script]] = [[BoomError(number)] for number in range(fails)]
    flaky = tries("flaky", *scripts, ["done"], diary=diary, retry=Retry(most, initial_delay=0))
    ended = run_tree(flaky)
    assert len(diary) == min(most, fails + 1)
    if fails < most:
        assert ended.error is None
        assert ended.result.output == "done"
    else:
        assert isinstance(ended.error, BoomError)
        assert ended.error.args == (most - 1,)
        assert ended.result.status is Status.FAILED


def test_the_last_failure_is_raised_as_itself() -> None:
    errors = [BoomError(1), BoomError(2), BoomError(3)]
    ended = run_tree(ParallelAgent("p", [tries("flaky", *[[error] for error in errors])]))
    assert ended.error is errors[2]
    assert ended.notes == ["raised by agent p/flaky~3"]


def test_a_failure_knows_nothing_of_the_ones_before() -> None:
    errors = [BoomError(1), BoomError(2)]
    ended = run_tree(tries("flaky", *[[error] for error in errors]))
    assert ended.error is errors[1]
    assert ended.error.__context__ is None


@pytest.mark.parametrize("shape", ["generator", "coroutine", "thread", "class", "callback"])
def test_whatever_an_agent_is_made_of_it_is_tried_again(shape: str) -> None:
    begun: list[str] = []

    def work(ctx: InvocationContext) -> str:
        begun.append(ctx.path)
        if len(begun) < 3:
            raise BoomError
        return "done"

    async def coroutine(ctx: InvocationContext) -> str:
        return work(ctx)

    async def generator(ctx: InvocationContext) -> Yields:
        yield work(ctx)

    class Custom(Agent):
        async def run(self, ctx: InvocationContext) -> str:
            return work(ctx)

    made: dict[str, Callable[[], Agent]] = {
        "generator": lambda: agent(generator, name="a", retry=AT_ONCE),
        "coroutine": lambda: agent(coroutine, name="a", retry=AT_ONCE),
        "thread": lambda: agent(work, name="a", retry=AT_ONCE),
        "class": lambda: Custom("a", retry=AT_ONCE),
        "callback": lambda: leaf("a", "x", before_agent_callback=work, retry=AT_ONCE),
    }
    # A thread is no sleep: a virtual clock would jump past it.
    result = trio.run(Runner(made[shape]()).run)
    assert begun == ["a", "a~2", "a~3"]
    assert (result.output, result.status) == ("done", Status.COMPLETED)


@pytest.mark.parametrize("kind", [SequentialAgent, ParallelAgent])
def test_workflow_agents_are_tried_again_as_a_whole(kind: Any) -> None:
    diary = Diary()
    first = tries("first", ["x"], diary=diary)
    flaky = tries("flaky", [1, BoomError()], ["y"], retry=None)
    assert run_tree(kind("tree", [first, flaky], retry=AT_ONCE)).error is None
    assert began(diary) == ["tree/first", "tree~2/first"]


def test_a_loop_is_tried_again_from_its_first_iteration() -> None:
    diary = Diary()
    flaky = tries("flaky", ["x"], [BoomError()], ["y"], diary=diary, retry=None)
    run_tree(LoopAgent("loop", [flaky], max_iterations=2, retry=AT_ONCE))
    assert began(diary) == ["loop/flaky@1", "loop/flaky@2", "loop~2/flaky@1", "loop~2/flaky@2"]


def test_a_loop_that_was_stopped_in_a_failed_attempt_loops_again() -> None:
    diary = Diary()
    flaky = tries("flaky", [Escalate(), BoomError()], ["y"], diary=diary, retry=None)
    run_tree(LoopAgent("loop", [flaky], max_iterations=2, retry=AT_ONCE))
    assert began(diary) == ["loop/flaky@1", "loop~2/flaky@1", "loop~2/flaky@2"]


def test_an_attempt_begins_when_everything_of_the_one_before_has_ended() -> None:
    diary = Diary()

    @agent(retry=AT_ONCE)
    async def flaky(ctx: InvocationContext) -> None:
        diary.append(f"{ctx.path} begins")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ctx.run_agent, slow_to_end)
                await trio.sleep(1)
                raise BoomError
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            diary.append(f"{ctx.path} ends")

    @agent
    async def slow_to_end(ctx: InvocationContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
            diary.append(f"{ctx.path} ends")

    run_tree(flaky)
    assert diary == [
        line
        for path in ("flaky", "flaky~2", "flaky~3")
        for line in (f"{path} begins", f"{path}/slow_to_end@1 ends", f"{path} ends")
    ]


# ------------------------------------------------------------------------------------------ delays


def test_delays_pass_on_the_clock_of_the_run() -> None:
    diary = Diary()
    retry = Retry(5, initial_delay=1, backoff_factor=3, max_delay=10, jitter=0)
    ended = run_tree(failing("flaky", diary, retry=retry))
    assert starts(diary) == [0, 1, 4, 13, 23]
    assert ended.time == 23


def test_no_delay_follows_the_last_attempt() -> None:
    assert run_tree(failing("flaky", [], retry=Retry(2, initial_delay=5, jitter=0))).time == 5


def test_other_branches_go_on_while_one_waits_for_its_next_attempt() -> None:
    flaky = tries("flaky", [BoomError()], ["at last"], retry=Retry(2, initial_delay=5, jitter=0))
    ended = run_tree(ParallelAgent("p", [flaky, leaf("other", 1, "x", 1, "y")]))
    assert texts(ended.delivered) == ["x", "y", "at last"]


@given(st.integers(0, 2**32))
def test_jitter_comes_from_the_random_source_that_the_runner_was_given(seed: int) -> None:
    diary = Diary()
    retry = Retry(4, jitter=1)
    run_tree(Runner(failing("flaky", diary, retry=retry), random=Random(seed)))  # noqa: S311  # jitter
    random, now, expected = Random(seed), 0.0, [0.0]  # noqa: S311  # as above
    for attempt in (1, 2, 3):
        now += retry.delay(attempt, random)
        expected.append(now)
    assert starts(diary) == pytest.approx(expected, rel=1e-5)


def test_without_a_random_source_two_runners_do_not_wait_alike() -> None:
    """Or all clients of a busy server would come back at the same moment, again and again."""

    def times() -> list[float]:
        diary = Diary()
        run_tree(failing("flaky", diary, retry=Retry(4, jitter=1)))
        return starts(diary)

    assert times() != times()


# ------------------------------------------------------------------------------ what is worth it


def _raising(error: BaseException, on: Any) -> int:
    diary = Diary()
    flaky = tries("flaky", [error], diary=diary, retry=Retry(3, initial_delay=0, on=on))
    assert run_tree(flaky).error is error
    return len(diary)


@pytest.mark.parametrize(
    ("error", "on", "attempts"),
    [
        (ValueError(), ValueError, 3),
        (UnicodeError(), ValueError, 3),
        (KeyError(), ValueError, 1),
        (KeyError(), (ValueError, KeyError), 3),
        (OSError(), (ValueError, KeyError), 1),
        (OSError(5, "busy"), lambda error: error.errno == 5, 3),
        (OSError(6, "gone"), lambda error: error.errno == 5, 1),
        (ExceptionGroup("", [KeyError(), ValueError()]), (ValueError, KeyError), 3),
        (ExceptionGroup("", [KeyError(), OSError()]), (ValueError, KeyError), 1),
    ],
    ids=shown,
)
def test_only_what_is_worth_it_is_tried_again(error: Exception, on: Any, attempts: int) -> None:
    assert _raising(error, on) == attempts


def test_a_condition_that_raises_does_not_lose_what_it_was_asked_about() -> None:
    wrong, failure = KeyError("in the condition"), ValueError("the agent's")

    def on(_error: Exception) -> bool:
        raise wrong

    ended = run_tree(leaf("a", failure, retry=Retry(3, initial_delay=0, on=on)))
    assert ended.error is wrong
    assert wrong.__cause__ is failure


def test_by_default_a_mistake_in_the_code_is_not_tried_again() -> None:
    diary = Diary()

    @agent(retry=AT_ONCE)
    async def mistaken(ctx: InvocationContext) -> Any:
        diary.append("called")
        yield 7

    ended = run_tree(SequentialAgent("tree", [mistaken], retry=AT_ONCE))
    assert type(ended.error).__name__ == "EmitError"
    assert diary == ["called"]


def test_a_predicate_that_fails_fails_the_agent() -> None:
    def broken(error: Exception) -> bool:
        raise KeyError(str(error))

    ended = run_tree(tries("flaky", [BoomError("x")], retry=Retry(3, on=broken)))
    assert isinstance(ended.error, KeyError)


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()], ids=shown)
def test_what_ends_the_program_is_not_tried_again(error: BaseException) -> None:
    diary = Diary()
    flaky = tries("flaky", [error], diary=diary, retry=AT_ONCE)
    with pytest.raises(type(error)):
        run_tree(flaky)
    assert len(diary) == 1


def test_a_failing_store_is_not_tried_again() -> None:
    diary = Diary()
    flaky = tries("flaky", ["x", "y"], diary=diary, retry=AT_ONCE)
    ended = run_tree(Runner(flaky, session_service=FailingService(2)))
    assert isinstance(ended.error, StoreError)
    assert len(diary) == 1


# ------------------------------------------------------------------------------------- cancellation


def _cancelled_by(how: str, flaky: Agent) -> Ended:
    """Run ``flaky`` beside an agent that speaks at 2, and cancel it at that moment."""
    other = leaf("other", 2, BoomError() if how == "sibling" else "now", 1)
    if how == "escalate":
        other = leaf("other", 2, Escalate("now"), 1)
    tree = ParallelAgent("p", [flaky, other])

    async def main() -> Ended:
        ended = None
        with trio.move_on_after(2 if how == "scope" else 100):
            if how in {"run.cancel", "break"}:
                async with Runner(tree).open() as run:
                    async for event in run:
                        if event.text == "now":
                            if how == "break":
                                break
                            run.cancel("enough")
                return Ended(run, [], None, trio.current_time())
            ended = await open_and_read(tree)
        assert trio.current_time() <= 3
        return ended  # type: ignore[return-value]  # None only with "scope", and then not used

    return run_virtual(main)


HOWS = ["sibling", "escalate", "run.cancel", "break", "scope"]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("script", [["x", 9], [BoomError()]], ids=["in an attempt", "in between"])
def test_an_agent_that_is_cancelled_is_not_tried_again(how: str, script: list[Script]) -> None:
    diary = Diary()
    flaky = tries("flaky", script, diary=diary, retry=Retry(9, initial_delay=8, jitter=0))
    ended = _cancelled_by(how, flaky)
    assert len(diary) == 1
    if ended is not None:
        assert ended.outcome("p", "flaky").status is Status.CANCELLED
        assert ended.outcome("p", "flaky").attempts == 1


@pytest.mark.parametrize("how", HOWS)
def test_an_agent_that_fails_in_cleaning_up_is_not_tried_again(how: str) -> None:
    diary = Diary()

    @agent(retry=Retry(9, initial_delay=0))
    async def flaky(ctx: InvocationContext) -> None:
        diary.append("called")
        try:
            await trio.sleep(9)
        finally:
            raise BoomError

    with suppress(BoomError):
        _cancelled_by(how, flaky)
    assert diary == ["called"]


def test_an_agent_whose_child_was_cancelled_alone_may_try_again() -> None:
    """Nobody has cancelled the agent itself: it failed, for want of an output."""
    begun = Diary()

    @agent(retry=AT_ONCE)
    async def parent(ctx: InvocationContext) -> str:
        begun.append(ctx.path)
        async with ctx.open_fan_out() as group:
            handle = group.start(leaf("child", 5))
            if len(begun) == 1:
                handle.cancel("for once")
                raise BoomError
            await handle
        return "done"

    assert run_tree(parent).result.output == "done"
    assert begun == ["parent", "parent~2"]


@given(st.permutations(["a", "b"]), st.random_module())
def test_no_attempt_begins_once_a_sibling_has_failed_in_the_same_moment(
    order: list[str], scheduler: object
) -> None:
    """Else the error that is raised would be the scheduler's choice."""
    diary = Diary()
    made = {
        "a": tries("a", [1, BoomError("a")], [BoomError("again")], diary=diary),
        "b": leaf("b", 1, BoomError("b")),
    }
    ended = run_tree(ParallelAgent("p", [made[name] for name in order]))
    assert isinstance(ended.error, BoomError)
    assert ended.error.args == ("b",)
    assert began(diary) == ["p/a"]


@given(st.permutations(["a", "b", "c"]), st.integers(0, 1), st.random_module())
def test_of_branches_that_give_up_in_the_same_moment_the_first_one_fails_the_fan_out(
    order: list[str], delay: int, scheduler: object
) -> None:
    retry = Retry(3, initial_delay=delay, jitter=0)
    workers = [failing(name, [], retry=retry) for name in order]
    ended = run_tree(ParallelAgent("p", workers))
    assert isinstance(ended.error, BoomError)
    assert ended.error.args == (order[0],)
    assert set(ended.outcomes("p").values()) == {"failed"}


# -------------------------------------------------------------------------------- what is recorded


def test_events_carry_the_number_of_their_attempt() -> None:
    ended = run_tree(tries("flaky", ["x", BoomError()], ["y", BoomError()], ["z"]))
    assert [(event.text, event.attempt) for event in ended.result.events] == [
        ("x", 1),
        ("y", 2),
        ("z", 3),
    ]


def test_paths_of_attempts_are_unique() -> None:
    ended = run_tree(tries("flaky", ["x", BoomError()], ["y", BoomError()], ["z"]))
    assert paths(ended.result.events) == ["flaky", "flaky~2", "flaky~3"]


def _retried_composite() -> Agent:
    inner = tries(
        "inner", [BoomError()], ["in", BoomError()], ["in again"], retry=Retry(2, initial_delay=0)
    )
    fan = ParallelAgent("fan", [leaf("a", "x"), inner])
    return SequentialAgent(
        "tree", [LoopAgent("loop", [fan], max_iterations=1), leaf("end", "z")], retry=AT_ONCE
    )


def test_what_runs_below_an_attempt_carries_its_number() -> None:
    @agent
    async def parent(ctx: InvocationContext) -> None:
        await ctx.map(leaf("item", "x"), [1])
        await ctx.run_agent(leaf("child", "y"))
        await ctx.emit("z")

    flaky = tries("flaky", [BoomError()], [1], retry=None)
    ended = run_tree(SequentialAgent("tree", [parent, flaky], retry=AT_ONCE))
    assert [(event.path, event.attempt) for event in ended.result.events if event.text] == [
        ("tree/parent/item@1", 1),
        ("tree/parent/child@1", 1),
        ("tree/parent", 1),
        ("tree~2/parent/item@1", 2),
        ("tree~2/parent/child@1", 2),
        ("tree~2/parent", 2),
    ]


def test_an_agent_tried_again_below_another_counts_its_own_attempts() -> None:
    inner = tries(
        "inner",
        ["a", BoomError()],
        ["b"],
        ["c", BoomError()],
        ["d"],
        retry=Retry(2, initial_delay=0),
    )
    outer = tries("outer", [BoomError()], ["end"], retry=None)
    ended = run_tree(SequentialAgent("tree", [inner, outer], retry=AT_ONCE))
    assert [(event.path, event.attempt) for event in ended.result.events if event.text] == [
        ("tree/inner", 1),
        ("tree/inner~2", 2),
        ("tree~2/inner", 2),
        ("tree~2/inner~2", 2),
        ("tree~2/outer", 2),
    ]


def test_the_stored_form_keeps_the_number() -> None:
    ended = run_tree(tries("flaky", ["x", BoomError()], ["y"]))
    codec = Codec()
    read = [codec.loads(codec.dumps(event)) for event in ended.result.events]
    assert [(event.text, event.attempt, event.path) for event in read] == [
        ("x", 1, "flaky"),
        ("y", 2, "flaky~2"),
    ]


def test_partial_events_carry_it_too() -> None:
    flaky = tries("flaky", [BoomError()], [lambda _: Event("y", partial=True)])
    assert [event.attempt for event in run_tree(flaky).delivered] == [2]


def test_outcomes_say_how_often_a_branch_was_tried() -> None:
    diary = Diary()
    tree = ParallelAgent(
        "p",
        [
            failing("never", diary, retry=AT_ONCE),
            tries("second", [BoomError()], ["x"]),
            leaf("first", "x"),
            failing("once", diary),
        ],
        barrier=BestEffort(),
    )
    ended = run_tree(tree)
    expected = {"never": 3, "second": 2, "first": 1, "once": 1}
    assert {o.name: o.attempts for o in ended.run.outcomes("p")} == expected
    (recorded,) = [event.actions.outcomes for event in ended.result.events if event.author == "p"]
    assert {outcome.name: outcome.attempts for outcome in recorded} == expected


def test_an_outcome_counts_the_time_of_all_attempts_and_delays() -> None:
    flaky = tries("flaky", [1, BoomError()], [1, "x"], retry=Retry(2, initial_delay=3, jitter=0))
    ended = run_tree(ParallelAgent("p", [flaky]))
    assert ended.outcome("p", "flaky").duration == 5


def test_an_activation_is_counted_once_however_often_it_is_tried() -> None:
    statistics = run_tree(tries("flaky", [BoomError()], [BoomError()], [])).run.statistics()
    assert (statistics.started, statistics.completed, statistics.failed) == (1, 1, 0)


# -------------------------------------------------------------------------------------- history


def _looks(seen: dict[str, list[str]]) -> Script:
    def look(ctx: InvocationContext) -> None:
        seen[ctx.path] = texts(ctx.history())

    return look


def test_an_attempt_sees_nothing_of_those_that_failed() -> None:
    seen: dict[str, list[str]] = {}
    look = _looks(seen)
    flaky = tries("flaky", [look, "x", look, BoomError()], [look, "y", BoomError()], [look, "z"])
    run_tree(SequentialAgent("tree", [leaf("before", "b"), flaky]), message="hi")
    assert seen == {
        "tree/flaky": ["hi", "b", "x"],
        "tree/flaky~2": ["hi", "b"],
        "tree/flaky~3": ["hi", "b"],
    }


def test_later_agents_see_nothing_of_attempts_that_failed() -> None:
    seen: dict[str, list[str]] = {}
    flaky = tries("flaky", ["x", BoomError()], ["y", BoomError()], ["z"])
    run_tree(SequentialAgent("tree", [flaky, leaf("after", _looks(seen))]))
    assert seen == {"tree/after": ["hi", "z"]}


def test_nothing_below_a_failed_attempt_is_seen_either() -> None:
    seen: dict[str, list[str]] = {}
    look = _looks(seen)
    fan = ParallelAgent(
        "fan", [leaf("a", "a"), LoopAgent("loop", [leaf("b", "b")], max_iterations=2)]
    )
    flaky = tries("flaky", [look, BoomError()], [look, "y"], retry=None)
    run_tree(
        SequentialAgent(
            "tree", [SequentialAgent("twice", [fan, flaky], retry=AT_ONCE), leaf("after", look)]
        )
    )
    assert sorted(seen["tree/twice/flaky"]) == ["a", "b", "b", "hi"]
    assert sorted(seen["tree/twice~2/flaky"]) == ["a", "b", "b", "hi"]
    assert sorted(seen["tree/after"]) == ["a", "b", "b", "hi", "y"]


def test_the_last_attempt_of_an_agent_that_gives_up_stays_visible() -> None:
    seen: dict[str, list[str]] = {}

    @agent
    async def catches(ctx: InvocationContext) -> None:
        with suppress(BoomError):
            await ctx.run_agent(tries("flaky", ["x", BoomError()], ["y", BoomError()]))
        seen[ctx.path] = texts(ctx.history())

    run_tree(catches)
    assert seen == {"catches": ["hi", "y"]}


def test_the_next_run_sees_the_log_as_it_is() -> None:
    """What failed is in the log; that it is nobody's history is known to its own run."""
    seen: dict[str, list[str]] = {}
    runner = Runner(tries("flaky", ["x", BoomError()], [_looks(seen), "y"], [_looks(seen), "z"]))

    async def main() -> None:
        await runner.run("one", session_id="s")
        await runner.run("two", session_id="s")

    run_virtual(main)
    assert seen["flaky"] == ["one", "x", "y", "two"]


# --------------------------------------------------------------------------------------- outputs


def test_an_output_of_a_failed_attempt_is_never_the_next_ones() -> None:
    emits: Script = lambda _: Event("half", output={"half": True})  # noqa: E731  # a step of a script
    scripts: list[tuple[list[Script], Any]] = [
        ([], None),
        (["text"], "text"),
        ([lambda _: Event(output=1)], 1),
    ]
    for last, output in scripts:
        ended = run_tree(tries("flaky", ["x", emits, BoomError()], last))
        assert ended.error is None
        assert ended.result.output == output
        assert ended.result.outputs["flaky"] == output


def test_a_text_is_an_output_although_a_failed_attempt_gave_one_of_another_kind() -> None:
    flaky = tries("flaky", [lambda _: Event(output=1), BoomError()], ["text"])
    assert run_tree(flaky).result.output == "text"


def test_a_composite_hands_on_no_output_of_a_failed_attempt() -> None:
    flaky = tries("flaky", [1, BoomError()], [1], retry=None)
    maybe = tries("maybe", ["once"], [], retry=None)
    ended = run_tree(ParallelAgent("tree", [maybe, flaky], retry=AT_ONCE))
    assert ended.result.output == {"maybe": None, "flaky": None}


def test_a_transfer_asked_for_in_a_failed_attempt_is_forgotten() -> None:
    diary = Diary()
    other = tries("other", ["o"], diary=diary)
    transfer = Event(actions=EventActions(transfer_to_agent="other"))
    flaky = tries("flaky", [lambda _: transfer, BoomError()], ["y"])
    tree = SequentialAgent(
        "tree", [flaky, SequentialAgent("spare", [other], before_agent_callback=lambda _: "no")]
    )
    assert run_tree(tree).error is None
    assert diary == []


def test_an_agent_that_was_handed_over_to_belongs_to_the_attempt() -> None:
    diary = Diary()
    other = tries("other", ["o", BoomError()], ["p"], diary=diary, retry=None)

    @agent(retry=AT_ONCE)
    async def hands_over(ctx: InvocationContext) -> Yields:
        yield Event(actions=EventActions(transfer_to_agent="other"))

    spare = SequentialAgent("spare", [other], before_agent_callback=lambda _: "no")
    assert run_tree(SequentialAgent("tree", [hands_over, spare])).error is None
    assert began(diary) == ["tree/hands_over/other@1", "tree/hands_over~2/other@1"]


def test_dynamic_children_are_numbered_anew_in_each_attempt() -> None:
    begun = Diary()
    item = tries("item", ["x"], diary=begun)

    @agent(retry=AT_ONCE)
    async def maps(ctx: InvocationContext) -> None:
        await ctx.map(item, [1, 2])
        if ctx.path == "maps":
            raise BoomError

    run_tree(maps)
    assert sorted(began(begun)) == ["maps/item@1", "maps/item@2", "maps~2/item@1", "maps~2/item@2"]


def test_a_question_of_a_second_attempt_is_another_question() -> None:
    asked: list[str] = []

    @agent(retry=AT_ONCE)
    async def asks(ctx: InvocationContext) -> Any:
        if await ctx.request_input("well?") != "yes":
            raise BoomError
        return "done"

    async def main() -> Any:
        async with Runner(asks).open() as run:
            async for event in run:
                if event.request is not None:
                    asked.append(event.request.id.partition(":")[2])
                    await run.respond(event.request.id, "yes" if len(asked) == 2 else "no")
        return run.result.output

    assert run_virtual(main) == "done"
    assert asked == ["asks#1", "asks~2#1"]


def test_the_input_is_the_same_at_every_attempt() -> None:
    given: list[int] = []

    @agent(retry=AT_ONCE)
    async def item(ctx: InvocationContext, number: int) -> int:
        given.append(number)
        if len(given) < 3:
            raise BoomError
        return number

    @agent
    async def maps(ctx: InvocationContext) -> Any:
        return await ctx.map(item, [7])

    assert run_tree(maps).result.output == [7]
    assert given == [7, 7, 7]


# ------------------------------------------------------------------------------------- escalation


def test_an_escalation_of_a_failed_attempt_counts_for_the_loop_around_it() -> None:
    """It has been delivered: whoever read it knows that the loop ends."""
    diary = Diary()
    flaky = tries("flaky", [Escalate(), BoomError()], ["y"], diary=diary)
    run_tree(LoopAgent("loop", [flaky, failing("later", diary)], max_iterations=3))
    assert began(diary) == ["loop/flaky@1", "loop/flaky@1~2"]


def test_an_escalation_ends_siblings_and_the_branch_may_still_be_tried_again() -> None:
    diary = Diary()
    flaky = tries("flaky", [1, Escalate(), BoomError()], ["y"], diary=diary)
    ended = run_tree(ParallelAgent("p", [flaky, leaf("other", 0.5, "o", 9, "never")]))
    assert texts(ended.delivered) == ["o", "stop", "y"]
    assert ended.outcomes("p") == {"flaky": "completed", "other": "cancelled"}


def test_an_escalation_below_the_branch_ends_nobody() -> None:
    inner = ParallelAgent(
        "inner", [tries("flaky", [Escalate(), BoomError()], ["y"]), leaf("other", 5)]
    )
    ended = run_tree(ParallelAgent("p", [inner, leaf("far", 1, "x")]))
    assert ended.outcomes("p") == {"inner": "completed", "far": "completed"}


# --------------------------------------------------------------------------------------- plugins


class Watcher(Plugin):
    """Notes what it is asked, and answers errors if told to."""

    def __init__(self, answer: Any = None) -> None:
        super().__init__("watcher")
        self.answer = answer
        self.notes: list[str] = []
        self.outcomes: list[Outcome] = []

    async def before_agent_callback(self, ctx: InvocationContext) -> None:
        self.notes.append(f"before {ctx.path}")

    async def after_agent_callback(self, ctx: InvocationContext) -> None:
        self.notes.append(f"after {ctx.path}")

    async def on_agent_error_callback(self, ctx: InvocationContext, error: Exception) -> Any:
        self.notes.append(f"error {ctx.path}: {error}".rstrip(": "))
        return self.answer

    def on_agent_end(self, ctx: InvocationContext, outcome: Outcome) -> None:
        self.notes.append(f"end {ctx.path}")
        self.outcomes.append(outcome)


def test_plugins_see_every_attempt_but_only_the_last_failure_and_one_end() -> None:
    watcher = Watcher()
    run_tree(Runner(tries("flaky", [BoomError()], [BoomError()]), plugins=[watcher]))
    assert watcher.notes == ["before flaky", "before flaky~2", "error flaky~2", "end flaky~2"]


def test_plugins_are_not_asked_about_failures_that_come_to_nothing() -> None:
    watcher = Watcher()
    run_tree(Runner(tries("flaky", [BoomError()], ["x"]), plugins=[watcher]))
    assert watcher.notes == ["before flaky", "before flaky~2", "after flaky~2", "end flaky~2"]


def test_plugins_are_told_how_often_an_agent_was_tried() -> None:
    watcher = Watcher()
    run_tree(Runner(tries("flaky", [BoomError()], ["x"]), plugins=[watcher]))
    assert [(outcome.path, outcome.attempts) for outcome in watcher.outcomes] == [("flaky~2", 2)]


def test_what_a_plugin_says_instead_of_the_last_failure_is_the_output() -> None:
    flaky = tries("flaky", ["x", BoomError()], ["y", BoomError()], output_key="k")
    ended = run_tree(Runner(flaky, plugins=[Watcher("sorry")]))
    assert ended.error is None
    assert ended.result.output == "sorry"
    assert ended.result.state == {"k": "sorry"}


def test_what_a_plugin_says_replaces_an_output_of_the_failed_attempt() -> None:
    flaky = tries("flaky", [BoomError()], [lambda _: Event(output=1), BoomError()], output_key="k")
    ended = run_tree(Runner(flaky, plugins=[Watcher("sorry")]))
    assert ended.result.output == "sorry"
    assert ended.result.state == {"k": "sorry"}


def test_a_failing_plugin_makes_an_attempt_fail() -> None:
    class Broken(Plugin):
        asked = 0

        async def after_agent_callback(self, ctx: InvocationContext) -> None:
            self.asked += 1
            if self.asked < 3:
                raise BoomError(ctx.path)

    diary = Diary()
    run_tree(Runner(tries("flaky", ["x"], diary=diary, retry=AT_ONCE), plugins=[Broken()]))
    assert len(diary) == 3


# ---------------------------------------------------------------------- retries do not multiply


async def _in_a_block(ctx: InvocationContext, child: Agent) -> None:
    async with ctx.open_fan_out() as group:
        group.start(child)


async def _awaited(ctx: InvocationContext, child: Agent) -> None:
    async with ctx.open_fan_out(barrier=BestEffort()) as group:
        await group.start(child)


async def _passed_on(ctx: InvocationContext, child: Agent) -> None:
    async with ctx.open_agent(child) as events:
        async for event in events:
            await ctx.emit(event)


async def _in_a_nursery(ctx: InvocationContext, child: Agent) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ctx.run_agent, child)


Starts = Callable[[InvocationContext, Agent], Any]

STARTS: dict[str, Starts] = {
    "run_agent": lambda ctx, child: ctx.run_agent(child),
    "map": lambda ctx, child: ctx.map(child, [1]),
    "fan_out": lambda ctx, child: ctx.fan_out([child]),
    "wait_all": lambda ctx, child: ctx.map_outcomes(child, [1], barrier=WaitAll()),
    "quorum": lambda ctx, child: ctx.map_outcomes(child, [1], barrier=Quorum(1)),
    "block": _in_a_block,
    "awaited_handle": _awaited,
    "open_agent": _passed_on,
    "own_nursery": _in_a_nursery,
}


def _parent(name: str, starts: Starts, child: Agent, **options: Any) -> Agent:
    @agent(name=name, **options)
    async def parent(ctx: InvocationContext) -> None:
        await starts(ctx, child)

    return parent


def _failed(error: BaseException | None) -> list[Any]:
    """The arguments of all the errors that are, or are in, this one."""
    if isinstance(error, BaseExceptionGroup):
        return [found for inner in error.exceptions for found in _failed(inner)]
    return [] if error is None else [*error.args]


@pytest.mark.parametrize("how", STARTS)
def test_a_retry_around_a_child_does_not_multiply_with_its_own(how: str) -> None:
    diary = Diary()
    child = failing("worker", diary, retry=AT_ONCE)
    ended = run_tree(_parent("parent", STARTS[how], child, retry=AT_ONCE))
    assert _failed(ended.error) == ["worker"]
    assert calls(diary, "worker") == 3


@pytest.mark.parametrize("how", STARTS)
def test_a_retry_around_a_child_without_one_tries_it_again(how: str) -> None:
    diary = Diary()
    ended = run_tree(_parent("parent", STARTS[how], failing("worker", diary), retry=AT_ONCE))
    assert _failed(ended.error) == ["worker"]
    assert calls(diary, "worker") == 3


@given(st.lists(st.sampled_from(sorted(STARTS)), min_size=1, max_size=4), st.data())
def test_however_deep_retries_are_nested_the_innermost_decides(
    line: list[str], data: st.DataObject
) -> None:
    """Each agent around the one that fails has a retry, or has none."""
    diary = Diary()
    counts = [data.draw(st.sampled_from([None, 2, 3]), label="attempts") for _ in (*line, 0)]
    retries = [None if n is None else Retry(n, initial_delay=0) for n in counts]
    tree = failing("worker", diary, retry=retries[0])
    for number, (how, retry) in enumerate(zip(line, retries[1:], strict=True)):
        tree = _parent(f"level{number}", STARTS[how], tree, retry=retry)
    run_tree(tree)
    assert calls(diary, "worker") == next((n for n in counts if n is not None), 1)


@pytest.mark.parametrize("barrier", [FailFast(), WaitAll(), FirstSuccess(), Quorum(2)], ids=shown)
def test_a_retry_around_a_parallel_agent_does_not_multiply_with_those_inside(
    barrier: Barrier,
) -> None:
    diary = Diary()
    workers = [failing(name, diary, retry=AT_ONCE) for name in ("a", "b", "c")]
    tree = ParallelAgent("p", workers, barrier=barrier, retry=AT_ONCE)
    ended = run_tree(SequentialAgent("s", [tree], retry=AT_ONCE))
    assert ended.error is not None
    assert began(diary).count("s/p/a") == 1
    assert calls(diary, "a") == 3


@pytest.mark.parametrize("barrier", [WaitAll(), FirstSuccess()], ids=shown)
def test_one_branch_that_has_used_up_its_attempts_is_enough_for_a_group(barrier: Barrier) -> None:
    """Else it would be tried more often for having failed beside another."""
    diary = Diary()
    workers = [failing("tried", diary, retry=AT_ONCE), failing("once", diary)]
    ended = run_tree(ParallelAgent("p", workers, barrier=barrier, retry=AT_ONCE))
    assert _failed(ended.error) == ["tried", "once"]
    assert (calls(diary, "tried"), calls(diary, "once")) == (3, 1)


@pytest.mark.parametrize("barrier", [WaitAll(), FirstSuccess()], ids=shown)
def test_a_group_of_branches_without_a_retry_is_tried_again(barrier: Barrier) -> None:
    diary = Diary()
    workers = [failing("a", diary), failing("b", diary)]
    run_tree(ParallelAgent("p", workers, barrier=barrier, retry=AT_ONCE))
    assert (calls(diary, "a"), calls(diary, "b")) == (3, 3)


def test_an_agent_that_fails_of_itself_after_a_child_gave_up_may_try_again() -> None:
    diary = Diary()
    child = failing("worker", diary, retry=AT_ONCE)

    @agent(retry=Retry(2, initial_delay=0))
    async def parent(ctx: InvocationContext) -> None:
        try:
            await ctx.run_agent(child)
        except BoomError:
            raise KeyError from None

    assert isinstance(run_tree(parent).error, KeyError)
    assert calls(diary, "worker") == 6


def test_a_failure_that_was_not_worth_it_inside_may_be_outside() -> None:
    diary = Diary()
    inner = failing("worker", diary, retry=Retry(3, initial_delay=0, on=KeyError))
    run_tree(SequentialAgent("s", [inner], retry=AT_ONCE))
    assert calls(diary, "worker") == 3


def test_in_a_map_only_the_item_that_failed_is_tried_again() -> None:
    done: list[tuple[int, str]] = []

    @agent(retry=AT_ONCE)
    async def item(ctx: InvocationContext, number: int) -> int:
        done.append((number, ctx.path.partition("~")[2] or "1"))
        if number == 2 and ctx.path.endswith(("@2", "~2")):
            raise BoomError
        return number * 10

    @agent
    async def maps(ctx: InvocationContext) -> Any:
        return await ctx.map(item, [1, 2, 3])

    assert run_tree(maps).result.output == [10, 20, 30]
    assert sorted(done) == [(1, "1"), (2, "1"), (2, "2"), (2, "3"), (3, "1")]


def test_the_others_of_a_map_go_on_while_one_is_tried_again() -> None:
    flaky = Retry(2, initial_delay=5, jitter=0)

    @agent(retry=flaky)
    async def item(ctx: InvocationContext, number: int) -> None:
        if number == 1 and not ctx.path.endswith("~2"):
            raise BoomError
        await ctx.emit(f"{number}")

    @agent
    async def maps(ctx: InvocationContext) -> None:
        await ctx.map(item, [1, 2, 3], max_concurrency=2)

    ended = run_tree(maps)
    assert texts(ended.delivered) == ["2", "3", "1"]


# ------------------------------------------------------------------------- as a branch of a fan-out


def test_a_branch_that_succeeds_at_last_can_be_the_first_success() -> None:
    flaky = tries("flaky", [1, BoomError()], [1, "x"])
    tree = ParallelAgent("p", [flaky, leaf("slow", 3, "y")], barrier=FirstSuccess())
    assert run_tree(tree).outcomes("p") == {"flaky": "completed", "slow": "cancelled"}


def test_a_policy_hears_of_a_branch_only_when_it_has_given_up() -> None:
    flaky = tries("flaky", [1, BoomError()], [1, BoomError()])
    ended = run_tree(ParallelAgent("p", [flaky, leaf("other", 1.5, "x", 9)]))
    assert ended.time == 2
    assert ended.outcomes("p") == {"flaky": "failed", "other": "cancelled"}


def test_a_quorum_that_is_lost_can_be_tried_again_as_a_whole() -> None:
    workers = [
        tries("a", [BoomError()], ["x"], retry=None),
        tries("b", [BoomError()], ["y"], retry=None),
    ]
    retry = Retry(2, initial_delay=0, on=QuorumError)
    ended = run_tree(ParallelAgent("p", workers, barrier=Quorum(2), retry=retry))
    assert ended.result.output == {"a": "x", "b": "y"}


def test_outcomes_of_a_fan_out_that_was_tried_again_are_those_of_its_last_attempt() -> None:
    workers = [tries("a", [BoomError()], ["x"], retry=None), leaf("b", "y")]
    ended = run_tree(ParallelAgent("p", workers, retry=AT_ONCE))
    assert [(outcome.path, str(outcome.status)) for outcome in ended.run.outcomes("p")] == [
        ("p~2/a", "completed"),
        ("p~2/b", "completed"),
    ]
    recorded = [event for event in ended.result.events if event.author == "p"]
    assert [event.attempt for event in recorded] == [1, 2]


def test_a_handle_tells_how_often_its_branch_was_tried() -> None:
    flaky = tries("flaky", [BoomError()], ["x"])

    @agent
    async def parent(ctx: InvocationContext) -> Any:
        async with ctx.open_fan_out() as group:
            handle = group.start(flaky)
            return [await handle, (await handle.outcome()).attempts]

    assert run_tree(parent).result.output == ["x", 2]


def test_a_branch_sealed_by_a_sibling_is_not_tried_again() -> None:
    """Sealed, it is refused in its clean-up: that is no failure to try again for."""
    begun = Diary()

    @agent(retry=Retry(9, initial_delay=0))
    async def flaky(ctx: InvocationContext) -> Yields:
        begun.append(ctx.path)
        try:
            await trio.sleep(9)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
                yield "refused"

    ended = run_tree(ParallelAgent("p", [flaky, leaf("stops", 1, Escalate())]))
    assert ended.error is None
    assert begun == ["p/flaky"]
