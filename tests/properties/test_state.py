"""State: who sees which write when, and what the log makes of them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    Event,
    EventActions,
    FrozenValueError,
    InMemorySessionService,
    InvocationContext,
    ParallelAgent,
    Result,
    Runner,
    SequentialAgent,
    StateConflictError,
    StateError,
    agent,
)
from tests.support import laws
from tests.support.drawing import ANYTHING, CALM, Allowed, cases, fewer, kept_cases, trees
from tests.support.oracle import expect, observed
from tests.support.recording import Looked, Wrote
from tests.support.running import START, Case, Reader, Report, perform
from tests.support.scripts import (
    Beside,
    Chain,
    Cleanup,
    Contribute,
    Emit,
    Fan,
    Leaf,
    Look,
    Node,
    Pause,
    Step,
    Within,
    Write,
    steps_of,
)
from tests.support.stores import SlowStore
from tests.support.timing import clock_with_horizon

WRITING = attrs.evolve(ANYTHING, failures=False, escalations=False, outputs=False)


def _seen(report: Report, path: str) -> list[dict[str, Any]]:
    """Return what each look of an activation showed, without what was there from the start."""
    return [
        {key: value for key, value in entry.state.items() if START.get(key) != value}
        for entry in report.notebook.entries
        if isinstance(entry, Looked) and entry.path == path
    ]


def _deltas(report: Report) -> list[tuple[str, dict[str, Any]]]:
    return [(event.text, dict(event.state_delta)) for event in report.events]


def _run(
    tree: Agent, *, store: SlowStore | None = None, pause: float = 0, **options: Any
) -> tuple[Result, list[Event]]:
    """Run agents that are no drawn tree, on virtual time."""

    async def main() -> tuple[Result, list[Event]]:
        got = []
        runner = Runner(tree, session_service=store, clock=lambda: 0.0, **options)
        async with runner.open() as run:
            async for event in run:
                got.append(event)
                await trio.sleep(pause)
        return run.result, got

    return trio.run(main, clock=clock_with_horizon())


# Who sees what: three layers, by brute force.


@fewer(2)
@given(cases(trees(WRITING)))
def test_every_look_shows_shared_then_in_flight_then_pending_writes(case: Case) -> None:
    laws.a_branch_sees_state_as_it_should(perform(case))


@fewer(2)
@given(kept_cases(trees(attrs.evolve(WRITING, kept=True))))
def test_every_look_shows_the_state_that_the_oracle_says(case: Case) -> None:
    assert observed(perform(case)).looks == expect(case).looks


@fewer(2)
@given(kept_cases())
def test_the_final_state_is_what_the_oracle_says(case: Case) -> None:
    assert observed(perform(case)).state == expect(case).state


@fewer(2)
@given(st.sampled_from(["k", "temp:k", "user:k", "app:k"]), st.integers(0, 2))
def test_a_branch_reads_its_own_write_at_once_and_after_every_event(key: str, pause: int) -> None:
    steps: list[Step] = [
        Write(key, 1),
        Look(),
        Emit(),
        Look(),
        Pause(pause),
        Write(key, 2),
        Look(),
        Emit(),
        Look(),
    ]
    report = perform(Case(Leaf("a", steps), Reader((pause,))))
    assert [look[key] for look in _seen(report, "a")] == [1, 1, 2, 2]


def test_a_sibling_sees_a_write_when_its_event_is_handed_out_and_not_before() -> None:
    """The store takes from 0 to 4; `a`'s event is handed out at 4."""
    watching: list[Step] = [Look(), Pause(3), Look(), Pause(2), Look()]
    report = perform(Case(Fan("p", [Leaf("a", [Emit({"x": 7})]), Leaf("b", watching)]), store=(4,)))
    assert _seen(report, "p/b") == [{}, {}, {"x": 7}]


def test_a_pending_write_is_seen_by_nobody_else() -> None:
    tree = Fan(
        "p", [Leaf("a", [Write("x", 7), Pause(3)]), Leaf("b", [Pause(1), Look(), Pause(4), Look()])]
    )
    assert _seen(perform(Case(tree)), "p/b") == [{}, {"x": 7}]


