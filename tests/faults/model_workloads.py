"""Runs of agents that ask models: through every place where those, and their tools, wait."""

# The copies of the packages are `Any` to a type checker, and so is what their decorators make.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.faults.workloads import Workload

__all__ = ["MODEL_WORKLOADS"]


def _model(pa: Any, *answers: Any, pause: float = 0.1) -> Any:
    """Return a model that answers in pieces: texts, and lists of calls."""
    left = list(answers)

    class Scripted(pa.Model):  # type: ignore[misc]  # a class of the copy
        name = "scripted"

        async def generate(self, _request: Any) -> Any:
            answer = left.pop(0)
            if isinstance(answer, Exception):
                raise answer
            parts = (pa.Text(answer),) if isinstance(answer, str) else tuple(answer)
            yield pa.ModelResponse(content=pa.Content("piece", role="model"), partial=True)
            await trio.sleep(pause)
            yield pa.ModelResponse(content=pa.Content(parts, role="model"))

    return Scripted()


def _tools(pa: Any) -> list[Any]:
    @pa.tool(needs_approval=True)
    async def pays(ctx: Any, amount: int) -> int:
        """Pay."""
        paid: int = await ctx.once("pay", lambda: amount)
        return paid

    @pa.tool
    async def looks(city: str) -> str:
        """Look."""
        await trio.lowlevel.checkpoint()
        return f"rain in {city}"

    @pa.agent
    async def helper(ctx: Any) -> str:
        await ctx.emit("helping")
        return "helped"

    class Shed(pa.Toolset):  # type: ignore[misc]  # a class of the copy
        @asynccontextmanager
        async def open(self, _ctx: Any = None) -> Any:
            await trio.lowlevel.checkpoint()
            yield [looks]

    @pa.tool
    async def shields(ctx: Any) -> bool:
        """Ask where no cancellation comes."""
        with trio.CancelScope(shield=True):
            sure: bool = await ctx.request_input("Sure?", schema=bool)
        return sure

    return [pays, pa.AgentTool(helper), shields, Shed()]


def _calls(pa: Any, *wanted: tuple[str, dict[str, Any]]) -> list[Any]:
    return [pa.FunctionCall(name, args) for name, args in wanted]


def _callbacks() -> dict[str, Callable[..., Any]]:
    async def nothing(*_: Any) -> None:
        await trio.lowlevel.checkpoint()

    names = ("before_model", "after_model", "before_tool", "after_tool")
    return {f"{name}_callback": nothing for name in names}


def _team(pa: Any) -> Any:
    billing = pa.LlmAgent("billing", _model(pa, "nonsense", '{"paid": 3}'), output_schema=dict)
    wanted = _calls(
        pa, ("pays", {"amount": 3}), ("looks", {"city": "Oslo"}), ("helper", {"request": "x"})
    )

    async def instructed(ctx: Any) -> str:
        await trio.lowlevel.checkpoint()
        return "Be kind."

    front = pa.LlmAgent(
        "front",
        _model(
            pa,
            pa.ModelUnavailableError("down"),
            wanted,
            _calls(pa, ("transfer_to_agent", {"agent_name": "billing"})),
        ),
        instructed,
        tools=_tools(pa),
        sub_agents=[billing],
        model_retry=pa.Retry(2, on=pa.ModelUnavailableError),
        on_tool_error="raise",
        **_callbacks(),
    )

    @pa.agent
    async def saves(ctx: Any) -> None:
        await ctx.save_artifact("manners", "kind")

    polite = pa.LlmAgent("polite", _model(pa, "yes", "no", pause=1.0), "Be {artifact.manners}.")
    return pa.SequentialAgent("all", [saves, front, polite])


async def talks_to_models(pa: Any, session: Any) -> Any:
    """Tools of all kinds, callbacks, a transfer, a repair, and a message meanwhile."""

    class Watching(pa.Plugin):  # type: ignore[misc]  # a class of the copy
        async def before_model_callback(self, _ctx: Any, _request: Any) -> None:
            await trio.lowlevel.checkpoint()

    hurried = False
    async with pa.Runner(_team(pa), plugins=[Watching()], resumable=True).open("hi") as run:
        async for event in run:
            if event.request is not None:
                await run.respond(event.request.id, True)
            elif event.author == "polite" and event.partial and not hurried:
                hurried = True
                await run.send("and hurry")
    return run.result


async def leaves_a_tool_waiting(pa: Any, session: Any) -> Any:
    """A person is to approve, and the run does not wait for them."""

    @pa.agent
    async def asks(ctx: Any) -> str:
        return str(await ctx.request_input("Sure?"))

    wanted = _calls(
        pa,
        ("pays", {"amount": 3}),
        ("helper", {"request": "x"}),
        ("asks", {"request": "x"}),
        ("shields", {}),
    )
    tools = [*_tools(pa)[:3], pa.AgentTool(asks)]
    tree = pa.LlmAgent("a", _model(pa, wanted), tools=tools, on_tool_error="raise")
    return await pa.Runner(tree).run("hi", run_config=pa.RunConfig(on_wait="suspend"))


MODEL_WORKLOADS: tuple[Workload, ...] = (talks_to_models, leaves_a_tool_waiting)
