"""The contract of an agent: what can stand in a tree.

An agent is a definition: immutable, without run state, safe to run twice at once. It is one of
three shapes, told apart once, when it is defined: an async generator (``yield`` emits), a
coroutine (its return value is its output), or, by ``@agent``, a plain function that runs in a
thread.
"""

from __future__ import annotations

import inspect
import keyword
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from collections.abc import (
    Set as AbstractSet,
)
from typing import Any, TypeAlias, final

from parallel_agent.context import InvocationContext
from parallel_agent.errors import (
    AgentFunctionError,
    TreeError,
)
from session.content import Content
from session.event import USER, Event

__all__ = ["Agent", "AgentCallback", "check_agent"]

AgentCallback: TypeAlias = Callable[
    [InvocationContext], "Content | Event | str | Awaitable[Content | Event | str | None] | None"
]
"""Called before or after an agent; plain or async. What it returns becomes an event."""


class Agent:
    """Something that runs: one node of a tree, with the agents below it.

    Subclass it with one method, ``run``, an async generator or a coroutine. (A subclass without
    it is a base for others, of which no object can be made.)::

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
        AgentFunctionError: ``run`` is missing, or it is neither an async generator function nor a
            coroutine function of the context.
    """

    run_shape: str = "coroutine"
    """What ``run`` is: ``"generator"`` (async) or ``"coroutine"``."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Find out once, when the class is made, what shape its ``run`` has."""
        super().__init_subclass__(**kwargs)
        if "run_shape" in cls.__dict__:
            return  # it says for itself, object by object
        run = cls.run
        if run is Agent.run:
            return  # a base for others
        if inspect.isasyncgenfunction(run):
            cls.run_shape = "generator"
        elif inspect.iscoroutinefunction(run):
            cls.run_shape = "coroutine"
        else:
            message = (
                f"{cls.__name__}.run must be `async def run(self, ctx)`, with or without `yield`"
            )
            raise AgentFunctionError(message)
        if inspect.isfunction(inspect.getattr_static(cls, "run")):
            try:
                inspect.signature(run).bind(None, None)
            except TypeError as exc:
                message = (
                    f"{cls.__name__}.run is called with one argument, the context, "
                    f"but its signature is {inspect.signature(run)} ({exc})"
                )
                raise AgentFunctionError(message) from None

    def __init__(
        self,
        name: str,
        sub_agents: Iterable[Agent] = (),
        *,
        description: str = "",
        output_key: str | None = None,
        before_agent_callback: AgentCallback | Sequence[AgentCallback] | None = (),
        after_agent_callback: AgentCallback | Sequence[AgentCallback] | None = (),
    ) -> None:
        """See the class."""
        if "_tree_index" in vars(self):
            message = f"{self!r} is defined already; make a new agent, definitions do not change"
            raise TreeError(message)
        if type(self).run is Agent.run:
            message = f"{type(self).__name__} must implement `async def run(self, ctx)`"
            raise AgentFunctionError(message)
        self._name = name
        self._sub_agents = _as_children(self, name, sub_agents)
        self._description = description
        self._output_key = _as_output_key(name, output_key)
        self._before = _as_callbacks(name, before_agent_callback)
        self._after = _as_callbacks(name, after_agent_callback)
        indices = [child._tree_index for child in self._sub_agents]  # noqa: SLF001  # agents among themselves
        self._tree_index: _Index = _Index(self, indices)

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
        return self._tree_index.find(name)

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
    tree of any shape costs little more than a step per agent. ``size`` says how many entries of
    the shared table are this tree's own; the rest belong to trees built around it later.
    """

    __slots__ = ("size", "table")

    def __init__(self, parent: Agent, below: Iterable[_Index]) -> None:
        indices = sorted(below, key=lambda index: -index.size)
        largest = indices[0] if indices else None
        if largest is None:
            self.table: dict[str, tuple[int, Agent]] = {}
        elif len(largest.table) == largest.size:
            self.table = largest.table
        else:
            self.table = dict(largest.entries())
        added: list[str] = []
        try:
            for index in indices[1:]:
                for name, (_, agent) in index.entries():
                    _add(self.table, name, agent, added)
            _add(self.table, parent.name, parent, added)
        except TreeError:
            for name in added:  # the table may be another tree's, too
                del self.table[name]
            raise
        self.size: int = len(self.table)

    def entries(self) -> list[tuple[str, tuple[int, Agent]]]:
        return list(self.table.items())[: self.size]

    def find(self, name: str) -> Agent | None:
        position, agent = self.table.get(name, (self.size, None))
        return agent if position < self.size else None


def _add(table: dict[str, tuple[int, Agent]], name: str, agent: Agent, added: list[str]) -> None:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        hint = "letters, digits and underscores, no digit first"
        if not isinstance(name, str):
            hint = "the name comes first, then the agents below"
        elif name == "<lambda>":
            hint = "give a lambda one: agent(function, name=...)"
        message = f"agent name {name!r:.80} is no identifier: {hint}"
        raise TreeError(message)
    if name == USER:
        message = f"no agent may be called {USER!r}: it is the author of what people say"
        raise TreeError(message)
    there = table.get(name)
    if there is not None:
        if there[1] is agent:
            message = (
                f"agent {name!r} stands in the tree twice; make a second one with its own name"
            )
        else:
            message = (
                f"two agents in the tree are called {name!r} ({there[1]!r} and {agent!r}); "
                "names are unique"
            )
        raise TreeError(message)
    table[name] = (len(table), agent)
    added.append(name)


def check_agent(agent: object, what: str) -> None:
    """Refuse what is no agent, or not yet one; ``what`` names the place it was given to.

    Raises:
        TreeError: with what to do about it.
    """
    if not isinstance(agent, Agent):
        hint = "; make it one with @agent" if callable(agent) else ""
        if isinstance(agent, type) and issubclass(agent, Agent):
            hint = "; make an object of it: call it"
        message = f"{what} is no agent but {agent!r:.80}{hint}"
        raise TreeError(message)
    if "_tree_index" not in vars(agent):
        message = (
            f"{what}, a {type(agent).__name__}, is no agent yet: "
            "its __init__ has not called super().__init__(name, ...), or has not ended"
        )
        raise TreeError(message)


def _as_children(parent: Agent, name: str, sub_agents: Iterable[Agent]) -> tuple[Agent, ...]:
    # A set would do but for its order, which is another one in the next process.
    has_no_order = isinstance(sub_agents, AbstractSet | Mapping)
    if has_no_order or isinstance(sub_agents, Agent) or not isinstance(sub_agents, Iterable):
        message = f"sub_agents of {name!r} must be a list of agents, not {sub_agents!r}"
        raise TreeError(message)
    children = tuple(sub_agents)
    for position, child in enumerate(children):
        if child is parent:
            message = f"agent {name!r} is to stand below itself; a tree has no cycles"
            raise TreeError(message)
        check_agent(child, f"sub_agents[{position}] of {name!r}")
    return children


def _as_output_key(name: str, key: str | None) -> str | None:
    if key is not None and (not isinstance(key, str) or not key):
        message = f"output_key of {name!r} must be text that is not empty, not {key!r}"
        raise TreeError(message)
    return key


def _as_callbacks(
    name: str, given: AgentCallback | Sequence[AgentCallback] | None
) -> tuple[AgentCallback, ...]:
    is_many = not callable(given) and isinstance(given, Iterable | None)
    callbacks: tuple[AgentCallback, ...] = tuple(given or ()) if is_many else (given,)  # type: ignore[arg-type,assignment]  # checked below
    for callback in callbacks:
        if not callable(callback):
            message = f"a callback of {name!r} is not callable: {callback!r}"
            raise TreeError(message)
    return callbacks