def test_a_write_in_flight_is_seen_by_its_own_branch() -> None:
    watching = Beside([Pause(1), Look()], [Emit({"x": 7})])
    assert _seen(perform(Case(Leaf("a", [watching]), store=(4,))), "a") == [{"x": 7}]


def test_a_write_pending_hides_one_in_flight() -> None:
    watching = Beside([Pause(1), Write("x", 8), Look()], [Emit({"x": 7})])
    assert _seen(perform(Case(Leaf("a", [watching]), store=(4,))), "a") == [{"x": 8}]


def test_a_write_in_flight_hides_what_others_have_recorded_until_it_is_handed_out() -> None:
    """`a` and `b` wait for the reader from 1 and 2 on; they are handed out at 5 and at 8."""
    tree = Fan(
        "p",
        [
            Leaf("a", [Pause(1), Emit({"x": 1})]),
            Leaf("b", [Pause(2), Beside([Pause(4), Look()], [Emit({"x": 2})])]),
            Leaf("c", [Emit(), Pause(2), Look(), Pause(3), Look()]),
        ],
    )
    report = perform(Case(tree, Reader((3,)), store=(1,)))
    assert _seen(report, "p/b") == [{"x": 2}]
    assert _seen(report, "p/c") == [{"x": 1}, {"x": 2}]


def test_a_contribution_in_flight_does_not_show_a_siblings() -> None:
    """Both contributions are in one batch, which takes until 4: nothing is handed out before."""
    steps: list[Step] = [Contribute("sum", 1), Emit()]
    tree = Fan("p", [Leaf("a", steps), Leaf("b", [Beside([Pause(1), Look()], steps)])])
    report = perform(Case(tree, store=(4,)))
    assert report.batch_sizes[0] == 2
    assert _seen(report, "p/b") == [{"sum": 1}]


# What is recorded: each write once, with the next event.


@fewer(2)
@given(cases(trees(WRITING)))
def test_each_write_is_recorded_once_with_the_next_event(case: Case) -> None:
    laws.a_write_is_recorded_once_with_the_next_event(perform(case))


@fewer(2)
@given(cases(trees(attrs.evolve(CALM, timeouts=True))))
def test_every_contribution_counts_exactly_once_whatever_inner_timeouts_do(case: Case) -> None:
    """A timeout may take back an event, and then the writes it took along, but never lose one."""
    report = perform(attrs.evolve(case, reader=attrs.evolve(case.reader, way="end")))
    told = [entry for entry in report.notebook.entries if isinstance(entry, Wrote)]
    recorded = [call for call in report.notebook.calls if call.event.seq is not None]
    total = sum(entry.value for entry in told if entry.key == "sum")
    total += sum(call.delta.get("sum", 0) for call in recorded)
    assert report.result.state.get("sum", 0) == total
    assert len(report.result.state.get("all", [])) == len([e for e in told if e.key == "all"])


@fewer(2)
@given(st.integers(1, 4), st.floats(0, 3), st.sampled_from([None, (1,), (0.5, 2)]))
def test_a_timeout_while_the_event_waits_neither_loses_nor_doubles_its_delta(
    timeout: int, pause: float, store: tuple[float, ...] | None
) -> None:
    """It expires while the event is queued, drained or handed out, as it happens."""
    busy = Leaf("busy", [Emit()] * 4)
    steps: list[Step] = [
        Contribute("sum", 1),
        Write("x", 5),
        Within(timeout, [Emit()]),
        Look(),
        Emit(),
    ]
    report = perform(Case(Fan("p", [busy, Leaf("a", steps)]), Reader((pause,)), store))
    assert report.result.state["sum"] == 1
    assert [delta for _, delta in _deltas(report) if delta] == [{"x": 5, "sum": 1}]
    assert [look["x"] for look in _seen(report, "p/a")] == [5]


def test_a_withdrawn_write_is_pending_again_and_goes_with_the_next_event() -> None:
    tree = Fan(
        "p",
        [
            Leaf("a", [Emit()]),
            Leaf("b", [Pause(1), Write("x", 5), Within(1, [Emit()]), Look(), Emit()]),
        ],
    )
    report = perform(Case(tree, Reader((9,))))
    assert _seen(report, "p/b") == [{"x": 5}]
    assert _deltas(report) == [("a.1", {}), ("b.3", {"x": 5}), ("", {})]


