"""Questions to people: asked into the stream, answered into it, and never lost in between.

Runs that end without the answer are in ``test_suspend.py``; what holds for drawn trees is in
``tests/properties/test_two_way.py``.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from parallel_agent import (
    DROP_EVENT,
    ActivationEndedError,
    Agent,
    AgentTimeoutError,
    Content,
    DropEvent,
    Escalate,
    Event,
    EventActions,
    InvocationContext,
    Limiter,
    ParallelAgent,
    PendingRequest,
    Plugin,
    RequestError,
    ResponseRefusedError,
    Retry,
    Run,
    RunConfig,
    Runner,
    Schema,
    SchemaTypeError,
    SequentialAgent,
    Status,
    agent,
)
from session import FrozenDict, FrozenList, FunctionCall, FunctionResponse
from session.lease import Lease
from tests.kernel.scripted import BatchingService, SlowService, StoreError
from tests.workflow.trees import Yields, leaf, run_virtual, texts

Answers: TypeAlias = dict[str, Any]
"""What agents were answered, by name."""


def asker(name: str, prompt: str = "well?", *, into: Answers | None = None, **asking: Any) -> Agent:
    """Return an agent that asks once, and says what it was answered."""

    @agent(name=name)
    async def ask(ctx: InvocationContext) -> Yields:
        answer = await ctx.request_input(prompt, **asking)
        if into is not None:
            into[ctx.path] = answer
        yield f"{name} got {answer!r}"

    return ask


async def read(run: Run, at: Callable[[Event], Any] | None = None) -> list[Event]:
    """Read to the end; call ``at`` at each event, before coming back for the next."""
    got: list[Event] = []
    async for event in run:
        got.append(event)
        if at is not None:
            result = at(event)
            if result is not None:
                await result
    return got


async def answer_all(run: Run, value: Any = "yes") -> list[Event]:
    """Read to the end, and answer every question at once."""

    async def answer(event: Event) -> None:
        if event.request is not None:
            await run.respond(event.request.id, value)

    return await read(run, answer)


async def read_until_asked(run: Run, count: int = 1) -> list[str]:
    """Read until so many questions have been asked; return their ids."""
    ids: list[str] = []
    while len(ids) < count:
        event = await anext(run)
        if event.request is not None:
            ids.append(event.request.id)
    return ids


# ------------------------------------------------------------------------------ question and answer


async def test_a_question_is_an_event_of_the_agents(autojump_clock: MockClock) -> None:
    tree = ParallelAgent("fan", [asker("a", "May I?", schema=bool)])
    async with Runner(tree).open() as run:
        event = await anext(run)
        assert (event.author, event.branch, event.seq) == ("a", "fan.a", 1)
        assert event.request is not None
        assert event.request.id == f"{run.invocation_id}:fan/a#1"
        assert (event.request.prompt, event.request.schema) == ("May I?", {"type": "boolean"})
        assert run.pending == (
            PendingRequest(event.request.id, "May I?", {"type": "boolean"}, "a", "fan.a", "fan/a"),
        )
        await run.respond(event.request.id, True)
        await read(run)


async def test_an_answer_is_an_event_of_the_users_on_the_branch_that_asked(
    autojump_clock: MockClock,
) -> None:
    tree = ParallelAgent("fan", [asker("a", schema=int), leaf("b", "x")])
    async with Runner(tree).open() as run:
        (request_id,) = await read_until_asked(run)
        sent = await run.respond(request_id, 3)
        got = await read(run)
    assert sent in got
    assert (sent.author, sent.branch, sent.request) == ("user", "fan.a", None)
    assert sent.seq is not None
    assert sent.content == Content(
        FunctionResponse("adk_request_input", {"result": 3}, id=request_id), role="user"
    )
    assert "a got 3" in texts(got)


async def test_question_and_answer_are_in_adks_form(autojump_clock: MockClock) -> None:
    async with Runner(asker("a", "Size?", schema=int)).open() as run:
        asked = await anext(run)
        assert asked.request is not None
        await run.respond(asked.request.id, 3)
        await read(run)
    assert asked.function_calls == (
        FunctionCall(
            "adk_request_input",
            {
                "interruptId": asked.request.id,
                "message": "Size?",
                "payload": None,
                "response_schema": {"type": "integer"},
            },
            id=asked.request.id,
        ),
    )
    assert asked.long_running_tool_ids == (asked.request.id,)
    (response,) = run.result.events[1].function_responses
    assert (response.name, response.id) == ("adk_request_input", asked.request.id)


async def test_an_answer_reaches_the_agent_when_the_reader_comes_back(
    autojump_clock: MockClock,
) -> None:
    answers: Answers = {}
    async with Runner(asker("a", into=answers)).open() as run:
        (request_id,) = await read_until_asked(run)
        await run.respond(request_id, "yes")
        await wait_all_tasks_blocked()
        await anext(run)  # the answer itself
        await wait_all_tasks_blocked()
        assert answers == {}
        await read(run)
    assert answers == {"a": "yes"}


async def test_siblings_go_on_while_one_waits(autojump_clock: MockClock) -> None:
    tree = ParallelAgent("fan", [asker("a"), leaf("b", 1, "b1", 1, "b2")])
    async with Runner(tree).open() as run:
        (request_id,) = await read_until_asked(run)
        assert [(await anext(run)).text for _ in range(2)] == ["b1", "b2"]
        assert trio.current_time() == 2
        await run.respond(request_id, None)
        await read(run)
    assert run.result.status is Status.COMPLETED


async def test_several_questions_are_open_at_once_and_answered_in_any_order(
    autojump_clock: MockClock,
) -> None:
    answers: Answers = {}
    tree = ParallelAgent("fan", [asker(name, f"{name}?", into=answers) for name in "abc"])
    async with Runner(tree).open() as run:
        ids = await read_until_asked(run, 3)
        assert [request.id for request in run.pending] == ids
        for number, request_id in enumerate(reversed(ids)):
            await run.respond(request_id, number)
            assert request_id not in [request.id for request in run.pending]
        assert run.pending == ()
        await read(run)
    asked = [request_id.partition(":")[2].partition("#")[0] for request_id in ids]
    assert answers == {path: 2 - number for number, path in enumerate(asked)}


async def test_a_question_is_there_once_it_has_been_handed_out(autojump_clock: MockClock) -> None:
    tree = ParallelAgent("fan", [asker("a"), asker("b")])
    async with Runner(tree).open() as run:
        await wait_all_tasks_blocked()  # both are on their way
        assert [one.id for one in run.pending] == []
        for count in (1, 2):
            await anext(run)
            assert len(run.pending) == count
        for request in run.pending:
            await run.respond(request.id, 0)
        await read(run)
        assert run.pending == ()
    assert run.pending == ()


async def test_what_is_written_is_recorded_with_the_question(autojump_clock: MockClock) -> None:
    @agent
    async def writer(ctx: InvocationContext) -> None:
        ctx.state["draft"] = "x"
        await ctx.request_input("Is it good?")

    async with Runner(writer).open() as run:
        event = await anext(run)
        assert (event.request is not None, dict(event.state_delta)) == (True, {"draft": "x"})
        run.cancel()


async def test_an_answer_is_in_its_branchs_history_and_not_in_a_siblings(
    autojump_clock: MockClock,
) -> None:
    seen: dict[str, int] = {}

    def look(ctx: InvocationContext) -> None:
        seen[ctx.agent.name] = sum(bool(event.function_responses) for event in ctx.history())

    tree = SequentialAgent(
        "whole",
        [
            ParallelAgent(
                "fan",
                [
                    SequentialAgent("s", [asker("a"), leaf("same", look)]),
                    leaf("other", 5, look),
                ],
            ),
            leaf("after", look),
        ],
    )
    async with Runner(tree).open() as run:
        await answer_all(run)
    assert seen == {"same": 1, "other": 0, "after": 1}


async def test_another_task_may_answer(autojump_clock: MockClock) -> None:
    async def person(run: Run) -> None:
        await trio.sleep(10)
        await run.respond(run.pending[0].id, "at last")

    async with trio.open_nursery() as nursery, Runner(asker("a")).open() as run:
        nursery.start_soon(person, run)
        await read(run)
    assert run.result.text == "a got 'at last'"


async def test_a_plain_function_asks_from_its_thread() -> None:
    @agent
    def in_a_thread(ctx: InvocationContext) -> str:
        answer = trio.from_thread.run(partial(ctx.request_input, "well?", schema=int))
        return f"got {answer}"

    async with Runner(in_a_thread).open() as run:
        await answer_all(run, 7)
    assert run.result.output == "got 7"


@pytest.mark.parametrize(
    "service",
    [partial(SlowService, 1), partial(BatchingService, 1), partial(BatchingService, 0)],
    ids=["slow", "slow batching", "batching"],
)
async def test_with_a_service_that_takes_its_time_it_is_the_same(
    service: Callable[[], SlowService], autojump_clock: MockClock
) -> None:
    answers: Answers = {}
    tree = ParallelAgent("fan", [asker(name, into=answers) for name in "abc"])
    async with Runner(tree, session_service=service()).open() as run:
        got = await answer_all(run, 1)
        assert run.pending == ()
    assert answers == {"fan/a": 1, "fan/b": 1, "fan/c": 1}
    for name in "abc":
        kinds = [
            bool(event.request) for event in got if event.branch == f"fan.{name}" and not event.text
        ]
        assert kinds == [True, False]  # the question, then the answer


# ---------------------------------------------------------------------------------------------- ids


async def test_ids_are_the_same_in_two_runs_but_for_the_invocation(
    autojump_clock: MockClock,
) -> None:
    async def ask_twice(ctx: InvocationContext) -> None:
        await ctx.request_input("one")
        await ctx.request_input("two")

    tree = SequentialAgent(
        "whole", [ParallelAgent("fan", [leaf("a", ask_twice), asker("b")]), leaf("c", ask_twice)]
    )
    runner = Runner(tree)
    runs: list[list[str]] = []
    for _ in range(2):
        async with runner.open() as run:
            events = await answer_all(run)
        ids = [event.request.id for event in events if event.request is not None]
        assert all(one.startswith(f"{run.invocation_id}:") for one in ids)
        runs.append(sorted(one.removeprefix(f"{run.invocation_id}:") for one in ids))
    assert runs[0] == runs[1]
    assert runs[0] == [
        "whole/c#1",
        "whole/c#2",
        "whole/fan/a#1",
        "whole/fan/a#2",
        "whole/fan/b#1",
    ]


async def test_a_loop_asks_with_a_new_id_in_each_iteration(autojump_clock: MockClock) -> None:
    @agent
    async def driver(ctx: InvocationContext) -> None:
        for _ in range(3):
            await ctx.run_agent(one)

    one = asker("one")
    async with Runner(driver).open() as run:
        events = await answer_all(run)
    ids = [event.request.id.partition(":")[2] for event in events if event.request is not None]
    assert ids == ["driver/one@1#1", "driver/one@2#1", "driver/one@3#1"]


@pytest.mark.parametrize("short", ["fan/a#1", "fan/a", "a"])
async def test_a_short_id_will_do_if_nobody_elses_is_like_that(
    short: str, autojump_clock: MockClock
) -> None:
    answers: Answers = {}
    tree = ParallelAgent("fan", [asker("a", into=answers), asker("b", into=answers)])
    async with Runner(tree).open() as run:
        await read_until_asked(run, 2)
        await run.respond(short, "this one")
        await run.respond("b", "that one")
        await read(run)
    assert answers == {"fan/a": "this one", "fan/b": "that one"}


async def test_short_ids_work_whatever_ids_invocations_have(autojump_clock: MockClock) -> None:
    async with Runner(asker("a"), new_id=lambda: "urn:run:1").open() as run:
        (request_id,) = await read_until_asked(run)
        assert request_id == "urn:run:1:a#1"
        await run.respond("a#1", 1)
        await read(run)


def about_failures(*names: str, at: tuple[int, ...] = (), prompt: str = "what now?") -> Agent:
    """Return a fan-out whose branches fail; a person is asked about each."""
    times = at or (0,) * len(names)
    branches = [
        leaf(name, seconds, ValueError(name)) for name, seconds in zip(names, times, strict=True)
    ]
    return ParallelAgent("fan", branches, barrier=Escalate(prompt))


def short_ids(events: list[Event]) -> list[str]:
    """The parts of the questions' ids that are the same in every run."""
    return [event.request.id.partition(":")[2] for event in events if event.request is not None]


