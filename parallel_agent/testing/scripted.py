"""Scripted agents: agents that do as they are told, and print as the code that makes them.

A scripted agent is an ordinary agent whose work is a list of steps. They are values: equal if
they say the same, and shown as the call that makes them, so that a tree prints as code one can
paste into a test (`as_code`).

Its events are emitted with ``await ctx.emit(...)``, which is what a ``yield`` is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Unpack, final

from parallel_agent.agent import Agent, AgentOptions
from parallel_agent.barrier import FailFast
from parallel_agent.context import InvocationContext
from parallel_agent.questions import NO_DEFAULT
from parallel_agent.testing.acts import (
    Adds,
    Asks,
    Contributes,
    Emits,
    Escalates,
    Outputs,
    Reads,
    Receives,
    Signals,
    Sleeps,
    TransfersTo,
    WaitsFor,
    Writes,
)
from parallel_agent.testing.printing import call, code_of, listed, print_code
from parallel_agent.testing.script import (
    Calls,
    CleansUp,
    Raises,
    ScriptStep,
    Within,
    as_steps,
    play,
)
from parallel_agent.workflow.loop import LoopAgent
from parallel_agent.workflow.parallel import ParallelAgent
from parallel_agent.workflow.sequential import SequentialAgent
from session.content import Content

__all__ = [
    "ScriptStep",
    "ScriptedAgent",
    "adds",
    "as_code",
    "asks",
    "calls",
    "cleans_up",
    "contributes",
    "emits",
    "escalates",
    "outputs",
    "raises",
    "reads",
    "receives",
    "scripted",
    "signals",
    "sleeps",
    "transfers_to",
    "waits_for",
    "within",
    "writes",
]


@final
class ScriptedAgent(Agent):
    """An agent whose work is a list of steps. Made by `scripted`."""

    def __init__(
        self, name: str, steps: Iterable[ScriptStep] = (), **options: Unpack[AgentOptions]
    ) -> None:
        """See `scripted`."""
        self._steps = as_steps(steps)
        super().__init__(name, **options)

    @property
    def steps(self) -> tuple[ScriptStep, ...]:
        """What it does, in order."""
        return self._steps

    async def run(self, ctx: InvocationContext) -> None:
        """Do it."""
        await play(self._steps, ctx)

    def __repr__(self) -> str:
        return as_code(self)

    _repr_pretty_ = print_code


def scripted(name: str, *steps: ScriptStep, **options: Unpack[AgentOptions]) -> ScriptedAgent:
    """Return an agent that does ``steps``, in order.

    ::

        scripted("writer", writes("draft", 1), sleeps(2), emits("done"), output_key="said")

    Each attempt of a retry, and each turn of a loop, does all of them anew.

    Args:
        name: see `Agent`.
        steps: what it does: `emits`, `sleeps`, `writes`, `raises`, ...
        options: those of `Agent`: ``retry``, ``timeout``, ``output_key``...

    Raises:
        TypeError: something is no step; the message says what to write.
        TreeError: as for any `Agent`.
    """
    return ScriptedAgent(name, steps, **options)


# Emitting. Each waits until the reader has come back for the next event.


def emits(
    *items: str | Content, state_delta: Mapping[str, Any] | None = None, partial: bool = False
) -> Emits:
    """Emit texts or contents, one event each; each with ``state_delta``, if it is given."""
    return Emits(items, {} if state_delta is None else dict(state_delta), partial)


def outputs(value: Any) -> Outputs:
    """Emit an event with this output; the last one is the agent's."""
    return Outputs(value)


def escalates(text: str = "") -> Escalates:
    """Emit an event that escalates: it ends the nearest loop, and a parallel agent's siblings."""
    return Escalates(text)


def transfers_to(name: str) -> TransfersTo:
    """Emit an event that lets the agent of that name go on in place of this one, when it ends."""
    return TransfersTo(name)


# State. None of these waits: writes are recorded with the agent's next event.


