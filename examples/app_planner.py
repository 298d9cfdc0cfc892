"""An app is planned and built in one run; how many branches it takes, nobody knows beforehand.

    app                         one after another
    ├── planner                 splits the idea into modules; starts a workflow for each, goes on
    │   ├── module@auth         design, write, review, one after another:
    │   ├── module@billing      the modules side by side
    │   └── module@gateway
    └── release                 works with what the planner has merged

Each line printed is one event, as it comes: its branch, its author, what it says. The designer of
`billing` asks a person something, and waits; the other modules go on. The answer is one more
event, and then billing goes on as well. It is the same run from the first line to the last.

With --by-reader the planner does not split anything. Whoever reads its events does: runs each
module as a run of its own, and sends what comes of it into the planner's, which has been waiting.

What models would say is scripted here; there is no network.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, Literal, TypeAlias

import attrs
import trio

from parallel_agent import (
    Event,
    InputRequest,
    InvocationContext,
    ResponseRefusedError,
    Result,
    Run,
    Runner,
    Schema,
    SequentialAgent,
    agent,
)

IDEA: Final = "build an app with auth, billing and gateway"


@attrs.frozen
class Module:
    """What a module's workflow is given."""

    name: str
    pace: float


@attrs.frozen
class Built:
    """What comes of it."""

    name: str
    files: list[str]
    decided: str | None = None


BUILT: Final = Schema(Built)


def split(idea: str) -> list[str]:
    """Stands for a model: the modules of an idea are the words after "with"."""
    words = re.findall(r"\w+", idea.partition(" with ")[2])
    return [word for word in dict.fromkeys(words) if word != "and" and not word.isdigit()]


def merge(built: Sequence[Built]) -> dict[str, Any]:
    return {
        "modules": {one.name: attrs.asdict(one) for one in built},
        "files": sum(len(one.files) for one in built),
    }


# ------------------------------------------------------------------------- one module's workflow


@agent
async def design(ctx: InvocationContext, module: Module) -> AsyncIterator[str]:
    yield f"{module.name} needs models, an api and tests"
    await trio.sleep(module.pace)
    if module.name == "billing":
        billing = await ctx.request_input(
            "Are customers billed monthly or yearly?", schema=Literal["monthly", "yearly"]
        )
        ctx.state["billing"] = billing
        yield f"customers are billed {billing}"


@agent
async def write(ctx: InvocationContext, module: Module) -> AsyncIterator[str]:
    for part in ("models", "api", "tests"):
        await trio.sleep(module.pace)
        yield f"{module.name}/{part}.py"


@agent
async def review(ctx: InvocationContext, module: Module) -> Event:
    # Of the writers, this branch sees its own.
    files = [event.text for event in ctx.history() if event.author == "write"]
    decided = ctx.state["billing"] if module.name == "billing" else None
    built = Built(module.name, files, decided)
    return Event(f"{module.name} is good", output=attrs.asdict(built))


module_workflow = SequentialAgent("module", [design, write, review])


# --------------------------------------------------------------------------- the planner decides


@agent(output_key="app")
async def planner(ctx: InvocationContext) -> AsyncIterator[str | Event]:
    names = split(ctx.user_text)
    yield f"the modules: {', '.join(names)}"
    async with ctx.open_fan_out() as group:
        handles = [
            group.start(module_workflow, Module(name, ctx.state["pace"]), key=name)
            for name in names
        ]
        async for handle in group.finished:
            yield f"{handle.name} has come in"
        built = [BUILT.structure(await handle) for handle in handles]
    yield Event("all modules fit together", output=merge(built))


@agent
async def release(ctx: InvocationContext) -> str:
    app = ctx.state["app"]
    return f"released {len(app['modules'])} modules, {app['files']} files"


app = SequentialAgent("app", [planner, release])


# ------------------------------------------------------------------------------ the reader decides