def test_a_withdrawn_write_does_not_hide_a_later_one() -> None:
    emits = Beside([Pause(1), Write("x", 6)], [Within(2, [Emit()])])
    tree = Fan(
        "p", [Leaf("a", [Emit()]), Leaf("b", [Pause(1), Write("x", 5), emits, Look(), Emit()])]
    )
    report = perform(Case(tree, Reader((9,))))
    assert _seen(report, "p/b") == [{"x": 6}]
    assert dict(report.events[1].state_delta) == {"x": 6}


def test_what_an_event_itself_says_goes_with_it_when_it_is_withdrawn() -> None:
    tree = Fan(
        "p", [Leaf("a", [Emit()]), Leaf("b", [Pause(1), Within(1, [Emit({"x": 5})]), Look()])]
    )
    report = perform(Case(tree, Reader((9,))))
    assert _seen(report, "p/b") == [{}]
    assert report.result.state["x"] == START["x"]


def test_pending_writes_are_recorded_by_an_event_of_their_own_at_the_end() -> None:
    report = perform(Case(Leaf("a", [Emit(), Write("x", 1), Write("y", 2)])))
    assert _deltas(report) == [("a.1", {}), ("", {"x": 1, "y": 2})]
    assert report.events[1].author == "a"


def test_pending_writes_are_recorded_before_a_child_starts() -> None:
    @agent
    async def child(ctx: InvocationContext) -> str:
        return f"x is {ctx.state['x']} in {len(ctx.history())} events"

    class Parent(Agent):
        async def run(self, ctx: InvocationContext) -> None:
            ctx.state["x"] = 1
            await ctx.run_agent(child)

    result, events = _run(Parent("parent"))
    assert [dict(event.state_delta) for event in events] == [{"x": 1}, {}]
    assert result.text == "x is 1 in 1 events"


@fewer(2)
@given(cases(trees(attrs.evolve(WRITING, partial=True))))
def test_a_partial_event_records_nothing_and_takes_no_writes_along(case: Case) -> None:
    report = perform(case)
    for event in report.delivered:
        assert not event.partial or event.seq is None
    laws.a_write_is_recorded_once_with_the_next_event(report)


def test_a_partial_event_with_a_contribution_counts_for_nothing() -> None:
    """Not even for the event that is drained right after it, in the same batch."""
    tree = Fan(
        "p",
        [
            Leaf("a", [Pause(1), Emit({"sum": 1}, partial=True)]),
            Leaf("b", [Pause(2), Emit({"sum": 1})]),
            Leaf("c", [Emit()]),
        ],
    )
    report = perform(Case(tree, store=(3,)))
    assert report.result.state["sum"] == 1


# Writing what is there already.


@fewer(2)
@given(
    st.lists(
        st.sampled_from([0, 1, True, 1.0, 0.0, -0.0, "1", None, [1], [True], {"k": 1}]), max_size=6
    )
)
def test_only_a_value_that_differs_as_json_is_a_write(values: list[Any]) -> None:
    tree = Leaf("a", [step for value in values for step in (Write("k", value), Emit())])
    report = perform(Case(tree))
    expected, before = [], object()
    for value in values:
        changed = repr(value) != repr(before)
        expected.append([repr(value)] if changed else [])
        before = value
    assert [[repr(v) for v in delta.values()] for _, delta in _deltas(report)] == expected


def test_writing_back_what_is_pending_is_no_second_write() -> None:
    report = perform(Case(Leaf("a", [Write("k", 1), Write("k", 1), Emit(), Write("k", 1)])))
    assert _deltas(report) == [("a.1", {"k": 1})]


# Branches that write the same key.


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("b", "a")])
def test_record_order_decides_not_the_order_of_assignment(first: str, second: str) -> None:
    """Both assign at 0, `a` first; the one that emits later wins."""
    emits_at = {first: 1, second: 2}
    tree = Fan(
        "p", [Leaf(name, [Write("x", name), Pause(emits_at[name]), Emit()]) for name in "ab"]
    )
    assert perform(Case(tree)).result.state["x"] == second


