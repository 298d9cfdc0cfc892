"""Plugins: who is asked, when, in which order, and what becomes of what they answer and raise.

What they make of events is in ``test_plugin_events.py``.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import nullcontext, suppress
from contextvars import ContextVar
from typing import Any

import pytest
import trio

from parallel_agent import (
    Agent,
    Content,
    Event,
    InvocationContext,
    LoopAgent,
    Outcome,
    ParallelAgent,
    Plugin,
    PluginError,
    Result,
    Run,
    Runner,
    SequentialAgent,
    Status,
    agent,
)
from tests.kernel.scripted import (
    BoomError,
    FailingService,
    StoreError,
    Yields,
    holds_cancellation,
    read_all,
)
from tests.workflow.trees import (
    Diary,
    Ended,
    Escalate,
    leaf,
    leaves,
    open_and_read,
    run_tree,
    run_virtual,
    texts,
)

AGENT_HOOKS = ("before_agent_callback", "after_agent_callback", "on_agent_error_callback")
RUN_HOOKS = ("on_user_message_callback", "before_run_callback", "after_run_callback")
ASYNC_HOOKS = (*AGENT_HOOKS, *RUN_HOOKS, "on_event_callback")
ALL_HOOKS = (*ASYNC_HOOKS, "on_agent_end")


def plugin(name: str = "p", *, diary: Diary | None = None, **hooks: Any) -> Plugin:
    """Return a plugin with ``hooks`` and no others.

    Each is an exception to raise, a function to call (and to wait for), or what to answer.
    ``diary`` gets a line when one is asked.
    """
    entries: Diary = [] if diary is None else diary

    def answer(what: Any, hook: str, ctx: InvocationContext, *args: Any) -> Any:
        entries.append(f"{name}: {hook.removesuffix('_callback')} {ctx.path}")
        if isinstance(what, BaseException):
            raise what
        return what(ctx, *args) if callable(what) else what

    def plain(hook: str, what: Any) -> Callable[..., Any]:
        def call(_self: Plugin, ctx: InvocationContext, outcome: Outcome) -> Any:
            return answer(what, hook, ctx, outcome)

        return call

    def waiting(hook: str, what: Any) -> Callable[..., Any]:
        count = len(inspect.signature(getattr(Plugin, hook)).parameters)

        async def one(_self: Plugin, ctx: InvocationContext) -> Any:
            result = answer(what, hook, ctx)
            return await result if isinstance(result, Awaitable) else result

        async def two(_self: Plugin, ctx: InvocationContext, more: Any) -> Any:
            result = answer(what, hook, ctx, more)
            return await result if isinstance(result, Awaitable) else result

        return one if count == len(("self", "ctx")) else two

    members = {
        hook: (plain if hook == "on_agent_end" else waiting)(hook, what)
        for hook, what in hooks.items()
    }
    made: Plugin = type("Scripted", (Plugin,), members)(name)
    return made


def only(hook: str, what: Any) -> dict[str, Any]:
    """The one hook, as a keyword."""
    return {hook: what}


def into(told: list[Any]) -> Callable[..., None]:
    """A hook that keeps its last argument."""
    return lambda *args: told.append(args[-1])


def run_with(plugins: Sequence[Plugin], tree: Agent, **options: Any) -> Ended:
    return run_tree(Runner(tree, plugins=plugins), **options)


def saying(tree: str = "a") -> Agent:
    return leaf(tree, "said")


def failing(name: str = "a", error: BaseException | None = None) -> Agent:
    return leaf(name, "said", BoomError(name) if error is None else error)


async def asleep(*_args: object) -> None:
    await trio.sleep_forever()


# ---------------------------------------------------------------------------------- construction


@pytest.mark.parametrize("hook", ASYNC_HOOKS)
def test_a_hook_that_is_no_coroutine_function_is_refused_by_name(hook: str) -> None:
    def plain(self: Plugin, *_args: object) -> None: ...

    async def generator(self: Plugin, *_args: object) -> AsyncIterator[str]:
        yield "no"

    for kind in (plain, generator):
        made = type("Wrong", (Plugin,), {hook: kind})()
        with pytest.raises(TypeError, match=f"{hook} of plugin 'Wrong' must be an `async def`"):
            Runner(saying(), plugins=[made])


def test_an_async_on_agent_end_is_refused() -> None:
    class Wrong(Plugin):
        async def on_agent_end(self, ctx: InvocationContext, outcome: Outcome) -> None:  # type: ignore[override]  # what is refused
            pass

    with pytest.raises(TypeError, match="on_agent_end of plugin 'Wrong' must be a plain `def`"):
        Runner(saying(), plugins=[Wrong()])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([7], r"plugins\[0\] is no Plugin but 7"),
        ([Plugin(), "x"], r"plugins\[1\] is no Plugin but 'x'"),
        ([Plugin], r"plugins\[0\] is no Plugin but <class.*; make an object of it: call it"),
        (Plugin("p"), "plugins is a list of plugins, not <Plugin p>"),
        ({Plugin("p")}, "plugins is a list of plugins, not {<Plugin p>}"),
        (None, "plugins is a list of plugins, not None"),
    ],
    ids=["number", "second", "class", "one", "set", "None"],
)
def test_what_is_no_plugin_is_refused_with_what_to_do(given: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Runner(saying(), plugins=given)


def test_two_plugins_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two plugins are named 'same'; give one another name"):
        Runner(saying(), plugins=[plugin("same"), plugin("same")])


def test_two_of_one_class_need_names_and_then_will_do() -> None:
    with pytest.raises(ValueError, match="'Plugin'"):
        Runner(saying(), plugins=[Plugin(), Plugin()])
    Runner(saying(), plugins=[Plugin(), Plugin("second")])


def test_a_plugin_is_named_after_its_class_also_without_its_init() -> None:
    class Silent(Plugin):
        def __init__(self) -> None:
            """Does not call the one above."""

    assert Silent().name == "Silent"
    assert run_with([Silent()], saying()).error is None


def test_plugins_are_taken_once_from_any_iterable() -> None:
    diary: Diary = []
    runner = Runner(
        saying(), plugins=iter([plugin(diary=diary, before_run_callback=None) for _ in range(1)])
    )
    run_tree(runner)
    run_tree(runner)
    assert diary == ["p: before_run a", "p: before_run a"]


def test_a_plugin_is_asked_only_for_the_hooks_it_overrides() -> None:
    runner = Runner(saying(), plugins=[Plugin(), plugin(after_run_callback=None)])
    sorted_by_hook = vars(runner._setup.plugins)
    asked = {name: len(all_) for name, all_ in sorted_by_hook.items() if isinstance(all_, tuple)}
    assert asked.pop("all") == 2
    assert asked.pop("after_run") == 1
    assert len(asked) == 7
    assert not any(asked.values())


def test_a_hook_may_be_set_on_the_object() -> None:
    seen: Diary = []

    async def look(ctx: InvocationContext) -> None:
        seen.append(ctx.path)

    observer = Plugin()
    observer.before_agent_callback = look  # type: ignore[method-assign]  # what is tried here
    run_with([observer], saying())
    assert seen == ["a"]


# ----------------------------------------------------------------------------------------- order


def test_every_hook_is_asked_in_its_turn_and_in_the_order_of_the_plugins() -> None:
    diary: Diary = []
    hooks = dict.fromkeys(ALL_HOOKS)
    run_with([plugin(name, diary=diary, **hooks) for name in "xy"], saying())
    turns = "on_user_message before_run before_agent on_event after_agent on_agent_end after_run"
    assert diary == [f"{name}: {hook} a" for hook in turns.split() for name in "xy"]


@pytest.mark.parametrize("place", ["before_agent_callback", "after_agent_callback"])
def test_plugins_are_asked_before_the_callbacks_of_the_agent_itself(place: str) -> None:
    diary: Diary = []
    options: dict[str, Any] = {place: lambda ctx: diary.append(f"own {ctx.path}")}
    short = place.removesuffix("_callback")
    run_with(
        [plugin("x", diary=diary, **{place: None}), plugin("y", diary=diary, **{place: None})],
        leaf("a", **options),
    )
    assert diary == [f"x: {short} a", f"y: {short} a", "own a"]


@pytest.mark.parametrize("place", ["before_agent_callback", "after_agent_callback"])
def test_the_first_that_answers_keeps_later_plugins_and_own_callbacks_out(place: str) -> None:
    diary: Diary = []
    options: dict[str, Any] = {place: lambda ctx: diary.append(f"own {ctx.path}")}
    answers = {"x": None, "y": "answer", "z": "late"}
    ended = run_with(
        [plugin(name, diary=diary, **{place: what}) for name, what in answers.items()],
        leaf("a", **options),
    )
    short = place.removesuffix("_callback")
    assert diary == [f"x: {short} a", f"y: {short} a"]
    assert texts(ended.delivered) == ["answer"]


def test_hooks_of_every_activation_are_asked_in_a_tree() -> None:
    diary: Diary = []
    tree = LoopAgent("l", [SequentialAgent("s", [saying()])], max_iterations=2)
    run_with([plugin(diary=diary, before_agent_callback=None, on_agent_end=None)], tree)
    began = ["l", "l/s@1", "l/s@1/a", "l/s@2", "l/s@2/a"]
    ended = ["l/s@1/a", "l/s@1", "l/s@2/a", "l/s@2", "l"]
    assert [line for line in diary if "before" in line] == [f"p: before_agent {x}" for x in began]
    assert [line for line in diary if "end" in line] == [f"p: on_agent_end {x}" for x in ended]


def test_a_slow_hook_delays_its_own_branch_and_no_other() -> None:
    async def slow(ctx: InvocationContext) -> None:
        if ctx.path == "f/a":
            await trio.sleep(5)

    tree = ParallelAgent("f", [leaf("a", "late"), leaf("b", 1, "early")])
    ended = run_with([plugin(before_agent_callback=slow)], tree)
    assert (texts(ended.delivered), ended.time) == (["early", "late"], 5)


# ------------------------------------------------------------------------ before and after an agent


@pytest.mark.parametrize(
    ("what", "output"),
    [
        ("text", "text"),
        ("", None),
        (Status.COMPLETED, "completed"),
        (Content("content"), "content"),
        (Event("event"), "event"),
        (Event("event", output=[1]), [1]),
    ],
    ids=["text", "empty", "member of an enum", "content", "event", "event with output"],
)
def test_what_a_plugin_answers_before_an_agent_replaces_its_run(what: Any, output: object) -> None:
    diary: Diary = []
    tree = leaf("a", "said", diary=diary, output_key="k", after_agent_callback=lambda _ctx: "no")
    ended = run_with(
        [plugin(before_agent_callback=what), plugin("later", after_agent_callback="no")], tree
    )
    assert diary == []
    assert [(event.author, event.path) for event in ended.delivered] == [("a", "a")]
    assert (ended.result.output, ended.result.state.get("k")) == (output, output)
    assert ended.result.status is Status.COMPLETED


def test_what_a_plugin_answers_after_an_agent_is_one_more_event() -> None:
    tree = leaf("a", "said", output_key="k")
    ended = run_with([plugin(after_agent_callback="more")], tree)
    assert texts(ended.delivered) == ["said", "more"]
    assert (ended.result.output, dict(ended.result.state)) == ("more", {"k": "more"})


def test_after_an_agent_that_failed_nobody_is_asked() -> None:
    diary: Diary = []
    ended = run_with([plugin(diary=diary, after_agent_callback="more")], failing())
    assert isinstance(ended.error, BoomError)
    assert diary == []


# ------------------------------------------------------------------------------ turning a failure


def excused(ctx: InvocationContext, error: Exception) -> str:
    return f"{ctx.path} failed: {error}"


def test_an_answer_to_a_failure_completes_the_agent() -> None:
    tree = leaf("a", "said", BoomError("hot"), output_key="k")
    ended = run_with([plugin(on_agent_error_callback=excused)], tree)
    assert ended.error is None
    assert texts(ended.delivered) == ["said", "a failed: hot"]
    assert ended.result.status is Status.COMPLETED
    assert ended.result.output == "a failed: hot"
    assert dict(ended.result.state) == {"k": "a failed: hot"}


def test_a_fan_out_goes_on_when_the_failure_of_a_branch_is_answered() -> None:
    tree = SequentialAgent(
        "s", [ParallelAgent("f", [failing("a"), leaf("b", 2, "late")]), leaf("c", "then")]
    )
    ended = run_with([plugin(on_agent_error_callback=excused)], tree)
    assert texts(ended.delivered) == ["said", "s/f/a failed: a", "late", "then"]
    assert ended.outcomes("f") == {"a": "completed", "b": "completed"}


def test_writes_of_the_failed_agent_are_recorded_with_the_answer() -> None:
    def write(ctx: InvocationContext) -> None:
        ctx.state["k"] = 1

    tree = leaf("a", write, BoomError("hot"))
    ended = run_with([plugin(on_agent_error_callback=excused)], tree)
    assert [dict(event.state_delta) for event in ended.delivered] == [{"k": 1}]


def test_plugins_are_asked_about_a_failure_in_order_and_the_first_answer_decides() -> None:
    diary: Diary = []
    answers = {"x": None, "y": "answer", "z": "late"}
    ended = run_with(
        [plugin(name, diary=diary, on_agent_error_callback=what) for name, what in answers.items()],
        failing(),
    )
    assert diary == ["x: on_agent_error a", "y: on_agent_error a"]
    assert texts(ended.delivered) == ["said", "answer"]


def test_a_failure_without_an_answer_goes_up_as_the_same_object() -> None:
    boom = BoomError("hot")
    seen: list[tuple[str, Exception]] = []

    def look(ctx: InvocationContext, error: Exception) -> None:
        seen.append((ctx.path, error))

    tree = SequentialAgent("s", [ParallelAgent("f", [failing("a", boom)])])
    ended = run_with([plugin(on_agent_error_callback=look)], tree)
    assert seen == [("s/f/a", boom), ("s/f", boom), ("s", boom)]
    assert ended.error is boom


def test_an_agent_above_can_be_the_one_that_is_excused() -> None:
    def at_the_top(ctx: InvocationContext, error: Exception) -> str | None:
        return excused(ctx, error) if ctx.path == "s/f" else None

    tree = SequentialAgent("s", [ParallelAgent("f", [failing("a"), leaf("b", 1)]), saying("c")])
    ended = run_with([plugin(on_agent_error_callback=at_the_top)], tree)
    assert ended.error is None
    assert [(event.path, event.text) for event in ended.delivered if event.text] == [
        ("s/f/a", "said"),
        ("s/f", "s/f failed: a"),
        ("s/c", "said"),
    ]
    assert ended.outcomes("f") == {"a": "failed", "b": "cancelled"}


@pytest.mark.parametrize("way", ["sibling", "run.cancel", "break", "inner timeout"])
def test_nobody_is_asked_about_a_cancellation(way: str) -> None:
    diary: Diary = []

    async def within_a_second(ctx: InvocationContext) -> None:
        with trio.move_on_after(1):
            await trio.sleep_forever()

    tree = ParallelAgent(
        "f",
        [
            leaf("patient", within_a_second if way == "inner timeout" else 60),
            leaf("b", 2, BoomError("hot")) if way == "sibling" else leaf("b", 2, "said"),
        ],
    )

    async def main() -> None:
        runner = Runner(tree, plugins=[plugin(diary=diary, on_agent_error_callback=None)])
        with pytest.raises(BoomError) if way == "sibling" else nullcontext():
            async with runner.open("hi") as run:
                async for event in run:
                    if event.text and way == "run.cancel":
                        run.cancel()
                    elif event.text and way == "break":
                        break

    run_virtual(main)
    about = {line.rpartition(" ")[2] for line in diary}
    assert about == ({"f/b", "f"} if way == "sibling" else set())


@pytest.mark.parametrize("way", ["sibling", "break"])
def test_nobody_is_asked_about_a_clean_up_that_fails_after_a_cancellation(way: str) -> None:
    diary: Diary = []

    @agent
    async def messy(ctx: InvocationContext) -> Yields:
        try:
            yield "said"
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            raise BoomError("in cleaning up")

    tree = ParallelAgent("f", [messy, leaf("b", 2, ValueError("first"))])
    asked = plugin(diary=diary, on_agent_error_callback=None)

    async def main() -> BaseException | None:
        try:
            async with Runner(tree, plugins=[asked]).open("hi") as run:
                async for _ in run:
                    if way == "break":
                        break
        except Exception as error:  # noqa: BLE001  # what the test is about
            return error
        return None

    error = run_virtual(main)
    assert type(error) is (ValueError if way == "sibling" else BoomError)
    assert "p: on_agent_error f/messy" not in diary


def test_a_hook_that_fails_over_a_failure_names_itself_and_keeps_both() -> None:
    boom, worse = BoomError("hot"), ValueError("worse")
    ended = run_with([plugin("fixer", on_agent_error_callback=worse)], failing("a", boom))
    error = ended.error
    assert isinstance(error, PluginError)
    assert (error.plugin, error.hook) == ("fixer", "on_agent_error_callback")
    assert error.__cause__ is worse
    assert worse.__context__ is boom
    assert str(error) == "plugin 'fixer' failed in on_agent_error_callback: ValueError: worse"


def test_the_failure_of_a_hook_can_be_answered_further_up() -> None:
    def only_plugins(ctx: InvocationContext, error: Exception) -> str | None:
        return f"{error.plugin} broke" if isinstance(error, PluginError) else None

    tree = SequentialAgent("s", [saying()])
    ended = run_with(
        [
            plugin("broken", after_agent_callback=BoomError("hot")),
            plugin("mender", on_agent_error_callback=only_plugins),
        ],
        tree,
    )
    assert ended.error is None
    # Of the leaf, then of the sequence, after which the plugin is asked, and fails, as well.
    assert texts(ended.delivered) == ["said", "broken broke", "broken broke"]


def test_a_group_of_an_agents_own_nursery_is_shown_as_that_group() -> None:
    async def nursery(ctx: InvocationContext) -> None:
        async with trio.open_nursery() as tasks:
            tasks.start_soon(trio.sleep_forever)
            raise BoomError("hot")

    seen: list[Exception] = []
    ended = run_with([plugin(on_agent_error_callback=into(seen))], leaf("a", nursery))
    assert isinstance(ended.error, ExceptionGroup)
    assert seen == [ended.error]


# ------------------------------------------------------------------------------- how agents ended


def endings(kind: str) -> Agent:
    """A tree in which ``a`` ends in that way."""
    sibling = leaf("b", 1, "said") if kind != "cancelled" else leaf("b", 1, BoomError("b"))
    members: dict[str, Agent] = {
        "completed": leaf("a", "said"),
        "failed": failing("a"),
        "cancelled": leaf("a", 60),
        "skipped": leaf("a", before_agent_callback=lambda _ctx: "instead"),
    }
    return ParallelAgent("f", [members[kind], sibling])


@pytest.mark.parametrize("kind", ["completed", "failed", "cancelled", "skipped"])
def test_everyone_is_told_once_how_an_agent_ended(kind: str) -> None:
    told: list[Outcome] = []
    ended = run_with([plugin(on_agent_end=into(told))], endings(kind))
    (one,) = (outcome for outcome in told if outcome.name == "a")
    recorded = ended.outcome("f", "a")
    for field in ("name", "path", "status", "error", "own", "output", "duration"):
        assert getattr(one, field) == getattr(recorded, field), field
    assert [outcome.path for outcome in told if outcome.path == "f"] == ["f"]


def test_an_agent_whose_failure_was_answered_is_told_of_as_completed() -> None:
    told: list[Outcome] = []
    observer = plugin(on_agent_end=into(told), on_agent_error_callback=excused)
    run_with([observer], failing())
    assert [(one.status, one.error, one.output) for one in told] == [
        (Status.COMPLETED, None, "a failed: a")
    ]


def test_nobody_is_told_of_an_agent_that_never_started() -> None:
    diary: Diary = []
    tree = SequentialAgent("s", [failing("a"), saying("b")])
    run_with([plugin(diary=diary, on_agent_end=None)], tree)
    assert diary == ["p: on_agent_end s/a", "p: on_agent_end s"]


def test_an_observer_that_raises_makes_a_failure_of_a_completion() -> None:
    ended = run_with([plugin("eye", on_agent_end=BoomError("hot"))], saying())
    assert isinstance(ended.error, PluginError)
    assert (ended.error.plugin, ended.error.hook) == ("eye", "on_agent_end")
    assert ended.result.status is Status.FAILED
    assert ended.notes == ["raised by agent a"]


def test_of_a_failure_it_only_makes_a_note() -> None:
    boom = BoomError("cold")
    ended = run_with([plugin("eye", on_agent_end=ValueError("hot"))], failing("a", boom))
    assert ended.error is boom
    assert ended.notes == [
        "raised by agent a",
        "then plugin 'eye' failed in on_agent_end: ValueError: hot",
    ]


def test_all_plugins_are_told_although_one_raises_and_the_first_failure_counts() -> None:
    diary: Diary = []
    ended = run_with(
        [
            plugin("x", diary=diary, on_agent_end=ValueError("one")),
            plugin("y", diary=diary, on_agent_end=ValueError("two")),
            plugin("z", diary=diary, on_agent_end=None),
        ],
        saying(),
    )
    assert diary == [f"{name}: on_agent_end a" for name in "xyz"]
    assert isinstance(ended.error, PluginError)
    assert ended.error.plugin == "x"
    assert "then plugin 'y' failed in on_agent_end: ValueError: two" in ended.notes


# -------------------------------------------------------------------------------- the run: before


def test_what_a_plugin_answers_to_a_run_is_emitted_instead_of_running_the_tree() -> None:
    diary: Diary = []
    tree = SequentialAgent("s", leaves("a b", "said", diary=diary), output_key="k")
    ended = run_with(
        [
            plugin("x", diary=diary, before_run_callback="closed", before_agent_callback=None),
            plugin("y", diary=diary, before_run_callback="late", on_agent_end=None),
        ],
        tree,
    )
    assert diary == ["x: before_run s", "y: on_agent_end s"]
    assert [(event.author, event.text) for event in ended.delivered] == [("s", "closed")]
    assert (ended.result.output, dict(ended.result.state)) == ("closed", {"k": "closed"})
    assert ended.result.status is Status.COMPLETED


def test_a_run_is_asked_about_once_and_before_its_root() -> None:
    diary: Diary = []
    tree = SequentialAgent("s", leaves("a b"))
    run_with([plugin(diary=diary, before_run_callback=None, before_agent_callback=None)], tree)
    assert diary == [
        "p: before_run s",
        "p: before_agent s",
        "p: before_agent s/a",
        "p: before_agent s/b",
    ]


# --------------------------------------------------------------------------------- the run: after


async def leave(how: str, runner: Runner, keep: list[Run]) -> None:
    """Open a run and leave it in that way."""
    with trio.CancelScope() as scope:
        async with runner.open("hi") as run:
            keep.append(run)
            async for _ in run:
                if how == "break":
                    break
                if how == "raise":
                    raise KeyError(how)
                if how == "run.cancel":
                    run.cancel()
                if how == "scope":
                    scope.cancel()


WAYS = {
    "end": (None, Status.COMPLETED),
    "fail": (BoomError, Status.FAILED),
    "break": (None, Status.CANCELLED),
    "raise": (KeyError, Status.CANCELLED),
    "run.cancel": (None, Status.CANCELLED),
    "scope": (None, Status.CANCELLED),
}


@pytest.mark.parametrize("how", WAYS)
def test_after_every_way_of_ending_a_run_plugins_are_told_once_and_last(how: str) -> None:
    diary: Diary = []
    results: list[Result] = []

    @agent
    async def tidy(ctx: InvocationContext) -> Yields:
        try:
            yield "said"
            await trio.sleep(3)
            if how == "fail":
                raise BoomError(how)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            diary.append("cleaned up")

    def told(ctx: InvocationContext, result: Result) -> None:
        results.append(result)

    last = plugin(diary=diary, on_agent_end=None, after_run_callback=told)
    keep: list[Run] = []

    async def main() -> None:
        error, _ = WAYS[how]
        with pytest.raises(error) if error else nullcontext():
            await leave(how, Runner(tidy, plugins=[last]), keep)

    run_virtual(main)
    assert diary == ["cleaned up", "p: on_agent_end tidy", "p: after_run tidy"]
    assert [result.status for result in results] == [WAYS[how][1]]
    assert results == [keep[0].result]


def test_a_plugin_that_raises_after_a_good_run_is_raised_by_the_block() -> None:
    runner = Runner(saying(), plugins=[plugin("end", after_run_callback=BoomError("hot"))])
    keep: list[Run] = []

    async def main() -> None:
        with pytest.raises(PluginError, match=r"plugin 'end' failed in after_run_callback"):
            await leave("end", runner, keep)
        with pytest.raises(PluginError):
            await runner.run("hi")

    trio.run(main)
    assert keep[0].result.status is Status.COMPLETED


@pytest.mark.parametrize("reader", ["reads", "reads nothing"])
def test_of_a_failed_run_a_plugin_that_raises_only_makes_a_note(reader: str) -> None:
    boom = BoomError("hot")
    last = plugin("end", after_run_callback=ValueError("x"))

    async def main() -> None:
        async with Runner(leaf("a", boom), plugins=[last]).open("hi") as run:
            await trio.sleep(1)
            if reader == "reads":
                async for _ in run:
                    pass

    with pytest.raises(BoomError) as raised:
        run_virtual(main)
    assert raised.value is boom
    assert boom.__notes__[-1] == "then plugin 'end' failed in after_run_callback: ValueError: x"


def test_a_failure_that_the_block_has_dealt_with_does_not_hide_the_plugins() -> None:
    runner = Runner(failing(), plugins=[plugin("end", after_run_callback=ValueError("x"))])

    async def main() -> None:
        async with runner.open("hi") as run:
            with suppress(BoomError):
                await read_all(run)

    with pytest.raises(PluginError):
        trio.run(main)


@pytest.mark.parametrize("trouble", [ValueError("x"), "emits"], ids=["raises", "emits"])
def test_an_exception_of_the_body_leaves_as_itself_whatever_plugins_do(trouble: Any) -> None:
    async def emit(ctx: InvocationContext, result: Result) -> None:
        await ctx.emit("too late")

    last = plugin("end", after_run_callback=emit if trouble == "emits" else trouble)
    mine = KeyError("mine")

    async def main() -> None:
        async with Runner(saying(), plugins=[last]).open("hi"):
            raise mine

    with pytest.raises(KeyError) as raised:
        trio.run(main)
    assert raised.value is mine
    (note,) = mine.__notes__
    assert note.startswith("then plugin 'end' failed in after_run_callback: ")


def test_a_failing_store_is_told_of_as_a_failed_run() -> None:
    results: list[Result] = []
    last = plugin(after_run_callback=into(results))
    runner = Runner(saying(), session_service=FailingService(1), plugins=[last])
    ended = run_tree(runner)
    assert isinstance(ended.error, StoreError)
    assert [result.status for result in results] == [Status.FAILED]


def test_all_plugins_are_told_of_the_end_although_one_raises() -> None:
    diary: Diary = []
    plugins = [
        plugin("x", diary=diary, after_run_callback=ValueError("one")),
        plugin("y", diary=diary, after_run_callback=ValueError("two")),
        plugin("z", diary=diary, after_run_callback=None),
    ]

    async def main() -> None:
        await leave("end", Runner(saying(), plugins=plugins), [])

    with pytest.raises(PluginError) as raised:
        trio.run(main)
    assert diary == [f"{name}: after_run a" for name in "xyz"]
    assert raised.value.plugin == "x"
    assert raised.value.__notes__ == [
        "then plugin 'y' failed in after_run_callback: ValueError: two"
    ]


def test_when_the_block_is_cancelled_plugins_go_as_far_as_their_first_await() -> None:
    diary: Diary = []

    async def told(ctx: InvocationContext, result: Result) -> None:
        diary.append("told")
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        diary.append("behind a shield")
        await trio.lowlevel.checkpoint()
        diary.append("never")

    async def main() -> float:
        plugins = [plugin("x", after_run_callback=told), plugin("y", after_run_callback=told)]
        await leave("scope", Runner(leaf("a", "said", 60), plugins=plugins), [])
        return trio.current_time()

    assert run_virtual(main) == 10
    assert diary == ["told", "behind a shield"] * 2


# ------------------------------------------------------------------------------------ the message


def test_each_plugin_sees_what_those_before_made_of_the_message() -> None:
    seen: Diary = []

    def add(what: str) -> Callable[..., Any]:
        def look(ctx: InvocationContext, content: Content) -> Content | str:
            seen.append(f"{ctx.path}: {content.text}")
            # One way or the other: text is short for a content.
            return f"{content.text} {what}" if what == "x" else Content(f"{content.text} {what}")

        return look

    plugins = [plugin(name, on_user_message_callback=add(name)) for name in "xyz"]
    ended = run_with(plugins, leaf("a", lambda ctx: ctx.emit(ctx.user_text)), message="m")
    assert seen == ["a: m", "a: m x", "a: m x y"]
    assert texts(ended.delivered) == ["m x y z"]


@pytest.mark.parametrize("what", ["other", Content("other")], ids=["text", "content"])
def test_the_message_that_is_recorded_is_the_users_all_the_same(what: Any) -> None:
    async def main() -> Event:
        runner = Runner(saying(), plugins=[plugin(on_user_message_callback=what)])
        result = await runner.run("message")
        session = await runner.session_service.get(
            app_name="a", user_id="user", session_id=result.session_id
        )
        assert session is not None
        return session.events[0]

    recorded = trio.run(main)
    assert (recorded.author, recorded.text) == ("user", "other")
    assert recorded.content is not None
    assert recorded.content.role == "user"


def test_a_run_without_a_message_has_none_to_look_at() -> None:
    diary: Diary = []
    runner = Runner(saying(), plugins=[plugin(diary=diary, on_user_message_callback="made up")])

    async def main() -> Result:
        return await runner.run(state_delta={"k": 1})

    assert len(trio.run(main).events) == 1
    assert diary == []


def test_a_plugin_that_fails_over_the_message_keeps_the_run_from_beginning() -> None:
    diary: Diary = []
    others = dict.fromkeys(ALL_HOOKS)
    wrong = plugin("strict", diary=diary, **{**others, "on_user_message_callback": ValueError("x")})

    async def main() -> None:
        runner = Runner(saying(), plugins=[wrong])
        with pytest.raises(PluginError, match="plugin 'strict' failed in on_user_message_callback"):
            await runner.run("hi", session_id="s")
        session = await runner.session_service.get(app_name="a", user_id="user", session_id="s")
        assert session is not None
        assert session.events == []

    trio.run(main)
    assert diary == ["strict: on_user_message a"]


# ------------------------------------------------------------------------ what must not be answered


@pytest.mark.parametrize("hook", [*AGENT_HOOKS, "before_run_callback"])
@pytest.mark.parametrize("what", [7, False, ["text"], object], ids=repr)
def test_what_is_no_event_names_plugin_hook_and_value(hook: str, what: Any) -> None:
    tree = failing() if hook == "on_agent_error_callback" else saying()
    error = run_with([plugin("odd", **only(hook, lambda *_args: what))], tree).error
    assert isinstance(error, PluginError)
    assert (error.plugin, error.hook) == ("odd", hook)
    assert f"it returned {what!r:.80}; text, a content or an event is needed" in str(error)


@pytest.mark.parametrize("what", [7, Event("event"), "\ud800"], ids=["7", "event", "surrogate"])
def test_what_is_no_message_names_plugin_and_hook(what: Any) -> None:
    async def main() -> None:
        await Runner(saying(), plugins=[plugin(on_user_message_callback=what)]).run("hi")

    with pytest.raises(PluginError, match=r"plugin 'p' failed in on_user_message_callback: "):
        trio.run(main)


@pytest.mark.parametrize("hook", ["before_agent_callback", "before_run_callback"])
@pytest.mark.parametrize(
    "what", ["\ud800", Event(output=object()), Event(output={1: 2})], ids=["text", "object", "key"]
)
def test_what_cannot_be_stored_names_plugin_and_hook(hook: str, what: Any) -> None:
    ended = run_with([plugin("odd", **only(hook, what))], saying())
    assert isinstance(ended.error, PluginError)
    assert (ended.error.plugin, ended.error.hook) == ("odd", hook)


def test_an_event_that_was_emitted_before_names_plugin_and_hook() -> None:
    same = Event("same")
    tree = SequentialAgent("s", leaves("a b"))
    answer = plugin("odd", before_agent_callback=lambda ctx: same if ctx.path != "s" else None)
    ended = run_with([answer], tree)
    assert texts(ended.delivered) == ["same"]
    assert isinstance(ended.error, PluginError)
    assert "an event that was not emitted before is needed" in str(ended.error)


# ----------------------------------------------------------------------- failures and cancellations


@pytest.mark.parametrize("hook", ALL_HOOKS)
def test_whatever_hook_raises_the_error_names_plugin_and_hook(hook: str) -> None:
    cause = ValueError("why")
    wrong = plugin("odd", **only(hook, cause))
    tree = failing() if hook == "on_agent_error_callback" else saying()

    async def main() -> None:
        await Runner(tree, plugins=[wrong]).run("hi")

    with pytest.raises(PluginError) as raised:
        trio.run(main)
    assert (raised.value.plugin, raised.value.hook) == ("odd", hook)
    assert raised.value.__cause__ is cause
    assert str(raised.value) == f"plugin 'odd' failed in {hook}: ValueError: why"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("hook", ALL_HOOKS)
def test_an_interrupt_in_a_hook_leaves_bare_whatever_else_fails(
    hook: str, interrupt: type[BaseException]
) -> None:
    # A plugin that fails comes first, where all are told.
    other = ValueError("x") if hook in ("on_agent_end", "after_run_callback") else None
    plugins = [plugin("x", **only(hook, other)), plugin("y", **only(hook, interrupt("stop")))]
    tree = failing() if hook == "on_agent_error_callback" else saying()

    async def main() -> None:
        await Runner(SequentialAgent("s", [tree]), plugins=plugins).run("hi")

    with pytest.raises(interrupt, match="stop"):
        trio.run(main)


@pytest.mark.parametrize("hook", [*AGENT_HOOKS, "before_run_callback", "on_event_callback"])
def test_a_hook_that_waits_is_cancelled_with_its_agent(hook: str) -> None:
    member = failing() if hook == "on_agent_error_callback" else saying()
    tree = SequentialAgent("s", [member])

    async def main() -> tuple[float, bool]:
        with suppress(BoomError):  # of which the hook was thinking
            async with Runner(tree, plugins=[plugin(**only(hook, asleep))]).open("hi") as run:
                with trio.move_on_after(7):
                    await read_all(run)
                run.cancel("enough")
                await read_all(run)
        return trio.current_time(), run.result.status is Status.COMPLETED

    assert run_virtual(main) == (7, False)


@pytest.mark.parametrize("hook", ["on_user_message_callback", "after_run_callback"])
def test_a_hook_that_waits_outside_the_tree_is_cancelled_with_the_block(hook: str) -> None:
    async def main() -> tuple[float, bool]:
        with trio.move_on_after(7) as limit:
            await Runner(saying(), plugins=[plugin(**only(hook, asleep))]).run("hi")
        return trio.current_time(), limit.cancelled_caught

    assert run_virtual(main) == (7, True)


def test_no_cancellation_is_in_what_a_failing_hook_lets_out() -> None:
    async def impatient(ctx: InvocationContext) -> None:
        with trio.fail_after(1):
            await trio.sleep_forever()

    tree = ParallelAgent("f", [leaf("a", 60), saying("b")])
    only_b = plugin(before_agent_callback=lambda c: impatient(c) if c.path == "f/b" else None)
    ended = run_with([only_b], tree)
    assert isinstance(ended.error, PluginError)
    assert isinstance(ended.error.__cause__, trio.TooSlowError)
    assert ended.outcomes("f") == {"a": "cancelled", "b": "failed"}
    ended.error.__cause__.__context__ = None  # trio's own, of the time limit
    ended.error.__cause__.__cause__ = None
    assert not holds_cancellation(ended.error)


def test_a_hook_that_emits_on_a_branch_ended_by_a_sibling_has_not_failed() -> None:
    async def late(ctx: InvocationContext) -> None:
        if ctx.agent.name == "b":
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
                await ctx.emit("late")

    tree = ParallelAgent("f", [leaf("a", 1, Escalate()), leaf("b")])
    ended = run_with([plugin(after_agent_callback=late)], tree)
    assert ended.error is None
    assert ended.outcomes("f") == {"a": "completed", "b": "cancelled"}


def test_a_plugin_that_raises_what_belongs_to_another_run_has_failed() -> None:
    """It is not this agent's branch that has ended, so it is not cancelled."""
    kept: list[InvocationContext] = []

    async def main() -> Ended:
        await Runner(leaf("old", kept.append)).run("hi")
        through_another = plugin("mixed", before_agent_callback=lambda _ctx: kept[0].emit("x"))
        return await open_and_read(Runner(saying(), plugins=[through_another]))

    ended = trio.run(main)
    assert isinstance(ended.error, PluginError)
    assert ended.result.status is Status.FAILED


