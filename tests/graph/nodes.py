"""Nodes that do as they are told, and a log of what they were given and when they ran."""

from __future__ import annotations

from typing import Any

import attrs
import trio

from parallel_agent import Agent, Event, EventActions, InvocationContext, agent
from tests.workflow.trees import Ended, run_tree

__all__ = ["Log", "given", "node", "run_tree", "texts_seen"]


@attrs.define
class Log:
    """What nodes were given, and when each started, in the order of their starts."""

    given: list[tuple[str, Any]] = attrs.field(factory=list[tuple[str, Any]])
    started: dict[str, float] = attrs.field(factory=dict[str, float])
    begun: float = attrs.field(default=-1.0)

    def note(self, name: str, value: Any) -> None:
        now = trio.current_time()
        if self.begun < 0:
            self.begun = now
        self.given.append((name, value))
        self.started[name] = now - self.begun

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.given]

    @property
    def inputs(self) -> dict[str, Any]:
        return dict(self.given)


def node(  # what a node can do
    name: str,
    gives: Any = None,
    *,
    log: Log | None = None,
    sleeps: float = 0,
    route: Any = None,
    error: Exception | None = None,
    escalates: bool = False,
    **options: Any,
) -> Agent:
    """Return a node that sleeps, and gives ``gives``; a list of several, one per round.

    Its name, if it is to give None. A function is called with the context.
    """
    rounds = iter(gives) if isinstance(gives, tuple) else None

    async def work(ctx: InvocationContext) -> Any:
        if log is not None:
            log.note(name, ctx.input)
        if sleeps:
            await trio.sleep(sleeps)
        if error is not None:
            raise error
        value = gives if rounds is None else next(rounds)
        if callable(value):
            value = value(ctx)
        if escalates:
            await ctx.emit(Event("stop", actions=EventActions(escalate=True)))
        if route is not None:
            return Event(output=value, actions=EventActions(route=route))
        return name if value is None else value

    return agent(work, name=name, **options)


def given(kind: Any, name: str, log: Log) -> Agent:
    """Return a node whose input is annotated as ``kind``, and which gives its name."""

    async def work(ctx: InvocationContext, value: Any) -> str:
        log.note(name, value)
        await trio.lowlevel.checkpoint()
        return name

    work.__annotations__["value"] = kind
    return agent(work, name=name)


def texts_seen(ended: Ended) -> list[str]:
    """Return who has said something, in the order of delivery."""
    return [event.author for event in ended.delivered if event.text]
