"""What is used of google-adk, or an error that says how to install it.

Everything here is `Any`: the extra may be missing where types are checked, and with ADK's own
types the same line would be right there and wrong here. So ADK's names are imported by this module
alone, and by no ``import`` that a type checker would follow.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = [
    "AdkEvent",
    "AdkEventActions",
    "AdkInvocationContext",
    "AdkLoopAgent",
    "AdkMemoryEntry",
    "AdkRunConfig",
    "AdkSession",
    "ArtifactVersion",
    "BaseAgent",
    "BaseArtifactService",
    "BaseMemoryService",
    "BaseSessionService",
    "ListSessionsResponse",
    "SearchMemoryResponse",
    "ensure_part",
    "types",
]


def load(module: str) -> Any:
    """Import a module of google-adk.

    Raises:
        ModuleNotFoundError: it is not installed; the message names the extra.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] != "google":
            raise  # google-adk is there, and what it needs itself is not
        message = "parallel_agent.adk needs google-adk: pip install 'parallel-agent[adk]'"
        raise ModuleNotFoundError(message, name=exc.name) from exc


_agents: Any = load("google.adk.agents")
_events: Any = load("google.adk.events")
_sessions: Any = load("google.adk.sessions")
_session_service: Any = load("google.adk.sessions.base_session_service")
_artifacts: Any = load("google.adk.artifacts.base_artifact_service")
_memory: Any = load("google.adk.memory.base_memory_service")
_memory_entry: Any = load("google.adk.memory.memory_entry")

types: Any = load("google.genai.types")

BaseAgent: Any = _agents.BaseAgent
AdkInvocationContext: Any = load("google.adk.agents.invocation_context").InvocationContext
AdkLoopAgent: Any = _agents.LoopAgent
AdkRunConfig: Any = load("google.adk.agents.run_config").RunConfig

AdkEvent: Any = _events.Event
AdkEventActions: Any = _events.EventActions

BaseSessionService: Any = _session_service.BaseSessionService
ListSessionsResponse: Any = _session_service.ListSessionsResponse
AdkSession: Any = _sessions.Session

ArtifactVersion: Any = _artifacts.ArtifactVersion
BaseArtifactService: Any = _artifacts.BaseArtifactService
ensure_part: Any = _artifacts.ensure_part

BaseMemoryService: Any = _memory.BaseMemoryService
AdkMemoryEntry: Any = _memory_entry.MemoryEntry
SearchMemoryResponse: Any = _memory.SearchMemoryResponse
