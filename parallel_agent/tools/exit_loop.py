"""A tool that ends the loop its agent stands in."""

from __future__ import annotations

from parallel_agent.tools.context import ToolContext
from parallel_agent.tools.function_tool import tool

__all__ = ["exit_loop"]


@tool
async def exit_loop(ctx: ToolContext) -> str:
    """End the loop. Call this when nothing is left to be done."""
    # Semantics: Google ADK's tool of that name.
    ctx.actions.escalate = True
    return "the loop ends"
