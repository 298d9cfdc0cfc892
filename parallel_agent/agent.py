"""The contract of an agent, and the wrapper that runs one activation of it.

An agent is a definition: immutable, without run state, safe to run twice at once. It is one of
three shapes, told apart once, when it is defined: an async generator (``yield`` emits), a
coroutine (its return value is its output), or, by ``@agent``, a plain function that runs in a
thread.

`activate` is the root of every activation's task. It never raises: whatever happens becomes the
activation's one terminal status, and its parent decides what that means. So cancellation and
failure travel from child to parent as values, no exception group is ever made here, and an
``await`` chain is never longer than one agent.
"""

from __future__ import annotations

import inspect
import keyword
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias, final

import trio
from trio.lowlevel import checkpoint_if_cancelled, disable_ki_protection, enable_ki_protection

from parallel_agent.branch import Place
from parallel_agent.context import Activation, InvocationContext
from parallel_agent.errors import (
    AgentFunctionError,
    BranchCancelledError,
    EscapedCancellationError,
    RunEndedError,
    StreamClosedError,
    TreeError,
    UncancellableAgentError,
    note_origin,
)
from parallel_agent.lifecycle import Status, Step
from session.content import Content
from session.event import USER, Event

__all__ = ["Agent", "AgentCallback", "activate", "outcome_error", "run_child"]

AgentCallback: TypeAlias = Callable[
    [InvocationContext], "Content | Event | str | None | Awaitable[Content | Event | str | None]"
]
"""Called before or after an agent; plain or async. What it returns becomes an event."""

MAX_REFUSALS: Final = 3
"""How often in a row an agent may yield again after its cancellation was raised at a ``yield``."""


