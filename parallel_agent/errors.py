"""Every error the runtime raises, in one tree.

A name says whose doing it was::

    AgentError
    ├── UsageError                  you: the call, the tree or the agent is wrong
    │   ├── TreeError               names, cycles, an agent used twice (at construction)
    │   │   └── GraphError          edges that make no graph that can run (likewise)
    │   ├── AgentFunctionError      a function that cannot be an agent (at construction)
    │   ├── ConfigError             a graph file that cannot be read, or makes no graph
    │   ├── MessageTypeError        a run was given something that is no message
    │   ├── EmitError               an agent emitted what is no event, or one event twice
    │   ├── StateError              state was used in a way it does not offer
    │   ├── ActivationEndedError    something was done through the context of an ended activation
    │   ├── FanOutError             a fan-out was asked for what it cannot do
    │   ├── RouteError              a node's output chooses an edge that is not there
    │   ├── HostError               trio where asyncio is needed, or the other way round
    │   ├── InputError              an agent was given an input that it does not take
    │   ├── MessageRefusedError     a message to a branch that does not run, or to a full inbox
    │   ├── NothingToResumeError    no unfinished run of that name in the session
    │   ├── ReadError               a run's stream was read in a way that cannot work
    │   ├── ReplayMismatchError     a resumed agent does not start what it had started
    │   ├── RequestError            a question to a person that cannot be asked
    │   ├── ResponseRefusedError    an answer to no open request, or one that does not fit
    │   ├── TransferError           an agent handed over to one that cannot go on
    │   ├── TreeChangedError        the tree is not the one whose run is to be resumed
    │   ├── EscapedCancellationError   a helper generator held a cancel scope over a ``yield``
    │   └── UncancellableAgentError    an agent went on yielding although it was cancelled
    ├── AgentTimeoutError           an agent's time is over, or nobody answered in time
    ├── EffectUnknownError          nobody knows whether an effect has happened
    ├── QuorumError                 too few branches completed (an exception group)
    ├── RecordedFailureError        a failure of before a run was resumed, raised again
    ├── StateConflictError          two branches that do not see each other wrote one key
    ├── PluginError                 a hook of a plugin raised, or returned what it must not
    └── RunEndedError               nobody: the run is over, or this part of it
        ├── BranchCancelledError    the branch was ended by a sibling's decision
        └── StreamClosedError       the run's stream is closed

What an agent itself raises is never wrapped: it reaches the reader as it was raised, with notes
on where. Errors of a session service (`session.SessionError`, `session.UnstorableError`) keep
their own types as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Self

from parallel_agent.notes import describe, members

if TYPE_CHECKING:
    from parallel_agent.config.problems import Problem

__all__ = [
    "ActivationEndedError",
    "AgentError",
    "AgentFunctionError",
    "AgentTimeoutError",
    "BranchCancelledError",
    "ConfigError",
    "EffectUnknownError",
    "EmitError",
    "EscapedCancellationError",
    "FanOutError",
    "GraphError",
    "HostError",
    "InputError",
    "MessageRefusedError",
    "MessageTypeError",
    "NothingToResumeError",
    "PluginError",
    "QuorumError",
    "ReadError",
    "RecordedFailureError",
    "ReplayMismatchError",
    "RequestError",
    "ResponseRefusedError",
    "RouteError",
    "RunEndedError",
    "StateConflictError",
    "StateError",
    "StreamClosedError",
    "TransferError",
    "TreeChangedError",
    "TreeError",
    "UncancellableAgentError",
    "UsageError",
]


class AgentError(Exception):
    """Base of every error this package raises itself."""


class UsageError(AgentError):
    """The caller's code is wrong, and running it again will not help."""


class TreeError(UsageError, ValueError):
    """Agents do not make a tree: bad or duplicate names, a cycle, one agent in two places."""


class GraphError(TreeError):
    """Edges make no graph that can run. Everything that is wrong with them is said at once.

    Attributes:
        problems: each problem, in a sentence with the names of the nodes.
    """

    def __init__(self, name: str, problems: Sequence[str]) -> None:
        """Name the graph, and list the problems."""
        listed = problems[0] if len(problems) == 1 else "".join(f"\n* {one}" for one in problems)
        super().__init__(f"graph {name!r} cannot run: {listed}")
        self.problems = tuple(problems)


