"""Runs in plain Python: what a reader there may rely on, and what it leaves behind (nothing)."""

from __future__ import annotations

import contextvars
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from hypothesis import given

from parallel_agent import (
    Event,
    InvocationContext,
    MessageRefusedError,
    ParallelAgent,
    ReadError,
    ResponseRefusedError,
    RunConfig,
    RunEndedError,
    SequentialAgent,
    agent,
    sync,
)
from parallel_agent.sync import served
from session import InMemorySessionService
from tests.support.drawing import Allowed, fewer, kept_cases, trees
from tests.support.loops import Diary, cleaning_up, counting
from tests.support.plain import read_all, real_run
from tests.support.recording import Recorder
from tests.support.running import REDUCERS, START, Case, perform
from tests.support.scripts import build, lanes_of
from tests.support.stores import SlowStore, StoreFailedError
from tests.support.timing import Kept

pytestmark = pytest.mark.usefixtures("_plain")


@pytest.fixture(params=[served.PATIENCE, 0], ids=["patient", "impatient"])
def _either_hand_over(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hand events over in either way: while trio stands still, and while it goes on."""
    monkeypatch.setattr(served, "PATIENCE", request.param)


either_hand_over = pytest.mark.usefixtures("_either_hand_over")


def texts(events: list[Event] | tuple[Event, ...]) -> list[str]:
    return [event.text for event in events if event.text]


@agent
async def failing(ctx: InvocationContext) -> Any:
    yield "before"
    message = "broken"
    raise ValueError(message)


@agent
async def asking(ctx: InvocationContext) -> str:
    return f"answered {await ctx.request_input('Go on?', schema=bool)}"


@agent
async def listening(ctx: InvocationContext) -> Any:
    yield "listening"
    message = await ctx.receive()
    yield f"heard {message.text}"


# ------------------------------------------------------------------------------------- to the end


def test_run_sync_returns_the_result() -> None:
    result = sync.run_sync(counting(), "go")
    assert (result.status, result.text) == ("completed", "counter 2")


def test_the_short_forms_take_the_options_of_the_runner_and_of_its_runs() -> None:
    service = InMemorySessionService()
    options: dict[str, Any] = {"app_name": "app", "session_service": service, "session_id": "s"}
    sync.run_sync(counting(), "one", **options)
    with sync.open_sync(counting(), "two", **options, user_id="user") as run:
        run.collect()
    session = real_run(_get, service)
    assert texts(session.events)[::4] == ["one", "two"]


async def _get(service: InMemorySessionService) -> Any:
    return await service.get(app_name="app", user_id="user", session_id="s")


def test_an_option_that_is_none_is_named() -> None:
    with pytest.raises(TypeError, match="sesion_id"):
        sync.run_sync(counting(), "go", sesion_id="s")  # type: ignore[call-arg]  # what is tested


def test_run_works_in_the_calling_thread() -> None:
    @agent
    async def where(ctx: InvocationContext) -> str:
        return threading.current_thread().name

    assert sync.run_sync(where).output == threading.current_thread().name


def test_run_raises_what_the_run_failed_with() -> None:
    with pytest.raises(ValueError, match="broken"):
        sync.run_sync(failing)


def test_run_answers_nobody() -> None:
    result = sync.run_sync(asking, run_config=RunConfig(on_wait="suspend"))
    assert result.status == "waiting"


# ---------------------------------------------------------------------------------------- reading


@either_hand_over
def test_a_run_is_read_and_has_a_result() -> None:
    with sync.Runner(counting()).open("go") as run:
        read = [event.text for event in run]
    assert read == ["counter 0", "counter 1", "counter 2"]
    assert (run.result.status, run.result.text) == ("completed", "counter 2")


@either_hand_over
def test_a_branch_goes_on_when_the_reader_comes_back() -> None:
    diary: Diary = []
    gone_on = threading.Semaphore(0)

    @agent
    async def careful(ctx: InvocationContext) -> Any:
        for number in range(3):
            yield str(number)
            diary.append(f"{number} acknowledged")

    @agent
    async def beside(ctx: InvocationContext) -> None:
        while True:  # goes on while the reader's body works
            await trio.sleep(1)
            gone_on.release()

    with sync.open_sync(ParallelAgent("both", [careful, beside])) as run:
        for event in run:
            for _ in range(20):
                gone_on.acquire()
            diary.append(f"{event.text} read")
            if event.text == "2":
                break
    assert diary == ["0 read", "0 acknowledged", "1 read", "1 acknowledged", "2 read"]


@either_hand_over
def test_what_is_ready_is_not_handed_out_before_the_reader_comes_back() -> None:
    service = InMemorySessionService()
    options: dict[str, Any] = {"app_name": "app", "session_service": service, "session_id": "s"}
    tree = ParallelAgent("fan", [counting(name) for name in "abc"])
    with sync.open_sync(tree, **options) as run:
        for _ in range(4):
            next(run)
    assert len(run.result.events) == 4


def test_time_goes_on_for_agents_while_the_body_works() -> None:
    done = threading.Event()

    @agent
    async def slow(ctx: InvocationContext) -> None:
        await trio.sleep(3600)
        done.set()

    with sync.open_sync(ParallelAgent("both", [counting(), slow])) as run:
        next(run)
        assert done.wait(timeout=60)
        run.collect()


@either_hand_over
def test_a_service_that_blocks_records_batches() -> None:
    store = SlowStore((0,))
    tree = ParallelAgent("fan", [counting(name) for name in "abc"])
    with sync.open_sync(tree, session_service=store) as run:
        assert len(run.collect()) == 10
    assert max(store.batch_sizes) == 3


def test_the_error_of_a_store_is_raised_once_at_the_iteration() -> None:
    store = SlowStore((0,), fail_at=2)
    with sync.open_sync(counting(), session_service=store) as run:
        assert next(run).text == "counter 0"
        with pytest.raises(StoreFailedError):
            next(run)
        with pytest.raises(StopIteration):
            next(run)
    assert run.result.status == "failed"


def test_iteration_stays_over() -> None:
    with sync.open_sync(counting(count=1)) as run:
        assert (len(run.collect()), run.collect()) == (1, [])
    assert run.collect() == []


def test_wait_for_and_only_read_on() -> None:
    tree = SequentialAgent("line", [counting("a"), counting("b")])
    with sync.open_sync(tree) as run:
        assert run.wait_for(lambda event: event.text == "a 1").seq == 2
        assert [event.text for event in run.only(author="b")] == ["b 0", "b 1", "b 2"]
        with pytest.raises(RunEndedError):
            run.wait_for(lambda event: event.text == "a 1")


def test_only_can_be_left_and_reading_goes_on() -> None:
    with sync.open_sync(SequentialAgent("line", [counting("a"), counting("b")])) as run:
        for event in run.only(author="b"):
            assert event.text == "b 0"
            break
        assert texts(run.collect()) == ["b 1", "b 2"]


def test_statistics_and_outcomes_are_there_in_the_block_and_after_it() -> None:
    with sync.open_sync(ParallelAgent("fan", [counting("a"), counting("b")])) as run:
        next(run)
        assert run.statistics().delivered == 1
        run.collect()
        inside = run.outcomes("fan")
        with pytest.raises(KeyError):
            run.outcomes("nothing")
    assert run.outcomes("fan") == inside
    assert (run.statistics().delivered, run.statistics().completed) == (7, 3)


# -------------------------------------------------------------------------------------- both ways


@either_hand_over
def test_a_message_reaches_its_branch() -> None:
    with sync.open_sync(listening) as run:
        assert next(run).text == "listening"
        assert run.send("hello").text == "hello"
        assert texts(run.collect()) == ["hello", "heard hello"]
        with pytest.raises(MessageRefusedError):
            run.send("too late")
    with pytest.raises(MessageRefusedError):
        run.send("much too late")


@either_hand_over
def test_a_question_is_answered() -> None:
    with sync.open_sync(asking) as run:
        for event in run:
            if event.request is not None:
                (pending,) = run.pending
                assert pending.id == event.request.id
                with pytest.raises(ResponseRefusedError):
                    run.respond(event.request.id, "no bool")
                run.respond(event.request.id, True)
                assert run.pending == ()
    assert run.result.output == "answered True"


def test_questions_of_a_suspended_run_are_pending_after_it() -> None:
    with sync.open_sync(asking, run_config=RunConfig(on_wait="suspend")) as run:
        assert len(run.collect()) == 1
    assert run.result.status == "waiting"
    assert [question.prompt for question in run.pending] == ["Go on?"]


@either_hand_over
def test_run_cancel_ends_iteration_ordinarily() -> None:
    diary: Diary = []
    with sync.open_sync(cleaning_up("a", diary, says=True)) as run:
        read = []
        for event in run:
            read.append(event.text)
            run.cancel("enough")
    assert read == ["started", "cleaned up"]
    assert (run.result.status, run.result.reason) == ("cancelled", "enough")


def test_another_thread_can_cancel_a_run_whose_reader_waits() -> None:
    diary: Diary = []
    with sync.open_sync(cleaning_up("a", diary)) as run:
        next(run)
        stop = threading.Thread(target=run.cancel, args=("stop button",))
        stop.start()
        assert run.collect() == []
        stop.join()
    assert run.result.reason == "stop button"


# ------------------------------------------------------------------------------- failing, leaving


@either_hand_over
def test_a_failure_reaches_the_reader_as_itself() -> None:
    error = ValueError("broken")

    @agent
    async def raising(ctx: InvocationContext) -> Any:
        yield "before"
        raise error

    with sync.open_sync(ParallelAgent("fan", [raising])) as run:
        assert next(run).text == "before"
        with pytest.raises(ValueError, match="broken") as caught:
            run.collect()
    assert caught.value is error
    # It says where it was raised, and who has asked.
    functions = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert functions[0] == "test_a_failure_reaches_the_reader_as_itself"
    assert functions[-1] == "raising"
    assert error.__context__ is None


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_ends_the_process_leaves_bare(kind: type[BaseException]) -> None:
    error = kind(3)

    @agent
    async def raising(ctx: InvocationContext) -> None:
        raise error

    with sync.open_sync(ParallelAgent("fan", [raising])) as run, pytest.raises(kind) as caught:
        run.collect()
    assert caught.value is error


def test_a_failure_nobody_has_read_is_raised_by_the_block() -> None:
    @agent
    async def clumsy(ctx: InvocationContext) -> Any:
        try:
            yield "started"
            await trio.sleep_forever()
        finally:
            message = "in cleaning up"
            raise ValueError(message)

    block = sync.open_sync(clumsy)
    with pytest.raises(ValueError, match="in cleaning up"), block as run:
        next(run)
    assert run.result.status == "failed"


def test_an_exception_of_the_body_leaves_as_itself_after_the_clean_up() -> None:
    diary: Diary = []
    error = LookupError("of the body")
    block = sync.open_sync(cleaning_up("a", diary))
    with pytest.raises(LookupError) as caught, block as run:  # noqa: PT012  # the body raises it
        next(run)
        raise error
    assert caught.value is error
    assert diary == ["a cleaned up"]
    assert run.result.reason == "the block raised LookupError"


@either_hand_over
def test_leaving_early_waits_for_the_clean_up() -> None:
    diary: Diary = []
    tree = ParallelAgent("fan", [cleaning_up(name, diary, says=True) for name in "ab"])
    with sync.open_sync(tree) as run:
        next(run)
    assert sorted(diary) == ["a cleaned up", "b cleaned up"]
    assert run.result.status == "cancelled"
    assert texts(run.result.events).count("cleaned up") == 2


def test_a_generator_that_holds_a_run_ends_it_when_it_is_closed() -> None:
    diary: Diary = []

    def events() -> Iterator[str]:
        with sync.open_sync(cleaning_up("a", diary)) as run:
            for event in run:
                yield event.text

    stream = events()
    assert next(stream) == "started"
    stream.close()  # type: ignore[attr-defined]  # a generator is an iterator to its users
    assert diary == ["a cleaned up"]


def test_what_opening_raises_is_raised_as_itself() -> None:
    error = OSError("no disk")

    class Broken(InMemorySessionService):
        async def create(self, **_options: Any) -> Any:
            raise error

    block = sync.open_sync(counting(), session_service=Broken())
    with pytest.raises(OSError, match="no disk") as caught, block:
        pass
    assert caught.value is error


# ------------------------------------------------------------------------------------------ usage


def test_reading_without_the_block_shows_the_right_form() -> None:
    with pytest.raises(ReadError, match=r"with runner\.open\(\.\.\.\) as run"):
        for _ in sync.open_sync(counting()):
            pass


async def test_async_forms_show_the_right_one() -> None:
    with pytest.raises(ReadError, match=r"`with runner\.open\(\.\.\.\) as run:`"):
        async for _ in sync.open_sync(counting()):
            pass
    with pytest.raises(ReadError, match=r"`with runner\.open\(\.\.\.\) as run:`"):
        async with sync.open_sync(counting()):  # type: ignore[misc]  # what is tested
            pass
    with (
        sync.open_sync(counting()) as run,
        pytest.raises(ReadError, match="`for event in run:`"),
    ):
        async for _ in run:
            pass


def test_a_block_is_entered_once() -> None:
    block = sync.open_sync(counting())
    with block as run:
        run.collect()
    with pytest.raises(ReadError, match="opened already"), block:
        pass


def test_a_result_is_there_after_the_block() -> None:
    with sync.open_sync(counting()) as run:
        with pytest.raises(ReadError, match="`with` block has ended"):
            _ = run.result
        run.collect()
    assert run.status == run.result.status == "completed"


def test_two_readers_at_once_are_refused() -> None:
    with sync.open_sync(cleaning_up("a", [])) as run:
        next(run)
        complaints: list[BaseException] = []
        reading = threading.Event()

        def read() -> None:
            reading.set()
            try:
                run.collect()
            except ReadError as error:
                complaints.append(error)
                run.cancel("enough")

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(complaints) == 1


def test_leaving_wakes_a_reader_in_another_thread() -> None:
    def read() -> None:
        for _ in range(100):
            run.collect()

    with sync.open_sync(cleaning_up("a", [])) as run:
        next(run)
        thread = threading.Thread(target=read)
        thread.start()
    thread.join()


def test_an_agent_can_cancel_its_run_but_not_read_it() -> None:
    runs: list[sync.Run] = []
    complaints: list[str] = []

    @agent
    async def inside(ctx: InvocationContext) -> Any:
        yield "started"
        try:
            next(runs[0])
        except ReadError as error:
            complaints.append(str(error))
        runs[0].cancel("from inside")
        await trio.sleep_forever()

    with sync.open_sync(inside) as run:
        runs.append(run)
        assert len(run.collect()) == 1
    assert run.result.reason == "from inside"
    assert complaints == ["an agent cannot read the run that it belongs to"]


def test_context_variables_flow_in_and_not_out() -> None:
    variable = contextvars.ContextVar[str]("variable", default="")

    @agent
    async def reads(ctx: InvocationContext) -> str:
        value = variable.get()
        variable.set("from the agent")
        return value

    variable.set("from the script")
    for result in (sync.run_sync(reads), read_all(reads)):
        assert result.output == "from the script"
        assert variable.get() == "from the script"


# ----------------------------------------------------------------------------------- the same run


def _seen(events: tuple[Event, ...]) -> list[Any]:
    return [
        (one.seq, one.author, one.branch, one.path, one.text, one.partial, dict(one.state_delta))
        for one in events
    ]


def _in_sync(case: Case) -> tuple[tuple[Event, ...], Any, BaseException | None]:
    """Do with the sync host what `perform` does with trio's."""
    store = InMemorySessionService(clock=lambda: 0.0)

    async def create() -> None:
        await store.create(app_name="app", user_id="user", session_id="s", state=START)

    real_run(create)
    runner = sync.Runner(
        build(case.tree, Recorder(), Kept(lanes_of(case.tree))),
        app_name="app",
        session_service=store,
        reducers=REDUCERS,
        clock=lambda: 0.0,
    )
    delivered: list[Event] = []
    reader, error, run = case.reader, None, None
    try:
        with runner.open(session_id="s") as run:
            cancelled = False
            while True:
                if len(delivered) >= reader.at and not cancelled and reader.way != "end":
                    cancelled = True
                    if reader.way != "run.cancel":
                        break
                    run.cancel("enough")
                event = next(run, None)
                if event is None:
                    break
                delivered.append(event)
    except Exception as caught:  # noqa: BLE001  # compared
        error = caught
    assert run is not None
    return tuple(delivered), run.result, error


@pytest.fixture
def _endlessly_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """See to it that no virtual time goes by while the reader has an event."""
    monkeypatch.setattr(served, "PATIENCE", 60)


@pytest.mark.usefixtures("_endlessly_patient")
@fewer(2)
@given(kept_cases(trees(Allowed(kept=True))))
def test_the_same_events_come_in_the_same_order_as_in_trio(case: Case) -> None:
    expected = perform(case)
    delivered, result, error = _in_sync(case)
    assert _seen(delivered) == _seen(expected.delivered)
    if case.reader.way in {"end", "run.cancel"}:
        assert _seen(result.events) == _seen(expected.result.events)
        assert type(error) is type(expected.error)
        assert (result.status, result.state) == (expected.result.status, expected.result.state)
