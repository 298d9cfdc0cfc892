"""What an agent is given to work on: JSON, structured strictly to what its function declares."""

# ruff: noqa: ARG002, ARG003, ARG004, ARG005  # what a function is called with, it need not use

from __future__ import annotations

import functools
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import Enum, IntEnum, StrEnum
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict, cast

import attrs
import pytest

from parallel_agent import (
    Agent,
    AgentFunctionError,
    FrozenValueError,
    InputError,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Retry,
    SchemaTypeError,
    SequentialAgent,
    UnstorableError,
    agent,
)
from parallel_agent.inputs import to_json
from tests.workflow.trees import Ended, leaf, run_tree

# ------------------------------------------------------------------------------ what is given


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Mood(StrEnum):
    GOOD = "good"


@attrs.frozen
class Line:
    item: str
    count: int = 1


@dataclass
class Order:
    id: int
    lines: list[Line] = field(default_factory=list)
    colour: Colour = Colour.RED


class Options(TypedDict):
    deep: bool
    limit: NotRequired[int]


class Point(NamedTuple):
    x: int
    y: float


@attrs.define
class Tree:
    """Contains itself."""

    name: str
    below: list[Tree] = attrs.field(factory=list)


def given(child: Agent, item: Any) -> Ended:
    """Run ``child`` with one input, as the only branch of a map."""

    @agent
    async def parent(ctx: InvocationContext) -> None:
        await ctx.map(child, [item])

    return run_tree(parent)


def taking(annotation: Any) -> tuple[Agent, list[Any]]:
    """Return an agent whose input has that annotation, and where it puts what it got."""
    got: list[Any] = []

    async def worker(ctx: InvocationContext, item: Any) -> None:
        got.append(item)

    worker.__annotations__["item"] = annotation
    return agent(worker), got


def check_got(annotation: Any, item: Any, expected: Any) -> None:
    child, got = taking(annotation)
    ended = given(child, item)
    assert ended.error is None
    assert got == [expected]
    assert type(got[0]) is type(expected)


WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NAME = uuid.UUID(int=5)


@pytest.mark.parametrize(
    ("annotation", "item", "expected"),
    [
        (int, 3, 3),
        (str, "3", "3"),
        (float, 3, 3.0),
        (bool, True, True),
        (None, None, None),
        (int | None, None, None),
        (list[int], [1, 2], [1, 2]),
        (list[int], (1, 2), [1, 2]),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], (1, 2, 3), (1, 2, 3)),
        (set[int], {2, 1}, {1, 2}),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (Literal["a", "b"], "b", "b"),
        (Colour, Colour.BLUE, Colour.BLUE),
        (Colour, "blue", Colour.BLUE),
        (Size, Size.LARGE, Size.LARGE),
        (Mood, Mood.GOOD, Mood.GOOD),
        (str, Mood.GOOD, "good"),
        (Line, Line("x", 2), Line("x", 2)),
        (Line, {"item": "x"}, Line("x")),
        (Order, Order(1, [Line("x"), Line("y", 3)], Colour.BLUE), None),
        (Options, Options(deep=True), {"deep": True}),
        (Options, {"deep": False, "limit": 3}, {"deep": False, "limit": 3}),
        (Point, Point(1, 2.5), Point(1, 2.5)),
        (Tree, Tree("a", [Tree("b", [Tree("c")])]), None),
        (datetime, WHEN, WHEN),
        (date, date(2026, 1, 2), date(2026, 1, 2)),
        (uuid.UUID, NAME, NAME),
        (list[Line], [Line("x"), {"item": "y"}], [Line("x"), Line("y")]),
        (dict[str, list[Line]], {"a": (Line("x"),)}, {"a": [Line("x")]}),
        (dict[str, Any], {"a": [Line("x"), Colour.RED]}, None),
        (Line | Options, Line("x"), Line("x")),
        (Line | Options, {"deep": True}, {"deep": True}),
    ],
)
def test_an_input_reaches_the_function_as_its_annotation_says(
    annotation: Any, item: Any, expected: Any
) -> None:
    if annotation == dict[str, Any]:
        expected = {"a": [{"item": "x", "count": 1}, "red"]}
    check_got(annotation, item, item if expected is None and item is not None else expected)


