"""`explore` and `replay`: how much is run, what is told of a failure, and how it comes again."""

from __future__ import annotations

import functools
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    AgentTimeoutError,
    Escalate,
    InvocationContext,
    Limiter,
    ParallelAgent,
    Result,
    Retry,
    Run,
    RunConfig,
    Runner,
    SequentialAgent,
    Status,
    WaitAll,
    agent,
)
from parallel_agent.function_agent import AgentFunction
from parallel_agent.testing import (
    DeadlockError,
    EndlessRunError,
    Exploration,
    ExplorationError,
    NondeterminismError,
    Schedule,
    explore,
    exploring,
    replay,
    run_once,
)
from parallel_agent.testing.schedule import AtRandom, Indexed, Replayed
from tests.support.drawing import fewer
from tests.testing.drawn_scripts import Tree, make_runner, read, trees
from tests.testing.logged import digest, log_of, log_under

ROOT = Path(__file__).parent.parent.parent
Ctx = InvocationContext


class OddError(Exception):
    pass


def emits(name: str, *texts: str) -> Agent:
    async def run(ctx: Ctx) -> AsyncIterator[str]:
        for text in texts:
            yield text

    return agent(run, name=name)


def does(name: str, work: AgentFunction, **options: Any) -> Agent:
    return agent(work, name=name, **options)


def alone(work: AgentFunction, **options: Any) -> Callable[[], Agent]:
    return lambda: does("alone", work, **options)


def three_by_two() -> Agent:
    return ParallelAgent("p", [emits(name, f"{name}1", f"{name}2") for name in "abc"])


def texts(result: Result) -> list[str]:
    return [event.text for event in result.events if event.text]


# ------------------------------------------------------------------------------- how much is run


def test_all_schedules_are_run_if_they_are_few_enough() -> None:
    logs: list[str] = []
    explored = explore(three_by_two, lambda result: logs.append(" ".join(texts(result))))
    assert explored == Exploration(90, exhausted=True, bound=None, seed=0)
    assert len(logs) == len(set(logs)) == 90


@pytest.mark.parametrize("budget", [90, 100])
def test_the_search_goes_on_if_it_looks_as_if_the_rest_would_fit(budget: int) -> None:
    assert explore(three_by_two, max_schedules=budget).exhausted


def test_a_bound_that_has_stopped_it_is_named() -> None:
    checked = count()
    explored = explore(three_by_two, lambda _: next(checked), max_schedules=20)
    assert (explored.exhausted, explored.bound) == (False, "max_schedules")
    assert next(checked) == 20
    assert 15 <= explored.schedules <= 20


def test_a_schedule_that_is_drawn_twice_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def the_first(*_args: object, **_options: object) -> Replayed:
        return Replayed(Schedule())

    monkeypatch.setattr(exploring, "AtRandom", the_first)
    monkeypatch.setattr(exploring, "ByPriority", the_first)
    assert explore(three_by_two, max_schedules=20).schedules == 10 + 1


def test_schedules_that_are_given_up_count_towards_the_bound() -> None:
    free = explore(often_redundant, allow=OddError)
    assert free.redundant > 2
    bound = free.schedules + 2
    bounded = explore(often_redundant, allow=OddError, max_schedules=bound)
    assert not bounded.exhausted
    assert bounded.schedules + bounded.redundant <= bound


def often_redundant(note: Callable[[str], object] = str) -> Agent:
    """Return a tree of which some schedules turn out to make no difference, but only late."""

    async def says(ctx: Ctx) -> AsyncIterator[str]:
        note("begun")
        try:
            yield "hello"
        finally:
            note("ended")

    async def fails(ctx: Ctx) -> None:
        raise OddError

    fan = [does("a", says), does("b", fails, retry=Retry(2)), does("c", says)]
    return ParallelAgent("p", fan)


