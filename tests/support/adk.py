"""ADK agents and models for the tests of either way between google-adk and us."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import pytest

WHY = "the real google-adk, which the deep extra installs"

agents = pytest.importorskip("google.adk.agents", reason=WHY)
events = pytest.importorskip("google.adk.events", reason=WHY)
models = pytest.importorskip("google.adk.models", reason=WHY)
runners = pytest.importorskip("google.adk.runners", reason=WHY)
sessions = pytest.importorskip("google.adk.sessions", reason=WHY)
tools = pytest.importorskip("google.adk.tools", reason=WHY)
types = pytest.importorskip("google.genai.types", reason=WHY)

__all__ = [
    "FakeModel",
    "agents",
    "calls",
    "events",
    "llm",
    "runners",
    "says",
    "scripted_adk",
    "sessions",
    "text_of",
    "tools",
    "types",
    "user",
    "workflow",
]


def text_of(content: Any) -> str:
    """The text of a content of ADK's."""
    return "".join(part.text or "" for part in (content.parts or ())) if content else ""


def user(text: str) -> Any:
    """A user's message."""
    return types.Content(role="user", parts=[types.Part(text=text)])


def says(text: str, **fields: Any) -> Any:
    """A model's answer."""
    content = types.Content(role="model", parts=[types.Part(text=text)])
    return models.LlmResponse(content=content, **fields)


def calls(name: str, **args: Any) -> Any:
    """A model's call of a tool."""
    part = types.Part(function_call=types.FunctionCall(name=name, args=args))
    return models.LlmResponse(content=types.Content(role="model", parts=[part]))


BaseAgent: Any = agents.BaseAgent
BaseLlm: Any = models.BaseLlm


class FakeModel(BaseLlm):  # type: ignore[misc]  # Any where google-adk is not
    """Answers what it was told to, call after call; keeps what it was asked."""

    model: str = "fake"
    answers: list[list[Any]]
    asked: list[Any]

    async def generate_content_async(
        self,
        llm_request: Any,
        stream: bool = False,  # noqa: ARG002, FBT001, FBT002  # ADK's
    ) -> AsyncGenerator[Any, None]:
        self.asked.append([(content.role, text_of(content)) for content in llm_request.contents])
        for answer in self.answers.pop(0):
            yield answer


def llm(name: str, *answers: Any, **options: Any) -> Any:
    """An LlmAgent whose model gives these answers, one, or a list of them, for each call."""
    scripts = [one if isinstance(one, list) else [one] for one in answers]
    return agents.LlmAgent(name=name, model=FakeModel(answers=scripts, asked=[]), **options)


def scripted_adk(
    name: str, script: Callable[[Any], AsyncGenerator[Any, None]], **options: Any
) -> Any:
    """An ADK agent that does what ``script``, an async generator function of its context, does.

    What it yields is an event; or the fields of one, to which author, branch and invocation id
    are added, as ADK's own agents do it.
    """

    class Scripted(BaseAgent):  # type: ignore[misc]  # Any where google-adk is not
        async def _run_async_impl(self, ctx: Any) -> AsyncGenerator[Any, None]:
            async with aclosing(script(ctx)) as items:
                async for item in items:
                    yield self._event(ctx, item)

        def _event(self, ctx: Any, item: Any) -> Any:
            if isinstance(item, events.Event):
                return item
            fields = {"message": item} if isinstance(item, str) else dict(item)
            return events.Event(
                author=self.name, branch=ctx.branch, invocation_id=ctx.invocation_id, **fields
            )

    return Scripted(name=name, **options)


def workflow(kind: str, name: str, sub_agents: list[Any], **options: Any) -> Any:
    """One of ADK's workflow agents, which say that they are deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return getattr(agents, kind)(name=name, sub_agents=sub_agents, **options)
