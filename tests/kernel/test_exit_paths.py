"""Every way out of a run, at every event: nothing outlives the block, and the session is whole."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Literal, TypeAlias

import attrs
import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock

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
    agent,
)
from tests.kernel.scripted import (
    BatchingService,
    BoomError,
    Diary,
    SlowService,
    Yields,
    check_log,
    check_run,
    counting,
    endless,
    failing,
    quiet,
    read_all,
    run_virtual,
    stored,
    texts,
)


class BodyError(Exception):
    """What the block's body raises."""


# --------------------------------------------------------------------- drawn trees

Kind = Literal["yields", "nursery", "timeouts", "returns", "thread", "partial"]
CleanUp = Literal["none", "bare", "shielded", "slow", "fails"]
End = Literal["returns", "fails", "escalates", "waits"]


@attrs.frozen
class Leaf:
    """A leaf: what it does after which pauses, how it cleans up when it is ended, how it ends."""

    kind: Kind
    pauses: tuple[float, ...] = (0,)
    clean_up: CleanUp = "none"
    end: End = "returns"


@attrs.frozen
class Node:
    """A workflow agent."""

    kind: Literal["sequential", "parallel", "loop", "timed"]
    children: tuple[Tree, ...]


Tree: TypeAlias = "Leaf | Node"

PAUSES = st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.0])
ENDS = st.sampled_from(["returns", "returns", "returns", "fails", "escalates", "waits"])


def leaves(
    clean_ups: list[CleanUp], ends: st.SearchStrategy[str] = ENDS
) -> st.SearchStrategy[Leaf]:
    """Draw a leaf that cleans up in one of these ways."""
    kinds = ["yields", "yields", "nursery", "timeouts", "returns", "thread", "partial"]
    return st.builds(
        Leaf,
        kind=st.sampled_from(kinds),
        pauses=st.lists(PAUSES, max_size=3).map(tuple),
        clean_up=st.sampled_from(clean_ups),
        end=ends,
    )


def trees(leaf: st.SearchStrategy[Leaf]) -> st.SearchStrategy[Tree]:
    """Draw a tree of such leaves."""

    def node(below: st.SearchStrategy[Tree]) -> st.SearchStrategy[Node]:
        children = st.lists(below, min_size=1, max_size=3).map(tuple)
        kinds = st.sampled_from(["sequential", "parallel", "parallel", "loop", "timed"])
        return st.builds(Node, kind=kinds, children=children)

    return st.recursive(leaf, node, max_leaves=6)


ALL_CLEAN_UPS: list[CleanUp] = ["none", "none", "bare", "shielded", "slow", "fails"]
WITHOUT_EVENTS: list[CleanUp] = ["none", "bare", "slow", "fails"]


class Timed(Agent):
    """Gives each child a second and a quarter, and says so when it gives one up."""

    async def run(self, ctx: InvocationContext) -> Yields:
        for child in self.sub_agents:
            with trio.move_on_after(1.25) as scope:
                await ctx.run_agent(child)
            ctx.state[f"{self.name}_{child.name}"] = not scope.cancelled_caught
            if scope.cancelled_caught:
                yield f"{child.name} given up"


