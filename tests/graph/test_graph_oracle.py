"""The oracle by hand; and bugs, planted one at a time, that the properties must find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import attrs
import pytest
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyFailure

from parallel_agent import BestEffort, FailFast, WaitAll
from parallel_agent.graph import engine
from parallel_agent.graph.definition import Link, Loop
from parallel_agent.graph.engine import run_graph as right_run_graph
from parallel_agent.graph.progress import Progress, Start
from parallel_agent.graph.routes import Route, Said
from parallel_agent.workflow import graph
from tests.graph.drawn_graphs import Allowed, forks, nets, rings
from tests.graph.graph_oracle import (
    After,
    Back,
    Beside,
    Chain,
    Cond,
    Leaf,
    Net,
    TieError,
    Turn,
    Way,
    expect,
)
from tests.graph.test_graph_properties import PATIENT, agrees, limited

# The oracle by hand.


def _leaf(name: str, beats: int = 1, **options: Any) -> Leaf:
    return Leaf(name, (Turn(beats, **options),))


def _net(names: str, *ways: Way, **options: Any) -> Net:
    return Net("g", tuple(_leaf(name) for name in names), ways, **options)


def _starts(net: Net) -> dict[str, float]:
    return {path[2:]: began.at for path, began in expect(net).began.items() if path != "g"}


def test_the_oracle_knows_that_nodes_start_when_their_own_sources_have_ended() -> None:
    nodes = (_leaf("a"), _leaf("b", 5), _leaf("c"), _leaf("d"))
    ways = (Chain((("a",), ("b", "c"), ("d",))),)
    assert _starts(Net("g", nodes, ways)) == {"a": 0, "b": 1, "c": 1, "d": 6}


def test_the_oracle_knows_that_what_nobody_leads_to_is_skipped_and_its_join_is_not() -> None:
    ways = (
        Cond("a", ("b",), ("x",)),
        Cond("a", ("c",), None),
        Chain((("b",), ("d",))),
        Chain((("c",), ("d",))),
    )
    life = expect(_net("abcd", *ways))
    assert [path for path, _, _ in life.ends] == ["g/a", "g/c", "g/d"]
    assert life.began["g/d"].input == {"c": "c:1"}


def test_the_oracle_knows_that_what_leaves_a_loop_waits_until_it_is_over() -> None:
    ways = (Chain((("a",), ("b",), ("c",))), Chain((("a",), ("d",))), Back("b", "a", 2))
    life = expect(_net("abcd", *ways))
    assert {path: began.at for path, began in life.began.items() if "@" not in path} == {
        "g": 0,
        "g/a": 0,
        "g/b": 1,
        "g/c": 6,
        "g/d": 6,
    }
    assert life.began["g/a@3"].input == "b:2"
    assert life.output == {"c": "c:1", "d": "d:1"}


def test_the_oracle_knows_who_sees_whom() -> None:
    nodes = tuple(_leaf(name, says=1) for name in "abc")
    life = expect(Net("g", nodes, (Chain((("a",), ("c",))), After((), ()))))
    assert {path for path, _ in life.began["g/c"].saw} == {"g/a"}


def test_the_oracle_knows_that_the_first_failure_cancels_the_others() -> None:
    bad = Leaf("a", (Turn(1, end="fails"),), grain=0.5)
    life = expect(Net("g", (bad, _leaf("b", 9), _leaf("c")), (Chain((("c",), ("d",))),)[:0]))
    assert life.ends == (
        ("g/a", "failed", None),
        ("g/b", "cancelled", None),
        ("g/c", "completed", "c:1"),
    )
    assert (life.end, life.failure) == (1.5, ("BoomError", "g/a"))


def test_the_oracle_knows_that_a_failure_counts_as_skipped_where_the_others_go_on() -> None:
    bad = Leaf("a", (Turn(1, end="fails"),))
    ways = (Chain((("a", "b"), ("c",))), Chain((("a",), ("d",))))
    nodes = (bad, _leaf("b"), _leaf("c"), _leaf("d"))
    life = expect(Net("g", nodes, ways, BestEffort()))
    assert [path for path, _, _ in life.ends] == ["g/a", "g/b", "g/c"]
    failed = expect(Net("g", nodes, ways, WaitAll())).failure
    assert failed == ("group", (("BoomError", "g/a"),))


def test_the_oracle_does_not_guess_who_is_first() -> None:
    bad = Leaf("a", (Turn(1, end="fails"),))
    with pytest.raises(TieError):
        expect(Beside("p", (bad, _leaf("b")), FailFast()))


# Bugs, planted one at a time.

Plant: TypeAlias = Callable[[pytest.MonkeyPatch], None]
Check: TypeAlias = Callable[[Net], None]


def _fires_on_the_first_source(patch: pytest.MonkeyPatch) -> None:
    right = Progress._decide

    def decide(self: Progress, link: Link, taken: bool, settled: Any) -> None:  # noqa: FBT001
        if taken and not link.gates and self._undecided[link.target] > 1:
            self._undecided[link.target] = 1
        right(self, link, taken, settled)

    patch.setattr(Progress, "_decide", decide)


def _waits_for_its_level(patch: pytest.MonkeyPatch) -> None:
    ready, completed, ended = Progress.ready, Progress.completed, Progress.ended
    running: dict[Progress, set[int]] = {}

    def ready_when_all_have_ended(self: Progress) -> list[Start]:
        if running.get(self):
            return []
        starts = ready(self)
        running[self] = {start.node for start in starts}
        return starts

    def completes(self: Progress, node: int, said: Said) -> None:
        running[self].discard(node)
        completed(self, node, said)

    def ends(self: Progress, node: int) -> None:
        running[self].discard(node)
        ended(self, node)

    patch.setattr(Progress, "ready", ready_when_all_have_ended)
    patch.setattr(Progress, "completed", completes)
    patch.setattr(Progress, "ended", ends)


def _exits_leak_early(patch: pytest.MonkeyPatch) -> None:
    right = Progress._decide

    def decide(self: Progress, link: Link, taken: bool, settled: Any) -> None:  # noqa: FBT001
        right(self, attrs.evolve(link, gates=()), taken, settled)

    patch.setattr(Progress, "_decide", decide)


def _inputs_in_the_order_of_ending(patch: pytest.MonkeyPatch) -> None:
    right = Progress._start

    def start(self: Progress, node: int) -> Start:
        made = right(self, node)
        is_back = node in self._fed_back
        return made if is_back else attrs.evolve(made, links=tuple(self._fed[node]))

    patch.setattr(Progress, "_start", start)


def _skipped_sources_block(patch: pytest.MonkeyPatch) -> None:
    right = Progress._decide

    def decide(self: Progress, link: Link, taken: bool, settled: Any) -> None:  # noqa: FBT001
        if taken or link.source not in self.skipped:
            right(self, link, taken, settled)

    patch.setattr(Progress, "_decide", decide)


def _failed_sources_feed(patch: pytest.MonkeyPatch) -> None:
    def ended(self: Progress, node: int) -> None:
        self.completed(node, Said(None))

    patch.setattr(Progress, "ended", ended)


def _an_output_of_an_earlier_round(patch: pytest.MonkeyPatch) -> None:
    def ended(self: Progress, node: int) -> None:
        self._settle([(node, set())])

    patch.setattr(Progress, "ended", ended)


def _siblings_visible(patch: pytest.MonkeyPatch) -> None:
    right = Progress._start

    def start(self: Progress, node: int) -> Start:
        made = right(self, node)
        return attrs.evolve(made, after=(1 << self._started - 1) - 1)

    patch.setattr(Progress, "_start", start)


def _sources_of_sources_invisible(patch: pytest.MonkeyPatch) -> None:
    right = Progress._decide

    def decide(self: Progress, link: Link, taken: bool, settled: Any) -> None:  # noqa: FBT001
        self._after[link.source] = 0
        right(self, link, taken, settled)

    patch.setattr(Progress, "_decide", decide)


def _outcomes_in_the_order_of_starting(patch: pytest.MonkeyPatch) -> None:
    def close(self: Any) -> Any:
        return self._crew.join((at, task) for at, (_, task) in enumerate(self._started))

    patch.setattr(engine._GraphRun, "close", close)


def _inner_loops_spent_for_good(patch: pytest.MonkeyPatch) -> None:
    right = Progress._go_back

    def go_back(self: Progress, loop: Loop) -> None:
        times = dict(self._times)
        right(self, loop)
        self._times = {**times, **self._times}

    patch.setattr(Progress, "_go_back", go_back)


def _loops_once_too_often(patch: pytest.MonkeyPatch) -> None:
    right = Progress._go_back

    def go_back(self: Progress, loop: Loop) -> None:
        before = self._times.get(loop.number)
        right(self, loop)
        if before is None:
            self._times[loop.number] = 0

    patch.setattr(Progress, "_go_back", go_back)


def _the_first_input_again(patch: pytest.MonkeyPatch) -> None:
    right = Progress._go_back

    def go_back(self: Progress, loop: Loop) -> None:
        right(self, loop)
        self._fed_back.clear()

    patch.setattr(Progress, "_go_back", go_back)


def _defaults_always(patch: pytest.MonkeyPatch) -> None:
    right = Route.taken

    def taken(self: Route, said: Said, spent: Any) -> set[int]:
        others = [set(case.links) - spent for case in self.cases if case.condition is None]
        return right(self, said, spent).union(*others)

    patch.setattr(Route, "taken", taken)


def _a_truth_is_a_one(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("parallel_agent.graph.routes.same", lambda one, other: one == other)


def _no_limit(patch: pytest.MonkeyPatch) -> None:
    async def run_graph(owner: Any, definition: Any, **options: Any) -> Any:
        return await right_run_graph(owner, definition, **{**options, "max_concurrency": None})

    patch.setattr(graph, "run_graph", run_graph)


def _a_place_lost(patch: pytest.MonkeyPatch) -> None:
    right = engine._GraphRun._decide

    def decide(self: Any, start: Start, outcome: Any, route: Any) -> None:
        if outcome.error is not None and self._places is not None:
            self._places -= 1
        right(self, start, outcome, route)

    patch.setattr(engine._GraphRun, "_decide", decide)


_CALM: Final = Allowed(failures=False, escalations=False, breaks=False, composites=False, nodes=7)
_ANY: Final = nets(_CALM)
_PATIENT: Final = nets(attrs.evolve(PATIENT, composites=False, nodes=7))


def _limited(net: Net) -> None:
    limited(net, 2)


FOUND: Final[list[tuple[Plant, st.SearchStrategy[Net], Check]]] = [
    (_fires_on_the_first_source, _ANY, agrees),
    (_waits_for_its_level, _ANY, agrees),
    (_exits_leak_early, rings(), agrees),
    (_inputs_in_the_order_of_ending, _ANY, agrees),
    (_skipped_sources_block, _ANY, agrees),
    (_failed_sources_feed, _PATIENT, agrees),
    (_an_output_of_an_earlier_round, rings(), agrees),
    (_siblings_visible, _ANY, agrees),
    (_sources_of_sources_invisible, _ANY, agrees),
    (_outcomes_in_the_order_of_starting, _ANY, agrees),
    (_inner_loops_spent_for_good, rings(), agrees),
    (_loops_once_too_often, rings(), agrees),
    (_the_first_input_again, rings(), agrees),
    (_defaults_always, forks(), agrees),
    (_a_truth_is_a_one, forks(), agrees),
    (_no_limit, _ANY, _limited),
    (_a_place_lost, _PATIENT, _limited),
]


# A broken graph leaves coroutines behind; that is not what is tested.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("plant", "drawn", "check"),
    [pytest.param(*row, id=row[0].__name__.strip("_")) for row in FOUND],
)
def test_the_properties_find(
    plant: Plant, drawn: st.SearchStrategy[Net], check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    fixed = settings(
        max_examples=1_000,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    # An assertion; or the run hangs, or what is decided twice breaks the engine.
    with pytest.raises((AssertionError, trio.TrioInternalError, FlakyFailure)):
        fixed(given(drawn)(check))()