class AgentFunctionError(UsageError, TypeError):
    """A function cannot be an agent. The message says what shapes can."""


class ConfigError(UsageError, ValueError):
    """A graph file cannot be read, or makes no graph. Everything that was found is said at once.

    Attributes:
        problems: each problem, with file, line and column; in the order of the file.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        """List the problems, a line for each."""
        problems = sorted(problems, key=lambda one: (one.file, one.line, one.column))
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.problems,)


class MessageTypeError(UsageError, TypeError):
    """A run was given something that is neither text nor content."""


class EmitError(UsageError, TypeError):
    """An agent emitted something that is no event, or emitted one event twice."""


class StateError(UsageError, TypeError):
    """State was used in a way it does not offer; the message says what to write instead."""


class ActivationEndedError(UsageError, RuntimeError):
    """A context was used to emit or to start an agent after its activation had ended."""


class ReadError(UsageError, TypeError):
    """A run's stream was read without its block, or by two tasks at once."""


class HostError(UsageError, RuntimeError):
    """Something needs trio and finds asyncio, or the other way round; or its loop has ended."""


class EscapedCancellationError(UsageError, RuntimeError):
    """A cancellation left an agent that was not cancelled.

    A helper async generator held a cancel scope (``move_on_after``, ``fail_after``, a nursery)
    open over a ``yield``, and the agent yielded in turn while consuming it. When such a scope is
    cancelled, the cancellation surfaces in the agent, outside the ``with`` that should catch it.
    """


class UncancellableAgentError(UsageError, RuntimeError):
    """An agent caught its cancellation and yielded again, three times in a row."""


class StateConflictError(AgentError):
    """Two branches that do not see each other wrote the same state key (``on_conflict="error"``).

    Attributes:
        key: the state key.
        branches: the branch that wrote first, and the one whose write was refused.
    """

    def __init__(self, key: str, first: str, second: str) -> None:
        """Name the key and both branches, in the order of recording."""
        super().__init__(
            f"state[{key!r}] was written by branch {first!r}, which branch {second!r} does "
            "not see: one write would be lost. Give each branch a key of its own, "
            "or declare a reducer for this one"
        )
        self.key = key
        self.branches = (first, second)


class FanOutError(UsageError, ValueError):
    """A fan-out was asked for what it cannot do; the message says what to do instead."""


class RouteError(UsageError, ValueError):
    """The output of a node chooses an edge that is not there, or two that exclude each other."""


class InputError(UsageError, ValueError):
    """An agent was given an input that it does not take; the message names agent and field."""


class MessageRefusedError(UsageError, RuntimeError):
    """A message was refused: its branch does not run, or the inbox is full. Nothing has changed."""


class RequestError(UsageError, ValueError):
    """A question to a person cannot be asked: it is none, or somebody dropped it on its way."""


class ResponseRefusedError(UsageError, ValueError):
    """An answer was refused: no open request has that id, or it does not fit.

    Nothing has changed: a request that was open still is.
    """


class TransferError(UsageError, ValueError):
    """An agent handed over to one that is not there, or from which there is no way on."""


class NothingToResumeError(UsageError, LookupError):
    """The session has no unfinished run, or none of that id."""


class TreeChangedError(UsageError, ValueError):
    """The tree is not the one whose run is to be resumed; the message shows the difference."""


class ReplayMismatchError(UsageError, RuntimeError):
    """An agent of a resumed run has decided otherwise than it had: the log does not fit it.

    Attributes:
        paths: the activations that it had started, or had given something else to work on.
    """

    def __init__(self, message: str, paths: Sequence[str]) -> None:
        """Name the activations."""
        super().__init__(message)
        self.paths = tuple(paths)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.paths)


class RecordedFailureError(AgentError):
    """A failure from before a run was resumed, raised again where it was raised.

    It is also of the class that was raised, if that is loaded: ``except ValueError`` catches what
    was a ValueError. Of what the exception held, its message is left.

    Attributes:
        kind: the name of that class, with its module.
        message: what it said.
    """

    def __init__(self, kind: str, message: str) -> None:
        """Say what was recorded."""
        # Not by `super`: of the classes that this one is made of, others want other arguments.
        Exception.__init__(self, kind, message)
        self.kind = kind
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        return RecordedFailureError, (self.kind, self.message)