@agent(name="planner", output_key="app")
async def waiting_planner(ctx: InvocationContext) -> AsyncIterator[str | Event]:
    yield "who will do this?"
    built: list[Built] = []
    names: list[str] = json.loads((await ctx.receive()).text)
    while len(built) < len(names):
        message = await ctx.receive()
        built.append(BUILT.structure(json.loads(message.text)))
        yield f"{built[-1].name} has come in"
    built.sort(key=lambda one: names.index(one.name))
    yield Event("all modules fit together", output=merge(built))


app_by_reader = SequentialAgent("app", [waiting_planner, release.with_options(name="release")])


@agent
async def one_module(ctx: InvocationContext) -> Any:
    return await ctx.run_agent(module_workflow, json.loads(ctx.user_text))


# ----------------------------------------------------------------------------------- who is around

Person: TypeAlias = Callable[[InputRequest], Awaitable[Any]]
"""Knows the answer to a question, sooner or later."""


async def follow(
    runner: Runner,
    message: str,
    pace: float,
    person: Person,
    *,
    where: str = "",
    react: Callable[[Run, Event], None] | None = None,
) -> Result:
    """Run a tree: print its events as they come, and have its questions answered meanwhile."""
    async with (
        trio.open_nursery() as nursery,
        runner.open(message, state_delta={"pace": pace}) as run,
    ):
        async for event in run:
            show(event, where)
            if event.request is not None:
                nursery.start_soon(answer, run, event.request, person)
            if react is not None:
                react(run, event)
    return run.result


async def answer(run: Run, request: InputRequest, person: Person) -> None:
    while True:
        try:
            await run.respond(request.id, await person(request))
        except ResponseRefusedError as refused:
            print(refused)
        else:
            return


def show(event: Event, where: str = "") -> None:
    said = event.text
    if event.request is not None:
        said = f"? {event.request.prompt}"
    for response in event.function_responses:
        said = f"! {response.response['result']}"
    for outcome in event.actions.outcomes:
        said += f"{outcome.name} {outcome.status}; "
    if said:
        print(f"{where or event.branch or '-':24}  {event.author:8}  {said}")


async def build(idea: str, pace: float, person: Person) -> Result:
    """The planner splits the idea, and runs the modules on branches of its own."""
    return await follow(Runner(app), idea, pace, person)


async def build_by_reader(idea: str, pace: float, person: Person) -> Result:
    """Here it is done by whoever reads; the results are sent into the run that waits for them."""

    async def build_one(run: Run, name: str) -> None:
        module = json.dumps(attrs.asdict(Module(name, pace)))
        result = await follow(Runner(one_module), module, pace, person, where=f"(for {name})")
        await run.send(json.dumps(result.output))

    async def take_over(run: Run) -> None:
        names = split(idea)
        await run.send(json.dumps(names))
        for name in names:
            nursery.start_soon(build_one, run, name)

    def react(run: Run, event: Event) -> None:
        if event.text == "who will do this?":
            nursery.start_soon(take_over, run)

    async with trio.open_nursery() as nursery:
        return await follow(Runner(app_by_reader), idea, pace, person, react=react)


# ------------------------------------------------------------------------------------- the program


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, build the app, print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("idea", nargs="?", default=IDEA, help=f"by default: {IDEA!r}")
    parser.add_argument("--by-reader", action="store_true", help="the reader splits the idea")
    parser.add_argument("--ask", action="store_true", help="ask you, on the terminal")
    parser.add_argument("--pace", type=float, default=0.1, help="seconds for each step")
    chosen = parser.parse_args(arguments)
    if not split(chosen.idea):
        parser.error("the idea has no modules; say 'build ... with this, that and another'")

    async def somebody(request: InputRequest) -> str:
        if chosen.ask:
            # A thread that waits for a line cannot be stopped: leave it behind on Ctrl-C.
            return await trio.to_thread.run_sync(input, "> ", abandon_on_cancel=True)
        await trio.sleep(8 * chosen.pace)
        return "monthly"

    way = build_by_reader if chosen.by_reader else build
    try:
        result = trio.run(way, chosen.idea, chosen.pace, somebody)
        print()
        print(json.dumps(result.state["app"], indent=2))
    except* EOFError:
        parser.exit(1, "nobody is there to answer\n")


if __name__ == "__main__":
    main()