def test_without_an_annotation_it_is_the_json_value() -> None:
    got: list[Any] = []

    def worker(ctx, item):  # type: ignore[no-untyped-def]  # the point
        got.append(item)

    ended = given(agent(worker), {"a": [Line("x"), {1, 2}]})
    assert ended.error is None
    assert got == [{"a": [{"item": "x", "count": 1}, [1, 2]]}]


def test_an_agent_that_declares_nothing_asks_its_context() -> None:
    @agent
    async def worker(ctx: InvocationContext) -> Any:
        return ctx.input

    assert given(worker, Line("x")).result.outputs["worker"] == {"item": "x", "count": 1}


def test_an_agent_that_is_a_class_asks_its_context() -> None:
    class Worker(Agent):
        async def run(self, ctx: InvocationContext) -> Any:
            return ctx.input

    assert given(Worker("worker"), [1]).result.outputs["worker"] == [1]


def test_the_context_has_the_structured_input_as_well() -> None:
    @agent
    async def worker(ctx: InvocationContext, line: Line) -> bool:
        return bool(ctx.input == line)

    assert given(worker, Line("x")).result.outputs["worker"] is True


def test_changing_what_was_given_changes_nothing_any_more() -> None:
    items = [1]
    seen: list[Any] = []

    @agent
    async def worker(ctx: InvocationContext, item: list[int]) -> None:
        items.append(2)
        item.append(3)
        seen.append(ctx.input)

    @agent
    async def parent(ctx: InvocationContext) -> None:
        await ctx.map(worker, [items, items], max_concurrency=1)

    run_tree(parent)
    assert seen == [[1], [1]]


def test_an_input_that_nobody_structured_cannot_be_changed() -> None:
    @agent
    async def worker(ctx: InvocationContext) -> None:
        ctx.input.append(2)

    assert isinstance(given(worker, [1]).error, FrozenValueError)


# --------------------------------------------------------------------------- who takes an input


class Caller:
    async def __call__(self, ctx: InvocationContext, line: Line) -> int:
        return line.count

    async def method(self, ctx: InvocationContext, line: Line) -> int:
        return line.count

    def plain(self, ctx: InvocationContext, line: Line) -> int:
        return line.count

    @staticmethod
    async def static(ctx: InvocationContext, line: Line) -> int:
        return line.count

    @classmethod
    async def of_class(cls, ctx: InvocationContext, line: Line) -> int:
        return line.count


async def coroutine(ctx: InvocationContext, line: Line) -> int:
    return line.count


async def generator(ctx: InvocationContext, line: Line) -> AsyncIterator[str]:
    yield str(line.count)


def plain(ctx: InvocationContext, line: Line) -> int:
    assert threading.current_thread() is not threading.main_thread()
    return line.count


async def three(more: int, ctx: InvocationContext, line: Line) -> int:
    return line.count + more


async def forward(ctx: InvocationContext, later: Later) -> int:
    return later.count


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(*args: Any) -> Any:
        return await function(*args)

    return wrapper


@pytest.mark.parametrize(
    "function",
    [
        coroutine,
        generator,
        plain,
        Caller(),
        Caller().method,
        Caller().plain,
        Caller.static,
        Caller.of_class,
        functools.partial(three, 0),
        functools.partial(coroutine),
        functools.partial(functools.partial(three, 0)),
        decorated(coroutine),
        forward,
    ],
)
def test_every_kind_of_function_may_take_an_input(function: Any) -> None:
    child = agent(function, name="worker")
    assert child.input_schema is not None
    assert given(child, Line("x", 7)).result.outputs["worker"] in (7, "7")


def test_an_annotation_may_name_what_is_defined_further_down() -> None:
    assert given(agent(forward, name="worker"), {"item": "x"}).result.outputs["worker"] == 1


