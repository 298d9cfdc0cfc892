"""A typed function with a docstring is a tool: what the model is told, and what a call does."""

from __future__ import annotations

import functools
import threading
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Literal

import annotated_types
import attrs
import pydantic
import pytest
import trio

from parallel_agent import (
    FunctionCall,
    FunctionResponse,
    InvocationContext,
    LlmAgent,
    Runner,
    ToolArgumentsError,
    agent,
)
from parallel_agent.model_errors import ToolDefinitionError
from parallel_agent.testing import ScriptedModel
from parallel_agent.tools.function_tool import FunctionTool, as_tool, tool
from parallel_agent.tools.tool import Tool


@tool
async def look(city: str, days: int = 3, *, ctx: InvocationContext) -> str:  # noqa: D417  # as below
    """Look up the weather
    of a city.

    More than a model needs to know.

    Args:
        city: its name,
            in English
        days (int): how many days

    Returns:
        str: the weather
    """  # noqa: D205  # as people write them
    await trio.lowlevel.checkpoint()
    return f"{city} for {days} days, asked by {ctx.agent.name}"


async def called(used: Tool, **arguments: Any) -> Any:
    """Return what a call from an agent comes to."""
    got: list[Any] = []

    @agent
    async def asker(ctx: InvocationContext) -> None:
        got.append(await used.call(ctx, arguments))  # type: ignore[arg-type]  # it asks for no more

    await Runner(asker).run("x")
    return got[0]


def test_the_model_is_told_what_the_signature_and_the_docstring_say() -> None:
    assert (look.name, look.description) == ("look", "Look up the weather of a city.")
    assert look.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "its name, in English"},
            "days": {"type": "integer", "description": "how many days", "default": 3},
        },
        "required": ["city"],
        "additionalProperties": False,
    }


async def test_defaults_stand_and_the_context_is_given() -> None:
    assert await called(look, city="Oslo") == "Oslo for 3 days, asked by asker"


async def test_arguments_that_do_not_fit_are_refused_by_name() -> None:
    with pytest.raises(ToolArgumentsError, match=r"days: a whole number is needed, not '3'"):
        await called(look, city="Oslo", days="3")
    with pytest.raises(ToolArgumentsError, match="there is no such field"):
        await called(look, city="Oslo", weeks=1)


async def test_a_plain_function_is_called_in_a_thread() -> None:
    @tool
    def where() -> str:
        return threading.current_thread().name

    assert await called(where) != threading.current_thread().name


async def test_arguments_become_what_the_annotations_say() -> None:
    @attrs.frozen
    class Point:
        x: int
        y: int = 0

    given: list[object] = []

    def move(to: Point, how: Literal["fast", "slow"], tags: list[str] | None = None) -> None:
        given.extend([to, how, tags])

    move.__annotations__["to"] = Point
    await called(tool(move), to={"x": 1}, how="fast")
    assert given == [Point(1), "fast", None]


def test_it_may_be_called_otherwise_and_need_approval() -> None:
    used = tool(name="look-up", description="Looks.", needs_approval=lambda given: given["n"] > 3)(
        lambda n: n
    )
    assert (used.name, used.description) == ("look-up", "Looks.")
    assert [used.wants_approval({"n": n}) for n in (3, 4)] == [False, True]
    assert tool(lambda: 1, name="a", needs_approval=True).wants_approval({})
    assert tool(lambda: 1, name="a", is_long_running=True).is_long_running


def _star(*args: int) -> None: ...
def _named(**options: int) -> None: ...
def _positional(a: int, /) -> None: ...
def _unknown(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821  # that is the point
def _untold(a: Callable[[], None]) -> None: ...


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (_star, r"takes \*args"),
        (_named, r"takes \*options"),
        (_positional, "has no name to give it by"),
        (_unknown, "cannot be found out"),
        (_untold, "cannot be told to a model"),
        (lambda: 1, r"has no name that a model could use: tool\(f, name='...'\)"),
        (7, "a tool is a function or a Tool, not 7"),
        (int, "a tool is a function or a Tool"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_where_it_is_written(function: Any, match: str) -> None:
    with pytest.raises(ToolDefinitionError, match=match):
        tool(function)


def test_a_function_among_tools_is_one() -> None:
    def plain(a: int) -> int:
        """Do something."""
        return a

    assert isinstance(as_tool(plain), FunctionTool)
    assert as_tool(look) is look
    with pytest.raises(ToolDefinitionError):
        as_tool("look")


async def test_an_object_with_a_coroutine_as_its_call_is_awaited() -> None:
    class Looks:
        async def __call__(self, city: str) -> str:
            await trio.lowlevel.checkpoint()
            return f"rain in {city}"

    model = ScriptedModel([FunctionCall("look", {"city": "Oslo"}, "1"), "done"])
    writer = LlmAgent("a", model, tools=[tool(Looks(), name="look")])
    await Runner(writer).run("go")
    (answer,) = model.requests[1].contents[-1].parts
    assert isinstance(answer, FunctionResponse)
    assert answer.response == {"result": "rain in Oslo"}


def test_a_partial_is_a_tool_for_what_is_not_given_yet() -> None:
    def add(one: int, other: int) -> int:
        """Add."""
        return one + other

    made = tool(functools.partial(add, other=3), name="add")
    assert made.description == "Add."
    assert made.parameters["required"] == ["one"]


def test_an_annotation_may_say_what_a_parameter_means() -> None:
    def book(
        n: Annotated[int, "how many"],
        kind: Annotated[str, pydantic.Field(description="which kind")] = "x",
    ) -> None:
        """Book."""

    described = tool(book).parameters["properties"]
    assert described["n"]["description"] == "how many"
    assert described["kind"]["description"] == "which kind"


@pytest.mark.parametrize("said", [pydantic.Field(ge=1), annotated_types.Le(3)])
def test_limits_that_would_not_be_checked_are_refused(said: object) -> None:
    def book(n: int) -> None:
        """Book."""

    book.__annotations__["n"] = Annotated[int, said]
    with pytest.raises(
        ToolDefinitionError, match=r"parameter 'n' of tool 'book': .* not be checked"
    ):
        tool(book)


def test_what_yields_is_no_tool() -> None:
    async def search() -> AsyncIterator[str]:
        yield "x"

    with pytest.raises(ToolDefinitionError, match=r"a tool returns its result, and emits by"):
        tool(search)


def test_an_agent_among_the_tools_is_told_how_it_is_one() -> None:
    @agent
    async def helper(ctx: InvocationContext) -> None:
        """Help."""

    with pytest.raises(ToolDefinitionError, match=r"as a tool, it is AgentTool\(agent\)"):
        LlmAgent("a", ScriptedModel([]), tools=[helper])  # type: ignore[list-item]  # what is tried
