"""What an agent's output is, and where it is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    Content,
    Event,
    EventActions,
    FrozenValueError,
    FunctionCall,
    FunctionResponse,
    InlineData,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Runner,
    SequentialAgent,
    Status,
    Text,
    UnstorableError,
    agent,
)
from tests.workflow.trees import Ended, Escalate, Yields, leaf, leaves, run_tree, texts


def yielding(*items: Event | Content | str, name: str = "a", **options: Any) -> Agent:
    """An async generator that yields these."""

    @agent(name=name, **options)
    async def run(ctx: InvocationContext) -> Yields:
        for item in items:
            yield item

    return run


def returning(value: Any, name: str = "a", **options: Any) -> Agent:
    """A coroutine that returns this."""

    @agent(name=name, **options)
    async def run(ctx: InvocationContext) -> Any:
        return value

    return run


def plain(value: Any, name: str = "a", **options: Any) -> Agent:
    """A plain function that returns this."""
    return agent(lambda _: value, name=name, **options)


def deltas(ended: Ended) -> list[dict[str, Any]]:
    return [dict(event.state_delta) for event in ended.delivered]


# ------------------------------------------------------------------------------ of what is yielded

CALL = Content(FunctionCall("search"))
RESPONSE = Content(FunctionResponse("search", {"found": 1}))


@pytest.mark.parametrize(
    ("items", "output"),
    [
        ([], None),
        (["one"], "one"),
        (["one", "two"], "two"),
        ([Content("one"), Content((Text("t"), Text("wo")))], "two"),
        ([Event("one"), Event(output=2)], 2),
        ([Event(output=1), Event("two")], 1),
        ([Event(output=1), Event(output=2), "three"], 2),
        ([Event("said", output="meant")], "meant"),
        ([Event(output=1), Event(output=None)], 1),
        (["one", Event(output=0)], 0),
        (["one", Event(output="")], ""),
        (["one", Event(output=False)], False),
        (["one", Event("two", partial=True)], "one"),
        (["one", Event(output=2, partial=True)], "one"),
        (["one", CALL], "one"),
        (["one", Content((Text("two"), FunctionCall("search")))], "one"),
        (["one", RESPONSE], "one"),
        (["one", ""], "one"),
        (["one", Event()], "one"),
        (["one", Content(InlineData(b"x"))], "one"),
        (["one", Content(Text("thinking", thought=True))], "one"),
        (["one", Event(actions=EventActions(state_delta={"k": 1}))], "one"),
    ],
)
def test_the_output_is_the_last_given_else_the_last_final_text(
    items: list[Any], output: object
) -> None:
    result = run_tree(yielding(*items)).result
    assert result.output == output
    assert type(result.output) is type(output)


def test_a_response_that_is_to_be_final_counts_with_its_text() -> None:
    content = Content((Text("two"), FunctionResponse("search")))
    last = Event(content, actions=EventActions(skip_summarization=True))
    assert run_tree(yielding("one", last)).result.output == "two"


@given(
    st.lists(
        st.one_of(
            st.builds(lambda text: ("text", text), st.sampled_from(["x", "y", ""])),
            st.builds(lambda value: ("output", value), st.sampled_from([None, 0, 1, "z", ""])),
            st.builds(lambda text: ("partial", text), st.just("half")),
        ),
        max_size=6,
    )
)
def test_the_rule_of_the_output_in_one_line(drawn: list[tuple[str, Any]]) -> None:
    make: Mapping[str, Callable[[Any], Event]] = {
        "text": Event,
        "output": lambda value: Event(output=value),
        "partial": lambda text: Event(text, output=text, partial=True),
    }
    outputs = [value for kind, value in drawn if kind == "output" and value is not None]
    said = [value for kind, value in drawn if kind == "text" and value]
    expected = (outputs or said or [None])[-1]
    assert (
        run_tree(yielding(*(make[kind](value) for kind, value in drawn))).result.output == expected
    )


# ------------------------------------------------------------------------------ of what is returned

shapes = pytest.mark.parametrize("shape", [returning, plain])


@pytest.mark.parametrize(
    "value", ["text", "", 0, 1, 1.5, True, False, [], [1, ["x"]], {}, {"a": {"b": None}}], ids=repr
)
@shapes
def test_what_a_function_returns_is_its_output_and_an_event(
    shape: Callable[[Any], Agent], value: object
) -> None:
    ended = run_tree(shape(value))
    assert ended.result.output == value
    assert type(ended.result.output) is type(value) or isinstance(value, list | dict)
    (event,) = ended.delivered
    assert value in (event.text, event.output)


@shapes
def test_what_returns_nothing_says_nothing(shape: Callable[[Any], Agent]) -> None:
    ended = run_tree(shape(None))
    assert (ended.result.output, ended.delivered) == (None, [])


@shapes
def test_text_that_is_returned_is_the_text_of_the_event(shape: Callable[[Any], Agent]) -> None:
    (event,) = run_tree(shape("hello")).delivered
    assert (event.text, event.output) == ("hello", None)


@shapes
def test_a_returned_content_is_said_and_its_text_is_the_output(
    shape: Callable[[Any], Agent],
) -> None:
    ended = run_tree(shape(Content((Text("he"), Text("llo")))))
    assert (ended.delivered[0].text, ended.result.output) == ("hello", "hello")


@pytest.mark.parametrize(
    ("event", "output"), [(Event("said"), "said"), (Event("said", output=[1]), [1])]
)
def test_a_returned_event_is_emitted_as_it_is(event: Event, output: object) -> None:
    ended = run_tree(returning(event))
    assert ended.delivered == [event]
    assert ended.result.output == output


@pytest.mark.parametrize("value", ["last", "", Content("last"), 7, {"a": 1}], ids=repr)
def test_what_is_returned_counts_more_than_what_was_emitted_before(value: Any) -> None:
    @agent
    async def a(ctx: InvocationContext) -> Any:
        await ctx.emit("text")
        await ctx.emit(Event(output={"draft": 1}))
        return value

    expected = value.text if isinstance(value, Content) else value
    assert run_tree(a).result.output == expected


def test_without_a_return_value_what_was_emitted_is_the_output() -> None:
    @agent
    async def a(ctx: InvocationContext) -> None:
        await ctx.emit("one")
        await ctx.emit(Event(output=2))

    assert run_tree(a).result.output == 2


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", float("nan"), {"a": [object()]}])
@shapes
def test_an_output_that_cannot_be_stored_fails_its_agent(
    shape: Callable[[Any], Agent], value: object
) -> None:
    ended = run_tree(SequentialAgent("s", [shape(value)]))
    assert isinstance(ended.error, UnstorableError)
    assert str(ended.error).startswith("output")
    assert ended.notes == ["raised by agent s/a"]
    assert ended.delivered == []


def test_an_output_is_read_only() -> None:
    output = run_tree(returning({"a": [1]})).result.output
    with pytest.raises(FrozenValueError):
        output["a"].append(2)


# -------------------------------------------------------------------------------------- composites


def test_a_parallels_output_is_a_dict_in_declaration_order() -> None:
    tree = ParallelAgent("p", [leaf("slow", 9, "s"), leaf("quick", "q"), leaf("silent")])
    output = run_tree(tree).result.output
    assert list(output.items()) == [("slow", "s"), ("quick", "q"), ("silent", None)]


def test_a_branch_that_did_not_complete_is_not_in_a_parallels_output() -> None:
    tree = ParallelAgent("p", [leaf("a", "a1", 9), leaf("b", 1, Escalate("stop"))])
    assert run_tree(tree).result.output == {"b": "stop"}


def test_a_parallel_of_parallels_has_a_dict_of_dicts() -> None:
    tree = ParallelAgent("p", [ParallelAgent("q", leaves("a b", "x")), leaf("c", "y")])
    assert run_tree(tree).result.output == {"q": {"a": "x", "b": "x"}, "c": "y"}


def test_a_sequence_passes_its_last_agents_output_on() -> None:
    tree = SequentialAgent("s", [leaf("a", "x"), ParallelAgent("p", [returning(7, "b")])])
    assert run_tree(tree).result.output == {"b": 7}


def test_a_loop_passes_the_output_of_its_last_round_on() -> None:
    @agent
    async def count(ctx: InvocationContext) -> int:
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        return int(ctx.state["n"])

    assert run_tree(LoopAgent("l", [count], max_iterations=3)).result.output == 3


def test_an_agent_run_in_place_returns_its_output() -> None:
    @agent
    async def asks(ctx: InvocationContext) -> Any:
        return [await ctx.run_agent(returning(number, f"a{number}")) for number in (1, 2)]

    assert run_tree(asks).result.output == [1, 2]


def test_what_an_agent_run_in_place_emits_is_not_its_callers_output() -> None:
    @agent
    async def asks(ctx: InvocationContext) -> Yields:
        yield "mine"
        await ctx.run_agent(returning("its", "b"))

    assert run_tree(asks).result.output == "mine"


# -------------------------------------------------------------------------------------- output_key

Made = Callable[..., Agent]


def sequential(**options: Any) -> Agent:
    return SequentialAgent("tree", [returning("x", "child")], **options)


def parallel(**options: Any) -> Agent:
    return ParallelAgent("tree", [returning("x", "child")], **options)


def loop(**options: Any) -> Agent:
    return LoopAgent("tree", [returning("x", "child")], max_iterations=1, **options)


class Custom(Agent):
    """Returns."""

    async def run(self, ctx: InvocationContext) -> str:
        return f"{ctx.user_text[:0]}x"


def custom(**options: Any) -> Agent:
    return Custom("tree", **options)


def generator(**options: Any) -> Agent:
    return yielding("x", name="tree", **options)


def coroutine(**options: Any) -> Agent:
    return returning("x", "tree", **options)


def function(**options: Any) -> Agent:
    return plain("x", "tree", **options)


KINDS: list[Made] = [sequential, parallel, loop, custom, generator, coroutine, function]
every_kind = pytest.mark.parametrize("make", KINDS)


@every_kind
def test_an_output_key_stores_the_output_of_every_kind_of_agent(make: Made) -> None:
    result = run_tree(make(output_key="k")).result
    assert result.output in ("x", {"child": "x"})
    assert dict(result.state) == {"k": result.output}


@every_kind
def test_the_next_agent_reads_it(make: Made) -> None:
    seen: list[object] = []
    tree = SequentialAgent(
        "s", [make(output_key="k"), leaf("reads", lambda ctx: seen.append(ctx.state["k"]))]
    )
    ended = run_tree(tree)
    assert seen == [ended.result.outputs["tree"]]


@every_kind
def test_with_a_reducer_it_contributes_once(make: Made) -> None:
    ended = run_tree(Runner(make(output_key="k"), reducers={"k": "append"}))
    assert dict(ended.result.state) == {"k": [ended.result.output]}


@every_kind
def test_without_an_output_key_nothing_is_stored(make: Made) -> None:
    assert dict(run_tree(make()).result.state) == {}


def test_a_leafs_output_is_stored_with_the_event_it_comes_from() -> None:
    ended = run_tree(yielding("one", Event(output=2), "three", output_key="k"))
    assert deltas(ended) == [{"k": "one"}, {"k": 2}, {}]


def test_a_composites_output_is_stored_by_an_event_of_its_own_at_its_end() -> None:
    ended = run_tree(sequential(output_key="k"))
    assert [(event.author, dict(event.state_delta)) for event in ended.delivered] == [
        ("child", {}),
        ("tree", {"k": "x"}),
    ]


@pytest.mark.parametrize("value", ["", 0, False, [], {}], ids=repr)
@pytest.mark.parametrize("shape", [returning, plain])
def test_an_empty_output_is_stored_too(shape: Callable[..., Agent], value: object) -> None:
    assert dict(run_tree(shape(value, output_key="k")).result.state) == {"k": value}


def test_no_output_leaves_the_key_alone() -> None:
    silent = returning(None, "silent", output_key="k")
    tree = SequentialAgent("s", [returning("x", output_key="k"), silent])
    assert dict(run_tree(tree).result.state) == {"k": "x"}


def test_a_partial_event_is_not_stored() -> None:
    ended = run_tree(yielding("one", Event("half", partial=True), output_key="k"))
    assert deltas(ended) == [{"k": "one"}, {}]


def test_a_parallels_and_its_childrens_output_keys_do_not_disturb_each_other() -> None:
    tree = ParallelAgent(
        "p",
        [returning(1, "a", output_key="one"), returning(2, "b", output_key="two")],
        output_key="both",
    )
    assert dict(run_tree(tree).result.state) == {"one": 1, "two": 2, "both": {"a": 1, "b": 2}}


def test_of_two_siblings_with_one_key_the_last_recorded_wins() -> None:
    tree = ParallelAgent(
        "p", [leaf("a", 9, "late", output_key="k"), leaf("b", 1, "early", output_key="k")]
    )
    assert dict(run_tree(tree).result.state) == {"k": "late"}


def test_with_a_reducer_nothing_of_two_siblings_with_one_key_is_lost() -> None:
    tree = ParallelAgent(
        "p", [leaf("a", 9, "late", output_key="k"), leaf("b", 1, "early", output_key="k")]
    )
    assert dict(run_tree(Runner(tree, reducers={"k": "append"})).result.state) == {
        "k": ["early", "late"]
    }


@pytest.mark.parametrize(
    ("reducer", "values", "total"),
    [
        ("add", [1, 2, 3], 6),
        ("max", [2, 3, 1], 3),
        ("merge", [{"a": 1}, {"b": 2}], {"a": 1, "b": 2}),
        (lambda current, new: f"{current or ''}{new}", ["x", "y"], "xy"),
    ],
)
def test_a_loop_contributes_in_every_round(reducer: Any, values: list[Any], total: object) -> None:
    rounds = iter(values)
    counter = agent(lambda _: next(rounds), name="a", output_key="k")
    tree = LoopAgent("l", [counter], max_iterations=len(values))
    assert dict(run_tree(Runner(tree, reducers={"k": reducer})).result.state) == {"k": total}


def test_several_events_of_one_activation_contribute_its_final_output_once() -> None:
    """And they are not combined with each other: an output replaces the one before."""
    ended = run_tree(
        Runner(yielding("one", "two", "three", output_key="k"), reducers={"k": "append"})
    )
    assert deltas(ended) == [{}, {}, {}, {"k": ["three"]}]


def test_the_key_of_an_agent_that_failed_keeps_what_its_events_said() -> None:
    ended = run_tree(leaf("a", "so far", KeyError("x"), output_key="k"))
    assert ended.result.status is Status.FAILED
    assert dict(ended.result.state) == {"k": "so far"}


def test_with_a_reducer_an_agent_that_failed_contributes_nothing() -> None:
    tree = leaf("a", "so far", KeyError("x"), output_key="k")
    assert dict(run_tree(Runner(tree, reducers={"k": "append"})).result.state) == {}


def test_a_temporary_key_is_read_in_the_run_and_not_stored() -> None:
    seen: list[object] = []
    tree = SequentialAgent(
        "s",
        [
            returning("x", output_key="temp:k"),
            leaf("reads", lambda ctx: seen.append(ctx.state["temp:k"])),
        ],
    )
    assert dict(run_tree(tree).result.state) == {}
    assert seen == ["x"]


def test_an_agent_that_writes_its_output_key_itself_is_overruled_by_its_output() -> None:
    def write(ctx: InvocationContext) -> None:
        ctx.state["k"] = "mine"

    assert dict(run_tree(leaf("a", write, "output", output_key="k")).result.state) == {
        "k": "output"
    }


def test_an_output_whose_event_was_withdrawn_is_not_stored() -> None:
    """The reader is busy with a sibling's event; meanwhile the agent gives up and says less."""

    @agent(output_key="k")
    async def a(ctx: InvocationContext) -> Yields:
        await trio.sleep(2)
        with trio.move_on_after(1):
            yield "withdrawn"
        yield Event(actions=EventActions(state_delta={"other": 1}))

    ended = run_tree(ParallelAgent("p", [leaf("b", 1, "b"), a]), pause=10)
    assert texts(ended.delivered) == ["b"]
    assert dict(ended.result.state) == {"other": 1}
    assert ended.result.outputs["a"] is None