def test_an_annotation_that_means_nothing_is_a_clear_error_of_that_branch() -> None:
    async def worker(ctx: InvocationContext, item: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821  # the point
        pass

    ended = given(agent(worker), 1)
    assert isinstance(ended.error, AgentFunctionError)
    assert "'Nowhere'" in str(ended.error)
    assert "'worker'" in str(ended.error)


def test_an_annotation_of_which_nobody_can_tell_what_fits_is_refused_at_once() -> None:
    async def worker(ctx: InvocationContext, item: Callable[[], int]) -> None:
        pass

    with pytest.raises(SchemaTypeError):
        agent(worker)


def loop_of_lambdas() -> list[Agent]:
    return [agent(lambda ctx, i=i: i, name=f"a{i}") for i in range(3)]


def test_a_default_is_no_input() -> None:
    ended = run_tree(ParallelAgent("p", loop_of_lambdas()))
    assert ended.result.output == {"a0": 0, "a1": 1, "a2": 2}


class Defaults:
    async def method(self, ctx: InvocationContext, item: int = 5) -> int:
        return item

    async def __call__(self, ctx: InvocationContext, item: int = 5, more: int = 0) -> int:
        return item + more


async def with_default(ctx: InvocationContext, item: int = 5) -> int:
    return item


async def yields_default(ctx: InvocationContext, item: int = 5) -> AsyncIterator[str]:
    yield str(item)


def plain_default(ctx: InvocationContext, item: int = 5) -> int:
    return item


async def positional_default(ctx: InvocationContext, item: int = 5, /, *more: int) -> int:
    return item + sum(more)


async def three_with_default(more: int, ctx: InvocationContext, item: int = 5) -> int:
    return item + more


ANNOTATED_DEFAULTS = pytest.mark.parametrize(
    "function",
    [
        with_default,
        yields_default,
        plain_default,
        positional_default,
        Defaults().method,
        Defaults(),
        functools.partial(three_with_default, 0),
        decorated(with_default),
    ],
)


@ANNOTATED_DEFAULTS
def test_an_annotated_parameter_is_the_input_although_it_has_a_default(function: Any) -> None:
    child = agent(function, name="worker")
    assert child.input_schema is not None
    assert given(child, 1).result.outputs["worker"] in (1, "1")


@ANNOTATED_DEFAULTS
def test_a_default_stands_if_no_input_was_given(function: Any) -> None:
    child = agent(function, name="worker")
    assert not child.needs_input
    assert run_tree(SequentialAgent("s", [child])).result.outputs["worker"] in (5, "5")


@pytest.mark.parametrize("function", [with_default, yields_default, plain_default])
def test_an_input_for_a_parameter_with_a_default_is_structured_and_checked(function: Any) -> None:
    ended = given(agent(function, name="worker"), "1")
    assert isinstance(ended.error, InputError)
    assert "(parent/worker@1 on branch parent.worker@1): a whole number is needed, not '1'" in str(
        ended.error
    )


def test_an_object_for_a_parameter_with_a_default_is_made_again() -> None:
    @agent
    async def worker(ctx: InvocationContext, line: Line = Line("default")) -> str:  # frozen
        return line.item

    assert given(worker, Line("given")).result.outputs["worker"] == "given"


def test_none_is_an_input_like_any_other_and_not_the_default() -> None:
    @agent
    async def worker(ctx: InvocationContext, item: int | None = 5) -> str:
        return repr(item)

    assert given(worker, None).result.outputs["worker"] == "None"


def test_the_input_of_a_workflow_takes_the_place_of_a_default() -> None:
    tree = SequentialAgent("w", [agent(with_default)])
    assert given(tree, 1).result.outputs["with_default"] == 1


def test_the_context_has_no_input_where_the_default_stands() -> None:
    @agent
    async def worker(ctx: InvocationContext, item: int = 5) -> str:
        return f"{item} {ctx.input}"

    assert run_tree(worker).result.text == "5 None"


def test_a_parameter_with_a_default_and_without_annotation_is_no_input() -> None:
    tree = ParallelAgent("p", loop_of_lambdas())
    assert given(tree, 7).result.outputs["p"] == {"a0": 0, "a1": 1, "a2": 2}


def test_a_keyword_only_parameter_is_no_input_whatever_its_annotation() -> None:
    @agent
    async def worker(ctx: InvocationContext, *, item: int = 5) -> list[int]:
        return [item, ctx.input]

    assert worker.input_schema is None
    assert given(worker, 1).result.outputs["worker"] == [5, 1]


def test_a_default_that_cannot_be_an_input_is_refused_with_a_way_out() -> None:
    async def worker(ctx: InvocationContext, call: Callable[[], int] = int) -> None:
        pass

    with pytest.raises(SchemaTypeError, match="if 'call' is no input, make it keyword-only"):
        agent(worker)


def test_an_annotation_that_means_nothing_does_not_matter_where_the_default_stands() -> None:
    async def worker(ctx: InvocationContext, item: Nowhere = 5) -> int:  # type: ignore[name-defined]  # noqa: F821  # the point
        return cast("int", item)

    assert run_tree(agent(worker)).result.outputs["worker"] == 5


@pytest.mark.parametrize(
    "function",
    [
        lambda ctx, *more: len(more),
        lambda *everything: len(everything) - 1,
        lambda ctx, **options: len(options),
        lambda ctx, *, option=0: option,
        lambda ctx, a=0, b=0: a + b,
    ],
)
def test_what_is_not_needed_is_not_given(function: Any) -> None:
    child = agent(function, name="worker")
    assert child.input_schema is None
    assert given(child, 1).result.outputs["worker"] == 0


@pytest.mark.parametrize(
    "function",
    [lambda ctx, a, b: None, lambda ctx, a, *, option: None, lambda ctx, *, needed: None],
)
def test_a_function_that_needs_more_is_refused_when_it_is_defined(function: Any) -> None:
    with pytest.raises(AgentFunctionError, match="with its input if it needs a second argument"):
        agent(function, name="worker")


def test_a_changed_copy_takes_the_same_input() -> None:
    child = agent(coroutine, name="worker").with_options(name="copy", timeout=5)
    assert given(child, Line("x", 7)).result.outputs["copy"] == 7


# ----------------------------------------------------------------------------- strictly


@pytest.mark.parametrize(
    ("annotation", "item", "said"),
    [
        (bool, "no", "true or false is needed, not 'no'"),
        (bool, 0, "true or false is needed, not 0"),
        (int, 3.9, "a whole number is needed, not 3.9"),
        (int, 3.0, "a whole number is needed, not 3.0"),
        (int, "3", "a whole number is needed, not '3'"),
        (int, True, "a whole number is needed, not true"),
        (str, 3, "text is needed, not 3"),
        (int, None, "a whole number is needed, not null"),
        (Line, {"item": "x", "colour": "red"}, "colour"),
        (Line, {"count": 3}, "item"),
        (Order, {"id": 1, "lines": [{"item": "x"}, {"item": "y", "count": "2"}]}, "lines[1].count"),
        (list[Line], [Line("x"), {"item": 3}], "[1].item"),
        (Colour, "green", "green"),
        (Options, {"deep": 1}, "deep"),
    ],
)
def test_an_input_that_does_not_fit_is_an_error_that_names_the_field(
    annotation: Any, item: Any, said: str
) -> None:
    child, got = taking(annotation)
    ended = given(child, item)
    assert isinstance(ended.error, InputError)
    assert said in str(ended.error)
    assert got == []


def test_the_error_names_agent_path_branch_and_field() -> None:
    ended = given(agent(coroutine, name="worker"), {"item": "x", "count": "2"})
    assert str(ended.error).startswith(
        "the input of agent 'worker' (parent/worker@1 on branch parent.worker@1): count: "
    )
    assert ended.notes == ["raised by agent parent/worker@1"]


def test_an_input_that_does_not_fit_fails_its_own_branch_only() -> None:
    @agent
    async def parent(ctx: InvocationContext) -> list[Any]:
        outcomes = await ctx.map_outcomes(agent(coroutine), [Line("x", 5), {"item": 1}, Line("y")])
        assert isinstance(outcomes[1].error, InputError)
        return [outcome.output for outcome in outcomes]

    assert run_tree(parent).result.output == [5, None, 1]


@pytest.mark.parametrize("function", [coroutine, generator, plain])
def test_an_input_that_does_not_fit_is_not_tried_again(function: Any) -> None:
    child = agent(function, name="worker", retry=Retry(5))
    ended = given(child, 1)
    assert isinstance(ended.error, InputError)
    assert ended.time == 0
    assert ended.outcome("parent", "worker@1").attempts == 1


def test_an_agent_that_asks_its_context_may_catch_the_error() -> None:
    """It declares the type by taking it, and is not called at all: so only from below."""

    @agent
    async def parent(ctx: InvocationContext) -> str:
        try:
            await ctx.run_agent(agent(coroutine), {"item": 1})
        except InputError as exc:
            return str(exc)
        return "not refused"

    assert "(parent/coroutine@1)" in run_tree(parent).result.text


# -------------------------------------------------------------------- where an input comes from


def test_an_agent_that_needs_an_input_and_gets_none_says_how_to_give_it_one() -> None:
    ended = run_tree(SequentialAgent("s", [agent(coroutine, name="worker")]))
    assert isinstance(ended.error, InputError)
    assert str(ended.error) == (
        "agent 'worker' (s/worker) takes an input, and was given none: run it with "
        "ctx.run_agent(worker, input), ctx.map or ctx.fan_out, or let an edge of a graph lead to it"
    )


@pytest.mark.parametrize("start", ["run_agent", "fan_out", "open_fan_out", "open_agent"])
def test_none_is_given_by_default_however_it_is_started(start: str) -> None:
    child = agent(coroutine, name="worker")

    @agent
    async def parent(ctx: InvocationContext) -> None:
        match start:
            case "run_agent":
                await ctx.run_agent(child)
            case "fan_out":
                await ctx.fan_out([child])
            case "open_fan_out":
                async with ctx.open_fan_out() as group:
                    group.start(child)
            case _:
                async with ctx.open_agent(child) as events:
                    async for _ in events:
                        pass

    ended = run_tree(parent)
    assert isinstance(ended.error, InputError)
    assert "was given none" in str(ended.error)


@pytest.mark.parametrize("start", ["run_agent", "fan_out", "open_fan_out", "open_agent"])
def test_an_input_may_be_given_however_it_is_started(start: str) -> None:
    child = agent(coroutine, name="worker")

    @agent
    async def parent(ctx: InvocationContext) -> None:
        line = Line("x", 3)
        match start:
            case "run_agent":
                assert await ctx.run_agent(child, line) == 3
            case "fan_out":
                await ctx.fan_out([(child, line)])
            case "open_fan_out":
                async with ctx.open_fan_out() as group:
                    group.start(child, line)
            case _:
                async with ctx.open_agent(child, line) as events:
                    async for event in events:
                        await ctx.emit(event)

    ended = run_tree(parent)
    assert ended.error is None
    assert ended.result.outputs["worker"] == 3


def test_none_may_be_what_is_given() -> None:
    @agent
    async def worker(ctx: InvocationContext, item: int | None) -> str:
        return repr(item)

    assert given(worker, None).result.outputs["worker"] == "None"


def test_without_any_input_the_context_has_none() -> None:
    @agent
    async def worker(ctx: InvocationContext) -> str:
        return repr(ctx.input)

    assert run_tree(worker).result.text == "None"


@pytest.mark.parametrize(
    "workflow",
    [
        lambda child: SequentialAgent("w", [leaf("first"), child]),
        lambda child: ParallelAgent("w", [leaf("beside"), child]),
        lambda child: LoopAgent("w", [child], max_iterations=1),
        lambda child: SequentialAgent(
            "w", [ParallelAgent("p", [LoopAgent("l", [child], max_iterations=1)])]
        ),
    ],
)
def test_the_input_of_a_workflow_is_for_the_agents_in_it(workflow: Any) -> None:
    child = agent(coroutine, name="worker")
    assert given(workflow(child), Line("x", 4)).result.outputs["worker"] == 4


def test_a_nearer_input_counts() -> None:
    worker = agent(coroutine, name="worker")

    @agent
    async def middle(ctx: InvocationContext) -> Any:
        return await ctx.run_agent(worker, Line("near", 2))

    assert given(middle, Line("far", 1)).result.outputs["worker"] == 2


def test_an_agent_run_without_an_input_works_on_what_its_parent_works_on() -> None:
    worker = agent(coroutine, name="worker")

    @agent
    async def middle(ctx: InvocationContext) -> Any:
        return [outcome.output for outcome in await ctx.fan_out([worker, (worker, Line("x", 2))])]

    assert given(middle, Line("far", 1)).result.outputs["middle"] == [1, 2]


def test_callbacks_see_the_input_too() -> None:
    seen: list[Any] = []

    def look(ctx: InvocationContext) -> None:
        seen.append(ctx.input)

    child = agent(coroutine, name="worker", before_agent_callback=look, after_agent_callback=look)
    given(child, Line("x"))
    assert seen == [Line("x")] * 2


# ----------------------------------------------------------------------------------- refusals


class Text(str):
    """A text with a class of its own."""

    __slots__ = ()


@attrs.frozen
class Holds:
    what: Any


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (object(), "it is a object"),
        (Text("x"), "values of Text cannot be checked"),
        (b"bytes", "values of bytes cannot be checked"),
        (1j, "values of complex cannot be checked"),
        (float("inf"), "it is inf"),
        (iter([1]), "values of list_iterator cannot be checked"),
        (Holds(object()), "what: a object has no JSON form"),
        (Order(1, cast("Any", [1])), "lines[0]"),
        ({"a": {"b": [object()]}}, "a.b[0]: a object has no JSON form"),
        ({1: "x"}, "the key 1 is no text"),
    ],
)
def test_an_input_without_a_json_form_is_refused_where_it_is_given(item: Any, said: str) -> None:
    started: list[str] = []

    async def try_it(ctx: InvocationContext) -> str:
        whose = "the input of agent 'child'"
        ways: list[tuple[Callable[[], Any], str]] = [
            (lambda: ctx.run_agent(child, item), whose),
            (lambda: ctx.open_agent(child, item), whose),
            (lambda: ctx.map(child, [1, item]), f"items[1], {whose},"),
            (lambda: ctx.map_outcomes(child, [1, item]), f"items[1], {whose},"),
            (lambda: ctx.fan_out([child, (child, 1), (child, item)]), f"tasks[2], {whose},"),
        ]
        for way, what in ways:
            with pytest.raises(UnstorableError) as refused:
                await way()
            assert str(refused.value).startswith(f"{what} has no JSON form: {said}")
        async with ctx.open_fan_out() as group:
            with pytest.raises(UnstorableError) as refused:
                group.start(child, item, key="k")
            assert str(refused.value).startswith(f"{whose} has no JSON form: {said}")
            group.start(child, 1, key="k")  # the key is still free
        return "refused"

    async def child_of(ctx: InvocationContext, got: Any) -> None:
        started.append(ctx.path)

    child = agent(child_of, name="child")
    assert run_tree(agent(try_it)).result.text == "refused"
    assert started == ["try_it/child@k"]


def test_of_an_input_that_nobody_has_awaited_the_error_asks_for_the_await() -> None:
    async def child_of(ctx: InvocationContext) -> None: ...

    child = agent(child_of, name="child")

    @agent
    async def parent(ctx: InvocationContext) -> str:
        forgotten = child.run(ctx)
        with pytest.raises(UnstorableError) as refused:
            await ctx.map(child, [forgotten])
        forgotten.close()
        return str(refused.value)

    assert run_tree(parent).result.text.endswith(" has no JSON form: is an `await` missing?")


def test_a_reason_that_says_the_same_is_not_said_twice() -> None:
    with pytest.raises(UnstorableError) as refused:
        to_json(object())
    assert str(refused.value) == "a object has no JSON form"


def test_a_value_that_holds_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    tree = Tree("a")
    tree.below.append(tree)

    @agent
    async def parent(ctx: InvocationContext) -> str:
        for item in (endless, tree, {"a": endless}):
            with pytest.raises(ValueError, match="nested"):
                await ctx.map(leaf("child"), [item])
        return "refused"

    assert run_tree(parent).result.text == "refused"


@attrs.frozen
class Later:
    """Stands below the function that names it."""

    item: str
    count: int = 1
