"""What a branch sees: its own line, what was there when it was forked, what has joined it."""

from __future__ import annotations

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import Event, InMemorySessionService, InvocationContext, Runner, agent
from tests.support import laws
from tests.support.drawing import (
    CALM,
    Allowed,
    cases,
    fewer,
    kept_cases,
    leaves,
    readers,
    stores,
    trees,
)
from tests.support.laws import sees
from tests.support.oracle import expect, observed
from tests.support.recording import Looked
from tests.support.running import Case, Reader, perform
from tests.support.scripts import Chain, Emit, Fan, Leaf, Look, Loop, Node, Pause, Step
from tests.support.timing import clock_with_horizon

CONFUSING = ["a", "a_1", "a_10", "a_1_0", "a1", "a10", "A", "_a", "aa", "a_", "b", "ä", "a_11", "l"]
"""Names that are prefixes, suffixes or lookalikes of each other."""

LOOKING = Allowed(state=False, reducers=False, timeouts=False, outputs=False)

confusing_trees = st.permutations(CONFUSING).flatmap(
    lambda names: trees(LOOKING, names=names, depth=3)
)


@fewer(2)
@given(cases(confusing_trees))
def test_a_branch_sees_all_that_was_handed_out_but_for_running_siblings(case: Case) -> None:
    laws.a_branch_sees_what_it_should(perform(case))


@fewer(2)
@given(kept_cases(trees(attrs.evolve(LOOKING, kept=True), depth=3)))
def test_every_look_shows_what_the_oracle_says(case: Case) -> None:
    assert observed(perform(case)).looks == expect(case).looks


@fewer(2)
@given(
    st.lists(st.sampled_from(CONFUSING), min_size=2, max_size=6, unique=True), st.random_module()
)
def test_siblings_with_confusing_names_never_see_each_other(names: list[str], seed: object) -> None:
    steps: list[Step] = [Emit(), Look(), Emit(), Pause(1), Look(), Emit(), Look()]
    report = perform(Case(Fan("fan", [Leaf(name, steps) for name in names])))
    by_seq = {event.seq: event for event in report.events}
    looks = [entry for entry in report.notebook.entries if isinstance(entry, Looked)]
    assert len(looks) == 3 * len(names)
    for look in looks:
        assert {by_seq[seq].path for seq in look.seqs} == {look.path}


@fewer(2)
@given(
    st.permutations(CONFUSING).flatmap(lambda names: trees(LOOKING, names=names)),
    readers(),
    st.random_module(),
)
def test_after_a_join_the_branches_are_seen_in_log_order(
    tree: Node, reader: Reader, seed: object
) -> None:
    calm = Chain("before_and_after", [tree, Leaf("last", [Look()])])
    report = perform(Case(calm, attrs.evolve(reader, way="end")))
    looks = [entry for entry in report.notebook.entries if isinstance(entry, Looked)]
    if looks and looks[-1].path.endswith("/last"):
        assert looks[-1].seqs == tuple(range(1, len(report.events) + 1))


def test_an_iteration_of_a_loop_sees_the_branches_of_the_one_before() -> None:
    fan = Fan("fan", [Leaf("a_1", [Emit(), Look()]), Leaf("a_10", [Pause(1), Emit()])])
    report = perform(Case(Loop("loop", [fan], iterations=2)))
    texts = {event.seq: event.text for event in report.events}
    first, second = (
        [texts[seq] for seq in entry.seqs]
        for entry in report.notebook.entries
        if isinstance(entry, Looked)
    )
    assert first == ["a_1.1"]
    assert second == ["a_1.1", "a_10.1", "", "a_1.1"]


def test_a_branch_forked_in_a_branch_does_not_see_its_uncle() -> None:
    inner = Fan("inner", [Leaf("a", [Pause(2), Look()]), Leaf("b", [Emit()])])
    nephew = Chain("nephew", [Leaf("c", [Emit()]), inner, Leaf("d", [Look()])])
    report = perform(Case(Fan("outer", [Leaf("uncle", [Emit(), Pause(9)]), nephew])))
    texts = {event.seq: event.text for event in report.events}
    seen = {
        entry.path: [texts[seq] for seq in entry.seqs]
        for entry in report.notebook.entries
        if isinstance(entry, Looked)
    }
    assert seen == {"outer/nephew/inner/a": ["c.1"], "outer/nephew/d": ["c.1", "b.1", ""]}


