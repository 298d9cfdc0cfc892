"""Every error the runtime raises, in one tree.

A name says whose doing it was::

    AgentError
    ├── UsageError                  you: the call, the tree or the agent is wrong
    │   ├── TreeError               names, cycles, an agent used twice (at construction)
    │   ├── AgentFunctionError      a function that cannot be an agent (at construction)
    │   ├── MessageTypeError        a run was given something that is no message
    │   ├── EmitError               an agent emitted what is no event, or one event twice
    │   ├── StateError              state was used in a way it does not offer
    │   ├── ActivationEndedError    something was done through the context of an ended activation
    │   ├── FanOutError             a fan-out was asked for what it cannot do
    │   ├── HostError               trio where asyncio is needed, or the other way round
    │   ├── InputError              an agent was given an input that it does not take
    │   ├── MessageRefusedError     a message to a branch that does not run, or to a full inbox
    │   ├── ReadError               a run's stream was read in a way that cannot work
    │   ├── RequestError            a question to a person that cannot be asked
    │   ├── ResponseRefusedError    an answer to no open request, or one that does not fit
    │   ├── TransferError           an agent handed over to one that cannot go on
    │   ├── EscapedCancellationError   a helper generator held a cancel scope over a ``yield``
    │   └── UncancellableAgentError    an agent went on yielding although it was cancelled
    ├── AgentTimeoutError           an agent's time is over, or nobody answered in time
    ├── QuorumError                 too few branches completed (an exception group)
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

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final, Self, cast

__all__ = [
    "ActivationEndedError",
    "AgentError",
    "AgentFunctionError",
    "AgentTimeoutError",
    "BranchCancelledError",
    "EmitError",
    "EscapedCancellationError",
    "FanOutError",
    "HostError",
    "InputError",
    "MessageRefusedError",
    "MessageTypeError",
    "PluginError",
    "QuorumError",
    "ReadError",
    "RequestError",
    "ResponseRefusedError",
    "RunEndedError",
    "StateConflictError",
    "StateError",
    "StreamClosedError",
    "TransferError",
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


class AgentFunctionError(UsageError, TypeError):
    """A function cannot be an agent. The message says what shapes can."""


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


_OUR_NOTES: Final = ("raised by agent ", "another branch failed too: ", "raised in ")


def note_origin(error: BaseException, path: str) -> None:
    """Note on ``error`` which activation raised it.

    Notes are best effort: an exception that cannot take one stays without. One object raised
    again and again does not collect them: earlier notes of ours are replaced.
    """
    kept = _notes(error)
    if any(note.startswith(_OUR_NOTES[0]) for note in kept):
        kept = [note for note in kept if not note.startswith(_OUR_NOTES[:2])]
    _set_notes(error, [*kept, f"{_OUR_NOTES[0]}{path}"])


def note_mix_up(error: BaseException | None) -> None:
    """Note what to do on what is raised if trio's code awaits asyncio's, or the other way round.

    Neither of the two knows of the other, nor of the ways between them.
    """
    for leaf in () if error is None else _leaves(error):
        if _is_asyncios(leaf):
            note = _ON_TRIO
        elif type(leaf) is RuntimeError and _said(leaf).startswith(_TRIO_SAYS):
            note = _NOT_ON_TRIO
        else:
            continue
        notes = _notes(leaf)
        if note not in notes:
            _set_notes(leaf, [*notes, note])


def _is_asyncios(error: BaseException) -> bool:
    """Return whether asyncio, or a library for it, raises this where its loop does not run."""
    if type(error) is AttributeError:  # asyncio.Event, Lock, Queue, ... ask the loop for that
        return error.name == "create_future" and error.obj is None
    if type(error) is TypeError:  # the loop runs, around trio, and asyncio waits for a future
        return _said(error).startswith("trio.run received unrecognized yield message ")
    if type(error) is not RuntimeError:
        return False
    said = _said(error)
    return said in _ASYNCIO_SAYS or said.startswith("There is no current event loop in thread ")


_ASYNCIO_SAYS: Final = frozenset(
    {
        "no running event loop",
        "TaskGroup <TaskGroup> cannot determine the parent task",
        "Timeout should be used inside a task",
        "Timeout context manager should be used inside a task",  # aiohttp
    }
)

_TRIO_SAYS: Final = ("must be called from async context", "Task got bad yield: <class 'trio.")

_ON_TRIO: Final = (
    "agents run on trio, not on asyncio: use trio.sleep, trio.Event, trio.to_thread.run_sync, ...; "
    "if a library needs asyncio, `await parallel_agent.aio.from_asyncio(function, argument)`, or "
    "mark the agent's function by `@aio.asyncio_function`, below `@agent`; plain functions, which "
    "are in threads, use asyncio.run"
)

_NOT_ON_TRIO: Final = (
    "this is trio's, and trio does not run what has called it: asyncio's functions use "
    "asyncio.sleep, ..., and `await parallel_agent.aio.from_trio(ctx.emit, event)` for what a "
    "context or a service does; plain functions, which are in threads, "
    "`trio.from_thread.run(ctx.emit, event)`"
)


def note_other(error: BaseException, path: str, other: BaseException) -> None:
    """Note on ``error`` that ``other`` was raised at ``path`` while ``error`` is the one raised."""
    summary = f"{type(other).__name__}: {_short(other)}"
    note = f"{_OUR_NOTES[1]}{path}: {summary}"
    notes = _notes(error)
    if note not in notes:
        _set_notes(error, [*notes, note])


def note_plugin(error: BaseException, other: PluginError) -> None:
    """Note on ``error`` that a plugin failed as well, while it was told of the end."""
    note = f"then {other}"
    notes = _notes(error)
    if note not in notes:
        _set_notes(error, [*notes, note])


def note_clean_up(error: BaseException, other: BaseException) -> None:
    """Note on ``error`` that ``other`` was raised in cleaning up after it."""
    note = f"then, in cleaning up: {type(other).__name__}: {_short(other)}"
    notes = _notes(error)
    if note not in notes:
        _set_notes(error, [*notes, note])


def note_reducer(error: BaseException, what: str) -> None:
    """Note on ``error`` in which reducer it was raised."""
    kept = [note for note in _notes(error) if not note.startswith(_OUR_NOTES[2])]
    _set_notes(error, [*kept, f"{_OUR_NOTES[2]}{what}"])


def members(error: BaseException) -> tuple[BaseException, ...]:
    """Return what an exception group holds; of any other exception, nothing."""
    if not isinstance(error, BaseExceptionGroup):
        return ()
    return cast("BaseExceptionGroup[BaseException]", error).exceptions


def holds(error: BaseException, part: BaseException | None) -> bool:
    """Return whether anything of ``part`` is in ``error``; both may be groups."""
    if part is None:
        return False
    # By what groups hold: the groups themselves are made anew by every nursery they pass.
    inside = {id(leaf) for leaf in _leaves(error)}
    return any(id(leaf) in inside for leaf in _leaves(part))


def describe(error: BaseException) -> tuple[str, str]:
    """Return the error's type name and its message, whatever its ``__str__`` does."""
    return type(error).__name__, _short(error)


def _short(error: BaseException) -> str:
    text = _said(error)
    if members(error):
        # Its own message is trio's: "Exceptions from Trio nursery".
        leaves = "; ".join(
            f"{type(leaf).__name__}: {_said(leaf)}" for leaf in islice(_leaves(error), _MANY)
        )
        text = f"{text}: {leaves}"
    text = text.encode(errors="replace").decode()
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"


_SHORT: Final = 500


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # noqa: BLE001  # a broken __str__ must not hide its own error
        return "<its __str__ failed>"


def _leaves(error: BaseException) -> Iterator[BaseException]:
    todo = [error]
    while todo:
        found = todo.pop()
        inside = members(found)
        todo += reversed(inside)
        if not inside:
            yield found


_MANY: Final = 8


def _notes(error: BaseException) -> list[str]:
    try:
        notes = getattr(error, "__notes__", None)
    except Exception:  # noqa: BLE001  # a hostile exception: as if it had none
        return []
    if not isinstance(notes, (list, tuple)):
        return []
    return [note for note in cast("list[object]", notes) if isinstance(note, str)]


def _set_notes(error: BaseException, notes: list[str]) -> None:
    with suppress(Exception):  # a frozen exception refuses in its own way, and stays without
        error.__notes__ = notes
