"""Runs that wait for a person, or hold messages, across a cut: each answer in a run of its own."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from parallel_agent import (
    Agent,
    Escalate,
    Event,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    ResponseRefusedError,
    Retry,
    Run,
    RunConfig,
    SequentialAgent,
    Status,
    agent,
)
from parallel_agent.testing import emits, raises, scripted
from tests.kernel.scripted import run_virtual
from tests.support.drawing import fewer
from tests.support.resuming import FIRST, Cut, Told, cut_log, differences, play, resume, troubles
from tests.workflow.trees import Yields

SUSPEND = RunConfig(on_wait="suspend")


def whole_log(told: Told) -> Cut:
    """Return a cut that cuts nothing off."""
    return cut_log(told, len(told.lines))


def asker(name: str, ran: Counter[str], *, schema: Any = None, questions: int = 1) -> Agent:
    """Return an agent that has an effect, and asks so many questions, and tells the answers."""

    @agent(name=name)
    async def asks(ctx: InvocationContext) -> Yields:
        ran[name] += 1

        def effect() -> None:
            ran[f"{name}!"] += 1

        await ctx.once("before", effect, on_unknown="retry")
        answers = [
            await ctx.request_input(f"{name}{number}?", schema=schema)
            for number in range(questions)
        ]
        yield f"{name} got {answers}"

    return asks


def counting(name: str, ran: Counter[str]) -> Agent:
    @agent(name=name)
    async def counts(ctx: InvocationContext) -> Yields:
        ran[ctx.path] += 1
        yield name

    return counts


def deep(waits: int, depth: int, ran: Counter[str]) -> Agent:
    """Return a tree of so many branches that wait, each below so many fan-outs and sequences."""

    def below(number: int, left: int) -> Agent:
        if not left:
            before, after = counting(f"b{number}", ran), counting(f"a{number}", ran)
            return SequentialAgent(f"s{number}", [before, asker(f"q{number}", ran), after])
        return ParallelAgent(f"p{number}_{left}", [below(number, left - 1)])

    branches = [below(number, depth) for number in range(waits)]
    return SequentialAgent("root", [ParallelAgent("fan", branches), counting("end", ran)])


@fewer(4)
@given(st.integers(1, 4), st.integers(0, 3), st.data())
def test_each_answer_lets_its_own_branch_go_on_and_nothing_runs_twice(
    waits: int, depth: int, data: st.DataObject
) -> None:
    ran: Counter[str] = Counter()
    data.draw(st.random_module())  # trio shuffles what is ready at the same moment

    async def main() -> None:
        told = await play(deep(waits, depth, ran), config=SUSPEND)
        assert len(told.run.pending) == waits
        order = data.draw(st.permutations(range(waits)))
        for left, number in zip(range(waits - 1, -1, -1), order, strict=True):
            assert told.result.status is Status.WAITING
            assert told.unfinished == ("waiting",)
            before = Counter(ran)
            told = await resume(
                deep(waits, depth, ran), whole_log(told), responses={f"q{number}": number}
            )
            assert len(told.run.pending) == left
            new = {name for name in ran if ran[name] > before[name]}
            leaves = {name.rpartition("/")[2] for name in new}
            assert leaves == {f"q{number}", f"a{number}"} | ({"end"} if not left else set())
        assert told.result.status is Status.COMPLETED
        assert told.unfinished == ()
        # Whoever asks starts twice; its effect, and everybody else, happens once.
        assert {name: n for name, n in ran.items() if n != 1} == {f"q{n}": 2 for n in range(waits)}
        said = sorted(event.text for event in told.result.events if "got" in event.text)
        assert said == sorted(f"q{number} got [{number}]" for number in range(waits))

    run_virtual(main)


async def test_an_agent_that_asks_again_is_not_run_for_the_answer_of_another(
    autojump_clock: MockClock,
) -> None:
    ran: Counter[str] = Counter()

    def make() -> Agent:
        return ParallelAgent("p", [asker("a", ran, questions=2), asker("b", ran)])

    told = await play(make(), config=SUSPEND)
    told = await resume(make(), whole_log(told), responses={"a": 1})
    assert [one.prompt for one in told.run.pending] == ["b0?", "a1?"]
    ran.clear()
    told = await resume(make(), whole_log(told), responses={"b": 2})
    assert ran == {"b": 1}
    told = await resume(make(), whole_log(told), responses={"a": 3})
    assert told.result.output == {"a": "a got [1, 3]", "b": "b got [2]"}


async def test_several_answers_may_be_given_at_once(autojump_clock: MockClock) -> None:
    ran: Counter[str] = Counter()
    tree = ParallelAgent("p", [asker("a", ran), asker("b", ran), asker("c", ran)])
    told = await play(tree, config=SUSPEND)
    told = await resume(tree, whole_log(told), responses={"a": 1, "c": 2})
    assert [one.author for one in told.run.pending] == ["b"]
    told = await resume(tree, whole_log(told), responses={"p/b": 3})
    assert told.result.outputs["p"] == {"a": "a got [1]", "b": "b got [3]", "c": "c got [2]"}


async def test_a_retried_agent_that_waits_is_not_run_without_an_answer(
    autojump_clock: MockClock,
) -> None:
    ran: Counter[str] = Counter()

    @agent(retry=Retry(2, initial_delay=0))
    async def stubborn(ctx: InvocationContext) -> Yields:
        ran[ctx.path] += 1
        if "~" not in ctx.path:
            message = "once"
            raise ValueError(message)
        yield f"got {await ctx.request_input('well?')}"

    told = await play(stubborn, config=SUSPEND)
    assert ran == {"stubborn": 1, "stubborn~2": 1}
    told = await resume(stubborn, whole_log(told))
    assert told.result.status is Status.WAITING
    assert ran == {"stubborn": 1, "stubborn~2": 1}
    told = await resume(stubborn, whole_log(told), responses={"stubborn": "fine"})
    assert told.result.text == "got fine"
    assert ran == {"stubborn": 1, "stubborn~2": 2}


async def test_an_agent_finds_its_answers_when_it_starts_again(autojump_clock: MockClock) -> None:
    found: list[Any] = []

    @agent
    async def asks(ctx: InvocationContext) -> Yields:
        found.append([(one.prompt, one.value) for one in ctx.answered])
        if not ctx.answered:
            await ctx.request_input("name?")
        yield f"hello {ctx.answered[0].value}"

    told = await play(asks, config=SUSPEND)
    told = await resume(asks, whole_log(told), responses={"asks": "Ada"})
    assert found == [[], [("name?", "Ada")]]
    assert told.result.text == "hello Ada"


async def test_an_answer_before_the_checkpoint_is_no_longer_among_them(
    autojump_clock: MockClock,
) -> None:
    found: list[Any] = []

    @agent
    async def asks(ctx: InvocationContext) -> Yields:
        found.append([one.value for one in ctx.answered])
        if ctx.restored is None:
            first = await ctx.request_input("first?")
            await ctx.checkpoint({"first": first})
        else:
            first = ctx.restored["first"]
        second = await ctx.request_input("second?")
        yield f"{first} {second}"

    told = await play(asks, config=SUSPEND)
    told = await resume(asks, whole_log(told), responses={"asks": 1})
    told = await resume(asks, whole_log(told), responses={"asks": 2})
    assert found == [[], [1], [2]]
    assert told.result.text == "1 2"


@pytest.mark.parametrize(
    ("responses", "says"),
    [
        ({"nobody": 1}, "'nobody' is not known"),
        ({"a": 1, "p/a": 2}, "is ambiguous"),
        ({"p": 1}, "is not known"),
        ({"a": object()}, "the answer to request 'a'"),
    ],
    ids=["no such id", "twice", "of nobody", "no JSON"],
)
async def test_a_wrong_answer_is_refused_and_nothing_has_changed(
    responses: dict[str, Any], says: str, autojump_clock: MockClock
) -> None:
    ran: Counter[str] = Counter()
    tree = ParallelAgent("p", [asker("a", ran), asker("b", ran)])
    told = await play(tree, config=SUSPEND)
    ran.clear()
    with pytest.raises(ResponseRefusedError, match=says):
        await resume(tree, whole_log(told), responses=responses)
    assert ran == {}
    told = await resume(tree, whole_log(told), responses={"a": 1, "b": 2})
    assert told.result.status is Status.COMPLETED


async def test_an_answer_that_does_not_fit_leaves_the_question_open(
    autojump_clock: MockClock,
) -> None:
    ran: Counter[str] = Counter()
    tree = SequentialAgent("s", [asker("a", ran, schema=int)])
    told = await play(tree, config=SUSPEND)
    told = await resume(tree, whole_log(told), responses={"a": "no"})
    assert told.result.status is Status.WAITING
    (still_open,) = told.run.pending
    assert still_open.problem is not None
    assert "a whole number is needed" in still_open.problem
    told = await resume(tree, whole_log(told), responses={"a": 5})
    assert told.error is None
    assert told.result.text == "a got [5]"
    assert sum(event.request is not None for event in told.result.events) == 1


async def test_a_reopened_run_can_be_answered_as_it_goes(autojump_clock: MockClock) -> None:
    ran: Counter[str] = Counter()
    tree = ParallelAgent("p", [asker("a", ran, questions=2), asker("b", ran)])
    told = await play(tree, config=SUSPEND)

    async def answer(run: Run, event: Event) -> None:
        if event.request is not None:
            await run.respond(event.request.id, event.request.prompt)

    told = await resume(tree, whole_log(told), on_event=answer, config=RunConfig())
    assert told.result.output == {"a": "a got ['a0?', 'a1?']", "b": "b got ['b0?']"}
    questions = [event.request.prompt for event in told.result.events if event.request]
    assert sorted(questions) == ["a0?", "a1?", "b0?"]


async def test_a_live_answer_counts_after_a_cut(autojump_clock: MockClock) -> None:
    async def answer(run: Run, event: Event) -> None:
        if event.request is not None:
            await run.respond(event.request.id, event.request.prompt)

    def make() -> Agent:
        ran: Counter[str] = Counter()
        inside = ParallelAgent("p", [asker("a", ran, questions=2), asker("b", ran)])
        return LoopAgent("l", [inside, scripted("z", emits("z"))], max_iterations=2)

    assert await troubles(make, on_event=answer, saw=False) == []


async def test_a_question_is_in_the_result_once(autojump_clock: MockClock) -> None:
    ran: Counter[str] = Counter()
    tree = SequentialAgent("s", [asker("a", ran)])

    async def answer(run: Run, event: Event) -> None:
        if event.request is not None:
            await run.respond(event.request.id, 1)

    whole = await play(tree, on_event=answer)
    for at in range(FIRST, len(whole.lines) + 1):
        again = await resume(tree, cut_log(whole, at), on_event=answer)
        assert sum(event.request is not None for event in again.result.events) == 1, at


# --------------------------------------------------------------------- what to do about a failure


@pytest.mark.parametrize("choice", ["retry", "skip", "abort"])
async def test_a_person_is_asked_about_a_failure_and_answers_later(
    choice: str, autojump_clock: MockClock
) -> None:
    ran: Counter[str] = Counter()

    def make() -> Agent:
        @agent
        async def bad(ctx: InvocationContext) -> Yields:
            ran[ctx.path] += 1
            yield "tries"
            if "~" not in ctx.path:
                message = "no"
                raise ValueError(message)

        inside = [bad, counting("good", ran)]
        return SequentialAgent(
            "s", [ParallelAgent("p", inside, barrier=Escalate()), counting("z", ran)]
        )

    async def answer(run: Run, event: Event) -> None:
        if event.request is not None:
            await run.respond(event.request.id, choice)

    whole = await play(make(), on_event=answer)
    told = await play(make(), config=SUSPEND)
    assert told.result.status is Status.WAITING
    (question,) = told.run.pending
    ran.clear()
    told = await resume(make(), whole_log(told), responses={question.id: choice})
    assert differences(told, whole) == []
    tries = [[one.attempts for one in run.outcomes("p")] for run in (told.run, whole.run)]
    assert tries[0] == tries[1]
    expected = {"retry": {"s/p/bad~2": 1, "s/z": 1}, "skip": {"s/z": 1}, "abort": {}}
    assert ran == expected[choice]
    assert await troubles(make, on_event=answer, saw=False) == []


async def test_the_question_about_a_failure_stays_open_while_another_is_answered(
    autojump_clock: MockClock,
) -> None:
    ran: Counter[str] = Counter()
    inside = [scripted("bad", raises(ValueError("no"))), asker("a", ran)]
    tree = ParallelAgent("p", inside, barrier=Escalate())
    told = await play(tree, config=SUSPEND)
    assert len(told.run.pending) == 2
    told = await resume(tree, whole_log(told), responses={"a": 1})
    (left,) = told.run.pending
    assert left.id.endswith("p/bad#failed")
    told = await resume(tree, whole_log(told), responses={"bad": "skip"})
    assert told.result.status is Status.COMPLETED
    assert told.result.output == {"a": "a got [1]"}


# --------------------------------------------------------------------------------------- messages


def reader(taken: int) -> Agent:
    """Return an agent that says it is ready, takes some messages, and then tells them."""

    @agent
    async def reads(ctx: InvocationContext) -> Yields:
        yield "ready"
        got = [(await ctx.receive()).text for _ in range(taken)]
        yield f"got {got}"
        yield "more"

    return reads


async def send_three(run: Run, event: Event) -> None:
    if event.text == "ready":
        for text in ("one", "two", "three"):
            await run.send(text, to="p.reads")


async def test_messages_that_were_not_received_for_good_are_there_again(
    autojump_clock: MockClock,
) -> None:
    tree = ParallelAgent("p", [reader(2)])
    whole = await play(tree, on_event=send_three)
    for text in ("three", "got ['one', 'two']", "more"):
        again = await resume(tree, cut_log(whole, whole.after(text)))
        assert again.result.output == {"reads": "more"}
        assert any(event.text == "got ['one', 'two']" for event in again.delivered), text


async def test_messages_received_before_a_checkpoint_are_not_there_again(
    autojump_clock: MockClock,
) -> None:
    @agent
    async def reads(ctx: InvocationContext) -> Yields:
        got = list(ctx.restored or [])
        if not got:
            yield "ready"
        while len(got) < 3:
            got.append((await ctx.receive()).text)
            await ctx.checkpoint(got)
        yield f"got {got}"

    tree = ParallelAgent("p", [reads])
    whole = await play(tree, on_event=send_three)
    for at in whole.places("checkpoint"):
        again = await resume(tree, cut_log(whole, at))
        assert again.result.output == {"reads": "got ['one', 'two', 'three']"}, at


async def test_messages_that_an_ended_agent_has_received_are_not_there_for_the_next(
    autojump_clock: MockClock,
) -> None:
    @agent
    async def first(ctx: InvocationContext) -> Yields:
        yield "ready"
        yield f"first got {(await ctx.receive()).text}"

    @agent
    async def second(ctx: InvocationContext) -> Yields:
        yield f"second got {(await ctx.receive()).text}"

    tree = ParallelAgent("p", [SequentialAgent("s", [first, second])])

    async def send(run: Run, event: Event) -> None:
        if event.text == "ready":
            await run.send("one", to="p.s")
            await run.send("two", to="p.s")

    whole = await play(tree, on_event=send)
    again = await resume(tree, cut_log(whole, whole.ended_at("p/s/first")))
    assert again.result.outputs["second"] == "second got two"


async def test_messages_are_seen_once_by_an_agent_that_starts_again(
    autojump_clock: MockClock,
) -> None:
    seen: list[list[str]] = []

    @agent(retry=Retry(2, initial_delay=0))
    async def reads(ctx: InvocationContext) -> Yields:
        yield "ready" if "~" not in ctx.path else "again"
        got = (await ctx.receive()).text
        if "~" not in ctx.path:
            message = "once"
            raise ValueError(message)
        seen.append([event.text for event in ctx.history()])
        yield f"got {got}"

    async def send(run: Run, event: Event) -> None:
        if event.text == "ready":
            await run.send("one", to="p.reads")

    tree = ParallelAgent("p", [reads])
    whole = await play(tree, on_event=send)
    again = await resume(tree, cut_log(whole, whole.after("again")))
    assert again.result.output == {"reads": "got one"}
    assert seen == [["hi", "one", "again"]] * 2
