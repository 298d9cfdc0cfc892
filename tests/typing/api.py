"""What users will write, for type checkers only: nothing here is run.

mypy and pyright, both strict, must accept every line; ``assert_type`` says what they make of it.
Lines that they must *not* accept say ``type: ignore``, with mypy's reason. Where one of the two
does accept such a line, it complains of the comment.
"""

# ruff: noqa: ARG002  # signatures are what this is about
# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, assert_type

import trio

from parallel_agent import (
    Agent,
    AgentCallback,
    Content,
    Event,
    EventActions,
    FunctionAgent,
    FunctionCall,
    InMemorySessionService,
    InvocationContext,
    Limiter,
    LimiterStatistics,
    LoopAgent,
    Outcome,
    ParallelAgent,
    Result,
    Retry,
    Run,
    RunConfig,
    Runner,
    SequentialAgent,
    SessionService,
    State,
    Status,
    Text,
    WaitAll,
    agent,
)

# ---------------------------------------------------------------------------- functions as agents


@agent
async def yields(ctx: InvocationContext) -> AsyncGenerator[str, None]:
    yield "text"


@agent
async def yields_what_it_likes(
    ctx: InvocationContext,
) -> AsyncGenerator[str | Content | Event, None]:
    yield "text"
    yield Content("content")
    yield Event("event", actions=EventActions(state_delta={"k": 1}))


@agent
async def yields_as_an_iterator(ctx: InvocationContext) -> AsyncIterator[Event]:
    yield Event(output={"a": [1, 2]})


@agent
async def returns(ctx: InvocationContext) -> str:
    return "text"


@agent
async def returns_nothing(ctx: InvocationContext) -> None:
    await ctx.emit("text")


@agent
async def returns_data(ctx: InvocationContext) -> dict[str, list[int]]:
    return {"a": [1]}


@agent
def plain(ctx: InvocationContext) -> int:
    return 7


@agent
def plain_without_result(ctx: InvocationContext) -> None:
    ctx.state["k"] = 1


@agent()
async def with_brackets(ctx: InvocationContext) -> None: ...


@agent(
    name="with_options",
    description="has options",
    output_key="key",
    before_agent_callback=lambda _: None,
    after_agent_callback=[lambda _: "more"],
)
async def with_options_yields(ctx: InvocationContext) -> AsyncGenerator[str, None]:
    yield "text"


@agent(output_key="key")
async def with_options_returns(ctx: InvocationContext) -> int:
    return 1


@agent(abandon_on_cancel=True)
def with_options_plain(ctx: InvocationContext) -> float:
    return 1.5


assert_type(yields, FunctionAgent)
assert_type(yields_what_it_likes, FunctionAgent)
assert_type(yields_as_an_iterator, FunctionAgent)
assert_type(returns, FunctionAgent)
assert_type(returns_nothing, FunctionAgent)
assert_type(returns_data, FunctionAgent)
assert_type(plain, FunctionAgent)
assert_type(plain_without_result, FunctionAgent)
assert_type(with_brackets, FunctionAgent)
assert_type(with_options_yields, FunctionAgent)
assert_type(with_options_returns, FunctionAgent)
assert_type(with_options_plain, FunctionAgent)


def of_two(greeting: str, ctx: InvocationContext) -> str:
    return f"{greeting}, {ctx.user_text}"


async def of_more(ctx: InvocationContext, times: int = 1) -> str:
    return ctx.user_text * times


