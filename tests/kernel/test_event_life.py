"""An event's life: queued, drained, handed out, acknowledged; and what cancelling does to each."""

from __future__ import annotations

import math

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from parallel_agent import (
    Agent,
    BranchCancelledError,
    Event,
    EventActions,
    InMemorySessionService,
    InvocationContext,
    ParallelAgent,
    Runner,
    SequentialAgent,
    Status,
    UnstorableError,
    agent,
)
from session import fold
from tests.kernel.scripted import (
    BatchingService,
    Diary,
    SlowService,
    Yields,
    check_run,
    read_all,
    run_virtual,
    stored,
    texts,
)


def _escalating(text: str) -> Event:
    return Event(text, actions=EventActions(escalate=True))


def _partial(text: str) -> Event:
    return Event(text, partial=True)


# ------------------------------------------------------- 1, 2: queued, drained, handed out


def _timed_out_beside_a_slow_reader(event: Event, diary: Diary, *, start: float) -> Runner:
    """Branch ``b`` emits ``event`` at ``start`` and gives up a second later, ``a`` at once."""

    @agent
    async def a(ctx: InvocationContext) -> Yields:
        yield "a1"
        yield "a2"

    @agent
    async def b(ctx: InvocationContext) -> Yields:
        await trio.sleep(start)
        with trio.move_on_after(1):
            try:
                yield event
                diary.append("acknowledged")
            except trio.Cancelled:
                diary.append(f"cancelled, seq {event.seq}")
                raise

    return Runner(ParallelAgent("both", [a, b]), session_service=BatchingService())


async def test_cancelling_a_branch_withdraws_its_queued_event(autojump_clock: MockClock) -> None:
    event, diary = Event("b1"), Diary()
    runner = _timed_out_beside_a_slow_reader(event, diary, start=1)
    async with runner.open() as run:
        async for got in run:
            diary.append(got.text or "-")
            if got.text == "a1":
                await trio.sleep(10)  # b1 is emitted and given up while the reader is here
    assert diary == ["a1", "cancelled, seq None", "a2", "-"]
    assert event.seq is None
    assert texts(await check_run(runner, run)) == ["a1", "a2"]


async def test_a_withdrawn_event_can_be_emitted_again(autojump_clock: MockClock) -> None:
    event = Event("b1", actions=EventActions(state_delta={"k": 1}))
    tries: list[float] = []

    @agent
    async def again(ctx: InvocationContext) -> Yields:
        for seconds in (1, math.inf):
            ctx.state["own"] = len(tries)
            with trio.move_on_after(seconds):
                tries.append(seconds)
                yield event

    runner = Runner(again)
    async with runner.open() as run:
        await trio.sleep(10)
        assert texts(await read_all(run)) == ["b1"]
    assert event.seq == 1
    assert (await check_run(runner, run))[0].actions.state_delta == {"k": 1, "own": 1}


async def test_cancelling_a_branch_leaves_its_drained_event_to_be_delivered(
    autojump_clock: MockClock,
) -> None:
    event, diary = Event("b1"), Diary()
    runner = _timed_out_beside_a_slow_reader(event, diary, start=0)
    async with runner.open() as run:
        async for got in run:
            diary.append(got.text or "-")
            if got.text == "a1":
                await trio.sleep(10)  # b1 is in the same batch: recorded, not handed out
    # Which of the two branches emits first is the scheduler's choice.
    if diary[0] == "a1":
        assert diary == ["a1", "cancelled, seq 2", "b1", "a2", "-"]
    else:
        assert diary == ["b1", "acknowledged", "a1", "a2", "-"]
    assert event.seq in (1, 2)
    assert sorted(texts(await check_run(runner, run))) == ["a1", "a2", "b1"]


async def test_an_event_cancelled_while_it_is_appended_gets_its_number_later(
    autojump_clock: MockClock,
) -> None:
    event, diary = Event("e"), Diary()

    @agent
    async def hasty(ctx: InvocationContext) -> Yields:
        with trio.move_on_after(1):
            try:
                yield event
            finally:
                diary.append(f"gave up at {trio.current_time()}, seq {event.seq}")
        await trio.sleep(10)
        diary.append(f"at {trio.current_time()}, seq {event.seq}")

    runner = Runner(hasty, session_service=SlowService(5))
    async with runner.open() as run:
        assert texts(await read_all(run)) == ["e"]
    assert diary == ["gave up at 1.0, seq None", "at 11.0, seq 1"]
    assert texts(await check_run(runner, run)) == ["e"]