class Workshop:
    """Builds drawn trees, and keeps count of what of them is alive."""

    def __init__(self) -> None:
        self.alive: Counter[str] = Counter()
        self.began = 0
        self._numbers = itertools.count()

    def build(self, tree: Tree) -> Agent:
        """Make the agents of ``tree``."""
        number = next(self._numbers)
        if isinstance(tree, Leaf):
            return self._leaf(tree, f"leaf{number}")
        children = [self.build(child) for child in tree.children]
        if tree.kind == "loop":
            return LoopAgent(f"loop{number}", children, max_iterations=2)
        if tree.kind == "timed":
            return Timed(f"timed{number}", children)
        make = SequentialAgent if tree.kind == "sequential" else ParallelAgent
        return make(f"{tree.kind}{number}", children)

    def _leaf(self, leaf: Leaf, name: str) -> Agent:
        if leaf.kind == "thread":

            def in_a_thread(ctx: InvocationContext) -> dict[str, str]:
                with self._counted(name):
                    return {"thread": name}

            return agent(in_a_thread, name=name)

        async def returns(ctx: InvocationContext) -> dict[str, str]:
            with self._counted(name):
                await trio.sleep(sum(leaf.pauses))
                if leaf.end == "fails":
                    raise BoomError(name)
                return {"returned": name}

        if leaf.kind == "returns":
            return agent(returns, name=name)
        return agent(partial(self._work, leaf, name), name=name)

    async def _work(self, leaf: Leaf, name: str, ctx: InvocationContext) -> Yields:
        with self._counted(name):
            try:
                async with trio.open_nursery() as nursery:
                    if leaf.kind == "nursery":
                        nursery.start_soon(self._beside, ctx, name)
                    for index, pause in enumerate(leaf.pauses):
                        ctx.state[f"{name}_{index}"] = index
                        with trio.move_on_after(0.75 if leaf.kind == "timeouts" else 99):
                            yield Event(f"{name}.{index}", partial=leaf.kind == "partial")
                        await trio.sleep(pause)
                    if leaf.end == "fails":
                        raise BoomError(name)
                    if leaf.end == "escalates":
                        yield Event(f"{name}!", actions=EventActions(escalate=True))
                    if leaf.end == "waits":
                        await trio.sleep(20)
            except trio.Cancelled:
                if leaf.clean_up == "fails":
                    raise BoomError(f"{name} in cleaning up") from None
                raise
            finally:
                if leaf.clean_up in ("bare", "shielded"):
                    with trio.CancelScope(shield=leaf.clean_up == "shielded"):
                        ctx.state[f"{name}_tidied"] = True
                        yield f"{name} tidied"
                elif leaf.clean_up == "slow":
                    with trio.CancelScope(shield=True):
                        await trio.sleep(3)

    async def _beside(self, ctx: InvocationContext, name: str) -> None:
        with self._counted(f"{name} beside"):
            for index in range(2):
                await ctx.emit(f"{name} beside {index}")

    def _counted(self, name: str) -> _Counted:
        return _Counted(self, name)


class _Counted:
    """Counts a body as alive until its very last step."""

    def __init__(self, shop: Workshop, name: str) -> None:
        self._shop = shop
        self._name = name

    def __enter__(self) -> None:
        self._shop.began += 1
        self._shop.alive[self._name] += 1

    def __exit__(self, *_details: object) -> None:
        self._shop.alive[self._name] -= 1
        if not self._shop.alive[self._name]:
            del self._shop.alive[self._name]


# ------------------------------------------------------------------- ways out

Way = Literal["end", "break", "body error", "outer cancel", "deadline", "run.cancel"]
WAYS: list[Way] = ["end", "break", "body error", "outer cancel", "deadline", "run.cancel"]


@attrs.define
class Left:
    """How a run was left: what was delivered before, and what came out."""

    run: Run
    delivered: list[Event]
    error: Exception | None = None
    cancelled: bool = False


async def leave(runner: Runner, way: Way, at: int, *, pauses: tuple[float, ...] = ()) -> Left:
    """Run, and leave when ``at`` events are delivered; a deadline is at half so many seconds."""
    scope = trio.CancelScope()
    if way == "deadline":
        scope.deadline = trio.current_time() + at / 2
    delivered: list[Event] = []
    left: list[Run] = []
    error: Exception | None = None
    try:
        with scope:
            async with runner.open("hi", session_id="s") as run:
                left.append(run)
                if at == 0:
                    await _go(way, run, scope)
                waits = itertools.chain(pauses, itertools.repeat(0))
                if at > 0 or way in ("end", "deadline", "run.cancel"):
                    async for event in run:
                        delivered.append(event)
                        await trio.sleep(next(waits))
                        if len(delivered) == at:
                            if way == "break":
                                break
                            await _go(way, run, scope)
    except (BoomError, BodyError) as exc:
        error = exc
    except ExceptionGroup as exc:
        # A leaf's own nursery; its tree's failure, as it was raised.
        matched, rest = exc.split(BoomError)
        assert matched is not None
        assert rest is None
        error = exc
    return Left(left[0], delivered, error, scope.cancelled_caught)


