"""Run a drawn case for real, on virtual time, and report everything about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import attrs
import trio

from parallel_agent import Event, InMemorySessionService, Result, Run, Runner, RunStatistics
from parallel_agent.shared_state import OnConflict
from session.session import Session
from tests.support.recording import Delivered, Recorder, Returned
from tests.support.scripts import Node, as_code, build, lanes_of, printed
from tests.support.stores import SlowStore
from tests.support.timing import Free, Kept, clock_with_horizon

__all__ = ["START", "Case", "LeftError", "Reader", "Report", "Way", "perform"]

START: Mapping[str, Any] = {"x": 0, "user:y": "u", "app:z": [1]}
"""The state that every case begins with."""

REDUCERS = {"sum": "add", "all": "append"}
"""Keys that are contributed to, in every case."""

Way: TypeAlias = Literal["end", "break", "raise", "scope", "run.cancel"]
"""How a reader stops: at the end of the run, by ``break``, by raising, by the cancellation of a
scope around the block, or by ``run.cancel()``, after which it reads on."""


class LeftError(Exception):
    """What a reader raises that leaves by raising."""


@attrs.frozen(repr=False)
class Reader:
    """How the stream is read.

    Attributes:
        pauses: seconds spent on the first event, the second... and round again.
        way: how it stops.
        at: after how many events it stops.
        keep_alive: cancels every ``__anext__`` that takes that long, and calls it again.
    """

    pauses: tuple[float, ...] = ()
    way: Way = "end"
    at: int = 0
    keep_alive: float | None = None
    __repr__ = as_code
    _repr_pretty_ = printed


@attrs.frozen(repr=False)
class Case:
    """A tree, and all that is around it when it runs.

    ``store`` is None for the service in memory, or the delays of a slow one. ``kept`` says that
    the tree is on kept time (see ``tests.support.timing``), ``store_fails_at`` which append of a
    slow store fails.
    """

    tree: Node
    reader: Reader = Reader()
    store: tuple[float, ...] | None = None
    kept: bool = False
    on_conflict: OnConflict = "last"
    store_fails_at: int | None = None
    __repr__ = as_code
    _repr_pretty_ = printed


@attrs.frozen(eq=False)
class Report:
    """What came of a case.

    Attributes:
        events: what the run recorded, from the service.
        delivered: what the reader got.
        seen_live: the state that the block's end left behind, with ``temp:`` keys.
        error: what left the block.
        left_behind: names of tasks that outlived the block.
    """

    case: Case
    events: tuple[Event, ...]
    delivered: tuple[Event, ...]
    stored: Session
    seen_live: Mapping[str, Any]
    result: Result
    statistics: RunStatistics
    error: BaseException | None
    notebook: Recorder
    left_behind: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    appends_asked: int
    run: Run


def perform(case: Case, at_each_event: Callable[[Run, Recorder], None] | None = None) -> Report:
    """Run ``case`` to its end. ``at_each_event`` is called when the reader has got an event.

    Raises:
        trio.TrioInternalError: it hangs (see `NothingMovesError`), or has broken the loop.
    """
    return trio.run(_perform, case, at_each_event, clock=clock_with_horizon())


async def _perform(case: Case, at_each_event: Callable[[Run, Recorder], None] | None) -> Report:
    watch = Recorder()
    timing = Kept(lanes_of(case.tree)) if case.kept else Free()
    slow = None if case.store is None else SlowStore(case.store, fail_at=case.store_fails_at)
    store = slow or InMemorySessionService(clock=lambda: 0.0)
    session = await store.create(app_name="app", user_id="user", session_id="s", state=START)
    runner = Runner(
        build(case.tree, watch, timing),
        app_name="app",
        session_service=store,
        reducers=REDUCERS,
        on_conflict=case.on_conflict,
        clock=lambda: 0.0,
    )
    error: BaseException | None = None
    delivered: list[Event] = []
    before = _tasks()
    outer = trio.CancelScope()
    run: Run | None = None
    try:
        with outer:
            async with runner.open(session_id=session.id) as run:
                await _read(case.reader, run, outer, delivered, watch, at_each_event)
    except BaseException as caught:  # noqa: BLE001  # the report tells
        error = caught
    left_behind = tuple(sorted(task.name for task in _tasks() - before))
    assert run is not None
    stored = await store.get(app_name="app", user_id="user", session_id="s")
    assert stored is not None
    return Report(
        case=case,
        events=tuple(stored.events),
        delivered=tuple(delivered),
        stored=stored,
        seen_live=dict(run._stream.session.state),
        result=run.result,
        statistics=run.statistics(),
        error=error,
        notebook=watch,
        left_behind=left_behind,
        batch_sizes=() if slow is None else tuple(slow.batch_sizes),
        appends_asked=0 if slow is None else slow.asked,
        run=run,
    )


async def _read(  # noqa: PLR0917  # called once
    reader: Reader,
    run: Run,
    outer: trio.CancelScope,
    delivered: list[Event],
    watch: Recorder,
    at_each_event: Callable[[Run, Recorder], None] | None,
) -> None:
    cancelled = False
    while True:
        if len(delivered) >= reader.at and not cancelled and reader.way != "end":
            cancelled = True
            watch.entries.append(Returned(leaving=True))
            if reader.way == "break":
                return
            if reader.way == "raise":
                message = f"after {reader.at}"
                raise LeftError(message)
            if reader.way == "scope":
                outer.cancel()
            else:
                run.cancel("enough")
        else:
            watch.entries.append(Returned())
        event = await _next(reader, run)
        if event is None:
            return
        delivered.append(event)
        watch.entries.append(Delivered(event))
        if at_each_event is not None:
            at_each_event(run, watch)
        if reader.pauses:
            await trio.sleep(reader.pauses[(len(delivered) - 1) % len(reader.pauses)])


async def _next(reader: Reader, run: Run) -> Event | None:
    while True:
        with trio.move_on_after(float("inf") if reader.keep_alive is None else reader.keep_alive):
            try:
                return await anext(run)
            except StopAsyncIteration:
                return None


def _tasks() -> set[trio.lowlevel.Task]:
    found: set[trio.lowlevel.Task] = set()
    todo = [trio.lowlevel.current_root_task()]
    while todo:
        task = todo.pop()
        if task is not None:
            found.add(task)
            for nursery in task.child_nurseries:
                todo.extend(nursery.child_tasks)
    return found
