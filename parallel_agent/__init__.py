"""Agent workflows on trio: trees of agents that run side by side, and one stream of their events.

Start with `agent` (a function as an agent), `SequentialAgent`, `ParallelAgent` and `LoopAgent`
(trees), and `Runner` (run them).
"""

from __future__ import annotations

from parallel_agent._shadow import refuse_shadowed_session

# Before anything imports `session`: a user's own session.py beside their script would be taken
# for ours, run, and fail with an error that points nowhere.
refuse_shadowed_session(__file__)

from parallel_agent.agent import Agent, AgentCallback  # noqa: E402  # see above
from parallel_agent.barrier import (  # noqa: E402
    Barrier,
    BestEffort,
    Escalate,
    FailFast,
    FirstSuccess,
    Outcome,
    Quorum,
    Tally,
    Verdict,
    WaitAll,
)
from parallel_agent.context import InvocationContext  # noqa: E402
from parallel_agent.errors import (  # noqa: E402
    ActivationEndedError,
    AgentError,
    AgentFunctionError,
    AgentTimeoutError,
    BranchCancelledError,
    ConfigError,
    EffectUnknownError,
    EmitError,
    EscapedCancellationError,
    FanOutError,
    GraphError,
    HostError,
    InputError,
    MessageRefusedError,
    MessageTypeError,
    NothingToResumeError,
    PluginError,
    QuorumError,
    ReadError,
    RecordedFailureError,
    ReplayMismatchError,
    RequestError,
    ResponseRefusedError,
    RouteError,
    RunEndedError,
    StateConflictError,
    StateError,
    StreamClosedError,
    TransferError,
    TreeChangedError,
    TreeError,
    UncancellableAgentError,
    UsageError,
)
from parallel_agent.function_agent import FunctionAgent, agent  # noqa: E402
from parallel_agent.graph.documents import Document  # noqa: E402
from parallel_agent.graph.edges import START, Edge, Ordered, Select, Switch  # noqa: E402
from parallel_agent.graph.guards import Refusal  # noqa: E402
from parallel_agent.group import FanOut, Handle  # noqa: E402
from parallel_agent.host import RunHost  # noqa: E402
from parallel_agent.hosted import HostedEvents, RunInfo  # noqa: E402
from parallel_agent.invocation import RunConfig  # noqa: E402
from parallel_agent.lifecycle import Status  # noqa: E402
from parallel_agent.limiter import Limiter, LimiterStatistics  # noqa: E402
from parallel_agent.llm.agent import LlmAgent  # noqa: E402
from parallel_agent.llm.model import (  # noqa: E402
    GenerationConfig,
    Model,
    ModelRequest,
    ModelResponse,
    ToolSpec,
    Usage,
)
from parallel_agent.model_errors import (  # noqa: E402
    CallbackError,
    CallLimitError,
    InstructionError,
    MissingExtraError,
    ModelArgumentsError,
    ModelAuthError,
    ModelContextError,
    ModelDefinitionError,
    ModelError,
    ModelOutputError,
    ModelProtocolError,
    ModelRateLimitError,
    ModelRequestError,
    ModelUnavailableError,
    ToolArgumentsError,
    ToolDefinitionError,
    ToolError,
)
from parallel_agent.overlay import State  # noqa: E402
from parallel_agent.plugin import DROP_EVENT, DropEvent, Plugin  # noqa: E402
from parallel_agent.questions import PendingRequest  # noqa: E402
from parallel_agent.result import Result, RunStatistics  # noqa: E402
from parallel_agent.retry import Retry  # noqa: E402
from parallel_agent.run import Run  # noqa: E402
from parallel_agent.runner import Runner  # noqa: E402
from parallel_agent.schema import Schema, SchemaError, SchemaTypeError  # noqa: E402
from parallel_agent.state_schema import StateKey  # noqa: E402
from parallel_agent.stored_context import Answered  # noqa: E402
from parallel_agent.tap import ChildEvents  # noqa: E402
from parallel_agent.tools.agent_tool import AgentTool  # noqa: E402
from parallel_agent.tools.context import ToolContext  # noqa: E402
from parallel_agent.tools.exit_loop import exit_loop  # noqa: E402
from parallel_agent.tools.function_tool import FunctionTool, tool  # noqa: E402
from parallel_agent.tools.tool import Tool  # noqa: E402
from parallel_agent.tools.toolset import Toolset  # noqa: E402
from parallel_agent.workflow.graph import GraphAgent  # noqa: E402
from parallel_agent.workflow.loop import LoopAgent  # noqa: E402
from parallel_agent.workflow.map import MapAgent  # noqa: E402
from parallel_agent.workflow.parallel import ParallelAgent  # noqa: E402
from parallel_agent.workflow.sequential import SequentialAgent  # noqa: E402
from session.actions import EventActions  # noqa: E402
from session.artifact import Artifact, ArtifactService, InMemoryArtifactService  # noqa: E402
from session.content import Content, FunctionCall, FunctionResponse, InlineData, Text  # noqa: E402
from session.event import Event  # noqa: E402
from session.folder_artifacts import FolderArtifactService  # noqa: E402
from session.in_memory import InMemorySessionService  # noqa: E402
from session.memory import InMemoryMemoryService, MemoryEntry, MemoryService  # noqa: E402
from session.request import InputRequest  # noqa: E402
from session.service import SessionService  # noqa: E402
from session.state import FrozenValueError, UnstorableError  # noqa: E402