@given(at=st.tuples(*[st.integers(0, 2)] * 3), seed=st.random_module())
def test_questions_about_failed_branches_have_the_same_ids_whichever_fails_first(
    at: tuple[int, ...], seed: object
) -> None:
    async def main() -> list[Event]:
        async with Runner(about_failures("a", "b", "c", at=at)).open() as run:
            return await answer_all(run, "skip")

    events = run_virtual(main)
    assert sorted(short_ids(events)) == ["fan/a#failed", "fan/b#failed", "fan/c#failed"]
    for event in events:
        if event.request is not None:
            path = event.request.id.partition(":")[2].removesuffix("#failed")
            assert event.request.prompt.startswith(f"what now? {path} failed: ")


async def test_the_id_of_a_question_about_a_failed_branch_has_the_attempt(
    autojump_clock: MockClock,
) -> None:
    choices = iter(["retry", "retry", "skip"])

    async def answer(event: Event) -> None:
        if event.request is not None:
            await run.respond(event.request.id, next(choices))

    tries = Retry(2, initial_delay=0, jitter=0)
    branch = leaf("a", ValueError(), retry=tries)
    async with Runner(ParallelAgent("fan", [branch], barrier=Escalate("what now?"))).open() as run:
        events = await read(run, answer)
    assert short_ids(events) == ["fan/a~2#failed", "fan/a~4#failed", "fan/a~6#failed"]