async def _go(way: Way, run: Run, scope: trio.CancelScope) -> None:
    if way == "body error":
        raise BodyError
    if way == "run.cancel":
        run.cancel("enough")
    if way == "outer cancel":
        scope.cancel("enough")
        await trio.lowlevel.checkpoint()


async def check_left(shop: Workshop, runner: Runner, left: Left, way: Way) -> None:
    """Check what holds after every way out."""
    # Nothing outlives the block.
    if shop.alive:
        message = f"still alive: {dict(shop.alive)}"
        raise AssertionError(message)
    # Each activation has exactly one terminal status.
    counts = left.run.statistics()
    assert counts.started == counts.completed + counts.failed + counts.cancelled
    # Delivered is a prefix of the log, and the log makes the state.
    recorded = await check_run(runner, left.run)
    numbers = [event.seq for event in left.delivered if not event.partial]
    assert numbers == [event.seq for event in recorded][: len(numbers)]
    assert left.run.result.state == dict((await stored(runner, left.run)).state)
    # What leaves the block is what should.
    if way == "body error" and left.error is not None:
        assert isinstance(left.error, BodyError | BoomError | ExceptionGroup)
    if left.error is None and not left.cancelled and way == "end":
        assert left.run.result.status == "completed"
    # The session serves the next run.
    last = (await stored(runner, left.run)).last_seq
    after = Runner(
        counting("after", 1), app_name=runner.app_name, session_service=runner.session_service
    )
    result = await after.run(session_id="s")
    assert [event.seq for event in result.events] == [last + 1]
    check_log(await stored(after, result))


def run_and_leave(
    tree: Tree, way: Way, at: int, service: InMemorySessionService, pauses: tuple[float, ...] = ()
) -> Left:
    """Run ``tree`` and leave it; check what holds for all; return what is left to check."""

    async def main() -> Left:
        shop = Workshop()
        runner = Runner(shop.build(tree), session_service=service)
        living = trio.lowlevel.current_statistics().tasks_living
        left = await leave(runner, way, at, pauses=pauses)
        assert trio.lowlevel.current_statistics().tasks_living == living
        await check_left(shop, runner, left, way)
        return left

    with quiet(generation=1):
        return run_virtual(main)


READER = st.lists(PAUSES, max_size=6).map(tuple)


@given(
    random=st.random_module(),
    tree=trees(leaves(ALL_CLEAN_UPS)),
    way=st.sampled_from(WAYS),
    at=st.integers(0, 12),
    make_service=st.sampled_from(
        [
            InMemorySessionService,
            SlowService,
            BatchingService,
            lambda: SlowService(0.5),
            lambda: BatchingService(0.5),
        ]
    ),
    pauses=READER,
)
def test_every_way_out_of_any_tree_leaves_nothing_behind(
    *,
    random: object,
    tree: Tree,
    way: Way,
    at: int,
    make_service: type[InMemorySessionService],
    pauses: tuple[float, ...],
) -> None:
    run_and_leave(tree, way, at, make_service(), pauses)


@given(
    random=st.random_module(),
    tree=trees(leaves(WITHOUT_EVENTS)),
    way=st.sampled_from(WAYS),
    at=st.integers(0, 12),
    pauses=READER,
)
@example(
    random=None,
    tree=Node("parallel", (Leaf("yields"), Leaf("yields"), Leaf("yields"))),
    way="break",
    at=1,
    pauses=(),
)
def test_in_memory_the_log_is_exactly_what_was_delivered(
    random: object, tree: Tree, way: Way, at: int, pauses: tuple[float, ...]
) -> None:
    """As long as no agent records an event under a shield while it is being ended.

    The fan-outs' own records are such events: they are made when the branches have ended.
    """
    left = run_and_leave(tree, way, at, InMemorySessionService(), pauses)
    delivered = [event.seq for event in left.delivered if not event.partial]
    recorded = [event.seq for event in left.run.result.events if not event.actions.outcomes]
    assert [seq for seq in delivered if seq in recorded] == recorded