async def test_an_event_that_is_handed_out_stays_when_its_branch_is_cancelled(
    autojump_clock: MockClock,
) -> None:
    event, diary = Event("e"), Diary()

    @agent
    async def hasty(ctx: InvocationContext) -> Yields:
        with trio.move_on_after(1):
            try:
                yield event
            finally:
                diary.append(f"gave up, seq {event.seq}")
        yield "next"

    runner = Runner(hasty)
    async with runner.open() as run:
        async for got in run:
            diary.append(got.text)
            await trio.sleep(5)
    assert diary == ["e", "gave up, seq 1", "next"]
    assert texts(await check_run(runner, run)) == ["e", "next"]


async def test_an_event_is_acknowledged_when_the_reader_comes_back(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []

    @agent
    async def steady(ctx: InvocationContext) -> Yields:
        for name in "ab":
            yield name
            diary.append(f"{name} acknowledged at {trio.current_time()}")

    runner = Runner(steady)
    async with runner.open() as run:
        async for event in run:
            diary.append(f"got {event.text}")
            await trio.sleep(5)
            diary.append(f"done with {event.text}")
    assert diary == [
        "got a",
        "done with a",
        "a acknowledged at 5.0",
        "got b",
        "done with b",
        "b acknowledged at 10.0",
    ]


async def test_a_branch_waits_for_its_own_event_only(autojump_clock: MockClock) -> None:
    diary: Diary = []

    def branch(name: str) -> Agent:
        @agent(name=name)
        async def run(ctx: InvocationContext) -> Yields:
            yield f"{name}1"
            diary.append(f"{name} goes on at {trio.current_time()}")

        return run

    runner = Runner(ParallelAgent("both", [branch("a"), branch("b")]))
    async with runner.open() as run:
        first = (await anext(run)).text[0]
        await trio.sleep(3)
        second = (await anext(run)).text[0]
        await trio.sleep(3)
        await read_all(run)
    assert {first, second} == {"a", "b"}
    assert diary == [f"{first} goes on at 3.0", f"{second} goes on at 6.0"]


async def test_what_follows_an_agent_starts_after_all_its_events_are_handed_out(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []

    @agent
    async def hasty(ctx: InvocationContext) -> Yields:
        with trio.move_on_after(1):
            yield "given up, but recorded"
        diary.append(f"hasty is done at {trio.current_time()}")

    @agent
    async def after(ctx: InvocationContext) -> Yields:
        diary.append(f"after starts at {trio.current_time()}, seeing {texts(ctx.history())}")
        yield "after"

    tree = SequentialAgent("line", [hasty, after])
    async with Runner(tree, session_service=BatchingService(delay=5)).open() as run:
        assert texts(await read_all(run)) == ["given up, but recorded", "after"]
    assert diary == [
        "hasty is done at 1.0",
        "after starts at 5.0, seeing ['given up, but recorded']",
    ]


# ------------------------------------------------------------------------- 3: order


async def test_events_emitted_at_once_by_one_branch_come_in_call_order() -> None:
    called: list[str] = []

    @agent
    async def many(ctx: InvocationContext) -> None:
        async def emit(name: str) -> None:
            called.append(name)
            await ctx.emit(name)

        async with trio.open_nursery() as nursery:
            for name in "abcdefgh":
                nursery.start_soon(emit, name)

    service = BatchingService()
    runner = Runner(many, session_service=service)
    async with runner.open() as run:
        assert texts(await read_all(run)) == called
    assert service.batches_seen == [called]
    await check_run(runner, run)


async def test_an_emit_after_a_cancelled_one_comes_after_it_in_one_batch(
    autojump_clock: MockClock,
) -> None:
    service = BatchingService(delay=5)

    @agent
    async def hasty(ctx: InvocationContext) -> Yields:
        for name in "abc":
            with trio.move_on_after(1):
                yield name
        yield "d"

    runner = Runner(hasty, session_service=service)
    async with runner.open() as run:
        assert texts(await read_all(run)) == ["a", "d"]
    # a was drained, and is recorded although its emitter left; b and c were queued behind it.
    assert service.batches_seen == [["a"], ["d"]]
    await check_run(runner, run)


_PAUSES = st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.0, 3.0])
_STEPS = st.lists(st.tuples(_PAUSES, st.sampled_from([math.inf, 1.0, 2.0])), max_size=4)


