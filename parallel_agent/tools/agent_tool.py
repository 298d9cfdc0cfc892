"""An agent as a tool: a model has it run, and is given its output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

from parallel_agent.agent import Agent, check_agent
from parallel_agent.barrier import BestEffort, Outcome
from parallel_agent.context import activation_of
from parallel_agent.errors import BranchCancelledError
from parallel_agent.inputs import given_input
from parallel_agent.lifecycle import Status
from parallel_agent.model_errors import ToolArgumentsError
from parallel_agent.schema import Schema, SchemaError
from parallel_agent.tools.context import ToolContext
from parallel_agent.tools.tool import Approval, Tool
from session.state import freeze

__all__ = ["AgentTool"]

_REQUEST: Final = "request"

_TEXT: Final[Mapping[str, Any]] = freeze(
    {
        "type": "object",
        "properties": {_REQUEST: {"type": "string", "description": "what it is to do"}},
        "required": [_REQUEST],
        "additionalProperties": False,
    }
)


@final
class AgentTool(Tool):
    """Runs an agent, on a branch of its own, and answers with its output.

    Its events come out of the same stream, live. Called several times in one turn, it runs side
    by side with itself, and the runs see nothing of each other. The agent that calls it sees its
    output, not what it has said. Cancelled with the call, at any depth.

    Args:
        agent: of this tree or any other. What it takes as its input is what the model is asked
            for: the fields of its `Agent.input_schema`, if that is an object; or else a text.
        name: by default the agent's.
        description: by default the agent's.
        needs_approval: see `tool`.

    Raises:
        TreeError: ``agent`` is no agent.
        ToolDefinitionError: the name is no tool's.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        name: str | None = None,
        description: str | None = None,
        needs_approval: Approval = False,
    ) -> None:
        """See the class."""
        check_agent(agent, "what AgentTool() was given")
        super().__init__(
            agent.name if name is None else name,
            agent.description if description is None else description,
            needs_approval=needs_approval,
        )
        self._agent = agent
        schema = agent.input_schema
        self._schema: Schema[Any] = Schema(str) if schema is None else schema
        described = None if schema is None else schema.json_schema()
        self._is_object = described is not None and described.get("type") == "object"
        if described is None or self._is_object:
            self._parameters: Mapping[str, Any] = freeze(described or _TEXT)
        else:
            definitions = described.pop("$defs", None)
            wrapped = {**_TEXT, "properties": {_REQUEST: described}}
            self._parameters = freeze({**wrapped, "$defs": definitions} if definitions else wrapped)

    @property
    def agent(self) -> Agent:
        """What it runs."""
        return self._agent

    @property
    def parameters(self) -> Mapping[str, Any]:
        """See `Tool.parameters`."""
        return self._parameters

    async def call(self, ctx: ToolContext, arguments: Mapping[str, Any]) -> Any:
        """Run the agent; return its output.

        Raises:
            BaseException: what the agent raised, as itself.
            BranchCancelledError: something has cancelled it, and not the call.
        """
        agent, activation = self._agent, activation_of(ctx)
        engine = activation.invocation.engine
        given = given_input(self._checked(arguments), agent.name)
        outcomes: list[Outcome] = await engine.fan_out(
            activation,
            # A key, and no number: beside it there may be others, and which starts first is not
            # the same in every run.
            [engine.task(agent, given, ctx.branch_key)],
            barrier=BestEffort(),
            waits_alone=True,
        )
        outcome = outcomes[0]
        if outcome.status is Status.WAITING:
            await ctx.suspend()
        if outcome.error is not None:
            raise outcome.error
        if outcome.status is not Status.COMPLETED:
            message = f"agent {agent.name!r} was cancelled, and has no output"
            raise BranchCancelledError(message)
        return outcome.output

    def _checked(self, arguments: Mapping[str, Any]) -> Any:
        """Return what the agent is to work on.

        Raises:
            ToolArgumentsError: it is not what the agent takes.
        """
        try:
            if self._is_object:
                self._schema.check(arguments)
                return arguments
            unknown = [name for name in arguments if name != _REQUEST]
            if unknown or _REQUEST not in arguments:
                message = f"the arguments do not fit: {_REQUEST!r} alone, not {[*arguments]}"
                raise ToolArgumentsError(message)
            self._schema.check(arguments[_REQUEST], _REQUEST)
        except SchemaError as exc:
            message = f"the arguments do not fit: {exc}"
            raise ToolArgumentsError(message) from None
        return arguments[_REQUEST]