# ----------------------------------------- one rich tree, every way, every index

RICH = Node(
    "sequential",
    (
        Leaf("yields", (0, 0.5)),
        Node(
            "parallel",
            (
                Leaf("nursery", (0.5, 0), "shielded"),
                Node("loop", (Leaf("timeouts", (0, 1), "slow"),)),
                Node("parallel", (Leaf("returns", (1,)), Leaf("yields", (0, 0, 1), "bare"))),
                Leaf("thread"),
            ),
        ),
        Leaf("partial", (0, 0)),
    ),
)


def _events_of(tree: Tree) -> int:
    return len(run_and_leave(tree, "end", 0, InMemorySessionService()).delivered)


RICH_EVENTS = 22


def test_the_rich_tree_delivers_so_many_events() -> None:
    assert _events_of(RICH) == RICH_EVENTS


@pytest.mark.parametrize("at", range(RICH_EVENTS + 2))
@pytest.mark.parametrize("way", WAYS)
def test_every_way_out_at_every_event(way: Way, at: int) -> None:
    left = run_and_leave(RICH, way, at, InMemorySessionService())
    status = left.run.result.status
    reached = at <= RICH_EVENTS
    if way == "body error":
        assert isinstance(left.error, BodyError) == reached
    else:
        assert left.error is None
    if way == "outer cancel":
        assert left.cancelled == reached
    if way == "deadline":
        # The clock jumps while the tree waits for its thread: a deadline may come early.
        assert status == ("cancelled" if left.cancelled else "completed")
    elif way == "end" or not reached:
        assert status == "completed"
    else:
        assert status == "cancelled"


FAILING = Node(
    "parallel",
    (
        Leaf("yields", (0, 0, 0), "shielded"),
        Node("sequential", (Leaf("yields", (0, 1)), Leaf("yields", (0,), end="fails"))),
        Leaf("nursery", (0,), "slow", "waits"),
    ),
)


@pytest.mark.parametrize("at", range(12))
@pytest.mark.parametrize("way", WAYS)
def test_every_way_out_of_a_failing_tree_at_every_event(way: Way, at: int) -> None:
    left = run_and_leave(FAILING, way, at, BatchingService())
    if way == "end":
        assert isinstance(left.error, ExceptionGroup)  # the leaf raises inside its own nursery
        assert left.run.result.status == "failed"


# --------------------------------------------------------- the checks, on bad cases


async def test_the_checks_see_a_body_that_is_still_alive() -> None:
    shop = Workshop()
    shop.alive["left behind"] = 1
    runner = Runner(counting("a", 1))
    left = await leave(runner, "end", 0)
    with pytest.raises(AssertionError, match="left behind"):
        await check_left(shop, runner, left, "end")


async def test_the_checks_see_an_event_delivered_out_of_order() -> None:
    runner = Runner(counting("a", 3))
    left = await leave(runner, "end", 0)
    left.delivered.reverse()
    with pytest.raises(AssertionError):
        await check_left(Workshop(), runner, left, "end")


async def test_the_count_of_tasks_sees_one_that_outlives_the_block(
    autojump_clock: MockClock,
) -> None:
    living = trio.lowlevel.current_statistics().tasks_living
    async with trio.open_nursery() as foreign:

        @agent
        async def leaks(ctx: InvocationContext) -> None:
            foreign.start_soon(trio.sleep_forever)

        await Runner(leaks).run()
        assert trio.lowlevel.current_statistics().tasks_living == living + 1
        foreign.cancel_scope.cancel()


# ----------------------------------------------------------- cancel, deadline, depth