@given(
    random=st.random_module(),
    scripts=st.lists(st.tuples(st.booleans(), _STEPS), min_size=1, max_size=4),
    reader=st.lists(_PAUSES, max_size=8),
    append=_PAUSES,
    batches=st.booleans(),
)
def test_each_branch_is_recorded_in_the_order_of_its_calls(
    random: object,
    scripts: list[tuple[bool, list[tuple[float, float]]]],
    reader: list[float],
    append: float,
    batches: bool,  # noqa: FBT001  # drawn, passed by keyword
) -> None:
    """With inner timeouts, tasks of one branch that emit side by side, slow readers and stores."""
    called: dict[str, list[Event]] = {}

    def branch(name: str, *, at_once: bool, steps: list[tuple[float, float]]) -> Agent:
        calls = called[name] = []

        @agent(name=name)
        async def run(ctx: InvocationContext) -> None:
            async def step(pause: float, patience: float) -> None:
                await trio.sleep(pause)
                event = Event(f"{name}{len(calls)}")
                calls.append(event)
                with trio.move_on_after(patience):
                    await ctx.emit(event)

            async with trio.open_nursery() as nursery:
                for pause, patience in steps:
                    if at_once:
                        nursery.start_soon(step, pause, patience)
                    else:
                        await step(pause, patience)

        return run

    tree = ParallelAgent(
        "all",
        [
            branch(f"b{index}_", at_once=at_once, steps=steps)
            for index, (at_once, steps) in enumerate(scripts)
        ],
    )
    service = BatchingService(append) if batches else SlowService(append)
    runner = Runner(tree, session_service=service)

    async def main() -> None:
        pauses = iter(reader)
        async with runner.open() as run:
            delivered = []
            async for event in run:
                delivered.append(event)
                await trio.sleep(next(pauses, 0))
        recorded = await check_run(runner, run)
        assert [event.seq for event in recorded] == [event.seq for event in delivered]
        for name, calls in called.items():
            kept = [event for event in calls if event.seq is not None]
            assert [event.text for event in recorded if event.author == name] == texts(kept)

    run_virtual(main)


# ------------------------------------- 4: appended in one call, then visible at hand-out


async def test_a_batch_is_appended_in_one_call_before_any_of_it_is_handed_out() -> None:
    diary: Diary = []

    def branch(name: str) -> Agent:
        @agent(name=name)
        async def run(ctx: InvocationContext) -> Yields:
            yield name

        return run

    tree = ParallelAgent("all", [branch(name) for name in "abc"])
    runner = Runner(tree, session_service=BatchingService(diary=diary))
    async with runner.open() as run:
        async for event in run:
            diary.append(f"got {event.text or '-'}")
    order = diary[0].split()[1:]
    assert sorted(order) == ["a", "b", "c"]
    assert diary[1:4] == [f"got {name}" for name in order]


async def test_a_write_is_visible_to_others_at_hand_out_and_not_before(
    autojump_clock: MockClock,
) -> None:
    seen: list[tuple[float, object]] = []

    @agent
    async def writer(ctx: InvocationContext) -> Yields:
        await trio.sleep(2)
        ctx.state["k"] = "new"
        yield "w"

    @agent
    async def watcher(ctx: InvocationContext) -> None:
        for _ in range(24):
            seen.append((trio.current_time(), ctx.state.get("k")))
            await trio.sleep(0.5)

    # Written at 2, queued until 5, appended until 8, handed out at 8, acknowledged at 10.
    runner = Runner(ParallelAgent("both", [writer, watcher]), session_service=SlowService(3))
    async with runner.open() as run:
        await trio.sleep(5)
        event = await anext(run)
        assert event.text == "w"
        assert trio.current_time() == 8
        await trio.sleep(2)
        await read_all(run)
    first = min(when for when, value in seen if value == "new")
    assert 8 <= first <= 8.5
    assert all(value is None for when, value in seen if when < 8)