__all__ = [
    "DROP_EVENT",
    "START",
    "ActivationEndedError",
    "Agent",
    "AgentCallback",
    "AgentError",
    "AgentFunctionError",
    "AgentTimeoutError",
    "AgentTool",
    "Answered",
    "Artifact",
    "ArtifactService",
    "Barrier",
    "BestEffort",
    "BranchCancelledError",
    "CallLimitError",
    "CallbackError",
    "ChildEvents",
    "ConfigError",
    "Content",
    "Document",
    "DropEvent",
    "Edge",
    "EffectUnknownError",
    "EmitError",
    "Escalate",
    "EscapedCancellationError",
    "Event",
    "EventActions",
    "FailFast",
    "FanOut",
    "FanOutError",
    "FirstSuccess",
    "FolderArtifactService",
    "FrozenValueError",
    "FunctionAgent",
    "FunctionCall",
    "FunctionResponse",
    "FunctionTool",
    "GenerationConfig",
    "GraphAgent",
    "GraphError",
    "Handle",
    "HostError",
    "HostedEvents",
    "InMemoryArtifactService",
    "InMemoryMemoryService",
    "InMemorySessionService",
    "InlineData",
    "InputError",
    "InputRequest",
    "InstructionError",
    "InvocationContext",
    "Limiter",
    "LimiterStatistics",
    "LlmAgent",
    "LoopAgent",
    "MapAgent",
    "MemoryEntry",
    "MemoryService",
    "MessageRefusedError",
    "MessageTypeError",
    "MissingExtraError",
    "Model",
    "ModelArgumentsError",
    "ModelAuthError",
    "ModelContextError",
    "ModelDefinitionError",
    "ModelError",
    "ModelOutputError",
    "ModelProtocolError",
    "ModelRateLimitError",
    "ModelRequest",
    "ModelRequestError",
    "ModelResponse",
    "ModelUnavailableError",
    "NothingToResumeError",
    "Ordered",
    "Outcome",
    "ParallelAgent",
    "PendingRequest",
    "Plugin",
    "PluginError",
    "Quorum",
    "QuorumError",
    "ReadError",
    "RecordedFailureError",
    "Refusal",
    "ReplayMismatchError",
    "RequestError",
    "ResponseRefusedError",
    "Result",
    "Retry",
    "RouteError",
    "Run",
    "RunConfig",
    "RunEndedError",
    "RunHost",
    "RunInfo",
    "RunStatistics",
    "Runner",
    "Schema",
    "SchemaError",
    "SchemaTypeError",
    "Select",
    "SequentialAgent",
    "SessionService",
    "State",
    "StateConflictError",
    "StateError",
    "StateKey",
    "Status",
    "StreamClosedError",
    "Switch",
    "Tally",
    "Text",
    "Tool",
    "ToolArgumentsError",
    "ToolContext",
    "ToolDefinitionError",
    "ToolError",
    "ToolSpec",
    "Toolset",
    "TransferError",
    "TreeChangedError",
    "TreeError",
    "UncancellableAgentError",
    "UnstorableError",
    "Usage",
    "UsageError",
    "Verdict",
    "WaitAll",
    "agent",
    "exit_loop",
    "tool",
]
