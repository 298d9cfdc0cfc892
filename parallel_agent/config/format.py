"""The classes of a graph file, and nothing but: what may stand where, and of what type.

Files of KeGAL fit as they are. What it requires and can be done without is optional here, and
what it ignores without a word is refused, unless it documents the key itself.

``None`` is a key that is missing, or null.
"""

from __future__ import annotations

from typing import Any, Final, Literal, Required, TypeAlias, TypedDict, TypeVar, cast

import attrs

from parallel_agent.config.problems import Problem
from parallel_agent.config.source import Source
from parallel_agent.errors import ConfigError
from parallel_agent.schema import Schema, SchemaError

__all__ = [
    "Blackboard",
    "BoardEntry",
    "BoardUse",
    "EdgeEntry",
    "GraphFile",
    "HistoryFile",
    "HistoryMessage",
    "McpServer",
    "McpUse",
    "Media",
    "MessagePassing",
    "ModelEntry",
    "NodeEntry",
    "PolicyEntry",
    "PromptEntry",
    "PromptUse",
    "RetryEntry",
    "Template",
    "ToolEntry",
    "graph_schema",
    "read_format",
    "read_template",
]

PolicyName: TypeAlias = Literal["fail_fast", "wait_all", "best_effort", "first_success", "escalate"]


@attrs.frozen(kw_only=True)
class ModelEntry:
    """A model that nodes are answered by."""

    llm: str
    model: str
    name: str | None = None
    host: str | None = None
    api_key: str | None = attrs.field(default=None, repr=False)
    context_window: int | None = None
    aws_region_name: str | None = None
    aws_access_key: str | None = attrs.field(default=None, repr=False)
    aws_secret_key: str | None = attrs.field(default=None, repr=False)
    aws_read_timeout: int | None = None
    aws_connect_timeout: int | None = None
    aws_retries: int | None = None
    batch_role_arn: str | None = None
    batch_s3_input_uri: str | None = None
    batch_s3_output_uri: str | None = None


@attrs.frozen(kw_only=True)
class Template:
    """The two sides of a prompt: texts by their labels."""

    system_template: dict[str, str] | None = None
    prompt_template: dict[str, str] | None = None


@attrs.frozen(kw_only=True)
class PromptEntry:
    """A prompt, here or in a file of its own."""

    template: Template | None = None
    uri: str | None = None


@attrs.frozen(kw_only=True)
class PromptUse:
    """The prompt of a node, and what it is filled with."""

    template: int
    user_message: bool | None = None
    retrieved_chunks: bool | None = None
    prompt_placeholders: dict[str, str | int | float | bool | None] | None = None
    chat_history: str | None = None
    batch_use_messages: list[int] | None = None


@attrs.frozen(kw_only=True)
class MessagePassing:
    """Whether a node reads what was passed on before it, and passes its own on."""

    input: bool | None = None
    output: bool | None = None


@attrs.frozen(kw_only=True)
class BoardUse:
    """What a node does with a board."""

    id: str
    read: bool | None = None
    write: bool | None = None
    chain: bool | None = None


# `import` is no name of an attribute, and `if` (below) neither.
_Imports = TypedDict("_Imports", {"import": list[str] | None}, total=False)


class BoardEntry(_Imports, total=False):
    """A board that nodes share."""

    id: Required[str]
    file: str | None
    cleanup: bool | None
    imports: list[str] | None


@attrs.frozen(kw_only=True)
class Blackboard:
    """All boards."""

    boards: list[BoardEntry]
    path: str | None = None


@attrs.frozen(kw_only=True)
class McpUse:
    """A server, and which of its tools a node may use."""

    id: str
    tools: list[str] | None = None


@attrs.frozen(kw_only=True)
class RetryEntry:
    """See `parallel_agent.Retry`."""

    max_attempts: int | None = None
    initial_delay: float | None = None
    max_delay: float | None = None
    backoff_factor: float | None = None
    jitter: float | None = None


@attrs.frozen(kw_only=True)
class PolicyEntry:
    """A policy that needs to be told something."""

    quorum: int | None = None
    escalate: str | None = None


