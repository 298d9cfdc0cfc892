"""What is called before and after an agent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio

from parallel_agent import (
    Agent,
    AgentCallback,
    Content,
    EmitError,
    Event,
    EventActions,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Runner,
    SequentialAgent,
    Status,
    agent,
)
from tests.support.ids import shown
from tests.workflow.trees import Diary, leaf, leaves, open_and_read, run_tree, texts

Made = Callable[..., Agent]


def sequential(diary: Diary, **options: Any) -> Agent:
    return SequentialAgent("tree", leaves("child", "said", diary=diary), **options)


def parallel(diary: Diary, **options: Any) -> Agent:
    return ParallelAgent("tree", leaves("child", "said", diary=diary), **options)


def loop(diary: Diary, **options: Any) -> Agent:
    return LoopAgent("tree", leaves("child", "said", diary=diary), max_iterations=1, **options)


def generator(diary: Diary, **options: Any) -> Agent:
    return leaf("tree", "said", diary=diary, **options)


def coroutine(diary: Diary, **options: Any) -> Agent:
    async def run(ctx: InvocationContext) -> str:
        diary.append("runs")
        return "said"

    return agent(run, name="tree", **options)


def function(diary: Diary, **options: Any) -> Agent:
    def run(ctx: InvocationContext) -> str:
        diary.append("runs")
        return "said"

    return agent(run, name="tree", **options)


class Custom(Agent):
    """Yields."""

    def __init__(self, diary: Diary, **options: Any) -> None:
        super().__init__("tree", **options)
        self.diary = diary

    async def run(self, ctx: InvocationContext) -> Any:
        self.diary.append(f"{ctx.agent.name} runs")
        yield "said"


every_kind = pytest.mark.parametrize(
    "make", [sequential, parallel, loop, generator, coroutine, function, Custom]
)


def says(what: Any, *, diary: Diary | None = None, name: str = "callback") -> AgentCallback:
    """Return a callback that returns ``what``."""

    def callback(ctx: InvocationContext) -> Any:
        if diary is not None:
            diary.append(name)
        return what

    return callback


def says_later(what: Any) -> AgentCallback:
    """Return an async callback that takes a second."""

    async def callback(ctx: InvocationContext) -> Any:
        await trio.sleep(1)
        return what

    return callback


def calling(place: str, callback: Any) -> Agent:
    """A silent leaf with this callback, or these callbacks, at ``place``."""
    options: dict[str, Any] = {place: callback}
    return leaf("a", **options)


# ----------------------------------------------------------------------------------------- before


@every_kind
@pytest.mark.parametrize("make_callback", [says, says_later])
def test_what_the_one_before_returns_replaces_the_run_of_any_agent(
    make: Made, make_callback: Callable[[Any], AgentCallback]
) -> None:
    diary: Diary = []
    ended = run_tree(make(diary, before_agent_callback=make_callback("instead")))
    assert texts(ended.delivered) == ["instead"]
    assert [(event.author, event.path) for event in ended.delivered] == [("tree", "tree")]
    assert diary == []
    assert ended.result.status is Status.COMPLETED


@every_kind
@pytest.mark.parametrize("make_callback", [says, says_later])
def test_if_it_returns_nothing_the_agent_runs(
    make: Made, make_callback: Callable[[Any], AgentCallback]
) -> None:
    assert texts(run_tree(make([], before_agent_callback=make_callback(None))).delivered) == [
        "said"
    ]


@every_kind
def test_what_replaces_the_run_is_the_output_and_is_stored(make: Made) -> None:
    ended = run_tree(make([], before_agent_callback=says("instead"), output_key="k"))
    assert (ended.result.output, dict(ended.result.state)) == ("instead", {"k": "instead"})


def test_a_replaced_run_has_no_callback_after_it() -> None:
    tree = leaf("a", "said", before_agent_callback=says("instead"), after_agent_callback=says("no"))
    assert texts(run_tree(tree).delivered) == ["instead"]


@pytest.mark.parametrize(
    ("what", "output"),
    [
        ("text", "text"),
        (Content("content"), "content"),
        (Event("event"), "event"),
        (Event("event", output=[1]), [1]),
    ],
    ids=["text", "content", "event", "event with output"],
)
def test_text_a_content_or_an_event_can_be_returned(what: Any, output: object) -> None:
    ended = run_tree(leaf("a", "said", before_agent_callback=says(what)))
    assert (len(ended.delivered), ended.result.output) == (1, output)


@pytest.mark.parametrize("place", ["before_agent_callback", "after_agent_callback"])
@pytest.mark.parametrize("what", [7, False, {"a": 1}, ["text"], object()], ids=shown)
def test_anything_else_fails_the_agent_with_an_error_that_names_the_type(
    place: str, what: object
) -> None:
    ended = run_tree(calling(place, says(what)))
    assert isinstance(ended.error, EmitError)
    assert type(what).__name__ in str(ended.error)
    assert ended.notes == ["raised by agent a"]


def test_empty_text_is_something() -> None:
    """Only None is nothing."""
    diary: Diary = []
    ended = run_tree(leaf("a", "said", diary=diary, before_agent_callback=says("")))
    assert ([event.text for event in ended.delivered], diary) == ([""], [])


# ------------------------------------------------------------------------------------------- after


@every_kind
@pytest.mark.parametrize("make_callback", [says, says_later])
def test_what_the_one_after_returns_is_one_more_event_of_the_agent(
    make: Made, make_callback: Callable[[Any], AgentCallback]
) -> None:
    ended = run_tree(make([], after_agent_callback=make_callback("more")))
    assert texts(ended.delivered) == ["said", "more"]
    assert ended.delivered[-1].author == "tree"


@every_kind
def test_its_text_counts_as_the_last_word(make: Made) -> None:
    ended = run_tree(make([], after_agent_callback=says("more"), output_key="k"))
    assert (ended.result.output, ended.result.state["k"]) == ("more", "more")


def test_its_text_does_not_replace_an_output_that_was_given_as_such() -> None:
    tree = agent(lambda _: 7, name="a", after_agent_callback=says("more"))
    ended = run_tree(tree)
    assert (texts(ended.delivered), ended.result.output) == (["more"], 7)


@every_kind
def test_if_it_returns_nothing_nothing_is_added(make: Made) -> None:
    assert texts(run_tree(make([], after_agent_callback=says(None))).delivered) == ["said"]


def test_it_is_called_when_the_agents_last_event_has_been_acknowledged() -> None:
    called: list[float] = []

    def note(ctx: InvocationContext) -> None:
        called.append(trio.current_time())

    run_tree(leaf("a", 1, "said", after_agent_callback=note), pause=10)
    assert called == [11]


def test_it_is_not_called_when_the_agent_failed() -> None:
    diary: Diary = []
    tree = leaf("a", KeyError("x"), after_agent_callback=says("more", diary=diary))
    assert run_tree(tree).delivered == []
    assert diary == []


async def test_it_is_not_called_when_the_agent_was_cancelled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    diary: Diary = []
    with trio.move_on_after(5):
        await open_and_read(leaf("a", 10, after_agent_callback=says("more", diary=diary)))
    assert diary == []


# ----------------------------------------------------------------------------------------- several


@pytest.mark.parametrize("place", ["before_agent_callback", "after_agent_callback"])
def test_several_are_called_in_order_until_one_returns_something(place: str) -> None:
    diary: Diary = []
    callbacks = [
        says(None, diary=diary, name="first"),
        says("second", diary=diary, name="second"),
        says("third", diary=diary, name="third"),
    ]
    ended = run_tree(calling(place, callbacks))
    assert (diary, texts(ended.delivered)) == (["first", "second"], ["second"])


def test_plain_and_async_ones_can_be_mixed() -> None:
    callbacks = [says(None), says_later(None), says_later("async"), says("plain")]
    assert texts(run_tree(leaf("a", before_agent_callback=callbacks)).delivered) == ["async"]


def test_an_object_or_a_partial_can_be_one() -> None:
    class Thing:
        async def __call__(self, ctx: InvocationContext) -> str:
            return f"of {ctx.agent.name}"

    def greet(greeting: str, ctx: InvocationContext) -> str:
        return f"{greeting}, {ctx.agent.name}"

    tree = SequentialAgent(
        "s",
        [
            leaf("a", before_agent_callback=Thing()),
            leaf("b", before_agent_callback=partial(greet, "hello")),
        ],
    )
    assert texts(run_tree(tree).delivered) == ["of a", "hello, b"]


# ---------------------------------------------------------------------------- what they see and do


def test_a_callback_is_given_the_context_of_its_agent() -> None:
    seen: list[object] = []

    def look(ctx: InvocationContext) -> None:
        seen.append((ctx.agent.name, ctx.branch, ctx.path, ctx.user_text))

    run_tree(
        ParallelAgent("p", [leaf("a", before_agent_callback=look, after_agent_callback=look)]),
        message="hello",
    )
    assert seen == [("a", "p.a", "p/a", "hello")] * 2


def test_what_the_one_before_writes_the_agent_reads_and_records() -> None:
    def write(ctx: InvocationContext) -> None:
        ctx.state["k"] = 1

    seen: list[object] = []
    tree = leaf("a", lambda ctx: seen.append(ctx.state["k"]), "x", before_agent_callback=write)
    ended = run_tree(tree)
    assert seen == [1]
    assert [dict(event.state_delta) for event in ended.delivered] == [{"k": 1}]


def test_what_the_one_after_writes_is_recorded_though_it_returns_nothing() -> None:
    def write(ctx: InvocationContext) -> None:
        ctx.state["k"] = 1

    ended = run_tree(leaf("a", "x", after_agent_callback=write))
    assert [dict(event.state_delta) for event in ended.delivered] == [{}, {"k": 1}]


def test_what_a_composites_callback_writes_its_children_read() -> None:
    def write(ctx: InvocationContext) -> None:
        ctx.state["k"] = 1

    seen: list[object] = []
    children = [leaf(name, lambda ctx: seen.append(ctx.state["k"])) for name in "ab"]
    run_tree(ParallelAgent("p", children, before_agent_callback=write))
    assert seen == [1, 1]


def test_an_async_one_can_emit() -> None:
    async def announce(ctx: InvocationContext) -> None:
        await ctx.emit("here it comes")

    assert texts(run_tree(leaf("a", "x", before_agent_callback=announce)).delivered) == [
        "here it comes",
        "x",
    ]


def test_one_event_that_a_callback_returns_every_time_is_refused_the_second_time() -> None:
    once = Event("x", actions=EventActions())
    tree = LoopAgent("l", [leaf("a", before_agent_callback=says(once))], max_iterations=2)
    ended = run_tree(tree)
    assert isinstance(ended.error, EmitError)
    assert texts(ended.delivered) == ["x"]


@pytest.mark.parametrize("place", ["before_agent_callback", "after_agent_callback"])
@every_kind
def test_what_a_callback_raises_is_its_agents_failure(make: Made, place: str) -> None:
    error = KeyError("x")

    def fail(ctx: InvocationContext) -> None:
        raise error

    async def wait(ctx: InvocationContext) -> None:
        # For ever: virtual time passes while a thread works.
        await trio.sleep_forever()

    tree = ParallelAgent("p", [leaf("sibling", wait), make([], **{place: fail})])
    ended = run_tree(tree)
    assert ended.error is error
    assert ended.notes == ["raised by agent p/tree"]
    assert ended.outcomes("p") == {"sibling": "cancelled", "tree": "failed"}


@pytest.mark.parametrize("place", ["before_agent_callback", "after_agent_callback"])
async def test_a_callback_that_waits_is_cancelled_with_the_run(
    autojump_clock: trio.testing.MockClock, place: str
) -> None:
    diary: Diary = []

    async def wait(ctx: InvocationContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            diary.append("callback ends")

    async with Runner(calling(place, wait)).open() as run:
        await trio.sleep(5)
    assert diary == ["callback ends"]
    assert run.result.status is Status.CANCELLED


def test_a_callback_that_waits_does_not_hold_up_the_siblings_of_its_agent() -> None:
    tree = ParallelAgent(
        "p", [leaf("a", "late", before_agent_callback=says_later(None)), leaf("b", "early")]
    )
    assert texts(run_tree(tree).delivered) == ["early", "late"]