def test_the_same_seed_explores_the_same() -> None:
    def logs(seed: int) -> list[str]:
        found: list[str] = []
        explore(
            three_by_two,
            lambda result: found.append("".join(texts(result))),
            max_schedules=30,
            seed=seed,
        )
        return found

    assert logs(3) == logs(3) != logs(4)


def long_and_thin() -> Agent:
    """Return a tree with a bug of depth 2, and more schedules than can be run."""

    async def transfer(ctx: Ctx) -> AsyncIterator[str]:
        yield "a0"
        before = ctx.state.get("done", 0)
        yield "between"
        if before == 0 and ctx.state.get("done", 0) == 6:
            raise ValueError("all of b came in between")
        for number in range(6):
            yield f"a{number}"

    async def counts(ctx: Ctx) -> AsyncIterator[str]:
        for number in range(6):
            ctx.state["done"] = number + 1
            yield f"b{number}"

    return ParallelAgent("p", [does("a", transfer), does("b", counts)])


def test_priorities_find_what_neither_the_search_nor_even_chances_find_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ExplorationError, match="all of b came in between"):
        explore(long_and_thin, max_schedules=60, seed=1)
    monkeypatch.setattr(exploring, "ByPriority", lambda random, **_options: AtRandom(random))
    assert explore(long_and_thin, max_schedules=60, seed=1).schedules > 55


@pytest.mark.parametrize("bad", [0, -1, 1.0, True, "10", None])
def test_a_bound_that_is_none_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="max_schedules is a whole number from 1 on, not"):
        explore(three_by_two, max_schedules=bad)


# --------------------------------------------------------------------------- what a failure tells


def counter(name: str) -> Agent:
    async def run(ctx: Ctx) -> AsyncIterator[str]:
        seen = ctx.state.get("n", 0)
        await trio.lowlevel.checkpoint()
        ctx.state["n"] = seen + 1
        yield f"{name} counted"

    return does(name, run)


def counters() -> Agent:
    return ParallelAgent("p", [counter(name) for name in "abc"])


def none_is_lost(result: Result) -> None:
    assert result.state["n"] == 3


@functools.cache
def lost_update() -> ExplorationError:
    with pytest.raises(ExplorationError) as caught:
        explore(counters, none_is_lost)
    return caught.value


def test_a_lost_update_is_found() -> None:
    error = lost_update()
    assert isinstance(error.__cause__, AssertionError)
    assert error.__cause__ is error.error
    assert error.trial.result is not None
    assert error.trial.result.state["n"] == 2


def test_its_schedule_is_one_choice_long_and_printed() -> None:
    error = lost_update()
    assert error.trial.schedule == Schedule(["p/b"])
    assert "schedule: ['p/b']\n" in str(error)
    assert "replay(make_tree, check, Schedule(['p/b']))" in str(error)


def test_the_diagram_and_the_race_are_printed_with_it() -> None:
    said = str(lost_update())
    assert lost_update().drawing in said
    assert "race on state['n']: branch p.a writes it at test_exploring.py:" in said


def by_line(error: ExplorationError, _path: Path) -> None:
    (line,) = [line for line in str(error).splitlines() if "to replay: " in line]
    names = {"make_tree": counters, "check": none_is_lost, "replay": replay, "Schedule": Schedule}
    eval(line.removeprefix("to replay: "), names)  # noqa: S307  # our own text


def by_list(_error: ExplorationError, _path: Path) -> None:
    replay(counters, none_is_lost, ["p/b"])


def by_schedule(error: ExplorationError, _path: Path) -> None:
    replay(counters, none_is_lost, error.trial.schedule)


def by_file(error: ExplorationError, path: Path) -> None:
    error.trial.schedule.save(path)
    replay(counters, none_is_lost, path)


def by_name_of_file(error: ExplorationError, path: Path) -> None:
    error.trial.schedule.save(str(path))
    replay(counters, none_is_lost, str(path))