def test_what_earlier_runs_recorded_is_seen_by_every_branch() -> None:
    seen: list[list[str]] = []

    @agent
    async def look(ctx: InvocationContext) -> str:
        seen.append([event.text for event in ctx.history()])
        return "done"

    async def main() -> None:
        runner = Runner(look, session_service=InMemorySessionService())
        for message in ("one", "two"):
            await runner.run(message, session_id="s")

    trio.run(main, clock=clock_with_horizon())
    assert seen == [["one"], ["one", "done", "two"]]


def test_a_partial_event_is_in_nobodys_history() -> None:
    report = perform(Case(Leaf("a", [Emit(partial=True), Emit(), Look()])))
    (look,) = [entry for entry in report.notebook.entries if isinstance(entry, Looked)]
    assert look.seqs == (1,)


# What a branch records is what it would record alone.


@st.composite
def fans(draw: st.DrawFn, allowed: Allowed) -> Fan:
    """Draw a fan-out of leaves that neither write state nor read what others wrote."""
    own = attrs.evolve(allowed, state=False, reducers=False, timeouts=False, escalations=False)
    count = draw(st.integers(2, 4))
    return Fan("fan", [draw(leaves(name, own)) for name in "abcd"[:count]])


def _recorded(events: tuple[Event, ...], path: str) -> list[tuple[str, str | None, object]]:
    return [(event.text, event.branch, event.output) for event in events if event.path == path]


@fewer(2)
@given(fans(attrs.evolve(CALM, background=False)), readers(), stores(), st.random_module())
def test_a_branch_records_what_it_would_record_alone(
    fan: Fan, reader: Reader, store: tuple[float, ...] | None, seed: object
) -> None:
    together = perform(Case(fan, attrs.evolve(reader, way="end"), store))
    for child in fan.children:
        alone = perform(Case(Fan("fan", [child])))
        path = f"fan/{child.name}"
        assert _recorded(together.events, path) == _recorded(alone.events, path)


@fewer(2)
@given(fans(Allowed(cleanups=False, background=False)), readers(), stores(), st.random_module())
def test_a_cancelled_branch_records_the_beginning_of_what_it_would_record_alone(
    fan: Fan, reader: Reader, store: tuple[float, ...] | None, seed: object
) -> None:
    together = perform(Case(fan, reader, store))
    for child in fan.children:
        alone = _recorded(perform(Case(Fan("fan", [child]))).events, f"fan/{child.name}")
        seen = _recorded(together.events, f"fan/{child.name}")
        assert seen == alone[: len(seen)]


# The model, by hand and on known-bad cases.


@pytest.mark.parametrize(
    ("reader", "writer", "visible"),
    [
        ("s/a", "s/a", True),
        ("s/f/a", "s/f/b", False),
        ("s/f/a_1", "s/f/a_10", False),
        ("s/c", "s/f/b", True),
        ("s/f", "s/f/b", True),
        ("s/f/a", "s/c", True),
        ("l/f@2/a", "l/f@1/b", True),
        ("l/f@2/a", "l/f@2/b", False),
    ],
)
def test_the_model_says_who_sees_whom(reader: str, writer: str, *, visible: bool) -> None:
    branches = Fan("f", [Leaf("a", []), Leaf("b", []), Leaf("a_1", []), Leaf("a_10", [])])
    top = Loop if reader.startswith("l") else Chain
    tree = top(reader[0], [branches, Leaf("c", [])])
    assert sees(tree, reader, writer) is visible


def test_a_look_that_shows_too_much_or_too_little_is_noticed() -> None:
    fan = Fan("f", [Leaf("a", [Emit(), Look()]), Leaf("b", [Emit()])])
    report = perform(Case(fan))
    laws.a_branch_sees_what_it_should(report)
    (place,) = [
        index for index, entry in enumerate(report.notebook.entries) if isinstance(entry, Looked)
    ]
    look = report.notebook.entries[place]
    assert isinstance(look, Looked)
    for wrong in ((), (1, 2)):
        report.notebook.entries[place] = attrs.evolve(look, seqs=wrong)
        with pytest.raises(AssertionError):
            laws.a_branch_sees_what_it_should(report)
