"""What users of the sync host will write, for type checkers only; see ``api.py``."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, assert_type

from parallel_agent import (
    Agent,
    Content,
    Event,
    InMemorySessionService,
    InvocationContext,
    Outcome,
    PendingRequest,
    Result,
    RunConfig,
    RunStatistics,
    SessionService,
    Status,
    agent,
    sync,
)


@agent
async def tree(ctx: InvocationContext) -> str:
    return "text"


# --------------------------------------------------------------------------------- the short forms

assert_type(sync.run_sync(tree), Result)
assert_type(sync.run_sync(tree, "hello"), Result)
sync.run_sync(tree, Content("hello"), session_id="s", state_delta={"k": 1}, app_name="app")
sync.run_sync(tree, "hello", session_service=InMemorySessionService(), run_config=RunConfig())
sync.run_sync("tree")  # type: ignore[arg-type]
sync.run_sync(tree, 7)  # type: ignore[arg-type]
sync.run_sync(tree, sesion_id="s")  # type: ignore[call-arg]
sync.run_sync(tree, session_id=7)  # type: ignore[arg-type]
sync.run_sync(tree, on_conflict="first")  # type: ignore[arg-type]

options: sync.SyncOptions = {"session_id": "s", "plugins": []}
assert_type(sync.run_sync(tree, "hello", **options), Result)
assert_type(sync.open_sync(tree, "hello", **options), sync.OpenRun)

# -------------------------------------------------------------------------------------- the runner

service: SessionService = InMemorySessionService()
runner = sync.Runner(tree, app_name="app", session_service=service, reducers={"n": "add"})
assert_type(runner.tree, Agent)
assert_type(runner.app_name, str)
assert_type(runner.session_service, SessionService)
assert_type(runner.run("hello", user_id="ann"), Result)
sync.Runner("tree")  # type: ignore[arg-type]
sync.Runner(tree, session_id="s")  # type: ignore[call-arg]
runner.run("hello", app_name="app")  # type: ignore[call-arg]


def reads() -> list[Event]:
    events: list[Event] = []
    with runner.open("hello", session_id="s") as run:
        assert_type(run, sync.Run)
        for event in run:
            assert_type(event, Event)
            events.append(event)
            if event.text == "enough":
                run.cancel("enough")
        assert_type(next(run), Event)
        assert_type(next(run, None), Event | None)
        assert_type(run.send("hello", to="branch"), Event)
        assert_type(run.pending, tuple[PendingRequest, ...])
        assert_type(run.respond("id", True), Event)
        assert_type(run.wait_for(lambda event: event.is_final), Event)
        assert_type(run.only(author="tree", partial=False), Iterator[Event])
        assert_type(run.collect(), list[Event])
        run.send(7)  # type: ignore[arg-type]
    assert_type(run.status, Status)
    assert_type(run.result, Result)
    assert_type(run.outcomes("fan"), tuple[Outcome, ...])
    assert_type(run.statistics(), RunStatistics)
    assert_type(run.session_id + run.invocation_id, str)
    return events


def leaves_early() -> Event | None:
    with runner.open() as run:
        for event in run:
            return event
    return None


def a_stream_for_others(run: sync.Run) -> Iterator[Event]:
    return run


def on_a_stack(stack: ExitStack) -> sync.Run:
    return stack.enter_context(runner.open("hello"))


def gives_any_output() -> Any:
    return sync.run_sync(tree).output