class Agent:
    """Something that runs: one node of a tree, with the agents below it.

    Subclass it with one method, ``run``, an async generator or a coroutine::

        class Greeter(Agent):
            async def run(self, ctx):
                yield f"hello, {ctx.user_text}"

    Args:
        name: an identifier, unique in its tree, not ``"user"``.
        sub_agents: the agents below this one, in order. Each agent object stands in a tree once.
        description: one line for people and for models that choose among agents.
        output_key: the state key under which the agent's output is stored.
        before_agent_callback: called, in order, before the agent; the first that returns
            something is emitted *instead of* running the agent.
        after_agent_callback: called, in order, after the agent; the first that returns
            something is emitted as one more event.

    Raises:
        TreeError: a bad or duplicate name, an agent used twice, a cycle, a child that is no
            agent; all the culprits are named.
        AgentFunctionError: ``run`` is neither an async generator function nor a coroutine function.
    """

    _kind: str = "coroutine"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Find out once, when the class is made, what shape its ``run`` has."""
        super().__init_subclass__(**kwargs)
        if "_kind" in cls.__dict__:
            return  # it says for itself, object by object
        run = cls.run
        if inspect.isasyncgenfunction(run):
            cls._kind = "generator"
        elif inspect.iscoroutinefunction(run):
            cls._kind = "coroutine"
        else:
            message = f"{cls.__name__}.run must be `async def run(self, ctx)`, with or without `yield`"
            raise AgentFunctionError(message)

    def __init__(
        self,
        name: str,
        sub_agents: Iterable[Agent] = (),
        *,
        description: str = "",
        output_key: str | None = None,
        before_agent_callback: AgentCallback | Sequence[AgentCallback] = (),
        after_agent_callback: AgentCallback | Sequence[AgentCallback] = (),
    ) -> None:
        """See the class."""
        self._name = name
        self._sub_agents = _as_children(name, sub_agents)
        self._description = description
        self._output_key = _as_output_key(name, output_key)
        self._before = _as_callbacks(name, before_agent_callback)
        self._after = _as_callbacks(name, after_agent_callback)
        self._index = _Index.build(self)

    @property
    def name(self) -> str:
        """Its name, unique in the tree."""
        return self._name

    @property
    def sub_agents(self) -> tuple[Agent, ...]:
        """The agents directly below it, in declaration order."""
        return self._sub_agents

    @property
    def description(self) -> str:
        """What it is for, in one line."""
        return self._description

    @property
    def output_key(self) -> str | None:
        """The state key under which its output is stored, if any."""
        return self._output_key

    @property
    def before_agent_callback(self) -> tuple[AgentCallback, ...]:
        """The callbacks called before it."""
        return self._before

    @property
    def after_agent_callback(self) -> tuple[AgentCallback, ...]:
        """The callbacks called after it."""
        return self._after

    def find_agent(self, name: str) -> Agent | None:
        """Return the agent of that name in this tree, this one included; None if there is none."""
        return self._index.find(name)

    def run(self, ctx: InvocationContext) -> AsyncGenerator[Any, None] | Coroutine[Any, Any, Any]:
        """Do the agent's work. Implement it as ``async def``, with ``yield`` or without.

        What it yields is emitted, and each ``yield`` returns when the reader has come back. A
        coroutine's return value is the agent's output.
        """
        message = f"{type(self).__name__} must implement `async def run(self, ctx)`"
        raise NotImplementedError(message)

    def __repr__(self) -> str:
        children = f", {len(self._sub_agents)} sub-agents" if self._sub_agents else ""
        return f"<{type(self).__name__} {self._name}{children}>"


# Definition.


@final
class _Index:
    """The agents of a tree by name, in the order they were added.

    A parent adds itself to the table of its largest child instead of copying it, so building a
    tree of any shape costs little more than a step per agent. Each agent knows how many entries
    of the shared table are its own tree's; the rest belong to trees built around it later.
    """

    __slots__ = ("_size", "_table")

    def __init__(self, table: dict[str, tuple[int, Agent]], size: int) -> None:
        self._table = table
        self._size = size

    @classmethod
    def build(cls, agent: Agent) -> _Index:
        indices = sorted((child._index for child in agent.sub_agents), key=lambda index: -index._size)  # noqa: SLF001  # its own class, below Agent
        if indices and len(indices[0]._table) == indices[0]._size:  # noqa: SLF001
            table = indices[0]._table  # noqa: SLF001
        else:
            table = dict(indices[0].entries()) if indices else {}
        size = len(table)
        added: list[str] = []
        try:
            for index in indices[1:]:
                for name, (_, other) in index.entries():
                    _add(table, name, other, added)
            _add(table, agent.name, agent, added)
        except TreeError:
            for name in added:
                del table[name]
            raise
        return cls(table, size + len(added))

    def entries(self) -> Iterable[tuple[str, tuple[int, Agent]]]:
        return list(self._table.items())[: self._size]

    def find(self, name: str) -> Agent | None:
        found = self._table.get(name)
        return found[1] if found is not None and found[0] < self._size else None


def _add(table: dict[str, tuple[int, Agent]], name: str, agent: Agent, added: list[str]) -> None:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        message = f"agent name {name!r} is no identifier: letters, digits and underscores, no digit first"
        raise TreeError(message)
    if name == USER:
        message = f"no agent may be called {USER!r}: it is the author of what people say"
        raise TreeError(message)
    there = table.get(name)
    if there is not None:
        if there[1] is agent:
            message = f"agent {name!r} stands in the tree twice; make a second agent with a name of its own"
        else:
            message = f"two agents in the tree are called {name!r} ({there[1]!r} and {agent!r}); names are unique"
        raise TreeError(message)
    table[name] = (len(table), agent)
    added.append(name)


def _as_children(name: str, sub_agents: Iterable[Agent]) -> tuple[Agent, ...]:
    if isinstance(sub_agents, Agent) or not isinstance(sub_agents, Iterable):
        message = f"sub_agents of {name!r} must be a list of agents, not {sub_agents!r}"
        raise TreeError(message)
    children = tuple(sub_agents)
    for position, child in enumerate(children):
        if not isinstance(child, Agent):
            hint = "; make it one with @agent" if callable(child) else ""
            message = f"sub_agents[{position}] of {name!r} is no agent but {child!r:.80}{hint}"
            raise TreeError(message)
    return children


def _as_output_key(name: str, key: str | None) -> str | None:
    if key is not None and (not isinstance(key, str) or not key):
        message = f"output_key of {name!r} must be text that is not empty, not {key!r}"
        raise TreeError(message)
    return key


def _as_callbacks(name: str, given: AgentCallback | Sequence[AgentCallback]) -> tuple[AgentCallback, ...]:
    callbacks = (given,) if callable(given) else tuple(given or ())
    for callback in callbacks:
        if not callable(callback):
            message = f"a callback of {name!r} is not callable: {callback!r}"
            raise TreeError(message)
    return callbacks


# Running.


async def run_child(parent: Activation, agent: Agent, *, number: int | None = None) -> Activation:
    """Run ``agent`` below ``parent``, on the same branch, and return its completed activation.

    ``number`` tells it from others of the same agent below the same parent.

    Raises:
        BaseException: what it failed with, as itself; or the cancellation that ended it.
    """
    await parent.flush()
    place = Place(
        agent.name,
        invocation_id=parent.invocation.id,
        line=parent.lane.branch,
        parent=parent.place,
        number=number,
    )
    child = Activation(agent, place, invocation=parent.invocation, lane=parent.lane, parent=parent)
    parent.adopt(child)
    # A task of its own: the child's await chain starts afresh, so depth costs nothing per event,
    # and it gets a copy of the context variables. The nursery cannot raise: `activate` never does.
    async with trio.open_nursery() as nursery:
        nursery.start_soon(activate, child)
    parent.release(child)
    error = await outcome_error(child)
    if error is not None:
        parent.source = child
        raise error
    return child


async def outcome_error(child: Activation) -> BaseException | None:
    """Return what the parent of an ended activation is to raise, if anything.

    Raises:
        trio.Cancelled: the child was cancelled because its parent is.
    """
    if child.error is not None:
        return child.error
    if child.status is not Status.CANCELLED:
        return None
    await checkpoint_if_cancelled()
    if child.invocation.stream.closed:
        return StreamClosedError("the run's stream was closed while a child ran")
    return BranchCancelledError(f"agent {child.agent.name!r} was cancelled")


@enable_ki_protection
async def activate(activation: Activation, *, started: bool = False) -> None:
    """Run one activation to its one terminal status. Never raises.

    Args:
        activation: pending; afterwards ended.
        started: its fan-out has started it together with its siblings, so it runs up to its
            first checkpoint whatever happens to them. Branches that fail in one tick then fail
            together, in whichever order the scheduler takes them.
    """
    clock = trio.current_time
    began = clock()
    error: BaseException | None = None
    corrupted = False
    try:
        with activation.scope:
            try:
                if not started:
                    await checkpoint_if_cancelled()
                activation.start()
                await _perform(activation)
                await activation.flush()
                # A cancelled activation cannot win a race by returning normally.
                await checkpoint_if_cancelled()
            except BaseException as exc:  # noqa: BLE001  # sorted out below; nothing is swallowed
                error = exc
    except RuntimeError:
        # Everything the agent raises is caught inside: this is the scope itself, which found
        # another one still open inside it.
        corrupted = True
    activation.duration = clock() - began
    step, failure = await _judge(activation, error, corrupted=corrupted)
    if failure is not None:
        source = activation.source
        if source is not None and source.error is failure:
            activation.own = source.own
        else:
            activation.own = _failed_of_itself(activation, failure)
            note_origin(failure, activation.place.path)
        activation.error = failure
    activation.end(step)


async def _perform(activation: Activation) -> None:
    agent = activation.agent
    ctx = activation.context
    if agent.before_agent_callback:
        instead = await _call_back(agent.before_agent_callback, ctx)
        if instead is not None:
            await activation.emit(instead)
            activation.store_output()
            return
    if agent._kind == "generator":  # noqa: SLF001  # the other half of Agent
        await _drive(activation, agent.run(ctx))  # type: ignore[arg-type]  # told apart by _kind
    else:
        await _run_coroutine(activation, ctx)
    if agent.after_agent_callback:
        extra = await _call_back(agent.after_agent_callback, ctx)
        if extra is not None:
            await activation.emit(extra)
    activation.store_output()


@disable_ki_protection
async def _call_back(callbacks: Sequence[AgentCallback], ctx: InvocationContext) -> Content | Event | str | None:
    for callback in callbacks:
        result = callback(ctx)
        if inspect.isawaitable(result):
            result = await result
        if result is not None:
            return result
    return None


@disable_ki_protection
async def _run_coroutine(activation: Activation, ctx: InvocationContext) -> None:
    result = await activation.agent.run(ctx)  # type: ignore[misc]  # told apart by _kind
    if result is not None:
        await activation.emit(as_result(result))


def as_result(value: Any) -> Event | Content | str:
    """Return the event for what an agent returned: an event, a content, text, or its output."""
    return value if isinstance(value, Event | Content | str) else Event(output=value)


@enable_ki_protection
async def _drive(activation: Activation, agen: AsyncGenerator[Any, None]) -> None:
    """Emit what ``agen`` yields; what ``emit`` raises is raised at the ``yield``."""
    try:
        await _step_through(activation, agen)
    finally:
        if agen.ag_frame is not None:
            # Only an interrupt between two steps, or an agent that does not give up, gets here.
            await _close(agen)


@disable_ki_protection
async def _step_through(activation: Activation, agen: AsyncGenerator[Any, None]) -> None:
    emit = activation.emit
    advance = agen.__anext__
    refusals = 0
    try:
        item = await advance()
        while True:
            error: BaseException | None = None
            try:
                await emit(item)
            except BaseException as exc:  # noqa: BLE001  # raised again, at the agent's yield
                error = exc
            if error is None:
                refusals = 0
                item = await advance()
                continue
            if isinstance(error, trio.Cancelled | RunEndedError):
                activation.reached = activation.reached or activation.scope.cancel_called
                refusals += 1
                if refusals > MAX_REFUSALS:
                    break
            item = await agen.athrow(error)
    except StopAsyncIteration:
        return
    message = (
        f"agent {activation.agent.name!r} ({activation.place.path}) was cancelled, and yielded again "
        f"{MAX_REFUSALS} times; let trio.Cancelled pass: catch `Exception`, not `BaseException`"
    )
    raise UncancellableAgentError(message)


async def _close(agen: AsyncGenerator[Any, None]) -> None:
    with trio.CancelScope(shield=True) as grace:
        grace.cancel("the agent is being closed")
        # "ignored GeneratorExit": it does not give up even now, and has been told of already.
        with suppress(RuntimeError):
            await agen.aclose()


async def _judge(
    activation: Activation, error: BaseException | None, *, corrupted: bool
) -> tuple[Step, BaseException | None]:
    """Say how the activation ended, and with which failure."""
    if error is not None:
        error = _split_cancellation(activation, error)
    if error is None:
        return (Step.FAIL, _escaped(activation, error)) if corrupted else (Step.COMPLETE, None)
    if isinstance(error, BranchCancelledError):
        return Step.CANCEL, None
    if isinstance(error, StreamClosedError) and activation.invocation.stream.closed:
        return Step.CANCEL, None
    if not isinstance(error, trio.Cancelled):
        return Step.FAIL, error
    if activation.scope.cancel_called:
        return Step.CANCEL, None
    try:
        await checkpoint_if_cancelled()
    except trio.Cancelled:
        return Step.CANCEL, None
    # Cancelled, but nothing around this activation is: a scope inside it was, and did not catch it.
    return Step.FAIL, _escaped(activation, error)


def _failed_of_itself(activation: Activation, failure: BaseException) -> bool:
    """Whether no cancellation by a barrier came before the failure."""
    if activation.reached:
        return False
    if not activation.scope.cancel_called:
        return True
    todo: list[BaseException | None] = [failure]
    seen: set[int] = set()
    while todo:
        error = todo.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        if isinstance(error, trio.Cancelled | BranchCancelledError):
            return False
        todo.append(error.__context__)
        if isinstance(error, BaseExceptionGroup):
            todo.extend(error.exceptions)
    return True


def _split_cancellation(activation: Activation, error: BaseException) -> BaseException:
    """Take cancellations, and an interrupt, out of a group that the agent's own nursery raised."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    fatal = _first_fatal(error)
    if fatal is not None:
        return fatal
    kinds: tuple[type[BaseException], ...] = (trio.Cancelled, BranchCancelledError)
    if activation.invocation.stream.closed:
        kinds = (*kinds, StreamClosedError)
    cancelled, rest = error.split(kinds)
    if cancelled is None:
        return error
    return rest if rest is not None else _first_leaf(cancelled)


def _first_fatal(error: BaseException) -> BaseException | None:
    todo = [error]
    while todo:
        found = todo.pop(0)
        if isinstance(found, BaseExceptionGroup):
            todo[:0] = found.exceptions
        elif not isinstance(found, Exception | trio.Cancelled | GeneratorExit):
            return found
    return None


def _first_leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _escaped(activation: Activation, cause: BaseException | None) -> BaseException:
    name = activation.agent.name
    message = (
        f"a cancellation escaped from agent {name!r} ({activation.place.path}), which was not cancelled itself: a "
        "helper async generator holds a cancel scope or nursery open over a `yield`. Pass the context to the helper "
        "and let it `await ctx.emit(...)` inside its scope instead of yielding, or open the scope in the agent"
    )
    error = EscapedCancellationError(message)
    error.__cause__ = cause
    return error