# ------------------------------------------------------------------------------- runs and contexts


def test_one_plugin_serves_runs_at_the_same_time_that_do_not_mix() -> None:
    lines: list[tuple[str, str]] = []

    async def begin(ctx: InvocationContext) -> None:
        lines.append((ctx.invocation_id, f"{ctx.user_text} begins"))
        await trio.sleep(len(ctx.user_text))

    def end(ctx: InvocationContext, result: Result) -> None:
        assert result.invocation_id == ctx.invocation_id
        lines.append((ctx.invocation_id, f"{ctx.user_text} ends"))

    runner = Runner(
        leaf("a", 5), plugins=[plugin(before_agent_callback=begin, after_run_callback=end)]
    )

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for message in ("three", "two", "four"):
                nursery.start_soon(runner.run, message)

    run_virtual(main)
    assert len({run for run, _ in lines}) == 3
    for run in {run for run, _ in lines}:
        first, last = (line for of, line in lines if of == run)
        assert first.split()[0] == last.split()[0]
    assert [line for _, line in lines if "ends" in line] == ["two ends", "four ends", "three ends"]


def test_a_context_variable_set_before_an_agent_is_seen_by_it_and_below_and_nowhere_else() -> None:
    current: ContextVar[str] = ContextVar("current", default="nothing")
    seen: dict[str, str] = {}

    def bind(ctx: InvocationContext) -> None:
        if ctx.agent.name in ("f", "b", "c"):
            current.set(ctx.agent.name)

    def note(ctx: InvocationContext) -> None:
        seen[ctx.agent.name] = current.get()

    def in_thread(ctx: InvocationContext) -> None:
        note(ctx)

    tree = SequentialAgent(
        "s",
        [
            ParallelAgent("f", [leaf("a", 1, note), leaf("b", note), agent(in_thread, name="c")]),
            leaf("d", note),
        ],
    )
    run_with([plugin(before_agent_callback=bind)], tree)
    assert seen == {"a": "f", "b": "b", "c": "c", "d": "nothing"}


class EmptyError(Exception):
    """An exception that counts as false."""

    def __len__(self) -> int:
        return 0


async def test_what_the_block_raised_stays_whatever_its_truth(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Fails(Plugin):
        async def after_run_callback(self, *_args: object) -> None:
            raise ValueError

    with pytest.raises(EmptyError) as raised:
        async with Runner(leaf("a", "said"), plugins=[Fails()]).open():
            raise EmptyError
    assert any("after_run_callback" in note for note in raised.value.__notes__)