@pytest.mark.parametrize("way", ["outer cancel", "deadline", "run.cancel", "break"])
async def test_any_depth_is_stopped_and_later_agents_never_start(
    way: Way, autojump_clock: MockClock
) -> None:
    diary: Diary = []

    @agent
    async def later(ctx: InvocationContext) -> Yields:
        diary.append("later started")
        yield "never"

    tree: Agent = endless("deep", diary)
    for level in range(10):
        kinds = [SequentialAgent, ParallelAgent, LoopAgent]
        tree = kinds[level % 3](f"level{level}", [tree])
    runner = Runner(SequentialAgent("line", [tree, later]))
    left = await leave(runner, way, 1)
    assert diary == ["deep cleaned up"]
    assert left.run.result.status == "cancelled"
    assert texts(await check_run(runner, left.run)) == ["deep0"]


async def test_a_deadline_is_met_and_the_clean_up_follows_it(autojump_clock: MockClock) -> None:
    diary: Diary = []
    with trio.move_on_after(5) as scope:
        async with Runner(endless("a", diary)).open() as run:
            await read_all(run)
    assert scope.cancelled_caught
    assert diary == ["a cleaned up"]
    assert trio.current_time() == 6
    assert run.result.status == "cancelled"


async def test_a_cancelled_run_that_is_left_waits_for_every_clean_up(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []
    tree = ParallelAgent("all", [endless(name, diary) for name in "abc"])
    async with Runner(tree).open() as run:
        for _ in range(3):
            await anext(run)
        run.cancel()
    assert sorted(diary) == ["a cleaned up", "b cleaned up", "c cleaned up"]


async def test_one_failing_branch_is_raised_when_all_have_ended(autojump_clock: MockClock) -> None:
    diary: Diary = []
    tree = ParallelAgent("all", [endless("a", diary), failing("b", after=1), endless("c", diary)])
    async with Runner(tree).open() as run:
        with pytest.raises(BoomError):
            await read_all(run)
        assert sorted(diary) == ["a cleaned up", "c cleaned up"]


# --------------------------------------------------------------------- threads


async def test_a_thread_is_waited_for_when_the_reader_leaves() -> None:
    diary: Diary = []
    running, may_end = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    @agent
    def blocking(ctx: InvocationContext) -> str:
        token.run_sync_soon(running.set)
        may_end.wait()
        diary.append("the thread ends")
        return "done"

    @agent
    async def sibling(ctx: InvocationContext) -> Yields:
        try:
            yield "s"
        finally:
            diary.append("the sibling is ended")
            may_end.set()

    async with Runner(ParallelAgent("both", [blocking, sibling])).open() as run:
        await anext(run)
        await running.wait()
    diary.append("the block has ended")
    assert diary == ["the sibling is ended", "the thread ends", "the block has ended"]
    assert run.outcomes("both")[0].status == "cancelled"


async def test_an_abandoned_thread_is_not_waited_for() -> None:
    diary: Diary = []
    running, may_end = trio.Event(), threading.Event()
    ended = threading.Event()
    token = trio.lowlevel.current_trio_token()

    def blocking(ctx: InvocationContext) -> str:
        token.run_sync_soon(running.set)
        may_end.wait()
        diary.append("the thread ends")
        ended.set()
        return "done"

    runner = Runner(agent(blocking, abandon_on_cancel=True))
    async with runner.open() as run:
        await running.wait()
    diary.append("the block has ended")
    may_end.set()
    await trio.to_thread.run_sync(ended.wait)
    assert diary == ["the block has ended", "the thread ends"]
    assert await check_run(runner, run) == []


async def test_a_generator_that_was_never_started_warns_of_nothing() -> None:
    with quiet():
        async with Runner(
            ParallelAgent("all", [counting(name, 1) for name in "abc"])
        ).open() as run:
            run.cancel()
    assert run.result.status == "cancelled"


async def test_a_block_around_a_body_that_never_reads_ends() -> None:
    with quiet():
        async with Runner(counting("a", 3)).open() as run:
            with suppress(ZeroDivisionError):
                _ = 1 / 0
    assert run.result.status == "cancelled"