class EffectUnknownError(AgentError):
    """An effect was begun, and nobody knows whether it has happened: see ``ctx.once``.

    Attributes:
        key: its key.
        path: the activation it belongs to.
    """

    def __init__(self, key: str, path: str) -> None:
        """Name the effect."""
        super().__init__(
            f"effect {key!r} of {path} was begun, and its end was not recorded: it may have "
            "happened or not. Look, and say what to do, ctx.once(key, fn, on_unknown=...): the run "
            "is left to be resumed"
        )
        self.key = key
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.key, self.path)


def is_about_effect(error: BaseException | None) -> bool:
    """Return whether it is, or holds, an `EffectUnknownError`."""
    if isinstance(error, EffectUnknownError):
        return True
    return error is not None and any(is_about_effect(one) for one in members(error))


class AgentTimeoutError(AgentError, TimeoutError):
    """Time is over.

    Attributes:
        path: the activation whose time it was.
        branch: its branch; None for the root branch.
        kind: ``"timeout"``, ``"idle_timeout"`` or ``"request_input"``.
        seconds: how long it had.
    """

    def __init__(self, path: str, branch: str | None, kind: str, seconds: float) -> None:
        """Name the agent, the kind of limit and the time."""
        what = _EXPIRED[kind]
        where = "" if branch is None else f", on branch {branch}"
        super().__init__(f"{path} {what} {seconds:g} s ({kind}{where})")
        self.path = path
        self.branch = branch
        self.kind = kind
        self.seconds = seconds

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.path, self.branch, self.kind, self.seconds)


_EXPIRED: Final = {
    "timeout": "was not done within",
    "idle_timeout": "emitted nothing for",
    "request_input": "got no answer within",
}


class QuorumError(AgentError, ExceptionGroup[Exception]):
    """Too few branches completed. An exception group: it holds every failure.

    If no branch has failed, it holds a `BranchCancelledError` for each that was cancelled.

    Attributes:
        completed: how many branches completed.
        quorum: how many were needed.
        width: how many there were.
    """

    completed: int
    quorum: int
    width: int

    def __new__(  # noqa: D102  # as __init__
        cls, completed: int, quorum: int, width: int, errors: Sequence[Exception]
    ) -> Self:
        message = f"{completed} of {width} branches completed; {quorum} were needed"
        self = super().__new__(cls, message, errors)
        self.completed = completed
        self.quorum = quorum
        self.width = width
        return self

    def __init__(
        self, completed: int, quorum: int, width: int, errors: Sequence[Exception]
    ) -> None:
        """Count, and hold the errors in declaration order."""

    def derive(self, excs: Sequence[Exception], /) -> QuorumError:  # type: ignore[override]  # of exceptions, always
        """Return the same with other errors, for ``split`` and ``except*``."""
        return QuorumError(self.completed, self.quorum, self.width, excs)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.completed, self.quorum, self.width, list(self.exceptions))


class PluginError(AgentError):
    """A hook of a plugin raised; ``__cause__`` is what it raised.

    Attributes:
        plugin: the plugin's name.
        hook: the name of its method.
    """

    def __init__(self, plugin: str, hook: str, cause: BaseException) -> None:
        """Name the plugin and its hook."""
        kind, said = describe(cause)
        super().__init__(f"plugin {plugin!r} failed in {hook}: {kind}: {said}")
        self.plugin = plugin
        self.hook = hook
        self.__cause__ = cause


class RunEndedError(AgentError):
    """The run, or the branch, has ended. Nobody's mistake: clean up and return."""


class BranchCancelledError(RunEndedError):
    """A sibling's event has ended this branch; nothing of it is recorded any more.

    Raised by ``emit`` (and so at a ``yield``), under a shield too. A fan-out treats it like a
    cancellation.
    """


class StreamClosedError(RunEndedError):
    """The run's stream is closed: the run has ended, or its session service failed."""