@fewer(2)
@given(cases(trees(WRITING)))
def test_the_state_in_the_end_is_what_was_recorded_last(case: Case) -> None:
    report = perform(case)
    last = dict(START)
    for event in report.events:
        last.update(event.state_delta)
    assert dict(report.result.state) == last


@fewer(2)
@given(
    kept_cases(
        trees(Allowed(kept=True, reducers=False, temporary=False, failures=False)),
        on_conflict="error",
    )
)
def test_a_conflict_is_found_where_the_oracle_finds_it_and_nowhere_else(case: Case) -> None:
    report = perform(case)
    assert observed(report).failure == expect(case).failure
    assert observed(report).log == expect(case).log


def _writing(key: str, value: Any, *, at: int) -> list[Any]:
    return [Pause(at), Emit({key: value})]


def test_a_conflict_names_the_key_and_both_branches_in_record_order() -> None:
    tree = Fan("p", [Leaf("a", _writing("k", 1, at=2)), Leaf("b", _writing("k", 2, at=1))])
    report = perform(Case(tree, on_conflict="error"))
    assert isinstance(report.error, StateConflictError)
    assert (report.error.key, report.error.branches) == ("k", ("p.b", "p.a"))
    assert "p.a" in str(report.error)
    assert "p.b" in str(report.error)
    assert report.result.state["k"] == 2


@pytest.mark.parametrize("store", [None, (1,)])
def test_a_conflict_is_raised_at_the_yield_of_the_later_and_its_event_not_recorded(
    store: tuple[float, ...] | None,
) -> None:
    """Also when both events are drained together."""
    tree = Fan("p", [Leaf(name, [Emit({"k": name})]) for name in "ab"])
    report = perform(Case(tree, store=store, on_conflict="error"))
    texts = [event.text for event in report.events]
    assert len(texts) == 2
    assert texts[0] in ("a.1", "b.1")
    assert isinstance(report.error, StateConflictError)


def test_the_loser_of_a_conflict_may_go_on_and_write_something_else() -> None:
    @agent
    async def first(ctx: InvocationContext) -> None:
        ctx.state["k"] = 1

    @agent
    async def second(ctx: InvocationContext) -> Any:
        await trio.sleep(1)
        ctx.state["k"] = 2
        try:
            yield "refused"
        except StateConflictError:
            ctx.state["other"] = 3
            yield "recorded"

    result, events = _run(ParallelAgent("p", [first, second]), on_conflict="error")
    assert [event.text for event in events] == ["", "recorded", ""]
    assert dict(result.state) == {"k": 1, "other": 3}


@pytest.mark.parametrize(
    "tree",
    [
        Leaf("a", [Emit({"k": 1}), Emit({"k": 2})]),
        Chain("s", [Leaf("a", [Emit({"k": 1})]), Fan("p", [Leaf("b", [Emit({"k": 2})])])]),
        Chain("s", [Fan("p", [Leaf("a", [Emit({"k": 1})])]), Leaf("b", [Emit({"k": 2})])]),
        Fan("p", [Leaf("a", [Emit({"k": 1})]), Leaf("b", [Pause(1), Emit({"j": 2})])]),
    ],
    ids=["same branch", "written before the fork", "written before the join", "another key"],
)
def test_a_write_that_is_visible_or_elsewhere_is_no_conflict(tree: Node) -> None:
    assert perform(Case(tree, on_conflict="error")).error is None


def test_a_conflict_with_a_branch_that_has_ended_unseen_is_a_conflict_as_well() -> None:
    tree = Fan("p", [Leaf("a", [Emit({"k": 1})]), Leaf("b", [Pause(5), Emit({"k": 2})])])
    assert isinstance(perform(Case(tree, on_conflict="error")).error, StateConflictError)


@fewer(2)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=5), st.random_module())
def test_contributions_are_no_conflicts(values: list[int], seed: object) -> None:
    leaves = [
        Leaf(f"a{index}", [Contribute("sum", value), Emit()]) for index, value in enumerate(values)
    ]
    report = perform(Case(Fan("p", leaves), on_conflict="error"))
    assert report.error is None
    assert report.result.state["sum"] == sum(values)


