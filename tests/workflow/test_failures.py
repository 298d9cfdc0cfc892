"""What is raised when branches fail, what becomes of the others, and what is kept of it all.

Law: fail-fast raises, as itself, the failure of the first branch in declaration order among those
that failed of themselves, when all are joined. The others are notes and outcomes, never lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    Barrier,
    FailFast,
    FirstSuccess,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Runner,
    SequentialAgent,
    Status,
    WaitAll,
    agent,
)
from tests.workflow.model import Model, Node, build, nodes, watch
from tests.workflow.trees import (
    Diary,
    Ended,
    Script,
    Yields,
    leaf,
    open_and_read,
    run_tree,
    run_virtual,
    texts,
)


def everything_in(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and all that hangs on it by a group; not its context, which is Python's own."""
    if error is not None:
        yield error
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from everything_in(inner)


def check_failed(ended: Ended, error: BaseException) -> None:
    """Assert what holds of every failed run: raised as itself, nothing of trio's in it."""
    assert ended.error is error
    assert not any(isinstance(found, trio.Cancelled) for found in everything_in(ended.error))
    assert ended.result.status is Status.FAILED
    assert ended.result.reason is None
    statistics = ended.run.statistics()
    assert statistics.started == statistics.completed + statistics.failed + statistics.cancelled


def cleaning_up(
    name: str, *steps: Script, diary: Diary | None = None, shield: bool = True
) -> Agent:
    """An agent that waits for its cancellation, and then does this."""

    @agent(name=name)
    async def run(ctx: InvocationContext) -> Yields:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=shield):
                for step in steps:
                    match step:
                        case str():
                            yield step
                        case BaseException():
                            raise step
                        case int() | float():
                            await trio.sleep(step)
                        case _:
                            raise AssertionError(step)
            if diary is not None:
                diary.append(f"{name} has cleaned up")

    return run


# -------------------------------------------------------------------------------- one that fails


@given(nodes("say", "fail", max_leaves=8), st.random_module())
def test_in_any_nest_of_agents_a_failure_does_what_the_model_says(
    node: Node, scheduler: object
) -> None:
    watch(build(node)).matches(Model().play(node))