async def test_questions_about_failures_do_not_count_among_an_agents_own(
    autojump_clock: MockClock,
) -> None:
    @agent
    async def boss(ctx: InvocationContext) -> None:
        await ctx.request_input("first of all?")
        await ctx.fan_out([leaf("a", ValueError()), leaf("a", 1, KeyError())], barrier=Escalate())
        await ctx.request_input("and then?")

    async with Runner(boss).open() as run:
        events = await answer_all(run, "skip")
    assert short_ids(events) == ["boss#1", "boss/a@1#failed", "boss/a@2#failed", "boss#2"]


@pytest.mark.parametrize("name", ["a", "fan/a", "fan/a#failed"])
async def test_a_failed_branch_may_be_named_in_the_answer_to_what_to_do_about_it(
    name: str, autojump_clock: MockClock
) -> None:
    async with Runner(about_failures("a", "b")).open() as run:
        await read_until_asked(run, 2)
        assert name in next(one for one in run.pending if " fan/a " in one.prompt).names
        await run.respond(name, "skip")
        await run.respond("fan", "skip")  # only one is left that the fan-out asks
        await read(run)
    assert run.result.status is Status.COMPLETED


async def test_an_agent_that_failed_in_two_branches_names_neither_question(
    autojump_clock: MockClock,
) -> None:
    @agent
    async def boss(ctx: InvocationContext) -> None:
        failing = leaf("a", ValueError())
        await ctx.map_outcomes(failing, [1, 2], barrier=Escalate())

    async with Runner(boss).open() as run:
        await read_until_asked(run, 2)
        for name in ("a", "boss"):
            await refused(run, name, f"'{name}' is ambiguous")
        await run.respond("boss/a@2", "skip")
        await run.respond("a", "abort")
        with pytest.raises(ValueError, match="raised by agent boss/a@1"):
            await read(run)


async def test_an_answered_question_makes_nothing_ambiguous(autojump_clock: MockClock) -> None:
    """Of two questions of one agent, the answer to the first is still on its way."""

    async def both(ctx: InvocationContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ctx.request_input, "one")
            nursery.start_soon(ctx.request_input, "two")

    async with Runner(leaf("a", both)).open() as run:
        first, _ = await read_until_asked(run, 2)
        with pytest.raises(ResponseRefusedError, match=r"'a' is ambiguous .*open: '.*', '.*'"):
            await run.respond("a", 1)
        await run.respond(first, 1)
        await run.respond("a", 2)
        with pytest.raises(ResponseRefusedError, match="'a' has been answered already"):
            await run.respond("a", 3)
        await read(run)


# -------------------------------------------------------------------------------- what an answer is


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen
class Choice:
    name: str
    count: int = 1
    colours: tuple[Colour, ...] = ()


@dataclass
class Flag:
    on: bool


class Note(TypedDict):
    text: str
    stars: NotRequired[int]


class ModelError(Exception):
    def errors(self) -> list[dict[str, Any]]:
        return [{"loc": ("name",), "msg": "a name is text"}]


@attrs.frozen
class Model:
    """Looks like a model of pydantic's."""

    name: str

    @classmethod
    def model_validate(cls, value: Any, *, strict: bool) -> Model:
        assert strict
        if set(value) != {"name"} or type(value["name"]) is not str:
            raise ModelError
        return cls(**value)

    def model_dump(self, **_: Any) -> dict[str, Any]:
        return {"name": self.name}

    @classmethod
    def model_json_schema(cls, **_: Any) -> dict[str, Any]:
        return {"type": "object", "properties": {"name": {"type": "string"}}}


