"""What goes wrong with models, tools, and what has to be installed for them.

A second tree, beside that of `parallel_agent.errors`; a name says again whose doing it was::

    AgentError
    ├── UsageError
    │   ├── CallbackError           a callback of a model or tool returned what it must not
    │   ├── InstructionError        an instruction names what is not there
    │   ├── MissingExtraError       a package that is needed is not installed
    │   ├── ModelDefinitionError    a model that cannot be made of what it was given
    │   └── ToolDefinitionError     a function that cannot be a tool (at construction)
    ├── CallLimitError              a model was to be asked more often than is allowed
    ├── ModelError                  a model, or the server it is at, did not answer as it ought to
    │   ├── ModelAuthError          it does not let us in (also a usage error)
    │   ├── ModelContextError       what it was sent is too long for it (likewise)
    │   ├── ModelOutputError        its answer does not fit what was asked for
    │   ├── ModelProtocolError      what came is no answer of a model's
    │   │   └── ModelArgumentsError what it gives to a tool cannot be read
    │   ├── ModelRateLimitError     too many requests, or too many tokens; later, perhaps
    │   ├── ModelRequestError       it refuses the request as it is (also a usage error)
    │   └── ModelUnavailableError   the server cannot be reached, or is out of order
    └── ToolError                   a tool has failed, and says so itself
        └── ToolArgumentsError      what a model has given it does not fit; the model is told
"""

from __future__ import annotations

from parallel_agent.errors import AgentError, UsageError

__all__ = [
    "CallLimitError",
    "CallbackError",
    "InstructionError",
    "MissingExtraError",
    "ModelArgumentsError",
    "ModelAuthError",
    "ModelContextError",
    "ModelDefinitionError",
    "ModelError",
    "ModelOutputError",
    "ModelProtocolError",
    "ModelRateLimitError",
    "ModelRequestError",
    "ModelUnavailableError",
    "ToolArgumentsError",
    "ToolDefinitionError",
    "ToolError",
]


class CallbackError(UsageError, TypeError):
    """A callback of a model or tool returned what it must not; the message says what it may."""


class InstructionError(UsageError, LookupError):
    """An instruction has a place for what is not there; the message names agent and place."""


class MissingExtraError(UsageError, ImportError):
    """Something needs a package that is not installed. The message names the extra."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        """Say what needs which package, and how it is installed."""
        message = (
            f"{what} needs {package}, which is not installed: pip install 'parallel-agent[{extra}]'"
        )
        super().__init__(message)
        self.name = package


class ModelDefinitionError(UsageError, ValueError):
    """A model cannot be made of its name, its address, or what else it was given."""


class ToolDefinitionError(UsageError, TypeError):
    """A function cannot be a tool: its name or its parameters cannot be told to a model."""


class ToolError(AgentError):
    """A tool has failed, and says so itself. Subclasses say how."""


class ToolArgumentsError(ToolError, ValueError):
    """The arguments that a model has given do not fit. It is told, whatever becomes of errors."""


class CallLimitError(AgentError):
    """A model was to be asked more often than its agent, or the run, allows."""


class ModelError(AgentError):
    """A model, or the server it is at, did not answer as it ought to. Subclasses say how.

    Attributes:
        model: what was asked.
        status: the status of the server's answer, if there was one.
    """

    def __init__(self, message: str, *, model: str = "", status: int | None = None) -> None:
        """Say what has happened; ``model`` and ``status`` come first, if they are known."""
        told = f"{model} answered {status}" if status is not None and model else model
        super().__init__(f"{told}: {message}" if told else message)
        self.model = model
        self.status = status


class ModelAuthError(ModelError, UsageError):
    """The server does not know who asks, or does not let them. Another try will not help."""


class ModelContextError(ModelError, UsageError):
    """What the model was sent is too long for it. Send less: a window of the history, say."""


class ModelOutputError(ModelError):
    """A model's answer does not fit what was asked for, not even after it was told so."""


class ModelProtocolError(ModelError):
    """What came is no answer of a model's: no JSON, or a stream that broke off."""


class ModelArgumentsError(ModelProtocolError):
    """The arguments of a call are no JSON object. The model is told so, before this is raised.

    Attributes:
        call: the name of the tool.
        arguments: what came.
        why: what is wrong with it.
    """

    def __init__(self, call: str, arguments: str, why: str, *, model: str = "") -> None:
        """Say whose arguments cannot be read, and why."""
        super().__init__(
            f"the arguments of its call of {call!r} cannot be read: {why}", model=model
        )
        self.call = call
        self.arguments = arguments
        self.why = why


class ModelRateLimitError(ModelError):
    """The server has had too many requests, or tokens.

    Attributes:
        retry_after: the seconds after which it wants to be asked again, if it has said so.
            `Retry` waits for at least so long, as far as its ``max_delay`` allows.
    """

    def __init__(
        self,
        message: str,
        *,
        model: str = "",
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        """See `ModelError`."""
        super().__init__(message, model=model, status=status)
        self.retry_after = retry_after


class ModelRequestError(ModelError, UsageError):
    """The server refuses the request as it is: an unknown model, or a field it does not take."""


class ModelUnavailableError(ModelError):
    """The server cannot be reached, is out of order, or did not answer in time."""