@pytest.mark.parametrize("again", [by_line, by_list, by_schedule, by_file, by_name_of_file])
def test_it_is_replayed_exactly(
    again: Callable[[ExplorationError, Path], None], tmp_path: Path
) -> None:
    error = lost_update()
    with pytest.raises(ExplorationError) as caught:
        again(error, tmp_path / "lost.json")
    trial = caught.value.trial
    assert trial.schedule == error.trial.schedule
    assert log_of(trial.result) == log_of(error.trial.result)
    assert [repr(step) for step in trial.steps] == [repr(step) for step in error.trial.steps]


def test_a_replay_that_passes_returns_the_run() -> None:
    trial = replay(counters, none_is_lost, [])
    assert trial.result is not None
    assert trial.result.state["n"] == 3


def passes(
    make_tree: Callable[[], Agent], check: Callable[[Result], object], shorter_than: int
) -> bool:
    """Return whether all schedules pass that have less choices than that."""
    todo: list[tuple[int, ...]] = [()]
    for numbers in todo:
        chooser = Indexed(numbers)
        result = run_once(make_tree, chooser).result
        assert result is not None
        try:
            check(result)
        except AssertionError:
            return False
        for position in range(len(numbers), min(len(chooser.options), shorter_than - 1)):
            zeros = (0,) * (position - len(numbers))
            todo += [(*numbers, *zeros, i) for i in range(1, len(chooser.options[position]))]
    return True


@pytest.mark.parametrize("log", ["b1", "c1 a1", "a1 b1"])
def test_no_schedule_that_fails_is_shorter(log: str) -> None:
    def check(result: Result) -> None:
        assert not " ".join(texts(result)).startswith(log)

    with pytest.raises(ExplorationError) as caught:
        explore(three_by_two, check)
    schedule = caught.value.trial.schedule
    assert passes(three_by_two, check, shorter_than=len(schedule))
    with pytest.raises(ExplorationError):
        replay(three_by_two, check, schedule)


def test_what_is_shortened_fails_in_the_same_way() -> None:
    def check(result: Result) -> None:
        if texts(result)[0] == "c1":
            raise KeyError("c")
        assert texts(result)[:2] != ["b1", "c1"]

    with pytest.raises(ExplorationError) as caught:
        explore(three_by_two, check, seed=1)
    with pytest.raises(ExplorationError) as again:
        replay(three_by_two, check, caught.value.trial.schedule)
    assert type(again.value.error) is type(caught.value.error)


# ----------------------------------------------------------------------------------- the check


@pytest.mark.parametrize(
    "error", [AssertionError("no"), OddError(), ExceptionGroup("two", [KeyError(), OSError()])]
)
def test_a_check_may_raise_what_it_likes(error: Exception) -> None:
    def check(result: Result) -> None:
        raise error

    with pytest.raises(ExplorationError, match=type(error).__name__) as caught:
        explore(three_by_two, check)
    assert caught.value.error is error


def test_a_check_may_use_pytest_fail() -> None:
    with pytest.raises(ExplorationError, match="out of order"):
        explore(three_by_two, lambda _: pytest.fail("out of order"))


def test_a_check_may_skip_the_test() -> None:
    with pytest.raises(pytest.skip.Exception):
        explore(three_by_two, lambda _: pytest.skip("not here"))


def test_an_interrupt_is_no_failure_of_the_check() -> None:
    def check(result: Result) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explore(three_by_two, check)


def test_a_check_that_is_async_is_refused() -> None:
    async def check(result: Result) -> None:
        pass

    with pytest.raises(TypeError, match="it cannot be async"):
        explore(three_by_two, check)


def fails_fast() -> Agent:
    async def fails(ctx: Ctx) -> None:
        raise OddError("of a")

    return ParallelAgent("p", [does("a", fails), emits("b", "b")])


def test_without_a_check_no_run_may_fail() -> None:
    with pytest.raises(ExplorationError, match="OddError: of a") as caught:
        explore(fails_fast)
    assert caught.value.trial.schedule == Schedule()


