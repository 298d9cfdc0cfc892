"""Scripted agents: what each step does, and what a tree prints as."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import parallel_agent
from parallel_agent import (
    Agent,
    Content,
    Escalate,
    FailFast,
    FirstSuccess,
    InvocationContext,
    Limiter,
    LoopAgent,
    ParallelAgent,
    Quorum,
    Result,
    Retry,
    Runner,
    SequentialAgent,
    Text,
    TreeError,
    WaitAll,
    agent,
)
from parallel_agent.testing import (
    Access,
    DeadlockError,
    Exploration,
    ExplorationError,
    explore,
    run_once,
)
from parallel_agent.testing.recorder import Recorder
from parallel_agent.testing.scripted import (
    ScriptedAgent,
    ScriptStep,
    adds,
    as_code,
    asks,
    calls,
    cleans_up,
    contributes,
    emits,
    escalates,
    outputs,
    raises,
    reads,
    receives,
    scripted,
    signals,
    sleeps,
    transfers_to,
    waits_for,
    within,
    writes,
)

# Not `import ... as`: the package may have a function of the same name.
script_calls = importlib.import_module("parallel_agent.testing.scripted")

NAMES = {**vars(parallel_agent), **vars(script_calls)}
"""What pasted code may name."""


def pasted(code: str) -> Any:
    return eval(code, {**NAMES, "shout": shout})  # noqa: S307  # our own code


def shout(ctx: InvocationContext) -> None:
    """A function to be called by a script."""


def record(tree: Agent | Runner, message: str | None = None) -> Recorder:
    """Run a tree to its end, on virtual time."""
    recorder = Recorder(tree)
    trio.run(recorder.run, message, clock=MockClock(autojump_threshold=0))
    return recorder


def alike(one: Agent, other: Agent) -> bool:
    """Whether two trees are the same, by what they are and not by how they print."""
    return _described(one) == _described(other)


def _described(tree: Agent) -> object:
    options = ("description", "output_key", "retry", "timeout", "idle_timeout")
    own = {"steps", "barrier", "max_concurrency", "max_iterations"}
    return (
        type(tree),
        tree.name,
        [getattr(tree, option) for option in options],
        {option: getattr(tree, option) for option in own if hasattr(tree, option)},
        [_described(child) for child in tree.sub_agents],
    )


# ------------------------------------------------------------------------------- as code

STEPS = [
    emits(),
    emits("a", "b's"),
    emits("a", state_delta={"x": [1, {"y": None}]}, partial=True),
    emits(Content("a")),
    emits(Content((Text("a", thought=True), Text("b")), role=None)),
    outputs({"a": (1, 2.5, True)}),
    outputs(math.inf),
    escalates(),
    escalates("enough"),
    transfers_to("other"),
    writes("app:x", -1),
    adds("n"),
    adds("n", 2),
    contributes("sum", 3),
    reads("x", "y"),
    sleeps(0.5),
    sleeps(math.inf),
    signals("go"),
    waits_for("go"),
    asks("Sure?"),
    asks("Sure?", schema=bool, default=True, timeout=2, key="sure"),
    receives(),
    receives("said"),
    within(2, emits("a"), within(1, sleeps(3))),
    cleans_up(emits("a"), shielded=True),
    cleans_up(),
    raises(ValueError),
    raises(ValueError("it's", 1)),
    raises(ExceptionGroup("two", [ValueError("x"), KeyError("y")])),
    calls(shout),
]


@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_a_step_prints_as_the_call_that_makes_it(step: ScriptStep) -> None:
    again = pasted(repr(step))
    assert again == step
    assert repr(again) == repr(step)


def test_steps_that_print_differently_are_not_equal() -> None:
    for one in STEPS:
        assert [other for other in STEPS if other == one] == [one]


def test_every_step_is_among_those_that_were_tried() -> None:
    made = {step.made_by for step in STEPS}
    assert made | {"scripted", "as_code"} == {
        name for name in script_calls.__all__ if name.islower()
    }


def wide_tree() -> Agent:
    return SequentialAgent(
        "root",
        [
            ParallelAgent(
                "fan",
                [
                    scripted("a", emits("a1"), retry=Retry(2, jitter=0, on=(ValueError, KeyError))),
                    scripted("b", *STEPS[:8], timeout=1, idle_timeout=0.5, output_key="b_out"),
                ],
                barrier=Quorum(2),
                max_concurrency=1,
                retry=Retry(),
            ),
            ParallelAgent("free", [scripted("c")], barrier=Escalate("What now?")),
            ParallelAgent("empty", []),
            LoopAgent("loop", [scripted("d", description="stops")], max_iterations=3),
        ],
        description="all there is",
    )


def test_a_tree_prints_as_the_code_that_makes_it() -> None:
    tree = wide_tree()
    again = pasted(as_code(tree))
    assert alike(again, tree)
    assert as_code(again) == as_code(tree)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (scripted("a"), scripted("b")),
        (scripted("a", emits("x")), scripted("a", emits("y"))),
        (scripted("a", timeout=1), scripted("a", timeout=2)),
        (ParallelAgent("a", []), SequentialAgent("a", [])),
        (ParallelAgent("a", []), ParallelAgent("a", [], barrier=WaitAll())),
        (ParallelAgent("a", [scripted("b")]), ParallelAgent("a", [scripted("c")])),
        (LoopAgent("a", [scripted("b")]), LoopAgent("a", [scripted("b")], max_iterations=1)),
    ],
)
def test_trees_that_differ_print_differently_and_are_not_alike(one: Agent, other: Agent) -> None:
    assert not alike(one, other)
    assert as_code(one) != as_code(other)


def test_short_code_is_one_line_and_long_code_one_line_for_each_argument() -> None:
    tree = ParallelAgent("fan", [scripted("a", emits("x" * 40)), scripted("b")])
    assert as_code(scripted("b", emits("x"))) == "scripted('b', emits('x'))"
    assert as_code(tree).splitlines() == [
        "ParallelAgent(",
        "    'fan',",
        f"    [scripted('a', emits('{'x' * 40}')), scripted('b')],",
        ")",
    ]


@pytest.mark.parametrize(
    "tree",
    [
        agent(shout),
        SequentialAgent("s", [agent(shout)]),
        scripted("a", limiter=Limiter(1)),
    ],
)
def test_what_has_no_code_is_shown_as_something_python_refuses(tree: Agent) -> None:
    with pytest.raises(SyntaxError):
        pasted(as_code(tree))


def test_a_scripted_agent_shows_itself_as_code() -> None:
    assert repr(scripted("a", emits("x"))) == "scripted('a', emits('x'))"


def test_a_copy_with_other_options_has_the_same_script() -> None:
    made = scripted("a", emits("x")).with_options(name="b", timeout=1)
    assert as_code(made) == "scripted('b', emits('x'), timeout=1.0)"


# ------------------------------------------------------------------------------- bad scripts


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: scripted("a", "text"), r"step 0 .*emits\('text'\)"),  # type: ignore[arg-type]
        (lambda: scripted("a", emits(), 2), r"step 1 .*sleeps\(2\)"),  # type: ignore[arg-type]
        (lambda: scripted("a", ValueError("x")), "raises"),  # type: ignore[arg-type]
        (lambda: scripted("a", ValueError), "raises"),  # type: ignore[arg-type]
        (lambda: scripted("a", shout), "calls"),  # type: ignore[arg-type]
        (lambda: within(1, None), "step 0 .* None"),  # type: ignore[arg-type]
        (lambda: cleans_up("text"), "emits"),  # type: ignore[arg-type]
        (lambda: emits(1), "texts and contents, not 1"),  # type: ignore[arg-type]
        (lambda: reads(1), r"keys of reads\(\)"),  # type: ignore[arg-type]
        (lambda: writes(1, 1), r"key of writes\(\)"),  # type: ignore[arg-type]
        (lambda: asks(1), r"prompt of asks\(\)"),  # type: ignore[arg-type]
        (lambda: raises("x"), "an exception, not 'x'"),  # type: ignore[arg-type]
        (lambda: raises(int), "an exception"),  # type: ignore[arg-type]
        (lambda: calls("x"), "a function"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_script_is_refused_where_it_is_written(
    make: Callable[[], object], words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        make()


@pytest.mark.parametrize("seconds", [-1, math.nan, "1", True, 10**400])
def test_what_is_no_time_is_refused(seconds: Any) -> None:
    with pytest.raises(ValueError, match=r"seconds of sleeps\(\) is seconds"):
        sleeps(seconds)


def test_names_and_options_are_checked_as_for_any_agent() -> None:
    with pytest.raises(TreeError, match="no identifier"):
        scripted("1a")
    with pytest.raises(TypeError, match="no option 'color'"):
        scripted("a", color="red")  # type: ignore[call-arg]


# ------------------------------------------------------------------------------- steps


def test_it_emits_one_event_for_each_item() -> None:
    recorder = record(scripted("a", emits("x", Content("y")), emits("z")))
    assert recorder.texts == ["x", "y", "z"]


def test_partial_events_are_delivered_and_not_recorded() -> None:
    recorder = record(scripted("a", emits("x", partial=True), emits("y")))
    assert recorder.texts == ["x", "y"]
    assert recorder.result is not None
    assert [event.text for event in recorder.result.events] == ["y"]


def state_after(*steps: ScriptStep, **options: Any) -> dict[str, Any]:
    recorder = record(Runner(scripted("a", *steps), **options))
    assert recorder.error is None
    assert recorder.result is not None
    return dict(recorder.result.state)


def test_it_writes_state() -> None:
    assert state_after(writes("x", 1), emits("a", state_delta={"y": 2})) == {"x": 1, "y": 2}


def test_it_adds_to_what_it_finds() -> None:
    assert state_after(adds("n"), adds("n", 2), emits("x"), adds("n", 0.5)) == {"n": 3.5}


def test_it_contributes_to_keys_with_a_reducer() -> None:
    state = state_after(contributes("sum", 1), contributes("sum", 2), reducers={"sum": "add"})
    assert state == {"sum": 3}


def test_its_reads_are_seen_by_who_watches() -> None:
    seen: list[Access] = []
    run_once(lambda: scripted("a", reads("x", "y"), writes("z", 1)), on_access=seen.append)
    assert [(access.key, access.writes) for access in seen] == [
        ("x", False),
        ("y", False),
        ("z", True),
    ]


async def test_it_sleeps(autojump_clock: MockClock) -> None:
    recorder = Recorder(scripted("a", sleeps(5), sleeps(0.5)))
    await recorder.run()
    assert trio.current_time() == 5.5


def test_its_output_is_the_last_it_was_given() -> None:
    recorder = record(scripted("a", outputs(1), emits("x"), outputs([2]), output_key="k"))
    assert recorder.result is not None
    assert recorder.result.output == [2]
    assert recorder.result.state == {"k": [2]}


def test_it_escalates() -> None:
    recorder = record(LoopAgent("l", [scripted("a", emits("x"), escalates("stop"))]))
    assert recorder.texts == ["x", "stop"]


def test_it_hands_over() -> None:
    tree = SequentialAgent("s", [scripted("a", transfers_to("c")), scripted("c", emits("c1"))])
    assert record(tree).texts == ["c1", "c1"]


def test_it_calls_functions_and_waits_for_what_they_return() -> None:
    async def ask(ctx: InvocationContext) -> None:
        await ctx.emit("asked")

    noted: list[str] = []
    record(scripted("a", calls(lambda ctx: noted.append(ctx.path)), calls(ask)))
    assert noted == ["a"]
    assert record(scripted("a", calls(ask), emits("x"))).texts == ["asked", "x"]


def test_a_retry_and_each_turn_of_a_loop_do_all_of_it_anew() -> None:
    again = scripted("a", emits("x"), raises(ValueError), retry=Retry(3))
    assert record(again).texts == ["x"] * 3
    assert record(LoopAgent("l", [scripted("a", emits("x"))], max_iterations=3)).texts == ["x"] * 3


# Raising.


def test_what_it_raises_is_a_copy_that_has_no_past() -> None:
    error = ValueError("x")
    error.add_note("mine")
    tree = scripted("a", raises(error), retry=Retry(3))
    one, other = record(tree), record(tree)
    assert isinstance(one.error, ValueError)
    assert one.notes == other.notes
    assert one.error is not other.error
    assert (error.__notes__, error.__traceback__) == (["mine"], None)


def test_members_of_a_group_are_copied_too() -> None:
    inner = ValueError("x")
    recorder = record(scripted("a", raises(ExceptionGroup("g", [inner]))))
    assert isinstance(recorder.error, ExceptionGroup)
    assert recorder.error.exceptions[0] is not inner
    assert repr(recorder.error.exceptions[0]) == repr(inner)


def test_an_error_that_cannot_be_copied_is_raised_itself() -> None:
    class OddError(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one}{two}")

    error = OddError(1, 2)
    assert record(scripted("a", raises(error))).error is error


# Signals.


def test_who_waits_goes_on_when_the_signal_is_given() -> None:
    waiting = scripted("a", waits_for("go"), emits("a1"))
    giving = scripted("b", sleeps(1), emits("b1"), signals("go"))
    assert record(ParallelAgent("p", [waiting, giving])).texts == ["b1", "a1"]


def test_a_signal_stays_given() -> None:
    tree = SequentialAgent("s", [scripted("a", signals("go")), scripted("b", waits_for("go"))])
    assert record(tree).status == "completed"


def test_a_signal_is_given_for_one_run_only() -> None:
    async def give_if_told(ctx: InvocationContext) -> None:
        if ctx.user_text:
            await signals("go").do(ctx)

    tree = scripted("a", calls(give_if_told), waits_for("go"))
    assert run_once(lambda: tree, message="give it").error is None
    assert isinstance(run_once(lambda: tree).error, DeadlockError)


def test_a_signal_that_nobody_gives_is_a_deadlock_under_exploration() -> None:
    with pytest.raises(ExplorationError, match="deadlock"):
        explore(lambda: scripted("a", waits_for("never")))


def endings(make_tree: Callable[[], Agent], *, reduce: bool) -> tuple[set[object], Exploration]:
    """Everything that can come of a tree."""
    found: set[object] = set()

    def note(result: Result) -> None:
        events = tuple((event.path, event.text) for event in result.events)
        found.add((result.status, tuple(sorted(result.state.items())), events))

    return found, explore(make_tree, note, reduce=reduce, allow=ValueError)


@pytest.mark.parametrize(
    "branches",
    [
        [
            scripted("a", signals("go"), adds("x"), emits("a1")),
            scripted("b", reads("x"), waits_for("go"), adds("x", 10)),
        ],
        [
            scripted("a", emits("a1"), signals("go")),
            scripted("b", cleans_up(adds("x"), shielded=True), waits_for("go"), adds("x")),
            scripted("c", raises(ValueError("c"))),
        ],
    ],
)
def test_signals_leave_exploration_complete(branches: list[ScriptedAgent]) -> None:
    """What is left out of the search has made no difference."""
    all_of_them, every = endings(lambda: ParallelAgent("p", branches), reduce=False)
    some, reduced = endings(lambda: ParallelAgent("p", branches), reduce=True)
    assert some == all_of_them
    assert reduced.exhausted
    assert every.exhausted
    assert reduced.schedules < every.schedules


def test_exploration_finds_the_update_that_is_lost() -> None:
    tree = ParallelAgent("p", [scripted("a", adds("n"), emits()), scripted("b", adds("n"))])

    def check(result: Result) -> None:
        assert result.state["n"] == 2

    with pytest.raises(ExplorationError):
        explore(lambda: tree, check)


# People.


def test_a_question_that_nobody_answers_gets_its_default() -> None:
    recorder = record(scripted("a", asks("Sure?", default=7, timeout=3, key="sure")))
    assert recorder.result is not None
    assert recorder.result.state == {"sure": 7}


async def test_the_answer_is_written_to_the_state(autojump_clock: MockClock) -> None:
    tree = scripted("a", asks("Sure?", schema=bool, key="sure"))
    async with Runner(tree).open() as run:
        async for event in run:
            if event.request is not None:
                await run.respond(event.request.id, True)
    assert run.result.state == {"sure": True}


async def test_it_receives_messages(autojump_clock: MockClock) -> None:
    tree = scripted("a", emits("ready"), receives("said"), receives(), emits("done"))
    async with Runner(tree).open() as run:
        async for event in run:
            if event.text == "ready":
                await run.send("one")
                await run.send("two")
    assert run.result.state == {"said": "one"}
    assert run.result.text == "done"


# Steps around steps.


def test_within_goes_on_when_time_is_over() -> None:
    tree = scripted("a", within(1, emits("x"), sleeps(2), emits("never")), emits("y"))
    assert record(tree).texts == ["x", "y"]


def test_within_goes_on_at_once_when_all_is_done() -> None:
    recorder = Recorder(scripted("a", within(5, emits("x")), emits("y")))

    async def timed() -> float:
        await recorder.run()
        return trio.current_time()

    assert trio.run(timed, clock=MockClock(autojump_threshold=0)) == 0


@pytest.mark.parametrize(
    ("rest", "texts"),
    [
        ([emits("x")], ["x", "bye"]),
        ([emits("x"), raises(ValueError("a"))], ["x", "bye"]),
        ([emits("x"), cleans_up(emits("inner")), emits("y")], ["x", "y", "inner", "bye"]),
    ],
)
def test_it_cleans_up_after_what_follows(rest: list[ScriptStep], texts: list[str]) -> None:
    assert record(scripted("a", cleans_up(emits("bye")), *rest)).texts == texts


def test_steps_before_a_clean_up_have_none() -> None:
    tree = scripted("a", raises(ValueError("a")), cleans_up(emits("bye")))
    assert record(tree).texts == []


@pytest.mark.parametrize(("shielded", "texts"), [(True, ["b1", "bye"]), (False, ["b1"])])
def test_after_a_cancellation_only_a_shielded_clean_up_can_wait(
    shielded: bool,  # noqa: FBT001  # a parameter of the test
    texts: list[str],
) -> None:
    cleaning = scripted("a", cleans_up(sleeps(1), emits("bye"), shielded=shielded), sleeps(9))
    tree = ParallelAgent("p", [cleaning, scripted("b", emits("b1"))], barrier=FirstSuccess())
    assert record(tree).texts == texts


def test_a_clean_up_inside_within_is_over_with_it() -> None:
    tree = scripted("a", within(1, cleans_up(emits("bye"), shielded=True), sleeps(2)), emits("x"))
    assert record(tree).texts == ["bye", "x"]


def test_fail_fast_is_what_needs_no_saying() -> None:
    """`as_code` leaves the default policy out: it must be the default."""
    assert ParallelAgent("p", []).barrier == FailFast()
