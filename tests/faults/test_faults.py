"""A fault at any place where the runtime waits: the run ends, and not as if all were well."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from tests.faults.durable_workloads import DURABLE_WORKLOADS
from tests.faults.fan_out_workloads import FAN_OUT_WORKLOADS
from tests.faults.instrumented import Fault, Site, instrumented
from tests.faults.model_workloads import MODEL_WORKLOADS
from tests.faults.workloads import REAL_TIME, WORKLOADS, Workload

PA, SESSION, FAULTS = instrumented()

AFTER_THE_END = (
    "parallel_agent.run:OpenRun.__aexit__ await checkpoint_if_cancelled()",
    "parallel_agent.run:OpenRun.__aexit__ await held.release()",
    "parallel_agent.claim:Claim.release ",
    "parallel_agent.host:RunHost.__aexit__ await checkpoint_if_cancelled()",
    "parallel_agent.runner:_read with opened",
    "parallel_agent.runner:Runner.run await _read(",
    "parallel_agent.runner:Runner.resume await _read(",
)
"""What is cancelled after these was over before."""

ENOUGH = 3
"""How many other workloads pass a site at which faults in durable runs say nothing new."""

SOME = 4
"""How many of the workloads that pass a site are disturbed there, other ones at the next site; in
`make deep` all of them."""

LATER = 1
"""In how many of these it is at later passes, too; in all of them in `make deep`."""

TRIES = 20
"""Some sites are passed or not as the scheduler takes the tasks."""

HORIZON = 60.0
"""Seconds (virtual ones, nearly always) after which a run that has not ended never will."""


@attrs.frozen
class Ended:
    """How a workload ended. ``error``: what it raised; ``result``: what it returned."""

    error: BaseException | None = None
    result: Any = None
    hung: bool = False
    tasks_left: int = 0


@pytest.fixture(autouse=True)
def _disarmed(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    FAULTS.disarm()
    # Trio logs what a generator raises when it is closed; pytest would keep that, and with it the
    # generator, to the very end, where no mark is heeded.
    caplog.get_records("call").clear()
    if "parallel_agent.drive:" in request.node.name:
        gc.collect()  # see `leaves_agents_open`


leaves_agents_open = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)
"""A fault in what drives or closes an agent leaves its generator to the garbage collector."""


def perform(workload: Workload, act: Any = None, arm: Any = None) -> Ended:
    """Run a workload to its end, whatever happens in it."""

    async def main() -> Ended:
        before = trio.lowlevel.current_statistics().tasks_living
        error: BaseException | None = None
        result = None
        with trio.move_on_after(HORIZON) as horizon, trio.CancelScope() as scope:
            if arm is not None:
                arm(scope)
            try:
                result = await workload(PA, SESSION)
            except BaseException as exc:
                error = exc
                if isinstance(exc, trio.Cancelled):
                    raise
        left = trio.lowlevel.current_statistics().tasks_living - before
        return Ended(error, result, horizon.cancelled_caught, left)

    clock = None if workload in REAL_TIME else MockClock(autojump_threshold=0)
    return trio.run(main, clock=clock)


def faulted(workload: Workload, site: Site, when: str, nth: int) -> Ended | None:
    """Perform with a fault; None if the site was not passed that often."""

    def fail() -> None:
        raise Fault(site.name)

    ended = perform(workload, arm=lambda _scope: FAULTS.arm(site, when, nth, fail))
    return ended if FAULTS.disarm() else None


def leaves_of(error: BaseException | None) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for member in error.exceptions for leaf in leaves_of(member)]
    return [] if error is None else [error]


def shows(ended: Ended) -> bool:
    """Whether the fault is to be seen: raised, noted, in an outcome, or the run is no success."""
    found = leaves_of(ended.error)
    if any(isinstance(error, Fault) for error in found):
        return True
    if any("Fault" in note for error in found for note in getattr(error, "__notes__", ())):
        return True
    if ended.result is None or ended.result.status not in ("completed", "waiting"):
        return True
    outcomes = [outcome for event in ended.result.events for outcome in event.actions.outcomes]
    return any(outcome.error_type == "Fault" for outcome in outcomes)


def whens(site: Site) -> list[str]:
    return [when for when in ("before", "after") if getattr(site, when)]


def _passing() -> dict[str, list[Workload]]:
    """Return which workloads pass each site when nothing goes wrong."""
    passing: dict[str, list[Workload]] = {site.name: [] for site in FAULTS.sites}
    # Those of durable runs last, and only where few others pass: each of them is several runs.
    for workload in (*WORKLOADS, *FAN_OUT_WORKLOADS, *MODEL_WORKLOADS, *DURABLE_WORKLOADS):
        FAULTS.passed.clear()
        ended = perform(workload)
        assert ended.error is None, workload
        assert ended.tasks_left == 0, workload
        for site in +FAULTS.passed:
            if workload not in DURABLE_WORKLOADS or len(passing[site]) < ENOUGH:
                passing[site].append(workload)
    for _ in range(TRIES):
        missing = [site for site, workloads in passing.items() if not workloads]
        for workload in DURABLE_WORKLOADS if missing else ():
            FAULTS.passed.clear()
            perform(workload)
            for site in missing:
                if FAULTS.passed[site] and workload not in passing[site]:
                    passing[site].append(workload)
    return passing


PASSING = _passing()
CASES = [(site, when) for site in FAULTS.sites for when in whens(site)]


def some(site: Site) -> list[Workload]:
    """Some of the workloads that pass the site: between them, the sites have all of them."""
    passing = PASSING[site.name]
    first = FAULTS.sites.index(site) % max(len(passing), 1)
    return [*passing[first:], *passing[:first]][:SOME]


def test_every_site_is_passed_by_some_workload() -> None:
    assert [site for site, workloads in PASSING.items() if not workloads] == []


def test_a_site_that_nobody_passes_would_be_found() -> None:
    FAULTS.passed.clear()
    assert not FAULTS.passed["parallel_agent.nowhere:await nothing"]
    perform(WORKLOADS[0])
    assert [site.name for site in FAULTS.sites if not FAULTS.passed[site.name]] != []


async def test_a_return_of_what_is_said_never_to_return_would_be_found() -> None:
    async def returns() -> None:
        await trio.lowlevel.checkpoint()

    with pytest.raises(AssertionError, match="has returned"):
        await FAULTS.wait_for_nothing("parallel_agent.nowhere", returns())


@leaves_agents_open
@pytest.mark.parametrize(("site", "when"), CASES, ids=[f"{w} {s.name}" for s, w in CASES])
def test_a_fault_ends_the_run_and_shows(site: Site, when: str) -> None:
    # Some sites are passed or not as the scheduler takes the tasks.
    assert any(_hits(site, when, some(site)) for _ in range(TRIES))


@pytest.mark.deep
@leaves_agents_open
@pytest.mark.parametrize(("site", "when"), CASES, ids=[f"{w} {s.name}" for s, w in CASES])
def test_a_fault_ends_every_run_and_shows(site: Site, when: str) -> None:
    passing = PASSING[site.name]
    assert any(_hits(site, when, passing, later=len(passing)) for _ in range(TRIES))


def _hits(site: Site, when: str, passing: list[Workload], *, later: int = LATER) -> int:
    """Inject a fault where workloads pass the site; return how often that was."""
    hit = 0
    for number, workload in enumerate(passing):
        for nth in (1, 2, 5) if number < later else (1,):
            ended = faulted(workload, site, when, nth)
            if ended is None:
                break
            hit += 1
            assert not ended.hung, (workload, nth)
            assert ended.tasks_left == 0, (workload, nth)
            assert shows(ended), (workload, nth, ended)
            assert not any(isinstance(e, trio.TrioInternalError) for e in leaves_of(ended.error))
    return hit


@leaves_agents_open
@pytest.mark.parametrize(("site", "when"), CASES, ids=[f"{w} {s.name}" for s, w in CASES])
def test_a_cancellation_ends_the_run_as_cancelled(site: Site, when: str) -> None:
    _cancel(site, when, some(site))


@pytest.mark.deep
@leaves_agents_open
@pytest.mark.parametrize(("site", "when"), CASES, ids=[f"{w} {s.name}" for s, w in CASES])
def test_a_cancellation_ends_every_run_as_cancelled(site: Site, when: str) -> None:
    _cancel(site, when, PASSING[site.name])


def _cancel(site: Site, when: str, passing: list[Workload]) -> None:
    """Cancel workloads where they pass the site."""
    for workload in passing:
        ended = perform(workload, arm=lambda scope: FAULTS.arm(site, when, 1, scope.cancel))
        if not FAULTS.disarm():
            continue
        assert not ended.hung, workload
        assert ended.tasks_left == 0, workload
        leaves = leaves_of(ended.error)
        allowed = all(isinstance(e, trio.Cancelled | PA.UncancellableAgentError) for e in leaves)
        allowed = allowed or type(ended.error).__name__ == "StoreError"
        assert allowed or ended.error is None, (workload, ended)
        over = ended.result is None or ended.result.status != "completed"
        assert over or (when == "after" and site.name.startswith(AFTER_THE_END)), workload


def test_the_harness_finds_a_runtime_that_hides_a_fault() -> None:
    """Known bad: a copy whose fan-out drops what its branches failed with."""

    async def hides(pa: Any, session: Any) -> Any:
        try:
            return await WORKLOADS[0](pa, session)
        except Fault:
            return await WORKLOADS[0](pa, session)

    site = next(site for site in FAULTS.sites if "SequentialAgent.run" in site.name)
    ended = faulted(hides, site, "before", 1)
    assert ended is not None
    assert not shows(ended)


def test_the_harness_finds_a_runtime_that_hangs() -> None:
    async def hangs(pa: Any, session: Any) -> Any:
        with trio.CancelScope(shield=True), trio.move_on_after(2 * HORIZON):
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()

    assert perform(hangs).hung