@pytest.mark.parametrize("allow", [OddError, (KeyError, OddError), Exception])
def test_the_check_sees_a_failed_result_if_the_error_is_allowed(allow: Any) -> None:
    seen: set[tuple[Status, int]] = set()

    def check(result: Result) -> None:
        seen.add((result.status, len(texts(result))))

    assert explore(fails_fast, check, allow=allow).exhausted
    assert seen == {(Status.FAILED, 0), (Status.FAILED, 1)}


def test_an_error_that_is_not_allowed_fails() -> None:
    with pytest.raises(ExplorationError, match="OddError"):
        explore(fails_fast, lambda _: None, allow=KeyError)


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"allow": "OddError"}, "allow is an exception type, or a tuple of some, not 'OddError'"),
        ({"allow": (KeyError, int)}, "not <class 'int'>"),
        ({"make_runner": 7}, "make_runner is a function that makes the runner"),
        ({"check": 7}, "the check is a function of the result, not 7"),
    ],
)
def test_options_that_are_none_are_refused(options: dict[str, Any], culprit: str) -> None:
    with pytest.raises(TypeError, match=culprit):
        explore(three_by_two, **options)


def test_a_tree_where_what_makes_it_is_needed_is_refused() -> None:
    tree: Any = three_by_two()
    with pytest.raises(TypeError, match=r"make_tree is a function .* \(`lambda: ...`\)"):
        explore(tree)


async def test_from_inside_trio_it_is_refused() -> None:
    for call in (
        lambda: explore(three_by_two),
        lambda: replay(three_by_two, None, []),
        lambda: run_once(three_by_two),
    ):
        with pytest.raises(RuntimeError, match="call it from a plain function, not from inside"):
            call()


# ------------------------------------------------------------------------------ the same, always


@given(st.integers(0, 2**32))
@fewer(4)
def test_the_same_schedule_logs_the_same_to_the_byte(seed: int) -> None:
    # Six tasks of two agents: trio alone would shuffle them.
    assert log_under(seed) == log_under(seed)


@fewer(4)
@given(trees(), st.lists(st.integers(0, 5), max_size=8))
def test_so_does_any_tree(tree: Tree, numbers: list[int]) -> None:
    reads = read if tree.reads else None
    trials = [
        run_once(tree.make, Indexed(numbers), read=reads, make_runner=make_runner) for _ in range(2)
    ]
    first, second = trials
    assert log_of(first.result) == log_of(second.result)
    assert first.schedule == second.schedule
    assert repr(first.error) == repr(second.error)


def test_another_process_logs_the_same() -> None:
    code = "from tests.testing.logged import digest; print(digest())"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == digest()


def test_the_tasks_of_an_agents_own_nursery_are_steered() -> None:
    async def starts_two(ctx: Ctx) -> AsyncIterator[str]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ctx.emit, "a")
            nursery.start_soon(ctx.emit, "b")
            yield "c"

    logs: set[str] = set()
    explore(alone(starts_two), lambda result: logs.add("".join(texts(result))))
    assert logs == {"abc", "acb", "bac", "bca", "cab", "cba"}


def test_a_task_that_is_started_and_waited_for_gives_back_what_it_started_with() -> None:
    async def serve(*, task_status: trio.TaskStatus[str]) -> None:
        await trio.lowlevel.checkpoint()
        task_status.started("ready")
        await trio.sleep_forever()

    async def uses(ctx: Ctx) -> AsyncIterator[str]:
        async with trio.open_nursery() as nursery:
            yield await nursery.start(serve)
            nursery.cancel_scope.cancel()

    logs: list[list[str]] = []
    explore(alone(uses), lambda result: logs.append(texts(result)))
    assert logs == [["ready"]] * len(logs)