async def test_a_recorded_event_is_in_nobodys_state_or_history_before_its_hand_out(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []

    def branch(name: str) -> Agent:
        @agent(name=name)
        async def run(ctx: InvocationContext) -> None:
            async def look() -> None:
                await trio.sleep(1.5)
                diary.append(f"{name} sees {texts(ctx.history())} {sorted(ctx.state)}")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                ctx.state[name] = 1
                await ctx.emit(name)

        return run

    service = BatchingService(delay=1)
    runner = Runner(ParallelAgent("both", [branch("a"), branch("b")]), session_service=service)
    async with runner.open() as run:
        first = (await anext(run)).text
        log = texts((await stored(runner, run)).events)
        await trio.sleep(5)
        second = (await anext(run)).text
        await read_all(run)
    # Both are recorded at second 1; at 1.5 only the first is handed out. Each branch sees its
    # own write at once, and another's when that is handed out.
    assert log == [first, second]
    assert sorted(diary) == sorted(
        [f"{first} sees ['{first}'] ['{first}']", f"{second} sees [] ['a', 'b']"]
    )


async def test_what_was_appended_is_applied_when_the_reader_leaves() -> None:
    def branch(name: str) -> Agent:
        @agent(name=name)
        async def run(ctx: InvocationContext) -> Yields:
            ctx.state[name] = 1
            yield name

        return run

    tree = ParallelAgent("all", [branch(name) for name in "abc"])
    runner = Runner(tree, session_service=BatchingService())
    async with runner.open() as run:
        await anext(run)  # the other two are in the same batch
    recorded = await check_run(runner, run)
    assert sorted(texts(recorded)) == ["a", "b", "c"]
    assert sorted(run.result.state) == ["a", "b", "c"]


class _Frame(Agent):
    """Runs its child and shows what its own branch, on which nobody writes, sees of the state."""

    def __init__(self, child: Agent) -> None:
        super().__init__("frame", [child])
        self.seen: list[InvocationContext] = []

    async def run(self, ctx: InvocationContext) -> None:
        self.seen.append(ctx)
        await ctx.run_agent(self.sub_agents[0])


@given(
    random=st.random_module(),
    scripts=st.lists(st.lists(_PAUSES, max_size=4), min_size=1, max_size=4),
    reader=st.lists(_PAUSES, max_size=10),
    append=st.sampled_from([None, 0.0, 1.0]),
    batches=st.booleans(),
)
def test_shared_state_is_at_any_time_what_the_handed_out_events_make_of_it(
    random: object,
    scripts: list[list[float]],
    reader: list[float],
    append: float | None,
    batches: bool,  # noqa: FBT001  # drawn, passed by keyword
) -> None:
    """And a branch goes on when its event is recorded and the reader came back, not before."""
    finished: set[int | None] = set()
    bad: list[str] = []

    def branch(index: int, pauses: list[float]) -> Agent:
        @agent(name=f"b{index}")
        async def run(ctx: InvocationContext) -> Yields:
            for step, pause in enumerate(pauses):
                await trio.sleep(pause)
                ctx.state["last"] = index
                ctx.state[f"b{index}"] = step
                if (ctx.state["last"], ctx.state[f"b{index}"]) != (index, step):
                    bad.append(f"b{index} does not see its own write before emitting it")
                event = Event(str(step))
                yield event
                if event.seq not in finished:
                    bad.append(f"b{index} went on before the reader came back for {event}")
                if ctx.state[f"b{index}"] != step:
                    bad.append(f"b{index} does not see its own write after emitting it")

        return run

    service: InMemorySessionService
    if append is None:
        service = InMemorySessionService()
    else:
        service = BatchingService(append) if batches else SlowService(append)
    frame = _Frame(
        ParallelAgent("all", [branch(index, pauses) for index, pauses in enumerate(scripts)])
    )

    async def main() -> None:
        waits = iter(reader)
        delivered: list[Event] = []
        runner = Runner(frame, session_service=service)
        async with runner.open(session_id="s") as run:
            async for event in run:
                delivered.append(event)
                visible = frame.seen[0].state
                assert visible.to_dict() == fold({}, delivered)
                await trio.sleep(next(waits, 0))
                assert visible.to_dict() == fold({}, delivered)
                recorded = {one.seq for one in await _log(runner)}
                assert event.seq in recorded
                finished.add(event.seq)
        assert bad == []
        await check_run(runner, run)

    run_virtual(main)


async def _log(runner: Runner) -> list[Event]:
    session = await runner.session_service.get(
        app_name=runner.app_name, user_id="user", session_id="s"
    )
    assert session is not None
    return session.events


# ------------------------------------------------------------- 5, 6: escalation seals


def _decided(diary: Diary, *, shield: bool) -> Runner:
    """Branch ``b`` escalates; ``a`` and ``c`` emit at the same time and clean up with an event."""

    def loser(name: str) -> Agent:
        @agent(name=name)
        async def run(ctx: InvocationContext) -> Yields:
            try:
                for index in range(3):
                    yield f"{name}{index}"
            finally:
                try:
                    with trio.CancelScope(shield=shield):
                        await ctx.emit(f"{name} cleaned up")
                        diary.append(f"{name}: recorded")
                except BranchCancelledError:
                    diary.append(f"{name}: refused")
                    raise
                except trio.Cancelled:
                    diary.append(f"{name}: cancelled")
                    raise

        return run

    @agent
    async def b(ctx: InvocationContext) -> Yields:
        yield "b0"
        yield _escalating("b decides")
        yield "b2"

    tree = ParallelAgent("race", [loser("a"), b, loser("c")])
    return Runner(tree, session_service=BatchingService())


@pytest.mark.parametrize("shield", [True, False])
async def test_nothing_of_a_sibling_follows_an_escalating_event(shield: bool) -> None:  # noqa: FBT001
    diary: Diary = []
    runner = _decided(diary, shield=shield)
    async with runner.open() as run:
        delivered = texts(await read_all(run))
    assert delivered[delivered.index("b decides") :] == ["b decides", "b2"]
    assert texts(await check_run(runner, run)) == delivered


async def test_emitting_from_a_sealed_branch_is_refused_under_a_shield_too() -> None:
    diary: Diary = []
    async with _decided(diary, shield=True).open() as run:
        await read_all(run)
    assert sorted(diary) == ["a: refused", "c: refused"]


async def test_a_refused_branch_is_cancelled_and_has_not_failed() -> None:
    async with _decided([], shield=True).open() as run:
        await read_all(run)
    assert [(outcome.status, outcome.error) for outcome in run.outcomes("race")] == [
        (Status.CANCELLED, None),
        (Status.COMPLETED, None),
        (Status.CANCELLED, None),
    ]
    assert run.result.status == "completed"


async def test_a_batch_is_cut_after_an_escalating_event() -> None:
    service = BatchingService()

    def branch(name: str) -> Agent:
        @agent(name=name)
        async def run(ctx: InvocationContext) -> Yields:
            yield _escalating(name)

        return run

    tree = ParallelAgent("race", [branch(name) for name in "abc"])
    runner = Runner(tree, session_service=service)
    async with runner.open() as run:
        winner = texts(await read_all(run))
    assert len(winner) == 1
    assert service.batches_seen == [winner, [""]]  # then the fan-out's own record


async def test_siblings_are_ended_before_the_escalating_event_is_returned(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []

    @agent
    async def decides(ctx: InvocationContext) -> Yields:
        await trio.sleep(1)
        yield _escalating("decided")
        diary.append("decides goes on")

    @agent
    async def works(ctx: InvocationContext) -> Yields:
        try:
            await trio.sleep_forever()
        finally:
            diary.append("works is ended")
        yield "never"

    async with Runner(ParallelAgent("race", [decides, works])).open() as run:
        await anext(run)
        await wait_all_tasks_blocked()
        diary.append("the reader comes back")
        await read_all(run)
    assert diary == ["works is ended", "the reader comes back", "decides goes on"]


# ---------------------------------------- 7, 8: clean-up events; leaving keeps pumping


@pytest.mark.parametrize(
    ("shield", "recorded"),
    [(True, ["w0", "cleaned up"]), (False, ["w0"])],
    ids=["shielded", "bare"],
)
@pytest.mark.parametrize("way", ["sibling fails", "reader leaves", "run.cancel"])
async def test_a_clean_up_event_is_recorded_if_it_is_shielded(
    way: str,
    shield: bool,  # noqa: FBT001
    recorded: list[str],
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []

    @agent
    async def works(ctx: InvocationContext) -> Yields:
        try:
            yield "w0"
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=shield):
                try:
                    yield "cleaned up"
                    diary.append("acknowledged")
                except trio.Cancelled:
                    diary.append("cancelled")
                    raise

    @agent
    async def fails(ctx: InvocationContext) -> None:
        await trio.sleep(5)
        if way == "sibling fails":
            raise KeyError

    runner = Runner(ParallelAgent("both", [works, fails]))
    try:
        async with runner.open() as run:
            async for _ in run:
                if way == "reader leaves":
                    break
                if way == "run.cancel":
                    run.cancel("enough")
    except KeyError:
        assert way == "sibling fails"
    assert diary == (["acknowledged"] if shield else ["cancelled"])
    assert texts(await check_run(runner, run)) == recorded


async def test_leaving_keeps_pumping_until_the_last_clean_up_is_acknowledged(
    autojump_clock: MockClock,
) -> None:
    diary: Diary = []

    @agent
    async def works(ctx: InvocationContext) -> Yields:
        try:
            yield "w0"
        finally:
            with trio.CancelScope(shield=True):
                for index in range(3):
                    ctx.state["step"] = index
                    yield f"clean {index}"
                    diary.append(f"clean {index} acknowledged at {trio.current_time()}")
                await trio.sleep(10)
                diary.append("works is done")

    runner = Runner(works, session_service=SlowService(1))
    async with runner.open() as run:
        async for event in run:
            diary.append(f"got {event.text}")
            break
    diary.append(f"the block has ended at {trio.current_time()}")
    assert diary == [
        "got w0",
        "clean 0 acknowledged at 2.0",
        "clean 1 acknowledged at 3.0",
        "clean 2 acknowledged at 4.0",
        "works is done",
        "the block has ended at 14.0",
    ]
    assert texts(await check_run(runner, run)) == ["w0", "clean 0", "clean 1", "clean 2"]
    assert run.result.state == {"step": 2}
    assert run.statistics().delivered == 1


# ------------------------------------------------------------------------- 9: batching


async def _mean_batch(service: SlowService) -> float:
    def branch(name: str) -> Agent:
        @agent(name=name)
        async def run(ctx: InvocationContext) -> Yields:
            for index in range(20):
                yield f"{name}.{index}"

        return run

    runner = Runner(
        ParallelAgent("all", [branch(f"b{index}") for index in range(10)]), session_service=service
    )
    async with runner.open() as run:
        async for _ in run:
            await trio.lowlevel.checkpoint()
    await check_run(runner, run)
    return sum(map(len, service.batches_seen)) / len(service.batches_seen)


async def test_a_service_that_batches_gets_most_branches_in_one_append(
    autojump_clock: MockClock,
) -> None:
    # The measure tells the difference: without the turn, an event or two at a time.
    assert await _mean_batch(SlowService()) < 2
    assert await _mean_batch(BatchingService()) > 8


async def test_branches_get_one_turn_of_the_scheduler_before_a_batch_is_drained() -> None:
    def branch(name: str, turns: int) -> Agent:
        @agent(name=name)
        async def run(ctx: InvocationContext) -> Yields:
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            yield name

        return run

    # On both sides of the one that wakes the reader, whichever way trio turns its batch round.
    tree = ParallelAgent("all", [branch("late", 1), branch("early", 0), branch("later", 1)])
    service = BatchingService()
    await Runner(tree, session_service=service).run()
    assert sorted(service.batches_seen[0]) == ["early", "late", "later"]


# ------------------------------------------------------------------------- 10: partial events


async def test_a_partial_event_is_acknowledged_like_any_other(autojump_clock: MockClock) -> None:
    diary: Diary = []

    @agent
    async def types(ctx: InvocationContext) -> Yields:
        yield _partial("he")
        diary.append(f"acknowledged at {trio.current_time()}")
        yield "hello"

    async with Runner(types).open() as run:
        async for event in run:
            diary.append(f"got {event.text}")
            await trio.sleep(2)
    assert diary == ["got he", "acknowledged at 2.0", "got hello"]


async def test_a_partial_event_has_no_number_and_is_not_in_the_log() -> None:
    @agent
    async def types(ctx: InvocationContext) -> Yields:
        yield _partial("he")
        yield "hello"
        yield _partial("wo")
        yield "world"

    runner = Runner(types)
    async with runner.open() as run:
        events = await read_all(run)
    assert [(event.text, event.seq) for event in events] == [
        ("he", None),
        ("hello", 1),
        ("wo", None),
        ("world", 2),
    ]
    assert texts(await check_run(runner, run)) == ["hello", "world"]


async def test_a_partial_event_carries_author_branch_and_time() -> None:
    @agent
    async def types(ctx: InvocationContext) -> Yields:
        yield _partial("he")

    async with Runner(ParallelAgent("fan", [types]), clock=lambda: 77.0).open() as run:
        event = await anext(run)
    assert (event.author, event.branch, event.timestamp) == ("types", "fan.types", 77.0)


async def test_a_partial_event_takes_no_pending_write_along() -> None:
    seen: list[object] = []

    @agent
    async def types(ctx: InvocationContext) -> Yields:
        ctx.state["k"] = 1
        yield _partial("he")
        seen.append(ctx.state["k"])
        yield "hello"

    async with Runner(types).open() as run:
        events = await read_all(run)
    assert seen == [1]
    assert [dict(event.actions.state_delta) for event in events] == [{}, {"k": 1}]


async def test_a_partial_events_own_delta_changes_nothing() -> None:
    @agent
    async def types(ctx: InvocationContext) -> Yields:
        yield Event("he", partial=True, actions=EventActions(state_delta={"k": 1}))
        assert "k" not in ctx.state

    runner = Runner(types)
    async with runner.open() as run:
        await read_all(run)
    await check_run(runner, run)
    assert run.result.state == {}


async def test_a_partial_event_ends_no_sibling() -> None:
    @agent
    async def types(ctx: InvocationContext) -> Yields:
        yield Event("he", partial=True, actions=EventActions(escalate=True))

    @agent
    async def sibling(ctx: InvocationContext) -> Yields:
        yield "s0"
        yield "s1"

    async with Runner(ParallelAgent("both", [types, sibling])).open() as run:
        assert sorted(texts(await read_all(run))) == ["he", "s0", "s1"]


# ------------------------------------------------------------------------- 11: unstorable


def _unstorable() -> Event:
    return Event("bad", actions=EventActions(state_delta={"when": object()}))


async def test_an_unstorable_event_is_refused_at_its_own_yield() -> None:
    caught: list[str] = []

    @agent
    async def careless(ctx: InvocationContext) -> Yields:
        try:
            yield _unstorable()
        except UnstorableError as exc:
            caught.append(exc.path)
        yield "after"

    runner = Runner(careless)
    async with runner.open() as run:
        assert texts(await read_all(run)) == ["after"]
    assert caught == ["actions.state_delta.when"]
    assert texts(await check_run(runner, run)) == ["after"]


async def test_an_unstorable_event_never_fails_the_batch_of_others() -> None:
    service = BatchingService()

    def branch(name: str) -> Agent:
        @agent(name=name)
        async def run(ctx: InvocationContext) -> Yields:
            if name == "b":
                with pytest.raises(UnstorableError):
                    await ctx.emit(_unstorable())
            yield name

        return run

    tree = ParallelAgent("all", [branch(name) for name in "abc"])
    runner = Runner(tree, session_service=service)
    async with runner.open() as run:
        assert sorted(texts(await read_all(run))) == ["a", "b", "c"]
    assert sorted(service.batches_seen[0]) == ["a", "b", "c"]
    await check_run(runner, run)


async def test_an_unstorable_event_that_is_not_caught_is_its_branchs_failure() -> None:
    @agent
    async def careless(ctx: InvocationContext) -> Yields:
        yield "before"
        yield _unstorable()

    runner = Runner(SequentialAgent("line", [careless]))
    with pytest.raises(UnstorableError) as caught:
        async with runner.open() as run:
            await read_all(run)
    assert caught.value.__notes__ == ["raised by agent line/careless"]
    assert texts(await check_run(runner, run)) == ["before"]
    assert run.result.status == "failed"


async def test_an_unstorable_event_takes_no_pending_write_along() -> None:
    @agent
    async def careless(ctx: InvocationContext) -> Yields:
        ctx.state["k"] = 1
        with pytest.raises(UnstorableError):
            await ctx.emit(_unstorable())
        yield "after"

    async with Runner(careless).open() as run:
        (event,) = await read_all(run)
    assert event.actions.state_delta == {"k": 1}