@attrs.frozen(kw_only=True)
class NodeEntry:
    """A node: answered by a model, an agent, or made of other nodes."""

    id: str
    # What it is: one of these.
    model: int | str | None = None
    agent: str | None = None
    sequential: list[str] | None = None
    parallel: list[str] | None = None
    loop: list[str] | None = None
    map: str | None = None
    # For every kind.
    description: str | None = None
    output_key: str | None = None
    retry: int | RetryEntry | None = None
    timeout: float | None = None
    idle_timeout: float | None = None
    guard: bool | None = None
    show: bool | None = None
    message_passing: MessagePassing | None = None
    blackboard: BoardUse | None = None
    # For some.
    policy: PolicyName | PolicyEntry | None = None
    max_concurrency: int | None = None
    max_iterations: int | None = None
    items_key: str | None = None
    # For models.
    temperature: float | None = None
    max_tokens: int | None = None
    prompt: PromptUse | None = None
    structured_output: dict[str, Any] | None = None
    tools: list[str] | None = None
    mcp_servers: list[str | McpUse] | None = None
    max_tool_calls: int | None = None
    images: list[int] | None = None
    documents: list[int] | None = None
    react: dict[str, Any] | None = None
    react_output: dict[str, Any] | None = None
    batch_message_passing: dict[str, Any] | None = None


_Conditional = TypedDict("_Conditional", {"if": str | None}, total=False)


class EdgeEntry(_Conditional, total=False):
    """A node, those that start after it, and those that it waits for."""

    node: Required[str]
    children: list[EdgeEntry | str] | None
    fan_in: list[EdgeEntry | str] | None
    ordered_children: list[EdgeEntry | str] | None
    ordered_fan_in: list[EdgeEntry | str] | None
    when: Any
    default: bool | None
    max_times: int | None
    react: list[EdgeEntry | str] | None
    batch_children: list[EdgeEntry | str] | None
    batch_fan_in: list[EdgeEntry | str] | None


@attrs.frozen(kw_only=True)
class HistoryMessage:
    """Something that was said before."""

    role: str
    content: str


@attrs.frozen(kw_only=True)
class HistoryFile:
    """A file with what was said before."""

    path: str
    auto: bool | None = None


@attrs.frozen(kw_only=True)
class Media:
    """An image, or a PDF."""

    uri: str | None = None
    base64: str | None = None


@attrs.frozen(kw_only=True)
class ToolEntry:
    """A tool that models may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    required: list[str] | None = None


@attrs.frozen(kw_only=True)
class McpServer:
    """A server of tools."""

    id: str
    transport: Literal["stdio", "sse", "http"]
    command: str | None = None
    args: list[str] | None = None
    env: dict[str, str] | None = attrs.field(default=None, repr=False)
    url: str | None = None


@attrs.frozen(kw_only=True)
class GraphFile:
    """A whole file."""

    nodes: list[NodeEntry]
    edges: list[EdgeEntry | str] | None = None
    models: list[ModelEntry] | None = None
    prompts: list[PromptEntry] | None = None
    # The graph as an agent.
    name: str | None = None
    description: str | None = None
    output_key: str | None = None
    policy: PolicyName | PolicyEntry | None = None
    retry: int | RetryEntry | None = None
    timeout: float | None = None
    max_concurrency: int | None = None
    # What models work with.
    user_message: str | None = None
    retrieved_chunks: str | None = None
    chat_history: dict[str, list[HistoryMessage] | HistoryFile] | None = None
    blackboard: Blackboard | None = None
    images: list[Media] | None = None
    documents: list[Media] | None = None
    tools: list[ToolEntry] | None = None
    mcp_servers: list[McpServer] | None = None
    verbose: bool | None = None
    batch_user_messages: list[str] | None = None
    react_compact_prompts: list[PromptEntry] | None = None


T = TypeVar("T")

_FILE: Final = Schema(GraphFile)
_TEMPLATE: Final = Schema(Template)


def read_format(source: Source) -> GraphFile:
    """Return what a file says.

    Raises:
        ConfigError: a key is unknown or missing, or a value not of its type: all that do.
    """
    value: object = source.value
    if isinstance(value, dict):
        # What tells an editor of the schema is nothing of the graph's.
        cast("dict[str, Any]", value).pop("$schema", None)
    return _read(_FILE, source)


def read_template(source: Source) -> Template:
    """Return what the file of a prompt says. Raises as `read_format` does."""
    return _read(_TEMPLATE, source)


def _read(schema: Schema[T], source: Source) -> T:
    try:
        return schema.structure(source.value)
    except SchemaError as exc:
        raise ConfigError([_problem(source, path, why) for path, why in exc.problems]) from None


def _problem(source: Source, path: str, why: str) -> Problem:
    at_key = why.startswith("there is no such field")
    return source.problem(path, why.replace("field", "key", 1) if at_key else why, at_key=at_key)


def graph_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of graph files, for editors that complete and check."""
    schema = _FILE.json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "A graph file of parallel-agent",
        "properties": {"$schema": {"type": "string"}, **schema["properties"]},
    }