FITTING: list[tuple[Any, Any, Any]] = [
    (bool, False, False),
    (int, 3, 3),
    (float, 2.5, 2.5),
    (float, 2, 2.0),
    (str, "", ""),
    (None, {"any": ["thing"]}, {"any": ["thing"]}),
    (Any, None, None),
    (Literal["retry", "skip"], "skip", "skip"),
    (Colour, "red", Colour.RED),
    (Choice, {"name": "x", "colours": ["blue"]}, Choice("x", 1, (Colour.BLUE,))),
    (Choice, Choice("x", 2), Choice("x", 2)),
    (Flag, {"on": True}, Flag(True)),
    (Flag, Flag(False), Flag(False)),
    (Note, {"text": "good"}, {"text": "good"}),
    (Model, {"name": "x"}, Model("x")),
    (Model, Model("x"), Model("x")),
    (int | str, "3", "3"),
    (int | None, None, None),
    (list[int], (1, 2), [1, 2]),
    (dict[str, Flag], {"a": Flag(True)}, {"a": Flag(True)}),
    (Schema(int), 3, 3),
]

UNFIT: list[tuple[Any, Any, str]] = [
    (bool, "no", "true or false"),
    (bool, 1, "true or false"),
    (int, 3.9, "3.9"),
    (int, 3.0, "3.0"),
    (int, "3", "'3'"),
    (int, True, "true"),
    (float, "2.5", "'2.5'"),
    (float, math.nan, "nan"),
    (str, None, "null"),
    (Literal["retry", "skip"], "Retry", "'Retry'"),
    (Colour, "green", "'green'"),
    (Choice, {"name": 5}, "name: "),
    (Choice, {"name": "x", "size": 1}, "size: "),
    (Choice, {"name": "x", "colours": ["blue", "pink"]}, r"colours\[1\]: "),
    (Choice, {}, "name: "),
    (Flag, {"on": "no"}, "on: "),
    (Note, {"text": "good", "stars": 4.5}, "stars: "),
    (Note, {"text": "good", "star": 4}, "star: "),
    (Model, {"name": 5}, "name: a name is text"),
    (int | str, 3.5, "3.5"),
    (int | None, "none", "'none'"),
    (list[int], [1, "2"], r"\[1\]: "),
    (None, object(), "no JSON form"),
    (None, {1: 2}, "key"),
    (None, "half a letter: \ud800", "surrogate"),
]


@pytest.mark.parametrize(("schema", "value", "answer"), FITTING)
async def test_an_answer_that_fits_is_structured(
    schema: Any, value: Any, answer: Any, autojump_clock: MockClock
) -> None:
    answers: Answers = {}
    async with Runner(asker("a", schema=schema, into=answers)).open() as run:
        await read_until_asked(run)
        await run.respond("a", value)
        await read(run)
    assert answers == {"a": answer}
    assert type(answers["a"]) in (type(answer), FrozenDict, FrozenList)


@pytest.mark.parametrize(("schema", "value", "match"), UNFIT)
async def test_an_answer_that_does_not_fit_is_refused_and_changes_nothing(
    schema: Any, value: Any, match: str, autojump_clock: MockClock
) -> None:
    async with Runner(asker("a", "how many?", schema=schema)).open() as run:
        (request_id,) = await read_until_asked(run)
        await wait_all_tasks_blocked()
        before = (run.statistics(), run.pending)
        with pytest.raises(ResponseRefusedError, match=match) as refused:
            await run.respond(request_id, value)
        assert f"request {request_id!r} ('how many?')" in str(refused.value)
        await wait_all_tasks_blocked()
        assert (run.statistics(), run.pending) == before
        good = next(value for kind, value, _ in FITTING if kind is schema or kind == schema)
        await run.respond(request_id, good)
        await read(run)
    assert run.result.status is Status.COMPLETED


async def test_an_answer_is_recorded_as_json_and_not_changed_by_its_giver(
    autojump_clock: MockClock,
) -> None:
    answers: Answers = {}
    given_value = {"list": [1]}
    async with Runner(asker("a", into=answers)).open() as run:
        await read_until_asked(run)
        sent = await run.respond("a", given_value)
        given_value["list"].append(2)
        await read(run)
    assert answers == {"a": {"list": [1]}}
    (response,) = sent.function_responses
    assert json.dumps(response.response) == '{"result": {"list": [1]}}'


async def test_a_value_that_holds_itself_is_refused(autojump_clock: MockClock) -> None:
    endless: list[Any] = []
    endless.append(endless)
    async with Runner(asker("a")).open() as run:
        await read_until_asked(run)
        with pytest.raises(ResponseRefusedError):
            await run.respond("a", endless)
        await run.respond("a", 0)
        await read(run)


# ----------------------------------------------------------------------------- what is not answered


async def refused(run: Run, request_id: Any, match: str) -> None:
    """Assert that an answer is refused, and that this changes nothing."""
    before = (run.statistics(), run.pending)
    with pytest.raises(ResponseRefusedError, match=match):
        await run.respond(request_id, True)
    assert (run.statistics(), run.pending) == before


async def test_an_unknown_id_is_refused_and_the_open_ones_are_named(
    autojump_clock: MockClock,
) -> None:
    async with Runner(asker("a")).open() as run:
        await refused(run, "a", r"request 'a' is not known \(open: none\)")
        (request_id,) = await read_until_asked(run)
        for unknown in ("b", "a#2", f"{run.invocation_id}:b#1", "", "other:a#1"):
            await refused(run, unknown, f"{unknown!r} is not known .open: '{request_id}'")
        run.cancel()


