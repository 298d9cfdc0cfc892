"""The nastiest tests of the kernel, by the numbers they have in the list of its laws.

Number 6 (interrupts) is in ``test_interrupts.py``. Missing numbers belong to what the kernel
alone does not have.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from parallel_agent import (
    Agent,
    Event,
    EventActions,
    InMemorySessionService,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Run,
    Runner,
    SequentialAgent,
    Status,
    StreamClosedError,
    UncancellableAgentError,
    agent,
)
from tests.kernel.scripted import (
    BatchingService,
    BoomError,
    Diary,
    FailingService,
    SlowService,
    StoreError,
    Yields,
    check_run,
    counting,
    holds_cancellation,
    quiet,
    read_all,
    run_virtual,
    stored,
    texts,
)

# ------------------------------------------------------------------------------------ 1


@pytest.mark.parametrize("way", ["breaks", "is cancelled", "is cancelled in its read"])
async def test_nasty_01_shielded_cleanup_yield_while_the_reader_leaves(
    way: str, autojump_clock: MockClock
) -> None:
    diary: Diary = []

    @agent
    async def tidy(ctx: InvocationContext) -> Yields:
        try:
            yield "work"
            await trio.sleep_forever()
        finally:
            diary.append("finally begins")
            with trio.CancelScope(shield=True):
                for index in range(2):
                    ctx.state["step"] = index
                    yield f"clean {index}"
                    diary.append(f"clean {index} acknowledged")
            diary.append("finally ends")

    never = counting("never", 1)
    inner = ParallelAgent("inner", [tidy, counting("beside", 1)])
    tree = SequentialAgent(
        "line", [LoopAgent("loop", [ParallelAgent("outer", [inner])], max_iterations=3), never]
    )
    runner = Runner(tree, session_service=SlowService(1))
    with quiet(), trio.CancelScope() as scope:
        async with runner.open() as run:
            async for event in run:
                diary += texts([event])
                if event.text == "work":
                    break
            await trio.sleep(10)  # until "beside" waits for its acknowledgement, if it still does
            if way == "is cancelled":
                scope.cancel()
                await trio.lowlevel.checkpoint()
            elif way == "is cancelled in its read":
                scope.cancel()
                await anext(run)
        diary.append("left")
    assert scope.cancelled_caught == (way != "breaks")
    assert [line for line in diary if line not in ("beside0", "left")] == [
        "work",
        "finally begins",
        "clean 0 acknowledged",
        "clean 1 acknowledged",
        "finally ends",
    ]
    recorded = texts(await check_run(runner, run))
    assert [text for text in recorded if text != "beside0"] == ["work", "clean 0", "clean 1"]
    assert run.result.state == {"step": 1}
    assert run.result.status == "cancelled"


# ------------------------------------------------------------------------------------ 2


@pytest.mark.parametrize("service", [InMemorySessionService, BatchingService])
async def test_nasty_02_the_middle_of_a_batch_escalates(
    service: Callable[[], InMemorySessionService], autojump_clock: MockClock
) -> None:
    def loser(name: str, start: float) -> Agent:
        @agent(name=name)
        async def run(ctx: InvocationContext) -> Yields:
            await trio.sleep(start)
            with trio.CancelScope(shield=name == "c"):
                for index in range(3):
                    yield f"{name}{index}"

        return run

    @agent
    async def b(ctx: InvocationContext) -> Yields:
        await trio.sleep(2)
        yield Event("b decides", actions=EventActions(escalate=True))
        await trio.sleep(1)
        yield "b goes on"

    runner = Runner(
        ParallelAgent("race", [loser("a", 1), b, loser("c", 3)]), session_service=service()
    )
    with quiet():
        async with runner.open() as run:
            await trio.sleep(5)  # a0, b's decision and c0 wait in this order
            got = texts(await read_all(run))
    assert got == ["a0", "b decides", "b goes on"]
    assert texts(await check_run(runner, run)) == got
    assert [(outcome.status, outcome.error) for outcome in run.outcomes("race")] == [
        (Status.CANCELLED, None),
        (Status.COMPLETED, None),
        (Status.CANCELLED, None),
    ]


# ------------------------------------------------------------------------------------ 3


@pytest.mark.parametrize("adding", [False, True], ids=["plain", "adding reducer"])
@pytest.mark.parametrize("stage", ["queued", "drained", "handed out"])
async def test_nasty_03_an_inner_timeout_and_a_slow_reader(
    stage: str,
    adding: bool,  # noqa: FBT001
    autojump_clock: MockClock,
) -> None:
    seen: list[object] = []

    @agent
    async def hasty(ctx: InvocationContext) -> Yields:
        if adding:
            ctx.state.contribute("n", 5)
        else:
            ctx.state["n"] = 5
        with trio.move_on_after(1) as scope:
            yield "late"
        assert scope.cancelled_caught
        seen.append(ctx.state["n"])  # its own write, wherever it is now
        if adding:
            ctx.state.contribute("n", 2)
        else:
            ctx.state["n"] = ctx.state["n"] + 2
        seen.append(ctx.state["n"])
        yield "after"
        seen.append(ctx.state["n"])

    service = BatchingService(delay=5) if stage == "drained" else InMemorySessionService()
    runner = Runner(hasty, session_service=service, reducers={"n": "add"} if adding else {})
    async with runner.open(state_delta=None if adding else {"n": 0}) as run:
        if stage == "queued":
            await trio.sleep(5)
        got = []
        async for event in run:
            got.append((event.text, dict(event.actions.state_delta)))
            await trio.sleep(5)
    assert seen == [5, 7, 7]
    if stage == "queued":
        assert got == [("after", {"n": 7})]
    else:
        assert got == [("late", {"n": 5}), ("after", {"n": 7})]
    await check_run(runner, run)
    assert run.result.state == {"n": 7}


@pytest.mark.parametrize("stage", ["queued", "drained", "handed out"])
async def test_nasty_03_a_withdrawn_write_is_recorded_exactly_once(
    stage: str, autojump_clock: MockClock
) -> None:
    """By the next event if its own was withdrawn; else not again."""

    @agent
    async def hasty(ctx: InvocationContext) -> Yields:
        ctx.state["k"] = "v"
        ctx.state.contribute("list", 1)
        with trio.move_on_after(1):
            yield "late"
        yield "after"

    service = BatchingService(delay=5) if stage == "drained" else InMemorySessionService()
    runner = Runner(hasty, session_service=service, reducers={"list": "append"})
    async with runner.open() as run:
        if stage == "queued":
            await trio.sleep(5)
        async for _ in run:
            await trio.sleep(5)
    deltas = [dict(event.actions.state_delta) for event in await check_run(runner, run)]
    once = {"k": "v", "list": [1]}
    assert deltas == ([once] if stage == "queued" else [once, {}])


# ------------------------------------------------------------------------------------ 4


@pytest.mark.parametrize("fail_at", range(1, 8))
async def test_nasty_04_the_store_fails_while_branches_clean_up(
    fail_at: int, autojump_clock: MockClock
) -> None:
    ended: Diary = []

    def branch(name: str) -> Agent:
        @agent(name=name)
        async def run(ctx: InvocationContext) -> Yields:
            try:
                for index in range(2):
                    await trio.sleep(1)
                    yield f"{name}{index}"
                if name == "a":
                    raise BoomError
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    try:
                        yield f"{name} cleans up"
                        yield f"{name} has cleaned up"
                        ended.append(f"{name}: recorded")
                    except StreamClosedError:
                        ended.append(f"{name}: closed")
                        raise

        return run

    service = FailingService(fail_at, delay=0.25)
    runner = Runner(ParallelAgent("all", [branch(name) for name in "abc"]), session_service=service)
    errors: list[BaseException] = []
    with quiet():
        async with runner.open() as run:
            try:
                await read_all(run)
            except (StoreError, BoomError) as exc:
                errors.append(exc)
            assert await read_all(run) == []
            await trio.sleep(5)  # the body is not cancelled
    assert sorted(line[0] for line in ended) == ["a", "b", "c"]
    await check_run(runner, run)
    if service.calls >= fail_at:
        assert [str(error) for error in errors] == [f"append {fail_at} failed"]
        assert service.calls == fail_at
        assert run.result.status == "failed"
        assert any(line.endswith("closed") for line in ended)
    else:
        assert [type(error) for error in errors] == [BoomError]
    assert not holds_cancellation(errors[0])


async def test_nasty_04_reaches_the_clean_up() -> None:
    """The numbers above are not idle: a run without a failure appends at least that often."""
    service = FailingService(1_000)
    tree = ParallelAgent("all", [counting(name, 4) for name in "abc"])
    await Runner(tree, session_service=service).run()
    assert service.calls >= 7


# ------------------------------------------------------------------------------------ 5


@pytest.mark.parametrize("service", [SlowService, BatchingService])
async def test_nasty_05_a_keep_alive_timeout_over_a_slow_append(
    service: Callable[[float], SlowService], autojump_clock: MockClock
) -> None:
    tree = ParallelAgent("all", [counting("a", 3, pause=0.4), counting("b", 4, pause=0.5)])
    runner = Runner(tree, session_service=service(1))
    got: list[int | None] = []
    given_up = 0
    async with runner.open() as run:
        while True:
            with trio.move_on_after(0.3) as patience:
                try:
                    got.append((await anext(run)).seq)
                except StopAsyncIteration:
                    break
            given_up += patience.cancelled_caught
    assert given_up > 0
    assert got == list(range(1, 9))
    await check_run(runner, run)


# ------------------------------------------------------------------------------------ 7


def _deep(leaf: Agent, depth: int) -> Agent:
    tree = leaf
    for level in range(depth // 2):
        tree = LoopAgent(
            f"loop{level}", [SequentialAgent(f"line{level}", [tree])], max_iterations=1
        )
    return tree


def _leaf(count: int, *, fails: bool) -> Agent:
    @agent
    async def leaf(ctx: InvocationContext) -> Yields:
        for index in range(count):
            yield str(index)
        if fails:
            raise BoomError

    return leaf


def test_nasty_07_three_thousand_deep_succeeds() -> None:
    assert sys.getrecursionlimit() <= 1_000
    result = run_virtual(Runner(_deep(_leaf(3, fails=False), 3_000)).run)
    assert (result.status, texts(result.events)) == (Status.COMPLETED, ["0", "1", "2"])


def test_nasty_07_three_thousand_deep_fails() -> None:
    assert sys.getrecursionlimit() <= 1_000
    with pytest.raises(BoomError) as caught:
        run_virtual(Runner(_deep(_leaf(3, fails=True), 3_000)).run)
    assert len(caught.value.__notes__) == 1


def test_nasty_07_three_thousand_deep_is_left_and_cancelled() -> None:
    async def main() -> Status:
        async with Runner(_deep(_leaf(3, fails=False), 3_000)).open() as run:
            await anext(run)
        return run.result.status

    assert run_virtual(main) == "cancelled"


def _calls_per_event(depth: int) -> float:
    """Count the calls and resumptions that an event costs: a measure of work without a clock."""
    count = 400
    calls = 0

    def note(_frame: FrameType, what: str, _argument: object) -> None:
        nonlocal calls
        calls += what == "call"

    async def main() -> None:
        async with Runner(_deep(_leaf(count, fails=False), depth)).open() as run:
            await anext(run)
            sys.setprofile(note)
            try:
                for _ in range(count - 1):
                    await anext(run)
            finally:
                sys.setprofile(None)

    run_virtual(main)
    return calls / (count - 1)


def test_nasty_07_an_event_costs_the_same_at_depth_300() -> None:
    shallow = _calls_per_event(2)
    assert shallow > 2  # something is counted
    assert _calls_per_event(300) < 1.1 * shallow


# ------------------------------------------------------------------------------------ 8


@pytest.mark.parametrize("shield", [False, True])
async def test_nasty_08_a_task_in_a_foreign_nursery_emits_when_the_stream_closes(
    shield: bool,  # noqa: FBT001
    autojump_clock: MockClock,
) -> None:
    woken: list[str] = []

    async def emits(ctx: InvocationContext, name: str) -> None:
        with trio.CancelScope(shield=shield):
            try:
                await ctx.emit(name)
            except StreamClosedError:
                woken.append(name)

    async with trio.open_nursery() as foreign:

        @agent
        async def leaks(ctx: InvocationContext) -> Yields:
            for name in "abc":
                foreign.start_soon(emits, ctx, name)
            await trio.sleep_forever()
            yield "never"

        service = FailingService(1, delay=1)
        with quiet():
            async with Runner(leaks, session_service=service).open() as run:
                with pytest.raises(StoreError):
                    await read_all(run)
                await wait_all_tasks_blocked()
                assert sorted(woken) == ["a", "b", "c"]
    assert run.result.status == "failed"


# ------------------------------------------------------------------------------------ 9


async def test_nasty_09_a_siblings_clean_up_raises_in_its_own_nursery(
    autojump_clock: MockClock,
) -> None:
    async def raises() -> None:
        raise KeyError("clean-up")

    @agent
    async def clumsy(ctx: InvocationContext) -> Yields:
        try:
            yield "c"
            await trio.sleep_forever()
        finally:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(raises)
                nursery.start_soon(trio.sleep_forever)

    @agent
    async def fails(ctx: InvocationContext) -> None:
        await trio.sleep(1)
        raise BoomError("first")

    runner = Runner(ParallelAgent("both", [clumsy, fails]))
    with quiet():
        async with runner.open() as run:
            with pytest.raises(BoomError, match="first") as caught:
                await read_all(run)
    error = caught.value
    assert not holds_cancellation(error)
    notes = "\n".join(error.__notes__)
    assert "both/clumsy" in notes
    assert "KeyError" in notes
    clean_up = run.outcomes("both")[0].error
    assert isinstance(clean_up, ExceptionGroup)
    assert [type(leaf) for leaf in clean_up.exceptions] == [KeyError]
    await check_run(runner, run)


# ------------------------------------------------------------------------------------ 10


def _greedy(swallowing: list[str], swallowed: list[str]) -> Agent:
    @agent
    async def greedy(ctx: InvocationContext) -> Yields:
        while True:
            try:
                yield "more"
            except BaseException as exc:
                swallowed.append(type(exc).__name__)
                if not swallowing:  # Python itself complains of what ignores GeneratorExit for ever
                    raise

    return greedy


def _ends_it(way: str) -> Agent:
    @agent
    async def other(ctx: InvocationContext) -> Yields:
        await trio.sleep(1)
        if way == "sibling fails":
            raise BoomError
        yield Event("done", actions=EventActions(escalate=way == "escalate"))
        await trio.sleep(5)

    return other


async def _read_some(run: Run, way: str) -> None:
    async for _ in run:
        await trio.sleep(0.3)
        if trio.current_time() > 3:
            if way == "leave":
                return
            run.cancel("enough")


@pytest.mark.parametrize("way", ["leave", "cancel", "sibling fails", "escalate"])
async def test_nasty_10_an_agent_that_swallows_every_base_exception(
    way: str, autojump_clock: MockClock
) -> None:
    swallowing = ["on"]
    swallowed: list[str] = []
    runner = Runner(ParallelAgent("both", [_greedy(swallowing, swallowed), _ends_it(way)]))
    block = runner.open()
    raised: list[type[Exception]] = []
    with quiet():
        run = await block.__aenter__()
        try:
            await _read_some(run, way)
        except (BoomError, UncancellableAgentError) as exc:
            raised.append(type(exc))
        try:
            await block.__aexit__(None, None, None)
        except UncancellableAgentError as exc:
            raised.append(type(exc))
        swallowing.clear()
    expected = {"sibling fails": [BoomError], "escalate": []}
    assert raised == expected.get(way, [UncancellableAgentError])
    # Cancelled three times, then closed as often as it takes, but not for ever.
    assert set(swallowed[:3]) <= {"Cancelled", "BranchCancelledError"}
    assert set(swallowed[3:]) == {"GeneratorExit"}
    outcome = run.outcomes("both")[0]
    assert outcome.status == "failed"
    assert isinstance(outcome.error, UncancellableAgentError)
    await check_run(runner, run)


# ------------------------------------------------------------------------------------ 11


@dataclass(frozen=True)
class FrozenError(Exception):
    """An exception that refuses notes, and everything else."""

    number: int


async def _three_runs(error: Exception) -> list[list[str]]:
    """Raise one object in two branches over three runs; return its notes after each."""

    def branch(name: str) -> Agent:
        @agent(name=name)
        async def run(ctx: InvocationContext) -> None:
            raise error

        return run

    runner = Runner(SequentialAgent("line", [ParallelAgent("both", [branch("a"), branch("b")])]))
    notes: list[list[str]] = []
    for _ in range(3):
        caught: BaseException | None = None
        async with runner.open() as run:
            try:
                await read_all(run)
            except Exception as exc:  # noqa: BLE001  # whatever comes is compared
                caught = exc
        assert caught is error
        assert [outcome.error for outcome in run.outcomes("both")] == [error, error]
        assert [outcome.status for outcome in run.outcomes("both")] == [Status.FAILED] * 2
        notes.append(list(getattr(error, "__notes__", [])))
    return notes


async def test_nasty_11_one_exception_object_in_two_branches_collects_no_notes() -> None:
    # Whose name the note of its origin has is the scheduler's choice: the object is one.
    for notes in await _three_runs(BoomError("shared")):
        assert [note.split(":")[0].rsplit("/", 1)[0] for note in notes] == [
            "raised by agent line/both",
            "another branch failed too",
        ]


async def test_nasty_11_notes_of_others_are_kept() -> None:
    error = BoomError("shared")
    error.add_note("mine")
    notes = await _three_runs(error)
    assert all(after.count("mine") == 1 for after in notes)


async def test_nasty_11_a_frozen_exception_in_two_branches_is_raised_as_itself() -> None:
    assert await _three_runs(FrozenError(7)) == [[], [], []]


# ------------------------------------------------------------------------------------ 15


@pytest.mark.parametrize("clean_up", ["returns", "raises", "returns under a shield"])
async def test_nasty_15_a_loser_that_catches_the_cancellation_never_wins(
    clean_up: str, autojump_clock: MockClock
) -> None:
    @agent(output_key="late")
    async def loser(ctx: InvocationContext) -> str:
        shield = clean_up == "returns under a shield"
        with trio.CancelScope(shield=shield), suppress(trio.Cancelled):
            await trio.sleep(10)
        if clean_up == "raises":
            raise BoomError("in cleaning up")
        return "I won"

    @agent
    async def decides(ctx: InvocationContext) -> Yields:
        await trio.sleep(1)
        yield Event("decided", actions=EventActions(escalate=True))

    runner = Runner(SequentialAgent("line", [ParallelAgent("race", [loser, decides])]))
    with quiet():
        async with runner.open() as run:
            got = texts(await read_all(run))
    assert got == ["decided"]
    assert run.result.status == "completed"
    assert run.result.output == {"decides": "decided"}
    assert run.result.state == {}
    outcome, winner = run.outcomes("race")
    assert winner.status == "completed"
    assert outcome.output is None
    if clean_up == "raises":
        assert (outcome.status, str(outcome.error)) == (Status.FAILED, "in cleaning up")
    else:
        assert (outcome.status, outcome.error) == (Status.CANCELLED, None)
    await check_run(runner, run)


async def test_nasty_15_the_losers_failure_is_in_the_recorded_outcomes(
    autojump_clock: MockClock,
) -> None:
    @agent
    async def loser(ctx: InvocationContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise BoomError("in cleaning up")

    @agent
    async def decides(ctx: InvocationContext) -> Yields:
        await trio.sleep(1)
        yield Event("decided", actions=EventActions(escalate=True))

    runner = Runner(ParallelAgent("race", [loser, decides]))
    async with runner.open() as run:
        await read_all(run)
    last = (await stored(runner, run)).events[-1]
    assert last.author == "race"
    assert [(one.name, one.status, one.error_type) for one in last.actions.outcomes] == [
        ("loser", "failed", "BoomError"),
        ("decides", "completed", None),
    ]