def test_the_readers_own_tasks_go_in_the_order_of_their_making() -> None:
    async def asks(ctx: Ctx) -> str:
        answer = await ctx.request_input("Who?")
        return f"{answer}"

    async def two_at_once(run: Run) -> None:
        async def respond(number: int, request: str) -> None:
            await trio.sleep(1)
            if any(one.id == request for one in run.pending):
                await run.respond(request, number)

        async with trio.open_nursery() as nursery:
            async for event in run:
                if event.request is not None:
                    for number in range(5):
                        nursery.start_soon(respond, number, event.request.id)

    found: set[str] = set()
    explore(alone(asks), lambda result: found.add(texts(result)[-1]), read=two_at_once)
    assert found == {"0"}


def test_agents_that_do_something_else_when_they_are_run_again_are_told() -> None:
    runs = count()

    def make_tree() -> Agent:
        async def now_and_then(ctx: Ctx) -> None:
            if next(runs) % 2:
                await ctx.emit("odd")

        return ParallelAgent("p", [emits("a", "a"), does("b", now_and_then)])

    with pytest.raises(NondeterminismError) as caught:
        explore(make_tree, reduce=False)
    said = str(caught.value)
    assert "the same schedule ran differently: the last time, " in said
    assert "p/b" in said
    assert "take random numbers, ids and time from what the test gives them" in said


def test_agents_that_touch_something_else_when_they_are_run_again_are_told() -> None:
    runs = count()

    def make_tree() -> Agent:
        async def reads(ctx: Ctx) -> None:
            ctx.state.get(f"key {next(runs)}")

        return ParallelAgent("p", [does("a", reads), emits("b", "b"), emits("c", "c")])

    with pytest.raises(NondeterminismError, match=r"with state key 0.* with state key 1"):
        explore(make_tree)


def test_agents_may_say_something_else_each_time() -> None:
    runs = count()

    def make_tree() -> Agent:
        return ParallelAgent("p", [emits("a", f"{next(runs)}"), emits("b", "b")])

    assert explore(make_tree).exhausted


# ---------------------------------------------------------------------------------- standstills


def deadlock_of(make_tree: Callable[[], Agent], **options: Any) -> DeadlockError:
    with pytest.raises(ExplorationError) as caught:
        explore(make_tree, **options)
    error = caught.value.error
    assert isinstance(error, DeadlockError)
    return error


async def receives(ctx: Ctx) -> None:
    await ctx.receive()


async def asks_first(ctx: Ctx) -> AsyncIterator[str]:
    await ctx.request_input("May I?")
    yield "thanks"


async def waits_on_its_own(ctx: Ctx) -> AsyncIterator[str]:
    yield "hello"
    await trio.Event().wait()


async def waits_in_a_task(ctx: Ctx) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)


async def waits_beside_its_branch(ctx: Ctx) -> None:
    async with ctx.open_fan_out() as group:
        group.start(does("child", receives))
        await ctx.receive()