def test_an_output_that_was_withdrawn_can_be_given_again() -> None:
    @agent(output_key="k")
    async def a(ctx: InvocationContext) -> Yields:
        await trio.sleep(2)
        with trio.move_on_after(1):
            yield "x"
        yield "x"

    ended = run_tree(ParallelAgent("p", [leaf("b", 1, "b"), a]), pause=10)
    assert texts(ended.delivered) == ["b", "x"]
    assert (dict(ended.result.state), ended.result.outputs["a"]) == ({"k": "x"}, "x")


# ------------------------------------------------------------------------------------- the result


def test_the_result_has_the_newest_output_of_every_agent_that_completed() -> None:
    rounds = iter([1, 2])
    tree = SequentialAgent(
        "s",
        [
            LoopAgent("l", [agent(lambda _: next(rounds), name="a")], max_iterations=2),
            ParallelAgent("p", [leaf("b", 1, Escalate("b")), leaf("never", "early", 9)]),
        ],
    )
    outputs = run_tree(tree).result.outputs
    assert dict(outputs) == {"a": 2, "l": 2, "b": "b", "p": {"b": "b"}, "s": {"b": "b"}}


def test_an_agent_without_output_is_among_the_outputs_with_none() -> None:
    assert dict(run_tree(leaf("a")).result.outputs) == {"a": None}


def test_the_outputs_cannot_be_changed() -> None:
    outputs: Any = run_tree(leaf("a", "x")).result.outputs
    with pytest.raises(TypeError):
        outputs["a"] = "y"


def test_the_text_of_a_result_is_the_last_final_text_of_the_run() -> None:
    tree = SequentialAgent(
        "s", [leaf("a", "one"), yielding("two", Event(output=3), CALL, name="b")]
    )
    ended = run_tree(tree)
    assert ended.result.text == "two"
    assert texts(ended.delivered) == ["one", "two"]


def test_a_run_that_said_nothing_has_an_empty_text() -> None:
    assert run_tree(returning(7)).result.text == ""


def test_the_users_own_message_is_not_the_text_of_the_result() -> None:
    assert run_tree(leaf("a"), message="hello").result.text == ""


@pytest.mark.parametrize("last", [KeyError("x"), trio.TooSlowError()])
def test_a_run_that_failed_has_outputs_and_no_output(last: Exception) -> None:
    ended = run_tree(SequentialAgent("s", [leaf("a", "x"), leaf("b", last)]))
    assert (ended.result.output, dict(ended.result.outputs)) == (None, {"a": "x"})
