"""A run as text."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import trio

from parallel_agent import (
    Agent,
    Event,
    EventActions,
    InvocationContext,
    ParallelAgent,
    Run,
    agent,
)
from parallel_agent.function_agent import AgentFunction
from parallel_agent.testing import Access, Schedule, Step, run_once
from parallel_agent.testing.diagram import MAX_LINES, PAGE, WIDTH, draw

Ctx = InvocationContext


def does(name: str, work: AgentFunction, **options: Any) -> Agent:
    return agent(work, name=name, **options)


def test_a_column_is_a_task_and_a_line_is_what_it_did() -> None:
    async def counts(ctx: Ctx) -> AsyncIterator[str]:
        seen = ctx.state.get("n", 0)
        await trio.sleep(1)
        ctx.state["n"] = seen + 1
        yield "counted"

    tree = ParallelAgent("p", [does("a", counts), does("b", counts)])
    assert draw(run_once(lambda: tree, Schedule(["p/b"])).steps) == (
        "p      p/a                    p/b\n"
        "-----  ---------------------  ---------------\n"
        "                              reads n\n"
        "       reads n\n"
        "- - - time passes, from 0 s\n"
        "       writes n\n"
        "       emits 'counted' {n=1}\n"
        "                              writes n\n"
        "                              emits 'counted'\n"
        "emits"
    )


def test_what_is_cancelled_who_escalates_and_what_was_not_recorded() -> None:
    async def escalates(ctx: Ctx) -> AsyncIterator[Event]:
        yield Event(actions=EventActions(escalate=True))

    async def says(ctx: Ctx) -> AsyncIterator[str]:
        yield "hello"

    tree = ParallelAgent("p", [does("a", escalates), does("b", says)])
    # Both are about to emit; then a does.
    assert draw(run_once(lambda: tree, Schedule(["p/b", "p/a", "p/a"])).steps) == (
        "p                    p/a             p/b\n"
        "-------------------  --------------  ----------------------------\n"
        "                     emits escalate\n"
        "                     cancels p/b\n"
        "                                     emits 'hello' (not recorded)\n"
        "emits (b cancelled)"
    )


def test_second_tasks_parts_of_events_history_and_all_keys() -> None:
    async def busy(ctx: Ctx) -> AsyncIterator[Event | str]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ctx.emit, "from a task")
            yield Event("par", partial=True)
        ctx.history()
        dict(ctx.state.items())

    assert draw(run_once(lambda: does("a", busy)).steps) == (
        "a                    a#2\n"
        "-------------------  -------------------\n"
        "emits part of 'par'\n"
        "                     emits 'from a task'\n"
        "reads all keys\n"
        "reads history"
    )


def test_messages_and_answers() -> None:
    async def asks(ctx: Ctx) -> None:
        await ctx.request_input("Yes?")
        await trio.sleep(1)

    async def sends(ctx: Ctx) -> None:
        await ctx.send("hello", to="p.a")

    async def answers(run: Run) -> None:
        async for event in run:
            if event.request is not None:
                await run.respond(event.request.id, "yes")
                await run.send("well", to=None)

    tree = ParallelAgent("p", [does("a", asks), does("b", sends)])
    drawn = draw(run_once(lambda: tree, read=answers).steps)
    assert "emits question 'Yes?'" in drawn
    assert "b to p.a: 'hello'" in drawn
    assert "user to the root: 'well'" in drawn
    assert "user to p.a:" in drawn


def test_of_long_names_the_end_is_shown_and_of_long_texts_the_beginning() -> None:
    async def says(ctx: Ctx) -> AsyncIterator[str]:
        yield "all of the words of which he had heard once"

    tree = does("a_name_that_is_much_too_long_for_a_column_of_text", says)
    head, line, text = draw(run_once(lambda: tree).steps).splitlines()
    assert len(head) == len(line) == len(text) == WIDTH
    assert head.startswith("…")
    assert head.endswith("_column_of_text")
    assert text == "emits 'all of the words of which …"


def test_of_an_event_without_a_text_the_output_is_shown() -> None:
    async def answers(ctx: Ctx) -> list[int]:
        return [1, 2]

    assert draw(run_once(lambda: does("a", answers)).steps).endswith("\nemits output [1, 2]")


def test_many_columns_are_narrower() -> None:
    async def says(ctx: Ctx) -> AsyncIterator[str]:
        yield "all of the words of which he had heard once"

    names = [f"an_agent_with_a_long_name_{letter}" for letter in "abcde"]
    drawn = draw(run_once(lambda: ParallelAgent("p", [does(name, says) for name in names])).steps)
    head, *_ = lines = drawn.splitlines()
    assert max(map(len, lines)) <= PAGE
    assert [column[-1] for column in head.split()] == ["p", *"abcde"]


def test_a_run_in_which_only_time_passes_has_no_columns() -> None:
    async def waits(ctx: Ctx) -> None:
        await trio.sleep(1)

    drawn = draw(run_once(lambda: does("a", waits)).steps)
    assert drawn == "- - - time passes, from 0 s"


def test_of_a_long_run_the_last_is_drawn_and_it_is_said_that_there_is_more() -> None:
    async def counts(ctx: Ctx) -> AsyncIterator[str]:
        for number in range(100):
            yield f"{number}"

    lines = draw(run_once(lambda: does("a", counts)).steps).splitlines()
    assert len(lines) == MAX_LINES + 3
    assert lines[2] == f"({100 - MAX_LINES} lines before)"
    assert lines[-1] == "emits '99'"


def test_columns_stand_in_the_order_of_the_tasks_beginning() -> None:
    access = Access("k", writes=False, branch=None, where="")
    steps = [
        Step(name, rank=rank, accesses=[access])
        for name, rank in [("b", (2, 0)), ("a#2", (1, 2)), ("a", (1, 0)), ("c", (10, 0))]
    ]
    assert draw(steps).splitlines()[0].split() == ["a", "a#2", "b", "c"]


def test_a_run_without_anything_to_see_says_so() -> None:
    async def nothing(ctx: Ctx) -> None:
        pass

    drawn = draw(run_once(lambda: does("a", nothing)).steps)
    assert drawn == draw([]) == "(nobody did what others could notice)"