WAITS: dict[str, tuple[AgentFunction, list[str]]] = {
    "a message": (receives, ["alone waits for a message at test_exploring.py:N, `await ctx.r"]),
    "a person": (
        asks_first,
        ["alone waits for a person's answer at test_exploring.py:N, `await ctx.request_input("],
    ),
    "something of its own": (
        waits_on_its_own,
        ["alone waits at test_exploring.py:N, `await trio.Event().wait()`"],
    ),
    "a task": (
        waits_in_a_task,
        ["alone waits at test_exploring.py:N, `async with trio", "alone#2 waits "],
    ),
    "a message, and its branch too": (
        waits_beside_its_branch,
        [
            "alone waits for a message at test_exploring.py:N, `await ctx.receive()`",
            "alone/child@1 waits for a message at test_exploring.py:N, `await ctx.receive()`",
        ],
    ),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_deadlock_says_who_waits_for_what_and_where(name: str) -> None:
    function, expected = WAITS[name]
    said = without_lines(str(deadlock_of(alone(function))))
    lines = said.splitlines()
    assert lines[0] == "deadlock: nothing can happen any more"
    assert len(lines) == 1 + len(expected)
    for line, start in zip(lines[1:], expected, strict=True):
        assert line.startswith(f"  {start}")


def without_lines(text: str) -> str:
    head, *rest = text.split("test_exploring.py:")
    return head + "".join(f"test_exploring.py:N{part.lstrip('0123456789')}" for part in rest)


def test_a_deadlock_over_a_limiter_names_it_and_both() -> None:
    def make_tree() -> Agent:
        scarce, done = Limiter(1, name="scarce"), trio.Event()

        async def waits(ctx: Ctx) -> None:
            await done.wait()

        async def sets(ctx: Ctx) -> None:
            done.set()

        fan = [does("a", waits, limiter=scarce), does("b", sets, limiter=scarce)]
        return ParallelAgent("p", fan)

    error = deadlock_of(make_tree)
    assert [path for path, _ in error.waits] == ["p/a", "p/b"]
    assert error.waits[0][1].endswith("`await done.wait()`")
    assert error.waits[1][1] == "for a slot of a limiter (scarce)"


def test_a_deadlock_over_a_yield_shows_the_yield() -> None:
    async def never_comes_back(run: Run) -> None:
        async for _ in run:
            await trio.sleep_forever()

    error = deadlock_of(three_by_two, read=never_comes_back)
    said = without_lines(str(error))
    assert "p/a waits for the reader to come back at test_exploring.py:N, `yield text`" in said
    assert "the reader waits at test_exploring.py:N, `await trio.sleep_forever()`" in said


def test_a_question_about_a_branch_that_has_failed_is_shown() -> None:
    async def fails(ctx: Ctx) -> None:
        raise OddError("oh")

    def make_tree() -> Agent:
        return ParallelAgent("p", [does("a", fails)], barrier=Escalate("Go on?"))

    async def only_reads(run: Run) -> None:
        async for _ in run:
            pass

    ((path, what),) = deadlock_of(make_tree, read=only_reads).waits
    assert path == "p"
    assert what == "for a person's answer to 'Go on? p/a failed: OddError: oh'"


def test_a_deadlock_that_depends_on_the_order_is_found_with_its_schedule() -> None:
    def make_tree() -> Agent:
        async def sends(ctx: Ctx) -> None:
            if "x" not in ctx.state:
                await ctx.send("hello", to="p.b")

        async def writes(ctx: Ctx) -> None:
            ctx.state["x"] = 1

        return ParallelAgent("p", [does("a", sends), does("b", receives), does("c", writes)])

    with pytest.raises(ExplorationError) as caught:
        explore(make_tree)
    assert isinstance(caught.value.error, DeadlockError)
    with pytest.raises(ExplorationError, match="p/b waits for a message"):
        replay(make_tree, None, caught.value.trial.schedule)


def test_a_deadlock_that_is_allowed_is_a_cancelled_run_to_the_check() -> None:
    found: list[tuple[Status, str | None]] = []
    explore(
        alone(receives),
        lambda result: found.append((result.status, result.reason)),
        allow=DeadlockError,
    )
    assert set(found) == {(Status.CANCELLED, "the exploration of this schedule has ended")}


async def checkpoints_for_ever(ctx: Ctx) -> None:
    while True:
        await trio.lowlevel.checkpoint()


async def emits_for_ever(ctx: Ctx) -> AsyncIterator[str]:
    while True:
        yield "more"


async def sleeps_for_ever(ctx: Ctx) -> None:
    while True:  # noqa: ASYNC110  # it waits for nothing
        await trio.sleep(1)


async def task_for_ever(ctx: Ctx) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleeps_for_ever, ctx)


ENDLESS: list[AgentFunction] = [
    checkpoints_for_ever,
    emits_for_ever,
    sleeps_for_ever,
    task_for_ever,
]