# Reducers.


@fewer(2)
@given(cases(trees(attrs.evolve(CALM, state=False))))
def test_a_reducer_loses_nothing_whoever_runs_beside(case: Case) -> None:
    report = perform(attrs.evolve(case, reader=attrs.evolve(case.reader, way="end")))
    told = [
        step for path in _activations(case.tree) for step in path if isinstance(step, Contribute)
    ]
    said = [step for path in _activations(case.tree) for step in path if isinstance(step, Emit)]
    total = sum(step.value for step in told if step.key == "sum")
    total += sum(step.delta.get("sum", 0) for step in said if not step.partial)
    assert report.result.state.get("sum", 0) == total
    everything = sorted(step.value for step in told if step.key == "all")
    assert sorted(report.result.state.get("all", [])) == everything


def _activations(tree: Node, times: int = 1) -> list[list[Any]]:
    """Return the steps of every activation of a leaf, loops unrolled."""
    if isinstance(tree, Leaf):
        return [list(steps_of(tree.steps))] * times
    times *= getattr(tree, "iterations", 1)
    return [steps for child in tree.children for steps in _activations(child, times)]


def test_contributions_are_combined_in_record_order() -> None:
    tree = Fan(
        "p",
        [
            Leaf("a", [Contribute("all", "a"), Pause(2), Emit()]),
            Leaf("b", [Contribute("all", "b"), Pause(1), Emit()]),
        ],
    )
    report = perform(Case(tree))
    assert report.result.state["all"] == ["b", "a"]
    assert [delta for _, delta in _deltas(report)] == [{"all": ["b"]}, {"all": ["b", "a"]}, {}]


def test_a_stored_delta_holds_the_result_and_not_the_contribution() -> None:
    report = perform(Case(Leaf("a", [Contribute("sum", 2), Emit(), Contribute("sum", 3), Emit()])))
    assert [delta for _, delta in _deltas(report)] == [{"sum": 2}, {"sum": 5}]


def test_a_key_with_a_reducer_cannot_be_assigned() -> None:
    @agent
    async def assigns(ctx: InvocationContext) -> None:
        ctx.state["sum"] = 1

    with pytest.raises(StateError, match=r"ctx\.state\.contribute\('sum', value\)"):
        _run(assigns, reducers={"sum": "add"})


def test_a_key_without_a_reducer_cannot_be_contributed_to() -> None:
    @agent
    async def contributes(ctx: InvocationContext) -> None:
        ctx.state.contribute("k", 1)

    with pytest.raises(StateError, match="has no reducer"):
        _run(contributes)


def test_a_function_is_a_reducer() -> None:
    @agent
    async def contributes(ctx: InvocationContext) -> None:
        for word in ("one", "two"):
            ctx.state.contribute("words", word)

    result, _ = _run(contributes, reducers={"words": lambda now, more: f"{now or ''}<{more}>"})
    assert result.state["words"] == "<one><two>"


def test_a_reducer_that_fails_fails_the_contributing_branch_and_records_nothing() -> None:
    @agent
    async def contributes(ctx: InvocationContext) -> None:
        ctx.state.contribute("sum", "no number")

    @agent
    async def counts(ctx: InvocationContext) -> None:
        ctx.state.contribute("sum", 1)

    tree = SequentialAgent("s", [counts, contributes])
    with pytest.raises(TypeError):
        _run(tree, reducers={"sum": "add"})


# Values cannot be changed in place.


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)

_CHANGES: dict[type, list[Callable[[Any], object]]] = {
    list: [
        lambda value: value.append(1),
        lambda value: value.extend([1]),
        lambda value: value.insert(0, 1),
        lambda value: value.sort(),
        lambda value: value.clear(),
        lambda value: value.__setitem__(slice(None), [1]),
        lambda value: value.__iadd__([1]),
    ],
    dict: [
        lambda value: value.__setitem__("k", 1),
        lambda value: value.update(k=1),
        lambda value: value.setdefault("k", 1),
        lambda value: value.clear(),
        lambda value: value.__ior__({"k": 1}),
        lambda value: value.popitem(),
    ],
}


