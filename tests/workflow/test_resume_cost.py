"""What it costs to resume grows with what there is, and no faster: calls are counted, not timed."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from parallel_agent import Agent, InvocationContext, ParallelAgent, RunConfig, Runner, agent
from session import InMemorySessionService

SUSPEND = RunConfig(on_wait="suspend")


class Calls:
    """How many Python functions were called."""

    count = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        def see(_frame: object, what: str, _argument: object) -> None:
            self.count += what == "call"

        before = sys.getprofile()
        sys.setprofile(see)
        try:
            yield
        finally:
            sys.setprofile(before)


def asks(name: str) -> Agent:
    @agent(name=name)
    async def asking(ctx: InvocationContext) -> AsyncIterator[str]:
        yield str(await ctx.request_input("which?"))

    return asking


async def answering(count: int) -> float:
    """Return how many calls it takes, for each of so many questions, to resume with answers."""
    tree = ParallelAgent("all", [asks(f"a{number}") for number in range(count)])
    runner = Runner(tree, session_service=InMemorySessionService(), resumable=True)
    await runner.run("go", session_id="s", run_config=SUSPEND)
    calls = Calls()
    with calls.counted():
        result = await runner.resume("s", responses={f"a{n}": n for n in range(count)})
    assert result.status == "completed"
    return calls.count / count


def squared(count: int) -> float:
    """Something that must be found out: each of so many calls something for each."""
    calls = Calls()

    def nothing() -> None: ...

    with calls.counted():
        for _ in range(count * count):
            nothing()
    return calls.count / count


def test_the_counter_tells_what_is_quadratic() -> None:
    assert squared(60) > 1.5 * squared(15)


async def test_answers_are_matched_with_their_questions_in_one_go() -> None:
    few, many = await answering(15), await answering(120)
    assert many < 1.5 * few