def writes(key: str, value: Any) -> Writes:
    """Write to the state."""
    return Writes(key, value)


def adds(key: str, number: float = 1) -> Adds:
    """Read a number from the state, 0 if there is none, and write it back, larger by ``number``.

    The lost update, if another branch does the same.
    """
    return Adds(key, number)


def contributes(key: str, value: Any) -> Contributes:
    """Contribute to a key that has a reducer."""
    return Contributes(key, value)


def reads(*keys: str) -> Reads:
    """Look at keys of the state, and do nothing with them."""
    return Reads(keys)


# Waiting.


def sleeps(seconds: float) -> Sleeps:
    """Sleep; 0 is a checkpoint."""
    return Sleeps(seconds)


def signals(name: str) -> Signals:
    """Give a signal to all scripted agents of this run that wait for it, or will. Does not wait.

    It stays given until the run ends, whatever becomes of the agent: there is no taking it back,
    and giving it again changes nothing.
    """
    return Signals(name)


def waits_for(name: str) -> WaitsFor:
    """Wait until an agent of this run has given the signal; not at all if one has.

    For ever, if none does: under exploration that is a `DeadlockError`.
    """
    return WaitsFor(name)


def asks(
    prompt: str,
    *,
    schema: Any = None,
    default: Any = NO_DEFAULT,
    timeout: float | None = None,
    key: str | None = None,
) -> Asks:
    """Ask a person, and write the answer to the state under ``key``, if that is given.

    ``schema``, ``default`` and ``timeout`` are those of `InvocationContext.request_input`.
    """
    return Asks(prompt, schema=schema, default=default, timeout=timeout, key=key)


def receives(key: str | None = None) -> Receives:
    """Wait for a message to this branch; write its text to the state under ``key``, if given."""
    return Receives(key)


# Steps around steps.


def within(seconds: float, *steps: ScriptStep) -> Within:
    """Do ``steps``, but for no longer than that; then go on with what follows."""
    return Within(seconds, steps)


def cleans_up(*steps: ScriptStep, shielded: bool = False) -> CleansUp:
    """Do ``steps`` at the end, however what follows ends: done, failed or cancelled.

    The end is that of the script, or of the `within` in which it stands. After a cancellation
    ``steps`` are cancelled as well where they wait, as in any ``finally``, unless ``shielded``.
    """
    return CleansUp(steps, shielded)


# The rest.


def raises(error: BaseException | type[BaseException]) -> Raises:
    """Raise a copy of ``error``, anew each time."""
    return Raises(error)


def calls(function: Callable[[InvocationContext], object]) -> Calls:
    """Call a function with the context, and wait for what it returns if that can be awaited."""
    return Calls(function)


# Trees as code.


def as_code(tree: Agent) -> str:
    """Return the code that makes a tree of scripted and workflow agents, with their options.

    It names what `parallel_agent` and `parallel_agent.testing` export. What has no code is shown
    by its ``repr``, which Python refuses if it is pasted: agents of other kinds, limiters.
    """
    kind = type(tree).__name__
    arguments = [code_of(tree.name)]
    match tree:
        case ScriptedAgent():
            kind = "scripted"
            arguments += map(code_of, tree.steps)
        case SequentialAgent() | ParallelAgent() | LoopAgent():
            arguments.append(listed(map(as_code, tree.sub_agents)))
        case _:
            return repr(tree)
    if isinstance(tree, ParallelAgent):
        if tree.barrier != FailFast():
            arguments.append(f"barrier={code_of(tree.barrier)}")
        arguments += _options(tree, "max_concurrency")
    elif isinstance(tree, LoopAgent):
        arguments += _options(tree, "max_iterations")
    return call(kind, [*arguments, *_options(tree, *AgentOptions.__annotations__)])


def _options(agent: Agent, *names: str) -> list[str]:
    values = {name: getattr(agent, name) for name in names}
    return [
        f"{name}={code_of(value)}" for name, value in values.items() if value not in (None, "", ())
    ]