def _containers(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [value, *(inner for item in value.values() for inner in _containers(item))]
    if isinstance(value, list):
        return [value, *(inner for item in value for inner in _containers(item))]
    return []


@fewer(2)
@given(_JSON, st.sampled_from(["pending", "recorded"]), st.data())
def test_no_value_read_from_state_can_be_changed_in_place(
    value: Any, when: str, data: st.DataObject
) -> None:
    @agent
    async def changes(ctx: InvocationContext) -> Any:
        ctx.state["k"] = value
        if when == "recorded":
            yield "recorded"
        read = ctx.state["k"]
        assert read == value
        for container in _containers(read):
            assert isinstance(container, list | dict)
            kind = list if isinstance(container, list) else dict
            change = data.draw(st.sampled_from(_CHANGES[kind]))
            with pytest.raises(FrozenValueError, match=r'ctx\.state\["key"\] = '):
                change(container)
        assert ctx.state["k"] == value

    result, _ = _run(changes)
    assert result.state["k"] == value


def test_what_a_write_was_made_of_is_not_what_is_kept() -> None:
    mine = {"list": [1]}

    @agent
    async def writes(ctx: InvocationContext) -> Any:
        ctx.state["k"] = mine
        mine["list"].append(2)
        yield Event(actions=EventActions(state_delta={"j": mine}))
        mine["list"].append(3)

    result, _ = _run(writes)
    assert dict(result.state) == {"k": {"list": [1]}, "j": {"list": [1, 2]}}


# Scopes.


@fewer(2)
@given(cases(trees(WRITING)))
def test_temporary_keys_are_in_no_log_and_no_store(case: Case) -> None:
    laws.temporary_keys_are_never_stored(perform(case))


def test_a_temporary_key_is_seen_by_siblings_and_later_agents_of_the_run() -> None:
    fan = Fan("p", [Leaf("a", [Emit({"temp:t": 1})]), Leaf("b", [Pause(1), Look()])])
    report = perform(Case(Chain("s", [fan, Leaf("c", [Look()])])))
    assert _seen(report, "s/p/b") == [{"temp:t": 1}]
    assert _seen(report, "s/c") == [{"temp:t": 1}]


def test_a_temporary_key_is_gone_in_the_next_run() -> None:
    seen: list[object] = []

    @agent
    async def looks(ctx: InvocationContext) -> None:
        seen.append(ctx.state.get("temp:t"))
        ctx.state["temp:t"] = 1

    async def main() -> None:
        runner = Runner(looks, session_service=InMemorySessionService())
        for _ in range(2):
            await runner.run(session_id="s")

    trio.run(main, clock=clock_with_horizon())
    assert seen == [None, None]


@pytest.mark.parametrize(
    ("key", "other_session", "other_user"), [("k", 0, 0), ("user:k", 1, 0), ("app:k", 1, 1)]
)
def test_a_key_is_shared_as_far_as_its_prefix_says(
    key: str, other_session: int, other_user: int
) -> None:
    @agent
    async def counts(ctx: InvocationContext) -> int:
        before: int = ctx.state.get(key, 0)
        ctx.state[key] = before + 1
        return before

    async def main() -> list[object]:
        runner = Runner(counts)
        places = [("u", "s"), ("u", "t"), ("v", "s")]
        return [(await runner.run(user_id=u, session_id=s)).output for u, s in places]

    outputs = trio.run(main, clock=clock_with_horizon())
    assert outputs == [0, other_session, other_user and other_session + 1]


def test_a_shielded_cleanup_takes_the_pending_writes_along() -> None:
    tree = Fan(
        "p",
        [
            Leaf("a", [Cleanup([Write("x", 5), Pause(9)], [Emit()], shielded=True)]),
            Leaf("b", [Pause(1), Emit()]),
        ],
    )
    report = perform(Case(tree, Reader(way="run.cancel", at=1)))
    assert _deltas(report) == [("b.1", {}), ("a.1", {"x": 5})]