@pytest.mark.parametrize("function", ENDLESS)
def test_a_run_that_never_ends_is_told(function: AgentFunction) -> None:
    with pytest.raises(ExplorationError) as caught:
        explore(alone(function), max_steps=50)
    assert isinstance(caught.value.error, EndlessRunError)
    assert "has not ended after 50 steps" in str(caught.value)
    assert "raise max_steps" in str(caught.value)


async def sleeps_and_sleeps(run: Run) -> None:
    while True:  # noqa: ASYNC110  # as above
        await trio.sleep(1)


async def goes_on_and_on(run: Run) -> None:
    while True:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("reads", [sleeps_and_sleeps, goes_on_and_on])
def test_a_reader_that_never_ends_is_told(reads: Callable[[Run], Awaitable[None]]) -> None:
    with pytest.raises(ExplorationError, match="EndlessRunError"):
        explore(three_by_two, read=reads, max_steps=50)


# --------------------------------------------------------------------------- functions, and time


def test_plain_functions_run_in_one_go_and_in_no_thread() -> None:
    threads: set[int] = set()

    def make_tree() -> Agent:
        def counts(ctx: Ctx) -> None:
            threads.add(threading.get_ident())
            ctx.state["n"] = ctx.state.get("n", 0) + 1

        return ParallelAgent("p", [does(name, counts) for name in "ab"])

    sums: set[int] = set()
    assert explore(make_tree, lambda result: sums.add(result.state["n"])).exhausted
    assert threads == {threading.get_ident()}
    assert sums == {1, 2}  # read and written in one go, but seen by others when recorded


def test_a_thread_of_the_agents_own_is_waited_for() -> None:
    async def calls(ctx: Ctx) -> str:
        return await trio.to_thread.run_sync(lambda: "from a thread")

    found: list[str] = []
    explore(alone(calls), lambda result: found.append(texts(result)[-1]))
    assert set(found) == {"from a thread"}


def sleeper(name: str, seconds: float, **options: Any) -> Agent:
    async def sleeps(ctx: Ctx) -> AsyncIterator[str]:
        await trio.sleep(seconds)
        yield f"{name} at {trio.current_time():g}"

    return does(name, sleeps, **options)


def test_sleeps_keep_their_order_under_every_schedule_and_take_no_time() -> None:
    begin = time.monotonic()
    logs: list[list[str]] = []

    def make_tree() -> Agent:
        return ParallelAgent("p", [sleeper("long", 90_000), sleeper("short", 3_600)])

    explored = explore(make_tree, lambda result: logs.append(texts(result)))
    assert explored.exhausted
    assert logs == [["short at 3600", "long at 90000"]] * len(logs)
    assert time.monotonic() - begin < 3_600


def test_sleeps_of_the_same_length_may_end_in_any_order() -> None:
    logs: set[str] = set()

    def make_tree() -> Agent:
        return ParallelAgent("p", [sleeper("a", 1), sleeper("b", 1)])

    explore(make_tree, lambda result: logs.add(" ".join(texts(result))))
    assert logs == {"a at 1 b at 1", "b at 1 a at 1"}


def test_timeouts_work() -> None:
    def make_tree() -> Agent:
        fan = [sleeper("slow", 10, timeout=5), sleeper("quick", 4, timeout=5)]
        return ParallelAgent("p", fan, barrier=WaitAll())

    logs: list[list[str]] = []
    with pytest.raises(ExplorationError, match="1 of 2 branches failed"):
        explore(make_tree)
    explore(make_tree, lambda result: logs.append(texts(result)), allow=ExceptionGroup)
    assert logs == [["quick at 4"]] * len(logs)


def test_the_errors_are_the_runs_own() -> None:
    trial = run_once(alone(functools.partial(_oversleeps), timeout=1))
    assert isinstance(trial.error, AgentTimeoutError)


async def _oversleeps(ctx: Ctx) -> None:
    await trio.sleep(2)


# --------------------------------------------------------------------------------- what is passed


