"""What reads a run whatever happens, and what breaks it on purpose."""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from parallel_agent import (
    Agent,
    AgentTimeoutError,
    BestEffort,
    InMemorySessionService,
    ParallelAgent,
    PluginError,
    Result,
    Runner,
    SequentialAgent,
    Status,
    WaitAll,
)
from parallel_agent.testing import explore
from parallel_agent.testing.faults import (
    FailingSessionService,
    FailingStream,
    InjectedFaultError,
)
from parallel_agent.testing.recorder import Recorder
from parallel_agent.testing.scripted import calls, emits, raises, scripted, sleeps


def record(tree: Agent | Runner, message: str | None = None) -> Recorder:
    """Run a tree to its end, on virtual time."""
    recorder = Recorder(tree)
    trio.run(recorder.run, message, clock=MockClock(autojump_threshold=0))
    return recorder


# ------------------------------------------------------------------------------- the recorder


def test_a_recorder_keeps_what_a_run_fails_with() -> None:
    recorder = record(
        ParallelAgent("fan", [scripted("a", emits("a1")), scripted("b", raises(ValueError("b")))])
    )
    assert isinstance(recorder.error, ValueError)
    assert recorder.status is Status.FAILED
    assert recorder.result is not None
    assert {str(outcome.status) for outcome in recorder.outcomes("fan")} >= {"failed"}
    assert recorder.notes != []


def test_a_recorder_keeps_what_it_was_told() -> None:
    seen: list[str] = []
    record(scripted("a", calls(lambda ctx: seen.append(ctx.user_text))), "hello")
    assert seen == ["hello"]


def test_a_recorder_keeps_groups_and_timeouts() -> None:
    failing = [scripted("a", raises(ValueError("a"))), scripted("b", raises(KeyError("b")))]
    assert isinstance(record(ParallelAgent("p", failing, barrier=WaitAll())).error, ExceptionGroup)
    assert isinstance(record(scripted("a", sleeps(2), timeout=1)).error, AgentTimeoutError)


def test_a_recorder_of_a_run_that_cannot_be_opened_has_failed() -> None:
    service = FailingSessionService(InMemorySessionService(), 1, method="create")
    recorder = record(Runner(scripted("a"), session_service=service))
    assert isinstance(recorder.error, InjectedFaultError)
    assert (recorder.status, recorder.result) == (Status.FAILED, None)
    with pytest.raises(KeyError, match="has not begun"):
        recorder.outcomes("a")


async def test_a_recorder_that_is_cancelled_keeps_what_it_has_got(
    autojump_clock: MockClock,
) -> None:
    recorder = Recorder(scripted("a", emits("x"), sleeps(9), emits("y")))
    assert recorder.status is Status.PENDING
    with trio.move_on_after(1) as scope:
        await recorder.run()
    assert scope.cancelled_caught
    assert (recorder.texts, recorder.status) == (["x"], Status.CANCELLED)
    assert recorder.error is None


async def test_a_recorder_records_one_run(autojump_clock: MockClock) -> None:
    recorder = Recorder(scripted("a", emits("x")))
    await recorder.run()
    with pytest.raises(RuntimeError, match="make another"):
        await recorder.run()
    assert recorder.texts == ["x"]