class CustomError(Exception):
    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(code)
        self.hint = hint


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        KeyError("x"),
        TimeoutError(),
        trio.TooSlowError(),
        CustomError(1, hint="try again"),
        ExceptionGroup("of the agent's own", [ValueError("x"), KeyError("y")]),
        ExceptionGroup("of one", [ValueError("x")]),
        OSError(5, "disk"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_failure_is_raised_as_itself_through_any_nesting(error: Exception, depth: int) -> None:
    async def fail(ctx: InvocationContext) -> None:
        await trio.sleep(1)
        raise error

    tree: Agent = agent(fail, name="leaf")
    for level in range(depth):
        tree = ParallelAgent(
            f"p{level}", [leaf(f"a{level}", 9), SequentialAgent(f"s{level}", [tree])]
        )
        tree = LoopAgent(f"l{level}", [tree], max_iterations=2)
    check_failed(run_tree(tree), error)


def test_siblings_are_cancelled_and_joined_before_it_is_raised() -> None:
    diary: Diary = []
    error = ValueError("x")
    tree = ParallelAgent("p", [cleaning_up("a", 5, diary=diary), leaf("b", 1, error)])

    async def main() -> Ended:
        ended = await open_and_read(tree)
        diary.append("raised")
        return ended

    check_failed(run_virtual(main), error)
    assert diary == ["a has cleaned up", "raised"]


def test_what_the_failing_branch_said_before_is_delivered_first() -> None:
    error = ValueError("x")
    ended = run_tree(ParallelAgent("p", [leaf("a", "one", "two", error), leaf("b", 9)]))
    check_failed(ended, error)
    assert texts(ended.delivered) == ["one", "two"]


def test_what_siblings_say_under_a_shield_while_they_clean_up_is_recorded() -> None:
    error = ValueError("x")
    tree = ParallelAgent("p", [cleaning_up("a", 5, "goodbye"), leaf("b", 1, error)])
    ended = run_tree(tree)
    check_failed(ended, error)
    assert texts(ended.delivered) == texts(ended.result.events) == ["goodbye"]


def test_what_siblings_say_without_a_shield_meets_the_cancellation() -> None:
    error = ValueError("x")
    ended = run_tree(
        ParallelAgent("p", [cleaning_up("a", "lost", shield=False), leaf("b", 1, error)])
    )
    check_failed(ended, error)
    assert texts(ended.result.events) == []
    assert ended.outcomes("p") == {"a": "cancelled", "b": "failed"}


def test_the_branch_that_failed_is_a_note() -> None:
    tree = SequentialAgent("s", [ParallelAgent("p", [leaf("a", ValueError("x")), leaf("b", 9)])])
    assert run_tree(tree).notes == ["raised by agent s/p/a"]


def test_a_siblings_that_completed_before_stays_completed() -> None:
    tree = ParallelAgent("p", [leaf("a", "done"), leaf("b", 1, ValueError("x")), leaf("c", 9)])
    ended = run_tree(tree)
    assert ended.outcomes("p") == {"a": "completed", "b": "failed", "c": "cancelled"}
    assert ended.outcome("p", "a").output == "done"


def test_a_sibling_that_swallows_the_cancellation_and_returns_is_cancelled() -> None:
    @agent
    async def stubborn(ctx: InvocationContext) -> str:
        with suppress(trio.Cancelled):
            await trio.sleep_forever()
        return "as if nothing had happened"

    ended = run_tree(ParallelAgent("p", [stubborn, leaf("b", 1, ValueError("x"))]))
    assert ended.outcomes("p") == {"stubborn": "cancelled", "b": "failed"}
    assert texts(ended.result.events) == []


def test_an_agent_can_catch_the_failure_of_agents_it_runs() -> None:
    @agent
    async def careful(ctx: InvocationContext) -> str:
        try:
            await ctx.run_agent(ParallelAgent("p", [leaf("a", ValueError("x")), leaf("b", 9)]))
        except ValueError as error:
            return f"caught {error}, p/b was {ctx.outcomes('p')[1].status}"
        return "nothing to catch"

    ended = run_tree(careful)
    assert ended.result.text == "caught x, p/b was cancelled"
    assert ended.result.status is Status.COMPLETED


# ------------------------------------------------------------------------------ several that fail

NAMES: Final = "abcd"


def failing(name: str, *before: Script) -> tuple[Agent, ValueError]:
    error = ValueError(name)
    return leaf(name, *before, error), error


def among(failures: list[Agent], position: int) -> list[Agent]:
    """The failing agents, and one that only waits among them."""
    return [*failures[:position], leaf("waits", 99), *failures[position:]]


@given(st.integers(2, 4), st.integers(0, 4), st.random_module())
def test_of_agents_that_fail_in_their_first_step_the_first_declared_is_raised(
    number: int, position: int, scheduler: object
) -> None:
    """They do not get as far as an `await`; all have started, so all fail."""
    agents, errors = zip(*(failing(name) for name in NAMES[:number]), strict=True)
    ended = run_tree(ParallelAgent("p", among(list(agents), position)))
    check_failed(ended, errors[0])
    assert ended.outcomes("p") == {"waits": "cancelled", **dict.fromkeys(NAMES[:number], "failed")}


@given(st.integers(2, 4), st.integers(0, 4), st.random_module())
def test_of_agents_whose_time_is_up_in_one_tick_the_first_declared_is_raised(
    number: int, position: int, scheduler: object
) -> None:
    agents, errors = zip(*(failing(name, 5) for name in NAMES[:number]), strict=True)
    ended = run_tree(ParallelAgent("p", among(list(agents), position)))
    check_failed(ended, errors[0])
    assert ended.outcomes("p") == {"waits": "cancelled", **dict.fromkeys(NAMES[:number], "failed")}


@given(st.integers(2, 4), st.integers(0, 4), st.random_module())
def test_of_agents_woken_by_one_thing_the_first_declared_is_raised(
    number: int, position: int, scheduler: object
) -> None:
    wake = trio.Event()

    async def wait(ctx: InvocationContext) -> None:
        await wake.wait()

    agents, errors = zip(*(failing(name, wait) for name in NAMES[:number]), strict=True)
    waker = leaf("waker", 1, lambda _: wake.set(), 99)
    ended = run_tree(ParallelAgent("p", among([*agents, waker], position)))
    check_failed(ended, errors[0])


@given(st.integers(2, 4), st.random_module())
def test_of_agents_that_fail_after_events_of_one_round_the_first_declared_is_raised(
    number: int, scheduler: object
) -> None:
    agents, errors = zip(*(failing(name, "said") for name in NAMES[:number]), strict=True)
    check_failed(run_tree(ParallelAgent("p", list(agents))), errors[0])


@given(st.integers(0, 4), st.integers(0, 4), st.random_module())
def test_how_deep_below_the_branches_the_failing_agents_are_does_not_matter(
    left: int, right: int, scheduler: object
) -> None:
    (one, first), (two, second) = failing("a", 5), failing("b", 5)
    for level in range(left):
        one = SequentialAgent(f"left{level}", [one])
    for level in range(right):
        two = SequentialAgent(f"right{level}", [two])
    ended = run_tree(ParallelAgent("p", [one, leaf("waits", 99), two]))
    check_failed(ended, first)
    assert ended.notes[1:] == [f"another branch failed too: p/{two.name}: ValueError: {second}"]


@given(st.integers(0, 3), st.integers(0, 3), st.random_module())
def test_through_nested_parallels_the_first_declared_is_raised_too(
    left: int, right: int, scheduler: object
) -> None:
    (one, first), (two, _) = failing("a", 5), failing("b", 5)
    for level in range(left):
        one = ParallelAgent(f"left{level}", [leaf(f"lw{level}", 99), one])
    for level in range(right):
        two = ParallelAgent(f"right{level}", [two, leaf(f"rw{level}", 99)])
    check_failed(run_tree(ParallelAgent("p", [leaf("waits", 99), one, two])), first)


@pytest.mark.parametrize("workflow", [SequentialAgent, ParallelAgent])
@given(scheduler=st.random_module())
def test_what_a_failure_keeps_from_starting_does_not_fail(
    workflow: Callable[[str, list[Agent]], Agent], scheduler: object
) -> None:
    """The agent one level further down would fail in its first step, which never comes."""
    diary: Diary = []
    below = leaf("a", ValueError("a"), diary=diary)
    direct, error = failing("b")
    ended = run_tree(ParallelAgent("p", [workflow("inner", [below]), direct]))
    check_failed(ended, error)
    assert diary == []
    assert ended.outcomes("p") == {"inner": "cancelled", "b": "failed"}


@given(st.permutations([1, 2, 3, 4]), st.random_module())
def test_at_different_times_only_the_earliest_fails_of_itself(
    times: list[int], scheduler: object
) -> None:
    made = [failing(name, time) for name, time in zip(NAMES, times, strict=True)]
    ended = run_tree(ParallelAgent("p", [branch for branch, _ in made]))
    earliest = times.index(1)
    check_failed(ended, made[earliest][1])
    statuses = ended.outcomes("p")
    assert statuses.pop(NAMES[earliest]) == "failed"
    assert set(statuses.values()) == {"cancelled"}
    assert len(ended.notes) == 1


def test_the_other_failures_are_notes_in_declaration_order() -> None:
    agents, errors = zip(*(failing(name, 5) for name in NAMES), strict=True)
    ended = run_tree(ParallelAgent("p", list(agents)))
    check_failed(ended, errors[0])
    assert ended.notes == [
        "raised by agent p/a",
        *(f"another branch failed too: p/{name}: ValueError: {name}" for name in NAMES[1:]),
    ]


def test_each_failure_is_an_outcome_with_the_error_itself() -> None:
    agents, errors = zip(*(failing(name, 5) for name in NAMES), strict=True)
    ended = run_tree(ParallelAgent("p", list(agents)))
    assert [outcome.error for outcome in ended.run.outcomes("p")] == list(errors)
    assert all(outcome.own for outcome in ended.run.outcomes("p"))


# ------------------------------------------------------------------------- failures in cleaning up


@pytest.mark.parametrize("position", [0, 1])
def test_a_failure_in_cleaning_up_gives_way_to_the_one_that_caused_it(position: int) -> None:
    """Whichever of the two is declared first."""
    clumsy = cleaning_up("clumsy", 3, KeyError("in cleaning up"))
    cause, error = failing("cause", 1)
    branches = [cause]
    branches.insert(position, clumsy)
    ended = run_tree(ParallelAgent("p", branches))
    check_failed(ended, error)
    assert ended.notes == [
        "raised by agent p/cause",
        "another branch failed too: p/clumsy: KeyError: 'in cleaning up'",
    ]
    assert ended.outcomes("p") == {"clumsy": "failed", "cause": "failed"}
    assert not ended.outcome("p", "clumsy").own


def test_a_failure_in_cleaning_up_deep_below_a_sibling_gives_way_too() -> None:
    clumsy: Agent = cleaning_up("clumsy", KeyError("in cleaning up"))
    for level in range(3):
        clumsy = ParallelAgent(f"q{level}", [SequentialAgent(f"s{level}", [clumsy])])
    cause, error = failing("cause", 1)
    ended = run_tree(ParallelAgent("p", [clumsy, cause]))
    check_failed(ended, error)
    assert repr(ended.outcome("p", "q2").error) == "KeyError('in cleaning up')"


def test_a_group_that_a_siblings_own_nursery_makes_in_cleaning_up_holds_no_cancellation() -> None:
    @agent
    async def nest(ctx: InvocationContext) -> None:
        async def task(*, fail: bool) -> None:
            try:
                await trio.sleep_forever()
            finally:
                if fail:
                    message = "in cleaning up"
                    raise KeyError(message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: task(fail=True))
            nursery.start_soon(lambda: task(fail=False))

    cause, error = failing("cause", 1)
    ended = run_tree(ParallelAgent("p", [nest, cause]))
    check_failed(ended, error)
    outcome = ended.outcome("p", "nest")
    assert [type(found).__name__ for found in everything_in(outcome.error)] == [
        "ExceptionGroup",
        "KeyError",
    ]


def test_when_the_run_is_cancelled_a_failure_in_cleaning_up_is_raised_by_the_block() -> None:
    error = KeyError("in cleaning up")

    async def main() -> None:
        tree = ParallelAgent("p", [cleaning_up("a", error), leaf("b", 99)])
        with pytest.raises(KeyError) as caught:
            async with Runner(tree).open():
                await trio.sleep(1)
        assert caught.value is error

    run_virtual(main)


def test_of_several_failures_in_cleaning_up_the_first_declared_is_raised() -> None:
    first = KeyError("a")

    async def main() -> None:
        tree = ParallelAgent("p", [cleaning_up("a", 5, first), cleaning_up("b", KeyError("b"))])
        with pytest.raises(KeyError) as caught:
            async with Runner(tree).open():
                await trio.sleep(1)
        assert caught.value is first
        assert "another branch failed too: p/b: KeyError: 'b'" in first.__notes__

    run_virtual(main)


# ----------------------------------------------------------------------------- groups, interrupts


def test_a_group_that_an_agents_own_nursery_raises_is_its_failure_unchanged() -> None:
    group = ExceptionGroup("two", [ValueError("x"), ExceptionGroup("in", [KeyError("y")])])
    ended = run_tree(ParallelAgent("p", [leaf("a", 1, group), leaf("b", 9)]))
    check_failed(ended, group)


def test_a_background_task_that_crashes_fails_its_agent_with_its_nurserys_group() -> None:
    error = ValueError("in the background")

    @agent
    async def nest(ctx: InvocationContext) -> Yields:
        async def crash() -> None:
            await trio.sleep(1)
            raise error

        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
            while True:
                await trio.sleep(10)
                yield "tick"

    ended = run_tree(ParallelAgent("p", [nest, leaf("b", 9)]))
    assert isinstance(ended.error, ExceptionGroup)
    assert ended.error.exceptions == (error,)
    check_failed(ended, ended.error)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_an_interrupt_in_a_branch_leaves_the_block_bare_whatever_else_failed(
    interrupt: type[BaseException], position: int
) -> None:
    branches = [leaf("a", 5, ValueError("a")), leaf("b", 5, ValueError("b"))]
    branches.insert(position, leaf("c", 5, interrupt()))

    async def main() -> None:
        tree = ParallelAgent("p", [leaf("d", 99), ParallelAgent("q", branches)])
        await Runner(tree).run()

    with pytest.raises(interrupt):
        run_virtual(main)


# ------------------------------------------------------------------------------ asyncio in an agent

ON_TRIO: Final = "agents run on trio, not on asyncio: use trio.sleep, "


def notes_on_trio(error: BaseException | None) -> list[str]:
    notes = [note for found in everything_in(error) for note in getattr(found, "__notes__", ())]
    return [note for note in notes if note.startswith(ON_TRIO)]


@pytest.mark.parametrize(
    "wait",
    [
        lambda _ctx: asyncio.sleep(1),
        lambda _ctx: asyncio.to_thread(print),
        lambda _ctx: asyncio.Event().wait(),
        lambda _ctx: asyncio.Queue[int]().get(),
    ],
    ids=["sleep", "to_thread", "Event", "Queue"],
)
def test_what_asyncio_raises_in_an_agent_has_a_note_that_agents_run_on_trio(wait: Any) -> None:
    ended = run_tree(SequentialAgent("s", [ParallelAgent("p", [leaf("a", wait)])]))
    assert len(notes_on_trio(ended.error)) == 1
    assert ended.notes[0] == "raised by agent s/p/a"


def test_what_asyncio_raises_in_an_agents_nursery_has_that_note_too() -> None:
    @agent
    async def background(ctx: InvocationContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asyncio.sleep, 1)

    assert len(notes_on_trio(run_tree(background).error)) == 1


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("no running event loop, and a word more"),
        ValueError("no running event loop"),
        AttributeError("create_future", name="create_future", obj=object()),
        AttributeError("'NoneType' object has no attribute 'create_future'"),
    ],
    ids=repr,
)
def test_what_only_looks_like_asyncios_has_no_such_note(error: Exception) -> None:
    ended = run_tree(leaf("a", error))
    assert ended.notes == ["raised by agent a"]