def test_messages_answers_and_the_message_of_the_run_are_passed() -> None:
    async def converses(ctx: Ctx) -> AsyncIterator[str]:
        yield f"{ctx.user_text}?"
        heard = await ctx.receive()
        answer = await ctx.request_input(f"You said {heard.text}?", schema=bool)
        yield f"{answer}"

    async def reads(run: Run) -> None:
        async for event in run:
            if event.text == "hello?":
                await run.send("yes", to=None)
            if event.request is not None:
                await run.respond(event.request.id, True)

    logs: list[list[str]] = []
    explore(
        alone(converses),
        lambda result: logs.append(texts(result)),
        message="hello",
        read=reads,
    )
    assert logs[0][-1] == "True"
    assert logs == [logs[0]] * len(logs)


def test_the_runner_and_how_the_run_behaves_are_passed() -> None:
    def make_tree() -> Agent:
        async def contributes(ctx: Ctx) -> None:
            ctx.state.contribute("n", 1)

        return ParallelAgent("p", [does(name, contributes) for name in "ab"])

    def check(result: Result) -> None:
        assert result.state["n"] == 2

    runner = functools.partial(Runner, reducers={"n": "add"})
    free = explore(make_tree, check, make_runner=runner)
    one_by_one = explore(
        make_tree, check, make_runner=runner, run_config=RunConfig(max_concurrency=1)
    )
    assert free.exhausted
    assert one_by_one.exhausted
    trial = replay(
        make_tree, check, [], make_runner=runner, run_config=RunConfig(max_concurrency=1)
    )
    assert trial.error is None


def test_runs_that_are_opened_by_agents_are_explored_too() -> None:
    async def runs(ctx: Ctx) -> str:
        fan = ParallelAgent("inner", [emits("a", "a"), emits("b", "b")])
        result = await Runner(fan, clock=lambda: 0.0, new_id=lambda: "inner").run()
        return "".join(texts(result))

    found: set[str] = set()
    explore(alone(runs), lambda result: found.add(texts(result)[-1]))
    assert found == {"ab", "ba"}


# ------------------------------------------------------------------------------------ what is left


@pytest.mark.parametrize(
    ("make_tree", "error"),
    [
        (counters, AssertionError),
        (alone(receives), DeadlockError),
        (alone(task_for_ever), EndlessRunError),
        (alone(waits_in_a_task), DeadlockError),
        (fails_fast, OddError),
    ],
)
def test_nothing_is_left_of_a_failure(
    make_tree: Callable[[], Agent], error: type[Exception]
) -> None:
    threads = threading.active_count()
    with pytest.raises(ExplorationError) as caught:
        explore(make_tree, none_is_lost, max_steps=60)
    assert isinstance(caught.value.error, error)
    del caught
    gc.collect()  # what was never awaited, or never closed, is complained of here
    assert threading.active_count() <= threads


def test_nothing_is_left_of_schedules_that_are_given_up() -> None:
    notes: list[str] = []
    explored = explore(lambda: often_redundant(notes.append), allow=OddError)
    gc.collect()
    assert explored.redundant > 2
    assert notes.count("begun") == notes.count("ended") > explored.schedules


@pytest.mark.parametrize("fatal", [SystemExit, KeyboardInterrupt])
def test_what_ends_the_process_leaves_bare(fatal: type[BaseException]) -> None:
    async def exits(ctx: Ctx) -> None:
        raise fatal

    with pytest.raises(fatal):
        explore(lambda: SequentialAgent("s", [does("a", exits)]))


def test_a_run_that_cannot_be_opened_is_a_failure() -> None:
    class Broken(Runner):
        def open(self, *_args: Any, **_options: Any) -> Any:
            raise OddError("the store is down")

    with pytest.raises(ExplorationError, match="the store is down") as caught:
        explore(three_by_two, make_runner=Broken)
    assert caught.value.trial.result is None