@pytest.mark.parametrize("request_id", [None, 5, [], ("a",)])
async def test_an_id_is_text(request_id: Any, autojump_clock: MockClock) -> None:
    async with Runner(asker("a")).open() as run:
        event = await anext(run)
        await refused(run, request_id, "names its request by its id, event.request.id, not")
        await refused(run, event.request, "names its request by its id, event.request.id, not")
        run.cancel()


async def test_a_question_is_answered_once(autojump_clock: MockClock) -> None:
    async with Runner(SequentialAgent("s", [asker("a"), leaf("b", 5)])).open() as run:
        (request_id,) = await read_until_asked(run)
        await run.respond(request_id, True)
        await refused(run, request_id, "has been answered already")  # on its way
        await anext(run)
        await anext(run)
        for name in (request_id, "s/a#1"):
            await refused(run, name, "has been answered already")  # received
        await read(run)
        await refused(run, request_id, "has been answered already")


async def test_a_question_that_has_expired_is_refused(autojump_clock: MockClock) -> None:
    tree = SequentialAgent("s", [asker("a", timeout=2, default=0), leaf("b", 5)])
    async with Runner(tree).open() as run:
        (request_id,) = await read_until_asked(run)
        assert texts([await anext(run)]) == ["a got 0"]
        await refused(run, request_id, "was not answered in time")
        await read(run)
    assert run.pending == ()


async def test_a_question_whose_agent_was_cancelled_is_withdrawn(
    autojump_clock: MockClock,
) -> None:
    async def impatient(ctx: InvocationContext) -> None:
        with trio.move_on_after(2):
            await ctx.request_input("well?")
        await ctx.emit("never mind")
        await trio.sleep(1)

    async with Runner(leaf("a", impatient)).open() as run:
        (request_id,) = await read_until_asked(run)
        assert (await anext(run)).text == "never mind"
        assert run.pending == ()
        await refused(run, request_id, "was withdrawn: its agent was cancelled")
        await read(run)
    assert run.result.status is Status.COMPLETED


async def test_the_question_of_a_branch_that_a_sibling_ended_is_withdrawn(
    autojump_clock: MockClock,
) -> None:
    stop = Event("stop", actions=EventActions(escalate=True))
    tree = ParallelAgent("fan", [asker("a"), leaf("b", 1, lambda ctx: ctx.emit(stop), 5)])
    async with Runner(tree).open() as run:
        (request_id,) = await read_until_asked(run)
        assert (await anext(run)).text == "stop"
        with pytest.raises(ResponseRefusedError, match=r"has ended|was withdrawn"):
            await run.respond(request_id, 1)  # at once
        await wait_all_tasks_blocked()
        await refused(run, request_id, "was withdrawn")
        await read(run)


async def test_the_question_of_a_failing_siblings_branch_is_withdrawn(
    autojump_clock: MockClock,
) -> None:
    async with Runner(ParallelAgent("fan", [asker("a"), leaf("b", 1, KeyError())])).open() as run:
        (request_id,) = await read_until_asked(run)
        with pytest.raises(KeyError):
            await read(run)
        assert run.pending == ()
        await refused(run, request_id, "was withdrawn")


async def test_a_cancelled_handle_withdraws_its_question(autojump_clock: MockClock) -> None:
    one = asker("one")

    @agent
    async def boss(ctx: InvocationContext) -> str:
        async with ctx.open_fan_out() as group:
            handle = group.start(one)
            await trio.sleep(3)
            handle.cancel()
            return str((await handle.outcome()).status)

    async with Runner(boss).open() as run:
        (request_id,) = await read_until_asked(run)
        await read(run)
        await refused(run, request_id, "was withdrawn")
    assert run.result.output == "cancelled"


