"""`Runner(state_schema=...)`: the types and reducers of state keys."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    Event,
    EventActions,
    InvocationContext,
    ParallelAgent,
    Result,
    Runner,
    SchemaError,
    SchemaTypeError,
    SequentialAgent,
    StateError,
    StateKey,
    agent,
)
from parallel_agent.state_schema import StateSchema
from session import Session


@attrs.frozen
class Finding:
    line: int
    what: str = ""


@attrs.frozen
class Board:
    topic: str
    count: Annotated[int, StateKey(reducer="add")]
    findings: Annotated[list[Finding], StateKey(reducer="append")]
    language: Annotated[str, StateKey("user:language")]
    ratio: float | None = None


async def run(tree: Agent, **options: Any) -> Result:
    return await Runner(tree, state_schema=Board).run("go", **options)


def writes(key: str, value: Any) -> Agent:
    @agent(name="writer")
    async def writer(ctx: InvocationContext) -> None:
        ctx.state[key] = value

    return writer


def emits(delta: Mapping[str, Any], name: str = "writer") -> Agent:
    @agent(name=name)
    async def writer(ctx: InvocationContext) -> AsyncGenerator[Event, None]:
        yield Event("written", actions=EventActions(state_delta=delta))

    return writer


GOOD = [
    ("topic", "tea"),
    ("ratio", 0.5),
    ("ratio", 2),
    ("ratio", None),
    ("user:language", "de"),
    ("temp:anything", [1, "two"]),
]

BAD = [
    ("topic", 3, "state['topic']: text is needed, not 3"),
    ("topic", None, "state['topic']"),
    ("ratio", "half", "state['ratio']"),
    ("ratio", True, "state['ratio']"),
    ("user:language", 1, "state['user:language']"),
    ("topics", "tea", "state['topics']: Board has no such key; did you mean 'topic'?"),
    ("language", "de", "state['language']: Board has no such key; did you mean 'user:language'?"),
]


@pytest.mark.parametrize(("key", "value"), GOOD)
async def test_a_write_that_fits_is_recorded(key: str, value: Any) -> None:
    for tree in (writes(key, value), emits({key: value})):
        result = await run(tree)
        assert result.status == "completed"
        if not key.startswith("temp:"):
            assert result.state[key] == value


@pytest.mark.parametrize(("key", "value", "said"), BAD)
async def test_an_assignment_that_does_not_fit_is_refused_where_it_stands(
    key: str, value: Any, said: str
) -> None:
    seen: list[str] = []

    @agent
    async def writer(ctx: InvocationContext) -> str:
        ctx.state["topic"] = "before"
        with pytest.raises(SchemaError) as caught:
            ctx.state[key] = value
        seen.append(str(caught.value))
        return "went on"

    result = await run(writer)
    assert said in seen[0]
    assert dict(result.state) == {"topic": "before"}


@pytest.mark.parametrize(("key", "value", "said"), BAD)
async def test_an_explicit_delta_that_does_not_fit_is_refused_at_the_yield(
    key: str, value: Any, said: str
) -> None:
    seen: list[str] = []

    @agent
    async def writer(ctx: InvocationContext) -> AsyncGenerator[Event | str, None]:
        ctx.state["topic"] = "pending"
        try:
            yield Event("bad", actions=EventActions(state_delta={"ratio": 0.5, key: value}))
        except SchemaError as error:
            seen.append(str(error))
        yield "good"

    result = await run(writer)
    assert said in seen[0]
    assert [event.text for event in result.events] == ["good"]
    assert dict(result.state) == {"topic": "pending"}, "what else was pending is not lost"


async def test_the_path_leads_into_the_value() -> None:
    tree = emits({"findings": {"line": "three", "what": "x"}})
    with pytest.raises(SchemaError, match=r"state\['findings'\]\[0\]\.line: .*'three'"):
        await run(tree)


async def test_declared_reducers_combine_what_branches_contribute() -> None:
    def finder(name: str, line: int) -> Agent:
        @agent(name=name)
        async def find(ctx: InvocationContext) -> str:
            ctx.state.contribute("count", 1)
            ctx.state.contribute("findings", {"line": line})
            return name

        return find

    result = await run(ParallelAgent("both", [finder("a", 1), finder("b", 2)]))
    assert result.state["count"] == 2
    assert sorted(finding["line"] for finding in result.state["findings"]) == [1, 2]


async def test_a_key_with_a_declared_reducer_is_not_assigned() -> None:
    with pytest.raises(StateError, match="contribute"):
        await run(writes("count", 1))


async def test_a_contribution_whose_result_does_not_fit_fails_its_branch_alone() -> None:
    @agent
    async def wrong(ctx: InvocationContext) -> str:
        ctx.state.contribute("findings", {"line": 1, "colour": "red"})
        try:
            await ctx.emit("wrong")
        except SchemaError as error:
            return f"refused: {error.path}"
        return "taken"

    result = await run(SequentialAgent("both", [wrong, emits({"findings": {"line": 2}}, "right")]))
    assert result.outputs["wrong"].startswith("refused: state['findings']")
    assert [finding["line"] for finding in result.state["findings"]] == [2]


@pytest.mark.parametrize("shape", ["text", "composite"])
async def test_an_output_that_does_not_fit_its_key_fails_the_agent(shape: str) -> None:
    @agent(output_key="ratio")
    async def says_text(ctx: InvocationContext) -> str:
        return "text"

    @agent
    async def inner(ctx: InvocationContext) -> str:
        return "text"

    tree = says_text if shape == "text" else SequentialAgent("outer", [inner], output_key="ratio")
    with pytest.raises(SchemaError, match="ratio"):
        await run(tree)


async def test_text_on_the_way_to_an_output_need_not_fit() -> None:
    @agent(output_key="ratio")
    async def slow(ctx: InvocationContext) -> AsyncGenerator[Event | str, None]:
        yield "still thinking"
        yield Event("done", output=0.5)

    result = await run(slow)
    assert [dict(event.state_delta) for event in result.events] == [{}, {"ratio": 0.5}]


async def test_an_output_that_does_not_fit_is_refused_at_the_yield_and_names_the_agent() -> None:
    seen: list[str] = []

    @agent(output_key="ratio")
    async def wrong(ctx: InvocationContext) -> AsyncGenerator[Event, None]:
        try:
            yield Event(output="half")
        except SchemaError as error:
            seen.append(str(error))

    assert (await run(wrong)).events == ()
    assert "the output of agent 'wrong', whose output_key it is" in seen[0]


def test_an_output_key_that_is_not_declared_is_refused_at_construction() -> None:
    @agent(output_key="topics")
    async def deep(ctx: InvocationContext) -> None: ...

    with pytest.raises(SchemaError, match=r"output_key of 'deep': .*did you mean 'topic'"):
        Runner(SequentialAgent("outer", [deep]), state_schema=Board)


async def test_after_a_refusal_the_branch_can_go_on_emitting() -> None:
    """A refused emit must give back what it has taken of the lane."""

    @agent(output_key="ratio")
    async def stubborn(ctx: InvocationContext) -> AsyncGenerator[Event | str, None]:
        for _ in range(3):
            with pytest.raises(SchemaError):
                await ctx.emit(Event("no number", output="no number"))
        yield Event("fine", output=1.5)

    result = await run(stubborn)
    assert [event.text for event in result.events] == ["fine"]
    assert result.state["ratio"] == 1.5


async def test_state_given_with_the_message_is_checked_before_anything_happens() -> None:
    runner = Runner(emits({"topic": "tea"}), state_schema=Board)
    with pytest.raises(SchemaError, match=r"state\['topic'\]"):
        runner.open("go", state_delta={"topic": 3})
    assert await runner.session_service.list(app_name=runner.app_name) == []


def test_a_dataclass_and_a_typed_dict_will_do_too() -> None:
    @dataclass
    class Data:
        total: Annotated[int, StateKey("app:total", reducer="add")]

    typed = TypedDict("typed", {"app:total": int})
    assert list(StateSchema(Data).keys) == ["app:total"]
    assert list(StateSchema(Data).reducers) == ["app:total"]
    assert list(StateSchema(typed).keys) == ["app:total"]


@attrs.frozen
class Twice:
    one: Annotated[int, StateKey("key")]
    two: Annotated[int, StateKey("key")]


@attrs.frozen
class Unknown:
    one: Annotated[int, StateKey(reducer="shuffle")]


@attrs.frozen
class Uncheckable:
    one: Session


@pytest.mark.parametrize(
    ("schema", "error", "said"),
    [
        (Twice, ValueError, "'key'"),
        (Unknown, ValueError, "shuffle"),
        (Uncheckable, SchemaTypeError, "one"),
        (int, SchemaTypeError, "no class with fields"),
        (Board("t", 1, [], "de"), SchemaTypeError, "state_schema is a class"),
        ({"topic": str}, SchemaTypeError, "state_schema is a class"),
    ],
)
def test_a_schema_that_cannot_be_is_refused_at_construction(
    schema: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        Runner(emits({}), state_schema=schema)


def test_a_key_has_one_reducer() -> None:
    with pytest.raises(ValueError, match="'count' has a reducer in state_schema"):
        Runner(emits({}), state_schema=Board, reducers={"count": "max"})


async def test_other_reducers_may_be_given_beside_the_schema() -> None:
    runner = Runner(emits({"temp:n": 2}), state_schema=Board, reducers={"temp:n": "max"})
    assert (await runner.run("go")).status == "completed"


@given(
    st.dictionaries(
        st.sampled_from(["topic", "ratio", "user:language", "other"]),
        st.one_of(
            st.none(),
            st.integers(-(2**60), 2**60),
            st.floats(allow_nan=False, allow_infinity=False),
            st.text(max_size=3),
        ),
        max_size=4,
    )
)
def test_a_delta_is_taken_whole_or_not_at_all(delta: dict[str, Any]) -> None:
    """Against the rule written down a second time."""

    def fits(key: str, value: Any) -> bool:
        if key == "ratio":
            return value is None or type(value) in (int, float)
        return key in ("topic", "user:language") and type(value) is str

    schema = StateSchema(Board)
    for key, value in delta.items():
        if fits(key, value):
            schema.check(key, value)
        else:
            with pytest.raises(SchemaError):
                schema.check(key, value)