# ------------------------------------------------------------------------- objects of the exception


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int


@pytest.mark.parametrize("error", [ValueError("shared"), FrozenError(7)], ids=repr)
def test_one_exception_object_raised_in_two_branches_over_three_runs(error: Exception) -> None:
    tree = ParallelAgent("p", [leaf("a", 5, error), leaf("b", 5, error)])
    notes = []
    for _ in range(3):
        ended = run_tree(tree)
        assert ended.error is error
        assert ended.outcomes("p") == {"a": "failed", "b": "failed"}
        notes.append(ended.notes)
    assert notes[0] == notes[1] == notes[2]
    assert len(notes[0]) == (0 if isinstance(error, FrozenError) else 2)


@given(st.random_module())
def test_an_exception_object_of_two_branches_notes_the_one_it_is_raised_for(
    scheduler: object,
) -> None:
    error = ValueError("shared")
    ended = run_tree(ParallelAgent("p", [leaf("a", 5, error), leaf("b", 5, error)]))
    assert ended.notes == [
        "raised by agent p/a",
        "another branch failed too: p/b: ValueError: shared",
    ]


class HostileError(Exception):
    def __str__(self) -> str:
        message = "no words"
        raise RuntimeError(message)

    def __getattr__(self, name: str) -> Any:
        message = f"no {name}"
        raise RuntimeError(message)

    def __setattr__(self, name: str, value: object) -> None:
        message = f"no {name}"
        raise RuntimeError(message)

    def __eq__(self, other: object) -> bool:
        message = "no comparison"
        raise RuntimeError(message)

    __hash__ = None  # type: ignore[assignment]  # it is hostile on purpose


