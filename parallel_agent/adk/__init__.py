"""Google ADK both ways: its agents in trees of ours, and trees of ours in its runner.

`AdkAgent` makes an ADK agent a leaf of a tree; `as_adk_agent` makes a tree an ADK agent. Needs the
extra ``adk``; without it, importing this package fails with an error that says so.
"""

from __future__ import annotations

from parallel_agent.adk.agent import AdkAgent
from parallel_agent.adk.tree import as_adk_agent

__all__ = ["AdkAgent", "as_adk_agent"]
