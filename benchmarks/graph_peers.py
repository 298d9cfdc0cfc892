"""The same graphs in other frameworks: Microsoft's agent-framework, LangGraph, google-adk.

It runs in a Python of its own, because they need what this project does not, and is started as a
file, with nothing else of this project beside it. It reads JSON: which framework, for each node
its sources, and how often; it prints the seconds of each run, in JSON. Exit status 3: that
framework is not installed there.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import time
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from importlib import import_module
from typing import Annotated, Any, TypedDict

Sources = Sequence[Sequence[int]]
"""For each node, those that lead to it: numbers below its own; the first one has none."""

Run = Callable[[], Coroutine[Any, Any, int]]
"""Runs the graph once; returns how many of its nodes it has seen."""


def in_langgraph(sources: Sources) -> Run:
    """A `StateGraph` whose nodes write one key; a node with several sources waits for all."""
    graphs: Any = import_module("langgraph.graph")
    seen = 0

    class State(TypedDict):
        said: Annotated[str, lambda _old, new: new]

    async def work(_state: Any) -> Any:
        nonlocal seen
        seen += 1
        return {"said": "x"}

    builder = graphs.StateGraph(State)
    for number, before in enumerate(sources):
        builder.add_node(f"n{number}", work)
        names = [f"n{source}" for source in before]
        builder.add_edge(
            names if len(names) > 1 else names[0] if names else "__start__", f"n{number}"
        )
    graph = builder.compile()

    async def run() -> int:
        nonlocal seen
        seen = 0
        await graph.ainvoke({"said": "go"}, {"recursion_limit": len(sources) + 10})
        return seen

    return run


def in_agent_framework(sources: Sources) -> Run:
    """A `Workflow` of executors; a node with several sources waits for all."""
    framework: Any = import_module("agent_framework")
    seen = 0

    def executor(takes: Any) -> Any:
        async def work(_self: Any, message: Any, ctx: Any) -> None:  # noqa: ARG001  # by its annotation
            nonlocal seen
            seen += 1
            await ctx.send_message("x")

        work.__annotations__ = {"message": takes, "ctx": framework.WorkflowContext[str]}
        return type("Node", (framework.Executor,), {"work": framework.handler(work)})

    one, several = executor(str), executor(list[str])
    nodes = [
        (several if len(before) > 1 else one)(id=f"n{at}") for at, before in enumerate(sources)
    ]
    builder = framework.WorkflowBuilder(start_executor=nodes[0], max_iterations=len(nodes) + 10)
    for node, before in zip(nodes, sources, strict=True):
        if len(before) > 1:
            builder.add_fan_in_edges([nodes[source] for source in before], node)
        elif before:
            builder.add_edge(nodes[before[0]], node)
    workflow = builder.build()

    async def run() -> int:
        nonlocal seen
        seen = 0
        await workflow.run("go")
        return seen

    return run


def in_adk(sources: Sources) -> Run:
    """A `Workflow` of nodes; those with several sources wait for all."""
    workflows: Any = import_module("google.adk.workflow")
    events: Any = import_module("google.adk.events")
    runners: Any = import_module("google.adk.runners")
    sessions: Any = import_module("google.adk.sessions")
    types: Any = import_module("google.genai.types")
    seen = 0

    async def work(_ctx: Any) -> AsyncIterator[Any]:
        nonlocal seen
        seen += 1
        yield events.Event(output="x")

    class One(workflows.BaseNode):  # type: ignore[misc]  # as above
        async def _run_impl(self, *, ctx: Any, node_input: Any) -> AsyncIterator[Any]:  # noqa: ARG002  # by name
            async for event in work(ctx):
                yield event

    class Several(workflows.JoinNode):  # type: ignore[misc]  # as above
        async def _run_impl(self, *, ctx: Any, node_input: Any) -> AsyncIterator[Any]:  # noqa: ARG002  # by name
            async for event in work(ctx):
                yield event

    nodes = [(Several if len(one) > 1 else One)(name=f"n{at}") for at, one in enumerate(sources)]
    edges = [(workflows.START, nodes[0])]
    for node, before in zip(nodes, sources, strict=True):
        edges += [(nodes[source], node) for source in before]
    workflow = workflows.Workflow(name="graph", edges=edges)
    message = types.Content(role="user", parts=[types.Part(text="go")])

    async def run() -> int:
        nonlocal seen
        seen = 0
        service = sessions.InMemorySessionService()
        session = await service.create_session(app_name="bench", user_id="user")
        runner = runners.Runner(node=workflow, app_name="bench", session_service=service)
        async for _ in runner.run_async(user_id="user", session_id=session.id, new_message=message):
            pass
        return seen

    return run


PEERS = {"agent-framework": in_agent_framework, "langgraph": in_langgraph, "google-adk": in_adk}


def timed(run: Run, nodes: int) -> float:
    """Return the processor seconds of one run, in an event loop of its own."""

    async def main() -> float:
        began = time.process_time()
        seen = await run()
        taken = time.process_time() - began
        assert seen == nodes, seen  # noqa: S101  # what does less must not look fast
        return taken

    gc.collect()
    return asyncio.run(main())


def main() -> None:
    """Measure what standard input asks for."""
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    asked = json.load(sys.stdin)
    try:
        run = PEERS[asked["framework"]](asked["sources"])
    except ModuleNotFoundError:
        sys.exit(3)
    json.dump([timed(run, len(asked["sources"])) for _ in range(asked["rounds"])], sys.stdout)


if __name__ == "__main__":
    main()