def test_an_exception_that_resists_everything_is_raised_all_the_same() -> None:
    error = HostileError()
    ended = run_tree(ParallelAgent("p", [leaf("a", 5, error), leaf("b", 5, HostileError())]))
    assert ended.error is error
    (_, event) = ended.run.outcomes("p"), ended.result.events[-1]
    assert [outcome.error_message for outcome in event.actions.outcomes] == [
        "<its __str__ failed>"
    ] * 2


def test_notes_of_the_agents_own_stay_in_front() -> None:
    error = ValueError("x")
    error.add_note("look into the cellar")
    ended = run_tree(ParallelAgent("p", [leaf("a", error), leaf("b", 9)]))
    assert ended.notes == ["look into the cellar", "raised by agent p/a"]


# ------------------------------------------------------------------------------------- outcomes


def test_outcomes_are_recorded_in_one_event_of_the_fan_outs_own_after_all_others() -> None:
    tree = ParallelAgent("p", [cleaning_up("a", 5, "goodbye"), leaf("b", 1, ValueError("x"))])
    ended = run_tree(tree)
    *before, last = ended.delivered
    assert [event.actions.outcomes for event in before] == [()]
    assert (last.author, last.path, last.branch) == ("p", "p", None)
    assert [
        (outcome.name, outcome.status, outcome.error_type, outcome.error_message, outcome.attempts)
        for outcome in last.actions.outcomes
    ] == [("a", "cancelled", None, None, 1), ("b", "failed", "ValueError", "x", 1)]
    assert [outcome.duration for outcome in last.actions.outcomes] == [6, 1]