class Service:
    async def method(self, ctx: InvocationContext) -> str:
        return "text"

    async def __call__(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
        yield Event("text")


assert_type(agent(partial(of_two, "hello"), name="greeter"), FunctionAgent)
assert_type(agent(of_more), FunctionAgent)
assert_type(agent(Service().method), FunctionAgent)
assert_type(agent(Service(), output_key="key"), FunctionAgent)
assert_type(agent(lambda ctx: ctx.user_text, name="echo"), FunctionAgent)


async def of_something_else(number: int) -> str:
    return "text"


async def of_nothing() -> None: ...


agent(of_something_else)  # type: ignore[arg-type]
agent(of_nothing)  # type: ignore[arg-type]
agent("name")  # type: ignore[call-overload]
agent(of_more, colour="red")  # type: ignore[call-overload]
agent(of_more, output_key=7)  # type: ignore[call-overload]


# ----------------------------------------------------------------------------- classes of one's own


class Greeter(Agent):
    """An async generator."""

    def __init__(self, name: str, greeting: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.greeting = greeting

    async def run(self, ctx: InvocationContext) -> AsyncGenerator[str, None]:
        yield f"{self.greeting}, {ctx.user_text}"


class EventGreeter(Agent):
    async def run(self, ctx: InvocationContext) -> AsyncGenerator[Event | str, None]:
        yield Event("hello")


class Adder(Agent):
    """A coroutine."""

    async def run(self, ctx: InvocationContext) -> int:
        return 1 + 1


class Silent(Agent):
    async def run(self, ctx: InvocationContext) -> None:
        ctx.state["k"] = 1


class Router(Agent):
    """Chooses, in plain Python, which of its children runs."""

    def __init__(self, name: str, routes: Mapping[str, Agent]) -> None:
        super().__init__(name, routes.values(), description="routes")
        self.routes = routes

    async def run(self, ctx: InvocationContext) -> Any:
        chosen = self.routes[ctx.user_text]
        output = await ctx.run_agent(chosen)
        assert_type(output, Any)
        return output


class Base(Agent):
    """Has no ``run``."""

    def __init__(self, name: str) -> None:
        super().__init__(name, output_key=name)


class Derived(Base):
    async def run(self, ctx: InvocationContext) -> AsyncGenerator[Content, None]:
        yield Content("text")


class Wrong(Agent):
    def run(self, ctx: InvocationContext) -> str:  # type: ignore[override]
        return "text"


# ------------------------------------------------------------------------------------------- trees

tree = SequentialAgent(
    "pipeline",
    [
        ParallelAgent("measure", [yields, returns, Greeter("greeter", "hello")]),
        LoopAgent("refine", [Adder("adder"), plain], max_iterations=3),
    ],
)
by_keyword = ParallelAgent(
    name="fan",
    sub_agents=(yields, plain),
    description="fans out",
    output_key="fan",
    before_agent_callback=None,
    after_agent_callback=None,
)
endless = LoopAgent(name="endless", sub_agents=[yields], max_iterations=None)
loop_with_options = LoopAgent("loop", [yields], output_key="key", description="loops")

shared = Limiter(2, name="shared")
twice = Retry(2, initial_delay=0.5, max_delay=9, backoff_factor=1.5, jitter=0, on=ValueError)
several = Retry(on=(ValueError, OSError))
asked = Retry(on=lambda error: error.args == ("busy",))
limited = yields.with_options(name="limited", retry=twice, timeout=3, idle_timeout=0.5)
assert_type(limited, FunctionAgent)
assert_type(limited.retry, Retry | None)
assert_type(limited.timeout, float | None)
assert_type(limited.limiter, Limiter | None)
assert_type(shared.statistics(), LimiterStatistics)
assert_type(tree.with_options(timeout=None), SequentialAgent)
assert_type(Greeter("polite", "hello").with_options(retry=several, limiter=shared), Greeter)
loop_with_limits = LoopAgent("loop", [yields], max_iterations=3, retry=asked, timeout=1)
parallel_with_limits = ParallelAgent(
    "fan", [yields], barrier=WaitAll(), max_concurrency=2, retry=Retry(), limiter=shared
)
assert_type(parallel_with_limits.with_options(name="other"), ParallelAgent)


@agent(retry=Retry(3), timeout=5, idle_timeout=1, limiter=shared)
async def has_limits(ctx: InvocationContext) -> str:
    return "text"


yields.with_options(timeout="3")  # type: ignore[arg-type]
yields.with_options(retry=3)  # type: ignore[arg-type]
yields.with_options(retries=3)  # type: ignore[call-arg]
LoopAgent("l", [yields], timeout="3")  # type: ignore[arg-type]
LoopAgent("l", [yields], max_concurrency=3)  # type: ignore[call-arg]
ParallelAgent("p", [yields], limiter=3)  # type: ignore[arg-type]
ParallelAgent("p", [yields], max_iterations=3)  # type: ignore[call-arg]
ParallelAgent("p", [yields]).with_options(max_concurrency=3)  # type: ignore[call-arg]
Retry(on=3)  # type: ignore[arg-type]
Retry(3, 1.0)  # type: ignore[call-arg]
Limiter("2")  # type: ignore[arg-type]

assert_type(tree.name, str)
assert_type(tree.sub_agents, tuple[Agent, ...])
assert_type(tree.find_agent("measure"), Agent | None)
assert_type(endless.max_iterations, int | None)

leaves: list[FunctionAgent] = [yields, plain]
assert_type(SequentialAgent("from_a_list_of_leaves", leaves), SequentialAgent)

SequentialAgent("s", [of_more])  # type: ignore[list-item]
LoopAgent("l", [yields], max_iterations="3")  # type: ignore[arg-type]
ParallelAgent("p", yields)  # type: ignore[arg-type]
tree.name = "other"  # type: ignore[misc]


# --------------------------------------------------------------------------------------- callbacks


def nothing(ctx: InvocationContext) -> None: ...


def text_or_nothing(ctx: InvocationContext) -> str | None:
    return "cached" if ctx.state.get("cached") else None


async def later(ctx: InvocationContext) -> Content | None:
    await trio.sleep(1)
    return Content("content")


def an_event(ctx: InvocationContext) -> Event:
    return Event("event", actions=EventActions(escalate=True))


def number(ctx: InvocationContext) -> int:
    return 1


callbacks: list[AgentCallback] = [nothing, text_or_nothing, later, an_event]
SequentialAgent("one", before_agent_callback=text_or_nothing)
SequentialAgent("async_one", after_agent_callback=later)
SequentialAgent("several", before_agent_callback=[nothing, later], after_agent_callback=callbacks)
LoopAgent("loop_too", [yields], before_agent_callback=an_event)
Greeter("class_too", "hello", before_agent_callback=nothing)

SequentialAgent("wrong", before_agent_callback=number)  # type: ignore[arg-type]
SequentialAgent("wrong", after_agent_callback=of_nothing)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------- what a context offers


async def uses_everything(ctx: InvocationContext) -> None:
    assert_type(ctx.agent, Agent)
    assert_type(ctx.branch, str | None)
    assert_type(ctx.path, str)
    assert_type(ctx.invocation_id, str)
    assert_type(ctx.user_content, Content | None)
    assert_type(ctx.user_text, str)
    assert_type(ctx.run_config, RunConfig)
    assert_type(ctx.history(), list[Event])
    assert_type(ctx.outcomes("measure"), tuple[Outcome, ...])
    assert_type(await ctx.emit("text"), Event)
    assert_type(await ctx.emit(Content("text")), Event)
    assert_type(await ctx.emit(Event(output=1)), Event)
    await ctx.emit(7)  # type: ignore[arg-type]


def uses_state(ctx: InvocationContext) -> None:
    state = ctx.state
    assert_type(state, State)
    state["n"] = state.get("n", 0) + 1
    state["list"] = [*state["list"], 1]
    state.update({"a": 1, "b": [2]})
    state.contribute("total", 3)
    if "n" in state:
        count: int = state["n"]
        words: list[str] = state.setdefault("words", [])
        print(count, words, len(state), list(state), state.to_dict(), dict(state))  # noqa: T201


def reads_an_outcome(outcome: Outcome) -> str:
    assert_type(outcome.name, str)
    assert_type(outcome.status, Status)
    assert_type(outcome.error, BaseException | None)
    assert_type(outcome.duration, float)
    return "" if outcome.error is None else str(outcome.error)


def reads_an_event(event: Event) -> None:
    assert_type(event.text, str)
    assert_type(event.content, Content | None)
    assert_type(event.author, str)
    assert_type(event.branch, str | None)
    assert_type(event.path, str)
    assert_type(event.seq, int | None)
    assert_type(event.timestamp, float)
    assert_type(event.partial, bool)
    assert_type(event.is_final, bool)
    assert_type(event.actions, EventActions)
    assert_type(event.function_calls, tuple[FunctionCall, ...])
    assert_type(event.state_delta, Mapping[str, Any])
    if event.content is not None:
        for part in event.content.parts:
            if isinstance(part, Text):
                assert_type(part.text, str)


# ------------------------------------------------------------------------------------------ running


def summed(current: Any, contribution: Any) -> Any:
    return contribution if current is None else current + contribution


def longest(current: str | None, contribution: str) -> str:
    return max(current or "", contribution, key=len)


service: SessionService = InMemorySessionService()
runner = Runner(
    tree,
    app_name="app",
    session_service=service,
    reducers={"total": "add", "list": "append", "sum": summed, "longest": longest},
    on_conflict="error",
    clock=lambda: 0.0,
    new_id=lambda: "id",
)
Runner(tree, reducers={"max": max})
Runner("tree")  # type: ignore[arg-type]
Runner(tree, on_conflict="first")  # type: ignore[arg-type]


async def runs() -> None:
    result = await runner.run("hello")
    assert_type(result, Result)
    await runner.run()
    await runner.run(Content("hello"), user_id="ann", session_id="s", state_delta={"k": 1})
    await runner.run("hello", run_config=RunConfig(max_threads=4))
    await runner.run(7)  # type: ignore[arg-type]

    assert_type(result.status, Status)
    assert_type(result.text, str)
    assert_type(result.output, Any)
    assert_type(result.outputs, Mapping[str, Any])
    assert_type(result.state, Mapping[str, Any])
    assert_type(result.events, tuple[Event, ...])
    assert_type(result.reason, str | None)


async def reads() -> Sequence[Event]:
    events: list[Event] = []
    async with runner.open("hello", session_id="s") as run:
        assert_type(run, Run)
        async for event in run:
            assert_type(event, Event)
            events.append(event)
            if event.text == "enough":
                run.cancel("enough")
    assert_type(run.status, Status)
    assert_type(run.result, Result)
    assert_type(run.outcomes("measure"), tuple[Outcome, ...])
    assert_type(run.statistics().delivered, int)
    return events


async def reads_one_by_one() -> Event:
    async with runner.open() as run:
        event = await anext(run)
        assert_type(event, Event)
    return event


async def leaves_early() -> Event | None:
    async with runner.open() as run:
        async for event in run:
            return event
    return None


def a_stream_for_others(run: Run) -> AsyncIterator[Event]:
    return run


def starts_a_loop() -> Result:
    return trio.run(runner.run, "hello")


def starts_a_loop_with_keywords() -> Result:
    return trio.run(partial(runner.run, "hello", session_id="s"))


def takes_any_agent(chosen: Agent, make: Callable[[str], Awaitable[Result]]) -> Runner:
    return Runner(chosen)


takes_any_agent(tree, runner.run)
