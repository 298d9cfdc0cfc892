"""After a fault at any place where the runtime waits, the session is whole and serves a next run.

Which site, which pass through it and what happens there are drawn.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import trio
from hypothesis import assume, given
from hypothesis import strategies as st
from trio.testing import MockClock

from parallel_agent.records import void_events
from tests.faults.durable_workloads import DURABLE_WORKLOADS
from tests.faults.fan_out_workloads import FAN_OUT_WORKLOADS
from tests.faults.instrumented import Fault, Site, instrumented
from tests.faults.model_workloads import MODEL_WORKLOADS
from tests.faults.workloads import REAL_TIME, WORKLOADS, Workload

PA, SESSION, FAULTS = instrumented()

NEVER_RELEASED = (
    ("after", "parallel_agent.claim:Claim.take.acquire await service.acquire("),
    ("before", "parallel_agent.claim:Claim.release await self._service.release("),
    ("before", "parallel_agent.run:OpenRun.__aenter__ await held.release()"),
    ("before", "parallel_agent.run:OpenRun.__aexit__ await held.release()"),
)
"""A fault here is one in giving a session back: it leaves it with a run that is no more."""

ENOUGH = 3
"""How many other workloads pass a site at which faults in durable runs say nothing new."""

SOME = 4
"""How many of the workloads that pass a site fail there, other ones at the next site; in `make
deep` all of them do."""

TRIES = 20
"""Some sites are passed or not as the scheduler takes the tasks."""

HORIZON = 1_000.0
"""Virtual seconds after which a run that has not ended never will."""


class Watched:
    """A front door that remembers the runners it has made."""

    def __init__(self) -> None:
        self.runners: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(PA, name)

    def Runner(self, tree: Any, **options: Any) -> Any:  # noqa: N802  # stands for the class
        self.runners.append(PA.Runner(tree, **options))
        return self.runners[-1]


@attrs.frozen
class Injected:
    """Something that happens at one pass through one site."""

    workload: Workload
    site: Site
    when: str
    nth: int
    cancels: bool = False


def _can_go_on(site: Site, when: str) -> bool:
    return not any(when == at and site.name.startswith(place) for at, place in NEVER_RELEASED)


def _passes() -> dict[Workload, dict[str, int]]:
    """Return how often each workload passes each site when nothing goes wrong."""
    passes: dict[Workload, dict[str, int]] = {}
    for workload in (*WORKLOADS, *FAN_OUT_WORKLOADS, *MODEL_WORKLOADS, *DURABLE_WORKLOADS):
        if workload not in REAL_TIME:
            FAULTS.passed.clear()
            trio.run(workload, PA, SESSION, clock=MockClock(autojump_threshold=0))
            passes[workload] = dict(FAULTS.passed)
    for _ in range(TRIES // 4):
        for workload in DURABLE_WORKLOADS:
            FAULTS.passed.clear()
            trio.run(workload, PA, SESSION, clock=MockClock(autojump_threshold=0))
            passes[workload] = dict(FAULTS.passed) | passes[workload]
    return passes


PASSES = _passes()
SITES = {site.name: site for site in FAULTS.sites}


def _whens(site: Site) -> list[str]:
    return [when for when in ("before", "after") if getattr(site, when)]


@st.composite
def injections(draw: st.DrawFn) -> Injected:
    """Draw what happens, where, and at which pass: one that there is."""
    workload = draw(st.sampled_from(list(PASSES)))
    name = draw(st.sampled_from(sorted(PASSES[workload])))
    site = SITES[name]
    nth = draw(st.integers(1, PASSES[workload][name]))
    when = draw(st.sampled_from(_whens(site)))
    assume(_can_go_on(site, when))
    return Injected(workload, site, when, nth, draw(st.booleans()))


async def _inject(injected: Injected, watched: Watched) -> bool:
    """Run the workload with the fault, and say whether it happened.

    What the workload raises then is another test's business.
    """
    scope = trio.CancelScope()

    def fail() -> None:
        raise Fault(injected.site.name)

    FAULTS.arm(
        injected.site, injected.when, injected.nth, scope.cancel if injected.cancels else fail
    )
    with scope:
        try:
            await injected.workload(watched, SESSION)
        except trio.Cancelled:
            raise
        except BaseException as error:  # noqa: BLE001  # see above
            broken = isinstance(error, trio.TrioInternalError)
        else:
            broken = False
        assert not broken
    return FAULTS.disarm()


async def _check(runner: Any) -> None:
    """Assert that every session of ``runner`` is whole, and run something in it."""
    service = runner.session_service
    service.appends = 1_000  # one that is made to fail fails no more
    for info in await service.list(app_name=runner.app_name):
        place = {"user_id": info.key.user_id, "session_id": info.key.session_id}
        before = await service.get(app_name=runner.app_name, **place)
        assert [event.seq for event in before.events] == list(range(1, len(before.events) + 1))
        assert SESSION.fold({}, before.events) == before.state

        @PA.agent  # type: ignore[untyped-decorator]  # of the copy
        async def next_one(ctx: Any) -> str:
            ctx.state["next"] = len(ctx.history())
            return "well"

        following = PA.Runner(next_one, app_name=runner.app_name, session_service=service)
        result = await following.run("go on", **place)
        assert (result.status, result.text) == ("completed", "well")
        # What it saw: the message it was started with, and all that was there, but for the notes
        # of the runtime's, and what was done again when a run was resumed.
        void = void_events(before.events)
        seen = [one for one in before.events if not one.is_record and one.seq not in void]
        assert result.state["next"] == len(seen) + 1


def _serves_the_next_run(injected: Injected) -> bool:
    """Assert that it does; say whether the fault happened."""
    watched = Watched()

    async def main() -> bool:
        with trio.fail_after(HORIZON):
            happened = await _inject(injected, watched)
            for runner in watched.runners:
                await _check(runner)
        return happened

    try:
        return trio.run(main, clock=MockClock(autojump_threshold=0))
    finally:
        FAULTS.disarm()


@pytest.fixture(autouse=True)
def _collected(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    # Trio logs what a generator raises when it is closed; pytest would keep that, and with it the
    # generator, to the very end, where no mark is heeded.
    caplog.get_records("call").clear()
    if "any_pass" in request.node.name or "parallel_agent.drive:" in request.node.name:
        gc.collect()  # see `leaves_agents_open`


leaves_agents_open = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)
"""A fault in what drives or closes an agent leaves its generator to the garbage collector."""


@leaves_agents_open
@given(injections())
def test_the_session_serves_the_next_run_after_a_fault_at_any_pass(injected: Injected) -> None:
    # Nothing comes after a pass that ends in an error of its own.
    assume(_serves_the_next_run(injected))


PLACES = [
    pytest.param(name, when, id=f"{when} {name}")
    for name in sorted(SITES)
    for when in _whens(SITES[name])
    if _can_go_on(SITES[name], when)
]


@leaves_agents_open
@pytest.mark.parametrize(("name", "when"), PLACES)
def test_the_session_serves_the_next_run_after_a_fault_in_the_middle(name: str, when: str) -> None:
    passing = _passing(name)
    if passing:  # not one of those in real time
        first = list(SITES).index(name) % len(passing)
        chosen = [*passing[first:], *passing[:first]][:SOME]
        assert any(_happens(name, when, chosen) for _ in range(TRIES))


@pytest.mark.deep
@leaves_agents_open
@pytest.mark.parametrize(("name", "when"), PLACES)
def test_every_session_serves_the_next_run_after_a_fault_in_the_middle(
    name: str, when: str
) -> None:
    passing = _passing(name)
    assert not passing or any(_happens(name, when, passing) for _ in range(TRIES))


def _passing(name: str) -> list[Workload]:
    """Return the workloads in which the site fails, at most: durable ones where few others do."""
    passing = [workload for workload, passes in PASSES.items() if name in passes]
    others = [workload for workload in passing if workload not in DURABLE_WORKLOADS]
    return others if len(others) >= ENOUGH else passing[:ENOUGH]


def _happens(name: str, when: str, passing: list[Workload]) -> int:
    """Inject faults at a site, and check what comes after; return how often that was."""
    happened = 0
    for workload in passing:
        for nth in {1, 1 + PASSES[workload][name] // 2}:
            happened += _serves_the_next_run(Injected(workload, SITES[name], when, nth))
    return happened


def test_a_log_with_a_gap_would_be_found() -> None:
    """Known bad: a store that loses the second event and gives the rest their old numbers."""

    async def main() -> None:
        watched = Watched()
        await WORKLOADS[0](watched, SESSION)
        (runner,) = watched.runners
        for stored in runner.session_service._sessions.values():
            del stored.events[1]
        with pytest.raises(AssertionError):
            await _check(runner)

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_a_state_that_is_not_the_log_s_would_be_found() -> None:
    async def main() -> None:
        watched = Watched()
        await WORKLOADS[0](watched, SESSION)
        (runner,) = watched.runners
        for stored in runner.session_service._sessions.values():
            stored.state["a"] = "made up"
        with pytest.raises(AssertionError):
            await _check(runner)

    trio.run(main, clock=MockClock(autojump_threshold=0))