def test_outcomes_can_be_read_after_the_failure() -> None:
    ended = run_tree(ParallelAgent("p", [leaf("a", 1, ValueError("x")), leaf("b", 9)]))
    first, second = ended.run.outcomes("p")
    assert (str(first.status), repr(first.error), first.path) == (
        "failed",
        "ValueError('x')",
        "p/a",
    )
    assert (str(second.status), second.error, second.output) == ("cancelled", None, None)


def test_each_of_nested_fan_outs_records_its_own() -> None:
    inner = ParallelAgent("q", [leaf("a", 1, ValueError("x")), leaf("b", 9)])
    ended = run_tree(ParallelAgent("p", [inner, leaf("c", 9)]))
    assert [event.author for event in ended.delivered] == ["q", "p"]
    assert ended.outcomes("q") == {"a": "failed", "b": "cancelled"}
    assert ended.outcomes("p") == {"q": "failed", "c": "cancelled"}


def test_a_failure_that_comes_up_through_nested_fan_outs_is_noted_once() -> None:
    tree: Agent = leaf("a", 1, ValueError("x"))
    for level in range(4):
        tree = ParallelAgent(f"p{level}", [tree, leaf(f"w{level}", 9)])
    assert run_tree(tree).notes == ["raised by agent p3/p2/p1/p0/a"]