async def test_once_the_reader_has_left_nothing_is_pending(autojump_clock: MockClock) -> None:
    pending: list[int] = []

    async def linger(ctx: InvocationContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            pending.append(len(run.pending))

    tree = ParallelAgent("fan", [leaf("b", linger), *(asker(name) for name in "vwxyz")])
    async with Runner(tree).open() as run:
        request_id, *_ = await read_until_asked(run, 5)
        await wait_all_tasks_blocked()
        assert len(run.pending) == 5
    assert pending == [0]
    await refused(run, request_id, "was withdrawn")


async def test_after_the_run_nothing_is_answered(autojump_clock: MockClock) -> None:
    async with Runner(asker("a")).open() as run:
        (request_id,) = await read_until_asked(run)
    assert run.result.status is Status.CANCELLED
    assert run.pending == ()
    await refused(run, request_id, "was withdrawn")


# --------------------------------------------------------------------------------------------- time


async def test_time_that_is_over_is_a_typed_error(autojump_clock: MockClock) -> None:
    tree = ParallelAgent("fan", [asker("a", timeout=2)])
    async with Runner(tree).open() as run:
        with pytest.raises(AgentTimeoutError, match="fan/a got no answer within 2 s") as over:
            await read(run)
    error = over.value
    assert (error.kind, error.path, error.branch) == ("request_input", "fan/a", "fan.a")
    assert trio.current_time() == 2
    assert run.outcomes("fan")[0].timed_out


@pytest.mark.parametrize("default", [0, None, False, "x"])
async def test_time_that_is_over_gives_the_default(default: Any, autojump_clock: MockClock) -> None:
    answers: Answers = {}
    async with Runner(asker("a", timeout=2, default=default, into=answers)).open() as run:
        await read(run)
    assert answers == {"a": default}
    assert trio.current_time() == 2


async def test_without_a_timeout_it_waits_for_ever(autojump_clock: MockClock) -> None:
    async with Runner(asker("a", default=0)).open() as run:
        (request_id,) = await read_until_asked(run)
        with trio.move_on_after(1_000_000):
            await anext(run)
        await run.respond(request_id, 1)
        await read(run)
    assert run.result.text == "a got 1"


async def test_time_begins_when_the_question_has_been_read(autojump_clock: MockClock) -> None:
    async with Runner(asker("a", timeout=2, default=0)).open() as run:
        (request_id,) = await read_until_asked(run)
        await trio.sleep(10)
        await run.respond(request_id, 1)
        await read(run)
    assert run.result.text == "a got 1"


@given(
    timeout=st.integers(0, 4),
    asked_at=st.integers(0, 2),
    answered_at=st.integers(0, 6),
    arrives_after=st.integers(0, 4),
    seed=st.random_module(),
)
def test_an_answer_counts_if_it_was_given_in_time_whenever_it_arrives(
    timeout: int, asked_at: int, answered_at: int, arrives_after: int, seed: object
) -> None:
    accepted: list[bool] = []

    async def person(run: Run) -> None:
        await trio.sleep(asked_at + answered_at)
        try:
            await run.respond("a", "yes")
        except ResponseRefusedError:
            accepted.append(False)
        else:
            accepted.append(True)

    async def main() -> str:
        asks = asker("a", timeout=timeout, default="no")
        tree = SequentialAgent("s", [leaf("before", asked_at), asks])
        async with trio.open_nursery() as nursery, Runner(tree).open() as run:
            nursery.start_soon(person, run)
            async for event in run:
                await trio.sleep(0 if event.request else arrives_after)
        return run.result.text

    text = run_virtual(main)
    assert text == ("a got 'yes'" if accepted[0] else "a got 'no'")
    if answered_at != timeout and answered_at:  # at the same moment, either may come first
        assert accepted[0] is (answered_at < timeout)


@pytest.mark.parametrize("timeout", [-1, math.nan, math.inf, 10**400, True, "2", [3]])
async def test_a_timeout_is_seconds(timeout: Any, autojump_clock: MockClock) -> None:
    async with Runner(asker("a", timeout=timeout)).open() as run:
        with pytest.raises(RequestError, match="the timeout of request_input"):
            await read(run)
    assert run.result.events == ()  # nobody was asked


@pytest.mark.parametrize("prompt", [None, 5, ["well?"], b"well?"])
async def test_a_prompt_is_text(prompt: Any, autojump_clock: MockClock) -> None:
    async with Runner(asker("a", prompt)).open() as run:
        with pytest.raises(RequestError, match="the prompt of request_input"):
            await read(run)
    assert run.result.events == ()


async def test_a_schema_that_cannot_be_checked_is_refused_before_anybody_is_asked(
    autojump_clock: MockClock,
) -> None:
    async with Runner(asker("a", schema=object.__init__)).open() as run:
        with pytest.raises(SchemaTypeError):
            await read(run)
    assert run.result.events == ()


async def test_asking_after_the_agent_has_ended_is_refused(autojump_clock: MockClock) -> None:
    kept: list[InvocationContext] = []

    async def use(ctx: InvocationContext) -> None:
        with pytest.raises(ActivationEndedError):
            await kept[0].request_input("well?")

    tree = SequentialAgent("s", [leaf("first", kept.append), leaf("second", use)])
    assert (await Runner(tree).run()).status is Status.COMPLETED


# -------------------------------------------------------------------------------------- who may ask


async def test_tasks_of_one_agent_ask_side_by_side(autojump_clock: MockClock) -> None:
    answers: Answers = {}

    async def ask_both(ctx: InvocationContext) -> None:
        async def ask(prompt: str) -> None:
            answers[prompt] = await ctx.request_input(prompt)

        async with trio.open_nursery() as nursery:
            for prompt in ("one", "two", "three"):
                nursery.start_soon(ask, prompt)

    async with Runner(leaf("a", ask_both)).open() as run:
        await read_until_asked(run, 3)
        assert sorted(request.id[-1] for request in run.pending) == ["1", "2", "3"]
        for request in run.pending:
            await run.respond(request.id, request.prompt.upper())
        await read(run)
    assert answers == {"one": "ONE", "two": "TWO", "three": "THREE"}


async def test_a_new_attempt_asks_again_with_another_id(autojump_clock: MockClock) -> None:
    @agent(retry=Retry(max_attempts=3))
    async def picky(ctx: InvocationContext) -> str:
        answer: str = await ctx.request_input("well?")
        if answer != "good":
            raise RuntimeError(answer)
        return answer

    replies = iter(("bad", "worse", "good"))

    async def answer(event: Event) -> None:
        if event.request is not None:
            await run.respond("picky", next(replies))

    async with Runner(picky).open() as run:
        events = await read(run, answer)
    ids = [event.request.id.partition(":")[2] for event in events if event.request is not None]
    assert ids == ["picky#1", "picky~2#1", "picky~3#1"]
    assert run.result.output == "good"


async def test_the_items_of_a_map_ask_each_for_itself(autojump_clock: MockClock) -> None:
    @agent
    async def each(ctx: InvocationContext, item: int) -> Any:
        return item * (await ctx.request_input(f"times {item}?", schema=int))

    @agent
    async def whole(ctx: InvocationContext) -> list[Any]:
        return await ctx.map(each, [1, 2, 3])

    async with Runner(whole).open() as run:
        await read_until_asked(run, 3)
        for number in (1, 2, 3):
            await run.respond(f"whole/each@{number}", 10 * number)
        await read(run)
    assert run.result.output == [10, 40, 90]


async def test_a_branch_of_an_open_fan_out_asks_while_its_parent_goes_on(
    autojump_clock: MockClock,
) -> None:
    one = asker("one")

    @agent
    async def boss(ctx: InvocationContext) -> Yields:
        async with ctx.open_fan_out() as group:
            handle = group.start(one)
            for step in range(3):
                await trio.sleep(1)
                yield f"step {step}"
            yield f"then {await handle}"

    async def person(event: Event) -> None:
        if event.text == "step 2":
            await run.respond("one", 1)

    async with Runner(boss).open() as run:
        got = await read(run, person)
    assert got[0].request is not None
    assert texts(got) == ["step 0", "step 1", "step 2", "one got 1", "then one got 1"]


async def test_a_deeply_nested_agent_asks_in_the_same_stream(autojump_clock: MockClock) -> None:
    tree: Agent = asker("deep")
    for level in range(30):
        kind = ParallelAgent if level % 2 else SequentialAgent
        tree = kind(f"level{level}", [tree])
    async with Runner(tree).open() as run:
        await answer_all(run, 1)
    assert "deep got 1" in texts(run.result.events)


async def test_the_answer_belongs_to_the_run_that_asked(autojump_clock: MockClock) -> None:
    answers: Answers = {}
    runner = Runner(asker("a", into=answers))
    async with runner.open() as first, runner.open() as second:
        (one,) = await read_until_asked(first)
        (two,) = await read_until_asked(second)
        assert one != two
        await refused(first, two, "is not known")
        await first.respond(one, 1)
        await read(first)
        assert answers == {"a": 1}
        await second.respond(two, 2)
        await read(second)
    assert answers == {"a": 2}


async def test_waiting_for_a_person_takes_nobodys_slot(autojump_clock: MockClock) -> None:
    one = Limiter(1)
    tree = ParallelAgent(
        "fan",
        [
            asker("a").with_options(limiter=one),
            SequentialAgent("s", [leaf("later", 1), leaf("b", 1, "b is done", limiter=one)]),
        ],
    )

    async def person(event: Event) -> None:
        if event.text == "b is done":
            await run.respond("a", 1)

    async with Runner(tree).open() as run:
        await read(run, person)
    assert run.result.status is Status.COMPLETED
    assert one.statistics().in_use == 0


async def test_after_time_is_over_the_slot_is_taken_back(autojump_clock: MockClock) -> None:
    one = Limiter(1)
    held: list[int] = []

    async def ask(ctx: InvocationContext) -> None:
        await ctx.request_input("well?", timeout=1, default=0)
        held.append(one.statistics().in_use)

    async with Runner(leaf("a", ask, limiter=one)).open() as run:
        await read(run)
    assert held == [1]


async def test_waiting_for_a_person_is_not_being_idle(autojump_clock: MockClock) -> None:
    async def person(run: Run) -> None:
        await trio.sleep(100)
        await run.respond("a", 1)

    tree = asker("a").with_options(idle_timeout=5)
    async with trio.open_nursery() as nursery, Runner(tree).open() as run:
        nursery.start_soon(person, run)
        await read(run)
    assert run.result.text == "a got 1"


# ----------------------------------------------------------------------- a question that is dropped


class Filter(Plugin):
    """Does something about every question."""

    def __init__(self, act: Callable[[Event], Event | DropEvent | None]) -> None:
        super().__init__()
        self.act = act

    async def on_event_callback(
        self,
        ctx: InvocationContext,  # noqa: ARG002  # of the hook
        event: Event,
    ) -> Event | DropEvent | None:
        return self.act(event) if event.request is not None else None


def drop(event: Event) -> DropEvent:
    return DROP_EVENT


def replace(event: Event) -> Event:
    return Event("a question was asked")


def as_partial(event: Event) -> Event:
    return Event("a question was asked", partial=True)


dropping = pytest.mark.parametrize("act", [drop, replace, as_partial])


@dropping
async def test_a_question_that_a_plugin_drops_fails_its_agent(
    act: Callable[[Event], Event | DropEvent], autojump_clock: MockClock
) -> None:
    async with Runner(asker("a", "well?"), plugins=[Filter(act)]).open() as run:
        with pytest.raises(RequestError, match=r"question of a \('well\?'\) was dropped"):
            await read(run, lambda _: refused(run, "a", "is not known"))
        await refused(run, "a#1", "was dropped")


@dropping
async def test_a_question_that_a_plugin_drops_gives_the_default(
    act: Callable[[Event], Event | DropEvent], autojump_clock: MockClock
) -> None:
    runner = Runner(asker("a", timeout=60, default="no"), plugins=[Filter(act)])
    async with runner.open() as run:
        await read(run)
    assert run.result.text == "a got 'no'"
    assert trio.current_time() == 0


async def test_a_failure_that_nobody_is_asked_about_is_raised(autojump_clock: MockClock) -> None:
    tree = ParallelAgent("fan", [leaf("a", KeyError("a"))], barrier=Escalate())
    async with Runner(tree, plugins=[Filter(drop)]).open() as run:
        with pytest.raises(KeyError):
            await read(run)


async def test_a_failure_whose_question_fails_is_raised_with_a_note(
    autojump_clock: MockClock,
) -> None:
    def fail(event: Event) -> DropEvent:
        raise LookupError

    tree = ParallelAgent("fan", [leaf("a", KeyError("a")), leaf("b", 5)], barrier=Escalate())
    async with Runner(tree, plugins=[Filter(fail)]).open() as run:
        with pytest.raises(KeyError) as raised:
            await read(run)
    assert any("plugin 'Filter' failed" in note for note in raised.value.__notes__)
    assert [outcome.status for outcome in run.outcomes("fan")] == ["failed", "cancelled"]


async def test_a_question_that_a_plugin_puts_in_other_words_is_asked_in_those(
    autojump_clock: MockClock,
) -> None:
    def censor(event: Event) -> Event:
        (call,) = event.function_calls
        call = attrs.evolve(call, args={**call.args, "message": "[censored]"})
        event.content = Content(call)
        return event

    runner = Runner(asker("a", "the secret?"), plugins=[Filter(censor)])
    async with runner.open() as run:
        event = await anext(run)
        assert event.request is not None
        assert event.request.prompt == run.pending[0].prompt == "[censored]"
        await run.respond(event.request.id, 1)
        await read(run)
    assert run.result.text == "a got 1"


def tapping(pass_on: Callable[[Event], bool], child: Agent) -> Agent:
    @agent
    async def reader(ctx: InvocationContext) -> Yields:
        async with ctx.open_agent(child) as events:
            async for event in events:
                if pass_on(event):
                    yield event
        yield "the end"

    return reader


async def test_a_question_that_is_passed_on_is_asked_then_and_not_before(
    autojump_clock: MockClock,
) -> None:
    held: list[int] = []

    def look(event: Event) -> bool:
        if event.request is not None:
            held.append(len(run.pending))
        return True

    async with Runner(tapping(look, asker("a"))).open() as run:
        got = await answer_all(run, 1)
    assert held == [0]
    assert texts(got) == ["a got 1", "the end"]
    assert [event.author for event in got] == ["a", "user", "a", "reader"]


async def test_a_question_that_whoever_reads_it_drops_fails_its_agent(
    autojump_clock: MockClock,
) -> None:
    tree = tapping(lambda event: event.request is None, asker("a"))
    async with Runner(tree).open() as run:
        with pytest.raises(RequestError, match="was dropped"):
            await read(run)


async def test_a_question_that_whoever_reads_it_drops_gives_the_default(
    autojump_clock: MockClock,
) -> None:
    tree = tapping(lambda event: event.request is None, asker("a", default="no"))
    assert texts((await Runner(tree).run()).events) == ["a got 'no'", "the end"]


# ------------------------------------------------------------------------- nobody is left to answer


async def test_where_nobody_holds_the_run_a_question_gets_its_default_at_once(
    autojump_clock: MockClock,
) -> None:
    result = await Runner(asker("a", default=5, timeout=60)).run()
    assert (result.text, trio.current_time()) == ("a got 5", 0)
    assert [event.request is not None for event in result.events] == [True, False]


@pytest.mark.parametrize("timeout", [None, 60])
async def test_where_nobody_holds_the_run_a_question_without_a_default_is_refused(
    timeout: float | None, autojump_clock: MockClock
) -> None:
    tree = ParallelAgent("fan", [asker("a", "May I?", timeout=timeout)])
    with pytest.raises(RequestError) as said:
        await Runner(tree).run()
    assert str(said.value) == (
        "nobody can answer the question of fan/a ('May I?'): Runner.run() hands out no run to "
        "respond to; use Runner.open(), give request_input() a default, or run with "
        'RunConfig(on_wait="suspend")'
    )
    assert trio.current_time() == 0


async def test_where_nobody_holds_the_run_an_agent_may_go_on_without_an_answer(
    autojump_clock: MockClock,
) -> None:
    @agent
    async def asks(ctx: InvocationContext) -> str:
        with pytest.raises(RequestError):
            await ctx.request_input("well?")
        return "went on"

    assert (await Runner(asks).run()).text == "went on"


async def test_where_nobody_holds_the_run_a_failure_that_a_person_would_decide_about_is_raised(
    autojump_clock: MockClock,
) -> None:
    tree = ParallelAgent(
        "fan", [leaf("a", 1, ValueError("no luck")), leaf("b", 9)], barrier=Escalate()
    )
    with pytest.raises(ValueError, match="no luck"):
        await Runner(tree).run()
    assert trio.current_time() == 1


@pytest.mark.parametrize("tree", [asker("a", default=5), about_failures("a")], ids=repr)
async def test_where_nobody_holds_the_run_it_may_still_be_suspended(
    tree: Agent, autojump_clock: MockClock
) -> None:
    result = await Runner(tree).run(run_config=RunConfig(on_wait="suspend"))
    assert result.status is Status.WAITING
    assert str(result.reason).startswith("unanswered: ")


def asks_behind_a_shield(diary: list[str]) -> Agent:
    async def stubborn(ctx: InvocationContext) -> None:
        try:
            await ctx.emit("begin")
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                try:
                    diary.append(await ctx.request_input("roll back?"))
                finally:
                    diary.append("gave up")

    return leaf("stubborn", stubborn)


async def test_a_shielded_question_does_not_keep_a_run_from_being_left(
    autojump_clock: MockClock,
) -> None:
    diary: list[str] = []
    async with Runner(asks_behind_a_shield(diary)).open() as run:
        await anext(run)
    assert diary == ["gave up"]
    assert run.result.status is Status.CANCELLED


async def test_a_shielded_question_does_not_keep_a_run_alive_whose_store_has_failed(
    autojump_clock: MockClock,
) -> None:
    class Failing(SlowService):
        async def append(
            self,
            key: Any,
            events: Any,
            *,
            expected_seq: int,
            lease: Lease | None = None,
        ) -> None:
            if any(event.function_responses for event in events):
                raise StoreError
            await super().append(key, events, expected_seq=expected_seq, lease=lease)

    diary: list[str] = []
    runner = Runner(asks_behind_a_shield(diary), session_service=Failing())
    async with runner.open() as run:
        await anext(run)
        run.cancel()
        await read_until_asked(run)
        await run.respond("stubborn", "yes")
        with pytest.raises(StoreError):
            await read(run)
    assert diary == ["gave up"]


async def test_a_cancelled_run_that_is_read_on_may_ask_what_to_do(
    autojump_clock: MockClock,
) -> None:
    diary: list[str] = []
    async with Runner(asks_behind_a_shield(diary)).open() as run:
        await anext(run)
        run.cancel()
        await answer_all(run, "yes")
    assert diary == ["yes", "gave up"]
    assert run.result.status is Status.CANCELLED