async def test_a_recorder_shows_what_goes_on(autojump_clock: MockClock) -> None:
    recorder = Recorder(scripted("a", emits("x"), sleeps(9)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.run)
        await trio.sleep(1)
        assert (recorder.status, recorder.texts) == (Status.RUNNING, ["x"])
        assert recorder.result is None
    assert recorder.result is not None


# ------------------------------------------------------------------------------- faults


@attrs.frozen
class Broken:
    """A run whose session service failed, and what the session holds."""

    recorder: Recorder
    log: list[str]


def break_store(fails_at: int, **options: Any) -> Broken:
    inner = InMemorySessionService()
    service = FailingSessionService(inner, fails_at, **options)
    runner = Runner(scripted("a", emits("x", "y", "z")), app_name="app", session_service=service)
    recorder = Recorder(runner)

    async def main() -> list[str]:
        await recorder.run(session_id="s")
        session = await inner.get(app_name="app", user_id="user", session_id="s")
        return [] if session is None else [event.text for event in session.events]

    return Broken(recorder, trio.run(main, clock=MockClock(autojump_threshold=0)))


def test_an_append_fails_before_it_has_taken_effect() -> None:
    broken = break_store(2)
    assert isinstance(broken.recorder.error, InjectedFaultError)
    assert str(broken.recorder.error) == "append 2 was told to fail"
    assert (broken.recorder.texts, broken.log) == (["x"], ["x"])


def test_an_append_fails_after_it_has_taken_effect() -> None:
    broken = break_store(2, when="after")
    assert (broken.recorder.texts, broken.log) == (["x"], ["x", "y"])


def test_it_fails_with_the_error_it_was_given() -> None:
    error = OSError("disk")
    assert break_store(1, error=error).recorder.error is error


def test_a_service_fails_once() -> None:
    service = FailingSessionService(InMemorySessionService(), 1)
    runner = Runner(scripted("a", emits("x")), session_service=service)
    assert record(runner).error is not None
    assert record(runner).error is None
    assert service.calls == 2


@pytest.mark.parametrize("method", ["create", "get", "list", "delete"])
async def test_any_method_can_fail(method: Any) -> None:
    def service() -> FailingSessionService:
        return FailingSessionService(InMemorySessionService(), 1, method=method)

    place = {"app_name": "app", "user_id": "u", "session_id": "s"}
    arguments = {"app_name": "app"} if method == "list" else place
    with pytest.raises(InjectedFaultError, match=method):
        await getattr(service(), method)(**arguments)
    for other in {"create", "get", "list", "delete"} - {method}:
        await getattr(service(), other)(**({"app_name": "app"} if other == "list" else place))


@pytest.mark.parametrize(
    "options", [{"fails_at": 0}, {"fails_at": True}, {"when": "never"}, {"method": "close"}]
)
def test_a_fault_that_can_never_happen_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        FailingSessionService(InMemorySessionService(), **{"fails_at": 1, **options})


def test_a_stream_fails_at_one_event_of_each_run() -> None:
    runner = Runner(scripted("a", emits("x", "y")), plugins=[FailingStream(2)])
    for _ in range(2):
        recorder = record(runner)
        assert recorder.texts == ["x"]
        assert isinstance(recorder.error, PluginError)
        assert isinstance(recorder.error.__cause__, InjectedFaultError)


def test_a_stream_with_fewer_events_does_not_fail() -> None:
    error = OSError("lost")
    tree = SequentialAgent("s", [scripted("a", emits("x")), scripted("b", emits("y"))])
    assert record(Runner(tree, plugins=[FailingStream(3, error=error)])).error is None
    broken = record(Runner(tree, plugins=[FailingStream(2, error=error)])).error
    assert broken is not None
    assert broken.__cause__ is error


def test_a_fault_in_a_stream_can_be_explored() -> None:
    """Wherever it hits, the other branch comes to its end."""
    branches = [scripted("a", emits("a1")), scripted("b", emits("b1"))]
    hit: set[str] = set()

    def check(result: Result) -> None:
        (said,) = [event.text for event in result.events if event.text]
        hit.add(said)

    explore(
        lambda: ParallelAgent("p", branches, barrier=BestEffort()),
        check,
        make_runner=partial(Runner, plugins=[FailingStream(1)]),
    )
    assert hit == {"a1", "b1"}


def test_what_a_stream_counts_is_forgotten_with_the_run() -> None:
    stream = FailingStream(9)
    record(Runner(scripted("a", emits("x")), plugins=[stream]))
    assert stream._counts == {}