def test_notes_of_an_inner_fan_out_stay_when_the_failure_passes_an_outer_one() -> None:
    inner = ParallelAgent("q", [leaf("a", 5, ValueError("a")), leaf("b", 5, KeyError("b"))])
    ended = run_tree(ParallelAgent("p", [inner, leaf("c", 5, OSError("c"))]))
    assert ended.notes == [
        "raised by agent p/q/a",
        "another branch failed too: p/q/b: KeyError: 'b'",
        "another branch failed too: p/c: OSError: c",
    ]


async def test_after_a_failure_iteration_is_over(autojump_clock: trio.testing.MockClock) -> None:
    async with Runner(ParallelAgent("p", [leaf("a", ValueError("x"))])).open() as run:
        with pytest.raises(ValueError, match="x"):
            [event async for event in run]
        assert [event async for event in run] == []
    assert run.result.status is Status.FAILED


async def test_after_a_failure_the_session_serves_the_next_run(
    autojump_clock: trio.testing.MockClock,
) -> None:
    runner = Runner(ParallelAgent("p", [leaf("a", "said", 1, ValueError("x")), leaf("b", 9)]))
    for number in (1, 2):
        ended = await open_and_read(runner, session_id="s")
        assert texts(ended.delivered) == ["said"]
        assert ended.run.statistics().last_seq == 3 * number


class EmptyError(Exception):
    """An error that is a collection, of nothing at the moment."""

    def __len__(self) -> int:
        return 0


class UndecidedError(Exception):
    """An error that cannot be asked for its truth, as an array cannot."""

    def __bool__(self) -> bool:
        message = "neither true nor false"
        raise TypeError(message)


@pytest.mark.parametrize("error", [EmptyError(), UndecidedError()], ids=repr)
@pytest.mark.parametrize("policy", [FailFast(), WaitAll(), FirstSuccess()], ids=repr)
def test_a_failure_is_one_whatever_its_truth(policy: Barrier, error: Exception) -> None:
    ended = run_tree(ParallelAgent("p", [leaf("a", 1, error)], barrier=policy))
    assert error in everything_in(ended.error)
    assert ended.result.status is Status.FAILED
    assert ended.outcome("p", "a").error is error
